"""The whole book as one PDF: pages with numbers, an outline, links that work, and the answers at the end."""

import html
import tempfile
from contextlib import nullcontext
from pathlib import Path

from bs4 import Tag

from crossexplain_book.kit.pages import Leaf, leaves, rehomed, site, soup, words
from crossexplain_book.kit.printer import browser, print_pdf
from crossexplain_book.layout import Build

STYLE = Path(__file__).with_name("print.css")
FOOTER = ('<div style="width:100%;font:8pt Liberation Sans,Arial,sans-serif;color:#555;text-align:center">'
          '<span class="pageNumber"></span></div>')
HEAD = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="{static}/pygments.css"><link rel="stylesheet" href="{static}/sphinx-design.min.css">
<style>{style}</style>
<script>window.MathJax = {{"options": {{"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area"}}}}</script>
<script defer src="{static}/tex-svg.js"></script></head><body class="{kind}">"""


def head(build: Build, title: str, kind: str) -> str:
    """Return the beginning of a document for print."""
    return HEAD.format(title=html.escape(title), static=(site(build) / "_static").as_uri(), kind=kind,
                       style=STYLE.read_text("utf-8"))


def make_pdf(build: Build, pdf: Path | None = None, names=(), opened=None) -> Path:
    """Print the book.

    Parameters
    ----------
    build : Build
        Whose pages are there.
    pdf : Path, optional
        Where to, by default ``crossexplain.pdf`` in the folder ``kit`` of the build.
    names : sequence of str
        Only these chapters, and no other pages, for a look at a few.
    opened : playwright browser, optional
        One that is open already.

    Returns
    -------
    Path
        Of the PDF.
    """
    pdf = pdf or build.folder / "kit" / "crossexplain.pdf"
    pdf.parent.mkdir(parents=True, exist_ok=True)
    pages = [leaf for leaf in leaves(build) if not names or leaf.number in names]
    with tempfile.TemporaryDirectory() as folder, nullcontext(opened) if opened else browser() as opened:
        document, draft = Path(folder) / "book.html", Path(folder) / "book.pdf"
        look = {"footer": FOOTER, "outline": True, "tagged": True}
        text, numbers = body(build, pages), {}
        for _ in range(2):  # the page numbers of the contents are known once it has been printed
            document.write_text(head(build, "CrossExplain", "ce-book") + contents(pages, numbers) + text, "utf-8")
            print_pdf(opened, document, draft, **look)
            numbers = page_numbers(draft)
        packed(draft, pdf, [leaf.title for leaf in pages])
    return pdf


def page_numbers(pdf: Path) -> dict[str, int]:
    """Return on which page each target of a link stands, counted from 1."""
    import pikepdf

    with pikepdf.open(pdf) as opened:
        index = {page.objgen: number for number, page in enumerate(opened.pages, start=1)}
        places = opened.Root.get("/Dests", {})
        return {name[1:]: index[place[0].objgen] for name, place in places.items() if place[0].objgen in index}


def packed(draft: Path, pdf: Path, titles: list[str]) -> None:
    """Write the PDF small, with titles in its outline as they stand on the pages: the browser joins words at a line's end."""
    import pikepdf

    known = {"".join(title.split()): title for title in titles}
    with pikepdf.open(draft) as opened:
        with opened.open_outline() as outline:
            for entry in outline.root:
                entry.title = known.get("".join(entry.title.split()), entry.title)
        opened.save(pdf, object_stream_mode=pikepdf.ObjectStreamMode.generate, compress_streams=True)


def contents(pages: list[Leaf], numbers: dict[str, int]) -> str:
    """Return the cover and the contents."""
    parts, part = [], None
    listed = [(leaf.slug, leaf.title, leaf.part) for leaf in pages if leaf.name.count("/") < 2]  # no card of a single source
    for slug, title, caption in [*listed, ("solutions", "Solutions of the exercises, answers of the quizzes", "Look up")]:
        if caption != part and caption:
            parts.append(f"<p class=part>{caption}</p>")
        part = caption
        parts.append(f'<p class=line><a href="#{slug}">{html.escape(title)}</a><span>{numbers.get(slug, "")}</span></p>')
    return ('<div class=cover><p class=name>CrossExplain</p><p class=what>What does a model look at when it reads and sees?</p>'
            "<p>A book of notebooks that ran, and the thin package they run on. Every number was computed by the run that made "
            "the page. Code that only publishes a result is left out here; the notebooks hold all of it, and the pages the "
            "reference of the package. Solutions and answers stand at the end.</p>"
            "<p>The CrossExplain authors. Text CC BY 4.0, code BSD-3-Clause.</p></div>"
            f'<nav class=contents><p class=name>Contents</p>{"".join(parts)}</nav>')


def body(build: Build, pages: list[Leaf]) -> str:
    """Return all pages as one document, and behind them the solutions and the answers."""
    inside = {leaf.path.resolve(): leaf.slug for leaf in pages}
    parts, answers = [], []
    for leaf in pages:
        article = rehomed(leaf, inside)
        answers += [f"<h2>{html.escape(leaf.title)}</h2>", *solutions(article), *replies(article)] if leaf.number else []
        parts.append(f'<section class=page id="{leaf.slug}">{article.decode_contents()}</section>')
    end = "<section class=page id=solutions><h1>Solutions of the exercises, answers of the quizzes</h1>"
    return "".join([*parts, end, *answers, "</section></body></html>"])


def solutions(article: Tag) -> list[str]:
    """Take the solutions of the exercises out of a page and return them, each under the name of its exercise."""
    found = []
    for cell in article.select(".tag_solution"):
        task = cell.find_previous("div", class_="exercise")
        title = words(task.select_one(".admonition-title"))
        code = cell.select_one(".cell_input")
        found.append(f'<h3><a href="#{task["id"]}">{html.escape(title)}</a></h3>{code}')
        cell.decompose()
    return found


def replies(article: Tag) -> list[str]:
    """Turn quizzes into questions on paper and return the right answers, with the reason for each."""
    found = []
    for quiz in article.select(".ce-quiz"):
        right = quiz.select_one(".reply.right")
        answer = words(right.find_parent("div").label)
        reason = words(right).removeprefix("Right. ")
        found.append(f"<p><b>{html.escape(words(quiz.legend))}</b> {html.escape(answer)} <i>{html.escape(reason)}</i></p>")
        for node in quiz.select(".reply"):
            node.decompose()
        for box in quiz.select("input"):
            box.replace_with(soup('<span class="box"></span>'))
    for style in article.select("style"):
        if ".ce-quiz" in style.get_text():
            style.decompose()
    return ["<h3>Quiz</h3>", *found] if found else []
