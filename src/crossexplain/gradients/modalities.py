"""Modalities: how a part of a model's input is cut into features, and what stands in for those that are hidden.

A modality adapter is the only thing that knows how a modality is fed to the model. These cover most models:
:class:`ImageCells` (pixels), :class:`Video`, :class:`Tokens` (word ids, with or without an attention mask),
:class:`Vectors` (a row of vectors: embeddings, features of a tower, frames, patches) and :class:`Columns` (a table). Write
your own by subclassing :class:`Modality`.
"""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from crossexplain.checks import InputError, entries_of, require_batch
from crossexplain.gradients.cells import ImageCells, Video
from crossexplain.gradients.in_a_row import STAY, TRAVEL
from crossexplain.gradients.layouts import LAYOUTS
from crossexplain.gradients.modality import Inputs, Modality, examples_in, in_parts, is_batched, rows_of
from crossexplain.gradients.patches import SPECIAL_TOKENS
from crossexplain.gradients.vectors import Columns, Vectors
from crossexplain.gradients.words import Tokens, word_numbers

__all__ = ["LAYOUTS", "SPECIAL_TOKENS", "Columns", "ImageCells", "Inputs", "Modality", "Tokens", "Vectors", "Video",
           "examples_in", "features_of", "in_parts", "is_batched", "require_modalities", "rows_of", "without_others",
           "word_numbers"]


def require_modalities(modalities: Sequence[Modality]) -> list[Modality]:
    """Return the modalities as a list.

    Raises
    ------
    InputError
        For a modality outside a list, an empty list, and entries that are no :class:`Modality`.
    """
    listed = entries_of(modalities) or []
    if listed and all(isinstance(modality, Modality) for modality in listed):
        return listed
    raise InputError(f"got modalities={modalities!r}, expected a list of modalities, as in [ImageCells(), Tokens()].")


def features_of(inputs: Inputs, modalities: Sequence[Modality]) -> dict[str, Tensor]:
    """Return which features each example has in each modality, bool (N, F).

    Raises
    ------
    InputError
        For modalities of one name or with different numbers of examples, and an empty batch.
    """
    features = {modality.name: modality.features(inputs) for modality in modalities}
    if len(features) < len(modalities):
        raise InputError(f"got modalities named {', '.join(repr(modality.name) for modality in modalities)}, expected "
                         "different names; pass name=...")
    first, *_ = features
    examples = require_batch(len(features[first]))
    for name, present in features.items():
        if len(present) != examples:
            raise InputError(f"{name} has {len(present)} examples, {first} has {examples}; pass the same examples, in the "
                             "same order, for every modality.")
    return features


def without_others(inputs: Inputs, modality: Modality, modalities: Sequence[Modality],
                   common: Collection[str] = ()) -> dict[str, Any]:
    """Return the inputs without those of other modalities, and of all examples, for what asks about the rest.

    Raises
    ------
    InputError
        Where an input such as ``token_type_ids`` may belong to two modalities.
    """
    own_keys, others = modality.keys(inputs), set()
    named = {modality.input, *getattr(modality, "along", ()), *getattr(modality, "stay", ()), *modality.own}
    known = {*own_keys} - {*TRAVEL, *STAY} | named
    for other in modalities:
        if other is modality:
            continue
        other_keys = {*other.keys(inputs)}
        declared = {*getattr(other, "along", ()), *getattr(other, "stay", ())}
        for key in {*TRAVEL, *STAY} & {*own_keys} & other_keys - named - declared:
            if isinstance(modality, Tokens) == isinstance(other, Tokens):
                how = f"{'along' if key in TRAVEL else 'stay'}=({key!r},)"
                raise InputError(f"input {key!r} can belong to {modality.name} or to {other.name}; pass {how} to the one whose "
                                 "it is, or to both.")
            other_keys -= {key} if isinstance(modality, Tokens) else set()  # of words, not of vectors
        others |= other_keys
    others = (others - known) | ({*common} - named)
    return {key: value for key, value in inputs.items() if key not in others}
