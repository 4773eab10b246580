"""Notebooks to hand out: readable without the book's build, one without solutions and one with them."""

import ast
import copy
import json
import re
from pathlib import Path

from crossexplain_book.assemble import tags, text_of
from crossexplain_book.kit.pages import Leaf, words
from crossexplain_book.layout import Build
from crossexplain_book.records import executed_notebook

ROLE = re.compile(r"\{(glue:text|term|numref|cite(?::[tp])?|class)\}`~?([^`<]*?)(?:\s*<[^>`]*>)?`")
BOX = re.compile(r"^(:{3,}|`{3,})\{([a-z-]+)\}[ ]*([^\n]*)\n((?::[\w-]+:[^\n]*\n)*)\n*(.*?)\n\1[ ]*$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"^([a-z]+?)(\d{4})")


def numbers_of(executed: dict) -> dict[str, str]:
    """Return what the run computed for the prose, by key."""
    found = {}
    for cell in executed["cells"]:
        for output in cell.get("outputs", []):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                found[name] = ast.literal_eval("".join(output["data"]["application/papermill.record/text/plain"]))
    return found


def figures_of(leaf: Leaf) -> dict[str, str]:
    """Return the numbers of a page's figures, by name."""
    return {figure["id"]: words(figure.select_one(".caption-number")).replace("Fig.", "Figure")
            for figure in leaf.article.select("figure[id]")}


def readable(text: str, numbers: dict[str, str], figures: dict[str, str]) -> str:
    """Return the Markdown of a page as any notebook program shows it.

    Examples
    --------
    >>> readable("Right in {glue:text}`04-n` pairs; see {numref}`fig-a`.", {"04-n": "256"}, {"fig-a": "Figure 4.1"})
    'Right in 256 pairs; see Figure 4.1.'
    >>> print(readable(":::{admonition} Guess\\n:class: tip\\nHow many?\\n:::", {}, {}))
    > **Guess**
    >
    > How many?
    """
    def role(match: re.Match) -> str:
        kind, target = match[1], match[2].strip()
        if kind == "glue:text":
            return numbers.get(target, "(a number of the page)")
        if kind == "numref":
            return figures.get(target, "the figure")
        if kind.startswith("cite"):
            named = [SOURCE.match(key.strip()) for key in target.split(",")]
            shown = "; ".join(f"{found[1].capitalize()} {found[2]}" for found in named if found)
            return shown if kind == "cite:t" else f"({shown})"
        return f"`{target}`" if kind == "class" else target

    def box(match: re.Match) -> str:
        title, body = match[3], match[5].strip()
        if match[2] == "exercise":
            return f"### Exercise{': ' if title else ''}{title}\n\n{body}"
        return "\n".join(f"> {line}".rstrip() for line in [f"**{title or match[2].capitalize()}**", "", *body.splitlines()])

    return ROLE.sub(role, BOX.sub(box, re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)))


def handed_out(build: Build, leaf: Leaf, *, solutions: bool) -> dict:
    """Return the notebook of a chapter as it is handed out.

    Parameters
    ----------
    build : Build
    leaf : Leaf
        Page of the chapter.
    solutions : bool
        Leave the cells with solutions in; else they are left out.

    Returns
    -------
    dict
        Without outputs; numbers in the text are those of the last run.
    """
    path = build.root / "notebooks" / f"{leaf.path.stem}.ipynb"
    numbers, figures = numbers_of(executed_notebook(build, path)), figures_of(leaf)
    notebook = copy.deepcopy(json.loads(path.read_text("utf-8")))
    kept = []
    for cell in notebook["cells"]:
        if {"finding-here", "budget"} & set(tags(cell)) or not solutions and "solution" in tags(cell):
            continue
        if cell["cell_type"] == "markdown":
            cell["source"] = readable(text_of(cell), numbers, figures)
        kept.append(cell)
    notebook["cells"] = kept
    return notebook


def write(notebook: dict, path: Path) -> Path:
    """Write a notebook and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def make_notebooks(build: Build, leaf: Leaf, folder: Path) -> list[Path]:
    """Write both notebooks of a chapter, ``NN_name.ipynb`` and ``NN_name_solutions.ipynb``."""
    return [write(handed_out(build, leaf, solutions=solutions), folder / f"{leaf.path.stem}{ending}.ipynb")
            for solutions, ending in ((False, ""), (True, "_solutions"))]
