"""Scores of an explanation against the model's own values of coalitions: does it say what the model does?

A *game* is any callable that takes ``keep``, bool (K, N, P), K coalitions of P players for each of N examples, and returns the
model's values (K, N): the logit of the followed class with only these players there. Scores are (N, P), NaN for players that
an example does not have; those are always kept, as they are. Players of all modalities stand side by side, so that a curve
takes out words and cells in one order; ``among`` limits it to one modality. Every score is one number an example.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from crossexplain.evaluation.truth import row_correlation
from crossexplain.intervals import Interval, mean_interval

Game = Callable[[Tensor], Tensor]
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of players that a sampled coalition keeps
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of pixels that ROAD hides
NEIGHBOURS = [(down, right, 1 / 6 if 0 in (down, right) else 1 / 12)
              for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]


class Table:
    """A game whose values of all coalitions are known, so that every question is a lookup.

    Parameters
    ----------
    values : array_like, shape (N, 2**P)
        Column S has player k iff ``S >> k & 1``.

    Examples
    --------
    >>> Table([[0.0, 1.0, 2.0, 5.0]])(torch.tensor([[[True, False]], [[True, True]]]))
    tensor([[1.],
            [5.]], dtype=torch.float64)
    """

    def __init__(self, values):
        self.values = torch.as_tensor(np.asarray(values, dtype=float))
        shape = tuple(self.values.shape)
        if len(shape) != 2 or shape[1] != 1 << (shape[1].bit_length() - 1):
            raise ValueError(f"a table of shape {shape} came, expected (N, 2**P): one column a coalition.")

    def __call__(self, keep: Tensor) -> Tensor:
        players = self.values.shape[1].bit_length() - 1
        if keep.shape[-1] != players:
            raise ValueError(f"coalitions of {keep.shape[-1]} players came, the table has {players}.")
        column = (keep.long() << torch.arange(players)).sum(dim=-1)  # (K, N), or (K,) for all examples alike
        column = column[:, None].expand(-1, len(self.values)) if column.ndim == 1 else column
        return self.values[torch.arange(len(self.values)), column]


class Curves(NamedTuple):
    """Values while players come and go, best first.

    Attributes
    ----------
    insertion, deletion : ndarray, shape (N, P + 1)
        With the t best players put in, with the t best taken out; NaN behind an example's last player.
    """

    insertion: np.ndarray
    deletion: np.ndarray


def _checked(scores, among=None) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (N, P) and which of them count, bool (N, P)."""
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores of shape {scores.shape} came, expected (N, P): a number for each player of each example.")
    if np.isinf(scores).any():
        example = int(np.isinf(scores).any(axis=1).argmax())
        raise ValueError(f"example {example} has an infinite score; look for a division by 0.")
    if np.isnan(scores).all():
        raise ValueError("all scores are NaN, which stands for players that an example does not have; nothing is left to rank.")
    there = ~np.isnan(scores)
    if among is None:
        return scores, there
    among = np.asarray(among)
    if among.dtype != bool or among.shape != (scores.shape[1],) or not among.any():
        raise ValueError(f"among is {among.dtype} of shape {among.shape}, expected bool ({scores.shape[1]},) with at least one "
                         "player: np.array(game.names) == 'image'.")
    return scores, there & among


def _ask(game: Game, keep: np.ndarray) -> np.ndarray:
    """Return the game's values, (K, N), of coalitions (K, N, P)."""
    values = np.asarray(game(torch.from_numpy(np.ascontiguousarray(keep))), dtype=float)
    if values.shape != keep.shape[:2]:
        raise ValueError(f"the game gave values of shape {values.shape} for {keep.shape[0]} coalitions of {keep.shape[1]} "
                         f"examples, expected {keep.shape[:2]}: do scores and game have the same examples?")
    if not np.isfinite(values).all():
        example = int((~np.isfinite(values)).any(axis=0).argmax())
        raise ValueError(f"the game gave NaN or infinity for example {example}; look at the model's logit with that example's "
                         "features hidden.")
    return values


