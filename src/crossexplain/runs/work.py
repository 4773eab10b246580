"""A data set explained part by part: a finished part is never done again, a broken one is, a failed example is a row."""

import io
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

import crossexplain
from crossexplain.checks import InputError, entries_of, require_flags, require_whole
from crossexplain.files import digest, tree
from crossexplain.gradients.modalities import ImageCells
from crossexplain.runs import results
from crossexplain.runs.explainer import ROUNDS, Explainable, Explainer, Said
from crossexplain.runs.plan import Entry, Selection, Shard, Source, plain_text, require_shard, shard_of
from crossexplain.runs.results import Columns, require_path

PART, BATCH = 256, 32  # examples that are written, and explained, at a time
MOST_THREADS = 1024  # of one process: more are a slip of the keyboard, and would take the memory
TRIED = 32  # examples by which the cost is measured
LOOKED_AT = 8  # examples that are tried before a model and a method are said not to fit
VERSIONS = "torch", "numpy", "transformers", "pyarrow"  # packages that the last bits depend on


class Stopped(KeyboardInterrupt):
    """The run was interrupted; the message says what is kept and how to go on."""


@dataclass(frozen=True)
class Done:
    """What one process has done.

    Attributes
    ----------
    folder : Path
    examples, failed : int
        Explained, or failed with a reason, in this call.
    kept : int
        Examples of this process's parts that were done before.
    total : int
        In the whole data set.
    seconds : float
    """

    folder: Path
    examples: int
    failed: int
    kept: int
    total: int
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.examples / self.seconds:.1f} a second" if self.seconds and self.examples else ""
        return (f"{self.folder}: {self.examples:,} examples done{rate}, {self.failed:,} of them failed, {self.kept:,} were "
                f"there before, of {self.total:,} in all")


@dataclass(frozen=True)
class Cost:
    """What a run would take, measured on its first examples.

    Attributes
    ----------
    examples : int
        In the whole data set.
    measured : int
        Examples that were explained.
    seconds, bytes : float
        An example, on one process and on the disk.
    memory : float
        Most memory of the process so far, GiB.
    """

    examples: int
    measured: int
    seconds: float
    bytes: float
    memory: float

    def __str__(self) -> str:
        return (f"{self.examples:,} examples; measured on {self.measured}: {self.seconds * 1000:.3g} ms and {self.bytes:,.0f} "
                f"bytes each, {self.memory:.1f} GiB of memory; in all about {_span(self.seconds * self.examples)} on one "
                f"process and {self.bytes * self.examples / 1e6:,.1f} MB")


