"""Captions of scenes: a writer of true ones, and foils, which are captions with one word changed."""

from random import Random

import numpy as np

from crossexplain.data import scene_words as lexicon
from crossexplain.data.scene_words import Facts, cues, holds, plural

# The words that replace each other where twins differ in sides or in a number.
OPPOSITE = {"left": "right", "right": "left", "two": "three", "three": "two"}


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

    def __init__(self, facts: Facts, random: Random, focus: tuple[str | None, int | None] = (None, None)) -> None:
        self.random = random
        self.values: dict[str, list[int]] = {name: facts.values(name)[0].tolist() for name in lexicon.WORDS_FOR}
        self.kind, self.colour, self.texture, self.size = self.values.values()
        self.x, self.y = facts.x[0].tolist(), facts.y[0].tolist()
        self.ground, self.backdrop = int(facts.ground[0]), int(facts.backdrop[0])
        self.objects = [slot for slot in range(lexicon.SLOTS) if self.kind[slot] >= 0]
        self.attribute, self.object = focus

    def caption(self) -> str:
        """Return one caption."""
        chance = self.random.random()
        alike = self._alike()
        if self.attribute == "count" or (alike and self.attribute in (None, "ground", "backdrop") and chance < 0.55):
            return self._end(self._counted(alike))
        order = self.objects[:]
        self.random.shuffle(order)
        order.sort(key=lambda slot: slot != self.object)  # that one first, the others as they are
        n = self.random.choices((1, 2, 3), (0.30, 0.5, 0.20))[0]
        if self.attribute == "side" and self.random.random() < 0.7:
            n = max(n, 2)
        named = order[:n]
        if len(named) == 1:
            return self._one(named[0])
        self.random.shuffle(named)
        if len(named) == 2:
            return self._two(*named)
        a, b, c = (self._name(slot) for slot in named)
        return self._end(f"{self._lead()}{a} , {b} and {c}")

    def phrase(self, mixed: bool = False) -> str:
        """Return a short caption that says one or two things, each of them as often as any other.

        Mixed, it says two things as if they held of one object, though each is taken from another: "a red ball" of a red box
        and a blue ball. Of most pictures with several objects that is false, although they hold all that it names.
        """
        names = ["size", "texture", "colour", "noun", "side"]
        said = names if mixed else [*names, "ground", "backdrop"]
        chosen = self.random.sample(said, 2 if mixed else self.random.choice((1, 2)))
        slots = self.random.sample(self.objects, 2) if mixed and len(self.objects) > 1 else [self.random.choice(self.objects)]
        whom = {name: slots[chosen.index(name) % len(slots)] for name in chosen if name in names}
        words = [self._word(name, whom[name]) for name in ("size", "texture", "colour") if name in chosen]
        words.append(self._word("noun", whom["noun"]) if "noun" in chosen else self._pick(*lexicon.ANYTHING))
        places = [self._side(whom["side"]) if name == "side" else self._on() if name == "ground" else self._before()
                  for name in ("side", "ground", "backdrop") if name in chosen]
        return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, *places])

    def _pick(self, *words: str) -> str:
        return self.random.choice(words)

    def _word(self, name: str, slot: int) -> str:
        """Return a word for an attribute of an object."""
        return self._pick(*lexicon.WORDS_FOR[name][self.values[name][slot]])

    def _lead(self) -> str:
        return self._pick("", "", "", "there is ", "we see ", "a picture of ", "a photo of ")

    def _lies(self, slot: int) -> str:
        """Return what a thing does: what is taller than wide, or has feet, stands."""
        lying = lexicon.KINDS[self.kind[slot]] in lexicon.LYING
        return self._pick("is", "sits", *(("lies", "rests") if lying else ("stands", "stands")))

    def _noun(self, slot: int, described: bool) -> str:
        """Return a noun, now and then a vague one if there are adjectives that say more."""
        vague = described and self.random.random() < 0.08 and not (self.attribute == "noun" and slot == self.object)
        return self._pick(*lexicon.ANYTHING) if vague else self._word("noun", slot)

    def _adjectives(self, slot: int) -> list[str]:
        def wanted(name: str, chance: float) -> bool:
            return self.attribute == name and slot == self.object or self.random.random() < chance

        size = [self._word("size", slot)] if wanted("size", 0.38) else []
        colour = [self._word("colour", slot)] if wanted("colour", 0.82) else []
        pattern = [self._word("texture", slot)] if wanted("texture", 0.6 if self.texture[slot] else 0.08) else []
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
        word = self._pick(*lexicon.GROUNDS[self.ground])
        inside = word in ("grass", "sand", "snow") and self.attribute != "ground" and self.random.random() < 0.35
        return f"{'in' if inside else 'on'} the {word}"

    def _before(self) -> str:
        if self.backdrop < 4:
            return f"under a {lexicon.BACKDROPS[self.backdrop]}"
        if self.backdrop < 6:
            return f"in front of a {lexicon.BACKDROPS[self.backdrop]}"
        words = [word for word, value in lexicon.SCREENS.items() if value == self.backdrop]
        return f"in front of the {self._pick(*words)}"

    def _end(self, sentence: str, ground: float = 0.62, backdrop: float = 0.30) -> str:
        if self.attribute == "ground" or self.random.random() < ground:
            sentence += " " + self._on()
        # Never "in front of a box in front of a wall".
        twice = self.backdrop >= 4 and "in front of" in sentence
        if self.attribute == "backdrop" or (self.random.random() < backdrop and not twice):
            sentence += " " + self._before()
        return sentence

    def _alike(self) -> list[int]:
        """Return the objects of a kind that the scene holds more than once."""
        for slot in self.objects:
            alike = [other for other in self.objects if self.kind[other] == self.kind[slot]]
            if len(alike) > 1:
                return alike
        return []

    def _counted(self, alike: list[int]) -> str:
        everything = not alike or self.random.random() < 0.2
        group = self.objects if everything else alike
        words = [next(word for word, n in lexicon.NUMBERS.items() if n == len(group))]
        if len({self.colour[slot] for slot in group}) == 1 and self.random.random() < 0.7:
            words.append(self._word("colour", group[0]))
        words.append(plural(self._pick(*lexicon.ANYTHING) if everything else self._word("noun", group[0])))
        rest = [slot for slot in self.objects if slot not in group]
        if rest and self.random.random() < 0.55:
            words += ["and", self._name(rest[0])]
        return self._pick("", "there are ", "we see ", "a picture of ") + " ".join(words)

    def _side(self, slot: int) -> str:
        return f"on the {lexicon.SIDES[self.x[slot] > 0.5]}" + self._pick("", "", " side")

    def _one(self, slot: int) -> str:
        chance = self.random.random()
        if self.attribute == "side" or chance < 0.12:
            if self.random.random() < 0.5:
                return self._end(f"{self._name(slot)} {self._side(slot)}", ground=0.4)
            return f"{self._side(slot)} there is {self._name(slot)}" if self.random.random() < 0.6 else self._end(
                f"{self._name(slot)} {self._lies(slot)} {self._side(slot)}")
        if chance < 0.24 and self.attribute != "backdrop":
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
        patterned = self.texture[slot] and self.attribute != "colour"
        texture = self.attribute == "texture" or (patterned and self.random.random() < 0.5)
        word = self._word("texture" if texture else "colour", slot)
        where = self._on() if self.attribute == "ground" or self.random.random() < 0.7 else ""
        size = self._word("size", slot) if self.attribute == "size" or self.random.random() < 0.25 else ""
        sentence = f"the {size} {self._noun(slot, described=bool(size))} {where} is {word}"
        return " ".join((f"{sentence} {self._before()}" if self.attribute == "backdrop" else sentence).split())

    def _two(self, a: int, b: int) -> str:
        chance = self.random.random()
        aside, close = lexicon.SIDES[self.x[a] > self.x[b]], abs(self.x[a] - self.x[b]) < 0.36
        deep = "in front of" if self.y[a] > self.y[b] else "behind"
        if self.attribute == "side":
            chance = 0.3 * chance
        beside = f"{self._pick('to the ', 'to the ', '')}{aside} of"
        if chance < 0.24:
            landmark = self._name(b, self._pick("a", "a", "the"))
            return self._end(f"{self._name(a)} {self._lies(a)} {beside} {landmark}", 0.5, 0.2)
        if chance < 0.32 and (self.x[a] > 0.5) != (self.x[b] > 0.5) and self.attribute != "side":
            return self._end(f"{self._name(a)} {self._side(a)} and {self._name(b)} {self._side(b)}", 0.2, 0.15)
        if chance < 0.40:
            return self._end(f"{beside} {self._name(b, 'the')} {self._lies(a)} {self._name(a)}", 0.4, 0.15)
        if chance < 0.54 and close:
            return self._end(f"{self._name(a)} {self._lies(a)} {deep} {self._name(b, self._pick('a', 'the'))}", 0.5, 0.15)
        if chance < 0.62 and close:
            return self._end(f"{self._name(b)} with {self._name(a)} {deep} it", 0.4, 0.1)
        joint = self._pick("and", "and", "and", "with")
        return self._end(f"{self._lead()}{self._name(a)} {joint} {self._name(b)}")


