"""One running system for all tests of this folder: none of them breaks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.system import System, new_folder, running
from tests.worker.receivers import Mailbox, mail_server


@pytest.fixture(scope="session")
def mailbox() -> Mailbox:
    """What the system's mail server has taken."""
    return Mailbox()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> Iterator[System]:
    """Mail goes to `mailbox`, webhooks may go to this machine."""
    folder = new_folder(tmp_path_factory.mktemp("e2e"))
    with mail_server(mailbox) as port:
        sets = {
            "worker.webhook_allow_private": "true",
            "worker.notifier_project_delay_s": 0,
            "worker.mail.host": "127.0.0.1",
            "worker.mail.port": port,
        }
        with running(System(folder, sets=sets)) as started:
            yield started
