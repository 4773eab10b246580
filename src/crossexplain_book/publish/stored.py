"""What a published page holds of each example: the model's answer under many covers, its scores, its rounds, its pictures."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import chain, combinations
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.coalitions.shapley import shapley
from crossexplain.evaluation.methods import explain, find
from crossexplain.gradients.evidence import classes
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, Tokens
from crossexplain.gradients.question import Question
from crossexplain.gradients.record import Record
from crossexplain.gradients.views import FULL

Names = Callable[[Sequence[int]], Sequence[str]] | Sequence[str] | Sequence[Sequence[str]]
SMALL, LARGE = 64, 256  # pixels a side: up to which a picture is stored as it is, and to which a larger one is made smaller
COVERED, EXACT = "covered alone", "exact shapley"  # scores that are read from the answers under covers


def covers(counts: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """Return which sets of features are covered, each by the features' numbers, without pairs that would not fit.

    Parameters
    ----------
    counts : sequence of int
        How many features each modality of the example has; they are numbered through.
    most : int
        All sets where these are no more than so many, in the order of their bits. Else nothing, every single feature, every
        set of whole modalities, and each modality with a single feature of another one, whatever their number.

    Examples
    --------
    >>> covers([1, 1], 4)
    [(), (0,), (1,), (0, 1)]
    >>> covers([2, 2], 4)
    [(), (0,), (1,), (2,), (3,), (0, 1), (2, 3), (0, 1, 2, 3), (0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
    """
    total = sum(counts)
    if 2**total <= most:
        return [tuple(i for i in range(total) if bits >> i & 1) for bits in range(2**total)]
    ends = np.cumsum([0, *counts])
    whole = [tuple(range(*part)) for part in zip(ends, ends[1:])]
    sets = [tuple(chain(*parts)) for k in range(1, len(whole) + 1) for parts in combinations(whole, k)]
    mixed = [tuple(sorted((*part, i))) for part in whole for i in range(total) if i not in part]
    return list(dict.fromkeys([(), *((i,) for i in range(total)), *sets, *mixed]))


def pairs(effects: np.ndarray, room: int) -> list[tuple[int, int]]:
    """Return the pairs of features that fit: all of them, or those of the features with the largest effects alone."""
    k = min(len(effects), int((1 + np.sqrt(1 + 8 * max(0, room))) / 2))  # k (k - 1) / 2 pairs
    return list(combinations(sorted(np.argsort(-np.abs(effects), kind="stable")[:k].tolist()), 2))


def answers(question: Question, example: int, most: int) -> dict:
    """Return the evidence for the followed class, and the predicted class, under every cover of one example."""
    counts = [int(present[example].sum()) for present in question.present.values()]
    sets, total = covers(counts, most), sum(counts)
    told, predicted = _asked(question, example, sets)
    if everything := len(sets) == 2**total:
        scores = {EXACT: shapley(told[::-1].copy())}  # the last set covers nothing there
    else:
        scores = {}
        alone = told[0] - told[1 : total + 1]
        known = set(sets)
        more = [pair for pair in pairs(alone, most - len(sets)) if pair not in known]
        if more:
            values, seen = _asked(question, example, more)
            sets, told, predicted = sets + more, np.append(told, values), np.append(predicted, seen)
    singles = [sets.index((i,)) for i in range(total)]
    scores[COVERED] = told[0] - told[singles]
    return {"sets": None if everything else [".".join(map(str, one)) for one in sets], "evidence": _short(told),
            "predicted": predicted.tolist(),
            "scores": {key: _short_parts(values, counts) for key, values in scores.items()}}


def _asked(question: Question, example: int, sets: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    features = question.joined()
    present, keep = features[example].nonzero()[:, 0], torch.ones(len(sets), features.shape[1], dtype=torch.bool)
    for row, one in enumerate(sets):
        keep[row, present[list(one)]] = False
    rows = torch.full((len(sets),), example)
    logits = torch.cat([question.logits(question.hidden(*part)) for part in zip(keep.split(question.rows),
                                                                                rows.split(question.rows))])
    return question.evidence(logits, rows).numpy(), classes(logits).cpu().numpy()


def scores_of(model, inputs: Inputs, modalities: Sequence[Modality], methods: Sequence[str], **settings) -> tuple[dict, dict]:
    """Return the importances of each method by modality, (N, F), and of those that cannot run the reason."""
    found, refused = {}, {}
    for key in map(lambda name: find(name).key, methods):
        try:
            found[key] = explain(model, inputs, modalities, key, **settings).values
        except InputError as error:
            refused[key] = str(error)
    return found, refused


def of_example(values: Mapping[str, Tensor], present: Mapping[str, Tensor], example: int) -> list[list[float] | None]:
    """Return values (N, F) by modality at the features that an example has, None for a modality without any."""
    return [_short(values[name][example][there[example]].numpy()) if name in values else None
            for name, there in present.items()]


def rounds_of(record: Record, baseline: str, example: int, words: Sequence[Sequence[str]]) -> list[dict]:
    """Return a line for each view of the rounds: what is covered, evidence, gradient norms, how alike rounds are."""
    names, lines = record.modalities, []
    views = {FULL: ("nothing: round 1", None)}
    views |= {record.without(name): (f"all of {name}: round 3 of {name}"
                                     + (f", round 2 of {names[1 - i]}" if len(names) == 2 else ""), None)
              for i, name in enumerate(names)}
    if len(names) > 2:
        views |= {record.only(name): (f"all but {name}: its round 2", None) for name in names}
    for name in names:
        if (baseline, name) in record.by_side:
            side, here = record.by_side[baseline, name], record.features[name][example]
            picked = side.picked[example][here].nonzero()[:, 0].tolist()
            at_random = None if side.similarity_random is None else float(side.similarity_random.cosine[example])
            views[record.picked(name)] = (", ".join(words[names.index(name)][i] for i in picked) + f": round 4 of {name}",
                                          [name, float(side.similarity.cosine[example]), at_random])
    for view, (covered, alike) in views.items():
        one = record.passes[baseline, view]
        lines.append({"covered": covered, "evidence": _number(record.margin(baseline, view)[example]),
                      "predicted": int(classes(one.logits[example : example + 1])[0]),
                      "norms": [_number(one.norms[name][example]) if name in one.norms else None for name in names],
                      "alike": alike and [alike[0], *map(_number, alike[1:])]})
    return lines


def words_of(modality: Modality, inputs: Inputs, present: Tensor, given: Names | None, example: int) -> list[str]:
    """Return the names of the features that an example has."""
    here = present[example].nonzero()[:, 0].tolist()
    if callable(given):
        given = list(given(modality.value(inputs)[example][torch.as_tensor(here)].tolist()))
    elif given is not None and len(given) and not isinstance(given[0], str):
        if example >= len(given):
            raise InputError(f"got names of {modality.unit} for {len(given)} examples, expected them for each example; one "
                             "list of texts names the features of all examples.")
        given = list(given[example])
    if given is not None:
        given = [given[i] for i in here] if len(given) == present.shape[1] != len(here) else list(given)
        if len(given) != len(here) or not all(isinstance(name, str) for name in given):
            raise InputError(f"got {len(given)} names for the {len(here)} {modality.unit} of {modality.name} of example "
                             f"{example}, expected one text each.")
        return given
    if isinstance(modality, ImageCells):
        return [f"row {i // modality.grid[1] + 1}, column {i % modality.grid[1] + 1}" for i in here]
    if isinstance(modality, Tokens) and modality.words is None:
        return [f"token {token}" for token in modality.value(inputs)[example][torch.as_tensor(here)].tolist()]
    return [f"{modality.unit.removesuffix('s')} {i + 1}" for i in here]


def picture(image: Tensor, stretched: bool) -> str:
    """Return an image (C, H, W), in [0, 1] unless ``stretched``, as the address of a PNG or, of a large one, a JPEG."""
    from PIL import Image

    values = image.detach().cpu().float()
    if stretched:
        values = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    values = values if len(values) == 3 else values.mean(dim=0, keepdim=True)
    array = (values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    drawn, buffer = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array), BytesIO()
    kind = "png" if max(drawn.size) <= SMALL else "jpeg"
    drawn.thumbnail((LARGE, LARGE))
    drawn.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"


def _short_parts(values: np.ndarray, counts: Sequence[int]) -> list[list[float]]:
    return [_short(part) for part in np.split(values, np.cumsum(counts)[:-1])]


def _short(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float | None) -> float | None:
    """Return a number with six digits, which JSON can hold."""
    return float(f"{float(value):.6g}") if value is not None and isfinite(value) else None
