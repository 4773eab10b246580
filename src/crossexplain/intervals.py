"""Numbers that carry their uncertainty: a value with its interval, and its bootstrap and Wilson makers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """A value with its interval.

    Attributes
    ----------
    value, low, high : float
        The estimate and the ends of its 95 % interval.
    n : int
        Number of independent examples that it rests on.

    Examples
    --------
    >>> f"{Interval(0.5, 0.4, 0.61, 20):.2f}"
    '0.50 [0.40, 0.61]'
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Format as ``value [low, high]``, each number with ``spec`` (default ``.3f``)."""
        spec = spec or ".3f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def mean_interval(values: ArrayLike, seed: int = 0, level: float = 0.95, draws: int = 2000,
                  groups: ArrayLike | None = None) -> Interval:
    """Bootstrap interval of the mean over examples.

    Parameters
    ----------
    values : array_like, shape (N,)
        One number an example; NaN entries (undefined examples) are left out and not counted in ``n``.
    seed : int
        Seed of the resampling.
    level : float
        Coverage.
    draws : int
        Number of bootstrap samples (percentile bootstrap, Efron 1979).
    groups : array_like, shape (N,), optional
        Examples with the same value, such as all captions of one image, stand or fall together: whole groups are drawn.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If no value is defined.

    Examples
    --------
    >>> mean_interval([1.0, 1.0, float("nan")])
    Interval(value=1.0, low=1.0, high=1.0, n=2)
    """
    numbers = np.asarray(values, dtype=float).ravel()
    defined = ~np.isnan(numbers)
    if not defined.any():
        raise ValueError("no defined value to average: 0 of the examples have one; check the filter before.")
    if groups is not None:
        return _of_groups(numbers[defined], np.asarray(groups).ravel()[defined], seed, level, draws)
    numbers, rng = numbers[defined], np.random.default_rng(seed)
    means = np.array([numbers[rng.integers(0, numbers.size, numbers.size)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), int(numbers.size))


def _of_groups(values: np.ndarray, groups: np.ndarray, seed: int, level: float, draws: int) -> Interval:
    distinct, member = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(member.ravel(), values), np.bincount(member.ravel())
    counts = np.random.default_rng(seed).multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=draws)
    low, high = np.quantile((counts @ sums) / (counts @ sizes), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(distinct))


def difference_interval(first: ArrayLike, second: ArrayLike, seed: int = 0, level: float = 0.95,
                        groups: ArrayLike | None = None) -> Interval:
    """Paired bootstrap interval of ``mean(first - second)`` over the examples where both are defined.

    Parameters
    ----------
    first, second : array_like, shape (N,)
        The same examples in the same order.
    groups : array_like, shape (N,), optional
        As for :func:`mean_interval`.

    Returns
    -------
    Interval
    """
    first, second = np.asarray(first, dtype=float).ravel(), np.asarray(second, dtype=float).ravel()
    if first.shape != second.shape:
        raise ValueError(f"got {first.size} and {second.size} values; a paired difference needs the same examples.")
    return mean_interval(first - second, seed=seed, level=level, groups=groups)


def share_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a share (Wilson 1927).

    Parameters
    ----------
    successes, n : int
        How many of how many.
    level : float
        Coverage.

    Examples
    --------
    >>> f"{share_interval(9, 10):.2f}"
    '0.90 [0.60, 0.98]'
    """
    from scipy.stats import binomtest  # slow to import, and most intervals are of means

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"got {successes} of {n}, expected 0 <= successes <= n and n >= 1.")
    share = successes / n
    low, high = binomtest(int(successes), int(n)).proportion_ci(level, "wilson")
    # At 0 and n one end is the share itself; rounding puts it a hair inside.
    return Interval(share, min(float(low), share), max(float(high), share), int(n))
