"""Starting the manager: configuration, the lock on its folder, its driver, signals, and what takes its place.

SIGTERM and SIGINT: an orderly stop. SIGHUP: begin anew with the same command and a newly read configuration,
the workloads running on. Exit codes: 0 stopped, 1 failed, 2 the configuration is wrong, 3 another one runs.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from node.config import ENVIRONMENT, ConfigError, NodeConfig, load, must_be_complete
from node.drivers.kubernetes import KubernetesDriver
from node.drivers.kubernetes_access import find_access
from node.drivers.port import Driver, DriverError
from node.drivers.process import ProcessDriver
from node.manager.beside import keep_log_short, tell_systemd
from node.manager.manager import Manager
from node.post import trusting
from node.version import VERSION

log = logging.getLogger(__name__)
# No workload's business: keys, and the service manager's ear.
SECRETS = (*ENVIRONMENT, "NODEPULSE_NODE_CONFIG", "NODEPULSE_API_KEY", "NOTIFY_SOCKET")
LOCK = "manager.lock"  # held by the one manager that may use a data folder
Tasks = Sequence[Callable[[Manager], Awaitable[None]]]


def run_manager(
    path: Path, *, tasks: Tasks = (), command: Sequence[str] = (), version: str = f"nodepulse/{VERSION}"
) -> int:
    """Run until a signal; the exit code. command: what SIGHUP begins anew; default: this process's own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        config = load(path)
        must_be_complete(config)
        tls = _trusting(config)
    except ConfigError as error:
        log.error("%s", error)
        return 2
    try:
        config.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (config.data_path / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.error("another manager runs in %s", config.data_path)
        return 3
    except OSError as error:
        log.error("%s", error)
        return 1
    again = list(command) or [sys.executable, *sys.orig_argv[1:]]
    try:
        successor = trio.run(_run, config, tls, tasks, again, version)
    except (OSError, DriverError, ConfigError, ExceptionGroup) as error:
        if not _is_operational(error):
            raise
        log.error("%s", _told(error))
        return 1
    if successor:
        log.info("hands over to %s", " ".join(successor))
        os.execv(successor[0], list(successor))  # the lock goes with us, and is taken anew
    return 0


def _is_operational(error: BaseException) -> bool:
    """Whether nothing in it is a bug of ours, which shows its traceback."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_operational(inner) for inner in error.exceptions)
    return isinstance(error, (OSError, DriverError, ConfigError))


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(inner) for inner in error.exceptions)
    return str(error)


def make_driver(config: NodeConfig) -> Driver:
    """The driver that the configuration names. ConfigError."""
    if config.driver == "process":
        return ProcessDriver(
            config.data_path,
            environment=environment_of_workloads(config),
            log_bytes_max=config.log_bytes_max,
            log_files=config.log_files,
        )
    if config.driver == "kubernetes":
        return KubernetesDriver(
            config.data_path,
            find_access(config.driver_options, os.environ),
            node_id=config.node_id,
            report_url=config.driver_options.get("report_url", ""),
            machine=config.driver_options.get("machine", ""),
        )
    raise ConfigError(f"driver: {config.driver} is not there")


def environment_of_workloads(config: NodeConfig) -> dict[str, str]:
    """Our own without secrets, and where to report."""
    own = {name: text for name, text in os.environ.items() if name not in SECRETS}
    own["NODEPULSE_SOCKET"] = str(config.socket_path)
    if config.health_port:
        host = f"[{config.health_host}]" if ":" in config.health_host else config.health_host
        own["NODEPULSE_URL"] = f"http://{host}:{config.health_port}"
    return own


def _trusting(config: NodeConfig) -> ssl.SSLContext | None:
    try:
        return trusting(config.tls_ca_file)
    except OSError as error:
        raise ConfigError(f"tls_ca_file: {error}") from error


async def _run(
    config: NodeConfig, tls: ssl.SSLContext | None, tasks: Tasks, again: Sequence[str], version: str
) -> Sequence[str] | None:
    manager = Manager(
        config,
        make_driver(config),
        version=version,
        environment=environment_of_workloads(config),
        tls=tls,
        tasks=(*tasks, tell_systemd, keep_log_short),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(_heed_signals, manager, again)
        successor = await manager.run()
        nursery.cancel_scope.cancel()
    return successor


async def _heed_signals(
    manager: Manager, again: Sequence[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                manager.hand_over(again)
            else:
                manager.stop()
