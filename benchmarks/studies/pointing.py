"""Do explanations of scenes point at what is known to be right? Every method, and what it has to beat, in one table.

Three questions whose answers the scenes know: where is the thing that was asked for ("a red ball"), which words of a caption
say something (cue words; "a" and "the" do not), and which word of a foil is the false one, and of what in the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from crossexplain.checks import InputError
from crossexplain.data.scene_words import COLOUR_NAMES, KINDS
from crossexplain.data.scenes import Scenes
from crossexplain.evaluation.methods import map_method, registry
from crossexplain.evaluation.truth import cue_auroc, edge_map, energy_in_box, pointing_game, random_map
from crossexplain.gradients import tokens as words_of
from crossexplain.gradients.attention import METHODS as ATTENTION_METHODS
from crossexplain.gradients.attention import ROLLOUT, word_by_patch
from crossexplain.gradients.maps import METHODS as MAP_METHODS
from crossexplain.gradients.maps import attribute, upsample
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.rounds import feature_dividends, rounds
from crossexplain.gradients.views import FULL
from crossexplain.intervals import mean_interval
from crossexplain.recipes import scenes as recipe

PIXELS = "input:images"
AT_PIXELS = {"pixel gradient": "saliency", "pixel gradient x input": "gradient x input"}  # maps that pixels have too
ROUND_1, ROUNDS_2_3, CROSS, DIVIDEND = (
    registry()[key].title for key in ("gradient norm", "gradient norm, other masked", "cross gradient", "feature dividends"))
ROUND_4 = "gradient, picked masked (round 4)"
UNLEARNED = "nothing learned: "
BASELINE = {"image": "zero", "text": "mask"}
SPECIAL = 4  # words below it are padding, mask, start and end
COLUMNS = ("question", "model", "method", "measure", "value", "low", "high", "n", "twins")


@dataclass(frozen=True)
class Referents:
    """Pictures with a text each, and where the answer lies; N of them.

    Attributes
    ----------
    image : ndarray, shape (N,), int64
        Number of the picture.
    texts : list of N str
    words : list of N tuples of int
        The words that are to be found, counted from 0.
    boxes : ndarray, shape (N, 4)
        The place that is to be found; -1 where it is none, or not one.
    """

    image: np.ndarray
    texts: list[str]
    words: list[tuple[int, ...]]
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, where) -> "Referents":
        """Return some of them."""
        chosen = np.arange(len(self))[where]
        return Referents(self.image[chosen], [self.texts[i] for i in chosen], [self.words[i] for i in chosen],
                         self.boxes[chosen])

    def cues(self, tokens: Tensor) -> np.ndarray:
        """Return which of the tokens (N, T) are to be found."""
        found, first = np.zeros(tokens.shape, bool), int(tokens[0, 0] == 2)  # after start-of-text, where there is one
        for i, places in enumerate(self.words):
            found[i, [place + first for place in places]] = True
        return found


def things(data: Scenes, pool: Sequence[int], n: int, other: bool = False) -> Referents:
    """Ask for one thing, "a red ball", in each of n pictures that hold at least two, all of different kinds.

    Parameters
    ----------
    data : Scenes
    pool : sequence of int
        Pictures to take the first that fit from.
    n : int
        At most.
    other : bool
        Ask the same pictures for another of their things.

    Returns
    -------
    Referents
        The word to be found is the noun.
    """
    pool = np.asarray(pool)
    kinds = [[kind for kind in data.facts.kind[i] if kind >= 0] for i in pool]
    image = pool[[len(found) == len(set(found)) > 1 for found in kinds]][:n]
    count = (data.facts.kind[image] >= 0).sum(axis=1)
    slot = (image // 2 + other) % count
    texts = [f"a {COLOUR_NAMES[data.facts.colour[i, s]]} {KINDS[data.facts.kind[i, s]]}" for i, s in zip(image, slot)]
    return Referents(image, texts, [(2,)] * len(texts), np.array([data.boxes(i)[s] for i, s in zip(image, slot)]))


def captions(data: Scenes, pool: Sequence[int], n: int) -> Referents:
    """Return the first caption of each of n pictures, whose cue words are to be found; there is no one place."""
    image = np.asarray(pool)[:n]
    texts = [data.captions[i][0] for i in image]
    return Referents(image, texts, [tuple(place for place, *_ in data.cues(i, text)) for i, text in zip(image, texts)],
                 np.full((len(image), 4), -1))


def foils(data: Scenes, n: int, seed: int = 0) -> Referents:
    """Return n pairs of a held-out picture and a caption with one false word, which is to be found.

    A false word that speaks of exactly one thing has a box.
    """
    pairs = data.build("test", 4 * -(-n // 2), seed, "foil")
    pairs = pairs.select(np.flatnonzero(pairs.labels == 0)[:n])
    boxes = [found[0] if (found := pairs.false_boxes(i)) is not None and len(found) == 1 else [-1] * 4 for i in range(n)]
    return Referents(pairs.image, pairs.captions, [(int(word),) for word in pairs.false_word], np.array(boxes))


# Maps over the picture.


def heat(model: nn.Module, inputs: dict[str, Tensor], method: str, sign: str = "for", batch: int = 100) -> Tensor:
    """Return a map of the evidence for, or against, the match.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    inputs : dict of str to Tensor
        N pictures and texts.
    method : str
        A title of :func:`maps_of`.
    sign : {"for", "against"}
    batch : int
        Examples at a time.

    Returns
    -------
    Tensor, shape (N, H, W)
        As large as the pictures.
    """
    known = maps_of(model)
    if method not in known:
        raise InputError(f"the model has no map {method!r}; its maps are {', '.join(known)}.")
    layer, key = known[method]
    attention = model.attention_layers if key in ATTENTION_METHODS else ()
    parts = zip(*(values.split(batch) for values in inputs.values()))
    heat = torch.cat([attribute(model, dict(zip(inputs, part)), layer, key, 1, sign, attention=attention) for part in parts])
    return upsample(heat, tuple(inputs["images"].shape[-2:]))


def maps_of(model: nn.Module) -> dict[str, tuple[str, str]]:
    """Return all maps that a model has, by title: the layer at which each is read, and its key in the registry."""
    titles = {key: map_method(key).title for key in MAP_METHODS}
    known = {title: (PIXELS, key) for title, key in AT_PIXELS.items()}
    known |= {title: (model.image_layer, key) for key, title in titles.items()}
    if hasattr(model, "attention_layers"):
        known |= {registry()[key].title: (PIXELS, key) for key in ATTENTION_METHODS}
    return known


def sides(model: nn.Module, cells: int | None = None) -> list:
    """Return how pictures and words are hidden; by default as many cells a side as the last map has places."""
    cells = cells or getattr(model, "grid", 12)
    return [ImageCells(layer=model.image_layer, grid=(cells, cells)), Tokens(layer=model.text_layer, special=(2, 3))]


def word_maps(model: nn.Module, inputs: dict[str, Tensor], cues: np.ndarray, sign: str = "for") -> Tensor:
    """Return the word-by-patch map of one word an example, (N, H, W); ``cues`` (N, T) says which."""
    maps = word_by_patch(model, inputs, words=sides(model)[1])
    chosen = maps[torch.arange(len(maps)), torch.from_numpy(cues.argmax(axis=1))]
    chosen = -chosen if sign == "against" else chosen
    return upsample(chosen.clamp(min=0), tuple(inputs["images"].shape[-2:]))


def drawn(images: Tensor, seed: int = 0) -> dict[str, np.ndarray]:
    """Return maps that never saw a model: a smooth random one, the centre of the picture, its edges; (N, H, W) each."""
    n, _, height, width = images.shape
    down, across = (np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / 2 / (side / 4.8) ** 2) for side in (height, width))
    return {"random map": random_map(n, height, width, seed, sigma=8), "edges": edge_map(images.numpy()),
            "centre": np.broadcast_to(down[:, None] * across, (n, height, width))}


def by_rounds(model: nn.Module, inputs: dict[str, Tensor], seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Return the importances of the four rounds by title, {"image": {title: (N, F)}, "text": {title: (N, T)}}.

    Of a picture, round 2 of its own end and round 3 of the text's end are one pass, that with the text masked; of words, that
    with the picture masked.
    """
    record = rounds(model, inputs, sides(model), baselines=[BASELINE], target=1, control=False, progress=False, seed=seed)
    baseline, importances = record.baselines[0], {}
    for name, other in (("image", "text"), ("text", "image")):
        views = {ROUND_1: FULL, ROUNDS_2_3: record.only(name), ROUND_4: f"{other} picked masked"}
        importances[name] = {title: record.passes[baseline, view].importance[name] for title, view in views.items()}
        importances[name][CROSS] = record.by_side[baseline, name].cross
    return importances


