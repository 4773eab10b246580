"""Every check of what a caller passed, for models and gradients alike: batches, images, numbers, layers, devices, targets.

Every error says what was passed, what was expected and what to do.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain
from numbers import Integral
from types import CodeType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

# Wrappers of PyTorch, whose inner module computes the same where hooks are called: class name -> where the module is.
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
# Modules of torch.nn whose answer differs in train mode; all others of torch.nn give the same in both modes.
_BY_MODE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RNNBase, nn.RReLU, nn.MultiheadAttention)
_SAME_IN_BOTH = ("torch.nn.", "torch.ao.nn.quantized.", "torch._dynamo.")

# Noise, and pixels borrowed or made up for a view, leave the range from 0 to 1 by a few standard deviations; pixels from 0
# to 255 leave it by far. No picture with something on it lies in between.
FAR = 8.0
Chosen = TypeVar("Chosen")


class InputError(ValueError):
    """What was passed cannot be used: the message says what it was, what was expected, and what to do."""


def require_images(images: Tensor, channels: int | None = None, smallest: int = 2, side: int | None = None,
                   unit: bool = False) -> Tensor:
    """Return a batch of images unchanged if it is one.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
        Floating point, finite.
    channels : int, optional
        Number of channels that the model was built for.
    smallest : int
        Least height and width, in pixels.
    side : int, optional
        Height and width, in pixels, of a model that takes no other.
    unit : bool
        The model was built for values from 0 to 1. Somewhat smaller and larger ones pass, since noise on an image brings
        them; pixels from 0 to 255 do not.

    Raises
    ------
    InputError
        For another type, number of axes, dtype, size, number of channels, range, or for NaN and infinity.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"got images as {type(images).__name__}, expected a torch.Tensor (N, C, H, W); convert with "
                         "torchvision.transforms.v2.functional.to_image and to_dtype(..., scale=True).")
    if images.ndim != 4:
        raise InputError(f"images have shape {tuple(images.shape)}, expected four axes (N, C, H, W); add a batch axis to a "
                         "single image with image[None].")
    if not images.is_floating_point():
        raise InputError(f"images have dtype {images.dtype}, expected a floating dtype; divide 8-bit pixels by 255 first, or "
                         "pass images.float() to a model that divides them itself.")
    require_batch(images.shape[0])
    if channels is not None and images.shape[1] != channels:
        advice = {3: "repeat a grey image with images.expand(-1, 3, -1, -1)",
                  1: "make it grey with images.mean(dim=1, keepdim=True)"}.get(channels, "convert the mode first")
        advice = "drop the alpha channel with images[:, :3]" if images.shape[1] == 4 else advice
        raise InputError(f"images have {images.shape[1]} channel(s), the model expects {channels}; {advice}.")
    if min(images.shape[2:]) < smallest:
        raise InputError(f"images are {images.shape[2]} x {images.shape[3]} pixels, expected at least {smallest} x "
                         f"{smallest}; resize them to the size that the model was trained on.")
    if side is not None and tuple(images.shape[2:]) != (side, side):
        raise InputError(f"images are {images.shape[2]} x {images.shape[3]} pixels, the model takes {side} x {side} and no "
                         "other; resize or crop them.")
    if not images.is_meta:
        _require_values(images, unit)
    return images


def _require_values(images: Tensor, unit: bool) -> None:
    low, high = (value.item() for value in images.detach().aminmax())  # NaN if one is NaN: a single look at each pixel
    if not (-torch.inf < low and high < torch.inf):
        require_finite(images, "images")
    if unit and max(-low, high) > FAR:
        raise InputError(f"images hold values from {low:.4g} to {high:.4g}, expected 0 to 1; divide 8-bit pixels by 255, "
                         "and leave standardising to the model, which does it itself where it needs it.")


