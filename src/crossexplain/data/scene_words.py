"""The words of scenes: what is in a scene, what a caption says of it, and whether that is true.

A small grammar reads captions; nothing of the scene that they were written for is kept. So anybody's sentence of these words
can be read, and truth (:func:`holds`) is decided in one place for all of them.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from crossexplain.checks import InputError
from crossexplain.data.examples import Indices
from crossexplain.data.vocabulary import nearest, read_table

SLOTS = 3  # objects of a scene at most
SIDES = ("left", "right")
_WORDS = read_table("scenes")
GROUNDS = _WORDS["grounds"]
# What can be said of an object, by attribute: each value with the words for it. The first word is the name of the value.
WORDS_FOR = {"noun": _WORDS["nouns"], "colour": _WORDS["colours"], "texture": _WORDS["textures"], "size": _WORDS["sizes"]}
KINDS, COLOUR_NAMES, TEXTURE_NAMES, SIZE_NAMES, GROUND_NAMES = (
    tuple(words[0] for words in group) for group in (*WORDS_FOR.values(), GROUNDS)
)
BACKDROPS = tuple(_WORDS["backdrops"])
FLOORS = {word: GROUND_NAMES.index(name) for word, name in _WORDS["floors"].items()}  # ... floor
SKIES, WALLS, SCREENS = (  # ... sky, ... wall, and words that need no other
    {word: BACKDROPS.index(name) for word, name in _WORDS[table].items()} for table in ("skies", "walls", "screens")
)
NUMBERS, ANYTHING, LYING = _WORDS["numbers"], _WORDS["anything"], _WORDS["lying"]


def plural(noun: str) -> str:
    """Return the plural of a noun of the scenes.

    Examples
    --------
    >>> plural("box"), plural("cup")
    ('boxes', 'cups')
    """
    return noun + ("es" if noun.endswith("x") else "s")


# The value that each word stands for, by attribute.
NOUN, COLOUR, TEXTURE, SIZE, GROUND = (
    {word: value for value, words in enumerate(group) for word in words}
    for group in (*WORDS_FOR.values(), GROUNDS)
)
PLURAL = {plural(word): value for word, value in NOUN.items()}
# By what can be said: the tables of words that fit into the same place of a caption.
TABLES = {"noun": (NOUN, PLURAL), "colour": (COLOUR,), "texture": (TEXTURE,), "size": (SIZE,), "ground": (FLOORS, GROUND),
          "backdrop": (SKIES, WALLS, SCREENS)}
_MANY = {*PLURAL, *map(plural, ANYTHING)}
_ADJECTIVES = {word: (name, value) for name in ("colour", "texture", "size") for word, value in TABLES[name][0].items()}
_DESCRIBED = {"floor": FLOORS, "sky": SKIES, "wall": WALLS}  # these words need an adjective of the table before them
_ROLES = {  # what each word is to the reader
    **dict.fromkeys(_WORDS["fillers"], "filler"),
    **dict.fromkeys(NUMBERS, "number"),
    **dict.fromkeys((*_ADJECTIVES, *FLOORS, *SKIES, *WALLS), "adjective"),
    **dict.fromkeys((*NOUN, *ANYTHING, *_MANY), "noun"),
    **dict.fromkeys((*GROUND, "floor"), "ground"),
    **dict.fromkeys((*SCREENS, "sky", "wall"), "backdrop"),
    **dict.fromkeys((*SIDES, "front", "behind"), "relation"),
    "it": "it",
}
WORDS = tuple(sorted(_ROLES))


@dataclass(frozen=True)
class Facts:
    """What is in N scenes; each field is an array whose first axis counts them.

    Attributes
    ----------
    kind, colour, texture, size : ndarray of int8, shape (N, 3)
        Of each object, index into ``KINDS``, ``COLOUR_NAMES``, ``TEXTURE_NAMES``, ``SIZE_NAMES``; kind -1: no such object.
    x, y : ndarray of float32, shape (N, 3)
        Middle from left to right, and the lowest point, in shares of the picture's side. What stands lower is nearer.
    extent : ndarray of float32, shape (N, 3)
        Square root of the area of the box, in shares of the side.
    pose : ndarray of int8, shape (N, 3)
    ground, backdrop : ndarray of int8, shape (N,)
        Index into ``GROUND_NAMES`` and ``BACKDROPS``.
    horizon : ndarray of float32, shape (N,)
        Where the ground begins, in shares of the side.
    """

    kind: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    size: np.ndarray
    x: np.ndarray
    y: np.ndarray
    extent: np.ndarray
    pose: np.ndarray
    ground: np.ndarray
    backdrop: np.ndarray
    horizon: np.ndarray

    def __len__(self) -> int:
        return len(self.ground)

    def values(self, attribute: str) -> np.ndarray:
        """Return an attribute of the objects, (N, 3), by the name that captions have for it (``"noun"``: the kind)."""
        values: np.ndarray = getattr(self, "kind" if attribute == "noun" else attribute)
        return values

    def __getitem__(self, indices: Indices) -> "Facts":
        indices = np.atleast_1d(np.arange(len(self))[indices])
        return Facts(**{name: getattr(self, name)[indices] for name in self.__dataclass_fields__})


# An object, or several, as a caption has it: the value and the place of the word by attribute, which is one of "noun",
# "colour", "texture", "size", "side" and, of several objects, "count".
Thing = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Meaning:
    """What a caption says.

    Attributes
    ----------
    things : tuple of Thing
    relations : tuple of (int, str, int, int)
        Number of the thing, ``"left"``, ``"right"``, ``"front"`` or ``"behind"``, number of the other thing, word.
    places : dict of str to (int, int)
        Value and word of ``"ground"`` and ``"backdrop"``, where they are named.
    """

    things: tuple[Thing, ...]
    relations: tuple[tuple[int, str, int, int], ...]
    places: dict[str, tuple[int, int]]

    @property
    def single(self) -> list[int]:
        """Numbers of the things that are one object."""
        return [t for t, thing in enumerate(self.things) if "count" not in thing]


def split_words(caption: str) -> list[str]:
    """Return the words of a caption without capitals and stops; words in brackets, such as ``[MASK]``, as they are."""
    return [word if word.startswith("[") else word.lower().rstrip(".,;!?") or word for word in caption.split()]


class _Reader:
    """One pass over the words of a caption, from left to right."""

    def __init__(self, caption: str) -> None:
        self.caption, self.words = caption, split_words(caption)
        self.things: list[Thing] = []
        self.relations: list[tuple[int, str, int, int]] = []
        self.places: dict[str, tuple[int, int]] = {}
        self.adjectives: list[int] = []  # their places, which wait for their noun, as does a number
        self.number: tuple[int, int] | None = None
        # A relation that waits for its second thing: word, place, first thing or None if that comes last.
        self.waiting: tuple[str, int, int | None] | None = None
        self.inverted: list[tuple[str, int, int]] = []  # relations whose first thing comes last
        self.side: tuple[int, int] | None = None  # "on the left" ahead of its thing
        self.in_clause = 0  # things since the clause began

    def read(self) -> Meaning:
        for i, word in enumerate(self.words):
            self._word(i, word)
        self._predicate()
        if self.adjectives or self.number or self.waiting or self.inverted or self.side:
            raise self._unreadable("something is missing at its end")
        if not self.things and not self.places:
            raise self._unreadable("it names nothing")
        return Meaning(tuple(self.things), tuple(self.relations), self.places)

    def _unreadable(self, why: str) -> InputError:
        return InputError(f"{self.caption!r} cannot be read: {why}; say it like 'a small red ball lies left of a blue box'.")

    def _word(self, i: int, word: str) -> None:
        match _ROLES.get(word):
            case "number":
                self.number = (NUMBERS[word], i)
            case "adjective":
                self.adjectives.append(i)
            case "noun":
                self._noun(i, word)
            case "ground" | "backdrop" as name:
                self._place(name, i, word)
            case "it":
                self._it()
            case "relation":
                self._relation(i, word)
            case "filler":
                self._predicate()
                self.in_clause = 0 if word in ("and", ",") else self.in_clause
            case _:
                raise InputError(f"{word!r} is not among the {len(WORDS)} words of the scenes; like it: "
                                 f"{nearest(word, WORDS)}.")

    def _noun(self, i: int, word: str) -> None:
        if (word in _MANY) != bool(self.number):
            need = "a number, two or three," if word in _MANY else "no number"
            raise self._unreadable(f"{word!r} needs {need} before it")
        value = NOUN.get(word, PLURAL.get(word))  # None of "thing", "object" and "toy"
        parts = {"noun": None if value is None else (value, i), "count": self.number, "side": self.side}
        thing = {name: part for name, part in parts.items() if part}
        self._describe(thing)
        self.number = self.side = None
        self.things.append(thing)
        self.in_clause += 1
        self._relate(len(self.things) - 1)

    def _relate(self, thing: int) -> None:
        """Complete the relation that waits for a thing."""
        if self.waiting:
            relation, place, first = self.waiting
            self.waiting = None
            if first is None:
                self.inverted.append((relation, thing, place))
                self.in_clause = 0
            else:
                self.relations.append((first, relation, thing, place))
        elif self.inverted:
            self.relations.append((thing, *self.inverted.pop()))

    def _describe(self, thing: Thing) -> None:
        for place in self.adjectives:
            if (word := self.words[place]) not in _ADJECTIVES:
                raise self._unreadable(f"{word!r} is said of floors, skies and walls only")
            name, value = _ADJECTIVES[word]
            thing[name] = (value, place)
        self.adjectives = []

    def _predicate(self) -> None:
        """Give adjectives without a noun, as in "the ball is red", to the last thing."""
        if self.adjectives and self.things and self.words[self.adjectives[-1]] in _ADJECTIVES:
            self._describe(self.things[-1])

    def _place(self, name: str, i: int, word: str) -> None:
        table = _DESCRIBED.get(word, {**GROUND, **SCREENS})
        place = self.adjectives[-1] if word in _DESCRIBED and self.adjectives else i
        if self.words[place] not in table:
            raise self._unreadable(f"{word!r} needs one of {', '.join(table)} before it")
        self.places[name] = (table[self.words[place]], place)
        self.adjectives, self.waiting = [], None  # "in front of a wall" is no relation of two things

    def _it(self) -> None:
        if not self.waiting or len(self.things) < 2:
            raise self._unreadable("'it' has nothing to stand for")
        relation, place, _ = self.waiting
        self.waiting = None
        self.relations.append((len(self.things) - 1, relation, len(self.things) - 2, place))

    def _relation(self, i: int, word: str) -> None:
        self._predicate()
        if word not in SIDES or self.words[i + 1 : i + 2] == ["of"]:
            self.waiting = (word, i, len(self.things) - 1 if self.in_clause else None)
        elif self.in_clause:
            self.things[-1]["side"] = (SIDES.index(word), i)
        else:
            self.side = (SIDES.index(word), i)


@lru_cache(maxsize=1 << 17)
def read(caption: str) -> Meaning:
    """Return what a caption says.

    Parameters
    ----------
    caption : str
        Of ``WORDS``; capitals and stops do not matter.

    Returns
    -------
    Meaning

    Raises
    ------
    InputError
        For an unknown word (names the nearest) and for a sentence that the grammar cannot follow.

    Examples
    --------
    >>> read("a small red ball lies left of a blue box on the grass").relations
    ((0, 'left', 1, 5),)
    """
    return _Reader(caption).read()


def holds(facts: Facts, caption: str) -> np.ndarray:
    """Return whether a caption is true of the scenes: the one definition of truth.

    A caption may leave out what it likes. "A red ball" is true where there is at least one, "two balls" where there are
    exactly two. Two things of a caption are two objects. Left and right are told by the middles of the objects, or by the
    middle of the picture; what is nearer is in front.

    Parameters
    ----------
    facts : Facts
        Of N scenes.
    caption : str

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    meaning = read(caption)
    true: np.ndarray = np.asarray(_casts(facts, meaning).any(axis=0))
    for name, (value, _) in meaning.places.items():
        true &= getattr(facts, name) == value
    for thing in meaning.things:
        if "count" in thing:
            true &= _fits(facts, thing).sum(axis=1) == thing["count"][0]
    return true


