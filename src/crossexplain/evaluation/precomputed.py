"""Towers that have encoded everything once: the rounds then run on row numbers, which takes a fraction of the time.

Most views of a pair share their picture or their caption with others, and a modality that is hidden as a whole is another
picture or another caption. A few thousand pairs have far fewer pictures, captions and stand-ins than views.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, Tokens
from crossexplain.gradients.sharing import equal_rows_once
from crossexplain.gradients.views import Mask, Views


class RowNumbers(Modality):
    """A modality that comes as a row number of a table, and is hidden as a whole: by the number of another row.

    Parameters
    ----------
    name, input, layer : str
        Word for it, the model's keyword, and its tower.
    stand_ins : mapping of str to Tensor, shape (R,), int64
        For each baseline, the row that stands in for each row.
    """

    def __init__(self, name: str, input: str, layer: str, stand_ins: Mapping[str, Tensor]):
        self.name, self.input, self.layer, self.stand_ins = name, input, layer, dict(stand_ins)
        self.baselines = (*stand_ins, "data")

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, 1): the modality is one feature."""
        return torch.ones(len(self.value(inputs)), 1, dtype=torch.bool)

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return other row numbers where the modality is hidden."""
        rows = self.value(inputs)
        other = self.value(donor) if baseline == "data" and donor is not None else self.stand_ins[baseline][rows]
        return {self.input: torch.where(keep[:, 0], rows, other)}

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over all that the tower gives: (N, 1)."""
        return values.flatten(1).sum(dim=1, keepdim=True)


class CachedTower(nn.Module):
    """A tower that looks up what another tower returned before: row numbers in, rows out.

    Parameters
    ----------
    rows : Tensor, shape (R, ...)
        Kept as it is, in half precision for example, and handed out as float32.
    real : Tensor of bool, shape (R, T), optional
        Of a text tower: which tokens are attended to.
    """

    def __init__(self, rows: Tensor, real: Tensor | None = None):
        super().__init__()
        self.rows, self.real = rows, real
        self.eval()  # it has nothing to train, and a model with a part in train mode is refused

    def forward(self, numbers: Tensor, attention_mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the rows of these numbers."""
        rows = self.rows[numbers].float()
        return rows if self.real is None else (rows, self.real[numbers])


@dataclass(frozen=True)
class Precomputed:
    """A model whose towers have encoded everything.

    Attributes
    ----------
    model : torch.nn.Module
        As it was, but called with row numbers: ``model(images=(N,), tokens=(N,))``.
    modalities : list of RowNumbers
        For :func:`~crossexplain.gradients.rounds.rounds`: the gradient is read at what the towers give, the last map and
        the states of the tokens.
    """

    model: nn.Module
    modalities: list[RowNumbers]

    def of(self, model: nn.Module) -> "Precomputed":
        """Return the same for another model on the same towers, which need not encode again."""
        towers = {id(model.image): self.model.image, id(model.text): self.model.text}
        return Precomputed(copy.deepcopy(model, towers), self.modalities)


@torch.no_grad()
def precompute(model: Any, images: Callable[[np.ndarray], Tensor], count: int, texts: Inputs, image: ImageCells,
               text: Tokens, baselines: Mapping[str, Sequence[str]], batch: int = 32) -> Precomputed:
    """Let both towers encode all pictures and captions, and what stands in for them, once.

    Parameters
    ----------
    model : Fusion or ClipCNN
        Or any model with towers ``image`` and ``text`` as in :mod:`crossexplain.models.towers`; in eval mode.
    images : callable
        Returns pictures (n, 3, H, W) by their numbers.
    count : int
        Of pictures, P.
    texts : mapping of str to Tensor
        Inputs of the text tower for all S captions, (S, T).
    image, text : ImageCells and Tokens
        How each is hidden.
    baselines : mapping
        ``{"image": (...), "text": (...)}``: what is prepared; ``"data"`` needs no preparation.
    batch : int
        Pictures at a time.

    Returns
    -------
    Precomputed
        Row p < P is picture p, row s < S is caption s; the stand-ins follow.
    """
    maps, kinds = [], ["full", *baselines["image"]]
    plan = {kind: {} if kind == "full" else {image.name: Mask(None, kind)} for kind in kinds}
    for numbers in np.split(np.arange(count), np.arange(batch, count, batch)):
        laid_out = Views({image.input: images(numbers)}, [image], plan, allow_empty=True)
        with equal_rows_once(model, ["image"]):
            seen = model.image(laid_out.inputs[image.input])
        maps.append(seen.half().unflatten(0, (len(kinds), -1)))
    seen, places = torch.cat(maps, dim=1).flatten(0, 1), torch.arange(count)
    pictures = RowNumbers(image.name, "images", "image", {kind: places + (i + 1) * count for i, kind in enumerate(kinds[1:])})

    kinds = ["full", *baselines["text"]]
    plan = {kind: {} if kind == "full" else {text.name: Mask(None, kind)} for kind in kinds}
    written = Views(texts, [text], plan, allow_empty=True).inputs
    # Captions of the same length are equal once all their words are hidden.
    distinct, back = torch.unique(torch.stack([written[key] for key in texts], dim=1), dim=0, return_inverse=True)
    encoded = [model.text(*rows.unbind(1)) for rows in distinct.split(8 * batch)]
    own, *others = back.chunk(len(kinds))
    order = torch.cat([own, torch.arange(len(distinct))])  # the captions first, in their order
    states, real = (torch.cat(parts)[order] for parts in zip(*((states.half(), real) for states, real in encoded)))
    captions = RowNumbers(text.name, "tokens", "text", {kind: rows + len(own) for kind, rows in zip(kinds[1:], others)})
    towers = {id(model.image): CachedTower(seen).eval(), id(model.text): CachedTower(states, real).eval()}
    return Precomputed(copy.deepcopy(model, towers), [pictures, captions])
