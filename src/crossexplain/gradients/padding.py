"""Where a deleted word leaves its padding, and whether an answer is read at a padded word: found by asking the model."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.gradients.modality import Inputs
from crossexplain.gradients.words import SIDES, Tokens

LITTLE = 0.02  # of an output; what half precision rounds, too


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
        if _alike(found[side], truth):
            return side
    raise InputError(f"with a word of {modality.name} deleted the model gives {_shown(truth)}, but with padding at the end "
                     f"{_shown(found['right'])}, and at the beginning {_shown(found['left'])}: it reads padding as text; "
                     "name the attention mask (attention=...) or the number of tokens (lengths=...) where the model takes "
                     "one, use the baseline 'mask', 'pad' or 'data', or say padding_side=... if you want 'delete' all the "
                     "same.")


def require_side(call: Callable[[Inputs], Tensor], modality: Tokens, inputs: Inputs) -> None:
    """Raise where a model gives what a shorter text gives with padding on the other side alone than the batch is padded on.

    Arguments as for :func:`padding_side_of`. A model that reads padding on both sides reads a deleted word as it reads the end
    of a shorter text in the batch.
    """
    try:
        side = padding_side_of(call, modality, inputs)
    except InputError:
        return
    if side is not None and modality.side in SIDES and side != modality.side:
        raise InputError(f"{modality.name} is padded on the {modality.side}, and the model gives what a shorter text gives "
                         f"with padding on the {side} alone, so that a view without a word would ask another question; pad on "
                         f"the other side (tokenizer.padding_side = {side!r}), use another baseline, or say "
                         f"padding_side={modality.side!r} if you want 'delete' all the same.")


def longest_of(modality: Tokens, inputs: Inputs) -> int:
    """Return the number of the example with the longest text."""
    return int(modality.real(inputs).sum(dim=1).argmax())


def unpadded(modality: Tokens, one: Inputs) -> Inputs:
    """Return the inputs of one example without its padding."""
    stay = modality.real(one)[0]
    keys = [key for key in modality.keys(one) if modality.fits(one.get(key), one)]
    return {**one, **{key: one[key][:, stay.to(one[key].device)] for key in keys}}


def require_unread(call: Callable[[Inputs], Tensor], modality: Tokens, inputs: Inputs) -> None:
    """Raise where a model reads its answer at a last word that is padded: it is then not what a shorter text gives.

    Arguments as for :func:`padding_side_of`; the example may be padded. Where something else than a word comes last, as the end
    of a prompt, or the model does not run on a shorter text, there is nothing to find.
    """
    real, words = modality.real(inputs)[0], modality.is_word(inputs)[0]
    last = int(real.nonzero()[-1])
    if modality.attention is None or not words[last] or int(real.sum()) < 2:
        return
    stay = torch.arange(len(words)) != last
    try:
        truth = call(_shorter(modality, inputs, stay))
    except Exception:  # whatever a stranger's model says to a text of another length: then it cannot tell
        return
    padded = call({**inputs, **modality.pad(inputs, ~stay.to(words.device)[None])})
    # Padding that is attended to moves an answer a little, which the pre-flight says; one that is read there is another.
    if truth.isfinite().all() and not _alike(padded, truth, LITTLE):
        raise InputError(f"with the last word of {modality.name} hidden by 'pad' the model gives {_shown(padded)}, and without "
                         f"it {_shown(truth)}: it reads its answer at the place of that word, or reads padding as text; name "
                         "what comes after the words in every view (special=..., special_mask=...), pad on the side on which "
                         "the model leaves padding out, or use the baseline 'delete' or 'data'.")


def _alike(found: Tensor, truth: Tensor, share: float = 1e-3) -> bool:
    """Return whether two runs with texts of other lengths give the same, but for a share and for rounding."""
    share = share if truth.dtype in (torch.float32, torch.float64) else max(share, LITTLE)
    near = share / 10 * float(truth.detach().abs().max())
    return found.shape == truth.shape and torch.allclose(found, truth, rtol=share, atol=near)


def _on(modality: Tokens, side: str) -> Tokens:
    known = copy.copy(modality)
    known.side = side
    return known


def _shorter(modality: Tokens, inputs: Inputs, stay: Tensor) -> dict[str, Any]:
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


def _shown(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.detach().flatten()[:3].tolist())
