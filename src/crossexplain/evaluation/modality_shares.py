"""Scores of whole modalities: which of them answers rest on, and how much their interaction counts.

Beside the answers of the rounds this holds the scores that others publish. They read the logits of every picture with every
sentence, (N, M), of which the pairs of the data are the diagonal: InterSHAP (Wenderoth et al. 2024) and EMAP (Hessel and Lee
2020); the accuracy that is lost where a modality is dealt out anew, the perceptual score (Gat et al. 2021); and the sizes of
Shapley values, MM-SHAP (Parcalabescu and Frank 2023).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import expit
from torch import Tensor, nn

from crossexplain import moved
from crossexplain.checks import InputError
from crossexplain.contract import TwoTowers
from crossexplain.gradients.modalities import Inputs
from crossexplain.gradients.record import Record
from crossexplain.intervals import Interval, difference_interval, mean_interval

if TYPE_CHECKING:
    import pandas as pd

ANSWERS = ("image alone", "text alone", "both only", "both added", "either")


def answer_shares(answers: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> dict[str, Interval]:
    """Return the share of the examples that rest on each of ``ANSWERS``.

    Parameters
    ----------
    answers : ndarray of str, shape (N,)
        From :meth:`~crossexplain.gradients.record.Record.each`.
    groups : array_like, shape (N,), optional
        The picture of each pair; its pairs are drawn together.
    """
    return {answer: mean_interval(answers == answer, seed, groups=groups) for answer in ANSWERS}


def dominance_frame(record: Record, parts: Mapping[str, np.ndarray], groups: np.ndarray, seed: int = 0) -> "pd.DataFrame":
    """Return what the pairs rest on and what the paper reads, for every baseline and part of the pairs.

    Parameters
    ----------
    record : Record
        Of modalities called image and text.
    parts : mapping of str to ndarray of bool, shape (N,)
        Which pairs: ``{"all": ..., "match": ...}``.
    groups : ndarray, shape (N,)
        The picture of each pair; intervals are 95 % bootstrap over pictures.

    Returns
    -------
    DataFrame
        ``baseline, part, measure, value, low, high, n, pairs``, where ``n`` is the number of pictures, which the intervals
        draw, and ``pairs`` that of the pairs; the measures are ``ANSWERS`` (shares of the pairs),
        ``reach of ...`` and ``flips without ...`` as in :class:`~crossexplain.gradients.verdict.Verdict`, and ``norm at ...``:
        the gradient norm with the other modality hidden over that with nothing hidden, geometric mean over the pairs where
        neither is 0; NaN where no gradient reaches the modality.
    """
    import pandas as pd  # slow to import, and needed here alone

    lines, verdicts = [], {part: record.verdict(where=where, groups=groups) for part, where in parts.items()}
    for baseline in record.baselines:
        answers = record.each(baseline)
        ratios = {name: record.norm_ratio(baseline, name) for name in record.modalities}
        ratios = {name: np.log(np.where(values > 0, values, np.nan)) for name, values in ratios.items()}
        for part, where in parts.items():
            values = answer_shares(answers[where], groups[where], seed)
            of_all = {f"reach of {name}": value for name, value in verdicts[part].reach[baseline].items()}
            of_all |= {f"flips without {name}": value for name, value in verdicts[part].flips[baseline].items()}
            values |= {measure: value._replace(n=len(np.unique(groups[where]))) for measure, value in of_all.items()}
            for name, logarithms in ratios.items():
                if np.isnan(logarithms[where]).all():  # a modality that no gradient reaches
                    values[f"norm at {name}"] = Interval(np.nan, np.nan, np.nan, 0)
                    continue
                mean, low, high, n = mean_interval(logarithms[where], seed, groups=groups[where])
                values[f"norm at {name}"] = Interval(float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)), n)
            lines += [{"baseline": baseline, "part": part, "measure": measure, **value._asdict(), "pairs": int(where.sum())}
                      for measure, value in values.items()]
    return pd.DataFrame(lines)


@torch.no_grad()
def perceptual_scores(model: nn.Module, inputs: Inputs, labels: Tensor, groups: np.ndarray | None = None, times: int = 5,
                      seed: int = 0) -> dict[str, Interval]:
    """Return how much of the accuracy is lost where one modality is dealt out anew among the pairs.

    Parameters
    ----------
    model : torch.nn.Module
        With ``see``, ``read`` and ``match``; as it is, or of a :class:`~crossexplain.evaluation.precomputed.Precomputed`.
    inputs : mapping of str to Tensor
        ``images`` and ``tokens`` (and ``attention_mask``) of N pairs.
    labels : Tensor, shape (N,)
    groups : array_like, shape (N,), optional
        As for :func:`answer_shares`.
    times : int
        How often each is dealt out.

    Returns
    -------
    dict of str to Interval
        ``"image"`` and ``"text"``. Gat, Schwartz and Schwing (2021), not normalised.
    """
    if not isinstance(model, TwoTowers):
        raise InputError(f"{type(model).__name__} has no see, read and match, with which each picture and each text is encoded "
                         "once; wrap it in a model that has, as crossexplain.contract.TwoTowers says.")
    if "images" not in inputs or len(inputs["images"]) != len(labels):
        raise InputError(f"got {len(labels)} labels and the inputs {list(inputs)}, expected 'images' and a text for each of "
                         "the labels.")
    numbers = torch.arange(len(labels))
    texts = [value for key, value in inputs.items() if key != "images"]
    images = torch.cat([model.see(inputs["images"][rows]) for rows in numbers.split(256)])
    sentences = torch.cat([model.read(*(value[rows] for value in texts)) for rows in numbers.split(256)])

    def right(i: Tensor, j: Tensor) -> np.ndarray:
        return ((model.match(images[i], sentences[j]) > 0) == (labels != 0)).double().numpy()

    generator = torch.Generator().manual_seed(seed)
    dealt = [torch.randperm(len(labels), generator=generator) for _ in range(times)]
    whole = right(numbers, numbers)
    lost = {"image": [right(other, numbers) for other in dealt], "text": [right(numbers, other) for other in dealt]}
    return {name: mean_interval(whole - np.mean(values, axis=0), seed, groups=groups) for name, values in lost.items()}


def picks(record: Record, baseline: str, seed: int = 0, groups: ArrayLike | None = None) -> dict[str, dict[str, Interval]]:
    """Compare rounds 3 and 4: are they more alike where the features that round 2 picked are masked than where random ones are?

    Parameters
    ----------
    record : Record
        With its control, as many features picked at random.
    baseline : str
    seed : int
        Of the bootstrap.
    groups : array_like, shape (N,), optional
        Examples with the same value are drawn together.

    Returns
    -------
    dict of str to dict of str to Interval
        By the modality of which some features are masked: the cosine of the gradients of rounds 3 and 4 at the others, with
        those ``"picked"`` by round 2, with as many at ``"random"``, and their paired ``"difference"``. Only that can be put
        down to the choice of features (section 3 of the paper has no control).

    Raises
    ------
    InputError
        For a record without round 4, or without its control.
    """
    comparisons = {}
    for name in record.modalities:
        end = record.by_side.get((baseline, name))
        if end is None or end.similarity_random is None:
            raise InputError(f"the record has no round 4 with a control for {baseline!r} and {name!r}; run the rounds with a "
                             f"pick and control=True, under one of {', '.join(map(repr, record.baselines))}.")
        picked, at_random = end.similarity.cosine, end.similarity_random.cosine
        comparisons[name] = {"picked": mean_interval(picked, seed, groups=groups),
                             "random": mean_interval(at_random, seed, groups=groups),
                             "difference": difference_interval(picked, at_random, seed, groups=groups)}
    return comparisons


def size_shares(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return MM-SHAP's share of each modality, (N,): of the sizes of all Shapley values, those of its features.

    Parcalabescu and Frank (2023), equation 3. Sizes: what speaks against the logit counts as much as what speaks for it. NaN
    where all are 0.
    """
    size = {name: of_features.abs().nansum(dim=1) for name, of_features in values.items()}
    return {name: of_modality / sum(size.values()) for name, of_modality in size.items()}


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


