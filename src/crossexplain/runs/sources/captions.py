"""Flickr8k and what has its form, through the book's own reader, with foils; and the data sets of PyTorch."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import flickr8k, photos
from crossexplain.runs.plan import Entry, SourceGone, Value
from crossexplain.runs.sources.rows import SINGLE, read_text


class Captions:
    """Photographs with their captions, and with the captions of others where foils are asked for.

    Parameters
    ----------
    data : crossexplain.data.flickr8k.Flickr8k
        Photographs that are absent were left out by its reader, which logs them.
    split : str, optional
        Default all.
    negatives : {"random", "hard"}, optional
        Also pair every photograph with captions of others, as :meth:`~crossexplain.data.flickr8k.Flickr8k.pairs` does, seed 0.
    """

    columns = {"label": int, "split": str, "image": str, "words": int}

    def __init__(self, data: flickr8k.Flickr8k, split: str | None = None, negatives: str | None = None):
        self.data, self.split, self.negatives = data, split, negatives
        splits = list(data.splits) if split is None else [str(require_one_of(split, data.splits, "the split"))]
        kind = None if negatives is None else str(require_one_of(negatives, flickr8k.NEGATIVES, "the kind of foils"))
        self.pairs: list[tuple[int, int, str, int]] = []
        for name in splits:
            if kind:
                pairs = data.pairs(name, 0, kind)
                self.pairs += zip(pairs.image.tolist(), pairs.caption.tolist(), [name] * len(pairs), pairs.labels.tolist())
            else:
                captions = data.captions_of(name)
                self.pairs += zip(data.image_of[captions].tolist(), captions.tolist(), [name] * len(captions),
                                  [1] * len(captions))

    def describe(self) -> dict[str, object]:
        """Return what the source is."""
        return {"format": "flickr8k", "images": len(self.data.names), "captions": len(self.data.captions), "split": self.split,
                "negatives": self.negatives}

    def entries(self) -> Iterator[Entry]:
        """Go through the pairs, those that match first; the key of a foil names the photograph and the caption."""
        for image, caption, split, label in self.pairs:
            name, key, text = self.data.names[image], self.data.keys[caption], self.data.captions[caption]
            columns: dict[str, Value] = {"label": label, "split": split, "image": name, "words": len(text.split())}
            yield Entry(key if label else f"{name}|{key}", partial(self._load, name, text), columns)

    def _load(self, name: str, text: str) -> dict[str, object]:
        files = self.data.files
        if not files.folder.is_dir():
            raise SourceGone(f"{files.folder} is no longer there; bring it back and type the same command again.")
        return {"image": photos.picture(files.open(name)), "text": read_text(text)}


class Dataset:
    """A data set of PyTorch with a length: its items are read by number.

    Parameters
    ----------
    data : torch.utils.data.Dataset
        Items are mappings of the inputs by name, or pairs of a picture and a text. Where it has them, ``data.keys`` (one an
        item, a list or a method) name the examples, else their numbers do; ``data.columns`` (name to one value an item) and
        ``data.targets`` are further columns.
    name : str
    """

    def __init__(self, data: object, name: str):
        if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
            raise InputError(f"{name} gave {type(data).__name__}, expected a data set with a length whose items are read by "
                             "number: a stream has no stable ids by which work could be divided.")
        self.data, self.name, self.size = data, name, len(data)
        keys = getattr(data, "keys", None)
        keys = keys() if callable(keys) else keys
        columns = getattr(data, "columns", None)
        table = dict(columns) if isinstance(columns, Mapping) else {}
        table |= {"targets": data.targets} if hasattr(data, "targets") else {}
        self.keys = None if keys is None else [str(key) for key in keys]
        self.table = {str(name): [_plain(value) for value in values] for name, values in table.items()}
        for what, values in {"keys": self.keys or range(self.size), **self.table}.items():
            if len(values) != self.size:
                raise InputError(f"{what} of {name} has {len(values):,} entries, the data set has {self.size:,}; expected one "
                                 "for each item.")
        kinds = {column: {type(value) for value in values if value is not None} for column, values in self.table.items()}
        self.columns = {column: kind for column, (kind, *others) in kinds.items() if kind in SINGLE and not others}

    def describe(self) -> dict[str, object]:
        """Return what the source is."""
        return {"format": "dataset", "name": self.name, "items": self.size}

    def entries(self) -> Iterator[Entry]:
        """Go through the items by number."""
        for i in range(self.size):
            yield Entry(self.keys[i] if self.keys else f"{i:06d}", partial(self._load, i),
                        {column: self.table[column][i] for column in self.columns})

    def _load(self, i: int) -> dict[str, object]:
        item = self.data[i]
        if isinstance(item, tuple) and len(item) == 2:
            image, text = item
            return {"image": image, "text": read_text(text)} if isinstance(text, str) else {"image": image}
        if not isinstance(item, Mapping):
            raise InputError(f"item {i} is of type {type(item).__name__}, expected a mapping of inputs by name, or a picture "
                             "and a text.")
        return {name: read_text(value) if isinstance(value, str) else value for name, value in item.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) or hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
