"""Error of estimated Shapley values against the budget, ours beside shapiq's, on games whose Shapley values are known.

The games are sums of products of features of both modalities (unanimity games): a product of size s gives each of its members
a share of 1 / s. An estimator may ask for as many coalitions as the budget says, ours look at as many masks with each tower;
both are counted. ``matched`` is how many coalitions the head saw, which costs next to nothing beside a tower.
"""

from importlib.metadata import version
from itertools import product

import numpy as np
import pandas as pd
import shapiq
import torch
from torch import nn
from tqdm.auto import tqdm

from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.modalities import Tokens, Vectors
from crossexplain_book.bench import row_of

PLAYERS, FACTORS = (16, 24, 40), (4, 16, 64)  # the budget is so many times the players + 1
GAMES = 15  # of each number of players and budget: of five, the best of six estimators differs by luck
OURS, WHOLE = "ours", "ours, whole model"  # the second may not ask the towers, and can cross nothing
PEERS = {name: {} for name in ("PermutationSamplingSV", "SVARM", "StratifiedSamplingSV")}
# Each coalition with its complement, as ours.
PEERS |= {name: {"pairing_trick": True} for name in ("KernelSHAP", "UnbiasedKernelSHAP", "kADDSHAP")}
TABLE = embedded_folder() / "results" / "approximations.csv"


class Unanimity(nn.Module):
    """A model whose logit is a sum of weighted products; a product counts where all of its features are present.

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
        """Return which features of the first modality are present."""
        return seen[..., 0]

    def read(self, tokens):
        """Return which words are present."""
        return (tokens > 1).float()

    def match(self, seen, read):
        """Return the logits (N,)."""
        present = torch.cat([seen, read], dim=1)
        return ((present @ self.members.float().T) == self.members.sum(dim=1)).float() @ self.weights

    def forward(self, seen, tokens):
        """Return the logits (N,)."""
        return self.match(self.see(seen), self.read(tokens))


def error(estimate, truth: torch.Tensor) -> float:
    """Return the mean squared error as a share of the mean square of the truth."""
    return float(((torch.as_tensor(estimate) - truth) ** 2).mean() / (truth**2).mean())


def ours(model: Unanimity, budget: int, seed: int, split: bool = True) -> tuple[float, float, float]:
    """Return the error of our estimator, the masks that a tower looked at, and the coalitions that were matched."""
    players = len(model.truth)
    first = players // 2
    inputs = {"seen": torch.ones(1, first, 1), "tokens": torch.full((1, players - first), 2)}
    game = Game(model.eval(), inputs, [Vectors("image", "seen"), Tokens()], target=1, split=split, progress=False)
    before, matched = game.passes, game.matched
    estimate = sampled_shapley(game, budget, seed)[0]
    return error(estimate, model.truth), game.passes - before, game.matched - matched


def theirs(name: str, model: Unanimity, budget: int, seed: int) -> tuple[float, float, float]:
    """Return the same of one of shapiq's estimators: each coalition that it asks for is a pass, and is matched."""
    used, players = [0], len(model.truth)

    def game(coalitions):
        present = torch.as_tensor(np.atleast_2d(coalitions)).float()
        used[0] += len(present)
        return model.match(present[:, : players // 2], present[:, players // 2 :]).double().numpy()

    found = getattr(shapiq, name)(n=players, random_state=seed, **PEERS[name]).approximate(budget, game)
    return error(found.get_n_order_values(1), model.truth), used[0], used[0]


def measure(seed: int = 0) -> list[dict]:
    """Return the errors of all estimators, game by game: lines of the table."""
    cells = list(product(PLAYERS, FACTORS, range(GAMES)))
    lines = []
    for players, factor, i in tqdm(cells, desc="games"):
        budget, model = factor * (players + 1), Unanimity(players, seed + i)
        for name in (OURS, WHOLE, *PEERS):
            given = (model, budget, seed + i)
            found, used, matched = theirs(name, *given) if name in PEERS else ours(*given, split=name == OURS)
            lines.append({"players": players, "budget": budget, "estimator": name, "game": i, "error": found,
                          "evaluations": used, "matched": matched, "seed": seed, "shapiq": version("shapiq")})
    return lines


def rows(seed: int = 0) -> list[dict]:
    """Return the rows of the table: our error over that of the best of shapiq's, per number of players; writes the CSV."""
    table = pd.DataFrame(measure(seed))
    write_whole(TABLE, lambda part: table.to_csv(part, index=False, float_format="%.6g"))
    found = []
    for players, of in table.groupby("players"):
        errors = of.pivot(index=["budget", "game"], columns="estimator", values="error")
        best = errors[list(PEERS)].min(axis=1)  # on this very game
        for name, key in ((OURS, "ours"), (WHOLE, "whole")):
            found.append(row_of(f"approximations.{players}.{key}_over_shapiq", (errors[name] / best).to_numpy(),
                                f"error of {name} over that of the best of shapiq's {len(PEERS)} estimators on the same game, "
                                f"{len(FACTORS)} budgets, {GAMES} games"))
    return found
