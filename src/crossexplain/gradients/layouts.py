"""Which axis of a layer is which: examples, positions, channels, rows and columns of places.

The number of examples, the shape of the picture and the kind of the layer say it. Where they leave two readings the first
example is run alone, if the model is at hand; what is still open then is refused, and the caller says it by ``layout=``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, find_layer, require_one_of
from crossexplain.gradients.capture import INPUT, ModelInputs, run
from crossexplain.gradients.evidence import first_tensor

MAPS, ROWS = ("NCHW", "NHWC"), ("NTD", "TND", "NDT")  # layouts of four axes and of three: T positions of D dimensions
LAYOUTS = (*MAPS, *ROWS)
Positions = tuple[int, ...] | slice  # which positions of a row are meant
_MOST_LOST = 0.75  # share of a side that convolutions without padding may take from a map, at most

_SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.modules.pooling._MaxPoolNd,
           nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd,
           nn.modules.pooling._LPPoolNd, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.LocalResponseNorm,
           nn.modules.padding._ConstantPadNd, nn.modules.padding._ReflectionPadNd)
_LAST = (nn.Linear, nn.Embedding, nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer,
         nn.TransformerDecoder, nn.TransformerDecoderLayer)
_SAME = (nn.Identity, nn.modules.dropout._DropoutNd, nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Sigmoid,
         nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Softplus, nn.Mish)  # of the layout of what comes in


def require_layout(layout: str | None, allowed: Sequence[str] = LAYOUTS) -> str | None:
    """Return a layout if there is such a one, or None."""
    return layout if layout is None else str(require_one_of(layout, allowed, "layout"))


def at_inputs(layer: str) -> bool:
    """Return whether a place is an input of the model, as in ``"input:images"``."""
    return layer.startswith(INPUT)


def path_of(layer: str) -> str:
    """Return the name of the module in the name of a place, without the number of the call and of the entry."""
    return layer.partition("@")[0].partition("#")[0]


def module_at(model: nn.Module, layer: str) -> nn.Module | None:
    """Return the module that is read at a place; None at an input, and where there is none of that name."""
    if not at_inputs(layer) and path_of(layer):
        with suppress(InputError):
            return find_layer(model, path_of(layer))
    return None


@dataclass(eq=False)
class Place:
    """A place that is read, and what is known of it besides the shape of its values.

    Attributes
    ----------
    layer : str
        Its name.
    module : torch.nn.Module, optional
        The layer itself.
    model : torch.nn.Module, optional
        The model around it.
    one : mapping, sequence or Tensor, optional
        The model's inputs of one example, to run it alone.
    known : dict
        What was found by running it.
    """

    layer: str
    module: nn.Module | None = None
    model: nn.Module | None = None
    one: ModelInputs | None = None
    known: dict[object, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, layer: str, model: nn.Module, one: ModelInputs | None = None) -> "Place":
        """Return a place of a model."""
        return cls(layer, module_at(model, layer), model, one)

    @cached_property
    def channels(self) -> str | None:
        """Which axis holds the channels by the kind of the layer, ``"second"`` or ``"last"``; None where that is open."""
        channels = channels_of(self.module)
        if channels is None and self.model is not None and isinstance(self.module, _SAME):
            channels = _channels_before(self.model, path_of(self.layer))
        return channels

    @property
    def inside_attention(self) -> bool:
        """Whether the layer is a part of an attention, where the axes may be windows and the places in them."""
        path = path_of(self.layer).split(".")
        around = [] if self.model is None else [module_at(self.model, ".".join(path[:i])) for i in range(1, len(path))]
        return any(word in type(module).__name__.lower() for module in around for word in ("attention", "window", "partition"))

    @cached_property
    def alone(self) -> tuple[int, ...] | None:
        """Shape of what the place holds for one example alone; None where that cannot be run."""
        values = self.values(self.one)
        return None if values is None else tuple(values.shape)

    def values(self, inputs: ModelInputs | None) -> Tensor | None:
        """Return what the place holds for these inputs, without a graph; None where that cannot be run."""
        if self.model is None or self.module is None or inputs is None:
            return None
        kept: list[Tensor] = []
        number = self.layer.partition("#")[0].rpartition("@")[2]
        call = int(number) if number.isdigit() else 0

        def keep(module: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
            kept.append(first_tensor(output, self.layer).detach().clone())
            if len(kept) > call:
                raise _Enough

        # A stranger's model may fail on other or fewer examples, and a scripted one takes no hook: then it cannot tell.
        with suppress(Exception), self.module.register_forward_hook(keep):
            run(self.model, inputs)
        return kept[call] if len(kept) > call else None

    def rows_inside(self, inputs: ModelInputs | None, count: int, most: int = 4) -> list[Tensor]:
        """Return the first values (1, count, D) or (count, 1, D) that modules of the model take, at most so many."""
        kept: list[Tensor] = []
        if self.model is None or inputs is None:
            return kept

        def keep(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = next((value for value in (*arguments, *named.values()) if isinstance(value, Tensor)), None)
            if given is not None and given.ndim == 3 and sorted(given.shape[:2]) == [1, count]:
                kept.append(given.detach().clone())
                if len(kept) == most:
                    raise _Enough

        with suppress(Exception), ExitStack() as hooks:
            for module in self.model.modules():
                hooks.enter_context(module.register_forward_pre_hook(keep, with_kwargs=True))
            run(self.model, inputs)
        return kept


class _Enough(Exception):
    """What was looked for is found, and the pass can stop."""


def channels_of(module: nn.Module | None) -> str | None:
    """Return which axis of what a module gives holds the channels, ``"second"`` or ``"last"``; None where that is open."""
    if module is None:
        return None
    if type(module).forward is nn.Sequential.forward:
        return _last_channels(module._modules.values())
    name, declared = type(module).__name__, getattr(module, "data_format", None)
    if declared in ("channels_first", "channels_last"):  # the layer norms of ConvNeXt
        return "second" if declared == "channels_first" else "last"
    if name == "Permute":  # of torchvision
        return {(0, 3, 1, 2): "second", (0, 2, 3, 1): "last"}.get(tuple(getattr(module, "dims", ())))
    if isinstance(module, _SECOND) or name.endswith("2d"):
        return "second"
    one_axis = len(getattr(module, "normalized_shape", ())) == 1
    return "last" if isinstance(module, _LAST) or type(module) in (nn.LayerNorm, nn.RMSNorm) and one_axis else None


def _channels_before(model: nn.Module, path: str) -> str | None:
    """Return where the channels are before a layer that changes no axis, as an activation in a row of layers."""
    parent, _, name = path.rpartition(".")
    row = model.get_submodule(parent)
    if type(row).forward is not nn.Sequential.forward:
        return None
    return _last_channels(list(row._modules.values())[: list(row._modules).index(name)])


def _last_channels(row: Iterable[nn.Module | None]) -> str | None:
    """Return which axis holds the channels after a row of modules."""
    for module in reversed(list(row)):
        channels = channels_of(module)
        if channels is not None or not isinstance(module, _SAME):
            return channels
    return None


def first_axis_of(module: nn.Module | None) -> str | None:
    """Return ``"N"`` or ``"T"`` for a layer of PyTorch that says what its first axis is, else None."""
    for part in (module, getattr(module, "self_attn", None), *getattr(module, "layers", [])[:1]):
        batch_first = getattr(part, "batch_first", None)
        batch_first = getattr(getattr(part, "self_attn", None), "batch_first", None) if batch_first is None else batch_first
        if isinstance(batch_first, bool):
            return "N" if batch_first else "T"
    return None


def rows_first(values: Tensor, rows: int, place: Place, layout: str | None = None, count: int | None = None) -> Tensor:
    """Return values (N, T, D) or (T, N, D) with the examples first.

    Parameters
    ----------
    values : Tensor
        Of three axes.
    rows : int
        Number of examples that they belong to.
    place : Place
    layout : str, optional
        ``"NTD"``, ``"TND"`` or ``"NDT"``, which is turned too.
    count : int, optional
        Number of positions, where it is known.
    """
    shape = tuple(values.shape)
    layout = layout or _layout_of_rows(shape, rows, place, count)
    examples = shape[1] if layout == "TND" else shape[0]
    if examples != rows:
        raise _not_one_each(place, shape, rows, f" as layout={layout!r}")
    return {"NTD": values, "TND": values.transpose(0, 1), "NDT": values.transpose(1, 2)}[layout]


def _layout_of_rows(shape: tuple[int, ...], rows: int, place: Place, count: int | None) -> str:
    if at_inputs(place.layer):
        return "NTD"
    first, second = shape[0] == rows, shape[1] == rows
    if first and second and rows > 1:  # as many positions as examples
        alone = place.alone
        if alone is not None and len(alone) == 3 and (alone[0] == 1) != (alone[1] == 1):
            first, second = alone[0] == 1, alone[1] == 1
        elif (known := first_axis_of(place.module)) is not None:
            first, second = known == "N", known == "T"
        else:
            raise InputError(f"layer {place.layer!r} gives {shape} for {rows} examples: its first axis can be the "
                             "examples or the positions; pass layout='NTD' for examples first or layout='TND' for positions "
                             "first.")
    if first:
        turned = place.channels == "second" and (count is None or count in (shape[2], shape[1]))
        return "NDT" if turned else "NTD"
    if second and (shape[0] == count or first_axis_of(place.module) == "T" or place.alone == (shape[0], 1, shape[2])):
        return "TND"
    hint = "; if its positions come first, pass layout='TND'" if second else ""
    raise _not_one_each(place, shape, rows, hint)


def require_rows(values: Tensor, rows: int, place: Place) -> Tensor:
    """Return values unchanged if they have one row an example, first."""
    if values.ndim and len(values) == rows:
        return values
    raise _not_one_each(place, tuple(values.shape), rows)


def _not_one_each(place: Place, shape: tuple[int, ...], rows: int, hint: str = "") -> InputError:
    parts = shape[0] // rows if shape and rows and shape[0] % rows == 0 else 0
    why = (f" It has {parts} rows an example, as a layer has that runs on frames, crops or windows one by one: read the "
           "input, or a layer after they are joined.") if parts > 1 else ""
    return InputError(f"layer {place.layer!r} gives {shape} for {rows} examples, expected one row an example{hint}.{why}")


def map_layout(shape: Sequence[int], place: Place, picture: tuple[int, int] | None,
               look: Callable[[], str | None] = lambda: None) -> str:
    """Return ``"NCHW"`` or ``"NHWC"`` for a layer of four axes whose first are the examples.

    Parameters
    ----------
    shape : sequence of int
    place : Place
    picture : (int, int), optional
        Height and width of the pictures that the maps belong to. Without it, only a square map with another number of
        channels is taken for channels second.
    look : callable
        Asks the model, where the sizes leave both readings or none; returns a layout, or None.

    Raises
    ------
    InputError
        Where the kind of the layer and the sizes leave two readings, or none.
    """
    if place.channels == "second":
        return "NCHW"
    if picture is not None:
        fitting = [layout for layout, sides in (("NCHW", shape[2:]), ("NHWC", shape[1:3])) if _is_map_of(sides, picture)]
    else:  # taken for square, if that leaves one reading
        fitting = ["NCHW"] if shape[2] == shape[3] != shape[1] else list(MAPS)
    possible = list(MAPS) if place.channels is None else ["NHWC"]
    fitting = [layout for layout in possible if layout in fitting or picture is None and len(possible) == 1]
    # Inside an attention the axes may be windows and the places in each.
    layout = fitting[0] if len(fitting) == 1 and not place.inside_attention else None
    if layout is None or place.channels is None and layout == "NHWC":  # channels last by the sizes alone: ask the model
        layout = look() or layout
    if layout in possible:
        return layout
    of = "" if picture is None else f" for pictures of {picture[0]} x {picture[1]} pixels"
    both = "which can be channels second or last" if fitting else "which is no map of them by its sizes"
    raise InputError(f"layer {place.layer!r} gives {tuple(shape)}{of}, {both}; pass layout='NCHW' for (N, channels, height, "
                     "width) or layout='NHWC' for (N, height, width, channels).")


def require_map(layout: str | None, shape: Sequence[int], place: Place, picture: tuple[int, int] | None) -> None:
    """Raise where a layout was said in which a layer gives no map of the pictures, and in the other it does."""
    if layout is None or picture is None or at_inputs(place.layer):
        return
    fits = {"NCHW": _is_map_of(shape[2:], picture), "NHWC": _is_map_of(shape[1:3], picture)}
    if not fits.pop(layout) and all(fits.values()):
        raise InputError(f"layer {place.layer!r} gives {tuple(shape)} for pictures of {picture[0]} x {picture[1]} pixels, "
                         f"which as layout={layout!r} is no map of them; pass layout={next(iter(fits))!r}.")


def _is_map_of(sides: Sequence[int], picture: tuple[int, int]) -> bool:
    """Return whether layers that treat both axes alike can make a map of these sides from a picture.

    Such a layer makes ``(side - lost) / stride`` places, with the same stride and the same loss at both sides. Rounding
    may take or add one place.
    """
    if picture[0] == picture[1]:
        return sides[0] == sides[1] <= 4 * picture[0]
    lost = _MOST_LOST * min(picture)
    most = min(full / max(side - 1, 0.25) for side, full in zip(sides, picture))  # of the stride
    least = max((full - lost) / (side + 1) for side, full in zip(sides, picture))
    if least > most:
        return False
    apart = [(picture[0] - picture[1]) / stride for stride in (least, most)]
    return min(apart) - 1 <= sides[0] - sides[1] <= max(apart) + 1


def looks_channels_last(pictures: Tensor) -> bool:
    """Return whether four axes look like (N, H, W, C): three colours or fewer last, and many in their place."""
    return pictures.ndim == 4 and pictures.shape[3] <= 4 < min(pictures.shape[1:3])


def positions_of(positions: Any, what: str) -> Positions | None:
    """Return positions as a slice or a tuple of whole numbers, or raise :class:`InputError`."""
    if positions is None or isinstance(positions, slice):
        return positions
    with suppress(TypeError):
        listed = positions.tolist() if isinstance(positions, Tensor) else list(positions)
        if listed and all(isinstance(place, int) and not isinstance(place, bool) for place in listed):
            return tuple(listed)
    raise InputError(f"got positions={positions!r} of {what}, expected a slice, a range or whole numbers, as in slice(1, 9).")


def at_positions(values: Tensor, positions: Positions, place: Place, what: str) -> Tensor:
    """Return the values (N, P, D) at some positions of a layer (N, T, D)."""
    length = values.shape[1]
    wanted = list(range(length))[positions] if isinstance(positions, slice) else list(positions)
    if not wanted or not all(-length <= position < length for position in wanted):
        raise InputError(f"layer {place.layer!r} has {length} positions, got positions={positions!r} of {what}; count from 0.")
    return values[:, torch.tensor(wanted, device=values.device)]


def word_lengths(inputs: ModelInputs) -> dict[str, int]:
    """Return the number of positions of every input that holds whole numbers in two axes, as word ids do."""
    items = inputs.items() if isinstance(inputs, Mapping) else ()
    return {key: value.shape[1] for key, value in items if isinstance(value, Tensor) and value.ndim == 2
            and not value.is_floating_point() and value.dtype != torch.bool}


def row_lengths(inputs: ModelInputs) -> dict[str, int]:
    """Return the number of positions of every input of words or of vectors, which may stand in a row with the patches."""
    items = inputs.items() if isinstance(inputs, Mapping) else ()
    vectors = {key: value.shape[1] for key, value in items if isinstance(value, Tensor) and value.ndim == 3
               and value.is_floating_point()}
    return word_lengths(inputs) | vectors


def sides_cut(height: int, width: int) -> Iterator[set[tuple[int, int]]]:
    """Yield the grids into which square patches without overlap cut a picture, then those with one more at the edges."""
    sides = range(1, min(height, width) + 1)
    yield {(height // side, width // side) for side in sides} - {(1, 1)}
    yield {(-(-height // side), -(-width // side)) for side in sides} - {(1, 1)}
