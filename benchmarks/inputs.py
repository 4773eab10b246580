"""Odd inputs, drawn at random, for whatever reads one: loaders, every option of every command, public functions.

Right is a result, or an error that is documented; all else is counted: an error of another library, a file of before that is
no longer what it was, a file that is left half-written. What builds, trains or fetches is not begun.
"""

import csv
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.studies.inputs import FAULTS, REFUSED, RESULT, Room, calls, counted, files, lines
from crossexplain.files import write_whole
from crossexplain_book.bench import row_of

TABLE = Path(__file__).parent.parent / "data/results/inputs.csv"
COLUMNS = ("room", "fault", "expected", "outcome", "words")
INPUTS = 10_000
KINDS = {"Loaders": files, "The command line": lines, "Public functions": calls}


def listed() -> Iterator[tuple[str, Room]]:
    """Give all rooms with their kind."""
    for kind, module in KINDS.items():
        for room in module.rooms():
            yield kind, room


def rows(seed: int = 0) -> list[dict]:
    """Draw ten thousand inputs, keep a table by reader, and count."""
    torch.set_num_threads(1)
    started, rooms, table, kinds = time.perf_counter(), list(listed()), [], Counter()
    share = INPUTS / sum(room.weight for _, room in rooms)
    for kind, room in rooms:
        own = Counter()
        for drawn, outcome in counted(room, round(share * room.weight) + 4, seed):
            own[outcome.kind] += 1
            if outcome.kind in FAULTS:
                print(f"{room.name}: {outcome.kind}, {outcome.words}, of {drawn!r:.200}", flush=True)
        kinds += own
        faults = sum(own[fault] for fault in FAULTS)
        table.append((kind, f"{room.name}: {own.total():,} inputs", "a result, or a documented error",
                      f"{own[RESULT]:,} results, {own[REFUSED]:,} refused, {faults} else", ""))
        print(f"{time.perf_counter() - started:.0f} s {table[-1][1]}, {table[-1][3]}", flush=True)
    write_whole(TABLE, lambda part: _save(part, table))
    undocumented = sum(kinds[fault] for fault in FAULTS)
    return [row_of("fuzz.inputs", [kinds.total()], "odd inputs of loaders, commands and public functions"),
            {**row_of("fuzz.undocumented", [undocumented], "odd inputs that end in no documented way, or lose something"),
             "n": kinds.total()}]


def _save(path: Path, table: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *table])
