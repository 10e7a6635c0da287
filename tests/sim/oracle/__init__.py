"""An oracle for a shard's history, written from the design documents alone: it has not seen the engine."""

from tests.sim.oracle.check import Violation, check
from tests.sim.oracle.oracle import Oracle
from tests.sim.oracle.rules import Rules

__all__ = ["Oracle", "Rules", "Violation", "check"]
