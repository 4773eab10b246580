"""Images and sentences on a page: from a word to the map, from a cell to the words, for all of them, by every method."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.attention import word_by_patch
from crossexplain.gradients.capture import capture
from crossexplain.gradients.modalities import ImageCells, Inputs, Tokens
from crossexplain.gradients.views import Mask, Views
from crossexplain_book.explained import map_choices, word_choices
from crossexplain_book.live.packing import packed, picture
from crossexplain_book.live.part import LivePart

BASELINES = {"image": "mean", "text": "mask"}


@dataclass(frozen=True)
class StoredPair:
    """What a model says about a pair with any of its words and any of its cells covered, and why.

    A state of the words is a number: 0 for nothing covered, k for the k-th word, T + 1 for all; so it is with the C cells.

    Attributes
    ----------
    title : str
        Of the model.
    image : Tensor, shape (3, H, W), in [0, 1]
    words : list of T str
    truth : bool
        Whether the sentence is true of the image.
    grid : (int, int)
        Rows and columns of cells.
    logits : ndarray of float32, shape (T + 2, C + 2)
        By the state of the words and of the cells.
    maps : dict from method to ndarray, shape (T + 2, h, w)
        Evidence for the answer that the whole pair gets, by the state of the words.
    scores : dict from method to ndarray, shape (C + 2, T)
        Scores of the words, by the state of the cells.
    by_patch : ndarray, shape (T, h, w), or None
        What each word and each place have together.
    """

    title: str
    image: Tensor
    words: list[str]
    truth: bool
    grid: tuple[int, int]
    logits: np.ndarray
    maps: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    by_patch: np.ndarray | None


def stored(title: str, model: nn.Module, inputs: Inputs, modalities: tuple[ImageCells, Tokens], words: Sequence[str],
           truth: bool, *, image: Tensor | None = None, baselines=BASELINES, by_patch: bool = True) -> StoredPair:
    """Ask a model about one pair in every state of its words and its cells.

    Parameters
    ----------
    title : str
        Of the model.
    model : torch.nn.Module
        In eval mode; gives one logit an example.
    inputs : mapping of str to Tensor
        One pair.
    modalities : (ImageCells, Tokens)
    words : sequence of T str
        One for each feature of the text.
    truth : bool
        Whether the sentence is true of the image.
    image : Tensor, shape (3, H, W), optional
        In [0, 1]; default, the model's input.
    baselines : mapping of str to str
        What stands in for what is covered, by modality.
    by_patch : bool
        Whether to keep what each word and each place have together, see
        :func:`~crossexplain.gradients.attention.word_by_patch`.

    Returns
    -------
    StoredPair

    Raises
    ------
    InputError
        If the words are not as many as the features of the text.
    """
    sides, game = modalities, Game(model, inputs, modalities, baselines=dict(baselines), progress=False)
    present = [game.question.present[side.name][0] for side in sides]
    if len(words) != int(present[1].sum()):
        raise InputError(f"got {len(words)} words for {int(present[1].sum())} features of the text, expected as many.")
    yes, logits = bool(game.target[0]), _logits(game, [side.name for side in sides])

    def covering(side: ImageCells | Tokens, of: Tensor) -> dict[str, Tensor]:
        plan = [{}, *({side.name: Mask(keep, baselines[side.name])} for keep in _without_one(of)),
                {side.name: Mask(None, baselines[side.name])}]
        return Views(inputs, sides, dict(enumerate(plan)), allow_empty=True).inputs

    heat = maps.attribute(model, covering(sides[1], present[1]), sides[0].layer, [key for _, key in map_choices()], 1,
                          "for" if yes else "against", layout=sides[0].layout, positions=sides[0].positions)
    captured = capture(model, covering(sides[0], present[0]), sides[1].layer, int(yes))
    activations, slopes = (of[sides[1].layer][:, present[1]] for of in (captured.activations, captured.gradients))
    scores = {key: tokens.METHODS[key].read(activations, slopes) for _, key in word_choices()}
    joint = None
    if by_patch:
        joint = word_by_patch(model, inputs, sides[0].layer, sides[1].layer, words=sides[1])[0, present[1]]
        joint = (joint if yes else -joint).numpy()
    return StoredPair(title, sides[0].value(inputs)[0] if image is None else image, list(words), bool(truth),
                      tuple(sides[0].grid), logits, {key: of.numpy() for key, of in heat.items()},
                      {key: of.numpy() for key, of in scores.items()}, joint)


def _logits(game: Game, names: Sequence[str]) -> np.ndarray:
    """Return the logits of a pair by the state of its words and of its cells, float32 (T + 2, C + 2)."""
    cells, words = ([k for k, owner in enumerate(game.names) if owner == name and game.present[0, k]] for name in names)
    states = [[], *([k] for k in cells), cells]
    keep = torch.ones(len(words) + 2, len(states), len(game.names), dtype=torch.bool)
    for row, hidden in enumerate([[], *([k] for k in words), words]):
        for column, also in enumerate(states):
            keep[row, column, [*hidden, *also]] = False
    values = game.values(keep.flatten(0, 1), torch.zeros(keep[..., 0].numel(), dtype=torch.long))
    return ((1 if game.target[0] else -1) * values).reshape(keep.shape[:2]).float().numpy()


def _without_one(present: Tensor) -> list[Tensor]:
    """Return which features stay when one of those that are there is covered, (F,) each, one after the other."""
    return [present.index_fill(0, place, False) for place in present.nonzero()]


class Pairs(LivePart):
    """Pick a word and see the map, pick a cell and see the words: stored pairs, every word, every cell, every method.

    Parameters
    ----------
    pairs : sequence of StoredPair
    still : str
        The first state as HTML; default, the first image with its sentence.
    alt, caption, name : str
        Of the figure on a page.
    """

    parts, kind = ("looks.js", "pairs.js"), "pairs"

    def __init__(self, pairs: Sequence[StoredPair], *, alt: str, caption: str, name: str, still: str = ""):
        self.pairs = list(pairs)
        heads = [{"title": pair.title, "image": picture(pair.image), "words": pair.words, "truth": pair.truth,
                  "grid": pair.grid} for pair in self.pairs]
        arrays = {}
        for k, pair in enumerate(self.pairs):
            arrays |= {f"{k} logits": pair.logits, **{f"{k} map {key}": of.astype(float) for key, of in pair.maps.items()},
                       **{f"{k} score {key}": of.astype(float) for key, of in pair.scores.items()}}
            if pair.by_patch is not None:
                arrays[f"{k} by patch"] = pair.by_patch.astype(float)
        head = {"pairs": heads,
                "maps": [[key, title, maps.METHODS[key].signed] for title, key in map_choices()],
                "scores": [[key, title, tokens.METHODS[key].signed] for title, key in word_choices()]}
        first = self.pairs[0]
        still = still or (f'<img class="dark-light" alt="{escape(alt)}" style="width:min(14rem,100%)" '
                          f'src="{heads[0]["image"]}"><p>{escape(" ".join(first.words))}</p>')
        grad_cam, l2 = ([row[0] for row in head[of]].index(key) for of, key in (("maps", "grad-cam"), ("scores", "l2")))
        super().__init__(still, f"0~0~0~{grad_cam}~{l2}~0", packed(head, arrays, np.int16), alt=alt, caption=caption, name=name)
