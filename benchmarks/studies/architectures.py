"""The architectures on trial beside early fusion: small heads on what a frozen tower sees, and which of them learns what."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossexplain.checks import InputError, require_one_of
from crossexplain.data.digits import Digits
from crossexplain.models.cnn_lstm import DIGITS, Tower
from crossexplain.recipes import controls
from crossexplain.recipes.controls import WIDTH, Control, CosineHead, Head, dense


class LateFusion(Head):
    """The sum of a logit of the picture and a logit of the sentence: nothing can interact."""

    architecture = "late fusion"

    def __init__(self):
        super().__init__()
        self.seen = nn.Sequential(nn.LayerNorm(4 * DIGITS), *dense(4 * DIGITS, 2 * WIDTH, 1))
        self.said = nn.Sequential(nn.LayerNorm(WIDTH), *dense(WIDTH, 2 * WIDTH, 1))

    def see(self, seen: Tensor) -> Tensor:
        """Return the picture's logit, (N, 1)."""
        return self.seen(seen.flatten(1))

    def read(self, tokens: Tensor) -> Tensor:
        """Return the sentence's logit, (N, 1)."""
        return self.said(super().read(tokens))

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return their sum, (N,)."""
        return (seen + read)[:, 0]


class CrossAttention(Head):
    """Every word attends to the four cells, and the mean over the words is read."""

    architecture = "cross-attention"

    def __init__(self):
        super().__init__()
        self.cell, self.where = nn.Linear(DIGITS, WIDTH), nn.Parameter(0.1 * torch.randn(4, WIDTH))
        self.ask, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.after = nn.Sequential(*dense(WIDTH, 2 * WIDTH, WIDTH))
        self.last = nn.Sequential(nn.LayerNorm(WIDTH), *dense(WIDTH, 2 * WIDTH, 1))

    def see(self, seen: Tensor) -> Tensor:
        """Return a vector of each cell, (N, 4, WIDTH)."""
        return self.cell(seen.reshape(-1, 4, DIGITS)) + self.where

    def read(self, tokens: Tensor) -> Tensor:
        """Return a vector of each word, with its weight as the last entry, (N, T, WIDTH + 1)."""
        return torch.cat(self.states(tokens), dim=2)

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits, (N,)."""
        states, weight = read[..., :WIDTH], read[..., WIDTH:]
        attended = functional.scaled_dot_product_attention(self.ask(states), self.key(seen), self.value(seen))  # (N, T, WIDTH)
        states = self.norm(states + attended)
        return self.last(((states + self.after(states)) * weight).sum(dim=1))[:, 0]


ARCHITECTURES = {"early fusion": None, "late fusion": LateFusion, "dual encoder": CosineHead,
                 "cross-attention": CrossAttention}
UNLEARNABLE = {("both", "late fusion")}  # no sum of two logits is an exclusive or


def train(kind: str, digits: Digits, tower: Tower, seed: int, *, architecture: str, **options) -> Control:
    """Train a control of one of ``ARCHITECTURES``; further arguments as for :func:`crossexplain.recipes.controls.train`.

    Raises
    ------
    InputError
        For an unknown architecture, and one that cannot learn the control.
    """
    require_one_of(architecture, ARCHITECTURES, "architecture")
    if (kind, architecture) in UNLEARNABLE:
        raise InputError(f"{architecture} cannot learn the control {kind!r}: a sum of two logits is no exclusive or, and what "
                         "such a model rests on instead is not known; leave it out or choose another architecture.")
    return controls.train(kind, digits, tower, seed, head=ARCHITECTURES[architecture], **options)
