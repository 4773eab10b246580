"""What the results of a run say: of all examples, of slices, of methods against each other, of two runs side by side."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from crossexplain.checks import InputError
from crossexplain.gradients import verdict as judging
from crossexplain.gradients.evidence import classes
from crossexplain.gradients.parts import values_of
from crossexplain.gradients.views import FULL, alone, masked
from crossexplain.intervals import Interval, difference_interval, mean_interval
from crossexplain.runs import Results, read

FEW = 30  # examples below which a slice is not judged: its interval would span almost everything
LEVELS = 12  # values up to which a column of numbers is taken as it is, and not cut into quarters
SLICES = 60  # slices that are judged at most, those of the first columns
JUDGED = 20_000  # examples from which a verdict is drawn: of more its intervals would not get narrower than a reader can use
COMPARED = 2_000  # examples on which methods are compared
DRAWS = 300  # bootstrap samples of a slice


@dataclass(frozen=True)
class Slice:
    """Some examples, by one column.

    Attributes
    ----------
    column, value : str
    where : ndarray of bool, shape (N,)
        Of all rows.
    n : int
        Examples that were explained.
    judged : crossexplain.gradients.verdict.Verdict
    """

    column: str
    value: str
    where: np.ndarray
    n: int
    judged: judging.Verdict

    def __str__(self) -> str:
        return f"{self.column}: {self.value}"


class Run:
    """The results of one run, with what the page says of them.

    Parameters
    ----------
    results : crossexplain.runs.Results
    name : str
        For the page.
    size : int, optional
        Bytes of the results on the disk.
    """

    def __init__(self, results: Results, name: str, size: int | None = None):
        self.results, self.name, self.size = results, name, size
        self.modalities, self.ok = results.modalities, results.ok
        self.n = int(self.ok.sum())
        self.configuration = results.manifest["configuration"]
        self.columns = {name: _values(results.table[column]) for name, column in results.manifest["columns"]["data"].items()}
        self.answers = np.array([answer or "" for answer in results.table["verdict"].to_pylist()])  # (N,)

    @classmethod
    def of(cls, folder: str | Path) -> "Run":
        """Read the results in a folder."""
        folder = Path(folder)
        parts = folder.glob("part-*.parquet")
        return cls(read(folder), folder.resolve().name, sum(path.stat().st_size for path in parts))

    def column(self, name: str) -> np.ndarray:
        """Return a column of the results, (N,)."""
        return _values(self.results.table[name])

    @property
    def has_rounds(self) -> bool:
        """Whether the views were recorded from which a verdict is read."""
        return self.n > 1 and alone(self.modalities[0], self.modalities) in self.views

    @property
    def views(self) -> dict[str, str]:
        """The column of each view under the first baseline."""
        return next(iter(self.results.manifest["columns"]["logits"].values()), {})

    @cached_property
    def groups(self) -> np.ndarray | None:
        """The picture of each example, (N,), if the data names it: all of one picture are drawn together."""
        images = self.columns.get("image")
        return None if images is None else np.array([str(image) for image in images])

    @cached_property
    def logits(self) -> dict[str, np.ndarray]:
        """Logits (N, C) by view under the first baseline; NaN where an example failed."""
        return {view: _stacked(self.results.table[column], self.ok) for view, column in self.views.items()}

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predicted class, (N,), -1 where an example failed."""
        return np.array([-1 if value is None else value for value in self.column("predicted")])

    @cached_property
    def evidence(self) -> dict[str, np.ndarray]:
        """Evidence for the followed class by view, (N,); NaN where an example failed."""
        import torch

        target = torch.tensor([value or 0 for value in self.column("target")])
        return {view: np.where(self.ok, values_of({view: torch.from_numpy(np.nan_to_num(values))}, target)[view], np.nan)
                for view, values in self.logits.items()}

    @cached_property
    def right(self) -> np.ndarray | None:
        """Whether the predicted class is the column ``label``, (N,), NaN where an example failed; None without labels."""
        labels = self.columns.get("label")
        if labels is None or not all(value is None or isinstance(value, (bool, int, np.integer)) for value in labels):
            return None
        known = self.ok & np.array([value is not None for value in labels])
        hits = np.array([value is not None and int(value) == answer for value, answer in zip(labels, self.predicted)])
        return np.where(known, hits.astype(float), np.nan) if known.any() else None

    @cached_property
    def dividend(self) -> np.ndarray:
        """What the modalities together have beyond the sum of each alone, of two modalities, (N,)."""
        one, other = self.modalities
        value = self.evidence
        return value[FULL] - value[masked(one)] - value[masked(other)] + value["all masked"]

    def flips(self, modality: str) -> np.ndarray:
        """Return whether the predicted class changes where a modality is masked, (N,), NaN where an example failed."""
        import torch

        changed = [classes(torch.from_numpy(np.nan_to_num(self.logits[view]))).numpy() for view in (FULL, masked(modality))]
        return np.where(self.ok, changed[0] != changed[1], np.nan)

    def mean(self, values: np.ndarray, where: np.ndarray | None = None) -> Interval:
        """Return the mean of values (N,) over the examples that were explained, resampled by picture."""
        rows = self.ok if where is None else self.ok & where
        return mean_interval(np.asarray(values, float)[rows], groups=None if self.groups is None else self.groups[rows])

    @cached_property
    def verdict(self) -> judging.Verdict:
        """Of all examples, or of a sample of :data:`JUDGED`."""
        return self.judged(np.ones(len(self.ok), bool), 1000)

    def judged(self, where: np.ndarray, draws: int) -> judging.Verdict:
        """Return the verdict on some examples."""
        rows = np.flatnonzero(where & self.ok)
        if len(rows) > JUDGED:
            rows = np.sort(np.random.default_rng(0).choice(rows, JUDGED, replace=False))
        chosen = np.zeros(len(self.ok), bool)
        chosen[rows] = True
        return self.results.verdict(chosen, draws=draws, groups=None if self.groups is None else self.groups[rows])

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """The share of examples that rest on each answer, the most frequent first."""
        found, counts = np.unique(self.answers[self.ok], return_counts=True)
        return {str(answer): self.mean(self.answers == answer) for answer in found[np.argsort(-counts)] if answer}

    @cached_property
    def slices(self) -> list[Slice]:
        """The slices of all columns that are large enough to be judged."""
        found: list[Slice] = []
        for column, parts in self._by_all():
            for value, where in parts:
                n = int((where & self.ok).sum())
                if FEW <= n < self.n and len(found) < SLICES:
                    found.append(Slice(column, value, where, n, self.judged(where, DRAWS)))
        return found

    def by_columns(self) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
        """Go through the columns of the data by which the examples are divided."""
        for name, values in self.columns.items():
            if name != "image":
                yield name, divided(values)

    def _by_all(self) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
        """Go through these, and through what the run itself says of the examples."""
        yield from self.by_columns()
        if len(np.unique(self.predicted[self.ok])) > 1:
            yield "predicted class", divided(self.predicted)
        if self.right is not None:
            yield "prediction", [("right", self.right == 1), ("wrong", self.right == 0)]

    def hidden(self) -> list[Slice]:
        """Return the slices that surely say something else than all examples together, the largest first."""
        others = (part for part in self.slices if part.judged.answer not in (self.verdict.answer, "cannot tell"))
        return sorted(others, key=lambda part: -part.n)

    def agreement(self) -> list[tuple[str, str, str, np.ndarray]]:
        """Return for each modality and pair of methods how alike they rank the features of each example, (N,), NaN where none.

        The rank correlation of the sizes of importances, on at most :data:`COMPARED` examples.
        """
        rows = np.flatnonzero(self.ok)
        if len(rows) > COMPARED:
            rows = np.sort(np.random.default_rng(0).choice(rows, COMPARED, replace=False))
        found, known = [], self.results.manifest["columns"]["importance"]
        for modality in self.modalities:
            ranks = {what: self._ranks(of[modality], rows) for what, of in known.items() if modality in of}
            for one, other in combinations(ranks, 2):
                values = np.full(len(self.ok), np.nan)
                values[rows] = [_correlation(x, y) for x, y in zip(ranks[one], ranks[other])]
                found.append((modality, one, other, values))
        return found

    def _ranks(self, column: str, rows: np.ndarray) -> list[np.ndarray]:
        return [rankdata(np.abs(np.asarray(values, float))) for values in self.results.table[column].take(rows).to_pylist()]

    def failures(self) -> list[tuple[str, int, list[str]]]:
        """Return each reason why examples failed, how many, and their first keys, the most frequent first."""
        keys: dict[str, list[str]] = {}
        for key, reason in zip(self.column("key")[~self.ok], self.column("reason")[~self.ok]):
            keys.setdefault(str(reason), []).append(key)
        return sorted(((reason, len(these), these[:5]) for reason, these in keys.items()), key=lambda one: -one[1])


