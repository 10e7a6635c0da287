"""How a command ends: the exit codes that scripts may rely on, and the error that carries one."""

from __future__ import annotations

FINE = 0
FAILED = 1  # refused, or it went wrong; also: a workload that is asked for is not well
USAGE = 2  # wrong words, or a configuration that cannot be used
NOT_RUNNING = 3  # no manager runs here
UNREACHABLE = 4  # the web API does not answer, or no beat is acknowledged
BUSY = 5  # another manager runs in the same data folder

CODES = {
    FINE: "fine",
    FAILED: "refused or failed; for `workload status`: not well",
    USAGE: "wrong words, or a configuration that cannot be used",
    NOT_RUNNING: "no manager runs here",
    UNREACHABLE: "the web API does not answer, or no beat is acknowledged",
    BUSY: "another manager runs in the same data folder",
}


class CommandError(Exception):
    """Told to the person in one line, and `advice` in a second: what to do next.

    ``{prog}`` in either stands for how the program was called.
    """

    def __init__(self, text: str, *, advice: str = "", code: int = FAILED) -> None:
        super().__init__(text)
        self.text, self.advice, self.code = text, advice, code
