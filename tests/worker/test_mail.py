"""Mail through a real SMTP server, with and without STARTTLS, and one that is slow or says no."""

import email
import socket
import threading
from email import policy

import pytest
import trio
from aiosmtpd.smtp import AuthResult

from tests.worker.fakes import T0, Memory, make_channel, make_delivery, make_event
from tests.worker.receivers import Mailbox, mail_server, self_signed
from worker.mail import MailSender, compose_mail
from worker.outcome import Outcome, Result
from worker.settings import MailSettings
from worker.smtp import MailServer


def delivery_to(target: str = "owner@example.org", **event):
    return make_delivery(make_event(**event), make_channel(kind="mail", target=target))


async def send(port: int, *, tls=None, timeout_s: float = 5.0, delivery=None, **settings) -> Outcome:
    options = {"host": "127.0.0.1", "port": port, "sender": "NodePulse <pulse@nodes.example>"}
    server = MailServer(MailSettings(**options | settings), tls=tls)
    sender = MailSender(server, sending=Memory().sending, per_hour_max=20)
    return await sender(delivery or delivery_to(), now_ms=T0, timeout_s=timeout_s)


def received(mailbox: Mailbox):
    (envelope,) = mailbox.envelopes
    return email.message_from_bytes(envelope.content, policy=policy.default)


async def test_a_notice_arrives_with_a_clear_subject_and_what_to_do():
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        outcome = await send(port, delivery=delivery_to(workloads=("w1", "w2"), detail="Grüße"))
    assert outcome == Outcome(Result.ACCEPTED, "accepted by the mail server")
    message = received(mailbox)
    assert mailbox.envelopes[0].rcpt_tos == ["owner@example.org"]
    assert mailbox.envelopes[0].mail_from == "pulse@nodes.example"
    assert message["subject"] == (
        "[NodePulse] Node down: 01900000-0000-7000-8000-0000000000aa since 2026-09-21 14:13 UTC"
    )
    assert message["from"] == "NodePulse <pulse@nodes.example>"
    assert message["to"] == "owner@example.org"
    assert message["auto-submitted"] == "auto-generated"
    text = message.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert "What to do:" in text
    assert "Its workloads (2):\n  w1\n  w2\n" in text
    assert "Since:    2026-09-21T14:13:20.000Z" in text
    assert "Detail:   Grüße" in text


async def test_each_attempt_at_a_delivery_has_the_same_message_id_and_names_its_event():
    delivery = delivery_to()
    mails = [compose_mail(delivery, sender="pulse@nodes.example", now_ms=T0 + n) for n in (0, 5_000)]
    assert mails[0]["message-id"] == mails[1]["message-id"] == f"<{delivery.delivery_id}@nodes.example>"
    assert mails[0]["x-nodepulse-event-id"] == delivery.notice.notice_id


async def test_with_starttls_the_message_goes_encrypted(tmp_path):
    server, client = self_signed(tmp_path, names=["127.0.0.1"])
    mailbox = Mailbox()
    with mail_server(mailbox, tls_context=server, require_starttls=True) as port:
        outcome = await send(port, tls=client, starttls=True)
    assert outcome.result is Result.ACCEPTED
    assert mailbox.tls == [True]


async def test_a_certificate_that_is_not_trusted_or_of_another_name_is_refused(tmp_path):
    server, client = self_signed(tmp_path, names=["mail.example"])
    mailbox = Mailbox()
    with mail_server(mailbox, tls_context=server) as port:
        untrusted = await send(port, starttls=True)
        wrong_name = await send(port, tls=client, starttls=True)
    assert untrusted.result is wrong_name.result is Result.FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in untrusted.note
    assert mailbox.envelopes == []


async def test_a_server_without_starttls_gets_nothing_when_starttls_is_set():
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        outcome = await send(port, starttls=True)
    assert outcome.result is Result.FAILED
    assert "STARTTLS" in outcome.note
    assert mailbox.envelopes == []


