"""Scores of an explanation against the model's own values of coalitions: does it say what the model does?

A *game* is any callable that takes ``keep``, bool (K, N, P), K coalitions of P players for each of N examples, and returns the
model's values (K, N): the evidence for the followed class with only these players left. Scores are (N, P), NaN for players that
an example does not have; those are always kept, as they are. Players of all modalities stand side by side, so that a curve
takes out words and cells in one order; ``among`` limits it to one modality. Every score is one number an example.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.evaluation.truth import row_correlation
from crossexplain.intervals import Interval, mean_interval

Values = Callable[[Tensor], Tensor]  # of coalitions
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of players that a sampled coalition keeps


class Curves(NamedTuple):
    """Values while players come and go, best first.

    Attributes
    ----------
    insertion, deletion : ndarray, shape (N, P + 1)
        With the t best players put in, with the t best taken out; NaN after an example's last player.
    """

    insertion: np.ndarray
    deletion: np.ndarray


def _checked(scores: ArrayLike, among: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (N, P) and which of them count, bool (N, P)."""
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or not scores.size:
        raise InputError(f"got scores of shape {scores.shape}, expected (N, P): a number for each player of each example.")
    if np.isinf(scores).any():
        example = int(np.isinf(scores).any(axis=1).argmax())
        raise InputError(f"example {example} has an infinite score; look for a division by 0.")
    if np.isnan(scores).all():
        raise InputError("all scores are NaN, which stands for players that an example does not have; none is left to rank.")
    present = ~np.isnan(scores)
    if among is None:
        return scores, present
    among = np.asarray(among)
    if among.dtype != bool or among.shape != (scores.shape[1],) or not among.any():
        raise InputError(f"among is {among.dtype} of shape {among.shape}, expected bool ({scores.shape[1]},) with at least one "
                         "player: np.array(game.names) == 'image'.")
    return scores, present & among


def _ask(game: Values, keep: np.ndarray) -> np.ndarray:
    """Return the game's values, (K, N), of coalitions (K, N, P)."""
    values = np.asarray(game(torch.from_numpy(np.ascontiguousarray(keep))), dtype=float)
    if values.shape != keep.shape[:2]:
        raise InputError(f"the game gave values of shape {values.shape} for {keep.shape[0]} coalitions of {keep.shape[1]} "
                         f"examples, expected {keep.shape[:2]}: do scores and game have the same examples?")
    if not np.isfinite(values).all():
        example = int((~np.isfinite(values)).any(axis=0).argmax())
        raise InputError(f"the game gave NaN or infinity for example {example}; look at the model's logit with that example's "
                         "features hidden.")
    return values


def _ranks(scores: np.ndarray, present: np.ndarray, seed: int) -> np.ndarray:
    """Return each player's place, 0 the best; ties at random, players that do not count last."""
    noise = np.random.default_rng(seed).random(scores.shape)
    order = np.lexsort((noise, np.where(present, -scores, np.inf)), axis=1)
    return np.argsort(order, axis=1)


def _scaled(values: np.ndarray, scale: ArrayLike | None) -> np.ndarray:
    """Divide by each example's scale; where that is 0 so is the value, since the model's values are all alike."""
    if scale is None:
        return values
    scale = np.asarray(scale, dtype=float)
    if scale.shape != values.shape or (scale < 0).any():
        raise InputError(f"scale has shape {scale.shape}, expected {values.shape} numbers of at least 0, one an example.")
    return np.asarray(np.divide(values, scale, out=np.where(np.isnan(values), np.nan, 0.0), where=scale > 0))


def curves(game: Values, scores: ArrayLike, among: ArrayLike | None = None, seed: int = 0) -> Curves:
    """Return the insertion and the deletion curve (Petsiuk et al. 2018, RISE), over players of all modalities.

    Parameters
    ----------
    game : callable
        Coalitions bool (K, N, P) to values (K, N).
    scores : array_like, shape (N, P)
        NaN for players that an example does not have. Signed scores: those that speak against the class come last.
    among : array_like of bool, shape (P,), optional
        The players that come and go, such as those of one modality; the others stay. Default: all.
    seed : int
        Players of equal score are ordered at random.

    Returns
    -------
    Curves
    """
    scores, present = _checked(scores, among)
    place, steps = _ranks(scores, present, seed), np.arange(int(present.sum(axis=1).max()) + 1)
    first = place[None] < steps[:, None, None]  # (p + 1, N, P): the t best
    values = _ask(game, np.concatenate([first | ~present, ~first | ~present]))
    reached = steps[:, None] <= present.sum(axis=1)  # (p + 1, N)
    insertion, deletion = (np.where(reached, half, np.nan).T for half in np.split(values, 2))
    return Curves(insertion, deletion)


