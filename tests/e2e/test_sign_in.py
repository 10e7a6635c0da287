"""Signing in to a running system: by the link of a letter that really arrives, and by a wallet."""

from __future__ import annotations

import email
import re
from email import policy
from urllib.parse import urlsplit

from tests.e2e.api import Api, now_ms
from tests.e2e.system import System, eventually
from tests.web.wallets import Wallet, message_of
from tests.worker.receivers import Mailbox


def letters_to(mailbox: Mailbox, address: str) -> list[str]:
    taken = [envelope for envelope in mailbox.envelopes if envelope.rcpt_tos == [address]]
    messages = [email.message_from_bytes(envelope.content, policy=policy.default) for envelope in taken]
    return [str(message.get_content()) for message in messages]


def signed_out_at_last(system: System, token: str) -> None:
    """Sign out; soon the token is refused by every path."""
    api = system.api_for(token)
    assert api.request("DELETE", "/v1/sign-in").status == 204
    eventually(lambda: api.try_status("/v1/me") == 401, within_s=5.0)


def test_a_letter_arrives_and_its_link_signs_in_once(system: System, mailbox: Mailbox):
    anybody: Api = system.api
    assert anybody.post("/v1/sign-in/mail", {"email": "Rita@Example.org"}).status == 202
    eventually(lambda: bool(letters_to(mailbox, "rita@example.org")), within_s=20.0)
    (letter,) = letters_to(mailbox, "rita@example.org")
    link = re.search(r"http://\S+", letter)
    assert link is not None
    assert link[0].startswith(f"{system.web_url}/sign-in#token=")
    token = urlsplit(link[0]).fragment.removeprefix("token=")
    signed_in = anybody.post("/v1/sign-in/mail/confirm", {"token": token})
    assert signed_in.status == 200
    assert anybody.post("/v1/sign-in/mail/confirm", {"token": token}).status == 401
    me = system.api_for(signed_in.json["token"]).get("/v1/me")
    assert me["user"]["email"] == "rita@example.org"
    signed_out_at_last(system, signed_in.json["token"])


def test_a_wallet_signs_in(system: System):
    anybody, wallet = system.api, Wallet("rita")
    nonce = anybody.request("POST", "/v1/sign-in/wallet/nonce").json["nonce"]
    text = message_of(
        wallet.address,
        nonce=nonce,
        issued_ms=now_ms(),
        domain=urlsplit(system.web_url).netloc,
        uri=f"{system.web_url}/",
    )
    body = {"message": text, "signature": wallet.sign(text)}
    signed_in = anybody.post("/v1/sign-in/wallet", body)
    assert signed_in.status == 200
    assert anybody.post("/v1/sign-in/wallet", body).status == 401
    me = system.api_for(signed_in.json["token"]).get("/v1/me")
    assert me["user"]["wallet"].lower() == wallet.address
    signed_out_at_last(system, signed_in.json["token"])
