"""Where a deleted word leaves its padding, found by asking the model; and which ids a view replaced."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.gradients.modality import Inputs
from crossexplain.gradients.words import Tokens


def padding_side_of(call: Callable[[Inputs], Tensor], modality: Tokens, inputs: Inputs) -> str | None:
    """Return the side on which padding does not matter to a model: a text with a deleted word reads like the shorter text.

    Parameters
    ----------
    call : callable
        Takes inputs and returns what is judged of the model's output, one row an example.
    modality : Tokens
    inputs : mapping of str to Tensor
        Of one example, without padding.

    Returns
    -------
    {"left", "right"} or None
        The side that the modality knows is tried first. None where the model does not run on a shorter text.

    Raises
    ------
    InputError
        Where neither side gives what the shorter text gives: ``"delete"`` then asks another question.
    """
    words = modality.is_word(inputs)
    place = int(words[0].nonzero()[-1]) if words.any() else 0
    length = words.shape[1]
    if length < 2 or int(words.sum()) < 2:
        return None
    stay = torch.arange(length) != place
    try:
        truth = call(_shorter(modality, inputs, stay))
    except Exception:  # whatever a stranger's model says to a text of another length: then it cannot tell
        return None
    hide = ~stay.to(words.device)[None]
    found = {}
    for side in ("left", "right") if modality.side == "left" else ("right", "left"):
        found[side] = call({**inputs, **_on(modality, side).delete(inputs, hide)})
        near = 1e-4 * float(truth.abs().max())
        if found[side].shape == truth.shape and torch.allclose(found[side], truth, rtol=1e-3, atol=near):
            return side
    raise InputError(f"with a word of {modality.name} deleted the model gives {_told(truth)}, but with padding at the end "
                     f"{_told(found['right'])}, and at the beginning {_told(found['left'])}: it reads padding as text; "
                     "name the attention mask (attention=...) or the number of tokens (lengths=...) where the model takes "
                     "one, use the baseline 'mask', 'pad' or 'data', or say padding_side=... if you want 'delete' all the "
                     "same.")


def _on(modality: Tokens, side: str) -> Tokens:
    there = copy.copy(modality)
    there.side = side
    return there


def _shorter(modality: Tokens, inputs: Inputs, stay: Tensor) -> dict[str, object]:
    """Return the inputs of one example without a word."""
    shorter = dict(inputs)
    for key in (modality.input, modality.attention, *modality.moving(inputs)):
        if key is not None:
            values = modality.entry(inputs, key)
            shorter[key] = values[:, stay.to(values.device)]
    for key in modality.staying(inputs):
        shorter[key] = inputs[key][:, :-1]
    if modality.lengths is not None:
        shorter[modality.lengths] = inputs[modality.lengths] - 1
    return shorter


def _told(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.detach().flatten()[:3].tolist())


def replaced_ids(modality: Tokens, before: Inputs, after: Inputs) -> list[int]:
    """Return the ids that a view replaced, to say which of them another input may need.

    Parameters
    ----------
    before, after : mapping of str to Tensor
        The same rows, as they are and in the view.
    """
    old, new = modality.value(before), modality.value(after)
    return old[old != new].unique().tolist() if old.shape == new.shape else []
