"""Draws the symbols of generated conversations: who speaks when, which digits are said, shown and dialled, what is asked.

Conversations come in units of two, four or eight that are alike in everything but what decides. A unit runs through all
values of the parts that its kind says decide, so that whoever lacks one of them is right in exactly half of the unit.
"""

from dataclasses import dataclass, fields

import numpy as np

from crossexplain.data.conversation_seeds import uniform
from crossexplain.data.conversation_words import FORMS, MODALITIES, NAMES, TASKS, question_words

T = 8  # most turns
ONLY, FIRST, SECOND, LAST, TURN, BEFORE = range(len(FORMS))
PRESENT = 0.4  # of the turns, in each modality, hold a digit that nobody asks for
ASKED_BEFORE = 0.5  # of second references ask for the number before the first one, where parties and turns allow it
MISSING = 0.1  # of those turns that hold no digit in a modality lack it altogether
_PAIRS = ((0, 1), (0, 2), (1, 2))
KIND_MODALITIES = (
    {name: (name,) for name in MODALITIES}
    | {f"{MODALITIES[a]} and {MODALITIES[b]}": (MODALITIES[a], MODALITIES[b]) for a, b in _PAIRS}
    | {name: MODALITIES for name in ("parity", "redundant", "added")}
    | {f"{what} by {name}": (name,) for what in ("who", "order") for name in MODALITIES}
)
KINDS = tuple(KIND_MODALITIES)
UNIT = 8  # a multiple of every unit


@dataclass
class Symbols:
    """Conversations as symbols, N of them; -1 stands for none.

    Attributes
    ----------
    party : ndarray, shape (N, T), int64
        Number of the name of who speaks, from 1; 0 where there is no turn.
    digits : ndarray, shape (N, T, 3), int64
        Said, shown and dialled, in the order of ``MODALITIES``.
    given : ndarray, shape (N, T, 3), bool
        Which modalities a turn has at all.
    seeds : ndarray, shape (N, T), int64
        Of what a turn looks and sounds like; it goes where the turn goes.
    task, flipped, threshold : ndarray, shape (N,)
        What is asked, as for :func:`~crossexplain.data.conversation_words.question_words`.
    references : ndarray, shape (N, 3, 3), int64
        Of each reference modality, form and turn.
    question : ndarray, shape (N, Q), int64
    kind, unit : ndarray, shape (N,), int64
        Index into ``KINDS``; equal numbers are of one unit.
    """

    party: np.ndarray
    digits: np.ndarray
    given: np.ndarray
    seeds: np.ndarray
    task: np.ndarray
    flipped: np.ndarray
    threshold: np.ndarray
    references: np.ndarray
    question: np.ndarray
    kind: np.ndarray
    unit: np.ndarray


