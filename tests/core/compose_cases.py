"""How the tables of test_compose*.py write worlds and answers: seconds, and a word for each state."""

from __future__ import annotations

from engine.core.records import BASE_UNHEALTHY, BASE_UP, BASE_UPDATING, Claim, Gap, Lease, Window
from tests.core.compose_oracle import Beat, World

_CLAIMED = {"up": BASE_UP, "updating": BASE_UPDATING, "unhealthy": BASE_UNHEALTHY}


def seconds(number: float) -> int:
    """In milliseconds."""
    return round(number * 1_000)


def beats(text: str) -> tuple[Beat, ...]:
    """``"0 up, 60 unhealthy/30"``: time and state, and the ttl where it is not 90 s."""
    return tuple(Beat(*record) for record in _records(text))


def claims(text: str) -> tuple[Claim, ...]:
    """As `beats`, in the order in which they were stored."""
    return tuple(Claim(at_ms, _CLAIMED[says], ttl_ms) for at_ms, says, ttl_ms in _records(text))


def _records(text: str) -> list[tuple[int, str, int]]:
    records = []
    for record in text.split(", "):
        at, said = record.split()
        says, _, ttl = said.partition("/")
        records.append((seconds(float(at)), says, seconds(float(ttl or 90))))
    return records


def gap(from_s: float, to_s: float, cause: str = "crash") -> Gap:
    return Gap(0, seconds(from_s), seconds(to_s), cause)


def drops(from_s: float, to_s: float) -> Gap:
    return gap(from_s, to_s, "drops")


def window(from_s: float, to_s: float, *, own: bool = False) -> Window:
    return Window("w", None, seconds(from_s), seconds(to_s), own)


def lease(from_s: float, to_s: float | None) -> Lease:
    return Lease(seconds(from_s), None if to_s is None else seconds(to_s))


def world(
    heard: tuple[Beat, ...],
    *,
    asked: tuple[float, float] = (0, 600),
    as_of: float = 100_000,
    life: tuple[float, float | None] = (0, None),
    **records: list[object] | tuple[object, ...],
) -> World:
    created, retired = life
    return World(
        beats=heard,
        asked=(seconds(asked[0]), seconds(asked[1])),
        as_of=seconds(as_of),
        life=(seconds(created), None if retired is None else seconds(retired)),
        **{name: tuple(some) for name, some in records.items()},  # type: ignore[arg-type]
    )


def told(case: World) -> str:
    """The answer as ``"up 0-90, unobserved 90-200; provisional from 100"``."""
    answer = case.composed()
    text = ", ".join(
        f"{kind} {from_ms / 1000:g}-{to_ms / 1000:g}" for kind, from_ms, to_ms in answer.intervals
    )
    assert answer.provisional == (answer.provisional_from_ms is not None)
    if answer.provisional_from_ms is None:
        return text
    return f"{text}; provisional from {answer.provisional_from_ms / 1000:g}"
