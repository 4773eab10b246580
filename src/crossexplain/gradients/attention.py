"""What transformers offer besides gradients at tokens: attention maps, rolled out, and maps of every word over every patch."""

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossexplain.checks import InputError, find_layer, require_one_of
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.capture import Captured, Target, capture, opened
from crossexplain.gradients.layouts import Place, path_of
from crossexplain.gradients.modalities import Inputs, Tokens, examples_in, in_parts
from crossexplain.gradients.modality import listed
from crossexplain.gradients.patches import as_map
from crossexplain.gradients.reading import Reader, as_row
from crossexplain.gradients.views import Mask, Views

RELEVANCE, ROLLOUT = "attention-relevance", "attention-rollout"
METHODS = {
    RELEVANCE: "attention maps times their gradients, rolled out (Chefer et al. 2021, eq. 1, 5 and 6)",
    ROLLOUT: "attention maps, half of each the identity, multiplied (Abnar and Zuidema 2020, eq. 1); whatever the class",
}
ORDERS = ("first", "second")
# Names under which attention modules take the tokens that are attended to, where these are not those that attend.
ELSEWHERE = ("context", "memory", "encoder_hidden_states", "key_value_states", "cross_attention_states",
             "vision_hidden_states", "image_embeds")
LEAST = -1e3  # what a mask adds to the scores of what is not attended to is below


def roll(captured: Captured, maps: Sequence[str], method: str = RELEVANCE, crossed: bool = False) -> Tensor:
    """Roll the attention maps of an encoder out to one number a token.

    With A the attention map of a block, (heads, T, T), and G its gradient:

    - relevance (Chefer et al. 2021, generic attention-model explainability, equations 1, 5 and 6): ``R = identity``, then for
      every block ``R = R + mean over heads of max(G * A, 0) @ R``;
    - rollout (Abnar and Zuidema 2020, equation 1): ``R = identity``, then ``R = (mean over heads of A + identity) / 2 @ R``.

    Of cross-attention, whose rows and columns are not the same tokens, the relevance of what is attended to is the sum of the
    steps, ``max(G * A, 0)`` (equation 10 with nothing rolled out within either side); there is no rollout.

    The answer is the mean over the rows of the tokens that the model reads, which are those where the gradient of the last map
    is not 0: [CLS], CLIP's end-of-text token, or all of them.

    Parameters
    ----------
    captured : Captured
        Holds the maps, (N, heads, T, T) or (N, heads, T, S), and their gradients.
    maps : sequence of str
        Their names, from the first block to the last.
    method : {"attention-relevance", "attention-rollout"}
    crossed : bool
        The maps are of cross-attention.

    Returns
    -------
    Tensor, shape (N, T)
        Of cross-attention (N, S). All 0 where the score depends on no attention.
    """
    held = {name: (with_heads(captured.activations[name]), with_heads(captured.gradients[name])) for name in maps}
    shapes = sorted({tuple(attended.shape[2:]) for attended, _ in held.values()})
    rows, columns = shapes[0]
    crossed = crossed or rows != columns
    if len(shapes) > 1 or crossed and method == ROLLOUT:
        raise InputError(f"got attention maps of {' and '.join(f'{r} x {c}' for r, c in shapes)} tokens for {method}"
                         f"{' of cross-attention' if crossed else ''}, expected square ones of one size: roll out "
                         "self-attention, or read cross-attention by 'attention-relevance', one kind at a time.")
    first, last = held[maps[0]][0], held[maps[-1]][1]
    identity = torch.eye(columns, device=first.device, dtype=first.dtype)
    rolled = first.new_zeros(()) if crossed else identity.expand(len(first), -1, -1)  # (N, T, T)
    for attended, slope in held.values():
        if method == RELEVANCE:
            step = (slope * attended).clamp(min=0).mean(dim=1)
            rolled = rolled + (step if crossed else step @ rolled)
        else:
            rolled = (attended.mean(dim=1) + identity) / 2 @ rolled
    is_read = (last != 0).any(dim=3).any(dim=1).to(rolled.dtype)  # (N, T)
    return (rolled * is_read[..., None]).sum(dim=1) / is_read.sum(dim=1, keepdim=True).clamp(min=1)


