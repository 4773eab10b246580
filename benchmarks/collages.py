"""How good the fusion model is on held-out pairs, how long it trains, and how fast pairs are built.

Each seed draws its own pairs, weights and order; the value is the mean over three seeds, low the worst and high the best.
``starts`` asks which of two things leaves half of the tasks unlearned: where the LSTM is read, or how it starts.
The time is that of the whole training, tower included, on whatever the machine has. Rows on MNIST are left out where it
is not at hand.
"""

import functools
import itertools
import sys
import time

import numpy as np
import pandas as pd

from crossexplain.data import collages, digits
from crossexplain.data.collages import KINDS, Collages
from crossexplain.data.store import MissingSource
from crossexplain.files import embedded_folder, write_whole
from crossexplain.recipes import Trained, load_or_train
from crossexplain.recipes import collages as recipe
from crossexplain_book.bench import memory, row_of

SEEDS = 3
TEST = 8000  # pairs
mean = functools.partial(row_of, middle=np.mean)  # a row over seeds


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table: three seeds of training, ``repeats`` times the building of pairs."""
    return [*building(seed, repeats), *blind(seed), *starts(seed), *trained("embedded", "digits", "digits8000", seed),
            *mnist(seed)]


def building(seed: int, repeats: int) -> list[dict]:
    """Return how many pairs a second one core builds, and how many it also gathers the images of."""
    bank = digits.load("sklearn")
    collages.build(bank, 40_000, "train", seed)  # what is done only once counts for nobody
    built, gathered = [], []
    for i in range(repeats):
        start = time.perf_counter()
        pairs = collages.build(bank, 40_000, "train", seed + i)
        built.append(40_000 / (time.perf_counter() - start))
        start = time.perf_counter()
        for first in range(0, 4096, 256):
            pairs.inputs(np.arange(first, first + 256))
        gathered.append(4096 / (time.perf_counter() - start))
    return [
        row_of("collage.builder.pairs_per_second", built, "pairs/s, median"),
        row_of("collage.builder.gathered_per_second", gathered, "pairs/s with images, median"),
        *memory("collages", {"builder": lambda: collages.build(bank, 40_000, "train", seed)}),
    ]


def blind(seed: int) -> list[dict]:
    """Return the accuracy of models that were trained with one modality hidden."""
    shipped = load_or_train("collages")
    found = {"image": [], "text": []}
    for s in range(seed, seed + SEEDS):
        train_set, validation = (
            recipe.look(shipped.model, pairs) for pairs in recipe.pairs(shipped.data, 8000, s)
        )
        test = collages.build(shipped.data, TEST, "test", s)
        for alone, without in (("image", "text"), ("text", "image")):
            model = recipe.new_model(shipped.model.tower, s)
            recipe.train_fusion(model, train_set, validation, seed=s, epochs=20, without=without)
            found[alone].append(recipe.accuracy_by_kind(recipe.logits(model, test, without), test)["all"])
    return [mean(f"collage.{alone}_only.accuracy", values, "share, over seeds") for alone, values in found.items()]


def starts(seed: int) -> list[dict]:
    """Train by how the LSTM is read and how large its weights start, five seeds each, and keep ``starts.csv``."""
    shipped = load_or_train("collages")
    lines = []
    for s in range(seed, seed + 5):
        looked, held = (recipe.look(shipped.model, pairs) for pairs in recipe.pairs(shipped.data, 40_000, s))
        test = collages.build(shipped.data, TEST, "test", s)
        counts = test.kind >= KINDS.index("even, precise")
        for read, gain in itertools.product(("max", "last"), (1, 2)):
            model = recipe.new_model(shipped.model.tower, s, read, gain=gain)
            recipe.train_fusion(model, looked, held, seed=s, epochs=8, progress=False)
            right = (recipe.logits(model, test).numpy() > 0) == test.labels
            lines.append((read, gain, s, right.mean(), right[~counts].mean(), right[counts].mean()))
    table = pd.DataFrame(lines, columns=["read", "gain", "seed", "accuracy", "places", "counts"])
    write_whole(embedded_folder() / "results" / "starts.csv",
                lambda part: table.to_csv(part, index=False, float_format="%.4f"))
    return [mean(f"collage.read_{read}.gain_{gain}.accuracy", list(group.accuracy), "share after 8 epochs, over seeds")
            for (read, gain), group in table.groupby(["read", "gain"])]


def trained(profile: str, many: str, few: str, seed: int) -> list[dict]:
    """Return accuracies with 40,000 and 8,000 pairs, by kind, and the time of the former."""
    accuracy, by_kind, smaller, seconds = [], [], [], []
    for s in range(seed, seed + SEEDS):
        start = time.perf_counter()
        model = recipe.train(profile, s)
        seconds.append(time.perf_counter() - start)
        test = collages.build(model.data, TEST, "test", s)
        found = measured(model, test)
        accuracy.append(found["all"])
        by_kind.append([found[kind] for kind in KINDS])
        smaller.append(measured(recipe.train(profile, s, n_pairs=8000, tower=model.model.tower), test)["all"])
    worst = int(np.mean(by_kind, axis=0).argmin())
    timed = "collage.training.seconds" if profile == "full" else f"collage.{many}.training.seconds"
    return [
        mean(f"collage.{many}.accuracy", accuracy, "share, over seeds"),
        mean(f"collage.{many}.worst_kind", [kinds[worst] for kinds in by_kind], f"share, over seeds: {KINDS[worst]}"),
        mean(f"collage.{few}.accuracy", smaller, "share, over seeds"),
        mean(timed, seconds, "s, tower included"),
    ]


def mnist(seed: int) -> list[dict]:
    """Return the rows on MNIST, or none where it is missing."""
    try:
        return trained("full", "mnist40000", "mnist8000", seed)
    except MissingSource as missing:
        print(f"left out: {missing}", file=sys.stderr)
        return []


def measured(model: Trained, test: Collages) -> dict[str, float]:
    """Return the held-out accuracy of all pairs and by kind."""
    return recipe.accuracy_by_kind(recipe.logits(model.model, test), test)
