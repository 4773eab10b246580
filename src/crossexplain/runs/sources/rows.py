"""Rows with a picture, a text and anything else: which column is which, and the entries that they become."""

import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import photos
from crossexplain.runs.plan import Entry, SourceGone, Value

USUAL = {  # names of columns that are taken for an input or a key without a word of the caller
    "image": ("image", "file_name", "filename", "path", "filepath", "image_path", "picture", "photo"),
    "text": ("text", "caption", "captions", "sentence", "sentences"),
    "key": ("key", "id", "__key__"),
}
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SINGLE = (str, int, float, bool)
LARGEST = 2**63  # from which on a whole number does not fit into a column of the results
LONGEST = 10_000  # characters of a text: no model reads more, and longer ones are files that are no text


@dataclass(frozen=True)
class Row:
    """One row of a source.

    Attributes
    ----------
    values : dict
        By column; that of the image holds its name.
    picture : callable, optional
        Returns what :func:`crossexplain.data.photos.picture` reads.
    broken : str
        Why the row cannot be read, if it cannot.
    """

    values: Mapping[str, object]
    picture: Callable[[], Path | BinaryIO] | None = None
    broken: str = ""


@dataclass(frozen=True)
class Choice:
    """What the caller said of the columns: which is what, and the folder of files that a table names."""

    image: str | None = None
    text: str | None = None
    key: str | None = None
    root: Path | None = None


class Rows(ABC):
    """A source of rows; subclass it with :meth:`rows`, and call :meth:`settle` once the columns are known.

    Attributes
    ----------
    name, format : str
        How it was named, and what kind it is.
    files : list of Path
        What it is read from.
    columns : dict of str to type
        Columns that are no input: those of the data with single values, ``"image"`` (the name of the picture) and ``"words"``
        (how many the text has).
    """

    format = "rows"

    def __init__(self, name: str, files: Iterable[Path], choice: Choice):
        self.name, self.files, self.choice = name, list(files), choice
        self.roles: dict[str, str | None] = {}
        self.columns: dict[str, type] = {}

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Go through all rows in their order; no picture is read. May be called again at any time."""

    def settle(self, columns: Mapping[str, type]) -> None:
        """Decide which column is which; ``columns`` names all, with the type of their values (object: none that is kept)."""
        self.roles = {what: self._role(what, columns) for what in USUAL}
        if self.roles["image"] is None and self.roles["text"] is None:
            raise InputError(f"{self.name} has the columns {', '.join(columns) or 'none'}: none has a usual name of pictures "
                             f"or texts ({', '.join((*USUAL['image'], *USUAL['text']))}); name them with image= and text=.")
        inputs = {*self.roles.values(), *(column for column in columns if column.lower() in USUAL["text"])}
        self.columns = {column: kind for column, kind in columns.items() if column not in inputs and kind in SINGLE}
        self.columns |= {"image": str} if self.roles["image"] else {}
        self.columns |= {"words": int} if self.roles["text"] else {}

    def _role(self, what: str, columns: Iterable[str]) -> str | None:
        """Return the column that was named, or the only one of a usual name."""
        if (given := getattr(self.choice, what)) is not None:
            return str(require_one_of(given, columns, f"the column of {self.name} for {what}"))
        found = [column for column in columns if column.lower() in USUAL[what]]
        if len(found) > 1:
            raise InputError(f"the columns {' and '.join(map(repr, found))} of {self.name} may each be the {what}; say which "
                             f"it is with {what}={found[0]!r}.")
        return found[0] if found else None

    def describe(self) -> dict[str, object]:
        """Return what the source is, without a folder's name: the same data elsewhere is the same."""
        return {"format": self.format, "files": [[path.name, path.stat().st_size] for path in self.files],
                **{what: column for what, column in self.roles.items() if column}}

    def entries(self) -> Iterator[Entry]:
        """Go through all examples in their order; nothing is decoded. A row with several texts is as many examples."""
        counters: dict[object, count[int]] = defaultdict(count)
        image, text, key = self.roles["image"], self.roles["text"], self.roles["key"]
        for number, row in enumerate(self.rows()):
            texts = row.values.get(text) if text else None
            several = isinstance(texts, (list, tuple))
            picture = row.values.get(image) if image else None
            for k, words in enumerate(texts if isinstance(texts, (list, tuple)) else [texts]):
                if key:
                    named = row.values.get(key)
                    name = f"row {number:06d} has no key" if named in (None, "") else f"{named}#{k}" if several else str(named)
                elif picture:
                    name = f"{picture}#{next(counters[str(picture)])}"
                else:
                    name = f"{number:06d}#{k}" if several else f"{number:06d}"
                columns = {column: _single(row.values.get(column), kind) for column, kind in self.columns.items()}
                columns |= {"image": _single(picture, str)} if image else {}
                columns |= {"words": len(words.split()) if isinstance(words, str) else 0} if text else {}
                yield Entry(str(_single(name, str)), Loader(self, row, words), columns)

    def gone(self) -> Path | None:
        """Return the first file of the source that is no longer there."""
        return next((path for path in self.files if not os.path.exists(path)), None)


