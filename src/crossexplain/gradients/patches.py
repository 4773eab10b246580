"""Maps from layers: channels moved to the second axis, and the patches of a transformer laid out in rows and columns."""

from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.layouts import (
    MAPS,
    Place,
    at_inputs,
    at_positions,
    looks_channels_last,
    map_layout,
    require_rows,
    rows_first,
    sides_cut,
)

# The most tokens that a vision transformer has before its patches (class token, registers): DINOv2 has 5, others fewer.
SPECIAL_TOKENS = 8
USUAL = 5  # of these, where nothing but the number of positions is known
Grid = tuple[int, int]


def as_map(values: Tensor, rows: int, place: Place, *, picture: Grid | None = None, layout: str | None = None,
           patches: Grid | None = None, positions: object = None, lengths: Mapping[str, int] | None = None,
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
        One of :data:`~crossexplain.gradients.layouts.LAYOUTS`; default, what the kind of the layer and the sizes say.
    patches : (int, int), optional
        Rows and columns of patches.
    positions : slice or sequence of int, optional
        Which positions are the patches, row by row; default, the last.
    lengths : mapping of str to int, optional
        Number of positions of the inputs that hold words, which may stand in the same row as the patches.
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
        layout = layout or map_layout(values.shape, place, picture)
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
            _require_special_in_front(row.shape[1], grid, place)
        return row[:, row.shape[1] - grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
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
        # Without such a convolution, or with fewer positions: patches cut otherwise, or merged.
        if not cut or count < min(rows * columns for rows, columns in cut):
            fitting = _fitting(count, picture, cells, SPECIAL_TOKENS if place.model is not None else USUAL)
    if len(fitting) == 1 and not (joint and _reads(place, list(lengths))):
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
    found = set()
    for patches in range(max(2, count - special), count + 1):
        if picture is None or picture[0] == picture[1]:
            found |= {(isqrt(patches),) * 2} if isqrt(patches) ** 2 == patches else set()
        else:
            found |= {grid for grid in sides_cut(*picture) if grid[0] * grid[1] == patches}
    return {grid for grid in found if grid[0] >= cells[0] and grid[1] >= cells[1]}


def _cut_by_model(place: Place, picture: Grid | None) -> set[Grid]:
    """Return into how many rows and columns the model's convolutions without overlap cut a picture."""
    if picture is None or place.model is None:
        return set()
    cut = set()
    for module in place.model.modules():
        # Patches are cut from colours, four channels at most, and each by itself.
        if type(module) is nn.Conv2d and module.kernel_size == module.stride and min(module.stride) > 1 \
                and module.in_channels <= 4:
            padding = module.padding if isinstance(module.padding, tuple) else (0, 0)
            sides = [(side + 2 * more) // stride for side, more, stride in zip(picture, padding, module.stride)]
            cut |= {tuple(sides)} if min(sides) > 0 else set()
    return cut


def _reads(place: Place, keys: Sequence[str]) -> bool:
    """Return whether a place depends on the words, or may do so: in a tower of its own the picture has no words beside it."""
    one = place.one
    before = place.values(one) if isinstance(one, Mapping) else None
    if before is None:
        return True
    other = {key: one[key].flip(1) if key in keys else value for key, value in one.items()}
    changed = any(not torch.equal(other[key], one[key]) for key in keys if key in one)
    after = place.values(other)
    return not changed or after is None or not torch.allclose(before, after, rtol=1e-5, atol=1e-7)


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


def _require_special_in_front(count: int, grid: Grid, place: Place) -> None:
    """Raise where the model says that the patches are not the last positions.

    The first patch answers to a change of the first piece of the picture, and the last to the last; a class token answers
    to both. So the place of the patches in the row shows when the model is run on one picture with each of them changed.
    """
    patches, special = grid[0] * grid[1], count - grid[0] * grid[1]
    if not special or not isinstance(place.one, Mapping | Tensor):
        return
    one = place.one if isinstance(place.one, Mapping) else {"": place.one}
    keys = [key for key, value in one.items() if isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()]
    before = place.values(place.one)
    if len(keys) != 1 or before is None or before.ndim != 3:
        return
    answers = []
    for corner in ((slice(None, 1), slice(None, 1)), (slice(-1, None), slice(-1, None))):
        other = _changed(one[keys[0]], grid, corner)
        after = place.values(one | {keys[0]: other} if isinstance(place.one, Mapping) else other)
        if after is None or after.shape != before.shape or before.numel() != before.shape[-1] * count:
            return
        answers.append((after - before).reshape(count, -1).double().norm(dim=1))
    rather_first = (answers[0] + 1e-12).log() - (answers[1] + 1e-12).log()  # (T,)
    apart = [float(rather_first[start] - rather_first[start + patches - 1]) for start in range(special + 1)]
    start = max(range(special + 1), key=apart.__getitem__)
    if apart[start] > apart[special] + 1e-3:
        raise InputError(f"layer {place.layer!r} gives {count} positions, {special} more than {grid[0]} x {grid[1]} "
                         f"patches, and these seem to start at position {start}, not at {special}; pass "
                         f"positions=slice({start}, {start + patches}), or positions=slice({special}, {count}) if special "
                         "tokens do come first.")


def _changed(picture: Tensor, grid: Grid, corner: tuple[slice, slice]) -> Tensor:
    """Return one picture with the piece of one patch changed by noise."""
    height, width = (side // pieces for side, pieces in zip(picture.shape[2:], grid))
    rows = slice(None, height) if corner[0].start is None else slice(grid[0] * height - height, None)
    columns = slice(None, width) if corner[1].start is None else slice(grid[1] * width - width, None)
    other = picture.detach().clone()
    piece = other[:, :, rows, columns]
    noise = torch.rand(piece.shape, generator=torch.Generator().manual_seed(0)).to(piece)
    other[:, :, rows, columns] = piece + noise * picture.std().nan_to_num(0).clamp(min=0.1)
    return other