def maps(model: nn.Module, inputs: dict[str, Tensor], cues: np.ndarray, sign: str = "for", carried: int = 0,
         seed: int = 0) -> dict[str, np.ndarray]:
    """Return all maps of a model by method, (N, H, W) each; dividends, which cost a pass a cell, of the first ``carried``."""
    size = tuple(inputs["images"].shape[-2:])

    def laid_out(cells: Tensor) -> Tensor:
        return upsample(cells.unflatten(1, (round(cells.shape[1] ** 0.5), -1)), size)

    found = {method: heat(model, inputs, method, sign) for method in maps_of(model)}
    found["word by patch"] = word_maps(model, inputs, cues, sign)
    found |= {name: laid_out(cells) for name, cells in by_rounds(model, inputs, seed)["image"].items()}
    if carried:
        some = {key: values[:carried] for key, values in inputs.items()}
        cells = feature_dividends(model, some, sides(model, 6)[:1] + sides(model)[1:], baseline=BASELINE, target=1,
                                  progress=False, seed=seed)["image"]
        found[DIVIDEND] = laid_out((-cells if sign == "against" else cells).clamp(min=0))
    return {name: values.numpy() for name, values in found.items()}


# Scores of words.


def attention_of_words(model: nn.Module) -> list[str]:
    """Return the self-attention modules of the text tower, in order."""
    return [name for name, _ in model.named_modules()
            if name.endswith((".self_attn", ".attention.self")) and "vision" not in name]


