"""Scenes: drawn pictures of one to three objects with five captions each, and the truth about every word.

The embedded stand-in for Flickr8k. Pictures are not stored but drawn from seeds. They come in twins, 2k and 2k + 1, that
differ in one thing that can be said (a colour, a noun, a pattern, a size, the ground, the backdrop, left and right, how
many) and in many that cannot (light, small shifts, noise). A caption of the one and the same caption with one word changed
then make a quadruple in which neither the words nor the picture alone are worth anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crossexplain.data import scene_render, scene_words
from crossexplain.data.scene_words import Facts, Writer, cues, holds, plural, read
from crossexplain.data.store import Found
from crossexplain.files import write_whole

SPLITS = ("train", "validation", "test")
LISTS = ("train", "dev", "test")  # what Flickr8k calls them
SIZES = (6000, 1000, 1000)
SIDE = 96
CAPTIONS = 5
PAD, MASK, START, END = "[PAD]", "[MASK]", "[START]", "[END]"
VOCABULARY = (PAD, MASK, START, END, *scene_words.WORDS)
LENGTH = 32  # T, more than the longest caption has words
# What twins differ in, and how many of a hundred do.
CHANGES = {"colour": 26, "noun": 24, "texture": 14, "ground": 12, "backdrop": 8, "size": 8, "side": 5, "count": 3}
VALUES = {"colour": 9, "noun": 12, "texture": 4, "size": 2, "ground": 6}
_EXTENT = ((0.21, 0.26), (0.35, 0.43))  # square root of the area of small and large objects, in shares of the side
_HIDDEN = 0.35  # share of an object's box that nearer ones may cover


def tokenize(captions: str | Sequence[str], length: int = LENGTH, ends: bool = False) -> Tensor:
    """Return captions as word numbers, padded behind.

    Parameters
    ----------
    captions : str or sequence of N str
        Of words of ``VOCABULARY``; ``[MASK]`` is one. Capitals and stops do not matter.
    length : int
        Number of tokens, T.
    ends : bool
        Put ``[START]`` before and ``[END]`` behind.

    Returns
    -------
    Tensor, shape (N, T), int64

    Raises
    ------
    ValueError
        For a word that is not in the vocabulary and a caption that is empty or too long.
    """
    number = {word: i for i, word in enumerate(VOCABULARY)} | {MASK.lower(): 1}
    rows = []
    for caption in [captions] if isinstance(captions, str) else captions:
        words = [word.lower().rstrip(".,;!?") or word for word in caption.split()]
        if not 1 <= len(words) <= length - 2 * ends:
            raise ValueError(f"{caption!r} has {len(words)} words, expected 1 to {length - 2 * ends}.")
        for word in words:
            if word not in number:
                read(word)  # tells the nearest words
                raise ValueError(f"{word!r} is not a word of the scenes.")
        ids = [number[word] for word in words]
        rows.append([2, *ids, 3] if ends else ids)
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


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

    def images(self, indices=slice(None)) -> Tensor:
        """Draw pictures; shape (n, 3, side, side), float32, RGB from 0 to 1. The same ones whatever they are drawn with."""
        indices = np.atleast_1d(np.arange(len(self))[indices])
        ends = np.cumsum((0, *self.sizes))
        split = np.searchsorted(ends, indices, side="right") - 1
        out = torch.empty(len(indices), 3, self.side, self.side)
        for first in range(0, len(indices), 32):  # as many as stay in the processor's cache
            part = slice(first, first + 32)
            seeds = [(self.seed, int(s), int(i - ends[s])) for s, i in zip(split[part], indices[part])]
            drawn = scene_render.draw(self.facts[indices[part]], seeds, self.side)
            out[part] = torch.from_numpy(drawn).permute(0, 3, 1, 2)
        return out

    @cached_property
    def captions(self) -> list[tuple[str, ...]]:
        """Five captions of each picture, all true."""
        return [self._five(i) for i in range(len(self))]

    def _five(self, i: int) -> tuple[str, ...]:
        random = Random(f"captions {self._place(i)}")
        facts, found = self.facts[i], {}
        writer = Writer(facts, random)
        while len(found) < CAPTIONS:
            found[writer.caption()] = None
        return tuple(found)

    def _place(self, i: int) -> str:
        """Name of a picture that does not change with the sizes of the splits before it."""
        ends = np.cumsum((0, *self.sizes))
        split = int(np.searchsorted(ends, i, side="right") - 1)
        return f"{self.seed} {SPLITS[split]} {i - ends[split]}"

    def boxes(self, i: int) -> np.ndarray:
        """Boxes of all objects of a picture, hidden parts included; (k, 4), int64: top, left, bottom, right, exclusive."""
        return boxes(self.facts[i], self.side)

    def cues(self, i: int, caption: str) -> list[tuple[int, str, tuple[int, ...]]]:
        """Words of a true caption that say something of a picture: place, what, objects (see ``scene_words.cues``)."""
        return cues(self.facts[i], caption)

    def build(self, split: str, n_pairs: int, seed: int, kind: str = "random") -> "Pairs":
        """Build pairs of a picture and a caption, half of them true.

        Two pictures A and B and two captions, a true of A only and b true of B only, give four pairs: (A, a) and (B, b)
        with label 1, (A, b) and (B, a) with label 0, in this order. Whoever sees one of the two only is right in exactly
        half of the pairs.

        Parameters
        ----------
        split : {"train", "validation", "test"}
            Flickr8k calls validation "dev", which will do too.
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
        ValueError
            For an unknown split or kind and a number of pairs that is no positive multiple of 4.
        """
        split = "validation" if split == "dev" else split
        if split not in SPLITS:
            raise ValueError(f"split {split!r} came, expected one of {', '.join(SPLITS)}.")
        if kind not in ("random", "foil"):
            raise ValueError(f"kind {kind!r} came, expected 'random' or 'foil'.")
        if n_pairs < 4 or n_pairs % 4:
            raise ValueError(f"{n_pairs} pairs came, expected a positive multiple of 4: two pictures by two captions.")
        if len(self.splits[split]) < 2:
            raise ValueError(f"the split {split!r} has {len(self.splits[split])} pictures, expected at least 2.")
        random = Random(f"{kind} {self.seed} {split} {seed}")
        make = self._random if kind == "random" else self._foil
        return make(self.splits[split], n_pairs // 4, random)

    def _random(self, pool: np.ndarray, n: int, random: Random) -> "Pairs":
        images, captions = [], []
        while len(captions) < 4 * n:
            one, other = int(random.choice(pool)), int(random.choice(pool))
            a, b = random.choice(self.captions[one]), random.choice(self.captions[other])
            if one != other and not holds(self.facts[other], a)[0] and not holds(self.facts[one], b)[0]:
                images += [one, other, one, other]
                captions += [a, b, b, a]
        words = np.full(4 * n, -1)
        return Pairs(self, np.array(images), captions, np.tile([1, 1, 0, 0], n), words, ("random",) * (4 * n), ((),) * (4 * n))

    def _foil(self, pool: np.ndarray, n: int, random: Random) -> "Pairs":
        images, captions, words, kinds, objects = [], [], [], [], []
        twins = pool[: len(pool) // 2 * 2].reshape(-1, 2)
        order: list[int] = []
        while len(captions) < 4 * n:
            if not order:  # every pair of twins takes its turn before one comes again
                order = random.sample(range(len(twins)), len(twins))
            one, other = map(int, twins[order.pop()])
            if random.random() < 0.5:
                one, other = other, one
            found = foil(self.facts[one], self.facts[other], random)
            if found is None:
                continue
            a, b, word, what, (here, there) = found
            images += [one, other, one, other]
            captions += [a, b, b, a]
            words += [-1, -1, word, word]
            kinds += [what] * 4
            objects += [(), (), here, there]
        return Pairs(self, np.array(images), captions, np.tile([1, 1, 0, 0], n), np.array(words), tuple(kinds), tuple(objects))


@dataclass(frozen=True)
class Pairs:
    """Pairs of a picture and a caption; N of them, T tokens.

    It can be trained on as it is: it knows its length and gathers a ``batch`` of inputs for
    ``model(images=..., tokens=...)``.

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

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices=slice(None)) -> Tensor:
        """Draw the pictures of some pairs; shape (n, 3, side, side), float32. Each picture once, however often it stands."""
        drawn, where = np.unique(self.image[indices], return_inverse=True)
        return self.scenes.images(drawn)[torch.from_numpy(where.reshape(-1))]

    def tokens(self, indices=slice(None), ends: bool = False) -> Tensor:
        """Return captions as word numbers; shape (n, T), int64, padded behind with 0."""
        chosen = np.atleast_1d(np.arange(len(self))[indices])
        return tokenize([self.captions[i] for i in chosen], ends=ends)

    def batch(self, indices) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and labels of some pairs."""
        indices = np.asarray(indices)
        return {"images": self.images(indices), "tokens": self.tokens(indices)}, torch.from_numpy(self.labels[indices])

    def false_boxes(self, i: int) -> np.ndarray | None:
        """Boxes of what the false word of a pair speaks of, (k, 4); None where it speaks of no object or nothing is false."""
        objects = list(self.false_objects[i])
        return self.scenes.boxes(int(self.image[i]))[objects] if objects else None

    def cues(self, i: int) -> list[tuple[int, str, np.ndarray | None]]:
        """Words of a true caption that say something: place, what, boxes (k, 4) or None for ground and backdrop."""
        every = self.scenes.boxes(int(self.image[i]))
        found = self.scenes.cues(int(self.image[i]), self.captions[i])
        return [(place, what, every[list(objects)] if objects else None) for place, what, objects in found]

    def select(self, indices) -> "Pairs":
        """Return some of the pairs."""
        chosen = np.atleast_1d(np.arange(len(self))[indices])
        return replace(
            self, image=self.image[chosen], captions=[self.captions[i] for i in chosen], labels=self.labels[chosen],
            false_word=self.false_word[chosen], kinds=tuple(self.kinds[i] for i in chosen),
            false_objects=tuple(self.false_objects[i] for i in chosen),
        )


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
    ValueError
        For sizes that are not three even numbers, and a side out of range.
    """
    if len(sizes) != 3 or any(n < 0 or n % 2 for n in sizes) or not sum(sizes):
        raise ValueError(f"sizes {sizes} came, expected three even numbers: pictures come in twins.")
    if not 64 <= side <= 128:
        raise ValueError(f"side {side} came, expected 64 to 128 pixels.")
    rows = [row for name, n in zip(SPLITS, sizes) for k in range(n // 2) for row in _twins(Random(f"{seed} {name} {k}"))]
    types = {name: np.int8 for name in ("kind", "colour", "texture", "size", "pose", "ground", "backdrop")}
    facts = Facts(**{
        name: np.array([row[name] for row in rows], dtype=types.get(name, np.float32)) for name in Facts.__dataclass_fields__
    })
    return Scenes(facts, seed, tuple(sizes), side)


def boxes(facts: Facts, side: int) -> np.ndarray:
    """Return the boxes of the objects of one scene, (k, 4), int64: top, left, bottom, right in pixels, exclusive."""
    here = facts.kind[0] >= 0
    number = facts.kind[0, here].astype(np.intp) * scene_render.POSES + facts.pose[0, here]
    width, height, _ = scene_render.frame(number, facts.extent[0, here])
    x, y = facts.x[0, here], facts.y[0, here]
    low = np.floor(side * np.stack([y - height, x - width / 2], axis=1))
    high = np.ceil(side * np.stack([y, x + width / 2], axis=1))
    return np.clip(np.concatenate([low, high], axis=1), 0, side).astype(np.int64)


# Drawing lots.


def _twins(random: Random) -> tuple[dict, dict]:
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


def _scene(n: int, random: Random) -> dict:
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
    """Middles and lowest points, so far apart that left and right, near and far are never in doubt."""
    rows = [random.gauss(row, 0.012) for row in random.sample((0.69, 0.81, 0.93), 3)]
    while True:
        x = [random.uniform(0.15, 0.85) for _ in range(3)]
        apart = all(abs(x[i] - x[j]) > 0.20 for i in range(n) for j in range(i))
        if apart and all(abs(x[i] - 0.5) > 0.075 for i in range(n)):
            return x, rows


def _changed(one: dict, change: str, n: int, random: Random) -> dict:
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


def _clear(scene: dict) -> bool:
    """Is every object within the picture and mostly uncovered?"""
    facts = Facts(**{name: np.array([value]) for name, value in scene.items()})
    here = [slot for slot in range(3) if scene["kind"][slot] >= 0]
    grain = 256
    found = boxes(facts, grain)
    if (found[:, [1, 0]] <= 2).any() or (found[:, [2, 3]] >= grain - 2).any():
        return False
    for i, slot in enumerate(here):
        area = (found[i, 2] - found[i, 0]) * (found[i, 3] - found[i, 1])
        for j, nearer in enumerate(here):
            if scene["y"][nearer] > scene["y"][slot]:
                high = np.minimum(found[i, 2:], found[j, 2:]) - np.maximum(found[i, :2], found[j, :2])
                area_hidden = np.prod(np.maximum(high, 0))
                if area_hidden > _HIDDEN * area:
                    return False
    return True


# Foils.


def difference(one: Facts, other: Facts) -> tuple[str, int | None]:
    """Return what two twins differ in, one of ``CHANGES``, and in which object (None: in none of them alone)."""
    if (one.kind[0] >= 0).sum() != (other.kind[0] >= 0).sum():
        return "count", None
    for name in ("ground", "backdrop"):
        if getattr(one, name)[0] != getattr(other, name)[0]:
            return name, None
    here = one.kind[0] >= 0
    for name in ("kind", "colour", "texture", "size"):
        differ = np.flatnonzero(here & (getattr(one, name)[0] != getattr(other, name)[0]))
        if len(differ):
            return "noun" if name == "kind" else name, int(differ[0])
    return "side", None


def foil(one: Facts, other: Facts, random: Random):
    """Write a caption of one twin and change one word, so that it is true of the other twin only.

    Parameters
    ----------
    one, other : Facts
        Of one scene each.
    random : random.Random

    Returns
    -------
    a, b : str
        True of the one only, true of the other only.
    word : int
        Where they differ.
    what : str
        One of ``CHANGES``.
    objects : tuple of two tuples of int
        Of which objects of the one and of the other scene the word speaks.

    None after forty captions in vain.
    """
    what, slot = difference(one, other)
    writer = Writer(one, random, (what, slot))
    for _ in range(40):
        a = writer.caption()
        found = [(place, name) for place, name, _ in cues(one, a) if _says(name, what)]
        for place, _name in found:
            b = _swap(a, place, what, slot, other, random)
            if b is None or b == a or holds(other, a)[0] or holds(one, b)[0] or not holds(other, b)[0]:
                continue
            if slot is not None:  # no matter who else might fit, this one decides
                return a, b, place, what, ((slot,), (slot,))
            here, there = ({p: objects for p, _, objects in cues(facts, text)}[place]
                           for facts, text in ((one, a), (other, b)))
            return a, b, place, what, (here, there)
    return None


def _says(name: str, what: str) -> bool:
    return name == what or (what == "side" and name == "relation")


def _swap(caption: str, place: int, what: str, slot: int | None, other: Facts, random: Random) -> str | None:
    """Put the other twin's word in the place of a word; None where no single word will do."""
    words = caption.split()
    word = words[place]
    if what == "side":
        choice = {"left": ["right"], "right": ["left"]}.get(word, [])
    elif what == "count":
        choice = {"two": ["three"], "three": ["two"]}[word]
    elif what in ("ground", "backdrop"):
        choice = _alternatives(word, what, int(getattr(other, what)[0]))
    else:
        group = {"noun": scene_words.NOUNS, "colour": scene_words.COLOURS, "texture": scene_words.TEXTURES,
                 "size": scene_words.SIZES}[what]
        name = "kind" if what == "noun" else what
        choice = list(group[int(getattr(other, name)[0, slot])])
        if word in {plural(noun) for nouns in scene_words.NOUNS for noun in nouns}:
            choice = [plural(noun) for noun in choice]
    if not choice:
        return None
    words[place] = random.choice(choice)
    return " ".join(words)


def _alternatives(word: str, what: str, value: int) -> list[str]:
    """Words for a ground or backdrop that fit into the place of another."""
    if what == "ground":
        tables = (scene_words.FLOORS, {w: v for v, words in enumerate(scene_words.GROUNDS) for w in words})
    else:
        tables = (scene_words.SKIES, scene_words.WALLS, scene_words.SCREENS)
    table = next(table for table in tables if word in table)
    return [other for other, meant in table.items() if meant == value]


# Flickr8k's own file format.


def write_flickr8k(folder: str | Path, scenes: Scenes | None = None, quality: int = 92) -> Path:
    """Write scenes as Flickr8k's files, so that whatever reads those reads these.

    ``Images/*.jpg``, ``Flickr8k.token.txt`` (name, ``#``, number of the caption, tab, caption), and
    ``Flickr_8k.trainImages.txt``, ``...devImages.txt``, ``...testImages.txt`` (one name a line). The texts come last: a
    folder that was cut off half-way lacks them.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there.
    scenes : Scenes, optional
        All 8,000 of seed 0 if left out.
    quality : int
        Of the JPEG files.

    Returns
    -------
    Path
        The folder.
    """
    scenes = load() if scenes is None else scenes
    folder = Path(folder)
    (folder / "Images").mkdir(parents=True, exist_ok=True)
    names = [file_name(scenes, i) for i in range(len(scenes))]
    for first in range(0, len(scenes), 64):
        part = np.arange(first, min(first + 64, len(scenes)))
        pixels = (scenes.images(part).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        for i, picture in zip(part, pixels):
            (folder / "Images" / names[i]).write_bytes(_jpeg(picture, quality))
    lines = [f"{names[i]}#{k}\t{caption[0].upper()}{caption[1:]} .\n"
             for i, five in enumerate(scenes.captions) for k, caption in enumerate(five)]
    texts = {"Flickr8k.token.txt": "".join(lines)}
    for name, indices in zip(LISTS, scenes.splits.values()):
        texts[f"Flickr_8k.{name}Images.txt"] = "".join(f"{names[i]}\n" for i in indices)
    for name, text in texts.items():
        write_whole(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8", newline="\n"))
    return folder


def file_name(scenes: Scenes, i: int) -> str:
    """Return the file name of a picture, as ``write_flickr8k`` writes it."""
    seed, split, number = scenes._place(i).split()
    return f"scene_{seed}_{split}_{int(number):05d}.jpg"


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
