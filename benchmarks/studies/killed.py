"""Runs over a small data set that are killed and go on: which rows are lost, doubled, or differ from those of a quiet run.

A process is killed either at a random time, or by itself right before or after a call by which a file becomes one: forced to
the disk, renamed, linked, removed.
"""

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crossexplain import ImageCells, InputError, Tokens
from crossexplain.runs import Entry, Explainable, explain_dataset, read
from crossexplain.runs.results import digest_of

EXAMPLES, PART, BATCH = 24, 4, 4
BROKEN = 6, 15  # examples that cannot be read
CALLS = "fsync", "replace", "link", "unlink"  # of the module os
METHODS = "rounds", "grad-cam"
CONTEXT = get_context("forkserver")  # a fork of a process that has threads may never end
CONTEXT.set_forkserver_preload([  # all that a run, and a job of the fault suite, imports
    "benchmarks.studies.killed", "benchmarks.studies.faults.jobs", "crossexplain.runs.known", "crossexplain.runs.work",
    "scipy.stats", "pyarrow.parquet", "pyarrow.pandas_compat"])


class Small(nn.Module):
    """A picture of 8 x 8 pixels and four words, a logit of both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Embedding(12, 8)
        self.out = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (N,)."""
        seen, read_words = self.image(images).relu().mean(dim=(2, 3)), self.text(tokens).tanh().mean(dim=1)
        return self.out(torch.cat([seen * read_words, seen + read_words], dim=1))[:, 0]


def subject() -> Explainable:
    """Return the small model, as a run takes it."""
    def inputs(examples: list) -> dict[str, Tensor]:
        return {name: torch.stack([example[name] for example in examples]) for name in ("images", "tokens")}

    model = Small().eval().requires_grad_(False)
    return Explainable(model, [ImageCells(layer="image", grid=(2, 2)), Tokens(layer="text", special=())], inputs, "small")


@dataclass(frozen=True)
class Data:
    """Pictures and words drawn from their numbers, some of which cannot be read."""

    n: int = EXAMPLES
    broken: tuple[int, ...] = BROKEN
    columns = {"label": int, "source": str, "even": bool}

    def describe(self) -> dict[str, object]:
        """Return what tells this data from other."""
        return {"format": "small", "broken": list(self.broken)}

    def entries(self) -> Iterator[Entry]:
        """Give the examples."""
        for i in range(self.n):
            yield Entry(f"no. {i}", lambda i=i: self.load(i), {"label": i % 3, "source": "ab"[i % 2], "even": i % 2 == 0})

    def load(self, i: int) -> dict[str, Tensor]:
        """Return one example."""
        if i in self.broken:
            raise InputError(f"picture {i} is broken")
        generator = torch.Generator().manual_seed(i)
        return {"images": torch.rand(3, 8, 8, generator=generator), "tokens": torch.randint(2, 12, (4,), generator=generator)}


def data() -> Data:
    """Return the small data, as a command names it."""
    return Data()


def run(folder: Path, shard: tuple[int, int] = (0, 1), **settings: object) -> object:
    """Explain the small data, or the share of one process."""
    return explain_dataset(subject(), data(), settings.pop("method", METHODS), folder, shard=shard,
                           **{"part": PART, "batch": BATCH, "progress": False, "budget": 16, **settings})


def started(task: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a process that does a task; it is forked from one that has imported all of this and done nothing."""
    process = CONTEXT.Process(target=task, args=arguments)
    process.start()
    return process


def timed(folder: Path, shard: tuple[int, int], n: int, part: int, ready: object, results: object) -> None:
    """Explain drawn scenes by early fusion, or a share, and put the seconds that it took and the most memory, GiB."""
    from crossexplain.runs.known import DrawnScenes, model

    subject, scenes = model("scenes_fusion"), DrawnScenes(n=n)
    settings = {"batch": part, "part": part, "progress": False, "shard": shard}
    warm = folder.with_name(f"{folder.name}-warm-{shard[0]}")
    explain_dataset(subject, scenes, out=warm, **settings | {"shard": (0, 1)}, limit=4)
    ready.wait()
    begun = time.perf_counter()
    explain_dataset(subject, scenes, out=folder, **settings)
    results.put((time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def run_and_die(folder: Path, shard: tuple[int, int], call: str, count: int, after: bool) -> None:
    """Run in a process that is killed right before or after the ``count``-th call of a function of the module os."""
    original, left = getattr(os, call), [count]

    def wrapped(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, call, wrapped)
    run(folder, shard)


class Outcome(NamedTuple):
    """What became of one run: how often it was killed, and rows that are lost, doubled, or differ."""

    kills: int
    lost: int
    doubled: int
    differing: int


def killed(folder: Path, whole: list[dict], seconds: float, seed: int) -> Outcome:
    """Run on one to three processes, kill them a few times, let the last try finish, and compare with a run left alone.

    Parameters
    ----------
    folder : Path
        That is still to be made.
    whole : list of dict
        The rows of :func:`rows_of` a run left alone.
    seconds : float
        How long such a run takes.
    seed : int
    """
    draw, kills = random.Random(seed), 0
    for _ in range(draw.randint(2, 5)):
        world = draw.randint(1, 3)
        kills += sum(_killed_once(folder, (rank, world), seconds, draw) for rank in range(world))
    world = draw.randint(1, 3)
    for child in [started(run, folder, (rank, world)) for rank in range(world)]:
        child.join()
    found = rows_of(folder)
    keys = [row["key"] for row in found]
    own = {row["key"]: row for row in found}
    return Outcome(kills, sum(row["key"] not in own for row in whole), len(keys) - len(own),
                   sum(repr(row) != repr(own[row["key"]]) for row in whole if row["key"] in own))


def _killed_once(folder: Path, shard: tuple[int, int], seconds: float, draw: random.Random) -> int:
    """Start one process and kill it; return 1 if it was still at work."""
    if draw.random() < 0.5:
        call, after = draw.choice(CALLS), draw.random() < 0.5
        count = 1 if call == "link" else draw.randint(1, 4)
        child = started(run_and_die, folder, shard, call, count, after)
    else:
        child = started(run, folder, shard)
        time.sleep(draw.uniform(0, seconds / shard[1]))
        child.kill()
    child.join()
    return int(child.exitcode == -signal.SIGKILL)


def rows_of(folder: Path) -> list[dict]:
    """Return all rows of a finished run without the time they took, after the proof that they are complete."""
    return read(folder).table.drop_columns(["seconds"]).to_pylist()


def bits(folder: Path) -> str:
    """Return a hash of all rows of a finished run."""
    return digest_of(read(folder).table)
