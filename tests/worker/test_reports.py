"""Reports: from a sealed day to a mail that a real SMTP server takes, once per person and period."""

from __future__ import annotations

import email
import struct
import zlib
from email import policy
from pathlib import Path

import pytest

from engine.core.reports import DaySum, Worst
from storage.ids import new_id
from storage.open import AllStores
from storage.pool import Postgres
from storage.settings import DatabaseSettings
from tests.conftest import as_owner
from tests.sealing import Day, seal_a_day, tell_view
from tests.worker.receivers import Mailbox, mail_server
from worker.bars import BAR_PX, GAP_PX, HEIGHT_PX, MARGIN_PX, bars
from worker.inline_images import as_data
from worker.mail import MailSender
from worker.outcome import Result
from worker.report_words import Part, html, percent, text
from worker.reports import LOOK_AGAIN_MS, Reporting, days_before
from worker.schedule import Later
from worker.settings import MailSettings
from worker.smtp import MailServer

HOUR, DAY = 3_600_000, 86_400_000
WAIT_MS = 6 * HOUR


async def _fetch(connection, statement: str, *values: object):
    return await connection.fetch(statement, *values)


class Here:
    """A project of paul's with nodes of olga's; the day is not sealed yet."""

    def __init__(self, stores: AllStores, db: Postgres) -> None:
        self.stores, self.db = stores, db
        self.users = {name: new_id() for name in ("olga", "paul", "sam")}

    async def sql(self, statement: str, *values: object):
        return await self.db.run(_fetch, statement, *values)

    async def fill(self) -> None:
        for name, user_id in self.users.items():
            await self.sql(
                "insert into account (user_id, name, email, created_ms) values ($1, $2, $3, 1)",
                user_id,
                name,
                f"{name}@example.org",
            )
        self.project = await self.stores.directory.create_project("acme", now_ms=1)
        await self.sql(
            "insert into project_owner values ($1, $2, 1)", self.project.project_id, self.users["paul"]
        )

    async def seal(self) -> Day:
        await tell_view(self.stores)
        day = await seal_a_day(self.stores, self.project.project_id)
        node = day.nodes[0].node_id
        await self.sql("alter table sealed_row disable trigger all")
        await self.sql(
            "update node set owner_id = $1, name = 'a <b>' where node_id = $2", self.users["olga"], node
        )
        await self.sql("update sealed_row set operator_id = $1 where node_id = $2", self.users["olga"], node)
        self.due_ms = day.day_ms + DAY + 6 * HOUR
        return day

    async def want_daily(self, *names: str) -> None:
        for name in names:
            await self.sql(
                "insert into notification_setting (user_id, daily_report) values ($1, true)", self.users[name]
            )

    async def run(self, *, weekly: bool = False, late_ms: int = 0, due_ms: int | None = None):
        job = Reporting(
            reports=self.stores.reports, outbox=self.stores.outbox, weekly=weekly, wait_ms=WAIT_MS
        )
        due_ms = due_ms or self.due_ms
        return await job(due_ms=due_ms, first_ms=due_ms, now_ms=due_ms + late_ms)

    async def mails(self) -> dict[str, email.message.EmailMessage]:
        """What a real SMTP server got of all that is due, by recipient."""
        mailbox = Mailbox()
        with mail_server(mailbox) as port:
            server = MailServer(MailSettings(host="127.0.0.1", port=port, sender="pulse@nodes.example"))
            send = MailSender(server, sending=self.stores.sending, per_hour_max=10)
            for each in await self.stores.sending.claim(
                kind="mail", limit=10, now_ms=self.due_ms + DAY, lease_ms=1_000
            ):
                outcome = await send(each, now_ms=self.due_ms, timeout_s=5)
                assert outcome.result is Result.ACCEPTED, outcome
        return {
            envelope.rcpt_tos[0]: email.message_from_bytes(envelope.content, policy=policy.default)
            for envelope in mailbox.envelopes
        }


@pytest.fixture
async def here(stores: AllStores, postgres_url: str):
    db = Postgres(DatabaseSettings(url=as_owner(postgres_url)))
    await db.open()
    made = Here(stores, db)
    await made.fill()
    yield made
    await db.close()


