"""What maps and word scores read at a layer of a model: the examples first, then places or positions."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.capture import INPUT, Captured, ModelInputs, Target, capture
from crossexplain.gradients.cells import sides_of
from crossexplain.gradients.failures import quantised
from crossexplain.gradients.layouts import (
    Place,
    Positions,
    at_positions,
    positions_of,
    require_layout,
    row_lengths,
    rows_first,
    word_lengths,
)
from crossexplain.gradients.modality import Modality, is_batched, rows_of
from crossexplain.gradients.patches import Grid, as_map
from crossexplain.gradients.places import NoAnswer, require_places_of_maps, values_at

if TYPE_CHECKING:
    from crossexplain.gradients.question import Question

TURNED = 8  # examples that are run in another order, to see whether outputs and the rows of a layer follow
PAIR = 2  # examples that are enough to see it for maps, whose time counts
# The layers of models at which it was seen, each with the shapes of the inputs: once is enough.
_SEEN: WeakKeyDictionary[nn.Module, set[tuple[object, ...]]] = WeakKeyDictionary()


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

    def __init__(self, model: nn.Module, inputs: ModelInputs, examples: int, layer: str, common: Collection[str] = (),
                 layout: str | None = None, patches: Grid | None = None, positions: object = None):
        self.model, self.layer, self.layout = model, layer, require_layout(layout)
        self.patches = None if patches is None else sides_of(patches, "patches")
        self.positions = positions_of(positions, "the patches")
        self.place = Place.of(layer, model, one_of(inputs, examples, common))
        self.pictures = _pictures(inputs, layer)
        self.lengths = row_lengths(inputs)

    def map_of(self, values: Tensor, rows: int, place: Place | None = None, layout: str | None = None) -> Tensor:
        """Return values of the layer's shape as maps (N, C, h, w)."""
        pictures: Sequence[Grid | None] = self.pictures or [None]
        maps = [as_map(values, rows, place or self.place, picture=picture, layout=layout or self.layout, patches=self.patches,
                       positions=self.positions, lengths=self.lengths) for picture in pictures]
        if len({tuple(one.shape) for one in maps}) > 1:
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, and the inputs hold pictures of several "
                             "sizes, of which each reads it otherwise; pass layout=... or patches=(rows, columns).")
        return maps[0]

    def require_each(self, inputs: ModelInputs, captured: Captured, target: Target = None) -> None:
        """Raise where the pictures touch, or their maps are in another order; looked into once a model and shape of inputs."""
        shapes = tuple(value.shape for value in _by_name(inputs).values() if isinstance(value, Tensor))
        model, n, common = self.model, len(captured.score), calling_of(self.model).common
        seen = _SEEN.setdefault(model, set())
        if n > 1 and (self.layer, shapes) not in seen and not quantised(model):
            require_each(model, inputs, captured, lambda values, rows, given: self.map_of(values.float(), rows), self.layer, n,
                         common, target if callable(target) else None, PAIR)
        if (self.layer,) not in seen and not quantised(model) and not self.layer.startswith(INPUT):
            self._require_places(inputs, n, common)
        seen.update([(self.layer, shapes), (self.layer,)])

    def _require_places(self, inputs: ModelInputs, examples: int, common: Collection[str]) -> None:
        """Raise where the places of the layer are not those of the only pictures among the inputs."""
        keys = [key for key, value in _by_name(inputs).items() if isinstance(value, Tensor) and value.ndim == 4
                and value.is_floating_point() and len(value) == examples and key not in common]
        if len(keys) != 1:
            return
        key, one = keys[0], some_of(inputs, torch.zeros(1, dtype=torch.long), examples, common)

        def look(pictures: Tensor) -> Tensor:
            rows = torch.zeros(len(pictures), dtype=torch.long)
            given = {**_by_name(some_of(inputs, rows, examples, common)), key: pictures}
            called = given if isinstance(inputs, Mapping) else list(given.values())
            there = capture(self.model, called, self.layer, gradients=False, any_mode=True).activations[self.layer]
            return self.map_of(there.float(), len(pictures))

        with suppress(NoAnswer):
            require_places_of_maps(_by_name(one)[key], look, max(examples, 2), self.layer, "the picture")


def _pictures(inputs: ModelInputs, layer: str) -> list[Grid]:
    """Return the heights and widths of the pictures among the inputs, of the one that is read if it is."""
    items = _by_name(inputs)
    key = layer[len(INPUT):] if layer.startswith(INPUT) else None
    chosen = [value for name, value in items.items() if str(name) == key] or list(items.values())
    return sorted({(value.shape[-2], value.shape[-1]) for value in chosen
                   if isinstance(value, Tensor) and value.ndim in (4, 5) and value.is_floating_point()})


def one_of(inputs: ModelInputs, examples: int, common: Collection[str] = ()) -> ModelInputs | None:
    """Return the inputs of the first example, None of an empty batch."""
    return None if examples < 1 else some_of(inputs, torch.arange(1), examples, common)


