"""How good the readers of chapter 2 are on held-out text: generated reviews, and real sentences where they are at hand.

Each seed trains anew, two to four minutes on two cores; the value is the mean over seeds, low the worst, high the best.
"""

import statistics

from benchmarks.studies.real_reviews import train_on
from crossexplain.data import reviews, store
from crossexplain.recipes import reviews as recipe

SEEDS = 3


def rows(seed: int = 0) -> list[dict]:
    """Return the rows of the table, each over three seeds."""
    return [generated(seed), *labelled(seed)]


def generated(seed: int) -> dict:
    """Return the accuracy on generated reviews; each seed has its own sentences and its own division of the phrases."""
    found = []
    for each in range(seed, seed + SEEDS):
        trained = recipe.train(seed=each, split_seed=each)
        found.append(trained.right(reviews.build(1500, "test", each, split_seed=each)).mean())
    return over_seeds("reviews.accuracy", found)


def labelled(seed: int) -> list[dict]:
    """Return the accuracy on the labelled sentences, or no row where these are not at hand."""
    try:
        store.find("labelled-sentences")
    except store.MissingSource as error:
        print(f"labelled_sentences.accuracy is left out, its row stays as it was: {error}")
        return []
    trained = [train_on("labelled-sentences", each, profile="embedded") for each in range(seed, seed + SEEDS)]
    return [over_seeds("labelled_sentences.accuracy", [reader.right(reader.data).mean() for reader in trained])]


def over_seeds(key: str, accuracies: list[float]) -> dict:
    """Return a row: mean, worst and best seed."""
    return {"id": key, "value": float(statistics.fmean(accuracies)), "low": float(min(accuracies)),
            "high": float(max(accuracies)), "n": len(accuracies), "unit": "share, over seeds"}
