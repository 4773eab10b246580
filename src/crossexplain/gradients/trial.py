"""The test pass of a question: its first example alone and beside another, before anything else is asked.

It finds what would make all later answers wrong: columns that change with the batch, examples that touch each other, an axis
that is dropped, probabilities in place of logits, and which inputs belong to all examples.
"""

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.capture import run
from crossexplain.gradients.evidence import (
    Ends,
    as_logits,
    first_tensor,
    keep_axis,
    scored,
    sums_to_one,
    tensors_in,
    undo,
)
from crossexplain.gradients.failures import quantised
from crossexplain.gradients.modalities import Inputs, Modality, is_batched, rows_of, without_others

# Shares of the largest logit. A batch of two may round otherwise than one of one, in half precision by a hundredth. In batches
# of one size an example's logit is the same to the last digits, whatever stands beside it, and when it is asked for again.
TOUCH = 0.02
SAME = 1e-4
MOST = 2**28  # weights of a model that is copied to another precision, 1 or 2 GiB, to tell rounding from what is none
MANY = 8  # times that an example is put beside itself: experts with room for a few alone would turn some away
FEW = 3  # inputs that may belong to all examples, of which every subset is tried; of more, each alone and all together


class Refusal(InputError):
    """What the test pass finds, as four sentences that :func:`~crossexplain.gradients.preflight.preflight` can list.

    Attributes
    ----------
    check : str
        Short name.
    saw, why, do : str
        What the run showed, what it does to explanations, and what to type.
    """

    def __init__(self, check: str, saw: str, kind: str = "", **values: object):
        self.check, self.saw, (self.why, self.do) = check, saw, texts_of(check, kind, **values)
        super().__init__(f"{saw} {self.why} {self.do}")


def texts_of(check: str, kind: str = "", **values: object) -> tuple[str, str]:
    """Return why a finding matters and what to do, of ``findings.toml``; ``kind`` names one of several that a check has."""
    texts = _texts()[check]
    texts = texts[kind] if kind else texts
    return texts["why"].format(**values), texts["do"].format(**values)


@cache
def _texts() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("findings.toml").read_text("utf-8"))


class Trial(NamedTuple):
    """What the test pass found.

    Attributes
    ----------
    columns : int or None
        Logits an example; None where the test pass did not come so far.
    common : tuple of str
        Inputs that belong to all examples.
    judged : str
        Which part of the output is judged, in words.
    end : str or None
        ``"sigmoid"`` or ``"softmax"`` where the model gives probabilities.
    """

    columns: int | None
    common: tuple[str, ...]
    judged: str
    end: str | None


class _Answer(NamedTuple):
    """The logits of the first example (C,), and the output of the pair."""

    logits: Tensor
    judged: str
    end: str | None


def tried(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], n: int,
          function: Callable[[object], Tensor] | None) -> Trial:
    """Run the first example alone and beside the last one.

    Parameters
    ----------
    model, inputs, modalities
        Of the question, about ``n`` examples.
    function : callable, optional
        Target, where that is a function of the output.

    Raises
    ------
    Refusal, InputError
        Where examples cannot be asked about one by one, or it is open which inputs belong to all of them.
    """
    known = calling_of(model).common
    of_modalities = set(chain.from_iterable(modality.keys(inputs) for modality in modalities))
    handed_on = tuple(key for key, value in inputs.items() if key in known or not is_batched(value, n))
    open_keys = [key for key in inputs if key not in of_modalities and key not in handed_on]
    answers, refused = {}, []
    for more in _subsets(open_keys):
        try:
            answers[more] = _answer(model, inputs, modalities, (*handed_on, *more), n, function)
        except InputError as error:
            refused.append(error)
    if not answers:
        raise refused[0]
    *others, (common, answer) = answers.items()  # where it makes no difference, what is handed on fits any number of rows
    for more, other in others:
        if _apart(answer.logits, other.logits) > SAME:
            raise _open(sorted(set(more) ^ set(common)), n)
    return Trial(len(answer.logits), (*handed_on, *common), answer.judged, answer.end)


