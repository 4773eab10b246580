"""What there is to explain, in which order, and which process does what.

The order of the data alone decides which examples stand together: part k holds the examples from ``k * size`` on. Process
``rank`` of ``world`` does the parts whose number leaves the remainder ``rank``, so no process has to hear of another.
"""

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from itertools import islice
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Protocol

import numpy as np

from crossexplain.checks import InputError, require_one_of

Value = str | int | float | bool | None
Shard = tuple[int, int]
LAUNCHERS = (  # variables that hold rank and world; srun alone sets the second of Slurm's: a batch script is one process
    ("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"))
TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "==": eq, "!=": ne, "<=": le, ">=": ge, "<": lt, ">": gt, "~": lambda value, text: str(text) in str(value)}
CONDITION = re.compile(r"\s*(.+?)\s*(==|!=|<=|>=|<|>|~)\s*(.*?)\s*")
DUPLICATE = "the key {!r} is there twice, expected another for each example; name another column as the key, or number them."


class SourceGone(InputError):
    """The data cannot be reached any more: no example is at fault, and the run stops."""


@dataclass(frozen=True)
class Entry:
    """One example of a data set, before it is read.

    Attributes
    ----------
    key : str
        Stable and unique in the data set.
    load : callable
        Reads the example: ``{"image": picture, "text": str}`` or whatever the model's ``inputs`` take. What it raises is the
        reason of a failed row, but for :class:`SourceGone`, which stops the run.
    columns : mapping of str to str, int, float, bool or None
        What is known of the example without reading it, to choose by and to compare slices by; kept in the results.
    """

    key: str
    load: Callable[[], Mapping[str, object]]
    columns: Mapping[str, Value] = field(default_factory=dict)


class Source(Protocol):
    """A data set as a run reads it.

    Attributes
    ----------
    columns : mapping of str to type
        ``str``, ``int``, ``float`` or ``bool`` of each column, the same for all examples; any value may be None.
    """

    @property
    def columns(self) -> Mapping[str, type]: ...

    def describe(self) -> dict[str, object]:
        """Return what tells this data set from another, fit for JSON and without the folder that it lies in."""

    def entries(self) -> Iterator[Entry]:
        """Give all examples in their own fixed order, unread; may be begun anew at any time."""


@dataclass(frozen=True)
class Selection:
    """Some examples of a source, in its order.

    Parameters
    ----------
    source : Source
    where : sequence of str
        Conditions that all have to hold, such as ``"label == dog"``, ``"words > 8"``, ``"title ~ night"`` (contains). An
        example without the value is left out.
    limit : int, optional
        The most examples.
    """

    source: Source
    where: Sequence[str] = ()
    limit: int | None = None

    def __iter__(self) -> Iterator[Entry]:
        tests = [_condition(text, self.source.columns) for text in self.where]
        return islice((entry for entry in self.source.entries() if all(test(entry.columns) for test in tests)), self.limit)

    def survey(self) -> tuple[int, str]:
        """Return how many examples there are, and one hash of all keys in order; 8 bytes of memory an example.

        Raises
        ------
        InputError
            If there is none, or a key is no text, or is there twice.
        """
        every, marks = sha256(), array("Q")
        for entry in self:
            if not isinstance(entry.key, str) or not entry.key or entry.key != plain_text(entry.key):
                raise InputError(f"example {len(marks)} has the key {entry.key!r}, expected a text of Unicode, not empty.")
            every.update(f"{len(entry.key)} {entry.key}".encode())
            marks.append(_mark(entry.key))
        if not marks:
            raise InputError(f"no example is left of the data ({self.source.describe()}) with where={list(self.where)} and "
                             f"limit={self.limit}; check the conditions.")
        self._require_unique(np.frombuffer(marks, dtype=np.uint64))
        return len(marks), every.hexdigest()

    def _require_unique(self, marks: np.ndarray) -> None:
        ordered = np.sort(marks)
        if (twice := set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())):
            met: set[str] = set()
            for key in (entry.key for entry in self if _mark(entry.key) in twice):  # two keys may share a mark by chance
                if key in met:
                    raise InputError(DUPLICATE.format(key))
                met.add(key)

    def parts(self, size: int, shard: Shard = (0, 1)) -> Iterator[tuple[int, list[Entry]]]:
        """Give number and examples of each part that a process does; one part at a time is in memory."""
        entries, number = iter(self), 0
        while part := list(islice(entries, size)):
            if number % shard[1] == shard[0]:
                yield number, part
            number += 1


def _mark(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")


def plain_text(text: str) -> str:
    """Return a text with halves of characters, which file names and JSON may hold and UTF-8 may not, spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def seed_of(seed: int, key: str) -> int:
    """Return the seed of what is drawn for one example, whatever stands beside it; below 2**32."""
    return _mark(f"{seed} {key}") % 2**32


def _condition(text: str, columns: Mapping[str, type]) -> Callable[[Mapping[str, Value]], bool]:
    parsed = CONDITION.fullmatch(text) if isinstance(text, str) else None
    if parsed is None:
        raise InputError(f"got where={text!r}, expected COLUMN == VALUE, or one of {', '.join(TESTS)} in its place.")
    column, sign, value = parsed.groups()
    require_one_of(column, columns, "where names the column")
    kind, test = columns[column], TESTS[sign]
    wanted: object = value.strip("'\"")
    if kind is bool:
        wanted = {"true": True, "1": True, "false": False, "0": False}.get(str(wanted).lower())
    elif kind in (int, float) and sign != "~":
        try:
            wanted = float(value)
        except ValueError:
            wanted = None
    if wanted is None:
        raise InputError(f"got where={text!r}, but {column} holds {kind.__name__}; compare it with one.")
    return lambda of: of.get(column) is not None and test(of[column], wanted)


def require_shard(shard: object) -> Shard:
    """Return ``(rank, world)`` if it is one: the first of two processes is (0, 2)."""
    try:
        rank, world = map(int, shard)  # type: ignore[call-overload]  # anything may come, and is told below
    except (TypeError, ValueError):
        rank, world = -1, 0
    if not 0 <= rank < world:
        raise InputError(f"got shard={shard!r}, expected the number of this process and of all, (0, 2) and (1, 2) for two.")
    return rank, world


def shard_of(environment: Mapping[str, str]) -> Shard:
    """Return which process of how many this is, as ``accelerate launch``, torchrun or Slurm say it; (0, 1) if none does.

    A job array of which each job starts several processes counts them all.
    """
    outer, inner = (0, 1), (0, 1)
    if "SLURM_ARRAY_TASK_ID" in environment:
        outer = _of_array(environment)
    for rank, world in LAUNCHERS:
        if rank in environment and world in environment:
            inner = require_shard((environment[rank], environment[world]))
            break
    return outer[0] * inner[1] + inner[0], outer[1] * inner[1]


def _of_array(environment: Mapping[str, str]) -> Shard:
    names = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT"
    try:
        number, least, most, count = (int(environment[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise InputError(f"the job array does not say how many jobs it has ({error}); pass --shard RANK/WORLD.") from error
    step, odd = divmod(most - least, max(count - 1, 1))
    if odd or (number - least) % max(step, 1):
        raise InputError(f"the job array runs from {least} to {most} with {count} jobs, which are not evenly apart; number "
                         "them 0-N, or pass --shard RANK/WORLD.")
    return require_shard(((number - least) // max(step, 1), count))
