"""What a page needs to run its model: the graph, the tensors of its examples, and how far its answers are from PyTorch's."""

import gzip
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crossexplain.gradients.question import Question
from crossexplain_book.publish.exported import (
    FOLLOW,
    LIVE,
    MAPS,
    CannotExport,
    Explained,
    arguments,
    columns,
    evidence_weights,
    export,
    names_of,
)

LARGEST = 30_000_000  # bytes of a graph, and of a model's weights
KINDS = ("float32", "int64", "int32", "bool", "uint8")  # of tensors, that a browser has arrays for
NEAR = 1e-3  # by how much a graph's numbers may differ from PyTorch's, of the largest
CANCELLED = 1e-3  # of the longest gradient: scores that are smaller are what is left where products cancel, and rounding
CHECKED = 4  # examples on which they are compared


class Running(NamedTuple):
    """The live part of a page.

    Attributes
    ----------
    head : dict
        Where in ``data`` things lie, and what they are called; for JSON.
    data : str
        Graph and tensors, gzip in base64.
    """

    head: dict
    data: str


def running(question: Question) -> Running:
    """Return the live part of a page about the examples of a question.

    Raises
    ------
    CannotExport
        Where the model cannot run in a page, or says something else there; the message says why.
    """
    weights = sum(value.numel() * value.element_size() for value in question.model.parameters())
    if weights > LARGEST:  # before it is traced, which takes as long as it is large
        raise CannotExport(f"its weights have {weights / 1e6:.0f} MB, and {LARGEST / 1e6:.0f} MB are the most for a page")
    keys, pool = list(columns(question)), _Pool()
    examples = [[pool.add(*_parts(key, value)) for key, value in _tensors(question, i).items()] for i in range(len(question))]
    graph = export(question)
    if len(graph) > LARGEST:
        raise CannotExport(f"its graph has {len(graph) / 1e6:.0f} MB, and {LARGEST / 1e6:.0f} MB are the most for a page")
    head = {"graph": pool.add(np.frombuffer(graph, np.uint8))[0], "outputs": names_of(question), "follow": f"in:{FOLLOW}",
            "inputs": [{"name": f"in:{key}", "kind": str(question.inputs[key].dtype).removeprefix("torch."),
                        "shape": [1, *question.inputs[key].shape[1:]]} for key in keys],
            "present": [[there[i].nonzero()[:, 0].tolist() for there in question.present.values()]
                        for i in range(len(question))],
            "examples": examples, "weights": [_weights(question, i) for i in range(len(question))],
            "methods": {method: method in MAPS for method in LIVE}, "parity": parity(question, graph)}
    return Running(head, b64encode(gzip.compress(pool.bytes(), 6, mtime=0)).decode())


