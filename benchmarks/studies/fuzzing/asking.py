"""What every call needs: which number is followed, what stands in for hidden features, and how two answers are compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.parts import Part
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source

Arrays = dict[str, np.ndarray]
BRUTE = 300  # single passes that all coalitions of a draw may take
LOGITS_OF = {  # from what a model hands out to its logits
    "features first": lambda output: output[1], "logits first": lambda output: output[0],
    "scores": lambda output: output["scores"], "nested": lambda output: output["answer"]["logits"],
    "own class": lambda output: output.logits, "own class without logits": lambda output: output.scores,
    "lists": lambda output: torch.stack(list(output[0])), "named": lambda output: output["logits"],
    "model output": lambda output: output.logits, "one entry": lambda output: output[0],
    "one axis": lambda output: output if output.ndim == 2 else output[:, None],
}


class Skip(Exception):
    """The call does not fit the scene: another one is drawn."""


@dataclass
class Call:
    """A call of the package and its answer by hand.

    Attributes
    ----------
    ask : callable
        Asks the package.
    want : callable
        Answers by hand; entries that are NaN may be anything. Raises NoTruth where no answer is right.
    expected : bool
        Whether a plain reader would expect an answer.
    size : float
        The size of what a small answer is a difference of: what is far below it is rounding.
    of_logits : bool
        Whether the answer is a difference of logits, whose rounding counts in half precision.
    differences : mapping of str to str
        How the names of entries begin that are differences, and those of the entries whose size their rounding has in half
        precision; ``"logits"`` are the logits.
    loose : float
        How many times the usual difference counts as none.
    """

    ask: Callable[[], Arrays]
    want: Callable[[], Arrays]
    expected: bool
    size: float = 0.0
    of_logits: bool = False
    loose: float = 1.0
    differences: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Followed:
    """The number that is followed.

    Attributes
    ----------
    given : object
        The argument ``target``.
    chosen : list of int
        The class of each example.
    own : bool
        A whole number: the logit of the column itself is the evidence, not less the mean.
    of_function : bool
        A function of the output.
    """

    given: object
    chosen: list[int]
    own: bool = False
    of_function: bool = False

    def logit(self, i: int) -> Callable[[Tensor], Tensor]:
        """Return the logit of the class of an example as a function of logits (1, C)."""
        if self.of_function:
            return lambda logits: number(logits)[0]
        sign = 2 * self.chosen[i] - 1
        return lambda logits: logits[0, 0] * sign if logits.shape[1] == 1 else logits[0, self.chosen[i]]

    def evidence(self, i: int) -> Callable[[Tensor], Tensor]:
        """Return the evidence for the class of an example as a function of logits (1, C)."""
        if self.of_function:
            return lambda logits: number(logits)[0] * (2 * self.chosen[i] - 1)
        if self.own:
            return self.logit(i)
        return lambda logits: self.logit(i)(logits) - (logits[0].mean() if logits.shape[1] > 1 else 0)


def number(logits: Tensor) -> Tensor:
    """Return the one number an example that functions as targets are about, (N,)."""
    return 2 * logits[:, -1] - logits[:, 0] / 2 + 0.1


def predicted(logits: Tensor) -> list[int]:
    """Return the classes that logits (N, C) speak for."""
    if logits.shape[1] == 1:
        return [int(value > 0) for value in logits[:, 0].tolist()]
    return [max(range(logits.shape[1]), key=row.__getitem__) for row in logits.tolist()]


def followed(source: Source, scene: Scene, kinds: tuple[str, ...] = ("nothing", "predicted", "one each", "column", "function"),
             signed: bool = True) -> Followed:
    """Draw the target of a call.

    Parameters
    ----------
    signed : bool
        Whether a single logit that says no is turned round where nothing is named.
    """
    whole = scene.truth.whole()
    count = max(2, whole.shape[1])
    kind = source.pick("target", kinds)
    if scene.half and (kind in ("nothing", "predicted") or kind == "function"
                       and (number(whole).abs() < 0.1 * whole.abs().max()).any()):
        kind = "one each"  # of two logits that are nearly equal, half precision may predict either
    if kind == "one each":
        chosen = [source.pick(f"class {i}", range(count)) for i in range(scene.n)]
        return Followed(torch.tensor(chosen), chosen)
    if kind == "column":
        k = source.pick("column", range(count))
        return Followed(k, [k] * scene.n, own=whole.shape[1] > 1)
    if kind == "function":
        read = LOGITS_OF.get(scene.net.output) if scene.model is scene.net else None

        def function(output: object) -> Tensor:
            logits = output if read is None else read(output)
            return number(logits[:, None] if logits.ndim == 1 else logits)

        return Followed(function, [int(value > 0) for value in number(whole).tolist()], of_function=True)
    if kind == "nothing" and whole.shape[1] == 1 and not signed:
        return Followed(None, [1] * scene.n)
    return Followed(None if kind == "nothing" else "predicted", predicted(whole))


def expects(scene: Scene, follow: Followed | None = None, needed: tuple[str, ...] | None = None) -> bool:
    """Return whether a plain reader would expect an answer.

    Parameters
    ----------
    needed : tuple of str, optional
        What has to be declared for the call, default everything: ``("image.layout",)``.
    """
    explained = set(LOGITS_OF) if follow is not None and follow.of_function else set()  # the function says which entry is meant
    if needed is not None:
        undeclared = {note for note in scene.unexpected if note.endswith(" undeclared")}
        explained |= undeclared - {f"{name} undeclared" for name in needed}
    return not scene.unexpected - explained


def require_truth(scene: Scene, question: bool = True, follow: Followed | None = None) -> None:
    """Raise where no answer is right; what a function makes of a probability is the caller's."""
    if reason := scene.refuse or (question and scene.refuse_modalities):
        raise NoTruth(reason)
    if question and is_probability(scene) and not (follow is not None and follow.of_function):
        raise NoTruth("the output is a probability, which is no logit")
    if question and scene.net.extra == "touching":
        raise NoTruth("the examples touch each other")


