"""What data and weights there are, from ``registry.toml`` beside this file. :mod:`crossexplain.data.store` finds them.

To add a source, add an entry to that file and a card to ``data/cards``.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes
    ----------
    path : str
        Relative to the data folder, and to the cache.
    size : int
        Bytes, of the published file.
    hashes : sequence of str
        ``"sha256:"``, ``"md5:"`` or ``"gunzip-md5:"`` (of the unzipped bytes), then the digest or its first digits.
        One of them has to fit. Without any, the file only has to be present.
    url : str, optional
        Where it is published.
    """

    path: str
    size: int
    hashes: Sequence[str] = ()
    url: str | None = None


@dataclass(frozen=True)
class Source:
    """One data set, or one set of weights.

    Attributes
    ----------
    name, what, authors, terms : str
        What it is, who made it and published it, and under which terms it may be used.
    forms : sequence of sequence of File
        Each form is complete by itself. The first one that is present is taken, the last one with addresses is downloaded.
    folder : str, optional
        What ``path`` of :class:`~crossexplain.data.store.Found` points to, relative like the files; default the only file.
    package : sequence of three str, optional
        Name of an installed distribution that carries it, its module, and the path within.
    package_files : sequence of File
        The files of the package whose hashes are checked, relative to that path.
    chapters : sequence of int
        Chapters that read it, in the full profile at least; empty where none does.
    """

    name: str
    what: str
    authors: str
    terms: str
    forms: Sequence[Sequence[File]] = ()
    folder: str | None = None
    package: Sequence[str] | None = None
    package_files: Sequence[File] = ()
    chapters: Sequence[int] = ()

    @property
    def download(self) -> Sequence[File]:
        """The files that a download would bring; empty if there is no address for them."""
        return next((form for form in reversed(self.forms) if all(file.url for file in form)), ())

    @property
    def size(self) -> int:
        """Bytes of the form that a download brings, else of the first."""
        return sum(file.size for file in self.package_files or self.download or self.forms[0])


def _source(name: str, entry: dict[str, Any]) -> Source:
    entry["forms"] = [[File(**file) for file in form] for form in entry.get("forms", [])]
    entry["package_files"] = [File(**file) for file in entry.get("package_files", [])]
    return Source(name, **entry)


_ENTRIES = tomllib.loads(Path(__file__).with_name("registry.toml").read_text("utf-8"))
SOURCES: dict[str, Source] = {name: _source(name, entry) for name, entry in _ENTRIES.items()}
