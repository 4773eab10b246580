"""Flickr8k (Hodosh, Young and Hockenmaier 2013), and anything else in its file format: images with five captions each.

The folder holds, as published, the captions, the three lists that divide the images, the judgements, and the images:

    Flickr8k.token.txt            IMAGE#NUMBER, a tab, the caption
    Flickr_8k.trainImages.txt     one image a line; also devImages (called validation here) and testImages
    ExpertAnnotations.txt         image, caption, three judgements from 1 to 4
    CrowdFlowerAnnotations.txt    image, caption, share of yes, number of yes, number of no
    Images/                       or Flicker8k_Dataset/, as the archive calls it

The two published archives, ``Flickr8k_text.zip`` and ``Flickr8k_Dataset.zip``, do as well: they are read as they are, so
that there is no unpacking that could be cut off half-way.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from tqdm.auto import tqdm

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import photos, store
from crossexplain.data.examples import SPLITS, Examples
from crossexplain.data.flickr8k_files import TOKENS, CaptionError, Files, lines_of
from crossexplain.data.store import Found

log = logging.getLogger(__name__)

LISTS = dict(zip(SPLITS, (f"Flickr_8k.{part}Images.txt" for part in ("train", "dev", "test"))))
JUDGEMENTS = {"expert": "ExpertAnnotations.txt", "crowd": "CrowdFlowerAnnotations.txt"}
NEGATIVES = ("random", "hard")
NEIGHBOURS = 50  # nearest captions among which a hard negative is looked for
CAPTION = re.compile(r"\s*([^/\t\s][^/\t]*)#(\d+)\s*\t(.*)")  # IMAGE#NUMBER, a tab, the caption
JUDGEMENT = re.compile(r"([^\t]*)\t([^\t]*)" + 3 * r"\t(\d+(?:\.\d+)?)\s*")  # image, caption, three numbers
_Clash = Callable[[np.ndarray, np.ndarray], np.ndarray]  # which images may not get which captions
QUIRK = "2258277193_586949ec62.jpg"  # the published captions name it, the published images lack it


@dataclass(frozen=True)
class Pairs(Examples):
    """Images with captions that were written for them, and with captions that were not.

    Attributes
    ----------
    image, caption : ndarray of int64, shape (2 N,)
        Index into :attr:`Flickr8k.names` and :attr:`Flickr8k.captions`. Pair i and pair N + i have the same image.
    labels : ndarray of int64, shape (2 N,)
        1 for the first N, which match, 0 for the others.
    """

    image: np.ndarray
    caption: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Judgements:
    """The marks that people gave to images with captions.

    Attributes
    ----------
    image, caption : ndarray of int64, shape (J,)
        As in :class:`Pairs`.
    scores : ndarray of float64, shape (J, K)
        Experts: K = 3 marks from 1 (does not describe the image at all) to 4 (describes it). Crowd: K = 2, the number of
        those who said yes, it describes the image (small mistakes allowed), and of those who said no.
    left_out : int
        Number of judgements of images or captions that are missing here.
    """

    image: np.ndarray
    caption: np.ndarray
    scores: np.ndarray
    left_out: int


@dataclass(frozen=True)
class Flickr8k:
    """Images, captions, and how they are divided; made by :func:`load`.

    Attributes
    ----------
    names : list of I str
        File names of the images that are present, in the order of the captions.
    captions : list of C str
    image_of : ndarray of int64, shape (C,)
        Index of the image that a caption was written for.
    keys : list of C str
        ``"IMAGE#NUMBER"`` of each caption, as in the files.
    splits : dict
        ``"train"``, ``"validation"`` and ``"test"`` to indices of images; disjoint.
    found : crossexplain.data.store.Found
        Where it is from.
    problems : tuple of str
        What was left out and why, one line for each kind, with a count.
    """

    names: list[str]
    captions: list[str]
    image_of: np.ndarray
    keys: list[str]
    splits: dict[str, np.ndarray]
    found: Found
    problems: tuple[str, ...] = ()
    files: Any = field(default=None, repr=False)  # Files; without them there are no pixels

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(indices):,} {name}" for name, indices in self.splits.items())
        return f"{len(self.names):,} images ({parts}), {len(self.captions):,} captions, from {self.found.origin}"

    def captions_of(self, images: str | Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the indices of all captions of images, or of a split by its name, image by image.

        Parameters
        ----------
        images : str or sequence of int

        Returns
        -------
        ndarray of int64, shape (C',)
        """
        if isinstance(images, str):
            require_one_of(images, self.splits, "the split")
        indices = np.asarray(self.splits[images] if isinstance(images, str) else images, dtype=np.int64)
        return np.concatenate([self._by_image[i] for i in indices]) if len(indices) else np.empty(0, np.int64)

    def images(self, indices: Sequence[int] | np.ndarray, size: int) -> Tensor:
        """Read images as squares; see :func:`crossexplain.data.photos.read`.

        Parameters
        ----------
        indices : sequence of n int
        size : int
            Side in pixels.

        Returns
        -------
        Tensor, shape (n, 3, size, size), float32
            RGB from 0 to 1.

        Raises
        ------
        crossexplain.data.photos.PhotoError
            If one cannot be read; ``load(check=True)`` leaves those out.
        """
        if not len(indices):
            raise InputError("got no index, expected at least one image.")
        return torch.stack([photos.read(self.files.open(self.names[i]), size) for i in indices])

    def fingerprints(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Return what identifies the content of images: name, size and checksum of each file."""
        return [f"{self.names[i]} {self.files.fingerprint(self.names[i])}" for i in indices]

    def pairs(self, split: str, seed: int, negatives: str = "random") -> Pairs:
        """Pair every caption of a split with its image, and with an image that it was not written for.

        Every caption is in one pair that matches and in one that does not, and every image is in five of each: neither the
        caption alone nor the image alone tells anything about the label.

        Parameters
        ----------
        split : str
            ``"train"``, ``"validation"`` or ``"test"``; all captions and images come from it.
        seed : int
        negatives : {"random", "hard"}
            Random: the captions are dealt out again at random, as in section 4.2 of the paper. Hard: each image gets a
            caption that reads like its own (nearest by TF-IDF among those not yet dealt out; the captions that are left at
            the end are dealt out at random). A few describe the image by accident, so that no model can be right on all.
            Neither kind deals out a caption of the same image, nor one of the same words.

        Returns
        -------
        Pairs

        Raises
        ------
        InputError
            For an unknown split or kind, and where too few images are left to choose from.
        """
        require_one_of(negatives, NEGATIVES, "the kind of negatives")
        captions = self.captions_of(split)
        image = self.image_of[captions]  # (N,)
        texts = [" ".join(self.captions[i].lower().strip(" .").split()) for i in captions]
        words = np.unique(texts, return_inverse=True)[1]  # (N,) the same number for the same words
        taken = set(zip(image.tolist(), words.tolist()))

        def clash(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            return np.fromiter(((a, b) in taken for a, b in zip(image[i].tolist(), words[j].tolist())), bool, len(i))

        rng = np.random.default_rng(seed)
        chosen = np.full(len(captions), -1)
        if negatives == "hard":
            _deal_nearest(chosen, _nearest(texts), clash, rng)
        _deal_rest(chosen, clash, rng, split)
        labels = np.repeat(np.array([1, 0]), len(captions))
        return Pairs(np.tile(image, 2), np.concatenate([captions, captions[chosen]]), labels)

    def judgements(self, kind: str) -> Judgements:
        """Read the marks that people gave for how well a caption describes an image.

        Parameters
        ----------
        kind : {"expert", "crowd"}

        Returns
        -------
        Judgements

        Raises
        ------
        CaptionError
            If a line is not as published.
        crossexplain.data.store.MissingSource
            If the file is missing.
        """
        require_one_of(kind, JUDGEMENTS, "the kind of judgements")
        name = JUDGEMENTS[kind]
        images = {name: i for i, name in enumerate(self.names)}
        captions = {key: i for i, key in enumerate(self.keys)}
        rows = []
        for number, line in lines_of(self.files.text(name), name):
            parts = JUDGEMENT.fullmatch(line)
            if not parts or (kind == "expert" and not all(1 <= float(score) <= 4 for score in parts.groups()[2:])):
                raise CaptionError(f"{name}, line {number}: expected an image, a caption and three numbers with tabs "
                                   f"between them, got {line[:60]!r}; fetch the file again.")
            image, caption, *scores = parts.groups()
            rows.append((images.get(image, -1), captions.get(caption, -1), *map(float, scores)))
        table = np.array(rows)
        known = (table[:, :2] >= 0).all(axis=1)
        image, caption = table[known, :2].T.astype(np.int64)
        return Judgements(image, caption, table[known, 2 if kind == "expert" else 3 :], int((~known).sum()))

    @cached_property
    def _by_image(self) -> list[np.ndarray]:
        order = np.argsort(self.image_of, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.image_of, minlength=len(self.names)))[:-1])


def load(folder: Path | str | None = None, check: bool = False, progress: bool = True) -> Flickr8k:
    """Load Flickr8k, or a folder in its format.

    Parameters
    ----------
    folder : Path, optional
        Holds the files or the two archives. Default: where :func:`crossexplain.data.store.find` finds ``"flickr8k"``.
    check : bool
        Decode every image once and leave out those that cannot be read (some ten seconds for Flickr8k). Files that are
        absent or empty are left out in any case.
    progress : bool
        Show a progress bar of that check.

    Returns
    -------
    Flickr8k
        What was left out is in ``problems`` and is logged, but for the one problem that every copy has.

    Raises
    ------
    CaptionError
        If captions or lists are not as they should be: encoding, tabs, keys, an image in two splits.
    crossexplain.data.store.MissingSource
        If a file is missing.
    """
    source = store.find("flickr8k") if folder is None else Found("flickr8k", Path(folder), "folder that was named")
    files = Files(source.path)
    rows = _captions(files.text(TOKENS))
    images = list(dict.fromkeys(image for image, _, _ in rows))
    broken = {image: why for image in images if (why := files.lacks(image))}
    if check:
        broken |= _unreadable(files, [image for image in images if image not in broken], progress)
    problems = _problems(rows, broken)
    rows = [row for row in rows if row[0] not in broken and row[2]]
    names = list(dict.fromkeys(image for image, _, _ in rows))
    index = {name: i for i, name in enumerate(names)}
    if not names:
        raise CaptionError(f"{TOKENS} in {source.path}: no caption is left whose image is there; {' '.join(problems)}")
    splits = _splits(files, index, problems)
    for problem in problems:
        log.log(logging.INFO if QUIRK in problem else logging.WARNING, "%s: %s", source.path.name, problem)
    return Flickr8k(names, [text for _, _, text in rows], np.array([index[image] for image, _, _ in rows]),
                    [f"{image}#{number}" for image, number, _ in rows], splits, source, tuple(problems), files)


def _captions(content: bytes) -> list[tuple[str, str, str]]:
    """Return image, number and text of each caption."""
    rows, first = [], dict[tuple[str, str], int]()
    for number, line in lines_of(content, TOKENS):
        parts = CAPTION.fullmatch(line)
        if not parts:
            raise CaptionError(f"{TOKENS}, line {number}: expected IMAGE#NUMBER, a tab and the caption, got {line[:60]!r}; put "
                               "the tab in or take the line out.")
        image, count, text = parts.groups()
        if (image, count) in first:
            raise CaptionError(f"{TOKENS}, line {number}: {image}#{count} is already in line {first[image, count]}; number the "
                               "captions of an image differently or take the line out.")
        first[image, count] = number
        rows.append((image, count, " ".join(text.split())))
    return rows


def _splits(files: Files, index: dict[str, int], problems: list[str]) -> dict[str, np.ndarray]:
    """Read the three lists; adds the images that are listed but missing to the problems."""
    splits, list_of = {}, dict[str, str]()
    for split, name in LISTS.items():
        listed = [line.strip() for _, line in lines_of(files.text(name), name)]
        for image in listed:
            if image in list_of:
                raise CaptionError(f"{name} names {image}, which {list_of[image]} names already; an image belongs to one "
                                   "split once, take it out of one.")
            list_of[image] = name
        unknown = [image for image in listed if image not in index]
        if unknown:
            problems.append(f"{_count(unknown, 'image')} of {name} without a readable file or a caption, left out: "
                            f"{_first(unknown)}.")
        splits[split] = np.array([index[image] for image in listed if image in index], dtype=np.int64)
    return splits


def _unreadable(files: Files, images: list[str], progress: bool) -> dict[str, str]:
    broken = {}
    for image in tqdm(images, desc="reading images", unit="image", disable=not progress):
        try:
            photos.read(files.open(image), 8)
        except photos.PhotoError:
            broken[image] = "damaged"
    return broken


def _problems(rows: list[tuple[str, str, str]], broken: dict[str, str]) -> list[str]:
    """Return one line for each way in which images or captions are unusable."""
    captions, problems = Counter(image for image, _, _ in rows), []
    for why in dict.fromkeys(broken.values()):
        names = [image for image in captions if broken.get(image) == why]
        lost = sum(captions[name] for name in names)
        problems.append(f"{_count(names, 'image')} {why}, left out with {lost} caption{'s' * (lost != 1)}: {_first(names)}.")
    if empty := [f"{image}#{number}" for image, number, text in rows if not text]:
        problems.append(f"{_count(empty, 'caption')} without a word, left out: {_first(empty)}.")
    return problems


def _count(things: Sequence[str], name: str) -> str:
    return f"{len(things):,} {name}{'s' * (len(things) != 1)}"


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _nearest(texts: list[str]) -> list[np.ndarray]:
    """Return for each text the indices of the other texts that read most like it, nearest first."""
    try:
        vectors = TfidfVectorizer(stop_words="english", sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    except ValueError:  # none of the texts has a word that is no stop word
        return [np.empty(0, np.int64)] * len(texts)
    nearest = []
    for start in range(0, len(texts), 1000):  # the whole table of 30,000 by 30,000 would fill the memory
        for i, row in enumerate((vectors[start : start + 1000] @ vectors.T).tocsr(), start):
            others = row.indices != i
            indices, values = row.indices[others], row.data[others]
            if len(values) > NEIGHBOURS:
                top = np.argpartition(-values, NEIGHBOURS)[:NEIGHBOURS]
                indices, values = indices[top], values[top]
            nearest.append(indices[np.lexsort((indices, -values))])
    return nearest


def _deal_nearest(chosen: np.ndarray, nearest: list[np.ndarray], clash: _Clash, rng: np.random.Generator) -> None:
    """Give each image, in random order, the nearest caption that is still free and was not written for it."""
    free = np.ones(len(chosen), bool)
    for i in rng.permutation(len(chosen)):
        captions = nearest[i][free[nearest[i]]]
        captions = captions[~clash(np.full(len(captions), i), captions)]
        if len(captions):
            chosen[i] = captions[0]
            free[captions[0]] = False


def _deal_rest(chosen: np.ndarray, clash: _Clash, rng: np.random.Generator, split: str) -> None:
    """Deal the captions that are left at random, and exchange each that meets its image with another."""
    free = np.setdiff1d(np.arange(len(chosen)), chosen)
    chosen[chosen < 0] = rng.permutation(free)
    everyone = np.arange(len(chosen))
    for _ in range(1000):
        wrong = np.flatnonzero(clash(everyone, chosen))
        if not len(wrong):
            return
        for i in wrong:
            j = rng.integers(len(chosen))
            pair, swapped = np.array([i, j]), chosen[[j, i]]
            if not clash(pair, swapped).any():
                chosen[pair] = swapped
    raise InputError(f"the split {split!r} has too few images to give each a caption of another one; expected at least "
                     "two images with different captions in equal numbers.")