def is_probability(scene: Scene) -> bool:
    """Whether what is judged is a probability."""
    return scene.net.output in ("sigmoid", "softmax") and scene.model is scene.net


def layer_is_read(scene: Scene, part: Part) -> bool:
    """Whether a layer has one vector a feature: not so a bag of words, and a packed sequence."""
    kind = getattr(getattr(scene.net, "reading", None), "kind", "") if part.layer.startswith(("reading", "also")) else ""
    return not (kind == "bag" or (kind.startswith("packed") and part.layer.endswith("mixer")))


def hidden_by(source: Source, scene: Scene) -> dict[str, str]:
    """Draw what stands in for each modality."""
    return {part.name: source.pick(f"baseline of {part.name}", part.baselines) for part in scene.parts}


def one_donor(source: Source, scene: Scene, baselines: Mapping[str, str]) -> tuple[dict | None, dict[str, int]]:
    """Return the donors to pass, which are a single example, and the row that each modality borrows from."""
    if "data" not in baselines.values():
        return None, {}
    row = source.pick("donor", range(scene.n))
    return scene.examples(slice(row, row + 1)), {name: row for name in baselines}


def check_size(scene: Scene) -> None:
    """Raise where all coalitions would take too long."""
    features = sum(len(present) for present in scene.truth.present(0).values())
    if scene.n * 2**features > BRUTE:
        raise Skip


def sizes(want: Arrays, differences: Mapping[str, str], logits: float) -> dict[str, float]:
    """Return the size of what each entry is a difference of, by the beginning of its name."""
    return {start: max((logits if other == "logits" else 0.0, *(np.nanmax(np.abs(values), initial=0.0) for name, values in
                                                                want.items() if name.startswith(other))))
            for start, other in differences.items()}


def different(got: Arrays, want: Arrays, tolerance: float, size: float, of: Mapping[str, float] = MappingProxyType({})) -> str:
    """Say where two answers differ; empty if they do not. ``of`` has further sizes, as of :func:`sizes`."""
    for name, right in want.items():
        if name not in got:
            return f"{name} is missing; there are {', '.join(got)}"
        mine, right = np.asarray(got[name], dtype=float), np.asarray(right, dtype=float)
        if mine.shape != right.shape:
            return f"{name} has shape {mine.shape}, should have {right.shape}"
        known = ~np.isnan(right)
        if not known.any():
            continue
        far = np.abs(mine - right)[known]
        largest = max(np.abs(right[known]).max(), size, *(least for start, least in of.items() if name.startswith(start)))
        if not np.all(far <= tolerance * largest + 1e-6):
            return (f"{name} is off by {np.nanmax(far) if not np.isnan(far).all() else np.nan:.3g} of {largest:.3g}: "
                    f"{np.round(mine, 4).tolist()} for {np.round(right, 4).tolist()}")
    return ""


def array(values: Tensor | np.ndarray) -> np.ndarray:
    """Return values as an array of double precision."""
    return values.detach().double().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=float)
