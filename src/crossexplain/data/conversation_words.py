"""What is said in the generated conversations, and the questions about them, as word numbers of one vocabulary.

The names come first: the number of a name is also the number of the party, so that a question and a turn call it alike.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from crossexplain.data.conversation_seeds import below, uniform
from crossexplain.data.vocabulary import read_table, word_numbers

MODALITIES = ("words", "frames", "sound")
_TABLE = read_table("conversations")
NAMES, NUMBERS, ORDINALS = (tuple(_TABLE[key]) for key in ("names", "numbers", "ordinals"))
L, PHRASE, Q = 10, 5, 21  # most words of a turn, of a phrase, of a question
FORMS = ("only", "first", "second", "last", "turn", "before")  # how a question names one of several numbers


def _all_words(entry: Any) -> set[str]:
    if isinstance(entry, str):
        return set(entry.split())
    return set().union(*map(_all_words, entry.values() if isinstance(entry, dict) else entry))


_OURS = "the three numbers number that of in turn and gave before it".split()  # of the questions, written below
VOCABULARY = ("[PAD]", *NAMES, *NUMBERS, *sorted((_all_words(_TABLE) | set(_OURS)) - {"NUMBER", "THINGS", *NAMES, *NUMBERS}))
NUMBER = {word: i for i, word in enumerate(VOCABULARY)}
FIRST_NUMBER = NUMBER[NUMBERS[0]]


def encode(sentences: Sequence[str], length: int | None = None) -> np.ndarray:
    """Return sentences as word numbers (N, length), 0 behind; an empty one is a row of 0."""
    rows = [sentence.split() for sentence in sentences]
    length = length or max(map(len, rows))
    table = np.zeros((len(rows), length), dtype=np.int64)
    for row, words in zip(table, rows):
        if words:
            row[:] = word_numbers([words], VOCABULARY, length, "conversations")[0].numpy()
    return table


def decode(numbers: np.ndarray) -> str:
    """Return the words of one row of word numbers, without the padding.

    Examples
    --------
    >>> decode(encode(["my number is seven"], length=6)[0])
    'my number is seven'
    """
    return " ".join(VOCABULARY[int(number)] for number in numbers if number)


def compact(pieces: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return rows of word numbers written one behind the other, (N, length), with all padding at the end."""
    n = max(len(piece) for piece in pieces)
    long = np.concatenate([np.broadcast_to(piece, (n, piece.shape[1])) for piece in pieces], axis=1)
    order = np.argsort(long == 0, axis=1, kind="stable")[:, :length]
    packed = np.take_along_axis(long, order, axis=1)
    return np.pad(packed, ((0, 0), (0, length - packed.shape[1])))


