"""The tests of the pages on a machine without a browser."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST = "tests/pages/test_lab.py::test_it_follows_at_once"


@pytest.mark.parametrize(("ci", "code"), [({}, 0), ({"CI": "true"}, 1)], ids=["a reader's machine", "CI"])
def test_what_was_left_out_is_named_at_the_end_and_is_an_error_in_ci(tmp_path, ci, code):
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "CROSSEXPLAIN_BROWSER")}
    environment = {"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path), "CROSSEXPLAIN_DOWNLOAD": "0"}
    process = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TEST], cwd=ROOT,
                             env={**clean, **environment, **ci}, capture_output=True, text=True, check=False)
    assert process.returncode == code, process.stdout
    if ci:
        assert "no Chromium was found" in process.stdout and "left out: tests" not in process.stdout
    else:
        end = process.stdout.split("left out: tests that need a browser")[1]
        assert TEST in end and "apt-get install chromium" in end and "left out: 1." in end
