"""What several test folders share: the book that they read, made by the command that a reader types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossexplain_book import Build, find_root
from crossexplain_book.execute import WAITING, stale
from support.browsers import NO_BROWSER

ROOT = find_root(Path(__file__).parent)
SIZE = "CROSSEXPLAIN_TEST_SIZE"  # environment variable: small asks for the small book also where the full one is fresh
BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # processes that test side by side
# Files whose tests read the book: one process after the other would wait for it.
BOOK = ("chapters/test_executed.py", "pages/test_browser.py", "pages/test_links.py", "crossexplain_book/test_kit_chapter.py")
# The files that take longest are begun first, so that no process is left to run one alone at the end.
SLOW = ("chapters/test_full_profile.py", *BOOK, "pages/test_lab.py", "pages/test_collage_lab.py",
        "crossexplain_book/test_book.py", "crossexplain/test_scenes_recipe.py", "crossexplain/test_methods.py",
        "crossexplain_book/test_explorers.py")

# Before torch is loaded: each process gets its share of the cores, and its threads sleep while they wait.
os.environ |= {**WAITING, **os.environ}
if BESIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // BESIDE)))


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    place = {f"tests/{name}": number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(SLOW)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process, since they share what they load, and so all tests that read the book.

    The option ``--dist loadgroup`` of pytest-xdist 3.8 would say the same, but does nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "book" if file.endswith(BOOK) else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests of a process, which allows no second; without one a test is left out, in CI it fails."""
    from playwright.sync_api import sync_playwright

    from support.browsers import NoBrowser, start

    with sync_playwright() as playwright:
        try:
            running = start(playwright)
        except NoBrowser as error:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
        yield running
        running.close()


@pytest.fixture(scope="session")
def book() -> Build:
    """The build that the tests read: what ``make book`` left where it is fresh, else the small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CROSSEXPLAIN_DATA", raising=False)
        return Build(ROOT) if os.environ.get(SIZE) != "small" and not stale(Build(ROOT)) else Build(ROOT, size="small")


@pytest.fixture(scope="session")
def book_call(book) -> subprocess.CompletedProcess:
    """The finished call that made the book; what is fresh from an earlier call is not run again."""
    command = [sys.executable, "-m", "crossexplain", "book", "--size", book.size, "--jobs", "2"]
    clean = {name: value for name, value in os.environ.items() if name not in ("CROSSEXPLAIN_DATA", "OMP_NUM_THREADS")}
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def html(book, book_call) -> Path:
    """Folder of the finished pages."""
    if book_call.returncode:
        pytest.fail(f"the book was not built:\n{book_call.stdout}\n{book_call.stderr}", pytrace=False)
    return book.html


def pytest_terminal_summary(terminalreporter):
    """Name, at the end, the tests that were left out because there is no browser, and say why."""
    skipped = [report for report in terminalreporter.getreports("skipped") if NO_BROWSER in str(report.longrepr)]
    if skipped:
        terminalreporter.section("left out: tests that need a browser")
        terminalreporter.write_line(str(skipped[0].longrepr[-1]).removeprefix("Skipped: "))
        for report in skipped:
            terminalreporter.write_line(f"  {report.nodeid}")
        terminalreporter.write_line(f"left out: {len(skipped)}. In continuous integration (CI set) this is an error.")
