"""Coalitions of a model that encodes its parts by themselves: every part a few times, and then only what joins them.

Of a conversation of six turns in three modalities there are 2**18 coalitions of parts, and each part is either shown or
hidden. Where players are smaller than a part, the chunks of a turn, it is encoded once for each set of its own players. See
:class:`~crossexplain.contract.EncodesParts` for what such a model offers.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.contract import EncodesParts
from crossexplain.gradients.modality import Modality
from crossexplain.gradients.question import Question

JOINED, POOLED = 2048, 16384  # coalitions that are joined at once: as many as stay near the processor; sums are smaller
WITHIN = 6  # players of one part at most: 64 encodings of it
CODED = 40  # columns of a mask that are written as one whole number, with room for the number of the example


class _Encoded:
    """The encodings of the parts of one modality, of N examples.

    Attributes
    ----------
    vectors : Tensor, shape (N * V, T, D)
        Of each example in V views. In view s, from 1, each part holds those of its players for which ``s >> k & 1``; in view 0
        it is hidden while another part stays, and in the last view together with all others of the modality: a baseline that
        borrows all of another example need not give the same as one that borrows a part.
    players : Tensor of int64, shape (N, T, K)
        The players of each part, -1 for none.
    stays : Tensor of bool, shape (N, 1)
        Whether the modality has a feature that is never hidden.
    """

    def __init__(self, model: EncodesParts, question: Question, modality: Modality, owner: Tensor):
        self.model, self.question, self.name = model, question, modality.name
        present = question.present[modality.name].cpu()
        owner = owner.where(present, -1)
        shown = self._view(torch.ones_like(present))
        count = shown.shape[1]
        self.fits = shown.ndim == 3 and count > 0 and present.shape[1] % count == 0
        if not self.fits:
            return
        owner = owner.unflatten(1, (count, -1))  # (N, T, features of a part)
        listed = owner.sort(dim=2, descending=True).values
        listed[:, :, 1:] = listed[:, :, 1:].where(listed[:, :, 1:] != listed[:, :, :-1], -1)
        self.players = listed.sort(dim=2, descending=True).values
        many = (self.players >= 0).sum(dim=2)  # (N, T)
        self.players = self.players[:, :, :max(1, int(many.max()))]
        self.stays = ((owner < 0) & present.unflatten(1, (count, -1))).any(dim=2).any(dim=1, keepdim=True)
        self.fits = self.players.shape[2] <= WITHIN
        if self.fits:
            self._encode(owner, many, shown)

    def _encode(self, owner: Tensor, many: Tensor, shown: Tensor) -> None:
        bit = (owner[..., None] == self.players[:, :, None]).long().argmax(dim=3)  # (N, T, features of a part)
        fixed, has = owner < 0, many > 0
        # A part that is hidden while another stays is read from one of two views, which show the first and the last part,
        # unless some features stay anyway.
        first, last = has & (has.cumsum(dim=1) == 1), has & (has.flip(1).cumsum(dim=1).flip(1) == 1)
        views = [(fixed | part[..., None]).flatten(1) for part in (first, last, torch.zeros_like(has))]
        views += [(fixed | (torch.minimum(torch.tensor(s), (1 << many) - 1)[..., None] >> bit & 1).bool()).flatten(1)
                  for s in range(1, (1 << self.players.shape[2]) - 1)]
        with_first, with_last, nothing, *some = map(self._view, views)
        first, stays = first[..., None].to(shown.device), self.stays[..., None].to(shown.device)
        hidden = nothing.where(stays, with_last.where(first, with_first))
        self.vectors = torch.stack([hidden, *some, shown, nothing], dim=1)
        self.rows, self.views = len(owner) * (1 + len(views)), self.vectors.shape[1]
        self.vectors = self.vectors.flatten(0, 1)

    def _view(self, stay: Tensor) -> Tensor:
        """Return the encodings (N, T, D) of the modality with only some of its features left, (N, F)."""
        with _told(f"encode({self.name!r}, inputs)"):
            return torch.cat([self.model.encode(self.name, self.question.hidden({self.name: stay[examples]}, examples))
                              for examples in torch.arange(self.question.n).split(self.question.rows)])

    def chosen(self, keep: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the different encodings (U, T, D) that coalitions (R, P) ask for, and which of them each takes, (R,)."""
        back, place = distinct(examples, keep[:, torch.unique(self.players[self.players >= 0])])
        keep, examples = keep[place], examples[place]
        players = self.players[examples]  # (U, T, K)
        left = keep.gather(1, players.clamp(min=0).flatten(1)).reshape(players.shape) & (players >= 0)
        view = (left.long() << torch.arange(players.shape[2])).sum(dim=2)
        none = ~(left.any(dim=2).any(dim=1, keepdim=True) | self.stays[examples])
        view = view.where(players[:, :, 0] >= 0, self.views - 2).where(~none, self.views - 1)
        rows = (examples[:, None] * self.views + view).to(self.vectors.device)
        return self.vectors[rows, torch.arange(rows.shape[1], device=rows.device)], back


