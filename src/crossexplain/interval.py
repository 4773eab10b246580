"""A number that carries its uncertainty."""

from typing import NamedTuple


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
