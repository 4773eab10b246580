"""Pictures and sentences, and a model whose logit is a known function of the brightness and of the first word."""

import torch
from torch import nn

from crossexplain.gradients.modalities import ImageCells, Tokens

N = 96
GENERATOR = torch.Generator().manual_seed(0)
BRIGHT = torch.randn(N, generator=GENERATOR)
WORD = torch.randint(2, 10, (N,), generator=GENERATOR)
IMAGES = torch.zeros(N, 1, 4, 4) + BRIGHT[:, None, None, None]
TOKENS = torch.stack([WORD, torch.full((N,), 10), torch.where(torch.arange(N) % 2 == 0, 11, 0)], dim=1)
INPUTS = {"images": IMAGES, "tokens": TOKENS}
MODALITIES = [ImageCells(), Tokens()]
BASELINES = [{"image": "zero", "text": "mask"}, "data"]


class Toy(nn.Module):
    """The logit is a known function of brightness and the first word's number."""

    def __init__(self, rule, classes=1):
        super().__init__()
        self.rule, self.classes = rule, classes
        self.embedding = nn.Embedding(12, 1)
        self.embedding.weight.data = torch.tensor([0.0, 0.0, -3, -2.2, -1.4, -0.6, 0.6, 1.4, 2.2, 3, 0, 0])[:, None]

    def forward(self, images, tokens):
        logit = self.rule(images.mean(dim=(1, 2, 3)), self.embedding(tokens)[..., 0].sum(dim=1))
        if self.classes == 1:
            return logit
        return torch.stack([logit * k for k in range(self.classes)], dim=1)


RULES = {
    "image alone": lambda light, word: 3 * light + 0 * word,
    "text alone": lambda light, word: 3 * word + 0 * light,
    "both only": lambda light, word: 4 * light.sign() * word.tanh() + 0.0 * light + light * word,
    "both added": lambda light, word: 2 * light + word,
}
