"""Failpoints: a named step at which a process kills itself, so that a test can end it between any two.

``NODEPULSE_FAILPOINT=NAME:FILE`` arms one, read once at the start; without it every `reached` is a comparison
with None. It fires once: whoever creates FILE dies there, later processes find it and go on.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "NODEPULSE_FAILPOINT"
# Every step there is, in the order in which a notice passes them.
STEPS: tuple[str, ...] = (
    "flush.before_commit",  # an engine's batch with events is written, not committed
    "flush.after_commit",
    "decide.before_commit",  # the notifier's deliveries and cursor are written, not committed
    "decide.after_commit",
    "delivery.claimed",  # nothing was sent yet
    "delivery.sent",  # the receiver took it, nobody wrote that down
    "delivery.settled",
)


def _armed(text: str) -> tuple[str, str] | None:
    """(name, file). ValueError for a step that does not exist: what never fires proves nothing."""
    if not text:
        return None
    name, _, file = text.partition(":")
    if name not in STEPS or not file:
        raise ValueError(f"{VARIABLE} must be NAME:FILE with one of {', '.join(STEPS)}")
    return name, file


_ARMED = _armed(os.environ.get(VARIABLE, ""))


def reached(step: str) -> None:
    """Die here, as by kill -9, if this step is armed and has not fired yet."""
    if _ARMED is None or _ARMED[0] != step:
        return
    try:
        os.close(os.open(_ARMED[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
