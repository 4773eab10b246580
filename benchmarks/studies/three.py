"""Controls of three modalities: rows of vectors whose labels come from a known subset of them, and small models that learn it.

Each modality says one bit, in one of its vectors, among noise. What a model rests on is known as a *family*: the parts that add
up to its logit, such as ``(("c",), ("a", "b"))`` where a and b interact and c is added.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossexplain.checks import require_one_of
from crossexplain.gradients.modalities import Vectors
from crossexplain.gradients.record import Record
from crossexplain.gradients.rounds import rounds
from crossexplain.models.weights import seeded

NAMES, VECTORS, WIDTH, HIDDEN = ("a", "b", "c"), 3, 6, 48
SPEAKS = 1 / 3  # share of the training examples in which all speakers of "either" tell the label; if all did, one would do
ODDS = 2.5  # log odds that each part of a sum brings
KINDS = {  # kind -> the parts that decide
    "a": (("a",),), "b": (("b",),), "c": (("c",),),
    "a or b": (("a",), ("b",)), "a or b or c": (("a",), ("b",), ("c",)),
    "a + b": (("a",), ("b",)), "a + b + c": (("a",), ("b",), ("c",)),
    "ab": (("a", "b"),), "ac": (("a", "c"),), "bc": (("b", "c"),),
    "ab + c": (("c",), ("a", "b")), "ab + bc": (("a", "b"), ("b", "c")),
    "abc": (("a", "b", "c"),),
}
WORDS = {"or": "either", "+": "both added"}


class Examples(NamedTuple):
    """Inputs by modality, (N, VECTORS, WIDTH) each, and labels (N,)."""

    inputs: dict[str, Tensor]
    labels: Tensor


def truth(kind: str) -> str:
    """Return what the verdict has to say of a kind."""
    parts = KINDS[kind]
    if max(map(len, parts)) > 1:
        return "both only"
    return f"{parts[0][0]} alone" if len(parts) == 1 else WORDS[kind.split()[1]]


def build(kind: str, n: int, seed: int, held_out: bool) -> Examples:
    """Draw examples of a kind, with about as many labels 1 as 0; of "either" all speak in those that are held out."""
    parts = KINDS[require_one_of(kind, KINDS, "kind")]
    random = np.random.default_rng([seed, held_out, *kind.encode()])
    bits = dict(zip(NAMES, random.choice([-1, 1], (len(NAMES), n))))
    says = [np.prod([bits[name] for name in part], axis=0) for part in parts]
    label = says[0]
    if "or" in kind:
        for (name,) in parts:
            bits[name] = label
        if not held_out:  # in the others one speaks, the same number of times each
            speaker = np.where(random.random(n) < SPEAKS, -1, random.integers(0, len(parts), n))
            bits |= {name: np.where((speaker < 0) | (speaker == i), label, 0) for i, (name,) in enumerate(parts)}
    elif "+" in kind:
        label = np.where(random.random(n) < 1 / (1 + np.exp(-ODDS * np.sum(says, axis=0))), 1, -1)
    directions = np.random.default_rng(7).normal(size=(len(NAMES), WIDTH))  # the same in all data
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inputs = {}
    for name, direction in zip(NAMES, directions):
        vectors = 0.35 * random.normal(size=(n, VECTORS, WIDTH))
        vectors[np.arange(n), random.integers(0, VECTORS, n)] += 1.5 * bits[name][:, None] * direction
        inputs[name] = torch.from_numpy(vectors.astype(np.float32))
    return Examples(inputs, torch.from_numpy((label > 0).astype(np.float32)))


class Fusion(nn.Module):
    """Each modality through a small network of its own, vector by vector and summed; then all of them through another."""

    def __init__(self):
        super().__init__()
        self.own = nn.ModuleDict({name: nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))
                                  for name in NAMES})
        self.all = nn.Sequential(nn.LayerNorm(HIDDEN * len(NAMES)), nn.Linear(HIDDEN * len(NAMES), 2 * HIDDEN), nn.ReLU(),
                                 nn.Linear(2 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, (N,)."""
        return self.all(torch.cat([self.own[name](inputs[name]).sum(dim=1) for name in NAMES], dim=1))[:, 0]


def train(kind: str, seed: int, steps: int = 400, batch: int = 128, pairs: int = 4000) -> tuple[Fusion, Examples, float]:
    """Return a trained model, held-out examples, and how many of these it answers as well as can be known, as a share."""
    given, test = build(kind, pairs, seed, held_out=False), build(kind, 300, seed, held_out=True)
    with seeded(seed):
        model = Fusion()
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
        for _ in range(steps):
            rows = torch.randint(0, pairs, (batch,))
            loss = functional.binary_cross_entropy_with_logits(
                model(**{name: values[rows] for name, values in given.inputs.items()}), given.labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
    model.requires_grad_(False).eval()
    return model, test, float(((model(**test.inputs) > 0) == test.labels.bool()).float().mean())


def recorded(model: Fusion, test: Examples, seed: int) -> Record:
    """Run the rounds, whose views are all subsets of the three."""
    return rounds(model, test.inputs, [Vectors(name, name) for name in NAMES], pick=None, rows=16384, progress=False, seed=seed)
