"""Modalities: how a part of a model's input is cut into features, and what stands in for those that are hidden.

A modality adapter is the only thing that knows how a modality is fed to the model. Three adapters cover most models:
:class:`ImageCells` (pixels), :class:`Tokens` (word ids, with or without an attention mask) and :class:`Vectors` (a row of
vectors: embeddings, features of a tower, frames, patches). Write your own by subclassing :class:`Modality`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isqrt
from numbers import Integral

import torch
from torch import Tensor

from crossexplain.checks import InputError, require_batch, require_finite, require_images, require_one_of

# The most tokens that a vision transformer has before its patches (class token, registers): DINOv2 has 5, others fewer.
SPECIAL_TOKENS = 8
Inputs = Mapping[str, object]  # what the model takes by keyword; every tensor with axes has the batch first


class Modality:
    """What a modality adapter answers; subclass it for a modality of your own.

    Attributes
    ----------
    name : str
        Word used in views, records and messages.
    input : str
        Keyword under which the model takes the modality.
    layer : str
        Where its gradient is read: a layer name of the model or ``"input:<keyword>"``.
    baselines : tuple of str
        What can stand in for a hidden feature; the first is the neutral default. ``"data"`` is the feature of another
        example (a *donor*).
    unit : str
        What its features are called in messages.
    """

    name: str
    input: str
    layer: str
    baselines: tuple[str, ...] = ("data",)
    unit: str = "features"

    def features(self, inputs: Inputs) -> Tensor:
        """Return which features each example has, bool (N, F)."""
        raise NotImplementedError

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the inputs that change when the features outside ``keep`` (N, F) give way to a baseline."""
        raise NotImplementedError

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum values read at ``layer``, of the layer's shape, over each feature: (N, F)."""
        raise NotImplementedError

    def put_back(self, values: Tensor, features: Tensor, present: Tensor, baseline: str) -> Tensor:
        """Return values (..., F), read at the positions of a view, at the features that they belong to.

        ``features`` are those of the example, ``present`` those that the view leaves. Only a baseline that moves features
        to other positions needs this.
        """
        return values

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the inputs that change when present features are put in the order of ``keys`` (N, F)."""
        raise InputError(f"{self.name!r} has no order to change; use a mask or noise instead.")

    def value(self, inputs: Inputs) -> Tensor:
        """Return the modality's own tensor, or say which keywords there are."""
        values = inputs.get(self.input) if isinstance(inputs, Mapping) else None
        if not isinstance(values, Tensor):
            what = list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise InputError(f"modality {self.name!r} reads input {self.input!r}, the inputs are {what}; pass a dict of "
                             f"tensors with that keyword, or name the right one: {type(self).__name__}(input=...).")
        return values

    def require_baseline(self, baseline: str) -> str:
        """Return ``baseline`` if the modality has it, or raise :class:`InputError`."""
        return require_one_of(baseline, self.baselines, f"baseline of {self.name}")


