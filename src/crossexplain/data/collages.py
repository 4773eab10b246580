"""Collages of four digits with one sentence that is true of them or not, and the truth about what decides.

After the synthetic data set of the paper (section 4.1): 2 x 2 digits, four tasks (where the largest or the smallest digit
is, how many digits are even or odd) by two precisions. Cells are numbered in reading order:

    0 upper left   1 upper right
    2 lower left   3 lower right
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, SupportsInt

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from crossexplain import moved
from crossexplain.checks import InputError, require_one_of
from crossexplain.data.digits import Digits
from crossexplain.data.digits import split as split_digits
from crossexplain.data.examples import Examples, Indices, require_multiple
from crossexplain.data.vocabulary import nearest, word_numbers

TASKS = ("largest", "smallest", "even", "odd")
KINDS = tuple(f"{task}, {precision}" for task in TASKS for precision in ("precise", "general"))
CORNERS: dict[str, tuple[int, ...]] = {"upper left": (0,), "upper right": (1,), "lower left": (2,), "lower right": (3,)}
HALVES: dict[str, tuple[int, ...]] = {"upper": (0, 1), "lower": (2, 3), "left": (0, 2), "right": (1, 3)}
PAD, MASK = "[PAD]", "[MASK]"


@dataclass(frozen=True)
class Statement:
    """What a sentence says.

    Attributes
    ----------
    task : str
        One of ``TASKS``.
    precision : str
        ``"precise"`` or ``"general"``.
    cells : tuple of int
        Cells in which the sentence places the largest, smallest or first digit; empty if it names no place.
    count : int or None
        How many even or odd digits the sentence counts.
    """

    task: str
    precision: str
    cells: tuple[int, ...] = ()
    count: int | None = None


def _statements() -> dict[str, Statement]:
    """Return all sentences with what they say: the 46 of the balanced builder, then those of the paper's builder alone."""
    ours: dict[str, Statement] = {}
    theirs: dict[str, Statement] = {}
    for task in TASKS[:2]:
        for place, cells in CORNERS.items():
            ours[f"the {task} digit is at the {place} corner"] = Statement(task, "precise", cells)
        for place, cells in HALVES.items():
            ours[f"the {task} digit is on the {place} half"] = Statement(task, "general", cells)
    for task in TASKS[2:]:
        # The paper's "(s)", one form for every count, so that no other word gives the count away.
        for count in range(5):
            counted = f"there are {count} {task} digit(s) in the picture"
            ours[counted] = Statement(task, "general", count=count)
            for place, cells in CORNERS.items():
                possible = 1 <= count <= 4 - cells[0]  # the first of three cannot be in the last two cells
                if count:
                    sentence = f"{counted} and the first is at the {place} corner"
                    (ours if possible else theirs)[sentence] = Statement(task, "precise", cells, count)
        for place, cells in CORNERS.items():
            theirs[f"the first {task} digit is at the {place} corner"] = Statement(task, "general", cells)
    return ours | theirs


STATEMENTS = _statements()
SENTENCES = tuple(STATEMENTS)
BALANCED = 46  # the first sentences, those of the balanced builder
VOCABULARY = (PAD, MASK, *sorted({word for sentence in SENTENCES for word in sentence.split()}))
LENGTH = max(len(sentence.split()) for sentence in SENTENCES)  # T, tokens of the longest sentence
KIND_OF = np.array([KINDS.index(f"{one.task}, {one.precision}") for one in STATEMENTS.values()])  # (66,)
ALL_DIGITS = np.stack(np.unravel_index(np.arange(10_000), (10,) * 4), axis=1)  # (10000, 4), all that four cells can hold


