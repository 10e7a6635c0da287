"""The guard against webhooks into private networks."""

import socket
from ipaddress import ip_address

import pytest
import trio

from worker.addresses import ADDRESSES_MAX, AddressRefusedError, is_public, resolve

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",  # carrier-grade NAT
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",  # cloud metadata
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::ffff:8.8.8.8",  # an IPv4 address in disguise has no business in a URL
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_no_private_special_or_disguised_address_is_public(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_are_public(text):
    assert is_public(ip_address(text))


class Names(trio.abc.HostnameResolver):
    """A resolver that answers from a table."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, type, 6, "", (text, port)) for text in self.table[name]]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
async def names():
    resolver = Names(
        good=["8.8.8.8", "2606:4700::1111", "8.8.8.8"],
        mixed=["8.8.8.8", "10.0.0.1"],
        inside=["192.168.0.5"],
        many=[f"8.8.8.{number}" for number in range(1, 30)],
    )
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


async def test_a_public_name_gives_its_addresses_once_each(names):
    assert await resolve("good", 443, allow_private=False) == ["8.8.8.8", "2606:4700::1111"]


@pytest.mark.parametrize("host", ["mixed", "inside", "127.0.0.1", "::1", "2130706433", "0x7f.1", "127.1"])
async def test_a_name_with_any_private_address_is_refused(names, host):
    with pytest.raises(AddressRefusedError, match="does not resolve to public addresses"):
        await resolve(host, 80, allow_private=False)


async def test_private_addresses_can_be_allowed(names):
    assert await resolve("inside", 80, allow_private=True) == ["192.168.0.5"]


async def test_a_name_that_does_not_resolve_is_refused(names):
    with pytest.raises(AddressRefusedError, match="does not resolve to public addresses"):
        await resolve("nowhere", 80, allow_private=True)


async def test_only_so_many_addresses_are_tried(names):
    assert len(await resolve("many", 80, allow_private=False)) == ADDRESSES_MAX
