"""Reading uptime from Datagram, on a server that behaves as its documents say, and misbehaves on demand."""

from __future__ import annotations

import io
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
import trio

from engine.core.uptime_source import UptimeSourceError, whole_hours
from storage.datagram import WINDOW_MS_MAX, Datagram, open_uptime_source
from storage.observe import configure_logging
from storage.settings import DatagramSettings
from tests.storage import datagram_server as faults
from tests.storage.datagram_server import HOUR_MS, SECRET, TOKEN, DatagramServer, datagram_server

DAY_MS = 24 * HOUR_MS
NOW = 20_600 * DAY_MS + 5 * HOUR_MS + 123  # a bit after five on some day
TODAY = 20_600 * DAY_MS


@pytest.fixture
def server() -> Iterator[DatagramServer]:
    with datagram_server() as made:
        yield made


def settings(server: DatagramServer, **more: object) -> DatagramSettings:
    given = {"url": server.url, "license_url": server.url, "token": TOKEN, "secret": SECRET, **more}
    return DatagramSettings(**given)  # type: ignore[arg-type]


@pytest.fixture
async def reader(server: DatagramServer) -> AsyncIterator[Datagram]:
    async with Datagram(settings(server), clock=lambda: NOW, retry_s=0.02) as opened:
        yield opened


async def test_one_node_is_asked_alone_and_several_by_fives(server: DatagramServer, reader: Datagram) -> None:
    for number in range(13):
        server.up[f"n{number}"] = [(TODAY - DAY_MS, TODAY - DAY_MS + number * HOUR_MS)]
    ids = [f"n{number}" for number in range(13)]
    told = await reader.up_ms(ids, TODAY - DAY_MS, TODAY)
    assert told == {f"n{number}": number * HOUR_MS for number in range(13)}
    assert sorted(len(one.query["partner_node_id[]"]) for one in server.asked) == [3, 5, 5]
    assert await reader.up_ms(["n3"], TODAY - DAY_MS, TODAY - 12 * HOUR_MS) == {"n3": 3 * HOUR_MS}
    assert (server.asked[-1].path, server.asked[-1].query["started_at"]) == (
        "/uptime",
        ["2026-05-26T00:00:00Z"],
    )


async def test_a_node_that_it_does_not_know_is_none(server: DatagramServer, reader: Datagram) -> None:
    server.up["a"] = [(0, NOW)]
    window = (TODAY - DAY_MS, TODAY)
    assert await reader.up_ms(["b"], *window) == {"b": None}
    assert await reader.up_ms(["a", "b"], *window) == {"a": DAY_MS, "b": None}
    # A server that refuses five for the one it does not know: the others are asked alone.
    server.faults.append(faults.status(404, "Node not found"))
    assert await reader.up_ms(["c", "a", "d"], TODAY - 2 * DAY_MS, TODAY) == {
        "a": 2 * DAY_MS,
        "c": None,
        "d": None,
    }
    server.faults.append(faults.body(b'{"data": {"uptime": null, "partner_node_id": "e"}}'))
    assert await reader.up_ms(["e"], *window) == {"e": None}


async def test_a_longer_window_is_asked_in_parts_of_14_days(server: DatagramServer, reader: Datagram) -> None:
    from_ms = TODAY - 31 * DAY_MS
    server.up["a"] = [(from_ms - DAY_MS, from_ms + 20 * DAY_MS), (TODAY - HOUR_MS, TODAY + HOUR_MS)]
    assert await reader.up_ms(["a"], from_ms, TODAY) == {"a": 20 * DAY_MS + HOUR_MS}
    assert len(server.asked) == 3
    assert WINDOW_MS_MAX == 14 * DAY_MS


async def test_an_empty_window_and_an_empty_list_ask_nobody(server: DatagramServer, reader: Datagram) -> None:
    assert await reader.up_ms(["a"], TODAY, TODAY) == {"a": 0}
    assert await reader.up_ms([], TODAY - DAY_MS, TODAY) == {}
    assert server.asked == []


@pytest.mark.parametrize("window", [(1, HOUR_MS), (0, HOUR_MS + 1), (HOUR_MS, 0), (0, TODAY + 6 * HOUR_MS)])
async def test_only_whole_hours_that_are_over_can_be_asked(reader: Datagram, window: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="whole hours"):
        await reader.up_ms(["a"], *window)