class Parts:
    """The encodings of all parts of N examples.

    Parameters
    ----------
    model : EncodesParts
    question : Question
        About this model; it says what stands in for hidden features.
    owner : mapping from modality to Tensor of int64, shape (N, F)
        The player of each feature, -1 for one that is never hidden.

    Attributes
    ----------
    rows : dict of str to int
        That were encoded, by modality.
    """

    def __init__(self, model: EncodesParts, question: Question, owner: Mapping[str, Tensor]):
        self.model: Any = model  # may have join_pooled too
        self.question = question
        self.pooled = bool(getattr(model, "pooled", False))
        taken = {key for modality in question.modalities for key in modality.keys(question.inputs)}
        self.rest = [key for key in question.inputs if key not in taken]
        self.encoded = {modality.name: _Encoded(model, question, modality, owner[modality.name])
                        for modality in question.modalities}

    @classmethod
    def of(cls, model: object, question: Question, owner: Mapping[str, Tensor]) -> "Parts | None":
        """Return the parts of a model, or None where it has none, or more than ``WITHIN`` players share one of them."""
        if question.scored or not isinstance(model, EncodesParts) or not _called_as_parts(model):
            return None
        with torch.no_grad():
            parts = cls(model, question, owner)
        return parts if all(part.fits for part in parts.encoded.values()) else None

    @property
    def rows(self) -> dict[str, int]:
        """See the class."""
        return {name: part.rows for name, part in self.encoded.items()}

    def logits(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the logits (R, ...) of coalitions, of which ``keep`` (R, P) holds the players that stay."""
        size = POOLED if self.pooled else JOINED
        return torch.cat([self._joined(*rows) for rows in zip(keep.split(size), examples.split(size))])

    def _joined(self, keep: Tensor, examples: Tensor) -> Tensor:
        given = {}
        for name, part in self.encoded.items():
            vectors, place = part.chosen(keep, examples)
            vectors = vectors.sum(dim=1) if self.pooled else vectors
            given[name] = vectors.index_select(0, place.to(vectors.device))
        rest = self.question.examples(examples, self.rest)
        with _told("join_pooled(sums, inputs)" if self.pooled else "join(parts, inputs)"):
            logits: Tensor = self.model.join_pooled(given, rest) if self.pooled else self.model.join(given, rest)
            return logits


def _called_as_parts(model: EncodesParts) -> bool:
    """Return whether ``encode`` and ``join`` can be called as those of the contract; other models have such names too."""
    for method, arguments in ((model.encode, ("", {})), (model.join, ({}, {}))):
        if isinstance(method, nn.Module):
            return False
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError:
            return False
    return True


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raise an InputError that names the method where a method of the contract does not run."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} of the model does not run ({type(error).__name__}: {error}); expected what "
                         "crossexplain.contract.EncodesParts describes: mend it, or pass split=False to ask the whole "
                         "model.") from error


def distinct(examples: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Tell apart the U different rows of examples (R,) and masks (R, P).

    Returns
    -------
    back : Tensor of int64, shape (R,)
        Which of them each row is.
    place : Tensor of int64, shape (U,)
        A row that is the first, second, ... of them.
    """
    codes = torch.unique(keep, dim=0, return_inverse=True)[1] if keep.shape[1] > CODED else \
        (keep.long() << torch.arange(keep.shape[1])).sum(dim=1)
    found, back = torch.unique(codes * (int(examples.max()) + 1) + examples, return_inverse=True)
    place = torch.empty(len(found), dtype=torch.long).scatter_(0, back, torch.arange(len(examples)))
    return back, place
