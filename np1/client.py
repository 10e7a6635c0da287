"""The client's state machine: "Rules of the client" of WIRE.md, without sockets, clocks or threads.

Every method takes the moment it happens at, looks at all state, decides, and returns the effects still to
be carried out (np1/effects.py); the last one says when to call `wake`. `now_ms` is the shell's monotonic
clock; the shells are in node/. Parts with a life of their own lie beside this file: when a beat goes in
pace.py, when a session is opened again in reopening.py, which way a frame goes in route.py, its seq in
sequence.py, which bytes answer it in unanswered.py, what is kept for the backfill in backlog.py.

A *beat* is one report, sent in up to three *tries*, each a frame with a seq of its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from np1.backlog import BACKLOG_BEATS_MAX, Backlog
from np1.codec import (
    CREDITING,
    FLAG_NO_ACK,
    FLAG_STOPPING,
    REFUSED,
    Ack,
    Beat,
    Code,
    State,
    encode_beat,
    planes,
)
from np1.effects import (
    Credited,
    Effect,
    OpenSession,
    Path,
    PathChanged,
    Refused,
    SendHttp,
    SendUdp,
    SessionOpened,
    Stopped,
    Unacknowledged,
    Wake,
)
from np1.pace import Pace
from np1.reopening import Reopening
from np1.route import Route
from np1.running import ClientStatistics, RunningBeat
from np1.sequence import Sequence
from np1.server_clock import ServerClock
from np1.session import BackfillBeat, Refusal, SessionAnswer, SessionGrant
from np1.unanswered import Try, Unanswered

STALE_BEFORE_SESSION = 3
QUIET_RUN_MAX = 4  # NO_ACK beats in a row: at least every fifth goes without the flag
CLOCK_WINDOW_MS = 90_000  # how far a seq may lie from the server's clock


class BeatClient:
    """One row's client.

    quiet: ask for NO_ACK where the rules allow it. first_within_ms: the first beat comes at a random moment
    of this span; None = one interval, which is the rule for a fleet.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        quiet: bool = False,
        first_within_ms: int | None = None,
        backlog_beats_max: int = BACKLOG_BEATS_MAX,
    ) -> None:
        self._rng = rng
        self._quiet = quiet
        self._first_within_ms = first_within_ms
        self._states: dict[str, State] = {}
        self.grant: SessionGrant | None = None  # the present session, for others to read
        self._clock = ServerClock()
        self._reopening = Reopening(rng)
        self._pace = Pace(rng)
        self._route = Route(rng)
        self._sequence = Sequence()
        self._backlog = Backlog(backlog_beats_max)
        self._unanswered = Unanswered()
        self._running: RunningBeat | None = None
        self._quiet_run = self._stale_run = 0
        self._stopping = self._stopped = False
        self._give_up_ms = 0  # when a stop that is heard but never credited ends: no beat vouches any more
        self._codes: Counter[Code] = Counter()
        self._beats = self._tries = self._ignored = self._sessions = self._session_refusals = 0

    # What the shell calls.

    def start(self, now_ms: int, wall_ms: int) -> list[Effect]:
        """Open the first session. `wall_ms` is the system's unix time, used until a server tells its own."""
        self._reopening.want(now_ms, within_ms=0)
        return self.wake(now_ms, wall_ms)

    def set_states(self, states: Mapping[str, State]) -> None:
        """What the next frame says, by workload id; who is left out is absent."""
        self._states = dict(states)

    def wake(self, now_ms: int, wall_ms: int) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        if self._stopped:
            return effects
        expiry_ms = self._expiry_ms()
        if expiry_ms is not None and expiry_ms <= now_ms:
            self._want_session(now_ms)
        if self._reopening.due_ms is not None and self._reopening.due_ms <= now_ms:
            self._reopening.begin()
            effects.append(OpenSession(self._clock.estimate_ms(now_ms) if self._clock.known else wall_ms))
        pace, grant = self._pace, self.grant
        if grant is not None and pace.beat_ms is not None and pace.beat_ms <= now_ms:
            effects += self._next_beat(grant, now_ms)
        elif grant is not None and pace.retry_ms is not None and pace.retry_ms <= now_ms:
            effects += self._try(grant, now_ms)
        return self._done(effects)

    def on_session(self, answer: SessionAnswer, *, sent_ms: int, now_ms: int) -> list[Effect]:
        """A session was opened; `sent_ms` is when its request left."""
        if self._stopped:
            return []
        old, new = self.grant, answer.grant
        self._clock.told(answer.server_ms, sent_ms=sent_ms, received_ms=now_ms)
        self.grant = new
        self._pace.session(new)
        self._sessions += 1
        self._stale_run = 0
        self._sequence.new_generation()
        self._reopening.opened(now_ms, slots_changed=old is None or old.slots != new.slots)
        known = {name for _, name in new.slots}
        unknown = tuple(sorted(name for name in self._states if name not in known))
        effects: list[Effect] = [SessionOpened(new.row, new.generation, unknown)]
        if old is not None and old.udp != new.udp and self._route.reset():
            effects.append(PathChanged(self._route.path))
        if self._stopping:
            effects += self._begin(new, now_ms)
        else:
            self._plan_after_session(now_ms, first=old is None)
        return self._done(effects)

    def on_session_refused(self, refusal: Refusal, *, sent_ms: int, now_ms: int) -> list[Effect]:
        """No session came of the request that left at `sent_ms` (status 0: no answer at all)."""
        self._session_refusals += 1
        if refusal.server_ms is not None:
            self._clock.told(refusal.server_ms, sent_ms=sent_ms, received_ms=now_ms)
        self._reopening.refused(now_ms, refusal)
        return self._done([])

    def on_datagram(self, data: bytes, now_ms: int) -> list[Effect]:
        """Any bytes that came to the UDP socket."""
        return self._done(self._answer(data, now_ms))

    def on_http_reply(self, request: SendHttp, status: int, body: bytes, now_ms: int) -> list[Effect]:
        """The reply to a `SendHttp`. A request that failed needs no report: its time runs out."""
        if status == 200 and body != REFUSED:
            return self._done(self._answer(body, now_ms))
        self._ignored += 1
        dead = status in (200, 401, 404)
        if dead and self.grant is not None and request.generation == self.grant.generation:
            self._want_session(now_ms)
        return self._done([])

    def stop(self, now_ms: int) -> list[Effect]:
        """A planned stop of the whole row: STOPPING goes out until credited or failed; then `Stopped`."""
        if self._stopping:
            return self._done([])
        self._stopping = True
        self._give_up_ms = now_ms + self._pace.ttl_ms
        if self.grant is None:
            return self._end(credited=False)
        return self._done(self._begin(self.grant, now_ms))

    def unacknowledged(self) -> list[BackfillBeat]:
        """The beats kept for the backfill, oldest first, without the one that is still being tried."""
        running = self._running
        if running is None or (running.answered and not running.busy):
            return self._backlog.settled(None)
        return self._backlog.settled(running.number)

    def in_flight(self) -> list[BackfillBeat]:
        """What the running beat has said so far, if it may still be credited."""
        settled = set(self.unacknowledged())
        return [beat for beat in self._backlog.settled(None) if beat not in settled]

    def handed_in(self, beats: Iterable[BackfillBeat]) -> None:
        """A backfill has brought these to the server: they are kept no longer."""
        self._backlog.handed_in(beats)

    def server_ms(self, now_ms: int) -> int | None:
        """The server's unix time as estimated; None before its first reply."""
        return self._clock.estimate_ms(now_ms) if self._clock.known else None

    def statistics(self) -> ClientStatistics:
        grant = self.grant
        return ClientStatistics(
            codes=dict(self._codes),
            frames_sent=self._tries,
            beats_begun=self._beats,
            ignored=self._ignored,
            sessions=self._sessions,
            session_refusals=self._session_refusals,
            unacknowledged=len(self._backlog),
            dropped=self._backlog.dropped,
            path=self._route.path,
            generation=None if grant is None else grant.generation,
            interval_ms=None if grant is None else self._pace.interval_ms,
        )

    # Sending.

    def _plan_after_session(self, now_ms: int, *, first: bool) -> None:
        running = self._running
        if first:
            self._pace.first(now_ms, within_ms=self._first_within_ms)
        elif running is not None and running.wants_ack and not running.credited:
            self._pace.hasten(now_ms)
        # Else the plan stands: the rhythm of credited beats does not care for sessions.

    def _next_beat(self, grant: SessionGrant, now_ms: int) -> list[Effect]:
        running = self._running
        unheard = running is not None and running.stopping and not running.answered
        if unheard or (self._stopping and now_ms >= self._give_up_ms):
            return self._end(credited=False)
        return self._begin(grant, now_ms)

    def _begin(self, grant: SessionGrant, now_ms: int, *, clock_resent: bool = False) -> list[Effect]:
        """Begin a beat: settle the one before it, send try 1."""
        last = self._running
        again = last is not None and last.busy and now_ms < last.window_ms and not self._stopping
        effects = [] if last is None else self._settle(last, now_ms, kept_on=again)
        until_ms = self._pace.begun(now_ms)
        wants_ack = not self._may_be_quiet(last)
        self._quiet_run = 0 if wants_ack else self._quiet_run + 1
        self._beats += 1
        self._running = RunningBeat(
            number=last.number if last is not None and again else self._beats,
            window_ms=last.window_ms if last is not None and again else until_ms,
            until_ms=until_ms,
            wants_ack=wants_ack,
            stopping=self._stopping,
            clock_resent=clock_resent,
        )
        return effects + self._try(grant, now_ms)

    def _settle(self, beat: RunningBeat, now_ms: int, *, kept_on: bool) -> list[Effect]:
        """The beat is over. `kept_on`: it goes on under the same number after BUSY."""
        effects: list[Effect] = []
        missed = beat.wants_ack and not beat.answered and now_ms >= beat.until_ms
        if missed and self._route.missed_interval(now_ms):
            effects.append(PathChanged(self._route.path))
        if not beat.credited and not kept_on:
            effects += [Unacknowledged(kept) for kept in self._backlog.of(beat.number)]
        return effects

    def _may_be_quiet(self, last: RunningBeat | None) -> bool:
        """Whether the next beat may carry NO_ACK: not before the server is known to hear this generation."""
        return (
            self._quiet
            and not self._stopping
            and self._route.path is Path.UDP
            and self._sequence.last_credited > 0
            and self._quiet_run < QUIET_RUN_MAX
            and (last is None or last.credited or not (last.wants_ack or last.answered))
        )

    def _try(self, grant: SessionGrant, now_ms: int) -> list[Effect]:
        """Send one try of the running beat and plan the next."""
        beat = self._running
        assert beat is not None
        beat.tries += 1
        self._tries += 1
        path = self._route.choose(now_ms, first_try=beat.tries == 1 and not beat.stopping)
        server_ms = self._clock.estimate_ms(now_ms)
        generation = grant.generation
        seq = self._sequence.next(server_ms, lambda taken: (generation, taken) in self._unanswered)
        flags = (0 if beat.wants_ack else FLAG_NO_ACK) | (FLAG_STOPPING if beat.stopping else 0)
        plane0, plane1 = planes(
            {slot: self._states[name] for slot, name in grant.slots if name in self._states}
        )
        frame = encode_beat(Beat(flags, generation, grant.row, seq, plane0, plane1), grant.key)
        epoch = self._sequence.epoch
        self._unanswered.sent(Try(grant, seq, beat.number, self._tries, now_ms, path, epoch))
        if beat.wants_ack and not beat.stopping:
            # A STOPPING beat vouches for nothing, and a claim could not say that it was one.
            kept = BackfillBeat(at_ms=server_ms, plane0=plane0, plane1=plane1, generation=generation)
            self._backlog.sent(beat.number, self._tries, kept)
        self._pace.tried(beat.tries, now_ms, again=beat.wants_ack)
        if path is Path.UDP:
            return [SendUdp(frame, grant.udp, seq, generation)]
        return [SendHttp(frame, grant.http, seq, generation)]

    # Being answered.

    def _answer(self, data: bytes, now_ms: int) -> list[Effect]:
        """Take in bytes that may be an ACK; whatever is none to an unanswered try of ours is ignored."""
        taken = None if self._stopped else self._unanswered.take(data)
        if taken is None:
            self._ignored += 1
            return []
        known, ack = taken
        self._codes[ack.code] += 1
        self._clock.told(ack.server_ms, sent_ms=known.sent_ms, received_ms=now_ms)
        effects: list[Effect] = []
        if self._route.heard(known.path):
            effects.append(PathChanged(self._route.path))
        if ack.code in CREDITING:
            return effects + self._credited(known, ack, now_ms)
        return [*effects, Refused(ack, known.path), *self._refused(known, ack, now_ms)]

    def _credited(self, known: Try, ack: Ack, now_ms: int) -> list[Effect]:
        effects: list[Effect] = [Credited(ack, known.path)]
        self._backlog.credited(known.beat, known.number)
        self._stale_run = 0
        grant = self.grant
        if grant is not None and known.grant is grant:
            self._sequence.credited(ack.seq)
            self._reopening.proved()
            self._pace.vouched(ack.ttl_ms)
            if ack.code is Code.REKEY:
                self._reopening.want(now_ms, within_ms=self._pace.interval_ms)
            elif ack.code is Code.RESYNC:
                self._reopening.want_for_resync(now_ms, within_ms=self._pace.interval_ms // 4)
        running = self._running
        if running is not None and known.beat == running.number:
            running.credited, running.answered, running.busy = True, True, False
            self._pace.answered(ack, now_ms)
            if running.stopping:
                effects += self._end(credited=True)
        return effects

    def _refused(self, known: Try, ack: Ack, now_ms: int) -> list[Effect]:
        present = known.grant is self.grant
        running = self._running if self._running and self._running.number == known.beat else None
        if ack.code is Code.STALE:
            # To an older seq it only says that frames overtook each other: the newest is still awaited.
            if not present or ack.seq != self._sequence.newest:
                return []
            self._stale_run += 1
            if self._stale_run >= STALE_BEFORE_SESSION:
                self._stale_run = 0
                self._want_session(now_ms)
        else:
            self._stale_run = 0
        if ack.code is Code.MOVED and present:
            self._want_session(now_ms)
        if running is not None and not running.credited:
            running.answered = True
            running.busy = ack.code is Code.BUSY
            self._pace.answered(ack, now_ms)
        if ack.code is Code.CLOCK:
            return self._clock_refused(known, now_ms)
        return []

    def _clock_refused(self, known: Try, now_ms: int) -> list[Effect]:
        """CLOCK: the estimate is right by now. Forget the refused seqs, send again at once, once."""
        self._backlog.forget(known.beat)  # its time is known to be wrong
        running = self._running
        if running is None or known.grant is not self.grant or known.epoch != self._sequence.epoch:
            return []
        self._sequence.forget_sent()
        if self._sequence.stuck(self._clock.estimate_ms(now_ms), CLOCK_WINDOW_MS):
            self._want_session(now_ms)  # the server's clock went back behind what it credited
            return []
        if running.clock_resent:
            return []
        return self._begin(known.grant, now_ms, clock_resent=True)

    # Sessions and the end.

    def _expiry_ms(self) -> int | None:
        """When the session's life ends, on the monotonic clock; None while a new one is being got."""
        if self.grant is None or self._reopening.in_flight or self._reopening.due_ms is not None:
            return None
        return self._clock.moment_of(self.grant.expires_ms)

    def _want_session(self, now_ms: int) -> None:
        """Soon: beats are not, or not much longer, credited."""
        if self.grant is not None:
            self._reopening.want(now_ms, within_ms=self._pace.interval_ms // 4)

    def _end(self, *, credited: bool) -> list[Effect]:
        self._stopped = True
        return [Stopped(credited)]

    def _done(self, effects: list[Effect]) -> list[Effect]:
        """The effects and, last, when to wake."""
        if self._stopped:
            return effects
        moments = [self._expiry_ms(), self._reopening.due_ms, self._pace.beat_ms, self._pace.retry_ms]
        due = [moment for moment in moments if moment is not None]
        return [*effects, Wake(min(due))] if due else effects
