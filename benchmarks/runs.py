"""A data set explained by one process and by two, and by processes that are killed at random moments and go on.

Speed, memory and bytes are those of the rounds on drawn scenes by early fusion (:data:`SCENES` pairs), one thread a process;
two processes are compared with one on the same machine, which needs two free cores. The kills are those of
:mod:`benchmarks.studies.killed`, over a small model.
"""

import shutil
import time
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.studies import killed
from crossexplain_book.bench import row_of

SCENES, PART = 128, 16
KILLS = 200


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Time runs, then kill some."""
    folder = Path(mkdtemp())
    try:
        return _speed(folder, repeats) + _kills(folder, seed)
    finally:
        shutil.rmtree(folder)


def _speed(folder: Path, repeats: int) -> list[dict]:
    seconds, memory = {1: [], 2: []}, []
    for repeat in range(repeats):
        for world, taken in seconds.items():
            ready, results = killed.CONTEXT.Barrier(world), killed.CONTEXT.Queue()
            children = [killed.started(killed.timed, folder / f"{repeat}-{world}", (rank, world), SCENES, PART, ready, results)
                        for rank in range(world)]
            found = [results.get() for _ in children]
            for child in children:
                child.join()
            taken.append(max(one for one, _ in found))
            memory += [of_process for _, of_process in found]
    assert killed.bits(folder / "0-1") == killed.bits(folder / "0-2")
    size = sum(path.stat().st_size for path in (folder / "0-1").glob("part-*")) / SCENES
    return [row_of("run.rows_per_second", [SCENES / one for one in seconds[1]], "examples a second, one process, one thread"),
            row_of("run.two_over_one", [one / two for one, two in zip(*seconds.values())], "speed of two processes over one"),
            {"id": "run.bytes_per_row", "value": size, "low": size, "high": size, "n": SCENES, "unit": "bytes an example"},
            row_of("run.peak_gib", memory, "GiB, most memory of a process", max)]


def _kills(folder: Path, seed: int) -> list[dict]:
    started = time.perf_counter()
    killed.run(folder / "whole")
    seconds, whole, kills, runs, wrong = time.perf_counter() - started, killed.rows_of(folder / "whole"), 0, 0, [0, 0, 0]
    while kills < KILLS:
        outcome = killed.killed(folder / f"killed-{runs}", whole, seconds, 10_000 * seed + runs)
        shutil.rmtree(folder / f"killed-{runs}")
        kills, runs = kills + outcome.kills, runs + 1
        wrong = [before + now for before, now in zip(wrong, outcome[1:])]
    counts = {"kills": (kills, "processes killed at work"), "lost": (wrong[0], "rows of all runs"),
              "doubled": (wrong[1], "rows of all runs"), "differing": (wrong[2], "rows of all runs, in any bit")}
    return [{"id": f"run.{name}", "value": value, "low": value, "high": value, "n": runs, "unit": unit}
            for name, (value, unit) in counts.items()]
