"""How good the models of chapters 5 and 6 that travel with the book are on held-out scenes.

Pictures of the test split, which no training and no choice has seen. The interval is a 95 % bootstrap over twins: the four
pairs of two pictures and two captions stand or fall together.
"""

import numpy as np

from crossexplain.intervals import mean_interval
from crossexplain.recipes import load_or_train
from crossexplain.recipes import scenes as recipe

UNITS = {"accuracy": "share of pairs, any two pictures", "foils": "share of pictures whose caption outranks its foil",
         "foils_threshold": "share of pairs, one word changed"}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    return [row for name in recipe.NAMES for row in accuracies(name, seed)]


def accuracies(name: str, seed: int) -> list[dict]:
    """Return how often a model is right: on pairs of any two pictures, and on foils by rank and at its one threshold."""
    trained, found = load_or_train(f"scenes_{name}"), []
    for kind in ("random", "foil"):
        pairs = trained.data.build("test", recipe.TEST, seed, kind)
        outputs = recipe.logits(trained.model, pairs)
        right = {"accuracy": ((outputs.numpy() > 0) == pairs.labels).reshape(-1, 4)}
        if kind == "foil":
            right = {"foils": recipe.ranked(outputs), "foils_threshold": right["accuracy"]}
        for what, rows_ in right.items():
            share = rows_.mean(axis=1)
            low_high = mean_interval(share, seed=seed)
            found.append({"id": f"scenes.{name}.{what}", "value": float(np.mean(share)), "low": low_high.low,
                          "high": low_high.high, "n": rows_.size, "unit": UNITS[what]})
    return found
