"""apprise, the library that knows chat and SMS services: loaded when first needed, and quiet.

Loading takes a second and 30 MB, in a thread. Which URLs it is given at all is engine/core/apprise_url.py's.
"""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from typing import Any

LOG = logging.getLogger("apprise")  # what it says may hold URLs, which are secrets
_loading = threading.Lock()
_loaded: list[Any] = []


def library() -> Any:
    """The module with all of its services loaded. Blocks: only in a thread."""
    with _loading:
        if not _loaded:
            LOG.propagate = False
            LOG.addHandler(logging.NullHandler())
            LOG.setLevel(logging.WARNING)
            apprise: Any = importlib.import_module("apprise")
            with warnings.catch_warnings():  # of modules that it still uses
                warnings.simplefilter("ignore", DeprecationWarning)
                apprise.manager_plugins.NotificationManager().load_modules()
            _loaded.append(apprise)
    return _loaded[0]


def service_of(target: str) -> Any:
    """apprise's object for a URL; None when it makes nothing of it. It connects to nothing."""
    apprise = library()
    asset = apprise.AppriseAsset(app_id="NodePulse", app_desc="NodePulse", storage_mode="memory")
    return apprise.Apprise.instantiate(target, asset=asset)
