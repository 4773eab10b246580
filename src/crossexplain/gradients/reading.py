"""What maps and word scores read at a layer of a model: the examples first, then places or positions."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.capture import INPUT, Captured, ModelInputs, Target, capture
from crossexplain.gradients.cells import ImageCells, sides_of
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

if TYPE_CHECKING:
    from crossexplain.gradients.question import Question

TURNED = 8  # examples that are run in another order, to see whether outputs and the rows of a layer follow
PAIR = 2  # examples that are enough to see it for maps, whose time counts
HIDDEN = 16  # features that are hidden one by one, at most, to see whether the places of a layer follow
BLOCKS = 3  # rows and columns of a picture that are changed one by one for the same, where no cells are named
NO_SAY = 1e-3  # of the largest change at a place: what its own feature changes there, where the place is another one's
EDGE = 16  # of the side of a picture, the part of its edge that a model which crops may leave out
ROUNDING = 1e-5  # of the largest value at a layer: what differs less is taken as the same
LEAST = 3  # features that change something, from which it is judged whether they do so at their places
CLEAR = 1.5  # by how much the say of another feature has to exceed that of the place's own, to count as its own
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
        picture = _by_name(inputs)[keys[0]][:1]
        changed = _turned_over(picture, ImageCells(grid=(BLOCKS, BLOCKS)), torch.arange(BLOCKS**2))
        rows = some_of(inputs, torch.zeros(len(changed), dtype=torch.long), examples, common)
        rows = {**_by_name(rows), keys[0]: changed}
        maps = []
        for part in torch.arange(len(changed)).split(max(examples, 2)):
            cut = rows_of(rows, part, len(changed), common)
            given = cut if isinstance(inputs, Mapping) else list(cut.values())
            try:
                there = capture(self.model, given, self.layer, gradients=False, any_mode=True).activations[self.layer]
                maps.append(self.map_of(there.float(), len(part)))
            except Exception:  # whatever a stranger's model says to other pictures: then it cannot tell
                return
        there = torch.cat(maps)
        if min(there.shape[2:]) >= BLOCKS:
            change = nn.functional.adaptive_avg_pool2d(_differences(there).sum(dim=1, keepdim=True), BLOCKS)
            _require_own_places(change.flatten(1)[1:].cpu(), self.layer, "the picture", "block", torch.arange(BLOCKS**2))


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
    read = [(given, _values(question, given, len(few), layers))
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
    before, moved = _values(question, one, 1, layers), {}
    for modality in question.modalities:
        with suppress(InputError, StopIteration):  # a baseline that cannot hide a whole modality
            nothing = torch.zeros_like(question.present[modality.name][:1])
            baseline = next(name for name in modality.baselines if name != "data")  # nobody to borrow from
            hidden = question.replaced(modality, one, nothing, baseline, None)
            if any(not torch.equal(value, one[key]) for key, value in hidden.items()):
                after = _values(question, {**one, **hidden}, 1, layers)
                moved[modality.name] = [layer for layer, values in before.items() if not torch.equal(values, after[layer])]
    for modality in modalities:
        follows = [name for name, those in moved.items() if modality.layer in those]
        apart = modality.name in moved and getattr(modality, "positions", None) is None
        if apart and follows and modality.name not in follows:
            raise InputError(f"layer {modality.layer!r} of {modality.name} stays the same whatever {modality.name} holds, and "
                             f"changes with {', '.join(follows)}; name the layer, or the call of it, that reads "
                             f"{modality.name}.")


def require_places(question: "Question", modalities: Sequence[Modality]) -> None:
    """Raise where the places of a layer are not those of the features: a picture that is turned or cropped, words moved on."""
    for modality in modalities:
        chosen = _spread(question.present[modality.name][0].nonzero()[:, 0].cpu(), modality)
        change = None if modality.layer.startswith(INPUT) or modality.reads_itself else _changes(question, modality, chosen)
        if change is not None:
            _require_own_places(change, modality.layer, modality.name, modality.unit.removesuffix("s"), chosen)


def _spread(present: Tensor, modality: Modality) -> Tensor:
    """Return some features from one end to the other, of a grid in rows and columns, as a turned picture has them too."""
    def some(count: int, most: int) -> Tensor:
        return torch.linspace(0, count - 1, min(count, most)).round().long()

    if isinstance(modality, ImageCells):
        rows, columns = (some(side, int(HIDDEN**0.5)) for side in modality.grid)
        return (rows[:, None] * modality.grid[1] + columns).flatten()
    return present[some(len(present), HIDDEN)]


def _require_own_places(change: Tensor, layer: str, what: str, unit: str, chosen: Tensor) -> None:
    """Raise where features change a layer elsewhere than at their places; ``change`` (k, F), or (k + 1, F) with the edge."""
    edge, change = change[len(chosen):], change[: len(chosen)]
    cropped = len(edge) > 0 and float(change.max()) > 0 and not edge.any()
    found = None if cropped else elsewhere(change, chosen)
    if cropped or found is not None:
        told = "nothing at the edge of the picture changes it" if cropped else \
            f"{unit} {1 + int(found or 0)} changes it elsewhere than at its own place"
        raise InputError(f"layer {layer!r} holds {what} at other places than the input does: {told}, as where a model turns, "
                         "moves or crops its pictures, or adds a token; do that before the model, name the places "
                         f"(positions=...), or read the input itself ({INPUT}...).")


def _changes(question: "Question", modality: Modality, chosen: Tensor) -> Tensor | None:
    """Return how much each of some features (k,) changes at the place of each when hidden, (k, F); None where none can be."""
    for hidden, count in _hidden(question, modality, chosen):
        with suppress(InputError):
            parts, given = [], question.examples(torch.zeros(count, dtype=torch.long))
            for part in torch.arange(count).split(question.rows):
                cut = rows_of({**given, **hidden}, part, count, question.common)
                values = _values(question, cut, len(part), [modality.layer])[modality.layer]
                parts.append(modality.laid_out(values.float(), cut, len(part)))
            there = torch.cat(parts)
            return modality.summed(_differences(there), given)[1:].cpu()
    return None


def _hidden(question: "Question", modality: Modality, chosen: Tensor) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield the inputs that change when each of some features is another one, the first row as it is, and how many rows."""
    if isinstance(modality, ImageCells):
        changed = _turned_over(modality.value(question.inputs)[:1], modality, chosen)
        yield {modality.input: changed}, len(changed)
        return
    rows = torch.zeros(1 + len(chosen), dtype=torch.long)
    given, stay = question.examples(rows), question.present[modality.name][rows].clone()
    stay[torch.arange(1, len(rows)), chosen] = False
    for baseline in modality.baselines:
        if baseline not in ("data", "delete"):  # nobody to borrow from; and what moves the others
            with suppress(InputError):
                yield question.replaced(modality, given, stay, baseline, None), len(rows)


