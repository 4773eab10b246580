"""Early fusion of a picture and a text (VGG-BERT in section 4.2 of the paper): two towers, layer norm, concatenation, dense."""

import math

import torch
from torch import Tensor, nn

from crossexplain.models.clip import SCALE, DualEncoder
from crossexplain.models.towers import Look, dense, pool, require_pairs, threshold


class Fusion(nn.Module):
    """Does the text describe the picture? One logit, above 0 for yes.

    Called with ``images`` (N, 3, H, W) from 0 to 1, ``tokens`` (N, T) and, where the tokenizer gives one,
    ``attention_mask`` (N, T). In eval mode the examples of a batch do not touch each other.

    Both vectors are layer-normalised before they meet: otherwise the one with the larger numbers is all that the dense
    layers see in the beginning.

    Parameters
    ----------
    image, text : torch.nn.Module
        Towers, see :mod:`crossexplain.models.towers`. What is frozen when it comes stays frozen and in eval mode.
    read : {"max", "mean", "first", "last"}
        How the states of the text become one vector.
    width : int
        Of each vector, and of the dense layers.
    dropout : float
        Before the dense layers.
    look : torch.nn.Module, optional
        Makes one vector (N, width) of a map; default, :class:`crossexplain.models.towers.Look`.
    hidden : int
        Units between the vector of the text and the layer norm before the two vectors meet, for a text tower that is frozen;
        0 has none.
    hidden_dropout : float
        Before and behind those.

    Attributes
    ----------
    image_layer, text_layer : str
        The last map (N, C, h, w) and the embeddings (N, T, D). Every place and every token reaches the logit from there.
    """

    def __init__(self, image: nn.Module, text: nn.Module, read: str = "mean", width: int = 256, dropout: float = 0.1,
                 look: nn.Module | None = None, hidden: int = 0, hidden_dropout: float = 0.0):
        super().__init__()
        self.image, self.text, self.how = image, text, read
        self.image_layer, self.text_layer = f"image.{image.layer}", f"text.{text.layer}"
        self.look = Look(image.width, width) if look is None else look
        self.seen = nn.LayerNorm(width)
        between = dense(text.width, hidden, width, hidden_dropout) if hidden else [nn.Linear(text.width, width)]
        self.said = nn.Sequential(nn.LayerNorm(text.width), *between, nn.LayerNorm(width))
        self.dense = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * width, 2 * width), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1),
        )

    def map(self, images: Tensor) -> Tensor:
        """Return what the image tower makes of pictures, (N, C, h, w); ``look`` makes one vector of it, (N, width)."""
        return self.image(images)

    def see(self, images: Tensor) -> Tensor:
        """Return one vector a picture, (N, width)."""
        return self.look(self.map(images))

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, (N, D)."""
        return pool(*self.text(tokens, attention_mask), self.how)

    def match(self, seen: Tensor, said: Tensor) -> Tensor:
        """Return the logits (N,) of pictures (N, width) that were seen and texts (N, D) that were read before."""
        return self.dense(torch.cat([self.seen(seen), self.said(said)], dim=-1))[..., 0]

    def similarity(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits of every picture with every text, (N, M)."""
        return self.every(self.see(images), self.read(tokens, attention_mask))

    def every(self, seen: Tensor, said: Tensor) -> Tensor:
        """Return the logits of every picture (N, width) with every text (M, D), (N, M)."""
        return self.match(seen[:, None].expand(-1, len(said), -1), said.expand(len(seen), -1, -1))

    def forward(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits that the texts describe the pictures, shape (N,)."""
        require_pairs(images, tokens)
        return self.match(self.see(images), self.read(tokens, attention_mask))

    @torch.no_grad()
    def begin_with_difference(self, against: bool = False) -> None:
        """Let the first dense layer begin by reading the difference of the two vectors, once they are aligned.

        The weights of the text become those of the picture with the other sign: each unit begins with one direction in which
        the two may differ, and the layers behind need not find out first that they are to be compared.

        Parameters
        ----------
        against : bool
            Let the layers behind begin by adding up the differences, each of which speaks against a match.
        """
        first, *others = (layer for layer in self.dense if isinstance(layer, nn.Linear))
        half = first.in_features // 2
        first.weight[:, half:] = -first.weight[:, :half]
        if against:
            for layer in others:
                layer.weight.abs_()
            others[-1].weight.neg_()

    @torch.no_grad()
    def centre(self, logits: Tensor, labels: Tensor) -> float:
        """Shift the logit so that 0 divides pairs that match from pairs that do not as well as it can be done.

        Parameters and errors as for :meth:`crossexplain.models.clip.DualEncoder.centre`.

        Returns
        -------
        float
            The logit that divided them before.
        """
        found = threshold(logits, labels)
        self.dense[-1].bias -= found
        return found

    def train(self, mode: bool = True) -> "Fusion":
        """Switch dropout on or off; a frozen tower stays in eval mode, so that its batch statistics stay too."""
        super().train(mode)
        for tower in (self.image, self.text):
            if mode and not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self


class Aligned(DualEncoder):
    """The two vectors of a :class:`Fusion` as a dual encoder has them, to align them before they are fused.

    Li et al. (2021), "Align before Fuse": dense layers have a hard time with two vectors that do not yet speak of the same
    things. Trained by contrast, it trains the fusion's own layers, all but the dense ones.

    Parameters
    ----------
    fusion : Fusion
    """

    def __init__(self, fusion: Fusion):
        super().__init__()
        self.fusion, self.log_scale = fusion, nn.Parameter(torch.tensor(math.log(SCALE)))

    def look(self, maps: Tensor) -> Tensor:
        """Return the vectors (N, width) of maps that the fusion's dense layers would read."""
        return self.fusion.seen(self.fusion.look(maps))

    def see(self, images: Tensor) -> Tensor:
        """Return the vectors (N, width) of pictures."""
        return self.fusion.seen(self.fusion.see(images))

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the vectors (N, width) of texts."""
        return self.fusion.said(self.fusion.read(tokens, attention_mask))