class Pair:
    """Two runs side by side: the examples that both explained, by key.

    Raises
    ------
    InputError
        If they have no example in common.
    """

    def __init__(self, first: Run, second: Run):
        self.first, self.second = first, second
        places = {key: i for i, key in enumerate(second.column("key")) if second.ok[i]}
        rows = [(i, places[key]) for i, key in enumerate(first.column("key")) if first.ok[i] and key in places]
        if not rows:
            raise InputError(f"{first.name} and {second.name} have no explained example in common; expected two runs over the "
                             "same data, whose keys are the same.")
        self.rows = np.array(rows).T  # (2, n)
        self.n = len(rows)

    def values(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return what is compared: for each measure one value an example of each run, (n,)."""
        both, (a, b) = (self.first, self.second), self.rows
        found = {}
        if all(run.right is not None for run in both):
            found["predictions that are right"] = self.first.right[a], self.second.right[b]
        found["predictions of class 1 or above"] = (self.first.predicted[a] > 0) * 1.0, (self.second.predicted[b] > 0) * 1.0
        if all(run.has_rounds for run in both) and self.first.modalities == self.second.modalities:
            for answer in dict.fromkeys([*self.first.shares, *self.second.shares]):
                found[f"rest on: {answer}"] = (self.first.answers[a] == answer) * 1.0, (self.second.answers[b] == answer) * 1.0
            for name in self.first.modalities:
                found[f"flip where the {name} is masked"] = self.first.flips(name)[a], self.second.flips(name)[b]
        return found

    def difference(self, first: np.ndarray, second: np.ndarray, where: np.ndarray | None = None) -> Interval:
        """Return the mean of second less first, paired, resampled by picture."""
        rows = np.ones(self.n, bool) if where is None else where
        groups = self.first.groups
        return difference_interval(second[rows], first[rows], groups=None if groups is None else groups[self.rows[0]][rows])

    def changed(self) -> np.ndarray:
        """Return the examples that changed most: those that rest on something else now, by the change of their evidence."""
        a, b = self.rows
        change = np.abs(self.second.evidence[FULL][b] - self.first.evidence[FULL][a])
        return np.argsort(-(change + change.max() * (self.first.answers[a] != self.second.answers[b])), kind="stable")

    def slices(self) -> Iterator[tuple[str, np.ndarray]]:
        """Go through the slices by columns of the data, as which of the common examples are in each.

        Slices by what the first run says are left out: there the second would differ by chance alone.
        """
        for column, parts in self.first.by_columns():
            for value, where in parts:
                chosen = where[self.rows[0]]
                if FEW <= chosen.sum() < self.n:
                    yield f"{column}: {value}", chosen


def divided(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Divide examples by a column: by its values, or by quarters of many numbers.

    Examples
    --------
    >>> [name for name, _ in divided(np.array(["cat", "dog", "cat", None], object))]
    ['cat', 'dog', 'none']
    """
    present = np.array([value is not None and value == value for value in values])
    levels = sorted(set(values[present].tolist()), key=lambda one: (str(type(one)), one))
    numeric = bool(levels) and all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in levels)
    parts: list[tuple[str, np.ndarray]] = []
    if numeric and len(levels) > LEVELS:
        numbers = np.array([np.nan if not known else float(value) for value, known in zip(values, present)])
        edges = np.unique(np.nanquantile(numbers, [0.25, 0.5, 0.75]))
        for low, high in zip([-np.inf, *edges], [*edges, np.inf]):
            ends = [f"above {low:g}" if low > -np.inf else "", f"up to {high:g}" if high < np.inf else ""]
            parts.append((", ".join(filter(None, ends)), (numbers > low) & (numbers <= high)))
    else:
        frequent = {one for one, _ in Counter(values[present].tolist()).most_common(LEVELS)}
        parts = [(str(one), present & (values == one)) for one in levels if one in frequent]
    return [*parts, ("none", ~present)] if not present.all() else parts


def _values(column: object) -> np.ndarray:
    """Return a column of pyarrow as objects, (N,)."""
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _stacked(column: object, ok: np.ndarray) -> np.ndarray:
    values = column.to_pylist()
    width = len(next(value for value, fine in zip(values, ok) if fine))
    return np.array([value if fine else [np.nan] * width for value, fine in zip(values, ok)], np.float32)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) != len(y) or len(x) < 3 or x.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])
