"""Scenes: drawn pictures of one to three objects with five captions each, and the truth about every word.

The embedded stand-in for Flickr8k. Pictures are not stored but drawn from seeds. They come in twins, 2k and 2k + 1, that
differ in one thing that can be said (a colour, a noun, a pattern, a size, the ground, the backdrop, left and right, how
many) and in many that cannot (light, small shifts, noise). A caption of the one and the same caption with one word changed
then make a quadruple in which neither the words nor the picture alone are worth anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import scene_render
from crossexplain.data.examples import SPLITS, Examples, Indices, require_multiple
from crossexplain.data.scene_captions import Writer, foil
from crossexplain.data.scene_words import WORDS, Facts, cues, holds, split_words
from crossexplain.data.store import Found
from crossexplain.data.vocabulary import word_numbers

SIZES = (6000, 1000, 1000)
SIDE = 96
CAPTIONS = 5
PAD, MASK, START, END = "[PAD]", "[MASK]", "[START]", "[END]"
VOCABULARY = (PAD, MASK, START, END, *WORDS)
LENGTH = 32  # T, more than the longest caption has words
# What twins differ in, and how many of a hundred do.
CHANGES = {"colour": 26, "noun": 24, "texture": 14, "ground": 12, "backdrop": 8, "size": 8, "side": 5, "count": 3}
VALUES = {"colour": 9, "noun": 12, "texture": 4, "size": 2, "ground": 6}
_EXTENT = ((0.21, 0.26), (0.35, 0.43))  # square root of the area of small and large objects, in shares of the side
_HIDDEN = 0.35  # share of an object's box that nearer ones may cover
_Row = tuple[int, str, int, int, str, tuple[int, ...]]  # picture, caption, label, false word, kind, false objects


def tokenize(captions: str | Sequence[str], length: int = LENGTH, ends: bool = False) -> Tensor:
    """Return captions as word numbers, padded at the end.

    Parameters
    ----------
    captions : str or sequence of N str
        Of words of ``VOCABULARY``; ``[MASK]`` is one. Capitals and stops do not matter.
    length : int
        Number of tokens, T.
    ends : bool
        Put ``[START]`` before each caption and ``[END]`` after it.

    Returns
    -------
    Tensor, shape (N, T), int64

    Raises
    ------
    InputError
        For a word that is not in the vocabulary and a caption that is empty or too long.
    """
    sentences = [split_words(caption) for caption in ([captions] if isinstance(captions, str) else captions)]
    tokens = word_numbers(sentences, VOCABULARY, length - 2 * ends, "scenes")
    if ends:
        tokens = torch.nn.functional.pad(tokens, (1, 1))
        tokens[:, 0] = VOCABULARY.index(START)
        tokens[range(len(tokens)), [len(words) + 1 for words in sentences]] = VOCABULARY.index(END)
    return tokens


@dataclass(frozen=True)
class Scenes:
    """Pictures with captions; N of them, numbered through all splits.

    Attributes
    ----------
    facts : Facts
        What is in them.
    seed : int
    sizes : tuple of int
        How many pictures train, validation and test have.
    side : int
        Pixels.
    """

    facts: Facts
    seed: int
    sizes: tuple[int, int, int]
    side: int = SIDE

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def found(self) -> Found:
        """Where they come from, in the words of :mod:`crossexplain.data.store`: they are drawn."""
        return Found("scenes", Path(__file__).parent, f"embedded: drawn from seed {self.seed}")

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Numbers of the pictures of each split."""
        ends = np.cumsum((0, *self.sizes))
        return {name: np.arange(ends[s], ends[s + 1]) for s, name in enumerate(SPLITS)}

    def images(self, indices: Indices = slice(None)) -> Tensor:
        """Draw pictures, (n, 3, side, side), float32, RGB from 0 to 1. No picture depends on the others that are drawn."""
        indices = np.atleast_1d(np.arange(len(self))[indices])
        seeds = [(self.seed, split, number) for split, number in zip(*self._located(indices))]
        out = torch.empty(len(indices), 3, self.side, self.side)
        for first in range(0, len(indices), 32):  # as many as stay in the processor's cache
            part = slice(first, first + 32)
            drawn = scene_render.draw(self.facts[indices[part]], seeds[part], self.side)
            out[part] = torch.from_numpy(drawn).permute(0, 3, 1, 2)
        return out

    @cached_property
    def captions(self) -> list[tuple[str, ...]]:
        """Five captions of each picture, all true."""
        places = zip(*self._located(np.arange(len(self))))
        return [_captions(self.facts[i], Random(f"captions {self.seed} {SPLITS[split]} {number}"))
                for i, (split, number) in enumerate(places)]

    def _located(self, indices: np.ndarray) -> tuple[list[int], list[int]]:
        """Return the split of each picture and its number there, which does not change with the sizes of other splits."""
        ends = np.cumsum((0, *self.sizes))
        split = np.searchsorted(ends, indices, side="right") - 1
        return split.tolist(), (indices - ends[split]).tolist()

    def boxes(self, i: int) -> np.ndarray:
        """Return the boxes of all objects, hidden parts included, (k, 4), int64: top, left, bottom, right, exclusive."""
        return boxes(self.facts[i], self.side)

    def cues(self, i: int, caption: str) -> list[tuple[int, str, tuple[int, ...]]]:
        """Return which words of a true caption say something of a picture (see ``scene_words.cues``)."""
        return cues(self.facts[i], caption)

    def build(self, split: str, n_pairs: int, seed: int, kind: str = "random") -> "Pairs":
        """Build pairs of a picture and a caption, half of them true.

        Two pictures A and B and two captions, a true of A only and b true of B only, give four pairs: (A, a) and (B, b)
        with label 1, (A, b) and (B, a) with label 0, in this order. Whoever sees one of the two only is right in exactly
        half of the pairs.

        Parameters
        ----------
        split : {"train", "validation", "test"}
        n_pairs : int
            A multiple of 4.
        seed : int
        kind : {"random", "foil"}
            ``"random"``: A and B are any two pictures, a and b one of their five captions. ``"foil"``: A and B are twins,
            a is a new caption of A, b the same with one word changed.

        Returns
        -------
        Pairs

        Raises
        ------
        InputError
            For an unknown split or kind and a number of pairs that is no positive multiple of 4.
        """
        require_one_of(split, SPLITS, "the split")
        require_one_of(kind, ("random", "foil"), "the kind")
        require_multiple(n_pairs, 4, "pairs", "two pictures by two captions")
        if len(self.splits[split]) < 2:
            raise InputError(f"the split {split!r} has {len(self.splits[split])} pictures, expected at least 2.")
        random = Random(f"{kind} {self.seed} {split} {seed}")
        draw = self._random if kind == "random" else self._foils
        rows = [row for four in islice(draw(self.splits[split], random), n_pairs // 4) for row in four]
        image, captions, labels, words, kinds, objects = zip(*rows)
        return Pairs(self, np.array(image), list(captions), np.array(labels), np.array(words), kinds, objects)

    # Both draw quadruples of pairs without end.
    def _random(self, pool: np.ndarray, random: Random) -> Iterator[list[_Row]]:
        while True:
            one, other = int(random.choice(pool)), int(random.choice(pool))
            a, b = random.choice(self.captions[one]), random.choice(self.captions[other])
            if one != other and not holds(self.facts[other], a)[0] and not holds(self.facts[one], b)[0]:
                yield _four(one, other, a, b)

    def _foils(self, pool: np.ndarray, random: Random) -> Iterator[list[_Row]]:
        twins = pool[: len(pool) // 2 * 2].reshape(-1, 2)
        while True:
            for k in reversed(random.sample(range(len(twins)), len(twins))):  # all twins take their turn, then all again
                one, other = map(int, twins[k])
                if random.random() < 0.5:
                    one, other = other, one
                if found := foil(self.facts[one], self.facts[other], random):
                    yield _four(one, other, *found)


def _captions(facts: Facts, random: Random) -> tuple[str, ...]:
    writer, captions = Writer(facts, random), dict[str, None]()
    while len(captions) < CAPTIONS:
        captions[writer.caption()] = None
    return tuple(captions)


def _four(one: int, other: int, a: str, b: str, word: int = -1, what: str = "random",
          objects: tuple[tuple[int, ...], ...] = ((), ())) -> list[_Row]:
    """Return the pairs of two pictures and two captions as they stand in :class:`Pairs`: two that are true, two false."""
    return [
        (one, a, 1, -1, what, ()),
        (other, b, 1, -1, what, ()),
        (one, b, 0, word, what, objects[0]),
        (other, a, 0, word, what, objects[1]),
    ]


@dataclass(frozen=True)
class Pairs(Examples):
    """Pairs of a picture and a caption; N of them, T tokens.

    Attributes
    ----------
    scenes : Scenes
    image : ndarray, shape (N,), int64
        Which picture.
    captions : list of N str
    labels : ndarray, shape (N,), int64
        1 where the caption is true of the picture.
    false_word : ndarray, shape (N,), int64
        Which word of a foil is the false one; -1 for true captions and random pairs.
    kinds : tuple of N str
        What the twins differ in, one of ``CHANGES``; ``"random"`` for random pairs.
    false_objects : tuple of N tuples of int
        Objects of the picture that the false word speaks of; empty for ground and backdrop, and where no word is false.
    """

    scenes: Scenes
    image: np.ndarray
    captions: list[str]
    labels: np.ndarray
    false_word: np.ndarray
    kinds: tuple[str, ...]
    false_objects: tuple[tuple[int, ...], ...]
    common = ("scenes",)

    def images(self, indices: Indices = slice(None)) -> Tensor:
        """Draw the pictures of the pairs at ``indices``, (n, 3, side, side), float32; each picture is drawn once."""
        drawn, where = np.unique(self.image[indices], return_inverse=True)
        return self.scenes.images(drawn)[torch.from_numpy(where.reshape(-1))]

    def tokens(self, indices: Indices = slice(None), ends: bool = False) -> Tensor:
        """Return captions as word numbers, (n, T), int64, padded at the end with 0."""
        chosen = np.atleast_1d(np.arange(len(self))[indices])
        return tokenize([self.captions[i] for i in chosen], ends=ends)

    def inputs(self, indices: Indices = slice(None)) -> dict[str, Tensor]:
        """Return what a model takes by keyword."""
        return {"images": self.images(indices), "tokens": self.tokens(indices)}

    def false_boxes(self, i: int) -> np.ndarray | None:
        """Return the boxes of what the false word of a pair speaks of, (k, 4), or None if it speaks of none."""
        objects = list(self.false_objects[i])
        return self.scenes.boxes(int(self.image[i]))[objects] if objects else None

    def cues(self, i: int) -> list[tuple[int, str, np.ndarray | None]]:
        """Return the words of a true caption that say something: place, what, boxes (k, 4) or None for ground and backdrop."""
        boxes = self.scenes.boxes(int(self.image[i]))
        cues = self.scenes.cues(int(self.image[i]), self.captions[i])
        return [(place, what, boxes[list(objects)] if objects else None) for place, what, objects in cues]


def load(seed: int = 0, sizes: tuple[int, int, int] = SIZES, side: int = SIDE) -> Scenes:
    """Return scenes; nothing is drawn yet.

    Parameters
    ----------
    seed : int
    sizes : tuple of int
        How many pictures train, validation and test have, even numbers. More of them leave the first ones as they are.
    side : int
        Pixels, 64 to 128.

    Returns
    -------
    Scenes

    Raises
    ------
    InputError
        For sizes that are not three even numbers, and a side out of range.
    """
    if len(sizes) != 3 or any(n < 0 or n % 2 for n in sizes) or not sum(sizes):
        raise InputError(f"got sizes {sizes}, expected three even numbers: pictures come in twins.")
    if not 64 <= side <= 128:
        raise InputError(f"got side {side}, expected 64 to 128 pixels.")
    train, validation, test = sizes
    return Scenes(_facts(seed, (train, validation, test)), seed, (train, validation, test), side)


@lru_cache(maxsize=2)  # several models of a page share their scenes, which take a second
def _facts(seed: int, sizes: tuple[int, int, int]) -> Facts:
    rows = [row for name, n in zip(SPLITS, sizes) for k in range(n // 2) for row in _twins(Random(f"{seed} {name} {k}"))]
    types = {name: np.int8 for name in ("kind", "colour", "texture", "size", "pose", "ground", "backdrop")}
    facts = {name: np.array([row[name] for row in rows], dtype=types.get(name, np.float32))
             for name in Facts.__dataclass_fields__}
    for values in facts.values():
        values.setflags(write=False)
    return Facts(**facts)


def boxes(facts: Facts, side: int) -> np.ndarray:
    """Return the boxes of the objects of one scene, (k, 4), int64: top, left, bottom, right in pixels, exclusive."""
    present = facts.kind[0] >= 0
    number = facts.kind[0, present].astype(np.intp) * scene_render.POSES + facts.pose[0, present]
    width, height, _ = scene_render.frame(number, facts.extent[0, present])
    x, y = facts.x[0, present], facts.y[0, present]
    low = np.floor(side * np.stack([y - height, x - width / 2], axis=1))
    high = np.ceil(side * np.stack([y, x + width / 2], axis=1))
    return np.asarray(np.clip(np.concatenate([low, high], axis=1), 0, side), dtype=np.int64)


def _twins(random: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw what is in two scenes that differ in one thing that can be said."""
    change = random.choices(list(CHANGES), list(CHANGES.values()))[0]
    while True:
        n = 3 if change == "count" else random.choices((1, 2, 3), (0.22, 0.48, 0.30))[0]
        one = _scene(n, random)
        if change == "count":
            one["kind"] = [one["kind"][0]] * 3
            if random.random() < 0.5:
                one["colour"] = [one["colour"][0]] * 3
        other = _changed(one, change, n, random)
        if change == "count":
            one["kind"] = [*one["kind"][:2], -1]
        if _clear(one) and _clear(other):
            return one, other


def _scene(n: int, random: Random) -> dict[str, Any]:
    kinds = random.sample(range(12), n)
    if n > 1 and random.random() < 0.18:
        kinds[1] = kinds[0]
    size = [int(random.random() < 0.5) for _ in range(3)]
    x, y = _places(n, random)
    return {
        "kind": kinds + [-1] * (3 - n),
        "colour": [random.randrange(9) for _ in range(3)],
        "texture": [random.choices(range(4), (0.40, 0.22, 0.20, 0.18))[0] for _ in range(3)],
        "size": size, "x": x, "y": y, "extent": [random.uniform(*_EXTENT[s]) for s in size],
        "pose": [random.randrange(8) for _ in range(3)],
        "ground": random.randrange(6), "backdrop": random.randrange(8), "horizon": random.uniform(0.36, 0.50),
    }


def _places(n: int, random: Random) -> tuple[list[float], list[float]]:
    """Return middles and lowest points, so far apart that left and right, near and far are never in doubt."""
    rows = [random.gauss(row, 0.012) for row in random.sample((0.69, 0.81, 0.93), 3)]
    while True:
        x = [random.uniform(0.15, 0.85) for _ in range(3)]
        apart = all(abs(x[i] - x[j]) > 0.20 for i in range(n) for j in range(i))
        if apart and all(abs(x[i] - 0.5) > 0.075 for i in range(n)):
            return x, rows


def _changed(one: dict[str, Any], change: str, n: int, random: Random) -> dict[str, Any]:
    """Return the twin: one thing changed, and places, sizes and views a little."""
    twin = {name: list(value) if isinstance(value, list) else value for name, value in one.items()}
    slot = random.randrange(n)
    if change == "ground":
        twin[change] = (one[change] + random.randrange(1, VALUES[change])) % VALUES[change]
    elif change == "backdrop":  # one sky for another, one wall for another: a single word cannot make a wall of a sky
        alike = next(group for group in ((0, 1, 2, 3), (4, 5), (6, 7)) if one[change] in group)
        twin[change] = random.choice([value for value in alike if value != one[change]])
    elif change == "side":
        twin["x"] = [1 - x for x in one["x"]]
    elif change != "count":
        name = "kind" if change == "noun" else change
        free = set(range(VALUES[change])) - (set(one["kind"]) if change == "noun" else {one[name][slot]})
        twin[name][slot] = random.choice(sorted(free))
    twin["x"] = [x + random.uniform(-0.02, 0.02) for x in twin["x"]]
    twin["y"] = [y + random.uniform(-0.01, 0.01) for y in twin["y"]]
    twin["extent"] = [random.uniform(*_EXTENT[s]) for s in twin["size"]]
    twin["pose"] = [random.randrange(8) for _ in range(3)]
    twin["horizon"] = random.uniform(0.36, 0.50)
    return twin


def _clear(scene: dict[str, Any]) -> bool:
    """Return whether every object lies within the picture and is mostly uncovered."""
    facts, side = Facts(**{name: np.array([value]) for name, value in scene.items()}), 256
    low, high = np.split(boxes(facts, side), 2, axis=1)  # (k, 2) each: top and left, bottom and right
    if (low <= 2).any() or (high >= side - 2).any():
        return False
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # (k, k, 2)
    hidden = np.maximum(shared, 0).prod(axis=2) > _HIDDEN * (high - low).prod(axis=1)[:, None]  # of each object by each
    y = facts.y[0, facts.kind[0] >= 0]
    return not (hidden & (y > y[:, None])).any()
