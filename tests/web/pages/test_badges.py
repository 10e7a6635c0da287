"""Badges: private by default, words as text whatever is in them, and never an error that breaks a page."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
import pytest

from engine.core.ports import StoreUnavailableError
from storage.ids import new_id
from tests.web.control import Answered, Control
from tests.web.pages.test_status import make_public
from web.badge_svg import CHARS_MAX, Badge, badge, fit

SVG = "{http://www.w3.org/2000/svg}"
NASTY = '</text><script>alert("1")</script>&'


def said(body: bytes) -> list[str]:
    """What is written on it; it must be whole XML of nothing but shapes and text."""
    root = ET.fromstring(body)
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{name}" for name in ("svg", "title", "clipPath", "rect", "g", "text")
    }
    return [element.text or "" for element in root.iter(f"{SVG}text")]


async def ask(control: Control, path: str, **headers: str) -> Answered:
    return await control.ask("GET", path, by=None, headers=headers)


def paths(control: Control) -> list[str]:
    return [
        "/badges/projects/alpha.svg",
        f"/badges/nodes/{control.node.node_id}.svg",
        f"/badges/workloads/{control.node.workload_ids[0]}.svg",
    ]


async def test_what_is_private_unknown_or_no_id_at_all_is_one_grey_badge(control: Control) -> None:
    odd = ["/badges/nodes/x.svg", f"/badges/nodes/{new_id()}.svg", f"/badges/workloads/{new_id()}.svg",
           "/badges/projects/%00.svg", "/badges/projects/" + "a" * 500 + ".svg", "/badges/projects/.svg.svg",
           "/badges/nodes/%F0%9F%92%A9.svg", "/badges/projects/beta.svg"]  # fmt: skip
    bodies = set()
    for path in (*paths(control), *odd):
        answer = await ask(control, path)
        assert answer.status == 404, path
        assert answer.headers["content-type"].startswith("image/svg+xml"), path
        assert said(answer.body) == ["NodePulse", "unknown"]
        bodies.add(answer.body)
    assert len(bodies) == 1, "the private one cannot be told from one that is not there"


async def test_badges_of_a_public_project_say_what_is_so(control: Control) -> None:
    await make_public(control, name=NASTY)
    control.engine.beat(control.node, control.app.backend.clock() - 60_000, control.app.backend.clock())
    await control.wait_state(control.node.node_id, "up")
    project, node, workload = [await ask(control, path) for path in paths(control)]
    assert said(project.body) == [fit(NASTY), "100 % up"]
    assert said(node.body) == ["mine", "up"]
    assert said(workload.body) == ["w0", "up"]
    for answer in (project, node, workload):
        assert answer.status == 200
        assert answer.headers["cache-control"] == "public, max-age=30"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    again = await ask(control, paths(control)[0], **{"if-none-match": project.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    foreign = await ask(control, f"/badges/nodes/{control.foreign_node.node_id}.svg")
    assert foreign.status == 404


async def test_while_we_do_not_listen_no_badge_tells_what_was_so_last(control: Control) -> None:
    await make_public(control)
    shard = control.app.backend.heads._shards[0]
    assert shard.head is not None
    stuck = msgspec.structs.replace(shard.head, watermark_ms=shard.head.watermark_ms - 60_000)
    shard.take = lambda _head, _ms: None  # type: ignore[method-assign]
    shard.head = stuck
    for path in paths(control):
        answer = await ask(control, path)
        assert (answer.status, said(answer.body)[1]) == (200, "not observed now"), path


async def test_a_retired_machine_and_a_retired_project_are_told_apart_from_a_fall(control: Control) -> None:
    await make_public(control)
    await control.ask("POST", f"/v1/nodes/{control.node.node_id}/retire")
    assert said((await ask(control, paths(control)[1])).body) == ["mine", "retired"]
    await control.ask("PATCH", "/v1/projects/alpha", json={"retired": True})
    control.app.backend.badges._entries.clear()
    assert (await ask(control, paths(control)[1])).status == 404


async def test_a_store_that_is_away_makes_a_grey_badge_and_no_error(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_public(control)

    async def away(*_args: object, **_named: object) -> None:
        raise StoreUnavailableError("PostgreSQL does not answer")

    for name in ("project", "node", "workload"):
        monkeypatch.setattr(control.app.backend.directory, name, away)
    for path in paths(control):
        answer = await ask(control, path)
        assert (answer.status, said(answer.body)) == (200, ["NodePulse", "not known now"])


async def test_so_many_badges_are_kept_and_no_more(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = control.app.backend.badges
    monkeypatch.setattr(kept, "_most", 3)
    for number in range(6):
        await ask(control, f"/badges/projects/p{number}.svg")
    assert kept.statistics()["kept"] == 3
    made = kept.statistics()["made_total"]
    await ask(control, "/badges/projects/p5.svg")
    assert kept.statistics()["made_total"] == made, "it was kept"


@pytest.mark.parametrize(
    "name",
    [
        NASTY,
        "\x00\x01\ud800",
        "a\nb\tc",
        "\u202eevil",
        "日本語のノード" * 20,
        "",
        "]]>",
        "'\"&<>",
        "\uffff\ufffe",
        "x" * 5_000,
    ],
)
def test_any_name_makes_a_whole_picture(name: str) -> None:
    body = badge(Badge(name, name, "green"))
    label, message = said(body)
    assert label == message == (fit(name) or "–")
    assert len(label) <= CHARS_MAX
    assert len(body) < 4_000
    assert "\u202e" not in label
