"""What is handed out of one chapter of the book itself: it runs, it is graded, and paper shows all of it."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path

import papermill
import pytest

from crossexplain_book.assemble import show_parameters, tags
from crossexplain_book.kit.assignment import make_assignment
from crossexplain_book.kit.notebooks import ROLE, make_notebooks
from crossexplain_book.kit.pages import chapter_leaves, leaves
from crossexplain_book.layout import BookError
from support.browsers import NO_BROWSER

CHAPTER = "03"  # the one that runs fastest at the small size


def apart(test):
    """Run a test in a thread of its own: in that of other tests a browser may be open, whose loop allows no second one."""
    @wraps(test)
    def run(**given):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(test, **given).result()

    return run


@pytest.fixture(scope="module")
def leaf(book, html):
    return chapter_leaves(book, [CHAPTER])[0]


@pytest.fixture(scope="module")
def handed_out(book, leaf, tmp_path_factory) -> list[Path]:
    """The notebook without and the one with solutions, at the small size."""
    paths = make_notebooks(book, leaf, tmp_path_factory.mktemp("notebooks"))
    for path in paths:
        notebook = json.loads(path.read_text("utf-8"))
        notebook["cells"] = [show_parameters(cell, {"size": "small"}) if "parameters" in tags(cell) else cell
                             for cell in notebook["cells"]]
        path.write_text(json.dumps(notebook), "utf-8")
    return paths


def test_no_mark_of_the_build_is_left(handed_out):
    for path in handed_out:
        notebook = json.loads(path.read_text("utf-8"))
        text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        assert not ROLE.search(text) and ":::" not in text and "```{" not in text and "(a number of the page)" not in text


def test_the_notebook_without_solutions_runs(handed_out, tmp_path):
    papermill.execute_notebook(handed_out[0], tmp_path / "out.ipynb", progress_bar=False)
    cells = json.loads((tmp_path / "out.ipynb").read_text("utf-8"))["cells"]
    stubs = [cell for cell in cells if "exercise" in tags(cell)]
    assert len(stubs) == 3 and all("Not yet" in json.dumps(cell["outputs"]) for cell in stubs)
    assert not [cell for cell in cells if "solution" in tags(cell)]


@apart
def test_the_notebook_with_solutions_gets_all_points(book, leaf, handed_out, tmp_path):
    from otter.api import grade_submission

    folder = make_assignment(book, leaf, tmp_path)
    results = grade_submission(str(handed_out[1]), str(folder / "autograder.zip"), quiet=True)
    assert [(result.score, result.possible) for result in results.results.values()] == [(2, 2), (4, 4), (4, 4)]


@apart
def test_paper_cuts_nothing_off(book, leaf, tmp_path):
    from crossexplain_book.kit.pdf import body, head
    from crossexplain_book.kit.printer import browser, settled

    page = tmp_path / "page.html"
    chapter = [one for one in leaves(book) if one.number == CHAPTER]
    page.write_text(head(book, "One chapter", "ce-book") + body(book, chapter), "utf-8")
    wide = """() => Array.from(document.querySelectorAll("img, table, pre, figure, .admonition, mjx-container"))
      .filter(node => node.getBoundingClientRect().right > 659 || node.matches("pre") && node.scrollWidth > node.clientWidth)
      .map(node => node.outerHTML.slice(0, 120))"""
    try:
        with browser() as opened, settled(opened, page) as tab:
            assert tab.evaluate(wide) == []
    except BookError as error:
        pytest.skip(f"{NO_BROWSER} ({error})")


@apart
def test_the_search_lists_a_term_of_the_glossary_first_and_the_page_says_when_it_ran(html, leaf):
    from crossexplain_book.kit.printer import browser

    assert "Last run 20" in leaf.path.read_text("utf-8") and "Cite this page" in leaf.path.read_text("utf-8")
    try:
        with browser() as opened:
            tab = opened.new_page()
            tab.goto(f"{(html / 'search.html').as_uri()}?q=dividend")
            first = tab.locator("ul.search li a").first
            assert first.inner_text() == "Glossary: dividend" and first.get_attribute("href").endswith("#term-dividend")
    except BookError as error:
        pytest.skip(f"{NO_BROWSER} ({error})")