def explain_dataset(subject: Explainable, data: Source, method: str | Sequence[str] = ROUNDS, out: str | Path = "results", *,
                    shard: Shard | None = None, where: Sequence[str] = (), limit: int | None = None,
                    baselines: Sequence[str | Mapping[str, str]] = ("neutral",), budget: int | None = None, seed: int = 0,
                    part: int = PART, batch: int = BATCH, threads: int = 1, device: str | None = None, progress: bool = True,
                    dry_run: bool = False) -> Done | Cost:
    """Explain all examples of a data set, or those that this process has to do.

    Parameters
    ----------
    subject : Explainable
        The model, and how its inputs are made.
    data : Source
    method : str or sequence of str
        ``"rounds"`` records the views from which verdicts are read; beside it, or in its place, any methods of
        :func:`crossexplain.evaluation.methods.registry` that speak of each example by itself.
    out : str or Path
        Folder of the results; that of another configuration is refused.
    shard : (int, int), optional
        Number of this process and of all. Default: what ``accelerate launch``, torchrun or Slurm say; else (0, 1).
    where, limit
        As for :class:`~crossexplain.runs.plan.Selection`.
    baselines : sequence
        What stands in for what is masked: ``"neutral"``, ``"data"`` (the first examples that can be read), or as for
        :func:`~crossexplain.gradients.rounds.rounds`; other methods than the rounds use the first.
    budget, seed
        As for :func:`~crossexplain.evaluation.methods.explain`; every example has a seed of its own, made of this and its key.
    part, batch : int
        Examples that are written, and that are explained, at a time. They belong to the configuration.
    threads : int
        Of torch. They belong to the configuration too: other sums come out in other last bits.
    device : str, optional
        Default: the accelerator of this process's local rank if there is one, else ``"cpu"``.
    progress : bool
        Show rate and time left on stderr.
    dry_run : bool
        Measure the cost on the first examples, and write nothing.

    Returns
    -------
    Done, or Cost of a dry run

    Raises
    ------
    InputError
        If nothing of the data can be explained, the folder is of another run, or cannot be written to.
    Stopped
        On an interrupt: the finished parts are kept, and the same call goes on.
    """
    size, batch = _at_least_one(part=part, batch=batch, threads=threads)[:2]
    if threads > MOST_THREADS:
        raise InputError(f"got threads={threads}, expected {MOST_THREADS} at most.")
    if limit is not None:
        _at_least_one(limit=limit)
    _require_usable(subject, data, out)
    require_whole(least=0, seed=seed, budget=1 if budget is None else budget)
    require_flags(progress=progress, dry_run=dry_run)
    rank, world = shard_of(os.environ) if shard is None else require_shard(shard)
    results.arrow()
    selection = Selection(data, tuple(_texts([where] if isinstance(where, str) else where, "where", (str,))), limit)
    methods = _texts([method] if isinstance(method, str) else method, "method", (str,))
    both = (str, Mapping)
    listed = _texts([baselines] if isinstance(baselines, both) else baselines, "baselines", both)
    with _settled(threads):
        explainer = Explainer(subject, methods, listed, budget, seed, _device(device))
        n, keys = selection.survey()
        explainer.read_donors(selection)
        columns = _columns(explainer, selection, data.columns)
        if dry_run:
            return _cost(explainer, selection, columns, n, batch)
        kinds = {name: getattr(kind, "__name__", str(kind)) for name, kind in data.columns.items()}
        configuration = {
            "schema": results.SCHEMA, "model": {"name": subject.name, "weights": subject.weights(), "code": subject.code},
            "data": {**data.describe(), "columns": kinds, "examples": n, "keys": keys}, "where": list(selection.where),
            "limit": limit, "methods": methods, "baselines": listed,
            "target": getattr(subject.target, "__qualname__", repr(subject.target)),
            "budget": budget, "seed": seed, "part": size, "batch": batch, "threads": threads, "device": explainer.device.type,
            "code": _code(), "versions": _versions()}
        folder = Path(out)
        results.tidy(folder)
        manifest = results.claim(folder, {
            "configuration": configuration, "hash": results.hash_of(configuration), "columns": columns.described(),
            "modalities": [modality.name for modality in subject.modalities], "crossexplain": crossexplain.__version__,
            "grids": {modality.name: list(modality.grid) for modality in subject.modalities
                      if isinstance(modality, ImageCells) and modality.grid}})
        return _Run(folder, explainer, columns, manifest["hash"], n, size, batch, (rank, world)).work(selection, progress)


@dataclass
class _Run:
    """The parts of one process."""

    folder: Path
    explainer: Explainer
    columns: Columns
    configuration: str
    n: int
    size: int
    batch: int
    shard: Shard
    done: int = 0
    failed: int = 0
    kept: int = 0
    started: float = field(default_factory=time.perf_counter)

    def work(self, selection: Selection, progress: bool) -> Done:
        schema, (rank, world) = self.columns.schema(), self.shard
        own = sum(min(self.size, self.n - first) for first in range(rank * self.size, self.n, world * self.size))
        often = 0.1 if sys.stderr.isatty() else 10  # seconds: a log is not to be filled with bars
        with tqdm(total=own, unit=" examples", desc=f"process {rank + 1} of {world}", mininterval=often,
                  disable=not progress) as bar:
            try:
                for number, entries in selection.parts(self.size, self.shard):
                    if self._is_there(number, entries):
                        self.kept += len(entries)
                        bar.total = own - self.kept  # so that rate and time left are those of the work
                        bar.refresh()
                        continue
                    rows = []
                    for batch in self._rows(number, entries):
                        rows += batch
                        bar.update(len(batch))
                    results.write_part(self.folder, number, rows, schema, self.configuration)
                    self.done += len(rows)
                    self.failed += sum(row["status"] == "failed" for row in rows)
            except KeyboardInterrupt as stop:
                raise Stopped(f"stopped: {self.done + self.kept:,} of this process's {own:,} examples are kept in "
                              f"{self.folder}; the same command goes on from there.") from stop
        return Done(self.folder, self.done, self.failed, self.kept, self.n, time.perf_counter() - self.started)

    def _is_there(self, number: int, entries: Sequence[Entry]) -> bool:
        table = results.sound(results.part_path(self.folder, number), number, self.configuration)
        return table is not None and table["key"].to_pylist() == [entry.key for entry in entries]

    def _rows(self, number: int, entries: Sequence[Entry]) -> Iterator[list[dict[str, Any]]]:
        for first in range(0, len(entries), self.batch):
            batch = entries[first : first + self.batch]
            yield [_row(self.columns, entry, number * self.size + first + i, said)
                   for i, (entry, said) in enumerate(zip(batch, self.explainer.explained(batch)))]


