"""The helper passes a strict type checker, and says so to those who use it."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import crossexplain

ROOT = Path(__file__).resolve().parents[2]


def test_the_helper_passes_mypy_strict():
    for name in ("mypy", "pandas-stubs", "types-tqdm"):
        try:
            version(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed; type `pip install '.[test]'`")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_few_lines_are_taken_out_and_each_says_why():
    lines = [line for path in (ROOT / "src" / "crossexplain").rglob("*.py") for line in path.read_text("utf-8").splitlines()
             if "type: ignore" in line]
    assert len(lines) < 15, "\n".join(lines)
    for line in lines:
        assert re.search(r"# type: ignore\[[\w-]+\] +# \w", line), f"{line.strip()!r} does not say why"


def test_the_package_says_that_it_has_types():
    assert Path(crossexplain.__file__).with_name("py.typed").is_file()