@pytest.mark.parametrize(
    ("asked", "created_ms", "retired_ms", "hours"),
    [
        ((0.5, 3.9), 0, None, (0, 3)),  # both ends down
        ((0.5, 90), 0, None, (0, 50)),  # not what is not over
        ((0, 3), 0.1, None, (1, 3)),  # the first hour begins after its life does
        ((0, 9), 1, 4.9, (1, 4)),  # and the last ends before that ends
        ((2.1, 2.9), 0, None, (2, 2)),
        ((60, 70), 0, None, (50, 50)),
        ((0, 3), 7, None, (3, 3)),
        ((3, 9), 0, 2.5, (2, 2)),
    ],
)
def test_a_window_is_cut_to_whole_hours(asked, created_ms, retired_ms, hours) -> None:
    at = [round(hour * HOUR_MS) for hour in asked]
    retired = None if retired_ms is None else round(retired_ms * HOUR_MS)
    cut = whole_hours(
        *at, created_ms=round(created_ms * HOUR_MS), retired_ms=retired, now_ms=50 * HOUR_MS + 17
    )
    assert cut == (hours[0] * HOUR_MS, hours[1] * HOUR_MS)


def test_windows_that_meet_still_meet_when_they_are_cut() -> None:
    def cut(from_ms: int, to_ms: int) -> tuple[int, int]:
        return whole_hours(from_ms, to_ms, created_ms=100, retired_ms=None, now_ms=40 * HOUR_MS + 5)

    marks = [0, 77, HOUR_MS - 1, 3 * HOUR_MS, 5 * HOUR_MS + 1, 39 * HOUR_MS, 60 * HOUR_MS]
    lengths = [end - start for start, end in map(cut, marks, marks[1:])]
    whole = cut(marks[0], marks[-1])
    assert sum(lengths) == whole[1] - whole[0] == 39 * HOUR_MS


# What is remembered


async def test_what_is_over_for_long_is_asked_once_and_the_memory_has_a_bound(server: DatagramServer) -> None:
    server.up = {f"n{number}": [(0, NOW)] for number in range(8)}
    async with Datagram(settings(server, cache_entries_max=5), clock=lambda: NOW, retry_s=0.02) as reader:
        for _ in range(3):
            assert await reader.up_ms(["n0", "n1"], TODAY - DAY_MS, TODAY) == {"n0": DAY_MS, "n1": DAY_MS}
        assert len(server.asked) == 1
        await reader.up_ms(["n0", "n2"], TODAY - DAY_MS, TODAY)  # of these only one is new
        assert (len(server.asked), server.asked[-1].path) == (2, "/uptime")
        await reader.up_ms(list(server.up), TODAY - DAY_MS, TODAY)
        assert reader.statistics()["answers"] == 5
        await reader.up_ms(["n0"], TODAY - DAY_MS, TODAY)  # went as one of the oldest
        assert server.asked[-1].query["partner_node_id"] == ["n0"]


async def test_the_last_hours_may_still_change_and_so_may_what_was_not_known(
    server: DatagramServer, reader: Datagram
) -> None:
    server.up["a"] = []
    window = (TODAY + 3 * HOUR_MS, TODAY + 5 * HOUR_MS)
    assert await reader.up_ms(["a", "b"], *window) == {"a": 0, "b": None}
    server.up["a"] = server.up["b"] = [(TODAY, NOW)]
    assert await reader.up_ms(["a", "b"], *window) == {"a": 2 * HOUR_MS, "b": 2 * HOUR_MS}


# Its limits and its faults


async def test_never_more_requests_in_a_second_than_it_takes_and_several_at_a_time() -> None:
    with datagram_server(per_s=25) as server:
        server.delay_s = 0.05
        server.up = {f"n{number}": [(0, NOW)] for number in range(300)}
        more = {"requests_per_s_max": 25, "concurrency_max": 6}
        async with Datagram(settings(server, **more), clock=lambda: NOW, retry_s=0.02) as reader:
            began = time.monotonic()
            told = await reader.up_ms(list(server.up), TODAY - DAY_MS, TODAY)
        assert set(told.values()) == {DAY_MS}
        assert (len(server.asked), server.limited) == (60, 0)
        assert 2.0 < time.monotonic() - began < 8
        assert 1 < server.under_way_most <= 6


