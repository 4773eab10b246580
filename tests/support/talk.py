"""A small model of conversations: words, frames and sound in turns, which are encoded apart, and examples to ask it about."""

import torch
from torch import nn

from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Tokens, Vectors

MODALITIES = [Tokens(name="words", input="words", special=()), Vectors("frames", "frames", attention="frames_present"),
              Vectors("sound", "sound", attention="sound_present")]
SIZES = {"words": 3, "frames": 2, "sound": 2}  # features a turn


class Talk(nn.Module):
    """Every turn of every modality becomes a vector; by attention from the question, or as a sum, they make one logit.

    ``leaking`` lets a turn's frames see the next turn's.
    """

    def __init__(self, pooled: bool = False, width: int = 8, classes: int = 1, leaking: bool = False, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.pooled, self.leaking, self.width = pooled, leaking, width
        self.embedding = nn.Embedding(20, width, padding_idx=0)
        self.see, self.hear = nn.Linear(4, width), nn.Linear(5, width)
        self.ask, self.named = nn.Embedding(9, width), nn.Embedding(4, width)
        self.each = nn.ModuleDict({name: nn.Linear(width, 2 * width) for name in SIZES})
        self.end = nn.Sequential(nn.Linear((3 if pooled else 2) * width, width), nn.ReLU(), nn.Linear(width, classes))

    def encode(self, name, inputs):
        party = inputs["party"]
        if name == "words":
            vectors, present = self.embedding(inputs["words"]), inputs["words"] != 0
        else:
            vectors, present = (self.see if name == "frames" else self.hear)(inputs[name]), inputs[f"{name}_present"]
        vectors = (vectors.tanh() * present[..., None]).unflatten(1, (party.shape[1], -1)).sum(dim=2)  # (N, T, D)
        if self.leaking and name == "frames":
            vectors = vectors + vectors.roll(-1, dims=1)
        asked = self.ask(inputs["question"]).mean(dim=1, keepdim=True)
        both = self.each[name]((vectors + self.named(party) + asked).tanh())
        return torch.relu(both[..., :self.width]) * (party > 0)[..., None] if self.pooled else both

    def join(self, parts, inputs):
        if self.pooled:
            return self.join_pooled({name: part.sum(dim=1) for name, part in parts.items()}, inputs)
        keys, values = torch.cat([parts[name] for name in SIZES], dim=1).split(self.width, dim=2)
        asked = self.ask(inputs["question"]).mean(dim=1)
        scores = (keys @ asked[..., None])[..., 0].masked_fill((inputs["party"] == 0).repeat(1, 3), -torch.inf)
        read = (scores.softmax(dim=1)[..., None] * values).sum(dim=1)
        return self.end(torch.cat([read, asked], dim=1)).squeeze(1)

    def join_pooled(self, pooled, inputs):
        return self.end(torch.cat([pooled[name] for name in SIZES], dim=1)).squeeze(1)

    def forward(self, **inputs):
        return self.join({name: self.encode(name, inputs) for name in SIZES}, inputs)


def talks(turns=(3, 2, 1), most: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return conversations of so many turns; the first turn of each but the first one says nothing."""
    generator, n = torch.Generator().manual_seed(seed), len(turns)
    there = torch.arange(most) < torch.tensor(turns)[:, None]  # (N, T)
    inputs = {"question": torch.randint(1, 9, (n, 2), generator=generator),
              "party": torch.randint(1, 4, (n, most), generator=generator) * there,
              "words": torch.randint(2, 20, (n, most * 3), generator=generator) * there.repeat_interleave(3, dim=1)}
    inputs["words"][1:, :3] *= (torch.tensor(turns) == 1)[1:, None]
    for name, width in (("frames", 4), ("sound", 5)):
        inputs[name] = torch.randn(n, most * SIZES[name], width, generator=generator)
        inputs[f"{name}_present"] = there.repeat_interleave(SIZES[name], dim=1)
    return inputs


def turns_of(inputs: dict[str, torch.Tensor]) -> Groups:
    """Return the turns as groups, with the features of all modalities."""
    most = inputs["party"].shape[1]
    return Groups([f"turn {t + 1}" for t in range(most)],
                  {name: torch.arange(most).repeat_interleave(size) for name, size in SIZES.items()})
