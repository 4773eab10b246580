"""Maps from layers: channels moved to the second axis, and the patches of a transformer laid out in rows and columns."""

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.capture import ModelInputs
from crossexplain.gradients.layouts import (
    MAPS,
    Place,
    Positions,
    at_inputs,
    at_positions,
    looks_channels_last,
    map_layout,
    require_map,
    require_rows,
    rows_first,
    sides_cut,
)

# The most tokens that a vision transformer has before its patches (class token, registers): DINOv2 has 5, others fewer.
SPECIAL_TOKENS = 8
TINY = 1e-9  # below every change that counts
USUAL = 5  # of these, where nothing but the number of positions is known
Grid = tuple[int, int]


def as_map(values: Tensor, rows: int, place: Place, *, picture: Grid | None = None, layout: str | None = None,
           patches: Grid | None = None, positions: Positions | None = None, lengths: Mapping[str, int] | None = None,
           cells: Grid = (1, 1)) -> Tensor:
    """Return what a place holds as maps (N, C, h, w).

    Parameters
    ----------
    values : Tensor
        Of four axes, or of three with a position a patch.
    rows : int
        Number of examples that they belong to.
    place : Place
    picture : (int, int), optional
        Height and width of the pictures.
    layout : str, optional
        One of ``LAYOUTS``; default, what the kind of the layer and the sizes say.
    patches : (int, int), optional
        Rows and columns of patches.
    positions : slice or sequence of int, optional
        Which positions are the patches, row by row; default, the last.
    lengths : mapping of str to int, optional
        Number of positions of the inputs that hold words or vectors, which may stand in the same row as the patches.
    cells : (int, int)
        Rows and columns that the map is cut into afterwards.

    Raises
    ------
    InputError
        Where there are not as many rows as examples, and where the sizes leave two readings or none.
    """
    if values.ndim == 4:
        require_rows(values, rows, place)
        if layout not in (None, *MAPS):
            raise InputError(f"layer {place.layer!r} gives {tuple(values.shape)}, four axes, got layout={layout!r}; pass "
                             "layout='NCHW' or layout='NHWC'.")
        if layout is None and at_inputs(place.layer):
            layout = _layout_of_pictures(values)
        require_map(layout, values.shape, place, picture)
        layout = layout or map_layout(values.shape, place, picture, lambda: _layout_by_corners(place))
        return values if layout == "NCHW" else values.permute(0, 3, 1, 2)
    if values.ndim == 3:
        if layout in MAPS:
            raise InputError(f"layer {place.layer!r} gives {tuple(values.shape)}, three axes, got layout={layout!r}; pass "
                             "layout='NTD' or layout='TND'.")
        expected = None if patches is None else patches[0] * patches[1]
        row = rows_first(values, rows, place, layout, expected)
        grid = patches
        if positions is not None:
            row = at_positions(row, positions, place, "the patches")
            grid = grid or _grid_of_all(row.shape[1], picture, place)
            if grid[0] * grid[1] != row.shape[1]:
                raise InputError(f"got {row.shape[1]} positions of {grid[0]} x {grid[1]} patches at layer {place.layer!r}, "
                                 f"expected {grid[0] * grid[1]}; pass positions=... and patches=(rows, columns) that agree.")
        else:
            grid = _checked(grid, row.shape[1], place) if grid else patch_grid(row.shape[1], place, picture, lengths, cells)
            _require_special_in_front(row.shape[1], grid, place, lengths or {})
        return torch.unflatten(row[:, row.shape[1] - grid[0] * grid[1] :].transpose(1, 2), 2, grid)
    raise InputError(f"layer {place.layer!r} gives shape {tuple(values.shape)}, a map needs (N, channels, height, width) or "
                     f"(N, patches, D){_advice(values, place)}")


def _layout_of_pictures(values: Tensor) -> str:
    if looks_channels_last(values):
        raise InputError(f"the pictures have shape {tuple(values.shape)}, which looks like (N, height, width, channels); "
                         "pass layout='NHWC', or layout='NCHW' if the second axis really holds the channels.")
    return "NCHW"


