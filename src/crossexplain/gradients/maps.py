"""Maps over an image: what in it speaks for, or against, a class.

All methods read one thing, the activations and gradients that :func:`crossexplain.gradients.capture.capture` returns,
and differ in how they fold the channels away. Write A for the activations of one example (C, H, W) and G for the
gradient of the explained score with respect to them, of the same shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossexplain.checks import InputError, require_methods, require_one_of
from crossexplain.gradients.attention import METHODS as ATTENTION_METHODS
from crossexplain.gradients.attention import attention_maps, roll, watched
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.capture import ModelInputs, capture
from crossexplain.gradients.layouts import Place, path_of
from crossexplain.gradients.reading import Reader
from crossexplain.gradients.sharing import shared

SIGNS = ("prediction", "for", "against")
# Of the first principal component: how many vectors are iterated together, how often, and the relative error from which the
# iteration counts as not settled, some ten times the rounding error of single precision. On maps of SqueezeNet and of the
# dual encoder 16 vectors settle in about 4 rounds; one vector alone takes hundreds.
BLOCK, STEPS, SETTLED = 16, 4, 2e-6


@dataclass(frozen=True)
class Method:
    """One way to fold activations and gradients into a map.

    Attributes
    ----------
    fold : callable
        ``fold(A, G)``, both (N, C, H, W), gives (N, H, W); G is None where the method needs no gradients.
    line : str
        What it does, in one line.
    source : str
        Who proposed it, with the equation where there is one.
    signed : bool
        Whether a place can speak against the class; otherwise only what is positive is kept, as published.
    gradients : bool
        Whether it needs gradients at all.
    title : str
        Its name for readers; default its key.
    """

    fold: Callable[[Tensor, Any], Tensor]
    line: str
    source: str
    signed: bool = False
    gradients: bool = True
    title: str = ""


def attribute(model: nn.Module, inputs: ModelInputs, layer: str,
              method: str | Sequence[str] = "grad-cam", target: int | Tensor | None = None, sign: str = "prediction",
              positive: bool | None = None, grid: tuple[int, int] | None = None, attention: Sequence[str] = (), *,
              layout: str | None = None, patches: tuple[int, int] | None = None,
              positions: object = None) -> Tensor | dict[str, Tensor]:
    """Return one map an example: where at ``layer`` the evidence lies; all methods from one forward and one backward pass.

    Parameters
    ----------
    model : torch.nn.Module
        With logits (N, classes), or (N,) where one logit says yes (above 0) or no. In eval mode.
    inputs : mapping, tuple, list or Tensor
        As for :func:`~crossexplain.gradients.capture.capture`; a dict for models of several modalities.
    layer : str
        Name of a layer that gives (N, C, H, W) or (N, H, W, C), or of an input, as in ``"input:images"``. Or of a layer of
        tokens, (N, special + P, D), whose last P are the patches row by row: they are laid out as a map.
    method : str or sequence of str
        Names of :data:`METHODS`, or ``"attention-relevance"`` or ``"attention-rollout"``, for which ``layer`` is any place
        before the first of the attention modules.
    target : int or Tensor of shape (N,), optional
        The class, for ``sign="for"`` and ``"against"``; of a single logit, 1 is yes and 0 is no.
        Default: the predicted class; of a single logit, yes.
    sign : {"prediction", "for", "against"}
        ``"prediction"``: evidence for what the model predicts; where a single logit says no, evidence for the no.
        ``"for"``, ``"against"``: evidence for and against the target class. Against is the same method on minus the
        logit.
    positive : bool, optional
        True keeps evidence above 0 only, False keeps the sign. Default: what the method's authors do.
    grid, patches : (int, int), optional
        Rows and columns of patches, by either name. Default: what the convolution that cuts them and the sizes say.
    attention : sequence of str
        For attention relevance and rollout: the self-attention modules, from the first to the last, whose second output is the
        map; ``"name#2"`` where it is another one. Relevance takes modules of cross-attention too, whose columns are patches.
    layout : {"NCHW", "NHWC", "NTD", "TND", "NDT"}, optional
        Which axis of the layer is which. Default: what the kind of the layer says, else its sizes against the picture's.
    positions : slice, range or sequence of int, optional
        Which positions of the layer are the patches, where words stand in the same row or special tokens come last.

    Returns
    -------
    Tensor, shape (N, H, W), or dict of them by method
        At the resolution of ``layer``, not normalised: maps of two examples can be compared. A map of zeros says that
        nothing at the layer moves the score in that direction.

    Raises
    ------
    InputError
        For an unknown method or sign, a target together with ``sign="prediction"``, a layer that gives no map or whose sizes
        leave two readings, a model that draws at random in train mode, and whatever
        :func:`~crossexplain.gradients.capture.capture` refuses.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)).eval()
    >>> attribute(model, torch.rand(2, 1, 8, 8), "1", "grad-cam", target=2, sign="against").shape
    torch.Size([2, 6, 6])
    """
    names = require_methods(method, [*METHODS, *ATTENTION_METHODS])
    require_one_of(sign, SIGNS, "sign")
    if sign == "prediction" and target is not None:
        raise InputError('got a target together with sign="prediction", which explains whatever the model predicts; '
                         'pass sign="for" or sign="against" with a target, or leave the target out.')
    of_attention = [name for name in names if name in ATTENTION_METHODS]
    maps = attention_maps(attention) if of_attention else []
    gradients = bool(of_attention) or any(METHODS[name].gradients for name in names)
    followed = "predicted" if sign == "prediction" else target
    # Pairs often share their image, as the captions of one picture do: equal images are looked at once.
    with watched(model, maps, attention) as crossed:
        captured, _ = shared(model, [layer], lambda: capture(model, inputs, [layer, *maps], followed, gradients))
    if sign == "against":  # the gradient of minus the score is minus the gradient: no second pass
        captured = replace(captured, gradients={name: -values for name, values in captured.gradients.items()})
    rows = len(captured.score)
    reader = Reader(model, inputs, rows, layer, calling_of(model).common, layout, patches or grid, positions)
    heat = {}
    if of_attention:  # one number a token, at the tokens that the first module attends to
        place = reader.place if len(reader.place.alone or ()) == 3 else Place.of(path_of(maps[0]), model, reader.place.one)
        heat = {name: reader.map_of(roll(captured, maps, name, bool(crossed))[..., None].float(), rows, place, "NTD")[:, 0]
                for name in of_attention}
    if len(of_attention) < len(names):
        reader.require_each(inputs, captured, followed)
        activations = reader.map_of(captured.activations[layer].float(), rows)
        slopes = reader.map_of(captured.gradients[layer].float(), rows) if gradients else None
    for name in names:
        if name not in heat:
            folded = METHODS[name].fold(activations, slopes)
            keep_sign = METHODS[name].signed if positive is None else not positive
            heat[name] = folded if keep_sign else folded.clamp(min=0)
    return heat[method] if isinstance(method, str) else {name: heat[name] for name in names}


def upsample(heat: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Enlarge maps to the size of the image, bilinearly.

    Parameters
    ----------
    heat : Tensor, shape (N, h, w)
    size : int or (int, int)
        Height and width in pixels; one number for a square.

    Returns
    -------
    Tensor, shape (N, H, W)

    Raises
    ------
    InputError
        For maps of another number of axes.

    Examples
    --------
    >>> upsample(torch.rand(2, 8, 8), 64).shape
    torch.Size([2, 64, 64])
    """
    if heat.ndim != 3:
        raise InputError(f"maps have shape {tuple(heat.shape)}, expected (N, h, w); add an axis with heat[None].")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return F.interpolate(heat[:, None].float(), size=sides, mode="bilinear", align_corners=False)[:, 0]


