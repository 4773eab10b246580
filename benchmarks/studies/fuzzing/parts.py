"""How an input is cut into features, hidden and read, by hand: for one example at a time, and without the package.

An *example* is the model's inputs with a batch of one. A feature has *places*, the positions of the layer at which it is read;
hiding by deletion moves them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossexplain import ImageCells, Modality, Tokens, Vectors

Example = Mapping[str, object]
PAD, MASK, BEGIN, END = 0, 1, 2, 3
Places = list[list[int]]  # of each feature


@dataclass
class Part:
    """One modality of a drawn model.

    Attributes
    ----------
    name, key : str
        Its name, and the keyword under which the model takes it.
    layer : str
        Where its gradient is read.
    layout : str
        How that layer lays it out: ``"NCHW"``, ``"NHWC"``, ``"NTD"``, ``"TND"``, or ``"NT"`` for a number a feature.
    declared : dict
        What the adapter of the package is told.
    travels : tuple of str
        The keys of the inputs that are borrowed together with it.
    baselines : tuple of str
        What can stand in for it.
    offset : int
        Position of its first feature at the layer.
    """

    name: str
    key: str
    layer: str
    layout: str
    declared: dict = field(default_factory=dict)
    travels: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("zero", "data")
    offset: int = 0

    def modality(self) -> Modality:
        """Return the adapter of the package."""
        raise NotImplementedError

    def present(self, example: Example) -> list[bool]:
        """Return which features an example has, (F,)."""
        raise NotImplementedError

    def hide(self, example: Example, keep: Sequence[bool], baseline: str, donor: Example | None) -> tuple[dict, Places]:
        """Return the example with some features hidden, and where each feature is read then."""
        raise NotImplementedError

    def know(self, inputs: Example) -> None:
        """Learn what stands in for hidden features from all examples."""

    def places(self, example: Example) -> Places:
        """Return where each feature is read when nothing is hidden."""
        return [[self.offset + f] for f in range(len(self.present(example)))]

    def rows(self, values: Tensor) -> Tensor:
        """Return what a layer gave for a single example without its batch axis."""
        return values[:, 0] if self.layout == "TND" else values[0]

    def fold(self, values: Tensor, places: Places) -> Tensor:
        """Sum what a layer gave for a single example over each feature, (F,)."""
        rows = self.rows(values)
        summed = rows if rows.ndim == 1 else rows.flatten(1).sum(dim=1)
        return torch.stack([sum((summed[place] for place in of_feature), summed.new_zeros(())) for of_feature in places])


def cells_of(height: int, width: int, grid: tuple[int, int]) -> list[list[tuple[int, int]]]:
    """Return the pixels of each cell, row by row."""
    cells = [[] for _ in range(grid[0] * grid[1])]
    for y in range(height):
        for x in range(width):
            cells[y * grid[0] // height * grid[1] + x * grid[1] // width].append((y, x))
    return cells


@dataclass
class Picture(Part):
    """A picture, cut into cells.

    Attributes
    ----------
    grid : (int, int)
        Rows and columns of cells.
    patches : (int, int)
        Rows and columns of the layer, where it holds a sequence.
    """

    grid: tuple[int, int] = (2, 2)
    patches: tuple[int, int] = (2, 2)
    baselines: tuple[str, ...] = ("zero", "mean", "data")

    def modality(self) -> Modality:
        """Return the adapter of the package."""
        layer = None if self.layer == f"input:{self.key}" else self.layer  # the default
        return ImageCells(self.name, self.key, layer, self.grid, **self.declared)

    def present(self, example: Example) -> list[bool]:
        """Every picture has every cell."""
        return [True] * (self.grid[0] * self.grid[1])

    def hide(self, example: Example, keep: Sequence[bool], baseline: str, donor: Example | None) -> tuple[dict, Places]:
        """Write the baseline into each hidden cell, pixel by pixel."""
        picture = example[self.key].clone()
        mean = picture.mean(dim=(2, 3))
        for cell, pixels in enumerate(cells_of(*picture.shape[2:], self.grid)):
            if not keep[cell]:
                for y, x in pixels:
                    stand_in = {"zero": 0.0, "mean": mean, "data": None if donor is None else donor[self.key][:, :, y, x]}
                    picture[:, :, y, x] = stand_in[baseline]
        return {**example, self.key: picture}, self.places(example)

    def as_map(self, values: Tensor) -> Tensor:
        """Return what a layer gave for a single example as a map (C, h, w)."""
        rows = self.rows(values)
        if self.layout in ("NTD", "TND"):
            count = self.patches[0] * self.patches[1]
            return rows[self.offset : self.offset + count].reshape(*self.patches, -1).permute(2, 0, 1)
        return rows.permute(2, 0, 1) if self.layout == "NHWC" else rows

    def fold(self, values: Tensor, places: Places) -> Tensor:
        """Sum a map over each cell: of the pixels those that are hidden with it, of a layer all places that it touches."""
        summed = self.as_map(values).sum(dim=0)
        if self.layer.startswith("input:"):
            return torch.stack([sum(summed[pixel] for pixel in pixels) for pixels in cells_of(*summed.shape, self.grid)])
        return cell_sums(summed, self.grid)


def cell_sums(places: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the sum of a map (h, w) over the cells of a grid, (F,): the mean of what a cell touches, times its size."""
    (h, w), sums = places.shape, []
    for r in range(grid[0]):
        for c in range(grid[1]):
            top, bottom = r * h // grid[0], -(-(r + 1) * h // grid[0])
            left, right = c * w // grid[1], -(-(c + 1) * w // grid[1])
            sums.append(places[top:bottom, left:right].mean() * h * w / (grid[0] * grid[1]))
    return torch.stack(sums)