def _ranks(scores: np.ndarray, there: np.ndarray, seed: int) -> np.ndarray:
    """Return each player's place, 0 the best; ties at random, players that do not count last."""
    noise = np.random.default_rng(seed).random(scores.shape)
    order = np.lexsort((noise, np.where(there, -scores, np.inf)), axis=1)
    return np.argsort(order, axis=1)


def _scaled(values: np.ndarray, scale) -> np.ndarray:
    """Divide by each example's scale; where that is 0 so is the value, since the model's values are all alike."""
    if scale is None:
        return values
    scale = np.asarray(scale, dtype=float)
    if scale.shape != values.shape or (scale < 0).any():
        raise ValueError(f"scale has shape {scale.shape}, expected {values.shape} numbers of at least 0, one an example.")
    return np.divide(values, scale, out=np.where(np.isnan(values), np.nan, 0.0), where=scale > 0)


def curves(game: Game, scores, among=None, seed: int = 0) -> Curves:
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
    scores, there = _checked(scores, among)
    place, steps = _ranks(scores, there, seed), np.arange(int(there.sum(axis=1).max()) + 1)
    first = place[None] < steps[:, None, None]  # (p + 1, N, P): the t best
    values = _ask(game, np.concatenate([first | ~there, ~first | ~there]))
    reached = steps[:, None] <= there.sum(axis=1)  # (p + 1, N)
    insertion, deletion = (np.where(reached, half, np.nan).T for half in np.split(values, 2))
    return Curves(insertion, deletion)


def _under(curve: np.ndarray) -> np.ndarray:
    """Return the area under curves (N, p + 1) over the share of players, NaN for examples without a player."""
    last = (~np.isnan(curve)).sum(axis=1) - 1
    ends = curve[:, 0] + curve[np.arange(len(curve)), last]
    return np.divide(np.nansum(curve, axis=1) - ends / 2, last, out=np.full(len(curve), np.nan), where=last > 0)


def insertion_area(game: Game, scores, among=None, scale=None, seed: int = 0) -> np.ndarray:
    """Area under the insertion curve (Petsiuk et al. 2018); higher is better. Parameters as for :func:`area_between`."""
    return _scaled(_under(curves(game, scores, among, seed).insertion), scale)


def deletion_area(game: Game, scores, among=None, scale=None, seed: int = 0) -> np.ndarray:
    """Area under the deletion curve (Petsiuk et al. 2018); lower is better. Parameters as for :func:`area_between`."""
    return _scaled(_under(curves(game, scores, among, seed).deletion), scale)


def area_between(game: Game, scores, among=None, scale=None, seed: int = 0) -> np.ndarray:
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


def areas(game, scores, seed: int = 0, groups=None) -> dict[str, Interval]:
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


def synergistic_faithfulness(game: Game, scores, names: Sequence[str], k: int | Mapping[str, int] = 2, draws: int = 64,
                             scale=None, seed: int = 0) -> np.ndarray:
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
    scores, there = _checked(scores)
    sides = _sides(names, scores.shape[1])
    k = {name: k for name in sides} if isinstance(k, int) else dict(k)
    for name, side in sides.items():
        if not 1 <= k.get(name, 0) <= side.sum():
            raise ValueError(f"k of {name!r} is {k.get(name)}, expected 1 to {side.sum()}, the players it has.")
    rng = np.random.default_rng(seed)
    tries = [scores, *(rng.random(scores.shape) for _ in range(draws))]  # the explanation's, then random ones
    best = [np.stack([_ranks(some, there & side, seed) < k[name] for some in tries]) for name, side in sides.items()]
    enough = np.all([(there & side).sum(axis=1) >= k[name] for name, side in sides.items()], axis=0)
    first, second, none = best[0] | ~there, best[1] | ~there, np.broadcast_to(~there, (1, *there.shape))
    values = _ask(game, np.concatenate([first | second, first, second, none]))
    both, one, other = np.split(values[:-1], 3)
    dividend = both - one - other + values[-1]  # (1 + draws, N)
    found = dividend[0] - (dividend[1:].mean(axis=0) if draws else 0.0)
    return _scaled(np.where(enough, found, np.nan), scale)


