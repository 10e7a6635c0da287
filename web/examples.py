"""Examples for the description of the API: made from the types themselves, so none can grow old.

A value is found by the field's name, because the name is what gives it its meaning; by its type where the
name says nothing; and a Struct may say its own in EXAMPLES. A test decodes each example as its type.
"""

from __future__ import annotations

from typing import Any

from msgspec import inspect

_ID = "0192f3a4-5b6c-7d8e-9f01-23456789abcd"
_WALLET = "0x52908400098527886e0f7030069857d2e4169ee7"
_TIME = "2026-01-31T12:00:00.000Z"
_DAY = "2026-01-31"
_HEX32 = "3f" * 32

BY_NAME: dict[str, Any] = {
    "action": "node.revoke",
    "actor": f"user:{_ID}",
    "amount": "1500000000000000000",
    "at_ms": 1_769_860_800_000,
    "cause": "crash",
    "code": "not_found",
    "collection": "Edge licences",
    "contract": "0x06012c8cf97bead5deae237070f9587f8e7a266d",
    "day": _DAY,
    "detail": "",
    "digest": f"sha256:{_HEX32}",
    "effective_from": _DAY,
    "email": "olga@example.org",
    "http": "https://beats.example.org",
    "key": "00112233445566778899aabbccddeeff",
    "kind": "inference",
    "manager_version": "1.4.0",
    "manifest": '{"image": "registry.example.org/inference:2.1.0"}',
    "minimum_version": "2.0.0",
    "name": "lisbon-1",
    "next_cursor": None,
    "node_id": _ID,
    "nonce": "4f" * 16,
    "owner": _WALLET,
    "plane0": "0000000000000003",
    "plane1": "0000000000000000",
    "points": "12.5",
    "preset": "openzeppelin",
    "project": "edge-ai",
    "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "region": "eu-west",
    "request_id": "5f1c2d3e4a5b6c7d",
    "running_version": "2.0.0",
    "sent_at": _TIME,
    "sha256": _HEX32,
    "signature": "ab" * 64,
    "slug": "edge-ai",
    "standard": "erc721",
    "subgraph_url": "https://gateway.example.org/api/subgraphs/id/abc",
    "target": "https://example.org/hooks/nodepulse",
    "time_zone": "Europe/Lisbon",
    "title": "Not Found",
    "token_id": "42",
    "total_points": "12.5",
    "type": "urn:nodepulse:problem:not_found",
    "udp": "beats.example.org:7900",
    "url": "https://example.org/manager-1.4.0.tar.gz",
    "user": _ID,
    "version": "2.1.0",
    "wallet": _WALLET,
}
_BY_ENDING: dict[str, str] = {
    "_id": _ID,
    "_at": _TIME,
    "since": _TIME,
    "last_beat": _TIME,
    "as_of": _TIME,
    "from": _TIME,
    "to": _TIME,
    "_version": "2.0.0",
    "_url": "https://example.org/",
    "_points": "12.5",
}


def example_of(kind: Any) -> Any:
    """Plain JSON values that decode as `kind`."""
    return _of(inspect.type_info(kind), "", own={})


def _of(info: inspect.Type, name: str, *, own: dict[str, Any]) -> Any:
    """`own`: the examples that the Struct around it gives itself, by the field's encoded name."""
    if name in own:
        return own[name]
    match info:
        case inspect.StructType(cls=cls, fields=fields):
            given: dict[str, Any] = dict(getattr(cls, "EXAMPLES", {}))
            return {field.encode_name: _of(field.type, field.encode_name, own=given) for field in fields}
        case inspect.UnionType(types=kinds):
            telling = [one for one in kinds if not isinstance(one, inspect.NoneType)]
            return _of(telling[0], name, own=own) if BY_NAME.get(name, "") is not None else None
        case inspect.ListType(item_type=item) | inspect.SetType(item_type=item):
            return [_of(item, name.removesuffix("s"), own=own)]
        case inspect.VarTupleType(item_type=item):
            return [_of(item, name.removesuffix("s"), own=own)]
        case inspect.DictType(key_type=key, value_type=value):
            return {str(_of(key, f"{name}.key", own=own)): _of(value, f"{name}.value", own=own)}
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.EnumType(cls=cls):
            return next(iter(cls)).value
    return _plain(info, name)


def _plain(info: inspect.Type, name: str) -> Any:
    match info:
        case inspect.StrType(min_length=least):
            found = BY_NAME.get(name)
            if isinstance(found, str):
                return found
            by_ending = [value for ending, value in _BY_ENDING.items() if name.endswith(ending)]
            return by_ending[0] if by_ending else "example"[: max(7, least or 0)]
        case inspect.IntType(ge=ge, gt=gt, le=le):
            found = BY_NAME.get(name)
            if isinstance(found, int):
                return found
            least = ge if ge is not None else (gt + 1 if gt is not None else 0)
            return min(max(least, 1), le) if le is not None else max(least, 1)
        case inspect.FloatType():
            return 0.5
        case inspect.BoolType():
            return False
    return None