@dataclass
class Words(Part):
    """A text; a feature is a token, or a word of several tokens.

    Attributes
    ----------
    special : tuple of int
        Ids that are no words.
    attention, lengths : str or None
        Keywords of the attention mask and of the number of tokens.
    along, stay : tuple of str
        Keywords of what belongs to words, and to places.
    special_mask, words : str or None
        Entries of the inputs that the model does not take: which tokens are no words, and the number of the word of each.
    side : str
        Where padding stands, and where deletion fills: ``"left"`` or ``"right"``.
    count : int
        Number of features, where they are words of several tokens.
    """

    special: tuple[int, ...] = ()
    attention: str | None = None
    lengths: str | None = None
    along: tuple[str, ...] = ()
    stay: tuple[str, ...] = ()
    special_mask: str | None = None
    words: str | None = None
    side: str = "right"
    count: int = 0
    baselines: tuple[str, ...] = ("mask", "pad", "delete", "data")

    def modality(self) -> Modality:
        """Return the adapter of the package."""
        return Tokens(self.name, self.key, self.layer, special=self.special, **self.declared)

    def tokens(self, example: Example) -> list[bool]:
        """Return which tokens belong to words, (T,)."""
        ids = example[self.key][0].tolist()
        attended = [1] * len(ids) if self.attention is None else example[self.attention][0].tolist()
        spoken = [bool(a) if self.attention else i != PAD for i, a in zip(ids, attended)]
        taken = [False] * len(ids) if self.special_mask is None else example[self.special_mask][0].tolist()
        return [s and i not in self.special and not t for s, i, t in zip(spoken, ids, taken)]

    def groups(self, example: Example) -> Places:
        """Return the tokens of each feature; none for a feature that the example does not have."""
        are_words = self.tokens(example)
        if self.words is None:
            return [[t] if is_word else [] for t, is_word in enumerate(are_words)]
        numbers = example[self.words][0].tolist()
        return [[t for t, number in enumerate(numbers) if number == w and are_words[t]] for w in range(self.count)]

    def present(self, example: Example) -> list[bool]:
        """A feature is there if a token of it is."""
        return [bool(group) for group in self.groups(example)]

    def places(self, example: Example) -> Places:
        """Return where each feature is read when nothing is hidden."""
        return [[self.offset + t for t in group] for group in self.groups(example)]

    def hide(self, example: Example, keep: Sequence[bool], baseline: str, donor: Example | None) -> tuple[dict, Places]:
        """Write the baseline in place of each hidden token, or take the tokens out and fill at the padded side."""
        groups = self.groups(example)
        hidden = [t for group, stays in zip(groups, keep) for t in group if not stays]
        if baseline == "delete":
            return self._without(example, hidden)
        changed = {key: value.clone() if isinstance(value, Tensor) else value for key, value in example.items()}
        if baseline == "data" and not any(k and g for k, g in zip(keep, groups)):
            return changed | {key: donor[key].clone() for key in self.travels}, self.places(example)
        lent = [] if donor is None else [t for t, is_word in enumerate(self.tokens(donor)) if is_word]
        mine = [t for t, is_word in enumerate(self.tokens(example)) if is_word]
        for t in hidden:
            if baseline == "data":
                source = lent[mine.index(t) % len(lent)]
                for key in (self.key, *self.along):
                    changed[key][0, t] = donor[key][0, source]
            else:
                changed[self.key][0, t] = MASK if baseline == "mask" else PAD
                if baseline == "pad" and self.attention is not None:
                    changed[self.attention][0, t] = 0
        return changed, self.places(example)

    def _without(self, example: Example, hidden: list[int]) -> tuple[dict, Places]:
        count = example[self.key].shape[1]
        padding = [t for t in range(count) if not self._is_token(example, t)]
        left = [t for t in range(count) if t not in hidden and t not in padding]
        first = count - len(left) if self.side == "left" else 0
        changed, moved = dict(example), {t: first + i for i, t in enumerate(left)}
        keys = [self.key, *self.along, *([self.attention] if self.attention else [])]
        for key in keys:
            row = torch.full_like(example[key], PAD)
            for t, place in moved.items():
                row[0, place] = example[key][0, t]
            changed[key] = row
        if self.side == "left":  # a place is counted from the beginning of the text, which has moved
            for key in self.stay:
                places = [max(0, t - len(hidden)) for t in range(count)]
                changed[key] = example[key][:, places]
        if self.lengths is not None:
            changed[self.lengths] = example[self.lengths] - len(hidden)
        return changed, [[self.offset + moved[t] for t in group if t in moved] for group in self.groups(example)]

    def _is_token(self, example: Example, t: int) -> bool:
        if self.attention is not None:
            return bool(example[self.attention][0, t])
        return int(example[self.key][0, t]) != PAD


