"""The results of a run on the disk: a manifest, and parts in Parquet that are whole, or are not there.

``README`` is the schema in words; it is written beside the parts.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from crossexplain.checks import InputError
from crossexplain.files import digest, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1  # raised whenever a column changes its name or meaning
MANIFEST = "manifest.json"
FOOTER = b"crossexplain"  # key of a part's own record in its footer
TIMED = "seconds"  # the one column that differs from run to run
STALE = 3600  # seconds after which nobody is writing a temporary file any more
README = """# Results of a run

One row an example, in the order of the data; `part-000012.parquet` is whole, or is not there. Schema version 1.

| column | type | |
| --- | --- | --- |
| `key` | string | id of the example in its data set |
| `position` | int64 | its place in the order of the data |
| `status`, `reason` | string | `ok`; or `failed`, and why |
| `target`, `predicted` | int32 | class whose logit is followed, and that of the largest logit with nothing hidden |
| `logits_BASELINE_VIEW` | list of float | one number a class, with a part of the input hidden; `logits_full`: nothing hidden |
| `importance_WHAT_MODALITY` | list of float | one number a feature that the example has, in its order |
| `flags` | list of string | `explained alone`: the batch failed, and its examples were tried one by one |
| `seconds` | float | the example's share of the time of its batch |
| `column_NAME` | | what the data set says of the example |

`manifest.json` says which column is which, and what the run was made with. No input is stored. What a single example rests on
is measured from the middle of all examples: `crossexplain.runs.read(folder)` adds that column.
"""


def arrow() -> ModuleType:
    """Return pyarrow with its Parquet reader, or say how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("results are kept in Parquet, and pyarrow is not installed; type `pip install pyarrow`.") from error
    module: ModuleType = pyarrow
    return module
