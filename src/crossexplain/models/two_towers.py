"""What all models with two towers share: they see a picture, read a text, and match what they saw with what they read.

:class:`TwoTowerModel` has everything that follows from the contract :class:`crossexplain.contract.TwoTowers`;
:class:`JoinedTowers` is made of an image tower and a text tower of :mod:`crossexplain.models.towers` that can be exchanged.
"""

import copy
from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from crossexplain.checks import require_one_of, require_pairs
from crossexplain.contract import TwoTowers
from crossexplain.models.towers import POOLINGS, Tower, pool

Joined = TypeVar("Joined", bound="JoinedTowers")
PAIRS_AT_ONCE = 1024  # pairs that are matched at once; larger batches are not faster on a CPU


class TwoTowerModel(nn.Module, TwoTowers):
    """A model that gives one logit for each pair of a picture and a text, above 0 where they match.

    Subclasses define ``see``, ``read`` and ``match``, and name their ``image_layer`` and ``text_layer``, where
    gradients are read. In eval mode the examples of a batch do not touch each other.

    Attributes
    ----------
    towers : tuple of str
        Sub-modules that stay in eval mode while they are frozen, so that their batch statistics stay as they are.
    parts : int
        Into which the two vectors are cut, of equal lengths, to be trained by contrast each by itself.
    """

    towers: tuple[str, ...] = ()
    parts: int = 1
    image_layer: str
    text_layer: str
    read: Callable[..., Tensor]  # of tokens, and of an attention mask where there may be one
    def logits_of_all_pairs(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N, M) of every picture (N, ...) with every text (M, ...), both encoded before."""
        n, m = len(seen), len(read)
        pairs = seen[:, None].expand(n, m, *seen.shape[1:]), read.expand(n, *read.shape)
        logits: Tensor = self.match(*(part.flatten(0, 1) for part in pairs)).unflatten(0, (n, m))
        return logits

    def similarity(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits (N, M) of every picture with every text."""
        return self.logits_of_all_pairs(*self._encoded(images, tokens, attention_mask))

    def forward(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits (N,) that each text describes its picture."""
        seen, read = self._encoded(images, tokens, attention_mask)
        require_pairs(seen, read)
        return self.match(seen, read)

    def _encoded(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.see(images), self.read(tokens) if attention_mask is None else self.read(tokens, attention_mask)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; a frozen tower stays in eval mode."""
        super().train(mode)
        for tower in (getattr(self, name) for name in self.towers):
            if mode and not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self


class JoinedTowers(TwoTowerModel):
    """A model between an image tower and a text tower; subclasses say how the two vectors are matched.

    Parameters
    ----------
    image, text : torch.nn.Module
        Towers. One that is frozen stays frozen and in eval mode.
    pooling : {"max", "mean", "first", "last"} or torch.nn.Module
        How the states of a text become one vector; see :func:`crossexplain.models.towers.pool`. A module is called with the
        states and which of them are real, as :class:`crossexplain.models.towers.WordPooling`.
    look : torch.nn.Module
        Makes one vector of a map.

    Attributes
    ----------
    image_layer, text_layer : str
        The last map (N, C, h, w) and the embeddings (N, T, D). Every place and every token reaches the logit from there.
    """

    towers = ("image", "text")

    def __init__(self, image: Tower, text: Tower, pooling: str | nn.Module, look: nn.Module):
        super().__init__()
        if not isinstance(pooling, nn.Module):
            require_one_of(pooling, POOLINGS, "pooling")
        self.image, self.text, self.look, self.pooling = image, text, look, pooling
        self.image_layer, self.text_layer = f"image.{image.layer}", f"text.{text.layer}"

    def image_map(self, images: Tensor) -> Tensor:
        """Return the map (N, C, h, w) of the image tower."""
        maps: Tensor = self.image(images)
        return maps

    def pool_map(self, maps: Tensor) -> Tensor:
        """Return one vector (N, width) of each map."""
        vectors: Tensor = self.look(maps)
        return vectors

    def see(self, images: Tensor) -> Tensor:
        """Return one vector a picture, (N, width)."""
        return self.pool_map(self.image_map(images))

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, (N, D): the pooled states of the text tower."""
        states, real = self.text(tokens, attention_mask)
        if not isinstance(self.pooling, nn.Module):
            return pool(states, real, self.pooling)
        vectors: Tensor = self.pooling(states, real)
        return vectors


def with_towers(model: Joined, image: Tower, text: Tower) -> Joined:
    """Return a model with the same weights between other towers.

    Parameters
    ----------
    model : JoinedTowers
        Stays as it is; what comes after the towers is shared with it.
    image, text : torch.nn.Module
        Towers of the same widths as those of the model.

    Returns
    -------
    JoinedTowers
        In the mode of the model.
    """
    for name, old, new in (("image", model.image, image), ("text", model.text, text)):
        if old.width != new.width:
            raise ValueError(f"the {name} tower gives vectors of {new.width} numbers, the model was made for {old.width}.")
    other = copy.copy(model)
    other._modules = dict(model._modules, image=image, text=text)  # copy.copy would share the table of the parts
    other.image_layer, other.text_layer = f"image.{image.layer}", f"text.{text.layer}"
    return other.train(model.training)


def in_batches(function: Callable[..., Tensor], values: Any, size: int) -> Tensor:
    """Return ``function`` of all values, computed so many at a time without gradients.

    Examples
    --------
    >>> in_batches(lambda numbers: torch.tensor(numbers) ** 2, [1, 2, 3], 2)
    tensor([1, 4, 9])
    """
    with torch.no_grad():
        return torch.cat([function(values[start : start + size]) for start in range(0, len(values), size)])


@torch.no_grad()
def logits_of_pairs(model: TwoTowers, image: ArrayLike, text: ArrayLike, see: Callable[[np.ndarray], Tensor],
                    read: Callable[[np.ndarray], Tensor]) -> Tensor:
    """Return the logits (N,) of pairs, on the CPU; each distinct picture is seen once and each distinct text read once.

    Parameters
    ----------
    model : crossexplain.contract.TwoTowers
    image, text : array_like, shape (N,)
        Numbers or strings that identify the picture and the text of each pair.
    see, read : callable
        Return the encodings of distinct pictures, and of distinct texts, in the order in which they are asked for.
    """
    images, image_of = np.unique(np.asarray(image), return_inverse=True)
    texts, text_of = np.unique(np.asarray(text), return_inverse=True)
    seen, words = see(images), read(texts)
    parts = zip(*(torch.from_numpy(which.reshape(-1)).split(PAIRS_AT_ONCE) for which in (image_of, text_of)))
    return torch.cat([model.match(seen[i], words[j]) for i, j in parts]).cpu()
