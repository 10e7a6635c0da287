"""The text of a sealed row, byte by byte: what proofs are over, so nothing of it may ever change."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.core.records import KINDS
from engine.core.sealed import Held, SealedRow, row_text

DAY_MS = 86_400_000
WORKLOAD, NODE = "0192f000-0000-7000-8000-000000000001", "0192e000-0000-7000-8000-000000000001"
ids = st.uuids().map(str)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
instants = st.integers(0, 2**53)
held = st.builds(Held, ids, texts, instants, instants, instants)
rows = st.builds(
    SealedRow,
    workload_id=ids,
    node_id=ids,
    operator_id=st.none() | ids,
    kind=st.none() | texts,
    source=st.sampled_from(["native", "datagram"]),
    from_ms=instants,
    to_ms=instants,
    ms=st.tuples(*(st.integers(0, DAY_MS) for _ in KINDS)),
    paid_ms=st.integers(0, DAY_MS),
    held=st.lists(held, max_size=2).map(tuple),
    refused=st.dictionaries(texts, st.integers(0, 2**53), max_size=3),
)


def test_a_rows_text_is_as_the_documents_show_it() -> None:
    row = SealedRow(
        workload_id=WORKLOAD,
        node_id=NODE,
        operator_id=None,
        kind="rpc",
        source="native",
        from_ms=0,
        to_ms=DAY_MS,
        ms=tuple(range(12)),
        paid_ms=7,
        held=(Held("aa", "0xb", 0, DAY_MS, 7),),
        refused={"late": 2, "bad": 1},
    )
    assert row_text(row, project="alpha", day="2026-01-01", revision=1).decode() == (
        '{"v":1,"project":"alpha","day":"2026-01-01","revision":1,'
        f'"workload":"{WORKLOAD}","node":"{NODE}","operator":null,"kind":"rpc","source":"native",'
        '"from_ms":0,"to_ms":86400000,"ms":{"standby":0,"up":1,"claimed_up":2,"maintenance":3,"updating":4,'
        '"claimed_updating":5,"claimed_unhealthy":6,"unhealthy":7,"stopped":8,"unobserved":9,'
        '"maintenance_own":10,"silent":11},"paid_ms":7,'
        '"held":[{"licence_id":"aa","owner":"0xb","from_ms":0,"to_ms":86400000,"paid_ms":7}],'
        '"refused":{"bad":1,"late":2}}'
    )


@given(row=rows, project=texts)
def test_a_rows_text_is_json_without_spaces_whatever_names_hold(row: SealedRow, project: str) -> None:
    told = {
        "v": 1,
        "project": project,
        "day": "2026-01-01",
        "revision": 3,
        "workload": row.workload_id,
        "node": row.node_id,
        "operator": row.operator_id,
        "kind": row.kind,
        "source": row.source,
        "from_ms": row.from_ms,
        "to_ms": row.to_ms,
        "ms": dict(zip(KINDS, row.ms, strict=True)),
        "paid_ms": row.paid_ms,
        "held": [{name: getattr(one, name) for name in one.__struct_fields__} for one in row.held],
        "refused": dict(sorted(row.refused.items())),
    }
    text = row_text(row, project=project, day="2026-01-01", revision=3)
    assert text == msgspec.json.encode(told)
    assert list(json.loads(text).items()) == list(told.items())
