"""Sessions and backfills: what is signed, and answers read strictly and totally."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from np1.session import (
    BackfillBeat,
    BackfillRequest,
    MalformedAnswerError,
    Refusal,
    SessionRequest,
    ms_of_rfc3339,
    parse_backfill_answer,
    parse_refusal,
    parse_session_answer,
    rfc3339_of_ms,
)

ANSWER = {
    "sessions": [
        {
            "row": 7,
            "generation": 3,
            "key": "000102030405060708090a0b0c0d0e0f",
            "token": "AQEAAAAH",
            "expires_at": "2026-11-23T00:00:00Z",
            "interval_ms": 60_000,
            "ttl_ms": 90_000,
            "endpoints": {"udp": "127.0.0.1:7900", "http": "http://[::1]:7900"},
            "slots": [{"slot": 0, "workload_id": "a"}, {"slot": 63, "workload_id": "b"}],
        }
    ],
    "server_ms": 1_795_305_600_123,
}
MISSING = object()


def changed(path, value):
    """The answer with the member at `path` replaced, or taken out."""
    answer = copy.deepcopy(ANSWER)
    *outer, last = path
    inner = answer
    for step in outer:
        inner = inner[step]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(answer).encode()


def one(*path):
    return ("sessions", 0, *path)


def test_the_answer_of_the_wire_document_is_read():
    answer = parse_session_answer(json.dumps(ANSWER).encode())
    grant = answer.grant
    assert (grant.row, grant.generation, grant.key) == (7, 3, bytes(range(16)))
    assert grant.expires_ms == 1_795_392_000_000
    assert (grant.interval_ms, grant.ttl_ms) == (60_000, 90_000)
    assert (grant.udp, grant.http) == ("127.0.0.1:7900", "http://[::1]:7900")
    assert grant.slots == ((0, "a"), (63, "b"))
    assert answer.server_ms == 1_795_305_600_123


def test_a_grant_shows_neither_key_nor_token():
    shown = repr(parse_session_answer(json.dumps(ANSWER).encode()))
    assert "AQEAAAAH" not in shown
    assert "\\x01" not in shown


def test_members_of_a_later_server_are_passed_over():
    assert parse_session_answer(changed(one("region"), "eu")).grant.row == 7


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sessions",), MISSING),
        (("sessions",), []),
        (("sessions",), ANSWER["sessions"] * 2),
        (("sessions",), {"0": {}}),
        (one(), None),
        (("server_ms",), MISSING),
        (("server_ms",), 1.5),
        (("server_ms",), -1),
        (("server_ms",), 1 << 48),
        (one("row"), -1),
        (one("row"), 1 << 32),
        (one("row"), True),
        (one("row"), "7"),
        (one("generation"), 1 << 16),
        (one("key"), "00" * 15),
        (one("key"), "0G" * 16),
        (one("key"), "AB" * 16),
        (one("token"), ""),
        (one("token"), "with blank"),
        (one("token"), "with\r\nheader"),
        (one("expires_at"), "2026-11-23T00:00:00"),
        (one("expires_at"), "2026-11-23T00:00:00+02:00"),
        (one("expires_at"), "2026-02-30T00:00:00Z"),
        (one("expires_at"), 1_795_392_000_000),
        (one("interval_ms"), 999),
        (one("interval_ms"), None),
        (one("ttl_ms"), 0),
        (one("endpoints"), MISSING),
        (one("endpoints"), "127.0.0.1:7900"),
        (one("endpoints", "udp"), "127.0.0.1"),
        (one("endpoints", "udp"), "127.0.0.1:0"),
        (one("endpoints", "udp"), "127.0.0.1:65536"),
        (one("endpoints", "udp"), "::1:7900:"),
        (one("endpoints", "udp"), "[::g]:7900"),
        (one("endpoints", "udp"), "[::::]:7900"),
        (one("endpoints", "udp"), "a..b:7900"),
        (one("endpoints", "udp"), "x" * 64 + ":7900"),
        (one("endpoints", "http"), "ftp://127.0.0.1:7900"),
        (one("endpoints", "http"), "http://user@host:7900"),
        (one("endpoints", "http"), "http://host:7900/path"),
        (one("endpoints", "http"), "http://host\n:7900"),
        (one("slots"), MISSING),
        (one("slots"), [{"slot": 64, "workload_id": "a"}]),
        (one("slots"), [{"slot": 0, "workload_id": "a"}, {"slot": 0, "workload_id": "b"}]),
        (one("slots"), [{"slot": 0, "workload_id": "a"}, {"slot": 1, "workload_id": "a"}]),
        (one("slots"), [{"slot": n, "workload_id": str(n)} for n in range(65)]),
        (one("slots"), [{"slot": 0, "workload_id": ""}]),
        (one("slots"), [{"slot": 0}]),
        (one("slots"), [0]),
    ],
)
def test_an_answer_that_is_wrong_in_one_place_is_refused(path, value):
    with pytest.raises(MalformedAnswerError):
        parse_session_answer(changed(path, value))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"\xff\xfe",
        b"{" * 40_000,
        b"[" * 60_000,
        b'{"server_ms":' + b"9" * 5_000 + b"}",
        b" " * 70_000,
    ],
)
def test_a_body_that_is_no_answer_is_refused(body):
    with pytest.raises(MalformedAnswerError):
        parse_session_answer(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ANSWER, "row", "code"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()),
    st.integers(100, 599),
    st.none() | st.text(max_size=8),
)
def test_any_bytes_are_an_answer_a_refusal_or_malformed(body, status, retry_after):
    for parse in (parse_session_answer, parse_backfill_answer):
        with pytest.raises(MalformedAnswerError):
            parse(body)
    refusal = parse_refusal(status, body, retry_after)
    assert refusal.status == status
    assert refusal.retry_after_ms is None or refusal.retry_after_ms >= 0


def test_a_refusal_tells_its_code_and_the_servers_time():
    body = json.dumps({"title": "x", "code": "clock_skew", "server_time": 1_795_305_600_000}).encode()
    assert parse_refusal(401, body) == Refusal(401, "clock_skew", 1_795_305_600_000, None)


def test_a_refusal_by_a_proxy_is_known_by_its_status_and_its_wish():
    assert parse_refusal(502, b"<html>Bad gateway</html>", "7") == Refusal(502, "", None, 7_000)
    assert parse_refusal(503, b"", "Wed, 21 Oct 2026 07:28:00 GMT") == Refusal(503, "", None, None)


@pytest.mark.parametrize(
    "field", [{"node_id": ""}, {"node_id": "a\nb"}, {"manager_version": "x" * 129}, {"manager_version": "é"}]
)
def test_a_field_that_could_not_be_signed_unambiguously_is_refused(field):
    fields = {"node_id": "n", "sent_at": "2026-11-22T00:00:00Z", "nonce": "00" * 16, "manager_version": "1"}
    with pytest.raises(ValueError, match="not a signed field"):
        SessionRequest(**fields | field).signed_bytes()


@pytest.mark.parametrize("nonce", ["", "00" * 15, "00" * 65, "0" * 33, "AB" * 16])
def test_a_nonce_has_16_to_64_bytes_in_lower_case_hex(nonce):
    with pytest.raises(ValueError, match="nonce"):
        SessionRequest(node_id="n", sent_at="t", nonce=nonce, manager_version="1").signed_bytes()
    with pytest.raises(ValueError, match="nonce"):
        BackfillRequest(node_id="n", sent_at="t", nonce=nonce, beats=()).signed_bytes()


def test_a_backfill_has_at_most_10000_beats():
    beats = [BackfillBeat(at_ms=1, plane0=0, plane1=0, generation=1)] * 10_001
    with pytest.raises(ValueError, match="10000"):
        BackfillRequest(node_id="n", sent_at="t", nonce="00" * 16, beats=beats).signed_bytes()


def test_the_answer_to_a_backfill_is_read():
    ignored = {"future": 1, "duplicate": 2, "generation": 3, "sealed": 4, "order": 5}
    answer = parse_backfill_answer(json.dumps({"taken": 9, "ignored": ignored}).encode())
    assert (answer.taken, answer.ignored) == (9, ignored)


@given(st.integers(0, 4_000_000_000_000))
def test_a_time_survives_its_text(unix_ms):
    assert ms_of_rfc3339(rfc3339_of_ms(unix_ms)) == unix_ms


def test_times_are_read_in_the_forms_that_servers_write():
    assert ms_of_rfc3339("1970-01-01T00:00:01Z") == 1_000
    assert ms_of_rfc3339("1970-01-01T00:00:01.5+00:00") == 1_500
    assert ms_of_rfc3339("1970-01-01T00:00:01.123999Z") == 1_123
