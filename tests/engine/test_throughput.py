"""Rates and waits of the last minute, and percentiles out of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.core.figures import WAITED_BOUNDS_MS, waited_ms
from engine.throughput import Throughput
from storage.metrics_http import new_registry, render_metrics


def test_the_rate_is_that_of_the_last_seconds_and_not_since_the_start():
    throughput = Throughput()
    for second in range(20):
        throughput.answered(np.full(100 if second < 10 else 4, 1_000), 1_003)
        throughput.read(second * 1_000, {})
    assert throughput.beats_per_s == pytest.approx(4)


def test_what_waited_more_than_a_minute_ago_is_forgotten_but_for_the_total():
    throughput = Throughput()
    throughput.read(0, {"mac": 3})
    throughput.answered(np.zeros(7, np.int64), 4_000)
    for second in range(1, 70):
        throughput.read(second * 1_000, {"mac": 3})
    throughput.answered(np.zeros(2, np.int64), 1)
    assert sum(throughput.waited_last_min()) == 2
    assert throughput.rejected_last_min({"mac": 5, "row": 1}) == {"mac": 2, "row": 1}
    assert throughput.statistics().seconds["+Inf"] == 9


def test_percentiles_lie_between_the_bounds_that_they_fell_into():
    counts = [0] * (len(WAITED_BOUNDS_MS) + 1)
    assert waited_ms(counts, 0.5) is None
    counts[2], counts[5] = 90, 10  # 2 to 5 ms, 20 to 50 ms
    assert waited_ms(counts, 0.5) == pytest.approx(2 + 3 * 50 / 90)
    assert waited_ms(counts, 0.99) == pytest.approx(20 + 30 * 9 / 10)
    counts[-1] = 1_000
    assert waited_ms(counts, 0.99) == math.inf


def test_prometheus_gets_a_histogram_whose_buckets_add_up():
    throughput = Throughput()
    throughput.answered(np.array([1_000, 996, 0]), 1_000)
    registry = new_registry({"ack": lambda: throughput.statistics()._asdict()})
    text = render_metrics(registry)[1].decode()
    assert "# TYPE nodepulse_ack_seconds histogram" in text
    assert 'nodepulse_ack_seconds_bucket{le="0.001"} 1.0' in text
    assert 'nodepulse_ack_seconds_bucket{le="0.005"} 2.0' in text
    assert 'nodepulse_ack_seconds_bucket{le="+Inf"} 3.0' in text
    assert "nodepulse_ack_seconds_count 3.0" in text
    assert "nodepulse_ack_seconds_sum 1.004" in text
