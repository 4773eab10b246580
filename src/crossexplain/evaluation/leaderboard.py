"""Explanations side by side: many methods, the same pairs, several metrics, and what each method cost.

Collages are asked with twelve players: four cells, and the words in at most eight groups of neighbours. The model's value of
all 4,096 coalitions of them is at hand, so that every curve and every sample of coalitions is looked up, and no metric
depends on luck.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from crossexplain.data import collages as pairs_of
from crossexplain.data.collages import Collages
from crossexplain.evaluation.metrics import cue_auroc
from crossexplain.gradients.rounds import FULL, Rounds, carriers, rounds
from crossexplain.gradients.views import Tokens, Vectors

CELLS, GROUPS = 4, 8
PLAYERS = CELLS + GROUPS  # P
EVERY = np.arange(2**PLAYERS)  # coalition S has player k iff S >> k & 1
WHOLE, PICTURE = 2**PLAYERS - 1, 2**CELLS - 1
BASELINE = {"image": "zero", "text": "mask"}
STEPS, SAMPLED, ORDERS = 16, 512, 16  # of integrated gradients; coalitions to correlate; orders of sampled Shapley values


@dataclass(frozen=True)
class Asked:
    """A model, the pairs it is asked about, and its value of every coalition.

    Attributes
    ----------
    model : torch.nn.Module
        With ``see``, ``read`` and ``match``, called with what the tower sees and tokens.
    seen : Tensor, shape (N, 4, 10)
        Probabilities of the digits of each cell; 0 where a cell is hidden.
    test : Collages
        The N pairs.
    """

    model: nn.Module
    seen: Tensor
    test: Collages

    def __len__(self) -> int:
        return len(self.test)

    @cached_property
    def tokens(self) -> Tensor:
        """Words, (N, T)."""
        return self.test.tokens()

    @cached_property
    def group(self) -> np.ndarray:
        """Group of each word, 0 to 7, -1 for padding, (N, T): up to 8 words stand for themselves."""
        real = (self.tokens != 0).numpy()
        length, place = real.sum(axis=1, keepdims=True), np.arange(real.shape[1])
        return np.where(real, np.where(length > GROUPS, place * GROUPS // np.maximum(length, 1), place), -1)

    def joint(self, cells, words) -> np.ndarray:
        """Bring scores of cells (N, 4) and words (N, T) to the players, (N, P): a group has the sum of its words."""
        words = np.where(self.group >= 0, np.asarray(words, dtype=float), 0.0)
        of = np.stack([np.where(self.group == g, words, 0.0).sum(axis=1) for g in range(GROUPS)], axis=1)
        return np.concatenate([np.asarray(cells, dtype=float), of], axis=1)

    @cached_property
    def present(self) -> np.ndarray:
        """Which players a pair has, bool (N, P)."""
        return self.joint(np.ones((len(self), CELLS)), np.ones(self.group.shape)) > 0

    @cached_property
    def deciding(self) -> np.ndarray:
        """Cells that a person would point at, and groups with a word that carries what is said, bool (N, P)."""
        return self.joint(self.test.deciding_cells, self.test.deciding_tokens) > 0

    @cached_property
    def table(self) -> np.ndarray:
        """Evidence for the answer given, of all coalitions, (N, 4096)."""
        return coalitions(self)


@torch.no_grad()
def coalitions(asked: Asked) -> np.ndarray:
    """Return the model's value of every coalition, (N, 4096): its logit, with the sign of its own answer.

    Every set of cells and every set of words is encoded once, 16 + 256 of them instead of 4,096.
    """
    model, cells = asked.model, (torch.arange(2**CELLS)[:, None] >> torch.arange(CELLS)) & 1  # (16, 4)
    words = (torch.arange(2**GROUPS)[:, None] >> torch.arange(GROUPS)) & 1  # (256, 8)
    found = []
    for seen, tokens, group in zip(asked.seen, asked.tokens, torch.from_numpy(asked.group)):
        kept = torch.cat([words.bool(), torch.ones(len(words), 1, dtype=torch.bool)], dim=1)[:, group]  # padding is kept
        said = model.read(tokens.where(kept, 1))  # word 1 is the mask
        looked = model.see(seen * cells[:, :, None])
        found.append(model.match(looked[EVERY % len(looked)], said[EVERY // len(looked)]))  # S = 16 * text + cells
    table = torch.stack(found).double().numpy()
    return table * np.where(table[:, -1:] > 0, 1.0, -1.0)


def shapley(table) -> np.ndarray:
    """Return the exact Shapley values of tables (..., 2^P), (..., P)."""
    table = np.asarray(table, dtype=float)
    players = table.shape[-1].bit_length() - 1
    size = _sizes(players)
    weight = np.array([1 / (players * comb(players - 1, s)) for s in range(players)])
    without = [np.flatnonzero(np.arange(2**players) >> k & 1 == 0) for k in range(players)]
    return np.stack([(table[..., there + 2**k] - table[..., there]) @ weight[size[there]]
                     for k, there in enumerate(without)], axis=-1)


def crossing(table) -> np.ndarray:
    """Return the exact Shapley interaction of every cell with every group, (..., 4, 8), of tables (..., 4096)."""
    table, size = np.asarray(table, dtype=float), _sizes(PLAYERS)
    weight = np.array([1 / ((PLAYERS - 1) * comb(PLAYERS - 2, s)) for s in range(PLAYERS - 1)])
    found = np.empty((*table.shape[:-1], CELLS, GROUPS))
    for cell in range(CELLS):
        for group in range(GROUPS):
            i, j = 1 << cell, 1 << (CELLS + group)
            rest = EVERY[(EVERY & (i | j)) == 0]
            gain = table[..., rest | i | j] - table[..., rest | i] - table[..., rest | j] + table[..., rest]
            found[..., cell, group] = gain @ weight[size[rest]]
    return found


def _sizes(players: int) -> np.ndarray:
    return np.array([int(s).bit_count() for s in range(2**players)])


# ---- methods: each gives scores (N, P) and what it cost, in forward passes an example; a backward pass counts as two


def recorded(asked: Asked, pick: str | None = None, seed: int = 0) -> Rounds:
    """Run the project's rounds on what the tower sees."""
    modalities = [Vectors("image", "seen"), Tokens(layer=asked.model.text_layer)]
    return rounds(asked.model, {"seen": asked.seen, "tokens": asked.tokens}, modalities, baselines=[BASELINE], rows=4096,
                  pick=pick, control=False, progress=False, seed=seed)


