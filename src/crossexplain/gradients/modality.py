"""What a modality adapter answers, and the rows of a batch of inputs."""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, entries_of, require_one_of
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.layouts import Place, module_at

BUILT_IN = tuple(f"crossexplain.gradients.{name}" for name in ("cells", "in_a_row", "vectors", "words"))  # of modalities
Inputs = Mapping[str, Any]  # what the model takes by keyword; every tensor with axes has the batch first


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
    own : tuple of str
        Keys of the inputs that the modality alone reads, and that the model does not take.
    """

    name: str
    input: str
    layer: str
    baselines: tuple[str, ...] = ("data",)
    unit: str = "features"
    own: tuple[str, ...] = ()
    place: Place | None = None  # where it is read, once that is settled

    def features(self, inputs: Inputs) -> Tensor:
        """Return which features each example has, bool (N, F)."""
        raise NotImplementedError

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the inputs that change when the features outside ``keep`` (N, F) give way to a baseline."""
        raise NotImplementedError

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum values read at ``layer``, of the layer's shape, over each feature: (N, F)."""
        raise NotImplementedError

    def read_at(self, values: Tensor, inputs: Inputs, rows: int, module: nn.Module | None = None) -> Tensor:
        """Sum values read at ``layer`` over each feature: (R, F).

        Parameters
        ----------
        values : Tensor
            Of the layer's shape.
        inputs : mapping of str to Tensor
            Inputs of these rows; where only shapes count, those of the batch that they are part of will do.
        rows : int
            Number of examples that the values belong to, R.
        module : torch.nn.Module, optional
            The layer, whose kind says where its channels are; a settled modality knows it.

        Raises
        ------
        InputError
            Where the values have not one row an example, and where the sizes leave two readings of the layer or none.
        """
        summed = self.summed(self.laid_out(values, inputs, rows, module), inputs)
        if summed.ndim != 2 or len(summed) != rows:
            raise InputError(f"{type(self).__name__}.per_feature gives {tuple(summed.shape)} for {rows} examples, "
                             "expected one row an example and one column a feature.")
        return summed

    def laid_out(self, values: Tensor, inputs: Inputs, rows: int, module: nn.Module | None = None) -> Tensor:
        """Return values read at ``layer`` with the examples first and nothing but what the features are made of.

        Pictures have (R, C, h, w), what comes in a row (R, T, D); a modality of your own gets them as they are. The
        arguments are those of :meth:`read_at`.
        """
        return values if self.reads_itself else self._laid_out(values, inputs, rows, self.read_from(module))

    def summed(self, values: Tensor, inputs: Inputs) -> Tensor:
        """Sum what :meth:`laid_out` returns over each feature: (R, F)."""
        return self.per_feature(values, self.features(inputs).shape[1]) if self.reads_itself else self._summed(values, inputs)

    @property
    def reads_itself(self) -> bool:
        """Whether the modality has a way of its own to read a layer: ``per_feature`` of somebody else."""
        return type(self).per_feature.__module__ not in BUILT_IN

    def _laid_out(self, values: Tensor, inputs: Inputs, rows: int, place: Place) -> Tensor:
        raise NotImplementedError

    def _summed(self, values: Tensor, inputs: Inputs) -> Tensor:
        raise NotImplementedError

    def to_features(self, values: Tensor, inputs: Inputs) -> Tensor:
        """Return values (R, T), one a position, at the features (R, F) that the positions are part of."""
        return values

    def put_back(self, values: Tensor, features: Tensor, present: Tensor, baseline: str) -> Tensor:
        """Return values (..., F), read at the positions of a view, at the features that they belong to.

        ``features`` are those of the example, ``present`` those that the view leaves. Only a baseline that moves features
        to other positions needs this.
        """
        return values

    def shuffle(self, inputs: Inputs, keys: Tensor) -> dict[str, Tensor]:
        """Return the inputs that change when present features are put in the order of ``keys`` (N, F)."""
        raise InputError(f"{self.name!r} has no order to change; use a mask or noise instead.")

    def keys(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the keys of all inputs that belong to the modality, its own among them."""
        return self.input, *self.own

    def settled(self, inputs: Inputs, model: nn.Module | None = None) -> Self:
        """Return a copy for which all that one layer or a part of the batch leaves open is settled.

        Parameters
        ----------
        inputs : mapping of str to Tensor
            The whole batch; it says for instance on which side texts are padded, which a part of it may not show.
        model : torch.nn.Module, optional
            As it is asked. The kind of the layer says where its channels are; where the sizes leave open which axis holds
            the examples, the first example is run alone.
        """
        if model is None and self.place is not None:
            return self
        settled = copy.copy(self)
        settled.place, examples = Place(self.layer), len(self.value(inputs))
        if model is not None and examples:
            one = rows_of(inputs, torch.arange(1), examples, calling_of(model).common)
            settled.place = Place.of(self.layer, model, one)
        settled.settle(inputs)
        return settled

    def settle(self, inputs: Inputs) -> None:
        """Keep what the whole batch says; called on a copy."""

    def at(self, model: nn.Module) -> nn.Module | None:
        """Return the module whose output is read, None at an input."""
        return module_at(model, self.layer)

    def read_from(self, module: nn.Module | None = None) -> Place:
        """Return where the modality is read, with all that is known of it."""
        return self.place if module is None and self.place is not None else Place(self.layer, module)

    def value(self, inputs: Inputs | None) -> Tensor:
        """Return the modality's own tensor, or say which keywords there are and what came."""
        return require_tensor(inputs, self.input, f"modality {self.name!r}", type(self).__name__)

    def require_baseline(self, baseline: str) -> str:
        """Return ``baseline`` if the modality has it, or raise :class:`InputError`."""
        return require_one_of(baseline, self.baselines, f"baseline of {self.name}")


def named(name: str, input: str, layer: str | None) -> tuple[str, str, str]:
    """Return name, keyword and layer of a modality if they are texts; without a layer, it is read at the input itself."""
    for what, word in (("name", name), ("input", input), ("layer", f"input:{input}" if layer is None else layer)):
        if not isinstance(word, str) or not word and what != "layer":  # "" is the model itself
            raise InputError(f"got {what}={word!r} of a modality, expected a name, as text.")
    return name, input, f"input:{input}" if layer is None else layer


def require_tensor(inputs: Inputs | None, key: str, who: str, kind: str) -> Tensor:
    """Return the tensor at a key of the inputs, or raise :class:`InputError` that says what is there."""
    reads = f"{who} reads input {key!r}"
    if not isinstance(inputs, Mapping) or key not in inputs:
        held = list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise InputError(f"{reads}, the inputs are {held}; pass a dict of tensors with that keyword, or name the right one: "
                         f"{kind}(input=...).")
    values = inputs[key]
    if isinstance(values, Tensor):
        return values
    what, how = type(values).__name__, f"convert it with torch.tensor(inputs[{key!r}])"
    if isinstance(values, list | tuple) and values and all(isinstance(value, Tensor) for value in values):
        what, how = f"a {what} of {len(values)} tensors", f"join them with torch.stack(inputs[{key!r}]), padded to one shape"
    elif values is None:
        how = "pass its tensor, or leave the modality out"
    elif what == "ndarray":
        how = f"convert it with torch.from_numpy(inputs[{key!r}])"
    raise InputError(f"{reads}, which is {what}, expected a torch.Tensor with one row an example; {how}.")


def is_batched(value: object, examples: int) -> bool:
    """Return whether a value is a tensor, or a list, with one entry for each of the examples."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == examples or \
        isinstance(value, list) and len(value) == examples


def rows_of(inputs: Inputs, rows: Tensor, examples: int, common: Collection[str] = ()) -> dict[str, Any]:
    """Return the given rows of a batch.

    Parameters
    ----------
    inputs : mapping of str to Tensor
    rows : Tensor of int64, shape (R,)
    examples : int
        Every tensor and every list with so many entries is cut, the rest is handed on.
    common : collection of str
        Keys of inputs that belong to all examples, whatever their length: they are handed on.
    """
    cut, common = {}, listed(common)
    for key, value in inputs.items():
        if key in common or not is_batched(value, examples):
            cut[key] = value
        else:
            cut[key] = value[rows.to(value.device)] if isinstance(value, Tensor) else [value[row] for row in rows.tolist()]
    return cut


def in_parts(inputs: Inputs, size: int, examples: int, target: Any = None,
             common: Collection[str] = ()) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the inputs of at most ``size`` examples at a time, with their targets where each example has its own."""
    if size < 1:
        raise InputError(f"got batch_size = {size}, expected at least 1.")
    one_each = isinstance(target, Tensor) and target.numel() > 1
    if one_each and len(target) != examples:
        raise InputError(f"target has {len(target)} entries, the batch has {examples} examples; pass one each.")
    for rows in torch.arange(examples).split(size):
        yield rows_of(inputs, rows, examples, common), target[rows.to(target.device)] if one_each else target


def examples_in(inputs: Inputs, common: Collection[str] = ()) -> int:
    """Return the number of examples of inputs of which some, such as positions (T,) or (1, T), may belong to all of them.

    Raises
    ------
    InputError
        Where tensors of two axes or more have different lengths, so that one of them belongs to all examples.
    """
    lengths = {key: len(value) for key, value in inputs.items()
               if isinstance(value, Tensor) and value.ndim > 1 and key not in common}
    several = {key: length for key, length in lengths.items() if length != 1} or lengths
    if len(set(several.values())) > 1:
        told = ", ".join(f"{key!r} {length}" for key, length in several.items())
        raise InputError(f"the inputs have different numbers of rows ({told}); name those that belong to all examples: "
                         "common=[...], or Called(model, common=[...]).")
    return next(iter(several.values()), 0)


def listed(values: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    if values is None or isinstance(values, str):
        return () if values is None else (values,)
    names = entries_of(values)
    if names is None or not all(isinstance(name, (str, int)) for name in names):  # inputs may come by position
        raise InputError(f"got {values!r}, expected the name of an input or several.")
    return tuple(names)
