"""An installation and the nodes of one project, handed out fresh to one test each."""

from __future__ import annotations

from typing import Any

from tests.e2e.stranger.installation import Installation
from tests.e2e.stranger.party import Door, Node

PROJECT = "stranger"


class Village:
    """`web` carries the project's API key."""

    def __init__(self, installation: Installation, *, nodes: int, workloads: int, interval_ms: int) -> None:
        self.installation = installation
        made = installation.provision(PROJECT, nodes, workloads, interval_ms)
        assert set(made) == {"project", "api_key", "nodes"}
        self.web = Door(installation.web.address, bearer=made["api_key"])
        self._unused = list(made["nodes"])
        self._open: list[Node] = []

    def made(self) -> dict[str, Any]:
        """A node as `admin provision` printed it, unknown to any other test."""
        return self._unused.pop()

    def node(self) -> Node:
        return self.keep(Node(self.web, self.made()))

    def opened(self) -> Node:
        node = self.node()
        node.open()
        return node

    def keep(self, node: Node) -> Node:
        """Its socket is closed with the others."""
        self._open.append(node)
        return node

    def close_nodes(self) -> None:
        while self._open:
            self._open.pop().close()