def _sides(names: Sequence[str], players: int) -> dict[str, np.ndarray]:
    sides = {name: np.array([other == name for other in names]) for name in dict.fromkeys(names)}
    if len(names) != players or len(sides) != 2:
        raise ValueError(f"{len(names)} names of {len(sides)} modalities came for {players} players; expected one name for "
                         "each player, and two modalities: synergy is between two sides.")
    return sides


def _sampled(game: Game, scores, rates: Sequence[float], draws: int, seed: int):
    """Yield for each rate the model's values (draws, N), the sums of the scores of kept players, and the ends' values."""
    scores, there = _checked(scores)
    if draws < 2 or not rates or not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"rates {tuple(rates)} and {draws} draws came, expected rates between 0 and 1 and at least 2 draws.")
    rng, known = np.random.default_rng(seed), np.where(there, scores, 0.0)
    none, whole = _ask(game, np.stack([~there, np.ones_like(there)]))
    for rate in rates:
        keep = rng.random((draws, 1, scores.shape[1])) < rate
        yield _ask(game, keep | ~there), (keep * known).sum(axis=2), none, known.sum(axis=1), whole


def _mean_of(found: list[np.ndarray]) -> np.ndarray:
    """Return the mean over rates of (N,), leaving out rates that have no value; NaN where none has."""
    found, defined = np.stack(found), ~np.isnan(np.stack(found))
    count = defined.sum(axis=0)
    total = np.where(defined, found, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(found.shape[1], np.nan), where=count > 0)


def coalition_r2(game: Game, scores, rates: Sequence[float] = RATES, draws: int = 128, seed: int = 0,
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
    found = []
    for values, total, none, _, _ in _sampled(game, scores, rates, draws, seed):
        if line:
            found.append(row_correlation(total.T, values.T, ranks=False) ** 2)
            continue
        spread = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        missed = ((values - none - total) ** 2).sum(axis=0)
        varies = spread > (1e-12 * np.abs(values).max(axis=0)) ** 2
        found.append(1 - np.divide(missed, spread, out=np.full(spread.shape, np.nan), where=varies))
    return _mean_of(found)


def coalition_rank(game: Game, scores, rates: Sequence[float] = RATES, draws: int = 128, seed: int = 0) -> np.ndarray:
    """Rank correlation of sampled coalitions' values with the sum of the scores of those kept; mean over the rates.

    With Pearson's correlation and one size of coalitions it is the faithfulness correlation of Bhatt et al. (2020); Baniecki
    et al. (2025) sample by inclusion rate, as here. Parameters as for :func:`coalition_r2`.

    Returns
    -------
    ndarray, shape (N,), in [-1, 1]
        NaN where the values, or the sums, are all alike.
    """
    sampled = _sampled(game, scores, rates, draws, seed)
    return _mean_of([row_correlation(total.T, values.T) for values, total, *_ in sampled])


def infidelity(game: Game, scores, rates: Sequence[float] = RATES, draws: int = 128, seed: int = 0) -> np.ndarray:
    """Mean squared gap between what the hidden players' scores sum to and what hiding them costs (Yeh et al. 2019).

    Their perturbation is here the hiding of random players, and the score of a player is what its hiding is said to cost.
    Parameters as for :func:`coalition_r2`.

    Returns
    -------
    ndarray, shape (N,), at least 0
        In squared units of the game; lower is better.
    """
    gaps = [(((every - total) - (whole - values)) ** 2).mean(axis=0)
            for values, total, _, every, whole in _sampled(game, scores, rates, draws, seed)]
    return np.mean(gaps, axis=0)


def _neighbours(height: int, width: int) -> sparse.csr_matrix:
    """Return the weights of each pixel's neighbours, (H * W, H * W), rows summing to 1."""
    place = np.arange(height * width).reshape(height, width)
    rows, columns, weights = [], [], []
    for down, right, weight in NEIGHBOURS:
        of = place[max(0, -down): height - max(0, down), max(0, -right): width - max(0, right)].ravel()
        rows.append(of)
        columns.append(of + down * width + right)
        weights.append(np.full(of.size, weight))
    found = sparse.csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))))
    return sparse.diags(1 / np.asarray(found.sum(axis=1)).ravel()) @ found


