"""What may go wrong around the package, done on purpose: each fault with what should happen, and what did.

A :class:`Job` writes something and can be asked again; a :class:`Reader` reads a file that something else wrote. Faults of
both are made in :mod:`~benchmarks.studies.faults.jobs` and :mod:`~benchmarks.studies.faults.files`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RIGHT = "right"  # the same result as without the fault
TOLD = "told"  # an error in the package's own words, and nothing lost
SILENT = "silent"  # another result, without a word
LOST = "lost"  # what was finished before is gone, or the same call does not go on
FOREIGN = "foreign"  # an error of another library


@dataclass(frozen=True)
class Outcome:
    """What happened, and the words of the error, or what was lost."""

    kind: str
    words: str = ""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    room : str
        What is written or read.
    what, expected : str
        The fault, and what should happen.
    run : callable
        ``run(folder)`` makes the fault in an empty folder and returns an :class:`Outcome`.
    slow : bool
        Whether it takes more than a second or so, and is left to the command.
    """

    room: str
    what: str
    expected: str
    run: Callable[[Path], Outcome]
    slow: bool = False

    @property
    def name(self) -> str:
        """Of a test."""
        return f"{self.room}: {self.what}"


def asked(call: Callable[[], object], right: object, errors: tuple[type[Exception], ...]) -> Outcome:
    """Return how a call ends: ``right`` is what it gives without a fault, ``errors`` are those that the package documents."""
    try:
        found = call()
    except errors as error:
        return Outcome(TOLD, str(error))
    except Exception as error:  # the point of this call: whatever else comes is another library's
        return Outcome(FOREIGN, f"{type(error).__name__}: {error}")
    return Outcome(RIGHT) if found == right else Outcome(SILENT, f"gives {str(found)[:80]}, expected {str(right)[:80]}")


def leftovers(folder: Path) -> Iterator[Path]:
    """Return what is half-written in a folder."""
    with suppress(OSError):
        yield from folder.rglob("*.part")
