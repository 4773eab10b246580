"""Equal rows computed once: most views of an example share its image, and a masked image is the same for all examples."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, find_layer, layer_path
from crossexplain.gradients.capture import INPUT, NoGradient, split_name

WORTH = 0.8  # share of distinct rows above which it costs more to find equal rows than to compute all
Given = TypeVar("Given")  # what a call gives
SAMPLE = 1024  # entries of a row, at least, by which rows are told apart before they are compared whole


def shared(model: nn.Module, layers: Sequence[str], call: Callable[[], Given], towers: bool = False) -> tuple[Given, bool]:
    """Return what a call gives with equal rows computed once, and True; or with all rows, and False.

    Arguments as for :func:`equal_rows_once`.

    The model is in eval mode. All rows run where a layer needs more than its input, row by row: then the call fails on fewer
    rows. If that is not the reason, the same error comes again.
    """
    try:
        with equal_rows_once(model, layers, towers):
            return call(), True
    except NoGradient:
        raise
    except (RuntimeError, ValueError, IndexError):
        return call(), False


@contextmanager
def equal_rows_once(model: nn.Module, layers: Sequence[str], towers: bool = False) -> Iterator[None]:
    """Let all that leads to each of the named layers compute equal rows once, and hand every row its copy after the layer.

    A tower then runs on a fraction of the rows. Equal rows are looked for where the images come in, at the outermost
    module around the layer that takes nothing else. What comes after the layer, and every gradient, is for each row by
    itself.

    With ``towers`` each other part of the model that is given an input of pictures, and nothing else, computes equal pictures
    once as well. Then nothing may be read within it that ``layers`` does not name.
    """
    handles, taken, given = [], set[nn.Module](), list[object]()
    try:
        for name in layers:
            if not name.startswith(INPUT):
                shared, path = _SharedRows(), layer_path(model, split_name(name)[0])
                around = [find_layer(model, path[:end]) for end, dot in enumerate(f"{path}.") if dot == "."]
                layer = around[-1]
                taken.update(around)
                for module in around:
                    handles.append(module.register_forward_pre_hook(shared.narrow, with_kwargs=True))
                handles.append(layer.register_forward_hook(shared.widen))
        if towers:
            handles.append(model.register_forward_pre_hook(
                lambda module, arguments, named: given.extend((*arguments, *named.values())), with_kwargs=True))
            for part in model.children():
                if part not in taken and not isinstance(part, torch.jit.ScriptModule):
                    shared = _SharedRows(given)
                    handles.append(part.register_forward_pre_hook(shared.narrow, with_kwargs=True))
                    handles.append(part.register_forward_hook(shared.widen))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SharedRows:
    """Hooks of one layer and of the modules around it: the distinct rows go in, all rows come out after the layer.

    Parameters
    ----------
    given : list of object, optional
        Inputs of the model, of which pictures alone are looked at; default whatever comes in.
    """

    def __init__(self, given: list[object] | None = None) -> None:
        self.given = given
        self.rows: tuple[Tensor, Tensor] | None = None  # for each row its number among the distinct rows, and these

    def narrow(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
        """Replace the input by its distinct rows where that is worth it; what is passed by name may belong to all rows."""
        if self.rows is not None:  # a module around this one did it
            return None
        if len(arguments) != 1 or named or not isinstance(arguments[0], Tensor) or arguments[0].requires_grad:
            return None
        values = arguments[0]
        if values.ndim < (3 if self.given is None else 4) or not values.is_floating_point():
            return None
        if self.given is not None and not any(values is one for one in self.given):
            return None
        flat = values.flatten(1)
        sample = flat[:, :: max(1, flat.shape[1] // SAMPLE)]
        keys, back = torch.unique(sample @ _weights(sample.shape[1]).to(flat), return_inverse=True)
        order = torch.arange(len(flat), device=flat.device)
        first = torch.full((len(keys),), len(flat), device=flat.device).scatter_reduce(0, back, order, "amin")
        if len(keys) > WORTH * len(flat):
            return None
        again = order[first[back] != order]  # rows that came before
        if not torch.equal(flat[first[back[again]]], flat[again]):  # equal sums need not be equal rows
            return None
        self.rows = back, values[first]
        return self.rows[1:], named

    def widen(self, module: nn.Module, arguments: tuple[Any, ...], output: object) -> object:
        """Give every row its output."""
        if self.rows is None:
            return None
        (back, rows), self.rows = self.rows, None
        if rows._version:
            raise InputError(f"{type(module).__name__} writes over its input, which other parts of the model may read.")
        distinct = len(rows)
        either = isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] == distinct  # whose axis is it?
        if not isinstance(output, Tensor) or len(output) != distinct or either:
            raise InputError(f"{type(module).__name__} gives {type(output).__name__}, expected one tensor with a row an "
                             "example; read the gradient at a layer that does.")
        return output[back]


@lru_cache(maxsize=8)
def _weights(count: int) -> Tensor:
    """Return weights under which different rows hardly ever have the same sum, (count,)."""
    return torch.rand(count, generator=torch.Generator().manual_seed(0))