class Sounds(Modality):
    """An adapter that a reader wrote: each feature is a vector, read as the reader says."""

    baselines = ("zero", "data")

    def __init__(self, name: str, key: str, layer: str | None):
        self.name, self.input, self.layer = name, key, layer or f"input:{key}"

    def features(self, inputs: Example) -> Tensor:
        """Return bool (N, F)."""
        return torch.ones(self.value(inputs).shape[:2], dtype=torch.bool)

    def replace(self, inputs: Example, keep: Tensor, baseline: str, donor: Example | None) -> dict[str, Tensor]:
        """Return the vectors with those outside ``keep`` replaced."""
        other = self.value(donor) if baseline == "data" else torch.zeros(())
        return {self.input: torch.where(keep[..., None], self.value(inputs), other.to(self.value(inputs).dtype))}

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the dimensions, (N, F)."""
        return values[:, :count].sum(dim=2)


@dataclass
class Row(Part):
    """A row of vectors, with or without a mask; ``by_reader`` has an adapter that a reader wrote."""

    mask: str | None = None
    by_reader: bool = False

    def modality(self) -> Modality:
        """Return the adapter of the package."""
        if self.by_reader:
            return Sounds(self.name, self.key, None if self.layer == f"input:{self.key}" else self.layer)
        layer = None if self.layer == f"input:{self.key}" else self.layer  # the default
        return Vectors(self.name, self.key, layer, **self.declared)

    def present(self, example: Example) -> list[bool]:
        """A vector is there where the mask is not 0."""
        count = example[self.key].shape[1]
        return [True] * count if self.mask is None else [bool(m) for m in example[self.mask][0].tolist()]

    def hide(self, example: Example, keep: Sequence[bool], baseline: str, donor: Example | None) -> tuple[dict, Places]:
        """Write zeros, or the donor's vector at that place."""
        rows = example[self.key].clone()
        for f, stays in enumerate(keep):
            if not stays and self.present(example)[f]:
                rows[:, f] = 0.0 if baseline == "zero" else donor[self.key][:, f]
        return {**example, self.key: rows}, self.places(example)


