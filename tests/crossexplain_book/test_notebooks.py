"""The rules that every notebook keeps: its parts, its cells, its keys.

A code cell is *visible* unless its input is folded. What a reader sees is what the chapter teaches; what publishes a result
(figures with their captions, numbers and claims for the prose, tables) stands in cells tagged ``publish``, which the book
and JupyterLab fold. A cell tagged ``hide-input`` imports and does nothing else.
"""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FOLDED = {"publish", "hide-input", "hide-cell", "remove-input"}
MOST_LINES, MOST_IMPORTS = 15, 12  # of a visible cell; of the set-up
WIDTH, WIDTH_OF_PUBLISHING = 88, 120  # columns: what a page of 1,280 pixels shows without scrolling; what a linter allows
PUBLISHES = re.compile(r"\balt=|\bcaption=|\bpage\.(?:number|claim)\b|\bfigsize=|\bplt\.subplots\b")
KEY = r"(?:-(?:[a-z0-9]+|\{[^{}]+\}))+"  # words in small letters joined by hyphens; a word may be computed
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(notebook: Path, kind: str | None = None) -> list[dict]:
    """Return the cells of a notebook, their sources as one string."""
    listed = json.loads(notebook.read_text("utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in listed if kind in (None, cell["cell_type"])]


def tags(cell: dict) -> set[str]:
    """Return the tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def visible(notebook: Path) -> list[dict]:
    """Return the code cells that a reader sees."""
    return [cell for cell in cells(notebook, "code") if not tags(cell) & FOLDED]


@every_notebook
def test_a_notebook_is_kept_clean(path):
    content = json.loads(path.read_text("utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}, sorted(content["metadata"])
    for cell in cells(path, "code"):
        assert not cell["outputs"] and cell["execution_count"] is None, f"{cell['id']}: run `make lint` to strip outputs"


@every_notebook
def test_visible_code_is_what_the_chapter_teaches(path):
    for cell in visible(path):
        lines = cell["source"].splitlines()
        if "parameters" not in tags(cell):
            assert len(lines) <= MOST_LINES, f"{cell['id']} has {len(lines)} lines, expected at most {MOST_LINES}"
        assert not (found := PUBLISHES.search(cell["source"])), f"{cell['id']} publishes ({found[0]!r}): tag it 'publish'"


@every_notebook
def test_no_line_is_wider_than_its_window(path):
    for cell in cells(path, "code"):
        width = WIDTH_OF_PUBLISHING if tags(cell) & {"publish", "hide-input"} else WIDTH
        wide = [line for line in cell["source"].splitlines() if len(line) > width]
        assert not wide, f"{cell['id']}: {len(wide[0])} columns, expected at most {width}: {wide[0]}"


@every_notebook
def test_what_is_folded_publishes_or_imports(path):
    for cell in cells(path, "code"):
        if "publish" in tags(cell):
            assert "hide-input" not in tags(cell), f"{cell['id']}: 'publish' folds by itself"
            assert cell["metadata"].get("jupyter", {}).get("source_hidden"), f"{cell['id']} is not folded in JupyterLab"
            continue
        assert not tags(cell) & {"remove-input"}, f"{cell['id']} cannot be unfolded"
        assert "hide-cell" not in tags(cell) or "solution" in tags(cell), f"{cell['id']} hides what it shows"
        if "hide-input" in tags(cell):
            body = ast.parse(cell["source"]).body
            assert all(isinstance(line, ast.Import | ast.ImportFrom) for line in body), f"{cell['id']} does more than import"
            lines = len([line for line in cell["source"].splitlines() if line.strip()])
            assert lines <= MOST_IMPORTS, f"{cell['id']} has {lines} lines of imports, expected at most {MOST_IMPORTS}"
    assert sum("hide-input" in tags(cell) for cell in cells(path, "code")) == 1, "set-up is one cell"


@every_notebook
def test_keys_name_chapter_thing_and_what(path):
    chapter, code = path.stem[:2], "\n".join(cell["source"] for cell in cells(path, "code"))
    keys = re.findall(r"page\.(?:number|claim)\(\s*f?\"([^\"]+)\"", code)
    assert keys and not (wrong := [key for key in keys if not re.fullmatch(chapter + KEY, key)]), wrong
    names = re.findall(r"name=f?\"([^\"]+)\"", code)
    names = [name for name in names if name.startswith("fig")]
    assert names and not (wrong := [name for name in names if not re.fullmatch(f"fig-{chapter}{KEY}", name)]), wrong


@every_notebook
def test_a_chapter_has_all_its_parts(path):
    text = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    titles = re.findall(r"^# .+$", text, re.MULTILINE)
    assert len(titles) == 1 and titles[0].endswith("?"), f"the title is one question, got {titles}"
    for part in ("You will be able to", "The paper and this page", "What this does not show"):
        assert part.lower() in text.lower(), f"lacks {part!r}"
    tags = [tag for cell in cells(path) for tag in cell["metadata"].get("tags", [])]
    for tag, count in {"parameters": 1, "finding": 1, "finding-here": 1, "budget": 1, "exercise": 3, "solution": 3}.items():
        assert tags.count(tag) == count, f"{tags.count(tag)} cells are tagged {tag!r}, expected {count}"
    assert text.count("{exercise}") == 3
    whole_code = "\n".join(cell["source"] for cell in cells(path, "code"))
    assert "page.quiz(" in whole_code and "page.provenance()" in whole_code
    assert text.count("\n## You will be able to\n") + text.startswith("## You will be able to\n") == 1, "one opening"


@every_notebook
def test_figures_are_referred_to_and_claims_stand_alone(path):
    text = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    for cell in cells(path, "code"):
        drawn = re.findall(r"name=\"(fig-[\w-]+)\"", cell["source"])
        if 'profile == "full"' in cell["source"]:
            drawn = []  # a reference to what only one of the profiles draws breaks the other
        assert not (lost := [name for name in drawn if f"{{numref}}`{name}`" not in text]), f"no word refers to {lost}"
        for claim in re.findall(r"page\.claim\(\s*f?\"[^\"]+\",\s*f?\"([^\"]+)", cell["source"]):
            assert not re.match(r"(It|So|Yet|Both|Neither|They|The same|On new pairs)\b", claim), f"who or what? {claim!r}"
            assert " do the same" not in claim, f"the same as what? {claim!r}"
