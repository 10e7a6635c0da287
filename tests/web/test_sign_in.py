"""Signing in by wallet and by mail: once per challenge, without a word about who has an account."""

from __future__ import annotations

import re

import msgspec
import trio

from storage.tokens import sha256_of
from tests.web.control import Answered, Control
from tests.web.wallets import Wallet, message_of
from web.main import system_ms
from web.settings import WebSettings
from web.times import parse_rfc3339

OLGA = Wallet("olga")


def reconfigure(control: Control, **settings: object) -> None:
    """Requests go to a web process with these settings from here on."""
    control.settings = msgspec.structs.replace(control.settings, **settings)
    control.app = control.new_app()
    control.client = control.app.test_client()


async def nonce(control: Control) -> str:
    answer = await control.ask("POST", "/v1/sign-in/wallet/nonce", by=None, key=None)
    assert answer.status == 200
    assert re.fullmatch("[A-Za-z0-9]{8,}", answer.json["nonce"])
    return answer.json["nonce"]


async def sign_in(control: Control, wallet: Wallet = OLGA, *, headers=None, text=None, **changes) -> Answered:
    if text is None:
        changes.setdefault("nonce", await nonce(control) if "nonce" not in changes else "")
        changes.setdefault("issued_ms", system_ms())
        text = message_of(changes.pop("address", wallet.address), **changes)
    body = {"message": text, "signature": wallet.sign(text)}
    return await control.ask("POST", "/v1/sign-in/wallet", by=None, key=None, json=body, headers=headers)


async def me(control: Control, token: str) -> Answered:
    control.bearers["token"] = token
    return await control.ask("GET", "/v1/me", by="token")


async def letters(control: Control) -> list[tuple[str, str]]:
    rows = await control.sql("select address, body from letter order by letter_id")
    return [(row["address"], row["body"]) for row in rows]


async def ask_letter(control: Control, email: str, headers=None) -> Answered:
    answer = await control.ask(
        "POST", "/v1/sign-in/mail", by=None, key=None, json={"email": email}, headers=headers
    )
    assert answer.status == 202
    return answer


async def confirm(control: Control, token: str) -> Answered:
    return await control.ask("POST", "/v1/sign-in/mail/confirm", by=None, key=None, json={"token": token})


def token_in(body: str) -> str:
    found = re.search(r"^  (npm_\S+)$", body, re.MULTILINE)
    assert found is not None
    return found[1]


def is_the_one_refusal(answer: Answered) -> bool:
    kept = {name: value for name, value in answer.json.items() if name != "request_id"}
    return answer.status == 401 and kept == {
        "type": "urn:nodepulse:problem:sign_in_refused",
        "title": "Unauthorized",
        "status": 401,
        "code": "sign_in_refused",
        "detail": (
            "that does not sign anybody in: begin again, with a new nonce or letter, the right wallet and "
            "chain, and a clock that is right"
        ),
    }


# By wallet


async def test_a_wallet_signs_in_and_has_an_account_from_then_on(control: Control):
    first = await sign_in(control)
    assert first.status == 200
    assert first.json["token"].startswith("npl_")
    assert first.json["user"]["wallet"].lower() == OLGA.address
    again = await sign_in(control)
    assert again.json["user"] == first.json["user"]
    assert again.json["token"] != first.json["token"]
    answer = await me(control, first.json["token"])
    assert (answer.status, answer.json["scope"]) == (200, "user")
    assert answer.json["user"] == first.json["user"]
    rows = await control.sql("select action, actor from audit order by seq")
    actor = f"user:{first.json['user']['user_id']}"
    assert [tuple(row) for row in rows] == [
        ("user.sign_up", actor),
        ("login.open", actor),
        ("login.open", actor),
    ]


async def test_neither_nonces_nor_tokens_are_kept_in_clear(control: Control):
    used = await nonce(control)
    signed_in = await sign_in(control, nonce=used)
    token = signed_in.json["token"]
    kept = await control.sql("select secret_sha256 as s from challenge union select token_sha256 from login")
    assert {row["s"] for row in kept} == {sha256_of(used), sha256_of(token)}


async def test_a_nonce_works_once_also_when_it_is_used_at_the_same_time(control: Control):
    used = await nonce(control)
    answers: list[Answered] = []

    async def attempt() -> None:
        answers.append(await sign_in(control, nonce=used))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    assert sorted(answer.status for answer in answers) == [200, *[401] * 7]
    assert all(is_the_one_refusal(answer) for answer in answers if answer.status != 200)
    assert len(await control.sql("select 1 from login")) == 1