@dataclass
class Table(Part):
    """Columns of numbers; a feature is a column."""

    baselines: tuple[str, ...] = ("data", "mean", "zero")

    def know(self, inputs: Example) -> None:
        """Learn the mean of each column."""
        self.means = [column.mean() for column in inputs[self.key].T]

    def modality(self) -> Modality:
        """Return the adapter of the package."""
        from crossexplain.gradients.modalities import Columns

        return Columns(self.name, self.key, **self.declared)

    def present(self, example: Example) -> list[bool]:
        """Every example has every column."""
        return [True] * example[self.key].shape[1]

    def hide(self, example: Example, keep: Sequence[bool], baseline: str, donor: Example | None) -> tuple[dict, Places]:
        """Write zeros, the mean, or the donor's number."""
        table = example[self.key].clone()
        for f, stays in enumerate(keep):
            if not stays:
                stand_in = {"zero": 0.0, "mean": self.means[f], "data": None if donor is None else donor[self.key][:, f]}
                table[:, f] = stand_in[baseline]
        return {**example, self.key: table}, self.places(example)


@dataclass
class Film(Part):
    """A video (N, C, T, H, W), cut into cells of space and time, read at its pixels."""

    grid: tuple[int, int, int] = (1, 2, 2)
    baselines: tuple[str, ...] = ("zero", "mean", "data")

    def modality(self) -> Modality:
        """Return the adapter of the package."""
        from crossexplain.gradients.modalities import Video

        return Video(self.name, self.key, grid=self.grid, **self.declared)

    def present(self, example: Example) -> list[bool]:
        """Every video has every cell."""
        return [True] * (self.grid[0] * self.grid[1] * self.grid[2])

    def voxels(self, shape: Sequence[int]) -> list[list[tuple[int, int, int]]]:
        """Return the voxels of each cell, by time, row and column."""
        plane = cells_of(shape[1], shape[2], self.grid[1:])
        cells = [[] for _ in range(self.grid[0] * len(plane))]
        for t in range(shape[0]):
            for c, pixels in enumerate(plane):
                cells[t * self.grid[0] // shape[0] * len(plane) + c] += [(t, y, x) for y, x in pixels]
        return cells

    def hide(self, example: Example, keep: Sequence[bool], baseline: str, donor: Example | None) -> tuple[dict, Places]:
        """Write the baseline into each hidden cell, voxel by voxel."""
        film = example[self.key].clone()
        mean = film.mean(dim=(2, 3, 4))
        for stays, voxels in zip(keep, self.voxels(film.shape[2:])):
            for t, y, x in [] if stays else voxels:
                stand_in = {"zero": 0.0, "mean": mean, "data": None if donor is None else donor[self.key][:, :, t, y, x]}
                film[:, :, t, y, x] = stand_in[baseline]
        return {**example, self.key: film}, self.places(example)

    def fold(self, values: Tensor, places: Places) -> Tensor:
        """Sum over the voxels of each cell."""
        summed = values[0].sum(dim=0)
        return torch.stack([sum(summed[voxel] for voxel in voxels) for voxels in self.voxels(summed.shape)])
