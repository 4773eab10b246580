"""Trained weights with a card: the data, the command that trains them, and how good they are on held-out data."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import nn

from crossexplain.files import digest, embedded_folder, write_whole
from crossexplain.models.weights import WeightsError, read_weights, require_finite_weights

LIMIT = 10_000_000  # bytes of a checkpoint that travels with the project
REQUIRED = ("data", "seed", "command", "accuracy")


def folder() -> Path:
    """Return the folder of the checkpoints that travel with the project."""
    return embedded_folder() / "checkpoints"


def save(model: nn.Module, name: str, card: dict[str, Any], folder: Path | None = None, limit: int = LIMIT) -> Path:
    """Write weights and card, each whole or not at all.

    Parameters
    ----------
    model : torch.nn.Module
    name : str
        The files are ``NAME.safetensors`` and ``NAME.json``.
    card : dict
        At least ``data``, ``seed``, ``command`` (that makes the checkpoint again) and ``accuracy`` (held out; a number
        or a mapping by kind). Versions, size and the digest of the weights are added.
    folder : Path, optional
        Default: the checkpoints that travel with the project.
    limit : int
        Greatest size in bytes.

    Returns
    -------
    Path
        Of the weights.

    Raises
    ------
    WeightsError
        If the card lacks an entry, a weight is NaN or infinite, or the file would be too large.
    """
    missing = [key for key in REQUIRED if key not in card]
    if missing:
        raise WeightsError(f"the card of {name!r} lacks {', '.join(missing)}; a checkpoint that nobody can make again "
                           "or judge is not kept.")
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    require_finite_weights(repr(name), weights, "train again with a lower rate.")
    size = sum(value.numel() * value.element_size() for value in weights.values())
    if size > limit:
        raise WeightsError(f"{name!r} takes {size:,} bytes, at most {limit:,} may; make the model smaller.")
    target = _path(name, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        write_whole(target, lambda part: save_file(weights, part))
        count = sum(parameter.numel() for parameter in model.parameters())
        whole = {"name": name, "model": type(model).__name__, **card, "parameters": count,
                 "bytes": target.stat().st_size, "sha256": _digest(target), "torch": torch.__version__}
        text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
        write_whole(target.with_suffix(".json"), lambda part: part.write_text(text, encoding="utf-8"))
    return target


def read_card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return the card of a checkpoint.

    Raises
    ------
    WeightsError
        If there is no such checkpoint (lists those that exist) or its card cannot be read.
    """
    path = _path(name, folder)
    if not path.is_file() or not path.with_suffix(".json").is_file():
        present = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise WeightsError(f"there is no checkpoint {name!r} with a card in {path.parent}; there are: {present}. "
                           f"Make it with `python -m crossexplain train {name}`.")
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if not isinstance(card, dict):
            raise ValueError(f"it holds {type(card).__name__}, expected an object")
        return card
    except (ValueError, RecursionError) as error:  # of bytes that are no UTF-8, or no JSON
        raise WeightsError(f"the card {path.with_suffix('.json')} is broken ({error}); {_again(name)}") from error


def load(name: str, model: nn.Module, folder: Path | None = None) -> dict[str, Any]:
    """Load weights into a model, set it to eval mode, and return the card.

    Parameters
    ----------
    name : str
    model : torch.nn.Module
        Of the architecture that was saved; unchanged if anything is wrong.

    Raises
    ------
    WeightsError
        If the checkpoint is missing, its bytes are not those the card was written for, or its weights do not fit.
    """
    card, path = read_card(name, folder), _path(name, folder)
    if _digest(path) != card.get("sha256"):
        with suppress(OSError), _locked(path):  # another process may be between the two files
            card = read_card(name, folder)
    if _digest(path) != card.get("sha256"):
        raise WeightsError(f"checkpoint {path} is broken: its bytes are not those of its card; {_again(name)}")
    model.load_state_dict(read_weights(path, model, type(model).__name__, _again(name)))
    model.eval()
    return card


def _path(name: str, where: Path | None) -> Path:
    if not name or Path(name).name != name:
        raise WeightsError(f"got checkpoint name {name!r}, expected a plain name without a folder.")
    return (folder() if where is None else Path(where)) / f"{name}.safetensors"


def _locked(path: Path) -> FileLock:
    """Return a lock of this machine for weights and card together, which leaves no file beside them."""
    who = getattr(os, "getuid", lambda: 0)()
    return FileLock(Path(gettempdir()) / f"crossexplain-{who}-{digest(str(path.resolve()))[:24]}.lock")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _again(name: str) -> str:
    return f"make it again with `python -m crossexplain train {name}`."
