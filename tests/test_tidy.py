"""Style as a test: who may import whom, what nobody imports, how long a file and a function may be.

The rules and their reasons stand in docs/architecture.md and in the decision records; here they are only
checked, by reading the sources (`ast`), never by importing them.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PRODUCT = ("np1", "engine", "storage", "web", "worker", "node", "nodepulse", "bench")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
GENERATED = "nodepulse/client/generated/"  # written from the API: as long as that is

# Folder: which of ours it may import. The most specific folder counts.
OURS: dict[str, set[str]] = {
    "np1": {"np1"},
    "engine/core": {"np1", "engine.core"},
    "engine": {"np1", "engine"},
    "storage": {"np1", "engine.core", "storage"},
    "web": {"np1", "engine.core", "engine.settings", "storage", "web"},
    "worker": {"np1", "engine.core", "storage", "worker"},
    "node": {"np1", "node"},
    "nodepulse": set(PRODUCT),
    "bench": set(PRODUCT),
}
# Folder: which of others' it may import besides the standard library; absent = whatever is installed.
OTHERS: dict[str, set[str]] = {
    "np1": set(),
    "engine/core": {"numpy", "msgspec"},
    "engine": {"numpy", "msgspec", "trio", "structlog", "httptools", "orjson"},
    "node": {"trio", "cryptography"},
    "nodepulse/client": {"httpx2", "msgspec", "stamina"},
}
# Pure: decided by arguments alone, so neither clocks nor input and output nor other tasks.
IMPURE = {
    "asyncio",
    "trio",
    "socket",
    "threading",
    "subprocess",
    "time",
    "os",
    "select",
    "selectors",
}
BANNED = {
    "requests": "blocking",
    "httpx": "frozen upstream; httpx2 goes on",
    "anyio": "trio is the one way",
    "curio": "trio is the one way",
}
# Host loop: the adapters, the HTTP listener, and the forwarder, which hands over what the listener took.
MAY_ASYNCIO = ("storage/", "engine/ingest_http", "engine/http_", "engine/forwarder", "bench/")
# The clock is injected (LIVENESS.md 1). These read the system's: the clock itself, ids, edges.
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}
MAY_READ_THE_WALL_CLOCK = (
    "engine/clock.py",
    "storage/ids.py",
    "node/",
    "nodepulse/",
    "bench/",
    "worker/",
    "web/",
)
NO_NAMES = ("utils.py", "helpers.py", "common.py", "misc.py")
QUEUES = ("Queue", "LifoQueue", "SimpleQueue", "PriorityQueue")
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X{3}|HA[C]K)\b")


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((TOP / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            assert node.module is not None
            # `from engine import sockets` imports engine.sockets, if that is a module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found = (TOP / inner.replace(".", "/")).with_suffix(".py").exists()
                yield node.lineno, inner if found else node.module


def most_specific(rules: dict[str, set[str]], path: Path) -> set[str] | None:
    fitting = [folder for folder in rules if name_of(path).startswith(folder + "/")]
    return rules[max(fitting, key=len)] if fitting else None


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(one + ".") for one in allowed)


ALL = sources(*PRODUCT)
pytestmark = pytest.mark.skipif(not ALL, reason="no sources")


def test_imports_run_only_along_the_arrows_of_the_architecture():
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in ALL
        for line, name in imports(read(path))
        if name.split(".")[0] in PRODUCT and not within(name, most_specific(OURS, path) or set())
    ]
    assert wrong == []


def test_each_folder_uses_only_the_libraries_that_it_may():
    wrong = []
    for path in ALL:
        allowed = most_specific(OTHERS, path)
        for line, name in imports(read(path)):
            root = name.split(".")[0]
            known = root in sys.stdlib_module_names or root in PRODUCT
            if allowed is not None and not known and root not in allowed:
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert wrong == []


def test_what_is_pure_imports_neither_clock_nor_input_nor_output():
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in sources("np1", "engine/core")
        for line, name in imports(read(path))
        if name.split(".")[0] in IMPURE
    ]
    assert wrong == []


def test_chance_in_what_is_pure_comes_from_a_generator_that_was_handed_in():
    wrong = [
        f"{name_of(path)}:{node.lineno} uses {ast.unparse(node)}"
        for path in sources("np1", "engine/core")
        for node in ast.walk(read(path))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in ("random", "secrets", "np.random")
        and node.attr not in ("Random", "Generator")
    ]
    assert wrong == []


def test_nobody_imports_what_is_banned():
    wrong = [
        f"{name_of(path)}:{line} imports {name}: {BANNED[name.split('.')[0]]}"
        for path in [*ALL, *sources("tests")]
        for line, name in imports(read(path))
        if name.split(".")[0] in BANNED
    ]
    assert wrong == []


def test_asyncio_stays_behind_the_bridge_and_in_the_http_listener():
    wrong = [
        f"{name_of(path)}:{line}"
        for path in ALL
        for line, name in imports(read(path))
        if name.split(".")[0] == "asyncio" and not name_of(path).startswith(MAY_ASYNCIO)
    ]
    assert wrong == []


def test_the_wall_clock_is_read_only_where_it_may():
    wrong = [
        f"{name_of(path)}:{node.lineno} reads {ast.unparse(node)}"
        for path in ALL
        if not name_of(path).startswith(MAY_READ_THE_WALL_CLOCK)
        for node in ast.walk(read(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node).removeprefix("datetime.") in WALL_CLOCKS
    ]
    assert wrong == []


def test_no_file_is_longer_than_400_lines():
    written = [path for path in ALL if not name_of(path).startswith(GENERATED)]
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in written}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_60_lines():
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in ALL
        for node in ast.walk(read(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_every_file_says_what_lives_in_it():
    silent = [name_of(path) for path in ALL if path.stat().st_size and not ast.get_docstring(read(path))]
    assert silent == []


def test_nothing_is_left_unfinished():
    left = [
        f"{name_of(path)}:{number} {line.strip()}"
        for path in [*ALL, *sources("tests")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert left == []


def test_nobody_asks_for_our_package_metadata():
    """A checkout runs without an install, so there is none; see engine/core/version.py."""
    asks = re.compile(r"""(version|metadata|distribution)\(["']nodepulse["']\)""")
    assert [name_of(path) for path in ALL if asks.search(path.read_text())] == []


def test_every_package_is_in_the_distribution():
    described = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for part in PRODUCT for path in (TOP / part).rglob("*.py")}
    found = {".".join(folder.relative_to(TOP).parts) for folder in folders}
    assert set(described) == found


def test_no_file_is_a_drawer_for_everything():
    assert [name_of(path) for path in ALL if path.name in NO_NAMES] == []


def test_no_exception_is_swallowed():
    """`except Exception: pass` and its sisters; a named exception may be expected and passed over."""
    broad = {"Exception", "BaseException"}
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in ALL
        for node in ast.walk(read(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in broad)
        and all(isinstance(inner, (ast.Pass, ast.Continue)) for inner in node.body)
    ]
    assert wrong == []


# Bounds: every queue, batch, cache and body has a name and a policy (DESIGN.md).


def unbounded(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Queues and caches that were given no bound, or a bare number instead of a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if called == "open_memory_channel":
                size = given[0]
                bare = isinstance(size, ast.Constant) and size.value not in (0, 1)
                if bare or ast.unparse(size).endswith("inf"):
                    yield node.lineno, ast.unparse(node)
            elif (called in QUEUES and not given) or (
                called == "lru_cache" and "None" in map(ast.unparse, given)
            ):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.args.args:
            for decorator in node.decorator_list:
                if ast.unparse(decorator).split(".")[-1] == "cache":
                    yield node.lineno, ast.unparse(decorator)


def test_every_queue_and_cache_has_a_bound_with_a_name():
    found = [f"{name_of(path)}:{line} {what}" for path in ALL for line, what in unbounded(read(path))]
    assert found == []


def test_every_setting_is_read_by_somebody():
    """A key that nobody reads is a promise that nobody keeps."""
    from nodepulse.config import every_key

    texts = [
        path.read_text()
        for path in ALL
        if path.name not in ("settings.py", "limits.py") and "bench" not in path.parts
    ]
    unread = [key for key in every_key() if not any(f".{key.split('.')[-1]}" in text for text in texts)]
    assert unread == []


# The bounds of the product and what happens at each; a new `*_max` must be entered here with its policy.
POLICIES: dict[str, str] = {
    "ingest.batch_frames_max": "the rest waits in the kernel's buffer for the next reading",
    "ingest.pending_frames_max": "BUSY",
    "ingest.refused_rows_max": "what is refused of further rows is not told apart by node",
    "ingest.next_ms_rate_max": "next_ms is stretched",
    "ingest.http_connections_max": "the connection is closed",
    "ingest.http_body_bytes_max": "413",
    "ingest.http_idle_s_max": "the connection is closed",
    "journal.segment_bytes_max": "the next segment is begun",
    "liveness.mailbox_max": "the oldest changes are folded",
    "flush.history_rows_max": "the rest waits in the journal",
    "flush.retry_ms_max": "retries go on at this pause",
    "web.body_bytes_max": "413",
    "web.body_s_max": "408",
    "web.bodies_bytes_max": "503",
    "web.spool_bytes_max": "413",
    "web.spool_s_max": "408",
    "web.spools_bytes_max": "503",
    "web.connections_max": "the connection is refused",
    "web.send_s_max": "the connection is closed",
    "web.read_wait_ms_max": "an older as_of is answered",
    "web.sse_streams_max": "503",
    "web.bulk_streams_max": "503",
    "web.key_requests_per_min_max": "429",
    "web.address_requests_per_min_max": "429",
    "web.sign_ins_per_min_max": "429",
    "web.announcements_per_day_max": "429",
    "worker.notifier_batch_max": "the rest is read in the next transaction",
    "worker.delivery_concurrency_max": "due deliveries wait in the outbox",
    "worker.delivery_endpoint_max": "its due deliveries wait in the outbox",
    "worker.mail.address_per_hour_max": "its mails wait until an hour has room",
    "worker.delivery_attempts_max": "a dead letter",
    "worker.ownership.block_age_s_max": "the last known owners stand",
    "worker.ownership.tokens_max": "the pass is refused, the last known owners stand",
    "worker.ownership.concurrency_max": "collections that are due wait",
    "database.pool_connections_max": "callers wait for a connection",
    "redis.event_stream_max": "the oldest entries go; history has them",
    "datagram.requests_per_s_max": "questions wait their turn",
    "datagram.concurrency_max": "questions wait for one to end",
    "datagram.cache_entries_max": "the oldest answers are asked for again",
    "serve.start_attempts_max": "serve gives up and exits with 1",
    "serve.ready_s_max": "the start fails, or its slowness is logged",
}


def test_every_bound_has_a_policy_for_when_it_is_reached():
    from nodepulse.config import every_key

    assert {key for key in every_key() if key.endswith("_max")} == set(POLICIES)


# The checks themselves can fail.


@pytest.mark.parametrize(
    "source",
    [
        "trio.open_memory_channel(math.inf)",
        "trio.open_memory_channel(100)",
        "asyncio.Queue()",
        "@lru_cache(maxsize=None)\ndef f(x): ...",
        "@functools.cache\ndef f(x): ...",
    ],
)
def test_the_check_of_bounds_finds_what_has_none(source):
    assert list(unbounded(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "trio.open_memory_channel(settings.queue_max)",
        "trio.open_memory_channel[int](0)",
        "@cache\ndef f(): ...",
    ],
)
def test_the_check_of_bounds_lets_named_bounds_pass(source):
    assert not list(unbounded(ast.parse(source)))


def test_the_check_of_arrows_tells_core_from_the_rest_of_the_engine():
    assert within("engine.core.ports", OURS["storage"])
    assert not within("engine.corer", OURS["storage"])
    assert not within("engine.table", OURS["storage"])
    assert most_specific(OURS, TOP / "engine/core/ports.py") == OURS["engine/core"]
    assert [name for _, name in imports(ast.parse("from engine import sockets"))] == ["engine.sockets"]
