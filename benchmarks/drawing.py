"""How many scenes a second one core draws, and how many foil pairs it builds, at the default size.

Seconds are those that the processor worked for it, on one thread: what else runs meanwhile does not count.
"""

import time

import numpy as np
import torch

from crossexplain.data import scenes

DRAWN, PAIRS = 512, 2000


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table: median, lowest and highest of ``repeats`` runs."""
    made = scenes.load(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made.images(range(32))  # what is done only once counts for nobody
        drawn = [speed(lambda i=i: made.images(range(i * DRAWN, (i + 1) * DRAWN)), DRAWN) for i in range(repeats)]
        built = [speed(lambda i=i: made.build("train", PAIRS, seed + i, "foil"), PAIRS) for i in range(repeats)]
    finally:
        torch.set_num_threads(threads)
    return [
        row("scenes.images_per_second", drawn, f"images of {made.side} x {made.side} a second of one core, median"),
        row("scenes.foils_per_second", built, "foil pairs without pictures a second of one core, median"),
    ]


def speed(make, n: int) -> float:
    """Return how many are made in a second of one core."""
    start = time.process_time()
    make()
    return n / (time.process_time() - start)


def row(key: str, values: list[float], unit: str) -> dict:
    """Return one row: the median of the values, and their range."""
    return {"id": key, "value": float(np.median(values)), "low": min(values), "high": max(values), "n": len(values),
            "unit": unit}
