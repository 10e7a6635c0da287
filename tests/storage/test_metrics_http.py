"""The metrics and health server of processes without a web framework: right answers, and bounds that hold."""

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from storage.metrics_http import (
    CONNECTIONS_MAX,
    REQUEST_BYTES_MAX,
    REQUEST_TIMEOUT_S,
    judge,
    new_registry,
    serve_metrics,
)


class Process:
    """Something that is observed."""

    def __init__(self) -> None:
        self.live: dict[str, str] = {"loop": ""}
        self.ready: dict[str, str] = {"postgres": "", "redis": ""}
        self.figures = {"events_total": 3, "active": 1, "rejects_total": {"stale": 2, "mac": 5}}
        self.port = 0

    async def ask(self, text: str) -> tuple[int, dict[str, str], str]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(text.encode("latin-1"))
            data = b""
            async for chunk in stream:
                data += chunk
        head, _, body = data.decode().partition("\r\n\r\n")
        line, *rows = head.split("\r\n")
        headers = {name: value for name, _, value in (row.partition(": ") for row in rows)}
        return int(line.split()[1]), headers, body

    async def get(self, path: str) -> tuple[int, dict[str, str], str]:
        return await self.ask(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")


@pytest.fixture
async def process(nursery):
    made = Process()
    registry = new_registry({"notifier": lambda: made.figures})

    async def serve(task_status):
        await serve_metrics(
            host="127.0.0.1",
            port=0,
            registry=registry,
            live=lambda: made.live,
            ready=lambda: made.ready,
            task_status=task_status,
        )

    _, made.port = await nursery.start(serve)
    return made


async def test_metrics_are_openmetrics_made_from_statistics(process):
    status, headers, body = await process.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1")
    assert headers["connection"] == "close"
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["nodepulse_notifier_events_total",] == 3
    assert samples["nodepulse_notifier_active",] == 1
    assert samples["nodepulse_notifier_rejects_total", "stale"] == 2
    assert samples["nodepulse_notifier_rejects_total", "mac"] == 5
    assert samples["process_resident_memory_bytes",] > 0


async def test_each_scrape_shows_the_figures_of_its_moment(process):
    process.figures["events_total"] = 4
    _, _, body = await process.get("/metrics")
    assert "nodepulse_notifier_events_total 4.0" in body


async def test_ready_turns_503_and_says_what_is_wrong(process):
    assert (await process.get("/readyz"))[::2] == (200, "ok\n")
    process.ready["redis"] = "away for 3 s"
    status, _, body = await process.get("/readyz")
    assert status == 503
    assert body == "[+]postgres ok\n[-]redis away for 3 s\nnot ok\n"
    assert (await process.get("/livez"))[0] == 200
    assert (await process.get("/readyz?exclude=redis"))[0] == 200


@pytest.mark.parametrize(
    ("checks", "query", "answer"),
    [
        ({}, "", (200, "ok\n")),
        ({"a": ""}, "verbose", (200, "[+]a ok\nok\n")),
        ({"a": "", "b": "no"}, "", (503, "[+]a ok\n[-]b no\nnot ok\n")),
        ({"a": "", "b": "no"}, "exclude=b", (200, "ok\n")),
        ({"a": "no", "b": "no"}, "exclude=a&exclude=b&verbose=1", (200, "ok\n")),
        ({"a": "no"}, "exclude=b", (503, "[-]a no\nnot ok\n")),
    ],
)
def test_a_health_answer_follows_from_the_checks_and_the_query(checks, query, answer):
    assert judge(checks, query) == answer


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 404),
        ("GET /metrics/../x HTTP/1.1\r\n\r\n", 404),
        ("GET //[ HTTP/1.1\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", 405),
        ("GET /metrics\r\n\r\n", 400),
        ("GET metrics HTTP/1.1\r\n\r\n", 400),
        ("\x16\x03\x01\x00\r\n\r\n", 400),
        (f"GET /{'x' * REQUEST_BYTES_MAX} HTTP/1.1\r\n\r\n", 431),
    ],
)
async def test_what_it_does_not_serve_it_refuses_in_order(process, request_text, status):
    got, headers, _ = await process.ask(request_text)
    assert got == status
    assert (headers.get("allow") == "GET") == (status == 405)
    assert (await process.get("/livez"))[0] == 200


async def test_a_check_with_a_bug_answers_500_and_the_server_lives_on(process, capsys):
    process.ready = None
    assert (await process.get("/readyz"))[0] == 500
    process.ready = {}
    assert (await process.get("/readyz"))[0] == 200
    assert "metrics_http.failed" in capsys.readouterr().out


async def test_a_slow_client_is_dropped_and_its_place_is_free_again(process, autojump_clock):
    slow = [await trio.open_tcp_stream("127.0.0.1", process.port) for _ in range(CONNECTIONS_MAX)]
    for stream in slow:
        await stream.send_all(b"GET /met")
    await trio.testing.wait_all_tasks_blocked(0.01)
    async with await trio.open_tcp_stream("127.0.0.1", process.port) as refused:
        assert await refused.receive_some() == b""  # closed at once
    started = trio.current_time()
    for stream in slow:
        assert await stream.receive_some() == b""
        await stream.aclose()
    assert trio.current_time() - started <= REQUEST_TIMEOUT_S
    assert (await process.get("/livez"))[0] == 200


async def test_a_client_that_goes_away_in_the_middle_hurts_nobody(process):
    for text in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n\r\n"):
        stream = await trio.open_tcp_stream("127.0.0.1", process.port)
        if text:
            await stream.send_all(text)
        await stream.aclose()
    assert (await process.get("/metrics"))[0] == 200
