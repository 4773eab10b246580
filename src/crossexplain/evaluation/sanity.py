"""Sanity of an explanation: does it change when the model or the labels do, and stay when nothing that matters changes?

Each check takes a callable that explains, in the form that the check varies, and returns one number an example. ``explain``
gives scores (N, F), or maps (N, H, W), which are flattened. For signed scores whose sign is arbitrary pass absolute values.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import kendalltau
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.evaluation.truth import row_correlation

Explain = Callable[..., object]
Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of two arrays (N, F), (N,)


def _flat(scores: object) -> np.ndarray:
    scores = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores, dtype=float)
    if scores.ndim < 2 or not scores.size:
        raise InputError(f"the explanation has shape {scores.shape}, expected (N, F): one row of scores an example.")
    if np.isnan(scores).all():
        raise InputError("the explanation is NaN everywhere; no score is left to compare.")
    return scores.reshape(len(scores), -1)


def _redraw(layer: nn.Module, seed: int) -> None:
    """Draw a layer's own weights anew as at the start; where it has no such rule, shuffle them."""
    if callable(reset := getattr(layer, "reset_parameters", None)):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            reset()
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in layer.parameters(recurse=False):
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))


def redrawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of a model with all weights drawn anew: what it looks at says nothing of what was learned."""
    changed = deepcopy(model)
    for layer in changed.modules():
        _redraw(layer, seed)
    return changed


def randomised_weights(explain: Callable[[nn.Module], object], model: nn.Module, layers: Sequence[str] | None = None,
                       cascade: bool = True, seed: int = 0,
                       similarity: Similarity = row_correlation) -> dict[str, np.ndarray]:
    """How alike is the explanation of a model whose weights were drawn anew, layer by layer from the top? (Adebayo et al. 2018)

    Parameters
    ----------
    explain : callable
        Model to scores (N, F). It must read everything from the model that it is given.
    model : torch.nn.Module
        Is not changed: copies are.
    layers : sequence of str, optional
        Names of submodules, in the order in which they are drawn anew. Default: all that have weights of their own, the last
        that was defined first.
    cascade : bool
        Keep what was drawn anew before; else one layer alone at a time.
    seed : int
    similarity : callable
        Two arrays (N, F) to (N,).

    Returns
    -------
    dict of str to ndarray, shape (N,)
        By layer. Near 1 under a cascade that reached the input: the explanation does not depend on what the model has learnt.
        NaN where an explanation is constant, as that of a model that ignores its input is.

    Raises
    ------
    InputError
        For layers that the model does not have, or that have no weights.
    """
    named = dict(model.named_modules())
    weighted = [name for name, layer in named.items() if any(True for _ in layer.parameters(recurse=False))]
    chosen = weighted[::-1] if layers is None else list(layers)
    for name in chosen:
        if name not in weighted:
            raise InputError(f"got layer {name!r}, expected one with weights of its own: {', '.join(weighted) or 'none'}.")
    if not chosen:
        raise InputError("the model has no weights to draw anew.")
    before, changed, similarities = _flat(explain(model)), deepcopy(model), {}
    for name in chosen:
        if not cascade:
            changed = deepcopy(model)
        _redraw(changed.get_submodule(name), seed)
        similarities[name] = similarity(before, _flat(explain(changed)))
    return similarities


def shuffled_labels(explain: Callable[[nn.Module], object], model: nn.Module, fit: Callable[[np.ndarray], nn.Module],
                    labels: ArrayLike, seed: int = 0, similarity: Similarity = row_correlation) -> np.ndarray:
    """How alike is the explanation of a model that was trained on shuffled labels? (Adebayo et al. 2018)

    Parameters
    ----------
    explain : callable
        Model to scores (N, F), of examples that neither model need have seen.
    model : torch.nn.Module
        Trained on ``labels``.
    fit : callable
        Labels to a trained model of the same kind.
    labels : array_like, shape (M,)
        Of the training examples; at least two different ones.
    seed, similarity
        As for :func:`randomised_weights`.

    Returns
    -------
    ndarray, shape (N,)
        Near 1: the explanation shows the data or the architecture, not what was learnt about the labels.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(np.unique(labels)) < 2:
        raise InputError(f"got labels of shape {labels.shape} with {len(np.unique(labels))} values, expected (M,) with at "
                         "least two: shuffling equal labels changes nothing.")
    other = fit(np.random.default_rng(seed).permutation(labels))
    return similarity(_flat(explain(model)), _flat(explain(other)))


def largest_change(scores: object, others: Iterable[object]) -> np.ndarray:
    """Return the largest distance of other scores (N, F) from these as a share of their length (of 1 if it is 0), (N,)."""
    before = _flat(scores)
    largest, length = np.zeros(len(before)), np.sqrt(np.nansum(before**2, axis=1))
    for other in others:
        gap = np.sqrt(np.nansum((_flat(other) - before) ** 2, axis=1))
        largest = np.maximum(largest, gap / np.where(length > 0, length, 1.0))
    return np.where(np.isnan(before).all(axis=1), np.nan, largest)


def rank_stability(scores: Mapping[str, object], kind: str = "kendall", least: int = 4) -> np.ndarray:
    """Do the features keep their order when another baseline stands in for what is hidden? (Sturmfels et al. 2020)

    Parameters
    ----------
    scores : mapping from baseline to array_like, shape (N, F)
    kind : str
        ``"kendall"`` (tau-b) or ``"spearman"``.
    least : int
        Baselines to ask for: few agree by luck.

    Returns
    -------
    ndarray, shape (N,), in [-1, 1]
        Mean over all pairs of baselines; pairs where one is constant are left out, NaN where all are.
    """
    if kind not in ("kendall", "spearman"):
        raise InputError(f"got kind {kind!r}, expected 'kendall' or 'spearman'.")
    if len(scores) < max(least, 2):
        raise InputError(f"got {len(scores)} baselines ({', '.join(scores)}), expected at least {max(least, 2)}.")
    arrays = {name: _flat(values) for name, values in scores.items()}
    if len({values.shape for values in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise InputError(f"got scores of different shapes, {shapes}; expected the same examples and features.")
    correlation = _kendall if kind == "kendall" else row_correlation
    correlations = np.stack([correlation(first, second) for first, second in combinations(arrays.values(), 2)])
    count = (~np.isnan(correlations)).sum(axis=0)
    mean = np.divide(np.nansum(correlations, axis=0), count, out=np.full(correlations.shape[1], np.nan), where=count > 0)
    return np.asarray(mean)


def _kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    both = ~np.isnan(first) & ~np.isnan(second)
    return np.array([kendalltau(x[keep], y[keep]).statistic if keep.sum() > 1 else np.nan
                     for x, y, keep in zip(first, second, both)])
