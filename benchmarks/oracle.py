"""Is the explainer wrong, or the model? Exact values of the oracle, the model and every explainer, for the cells of collages.

The oracle reads the sentence and knows its rule; what it does not see could be any digit. The model is asked in two ways:
with hidden cells empty, as explainers ask it, and with digits drawn in their place, as the oracle is asked.
"""

import numpy as np
import torch
from scipy.stats import rankdata

from crossexplain.data import collages
from crossexplain.evaluation.intervals import mean_interval
from crossexplain.evaluation.leaderboard import CELLS, METHODS, Asked, explain, shapley
from crossexplain.recipes.collages import load_or_train, look
from crossexplain.recipes.controls import BehindTower

PAIRS, DRAWS = 256, 64


def ranks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rank correlation of sizes over the four cells, NaN where one has no order, (N,)."""
    x, y = (rankdata(np.abs(values).round(9), axis=1) - 2.5 for values in (x, y))  # equal but for rounding is equal
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), size, out=np.full(len(x), np.nan), where=size > 0)


@torch.no_grad()
def drawn(asked: Asked, typical: torch.Tensor, seed: int) -> np.ndarray:
    """Return exact values of the cells, (N, 4), with digits drawn for hidden cells; of the chance that the model sees."""
    sets = (np.arange(16)[:, None] >> np.arange(4)) & 1
    draw = np.random.default_rng(seed).integers(0, 10, (len(asked), 16, DRAWS, 4))
    filled = np.where(sets[None, :, None], asked.test.digits[:, None, None], draw)
    said, values = asked.model.read(asked.tokens), []
    for four, sentence in zip(torch.from_numpy(filled), said):
        seen = typical[four].flatten(0, 1)  # (16 * draws, 4, 10)
        logit = asked.model.match(asked.model.see(seen), sentence.expand(len(seen), *sentence.shape))
        values.append(logit.sigmoid().double().reshape(16, DRAWS).mean(dim=1).numpy())
    return shapley(np.stack(values))


def rows(seed: int = 0) -> list[dict]:
    """Compare all with the oracle and with the model's own values."""
    trained = load_or_train(progress=False)
    test = collages.build(trained.digits, PAIRS, "test", seed + 2)
    seen = look(trained.model, test).inputs["seen"].reshape(-1, 4, 10)
    asked, quadruple = Asked(BehindTower(trained.model).eval(), seen, test), np.arange(PAIRS) // 4
    typical = torch.stack([seen[torch.from_numpy(test.digits == digit)].mean(dim=0) for digit in range(10)])
    should = shapley(collages.chances(test.digits, test.sentence_id))
    own = shapley(asked.table[:, 16 * 255 + np.arange(16)])

    def row(key: str, values: np.ndarray, truth: np.ndarray, unit: str) -> dict:
        found = mean_interval(ranks(values, truth), seed, groups=quadruple)
        return {"id": f"oracle.{key}", **found._asdict(), "unit": unit}

    found = [row("model_drawn", drawn(asked, typical, seed), should, "rank correlation with the oracle, hidden cells drawn"),
             row("model_empty", own, should, "rank correlation with the oracle, hidden cells empty")]
    explained = {method: explain(asked, method, seed)[0][:, :CELLS] for method in METHODS if not method.startswith("baseline")}
    against = [row("best_rank_correlation", cells, should, f"rank correlation with the oracle: {method}")
               for method, cells in explained.items()]
    nearest = [row("best_rank_correlation_with_model", cells, own, f"rank correlation with the model's own values: {method}")
               for method, cells in explained.items()]
    return [*found, *(max(lines, key=lambda line: line["value"]) for lines in (against, nearest))]