def with_heads(maps: Tensor) -> Tensor:
    """Return maps (N, heads, T, T) of maps, or of maps (N, T, T) that have one head."""
    return maps[:, None] if maps.ndim == 3 else maps


def attention_maps(attention: Sequence[str]) -> list[str]:
    """Return the places of attention maps, for :func:`~crossexplain.gradients.capture.capture`.

    The map is the second entry of what a module gives, number 1, or the entry that its name ends with, as in ``"name#2"``.
    """
    if not attention:
        raise InputError("attention relevance and rollout need the names of the self-attention modules; pass "
                         "attention=[...], for example ['encoder.encoder.layer.0.attention.self', ...].")
    attention = [attention] if isinstance(attention, str) else attention
    return [name if "#" in name else f"{name}#1" for name in attention]


@contextmanager
def watched(model: nn.Module, maps: Sequence[str], attention: Sequence[str]) -> Iterator[set[str]]:
    """Look, while the model runs, at what the attention modules give; yield a set that gets the names of cross-attention.

    Raises
    ------
    InputError
        In the pass, where a module gives no map at that place, with what to do for its kind; after it, where some maps are of
        self-attention and others of cross-attention.
    """
    attention = [attention] if isinstance(attention, str) else list(attention)
    crossed: set[str] = set()
    given: dict[str, int] = {}  # how many tensors, masks left out, the modules around got last, by their names

    def look(name: str, chosen: bool) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: object) -> None:
            values = _require_map(name, chosen, module, output)
            if _attends_elsewhere(name, module, arguments, named, values, given):
                crossed.add(name)

        return hook

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given[path] = len({id(value) for value in (*arguments, *named.values()) if isinstance(value, Tensor)
                               and value.ndim > 1 and not ((value == 0) | (value == 1) | (value < LEAST)).all()})

        return hook

    with ExitStack() as hooks:
        paths = {path_of(name) for name in maps}
        for outer in {path.rsplit(".", i)[0] for path in paths for i in range(1, path.count(".") + 1)}:
            hooks.enter_context(find_layer(model, outer).register_forward_pre_hook(note(outer), with_kwargs=True))
        for path in paths:
            hooks.enter_context(find_layer(model, path).register_forward_pre_hook(_as_leaves, with_kwargs=True))
        for name, asked in zip(maps, attention):
            module = find_layer(model, path_of(name))
            hooks.enter_context(module.register_forward_hook(look(name, "#" in asked), with_kwargs=True))
        yield crossed
    if 0 < len(crossed) < len(set(maps)):
        raise InputError(f"got maps of cross-attention ({', '.join(map(repr, sorted(crossed)))}) and of self-attention, "
                         "expected one kind; pass attention=[...] with either.")


def _rows_in(values: Sequence[object]) -> list[Tensor]:
    """Return the different rows of vectors (N, T, D) among what a module gets."""
    rows = [value for value in values if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point()]
    return [value for i, value in enumerate(rows) if not any(value is other for other in rows[:i])]


