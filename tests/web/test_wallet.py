"""The text of EIP-4361 by its grammar, vectors of its reference implementation, addresses (EIP-55)."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.web.wallets import Wallet, message_of
from web.sign_in import holds, is_loopback
from web.times import parse_rfc3339
from web.wallet import checked_address, parse_message, signer_of, with_checksum

ADDRESS = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
# The whole form, as the specification's example has it.
FULL = f"""\
service.org wants you to sign in with your Ethereum account:
{ADDRESS}

I accept the ServiceOrg Terms of Service: https://service.org/tos

URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Expiration Time: 2021-10-30T16:25:24.000Z
Not Before: 2021-09-30T18:25:24+02:00
Request ID: some_id
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""
NOW_MS = parse_rfc3339("2021-09-30T16:25:24Z")


def test_every_field_of_a_message_is_read():
    message = parse_message(FULL)
    assert (message.scheme, message.domain, message.address) == (None, "service.org", ADDRESS.lower())
    assert message.statement == "I accept the ServiceOrg Terms of Service: https://service.org/tos"
    assert (message.uri, message.chain_id, message.nonce) == ("https://service.org/login", 1, "32891756")
    assert message.issued_ms == message.not_before_ms == NOW_MS
    assert message.expires_ms == NOW_MS + 30 * 86_400_000
    assert message.request_id == "some_id"
    assert message.resources == (
        "ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/",
        "https://example.com/my-web2-claim.json",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("I accept the ServiceOrg Terms of Service: https://service.org/tos\n", ""),  # no statement
        ("service.org wants", "https://service.org wants"),
        ("service.org wants", "127.0.0.1:8080 wants"),
        ("service.org wants", "test@127.0.0.1:8080 wants"),
        ("service.org wants", "[::1]:8080 wants"),
        ("Request ID: some_id\n", ""),
        ("Request ID: some_id", "Request ID: "),
        ("\nResources:\n- ipfs", "\nResources:\n- did:example:123\n- ipfs"),
        (ADDRESS, ADDRESS.lower()),
    ],
)
def test_what_the_grammar_allows_is_taken(old: str, new: str):
    assert old in FULL
    parse_message(FULL.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("service.org wants", " wants"),
        ("service.org wants", "service.org/path wants"),
        ("service.org wants", "ser vice.org wants"),
        ("service.org wants", "service.org\nwants"),
        (ADDRESS, ""),
        (ADDRESS, ADDRESS[:-1]),
        (ADDRESS, ADDRESS.replace("C02", "c02")),  # a wrong checksum
        ("tos\n\nURI", "tos\n\n\nURI"),
        ("tos\n\nURI", "tos\nURI"),
        ("of Service: ", "of Service: \n"),
        ("I accept", "I äccept"),
        ("I accept", 'I "accept"'),
        ("I accept the ServiceOrg Terms of Service: https://service.org/tos\n\n", ""),  # a line too few
        ("URI: https://service.org/login\n", ""),
        ("URI: https", "URI: _not_a_uri_"),
        ("URI: https://service.org/login", "URI: https://service.org/lo gin"),
        ("URI: https://service.org/login", "URI: https://service.org:999999/login"),
        ("Version: 1", "Version: 2"),
        ("Version: 1\nChain ID: 1", "Chain ID: 1\nVersion: 1"),
        ("Chain ID: 1\n", ""),
        ("Chain ID: 1", "Chain ID: ?"),
        ("Chain ID: 1", "Chain ID: ١"),  # an Arabic digit
        ("Chain ID: 1", "Chain ID: 9999999999999999"),
        ("Nonce: 32891756", "Nonce: 1234567"),
        ("Nonce: 32891756", "Nonce: 1234567-8"),
        ("Issued At: 2021-09-30T16:25:24Z", "Issued At: Wed Oct 05 2011 16:48:00 GMT+0200 (CEST)"),
        ("Issued At: 2021-09-30T16:25:24Z", "Issued At: 2021-02-30T16:25:24Z"),
        ("Issued At: 2021-09-30T16:25:24Z", "Issued At: 2021-09-30 16:25:24Z"),
        ("Expiration Time: 2021-10-30T16:25:24.000Z\n", "Expiration Time: soon\n"),
        ("Request ID: some_id", "Request ID: some id"),
        ("Resources:\n- ipfs", "Resources:\n- _not_a_uri_\n- ipfs"),
        ("claim.json", "claim.json\n"),
        ("claim.json", "claim.json - https://service.org/login"),
        ("\n", "\r\n"),
    ],
)
def test_what_the_grammar_does_not_allow_is_refused(old: str, new: str):
    assert old in FULL
    with pytest.raises(ValueError, match=r"\w"):
        parse_message(FULL.replace(old, new))


