"""Logs are JSON lines, crashes reach Sentry, and no secret goes along."""

import gzip
import io
import logging
import queue
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import orjson
import pytest
import structlog

from storage import observe


@pytest.fixture
def lines():
    stream = io.BytesIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level, warnings.showwarning)
    observe.configure_logging("worker", stream=stream)

    def read() -> list[dict]:
        return [orjson.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    structlog.reset_defaults()
    logging.captureWarnings(False)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in before[0]:
        root.addHandler(handler)
    root.setLevel(before[1])


def test_a_line_is_json_with_time_level_process_and_what_was_said(lines):
    structlog.get_logger().info("notifier.active", cursor=7, blob=b"\xff", odd={1: "x"}, thing=object)
    (line,) = lines()
    assert line["event"] == "notifier.active"
    assert (line["level"], line["process"], line["cursor"]) == ("info", "worker", 7)
    assert line["at"].endswith("Z")
    assert line["pid"] > 0


def test_below_the_level_nothing_is_written(lines):
    structlog.get_logger().debug("no")
    assert lines() == []


class FullDisk(io.BytesIO):
    """Takes nothing while `full`; otherwise a few bytes at a time."""

    full = False

    def write(self, data) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(bytes(data)[:7])


def test_a_log_that_cannot_be_written_ends_nobody_and_what_was_lost_is_counted(lines):
    disk = FullDisk()
    observe.configure_logging("worker", stream=disk)
    log = structlog.get_logger()
    log.info("before")
    disk.full = True
    log.info("lost")
    logging.getLogger("library").warning("lost, too")
    disk.full = False
    log.info("after")
    told = [orjson.loads(line) for line in disk.getvalue().splitlines()]
    assert [line["event"] for line in told] == ["before", "log.lost", "after"]
    assert told[1]["lines"] == 2


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="LOUD"):
        observe.configure_logging("worker", level="LOUD")


def crash_with_a_secret() -> None:
    secret = "hunter2-" + "x" * 3
    raise RuntimeError("bug" if secret else "")


def test_a_crash_is_logged_with_its_traceback_and_without_the_variables_of_its_frames(lines):
    try:
        crash_with_a_secret()
    except RuntimeError:
        structlog.get_logger().exception("task.crashed", task="notifier")
    (line,) = lines()
    assert "RuntimeError: bug" in line["exception"]
    assert "hunter2-xxx" not in orjson.dumps(line).decode()


def test_what_libraries_log_comes_out_as_the_same_lines(lines):
    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("httpx2").info("POST https://example.org/secret-path")
    (line,) = lines()
    assert (line["event"], line["logger"], line["level"]) == ("slow callback", "asyncio", "warning")
    assert line["process"] == "worker"


def test_an_exception_logged_by_a_library_keeps_its_traceback(lines):
    try:
        crash_with_a_secret()
    except RuntimeError:
        logging.getLogger("hypercorn.error").exception("failed")
    (line,) = lines()
    assert "RuntimeError: bug" in line["exception"]


class SentryEndpoint:
    """Receives envelopes as Sentry's ingest does."""

    def __init__(self) -> None:
        self.bodies: queue.Queue[tuple[str, bytes]] = queue.Queue()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                endpoint.bodies.put((self.path, body))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self.server.server_port}/42"


# In a process of its own: sentry_sdk patches what it finds and cannot be taken back.
PROGRAM = """
import sys
from storage import observe
def crash():
    master_secret = "hunter2-" + "x" * 3
    raise RuntimeError("bug in the notifier")
assert observe.init_sentry("", "worker") is False
observe.capture(RuntimeError("nobody hears this"))
assert "sentry_sdk" not in sys.modules
assert observe.init_sentry(sys.argv[1], "worker", release="1.2.3") is True
try:
    crash()
except RuntimeError as error:
    observe.capture(error, task="notifier")
observe.close_sentry()
"""


def test_a_captured_crash_reaches_sentry_with_its_tags_and_without_secrets():
    with SentryEndpoint() as endpoint:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, endpoint.dsn],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        path, body = endpoint.bodies.get(timeout=5)
    assert path == "/api/42/envelope/"
    event = next(item for item in map(orjson.loads, body.splitlines()) if "exception" in item)
    assert event["tags"] == {"process": "worker", "task": "notifier"}
    assert event["release"] == "1.2.3"
    (value,) = event["exception"]["values"]
    assert (value["type"], value["value"]) == ("RuntimeError", "bug in the notifier")
    assert b"hunter2-xxx" not in body
    assert endpoint.bodies.empty()