async def test_told_that_it_is_too_much_everybody_waits_as_long_as_it_says(
    server: DatagramServer, reader: Datagram
) -> None:
    server.up["a"] = [(0, NOW)]
    server.faults.append(faults.status(429, "Too many requests", retry_after="0.6"))
    began = time.monotonic()
    assert await reader.up_ms(["a"], TODAY - DAY_MS, TODAY) == {"a": DAY_MS}
    assert time.monotonic() - began > 0.6
    server.faults.append(faults.status(429, "Too many requests", retry_after="3600"))
    with pytest.raises(UptimeSourceError, match="too often") as caught:
        await reader.up_ms(["a"], TODAY - 2 * DAY_MS, TODAY)
    assert caught.value.retry_after_s == 3600


@pytest.mark.parametrize("token_form", ["bare", "bearer"])
async def test_the_token_is_sent_in_the_form_that_is_set(token_form: str) -> None:
    other = {"bare": "bearer", "bearer": "bare"}[token_form]
    with datagram_server(token_form=token_form) as server:
        server.up["a"] = [(0, NOW)]
        async with Datagram(
            settings(server, token_form=token_form), clock=lambda: NOW, retry_s=0.02
        ) as reader:
            assert await reader.up_ms(["a"], TODAY - DAY_MS, TODAY) == {"a": DAY_MS}
        async with Datagram(settings(server, token_form=other), clock=lambda: NOW, retry_s=0.02) as reader:
            with pytest.raises(UptimeSourceError, match="HTTP 401: Unauthorized"):
                await reader.up_ms(["a"], TODAY - DAY_MS, TODAY)
    assert len(server.asked) == 2  # what is refused is not tried again


PASSING = [
    faults.close,
    faults.status(500),
    faults.status(503),
    faults.body(b'{"data": {"uptime": 36', length=400),
    faults.slow(0.5),
]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_is_tried_again_and_what_stays_is_told(
    server: DatagramServer, fault: faults.Fault
) -> None:
    server.up["a"] = [(0, NOW)]
    async with Datagram(settings(server, timeout_s=0.3), clock=lambda: NOW, retry_s=0.02) as reader:
        server.faults.append(fault)
        assert await reader.up_ms(["a"], TODAY - DAY_MS, TODAY) == {"a": DAY_MS}
        assert len(server.asked) == 2


async def test_after_three_tries_it_is_away() -> None:
    with datagram_server() as server:
        async with Datagram(settings(server), clock=lambda: NOW, retry_s=0.02) as reader:
            server.faults.extend([faults.status(500, "boom")] * 3)
            with pytest.raises(UptimeSourceError, match="HTTP 500: boom"):
                await reader.up_ms(["a"], TODAY - DAY_MS, TODAY)
            assert len(server.asked) == 3
    async with Datagram(settings(server), clock=lambda: NOW, retry_s=0.02) as reader:
        with pytest.raises(UptimeSourceError, match="ConnectError"):
            await reader.up_ms(["a"], TODAY - DAY_MS, TODAY)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": []}',
        b'{"data": {"uptime": "36", "partner_node_id": "a"}}',
        b'{"data": {"uptime": 1.5, "partner_node_id": "a"}}',
        b'{"data": {"uptime": -1, "partner_node_id": "a"}}',
        b'{"data": {"uptime": 86400001, "partner_node_id": "a"}}',
        b'{"data": {"uptime": 36, "partner_node_id": "b"}}',
        b'{"data": {"uptime": 36, "partner_node_id": "\xff"}}',
        b'{"data": ' + b"[" * 100_000 + b"}",
        b" " * 1_100_000,
        b"chunked",
    ],
)
async def test_an_answer_that_cannot_be_is_no_answer(
    server: DatagramServer, reader: Datagram, text: bytes
) -> None:
    fault = faults.endless(1_100_000) if text == b"chunked" else faults.body(text)
    server.faults.extend([fault] * 3)
    with pytest.raises(UptimeSourceError):
        await reader.up_ms(["a"], TODAY - DAY_MS, TODAY)


