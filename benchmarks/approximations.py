"""Error of sampled Shapley values against the budget, ours beside shapiq's, on games whose Shapley values are known.

The games are sums of products of features of both modalities (unanimity games): a product of size s gives each of its members
a share of 1 / s. Every estimator may evaluate as many coalitions as the budget says; the evaluations are counted.

shapiq's best, a paired regression (KernelSHAP or kADDSHAP), is better from 16 evaluations a player on, and ours is about
as good with 4. ``explain`` offers both, as ``"shapiq shapley"`` and ``"sampled shapley"``.
"""

import csv
from importlib.metadata import version
from pathlib import Path

import numpy as np
import shapiq
import torch
from torch import nn

from crossexplain.evaluation.dominance import shapley_values
from crossexplain.evaluation.peers import counted
from crossexplain.gradients.views import Tokens, Vectors

PLAYERS, FACTORS = (16, 24, 40), (4, 16, 64)  # the budget is so many times the players + 1
OURS = "ours"
PEERS = {name: {} for name in ("PermutationSamplingSV", "SVARM", "StratifiedSamplingSV")}
# Each coalition with its complement, as ours goes each order backwards.
PEERS |= {name: {"pairing_trick": True} for name in ("KernelSHAP", "UnbiasedKernelSHAP", "kADDSHAP")}
TABLE = Path(__file__).parent.parent / "data/results/approximations.csv"


class Unanimity(nn.Module):
    """A model whose logit is a sum of products of which features are there.

    Attributes
    ----------
    truth : Tensor, shape (P,)
        Its Shapley values.
    """

    def __init__(self, players: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.randint(1, 5, (3 * players,), generator=generator)
        drawn = torch.rand(len(sizes), players, generator=generator).argsort(dim=1).argsort(dim=1)
        self.members = drawn < sizes[:, None]  # (M, P)
        self.weights = torch.randn(len(sizes), generator=generator)
        self.truth = (self.weights[:, None] * self.members / sizes[:, None]).sum(dim=0)

    def see(self, seen):
        """Return which features of the first modality are there."""
        return seen[..., 0]

    def read(self, tokens):
        """Return which words are there."""
        return (tokens > 1).float()

    def match(self, seen, said):
        """Return the logits (N,)."""
        there = torch.cat([seen, said], dim=1)
        return ((there @ self.members.float().T) == self.members.sum(dim=1)).float() @ self.weights

    def forward(self, seen, tokens):
        """Return the logits (N,)."""
        return self.match(self.see(seen), self.read(tokens))


def error(estimate, truth: torch.Tensor) -> float:
    """Return the mean squared error as a share of the mean square of the truth."""
    return float(((torch.as_tensor(estimate) - truth) ** 2).mean() / (truth**2).mean())


def ours(model: Unanimity, budget: int, seed: int) -> tuple[float, float]:
    """Return the error and the evaluations of our estimator."""
    players = len(model.truth)
    first = players // 2
    inputs = {"seen": torch.ones(1, first, 1), "tokens": torch.full((1, players - first), 2)}
    orders = max(2, budget // (players + 1) // 2 * 2)
    with counted(model) as rows:
        found = shapley_values(model.eval(), inputs, [Vectors("image", "seen"), Tokens()], {"image": "zero", "text": "mask"},
                               orders, seed)
    return error(torch.cat([found["image"], found["text"]], dim=1)[0], model.truth), rows[0]


def theirs(name: str, model: Unanimity, budget: int, seed: int) -> tuple[float, float]:
    """Return the error and the evaluations of one of shapiq's estimators."""
    used, players = [0], len(model.truth)

    def game(coalitions):
        there = torch.as_tensor(np.atleast_2d(coalitions)).float()
        used[0] += len(there)
        return model.match(there[:, : players // 2], there[:, players // 2 :]).double().numpy()

    found = getattr(shapiq, name)(n=players, random_state=seed, **PEERS[name]).approximate(budget, game)
    return error(found.get_n_order_values(1), model.truth), used[0]


def measure(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the errors of all estimators: lines of the table."""
    lines = []
    for players in PLAYERS:
        for factor in FACTORS:
            budget = factor * (players + 1)
            for name in (OURS, *PEERS):
                found = []
                for i in range(repeats):
                    model = Unanimity(players, seed + i)
                    found.append(ours(model, budget, seed + i) if name == OURS else theirs(name, model, budget, seed + i))
                errors, used = np.array(found).T
                lines.append({"players": players, "budget": budget, "estimator": name, "error": float(np.median(errors)),
                              "low": float(errors.min()), "high": float(errors.max()), "evaluations": float(used.mean()),
                              "games": repeats, "seed": seed, "shapiq": version("shapiq")})
    return lines


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table: our error over that of the best of shapiq's, per number of players; writes the CSV."""
    lines = measure(seed, repeats)
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()}
                         for line in lines)
    found = []
    for players in PLAYERS:
        ratios, best = [], []
        for factor in FACTORS:
            some = {line["estimator"]: line["error"] for line in lines
                    if (line["players"], line["budget"]) == (players, factor * (players + 1))}
            best.append(min(PEERS, key=some.get))
            ratios.append(some[OURS] / some[best[-1]])
        found.append({"id": f"approximations.{players}.ours_over_shapiq", "value": float(np.median(ratios)), "low": min(ratios),
                      "high": max(ratios), "n": repeats,
                      "unit": f"error over that of shapiq's best ({', '.join(dict.fromkeys(best))}), {len(FACTORS)} budgets"})
    return found
