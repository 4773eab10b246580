"""Slides of a chapter, cut from its page, so that numbers, figures and alt texts are those of the run; notes for who speaks."""

import base64
import html
import mimetypes
import shutil
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import Tag

from crossexplain_book.kit.pages import Leaf, guess, rehomed, site, soup, words
from crossexplain_book.layout import BookError, Build

MOST = 20  # slides of a chapter
FRAME = ("You will be able to", "Predict", "The paper and this page", "What this does not show", "Exercises", "Quiz",
         "Take-aways", "Further reading", "Provenance")  # sections with a slide of their own, or none
REVEAL = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="assets/reset.css"><link rel="stylesheet" href="assets/reveal.css">
<link rel="stylesheet" href="assets/pygments.css"><link rel="stylesheet" href="assets/slides.css">
<script>window.MathJax = {{"options": {{"processHtmlClass": "tex2jax_process|mathjax_process|math"}}}}</script>
<script defer src="assets/tex-svg.js"></script></head>
<body data-theme="light"><div class="reveal"><div class="slides">{slides}</div></div>
<script src="assets/reveal.js"></script><script src="assets/notes.js"></script><script src="assets/slides.js"></script>
</body></html>
"""


def notes_of(root: Path) -> dict:
    """Return what a teacher says to each slide: by chapter, then by the heading of a section (``book/teach/notes.toml``)."""
    path = root / "book" / "teach" / "notes.toml"
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def assets(build: Build, folder: Path) -> None:
    """Copy what all slides share: reveal.js as sphinx-revealjs carries it, and the formulas' script of the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    package = distribution("sphinx-revealjs")
    for name in REVEAL:
        shutil.copyfile(package.locate_file(f"sphinx_revealjs/_static/revealjs/{name}"), folder / Path(name).name)
    for name in ("pygments.css", "tex-svg.js"):
        shutil.copyfile(site(build) / "_static" / name, folder / name)
    for name in ("slides.css", "slides.js"):
        shutil.copyfile(Path(__file__).with_name(name), folder / name)


def make_slides(build: Build, leaf: Leaf, folder: Path) -> Path:
    """Write the slides of one chapter.

    Parameters
    ----------
    build : Build
    leaf : Leaf
        Page of the chapter.
    folder : Path
        Where to; what all slides share stands in its folder ``assets``.

    Returns
    -------
    Path
        One HTML file; ``S`` opens the speaker's view, and ``?print-pdf`` at the end of the address prints.
    """
    assets(build, folder / "assets")
    slides = deck(leaf, notes_of(build.root).get(leaf.number, {}))
    path = folder / f"{leaf.path.stem}.html"
    path.write_text(PAGE.format(title=html.escape(leaf.title), slides="".join(slides)), "utf-8")
    return path


def deck(leaf: Leaf, notes: dict) -> list[str]:
    """Return the slides of one chapter as HTML, at most twenty.

    Raises
    ------
    BookError
        If notes name a section that the page does not have.
    """
    body = [part for part in leaf.sections() if not words(part.h2).endswith(FRAME)]
    told = {heading: note for heading, note in notes.items() if isinstance(note, dict) and heading not in FRAME}
    known = {heading: next((part for part in body if words(part.h2).endswith(heading)), None) for heading in told}
    if lost := [heading for heading, part in known.items() if part is None]:
        raise BookError(f"book/teach/notes.toml, chapter {leaf.number}: the page has no section {lost[0]!r}; it has "
                        f"{', '.join(repr(heading_of(part)) for part in body)}.")
    quiz = leaf.section("Quiz")
    questions = quiz.select(".ce-quiz") if quiz else []
    shown = [part for part in body if part in known.values()] or [part for part in body if part.find("figure")]
    around = [_title(leaf, notes), _goals(leaf), _predict(leaf, notes), _table(leaf), _limits(leaf), _ends(leaf)]
    room = MOST - len([slide for slide in around if slide]) - len(questions)
    middle = [_section(leaf, part, told.get(heading_of(part), {})) for part in shown[:room]]
    return [slide for slide in [*around[:3], *middle, *around[3:5], *map(_question, questions), around[5]] if slide]


def heading_of(part: Tag) -> str:
    """Return the heading of a section without its number."""
    heading = soup(str(part.h2))
    for number in heading.select(".section-number"):
        number.decompose()
    return words(heading)


