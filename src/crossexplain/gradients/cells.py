"""Pictures and videos, cut into cells."""

from collections.abc import Callable, Sequence
from math import prod
from numbers import Integral
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from crossexplain.checks import InputError, entries_of, require_batch, require_finite, require_images
from crossexplain.gradients.layouts import (
    Place,
    at_inputs,
    looks_channels_last,
    positions_of,
    require_layout,
    require_rows,
    row_lengths,
)
from crossexplain.gradients.modality import Inputs, Modality, named
from crossexplain.gradients.patches import Grid, as_map


@overload
def sides_of(sides: object, what: str) -> Grid: ...


@overload
def sides_of(sides: object, what: str, count: int) -> tuple[int, ...]: ...


def sides_of(sides: object, what: str, count: int = 2) -> tuple[int, ...]:
    """Return the numbers of rows and columns as a tuple, or raise :class:`InputError`."""
    numbers = tuple(entries_of(sides) or ())
    if len(numbers) != count or not all(isinstance(side, Integral) and int(side) > 0 for side in numbers):
        of = "rows and columns" if count == 2 else "frames, rows and columns"
        raise InputError(f"got {what}={sides!r}, expected {of} of cells, each 1 or more, as in {what}={(2,) * count}.")
    return numbers


class _Cells(Modality):
    """What pictures and videos have in common."""

    unit = "cells"
    grid: tuple[int, ...]

    def _every_cell(self, values: Tensor) -> Tensor:
        """Return bool (N, F): every example has every cell."""
        return torch.ones(len(values), prod(self.grid), dtype=torch.bool, device=values.device)

    def _summed(self, values: Tensor, inputs: Inputs | None = None) -> Tensor:
        """Sum maps (R, C, ...) over the channels and places of each cell: (R, F)."""
        sides = values.shape[2:]
        if any(side < pieces for side, pieces in zip(sides, self.grid)):
            raise InputError(f"layer {self.layer!r} gives maps of {' x '.join(map(str, sides))} places, which cannot be cut "
                             f"into {' x '.join(map(str, self.grid))} cells; read an earlier layer, or use a coarser grid.")
        pool: Callable[..., Tensor] = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
        return pool(values.sum(dim=1, keepdim=True), self.grid).flatten(1) * (sides.numel() / prod(self.grid))


