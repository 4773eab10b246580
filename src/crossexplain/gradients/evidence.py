"""From what a model returns to logits, predicted classes, and the evidence for the class that is followed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crossexplain.checks import InputError

DEEP = 4  # levels of an output that are searched for tensors, to name them in a message
LISTED = 6  # tensors that a message names at most
# Steps whose values lie from 0 to 1, and those that keep them there if all that they take does.
UNIT = {"Sigmoid": "sigmoid", "Softmax": "softmax", "SafeSoftmax": "softmax", "Hardsigmoid": "hard sigmoid"}
KEEPS_UNIT = set("Alias Amax Amin Cat Clamp Clone Detach Diagonal Expand Gather Index IndexSelect LiftFresh Max Mean Min "
                 "Permute ReshapeAlias Round Rsub Select Slice Split SplitWithSizes Squeeze Stack T ToCopy Transpose Unbind "
                 "UnsafeView Unsqueeze View".split())


def first_tensor(output: object, layer: str | None = None) -> Tensor:
    """Return the tensor of an output that counts: of a layer its first one, of a model (``layer=None``) the one that is judged.

    That is the model's output itself, its ``logits``, or its only floating tensor with axes.

    Raises
    ------
    InputError
        Where there is none, or several; the message lists them and says how to name one.
    """
    if isinstance(output, Tensor):
        if layer is not None and torch._C._functorch.is_functorch_wrapped_tensor(output):
            raise InputError(f"layer {layer!r} runs inside torch.vmap or another transform of torch.func, whose tensors do not "
                             "live on after it; write it as a call on the whole batch, or read the model at its inputs.")
        return output
    if layer is None:
        return _judged(output, _entries(output))
    entries = _entries(output).values() if isinstance(output, (Mapping, tuple, list)) else ()
    for entry in (output, *entries):
        if isinstance(entry, PackedSequence):
            raise InputError(f"layer {layer!r} gives a packed sequence, whose steps are not (N, T, D); pad it inside the model "
                             "(torch.nn.utils.rnn.pad_packed_sequence) and capture after that, or capture before it is packed.")
        if isinstance(entry, Tensor):
            return entry
    raise InputError(f"layer {layer!r} gives {type(output).__name__} without a tensor at its top level; capture another layer.")


def _judged(output: object, entries: Mapping[str, object]) -> Tensor:
    """Return the tensor of a structured output that is judged."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    tensors = {path: entry for path, entry in entries.items() if isinstance(entry, Tensor)}
    floating = [tensor for tensor in tensors.values() if tensor.is_floating_point() and tensor.ndim]
    if len(floating) == 1 or tensors and not floating:
        return (floating or list(tensors.values()))[0]
    found = [*tensors_in(output)]
    listed = ", ".join(f"output{path} {tuple(tensor.shape)}" for path, tensor in found[:LISTED]) or "no tensor"
    pairs = next((path for path, _ in found if "logits_per_image" in path), None)
    path, what = (f"{pairs}.diagonal()", "the pairs") if pairs else (found[-1][0] if found else "...", "the logits")
    listed += ", ..." * (len(found) > LISTED)
    raise InputError(f"the model gives {type(output).__name__} with {listed}, and none is its only tensor or "
                     f"is named logits; say which one is judged, where {what} are meant by model = Called(model, output=lambda "
                     f"output: output{path}), or pass a function as target, which gets the output as it is.")


