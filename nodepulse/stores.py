"""The embedded PostgreSQL and Valkey as servants, and the secrets of the installation.

Only for installations that configure no URL of their own; how the servers are run is storage/embedded.py's.
"""

from __future__ import annotations

import secrets
import signal
from pathlib import Path

import msgspec
import structlog
import trio

from engine.core.keys import SECRET_BYTES
from nodepulse.guarding import Guard
from nodepulse.process import death_of, write_private
from nodepulse.supervise import Death, StartFailedError
from storage.binaries import EmbeddedServerError
from storage.embedded import EmbeddedServer

log = structlog.get_logger()
_FORCE_S = 0.5  # the share of the stopping time that is kept for force


class StoreServant:
    """An embedded server under our supervisor."""

    def __init__(self, server: EmbeddedServer, guard: Guard) -> None:
        self.name = server.name
        self.server = server
        self._guard = guard
        self._serving = False

    async def start(self) -> None:
        self._serving = False
        try:
            await self.server.start()
        except EmbeddedServerError as error:
            raise StartFailedError(str(error)) from error
        self._serving = True
        assert self.server.process is not None
        self._guard.watch_store(self.server.process.pid, self.server.stop_steps)

    async def wait(self) -> Death:
        assert self.server.process is not None, "not started"
        pid = self.server.process.pid
        code = await self.server.wait()
        self._guard.forget(pid)
        return death_of(code)

    @property
    def has_listened(self) -> bool:
        return self._serving

    async def stop(self, *, within_s: float) -> bool:
        """The server's own stop is more patient; ours cuts it short (PostgreSQL then recovers by its log)."""
        forced = False

        async def force() -> None:
            nonlocal forced
            await trio.sleep(within_s - _FORCE_S)
            process = self.server.process
            if process is not None and process.poll() is None:
                forced = True
                log.error("child.killed", child=self.name, why=f"did not stop within {within_s:g} s")
                process.send_signal(signal.SIGQUIT)
                await trio.sleep(_FORCE_S)
                process.kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(force)
            await self.server.stop()
            nursery.cancel_scope.cancel()
        return not forced


def ensure_secrets(path: Path) -> bool:
    """Make the master secrets (for `engine.core.keys.load_secrets`) when there are none yet; True then.

    They are never made twice: with other secrets every token and capability given out would be void.
    """
    if path.exists():
        return False
    write_private(path, msgspec.json.encode({"1": secrets.token_hex(SECRET_BYTES)}))
    return True