def test_fields_in_another_order_are_refused():
    head, tail = FULL.split("URI: ")
    lines = ("URI: " + tail).split("\n")
    for i in range(8):
        swapped = [*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]]
        with pytest.raises(ValueError, match="not a message"):
            parse_message(head + "\n".join(swapped))


_URI_TEXT = re.compile(
    r"[a-z]+://[a-z0-9.]+(/[A-Za-z0-9._~!$&'()*+,;=:@-]*)*(\?[a-z=&]*)?(#[a-z]*)?", re.ASCII
)


@given(
    domain=st.from_regex(re.compile(r"[a-z0-9][a-z0-9.-]{0,20}(:[0-9]{1,5})?", re.ASCII), fullmatch=True),
    uri=st.from_regex(_URI_TEXT, fullmatch=True),
    statement=st.none() | st.text("abcXYZ 0129-._~:/?#[]@!$&'()*+,;=", min_size=1, max_size=50),
    nonce=st.from_regex(re.compile(r"[A-Za-z0-9]{8,40}", re.ASCII), fullmatch=True),
    chain_id=st.integers(0, 2**53),
    issued_ms=st.integers(0, 4_000_000_000_000),
    expires_ms=st.none() | st.integers(0, 4_000_000_000_000),
)
def test_what_is_written_by_the_grammar_is_read_as_it_was_meant(
    domain, uri, statement, nonce, chain_id, issued_ms, expires_ms
):
    text = message_of(
        ADDRESS.lower(),
        domain=domain,
        uri=uri,
        statement=statement,
        nonce=nonce,
        chain_id=chain_id,
        issued_ms=issued_ms,
        expires_ms=expires_ms,
    )
    message = parse_message(text)
    assert (message.domain, message.uri, message.statement, message.nonce, message.chain_id) == (
        domain,
        uri,
        statement,
        nonce,
        chain_id,
    )
    assert (message.issued_ms, message.expires_ms) == (issued_ms, expires_ms)


@given(st.integers(0, len(FULL) - 1), st.characters())
@example(0, "\x00")
@example(len(FULL) - 1, "\n")
def test_a_message_with_one_character_changed_is_read_or_refused_and_nothing_else(at: int, character: str):
    try:
        parse_message(FULL[:at] + character + FULL[at + 1 :])
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either way is right, an error of ours is not


@pytest.mark.parametrize("length", [10_000, 40_000])
def test_a_hostile_message_is_refused_in_no_time(length: int):
    for text in ("a" * length, "a@" * length, FULL + "a" * length + "\n", "%" * length, "x:" + "/" * length):
        with pytest.raises(ValueError, match="not a message"):
            parse_message(text)


# Signed messages of the specification's reference implementation (its test vectors for verification).
SIGNED = [
    (
        "login.xyz wants you to sign in with your Ethereum account:\n"
        "0x9D85ca56217D2bb651b00f15e694EB7E713637D4\n\nSign-In With Ethereum Example Statement\n\n"
        "URI: https://login.xyz\nVersion: 1\nChain ID: 1\nNonce: bTyXgcQxn2htgkjJn\n"
        "Issued At: 2022-01-27T17:09:38.578Z\nExpiration Time: 2100-01-07T14:31:43.952Z",
        "dc35c7f8ba2720df052e0092556456127f00f7707eaa8e3bbff7e56774e7f2e0"
        "5a093cfc9e02964c33d86e8e066e221b7d153d27e5a2e97ccd5ca7d3f2ce06cb1b",
    ),
    (
        "login.xyz wants you to sign in with your Ethereum account:\n"
        "0xE6D3Aa1F561A215E5eb1f02Ba8705385F03fCaFB\n\nSign-In With Ethereum Example Statement\n\n"
        "URI: https://login.xyz\nVersion: 1\nChain ID: 1\nNonce: lx2nx4so\n"
        "Issued At: 2022-01-05T14:27:30.883Z\nNot Before: 2100-01-07T14:31:43.952Z",
        "c2539ace78f13c7eb8c0852d38d269a6f97bebd9f7872097d2e3137b541f8bf5"
        "0176062a46eeea83086bd2721423fb5755a932ff6ccc046ed482d14e4576042f1c",
    ),
    (  # a wallet whose recovery byte counts from 0
        "www.tally.xyz wants you to sign in with your Ethereum account:\n"
        "0xc95EB884FE852e241D409234bfC7045CB9E31BD7\n\nSign in with Ethereum to Tally\n\n"
        "URI: https://tally.xyz\nVersion: 1\nChain ID: 1\nNonce: 15050747\n"
        "Issued At: 2022-06-30T14:08:51.382Z",
        "8c46b6eb8505939892d8e9b075f89f8277321b17b993151f37810cdda38cce6f"
        "4a85909d2b53e6a14629c74c0ac38bf4becde78ee5b2529812bf6cceaf7b2a2501",
    ),
]


