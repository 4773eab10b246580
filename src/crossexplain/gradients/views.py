"""Views: the same examples with some features of some modalities hidden or perturbed, all in one batch.

A *modality adapter* is the only thing here that knows how a modality is fed to the model, cut into features and hidden.
Three cover most models: :class:`ImageCells` (pixels), :class:`Tokens` (word ids, with or without an attention mask) and
:class:`Vectors` (anything that comes as a row of vectors: embeddings, tower features, frames, patches). Write your own
by subclassing :class:`Modality`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isqrt
from numbers import Integral

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as pixels

from crossexplain.checks import InputError, require_batch, require_finite, require_images

SPECIAL_TOKENS = 8  # a vision transformer has at most so many before its patches: the class token, registers
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
    """

    name: str
    input: str
    layer: str
    baselines: tuple[str, ...] = ("data",)

    def features(self, inputs: Inputs) -> Tensor:
        """Return which features each example has, bool (N, F)."""
        raise NotImplementedError

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the inputs that change when the features outside ``keep`` (N, F) give way to a baseline."""
        raise NotImplementedError

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum values read at ``layer``, of the layer's shape, over each feature: (N, F)."""
        raise NotImplementedError

    def put_back(self, values: Tensor, there: Tensor, present: Tensor, baseline: str) -> Tensor:
        """Return values (..., F) read at the places of a view at the features that stand there; most hide without moving."""
        return values

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the inputs that change when present features are put in the order of ``keys`` (N, F)."""
        raise InputError(f"{self.name!r} has no order to change; use a mask or noise instead.")

    def value(self, inputs: Inputs) -> Tensor:
        """Return the modality's own tensor, or say which keywords there are."""
        found = inputs.get(self.input) if isinstance(inputs, Mapping) else None
        if not isinstance(found, Tensor):
            what = list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise InputError(
                f"modality {self.name!r} reads input {self.input!r}, the inputs are {what}; pass a dict of tensors "
                f"with that keyword, or name the right one: {type(self).__name__}(input=...)."
            )
        return found

    def require_baseline(self, baseline: str) -> str:
        """Return ``baseline`` if the modality has it."""
        if baseline in self.baselines:
            return baseline
        near = get_close_matches(str(baseline), self.baselines, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "pick one of them."
        raise InputError(f"{self.name} has no baseline {baseline!r}, it has {', '.join(map(repr, self.baselines))}; {hint}")


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

    def __init__(self, name: str = "image", input: str = "images", layer: str | None = None, grid=(2, 2)):
        sides = tuple(grid) if isinstance(grid, Iterable) else ()
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise InputError(f"grid={grid!r} came, expected rows and columns of cells, each 1 or more, as in grid=(2, 2).")
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
        # Rows, then columns: the same weights at once, two sigma a side, are hundreds of times as many.
        width, height = (2 * max(1, round(side * 0.25)) + 1 for side in images.shape[:-3:-1])
        sigma = [side / 8 for side in images.shape[:-3:-1]]
        return pixels.gaussian_blur(pixels.gaussian_blur(images, [width, 1], sigma), [1, height], sigma)

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
            raise InputError(
                f"layer {self.layer!r} gives {tuple(values.shape)}, which cannot be cut into {self.grid[0]} x "
                f"{self.grid[1]} cells; read an earlier layer (N, C, h, w), or use a coarser grid."
            )
        places = values.sum(dim=1, keepdim=True)  # (N, 1, h, w)
        cells = torch.nn.functional.adaptive_avg_pool2d(places, self.grid).flatten(1)  # (N, F)
        return cells * (values.shape[-2] * values.shape[-1] / count)


class Tokens(Modality):
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
    Baselines: ``"mask"`` ([MASK] in place of the word), ``"pad"`` ([PAD], not attended), ``"delete"`` (the words behind move
    up, and padding fills the end) and ``"data"`` (the word at that place of another sentence; where every word is hidden, the
    whole other sentence with its length). Where the padding is a special token too, as CLIP's is the end of the text, a
    word that gives way to ``"pad"`` stays where it is and is not attended: to read another end of the text would cut it.
    """

    def __init__(self, name: str = "text", input: str = "tokens", layer: str = "embedding", mask_id: int | None = 1,
                 pad_id: int = 0, special: Sequence[int] = (), attention: str | None = None):
        self.name, self.input, self.layer = name, input, layer
        self.mask_id, self.pad_id, self.special, self.attention = mask_id, pad_id, tuple(special), attention
        self.baselines = (("mask",) if mask_id is not None else ()) + ("pad", "delete", "data")

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, T): True where a word stands."""
        ids = self.value(inputs)
        if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(
                f"{self.name} came as {ids.dtype} {tuple(ids.shape)}, expected whole token ids (N, T); "
                "for embeddings use Vectors instead of Tokens."
            )
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
            raise InputError(
                f"attention mask {self.attention!r} is {shape}, expected the shape of the ids, "
                f"{tuple(self.value(inputs).shape)}; pass the tokenizer's mask, 1 for tokens and 0 for padding."
            )
        return mask != 0

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the ids, and the attention mask where there is one, with words outside ``keep`` replaced."""
        ids, hide = self.value(inputs), self.features(inputs) & ~keep  # (N, T)
        if baseline == "data":
            return self._borrow(inputs, hide, donor)
        if baseline == "delete":
            return self._delete(inputs, hide)
        if baseline == "pad" and self.pad_id in self.special:
            if self.attention is None:
                raise InputError(f"the padding of {self.name} ({self.pad_id}) is a special token too and would be read where "
                                 "it stands for a word; name the attention mask (attention=...), or use 'mask' or 'delete'.")
            hidden_by = ids
        else:
            hidden_by = ids.masked_fill(hide, self.mask_id if baseline == "mask" else self.pad_id)
        changed = {self.input: hidden_by}
        if baseline == "pad" and self.attention is not None:
            changed[self.attention] = self._something(inputs[self.attention].masked_fill(hide, 0), baseline)
        return changed

    def _delete(self, inputs: Inputs, hide: Tensor) -> dict[str, Tensor]:
        """Take hidden words out: what stands behind them moves up, and padding, which is not attended, fills the end."""
        order = torch.argsort(hide.to(torch.int8), dim=1, stable=True)  # what stays, in its order, then what goes
        behind = torch.arange(hide.shape[1], device=hide.device) >= (~hide).sum(dim=1, keepdim=True)
        changed = {self.input: self.value(inputs).gather(1, order).masked_fill(behind, self.pad_id)}
        if self.attention is not None:
            changed[self.attention] = self._something(inputs[self.attention].gather(1, order).masked_fill(behind, 0), "delete")
        return changed

    def _something(self, attended: Tensor, baseline: str) -> Tensor:
        """Return an attention mask that attends to something in every row."""
        if (attended != 0).any(dim=1).all():
            return attended
        raise InputError(
            f"the view hides every token of {self.name} by {baseline!r} and no special token stays, so the model would "
            "attend to nothing (0/0); name the special ids (special=...) or use the baseline 'mask' or 'data'."
        )

    def put_back(self, values: Tensor, there: Tensor, present: Tensor, baseline: str) -> Tensor:
        """Return values (..., T) of a view at the words that stand there: those behind deleted words have moved up."""
        if baseline != "delete":
            return values
        place = ((~there | present).cumsum(dim=-1) - 1).clamp(min=0)
        return values.gather(-1, place.expand_as(values))

    def _borrow(self, inputs: Inputs, hide: Tensor, donor: Inputs) -> dict[str, Tensor]:
        """Take hidden words from the donor: at the same place, or the whole sentence where all are hidden."""
        ids, theirs, words = self.value(inputs), self.value(donor), self.features(donor)
        length = words.sum(dim=1, keepdim=True)
        # A donor's words, counted round and round, so that a longer sentence finds one at every place.
        order = torch.argsort((~words).to(torch.int8), dim=1, stable=True)
        nth = (torch.cumsum(hide | self.features(inputs), dim=1) - 1).clamp(min=0) % length
        word = theirs.gather(1, order.gather(1, nth))
        whole = (hide == self.features(inputs)).all(dim=1, keepdim=True)
        changed = {self.input: torch.where(whole, theirs, torch.where(hide, word, ids))}
        if self.attention is not None:
            changed[self.attention] = torch.where(whole, donor[self.attention], inputs[self.attention])
        return changed

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the dimensions of each token: (N, T)."""
        return _positions(self, values, count)

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the ids with the words of each sentence in the order of ``keys``; nothing else moves."""
        return {self.input: _reordered(self.value(inputs), self.features(inputs), keys)}


class Vectors(Modality):
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
            raise InputError(f"{self.name} came as {rows.dtype} {tuple(rows.shape)}, expected floating vectors (N, F, D).")
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

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the dimensions of each vector: (N, F)."""
        return _positions(self, values, count)

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the vectors of each example in the order of ``keys``."""
        return {self.input: _reordered(self.value(inputs), self.features(inputs), keys)}


def require_modalities(modalities: Sequence[Modality]) -> list[Modality]:
    """Return the modalities as a list if they are some.

    Raises
    ------
    InputError
        For a single one outside a list, an empty list, and entries that are no :class:`Modality`.
    """
    found = list(modalities) if isinstance(modalities, Iterable) else []
    if found and all(isinstance(modality, Modality) for modality in found):
        return found
    raise InputError(f"modalities came as {modalities!r}, expected a list of modalities, as in [ImageCells(), Tokens()].")


def _positions(modality: Modality, values: Tensor, count: int) -> Tensor:
    if values.ndim != 3 or values.shape[1] < count:
        raise InputError(
            f"layer {modality.layer!r} gives {tuple(values.shape)}, expected one vector a feature of {modality.name}, "
            f"(N, {count}, D); read the embedding or another layer that keeps the positions."
        )
    return values[:, -count:].sum(dim=-1)


def _reordered(values: Tensor, there: Tensor, keys: Tensor) -> Tensor:
    """Permute the present positions of ``values`` (N, F, ...) by ascending ``keys``; the others stay."""
    keys = keys.masked_fill(~there, torch.inf)
    source = torch.argsort(keys, dim=1)  # the present ones first, in their new order
    slot = torch.argsort((~there).to(torch.int8), dim=1, stable=True)  # where they go, first come first served
    order = torch.arange(there.shape[1], device=values.device).repeat(len(values), 1)
    order = order.scatter(1, slot, torch.where(there.gather(1, slot), source, slot))
    index = order.reshape(order.shape + (1,) * (values.ndim - 2)).expand_as(values)
    return values.gather(1, index)


@dataclass(frozen=True)
class Mask:
    """Hide features of one modality.

    Attributes
    ----------
    keep : Tensor of bool, shape (N, F) or (F,)
        True where a feature stays. None hides them all.
    baseline : str
        What stands in for the hidden ones, one of the modality's ``baselines``.
    donors : Tensor of int64, shape (N,), optional
        For ``"data"``: the row of the donor inputs that each example borrows from.
    """

    keep: Tensor | None = None
    baseline: str = "data"
    donors: Tensor | None = None


@dataclass(frozen=True)
class Reorder:
    """Put the present features of one modality in another order (the paper's "re-ordering the tokens").

    Attributes
    ----------
    seed : int
        Example ``i`` gets the order drawn from ``(seed, i)``, whatever batch it is in.
    """

    seed: int = 0


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise to a floating input (the paper's "Gaussian noise to the image pixels").

    Attributes
    ----------
    sigma : float
        Standard deviation, in the unit of the input.
    seed : int
        Example ``i`` gets the noise drawn from ``(seed, i)``.
    """

    sigma: float
    seed: int = 0


Change = Mask | Reorder | Noise


class Views:
    """All views of all examples, built when asked for.

    Attributes
    ----------
    names : list of str
        One a view, V in all.
    present : dict of str to Tensor, bool (V, N, F)
        For each modality, which features stand unhidden in each view. A re-ordered or noisy feature is present.
    examples : int
        N.
    """

    def __init__(self, inputs: Inputs, modalities: Sequence[Modality], plan: Mapping[str, Mapping[str, Change]],
                 donors: Inputs | None = None, allow_empty: bool = False):
        modalities = require_modalities(modalities)
        self.inputs_, self.modalities = inputs, {m.name: m for m in modalities}
        self.donors_ = inputs if donors is None else donors
        self.names = list(plan)
        if not self.names:
            raise InputError("the plan has no view; pass for example {'full': {}}.")
        self._there = {m.name: m.features(inputs) for m in modalities}
        self.examples = require_batch(len(next(iter(self._there.values()))))
        for name, there in self._there.items():
            if len(there) != self.examples:
                raise InputError(f"{name} has {len(there)} examples, {next(iter(self._there))} has {self.examples}; "
                                 "pass the same examples, in the same order, for every modality.")
        for view, changes in plan.items():
            if not isinstance(changes, Mapping):
                raise InputError(f"view {view!r} is {type(changes).__name__}, expected a mapping from modality to change, as "
                                 "in {'image': Mask(None, 'zero')}; {} changes nothing.")
        self.plan = {view: {name: self._checked(view, name, change) for name, change in changes.items()}
                     for view, changes in plan.items()}
        self.present = {
            name: torch.stack([
                there & change.keep if isinstance(change := self.plan[view].get(name), Mask) else there
                for view in self.names
            ])
            for name, there in self._there.items()
        }
        if not allow_empty:
            self._require_something()

    def put_back(self, name: str, values: Tensor, rows: Tensor) -> Tensor:
        """Return values (V, n, F), read at the places of a modality in each view of some examples, at its features."""
        modality, there, found = self.modalities[name], self._there[name][rows], []
        for v, view in enumerate(self.names):
            change = self.plan[view].get(name)
            baseline = change.baseline if isinstance(change, Mask) else ""
            found.append(modality.put_back(values[v], there, self.present[name][v, rows], baseline))
        return torch.stack(found)

    def _checked(self, view: str, name: str, change: Change) -> Change:
        """Return the change with its mask written out, (N, F), or say what is wrong with it."""
        if name not in self.modalities:
            raise InputError(f"view {view!r} changes {name!r}; the modalities are {', '.join(map(repr, self.modalities))}.")
        if not isinstance(change, Change):
            raise InputError(f"view {view!r} changes {name} by {change!r}, expected a Mask, Reorder or Noise, as in "
                             "Mask(None, 'zero').")
        if isinstance(change, Noise) and not self.modalities[name].value(self.inputs_).is_floating_point():
            raise InputError(f"view {view!r} adds noise to {name}, which holds whole numbers; re-order or mask it instead.")
        if not isinstance(change, Mask):
            return change
        modality, there = self.modalities[name], self._there[name]
        modality.require_baseline(change.baseline)
        keep = self._written_out(view, modality, there, change.keep)
        if change.baseline != "data":
            return Mask(keep, change.baseline)
        return Mask(keep, "data", self._donors_of(view, modality, change.donors))

    def _written_out(self, view: str, modality: Modality, there: Tensor, keep: Tensor | None) -> Tensor:
        if keep is None:
            return torch.zeros_like(there)
        keep = torch.as_tensor(keep, device=there.device)
        if keep.dtype != torch.bool:
            raise InputError(f"view {view!r}: the {modality.name} mask has dtype {keep.dtype}, expected bool, True for "
                             "features that stay; compare first, for example keep = scores < limit.")
        if keep.ndim == 0 or keep.shape[-1] != there.shape[1] or (keep.ndim == 2 and len(keep) not in (1, len(there))) \
                or keep.ndim > 2:
            what = {Tokens: "sentence has {} tokens", ImageCells: "image has {} cells"}.get(
                type(modality), modality.name + " has {} features").format(there.shape[1])
            raise InputError(
                f"view {view!r}: the {modality.name} mask has {keep.shape[-1] if keep.ndim else 1} entries "
                f"(shape {tuple(keep.shape)}), the {what} and the batch {len(there)} examples; pass one entry a feature, "
                "True for those that stay, the same for all examples (F,) or one row each (N, F)."
            )
        return keep.expand_as(there)

    def _donors_of(self, view: str, modality: Modality, donors: Tensor | None) -> Tensor:
        theirs, ours = modality.value(self.donors_), modality.value(self.inputs_)
        if donors is None:
            raise InputError(f"view {view!r}: the baseline 'data' of {modality.name} needs donors, one row number an "
                             "example; pass Mask(keep, 'data', donors=torch.randint(...)).")
        donors = torch.as_tensor(donors, device=ours.device).expand(self.examples)
        if donors.is_floating_point() or int(donors.min()) < 0 or int(donors.max()) >= len(theirs):
            raise InputError(f"view {view!r}: donors of {modality.name} lie between {donors.min()} and {donors.max()}, "
                             f"expected whole row numbers from 0 to {len(theirs) - 1}.")
        if theirs.shape[1:] != ours.shape[1:]:
            raise InputError(f"donors of {modality.name} have shape {tuple(theirs.shape[1:])} an example, the inputs "
                             f"{tuple(ours.shape[1:])}; pad or resize them alike.")
        return donors

    def _require_something(self) -> None:
        left = torch.stack([present.any(dim=-1) for present in self.present.values()]).any(dim=0)  # (V, N)
        if not left.all():
            view, example = (int(i) for i in (~left).nonzero()[0])
            raise InputError(
                f"view {self.names[view]!r} hides every feature of every modality (first in example {example}): nothing "
                "of the example is left to explain; keep at least one feature, or pass allow_empty=True where the value "
                "of the bare baseline is what you want."
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def inputs(self) -> dict[str, object]:
        """All views of all examples, view-major: row ``v * N + i`` is view ``v`` of example ``i``."""
        return self.batch(torch.arange(self.examples))

    def batch(self, examples: Tensor) -> dict[str, object]:
        """Return all views of some examples as one batch, view-major.

        Parameters
        ----------
        examples : Tensor of int64, shape (n,)
            Which examples.

        Returns
        -------
        dict
            The model's inputs, V * n rows.
        """
        base = rows_of(self.inputs_, examples, self.examples)
        built = [{**base, **self._changed(base, self.plan[view], examples)} for view in self.names]
        return {key: torch.cat([view[key] for view in built]) if _is_batched(value, self.examples) else value
                for key, value in self.inputs_.items()}

    def _changed(self, base: Inputs, changes: Mapping[str, Change], examples: Tensor) -> dict[str, Tensor]:
        changed = {}
        for name, change in changes.items():
            modality = self.modalities[name]
            if isinstance(change, Mask):
                donor = None
                if change.baseline == "data":
                    donor = rows_of(self.donors_, change.donors[examples], len(modality.value(self.donors_)))
                changed |= modality.replace(base, change.keep[examples], change.baseline, donor)
            elif isinstance(change, Reorder):
                keys = _drawn(change.seed, examples, self._there[name].shape[1:], torch.rand)
                changed |= modality.shuffle(base, keys.to(modality.value(base).device))
            else:
                values = modality.value(base)
                noise = _drawn(change.seed, examples, values.shape[1:], torch.randn)
                changed[modality.input] = values + change.sigma * noise.to(values)
        return changed


def views(inputs: Inputs, modalities: Sequence[Modality], plan: Mapping[str, Mapping[str, Change]],
          donors: Inputs | None = None, allow_empty: bool = False) -> Views:
    """Lay out views of a batch.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        The model's inputs by keyword; the first axis is the batch.
    modalities : sequence of Modality
        How each is fed, cut into features and hidden.
    plan : mapping from view name to mapping from modality name to change
        ``{"full": {}, "image masked": {"image": Mask(baseline="mean")}}``; a modality that is not named stays as it is.
    donors : mapping of str to Tensor, optional
        Examples to borrow from for the baseline ``"data"``; by default the batch itself.
    allow_empty : bool
        Allow views in which nothing of an example is left.

    Returns
    -------
    Views

    Raises
    ------
    InputError
        For an unknown modality or baseline, a mask of the wrong length or dtype, modalities of different batch sizes,
        donors out of range, and a view that hides everything.

    Examples
    --------
    >>> words = {"tokens": torch.tensor([[5, 6, 7, 0]])}
    >>> both = views(words, [Tokens()], {"full": {}, "first hidden": {"text": Mask(torch.tensor([False, True, True, True]),
    ...                                                                          "mask")}})
    >>> both.inputs["tokens"].tolist(), both.present["text"].tolist()[1]
    ([[5, 6, 7, 0], [1, 6, 7, 0]], [[False, True, True, False]])
    """
    return Views(inputs, modalities, plan, donors, allow_empty)


def _is_batched(value: object, examples: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == examples


def rows_of(inputs: Inputs, rows: Tensor, examples: int) -> dict[str, object]:
    """Return some examples of a batch: every tensor with ``examples`` rows is indexed, the rest handed on."""
    return {key: value[rows.to(value.device)] if _is_batched(value, examples) else value
            for key, value in inputs.items()}


def _drawn(seed: int, examples: Tensor, shape: Sequence[int], draw) -> Tensor:
    """Draw one array an example that depends on the seed and the example alone: (n, *shape)."""
    return torch.stack([draw(*shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + i))
                        for i in examples.tolist()])
