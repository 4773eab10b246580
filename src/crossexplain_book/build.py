"""Build the book from beginning to end: run what changed, assemble the source, call jupyter-book, say where to open it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from crossexplain.files import digest, tree
from crossexplain_book.assemble import assemble, copy_results
from crossexplain_book.execute import execute
from crossexplain_book.finish import finish
from crossexplain_book.layout import Build, SiteError, chapters

# It has no __main__. Its standard input is a pipe that nobody writes to: it ends with the build that holds the other end, and
# leaves nobody who goes on writing pages beside the next build.
ENDS = "import os, sys, threading; threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()\n"
CALL = "from jupyter_book.cli.main import main; sys.exit(main())"
# Lines of prose that other pages may show: titles, labels, directives with their options, citations.
FRAME = re.compile(r"^(?:#.*|\(.*\)=|:[\w-]+:.*|[`:]{3,}.*|.*\{cite.*)$", re.MULTILINE)

WAY_BACK = re.compile(r'<a class="viewcode-back" href="([^"]*)">\[docs\]</a>')  # from source code to its API entry


def build_book(build: Build, *, names=(), jobs: int = 2, memory: float = 3.5, parameters: dict | None = None,
               again: bool = False, results: Path | None = None, say=print) -> int:
    """Make the book.

    Parameters
    ----------
    build : Build
    names : sequence of str
        Chapters to run, by default all; the others appear as they were last run, or as a note.
    jobs, memory, parameters, again
        As in :func:`crossexplain_book.execute.execute`.
    results : Path, optional
        Folder that the chapters' tables are copied to.
    say : callable
        Takes one line for the terminal.

    Returns
    -------
    int
        0 if every chapter ran and jupyter-book found nothing to complain about, else 1.
    """
    started = time.monotonic()
    all_chapters, chosen = chapters(build.root), chapters(build.root, names)
    with one_at_a_time(build.folder, say):
        say(f"Running {len(chosen)} of {len(all_chapters)} chapters ({build.profile}, {build.size}) into {build.folder}")
        failed = execute(build, chosen, parameters=parameters or {}, jobs=jobs, memory=memory, again=again, say=say)
        key = assemble(build, all_chapters, failed)
        complete = site(build, key, strict=not failed and len(chosen) == len(all_chapters), say=say)
        if results is not None:
            copy_results(build, results)
    say(f"{'Done' if complete and not failed else 'Not whole'} after {time.monotonic() - started:.0f} s.")
    if failed:
        say(f"Chapters that failed: {', '.join(failed)} (see above).")
    if (build.html / "index.html").is_file():
        say(f"Open {(build.html / 'index.html').as_uri()}")
    return 0 if complete and not failed else 1


def run_chapters(build: Build, *, names=(), say=print, **how) -> int:
    """Run chapters without building pages; return 0 if each of them ran, else 1. Arguments as in :func:`build_book`."""
    chosen = chapters(build.root, names)
    with one_at_a_time(build.folder, say):
        failed = execute(build, chosen, say=say, **how)
    say(f"Executed notebooks are in {build.pages}")
    return 1 if failed else 0


@contextmanager
def one_at_a_time(folder: Path, say):
    """Keep a second build out of the folder; wait for one that is running."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Another build works in {folder}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def site(build: Build, key: str, *, strict: bool, say=print) -> bool:
    """Build the site from the assembled source, unless nothing has changed since the last complete build.

    Where only the prose of chapters changed since then, jupyter-book goes on from that build and reads these chapters
    alone. The site is built beside the old one, which stays whole until the new one takes its place; its keys are written last.

    Returns
    -------
    bool
        Whether jupyter-book was content.
    """
    settings = digest(strict, build.root / "_config.yml", *tree(build.root / "book" / "_ext", "*.py"),
                  *tree(build.root / "src", "*.py"), *tree(build.root / "src", "*.js"), *tree(build.root / "src", "*.css"),
                  *tree(build.root / "data" / "checkpoints", "collages.*"), build.root / "requirements.lock")
    keys = {"all": digest(key, settings), "frame": digest(frame(build.source), settings)}
    stamp, work, old = build.folder / "html.key", build.folder / "work", build.folder / "html.old"
    if old.is_dir() and not build.html.exists():  # the last build was cut off as it put its pages there
        old.replace(build.html)
    last = _load_keys(stamp) if (build.html / "index.html").is_file() else {}
    if last.get("all") == keys["all"]:
        say("  pages: unchanged")
        return True
    stamp.unlink(missing_ok=True)  # else what complained once would be silent when it is built again
    goes_on = last.get("frame") == keys["frame"] and work.is_dir()
    if not goes_on:
        shutil.rmtree(work, ignore_errors=True)
    say(f"  pages: jupyter-book builds {'the chapters whose prose changed' if goes_on else 'all'}")
    command = [sys.executable, "-c", ENDS + CALL, "build", str(build.source), "--path-output", str(work),
               "--config", str(build.root / "_config.yml"), "--toc", str(build.source / "_toc.yml"), "-q", "-n",
               *(["-W", "--keep-going"] if strict else []), *([] if goes_on else ["--all"])]
    here, there = os.pipe()
    try:
        process = subprocess.run(command, cwd=build.root, stdin=here, capture_output=True, text=True, encoding="utf-8",
                                 errors="replace", check=False)
    finally:
        os.close(here)
        os.close(there)
    (build.folder / "jupyter-book.log").write_text(process.stdout + process.stderr, "utf-8")
    pages = work / "_build" / "html"
    if not (pages / "index.html").is_file():
        raise SiteError(f"jupyter-book made no pages:\n{(process.stdout + process.stderr)[-4000:]}")
    part = build.folder / "html.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(pages, part)
    _drop_dead_ways_back(part)
    add_live_parts(part)
    finish(part)
    shutil.rmtree(old, ignore_errors=True)
    if build.html.exists():
        build.html.replace(old)
    part.replace(build.html)
    shutil.rmtree(old, ignore_errors=True)
    if process.returncode:
        say(f"jupyter-book complains:\n{process.stderr[-6000:].strip() or process.stdout[-6000:].strip()}")
        return False
    stamp.write_text(json.dumps(keys))
    return True


