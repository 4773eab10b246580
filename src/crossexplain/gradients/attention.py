"""What transformers offer besides gradients at tokens: attention maps, rolled out, and maps of every word over every patch."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossexplain.checks import InputError, require_one_of
from crossexplain.gradients.capture import Captured, Target, capture, opened
from crossexplain.gradients.modalities import Tokens, examples_in, in_parts
from crossexplain.gradients.views import Mask, Views

RELEVANCE, ROLLOUT = "attention-relevance", "attention-rollout"
METHODS = {
    RELEVANCE: "attention maps times their gradients, rolled out (Chefer et al. 2021, eq. 1, 5 and 6)",
    ROLLOUT: "attention maps, half of each the identity, multiplied (Abnar and Zuidema 2020, eq. 1); whatever the class",
}
ORDERS = ("first", "second")


def roll(captured: Captured, maps: Sequence[str], method: str = RELEVANCE) -> Tensor:
    """Roll the attention maps of an encoder out to one number a token.

    With A the attention map of a block, (heads, T, T), and G its gradient:

    - relevance (Chefer et al. 2021, generic attention-model explainability, equations 1, 5 and 6): ``R = identity``, then for
      every block ``R = R + mean over heads of max(G * A, 0) @ R``;
    - rollout (Abnar and Zuidema 2020, equation 1): ``R = identity``, then ``R = (mean over heads of A + identity) / 2 @ R``.

    The answer is the mean over the rows of the tokens that the model reads, which are those where the gradient of the last map
    is not 0: [CLS], CLIP's end-of-text token, or all of them.

    Parameters
    ----------
    captured : Captured
        Holds the maps, (N, heads, T, T), and their gradients.
    maps : sequence of str
        Their names, from the first block to the last.
    method : {"attention-relevance", "attention-rollout"}

    Returns
    -------
    Tensor, shape (N, T)
        All 0 where the score depends on no attention.
    """
    first = captured.activations[maps[0]]
    identity = torch.eye(first.shape[-1], device=first.device, dtype=first.dtype)
    rolled = identity.expand(first.shape[0], -1, -1)  # (N, T, T)
    for name in maps:
        if method == RELEVANCE:
            step = (captured.gradients[name] * captured.activations[name]).clamp(min=0).mean(dim=1)
            rolled = rolled + step @ rolled
        else:
            rolled = (captured.activations[name].mean(dim=1) + identity) / 2 @ rolled
    is_read = (captured.gradients[maps[-1]] != 0).any(dim=3).any(dim=1).to(rolled.dtype)  # (N, T)
    return (rolled * is_read[..., None]).sum(dim=1) / is_read.sum(dim=1, keepdim=True).clamp(min=1)


def attention_maps(attention: Sequence[str]) -> list[str]:
    """Return the places of the maps of self-attention modules, for :func:`~crossexplain.gradients.capture.capture`."""
    if not attention:
        raise InputError("attention relevance and rollout need the names of the self-attention modules; pass attention=[...], "
                         "for example ['encoder.encoder.layer.0.attention.self', ...].")
    return [f"{name}#1" for name in attention]


def patch_map(tokens: Tensor, grid: tuple[int, int] | None = None, layer: str = "") -> Tensor:
    """Lay patch tokens out as a map; special tokens in front of them are left out.

    Parameters
    ----------
    tokens : Tensor, shape (N, T, D)
        The patches come last, row by row.
    grid : (int, int), optional
        Rows and columns of patches. Default: a square, with one class token before it or none.
    layer : str
        Name for the error message.

    Returns
    -------
    Tensor, shape (N, D, rows, columns)

    Raises
    ------
    InputError
        If the tokens do not make the grid.

    Examples
    --------
    >>> patch_map(torch.rand(2, 1 + 9, 5)).shape
    torch.Size([2, 5, 3, 3])
    """
    count = tokens.shape[1]
    if grid is None:
        side = next((side for special in (0, 1) if (side := math.isqrt(count - special)) ** 2 == count - special), 0)
        grid = (side, side)
    if not 0 < grid[0] * grid[1] <= count:
        raise InputError(f"layer {layer!r} gives {count} tokens, which are no {grid[0]} x {grid[1]} patches, nor a square with "
                         "a class token or without; pass grid=(rows, columns)." if grid[0] else
                         f"layer {layer!r} gives {count} tokens, which are no square of patches, with a class token or "
                         "without; pass grid=(rows, columns).")
    return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


def as_maps(values: Tensor, grid: tuple[int, int] | None, layer: str, model: nn.Module) -> Tensor:
    """Return what a layer holds, maps or tokens, as maps (N, C, h, w)."""
    if values.ndim in (3, 4):
        return values if values.ndim == 4 else patch_map(values, grid, layer)
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    advice = f"the last convolution is {convolutions[-1]!r}" if convolutions else "the model has no 2d convolution"
    raise InputError(f"layer {layer!r} gives shape {tuple(values.shape)}, a map needs (N, channels, height, width); {advice}.")


def word_by_patch(model: nn.Module, inputs: Mapping[str, object], image_layer: str | None = None,
                  text_layer: str | None = None, *, order: str | None = None, words: Tokens | None = None,
                  grid: tuple[int, int] | None = None, target: Target = None, batch_size: int = 32) -> Tensor:
    """Return a map over the patches for every word: where in the picture does the word find what speaks for the match?

    Let w be the vector of a word and p that of a patch, at the two layers, and s the score. Gradient x activation says how
    much s grows with a patch, ``p . ds/dp``, and with a word, ``w . ds/dw``. Second order asks how much the one changes with
    the other:

        M[word, patch] = sum over c, d of  w_c  p_d  d^2 s / (dw_c dp_d)

    which is the change of s, beyond that of each alone, when the word is stretched by ``1 + a`` and the patch by ``1 + b``,
    divided by ``a b``. For a dual encoder, ``s = scale * u . v``, it is the dot product of what the patch does to the vector u
    of the picture and what the word does to the vector v of the text, ``scale * (J_u p) . (J_v w)``. It costs one backward
    pass a word.

    Where the modalities meet in a network of ReLUs, as in early fusion, all second derivatives are 0. First order is read there
    instead: gradient x activation at the patch, less the same with the word hidden.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, called with ``inputs`` by keyword.
    inputs : mapping of str to Tensor
        N pictures and texts.
    image_layer, text_layer : str, optional
        Where patches (N, C, h, w) or (N, special + P, D) and words (N, T, D) have vectors; default ``model.image_layer`` and
        ``model.text_layer``.
    order : {"second", "first"}, optional
        Default: second, where it is not 0 for all words, patches and examples.
    words : Tokens, optional
        For first order: how words are hidden, by the first of its baselines.
    grid : (int, int), optional
        Rows and columns of patches; default, a square.
    target : as for :func:`~crossexplain.gradients.capture.capture`
        The score; default the logit of the match, or of the predicted class.
    batch_size : int
        Examples at a time.

    Returns
    -------
    Tensor, shape (N, T, h, w)
        With its sign, at the resolution of the image layer; above 0, word and patch together speak for the match. A row for
        every token: padding has 0, special tokens have what they have (in first order 0).

    Raises
    ------
    InputError
        For an unknown order, layers without patches or words, and first order without ``words``.

    Examples
    --------
    >>> from crossexplain.models.clip import small_vit
    >>> model, tokens = small_vit(12, 6, side=24, width=16, layers=2).eval(), torch.tensor([[2, 5, 7, 3]])
    >>> word_by_patch(model, {"images": torch.rand(1, 3, 24, 24), "tokens": tokens}).shape
    torch.Size([1, 4, 2, 2])
    """
    require_one_of(order, (*ORDERS, None), "order")
    image_layer = image_layer or _named(model, "image_layer")
    parts = list(in_parts(inputs, batch_size, examples_in(inputs), target))
    if order != "first":
        text_layer = text_layer or _named(model, "text_layer")
        maps = torch.cat([_second(model, rows, image_layer, text_layer, grid, target) for rows, target in parts])
        if order == "second" or maps.any():
            return maps
    if words is None:
        raise InputError("no second derivative of this model is other than 0, as where a network of ReLUs joins the "
                         "modalities; pass words=Tokens(...), which says how words are hidden, to compare gradients with and "
                         "without them.")
    return torch.cat([_first(model, rows, image_layer, words, grid, target) for rows, target in parts])


def _named(model: nn.Module, place: str) -> str:
    """Return the name of a layer that the model keeps for explanations."""
    layer = getattr(model, place, None)
    if not isinstance(layer, str):
        raise InputError(f"{type(model).__name__} names no {place}; pass {place}=... .")
    return layer


def _second(model: nn.Module, inputs: dict, image_layer: str, text_layer: str, grid, target) -> Tensor:
    # The kernels that fuse attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH), opened(model, inputs, [image_layer, text_layer], target) as graph:
        patches, words = graph.activations[image_layer], graph.activations[text_layer]
        if words.ndim != 3:
            raise InputError(f"layer {text_layer!r} gives {tuple(words.shape)}, expected one vector a word (N, T, D).")
        (slope,) = torch.autograd.grad(graph.score.sum(), words, create_graph=True, materialize_grads=True)
        effect = (slope * words.detach()).sum(dim=2)  # (N, T)
        maps = []
        for word in range(effect.shape[1]):
            mixed = None
            if effect.requires_grad:
                (mixed,) = torch.autograd.grad(effect[:, word].sum(), patches, retain_graph=True, allow_unused=True)
            mixed = torch.zeros_like(patches) if mixed is None else mixed
            maps.append(as_maps(mixed * patches.detach(), grid, image_layer, model).sum(dim=1))
    return torch.stack(maps, dim=1)


def _first(model: nn.Module, inputs: dict, image_layer: str, words: Tokens, grid, target) -> Tensor:
    present = words.features(inputs)
    count, n = present.shape[1], len(present)
    hidden = {f"without {t}": {words.name: Mask(torch.arange(count) != t, words.baselines[0])} for t in range(count)}
    laid_out = Views(inputs, [words], {"full": {}} | hidden, allow_empty=True).inputs

    def read(rows: dict, target: Target) -> tuple[Captured, Tensor]:
        captured = capture(model, rows, image_layer, target)
        product = captured.gradients[image_layer] * captured.activations[image_layer]
        return captured, as_maps(product, grid, image_layer, model).sum(dim=1)

    full, _ = read(inputs, target)
    follow = target if full.target is None else full.target.repeat(count + 1)  # one class in all views
    _, maps = read(laid_out, follow)  # ((1 + T) * N, h, w)
    maps = maps.unflatten(0, (count + 1, n))
    return (maps[:1] - maps[1:]).transpose(0, 1) * present[:, :, None, None]
