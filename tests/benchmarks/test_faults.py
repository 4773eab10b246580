"""Faults made on purpose: the result is right, or told in the package's own words; nothing is lost. The rest by the command."""

from pathlib import Path

import pytest
import torch

from benchmarks import faults
from benchmarks.studies.faults import RIGHT, TOLD, Outcome, asked, jobs

QUICK = ("a full disk", "two at once", "a file in place of its folder", "2 GiB of memory, one example takes more",
         "2 GiB of memory, an input takes more")
FAULTS = [fault for fault in faults.listed() if not fault.slow and (fault.room not in {job.name for job in jobs.JOBS}
                                                                  or fault.what in QUICK)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_told_or_changes_nothing(fault):
    if fault.what in faults.DISKS and not jobs.can_mount():
        pytest.skip("no leave to mount a small disk")
    row = faults.tried(fault)
    assert row["outcome"] in (RIGHT, TOLD), row
    assert "None" not in row["words"], row


def test_a_killed_training_goes_on(tmp_path):
    assert jobs.killed(jobs.TRAIN, tmp_path, kills=3).kind == RIGHT


def test_what_is_silent_or_foreign_is_seen():
    assert asked(lambda: 1, 2, (OSError,)).kind == "silent"
    assert asked(lambda: {}["a"], 2, (OSError,)).kind == "foreign"
    assert asked(lambda: open("no/file"), 2, (OSError,)) == Outcome(TOLD, "[Errno 2] No such file or directory: 'no/file'")


def test_a_job_that_does_not_come_back_to_the_same_result_counts_as_lost(tmp_path):
    assert jobs.killed(jobs.Job("another folder, another answer", Path.stat, ()), tmp_path, kills=1).kind == "lost"