def turn_words(said: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is said in turns, two phrases each, of which one claims the digit.

    Parameters
    ----------
    said : ndarray of int, shape (R,)
        The digit, -1 for small talk alone.
    seeds : ndarray of int, shape (R,)

    Returns
    -------
    words : ndarray, shape (R, L), int64
    phrase : ndarray, shape (R, L), int64
        Of which phrase each word is, 0 or 1; -1 behind the last.
    """
    claims, talk = _phrases()
    one, other = below(seeds, 31, len(talk)), below(seeds, 32, len(talk) - 1)
    other += other >= one
    claim = claims[below(seeds, 33, len(claims)), below(seeds, 34, claims.shape[1]), np.maximum(said, 0)]
    claim = np.where(said[:, None] >= 0, claim, talk[one])
    swap = (uniform(seeds, 35) < 0.5)[:, None]
    first, second = np.where(swap, talk[other], claim), np.where(swap, claim, talk[other])
    words = compact([first, second], L)
    phrase = (np.arange(L) >= (first > 0).sum(axis=1, keepdims=True)).astype(np.int64)
    return words, np.where(words > 0, phrase, -1)


@cache
def _phrases() -> tuple[np.ndarray, np.ndarray]:
    """Return claims (templates, things, 10, PHRASE) and small talk (sentences, PHRASE)."""
    claims = [template.replace("NUMBER", number).replace("THINGS", things[number != "one"])
              for template in _TABLE["claims"] for things in _TABLE["things"] for number in NUMBERS[:10]]
    return encode(claims, PHRASE).reshape(-1, len(_TABLE["things"]), 10, PHRASE), encode(_TABLE["talk"], PHRASE)


def question_words(task: np.ndarray, flipped: np.ndarray, threshold: np.ndarray, references: np.ndarray, party: np.ndarray,
                   rng: np.random.Generator) -> np.ndarray:
    """Return questions as word numbers, (B, Q); which of several ways to put it is drawn.

    Parameters
    ----------
    task : ndarray of int, shape (B,)
        Index into ``TASKS``.
    flipped : ndarray of bool, shape (B,)
        Asks for the smaller, the other, the odd, the fewer.
    threshold : ndarray of int, shape (B,)
    references : ndarray of int, shape (B, 3, 3)
        Of each reference the modality (-1: there is none), the form (index into ``FORMS``) and the turn.
    party : ndarray of int, shape (B, 3)
        The party that each reference names.
    rng : numpy.random.Generator
    """
    single = _references(references[:, :2], party, rng)
    joint = _joint(references, party, rng)
    several = references[:, 2, 0] >= 0
    first = np.where(several[:, None], joint, single[0])
    compared, number = _any_of("larger", "smaller", flipped, rng), FIRST_NUMBER + threshold[:, None]
    than = {
        "above": (_any_of("open", "opens", several, rng), first, compared, number),
        "more": (_one_of("open", rng, len(task)), first, compared, single[1]),
        "same": (_one_of("open", rng, len(task)), first, _any_of("same", "other", flipped, rng), single[1]),
        "parity": (_one_of("sums", rng, len(task)), first, _any_of("even", "odd", flipped, rng)),
        "total": (_one_of("sums", rng, len(task)), first, _any_of("more", "less", flipped, rng), number),
    }
    written = np.stack([compact(than[name], Q) for name in TASKS])
    asked: np.ndarray = written[task, np.arange(len(task))]
    return asked


def _references(references: np.ndarray, party: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return "the second number that ben showed", "the number that mia said before it" or "the number shown in the third turn"
    of each reference, (B, w) each."""
    return [_reference(references[:, i].T, party[:, i, None], rng) for i in range(references.shape[1])]


def _reference(reference: np.ndarray, party: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    modality, form, turn = reference
    way = rng.integers(0, 3, len(modality))
    verb, participle = (_VERBS[name][modality, way][:, None] for name in ("verbs", "participles"))
    by_party = [_put("the"), _FORM_WORDS[form][:, None], _put("number that"), party, verb, _BEFORE_IT[form]]
    by_turn = [_put("the number"), participle, _put("in the"), _ORDINAL[turn][:, None], _put("turn")]
    return np.where((form == FORMS.index("turn"))[:, None], compact(by_turn, 8), compact(by_party, 8))


def _joint(references: np.ndarray, party: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what names the three modalities at once, of one turn or of one party."""
    turn = [_put("the three numbers of the"), _ORDINAL[references[:, 0, 2]][:, None], _put("turn")]
    name = [_put("the three numbers that"), party[:, :1], _put("gave")]
    by_turn = (references[:, 0, 1] == FORMS.index("turn"))[:, None]
    return np.where(by_turn, compact(turn, 8), compact(name, 8))


def _put(words: str) -> np.ndarray:
    return encode([words])


def _one_of(key: str, rng: np.random.Generator, n: int) -> np.ndarray:
    return _WAYS[key][rng.integers(0, len(_WAYS[key]), n)]


def _any_of(straight: str, flipped: str, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(where[:, None], _one_of(flipped, rng, len(where)), _one_of(straight, rng, len(where)))


TASKS = ("above", "more", "same", "parity", "total")
_WAYS = {key: encode(ways, 6) for key, ways in _TABLE["questions"].items()}
_VERBS = {key: np.stack([encode(_TABLE[key][m])[:, 0] for m in MODALITIES]) for key in ("verbs", "participles")}
_ORDINAL = encode(ORDINALS)[:, 0]
_FORM_WORDS = encode(["", "first", "second", "last", "", ""], 1)[:, 0]
_BEFORE_IT = encode([*[""] * 5, "before it"])
