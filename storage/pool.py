"""The connections to PostgreSQL: a pool on the host loop that connects when needed and heals by itself.

`Postgres.run` is the only way from trio to SQL: one crossing per call, in which a coroutine of the host
does all of its statements. What cannot be helped here becomes StoreUnavailableError. No SQL of ours is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg

from engine.core.ports import StoreUnavailableError
from storage.bridge import await_host, is_closed_transport
from storage.settings import DatabaseSettings

T = TypeVar("T")
Connection: TypeAlias = asyncpg.Connection

CONNECT_TIMEOUT_S = 5.0
# Errors that say something of the server or of its moment, and nothing of our statement. By SQLSTATE class:
# 08 connection, 28 authorization, 3D no such database, 40 rollback (deadlock), 53 resources, 57 operator
# intervention (starting up, shutting down), 58 I/O; 25006 read only (a standby); 42P01 not yet migrated.
_UNAVAILABLE_CLASSES = ("08", "28", "3D", "40", "53", "57", "58")
_UNAVAILABLE_CODES = ("25006", "42P01")


def unavailable(error: BaseException) -> str | None:
    """Why the store could not be reached, or None when the error is another's fault."""
    if isinstance(error, TimeoutError):
        return "PostgreSQL did not answer in time"
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        known = code.startswith(_UNAVAILABLE_CLASSES) or code in _UNAVAILABLE_CODES
        return f"PostgreSQL: {error} ({code})" if known else None
    if isinstance(error, OSError) or _is_broken(error):
        return f"PostgreSQL cannot be reached: {error}"
    return None


def _is_broken(error: BaseException) -> bool:
    """Whether a connection was lost in the way asyncpg tells it while the end of the stream is on its way.

    The server's last word (it is shut down, it was killed) upsets the protocol: what comes next finds it in
    a state it cannot be in, or busy. We never share a connection, so nothing else can say so.
    """
    if isinstance(error, asyncpg.InterfaceError):
        return any(word in str(error) for word in ("is closed", "was closed", "closing", "in progress"))
    return isinstance(error, asyncpg.InternalClientError) or is_closed_transport(error)


class Postgres:
    """A pool of at most `pool_connections_max` connections. `open` first, `close` last, both from trio."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Connects to nothing: the server may be away."""
        await await_host(self._open)

    async def close(self) -> None:
        """Close the connections; those that do not end in time are cut."""
        await await_host(self._close)

    async def run(self, fn: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """``await fn(connection, *args)`` on the host loop. StoreUnavailableError, and what `fn` raises."""
        return await await_host(self._run, fn, args)

    async def connect_alone(self) -> Connection:
        """On the host loop: a connection outside of the pool, for locks and LISTEN. The caller closes it."""
        try:
            return await asyncpg.connect(
                self._settings.url,
                timeout=self._settings.connect_timeout_s,
                command_timeout=self._settings.command_timeout_s,
            )
        except Exception as error:
            if reason := unavailable(error):
                raise StoreUnavailableError(reason) from error
            raise

    def statistics(self) -> dict[str, int]:
        """Connections open, of those idle, and the bound."""
        assert self._pool is not None, "not open"
        return {
            "postgres_connections": self._pool.get_size(),
            "postgres_connections_idle": self._pool.get_idle_size(),
            "postgres_connections_max": self._pool.get_max_size(),
        }

    async def _open(self) -> None:
        self._pool = await asyncpg.create_pool(
            self._settings.url,
            min_size=0,
            max_size=self._settings.pool_connections_max,
            timeout=self._settings.connect_timeout_s,
            command_timeout=self._settings.command_timeout_s,
            reset=_nothing_to_reset,
        )

    async def _close(self) -> None:
        assert self._pool is not None, "not open"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _run(self, fn: Callable[..., Coroutine[Any, Any, T]], args: tuple[object, ...]) -> T:
        assert self._pool is not None, "not open"
        try:
            # The timeout of acquire bounds the way back into the pool as well. Each statement has its own
            # (command_timeout), and none for all together: a great batch may take many statements.
            async with self._pool.acquire(timeout=self._settings.connect_timeout_s) as connection:
                try:
                    return await fn(connection, *args)
                except Exception as error:
                    if _is_broken(error) or isinstance(error, asyncpg.OperatorInterventionError):
                        with suppress(asyncpg.InterfaceError):  # gone already
                            connection.terminate()  # it must not go back into the pool
                    raise
        except Exception as error:
            if reason := unavailable(error):
                raise StoreUnavailableError(reason) from error
            raise


async def _nothing_to_reset(_connection: Connection) -> None:
    """Our statements leave nothing in a session, so the round trip of asyncpg's own reset is saved."""
