"""Weights from a seed or from files: what is missing, broken or of another model is told, and no network is asked."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class WeightsError(ValueError):
    """Weights are missing, broken, or not of this model; the message says what it got, what it expected and what to do."""


def read_weights(path: Path, model: nn.Module, name: str, advice: str = "fetch the file again.",
                 rename: Callable[[str], str] = str) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file or of a state dict that was pickled.

    Parameters
    ----------
    path : Path
    model : torch.nn.Module
        That the tensors are for, which may be on the device ``"meta"``; it stays as it is.
    name, advice : str
        Of the model, and what to do where the file cannot be read; for messages.
    rename : callable
        Returns the model's name of an entry of the file; default, the same name.

    Raises
    ------
    WeightsError
        If there is no such file, it holds anything else, its tensors have other names or shapes than those of the model, or
        one of them holds NaN or infinity.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}; crossexplain.data.store.find says where it looks.")
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(
            path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))  # older files can only be read whole
    except Exception as error:  # a broken file raises whatever its parser meets first
        raise WeightsError(f"{path.name} cannot be read as weights ({error}); {advice}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"{path.name} holds {type(weights).__name__}, expected a state dict of tensors.")
    weights = {rename(key): value for key, value in weights.items()}
    in_file, in_model = ({key: tuple(value.shape) for key, value in part.items()} for part in (weights, model.state_dict()))
    differ = sorted(key for key in in_file | in_model if in_file.get(key) != in_model.get(key))
    if differ:
        raise WeightsError(f"{path.name} does not fit {name}: {len(differ)} entries differ, first {differ[0]!r} "
                           f"({in_file.get(differ[0], 'absent')} in the file, {in_model.get(differ[0], 'absent')} in the "
                           "model); build the model that the file belongs to.")
    require_finite_weights(path.name, weights, advice)
    return weights


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the initial weights of a model from a seed; the caller's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def require_finite_weights(name: str, weights: Mapping[str, Tensor], advice: str) -> None:
    """Raise :class:`WeightsError` if a tensor holds NaN or infinity."""
    bad = [key for key, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise WeightsError(f"{name} holds NaN or infinity in {', '.join(bad[:3])}; {advice}")


@contextmanager
def offline(folder: str | Path, what: str, *names: str) -> Iterator[Path]:
    """Load something of Hugging Face's format from a folder, without a progress bar, which would stand on every page.

    Parameters
    ----------
    folder : path
    what : str
        Is loaded, for messages.
    names : str
        Files that the folder has to hold.

    Raises
    ------
    WeightsError
        If a file is missing, or loading fails inside the ``with`` statement.
    """
    from transformers.utils import logging

    folder = Path(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"{folder} lacks {', '.join(missing)}; pass the folder that data.store.find returns, or one that "
                           "save_pretrained wrote.")
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield folder
    except Exception as error:  # a broken file raises whatever its parser meets first
        raise WeightsError(f"the {what} in {folder} cannot be loaded ({type(error).__name__}: {error}); fetch it "
                           "again.") from error
    finally:
        if bar:
            logging.enable_progress_bar()