def holds(digits: ArrayLike, sentence: str) -> Any:
    """Return whether a sentence is true of four digits: the one definition of truth.

    A digit is *the* largest (smallest) only if no other one equals it: of a tie no sentence about its place is true.
    The first even (odd) digit is the first in reading order; if there is none, no sentence about its place is true.

    Parameters
    ----------
    digits : array_like of int, shape (4,) or (N, 4)
        In reading order: upper left, upper right, lower left, lower right.
    sentence : str
        One of ``SENTENCES``.

    Returns
    -------
    bool, or ndarray of bool, shape (N,)

    Raises
    ------
    InputError
        For an unknown sentence (names the nearest) and for anything but four digits from 0 to 9.

    Examples
    --------
    >>> holds([3, 9, 0, 4], "the largest digit is at the upper right corner")
    True
    >>> holds([3, 9, 9, 4], "the largest digit is at the upper right corner")
    False
    >>> holds([3, 9, 0, 4], "there are 2 even digit(s) in the picture and the first is at the lower left corner")
    True
    """
    if sentence not in STATEMENTS:
        raise InputError(f"{sentence!r} is not one of the {len(SENTENCES)} sentences of the collages; like it: "
                         f"{nearest(str(sentence), SENTENCES, 2)}.")
    statement, digits = STATEMENTS[sentence], np.asarray(digits)
    if digits.ndim not in (1, 2) or digits.shape[-1] != 4 or not np.issubdtype(digits.dtype, np.integer):
        raise InputError(f"got digits as {digits.dtype} of shape {digits.shape}, expected whole numbers (4,) or (N, 4).")
    if digits.size and not (0 <= digits.min() and digits.max() <= 9):
        raise InputError(f"got digits from {digits.min()} to {digits.max()}, expected 0 to 9.")
    marked = _marked(np.atleast_2d(digits), statement.task)  # (N, 4)
    count = marked.sum(axis=1)
    wanted = 1 if statement.task in TASKS[:2] else statement.count
    true = count > 0 if wanted is None else count == wanted
    if statement.cells:
        true &= (count > 0) & np.isin(marked.argmax(axis=1), statement.cells)
    return bool(true[0]) if digits.ndim == 1 else true


def tokenize(sentences: str | Sequence[str], length: int = LENGTH) -> Tensor:
    """Return sentences as word numbers, padded at the end.

    Parameters
    ----------
    sentences : str or sequence of N str
        Of words of ``VOCABULARY``; ``[MASK]`` is one.
    length : int
        Number of tokens, T.

    Returns
    -------
    Tensor, shape (N, T), int64

    Raises
    ------
    InputError
        For a word that is not in the vocabulary (names the nearest) and a sentence longer than T.

    Examples
    --------
    >>> tokenize("the largest digit is on the left half", length=9)
    tensor([[26, 18, 11, 17, 22, 26, 19, 15,  0]])
    """
    sentences = [sentences] if isinstance(sentences, str) else sentences
    return word_numbers([sentence.split() for sentence in sentences], VOCABULARY, length, "collages")


def words(tokens: Iterable[SupportsInt]) -> list[str]:
    """Return the words of one row of word numbers, without the padding.

    Raises
    ------
    InputError
        For a number that is no word's.

    Examples
    --------
    >>> words([26, 18, 11, 0])
    ['the', 'largest', 'digit']
    """
    numbers = [int(token) for token in tokens]
    if unknown := [number for number in numbers if not 0 <= number < len(VOCABULARY)]:
        raise InputError(f"got the word number {unknown[0]}, expected 0 (padding) to {len(VOCABULARY) - 1}; pass one row of "
                         "what tokenize gave.")
    return [VOCABULARY[number] for number in numbers if number]


