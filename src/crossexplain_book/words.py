"""Sentences with every token coloured by its score: drawn by matplotlib, or as HTML that any browser can show."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from crossexplain_book.pictures import INK, PAPER, SIGNED, HtmlPicture, Picture, bare, ink_on, sheet
from crossexplain_book.writing import columns, directed, from_right, left_to_right, lettering, runs, spelled_out

WORD = FontProperties(family="monospace", size=8.2)
TITLE = FontProperties(weight="bold", size=9)
ROOM = 4  # columns that the number below a short word needs
HTML_STYLE = (
    f".ce-tokens{{background:{PAPER};color:{INK};padding:.4rem .6rem;line-height:1.2;text-align:start}}"
    ".ce-tokens-title{font-weight:700;font-size:.85rem;margin-top:.5rem}"
    ".ce-tokens-line{margin:.15rem 0 .5rem}"
    ".ce-token{display:inline-block;text-align:center;vertical-align:top;margin:.1rem 0;min-width:2.4rem}"
    ".ce-token-word{display:block;white-space:pre;padding:.15rem .3rem;min-height:1.2em;border:1px solid transparent;"
    "font-family:monospace,sans-serif}"
    f".ce-token-none .ce-token-word{{border:1px dotted {INK}}}"
    ".ce-token-cue .ce-token-word{text-decoration:underline;text-decoration-thickness:2px;text-underline-offset:.2em}"
    ".ce-token-score{display:block;font-size:.7rem;direction:ltr;user-select:none;-webkit-user-select:none}"
)


@dataclass(frozen=True)
class Sentence:
    """One sentence to draw.

    Attributes
    ----------
    title : str
        A line above it, or nothing.
    words : list of T str
    shares : ndarray, shape (T,)
        Score of each word as a share of the largest; NaN where a word has none.
    cues : ndarray of bool, shape (T,)
        Which are underlined.
    """

    title: str
    words: list[str]
    shares: np.ndarray
    cues: np.ndarray

    def absent(self) -> str:
        """Return the characters that no installed font can draw."""
        parts = [lettering(spelled_out(word), WORD)[1] for word in self.words if not word.isascii()]
        return "".join(dict.fromkeys("".join(parts) + lettering(self.title, TITLE)[1]))


def tokens(sentences: Sequence[Sequence[str]], scores, *, alt: str, caption: str, name: str,
           titles: Sequence[str] | None = None, cues=None, signed: bool = False, per_line: int = 62,
           shared: bool = False) -> Picture | HtmlPicture:
    """Draw sentences with every token coloured by its score and the score written below it.

    Words of any script are drawn as they are written, and in the order in which they are read. Where no installed font
    has a character, the picture is that of :func:`tokens_html`.

    Parameters
    ----------
    sentences : sequence of N sequences of str
        Tokens or words.
    scores : sequence of N array_like, shape (T,)
        Drawn as a share of the sentence's largest absolute score; the number is that share. NaN where there is none.
    titles : sequence of str, optional
        One line above each sentence.
    cues : sequence of N array_like of bool, optional
        Tokens known to decide: underlined.
    signed : bool
        Red for, blue against; otherwise the darker the more.
    per_line : int
        Characters before a sentence wraps.
    shared : bool
        Draw shares of the largest score of all sentences instead: to compare the same sentence in several rounds.

    Returns
    -------
    Picture or HtmlPicture

    Raises
    ------
    ValueError
        If a sentence has not one score, or not one cue, for each of its tokens.
    """
    parts = shares_of(sentences, scores, titles, cues, shared)
    if absent := "".join(dict.fromkeys("".join(sentence.absent() for sentence in parts))):
        return HtmlPicture(markup(parts, alt, signed), alt=alt, caption=caption, name=name, absent=absent)
    lines = [line for sentence in parts for line in wrapped(sentence, per_line)]
    figure, axes = sheet(1, 1, 8.2, 0.36 * height(lines) + 0.2)
    draw(axes[0, 0], lines, per_line, signed)
    return Picture(figure, alt=alt, caption=caption, name=name)


def tokens_html(sentences: Sequence[Sequence[str]], scores, *, alt: str, caption: str, name: str,
                titles: Sequence[str] | None = None, cues=None, signed: bool = False, shared: bool = False) -> HtmlPicture:
    """Show what :func:`tokens` draws as text, which wraps on narrow screens and can be selected.

    Parameters
    ----------
    sentences, scores, titles, cues, signed, shared
        As for :func:`tokens`.

    Returns
    -------
    HtmlPicture
        Colours and numbers are those of :func:`tokens`.
    """
    return HtmlPicture(markup(shares_of(sentences, scores, titles, cues, shared), alt, signed),
                       alt=alt, caption=caption, name=name)


def shares_of(sentences, scores, titles=None, cues=None, shared: bool = False) -> list[Sentence]:
    """Return sentences to draw, with scores as shares; arguments as for :func:`tokens`."""
    rows = [np.asarray(row, dtype=float) for row in scores]
    largest = max((_largest(row) for row in rows), default=0.0)
    parts = []
    for i, (words, row) in enumerate(zip(sentences, rows)):
        if len(row) != len(words):
            raise ValueError(f"sentence {i} has {len(words)} tokens and {len(row)} scores; pass one score a token.")
        marks = np.zeros(len(words), bool) if cues is None else np.asarray(cues[i], bool)
        if len(marks) != len(words):
            raise ValueError(f"sentence {i} has {len(words)} tokens and {len(marks)} cues; pass True or False for each.")
        parts.append(Sentence("" if titles is None else titles[i], list(words),
                              row / ((largest if shared else _largest(row)) or 1.0), marks))
    return parts


def _largest(scores: np.ndarray) -> float:
    """Return the largest absolute score, 0 where there is none."""
    return float(np.nanmax(np.abs(scores), initial=0.0))


def wrapped(sentence: Sentence, per_line: int) -> list[tuple[str, bool, list[tuple]]]:
    """Return the lines of a sentence.

    Each line is a title, whether the sentence is written from the right, and the tokens from the left as tuples (word, share,
    whether it is a cue, whether it is written from the right).
    """
    rtl, directions = from_right(sentence.words)
    lines, width = [[]], 0
    for i, word in enumerate(sentence.words):
        room = _room(word)
        if width + room > per_line and lines[-1]:
            lines.append([])
            width = 0
        lines[-1].append(i)
        width += room
    cells = [(spelled_out(word), *rest) for word, *rest in zip(sentence.words, sentence.shares, sentence.cues, directions)]
    ordered = [[line[k] for k in left_to_right(rtl, [directions[i] for i in line])] for line in lines]
    return [(sentence.title if not k else "", rtl, [cells[i] for i in line]) for k, line in enumerate(ordered)]


def _room(word: str) -> int:
    return max(columns(spelled_out(word)), ROOM) + 1


def height(lines) -> float:
    """Return the height of some lines, in lines of text."""
    return sum(1.45 + (0.75 if title else 0.0) for title, *_ in lines)


def draw(axis, lines, per_line: int, signed: bool) -> None:
    """Draw lines as :func:`wrapped` gives them; a sentence written from the right begins at the right."""
    axis.set(xlim=(0, per_line), ylim=(height(lines), 0))
    bare(axis)
    top = 0.0
    for title, rtl, cells in lines:
        if title:
            right = from_right([title])[0]
            axis.text(per_line if right else 0, top + 0.5, title, fontproperties=TITLE, va="center",
                      ha="right" if right else "left", parse_math=False)
        top += height([(title,)])
        base, left = top - 1.45, max(per_line - sum(_room(word) for word, *_ in cells), 0) + 0.15 if rtl else 0.0
        for word, share, cue, right in cells:
            width = _room(word) - 0.15
            _draw_token(axis, directed(word, right), share, left, base, width, signed)
            if cue:
                axis.plot([left, left + width], [base + 0.9] * 2, color=INK, linewidth=1.8)
            left += width + 0.15


def _draw_token(axis, word: str, share: float, left: float, base: float, width: float, signed: bool) -> None:
    """Draw a word on its colour with the number below; without a score, empty and dashed."""
    face, ink, number = _look(share, signed)
    edge = {"edgecolor": "none"} if np.isfinite(share) else {"edgecolor": INK, "linestyle": ":", "linewidth": 0.8}
    axis.add_patch(Rectangle((left, base + 0.05), width, 0.8, facecolor=face, **edge))
    axis.text(left + width / 2, base + 0.45, word, ha="center", va="center", fontproperties=WORD, color=ink, parse_math=False)
    axis.text(left + width / 2, base + 1.08, number, ha="center", va="center", fontsize=6.2)


def _look(share: float, signed: bool) -> tuple[tuple, str, str]:
    """Return ground, ink and number of a token."""
    if not np.isfinite(share):
        return (1, 1, 1, 1), INK, "none"
    colour = matplotlib.colormaps[SIGNED if signed else "Oranges"]
    face = colour(0.5 + 0.42 * share) if signed else colour(0.75 * abs(share))
    return face, ink_on(face), f"{share:+.2f}" if signed else f"{share:.2f}"


def markup(sentences: Sequence[Sentence], alt: str, signed: bool) -> str:
    """Return sentences as HTML: selectable words in the order of reading, each on its colour with its number below.

    Parameters
    ----------
    sentences : sequence of Sentence
    alt : str
        What they show; a screen reader says it before the words.
    signed : bool
    """
    lines = "".join(_title(sentence.title) + _line(sentence, signed) for sentence in sentences)
    return f'<style>{HTML_STYLE}</style><div class="ce-tokens" role="group" aria-label="{html.escape(alt)}">{lines}</div>'


def _title(title: str) -> str:
    return f'<div class="ce-tokens-title" dir="auto">{html.escape(title)}</div>' if title else ""


def _line(sentence: Sentence, signed: bool) -> str:
    """Return one sentence as HTML; a run against its direction is marked, so that the browser sets it the other way round."""
    rtl, directions = from_right(sentence.words)
    cells = [_token(word, share, cue, signed) for word, share, cue in zip(sentence.words, sentence.shares, sentence.cues)]
    parts = []
    for run in runs(directions):
        part = " ".join(cells[i] for i in run)
        parts.append(part if directions[run[0]] == rtl else f'<span dir="{_dir(not rtl)}">{part}</span>')
    return f'<div class="ce-tokens-line" dir="{_dir(rtl)}">{" ".join(parts)}</div>'


def _dir(right: bool) -> str:
    return "rtl" if right else "ltr"


def _token(word: str, share: float, cue: bool, signed: bool) -> str:
    face, ink, number = _look(share, signed)
    kinds = "ce-token" + " ce-token-cue" * bool(cue) + " ce-token-none" * (not np.isfinite(share))
    colours = f"background:{to_hex(face)};color:{to_hex(ink)}"
    return (f'<span class="{kinds}"><span class="ce-token-word" style="{colours}">{html.escape(spelled_out(word))}</span>'
            f'<span class="ce-token-score">{number}</span></span>')