def scores(model: nn.Module, inputs: dict[str, Tensor], sign: str = "for", carried: int = 0,
           seed: int = 0) -> dict[str, np.ndarray]:
    """Return all scores of words by method, (N, T) each; what is no word has NaN."""
    special = inputs["tokens"] < SPECIAL
    found = words_of.attribute(model, inputs, model.text_layer, [*words_of.METHODS, ROLLOUT], int(sign == "for"),
                               special_tokens=special, attention=attention_of_words(model))
    found = {registry()[key].title: values for key, values in found.items()} | by_rounds(model, inputs, seed)["text"]
    if carried:
        some = {key: values[:carried] for key, values in inputs.items()}
        words = feature_dividends(model, some, sides(model, 1), baseline=BASELINE, target=1, progress=False, seed=seed)["text"]
        found[DIVIDEND] = -words if sign == "against" else words
    return {name: values.masked_fill(special[: len(values)], torch.nan).numpy() for name, values in found.items()}


def drawn_scores(tokens: Tensor, seed: int = 0) -> dict[str, np.ndarray]:
    """Return scores that never saw a model, random ones and the order of the words; (N, T) each."""
    random = np.random.default_rng(seed).random(tokens.shape)
    order = np.broadcast_to(np.arange(tokens.shape[1], dtype=float), tokens.shape)
    return {name: np.where(tokens.numpy() < SPECIAL, np.nan, values)
            for name, values in (("random scores", random), ("first words", -order), ("last words", order))}