def some_of(inputs: ModelInputs, rows: Tensor, examples: int, common: Collection[Any] = ()) -> ModelInputs:
    """Return the inputs of some examples by their row numbers; ``common`` names what is not cut, by keyword or position."""
    cut: dict[Any, Any] = rows_of(_by_name(inputs), rows, examples, common)
    return cut if isinstance(inputs, Mapping) else cut[0] if isinstance(inputs, Tensor) else list(cut.values())


def _by_name(inputs: ModelInputs) -> Mapping[Any, Any]:
    """Return the inputs by keyword, or by position."""
    return inputs if isinstance(inputs, Mapping) else dict(enumerate([inputs] if isinstance(inputs, Tensor) else inputs))


def as_row(values: Tensor, rows: int, inputs: ModelInputs, place: Place, layout: str | None = None,
           positions: Positions | None = None) -> Tensor:
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


def require_each(model: nn.Module, inputs: ModelInputs, captured: Captured, read: Callable[[Tensor, int, Any], Tensor],
                 layer: str, examples: int, common: Collection[str] = (), target: Target = None, most: int = TURNED) -> None:
    """Raise where a few of the examples, turned round, give another output, or other values at a layer, than among the others.

    Parameters
    ----------
    captured : Captured
        Of the first part of the batch.
    read : callable
        Takes values at the layer, the number of their rows and the inputs, and lays them out with the examples first.
    most : int
        Examples that are turned round, at most.
    """
    whole = len(captured.score)
    few = torch.arange(min(examples, max(whole, 2), most)).flip(0)
    few = few[1:] if len(few) == whole > 1 else few  # not those that stood together
    known = few < whole
    before = (captured.output[few[known]], read(captured.activations[layer], whole, inputs)[few[known]])
    cut = [key for key, value in _by_name(inputs).items() if key not in common and is_batched(value, examples)]
    ran, near = False, 1e-3 if captured.output.dtype in (torch.float32, torch.float64) else 2e-2
    for more in [()] + [(key,) for key in cut if whole == examples]:  # what was not cut may belong to all of them
        rows = some_of(inputs, few, examples, (*common, *more))
        try:
            turned = capture(model, rows, layer, target, gradients=False, any_mode=True)
            after = (turned.output[known], read(turned.activations[layer], len(few), rows)[known])
        except Exception:  # noqa: S112 - whatever a stranger's model says to fewer examples: then it cannot tell
            continue
        ran = True
        if all(one.shape == other.shape and torch.allclose(one, other, rtol=1e-2, atol=near * float(other.abs().max()))
               for one, other in zip(after, before)):
            return
    if ran:
        raise InputError(f"the first examples give another output, or other values at {layer!r}, by themselves and in another "
                         f"order than among {whole}: either examples touch, or are sorted in the model, or one of the inputs "
                         f"{', '.join(map(repr, cut))} belongs to all examples and must not be cut; name it: common=[...], or "
                         "Called(model, common=[...]), or pass a batch_size of all examples.")


def require_order(question: "Question", modalities: Sequence[Modality]) -> None:
    """Raise where the rows of a layer are not the examples in their order, as of a model that sorts them by length."""
    few = torch.arange(min(question.n, TURNED))
    layers = list(dict.fromkeys(modality.layer for modality in modalities))
    read = [(given, values_at(question, given, len(few), layers))
            for given in (question.examples(few), question.examples(few.flip(0)))]
    for modality in modalities:
        there, back = (modality.laid_out(values[modality.layer].float(), given, len(few)) for given, values in read)
        if there.shape == back.shape and not torch.allclose(there, back.flip(0), rtol=1e-2,
                                                            atol=1e-2 * float(there.abs().max())):
            raise InputError(f"layer {modality.layer!r} does not hold the examples in their order: in another order of the "
                             f"first {len(few)} each has values of another one, as in a model that sorts its examples by "
                             "length; sort them before they go in, or read a layer before they are sorted.")


def require_own(question: "Question", modalities: Sequence[Modality]) -> None:
    """Raise where a layer does not change with its own modality but with another: calls or towers are mixed up."""
    one, layers = question.examples(torch.arange(1)), list(dict.fromkeys(modality.layer for modality in modalities))
    before, moved = values_at(question, one, 1, layers), {}
    for modality in question.modalities:
        with suppress(InputError, StopIteration):  # a baseline that cannot hide a whole modality
            nothing = torch.zeros_like(question.present[modality.name][:1])
            baseline = next(name for name in modality.baselines if name != "data")  # nobody to borrow from
            hidden = question.replaced(modality, one, nothing, baseline, None)
            if any(not torch.equal(value, one[key]) for key, value in hidden.items()):
                after = values_at(question, {**one, **hidden}, 1, layers)
                moved[modality.name] = [layer for layer, values in before.items() if not torch.equal(values, after[layer])]
    for modality in modalities:
        follows = [name for name, those in moved.items() if modality.layer in those]
        apart = modality.name in moved and getattr(modality, "positions", None) is None
        if apart and follows and modality.name not in follows:
            raise InputError(f"layer {modality.layer!r} of {modality.name} stays the same whatever {modality.name} holds, and "
                             f"changes with {', '.join(follows)}; name the layer, or the call of it, that reads "
                             f"{modality.name}.")
