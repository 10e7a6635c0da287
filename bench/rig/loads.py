"""Drives bench/rig/load.c: writes its requests, starts it, reads what it measured."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.rig.child import Child

CONNECTIONS = 64


class Load:
    """A load generator with its connections open."""

    def __init__(
        self,
        program: Path,
        target: str,
        protocol: str,
        requests: Iterable[bytes],
        *,
        folder: Path,
        connections: int = CONNECTIONS,
        pipeline: int = 1,
    ) -> None:
        path = folder / f"requests-{protocol}-{id(self)}"
        with path.open("wb") as file:
            for request in requests:
                file.write(struct.pack("=I", len(request)))
                file.write(request)
        self.child = Child([str(program), target, protocol, str(connections), str(pipeline), str(path)])
        self.child.answer()
        path.unlink()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_details: object) -> None:
        self.child.stop()

    def closed(self, seconds: float) -> dict[str, Any]:
        """Every connection sends as soon as it was answered."""
        return self._run(f"closed {seconds}")

    def count(self, requests: int) -> dict[str, Any]:
        """The same, until so many were answered."""
        return self._run(f"count {requests}")

    def open(self, seconds: float, rate: float) -> dict[str, Any]:
        """Requests are due at a constant rate; latency counts from when each was due."""
        return self._run(f"open {seconds} {rate}")

    def _run(self, line: str) -> dict[str, Any]:
        self.child.line(line)
        return self.child.answer()
