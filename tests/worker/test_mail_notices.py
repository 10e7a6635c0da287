"""A notice as mail at a real SMTP server over STARTTLS: both forms, the link out, the budget."""

from __future__ import annotations

import email
from email import policy
from html.parser import HTMLParser

import msgspec
import pytest
import trio

from engine.core.news import Notice, notice_of
from tests.worker.fakes import T0, Memory, make_channel, make_delivery, make_event
from tests.worker.receivers import Mailbox, mail_server, self_signed
from tests.worker.test_deliveries import make_deliveries
from worker.mail import MailSender, compose_mail
from worker.mail_html import html
from worker.outcome import Outcome, Result
from worker.settings import MailSettings
from worker.smtp import MailServer

PUBLIC = "https://pulse.example.org"
TOKEN = "ab" * 32
ADDRESS = "owner@example.org"
HOSTILE = '<script>alert(1)</script><img src=x onerror="x">&'
ANNOUNCED = Notice(
    notice_id="n1",
    form="announcement",
    kind="announcement",
    at_ms=T0,
    since_ms=T0,
    title="Maintenance & more <b>",
    text="First line\nsecond line\n\nNew paragraph " + HOSTILE,
)


def delivery_of(notice: Notice, *, target: str = ADDRESS):
    delivery = make_delivery(channel=make_channel(kind="mail", target=target))
    return msgspec.structs.replace(delivery, notice=notice, unsubscribe_token=TOKEN)