def require_finite(values: Tensor, what: str) -> Tensor:
    """Return ``values`` unchanged if none is NaN or infinite.

    Raises
    ------
    InputError
        Says how many entries are not finite and which example holds the first.
    """
    if torch.isfinite(values.detach().sum(dtype=torch.float32)):  # one sum where all is well
        return values
    bad = ~torch.isfinite(values.detach())
    if bad.any():
        example = int(bad.reshape(bad.shape[0], -1).any(dim=1).nonzero()[0]) if values.ndim else 0
        raise InputError(f"{what}: {int(bad.sum())} of {values.numel()} entries are NaN or infinite (first in example "
                         f"{example}), expected finite numbers; check the input's range, the weights, and half-precision "
                         "overflow.")
    return values


def require_batch(size: int) -> int:
    """Return the batch size if it is at least one, else raise :class:`InputError`."""
    if size < 1:
        raise InputError("the batch is empty (0 examples), expected at least 1; check the filter that selected it.")
    return size


def require_model(model: object) -> nn.Module:
    """Return a model, without the wrappers of ``torch.compile`` and of data parallelism, which hooks do not reach into.

    Raises
    ------
    InputError
        For anything that is no :class:`torch.nn.Module`.
    """
    if not isinstance(model, nn.Module):
        inner = getattr(model, "model", None)
        advice = "pass its .model" if isinstance(inner, nn.Module) else "a function has no layers to read: pass the module"
        raise InputError(f"got a model of type {type(model).__name__}, expected a torch.nn.Module; {advice}.")
    while isinstance(inner := getattr(model, _WRAPPERS.get(type(model).__name__, ""), None), nn.Module):
        model = inner
    return model