def slide(heading: str, content: str, minutes: int, said: str, wrong=()) -> str:
    """Return one slide, with notes: minutes, what to say, wrong answers that you will hear."""
    heard = "".join(f"<li>{html.escape(text)}</li>" for text in wrong)
    heard = f"<p><b>You will hear, and it is wrong:</b></p><ul>{heard}</ul>" if heard else ""
    return (f'<section data-minutes="{minutes}"><h2>{html.escape(heading)}</h2><div class="fit">{content}</div>'
            f'<aside class="notes"><p><b>{minutes} min.</b> {html.escape(said)}</p>{heard}</aside></section>')


def cut(leaf: Leaf, node: Tag | None) -> str:
    """Return a part of the page as HTML that needs no other file; links lose their target."""
    if node is None:
        return ""
    copied = rehomed(leaf, {}, node)
    for image in copied.select("img[src^='file:']"):
        path = Path(unquote(urlsplit(image["src"]).path))
        kind = mimetypes.guess_type(path.name)[0] or "image/png"
        image["src"] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    for node in copied.select("[id]"):
        del node["id"]
    return str(copied)


def _title(leaf: Leaf, notes: dict) -> str:
    figure = leaf.article.select_one("section").find("figure", recursive=False) or leaf.article.select_one("figure")
    said = notes.get("begin") or f"Read the title, and let the room answer before you go on. {words(leaf.article.p)}"
    return slide(leaf.title, cut(leaf, figure), notes.get("minutes", 3), said)


def _goals(leaf: Leaf) -> str:
    part = leaf.section("You will be able to")
    return slide("You will be able to", cut(leaf, part.ul), 2, "Come back to these three at the end.") if part else ""


def _predict(leaf: Leaf, notes: dict) -> str:
    box, part = guess(leaf.article), leaf.section("Predict")
    content = cut(leaf, box) if box else "".join(cut(leaf, node) for node in (part.p, part.find(["ol", "ul"]))) if part else ""
    note = notes.get("Predict", {})
    said = note.get("say", "Everyone writes, nobody speaks. Collect three different answers on the board and leave them there.")
    return slide("Predict", content, note.get("minutes", 6), said, note.get("wrong", ())) if content else ""


def _section(leaf: Leaf, part: Tag, note: dict) -> str:
    """Return the slide of a section: its figure, else its first table, formula, box or list, and its first claim."""
    chosen = part.select_one(f"#{note['figure']}") if "figure" in note else part.find("figure")
    content = chosen or part.find("table") or part.select_one("div.math") or part.find(["ol", "ul", "pre"]) or part.p
    claim = next((p for p in part.select(".cell_output p") if words(p).startswith(("Claim", "The paper’s claim"))), None)
    text = words(claim).split(" Measured ")[0] if claim else ""
    below = f'<p class="claim">{html.escape(text)}</p>' if text else ""
    first = next((words(p) for p in part.find_all("p", recursive=False)), "")
    return slide(heading_of(part), cut(leaf, content) + below, note.get("minutes", 4), note.get("say", first),
                 note.get("wrong", ()))


def _table(leaf: Leaf) -> str:
    part = leaf.section("The paper and this page")
    return slide("The paper and this page", cut(leaf, part.table), 3, "Let them name the row that surprises them most.") \
        if part and part.table else ""


def _limits(leaf: Leaf) -> str:
    part = leaf.section("What this does not show")
    if not part or not part.ul:
        return ""
    limits = part.ul.find_all("li", recursive=False)
    names = [f"<li>{html.escape(words(limit.strong or limit).split('. ')[0].rstrip('.'))}.</li>" for limit in limits]
    said = " ".join(map(words, limits[:3]))
    return slide("What this does not show", f"<ul>{''.join(names)}</ul>", 3, f"Which of these would change your mind? {said}")


def _question(quiz: Tag) -> str:
    answers, right, wrong = [], "", []
    for choice in quiz.find_all("div", recursive=False):
        text, reply = words(choice.label), words(choice.select_one(".reply"))
        answers.append(f"<li>{html.escape(text)}</li>")
        if reply.startswith("Right."):
            right = f"Right is: {text} {reply.removeprefix('Right. ')}"
        else:
            wrong.append(f"{text} {reply.removeprefix('Not quite. ')}")
    number, _, asked = words(quiz.legend).partition(". ")
    return slide(f"Quiz {number}", f"<p>{html.escape(asked)}</p><ol type=A>{''.join(answers)}</ol>", 3,
                 f"Show of hands before the answer. {right}", wrong)


def _ends(leaf: Leaf) -> str:
    part = leaf.section("Take-aways")
    content = cut(leaf, part.find(["ol", "ul"])) if part else ""
    return slide("Take-aways", content, 4, "Go back to the answers on the board: who would change theirs?") if content else ""