def draw(n: int, kinds: tuple[str, ...], turns: int | None, rng: np.random.Generator) -> Symbols:
    """Draw ``n`` conversations, as many of each kind; n a multiple of ``UNIT * len(kinds)``. The kinds take turns."""
    each = n // len(kinds)
    drawn = [_of_kind(kind, each, turns, rng) for kind in kinds]
    order = np.arange(n).reshape(len(kinds), each // UNIT, UNIT).swapaxes(0, 1).ravel()
    for i, one in enumerate(drawn):
        one.unit += n * i
    together = {field.name: np.concatenate([getattr(one, field.name) for one in drawn])[order] for field in fields(Symbols)}
    return Symbols(**together)


def answer(task: np.ndarray, flipped: np.ndarray, threshold: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the answers (N,) to questions about digits (N, 3), -1 where a question names fewer: what each task means."""
    given = values >= 0
    total, first, second = np.where(given, values, 0).sum(axis=1), values[:, 0], values[:, 1]
    left = np.select([task == TASKS.index(name) for name in ("more", "total")], [second, threshold], threshold)
    right = np.where(flipped, values.max(axis=1), np.where(given, values, 10).min(axis=1))  # above: all that are named
    right = np.select([task == TASKS.index(name) for name in ("more", "total")], [first, total], right)
    ordered = np.where(flipped, right < left, right > left)
    same, even = (first == second) != flipped, (total % 2 == 0) != flipped
    return np.select([task == TASKS.index("same"), task == TASKS.index("parity")], [same, even], ordered)


def values_of(digits: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the digits (N, 3) at the modality and turn of each reference, -1 where there is none."""
    modality, turn = references[:, :, 0], references[:, :, 2]
    found = digits[np.arange(len(digits))[:, None], turn, modality]
    return np.where(modality >= 0, found, -1)


def _of_kind(kind: str, n: int, turns: int | None, rng: np.random.Generator) -> Symbols:
    head, *rest = kind.split(" by ")
    modality = [MODALITIES.index(name) for name in KIND_MODALITIES[kind]]
    unit = 8 if kind == "parity" else 2 if head in (*MODALITIES, "redundant", "added") else 4
    base = _Base(n // unit, turns, rng)
    if head in ("who", "order"):
        getattr(base, head)(modality[0])
    elif len(modality) == 3:
        base.triple("redundant" == kind)
    else:
        for i, m in enumerate(modality):
            base.refer(i, m)
    return base.unfold(kind, unit)


class _Base:
    """One conversation of each unit, B of them, and how the others of the unit differ."""

    def __init__(self, n: int, turns: int | None, rng: np.random.Generator):
        self.rng, self.rows, self.at = rng, np.arange(n), np.arange(T)
        self.length = rng.integers(4, T + 1, n) if turns is None else np.full(n, turns)
        self.here = self.at < self.length[:, None]
        parties = np.minimum(rng.integers(2, 5, n), self.length - 1)[:, None]  # one of them speaks twice
        seat = np.where(self.at < parties, self.at, rng.integers(0, parties, (n, T)))
        shuffled = np.argsort(np.where(self.here, rng.random((n, T)), 1 + self.at), axis=1)
        names = 1 + np.argsort(rng.random((n, len(NAMES))), axis=1)
        self.party = np.take_along_axis(names, np.take_along_axis(seat, shuffled, 1), 1) * self.here
        present = (rng.random((n, T, 3)) < PRESENT) & self.here[:, :, None]
        self.digits = np.where(present, rng.integers(0, 10, (n, T, 3)), -1)
        self.seeds = rng.integers(0, 2**62, (n, T))
        self.references = np.tile(np.array([-1, 0, 0]), (n, 3, 1))

    def choose(self, allowed: np.ndarray) -> np.ndarray:
        """Return one allowed turn of each conversation, (B,)."""
        turns: np.ndarray = np.where(allowed, self.rng.random(allowed.shape), -1).argmax(axis=1)
        return turns

    def own(self, turn: np.ndarray) -> np.ndarray:
        """Return all turns (B, T) of the party that speaks at a turn (B,)."""
        own: np.ndarray = self.party == self.party[self.rows, turn][:, None]
        return own

    def refer(self, i: int, modality: int) -> None:
        """Draw the turn and the form of reference ``i``, and see to it that it names this turn and no other."""
        it = self.references[:, 0, 2, None]  # (B, 1), the turn of the first reference
        allowed = self.nearable(it) & (i > 0)
        anchored = allowed.any(axis=1) & (self.rng.random(len(it)) < ASKED_BEFORE)
        turn = np.where(anchored, self.choose(allowed), self.choose(self.here))
        before, after = (self.own(turn) & side for side in (self.at < turn[:, None], self.at > turn[:, None]))
        form = self.rng.choice([ONLY, FIRST, SECOND, LAST, TURN], len(turn), p=[0.25, 0.15, 0.15, 0.15, 0.3])
        form = np.where((form == FIRST) & ~after.any(1) | np.isin(form, (SECOND, LAST)) & ~before.any(1), ONLY, form)
        form = np.where(anchored, BEFORE, form)
        only, first, second, last, near = (form[:, None] == one for one in (ONLY, FIRST, SECOND, LAST, BEFORE))
        later, earlier = after & (first | near & (self.at > it)), before & (second | last | near)  # where foils may be
        self.clear(before & (only | first | second) | after & (only | second | last | near & ~later), modality)
        for foils in (later, earlier):
            rows, foil = np.flatnonzero(foils.any(axis=1)), self.choose(foils)
            self.digits[rows, foil[rows], modality] = self.rng.integers(0, 10, len(rows))
        self.references[:, i] = np.stack([np.full_like(turn, modality), form, turn], axis=1)

    def nearable(self, it: np.ndarray) -> np.ndarray:
        """Return turns (B, T) before ``it`` of a party that speaks after it too, and before them too if any does."""
        alike = self.party[:, :, None] == self.party[:, None]  # (B, T, T), turns of one party
        some = (self.at < it) & (alike & (self.at > it)[:, None]).any(axis=2)
        third = some & (alike & (self.at < self.at[:, None])).any(axis=2)
        nearable: np.ndarray = np.where(third.any(axis=1, keepdims=True), third, some)
        return nearable

    def clear(self, where: np.ndarray, modality: int) -> None:
        self.digits[:, :, modality][where] = -1

    def triple(self, redundant: bool) -> None:
        """Refer to all three modalities: of one turn, or of one party, whose other digits go."""
        turn, form = self.choose(self.here), self.rng.choice([ONLY, TURN], len(self.rows))
        own = self.own(turn)
        for m in range(3):
            self.clear(own & (form == ONLY)[:, None], m)
            place = np.where((form == TURN) | redundant, turn, self.choose(own))
            self.references[:, m] = np.stack([np.full_like(turn, m), form, place], axis=1)

    def who(self, modality: int) -> None:
        """Refer to the only digit of each of two parties."""
        one = self.choose(self.here)
        other = self.choose(self.here & ~self.own(one))
        self.clear(self.own(one) | self.own(other), modality)
        for i, turn in enumerate((one, other)):
            self.references[:, i] = np.stack([np.full_like(turn, modality), np.full_like(turn, ONLY), turn], axis=1)

    def order(self, modality: int) -> None:
        """Refer to an earlier and a later digit of a party, in either order; the later one with the one before it too."""
        often = (self.party[:, :, None] == self.party[:, None]).sum(axis=2) > 1
        turn = self.choose(self.here & often)
        other = self.choose(self.own(turn) & (self.at != turn[:, None]))
        self.clear(self.own(turn), modality)
        late, forms = self.rng.random(len(turn)) < 0.5, self.rng.choice([SECOND, LAST], len(turn))
        near, early = late & (self.rng.random(len(turn)) < ASKED_BEFORE), np.minimum(turn, other)
        for i in range(2):
            form = np.where(late == bool(i), np.where(near, BEFORE, FIRST), forms)
            place = np.where(late == bool(i), early, np.maximum(turn, other))
            self.references[:, i] = np.stack([np.full_like(turn, modality), form, place], axis=1)
        earlier = self.own(turn) & (self.at < early[:, None])
        rows = np.flatnonzero(near & (forms == LAST) & earlier.any(axis=1))
        self.digits[rows, self.choose(earlier)[rows], modality] = self.rng.integers(0, 10, len(rows))

    def unfold(self, kind: str, unit: int) -> Symbols:
        """Return the units: member k of a unit has bit i of k in the place of its i-th deciding part."""
        head, n, rng = kind.split(" by ")[0], len(self.rows), self.rng
        task = {"who": "more", "order": "more", "parity": "parity", "added": "total"}.get(head, "same")
        task = "above" if head in (*MODALITIES, "redundant") else task
        threshold, choices = _choices(task, kind == "redundant", n, rng)  # (n,), (n, 3, 2)
        flipped, party = rng.random(n) < 0.5, self.party[self.rows[:, None], self.references[:, :, 2]]
        question = question_words(np.full(n, TASKS.index(task)), flipped, threshold, self.references, party, rng)
        member, row = np.tile(np.arange(unit), n), np.repeat(self.rows, unit)
        digits, references = self.digits[row], self.references[row]
        party, seeds, every = self.party[row], self.seeds[row], np.arange(n * unit)
        exchanged = np.flatnonzero(member & 2) if task == "more" else every[:0]
        for i in range(3):
            bit = member >> i & 1 if task in ("same", "parity") else member & 1
            named = references[:, i, 0] >= 0
            digits[every[named], references[named, i, 2], references[named, i, 0]] = choices[row, i, bit][named]
        one, other = references[exchanged, 0, 2], references[exchanged, 1, 2]
        for what in (party,) if head == "who" else (digits, seeds) if head == "order" else ():
            what[exchanged, one], what[exchanged, other] = what[exchanged, other], what[exchanged, one]
        if head == "who":  # what anna said stands where ben had said it
            references[exchanged, 0, 2], references[exchanged, 1, 2] = other, one
        missing = np.stack([uniform(seeds, 40 + i) for i in range(3)], axis=2) < MISSING
        given = (digits >= 0) | ~missing & (party > 0)[:, :, None]
        return Symbols(party, digits, given, seeds, np.full(n * unit, TASKS.index(task)), flipped[row], threshold[row],
                       references, question[row], np.full(n * unit, KINDS.index(kind)), row)


def _choices(task: str, redundant: bool, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return thresholds (n,), and the two digits (n, 3, 2) that each of up to three references can take."""
    threshold = rng.integers(2, 8, n)
    if task == "above":
        high, low = rng.integers(threshold + 1, 10), rng.integers(0, threshold)
        return threshold, np.repeat(np.stack([high, low], axis=1)[:, None], 3, axis=1)
    if task == "parity":
        pair = 2 * rng.integers(0, 5, (n, 3, 2)) + np.array([0, 1])
        swap = rng.random((n, 3, 1)) < 0.5
        return threshold, np.where(swap, pair[:, :, ::-1], pair)
    if task == "total":
        return _sums(n, rng)
    one = rng.integers(0, 10, n)
    pair = np.stack([one, (one + rng.integers(1, 10, n)) % 10], axis=1)  # (n, 2), two different digits
    second = pair[:, ::-1] if task == "more" else pair
    return threshold, np.stack([pair, second, pair], axis=1)


def _sums(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return thresholds from 11 to 16 and three digits whose sum lies above, and three whose sum lies below, by 2 to 8."""
    triples = np.stack(np.unravel_index(np.arange(1000), (10, 10, 10)), axis=1)
    threshold, choices = rng.integers(11, 17, n), np.empty((n, 3, 2), dtype=np.int64)
    for value in range(11, 17):
        rows = np.flatnonzero(threshold == value)
        for side, sign in enumerate((1, -1)):
            distance = sign * (triples.sum(axis=1) - value)
            fit = triples[(distance >= 2) & (distance <= 8)]
            choices[rows, :, side] = fit[rng.integers(0, len(fit), len(rows))]
    return threshold, choices