def every_module(model: nn.Module) -> list[nn.Module]:
    """Return the model and all modules in it, as ``model.modules()`` does in several times the time.

    Of a model in :class:`~crossexplain.gradients.called.Called`, these are the model's own.
    """
    while (inner := model.__dict__.get("wrapped_model")) is not None:
        model = inner
    found = {model: None}
    waiting = [model]
    while waiting:
        new = [part for part in waiting.pop()._modules.values() if part is not None and part not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the sub-module with a dotted name.

    Parameters
    ----------
    model : torch.nn.Module
        Any module.
    name : str
        Dotted name as in ``model.named_modules()``, for example ``"features.12"``. A module may be called by any of its names,
        and with or without the prefix of ``torch.compile`` or of data parallelism.

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
    return _layer(model, layer_path(model, name))


def layer_path(model: nn.Module, name: str) -> str:
    """Return the name of a layer without the prefix of a wrapper; as for :func:`find_layer`."""
    paths = [str(name)]
    while (first := paths[-1].partition("."))[0] in _WRAPPERS.values():
        paths.append(first[2])
    for path in filter(None, paths):
        with suppress(AttributeError, KeyError):
            _layer(model, path)
            return path
    layers = [known for known, _ in model.named_modules(remove_duplicate=False) if known]
    near = get_close_matches(str(name), layers, n=5, cutoff=0.3) or layers[:5]
    raise InputError(f"{type(model).__name__} has no layer {name!r}; the nearest names are {', '.join(map(repr, near))}. "
                     "Print `[n for n, _ in model.named_modules()]` for all of them.")


def _layer(model: nn.Module, path: str) -> nn.Module:
    scripted = isinstance(model, torch.jit.ScriptModule)  # has names, and no get_submodule
    return dict(model.named_modules())[path] if scripted else model.get_submodule(path)


def require_device(model: nn.Module, inputs: Mapping[str | int, object]) -> torch.device:
    """Return the device that the model and every input tensor share; inputs by keyword or position.

    Of a model whose weights are kept elsewhere, as by accelerate, it is the device on which it computes.

    Raises
    ------
    InputError
        If the model and an input lie on different devices, or the model has no weights.
    """
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    home = next((tensor.device for tensor in chain(model.parameters(), tensors.values())), torch.device("cpu"))
    if all(value.device == home for value in tensors.values()):
        return home
    homes = {parameter.device for parameter in model.parameters()}  # a model may be spread over several devices
    hooks = [module._hf_hook for module in every_module(model) if hasattr(module, "_hf_hook")]
    homes |= {torch.device(device) for hook in hooks if (device := getattr(hook, "execution_device", None)) is not None}
    for name, value in tensors.items():
        if value.device not in homes:
            advice = f"move it with .to({str(home)!r})" if home.type != "meta" else \
                "there the weights have no numbers: load them, or let the library that offloaded the model run it here"
            raise InputError(f"input {name!r} is on {value.device}, the model is on {home}; {advice}.")
    return next(iter(tensors.values())).device


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
    index = as_tensor(target, "target")
    if index.is_floating_point() or index.dtype == torch.bool:
        raise InputError(f"target has dtype {index.dtype}, expected whole class indices; use .argmax(dim=1).")
    index = index.long().reshape(-1)
    if index.numel() == 1:
        index = index.expand(examples)
    if index.numel() != examples:
        raise InputError(f"target has {index.numel()} entries, the batch has {examples} examples; pass one each.")
    if index.numel() and not (0 <= int(index.min()) and int(index.max()) < classes):
        raise InputError(f"target holds class {int(index.max() if index.max() >= classes else index.min())}, the model has "
                         f"classes 0 to {classes - 1}.")
    return index


def require_eval(model: nn.Module, layers: Sequence[nn.Module] | None = None, strict: bool = True) -> nn.Module:
    """Return the model unchanged if every part of it is in eval mode that may compute something else in train mode.

    Parameters
    ----------
    model : torch.nn.Module
    layers : sequence of torch.nn.Module, optional
        What :func:`every_module` gives, where it is known already.
    strict : bool
        Also count modules of other libraries whose own code does not read the mode.

    Raises
    ------
    InputError
        Names the first parts in train mode.
    """
    training = {layer for layer in layers or every_module(model) if layer.training and _differs_by_mode(layer, strict)}
    if not training:
        return model
    names = [name for name, layer in model.named_modules() if layer in training]
    parts = f"{len(names)} part(s) of the model ({', '.join(map(repr, names[:4]))}) are"
    where = "the model is" if model.training else parts
    raise InputError(f"{where} in train mode, where dropout draws anew at each pass and batch statistics depend on the other "
                     "examples; call model.eval() first.")


def _differs_by_mode(layer: nn.Module, strict: bool) -> bool:
    """Return whether a module may compute something else in train mode."""
    if isinstance(layer, _BY_MODE):
        return bool(getattr(layer, "p", 1)) and bool(getattr(layer, "dropout", 1))
    if type(layer).__module__.startswith(_SAME_IN_BOTH):
        return False
    if strict or isinstance(layer, torch.jit.ScriptModule):
        return True
    own = [kind for kind in type(layer).__mro__ if not kind.__module__.startswith(("torch.nn.", "builtins"))]
    functions = [inspect.unwrap(part) for kind in own for part in vars(kind).values() if callable(part)]
    return any(_reads_mode(getattr(part, "__code__", None)) for part in functions)


def _reads_mode(code: CodeType | None) -> bool:
    """Return whether a piece of code, or one within it, names ``training``."""
    held = () if code is None else (*code.co_names, *code.co_consts)
    return "training" in held or any(_reads_mode(part) for part in held if isinstance(part, CodeType))


def require_tokens(tokens: Tensor, vocabulary: int, longest: int | None = None) -> Tensor:
    """Return a batch of texts unchanged if it is one.

    Parameters
    ----------
    tokens : Tensor, shape (N, T), int64
    vocabulary : int
        Number of words that the model knows, which are 0 to ``vocabulary - 1``.
    longest : int, optional
        Greatest number of tokens of a text that the model can read.

    Raises
    ------
    InputError
        For another shape or dtype, unknown words, and texts that are too long.
    """
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or tokens.shape[1] < 1:
        raise InputError(f"got tokens of {tokens.dtype} and shape {tuple(tokens.shape)}, expected int64 (N, T).")
    if longest is not None and tokens.shape[1] > longest:
        raise InputError(f"got texts of {tokens.shape[1]} tokens, at most {longest} can be read; shorten them.")
    if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < vocabulary):
        raise InputError(f"got tokens from {int(tokens.min())} to {int(tokens.max())}, the model knows words 0 to "
                         f"{vocabulary - 1}; use the words or the tokenizer that it was trained with.")
    return tokens


