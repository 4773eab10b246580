"""How much each modality and their interaction count for a model: the scores that others publish, as functions of arrays.

All but one read the same numbers: the logits of every picture with every sentence, (N, M), of which the pairs of the data
are the diagonal. Putting another example's picture or sentence in place of the own is how these scores remove a modality.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit


class InterShap(NamedTuple):
    """Shares of two modalities and their interaction.

    Attributes
    ----------
    interaction : float
        Share of the interaction, from means over the examples: InterSHAP's global score.
    local : float
        The same with shares taken example by example and then averaged.
    first, second : float
        What each modality does for itself, as shares of the same whole as ``interaction``.
    """

    interaction: float
    local: float
    first: float
    second: float


def intershap(table) -> InterShap:
    """Split a model's value into what two modalities do alone and their interaction (Wenderoth et al. 2025).

    Parameters
    ----------
    table : array_like, shape (N, 4)
        Of each example the value with nothing, the first, the second, and both modalities; InterSHAP's value is the
        probability of the predicted class, see :func:`predicted`.

    Returns
    -------
    InterShap
        NaN where nothing changes anything.

    Notes
    -----
    The published score is the Shapley interaction index of all pairs of modalities beside what is left of each Shapley
    value. Of two modalities these are the dividend v(AB) - v(A) - v(B) + v(0), v(A) - v(0) and v(B) - v(0). The means are
    taken before the absolute values: interactions of different sign cancel, which ``local`` does not let them.

    Examples
    --------
    >>> intershap([[0.5, 0.5, 0.5, 1.0]]).interaction
    1.0
    >>> intershap([[0.5, 0.75, 0.75, 1.0]]).interaction
    0.0
    """
    nothing, first, second, both = np.asarray(table, dtype=float).T
    effects = np.stack([both - first - second + nothing, first - nothing, second - nothing], axis=1)  # (N, 3)
    sizes, means = np.abs(effects), np.abs(effects.mean(axis=0))
    whole = sizes.sum(axis=1)
    if not means.sum() > 0:
        return InterShap(*[np.nan] * 4)
    interaction, one, other = means / means.sum()
    return InterShap(float(interaction), float((sizes[:, 0][whole > 0] / whole[whole > 0]).mean()), float(one), float(other))


def predicted(every, others=None) -> np.ndarray:
    """Return InterSHAP's values, (N, 4): the probability of the class that is predicted with both modalities.

    Parameters
    ----------
    every : array_like, shape (N, N)
        Logit of class 1 of each first with each second modality; the pairs of the data are the diagonal.
    others : tuple of array_like, optional
        Where the donors are other examples: logits of the examples' first with the donors' second modality (N, D), of the
        donors' first with the examples' second (D, N), and of the donors' own pairs (D,).

    Returns
    -------
    ndarray, shape (N, 4)
    """
    if others is None:
        every = np.asarray(every, dtype=float)
        own, others = np.diagonal(every), (every, every, np.diagonal(every))
    else:
        own = np.asarray(every, dtype=float)
    first, second, donors = (np.asarray(values, dtype=float) for values in others)
    sign = np.where(own > 0, 1.0, -1.0)
    return np.stack([expit(sign[:, None] * donors).mean(axis=1), expit(sign[:, None] * first).mean(axis=1),
                     expit(sign[:, None] * second.T).mean(axis=1), expit(sign * own)], axis=1)


def emap(every) -> np.ndarray:
    """Return the logits of the additive model that is nearest to a model (Hessel and Lee 2020), (N,).

    Parameters
    ----------
    every : array_like, shape (N, N)
        As for :func:`predicted`.

    Examples
    --------
    >>> emap([[1.0, 3.0], [2.0, 4.0]])
    array([1., 4.])
    >>> emap([[1.0, -1.0], [-1.0, 1.0]])
    array([0., 0.])
    """
    every = np.asarray(every, dtype=float)
    return every.mean(axis=1) + every.mean(axis=0) - every.mean()


def emap_gap(every, labels) -> float:
    """Return how much worse the nearest additive model answers: accuracy of the model less that of its projection."""
    labels = np.asarray(labels).astype(bool)
    return float(((np.diagonal(np.asarray(every)) > 0) == labels).mean() - ((emap(every) > 0) == labels).mean())


def perceptual(every, labels) -> tuple[float, float]:
    """Return the perceptual score of each modality (Gat et al. 2021): accuracy lost when it is another example's.

    Over all permutations at once, and as a share of the accuracy, the "model normalised" score of the paper.

    Parameters
    ----------
    every : array_like, shape (N, N)
        As for :func:`predicted`.
    labels : array_like of bool or int, shape (N,)

    Returns
    -------
    first, second : float
    """
    right = (np.asarray(every) > 0)
    labels = np.asarray(labels).astype(bool)
    own = (np.diagonal(right) == labels).mean()
    first = (right == labels[None, :]).mean()  # another's first modality with the own second, whose label is asked for
    second = (right == labels[:, None]).mean()
    return float((own - first) / own), float((own - second) / own)


def text_share(values, text) -> float:
    """Return MM-SHAP's share of the text (Parcalabescu and Frank 2023): of all Shapley values' sizes, those at tokens.

    Parameters
    ----------
    values : array_like, shape (N, P)
        Shapley values of all features; NaN for one that an example does not have.
    text : array_like of bool, shape (P,)
        Which of them are tokens.

    Returns
    -------
    float
        Mean over the examples. It says which modality is used, not how: XOR and a sum get the same share.

    Examples
    --------
    >>> text_share([[1.0, -1.0, 2.0, float("nan")]], [False, False, True, True])
    0.5
    """
    sizes, text = np.abs(np.nan_to_num(np.asarray(values, dtype=float))), np.asarray(text, dtype=bool)
    whole = sizes.sum(axis=1)
    return float((sizes[:, text].sum(axis=1)[whole > 0] / whole[whole > 0]).mean())