@dataclass(frozen=True)
class Collages(Examples):
    """Pairs of a collage and a sentence, with label and truth. Images and tokens are gathered when asked for.

    N is the number of pairs, T the number of tokens.

    Attributes
    ----------
    bank : ndarray, shape (M, 28, 28), float32
        All digit images, of which the collages are made.
    cells : ndarray, shape (N, 4), int64
        The digit image in each cell, index into ``bank``.
    digits : ndarray, shape (N, 4), int64
        The digit in each cell, 0 to 9.
    sentence_id : ndarray, shape (N,), int64
        Index into ``sentences``.
    labels : ndarray, shape (N,), int64
        1 where the sentence is true of the collage; of the paper's builder, 1 where its code takes it for true.
    collage : ndarray, shape (N,), int64
        Equal numbers are the same collage with different sentences.
    """

    bank: np.ndarray
    cells: np.ndarray
    digits: np.ndarray
    sentence_id: np.ndarray
    labels: np.ndarray
    collage: np.ndarray
    sentences: ClassVar[tuple[str, ...]] = SENTENCES
    kinds: ClassVar[tuple[str, ...]] = KINDS
    common = ("bank",)

    @property
    def kind(self) -> np.ndarray:
        """Task and precision of each pair, index into ``kinds``; shape (N,)."""
        return np.asarray(KIND_OF[self.sentence_id])

    def images(self, indices: Indices = slice(None)) -> Tensor:
        """Return collages as images, (n, 1, 56, 56), float32, from 0 (paper) to 1 (ink)."""
        four = self.bank[self.cells[indices]]  # (n, 4, 28, 28)
        n, _, height, width = four.shape
        rows = four.reshape(n, 2, 2, height, width).transpose(0, 1, 3, 2, 4)  # (n, row, y, column, x)
        return torch.from_numpy(rows.reshape(n, 1, 2 * height, 2 * width))

    def tokens(self, indices: Indices = slice(None)) -> Tensor:
        """Return sentences as word numbers, (n, T), int64, padded at the end with 0."""
        return token_table()[torch.from_numpy(self.sentence_id[indices])]

    def inputs(self, indices: Indices = slice(None)) -> dict[str, Tensor]:
        """Return what a model takes by keyword."""
        return {"images": self.images(indices), "tokens": self.tokens(indices)}

    @cached_property
    def deciding_cells(self) -> np.ndarray:
        """Cells that a person would point at, (N, 4), bool.

        The cell of the largest (smallest) digit, whether or not the sentence places it there; the cells of the even
        (odd) digits, all four where there is none.
        """
        by_task = np.stack([_marked(self.digits, task) for task in TASKS])  # (4, N, 4)
        marked = by_task[self.kind // 2, np.arange(len(self))]
        return np.asarray(marked | ~marked.any(axis=1, keepdims=True))

    @property
    def deciding_tokens(self) -> np.ndarray:
        """Words on which the claim of the sentence rests, (N, T), bool.

        Put another word in the place of such a word, and another sentence that can be true may result. Of "4 even digit(s)
        ... the first is at the upper left corner" these are "4" and "even" alone: the first of four can be nowhere else.
        """
        return np.asarray(_deciding_table()[self.sentence_id])


def build(digits: Digits, n_pairs: int, split: str | Sequence[int], seed: int, as_in_paper: bool = False) -> Collages:
    """Build pairs of a collage and a sentence.

    Two collages A and B and two sentences, a true of A only and b true of B only, give four pairs: (A, a) and (B, b) with
    label 1, (A, b) and (B, a) with label 0, in this order. Every collage and every sentence then stands as often with 1
    as with 0, so that a model that sees only one of the two is right in exactly half of the pairs. The kinds take turns:
    every multiple of 32 pairs from the start holds each kind equally often. Within a kind the sentences are drawn evenly,
    and the digits evenly among those that the sentences allow.

    Parameters
    ----------
    digits : Digits
    n_pairs : int
        A multiple of 4.
    split : {"train", "validation", "test"} or sequence of int
        Which digits may be used. The names stand for one fixed division, whatever the seed, so that collages of
        different names never share a digit image.
    seed : int
    as_in_paper : bool
        Build what the paper's code builds instead: it takes the first of several largest digits for the largest, and
        falsifies "on the upper half" by drawing another corner and naming its row or column, which may be the true one.

    Returns
    -------
    Collages

    Raises
    ------
    InputError
        For an unknown split, a number of pairs that is no positive multiple of 4, and digits that lack a class.
    """
    require_multiple(n_pairs, 4, "pairs", "two collages by two sentences")
    members = members_of(digits, split)
    rng = np.random.default_rng([seed, *(split.encode() if isinstance(split, str) else b"")])
    draw = _as_in_paper if as_in_paper else _quadruples
    values, sentence_id, labels, collage = draw(n_pairs, rng)
    _, first = np.unique(collage, return_index=True)
    cells = draw_images(values[first], members, rng)[collage]
    return Collages(digits.images, cells, values, sentence_id, labels, collage)


def members_of(digits: Digits, split: str | Sequence[int]) -> list[np.ndarray]:
    """Return the indices of the digit images of a split, as for :func:`build`, class by class."""
    if isinstance(split, str):
        parts = split_digits(digits, seed=0)
        require_one_of(split, parts, "the split")
        allowed = parts[split]
    else:
        allowed = np.asarray(split)
    members = [allowed[digits.labels[allowed] == digit] for digit in range(10)]
    if missing := [str(digit) for digit, indices in enumerate(members) if not len(indices)]:
        raise InputError(f"there is no image of {', '.join(missing)} among the {len(allowed)} digits; use more.")
    return members


def draw_images(values: np.ndarray, members: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draw an image of each digit (n, 4), from those of its class."""
    cells = np.empty(values.shape, dtype=np.int64)
    for digit, indices in enumerate(members):
        places = values == digit
        cells[places] = indices[rng.integers(0, len(indices), places.sum())]
    return cells


def _marked(digits: np.ndarray, task: str) -> np.ndarray:
    """Return the cells that a task is about, (N, 4): the largest, smallest, even or odd digits."""
    if task == "largest":
        return np.asarray(digits == digits.max(axis=1, keepdims=True))
    if task == "smallest":
        return np.asarray(digits == digits.min(axis=1, keepdims=True))
    return np.asarray(digits % 2 == TASKS[2:].index(task))


@cache
def token_table() -> Tensor:
    """Return the word numbers of all sentences, (66, T), int64."""
    return tokenize(SENTENCES)


@cache
def _deciding_table() -> np.ndarray:
    """Return the deciding words of each sentence, (66, T): one of them alone differs from a sentence that can be true."""
    table = token_table().numpy()
    differ = table[:, None] != table[None]  # (66, 66, T)
    can_be_true = truth_table().any(axis=0)
    return np.asarray((differ & (can_be_true & (differ.sum(axis=2) == 1))[:, :, None]).any(axis=1))


@cache
def truth_table() -> np.ndarray:
    """Return which sentence is true of which digits of ``ALL_DIGITS``, (10000, 66), bool."""
    return np.stack([holds(ALL_DIGITS, sentence) for sentence in SENTENCES], axis=1)


@cache
def _rivals() -> tuple[list[list[tuple[int, int]]], dict[tuple[int, int], np.ndarray]]:
    """Return the ordered pairs of sentences of each kind, and for each the collages of digits with first true, second not."""
    truth = truth_table()
    kinds = [[i for i in range(BALANCED) if KIND_OF[i] == kind] for kind in range(len(KINDS))]
    pairs = [[(a, b) for a in ids for b in ids if a != b] for ids in kinds]
    return pairs, {(a, b): np.flatnonzero(truth[:, a] & ~truth[:, b]) for kind in pairs for a, b in kind}


def _quadruples(n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draw digits, sentences, labels and collage numbers, (n_pairs, ...), balanced by quadruples."""
    n = n_pairs // 4
    pairs, allowed = _rivals()
    a, b, first, second = (np.empty(n, dtype=np.int64) for _ in range(4))
    for kind, choices in enumerate(pairs):
        turns = np.arange(kind, n, len(pairs))
        chosen = rng.integers(0, len(choices), len(turns))
        for number, (one, other) in enumerate(choices):
            places = turns[chosen == number]
            a[places], b[places] = one, other
            first[places] = rng.choice(allowed[one, other], len(places))
            second[places] = rng.choice(allowed[other, one], len(places))
    values = ALL_DIGITS[np.stack([first, second, first, second], axis=1).ravel()]
    sentence_id = np.stack([a, b, b, a], axis=1).ravel()
    collage = (2 * np.arange(n)[:, None] + np.array([0, 1, 0, 1])).ravel()
    return values, sentence_id, np.tile([1, 1, 0, 0], n), collage


def _as_in_paper(n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draw as the paper's code does: any four digits, tasks in turn, half of the sentences falsified, ties unseen."""
    values = rng.integers(0, 10, (n_pairs, 4))
    labels = np.ones(n_pairs, dtype=np.int64)
    labels[rng.permutation(n_pairs)[: n_pairs // 2]] = 0
    number = {sentence: i for i, sentence in enumerate(SENTENCES)}
    sentence_id = np.array(
        [number[_sentence_as_in_paper(four, i % 4, bool(label), rng)] for i, (four, label) in enumerate(zip(values, labels))]
    )
    return values, sentence_id, labels, np.arange(n_pairs)


def _sentence_as_in_paper(digits: np.ndarray, task: int, true: bool, rng: np.random.Generator) -> str:
    """Return the sentence that the paper's code writes for four digits."""
    corners, form = list(CORNERS), rng.integers(0, 3)
    if task < 2:
        cell = int(digits.argmax() if task == 0 else digits.argmin())  # the first of several
        corner = corners[cell if true else (cell + rng.integers(1, 4)) % 4]
        place = f"at the {corner} corner" if form == 2 else f"on the {corner.split()[form]} half"
        return f"the {TASKS[task]} digit is {place}"
    cells = np.flatnonzero(digits % 2 == task - 2)
    count = len(cells)
    if not true:  # another count, and the place of the first digit of the other parity
        count, cells = int((count + rng.integers(1, 5)) % 5), np.flatnonzero(digits % 2 != task - 2)
    if count == 0 or len(cells) == 0:
        return f"there are 0 {TASKS[task]} digit(s) in the picture"
    place = f"is at the {corners[cells[0]]} corner"
    counted = f"there are {count} {TASKS[task]} digit(s) in the picture"
    return (counted, f"the first {TASKS[task]} digit {place}", f"{counted} and the first {place}")[form]


__getattr__ = moved.names_of(__name__)
