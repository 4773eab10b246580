"""How good early fusion and the dual encoder with a convolutional tower are on Flickr8k's official test split.

Trained with three seeds on what EfficientNet-Lite0 and MiniLM say, all settings, epochs and thresholds chosen on the validation
split. Matching: 5,000 pairs that belong together and 5,000 dealt at random. Retrieval: each of the 5,000 captions looks for
its photograph among the 1,000. Foils: the caption has to outrank the same with one word changed; beside them, how often the
new word is the rarer one, which tells it without a photograph. The value is the mean over
seeds, the interval a 95 % bootstrap over photographs, whose pairs stand or fall together; the worst seed has a row of its own.
Of the first seed also: captions that read alike in place of random ones, and the rank correlation with what people said. The
courses of all trainings are kept in ``flickr8k_training.csv``, which chapter 5 shows. The first time the photographs are
encoded, some minutes. Heads stay in the local cache, so that a run that was cut off goes on; with seed 0 its two heads become
those that travel. Needs the data folder. Rows with ``squeezenet`` in place of ``lite0`` were measured
in the same way on heads that were trained before with other settings and without mirror images.
"""

import statistics

import numpy as np
import pandas as pd

from benchmarks.studies import retrieval
from benchmarks.studies.agreement import agreement
from benchmarks.studies.foils import WORDS, Foils, build, noticed, rarer
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
    if seed == 0:
        for of in trained.values():
            recipe.hand_on(of[0])
    foils = build(encoded.flickr8k, "test", seed)
    found = [row for name, of in trained.items() for row in rows_of(name, of, encoded, foils, seed)]
    return [*found, both([row for row in found if row["id"].endswith(".foils")]), *by_words(encoded, foils, seed)]


def by_words(encoded: Encoded, foils: Foils, seed: int) -> list[dict]:
    """Return a row a kind of foil, of what the words give away."""
    told, kinds = rarer(encoded.flickr8k, foils), np.array(foils.kinds)
    return [row(f"flickr8k.foils.words.{kind}", told[kinds == kind], foils.image[kinds == kind],
                "share of captions whose changed word is rarer in the training captions, no model", seed) for kind in WORDS]


def both(rows_: list[dict]) -> dict:
    """Return the row of foils over both models; the interval is as wide as theirs together."""
    return {"id": "flickr8k.lite0.foils", "value": statistics.mean(row["value"] for row in rows_),
            "low": min(row["low"] for row in rows_), "high": max(row["high"] for row in rows_), "n": rows_[0]["n"],
            "unit": "share of captions that outrank their foil, mean of both models and all seeds"}


def course(name: str, seed: int, trained: Trained) -> list[dict]:
    """Return one line for each epoch."""
    return [{"model": name, "seed": seed, "step": step, "epoch": epoch, "loss": loss, "validation": score}
            for step, history in trained.histories.items()
            for epoch, (loss, score) in enumerate(zip(history.train_loss, history.validation_score), 1)]


def rows_of(name: str, of: list[Trained], encoded: Encoded, foils: Foils, seed: int) -> list[dict]:
    """Return the rows of a model, from its trainings."""
    pairs, key = encoded.flickr8k.pairs("test", seed), f"flickr8k.lite0.{name}"
    right = [(recipe.logits(trained.part, encoded, pairs).numpy() > 0) == pairs.labels for trained in of]
    rows = over_seeds(f"{key}.accuracy", right, pairs.image, "share of pairs", seed)
    if name == "clip_cnn":
        found = [retrieval.of_model(trained.part, encoded) for trained in of]
        rows += over_seeds(f"{key}.recall_at_10", [one.image_rank < 10 for one in found],
                           encoded.flickr8k.image_of[found[0].captions], "share of captions, 1,000 photographs", seed)
    told, kinds = [noticed(trained.part, encoded, foils) for trained in of], np.array(foils.kinds)
    rows += over_seeds(f"{key}.foils", told, foils.image, "share of captions that outrank their foil", seed)
    for kind in WORDS:
        some = kinds == kind
        rows.append(row(f"{key}.foils.{kind}", np.mean(told, axis=0)[some], foils.image[some],
                        f"share of captions that outrank their foil, mean of {len(of)} seeds", seed))
    alike = encoded.flickr8k.pairs("test", seed, "hard")
    on_alike = (recipe.logits(of[0].part, encoded, alike).numpy() > 0) == alike.labels
    rows.append(row(f"{key}.alike", on_alike, alike.image, "share of pairs, other captions read alike", seed))
    for kind in ("expert", "crowd"):
        judged = agreement(of[0].part, encoded, kind, seed)
        rows.append({"id": f"{key}.{kind}", **judged._asdict(), "unit": "rank correlation with people's judgements"})
    seconds = [trained.seconds for trained in of]
    return [*rows, {"id": f"{key}.seconds", "value": statistics.median(seconds), "low": min(seconds),
                    "high": max(seconds), "n": SEEDS,
                    "unit": "s for training without encoding, median, when the heads were trained"}]


def over_seeds(key: str, hits: list[np.ndarray], images: np.ndarray, unit: str, seed: int) -> list[dict]:
    """Return a row with the mean over seeds and one with the worst, each with its interval over the photographs."""
    hits = np.stack(hits)  # (seeds, N)
    worst = hits[hits.mean(axis=1).argmin()]
    return [row(key, hits.mean(axis=0), images, f"{unit}, mean of {len(hits)} seeds", seed),
            row(f"{key}.worst", worst, images, f"{unit}, worst of {len(hits)} seeds", seed)]


def row(key: str, values: np.ndarray, images: np.ndarray, unit: str, seed: int) -> dict:
    """Return a row of the mean of values, of which those of one photograph stand or fall together."""
    return {"id": key, **mean_interval(values, seed=seed, groups=images)._asdict(), "n": len(values), "unit": unit}
