"""Every chapter, executed, does what a chapter promises."""

import re
from pathlib import Path

import pytest

from crossexplain_book.page import CLAIM, RUN
from crossexplain_book.records import executed_notebook, load_record

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS)


@pytest.fixture(scope="session")
def cells_of(book, book_call):
    """Return a function from chapter to the cells of its executed notebook."""
    def read(chapter: str) -> list[dict]:
        assert load_record(book, chapter), f"{chapter} did not run:\n{book_call.stdout[-4000:]}\n{book_call.stderr[-2000:]}"
        return executed_notebook(book, ROOT / "notebooks" / f"{chapter}.ipynb")["cells"]

    return read


def outputs(cells: list[dict], tag: str | None = None) -> list[dict]:
    """Return the outputs of the code cells, of all or of those with a tag."""
    return [output for cell in cells if tag is None or tag in cell["metadata"].get("tags", [])
            for output in cell.get("outputs", [])]


def shown(cells: list[dict], tag: str) -> list[str]:
    """Return what each cell with a tag shows as its last output, as text."""
    tagged = [cell for cell in cells if tag in cell["metadata"].get("tags", [])]
    return ["".join(cell["outputs"][-1]["data"]["text/plain"]) if cell["outputs"] else "" for cell in tagged]


def test_there_are_chapters():
    assert CHAPTERS


@every_chapter
def test_empty_exercises_do_not_pass_and_solutions_do(cells_of, chapter):
    cells = cells_of(chapter)
    stubs, solutions = shown(cells, "exercise"), shown(cells, "solution")
    assert len(stubs) == len(solutions) == 3
    assert all("Not yet" in text for text in stubs), stubs
    assert all("Right" in text for text in solutions), solutions


@every_chapter
def test_every_number_of_the_prose_was_computed(cells_of, chapter):
    cells = cells_of(chapter)
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    used = set(re.findall(r"\{glue:(?:text|md|math)?\}`([\w.\-]+)", prose))
    known = {output["metadata"]["scrapbook"]["name"] for output in outputs(cells) if "scrapbook" in output.get("metadata", {})}
    assert used, "a chapter without a number has found nothing"
    assert not (unknown := used - known), unknown


@every_chapter
def test_every_picture_says_what_it_shows(cells_of, chapter):
    pictures = [output for output in outputs(cells_of(chapter)) if "image/png" in output.get("data", {})]
    words = [output["metadata"].get("crossexplain") for output in pictures]
    assert words and all(words), "a picture was shown that is not a figures.Picture"
    assert all(len(word["alt"].split()) >= 6 and word["caption"] and word["name"].startswith("fig-") for word in words)
    assert len({word["name"] for word in words}) == len(words)


@every_chapter
def test_no_table_has_more_columns_than_a_page_is_wide(cells_of, chapter):
    texts = ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs(cells_of(chapter))]
    heads = [text.splitlines()[0].replace("\\|", "") for text in texts if text.startswith("| ")]
    assert heads
    assert not (wide := [head for head in heads if head.count("|") - 1 > 6]), wide


@every_chapter
def test_the_finding_is_one_picture(cells_of, chapter):
    assert sum("image/png" in output.get("data", {}) for output in outputs(cells_of(chapter), "finding")) == 1


@every_chapter
def test_claims_are_recorded_whole_and_once(cells_of, chapter, book):
    claims = [output["data"][CLAIM] for output in outputs(cells_of(chapter)) if CLAIM in output.get("data", {})]
    assert claims
    assert len({claim["claim"] for claim in claims}) == len(claims)
    for claim in claims:
        assert claim["chapter"] == chapter[:2] and claim["size"] == book.size and claim["n"] >= 1, claim
        assert claim["low"] <= claim["value"] <= claim["high"], claim


@every_chapter
def test_the_page_says_where_its_data_came_from(cells_of, chapter):
    runs = [output["data"][RUN] for output in outputs(cells_of(chapter)) if RUN in output.get("data", {})]
    assert len(runs) == 1
    assert runs[0]["sources"], "the chapter names no source: pass what store.find returned to page.source"
    assert all(source.startswith("embedded") for source in runs[0]["sources"].values()), runs[0]["sources"]


@every_chapter
def test_nothing_complains(cells_of, chapter):
    noise = ["".join(output["text"]) for output in outputs(cells_of(chapter))
             if output["output_type"] == "stream" and output["name"] == "stderr"]
    assert not noise, noise


def test_the_three_questions_of_the_paper_are_answered_with_the_paper_s_reading_beside_each(cells_of):
    chapter = next(name for name in CHAPTERS if name.startswith("09"))
    claims = {output["data"][CLAIM]["claim"]: output["data"][CLAIM] for output in outputs(cells_of(chapter))
              if CLAIM in output.get("data", {})}
    for asked in ("chunk", "turn", "party"):
        ours, of_paper = claims[f"09-question-{asked}"], claims[f"09-question-{asked}-paper"]
        assert of_paper["paper"] and not ours["paper"]
        assert ours["n"] == of_paper["n"] >= 2, "both are about the same conversations"
