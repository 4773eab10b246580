"""Numbers that belong to a turn of a generated conversation, wherever the turn goes: drawn from its seed and nothing else."""

import numpy as np


def uniform(seeds: np.ndarray, salt: int) -> np.ndarray:
    """Return numbers from 0 to below 1, of the shape of ``seeds``: always the same ones for a seed and a salt (splitmix64)."""
    with np.errstate(over="ignore"):
        x = seeds.astype(np.uint64) + np.uint64(salt + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        numbers: np.ndarray = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return numbers


def below(seeds: np.ndarray, salt: int, most: int | np.ndarray) -> np.ndarray:
    """Return whole numbers from 0 to below ``most``, as :func:`uniform` draws them."""
    return (uniform(seeds, salt) * most).astype(np.int64)
