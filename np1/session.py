"""Opening a session and handing in missed beats: what is signed, what is sent, what comes back (WIRE.md).

The bytes under a signature are made here once, for both sides; the signing itself (Ed25519) is the caller's,
because this package is standard library only. Answers are read strictly and totally: a record, or
`MalformedAnswerError` with the path of what is wrong. Strictness on the reading of JSON is np1/shape.py's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address

from np1.shape import MalformedAnswerError, Shape, parse_object
from np1.siphash import KEY_BYTES

ANSWER_BYTES_MAX = 65_536
BACKFILL_BEATS_MAX = 10_000
NONCE_BYTES_MIN, NONCE_BYTES_MAX = 16, 64
INTERVAL_MS_MIN = 1_000
UNIX_MS_MAX = 1 << 47  # year 6429: what fits `unix_ms << 16` in a u64 with room to spare
_U16, _U32 = (1 << 16) - 1, (1 << 32) - 1

FIELD = re.compile(r"[!-~]{1,128}", re.ASCII)  # every signed field
_NONCE = re.compile(r"(?:[0-9a-f]{2}){16,64}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{1,1024}", re.ASCII)
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)", re.ASCII)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"(?:\[[0-9A-Fa-f:.]{{2,45}}\]|{_LABEL}(?:\.{_LABEL}){{0,62}}\.?)"
_UDP = re.compile(_HOST + r":\d{1,5}", re.ASCII)
_HTTP = re.compile(r"https?://" + _HOST + r"(?::\d{1,5})?", re.ASCII)

__all__ = [
    "BackfillAnswer",
    "BackfillBeat",
    "BackfillRequest",
    "MalformedAnswerError",
    "Refusal",
    "SessionAnswer",
    "SessionGrant",
    "SessionRequest",
    "parse_backfill_answer",
    "parse_refusal",
    "parse_session_answer",
    "rfc3339_of_ms",
]


def rfc3339_of_ms(unix_ms: int) -> str:
    """Unix milliseconds as RFC 3339 UTC, to the millisecond."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def ms_of_rfc3339(text: str) -> int:
    """RFC 3339 UTC as unix milliseconds, cut below the millisecond. ValueError."""
    if not _UTC.fullmatch(text):
        raise ValueError("not RFC 3339 in UTC")
    whole, _, fraction = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1000 + int(fraction.ljust(3, "0")[:3])


