"""Checks of what the caller passed. Every error says what came, what was expected and what to do."""

from collections.abc import Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from crossexplain.inputs import InputError


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the sub-module with a dotted name.

    Parameters
    ----------
    model : torch.nn.Module
        Any module.
    name : str
        Dotted name as in ``model.named_modules()``, for example ``"features.12"``.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    InputError
        If no layer has that name; the message lists the nearest names.

    Examples
    --------
    >>> find_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1")
    ReLU()
    """
    layers = dict(model.named_modules())
    layers.pop("", None)
    if name in layers:
        return layers[name]
    near = get_close_matches(str(name), layers, n=5, cutoff=0.3) or list(layers)[:5]
    raise InputError(
        f"{type(model).__name__} has no layer {name!r}; the nearest names are {', '.join(map(repr, near))}. "
        "Print `[n for n, _ in model.named_modules()]` for all of them."
    )


def require_device(model: nn.Module, inputs: Mapping | tuple | list | Tensor) -> torch.device:
    """Return the device that the model and every input tensor share.

    Raises
    ------
    InputError
        If the model and an input lie on different devices.
    """
    parameter = next(model.parameters(), None)
    named = inputs.items() if isinstance(inputs, Mapping) else enumerate(
        [inputs] if isinstance(inputs, Tensor) else inputs
    )
    tensors = [(name, value) for name, value in named if isinstance(value, Tensor)]
    home = parameter.device if parameter is not None else (tensors[0][1].device if tensors else torch.device("cpu"))
    for name, value in tensors:
        if value.device != home:
            raise InputError(
                f"input {name!r} is on {value.device}, the model is on {home}; move it with .to({str(home)!r})."
            )
    return home


def class_index(target: int | Tensor, classes: int, examples: int) -> Tensor:
    """Return one class index per example.

    Parameters
    ----------
    target : int or Tensor, shape (N,)
        The class to explain, the same for all examples or one each.
    classes : int
        Number of classes of the model.
    examples : int
        Number of examples, N.

    Returns
    -------
    Tensor, shape (N,), int64

    Raises
    ------
    InputError
        If an index is out of range or the number of indices is not N.
    """
    index = torch.as_tensor(target)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise InputError(f"target has dtype {index.dtype}, expected whole class indices; use .argmax(dim=1).")
    index = index.long().reshape(-1)
    if index.numel() == 1:
        index = index.expand(examples)
    if index.numel() != examples:
        raise InputError(f"target has {index.numel()} entries, the batch has {examples} examples; pass one each.")
    if index.numel() and not (0 <= int(index.min()) and int(index.max()) < classes):
        raise InputError(
            f"target holds class {int(index.max() if index.max() >= classes else index.min())}, "
            f"the model has classes 0 to {classes - 1}."
        )
    return index
