"""Results read as one table, after the proof that every example is there once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from crossexplain.checks import InputError, require_one_of
from crossexplain.files import write_whole
from crossexplain.gradients import verdict as judging
from crossexplain.runs.results import FOOTER, MANIFEST, SCHEMA, arrow, load_manifest, part_path, require_path, sound

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

VERDICT = "verdict"  # the column of what each example rests on


@dataclass(frozen=True)
class Results:
    """All rows of a finished run.

    Attributes
    ----------
    table : pyarrow.Table
        One row an example in the order of the data, as the README of the folder says, and ``"verdict"``: what the example
        rests on (:meth:`crossexplain.gradients.record.Record.each` under the first baseline), null where it failed, or where
        the views were not recorded or the examples are too few.
    manifest : dict
    """

    table: "pa.Table"
    manifest: Mapping[str, Any]

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities."""
        return list(self.manifest["modalities"])

    @cached_property
    def ok(self) -> np.ndarray:
        """Which examples were explained, bool (N,)."""
        return np.asarray(np.asarray(self.table["status"]) == "ok")

    def frame(self) -> "pd.DataFrame":
        """Return the table as pandas reads it."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def logits(self, where: np.ndarray | None = None) -> dict[str, dict[str, Tensor]]:
        """Return the logits (n, C) by baseline and view of the examples that were explained.

        Parameters
        ----------
        where : ndarray of bool, shape (N,), optional
            Only those with True, of all rows of the table.
        """
        rows = self._rows(where)
        return {baseline: {view: torch.tensor(np.stack(_lists(self.table[column], rows))) for view, column in views.items()}
                for baseline, views in self.manifest["columns"]["logits"].items()} if len(rows) else {}

    def importance(self, what: str, modality: str) -> list[np.ndarray | None]:
        """Return the importances of one modality's features, an array an example; None where it failed."""
        known = self.manifest["columns"]["importance"]
        of = known[require_one_of(what, known, "importance")]
        column = self.table[of[require_one_of(modality, of, "modality")]]
        return [None if values is None else np.asarray(values, np.float32) for values in column.to_pylist()]

    def verdict(self, where: np.ndarray | None = None, **settings: Any) -> judging.Verdict:
        """Say what the predictions of some examples rest on.

        Parameters
        ----------
        where
            As for :meth:`logits`.
        **settings
            Of :func:`crossexplain.gradients.verdict.verdict`.

        Raises
        ------
        InputError
            If the run has no rounds, whose views are read.
        """
        self._require_rounds()
        rows = self._rows(where)
        settings = {"seed": self.manifest["configuration"]["seed"]} | settings
        return judging.verdict(self.logits(where), self.modalities, self._target(rows), **settings)

    def each(self) -> list[str | None]:
        """Say of each example what its own prediction rests on, measured from the middle of all; None where that is unknown."""
        rows = self._rows(None)
        told: list[str | None] = [None] * len(self.table)
        if self._has_rounds() and len(rows) >= judging.FEWEST:
            logits = next(iter(self.logits().values()))
            for row, answer in zip(rows, judging.each(logits, self.modalities, self._target(rows))):
                told[row] = str(answer)
        return told

    def _target(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(self.table["target"].take(rows)).astype(np.int64))

    def _rows(self, where: np.ndarray | None) -> np.ndarray:
        chosen = np.ones(len(self.table), bool) if where is None else np.asarray(where)
        if chosen.dtype != bool or chosen.shape != self.ok.shape:
            raise InputError(f"got where as {chosen.dtype} {chosen.shape}, expected bool ({len(self.ok)},), one for each row.")
        return np.flatnonzero(chosen & self.ok)

    def _has_rounds(self) -> bool:
        return any("all masked" in views for views in self.manifest["columns"]["logits"].values())

    def _require_rounds(self) -> None:
        if not self._has_rounds():
            raise InputError("a verdict is read from the views of the rounds, which were not run; run with method='rounds'.")


def read(folder: str | Path) -> Results:
    """Read the results of a finished run.

    Raises
    ------
    InputError
        If there is no run, or not every example is there exactly once; it says how many lack and how to go on.
    """
    folder = require_path(folder, "folder")
    manifest = _manifest(folder)
    table = arrow().concat_tables(list(_parts(folder, manifest)))
    bare = Results(table.replace_schema_metadata({FOOTER: json.dumps({"schema": SCHEMA, "run": manifest["hash"]})}), manifest)
    return Results(bare.table.append_column(VERDICT, [bare.each()]), manifest)


def merge(folder: str | Path, into: str | Path | None = None) -> Path:
    """Prove that every example is there once, and write all rows, with what each rests on, to one file.

    Parameters
    ----------
    folder : str or Path
        Of the results.
    into : str or Path, optional
        Default: ``all.parquet`` in the folder.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        As for :func:`read`.
    """
    table, path = read(folder).table, Path(folder) / "all.parquet" if into is None else require_path(into, "into")
    try:
        return write_whole(path, lambda part: arrow().parquet.write_table(table, part, compression="zstd"))
    except OSError as error:
        raise InputError(f"the table cannot be written to {path} ({error.strerror or error}); name a file.") from error


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = load_manifest(folder)
    if manifest is None:
        state = "a damaged one" if (folder / MANIFEST).exists() else "none"
        raise InputError(f"expected {MANIFEST} of a run in {folder}, there is {state}; `python -m crossexplain explain ... "
                         f"--out {folder}` writes it.")
    return manifest


def _parts(folder: Path, manifest: Mapping[str, Any]) -> Iterator["pa.Table"]:
    """Give all parts in order; raise unless together they hold every key of the data, once and in order."""
    configuration = manifest["configuration"]
    n, size = configuration["data"]["examples"], configuration["part"]
    keys, lacking, total = sha256(), [], -(-n // size)
    if strange := sorted(set(folder.glob("part-*.parquet")) - {part_path(folder, number) for number in range(total)}):
        raise InputError(f"{strange[0].name} is no part of the run in {folder}, and who reads all parts would count its rows; "
                         "move it elsewhere.")
    for number in range(total):
        table = sound(part_path(folder, number), number, manifest["hash"])
        expected = range(number * size, min(n, (number + 1) * size))
        if table is None or table["position"].to_pylist() != list(expected):
            lacking.append(number)
            continue
        for key in table["key"].to_pylist():
            keys.update(f"{len(key)} {key}".encode())
        yield table
    if lacking:
        raise InputError(f"{len(lacking)} of {total} parts in {folder} are missing or broken (first {lacking[0]}); give the "
                         "command of the run again, which does only these.")
    if keys.hexdigest() != configuration["data"]["keys"]:
        raise InputError(f"the keys in {folder} are not those of the data; some part is of other data: run into a new folder.")


def _lists(column: "pa.ChunkedArray", rows: np.ndarray) -> Sequence[np.ndarray]:
    return [np.asarray(values, np.float32) for values in column.take(rows).to_pylist()]
