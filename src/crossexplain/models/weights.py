"""Reading weights from files: what is missing, broken or of another model is told, and nothing is loaded from a network."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

BROKEN = (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)


class WeightsError(ValueError):
    """Weights are missing, broken, or not of this model; the message says what it got, what it expected and what to do."""


def read_weights(path: Path, advice: str = "fetch the file again.") -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file or of a state dict that was pickled.

    Raises
    ------
    WeightsError
        If there is no such file, or it holds anything else; ends in the advice.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}; crossexplain.data.store.find says where it looks.")
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(
            path, map_location="cpu", weights_only=True, mmap=True)
    except BROKEN as error:
        raise WeightsError(f"{path.name} cannot be read as weights ({error}); {advice}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"{path.name} holds {type(weights).__name__}, expected a state dict of tensors.")
    return weights


def require_fit(name: str, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: str, advice: str) -> None:
    """Raise :class:`WeightsError` unless the tensors of a file have the names and shapes of those of a model."""
    in_file, in_model = ({key: tuple(value.shape) for key, value in part.items()} for part in (weights, expected))
    differ = sorted(key for key in in_file | in_model if in_file.get(key) != in_model.get(key))
    if differ:
        raise WeightsError(f"{name} does not fit {model}: {len(differ)} entries differ, first {differ[0]!r} "
                           f"({in_file.get(differ[0], 'absent')} in the file, {in_model.get(differ[0], 'absent')} in the "
                           f"model); {advice}")


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
