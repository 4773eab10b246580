"""Command lines drawn at random: every option of every command with values that nobody would type; no long work is begun.

What builds, trains, measures or fetches is replaced by nothing, right after the command has been understood.
"""

import argparse
import io
import os
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st

import crossexplain.recipes
import crossexplain_book
import crossexplain_book.bench
import crossexplain_book.build
import crossexplain_book.kit.archive
import crossexplain_book.kit.pdf
from benchmarks.studies.inputs import Room
from benchmarks.studies.inputs.files import TABLE, _tree, _with_pictures
from benchmarks.studies.inputs.odd import words
from crossexplain.data import store
from crossexplain_book.cli import main, parser
from crossexplain_book.layout import chapters

SMALL = "benchmarks.studies.killed"
USUAL = {  # what a command cannot do without, so that its options are reached
    "explain": ["--model", f"{SMALL}:subject", "--data", f"{SMALL}:data", "--out", "out", "--limit", "4", "--budget", "16"],
    "merge": ["results"], "report": ["results"], "fetch": ["mnist"], "train": ["nothing"]}
PATHS = "results", "table.csv", "folder", "nowhere", "folder/a/b", "table.csv/x", "loop", "folder/manifest.json"
PLAIN = ("embedded", "small", "rounds", "occlusion", "data", "cpu", "meta", "cuda:9", "01", "all", "label > 0", "even == 1",
         "label ~ 1")


class Told(Exception):
    """The command ended with a code and words."""


def rooms() -> Iterator[Room]:
    """Give every command."""
    subparsers = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in subparsers.choices.items():
        options = [action for action in command._actions if action.option_strings and "--help" not in action.option_strings]
        value = st.one_of(words(), st.sampled_from(PATHS), st.sampled_from(PLAIN)).filter(_can_be_typed)
        one = st.one_of(*(_typed(action, value) for action in options), value.map(lambda word: [word])) if options else \
            value.map(lambda word: [word])
        typed = st.tuples(st.sampled_from((USUAL.get(name, []), USUAL.get(name, []), USUAL.get(name, []), [])),
                          st.lists(one, max_size=3), value)
        weight = {"explain": 1.0, "sources": 0.1, "doctor": 0.1, "report": 0.2}.get(name, 0.4)
        yield Room(f"command {name}", typed, partial(_placed, name), _called, (Told,), weight, mends=True)
    yield Room("command line", st.lists(words().filter(_can_be_typed), max_size=4), lambda folder, drawn: (
        _prepared(folder), drawn, ""), _called, (Told,), 0.4, mends=True)


def _typed(action: argparse.Action, value: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    name = st.sampled_from(action.option_strings)
    return st.builds(lambda name: [name], name) if action.nargs == 0 else st.one_of(
        st.tuples(name, value).map(list), st.tuples(name, value).map("=".join).map(lambda word: [word]))


def _can_be_typed(word: str) -> bool:
    """Return whether a shell hands a word on, and it names no place outside of the folder of the test."""
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return "\0" not in word and not word.startswith("/")


def _placed(name: str, folder: Path, drawn: tuple[list[str], list[list[str]], str]) -> tuple[Path, list[str], str]:
    usual, options, data = drawn
    return _prepared(folder), [name, *usual, *(word for option in options for word in option)], data


def _prepared(folder: Path) -> Path:
    """Make the folder that the command is typed in, with something of each kind in it."""
    place = folder / "a/b/c"
    (place / "folder").mkdir(parents=True)
    _with_pictures(place, ("table.csv", TABLE))
    (place / "loop").symlink_to("loop")
    for name, content in _tree("run").items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
    return place


def _called(placed: tuple[Path, list[str], str]) -> None:
    """Type a command as a shell would; raise what it tells."""
    place, line, data = placed
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    told = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with chdir(place), redirect_stdout(out), redirect_stderr(told), _no_long_work(place, data):
        try:
            code = main(line)
        except SystemExit as end:
            code = end.code
        out.flush()
        told.flush()
    ends = told.buffer.getvalue().decode().rstrip().splitlines()
    if code not in (0, 1, 2, 3):
        raise AssertionError(f"the command ended with {code!r}")
    if "Traceback" in "".join(ends):
        raise AssertionError(f"a traceback: {ends[-1]}")
    if code:
        own = [line for line in ends if line.startswith(("crossexplain: ", "python -m crossexplain"))]
        if code == 2 and ends and not own:
            raise AssertionError(f"ends with {code} and the words {ends[-1]!r}")
        raise Told((own or ends or out.buffer.getvalue().decode().splitlines() or [""])[-1])


class _Recipe:
    def train(self, **_: object) -> None:
        """Train nothing."""


def _checked(build: object, *_: object, names: tuple[str, ...] = (), **__: object) -> int:
    chapters(build.root, names)
    return 0


def _not_fetched(source: object, *_: object) -> None:
    raise store.FetchError(f"{source.name}: no network here")


@contextmanager
def _no_long_work(place: Path, data: str) -> Iterator[None]:
    nothing: list[tuple[object, str, Callable]] = [
        (crossexplain_book, "build_book", _checked), (crossexplain_book.build, "run_chapters", _checked),
        (crossexplain_book.kit.pdf, "make_pdf", _checked), (crossexplain_book.kit.archive, "make_kit", _checked),
        (crossexplain_book.bench, "measure", lambda *_, **__: []), (crossexplain_book.bench, "merge", lambda *_: None),
        (crossexplain.recipes, "keep", lambda *_: "kept"), (store, "_fetch_file", _not_fetched),
        (webbrowser, "open", lambda *_: True)]
    with ExitStack() as stack:
        for of, name, instead in nothing:
            stack.enter_context(patch.object(of, name, instead))
        stack.enter_context(patch.object(crossexplain.recipes, "RECIPES", {"nothing": _Recipe()}))
        stack.enter_context(patch.dict(os.environ, {"CROSSEXPLAIN_CACHE": str(place / "cache"), "CROSSEXPLAIN_DATA": data}))
        stack.enter_context(patch.object(sys, "stdin", io.StringIO()))
        yield
