"""Measure what the project promises, and keep each figure with everything that is needed to measure it again.

A benchmark is a file of ``benchmarks/`` with a function ``rows(seed=0, repeats=5)`` that returns dictionaries with
``id, value, low, high, n, unit``. What they have in common (seed, command, versions, device, date) is added here, and
the rows take the place of older ones with the same id in ``data/results/figures.csv``.
"""

import csv
import ctypes
import inspect
import runpy
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crossexplain.files import digest, embedded_folder, tree, write_whole
from crossexplain_book.freshness import Imports, code_key
from crossexplain_book.provenance import device, versions

COLUMNS = ("id", "value", "low", "high", "n", "unit", "seed", "command", "versions", "device", "date")
OWN = COLUMNS[:6]  # what a benchmark says itself
LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


class BenchError(Exception):
    """A benchmark does not return what a row of the table needs."""


def benchmarks(root: Path) -> dict[str, Path]:
    """Return the benchmarks of the checkout, by name."""
    return {path.stem: path for path in sorted((root / "benchmarks").glob("[!_]*.py"))}


def measure(path: Path, *, seed: int = 0, repeats: int = 5) -> list[dict]:
    """Run one benchmark and return its rows, complete.

    Parameters
    ----------
    path : Path
    seed : int
    repeats : int
        Runs that a median is taken over, or seeds, as the benchmark says.

    Raises
    ------
    BenchError
        If the file has no ``rows``, or a row lacks an entry.
    """
    module = runpy.run_path(str(path))
    if not callable(module.get("rows")):
        raise BenchError(f"{path.name} has no function rows(seed, repeats); see benchmarks/ for one that has.")
    taken = inspect.signature(module["rows"]).parameters
    given = {name: value for name, value in (("seed", seed), ("repeats", repeats)) if name in taken}
    # Only what the benchmark takes is part of the command, so that the command in the table can be typed.
    options = "".join(f" --{name} {value}" for name, value in given.items() if value != {"seed": 0, "repeats": 5}[name])
    shared = {"seed": seed, "command": f"python -m crossexplain bench {path.stem}{options}", "versions": versions(),
              "device": device(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    return [_complete({**shared, **row}, path) for row in module["rows"](**given)]


def _complete(row: dict, path: Path) -> dict:
    if missing := [key for key in OWN if key not in row]:
        raise BenchError(f"{path.name}: the row {row.get('id', '?')!r} lacks {', '.join(missing)}.")
    if unknown := [key for key in row if key not in COLUMNS]:
        raise BenchError(f"{path.name}: the row {row['id']!r} has unknown entries {', '.join(unknown)}.")
    return {key: f"{value:.6g}" if isinstance(value := row[key], float) else value for key in COLUMNS}


def load_rows(table: Path) -> dict[str, dict]:
    """Return the rows that were measured before, by id."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def code_hash(benchmark: Path, *more) -> str:
    """Return a hash for the names of partial results: of all that a benchmark is made from, and what else is given.

    That is its file, the modules that it reaches, the checkpoints and the data files of the helper.
    """
    root = embedded_folder().parent
    tables = [path for folder in (root / "src", root / "data") for path in tree(folder, "*.toml")]
    data = [*tree(root / "data" / "checkpoints"), *tables]
    return digest(code_key(Imports(root), benchmark, data), *more)[:16]


def drift(row: dict, before: dict | None) -> str:
    """Return what to say of a figure that lies outside the range it had when it was last measured; empty if it does not.

    A figure has moved if its range and the last one have nothing in common: timings on a busy machine, and seeds, may
    differ, but not all of them.

    Examples
    --------
    >>> last = {"value": "1.2", "low": "1.1", "high": "1.3", "date": "2026-01-01"}
    >>> drift({"value": 1.5, "low": 1.4, "high": 1.6}, last)
    'was 1.2 [1.1, 1.3] on 2026-01-01'
    >>> drift({"value": 1.5, "low": 1.2, "high": 1.6}, last)
    ''
    """
    try:
        low, high, last_low, last_high = (float(of[end]) for of in (row, before or {}) for end in ("low", "high"))
    except (KeyError, TypeError, ValueError):  # new, or one without a range
        return ""
    if low <= last_high and last_low <= high:
        return ""
    return f"was {before['value']} [{before['low']}, {before['high']}] on {before.get('date') or 'an unknown day'}"


def merge(rows: list[dict], table: Path) -> Path:
    """Put rows into the table, each in place of the one with its id; the table is written whole or not at all."""
    merged = load_rows(table) | {row["id"]: row for row in rows}

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(merged[key] for key in sorted(merged))

    return write_whole(table, write)


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak(call: Callable[[], object]) -> float:
    """Return how far the process's memory rises during a call, in MiB, sampled every millisecond."""
    import psutil

    process, done, highest = psutil.Process(), threading.Event(), []
    if hasattr(LIBC, "malloc_trim"):  # glibc keeps what was freed; without this a call would seem to need nothing
        LIBC.malloc_trim(0)
    rest = process.memory_info().rss

    def watch():
        while not done.wait(0.001):
            highest.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(0, max(highest, default=rest) - rest) / 2**20


def row_of(key: str, values: Sequence[float], unit: str, middle: Callable = statistics.median) -> dict:
    """Return one row: the middle of the values, their median unless told otherwise, and their range."""
    return {"id": key, "value": float(middle(values)), "low": float(min(values)), "high": float(max(values)),
            "n": len(values), "unit": unit}


def memory(key: str, calls: dict[str, Callable[[], object]]) -> list[dict]:
    """Return one row for each call: how much memory it takes above what is there before, of three runs."""
    return [row_of(f"memory.{key}.{name}", [peak(call) for _ in range(3)], "MiB above rest") for name, call in calls.items()]
