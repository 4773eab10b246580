"""A chapter on one sheet of paper: what was found, what to guess, what to remember, what to try."""

import html
import tempfile
from pathlib import Path

from crossexplain_book.kit.pages import Leaf, guess, rehomed, words
from crossexplain_book.kit.pdf import head
from crossexplain_book.kit.printer import print_pdf
from crossexplain_book.layout import Build

LINES = '<p class="line">&nbsp;</p>' * 2
FOOT = "CrossExplain, text CC BY 4.0. Every number was computed by the run that made the page of this chapter."


def make_handout(build: Build, leaf: Leaf, pdf: Path, opened) -> Path:
    """Print the sheet of one chapter.

    Parameters
    ----------
    build : Build
    leaf : Leaf
        Page of the chapter.
    pdf : Path
        Where to.
    opened : playwright browser
        See :func:`crossexplain_book.kit.printer.browser`.

    Returns
    -------
    Path
        Of a PDF of one page.
    """
    pdf.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "handout.html"
        page.write_text(f"{head(build, leaf.title, 'ce-handout')}<main>{sheet(leaf)}</main></body></html>", "utf-8")
        print_pdf(opened, page, pdf, one_page=True, tagged=True)
    return pdf


def sheet(leaf: Leaf) -> str:
    """Return the sheet as HTML."""
    article = rehomed(leaf, {})
    section = article.select_one("section")
    parts = {name: next((part for part in section.find_all("section", recursive=False) if words(part.h2).endswith(name)), None)
             for name in ("You will be able to", "Take-aways", "Exercises", "What this does not show")}
    box = guess(article)
    predict = next((part for part in section.find_all("section", recursive=False) if words(part.h2).endswith("Predict")), None)
    asked = box.decode_contents() if box else ""
    if predict and not box:
        asked = f"<b>{html.escape(words(predict.p))}</b>{predict.find(['ol', 'ul'])}"
    claims = [words(p).split(" Measured ")[0] for p in article.select(".cell_output p")
              if words(p).startswith(("Claim holds", "The paper’s claim"))]
    limits = [words(item.strong or item).split(". ")[0].rstrip(".") for item in parts["What this does not show"].select("li")]
    tasks = [f"<li><b>{html.escape(title)}.</b> {html.escape(words(box.select_one('.section, section')))}</li>"
             for box in parts["Exercises"].select(".exercise") for title in [words(box.select_one(".admonition-title"))]]
    held = "".join(f"<li>{html.escape(claim)}</li>" for claim in _spread(claims))
    goals, ends = parts["You will be able to"].ul, parts["Take-aways"].find(["ol", "ul"])
    return (f"<h1>{html.escape(leaf.title)}</h1>{section.find('p')}<div class=two><div>{section.find('figure')}</div>"
            f"<div><h4>You will be able to</h4>{goals}</div></div><div class=guess>{asked}{LINES}</div>"
            f"<h4>What holds, and what does not</h4><ul>{held}</ul>"
            f"<h4>Take-aways</h4>{ends}<h4>Limits</h4><p>{html.escape('. '.join(limits[:6]))}.</p>"
            f"<h4>Exercises</h4><ol>{''.join(tasks)}</ol><p class=foot>{FOOT}</p>")


def _spread(claims: list[str], most: int = 5) -> list[str]:
    """Return a few of the claims, from the first to the last."""
    steps = min(most, len(claims))
    return [claims[i * (len(claims) - 1) // max(1, steps - 1)] for i in range(steps)]
