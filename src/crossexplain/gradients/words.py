"""Texts: word ids, of which each is a feature, or the pieces of a word together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, entries_of, require_names, require_one_of, require_whole
from crossexplain.gradients.in_a_row import InARow, moved, select
from crossexplain.gradients.modality import Inputs, named

SIDES, BOTH = ("left", "right"), "both"  # where texts are padded

# Ids with such a name in a model's configuration stand for a picture or a sound, not for a word.
PLACEHOLDERS = ("image_", "video_", "audio_", "vision_", "boi_", "eoi_")


class Tokens(InARow):
    """Word ids, one feature a token or a word; padding and special tokens are no features and are never hidden.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str
        Where the gradient is read: (N, T, D), by default the layer called ``embedding``.
    mask_id : int or None
        Id of the ``[MASK]`` token; None if the vocabulary has none.
    pad_id : int
        Id of the padding.
    special : sequence of int
        Ids that stay in every view ([CLS], [SEP]): hiding them asks another question than hiding words.
    attention : str or None
        Keyword of the attention mask (N, T), 1 for tokens that count, where the model takes one. The ``"pad"``
        baseline sets it to 0 where it hides: a ``[PAD]`` that is attended is not padding.
    along : sequence of str
        Inputs (N, T, ...) that belong to the words and travel with them, as token types and boxes: ``"delete"`` moves them,
        ``"data"`` borrows them. ``token_type_ids`` and ``bbox`` are known.
    stay : sequence of str
        Inputs (N, T, ...) that belong to the place in the row. ``position_ids`` is known.
    lengths : str or None
        Keyword of the number of tokens (N,), where the model takes it; it follows deleted words and borrowed sentences.
    special_mask : str or None
        Key of an entry (N, T) of the inputs, True for tokens that are no words, as those of a prompt template. The model does
        not get it.
    words : str or None
        Key of an entry (N, T) of the inputs with the number of the word that each token is a piece of, -1 for none, as
        :func:`word_numbers` makes it. The model does not get it. A feature is then a whole word.
    padding_side : {"left", "right"}, optional
        Where ``"delete"`` fills. Default: the side on which the batch is padded, else the right.
    positions : slice, range or sequence of int, optional
        Which positions of the layer are the tokens, where others stand in the same row (patches, a prompt).
    layout : {"NTD", "TND", "NDT"}, optional
        Which axis of the layer is which. Default: what its kind and the sizes say.

    Attributes
    ----------
    side : str or None
        Where ``"delete"`` fills in the batch at hand: ``padding_side`` if it is given, else the side on which the batch is
        padded, which is None where it is not padded.

    Notes
    -----
    Baselines: ``"mask"`` ([MASK] in place of the word), ``"pad"`` ([PAD], not attended), ``"delete"`` (the other words move
    together, and padding fills the end, or the beginning where texts are padded there) and ``"data"`` (the word at that place
    of another sentence; where every word is hidden, the whole other sentence with its length). Where the padding id is also
    a special id, as CLIP's end of text, ``"pad"`` leaves the word's id in place and only takes it out of the attention mask:
    with another end of text in its place the model would read a shorter text.
    """

    unit = "tokens"

    def __init__(self, name: str = "text", input: str = "tokens", layer: str = "embedding", mask_id: int | None = 1,
                 pad_id: int = 0, special: Sequence[int] = (), attention: str | None = None, *, along: Sequence[str] = (),
                 stay: Sequence[str] = (), lengths: str | None = None, special_mask: str | None = None,
                 words: str | None = None, padding_side: str | None = None, positions: object = None,
                 layout: str | None = None):
        self.name, self.input, self.layer = named(name, input, layer)
        require_names(attention=attention, lengths=lengths, special_mask=special_mask, words=words)
        if (ids := entries_of(special)) is None:
            raise InputError(f"got special={special!r}, expected the ids that are no words, as in special=(101, 102).")
        require_whole(pad_id=pad_id, mask_id=0 if mask_id is None else mask_id, **{f"an id in special={ids}": id for id in ids})
        self.mask_id, self.pad_id, self.special, self.attention = mask_id, pad_id, tuple(ids), attention
        self.lengths, self.special_mask, self.words = lengths, special_mask, words
        self.own = tuple(key for key in (special_mask, words) if key is not None)
        self.unit = "tokens" if words is None else "words"
        self._in_a_row(along, stay, positions, layout)
        self.padding_side = None if padding_side is None else require_one_of(padding_side, SIDES, "padding_side")
        self.side: str | None = self.padding_side
        self.at_padding: dict[str | None, Tensor] = {}  # values that other inputs have where the batch is padded
        self.longest = 0  # words of an example, at least; the whole batch says it
        self.baselines = (("mask",) if mask_id is not None else ()) + ("pad", "delete", "data")

    def settle(self, inputs: Inputs) -> None:
        """Keep on which side the batch is padded, and how many words its longest text has."""
        super().settle(inputs)
        self.longest, self.side, self.at_padding = 0, self.padding_side, {}
        self.longest, self.side = self.features(inputs).shape[1], self.padding_side or self._padded(inputs)
        padding = ~self.real(inputs)
        for key in [key for key in self.keys(inputs) if self.fits(inputs.get(key), inputs) and padding.any()]:
            values = inputs[key][padding.to(inputs[key].device)]
            if (values == values[0]).all():  # such as True in a mask of what is padding
                self.at_padding[key] = values[0]
        self._require_no_placeholders(inputs)

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, F): True where a word stands."""
        words = self.is_word(inputs)
        if not words.any(dim=1).all():
            empty = int((~words.any(dim=1)).nonzero()[0])
            raise InputError(f"{self.name} of example {empty} has no word (only padding and special tokens); leave it out.")
        return words if self.words is None else self.to_features(words.float(), inputs) > 0

    def is_word(self, inputs: Inputs) -> Tensor:
        """Return which tokens can be hidden, bool (N, T)."""
        ids = self.value(inputs)
        if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"got {self.name} as {ids.dtype} {tuple(ids.shape)}, expected whole token ids (N, T); for "
                             "embeddings use Vectors instead of Tokens.")
        words = self.real(inputs)
        for token in self.special:
            words = words & (ids != token)
        if self.special_mask is not None:
            words = words & ~self._entry(inputs, self.special_mask, "special_mask").bool()
        if self.words is not None:
            words = words & (self.numbers(inputs) >= 0)
        return words

    def real(self, inputs: Inputs) -> Tensor:
        """Return which tokens are no padding, bool (N, T)."""
        return (self.value(inputs) != self.pad_id) if self.attention is None else self._attended(inputs, self.attention)

    def _entry(self, inputs: Inputs, key: str, parameter: str) -> Tensor:
        """Return an entry (N, T) of the inputs that the modality alone reads."""
        entry, ids = inputs.get(key), self.value(inputs)
        entry = word_numbers(entry) if parameter == "words" and isinstance(entry, list) else entry
        if isinstance(entry, Tensor) and entry.shape == ids.shape:
            return entry.to(ids.device)
        description: object = "missing" if key not in inputs else type(entry).__name__
        description = tuple(entry.shape) if isinstance(entry, Tensor) else description
        raise InputError(f"the entry {key!r} of the inputs ({parameter}=) is {description}, expected the shape of the ids, "
                         f"{tuple(ids.shape)}; encode both in one call.")

    def numbers(self, inputs: Inputs) -> Tensor:
        """Return the number of the word that each token is a piece of, int64 (N, T)."""
        numbers = self._entry(inputs, self.words or "", "words")
        if numbers.is_floating_point() or numbers.dtype == torch.bool:
            raise InputError(f"the entry {self.words!r} of the inputs (words=) has dtype {numbers.dtype}, expected whole "
                             "numbers of words, -1 for none; word_numbers(encoding) makes them.")
        return numbers

    def to_features(self, values: Tensor, inputs: Inputs) -> Tensor:
        """Return values (R, T) of tokens, summed over the pieces of each word: (R, F)."""
        if self.words is None:
            return values
        numbers = self.numbers(inputs)
        if numbers.shape != values.shape:
            raise InputError(f"got values of shape {tuple(values.shape)} for word numbers of shape {tuple(numbers.shape)}; "
                             "pass the inputs of the rows that were read.")
        longest = max(self.longest, int(numbers.max()) + 1, 1)
        summed = values.new_zeros(len(values), longest + 1)  # the last for what is no word
        return summed.scatter_add(1, numbers.where(numbers >= 0, longest).long(), values)[:, :-1]

    def entry(self, inputs: Inputs, key: str) -> Tensor:
        """Return the tensor at a key, word numbers as a tensor too."""
        return self.numbers(inputs) if key == self.words else inputs[key]

    def to_positions(self, values: Tensor, inputs: Inputs) -> Tensor:
        """Return values (N, F) of words at their pieces (N, T)."""
        return values if self.words is None else values.gather(1, self.numbers(inputs).clamp(min=0).long())

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the inputs that change with words outside ``keep`` (N, F) replaced."""
        hide = self.is_word(inputs) & ~self.to_positions(keep, inputs)  # (N, T)
        if baseline == "data":
            return self.borrow(inputs, hide, donor)
        if baseline == "mask":
            mask_id: Any = self.mask_id
            return {self.input: self.value(inputs).masked_fill(hide, mask_id)}
        return self.delete(inputs, hide) if baseline == "delete" else self.pad(inputs, hide)

    def pad(self, inputs: Inputs, hide: Tensor) -> dict[str, Tensor]:
        """Fill with padding that is not attended, where the model takes an attention mask."""
        ids, filled = self.value(inputs), hide
        if self.pad_id in self.special:
            if self.attention is None:
                raise InputError(f"the padding of {self.name} ({self.pad_id}) is a special token too and would be read where "
                                 "it stands for a word; name the attention mask (attention=...), or use 'mask' or 'delete'.")
            filled = torch.zeros_like(hide)  # the words stay where they are and are not attended
        changed = {self.input: ids.masked_fill(filled, self.pad_id)}
        if self.attention is not None:
            changed[self.attention] = self._something(inputs[self.attention].masked_fill(hide, 0), "pad")
        return changed

    def delete(self, inputs: Inputs, hide: Tensor) -> dict[str, Tensor]:
        """Move the words that stay together, and fill with padding on its side."""
        self.require_no_count(inputs)
        travel, fill_left = self.moving(inputs), self._side_of(inputs) == "left"
        deleted = hide.sum(dim=1, keepdim=True)  # (N, 1)
        order = torch.argsort((~hide if fill_left else hide).to(torch.int8), dim=1, stable=True)
        place = torch.arange(hide.shape[1], device=hide.device)
        padding = place < deleted if fill_left else place >= hide.shape[1] - deleted
        pad_values: dict[str | None, Any] = {**self.at_padding, self.input: self.pad_id, self.words: -1}
        changed = {}
        for key in (self.input, *travel, self.attention):
            if key is not None:
                value = moved(self.entry(inputs, key), order)
                empty = torch.as_tensor(pad_values.get(key, 0), dtype=value.dtype, device=value.device)
                changed[key] = select(padding, value, empty.expand_as(value))
        if fill_left:  # a place is counted from the beginning of the text, which has moved
            for key in self.staying(inputs):
                changed[key] = moved(inputs[key], (place - deleted).clamp(min=0))
        if self.attention is not None:
            self._something(changed[self.attention], "delete")
        if self.lengths is not None:
            lengths = inputs[self.lengths]
            changed[self.lengths] = self._some_length(lengths - deleted[:, 0].to(lengths), "delete")
        return changed

    def _something(self, attended: Tensor, baseline: str) -> Tensor:
        if not (attended != 0).any(dim=1).all():
            raise InputError(f"the view hides every token of {self.name} by {baseline!r} and no special token stays, so "
                             "the model would attend to nothing (0/0); name the special ids (special=...) or use the "
                             "baseline 'mask' or 'data'.")
        return attended

    def _some_length(self, lengths: Tensor, baseline: str) -> Tensor:
        if int(lengths.min()) < 1:
            raise InputError(f"the view hides every token of {self.name} by {baseline!r}, so {self.lengths!r} would be "
                             f"{int(lengths.min())}; use the baseline 'mask' or 'data'.")
        return lengths

    def put_back(self, values: Tensor, features: Tensor, present: Tensor, baseline: str) -> Tensor:
        """Return values (..., T) of a view at the words that they belong to: words beside deleted ones have moved."""
        if baseline != "delete" or self.words is not None:  # the numbers of words have moved with them
            return values
        stay = ~features | present
        if self.side == "left":
            place = stay.shape[-1] - stay.flip(-1).cumsum(dim=-1).flip(-1)
        else:
            place = stay.cumsum(dim=-1) - 1
        return values.gather(-1, place.clamp(0, stay.shape[-1] - 1).expand_as(values))

    def alike(self, inputs: Inputs, donor: Inputs) -> Inputs:
        """Return the donor with its padding on the side of the examples'."""
        side, other = self.side or self._padded(inputs), self._padded(donor)
        if side not in SIDES or other not in SIDES or side == other:
            return donor
        real = self.real(donor)
        order = torch.argsort((real if side == "left" else ~real).to(torch.int8), dim=1, stable=True)
        moving = [key for key in self.keys(donor) if self.fits(donor.get(key), donor)]
        return {**donor, **{key: moved(donor[key], order) for key in moving}}

    def _side_of(self, inputs: Inputs) -> str:
        """Return the side on which ``"delete"`` fills."""
        side = self.side or self._padded(inputs)
        if side == BOTH:
            raise InputError(f"{self.name} is padded on both sides, or in between; pass padding_side='left' or 'right', "
                             "where 'delete' fills.")
        return side or "right"

    def _padded(self, inputs: Inputs) -> str | None:
        """Return the side of the padding, None where nothing is padded."""
        padded = ~self.real(inputs)
        left, right = bool(padded[:, 0].any()), bool(padded[:, -1].any())
        if left == right:
            return BOTH if padded.any() else None
        return "left" if left else "right"

    def require_no_count(self, inputs: Inputs) -> None:
        """Raise for an input that counts the tokens of every example, where nobody said so."""
        known, real = self.keys(inputs), self.real(inputs).sum(dim=1).cpu()
        for key, value in inputs.items():
            whole = isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool
            if whole and value.shape == real.shape and key not in known \
                    and any(torch.equal(value.cpu().long() + one, real) for one in (0, 1)):
                raise InputError(f"input {key!r} holds the number of tokens of every example, or the place of the last, and "
                                 f"would not follow hidden words; pass lengths={key!r} if it is their number, or use another "
                                 "baseline.")

    def _require_no_placeholders(self, inputs: Inputs) -> None:
        """Raise where ids that the model's configuration reserves for pictures or sounds count as words."""
        modules: Iterable[nn.Module] = [] if self.place is None or self.place.model is None else self.place.model.modules()
        configs = (getattr(module, "config", None) for module in modules)
        config: Any = next((config for config in configs if hasattr(config, "to_dict")), None)
        words = self.is_word(inputs)
        for key, token in ({} if config is None else config.to_dict()).items():
            if key.startswith(PLACEHOLDERS) and key.endswith(("token_id", "token_index")) and isinstance(token, int) \
                    and (words & (self.value(inputs) == token)).any():
                special = ", ".join(map(str, (*self.special, token)))
                raise InputError(f"{self.name} holds id {token}, which the model keeps for what is no word ({key}): if it "
                                 f"were replaced, another input would not find its place; pass special=({special},).")