def _under(curve: np.ndarray) -> np.ndarray:
    """Return the area under curves (N, p + 1) over the share of players, NaN for examples without a player."""
    last = (~np.isnan(curve)).sum(axis=1) - 1
    ends = curve[:, 0] + curve[np.arange(len(curve)), last]
    return np.asarray(np.divide(np.nansum(curve, axis=1) - ends / 2, last, out=np.full(len(curve), np.nan), where=last > 0))


def area_between(game: Values, scores: ArrayLike, among: ArrayLike | None = None, scale: ArrayLike | None = None,
                 seed: int = 0) -> np.ndarray:
    """Area between the insertion and the deletion curve: joint faithfulness over the players of all modalities.

    Baniecki et al. (2025, FIxLIP) draw both curves over the players of both sides of a dual encoder; a game makes no
    difference between that and a fusion model.

    Parameters
    ----------
    game : callable
    scores : array_like, shape (N, P)
    among : array_like of bool, shape (P,), optional
        As for :func:`curves`.
    scale : array_like, shape (N,), optional
        What a value of 1 means for each example, such as the range of the model's values, to bring the area to -1 to 1.
        Where it is 0 all values are alike and the area is 0. Default: in units of the game.
    seed : int
        Order of players of equal score.

    Returns
    -------
    ndarray, shape (N,)
        0 is the expectation of a random order, the reverse order gives the negative; NaN where no player is left.
    """
    both = curves(game, scores, among, seed)
    return _scaled(_under(both.insertion) - _under(both.deletion), scale)


def areas(game: Any, scores: ArrayLike, seed: int = 0, groups: ArrayLike | None = None) -> dict[str, Interval]:
    """Return the mean :func:`area_between` of each modality's players, the other modality left as it is.

    In units of what the whole changes against nothing, on average over the examples.

    Parameters
    ----------
    game : crossexplain.coalitions.game.Game
        Says which modality each player belongs to.
    scores : array_like, shape (N, P)
        A modality whose scores are all NaN is left out: a map of a picture orders no words.
    seed : int
        Order of players of equal score, and bootstrap.
    groups : array_like, shape (N,), optional
        Examples with the same value are drawn together.

    Returns
    -------
    dict of str to Interval
        By modality.
    """
    scores, names = np.asarray(scores, dtype=float), np.array(game.names)
    nothing, whole = np.asarray(game(torch.tensor([[False] * len(names), [True] * len(names)])))
    scale = np.full(len(whole), np.abs(whole - nothing).mean())
    return {name: mean_interval(area_between(game, scores, names == name, scale, seed), seed, groups=groups)
            for name in dict.fromkeys(game.names) if not np.isnan(scores[:, names == name]).all()}


def synergistic_faithfulness(game: Values, scores: ArrayLike, names: Sequence[str], k: int | Mapping[str, int] = 2,
                             draws: int = 64, scale: ArrayLike | None = None, seed: int = 0) -> np.ndarray:
    """What the best players of both modalities are worth together beyond each side alone, less that of random ones.

    The dividend of two sets, ``v(A and B) - v(A) - v(B) + v(none)``, as in the synergistic faithfulness of Ky et al. (2026);
    that of random sets of the same sizes is taken off, so that a model that always joins its sides gives no credit for it.

    Parameters
    ----------
    game : callable
    scores : array_like, shape (N, P)
        Importance, regardless of sign: pass absolute values for signed scores.
    names : sequence of P str
        Modality of each player; two different ones.
    k : int or mapping from modality to int
        Players that are kept on each side.
    draws : int
        Random pairs of sets.
    scale, seed
        As for :func:`area_between`.

    Returns
    -------
    ndarray, shape (N,)
        0 is chance; NaN where an example has fewer than k players on a side.
    """
    scores, present = _checked(scores)
    sides = _sides(names, scores.shape[1])
    k = {name: k for name in sides} if isinstance(k, int) else dict(k)
    for name, side in sides.items():
        if not 1 <= k.get(name, 0) <= side.sum():
            raise InputError(f"k of {name!r} is {k.get(name)}, expected 1 to {side.sum()}, the players it has.")
    rng = np.random.default_rng(seed)
    tries = [scores, *(rng.random(scores.shape) for _ in range(draws))]  # the explanation's, then random ones
    best = [np.stack([_ranks(one, present & side, seed) < k[name] for one in tries]) for name, side in sides.items()]
    enough = np.all([(present & side).sum(axis=1) >= k[name] for name, side in sides.items()], axis=0)
    first, second, none = best[0] | ~present, best[1] | ~present, np.broadcast_to(~present, (1, *present.shape))
    values = _ask(game, np.concatenate([first | second, first, second, none]))
    both, one, other = np.split(values[:-1], 3)
    dividend = both - one - other + values[-1]  # (1 + draws, N)
    beyond_chance = dividend[0] - (dividend[1:].mean(axis=0) if draws else 0.0)
    return _scaled(np.where(enough, beyond_chance, np.nan), scale)


