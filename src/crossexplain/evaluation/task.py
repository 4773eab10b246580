"""What a method of explanation is given, what it returns, and how it says that it cannot run."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from crossexplain.checks import InputError, require_one_of
from crossexplain.coalitions.game import Game
from crossexplain.gradients.capture import Captured, capture
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import ImageCells, Modality, Tokens
from crossexplain.gradients.question import Question
from crossexplain.gradients.sharing import shared

BUDGET = 256  # coalitions an example, for methods that sample them
BY_GROUP = "groups"  # stands in the place of a modality where importances are those of groups
# By how much values that promise to sum to what the evidence gains may miss it, as a share of the largest gain: rounding and
# regression miss less than a thousandth, DeepLIFT at a layer without a rule much more. And, of the largest evidence, so many
# steps of its precision, or of single precision this share.
COMPLETE, STEPS, ROUNDING = 1e-2, 8, 1e-5
LIBRARIES = {"captum": "captum", "shapiq": "shapiq", "grad-cam": "pytorch_grad_cam"}  # package -> module


class CannotRun(InputError):
    """A method that does not work on a model, or whose library is not installed; the message gives the reason."""


@dataclass(frozen=True)
class Explanation:
    """The importances that one method gives to the features of N examples.

    Attributes
    ----------
    method : str
        Key of the method.
    values : dict of str to Tensor, shape (N, F)
        By modality, the importance of each feature; NaN where the example has none. A modality that the method does not speak
        about is missing. Of groups it is ``values["groups"]``, (N, G).
    pairs : Tensor or None, shape (N, F of the first, F of the second)
        Interactions of two features of different modalities, where the method gives them; of groups, of every two, (N, G, G).
    signed : bool
        Whether a feature can speak against the followed class.
    passes : float
        Cost an example: rows that went through the model; a backward pass counts as two more.
    seconds : float
        For all examples.
    features : dict of str to int
        How many features each modality has.
    groups : tuple of str
        Names of the groups, where importances are asked for by group.
    """

    method: str
    values: dict[str, Tensor]
    pairs: Tensor | None
    signed: bool
    passes: float
    seconds: float
    features: dict[str, int]
    groups: tuple[str, ...] = ()

    def joint(self) -> Tensor:
        """Return the importances of all modalities side by side, or of all groups, float64 (N, P), NaN where there is none."""
        n = len(next(iter(self.values.values())))
        missing = {name: torch.full((n, count), torch.nan) for name, count in self.features.items()}
        return torch.cat(list((missing | self.values).values()), dim=1).double()


class Scored(NamedTuple):
    """What a method's function returns.

    Attributes
    ----------
    values : dict of str to Tensor, shape (N, F)
        By modality.
    pairs : Tensor, optional
        As in :class:`Explanation`.
    passes : float, optional
        Cost an example, where it is not the number of rows that went through the model.
    """

    values: dict[str, Tensor]
    pairs: Tensor | None = None
    passes: float | None = None


@dataclass(frozen=True)
class Task:
    """What a method's function is given.

    Attributes
    ----------
    question : Question
        The model, the examples, and what stands in for hidden features. ``question.captured()`` reads gradients, and
        ``question.values(keep, examples)`` the evidence with only some features left.
    budget : int
        Coalitions an example, for methods that sample them.
    seed : int
        Of what the method draws.
    groups : Groups, optional
        What is hidden as a whole by methods that hide; all others are summed over their features afterwards.
    joined : list of int
        How many coalitions of groups were asked by the parts or the towers of the model, which are no passes of all of it.
    """

    question: Question
    budget: int = BUDGET
    seed: int = 0
    groups: Groups | None = None
    joined: list[int] = field(default_factory=list)

    @cached_property
    def game(self) -> Game:
        """The game whose players are the groups, or the features where there are none."""
        return Game.about(self.question, self.groups)

    @cached_property
    def _written(self) -> Groups:
        """The groups with a number for each feature of each example, on the CPU."""
        if self.groups is None:
            raise InputError("the task has no groups; pass groups=Groups(...).")
        return self.groups.of({name: part.cpu() for name, part in self.question.present.items()})

    @cached_property
    def present(self) -> Tensor:
        """Which players each example has, bool (N, P): its features, of all modalities side by side, or its groups."""
        return self.question.joined() if self.groups is None else self._written.present()

    def is_played_in(self, game: Game) -> bool:
        """Return whether the players of a game are the groups: each has a group's name and hides its features."""
        if self.groups is None or len(set(game.names)) < len(game.names) or not set(game.names) <= set(self.groups.names):
            return False
        everyone, features = torch.arange(self.question.n), self.question.joined()
        for player, name in zip(torch.eye(len(game.names), dtype=torch.bool), game.names):
            members = self._written.members(name)
            stay = game.features(~player.expand(len(everyone), -1), everyone)
            if not torch.equal(features & ~stay, torch.cat([members[modality] for modality in self.question.names], dim=1)):
                return False
        return True

    def values(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the evidence with only some players left, (R,), where ``keep`` is (R, P); features are asked of the model."""
        if self.groups is None:
            return self.question.values(keep, examples)
        self.joined.append(len(keep) if self.game.splits else 0)
        return self.game.values(keep[:, [self.groups.names.index(name) for name in self.game.names]], examples)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Divide values (N, P) of all players among the modalities; those of groups stay together."""
        return self.question.split(values) if self.groups is None else {BY_GROUP: values}

    def by_group(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum importances of features, (N, F) by modality, over each group, (N, G); and say which groups they speak about."""
        groups = Groups(self._written.names, {name: self._written.owner[name] for name in values})
        summed = groups.summed({name: part.nan_to_num(0.0) for name, part in values.items()})
        return sum(summed.values(), torch.zeros(())), groups.present()

    def per_feature(self, modality: Modality, values: Tensor) -> Tensor:
        """Return values at a modality's layer, of all examples, summed over each feature, (N, F)."""
        return modality.read_at(values.float(), self.question.inputs, self.question.n)

    def laid_out(self, modality: Modality, values: Tensor) -> Tensor:
        """Return values at a modality's layer in the order that methods expect: maps (N, C, h, w), or a row (N, T, D)."""
        return modality.laid_out(values, self.question.inputs, self.question.n)

    def captured(self, layers: Sequence[str], gradients: bool = True) -> Captured:
        """Read activations, and gradients of the logit of the followed class, at some layers; equal pictures are seen once."""
        question, names = self.question, list(dict.fromkeys(layers))
        def read() -> Captured:
            return capture(question.model, question.inputs, names, question.logit_target, gradients)

        return shared(question.model, names, read)[0]

    @property
    def pictures(self) -> list[ImageCells]:
        """The pictures among the modalities."""
        return [modality for modality in self.question.modalities if isinstance(modality, ImageCells)]


@dataclass(frozen=True)
class Method:
    """One method of explanation.

    Attributes
    ----------
    key : str
        Its name in :func:`~crossexplain.evaluation.methods.explain`.
    title : str
        Its name for readers.
    source : str
        What it does, and who proposed it.
    run : callable
        Takes a :class:`Task` and the method's own options, and returns a :class:`Scored`.
    signed : bool
        Whether a feature can speak against the followed class.
    needs : tuple of str
        What it cannot do without: ``"gradient"``, ``"image"``, ``"text"``, ``"two modalities"``, ``"other modalities"``,
        ``"other examples"``, ``"attention"`` (the names of a transformer's self-attention modules), or a library.
    efficient : bool
        Whether the values of an example sum to its evidence less that with everything hidden.
    whole : bool
        Whether a modality counts as one feature.
    hides : bool
        Whether features are hidden, so that under the baseline ``"data"`` there have to be donors.
    fits : callable, optional
        Takes a :class:`~crossexplain.gradients.question.Question` and raises :class:`CannotRun` if the method would explain
        something else on its model; what it asks is no part of the cost.
    """

    key: str
    title: str
    source: str
    run: Callable[..., Scored]
    signed: bool
    needs: tuple[str, ...] = ()
    efficient: bool = False
    whole: bool = False
    hides: bool = True
    fits: Callable[[Question], None] | None = None

    @property
    def options(self) -> list[str]:
        """Names of the method's own options."""
        settled = getattr(self.run, "keywords", {})  # of a functools.partial
        return [name for name, parameter in inspect.signature(self.run).parameters.items()
                if name not in settled and parameter.kind != parameter.VAR_KEYWORD][1:]

    def require_options(self, options: Iterable[str]) -> None:
        """Raise unless all options are the method's own."""
        for option in options:
            if not self.options:
                raise InputError(f"{self.title} has no option {option!r}, nor any other; leave it out.")
            require_one_of(option, self.options, f"for {self.title} the option")

    def require(self, question: Question, attention: object = None, grouped: bool = False) -> None:
        """Raise :class:`CannotRun` unless the modalities, the model and the modules of ``attention`` are what it needs."""
        if grouped and self.whole:
            raise CannotRun(f"{self.title} counts whole modalities, and has nothing to say of groups; leave groups out.")
        kinds, count = {"image": ImageCells, "text": Tokens}, len(question.modalities)
        for need in self.needs:
            kind = kinds.get(need)
            if kind is not None and not any(isinstance(modality, kind) for modality in question.modalities):
                raise CannotRun(f"{self.title} needs a modality of type {kind.__name__}, and there is none.")
            if need == "two modalities" and count != 2 and not grouped:
                raise CannotRun(f"{self.title} is about two modalities, got {count}.")
            if need == "other modalities" and count < 2:
                raise CannotRun(f"{self.title} hides the other modalities, and {question.names[0]!r} is the only one; pass "
                                "two or more.")
            if need == "other examples" and question.n < 2:
                raise CannotRun(f"{self.title} swaps modalities between examples, and there is one; pass two or more.")
            if need == "attention":
                self._require_attention(question, attention)
            if need in LIBRARIES:
                library(LIBRARIES[need], need)
            if need == "gradient":
                kind = next((kinds[other] for other in self.needs if other in kinds), Modality)
                question.reached([modality.name for modality in question.modalities if isinstance(modality, kind)])
        if self.fits is not None:
            self.fits(question)

    def _require_attention(self, question: Question, attention: object) -> None:
        """Raise unless the names of self-attention modules are given, by modality."""
        if not attention:
            raise CannotRun(f"{self.title} is read from a transformer; name its modules, "
                            "attention={'text': [...], 'image': [...]}.")
        if not isinstance(attention, Mapping):
            raise InputError(f"got attention as {type(attention).__name__}, expected a mapping from modality to the names of "
                             "its self-attention modules: attention={'text': [...], 'image': [...]}.")
        for name in attention:
            require_one_of(name, question.names, "attention of the modality")
            if not isinstance(question.modalities[question.names.index(name)], (ImageCells, Tokens)):
                raise CannotRun(f"{self.title} is about patches of a picture and tokens of a text, and {name!r} is neither.")


def missing(sums: Tensor, task: Task) -> float:
    """Return by how much the values of each example, summed (N,), miss what its evidence gains over nothing.

    As a share of the largest gain; what may be rounding is no miss.
    """
    question = task.question
    all_rows = torch.arange(question.n)
    full, hidden = question.evidence(question.whole(), all_rows), task.values(torch.zeros_like(task.present), all_rows)
    gained, size = (full - hidden).abs().max(), max(full.abs().max(), hidden.abs().max())
    rounding = max(ROUNDING, STEPS * torch.finfo(question.whole().dtype).eps) * size
    missed = (sums.detach().double().cpu() - (full - hidden)).abs().max()
    return float((missed - rounding).clamp(min=0) / gained.clamp(min=1e-6))


def library(module: str, package: str) -> ModuleType:
    """Return a module of an optional package.

    Raises
    ------
    CannotRun
        If it is not installed, with the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise CannotRun(f"{package} is not installed; type `pip install {package}`.") from error
