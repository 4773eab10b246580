"""Models whose logit is a known function of a few cells and words."""

import torch
from torch import nn

from crossexplain.gradients.modalities import ImageCells, Tokens


class Toy(nn.Module):
    """The logit is a known function of two cells and two words."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.embedding = rule, nn.Embedding(8, 1)
        self.embedding.weight.data = torch.tensor([0, 0, 1, -1, 2, -2, 0.5, -0.5])[:, None]

    def see(self, images):
        return images.mean(dim=(1, 2)).unflatten(1, (2, -1)).mean(dim=2)

    def read(self, tokens):
        return self.embedding(tokens)[..., 0]

    def match(self, seen, said):
        return self.rule(*seen.unbind(-1), *said.unbind(-1)[:2])

    def forward(self, images, tokens):
        return self.match(self.see(images), self.read(tokens))


class Product(nn.Module):
    """The logit is the first cell times the first word, and the second cell."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 1)
        self.embedding.weight.data = torch.tensor([[0.0], [0.0], [2.0], [3.0]])

    def see(self, images):
        return images.flatten(1)

    def read(self, tokens):
        return self.embedding(tokens)[..., 0]

    def match(self, seen, said):
        return seen[:, 0] * said[:, 0] + seen[:, 1]

    def forward(self, images, tokens):
        return self.match(self.see(images), self.read(tokens))


HAND = {"images": torch.tensor([[[[1.0, 4.0], [5.0, 6.0]]]]), "tokens": torch.tensor([[2, 3]])}
PARTS = [ImageCells(), Tokens()]