def _differences(there: Tensor) -> Tensor:
    """Return how far each row is from the first, 0 where that is no more than what rounding does."""
    apart = (there - there[:1]).abs()
    return apart.masked_fill(apart <= ROUNDING * there[:1].abs().max(), 0)


def _turned_over(picture: Tensor, cells: ImageCells, chosen: Tensor) -> Tensor:
    """Return a picture (1, C, H, W) as it is, with bright for dark in each of k cells, and, of a large one, at the edge."""
    height, width = picture.shape[-2:]
    hide = torch.zeros(1 + len(chosen), prod(cells.grid), device=picture.device)
    hide[torch.arange(1, len(hide)), chosen] = 1
    there = cells.pixels_of(hide, height, width) > 0
    if (band := min(height, width) // EDGE) >= 4:  # a small one may be read in steps that leave out more
        edge = torch.ones_like(there[:1])
        edge[..., band:-band, band:-band] = False
        there = torch.cat([there, edge])
    low, high = picture.min(), picture.max()
    return torch.where(there, high + low - picture + (high == low), picture)


def elsewhere(change: Tensor, chosen: Tensor) -> int | None:
    """Return a feature that changes other places than its own, if most of them do; or None.

    Parameters
    ----------
    change : Tensor, shape (k, F)
        How much each of some features changes at the places of all.
    chosen : Tensor of int64, shape (k,)
        Which features these are.
    """
    among = change[:, chosen]
    own, tiny = among.diagonal(), torch.finfo(change.dtype).tiny
    # Deep layers mix all places, some features more than others: what counts there is whose say is largest for its size.
    say = among / among.sum(dim=1, keepdim=True).clamp(min=tiny)
    follows, clear = say.argmax(dim=0), say.amax(dim=0) > CLEAR * say.diagonal()
    swapped = len(follows.unique()) == len(follows)  # each place follows one feature and each feature moves one place
    for most, bad in ((change.amax(dim=1), own <= NO_SAY * change.amax(dim=1)),
                      (among.amax(dim=0), own <= NO_SAY * among.amax(dim=0)), (among.amax(dim=0), clear & swapped)):
        voting = most > 0
        bad &= voting
        if int(voting.sum()) >= LEAST and int(bad.sum()) > int(voting.sum()) / 2:
            return int(chosen[int(bad.nonzero()[0])])
    return None


def _values(question: "Question", inputs: Mapping[str, object], rows: int, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return what some layers hold, by name."""
    return capture(question.model, inputs, layers, lambda output: question.of_output(output, rows)[:, 0], gradients=False,
                   any_mode=True).activations
