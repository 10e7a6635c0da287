"""Whether a workload is well: one pure function of its reports, its probe and its driver's word.

How probes are made is health_probe.py's, how reports arrive manager/local_http.py's. Decisions 0080 has the
reasons for each line of `decide`.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.calls import StateName
from node.drivers.port import Origin, Phase, Running
from node.health_spec import HealthSpec

REPORTED: tuple[StateName, ...] = ("healthy", "unhealthy", "updating")
_WORST: tuple[StateName, ...] = ("unhealthy", "updating", "healthy")


@dataclass(frozen=True, slots=True)
class Report:
    """What a workload said last of itself, and when on the clock that `decide` is given."""

    state: StateName
    at_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """The outcomes of one run's probe. `well` is None until a threshold is reached."""

    well: bool | None = None
    successes: int = 0  # in a row
    failures: int = 0
    detail: str = ""
    proved: bool = False  # it was well once


@dataclass(frozen=True, slots=True)
class Verdict:
    state: StateName
    why: str


def probed(before: Probed, spec: HealthSpec, *, failure: str | None) -> Probed:
    """One more probe; `failure` says why it was none that succeeded."""
    if failure is None:
        successes = before.successes + 1
        well = True if successes >= spec.healthy_after else before.well
        return Probed(well, successes, 0, "", before.proved or well is True)
    failures = before.failures + 1
    well = False if failures >= spec.unhealthy_after else before.well
    return Probed(well, 0, failures, failure, before.proved)


def decide(
    *,
    running: Running | None,
    report: Report | None,
    probe: Probed,
    updating: bool,
    now_s: float,
    ttl_s: float,
) -> Verdict:
    """What the next beat says of a workload. `running` None: the driver does not run it.

    `updating`: an update or a restart that was ordered is being carried out.
    """
    if updating:
        return Verdict("updating", "an update or restart that was ordered")
    if running is not None and running.phase is not Phase.RUNNING:
        return _not_running(running)
    voices = []
    if report is not None and not _is_of_an_earlier_run(report, running):
        voices.append(_reported(report, now_s=now_s, ttl_s=ttl_s))
    elif running is not None and running.health is not None and running.health.report:
        voices.append(_unproved(running, "no report yet", now_s=now_s))
    if running is not None and running.health is not None and running.health.probes:
        voices.append(_probe_says(running, running.health, probe, now_s=now_s))
    if not voices:
        return Verdict("absent", "nothing was heard of it") if running is None else Verdict("healthy", "runs")
    return min(voices, key=lambda voice: _WORST.index(voice.state))


def _not_running(running: Running) -> Verdict:
    if running.phase is Phase.STARTING:
        ordered = running.origin is not Origin.CRASHED
        return Verdict("updating" if ordered else "unhealthy", running.detail or "is being started")
    if running.phase is Phase.COMPLETED:
        return Verdict("absent", running.detail or "has ended as it should")
    return Verdict("unhealthy", running.detail or "has ended")


def _is_of_an_earlier_run(report: Report, running: Running | None) -> bool:
    """What ran before said nothing of what runs now; what was adopted is the same that reported."""
    return running is not None and running.origin is not Origin.ADOPTED and report.at_s < running.since_s


def _reported(report: Report, *, now_s: float, ttl_s: float) -> Verdict:
    if now_s >= report.at_s + ttl_s:
        return Verdict("unhealthy", f"no report for {now_s - report.at_s:.0f} s")
    return Verdict(report.state, report.detail or f"reports {report.state}")


def _probe_says(running: Running, spec: HealthSpec, probe: Probed, *, now_s: float) -> Verdict:
    if probe.well:
        return Verdict("healthy", "its probe succeeds")
    starting = now_s < running.since_s + spec.start_period_s
    if probe.well is None or (starting and running.origin is Origin.ORDERED and not probe.proved):
        return _unproved(running, probe.detail or "its probe has not decided yet", now_s=now_s)
    return Verdict("unhealthy", f"its probe fails: {probe.detail}")


def _unproved(running: Running, why: str, *, now_s: float) -> Verdict:
    """A run of which nothing speaks yet: trusted by where it comes from, for its start period."""
    spec = running.health
    if spec is None or now_s >= running.since_s + spec.start_period_s:
        return Verdict("unhealthy", why)
    trust: dict[Origin, StateName] = {
        Origin.ORDERED: "updating",
        Origin.CRASHED: "unhealthy",
        Origin.ADOPTED: "healthy",
    }
    return Verdict(trust[running.origin], why)
