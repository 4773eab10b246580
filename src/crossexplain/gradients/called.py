"""A model that is called in its own way, and of whose output one part is judged."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from crossexplain.checks import InputError, require_model

TABLES = "_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"  # what a module keeps of its layers and weights


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

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, dict], object] | None = None, *,
                 output: str | int | Callable[[object], object] | None = None, common: Iterable[str] = (),
                 drop: Iterable[str] = ()):
        super().__init__()
        model = require_model(model)
        # One table of layers for both, so that names, weights and modes are those of the model; it is no layer of this one.
        self.__dict__.update({table: getattr(model, table) for table in TABLES})
        common = _names(common, "common") + getattr(model, "common", ()) * isinstance(model, Called)
        # Past the table of layers: a model may have layers named output or drop, which stay its own.
        self.__dict__.update(called=model, call=call, output=output, drop=_names(drop, "drop"), common=common)

    @property
    def training(self) -> bool:
        """Mode of the model."""
        return self.called.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "called" in self.__dict__:
            self.called.training = mode

    def train(self, mode: bool = True) -> "Called":
        """Put the model into train mode, as it does that itself, or into eval mode."""
        self.called.train(mode)
        return self

    def __getattr__(self, name: str) -> object:
        if "called" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self.called, name)

    def forward(self, **inputs) -> object:
        """Return the part of the model's output that is judged."""
        inputs = {key: value for key, value in inputs.items() if key not in self.drop}
        output = self.called(**inputs) if self.call is None else self.call(self.called, inputs)
        if callable(self.output):
            return self.output(output)
        return output if self.output is None else _part(output, self.output)


def _names(given: Iterable[str], what: str) -> tuple[str, ...]:
    """Return names of inputs as a tuple."""
    names = () if isinstance(given, str) else tuple(given)
    if not names and given or not all(isinstance(name, str) for name in names):
        raise InputError(f"got {what}={given!r}, expected a sequence of names of inputs, as in {what}=('classes',).")
    return names


def _part(output: object, part: str | int) -> object:
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
