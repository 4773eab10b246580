"""How much the interaction of two modalities counts for a model: the scores that others publish, as functions of arrays.

They read the same numbers: the logits of every picture with every sentence, (N, M), of which the pairs of the data are the
diagonal. Putting another example's picture or sentence in place of the own is how these scores remove a modality. MM-SHAP's
share and the perceptual score are in :mod:`crossexplain.evaluation.modality_shares`.
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
    """Split a model's value into what two modalities do alone and their interaction (Wenderoth et al. 2024).

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
