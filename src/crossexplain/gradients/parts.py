"""Sums of parts: how much of the whole single modalities, pairs and threes account for, and which are enough.

A *part* is some modalities in the view that leaves them alone. A *family* is parts that are added, none within another: that
of ``("sound",)`` and ``("frames", "words")`` has the logits v(sound) + v(frames, words) - v(nothing); what two parts have in
common counts once.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, combinations, combinations_with_replacement, groupby
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from crossexplain.gradients.evidence import classes, evidence
from crossexplain.gradients.views import FULL, NOTHING, alone, masked
from crossexplain.intervals import Interval

Part = tuple[str, ...]
Family = tuple[Part, ...]
Named = TypeVar("Named")
# Standard deviation, in units of the logit, up to which logits do not vary.
FLAT = 1e-9
MANY = 6  # modalities from which families have at most two parts, as there would be thousands of them


def leaving(kept: Collection[str], modalities: Sequence[str]) -> str:
    """Return the name of the view that leaves some of the modalities and masks the others.

    Examples
    --------
    >>> [leaving(kept, ["a", "b", "c"]) for kept in (["a", "b", "c"], ["b"], [])]
    ['full', 'a+c masked', 'all masked']
    """
    hidden = [name for name in modalities if name not in kept]
    return FULL if not hidden else NOTHING if len(hidden) == len(modalities) else masked(*hidden)


def subsets(names: Sequence[Named]) -> list[tuple[Named, ...]]:
    """Return all subsets but the empty one, the small ones first."""
    return list(chain.from_iterable(combinations(names, order) for order in range(1, len(names) + 1)))


def of_family(family: Family, modalities: Sequence[str]) -> dict[str, int]:
    """Return the views whose sum is that of a family, each with its factor.

    Examples
    --------
    >>> of_family((("a", "b"), ("b", "c")), ["a", "b", "c"])
    {'c masked': 1, 'a masked': 1, 'a+c masked': -1}
    """
    factors: Counter[str] = Counter()
    for several in subsets(family):
        common = set(several[0]).intersection(*several[1:])
        factors[leaving(common, modalities)] += -1 if len(several) % 2 == 0 else 1
    return {view: factor for view, factor in factors.items() if factor}


def of_dividend(part: Part, modalities: Sequence[str]) -> dict[str, int]:
    """Return the views whose sum is the dividend of a part, what it has beyond all fewer modalities, each with its factor."""
    return {leaving(some, modalities): (-1) ** (len(part) - len(some)) for some in [(), *subsets(part)]}


def dividend(logits: Mapping[str, Tensor], modalities: Sequence[str], target: Tensor) -> np.ndarray:
    """Return what the whole has beyond the sum of its parts, (N,): v(AB) - v(A) - v(B) + v(0) for two modalities.

    Parameters
    ----------
    logits : mapping from view to Tensor, shape (N, C)
        Of one baseline.
    modalities, target
        As for :func:`crossexplain.gradients.verdict.verdict`.
    """
    value = values_of(logits, target)
    parts = sum(value[alone(name, modalities)] for name in modalities)
    return np.asarray(value[FULL] - parts + (len(modalities) - 1) * value[NOTHING])


def dividends(logits: Mapping[str, Tensor], modalities: Sequence[str], target: Tensor) -> dict[Part, np.ndarray]:
    """Return what some modalities together have beyond all fewer of them, (N,): pairs, and threes, whose views are there.

    Arguments are as for :func:`dividend`. Of a pair that is v(AB) - v(A) - v(B) + v(0), whatever other modalities there are,
    which are masked; of three v(ABC) - v(AB) - v(AC) - v(BC) + v(A) + v(B) + v(C) - v(0).
    """
    value = values_of(logits, target)
    views = {part: of_dividend(part, modalities) for order in (2, 3) for part in combinations(modalities, order)}
    return {part: np.asarray(sum(factor * value[view] for view, factor in of_part.items())) for part, of_part in views.items()
            if value.keys() >= of_part.keys()}


def values_of(logits: Mapping[str, Tensor], target: Tensor) -> dict[str, np.ndarray]:
    """Return the evidence for the followed class in each view, (N,)."""
    return {view: evidence(values, target).numpy() for view, values in logits.items()}


def families(modalities: Sequence[str], views: Mapping[str, object]) -> list[list[Family]]:
    """Return the families whose views are there, the simplest first: those of the same orders are in one list.

    A modality alone is simpler than two that are added, all modalities added are simpler than a pair that interacts.
    """
    most = 3 if len(modalities) < MANY else 2
    several = chain.from_iterable(combinations(subsets(modalities), size) for size in range(1, most + 1))
    found = [family for family in several if not any(set(a) <= set(b) for a, b in combinations(family, 2))]
    found += [tuple((name,) for name in modalities)] * (len(modalities) > most)
    found = [family for family in found if views.keys() >= of_family(family, modalities).keys()]
    return [list(level) for _, level in groupby(sorted(found, key=_orders), key=_orders)]


def _orders(family: Family) -> list[int]:
    return sorted(map(len, family), reverse=True)


def estimate(values: np.ndarray, n: int) -> Interval:
    """Return the first value, that of the sample itself, with the quantiles of the bootstrap samples after it."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high), n)