def _advice(values: Tensor, place: Place) -> str:
    if values.ndim == 5:
        return "; for video read the gradient with Video(...), or average over time after a layer of pictures."
    convolutions = [] if place.model is None else [name for name, module in place.model.named_modules()
                                                   if isinstance(module, nn.Conv2d)]
    return f"; the last convolution is {convolutions[-1]!r}." if convolutions else "; the model has no 2d convolution."


def patch_grid(count: int, place: Place, picture: Grid | None = None, lengths: Mapping[str, int] | None = None,
               cells: Grid = (1, 1)) -> Grid:
    """Return the rows and columns of patches of a layer with ``count`` positions, special tokens in front.

    The convolution that cuts the picture into patches says it, if the model is at hand. Else the sizes of the picture
    and of the layer say it, where they leave one reading.
    """
    cut, lengths = _cut_by_model(place, picture), dict(lengths or {})
    fitting = {grid for grid in cut if 0 <= count - grid[0] * grid[1] <= SPECIAL_TOKENS}
    if fitting:
        joint = [key for key, length in lengths.items() if length <= count - min(rows * columns for rows, columns in fitting)]
    else:
        joint = [key for key, length in lengths.items() for special in (0, 1, 2)
                 if _fitting(count - length - special, picture, cells, 0)]
        # With fewer positions than patches they are merged, two by two; or they are cut in another way.
        if not cut or count < min(rows * columns for rows, columns in cut):
            fitting = {grid for grid in _merged(cut) if grid[0] * grid[1] == count} \
                or _fitting(count, picture, cells, SPECIAL_TOKENS if place.model is not None else USUAL)
    if len(fitting) == 1 and not (joint and _reads_words(place, list(lengths))):
        return next(iter(fitting))
    of = "" if picture is None else f" for pictures of {picture[0]} x {picture[1]} pixels"
    what = "which are no patches in rows and columns with a few special tokens before them, and cannot be cut into cells"
    if fitting:
        what = "which can be " + " or ".join(f"{rows} x {columns} patches after {count - rows * columns} other positions"
                                             for rows, columns in sorted(fitting))
    words = ", ".join(f"the {length} positions of {key!r}" for key, length in lengths.items()
                      if key in joint or not fitting)
    raise InputError(f"layer {place.layer!r} gives {count} positions{of}, {what}"
                     f"{f' (and {words} may stand in the same row)' if words else ''}; pass patches=(rows, columns) and, "
                     "where other tokens stand in the same row, positions=slice(first, last + 1) of the patches.")


def _fitting(count: int, picture: Grid | None, cells: Grid, special: int = SPECIAL_TOKENS) -> set[Grid]:
    """Return all grids that some positions can be, with at most so many special tokens; a single patch is no grid."""
    counts = range(max(2, count - special), count + 1)
    if picture is None or picture[0] == picture[1]:
        choices: Iterable[set[Grid]] = [{(isqrt(patches),) * 2 for patches in counts if isqrt(patches) ** 2 == patches}]
    else:
        choices = sides_cut(*picture)
    for grids in choices:
        found = {grid for grid in grids if grid[0] * grid[1] in counts and grid[0] >= cells[0] and grid[1] >= cells[1]}
        if picture is None:  # then they are believed to be patches only if whole ones make a cell
            found = {grid for grid in found if grid[0] % cells[0] == grid[1] % cells[1] == 0}
        if found:
            return found
    return set()


