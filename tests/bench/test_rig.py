"""The parts of the rig that figures depend on and that a wrong figure would not betray."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from bench.rig.beater_child import percentiles
from bench.rig.frames import Beats, make_frames
from bench.rig.machine import cpu_s, family_cpu_s
from bench.rig.plain_read import forget, read_through
from bench.rig.report import rounded
from engine.core.verify import FRAME_DTYPE
from tests.front.served import until

TAG_AT = FRAME_DTYPE.fields["tag_low"][1]
_BURNS = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_percentiles_of_nothing_are_nothing_and_not_zero():
    assert percentiles(np.zeros(0)) == {}
    assert percentiles(np.arange(101.0)) == {"p50": 50.0, "p99": 99.0, "p999": 99.9, "max": 100.0}


def test_a_plain_read_takes_exactly_the_bytes_asked_for(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(3_000_000))
    forget(file)
    assert read_through(file) == 3_000_000
    assert read_through(file, 1_000, 2_500_001) == 2_499_001
    assert read_through(file, 2_999_999, 5_000_000) == 1


def test_processor_time_of_a_family_holds_that_of_children_running_and_ended():
    code = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BURNS!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {_BURNS + chr(10) + 'input()'!r}], stdin=-1)\n"
        f"print('ended one', flush=True)\nsys.stdin.readline()\nchild.communicate()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as parent:
        assert parent.stdout.readline() == b"ended one\n"
        until(lambda: family_cpu_s(parent.pid) - cpu_s(parent.pid) > 0.5, "both children have worked")
        parent.communicate(b"\n")
    assert parent.returncode == 0


def test_every_row_beats_once_in_each_pass_with_a_seq_above_the_pass_before():
    beats = Beats(np.arange(50), workloads=2)
    frames, rows = beats.make(150, now_ms=1_000, no_ack=True)
    assert [sorted(rows[start : start + 50]) for start in (0, 50, 100)] == [list(range(50))] * 3
    seqs = frames.view(FRAME_DTYPE)["seq"].reshape(3, 50)
    assert (seqs[0].max() < seqs[1].min()) & (seqs[1].max() < seqs[2].min())


def test_frames_of_one_row_differ_with_seq_and_states_down_to_their_tags():
    rows = np.zeros(3, np.int64)
    seq = np.array([1, 2, 2], np.uint64)
    planes = np.array([1, 1, 0], np.uint64)
    frames = make_frames(rows, seq=seq, workloads=1, no_ack=False, plane0=planes)
    assert len({frame[TAG_AT:].tobytes() for frame in frames}) == 3


def test_figures_are_rounded_to_what_they_are_worth_and_whole_numbers_stay():
    assert rounded({"a": [1.23456, 7], "b": {"c": 123456.0, "d": 123456}}) == {
        "a": [1.235, 7],
        "b": {"c": 123500.0, "d": 123456},
    }
