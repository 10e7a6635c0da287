"""Who called is what a trusted proxy says, and never what the caller says."""

from __future__ import annotations

from typing import Any

import pytest

from web.proxies import Proxies

OURS = "10.0.0.0/8 ::1 127.0.0.1"


def seen(peer: str, *, networks: str = OURS, scheme: str = "http", **headers: str) -> tuple[str, str]:
    """(address, scheme) in the scope afterwards."""
    scope: dict[str, Any] = {
        "client": (peer, 40_000),
        "scheme": scheme,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    Proxies(networks).see_through(scope)
    return scope["client"][0], scope["scheme"]


def test_a_trusted_proxys_word_is_taken_for_address_and_scheme():
    assert seen("10.1.2.3", x_forwarded_for="203.0.113.9", x_forwarded_proto="https") == (
        "203.0.113.9",
        "https",
    )
    assert seen("::1", x_forwarded_for="2001:db8::7") == ("2001:db8::7", "http")
    assert seen("::ffff:10.1.2.3", x_forwarded_for="203.0.113.9")[0] == "203.0.113.9"


def test_a_strangers_word_is_not():
    said = {"x_forwarded_for": "127.0.0.1", "x_forwarded_proto": "https"}
    assert seen("203.0.113.9", **said) == ("203.0.113.9", "http")
    assert seen("10.1.2.3", networks="", **said) == ("10.1.2.3", "http")


def test_what_the_caller_wrote_itself_is_passed_over():
    assert seen("10.1.2.3", x_forwarded_for="127.0.0.1, 203.0.113.9, 10.9.9.9")[0] == "203.0.113.9"
    assert seen("10.1.2.3", x_forwarded_proto="https, http")[1] == "http"


@pytest.mark.parametrize("nonsense", ["", "unknown", "203.0.113.9, what", "1.2.3"])
def test_nonsense_leaves_the_proxy_itself_as_the_caller(nonsense: str):
    assert seen("10.1.2.3", x_forwarded_for=nonsense)[0] == "10.1.2.3"


def test_an_address_with_a_port_is_not_guessed_at():
    assert seen("10.1.2.3", x_forwarded_for="203.0.113.9:1234")[0] == "10.1.2.3"


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="does not appear"):
        Proxies("10.0.0.0/8 proxy.example.org")
