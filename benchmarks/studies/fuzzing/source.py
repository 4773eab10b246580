"""Where choices come from: a seed, a list of choices to repeat, or a test library that shrinks what fails."""

import random
from collections.abc import Callable, Mapping, Sequence


class Source:
    """Choices by name, and a record of those that are not the first of their options, which is the plainest one.

    Parameters
    ----------
    choose : callable
        Takes a name, the options and the chance of the first; returns the number of an option.
    """

    def __init__(self, choose: Callable[[str, list, float | None], int]):
        self.choose, self.picks = choose, {}

    @classmethod
    def seeded(cls, *seed: int) -> "Source":
        """Return choices drawn from numbers."""
        generator = random.Random(repr(seed))

        def choose(name: str, options: list, usual: float | None) -> int:
            if usual is not None and len(options) > 1:
                return 0 if generator.random() < usual else generator.randrange(1, len(options))
            return generator.randrange(len(options))

        return cls(choose)

    @classmethod
    def repeated(cls, picks: Mapping[str, str]) -> "Source":
        """Return given choices; the first of the options where none is given."""
        return cls(lambda name, options, usual:
                   next((i for i, option in enumerate(options) if str(option) == picks.get(name)), 0))

    def pick(self, name: str, options: Sequence, usual: float | None = None):
        """Return one of the options; ``usual`` is the chance of the first."""
        options = list(options)
        number = self.choose(name, options, usual)
        if number:
            self.picks[name] = str(options[number])
        return options[number]