def _subsets(keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield which of the inputs may belong to all examples, the fewest first."""
    sizes = range(len(keys) + 1) if len(keys) <= FEW else (0, 1, len(keys))
    return chain.from_iterable(combinations(keys, size) for size in sizes)


def _equal(two: Inputs, common: Sequence[str]) -> bool:
    """Return whether two examples are the same, so that what each does to the other does not show."""
    cut = [value for key, value in two.items() if key not in common and is_batched(value, 2)]
    return all(torch.equal(*value) if isinstance(value, Tensor) else value[0] is value[1]
               or isinstance(value[0], str) and value[0] == value[1] for value in cut)


def _beside(two: dict[str, Any], modalities: Sequence[Modality]) -> dict[str, Any]:
    """Return an example twice with something of the second one hidden in every modality, where there is no other example."""
    for modality in modalities:
        alone = next((baseline for baseline in modality.baselines if baseline != "data"), None)  # nobody to borrow from
        if alone is None:
            continue
        with suppress(InputError):
            present = modality.features(two)
            keep = torch.ones_like(present)
            keep[1] = 2 * present[1].cumsum(dim=0) <= present[1].sum()  # the first half of those that are there
            two = {**two, **modality.replace(without_others(two, modality, modalities), keep, alone, None)}
    return two


def _answer(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], common: tuple[str, ...], n: int,
            function: Callable[[object], Tensor] | None) -> _Answer:
    """Return what the model says of the first example if both examples get the same logits alone and together."""
    one, two = (rows_of(inputs, torch.tensor(rows), n, common) for rows in ([0], [0, n - 1]))
    alone, two = run(model, one), _beside(two, modalities) if _equal(two, common) else two
    ends = Ends()
    try:
        with ends:
            pair = run(model, two)
    except InputError:  # a model whose steps cannot be followed: the end of its output is not seen
        pair = run(model, two)
    end, judged = None, "what the target function gives"
    if function is None:
        tensor = first_tensor(pair)
        path = next((path for path, other in tensors_in(pair) if other is tensor), "")
        _require_rows(first_tensor(alone), tensor, path)
        end, judged = "softmax" if sums_to_one(tensor) else ends.of(tensor), f"output{path}"

    def logits_of(output: object, rows: int) -> Tensor:
        logits = as_logits(output, rows) if function is None else scored(function, output, rows)[:, None]
        return logits.detach()

    both, first = logits_of(pair, 2), logits_of(alone, 1)
    try:
        _require_alone(model, two, common, both, first, logits_of)
    except Refusal:
        single = in_precision(model, torch.float32) if both.dtype in (torch.float16, torch.bfloat16) else None
        if single is None:
            raise
        exact = {key: value.float() if isinstance(value, Tensor) and value.dtype == both.dtype else value
                 for key, value in two.items()}
        both, first = (logits_of(run(single, rows_of(exact, torch.arange(n), 2, common)), n) for n in (2, 1))
        _require_alone(single, exact, common, both, first, logits_of)
    return _Answer(first[0], judged if function else f"{judged}, {len(first[0])} column{'s' * (len(first[0]) > 1)}", end)


def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """Return a copy in another precision, where what is rounding in this one is none; None where there can be none."""
    if sum(parameter.numel() for parameter in model.parameters()) > MOST:
        return None
    with suppress(Exception):  # a stranger's model may not be copied, or hold its precision where nobody sees it
        return copy.deepcopy(model).to(dtype)
    return None


def _require_alone(model: nn.Module, two: Inputs, common: tuple[str, ...], both: Tensor, first: Tensor,
                   logits_of: Callable[[object, int], Tensor]) -> None:
    """Raise where one of two examples has other logits alone than beside the other, or when it is asked again."""
    def asked(*rows: int) -> Tensor:
        return logits_of(run(model, rows_of(two, torch.tensor(rows), 2, common)), len(rows))

    for row, alone in ((0, first), (1, asked(1))):  # what comes later in a batch may depend on what comes before it
        apart = _apart(alone[0], both[row])
        if apart <= SAME:
            continue
        if (moved := _apart(alone[0], asked(row)[0])) > SAME:
            raise Refusal("not repeatable", f"The model gives other logits when it is asked again, by {moved:.1%} of their "
                                            "size.", "asked")
        beside = _apart(asked(0, 1)[row], asked(row, row)[row])
        if (beside > SAME or apart > TOUCH) and not quantised(model):
            raise Refusal("examples touch", f"The {('first', 'last')[row]} example alone has another logit than beside a "
                                            f"second one, by {max(apart, beside):.1%} of its size.", "asked")
    many = asked(*[0] * MANY)
    if (apart := max(_apart(many[0], one) for one in many)) > SAME and not quantised(model):
        raise Refusal("examples touch", f"The first example {MANY} times in one batch has different logits there, by "
                                        f"{apart:.1%} of their size.", "asked")


def _apart(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of two rows of logits, as a share of the largest logit; 0 where one is NaN or infinite."""
    first, second = first.double(), second.double().to(first.device)
    if first.shape != second.shape or not (first.isfinite().all() and second.isfinite().all()):
        return float(first.shape != second.shape)
    return float((first - second).abs().max() / torch.cat([first, second]).abs().max().clamp(min=1e-3))


def _require_rows(first: Tensor, both: Tensor, path: str) -> None:
    """Raise where the output of one example has another form than that of two."""
    if first.ndim == both.ndim - 1:
        raise Refusal("an axis is dropped", f"The output of two examples has shape {tuple(both.shape)}, that of one "
                                            f"{tuple(first.shape)}.", keep=keep_axis(both[0].numel()))
    if first.ndim == both.ndim == 2 and first.shape[1] != both.shape[1]:
        raise Refusal("columns change", f"The model gives {first.shape[1]} column(s) for one example and {both.shape[1]} for "
                                        "two.", path=path)


def _open(keys: Sequence[str], n: int) -> Refusal:
    names = ", ".join(map(repr, keys))
    return Refusal("one each or one for all", f"The input(s) {names} have as many rows as there are examples, {n}, and the "
                   "model gives other answers when they are cut with the examples than when they are handed on whole.",
                   names=names)


def of_probabilities(end: str) -> Refusal:
    """Return what is said of a model that gives probabilities."""
    return Refusal("probabilities", f"The model's output ends in a {end}: its numbers lie between 0 and 1.", end=end,
                   undo=undo(end))


def require_donors(inputs: Inputs, donors: Inputs | None, modalities: Sequence[Modality],
                   baselines: Mapping[str, str]) -> None:
    """Raise :class:`InputError` unless there are examples to borrow from, of the same form, where a baseline is ``"data"``."""
    borrowing = [modality for modality in modalities if baselines[modality.name] == "data"]
    if not borrowing:
        return
    if donors is None:
        raise InputError("the baseline 'data' borrows from other examples; pass them as donors=...")
    if not isinstance(donors, Mapping):
        raise InputError(f"got donors as {type(donors).__name__}, expected a dict with the entries of the inputs.")
    for modality in borrowing:
        for key in modality.keys(inputs):
            own, lent = inputs.get(key), donors.get(key)
            if isinstance(own, Tensor) and not (isinstance(lent, Tensor) and lent.shape[1:] == own.shape[1:]):
                got = f"shape {tuple(lent.shape[1:])} an example" if isinstance(lent, Tensor) else "nothing"
                raise InputError(f"the donors have {got} as {key!r}, the inputs {tuple(own.shape[1:])} an example; pass donors "
                                 "with the same entries, resized or padded alike.")
