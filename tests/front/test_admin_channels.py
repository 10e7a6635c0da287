"""`admin channel test|deliveries|replay|enable`, and services whose URLs are secrets."""

from __future__ import annotations

import pytest

DISCORD = "discord://123456789012345678/aVerySecretToken-0123456789"


@pytest.fixture(scope="module")
def channel(cli):
    cli.admin("project", "create", "told")
    made = cli.admin("channel", "add", "mail", "ops@example.org", "--project", "told")
    return (made["channel_id"], "--project", "told")


def test_a_test_is_sent_listed_given_up_sent_again_and_its_channel_enabled(cli, channel):
    sent = cli.admin("channel", "test", *channel)
    [listed] = cli.admin("channel", "deliveries", *channel)["deliveries"]
    assert (listed["delivery_id"], listed["state"], listed["form"]) == (sent["delivery_id"], "due", "test")
    cli.sql("update delivery set state = 'dead', note = 'HTTP 410', settled_ms = 1")
    cli.sql("update channel set disabled_ms = 1, disabled_note = 'HTTP 410'")
    assert "admin channel enable" in cli.refused("channel", "replay", *channel)
    assert "admin channel enable" in cli.refused("channel", "test", *channel)
    enabled = cli.admin("channel", "enable", *channel)
    assert (enabled["disabled_at"], enabled["disabled_because"]) == (None, "")
    [dead] = cli.admin("channel", "deliveries", *channel, "--state", "dead")["deliveries"]
    channel_id, *of = channel
    assert cli.admin("channel", "replay", channel_id, dead["delivery_id"], *of)["replayed"] == 1
    assert "no dead letter" in cli.refused("channel", "replay", channel_id, dead["delivery_id"], *of)
    assert cli.admin("channel", "replay", *channel)["replayed"] == 0
    assert cli.audited("channel.replay")["subject"] == channel_id


def test_a_services_url_is_never_printed(cli, channel):
    made = cli.admin("channel", "add", "apprise", DISCORD, "--project", "told")
    assert (made["target"], made["secret"]) == ("discord://***", None)
    shown = [one["target"] for one in cli.admin("channel", "list", "--project", "told")["channels"]]
    assert "discord://***" in shown
    assert "aVerySecretToken" not in str(shown) + str(cli.audited("channel.create"))
    for target, why in (
        ("discord://x", "needs more or other parts"),
        ("syslog://", "as apprise writes it"),
        ("syslog://x", "not among the services"),
        ("json://127.0.0.1/", "not among the services"),
    ):
        assert why in cli.refused("channel", "add", "apprise", target, "--project", "told")
