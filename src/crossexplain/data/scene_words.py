"""The words of scenes: what is in a scene, what a caption says of it, whether that is true, and captions to choose from.

Captions are read by a small grammar and not remembered with the scene that they were made for, so anybody's sentence of
these words can be read, and truth (:func:`holds`) is decided in one place for all of them.
"""

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from itertools import permutations

import numpy as np

SLOTS = 3  # objects of a scene at most
# What can be said, by attribute: each value with the words for it. The first is the name of the value.
NOUNS = (
    ("ball", "sphere"), ("box", "cube", "block"), ("cone",), ("drum", "cylinder", "tin"), ("ring", "hoop"), ("star",),
    ("heart",), ("bottle", "flask"), ("mug", "cup"), ("mushroom", "toadstool"), ("house", "hut", "cottage"),
    ("table", "stool"),
)
LYING = frozenset({0, 1, 4, 5, 6})  # ball, box, ring, star, heart
COLOURS = (("red",), ("yellow",), ("green",), ("blue",), ("purple", "violet"), ("pink",), ("white",), ("black",), ("brown",))
TEXTURES = (("plain",), ("striped",), ("spotted", "dotted"), ("checkered",))
SIZES = (("small", "little", "tiny"), ("large", "big", "huge"))
GROUNDS = (("grass", "lawn", "field"), ("sand", "beach"), ("snow",), ("planks", "boards"), ("tiles",), ("road", "street"))
FLOORS = {"wooden": 3, "tiled": 4}  # ... floor
SKIES = {"blue": 0, "cloudy": 1, "starry": 2, "red": 3}  # ... sky
WALLS = {"brick": 4, "white": 5}  # ... wall
SCREENS = {"trees": 6, "forest": 6, "woods": 6, "curtain": 7, "drapes": 7}
BACKDROPS = ("blue sky", "cloudy sky", "starry sky", "red sky", "brick wall", "white wall", "trees", "curtain")
SIDES = ("left", "right")
NUMBERS = {"two": 2, "three": 3}
ANYTHING = ("thing", "object", "toy")
# Words that say nothing about a scene, but hold a sentence together.
FILLERS = frozenset(
    "a an the of to in on under with and , . is are lies lie stands stand sits sit rests rest there that we see picture photo "
    "scene image side".split()
)
KINDS, COLOUR_NAMES, TEXTURE_NAMES, SIZE_NAMES, GROUND_NAMES = (
    tuple(words[0] for words in group) for group in (NOUNS, COLOURS, TEXTURES, SIZES, GROUNDS)
)


def plural(noun: str) -> str:
    """Return the plural of a noun of the scenes.

    Examples
    --------
    >>> plural("box"), plural("cup")
    ('boxes', 'cups')
    """
    return noun + ("es" if noun.endswith("x") else "s")


def _table(groups) -> dict[str, int]:
    return {word: value for value, words in enumerate(groups) for word in words}


