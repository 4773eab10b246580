"""What follows from a table of coalitions: Shapley and Banzhaf values, dividends, interactions, shares, best orders.

All functions take tables (..., 2**P), as :meth:`crossexplain.coalitions.game.Game.values_of_all` gives them: column S holds the
value with exactly the players k for which ``S >> k & 1``. Everything but the best orders is a weighted sum of dividends, so
that the cost is 2 * P * 2**P for one example, whether of players, pairs or threes.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def players_of(table: ArrayLike) -> int:
    """Return the number of players P of tables (..., 2**P).

    Raises
    ------
    ValueError
        For a table whose last axis is no power of two.
    """
    shape: tuple[int, ...] = np.shape(table)
    if not shape or shape[-1] < 1 or shape[-1] & (shape[-1] - 1):
        raise ValueError(f"got a table of shape {shape}, expected (..., 2**P): one column a coalition.")
    return shape[-1].bit_length() - 1


def sizes(players: int) -> np.ndarray:
    """Return how many players each coalition has, (2**P,)."""
    counts = np.zeros(1, dtype=np.int64)
    for _ in range(players):
        counts = np.concatenate([counts, counts + 1])
    return counts


def dividends(table: ArrayLike) -> np.ndarray:
    """Return Harsanyi's dividends, (..., 2**P): what a coalition is worth beyond all that its parts are worth.

    ``m(S) = v(S) - sum of m(T) over all proper subsets T`` (Harsanyi 1963; the Moebius transform of v), so that v(S) is the
    sum of the dividends within S. ``m(0)`` is v(0).

    Examples
    --------
    >>> dividends([0.0, 1.0, 2.0, 5.0])
    array([0., 1., 2., 2.])
    """
    players, values = players_of(table), np.array(table, dtype=float)
    for k in range(players):
        halves = values.reshape(*values.shape[:-1], 2 ** (players - 1 - k), 2, 2**k)  # without player k, with it
        halves[..., 1, :] -= halves[..., 0, :]
    return values


def shapley(table: ArrayLike) -> np.ndarray:
    """Return the Shapley values, (..., P): every dividend is shared equally among its players (Shapley 1953).

    They add up to v(all) - v(nothing).

    Examples
    --------
    >>> shapley([0.0, 1.0, 2.0, 5.0])
    array([2., 3.])
    """
    return _by_player(table, lambda size: 1 / size)


def banzhaf(table: ArrayLike) -> np.ndarray:
    """Return the Banzhaf values, (..., P): the mean gain by a player over all coalitions of the others (Banzhaf 1965).

    They do not add up to v(all) - v(nothing), and noise in single values moves them least (Wang and Jia 2023).

    Examples
    --------
    >>> banzhaf([0.0, 1.0, 2.0, 5.0])
    array([2., 3.])
    """
    return _by_player(table, lambda size: 0.5 ** (size - 1))


def _by_player(table: ArrayLike, weight: Callable[[int], float]) -> np.ndarray:
    return _above(table, weight, 1)[..., 1 << np.arange(players_of(table))]


def _above(table: ArrayLike, weight: Callable[[int], float], least: int) -> np.ndarray:
    """Return for each coalition the sum of the dividends of those that contain it, times a weight by their size, (..., 2**P).

    Those smaller than ``least`` count 0.
    """
    players = players_of(table)
    by_size = np.array([weight(size) if size >= least else 0.0 for size in range(players + 1)])
    sums = dividends(table)
    sums *= by_size[sizes(players)]
    for k in range(players):
        halves = sums.reshape(*sums.shape[:-1], 2 ** (players - 1 - k), 2, 2**k)  # without player k, with it
        halves[..., 0, :] += halves[..., 1, :]
    return sums


def interactions(table: ArrayLike, order: int = 2) -> np.ndarray:
    """Return the Shapley interaction of every pair of players, (..., P, P), or of every three, (..., P, P, P).

    It is the sum of the dividends of the coalitions that hold all of them, each divided by the number of its players less
    those of them beyond the first (Grabisch and Roubens 1999). It is symmetric, and 0 where a player stands twice.

    Parameters
    ----------
    table : array_like, shape (..., 2**P)
    order : int
        2 for pairs, 3 for threes.

    Examples
    --------
    >>> interactions([0.0, 1.0, 2.0, 5.0])
    array([[0., 2.],
           [2., 0.]])
    """
    if order not in (2, 3):
        raise ValueError(f"got order={order!r}, expected 2 for pairs of players or 3 for threes.")
    above, players = _above(table, lambda size: 1 / (size - order + 1), order), players_of(table)
    found = np.zeros((*above.shape[:-1], *[players] * order))
    together = np.array(list(combinations(range(players), order)), dtype=int).reshape(-1, order).T  # (order, sets)
    for axes in permutations(together):
        place: tuple[Any, ...] = (..., *axes)
        found[place] = above[..., (1 << together).sum(axis=0)]
    return found


def across(table: ArrayLike, names: Sequence[str]) -> np.ndarray:
    """Return the Shapley interaction of every player of the first modality with every one of the second, (..., A, B).

    Of a picture and a sentence this is the exact matrix of cells by words.

    Parameters
    ----------
    table : array_like, shape (..., 2**P)
    names : sequence of P str
        Modality of each player; two different ones.
    """
    first, second = _sides(names, players_of(table))
    return interactions(table)[..., first, :][..., second]


def _sides(names: Sequence[str], players: int) -> tuple[np.ndarray, np.ndarray]:
    different = list(dict.fromkeys(names))
    if len(names) != players or len(different) != 2:
        raise ValueError(f"got {len(names)} names of {len(different)} modalities for {players} players, expected one name for "
                         "each player, and two modalities.")
    first, second = (np.flatnonzero(np.asarray(names) == name) for name in different)
    return first, second


def best_orders(table: ArrayLike, present: ArrayLike | None = None) -> np.ndarray:
    """Return the order of players that no explanation can beat for this model.

    It has the largest area between its insertion curve, along which the players come in order, and its deletion curve, along
    which they go in the same order.

    Parameters
    ----------
    table : array_like, shape (N, 2**P)
    present : array_like of bool, shape (N, P), optional
        Players that an example has; the others come last and change nothing.

    Returns
    -------
    ndarray of float, shape (N, P)
        Scores as every metric takes them: the first player has the highest; NaN for players that are not present.

    Notes
    -----
    Not a search: the best way to a coalition ends in the best way to one that lacks one player (dynamic programming over
    2**P coalitions, P * 2**P steps).
    """
    table, players = np.asarray(table, dtype=float), players_of(table)
    present = np.ones((len(table), players), bool) if present is None else np.asarray(present)
    scores = np.full((len(table), players), np.nan)
    for row, values, of_example in zip(scores, table, present):
        members = np.flatnonzero(of_example)
        kept = values[_within(members)]  # (2**p,): of the players that the example has
        order = members[_best_chain(kept - kept[::-1])]
        row[order] = np.arange(len(order), 0, -1)
    return scores


def _within(players: np.ndarray) -> np.ndarray:
    """Return the columns of all coalitions of these players, in order."""
    columns = np.zeros(1, dtype=np.int64)
    for k in players:
        columns = np.concatenate([columns, columns + (1 << int(k))])
    return columns


def _best_chain(values: np.ndarray) -> list[int]:
    """Return the order of players along which the values of the growing coalition, (2**p,), have the largest sum."""
    players = players_of(values)
    best, last, size = values.copy(), np.zeros(len(values), dtype=np.int64), sizes(players)
    for step in range(1, players + 1):
        level = np.flatnonzero(size == step)
        bits = level[:, None] >> np.arange(players) & 1
        before = np.where(bits > 0, best[level[:, None] ^ (1 << np.arange(players))], -np.inf)  # without each player
        last[level] = before.argmax(axis=1)
        best[level] = values[level] + before.max(axis=1)
    order, coalition = [], len(values) - 1
    while coalition:
        order.append(int(last[coalition]))
        coalition ^= 1 << order[-1]
    return order[::-1]