def cues(facts: Facts, caption: str) -> list[tuple[int, str, tuple[int, ...]]]:
    """Return the words of a caption that say something of a scene, and of which of its objects.

    Parameters
    ----------
    facts : Facts
        Of one scene.
    caption : str
        True of it.

    Returns
    -------
    list of (int, str, tuple of int)
        Place of the word; what it tells: ``"noun"``, ``"colour"``, ``"texture"``, ``"size"``, ``"side"`` (left or right in
        the picture), ``"relation"``, ``"count"``, ``"ground"`` or ``"backdrop"``; objects, of a relation both of them,
        none for ground and backdrop. Where several objects fit equally, all of them.

    Raises
    ------
    InputError
        For a caption that is not true of the scene.
    """
    if len(facts) != 1 or not holds(facts, caption)[0]:
        raise InputError(f"{caption!r} is not true of the scene; words of a false caption point at nothing.")
    meaning = read(caption)
    players = _players(facts, meaning)
    words = [(place, name, players[t]) for t, thing in enumerate(meaning.things) for name, (_, place) in thing.items()]
    words += [(place, name, ()) for name, (_, place) in meaning.places.items()]
    for one, _, other, place in meaning.relations:
        words.append((place, "relation", tuple(sorted({*players[one], *players[other]}))))
    return sorted(words)


