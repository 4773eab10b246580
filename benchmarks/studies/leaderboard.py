"""Explanations side by side: many methods, the same pairs, several metrics, and what each method cost.

Every model is asked with twelve players: four cells, and the words in at most eight groups of neighbours. The model's value of
all 4,096 coalitions of them is at hand, so that every curve and every sample of coalitions is looked up, and no metric
depends on luck.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.studies import pointing
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.shapley import best_orders, shapley
from crossexplain.data import collages as pairs_of
from crossexplain.data.collages import Collages
from crossexplain.data.scenes import Pairs
from crossexplain.evaluation import faithfulness, methods
from crossexplain.evaluation.sanity import largest_change, rank_stability, redrawn
from crossexplain.evaluation.task import CannotRun, library
from crossexplain.evaluation.truth import (
    box_masks,
    cue_auroc,
    edge_map,
    random_scores,
    row_correlation,
)
from crossexplain.gradients.attention import METHODS as ATTENTION_METHODS
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, Tokens, Vectors
from crossexplain.recipes import scenes

CELLS, GROUPS = 4, 8
PLAYERS = CELLS + GROUPS  # P
BASELINE = {"image": "zero", "text": "mask"}
OTHERS = ({"image": "zero", "text": "data"}, {"image": "data", "text": "mask"}, {"image": "data", "text": "data"})
DONOR = 4  # pairs; the baseline "data" borrows from the pair so many places before, which is of another quadruple
RADIUS, NOISES = 0.02, 3  # how far each number of a picture moves at most, of a range of 1, and how many moved pictures
HELD = 0.25  # share of a thing's box that a cell has to hold to count as its place


@dataclass(frozen=True)
class Case:
    """A model, the N pairs it is asked about, and its value of every coalition.

    Attributes
    ----------
    model : torch.nn.Module
        With ``see``, ``read`` and ``match``.
    inputs : mapping of str to Tensor
    modalities : (Modality, Modality)
        Picture, of four cells, and sentence.
    decides : dict of str to ndarray of bool, shape (N, F)
        What a person would point at: cells, and words that carry what is said.
    drawn : dict of str to dict of str to ndarray, shape (N, F)
        Scores that never saw the model, by name and modality.
    attention : dict of str to sequence of str
        Self-attention modules of each modality's tower, where it is a transformer.
    baseline : dict of str to str
        What stands in for hidden features.
    target : Tensor of int64, shape (N,), optional
        The answer that is followed; default the model's own.
    """

    model: nn.Module
    inputs: Inputs
    modalities: Sequence[Modality]
    decides: Mapping[str, np.ndarray]
    drawn: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    attention: Mapping[str, Sequence[str]] = field(default_factory=dict)
    baseline: Mapping[str, str] = field(default_factory=lambda: BASELINE)
    target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.game)

    @cached_property
    def game(self) -> Game:
        """The model's value of coalitions."""
        return Game(self.model, self.inputs, self.modalities, players={"text": GROUPS}, progress=False, **self.question)

    @property
    def question(self) -> dict[str, object]:
        """What stands in for hidden features and which answer is followed, as arguments."""
        donors = {key: value.roll(DONOR, dims=0) for key, value in self.inputs.items()}
        return {"baselines": self.baseline, "donors": donors, "target": self.target}

    @cached_property
    def table(self) -> np.ndarray:
        """Evidence for the answer given, of all coalitions, (N, 4096)."""
        return self.game.values_of_all().numpy()

    @cached_property
    def range(self) -> np.ndarray:
        """How far the values of an example's coalitions lie apart, (N,)."""
        return np.ptp(self.table, axis=1)

    @property
    def present(self) -> np.ndarray:
        """Which players a pair has, bool (N, P)."""
        return self.game.present.numpy()

    @cached_property
    def deciding(self) -> np.ndarray:
        """Players that hold what decides, bool (N, P)."""
        return self.joint(self.decides) > 0

    def redrawn(self, seed: int = 0) -> "Case":
        """Return the same question to a model that has learned nothing: all its weights are drawn anew."""
        return replace(self, model=redrawn(self.model, seed).eval())

    def hidden_otherwise(self) -> list["Case"]:
        """Return the same question with each of ``OTHERS`` in place of what is hidden."""
        return [replace(self, baseline=baseline) for baseline in OTHERS]

    def moved(self, seed: int = 0) -> list["Case"]:
        """Return the same question about pictures of which every number has moved a little, ``NOISES`` times."""
        generator, key = torch.Generator().manual_seed(seed), self.modalities[0].input
        noises = [2 * torch.rand(self.inputs[key].shape, generator=generator) - 1 for _ in range(NOISES)]
        return [replace(self, inputs={**self.inputs, key: self.inputs[key] + RADIUS * noise}, target=self.game.target)
                for noise in noises]

    def joint(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Bring scores of cells and words to the players, (N, P): a group has the sum of its words.

        NaN stands for players that a pair does not have, and for a modality without scores.
        """
        found = self.game.joint({name: torch.as_tensor(np.asarray(part, dtype=float)) for name, part in values.items()}).numpy()
        found[:, [name not in values for name in self.game.names]] = np.nan
        return found


def of_collages(model: nn.Module, seen: Tensor, test: Collages) -> Case:
    """Ask a model that is given what the tower sees of collages, (N, 4, 10), and their sentences."""
    tokens = test.tokens()
    length = np.array([len(word) for word in pairs_of.VOCABULARY])[tokens.numpy()] * (tokens.numpy() != 0)
    return Case(model, {"seen": seen, "tokens": tokens}, [Vectors("image", "seen"), Tokens(layer=model.text_layer)],
                 {"image": test.deciding_cells, "text": test.deciding_tokens}, {"word length": {"text": length}})


def of_scenes(model: nn.Module, pairs: Pairs) -> Case:
    """Ask a model about scenes and captions, true ones and foils; a foil's false word decides, and the place it speaks of."""
    images = pairs.scenes.images(pairs.image)
    inputs = scenes.inputs(model, images, pairs.captions)
    first = int(inputs["tokens"][0, 0] == 2)  # after start-of-text, where there is one
    words, cells = np.zeros(inputs["tokens"].shape, bool), np.zeros((len(images), CELLS), bool)
    for i, label in enumerate(pairs.labels):
        cues = pairs.cues(i) if label else [(int(pairs.false_word[i]), "", pairs.false_boxes(i))]
        words[i, [first + place for place, *_ in cues]] = True
        for _, _, boxes in cues:
            cells[i] |= _held(boxes, images.shape[-1])
    modalities = [ImageCells(layer=model.image_layer, grid=(2, 2)), Tokens(layer=model.text_layer, special=(2, 3))]
    length = np.zeros(words.shape)
    spelled = length_scores([caption.split() for caption in pairs.captions])
    length[:, first : first + spelled.shape[1]] = np.nan_to_num(spelled)
    attention = {"image": getattr(model, "attention_layers", ()), "text": pointing.attention_of_words(model)}
    return Case(model, inputs, modalities, {"image": cells, "text": words},
                 {"word length": {"text": length}, "edges": {"image": edge_scores(images.numpy(), 2, 2)}}, attention)


def edge_scores(images, rows: int, columns: int) -> np.ndarray:
    """Return the edges in each cell of an image, averaged: a baseline that never saw the model.

    Parameters
    ----------
    images : array_like, shape (N, C, H, W)
    rows, columns : int
        Of the grid of cells; they divide H and W.

    Returns
    -------
    ndarray, shape (N, rows * columns), row by row
    """
    edges = edge_map(images)
    n, height, width = edges.shape
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise ValueError(f"got a grid of {rows} x {columns} cells, expected one that divides {height} x {width} pixels.")
    return edges.reshape(n, rows, height // rows, columns, width // columns).mean(axis=(2, 4)).reshape(n, -1)


def length_scores(words: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the length of each word, in letters: long words tend to carry content, whatever the model does with them.

    Parameters
    ----------
    words : sequence of N sequences of str

    Returns
    -------
    ndarray, shape (N, T), NaN after the last word

    Examples
    --------
    >>> length_scores([["a", "seven"], ["no"]])
    array([[ 1.,  5.],
           [ 2., nan]])
    """
    lengths = np.full((len(words), max(map(len, words), default=0)), np.nan)
    for row, sentence in zip(lengths, words):
        row[: len(sentence)] = [len(word) for word in sentence]
    return lengths


def _held(boxes: np.ndarray | None, side: int) -> np.ndarray:
    """Return which of 2 x 2 cells hold a good part of one of the boxes, bool (4,)."""
    if boxes is None or not len(boxes):
        return np.zeros(CELLS, bool)
    inside = box_masks(boxes, side, side).reshape(-1, 2, side // 2, 2, side // 2).sum(axis=(2, 4)).reshape(-1, CELLS)
    return (inside >= HELD * inside.sum(axis=1, keepdims=True)).any(axis=0)


# ---- methods: each gives scores (N, P) and what it cost, in forward passes an example; a backward pass counts as two


Scores = Callable[[Case, int], tuple[np.ndarray, float]]


def _registered(key: str) -> Scores:
    """Return a method of the registry."""
    def run(case: Case, seed: int) -> tuple[np.ndarray, float]:
        more = {"game": case.game} if key.startswith("exact") else {}
        more |= {"attention": case.attention} if key in ATTENTION_METHODS else {}
        more |= {"complete": False} if key in ("integrated gradients", "gradient shap") else {}  # at the layer of the maps
        explained = methods.explain(case.model, case.inputs, case.modalities, key, seed=seed, **case.question, **more)
        return case.joint(explained.values), explained.passes

    return run


def _leave_one_out(case: Case, seed: int) -> tuple[np.ndarray, float]:
    rest = 2**PLAYERS - 1 - (1 << np.arange(PLAYERS))
    return np.where(case.present, case.table[:, -1:] - case.table[:, rest], np.nan), case.present.sum(axis=1).mean() + 1


def _blind(name: str) -> Scores:
    """Return scores that never saw the model."""
    def run(case: Case, seed: int) -> tuple[np.ndarray, float]:
        if name == "random":
            return random_scores(case.present, seed), 0
        if name not in case.drawn:
            raise CannotRun(f"the pairs have no scores by {name}.")
        return case.joint(case.drawn[name]), 0

    return run


def _by_title(*keys: str) -> dict[str, Scores]:
    listed = methods.registry()
    return {listed[key].title: _registered(key) for key in keys}


METHODS: dict[str, Scores] = {  # those that chapter 7 shows, fast on a small model
    "baseline: random": _blind("random"),
    "baseline: word length": _blind("word length"),
    **_by_title("gradient norm", "gradient norm, other masked", "cross gradient", "gradient x input", "integrated gradients"),
    "leave one out": _leave_one_out,
    **_by_title("feature dividends", "exact shapley", "exact banzhaf", "exact interactions"),
    "bound: the best order": lambda case, seed: (best_orders(case.table, present=case.present), 2.0**PLAYERS),
}


def more_methods() -> dict[str, Scores]:
    """Return by title the other methods of the registry that score features: slower ones, and those of some models only."""
    others = {method.title: _registered(key) for key, method in methods.registry().items() if not method.whole}
    return {"baseline: edges": _blind("edges")} | {title: run for title, run in others.items() if title not in METHODS}


def explain(case: Case, method: str, seed: int = 0) -> tuple[np.ndarray, float, float]:
    """Return a method's scores (N, P), its forward passes an example, and its seconds an example.

    Coalitions that have been looked up count as passes of the whole model, not in the seconds. NaN stands for players that a
    pair does not have, and for modalities of which the method does not speak.
    """
    known = METHODS | more_methods()
    if method not in known:
        raise ValueError(f"there is no method {method!r}, expected one of {', '.join(map(repr, known))}.")
    _ = case.table
    started = time.perf_counter()
    scores, passes = known[method](case, seed)
    return scores, float(passes), (time.perf_counter() - started) / len(case)


# ---- metrics: each (N,), higher is better


def area(case: Case, scores: np.ndarray, of: str | None = None) -> np.ndarray:
    """Return the area between the insertion and the deletion curve, as a share of the range of the model's values.

    Parameters
    ----------
    case : Case
    scores : ndarray, shape (N, P)
    of : str, optional
        A modality whose players are put in and taken out; the others stay. Default: all, of both modalities.
    """
    _ = case.table  # so that every value is looked up
    among = None if of is None else np.array(case.game.names) == of
    spoken = ~np.isnan(scores) | ~case.present
    if not spoken[:, slice(None) if among is None else among].all():
        return np.full(len(case), np.nan)  # a map of the picture alone orders no words
    return faithfulness.area_between(case.game, scores, among, scale=case.range)


def synergy(case: Case, scores: np.ndarray) -> np.ndarray:
    """Return what the two best cells and the three best groups are worth together beyond each side, less random ones."""
    k = {"image": 2, "text": 3}
    return faithfulness.synergistic_faithfulness(case.game, np.abs(scores), case.game.names, k, scale=case.range)


def _jointly(metric: Callable[[Case, np.ndarray], np.ndarray]) -> Callable[[Case, np.ndarray], np.ndarray]:
    """Return a metric that needs scores of all players, NaN where a method does not speak of some."""
    def of(case: Case, scores: np.ndarray) -> np.ndarray:
        return metric(case, scores) if not np.isnan(scores[case.present]).any() else np.full(len(case), np.nan)

    return of


METRICS: dict[str, Callable[[Case, np.ndarray], np.ndarray]] = {
    "joint area": area,
    "area, cells": lambda case, scores: area(case, scores, "image"),
    "area, words": lambda case, scores: area(case, scores, "text"),
    "coalition rank": _jointly(lambda case, scores: faithfulness.coalition_rank(case.game, scores)),
    "coalition R2": _jointly(lambda case, scores: faithfulness.coalition_r2(case.game, scores, line=True)),
    "synergy": _jointly(synergy),
    "near exact": _jointly(lambda case, scores: row_correlation(
        np.abs(scores), np.where(case.present, np.abs(shapley(case.table)), np.nan))),
    "deciding words": lambda case, scores: _auroc(case, scores, "text"),
    "deciding cells": lambda case, scores: _auroc(case, scores, "image"),
}
# These need more than scores: see road, changes, stability and sensitivity.
ROAD, CHANGES, STABLE, STEADY = "ROAD, pixels", "changes with the weights", "rank stability", "minus max-sensitivity"
OF_METHODS = (CHANGES, STABLE, STEADY)  # say of a method what it depends on, not that it is right
RANGES = {  # direction is the same for all: higher is better
    "joint area": ("-1 to 1", "players of both modalities; hides cells and words far from any real pair"),
    "area, cells": ("-1 to 1", "cells alone, the sentence whole: blind to a wrong order between cells and words"),
    "area, words": ("-1 to 1", "words alone, the picture whole: blind to a wrong order between cells and words"),
    "coalition rank": ("-1 to 1", "asks for a sum: no sum can order an exclusive or"),
    "coalition R2": ("0 to 1", "a sum again; forgives any unit, and a wrong sign of all scores together"),
    "synergy": ("about -1 to 1", "depends on how many are kept, here 2 cells and 3 groups"),
    "near exact": ("-1 to 1", "the exact values are those of one baseline"),
    "deciding words": ("0 to 1, chance 0.5", "a person's question, not the model's"),
    "deciding cells": ("0 to 1, chance 0.5", "a person's question: the model may need all four cells"),
    ROAD: ("-1 to 1", "maps of pixels alone; what fills a hole is smooth, and models notice"),
    CHANGES: ("0 to 2", "says that the weights count, not that they are read aright"),
    STABLE: ("-1 to 1", "Kendall's tau over four baselines: who hides nothing is perfectly stable"),
    STEADY: ("at most 0", "pictures alone are moved; who says always the same is best"),
}


def _auroc(case: Case, scores: np.ndarray, of: str) -> np.ndarray:
    side = np.array(case.game.names) == of
    if np.isnan(scores[:, side][case.present[:, side]]).any():
        return np.full(len(case), np.nan)
    return cue_auroc(np.nan_to_num(np.abs(scores[:, side])), case.deciding[:, side], case.present[:, side])


def changes(case: Case, other: Case, method: str, scores: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return how much a method's scores change when the model's weights are drawn anew (Adebayo et al. 2018), (N,).

    One less the rank correlation of their sizes: near 0 for a method that looks at the inputs alone, 1 if nothing is left.

    Parameters
    ----------
    case, other : Case
        The second as :meth:`Case.redrawn` gives it.
    method : str
    scores : ndarray, shape (N, P)
        Of the method on the model as it is.
    seed : int
    """
    return 1 - row_correlation(np.abs(scores), np.abs(explain(other, method, seed)[0]))


def stability(others: Sequence[Case], method: str, scores: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return how well a method's ranks agree when something else stands in for what is hidden (N,): mean Kendall's tau.

    Parameters
    ----------
    others : sequence of Case
        As :meth:`Case.hidden_otherwise` gives them.
    method : str
    scores : ndarray, shape (N, P)
        Of the method on the question as it is.
    seed : int
    """
    found = [scores, *(explain(other, method, seed)[0] for other in others)]
    return rank_stability({str(k): np.abs(some) for k, some in enumerate(found)})


def sensitivity(moved: Sequence[Case], method: str, scores: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return how far a method's scores move, at most, as the picture hardly does (Yeh et al. 2019), (N,): lower is better.

    Parameters
    ----------
    moved : sequence of Case
        As :meth:`Case.moved` gives them.
    method, scores, seed
        As for :func:`stability`.
    """
    return largest_change(scores, (explain(other, method, seed)[0] for other in moved))


def road(case: Case, method: str, seed: int = 0) -> np.ndarray:
    """Return what hiding the coldest pixels leaves of the evidence over what hiding the hottest leaves, (N,): ROAD.

    Parameters
    ----------
    case : Case
        About pictures of pixels.
    method : str
        A map of ``benchmarks.studies.pointing.maps_of``, or one that never saw the model.
    seed : int
    """
    images, sign = case.inputs["images"], 2.0 * case.game.target - 1
    drawn = pointing.drawn(images, seed)
    if method in drawn:
        heat = drawn[method]
    else:  # of the answer given, be it a no
        both = {label: pointing.heat(case.model, case.inputs, method, side).numpy()
                for label, side in ((1, "for"), (0, "against"))}
        heat = np.where(case.game.target.numpy()[:, None, None] == 1, both[1], both[0])

    metric = library("pytorch_grad_cam.metrics.road", "grad-cam").ROADCombined()
    with torch.random.fork_rng(devices=[]):  # the noise in the filled pixels is from the global generator
        torch.manual_seed(seed)
        gains = metric(images, _places(heat, seed), [lambda evidence: evidence] * len(images),
                       lambda pictures: sign * case.model(**{**case.inputs, "images": pictures}))
    return gains / case.range


def _places(heat: np.ndarray, seed: int) -> np.ndarray:
    """Return the place of each pixel of maps (N, H, W), from 0 for the coldest to 1; equally hot ones are ordered at random.

    Many maps are 0 at most pixels, and as they are, none of these would be among the hottest or coldest so many per cent.
    """
    flat = heat.reshape(len(heat), -1)
    order = np.lexsort((np.random.default_rng(seed).random(flat.shape), flat), axis=1)
    return (np.argsort(order, axis=1) / (flat.shape[1] - 1)).reshape(heat.shape).astype(np.float32)
