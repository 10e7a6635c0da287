"""Building a release of the node's manager: the archive, and the manifest that is signed for it.

The archive is a zip that Python runs as it is: np1 and node, nothing compiled and nothing of others, which
stay the machine's; what must be installed beside it is what the manifest's `needs` say. The same sources make
the same bytes. How a manager takes a release is node/update's.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

from node.update.release import Manifest, sign
from node.update.versions import is_version

PACKAGES = ("np1", "node")
NEEDS = ("python>=3.11", "trio>=0.30", "cryptography>=44")
_MAIN = '''"""Begins the program of this archive."""

from node.commands.main import main

raise SystemExit(main())
'''
_VERSION = (
    '"""The manager\'s own version, as it is told to the server with each session."""\n\nVERSION = "{}"\n'
)
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # of time, for zips: when it was built has no say
SUFFIX = ".release"
LATEST = f"latest{SUFFIX}"  # what `update_url` names where releases lie in a folder


class Built(NamedTuple):
    """`archive`, and `text`: the release as it is published."""

    manifest: Manifest
    archive: bytes
    text: str


def sources() -> Path:
    """The folder that holds the packages which run here."""
    return Path(__file__).parents[1]


def archive_of(folder: Path, version: str) -> bytes:
    """The archive of the packages in a folder, as that version. ValueError, OSError."""
    if not is_version(version):
        raise ValueError(f"not a version of SemVer 2.0.0: {version!r}")
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for package in PACKAGES
        for path in sorted((folder / package).rglob("*.py"))
    }
    for package in PACKAGES:
        if f"{package}/__init__.py" not in files:
            raise ValueError(f"{folder}: there is no package {package}")
    files |= {"__main__.py": _MAIN.encode(), "node/version.py": _VERSION.format(version).encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _BEGINNING), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def build(
    *,
    version: str,
    seed: bytes,
    published_ms: int,
    folder: Path | None = None,
    minimum_version: str = "0.1.0",
    needs: tuple[str, ...] = NEEDS,
) -> Built:
    """A release, signed. seed: the publisher's. folder: holds the packages. ValueError, OSError."""
    archive = archive_of(folder or sources(), version)
    manifest = Manifest(
        version=version,
        file=f"nodepulse-manager-{version}.zip",
        size=len(archive),
        sha256=hashlib.sha256(archive).hexdigest(),
        minimum_version=minimum_version,
        published_ms=published_ms,
        needs=needs,
    )
    return Built(manifest, archive, sign(manifest, seed))


def write(built: Built, folder: Path) -> tuple[Path, Path]:
    """Put archive and release into a folder, the archive first: who sees the release finds it. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / built.manifest.file
    release = archive.with_suffix(SUFFIX)
    text = built.text.encode() + b"\n"
    for path, data in ((archive, built.archive), (release, text), (folder / LATEST, text)):
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(data)
        beside.replace(path)
    return archive, release