def add_live_parts(pages: Path) -> None:
    """Put the script of the collage lab beside the pages, where one of them asks for it; it is loaded when a reader does."""
    if any('class="ce-lab"' in page.read_text("utf-8") for page in (pages / "chapters").glob("*.html")):
        from crossexplain_book import live  # slow to import

        live.write(pages)


def _drop_dead_ways_back(pages: Path) -> None:
    """Leave out links from source code to API entries that are not there, since a name is documented in one place only."""
    texts: dict[Path, str] = {}
    for page in (pages / "_modules").rglob("*.html"):

        def kept(link: re.Match, page: Path = page) -> str:
            target, _, place = link[1].partition("#")
            file = (page.parent / target).resolve()
            if file not in texts:
                texts[file] = file.read_text("utf-8") if file.is_file() else ""
            return link[0] if f'id="{place}"' in texts[file] else ""

        code = page.read_text("utf-8")
        page.write_text(WAY_BACK.sub(kept, code), "utf-8")


def _load_keys(stamp: Path) -> dict:
    try:
        return dict(json.loads(stamp.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def frame(source: Path) -> str:
    """Return a hash of everything that one page may show of another: all but the plain prose of the chapters.

    Of a chapter's text, titles, labels, directives and citations count: other pages link to them, number them, list them.
    """
    parts = []
    for path in tree(source):
        name = path.relative_to(source).as_posix()
        if re.match(r"downloads/.*\.ipynb$", name):  # only the chapter itself links to it
            continue
        parts += [name, path if not re.match(r"chapters/.*\.ipynb$", name) else _frame_of_chapter(path)]
    return digest(*parts)


def _frame_of_chapter(path: Path) -> str:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return json.dumps([FRAME.findall("".join(cell["source"])) if cell["cell_type"] == "markdown" else cell for cell in cells])
