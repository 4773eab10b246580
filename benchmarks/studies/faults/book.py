"""The build of the book cut off, and workers that misbehave: a small book of one chapter, with a stand-in for jupyter-book.

A book of two pages is built by jupyter-book itself, edition after edition.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.studies.faults import FOREIGN, LOST, RIGHT, SILENT, TOLD, Fault, Outcome, asked
from benchmarks.studies.faults.jobs import CUTS, Child, Job, again, killed
from crossexplain.files import digest, tree
from crossexplain_book import build as building
from crossexplain_book.execute import execute
from crossexplain_book.layout import BookError, Build, chapters
from crossexplain_book.records import load_record

CHAPTER_KILLS, BOOK_KILLS = 3, 12  # each takes a kernel's start, or two builds of a book
# Writes twenty pages, a little slowly, where jupyter-book would; what it writes says with which source.
STAND_IN = """import sys, time, pathlib
out = pathlib.Path(sys.argv[sys.argv.index("--path-output") + 1]) / "_build/html"
out.mkdir(parents=True, exist_ok=True)
for number in range(20):
    page = out / ("index.html" if number == 19 else f"{number}.html")
    page.write_text(f"<html><head></head><body>{number} {pathlib.Path(sys.argv[2], 'intro.md').read_text()}</body></html>")
    time.sleep(0.005)
