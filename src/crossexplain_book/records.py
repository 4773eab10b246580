"""Records of chapters that have run: what it was made from, how long it took, how much memory it needed.

A finished chapter is two files in the build's ``pages`` folder: the executed notebook and its record. The record is
written last, so that a chapter is either finished or not there.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from crossexplain.files import digest, tree, write_whole
from crossexplain_book.freshness import file_states
from crossexplain_book.layout import Build


@dataclass
class ChapterRecord:
    """The record of one executed chapter."""

    chapter: str
    key: str
    parameters: dict
    sources: dict = field(default_factory=dict)  # name -> state, see source_state; also of what was not found
    files: dict = field(default_factory=dict)  # path in the checkout -> hash, see freshness.file_states
    notebook_hash: str = ""
    seconds: float = 0.0
    memory: float = 0.0  # GiB at the peak
    threads: int = 1
    jobs: int = 1
    finished: str = ""
    machine: str = ""


def record_path(build: Build, chapter: str) -> Path:
    """Return the path of a chapter's record."""
    return build.pages / f"{chapter}.json"


def save_record(build: Build, record: ChapterRecord) -> None:
    """Write a record, whole or not at all."""
    text = json.dumps(vars(record), indent=1)
    write_whole(record_path(build, record.chapter), lambda part: part.write_text(text, "utf-8"))


def load_record(build: Build, chapter: str) -> ChapterRecord | None:
    """Return the record of a finished chapter, or None where there is none, or none that fits its notebook."""
    try:
        record = ChapterRecord(**json.loads(record_path(build, chapter).read_text("utf-8")))
        intact = digest(build.pages / f"{chapter}.ipynb") == record.notebook_hash
    except (OSError, ValueError, TypeError):
        return None
    return record if intact else None


def is_fresh(build: Build, chapter: str, key: str) -> bool:
    """Return whether a chapter need not run again: its key, its files and its sources are those of the last run."""
    record = load_record(build, chapter)
    return (record is not None and record.key == key
            and record.files == file_states(build.root, (build.root / name for name in record.files))
            and all(state == source_state(name) for name, state in record.sources.items()))


def executed_notebook(build: Build, notebook: Path) -> dict:
    """Return a chapter as it was executed, with the prose and the tags that its notebook has now.

    Prose is no part of a chapter's key. Where the code is no longer that of the run, everything stays as in the run.
    """
    run, current = (_with_text(json.loads(path.read_text("utf-8"))) for path in (build.pages / notebook.name, notebook))
    executed = [cell for cell in run["cells"] if cell["cell_type"] == "code"
                and "injected-parameters" not in cell["metadata"].get("tags", [])]
    if [cell["source"] for cell in executed] != [cell["source"] for cell in current["cells"] if cell["cell_type"] == "code"]:
        return run
    results = iter(executed)
    return {**run, "cells": [{**next(results), "metadata": cell["metadata"]} if cell["cell_type"] == "code" else cell
                             for cell in current["cells"]]}


def _with_text(notebook: dict) -> dict:
    """Return a notebook with the source of each cell as one text."""
    return {**notebook, "cells": [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]}


def source_state(name: str) -> dict:
    """Return where a source is found now, how large it is, and a hash of which files (size, time) it consists of."""
    from crossexplain.data import store

    try:
        source = store.find(name)
    except store.BrokenSource:
        return {"source": "broken", "bytes": 0, "identity": ""}
    except (OSError, ValueError):  # nowhere, not to be fetched, or no longer in the registry
        return {"source": "missing", "bytes": 0, "identity": ""}
    path = Path(source.path)
    files = tree(path) if path.is_dir() else [path] if path.is_file() else []
    stats = [(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    identity = digest(source.origin, str(path), json.dumps(stats))
    return {"source": source.origin, "bytes": sum(size for _, size, _ in stats), "identity": identity}
