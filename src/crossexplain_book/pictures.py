"""What a picture of the book is: a figure, or words in HTML, with its alternative text, its caption and its name."""

import html
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from crossexplain.checks import InputError
from crossexplain.files import write_whole
from crossexplain_book.writing import lettering

PAPER = "#fdfdfb"  # opaque and near white: dark themes must not recolour a heat map
INK = "#22262b"
SEQUENTIAL = "inferno"  # perceptually uniform: amount of evidence
SIGNED = "RdBu_r"  # centred at 0: red for, blue against
COLOURS = ("#33628f", "#c8553d", "#3f8f6b", "#8a5a9e", "#b08a2e", "#5b6770")  # series, told apart without colour too
MARKERS = ("o", "s", "^", "D", "v", "P")
BOX = "#38d6c5"
MARGIN = 0.12  # inches round a picture whose margins are cut
STYLE = {
    "font.size": 10,
    "axes.facecolor": PAPER,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def ink_on(face) -> str:
    """Return the colour of text on a ground, with a contrast of at least 4.5 as WCAG asks of small text.

    Parameters
    ----------
    face : sequence of float
        Red, green, blue from 0 to 1; an opacity behind them is not used.

    Examples
    --------
    >>> ink_on((1, 1, 1)), ink_on((0.85, 0.28, 0)), ink_on((0.1, 0.1, 0.4))
    ('#22262b', 'black', 'white')
    """
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in face[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.28 else "black" if luminance > 0.18 else "white"


class Shown:
    """Something that a page shows as a figure, with the words that the page needs for it.

    Parameters
    ----------
    alt : str
        What it shows, with the finding, for readers who cannot see it.
    caption : str
        One sentence of finding and one of how to read it.
    name : str
        Label by which the text refers to it, ``fig-...``.

    Raises
    ------
    ValueError
        If ``alt`` or ``caption`` is empty, or the alt text is too short to state a finding.
    """

    def __init__(self, *, alt: str, caption: str, name: str):
        if len(alt.split()) < 6:
            raise ValueError(f"alt text {alt!r} has {len(alt.split())} words; say what the picture shows and finds.")
        if not caption.strip():
            raise ValueError("the caption is empty; write one sentence of finding and one of how to read the picture.")
        self.alt, self.caption, self.name = alt, caption, name

    def html(self) -> str:
        """Return the figure as HTML, with its text alternative."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include=None, exclude=None):
        words = {"alt": self.alt, "caption": self.caption, "name": self.name}
        return {**self._data(), "text/plain": self.alt}, {"crossexplain": words}

    def _data(self) -> dict[str, object]:
        raise NotImplementedError


class Picture(Shown):
    """A figure together with the words that a page needs for it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Its texts may be of any script that an installed font has: those fonts are added to the ones that it names.
    alt, caption, name : str
        As for :class:`Shown`.
    dpi : int
        Dots per inch of the PNG.
    crop : bool
        Cut the margins to what is drawn; takes a second drawing.
    parts : sequence of (axis, (left, top, right, bottom), words)
        Places of the picture, in the units of the axis, that a page names under the pointer.

    Raises
    ------
    ValueError
        As for :class:`Shown`.
    InputError
        If no installed font has a character of the figure's texts.
    """

    def __init__(self, figure: Figure, *, alt: str, caption: str, name: str, dpi: int = 110, crop: bool = True, parts=()):
        super().__init__(alt=alt, caption=caption, name=name)
        self.figure, self.dpi, self.crop, self.parts = figure, dpi, crop, list(parts)
        for text in figure.findobj(Text):
            _choose_fonts(text)
        if figure.canvas.manager is not None:  # made by pyplot: keep the notebook from showing it a second time
            matplotlib.pyplot.close(figure)

    def png(self) -> bytes:
        """Return the picture as PNG bytes."""
        buffer = BytesIO()
        margins = {"bbox_inches": "tight", "pad_inches": MARGIN} if self.crop else {}
        self.figure.savefig(buffer, format="png", dpi=self.dpi, facecolor=PAPER, **margins)
        return buffer.getvalue()

    def html(self) -> str:
        """Return the picture as HTML that needs no other file."""
        data = b64encode(self.png()).decode()
        return f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}" style="max-width:100%">'

    def save(self, path: str | Path) -> Path:
        """Write the PNG, whole or not at all, and return its path."""
        return write_whole(path, lambda part: part.write_bytes(self.png()))

    def places(self) -> list[list]:
        """Return where the parts lie on the PNG that was drawn last: left, top, width, height in percent, and their words."""
        figure, found = self.figure, []
        size = figure.get_size_inches()
        whole = figure.get_tightbbox().padded(MARGIN) if self.crop else Bbox([(0, 0), size])
        for axis, (left, top, right, bottom), words in self.parts:
            corners = axis.transData.transform([(left, top), (right, bottom)])
            (x0, x1), (y0, y1) = (sorted(side) for side in figure.dpi_scale_trans.inverted().transform(corners).T)
            shares = ((x0 - whole.x0) / whole.width, (whole.y1 - y1) / whole.height, (x1 - x0) / whole.width,
                      (y1 - y0) / whole.height)
            found.append([*(round(float(100 * share), 2) for share in shares), words])
        return found

    def _data(self) -> dict[str, object]:
        return {"image/png": self.png()}

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, about = super()._repr_mimebundle_()
        about["crossexplain"] |= {"parts": self.places()} if self.parts else {}
        return data, about


def _choose_fonts(text: Text) -> None:
    """Give a text further fonts for the characters that its own fonts lack."""
    words = text.get_text()
    if words.isascii():
        return
    families, absent = lettering(words, text.get_fontproperties())
    if absent:
        raise InputError(f"no installed font can draw {named(absent)} of {words!r}; install a font that has them, for example "
                         "Noto Sans of that script, or write the text in other letters (figures.tokens_html needs no font).")
    text.set_fontfamily(families)


def named(characters: str, limit: int = 3) -> str:
    """Return the first few characters of a text with their Unicode numbers, for a message.

    Examples
    --------
    >>> named("小狗")
    "'小' (U+5C0F), '狗' (U+72D7)"
    """
    parts = [f"{sign!r} (U+{ord(sign):04X})" for sign in characters[:limit]]
    return ", ".join(parts) + (f" and {len(characters) - limit} more" if len(characters) > limit else "")


class HtmlPicture(Shown):
    """A picture made of words, which a browser draws with the fonts of its reader: any script, and the words can be selected.

    Parameters
    ----------
    markup : str
        HTML that holds the alternative text.
    alt, caption, name : str
        As for :class:`Shown`.
    absent : str
        The characters of the words that no installed font can draw, if this is why it is HTML.
    """

    def __init__(self, markup: str, *, alt: str, caption: str, name: str, absent: str = ""):
        super().__init__(alt=alt, caption=caption, name=name)
        self.markup, self.absent = markup, absent

    def html(self) -> str:
        """Return the markup."""
        return self.markup

    def png(self) -> bytes:
        """Refuse: a browser draws this picture, with fonts that are not here.

        Raises
        ------
        InputError
            Always; it names the characters that no installed font can draw.
        """
        reason = f"no installed font can draw {named(self.absent)}" if self.absent else "it was made as text"
        raise InputError(f"the picture {self.name!r} is HTML and has no PNG: {reason}; show it in a notebook, write it with "
                         ".save('words.html'), or install a font that has the characters, such as Noto Sans of that script.")

    def save(self, path: str | Path) -> Path:
        """Write a page that holds the picture, whole or not at all, and return its path."""
        page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(self.name)}</title>{self.markup}\n'
        return write_whole(path, lambda part: part.write_text(page, "utf-8"))

    def _data(self) -> dict[str, object]:
        return {"text/html": self.markup}


def sheet(rows: int, columns: int, width: float, height: float, **kwargs):
    """Return an empty figure in the style of the book, ``width`` x ``height`` inches, and its axes (rows, columns)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, axes


def bare(axis) -> None:
    """Remove ticks and frame of an axis."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
