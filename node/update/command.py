"""How a manager is begun: the program that was installed, or a version that was installed since.

Both take the same words. A version is told in its environment that it was chosen, and for what; that leaves
the words to commands.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from node.update.store import Updates

LAUNCH = "NODEPULSE_LAUNCH"
Begun = tuple[Sequence[str], Mapping[str, str]]  # a command, and what its environment has besides


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """base: the version of the program that was installed otherwise. trial: the pipe in which a version on
    trial says that a beat of its own was credited. stop: it is to stop at once, in order.
    """

    base: str
    words: Sequence[str]
    version: str | None = None
    trial: int | None = None
    stop: bool = False

    @classmethod
    def of(cls, text: str, words: Sequence[str]) -> Launch:
        """What a version finds in its environment."""
        return cls(words=words, **json.loads(text))

    def command(self, updates: Updates, version: str | None) -> Begun:
        """How that version is begun; None: the program that was installed otherwise."""
        if version is None:
            return base_command(self.words), {}
        told = {"base": self.base, "version": version, "trial": self.trial, "stop": self.stop}
        archive = str(updates.archive(version))
        return [sys.executable, "-P", archive, *self.words], {LAUNCH: json.dumps(told)}

    def own(self, updates: Updates) -> Begun:
        """How this very process would be begun again."""
        return replace(self, trial=None, stop=False).command(updates, self.version)


def base_command(words: Sequence[str]) -> list[str]:
    """The program that was installed otherwise. -P: what lies where one stands is not importable."""
    return [sys.executable, "-P", "-m", "node.commands", *words]


def become(command: Sequence[str], besides: Mapping[str, str]) -> None:
    """Replace this process by that command. Does not return."""
    os.execve(command[0], list(command), {**os.environ, **besides})
