"""Rows of a commit, packed as the ledger takes them, in a file once they are many; and what is wrong there.

Row by row, as they are read: an id that is none and an amount that is none are told with a pointer, the rest
goes on, so that one answer tells everything.
"""

from __future__ import annotations

import re
import tempfile
from typing import IO

import numpy as np

from engine.core.amounts import micro_of_points
from engine.core.ledger import FAULTS_MAX, ROW_DTYPE, ROWS_MAX
from web.problems import Fault, RefusedError

MEMORY_BYTES = 1024 * 1024
PIECE_ROWS = 20_000
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII).fullmatch
_ID_DTYPE = np.dtype([("hi", ">u8"), ("lo", ">u8")])


class Packed:
    """`add` each row, then `end`; `close` when the file was read."""

    def __init__(self, what: str = "rows") -> None:
        """`what`: what the places of faults are, rows or lines."""
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - closed by its owner
        self.rows = 0  # packed
        self.seen = 0
        self.total_micro_points = 0
        self.faults: list[Fault] = []  # the first FAULTS_MAX
        self.fault_count = 0
        self._what = what
        self._ids = bytearray()
        self._places: list[int] = []
        self._amounts: list[int] = []

    def add(self, place: int, workload_id: str, points: str) -> None:
        """RefusedError 422 when there are too many."""
        try:
            amount = micro_of_points(points)
        except ValueError as error:
            self._fault(place, "points", str(error))
            amount = 0
        if _UUID(workload_id) is not None:
            self.add_micro(place, workload_id, amount)
        else:
            self.seen += 1
            self._fault(place, "workload_id", "not an id")

    def add_micro(self, place: int, workload_id: str, micro_points: int) -> None:
        """A row of which nothing can be wrong here: an id and an amount."""
        self.seen += 1
        if self.seen > ROWS_MAX:
            raise RefusedError(422, "too_many_rows", f"a commit may have {ROWS_MAX} rows")
        self._ids += bytes.fromhex(workload_id.replace("-", ""))
        self._places.append(place)
        self._amounts.append(micro_points)
        if len(self._places) >= PIECE_ROWS:
            self._write()

    def end(self) -> None:
        """All rows are there: the file stands at its beginning."""
        self._write()
        self.file.seek(0)
        if not self.seen:
            self.faults.append(Fault("must not be empty: it would close the day", f"/{self._what}"))
            self.fault_count += 1

    def _write(self) -> None:
        ids = np.frombuffer(bytes(self._ids), _ID_DTYPE)
        packed = np.empty(len(ids), ROW_DTYPE)
        packed["hi"], packed["lo"] = ids["hi"], ids["lo"]
        packed["place"], packed["micro_points"] = self._places, self._amounts
        self.file.write(packed.tobytes())
        self.rows += len(ids)
        self.total_micro_points += sum(self._amounts)
        self._ids.clear()
        self._places.clear()
        self._amounts.clear()

    def _fault(self, place: int, field: str, detail: str) -> None:
        self.fault_count += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(detail, f"/{self._what}/{place}/{field}"))

    def close(self) -> None:
        self.file.close()
