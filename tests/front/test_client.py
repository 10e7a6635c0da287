"""The typed client: what is generated is what the API is, and what is written by hand does no harm twice.

Against real servers: a scripted one for what goes wrong (scripted.py), the product itself in
tests/e2e/test_api_docs.py.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import types as modules
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
import stamina

import nodepulse.client
from nodepulse.client import (
    Client,
    CutOffError,
    Fault,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
    follow_events,
    ndjson,
    pages,
)
from nodepulse.client import types as ours
from nodepulse.client.calls import _worth_another
from nodepulse.client.generate import FOLDER, document, sources
from nodepulse.client.operations import operations
from nodepulse.client.schemas import annotation, class_name, types_source
from tests.front.scripted import Says, refuses, says, scripted

POINTS = ours.PointsRequest(day="2026-01-31", rows=[])
COMMIT = {
    "commit_id": "c",
    "project": "alpha",
    "day": "2026-01-31",
    "rows": 0,
    "total_points": "0",
    "committed_at": "2026-02-01T00:00:00.000Z",
    "committed_by": "key:k",
    "revision": 1,
    "reason": "",
    "seal_revision": 1,
    "seal_root": "3f" * 32,
    "difference": None,
}
EVENT = {
    "event_id": "e",
    "kind": "node.down",
    "node_id": None,
    "workload_id": None,
    "since": "2026-01-31T00:00:00.000Z",
    "at": "2026-01-31T00:00:00.000Z",
    "workloads": [],
    "detail": "",
    "cursor": "7",
}


@pytest.fixture(autouse=True)
def no_pause_between_attempts() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


# -- what is generated


def test_the_committed_files_are_what_the_generator_writes_now():
    written = sources(document())
    stale = [name for name, text in written.items() if (FOLDER / name).read_text() != text]
    assert stale == [], "routes have changed: python -m nodepulse.client.generate"
    assert {path.name for path in FOLDER.glob("*.py")} == set(written)


def test_every_operation_has_its_method():
    missing = [one.name for one in operations(document()) if not callable(getattr(Client, one.name, None))]
    assert missing == []


def test_no_method_returns_just_anything():
    tree = ast.parse((FOLDER / "api.py").read_text())
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert len(methods) > 10
    loose = [node.name for node in methods if ast.unparse(node.returns).startswith("Any")]
    assert loose == []


def test_every_described_example_is_one_of_the_generated_type():
    """What the API says it answers and takes, the types here can read and write again."""
    count = 0
    for operation in operations(document()):
        contents = [operation.described.get("requestBody", {}).get("content", {}), *operation.successes]
        for media in (content.get("application/json", {}) for content in contents):
            name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
            if "example" in media and name:
                read = msgspec.convert(media["example"], getattr(ours, class_name(name)))
                assert msgspec.json.decode(msgspec.json.encode(read)) == media["example"], name
                count += 1
    assert count > 10


def test_the_package_imports_nothing_of_ours_but_itself():
    told = subprocess.run(
        [sys.executable, "-c", "import sys, nodepulse.client; print(*sys.modules)"],
        cwd=Path(nodepulse.client.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    theirs = {"np1", "storage", "web", "worker", "node", "bench", "quart", "trio", "ruff"}
    assert "nodepulse.client.generated.api" in told
    assert [name for name in told if name.split(".")[0] in theirs] == []
    # The package around it says its version, which stands there.
    assert {name for name in told if name.startswith("engine.")} <= {"engine.core", "engine.core.version"}
    assert {name for name in told if name.startswith("nodepulse.") and "client" not in name} == set()


def generated(components: dict) -> modules.ModuleType:
    """The module that these schemas become."""
    module = modules.ModuleType("generated_for_a_test")
    sys.modules[module.__name__] = module  # where msgspec looks names up
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Asked"}}}}
    paths = {"/v1/x": {"post": {"operationId": "x", "requestBody": body, "responses": {}}}}
    source = types_source({"paths": paths, "components": {"schemas": {"Asked": STRUCT, **components}}})
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module


STRUCT = {
    "type": "object",
    "title": "Asked",
    "description": 'Says "so"',
    "properties": {
        "from": {"type": "string"},
        "limit": {"type": "integer", "default": 3},
        "class": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["from"],
}


def test_what_a_request_leaves_out_is_not_sent_and_null_is():
    made = generated({})
    assert json.loads(msgspec.json.encode(made.Asked(from_="a"))) == {"from": "a"}
    assert json.loads(msgspec.json.encode(made.Asked(from_="a", class_=None))) == {"from": "a", "class": None}
    assert msgspec.json.decode(b'{"from": "a"}', type=made.Asked).limit is msgspec.UNSET


def test_what_an_answer_leaves_out_has_its_default():
    fields = {
        "errors": {"type": "array", "items": {"type": "string"}, "default": []},
        "limit": {"default": 3},
    }
    made = generated({"Told": {"type": "object", "title": "Told", "properties": fields, "required": []}})
    told = msgspec.json.decode(b"{}", type=made.Told)
    assert (list(told.errors), told.limit) == ([], 3)


def test_members_of_a_tagged_union_are_told_by_their_tag():
    def member(tag: str) -> dict:
        fields = {"type": {"enum": [tag]}, "amount": {"type": "integer"}}
        return {"type": "object", "title": tag, "properties": fields, "required": ["type", "amount"]}

    refs = {tag: f"#/components/schemas/{tag}" for tag in ("Fixed", "Linear")}
    union = {
        "anyOf": [{"$ref": ref} for ref in refs.values()],
        "discriminator": {"propertyName": "type", "mapping": {tag.lower(): ref for tag, ref in refs.items()}},
    }
    holder = {"type": "object", "title": "Holder", "properties": {"rule": union}, "required": ["rule"]}
    made = generated({"Fixed": member("Fixed"), "Linear": member("Linear"), "Holder": holder})
    read = msgspec.json.decode(b'{"rule": {"type": "linear", "amount": 2}}', type=made.Holder)
    assert read.rule == made.Linear(amount=2)
    assert json.loads(msgspec.json.encode(read)) == {"rule": {"type": "linear", "amount": 2}}


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        (
            {"type": "array", "items": {"$ref": "#/components/schemas/Page_Item_"}},
            "Sequence[types.Page_Item]",
        ),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "str | None"),
        ({"enum": ["a", 1]}, "Literal['a', 1]"),
        (
            {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": ["null", "string"]}}]},
            "Sequence[str | None] | None",
        ),
        ({"$ref": "#/components/schemas/web.licences.OwnersAnswer"}, "types.LicencesOwnersAnswer"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "Mapping[str, int]"),
        ({"type": "object"}, "Mapping[str, Any]"),
        ({"type": ["number", "null"]}, "float | None"),
        ({}, "Any"),
    ],
)
def test_a_schema_becomes_the_type_that_it_describes(schema, written):
    assert annotation(schema, prefix="types.") == written


# -- asking


def test_the_key_goes_as_bearer_and_is_not_in_what_is_printed():
    with scripted(says({"items": [], "next_cursor": None})) as server, Client(server.url, "np_s3") as client:
        assert list(client.list_nodes().items) == []
        assert server.asked[0].headers["authorization"] == "Bearer np_s3"
        assert "np_s3" not in repr(client)


def test_what_stands_in_a_path_cannot_leave_its_place():
    with scripted(refuses(404, "not_found")) as server, Client(server.url) as client:
        with pytest.raises(ProblemError):
            client.get_node("../x?y#z")
        assert server.asked[0].target == "/v1/nodes/..%2Fx%3Fy%23z"


def test_times_are_sent_in_utc_and_a_time_without_a_zone_is_refused():
    answer = says({})
    with scripted(answer) as server, Client(server.url) as client:
        with pytest.raises(UnexpectedAnswerError):
            client.get_uptime("w", from_=datetime(2026, 1, 31, 12, tzinfo=UTC), intervals=True)
        assert (
            server.asked[0].target
            == "/v1/workloads/w/uptime?from=2026-01-31T12%3A00%3A00.000Z&intervals=true"
        )
        with pytest.raises(ValueError, match="zone"):
            client.get_uptime("w", from_=datetime(2026, 1, 31))
        server.answers.append(refuses(400))
        with pytest.raises(ProblemError):
            client.read_points("alpha", day=date(2026, 1, 31).isoformat())
        assert server.asked[1].target == "/v1/projects/alpha/points?day=2026-01-31"


def test_a_list_is_read_to_its_end_with_the_same_filters():
    first = says({"items": [EVENT], "next_cursor": "7"})
    second = says({"items": [{**EVENT, "cursor": "8"}], "next_cursor": None})
    with scripted(first, second) as server, Client(server.url) as client:
        found = [event.cursor for event in pages(client.list_events, project="alpha", limit=1)]
        assert found == ["7", "8"]
        assert [asked.target for asked in server.asked] == [
            "/v1/events?project=alpha&limit=1",
            "/v1/events?project=alpha&after=7&limit=1",
        ]


DESIRED = {"node_id": "n", "interval_ms": 60_000, "workloads": []}


def test_what_has_not_changed_is_the_very_object_that_one_had():
    changed = {**DESIRED, "node_id": "another"}
    answers = [says(DESIRED, etag='"1"'), Says(304, b"", (("etag", '"1"'),)), says(changed, etag='"2"')]
    with scripted(*answers) as server, Client(server.url) as client:
        first = client.get_desired()
        assert client.get_desired(known=first) is first
        second = client.get_desired(known=first)
        assert (second.etag, second.value.node_id) == ('"2"', "another")
        asked = [one.headers.get("if-none-match") for one in server.asked]
        assert asked == [None, '"1"', '"1"']


# -- refusals


def test_a_refusal_says_what_where_and_under_which_id():
    problem = {
        "type": "urn:nodepulse:problem:rows_refused",
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "rows_refused",
        "detail": "nothing was committed",
        "request_id": "r1",
        "errors": [{"detail": "not an id", "pointer": "/rows/0/workload_id"}],
    }
    with scripted(says(problem, 422)) as server, Client(server.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.commit_points("alpha", POINTS)
        error = caught.value
        assert (error.status, error.code, error.detail) == (422, "rows_refused", "nothing was committed")
        assert (error.request_id, error.errors) == ("r1", (Fault("not an id", "/rows/0/workload_id"),))


def test_a_proxys_page_is_a_refusal_as_well():
    with scripted(Says(502, b"<h1>Bad Gateway</h1>")) as server, Client(server.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.livez()
        assert (caught.value.code, caught.value.detail) == ("http_502", "<h1>Bad Gateway</h1>")


def test_an_answer_that_is_not_what_was_described_is_told_as_that():
    answer = says({"items": 3})
    with scripted(answer) as server, Client(server.url) as client, pytest.raises(UnexpectedAnswerError):
        client.list_nodes()


# -- repeating


@pytest.mark.parametrize(
    "bad", [refuses(503, retry_after="0"), refuses(429, retry_after="0"), refuses(503), Says(0)]
)
def test_a_question_is_asked_again(bad):
    answer = says({"items": [], "next_cursor": None})
    with scripted(bad, bad, answer) as server, Client(server.url) as client:
        assert list(client.list_nodes().items) == []
        assert len(server.asked) == 3


def test_after_the_last_attempt_the_refusal_is_told():
    with scripted(*[refuses(503)] * 4) as server, Client(server.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.list_nodes()
        assert (caught.value.status, len(server.asked)) == (503, 3)


def test_what_is_made_is_made_once_however_often_it_is_asked_for():
    busy = refuses(409, "still_running", retry_after="1")
    with scripted(Says(0), busy, says(COMMIT, 201)) as server, Client(server.url) as client:
        assert client.commit_points("alpha", POINTS).commit_id == "c"
        keys = {asked.headers["idempotency-key"] for asked in server.asked}
        bodies = {asked.body for asked in server.asked}
        assert (len(server.asked), len(keys), len(bodies)) == (3, 1, 1)


def test_each_call_has_a_key_of_its_own_unless_one_is_given():
    with scripted(*[says(COMMIT, 201)] * 3) as server, Client(server.url) as client:
        client.commit_points("alpha", POINTS)
        client.commit_points("alpha", POINTS)
        client.commit_points("alpha", POINTS, idempotency_key="mine")
        first, second, third = (asked.headers["idempotency-key"] for asked in server.asked)
        assert first != second
        assert third == "mine"


@pytest.mark.parametrize("bad", [refuses(503, retry_after="0"), Says(0)])
def test_what_may_have_been_done_is_not_done_again(bad):
    """A POST without an Idempotency-Key: nobody knows whether it was worked on."""
    request = ours.SessionRequest(node_id="n", sent_at="t", nonce="0", manager_version="1", signature="s")
    with scripted(bad, says({})) as server, Client(server.url) as client:
        with pytest.raises((ProblemError, UnreachableError)):
            client.open_session(request)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
def test_a_refusal_that_will_stay_one_is_not_asked_for_again(status):
    with scripted(*[refuses(status, "no")] * 2) as server, Client(server.url) as client:
        with pytest.raises(ProblemError):
            client.list_nodes()
        assert len(server.asked) == 1


def test_it_waits_as_long_as_it_is_asked_to_but_not_for_minutes():
    assert _worth_another(ProblemError(429, "rate", retry_after_s=7.0)) == 7.0
    assert _worth_another(ProblemError(503, "unavailable")) is True
    assert _worth_another(ProblemError(503, "unavailable", retry_after_s=600.0)) is False


def test_retry_after_may_be_a_date():
    with (
        scripted(*[refuses(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")] * 3) as server,
        Client(server.url) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.list_nodes()
    assert caught.value.retry_after_s == 0.0


def test_nobody_there_is_told_as_unreachable():
    with scripted() as server:
        url = server.url
    with Client(url) as client, pytest.raises(UnreachableError):
        client.livez()


# -- streams


def lines(*values: object) -> Says:
    return Says(200, b"".join(json.dumps(value).encode() + b"\n" for value in values))


def rows(client: Client) -> list[ours.WorkloadPoints]:
    with client._stream("GET", "/rows", accept="application/x-ndjson") as stream:
        return list(ndjson(stream, ours.WorkloadPoints))


ROW = {"workload_id": "w", "points": "1.5"}


def test_rows_come_as_their_type_up_to_the_end_marker():
    with scripted(lines(ROW, ROW, {"end": True, "rows": 2})) as server, Client(server.url) as client:
        assert rows(client) == [ours.WorkloadPoints(workload_id="w", points="1.5")] * 2
        assert server.asked[0].headers["accept"].startswith("application/x-ndjson")


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (lines(ROW), "without saying that this is all"),
        (lines(ROW, {"end": True, "rows": 2}), "1 rows came, 2 were sent"),
        (lines(ROW, {"error": {"code": "unavailable", "detail": "a store went away"}}), "a store went away"),
        (lines(ROW)._replace(cut=True), "the connection broke"),
    ],
)
def test_a_stream_that_was_cut_off_is_not_taken_for_all(sent, why):
    with scripted(sent) as server, Client(server.url) as client, pytest.raises(CutOffError, match=why):
        rows(client)


def test_a_line_that_is_neither_a_row_nor_an_end_is_told():
    answer, refused = lines({"other": 1}), pytest.raises(UnexpectedAnswerError, match="line 1")
    with scripted(answer) as server, Client(server.url) as client, refused:
        rows(client)


def test_a_refused_stream_is_a_refusal():
    answer = refuses(404, "not_found")
    with scripted(answer) as server, Client(server.url) as client, pytest.raises(ProblemError):
        rows(client)


def test_events_go_on_after_the_last_one_when_the_connection_breaks():
    def stream(cursor: str, *, cut: bool) -> Says:
        event = json.dumps({**EVENT, "cursor": cursor})
        return Says(200, f": hello\nretry: 1\n\nid: {cursor}\ndata: {event}\n\n".encode(), (), cut)

    with scripted(stream("7", cut=True), stream("8", cut=False), refuses(401, "unauthorized")) as server:
        with Client(server.url) as client:
            events = follow_events(client, project="alpha")
            assert [next(events).cursor, next(events).cursor] == ["7", "8"]
            with pytest.raises(ProblemError):
                next(events)
        assert [asked.target for asked in server.asked] == [
            "/v1/events/stream?project=alpha",
            "/v1/events/stream?project=alpha&after=7",
            "/v1/events/stream?project=alpha&after=8",
        ]