def _entries(output: object) -> dict[str, object]:
    """Return the parts of a structure, by what one types after its name to get each."""
    if isinstance(output, Mapping):
        return {f"[{key!r}]": value for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        return {f"[{i}]": value for i, value in enumerate(output)}
    if is_dataclass(output):
        return {f".{field.name}": getattr(output, field.name) for field in fields(output)}
    return {f".{name}": value for name, value in getattr(output, "__dict__", {}).items()}


def tensors_in(output: object, path: str = "", deep: int = DEEP) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in an output, however nested, each with what one types after its name to get it."""
    if isinstance(output, Tensor):
        yield path, output
    elif deep:
        for part, value in _entries(output).items():
            yield from tensors_in(value, path + part, deep - 1)


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
        For an output that is neither (R,) nor (R, C), or holds no floating numbers.

    Examples
    --------
    >>> as_logits(torch.tensor([0.5, -1.0]), 2).tolist()
    [[0.5], [-1.0]]
    """
    logits = first_tensor(output)
    if not logits.is_floating_point():
        advice = "take the real part or the size" if logits.is_complex() else "return them before any argmax"
        raise InputError(f"the model gives {logits.dtype}, expected floating logits; {advice}.")
    if logits.ndim not in (1, 2) or len(logits) != examples:
        advice = "pass target=lambda output: ... that returns one number an example"
        if examples == 1 and logits.ndim < 2:
            advice = "with one example the model drops an axis, as .squeeze() does: " + keep_axis(logits.numel())
        raise InputError(f"the output has shape {tuple(logits.shape)} for {examples} example{'s' * (examples != 1)}, expected "
                         f"({examples},) or ({examples}, classes); {advice}.")
    return logits.reshape(examples, -1)


def keep_axis(columns: int) -> str:
    """Return what to type where a model drops the axis of the examples."""
    shape = "-1" if columns == 1 else f"-1, {columns}"
    return f"end it with .squeeze(-1), or type model = Called(model, output=lambda output: output.reshape({shape}))"


class Ends(TorchDispatchMode):
    """Sees, while a model runs, which tensors lie from 0 to 1 since a sigmoid or a softmax made them; it needs no graph."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.ends: dict[int, tuple[StorageWeakRef, str]] = {}  # by address, which nothing else gets while there is a reference

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a step, and note what its values are."""
        output = func(*args, **(kwargs or {}))
        name = "".join(part.title() for part in func.overloadpacket.__name__.split("_"))
        given = tree_leaves((args, kwargs))
        before = [self.of(value) for value in given if _is_floating(value)]
        factors = [value for value in given if isinstance(value, (int, float))]
        keeps = name in KEEPS_UNIT or name == "Mul" and all(0 <= factor <= 1 for factor in factors)
        end = UNIT.get(name) or (before[0] if keeps and before and all(before) else None)
        for value in filter(_is_floating, tree_leaves(output)):
            storage = value.untyped_storage()
            if end and value.numel() * value.element_size() >= storage.nbytes():
                self.ends[storage._cdata] = StorageWeakRef(storage), end
            elif not end and func._schema.is_mutable:
                self.ends.pop(storage._cdata, None)
        return output

    def of(self, values: Tensor) -> str | None:
        """Return what made a tensor lie between 0 and 1, such as ``"sigmoid"``; None where nothing is seen to do so."""
        return self.ends.get(values.untyped_storage()._cdata, (None, None))[1] if _is_floating(values) else None


def _is_floating(value: object) -> bool:
    """Return whether a value is a tensor of floating numbers in a row of memory."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided and not value.is_meta


def sums_to_one(logits: Tensor) -> bool:
    """Return whether an output has rows of numbers from 0 on that sum to 1."""
    if logits.ndim != 2 or logits.shape[1] < 2 or not _is_floating(logits):
        return False
    rows = logits.detach().double()
    return len(rows) > 0 and bool((rows >= 0).all()) and bool(((rows.sum(dim=1) - 1).abs() < 1e-3).all())


def end_of(node: object) -> str | None:
    """Return what the graph of an output ends in, ``"sigmoid"`` or ``"softmax"``; None for all else."""
    name = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
    if name in UNIT:
        return UNIT[name]
    before = [part for part, _ in getattr(node, "next_functions", ()) if part is not None]
    found = [end_of(part) for part in before] if name in KEEPS_UNIT or name == "Mul" and len(before) == 2 else []
    return found[0] if found and all(found) else None


def require_logits(end: str | None) -> None:
    """Raise :class:`InputError` for what :func:`end_of` has seen; it says how to get the logits back."""
    if end is None:
        return
    raise InputError(f"the model's output ends in a {end}: numbers from 0 to 1, all of which would be read as a yes, and whose "
                     f"gradient fades where the model is sure; return what goes into the {end}, or {undo(end)}.")


def undo(end: str) -> str:
    """Return what to type to make logits of what a sigmoid or a softmax gives."""
    return f"type model = Called(model, output=torch.{'log' if end == 'softmax' else 'logit'})"


def scored(function: Callable[[object], Tensor], output: object, examples: int) -> Tensor:
    """Return what a target function makes of a model's output, one number an example, (N,).

    Raises
    ------
    InputError
        If it fails, or gives something else.
    """
    try:
        score = function(output)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        held = ", ".join(f"output{path} {tuple(tensor.shape)}" for path, tensor in [*tensors_in(output)][:LISTED])
        raise InputError(f"the target function fails with {type(error).__name__}: {error}; it gets what the model gives, "
                         f"{type(output).__name__} with {held or 'no tensor'}, and returns one number an example.") from error
    return one_number_each(score, examples)


def one_number_each(score: object, examples: int) -> Tensor:
    """Return what a target function gave if it is one floating number an example, (N,)."""
    if isinstance(score, Tensor) and score.shape == (examples,) and score.is_floating_point():
        return score
    got: object = type(score).__name__
    if isinstance(score, Tensor):
        got = tuple(score.shape) if score.is_floating_point() else f"{score.dtype} {tuple(score.shape)}"
    raise InputError(f"the target function gave {got}, expected one number an example, shape ({examples},).")


def classes(logits: Tensor) -> Tensor:
    """Return the predicted class of logits (N, C), int64 (N,); of a single logit 1 where it is above 0, else 0.

    Examples
    --------
    >>> classes(torch.tensor([[0.5], [-1.0]])).tolist(), classes(torch.tensor([[0.5, 0.7, 0.1]])).tolist()
    ([1, 0], [1])
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else torch.argmax(logits, dim=1)


def no_inference(values: Tensor) -> Tensor:
    """Return values that a graph can hold: a copy of those that were made under ``torch.inference_mode``."""
    return values.clone() if values.is_inference() else values


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
    target = no_inference(target.to(logits.device))
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * target - 1)
    return logits.gather(1, target[:, None])[:, 0] - logits.mean(dim=1)
