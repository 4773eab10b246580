"""The early-fusion model of the paper (section 4.2): a convolutional tower, an LSTM, concatenation, dense layers.

:class:`CnnLstm` is right and can be explained; what the paper's code trained is ``benchmarks.studies.published``.
"""

import torch
from torch import Tensor, nn

from crossexplain import moved
from crossexplain.checks import require_images, require_one_of, require_tokens
from crossexplain.models.towers import pool
from crossexplain.models.two_towers import TwoTowerModel

DIGITS = 10
SIDE = 28  # pixels of a cell


class Tower(nn.Module):
    """Six convolutions, and one that names the digit of each cell.

    Parameters
    ----------
    widths : sequence of 6 int
        Channels of the convolutions.
    dropout : float
        Share of the last map's channels left out in training.

    Examples
    --------
    >>> Tower()(torch.zeros(2, 1, 56, 56)).shape
    torch.Size([2, 4, 10])
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 32, 64, 64, 64), dropout: float = 0.2):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, width) in enumerate(zip((1, *widths), widths)):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if i in (0, 2):
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)  # (N, 1, 56, 56) -> (N, 64, 14, 14)
        self.drop = nn.Dropout2d(dropout)
        self.name = nn.Conv2d(widths[-1], DIGITS, SIDE // 4, stride=SIDE // 4)  # one window a cell: (N, 10, 2, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the digits' logits of each cell.

        Parameters
        ----------
        images : Tensor, shape (N, 1, 56, 56)

        Returns
        -------
        Tensor, shape (N, 4, 10)
        """
        require_images(images, channels=1, side=2 * SIDE, unit=True)  # a grey collage of four digits
        logits: Tensor = self.name(self.drop(self.features(images))).flatten(2).transpose(1, 2)
        return logits


class CnnLstm(TwoTowerModel):
    """Does the sentence hold of the collage? One logit, above 0 for yes.

    Layers to explain: ``image_layer`` (the last convolution's map, (N, 64, 14, 14)) and ``text_layer`` (the word
    embeddings, (N, T, 64)). Gradients do not vanish on the way to either: the sentence is read by the maximum over the LSTM's
    steps, so every step counts, and the digits' probabilities are taken at a temperature above 1, so they do not saturate.

    Parameters
    ----------
    vocabulary : int
        Number of words; 0 is padding, 1 the mask.
    pooling : {"max", "last"}
        Read the LSTM by the maximum over its steps, or at the sentence's last word, as the paper does.
    temperature : float
        The digits' logits are divided by it before they become probabilities.
    width, dense : int
        Units of the LSTM and of the dense layers.
    gain : float
        Factor on PyTorch's initial weights of the LSTM. At 1 it begins nearly linear: its output for "2 even" is then the sum
        of its outputs for "2" and for "even", but "2 even" and "2 odd", or "1 even" and "3 odd", mean the same of four digits.
        No sum tells these apart, and most seeds do not learn to count. There is no dropout for a similar reason: its noise kept
        some seeds from learning half of the tasks, and balanced pairs leave little to learn by heart.

    Examples
    --------
    >>> model = CnnLstm(vocabulary=30).eval()
    >>> model(images=torch.zeros(2, 1, 56, 56), tokens=torch.ones(2, 9, dtype=torch.long)).shape
    torch.Size([2])
    """

    towers = ("tower",)
    image_layer = "tower.features"
    text_layer = "embedding"

    def __init__(self, vocabulary: int, pooling: str = "max", temperature: float = 2.0, width: int = 64,
                 dense: int = 256, gain: float = 2.0):
        super().__init__()
        require_one_of(pooling, ("max", "last"), "pooling")
        self.pooling, self.temperature = pooling, temperature
        self.tower = Tower()
        self.embedding = nn.Embedding(vocabulary, 64, padding_idx=0)
        nn.init.zeros_(self.embedding.weight[1].detach())  # the mask carries nothing, and training never shows it
        self.lstm = nn.LSTM(64, width, num_layers=2, batch_first=True)
        for name, weights in self.lstm.named_parameters():
            if name.startswith("weight"):
                weights.detach().mul_(gain)
        self.seen = nn.Sequential(nn.LayerNorm(4 * DIGITS), nn.Linear(4 * DIGITS, dense), nn.ReLU())
        self.said = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dense), nn.ReLU())
        self.fusion = nn.Sequential(
            nn.Linear(2 * dense, dense), nn.ReLU(), nn.Linear(dense, dense), nn.ReLU(), nn.Linear(dense, 1),
        )

    def see(self, images: Tensor) -> Tensor:
        """Return the probabilities of the digits of each cell, (N, 40)."""
        probabilities: Tensor = (self.tower(images) / self.temperature).softmax(dim=2).flatten(1)
        return probabilities

    def read(self, tokens: Tensor) -> Tensor:
        """Return the sentences (N, T) as one vector each, (N, width)."""
        require_tokens(tokens, self.embedding.num_embeddings)
        steps: Tensor = self.lstm(self.embedding(tokens))[0]  # (N, T, width)
        real = tokens != 0  # (N, T)
        if self.pooling == "last":
            return pool(steps, real, "last")
        return steps.masked_fill(~real[:, :, None], -1.0).amax(dim=1)  # an LSTM's output is above -1

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N,) of collages (N, 40) and sentences (N, width) that were encoded before."""
        logits: Tensor = self.fusion(torch.cat([self.seen(seen), self.said(read)], dim=1))[:, 0]
        return logits


class AfterTower(TwoTowerModel):
    """A :class:`CnnLstm` that is given what its tower sees instead of the collage.

    Called with ``seen`` (N, 4, 10), the probabilities of the digits of each cell as :meth:`CnnLstm.see` gives them, and
    ``tokens`` (N, T).

    Parameters
    ----------
    whole : CnnLstm
        Shares its weights.
    """

    text_layer = "whole.embedding"

    def __init__(self, whole: CnnLstm):
        super().__init__()
        self.whole = whole
        self.train(whole.training)  # wrapping a model must not switch its mode

    def see(self, seen: Tensor) -> Tensor:
        """Return the digits' probabilities as one vector, (N, 40)."""
        return seen.flatten(1)

    def read(self, tokens: Tensor) -> Tensor:
        """Return the sentence as one vector, (N, width)."""
        return self.whole.read(tokens)

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N,)."""
        return self.whole.match(seen, read)

    def forward(self, seen: Tensor, tokens: Tensor) -> Tensor:  # type: ignore[override]  # it takes other inputs by name
        """Return the logits (N,) that the sentences hold of the collages."""
        return super().forward(seen, tokens)


__getattr__ = moved.names_of(__name__)
