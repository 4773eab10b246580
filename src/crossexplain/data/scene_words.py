"""The words of scenes: what is in a scene, what a caption says of it, and whether that is true.

A small grammar reads captions; nothing of the scene that they were written for is kept. So anybody's sentence of these words
can be read, and truth (:func:`holds`) is decided in one place for all of them.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations

import numpy as np

from crossexplain.checks import InputError
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
_PLURAL_ANYTHING = tuple(plural(word) for word in ANYTHING)
_ADJECTIVES = {"colour": COLOUR, "texture": TEXTURE, "size": SIZE}
_ONLY_PLACES = frozenset({*FLOORS, *SKIES, *WALLS} - set(COLOUR))  # adjectives that no object has
_RELATIONS = frozenset({*SIDES, "front", "behind"})
WORDS = tuple(sorted(
    {*NOUN, *PLURAL, *ANYTHING, *_PLURAL_ANYTHING, *COLOUR, *TEXTURE, *SIZE, *GROUND, *_ONLY_PLACES, "floor", "sky", "wall",
     *SCREENS, *NUMBERS, *_RELATIONS, "it", *_WORDS["fillers"]}
))


@dataclass(frozen=True)
class Facts:
    """What is in N scenes; each field is an array whose first axis counts them.

    Attributes
    ----------
    kind, colour, texture, size : ndarray of int8, shape (N, 3)
        Of each object, index into ``KINDS``, ``COLOUR_NAMES``, ``TEXTURE_NAMES``, ``SIZE_NAMES``; kind -1: no such object.
    x, y : ndarray of float32, shape (N, 3)
        Middle from left to right, and the lowest point, in shares of the picture's side. Who stands lower is nearer.
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
        return getattr(self, "kind" if attribute == "noun" else attribute)

    def __getitem__(self, indices) -> "Facts":
        indices = np.atleast_1d(np.arange(len(self))[indices])
        return Facts(**{name: getattr(self, name)[indices] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Thing:
    """An object, or several, as a caption has it: ``values`` by attribute, and the places of the ``words`` that give them."""

    values: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    count: int | None = None


@dataclass(frozen=True)
class Meaning:
    """What a caption says.

    Attributes
    ----------
    words : tuple of str
    things : tuple of Thing
    relations : tuple of (int, str, int, int)
        Number of the thing, ``"left"``, ``"right"``, ``"front"`` or ``"behind"``, number of the other thing, word.
    ground, backdrop : tuple of (int, int) or None
        Value and word.
    """

    words: tuple[str, ...]
    things: tuple[Thing, ...]
    relations: tuple[tuple[int, str, int, int], ...]
    ground: tuple[int, int] | None
    backdrop: tuple[int, int] | None


class _Reader:
    """One pass over the words of a caption, from left to right."""

    def __init__(self, caption: str):
        self.caption = caption
        self.words = tuple(word.lower().rstrip(".,;!?") or word for word in caption.split())
        self.things, self.relations = [], []
        self.ground = self.backdrop = None
        self.pending, self.number = [], None  # adjectives (places) and a number that wait for their noun
        self.waiting = None  # a relation that waits for its second thing: word, place, whether its first came before
        self.inverted = []  # relations whose first thing comes last
        self.sides, self.since = [], 0  # "on the left" ahead of its thing; things since the clause began

    def read(self) -> Meaning:
        for i, word in enumerate(self.words):
            self._word(i, word)
        self._predicate()
        if self.pending or self.number or self.waiting or self.inverted or self.sides:
            raise self._unreadable("something is missing at its end")
        if not self.things and not self.ground and not self.backdrop:
            raise self._unreadable("it names nothing")
        return Meaning(self.words, tuple(self.things), tuple(self.relations), self.ground, self.backdrop)

    def _unreadable(self, why: str) -> InputError:
        return InputError(f"{self.caption!r} cannot be read: {why}; say it like 'a small red ball lies left of a blue box'.")

    def _word(self, i: int, word: str) -> None:
        if word in NUMBERS:
            self.number = (NUMBERS[word], i)
        elif word in _ONLY_PLACES or any(word in table for table in _ADJECTIVES.values()):
            self.pending.append(i)
        elif word in NOUN or word in PLURAL or word in ANYTHING or word in _PLURAL_ANYTHING:
            self._noun(i, word)
        elif word in GROUND or word == "floor":
            self._place("ground", i, word, GROUND, FLOORS)
        elif word in SCREENS or word in ("sky", "wall"):
            self._place("backdrop", i, word, SCREENS, SKIES if word == "sky" else WALLS)
        elif word == "it":
            self._it()
        elif word in _RELATIONS:
            self._relation(i, word)
        elif word in _WORDS["fillers"]:
            self._predicate()
            if word in ("and", ","):
                self.since = 0
        else:
            raise InputError(f"{word!r} is not among the {len(WORDS)} words of the scenes; like it: {nearest(word, WORDS)}.")

    def _noun(self, i: int, word: str) -> None:
        values, words = {}, {}
        many = word in PLURAL or word in _PLURAL_ANYTHING
        if word in NOUN or word in PLURAL:
            values["noun"], words["noun"] = NOUN.get(word, PLURAL.get(word)), i
        if many != bool(self.number):
            raise self._unreadable(f"{word!r} needs {'a number, two or three,' if many else 'no number'} before it")
        if many:
            words["count"] = self.number[1]
        thing = Thing(values, words, self.number[0] if many else None)
        self._describe(thing)
        self.number = None
        for side, place in self.sides:
            values["side"], words["side"] = side, place
        self.sides = []
        self.things.append(thing)
        self.since += 1
        now = len(self.things) - 1
        if self.waiting:
            relation, place, first = self.waiting
            self.waiting = None
            if first is None:
                self.inverted.append((relation, now, place))
                self.since = 0
            else:
                self.relations.append((first, relation, now, place))
        elif self.inverted:
            relation, other, place = self.inverted.pop()
            self.relations.append((now, relation, other, place))

    def _describe(self, thing: Thing) -> None:
        for place in self.pending:
            word = self.words[place]
            name = next((name for name, table in _ADJECTIVES.items() if word in table), None)
            if name is None:
                raise self._unreadable(f"{word!r} is said of floors, skies and walls only")
            thing.values[name], thing.words[name] = _ADJECTIVES[name][word], place
        self.pending = []

    def _predicate(self) -> None:
        """Adjectives without a noun, as in "the ball is red", belong to the last thing."""
        if self.pending and self.things and self.words[self.pending[-1]] not in _ONLY_PLACES:
            self._describe(self.things[-1])

    def _place(self, name: str, i: int, word: str, alone: dict, described: dict) -> None:
        if word in alone:
            place = (alone[word], i)
        elif self.pending and self.words[self.pending[-1]] in described:
            place = (described[self.words[self.pending[-1]]], self.pending[-1])
        else:
            raise self._unreadable(f"{word!r} needs one of {', '.join(described)} before it")
        self.pending, self.waiting = [], None  # "in front of a wall" is no relation of two things
        setattr(self, name, place)

    def _it(self) -> None:
        if not self.waiting or len(self.things) < 2:
            raise self._unreadable("'it' has nothing to stand for")
        relation, place, _ = self.waiting
        self.waiting = None
        self.relations.append((len(self.things) - 1, relation, len(self.things) - 2, place))

    def _relation(self, i: int, word: str) -> None:
        self._predicate()
        after = self.words[i + 1] if i + 1 < len(self.words) else ""
        if word in SIDES and after != "of":
            if self.since:
                self.things[-1].values["side"], self.things[-1].words["side"] = SIDES.index(word), i
            else:
                self.sides.append((SIDES.index(word), i))
        else:
            self.waiting = (word, i, len(self.things) - 1 if self.since else None)


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
    """Is the caption true of the scenes? The one definition of truth.

    A caption may leave out what it likes. "A red ball" is true where there is at least one, "two balls" where there are
    exactly two. Two things of a caption are two objects. Left and right are told by the middles of the objects, or by the
    middle of the picture; who is nearer is in front.

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
    true = np.ones(len(facts), dtype=bool)
    if meaning.ground:
        true &= facts.ground == meaning.ground[0]
    if meaning.backdrop:
        true &= facts.backdrop == meaning.backdrop[0]
    for thing in meaning.things:
        if thing.count is not None:
            true &= _fits(facts, thing).sum(axis=1) == thing.count
    if any(thing.count is None for thing in meaning.things):
        true &= _casts(facts, meaning).any(axis=0)
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
    places = [(place, name, players[t]) for t, thing in enumerate(meaning.things) for name, place in thing.words.items()]
    for one, _, other, place in meaning.relations:
        places.append((place, "relation", tuple(sorted({*players[one], *players[other]}))))
    places += [(place[1], name, ()) for name, place in (("ground", meaning.ground), ("backdrop", meaning.backdrop)) if place]
    return sorted(places)


def _players(facts: Facts, meaning: Meaning) -> list[tuple[int, ...]]:
    """Return the objects that each thing of a true caption may be."""
    single = [t for t, thing in enumerate(meaning.things) if thing.count is None]
    ways = list(permutations(range(SLOTS), len(single)))
    possible = np.flatnonzero(_casts(facts, meaning)[:, 0]) if single else ()
    return [
        tuple(sorted({ways[way][single.index(t)] for way in possible})) if thing.count is None
        else tuple(np.flatnonzero(_fits(facts, thing)[0]).tolist())
        for t, thing in enumerate(meaning.things)
    ]


def _fits(facts: Facts, thing: Thing) -> np.ndarray:
    """Return which objects are as described, (N, 3)."""
    fits = facts.kind >= 0
    for name, value in thing.values.items():
        values = (facts.x > 0.5) if name == "side" else facts.values(name)
        fits = fits & (values == value)
    return fits


def _casts(facts: Facts, meaning: Meaning) -> np.ndarray:
    """Return which ways to give each single thing an object of its own make the caption true, (ways, N)."""
    single = [t for t, thing in enumerate(meaning.things) if thing.count is None]
    fits = [_fits(facts, meaning.things[t]) for t in single]
    ways = list(permutations(range(SLOTS), len(single)))
    true = np.ones((max(len(ways), 1), len(facts)), dtype=bool)
    if not ways:  # more things than a scene can hold
        return ~true
    for w, way in enumerate(ways):
        for t, slot in enumerate(way):
            true[w] &= fits[t][:, slot]
        for one, relation, other, _ in meaning.relations:
            if one in single and other in single:
                true[w] &= _related(facts, way[single.index(one)], relation, way[single.index(other)])
    return true


def _related(facts: Facts, one: int, relation: str, other: int) -> np.ndarray:
    axis = facts.x if relation in SIDES else facts.y
    return axis[:, one] < axis[:, other] if relation in ("left", "behind") else axis[:, one] > axis[:, other]
