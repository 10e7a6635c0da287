"""The node's configuration file: what is refused, what the environment says, how it is written."""

from __future__ import annotations

import json

import pytest

from node.config import ConfigError, NodeConfig, changed, load, save

SEED = "ab" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "etc" / "node.json"


def test_what_is_saved_is_read_again_and_is_nobody_elses(path):
    config = NodeConfig(node_id="n", private_key=SEED, health_port=0, driver_options={"namespace": "x"})
    save(path, config)
    save(path, config)
    assert load(path, {}) == config
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["node.json"]
    assert SEED not in repr(config)


def test_the_environment_wins_over_the_file(path):
    save(path, NodeConfig(private_key=SEED, web_url="http://a"))
    found = load(path, {"NODE_PRIVATE_KEY": "cd" * 32, "NODE_SYSTEM_ENDPOINT": "https://b"})
    assert (found.private_key, found.web_url) == ("cd" * 32, "https://b")


def test_a_file_that_others_can_read_is_refused(path):
    save(path, NodeConfig())
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(path, {})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "not JSON"),
        ("[]", "object"),
        ("[" * 9_999, "not JSON"),
        ('{"nodeid": ""}', "nodeid: there is no such key"),
        ('{"private_key": "%s"}' % ("AB" * 32), "private_key"),
        ('{"web_url": "ftp://a"}', "web_url"),
        ('{"health_port": "7910"}', "health_port"),
        ('{"health_port": true}', "health_port"),
        ('{"health_port": 65536}', "health_port"),
        ('{"driver": "docker"}', "driver"),
        ('{"driver_options": {"a": 1}}', "driver_options"),
        (json.dumps({"project": "a" * 70_000}), "longer"),
    ],
)
def test_what_is_wrong_is_named(path, text, where):
    save(path, NodeConfig())
    path.write_text(text)
    with pytest.raises(ConfigError, match=where) as caught:
        load(path, {})
    assert str(path) in str(caught.value)
    assert "ABAB" not in str(caught.value)  # the key itself is never told


def test_a_missing_file_says_how_to_make_one(path):
    with pytest.raises(ConfigError, match="nodepulse node init"):
        load(path, {})


def test_values_are_changed_as_people_type_them():
    config = changed(NodeConfig(), {"health_port": "8080", "project": "edge", "driver_options": '{"a": "b"}'})
    assert (config.health_port, config.project, config.driver_options) == (8080, "edge", {"a": "b"})
    for texts in ({"health_port": "x"}, {"health_port": "-1"}, {"driver_options": "{"}, {"color": "red"}):
        with pytest.raises(ConfigError, match=next(iter(texts))):
            changed(config, texts)