def _as_leaves(module: nn.Module, arguments: tuple[Any, ...],
               named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let the graph begin at rows of vectors that nothing leads to, so that :func:`_attends_elsewhere` can follow them."""
    leaves = {id(value): value.detach().requires_grad_() for value in _rows_in([*arguments, *named.values()])
              if not value.requires_grad and torch.is_grad_enabled()}
    return (tuple(leaves.get(id(value), value) for value in arguments),
            {key: leaves.get(id(value), value) for key, value in named.items()})


def _require_map(name: str, chosen: bool, module: nn.Module, output: object) -> Tensor:
    """Return the entry of a module's output if that is an attention map."""
    path, _, number = name.partition("#")
    entries, entry = list(output) if isinstance(output, tuple | list) else [output], int(number)
    kinds = ", ".join(type(value).__name__ for value in entries)
    others = [i for i, value in enumerate(entries) if i != entry and _is_map(value)]
    other = f" Entry {others[0]} is a map: pass attention=['{path}#{others[0]}', ...]." if others else ""
    if isinstance(module, nn.MultiheadAttention):  # its map is a copy, or is not made at all
        raise InputError(f"layer {path!r} gives ({kinds}): torch.nn.MultiheadAttention, as in torchvision's ViT and in "
                         "torch.nn.TransformerEncoder (need_weights=False), gives no map on which its output depends; read "
                         "gradients at the tokens instead, for example by 'gradient x input', or use a model whose attention "
                         "is written out.")
    if entry >= len(entries) or not isinstance(values := entries[entry], Tensor):
        advice = "for attention maps of a Hugging Face encoder load it with attn_implementation='eager', or pass " \
                 "output_attentions=True with the inputs where it gives them on demand (DeBERTa)."
        raise InputError(f"layer {path!r} gives ({kinds}), which has no tensor {entry}; {other.strip() or advice}")
    if values.ndim not in (3, 4) or not chosen and not _is_map(values):
        which = other or f" say which entry is the map, as in attention=['{path}#2', ...]."
        raise InputError(f"entry {entry} of layer {path!r} has shape {tuple(values.shape)}, and is no attention map, "
                         f"whose rows sum to 1;{which}")
    return values


def _is_map(values: object) -> bool:
    """Return whether the rows of a tensor sum to 1, or to 0 where nothing is attended to."""
    if not isinstance(values, Tensor) or values.ndim not in (3, 4) or not values.is_floating_point():
        return False
    sums = values.detach().float().sum(dim=-1)
    return bool((((sums - 1).abs() < 0.02) | (sums == 0)).all())


def _attends_elsewhere(name: str, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], values: Tensor,
                       around: Mapping[str, int]) -> bool:
    """Return whether a module attends to other tokens than those that attend.

    So it is where the map is not square, and where a token that the module gets counts in its own row of the map alone, as a
    query does that is no key; unless both were made, from the same tokens, before the module got them.

    Raises
    ------
    InputError
        Where that is open.
    """
    if values.shape[-1] != values.shape[-2]:
        return True
    path, given = path_of(name), {}
    with suppress(TypeError):
        given = inspect.signature(module.forward).bind(*arguments, **named).arguments
    given = {**given, **given.get("kwargs", {})}
    rows = {key: value for key, value in given.items() if _rows_in([value]) and "mask" not in key and "bias" not in key}
    if not values.requires_grad or values.shape[-1] < 2 or not any(_is_query(value, values) for value in rows.values()):
        return False
    if any(isinstance(given.get(key), Tensor) for key in ELSEWHERE):
        return True
    if any(around.get(path.rsplit(".", i)[0]) == 1 for i in range(1, path.count(".") + 1)):
        return False
    raise InputError(f"layer {path!r} gets its queries and its keys as tensors of their own ({', '.join(rows)}), and it is "
                     "open whether these are the same tokens; name the module that makes them of the tokens, if it gives the "
                     f"map, call the tokens that are attended to {ELSEWHERE[0]!r} in its forward() if they are others, or "
                     "read gradients at the tokens instead, for example by 'gradient x input'.")


def _is_query(rows: Tensor, values: Tensor) -> bool:
    """Return whether each of some rows counts for rows of an attention map that no other counts for."""
    if not rows.requires_grad:
        return False
    weights = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)).to(values)
    even, odd = (torch.autograd.grad((values * weights)[..., start::2, :].sum(), rows, retain_graph=True, allow_unused=True)[0]
                 for start in (0, 1))
    reached = even is not None and odd is not None and bool(even.any()) and bool(odd.any())
    return reached and not bool(((even != 0) & (odd != 0)).any())


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
        if not side:
            raise InputError(f"layer {layer!r} gives {count} tokens, which are no square of patches, with a class token or "
                             "without; pass grid=(rows, columns).")
        grid = (side, side)
    return as_map(tokens, len(tokens), Place(layer), layout="NTD", patches=grid)


