"""`admin receipt keys`: the installation's public keys, before anybody asked for a receipt."""

from __future__ import annotations


def test_the_key_that_signs_now_is_shown_and_stays(cli):
    (key,) = cli.admin("receipt", "keys")["keys"]
    assert (key["key_id"], key["until"]) == ("1-1", None)
    assert len(bytes.fromhex(key["public_key"])) == 32
    assert cli.admin("receipt", "keys")["keys"] == [key]
    assert cli.type("admin", "receipt", "keys", "--ids").out == "1-1\n"
    assert key["public_key"] in cli.type("admin", "receipt", "keys").out