def _cut_by_model(place: Place, picture: Grid | None) -> set[Grid]:
    """Return into how many rows and columns the model's convolutions without overlap cut a picture."""
    if picture is None or place.model is None:
        return set()
    cut: set[Grid] = set()
    for module in place.model.modules():
        # Patches are cut from colours, four channels at most, and each by itself.
        if type(module) is nn.Conv2d and module.kernel_size == module.stride and min(module.stride) > 1 \
                and module.in_channels <= 4:
            padding = module.padding if isinstance(module.padding, tuple) else (0, 0)
            rows, columns = ((side + 2 * more) // stride for side, more, stride in zip(picture, padding, module.stride))
            cut |= {(rows, columns)} if min(rows, columns) > 0 else set()
    return cut


def _merged(grids: Iterable[Grid]) -> set[Grid]:
    """Return the grids that come of merging two rows and two columns, once or more."""
    merged = {(-(-rows // 2), -(-columns // 2)) for rows, columns in grids} - {(1, 1), *grids}
    return merged | _merged(merged) if merged else set()


def _reads_words(place: Place, keys: Sequence[str]) -> bool:
    """Return whether a place depends on words or vectors, or may do so: in a tower of its own a picture has none beside it."""
    one = place.one
    if not isinstance(one, Mapping):
        return True
    if "words" not in place.known:
        before = place.values(one)
        other = {key: _others(value) if key in keys else value for key, value in one.items()}
        known = before is not None and any(not torch.equal(other[key], one[key]) for key in keys if key in one)
        after = place.values(other) if known else None
        place.known["words"] = before is None or after is None or after.shape != before.shape \
            or not torch.allclose(before, after, rtol=1e-5, atol=1e-7)
    return bool(place.known["words"])


def _others(values: Tensor) -> Tensor:
    """Return other vectors, or other ids that a model knows too; a mask and types, which hold 0 and 1, stay as they are."""
    return _changed(values, ()) if values.is_floating_point() else torch.where(values > 1, values - 1, values)


def _checked(grid: Grid, count: int, place: Place) -> Grid:
    special = count - grid[0] * grid[1]
    if not 0 <= special <= SPECIAL_TOKENS:
        raise InputError(f"layer {place.layer!r} gives {count} tokens, which are no {grid[0]} x {grid[1]} patches with at "
                         f"most {SPECIAL_TOKENS} special tokens before them; pass patches=(rows, columns), and "
                         "positions=... where other tokens stand in the same row.")
    return grid


def _grid_of_all(count: int, picture: Grid | None, place: Place) -> Grid:
    cut = {grid for grid in _cut_by_model(place, picture) if grid[0] * grid[1] == count} or _fitting(count, picture, (1, 1), 0)
    if len(cut) != 1:
        raise InputError(f"got {count} positions of patches at layer {place.layer!r}, whose rows and columns are open; pass "
                         "patches=(rows, columns).")
    return next(iter(cut))


def _require_special_in_front(count: int, grid: Grid, place: Place, lengths: Mapping[str, int]) -> None:
    """Raise where the model shows that the patches are not the last positions, or leaves it open with others in the row.

    The first patch answers to a change of the first piece of the picture, and the last to the last; a class token answers
    to both. So the place of the patches in the row shows when the model is run on one picture with each of them changed.
    """
    patches, special = grid[0] * grid[1], count - grid[0] * grid[1]
    if not special:
        return
    if (count, grid) not in place.known:
        place.known[count, grid] = _apart(count, grid, place)
    apart = place.known[count, grid]
    start = max(range(len(apart)), key=apart.__getitem__, default=special)
    if start != special and apart[start] > 2 * max(apart[special], 0) + 1:
        raise InputError(f"layer {place.layer!r} gives {count} positions, {special} more than {grid[0]} x {grid[1]} "
                         f"patches, and these seem to start at position {start}, not at {special}; pass "
                         f"positions=slice({start}, {start + patches}), or positions=slice({special}, {count}) if special "
                         "tokens do come first.")
    beside = [key for key, length in lengths.items() if place.one is not None or length <= special]
    surely = apart and all(apart[special] > 2 * max(other, 0) + 1 for other in apart[:special])
    if beside and not surely and _reads_words(place, beside):
        raise InputError(f"layer {place.layer!r} gives {count} positions, {special} more than {grid[0]} x {grid[1]} "
                         f"patches, and depends on {', '.join(map(repr, beside))} too, which may stand before or after them; "
                         f"pass positions=slice(first, last + 1) of the patches: slice({special}, {count}) if they come last.")


def _apart(count: int, grid: Grid, place: Place) -> list[float]:
    """Return, for each place where the patches can start, how far the answers of the first and the last patch are apart.

    Read where a row of so many positions first goes into a module, before the positions have mixed much. Empty where the
    model cannot be asked.
    """
    key = _picture_in(place)
    if key is None:
        return []
    picture = _items(place.one)[key]
    height, width = (side // pieces for side, pieces in zip(picture.shape[2:], grid))
    last = slice((grid[0] - 1) * height, grid[0] * height), slice((grid[1] - 1) * width, grid[1] * width)
    pictures = [picture, _changed(picture, (slice(height), slice(width))), _changed(picture, last)]
    runs = [place.rows_inside(_with(place.one, key, picture), count) for picture in pictures]
    for before, *after in zip(*runs):
        answers = [(values - before).reshape(count, -1).double().norm(dim=1) for values in after
                   if values.shape == before.shape]
        if len(answers) == 2 and all(answer.any() for answer in answers):
            rather_first = _log_ratio(*answers)  # (T,)
            step = grid[0] * grid[1] - 1
            return [float(rather_first[start] - rather_first[start + step]) for start in range(count - step)]
    return []


def _items(inputs: ModelInputs | None) -> dict[Any, Any]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return dict(enumerate(inputs if isinstance(inputs, tuple | list) else [inputs]))


def _with(inputs: ModelInputs | None, key: object, value: Tensor) -> ModelInputs:
    """Return the inputs with another value at a key or a position."""
    if isinstance(inputs, Tensor):
        return value
    changed = {**_items(inputs), key: value}
    return changed if isinstance(inputs, Mapping) else list(changed.values())


def _picture_in(place: Place) -> object | None:
    """Return the key of the only input of one example that is a picture, None where there is not one."""
    keys = [key for key, value in _items(place.one).items()
            if isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()]
    return keys[0] if len(keys) == 1 else None


def _changed(picture: Tensor, piece: tuple[slice, ...]) -> Tensor:
    """Return one picture, or vectors, with a piece changed by noise."""
    other = picture.detach().clone()
    noise = torch.rand(other[:, :, *piece].shape, generator=torch.Generator().manual_seed(0)).to(picture)
    other[:, :, *piece] += noise * picture.std().nan_to_num(0).clamp(min=0.1)
    return other


def _layout_by_corners(place: Place) -> str | None:
    """Return the layout in which a layer answers to the corners of the picture at its own corners, None where it is open."""
    if "corners" not in place.known:
        place.known["corners"] = None
        key, before = _picture_in(place), place.values(place.one)
        if key is None or before is None or before.ndim != 4:
            return None
        picture = _items(place.one)[key]
        first, last = slice(max(1, min(picture.shape[2:]) // 4)), slice(-max(1, min(picture.shape[2:]) // 4), None)
        runs = [place.values(_with(place.one, key, _changed(picture, piece)))
                for piece in ((first, first), (first, last), (last, first))]
        if all(after is not None and after.shape == before.shape for after in runs):
            answers = [(after - before).double().square()[0] for after in runs if after is not None]  # (C, h, w) or (h, w, C)
            apart = {"NCHW": _apart_at_corners([answer.sum(dim=0) for answer in answers]),
                     "NHWC": _apart_at_corners([answer.sum(dim=2) for answer in answers])}
            best, other = sorted(apart, key=apart.__getitem__, reverse=True)
            place.known["corners"] = best if apart[best] > 2 * max(apart[other], 0) + 1 else None
    corners: str | None = place.known["corners"]
    return corners


def _apart_at_corners(answers: Sequence[Tensor]) -> float:
    """Return how much more maps (h, w) answer at the corner that was changed: top left, top right, bottom left."""
    left, right, bottom = answers
    if min(left.shape) < 2:
        return 0.0

    def rather_first(values: Tensor) -> float:
        return float(_log_ratio(values[: len(values) // 2].sum(), values[len(values) // 2 :].sum()))

    columns = rather_first(left.sum(dim=0)) - rather_first(right.sum(dim=0))
    rows = rather_first(left.sum(dim=1)) - rather_first(bottom.sum(dim=1))
    return min(columns, rows)


def _log_ratio(one: Tensor, other: Tensor) -> Tensor:
    return (one + TINY).log() - (other + TINY).log()