def top_word(values: np.ndarray, cues: np.ndarray) -> np.ndarray:
    """Is the word with the highest score the one to be found? (N,); ties share the point."""
    known = np.where(np.isnan(values), np.nanmin(values) - 1, values)
    word = cues.argmax(axis=1)
    zero = np.zeros_like(word)
    return pointing_game(known[:, None], np.stack([zero, word, zero + 1, word + 1], axis=1))


# The table.


def measured(found: dict[str, np.ndarray], referents: Referents, measures: dict[str, Callable], truth: np.ndarray,
             seed: int = 0) -> list[dict]:
    """Return one line a method and measure, with intervals over twins.

    Parameters
    ----------
    found : dict of str to ndarray
        By method; those of fewer examples are of the first ones.
    referents : Referents
    measures : dict of str to callable
        Called with what was found and the truth.
    truth : ndarray
        Boxes (N, 4), or words (N, T).
    seed : int
        Of the bootstrap.
    """
    lines = []
    for method, values in found.items():
        for measure, score in measures.items():
            right = score(values, truth[: len(values)])
            twins = referents.image[: len(values)] // 2  # nearly the same picture
            interval = mean_interval(right, seed, groups=twins)
            lines.append({"method": method, "measure": measure, "value": interval.value, "low": interval.low,
                          "high": interval.high, "n": int((~np.isnan(right)).sum()), "twins": interval.n})
    return lines


PLACES = {"pointing game": pointing_game, "energy in the box": energy_in_box}
QUESTIONS = "thing", "cue words", "false word", "its place"


def table(data: Scenes, models: dict[str, nn.Module], unlearned: dict[str, nn.Module], n: int = 400, carried: int = 100,
          seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Hold every method of every model against the truth of held-out scenes, beside what it has to beat.

    Parameters
    ----------
    data : Scenes
    models, unlearned : dict of str to torch.nn.Module
        Trained, and with random weights, by the same names.
    n : int
        Questions of each kind.
    carried : int
        For how many examples the dividends of features are computed.
    seed : int
    progress : bool

    Returns
    -------
    DataFrame
        With the columns ``COLUMNS``. What never saw a model stands under the model "none", and what a method says of the
        network that has learned nothing has ``UNLEARNED`` before its name: of all but the dividends, which cost a pass a cell.
        Evidence is that for the match, in foils that against it.
    """
    pool, foil = data.splits["test"], foils(data, n, seed)
    placed = foil.select(foil.boxes[:, 0] >= 0)
    every = dict(zip(QUESTIONS, ((things(data, pool, n), "for"), (captions(data, pool, n), "for"), (foil, "against"),
                                 (placed, "against"))))
    lines = []
    for question, (referents, sign) in tqdm(every.items(), "questions", disable=not progress, delay=5):
        images = data.images(referents.image)
        for name in ("none", *models):
            model = models.get(name, next(iter(models.values())))
            inputs = recipe.inputs(model, images, referents.texts)
            cues = referents.cues(inputs["tokens"])
            about_place = question in ("thing", "its place")
            if name == "none":
                found = drawn(images, seed) if about_place else drawn_scores(inputs["tokens"], seed)
            else:
                ask = partial(maps, cues=cues) if about_place else scores
                found = ask(model, inputs, sign=sign, carried=carried, seed=seed)
                found |= {UNLEARNED + method: values
                          for method, values in ask(unlearned[name], inputs, sign=sign, seed=seed).items()}
            measures = PLACES if about_place else {"AUROC": cue_auroc} | ({"top word": top_word} if sign == "against" else {})
            lines += [{"question": question, "model": name, **line}
                      for line in measured(found, referents, measures, referents.boxes if about_place else cues, seed)]
    return pd.DataFrame(lines, columns=list(COLUMNS))
