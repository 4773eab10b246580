"""Where examples come from: one function opens any source, one format a file."""

import re
from glob import glob, has_magic
from itertools import product
from os.path import exists, isfile
from pathlib import Path

from crossexplain.checks import InputError
from crossexplain.data import flickr8k
from crossexplain.data.flickr8k_files import TEXT_ARCHIVE, TOKENS
from crossexplain.runs.plan import Source
from crossexplain.runs.sources.archives import OPENERS, Archives
from crossexplain.runs.sources.captions import Captions, Dataset
from crossexplain.runs.sources.columnar import Columns, saved_files
from crossexplain.runs.sources.rows import ENDINGS, Choice
from crossexplain.runs.sources.tables import Folder, Table

__all__ = ["of_dataset", "open_source"]
TABLES = (".csv", ".tsv", ".jsonl")
TARS = (".tar", ".tgz", *(f".tar{ending}" for ending in OPENERS))
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's ImageFolder
MOST = 1_000_000  # files that a pattern may stand for
EXPECTED = (f"a table ({', '.join(TABLES)}), .parquet, .tar, or a folder with {TOKENS}, {', '.join(METADATA)}, Parquet files, "
            "tars, what save_to_disk wrote, or pictures in folders")


def open_source(name: str | Path, *, image: str | None = None, text: str | None = None, key: str | None = None,
                root: str | Path | None = None) -> Source:
    """Open a source of examples; nothing is decoded yet.

    Parameters
    ----------
    name : str or Path
        A file or a folder: CSV, TSV and JSON lines with paths and texts; Parquet and ``save_to_disk`` folders with pictures as
        bytes; tars in WebDataset's form, also several as ``shards/{000..099}.tar`` or ``shards/*.tar``; a folder in the form
        of ImageFolder (with metadata, or a folder for each class), or of Flickr8k. ``"flickr8k"`` is looked for as in the
        book. Flickr8k's form takes the split after a colon, and the kind of foils after another: ``"flickr8k:test:hard"``.
    image, text, key : str, optional
        Columns that hold the picture, the text and the stable id. Default: the only one of a usual name.
    root : path, optional
        Folder of the files that a table names; default that of the table. Files outside of it are refused.

    Returns
    -------
    Source
        What cannot be read of one example is raised when that example is loaded, and costs no other.

    Raises
    ------
    InputError
        For what concerns the whole source: nothing there, no such column, columns of which several may be meant, files outside
        of the folder, archives that are cut off, hold links or would fill the memory.
    """
    choice = Choice(image, text, key, None if root is None else Path(root))
    head, *rest = str(name).split(":")
    if head == "flickr8k" and not exists(name):
        return _captions(None, rest)
    if rest and not exists(name) and _is_captions(Path(head)):
        return _captions(Path(head), rest)
    paths = _named(str(name))
    if not paths or not exists(paths[0]):
        raise InputError(f"there is no {name}; expected {EXPECTED}, 'flickr8k:test', or module:function.")
    return _of_folder(paths[0], choice) if len(paths) == 1 and paths[0].is_dir() else _of_files(str(name), paths, choice)


def of_dataset(dataset: object, name: str) -> Source:
    """Return a data set of PyTorch as a source; see :class:`~crossexplain.runs.sources.captions.Dataset`."""
    return Dataset(dataset, name)


def _named(name: str) -> list[Path]:
    """Return the files that a name stands for, with ``{000..099}`` and ``*`` filled in."""
    if exists(name):
        return [Path(name)]
    parts = re.split(r"\{(\d+)\.\.(\d+)\}", name)
    ranges = [(first, last) for first, last in zip(parts[1::3], parts[2::3])]
    total = 1
    for first, last in ranges:
        total *= max(int(last) - int(first) + 1, 0)
    if total > MOST:
        raise InputError(f"{name} stands for {total:,} files, at most {MOST:,} are taken; name fewer.")
    numbers = ([f"{k:0{len(first)}d}" for k in range(int(first), int(last) + 1)] for first, last in ranges)
    names = ["".join(piece for pair in zip(parts[::3], (*chosen, "")) for piece in pair) for chosen in product(*numbers)]
    return [Path(path) for one in names for path in (sorted(glob(one)) if has_magic(one) else [one])]


def _captions(folder: Path | None, rest: list[str]) -> Captions:
    if len(rest) > 2:
        raise InputError(f"got {':'.join(rest)} after the name, expected a split and a kind of foils, as in test:hard.")
    return Captions(flickr8k.load(folder, progress=False), *(part or None for part in rest))


def _is_captions(folder: Path) -> bool:
    return any(isfile(folder / name) for name in (TOKENS, f"Flickr8k_text/{TOKENS}", TEXT_ARCHIVE))


def _of_files(name: str, paths: list[Path], choice: Choice) -> Source:
    names = [path.name.lower() for path in paths]
    if missing := [path for path in paths if not isfile(path)]:
        raise InputError(f"there is no file {missing[0]}; expected every one that {name} stands for.")
    if all(one.endswith(TARS) for one in names):
        return Archives(name, paths, choice)
    if all(one.endswith(".parquet") for one in names):
        return Columns(name, paths, choice)
    if len(paths) == 1 and names[0].endswith(TABLES):
        return Table(name, paths[0], choice)
    raise InputError(f"{name} is no source that is known; expected {EXPECTED}.")


def _of_folder(folder: Path, choice: Choice) -> Source:
    """Return the source that a folder holds: what is written there tells which."""
    if _is_captions(folder):
        return _captions(folder, [])
    for name in METADATA:
        if (path := folder / name).is_file():
            named = Choice(choice.image or "file_name", choice.text, choice.key, choice.root)
            return _of_files(str(path), [path], named)
    if (folder / "state.json").is_file():
        return Columns(str(folder), saved_files(folder), choice)
    for endings in ((".parquet",), TARS):
        if paths := sorted(path for path in folder.iterdir() if path.name.lower().endswith(endings)):
            return _of_files(str(folder), paths, choice)
    if any(path.name.lower().endswith(ENDINGS) for path in folder.rglob("*")):
        return Folder(str(folder), folder, choice)
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise InputError(f"{folder} holds {found}, expected {EXPECTED}.")
