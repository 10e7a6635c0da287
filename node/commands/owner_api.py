"""Calls to the web API as a person: registering the machine, putting workloads on it and taking them away.

The credential is an API key of the operator (or of the project), from a file, the environment or the
terminal; never from the command line, where other users of the machine could read it, and never kept.
"""

from __future__ import annotations

import getpass
import json
import os
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.commands.ending import UNREACHABLE, USAGE, CommandError
from node.config import NodeConfig
from node.post import PostFailedError, Reply, exchange, trusting

KEY_VARIABLE = "NODEPULSE_API_KEY"
KEY_BYTES_MAX = 4_096
TIMEOUT_S = 15.0
TRIES = 3  # with one Idempotency-Key, so that nothing is made twice
PAUSE_S = 1.0
FAULTS_MAX = 6  # of one refusal, that are told
LOOPBACK = ("localhost", "127.0.0.1", "::1")
WHERE_KEYS_ARE = (
    f"--key-file FILE (- for standard input) or {KEY_VARIABLE}; make one on your page in the browser"
)


def read_key(key_file: str | None) -> str:
    """The API key: from the file (``-``: standard input), the environment, or the terminal. CommandError."""
    try:
        if key_file == "-":
            text = sys.stdin.read(KEY_BYTES_MAX)
        elif key_file:
            text = Path(key_file).read_text(encoding="ascii")[:KEY_BYTES_MAX]
        else:
            text = os.environ.get(KEY_VARIABLE, "")
            if not text and sys.stdin.isatty():
                text = getpass.getpass("API key of the operator: ")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{key_file}: {error}", advice=WHERE_KEYS_ARE, code=USAGE) from error
    key = text.strip()
    if not key:
        raise CommandError("this needs an operator's API key", advice=WHERE_KEYS_ARE, code=USAGE)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CommandError("this is no API key: they begin with np_", advice=WHERE_KEYS_ARE, code=USAGE)
    return key


def tls_of(config: NodeConfig) -> ssl.SSLContext | None:
    """What to trust. CommandError."""
    try:
        return trusting(config.tls_ca_file)
    except OSError as error:
        raise CommandError(
            f"tls_ca_file: {error}", advice="{prog} config set tls_ca_file FILE", code=USAGE
        ) from error


class OwnerApi:
    """Calls in the name of whoever has `key`. Each raises CommandError for what is not answered well."""

    def __init__(self, config: NodeConfig, key: str) -> None:
        if not config.web_url:
            raise CommandError(
                "web_url: not known yet", advice="{prog} config set web_url https://...", code=USAGE
            )
        self._base_url = config.web_url.rstrip("/")
        self._key, self._tls = key, tls_of(config)
        parts = urlsplit(self._base_url)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            print(f"warning: the API key travels in the clear to {parts.hostname}", file=sys.stderr)

    def get(self, path: str) -> dict[str, Any]:
        return _read(self._ask("GET", path, None, {}))

    def post(self, path: str, body: Mapping[str, Any], *, once: str) -> dict[str, Any]:
        """`once`: the Idempotency-Key; tried again with it while nobody answers."""
        return _read(self._ask("POST", path, json.dumps(body).encode(), {"Idempotency-Key": once}))

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        own = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **headers}
        for tries_left in reversed(range(TRIES)):
            try:
                reply = exchange(
                    method, self._base_url + path, body, headers=own, timeout_s=TIMEOUT_S, tls=self._tls
                )
            except PostFailedError as error:
                if not tries_left:
                    raise unreachable(self._base_url, str(error)) from error
            else:
                if reply.status < 500:
                    return reply
                if not tries_left:
                    raise unreachable(self._base_url, _problem(reply)[1] or f"it answers {reply.status}")
            time.sleep(PAUSE_S)
        raise AssertionError("the last try returns or raises")


def unreachable(url: str, why: str) -> CommandError:
    return CommandError(
        f"{url} cannot be reached: {why}",
        advice="is it the right address ({prog} config get web_url), and is the network up? Try again later",
        code=UNREACHABLE,
    )


class RefusedError(CommandError):
    """The web API said no; `refusal` is its code for programs."""

    def __init__(self, status: int, refusal: str, text: str, advice: str = "") -> None:
        super().__init__(text, advice=advice)
        self.status, self.refusal = status, refusal


def _read(reply: Reply) -> dict[str, Any]:
    if reply.status // 100 != 2:
        code, detail = _problem(reply)
        raise RefusedError(reply.status, code, detail or f"it answers {reply.status}", _advice(reply, code))
    try:
        answer = json.loads(reply.body)
    except ValueError as error:
        raise CommandError("the answer of the web API is not JSON", advice="is web_url right?") from error
    if not isinstance(answer, dict):
        raise CommandError("the answer of the web API is no object", advice="is web_url right?")
    return answer


def _problem(reply: Reply) -> tuple[str, str]:
    """Code and words of a problem+json; both empty for something else."""
    try:
        said = json.loads(reply.body)
        code, detail = str(said.get("code", "")), str(said.get("detail", ""))
        faults = [f"{one['pointer']}: {one['detail']}" for one in said.get("errors", ())]
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", ""
    return code, "; ".join([detail, *(one for one in faults if detail not in one)][:FAULTS_MAX]) or code


def _advice(reply: Reply, code: str) -> str:
    if reply.status == 401:
        return f"the API key is not known, or over; another one: {WHERE_KEYS_ARE}"
    if reply.status == 429:
        return f"try again in {reply.retry_after or 'some'} s"
    known = {
        "key_taken": "this machine's? {prog} register --node-id ID; else {prog} init --force makes a new key",
        "idempotency_key_reused": "it was asked for before in other words: repeat those, or use --node-id ID",
        "unknown_reference": "ask who runs the project which kinds and licences there are",
    }
    if code in known:
        return known[code]
    if reply.status == 403:
        return "the key's person must operate nodes, or run the project"
    return "is web_url right ({prog} config get web_url)?" if reply.status == 404 and not code else ""
