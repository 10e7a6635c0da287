"""What a seeded network consists of: people, projects, places, versions. Data only, the same at each call.

How it is made is seed.py's, what it has been through seed_history.py's. All addresses lead nowhere
(RFC 2606): nothing that is seeded ever reaches anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

INTERVAL_MS = 60_000
NODES_PER_PLACE = 4
CHAIN_ID = 42_161


class Person(NamedTuple):
    """`wallet` is nobody's: there is no key to it."""

    name: str
    email: str

    @property
    def wallet(self) -> str:
        return "0x" + hashlib.sha256(self.email.encode()).hexdigest()[:40]


class Place(NamedTuple):
    city: str
    region: str


class Release(NamedTuple):
    """A version of a kind; `rollout`: percent of the nodes."""

    version: str
    rollout: int


class Kind(NamedTuple):
    slug: str
    name: str
    releases: tuple[Release, ...]
    minimum: str | None = None


class Plan(NamedTuple):
    """One project. Of its nodes the n-th has `workloads(n)`, kinds by their slugs."""

    slug: str
    name: str
    owner: Person
    kinds: tuple[Kind, ...]
    places: tuple[Place, ...]
    nodes_per_place: int
    licences: int

    def workloads(self, number: int) -> tuple[str, ...]:
        """One to all of the kinds."""
        count = 1 + (number * 3) % len(self.kinds)
        return tuple(kind.slug for kind in self.kinds[:count])

    @property
    def contract(self) -> str:
        """Of the licences; nobody deployed it."""
        return "0x" + hashlib.sha256(f"licences of {self.slug}".encode()).hexdigest()[:40]

    def nodes(self) -> Iterator[tuple[str, Place]]:
        """(name, place) of each."""
        for place in self.places:
            for number in range(self.nodes_per_place):
                yield f"{place.city}-{number + 1}", place


PLACES = (
    Place("lisbon", "eu-west"),
    Place("toronto", "na-east"),
    Place("nairobi", "af-east"),
    Place("osaka", "ap-northeast"),
    Place("quito", "sa-west"),
)
PEOPLE = (
    Person("Petra Olsen", "petra@edge-ai.example"),
    Person("Gustav Reyes", "gustav@grid-storage.example"),
)
OPERATORS = (
    Person("Olga Brandt", "olga@machines.example"),
    Person("Omar Haddad", "omar@machines.example"),
    Person("Otieno Wambua", "otieno@machines.example"),
)
CHECKS = (("nightly-backup", 86_400_000), ("certificate-renewal", 3_600_000), ("landing-page", 60_000))
STABLE = (Release("1.3.0", 0), Release("1.4.0", 100))
RUNNING, OUTDATED = "1.4.0", "1.3.0"
EDGE_KINDS = (
    Kind("gateway", "Gateway", (*STABLE, Release("1.5.0", 10))),
    Kind("inference", "Inference", STABLE, minimum="1.4.0"),
    Kind("storage", "Storage", STABLE),
    Kind("relay", "Relay", STABLE),
    Kind("indexer", "Indexer", STABLE),
)
GRID_KINDS = (Kind("battery", "Battery", STABLE), Kind("meter", "Meter", STABLE))


def plans(slug: str) -> tuple[Plan, Plan]:
    """The two projects; the first is called as was asked for."""
    second = "grid-storage" if slug == "edge-ai" else f"{slug[:54]}-storage"
    return (
        Plan(slug, "Edge AI", PEOPLE[0], EDGE_KINDS, PLACES, NODES_PER_PLACE, licences=70),
        Plan(second, "Grid Storage", PEOPLE[1], GRID_KINDS, PLACES, 1, licences=10),
    )


def manifest_of(kind: Kind, release: Release) -> str:
    """A JSON object as a manager would be given it."""
    image = f"registry.example/{kind.slug}:{release.version}"
    return msgspec.json.encode({"image": image, "memory_mb": 512, "ports": [8080]}).decode()