class ImageCells(Modality):
    """Pixels, cut into a grid of cells (or patches: a grid as fine as the model's).

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str, optional
        Where the gradient is read: a convolutional layer (N, C, h, w), a transformer layer (N, 1 + F, D) whose last F
        positions are the cells (or finer patches, as many rows as columns), or by default the pixels themselves.
    grid : (int, int)
        Rows and columns of cells; features count row by row.

    Notes
    -----
    Baselines: ``"zero"`` (0 in the model's scale), ``"mean"`` (the image's own mean colour), ``"blur"`` (Gaussian, an
    eighth of the image wide: texture gone, colours kept) and ``"data"`` (the same cell of another image). The mean and
    the blur are made from what they hide and give some of it away: fit to hide a cell, not a whole image.
    """

    baselines = ("zero", "mean", "blur", "data")
    unit = "cells"

    def __init__(self, name: str = "image", input: str = "images", layer: str | None = None, grid=(2, 2)):
        sides = tuple(grid) if isinstance(grid, Iterable) else ()
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise InputError(f"got grid={grid!r}, expected rows and columns of cells, each 1 or more, as in grid=(2, 2).")
        self.name, self.input, self.layer, self.grid = name, input, layer or f"input:{input}", sides

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, rows * columns): every image has every cell."""
        images = require_images(self.value(inputs), smallest=max(*self.grid, 2))
        return torch.ones(len(images), self.grid[0] * self.grid[1], dtype=torch.bool, device=images.device)

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
        return gaussian_blur(gaussian_blur(images, [width, 1], sigma), [1, height], sigma)

    def pixels_of(self, cells: Tensor, height: int, width: int) -> Tensor:
        """Spread values of cells (N, F) over the pixels (N, 1, H, W)."""
        rows = torch.arange(height, device=cells.device) * self.grid[0] // height
        columns = torch.arange(width, device=cells.device) * self.grid[1] // width
        return cells[:, rows[:, None] * self.grid[1] + columns][:, None]

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the channels and places of each cell: (N, F)."""
        if values.ndim == 3 and 0 <= values.shape[1] - count <= SPECIAL_TOKENS:  # (N, special + F, D)
            return values[:, -count:].sum(dim=-1)
        if values.ndim == 3 and (side := isqrt(values.shape[1])) > max(self.grid):  # finer patches, a square of them
            values = values[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
        if values.ndim != 4 or min(values.shape[-2] / self.grid[0], values.shape[-1] / self.grid[1]) < 1:
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, which cannot be cut into {self.grid[0]} x "
                             f"{self.grid[1]} cells; read an earlier layer (N, C, h, w), or use a coarser grid.")
        places = values.sum(dim=1, keepdim=True)  # (N, 1, h, w)
        cells = torch.nn.functional.adaptive_avg_pool2d(places, self.grid).flatten(1)  # (N, F)
        return cells * (values.shape[-2] * values.shape[-1] / count)


class _InARow(Modality):
    """Features that follow each other: the gradient has one vector for each, and their order can be changed."""

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the dimensions of each feature: (N, F)."""
        if values.ndim != 3 or values.shape[1] < count:
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, expected one vector a feature of {self.name}, "
                             f"(N, {count}, D); read the embedding or another layer that keeps the positions.")
        return values[:, -count:].sum(dim=-1)

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the values of each example with its present features by ascending ``keys``; the others stay."""
        values, present = self.value(inputs), self.features(inputs)  # (N, F, ...)
        source = torch.argsort(keys.masked_fill(~present, torch.inf), dim=1)  # the present features first, in their new order
        slot = torch.argsort((~present).to(torch.int8), dim=1, stable=True)  # the positions that they fill, from the left
        order = torch.arange(present.shape[1], device=values.device).repeat(len(values), 1)
        order = order.scatter(1, slot, torch.where(present.gather(1, slot), source, slot))
        return {self.input: values.gather(1, order.reshape(order.shape + (1,) * (values.ndim - 2)).expand_as(values))}


