"""Configuration: where values come from, who wins, what is refused and in which words."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml

from nodepulse.config import Config, check_tree, every_key, load_config
from nodepulse.limits import RANGES, ConfigError, parse_address, value_at

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def configured(*sets: str, file: Path | None = None, **environ: str) -> Config:
    return load_config(file=file, environ={"XDG_STATE_HOME": "/state", **environ}, sets=sets)


def refused(*sets: str, file: Path | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(*sets, file=file, **environ)
    return str(caught.value)


def test_without_any_source_everything_has_its_default_and_data_lies_in_the_state_folder():
    config = configured()
    assert config.data_dir == "/state/nodepulse"
    assert (config.web.host, config.web.port) == ("127.0.0.1", 8080)
    assert (config.ingest.host, config.ingest.port) == ("127.0.0.1", 7900)


def test_a_file_is_overruled_by_the_environment_that_by_set_and_that_by_an_option(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("ingest: {port: 1, busy_retry_ms: 1}\nweb: {port: 1}\nengine: {shards: 1}\n")
    config = load_config(
        file=file,
        environ={"NODEPULSE_WEB__PORT": "2", "NODEPULSE_INGEST__PORT": "2", "NODEPULSE_ENGINE__SHARDS": "2"},
        sets=["ingest.port=3", "engine.shards=3"],
        options={"engine.shards": 4, "data_dir": None},
    )
    assert (config.ingest.busy_retry_ms, config.web.port) == (1, 2)
    assert (config.ingest.port, config.engine.shards) == (3, 4)


def test_the_file_can_be_named_by_the_environment(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("ingest:\n  port: 17\nweb:\n")
    assert configured(NODEPULSE_CONFIG=str(file)).ingest.port == 17


def test_text_from_the_environment_becomes_the_type_of_its_key():
    config = configured(NODEPULSE_INGEST__ALLOW_PLAINTEXT="true", NODEPULSE_INGEST__NEXT_MS_JITTER="0.5")
    assert config.ingest.allow_plaintext is True
    assert config.ingest.next_ms_jitter == 0.5


def test_a_value_may_contain_an_equals_sign():
    url = "postgresql://u@/db?host=/run/pg"
    assert configured(f"database.url={url}").database.url == url


def test_the_variables_that_kubernetes_adds_for_a_service_of_our_name_are_no_settings():
    links = {
        "NODEPULSE_SERVICE_HOST": "10.0.0.1",
        "NODEPULSE_SERVICE_PORT_HTTP": "80",
        "NODEPULSE_PORT": "tcp://10.0.0.1:80",
        "NODEPULSE_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert configured(**links) == configured()


def test_a_relative_data_folder_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert configured("data_dir=here").data_dir == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ingest.prt=1", "ingest.prt: is not a key; did you mean ingest.port?"),
        ("colour=red", "colour: is not a key; known here: data_dir"),
        ("worker.mail.hst=x", "worker.mail.hst: is not a key"),
        ("ingest=1", "ingest: is a section"),
        ("ingest.port.x=1", "ingest.port: Expected `int`"),
        ("ingest.port", "ingest.port: is no setting; write --set key.path=value"),
        ("ingest.port=ten", "ingest.port: Expected `int`"),
        ("ingest.port=70000", "ingest.port: is 70000; must be from 0 to 65535"),
        ("ingest.next_ms_jitter=1.5", "ingest.next_ms_jitter: is 1.5; must be from 0 to 1"),
        ("ingest.next_ms_jitter=nan", "ingest.next_ms_jitter: is nan"),
        ("journal.snapshot_interval_s=0", "journal.snapshot_interval_s: is 0; must be from 0.1"),
        ("engine.shards=0", "engine.shards: is 0; must be from 1"),
        (
            "ingest.public_udp=example.org",
            "ingest.public_udp: is 'example.org'; 'example.org' is not HOST:PORT",
        ),
        ("ingest.public_udp=::1:7900", "write an IPv6 host in brackets, [::1]:7900"),
        ("ingest.public_udp=0.0.0.0:7900", "ingest.public_udp: is '0.0.0.0:7900'; clients cannot send to"),
        (
            "ingest.public_http=example.org:80",
            "ingest.public_http: is 'example.org:80'; must begin with http://",
        ),
        ("database.url=mysql://x/y", "database.url: is 'mysql://x/y'; must begin with postgresql://"),
        ("redis.url=redis://x:port", "redis.url: is 'redis://x:port'; must be a URL"),
        ("web.port=7900", "web.port: is also ingest.port"),
        ("web.graceful_s=6", "web.graceful_s: and web.drain_s must sum to less than serve.stop_web_s"),
        (
            "serve.stop_engine_s=10",
            "serve.stop_web_s: and its two sisters sum to 19 s; at most 15 s together",
        ),
        ("ingest.pending_frames_max=10", "ingest.batch_frames_max: is above ingest.pending_frames_max"),
        ("log_level=loud", "log_level: is 'loud'; must be one of debug, info"),
        ("web.host=", "web.host: is empty"),
    ],
)
def test_what_cannot_work_is_refused_by_the_path_of_its_key(setting, words):
    assert words in refused(setting)


def test_all_that_is_wrong_is_told_at_once():
    told = refused("engine.shards=0", "web.port=-1").splitlines()
    assert [line.split(":")[0] for line in told] == ["engine.shards", "web.port"]


def test_an_unknown_variable_of_our_name_is_refused():
    assert refused(NODEPULSE_INGEST__PRT="1").startswith("ingest.prt: is not a key")
    assert refused(NODEPULSE_VERBOSE="1").startswith("verbose: is not a key")


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1, 2]", "must be a mapping"), ("a: [", "is not YAML"), ("ingest: 3", "ingest: is a section")],
)
def test_a_file_that_is_no_configuration_is_refused_by_its_name_or_key(tmp_path, text, words):
    file = tmp_path / "some.yaml"
    file.write_text(text)
    assert words in refused(file=file)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    assert (
        refused(file=tmp_path / "none.yaml")
        == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [("localhost:80", ("localhost", 80)), ("[::1]:80", ("::1", 80)), (":0", ("127.0.0.1", 0))],
)
def test_an_address_is_read_in_its_three_forms(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "80", "a:b", "a:99999", "::1:80", "a b:80", "http://a:80", "[::1:80", "a:²"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets|host"):
        parse_address(text)


def test_every_number_has_a_range_and_its_default_lies_inside():
    numbers = {
        path: value
        for path, value in every_key().items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    assert set(numbers) == set(RANGES)
    assert [path for path, value in numbers.items() if not RANGES[path][0] <= value <= RANGES[path][1]] == []


def test_the_example_names_every_key_with_its_default():
    example = check_tree({**yaml.safe_load(EXAMPLE.read_text()), "data_dir": "/x"})
    written = set(flattened(yaml.safe_load(EXAMPLE.read_text())))
    assert written == set(every_key())
    wrong = [
        path
        for path, default in every_key().items()
        if path != "data_dir" and value_at(example, path) != default
    ]
    assert wrong == []


def test_every_key_of_the_example_but_the_plainest_is_explained_above_it():
    lines = EXAMPLE.read_text().splitlines()
    bare = {
        line.strip()
        for above, line in itertools.pairwise(lines)
        if re.match(r"\s*\w+: .", line) and not above.strip().startswith("#")
    }
    assert bare == {"port: 25"}


def flattened(tree: dict, above: str = "") -> list[str]:
    return [
        path
        for key, value in tree.items()
        for path in (flattened(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"])
    ]