def impute(image: np.ndarray, hidden: np.ndarray, noise: float = 0.01, rng: np.random.Generator | None = None) -> np.ndarray:
    """Fill hidden pixels with the weighted mean of their neighbours, all at once (Rong et al. 2022, ROAD).

    Direct neighbours weigh twice as much as diagonal ones; those of hidden pixels may be hidden themselves, so that the fill
    is the solution of a sparse linear system.

    Parameters
    ----------
    image : ndarray, shape (C, H, W)
    hidden : ndarray of bool, shape (H, W)
        At least one pixel is not.
    noise : float
        Standard deviation of what is added, so that a model cannot tell filled pixels by their smoothness.
    rng : numpy.random.Generator, optional

    Returns
    -------
    ndarray, shape (C, H, W)
    """
    if hidden.all():
        raise ValueError("all pixels are hidden; nothing is left to fill them from.")
    filled, out = np.array(image, dtype=float).reshape(len(image), -1), np.flatnonzero(hidden)
    if out.size:
        weights, known = _neighbours(*hidden.shape), np.flatnonzero(~hidden)
        system = sparse.eye(out.size, format="csc") - weights[out][:, out].tocsc()
        solved = spsolve(system, weights[out][:, known] @ filled[:, known].T).reshape(out.size, -1)
        rng = np.random.default_rng(0) if rng is None else rng
        filled[:, out] = solved.T + noise * rng.standard_normal((len(image), out.size))
    return filled.reshape(np.shape(image))


def road(model: Callable[[Tensor], Tensor], images: Tensor, heat, shares: Sequence[float] = SHARES, noise: float = 0.01,
         seed: int = 0) -> np.ndarray:
    """Remove and debias: what hiding the coldest pixels leaves over what hiding the hottest leaves (Rong et al. 2022).

    Half the difference of the logits, averaged over the shares of pixels that are hidden, as grad-cam's ``ROADCombined``.

    Parameters
    ----------
    model : callable
        Images (N, C, H, W) to evidence for the followed class (N,). For a pair, close over the sentence.
    images : Tensor, shape (N, C, H, W)
    heat : array_like, shape (N, H, W)
    shares : sequence of float
        Between 0 and 1.
    noise : float
        As for :func:`impute`.
    seed : int
        Of the noise, and of the order of equally hot pixels.

    Returns
    -------
    ndarray, shape (N,)
        Higher is better, 0 is chance.
    """
    heat = np.asarray(heat, dtype=float)
    n, _, height, width = images.shape
    if heat.shape != (n, height, width) or not np.isfinite(heat).all():
        raise ValueError(f"heat maps of shape {heat.shape} came, expected {(n, height, width)} finite numbers to match the "
                         "images.")
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares {tuple(shares)} came, expected numbers between 0 and 1.")
    everywhere, rng = np.ones((n, height * width), dtype=bool), np.random.default_rng(seed)
    hottest, gains = _ranks(heat.reshape(n, -1), everywhere, seed), []
    for share in shares:
        count = height * width - int(np.ceil(round((height * width - 1) * (1 - share), 9)))
        hot, cold = hottest < count, hottest >= height * width - count
        left = [_values(model, images, mask.reshape(n, height, width), noise, rng) for mask in (hot, cold)]
        gains.append((left[1] - left[0]) / 2)
    return np.mean(gains, axis=0)


@torch.no_grad()
def _values(model, images: Tensor, hidden: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    filled = np.stack([impute(image, mask, noise, rng) for image, mask in zip(images.detach().cpu().numpy(), hidden)])
    values = np.asarray(model(torch.from_numpy(filled).to(images)).detach().cpu(), dtype=float)
    if values.shape != (len(images),):
        raise ValueError(f"the model gave {values.shape} for {len(images)} images, expected one number an image: the "
                         "logit of the followed class.")
    return values