class Tokens(_InARow):
    """Word ids, one feature a token; padding and special tokens are no features and are never hidden.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str
        Where the gradient is read: (N, T, D), by default the layer called ``embedding``.
    mask_id : int or None
        Id of the ``[MASK]`` token; None if the vocabulary has none.
    pad_id : int
        Id of the padding.
    special : sequence of int
        Ids that stay in every view ([CLS], [SEP]): hiding them asks another question than hiding words.
    attention : str or None
        Keyword of the attention mask (N, T), 1 for tokens that count, where the model takes one. The ``"pad"``
        baseline sets it to 0 where it hides: a ``[PAD]`` that is attended is not padding.

    Notes
    -----
    Baselines: ``"mask"`` ([MASK] in place of the word), ``"pad"`` ([PAD], not attended), ``"delete"`` (the words after it move
    up, and padding fills the end) and ``"data"`` (the word at that place of another sentence; where every word is hidden, the
    whole other sentence with its length). Where the padding is a special token too, as CLIP's is the end of the text, a
    word that gives way to ``"pad"`` stays where it is and is not attended: to read another end of the text would cut it.
    """

    unit = "tokens"

    def __init__(self, name: str = "text", input: str = "tokens", layer: str = "embedding", mask_id: int | None = 1,
                 pad_id: int = 0, special: Sequence[int] = (), attention: str | None = None):
        self.name, self.input, self.layer = name, input, layer
        self.mask_id, self.pad_id, self.special, self.attention = mask_id, pad_id, tuple(special), attention
        self.baselines = (("mask",) if mask_id is not None else ()) + ("pad", "delete", "data")

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, T): True where a word stands."""
        ids = self.value(inputs)
        if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"got {self.name} as {ids.dtype} {tuple(ids.shape)}, expected whole token ids (N, T); for "
                             "embeddings use Vectors instead of Tokens.")
        words = (ids != self.pad_id) if self.attention is None else self._attended(inputs)
        for token in self.special:
            words = words & (ids != token)
        if not words.any(dim=1).all():
            empty = int((~words.any(dim=1)).nonzero()[0])
            raise InputError(f"{self.name} of example {empty} has no word (only padding and special tokens); leave it out.")
        return words

    def _attended(self, inputs: Inputs) -> Tensor:
        mask = inputs.get(self.attention)
        if not isinstance(mask, Tensor) or mask.shape != self.value(inputs).shape:
            shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(f"attention mask {self.attention!r} is {shape}, expected the shape of the ids, "
                             f"{tuple(self.value(inputs).shape)}; pass the tokenizer's mask, 1 for tokens and 0 for "
                             "padding.")
        return mask != 0

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the ids, and the attention mask where there is one, with words outside ``keep`` replaced."""
        hide = self.features(inputs) & ~keep  # (N, T)
        ids, attended = self.value(inputs), None if self.attention is None else inputs[self.attention]
        if baseline == "data":
            return self._borrow(inputs, hide, donor)
        if baseline == "mask":
            return {self.input: ids.masked_fill(hide, self.mask_id)}
        filled = hide
        if baseline == "delete":  # the words after hidden ones move up, and padding fills the end
            order = torch.argsort(hide.to(torch.int8), dim=1, stable=True)  # what stays, in its order, then what goes
            filled = hide = torch.arange(hide.shape[1], device=hide.device) >= (~hide).sum(dim=1, keepdim=True)
            ids, attended = ids.gather(1, order), None if attended is None else attended.gather(1, order)
        elif self.pad_id in self.special:
            if attended is None:
                raise InputError(f"the padding of {self.name} ({self.pad_id}) is a special token too and would be read where "
                                 "it stands for a word; name the attention mask (attention=...), or use 'mask' or 'delete'.")
            filled = torch.zeros_like(hide)  # the words stay where they are and are not attended
        changed = {self.input: ids.masked_fill(filled, self.pad_id)}
        if attended is not None:
            changed[self.attention] = attended = attended.masked_fill(hide, 0)
            if not (attended != 0).any(dim=1).all():
                raise InputError(f"the view hides every token of {self.name} by {baseline!r} and no special token stays, so "
                                 "the model would attend to nothing (0/0); name the special ids (special=...) or use the "
                                 "baseline 'mask' or 'data'.")
        return changed

    def put_back(self, values: Tensor, features: Tensor, present: Tensor, baseline: str) -> Tensor:
        """Return values (..., T) of a view at the words that they belong to: words after deleted ones have moved up."""
        if baseline != "delete":
            return values
        place = ((~features | present).cumsum(dim=-1) - 1).clamp(min=0)
        return values.gather(-1, place.expand_as(values))

    def _borrow(self, inputs: Inputs, hide: Tensor, donor: Inputs) -> dict[str, Tensor]:
        """Take hidden words from the donor: at the same place, or the whole sentence where all are hidden."""
        ids, borrowed, words = self.value(inputs), self.value(donor), self.features(donor)
        length = words.sum(dim=1, keepdim=True)
        # The donor's words are repeated from the first, so that a longer sentence finds a word at every position.
        order = torch.argsort((~words).to(torch.int8), dim=1, stable=True)
        nth = (torch.cumsum(hide | self.features(inputs), dim=1) - 1).clamp(min=0) % length
        word = borrowed.gather(1, order.gather(1, nth))
        whole = (hide == self.features(inputs)).all(dim=1, keepdim=True)
        changed = {self.input: torch.where(whole, borrowed, torch.where(hide, word, ids))}
        if self.attention is not None:
            changed[self.attention] = torch.where(whole, donor[self.attention], inputs[self.attention])
        return changed


