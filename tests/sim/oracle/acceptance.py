"""Which offered frames are heard, accepted and credited, and which code each must be answered with.

WIRE.md (Session, ACK, Rules of the server) and LIVENESS.md 1 (receive time). Only frames whose tag is right
come here, so a silence means: generation unknown, expired or revoked, NO_ACK, the limit of refusals, or a
crash before the answer left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from tests.sim.history import Frame, History, Restart, Row, Session, Tick
from tests.sim.oracle.rules import BUSY, CLOCK, EARLY, OK, REKEY, RESYNC, STALE, STANDBY, Beat, Rules

SOME_CREDIT = frozenset({OK, EARLY, RESYNC, REKEY, STANDBY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What must become of one frame. `code` is the plain reading, `codes` everything that is allowed (None =
    silence); `t_ms` is the receive time as recorded and acknowledged."""

    frame: Frame
    index: int
    t_ms: int
    credited: bool
    code: int | None
    codes: frozenset[int | None]


@dataclass(slots=True)
class _Memory:
    """What the rule needs to remember of one row."""

    last: Beat | None = None
    seqs: dict[int, int] = field(default_factory=dict)
    reserved: dict[int, int] = field(default_factory=dict)
    newest_heard: int = -1
    refused_surely_ms: int | None = None
    refused_maybe_ms: int | None = None


def session_in_force(
    rules: Rules, row: Row, generation: int | None, t_ms: int, store_away: bool
) -> Session | None:
    """The session a frame of this generation is judged under at t, or None when it must be dropped."""
    opened = sorted((s for s in row.sessions if s.opened_ms <= t_ms), key=lambda s: s.opened_ms)
    for place, session in enumerate(opened):
        if session.generation != generation:
            continue
        newer = opened[place + 1 :]
        if len(newer) > 1 or (newer and t_ms >= newer[0].opened_ms + rules.overlap_ms):
            return None
        if any(session.opened_ms <= revoked <= t_ms for revoked in row.revoked_ms):
            return None
        if t_ms >= session.expires_ms and not store_away:
            return None
        return session
    return None


