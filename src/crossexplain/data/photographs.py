"""Photographs that come with packages, with objects of ImageNet's classes and boxes that say where they are.

The objects and both markings stand in ``tables/photographs.toml``.
"""

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
    boxes, second : ndarray of int64, shape (N, 4)
        Where the object is, marked twice: top, left, bottom, right, the last two exclusive.
    sources : list of Found
    """

    images: Tensor
    files: tuple[str, ...]
    classes: Tensor
    names: tuple[str, ...]
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
        return both / (area[0] + area[1] - both)


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
    return Photographs(torch.stack([images[file] for file in files]), files, torch.tensor(numbers), names, boxes, second,
                       list(found.values()))