def _sides(names: Sequence[str], players: int) -> dict[str, np.ndarray]:
    sides = {name: np.array([other == name for other in names]) for name in dict.fromkeys(names)}
    if len(names) != players or len(sides) != 2:
        raise InputError(f"got {len(names)} names of {len(sides)} modalities for {players} players, expected one name for "
                         "each player, and two modalities: synergy is between two sides.")
    return sides


def _sampled(game: Values, scores: ArrayLike, rates: Sequence[float], draws: int,
             seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield for each rate the model's values and the sums of the scores of kept players, (draws, N), and v(none), (N,)."""
    scores, present = _checked(scores)
    if draws < 2 or not rates or not all(0 < rate < 1 for rate in rates):
        raise InputError(f"got rates {tuple(rates)} and {draws} draws, expected rates between 0 and 1 and at least 2 draws.")
    rng, known = np.random.default_rng(seed), np.where(present, scores, 0.0)
    none = _ask(game, ~present[None])[0]
    for rate in rates:
        keep = rng.random((draws, 1, scores.shape[1])) < rate
        yield _ask(game, keep | ~present), (keep * known).sum(axis=2), none


def _mean_of(by_rate: list[np.ndarray]) -> np.ndarray:
    """Return the mean over rates of (N,), leaving out rates that have no value; NaN where none has."""
    values = np.stack(by_rate)
    count = (~np.isnan(values)).sum(axis=0)
    return np.asarray(np.divide(np.nansum(values, axis=0), count, out=np.full(values.shape[1], np.nan), where=count > 0))


def coalition_r2(game: Values, scores: ArrayLike, rates: Sequence[float] = RATES, draws: int = 128, seed: int = 0,
                 line: bool = False) -> np.ndarray:
    """Share of the variance of sampled coalitions' values that a sum of the scores explains (R squared).

    The prediction is ``v(none)`` and the scores of the players that are kept. Each inclusion rate counts alike: values of all
    rates in one pot would mostly tell large coalitions from small ones, which any positive scores do.

    Parameters
    ----------
    game : callable
    scores : array_like, shape (N, P)
        Contributions in the game's units, as Shapley values are.
    rates : sequence of float
        Probability of keeping a player; the mean over them is returned, so pass one alone for its own number.
    draws : int
        Coalitions a rate, the same for all examples.
    seed : int
    line : bool
        Predict by the best line through the sum instead, for scores without units: the squared correlation.

    Returns
    -------
    ndarray, shape (N,), at most 1
        Negative where the prediction is worse than the mean; NaN where the sampled coalitions all have one value.
    """
    by_rate = []
    for values, total, none in _sampled(game, scores, rates, draws, seed):
        if line:
            by_rate.append(row_correlation(total.T, values.T, ranks=False) ** 2)
            continue
        spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        missed = ((values - none - total) ** 2).sum(axis=0)
        varies = spread > (1e-12 * np.abs(values).max(axis=0)) ** 2
        by_rate.append(1 - np.divide(missed, spread, out=np.full(spread.shape, np.nan), where=varies))
    return _mean_of(by_rate)


def coalition_rank(game: Values, scores: ArrayLike, rates: Sequence[float] = RATES, draws: int = 128,
                   seed: int = 0) -> np.ndarray:
    """Rank correlation of sampled coalitions' values with the sum of the scores of those kept; mean over the rates.

    With Pearson's correlation and one size of coalitions it is the faithfulness correlation of Bhatt et al. (2020); Baniecki
    et al. (2025) sample by inclusion rate, as here. Parameters as for :func:`coalition_r2`.

    Returns
    -------
    ndarray, shape (N,), in [-1, 1]
        NaN where the values, or the sums, are all alike.
    """
    sampled = _sampled(game, scores, rates, draws, seed)
    return _mean_of([row_correlation(total.T, values.T) for values, total, _ in sampled])
