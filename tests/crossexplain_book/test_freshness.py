"""What changed runs again, and what did not change does not: on a small checkout, and on this one."""

import json
from pathlib import Path

import pytest

from crossexplain_book import find_root
from crossexplain_book.freshness import Imports, chapter_key, code_cells, code_key, file_states

ROOT = find_root(Path(__file__).parent)
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FILES = {
    "src/crossexplain/__init__.py": '''
from importlib import import_module
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from crossexplain.recipes import trained
_HOME = {"rounds": "crossexplain.gradients.rounds", "Game": "crossexplain.game"}
_MOVED = {"old": ("crossexplain.game:Game", "crossexplain.Game")}
def __getattr__(name):
    return getattr(import_module(_HOME[name]), name)
''',
    "src/crossexplain/gradients/__init__.py": "",
    "src/crossexplain/gradients/rounds.py": "from . import capture\n",
    "src/crossexplain/gradients/capture.py": "def capture():\n    from crossexplain.late import needed\n",
    "src/crossexplain/late.py": "needed = 1\n",
    "src/crossexplain/game.py": "import crossexplain.checks as tools\n",
    "src/crossexplain/checks.py": "",
    "src/crossexplain/recipes/__init__.py": "",
    "src/crossexplain/recipes/trained.py": "",
    "src/crossexplain_book/__init__.py": "",
    "src/crossexplain_book/cli.py": "HELP = 'run the chapters'\n",
    "src/crossexplain_book/figures.py": "COLOUR = 'blue'\n",
    "requirements.lock": "a==1\n",
}
ROUNDS = {"crossexplain", "crossexplain.gradients", "crossexplain.gradients.rounds", "crossexplain.gradients.capture",
          "crossexplain.late"}


def notebook(path: Path, *code: str, prose: str = "# Is it so?", tags=()) -> Path:
    """Write a notebook: prose, then code; the first code cell has the tags."""
    cells = [{"cell_type": "markdown", "metadata": {}, "source": [prose]}]
    cells += [{"cell_type": "code", "metadata": {"tags": list(tags) if i == 0 else []}, "source": text.splitlines(True)}
              for i, text in enumerate(code)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "cells": cells}), "utf-8")
    return path


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout of two packages."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("code", "modules"), [
    ("from crossexplain import rounds", ROUNDS),
    ("import crossexplain\ncrossexplain.rounds()", ROUNDS),
    ("import crossexplain as ce\nce.Game", {"crossexplain", "crossexplain.game", "crossexplain.checks"}),
    ("from crossexplain import old", {"crossexplain", "crossexplain.game", "crossexplain.checks"}),
    ("from crossexplain import recipes\nrecipes.trained",
     {"crossexplain", "crossexplain.recipes", "crossexplain.recipes.trained"}),
    ("%matplotlib inline\nif True:\n    !ls\nimport numpy, crossexplain.checks", {"crossexplain", "crossexplain.checks"}),
    ("from importlib import import_module\nimport_module('crossexplain.late')", {"crossexplain", "crossexplain.late"}),
    ("import crossexplain", {"crossexplain"}), ("import numpy", set()), ("half of a (", set()),
])
def test_the_modules_that_code_reaches(checkout, code, modules):
    assert set(Imports(checkout).reached([code])) == modules


def changes(checkout: Path, chapter: Path, name: str) -> bool:
    """Say whether a new line in a file changes the key of a chapter."""
    before = chapter_key(Imports(checkout), chapter, {})
    path = checkout / name
    path.write_text(f"{path.read_text()}# another word\n")
    return chapter_key(Imports(checkout), chapter, {}) != before


@pytest.mark.parametrize(("name", "again"), [
    ("src/crossexplain/gradients/rounds.py", True), ("src/crossexplain/gradients/capture.py", True),
    ("src/crossexplain/gradients/__init__.py", True), ("src/crossexplain/late.py", True), ("requirements.lock", True),
    ("src/crossexplain/game.py", False), ("src/crossexplain/checks.py", False), ("src/crossexplain_book/cli.py", False),
    ("src/crossexplain_book/figures.py", False), ("src/crossexplain/recipes/trained.py", False),
])
def test_what_is_imported_counts_and_nothing_else(checkout, name, again):
    chapter = notebook(checkout / "notebooks" / "01_a.ipynb", "from crossexplain import rounds")
    assert changes(checkout, chapter, name) == again


def test_code_and_parameters_count_and_prose_does_not(checkout):
    path, code, tags = checkout / "notebooks" / "01_a.ipynb", ("seed = 0", "print(seed)"), ["parameters"]

    def key(seed: int, *cells: str, **options) -> str:
        return chapter_key(Imports(checkout), notebook(path, *cells, **options), {"seed": seed})

    before = key(1, *code, tags=tags)
    assert key(1, *code, tags=tags, prose="# It is!") == before
    changed = [key(2, *code, tags=tags), key(1, *code), key(1, code[0], "print( seed)", tags=tags),
               key(1, *code[:1], tags=tags)]
    assert len({before, *changed}) == 5


def test_a_benchmark_counts_with_what_it_imports_and_its_data(checkout):
    path = checkout / "benchmarks" / "speed.py"
    path.parent.mkdir()
    path.write_text("from crossexplain import Game\n")
    weights = checkout / "weights"
    weights.write_bytes(b"1")

    def key() -> str:
        return code_key(Imports(checkout), path, [weights])

    first = key()
    (checkout / "src/crossexplain_book/cli.py").write_text("HELP = 'other words'\n")
    assert key() == first
    for changed in (checkout / "src/crossexplain/checks.py", path, weights):
        before = key()
        changed.write_bytes(changed.read_bytes() + b"# more\n")
        assert key() != before, changed


def test_the_state_of_files_and_folders(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("1")
    paths = [str(tmp_path / name) for name in ("folder", "file", "none")]
    before = file_states(tmp_path, paths)
    assert list(before) == ["file", "folder", "none"] and before["none"] == "missing"
    (tmp_path / "folder" / "new").write_text("")
    (tmp_path / "file").write_text("2")
    (tmp_path / "none").write_text("")
    after = file_states(tmp_path, paths)
    assert all(after[name] != before[name] for name in before)


def test_in_this_book_help_texts_and_the_builder_run_no_chapter_again_and_the_figures_run_all():
    imports = Imports(ROOT)
    reached = [set(imports.reached([cell["source"] for cell in code_cells(path)])) for path in CHAPTERS]
    builder = {f"crossexplain_book.{name}" for name in ("cli", "execute", "worker", "records", "assemble", "build", "bench")}
    assert reached and not any(builder & modules for modules in reached)
    assert all("crossexplain_book.figures" in modules for modules in reached)
    explorers = ["crossexplain_book.explorers" in modules for modules in reached]
    assert any(explorers) and not all(explorers)
    every_module = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
                    for path in (ROOT / "src").rglob("*.py")}
    assert all(len(every_module & modules) < 0.8 * len(every_module) for modules in reached)
