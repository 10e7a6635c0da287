"""Stand-alone checks: things that beat by calling a URL. One row, one workload, one capability each."""

from __future__ import annotations

from typing import Any

from engine.core.keys import Capability, load_secrets
from engine.core.people import Act
from engine.core.ports import Directory, NewNode
from nodepulse.config import Config
from nodepulse.readiness import reached_at


async def create_check(
    directory: Directory,
    config: Config,
    *,
    project_id: str,
    name: str,
    interval_ms: int,
    now_ms: int,
    act: Act | None = None,
) -> dict[str, Any]:
    """Make a check; its ids and the two URLs by which it beats. Who knows a URL can beat for it.

    `act`: of the person who wants it, for the audit log.
    """
    new = NewNode(project_id, name, "check", None, interval_ms, (name,))
    made = (await directory.create_nodes([new], now_ms=now_ms, act=act))[0]
    made, generation = await directory.rotate_capability(made.node_id, now_ms=now_ms, act=act)
    token = load_secrets(config.secrets_file).make_capability(Capability(row=made.row, generation=generation))
    base = config.ingest.public_http or f"http://{reached_at(config.ingest.host, config.ingest.port)}"
    return {
        "node_id": made.node_id,
        "workload_id": made.workload_ids[0],
        "ping_url": f"{base}/ping/{token}",
        "push_url": f"{base}/api/push/{token.hex}",
    }
