"""What a method of explanation is given, what it returns, and how it says that it cannot run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.gradients.evidence import evidence
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.question import Question

BUDGET = 256  # coalitions an example, for methods that sample them


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
        about is missing.
    pairs : Tensor or None, shape (N, F of the first, F of the second)
        Interactions of two features of different modalities, where the method gives them.
    signed : bool
        Whether a feature can speak against the followed class.
    passes : float
        Cost an example: rows that went through the model; a backward pass counts as two more.
    seconds : float
        For all examples.
    features : dict of str to int
        How many features each modality has.
    """

    method: str
    values: dict[str, Tensor]
    pairs: Tensor | None
    signed: bool
    passes: float
    seconds: float
    features: dict[str, int]

    def joint(self) -> Tensor:
        """Return the importances of all modalities side by side, float64 (N, P), NaN where there is none."""
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
    """

    question: Question
    budget: int = BUDGET
    seed: int = 0

    def evidence(self, output: object, examples: Tensor | None = None) -> Tensor:
        """Return the evidence, with its graph, (R,), of what the model returned for some examples; default all."""
        examples = torch.arange(self.question.n) if examples is None else examples
        return evidence(self.question.of_output(output, len(examples)), self.question.target.cpu()[examples])

    @property
    def followed(self) -> Tensor | Callable[[object], Tensor]:
        """The followed class, int64 (N,); where the target is a function, the evidence for all examples as one."""
        return self.evidence if self.question.scored else self.question.target

    @property
    def picture(self) -> ImageCells:
        """The picture among the modalities."""
        return next(modality for modality in self.question.modalities if isinstance(modality, ImageCells))


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
        What it cannot do without: ``"image"``, ``"text"``, ``"two modalities"``, ``"attention"`` (the names of a transformer's
        self-attention modules), or a library.
    efficient : bool
        Whether the values of an example sum to its evidence less that with everything hidden.
    whole : bool
        Whether a modality counts as one feature.
    """

    key: str
    title: str
    source: str
    run: Callable[..., Scored]
    signed: bool
    needs: tuple[str, ...] = ()
    efficient: bool = False
    whole: bool = False

    def require(self, question: Question, options: Mapping[str, object]) -> None:
        """Raise :class:`CannotRun` unless the modalities and options are what the method needs."""
        kinds = {"image": ImageCells, "text": Tokens}
        for need in self.needs:
            kind = kinds.get(need)
            if kind is not None and not any(isinstance(modality, kind) for modality in question.modalities):
                raise CannotRun(f"{self.title} needs a modality of type {kind.__name__}, and there is none.")
            if need == "two modalities" and len(question.modalities) != 2:
                raise CannotRun(f"{self.title} is about two modalities, got {len(question.modalities)}.")
            if need == "attention" and not options.get("attention"):
                raise CannotRun(f"{self.title} is read from a transformer; name its modules, "
                                "attention={'text': [...], 'image': [...]}.")


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