def _round_one(asked: Asked, seed: int) -> tuple[np.ndarray, float]:
    of = recorded(asked).passes["zero + mask", FULL].importance
    return asked.joint(of["image"], of["text"]), 3


def _alone(asked: Asked, seed: int) -> tuple[np.ndarray, float]:
    passes = recorded(asked).passes
    image, text = passes["zero + mask", "text masked"], passes["zero + mask", "image masked"]
    return asked.joint(image.importance["image"], text.importance["text"]), 6


def _cross(asked: Asked, seed: int) -> tuple[np.ndarray, float]:
    ends = recorded(asked, pick="round 2", seed=seed).ends
    return asked.joint(ends["zero + mask", "image"].cross, ends["zero + mask", "text"].cross), 9


def _slopes(asked: Asked, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients at what is seen (N, 4, 10) and at the words (N, T, D), and the words, on the way to the whole pair."""
    seen, kept = (asked.seen * share).requires_grad_(), []

    def scale(module, given, words):
        kept.append((share * words.detach()).requires_grad_())
        return kept[-1]

    hook = asked.model.get_submodule(asked.model.text_layer).register_forward_hook(scale)
    try:
        logit = asked.model(seen, asked.tokens)
    finally:
        hook.remove()
    return *torch.autograd.grad(logit.sum(), [seen, kept[0]]), kept[0].detach()


def _path(asked: Asked, shares) -> np.ndarray:
    """Return the mean gradient along the way times the way, signed by the answer: integrated gradients."""
    runs = [_slopes(asked, float(share)) for share in shares]
    words = _slopes(asked, 1.0)[2] if len(runs) > 1 else runs[0][2]
    image = (torch.stack([run[0] for run in runs]).mean(0) * asked.seen).sum(2)
    text = (torch.stack([run[1] for run in runs]).mean(0) * words).sum(2)
    with torch.no_grad():
        sign = torch.where(asked.model(asked.seen, asked.tokens) > 0, 1.0, -1.0)[:, None]
    return asked.joint(sign * image, sign * text)


def _dividends(asked: Asked, seed: int) -> tuple[np.ndarray, float]:
    modalities = [Vectors("image", "seen"), Tokens(layer=asked.model.text_layer)]
    found = carriers(asked.model, {"seen": asked.seen, "tokens": asked.tokens}, modalities, baseline=BASELINE, rows=4096,
                     progress=False, seed=seed)
    return asked.joint(found["image"], found["text"]), 2 * (CELLS + float((asked.group >= 0).sum(1).mean())) + 4


def _sampled(asked: Asked, seed: int) -> tuple[np.ndarray, float]:
    rng, found = np.random.default_rng(seed), np.zeros((len(asked), PLAYERS))
    for _ in range(ORDERS):
        order = rng.permutation(PLAYERS)
        steps = asked.table[:, np.concatenate([[0], np.cumsum(1 << order)])]  # (N, P + 1)
        found[:, order] += np.diff(steps, axis=1) / ORDERS
    return found, ORDERS * (PLAYERS - 1) + 2


METHODS: dict[str, Callable[[Asked, int], tuple[np.ndarray, float]]] = {
    "baseline: random": lambda asked, seed: (np.random.default_rng(seed).random((len(asked), PLAYERS)), 0),
    "baseline: word length": lambda asked, seed: (_lengths(asked), 0),
    "gradient (round 1)": _round_one,
    "gradient, other masked (rounds 2, 3)": _alone,
    "cross gradient": _cross,
    "gradient x input": lambda asked, seed: (_path(asked, [1.0]), 3),
    "integrated gradients": lambda asked, seed: (_path(asked, (np.arange(STEPS) + 0.5) / STEPS), 3 * STEPS),
    "leave one out": lambda asked, seed: (asked.table[:, -1:] - asked.table[:, WHOLE - (1 << np.arange(PLAYERS))], PLAYERS + 1),
    "dividend of the feature": _dividends,
    "Shapley, 16 orders": _sampled,
    "Shapley, exact": lambda asked, seed: (shapley(asked.table), 2**PLAYERS),
    "Shapley interactions across, exact": lambda asked, seed: (_interacting(asked.table), 2**PLAYERS),
}
SIGNED = {"gradient x input", "integrated gradients", "leave one out", "dividend of the feature", "Shapley, 16 orders",
          "Shapley, exact"}


def explain(asked: Asked, method: str, seed: int = 0) -> tuple[np.ndarray, float, float]:
    """Return a method's scores (N, P), its forward passes an example, and its seconds an example.

    Coalitions that have been looked up count as passes of the whole model, not in the seconds.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} came, expected one of {', '.join(map(repr, METHODS))}.")
    started = time.perf_counter()
    scores, passes = METHODS[method](asked, seed)
    return scores, float(passes), (time.perf_counter() - started) / len(asked)


