"""Fetching a release: from the backend, in the name of the present session, or from a place of its own.

`update_url` names a file with the release's text, by https, http or file; its artefact lies beside it.
Nothing that is fetched is believed: signature and checksum say what it is, so plain HTTP will do. Blocking.
"""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urljoin

from node.config import NodeConfig
from node.post import PostFailedError, exchange, trusting
from node.update.release import TEXT_CHARS_MAX, Manifest, Release, UpdateError, read
from np1.shape import MalformedAnswerError, parse_object

TIMEOUT_S = 15.0
DOWNLOAD_S_MAX = 600.0
CHUNK_BYTES = 65_536
_TEXT = re.compile(r"[!-~]{1,2000}")


def published(config: NodeConfig) -> Release | None:
    """What is published now, its signature checked; None: nothing is. UpdateError."""
    if not config.update_key:
        raise UpdateError("update_key: not set; without its publisher's key no release can be believed")
    if config.update_url:
        return _from_place(config)
    return from_answer(config, _ask_backend(config))


def from_answer(config: NodeConfig, answer: Mapping[str, str] | None) -> Release | None:
    """The release that the backend tells of: version, url, sha256, signature. UpdateError."""
    if answer is None:
        return None
    manifest = read(answer["signature"], config.update_key)
    if (answer["version"], answer["sha256"]) != (manifest.version, manifest.sha256):
        raise UpdateError("the backend tells of another release than the one that was signed")
    return Release(manifest, answer["signature"], answer["url"])


def fetch(config: NodeConfig, release: Release) -> bytes:
    """The artefact, as long as the manifest says. UpdateError."""
    return _get(release.url, _trusting(config), bytes_max=release.manifest.size)


def _from_place(config: NodeConfig) -> Release:
    try:
        text = (
            _get(config.update_url, _trusting(config), bytes_max=TEXT_CHARS_MAX + 2).decode("ascii").strip()
        )
    except UnicodeDecodeError as error:
        raise UpdateError(f"{config.update_url}: not a release") from error
    manifest: Manifest = read(text, config.update_key)
    return Release(manifest, text, urljoin(config.update_url, manifest.file))


def _ask_backend(config: NodeConfig) -> dict[str, str] | None:
    """In the name of the session that the manager keeps on disk."""
    try:
        token = json.loads((config.data_path / "session.json").read_bytes())["token"]
        headers = {"Authorization": f"Bearer {token}"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UpdateError("no session: the manager must have run to ask the backend for releases") from error
    url = config.web_url.rstrip("/") + "/v1/manager/release"
    try:
        reply = exchange("GET", url, None, headers=headers, timeout_s=TIMEOUT_S, tls=_trusting(config))
    except (PostFailedError, ValueError) as error:
        raise UpdateError(f"{url}: {error}") from error
    if reply.status == 404:
        return None
    if reply.status != 200:
        raise UpdateError(f"{url}: {reply.status}")
    try:
        answer = parse_object(reply.body, bytes_max=65_536)
        return {name: answer.text(name, _TEXT) for name in ("version", "url", "sha256", "signature")}
    except MalformedAnswerError as error:
        raise UpdateError(f"{url}: {error}") from error


def _trusting(config: NodeConfig) -> ssl.SSLContext | None:
    try:
        return trusting(config.tls_ca_file)
    except OSError as error:
        raise UpdateError(f"tls_ca_file: {error}") from error


def _get(url: str, tls: ssl.SSLContext | None, *, bytes_max: int) -> bytes:
    """The body of a GET, redirects followed to http and https. UpdateError, also when it is longer."""
    handlers = [
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=tls),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.FileHandler(),
        urllib.request.UnknownHandler(),
    ]
    opener = urllib.request.OpenerDirector()
    for handler in handlers:
        opener.add_handler(handler)
    until_s = time.monotonic() + DOWNLOAD_S_MAX
    body = bytearray()
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            while (
                chunk := answer.read1(CHUNK_BYTES) if hasattr(answer, "read1") else answer.read(CHUNK_BYTES)
            ):
                body += chunk
                if len(body) > bytes_max:
                    raise UpdateError(f"{url}: longer than the {bytes_max} bytes that it may be")
                if time.monotonic() > until_s:
                    raise UpdateError(f"{url}: not whole within {DOWNLOAD_S_MAX:g} s")
    except urllib.error.HTTPError as error:
        error.close()
        raise UpdateError(f"{url}: {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
        raise UpdateError(f"{url}: {error}") from error
    return bytes(body)
