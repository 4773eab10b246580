"""Scores of an explanation against a known truth, and the baselines that it has to beat.

Heat maps are arrays of shape (N, H, W), boxes (N, 4) as ``top, left, bottom, right`` with the last two exclusive. Scores of
features (tokens, cells, players) are (N, F), NaN where an example has no such feature.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.stats import rankdata

from crossexplain.checks import InputError


def box_masks(boxes: ArrayLike, height: int, width: int) -> np.ndarray:
    """Return boxes as masks.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        Top, left, bottom, right in pixels; bottom and right exclusive.

    Returns
    -------
    ndarray of bool, shape (N, H, W)
    """
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"boxes have shape {boxes.shape}, expected (N, 4): top, left, bottom, right.")
    rows, columns = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    top, left, bottom, right = (boxes[:, i, None, None] for i in range(4))
    return np.asarray((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))


def _heat(heat: ArrayLike, n: int) -> np.ndarray:
    heat = np.asarray(heat, dtype=float)
    if heat.ndim != 3 or heat.shape[0] != n:
        raise InputError(f"heat maps have shape {heat.shape}, expected ({n}, H, W) to match {n} boxes.")
    if not np.isfinite(heat).all():
        raise InputError("heat maps hold NaN or infinity; look for a 0/0 in the normalisation.")
    return heat


def pointing_game(heat: ArrayLike, boxes: ArrayLike) -> np.ndarray:
    """Does the hottest pixel lie in the box? (Zhang et al. 2018, "Top-down neural attention by excitation backprop".)

    Ties share the point: the score is the share of the hottest pixels that lie in the box, so a constant map scores
    the area of the box and not whatever its first pixel happens to hit.

    Parameters
    ----------
    heat : array_like, shape (N, H, W)
    boxes : array_like, shape (N, 4)

    Returns
    -------
    ndarray, shape (N,), in [0, 1]
    """
    heat = _heat(heat, len(np.asarray(boxes)))
    inside = box_masks(boxes, *heat.shape[1:])
    hottest = heat == heat.max(axis=(1, 2), keepdims=True)
    return np.asarray((hottest & inside).sum(axis=(1, 2)) / hottest.sum(axis=(1, 2)))


def energy_in_box(heat: ArrayLike, boxes: ArrayLike) -> np.ndarray:
    """Share of the positive heat that lies in the box (energy-based pointing game, Wang et al. 2020, Score-CAM).

    Parameters
    ----------
    heat : array_like, shape (N, H, W)
        Negative values count as 0.
    boxes : array_like, shape (N, 4)

    Returns
    -------
    ndarray, shape (N,), in [0, 1]
        NaN where a map has no positive value.
    """
    positive: np.ndarray = np.clip(_heat(heat, len(np.asarray(boxes))), 0, None)
    inside = box_masks(boxes, *positive.shape[1:])
    total = positive.sum(axis=(1, 2))
    share = np.divide((positive * inside).sum(axis=(1, 2)), total, out=np.full(len(total), np.nan), where=total > 0)
    return np.asarray(share)


def _features(scores: ArrayLike, cues: ArrayLike, mask: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, cues = np.asarray(scores, dtype=float), np.asarray(cues, dtype=bool)
    mask = ~np.isnan(scores) if mask is None else np.asarray(mask, dtype=bool)
    if not scores.shape == cues.shape == mask.shape:
        raise InputError(f"scores {scores.shape}, cues {cues.shape} and mask {mask.shape} must have one shape (N, F).")
    if (np.isnan(scores) & mask).any():
        example = int((np.isnan(scores) & mask).any(axis=1).argmax())
        raise InputError(f"the mask counts features whose score is NaN (first in example {example}); leave them out of it, "
                         "or score them (special tokens: special='keep').")
    return scores, cues, mask


def cue_auroc(scores: ArrayLike, cues: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Do the cue features outscore the others? One area under the ROC curve an example.

    Parameters
    ----------
    scores : array_like, shape (N, F)
        Importance of each token, cell or word.
    cues : array_like of bool, shape (N, F)
        The features that decide.
    mask : array_like of bool, shape (N, F), optional
        The features that count (padding left out); default those that have a score (not NaN).

    Returns
    -------
    ndarray, shape (N,)
        0.5 is chance; NaN where an example has no cue or nothing but cues.

    Raises
    ------
    InputError
        For arrays of different shapes, and features in ``mask`` that have no score.
    """
    scores, cues, mask = _features(scores, cues, mask)
    result = np.full(len(scores), np.nan)
    for i, (score, cue, keep) in enumerate(zip(scores, cues, mask)):
        ranks, count = rankdata(score[keep]), int(cue[keep].sum())
        if 0 < count < len(ranks):  # Mann and Whitney: of pairs of a cue and another feature, those with the cue above
            result[i] = (ranks[cue[keep]].sum() - count * (count + 1) / 2) / (count * (len(ranks) - count))
    return result


