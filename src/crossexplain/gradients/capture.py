"""Activations and gradients at named layers and at inputs, from one forward and one backward pass; the model stays as it was.

Everything before the first captured layer runs without a graph, the parameters are frozen meanwhile, and the backward
pass stops at the captured layers: that is what makes it cost little more than the forward pass alone.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, class_index, find_layer, require_batch, require_device, require_finite
from crossexplain.gradients.evidence import as_logits, classes, first_tensor, one_number_each

INPUT = "input:"  # prefix of the name of an input, as in "input:images"
ModelInputs = Mapping[str, object] | Sequence[object] | Tensor
Target = int | Tensor | Callable[[object], Tensor] | str | None


class NoGradient(InputError):
    """The score does not depend on a captured place through anything differentiable."""


@dataclass(frozen=True)
class Captured:
    """What one forward and one backward pass left at the captured places; all tensors are detached.

    Attributes
    ----------
    output : Tensor, shape (N, ...)
        The model's output; its logits where the output is a structure that names them.
    target : Tensor, shape (N,), or None
        Class index whose logit was differentiated; for a model with one logit, 1 is the logit and 0 its negative.
        None where the target was a function.
    score : Tensor, shape (N,)
        The number that was differentiated.
    activations : dict of str to Tensor
        What each layer gave or each input held, as the next layer saw it.
    gradients : dict of str to Tensor
        Gradient of ``score`` with respect to each activation, of the same shape; empty if none was asked for.
    """

    output: Tensor
    target: Tensor | None
    score: Tensor
    activations: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


def capture(model: nn.Module, inputs: ModelInputs, layers: str | Sequence[str], target: Target = None,
            gradients: bool = True, allow_unused: bool = False) -> Captured:
    """Run the model once and return activations, and gradients of one score an example, at the named places.

    Parameters
    ----------
    model : torch.nn.Module
        Any module. Its mode, parameters, gradients and buffers are the same afterwards; call ``model.eval()`` first
        where dropout or batch-norm should be still.
    inputs : mapping, tuple, list or Tensor
        Passed as ``model(**inputs)``, ``model(*inputs)`` or ``model(inputs)``. The first axis is the batch.
    layers : str or sequence of str
        Dotted names as in ``model.named_modules()``. ``"input:images"`` or ``"input:0"`` names an input by keyword or
        position. ``"relu@1"`` is the second call of a layer that the model calls more than once.
        Of a layer that returns a tuple or a mapping, its first tensor is captured and the rest is handed on;
        ``"attention.self#1"`` is the second entry of such a tuple (counted from 0; for self-attention, its map), which
        is read as it is, so that a layer before it has to be captured too if its gradient is asked for.
    target : int, Tensor of shape (N,), callable, "predicted" or None
        Which number to differentiate. An index: that class. A function: takes the model's own output, returns (N,).
        None: the logit where the model has one, else the logit of the predicted class. "predicted": the same, but a
        single logit that says no (0 or below) is differentiated with its sign turned, as evidence for the no.
    gradients : bool
        False captures activations only and builds no graph.
    allow_unused : bool
        Give a place on which the score does not depend a gradient of zero instead of an error.

    Returns
    -------
    Captured

    Raises
    ------
    InputError
        For an unknown layer (names the nearest), a layer that did not run or ran more than once, a layer or input
        without a gradient, an empty batch, inputs on another device, a class out of range, a target of the wrong
        shape, and NaN or infinity in the output or in a gradient.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    >>> captured = capture(model, torch.ones(5, 2), ["1", "input:0"])
    >>> captured.gradients["1"].shape, captured.gradients["input:0"].shape
    (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    with opened(model, inputs, layers, target, gradients) as graph:
        slopes = _differentiate(graph.score, graph.activations, allow_unused) if gradients else {}
    activations = {name: activation.detach() for name, activation in graph.activations.items()}
    return Captured(graph.output.detach(), graph.target, graph.score.detach(), activations, slopes)


def run(model: nn.Module, inputs: ModelInputs) -> object:
    """Return what the model returns, without a graph; the model and the errors are as for :func:`capture`."""
    call = _Call(model, inputs)
    with _untouched(model, gradients=False):
        return call.forward()


@contextmanager
def opened(model: nn.Module, inputs: ModelInputs, layers: str | Sequence[str], target: Target = None,
           gradients: bool = True) -> Iterator[Captured]:
    """Run the model once and keep the graph from the named places to the score, for derivatives of derivatives.

    Arguments and errors as for :func:`capture`. The tensors are not detached and there are no gradients yet: the caller takes
    them, as in ``torch.autograd.grad(graph.score.sum(), graph.activations[name], create_graph=True)``. Inside the ``with`` the
    parameters are frozen.
    """
    names = list(dict.fromkeys([layers] if isinstance(layers, str) else layers))
    if not names:
        raise InputError("no layer was named; pass at least one, for example layers=['features.12'].")
    taps = [_Tap(model, name, gradients) for name in names if not name.startswith(INPUT)]
    call = _Call(model, inputs)
    with _untouched(model, gradients):
        kept = call.open([name for name in names if name.startswith(INPUT)], gradients)
        output = call.forward(taps)
        for tap in taps:
            tap.require_one_call(call)
            kept[tap.name] = tap.tensor
        logits = first_tensor(output)
        score, index = _score(output, logits, target, call.size)
        yield Captured(logits, index, score, {name: kept[name] for name in names})


class _Tap:
    """A place to read: what a layer gives, cut from the graph before it where nothing before it is captured."""

    def __init__(self, model: nn.Module, name: str, gradients: bool):
        self.name, self.gradients = name, gradients
        self.path, number, entry = re.fullmatch(r"(.*?)(?:@(\d+))?(?:#(\d+))?", name, re.DOTALL).groups()
        self.number = None if number is None else int(number)  # which call of the layer, counted from 0
        self.entry = None if entry is None else int(entry)  # which entry of its output
        self.module = find_layer(model, self.path)
        self.calls = 0
        self.tensor: Tensor | None = None

    def hook(self, module: nn.Module, arguments: tuple, output: object) -> object:
        """Keep the output and hand a copy of it on, which later layers may overwrite."""
        self.calls += 1
        if self.number is not None and self.calls != self.number + 1:
            return None
        if self.entry is not None:
            self.tensor = self._entry(output)
            return None
        tensor = first_tensor(output, self.name)
        # After an earlier captured layer the graph must go on; before that there is none, and this is where it starts.
        # The test is on the tensor, not on the mode: a frozen tower under no_grad is cut at its last layer like any.
        if self.gradients and not tensor.requires_grad:
            if not tensor.is_floating_point():
                raise InputError(f"layer {self.name!r} gives {tensor.dtype}, which has no gradient; capture a layer after "
                                 "it, or pass gradients=False.")
            tensor = tensor.detach().requires_grad_()
        self.tensor = tensor
        with torch.set_grad_enabled(self.gradients):
            return _replace_first(output, tensor.clone())

    def _entry(self, output: object) -> Tensor:
        """Return one entry of the output, which is already part of the graph and so cannot be cut or replaced."""
        entries = list(output) if isinstance(output, (tuple, list)) else [output]
        if self.entry >= len(entries) or not isinstance(entries[self.entry], Tensor):
            kinds = ", ".join(type(entry).__name__ for entry in entries)
            raise InputError(f"layer {self.path!r} gives ({kinds}), which has no tensor {self.entry}; for attention maps "
                             "of a Hugging Face encoder load it with attn_implementation='eager'.")
        tensor = entries[self.entry]
        if self.gradients and not tensor.requires_grad:
            raise InputError(f"nothing before {self.name!r} is captured, so there is no graph to differentiate; name a layer "
                             "before it as well, for example the embeddings.")
        return tensor

    def require_one_call(self, call: "_Call") -> None:
        """Raise unless the layer gave exactly one tensor to read."""
        if self.tensor is None and self.calls:
            raise InputError(f"layer {self.path!r} ran {self.calls} time(s) in the forward pass, call {self.number} does not "
                             f"exist; count from 0 as in {self.path + '@0'!r}.")
        if self.tensor is None:
            ran = call.layers_that_run()
            near = get_close_matches(self.path, ran, n=5, cutoff=0.3) or ran[-5:]
            raise InputError(f"layer {self.path!r} exists but the forward pass never called it; layers of like name that run "
                             f"are {', '.join(map(repr, near)) or 'none'}.")
        if self.number is None and self.calls > 1:
            raise InputError(f"layer {self.path!r} ran {self.calls} times in one forward pass, so its gradient is ambiguous; "
                             f"say which call, as in {self.path + '@0'!r} or {f'{self.path}@{self.calls - 1}'!r}.")


class _Call:
    """A model with its inputs, which are detached from whatever made them."""

    def __init__(self, model: nn.Module, inputs: ModelInputs):
        self.model, self.by_name = model, isinstance(inputs, Mapping)
        if not self.by_name and not isinstance(inputs, (Tensor, tuple, list)):
            raise InputError(f"got inputs as {type(inputs).__name__}, expected a dict, a tuple, a list or a tensor; "
                             "pass {'images': images} for model(images=images).")
        values = inputs.items() if self.by_name else enumerate([inputs] if isinstance(inputs, Tensor) else inputs)
        self.values = {name: value.detach() if isinstance(value, Tensor) else value for name, value in values}
        batched = (value for value in self.values.values() if isinstance(value, Tensor) and value.ndim)
        first = next(batched, None)
        if first is None:
            raise InputError(f"the inputs {list(self.values)} hold no tensor with a batch axis; pass tensors (N, ...).")
        self.size = require_batch(len(first))
        require_device(model, self.values)

    def open(self, names: list[str], gradients: bool) -> dict[str, Tensor]:
        """Return the named inputs as leaves, and hand copies of them to the model."""
        for key, value in self.values.items():
            if isinstance(value, Tensor) and value.is_inference():  # autograd refuses it; a copy is a tensor like any
                self.values[key] = value.clone()
        leaves = {}
        for name in names:
            key = self._key(name)
            value = self.values[key]
            if not isinstance(value, Tensor):
                raise InputError(f"input {key!r} is {type(value).__name__}, expected a tensor to differentiate.")
            if gradients and not value.is_floating_point():
                raise InputError(f"input {key!r} holds {value.dtype}, which has no gradient; capture the layer that "
                                 "embeds it (for words, the embedding), or pass gradients=False.")
            leaves[name] = value.detach().requires_grad_(gradients)
            with torch.enable_grad():
                self.values[key] = leaves[name].clone()
        return leaves

    def _key(self, name: str) -> str | int:
        key = name[len(INPUT) :]
        if key in self.values:
            return key
        if key.isdigit() and int(key) < len(self.values):
            return list(self.values)[int(key)]
        near = get_close_matches(key, map(str, self.values), n=3, cutoff=0.3) or self.values
        raise InputError(f"there is no input {key!r}; the inputs are {', '.join(repr(f'{INPUT}{known}') for known in near)}.")

    def forward(self, taps: Sequence[_Tap] = ()) -> object:
        """Return what the model returns; the taps read on the way."""
        with ExitStack() as hooks:
            for tap in taps:
                hooks.enter_context(tap.module.register_forward_hook(tap.hook))
            try:
                return self.model(**self.values) if self.by_name else self.model(*self.values.values())
            except IndexError as error:
                if "index out of range in self" not in str(error):  # what an embedding on the CPU says
                    raise
                raise self._unknown_number() from error

    def _unknown_number(self) -> InputError:
        held = [f"{name!r} {int(value.min())} to {int(value.max())}" for name, value in self.values.items()
                if isinstance(value, Tensor) and not value.is_floating_point() and value.numel()]
        known = [f"{name!r} 0 to {module.num_embeddings - 1}" for name, module in self.model.named_modules()
                 if isinstance(module, nn.Embedding)]
        return InputError(f"an embedding was asked for a number that it does not have: the inputs hold "
                          f"{', '.join(held) or 'none'}, the embeddings know {', '.join(known)}; check the word ids, and the "
                          "mask and padding ids where words are hidden.")

    def layers_that_run(self) -> list[str]:
        """Return the names of the layers that a forward pass calls."""
        called = set()
        with nn.modules.module.register_module_forward_hook(lambda layer, *_: called.add(layer)), torch.no_grad():
            self.forward()
        return [name for name, layer in self.model.named_modules() if name and layer in called]


@contextmanager
def _untouched(model: nn.Module, gradients: bool) -> Iterator[None]:
    """Freeze the parameters, and put back flags and buffers (batch-norm statistics) afterwards.

    A graph is recorded only where gradients are asked for, whatever mode the caller is in.
    """
    layers = every_module(model)
    trainable = [parameter for layer in layers for parameter in layer._parameters.values()
                 if parameter is not None and parameter.requires_grad]
    buffers = [(layer, name, buffer, buffer.clone(), _version(buffer)) for layer in layers
               for name, buffer in layer._buffers.items() if buffer is not None]
    # cuDNN refuses the backward pass of a recurrent layer in eval mode; PyTorch's own kernels do not.
    recurrent = gradients and any(isinstance(layer, nn.RNNBase) and not layer.training for layer in layers)
    slow = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.set_grad_enabled(gradients), slow:
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for layer, name, buffer, saved, version in buffers:
            layer._buffers[name] = buffer
            # Batch norm in train mode changes its statistics without counting up their version.
            if version is None or layer.training or _version(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(saved)


def every_module(model: nn.Module) -> list[nn.Module]:
    """Return the model and all modules in it, as ``model.modules()`` does in several times the time."""
    found = {model: None}
    waiting = [model]
    while waiting:
        new = [part for part in waiting.pop()._modules.values() if part is not None and part not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def _version(buffer: Tensor) -> int | None:
    """Return how often a buffer was changed in place; None where it is not counted."""
    return None if buffer.is_inference() else buffer._version


def _replace_first(output: object, tensor: Tensor) -> object:
    """Return ``output`` with ``tensor`` in place of its first tensor, of the same type."""
    if isinstance(output, Tensor):
        return tensor
    entries = output.items() if isinstance(output, Mapping) else enumerate(output)
    key = next(key for key, value in entries if isinstance(value, Tensor))
    replaced = copy.copy(output) if isinstance(output, Mapping) else list(output)
    replaced[key] = tensor
    if isinstance(output, Mapping):
        return replaced
    return output._make(replaced) if hasattr(output, "_make") else type(output)(replaced)


def _score(output: object, logits: Tensor, target: Target, n: int) -> tuple[Tensor, Tensor | None]:
    """Return the number to differentiate, (N,), and the class that it belongs to, (N,)."""
    if not logits.is_floating_point():
        raise InputError(f"the model gives {logits.dtype}, expected floating logits; return them before any argmax.")
    require_finite(logits, "the model's output")
    if callable(target):
        return require_finite(one_number_each(target(output), n), "the target"), None
    require_target(target)
    logits = as_logits(logits, n)
    count = logits.shape[1]
    if target is None and count == 1:
        target = 1
    if target is None or isinstance(target, str):
        index = classes(logits.detach())
    else:
        index = class_index(target, max(2, count), n).to(logits.device)
    score = logits[:, 0] * (2 * index - 1) if count == 1 else logits.gather(1, index[:, None])[:, 0]
    return score, index


def require_target(target: Target) -> None:
    """Raise for a word other than ``"predicted"``."""
    if isinstance(target, str) and target != "predicted":
        raise InputError(f"got target={target!r}, expected 'predicted', a class index, a function or None.")


def _differentiate(score: Tensor, places: dict[str, Tensor], allow_unused: bool) -> dict[str, Tensor]:
    """Return the gradient of the scores at each place; the examples of a batch do not touch each other."""
    slopes = [None] * len(places)
    if score.requires_grad:
        slopes = torch.autograd.grad(score.sum(), list(places.values()), allow_unused=True)
    gradients = {}
    for (name, place), slope in zip(places.items(), slopes):
        if slope is None and not allow_unused:
            raise NoGradient(f"the target does not depend on {name!r} through anything differentiable: its output is unused, "
                             "detached, computed under no_grad, or rounded afterwards (of a recurrent layer the states are "
                             "read, not the output); capture a layer on the way to the output.")
        gradients[name] = torch.zeros_like(place) if slope is None else require_finite(slope, f"the gradient at {name!r}")
    return gradients
