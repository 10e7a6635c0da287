"""`admin receipt`: the public keys that receipts are signed with, for whoever hands them on to be pinned."""

from __future__ import annotations

import click

from engine.core.keys import load_secrets
from engine.core.receipts import ReceiptKey
from nodepulse.commands.acting import Asked, Desk, Row, admin_options, at
from nodepulse.commands.output import print_ids, print_json, show_all
from storage.receipt_signing import registered_key


@click.group()
def receipt() -> None:
    """The public keys that receipts are signed with."""


@receipt.command(name="keys")
@admin_options
def receipt_keys(*, asked: Asked) -> None:
    """List all keys that ever signed, the oldest first; the one that signs now is entered if it is new."""

    async def work(desk: Desk) -> list[ReceiptKey]:
        secrets = load_secrets(desk.config.secrets_file)
        await registered_key(desk.stores.receipt_keys, secrets, now_ms=desk.act.now_ms)
        return await desk.stores.receipt_keys.keys()

    rows = [_row(key) for key in asked.run(work)]
    if asked.ids_only:
        print_ids(rows)
    elif asked.as_json:
        print_json({"keys": rows})
    else:
        show_all("keys", rows, as_json=False)


def _row(key: ReceiptKey) -> Row:
    return {
        "key_id": key.key_id,
        "public_key": key.public_key.hex(),
        "from": at(key.from_ms),
        "until": at(key.until_ms),
    }
