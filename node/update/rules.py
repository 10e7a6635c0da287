"""Whether a signed release may be taken, and what it needs is there. Pure but for what is installed."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version

from node.update.release import Manifest, UpdateError
from node.update.store import Known
from node.update.versions import precedence

_NEED = re.compile(
    r"([A-Za-z0-9_.-]{1,64})((?:(?:>=|<)[0-9]+(?:\.[0-9]+)*)(?:,(?:>=|<)[0-9]+(?:\.[0-9]+)*)*)?"
)
_LEADING = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def must_be_allowed(manifest: Manifest, running: str, known: Known, *, anyway: bool) -> None:
    """UpdateError unless this release may follow what runs.

    anyway: an operator says so; lifts the rules against going back and against what failed here before.
    """
    theirs = manifest.version
    if precedence(running) < precedence(manifest.minimum_version):
        raise UpdateError(
            f"{theirs} can only follow {manifest.minimum_version} or newer; {running} runs: install it anew"
        )
    if not anyway:
        if precedence(theirs) < precedence(running):
            raise UpdateError(f"{theirs} is older than {running}, which runs")
        if manifest.published_ms < known.newest_ms:
            raise UpdateError(f"{theirs} was published before a release that is known here already")
        failed = known.failed.get(theirs)
        if failed is not None and failed.certain:
            raise UpdateError(f"{theirs} was tried here and taken back: {failed.why}")
    must_be_satisfied(manifest.needs)


def must_be_satisfied(needs: tuple[str, ...]) -> None:
    """UpdateError names everything that is missing beside the manager, or is there in a wrong version."""
    faults = [fault for need in needs if (fault := _fault(need))]
    if faults:
        raise UpdateError(f"this machine's Python environment does not do: {'; '.join(faults)}")


def _fault(need: str) -> str | None:
    match = _NEED.fullmatch(need)
    if match is None:
        return f"{need!r} is not understood by this manager"
    name, bounds = match[1], match[2]
    try:
        found = platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return f"needs {need}, which is not installed"
    leading = _LEADING.match(found)
    here = _numbers(leading[0] if leading else "0")
    for bound in bounds.split(",") if bounds else ():
        if bound.startswith(">="):
            fits = here >= _numbers(bound[2:])
        else:
            fits = here < _numbers(bound[1:])
        if not fits:
            return f"needs {need}, and {found} is installed"
    return None


def _numbers(text: str) -> tuple[int, ...]:
    """Trailing zeros have no say: 1.0 is 1."""
    numbers = [int(part) for part in text.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
