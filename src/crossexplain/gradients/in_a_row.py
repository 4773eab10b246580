"""What words, vectors and other features that follow each other have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.gradients.layouts import Place, Positions, at_positions, positions_of, require_layout, rows_first
from crossexplain.gradients.modality import Inputs, Modality, listed

# Inputs that Hugging Face models and their like know under these names: of a word, and of a place in the row.
TRAVEL, STAY = ("token_type_ids", "bbox"), ("position_ids",)


class InARow(Modality):
    """Features that follow each other: the gradient has one vector for each, and their order can be changed."""

    along: tuple[str, ...] = ()
    stay: tuple[str, ...] = ()
    attention: str | None = None
    lengths: str | None = None
    positions: Positions | None = None
    layout: str | None = None

    def _in_a_row(self, along: Sequence[str], stay: Sequence[str], positions: object, layout: str | None) -> None:
        """Keep what all of them are told."""
        self.along, self.stay, self.layout = listed(along), listed(stay), require_layout(layout, ("NTD", "TND", "NDT"))
        self.positions = positions_of(positions, self.name)

    def keys(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the keys of all inputs that belong to the modality, its own among them."""
        named = [self.input, self.attention, self.lengths, *self.along, *self.stay, *self.own]
        known = [key for key in (*TRAVEL, *STAY) if key not in named and self.fits(inputs.get(key), inputs)]
        return tuple(dict.fromkeys(key for key in [*named, *known] if key is not None))

    def fits(self, value: object, inputs: Inputs) -> bool:
        """Return whether a value has an entry for every position of every example."""
        values = inputs.get(self.input)
        return isinstance(value, Tensor) and isinstance(values, Tensor) and value.ndim > 1 \
            and value.shape[:2] == values.shape[:2]

    def _on_last_axis(self, value: object, inputs: Inputs) -> bool:
        """Return whether a value may have an entry for every position, or every pair of them, on its last axis."""
        count, length = self.value(inputs).shape[:2]
        return isinstance(value, Tensor) and value is not inputs[self.input] and value.ndim > 2 and len(value) == count \
            and value.shape[-1] == length and value.shape[-2] in (1, length)

    def moving(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the keys of the inputs, besides the modality's own tensor, that travel with its features.

        Raises
        ------
        InputError
            For an input with an entry a position of which nobody said whether it belongs to the feature or to the place, or
            with one on another axis than the second, which does not move with the features.
        """
        known = self.keys(inputs)
        for key, value in inputs.items():
            if key not in TRAVEL and self._on_last_axis(value, inputs):
                raise InputError(f"input {key!r} {tuple(value.shape)} has as many entries on its last axis as {self.name} has "
                                 f"positions, as masks and pairs of positions have, which would not move with the {self.unit}; "
                                 "make it from the ids within Called(model, lambda model, inputs: model(...)), use another "
                                 "baseline, or pad to another length if these are no positions.")
            if key not in known and self.fits(value, inputs):
                raise InputError(f"input {key!r} {tuple(value.shape)} has an entry for each of the {value.shape[1]} "
                                 f"positions of {self.name}, and it is not known whether it moves with the {self.unit}; pass "
                                 f"along=({key!r},) if it belongs to them, stay=({key!r},) if it belongs to the place, "
                                 f"attention={key!r} if it masks padding, or use another baseline.")
        for key in self.along:
            if not self.fits(inputs.get(key), inputs):
                raise _no_entry(key, inputs, f"input {key!r} of {self.name}", tuple(self.value(inputs).shape[:2]))
        named = (*self.along, *(key for key in TRAVEL if key in known and key not in self.stay), *self.own)
        return tuple(dict.fromkeys(key for key in named if key in inputs))

    def staying(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the keys of the inputs with an entry a position that belongs to the place."""
        return tuple(key for key in dict.fromkeys((*self.stay, *STAY))
                     if key not in self.along and self.fits(inputs.get(key), inputs))

    def require_no_count(self, inputs: Inputs) -> None:
        """Raise for an input that counts the features of every example, where nobody said so."""

    def alike(self, inputs: Inputs, donor: Inputs) -> Inputs:
        """Return donors whose padding is where that of the examples is."""
        return donor

    def entry(self, inputs: Inputs, key: str) -> Tensor:
        """Return the tensor at a key."""
        entry: Tensor = inputs[key]
        return entry

    def borrow(self, inputs: Inputs, hide: Tensor, donor: Inputs | None) -> dict[str, Tensor]:
        """Take the hidden (N, T) from the donor: what is at the same place, or all where all are hidden."""
        self.require_no_count(inputs)
        donor, present = self.alike(inputs, donor or {}), self.is_word(inputs)
        words = self.is_word(donor)
        # The donor's words are repeated from the first, so that a longer sentence finds a word at every position.
        order = torch.argsort((~words).to(torch.int8), dim=1, stable=True)
        rank = (torch.cumsum(hide | present, dim=1) - 1).clamp(min=0) % words.sum(dim=1, keepdim=True)
        source, whole = order.gather(1, rank), (hide == present).all(dim=1)
        changed = {}
        for key in (self.input, *self.moving(inputs)):
            value = self.entry(inputs, key)
            other = self.entry(donor, key) if key in self.own else require_entry(donor, key, value)
            # A borrowed piece stands for the word that is hidden, and keeps its number.
            partly = value if key in self.own else select(hide, value, moved(other, source))
            changed[key] = select(whole, partly, other)
        for name in (self.attention, self.lengths, *self.staying(inputs)):  # those of the other sentence as a whole
            if name is not None:
                changed[name] = select(whole, inputs[name], require_entry(donor, name, inputs[name]))
        return changed

    def real(self, inputs: Inputs) -> Tensor:
        """Return which positions are no padding, bool (N, T)."""
        return self._attended(inputs, self.attention) if self.attention is not None else torch.ones(
            self.value(inputs).shape[:2], dtype=torch.bool, device=self.value(inputs).device)

    def settle(self, inputs: Inputs) -> None:
        """Refuse an attention mask that marks padding, or that is added to scores."""
        if self.attention is None:
            return
        key, counts, rows = self.attention, self._attended(inputs, self.attention), self.value(inputs)
        added = inputs[key].is_floating_point() and bool((inputs[key] < 0).any())
        if added or _marks_padding(rows, counts):
            what = "has values below 0, as one that is added to scores" if added else \
                "leaves out positions that differ and counts those that are all the same, as PyTorch's key_padding_mask does"
            call = f"model(**{{**given, {key!r}: (given[{key!r}] == 0){' * -1e9' * added}}})"
            raise InputError(f"attention mask {key!r} {what}, expected 1 for {self.unit} and 0 for padding. Pass it so, and "
                             f"turn it in the call: Called(model, lambda model, given: {call}).")

    def _attended(self, inputs: Inputs, attention: str) -> Tensor:
        mask = inputs.get(attention)
        if not isinstance(mask, Tensor) or mask.shape != self.value(inputs).shape[:2]:
            shape = tuple(mask.shape) if isinstance(mask, Tensor) else f"missing (the inputs are {list(inputs)})" \
                if attention not in inputs else type(mask).__name__
            of = "ids" if self.unit == "tokens" else "vectors"
            raise InputError(f"attention mask {attention!r} is {shape}, expected the shape of the {of}, "
                             f"{tuple(self.value(inputs).shape[:2])}; pass the mask, 1 for {self.unit} and 0 for padding.")
        return mask != 0

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the values of each example with its present features by ascending ``keys``; the others stay."""
        values, present = self.value(inputs), self.is_word(inputs)  # (N, T, ...)
        keys = self.to_positions(keys, inputs).masked_fill(~present, torch.inf)
        source = torch.argsort(keys, dim=1, stable=True)  # the present features first, in their new order
        slot = torch.argsort((~present).to(torch.int8), dim=1, stable=True)  # the positions that they fill, from the left
        order = torch.arange(present.shape[1], device=values.device).repeat(len(values), 1)
        order = order.scatter(1, slot, torch.where(present.gather(1, slot), source, slot))
        return {key: moved(self.entry(inputs, key), order) for key in (self.input, *self.moving(inputs))}

    def is_word(self, inputs: Inputs) -> Tensor:
        """Return which positions can be hidden, bool (N, T)."""
        return self.features(inputs)

    def to_positions(self, values: Tensor, inputs: Inputs) -> Tensor:
        """Return values (N, F) of features at their positions (N, T)."""
        return values

    def _laid_out(self, values: Tensor, inputs: Inputs, rows: int, place: Place) -> Tensor:
        """Return a vector for each position of the input, (R, T, D)."""
        return self._vectors(values, rows, self.value(inputs).shape[1], place)

    def _summed(self, values: Tensor, inputs: Inputs) -> Tensor:
        return self.to_features(values.sum(dim=-1), inputs)

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the dimensions of each feature: (N, F)."""
        rows = values.shape[1] if self.layout == "TND" and values.ndim == 3 else len(values)
        return self._vectors(values, rows, count, self.read_from()).sum(dim=-1)

    def _vectors(self, values: Tensor, rows: int, count: int, place: Place) -> Tensor:
        if values.ndim == 3:
            values = rows_first(values, rows, place, self.layout, count)
            if self.positions is not None:
                values = at_positions(values, self.positions, place, self.name)
            if values.shape[1] == count:
                return values
        advice = "read the embedding or another layer that keeps the positions"
        if values.ndim == 3 and values.shape[1] > count:
            advice = f"where others stand in the same row pass positions=slice(first, last + 1), those of {self.name}"
        raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)} for {rows} examples, expected one vector a "
                         f"feature of {self.name}, ({rows}, {count}, D); {advice}.")


