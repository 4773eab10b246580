"""Vectors in a row, and the columns of a table."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crossexplain.checks import InputError, as_tensor, require_batch, require_finite, require_names
from crossexplain.gradients.in_a_row import InARow, require_entry
from crossexplain.gradients.layouts import Place, at_inputs, at_positions, positions_of, require_rows, rows_first
from crossexplain.gradients.modality import Inputs, Modality, named


class Vectors(InARow):
    """A row of vectors, (N, F, D): embeddings, features of a frozen tower, video frames, audio windows, graph nodes.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword (``"inputs_embeds"`` of a Hugging Face encoder).
    layer : str, optional
        Where the gradient is read, (N, F, D); by default the vectors themselves.
    attention : str or None
        Keyword of a mask (N, F), non-zero where a vector counts.
    along : sequence of str
        Inputs (N, F, ...) that belong to the vectors and travel with them.
    positions : slice, range or sequence of int, optional
        Which positions of the layer are the vectors, where others stand in the same row.
    layout : {"NTD", "TND", "NDT"}, optional
        Which axis of the layer is which. Default: what its kind and the sizes say.

    Notes
    -----
    Baselines: ``"zero"`` and ``"data"`` (another example's vector at that place).
    """

    baselines = ("zero", "data")
    unit = "vectors"

    def __init__(self, name: str, input: str, layer: str | None = None, attention: str | None = None, *,
                 along: Sequence[str] = (), stay: Sequence[str] = (), positions: object = None, layout: str | None = None):
        self.name, self.input, self.layer = named(name, input, layer)
        require_names(attention=attention)
        self.attention = attention
        self._in_a_row(along, stay, positions, layout)

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, F)."""
        rows = self.value(inputs)
        if rows.ndim != 3 or not rows.is_floating_point():
            say = f"; of a row of numbers an example use Columns({self.name!r}, {self.input!r})" if rows.ndim == 2 else ""
            raise InputError(f"got {self.name} as {rows.dtype} {tuple(rows.shape)}, expected floating vectors (N, F, D){say}.")
        require_batch(len(rows))
        require_finite(rows, self.name)
        present = self.real(inputs)
        if not present.any(dim=1).all():
            empty = int((~present.any(dim=1)).nonzero()[0])
            raise InputError(f"{self.name} of example {empty} has no vector that counts in {self.attention!r}; leave it out.")
        return present

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the vectors, and what travels with them, with those outside ``keep`` replaced."""
        rows = self.value(inputs)
        if baseline != "data":
            return {self.input: torch.where(keep[..., None], rows, rows.new_zeros(()))}
        return self.borrow(inputs, self.features(inputs) & ~keep, donor)


class Columns(Modality):
    """A table with a row an example, (N, F): numbers or numbers of categories, each column a feature.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str, optional
        Where the gradient is read: by default the numbers themselves; for categories, whose numbers have no gradient, a layer
        with a vector for each column, (N, F, D).
    positions : slice, range or sequence of int, optional
        Which positions of that layer are the columns, where others stand in the same row.
    means : Tensor, shape (F,), optional
        What ``"mean"`` puts in the place of a number; default the means of the batch.

    Notes
    -----
    Baselines: ``"data"`` (another example's entry of that column); for numbers also ``"mean"`` and ``"zero"``.
    """

    baselines: tuple[str, ...] = ("data", "mean", "zero")
    unit = "columns"

    def __init__(self, name: str = "table", input: str = "table", layer: str | None = None, *,
                 positions: object = None, means: Tensor | None = None):
        self.name, self.input, self.layer = named(name, input, layer)
        self.positions = positions_of(positions, name)
        self._mean = self.means = None if means is None else as_tensor(means, "means")

    def settle(self, inputs: Inputs) -> None:
        """Keep the means of the whole batch."""
        table = self._table(inputs)
        if not table.is_floating_point():
            self.baselines = ("data",)
        self._mean = table.mean(dim=0) if self.means is None and table.is_floating_point() else self.means

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, F): every example has every column."""
        return torch.ones_like(self._table(inputs), dtype=torch.bool)

    def _table(self, inputs: Inputs) -> Tensor:
        table = self.value(inputs)
        if table.ndim != 2 or table.is_complex():
            raise InputError(f"got {self.name} as {table.dtype} {tuple(table.shape)}, expected numbers or categories (N, F), "
                             "one row an example.")
        require_batch(len(table))
        return require_finite(table, self.name) if table.is_floating_point() else table

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the table with the entries outside ``keep`` replaced."""
        table = self._table(inputs)
        if baseline == "data":
            other = require_entry(donor or {}, self.input, table)
        elif not table.is_floating_point():
            raise InputError(f"{self.name} holds {table.dtype}, numbers of categories, which have no {baseline}; use 'data'.")
        else:
            mean = table.mean(dim=0) if self._mean is None else self._mean.to(table)
            if mean.shape != table.shape[1:]:
                raise InputError(f"got means of shape {tuple(mean.shape)} for the {table.shape[1]} columns of {self.name}; "
                                 "pass one each.")
            other = mean if baseline == "mean" else table.new_zeros(())
        return {self.input: torch.where(keep, table, other)}

    def _laid_out(self, values: Tensor, inputs: Inputs, rows: int, place: Place) -> Tensor:
        """Return a vector for each column, (R, F, D)."""
        count = self.value(inputs).shape[1]
        if values.ndim == 2 and at_inputs(self.layer):
            return require_rows(values, rows, place)[..., None]
        if values.ndim == 3:
            values = rows_first(values, rows, place, None, count)
            values = values if self.positions is None else at_positions(values, self.positions, place, self.name)
            if values.shape[1] == count:
                return values
        raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)} for {rows} examples, expected a vector for "
                         f"each of the {count} columns of {self.name}, ({rows}, {count}, D); read the input, or the layer "
                         "that embeds each column (with positions=... of the columns, where others stand in the same row).")

    def _summed(self, values: Tensor, inputs: Inputs) -> Tensor:
        return values.sum(dim=-1)

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the dimensions of each column: (N, F)."""
        return self.laid_out(values, {self.input: values.new_zeros(len(values), count)}, len(values)).sum(dim=-1)
