"""Inputs drawn at random for everything that reads one: loaders, the command line, public functions.

A :class:`Room` draws an input, places it, and asks. Allowed are a result and the errors that the room documents; a result or
an error of another kind, a changed file of before, or a file that is left half-written count as faults.
"""

import logging
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

RESULT, REFUSED = "result", "refused"
FOREIGN, LOST, LEFT, WORDLESS = "foreign", "lost", "left behind", "without words"
FAULTS = FOREIGN, LOST, LEFT, WORDLESS
PATIENCE = 30  # seconds after which an answer is no longer waited for


class Late(BaseException):
    """An answer takes too long."""


@dataclass(frozen=True)
class Room:
    """One reader of inputs.

    Attributes
    ----------
    name : str
    inputs : SearchStrategy
        Draws what is placed.
    place : callable
        ``place(folder, drawn)`` writes files into an empty folder and returns what ``ask`` takes.
    ask : callable
        Returns anything, or raises.
    errors : tuple of exceptions
        That are documented.
    weight : float
        How many inputs it gets, beside other rooms.
    mends : bool
        Whether it may write files of before anew.
    """

    name: str
    inputs: SearchStrategy
    place: Callable[[Path, Any], Any]
    ask: Callable[[Any], object]
    errors: tuple[type[BaseException], ...]
    weight: float = 1.0
    mends: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one input: its kind, and the words of the error with the place that raised it."""

    kind: str
    words: str = ""


def tried(room: Room, drawn: object) -> Outcome:
    """Place one input in an empty folder and ask."""
    with TemporaryDirectory(prefix="input-") as name:
        folder = Path(name).resolve()
        placed = room.place(folder, drawn)
        before = _contents(folder)
        outcome = _asked(room, placed)
        after = _contents(folder)
    if not room.mends and (changed := [path for path, content in before.items() if after.get(path) != content]):
        return Outcome(LOST, f"{changed[0].relative_to(folder)} is not as it was, after: {outcome.words}")
    if parts := [path for path in after if path.name.endswith(".part") and path not in before]:
        return Outcome(LEFT, f"{parts[0].relative_to(folder)} is left, after: {outcome.words}")
    return outcome


def counted(room: Room, inputs: int, number: int = 0) -> Iterator[tuple[object, Outcome]]:
    """Draw inputs and give each with its outcome; a room of few different inputs gives fewer."""
    found: list[tuple[object, Outcome]] = []

    @seed(number)
    @settings(max_examples=inputs, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(room.inputs)
    def draw(drawn: object) -> None:
        found.append((drawn, tried(room, drawn)))

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # thousands of files would say that they are damaged
    try:
        draw()
    finally:
        logging.disable(before)
    yield from found


def _asked(room: Room, placed: object) -> Outcome:
    try:
        with warnings.catch_warnings(record=True), _patient():  # thousands of inputs would say the same thousands of times
            warnings.simplefilter("always")
            room.ask(placed)
    except room.errors as error:
        text = str(error)
        return Outcome(REFUSED, text) if text.strip() else Outcome(WORDLESS, type(error).__name__)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever else comes is what is looked for
        return Outcome(FOREIGN, f"{type(error).__name__} at {_where(error)}: {' '.join(str(error).split())[:300]}")
    return Outcome(RESULT)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/src/crossexplain" in frame.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"


@contextmanager
def _patient() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise Late(f"no answer after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _contents(folder: Path) -> dict[Path, bytes]:
    """Return all files below a folder; the locks of those who write are no content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
            and path.suffix != ".lock" and ".verified" not in path.parts}
