"""What a teacher takes along, made from a book of one small chapter: print, slides, handout, notebooks, assignment."""

import json
import re
import tomllib
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from crossexplain_book.assemble import tags, text_of
from crossexplain_book.kit.assignment import make_assignment
from crossexplain_book.kit.epub import make_epub
from crossexplain_book.kit.notebooks import make_notebooks, readable
from crossexplain_book.kit.pages import chapter_leaves, leaves
from crossexplain_book.kit.pdf import body, make_pdf
from crossexplain_book.kit.slides import MOST, deck, make_slides
from crossexplain_book.layout import Build, SiteError, find_root

ROOT = find_root(Path(__file__).parent)
NAME = "01_which_number"
QUIZ = ('<fieldset class="ce-quiz"><legend>1. Why?</legend><div><input type="radio" id="q-0"><label for="q-0">Because.</label>'
        '<p class="reply right"><strong>Right.</strong> So it is.</p></div><div><input type="radio" id="q-1">'
        '<label for="q-1">No.</label><p class="reply"><strong>Not quite.</strong> It is not.</p></div></fieldset>')
SECTIONS = {
    "You will be able to": "<ul><li><strong>add</strong> two numbers</li></ul>",
    "See: a sum": '<p>See <a href="../glossary.html#term-sum">sum</a>, and <a href="#fig-01">Fig. 1.1</a>.</p>'
                  '<details><summary>All sums</summary><p>Two.</p></details>'
                  f'<table><tr>{"<td>wide_without_a_place_to_break</td>" * 9}</tr></table>'
                  '<div class="cell_output"><p><b>Claim holds.</b> One is less than two. Measured 1 over 2 pairs.</p></div>',
    "Exercises": '<div class="exercise admonition" id="ex-01"><p class="admonition-title">Exercise 1.1 (Add)</p>'
                 '<section><p>Add two numbers.</p></section></div>'
                 '<div class="cell tag_exercise"><div class="cell_input"><pre>def add(a, b): ...</pre></div>'
                 '<div class="cell_output"><p>Not yet</p></div></div><div class="cell tag_solution"><details>'
                 '<div class="cell_input"><pre>the solution itself</pre></div></details></div>',
    "Quiz": f'<div class="cell_output">{QUIZ}</div>',
    "Take-aways": "<ol><li>Sums are sums.</li></ol>",
    "What this does not show": "<ul><li><strong>Products.</strong> They are not here.</li></ul>",
}
EXERCISES = {"double": "a + a", "triple": "3 * a", "square": "a * a"}


def html(title: str, content: str, nav: str = "") -> str:
    """Return a page as the book's theme lays it out."""
    return (f'<html><body><nav class="bd-links">{nav}</nav><article class="bd-article"><section id="top"><h1>{title}'
            f'<a class="headerlink" href="#top">#</a></h1>{content}</section></article></body></html>')


def code(source: str, *tagged: str, outputs=()) -> dict:
    """Return a cell with code."""
    name = f"c{abs(hash(source)) % 10**8}"
    return {"cell_type": "code", "execution_count": None, "id": name, "metadata": {"tags": [*tagged]},
            "outputs": [*outputs], "source": source}


