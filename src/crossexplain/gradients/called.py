"""A model that is called in its own way, and of whose output one part is judged."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from crossexplain.checks import InputError, entries_of, require_model

TABLES = "_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"  # what a module keeps of its layers and weights


class Calling(NamedTuple):
    """How a model is called; the arguments of :class:`Called`."""

    call: Callable[[nn.Module, dict[str, Any]], object] | None = None
    output: str | int | Callable[[object], object] | None = None
    common: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Called(nn.Module):
    """A model as all functions of this package call it: with keywords, and with one tensor to judge.

    Layers have the names that they have in the model itself.

    Parameters
    ----------
    model : torch.nn.Module
    call : callable, optional
        ``call(model, inputs)`` returns what the model gives for ``inputs``, a flat dict of tensors; for a model that takes
        a dict, a list, or arguments without names. Default: ``model(**inputs)``.
    output : str, int or callable, optional
        What of the output is judged: a key or attribute, a number of an entry, or a function of the output. Default: the
        output itself, or its ``logits``.
    common : sequence of str
        Inputs that belong to all examples, whatever their length: class prompts (C, D), positions (T,).
    drop : sequence of str
        Inputs that the model does not get, such as what only a modality reads.

    Raises
    ------
    InputError
        For a model that is no module, and an output that has no such part.

    Examples
    --------
    >>> class Pair(nn.Module):
    ...     def forward(self, batch):
    ...         return {"features": batch["a"], "scores": batch["a"] + batch["b"]}
    >>> model = Called(Pair(), lambda model, inputs: model(inputs), output="scores")
    >>> model(a=1, b=2)
    3
    """

    wrapped_model: nn.Module
    wrapped_call: Calling

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, dict[str, Any]], object] | None = None, *,
                 output: str | int | Callable[[object], object] | None = None, common: Iterable[str] = (),
                 drop: Iterable[str] = ()):
        super().__init__()
        model = require_model(model)
        # Both share one table of layers, so that names, weights and modes are those of the model. What is the wrapper's own has
        # names that no layer has, and does not go through the table.
        self.__dict__.update({table: getattr(model, table) for table in TABLES})
        known = calling_of(model).common if isinstance(model, Called) else ()
        self.__dict__["wrapped_call"] = Calling(call, output, _names(common, "common") + known, _names(drop, "drop"))
        self.__dict__["wrapped_model"] = model

    @property
    def training(self) -> bool:
        """Mode of the model."""
        return self.wrapped_model.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "wrapped_model" in self.__dict__:
            self.wrapped_model.training = mode

    def train(self, mode: bool = True) -> "Called":
        """Put the model into train mode, as it does that itself, or into eval mode."""
        self.wrapped_model.train(mode)
        return self

    def __getattr__(self, name: str) -> Any:
        if "wrapped_model" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self.wrapped_model, name)

    def forward(self, **inputs: Any) -> Any:
        """Return the part of the model's output that is judged."""
        call, part, _, drop = self.wrapped_call
        inputs = {key: value for key, value in inputs.items() if key not in drop}
        output = self.wrapped_model(**inputs) if call is None else call(self.wrapped_model, inputs)
        return output if part is None else part(output) if callable(part) else _part(output, part)


def calling_of(model: nn.Module) -> Calling:
    """Return how a model is called; of one that is not :class:`Called`, with what its own ``common`` names, if it does."""
    if isinstance(model, Called):
        return model.wrapped_call
    common = getattr(model, "common", ())
    names = isinstance(common, (tuple, list)) and all(isinstance(name, str) for name in common)
    return Calling(common=tuple(common) if names else ())


def _names(given: Iterable[str], what: str) -> tuple[str, ...]:
    """Return names of inputs as a tuple."""
    names = entries_of(given)
    if names is None or not all(isinstance(name, str) for name in names):
        raise InputError(f"got {what}={given!r}, expected a sequence of names of inputs, as in {what}=('classes',).")
    return tuple(names)


def _part(output: Any, part: str | int) -> object:
    """Return an entry or an attribute of an output."""
    if isinstance(output, Tensor):
        raise InputError(f"got Called(output={part!r}) of a model that gives one tensor, {tuple(output.shape)}; for one of its "
                         "columns pass target=..., or make output a function.")
    try:
        return output[part]
    except (KeyError, IndexError, TypeError):
        if isinstance(part, str) and hasattr(output, part):
            return getattr(output, part)
    entries = list(output) if isinstance(output, Mapping) else \
        list(range(len(output))) if isinstance(output, (tuple, list)) else sorted(getattr(output, "__dict__", ()))
    raise InputError(f"Called(output={part!r}) names no part of the output, a {type(output).__name__} with "
                     f"{', '.join(map(repr, entries)) or 'no parts'}; name one of these, or pass a function of the output.")