class ImageCells(_Cells):
    """Pixels, cut into a grid of cells (or patches: a grid as fine as the model's).

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str, optional
        Where the gradient is read: a convolutional layer (N, C, h, w), a layer with channels last (N, h, w, C), a
        transformer layer (N, special + P, D) whose last P positions are the patches, or by default the pixels themselves.
    grid : (int, int)
        Rows and columns of cells; features count row by row.
    layout : {"NCHW", "NHWC", "NTD", "TND", "NDT"}, optional
        How the layer lays the picture out. Default: what the kind of the layer says, else its sizes against the picture's.
    patches : (int, int), optional
        Rows and columns of a transformer's patches. Default: what the model's first convolution and the sizes say.
    positions : slice, range or sequence of int, optional
        Which positions of a row are the patches, where words stand in the same row or special tokens come after them.

    Notes
    -----
    Baselines: ``"zero"`` (0 in the model's scale), ``"mean"`` (the image's own mean colour), ``"blur"`` (Gaussian, an
    eighth of the image wide: texture gone, colours kept) and ``"data"`` (the same cell of another image). The mean and
    the blur are made from what they hide and give some of it away: fit to hide a cell, not a whole image.
    """

    baselines = ("zero", "mean", "blur", "data")
    grid: Grid

    def __init__(self, name: str = "image", input: str = "images", layer: str | None = None, grid: Sequence[int] = (2, 2), *,
                 layout: str | None = None, patches: Sequence[int] | None = None, positions: object = None):
        self.name, self.input, self.layer = named(name, input, layer)
        self.grid, self.patches = sides_of(grid, "grid"), None if patches is None else sides_of(patches, "patches")
        self.layout, self.positions = require_layout(layout), positions_of(positions, name)
        if at_inputs(self.layer) and layout not in (None, "NCHW"):
            raise InputError(f"got layout={layout!r} for {self.layer!r}, expected pixels (N, C, H, W); let a wrapper turn "
                             "them for a model that takes them otherwise: Called(model, lambda model, inputs: model(...)).")

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, rows * columns): every image has every cell."""
        return self._every_cell(self._pictures(inputs))

    def _pictures(self, inputs: Inputs) -> Tensor:
        images = self.value(inputs)
        if images.ndim == 5:
            raise InputError(f"{self.name} has shape {tuple(images.shape)}, expected four axes (N, C, H, W); for video or "
                             f"volumes use Video({self.name!r}, {self.input!r}), which cuts cells in time and space.")
        if images.ndim in (2, 3):
            raise InputError(f"{self.name} has shape {tuple(images.shape)}, expected four axes (N, C, H, W); add a batch "
                             "axis to a single image with image[None], a colour axis to grey images with images[:, None].")
        if looks_channels_last(images) and self.layout is None:
            raise InputError(f"{self.name} has shape {tuple(images.shape)}, which looks like (N, H, W, C), expected "
                             "(N, C, H, W); turn it with .permute(0, 3, 1, 2), and back within Called(model, lambda model, "
                             "inputs: model(...)) where the model wants the colours last; layout='NCHW' says that the second "
                             "axis does hold them.")
        require_images(images, smallest=2)
        if images.shape[2] < self.grid[0] or images.shape[3] < self.grid[1]:
            raise InputError(f"images are {images.shape[2]} x {images.shape[3]} pixels, expected at least {self.grid[0]} x "
                             f"{self.grid[1]}, a pixel a cell; pass a coarser grid=(rows, columns).")
        return images

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the images with the cells outside ``keep`` replaced."""
        images = self.value(inputs)  # (N, C, H, W)
        stay = self.pixels_of(keep, images.shape[-2], images.shape[-1])  # (N, 1, H, W)
        return {self.input: torch.where(stay, images, self._stand_in(images, baseline, donor))}

    def _stand_in(self, images: Tensor, baseline: str, donor: Inputs | None) -> Tensor:
        if baseline == "data":
            return self.value(donor)
        if baseline == "mean":
            return images.mean(dim=(-2, -1), keepdim=True)
        if baseline == "zero":
            return images.new_zeros(())
        from torchvision.transforms.v2.functional import gaussian_blur  # slow to import, and needed by the blur alone

        # First along the rows, then along the columns: both at once would take hundreds of times as many weights.
        width, height = (2 * max(1, round(side * 0.25)) + 1 for side in images.shape[:-3:-1])
        sigma = [side / 8 for side in images.shape[:-3:-1]]
        blurred: Tensor = gaussian_blur(gaussian_blur(images, [width, 1], sigma), [1, height], sigma)
        return blurred

    def pixels_of(self, cells: Tensor, height: int, width: int) -> Tensor:
        """Spread values of cells (N, F) over the pixels (N, 1, H, W)."""
        rows = torch.arange(height, device=cells.device) * self.grid[0] // height
        columns = torch.arange(width, device=cells.device) * self.grid[1] // width
        return cells[:, rows[:, None] * self.grid[1] + columns][:, None]

    def _laid_out(self, values: Tensor, inputs: Inputs, rows: int, place: Place) -> Tensor:
        """Return maps (R, C, h, w), without special tokens."""
        return self._as_map(values, rows, place, picture=tuple(self.value(inputs).shape[-2:]), lengths=row_lengths(inputs))

    def _as_map(self, values: Tensor, rows: int, place: Place, **known: Any) -> Tensor:
        return as_map(values, rows, place, layout=self.layout, patches=self.patches, positions=self.positions, cells=self.grid,
                      **known)

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the channels and places of each cell: (N, F); pictures are taken for square, :meth:`read_at` knows."""
        return self._summed(self._as_map(values, len(values) if self.layout != "TND" else values.shape[1], self.read_from()))


class Video(_Cells):
    """Pixels of videos or volumes, cut into cells of time and space.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str, optional
        Where the gradient is read: by default the pixels; a layer of five axes such as a Conv3d; or with
        ``read_as="NFCHW"`` a layer of pictures that gets all frames as one batch.
    grid : (int, int, int)
        Pieces in time, rows and columns of cells.
    layout : {"NTCHW", "NCTHW"}, optional
        How the input is laid out. Default: where only one of both axes holds one to four entries, that is the colours.
    read_as : {"NTCHW", "NCTHW", "NTHWC", "NFCHW", "FNCHW"}, optional
        How the layer is laid out. Default: as the input at the input; as the kind of the layer says. The last two are layers
        of pictures (N * T, C, h, w), all frames of the first video first or the first frame of all videos first.

    Notes
    -----
    Baselines: ``"zero"``, ``"mean"`` (the video's own mean colour) and ``"data"`` (the same cell of another video).
    """

    baselines = ("zero", "mean", "data")

    def __init__(self, name: str = "video", input: str = "video", layer: str | None = None, grid: Sequence[int] = (2, 2, 2), *,
                 layout: str | None = None, read_as: str | None = None):
        self.name, self.input, self.layer = named(name, input, layer)
        self.grid = sides_of(grid, "grid", 3)
        self.layout = require_layout(layout, ("NTCHW", "NCTHW"))
        self.read_as = require_layout(read_as, ("NTCHW", "NCTHW", "NTHWC", "NFCHW", "FNCHW"))

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, F): every video has every cell."""
        video = self.value(inputs)
        if video.ndim != 5 or not video.is_floating_point():
            raise InputError(f"{self.name} has {video.dtype} of shape {tuple(video.shape)}, expected floating video "
                             "(N, T, C, H, W) or (N, C, T, H, W); for pictures use ImageCells, for one vector a frame Vectors.")
        require_batch(len(video))
        require_finite(video, self.name)
        sides = (video.shape[self._time(video)], *video.shape[3:])
        if any(side < pieces for side, pieces in zip(sides, self.grid)):
            raise InputError(f"{self.name} has {sides[0]} frames of {sides[1]} x {sides[2]} pixels, which cannot be cut into "
                             f"{' x '.join(map(str, self.grid))} cells; pass a coarser grid=(frames, rows, columns).")
        return self._every_cell(video)

    def _time(self, video: Tensor) -> int:
        """Return the axis of the frames, 1 or 2."""
        if self.layout is not None:
            return 1 if self.layout == "NTCHW" else 2
        colours = [axis for axis in (1, 2) if video.shape[axis] in (1, 3)]
        if len(colours) != 1:
            raise InputError(f"{self.name} has shape {tuple(video.shape)}, whose second or third axis can be the colours; "
                             "pass layout='NTCHW' for frames first or layout='NCTHW' for colours first.")
        return 3 - colours[0]

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the videos with the cells outside ``keep`` replaced."""
        video = self.value(inputs)
        time = self._time(video)
        cells = keep.unflatten(1, self.grid)  # (N, t, rows, columns)
        for axis, length in zip((1, 2, 3), (video.shape[time], *video.shape[3:])):
            pieces = torch.arange(length, device=keep.device) * self.grid[axis - 1] // length
            cells = cells.index_select(axis, pieces)
        stay = cells.unsqueeze(3 - time)  # an axis for the colours
        if baseline == "data":
            other = self.value(donor)
        else:
            other = video.mean(dim=(time, 3, 4), keepdim=True) if baseline == "mean" else video.new_zeros(())
        return {self.input: torch.where(stay, video, other)}

    def _laid_out(self, values: Tensor, inputs: Inputs, rows: int, place: Place) -> Tensor:
        """Return values (R, C, t, h, w)."""
        video = self.value(inputs)
        frames, layout = video.shape[self._time(video)], self.read_as or self._layout_of(values, place, video)
        if layout in ("NFCHW", "FNCHW") and (values.ndim != 4 or len(values) != rows * frames):
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)} for {rows} videos of {frames} frames, "
                             f"expected ({rows * frames}, C, h, w) as read_as={layout!r}; read another layer, or the input.")
        if layout not in ("NFCHW", "FNCHW"):
            require_rows(values, rows, place)
        return self._turned(values, layout, rows)

    def _turned(self, values: Tensor, layout: str, rows: int) -> Tensor:
        """Return values as (N, C, t, h, w)."""
        if layout in ("NFCHW", "FNCHW"):
            frames = len(values) // rows
            return torch.unflatten(values, 0, (rows, frames)).transpose(1, 2) if layout == "NFCHW" else \
                torch.unflatten(values, 0, (frames, rows)).permute(1, 2, 0, 3, 4)
        if values.ndim != 5:
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, expected five axes; read the input or a "
                             "layer of three dimensions such as a Conv3d.")
        return {"NCTHW": values, "NTCHW": values.transpose(1, 2), "NTHWC": values.permute(0, 4, 1, 2, 3)}[layout]

    def _layout_of(self, values: Tensor, place: Place, video: Tensor) -> str:
        if at_inputs(self.layer):
            return "NTCHW" if self._time(video) == 1 else "NCTHW"
        if values.ndim == 5 and place.channels is not None:
            return "NCTHW" if place.channels == "second" else "NTHWC"
        which = "'NCTHW', 'NTCHW' or 'NTHWC'"
        if values.ndim == 4:
            which = "'NFCHW' (all frames of the first video first) or 'FNCHW' (the first frame of all videos first)"
        raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)} for video of shape {tuple(video.shape)}, "
                         f"which leaves its axes open; pass read_as={which}.")

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the channels and places of each cell: (N, F)."""
        layout = self.read_as or self._layout_of(values, self.read_from(), values)
        if layout in ("NFCHW", "FNCHW"):
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, all frames in one batch; how many an "
                             "example has is not known here: ask read_at(values, inputs, rows).")
        return self._summed(self._turned(values, layout, len(values)))
