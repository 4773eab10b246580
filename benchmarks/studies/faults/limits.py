"""Too little memory, and servers that lie, while a data set is explained."""

import os
import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.studies import killed as small
from benchmarks.studies.faults import LOST, RIGHT, SILENT, TOLD, Fault, Outcome, asked
from benchmarks.studies.faults.jobs import Ended, again, registered, server
from crossexplain.checks import InputError
from crossexplain.data.registry import SOURCES
from crossexplain.files import digest
from crossexplain.models.encodings import EncodingError, encode
from crossexplain.runs import explain_dataset, read
from crossexplain_book.cli import main

MEMORY = 2 << 30  # bytes that the process may have for its data
TOO_MUCH = 3 << 30
GREEDY = 9  # number of the example that takes too much: in the third part


class Greedy(small.Small):
    """The small model, which takes too much memory for one kind of picture, or for more than two rows at once."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows = rows

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (N,)."""
        if len(images) > self.rows or (images[:, 0, 0, 0] > 1).any():
            torch.empty(TOO_MUCH, dtype=torch.uint8)  # which is not touched
        return super().forward(images, tokens)


class Marked(small.Data):
    """The small data, one picture of which says that it takes too much."""

    def load(self, i: int) -> dict[str, Tensor]:
        """Return one example."""
        example = super().load(i)
        if i == GREEDY:
            example["images"][0, 0, 0] = 1.5
        return example


def faults() -> Iterator[Fault]:
    """Give what there is too little of, and what answers wrongly."""
    yield Fault("explaining a data set", "2 GiB of memory, one example takes more",
                "told, finished parts kept, and the same call goes on with more memory", _one_takes_more)
    yield Fault("encoding", "2 GiB of memory, an input takes more", "told, finished shards kept", _encoding_takes_more)
    for kind in ("page", "missing", "other bytes", "short", "silent", "hanging"):
        yield Fault("the command explain", f"its data come from a server that answers: {kind}", "told, nothing kept",
                    partial(_bad_server, kind), slow=kind in ("silent", "hanging"))


def _limited(work) -> object:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    return work()


def _explain(folder: Path) -> str:
    subject = small.subject()
    subject = small.Explainable(Greedy(10_000).eval().requires_grad_(False), subject.modalities, subject.inputs, "greedy")
    explain_dataset(subject, Marked(), small.METHODS, folder / "results", part=small.PART, batch=small.BATCH, progress=False)
    return digest(*read(folder / "results").table.drop_columns(["seconds"]).to_pylist())


def _one_takes_more(folder: Path) -> Outcome:
    places = folder / "whole", folder / "limited"
    for place in places:
        place.mkdir()
    right = again(partial(_explain, places[0]))
    found = asked(lambda: again(partial(_limited, partial(_explain, places[1]))), right, (InputError,))
    parts = sorted(path.name for path in (places[1] / "results").glob("part-*"))
    if found.kind != TOLD or len(parts) != GREEDY // small.PART:
        return found if found.kind != TOLD else Outcome(LOST, f"kept {parts}")
    after = asked(lambda: again(partial(_explain, places[1])), right, ())
    return found if after.kind == RIGHT else Outcome(LOST, after.words)


def _encode(folder: Path) -> int:
    def forward(input: Tensor) -> Tensor:
        if (input > 99).any():
            torch.empty(TOO_MUCH, dtype=torch.uint8)  # which is not touched
        return input

    vectors = torch.arange(128.0)[:, None]
    return len(encode(nn.Linear(1, 1).eval(), lambda rows: {"input": vectors[rows]}, list(map(str, range(128))), folder,
                      settings={}, forward=forward, batch_size=8, shard_size=16, progress=False))


def _encoding_takes_more(folder: Path) -> Outcome:
    found = asked(lambda: again(partial(_limited, partial(_encode, folder))), None, (EncodingError, InputError))
    shards = len(list(folder.rglob("[0-9]*.npy")))
    if found.kind != TOLD or shards != 6:
        return found if found.kind != TOLD else Outcome(LOST, f"kept {shards} of 6 shards")
    after = asked(lambda: again(partial(_encode, folder)), 128, ())
    return found if after.kind == RIGHT else Outcome(LOST, after.words)


def _bad_server(kind: str, folder: Path) -> Outcome:
    with server() as address, registered(folder, f"{address}{kind}/b.bin".replace(" ", "%20")):
        with patch.dict(SOURCES, {"flickr8k": SOURCES["sample"]}), patch.dict(os.environ, {"CROSSEXPLAIN_DOWNLOAD": "1"}):
            found = asked(partial(_command, folder), None, (Ended,))
    kept = [path.name for path in folder.rglob("b.bin*")] + [path.name for path in folder.glob("out*")]
    return Outcome(SILENT, f"kept {kept[0]}") if kept else found


def _command(folder: Path) -> None:
    import io
    from contextlib import redirect_stderr

    with redirect_stderr(io.StringIO()) as told:
        code = main(["explain", "--model", "benchmarks.studies.killed:subject", "--data", "flickr8k:test", "--out",
                     str(folder / "out")])
    if code != 3:
        raise AssertionError(f"code {code}: {told.getvalue()[-300:]}")
    raise Ended(told.getvalue().strip().splitlines()[-1])
