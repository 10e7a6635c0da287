"""`doctor`: what is wrong with this machine or configuration."""

from __future__ import annotations

from collections import Counter

import click
import msgspec

from nodepulse.checkup.clock import clock_findings
from nodepulse.checkup.disk import disk_findings
from nodepulse.checkup.finding import Finding
from nodepulse.checkup.kernel import kernel_findings
from nodepulse.checkup.services import port_findings, store_findings, version_findings
from nodepulse.commands.options import Sources, address_option, config_options
from nodepulse.commands.output import json_option, print_json, show_all
from nodepulse.config import Config
from nodepulse.runfolder import effective_of, is_served
from storage.bridge import run_on_uvloop


@click.command()
@click.option("--web", metavar="HOST:PORT", help="As for serve.")
@click.option("--beats", metavar="HOST:PORT", help="As for serve.")
@json_option
@config_options
def doctor(*, web: str | None, beats: str | None, as_json: bool, sources: Sources) -> None:
    """Look at kernel, clock, disk, versions, ports and stores. Exit code 1 when there is a problem."""
    web_host, web_port = address_option(web, "--web")
    beats_host, beats_port = address_option(beats, "--beats")
    config = sources.configured(
        web__host=web_host, web__port=web_port, ingest__host=beats_host, ingest__port=beats_port
    )
    if is_served(config.folder):
        config = effective_of(config.folder)
    found = examine(config)
    counts = Counter(finding.level for finding in found)
    if as_json:
        print_json({"problems": counts["problem"], "findings": msgspec.to_builtins(found)})
    else:
        show_all("findings", [_row(finding) for finding in found], as_json=False)
        click.echo(f"{counts['problem']} problems, {counts['note']} notes")
    raise SystemExit(1 if counts["problem"] else 0)


def examine(config: Config) -> list[Finding]:
    """All findings, in the order in which they are shown."""
    found = [*kernel_findings(config), *clock_findings(), *disk_findings(config), *version_findings()]

    async def ask() -> int:
        found.extend([finding async for finding in port_findings(config)])
        found.extend([finding async for finding in store_findings(config)])
        return 0

    run_on_uvloop(ask)
    return found


def _row(finding: Finding) -> dict[str, str]:
    text = f"{finding.found}\n{finding.advice}" if finding.advice else finding.found
    return {"area": finding.area, "what": finding.what, "": finding.level.upper(), "found": text}
