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

import io
import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from os import getpid
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor
from tqdm.auto import tqdm

from crossexplain.data import photos, store
from crossexplain.data.store import Found, MissingSource

log = logging.getLogger(__name__)

TOKENS = "Flickr8k.token.txt"
LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "validation": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
JUDGEMENTS = {"expert": "ExpertAnnotations.txt", "crowd": "CrowdFlowerAnnotations.txt"}
TEXT_ARCHIVE, IMAGE_ARCHIVE = "Flickr8k_text.zip", "Flickr8k_Dataset.zip"
TEXT_FOLDERS, IMAGE_FOLDERS = (".", "Flickr8k_text"), ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
NEGATIVES = ("random", "hard")
NEIGHBOURS = 50  # nearest captions among which a hard negative is looked for
QUIRK = "2258277193_586949ec62.jpg"  # the published captions name it, the published images lack it


class CaptionError(ValueError):
    """A file of captions, of a split or of judgements is not as it should be; the message says where and what to do."""


@dataclass(frozen=True)
class Pairs:
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

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int]) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(self.image[indices], self.caption[indices], self.labels[indices])


@dataclass(frozen=True)
class Judgements:
    """What people said of an image with a caption.

    Attributes
    ----------
    image, caption : ndarray of int64, shape (J,)
        As in :class:`Pairs`.
    scores : ndarray of float64, shape (J, K)
        Experts: K = 3 marks from 1 (does not describe the image at all) to 4 (describes it). Crowd: K = 2, the number of
        those who said yes, it describes the image (small mistakes allowed), and of those who said no.
    left_out : int
        Judgements of images or captions that are not there.
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
        File names of the images that are there, in the order of the captions.
    captions : list of C str
    image_of : ndarray of int64, shape (C,)
        Index of the image that a caption was written for.
    keys : list of C str
        ``"IMAGE#NUMBER"`` of each caption, as in the files.
    splits : dict
        ``"train"``, ``"validation"`` and ``"test"`` to indices of images; disjoint.
    found : crossexplain.data.store.Found
        Where it was found.
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
    files: "_Files" = field(default=None, repr=False)

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(indices):,} {name}" for name, indices in self.splits.items())
        return f"{len(self.names):,} images ({parts}), {len(self.captions):,} captions, from {self.found.origin}"

    def captions_of(self, images: str | Sequence[int]) -> np.ndarray:
        """Return the indices of all captions of some images, or of a split by its name, image by image.

        Parameters
        ----------
        images : str or sequence of int

        Returns
        -------
        ndarray of int64, shape (C',)
        """
        indices = self._split(images) if isinstance(images, str) else np.asarray(images, dtype=np.int64)
        return np.concatenate([self._by_image[i] for i in indices]) if len(indices) else np.empty(0, np.int64)

    def images(self, indices: Sequence[int], size: int) -> Tensor:
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
            raise ValueError("no index came, expected at least one image.")
        return torch.stack([photos.read(self.files.open(self.names[i]), size) for i in indices])

    def fingerprints(self, indices: Sequence[int]) -> list[str]:
        """Return what identifies the content of images: name, size and checksum of each file."""
        return [f"{self.names[i]} {self.files.fingerprint(self.names[i])}" for i in indices]

    def pairs(self, split: str, seed: int, negatives: str = "random") -> Pairs:
        """Pair every caption of a split with its image, and every one with an image that it was not written for.

        Every caption is in one pair that matches and in one that does not, and so is every image five times each: neither
        the caption alone nor the image alone tells anything about the label.

        Parameters
        ----------
        split : str
            ``"train"``, ``"validation"`` or ``"test"``; all captions and images come from it.
        seed : int
        negatives : {"random", "hard"}
            Random: the captions are dealt out again at random, as in section 4.2 of the paper. Hard: each image gets a
            caption that reads like its own (nearest by TF-IDF among those not yet dealt out; what is left at the end is
            dealt out at random). Some of these describe the image by accident, so that no model can be right on all.
            Never a caption of the same image, nor one of the same words.

        Returns
        -------
        Pairs

        Raises
        ------
        ValueError
            For an unknown split or kind, and where too few images are left to choose from.
        """
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives {negatives!r} came, expected one of {', '.join(map(repr, NEGATIVES))}.")
        own = self.captions_of(split)
        image = self.image_of[own]  # (N,)
        texts = [" ".join(self.captions[i].lower().strip(" .").split()) for i in own]
        words = np.unique(texts, return_inverse=True)[1]  # (N,) the same number for the same words
        taken = set(zip(image.tolist(), words.tolist()))

        def clash(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            return np.fromiter(((a, b) in taken for a, b in zip(image[i].tolist(), words[j].tolist())), bool, len(i))

        rng = np.random.default_rng(seed)
        chosen = np.full(len(own), -1)
        if negatives == "hard":
            _deal_nearest(chosen, _nearest(texts), clash, rng)
        _deal_rest(chosen, clash, rng, split)
        labels = np.repeat(np.array([1, 0]), len(own))
        return Pairs(np.tile(image, 2), np.concatenate([own, own[chosen]]), labels)

    def judgements(self, kind: str) -> Judgements:
        """Read what people said of how well a caption describes an image.

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
            If the file is not there; generated images have none.
        """
        if kind not in JUDGEMENTS:
            raise ValueError(f"judgements {kind!r} came, expected one of {', '.join(map(repr, JUDGEMENTS))}.")
        name = JUDGEMENTS[kind]
        images = {name: i for i, name in enumerate(self.names)}
        captions = {key: i for i, key in enumerate(self.keys)}
        rows, left_out = [], 0
        for number, line in _lines(self.files.text(name), name):
            try:
                image, caption, *scores = line.split("\t")
                scores = [float(score) for score in scores]
                if len(scores) != 3 or (kind == "expert" and not all(1 <= score <= 4 for score in scores)):
                    raise ValueError
            except ValueError:
                raise CaptionError(f"{name}, line {number}: expected an image, a caption and three numbers with tabs "
                                   f"between them, got {line[:60]!r}; fetch the file again.") from None
            if image in images and caption in captions:
                rows.append((images[image], captions[caption], *(scores if kind == "expert" else scores[1:])))
            else:
                left_out += 1
        table = np.array(rows, dtype=float).reshape(len(rows), 5 if kind == "expert" else 4)
        return Judgements(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:], left_out)

    def _split(self, name: str) -> np.ndarray:
        if name not in self.splits:
            raise ValueError(f"split {name!r} came, expected one of {', '.join(map(repr, self.splits))}.")
        return self.splits[name]

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
        With what was left out in ``problems``; new problems are logged as well, the one that everybody's copy has is not.

    Raises
    ------
    CaptionError
        If captions or lists are not as they should be: encoding, tabs, keys, an image in two splits.
    crossexplain.data.store.MissingSource
        If a file is not there.
    """
    found = store.find("flickr8k") if folder is None else Found("flickr8k", Path(folder), "folder that was named")
    files = _Files(found.path)
    rows = _captions(files.text(TOKENS))
    images = list(dict.fromkeys(image for image, _, _ in rows))
    broken = {image: why for image in images if (why := files.lacks(image))}
    if check:
        broken |= _unreadable(files, [image for image in images if image not in broken], progress)
    problems = [*_about_images(rows, images, broken), *_about_captions(rows)]
    rows = [row for row in rows if row[0] not in broken and row[2]]
    names = list(dict.fromkeys(image for image, _, _ in rows))
    index = {name: i for i, name in enumerate(names)}
    if not names:
        raise CaptionError(f"{TOKENS} in {found.path}: no caption is left whose image is there; {' '.join(problems)}")
    splits = _splits(files, index, problems)
    for problem in problems:
        log.log(logging.INFO if QUIRK in problem else logging.WARNING, "%s: %s", found.path.name, problem)
    return Flickr8k(names, [text for _, _, text in rows], np.array([index[image] for image, _, _ in rows]),
                    [f"{image}#{number}" for image, number, _ in rows], splits, found, tuple(problems), files)


class _Files:
    """The files of a folder, or of the archives in it, under the same names."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise MissingSource(f"there is no folder {folder}; name the one that holds {TOKENS} or {TEXT_ARCHIVE}.")
        self.images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
        self.members = {} if self.images else _members(folder / IMAGE_ARCHIVE)
        if not self.images and not self.members:
            raise MissingSource(f"{folder} holds no images: expected a folder {' or '.join(IMAGE_FOLDERS)}, or the archive "
                                f"{IMAGE_ARCHIVE}.")

    def text(self, name: str) -> bytes:
        """Return the content of a text file."""
        for place in TEXT_FOLDERS:
            if (path := self.folder / place / name).is_file():
                return path.read_bytes()
        archive = self.folder / TEXT_ARCHIVE
        if name in (members := _members(archive)):
            return _from_archive(archive, members[name].filename)
        raise MissingSource(f"{self.folder} lacks {name}, and there is no {TEXT_ARCHIVE} that holds it; "
                            "place the file there.")

    def open(self, image: str) -> Path | io.BytesIO:
        """Return what :func:`crossexplain.data.photos.read` reads an image from."""
        if self.images:
            return self.images / image
        stream = io.BytesIO(_from_archive(self.folder / IMAGE_ARCHIVE, self.members[image].filename))
        stream.name = image
        return stream

    def lacks(self, image: str) -> str | None:
        """Return why an image cannot be there, without reading it."""
        if self.images:
            path = self.images / image
            size = path.stat().st_size if path.is_file() else None
        else:
            size = self.members[image].file_size if image in self.members else None
        return "absent" if size is None else None if size else "empty (0 bytes)"

    def fingerprint(self, image: str) -> str:
        """Return size and checksum of an image's file; an archive knows them already."""
        if self.images:
            content = (self.images / image).read_bytes()
            return f"{len(content)} {zlib.crc32(content):08x}"
        return f"{self.members[image].file_size} {self.members[image].CRC:08x}"


@lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    # One for each process: two that share an open file would move each other's place in it.
    return zipfile.ZipFile(path)


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files in an archive by their plain names; nothing if there is no archive."""
    if not path.is_file():
        return {}
    try:
        listed = _archive(path, getpid()).infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CaptionError(f"{path} is no whole zip file ({error}); copy or fetch it again.") from error
    # Mac OS adds files of its own, in a folder of that name.
    return {Path(one.filename).name: one for one in listed
            if not one.is_dir() and not one.filename.startswith("__MACOSX/")}


def _from_archive(path: Path, member: str) -> bytes:
    try:
        return _archive(path, getpid()).read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if Path(member).suffix == ".txt":
            raise CaptionError(f"{member} in {path} cannot be unpacked ({error}); copy the archive again.") from error
        raise photos.PhotoError(f"{Path(member).name} cannot be unpacked from {path.name} ({error}); "
                                "copy or fetch the archive again.") from error


def _lines(content: bytes, name: str) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, with their numbers."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CaptionError(f"{name} is UTF-16, expected UTF-8; save it again as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise CaptionError(f"{name}, line {number}: the byte 0x{content[error.start]:02x} is not UTF-8; save the file "
                           "again as UTF-8.") from error
    # split("\n"): a caption may hold a character that splitlines takes for the end of a line
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        raise CaptionError(f"{name} is empty, expected at least one line; fetch or copy the file again.")
    return lines


def _captions(content: bytes) -> list[tuple[str, str, str]]:
    """Return image, number and text of each caption."""
    rows, seen, wrong, twice = [], {}, [], []
    for number, line in _lines(content, TOKENS):
        key, tab, text = line.partition("\t")
        image, hash_sign, count = key.strip().rpartition("#")
        if not tab or not hash_sign or not count.isdecimal() or not image or image != Path(image).name:
            wrong.append((number, line))
            continue
        first = seen.setdefault((image, count), number)
        if first != number:
            twice.append((number, f"{image}#{count}", first))
        rows.append((image, count, " ".join(text.split())))
    if wrong:
        number, line = wrong[0]
        raise CaptionError(f"{TOKENS}, line {number}: expected IMAGE#NUMBER, a tab and the caption, got {line[:60]!r} "
                           f"({_count(wrong, 'such line')} in all); put the tab in or take the line out.")
    if twice:
        number, key, first = twice[0]
        raise CaptionError(f"{TOKENS}, line {number}: {key} is already in line {first} ({_count(twice, 'such line')} in "
                           "all); number the captions of an image differently or take the line out.")
    return rows


def _splits(files: _Files, index: dict[str, int], problems: list[str]) -> dict[str, np.ndarray]:
    """Read the three lists; adds to the problems what they name in vain."""
    splits, where = {}, {}
    for split, name in LISTS.items():
        listed = [line.strip() for _, line in _lines(files.text(name), name)]
        for image in listed:
            if image in where:
                raise CaptionError(f"{name} names {image}, which {where[image]} names already; an image belongs to one "
                                   "split once, take it out of one.")
            where[image] = name
        unknown = [image for image in listed if image not in index]
        if unknown:
            problems.append(f"{_count(unknown, 'image')} of {name} without a readable file or a caption, left out: "
                            f"{_first(unknown)}.")
        splits[split] = np.array([index[image] for image in listed if image in index], dtype=np.int64)
    return splits


def _unreadable(files: _Files, images: list[str], progress: bool) -> dict[str, str]:
    broken = {}
    for image in tqdm(images, desc="reading images", unit="image", disable=not progress):
        try:
            photos.read(files.open(image), 8)
        except photos.PhotoError:
            broken[image] = "damaged"
    return broken


def _about_images(rows, images: list[str], broken: dict[str, str]) -> list[str]:
    """Return one line for each way in which images are unusable."""
    captions = Counter(image for image, _, _ in rows)
    problems = []
    for why in dict.fromkeys(broken.values()):
        names = [image for image in images if broken.get(image) == why]
        lost = sum(captions[name] for name in names)
        problems.append(f"{_count(names, 'image')} {why}, left out with {lost} caption{'s' * (lost != 1)}: {_first(names)}.")
    return problems


def _about_captions(rows) -> list[str]:
    empty = [f"{image}#{number}" for image, number, text in rows if not text]
    return [f"{_count(empty, 'caption')} without a word, left out: {_first(empty)}."] if empty else []


def _count(things: Sequence, name: str) -> str:
    return f"{len(things):,} {name}{'s' * (len(things) != 1)}"


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _nearest(texts: list[str]) -> list[np.ndarray]:
    """Return for each text the indices of those that read most like it, nearest first; itself left out."""
    try:
        vectors = TfidfVectorizer(stop_words="english", sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    except ValueError:  # none of the texts has a word that says anything
        return [np.empty(0, np.int64)] * len(texts)
    found = []
    for start in range(0, len(texts), 1000):  # the whole table of 30,000 by 30,000 would fill the memory
        alike = (vectors[start : start + 1000] @ vectors.T).tocsr()
        for row in range(alike.shape[0]):
            span = slice(alike.indptr[row], alike.indptr[row + 1])
            others = alike.indices[span] != start + row
            indices, values = alike.indices[span][others], alike.data[span][others]
            if len(values) > NEIGHBOURS:
                top = np.argpartition(-values, NEIGHBOURS)[:NEIGHBOURS]
                indices, values = indices[top], values[top]
            found.append(indices[np.lexsort((indices, -values))])
    return found


def _deal_nearest(chosen: np.ndarray, nearest: list[np.ndarray], clash, rng) -> None:
    """Give each image, in random order, the nearest caption that is still free and not its own."""
    free = np.ones(len(chosen), bool)
    for i in rng.permutation(len(chosen)):
        offered = nearest[i][free[nearest[i]]]
        offered = offered[~clash(np.full(len(offered), i), offered)]
        if len(offered):
            chosen[i] = offered[0]
            free[offered[0]] = False


def _deal_rest(chosen: np.ndarray, clash, rng, split: str) -> None:
    """Deal the captions that are left at random; where one would meet its own image, exchange it with another."""
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
    raise ValueError(f"the split {split!r} has too few images to give each a caption of another one; expected at least "
                     "two images with different captions in equal numbers.")
