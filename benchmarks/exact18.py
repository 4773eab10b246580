"""What it costs to ask a model everything about a conversation: all coalitions of eighteen players.

Six turns in three modalities have 2**18 coalitions. Every turn is encoded a few times, and only the fusion is asked each time;
beside it stands the time of the whole model, from a part of the coalitions. And how far Shapley values from a part of the
coalitions are from the exact ones.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.studies.turns import Case
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.coalitions.shapley import interactions, shapley
from crossexplain.data.conversations import KINDS
from crossexplain.recipes import load_or_train
from crossexplain_book.bench import row_of

TURNS, EXAMPLES = 6, 8  # of a conversation; conversations that are timed
SOME, BUDGETS = 2048, (256, 1024)  # coalitions of the whole model; masks of sampled values
FUSIONS = {"": ("conversations_early", "fusion of sums over turns"), ".attention": ("conversations", "cross-attention")}


def rows(seed: int = 0) -> list[dict]:
    """Return the rows of the table."""
    found, tables = [], []
    for key, (name, what) in FUSIONS.items():
        trained = load_or_train(name, progress=False)
        batch, timed = trained.data.build("test", 8 * len(KINDS), seed, turns=TURNS), []
        for i in range(EXAMPLES + 1):  # another conversation each time, of another kind; the first warms up
            *times, table = of_conversation(Case(trained.model, batch.select([8 * i])), seed)
            timed.append(times)
            tables.append(table)
        ours, whole_over = zip(*timed[1:])
        found += [row_of(f"exact18{key}.seconds", ours, f"s of one core an example, 18 players, {what}"),
                  row_of(f"exact18{key}.whole_over_ours", whole_over,
                         f"time of 2**18 passes of the whole model, from {SOME:,} of them, / ours, {what}")]
    follows = [of_one_core(lambda values=values: everything(values)) for _, values in tables]
    found.append(row_of("exact18.interactions.seconds", follows, "s of one core for Shapley values, pairs and threes"))
    for budget in BUDGETS:
        missed = [error(sampled_shapley(game, budget, seed)[0].numpy(), shapley(values)[0]) for game, values in tables]
        found.append(row_of(f"exact18.sampled_error.{budget}", missed,
                            f"errors / sizes of Shapley values, summed, from {budget} of 262,144 coalitions"))
    return found


def of_conversation(case: Case, seed: int) -> tuple[float, float, tuple[Game, np.ndarray]]:
    """Return the seconds of all coalitions by parts, those of the whole model over these, and the game with its table."""
    groups, made = case.groups["turn"].apart(), []
    case.question.whole()
    ours = of_one_core(lambda: made.append(Game.about(case.question, groups).values_of_all()))
    whole, examples = Game.about(case.question, groups, split=False), torch.zeros(SOME, dtype=torch.long)
    some = torch.rand(SOME, len(whole.names), generator=torch.Generator().manual_seed(seed)) < 0.5
    every = of_one_core(lambda: whole.values(some, examples)) * 2**len(whole.names) / SOME
    return ours, every / ours, (Game.about(case.question, groups), made[0].numpy())


def of_one_core(call: Callable[[], object]) -> float:
    """Return the processor time of a call, in seconds, whatever else the machine is doing."""
    threads, started = torch.get_num_threads(), time.process_time()
    torch.set_num_threads(1)
    try:
        call()
    finally:
        torch.set_num_threads(threads)
    return time.process_time() - started


def everything(table: np.ndarray) -> None:
    """Make Shapley values and the interactions of pairs and threes of a table."""
    shapley(table)
    interactions(table)
    interactions(table, 3)


def error(values: np.ndarray, true: np.ndarray) -> float:
    """Return the sum of the errors over the sum of the sizes."""
    return float(np.abs(np.nan_to_num(values) - true).sum() / np.abs(true).sum())
