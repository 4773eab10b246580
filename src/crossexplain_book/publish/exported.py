"""A model with the gradients that a page shows, as one ONNX graph: the backward pass is traced into it."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from crossexplain.checks import InputError, find_layer
from crossexplain.gradients.capture import INPUT, replace_first, split_name
from crossexplain.gradients.evidence import first_tensor
from crossexplain.gradients.maps import METHODS, to_cells
from crossexplain.gradients.modalities import ImageCells
from crossexplain.gradients.modes import untouched
from crossexplain.gradients.question import Question
from crossexplain_book.publish.steps import decompositions

MAPS = ("grad-cam", "layer-cam")  # folded inside the graph
LIVE = ("gradient norm", "gradient x input", *MAPS)  # methods that the graph gives
FOLLOW = "follow"  # input (1, C): the weights of the logits whose sum is differentiated


class CannotExport(InputError):
    """A model that cannot run in a page; the message names the step, or what else is in the way."""


def columns(question: Question) -> dict[str, Tensor]:
    """Return the inputs that a page hands to the graph, of all examples: the tensors with a row for each."""
    one = question.examples(torch.arange(1))
    return {key: value for key, value in question.inputs.items()
            if isinstance(value, Tensor) and value.ndim and one[key] is not value}


def names_of(question: Question) -> list[str]:
    """Return the names of the graph's outputs: the logits, and ``"method:modality"``, (1, F), of each method that it gives."""
    return ["logits", *(f"{method}:{modality.name}" for modality in question.modalities for method in _methods(modality))]


def _methods(modality) -> Sequence[str]:
    at_layer = isinstance(modality, ImageCells) and not modality.layer.startswith(INPUT)
    return LIVE if at_layer else LIVE[: -len(MAPS)]


