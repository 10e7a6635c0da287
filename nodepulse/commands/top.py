"""`top`: an installation in figures, live in the terminal, once, or as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import json_option, print_json
from nodepulse.config import Config
from nodepulse.figures import Frame, Scrape, frame, scrape
from nodepulse.limits import ConfigError, Problem
from nodepulse.readiness import reached_at
from nodepulse.runfolder import effective_of

LATE_S = 5.0  # a watermark that is older is shown in red


@click.command()
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--every", type=click.FloatRange(0.2, 60.0), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@json_option
@config_options
def top(*, urls: tuple[str, ...], every: float, once: bool, as_json: bool, sources: Sources) -> None:
    """An installation in figures, live: shards, beats, refusals, ACKs, flushes, gaps, notices, schedule.

    Of the `serve` that runs on --data-dir, or of the processes whose /metrics are given as URLs.
    """
    asked = _checked(urls) or addresses_of(effective_of(sources.configured().folder))
    if once or as_json:
        before = scrape(asked, now_s=time.time())
        time.sleep(min(every, 1.0))
        seen = frame(scrape(asked, now_s=time.time()), before)
        if as_json:
            print_json(msgspec.to_builtins(seen))
        else:
            Console(highlight=False).print(drawn(seen))
        if not (seen.shards or seen.workers or seen.webs):
            raise SystemExit(1)
        return
    _follow(asked, every)


def addresses_of(config: Config) -> list[str]:
    """/metrics of every process of an installation, engines first."""
    engine, worker, serve, web = config.engine, config.worker, config.serve, config.web
    places = [(engine.metrics_host, engine.metrics_port + shard) for shard in range(engine.shards)]
    places += [
        (worker.metrics_host, worker.metrics_port),
        (web.host, web.port),
        (serve.metrics_host, serve.metrics_port),
    ]
    return [f"http://{reached_at(host, port)}/metrics" for host, port in places]


def _checked(urls: Sequence[str]) -> list[str]:
    """Whole addresses: without a path /metrics is meant. ConfigError."""
    found = []
    for url in urls:
        scheme, _, rest = url.partition("://")
        if scheme not in ("http", "https") or not rest.partition("/")[0]:
            raise ConfigError([Problem(url, "is no http(s) address, such as http://10.0.0.5:9100/metrics")])
        found.append(url if rest.partition("/")[2] else f"{url.rstrip('/')}/metrics")
    return found


def _follow(urls: Sequence[str], every_s: float) -> None:
    before: list[Scrape] = []
    try:
        with Live(screen=True, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                now = scrape(urls, now_s=time.time())
                live.update(drawn(frame(now, before)), refresh=True)
                before = now
                time.sleep(max(0.0, every_s - (time.monotonic() - began)))
    except KeyboardInterrupt:
        return  # how one leaves it


def drawn(seen: Frame) -> RenderableType:
    """A frame for the terminal."""
    parts: list[RenderableType] = [_headline(seen), Text()]
    parts += [
        _shards(seen),
        Text(),
        _stores(seen),
        Text(),
        _workers(seen),
        Text(),
        _jobs(seen),
        Text(),
        _webs(seen),
    ]
    if seen.away:
        parts += [Text(), Text("does not answer", style="bold red")]
        parts += [Text(f"  {where}  {why}", style="red") for where, why in seen.away.items()]
    return Group(*parts)


def _headline(seen: Frame) -> Text:
    beats = sum(shard.beats_per_s for shard in seen.shards)
    refused: dict[str, float] = {}
    for shard in seen.shards:
        for reason, number in shard.rejected_per_s.items():
            refused[reason] = refused.get(reason, 0.0) + number
    said = Text(f"{beats:,.0f} beats/s", style="bold")
    said.append(f"   {sum(shard.rows for shard in seen.shards):,} rows", style="not bold")
    told = ", ".join(f"{reason} {number:,.1f}/s" for reason, number in sorted(refused.items()))
    said.append(f"   refused: {told or 'none'}", style="not bold yellow" if told else "not bold")
    for shard in seen.shards:
        if shard.phase != "normal":
            said.append(f"   {shard.phase.upper()}", style="bold red")
        for trouble in shard.trouble:
            said.append(f"   {trouble}", style="bold red")
    return said


def _shards(seen: Frame) -> Table:
    table = _table("shard", "rows", "beats/s", "ack p50", "ack p99", "suspect", "state")
    for shard in seen.shards:
        table.add_row(
            _name(shard.where),
            f"{shard.rows:,}",
            f"{shard.beats_per_s:,.1f}",
            _ms(shard.ack_p50_ms),
            _ms(shard.ack_p99_ms),
            str(shard.suspect),
            Text(shard.phase, style="green" if shard.phase == "normal" else "bold red"),
        )
    return table


def _stores(seen: Frame) -> Table:
    table = _table("flush", "watermark", "lag", "journal", "gaps", "unobserved")
    for shard in seen.shards:
        late = shard.watermark_age_s > LATE_S
        table.add_row(
            _name(shard.where),
            Text(f"{shard.watermark_age_s:,.1f} s old", style="red" if late else ""),
            _size(shard.flush_lag_bytes),
            _size(shard.journal_bytes),
            str(shard.gaps),
            f"{shard.unobserved_s:,.1f} s",
        )
    return table


def _workers(seen: Frame) -> Table:
    table = _table("outbox", "notifier", "lag", "in flight", "sent", "dead")
    for worker in seen.workers:
        table.add_row(
            _name(worker.where),
            "holds the lock" if worker.notifies else "stands by",
            _ms(worker.notifier_lag_ms),
            str(worker.in_flight),
            f"{worker.sent:,}",
            Text(str(worker.dead), style="red" if worker.dead else ""),
        )
    return table


def _jobs(seen: Frame) -> Table:
    table = _table("schedule", "oldest due", "running", "failed")
    for worker in seen.workers:
        failed = ", ".join(f"{job} {number}" for job, number in worker.failed_jobs.items())
        late = f"{worker.schedule_lag_s:,.0f} s late" if worker.schedule_lag_s else "on time"
        table.add_row(
            _name(worker.where),
            late,
            str(worker.schedule_running),
            Text(failed or "none", style="red" if failed else ""),
        )
    return table


def _webs(seen: Frame) -> Table:
    table = _table("web", "requests/s", "connections", "5xx", "restarts by serve")
    restarts = ", ".join(f"{name} {number}" for name, number in seen.restarts.items() if number)
    for web in seen.webs:
        table.add_row(
            _name(web.where),
            f"{web.requests_per_s:,.1f}",
            str(web.connections),
            Text(str(web.failed), style="red" if web.failed else ""),
            Text(restarts or "none", style="yellow" if restarts else ""),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _name(where: str) -> str:
    return where.partition("://")[2].removesuffix("/metrics")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
