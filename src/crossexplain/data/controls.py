"""Controls: the collages' pictures and sentences with labels whose origin is known.

They rest on two properties. The surplus of a picture is how many more even than odd digits it has (-4, -2, 0, 2 or 4); the
sign of a sentence is +1 if it is about the largest digit, -1 if about the smallest, and 0 if it counts. They are drawn
independently but where the label ties them.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import collages
from crossexplain.data.collages import ALL_DIGITS, BALANCED, SENTENCES, STATEMENTS, Collages
from crossexplain.data.digits import Digits

ANSWERS = {  # what the predictions of a model that learned the control rest on
    "image": "image alone",
    "text": "text alone",
    "either": "either",
    "both": "both only",
    "additive": "both added",
    "shortcut": "text alone",
}
SIGNS = {"largest": 1, "smallest": -1, "even": 0, "odd": 0}


def build(kind: str, digits: Digits, n: int, split: str, seed: int, p: float = 1.0) -> Collages:
    """Build pairs of a collage and a sentence with a label of known origin.

    ========== ==========================================================================================
    kind       label
    ========== ==========================================================================================
    image      1 if the picture shows more even than odd digits
    text       1 if the sentence is about the largest or the even digits
    either     both of picture (as in *image*) and sentence (1 if about the largest) say it; in a share ``1 - p``
               one of them is silent: as many even as odd digits, or a sentence that counts
    both       1 if exactly one of picture and sentence says so (exclusive or)
    additive   drawn with log odds f + g: f = -3, -1, 1, 3 by the surplus of even digits, g = 2 or -2 by the sentence
    shortcut   1 if the sentence is true of the picture, as in the matching task; in a share ``p`` the true ones are all
               about the largest or the even digits and the false ones about the smallest or the odd
    ========== ==========================================================================================

    Parameters
    ----------
    kind : str
        One of ``ANSWERS``.
    digits : Digits
    n : int
        Number of pairs, a multiple of 4.
    split : {"train", "validation", "test"}
        Which digits may be used; no digit image is in two splits.
    seed : int
    p : float
        Of *shortcut* the share that the sentence gives away, of *either* the share in which both speak; else unused.

    Returns
    -------
    Collages
        About as many labels 1 as 0. ``deciding_cells`` and ``deciding_tokens`` are those of the matching task, not of the
        control.

    Raises
    ------
    InputError
        For an unknown kind, a share outside 0 to 1, and what :func:`crossexplain.data.collages.build` refuses.
    """
    require_one_of(kind, ANSWERS, "the control")
    if not 0 <= p <= 1:
        raise InputError(f"got p={p}, expected a share from 0 to 1.")
    base = collages.build(digits, n, split, seed)  # of the shortcut, the pairs in which nothing is given away
    rng = np.random.default_rng([seed, *kind.encode(), *split.encode()])
    if kind == "shortcut":
        values, sentence_id, labels = _shortcut(base, p, rng)
    else:
        surpluses, signs, labels = _properties(kind, rng.integers(0, 2, n), p, rng)
        values = np.stack([ALL_DIGITS[rng.choice(_with_surplus(value))] for value in surpluses])
        sentence_id = np.array([rng.choice(_with_sign(kind, sign)) for sign in signs])
    cells = collages.draw_images(values, collages.members_of(digits, split), rng)
    return Collages(digits.images, cells, values, sentence_id, labels, np.arange(n))


def surplus(digits: ArrayLike) -> np.ndarray:
    """Return how many more even than odd digits a picture has.

    Examples
    --------
    >>> int(surplus([2, 4, 6, 1]))
    2
    """
    return np.asarray(4 - 2 * (np.asarray(digits) % 2).sum(axis=-1))


def _properties(kind: str, labels: np.ndarray, p: float,
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return surpluses of pictures (-4 to 4), signs of sentences (-1, 0, 1), and the labels, (n,) each."""
    n, wanted = len(labels), 2 * labels - 1
    image, text = rng.choice([-1, 1], n), rng.choice([-1, 1], n)
    if kind in ("image", "either"):
        image = wanted
    if kind in ("text", "either"):
        text = wanted
    if kind == "both":
        text = -wanted * image
    image = image * rng.choice([2, 4], n)
    if kind == "either":
        silent = np.where(rng.random(n) < p, 0, rng.integers(1, 3, n))  # 1: the picture, 2: the sentence
        image, text = np.where(silent == 1, 0, image), np.where(silent == 2, 0, text)
    if kind == "additive":
        odds = np.sign(image) * (np.abs(image) - 1) + 2 * text
        labels = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return image, text, labels


def _shortcut(base: Collages, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return digits, sentences and labels in which the sentence gives the label away in a share ``p``."""
    values, sentence_id, labels = base.digits.copy(), base.sentence_id.copy(), base.labels.copy()
    for i in np.flatnonzero(rng.random(len(base)) < p):
        sentence_id[i] = rng.choice(_with_sign("text", 2 * labels[i] - 1))
        values[i] = ALL_DIGITS[rng.choice(np.flatnonzero(collages.truth_table()[:, sentence_id[i]] == labels[i]))]
    return values, sentence_id, labels


@cache
def _with_surplus(value: int) -> np.ndarray:
    return np.flatnonzero(surplus(ALL_DIGITS) == value)


@cache
def _with_sign(kind: str, sign: int) -> np.ndarray:
    """Return the sentences of a sign; for the text control each sentence has +1 or -1, by its task."""
    by_task = {"largest": 1, "smallest": -1, "even": 1, "odd": -1} if kind == "text" else SIGNS
    return np.array([i for i in range(BALANCED) if by_task[STATEMENTS[SENTENCES[i]].task] == sign])
