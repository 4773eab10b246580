"""Shapley values of more players than can be asked exactly: a Gaussian process on masks that are crossed.

A coalition of two modalities is a mask of each. A model that is asked by its parts, see
:class:`~crossexplain.coalitions.game.Game`, pays for the masks, and next to nothing for matching them: each mask of one
modality is matched with many of the other. Coalitions are drawn as for KernelSHAP (Lundberg and Lee 2017), each with its
complement (Covert and Lee 2021); the masks are drawn without repetition, by their size, and so are the pairs of them.

What their values say of all others is read by a Gaussian process, :func:`_process`: a sum of the features alone, which
KernelSHAP fits, takes all that interacts for noise. The process grows with the square of the coalitions; of very many, where it
would be slow, the sum is fitted, and where all coalitions were asked that is exact.
"""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import solve, solve_triangular
from scipy.special import comb
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game

MATCHED = 24  # masks of the other modality that a mask is matched with, on average and at most
ROWS, CROSSED = 1400, 1.5  # coalitions, complements not counted, of a process; it is worth fewer matches, but not below that
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of a process, the one is taken that makes the values most likely:
LINEAR = (1, 10, 100, 1e4)  # and how much larger than all that interacts the sum of the features may be
LIKELY, NOISE = 150, 1e-6  # coalitions that are asked which it is; what keeps the equations solvable
TINY = np.finfo(float).tiny  # a game of even parities alone differs nowhere from its complement
DRAWS, DETERMINED = 32, 0.05  # most sets of coalitions that are drawn, and how evenly one tells the players apart to be taken


def sampled_shapley(game: Game, budget: int = 256, seed: int = 0, matched: int = MATCHED) -> Tensor:
    """Return estimated Shapley values of all players.

    Parameters
    ----------
    game : Game
        Of one or two modalities asked by their towers, or of a whole model, where nothing can be matched and a mask is a
        coalition.
    budget : int
        Most masks of an example that each tower, or the whole model, looks at: as many passes as an estimator that asks
        for so many coalitions. With fewer than about four for each player of the larger modality the values are rough.
    seed : int
    matched : int
        With how many masks of the other modality each mask is matched, on average and at most. More cost passes of the head
        alone. Fewer where a process could not take them.

    Returns
    -------
    Tensor of float64, shape (N, P)
        NaN for players that an example does not have. Of an example they sum to the value of all less that of none.

    Raises
    ------
    InputError
        For a budget below 4: nothing, everything, and one coalition with its complement.

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
    if budget < 4 or matched < 1:
        raise InputError(f"budget={budget} and matched={matched} came, expected at least 4 masks (nothing, everything, and a "
                         "coalition with its complement), each matched with at least 1.")
    first = torch.tensor([name == game.names[0] or not game.splits for name in game.names])
    found = torch.full(game.present.shape, torch.nan, dtype=torch.float64)
    for i, there in enumerate(game.present):
        sides = [(there & side).nonzero()[:, 0] for side in (first, ~first)]
        players = torch.cat(sides)
        if not len(players):
            continue
        sizes = [len(side) for side in sides]
        keep, weights = _determining(*sizes, budget, _wanted(sizes, budget, matched), np.random.default_rng([seed, i]))
        given = torch.zeros(len(keep), len(there), dtype=torch.bool)
        given[:, players] = torch.from_numpy(keep)
        values = game.values(given, torch.full((len(keep),), i)).numpy()
        found[i, players] = torch.from_numpy(_fitted(keep, values, weights))
    return found


def _wanted(sizes: list[int], budget: int, matched: int) -> int:
    """Return how many coalitions to ask for, complements not counted: no more than a process takes, if that is worth it.

    But all, where all masks of both sides can be looked at and all of them matched: that is exact.
    """
    most = budget // 2 * (matched if min(sizes) else 1)
    if 2 ** max(sizes) <= budget and 2 ** sum(sizes) <= 2 * most:
        return most
    masks = min(budget // 2, 2 ** (max(sizes) - 1))  # of a side, complements not counted
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

    A game is a sum of parities: products of signs, + for a player that is there and - for one that is not. A parity of an even
    number of players has the same value for a coalition and its complement, and adds nothing to any Shapley value; one of an
    odd number d adds 2 / d to each of its players. So half of the difference of complements is all that has to be known.

    Beforehand the coefficient of every parity of d players is taken for normally distributed, its variance in proportion to
    ``rate`` to the power of d: the more players, the smaller; single players have a variance of their own. The sum of all
    covariances has a closed form, which depends on how many signs differ, and so have the Shapley values of the expected game.
    Both variances are chosen by marginal likelihood (Rasmussen and Williams 2006, equation 5.8).
    """
    signs, half = np.where(keep[1::2], 1.0, -1.0), (values[1::2] - values[::2]) / 2
    rows, players = signs.shape
    differ = np.rint((players - signs @ signs.T) / 2).astype(int)  # signs in which two coalitions differ
    # Everything, which comes first, is always among those that are asked what is likely.
    some = np.r_[0, np.random.default_rng(rows).permutation(rows - 1)[: LIKELY - 1] + 1]
    among = differ[np.ix_(some, some)]

    def likelihood(settings: tuple[float, float]) -> float:
        root = np.linalg.cholesky(_covariance(players, *settings)[among] + NOISE * np.eye(len(some)))
        scaled = solve_triangular(root, half[some], lower=True)
        return -len(some) / 2 * np.log((scaled**2).mean() + TINY) - np.log(np.diag(root)).sum()

    settings = max(product(RATES, LINEAR), key=likelihood)
    weight = solve(_covariance(players, *settings)[differ] + NOISE * np.eye(rows), half, assume_a="pos")
    others = (signs < 0).sum(axis=1, keepdims=True) - (signs < 0)  # of each player, how many of the others are not there
    found = weight @ (signs * _shares(players, *settings)[others])
    return found + (values[1] - values[0] - found.sum()) / players


