"""SemVer 2.0.0: what is a version, and which comes first."""

import itertools
import random

import pytest

from engine.core.versions import VERSION_CHARS_MAX, is_version, precedence

# In their order, as semver.org gives it in section 11 and as follows from its rules.
ORDERED = (
    "0.0.0-0",
    "0.0.0",
    "0.9.10",
    "0.10.9",
    "1.0.0-0.3.7",
    "1.0.0-2",
    "1.0.0-11",
    "1.0.0--1",
    "1.0.0-2a",
    "1.0.0-A",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.1.0",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "10.0.0",
)


def test_versions_come_in_the_order_that_the_standard_gives():
    shuffled = list(ORDERED)
    random.Random(1).shuffle(shuffled)
    assert tuple(sorted(shuffled, key=precedence)) == ORDERED
    assert all(precedence(a) < precedence(b) for a, b in itertools.pairwise(ORDERED))


def test_build_metadata_has_no_say():
    assert precedence("1.0.0+20130313144700") == precedence("1.0.0+exp.sha-5114f85") == precedence("1.0.0")
    assert precedence("1.0.0-rc.1+5") < precedence("1.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3",
        "1.1.2-prerelease+meta",
        "1.0.0-0A.is.legal",
        "1.0.0-alpha-a.b-c",
        "999999999999.0.0+0.build.01",
    ],
)
def test_these_are_versions(text):
    assert is_version(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.2", "v1.2.3", "1.2.3.4", "01.1.1", "1.1.1-01", "1.1.1-", "1.1.1+", "1.1.1-a..b"),
        *("1.1.1+a+b", "1.2.3\n", " 1.2.3", "1.2.3-é", "١.٢.٣", "-1.0.0", "1.0.0-" + "a" * VERSION_CHARS_MAX),
    ],
)
def test_these_are_none(text):
    assert not is_version(text)
    with pytest.raises(ValueError, match="not a version"):
        precedence(text)
