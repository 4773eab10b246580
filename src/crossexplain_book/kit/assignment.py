"""A marked assignment of a chapter: its exercises, graded by Otter without a network, and two questions with a rubric."""

import re
import tempfile
from pathlib import Path

from crossexplain_book.assemble import show_parameters, tags, text_of
from crossexplain_book.kit.notebooks import handed_out, write
from crossexplain_book.kit.pages import Leaf
from crossexplain_book.layout import BookError, Build

POINTS = (2, 4, 4)  # warm-up, core, stretch
ATTEMPT = re.compile(r"^page\.attempt\((\w+), (\w+)\)$", re.MULTILINE)
# The check is the one of the chapter and not the one that stands in what was handed in.
TEST = '''OK_FORMAT = False

from otter.test_files import test_case

name = "exercise {number}"
points = {points}
CHECK = {check!r}


@test_case(points={points}, hidden=False)
def test_exercise(env):
    space = dict(env)
    exec(CHECK, space)
    assert "{answer}" in env, "{answer} is not defined: the cell was deleted, or stopped with an error."
    space["{name}"](env["{answer}"])
'''
HEAD = """# Assignment: {title}

**Name:** (yours)

Complete the three functions under *Exercises*, then answer the two questions at the end in your own words.
Run the whole notebook from a fresh kernel before you hand it in, and hand in this one file.
The exercises give {auto} points and are graded by running them; the questions give 10 points and are read by a person.
The notebook runs at the small size, so the numbers that you see differ from those of the text."""
QUESTIONS = """## Two questions

1. (5 points) Choose one claim of this chapter.
   Run the chapter again with another seed and with `size = "page"`.
   Does the claim hold, and what does its interval say, and not say?
2. (5 points) Choose one entry of "What this does not show" that matters for a model of your own.
   Describe an experiment that would tell, and which result would change your mind.

**Your answers:**

1. ...
2. ..."""
RUBRIC = Path(__file__).with_name("rubric.md")


def exercises(notebook: dict) -> list[dict]:
    """Return number, points, names and check of each exercise of a notebook with solutions.

    Raises
    ------
    BookError
        If an exercise does not end in a call of its check, or no cell defines that.
    """
    cells = notebook["cells"]
    stubs = [cell for cell in cells if "exercise" in tags(cell)]
    found = []
    for number, (stub, points) in enumerate(zip(stubs, POINTS), start=1):
        if not (call := ATTEMPT.search(text_of(stub))):
            raise BookError(f"exercise {number}: its stub does not call page.attempt(check, stub) in a line of its own.")
        check, answer = call.groups()
        sources = [text_of(cell) for cell in cells if re.search(rf"^def {check}\(", text_of(cell), re.MULTILINE)]
        if not sources:
            raise BookError(f"exercise {number}: no cell defines {check}; a check stands in a cell before its stub.")
        found.append({"number": number, "points": points, "name": check, "answer": answer, "check": sources[0]})
    return found


def make_assignment(build: Build, leaf: Leaf, folder: Path) -> Path:
    """Write the assignment of a chapter: ``assignment.ipynb``, ``autograder.zip`` and ``rubric.md``.

    Parameters
    ----------
    build : Build
    leaf : Leaf
        Page of the chapter.
    folder : Path
        Where to.

    Returns
    -------
    Path
        The folder.
    """
    from otter.generate import main as generate

    notebook = handed_out(build, leaf, solutions=False)
    tasks = exercises(handed_out(build, leaf, solutions=True))
    title = leaf.title
    head, questions = ({"cell_type": "markdown", "id": name, "metadata": {}, "source": text} for name, text in (
        ("assignment", HEAD.format(title=title, auto=sum(POINTS))), ("questions", QUESTIONS)))
    cells = [show_parameters(cell, {"size": "small"}) if "parameters" in tags(cell) else cell for cell in notebook["cells"]]
    write({**notebook, "cells": [head, *cells, questions]}, folder / "assignment.ipynb")
    row = "| exercise {number}: `{answer}` | {points} | its check passes | | it does not |"
    lines = [row.format(**task) for task in tasks]
    rubric = RUBRIC.read_text("utf-8").format(title=title, exercises="\n".join(lines))
    (folder / "rubric.md").write_text(rubric, "utf-8")
    with tempfile.TemporaryDirectory() as tests:
        for task in tasks:
            (Path(tests) / f"exercise_{task['number']}.py").write_text(TEST.format(**task), "utf-8")
        generate(tests_dir=tests, output_path=str(folder / "autograder.zip"), no_config=True, no_requirements=True,
                 no_environment=True)
    return folder