def to_cells(heat: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum maps over the cells of a grid; the sum over a map stays what it is.

    Parameters
    ----------
    heat : Tensor, shape (N, H, W)
    grid : (int, int)
        Rows and columns of cells, at most those of the maps.

    Returns
    -------
    Tensor, shape (N, rows, columns)

    Examples
    --------
    >>> to_cells(torch.ones(1, 4, 4), (2, 2)).tolist()
    [[[4.0, 4.0], [4.0, 4.0]]]
    """
    if heat.ndim != 3 or grid[0] > heat.shape[1] or grid[1] > heat.shape[2]:
        raise InputError(f"got maps of shape {tuple(heat.shape)} for {grid[0]} x {grid[1]} cells, expected (N, H, W), "
                         "with at least one pixel a cell.")
    return F.adaptive_avg_pool2d(heat, grid) * (heat.shape[1] * heat.shape[2] / (grid[0] * grid[1]))


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """Sum the channels of A (N, C, H, W) with one weight each (N, C)."""
    return torch.unflatten((weights[:, None] @ activations.flatten(2))[:, 0], 1, activations.shape[2:])


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return _weighted(activations, gradients.mean(dim=(2, 3)))


def _grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    square, total = gradients**2, activations.sum(dim=(2, 3), keepdim=True)
    share = square / (2 * square + total * gradients**3 + 1e-6)  # alpha of eq. 19, for a score of exp(logit)
    return _weighted(activations, (share * gradients.clamp(min=0)).sum(dim=(2, 3)))


def _x_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    total = activations.sum(dim=(2, 3))
    return _weighted(activations, (gradients * activations).sum(dim=(2, 3)) / (total + 1e-7))


def _first_component(maps: Tensor) -> Tensor:
    """Project each place's channels (N, C, H, W) on their first principal component, (N, H, W).

    The sign of a principal component is arbitrary, and libraries leave it to the linear algebra below them. Here the
    map goes up where the channels' sum goes up.
    """
    places = maps.flatten(2).transpose(1, 2)  # (N, H * W, C)
    centred = places - places.mean(dim=1, keepdim=True)
    projection = (centred @ _first_singular_vector(centred)[:, :, None])[..., 0]  # (N, H * W)
    agreement = (projection * centred.sum(dim=2)).sum(dim=1, keepdim=True)
    return torch.unflatten(torch.where(agreement < 0, -projection, projection), 1, maps.shape[2:])


def _first_singular_vector(rows: Tensor) -> Tensor:
    """Return the first right singular vector, (N, C), of matrices (N, P, C), by iteration on a few vectors at once.

    That takes a tenth of the time of a whole decomposition, which is done where the iteration does not settle.
    """
    n, _, channels = rows.shape
    start = torch.randn(channels, min(BLOCK, channels), generator=torch.Generator().manual_seed(0))
    block = start.to(rows).expand(n, -1, -1)  # (N, C, B)
    for _ in range(STEPS):
        block = torch.linalg.qr(rows.mT @ (rows @ block)).Q
    part = rows @ block  # (N, P, B)
    values, vectors = torch.linalg.eigh(part.mT @ part)
    first: Tensor = (block @ vectors[:, :, -1:])[..., 0]
    error = ((rows.mT @ (rows @ first[..., None]))[..., 0] - values[:, -1:] * first).norm(dim=1)
    unsettled = error > SETTLED * values[:, -1]
    if unsettled.any():
        first[unsettled] = torch.linalg.svd(rows[unsettled], full_matrices=False).Vh[:, 0]
    return first


METHODS = {  # each folds the activations a and the gradients g, (N, C, H, W)
    "saliency": Method(
        lambda a, g: g.abs().amax(dim=1), "largest size of the gradient over the channels", "Simonyan et al. 2014, sec. 3.1"),
    "gradient x input": Method(
        lambda a, g: (g * a).sum(dim=1), "gradient times value, summed over the channels, with its sign",
        "Shrikumar et al. 2016; Ancona et al. 2018, table 1", signed=True),
    "grad-cam": Method(
        _grad_cam, "channels weighted by their mean gradient", "Selvaraju et al. 2017, eq. 1 and 2", title="Grad-CAM"),
    "grad-cam++": Method(
        _grad_cam_plus_plus, "channels weighted by a weighted mean of their positive gradients",
        "Chattopadhay et al. 2018, eq. 7 and 19", title="Grad-CAM++"),
    "xgrad-cam": Method(
        _x_grad_cam, "channels weighted by their gradient, averaged where the channel is active",
        "Fu et al. 2020, eq. 8", title="XGrad-CAM"),
    "eigengrad-cam": Method(
        lambda a, g: _first_component(g * a), "first principal component of gradient times activation",
        "Muhammad and Yeasin 2020; the gradient is an addition of the library grad-cam", title="EigenGrad-CAM"),
    "eigen-cam": Method(
        lambda a, g: _first_component(a), "first principal component of the activations, whatever the class",
        "Muhammad and Yeasin 2020, eq. 3", gradients=False, title="Eigen-CAM"),
    "layer-cam": Method(
        lambda a, g: (g.clamp(min=0) * a).sum(dim=1), "each place weighted by its own positive gradient",
        "Jiang et al. 2021, eq. 6 and 7", title="LayerCAM"),
    "hires-cam": Method(
        lambda a, g: (g * a).sum(dim=1), "gradient times activation at each place, summed over the channels",
        "Draelos and Carin 2020, eq. 4", title="HiResCAM"),
}
