"""Models that are not ours, asked as their owners would: each case asserts the right answer, or a refusal that helps.

The cases stand by the kind of fault that they once showed: :mod:`~benchmarks.strangers.silent` (an answer came, and it was not
true), :mod:`~benchmarks.strangers.unhelpful` (an error came, and did not help) and :mod:`~benchmarks.strangers.tracebacks` (the
error was another library's). What is right is always found in another way: by autograd, by a wrapper that does the right thing,
or example by example.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from crossexplain import Game, InputError, Modality, explain, rounds

Case = Callable[[], None]
CASES: dict[str, Case] = {}  # by number and name


def case(number: str) -> Callable[[Case], Case]:
    """Put a function among the cases; its docstring says in a sentence what is right."""
    def add(function: Case) -> Case:
        CASES[f"{number} {function.__name__.replace('_', ' ')}"] = function
        return function

    return add


def refused(call: Callable[[], object], *words: str, kind: type[InputError] = InputError) -> InputError:
    """Return the error that a call raises: one of ours, whose message holds the words."""
    try:
        value = call()
    except kind as error:
        missing = [word for word in words if word.lower() not in str(error).lower()]
        assert not missing, f"the message lacks {missing}: {error}"
        return error
    raise AssertionError(f"nothing was refused: the call returned {str(value)[:200]}")


def right_or_refused(call: Callable[[], object], expected: Tensor | Callable[[object], bool], *words: str) -> None:
    """Assert that a call gives what is expected (values, or what a function finds right), or is refused in these words."""
    try:
        value = call()
    except InputError as error:
        missing = [word for word in words if word.lower() not in str(error).lower()]
        assert not missing, f"the message lacks {missing}: {error}"
        return
    is_right = expected(value) if callable(expected) else close(value, expected)
    assert is_right, f"{str(value)[:300]} is not right"


def close(found: Tensor, expected: Tensor, size: float = 1e-5) -> bool:
    """Return whether two tensors are alike up to rounding, NaN where the other is."""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=size, equal_nan=True)


def doors(model: nn.Module, inputs: Mapping[str, object], modalities: Sequence[Modality], **settings) -> dict[str, Callable]:
    """Return the entry points that ask a model about a batch, ready to be called."""
    asked = {"rounds": partial(rounds, progress=False), "Game": partial(Game, progress=False), "explain": explain}
    return {name: partial(door, model, inputs, modalities, **settings) for name, door in asked.items()}


def by_hand(model: nn.Module, inputs: Mapping[str, object], layer: str,
            score: Callable[[object], Tensor] = lambda output: output[:, 0]) -> tuple[Tensor, Tensor]:
    """Return what a layer gives and the gradient of a score there, by a hook and autograd alone."""
    kept = []

    def keep(module: nn.Module, arguments: tuple, output: object) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        total = score(model(**inputs)).sum()
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(total, kept)
    return kept[0].detach(), slope


def outcome(function: Case) -> str:
    """Return ``"right"``, or ``"wrong: ..."`` or ``"foreign: ..."`` with what came."""
    torch.manual_seed(0)
    try:
        function()
    except (AssertionError, InputError) as error:
        return f"wrong: {type(error).__name__}: {error}"
    except Exception as error:  # whatever another library raises
        return f"foreign: {type(error).__name__}: {error}"
    return "right"
