"""`backup` and `restore`: an installation into a folder, while it serves, and out of it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from nodepulse import backup as backups
from nodepulse.backup import BackupError, Manifest
from nodepulse.commands.options import Sources, config_options
from nodepulse.commands.output import json_option, show
from nodepulse.commands.stores import reachable
from nodepulse.config import Config
from nodepulse.runfolder import hold_lock, prepare
from storage import roles
from storage.binaries import EmbeddedServerError
from storage.bridge import run_on_uvloop
from web.times import format_rfc3339

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=_FOLDER)
@json_option
@config_options
def backup(*, folder: Path, as_json: bool, sources: Sources) -> None:
    """Copy PostgreSQL, journals and keys into FOLDER, while the installation serves.

    FOLDER must not exist yet; it is there only once it is whole. It holds the master secrets.
    """
    configured = sources.configured()
    config = _as_owner(reachable(configured), configured)
    made: list[Manifest] = []
    to = folder.absolute()

    async def main() -> int:
        made.append(await backups.back_up(config, to))
        return 0

    _run(main)
    _show(made[0], folder, as_json=as_json)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--only-postgres", is_flag=True, help="Journals and keys were not lost: leave them as they are."
)
@json_option
@config_options
def restore(*, folder: Path, only_postgres: bool, as_json: bool, sources: Sources) -> None:
    """Bring what `backup` made in FOLDER back, into an empty data folder and an empty database."""
    config = sources.configured()
    made: list[Manifest] = []
    source = folder.absolute()

    async def main() -> int:
        made.append(await backups.bring_back(config, source, only_postgres=only_postgres))
        return 0

    with hold_lock(prepare(config.folder)):
        _run(main)
    _show(made[0], folder, as_json=as_json)
    if not as_json:
        click.echo(f"Next: ./run serve --data-dir {config.folder}")


def _as_owner(effective: Config, configured: Config) -> Config:
    """With the URL of the role that may read everything: a running `serve` tells it to nobody."""
    database = effective.database
    if configured.database.url:
        owner_url = configured.database.owner_url
    else:
        owner_url = database.url.replace(f"//{roles.APPLICATION}@", f"//{roles.OWNER}@", 1)
    return msgspec.structs.replace(effective, database=msgspec.structs.replace(database, owner_url=owner_url))


def _run(main: Callable[[], Awaitable[int]]) -> None:
    try:
        code = run_on_uvloop(main)
    except (BackupError, EmbeddedServerError) as error:
        raise click.ClickException(str(error)) from error
    if code:
        raise SystemExit(code)


def _show(manifest: Manifest, folder: Path, *, as_json: bool) -> None:
    size = sum(kept.bytes for kept in manifest.files.values())
    told = {
        "folder": str(folder),
        "version": manifest.version,
        "as_of": format_rfc3339(manifest.began_ms),
        "took_s": round(manifest.took_s, 1),
        "files": len(manifest.files),
        "bytes": size,
    }
    show(told, as_json=as_json)
