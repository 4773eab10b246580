"""Shapley values of more players than can be asked exactly: a Gaussian process on masks that are crossed.

A coalition of two modalities is a mask of each. A model with towers, see :class:`~crossexplain.coalitions.game.Game`, encodes
every mask, and next to nothing is spent on matching two masks: so each mask of one modality is matched with many of the other.
Coalitions are drawn as for KernelSHAP (Lundberg and Lee 2017), each with its complement (Covert and Lee 2021). The masks are
drawn without repetition, by their size, and so are the pairs of masks.

A Gaussian process, :func:`_process`, predicts the values of all other coalitions from those that were asked. KernelSHAP fits a
sum of features instead, which takes every interaction for noise. The process costs the square of the number of coalitions, so
the sum is fitted where there are very many; where all coalitions were asked, the sum is exact.
"""

from itertools import combinations, product
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from scipy.linalg import solve, solve_triangular
from scipy.special import comb
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game

# In all counts of coalitions below, a coalition and its complement count as one.
MATCHED = 24  # masks of the other modality that each mask is matched with, on average, at most
ROWS = 1400  # coalitions that a process takes at most: its matrix of 1400 x 1400 is solved in a fraction of a second
CROSSED = 1.5  # matches a mask, on average, below which the process gives way to the sum, which can take all matches
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # rates of the process; the likeliest, given the values, is taken
LINEAR = (1, 10, 100, 1e4)  # variances of the sum of the features, where all interactions have variance 1; also the likeliest
LIKELY = 150  # coalitions from which the two likeliest numbers are found; on all of them it would take most of the time
NOISE = 1e-6  # variance added to each value, so that the equations of nearly equal coalitions can be solved
TINY = np.finfo(float).tiny  # keeps the logarithm finite for a game that has the same value for complements everywhere
DRAWS = 32  # sets of coalitions that are drawn at most, to find one that tells all players apart
PLAYERS = 1000  # that an example has at most: there are more sets of half of them than a number of floating point holds
DETERMINED = 0.05  # smallest eigenvalue of the equations, as a share of the largest, with which a set is taken at once


def sampled_shapley(game: Game, budget: int = 256, seed: int = 0, matched: int = MATCHED) -> Tensor:
    """Return estimated Shapley values of all players.

    Parameters
    ----------
    game : Game
        Of a model with towers; or of a whole model, one with parts, and groups of several modalities, where nothing can be
        matched and a mask is a coalition.
    budget : int
        Most masks of an example that each tower, or the whole model, looks at: as many passes as an estimator that asks
        for so many coalitions. With fewer than about four for each player of the larger modality the values are rough.
    seed : int
    matched : int
        With how many masks of the other modality each mask is matched, on average, at most. More cost passes of the head
        alone. There are fewer where a process could not take them.

    Returns
    -------
    Tensor of float64, shape (N, P)
        NaN for players that an example does not have. Of an example they sum to the value of all less that of none.

    Raises
    ------
    InputError
        For a budget below 4: nothing, everything, and one coalition with its complement; and for more than 1,000 players.

    Examples
    --------
    >>> from crossexplain.gradients.modalities import Tokens, Vectors
    >>> class Product(torch.nn.Module):
    ...     def forward(self, seen, tokens):
    ...         return seen[:, :, 0].sum(dim=1) * (tokens > 1).sum(dim=1)
    >>> inputs = {"seen": torch.tensor([[[2.0], [1.0]]]), "tokens": torch.tensor([[5, 7]])}
    >>> game = Game(Product().eval(), inputs, [Vectors("image", "seen"), Tokens()], progress=False)
    >>> [round(value, 3) for value in sampled_shapley(game, budget=16)[0].tolist()]
    [2.0, 1.0, 1.5, 1.5]
    """
    if not (isinstance(budget, Integral) and isinstance(matched, Integral) and budget >= 4 and matched >= 1):
        raise InputError(f"got budget={budget!r} and matched={matched!r}, expected at least 4 masks (nothing, everything, and "
                         "a coalition with its complement), each matched with at least 1.")
    if (most := int(game.present.sum(dim=1).max())) > PLAYERS:
        raise InputError(f"an example has {most} players, at most {PLAYERS} can be estimated; put features into groups "
                         "(players={'text': 64}, a coarser grid of cells).")
    first = game.crossed
    estimates = torch.full(game.present.shape, torch.nan, dtype=torch.float64)
    for i, present in enumerate(game.present):
        sides = [(present & side).nonzero()[:, 0] for side in (first, ~first)]
        players = torch.cat(sides)
        if not len(players):
            continue
        sizes = [len(side) for side in sides]
        keep, weights = _determining(*sizes, budget, _wanted(sizes, budget, matched), np.random.default_rng([seed, i]))
        coalitions = torch.zeros(len(keep), len(present), dtype=torch.bool)
        coalitions[:, players] = torch.from_numpy(keep)
        values = game.values(coalitions, torch.full((len(keep),), i)).numpy()
        estimates[i, players] = torch.from_numpy(_fitted(keep, values, weights))
    return estimates