@dataclass(frozen=True)
class Columns:
    """The columns of a run, which its configuration settles.

    Attributes
    ----------
    logits : dict of str to dict of str to str
        By baseline and view, the column; the full view, the same under every baseline, is one column.
    importance : dict of str to dict of str to str
        By method, or what of the rounds, and modality.
    data : dict of str to str
        By the name in the data set.
    types : dict of str to type
        Of the data set's columns.
    """

    logits: dict[str, dict[str, str]]
    importance: dict[str, dict[str, str]]
    data: dict[str, str]
    types: Mapping[str, type]

    @classmethod
    def of(cls, views: Iterable[tuple[str, str]], importances: Iterable[tuple[str, str]],
           types: Mapping[str, type]) -> "Columns":
        """Name the columns of (baseline, view) and (what, modality)."""
        taken: set[str] = set()
        logits: dict[str, dict[str, str]] = {}
        importance: dict[str, dict[str, str]] = {}
        for baseline, view in views:
            name = "logits_full" if view == "full" else _plain(f"logits_{baseline}_{view}", taken)
            logits.setdefault(baseline, {})[view] = name
        for what, modality in importances:
            importance.setdefault(what, {})[modality] = _plain(f"importance_{what}_{modality}", taken)
        return cls(logits, importance, {name: _plain(f"column_{name}", taken) for name in types}, types)

    def described(self) -> dict[str, object]:
        """Return which column is which, for the manifest."""
        return {"logits": self.logits, "importance": self.importance, "data": self.data}

    def schema(self) -> "pa.Schema":
        """Return the schema of a part."""
        pa = arrow()
        floats, kinds = pa.list_(pa.float32()), {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        lists = [name for part in (self.logits, self.importance) for of in part.values() for name in of.values()]
        if wrong := [name for name, kind in self.types.items() if kind not in kinds]:
            raise InputError(f"the column {wrong[0]!r} of the data is of type {self.types[wrong[0]]!r}, expected str, int, "
                             "float or bool.")
        fixed = {"key": pa.string(), "position": pa.int64(), "status": pa.string(), "reason": pa.string(), "target": pa.int32(),
                 "predicted": pa.int32()}
        return pa.schema([*fixed.items(), *((name, floats) for name in dict.fromkeys(lists)),
                          ("flags", pa.list_(pa.string())), (TIMED, pa.float32()),
                          *((name, kinds[self.types[of]]) for of, name in self.data.items())])


def _plain(name: str, taken: set[str]) -> str:
    """Return a name of letters, digits and _ that is not taken yet, and take it."""
    plain = wanted = re.sub(r"\W+", "_", name).strip("_")
    number = 2
    while plain.lower() in taken:  # readers of SQL do not tell capitals
        plain, number = f"{wanted}_{number}", number + 1
    taken.add(plain.lower())
    return plain


def require_path(path: object, what: str) -> Path:
    """Return a path, or raise :class:`InputError` for what is none."""
    try:
        made = Path(path)  # type: ignore[arg-type]  # what is none is told below
        os.fsencode(made)
    except (TypeError, ValueError) as error:
        raise InputError(f"got {what}={path!r}, expected a path.") from error
    return made


def part_path(folder: Path, number: int) -> Path:
    """Return where a part stands."""
    return folder / f"part-{number:06d}.parquet"


def write_part(folder: Path, number: int, rows: Sequence[Mapping[str, Any]], schema: "pa.Schema", configuration: str) -> Path:
    """Write a part whole or not at all; its footer holds what :func:`sound` compares.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written to, when nothing that was there is lost; or for a value of another
        type than its column's.
    """
    pa = arrow()
    try:
        table = pa.Table.from_pylist(list(rows), schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"part {number}: a column of the data does not hold what it says: {error}") from error
    footer = {"schema": SCHEMA, "configuration": configuration, "part": number, "rows": len(table), "digest": digest_of(table)}
    table = table.replace_schema_metadata({FOOTER: json.dumps(footer)})
    try:
        # Without statistics a footer holds nothing that a reader could be misled by and the digest would not show.
        path = write_whole(part_path(folder, number), lambda part: pa.parquet.write_table(
            table, part, compression="zstd", write_statistics=False, write_page_checksum=True))
        _settle(folder)
    except OSError as error:
        raise InputError(f"part {number} could not be written to {folder} ({error.strerror or error}); the parts that are "
                         "there are kept: make room, or mend the folder, and give the same command again.") from error
    return path


def tidy(folder: Path) -> None:
    """Remove what killed processes left half written, but nothing that another may still be writing."""
    for path in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _settle(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # no folder can be opened on Windows
        return
    with suppress(OSError):  # some network folders cannot
        os.fsync(handle)
    os.close(handle)


def digest_of(table: "pa.Table") -> str:
    """Return a hash of all rows without the time they took: equal if and only if the rows are, to the last bit."""
    return digest(*(repr((name, table[name].to_pylist())) for name in table.column_names if name != TIMED))


def sound(path: Path, number: int, configuration: str | None) -> "pa.Table | None":
    """Return the rows of a part, or None if it is missing, broken, another part, or of another configuration."""
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            footer, table = _footer(file), file.read()
        whole = footer["schema"] == SCHEMA and footer["part"] == number and footer["rows"] == len(table)
        own = configuration in (None, footer["configuration"])
        return table if whole and own and footer["digest"] == digest_of(table) else None
    except (OSError, ValueError, TypeError, KeyError, MemoryError, pa.ArrowException):
        return None


def _footer(file: Any) -> dict[str, Any]:
    footer: dict[str, Any] = json.loads(file.schema_arrow.metadata[FOOTER])
    return footer


def claim(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a run, or accept the one that is there if it is of the same configuration.

    Raises
    ------
    InputError
        If the folder holds results of another configuration, with the differences, or cannot be written to.
    """
    manifest = dict(json.loads(json.dumps(manifest)))
    manifest["check"] = hash_of(manifest)
    path = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there_before = path.exists()  # looked at first: a manifest that another process writes meanwhile is whole
        if load_manifest(folder) is None:
            _require_own_parts(folder, manifest["hash"])
            if there_before:
                path.unlink(missing_ok=True)
            write_whole(folder / "README.md", lambda part: part.write_text(README, "utf-8"))
            _place(json.dumps(manifest, indent=1), path)
    except OSError as error:
        raise InputError(f"results cannot be written to {folder} ({error.strerror or error}); pass another folder.") from error
    there = load_manifest(folder) or {}
    if there.get("hash") != manifest["hash"]:
        raise InputError(f"{folder} holds results of another run: "
                         f"{differences(there.get('configuration', {}), manifest['configuration'])}; "
                         "pass another folder, or the same choices.")
    return there


def _place(text: str, path: Path) -> None:
    """Write a file whole, unless another process was faster."""
    own = write_whole(path.with_name(f".{path.name}.{uuid4().hex}.part"), lambda part: part.write_text(text, "utf-8"))
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def hash_of(configuration: Mapping[str, Any]) -> str:
    """Return the hash by which parts know the configuration that they are of."""
    return digest(json.dumps(configuration, sort_keys=True))


def load_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest, or None where it is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        check = manifest.pop("check")
        own = hash_of(manifest) == check and hash_of(manifest["configuration"]) == manifest["hash"]
        return manifest if own and manifest["configuration"]["schema"] == SCHEMA else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _require_own_parts(folder: Path, configuration: str) -> None:
    """Raise if there are parts of another configuration in a folder whose manifest is missing or damaged."""
    pa = arrow()
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            with pa.parquet.ParquetFile(path) as file:
                footer = _footer(file)
        except (OSError, ValueError, TypeError, KeyError, MemoryError, pa.ArrowException):
            continue  # a broken part is done again
        if footer.get("configuration") != configuration:
            raise InputError(f"{folder} has no sound {MANIFEST}, and {path.name} is of another run; pass another folder.")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> str:
    """Return which entries of two configurations differ, as a sentence part."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found.append(differences(one, other, f"{above}{name}."))
        elif one != other:
            found.append(f"{above}{name} was {_short(one)} and is {_short(other)} now")
    return "; ".join(filter(None, found))


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:56]} ..."
