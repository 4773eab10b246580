"""HTML that cannot be broken by what data holds: whatever is not marked as HTML is escaped."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from crossexplain.checks import InputError
from crossexplain.files import write_whole
from crossexplain.intervals import Interval
from crossexplain_book.pictures import COLOURS, INK
from crossexplain_book.words import spelled_out

VOID = ("meta", "img", "br")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # no script runs, nothing is loaded
WIDTH, HEIGHT = 160, 14  # of the drawing of an interval


class Html(str):
    """Text that is HTML already."""


class Section(Html):
    """A section of a page, with its heading and the name by which links find it."""

    title: str
    name: str


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; children and attributes are escaped unless they are :class:`Html`. ``class_`` stands for class.

    Examples
    --------
    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    named = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items())
    return Html(f"<{name}{named}>" + ("" if name in VOID else f"{joined(children)}</{name}>"))


def joined(children: Iterable[object]) -> Html:
    """Return several children as one, None left out."""
    return Html("".join(child if isinstance(child, Html) else html.escape(spelled_out(str(child)))
                        for child in children if child is not None))


def section(title: str, name: str, *parts: object) -> Section:
    """Return a section with its heading."""
    made = Section(tag("section", tag("h2", title), *parts, id=name))
    made.title, made.name = title, name
    return made


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str) -> Html:
    """Return a table that scrolls sideways; the first cell of a row names it."""
    cells = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", *(tag("th", one, scope="col") for one in head))),
                tag("tbody", *cells))
    return tag("div", inner, class_="wide", tabindex="0", role="group", aria_label=caption)


def drawn(interval: Interval, low: float = 0.0, high: float = 1.0, mark: float | None = None, colour: int = 0) -> Html:
    """Return an interval as a small drawing between two ends, with the numbers beside it."""
    def x(value: float) -> float:
        return round(4 + (WIDTH - 8) * min(max((value - low) / (high - low), 0.0), 1.0), 1)

    y = HEIGHT / 2
    lines = [tag("line", x1=4, x2=WIDTH - 4, y1=y, y2=y, stroke="#c9c9c2")]
    if mark is not None:
        lines.append(tag("line", x1=x(mark), x2=x(mark), y1=1, y2=HEIGHT - 1, stroke=INK, stroke_dasharray="2 2"))
    if interval.value == interval.value:
        lines += [tag("line", x1=x(interval.low), x2=x(interval.high), y1=y, y2=y, stroke=COLOURS[colour], stroke_width=3),
                  tag("circle", cx=x(interval.value), cy=y, r=3.5, fill=COLOURS[colour])]
    picture = tag("svg", *lines, width=WIDTH, height=HEIGHT, viewBox=f"0 0 {WIDTH} {HEIGHT}", aria_hidden="true")
    return joined([picture, " ", tag("span", f"{interval:.2f}", class_="number")])


def page(title: str, *sections: Html) -> str:
    """Return a page that needs no other file, in which no script runs."""
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    head = tag("head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"), tag("title", title),
               tag("style", Html(style)))
    links = [tag("li", tag("a", one.title, href=f"#{one.name}")) for one in sections if isinstance(one, Section)]
    first, *others = sections
    main = tag("main", tag("h1", title), first, tag("nav", tag("ul", *links), aria_label="Sections"), *others)
    return "<!doctype html>\n" + tag("html", head, tag("body", main), lang="en") + "\n"


def write(path: Path, text: str) -> Path:
    """Write a page, whole or not at all."""
    try:
        return write_whole(path, lambda part: part.write_text(text, "utf-8", errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"the page cannot be written to {path} ({error.strerror or error}); name a file.") from error
