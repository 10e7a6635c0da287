"""The guard against server-side request forgery: which addresses a webhook may reach.

A webhook's URL is a stranger's input. It is resolved here, once; every address it resolves to must be
public, and the connection is then made to those addresses and not to the name, so that a name that answers
differently the second time (rebinding) gains nothing. Connecting is webhooks.py.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import trio

ADDRESSES_MAX = 4  # of those a name resolves to, how many are tried

_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Global by the registry and yet no place for a webhook: relays into IPv4, documentation.
_IPV4_REFUSED = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_IPV6_REFUSED = (IPv6Network("2001::/23"), IPv6Network("2002::/16"), IPv6Network("3fff::/20"))


# One text for both: whoever owns a channel reads it, and is not to learn which names there are inside.
_REFUSED = "does not resolve to public addresses"


class AddressRefusedError(Exception):
    """The name does not resolve, or resolves to an address that webhooks may not reach."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether this is a public unicast address. IPv6 by what is allowed, so that what is new is refused."""
    if isinstance(address, IPv4Address):
        return (
            address.is_global
            and not address.is_multicast
            and not any(address in network for network in _IPV4_REFUSED)
        )
    if address in _NAT64:  # an IPv4 receiver as a host without IPv4 sees it
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return (
        address in _GLOBAL_UNICAST
        and address.is_global
        and not any(address in network for network in _IPV6_REFUSED)
    )


async def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Addresses to connect to, in the resolver's order, at most ADDRESSES_MAX. AddressRefusedError.

    One private address among public ones refuses the name: it has no business there.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressRefusedError(f"{host} {_REFUSED}") from error
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    if not allow_private:
        for text in addresses:
            if not is_public(ip_address(text)):
                raise AddressRefusedError(f"{host} {_REFUSED}")
    return addresses[:ADDRESSES_MAX]