def require_pairs(images: Tensor, tokens: Tensor) -> None:
    """Raise :class:`InputError` unless there is one text for each picture."""
    if len(images) != len(tokens):
        raise InputError(f"got {len(images)} images and {len(tokens)} texts, expected as many of both, since they are "
                         "pairs; similarity() compares each image with each text.")


def require_one_of(value: Chosen, allowed: Iterable[object], what: str) -> Chosen:
    """Return a value if it is one of those that are allowed, or raise :class:`InputError`; the message lists them."""
    allowed = list(allowed)
    if not getattr(value, "ndim", 0) and value in allowed:  # an array is compared entry by entry
        return value
    near = get_close_matches(str(value), map(str, allowed), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"got {what} {value!r}, expected one of {', '.join(map(repr, allowed))}{hint}")


def require_methods(methods: str | Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the names of one or several methods as a list, or raise :class:`InputError` if there is none or an unknown one."""
    names, known = [methods] if isinstance(methods, str) else entries_of(methods) or [], list(dict.fromkeys(known))
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown or not names:
        reason = f"there is no method {unknown[0]!r}" if unknown else "no method was named"
        raise InputError(f"{reason}; the methods are {', '.join(known)}.")
    return names


def entries_of(values: object) -> list[Any] | None:
    """Return the entries of what can be gone through; None of a text, a mapping, a number, and what else has none."""
    with suppress(TypeError, RuntimeError):  # the second of tensors that hold no numbers
        values = values.tolist() if isinstance(values, (Tensor, np.ndarray)) else values
        return None if isinstance(values, (str, bytes, Mapping)) else list(values)  # type: ignore[arg-type]  # tried
    return None


def require_names(**given: object) -> None:
    """Raise :class:`InputError` unless each of the arguments is a name, or None where that leaves it out."""
    for what, name in given.items():
        if not (isinstance(name, str) or name is None):
            raise InputError(f"got {what}={name!r}, expected a name, as text.")


def require_flags(**given: object) -> None:
    """Raise :class:`InputError` unless each of the arguments is True or False."""
    for what, flag in given.items():
        if not isinstance(flag, (bool, int, np.bool_)):
            raise InputError(f"got {what}={flag!r}, expected True or False.")


def require_whole(least: int = -(2**63), **given: object) -> None:
    """Raise :class:`InputError` unless each of the arguments is a whole number from ``least`` on, of at most 63 bits."""
    for what, number in given.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or not least <= int(number) < 2**63:
            from_on = "" if least < 0 else f", {least} or more"
            raise InputError(f"got {what}={number!r}, expected a whole number{from_on} and below 2**63.")


def as_tensor(values: object, what: str, device: torch.device | None = None) -> Tensor:
    """Return what can be written as a tensor as one, or raise :class:`InputError`."""
    try:
        made = torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"got {what}={values!r}, expected a tensor.") from error
    if made.is_meta or made.layout != torch.strided:
        raise InputError(f"got {what} as a tensor on {made.device} of {made.layout}, expected one that holds its numbers.")
    return made


def is_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what it comes from, says that the memory is full; PyTorch has no class for that on a CPU."""
    own = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in ("can't allocate memory", "not enough memory"))
    return own or error.__cause__ is not None and is_of_memory(error.__cause__)