class Explained(nn.Module):
    """The model with what is read of its gradients, for one example.

    ``forward`` takes the tensors of :func:`columns`, a row each, and the weights of the logits, (1, C), and returns the tensors
    that :func:`names_of` names.
    """

    def __init__(self, question: Question):
        super().__init__()
        self.question, self.keys = question, list(columns(question))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the model forward and back."""
        with _Reads():
            return self._read(tensors)

    def _read(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        question, follow = self.question, tensors[-1]
        inputs = {**question.examples(torch.arange(1)), **dict(zip(self.keys, tensors))}
        with untouched(question.model, True), _tapped(question, inputs) as (kept, given):
            logits = question.of_output(question.model(**given), 1)
            places = [kept[layer] for layer in question.layers]
            slopes = torch.autograd.grad((logits * follow).sum(), places, allow_unused=True)
        found = [logits.detach()]
        for modality, place, slope in zip(question.modalities, places, slopes):
            place, slope = place.detach(), torch.zeros_like(place) if slope is None else slope
            found += [modality.read_at(slope.square(), inputs, 1).clamp(min=0).sqrt(),
                      modality.read_at(slope * place, inputs, 1)]
            for method in _methods(modality)[2:]:
                heat = METHODS[method].fold(*(modality.laid_out(values, inputs, 1) for values in (place, slope)))
                found.append(to_cells(heat.clamp(min=0), modality.grid).flatten(1))
        return tuple(found)


@contextmanager
def _tapped(question: Question, inputs: Mapping[str, object]) -> Iterator[tuple[dict[str, Tensor], dict[str, object]]]:
    """Read the layers of the modalities; yields what they give, once the model has run, and what it is to be given."""
    kept, given = {}, dict(inputs)
    with ExitStack() as hooks:
        for layer in dict.fromkeys(question.layers):
            if layer.startswith(INPUT):
                key = layer[len(INPUT) :]
                kept[layer] = inputs[key].detach().requires_grad_()
                given[key] = kept[layer].clone()
            else:
                path, number, _ = split_name(layer)
                hooks.callback(find_layer(question.model, path).register_forward_hook(_Tap(kept, layer, number)).remove)
        yield kept, given


class _Tap:
    """Keeps what a layer gives, cut from what comes before where nothing there is read."""

    def __init__(self, kept: dict, layer: str, number: int | None):
        self.kept, self.layer, self.number, self.calls = kept, layer, number, 0

    def __call__(self, module: nn.Module, arguments: tuple, output: object) -> object:
        self.calls += 1
        if self.number is not None and self.calls != self.number + 1:
            return None
        tensor = first_tensor(output, self.layer)
        self.kept[self.layer] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return replace_first(output, self.kept[self.layer].clone())


def export(question: Question) -> bytes:
    """Return the ONNX graph of :class:`Explained`, for a question in eval mode.

    Raises
    ------
    CannotExport
        With the step that cannot be traced or written.
    """
    try:
        import onnxscript  # noqa: F401  torch writes ONNX through it
    except ModuleNotFoundError as error:
        raise CannotExport(f"{error.name} is not installed; type pip install onnx onnxscript onnxruntime") from error
    # Of the example with the fewest features: where a batch is padded, one without padding would be traced without its mask.
    explained, example = Explained(question), arguments(question, int(question.joined().sum(dim=1).argmin()))
    names = [*explained.keys, FOLLOW]
    try:
        with _plain_steps(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            graph = make_fx(explained, decompositions())(*example).eval()
            if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in graph.graph.nodes):
                with torch.no_grad():  # once more, so that nothing is changed in place
                    graph = make_fx(torch.func.functionalize(graph, remove="mutations"), decompositions())(*example).eval()
            # What would make the graph smaller takes minutes for a recurrent layer, and is done as the graph is loaded.
            program = torch.onnx.export(graph, tuple(example), dynamo=True, optimize=False, verbose=False,
                                        input_names=[f"in:{name}" for name in names], output_names=names_of(question))
        written = io.BytesIO()
        program.save(written)
    except InputError:
        raise
    except Exception as error:
        raise CannotExport(_reason(error)) from error
    return written.getvalue()


def arguments(question: Question, example: int, hidden: Mapping[str, object] | None = None,
              follow: Tensor | None = None) -> list[Tensor]:
    """Return what the graph is given for an example: its tensors, or those in ``hidden``, and the weights of the logits."""
    inputs = question.examples(torch.tensor([example])) if hidden is None else hidden
    return [*(inputs[key] for key in columns(question)),
            evidence_weights(question, example) if follow is None else follow]


def evidence_weights(question: Question, example: int) -> Tensor:
    """Return the weights (1, C) of the logits that make the evidence for the followed class."""
    count, target = question.columns, question.target[example]
    if count == 1:
        return (2.0 * target - 1).reshape(1, 1).float()
    return torch.nn.functional.one_hot(target[None], count).float() - 1 / count


class _Reads(TorchDispatchMode):
    """Lets a model read values while it is traced, as checks of its inputs do; what it does then belongs to the trace."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def _plain_steps() -> Iterator[None]:
    """Let transformer and recurrent layers take steps that have a backward pass in ONNX."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    before = torch.backends.mkldnn.set_flags(False, _fp32_precision=None)[0]  # nothing else is set, which could warn
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before, _fp32_precision=None)
        torch.backends.mha.set_fastpath_enabled(fast)


def _reason(error: BaseException) -> str:
    """Return the name of the operator that an error is about, or its first line."""
    told = []
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    text = "\n".join(told)
    if found := re.search(r"op='([\w.]+)'", text) or re.search(r"((?:aten|torchvision|prims)(?:::|\.)\w+)", text):
        return f"the step {found[1]} cannot be written as ONNX"
    text = re.sub(r"false INTERNAL ASSERT FAILED at .*? PyTorch\. ", "", text)  # a place in PyTorch's own code
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"the model cannot be traced: {lines[0] if lines else 'no reason given'}"