_NOUN, _COLOUR, _TEXTURE, _SIZE, _GROUND = map(_table, (NOUNS, COLOURS, TEXTURES, SIZES, GROUNDS))
_PLURAL = {plural(word): value for word, value in _NOUN.items()}
_ANY = {**{word: False for word in ANYTHING}, **{plural(word): True for word in ANYTHING}}
_ADJECTIVES = {"colour": _COLOUR, "texture": _TEXTURE, "size": _SIZE}
_ONLY_PLACES = frozenset({*FLOORS, *SKIES, *WALLS} - set(_COLOUR))  # adjectives that no object has
_RELATIONS = frozenset({"left", "right", "front", "behind"})
WORDS = tuple(sorted(
    {*_NOUN, *_PLURAL, *_ANY, *_COLOUR, *_TEXTURE, *_SIZE, *_GROUND, *_ONLY_PLACES, "floor", "sky", "wall", *SCREENS,
     *NUMBERS, *_RELATIONS, "it", *FILLERS}
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

    def __getitem__(self, indices) -> "Facts":
        indices = np.atleast_1d(np.arange(len(self))[indices])
        return Facts(**{name: getattr(self, name)[indices] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Thing:
    """An object, or some, as a caption has it: ``says`` maps attributes to values, ``words`` to the words' places."""

    says: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    count: int | None = None


@dataclass(frozen=True)
class Said:
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

    def read(self) -> Said:
        for i, word in enumerate(self.words):
            self._word(i, word)
        self._predicate()
        if self.pending or self.number or self.waiting or self.inverted or self.sides:
            raise self._unreadable("something is missing at its end")
        if not self.things and not self.ground and not self.backdrop:
            raise self._unreadable("it names nothing")
        return Said(self.words, tuple(self.things), tuple(self.relations), self.ground, self.backdrop)

    def _unreadable(self, why: str) -> ValueError:
        return ValueError(f"{self.caption!r} cannot be read: {why}; say it like 'a small red ball lies left of a blue box'.")

    def _word(self, i: int, word: str) -> None:
        if word in NUMBERS:
            self.number = (NUMBERS[word], i)
        elif word in _ONLY_PLACES or any(word in table for table in _ADJECTIVES.values()):
            self.pending.append(i)
        elif word in _NOUN or word in _PLURAL or word in _ANY:
            self._noun(i, word)
        elif word in _GROUND or word == "floor":
            self._place("ground", i, word, _GROUND, FLOORS)
        elif word in SCREENS or word in ("sky", "wall"):
            self._place("backdrop", i, word, SCREENS, SKIES if word == "sky" else WALLS)
        elif word == "it":
            self._it()
        elif word in _RELATIONS:
            self._relation(i, word)
        elif word in FILLERS:
            self._predicate()
            if word in ("and", ","):
                self.since = 0
        else:
            near = ", ".join(map(repr, get_close_matches(word, WORDS, n=3, cutoff=0.5))) or "none"
            raise ValueError(f"{word!r} is not among the {len(WORDS)} words of the scenes; like it: {near}.")

    def _noun(self, i: int, word: str) -> None:
        says, words = {}, {}
        if word not in _ANY:
            says["noun"], words["noun"] = _NOUN.get(word, _PLURAL.get(word)), i
        many = word in _PLURAL or _ANY.get(word, False)
        if many != bool(self.number):
            raise self._unreadable(f"{word!r} needs {'a number, two or three,' if many else 'no number'} before it")
        if many:
            words["count"] = self.number[1]
        thing = Thing(says, words, self.number[0] if many else None)
        self._describe(thing)
        self.number = None
        for side, place in self.sides:
            says["side"], words["side"] = side, place
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
            thing.says[name], thing.words[name] = _ADJECTIVES[name][word], place
        self.pending = []

    def _predicate(self) -> None:
        """Adjectives without a noun, as in "the ball is red", belong to the last thing."""
        if self.pending and self.things and self.words[self.pending[-1]] not in _ONLY_PLACES:
            self._describe(self.things[-1])

    def _place(self, name: str, i: int, word: str, alone: dict, described: dict) -> None:
        if word in alone:
            found = (alone[word], i)
        elif self.pending and self.words[self.pending[-1]] in described:
            found = (described[self.words[self.pending[-1]]], self.pending[-1])
        else:
            raise self._unreadable(f"{word!r} needs one of {', '.join(described)} before it")
        self.pending, self.waiting = [], None  # "in front of a wall" is no relation of two things
        setattr(self, name, found)

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
                self.things[-1].says["side"], self.things[-1].words["side"] = SIDES.index(word), i
            else:
                self.sides.append((SIDES.index(word), i))
        else:
            self.waiting = (word, i, len(self.things) - 1 if self.since else None)


@lru_cache(maxsize=1 << 17)
def read(caption: str) -> Said:
    """Return what a caption says.

    Parameters
    ----------
    caption : str
        Of ``WORDS``; capitals and stops do not matter.

    Returns
    -------
    Said

    Raises
    ------
    ValueError
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
    said = read(caption)
    true = np.ones(len(facts), dtype=bool)
    if said.ground:
        true &= facts.ground == said.ground[0]
    if said.backdrop:
        true &= facts.backdrop == said.backdrop[0]
    for thing in said.things:
        if thing.count is not None:
            true &= _fits(facts, thing).sum(axis=1) == thing.count
    if any(thing.count is None for thing in said.things):
        true &= _casts(facts, said).any(axis=0)
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
    ValueError
        For a caption that is not true of the scene.
    """
    if len(facts) != 1 or not holds(facts, caption)[0]:
        raise ValueError(f"{caption!r} is not true of the scene; words of a false caption point at nothing.")
    said = read(caption)
    players = _players(facts, said)
    found = [(place, name, players[t]) for t, thing in enumerate(said.things) for name, place in thing.words.items()]
    for one, _, other, place in said.relations:
        found.append((place, "relation", tuple(sorted({*players[one], *players[other]}))))
    found += [(place[1], name, ()) for name, place in (("ground", said.ground), ("backdrop", said.backdrop)) if place]
    return sorted(found)


def _players(facts: Facts, said: Said) -> list[tuple[int, ...]]:
    """Return the objects that each thing of a true caption may be."""
    single = [t for t, thing in enumerate(said.things) if thing.count is None]
    ways = list(permutations(range(SLOTS), len(single)))
    possible = np.flatnonzero(_casts(facts, said)[:, 0]) if single else ()
    return [
        tuple(sorted({ways[way][single.index(t)] for way in possible})) if thing.count is None
        else tuple(np.flatnonzero(_fits(facts, thing)[0]).tolist())
        for t, thing in enumerate(said.things)
    ]


def _fits(facts: Facts, thing: Thing) -> np.ndarray:
    """Which objects are as described, (N, 3)."""
    fits = facts.kind >= 0
    for name, value in thing.says.items():
        have = (facts.x > 0.5) if name == "side" else getattr(facts, "kind" if name == "noun" else name)
        fits = fits & (have == value)
    return fits


def _casts(facts: Facts, said: Said) -> np.ndarray:
    """Which ways to give each single thing an object of its own make the caption true, (ways, N)."""
    single = [t for t, thing in enumerate(said.things) if thing.count is None]
    fits = [_fits(facts, said.things[t]) for t in single]
    ways = list(permutations(range(SLOTS), len(single)))
    true = np.ones((max(len(ways), 1), len(facts)), dtype=bool)
    if not ways:  # more things than a scene can hold
        return ~true
    for w, way in enumerate(ways):
        for t, slot in enumerate(way):
            true[w] &= fits[t][:, slot]
        for one, relation, other, _ in said.relations:
            if one in single and other in single:
                true[w] &= _related(facts, way[single.index(one)], relation, way[single.index(other)])
    return true


def _related(facts: Facts, one: int, relation: str, other: int) -> np.ndarray:
    axis = facts.x if relation in SIDES else facts.y
    return axis[:, one] < axis[:, other] if relation in ("left", "behind") else axis[:, one] > axis[:, other]


# Captions to choose from.


class Writer:
    """Write true captions of one scene.

    Parameters
    ----------
    facts : Facts
        Of one scene.
    random : random.Random
    focus : tuple of (str, int or None), optional
        What the caption has to mention: attribute, and the object (or None).
    """

    def __init__(self, facts: Facts, random, focus=(None, None)):
        self.random = random
        self.kind, self.colour, self.texture, self.size = (
            getattr(facts, name)[0].tolist() for name in ("kind", "colour", "texture", "size")
        )
        self.x, self.y = facts.x[0].tolist(), facts.y[0].tolist()
        self.ground, self.backdrop = int(facts.ground[0]), int(facts.backdrop[0])
        self.objects = [slot for slot in range(SLOTS) if self.kind[slot] >= 0]
        self.what, self.whom = focus

    def caption(self) -> str:
        """Return one caption."""
        chance = self.random.random()
        many = self._several()
        if self.what == "count" or (many and self.what in (None, "ground", "backdrop") and chance < 0.55):
            return self._end(self._counted(many))
        order = self.objects[:]
        self.random.shuffle(order)
        if self.whom in order:
            order.remove(self.whom)
            order.insert(0, self.whom)
        n = self.random.choices((1, 2, 3), (0.30, 0.5, 0.20))[0]
        n = max(1, min(n, len(order)))
        if self.what == "side" and self.random.random() < 0.7:
            n = max(n, min(2, len(order)))
        named = order[:n]
        if n == 1:
            return self._one(named[0])
        if n == 2:
            self.random.shuffle(named)
            return self._two(*named)
        self.random.shuffle(named)
        a, b, c = (self._name(slot) for slot in named)
        return self._end(f"{self._lead()}{a} , {b} and {c}")

    def phrase(self) -> str:
        """Return a short caption that says one or two things, each of them as often as any other."""
        slot = self._pick(*self.objects)
        said = self.random.sample(("size", "texture", "colour", "noun", "side", "ground", "backdrop"), self._pick(1, 2))
        words = [self._pick(*group[value[slot]]) for name, group, value in (
            ("size", SIZES, self.size), ("texture", TEXTURES, self.texture), ("colour", COLOURS, self.colour)) if name in said]
        words.append(self._pick(*(NOUNS[self.kind[slot]] if "noun" in said else ANYTHING)))
        places = [self._side(slot) if name == "side" else self._on() if name == "ground" else self._before()
                  for name in ("side", "ground", "backdrop") if name in said]
        return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, *places])

    def _pick(self, *words: str) -> str:
        return self.random.choice(words)

    def _lead(self) -> str:
        return self._pick("", "", "", "there is ", "we see ", "a picture of ", "a photo of ")

    def _lies(self, slot: int) -> str:
        """What a thing does: what is taller than wide, or has feet, stands."""
        return self._pick("is", "sits", *(("lies", "rests") if self.kind[slot] in LYING else ("stands", "stands")))

    def _noun(self, slot: int, described: bool) -> str:
        """Return a noun, now and then a vague one if there are adjectives that say more."""
        vague = described and self.random.random() < 0.08 and not (self.what == "noun" and slot == self.whom)
        return self._pick(*(ANYTHING if vague else NOUNS[self.kind[slot]]))

    def _adjectives(self, slot: int) -> list[str]:
        def wanted(name, chance):
            return self.what == name and slot == self.whom or self.random.random() < chance

        texture = TEXTURES[self.texture[slot]]
        size = [self._pick(*SIZES[self.size[slot]])] if wanted("size", 0.38) else []
        colour = [self._pick(*COLOURS[self.colour[slot]])] if wanted("colour", 0.82) else []
        pattern = [self._pick(*texture)] if wanted("texture", 0.6 if self.texture[slot] else 0.08) else []
        return size + (pattern + colour if self.random.random() < 0.6 else colour + pattern)

    def _name(self, slot: int, article: str = "a") -> str:
        words = self._adjectives(slot)
        words.append(self._noun(slot, described=bool(words)))
        if article == "a" and words[0][0] in "aeiou":
            article = "an"
        return " ".join([article, *words])

    def _on(self) -> str:
        if self.ground in (3, 4) and self.random.random() < 0.55:
            return f"on {self._pick('a', 'the')} {'wooden' if self.ground == 3 else 'tiled'} floor"
        word = self._pick(*GROUNDS[self.ground])
        inside = word in ("grass", "sand", "snow") and self.what != "ground" and self.random.random() < 0.35
        return f"{'in' if inside else 'on'} the {word}"

    def _before(self) -> str:
        if self.backdrop < 4:
            return f"under a {BACKDROPS[self.backdrop]}"
        if self.backdrop < 6:
            return f"in front of a {BACKDROPS[self.backdrop]}"
        words = [word for word, value in SCREENS.items() if value == self.backdrop]
        return f"in front of the {self._pick(*words)}"

    def _end(self, sentence: str, ground: float = 0.62, backdrop: float = 0.30) -> str:
        if self.what == "ground" or self.random.random() < ground:
            sentence += " " + self._on()
        # Never "in front of a box in front of a wall".
        twice = self.backdrop >= 4 and "in front of" in sentence
        if self.what == "backdrop" or (self.random.random() < backdrop and not twice):
            sentence += " " + self._before()
        return sentence

    def _several(self) -> list[int]:
        """Objects of the kind that is there more than once."""
        for slot in self.objects:
            alike = [other for other in self.objects if self.kind[other] == self.kind[slot]]
            if len(alike) > 1:
                return alike
        return []

    def _counted(self, many: list[int]) -> str:
        everything = not many or self.random.random() < 0.2
        group = self.objects if everything else many
        words = []
        same = len({self.colour[slot] for slot in group}) == 1
        if same and self.random.random() < 0.7:
            words = [self._pick(*COLOURS[self.colour[group[0]]])]
        number = next(word for word, n in NUMBERS.items() if n == len(group))
        noun = plural(self._pick(*(ANYTHING if everything else NOUNS[self.kind[group[0]]])))
        said = " ".join([number, *words, noun])
        rest = [slot for slot in self.objects if slot not in group]
        if rest and self.random.random() < 0.55:
            said += f" and {self._name(rest[0])}"
        return self._pick("", "there are ", "we see ", "a picture of ") + said

    def _side(self, slot: int) -> str:
        return f"on the {SIDES[self.x[slot] > 0.5]}" + self._pick("", "", " side")

    def _one(self, slot: int) -> str:
        chance = self.random.random()
        if self.what == "side" or chance < 0.12:
            if self.random.random() < 0.5:
                return self._end(f"{self._name(slot)} {self._side(slot)}", ground=0.4)
            return f"{self._side(slot)} there is {self._name(slot)}" if self.random.random() < 0.6 else self._end(
                f"{self._name(slot)} {self._lies(slot)} {self._side(slot)}")
        if chance < 0.24 and self.what != "backdrop":
            return f"{self._on()} {self._lies(slot)} {self._name(slot)}"
        if chance < 0.34:
            return self._predicate(slot)
        if chance < 0.55:
            return f"{self._name(slot)} {self._lies(slot)} {self._place()}"
        return self._end(self._lead() + self._name(slot), ground=0.75)

    def _place(self) -> str:
        return self._end("", ground=1.0).strip()

    def _predicate(self, slot: int) -> str:
        """Return "the ... is ..."."""
        texture = self.what == "texture" or (self.texture[slot] and self.what != "colour" and self.random.random() < 0.5)
        word = self._pick(*TEXTURES[self.texture[slot]]) if texture else self._pick(*COLOURS[self.colour[slot]])
        where = self._on() if self.what == "ground" or self.random.random() < 0.7 else ""
        size = self._pick(*SIZES[self.size[slot]]) if self.what == "size" or self.random.random() < 0.25 else ""
        return self._neat(f"the {size} {self._noun(slot, described=bool(size))} {where} is {word}"
                          + (f" {self._before()}" if self.what == "backdrop" else ""))

    @staticmethod
    def _neat(sentence: str) -> str:
        return " ".join(sentence.split())

    def _two(self, a: int, b: int) -> str:
        chance = self.random.random()
        aside, close = SIDES[self.x[a] > self.x[b]], abs(self.x[a] - self.x[b]) < 0.36
        deep = "in front of" if self.y[a] > self.y[b] else "behind"
        if self.what == "side":
            chance = 0.3 * chance
        beside = f"{self._pick('to the ', 'to the ', '')}{aside} of"
        if chance < 0.24:
            landmark = self._name(b, self._pick("a", "a", "the"))
            return self._end(f"{self._name(a)} {self._lies(a)} {beside} {landmark}", 0.5, 0.2)
        if chance < 0.32 and (self.x[a] > 0.5) != (self.x[b] > 0.5) and self.what != "side":
            return self._end(f"{self._name(a)} {self._side(a)} and {self._name(b)} {self._side(b)}", 0.2, 0.15)
        if chance < 0.40:
            return self._end(f"{beside} {self._name(b, 'the')} {self._lies(a)} {self._name(a)}", 0.4, 0.15)
        if chance < 0.54 and close:
            return self._end(f"{self._name(a)} {self._lies(a)} {deep} {self._name(b, self._pick('a', 'the'))}", 0.5, 0.15)
        if chance < 0.62 and close:
            return self._end(f"{self._name(b)} with {self._name(a)} {deep} it", 0.4, 0.1)
        joint = self._pick("and", "and", "and", "with")
        said = f"{self._lead()}{self._name(a)} {joint} {self._name(b)}"
        return self._end(said)