def _lengths(asked: Asked) -> np.ndarray:
    length = np.array([len(word) for word in pairs_of.VOCABULARY])[asked.tokens.numpy()]
    return asked.joint(np.zeros((len(asked), CELLS)), length)


def _interacting(table: np.ndarray) -> np.ndarray:
    size = np.abs(crossing(table))
    return np.concatenate([size.sum(axis=2), size.sum(axis=1)], axis=1)


# ---- metrics: each (N,), higher is better


def area(asked: Asked, scores: np.ndarray, among=slice(None)) -> np.ndarray:
    """Return the area between the insertion and the deletion curve, as a share of the range of the model's values.

    Parameters
    ----------
    asked : Asked
    scores : ndarray, shape (N, P)
    among : slice or index
        Players that are taken out and put in; the others stay. Default: all, of both modalities.
    """
    players = np.arange(PLAYERS)[among]
    order = players[np.argsort(-scores[:, players], axis=1, kind="stable")]  # (N, p), best first
    taken = np.concatenate([np.zeros((len(order), 1), dtype=int), np.cumsum(1 << order, axis=1)], axis=1)
    rest = WHOLE - (1 << players).sum()
    rows = np.arange(len(order))[:, None]
    inserted, deleted = asked.table[rows, rest + taken], asked.table[rows, WHOLE - taken]
    return (inserted - deleted).mean(axis=1) / np.ptp(asked.table, axis=1)


