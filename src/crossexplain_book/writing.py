"""Words of any script: how they are spelled out, in what order they stand in a line, and which installed fonts have them."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import groupby

import numpy as np
from matplotlib import font_manager
from matplotlib.font_manager import FontPath, FontProperties
from matplotlib.ft2font import FT2Font

STRONG = {"L": False, "R": True, "AL": True}  # classes of characters that have a direction -> from right to left?
BRACKETS = dict(zip("([{（［｛「『【〈《", ")]}）］｝」』】〉》"))
# Fonts that matplotlib brings for formulas, whose letters stand under other characters' numbers, and the one that draws a
# box for each character there is.
NOT_FOR_WORDS = re.compile(r"cm(b|ex|mi|r|ss|sy|tt)10$|STIX(NonUni|Siz)|\.?Last ?Resort")


def spelled_out(word: str) -> str:
    r"""Return a word with its control characters, which no font can draw, written as Python writes them.

    Examples
    --------
    >>> spelled_out("one\ntwo")
    'one\\ntwo'
    """
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") else sign for sign in word)


def columns(word: str) -> int:
    """Return how many columns a word takes: two for each wide character, as of Chinese, and none for an accent.

    Examples
    --------
    >>> columns("dog"), columns("小狗"), columns("cafe\u0301")
    (3, 4, 4)
    """
    def of(sign: str) -> int:
        if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
            return 0
        return 2 if unicodedata.east_asian_width(sign) in ("W", "F") else 1

    return sum(map(of, word))


def from_right(words: Sequence[str]) -> tuple[bool, list[bool]]:
    """Return whether a sentence is written from right to left, and whether each of its words stands in such a run.

    The rules are those of Unicode (annex 9), word by word. A sentence has the direction of its first letter, and so has a
    word. A number goes with the letters before it (one in Arabic digits always from the right), a pair of brackets with
    what stands in it, and any other sign with its neighbours where these agree, else with the sentence.

    Parameters
    ----------
    words : sequence of str

    Returns
    -------
    sentence : bool
    words : list of bool

    Examples
    --------
    >>> from_right(["the", "word", "שלום", "!", "עולם", "."])
    (False, [False, False, True, True, True, False])
    """
    directions = [_direction(word) for word in words]
    sentence = next((direction for direction in directions if direction in (True, False)), False)
    before = sentence
    for i, direction in enumerate(directions):
        if direction in (True, False):
            before = direction
        elif direction is not None:
            directions[i] = before if direction == "number" else True
    for first, last in _pairs(words):
        inside = {direction for direction in directions[first + 1 : last] if direction is not None}
        if inside:
            directions[first] = directions[last] = sentence if sentence in inside else _before(directions, first, sentence)
    return sentence, [_of_neighbours(directions, i, sentence) if direction is None else direction
                      for i, direction in enumerate(directions)]


def _pairs(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of brackets that belong together, in the order in which they open."""
    waiting, pairs = [], []
    for i, word in enumerate(words):
        if word in BRACKETS:
            waiting.append(i)
        elif word in BRACKETS.values():
            opened = next((k for k in reversed(waiting) if BRACKETS[words[k]] == word), None)
            if opened is not None:
                pairs.append((opened, i))
                del waiting[waiting.index(opened):]
    return sorted(pairs)


def _before(directions: Sequence[bool | None], i: int, sentence: bool) -> bool:
    return next((direction for direction in reversed(directions[:i]) if direction is not None), sentence)


def _direction(word: str) -> bool | str | None:
    """Return whether a word begins from the right.

    Where it has digits and no letter this is ``"number"``, or ``"Arabic number"``; for other signs it is None.
    """
    classes = [unicodedata.bidirectional(sign) for sign in word]
    letters = [STRONG[kind] for kind in classes if kind in STRONG]
    if letters:
        return letters[0]
    return "Arabic number" if "AN" in classes else "number" if "EN" in classes else None


def _of_neighbours(directions: Sequence[bool | None], i: int, sentence: bool) -> bool:
    after = next((direction for direction in directions[i + 1 :] if direction is not None), sentence)
    return after if after == _before(directions, i, sentence) else sentence