class Acceptance:
    """Takes the records of a history one after the other, in journal order."""

    def __init__(self, history: History, rules: Rules) -> None:
        self.rules = rules
        self.history = history
        self.rows = {row.row: row for row in history.rows}
        self.judged: list[Judged] = []
        self.beats: dict[int, list[Beat]] = {row.row: [] for row in history.rows}
        self._memory = {row.row: _Memory() for row in history.rows}
        self._lost_seqs_at: int | None = None

    def restart(self, restart: Restart) -> None:
        for memory in self._memory.values():
            memory.reserved.clear()
            memory.refused_surely_ms = None  # the limiter may or may not remember
            if restart.seqs_lost:
                memory.seqs.clear()
        if restart.seqs_lost:
            self._lost_seqs_at = restart.at_ms

    def offer(self, frame: Frame, index: int) -> Judged:
        row, memory = self.rows[frame.row], self._memory[frame.row]
        t_ms = frame.t_ms if memory.last is None else max(frame.t_ms, memory.last.t_ms)
        answer = self._judge(row, memory, frame, index, t_ms)
        self.judged.append(answer)
        return answer

    def _judge(self, row: Row, memory: _Memory, frame: Frame, index: int, t_ms: int) -> Judged:
        def silent() -> Judged:
            return Judged(
                frame=frame, index=index, t_ms=t_ms, credited=False, code=None, codes=frozenset({None})
            )

        if row.retired_ms is not None and t_ms >= row.retired_ms:
            return silent()
        session = None
        if frame.via != "ping":
            away = any(a.from_ms <= t_ms < a.to_ms for a in self.history.store_away)
            session = session_in_force(self.rules, row, frame.generation, t_ms, away)
            if session is None:
                return silent()
        refusal = self._refusal(memory, session, frame, t_ms)
        if refusal is not None:
            return self._refused(memory, frame, index, t_ms, refusal)
        if not frame.durable:
            return self._lost(memory, frame, index, t_ms)
        return self._credited(row, session, memory, frame, index, t_ms)

    # --- not credited
    def _refusal(self, memory: _Memory, session: Session | None, frame: Frame, t_ms: int) -> int | None:
        if frame.seq is None or session is None:  # JSON and ping skip the seq rule
            return None
        if self.rules.off_clock(frame.seq, t_ms):
            return CLOCK
        last_seq = memory.seqs.get(frame.generation)
        reserved = memory.reserved.get(frame.generation)
        if frame.durable and reserved is not None and self.rules.stale(frame.seq, reserved):
            return STALE  # of a batch that was not written: its seqs were reserved all the same
        if last_seq is None and self._lost_seqs_at is not None and session.opened_ms <= self._lost_seqs_at:
            return STALE if (frame.seq >> 16) <= self._lost_seqs_at else None
        return STALE if self.rules.stale(frame.seq, last_seq) else None

    def _refused(self, memory: _Memory, frame: Frame, index: int, t_ms: int, code: int) -> Judged:
        """STALE and CLOCK: over UDP at most one reply per second and row."""
        codes: set[int | None] = {code}
        if frame.via == "udp":
            pause = self.rules.refusal_pause_ms
            surely, maybe = memory.refused_surely_ms, memory.refused_maybe_ms
            if surely is not None and t_ms - surely < pause:
                codes = {None}
            elif maybe is not None and t_ms - maybe < pause:
                codes = {code, None}
            if not frame.durable:
                codes.add(None)
            if code in codes:
                memory.refused_maybe_ms = t_ms
                memory.refused_surely_ms = t_ms if codes == {code} else surely
        elif not frame.durable:
            codes.add(None)
        said = code if code in codes else None
        return Judged(frame=frame, index=index, t_ms=t_ms, credited=False, code=said, codes=frozenset(codes))

    def _lost(self, memory: _Memory, frame: Frame, index: int, t_ms: int) -> Judged:
        """In flight at a crash, or its batch was not written: silence or BUSY. The seq was reserved when the
        tag was verified, so a second copy may have been called a replay of the first."""
        codes: set[int | None] = {None, BUSY}
        if frame.seq is not None:
            if frame.seq <= memory.reserved.get(frame.generation, -1):
                codes.add(STALE)
            memory.reserved[frame.generation] = max(frame.seq, memory.reserved.get(frame.generation, -1))
        return Judged(frame=frame, index=index, t_ms=t_ms, credited=False, code=None, codes=frozenset(codes))

    # --- credited
    def _credited(
        self, row: Row, session: Session | None, memory: _Memory, frame: Frame, index: int, t_ms: int
    ) -> Judged:
        codes = self._codes(row, session, memory, frame, t_ms)
        code = codes[0]
        if frame.via == "ping":
            codes = list(SOME_CREDIT)
        said: set[int | None] = set(codes)
        if frame.no_ack and frame.via == "udp":
            said = {None if each in (OK, EARLY) else each for each in said}
            code = None if code in (OK, EARLY) else code
        credited = self.rules.credits(codes[0]) or frame.via == "ping"
        if credited:
            self._remember(row, session, memory, frame, index, t_ms)
        return Judged(
            frame=frame, index=index, t_ms=t_ms, credited=credited, code=code, codes=frozenset(said)
        )

    def _codes(
        self, row: Row, session: Session | None, memory: _Memory, frame: Frame, t_ms: int
    ) -> list[int]:
        """The code of the plain reading first, then those of its allowed lags."""
        early = [self.rules.too_early(t_ms, memory.last)]
        standby = self._standby(row, t_ms)
        rekey, resync = [False], [False]
        if session is not None:
            rekey = [(session.expires_ms - t_ms) * 10 <= session.expires_ms - session.opened_ms]
            resync = self._map_changed(row, session, t_ms)
            if self._place(row, session) < memory.newest_heard:
                resync = [False]
            if frame.unknown_ids:
                resync = [True]
        codes = []
        for one_rekey, one_resync, one_standby, one_early in product(rekey, resync, standby, early):
            if one_rekey:
                codes.append(REKEY)
            elif one_resync:
                codes.append(RESYNC)
            elif one_standby:
                codes.append(STANDBY)
            else:
                codes.append(EARLY if one_early else OK)
        return codes

    def _place(self, row: Row, session: Session) -> int:
        return sorted(s.opened_ms for s in row.sessions).index(session.opened_ms)

    def _map_changed(self, row: Row, session: Session, t_ms: int) -> list[bool]:
        """Is the map of living slots another one than the session's? With the answers of the moments
        around t, as a shard may know of a change up to a second late.
        """

        known = []
        for s in row.slots:
            created = s.created_ms if s.created_known_ms is None else s.created_known_ms
            retired = s.retired_ms if s.retired_known_ms is None else s.retired_known_ms
            known.append((s.slot, created, retired))

        def differs(at_ms: int) -> bool:
            living = 0
            for slot, created, retired in known:
                if created <= at_ms and (retired is None or at_ms < retired):
                    living |= 1 << slot
            return living != session.mask

        changes = [at for _, *life in known for at in life if at is not None]
        near = [c for c in changes if abs(c - t_ms) <= self.rules.registry_lag_ms]
        around = {differs(c) for c in near} | {differs(c - 1) for c in near}
        plain = differs(t_ms)
        return [plain, *(around - {plain})]

    def _standby(self, row: Row, t_ms: int) -> list[bool]:
        spans = [(lease.from_ms, lease.to_ms) for lease in row.leases]
        plain = any(a <= t_ms and (b is None or t_ms < b) for a, b in spans)
        edges = [edge for span in spans for edge in span if edge is not None]
        if any(0 <= t_ms - edge <= self.rules.standby_lag_ms for edge in edges):
            return [plain, not plain]
        return [plain]

    def _remember(
        self, row: Row, session: Session | None, memory: _Memory, frame: Frame, index: int, t_ms: int
    ) -> None:
        beat = Beat(
            frame_id=frame.frame_id,
            index=index,
            t_ms=t_ms,
            ttl_ms=frame.ttl_ms,
            stopping=frame.stopping,
            mask=1 if session is None else session.mask,
            plane0=frame.plane0,
            plane1=frame.plane1,
        )
        memory.last = beat
        self.beats[row.row].append(beat)
        if frame.seq is not None:
            memory.seqs[frame.generation] = frame.seq
        if session is not None:
            memory.newest_heard = max(memory.newest_heard, self._place(row, session))


def may_be_unanswered(history: History) -> set[int]:
    """Frames after the last tick before a restart: durable perhaps, but the crash came before the ACK."""
    found: set[int] = set()
    crash_ahead = False
    for record in reversed(history.records):
        if isinstance(record, Restart):
            crash_ahead = True
        elif isinstance(record, Tick):
            crash_ahead = False
        elif isinstance(record, Frame) and crash_ahead:
            found.add(record.frame_id)
    return found


def judge_all(history: History, rules: Rules) -> Acceptance:
    """The whole history, judged."""
    acceptance = Acceptance(history, rules)
    for index, record in enumerate(history.records):
        if isinstance(record, Frame):
            acceptance.offer(record, index)
        elif isinstance(record, Restart):
            acceptance.restart(record)
    return acceptance
