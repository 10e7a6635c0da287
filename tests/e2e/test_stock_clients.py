"""Clients of existing services work by changing only the base URL (WIRE.md, the same over HTTP).

Each line is one that healthchecks.io or Uptime Kuma print in their documentation, or show in their UI, run by
/bin/sh with the stock curl; what is replaced is the base URL and the check's own id, nothing else. Sources:
healthchecks.io/docs: bash, http_api, signaling_failures, attaching_logs, measuring_script_run_time; Uptime
Kuma: the push monitor's form and extra/push-examples.
"""

from __future__ import annotations

import shutil
import subprocess
from types import SimpleNamespace

import pytest

from tests.e2e.system import System

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")

SLUG = "stock-clients"
HC = "https://hc-ping.com/your-uuid-here"  # as their documents write it
KUMA = "https://example.com/api/push/key"
UUID = "/proc/sys/kernel/random/uuid"  # in place of uuidgen, which not every machine has


@pytest.fixture(scope="module")
def check(system: System) -> SimpleNamespace:
    """A stand-alone check with its URLs, and an API that reads it."""
    api = system.api_for(system.provision(SLUG)["api_key"])
    made = system.admin("check", "create", "--project", SLUG, "--name", "backup", "--interval-ms", "60000")
    return SimpleNamespace(api=api, workload=made["workload_id"], hc=made["ping_url"], kuma=made["push_url"])


def sh(check: SimpleNamespace, line: str) -> subprocess.CompletedProcess[str]:
    """Run a documented line with the base URL changed."""
    changed = line.replace(HC, check.hc).replace(KUMA, check.kuma)
    assert changed != line
    return subprocess.run(["/bin/sh", "-c", changed], capture_output=True, text=True, check=False, timeout=30)


def test_a_check_is_new_until_it_is_called(check):
    assert check.api.workload_state(check.workload) == "new"


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (f"curl -m 10 --retry 5 {HC}", "up"),
        (f"curl -fsS -m 10 --retry 5 {HC}/fail", "unhealthy"),
        (f"curl -fsS -m 10 --retry 5 {HC}/start", "updating"),
        (f"true; curl -m 10 --retry 5 {HC}/$?", "up"),
        (f"false; curl -m 10 --retry 5 {HC}/$?", "unhealthy"),
        (f'm=$(echo well); curl -fsS -m 10 --retry 5 --data-raw "$m" {HC}/$?', "up"),
        (f"curl --retry 3 {HC}/255", "unhealthy"),
        (
            f"RID=`cat /proc/sys/kernel/random/uuid`; curl -fsS -m 10 --retry 5 {HC}/start?rid=$RID",
            "updating",
        ),
        (f"RID=`cat {UUID}`; curl -fsS -m 10 {HC}?rid=$RID", "up"),
    ],
)
def test_a_documented_line_of_a_hosted_ping_service_says_it(check, line, state):
    done = sh(check, line)
    assert (done.returncode, done.stdout) == (0, "OK"), done
    assert check.api.workload_state(check.workload) == state


def test_the_silent_form_says_nothing_and_fails_only_on_errors(check):
    sh(check, f"curl -fsS {HC}/fail")
    done = sh(check, f"curl -fsS -m 10 --retry 5 -o /dev/null {HC}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert check.api.workload_state(check.workload) == "up"
    lost = sh(check, f"curl -fsS -m 10 -o /dev/null {HC.replace('your-uuid-here', 'your-uuid-here')}0")
    assert lost.returncode == 22
    assert "404" in lost.stderr


def test_log_says_nothing_of_the_state(check):
    sh(check, f"curl -fsS {HC}/fail")
    done = sh(check, f"curl -fsS -m 10 --retry 5 --data-raw 'only a note' {HC}/log")
    assert done.stdout == "OK"
    assert check.api.workload_state(check.workload) == "unhealthy"


def test_head_is_as_good_as_get(check):
    sh(check, f"curl -fsS {HC}/fail")
    done = sh(check, f"curl -fsS --head {HC}")
    assert done.returncode == 0
    assert done.stdout.startswith("HTTP/1.1 200")
    assert check.api.workload_state(check.workload) == "up"


@pytest.mark.parametrize("lines", [1_000, 20_000, 100_000])
def test_the_output_of_a_command_may_be_sent_along(check, lines):
    # attaching_logs: the service keeps the first 100 kB; a longer one is no error.
    sh(check, f"curl -fsS {HC}/fail")
    done = sh(check, f"seq 1 {lines} | curl -fsS -m 10 --retry 5 --data-binary @- {HC}")
    assert (done.returncode, done.stdout) == (0, "OK"), done
    assert check.api.workload_state(check.workload) == "up"


def test_a_wrong_exit_status_is_the_clients_error(check):
    done = sh(check, f"curl -s -w '%{{http_code}}' -o /dev/null {HC}/256")
    assert done.stdout == "400"


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (f'curl -s "{KUMA}?status=down&msg=broken&ping="', "unhealthy"),
        (f'PUSH_URL="{KUMA}?status=up&msg=OK&ping="; curl -s $PUSH_URL', "up"),
        (f'curl -s "{KUMA}?status=down"', "unhealthy"),
        (f'curl -s "{KUMA}"', "up"),
        (f'curl -fsS -m 10 -X POST "{KUMA}?status=up&msg=Backup+completed&ping=350"', "up"),
    ],
)
def test_a_documented_line_of_a_push_monitor_says_it(check, line, state):
    done = sh(check, line)
    assert (done.returncode, done.stdout) == (0, '{"ok":true}'), done
    assert check.api.workload_state(check.workload) == state


def test_an_unknown_push_token_is_refused_as_that_monitor_refuses_it(check):
    done = sh(check, f'curl -s -w "%{{http_code}}" "{KUMA}x?status=up&msg=OK&ping="')
    assert done.stdout.endswith("404")
    assert '"ok":false' in done.stdout
    assert '"msg":' in done.stdout


@pytest.mark.skipif(shutil.which("wget") is None, reason="there is no wget")
def test_wget_does_it_too(check):
    sh(check, f"curl -fsS {HC}/fail")
    done = sh(check, f"wget {HC} -T 10 -t 10 -O /dev/null -q")
    assert done.returncode == 0
    assert check.api.workload_state(check.workload) == "up"