@dataclass(frozen=True)
class Loader:
    """Reads one example; called without arguments."""

    source: Rows = field(repr=False)
    row: Row
    text: object

    def __call__(self) -> dict[str, object]:
        """Return ``"image"`` and ``"text"``.

        Raises
        ------
        InputError
            Where this example cannot be read.
        SourceGone
            Where the whole source is no longer there.
        """
        try:
            return self._read()
        except (InputError, OSError) as error:
            if (path := self.source.gone()) is not None:
                raise SourceGone(f"{path} is no longer there; bring it back and type the same command again, what is finished "
                                 "is kept.") from error
            raise error if isinstance(error, InputError) else InputError(str(error)) from error

    def _read(self) -> dict[str, object]:
        if self.row.broken:
            raise InputError(self.row.broken)
        found: dict[str, object] = {}
        if self.source.roles["image"]:
            if self.row.picture is None:
                raise InputError("there is no picture.")
            found["image"] = photos.picture(self.row.picture())
        if self.source.roles["text"]:
            found["text"] = read_text(self.text)
        return found


def read_text(text: object) -> str:
    """Return a text, or say in an :class:`InputError` what is wrong with it."""
    if text is None or isinstance(text, str) and not text.strip():
        raise InputError("the text is empty.")
    if not isinstance(text, str):
        raise InputError(f"the text is of type {type(text).__name__}, expected a string.")
    if len(text) > LONGEST:
        raise InputError(f"the text has {len(text):,} characters, at most {LONGEST:,} are read.")
    return text


def _single(value: object, kind: type) -> Value:
    """Return a value of a column, None where it is none or of another type; text that is no Unicode is spelled out."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int:
        return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST else None
    if isinstance(value, str) and kind is str:
        return value.encode("utf-8", "backslashreplace").decode()
    return value if isinstance(value, kind) and isinstance(value, SINGLE) else None


def kinds_of(rows: Iterable[Mapping[str, object]]) -> dict[str, type]:
    """Return the columns of rows with the type that all values have, ``object`` where they have none in common."""
    found: dict[str, set[type]] = {}
    for row in rows:
        for column, value in row.items():
            found.setdefault(column, set())
            if value is not None:
                found[column].add(type(value))
    return {column: next(iter(kinds)) if len(kinds) == 1 else float if kinds == {int, float} else object
            for column, kinds in found.items()}


def inside(root: Path, name: str, where: str) -> Path:
    """Return the path of a file that a table names; it has to lie in the folder ``root``."""
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(os.path.normpath(root)):
        raise InputError(f"{where} names {name!r}, which lies outside of {root}; name the folder of all files with root=.")
    return path


def require_some(paths: Iterable[Any], where: str) -> None:
    """Refuse a table of which none of the first hundred files is there: the folder is another one."""
    first = list(islice((path for path in paths if path is not None), 100))
    if first and not any(map(os.path.exists, first)):  # where a name is too long, Path.exists raises
        raise InputError(f"none of the first {len(first)} files that {where} names is there, for example {first[0]}; name the "
                         "folder in which they lie with root=.")
