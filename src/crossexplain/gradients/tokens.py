"""Importance of tokens: from one forward and one backward pass, a number a token, by several readings of the gradient."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_methods, require_one_of
from crossexplain.gradients.attention import METHODS as ATTENTION_METHODS
from crossexplain.gradients.attention import RELEVANCE, attention_maps, roll, watched
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.capture import Target, capture
from crossexplain.gradients.layouts import Place, at_positions, positions_of
from crossexplain.gradients.modalities import examples_in, in_parts, word_numbers
from crossexplain.gradients.modality import listed
from crossexplain.gradients.reading import as_row, one_of, require_each

SPECIAL = ("drop", "keep", "show")


@dataclass(frozen=True)
class Method:
    """One way to turn what was captured into a number a token.

    Attributes
    ----------
    read : callable or None
        Takes activation and gradient, each (N, T, D), and gives (N, T); None for the one that reads attention maps.
    signed : bool
        Can a token speak against the target?
    formula : str
        In words, with its source.
    """

    read: Callable[[Tensor, Tensor], Tensor] | None
    signed: bool
    formula: str


METHODS: dict[str, Method] = {
    "raw": Method(lambda a, g: g.sum(dim=-1), True, "sum of the gradient's entries (Nguyen 2018)"),
    "mean": Method(lambda a, g: g.mean(dim=-1), True, "mean of the gradient's entries: raw, divided by their number"),
    "l1": Method(lambda a, g: g.abs().sum(dim=-1), False, "sum of the gradient's absolute entries (Li et al. 2016)"),
    "l2": Method(lambda a, g: g.norm(dim=-1), False, "length of the gradient (Arras et al. 2016)"),
    "gradient x input": Method(
        lambda a, g: (a * g).sum(dim=-1), True, "sum of activation times gradient (Denil et al. 2014)"
    ),
    "activation x gradient": Method(
        lambda a, g: (a * g).norm(dim=-1), False, "length of activation times gradient (the paper, section 5.1)"
    ),
    RELEVANCE: Method(None, False, "attention maps times their gradients, rolled out (Chefer et al. 2021)"),
}
# Names of the last version, which still work in this one, with a warning.
RENAMED = {"gradient-x-input": "gradient x input", "activation-x-gradient": "activation x gradient"}


def attribute(model: nn.Module, inputs: Mapping[str, Tensor], layer: str, method: str | Sequence[str] = "l2",
              target: Target = None, *, special: str = "drop", special_tokens: Tensor | None = None, scale: bool = False,
              attention: Sequence[str] = (), batch_size: int = 64, words: object = None, positions: object = None,
              layout: str | None = None, common: Collection[str] = ()) -> Tensor | dict[str, Tensor]:
    """Score every token of every sentence, all methods from one forward and one backward pass of it.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    inputs : mapping of str to Tensor, shape (N, T)
        What the model is called with. Other entries (positions, of shape (1, T) or (T,)) are handed on as they are; a list with
        one entry a sentence is cut as a tensor is.
    layer : str
        Where each token has a vector of its own, (N, T, D): the embeddings, or a block. At the last block of a model that
        reads its first token alone, every other token's gradient is zero whatever the sentence says.
    method : str or sequence of str
        Names of :data:`METHODS`, or ``"attention-rollout"``.
    target : as for :func:`~crossexplain.gradients.capture.capture`
        Default: the predicted class.
    special : {"drop", "keep", "show"}
        What becomes of the special tokens, which are no part of the sentence. ``"drop"``, the default, gives them no score
        (NaN), since a reader asks which *words* count and [CLS] or [SEP] on top answers another question. ``"keep"`` lets
        them compete with the words. ``"show"`` scores them beside the words but measures on the words' scale: with
        ``scale=True`` a special token above 1 outweighs every word.
    special_tokens : Tensor of bool, shape (N, T)
        The special tokens, padding included; not needed for ``special="keep"``.
    scale : bool
        Divide the scores of a sentence by the largest absolute one among the tokens that compete.
    attention : sequence of str
        For attention relevance and rollout: the self-attention modules, from the first to the last, whose second output is the
        map; ``"name#2"`` where it is another one. Relevance takes modules of cross-attention too, whose columns are words.
    batch_size : int
        Sentences at a time, which bounds the memory: what the backward pass needs is kept for no more than these.
    words : Tensor of int64, shape (N, T), or what :func:`~crossexplain.gradients.modalities.word_numbers` takes, optional
        Number of the word that each token is a piece of: the scores of its pieces are added up.
    positions : slice, range or sequence of int, optional
        Which positions of the layer are the tokens, where others stand in the same row (patches, a prompt).
    layout : {"NTD", "TND", "NDT"}, optional
        Which axis of the layer is which. Default: what its kind and the sizes say.
    common : collection of str
        Keys of inputs that belong to all sentences, whatever their length.

    Returns
    -------
    Tensor, shape (N, T), or dict of them by method
        NaN where a token has no score. With ``words`` (N, W), as :func:`merge_words` gives it.

    Raises
    ------
    InputError
        For an unknown method or policy, a layer that does not give (N, T, D), special tokens that are missing or of another
        shape, attention modules that are missing, and what :func:`~crossexplain.gradients.capture.capture` refuses.

    Examples
    --------
    >>> model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    >>> attribute(model, {"input": torch.tensor([[1, 4]])}, "0", ["l1", "l2"], special="keep")["l2"].shape
    torch.Size([1, 2])
    """
    if not isinstance(inputs, Mapping):
        raise InputError(f"got inputs as {type(inputs).__name__}, expected a mapping from the model's keywords to "
                         "tensors, as in {'input_ids': ids, 'attention_mask': mask}.")
    require_one_of(special, SPECIAL, "special")
    reads = _reads([method] if isinstance(method, str) else method)
    maps = attention_maps(attention) if any(name in ATTENTION_METHODS for name in reads) else []
    common = {*listed(common), *calling_of(model).common}
    n = len(special_tokens) if special_tokens is not None and special_tokens.ndim else examples_in(inputs, common)
    place = Place.of(layer, model, one_of(inputs, n, common))
    parts: list[dict[str, Tensor]] = []
    places = positions_of(positions, "the tokens")
    for batch, of_batch in in_parts(inputs, batch_size, n, target, common):
        # The sentences come first: by the first tensor the model's batch is counted.
        batch = dict(sorted(batch.items(), key=lambda item: item[1] is inputs[item[0]]))
        with watched(model, maps, attention) as crossed:
            captured = capture(model, batch, [layer, *maps], of_batch)
        rows = len(captured.score)
        if not parts and n > 1:
            require_each(model, inputs, captured, partial(as_row, place=place, layout=layout, positions=places), layer, n,
                         common, target if callable(target) else None)
        activation, slope = (as_row(values[layer], rows, batch, place, layout, places)
                             for values in (captured.activations, captured.gradients))
        part = {name: read(activation, slope) for name, read in reads.items() if read is not None}
        length = captured.activations[layer].shape[0 if layout == "TND" else 1]
        for name in reads.keys() - part.keys():
            rolled = roll(captured, maps, name, bool(crossed))
            part[name] = rolled if places is None or rolled.shape[1] != length else \
                at_positions(rolled, places, place, "the tokens")
        parts.append(part)
    scores = {name: torch.cat([part[name] for part in parts]) for name in reads}
    first, *_ = scores.values()
    dropped = _special_tokens(special, special_tokens, first.shape).to(first.device)
    if words is not None:
        words = word_numbers(words)
        scores = {name: merge_words(values, words.masked_fill(dropped, -1) if special == "drop" else words)
                  for name, values in scores.items()}
        return scores[method] if isinstance(method, str) else scores
    scores = {name: _policy(values, dropped, special, scale) for name, values in scores.items()}
    return scores[method] if isinstance(method, str) else scores


def top_window(scores: Tensor, n: int = 4) -> Tensor:
    """Find the n neighbouring tokens with the largest sum of scores: the paper's most important context, with n = 4.

    Parameters
    ----------
    scores : Tensor, shape (N, T)
        Windows that hold a token without a score (NaN) do not count, so none reaches over a dropped token.
    n : int
        Number of tokens; a sentence with fewer scored tokens in a row gets all of its longest row.

    Returns
    -------
    Tensor of int64, shape (N, 2)
        First token of the window and the one after its last. The earliest of equal windows.

    Raises
    ------
    InputError
        If ``n`` is not positive, the scores are not (N, T), or a sentence has no scored token.

    Examples
    --------
    >>> top_window(torch.tensor([[float("nan"), 1.0, 5.0, 2.0, 4.0, float("nan")]]), n=2).tolist()
    [[2, 4]]
    """
    if n < 1 or scores.ndim != 2:
        raise InputError(f"got n = {n} and scores of shape {tuple(scores.shape)}, expected n >= 1 and scores (N, T).")
    windows = []
    for i, row in enumerate(scores):
        for size in range(min(n, len(row)), 0, -1):
            sums = row.unfold(0, size, 1).sum(dim=-1)  # NaN wherever a token has no score
            if not sums.isnan().all():
                start = int(sums.nan_to_num(nan=float("-inf")).argmax())
                windows.append((start, start + size))
                break
        else:
            raise InputError(f"sentence {i} has no token with a score; it holds special tokens only.")
    return torch.tensor(windows)


def merge_words(scores: Tensor, words: object, how: str = "sum") -> Tensor:
    """Merge the scores of word pieces into scores of words.

    Parameters
    ----------
    scores : Tensor, shape (N, T)
    words : Tensor of int64, shape (N, T), or what :func:`~crossexplain.gradients.modalities.word_numbers` takes
        Number of the word that each token is a piece of, from 0; negative, or None in lists, for special tokens, which are
        left out.
    how : {"sum", "max", "mean"}
        The sum keeps what a sentence's scores add up to, and favours long words; the largest piece (by absolute value,
        with its sign) does not.

    Returns
    -------
    Tensor, shape (N, W)
        W is the largest number of words; NaN after the last word of a shorter sentence.

    Raises
    ------
    InputError
        If the shapes differ or ``how`` is unknown.

    Examples
    --------
    >>> merge_words(torch.tensor([[9.0, 1.0, 2.0, 3.0]]), torch.tensor([[-1, 0, 0, 1]])).tolist()
    [[3.0, 3.0]]
    """
    words = word_numbers(words)
    if scores.shape != words.shape or scores.ndim != 2:
        raise InputError(f"scores {tuple(scores.shape)} and words {tuple(words.shape)} must have one shape (N, T).")
    require_one_of(how, ("sum", "max", "mean"), "how")
    merged = scores.new_full((len(scores), max(int(words.max()) + 1, 1)), float("nan"))
    for row, values, numbers in zip(merged, scores, words):
        for word in numbers[numbers >= 0].unique():
            pieces = values[numbers == word]
            row[word] = pieces[pieces.abs().argmax()] if how == "max" else getattr(pieces, how)()
    return merged


def _reads(names: Sequence[str]) -> dict[str, Callable[[Tensor, Tensor], Tensor] | None]:
    """Return how each method reads a gradient, None for those that read attention maps."""
    for name in names:
        if name in RENAMED:
            warnings.warn(f"the method {name!r} is called {RENAMED[name]!r} now; the old name goes with the next version.",
                          DeprecationWarning, stacklevel=3)
    keys = require_methods([RENAMED.get(name, name) for name in names], [*METHODS, *ATTENTION_METHODS])
    return {name: None if key in ATTENTION_METHODS else METHODS[key].read for name, key in zip(names, keys)}


def _special_tokens(special: str, given: Tensor | None, shape: torch.Size) -> Tensor:
    if given is None and special == "keep":
        return torch.zeros(shape, dtype=torch.bool)
    if given is None:
        raise InputError(f"special={special!r} needs to know the special tokens; pass special_tokens (N, T) "
                         "(return_special_tokens_mask=True of the tokenizer), or special='keep'.")
    if given.shape != shape:
        raise InputError(f"special_tokens has shape {tuple(given.shape)}, the sentences have {tuple(shape)} tokens; encode "
                         "both in one call.")
    return given.bool()


def _policy(scores: Tensor, special_tokens: Tensor, special: str, scale: bool) -> Tensor:
    dropped = scores.masked_fill(special_tokens, float("nan"))
    if scale:
        competing = scores if special == "keep" else dropped
        largest = competing.abs().nan_to_num(nan=0.0).amax(dim=1, keepdim=True)
        scores, dropped = (values / largest.where(largest > 0, 1.0) for values in (scores, dropped))
    return dropped if special == "drop" else scores
