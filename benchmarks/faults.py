"""What happens when something goes wrong: files broken, disks full, work killed, servers that lie; each made on purpose.

Right is the result that comes without the fault; told is an error in the package's own words, after which the same call goes
on. All else is counted: another result without a word, finished work lost, another library's error. Small disks need leave
to mount; where there is none, the faults on them are left out.
"""

import csv
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.studies.faults import FOREIGN, LOST, SILENT, Fault, book, files, jobs, limits
from crossexplain.files import write_whole
from crossexplain_book.bench import row_of

TABLE = Path(__file__).parent.parent / "data/results/faults.csv"
COLUMNS = ("room", "fault", "expected", "outcome", "words")
DISKS = ("a full disk", "a read-only disk")


def listed() -> Iterator[Fault]:
    """Give all faults."""
    for module in (files, jobs, limits, book):
        yield from module.faults()


def tried(fault: Fault) -> dict:
    """Make one fault in a folder of its own and return its row."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        place = Path(folder).resolve()
        outcome = fault.run(place)
        words = " ".join(outcome.words.replace(str(place), "FOLDER").replace(sys.executable, "python").split())
    return dict(zip(COLUMNS, (fault.room, fault.what, fault.expected, outcome.kind, words)))


def rows() -> list[dict]:
    """Try every fault, keep the table, and count."""
    torch.set_num_threads(1)
    disks, table, started = jobs.can_mount(), [], time.perf_counter()
    for fault in listed():
        if fault.what in DISKS and not disks:
            continue
        table.append(tried(fault))
        print("{outcome:8} {room}: {fault} {words:.80}".format(**table[-1]), flush=True)
    write_whole(TABLE, lambda part: _save(part, table))
    times = [re.match(r"killed (\d+) times", row["fault"]) for row in table]
    kills = sum(int(found[1]) for found in times if found)
    count = {"tried": len(table), "kills": kills, **{name: sum(row["outcome"] == kind for row in table) for name, kind in
                                                     (("silent", SILENT), ("lost_data", LOST), ("foreign", FOREIGN))}}
    units = {"tried": "faults", "kills": "processes killed at random moments, all but those of data-set runs",
             "silent": "faults with another result, without a word", "lost_data": "faults after which something was lost",
             "foreign": "faults with another library's error"}
    print(f"{time.perf_counter() - started:.0f} s")
    return [row_of(f"faults.{name}", [number], units[name]) | {"n": len(table)} for name, number in count.items()]


def _save(path: Path, table: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
