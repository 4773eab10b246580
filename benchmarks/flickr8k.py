"""How good early fusion and the dual encoder with a convolutional tower are on Flickr8k's official test split.

Trained with three seeds on what SqueezeNet and MiniLM say, all settings, epochs and thresholds chosen on the validation
split. Matching: 5,000 pairs that belong together and 5,000 dealt at random. Retrieval: each of the 5,000 captions looks for
its photograph among the 1,000. The value is the mean over seeds, the interval a 95 % bootstrap over photographs, whose pairs
stand or fall together; the worst seed has a row of its own. Of the first seed also: captions that read alike in place of random
ones, and the rank correlation with what people said. The courses of all trainings are kept in ``flickr8k_training.csv``, which
chapter 5 shows. The first time the photographs are encoded, some minutes. Heads stay in the local cache, so that a run that was
cut off goes on. Needs the data folder.
"""

import statistics

import numpy as np
import pandas as pd

from benchmarks.studies import retrieval
from benchmarks.studies.agreement import agreement
from crossexplain.files import embedded_folder, write_whole
from crossexplain.intervals import mean_interval
from crossexplain.recipes import Trained, load_or_train
from crossexplain.recipes import flickr8k as recipe
from crossexplain.recipes.encodings import Encoded

SEEDS = 3
COURSES = "flickr8k_training.csv"


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    encoded, seeds = recipe.encode(), range(seed, seed + SEEDS)
    trained = {name: [load_or_train(f"flickr8k_{name}", seed=each, encoded=encoded) for each in seeds] for name in recipe.NAMES}
    lines = pd.DataFrame([line for name, of in trained.items() for each, one in zip(seeds, of)
                          for line in course(name, each, one)])
    write_whole(embedded_folder() / "results" / COURSES, lambda part: lines.to_csv(part, index=False, float_format="%.4f"))
    return [row for name, of in trained.items() for row in rows_of(name, of, encoded, seed)]


def course(name: str, seed: int, trained: Trained) -> list[dict]:
    """Return one line for each epoch."""
    return [{"model": name, "seed": seed, "step": step, "epoch": epoch, "loss": loss, "validation": score}
            for step, history in trained.histories.items()
            for epoch, (loss, score) in enumerate(zip(history.train_loss, history.validation_score), 1)]


def rows_of(name: str, of: list[Trained], encoded: Encoded, seed: int) -> list[dict]:
    """Return the rows of a model, from its trainings."""
    pairs, right, found, seconds = encoded.flickr8k.pairs("test", seed), [], [], []
    order = np.argsort(pairs.image, kind="stable")  # the pairs of a photograph one below the other
    for trained in of:
        right.append(((recipe.logits(trained.part, encoded, pairs).numpy() > 0) == pairs.labels)[order])
        seconds.append(trained.seconds)
        if name == "clip_cnn":
            found.append(retrieval.of_model(trained.part, encoded).image_rank < 10)
    rows = over_seeds(f"flickr8k.{name}.accuracy", right, "share of pairs", seed)
    if found:
        rows += over_seeds(f"flickr8k.{name}.recall_at_10", found, "share of captions, 1,000 photographs", seed)
    alike = encoded.flickr8k.pairs("test", seed, "hard")
    on_alike = (recipe.logits(of[0].part, encoded, alike).numpy() > 0) == alike.labels
    rows.append(row(f"flickr8k.{name}.alike", on_alike[np.argsort(alike.image, kind="stable")],
                    "share of pairs, other captions read alike", seed))
    for kind in ("expert", "crowd"):
        judged = agreement(of[0].part, encoded, kind, seed)
        rows.append({"id": f"flickr8k.{name}.{kind}", **judged._asdict(), "unit": "rank correlation with people's judgements"})
    return [*rows, {"id": f"flickr8k.{name}.seconds", "value": statistics.median(seconds), "low": min(seconds),
                    "high": max(seconds), "n": SEEDS,
                    "unit": "s for training without encoding, median, when the heads were trained"}]


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
