"""Generated conversations with a question about them, and the truth about what decides: which turn, which part of it, who.

In a conversation two to four parties speak in four to eight turns. In each turn a party says something, a short video is
seen and a sound is heard; in some of them a digit is said, shown (handwritten) or dialled (as its two tones, or by a real
voice). A question in words says which digits count: "was the second number that ben showed the same as the number that mia
said before it". Two modalities are asked for the same digit, never for the larger one: the largest digit is larger than most,
so either digit alone would tell something. "Larger" is asked within a modality, where who gave the digits, or when, decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import voices
from crossexplain.data.conversation_draws import KIND_MODALITIES, KINDS, UNIT, Symbols, T, answer, draw, values_of
from crossexplain.data.conversation_frames import SIDE, Frames, K, frame_counts, frames_with_digit
from crossexplain.data.conversation_sounds import MELS, STEPS, S, Sounds, segment_of_digit
from crossexplain.data.conversation_truth import DIGIT, ConversationQuestion, Reference, Turn, places_of, truth
from crossexplain.data.conversation_words import (
    FIRST_NUMBER,
    FORMS,
    MODALITIES,
    NAMES,
    TASKS,
    VOCABULARY,
    L,
    Q,
    decode,
    question_words,
    turn_words,
)
from crossexplain.data.examples import SPLITS, Examples, Indices, require_multiple
from crossexplain.data.vocabulary import nearest

__all__ = ["KINDS", "KIND_MODALITIES", "MODALITIES", "NAMES", "VOCABULARY", "MELS", "SIDE", "STEPS", "K", "L", "Q", "S", "T",
           "Batch", "Conversations", "ConversationQuestion", "Reference", "Truth", "Turn", "load", "places_of", "truth"]
SOURCES = ("embedded", "fsdd")
WIDTH = {"words": L, "frames": K, "sound": S}  # features of a turn, by modality


@dataclass(frozen=True)
class Truth:
    """What decides each of N conversations.

    Attributes
    ----------
    turns : ndarray, shape (N, T), bool
    cells : ndarray, shape (N, T, 3), bool
        Turns by modality.
    chunks : dict of str to ndarray, shape (N, F), bool
        Features of each modality that hold a deciding digit: words of the phrase, frames, segments of the sound.
    words : ndarray, shape (N, T * L), bool
        The deciding words themselves.
    parties : ndarray, shape (N, len(NAMES)), bool
    modalities : ndarray, shape (N, 3), bool
    """

    turns: np.ndarray
    cells: np.ndarray
    chunks: dict[str, np.ndarray]
    words: np.ndarray
    parties: np.ndarray
    modalities: np.ndarray


@dataclass
class Batch(Symbols, Examples):
    """N conversations with a question each, with label and truth; frames and sound are drawn when asked for.

    Beside what follows it has all of :class:`~crossexplain.data.conversation_draws.Symbols`.

    Attributes
    ----------
    labels : ndarray, shape (N,), bool
        True where the answer is yes.
    frames_of, sounds_of : Frames, Sounds
        What frames and sound are drawn from.
    """

    labels: np.ndarray
    frames_of: Frames
    sounds_of: Sounds
    common = ("frames_of", "sounds_of")

    @property
    def kinds(self) -> np.ndarray:
        """The kind of each conversation, (N,), str."""
        kinds: np.ndarray = np.array(KINDS)[self.kind]
        return kinds

    def inputs(self, indices: Indices = slice(None)) -> dict[str, Tensor]:
        """Return what a model takes by keyword.

        Returns
        -------
        dict of str to Tensor
            ``question`` (N, Q) and ``words`` (N, T * L), int64, 0 after the last word; ``party`` (N, T), int64, the number
            of a name, 0 where there is no turn; ``frames`` (N, T * K, SIDE * SIDE) and ``sound`` (N, T * S, MELS * STEPS),
            float32, with ``frames_present`` and ``sound_present``, bool.
        """
        some = self.select(indices)
        n, present = len(some), some._present()
        frames = np.zeros((n * T, K, SIDE, SIDE), dtype=np.float32)
        sound = np.zeros((n * T, S, MELS, STEPS), dtype=np.float32)
        party, seeds = some.party.ravel(), some.seeds.ravel()
        digits, given = some.digits.reshape(-1, 3), some.given.reshape(-1, 3)
        seen, heard = (np.flatnonzero(given[:, i]) for i in (1, 2))
        frames[seen] = self.frames_of.draw(digits[seen, 1], seeds[seen])
        sound[heard] = self.sounds_of.draw(party[heard] - 1, digits[heard, 2], seeds[heard])
        frames[~present["frames"].reshape(n * T, K)] = 0
        arrays = {
            "question": some.question, "party": some.party, "words": some.said[0],
            "frames": frames.reshape(n, T * K, -1), "frames_present": present["frames"],
            "sound": sound.reshape(n, T * S, -1), "sound_present": present["sound"],
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def emptied(self) -> "Batch":
        """Return the same conversations with no digit in them: small talk, clutter and noise where there was one."""
        return replace(self, digits=np.full_like(self.digits, -1))

    @property
    def said(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the words (N, T * L), and of which phrase of its turn each is, -1 for none."""
        words, phrase = turn_words(self.digits[:, :, 0].ravel(), self.seeds.ravel())
        given = self.given[:, :, 0].reshape(-1, 1)
        shape = (len(self), T * L)
        return np.where(given, words, 0).reshape(shape), np.where(given, phrase, -1).reshape(shape)

    def _present(self) -> dict[str, np.ndarray]:
        """Return which features of each modality there are, (N, F), bool."""
        n, (words, _) = len(self), self.said
        frames = (np.arange(K) < frame_counts(self.seeds)[:, :, None]) & self.given[:, :, 1, None]
        return {"words": words > 0, "frames": frames.reshape(n, -1), "sound": self.given[:, :, 2].repeat(S, axis=1)}

    def groups(self, by: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
        """Return the names of groups of features, and by modality the number of the group of each feature.

        Parameters
        ----------
        by : {"turn", "party", "chunk"}
            A chunk is a phrase, a frame or a segment of the sound.

        Returns
        -------
        names : tuple of str
        owner : dict of str to Tensor, shape (N, F), int64
            -1 where there is no such feature.

        Raises
        ------
        InputError
            For another ``by``.
        """
        require_one_of(by, ("turn", "party", "chunk"), "what features are grouped by")
        if by == "chunk":
            names = [f"{what} {i + 1} of turn {turn + 1}" for what, many in (("phrase", 2), ("frame", K), ("segment", S))
                     for turn in range(T) for i in range(many)]
            words = 2 * np.arange(T).repeat(L) + self.said[1]
            owner = {"words": words, "frames": 2 * T + np.arange(T * K), "sound": (2 + K) * T + np.arange(T * S)}
        else:
            names = [f"turn {turn + 1}" for turn in range(T)] if by == "turn" else list(NAMES)
            each = np.arange(T) if by == "turn" else self.party - 1
            owner = {name: each.repeat(width, axis=-1) for name, width in WIDTH.items()}
        owner = {name: np.where(present, owner[name], -1) for name, present in self._present().items()}
        return tuple(names), {name: torch.from_numpy(numbers) for name, numbers in owner.items()}

    @cached_property
    def truth(self) -> Truth:
        """What decides each conversation."""
        n, every = len(self), np.arange(len(self))
        cells = np.zeros((n, T, 3), dtype=bool)
        for modality, _, turn in self.references.swapaxes(0, 1).swapaxes(1, 2):
            named = modality >= 0
            cells[every[named], turn[named], modality[named]] = True
        holding = self._holding()
        chunks = {name: holding[name] & cells[:, :, i].repeat(WIDTH[name], axis=1) for i, name in enumerate(MODALITIES)}
        turns, modalities = np.asarray(cells.any(axis=2)), np.asarray(cells.any(axis=1))
        parties = np.stack([(turns & (self.party == 1 + i)).any(axis=1) for i in range(len(NAMES))], axis=1)
        return Truth(turns, cells, chunks, chunks["words"] & self._number_words(), parties, modalities)

    def _number_words(self) -> np.ndarray:
        digits = np.where(self.digits[:, :, 0] < 0, -99, self.digits[:, :, 0]).repeat(L, axis=1)
        return np.asarray(self.said[0] == FIRST_NUMBER + digits)

    def _holding(self) -> dict[str, np.ndarray]:
        """Return which features hold a digit: words of the claiming phrase, frames, segments, (N, F), bool."""
        n, (_, phrase), number = len(self), self.said, self._number_words()
        claiming = np.where(number, phrase, -1).reshape(n, T, L).max(axis=2).repeat(L, axis=1)
        frames = frames_with_digit(self.digits[:, :, 1], self.seeds)
        sound = (np.arange(S) == segment_of_digit(self.seeds)[:, :, None]) & (self.digits[:, :, 2, None] >= 0)
        return {"words": (claiming >= 0) & (phrase == claiming), "frames": frames.reshape(n, -1), "sound": sound.reshape(n, -1)}

    def turns(self, i: int) -> list[Turn]:
        """Return the turns of one conversation."""
        one = self.select([i])
        words, holding = one.said[0].reshape(T, L), one._holding()
        places = {name: holding[name].reshape(T, -1) for name in MODALITIES}
        said, shown, dialled = ([None if digit < 0 else int(digit) for digit in digits] for digits in one.digits[0].T)
        return [Turn(NAMES[party - 1], said[t], shown[t], dialled[t],
                     tuple(name for name, given in zip(MODALITIES, one.given[0, t]) if not given), decode(words[t]),
                     {name: tuple(np.flatnonzero(places[name][t]).tolist()) for name in MODALITIES})
                for t, party in enumerate(one.party[0]) if party]

    def question_of(self, i: int) -> ConversationQuestion:
        """Return the question about one conversation."""
        references = tuple(
            Reference(MODALITIES[m], None if FORMS[form] == "turn" else NAMES[self.party[i, turn] - 1], FORMS[form],
                      int(turn) if FORMS[form] == "turn" else None)
            for m, form, turn in self.references[i] if m >= 0)
        return ConversationQuestion(TASKS[self.task[i]], references, bool(self.flipped[i]), int(self.threshold[i]),
                        decode(self.question[i]))


@dataclass(frozen=True)
class Conversations:
    """Generates conversations from digits and voices, of which no two parts share one.

    Attributes
    ----------
    source : str
        One of ``SOURCES``.
    """

    source: str

    def build(self, split: str, n: int, seed: int, kinds: Sequence[str] | None = None, turns: int | None = None) -> Batch:
        """Build conversations with a question each.

        Units of two, four or eight conversations follow each other that are alike in all but what decides, half of them with
        the answer yes: whoever lacks a modality that decides is right in exactly half of them. The kinds take turns.

        Parameters
        ----------
        split : {"train", "validation", "test"}
        n : int
            A multiple of 8 times the number of kinds.
        seed : int
        kinds : sequence of str, optional
            Some of ``KINDS``; default all.
        turns : int, optional
            How many turns each conversation has, 3 to 8; default 4 to 8, drawn.

        Returns
        -------
        Batch

        Raises
        ------
        InputError
            For an unknown part or kind, and other numbers.
        """
        require_one_of(split, SPLITS, "the split")
        kinds = KINDS if kinds is None else tuple([kinds] if isinstance(kinds, str) else kinds)
        for kind in kinds:
            require_one_of(kind, KINDS, "the kind")
        require_multiple(n, UNIT * len(kinds), "conversations", f"{UNIT} of each of {len(kinds)} kinds")
        if turns is not None and turns not in range(3, T + 1):
            raise InputError(f"got turns={turns}, expected a whole number from 3 to {T}, or None for 4 to {T}.")
        return self._batch(draw(n, kinds, turns, np.random.default_rng([seed, *split.encode()])), split)

    def of(self, conversations: Sequence[Sequence[Turn]], questions: Sequence[ConversationQuestion], split: str = "test",
           seed: int = 0) -> Batch:
        """Build conversations of your own: with one turn, one party, without a modality.

        Parameters
        ----------
        conversations : sequence of N sequences of Turn
            Of a turn only the party, the digits and what it is without are used.
        questions : sequence of N ConversationQuestion
            About one, two or three numbers.
        split : {"train", "validation", "test"}
        seed : int

        Returns
        -------
        Batch
            Each is of the first kind, whatever it asks.

        Raises
        ------
        InputError
            For no turn and more than ``T``, an unknown party or modality, a digit outside 0 to 9 or in a modality that the
            turn is without, and a question that cannot be answered.
        """
        require_one_of(split, SPLITS, "the split")
        if len(conversations) != len(questions) or not questions:
            raise InputError(f"got {len(conversations)} conversations and {len(questions)} questions, expected one question "
                             "for each of at least one conversation.")
        n, rng = len(questions), np.random.default_rng(seed)
        party, digits, given = np.zeros((n, T), int), np.full((n, T, 3), -1), np.zeros((n, T, 3), bool)
        references = np.tile(np.array([-1, 0, 0]), (n, 3, 1))
        for i, (turns, question) in enumerate(zip(conversations, questions)):
            if not 1 <= len(turns) <= T:
                raise InputError(f"conversation {i} has {len(turns)} turns, expected 1 to {T}; cut a longer one into pieces.")
            for t, turn in enumerate(turns):
                party[i, t], digits[i, t], given[i, t] = _read(turn)
            truth(turns, question)
            for j, (place, one) in enumerate(zip(places_of(turns, question.references), question.references)):
                references[i, j] = MODALITIES.index(one.modality), FORMS.index(one.form), place
        task = np.array([TASKS.index(question.task) for question in questions])
        flipped = np.array([question.flipped for question in questions])
        threshold = np.array([question.threshold for question in questions])
        named = party[np.arange(n)[:, None], references[:, :, 2]]
        asked = question_words(task, flipped, threshold, references, named, rng)
        seeds = rng.integers(0, 2**62, (n, T))
        return self._batch(Symbols(party, digits, given, seeds, task, flipped, threshold, references, asked,
                                   np.zeros(n, int), np.arange(n)), split)

    def _batch(self, symbols: Symbols, split: str) -> Batch:
        labels = answer(symbols.task, symbols.flipped, symbols.threshold, values_of(symbols.digits, symbols.references))
        known = {one.name: getattr(symbols, one.name) for one in fields(Symbols)}
        return Batch(**known, labels=labels, frames_of=_frames(split), sounds_of=_sounds(self.source, split))


def _read(turn: Turn) -> tuple[int, list[int], list[bool]]:
    """Return party, digits and which modalities there are, of a turn."""
    if turn.party not in NAMES:
        raise InputError(f"got the party {turn.party!r}, expected one of {', '.join(NAMES)}; like it: "
                         f"{nearest(str(turn.party), NAMES)}.")
    for name in turn.without:
        require_one_of(name, MODALITIES, "what a turn is without")
    digits = [getattr(turn, DIGIT[name]) for name in MODALITIES]
    for name, digit in zip(MODALITIES, digits):
        if digit is not None and (digit not in range(10) or name in turn.without):
            raise InputError(f"a turn of {turn.party} has {DIGIT[name]}={digit!r}, expected a digit from 0 to 9, and none in "
                             f"what it is without ({', '.join(turn.without) or 'nothing'}).")
    return 1 + NAMES.index(turn.party), [-1 if d is None else d for d in digits], [m not in turn.without for m in MODALITIES]


def load(source: str = "embedded") -> Conversations:
    """Load what conversations are made of.

    Parameters
    ----------
    source : {"embedded", "fsdd"}
        Digits that are dialled, each party in a timbre of its own; or said by real voices, other speakers in each part.
        Digits that are shown are those of scikit-learn in both.

    Returns
    -------
    Conversations

    Raises
    ------
    InputError
        For another source.
    MissingSource
        If the voices are not on this machine; the message says how to fetch them.

    Examples
    --------
    >>> batch = load().build("test", 120, seed=0)
    >>> batch.inputs()["frames"].shape
    torch.Size([120, 24, 400])
    """
    require_one_of(source, SOURCES, "the source of conversations")
    if source == "fsdd":
        _sounds(source, "test")  # where the voices are missing, say so at once
    return Conversations(source)


@cache
def _frames(split: str) -> Frames:
    return Frames.of(split)


@cache
def _sounds(source: str, split: str) -> Sounds:
    if source == "embedded":
        return Sounds.of_tones(split, len(NAMES))
    real = voices.load()
    some = voices.split(real)[split]
    return Sounds.of_waves([real.waves[i] for i in some], real.digits[some], real.speakers[some], split)