@pytest.mark.parametrize(("text", "signature"), SIGNED)
def test_a_signature_leads_to_the_address_in_the_message(text: str, signature: str):
    assert signer_of(text, bytes.fromhex(signature)) == parse_message(text).address
    assert signer_of(text + " ", bytes.fromhex(signature)) != parse_message(text).address


@given(st.binary(min_size=60, max_size=70))
@example(bytes(65))
@example(bytes(64) + b"\x1b")
@example(b"\xff" * 64 + b"\x1c")
def test_what_is_no_signature_is_nobodys(signature: bytes):
    found = signer_of(FULL, signature)
    assert found is None or re.fullmatch("0x[0-9a-f]{40}", found)
    assert found != ADDRESS.lower()


@pytest.mark.parametrize(
    "address",
    [  # the examples of EIP-55
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_an_address_is_kept_in_lower_case_and_shown_with_its_checksum(address: str):
    assert checked_address(address) == address.lower() == checked_address(address.lower())
    assert with_checksum(address.lower()) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "0x" + "g" * 40,
        "0x" + "a" * 39,
        "0x" + "a" * 41,
        "0xDe709f2102306220921060314715629080e2fb77",
    ],
)
def test_what_is_no_address_or_was_mistyped_is_refused(text: str):
    with pytest.raises(ValueError, match="address"):
        checked_address(text)


def test_a_wallet_of_the_tests_is_recognised_by_what_it_signs():
    wallet = Wallet("olga")
    assert signer_of("hello", bytes.fromhex(wallet.sign("hello")[2:])) == wallet.address


ORIGINS = frozenset({"https://service.org", "http://app.example.org:3000"})


@pytest.mark.parametrize(
    ("old", "new", "now_ms", "good"),
    [
        ("", "", NOW_MS, True),
        ("service.org wants", "SERVICE.org wants", NOW_MS, True),
        ("service.org wants", "https://service.org wants", NOW_MS, True),
        ("service.org wants", "http://service.org wants", NOW_MS, False),
        ("service.org wants", "evil.org wants", NOW_MS, False),
        ("service.org wants", "service.org.evil.org wants", NOW_MS, False),
        ("service.org wants", "x@service.org wants", NOW_MS, False),
        ("URI: https://service.org/login", "URI: https://evil.org/login", NOW_MS, False),
        ("URI: https://service.org/login", "URI: http://service.org/login", NOW_MS, False),
        ("URI: https://service.org/login", "URI: https://service.org@evil.org/", NOW_MS, False),
        ("URI: https://service.org/login", "URI: did:service.org", NOW_MS, False),
        ("service.org wants", "app.example.org:3000 wants", NOW_MS, False),  # of another than its URI
        ("Chain ID: 1", "Chain ID: 137", NOW_MS, False),
        ("", "", NOW_MS - 299_000, True),  # the wallet's clock is ahead
        ("", "", NOW_MS - 301_000, False),
        ("", "", NOW_MS + 899_000, True),
        ("", "", NOW_MS + 901_000, False),
        ("2021-10-30T16:25:24.000Z", "2021-09-30T16:25:25.000Z", NOW_MS + 1_000, False),  # expired
        ("2021-09-30T18:25:24+02:00", "2021-09-30T16:31:24Z", NOW_MS, False),  # not yet valid
    ],
)
def test_a_message_must_be_for_us_for_our_chain_and_for_now(old: str, new: str, now_ms: int, good: bool):
    message = parse_message(FULL.replace(old, new) if old else FULL)
    assert holds(message, origins=ORIGINS, chain_id=1, now_ms=now_ms) is good


def test_any_chain_will_do_where_none_is_configured():
    message = parse_message(FULL.replace("Chain ID: 1", "Chain ID: 137"))
    assert holds(message, origins=ORIGINS, chain_id=0, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("evil.org", False),
        ("localhost.evil.org", False),
        ("localhost@evil.org", False),
        ("evil@localhost", False),
        ("localhost/x", False),
        ("127.0.0.1.evil.org", False),
        ("", False),
    ],
)
def test_only_this_machines_own_names_are_believed_of_a_request(host: str, is_ours: bool):
    assert is_loopback(host) is is_ours
