"""What a beat says of a workload, case by case; how probes add up; how a manifest's `health` is read."""

from __future__ import annotations

import pytest

from node.drivers.port import Origin, Phase, Running
from node.health import Probed, Report, decide, probed
from node.health_spec import HealthSpec, parse_health

NOW, TTL = 1_000.0, 30.0
WEB = HealthSpec(http="http://127.0.0.1:1/", start_period_s=20)
REPORTS = HealthSpec(report=True, start_period_s=20)
WELL, ILL = Probed(True, 1, proved=True), Probed(False, 0, 3, "HTTP 500", proved=True)
NEVER_WELL = Probed(False, 0, 3, "refused")


def run(phase=Phase.RUNNING, origin=Origin.ORDERED, *, age_s=10.0, health=None):
    return Running(
        workload_id="w",
        name="w",
        version="1.0.0",
        digest="d",
        restarts=0,
        phase=phase,
        origin=origin,
        since_s=NOW - age_s,
        run="r",
        health=health,
    )


def said(state, *, age_s=1.0):
    return Report(state, NOW - age_s)


@pytest.mark.parametrize(
    ("running", "report", "probe", "updating", "state"),
    [
        # Nobody runs it for us: its own word, as long as that holds.
        (None, None, Probed(), False, "absent"),
        (None, said("healthy"), Probed(), False, "healthy"),
        (None, said("updating"), Probed(), False, "updating"),
        (None, said("healthy", age_s=29.9), Probed(), False, "healthy"),
        (None, said("healthy", age_s=30), Probed(), False, "unhealthy"),
        (None, said("updating", age_s=31), Probed(), False, "unhealthy"),
        # It runs, and nothing else was asked for.
        (run(), None, Probed(), False, "healthy"),
        (run(), said("unhealthy"), Probed(), False, "unhealthy"),
        (run(age_s=0.5), said("unhealthy"), Probed(), False, "healthy"),  # the run before it said that
        (run(origin=Origin.ADOPTED, age_s=0.5), said("unhealthy"), Probed(), False, "unhealthy"),
        # It does not run: whatever it said before.
        (run(Phase.FAILED), said("healthy"), WELL, False, "unhealthy"),
        (run(Phase.COMPLETED), said("healthy"), Probed(), False, "absent"),
        (run(Phase.STARTING), None, Probed(), False, "updating"),
        (run(Phase.STARTING, Origin.CRASHED), None, Probed(), False, "unhealthy"),
        # What was ordered is an update until it is over.
        (run(Phase.FAILED), None, Probed(), True, "updating"),
        (run(), said("healthy"), WELL, True, "updating"),
        (None, None, Probed(), True, "updating"),
        # A probe.
        (run(health=WEB), None, WELL, False, "healthy"),
        (run(health=WEB), None, ILL, False, "unhealthy"),
        (run(health=WEB), None, Probed(), False, "updating"),  # is starting, because it was ordered
        (run(health=WEB), None, NEVER_WELL, False, "updating"),
        (run(health=WEB, age_s=20), None, NEVER_WELL, False, "unhealthy"),
        (run(health=WEB, age_s=20), None, Probed(), False, "unhealthy"),
        (run(origin=Origin.CRASHED, health=WEB), None, Probed(), False, "unhealthy"),
        (run(origin=Origin.CRASHED, health=WEB), None, WELL, False, "healthy"),
        (run(origin=Origin.ADOPTED, health=WEB), None, Probed(), False, "healthy"),
        (run(origin=Origin.ADOPTED, health=WEB), None, NEVER_WELL, False, "unhealthy"),
        (run(origin=Origin.ADOPTED, health=WEB, age_s=20), None, Probed(), False, "unhealthy"),
        # Probe and word: the worse of both.
        (run(health=WEB), said("unhealthy"), WELL, False, "unhealthy"),
        (run(health=WEB), said("healthy"), ILL, False, "unhealthy"),
        (run(health=WEB), said("updating"), WELL, False, "updating"),
        (run(health=WEB, age_s=60), said("healthy", age_s=40), WELL, False, "unhealthy"),
        # Its word is demanded.
        (run(health=REPORTS), None, Probed(), False, "updating"),
        (run(health=REPORTS, age_s=20), None, Probed(), False, "unhealthy"),
        (run(origin=Origin.CRASHED, health=REPORTS), None, Probed(), False, "unhealthy"),
        (run(origin=Origin.ADOPTED, health=REPORTS), None, Probed(), False, "healthy"),
        (run(health=REPORTS), said("healthy"), Probed(), False, "healthy"),
        (run(health=REPORTS, age_s=60), said("healthy", age_s=40), Probed(), False, "unhealthy"),
    ],
)
def test_a_beat_says(running, report, probe, updating, state):
    found = decide(running=running, report=report, probe=probe, updating=updating, now_s=NOW, ttl_s=TTL)
    assert found.state == state, found
    assert found.why


def test_a_probe_turns_only_after_its_thresholds():
    spec = HealthSpec(tcp=("a", 1), healthy_after=2, unhealthy_after=3)
    known, turned = Probed(), []
    for failure in (None, None, "x", "x", None, "x", "x", "x", None, None):
        known = probed(known, spec, failure=failure)
        turned.append(known.well)
    assert turned == [None, True, True, True, True, True, True, False, False, True]
    assert known.detail == ""
    assert known.proved


def test_a_health_object_is_read_with_its_defaults():
    assert parse_health({}) == HealthSpec()
    assert parse_health({"http": "http://127.0.0.1:8080/healthz"}).http == "http://127.0.0.1:8080/healthz"
    assert parse_health({"tcp": "[::1]:80"}).tcp == ("::1", 80)
    read = parse_health({"command": ["true"], "interval_s": 10, "report": True})
    assert (read.command, read.interval_s, read.report, read.probes) == (("true",), 10, True, True)
    assert not parse_health({"report": True}).probes


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ([], "health"),
        ({"htpp": ""}, "htpp"),
        ({"http": "ftp://a/"}, "http"),
        ({"http": "http://a:b/"}, "http"),
        ({"http": "http://[/"}, "http"),
        ({"http": 1}, "http"),
        ({"tcp": "127.0.0.1"}, "tcp"),
        ({"tcp": "a:0"}, "tcp"),
        ({"tcp": "a:99999"}, "tcp"),
        ({"tcp": "a:\u00b2"}, "tcp"),
        ({"tcp": ":1"}, "tcp"),
        ({"command": "true"}, "command"),
        ({"command": []}, "command"),
        ({"command": ["a\0b"]}, "command"),
        ({"command": ["\ud800"]}, "command"),
        ({"tcp": "a:1", "command": ["a"]}, "more than one"),
        ({"interval_s": 0}, "interval_s"),
        ({"interval_s": True}, "interval_s"),
        ({"start_period_s": 541}, "start_period_s"),
        ({"report": 1}, "report"),
    ],
)
def test_a_health_object_that_is_none_is_refused_by_name(value, where):
    with pytest.raises(ValueError, match=where):
        parse_health(value)