async def test_it_signs_in_when_a_user_is_set(tmp_path):
    server, client = self_signed(tmp_path, names=["127.0.0.1"])
    seen = []

    def authenticate(_server, _session, _envelope, mechanism, data):
        seen.append((data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)

    mailbox = Mailbox()
    options = {"tls_context": server, "require_starttls": True, "authenticator": authenticate}
    with mail_server(mailbox, **options) as port:
        good = await send(port, tls=client, starttls=True, user="pulse", password="right")
        bad = await send(port, tls=client, starttls=True, user="pulse", password="wrong")
    assert good.result is Result.ACCEPTED
    assert bad.result is Result.FAILED
    assert bad.note.startswith("SMTP 535")
    assert len(mailbox.envelopes) == 1
    assert (b"pulse", b"right") in seen


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ("550 no such user", Result.REFUSED),
        ("451 greylisted, try later", Result.FAILED),
        ("452 mailbox full", Result.FAILED),
    ],
)
async def test_only_a_mailbox_that_does_not_exist_is_given_up_at_once(said, result):
    with mail_server(Mailbox(refuse=said)) as port:
        outcome = await send(port)
    assert outcome == Outcome(result, f"recipient refused: SMTP {said}")


async def test_a_message_refused_after_its_last_dot_was_not_sent():
    with mail_server(Mailbox(after_data="554 5.7.1 looks like spam")) as port:
        outcome = await send(port)
    assert outcome == Outcome(Result.FAILED, "SMTP 554 5.7.1 looks like spam")


@pytest.mark.parametrize(
    "target",
    [
        "",
        "owner",
        "@example.org",
        "owner@",
        "a@b@c",
        "owner@example.org\r\nBcc: x@y.z",
        "two@a.b, three@a.b",
        "a@[",
        "a b@c.d",
        "Name <a@b.c>",
    ],
)
async def test_what_is_no_address_is_a_dead_letter_at_once(target):
    mailbox = Mailbox()
    with mail_server(mailbox) as port:
        delivery = make_delivery(make_event(), make_channel(kind="mail", target="x"))
        channel = type(delivery.channel)("id", "project", "mail", target, "")
        outcome = await send(port, delivery=make_delivery(make_event(), channel))
    assert outcome == Outcome(Result.REFUSED, "not a mail address")
    assert mailbox.envelopes == []


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("o.w+n=er@Example.ORG", "o.w+n=er@example.org"),
        ("owner@bücher.example", "owner@xn--bcher-kva.example"),
        ("owner@localhost", "owner@localhost"),
    ],
)
def test_every_usual_address_is_written_to(target, written):
    assert str(compose_mail(delivery_to(target), sender="x@y.z", now_ms=T0)["to"]) == written


async def test_nobody_listening_is_a_failure_to_be_tried_again():
    with mail_server(Mailbox()) as port:
        pass
    outcome = await send(port)
    assert outcome.result is Result.FAILED
    assert outcome.note.startswith("ConnectionRefusedError")


async def test_a_name_that_does_not_resolve_is_a_failure_to_be_tried_again():
    outcome = await send(25, host="nowhere.invalid")
    assert outcome.result is Result.FAILED
    assert "does not resolve" in outcome.note


def silent_server(*, drip: bool) -> socket.socket:
    """Listens; greets never, or with one more line of an endless greeting every 50 ms."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(0.05)
            while True:
                try:
                    if drip:
                        connection.sendall(b"220-wait\r\n")
                    if connection.recv(100) == b"":
                        return
                except TimeoutError:
                    continue
                except OSError:
                    return

    threading.Thread(target=run, daemon=True).start()
    return listener


@pytest.mark.parametrize("drip", [False, True])
async def test_a_server_that_hangs_or_drips_is_cut_at_the_deadline_and_no_thread_is_left(drip):
    before = threading.active_count()
    with silent_server(drip=drip) as listener:
        started = trio.current_time()
        outcome = await send(listener.getsockname()[1], timeout_s=0.4)
        assert trio.current_time() - started < 2
    assert outcome == Outcome(Result.FAILED, "the mail server did not finish in time")
    assert threading.active_count() <= before + 2  # the server's own, and trio's idle worker


async def test_cancelled_in_the_middle_the_conversation_ends_and_the_thread_with_it():
    with silent_server(drip=True) as listener:
        started = trio.current_time()
        with trio.move_on_after(0.2) as scope:
            await send(listener.getsockname()[1], timeout_s=30)
        assert scope.cancelled_caught
        assert trio.current_time() - started < 2
