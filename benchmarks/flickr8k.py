"""How good early fusion and the dual encoder with a convolutional tower are on Flickr8k's official test split.

Trained with three seeds on what SqueezeNet and MiniLM say, all settings, epochs and thresholds chosen on the validation
split. Matching: 5,000 pairs that belong together and 5,000 dealt at random. Retrieval: each of the 5,000 captions looks for
its photograph among the 1,000. The value is the mean over seeds, the interval a 95 % bootstrap over photographs, whose pairs
stand or fall together; the worst seed has a row of its own. The first time the photographs are encoded, some minutes. Needs
the data folder.
"""

import statistics

import numpy as np

from crossexplain.evaluation.intervals import mean_interval
from crossexplain.recipes import flickr8k as recipe

SEEDS = 3


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    encoded = recipe.encode()
    return [row for name in recipe.NAMES for row in rows_of(name, encoded, seed)]


def rows_of(name: str, encoded: recipe.Encoded, seed: int) -> list[dict]:
    """Return the rows of a model."""
    pairs, right, found, seconds = encoded.data.pairs("test", seed), [], [], []
    order = np.argsort(pairs.image, kind="stable")  # the pairs of a photograph one below the other
    for each in range(seed, seed + SEEDS):
        trained = recipe.train(name, each, encoded=encoded)
        right.append(((recipe.logits(trained.head, encoded, pairs).numpy() > 0) == pairs.labels)[order])
        seconds.append(trained.seconds)
        if name == "clip_cnn":
            found.append(recipe.retrieval(trained.head, encoded).image_rank < 10)
    rows = over_seeds(f"flickr8k.{name}.accuracy", right, "share of pairs", seed)
    if found:
        rows += over_seeds(f"flickr8k.{name}.recall_at_10", found, "share of captions, 1,000 photographs", seed)
    return [*rows, {"id": f"flickr8k.{name}.seconds", "value": statistics.median(seconds), "low": min(seconds),
                    "high": max(seconds), "n": SEEDS, "unit": "s for training without encoding, median"}]


def over_seeds(key: str, hits: list[np.ndarray], unit: str, seed: int) -> list[dict]:
    """Return a row with the mean over seeds and one with the worst, each with its interval over the 1,000 photographs."""
    hits = np.stack(hits)  # (seeds, all of the first photograph, all of the second, ...)
    worst = hits[hits.mean(axis=1).argmin()]
    return [row(key, hits.mean(axis=0), f"{unit}, mean of {len(hits)} seeds", seed),
            row(f"{key}.worst", worst, f"{unit}, worst of {len(hits)} seeds", seed)]


def row(key: str, values: np.ndarray, unit: str, seed: int) -> dict:
    """Return a row of the mean of values that come photograph by photograph."""
    found = mean_interval(values.reshape(1000, -1).mean(axis=1), seed=seed)
    return {"id": key, "value": float(values.mean()), "low": found.low, "high": found.high, "n": len(values), "unit": unit}
