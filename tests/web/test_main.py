"""What the web process does to itself, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

COLLECTIONS = """
import gc
from storage.collector import spare_collector
import web.app

class Connection:
    pass

def collections_of_a_busy_server():
    before = [one["collections"] for one in gc.get_stats()]
    living = []
    for _ in range(200_000):  # what stays as long as its connection
        living.append(Connection())
        living[-1].itself = living[-1]
    return [one["collections"] - past for one, past in zip(gc.get_stats(), before)]

usual = collections_of_a_busy_server()
spare_collector()
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000
spared = collections_of_a_busy_server()
assert sum(spared) * 5 < sum(usual), (usual, spared)
held = len(gc.get_objects())
for _ in range(100_000):
    gone = Connection()
    gone.itself = gone
assert len(gc.get_objects()) - held < 50_000, "garbage is still collected"
print("well")
"""


def test_the_collector_is_spared_but_garbage_is_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTIONS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "well\n", done.stderr
