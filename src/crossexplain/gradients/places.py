"""Whether a layer holds pictures and words at the places at which the input has them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.capture import INPUT, capture
from crossexplain.gradients.cells import ImageCells
from crossexplain.gradients.modality import Modality, rows_of

if TYPE_CHECKING:
    from crossexplain.gradients.question import Question

BLOCKS = 4  # rows and columns of blocks of a picture that are changed one by one
HIDDEN = 16  # words, columns or cells of a video that are hidden one by one, at most
NO_SAY = 1e-3  # of the largest change at a place: what its own part changes there, where the place is another one's
CLEAR = 1.5  # by how much the say of another part has to exceed that of the place's own, to count as its own
LEAST = 3  # parts that change something, from which it is judged whether they do so at their places
SWAPPED = 6  # parts from which it is no chance that each place follows one of them; of four it is one in eleven
EDGE = 16  # of the side of a picture, the part at either end that a model which crops may leave out
ROUNDING = 1e-5  # of the largest value at a layer: what differs less is taken as the same
GREY = 0.1  # of the range of a picture: what would change less when bright and dark are turned is made bright
# The layers of models at which it was seen, each with how it is read: once is enough.
_SEEN: WeakKeyDictionary[nn.Module, set[tuple[object, ...]]] = WeakKeyDictionary()


class NoAnswer(Exception):
    """The model does not take other pictures."""


def require_places(question: "Question", modalities: Sequence[Modality]) -> None:
    """Raise where the places of a layer are not those of the features: a picture that is turned or cropped, words moved on."""
    for modality in modalities:
        named = (repr(getattr(modality, name, None)) for name in ("positions", "layout", "patches"))
        how = (modality.layer, modality.input, *named)
        seen = _SEEN.setdefault(question.model, set())
        if how in seen or modality.layer.startswith(INPUT) or modality.reads_itself:
            continue
        if isinstance(modality, ImageCells):
            def look(pictures: Tensor, modality: Modality = modality) -> Tensor:
                return _laid_out(question, modality, {modality.input: pictures}, len(pictures))

            picture = modality.value(question.examples(torch.zeros(1, dtype=torch.long)))
            with suppress(NoAnswer):
                require_places_of_maps(picture, look, question.rows, modality.layer, modality.name)
        else:
            _require_places_of_words(question, modality)
        seen.add(how)


def require_places_of_maps(picture: Tensor, look: Callable[[Tensor], Tensor], most: int, layer: str, what: str) -> None:
    """Raise where blocks of a picture change its maps elsewhere than at their places, or its sides change nothing.

    Parameters
    ----------
    picture : Tensor, shape (1, C, H, W)
    look : callable
        Takes pictures (R, C, H, W), returns the maps (R, C', h, w) of a layer.
    most : int
        Rows at a time.
    layer, what : str
        Words for a message.

    Raises
    ------
    InputError
    NoAnswer
        Where the model does not take the changed pictures.
    """
    try:
        first = look(picture)
        sides = first.shape[2:]
        cells = ImageCells(grid=tuple(min(side, BLOCKS, pixels) for side, pixels in zip(sides, picture.shape[2:])))
        blocks = prod(cells.grid)
        changed = _turned_over(picture, torch.cat([cells.pixels_of(torch.eye(blocks), *picture.shape[2:]) > 0,
                                                   *_ends(*picture.shape[2:])]))
        there = torch.cat([first, *(look(part) for part in changed.split(most))])
    except Exception as error:  # whatever a stranger's model says to other pictures: then it cannot tell
        raise NoAnswer from error
    apart = _apart(there)[1:]
    if _cut(apart[blocks:]):
        raise _at_other_places(layer, what, "nothing at its edge changes it, and what is inside changes what it has there")
    change = nn.functional.adaptive_avg_pool2d(apart[:blocks].sum(dim=1, keepdim=True), cells.grid).flatten(1)
    _require_own(change, torch.arange(blocks), layer, what, "block")


def _ends(height: int, width: int) -> list[Tensor]:
    """Return masks (1, 1, H, W) of both ends of the rows, of all between, and the same of columns; none of a small picture."""
    if min(height, width) // EDGE < 4:  # it may be read in steps that leave out more
        return []
    masks = []
    for axis, side in ((2, height), (3, width)):
        ends = torch.zeros(1, 1, height, width, dtype=torch.bool)
        ends.movedim(axis, 0)[: side // EDGE] = True
        ends.movedim(axis, 0)[-(side // EDGE):] = True
        masks += [ends, ~ends]
    return masks


def _turned_over(picture: Tensor, there: Tensor) -> Tensor:
    """Return a picture (1, C, H, W) with bright for dark, and bright for grey, in each of some masks (R, 1, H, W)."""
    low, high = picture.min(), picture.max()
    other = high + low - picture
    other = torch.where((other - picture).abs() <= GREY * (high - low), high + (high == low), other)
    return torch.where(there.to(picture.device), other, picture)


def _cut(apart: Tensor) -> bool:
    """Return whether both ends of rows, or of columns, change nothing, and what is between changes both ends of the maps.

    What is hidden by a mask, or cannot raise a maximum, changes no end either; of a crop the ends of the maps are inside.
    """
    for first, axis in ((0, 2), (2, 3)):
        if len(apart) > first and not apart[first].any():
            between = apart[first + 1].movedim(axis - 1, 0)
            if between[0].any() and between[-1].any():
                return True
    return False


def _require_places_of_words(question: "Question", modality: Modality) -> None:
    """Raise where words, columns or cells of a video change a layer elsewhere than at their places."""
    present = question.present[modality.name][0].nonzero()[:, 0].cpu()
    chosen = present[torch.linspace(0, len(present) - 1, min(len(present), HIDDEN)).round().long()]
    rows = torch.zeros(1 + len(chosen), dtype=torch.long)
    given, stay = question.examples(rows), question.present[modality.name][rows].clone()
    stay[torch.arange(1, len(rows)), chosen] = False
    for baseline in modality.baselines:
        if baseline in ("data", "delete"):  # nobody to borrow from; and what moves the others
            continue
        change = None
        with suppress(InputError):
            hidden = question.replaced(modality, given, stay, baseline, None)
            parts = [_laid_out(question, modality, rows_of(hidden, part, len(rows)), len(part))
                     for part in torch.arange(len(rows)).split(question.rows)]
            change = modality.summed(_apart(torch.cat(parts)), given)[1:].cpu()
        if change is not None:
            return _require_own(change, chosen, modality.layer, modality.name, modality.unit.removesuffix("s"))
    return None


def _laid_out(question: "Question", modality: Modality, changed: Mapping[str, Tensor], rows: int) -> Tensor:
    """Return what the layer of a modality holds of the first example with other inputs, the rows first."""
    given = {**question.examples(torch.zeros(rows, dtype=torch.long)), **changed}
    values = values_at(question, given, rows, [modality.layer])[modality.layer]
    return modality.laid_out(values.float(), given, rows)


def _apart(there: Tensor) -> Tensor:
    """Return how far each row is from the first, 0 where that is no more than what rounding does."""
    apart = (there - there[:1]).abs()
    return apart.masked_fill(apart <= ROUNDING * there[:1].abs().max(), 0)


def _require_own(change: Tensor, chosen: Tensor, layer: str, what: str, unit: str) -> None:
    if (found := elsewhere(change.cpu(), chosen)) is not None:
        raise _at_other_places(layer, what, f"{unit} {found + 1} changes it elsewhere than at its own place")


def _at_other_places(layer: str, what: str, told: str) -> InputError:
    return InputError(f"layer {layer!r} holds {what} at other places than the input does: {told}, as where a model turns, "
                      "moves or crops its pictures, or adds a token; do that before the model, name the places "
                      f"(positions=...), or read the input itself ({INPUT}...).")


def elsewhere(change: Tensor, chosen: Tensor) -> int | None:
    """Return a part that changes other places than its own, if most of them do; or None.

    Parameters
    ----------
    change : Tensor, shape (k, F)
        How much each of some parts changes at the places of all.
    chosen : Tensor of int64, shape (k,)
        Which parts these are.
    """
    among = change[:, chosen]
    own, tiny = among.diagonal(), torch.finfo(change.dtype).tiny
    # Deep layers mix all places, some parts more than others: what counts there is whose say is largest for its size.
    say = among / among.sum(dim=1, keepdim=True).clamp(min=tiny)
    follows, clear = say.argmax(dim=0), say.amax(dim=0) > CLEAR * say.diagonal()
    swapped = len(follows) >= SWAPPED and len(follows.unique()) == len(follows)  # each place follows one part of its own
    for most, bad in ((change.amax(dim=1), own <= NO_SAY * change.amax(dim=1)),
                      (among.amax(dim=0), own <= NO_SAY * among.amax(dim=0)), (among.amax(dim=0), clear & swapped)):
        voting = most > 0
        bad &= voting
        if int(voting.sum()) >= LEAST and int(bad.sum()) > int(voting.sum()) / 2:
            return int(chosen[int(bad.nonzero()[0])])
    return None


def values_at(question: "Question", inputs: Mapping[str, object], rows: int, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return what some layers hold, by name."""
    return capture(question.model, inputs, layers, lambda output: question.of_output(output, rows)[:, 0], gradients=False,
                   any_mode=True).activations