class Vectors(_InARow):
    """A row of vectors, (N, F, D): embeddings, features of a frozen tower, video frames, audio windows, graph nodes.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword (``"inputs_embeds"`` of a Hugging Face encoder).
    layer : str, optional
        Where the gradient is read, (N, F, D) or (N, special + F, D); by default the vectors themselves.
    attention : str or None
        Keyword of a mask (N, F), non-zero where a vector counts.

    Notes
    -----
    Baselines: ``"zero"`` and ``"data"`` (another example's vector at that place).
    """

    baselines = ("zero", "data")

    def __init__(self, name: str, input: str, layer: str | None = None, attention: str | None = None):
        self.name, self.input, self.layer, self.attention = name, input, layer or f"input:{input}", attention

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, F)."""
        rows = self.value(inputs)
        if rows.ndim != 3 or not rows.is_floating_point():
            raise InputError(f"got {self.name} as {rows.dtype} {tuple(rows.shape)}, expected floating vectors (N, F, D).")
        require_batch(len(rows))
        require_finite(rows, self.name)
        if self.attention is None:
            return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        return inputs[self.attention] != 0

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the vectors with those outside ``keep`` replaced."""
        rows = self.value(inputs)
        other = self.value(donor) if baseline == "data" else rows.new_zeros(())
        return {self.input: torch.where(keep[..., None], rows, other)}


def require_modalities(modalities: Sequence[Modality]) -> list[Modality]:
    """Return the modalities as a list.

    Raises
    ------
    InputError
        For a modality outside a list, an empty list, and entries that are no :class:`Modality`.
    """
    listed = list(modalities) if isinstance(modalities, Iterable) else []
    if listed and all(isinstance(modality, Modality) for modality in listed):
        return listed
    raise InputError(f"got modalities={modalities!r}, expected a list of modalities, as in [ImageCells(), Tokens()].")


def features_of(inputs: Inputs, modalities: Sequence[Modality]) -> dict[str, Tensor]:
    """Return which features each example has in each modality, bool (N, F).

    Raises
    ------
    InputError
        For modalities of one name or with different numbers of examples, and an empty batch.
    """
    features = {modality.name: modality.features(inputs) for modality in modalities}
    if len(features) < len(modalities):
        raise InputError(f"got modalities named {', '.join(repr(modality.name) for modality in modalities)}, expected "
                         "different names; pass name=...")
    first, *_ = features
    examples = require_batch(len(features[first]))
    for name, present in features.items():
        if len(present) != examples:
            raise InputError(f"{name} has {len(present)} examples, {first} has {examples}; pass the same examples, in the same "
                             "order, for every modality.")
    return features


def is_batched(value: object, examples: int) -> bool:
    """Return whether a value is a tensor with one row, or a list with one entry, for each of the examples."""
    return (isinstance(value, Tensor) and value.ndim > 0 or isinstance(value, list)) and len(value) == examples


def rows_of(inputs: Inputs, rows: Tensor, examples: int, common: Sequence[str] = ()) -> dict[str, object]:
    """Return the given rows of a batch.

    Every tensor with ``examples`` rows is indexed, and every list with as many entries; the rest is passed on, and so are the
    inputs named in ``common``, which belong to all examples.
    """
    return {key: _rows(value, rows) if key not in common and is_batched(value, examples) else value
            for key, value in inputs.items()}


def _rows(value: Tensor | list, rows: Tensor) -> Tensor | list:
    return value[rows.to(value.device)] if isinstance(value, Tensor) else [value[i] for i in rows.tolist()]


def in_parts(inputs: Inputs, size: int, examples: int, target: object = None) -> Iterator[tuple[dict[str, object], object]]:
    """Yield the inputs of at most ``size`` examples at a time, with their targets where each example has its own."""
    if size < 1:
        raise InputError(f"got batch_size = {size}, expected at least 1.")
    one_each = isinstance(target, Tensor) and target.numel() > 1
    if one_each and len(target) != examples:
        raise InputError(f"target has {len(target)} entries, the batch has {examples} examples; pass one each.")
    for rows in torch.arange(examples).split(size):
        yield rows_of(inputs, rows, examples), target[rows.to(target.device)] if one_each else target


def examples_in(inputs: Inputs) -> int:
    """Return the number of examples of inputs of which some, such as positions (T,) or (1, T), may belong to all of them."""
    return max((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim > 1), default=0)
