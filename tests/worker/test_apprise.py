"""Chat and SMS through apprise: a real server receives, and what a hostile URL could reach is refused."""

import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import trio

from engine.core.apprise_url import DEFAULT_SCHEMAS, fault_of_service, schemas_of, shown
from tests.worker.fakes import T0, make_channel, make_delivery, make_event
from tests.worker.receivers import HttpReceiver, serving
from tests.worker.test_webhooks import answer
from worker.apprise_sender import AppriseSender, without_secrets
from worker.confined import ConfinedError, Confinement
from worker.outcome import Outcome, Result

SERVICES = schemas_of(DEFAULT_SCHEMAS)


async def send(target: str, *, schemas: str = "json", allow_private: bool = True, timeout_s: float = 5.0):
    sender = AppriseSender(schemas=schemas_of(schemas), allow_private=allow_private)
    delivery = make_delivery(make_event(detail="Grüße"), make_channel(kind="apprise", target=target))
    return await sender(delivery, now_ms=T0, timeout_s=timeout_s)


async def test_a_service_receives_title_and_text():
    async with serving(HttpReceiver()) as receiver:
        outcome = await send(f"json://127.0.0.1:{receiver.port}/hook/")
    assert outcome == Outcome(Result.ACCEPTED, "accepted by the service")
    ((line, _, body),) = receiver.requests
    assert line == "POST /hook/ HTTP/1.1"
    message = json.loads(body)
    assert message["title"].startswith("[NodePulse] Node down: ")
    assert "Grüße" in message["message"]


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found"])
async def test_what_the_service_does_not_take_may_succeed_later_and_its_note_has_no_secret(status):
    async with serving(HttpReceiver(answer(status))) as receiver:
        outcome = await send(f"json://tokenuser:hunter22@127.0.0.1:{receiver.port}/topsecret/")
    assert outcome.result is Result.FAILED
    assert status[:3] in outcome.note
    assert not any(each in outcome.note for each in ("tokenuser", "hunter22", "topsecret"))


async def test_a_redirect_is_not_followed():
    async with serving(HttpReceiver()) as target:
        location = f"location: http://127.0.0.1:{target.port}/\r\n"
        async with serving(HttpReceiver(answer("307 Temporary Redirect", location))) as receiver:
            outcome = await send(f"json://127.0.0.1:{receiver.port}/")
    assert outcome.result is Result.FAILED
    assert target.requests == []


async def test_a_service_in_a_private_network_is_never_connected_to():
    async with serving(HttpReceiver()) as receiver:
        for host in ("127.0.0.1", "localhost", "2130706433"):
            outcome = await send(f"json://{host}:{receiver.port}/", allow_private=False)
            assert outcome == Outcome(
                Result.FAILED, "the service's address is not public", endpoint_failed=True
            ), host
    assert receiver.requests == []


async def test_a_service_that_hangs_is_cut_at_the_deadline():
    async with serving(HttpReceiver(None)) as receiver:
        started = trio.current_time()
        outcome = await send(f"json://127.0.0.1:{receiver.port}/", timeout_s=0.5)
        assert trio.current_time() - started < 4
    assert outcome.result is Result.FAILED
    assert len(receiver.requests) == 1


async def test_services_that_are_not_of_this_installation_are_refused_at_sending_too():
    outcome = await send("json://127.0.0.1/", schemas=DEFAULT_SCHEMAS)
    assert outcome.result is Result.REFUSED
    assert "json://" in outcome.note


async def test_a_url_that_the_service_does_not_understand_is_given_up():
    outcome = await send("discord://onlyone", schemas="discord")
    assert outcome.result is Result.REFUSED


@pytest.mark.parametrize(
    "target",
    [
        "discord://webhook_id/webhook_token",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general?footer=no",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
    ],
)
def test_services_of_the_internet_are_taken(target):
    assert fault_of_service(target, SERVICES) is None


