"""The models of the cases: a few lines each, with weights that are drawn or chosen so that the truth is known."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

SIGNS = torch.tensor([[0.0], [0.0], [-1.0], [1.0]])  # of words 2 and 3; mask and padding have none
KEPT, DRAWN = slice(0, 2), 9


class Pair(nn.Module):
    """Three logits of a picture (N, 1, H, W), through a convolution, and words (N, T)."""

    def __init__(self, channels: int = 1, outputs: int = 3):
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(channels, 4, 3), nn.Embedding(DRAWN, 4)
        self.head = nn.Linear(8, outputs)

    def logits(self, images: Tensor, tokens: Tensor) -> Tensor:
        seen = torch.relu(self.conv(images)).mean(dim=(2, 3))
        return self.head(torch.cat([seen, self.embedding(tokens).mean(dim=1)], dim=1))

    def forward(self, images, tokens):
        return self.logits(images, tokens)


def pairs(n: int = 8, words: int = 4, side: int = 8, channels: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Return pictures and words for :class:`Pair`."""
    generator = torch.Generator().manual_seed(seed)
    return {"images": torch.rand(n, channels, side, side, generator=generator),
            "tokens": torch.randint(2, DRAWN, (n, words), generator=generator)}


class Rule(nn.Module):
    """What a rule makes of a picture, a (left less right half), and a word, b = -1 or 1."""

    def __init__(self, rule: Callable[[Tensor, Tensor], object], gain: float = 8.0):
        super().__init__()
        self.rule, self.gain, self.embedding = rule, gain, nn.Embedding.from_pretrained(SIGNS)

    def forward(self, images, tokens):
        half = images.shape[-1] // 2
        seen = self.gain * (images[..., :half].mean(dim=(1, 2, 3)) - images[..., half:].mean(dim=(1, 2, 3)))
        return self.rule(seen, self.embedding(tokens).sum(dim=(1, 2)))


def signs(n: int = 200, seed: int = 0) -> dict[str, Tensor]:
    """Return pictures and one word each for :class:`Rule`."""
    generator = torch.Generator().manual_seed(seed)
    return {"images": torch.rand(n, 1, 8, 8, generator=generator),
            "tokens": torch.randint(2, 4, (n, 1), generator=generator)}


class Patches(nn.Module):
    """A transformer's patches of 8 pixels, special tokens in front; one patch alone counts, times the word's sign."""

    def __init__(self, special: int, counts: Callable[[Tensor], Tensor]):
        super().__init__()
        self.cut, self.special, self.counts = nn.Conv2d(1, 4, 8, 8, bias=False), special, counts
        nn.init.constant_(self.cut.weight, 1 / 64)
        self.tokens, self.embedding = nn.Identity(), nn.Embedding.from_pretrained(SIGNS)

    def forward(self, images, tokens):
        maps = self.cut(images)  # (N, 4, rows, columns)
        patches = maps.flatten(2).transpose(1, 2)
        front = torch.zeros_like(patches[:, :1]).expand(-1, self.special, -1)
        patches = self.tokens(torch.cat([front, patches], dim=1))[:, self.special :]
        seen = self.counts(patches.transpose(1, 2).unflatten(2, maps.shape[2:]))
        return seen.flatten(1).sum(dim=1) * self.embedding(tokens).sum(dim=(1, 2))


class FirstWord(nn.Module):
    """Reads the first word alone, through layers that hold the words first, (T, N, D)."""

    def __init__(self, mix: nn.Module):
        super().__init__()
        self.embedding, self.mix, self.head = nn.Embedding(20, 4), mix, nn.Linear(5, 3)

    def forward(self, images, tokens):
        words = self.mix(self.embedding(tokens.t()))
        words = words[0] if isinstance(words, tuple) else words
        return self.head(torch.cat([words[0], images.mean(dim=(1, 2, 3))[:, None]], dim=1))


class Packed(nn.Module):
    """An LSTM that is told how long each sentence is."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(20, 6, padding_idx=0), nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, images, tokens, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True,
                                                   enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return self.head(torch.cat([last[-1], images.mean(dim=(1, 2, 3))[:, None]], dim=1))


class Prompted(nn.Module):
    """Pictures and words against class vectors (C, D) that are handed in with every batch."""

    def __init__(self):
        super().__init__()
        self.embedding, self.see = nn.Embedding(DRAWN, 4), nn.Linear(64, 4)

    def forward(self, images, tokens, classes):
        return (self.see(images.flatten(1)) * self.embedding(tokens).mean(dim=1)) @ classes.T


class Tower(nn.Module):
    """A convolution that runs as it is told, for example under ``torch.no_grad``."""

    def __init__(self, mode: Callable):
        super().__init__()
        self.conv, self.mode = nn.Conv2d(1, 4, 3), mode

    def forward(self, images):
        with self.mode():
            return torch.relu(self.conv(images))


class Towered(Pair):
    """A :class:`Pair` whose picture goes through a :class:`Tower`."""

    def __init__(self, mode: Callable):
        super().__init__()
        self.tower = Tower(mode)
        del self.conv

    def forward(self, images, tokens):
        seen = self.tower(images).mean(dim=(2, 3))
        return self.head(torch.cat([seen, self.embedding(tokens).mean(dim=1)], dim=1))


class Rounded(Pair):
    """A :class:`Pair` that rounds what it sees, as weight and activation quantisation do: the gradient is 0, not absent."""

    def forward(self, images, tokens):
        seen = (8 * torch.relu(self.conv(images)).mean(dim=(2, 3))).round() / 8
        return self.head(torch.cat([seen, self.embedding(tokens).mean(dim=1)], dim=1))
