"""Early fusion of a picture and a text (VGG-BERT in section 4.2 of the paper): two towers, layer norm, concatenation, dense."""

import math

import torch
from torch import Tensor, nn

from crossexplain.models.clip import SCALE, DualEncoder
from crossexplain.models.towers import MapPooling, Tower, dense, threshold
from crossexplain.models.two_towers import JoinedTowers


class Fusion(JoinedTowers):
    """Does the text describe the picture? The two vectors are concatenated, and dense layers give one logit.

    Both vectors are layer-normalised first: otherwise the dense layers would begin with little but the one that has the larger
    numbers.

    Parameters
    ----------
    image, text, pooling
        As for :class:`crossexplain.models.two_towers.JoinedTowers`.
    width : int
        Of each vector, and of the dense layers.
    dropout : float
        Before the dense layers.
    look : torch.nn.Module, optional
        Makes one vector (N, width) of a map; default, :class:`crossexplain.models.towers.MapPooling`.
    hidden : int
        Units between the vector of the text and the layer norm before the two vectors meet, for a frozen text tower; 0 has
        none.
    hidden_dropout : float
        Before and after those units.
    """

    def __init__(self, image: Tower, text: Tower, pooling: str | nn.Module = "mean", width: int = 256,
                 dropout: float = 0.1, look: nn.Module | None = None, hidden: int = 0, hidden_dropout: float = 0.0):
        super().__init__(image, text, pooling, MapPooling(image.width, width) if look is None else look)
        self.seen = nn.LayerNorm(width)
        between = dense(text.width, hidden, width, hidden_dropout) if hidden else [nn.Linear(text.width, width)]
        self.said = nn.Sequential(nn.LayerNorm(text.width), *between, nn.LayerNorm(width))
        self.dense = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * width, 2 * width), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1),
        )

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N,) of vectors of pictures (N, width) and of texts (N, D)."""
        logits: Tensor = self.dense(torch.cat([self.seen(seen), self.said(read)], dim=-1))[..., 0]
        return logits

    @property
    def _linear(self) -> list[nn.Linear]:
        return [layer for layer in self.dense if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def begin_with_difference(self, against: bool = False) -> None:
        """Let the first dense layer begin by reading the difference of the two vectors, once they are aligned.

        The weights of the text become those of the picture with the other sign: each unit begins with one direction in which
        the two may differ, so that comparing them need not be learned first.

        Parameters
        ----------
        against : bool
            Let units come in pairs of opposite directions, at right angles to those of other pairs, and the later layers add
            up: the logit begins by falling with the distance between the two vectors.
        """
        first, *others = self._linear
        half = first.in_features // 2
        if against:
            directions = nn.init.orthogonal_(first.weight.new_empty(first.out_features // 2, half)) / half**0.5
            first.weight[:, :half] = torch.cat([directions, -directions])
            first.bias.zero_()
            for layer in others:
                layer.weight.abs_()
            others[-1].weight.neg_()
        first.weight[:, half:] = -first.weight[:, :half]

    @torch.no_grad()
    def begin_with_spread(self, logits: Tensor, wanted: Tensor) -> None:
        """Scale and shift the logit so that its mean and standard deviation over some pairs become those of other logits."""
        factor, last = wanted.std() / logits.std(), self._linear[-1]
        last.weight.mul_(factor)
        last.bias.mul_(factor).add_(wanted.mean() - factor * logits.mean())

    @torch.no_grad()
    def set_threshold(self, logits: Tensor, labels: Tensor) -> float:
        """Shift the logit so that 0 separates the pairs; as :meth:`crossexplain.models.clip.DualEncoder.set_threshold`.

        Returns
        -------
        float
            The logit that was at the threshold before.
        """
        logit = threshold(logits, labels)
        self._linear[-1].bias.sub_(logit)
        return logit


class Aligned(DualEncoder):
    """A :class:`Fusion` as a dual encoder of its two vectors, which are aligned in this way before they are fused.

    Li et al. (2021), "Align before Fuse": dense layers learn little from two vectors whose directions do not yet mean the same.
    Training by contrast trains the fusion's own layers, all but the dense ones.

    Parameters
    ----------
    fusion : Fusion
    """

    def __init__(self, fusion: Fusion):
        super().__init__()
        self.fusion, self.log_scale = fusion, nn.Parameter(torch.tensor(math.log(SCALE)))

    def pool_map(self, maps: Tensor) -> Tensor:
        """Return the vectors (N, width) of maps that the fusion's dense layers read."""
        vectors: Tensor = self.fusion.seen(self.fusion.pool_map(maps))
        return vectors

    def see(self, images: Tensor) -> Tensor:
        """Return the vectors (N, width) of pictures."""
        vectors: Tensor = self.fusion.seen(self.fusion.see(images))
        return vectors

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the vectors (N, width) of texts."""
        vectors: Tensor = self.fusion.said(self.fusion.read(tokens, attention_mask))
        return vectors
