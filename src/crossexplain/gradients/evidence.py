"""From what a model returns to logits, predicted classes, and the evidence for the class that is followed."""

import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.gradients.capture import first_tensor


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
        raise InputError(
            f"the model gives {tuple(logits.shape)} for {examples} examples, expected ({examples},) or ({examples}, classes); "
            "pass target=lambda output: ... that returns one number an example."
        )
    return logits.reshape(examples, -1)


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
