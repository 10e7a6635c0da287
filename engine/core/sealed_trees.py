"""The trees of a day while its rows come in, page by page: leaves are hashed and forgotten, block by block.

Pure. What a tree is stands in merkle.py, what leaves are over in sealed.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from engine.core.compose_hours import HOUR_MS
from engine.core.merkle import BLOCK_LEAVES, leaf_hash, root_of
from engine.core.sealed import DAY_DOMAIN, DAY_TREE, HOUR_DOMAIN, HOUR_DTYPE, HOURS

_CELL_BYTES = HOUR_DTYPE.itemsize


class BlockRoots:
    """The roots of the blocks of one tree."""

    def __init__(self) -> None:
        self._roots: list[bytes] = []
        self._leaves: list[bytes] = []

    def add(self, leaves: Sequence[bytes]) -> None:
        """The next leaves' hashes."""
        self._leaves += leaves
        while len(self._leaves) >= BLOCK_LEAVES:
            self._roots.append(root_of(self._leaves[:BLOCK_LEAVES]))
            del self._leaves[:BLOCK_LEAVES]

    def roots(self) -> list[bytes]:
        """Of all blocks, that of the last ones too; nothing is added any more."""
        if self._leaves:
            self._roots.append(root_of(self._leaves))
            self._leaves = []
        return self._roots


class DayTrees:
    """The day's tree and those of its hours. Rows are added in order of (node, slot), each node at once."""

    def __init__(self, day_ms: int) -> None:
        self.rows = self.nodes = 0
        self.node_blocks: list[int] = []  # the place of the first row of each block of nodes
        self._trees = {tree: BlockRoots() for tree in range(DAY_TREE, HOURS)}
        self._heads = [
            b"\x00" + HOUR_DOMAIN + (day_ms + hour * HOUR_MS).to_bytes(8, "big") for hour in range(HOURS)
        ]

    def add(
        self, texts: Sequence[bytes], nodes: Sequence[bytes], workloads: Sequence[bytes], hours: np.ndarray
    ) -> None:
        """Rows as texts, the ids of node and workload (16 bytes), and their hours: int64, (n, 24, kinds)."""
        self._trees[DAY_TREE].add([leaf_hash(DAY_DOMAIN, text) for text in texts])
        firsts = [place for place, node in enumerate(nodes) if not place or nodes[place - 1] != node]
        for number, first in enumerate(firsts):
            if (self.nodes + number) % BLOCK_LEAVES == 0:
                self.node_blocks.append(self.rows + first)
        lasts = [*firsts[1:], len(nodes)] if firsts else []
        spans = [
            (nodes[first], first * _CELL_BYTES, last * _CELL_BYTES)
            for first, last in zip(firsts, lasts, strict=True)
        ]
        cells = np.empty(len(nodes), HOUR_DTYPE)
        ids = np.frombuffer(b"".join(workloads), ">u8").reshape(-1, 2)
        cells["hi"], cells["lo"] = ids[:, 0], ids[:, 1]
        for hour, head in enumerate(self._heads):
            cells["ms"] = hours[:, hour]
            told = cells.tobytes()
            # Most hashes of a seal are made here and above such leaves: hence in one expression.
            self._trees[hour].add(
                [sha256(head + node + told[low:high]).digest() for node, low, high in spans]
            )
        self.rows += len(nodes)
        self.nodes += len(firsts)

    def block_roots(self) -> dict[int, list[bytes]]:
        """By tree, once all rows are in."""
        return {number: tree.roots() for number, tree in self._trees.items()}
