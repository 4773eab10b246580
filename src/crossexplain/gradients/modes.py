"""What surrounds a pass: frozen parameters, buffers that are put back, and modes of PyTorch that would break the graph."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils import checkpoint

from crossexplain.checks import InputError, every_module, require_eval

# What surrounds a checkpoint of the newer kind, under the names of different versions of PyTorch.
GENERATORS = tuple(name for name in ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
                   if hasattr(checkpoint, name))
Entry = tuple[nn.Module, str, Any]  # a module, and a weight or a buffer of it with its name


@contextmanager
def untouched(model: nn.Module, gradients: bool, *, any_mode: bool = True) -> Iterator[None]:
    """Freeze the parameters, and put back flags and buffers (batch-norm statistics) afterwards.

    A graph is recorded only where gradients are asked for, whatever mode the caller is in; see :func:`_one_graph` for the modes
    that the model itself uses.

    Parameters
    ----------
    model : torch.nn.Module
    gradients : bool
    any_mode : bool
        False refuses a model in train mode, where that may make a difference.

    Raises
    ------
    InputError
        For a model in train mode, and for one with lazy layers that have no weights yet.
    """
    layers = every_module(model)
    if not any_mode:
        require_eval(model, layers, strict=False)
    special = [layer for layer in layers if isinstance(layer, (nn.RNNBase, LazyModuleMixin))]
    if any(isinstance(layer, LazyModuleMixin) for layer in special):
        raise InputError("the model has lazy layers, which get their weights from the first batch; call model(**inputs) once "
                         "before it is explained.")
    weights = [(layer, name, value) for layer in layers if layer._parameters
               for name, value in layer._parameters.items() if value is not None]
    parameters = [entry for entry in weights if entry[2].is_inference()]
    flipped = [entry for entry in weights if entry[2].requires_grad and not entry[2].is_inference()]
    buffers = [(layer, name, buffer, buffer.clone(), _version(buffer)) for layer in layers
               for name, buffer in layer._buffers.items() if buffer is not None]
    # cuDNN refuses the backward pass of a recurrent layer in eval mode; PyTorch's own kernels do not.
    slow = gradients and any(not layer.training for layer in special)
    try:
        for _, _, value in flipped:
            value.requires_grad_(False)
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.set_grad_enabled(gradients))
            modes.enter_context(_one_graph())
            if slow:
                modes.enter_context(torch.backends.cudnn.flags(enabled=False))
            _copy_inference(parameters, [entry[:3] for entry in buffers if entry[4] is None])
            yield
    finally:
        for layer, name, value in flipped:
            value.requires_grad_(True)
            now = layer._parameters[name]
            if now is not None and now is not value:  # a model that is offloaded has another one after each pass
                now.requires_grad_(True)
        for layer, name, value in parameters:
            setattr(layer, name, value)
        for layer, name, buffer, saved, version in buffers:
            layer._buffers[name] = buffer
            # Batch norm in train mode changes its statistics without counting up their version.
            if version is not None and (layer.training or _version(buffer) != version):
                with torch.no_grad():
                    buffer.copy_(saved)


def _copy_inference(parameters: Sequence[Entry], buffers: Sequence[Entry]) -> None:
    """Put copies in place of weights that were made under inference mode, which no graph can hold."""
    for layer, name, value in parameters:
        setattr(layer, name, nn.Parameter(value.clone(), requires_grad=False))
    for layer, name, value in buffers:
        layer._buffers[name] = value.clone()


def _version(buffer: Tensor) -> int | None:
    """Return how often a buffer was changed in place; None where it is not counted."""
    return None if buffer.is_inference() else buffer._version


@contextmanager
def _one_graph() -> Iterator[None]:
    """Let the whole forward pass run once, in Python, on tensors that a graph can hold.

    - What an activation checkpoint computes anew on the way back would pass the hooks by: it is kept instead.
    - ``torch.inference_mode`` inside the model acts as ``torch.no_grad``.
    - What ``torch.compile`` made before the hooks were there does not call them: Python runs instead.
    """
    acts = [(checkpoint, "CheckpointFunction", _CheckpointFunction),
            *((checkpoint, name, _checkpoint_generator) for name in GENERATORS),
            (torch.inference_mode, "__enter__", _inference_enter), (torch.inference_mode, "__exit__", _inference_exit)]
    before = [(place, name, getattr(place, name)) for place, name, _ in acts]
    try:
        for place, name, new in acts:
            setattr(place, name, new)
        with eager():
            yield
    finally:
        for place, name, old in before:
            setattr(place, name, old)


def eager() -> AbstractContextManager[None]:
    """Run in Python what ``torch.compile`` made, so that hooks are called."""
    made = "torch._dynamo" in sys.modules  # else nothing was compiled
    return torch.compiler.set_stance("force_eager") if made else nullcontext()


class _CheckpointFunction:
    """A checkpoint that keeps what is computed, of the older kind."""

    @staticmethod
    def apply(function: Callable[..., object], preserve: bool, *arguments: object) -> object:
        """Return what the function gives."""
        return function(*arguments)


def _checkpoint_generator(*arguments: object, **named: object) -> Iterator[None]:
    """Do what surrounds a checkpoint of the newer kind: nothing."""
    yield


def _inference_enter(mode: Any) -> None:
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(mode.before and not mode.mode)


def _inference_exit(mode: Any, *error: object) -> None:
    torch.set_grad_enabled(mode.before)
