"""What is said where a model cannot be called, or has no gradient: what came, and what to type."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from crossexplain.checks import InputError
from crossexplain.gradients.called import Called, calling_of
from crossexplain.gradients.evidence import tensors_in

GRADIENT_FREE = "Game, and explain with 'sampled shapley', 'kernel shap' or 'occlusion', need no gradient"


def failed_call(error: Exception, model: nn.Module, values: Mapping[str | int, object], by_name: bool) -> None:
    """Raise :class:`InputError` for what a model raised on some inputs; return where that is no matter of the inputs."""
    text = " ".join(str(error).split())
    if isinstance(error, (InputError, torch.OutOfMemoryError)) or "out of memory" in text or "allocate memory" in text:
        return
    described = ", ".join(f"{key!r} {_described(value)}" for key, value in values.items())
    failure = f"the model fails on its inputs ({described}) with {type(error).__name__}: {text[:300].rstrip('.')}"
    if isinstance(error, TypeError) and (call := _call_that_fits(model, values, by_name)):
        raise InputError(call) from error
    if "index out of range in self" in text:  # what an embedding on the CPU says
        raise InputError(_unknown_number(model, values)) from error
    if "nference tensor" in text:
        raise InputError(f"{failure}; a tensor that the model holds was made under torch.inference_mode(): make it "
                         "outside of it, or hold a .clone() of it.") from error
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    mismatched = [key for key, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()
                  and dtypes and value.dtype not in dtypes]
    if mismatched:
        dtype = min(dtypes, key=str)
        raise InputError(f"{failure}; the weights are {dtype}: convert {', '.join(map(repr, mismatched))} with .to({dtype}), "
                         "or the model with .float().") from error
    raise InputError(f"{failure}; compare the shapes, dtypes and numbers with what it was trained on, and call it by hand on "
                     "the same inputs.") from error


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return repr(value) if isinstance(value, (str, int, float, bool)) and len(repr(value)) < 30 else type(value).__name__


def _call_that_fits(model: nn.Module, values: Mapping[str | int, object], by_name: bool) -> str | None:
    """Return what to say where the inputs do not fit the names that ``forward`` has; None where they do."""
    inner, named = model, dict[Any, object](values)
    while isinstance(inner, Called):
        call, _, _, drop = calling_of(inner)
        if call is not None:
            return None
        inner, named = inner.wrapped_model, {key: value for key, value in named.items() if key not in drop}
    try:
        signature = inspect.signature(inner.forward)
        signature.bind(**named) if by_name else signature.bind(*named.values())
    except (TypeError, ValueError) as error:
        takes = ", ".join(map(str, signature.parameters.values())) if isinstance(error, TypeError) else "other arguments"
        given = f"the keywords {', '.join(map(repr, named))}" if by_name else f"{len(named)} argument(s)"
        return (f"{type(inner).__name__}.forward takes ({takes}) and is called with {given} ({error}). "
                f"{advice_of_call(inner, tuple(values))}")
    return None


def advice_of_call(model: nn.Module, keys: tuple[str | int, ...] = ()) -> str:
    """Return the three lines that let a model with a call of its own be called with keywords."""
    names = [key for key in keys if isinstance(key, str)] or ["images", "tokens"]
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    one = len(parameters) == 1 and parameters[0].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = "inputs" if one else ", ".join(f"inputs[{key!r}]" for key in names)
    tensors = ", ".join(f"{key!r}: {key}" for key in names)
    return ("Wrap it so that it takes a flat dict of tensors:\n"
            "    from crossexplain import Called\n"
            f"    model = Called(model, lambda model, inputs: model({given}))"
            f"{'  # or what it takes, made of inputs' if one else ''}\n"
            f"    inputs = {{{tensors}}}  # one row an example in each.")


def require_flat(model: nn.Module, inputs: object) -> None:
    """Raise :class:`InputError` unless inputs are a flat mapping whose entries can be cut into examples."""
    if not isinstance(inputs, Mapping):
        raise InputError(f"got inputs as {type(inputs).__name__}, expected a dict of tensors by the model's keywords. "
                         f"{advice_of_call(model)}")
    for key, value in inputs.items():
        if isinstance(value, np.ndarray):
            raise InputError(f"got input {key!r} as ndarray {value.shape}, expected a tensor; convert it with "
                             "torch.as_tensor(...).")
        if not isinstance(value, (Tensor, list)) and (inner := [path for path, _ in tensors_in(value, repr(key))]):
            raise InputError(f"got input {key!r} as {type(value).__name__} that holds tensors ({', '.join(inner[:4])}), which "
                             f"cannot be cut into examples. {advice_of_call(model, tuple(inputs))}")


def _unknown_number(model: nn.Module, values: Mapping[str | int, object]) -> str:
    ids = [f"{name!r} {int(value.min())} to {int(value.max())}" for name, value in values.items()
           if isinstance(value, Tensor) and not value.is_floating_point() and value.numel()]
    embeddings = [f"{name!r} 0 to {module.num_embeddings - 1}" for name, module in model.named_modules()
                  if isinstance(module, nn.Embedding)]
    return (f"an embedding was asked for an id that it does not have: the inputs hold ids {', '.join(ids) or 'none'}, the "
            f"embeddings have {', '.join(embeddings)}; check the word ids, and the mask and padding ids where words are "
            "hidden.")


def failed_backward(error: Exception, model: nn.Module) -> None:
    """Raise :class:`InputError` for what the backward pass raised; return where that is no matter of the model."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text:
        return
    raise InputError(f"the backward pass fails ({type(error).__name__}: {text[:300].rstrip('.')}); capture a layer after the "
                     f"step that has no gradient. {_of_quantised(model)}{GRADIENT_FREE}.") from error


def unused(model: nn.Module, place: str) -> str:
    """Return what is said where the target does not depend on a place through anything that has a gradient."""
    return (f"the target does not depend on {place!r} through anything differentiable: its output is unused, "
            "detached, computed under no_grad, or rounded afterwards (of a recurrent layer the "
            "states are read, not the output); capture a layer on the way to the output. "
            f"{_of_quantised(model)}{GRADIENT_FREE}.")


def _of_quantised(model: nn.Module) -> str:
    names = [repr(name) for name in quantised(model)]
    return f"Layers of this model are quantised ({', '.join(names[:4])}) and have none. " if names else ""


def quantised(model: nn.Module) -> list[str]:
    """Return the names of the layers that are quantised, by the names of their kinds."""
    return [name for name, layer in model.named_modules()
            if "quant" in f"{type(layer).__module__}.{type(layer).__name__}".lower()
            and not isinstance(layer, NonDynamicallyQuantizableLinear)]  # which nn.MultiheadAttention has
