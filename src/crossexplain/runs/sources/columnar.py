"""Parquet files, and what Hugging Face's ``save_to_disk`` leaves: columns of pictures as bytes, read group by group."""

import io
import json
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from crossexplain.checks import InputError
from crossexplain.data.photos import PhotoError
from crossexplain.runs.sources.rows import Choice, Row, Rows, inside, require_some

if TYPE_CHECKING:
    import pyarrow

GROUP = 2 << 30  # bytes of the largest group of rows that is read: one has to fit into the memory, twice


class Columns(Rows):
    """A Parquet file or several, or the files of ``save_to_disk``; pictures are bytes, or files that a column names."""

    def __init__(self, name: str, paths: list[Path], choice: Choice):
        super().__init__(name, paths, choice)
        self.format = "parquet" if paths[0].suffix == ".parquet" else "arrow"
        self.root = Path(choice.root or paths[0].parent).absolute()
        self.schema = _schema(paths[0])
        for path in paths[1:]:
            if (names := _schema(path).names) != self.schema.names:
                raise InputError(f"{path.name} has the columns {', '.join(names)}, {paths[0].name} has "
                                 f"{', '.join(self.schema.names)}; expected the same in all files.")
        self.settle({field.name: _kind(field.type) for field in self.schema})
        image = self.roles["image"]
        self.stored = image is not None and _kind(self.schema.field(image).type) is object
        if not self.stored:
            require_some((row.picture() for row in self.rows() if row.picture), self.name)

    def rows(self) -> Iterator[Row]:
        """Go through the rows without their pictures."""
        image, schema = self.roles["image"], self.schema
        names = [name for name in schema.names if not (name == image and self.stored)]
        if has_path := self.stored and _has_path(schema.field(image).type):
            names.append(f"{image}.path")
        for path in self.files:
            number = 0
            for group in range(_groups(path)):
                for i, values in enumerate(_plain(path, group, names)):
                    number += 1
                    if image and self.stored:
                        named = (values.get(image) or {}).get("path") if has_path else None
                        values[image] = named or f"{path.stem}:{number - 1:06d}"
                        yield Row(values, partial(_picture, path, group, i, image))
                    elif image and isinstance(values[image], str) and values[image]:
                        yield Row(values, partial(Path, inside(self.root, values[image], f"row {number} of {path.name}")))
                    else:
                        yield Row(values)


def saved_files(folder: Path) -> list[Path]:
    """Return the files of a data set that Hugging Face's ``save_to_disk`` wrote, in their order."""
    try:
        names = [str(entry["filename"]) for entry in json.loads((folder / "state.json").read_bytes())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"state.json of {folder} is not as save_to_disk writes it ({error}); save the data again.") from error
    return [inside(folder, name, "state.json") for name in names]


def _schema(path: Path) -> "pyarrow.Schema":
    return _guarded(path, lambda: _opened(path, getpid())[0])


def _groups(path: Path) -> int:
    return int(_guarded(path, lambda: _opened(path, getpid())[1]))


def _group(path: Path, group: int, columns: list[str]) -> "pyarrow.Table":
    return _guarded(path, lambda: _opened(path, getpid())[2](group, columns))


def _plain(path: Path, group: int, columns: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _guarded(path, lambda: _group(path, group, columns).to_pylist())
    return rows


@lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> tuple["pyarrow.Schema", int, Callable[[int, list[str]], "pyarrow.Table"]]:
    """Return schema, number of groups, and what reads some columns of a group."""
    import pyarrow as pa

    if path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        file = ParquetFile(path)
        for group in range(file.num_row_groups):
            if (size := file.metadata.row_group(group).total_byte_size) > GROUP:
                raise InputError(f"a group of rows of {path.name} has {size:,} bytes, at most {GROUP:,} are read at once; "
                                 "write it again with row_group_size=100.")
        return file.schema_arrow, file.num_row_groups, lambda group, columns: file.read_row_group(group, columns=columns)
    batches = list(pa.ipc.open_stream(pa.memory_map(str(path))))
    flat = {f"{name}.path": name for name in batches[0].schema.names} if batches else {}

    def read(group: int, columns: list[str]) -> "pyarrow.Table":
        table = pa.Table.from_batches([batches[group]])
        found = table.select([column for column in columns if column not in flat])
        for column in set(columns) & set(flat):
            paths = table[flat[column]].combine_chunks().field("path")
            found = found.append_column(flat[column], pa.StructArray.from_arrays([paths], ["path"]))
        return found

    return batches[0].schema, len(batches), read


@lru_cache(maxsize=1)
def _pictures(path: Path, group: int, column: str, process: int) -> "pyarrow.ChunkedArray":
    return _group(path, group, [column])[column]


def _picture(path: Path, group: int, i: int, column: str) -> BinaryIO:
    value = _guarded(path, lambda: _pictures(path, group, column, getpid())[i].as_py())
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes) or not content:
        named = value.get("path") if isinstance(value, dict) else None
        raise PhotoError(f"row {i} of group {group} of {path.name} holds no picture"
                         + (f", only its name {named!r}; save the data set with its pictures in it." if named else "."))
    return io.BytesIO(content)


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """Read, and say of a file that cannot be read what it is."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError("pyarrow is not installed, which reads Parquet; type `pip install 'crossexplain[runs]'`.") from error
    try:
        return read()
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}; name the files that are there.") from error
    except InputError:
        raise
    except (pa.ArrowException, OSError, IndexError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path.name} cannot be read ({reason}); fetch or write it again.") from error


def _kind(kind: "pyarrow.DataType") -> type:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = {str: types.is_string, float: types.is_floating, int: types.is_integer, bool: types.is_boolean}
    return str if types.is_large_string(kind) else next((one for one, fits in tests.items() if fits(kind)), object)


def _has_path(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind) and kind.get_field_index("path") >= 0)
