"""Archives of the manager, served to anybody from a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.web.fakes import World
from web import release_files
from web.settings import WebSettings

WHERE = "/v1/manager/releases/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.zip").write_bytes(b"secret")
    folder = tmp_path / "releases"
    folder.mkdir()
    (folder / "manager-0.2.0.zip").write_bytes(b"archive")
    (folder / "latest.release").write_bytes(b"text\n")
    return folder


async def test_anybody_gets_what_lies_there_and_nothing_else(folder: Path):
    world = World(settings=WebSettings(releases_dir=str(folder)))
    (folder / "notes.txt").write_text("")
    (folder / ".hidden.zip").write_text("")
    (folder / "folder.zip").mkdir()
    os.mkfifo(folder / "pipe.zip")
    found = await world.client.get(f"{WHERE}manager-0.2.0.zip")
    assert (found.status_code, await found.get_data()) == (200, b"archive")
    assert found.headers["content-type"] == "application/octet-stream"
    again = await world.client.get(
        f"{WHERE}manager-0.2.0.zip", headers={"if-none-match": found.headers["etag"]}
    )
    assert (again.status_code, await again.get_data()) == (304, b"")
    assert (await world.client.get(f"{WHERE}latest.release")).status_code == 200
    for name in (
        "notes.txt",
        ".hidden.zip",
        "folder.zip",
        "pipe.zip",
        "none.zip",
        "..%2Fsecret.zip",
        "%2e%2e%2fsecret.zip",
        "x%00.zip",
        "a" * 300 + ".zip",
    ):
        assert (await world.client.get(WHERE + name)).status_code == 404, name


async def test_what_is_too_long_is_not_served(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(release_files, "FILE_BYTES_MAX", 6)
    world = World(settings=WebSettings(releases_dir=str(folder)))
    assert (await world.client.get(f"{WHERE}manager-0.2.0.zip")).status_code == 404


async def test_without_a_folder_there_is_nothing(folder: Path):
    world = World()
    assert (await world.client.get(f"{WHERE}manager-0.2.0.zip")).status_code == 404