def _row(columns: Columns, entry: Entry, position: int, said: Said) -> dict[str, Any]:
    """Return one row of a part."""
    row = {"key": entry.key, "position": position, "status": "failed" if "reason" in said else "ok", "flags": []} | {
        name: said[name] for name in ("reason", "target", "predicted", "flags", "seconds") if name in said}
    for kind, named in (("logits", columns.logits), ("importance", columns.importance)):
        row |= {name: said.get((kind, of, which)) for of, names in named.items() for which, name in names.items()}
    known = {name: entry.columns.get(of) for of, name in columns.data.items()}
    return row | {name: plain_text(value) if isinstance(value, str) else value for name, value in known.items()}


def _columns(explainer: Explainer, selection: Selection, types: Mapping[str, type]) -> Columns:
    """Return the columns of a run, as one of its first examples shows them.

    Raises
    ------
    InputError
        If no example can be read, or the model and the methods fit none of the first that can: then that is no matter of an
        example.
    """
    reason, tried = "", 0
    for entry in selection:
        said, = explainer.explained([entry])
        if "reason" not in said:
            views, importances = ([key[1:] for key in said if key[0] == kind] for kind in ("logits", "importance"))
            return Columns.of(views, importances, types)
        reason, tried = reason or said["reason"], tried + said.get("loaded", False)
        if tried == LOOKED_AT:
            raise InputError(f"the first {tried} examples that can be read cannot be explained: {reason}")
    raise InputError(f"none of the examples can be explained: {reason}")


def _cost(explainer: Explainer, selection: Selection, columns: Columns, n: int, batch: int) -> Cost:
    entries = next(Selection(selection.source, selection.where, min(TRIED, n)).parts(TRIED))[1]
    started = time.perf_counter()
    said = [one for first in range(0, len(entries), batch) for one in explainer.explained(entries[first : first + batch])]
    seconds = (time.perf_counter() - started) / len(entries)
    pa, file = results.arrow(), io.BytesIO()
    rows = [_row(columns, entry, i, one) for i, (entry, one) in enumerate(zip(entries, said))]
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema=columns.schema()), file, compression="zstd")
    return Cost(n, len(entries), seconds, file.tell() / len(entries), _memory())


def _memory() -> float:
    """Return the most memory that this process has had, in GiB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if platform.system() == "Darwin" else 2**20)


@contextmanager
def _settled(threads: int) -> Iterator[None]:
    """Let torch sum in the same order at every run."""
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    torch.set_num_threads(threads)
    try:
        with cudnn.flags(cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32):
            yield
    finally:
        torch.set_num_threads(before)


def _device(name: str | None) -> torch.device:
    if name is not None:
        try:
            torch.empty(0, device=name).cpu()
            return torch.device(name)
        except Exception as error:  # noqa: BLE001 - torch tells of a device in many ways
            raise InputError(f"got device={name!r}, expected one that PyTorch has here, as in 'cpu' or 'cuda:0'.") from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    return torch.device("cuda", rank % torch.cuda.device_count())


def _code() -> str:
    """Return a hash of the package's code."""
    folder = Path(crossexplain.__file__).parent
    return digest(*(part for path in tree(folder, "*.py") for part in (path.relative_to(folder).as_posix(), path)))


def _versions() -> dict[str, str]:
    return {"python": ".".join(platform.python_version_tuple()[:2])} | {name: version(name) for name in VERSIONS}


def _at_least_one(**numbers: object) -> list[int]:
    require_whole(least=1, **numbers)
    return list(map(int, numbers.values()))  # type: ignore[arg-type]  # looked at above


def _texts(given: object, what: str, kinds: tuple[type, ...]) -> list[Any]:
    """Return the entries of a sequence if each is a text, or of another of these kinds."""
    entries = entries_of(given)
    if entries is None or not all(isinstance(entry, kinds) for entry in entries):
        raise InputError(f"got {what}={given!r}, expected text, or a list of texts.")
    return entries


def _require_usable(subject: object, data: object, out: object) -> None:
    if not isinstance(subject, Explainable) or not isinstance(subject.model, nn.Module):
        raise InputError(f"got the model as {type(subject).__name__}, expected an Explainable(model, modalities, inputs).")
    if not hasattr(data, "entries") or not hasattr(data, "columns"):
        raise InputError(f"got the data as {type(data).__name__}, expected a source, as of runs.sources.open_source(...).")
    require_path(out, "out")


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