def runs(directions: Sequence[bool]) -> list[list[int]]:
    """Return the places of words in runs of one direction.

    Examples
    --------
    >>> runs([False, True, True, False])
    [[0], [1, 2], [3]]
    """
    return [list(run) for _, run in groupby(range(len(directions)), key=directions.__getitem__)]


def left_to_right(sentence: bool, directions: Sequence[bool]) -> list[int]:
    """Return the places of the words of one line in the order in which the eye meets them from the left.

    Parameters
    ----------
    sentence : bool
        Whether the sentence is written from right to left.
    directions : sequence of bool
        As :func:`from_right` gives them, of the words in this line.

    Examples
    --------
    >>> left_to_right(True, [True, True, False, False, True])
    [4, 2, 3, 1, 0]
    """
    placed = [run[::-1] if directions[run[0]] else run for run in runs(directions)]
    return [i for run in (placed[::-1] if sentence else placed) for i in run]


def directed(word: str, from_right: bool) -> str:
    """Return a word after a mark that sets its direction, so that signs such as brackets face the right way."""
    if from_right:
        return f"\N{RIGHT-TO-LEFT MARK}{word}"
    turns = not word.isascii() and any(unicodedata.bidirectional(sign) in ("R", "AL", "AN") for sign in word)
    return f"\N{LEFT-TO-RIGHT MARK}{word}" if turns else word


def lettering(text: str, properties: FontProperties) -> tuple[list[str], str]:
    """Return the font families that draw a text, and the characters of it that no installed font can draw.

    Parameters
    ----------
    text : str
    properties : matplotlib.font_manager.FontProperties
        Of the text; its own families come first.

    Returns
    -------
    families : list of str
        In order of preference, for ``matplotlib.text.Text.set_fontfamily``.
    absent : str
        Each character once.
    """
    families, absent = list(properties.get_family()), ""
    for sign in dict.fromkeys(text):
        if sign.isascii() or _needs_no_glyph(sign) or any(_draws(family, sign, properties) for family in families):
            continue
        candidates = (family for family, font in _installed() if ord(sign) in _characters(font))
        family = next((family for family in candidates if _draws(family, sign, properties)), None)
        if family is None:
            absent += sign
        else:
            families.append(family)
    return families, absent


def _needs_no_glyph(sign: str) -> bool:
    """Return whether a character is a space, or only changes how others are drawn."""
    return unicodedata.category(sign) in ("Zs", "Cf") or bool(re.match("[\ufe00-\ufe0f\U000e0100-\U000e01ef]", sign))


def _installed() -> list[tuple[str, FontPath]]:
    """Return the installed families that may draw words, each with its regular file, matplotlib's own family first."""
    entries = [entry for entry in font_manager.fontManager.ttflist
               if entry.style == "normal" and not NOT_FOR_WORDS.match(entry.name)]
    entries.sort(key=lambda entry: entry.weight != 400)
    files: dict[str, FontPath] = {}
    for entry in entries:
        files.setdefault(entry.name, FontPath(entry.fname, entry.index))
    return sorted(files.items(), key=lambda item: (item[0] != "DejaVu Sans", item[0]))


def _draws(family: str, sign: str, properties: FontProperties) -> bool:
    query = properties.copy()
    query.set_family(family)
    try:
        return _has_outline(font_manager.findfont(query, fallback_to_default=False), sign)
    except ValueError:  # no such family
        return False


@cache
def _characters(font: FontPath) -> np.ndarray:
    """Return the numbers of the characters that a font file lists; none where matplotlib cannot read the file any more."""
    try:
        return np.fromiter(_opened(font).get_charmap(), dtype=np.uint32)
    except (OSError, RuntimeError):
        return np.empty(0, dtype=np.uint32)


@cache
def _has_outline(font: FontPath, sign: str) -> bool:
    """Return whether a font draws a character; colour fonts list emoji that matplotlib would draw empty."""
    if ord(sign) not in _characters(font):
        return False
    opened = _opened(font)
    opened.load_char(ord(sign))
    return len(opened.get_path()[0]) > 0


def _opened(font: FontPath) -> FT2Font:
    return FT2Font(font.path, face_index=font.face_index)