def word_numbers(encoding: Any) -> Tensor:
    """Return which word each token is a piece of, as tokenizers number them, and -1 for special tokens and padding.

    Parameters
    ----------
    encoding : BatchEncoding, or list of lists of int or None
        What a fast tokenizer returns, or its ``word_ids`` for every text.

    Returns
    -------
    Tensor of int64, shape (N, T)
        The words of each text from 0.

    Examples
    --------
    >>> word_numbers([[None, 0, 0, 1, None], [None, 0, None, None, None]]).tolist()
    [[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1]]
    """
    if hasattr(encoding, "word_ids"):
        if not getattr(encoding, "is_fast", True):
            raise InputError("a slow tokenizer does not number words; load the fast one: AutoTokenizer.from_pretrained(..., "
                             "use_fast=True).")
        encoding = [encoding.word_ids(i) for i in range(len(encoding["input_ids"]))]
    if isinstance(encoding, Tensor):
        return encoding
    rows: list[Any] = [list(row) if isinstance(row, Sequence) or isinstance(row, Tensor) else None for row in encoding] \
        if isinstance(encoding, Sequence) and not isinstance(encoding, Mapping | str) else [None]
    if not rows or any(row is None for row in rows) or len({len(row) for row in rows}) != 1:
        raise InputError(f"got word numbers as {type(encoding).__name__}, expected a tokenizer's encoding or one list for "
                         "each text, all of one length: pass padding=True to the tokenizer.")
    numbers = [[-1 if number is None else number for number in row] for row in rows]
    require_whole(**{f"a word number of text {i}": number for i, row in enumerate(numbers) for number in row})
    return torch.tensor([[int(number) for number in row] for row in numbers])
