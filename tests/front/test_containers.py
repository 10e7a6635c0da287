"""Dockerfile and docker-compose.yml, read by parsers: there is no engine here to build or run them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from nodepulse.config import load_config

TOP = Path(__file__).parents[2]
PACKAGES = {"np1", "engine", "storage", "web", "worker", "node", "nodepulse", "bench"}
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL"}
INSTRUCTIONS |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (TOP / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(None, 1) for line in whole.splitlines() if line.strip()]
    return [(name, rest) for name, rest in found]


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((TOP / "docker-compose.yml").read_text())


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def test_the_dockerfile_has_only_known_instructions_and_begins_with_a_stage():
    names = [name for name, _ in instructions()]
    assert set(names) <= INSTRUCTIONS
    assert names[0] == "FROM"


def test_everything_that_is_copied_exists_and_every_package_is_copied():
    copied = [word for rest in of("COPY") if "--from" not in rest for word in shlex.split(rest)[:-1]]
    assert [name for name in copied if not (TOP / name).exists()] == []
    assert set(copied) >= PACKAGES
    ignored = (TOP / ".dockerignore").read_text().split()
    assert set(copied).isdisjoint(ignored)


def test_only_the_locked_versions_are_installed():
    installs = [rest for rest in of("RUN") if "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes -r requirements.lock" in installs[0]


def test_the_image_does_not_run_as_root():
    assert of("USER")[-1] == "nodepulse"


def test_commands_in_list_form_are_lists_of_words():
    for name in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(word, str) for word in json.loads(of(name)[0]))
    check = of("HEALTHCHECK")[0].partition("CMD ")[2]
    compile(json.loads(check)[2], "healthcheck", "exec")


def test_the_environment_of_the_image_is_a_configuration():
    pairs = dict(word.split("=", 1) for word in shlex.split(of("ENV")[0]))
    config = load_config(file=None, environ=pairs)
    assert (config.data_dir, config.web.host, config.ingest.host) == ("/data", "0.0.0.0", "0.0.0.0")
    exposed = of("EXPOSE")[0].split()
    assert exposed == [f"{config.web.port}/tcp", f"{config.ingest.port}/tcp", f"{config.ingest.port}/udp"]


def test_compose_has_both_stores_and_nodepulse_each_with_a_health_check(compose):
    assert set(compose["services"]) == {"postgres", "valkey", "nodepulse"}
    assert all(service["healthcheck"]["test"] for service in compose["services"].values())


def test_nodepulse_waits_for_healthy_stores_and_gets_time_to_stop(compose):
    service = compose["services"]["nodepulse"]
    assert {name: how["condition"] for name, how in service["depends_on"].items()} == {
        "postgres": "service_healthy",
        "valkey": "service_healthy",
    }
    assert int(service["stop_grace_period"].removesuffix("s")) > 15


def test_the_environment_of_compose_is_a_configuration_that_points_at_its_services(compose):
    given = {
        name: re.sub(r"\$\{(POSTGRES|APP)_PASSWORD[^}]*\}", "secret", value)
        for name, value in compose["services"]["nodepulse"]["environment"].items()
    }
    config = load_config(file=None, environ={**given, "NODEPULSE_DATA_DIR": "/data"})
    assert config.database.url.startswith("postgresql://nodepulse_app:secret@postgres:")
    assert config.database.owner_url.startswith("postgresql://nodepulse:secret@postgres:")
    assert config.redis.url.startswith("redis://valkey:")


def test_every_volume_that_is_mounted_is_declared_and_the_journal_has_one(compose):
    mounted = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert mounted == set(compose["volumes"])
    assert "data:/data" in compose["services"]["nodepulse"]["volumes"]