def row_correlation(first: ArrayLike, second: ArrayLike, ranks: bool = True) -> np.ndarray:
    """Correlation of two score arrays, row by row, over the entries that both have.

    Parameters
    ----------
    first, second : array_like, shape (N, F)
        NaN entries are left out.
    ranks : bool
        Spearman's rank correlation (ties get their mean rank) instead of Pearson's.

    Returns
    -------
    ndarray, shape (N,), in [-1, 1]
        NaN where a row is constant or has fewer than two entries.

    Examples
    --------
    >>> row_correlation([[1, 2, 9], [1, 1, 1]], [[0, 5, 6], [1, 2, 3]])
    array([ 1., nan])
    """
    one, other = np.array(first, dtype=float), np.array(second, dtype=float)
    if one.shape != other.shape or one.ndim != 2:
        raise InputError(f"got scores of shape {one.shape} and {other.shape}, expected twice the same (N, F).")
    missing = np.isnan(one) | np.isnan(other)
    one[missing] = other[missing] = np.nan
    if ranks and one.size:
        one, other = (rankdata(x, axis=1, nan_policy="omit") for x in (one, other))
    (one, flat), (other, level) = (_centred(x) for x in (one, other))
    length = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    product = (one * other).sum(axis=1)
    return np.asarray(np.clip(np.divide(product, length, out=np.full(len(one), np.nan), where=~(flat | level)), -1, 1))


def _centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows less their mean, 0 where NaN, and which rows are constant."""
    defined = ~np.isnan(x)
    size = np.abs(np.where(defined, x, 0.0)).max(axis=1, initial=0.0)
    mean = np.where(defined, x, 0.0).sum(axis=1) / np.maximum(defined.sum(axis=1), 1)
    centred = np.where(defined, x - mean[:, None], 0.0)
    # Rounding moves the entries of a constant row slightly off their mean; that is no order.
    return centred, np.abs(centred).max(axis=1, initial=0.0) <= 1e-12 * size


def edge_map(images: ArrayLike) -> np.ndarray:
    """Sobel edges of the grey image: the baseline that never saw the model (Adebayo et al. 2018).

    Parameters
    ----------
    images : array_like, shape (N, C, H, W)

    Returns
    -------
    ndarray, shape (N, H, W)
    """
    grey = np.asarray(images, dtype=float).mean(axis=1)  # (N, H, W)
    return np.asarray(np.hypot(ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=2)))


def random_map(n: int, height: int, width: int, seed: int, sigma: float = 4.0) -> np.ndarray:
    """Smooth random maps: what a method that knows nothing would draw.

    Parameters
    ----------
    sigma : float
        Width of the smoothing in pixels, to match the coarseness of an upsampled map; 0 for white noise.

    Returns
    -------
    ndarray, shape (N, H, W), in [0, 1]

    Raises
    ------
    InputError
        For maps of fewer than two pixels.
    """
    if height * width < 2:
        raise InputError(f"got maps of {height} x {width}, expected at least two pixels.")
    noise = np.random.default_rng(seed).normal(size=(n, height, width))
    # Smoothed across opposite edges, so that the hottest place is equally likely everywhere.
    smooth = ndimage.gaussian_filter(noise, sigma=(0, sigma, sigma), mode="wrap") if sigma else noise
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return np.asarray((smooth - low) / (high - low))


def random_scores(present: ArrayLike, seed: int) -> np.ndarray:
    """Random scores of players: what a method that knows nothing would say.

    Parameters
    ----------
    present : array_like of bool, shape (N, P)
        Players that each example has.

    Returns
    -------
    ndarray, shape (N, P), in [0, 1), NaN where absent
    """
    present = np.asarray(present, dtype=bool)
    return np.where(present, np.random.default_rng(seed).random(present.shape), np.nan)