def _covariance(players: int, rate: float, linear: float) -> np.ndarray:
    """Return the covariance (p + 1,) of half-differences by the number of signs that differ; what interacts has variance 1."""
    differ = np.arange(players + 1)
    single = players - 2 * differ
    alike, unlike = ((1 + sign * rate) ** (players - differ) * (1 - sign * rate) ** differ for sign in (1, -1))
    more = (alike - unlike) / 2 - rate * single  # the odd parities, of three players and more
    return more / more[0] + linear * single / players


def _shares(players: int, rate: float, linear: float) -> np.ndarray:
    """Return the Shapley value (p,) that a coalition's covariance with all others gives a player, up to the player's sign.

    By how many of the others are not there. The d-th power of a rate over d is an integral over the rate, and one of a
    polynomial: the quadrature is exact.
    """
    nodes, weights = np.polynomial.legendre.leggauss(players // 2 + 1)
    rates, weights, gone = (nodes + 1) * rate / 2, weights * rate / 2, np.arange(players)[:, None]
    left = players - 1 - gone
    even = ((1 - rates) ** gone * (1 + rates) ** left + (1 + rates) ** gone * (1 - rates) ** left) @ weights
    odd_of_all = ((1 + rate) ** players - (1 - rate) ** players) / 2 - rate * players
    return (even - 2 * rate) / odd_of_all + 2 * linear / players


def _regression(keep: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the additive values (p,) nearest to values (R,) of coalitions; the first two rows are nothing and everything.

    They sum to the gain from the first to the second: each player is given its equal part, and what is fitted sums to 0.
    """
    gain, weighted, normal = values[1] - values[0], *_normal(keep, weights)
    inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)  # a direction of equal parts is left out
    return gain / keep.shape[1] + inverse @ (weighted @ (values - values[0] - gain * keep.mean(axis=1)))


def _normal(keep: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted design (p, R) of the regression, centred, and the matrix (p, p) of its normal equations."""
    centred = keep - keep.mean(axis=1, keepdims=True)
    weighted = centred.T * weights
    return weighted, weighted @ centred


def _determining(first: int, second: int, budget: int, wanted: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return coalitions and weights, see :func:`_coalitions`, that tell every player from every other, if any drawn do.

    Few masks may happen to hold two players always together, which leaves their values to chance. So the coalitions are drawn
    again until the difference between players that they determine worst is determined well beside the best one, and of
    coalitions that all fall short the best are taken. No pass is spent on it, and no value is seen.
    """
    best, most = None, -np.inf
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
    every: float  # how many there are, a mask and its complement counted once
    masks: np.ndarray  # bool (m, players): those drawn, none the complement of another


def _coalitions(first: int, second: int, budget: int, wanted: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return coalitions (R, first + second), nothing and everything before all others, and their weights (R,)."""
    sides = [_masks(own, other, budget // 2, rng) for own, other in ((first, second), (second, first))]
    strata = [(a, b, turned) for a in sides[0] for b in sides[1] for turned in ((False, True) if first and second else (False,))
              if a.size + b.size > 0 or turned]
    mass = np.array([a.every * b.every * _kernel(a.size + (second - b.size if turned else b.size), first + second)
                     for a, b, turned in strata])
    most = np.array([len(a.masks) * len(b.masks) for a, b, _ in strata])
    counts = _dealt(mass, most, wanted)
    rows, weights = [np.zeros((1, first + second), bool)], [np.zeros(1)]
    for (a, b, turned), weight, count in zip(strata, mass, counts):
        if count:
            i, j = _pairs(len(a.masks), len(b.masks), count, rng)
            rows.append(np.concatenate([a.masks[i], b.masks[j] ^ turned], axis=1))
            weights.append(np.full(count, weight / count))
    half, weights = np.concatenate(rows), np.concatenate(weights)
    return np.stack([half, ~half], axis=1).reshape(-1, first + second), weights.repeat(2)


def _kernel(size: int, players: int) -> float:
    """Return KernelSHAP's weight of a coalition, up to a factor."""
    return 1 / (comb(players, size) * size * (players - size))


def _masks(own: int, other: int, budget: int, rng) -> list[_Masks]:
    """Draw masks of a side with ``own`` players beside ``other``: each size in proportion to its weight, none twice."""
    sizes = range(1, own // 2 + 1)
    every = np.array([comb(own, size) / (2 if 2 * size == own else 1) for size in sizes])
    mass = every * [sum(comb(other, more) * _kernel(size + more, own + other) for more in range(other + 1)) for size in sizes]
    none = _Masks(0, 1, np.zeros((1, own), bool))  # nothing, and its complement everything, are always looked at
    return [none, *(_Masks(size, of, _distinct(own, size, count, rng))
                    for size, of, count in zip(sizes, every, _dealt(mass, every, budget - 1)) if count)]


def _distinct(players: int, size: int, count: int, rng) -> np.ndarray:
    """Draw masks (count, players) of a size, none twice and none the complement of another."""
    halves = 2 * size == players  # then the complement has the same size: take the one with the first player
    every = comb(players, size) / (2 if halves else 1)
    if every <= 4 * count:
        chosen = [held for held in combinations(range(players), size) if not halves or held[0] == 0]
        masks = np.zeros((len(chosen), players), bool)
        for mask, held in zip(masks, chosen):
            mask[list(held)] = True
        return masks[rng.permutation(len(masks))[:count]]
    masks = np.zeros((0, players), bool)
    while len(masks) < count:
        more = rng.random((2 * count, players)).argsort(axis=1).argsort(axis=1) < size
        more ^= halves & ~more[:, :1]
        masks = np.unique(np.concatenate([masks, more]), axis=0)
    return masks[rng.permutation(len(masks))[:count]]


def _pairs(first: int, second: int, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``count`` different pairs of ``first`` and ``second`` numbers, each number about as often as the others."""
    place = np.arange(count)
    return rng.permutation(first)[place % first], rng.permutation(second)[(place % first + place // first) % second]


def _dealt(mass: np.ndarray, most: np.ndarray, total: int) -> np.ndarray:
    """Deal ``total`` among parts in proportion to their mass, at most ``most`` to each, and one to each if it suffices."""
    counts = np.zeros(len(mass), np.int64)
    counts[np.argsort(-mass)[:total]] = 1
    left, weight = total - counts.sum(), mass.sum()
    for part in np.argsort((most - 1) / mass):  # those that are full first, so that the others share what they leave
        more = min(most[part] - 1, round(left * mass[part] / weight)) if left else 0
        counts[part] += more
        left, weight = left - more, weight - mass[part]
    return counts
