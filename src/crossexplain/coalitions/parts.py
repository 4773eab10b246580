"""Coalitions of a model that encodes its parts by themselves: every part twice, and then only what joins them.

Of a conversation of six turns in three modalities there are 2**18 coalitions of parts, and each part is either shown or
hidden. See :class:`~crossexplain.contract.EncodesParts` for what such a model offers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from crossexplain.contract import EncodesParts
from crossexplain.gradients.modality import Modality
from crossexplain.gradients.question import Question

JOINED, POOLED = 2048, 16384  # coalitions that are joined at once: as many as stay near the processor; sums are smaller
HIDDEN, SHOWN, ALL_HIDDEN = range(3)
CODED = 40  # columns of a mask that are written as one whole number, with room for the number of the example


class Parts:
    """The encodings of all parts of N examples, shown and hidden.

    Parameters
    ----------
    model : EncodesParts
    question : Question
        About this model; it says what stands in for hidden features.
    owner : mapping from modality to Tensor of int64, shape (N, F)
        The player of each feature, -1 for one that is never hidden.

    Attributes
    ----------
    encoded : dict of str to Tensor, shape (N * 3, T, D)
        By modality; of each example the parts hidden, shown, and hidden together with all others of the modality. A baseline
        that borrows all of another example need not give the same as one that borrows a part.
    owner : dict of str to Tensor of int64, shape (N, T)
        The player of each part, -1 for one that stays.
    rows : int
        That were encoded of each modality.
    """

    def __init__(self, model: EncodesParts, question: Question, owner: Mapping[str, Tensor]):
        self.model, self.question = model, question
        self.pooled = bool(getattr(model, "pooled", False))
        self.encoded, self.owner, self.real, self.rows = {}, {}, {}, 4 * question.n
        taken = {key for modality in question.modalities for key in modality.keys(question.inputs)}
        self.rest = [key for key in question.inputs if key not in taken]
        for modality in question.modalities:
            self._encode(modality, owner[modality.name])

    @classmethod
    def of(cls, model: object, question: Question, owner: Mapping[str, Tensor]) -> "Parts | None":
        """Return the parts of a model, or None where it has none, or a player holds less than a whole part."""
        if question.scored or not isinstance(model, EncodesParts):
            return None
        with torch.no_grad():
            parts = cls(model, question, owner)
        return parts if len(parts.owner) == len(question.modalities) else None

    def _encode(self, modality: Modality, owner: Tensor) -> None:
        """Keep a modality's encodings, unless its features do not divide among its parts or a part among players."""
        name, n = modality.name, self.question.n
        present = self.question.present[name].cpu()
        owner = owner.where(present, -1)
        # A part that is hidden while another stays is read from one of two views, which leave the first and the last player.
        last = owner.amax(dim=1, keepdim=True)
        first = owner.where(owner >= 0, last.clamp(min=0) + 1).amin(dim=1, keepdim=True)
        views = [torch.ones_like(present), owner < 0, (owner < 0) | (owner == first), (owner < 0) | (owner == last)]
        shown, nothing, with_first, with_last = (self._encoded(name, stay) for stay in views)
        count, features = shown.shape[1], present.shape[1]
        if count == 0 or features % count:
            return
        of_part, there = owner.reshape(n, count, -1), present.reshape(n, count, -1)
        player = of_part.amax(dim=2)
        if ((of_part != player[..., None]) & there).any():
            return
        hidden = with_first.where((player != first)[..., None].to(shown.device), with_last)
        self.encoded[name] = torch.stack([hidden, shown, nothing], dim=1).flatten(0, 1)
        self.owner[name], self.real[name] = player, there.any(dim=2)

    def _encoded(self, name: str, stay: Tensor) -> Tensor:
        """Return the encodings (N, T, D) of a modality with only some of its features left, (N, F)."""
        return torch.cat([self.model.encode(name, self.question.hidden({name: stay[examples]}, examples))
                          for examples in torch.arange(self.question.n).split(self.question.rows)])

    def logits(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the logits (R, ...) of coalitions, of which ``keep`` (R, P) holds the players that stay."""
        chosen = {name: self._chosen(name, keep, examples) for name in self.encoded}
        logits = []
        for rows in torch.arange(len(examples)).split(POOLED if self.pooled else JOINED):
            given = {name: vectors.index_select(0, place[rows].to(vectors.device)) for name, (vectors, place) in chosen.items()}
            rest = self.question.examples(examples[rows], self.rest)
            logits.append(self.model.join_pooled(given, rest) if self.pooled else self.model.join(given, rest))
        return torch.cat(logits)

    def _chosen(self, name: str, keep: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the different encodings of a modality, (U, T, D), or sums (U, D), and which of them each row has, (R,)."""
        owner = self.owner[name][examples]  # (R, T)
        stay = (owner < 0) | keep.gather(1, owner.clamp(min=0))
        some = (stay & self.real[name][examples]).any(dim=1, keepdim=True)
        state = torch.where(some, stay.long(), ALL_HIDDEN)
        back, place = distinct(examples, stay)
        rows = examples[place, None] * 3 + state[place]  # (U, T)
        vectors = self.encoded[name]
        vectors = vectors[rows.to(vectors.device), torch.arange(rows.shape[1], device=vectors.device)]
        return vectors.sum(dim=1) if self.pooled else vectors, back


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