def _signed(purpose: str, *fields: str) -> bytes:
    for field in fields:
        if not FIELD.fullmatch(field):
            raise ValueError(f"not a signed field: {field!r}")
    return "\n".join((purpose, *fields)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """``POST /v1/sessions`` before it is signed. ValueError from `signed_bytes` for unfit fields."""

    node_id: str
    sent_at: str  # RFC 3339
    nonce: str  # 16 to 64 random bytes, lower-case hex
    manager_version: str

    def signed_bytes(self) -> bytes:
        """The bytes under the Ed25519 signature (WIRE.md, Session)."""
        if not _NONCE.fullmatch(self.nonce):
            raise ValueError("a nonce is 16 to 64 bytes in lower-case hex")
        return _signed("nodepulse-session-v1", self.node_id, self.sent_at, self.nonce, self.manager_version)

    def body(self, signature: bytes) -> bytes:
        """The JSON body with its 64-byte signature."""
        return json.dumps(
            {
                "node_id": self.node_id,
                "sent_at": self.sent_at,
                "nonce": self.nonce,
                "manager_version": self.manager_version,
                "signature": signature.hex(),
            }
        ).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionGrant:
    """One opened session: everything a client needs to beat."""

    row: int
    generation: int
    key: bytes
    token: str
    expires_ms: int
    interval_ms: int
    ttl_ms: int
    udp: str  # host:port, IPv6 hosts bracketed
    http: str  # http(s)://host:port
    slots: tuple[tuple[int, str], ...]  # (slot, workload id), the frozen map of this generation

    def __repr__(self) -> str:
        # Neither key nor token may reach a log.
        return f"<SessionGrant row={self.row} generation={self.generation} slots={len(self.slots)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAnswer:
    """The 201 reply."""

    grant: SessionGrant
    server_ms: int


def _parse_slots(sessions: Shape) -> tuple[tuple[int, str], ...]:
    slots = tuple(
        (item.integer("slot", 0, 63), item.text("workload_id", FIELD)) for item in sessions.items("slots", 64)
    )
    if len({slot for slot, _ in slots}) != len(slots) or len({name for _, name in slots}) != len(slots):
        raise MalformedAnswerError(f"{sessions.path}.slots: a slot or a workload stands there twice")
    return slots


def _parse_endpoint(endpoints: Shape, name: str, pattern: re.Pattern[str]) -> str:
    text = endpoints.text(name, pattern)
    if "[" in text:
        try:
            IPv6Address(text[text.index("[") + 1 : text.index("]")])
        except ValueError as error:
            raise MalformedAnswerError(f"{endpoints.path}.{name}: no IPv6 address") from error
    digits = text.rpartition(":")[2]
    if digits.isdigit() and not 1 <= int(digits) <= 65_535:
        raise MalformedAnswerError(f"{endpoints.path}.{name}: no such port")
    return text


def parse_session_answer(body: bytes) -> SessionAnswer:
    """Read the 201 reply of ``POST /v1/sessions``. MalformedAnswerError for anything else.

    Members that WIRE.md does not name are passed over; the list holds exactly one session.
    """
    answer = parse_object(body, bytes_max=ANSWER_BYTES_MAX)
    sessions = answer.items("sessions", 1)
    if len(sessions) != 1:
        raise MalformedAnswerError("sessions: not exactly one")
    one = sessions[0]
    try:
        expires_ms = ms_of_rfc3339(one.text("expires_at", _UTC))
    except ValueError as error:
        raise MalformedAnswerError(f"{one.path}.expires_at: no such time") from error
    endpoints = one.object("endpoints")
    grant = SessionGrant(
        row=one.integer("row", 0, _U32),
        generation=one.integer("generation", 0, _U16),
        key=bytes.fromhex(one.text("key", _KEY)),
        token=one.text("token", _TOKEN),
        expires_ms=expires_ms,
        interval_ms=one.integer("interval_ms", INTERVAL_MS_MIN, _U32),
        ttl_ms=one.integer("ttl_ms", 1, _U32),
        udp=_parse_endpoint(endpoints, "udp", _UDP),
        http=_parse_endpoint(endpoints, "http", _HTTP),
        slots=_parse_slots(one),
    )
    assert len(grant.key) == KEY_BYTES
    return SessionAnswer(grant=grant, server_ms=answer.integer("server_ms", 0, UNIX_MS_MAX))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a signed request was not answered with what it asked for. `code` "" when none was told."""

    status: int  # HTTP status; 0 when no answer came at all
    code: str = ""
    server_ms: int | None = None  # told with clock_skew
    retry_after_ms: int | None = None


_CODE = re.compile(r"[a-z_]{1,64}", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}", re.ASCII)


def parse_refusal(status: int, body: bytes, retry_after: str | None = None) -> Refusal:
    """What a problem+json says. Any bytes will do: a proxy's HTML page is a refusal without a code."""
    code, server_ms = "", None
    try:
        problem = parse_object(body, bytes_max=ANSWER_BYTES_MAX)
        code = problem.text("code", _CODE)
        if code == "clock_skew":
            server_ms = problem.integer("server_time", 0, UNIX_MS_MAX)
    except MalformedAnswerError:
        pass  # not ours, or not whole: what could be read is told, the status is always there
    seconds = retry_after.strip() if retry_after is not None else ""
    wait_ms = int(seconds) * 1000 if _SECONDS.fullmatch(seconds) else None
    return Refusal(status, code, server_ms, wait_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillBeat:
    """A beat that was never acknowledged; `at_ms` is the estimated server time of its sending."""

    at_ms: int
    plane0: int
    plane1: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """``POST /v1/beats/backfill`` before it is signed; beats oldest first, at most BACKFILL_BEATS_MAX."""

    node_id: str
    sent_at: str
    nonce: str
    beats: Sequence[BackfillBeat]

    def beats_json(self) -> bytes:
        """The value of "beats" as it stands in the body, from [ to its matching ]."""
        if len(self.beats) > BACKFILL_BEATS_MAX:
            raise ValueError(f"more than {BACKFILL_BEATS_MAX} beats")
        return json.dumps(
            [
                {
                    "at_ms": beat.at_ms,
                    "plane0": f"{beat.plane0:016x}",
                    "plane1": f"{beat.plane1:016x}",
                    "generation": beat.generation,
                }
                for beat in self.beats
            ],
            separators=(",", ":"),
        ).encode()

    def signed_bytes(self) -> bytes:
        """The bytes under the Ed25519 signature (WIRE.md, Backfill)."""
        if not _NONCE.fullmatch(self.nonce):
            raise ValueError("a nonce is 16 to 64 bytes in lower-case hex")
        return backfill_signed_bytes(self.node_id, self.sent_at, self.nonce, self.beats_json())

    def body(self, signature: bytes) -> bytes:
        """The JSON body with its 64-byte signature; "beats" goes in byte for byte as it was hashed."""
        head = json.dumps(
            {
                "node_id": self.node_id,
                "sent_at": self.sent_at,
                "nonce": self.nonce,
                "signature": signature.hex(),
            }
        ).encode()
        return head[:-1] + b', "beats": ' + self.beats_json() + b"}"


def backfill_signed_bytes(node_id: str, sent_at: str, nonce: str, beats_json: bytes) -> bytes:
    """What a backfill's signature is over; a server passes the bytes of "beats" as they came."""
    return _signed("nodepulse-backfill-v1", node_id, sent_at, nonce, hashlib.sha256(beats_json).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillAnswer:
    """How many claims were taken, and how many ignored for which reason."""

    taken: int
    ignored: dict[str, int]


def parse_backfill_answer(body: bytes) -> BackfillAnswer:
    """Read the 200 reply of ``POST /v1/beats/backfill``. MalformedAnswerError."""
    answer = parse_object(body, bytes_max=ANSWER_BYTES_MAX)
    ignored = answer.object("ignored")
    reasons = ("future", "duplicate", "generation", "sealed", "order")
    return BackfillAnswer(
        taken=answer.integer("taken", 0, BACKFILL_BEATS_MAX),
        ignored={reason: ignored.integer(reason, 0, BACKFILL_BEATS_MAX) for reason in reasons},
    )
