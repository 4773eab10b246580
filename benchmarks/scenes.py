"""How good the models of chapters 5 and 6 that travel with the book are on held-out scenes.

Pictures of the test split, which no training and no choice has seen. The interval is a 95 % bootstrap over twins: the four
pairs of two pictures and two captions stand or fall together.
"""

import numpy as np

from crossexplain.evaluation.intervals import mean_interval
from crossexplain.recipes import scenes as recipe

WHAT = {"random": "accuracy", "foil": "foils"}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    return [row(name, kind, seed) for name in recipe.NAMES for kind in WHAT]


def row(name: str, kind: str, seed: int) -> dict:
    """Return the accuracy of a model on pairs of a kind."""
    trained = recipe.load_or_train(name)
    pairs = trained.data.build("test", recipe.TEST, seed, kind)
    right = (recipe.logits(trained.model, pairs).numpy() > 0) == pairs.labels
    found = mean_interval(right.reshape(-1, 4).mean(axis=1), seed=seed)
    return {"id": f"scenes.{name}.{WHAT[kind]}", "value": float(np.mean(right)), "low": found.low, "high": found.high,
            "n": len(pairs), "unit": f"share, {'any two pictures' if kind == 'random' else 'one word changed'}"}
