"""`release manager`: building, signing and checking a release of the node's manager, without an installation.

Publishing what was built is `admin release publish`, or putting the folder where `update_url` of the nodes
says. What a release is, stands in nodepulse/manager_archive.py.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nodepulse.commands.output import json_option, show
from nodepulse.manager_archive import NEEDS, Built, build, write

SEED_BYTES = 32
FILE = click.Path(path_type=Path)


@click.group()
def release() -> None:
    """Releases of what runs on machines."""


@release.group()
def manager() -> None:
    """Releases of the node's manager."""


@manager.command(name="key")
@click.argument("file", type=FILE)
@json_option
def manager_key(*, file: Path, as_json: bool) -> None:
    """Make the key that releases are signed with, in a new FILE of mode 0600.

    Who has it can run anything on each node that believes it: keep it off every machine that serves.
    """
    from node.update.release import public_key_of

    seed = secrets.token_bytes(SEED_BYTES)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise click.ClickException(f"{file} is there already: a key is never written over") from error
    with os.fdopen(descriptor, "w") as opened:
        opened.write(seed.hex() + "\n")
    show({"file": str(file), "update_key": public_key_of(seed)}, as_json=as_json)


@manager.command(name="build")
@click.option("--version", required=True, help="SemVer 2.0.0; what the managers will say they are.")
@click.option("--key", "key_file", type=FILE, required=True, help="File with the publisher's key.")
@click.option("--out", type=FILE, required=True, help="Folder for the archive and its release.")
@click.option("--minimum-version", default="0.1.0", show_default=True, help="Oldest that may follow to it.")
@click.option("--need", "needs", multiple=True, metavar="NAME>=1,<2", help="Instead of the usual ones.")
@click.option("--sources", type=FILE, help="Folder with np1 and node; default: what runs here.")
@click.option("--url", default="", help="Where the folder will be reached; for `admin release publish`.")
@json_option
def manager_build(
    *,
    version: str,
    key_file: Path,
    out: Path,
    minimum_version: str,
    needs: tuple[str, ...],
    sources: Path | None,
    url: str,
    as_json: bool,
) -> None:
    """Build a release of the manager, sign it, and check it as a node does."""
    from node.update.release import public_key_of

    seed = _seed(key_file)
    try:
        built = build(
            version=version,
            seed=seed,
            published_ms=time.time_ns() // 1_000_000,
            folder=sources,
            minimum_version=minimum_version,
            needs=needs or NEEDS,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    archive, text = write(built, out)
    _must_hold(text, public_key_of(seed))
    show(_told(built, archive, text, url), as_json=as_json)


def _told(built: Built, archive: Path, text: Path, url: str) -> dict[str, Any]:
    where = f"{url.rstrip('/')}/{built.manifest.file}" if url else "URL"
    return {
        "version": built.manifest.version,
        "archive": str(archive),
        "release": str(text),
        "size": built.manifest.size,
        "sha256": built.manifest.sha256,
        "signature": built.text,
        "publish": f"nodepulse admin release publish {built.manifest.version} --url {where} "
        f"--sha256 {built.manifest.sha256} --signature {built.text} --rollout 10",
    }


@manager.command(name="verify")
@click.argument("file", type=FILE)
@click.option("--update-key", required=True, metavar="HEX", help="The publisher's public key.")
@json_option
def manager_verify(*, file: Path, update_key: str, as_json: bool) -> None:
    """Check a release FILE and the archive beside it, as a node does."""
    show(_must_hold(file, update_key), as_json=as_json)


def _must_hold(file: Path, key: str) -> dict[str, Any]:
    """The manifest; ClickException when the release must not be taken."""
    from node.update.release import UpdateError, read

    try:
        manifest = read(file.read_text("ascii").strip(), key)
    except (UpdateError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from error
    archive = file.with_name(manifest.file).read_bytes()
    if (len(archive), hashlib.sha256(archive).hexdigest()) != (manifest.size, manifest.sha256):
        raise click.ClickException(f"{manifest.file} is not what was signed in {file}")
    return asdict(manifest)


def _seed(file: Path) -> bytes:
    if file.stat().st_mode & 0o077:
        raise click.ClickException(f"{file}: others can read the key; chmod 600 it")
    try:
        seed = bytes.fromhex(file.read_text("ascii").strip())
    except (ValueError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: not a key") from error
    if len(seed) != SEED_BYTES:
        raise click.ClickException(f"{file}: not a key")
    return seed
