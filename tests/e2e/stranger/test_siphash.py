"""The outside party's SipHash against the vectors of the reference implementation."""

from __future__ import annotations

from tests.e2e.stranger.siphash import siphash128


def test_our_siphash_is_the_published_one():
    key = bytes(range(16))
    assert siphash128(key, b"").hex() == "a3817f04ba25a8e66df67214c7550293"
    assert siphash128(key, b"\0").hex() == "da87c1d86b99af44347659119b22fc45"
