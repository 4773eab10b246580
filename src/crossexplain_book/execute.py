"""Execute notebooks: several at a time, each in processes of its own; nothing is done twice, and nothing is left half done."""

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import psutil

from crossexplain.files import digest
from crossexplain_book.freshness import OPENED, Imports, chapter_key, code_cells, file_states
from crossexplain_book.layout import BookError, Build, chapters
from crossexplain_book.page import RUN
from crossexplain_book.provenance import machine
from crossexplain_book.records import ChapterRecord, is_fresh, save_record, source_state

GIB = 2**30
# A thread of OpenMP that has nothing to do keeps its core busy while it waits. Where more threads run than there are cores,
# it takes the core from the very thread that it waits for: two convolutional networks, trained side by side with two
# threads each on two cores, took 5.6 times as long as with one thread each, and 3 times the processor time. With threads
# that sleep instead, it was 1.0 times both.
WAITING = {"OMP_WAIT_POLICY": "passive"}
LOOK_EVERY = 12  # times as long as it took to measure the memory, which of 6 GiB takes 0.07 s of a core
REPORT_EVERY = 15  # seconds between two lines about a chapter where the terminal cannot redraw one
SETS = re.compile(r"^([A-Za-z_]\w*)\s*(?::[^=\n]*)?=(?!=)", re.MULTILINE)
SAID = defaultdict(lambda: {"nothing of the kind"}, cell={"index", "total", "id"}, failed={"error", "source", "traceback"})
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Chapter:
    """One chapter being executed by a worker process."""

    def __init__(self, build: Build, notebook: Path, key: str, parameters: dict, threads: int, jobs: int):
        self.build, self.notebook, self.name = build, notebook, notebook.stem
        self.record = ChapterRecord(self.name, key, parameters, threads=threads, jobs=jobs, machine=machine())
        self.part = build.pages / f"{self.name}.part.ipynb"
        self.looked_for = build.pages / f"{self.name}.sources"  # names, one a line, written by the store
        self.opened = build.pages / f"{self.name}.opened"  # files of the checkout, written by the kernel
        for note in (self.looked_for, self.opened):
            note.unlink(missing_ok=True)
        self.cell, self.total, self.cell_id, self.failure = 0, 0, "", None
        self.started = self.told = self.next_look = time.monotonic()
        self.events: queue.Queue = queue.Queue()
        command = [sys.executable, "-m", "crossexplain_book.worker", str(notebook), str(self.part), json.dumps(parameters)]
        self.errors = (build.pages / f"{self.name}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(command, cwd=build.root, env=self._environment(), text=True, encoding="utf-8",
                                        errors="replace", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        threading.Thread(target=self._read, daemon=True).start()

    def _environment(self) -> dict:
        threads = str(self.record.threads)
        # glibc gives the memory of every large tensor back and asks for it anew, which takes much of a chapter's time.
        keeps = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
        return {**keeps, **WAITING, **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "MALLOC_ARENA_MAX": "2",  # else each thread keeps memory of its own that nobody gets back
                **{name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
                "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8", "JUPYTER_PREFER_ENV_PATH": "1",
                "IPYTHONDIR": str(self.build.folder / "ipython"), "CROSSEXPLAIN_RESULTS": str(self.build.results),
                "CROSSEXPLAIN_LOOKED_FOR": str(self.looked_for), OPENED: str(self.opened)}

    def _read(self) -> None:
        for line in self.process.stdout:
            with suppress(ValueError, TypeError):  # something else in the process printed: not ours to interpret
                event = json.loads(line)
                if isinstance(event, dict) and event.keys() >= SAID[event.get("event")]:
                    self.events.put(event)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def poll(self, bound: float) -> bool:
        """Read the worker's messages, measure its memory, stop it above ``bound`` GiB; return whether it has ended."""
        ended = self.process.poll() is not None
        self._take_in()
        if not ended and (began := time.monotonic()) >= self.next_look:
            memory = memory_of(self.process.pid)
            self.next_look = began + LOOK_EVERY * (time.monotonic() - began)
            self.record.memory = max(self.record.memory, memory)
            if memory > bound:
                self.stop()
                self._fail(f"MemoryError: the chapter used {memory:.1f} GiB, its bound is {bound:.1f} GiB; "
                           f"free what the cell no longer needs, or pass --memory {memory * 1.3:.0f}.")
                ended = True
        return ended

    def _take_in(self) -> None:
        while not self.events.empty():
            event = self.events.get()
            if event["event"] == "cell":
                self.cell, self.total, self.cell_id = event["index"], event["total"], event["id"]
            elif event["event"] == "failed":
                self._fail(event["error"], event["source"], event["traceback"])

    def _fail(self, error: str, source: str = "", traceback: str = "") -> None:
        self.failure = self.failure or {"error": error, "source": source, "traceback": traceback}

    def finish(self) -> bool:
        """Keep what the worker made: page and record, or the partial notebook; return whether the chapter is complete."""
        self.process.wait()
        time.sleep(0.05)  # the reader may hold a last line
        self._take_in()
        self.record.seconds = round(self.elapsed, 1)
        if self.failure is None and self.process.returncode:
            self.errors.seek(0)
            self._fail(f"the worker ended with code {self.process.returncode}: {self.errors.read()[-2000:].strip()}")
        if self.failure is None and not self.part.is_file():
            self._fail("the worker ended without a page; run the chapter again")
        self.errors.close()
        if self.failure is not None:
            for note in (self.looked_for, self.opened):
                note.unlink(missing_ok=True)
            self.partial = self.part.replace(self.build.pages / f"{self.name}.failed.ipynb") if self.part.exists() else None
            return False
        self._keep()
        return True

    def _keep(self) -> None:
        page = self.part.replace(self.build.pages / f"{self.name}.ipynb")
        names = set(sources_of(json.loads(page.read_text("utf-8"))))
        if self.looked_for.is_file():  # among them what was not found, and so is on no page
            names |= set(self.looked_for.read_text("utf-8").split())
        opened = self.opened.read_text("utf-8").splitlines() if self.opened.is_file() else []
        for stale in (self.build.pages / f"{self.name}.failed.ipynb", self.build.pages / f"{self.name}.log", self.looked_for,
                      self.opened):
            stale.unlink(missing_ok=True)
        self.record.sources = {name: source_state(name) for name in sorted(names)}
        self.record.files = file_states(self.build.root, opened)
        self.record.notebook_hash = digest(page)
        self.record.finished = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        save_record(self.build, self.record)

    def stop(self) -> None:
        """End the worker and everything it started."""
        try:
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                pass
        self.process.wait()

    def say_failure(self) -> str:
        """Return the message for a chapter that failed: which cell, its code, the traceback, the partial notebook."""
        failure = self.failure
        place = f"in cell {self.cell} of {self.total} (id {self.cell_id!r})" if self.cell else "before its first cell"
        lines = [f"{self.name} failed {place} after {self.elapsed:.0f} s: "
                 f"{COLOURS.sub('', failure['error'])}"]
        if failure["source"]:
            lines += ["  the cell:", *("    " + line for line in failure["source"].splitlines())]
        if failure["traceback"]:
            lines += ["  traceback:", *("    " + line for line in COLOURS.sub("", failure["traceback"]).splitlines())]
        return "\n".join([*lines, f"  partial notebook: {self.partial or 'none'}"])


def memory_of(pid: int) -> float:
    """Return the memory of a process and all its children, in GiB.

    Pages that several of them share count once where the system says so: a child shares all of its parent's until it starts
    a program of its own, and would double the number for that moment.
    """
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                shared = process.memory_full_info()
                total += getattr(shared, "pss", shared.uss)
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return 0.0
    return total / GIB


def sources_of(notebook: dict) -> list[str]:
    """Return the names of the sources that an executed notebook says it used."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return sorted({name for output in outputs for name in output.get("data", {}).get(RUN, {}).get("sources", {})})


def jobs_that_fit(jobs: int, bound: float) -> int:
    """Return how many chapters may run at once if each of them may need as much memory as its bound allows."""
    free = psutil.virtual_memory().available / GIB
    return max(1, min(jobs, int(free // bound)))


def execute(build: Build, notebooks: list[Path], *, parameters: dict, jobs: int = 2, memory: float = 3.5,
            again: bool = False, say=print) -> list[str]:
    """Execute the chapters that are not fresh.

    Parameters
    ----------
    build : Build
    notebooks : list of Path
    parameters : dict
        For papermill, beside profile and size.
    jobs : int
        Chapters at a time; the cores are shared out among them.
    memory : float
        Bound for one chapter, in GiB.
    again : bool
        Run also what is fresh.
    say : callable
        Takes one line for the terminal.

    Returns
    -------
    list of str
        Names of the chapters that failed.

    Raises
    ------
    BookError
        For a parameter that none of the chapters has.
    """
    build.pages.mkdir(parents=True, exist_ok=True)
    build.results.mkdir(parents=True, exist_ok=True)
    require_parameters(notebooks, parameters)
    parameters = {"profile": build.profile, "size": build.size, **parameters}
    keys = keys_of(build, notebooks, parameters)
    waiting = [path for path in notebooks if again or not is_fresh(build, path.stem, keys[path.stem])]
    for path in notebooks:
        if path not in waiting:
            say(f"  {path.stem}: unchanged")
    jobs = jobs_that_fit(min(jobs, max(1, len(waiting))), memory)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that it may use
    threads = max(1, cores // jobs)
    waiting = in_order(waiting, jobs)
    running, failed, screen = [], [], Screen(say)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path = waiting.pop(0)
                say(f"  {path.stem}: started")
                running.append(Chapter(build, path, keys[path.stem], parameters, threads, jobs))
            time.sleep(0.3)
            for chapter in [chapter for chapter in running if chapter.poll(memory)]:
                running.remove(chapter)
                if not _ended(chapter, screen):
                    failed.append(chapter.name)
            screen.show(running)
    finally:
        for chapter in running:  # only on the way out of an interruption
            chapter.stop()
    return failed


def in_order(notebooks: list[Path], jobs: int) -> list[Path]:
    """Return the order in which chapters start: that of the book, or the longest first where several run side by side.

    It tends to run longest, and should not be left to run alone at the end.
    """
    return sorted(notebooks, key=lambda path: -path.stat().st_size) if jobs > 1 else notebooks


def keys_of(build: Build, notebooks: list[Path], parameters: dict) -> dict[str, str]:
    """Return the key of each chapter (:func:`crossexplain_book.freshness.chapter_key`), by its name."""
    imports = Imports(build.root)
    return {path.stem: chapter_key(imports, path, parameters) for path in notebooks}


def stale(build: Build) -> list[str]:
    """Return the chapters that :func:`execute` would run, without parameters of one's own."""
    keys = keys_of(build, chapters(build.root), {"profile": build.profile, "size": build.size})
    return [name for name, key in keys.items() if not is_fresh(build, name, key)]


def _ended(chapter: Chapter, screen) -> bool:
    complete = chapter.finish()
    if complete:
        screen.line(f"  {chapter.name}: done in {chapter.elapsed:.0f} s, peak memory {chapter.record.memory:.2f} GiB")
    else:
        screen.line("\n" + chapter.say_failure() + "\n")
    return complete


class Screen:
    """Progress of the running chapters: one line redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, say):
        self.say, self.live, self.width = say, sys.stdout.isatty(), 0

    def line(self, text: str) -> None:
        """Write a line that stays."""
        if self.width:
            print("\r" + " " * self.width + "\r", end="")
            self.width = 0
        self.say(text)

    def show(self, running: list[Chapter]) -> None:
        """Show where each running chapter is."""
        if self.live:
            text = "   ".join(self._where(chapter) for chapter in running)[:118]
            print("\r" + text.ljust(self.width), end="", flush=True)
            self.width = len(text)
            return
        for chapter in running:
            if time.monotonic() - chapter.told >= REPORT_EVERY:
                chapter.told = time.monotonic()
                self.say("  " + self._where(chapter))

    @staticmethod
    def _where(chapter: Chapter) -> str:
        return (f"{chapter.name}: cell {chapter.cell} of {chapter.total or '?'}, {chapter.elapsed:.0f} s, "
                f"{chapter.record.memory:.1f} GiB")


def parameters_of(notebook: Path) -> list[str]:
    """Return the names that a notebook sets in its cell tagged ``parameters``; none where it is no notebook."""
    return [name for cell in code_cells(notebook) if "parameters" in cell.get("metadata", {}).get("tags", [])
            for name in SETS.findall(cell["source"])]


def require_parameters(notebooks: list[Path], parameters: dict) -> None:
    """Refuse a parameter that no chapter has: papermill would take it and change nothing."""
    names = dict.fromkeys(name for path in notebooks for name in parameters_of(path))
    unknown = [name for name in parameters if name not in names]
    if unknown and names:
        near = get_close_matches(unknown[0], names, n=1)
        raise BookError(f"there is no parameter {unknown[0]!r}{f' (is it {near[0]!r}?)' if near else ''}; the chapters have "
                        f"{', '.join(names)}.")


def parse_parameters(words) -> dict:
    """Turn ``name=value`` words into parameters; values are read as JSON where they are JSON.

    Examples
    --------
    >>> parse_parameters(["seed=1", "retrain=true", "name=x"])
    {'seed': 1, 'retrain': True, 'name': 'x'}
    """
    parameters = {}
    for word in words or ():
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier():
            raise BookError(f"got the parameter {word!r}, expected name=value, for example seed=1.")
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    return parameters
