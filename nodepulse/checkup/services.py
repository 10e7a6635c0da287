"""Versions, ports, and the stores: the embedded servers' programs and account, or those configured."""

from __future__ import annotations

import pwd
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import metadata

import trio

from engine.core.ports import StoreUnavailableError
from engine.core.version import VERSION
from engine.sockets import PortTakenError, open_beat_sockets
from nodepulse.checkup.finding import Finding
from nodepulse.config import Config
from nodepulse.readiness import address, get
from nodepulse.runfolder import is_served
from storage.binaries import Account, EmbeddedServerError, account_for, postgres_binaries, valkey_binary
from storage.open import open_stores
from storage.roles import standing

LIBRARIES = ("trio", "uvloop", "asyncpg", "redis", "numpy", "quart", "hypercorn", "msgspec", "orjson")


def version_findings() -> Iterator[Finding]:
    """Findings of the area `versions`."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("versions", "nodepulse", "ok", f"{VERSION} on Python {python}")
    yield Finding(
        "versions", "libraries", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    )


async def port_findings(config: Config) -> AsyncIterator[Finding]:
    """Findings of the area `ports`: free, or ours already."""
    if is_served(config.folder):
        status, body = await get(config.web.host, config.web.port, "/readyz?verbose")
        ready = status == 200
        found = f"serve runs on {config.folder}; {address(config.web.host, config.web.port)} answers {status}"
        yield Finding("ports", "serving", "ok" if ready else "problem", found, "" if ready else body.strip())
        return
    yield _beats_port(config)
    yield await _web_port(config)


def _beats_port(config: Config) -> Finding:
    where = address(config.ingest.host, config.ingest.port)
    try:
        open_beat_sockets(
            host=config.ingest.host, port=config.ingest.port, sockets=1, receive_buffer_bytes=65_536
        ).close()
    except (PortTakenError, OSError) as error:
        return Finding("ports", "beats", "problem", f"{where}: {error}", "choose another with --beats")
    return Finding("ports", "beats", "ok", f"{where} is free, UDP and TCP")


async def _web_port(config: Config) -> Finding:
    where = address(config.web.host, config.web.port)
    try:
        for listener in await trio.open_tcp_listeners(config.web.port, host=config.web.host):
            await listener.aclose()
    except OSError as error:
        return Finding("ports", "web", "problem", f"{where}: {error}", "choose another with --web")
    return Finding("ports", "web", "ok", f"{where} is free")


async def store_findings(config: Config) -> AsyncIterator[Finding]:
    """Findings of the area `stores`."""
    if config.database.url:
        yield await _database(config)
        yield await _role(config)
    else:
        yield await _embedded(config, "postgres")
    if config.redis.url:
        yield await _redis(config)
    else:
        yield await _embedded(config, "valkey")


async def _database(config: Config) -> Finding:
    try:
        async with open_stores(config.database, config.redis) as stores:
            position = await stores.registry.position()
    except StoreUnavailableError as error:
        return Finding(
            "stores", "PostgreSQL", "problem", str(error), "see database.url; nodepulse db migrate"
        )
    return Finding("stores", "PostgreSQL", "ok", f"answers; registry at change {position}")


async def _role(config: Config) -> Finding:
    """Whether what is sealed is safe from the application's own role."""
    try:
        found = await standing(config.database.url)
    except StoreUnavailableError as error:
        return Finding("stores", "role", "problem", str(error), "see database.url")
    if found.well:
        return Finding(
            "stores", "role", "ok", f"{found.role} can add to what is sealed, and change none of it"
        )
    reasons = ["is mighty (superuser, makes roles, or replicates)"] if found.mighty else []
    reasons += [f"owns {', '.join(found.owned)}"] if found.owned else []
    reasons += [f"was granted too much on {', '.join(found.open)}"] if found.open else []
    return Finding(
        "stores",
        "role",
        "note",
        f"{found.role} {'; '.join(reasons)}: with it sealed days and paid points could be changed",
        "give the application a role of its own: docs/operations.md, Two roles; then nodepulse db migrate",
    )


async def _redis(config: Config) -> Finding:
    try:
        async with open_stores(config.database, config.redis) as stores:
            heads = await stores.live.heads()
    except StoreUnavailableError as error:
        return Finding("stores", "Redis", "problem", str(error), "see redis.url")
    return Finding("stores", "Redis", "ok", f"answers; live views of {len(heads)} shards")


async def _embedded(config: Config, name: str) -> Finding:
    try:
        account = account_for(config.folder / name)
        if name == "postgres":
            program = await postgres_binaries(account, setting=config.database.binaries) / "postgres"
        else:
            program = await valkey_binary(account, setting=config.redis.binaries)
    except EmbeddedServerError as error:
        return Finding("stores", f"embedded {name}", "problem", str(error), "or configure an URL")
    done = await trio.run_process(
        [str(program), "--version"], capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    version = done.stdout.decode(errors="replace").strip()
    broken = done.returncode != 0
    found = f"{version.split(' malloc')[0]}, as {_name(account)}, {program}"
    return Finding(
        "stores",
        f"embedded {name}",
        "problem" if broken else "ok",
        found,
        "it does not run" if broken else "",
    )


def _name(account: Account) -> str:
    try:
        return f"user {pwd.getpwuid(account.uid).pw_name}"
    except KeyError:
        return f"uid {account.uid}"
