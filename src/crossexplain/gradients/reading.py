"""What maps and word scores read at a layer of a model: the examples first, then places or positions."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.capture import Captured, Target, capture
from crossexplain.gradients.cells import sides_of
from crossexplain.gradients.layouts import (
    INPUT,
    Place,
    at_positions,
    positions_of,
    require_layout,
    rows_first,
    word_lengths,
)
from crossexplain.gradients.modality import is_batched, rows_of
from crossexplain.gradients.patches import Grid, as_map

TURNED = 8  # examples that are run in another order, to see whether outputs and the rows of a layer follow


class Reader:
    """A layer of pictures of one model, read as maps.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : mapping, sequence or Tensor
        N examples.
    examples : int
        N.
    layer : str
    common : collection of str
        Keys of inputs that belong to all examples.
    layout, patches, positions
        As for :class:`~crossexplain.gradients.modalities.ImageCells`.
    """

    def __init__(self, model: nn.Module, inputs: object, examples: int, layer: str, common: Collection[str] = (),
                 layout: str | None = None, patches: Grid | None = None, positions: object = None):
        self.layer, self.layout = layer, require_layout(layout)
        self.patches = sides_of(patches, "patches")
        self.positions = positions_of(positions, "the patches")
        self.place = Place.of(layer, model, one_of(inputs, examples, common))
        self.pictures = _pictures(inputs, layer)
        self.lengths = word_lengths(inputs)

    def map_of(self, values: Tensor, rows: int, place: Place | None = None, layout: str | None = None) -> Tensor:
        """Return values of the layer's shape as maps (N, C, h, w)."""
        maps = [as_map(values, rows, place or self.place, picture=picture, layout=layout or self.layout, patches=self.patches,
                       positions=self.positions, lengths=self.lengths) for picture in self.pictures or [None]]
        if len({tuple(one.shape) for one in maps}) > 1:
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, and the inputs hold pictures of several "
                             "sizes, of which each reads it otherwise; pass layout=... or patches=(rows, columns).")
        return maps[0]


def _pictures(inputs: object, layer: str) -> list[Grid]:
    """Return the heights and widths of the pictures among the inputs, of the one that is read if it is."""
    items = dict(inputs.items()) if isinstance(inputs, Mapping) else dict(enumerate(
        [inputs] if isinstance(inputs, Tensor) else inputs))
    key = layer[len(INPUT):] if layer.startswith(INPUT) else None
    chosen = [value for name, value in items.items() if str(name) == key] or list(items.values())
    return sorted({tuple(value.shape[-2:]) for value in chosen
                   if isinstance(value, Tensor) and value.ndim in (4, 5) and value.is_floating_point()})


def one_of(inputs: object, examples: int, common: Collection[str] = ()) -> object:
    """Return the inputs of the first example, None of an empty batch."""
    first = torch.arange(1)
    if examples < 1:
        return None
    if isinstance(inputs, Mapping):
        return rows_of(inputs, first, examples, common)
    if isinstance(inputs, Tensor):
        return inputs[:1]
    return [value[:1] if is_batched(value, examples) else value for value in inputs]


def as_row(values: Tensor, rows: int, inputs: object, place: Place, layout: str | None = None,
           positions: object = None) -> Tensor:
    """Return what a layer of words holds as vectors (N, T, D), one a token.

    Raises
    ------
    InputError
        For another number of axes, and where the layer has not as many rows as there are examples or more positions than
        an input of words.
    """
    if values.ndim != 3:
        raise InputError(f"layer {place.layer!r} gives shape {tuple(values.shape)}, expected one vector a token (N, T, D); "
                         "capture the embeddings or a transformer block.")
    lengths = word_lengths(inputs)
    counts = {length for length in lengths.values() if length in values.shape}
    row = rows_first(values, rows, place, layout, next(iter(counts)) if len(counts) == 1 else None)
    if positions is not None:
        return at_positions(row, positions, place, "the tokens")
    if lengths and row.shape[1] not in lengths.values():
        told = ", ".join(f"{key!r} {length}" for key, length in lengths.items())
        raise InputError(f"layer {place.layer!r} has {row.shape[1]} positions, the inputs have another number of tokens "
                         f"({told}); pass positions=slice(first, last + 1) of the tokens where others stand in the same "
                         "row, or positions=slice(None) for all, or read the embeddings.")
    return row


def require_each(model: nn.Module, inputs: Mapping[str, object], captured: Captured,
                 read: Callable[[Tensor, int, dict], Tensor], layer: str, examples: int, common: Collection[str] = (),
                 target: Target = None) -> None:
    """Raise where a few of the examples, turned round, give another output, or other values at a layer, than among the others.

    Parameters
    ----------
    captured : Captured
        Of the first part of the batch.
    read : callable
        Takes values at the layer, the number of their rows and the inputs, and lays them out with the examples first.
    """
    whole = len(captured.score)
    few = torch.arange(min(examples, max(whole, 2), TURNED)).flip(0)
    few = few[1:] if len(few) == whole > 1 else few  # not those that stood together
    known = few < whole
    before = (captured.output[few[known]], read(captured.activations[layer], whole, inputs)[few[known]])
    cut = [key for key, value in inputs.items() if key not in common and is_batched(value, examples)]
    ran = False
    for more in [()] + [(key,) for key in cut if whole == examples]:  # what was not cut may belong to all of them
        rows = rows_of(inputs, few, examples, (*common, *more))
        try:
            turned = capture(model, rows, layer, target, gradients=False, any_mode=True)
            after = (turned.output[known], read(turned.activations[layer], len(few), rows)[known])
        except Exception:  # noqa: S112 - whatever a stranger's model says to fewer examples: then it cannot tell
            continue
        ran = True
        if all(one.shape == other.shape and torch.allclose(one, other, rtol=1e-2, atol=1e-3 * float(other.abs().max()))
               for one, other in zip(after, before)):
            return
    if ran:
        raise InputError(f"the first examples give another output, or other values at {layer!r}, by themselves and in another "
                         f"order than among {whole}: either examples touch, or are sorted in the model, or one of the inputs "
                         f"{', '.join(map(repr, cut))} belongs to all examples and must not be cut; name it: common=[...], or "
                         "pass a batch_size of all examples.")