def word_by_patch(model: nn.Module, inputs: Mapping[str, object], image_layer: str | None = None,
                  text_layer: str | None = None, *, order: str | None = None, words: Tokens | None = None,
                  grid: tuple[int, int] | None = None, target: Target = None, batch_size: int = 32,
                  layout: str | None = None, positions: object = None, common: Collection[str] = ()) -> Tensor:
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
        ``model.text_layer``. Where the text layer holds other tokens too, ``words`` says which are the words.
    order : {"second", "first"}, optional
        Default: second, where it is not 0 for all words, patches and examples.
    words : Tokens, optional
        For first order: how words are hidden, by the first of its baselines.
    grid : (int, int), optional
        Rows and columns of patches; default, what the model and the sizes say.
    target : as for :func:`~crossexplain.gradients.capture.capture`
        The score; default the logit of the match, or of the predicted class.
    batch_size : int
        Examples at a time.
    layout, positions, common
        Of the image layer, as for :func:`~crossexplain.gradients.maps.attribute`.

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
    common = {*listed(common), *calling_of(model).common}
    n = examples_in(inputs, common)
    image = Reader(model, inputs, n, image_layer or _named(model, "image_layer"), common, layout, grid, positions)
    parts = list(in_parts(inputs, batch_size, n, target, common))
    if order != "first":
        text_layer = text_layer or _named(model, "text_layer")
        text = (words or Tokens(layer=text_layer)), Place.of(text_layer, model, image.place.one)
        maps = torch.cat([_second(model, rows, image, text, target) for rows, target in parts])
        if order == "second" or maps.any():
            return maps
    if words is None:
        raise InputError("no second derivative of this model is other than 0, as where a network of ReLUs joins the "
                         "modalities; pass words=Tokens(...), which says how words are hidden, to compare gradients with and "
                         "without them.")
    return torch.cat([_first(model, rows, image, words.settled(inputs), target, common) for rows, target in parts])


def _named(model: nn.Module, place: str) -> str:
    """Return the name of a layer that the model keeps for explanations."""
    layer = getattr(model, place, None)
    if not isinstance(layer, str):
        raise InputError(f"{type(model).__name__} names no {place}; pass {place}=... .")
    return layer


def _second(model: nn.Module, inputs: Inputs, image: Reader, text: tuple[Tokens, Place], target: Target) -> Tensor:
    tokens, place = text
    # The kernels that fuse attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH), opened(model, inputs, [image.layer, place.layer], target) as graph:
        patches, words = graph.activations[image.layer], graph.activations[place.layer]
        if words.ndim != 3:
            raise InputError(f"layer {place.layer!r} gives {tuple(words.shape)}, expected one vector a word (N, T, D).")
        (slope,) = torch.autograd.grad(graph.score.sum(), words, create_graph=True, materialize_grads=True)
        each = as_row(slope * words.detach(), len(graph.score), inputs, place, tokens.layout, tokens.positions)
        effect = each.sum(dim=2)  # (N, T)
        maps = []
        for word in range(effect.shape[1]):
            mixed = None
            if effect.requires_grad:
                (mixed,) = torch.autograd.grad(effect[:, word].sum(), patches, retain_graph=True, allow_unused=True)
            mixed = torch.zeros_like(patches) if mixed is None else mixed
            maps.append(image.map_of(mixed * patches.detach(), len(graph.score)).sum(dim=1))
    return torch.stack(maps, dim=1)


def _first(model: nn.Module, inputs: Inputs, image: Reader, words: Tokens, target: Target,
           common: Collection[str]) -> Tensor:
    present = words.features(inputs)
    count, n = present.shape[1], len(present)
    hidden = {f"without {t}": {words.name: Mask(torch.arange(count) != t, words.baselines[0])} for t in range(count)}
    laid_out = Views(inputs, [words], {"full": {}, **hidden}, allow_empty=True, common=common).inputs

    def read(rows: Inputs, target: Target) -> tuple[Captured, Tensor]:
        captured = capture(model, rows, image.layer, target)
        product = captured.gradients[image.layer] * captured.activations[image.layer]
        return captured, image.map_of(product, len(captured.score)).sum(dim=1)

    full, _ = read(inputs, target)
    follow = target if full.target is None else full.target.repeat(count + 1)  # one class in all views
    _, maps = read(laid_out, follow)  # ((1 + T) * N, h, w)
    maps = torch.unflatten(maps, 0, (count + 1, n))
    return (maps[:1] - maps[1:]).transpose(0, 1) * present[:, :, None, None]
