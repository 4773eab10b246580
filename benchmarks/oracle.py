"""Is the explainer wrong, or the model? Exact values of the oracle, the model and every explainer, for cells and words.

The oracle knows the rule of every sentence. What it does not see could be any digit, and what it does not read any word that
makes a sentence of the data. The model is asked in two ways: with hidden cells empty and hidden words masked, as explainers
ask it, and with digits and sentences drawn in their place, as the oracle is asked.
"""

import numpy as np
import torch

from benchmarks.studies import collage_oracle
from benchmarks.studies.leaderboard import CELLS, METHODS, Case, explain, of_collages
from crossexplain.coalitions.shapley import shapley
from crossexplain.data import collages
from crossexplain.evaluation.truth import row_correlation
from crossexplain.intervals import mean_interval
from crossexplain.models.cnn_lstm import AfterTower
from crossexplain.recipes import load_or_train
from crossexplain.recipes.collages import look

PAIRS, DRAWS = 128, 32
SIDES = {"": slice(None), "cells.": slice(0, CELLS), "words.": slice(CELLS, None)}


def ranks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rank correlation of sizes over the players, (N,); equal but for rounding is equal."""
    return row_correlation(np.abs(x).round(9), np.abs(y).round(9))


@torch.no_grad()
def drawn(case: Case, test: collages.Collages, seed: int) -> np.ndarray:
    """Return the chance of a match that the model sees, with digits and sentences drawn for what is hidden, (N, 4096)."""
    seen, groups = case.inputs["seen"], case.game.owner("text").numpy()
    typical = torch.stack([seen[torch.from_numpy(test.digits == digit)].mean(dim=0) for digit in range(10)])
    sets = (np.arange(16)[:, None] >> np.arange(CELLS)) & 1
    draw = np.random.default_rng(seed).integers(0, 10, (len(test), 16, DRAWS, CELLS))
    filled = np.where(sets[None, :, None], test.digits[:, None, None], draw)
    said = case.model.read(collages.tokenize(collages.SENTENCES[: collages.BALANCED]))  # (46, width)
    beliefs, found = collage_oracle.beliefs(test.sentence_id, groups), []
    for four, belief in zip(torch.from_numpy(filled), beliefs):
        looked = case.model.see(typical[four].flatten(0, 1))  # (16 * draws, 40)
        likely = torch.stack([case.model.match(looked, sentence.expand(len(looked), -1)).sigmoid() for sentence in said])
        likely = likely.double().reshape(len(said), 16, DRAWS).mean(dim=2).numpy()  # (46, 16)
        found.append((belief @ likely).ravel())
    return np.stack(found)


def rows(seed: int = 0) -> list[dict]:
    """Compare all with the oracle and with the model's own values, over all players and over those of each side."""
    trained = load_or_train("collages", progress=False)
    test = collages.build(trained.data, PAIRS, "test", seed + 2)
    seen = look(trained.model, test).inputs["seen"].reshape(-1, 4, 10)
    case, quadruple = of_collages(AfterTower(trained.model).eval(), seen, test), np.arange(PAIRS) // 4
    chances = collage_oracle.chances(test.digits, test.sentence_id, case.game.owner("text"))
    should = np.where(case.present, shapley(chances), np.nan)
    own, found = shapley(case.table), []
    explained = {method: explain(case, method, seed)[0] for method in METHODS
                 if not method.startswith(("baseline", "bound"))}

    def row(key: str, values: np.ndarray, truth: np.ndarray, unit: str) -> dict:
        return {"id": f"oracle.{key}", **mean_interval(ranks(values, truth), seed, groups=quadruple)._asdict(), "unit": unit}

    for side, players in SIDES.items():
        of = {"": "cells and words", "cells.": "cells", "words.": "words"}[side]
        def best(truth: np.ndarray, key: str, unit: str, known: str = "none", players=players, side=side) -> dict:
            lines = [row(side + key, scores[:, players], truth[:, players], f"{unit}: {method}")
                     for method, scores in explained.items() if not method.endswith(known)]
            return max(lines, key=lambda line: line["value"])

        found += [
            row(f"{side}model_drawn", shapley(drawn(case, test, seed))[:, players], should[:, players],
                f"rank correlation with the oracle, {of}; what is hidden drawn from the data"),
            row(f"{side}model_masked", own[:, players], should[:, players],
                f"rank correlation with the oracle, {of}; hidden cells empty, hidden words masked"),
            best(should, "best_rank_correlation", f"rank correlation with the oracle, {of}"),
            best(np.where(case.present, own, np.nan), "best_rank_correlation_with_model",
                 f"rank correlation with the model's own values, {of}", known="exact"),
        ]
    return found