async def test_owner_and_operator_get_a_mail_each_about_what_is_theirs(here: Here):
    day = await here.seal()
    await here.want_daily("olga", "paul", "sam")  # sam has neither a project nor a node
    assert await here.run() == "2 mails"
    mails = await here.mails()
    assert sorted(mails) == ["olga@example.org", "paul@example.org"]
    owners, operators = mails["paul@example.org"], mails["olga@example.org"]
    assert owners["subject"] == f"[NodePulse] Report of {day.day}"
    told = _text(owners)
    assert "Project acme\n  Paid: 9" in told
    assert "4 workloads on 2 nodes" in told
    assert f"Points not committed: {day.day}" in told
    assert "Your nodes" not in told
    own = _text(operators)
    assert "Your nodes in acme\n" in own
    assert "2 workloads on 1 nodes" in own
    assert "Points" not in own
    assert f"    a <b> ({day.nodes[0].node_id}): " in own
    assert f"{day.day} unknown" not in own
    assert own.count(" unknown") == 13, "a line says each day of the picture"


def _text(message: email.message.EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return part.get_content().replace("\r\n", "\n")


async def test_the_picture_is_part_of_the_mail_and_shown_by_its_html(here: Here):
    await here.seal()
    await here.want_daily("paul")
    await here.run()
    message = (await here.mails())["paul@example.org"]
    page = message.get_body(("html",)).get_content()
    assert "data:" not in page
    assert "a &lt;b&gt;" in page
    (picture,) = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert picture.get_content_disposition() == "inline"
    assert f'src="cid:{picture["content-id"].strip("<>")}"' in page
    assert 'alt="Uptime by day: ' in page
    width, height, pixels = _decoded(picture.get_content())
    assert (width, height) == (2 * MARGIN_PX + 14 * (BAR_PX + GAP_PX) - GAP_PX, HEIGHT_PX + 2 * MARGIN_PX)
    assert pixels[height - MARGIN_PX - 1][width - MARGIN_PX - 1] != pixels[0][0], "the last day has a bar"


def _decoded(png: bytes) -> tuple[int, int, list[bytes]]:
    """Size and rows of palette numbers, by another reading of the format than the one that wrote it."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(name + body),)
        chunks[name] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, rest) == (8, 3, [0, 0, 0])
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == height * (width + 1)
    rows = [raw[y * (width + 1) : (y + 1) * (width + 1)] for y in range(height)]
    assert all(row[0] == 0 for row in rows)
    return width, height, [row[1:] for row in rows]


async def test_a_run_that_is_done_again_tells_nobody_twice(here: Here):
    await here.seal()
    await here.want_daily("olga", "paul")
    assert [await here.run() for _ in range(3)] == ["2 mails", "0 mails", "0 mails"]
    assert await here.run(weekly=True) == "2 mails", "another report, though of the same due time"
    assert await here.run(due_ms=here.due_ms + DAY, late_ms=WAIT_MS) == "2 mails", "another day"
    assert (await here.sql("select count(*) from channel"))[0][0] == 2


async def test_a_report_waits_for_the_seal_and_not_for_ever(here: Here):
    await here.want_daily("paul")
    await here.sql(
        """
        insert into node (node_id, "row", project_id, kind, name, interval_ms, salt, created_ms)
        values ($1, 7, $2, 'node', 'n', 60000, '', 1)
        """,
        node := new_id(),
        here.project.project_id,
    )
    await here.sql(
        """
        insert into workload (workload_id, node_id, slot, name, created_ms, project_id)
        values ($1, $2, 0, 'w', 1, $3)
        """,
        new_id(),
        node,
        here.project.project_id,
    )
    due_ms = 1_790_000_000_000 // DAY * DAY + 6 * HOUR
    for late_ms in (0, WAIT_MS - 1):
        came = await here.run(due_ms=due_ms, late_ms=late_ms)
        assert isinstance(came, Later)
        assert came.note == "1 projects are not sealed: acme"
        assert came.at_ms == min(due_ms + late_ms + LOOK_AGAIN_MS, due_ms + WAIT_MS)
    assert await here.run(due_ms=due_ms, late_ms=WAIT_MS) == "0 mails", "nothing at all is sealed"


async def test_who_wants_no_report_gets_none_and_a_removed_channel_is_not_made_again(here: Here):
    await here.seal()
    assert await here.run() == "0 mails", "the daily one is asked for"
    assert await here.run(weekly=True) == "2 mails", "the weekly one is not"
    await here.sql("update channel set removed_ms = 1 where user_id = $1", here.users["olga"])
    await here.sql(
        "insert into notification_setting (user_id, weekly_report) values ($1, false)", here.users["paul"]
    )
    assert await here.run(weekly=True, due_ms=here.due_ms + DAY, late_ms=WAIT_MS) == "0 mails"


async def test_a_report_goes_to_ones_own_mail_channels_if_there_are_any(here: Here):
    await here.seal()
    for target, kinds in (
        ("a@example.org", []),
        ("b@example.org", ["node.down"]),
        ("c@example.org", ["report"]),
    ):
        await here.sql(
            """
            insert into channel (channel_id, user_id, kind, target, event_kinds, created_ms)
            values ($1, $2, 'mail', $3, $4, 1)
            """,
            new_id(),
            here.users["paul"],
            target,
            kinds,
        )
    await here.run(weekly=True)
    assert sorted(await here.mails()) == ["a@example.org", "c@example.org", "olga@example.org"]


async def test_a_corrected_day_is_summed_up_again(here: Here):
    day = await here.seal()
    await here.want_daily("paul")
    await here.run()
    await here.sql("alter table seal disable trigger all")
    await here.sql("update seal set revision = 2")
    await here.sql("update sealed_row set paid_ms = 0, operator_id = null")
    await here.run(due_ms=here.due_ms + DAY, late_ms=WAIT_MS)
    sums = await here.stores.reports.sums([here.project.project_id, here.users["olga"]], day.day, day.day)
    assert [(each.scope_id, each.revision, each.paid_ms) for each in sums] == [
        (here.project.project_id, 2, 0)
    ]


def make_sum(day: str, *, paid_ms: int, unobserved_ms: int = 0, worst: tuple[Worst, ...] = ()) -> DaySum:
    return DaySum(
        project_id="p",
        scope_id="p",
        day=day,
        revision=1,
        workloads=2,
        nodes=1,
        window_ms=2 * DAY,
        paid_ms=paid_ms,
        unobserved_ms=unobserved_ms,
        worst=worst,
    )


def test_the_words_of_a_week():
    days = days_before(1_790_294_400_000 // DAY * DAY, 2)
    part = Part(
        title="Project acme",
        days=days,
        shown=days_before(1_790_294_400_000 // DAY * DAY, 5),
        sums={
            days[0]: make_sum(days[0], paid_ms=2 * DAY - HOUR, unobserved_ms=HOUR),
            days[1]: make_sum(days[1], paid_ms=DAY, worst=(Worst("n1", "left\nbehind", DAY // 2, DAY),)),
        },
        points={days[0]: 1_500_000},
    )
    assert text([part], gaps=(2, 12_345)) == (
        "Project acme\n"
        "  Paid: 71.0 h of 95.0 h (74.73 %), 2 workloads on 1 nodes\n"
        "  Not observed, our fault, counts neither way: 1.0 h\n"
        "  Points committed: 1.5\n"
        f"  Points not committed: {days[1]}\n"
        "  Least paid:\n"
        f"    left behind (n1): 50.00 % on {days[1]}, 12.0 h unpaid\n"
        "  The last 5 days:\n"
        f"    {part.shown[0]} unknown  {part.shown[1]} unknown  {part.shown[2]} unknown  {days[0]} 100.00 %\n"
        f"    {days[1]} 50.00 %\n\n"
        "NodePulse itself did not listen 2 times, 12.3 s together: nobody loses by that."
    )
    page = html([part], gaps=(0, 0))
    assert as_data(bars([None, None, None, 1.0, 0.5])) in page
    assert "NodePulse listened all the time." in page


def test_what_was_not_paid_whole_is_never_told_as_whole():
    assert [percent(ratio) for ratio in (1.0, 0.99999, 0.0, None)] == [
        "100.00 %",
        "99.99 %",
        "0.00 %",
        "nothing to pay",
    ]


@pytest.mark.parametrize("ratio", [None, 0.0, 0.5, 0.95, 1.0])
def test_bars_are_as_high_as_their_day(ratio, tmp_path: Path):
    width, height, rows = _decoded(bars([1.0, ratio]))
    column = [row[width - MARGIN_PX - 1] for row in rows]
    filled = sum(1 for colour in column if colour in (2, 3, 4, 5))
    assert filled == {None: 4, 0.0: 4, 0.5: HEIGHT_PX // 2, 0.95: 68, 1.0: HEIGHT_PX}[ratio]
    assert {None: 5, 0.0: 4, 0.5: 4, 0.95: 3, 1.0: 2}[ratio] == column[height - MARGIN_PX - 1]