@pytest.mark.parametrize(
    "text",
    [
        b'{"data": [{"uptime": 1, "partner_node_id": "a"}, {"uptime": 2, "partner_node_id": "a"}]}',
        b'{"data": [{"uptime": 1, "partner_node_id": "c"}]}',
        b'{"data": {"uptime": 1, "partner_node_id": "a"}}',
    ],
)
async def test_an_answer_of_several_names_each_once_and_nobody_else(
    server: DatagramServer, reader: Datagram, text: bytes
) -> None:
    server.faults.append(faults.body(text))
    with pytest.raises(UptimeSourceError):
        await reader.up_ms(["a", "b"], TODAY - DAY_MS, TODAY)


async def test_one_failure_ends_the_whole_question(server: DatagramServer, reader: Datagram) -> None:
    server.up = {f"n{number}": [(0, NOW)] for number in range(100)}
    server.faults.extend([faults.status(400, "no")] * 20)
    with pytest.raises(UptimeSourceError, match="HTTP 400: no"):
        await reader.up_ms(list(server.up), TODAY - DAY_MS, TODAY)
    assert len(server.asked) <= 8


# Registration, and looking at the account


async def test_a_node_is_registered_with_the_secret_in_the_body(
    server: DatagramServer, reader: Datagram
) -> None:
    await reader.register("node-7")
    await reader.register("node-7")
    assert (server.asked[0].path, server.asked[0].query) == ("/node/register", {})
    assert await reader.up_ms(["node-7"], TODAY - DAY_MS, TODAY) == {"node-7": 0}
    server.faults.append(faults.body(b'{"data": false}'))
    with pytest.raises(UptimeSourceError, match="did not register"):
        await reader.register("node-8")
    server.faults.append(faults.status(422, "bad id"))
    with pytest.raises(UptimeSourceError, match="HTTP 422: bad id"):
        await reader.register("node-9")


async def test_our_own_details_and_all_our_nodes_can_be_read(
    server: DatagramServer, reader: Datagram
) -> None:
    server.up = {f"n{number}": [] for number in range(8)}
    assert await reader.partner_details() == {"id": "partner-1", "name": "NodePulse"}
    assert await reader.partner_nodes(limit=100) == ([f"n{number}" for number in range(8)], 8)
    assert await reader.partner_nodes(limit=4) == (["n0", "n1", "n2", "n3"], 8)


async def test_without_a_token_there_is_no_source() -> None:
    async with open_uptime_source(DatagramSettings(), clock=lambda: NOW) as source:
        assert source is None


# What is kept secret


async def test_neither_logs_nor_errors_ever_have_the_secret_or_the_token(server: DatagramServer) -> None:
    stream = io.BytesIO()
    configure_logging("web", level="debug", stream=stream)  # type: ignore[arg-type]
    logging.getLogger().info("logging works")
    try:
        told = await told_errors(server)
    finally:
        logging.basicConfig(handlers=[], force=True)
        structlog.reset_defaults()
    logged = stream.getvalue().decode()
    assert "logging works" in logged
    assert told.count("UptimeSourceError") >= 5
    for text in (logged, told):
        assert SECRET not in text
        assert TOKEN not in text
    assert any(SECRET in one.query.get("secret", []) for one in server.asked)


async def told_errors(server: DatagramServer) -> str:
    """Everything that an error log could say of some failures, with their tracebacks, logged as well."""
    told = []
    log = structlog.get_logger("web")
    async with Datagram(settings(server, timeout_s=0.3), clock=lambda: NOW, retry_s=0.02) as reader:
        for fault in (
            faults.close,
            faults.slow(0.5),
            faults.status(403, f"secret {SECRET} of {TOKEN} is wrong"),
            faults.body(f'{{"data": "{SECRET}"}}'.encode()),
            faults.body(SECRET.encode()),
            faults.body(b"x", length=9),
        ):
            server.faults.extend([fault] * 3)
            try:
                await reader.up_ms(["a"], TODAY - DAY_MS, TODAY)
            except UptimeSourceError as error:
                told.append("".join(traceback.format_exception(error)))
                log.error("failed", exc_info=error)
            server.faults.clear()
        await reader.up_ms(["a"], TODAY - DAY_MS, TODAY)
        told.append(repr(reader.statistics()))
    await trio.lowlevel.checkpoint()
    return "\n".join(told)
