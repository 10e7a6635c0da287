"""What Grafana and Prometheus are given asks for what is really exported, and each alert says what to do."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from np1.codec import BEAT_BYTE, FLAG_STOPPING, FRAME_BYTES
from tests.e2e.api import Api
from tests.e2e.node import Node
from tests.e2e.promql import NotUnderstoodError, Used, read
from tests.e2e.system import System, eventually, new_folder, running

DOCS = Path(__file__).parents[2] / "docs"
RULES: dict[str, Any] = yaml.safe_load((DOCS / "operations" / "alerts.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((DOCS / "operations" / "grafana-dashboard.json").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROMETHEUS = {"up": {"job", "instance"}}  # what Prometheus itself adds
ADDED = {"job", "instance"}
# Grafana's names for units that are used; others are shown as they are written, without an error.
UNITS = {"short", "cps", "reqps", "s", "ms", "bytes", "percentunit", "dateTimeAsIso"}

Exported = dict[str, list[dict[str, str]]]  # metric -> labels of each of its series


class _Well(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Nothing: the test looks at metrics."""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A real installation in which beats were taken and refused."""
    folder = tmp_path_factory.mktemp("observing")
    monitor = HTTPServer(("127.0.0.1", 0), _Well)
    threading.Thread(target=monitor.serve_forever, daemon=True).start()
    sets = {
        "worker.dead_man_url": f"http://127.0.0.1:{monitor.server_port}/",
        "worker.dead_man_s": 1,
        "worker.publish.file": folder / "roots.jsonl",
    }
    with running(System(new_folder(folder), sets=sets)) as system:
        make_traffic(system)
        yield system
    monitor.shutdown()
    monitor.server_close()


@pytest.fixture(scope="module")
def exported(observed: System) -> Exported:
    """Every series of it."""
    config = observed.config
    ports = [config[part]["metrics_port"] for part in ("engine", "worker", "serve")]
    return scraped([*ports, config["web"]["port"]])


def make_traffic(system: System) -> None:
    """A node that beats and stops, and a datagram that nobody signed."""
    (made,) = system.provision("observed")["nodes"]
    with Node(system.api, made) as node:
        node.beat()
        node.beat(flags=FLAG_STOPPING)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(bytes([BEAT_BYTE]) + bytes(FRAME_BYTES - 1), system.beats)
    wanted = ("nodepulse_intake_rejected{", "nodepulse_decisions_events{")
    eventually(
        lambda: all(any(name.startswith(each) for name in system.metrics()) for each in wanted), within_s=10
    )


def scraped(ports: list[int]) -> Exported:
    found: Exported = {}
    for port in ports:
        for family in text_string_to_metric_families(Api("127.0.0.1", port).text("/metrics")):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def expressions() -> list[tuple[str, str]]:
    """(where it stands, expression) of everything that is asked."""
    found = [(rule["alert"], rule["expr"]) for rule in ALERTS]
    return found + [(panel["title"], each["expr"]) for panel in PANELS for each in panel["targets"]]


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda text: str(text)[:40])
def test_every_metric_and_label_of_an_expression_is_exported(where: str, expression: str, exported: Exported):
    asked = read(expression)
    known: set[str] = set()
    for used in asked.selectors:
        labels = labels_of(used, exported)
        known |= labels
        for matcher in used.matchers:
            assert matcher.label in labels, f"{used.metric} has no label {matcher.label}"
            if matcher.sign == "=" and matcher.label not in ADDED and used.metric not in PROMETHEUS:
                values = {one.get(matcher.label) for one in exported[used.metric]}
                assert matcher.value in values, f"{used.metric} has {sorted(map(str, values))}"
    assert asked.grouped_by <= known, f"{where}: {asked.grouped_by - known}"


def labels_of(used: Used, exported: Exported) -> set[str]:
    if used.metric in PROMETHEUS:
        return PROMETHEUS[used.metric]
    assert used.metric in exported, f"{used.metric} is not exported"
    return {label for series in exported[used.metric] for label in series} | ADDED


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_what_to_do(rule: dict[str, Any]):
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["alert"].startswith("NodePulse")
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(rule["annotations"].values())
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/operations.md"
    assert anchor in anchors(), f"docs/operations.md has no heading for #{anchor}"


def test_what_an_alert_shows_of_its_labels_its_expression_keeps():
    for rule in ALERTS:
        asked = read(rule["expr"])
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        if asked.grouped_by:
            assert shown <= asked.grouped_by, rule["alert"]


def test_alerts_have_names_of_their_own():
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    assert len(names) > 20


def test_every_runbook_entry_of_the_document_belongs_to_an_alert():
    text = (DOCS / "operations.md").read_text()
    part = text.partition("## What each alert means")[2].partition("\n## ")[0]
    entries = {anchor_of(line) for line in part.splitlines() if line.startswith("### ")}
    elsewhere = {"out-of-step"}  # stands where restoring is explained
    assert entries | elsewhere == {rule["annotations"]["runbook_url"].partition("#")[2] for rule in ALERTS}


def anchors() -> set[str]:
    lines = (DOCS / "operations.md").read_text().splitlines()
    return {anchor_of(line) for line in lines if line.startswith("#")}


def anchor_of(heading: str) -> str:
    """As GitHub makes them."""
    text = heading.lstrip("#").strip().lower()
    return re.sub(r"[^a-z0-9 _-]", "", text).replace(" ", "-")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_title_a_unit_and_says_what_it_shows(panel: dict[str, Any]):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["type"] in ("timeseries", "stat")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references)) > 0
    assert all(target["legendFormat"] for target in panel["targets"])


def test_the_dashboard_is_one_that_grafana_takes():
    assert {"uid", "title", "schemaVersion", "templating", "time", "panels"} <= set(DASHBOARD)
    assert DASHBOARD["schemaVersion"] >= 36, "below it grafana rewrites the panels"
    names = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "instance"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ("a_b > 0", ["a_b"], set()),
        ('sum by (of, le) (rate(a{of=~"x.*",le!="1"}[5m]))', ["a"], {"of", "le"}),
        ("time() - a / 1000 > 15 and b == 0", ["a", "b"], set()),
        (
            'histogram_quantile(0.99, sum(rate(a_bucket{instance=~"$instance"}[$__rate_interval])))',
            ["a_bucket"],
            set(),
        ),
    ],
)
def test_the_scan_finds_what_an_expression_uses(expression: str, metrics: list[str], labels: set[str]):
    asked = read(expression)
    assert [used.metric for used in asked.selectors] == metrics
    assert asked.grouped_by == labels


@pytest.mark.parametrize(
    "expression",
    [
        "rates(a[5m])",
        "rate(a[5q])",
        "sum(a",
        "a)",
        'a{b="c}',
        "a{b}",
        "a offset 5m ~",
        "1 + 2",
        "sum by a (b)",
    ],
)
def test_the_scan_refuses_what_it_does_not_know(expression: str):
    with pytest.raises((NotUnderstoodError, IndexError, ValueError)):
        read(expression)
