"""Activations and gradients at named layers and at inputs, from one forward and one backward pass; the model stays as it was.

Everything before the first captured layer runs without a graph, the parameters are frozen meanwhile, and the backward
pass stops at the captured layers: that is what makes it cost little more than the forward pass alone.
"""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from crossexplain.checks import (
    InputError,
    class_index,
    entries_of,
    find_layer,
    require_batch,
    require_device,
    require_finite,
    require_flags,
    require_model,
)
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.evidence import (
    as_logits,
    classes,
    end_of,
    first_tensor,
    no_inference,
    require_logits,
    scored,
    tensors_in,
)
from crossexplain.gradients.failures import advice_of_call, failed_backward, failed_call, unused
from crossexplain.gradients.modes import untouched

DRAWN = 1e-3  # share of an output's size by which it may differ when the model is asked again
INPUT = "input:"  # prefix of the name of an input, as in "input:images"
ModelInputs = Mapping[str, Any] | Sequence[Any] | Tensor
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
            gradients: bool = True, allow_unused: bool = False, any_mode: bool = False) -> Captured:
    """Run the model once and return activations, and gradients of one score an example, at the named places.

    Parameters
    ----------
    model : torch.nn.Module
        Any module in eval mode, or a :class:`~crossexplain.gradients.called.Called`. Its mode, parameters, gradients and
        buffers are the same afterwards.
    inputs : mapping, tuple, list or Tensor
        Passed as ``model(**inputs)``, ``model(*inputs)`` or ``model(inputs)``, as copies. The first axis is the batch.
    layers : str or sequence of str
        Dotted names as in ``model.named_modules()``. ``"input:images"`` or ``"input:0"`` names an input by keyword or
        position. ``"relu@1"`` is the second call of a layer that the model calls more than once.
        Of a layer that returns a tuple or a mapping, its first tensor is captured and the rest is handed on;
        ``"attention.self#1"`` is the second entry of such a tuple (counted from 0; for self-attention, its map), which
        is read as it is, so that a layer before it has to be captured too if its gradient is asked for.
    target : int, Tensor of shape (N,), callable, "predicted" or None
        Which number to differentiate. An index: the logit of that class. A function: takes the model's output as it is, however
        nested, and returns (N,).
        None: the logit where the model has one, else the logit of the predicted class. "predicted": the same, but a
        single logit that says no (0 or below) is differentiated with its sign turned, as evidence for the no.
    gradients : bool
        False captures activations only and builds no graph.
    allow_unused : bool
        Give a place on which the score does not depend a gradient of zero instead of an error.
    any_mode : bool
        Accept a model in train mode, as while it is trained, and one that ends in probabilities.

    Returns
    -------
    Captured

    Raises
    ------
    InputError
        For an unknown layer (names the nearest), a layer that did not run or ran more than once, a layer or input
        without a gradient, an empty batch, inputs on another device, a model in train mode or one that fails on the inputs,
        an output that is no logits, a class out of range, a target of the wrong shape, and NaN or infinity in the output or in
        a gradient.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    >>> captured = capture(model, torch.ones(5, 2), ["1", "input:0"])
    >>> captured.gradients["1"].shape, captured.gradients["input:0"].shape
    (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    require_flags(allow_unused=allow_unused)
    with opened(model, inputs, layers, target, gradients, any_mode) as graph:
        slopes = _differentiate(model, graph.score, graph.activations, allow_unused) if gradients else {}
    activations = {name: activation.detach() for name, activation in graph.activations.items()}
    return Captured(graph.output.detach(), graph.target, graph.score.detach(), activations, slopes)


def run(model: nn.Module, inputs: ModelInputs) -> object:
    """Return what the model returns, without a graph; the model and the errors are as for :func:`capture`."""
    call = _Call(model, inputs)
    with untouched(call.model, gradients=False):
        return call.forward()


@contextmanager
def opened(model: nn.Module, inputs: ModelInputs, layers: str | Sequence[str], target: Target = None,
           gradients: bool = True, any_mode: bool = False) -> Iterator[Captured]:
    """Run the model once and keep the graph from the named places to the score, for derivatives of derivatives.

    Arguments and errors as for :func:`capture`. The tensors are not detached and there are no gradients yet: the caller takes
    them, as in ``torch.autograd.grad(graph.score.sum(), graph.activations[name], create_graph=True)``. Inside the ``with`` the
    parameters are frozen.
    """
    require_flags(gradients=gradients, any_mode=any_mode)
    gradients, any_mode = bool(gradients), bool(any_mode)
    names = [layers] if isinstance(layers, str) else entries_of(layers) or []
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"got layers={layers!r}, no layer was named; pass at least one name, as in layers=['features.12'].")
    names = list(dict.fromkeys(names))
    call = _Call(model, inputs)
    taps = [_Tap(call.model, name, gradients) for name in names if not name.startswith(INPUT)]
    with untouched(call.model, gradients, any_mode=any_mode):
        kept = call.open([name for name in names if name.startswith(INPUT)], gradients)
        drawn = _generators()
        output = call.forward(taps)
        for tap in taps:
            kept[tap.name] = tap.only_tensor(call)
        if not (any_mode or all(map(torch.equal, drawn, _generators()))):
            call.require_repeatable(output)
        logits, score, index = _score(output, target, call, any_mode)
        yield Captured(logits, index, score, {name: kept[name] for name in names})


def _generators() -> list[Tensor]:
    """Return the states of the generators of random numbers, of all devices that are in use."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]