async def test_a_wallet_that_signs_in_twice_at_once_gets_one_account(control: Control):
    nonces = [await nonce(control) for _ in range(6)]
    answers: list[Answered] = []

    async def attempt(used: str) -> None:
        answers.append(await sign_in(control, nonce=used))

    async with trio.open_nursery() as nursery:
        for used in nonces:
            nursery.start_soon(attempt, used)
    assert [answer.status for answer in answers] == [200] * 6
    assert len({answer.json["user"]["user_id"] for answer in answers}) == 1


WRONG: tuple[dict, ...] = (
    {"domain": "evil.example.org", "uri": "http://evil.example.org/"},
    {"uri": "http://evil.example.org/"},
    {"chain_id": 137},
    {"nonce": "neverGivenOut1234"},
    {"issued_ms": 1_600_000_000_000},
    {"expires_ms": 1_600_000_000_000},
    {"not_before_ms": 4_000_000_000_000},
    {"address": Wallet("sam").address},  # signed by another wallet
)


async def test_whatever_is_wrong_is_one_and_the_same_refusal(control: Control):
    for changes in WRONG:
        assert is_the_one_refusal(await sign_in(control, **changes)), changes
    assert await control.sql("select 1 from login") == []


async def test_a_nonce_expires(control: Control):
    used = await nonce(control)
    await control.sql("update challenge set expires_ms = $1", system_ms())
    assert is_the_one_refusal(await sign_in(control, nonce=used))


async def test_a_nonce_of_a_mailed_link_is_none_for_a_wallet_and_the_other_way_round(control: Control):
    await ask_letter(control, "olga@example.org")
    ((_, body),) = await letters(control)
    assert is_the_one_refusal(await confirm(control, await nonce(control)))
    mailed = token_in(body)
    await control.sql("update challenge set secret_sha256 = $1 where kind = 'mail'", sha256_of("a" * 20))
    assert is_the_one_refusal(await sign_in(control, nonce="a" * 20))
    assert is_the_one_refusal(await confirm(control, mailed))


async def test_what_is_no_message_is_malformed(control: Control):
    answer = await sign_in(control, text="let me in")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (400, "/message")


async def test_a_closed_installation_lets_in_only_whom_an_admin_entered(control: Control):
    reconfigure(control, sign_up="closed")
    assert is_the_one_refusal(await sign_in(control))
    made = await control.ask("POST", "/v1/users", json={"name": "Olga", "wallet": OLGA.address})
    assert made.status == 201
    assert (await sign_in(control)).json["user"]["user_id"] == made.json["user_id"]


async def test_who_is_retired_is_refused_and_their_logins_end_for_good(control: Control):
    signed_in = (await sign_in(control)).json
    path = f"/v1/users/{signed_in['user']['user_id']}"
    assert (await me(control, signed_in["token"])).status == 200
    assert (await control.ask("PATCH", path, json={"retired": True})).status == 200
    reconfigure(control)  # another process, which believes nothing yet
    assert (await me(control, signed_in["token"])).status == 401
    assert is_the_one_refusal(await sign_in(control))
    assert (await control.ask("PATCH", path, json={"retired": False})).json["retired_at"] is None
    reconfigure(control)
    assert (await me(control, signed_in["token"])).status == 401
    assert (await sign_in(control)).status == 200


async def test_with_a_public_url_wallets_sign_for_that_and_for_the_pages_that_may_call(control: Control):
    reconfigure(control, public_url="https://pulse.example.org/", cors_origins="https://app.example.org")
    for domain in ("pulse.example.org", "app.example.org"):
        assert (await sign_in(control, domain=domain, uri=f"https://{domain}/")).status == 200
    assert is_the_one_refusal(await sign_in(control))  # for localhost


async def test_what_a_stranger_calls_us_by_is_not_who_we_are(control: Control):
    evil = {"domain": "evil.example.org", "uri": "http://evil.example.org/"}
    answer = await sign_in(control, **evil, headers={"host": "evil.example.org"})
    assert (answer.status, answer.json["code"]) == (409, "not_configured")
    await ask_letter(control, "olga@example.org", headers={"host": "evil.example.org"})
    ((_, body),) = await letters(control)
    assert "evil" not in body
    assert token_in(body)


async def test_a_login_ends_after_its_life(control: Control):
    reconfigure(control, login_life_s=3_600.0)
    signed_in = (await sign_in(control)).json
    told_ms = parse_rfc3339(signed_in["expires_at"])
    assert abs(told_ms - system_ms() - 3_600_000) < 60_000
    assert (await me(control, signed_in["token"])).status == 200
    await control.sql("update login set expires_ms = $1", system_ms())
    reconfigure(control)
    assert (await me(control, signed_in["token"])).status == 401


# By mail


async def test_a_letter_signs_in_once(control: Control):
    await ask_letter(control, "Olga@Example.org")
    ((address, body),) = await letters(control)
    assert address == "olga@example.org"
    token = token_in(body)
    assert f"http://localhost/sign-in#token={token}" in body
    answer = await confirm(control, token)
    assert (answer.status, answer.json["user"]["user_id"]) == (200, control.users["olga"])
    assert (await me(control, answer.json["token"])).json["user"]["email"] == "olga@example.org"
    assert is_the_one_refusal(await confirm(control, token))