@pytest.mark.parametrize(
    "target",
    [
        "",
        "discord",
        "discord://",
        "discord://a/b c",
        "discord://a/b\r\nx: y",
        "json://127.0.0.1/",
        "xml://10.0.0.1/",
        "form://example.org/",
        "file:///etc/passwd",
        "https://example.org/config",
        "dbus://",
        "syslog://",
        "mailto://user:pass@example.org",
        "discord://id/token?template=/etc/passwd",
        "discord://id/token?TEMPLATE=/etc/passwd",
        "slack://a/b/c?%74emplate=/etc/passwd",
        "slack://a/b/c/#?template=/etc/passwd",
        "workflows://host/workflow/signature/?format=text;template=/etc/passwd",
        "workflows://host/workflow/signature/?format=text#&template=/etc/passwd",
        "ntfy://host/topic#?attach=file:///etc/passwd",
        "gotify://host/token?verify=no",
        "gotify://host/token#?verify=no",
        "gotify://host/token?redirect=yes",
        "ntfy://host/topic?+x-header=1",
        "ntfy://host/topic?attach=http://169.254.169.254/",
        "ntfy://host/topic?retry=100000",
        "discord://[::1/x",
    ],
)
def test_what_reads_files_reaches_inside_or_takes_checks_away_is_refused(target):
    assert fault_of_service(target, SERVICES) is not None


def test_no_setting_lets_a_service_act_on_the_machine_itself():
    for schema in ("dbus", "syslog", "windows", "file", "SysLog"):
        with pytest.raises(ValueError, match="machine"):
            schemas_of(f"discord {schema}")
    with pytest.raises(ValueError, match="not a schema"):
        schemas_of("discord://")


def test_of_a_url_only_its_service_is_shown():
    assert shown("discord://id/token") == "discord://***"
    said = without_secrets("no https://x/y for topsecret1, id", "json://u/topsecret1?id=a")
    assert said == "no *** for ***, id"


# The confinement itself, apart from any library


def in_thread(work) -> BaseException | None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught[0] if caught else None


def with_socket(act, family=socket.AF_INET, how=socket.SOCK_STREAM) -> None:
    with socket.socket(family, how) as one:
        act(one)


@pytest.mark.parametrize(
    "act",
    [
        lambda: Path("/etc/passwd").read_text(),
        lambda: Path("/usr/lib/../../etc/passwd").read_text(),
        lambda: Path("/etc/ssl/private/server.key").read_text(),
        lambda: Path("/tmp/np-confined").write_text("x"),
        lambda: subprocess.run(["true"], check=True),
        lambda: with_socket(lambda one: one.connect(("127.0.0.1", 9))),
        lambda: with_socket(lambda one: one.connect(("localhost", 9))),
        lambda: with_socket(lambda one: one.connect(("::ffff:127.0.0.1", 9)), socket.AF_INET6),
        lambda: with_socket(lambda one: one.connect_ex(("169.254.169.254", 80))),
        lambda: with_socket(lambda one: one.connect("/var/run/docker.sock"), socket.AF_UNIX),
        lambda: with_socket(lambda one: one.sendto(b"x", ("127.0.0.1", 9)), how=socket.SOCK_DGRAM),
        lambda: with_socket(lambda one: one.bind(("127.0.0.1", 0))),
    ],
)
def test_confined_code_reaches_neither_files_nor_processes_nor_private_networks(act):
    confinement = Confinement(allow_private=False)

    def work() -> None:
        with confinement.here():
            act()

    assert isinstance(in_thread(work), ConfinedError)
    assert len(confinement.refused) == 1


def test_other_threads_and_later_work_of_the_same_one_are_not_confined():
    inside, looked = threading.Event(), threading.Event()

    def work() -> None:
        with Confinement(allow_private=False).here():
            inside.set()
            assert looked.wait(5)
        assert Path("/etc/passwd").exists()
        with Path("/etc/passwd").open() as file:
            assert file.read(1)

    def other() -> None:
        assert inside.wait(5)
        with Path("/etc/passwd").open() as file:
            assert file.read(1)
        looked.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert in_thread(work) is None
    thread.join()
    assert looked.is_set()


async def test_what_was_cut_connects_no_more():
    confinement = Confinement(allow_private=True)
    confinement.cut()
    async with serving(HttpReceiver()) as receiver:

        def work() -> None:
            with confinement.here(), socket.socket() as one:
                one.connect(("127.0.0.1", receiver.port))

        error = await trio.to_thread.run_sync(in_thread, work)
    assert isinstance(error, ConfinedError)
