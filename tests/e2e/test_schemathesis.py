"""The served API asked everything that its own description allows, and much that it does not.

schemathesis makes requests out of `/openapi.json`; whatever it asks, the answer must be one that is described
and shaped as described, in time, and never a 5xx. Asked with the ids of things that are there, so that more
than the refusals is reached; the long run asks with made-up ones, too. Left out: the event streams, whose
answers never end, and the revoking of keys, which would soon find its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import Api
from tests.e2e.system import System

TIMEOUT_S = 10
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ignored_auth",
)


def things_there(system: System, api: Api, slug: str) -> dict[str, str]:
    """A project with one of each thing; its ids by the names that paths have for them."""
    made = system.provision(slug, nodes=2, workloads=2)
    node = made["nodes"][0]

    def create(path: str, body: object) -> Any:
        reply = api.post(path, body, headers={"idempotency-key": f"{slug}{path}"})
        assert reply.status == 201, (path, reply)
        return reply.json

    project = f"/v1/projects/{slug}"
    create(f"{project}/kinds", {"slug": "gpu", "name": "GPU"})
    version = {"version": "1.0.0", "manifest": "{}", "rollout_percent": 100}
    create(f"{project}/kinds/gpu/versions", version)
    user = create("/v1/users", {"email": f"{slug}@example.org"})
    channel = create(f"{project}/channels", {"kind": "mail", "target": "o@example.org"})
    return {
        "slug": slug,
        "node_id": node["node_id"],
        "workload_id": node["workloads"][0],
        "kind": "gpu",
        "version": "1.0.0",
        "user_id": user["user_id"],
        "channel_id": channel["channel"]["channel_id"],
    }


def ask_everything(
    system: System,
    folder: Path,
    *,
    examples: int,
    key: str,
    there: Mapping[str, str] | None = None,
    phases: str = "examples,coverage,fuzzing",
) -> int:
    """Ask with an admin's key; how many requests it made."""
    lines = [f'"path.{name}" = "{value}"' for name, value in (there or {}).items()]
    (folder / "schemathesis.toml").write_text("\n".join(["[parameters]", *lines, ""]))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{system.web_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS)),
            *("--exclude-path", "/v1/events/stream", "--exclude-path", "/v1/projects/{slug}/summary/stream"),
            *("--exclude-name", "DELETE /v1/keys/{key_id}"),
            *("--phases", phases),
            *("--max-examples", str(examples), "--seed", "1", "--continue-on-failure", "--no-color"),
            *("--request-timeout", str(TIMEOUT_S), "--suppress-health-check", "all"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert system.api_for(key).request("GET", "/v1/me").status == 200, "its key went: it asked for nothing"
    found = re.search(r"([\d,]+) generated", done.stdout)
    assert found is not None, done.stdout[-2_000:]
    return int(found[1].replace(",", ""))


@pytest.fixture
def key(system: System) -> str:
    made: str = system.admin("key", "create", "--admin")["api_key"]
    return made


def test_whatever_is_asked_the_answer_is_one_that_is_described(system: System, key: str, tmp_path: Path):
    there = things_there(system, system.api_for(key), "asked")
    asked = ask_everything(system, tmp_path, examples=2, key=key, there=there, phases="examples,fuzzing")
    assert asked > 200


@pytest.mark.slow
def test_ten_thousand_requests_later_it_still_is_also_with_ids_that_are_made_up(
    system: System, key: str, tmp_path: Path
):
    there = things_there(system, system.api_for(key), "asked-more")
    asked = ask_everything(system, tmp_path, examples=100, key=key)
    assert asked + ask_everything(system, tmp_path, examples=50, key=key, there=there) > 10_000
