"""What is said of each example, whichever examples stand beside it: batches in, one dictionary an example out."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, is_of_memory
from crossexplain.evaluation.methods import explain, find
from crossexplain.gradients.capture import Target
from crossexplain.gradients.evidence import classes
from crossexplain.gradients.modalities import Inputs, Modality, rows_of
from crossexplain.gradients.question import Question
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import FULL
from crossexplain.runs.plan import Entry, SourceGone, plain_text, seed_of

ROUNDS = "rounds"  # the paper's four rounds, with the views that a verdict is read from
DONORS = 4  # examples to borrow from: the first ones that can be read, the same for all
# Methods that draw at random. Explained side by side, what is drawn for an example would depend on its neighbours.
DRAWN = ("sampled shapley", "mm-shap", "gradient shap", "kernel shap", "shapley sampling", "shapiq shapley", "shapiq pairs")


class NoMemory(InputError):
    """The memory does not hold a single example: the run stops, so that none is a failed row that another machine explains."""


# What is no example's fault and would make a failed row of every other: the run stops.
STOPS = SourceGone, NoMemory, getattr(torch, "AcceleratorError", SourceGone)
Said = dict[Any, Any]  # of one example: "target", "predicted", ("logits", baseline, view), ("importance", what, modality)


@dataclass(frozen=True)
class Explainable:
    """A model with all that a run has to know of it.

    Attributes
    ----------
    model : torch.nn.Module
        In eval mode.
    modalities : sequence of Modality
    inputs : callable
        Makes the model's inputs, one row an example, of a list of what :attr:`Entry.load` gave.
    name : str
        For the manifest.
    target
        As for :func:`~crossexplain.gradients.rounds.rounds`, but for a tensor.
    attention : mapping of str to sequence of str
        Self-attention modules by modality, for the methods that read them.
    code : str
        A hash of the code that made it, where that is not the package's own.
    words : callable, optional
        Returns the words of the text of one example, as :attr:`Entry.load` gave it, one for each of its features in their
        order: for who shows importances.
    """

    model: nn.Module
    modalities: Sequence[Modality]
    inputs: Callable[[list[Mapping[str, object]]], Inputs]
    name: str = "model"
    target: Target = None
    attention: Mapping[str, Sequence[str]] = field(default_factory=dict)
    code: str = ""
    words: Callable[[Mapping[str, object]], list[str]] | None = None

    def weights(self) -> str:
        """Return a hash of all weights and buffers."""
        total = sha256()
        for name, value in sorted(self.model.state_dict().items()):
            total.update(f"{name} {getattr(value, 'dtype', '')} {tuple(getattr(value, 'shape', ()))}".encode())
            plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data if plain
                         else repr(value).encode())
        return total.hexdigest()


@dataclass
class Explainer:
    """Explains batches by some methods.

    Parameters
    ----------
    subject : Explainable
    methods : sequence of str
        ``"rounds"``, or keys of :func:`crossexplain.evaluation.methods.registry`.
    baselines : sequence
        ``"neutral"`` is each modality's own; others as for :func:`~crossexplain.gradients.rounds.rounds`.
    budget : int, optional
        As for :func:`~crossexplain.evaluation.methods.explain`.
    seed : int
        Each example has its own, made of this and its key.
    device : torch.device
    """

    subject: Explainable
    methods: Sequence[str]
    baselines: Sequence[str | Mapping[str, str]]
    budget: int | None
    seed: int
    device: torch.device
    donors: list[Mapping[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError(f"got the methods {list(self.methods)}, expected one or more different ones.")
        for method in self.methods:
            if method != ROUNDS and "other examples" in find(method).needs:
                raise InputError(f"{method} compares the examples of a batch, so its rows would depend on what stands beside "
                                 "them; a run takes methods that speak of each example by itself.")
        self.subject.model.to(self.device)
        self.chosen = [{} if one == "neutral" else one for one in self.baselines]

    @property
    def borrows(self) -> bool:
        """Whether examples to borrow from are needed."""
        return any("data" in (one.values() if isinstance(one, Mapping) else [one]) for one in self.baselines)

    def read_donors(self, entries: Iterable[Entry]) -> None:
        """Read the examples to borrow from: the first that can be read."""
        for entry in entries if self.borrows else ():
            try:
                self.donors.append(entry.load())
            except STOPS:
                raise
            except Exception:  # noqa: BLE001, S112 - its own row says why
                continue
            if len(self.donors) == DONORS:
                return

    def explained(self, entries: Sequence[Entry]) -> list[Said]:
        """Explain a batch; one that fails becomes ``{"reason": why}``, and the others are explained without it."""
        said: list[Said] = [{} for _ in entries]
        loaded: dict[int, Mapping[str, object]] = {}
        started = time.perf_counter()
        for place, entry in enumerate(entries):
            try:
                loaded[place] = entry.load()
            except STOPS:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a reader of the data raises is this example's reason
                said[place] = {"reason": _reason(error)}
        try:
            found = self._said([entries[place].key for place in loaded], list(loaded.values())) if loaded else []
        except STOPS:
            raise
        except Exception as error:  # noqa: BLE001 - of the model's code too
            found = [self._alone(entries[place].key, example, error, len(loaded)) for place, example in loaded.items()]
        for place, one in zip(loaded, found):
            said[place] = one
        seconds = (time.perf_counter() - started) / len(entries)
        return [one | {"seconds": seconds} for one in said]

    def _alone(self, key: str, example: Mapping[str, object], error: Exception, beside: int) -> Said:
        try:
            if beside == 1:
                raise error
            return self._said([key], [example])[0] | {"flags": ["explained alone"]}
        except STOPS:
            raise
        except Exception as own:  # noqa: BLE001
            if is_of_memory(own):
                raise NoMemory(f"the example {key!r} does not fit into the memory ({_reason(own)}); what is finished is kept: "
                               "free memory and type the same command again, or leave the example out with --where.") from own
            return {"reason": _reason(own), "loaded": True}

    def _said(self, keys: Sequence[str], examples: list[Mapping[str, object]]) -> list[Said]:
        n, total = len(examples), len(examples) + len(self.donors)
        # Read together, so that texts are padded to one length.
        both = {name: value.to(self.device) if isinstance(value, Tensor) else value
                for name, value in self.subject.inputs([*examples, *self.donors]).items()}
        inputs = rows_of(both, torch.arange(n), total) if self.donors else both
        donors = rows_of(both, torch.arange(n, total), total) if self.donors else None
        said: list[Said] = [{} for _ in keys]
        if ROUNDS in self.methods:
            self._by_rounds(said, inputs, donors)
        else:
            self._by_question(said, inputs, donors)
        for method in self.methods:
            if method in DRAWN:
                for row, key in enumerate(keys):
                    one = rows_of(inputs, torch.tensor([row]), n) if n > 1 else inputs
                    self._by_method(said[row : row + 1], method, one, donors, seed_of(self.seed, key))
            elif method != ROUNDS:
                self._by_method(said, method, inputs, donors, self.seed)
        return said

    def _by_rounds(self, said: list[Said], inputs: Inputs, donors: Inputs | None) -> None:
        record: Any = rounds(self.subject.model, inputs, self.subject.modalities, baselines=self.chosen, donors=donors,
                             target=self.subject.target, control=False, progress=False, seed=self.seed)
        first, picked = record.baselines[0], {record.picked(name) for name in record.modalities}
        for (baseline, view), one in record.passes.items():
            if view not in picked:
                _add(said, ("logits", baseline, view), one.logits)
        for name in record.modalities:
            present, side = record.features[name], record.by_side[first, name]
            for what, values in (("round 1", record.passes[first, FULL].importance[name]),
                                 ("round 2", record.passes[first, record.only(name)].importance[name]), ("cross", side.cross)):
                _add(said, ("importance", what, name), values, present)
        self._add_classes(said, record.target, classes(record.passes[first, FULL].logits))

    def _by_question(self, said: list[Said], inputs: Inputs, donors: Inputs | None) -> None:
        question = Question(self.subject.model, inputs, self.subject.modalities, baselines=self.chosen[0] or None,
                            donors=donors, target=self.subject.target)
        logits = question.whole().float().cpu()
        _add(said, ("logits", " + ".join(dict.fromkeys(question.baselines.values())), FULL), logits)
        self._add_classes(said, question.target, classes(logits))

    def _by_method(self, said: list[Said], method: str, inputs: Inputs, donors: Inputs | None, seed: int) -> None:
        options: dict[str, Any] = {"attention": self.subject.attention} if "attention" in find(method).needs else {}
        found = explain(self.subject.model, inputs, self.subject.modalities, method, baselines=self.chosen[0] or None,
                        donors=donors, target=self.subject.target, budget=self.budget, seed=seed, **options)
        for name, values in found.values.items():
            _add(said, ("importance", method, name), values, ~values.isnan())

    def _add_classes(self, said: list[Said], target: Tensor, predicted: Tensor) -> None:
        for one, followed, answer in zip(said, target.tolist(), predicted.tolist()):
            one["target"], one["predicted"] = followed, answer


def _add(said: list[Said], key: tuple[str, ...], values: Tensor, present: Tensor | None = None) -> None:
    """Add each example's values (N, K), of the features that it has, under a key."""
    for i, one in enumerate(said):
        one[key] = (values[i] if present is None else values[i][present[i]]).detach().float().cpu().numpy()


def _reason(error: Exception) -> str:
    text = plain_text(" ".join(str(error).split()))
    return (text if isinstance(error, InputError) else f"{type(error).__name__}: {text}")[:500]
