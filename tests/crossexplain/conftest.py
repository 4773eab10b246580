"""What several unit tests share."""

import ctypes
import os
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def small_disk():
    """A disk of 1 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as folder:
        if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=1m"):
            pytest.skip(f"this machine mounts no tmpfs: {os.strerror(ctypes.get_errno())}")
        yield Path(folder)
        libc.umount2(os.fsencode(folder), 2)
