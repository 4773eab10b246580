"""From what a model returns to logits, predicted classes, and the evidence for the class that is followed."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from crossexplain.checks import InputError


def first_tensor(output: object, layer: str | None = None) -> Tensor:
    """Return the tensor of an output that counts: itself, its first tensor, or of a model (``layer=None``) its ``logits``."""
    if isinstance(output, Tensor):
        return output
    what = "the model" if layer is None else f"layer {layer!r}"
    if isinstance(output, PackedSequence):
        raise InputError(f"{what} gives a packed sequence, whose steps are not (N, T, D); pad it inside the model "
                         "(torch.nn.utils.rnn.pad_packed_sequence) and capture after that.")
    named = isinstance(output, Mapping)
    logits = output.get("logits") if named else getattr(output, "logits", None)
    if layer is None and isinstance(logits, Tensor):
        return logits
    entries = output.values() if named else output if isinstance(output, (tuple, list)) else ()
    for entry in entries:
        if isinstance(entry, Tensor):
            return entry
    raise InputError(f"{what} gives {type(output).__name__} without a tensor at its top level; capture another layer.")


def as_logits(output: object, examples: int) -> Tensor:
    """Return the logits of a model's output with one column a class.

    Parameters
    ----------
    output : Tensor, mapping, tuple or an object with ``logits``
        What the model returned.
    examples : int
        Rows that went in, R.

    Returns
    -------
    Tensor, shape (R, C)
        One column for a model with one logit.

    Raises
    ------
    InputError
        For an output that is neither (R,) nor (R, C).

    Examples
    --------
    >>> as_logits(torch.tensor([0.5, -1.0]), 2).tolist()
    [[0.5], [-1.0]]
    """
    logits = first_tensor(output)
    if logits.ndim not in (1, 2) or len(logits) != examples:
        raise InputError(f"the output has shape {tuple(logits.shape)} for {examples} examples, expected ({examples},) or "
                         f"({examples}, classes); pass target=lambda output: ... that returns one number an example.")
    return logits.reshape(examples, -1)


def one_number_each(score: object, examples: int) -> Tensor:
    """Return what a target function gave if it is one number an example, (N,)."""
    if isinstance(score, Tensor) and score.shape == (examples,):
        return score
    got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
    raise InputError(f"the target function gave {got}, expected one number an example, shape ({examples},).")


def classes(logits: Tensor) -> Tensor:
    """Return the predicted class of logits (N, C), int64 (N,); of a single logit 1 where it is above 0, else 0.

    Examples
    --------
    >>> classes(torch.tensor([[0.5], [-1.0]])).tolist(), classes(torch.tensor([[0.5, 0.7, 0.1]])).tolist()
    ([1, 0], [1])
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else torch.argmax(logits, dim=1)


def evidence(logits: Tensor, target: Tensor) -> Tensor:
    """Return the evidence for a class: its logit, less the mean over the classes where there are several.

    Parameters
    ----------
    logits : Tensor, shape (N, C)
    target : Tensor of int64, shape (N,)
        Class that is followed; of a single logit, 1 for yes and 0 for no, whose evidence is the negative logit.

    Returns
    -------
    Tensor, shape (N,)
        Of the dtype of the logits.

    Examples
    --------
    >>> evidence(torch.tensor([[0.5], [-1.0]]), torch.tensor([1, 0])).tolist()
    [0.5, 1.0]
    >>> evidence(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).tolist()
    [1.0]
    """
    target = target.to(logits.device)
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * target - 1)
    return logits.gather(1, target[:, None])[:, 0] - logits.mean(dim=1)
