"""Archives in WebDataset's form: tars whose members of one stem are one example, read where they lie, never unpacked.

An archive that names a file outside of itself, holds links or devices, or would unpack to far more than it is, is refused.
"""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import islice
from os import getpid
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from crossexplain.checks import InputError
from crossexplain.data.photos import PhotoError
from crossexplain.runs.sources.rows import ENDINGS, Choice, Row, Rows, kinds_of

TEXTS = (".txt", ".caption", ".text")  # members that hold the text of an example
MEMBER = 256 << 20  # bytes of the largest member that is read, and of any one step in the archive
SMALL = 1 << 20  # bytes of the largest text or JSON member
RATIO, FREE = 200, 64 << 20  # an archive may unpack to this many times its size, and to FREE in any case
OWN = ("__key__", "shard", "shard_key", "image", "txt")  # columns that are not taken from JSON members
PEEKED = 100  # examples that tell which columns there are
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Member(NamedTuple):
    """A file in an archive: its ending, where its content begins, and how long it is."""

    ending: str
    start: int
    size: int


class Archives(Rows):
    """One or several tars; a shard is read when its turn comes.

    The key is the stem of the members. Where stems begin anew in every shard, take ``key="shard_key"``, which is the name of
    the archive and the stem. Columns are those of the JSON members, ``label`` (of ``.cls``) and ``shard``.
    """

    format = "webdataset"

    def __init__(self, name: str, paths: list[Path], choice: Choice):
        super().__init__(name, paths, choice)
        first = [dict(row.values) for row in islice(self.rows(), PEEKED)]
        if not first:
            raise InputError(f"{self.name} holds no file; expected members such as 000001.jpg and 000001.txt.")
        kinds = kinds_of(first)
        self.choice = Choice(choice.image or ("image" if "image" in kinds else None),
                             choice.text or ("txt" if "txt" in kinds else None),
                             choice.key or "__key__")
        self.settle(kinds)
        self.columns.pop("__key__", None)
        self.columns.pop("shard_key", None)

    def rows(self) -> Iterator[Row]:
        """Go through the examples of all archives."""
        for path in self.files:
            for stem, members in _samples(path):
                yield _row(path, stem, members)


def _row(path: Path, stem: str, members: list[Member]) -> Row:
    """Return one example: JSON members give columns, ``.cls`` the label, and one picture may be there."""
    values: dict[str, object] = {"__key__": stem, "shard": path.name, "shard_key": f"{path.name}/{stem}"}
    broken, picture = "", None
    for ending, start, size in members:
        if ending.endswith(ENDINGS):
            values["image"] = f"{stem}{ending}"
            picture = partial(_opened, path, f"{stem}{ending}", start, size)
        elif ending in (*TEXTS, ".json", ".cls"):
            try:
                text = _content(path, start, size).decode() if size <= SMALL else None
                if text is None:
                    raise ValueError(f"it has {size:,} bytes, at most {SMALL:,} are read")
                values |= _values(ending, text)
            except (ValueError, RecursionError) as error:
                broken = f"{stem}{ending} cannot be read: {error}."
    return Row(values, picture, broken)


def _values(ending: str, text: str) -> dict[str, object]:
    if ending == ".cls":
        return {"label": int(text)}
    if ending in TEXTS:
        return {"txt": text.strip()}
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("expected a JSON object")
    return {name: value for name, value in values.items() if name not in OWN}


def _samples(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """Go through an archive by its headers: the stem of each example with its members."""
    stem: str | None = None
    members: list[Member] = []
    for name, start, size in _headers(path):
        base = PurePosixPath(name)
        first, dot, ending = base.name.partition(".")
        if not first:  # hidden files, which a Mac adds
            continue
        this = str(base.with_name(first))
        if this != stem and stem is not None:
            yield stem, members
            members = []
        stem, ending = this, (dot + ending).lower()
        if any(ending == member.ending for member in members):
            raise InputError(f"{path.name} holds {name} twice in a row; make the archive again.")
        members.append(Member(ending, start, size))
    if stem is not None:
        yield stem, members


def _headers(path: Path) -> Iterator[tuple[str, int, int]]:
    """Go through the files of an archive: name, where the content begins, how many bytes it has."""
    try:
        with _Bounded(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all headers
                if member.isdir():
                    continue
                _require_harmless(path, member)
                yield member.name, member.offset_data, member.size
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("there is no mark of its end")
    except (*DAMAGE, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"there is no file {path}; name the archives that are there.") from error
        raise InputError(f"{path.name} is no whole tar ({error}); fetch or make it again.") from error


def _require_harmless(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        why = "names a file outside of the archive"
    elif not member.isreg() or member.issparse():
        why = "is a link, a device or a file with holes"
    elif member.size > MEMBER:
        why = f"has {member.size:,} bytes, at most {MEMBER:,} are read"
    else:
        return
    raise InputError(f"{member.name!r} in {path.name} {why}; make the archive again with plain files alone.")


class _Bounded(io.RawIOBase):
    """An archive, unpacked as it is read, but never in a step, or to a place, beyond the bounds."""

    def __init__(self, path: Path):
        self.path = path
        self.limit = max(FREE, RATIO * path.stat().st_size)
        self.file: BinaryIO = OPENERS.get(path.suffix.lower(), open)(path, "rb")

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MEMBER:
            raise InputError(f"{self.path.name} asks for {size:,} bytes at once, at most {MEMBER:,} are read; make it again.")
        self._require(self.file.tell() + size)
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self._require(place)
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        self.file.close()
        super().close()

    def _require(self, place: int) -> None:
        if self.path.suffix.lower() in OPENERS and place > self.limit:
            raise InputError(f"{self.path.name} unpacks to more than {self.limit:,} bytes, {RATIO} times its size; it is "
                             "refused: make it again without packing it.")


@lru_cache(maxsize=2)
def _stream(path: Path, process: int) -> _Bounded:
    return _Bounded(path)


def _content(path: Path, start: int, size: int) -> bytes:
    stream = _stream(path, getpid())
    stream.seek(start)
    return stream.read(size)


def _opened(path: Path, name: str, start: int, size: int) -> BinaryIO:
    try:
        content = io.BytesIO(_content(path, start, size))
    except DAMAGE as error:
        raise PhotoError(f"{name} cannot be read from {path.name} ({error}).") from error
    content.name = name
    return content