def coalition_rank(asked: Asked, scores: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return how a sum of scores orders coalitions: rank correlation with the model's values, a mix of sizes."""
    rng = np.random.default_rng(seed)
    keep = rng.random((SAMPLED, PLAYERS)) < rng.uniform(0.1, 0.9, (SAMPLED, 1))
    value = asked.table[:, (keep * (1 << np.arange(PLAYERS))).sum(axis=1)]
    return np.array([_spearman(keep @ s, v) for s, v in zip(scores, value)])


def synergy(asked: Asked, scores: np.ndarray, cells: int = 2, groups: int = 3, draws: int = 64, seed: int = 0) -> np.ndarray:
    """Return what the best cells and the best groups are worth together beyond each alone, less that of random ones."""
    def dividend(image: np.ndarray, text: np.ndarray) -> np.ndarray:
        rows = np.arange(len(asked))
        return (asked.table[rows, image + text] - asked.table[rows, image] - asked.table[rows, text] + asked.table[rows, 0])

    def best(part: np.ndarray, first: int, k: int) -> np.ndarray:
        return (1 << (first + np.argsort(-part, axis=1, kind="stable")[:, :k])).sum(axis=1)

    size, rng = np.where(asked.present, np.abs(scores), -1.0), np.random.default_rng(seed)
    own = dividend(best(size[:, :CELLS], 0, cells), best(size[:, CELLS:], CELLS, groups))
    drawn = [np.where(asked.present, rng.random(size.shape), -1.0) for _ in range(draws)]
    chance = [dividend(best(some[:, :CELLS], 0, cells), best(some[:, CELLS:], CELLS, groups)) for some in drawn]
    return (own - np.mean(chance, axis=0)) / np.ptp(asked.table, axis=1)


METRICS: dict[str, Callable[[Asked, np.ndarray], np.ndarray]] = {
    "joint area": area,
    "area, cells": lambda asked, scores: area(asked, scores, slice(0, CELLS)),
    "area, words": lambda asked, scores: area(asked, scores, slice(CELLS, None)),
    "coalition rank": coalition_rank,
    "synergy": synergy,
    "near exact": lambda asked, scores: np.array([_spearman(*np.abs(pair)[:, there]) for pair, there in zip(
        np.stack([scores, shapley(asked.table)], axis=1), asked.present)]),
    "deciding words": lambda asked, scores: _auroc(asked, scores, slice(CELLS, None)),
    "deciding cells": lambda asked, scores: _auroc(asked, scores, slice(0, CELLS)),
}
RANGES = {  # direction is the same for all: higher is better
    "joint area": ("-1 to 1", "players of both modalities; hides cells and words far from any real pair"),
    "area, cells": ("-1 to 1", "cells alone, the sentence whole: blind to a wrong order between cells and words"),
    "area, words": ("-1 to 1", "words alone, the picture whole: blind to a wrong order between cells and words"),
    "coalition rank": ("-1 to 1", "asks for a sum: no sum can order an exclusive or"),
    "synergy": ("about -1 to 1", "depends on how many are kept, here 2 cells and 3 groups"),
    "near exact": ("-1 to 1", "the exact values are those of one baseline"),
    "deciding words": ("0 to 1, chance 0.5", "a person's question, not the model's"),
    "deciding cells": ("0 to 1, chance 0.5", "a person's question: the model may need all four cells"),
}


def _auroc(asked: Asked, scores: np.ndarray, side: slice) -> np.ndarray:
    return cue_auroc(np.abs(scores[:, side]), asked.deciding[:, side], asked.present[:, side])


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    x, y = rankdata(x), rankdata(y)
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else np.nan