def bootstrap(n: int, draws: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Return the weights of the examples in the sample itself and in bootstrap samples of it, (1 + draws, n)."""
    member = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    drawn = int(member.max()) + 1
    counts = np.random.default_rng(seed).multinomial(drawn, np.full(drawn, 1 / drawn), size=draws)[:, member]
    return np.vstack([np.full(n, 1 / n), counts / counts.sum(axis=1, keepdims=True)])


def centred(logits: Tensor) -> np.ndarray:
    """Return logits (N, C) less their mean over the classes, where there are several, and over the examples."""
    values = logits.double()
    values = values - values.mean(dim=1, keepdim=True) if values.shape[1] > 1 else values
    return (values - values.mean(dim=0)).numpy()  # a large mean, such as that of prices, would leave rounding alone


def one_hot(logits: Tensor) -> np.ndarray:
    """Return 1 for the predicted class and 0 for all others, (N, C), C at least 2."""
    return torch.nn.functional.one_hot(classes(logits), max(2, logits.shape[1])).double().numpy()


class Variation:
    """How the logits of views vary together over the examples, in the sample and in each bootstrap sample of it.

    Parameters
    ----------
    values : mapping from view to ndarray, shape (n, C)
        Of several classes all count, each around its own mean.
    weights : ndarray, shape (samples, n)
        Of the examples in each sample.
    """

    def __init__(self, values: Mapping[str, np.ndarray], weights: np.ndarray):
        self.number = {view: i for i, view in enumerate(values)}
        means = [weights @ of_view for of_view in values.values()]  # (samples, C) each
        self.covariance = np.empty((len(values), len(values), len(weights)))
        for (i, one), (j, other) in combinations_with_replacement(enumerate(values.values()), 2):
            of_both = weights @ (one * other).sum(axis=1) - (means[i] * means[j]).sum(axis=1)
            self.covariance[i, j] = self.covariance[j, i] = of_both

    def accounts_for(self, factors: Mapping[str, float]) -> np.ndarray:
        """Return the squared correlation of a sum of views with the full view, 0 where it is negative: (samples,)."""
        with_whole, own, whole = self._of(factors)
        product = own * whole
        correlation = np.divide(with_whole, np.sqrt(np.maximum(product, 0)), out=np.zeros_like(with_whole),
                                where=product > FLAT**2)
        return np.asarray(np.clip(correlation, 0, 1) ** 2)

    def share(self, factors: Mapping[str, float]) -> np.ndarray:
        """Return the share of the variation of the full view that comes with a sum of views, (samples,); it may be negative."""
        with_whole, _, whole = self._of(factors)
        return np.asarray(with_whole / np.maximum(whole, FLAT**2))

    def _of(self, factors: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        views, factor = [self.number[view] for view in factors], np.array(list(factors.values()), float)
        full = self.number[FULL]
        return (np.tensordot(factor, self.covariance[views, full], 1),
                np.einsum("i,ijs,j->s", factor, self.covariance[np.ix_(views, views)], factor), self.covariance[full, full])


def simplest(levels: Sequence[Sequence[Family]], reach: Callable[[Family], np.ndarray],
             enough: float) -> tuple[list[tuple[Family, ...]], np.ndarray]:
    """Return the simplest families that account for enough in each sample.

    Parameters
    ----------
    levels : list of list of Family
        As :func:`families` gives them; the last stands for what no other accounts for.
    reach : callable
        The share that a family accounts for in each sample, (samples,).
    enough : float
        Share from which a family counts as the whole.

    Returns
    -------
    list of tuple of Family
        What was found in any sample. Of single modalities several may each be enough, of other families it is the best.
    ndarray of int, shape (samples,)
        Which of them was found in each sample.
    """
    found: list[tuple[Family, ...]] = []
    choice = np.array([], int)
    for level in levels:
        reached = np.stack([reach(family) for family in level])  # (families, samples)
        choice = choice if len(choice) else np.full(reached.shape[1], -1)
        carries = reached >= enough
        if _orders(level[0]) != [1]:
            carries &= np.arange(len(level))[:, None] == reached.argmax(axis=0)
        carries[-1] |= level is levels[-1]
        for pattern in np.unique(carries[:, (choice < 0) & carries.any(axis=0)], axis=1).T:
            choice[(choice < 0) & (carries == pattern[:, None]).all(axis=0)] = len(found)
            found.append(tuple(family for family, one in zip(level, pattern) if one))
        if (choice >= 0).all():
            break
    return found, choice
