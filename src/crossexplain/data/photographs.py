"""Photographs that come with packages: boxes round objects of ImageNet's classes, and captions with foils.

The objects and both markings stand in ``tables/photographs.toml``, captions and foils in ``tables/photographs_captions.toml``.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from crossexplain.data import photos, store
from crossexplain.data.store import Found
from crossexplain.data.vocabulary import read_table

SIDE = 224  # pixels of the square on which the boxes were marked


@dataclass(frozen=True)
class Photographs:
    """N questions, each a photograph and the class of an object on it; a photograph with two objects stands in it twice.

    Attributes
    ----------
    images : Tensor, shape (N, 3, 224, 224)
        The largest square in the middle, RGB from 0 to 1.
    files : tuple of str
        Names of the photographs.
    classes : Tensor of int64, shape (N,)
        Numbers of ImageNet's classes.
    names : tuple of str
        And their names.
    words : tuple of str
        What the captions (:func:`load_captions`) call the object.
    boxes, second : ndarray of int64, shape (N, 4)
        Where the object is, marked twice: top, left, bottom, right, the last two exclusive.
    sources : list of Found
    """

    images: Tensor
    files: tuple[str, ...]
    classes: Tensor
    names: tuple[str, ...]
    words: tuple[str, ...]
    boxes: np.ndarray
    second: np.ndarray
    sources: list[Found] = field(repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def agreement(self) -> np.ndarray:
        """Return how well the two markings agree, (N,): the area that both have over the area that one of them has."""
        first, second = self.boxes, self.second
        top_left, bottom_right = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
        both = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
        area = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
        return np.asarray(both / (area[0] + area[1] - both))


def load() -> Photographs:
    """Read the photographs; nothing is fetched.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If scikit-image is not installed.
    """
    objects = read_table("photographs")["objects"]
    found = {name: store.find(name) for name in dict.fromkeys(one["source"] for one in objects)}
    images = {one["file"]: photos.read(found[one["source"]].path / one["file"], SIDE) for one in objects}
    boxes, second = (np.array([one[key] for one in objects])[:, [1, 0, 3, 2]] for key in ("box", "second"))
    numbers, names = zip(*(one["class"] for one in objects))
    files = tuple(one["file"] for one in objects)
    words = tuple(one["word"] for one in objects)
    return Photographs(torch.stack([images[file] for file in files]), files, torch.tensor(numbers), names, words, boxes, second,
                       list(found.values()))


@dataclass(frozen=True)
class Captions:
    """M captions of photographs, each with its foil: the same sentence with one thing changed, which makes it untrue.

    Attributes
    ----------
    images : Tensor, shape (N, 3, S, S)
        The largest square in the middle of each photograph, RGB from 0 to 1.
    files : tuple of N str
        Names of the photographs.
    image : ndarray of int64, shape (M,)
        Number of the photograph of each caption; each photograph has as many.
    captions, foils : tuple of M str
    kinds : tuple of M str
        What is changed: noun, colour, action, number, position or negation.
    words, false_words : tuple of M tuple of int
        Places of the words that decide, in the caption and in its foil.
    sources : list of Found
    """

    images: Tensor
    files: tuple[str, ...]
    image: np.ndarray
    captions: tuple[str, ...]
    foils: tuple[str, ...]
    kinds: tuple[str, ...]
    words: tuple[tuple[int, ...], ...]
    false_words: tuple[tuple[int, ...], ...]
    sources: list[Found] = field(repr=False)

    def __len__(self) -> int:
        return len(self.captions)

    def others(self, seed: int) -> np.ndarray:
        """Return numbers of captions (M,) to stand beside ``image``: of another photograph, and each of them once."""
        rng, rows = np.random.default_rng(seed), np.arange(len(self)).reshape(len(self.files), -1)
        dealt = np.empty_like(rows)
        for column in range(rows.shape[1]):
            order = rng.permutation(len(rows))
            dealt[order, column] = rows[np.roll(order, 1), column]
        return dealt.ravel()


def load_captions(size: int = SIDE) -> Captions:
    """Read the photographs that have captions, with captions and foils; nothing is fetched.

    Parameters
    ----------
    size : int
        Side of the squares in pixels.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If a package that carries photographs is not installed; the message says what to type.
    """
    table = read_table("photographs_captions")["photographs"]
    found = {name: store.find(name) for name in dict.fromkeys(one["source"] for one in table)}
    images = photos.load([found[one["source"]].path / one["file"] for one in table], size)
    lines = [(i, kind, *_both(text)) for i, one in enumerate(table) for kind, text in one["captions"]]
    image, kinds, true, false = zip(*lines)
    (captions, words), (foils, false_words) = zip(*true), zip(*false)
    return Captions(images, tuple(one["file"] for one in table), np.array(image), captions, foils, kinds, words, false_words,
                    list(found.values()))


def _both(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the caption and the foil of ``before {true|false} after``, each with the places of what stands in the braces."""
    before, inside, after = re.split("[{}]", text)
    start = len(before.split())
    return [(before + part + after, tuple(range(start, start + len(part.split())))) for part in inside.split("|")]
