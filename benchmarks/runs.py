"""A data set explained by one process and by two, and by processes that are killed at random moments and go on.

Speed, memory and bytes are those of the rounds on drawn scenes by early fusion (:data:`SCENES` pairs), one thread a process; two
processes are compared with one on the same machine, which needs two free cores. The kills are those of
:mod:`benchmarks.studies.killed`, over a small model.
"""

import os
import resource
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp

import torch

from benchmarks.studies import killed
from crossexplain.runs import explain_dataset
from crossexplain.runs.known import DrawnScenes, model
from crossexplain_book.bench import row_of

SCENES, PART, BATCH = 192, 16, 16
KILLS = 200


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Time runs, then kill some."""
    torch.set_num_threads(1)
    folder = Path(mkdtemp())
    try:
        return _speed(folder, repeats) + _kills(folder, seed)
    finally:
        shutil.rmtree(folder)


def _speed(folder: Path, repeats: int) -> list[dict]:
    subject, data, kinds = model("scenes_fusion"), DrawnScenes(n=SCENES), {1: [], 2: []}
    list(data.entries())  # drawn before the clock starts
    for repeat in range(repeats):
        for world, seconds in kinds.items():
            out = folder / f"{repeat}-{world}"
            started = time.perf_counter()
            children = [killed.forked(lambda rank=rank, world=world, out=out: explain_dataset(
                subject, data, out=out, shard=(rank, world), part=PART, batch=BATCH, progress=False)) for rank in range(world)]
            assert all(os.waitpid(child, 0)[1] == 0 for child in children)
            seconds.append(time.perf_counter() - started)
    assert killed.bits(folder / "0-1") == killed.bits(folder / "0-2")
    size = sum(path.stat().st_size for path in (folder / "0-1").glob("part-*")) / SCENES
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return [row_of("run.rows_per_second", [SCENES / taken for taken in kinds[1]], "examples a second, one process, one thread"),
            row_of("run.two_over_one", [one / two for one, two in zip(kinds[1], kinds[2])], "speed of two processes over one"),
            {"id": "run.bytes_per_row", "value": size, "low": size, "high": size, "n": SCENES, "unit": "bytes an example"},
            {"id": "run.peak_gib", "value": peak, "low": peak, "high": peak, "n": 3 * repeats, "unit": "GiB, most of a process"}]


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
