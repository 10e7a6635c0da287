"""Merkle trees as in RFC 6962: roots, paths and their check, over hashes of leaves. Pure.

SHA-256; a leaf is hashed behind 0x00 and its domain, two nodes behind 0x01, so that neither can be taken for
the other. A tree of n leaves splits at the largest power of two below n, so blocks of BLOCK_LEAVES leaves are
subtrees of their own: to tell the path of one leaf, the leaves of its block and the roots of all blocks do.
What the leaves say is sealed.py's. Written down byte by byte for others in docs/proofs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

BLOCK_LEAVES = 1024
HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(domain: bytes, content: bytes) -> bytes:
    """``SHA-256(0x00 || domain || content)``."""
    return sha256(b"\x00" + domain + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 || left || right)``."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes of leaves, or over roots of blocks; EMPTY_ROOT over none.

    Pairing neighbours and carrying an odd last one up gives the same tree as splitting at powers of two.
    """
    level = list(hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        # node_hash of each two, written out: a seal of a million workloads does this 24 million times.
        told = b"".join(level)
        ends = range(0, len(level) // 2 * 2 * HASH_BYTES, 2 * HASH_BYTES)
        above = [sha256(b"\x01" + told[at : at + 2 * HASH_BYTES]).digest() for at in ends]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def path_of(hashes: Sequence[bytes], place: int) -> list[tuple[bool, bytes]]:
    """From the leaf at `place` to the root: (the sibling lies left, its hash), the lowest first."""
    if not 0 <= place < len(hashes):
        raise IndexError(f"no leaf {place} among {len(hashes)}")
    path: list[tuple[bool, bytes]] = []
    level = list(hashes)
    while len(level) > 1:
        sibling = place ^ 1
        if sibling < len(level):
            path.append((sibling < place, level[sibling]))
        above = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            above.append(level[-1])
        level, place = above, place // 2
    return path


def path_in_blocks(block: Sequence[bytes], roots: Sequence[bytes], place: int) -> list[tuple[bool, bytes]]:
    """The path of the leaf at `place` of a whole tree: its block's leaves and the roots of all blocks do."""
    return path_of(block, place % BLOCK_LEAVES) + path_of(roots, place // BLOCK_LEAVES)


def climb(leaf: bytes, path: Sequence[tuple[bool, bytes]]) -> bytes:
    """The root that a leaf's hash and its path lead to."""
    for left, sibling in path:
        leaf = node_hash(sibling, leaf) if left else node_hash(leaf, sibling)
    return leaf
