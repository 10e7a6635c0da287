"""What tests of the node share: one pretended API server for all of them, emptied after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import node.drivers.kubernetes as driver_module
import node.drivers.kubernetes_api as api_module
from tests.node.kube_api.double import KubeApiDouble


@pytest.fixture(scope="session")
def kube_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiDouble]:
    double = KubeApiDouble(tmp_path_factory.mktemp("kube"))
    double.start()
    yield double
    double.close()


@pytest.fixture
def double(kube_server: KubeApiDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApiDouble]:
    """Nothing runs in it; a driver looks many times as often as it does otherwise."""
    for name in ("LOOK_S", "LOOK_SOON_S", "GONE_LOOK_S"):
        monkeypatch.setattr(driver_module, name, 0.1)
    monkeypatch.setattr(api_module, "TRY_AGAIN_S_MIN", 0.05)
    yield kube_server
    kube_server.reset()
