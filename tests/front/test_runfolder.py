"""The run folder: one serve at a time, the configuration in effect, and who may read them."""

from __future__ import annotations

import fcntl
import os
import threading
import time

import pytest

from nodepulse.config import load_config
from nodepulse.runfolder import (
    InUseError,
    NotServingError,
    effective_of,
    hold_lock,
    is_served,
    prepare,
    read_effective,
    write_effective,
)


def test_only_one_may_hold_the_folder_and_the_other_is_told_which(tmp_path):
    run = prepare(tmp_path)
    with hold_lock(run), pytest.raises(InUseError, match=f"process {os.getpid()}"), hold_lock(run):
        pass
    with hold_lock(run):
        pass


def test_whether_it_is_served_can_be_asked_without_disturbing_anybody(tmp_path):
    assert not is_served(tmp_path)
    run = prepare(tmp_path)
    assert not is_served(tmp_path)
    with hold_lock(run):
        assert is_served(tmp_path)
    assert not is_served(tmp_path)


def test_somebody_who_only_looks_keeps_no_serve_from_starting(tmp_path):
    run = prepare(tmp_path)
    with hold_lock(run):
        pass
    looking = os.open(run / "serve.lock", os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)
    blink = threading.Timer(0.03, os.close, [looking])
    blink.start()
    with hold_lock(run):
        assert is_served(tmp_path)
    blink.join()


def test_the_configuration_in_effect_is_read_as_it_was_written_and_only_by_its_owner(tmp_path):
    run = prepare(tmp_path / "data")
    config = load_config(file=None, environ={}, sets=["database.url=postgresql://u:secret@h/d"])
    path = write_effective(run, config)
    assert read_effective(path) == config
    assert path.stat().st_mode & 0o777 == 0o600
    assert run.stat().st_mode & 0o777 == 0o700


def test_a_configuration_that_a_killed_serve_left_is_not_in_effect(tmp_path):
    run = prepare(tmp_path)
    write_effective(run, load_config(file=None, environ={}))
    with pytest.raises(NotServingError, match="nothing serves"):
        effective_of(tmp_path)
    began = time.monotonic()
    with hold_lock(run):
        effective_of(tmp_path)
    assert time.monotonic() - began < 5