@contextmanager
def changed(model: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer, or one call of it, hand on what a function makes of its values."""
    path, number, entry = split_name(layer)
    if entry is not None:
        raise InputError(f"the values at {layer!r} cannot be replaced from outside; name the layer without '#'.")
    calls = 0

    def after(module: nn.Module, arguments: tuple[Any, ...], output: object) -> object:
        nonlocal calls
        calls += 1
        if number is not None and calls != number + 1:
            return None
        values = first_tensor(output, layer)
        return replace_first(output, change(values).to(values.dtype))

    handle = find_layer(model, path).register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def split_name(name: str) -> tuple[str, int | None, int | None]:
    """Return the name of a layer, which of its calls is meant and which entry of its output, both None where not said.

    Examples
    --------
    >>> split_name("encoder@1#0"), split_name("encoder")
    (('encoder', 1, 0), ('encoder', None, None))
    """
    found = re.fullmatch(r"(.*?)(?:@(\d+))?(?:#(\d+))?", name, re.DOTALL)
    path, call, entry = found.groups() if found else (name, None, None)
    return path, None if call is None else int(call), None if entry is None else int(entry)


class _Tap:
    """A place to read: what a layer gives, cut from the graph before it where nothing before it is captured."""

    def __init__(self, model: nn.Module, name: str, gradients: bool):
        self.name, self.gradients = name, gradients
        self.path, self.number, self.entry = split_name(name)
        self.module = find_layer(model, self.path)
        self.calls = 0
        self.tensor: Tensor | None = None

    def hook(self, module: nn.Module, arguments: tuple[Any, ...], output: object) -> object:
        """Keep the output and hand a copy of it on, which later layers may overwrite."""
        self.calls += 1
        if self.number is not None and self.calls != self.number + 1:
            return None
        if self.entry is not None:
            self.tensor = self._entry(output, self.entry)
            return None
        tensor = first_tensor(output, self.name)
        # After an earlier captured layer the graph must go on; before that there is none, and this is where it starts.
        # The test is on the tensor, not on the mode: a frozen tower under no_grad is cut at its last layer like any.
        if self.gradients and not tensor.requires_grad:
            if not tensor.is_floating_point():
                raise InputError(f"layer {self.name!r} gives {tensor.dtype}, which has no gradient; capture a layer after it, "
                                 "or pass gradients=False.")
            tensor = tensor.detach().requires_grad_()
        self.tensor = tensor
        with torch.set_grad_enabled(self.gradients):
            return replace_first(output, tensor.clone())

    def register(self) -> RemovableHandle:
        """Let the hook be called."""
        try:
            return self.module.register_forward_hook(self.hook)
        except RuntimeError as error:
            raise self._scripted() from error

    def _scripted(self) -> InputError:
        return InputError(f"layer {self.path!r} is part of a scripted or traced model (torch.jit), whose inside no hook "
                          "reaches; pass the model that it was made from, or read at an input, as in 'input:images'.")

    def _entry(self, output: object, number: int) -> Tensor:
        """Return one entry of the output, which is already part of the graph and so cannot be cut or replaced."""
        entries = list(output) if isinstance(output, (tuple, list)) else [output]
        if number >= len(entries) or not isinstance(tensor := entries[number], Tensor):
            kinds = ", ".join(type(entry).__name__ for entry in entries)
            advice = "for attention maps of a Hugging Face encoder load it with attn_implementation='eager', and where that " \
                "is not enough (DeBERTa) add output_attentions=True to the inputs"
            if isinstance(self.module, nn.MultiheadAttention):
                advice = "it was called with need_weights=False, as nn.TransformerEncoderLayer and torchvision do, and gives " \
                    "no map; call it with need_weights=True and average_attn_weights=False"
            raise InputError(f"layer {self.path!r} gives ({kinds}), which has no tensor {number}; {advice}.")
        if self.gradients and not tensor.requires_grad:
            raise InputError(f"nothing before {self.name!r} is captured, so there is no graph to differentiate; name a layer "
                             "before it as well, for example the embeddings.")
        return tensor

    def only_tensor(self, call: "_Call") -> Tensor:
        """Return the tensor that the layer gave; raise unless it is exactly one."""
        if self.tensor is None and self.calls:
            raise InputError(f"layer {self.path!r} ran {self.calls} time(s) in the forward pass, call {self.number} does not "
                             f"exist; count from 0 as in {self.path + '@0'!r}.")
        if self.tensor is None:
            if isinstance(self.module, torch.jit.ScriptModule):
                raise self._scripted()
            ran = call.layers_that_run()
            near = get_close_matches(self.path, ran, n=5, cutoff=0.3) or ran[-5:]
            why = "it is left out, or used without a call, as by layer.forward(x) or F.linear(x, layer.weight)"
            if isinstance(self.module, (nn.ModuleList, nn.ModuleDict)):
                why = "it is a list of layers, of which one can be read"
            raise InputError(f"layer {self.path!r} exists but the forward pass never called it: {why}; layers of like name "
                             f"that run are {', '.join(map(repr, near)) or 'none'}.")
        if self.number is None and self.calls > 1:
            raise InputError(f"layer {self.path!r} ran {self.calls} times in one forward pass, so its gradient is ambiguous; "
                             f"say which call, as in {self.path + '@0'!r} or {f'{self.path}@{self.calls - 1}'!r}.")
        return self.tensor


class _Call:
    """A model with its inputs, which are detached from whatever made them."""

    def __init__(self, model: nn.Module, inputs: ModelInputs):
        self.model, self.by_name = require_model(model), isinstance(inputs, Mapping)
        if not self.by_name and not isinstance(inputs, (Tensor, tuple, list)):
            raise InputError(f"got inputs as {type(inputs).__name__}, expected a dict, a tuple, a list or a tensor; "
                             f"pass {{'images': images}} for model(images=images). {advice_of_call(self.model)}")
        given = inputs if isinstance(inputs, Mapping) else dict(enumerate([inputs] if isinstance(inputs, Tensor) else inputs))
        self.values: dict[Any, Any] = {name: value.detach() if isinstance(value, Tensor) else value
                                       for name, value in given.items()}
        self.opened: dict[str | int, Tensor] = {}  # by key, the copy of a leaf that the model gets
        self.common = calling_of(self.model).common
        first = next((value for name, value in self.values.items()
                      if isinstance(value, Tensor) and value.ndim and name not in self.common), None)
        if first is None:
            kinds = ", ".join(type(value).__name__ for value in self.values.values()) or "nothing"
            raise InputError(f"the inputs {list(self.values)} hold no tensor with a batch axis, but {kinds}; pass tensors "
                             f"(N, ...), arrays by torch.as_tensor. {advice_of_call(self.model)}")
        self.size = require_batch(len(first))
        require_device(self.model, self.values)

    def open(self, names: list[str], gradients: bool) -> dict[str, Tensor]:
        """Return the named inputs as leaves, and hand copies of them to the model."""
        leaves = {}
        for name in names:
            key = self._key(name)
            value = self.values[key]
            if not isinstance(value, Tensor):
                raise InputError(f"input {key!r} is {type(value).__name__}, expected a tensor to differentiate.")
            if gradients and not value.is_floating_point():
                raise InputError(f"input {key!r} holds {value.dtype}, which has no gradient; capture the layer that embeds it "
                                 "(for words, the embedding), or pass gradients=False.")
            leaves[name] = no_inference(value).detach().requires_grad_(gradients)
            with torch.enable_grad():
                self.opened[key] = leaves[name].clone()
        return leaves

    def _key(self, name: str) -> str | int:
        key, keys = name[len(INPUT) :], list[str | int](self.values)
        if key in keys:
            return key
        if key.isdigit() and int(key) < len(keys):
            return keys[int(key)]
        near = get_close_matches(key, map(str, keys), n=3, cutoff=0.3) or keys
        raise InputError(f"there is no input {key!r}; the inputs are {', '.join(repr(f'{INPUT}{known}') for known in near)}.")

    def forward(self, taps: Sequence[_Tap] = ()) -> object:
        """Return what the model returns; the taps read on the way.

        The model gets copies, which it may overwrite; they are tensors like any, whatever mode the inputs were made in.
        """
        values = {key: self.opened[key] if key in self.opened else value.clone() if isinstance(value, Tensor) else value
                  for key, value in self.values.items()}
        with ExitStack() as hooks:
            for tap in taps:
                hooks.enter_context(tap.register())
            try:
                return self.model(**values) if self.by_name else self.model(*values.values())
            except Exception as error:
                failed_call(error, self.model, self.values, self.by_name)
                raise

    def require_repeatable(self, output: object) -> None:
        """Raise where a model that draws random numbers gives something else the next time."""
        with torch.no_grad():
            again = [values for _, values in tensors_in(self.forward())]
        pairs = [(first.detach(), other) for (_, first), other in zip(tensors_in(output), again)
                 if first.is_floating_point() and first.numel() and first.shape == other.shape]
        apart = max((float((first - other).abs().max() / first.abs().max().clamp(min=1e-6)) for first, other in pairs),
                    default=0)
        if apart > DRAWN:
            raise InputError(f"the model draws at random, though it is in eval mode: the same inputs give another output, by "
                             f"{apart:.1%} of its size; look for F.dropout without training=self.training, noise and sampling "
                             "in its forward(), or fix the seed there.")

    def require_classes(self, columns: int, entry: object | None = None) -> None:
        """Raise unless the first example alone has as many columns; where it cannot be asked alone, that is left open.

        ``entry`` is the key of the tensor in the output; default the one that is judged.
        """
        try:
            with torch.no_grad():
                one = {key: value[:1].clone() if isinstance(value, Tensor) and value.ndim and len(value) == self.size
                       and key not in self.common else value for key, value in self.values.items()}
                output = self.model(**one) if self.by_name else self.model(*one.values())
                alone: Any = first_tensor(output) if entry is None else dict(_entries(output))[entry]
        except Exception:  # noqa: BLE001 - whatever a model raises on inputs that are cut where they must not be
            return
        if alone.ndim == 2 and alone.shape[1] != columns:
            raise InputError(f"the output has as many columns as there are examples, {columns}, and {alone.shape[1]} for one "
                             "example: similarities of all with all, and no classes; for the pairs type model = Called(model, "
                             "output=lambda output: output.diagonal()), and for an input that belongs to all examples, which "
                             "would be cut otherwise, model = Called(model, common=('its name',)).")

    def mixed(self, function: Callable[[object], Tensor], output: object) -> Any:
        """Return the key of a table (N, N) in the output of which a function reads more than the diagonal, else None."""
        for key, value in _entries(output):
            if isinstance(value, Tensor) and value.shape == (self.size, self.size) and value.is_floating_point():
                with torch.enable_grad():
                    table = no_inference(value.detach()).requires_grad_()
                    score = scored(function, _replaced(output, key, table), self.size)
                    slope = torch.autograd.grad(score.sum(), table, allow_unused=True)[0] if score.requires_grad else None
                if slope is not None and (slope - slope.diagonal().diag()).any():
                    return key
        return None

    def layers_that_run(self) -> list[str]:
        """Return the names of the layers that a forward pass calls."""
        called = set()
        with nn.modules.module.register_module_forward_hook(lambda layer, *_: called.add(layer)), torch.no_grad():
            self.forward()
        return [name for name, layer in self.model.named_modules() if name and layer in called]


def replace_first(output: object, tensor: Tensor) -> object:
    """Return the output of a layer with ``tensor`` in place of its first tensor, of the same type."""
    return _replaced(output, next(key for key, value in _entries(output) if isinstance(value, Tensor)), tensor)


def _entries(output: object) -> Iterable[tuple[Any, Any]]:
    """Return the entries of an output by their keys; of a tensor itself, and none of an object of another kind."""
    if isinstance(output, Mapping):
        return output.items()
    return enumerate([output] if isinstance(output, Tensor) else output if isinstance(output, (tuple, list)) else ())


def _replaced(output: Any, key: Any, tensor: Tensor) -> object:
    """Return an output with a tensor in place of an entry."""
    if isinstance(output, Tensor):
        return tensor
    replaced: Any = copy.copy(output) if isinstance(output, Mapping) else list(output)
    replaced[key] = tensor
    if isinstance(output, Mapping):
        return replaced
    return output._make(replaced) if hasattr(output, "_make") else type(output)(replaced)


def _score(output: object, target: Target, call: _Call, any_mode: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the output that counts, the number to differentiate, (N,), and the class that it belongs to, (N,)."""
    if callable(target):
        score = require_finite(scored(target, output, call.size), "the target")
        if not any_mode and call.size > 1 and (entry := call.mixed(target, output)) is not None:
            call.require_classes(call.size, entry)
        return output if isinstance(output, Tensor) else score, score, None
    require_target(target)
    given = first_tensor(output)
    logits = as_logits(given, call.size)
    require_finite(logits, "the model's output")
    count = logits.shape[1]
    if not any_mode:
        require_logits(end_of(logits.grad_fn))
        if count == call.size > 1:
            call.require_classes(count)
    if target is None and count == 1:
        target = 1
    if target is None or isinstance(target, str):
        index = classes(logits.detach())
    else:
        index = no_inference(class_index(target, max(2, count), call.size).to(logits.device))
    score = logits[:, 0] * (2 * index - 1) if count == 1 else logits.gather(1, index[:, None])[:, 0]
    return given, score, index


def require_target(target: Target) -> None:
    """Raise for a word other than ``"predicted"``, and for a list, which ``rounds`` alone takes."""
    if isinstance(target, str) and target != "predicted":
        raise InputError(f"got target={target!r}, expected 'predicted', a class index, a function or None.")
    if not (target is None or callable(target) or isinstance(target, (str, Tensor)) or hasattr(target, "__index__")
            or hasattr(target, "__float__")):
        raise InputError(f"got target={target!r}, expected one class index, a tensor with one an example, a function, "
                         "'predicted' or None; of classes, one an example, make a tensor with torch.tensor([...]); rounds "
                         "alone takes a list, of labels.")


def _differentiate(model: nn.Module, score: Tensor, places: dict[str, Tensor], allow_unused: bool) -> dict[str, Tensor]:
    """Return the gradient of the scores at each place; the examples of a batch do not touch each other."""
    slopes: Sequence[Tensor | None] = [None] * len(places)
    if score.requires_grad:
        try:
            slopes = torch.autograd.grad(score.sum(), list(places.values()), allow_unused=True)
        except Exception as error:  # a step with a backward of its own may raise anything
            failed_backward(error, model)
            raise
    gradients = {}
    for (name, place), slope in zip(places.items(), slopes):
        if slope is None and not allow_unused:
            raise NoGradient(unused(model, name))
        gradients[name] = torch.zeros_like(place) if slope is None else require_finite(slope, f"the gradient at {name!r}")
    return gradients
