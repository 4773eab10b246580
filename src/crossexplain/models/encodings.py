"""The features of thousands of images or texts from a frozen tower, which are computed once and kept on disk.

A tower that is not trained gives the same features in every epoch, and for every view that leaves its input as it is.
:func:`encode` sends each input through it once and writes the features in shards, files of a few hundred inputs. A shard is
written whole or not at all and has a checksum, so that a process that was killed, a full disk or a damaged file costs one shard
and never gives a wrong number. At most one shard is held in memory, while writing and while reading.

The folder of an encoding is named after a hash of the weights, the settings and the inputs, so that the features of other
weights or other inputs are never taken for these. A folder may be deleted at any time; it is made again when it is needed.
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm.auto import tqdm

from crossexplain.checks import InputError, is_of_memory
from crossexplain.files import write_whole

log = logging.getLogger(__name__)

Rows = Sequence[int] | np.ndarray | Tensor  # numbers of inputs
WAIT = 3600  # seconds to wait for another process that makes the same encoding


class EncodingError(OSError):
    """An encoding cannot be made or read; finished shards are kept, and the message says what to do."""


class Encodings:
    """Features of N inputs, read from disk as they are asked for.

    Attributes
    ----------
    folder : Path
        Where they are kept.
    shape : tuple of int
        Of the features of one input; where each input has its own number of rows, one a token, of one row.
    """

    def __init__(self, folder: Path, shards: Sequence["_Shard"], order: np.ndarray):
        self.folder = folder
        with _still_there(folder):
            self._values = [np.load(shard.path, mmap_mode="r") for shard in shards]  # nothing is read before it is used
        self.shape = self._values[0].shape[1:]
        lengths = [shard.lengths or [1] * len(values) for shard, values in zip(shards, self._values)]
        places = [(number, end - rows, end) for number, of_shard in enumerate(lengths)
                  for rows, end in zip(of_shard, np.cumsum(of_shard))]
        self._places = np.array(places)[np.argsort(order)]  # (N, 3): shard, first row, and the row after the last

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, indices: Rows) -> Tensor:
        """Return the features of some inputs, (n, ...), float32.

        Where each input has its own number of rows, these are one after the other; :meth:`padded` keeps them apart.

        Raises
        ------
        IndexError
            For an input that does not exist.
        """
        return torch.from_numpy(np.concatenate([np.empty((0, *self.shape), np.float32), *self._rows(indices)]))

    def padded(self, indices: Rows) -> tuple[Tensor, Tensor]:
        """Return the rows of some inputs, followed by zeros, and which are rows.

        Parameters
        ----------
        indices : sequence of n int

        Returns
        -------
        values : Tensor, shape (n, T, ...), float32
            T is the greatest number of rows among them.
        mask : Tensor of bool, shape (n, T)
        """
        rows = [torch.from_numpy(np.asarray(part, np.float32)) for part in self._rows(indices)]
        values = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return values, torch.arange(values.shape[1]) < torch.tensor([len(part) for part in rows])[:, None]

    def _rows(self, indices: Rows) -> list[np.ndarray]:
        """Return views of the rows of some inputs; nothing is read yet."""
        chosen = np.asarray(indices, dtype=np.int64)
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(wrong):
            raise IndexError(f"input {wrong[0]} was asked for, there are {len(self):,} (0 to {len(self) - 1:,}).")
        return [self._values[shard][first:end] for shard, first, end in self._places[chosen].tolist()]


def encode(
    model: nn.Module,
    batch: Callable[[list[int]], Mapping[str, Tensor]],
    names: Sequence[str],
    folder: Path | str,
    *,
    settings: Mapping[str, object],
    forward: Callable[..., Tensor] | None = None,
    mask: str | None = None,
    lengths: Sequence[float] | None = None,
    batch_size: int = 32,
    shard_size: int = 256,
    progress: bool = True,
) -> Encodings:
    """Encode inputs with a frozen model, or use what was encoded before.

    Features are kept in half precision, which takes half of the space and keeps 3 digits.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode. All its weights are part of the key.
    batch : callable
        ``batch(indices)`` returns the inputs of the model by keyword.
    names : sequence of N str
        What identifies the content of each input: the text itself, or name and checksum of a file.
    folder : path
        Of all encodings; this one gets a folder in it.
    settings : mapping
        Whatever else changes the features and can be written as JSON: the preprocessing, the layer, a length limit.
    forward : callable, optional
        Called in place of the model, such as its tower. Name it in the settings, since its code is not part of the key.
    mask : str, optional
        Keyword of an input (n, T) that is not 0 at the rows to keep of an output (n, T, ...); padding is not stored.
    lengths : sequence of N numbers, optional
        Inputs of similar length go through the model together, which saves padding.
    batch_size, shard_size : int
        Inputs that go through the model, and that are written to a file, at once.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Encodings

    Raises
    ------
    EncodingError
        If the disk is full or cannot be written, or features are not finite or too large for half precision. Finished
        shards are kept; the same call goes on from there.
    InputError
        For settings that cannot be used.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> model, vectors = nn.Linear(3, 2).eval(), torch.ones(5, 3)
    >>> with TemporaryDirectory() as folder:
    ...     features = encode(model, lambda rows: {"input": vectors[rows]}, list("abcde"), folder, settings={}, progress=False)
    ...     len(features), features[[4, 0]].shape
    (5, torch.Size([2, 2]))
    """
    _require_usable(model, names, lengths)
    order = np.arange(len(names)) if lengths is None else np.argsort(np.asarray(lengths), kind="stable")
    about = _about(model, names, settings, order, shard_size)
    home = Path(folder) / about["key"][:32]
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    shards, is_new = [], False
    bar = tqdm(total=len(names), unit="input", disable=not progress, desc=f"encoding on {device}")
    compute = partial(_features, forward or model, batch, names, mask, batch_size, device, bar)
    with bar, _locked(home):
        _save(home / "about.json", json.dumps(about, indent=2).encode())
        for start in range(0, len(order), shard_size):
            indices, path = order[start : start + shard_size].tolist(), home / f"{start // shard_size:05}.npy"
            if (shard := _Shard.read(path, len(indices))) is not None:
                bar.update(len(indices))
            else:
                with _told_of_memory(home):
                    values, rows = compute(indices)
                if not is_new:
                    _require_room(home, values.nbytes * -(-(len(order) - start) // shard_size))
                shard, is_new = _Shard.write(path, values, rows, len(indices)), True
            shards.append(shard)
    return Encodings(home, shards, order)


@dataclass(frozen=True)
class _Shard:
    """A file of features, and a note beside it, written afterwards, that holds its checksum and the rows of each input."""

    path: Path
    lengths: list[int] | None

    @classmethod
    def write(cls, path: Path, values: np.ndarray, lengths: list[int] | None, inputs: int) -> "_Shard":
        """Write a shard, each of its files whole or not at all."""
        content, note = io.BytesIO(), {"inputs": inputs, "checksum": zlib.crc32(values.data), "lengths": lengths}
        np.save(content, values)
        _save(path, content.getbuffer())
        _save(path.with_suffix(".json"), json.dumps(note).encode())
        return cls(path, lengths)

    @classmethod
    def read(cls, path: Path, inputs: int) -> "_Shard | None":
        """Return a shard of so many inputs if it exists and is as it was written."""
        note = path.with_suffix(".json")
        if not (path.is_file() and note.is_file()):
            return None
        try:
            about, values = json.loads(note.read_bytes()), np.load(path, mmap_mode="r")
            lengths = about["lengths"]
            rows = inputs if lengths is None else sum(lengths) if len(lengths) == inputs and min(lengths) >= 0 else -1
            if about["inputs"] == inputs and len(values) == rows and about["checksum"] == zlib.crc32(
                    np.ascontiguousarray(values).data):
                return cls(path, lengths)
        except Exception:  # noqa: BLE001, S110 - a broken file raises whatever its parser meets first; told below
            pass
        log.warning("%s is damaged; it is made again", path)
        return None


def _features(forward: Callable[..., Tensor], batch: Callable[[list[int]], Mapping[str, Tensor]], names: Sequence[str],
              mask: str | None, batch_size: int, device: torch.device, bar: "tqdm[Any]",
              indices: list[int]) -> tuple[np.ndarray, list[int] | None]:
    """Send some inputs through the model; return the features one after the other, and how many rows each input has."""
    values: list[Tensor] = []  # of each input
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        with torch.inference_mode():
            inputs = batch(chosen)
            out = forward(**{name: tensor.to(device) for name, tensor in inputs.items()})
            if len(out) != len(chosen):
                raise InputError(f"the model gave {len(out)} rows for {len(chosen)} inputs, expected one for each.")
            parts = list(out.to("cpu", torch.float16))
            if mask is not None:
                parts = [part[kept] for part, kept in zip(parts, inputs[mask].cpu().bool())]
        for i, part in zip(chosen, parts):
            if not part.isfinite().all():
                raise EncodingError(f"the features of {names[i][:80]!r} are not finite in half precision, which ends at "
                                    "65,504; look for NaN in input and weights, or take a layer with smaller values.")
        values += parts
        bar.update(len(chosen))
    if mask is None:
        return torch.stack(values).numpy(), None
    return torch.cat(values).numpy(), [len(part) for part in values]


def _about(model: nn.Module, names: Sequence[str], settings: Mapping[str, object], order: np.ndarray,
           shard_size: int) -> dict[str, Any]:
    """Return what an encoding is of, and a key that changes with any of it."""
    weights, inputs = hashlib.sha256(), hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    for name in names:
        inputs.update(name.encode("utf-8", "surrogatepass") + b"\0")
    inputs.update(np.ascontiguousarray(order, dtype=np.int64).data)
    about = {"model": type(model).__name__, "weights": weights.hexdigest(), "inputs": inputs.hexdigest(),
             "number": len(names), "settings": dict(settings), "dtype": "float16", "shard_size": shard_size}
    return {"key": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest(), **about}


def _save(path: Path, content: bytes | memoryview) -> None:
    try:
        write_whole(path, lambda part: part.write_bytes(content))
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        done = len(list(path.parent.glob("[0-9]*.json")))
        raise EncodingError(f"{path} was not written: {why}. {done} finished shards are kept: make room, or name another "
                            "folder, and run the same call again to go on.") from error


@contextlib.contextmanager
def _told_of_memory(home: Path) -> Iterator[None]:
    """Say so where a batch does not fit into the memory."""
    try:
        yield
    except Exception as error:
        if not is_of_memory(error):
            raise
        raise EncodingError(f"a batch does not fit into the memory ({error}); the finished shards in {home} are kept: free "
                            "memory, or pass a smaller batch_size, and run the same call again.") from error


@contextlib.contextmanager
def _still_there(home: Path) -> Iterator[None]:
    """Say so where a folder was removed meanwhile."""
    try:
        yield
    except FileNotFoundError as error:
        raise EncodingError(f"{home} was removed meanwhile; run the same call again, which encodes anew.") from error


def _require_room(home: Path, size: int) -> None:
    with _still_there(home):
        free = shutil.disk_usage(home).free
    if free < size:
        raise EncodingError(f"the encoding takes {size / 1e6:,.1f} MB more and {home} has {free / 1e6:,.1f} MB free; make "
                            "room, or name a folder on another disk, and run the same call again.")


def _require_usable(model: nn.Module, names: Sequence[str], lengths: Sequence[float] | None) -> None:
    if model.training:
        raise InputError("the model is in training mode, where dropout changes its features; call model.eval() first.")
    if isinstance(names, str) or not len(names):
        raise InputError(f"got {names!r} as the names of the inputs, expected a list of at least one.")
    if lengths is not None and len(lengths) != len(names):
        raise InputError(f"got {len(lengths)} lengths for {len(names)} inputs, expected as many.")


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let one process write into a folder, and remove what a killed one left half-written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process makes the encoding in %s; waiting for it", home)
            lock.acquire(timeout=WAIT)
    except OSError as error:
        raise EncodingError(f"cannot write into {home}: {error.strerror or error}; name a folder that you may write to, "
                            "such as one in CROSSEXPLAIN_CACHE.") from error
    try:
        for part in home.glob(".*.part"):
            part.unlink()
        yield
    finally:
        lock.release()
