"""The build of the book cut off, and workers that misbehave: a small book of one chapter, with a stand-in for jupyter-book."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.studies.faults import FOREIGN, RIGHT, SILENT, TOLD, Fault, Outcome, asked
from benchmarks.studies.faults.jobs import CUTS, Job, killed
from crossexplain.files import digest, tree
from crossexplain_book import build as building
from crossexplain_book.execute import execute
from crossexplain_book.layout import BookError, Build, chapters
from crossexplain_book.records import load_record

CHAPTER_KILLS = 3  # each takes a kernel's start
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
    return digest(*(part for path in tree(build.html) for part in (path.name, path)))


CHAPTER = Job("running a chapter", _chapter, (BookError, OSError))
PAGES = Job("building the pages", _pages, (BookError, OSError))


def faults() -> Iterator[Fault]:
    """Give the chapter and the pages, cut off; and workers that do what they should not."""
    for job, kills in ((CHAPTER, CHAPTER_KILLS), (PAGES, 20)):
        yield Fault(job.name, f"killed {kills} times at random moments", "the same call goes on, with the same result",
                    partial(killed, job, kills=kills), slow=True)
        for what in ("interrupted (SIGINT)", "ended (SIGTERM)", "a file in place of its folder"):
            yield Fault(job.name, what, "told, nothing lost, and the same call goes on", partial(CUTS[what], job), slow=True)
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