def intershap(table: ArrayLike) -> InterShap:
    """Split a model's value into what two modalities do alone and their interaction (Wenderoth et al. 2024).

    Parameters
    ----------
    table : array_like, shape (N, 4)
        Of each example the value with nothing, the first, the second, and both modalities; InterSHAP's value is the
        probability of the predicted class, see :func:`intershap_values`.

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
    table = np.asarray(table, dtype=float)
    if table.ndim != 2 or table.shape[1] != 4:
        raise InputError(f"got a table of shape {table.shape}, expected (N, 4): the values with nothing, the first, the second "
                         "and both modalities, as intershap_values gives them.")
    nothing, first, second, both = table.T
    effects = np.stack([both - first - second + nothing, first - nothing, second - nothing], axis=1)  # (N, 3)
    sizes, means = np.abs(effects), np.abs(effects.mean(axis=0))
    whole = sizes.sum(axis=1)
    if not means.sum() > 0:
        return InterShap(*[np.nan] * 4)
    interaction, one, other = means / means.sum()
    return InterShap(float(interaction), float((sizes[:, 0][whole > 0] / whole[whole > 0]).mean()), float(one), float(other))


def intershap_values(logits: ArrayLike, others: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None) -> np.ndarray:
    """Return InterSHAP's values, (N, 4): the probability of the class that is predicted with both modalities.

    Parameters
    ----------
    logits : array_like, shape (N, N)
        Logit of class 1 of each first with each second modality; the pairs of the data are the diagonal.
    others : tuple of array_like, optional
        Where the donors are other examples: logits of the examples' first with the donors' second modality (N, D), of the
        donors' first with the examples' second (D, N), and of the donors' own pairs (D,).

    Returns
    -------
    ndarray, shape (N, 4)
    """
    if others is None:
        logits = _of_every_pair(logits)
        pairs, others = np.diagonal(logits), (logits, logits, np.diagonal(logits))
    else:
        pairs = np.asarray(logits, dtype=float)
    first, second, donors = (np.asarray(values, dtype=float) for values in others)
    sign = np.where(pairs > 0, 1.0, -1.0)
    return np.stack([expit(sign[:, None] * donors).mean(axis=1), expit(sign[:, None] * first).mean(axis=1),
                     expit(sign[:, None] * second.T).mean(axis=1), expit(sign * pairs)], axis=1)


def _of_every_pair(logits: ArrayLike) -> np.ndarray:
    """Return logits of each first with each second modality, (N, N), if they are that."""
    logits = np.asarray(logits, dtype=float)
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        raise InputError(f"got logits of shape {logits.shape}, expected (N, N): of each first with each second modality of the "
                         "examples, whose own pairs are the diagonal.")
    return logits


def emap(logits: ArrayLike) -> np.ndarray:
    """Return the logits of the additive model that is nearest to a model (Hessel and Lee 2020), (N,).

    Parameters
    ----------
    logits : array_like, shape (N, N)
        As for :func:`intershap_values`.

    Examples
    --------
    >>> emap([[1.0, 3.0], [2.0, 4.0]])
    array([1., 4.])
    >>> emap([[1.0, -1.0], [-1.0, 1.0]])
    array([0., 0.])
    """
    logits = _of_every_pair(logits)
    return np.asarray(logits.mean(axis=1) + logits.mean(axis=0) - logits.mean())


def emap_gap(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return how much worse the nearest additive model answers: accuracy of the model less that of its projection."""
    labels, logits = np.asarray(labels).astype(bool), _of_every_pair(logits)
    if labels.shape != logits.shape[:1]:
        raise InputError(f"got labels of shape {labels.shape} for {len(logits)} pairs, expected one each.")
    return float(((np.diagonal(logits) > 0) == labels).mean() - ((emap(logits) > 0) == labels).mean())


__getattr__ = moved.names_of(__name__)