def _players(facts: Facts, meaning: Meaning) -> list[tuple[int, ...]]:
    """Return the objects that each thing of a true caption may be."""
    ways = list(permutations(range(SLOTS), len(meaning.single)))
    possible = [dict(zip(meaning.single, way)) for way, true in zip(ways, _casts(facts, meaning)[:, 0]) if true]
    return [
        tuple(sorted({way[t] for way in possible})) if t in meaning.single
        else tuple(np.flatnonzero(_fits(facts, thing)[0]).tolist())
        for t, thing in enumerate(meaning.things)
    ]


def _fits(facts: Facts, thing: Thing) -> np.ndarray:
    """Return which objects are as described, (N, 3)."""
    fits = facts.kind >= 0
    for name, (value, _) in thing.items():
        if name != "count":
            fits = fits & ((facts.x > 0.5 if name == "side" else facts.values(name)) == value)
    return fits


def _casts(facts: Facts, meaning: Meaning) -> np.ndarray:
    """Return which ways to give each single thing an object of its own make the caption true, (ways, N)."""
    fits = {t: _fits(facts, meaning.things[t]) for t in meaning.single}
    ways = list(permutations(range(SLOTS), len(fits)))
    true = np.full((max(len(ways), 1), len(facts)), bool(ways))  # no way: more things than a scene can hold
    for row, way in zip(true, ways):
        slots = dict(zip(fits, way))
        for t, slot in slots.items():
            row &= fits[t][:, slot]
        for one, relation, other, _ in meaning.relations:
            if one in slots and other in slots:
                row &= _related(facts, slots[one], relation, slots[other])
    return true


def _related(facts: Facts, one: int, relation: str, other: int) -> np.ndarray:
    axis = facts.x if relation in SIDES else facts.y
    one, other = (one, other) if relation in ("left", "behind") else (other, one)
    return np.asarray(axis[:, one] < axis[:, other])
