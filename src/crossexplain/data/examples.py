"""What all data sets made of labelled examples share: the names of the parts, selecting, batches, and checks of numbers."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from crossexplain.checks import InputError

SPLITS = ("train", "validation", "test")
Indices = int | slice | Sequence[int] | np.ndarray | torch.Tensor  # which examples are meant


class Examples:
    """Labelled examples; the base of data classes whose fields hold one entry for each example.

    A subclass names in ``common`` the fields that are not so but belong to all examples. With ``inputs``, which gives what a
    model takes by keyword, it can be trained on as it is.
    """

    common: ClassVar[tuple[str, ...]] = ()
    labels: Any  # (N,)
    inputs: Callable[..., dict[str, torch.Tensor]]
    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Indices) -> Self:
        """Return the examples at ``indices``, in that order, with all that is known of them."""
        chosen = np.atleast_1d(np.arange(len(self))[indices])
        known: Any = self  # a data class, as all that are derived from this are
        values = {field.name: getattr(self, field.name) for field in fields(known) if field.name not in self.common}
        selected: Self = replace(known, **{name: _at(value, chosen) for name, value in values.items()})
        return selected

    def batch(self, indices: Indices) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return inputs and labels of the examples at ``indices``."""
        indices = np.asarray(indices)
        return self.inputs(indices), torch.from_numpy(self.labels[indices])


def _at(values: Any, indices: np.ndarray) -> Any:
    """Return entries of an array, a list or a tuple; nothing of an empty one, where nothing is known of any example."""
    if isinstance(values, (list, tuple)):
        return type(values)(values[i] for i in indices) if values else values
    return values[indices]


def require_multiple(n: int, of: int, what: str, why: str) -> None:
    """Raise an :class:`InputError` unless a number of examples is a positive multiple of another number.

    Examples
    --------
    >>> require_multiple(5, 4, "pairs", "two pictures by two captions")
    Traceback (most recent call last):
    ...
    crossexplain.checks.InputError: got 5 pairs, expected a positive multiple of 4: two pictures by two captions.
    """
    if n < of or n % of:
        raise InputError(f"got {n} {what}, expected a positive multiple of {of}: {why}.")
