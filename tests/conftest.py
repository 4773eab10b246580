"""What several test folders share: the book at small size, built once by the command that a reader types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossexplain_book import Build, find_root
from support.browsers import NO_BROWSER

ROOT = find_root(Path(__file__).parent)
SMALL = Build(ROOT, profile="embedded", size="small")


@pytest.fixture(scope="session")
def small_build() -> subprocess.CompletedProcess:
    """The finished call that built the small book; what is fresh from an earlier call is not run again."""
    command = [sys.executable, "-m", "crossexplain", "book", "--size", "small", "--jobs", "2"]
    clean = {name: value for name, value in os.environ.items() if name != "CROSSEXPLAIN_DATA"}
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def built_book(small_build) -> Path:
    """Folder of the small book's pages."""
    if small_build.returncode:
        pytest.fail(f"the small book was not built:\n{small_build.stdout}\n{small_build.stderr}", pytrace=False)
    return SMALL.html


@pytest.fixture(scope="session")
def executed_pages(small_build) -> Path:
    """Folder of the small book's executed notebooks; complete or not, the tests see what there is."""
    return SMALL.pages


def pytest_terminal_summary(terminalreporter):
    """Name, at the end, the tests that were left out because there is no browser, and say why."""
    skipped = [report for report in terminalreporter.getreports("skipped") if NO_BROWSER in str(report.longrepr)]
    if skipped:
        terminalreporter.section("left out: tests that need a browser")
        terminalreporter.write_line(str(skipped[0].longrepr[-1]).removeprefix("Skipped: "))
        for report in skipped:
            terminalreporter.write_line(f"  {report.nodeid}")
        terminalreporter.write_line(f"left out: {len(skipped)}. In continuous integration (CI set) this is an error.")
