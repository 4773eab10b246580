"""Scores of an explanation against a known truth, and the baselines that it has to beat.

Heat maps are arrays of shape (N, H, W), boxes (N, 4) as ``top, left, bottom, right`` with the last two exclusive.
"""

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score


def box_masks(boxes, height: int, width: int) -> np.ndarray:
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
        raise ValueError(f"boxes have shape {boxes.shape}, expected (N, 4): top, left, bottom, right.")
    rows, columns = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    top, left, bottom, right = (boxes[:, i, None, None] for i in range(4))
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def _heat(heat, n: int) -> np.ndarray:
    heat = np.asarray(heat, dtype=float)
    if heat.ndim != 3 or heat.shape[0] != n:
        raise ValueError(f"heat maps have shape {heat.shape}, expected ({n}, H, W) to match {n} boxes.")
    if not np.isfinite(heat).all():
        raise ValueError("heat maps hold NaN or infinity; look for a 0/0 in the normalisation.")
    return heat


def pointing_game(heat, boxes) -> np.ndarray:
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
    heat = _heat(heat, len(boxes))
    inside = box_masks(boxes, *heat.shape[1:])
    hottest = heat == heat.max(axis=(1, 2), keepdims=True)
    return (hottest & inside).sum(axis=(1, 2)) / hottest.sum(axis=(1, 2))


def energy_in_box(heat, boxes) -> np.ndarray:
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
    heat = np.clip(_heat(heat, len(boxes)), 0, None)
    inside = box_masks(boxes, *heat.shape[1:])
    total = heat.sum(axis=(1, 2))
    return np.divide((heat * inside).sum(axis=(1, 2)), total, out=np.full(len(heat), np.nan), where=total > 0)


def cue_auroc(scores, cues, mask=None) -> np.ndarray:
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
    ValueError
        For arrays of different shapes, and features in ``mask`` that have no score.
    """
    scores, cues = np.asarray(scores, dtype=float), np.asarray(cues, dtype=bool)
    mask = ~np.isnan(scores) if mask is None else np.asarray(mask, dtype=bool)
    if not scores.shape == cues.shape == mask.shape:
        raise ValueError(f"scores {scores.shape}, cues {cues.shape} and mask {mask.shape} must have one shape (N, F).")
    if (np.isnan(scores) & mask).any():
        example = int((np.isnan(scores) & mask).any(axis=1).argmax())
        raise ValueError(f"the mask counts features whose score is NaN (first in example {example}); leave them out of it, "
                         "or score them (special tokens: special='keep').")
    result = np.full(len(scores), np.nan)
    for i, (score, cue, keep) in enumerate(zip(scores, cues, mask)):
        if cue[keep].any() and not cue[keep].all():
            result[i] = roc_auc_score(cue[keep], score[keep])
    return result


def edge_map(images) -> np.ndarray:
    """Sobel edges of the grey image: the baseline that never saw the model (Adebayo et al. 2018).

    Parameters
    ----------
    images : array_like, shape (N, C, H, W)

    Returns
    -------
    ndarray, shape (N, H, W)
    """
    grey = np.asarray(images, dtype=float).mean(axis=1)  # (N, H, W)
    return np.hypot(ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=2))


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
    ValueError
        For maps of fewer than two pixels.
    """
    if height * width < 2:
        raise ValueError(f"maps of {height} x {width} came, expected at least two pixels: one has no hottest among others.")
    noise = np.random.default_rng(seed).normal(size=(n, height, width))
    # Round the edges, so that no place is likelier to be the hottest than another.
    smooth = ndimage.gaussian_filter(noise, sigma=(0, sigma, sigma), mode="wrap") if sigma else noise
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return (smooth - low) / (high - low)