def parity(question: Question, graph: bytes) -> dict[str, float]:
    """Return how many answers of the graph were compared with PyTorch's, and the largest differences.

    Of some examples with nothing covered, with each modality covered, and with every other feature covered.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise CannotExport(f"{error.name} is not installed; type pip install onnxruntime") from error
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    explained, names, outputs = Explained(question), [one.name for one in session.get_inputs()], names_of(question)
    worst, count = {"logit": 0.0, "score": 0.0}, 0
    for i in range(min(CHECKED, len(question))):
        for keep in _some(question, i):
            given = arguments(question, i, question.hidden(keep[None], torch.tensor([i])))
            expected = [value.numpy() for value in explained(*given)]
            fed = dict(zip([*(f"in:{key}" for key in explained.keys), f"in:{FOLLOW}"], given))
            found = session.run(None, {name: fed[name].numpy() for name in names})
            count += 1
            sizes = [float(np.abs(ours).max(initial=0)) for ours in expected]
            norms = {name.partition(":")[2]: size for name, size in zip(outputs, sizes) if name.startswith(LIVE[0])}
            for name, ours, theirs, size in zip(outputs, expected, found, sizes):
                apart = float(np.abs(ours - theirs).max(initial=0))
                if name == outputs[0]:
                    scale, worst["logit"] = max(1.0, size), max(worst["logit"], apart)
                else:
                    scale = max(1e-6, size, CANCELLED * norms[name.partition(":")[2]])
                    worst["score"] = max(worst["score"], apart / scale)
                if not apart <= NEAR * scale:
                    raise CannotExport(f"its graph gives another {name} than PyTorch, by {apart:.2g} of {size:.2g}: the "
                                       "model does something else for other inputs than for those it was traced with")
    return {"answers": count} | {what: float(f"{value:.2g}") for what, value in worst.items()}


def _some(question: Question, example: int) -> list[Tensor]:
    """Return which features stay, (F,) each."""
    features = sum(present.shape[1] for present in question.present.values())
    keeps, start = [torch.ones(features, dtype=torch.bool), torch.arange(features) % 2 == 0], 0
    for present in question.present.values():
        keeps.append(torch.ones(features, dtype=torch.bool))
        keeps[-1][start : start + present.shape[1]] = False
        start += present.shape[1]
    return [keep | ~question.joined()[example] for keep in keeps]


def _weights(question: Question, example: int) -> list[list[float]]:
    """Return the weights of the logits of the evidence, and those of the followed logit alone, which maps are about."""
    evidence = evidence_weights(question, example)[0]
    one = torch.nn.functional.one_hot(question.target[example], question.columns).float() if question.columns > 1 else evidence
    return [evidence.tolist(), one.tolist()]


def _tensors(question: Question, example: int) -> Mapping[str, tuple[Tensor, Tensor, Tensor]]:
    """Return of each input what it holds, what stands in for it, and the number of the feature that owns each entry (or -1).

    Raises
    ------
    CannotExport
        Where what is covered depends on what else is covered, as where words are deleted.
    """
    row, joined = torch.tensor([example]), question.joined()[example]
    present = joined.nonzero()[:, 0].tolist()

    def hidden(*numbers: int) -> dict[str, object]:
        keep = torch.ones(1, len(joined), dtype=torch.bool)
        keep[0, list(numbers)] = False
        return question.hidden(keep, row)

    whole, nothing = question.examples(row), hidden(*present)
    owner = {key: torch.full(whole[key].shape, -1, dtype=torch.int16) for key in columns(question)}
    for number, feature in enumerate(present):
        for key, value in hidden(feature).items():
            if key in owner:
                owner[key][(value != whole[key]) & (owner[key] < 0)] = number
    parts = {key: (whole[key], nothing[key], owner[key]) for key in owner}
    for covered in (*([f] for f in present), present[::2], present[1::2], present[: len(present) // 2]):
        numbers = torch.tensor([present.index(f) for f in covered], dtype=torch.int16)
        for key, (value, stand_in, of) in parts.items():
            if not torch.equal(torch.where(torch.isin(of, numbers), stand_in, value), hidden(*covered)[key]):
                raise CannotExport(f"what stands in for a covered part of {key!r} depends on what else is covered (baselines "
                                   f"{question.baselines}); baselines such as 'zero' and 'mask' do not")
    return parts


def _parts(key: str, tensors: Sequence[Tensor]) -> list[np.ndarray]:
    kind = str(tensors[0].dtype).removeprefix("torch.")
    if kind not in KINDS:
        raise CannotExport(f"input {key!r} holds {kind}, and a page has no array for it ({', '.join(KINDS)})")
    return [tensor.contiguous().numpy() for tensor in tensors]


class _Pool:
    """Arrays one after the other, each beginning at a multiple of eight bytes; equal ones are kept once."""

    def __init__(self):
        self.places, self.kept, self.length = {}, [], 0

    def add(self, *arrays: np.ndarray) -> list[list[int]]:
        """Return where each begins, and how many entries it has."""
        return [self._place(array.tobytes(), array.size) for array in arrays]

    def _place(self, content: bytes, count: int) -> list[int]:
        if content not in self.places:
            self.places[content] = self.length
            self.kept.append(content + bytes(-len(content) % 8))
            self.length += len(self.kept[-1])
        return [self.places[content], count]

    def bytes(self) -> bytes:
        """Return all of them."""
        return b"".join(self.kept)