class Tags(HTMLParser):
    """Which tags and attributes there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]


def message_of(notice: Notice, *, public_url: str = PUBLIC):
    made = compose_mail(delivery_of(notice), sender="pulse@nodes.example", now_ms=T0, public_url=public_url)
    return email.message_from_bytes(made.as_bytes(), policy=policy.default)


async def test_over_starttls_a_notice_arrives_in_text_and_html_with_its_one_click_link(tmp_path):
    server, client = self_signed(tmp_path, names=["127.0.0.1"])
    mailbox, notice = Mailbox(), notice_of(make_event(detail="Grüße", workloads=("w1", "w2")))
    with mail_server(mailbox, tls_context=server, require_starttls=True) as port:
        settings = MailSettings(host="127.0.0.1", port=port, starttls=True, sender="pulse@nodes.example")
        sender = MailSender(
            MailServer(settings, tls=client), sending=Memory().sending, per_hour_max=20, public_url=PUBLIC
        )
        outcome = await sender(delivery_of(notice), now_ms=T0, timeout_s=5)
    assert outcome.result is Result.ACCEPTED
    assert mailbox.tls == [True]
    (envelope,) = mailbox.envelopes
    message = email.message_from_bytes(envelope.content, policy=policy.default)
    link = f"{PUBLIC}/v1/unsubscribe/{TOKEN}"
    assert message["list-unsubscribe"] == f"<{link}>"
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    assert message.get_content_type() == "multipart/alternative"
    plain, rich = (message.get_body((form,)).get_content() for form in ("plain", "html"))
    for words in (plain, rich):
        assert "Grüße" in words
        assert "What to do:" in words
        assert link in words
        assert notice.notice_id in words


def test_what_came_from_outside_is_text_in_the_html_and_nothing_is_loaded():
    found = Tags(html(ANNOUNCED, unsubscribe_url=f"{PUBLIC}/v1/unsubscribe/{TOKEN}"))
    assert {"script", "img", "b"}.isdisjoint(found.tags)
    assert found.links == [f"{PUBLIC}/v1/unsubscribe/{TOKEN}"]
    event = notice_of(make_event(detail=HOSTILE, workload_id=HOSTILE))
    assert {"script", "img"}.isdisjoint(Tags(html(event)).tags)


def test_the_html_says_what_the_text_says():
    text = html(ANNOUNCED)
    assert "<p>First line<br>second line</p>" in text
    assert "Maintenance &amp; more &lt;b&gt;" in text
    digest = Notice(
        notice_id="d",
        form="digest",
        kind="node.down",
        at_ms=T0,
        since_ms=T0,
        count=7,
        events=tuple(make_event(number) for number in range(3)),
    )
    assert html(digest).count("node.down</td>") == 3
    assert "and 4 more" in html(digest)
    assert "<table><tr><td>report</td></tr></table>" in html(
        msgspec.structs.replace(ANNOUNCED, form="report", html="<table><tr><td>report</td></tr></table>")
    )


def test_the_link_of_an_announcement_ends_announcements_only():
    message = message_of(ANNOUNCED)
    assert message["list-unsubscribe"] == f"<{PUBLIC}/v1/unsubscribe/{TOKEN}?only=announcements>"


@pytest.mark.parametrize(
    ("public_url", "link", "post"),
    [
        ("", None, None),
        ("http://pulse.example.org/", f"<http://pulse.example.org/v1/unsubscribe/{TOKEN}>", None),
        (PUBLIC, f"<{PUBLIC}/v1/unsubscribe/{TOKEN}>", "List-Unsubscribe=One-Click"),
    ],
)
def test_one_click_is_offered_over_https_only_and_no_link_without_a_public_name(public_url, link, post):
    message = message_of(notice_of(make_event()), public_url=public_url)
    assert (message["list-unsubscribe"], message["list-unsubscribe-post"]) == (link, post)


async def test_one_owners_mails_do_not_make_anothers_wait_and_nobody_takes_ones_own(autojump_clock):
    mine = make_delivery(channel=make_channel(kind="mail", target=ADDRESS))
    sent: list[str] = []

    class Server:
        sender = "pulse@nodes.example"

        async def send(self, message, *, timeout_s):
            sent.append(message["to"])
            return Outcome(Result.ACCEPTED, "said")

    sender = MailSender(Server(), sending=Memory().sending, per_hour_max=2)

    async def mails(owner: str, count: int, *, own_address: bool = False) -> list[Result]:
        delivery = msgspec.structs.replace(mine, owner=owner, own_address=own_address)
        return [(await sender(delivery, now_ms=T0, timeout_s=1)).result for _ in range(count)]

    sends, waits = Result.ACCEPTED, Result.LATER
    assert await mails("stranger", 3) == [sends, sends, waits]
    assert await mails("another", 3) == [sends, sends, waits]
    assert await mails("olga", 3, own_address=True) == [sends, sends, waits]
    assert await mails("third", 3) == [sends, sends, waits]
    assert await mails("fourth", 1) == [waits], "three times as many of all owners together"
    assert await mails("olga's other self", 1, own_address=True) == [sends]
    assert len(sent) == 9


async def test_an_address_gets_so_many_an_hour_and_the_rest_later_from_whichever_channel(autojump_clock):
    channels = [make_channel(n, kind="mail", target=t) for n, t in enumerate((ADDRESS, ADDRESS.upper()))]
    memory, sent = Memory(*channels), []
    told = [(notice_of(make_event(n)), channels[n % 2].channel_id) for n in range(5)]
    await memory.outbox.put(told, now_ms=T0)

    class Server:
        sender = "pulse@nodes.example"

        async def send(self, message, *, timeout_s):
            sent.append((trio.current_time(), message["message-id"]))
            # A mail that did not go out takes nobody's place.
            return Outcome(Result.FAILED if len(sent) == 1 else Result.ACCEPTED, "said")

    sender = MailSender(Server(), sending=memory.sending, per_hour_max=2)
    deliveries = make_deliveries(memory, sender, kind="mail", concurrency_max=1, poll_s=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliveries.run)
        await trio.sleep(60)
        assert memory.states.count("sent") == 2
        waiting = {row.note for row in memory.rows if row.state == "due"}
        assert waiting == {"waiting: 2 mails went to this address within the hour"}
        await trio.sleep(3 * 3600)
        deliveries.stop()
    assert memory.states == ["sent"] * 5
    times = [at for at, _ in sent[1:]]
    assert all(later - earlier >= 3600 for earlier, later in zip(times, times[2:], strict=False))
    assert len({message_id for _, message_id in sent}) == 5