def moved(values: Tensor, order: Tensor) -> Tensor:
    """Return values (N, T, ...) with the positions of each row in another order (N, T)."""
    return values.gather(1, order.reshape(order.shape + (1,) * (values.ndim - 2)).expand_as(values))


def select(mask: Tensor, values: Tensor, instead: Tensor) -> Tensor:
    """Return values (N, T, ...), and others instead where a mask, (N, T) or (N,), is True."""
    mask = mask.to(values.device)
    return torch.where(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), instead, values)


def require_entry(donor: Inputs, key: str, like: Tensor) -> Tensor:
    """Return an input of the donors of the shape of the examples', or raise :class:`InputError`."""
    value = donor.get(key)
    if isinstance(value, Tensor) and value.shape == like.shape:
        return value
    raise _no_entry(key, donor, f"input {key!r} of the donors", tuple(like.shape))


def _no_entry(key: str, inputs: Inputs, what: str, shape: tuple[int, ...]) -> InputError:
    value = inputs.get(key)
    description = tuple(value.shape) if isinstance(value, Tensor) else "missing" if key not in inputs else type(value).__name__
    return InputError(f"{what} is {description}, expected {shape}; pass it with the other inputs, padded alike.")


def _marks_padding(rows: Tensor, counts: Tensor) -> bool:
    """Return whether what a mask counts is the same everywhere, as padding is, and what it leaves out is not.

    One and the same word in every text may be all that somebody wants to be read, unless it is 0.
    """
    inside, outside = rows[counts], rows[~counts]
    if not len(inside) or not len(outside) or (inside != inside[0]).any() or (outside == outside[0]).all():
        return False
    lengths = counts.sum(dim=1)
    several = len(rows) > 1 and rows.ndim == 2 and (int(lengths.max()) > 1 or len(lengths.unique()) > 1)
    return several or not inside.any()