def _wanted(sizes: list[int], budget: int, matched: int) -> int:
    """Return how many coalitions to ask for: no more than a process takes, if that leaves enough matches a mask.

    All are asked where the budget allows all masks of both sides, and all of them can be matched: then the sum is exact.
    """
    most = budget // 2 * (matched if min(sizes) else 1)
    if 2 ** max(sizes) <= budget and 2 ** sum(sizes) <= 2 * most:
        return most
    masks = min(budget // 2, 2 ** (max(sizes) - 1))  # of the larger side
    return min(most, ROWS) if ROWS >= CROSSED * masks else most


def _fitted(keep: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Shapley values (p,) from the values (R,) of coalitions (R, p); nothing and everything are the first two."""
    fitted = _regression(keep, values, weights)
    if not np.isfinite(values).all():
        return fitted  # NaN, of this example alone
    missed = np.abs(values - values[0] - keep @ fitted).max()
    asked_all, a_sum = len(keep) == 2 ** keep.shape[1], missed <= 1e-6 * np.abs(values).max()  # models compute in float32
    return fitted if asked_all or a_sum or len(keep) > 2 * (ROWS + 1) else _process(keep, values)


def _process(keep: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the Shapley values (p,) of the most likely game, given the values (R,) of coalitions and their complements.

    A game is a sum of parities: products of signs, + for a player that stays and - for one that is hidden. A parity of an even
    number of players has the same value for a coalition and its complement, and adds nothing to any Shapley value. One of an
    odd number d adds 2 / d to each of its players. So only half the difference between complements has to be known.

    The prior takes the coefficient of every parity of d players as normally distributed, with a variance in proportion to
    ``rate`` to the power of d, so that it falls with the number of players; single players have a variance of their own. The
    sum of all covariances has a closed form, which depends on how many signs differ, and so have the Shapley values of the
    expected game. Both variances are chosen by marginal likelihood (Rasmussen and Williams 2006, equation 5.8).
    """
    signs, half = np.where(keep[1::2], 1.0, -1.0), (values[1::2] - values[::2]) / 2
    rows, players = signs.shape
    differ = np.rint((players - signs @ signs.T) / 2).astype(int)  # signs in which two coalitions differ
    # The first coalition, of all players, is always among them: its value is the largest part of what is shared.
    drawn = np.r_[0, np.random.default_rng(rows).permutation(rows - 1)[: LIKELY - 1] + 1]
    among = differ[np.ix_(drawn, drawn)]

    def likelihood(settings: tuple[float, float]) -> float:
        root = np.linalg.cholesky(_covariance(players, *settings)[among] + NOISE * np.eye(len(drawn)))
        scaled = solve_triangular(root, half[drawn], lower=True)
        return float(-len(drawn) / 2 * np.log((scaled**2).mean() + TINY) - np.log(np.diag(root)).sum())

    settings = max(product(RATES, LINEAR), key=likelihood)
    weight = solve(_covariance(players, *settings)[differ] + NOISE * np.eye(rows), half, assume_a="pos")
    hidden = (signs < 0).sum(axis=1, keepdims=True) - (signs < 0)  # for each player, how many of the others are hidden
    estimates = weight @ (signs * _shapley_kernel(players, *settings)[hidden])
    return np.asarray(estimates + (values[1] - values[0] - estimates.sum()) / players)


def _covariance(players: int, rate: float, linear: float) -> np.ndarray:
    """Return the covariance (p + 1,) of half-differences by the number of signs that differ; interactions have variance 1."""
    differ = np.arange(players + 1)
    single = players - 2 * differ
    alike, unlike = ((1 + sign * rate) ** (players - differ) * (1 - sign * rate) ** differ for sign in (1, -1))
    more = (alike - unlike) / 2 - rate * single  # the odd parities, of three players and more
    return np.asarray(more / more[0] + linear * single / players)


def _shapley_kernel(players: int, rate: float, linear: float) -> np.ndarray:
    """Return the Shapley value (p,) of a player, up to its sign, of a coalition's covariance with all coalitions.

    It depends on how many of the other players are hidden, 0 to p - 1. ``rate`` to the power of d, divided by d, is an
    integral over the rate of a polynomial, for which the quadrature is exact.
    """
    nodes, weights = np.polynomial.legendre.leggauss(players // 2 + 1)
    rates, weights, hidden = (nodes + 1) * rate / 2, weights * rate / 2, np.arange(players)[:, None]
    left = players - 1 - hidden
    even = ((1 - rates) ** hidden * (1 + rates) ** left + (1 + rates) ** hidden * (1 - rates) ** left) @ weights
    odd_of_all = ((1 + rate) ** players - (1 - rate) ** players) / 2 - rate * players
    return (even - 2 * rate) / odd_of_all + 2 * linear / players


def _regression(keep: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the additive values (p,) nearest to values (R,) of coalitions; the first two rows are nothing and everything.

    They sum to the gain from the first to the second: each player gets an equal part of it, and the fitted rest sums to 0.
    """
    gain, weighted, normal = values[1] - values[0], *_normal(keep, weights)
    inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)  # a direction of equal parts is left out
    return np.asarray(gain / keep.shape[1] + inverse @ (weighted @ (values - values[0] - gain * keep.mean(axis=1))))


def _normal(keep: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted design (p, R) of the regression, centred, and the matrix (p, p) of its normal equations."""
    centred = keep - keep.mean(axis=1, keepdims=True)
    weighted = centred.T * weights
    return weighted, weighted @ centred


def _determining(first: int, second: int, budget: int, wanted: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coalitions and weights, see :func:`_coalitions`, that tell every player from every other.

    Few masks may happen to hold two players always together, which leaves their values to chance. So coalitions are drawn
    again until the difference between players that is determined worst is determined well enough beside the best one. If no
    set reaches that, the best is taken. No pass is spent on this, and no value is seen.
    """
    best, most = (np.array([]), np.array([])), -np.inf
    for _ in range(DRAWS):
        drawn = _coalitions(first, second, budget, wanted, rng)
        determined = np.linalg.eigvalsh(_normal(*drawn)[1])  # the smallest is the equal parts', always 0
        even = determined[1] / determined[-1] if len(determined) > 2 else 1
        if even > most:
            best, most = drawn, even
        if most >= DETERMINED:
            break
    return best


class _Masks(NamedTuple):
    """Masks of one side, of one size and its complement's."""

    size: int
    number: float  # how many there are
    masks: np.ndarray  # bool (m, players): the drawn ones, none the complement of another


def _coalitions(first: int, second: int, budget: int, wanted: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coalitions (R, first + second), of which nothing and everything are the first two, and their weights (R,)."""
    sides = [_masks(players, other, budget // 2, rng) for players, other in ((first, second), (second, first))]
    strata = [(a, b, turned) for a in sides[0] for b in sides[1] for turned in ((False, True) if first and second else (False,))
              if a.size + b.size > 0 or turned]
    mass = np.array([a.number * b.number * _kernel(a.size + (second - b.size if turned else b.size), first + second)
                     for a, b, turned in strata])
    most = np.array([len(a.masks) * len(b.masks) for a, b, _ in strata])
    counts = _dealt(mass, most, wanted)
    rows, weights = [np.zeros((1, first + second), bool)], [np.zeros(1)]
    for (a, b, turned), weight, count in zip(strata, mass, counts):
        if count:
            i, j = _pairs(len(a.masks), len(b.masks), count, rng)
            rows.append(np.concatenate([a.masks[i], b.masks[j] ^ turned], axis=1))
            weights.append(np.full(count, weight / count))
    half = np.concatenate(rows)
    return np.stack([half, ~half], axis=1).reshape(-1, first + second), np.concatenate(weights).repeat(2)


def _kernel(size: int, players: int) -> float:
    """Return KernelSHAP's weight of a coalition, up to a factor."""
    return float(1 / (comb(players, size) * size * (players - size)))


def _masks(players: int, other: int, budget: int, rng: Generator) -> list[_Masks]:
    """Draw masks of a side with ``players`` players beside ``other``: each size in proportion to its weight, none twice."""
    sizes = range(1, players // 2 + 1)
    counts = np.array([comb(players, size) / (2 if 2 * size == players else 1) for size in sizes])
    mass = counts * [sum(comb(other, more) * _kernel(size + more, players + other) for more in range(other + 1))
                     for size in sizes]
    none = _Masks(0, 1, np.zeros((1, players), bool))  # nothing, and its complement everything, are always looked at
    return [none, *(_Masks(size, of, _distinct(players, size, count, rng))
                    for size, of, count in zip(sizes, counts, _dealt(mass, counts, budget - 1)) if count)]


def _distinct(players: int, size: int, count: int, rng: Generator) -> np.ndarray:
    """Draw masks (count, players) of a size, none twice and none the complement of another."""
    halves = 2 * size == players  # then the complement has the same size: take the one with the first player
    if comb(players, size) / (2 if halves else 1) <= 4 * count:  # so few that all are listed
        listed = [members for members in combinations(range(players), size) if not halves or members[0] == 0]
        masks = np.zeros((len(listed), players), bool)
        for mask, members in zip(masks, listed):
            mask[list(members)] = True
        return np.asarray(masks[rng.permutation(len(masks))[:count]])
    masks = np.zeros((0, players), bool)
    while len(masks) < count:
        more = rng.random((2 * count, players)).argsort(axis=1).argsort(axis=1) < size
        more ^= halves & ~more[:, :1]
        masks = np.unique(np.concatenate([masks, more]), axis=0)
    return np.asarray(masks[rng.permutation(len(masks))[:count]])


def _pairs(first: int, second: int, count: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``count`` different pairs of ``first`` and ``second`` numbers, each number about as often as the others."""
    place = np.arange(count)
    return rng.permutation(first)[place % first], rng.permutation(second)[(place % first + place // first) % second]


def _dealt(mass: np.ndarray, most: np.ndarray, total: int) -> np.ndarray:
    """Deal ``total`` among parts in proportion to their mass: at most ``most`` to each, and one to each if there are enough."""
    counts = np.zeros(len(mass), np.int64)
    counts[np.argsort(-mass)[:total]] = 1
    left, weight = total - counts.sum(), mass.sum()
    for part in np.argsort((most - 1) / mass):  # those that fill up come first, so that the others share what they leave
        more = min(most[part] - 1, round(left * mass[part] / weight)) if left else 0
        counts[part] += more
        left, weight = left - more, weight - mass[part]
    return counts