def notebook() -> dict:
    """Return a chapter with three exercises."""
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Which number?\n\nIt is {glue:text}`01-n`."},
             code('size = "page"', "parameters"), code("from crossexplain_book.page import Page\npage = Page('01')")]
    for name, right in EXERCISES.items():
        head, call = f"def {name}(a):\n    ", f"\n\n\npage.attempt(check_{name}, {name})"
        cells += [code(f"def check_{name}(answer):\n    a = 5\n    assert answer(a) == {right}, 'try 5'", "publish"),
                  code(f"{head}raise NotImplementedError{call}", "exercise"),
                  code(f"{head}return {right}{call}", "solution", "hide-cell")]
    return {"cells": cells, "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
            "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Build:
    """A finished book of one chapter."""
    root = tmp_path_factory.mktemp("book")
    build = Build(root, out=root / "build")
    for folder in (root / "notebooks", build.pages, build.html / "chapters", build.html / "_static"):
        folder.mkdir(parents=True)
    for name in ("pygments.css", "sphinx-design.min.css", "tex-svg.js"):
        (build.html / "_static" / name).write_text("")
    nav = (f'<a href="#">Start</a><p class="caption">Chapters</p><a href="chapters/{NAME}.html">1.</a>'
           '<p class="caption">Look up</p><a href="glossary.html">G</a><a href="api/index.html">A</a>')
    chapter = ('<p>It is 7.</p><figure id="fig-01"><svg width="900" height="90"></svg><figcaption><span class="caption-number">'
               'Fig. 1.1 </span>One.</figcaption></figure><div class="cell"></div>'
               + "".join(f'<section id="s{i}"><h2><span class="section-number">1.{i}. </span>{title}</h2>{content}</section>'
                         for i, (title, content) in enumerate(SECTIONS.items())))
    (build.html / "intro.html").write_text(html("Start", f'<p><a href="chapters/{NAME}.html">one</a></p>', nav))
    (build.html / "chapters" / f"{NAME}.html").write_text(html("1. Which number?", chapter))
    (build.html / "glossary.html").write_text(html("Glossary", '<dl><dt id="term-sum">sum</dt></dl>'))
    (root / "notebooks" / f"{NAME}.ipynb").write_text(json.dumps(notebook()))
    glued = {"output_type": "display_data", "data": {"application/papermill.record/text/plain": "'7'"},
             "metadata": {"scrapbook": {"name": "01-n"}}}
    (build.pages / f"{NAME}.ipynb").write_text(json.dumps({"cells": [code("7", outputs=[glued])]}))
    return build


@pytest.fixture(scope="module")
def leaf(built):
    return chapter_leaves(built)[0]


@pytest.fixture
def opened(browser):
    return browser


def test_a_book_that_was_not_built_is_refused(tmp_path):
    with pytest.raises(SiteError, match="make book"):
        leaves(Build(tmp_path, out=tmp_path))


def test_paper_has_answers_at_the_end_and_only_there(built):
    text = body(built, leaves(built))
    pages, answers = text.split("<section class=page id=solutions>")
    assert "the solution itself" not in pages and "the solution itself" in answers
    assert "So it is." not in pages and "Because." in answers and "So it is." in answers
    assert "Not yet" not in text and "<input" not in text


def test_what_a_fold_holds_stands_open_on_paper(built):
    assert '<details open=""><summary>All sums' in body(built, leaves(built))


def test_links_of_the_paper_lead_to_places_in_it(built):
    text = body(built, leaves(built))
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets and targets <= set(re.findall(r'\bid="?([^"\s>]+)', text))


def test_the_printed_book_has_an_outline_and_numbers_in_its_contents(built, opened, tmp_path):
    import pikepdf

    path = make_pdf(built, tmp_path / "book.pdf", opened=opened)
    with pikepdf.open(path) as pdf, pdf.open_outline() as outline:
        titles = [entry.title for entry in outline.root]
        assert len(pdf.pages) == 6  # cover, contents, three pages, answers
    assert titles[:2] == ["Start", "1. Which number?"] and titles[-1].startswith("Solutions")


def test_what_is_wider_than_the_paper_is_made_to_fit(built, opened, tmp_path):
    from crossexplain_book.kit.pdf import head
    from crossexplain_book.kit.printer import settled

    page = tmp_path / "page.html"
    page.write_text(head(built, "One", "ce-book") + body(built, leaves(built)))
    with settled(opened, page) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 658


def test_the_epub_is_well_formed_and_its_links_lead_somewhere(built, opened, tmp_path):
    with zipfile.ZipFile(make_epub(built, tmp_path / "book.epub", opened=opened)) as archive:
        assert archive.namelist()[0] == "mimetype" and archive.read("mimetype") == b"application/epub+zip"
        written = [name for name in archive.namelist() if name.endswith(("html", "opf"))]
        pages = {name: ElementTree.fromstring(archive.read(name)) for name in written}
    listed = {item.get("href") for item in pages["content.opf"].iter() if item.tag.endswith("}item")}
    places = {name: {node.get("id") for node in page.iter()} for name, page in pages.items()}
    assert set(pages) - {"content.opf"} <= listed
    for name, page in pages.items():
        for link in page.iter("{http://www.w3.org/1999/xhtml}a"):
            file, _, place = link.get("href", "").partition("#")
            assert not place or place in places[file or name], f"{name}: {link.get('href')}"


def test_slides_are_few_and_say_minutes_and_wrong_answers(leaf):
    note = {"See: a sum": {"minutes": 7, "say": "Add.", "wrong": ["'It is 3.' It is 2."]}}
    slides = deck(leaf, note)
    assert len(slides) <= MOST and all(re.search(r"<b>\d+ min\.</b>", slide) for slide in slides)
    quiz = next(slide for slide in slides if "Why?" in slide)
    shown, notes = quiz.split("<aside")
    assert "So it is" not in shown and "So it is" in notes and "No. It is not." in notes
    assert "<b>7 min.</b> Add." in (section := next(slide for slide in slides if "See: a sum" in slide))
    assert "One is less than two." in section and "Measured" not in section and "It is 2." in section


def test_every_note_for_a_speaker_belongs_to_a_section():
    notes = tomllib.loads((ROOT / "book" / "teach" / "notes.toml").read_text("utf-8"))
    for chapter, told in notes.items():
        path = next((ROOT / "notebooks").glob(f"{chapter}_*.ipynb"))
        text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"])
        heads = {head.replace("'", "’").replace("`", "") for head in re.findall(r"^## (.+)$", text, re.MULTILINE)}
        lost = {head for head, note in told.items() if isinstance(note, dict)} - heads
        assert not lost, f"chapter {chapter}: {lost}; rename the note, or drop it"
        assert 30 <= sum(note["minutes"] for note in told.values() if isinstance(note, dict)) <= 75, chapter


def test_a_handout_is_one_page(built, leaf, opened, tmp_path):
    import pikepdf

    from crossexplain_book.kit.handout import make_handout

    with pikepdf.open(make_handout(built, leaf, tmp_path / "sheet.pdf", opened)) as pdf:
        assert len(pdf.pages) == 1


def test_marks_of_the_build_become_plain_words():
    text = readable("(label)=\n# T\n{term}`sums <sum>` {cite:t}`wang2022cross` {cite}`a2020b,c2021d`\n```{exercise} Add\n"
                    ":label: ex\n\nDo.\n```\n:::{admonition} Think\n:class: tip\nOnce.\n:::", {}, {})
    assert text == "# T\nsums Wang 2022 (A 2020; C 2021)\n### Exercise: Add\n\nDo.\n> **Think**\n>\n> Once."


def test_one_notebook_is_without_solutions_and_one_is_with_them(built, leaf, tmp_path):
    without, with_them = ([cell for cell in json.loads(path.read_text())["cells"]]
                          for path in make_notebooks(built, leaf, tmp_path))
    assert text_of(without[0]).endswith("It is 7.")
    assert not [cell for cell in without if "solution" in tags(cell)]
    assert [text_of(cell) for cell in with_them if cell["cell_type"] == "code"] == [
        cell["source"] for cell in notebook()["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def assignment(built, leaf, tmp_path_factory) -> Path:
    return make_assignment(built, leaf, tmp_path_factory.mktemp("assignment"))


def grade(folder: Path, submission: Path, answers: list[str]) -> dict[str, float]:
    """Return the points of a submission by exercise."""
    from otter.api import grade_submission

    book = json.loads((folder / "assignment.ipynb").read_text())
    stubs = [cell for cell in book["cells"] if "exercise" in tags(cell)]
    for stub, answer in zip(stubs, answers):
        stub["source"] = answer
    submission.write_text(json.dumps(book))
    results = grade_submission(str(submission), str(folder / "autograder.zip"), quiet=True)
    return {name: result.score for name, result in results.results.items()}


RIGHT = [f"def {name}(a):\n    return {right}" for name, right in EXERCISES.items()]


def test_a_right_a_wrong_and_a_crashing_submission_get_what_they_deserve(assignment, tmp_path):
    crashing = ["1 / 0\n" + RIGHT[0], RIGHT[1], "def square(:\n    pass"]
    wrong = ["def double(a):\n    return 1", "def triple(a):\n    raise NotImplementedError",
             "def check_square(answer):\n    pass\n\ndef square(a):\n    return 0"]  # its own check counts for nothing
    points = [list(grade(assignment, tmp_path / f"{i}.ipynb", answers).values())
              for i, answers in enumerate((RIGHT, wrong, crashing))]
    assert points == [[2, 4, 4], [0, 0, 0], [0, 4, 0]]


def test_the_rubric_names_every_exercise(assignment):
    rubric = (assignment / "rubric.md").read_text()
    assert all(f"`{name}`" in rubric for name in EXERCISES) and rubric.count("\n| question") == 4


def test_slides_and_their_notes_work_from_a_file(built, leaf, opened, tmp_path):
    path, complaints, outside = make_slides(built, leaf, tmp_path), [], []
    context = opened.new_context()
    tab = context.new_page()
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: outside.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    tab.goto(path.as_uri())
    tab.wait_for_function("() => Reveal.isReady()")
    shown = deck(leaf, {})
    assert tab.evaluate("Reveal.getTotalSlides()") == len(shown)
    with context.expect_page() as popup:
        tab.keyboard.press("s")
    popup.value.get_by_text("3 min.").wait_for()
    context.close()
    assert not complaints and not outside


def test_slides_can_be_printed_a_page_each(built, leaf, opened, tmp_path):
    import pikepdf

    from crossexplain_book.kit.printer import print_slides

    path = make_slides(built, leaf, tmp_path)
    with pikepdf.open(print_slides(opened, path)) as pdf:
        assert len(pdf.pages) == len(deck(leaf, {}))
