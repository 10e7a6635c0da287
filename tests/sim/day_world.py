"""What a played installation left, in a real PostgreSQL and its live view: a day to be sealed by the product.

Base rows, gaps and says go the flushers' way, open rows as the engine captures them; what people did (nodes,
licences, owners, bindings, windows, backfilled beats) is written as it stands when all of it is over.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np

from engine.core.beats import FIRST_REPORT_DTYPE, SAY_DTYPE
from engine.core.records import (
    BASE_KINDS,
    INTERVAL_DTYPE,
    SHARD_SAYS,
    FirstReport,
    FlushBatch,
    Gap,
    Say,
    ShardHead,
)
from engine.journal_blocks import Kind, read
from engine.pages import capture
from engine.rows import id_of
from storage.ids import new_id
from tests.sim.engine_world import EngineWorld
from tests.sim.history import Lease, Row, Slot, Window
from tests.sim.lease_world import MIDNIGHT_MS, Installation, LeaseWorld
from tests.sim.oracle.base import KIND_OF_STATE, STATES
from tests.sim.oracle.day import DAY_MS, DayRow, Owned, Rule, day_row
from tests.sim.oracle.leases import Held, Leases
from tests.sim.oracle.oracle import Oracle
from tests.web.control import Control

DAY_START_MS = MIDNIGHT_MS - DAY_MS
DAY = time.strftime("%Y-%m-%d", time.gmtime(DAY_START_MS / 1000))
KIND = "gpu"


class DayWorld:
    """`rule`, `pay_claims`: the project's policy. `owned`: sold is sold to somebody else."""

    def __init__(self, control: Control, played: LeaseWorld, *, pay_claims: bool) -> None:
        self.control, self.played, self.pay_claims = control, played, pay_claims
        self.installed: Installation = played.installed
        self.rule = Rule(
            micro_points_per_paid_s=145,
            licensed_only=not pay_claims,  # both are met, by seed
            floor_paid_ms=60_000,
            daily_cap_micro_points=1_000_000,
            kind_weight_ppm={KIND: 1_500_001},
        )
        self.owned = self._owned()

    def _owned(self) -> list[Owned]:
        found = []
        for number, licence_id in enumerate(sorted({b.licence_id for b in self.installed.bindings})):
            times = sorted({at for of, at in self.installed.sold if of == licence_id})
            for place, (from_ms, to_ms) in enumerate(zip([0, *times], [*times, None], strict=True)):
                # Of every third licence nobody is known to own it at first.
                if number % 3 == 2 and place == 0 and times:
                    continue
                owner = f"0x{number * 100 + place:040x}"
                found.append(Owned(licence_id=licence_id, owner=owner, from_ms=from_ms, to_ms=to_ms))
        return found

    def kind_of(self, slot: Slot) -> str | None:
        return KIND if slot.slot % 2 else None

    def operator_of(self, row: Row) -> str | None:
        return self.control.users["olga"] if row.row % 4 < 2 else None

    # --- what is written
    async def write(self) -> None:
        """Everything, leases settled; the live view tells both shards."""
        await self._people()
        for world in self.played.worlds:
            await self._history(world)
            await self._live(world)
        stores = self.control.stores
        while (await stores.lease_settling.settle(shards=2, now_ms=self.installed.as_of_ms)).says:
            pass

    async def _people(self) -> None:
        sql, project_id = self.control.sql, self.control.alpha.project_id
        kind_id, collection_id = new_id(), new_id()
        await sql(
            "insert into workload_kind (kind_id, project_id, slug, name, created_ms) values ($1,$2,$3,'',1)",
            kind_id,
            project_id,
            KIND,
        )
        rule = {
            "micro_points_per_paid_s": self.rule.micro_points_per_paid_s,
            "licensed_only": self.rule.licensed_only,
            "floor_paid_ms": self.rule.floor_paid_ms,
            "daily_cap_micro_points": self.rule.daily_cap_micro_points,
            "kind_weights_ppm": self.rule.kind_weight_ppm,
        }
        await sql(
            "insert into project_policy values ($1, '2020-01-01', 1, 'native', $2, $3, 1, '')",
            project_id,
            self.pay_claims,
            msgspec.json.encode(rule).decode(),
        )
        await sql(
            "insert into collection (collection_id, project_id, chain_id, contract, standard, name,"
            " created_ms) values ($1, $2, 1, $3, 'erc721', '', 1)",
            collection_id,
            project_id,
            f"0x{7:040x}",
        )
        await self._licences(collection_id)
        for history in self.installed.shards:
            for row in history.rows:
                await self._node(row, kind_id)
        await self._bindings()

    async def _licences(self, collection_id: str) -> None:
        sql = self.control.sql
        for number, licence_id in enumerate(sorted({b.licence_id for b in self.installed.bindings})):
            await sql(
                "insert into licence (licence_id, collection_id, project_id, token_id, created_ms)"
                " values ($1, $2, $3, $4, 1)",
                licence_id,
                collection_id,
                self.control.alpha.project_id,
                number,
            )
        for one in self.owned:
            await sql(
                "insert into ownership values ($1, $2, 0, $3, $4, 1)",
                one.licence_id,
                one.from_ms,
                one.to_ms,
                one.owner,
            )

    async def _node(self, row: Row, kind_id: str) -> None:
        sql, project_id = self.control.sql, self.control.alpha.project_id
        await sql(
            'insert into node (node_id, "row", project_id, kind, name, interval_ms, salt, created_ms,'
            " retired_ms, owner_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            row.node_id,
            row.row,
            project_id,
            "node" if row.sessions else "check",
            f"n{row.row}",
            row.interval_ms,
            b"saltsalt",
            row.slots[0].created_ms,
            row.retired_ms,
            self.operator_of(row),
        )
        for slot in row.slots:
            await sql(
                "insert into workload (workload_id, node_id, slot, name, created_ms, retired_ms, project_id,"
                " kind_id) values ($1, $2, $3, $4, $5, $6, $7, $8)",
                slot.workload_id,
                row.node_id,
                slot.slot,
                f"w{slot.slot}",
                slot.created_ms,
                slot.retired_ms,
                project_id,
                kind_id if self.kind_of(slot) else None,
            )
            await self._claims(row, slot)
        for window in row.windows:
            await self._window(row, window)

    async def _claims(self, row: Row, slot: Slot) -> None:
        """Of a row's backfilled beats the first of equal time counts, for every slot of its map."""
        counted = {claim.at_ms: claim for claim in reversed(row.claims)}
        for claim in counted.values():
            session = next((s for s in row.sessions if s.generation == claim.generation), None)
            if session is not None and session.mask >> slot.slot & 1:
                state = STATES[2 * (claim.plane1 >> slot.slot & 1) + (claim.plane0 >> slot.slot & 1)]
                await self.control.sql(
                    "insert into claim (workload_id, at_ms, kind, ttl_ms) values ($1, $2, $3, $4)",
                    slot.workload_id,
                    claim.at_ms,
                    BASE_KINDS.index(KIND_OF_STATE[state]),
                    session.ttl_ms,
                )

    async def _window(self, row: Row, window: Window) -> None:
        await self.control.sql(
            "insert into maintenance_window (window_id, node_id, workload_id, from_ms, to_ms, own,"
            " created_ms) values ($1, $2, $3, $4, $5, $6, 1)",
            new_id(),
            row.node_id,
            window.workload_id,
            window.from_ms,
            window.to_ms,
            window.own,
        )

    async def _bindings(self) -> None:
        sql = self.control.sql
        for b in self.installed.bindings:
            await sql(
                "insert into licence_binding values ($1, $2, $3, $4)",
                b.workload_id,
                b.licence_id,
                b.from_ms,
                b.to_ms,
            )
            if b.to_ms is None:
                await sql(
                    "update workload set licence_id = $2 where workload_id = $1", b.workload_id, b.licence_id
                )
        for at_ms, what, licence_id, workload_id in self.played.licensing.people:
            await sql(
                "insert into lease_say (licence_id, workload_id, at_ms, what) values ($1, $2, $3, $4)",
                licence_id,
                workload_id or None,
                at_ms,
                what,
            )

    async def _history(self, world: EngineWorld) -> None:
        intervals, gaps, reports, says = [b""], [], [], []
        for block in read(world.directory, 0):
            if block.kind == Kind.INTERVALS:
                intervals.append(block.payload)
            elif block.kind == Kind.GAP:
                gaps.append(msgspec.msgpack.decode(block.payload, type=Gap))
            elif block.kind == Kind.FIRST_REPORTS:
                for hi, lo, at in np.frombuffer(block.payload, FIRST_REPORT_DTYPE).tolist():
                    reports.append(FirstReport(id_of(hi, lo), at))
            elif block.kind == Kind.SAYS:
                for hi, lo, at, what, _ in np.frombuffer(block.payload, SAY_DTYPE).tolist():
                    says.append(Say(id_of(hi, lo), at, SHARD_SAYS[what]))
        batch = FlushBatch(
            shard=world.history.shard,
            position=world.engine.journal.committed,
            watermark_ms=self.installed.as_of_ms,
            intervals=np.frombuffer(b"".join(intervals), INTERVAL_DTYPE),
            gaps=tuple(gaps),
            first_reports=tuple(reports),
            says=tuple(dict.fromkeys(says)),
            leases_ms=self.installed.as_of_ms,
        )
        await self.control.stores.history.flush(batch)

    async def _live(self, world: EngineWorld) -> None:
        table, as_of_ms = world.engine.table, self.installed.as_of_ms
        head = ShardHead(world.history.shard, 2, "day", as_of_ms, 0, table.rows, False, None, as_of_ms)
        live = self.control.stores.live
        await live.reset(msgspec.structs.replace(head, watermark_ms=0))
        table.mark_all_dirty()
        captured = capture(table)
        assert await live.write(head, rows=captured.rows, slots=captured.slots)

    # --- what it must come to
    async def leases(self) -> Leases:
        """As LIVENESS.md 5 has them; PostgreSQL's own are looked at only for what 0060 leaves open."""
        theirs: dict[str, list[tuple[int, str]]] = {}
        for one in await self.held():
            theirs.setdefault(one.licence_id, []).append((one.from_ms, one.workload_id))
        return self.played.oracle(resumed=theirs)

    async def held(self) -> list[Held]:
        found = await self.control.sql(
            "select licence_id::text, epoch, holder::text, from_ms, to_ms from licence_lease"
            " where to_ms is null or to_ms > from_ms order by licence_id, epoch"
        )
        return [
            Held(licence_id=licence_id, epoch=epoch, workload_id=holder, from_ms=a, to_ms=b)
            for licence_id, epoch, holder, a, b in found
        ]

    async def standbys(self) -> dict[str, list[tuple[int, int | None]]]:
        """By workload, as PostgreSQL has them."""
        found: dict[str, list[tuple[int, int | None]]] = {}
        for workload_id, a, b in await self.control.sql(
            "select workload_id::text, from_ms, to_ms from lease order by workload_id, from_ms"
        ):
            found.setdefault(workload_id, []).append((a, b))
        return found

    def rows(
        self, standbys: Mapping[str, list[tuple[int, int | None]]], *, granted: tuple[Window, ...] = ()
    ) -> dict[str, DayRow]:
        """Every row that the day's seal must have, given who stood by when.

        `granted`: maintenance of the project's own since.
        """
        found = {}
        for history in self.installed.shards:
            rows = tuple(self._stood_by(row, standbys, granted) for row in history.rows)
            oracle = Oracle(replace(history, rows=rows))
            for workload_id in oracle.workloads():
                row = day_row(
                    oracle,
                    workload_id,
                    DAY_START_MS,
                    bindings=self.installed.bindings,
                    owned=self.owned,
                    pay_claims=self.pay_claims,
                )
                if row is not None:
                    found[workload_id] = row
        return found

    def _stood_by(
        self, row: Row, standbys: Mapping[str, list[tuple[int, int | None]]], granted: tuple[Window, ...]
    ) -> Row:
        mine = [slot.workload_id for slot in row.slots]
        return replace(
            row,
            leases=tuple(
                Lease(workload_id=workload_id, from_ms=from_ms, to_ms=to_ms)
                for workload_id in mine
                for from_ms, to_ms in standbys.get(workload_id, [])
            ),
            windows=(*row.windows, *(w for w in granted if w.workload_id in mine)),
        )