"""
GARBAGE = b'\xff\xfe\x00 3\n3\n[]\nnull\n{"event": 1}\n{"event": "cell"}\n{"event": "failed"}\n{"a": "b"}\n"x"\n'
WORKERS = {  # what stands in for the worker of a chapter, and what it does
    "prints garbage and ends well": f"import sys; sys.stdout.buffer.write({GARBAGE!r})",
    "prints garbage without an end of line, and fails": "import sys; sys.stdout.buffer.write(b'x' * 100_000); sys.exit(3)",
    "dies at once": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "prints nothing": "",
}


def _checkout(folder: Path) -> Build:
    """Write a book of one chapter, as far as it is not there."""
    cells = [{"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": 'profile = size = ""\nsize = ""'},
             {"cell_type": "code", "id": "b", "metadata": {}, "source": "print(sum(range(10)))"}]
    cells = [cell | {"outputs": [], "execution_count": None} for cell in cells]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "cells": cells,
                "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}}
    texts = {"_config.yml": "", "pyproject.toml": "", "requirements.lock": "", "src/crossexplain/__init__.py": "",
             "notebooks/01_a.ipynb": json.dumps(notebook)}
    for name, text in texts.items():
        if not (path := folder / name).is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return Build(folder, size="small")


def _quiet(*_: object) -> None:
    """Say nothing."""


def _chapter(folder: Path) -> str:
    build = _checkout(folder)
    with building.one_at_a_time(build.folder, _quiet):
        if failed := execute(build, chapters(build.root), parameters={}, jobs=1, say=_quiet):
            raise BookError(f"{failed[0]} failed")
    load_record(build, "01_a")
    cells = json.loads((build.pages / "01_a.ipynb").read_text("utf-8"))["cells"]
    return json.dumps([output.get("text") for cell in cells for output in cell.get("outputs", [])])


def _pages(folder: Path) -> str:
    build = _checkout(folder)
    build.source.mkdir(parents=True, exist_ok=True)
    (build.source / "intro.md").write_text("# Intro")
    with building.one_at_a_time(build.folder, _quiet), patch.object(building, "CALL", STAND_IN):
        building.site(build, "key", strict=False, say=_quiet)
    return _published(build)


def _published(build: Build) -> str:
    """Return a hash of the pages that stand."""
    return digest(*(part for path in tree(build.html) for part in (path.name, path)))


def _edition(number: int, folder: Path, how: str = building.CALL) -> str:
    """Build an edition of a book of two pages, which differ in every edition, and return what is then published."""
    build = _checkout(folder)
    build.source.mkdir(parents=True, exist_ok=True)
    (folder / "_config.yml").write_text("title: A small book\nexecute: {execute_notebooks: 'off'}\n")
    for name, text in {"_toc.yml": "format: jb-book\nroot: intro\nchapters:\n- file: second\n",
                       "intro.md": f"# Intro\n\nEdition {number}, see [](second).\n",
                       "second.md": f"# Second {number}\n\nOf edition {number}.\n"}.items():
        (build.source / name).write_text(text)
    with building.one_at_a_time(build.folder, _quiet), patch.object(building, "CALL", how):
        if not building.site(build, str(number), strict=True, say=_quiet):
            raise BookError(f"jupyter-book complains about edition {number}")
    return _published(build)


def _editions(kills: int, folder: Path) -> Outcome:
    """Kill the build of edition after edition: what stands is whole, of the last edition or of the new one."""
    build, dice = _checkout(folder / "book"), random.Random(0)
    last, started = again(partial(_edition, 0, build.root)), time.perf_counter()
    again(partial(_edition, 1, folder / "timed"))
    whole = time.perf_counter() - started
    for number in range(1, kills + 1):
        child = Child(partial(_edition, number, build.root))
        time.sleep(dice.uniform(0, whole))
        child.stop()
        child.ended()
        left, new = _published(build), again(partial(_edition, number, build.root))
        if left not in (last, new):
            return Outcome(LOST, f"edition {number}: neither the last pages nor the new ones stand")
        last = new
    fresh = asked(lambda: again(partial(_edition, kills, folder / "fresh")), last, ())
    return Outcome(RIGHT, f"{kills} kills") if fresh.kind == RIGHT else fresh


def _between(folder: Path) -> Outcome:
    """Kill a build after the old pages were put aside, before the new ones stand there; the next one makes no pages at all."""
    last = again(partial(_edition, 0, folder, STAND_IN))
    if (found := Child(partial(_dying, folder)).ended()) is not None:
        return Outcome(SILENT, f"was not killed: {found}")
    failed = asked(lambda: again(partial(_edition, 2, folder, "")), None, (BookError,))
    return failed if _published(_checkout(folder)) == last else Outcome(LOST, "the old pages are gone")


def _dying(folder: Path) -> None:
    """Build an edition and die where the new pages would take their place."""
    move = Path.replace

    def moved(path: Path, target: Path) -> Path:
        if path.name == "html.part":
            os.kill(os.getpid(), signal.SIGKILL)
        return move(path, target)

    with patch.object(Path, "replace", moved):
        _edition(1, folder, STAND_IN)


CHAPTER = Job("running a chapter", _chapter, (BookError, OSError))
PAGES = Job("building the pages", _pages, (BookError, OSError))


def faults() -> Iterator[Fault]:
    """Give the chapter and the pages, cut off; and workers that do what they should not."""
    for job, kills in ((CHAPTER, CHAPTER_KILLS), (PAGES, 20)):
        yield Fault(job.name, f"killed {kills} times at random moments", "the same call goes on, with the same result",
                    partial(killed, job, kills=kills), slow=True)
        for what in ("interrupted (SIGINT)", "ended (SIGTERM)", "a file in place of its folder"):
            yield Fault(job.name, what, "told, nothing lost, and the same call goes on", partial(CUTS[what], job), slow=True)
    yield Fault("a book of two pages", f"killed {BOOK_KILLS} times at random moments, built by jupyter-book",
                "the old pages or the new ones stand, whole", partial(_editions, BOOK_KILLS), slow=True)
    yield Fault("a book of two pages", "killed as the new pages take the place of the old, and then jupyter-book fails",
                "told, and the old pages stand", _between)
    for what, code in WORKERS.items():
        yield Fault("worker of a chapter", what, "the chapter failed, and is told", partial(_worker, code))


def _worker(code: str, folder: Path) -> Outcome:
    build, start = _checkout(folder), subprocess.Popen

    def stands_in(command: list[str], **options: object) -> subprocess.Popen:
        return start([sys.executable, "-c", code], **options)

    lines: list[str] = []
    with patch.object(subprocess, "Popen", stands_in):
        found = asked(lambda: execute(build, chapters(folder), parameters={}, jobs=1, say=lines.append), ["01_a"], ())
    if found.kind != RIGHT:
        return found if found.kind == FOREIGN else Outcome(SILENT, "the chapter counts as done")
    return Outcome(TOLD, next(line for line in lines if "01_a failed" in line).strip())
