"""The oracle of the collages: what an observer who sees and reads only a part can know."""

from functools import cache

import numpy as np

from crossexplain.data.collages import BALANCED, KIND_OF, token_table, truth_table


def chances(digits, sentence_id, groups=None) -> np.ndarray:
    """Return how likely each sentence is true for an observer who sees and reads only a part: the oracle.

    A hidden cell holds each of the ten digits with the same probability. Hidden words can be any that make one of the
    balanced sentences of the same length, as likely as in the data: the eight kinds alike, within a kind each sentence.
    The oracle marginalises over both, exactly.

    Parameters
    ----------
    digits : array_like of int, shape (N, 4)
    sentence_id : array_like of int, shape (N,)
        Index into ``SENTENCES``.
    groups : array_like of int, shape (N, T), optional
        Words that are hidden together: numbers from 0, -1 for padding. Default: the whole sentence is read.

    Returns
    -------
    ndarray, shape (N, 16) or (N, 16 * 2**G)
        By set of what is present; set S holds cell k iff ``S >> k & 1``, and group g iff ``S >> 4 + g & 1``. The last
        column is the truth, 0 or 1.

    Examples
    --------
    >>> from crossexplain.data.collages import SENTENCES
    >>> largest = SENTENCES.index("the largest digit is at the upper left corner")
    >>> chances([[9, 1, 1, 1]], [largest])[0, [0, 1, 15]].round(3)
    array([0.202, 0.729, 1.   ])
    """
    digits, sentence_id = np.asarray(digits), np.asarray(sentence_id)
    seen = np.stack([_share_true(S)[tuple(digits[:, k] * (S >> k & 1) for k in range(4))] for S in range(16)], axis=1)
    if groups is None:  # seen is (N, 16, 66)
        return seen[np.arange(len(digits)), :, sentence_id]
    return np.einsum("nwm,nsm->nws", beliefs(sentence_id, groups), seen[:, :, :BALANCED]).reshape(len(digits), -1)


def beliefs(sentence_id, groups) -> np.ndarray:
    """Return how likely each balanced sentence is for a reader of only some groups of the words of a sentence.

    Parameters
    ----------
    sentence_id, groups
        As for :func:`chances`.

    Returns
    -------
    ndarray, shape (N, 2**G, 46)
        Sums to 1 over the sentences; 1 for the sentence itself where every word is read.
    """
    groups, table, kinds = np.asarray(groups), token_table().numpy()[:, : np.shape(groups)[1]], np.bincount(KIND_OF[:BALANCED])
    sets = (np.arange(2 ** (groups.max() + 1))[:, None] >> np.arange(groups.max() + 1)) & 1  # (2**G, G)
    read = np.concatenate([sets, np.ones((len(sets), 1), int)], axis=1)[:, groups]  # (2**G, N, T), padding is always read
    differs = table[None, :BALANCED] != table[np.asarray(sentence_id)][:, None]  # (N, 46, T)
    could_be = np.einsum("wnt,nmt->nwm", read.astype(float), differs.astype(float)) == 0
    weight = could_be / kinds[KIND_OF[:BALANCED]]
    return weight / weight.sum(axis=2, keepdims=True)


@cache
def _share_true(S: int) -> np.ndarray:
    """Return for how many of all digits in hidden cells each sentence is true, (10 or 1,) * 4 + (66,): 1 where hidden."""
    hidden = tuple(k for k in range(4) if not S >> k & 1)
    return truth_table().reshape(*(10,) * 4, -1).mean(axis=hidden, keepdims=True)