def difference(one: Facts, other: Facts) -> tuple[str, int | None]:
    """Return what two twins differ in, one of ``CHANGES``, and in which object (None: in none of them alone)."""
    if (one.kind[0] >= 0).sum() != (other.kind[0] >= 0).sum():
        return "count", None
    for name in ("ground", "backdrop"):
        if getattr(one, name)[0] != getattr(other, name)[0]:
            return name, None
    present = one.kind[0] >= 0
    for name in lexicon.WORDS_FOR:
        differ = np.flatnonzero(present & (one.values(name)[0] != other.values(name)[0]))
        if len(differ):
            return name, int(differ[0])
    return "side", None


def foil(one: Facts, other: Facts, random: Random) -> tuple[str, str, int, str, tuple[tuple[int, ...], ...]] | None:
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

    None if forty captions have no such word.
    """
    what, slot = difference(one, other)
    writer = Writer(one, random, (what, slot))
    for _ in range(40):
        a = writer.caption()
        for place in [place for place, name, _ in cues(one, a) if name == what or (what == "side" and name == "relation")]:
            b = _swap(a, place, what, slot, other, random)
            if b is None or b == a or holds(other, a)[0] or holds(one, b)[0] or not holds(other, b)[0]:
                continue
            if slot is not None:  # no matter who else might fit, this one decides
                return a, b, place, what, ((slot,), (slot,))
            objects = ({p: objects for p, _, objects in cues(facts, text)}[place] for facts, text in ((one, a), (other, b)))
            return a, b, place, what, tuple(objects)
    return None


def _swap(caption: str, place: int, what: str, slot: int | None, other: Facts, random: Random) -> str | None:
    """Put the other twin's word in the place of a word; None where no single word will do."""
    words = caption.split()
    word = words[place]
    if what in ("side", "count"):
        choice = [OPPOSITE[word]] if word in OPPOSITE else []
    else:
        value = other.values(what)[0] if slot is None else other.values(what)[0, slot]
        table = next(table for table in lexicon.TABLES[what] if word in table)  # of the words that fit into this place
        choice = [fitting for fitting, meaning in table.items() if meaning == value]
    if not choice:
        return None
    words[place] = random.choice(choice)
    return " ".join(words)
