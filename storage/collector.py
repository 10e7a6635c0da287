"""Python's cycle collector, told to spare the process. Web and worker call this; what an engine does about it
is its actors' (engine/actors.py).
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS_MAX = 10_000  # before they are looked through; Python's own 700 is for small programs


def spare_collector() -> None:
    """Let Python's cycle collector look at less, and less often: for the process that serves nothing else.

    Called once all is loaded. In web every open connection is hundreds of living objects; with 3,500 of them
    a third of the time went into looking at them again and again. In a worker that seals, each page of
    thousands of rows had all modules looked through: a fifth of its time, and the longest stalls. What is
    held back by this is at most ten thousand objects of garbage in cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 10, 10)
