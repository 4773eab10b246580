"""Tables of paths and texts (CSV, TSV, JSON lines), and folders of pictures as Hugging Face's ImageFolder has them."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from crossexplain.checks import InputError
from crossexplain.runs.sources.rows import ENDINGS, LARGEST, Choice, Row, Rows, inside, kinds_of, require_some

Reader = Callable[[str], object]


class Table(Rows):
    """A table in a file of text; its pictures are files."""

    def __init__(self, name: str, path: Path, choice: Choice):
        super().__init__(name, [path], choice)
        self.format, self.root = path.suffix.lower()[1:], Path(choice.root or path.parent).absolute()
        self.readers: dict[str, Reader] = {}
        self.settle(self._kinds())
        require_some((row.picture() for row in self.rows() if row.picture), self.name)

    def _kinds(self) -> dict[str, type]:
        """Go through the whole table once, and say what the columns hold."""
        if self.format == "jsonl":
            return kinds_of(values for _, values in _json_lines(self.files[0]))
        fits: dict[str, list[type]] = {}
        for _, values in _cells(self.files[0]):
            for column, cell in values.items():
                kinds = fits.setdefault(column, [int, float])
                kinds[:] = [kind for kind in kinds if not cell or _is(kind, str(cell))]
        if not fits:
            raise InputError(f"{self.name} has no row beside its header; expected one row an example.")
        self.readers = {column: kinds[0] for column, kinds in fits.items() if kinds}
        return {column: kinds[0] if kinds else str for column, kinds in fits.items()}

    def rows(self) -> Iterator[Row]:
        """Go through the table."""
        for line, values in (_json_lines if self.format == "jsonl" else _cells)(self.files[0]):
            image = self.roles["image"]
            texts = {self.roles["image"], self.roles["text"], self.roles["key"]}
            values = {column: value if column in texts or column not in self.readers else self.readers[column](str(value))
                      if value else None for column, value in values.items()}
            name = values.get(image) if image else None
            if not isinstance(name, str) or not name:
                yield Row(values)
                continue
            path = inside(self.root, name, f"line {line} of {self.name}")
            yield Row(values, partial(Path, path))


class Folder(Rows):
    """Pictures in folders, of which each is named as what they show."""

    format = "folder"

    def __init__(self, name: str, folder: Path, choice: Choice):
        super().__init__(name, [folder], choice)
        self.settle({"image": str, "label": str})

    def describe(self) -> dict[str, object]:
        """Return what the source is."""
        return {"format": self.format, "files": [[self.files[0].name, sum(1 for _ in self.rows())]]}

    def rows(self) -> Iterator[Row]:
        """Go through the folders in the order of their names."""
        top = self.files[0]
        for folder, below, names in os.walk(top):
            below.sort()
            for name in sorted(names):
                if name.lower().endswith(ENDINGS) and not name.startswith("."):
                    path = Path(folder, name)
                    label = path.parent.name if path.parent != top else None
                    yield Row({"image": path.relative_to(top).as_posix(), "label": label}, partial(Path, path))


def _cells(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Go through a table of cells: the number of the line, and the cells by column."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header) or not all(header):
                raise InputError(f"the header of {path.name} is {', '.join(map(repr, header))}; expected distinct names, "
                                 "none of them empty.")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(f"line {reader.line_num} of {path.name} has {len(cells)} cells, the header has "
                                     f"{len(header)}; put a text with a comma or a line break into double quotes.")
                yield reader.line_num, dict(zip(header, cells))
        except csv.Error as error:
            raise InputError(f"line {reader.line_num} of {path.name} cannot be read: {error}; put the quotes right.") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path.name} is not UTF-8 ({error.reason}, after line {reader.line_num}); save it again as "
                             "UTF-8.") from error


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Go through a file with a JSON object a line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"line {number} of {path.name} is no JSON ({error}); put it right or take it out.") from error
            if not isinstance(values, dict):
                raise InputError(f"line {number} of {path.name} is {type(values).__name__}, expected an object with a name for "
                                 'each value, {"file_name": ..., "text": ...}.')
            yield number, values


def _is(kind: type, cell: str) -> bool:
    """Return whether a cell is a number as it is written: ``"007"`` is none, since a label may be written so."""
    try:
        number = kind(cell)
    except ValueError:
        return False
    if kind is int:
        return str(number) == cell and abs(number) < LARGEST
    return number == number and re.match(r"[+-]?(0\d|\d{16})", cell) is None  # so long a number is a name
