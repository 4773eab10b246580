"""The captions of Flickr8k with their photographs, as a run reads them: each as it is, and with one word changed by rule."""

from collections.abc import Iterator
from functools import partial

from benchmarks.studies import foils
from crossexplain.data import flickr8k
from crossexplain.runs import Entry
from crossexplain.runs.sources.captions import Captions


class FoilPairs(Captions):
    """All captions of a split, photograph by photograph, each followed by its foil where it has a word to change.

    Parameters
    ----------
    data : Flickr8k
    split : str
    """

    columns = {"label": int, "image": str, "kind": str, "change": str}

    def __init__(self, data: flickr8k.Flickr8k, split: str = "test"):
        super().__init__(data, split)
        found = foils.build(data, split)
        self.foils = dict(zip(found.caption.tolist(), zip(found.texts, found.kinds, found.changes)))

    def describe(self) -> dict[str, object]:
        """Return what the source is."""
        return super().describe() | {"foils": len(self.foils)}

    def entries(self) -> Iterator[Entry]:
        """Give the pairs; a caption and its foil have the same kind, ``"none"`` where no word is changed."""
        for image, caption, _, _ in self.pairs:
            name, key, text = self.data.names[image], self.data.keys[caption], self.data.captions[caption]
            changed, kind, change = self.foils.get(caption, (None, "none", ""))
            columns = {"image": name, "kind": kind, "change": change}
            yield Entry(key, partial(self._load, name, text), {"label": 1, **columns})
            if changed is not None:
                yield Entry(f"{key}|foil", partial(self._load, name, changed), {"label": 0, **columns})


def of_test() -> FoilPairs:
    """Return those of the test split of Flickr8k."""
    return FoilPairs(flickr8k.load(progress=False))