async def test_a_letter_expires(control: Control):
    await ask_letter(control, "olga@example.org")
    await control.sql("update challenge set expires_ms = $1", system_ms())
    ((_, body),) = await letters(control)
    assert is_the_one_refusal(await confirm(control, token_in(body)))


async def test_links_lead_to_the_public_url(control: Control):
    reconfigure(control, public_url="https://pulse.example.org/app/")
    await ask_letter(control, "olga@example.org")
    ((_, body),) = await letters(control)
    assert f"https://pulse.example.org/app/sign-in#token={token_in(body)}" in body


async def test_nobody_learns_who_has_an_account(control: Control):
    reconfigure(control, sign_up="closed")
    await control.sql("update account set retired_ms = 1 where name = 'sam'")
    answers = [
        await ask_letter(control, email)
        for email in ("olga@example.org", "sam@example.org", "nobody@example.org")
    ]
    assert len({answer.body for answer in answers}) == 1
    assert [address for address, _ in await letters(control)] == ["olga@example.org"]
    # And nobody can tell by the time it took: what is written, and waited for on the disk, is the same.
    kept = await control.sql("select email from challenge order by email")
    assert [row["email"] for row in kept] == ["nobody@example.org", "olga@example.org", "sam@example.org"]


async def test_where_anybody_may_sign_up_a_new_address_gets_an_account(control: Control):
    await ask_letter(control, "new@example.org")
    ((_, body),) = await letters(control)
    answer = await confirm(control, token_in(body))
    assert (answer.json["user"]["email"], answer.json["user"]["admin"]) == ("new@example.org", False)


async def test_at_most_three_letters_go_to_one_address_and_nobody_is_told(control: Control):
    answers: list[Answered] = []

    async def attempt() -> None:
        answers.append(await ask_letter(control, "olga@example.org"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    assert len({answer.body for answer in answers}) == 1
    assert len(await letters(control)) == 3
    await control.sql("update challenge set created_ms = created_ms - 900001")
    await ask_letter(control, "olga@example.org")
    assert len(await letters(control)) == 4


async def test_what_is_no_address_is_malformed(control: Control):
    for email in ("olga", "olga@", "@example.org", "ol ga@example.org", "ölga@example.org", "a@b\n"):
        answer = await control.ask("POST", "/v1/sign-in/mail", by=None, key=None, json={"email": email})
        assert answer.status == 400, email


# Both


async def test_signing_in_is_limited_by_address(control: Control):
    reconfigure(control, sign_ins_per_min_max=2)
    await nonce(control)
    await ask_letter(control, "olga@example.org")
    answer = await control.ask("POST", "/v1/sign-in/wallet/nonce", by=None, key=None)
    assert (answer.status, answer.headers["ratelimit-policy"]) == (429, '"sign-in";q=2;w=60')
    assert (await control.ask("GET", "/livez", by=None)).status == 200


async def test_signing_out_ends_the_token_within_a_second_and_a_key_is_told_how_it_is_revoked(
    control: Control,
):
    token = (await sign_in(control)).json["token"]
    assert (await me(control, token)).status == 200
    assert (await control.ask("DELETE", "/v1/sign-in", by="token")).status == 204
    await trio.sleep(1)
    assert (await me(control, token)).status == 401
    refused = await control.ask("DELETE", "/v1/sign-in", by="olga")
    assert (refused.status, refused.json["code"]) == (409, "not_signed_in")
    assert control.key_ids["olga"] in refused.json["detail"]


async def test_an_admin_who_signs_in_is_one(control: Control):
    await control.sql("update account set admin = true, wallet = $1 where name = 'olga'", OLGA.address)
    token = (await sign_in(control)).json["token"]
    assert (await me(control, token)).json["scope"] == "admin"
    assert (await control.ask("GET", "/v1/users", by="token")).status == 200


async def test_expired_challenges_and_old_logins_are_pruned(control: Control):
    await sign_in(control)
    await nonce(control)
    await ask_letter(control, "olga@example.org")
    day_ms, now_ms = 86_400_000, system_ms()
    prune = control.stores.sign_in.prune
    assert await prune(now_ms=now_ms, limit=10) == 0
    assert await prune(now_ms=now_ms + 20 * 60_000, limit=2) == 2
    assert await prune(now_ms=now_ms + 20 * 60_000, limit=2) == 1
    assert await prune(now_ms=now_ms + 59 * day_ms, limit=10) == 0
    assert await prune(now_ms=now_ms + 61 * day_ms, limit=10) == 1


def test_signing_up_is_open_unless_it_is_closed():
    assert WebSettings().sign_up == "open"
