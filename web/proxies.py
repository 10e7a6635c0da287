"""Who really called, behind proxies that we were told to trust.

A proxy that ends TLS says in `x-forwarded-for` and `x-forwarded-proto` whom it speaks for. Anybody may write
such headers, so they are believed from the addresses of `web.trusted_proxies` only; otherwise the connection
itself is the caller. Rates, the log and the demand for TLS all go by what stands in the ASGI scope.
"""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """Networks or addresses, separated by spaces. ValueError for one that is none."""

    def __init__(self, networks: str) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks.split()]

    def see_through(self, scope: MutableMapping[str, Any]) -> None:
        """Put the caller's own address and scheme into the scope, if a trusted proxy brought it."""
        client = scope.get("client")
        if not self._networks or not client:
            return
        peer = _address(str(client[0]))
        if peer is None or not self._trusts(peer):
            return
        hops = [_address(hop) for hop in _header(scope, b"x-forwarded-for").split(",") if hop.strip()]
        # From the nearest: the first hop that is no proxy of ours is the caller, what it wrote itself is not.
        for hop in reversed(hops):
            if hop is None:
                break
            scope["client"] = (str(hop), 0)
            if not self._trusts(hop):
                break
        scheme = _header(scope, b"x-forwarded-proto").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    """An address as a proxy writes it; an IPv4 one that came over IPv6 is an IPv4 one."""
    try:
        found = ipaddress.ip_address(text.strip().strip('"').removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _header(scope: MutableMapping[str, Any], wanted: bytes) -> str:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]
    return ",".join(values)
