"""A conversation as a film strip: its turns side by side on one time axis, what is shown, said and heard, and the attribution.

A strip takes plain arrays and knows no data set: see :class:`Strip`.
"""

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import matplotlib
import numpy as np
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextToPath

from crossexplain.checks import InputError
from crossexplain_book.pictures import BOX, INK, PAPER, SEQUENTIAL, SIGNED, STYLE, Picture, bare, ink_on
from crossexplain_book.writing import columns, directed, from_right, left_to_right, spelled_out

MODALITIES = ("frames", "words", "sound")  # in the order in which they stand below each other
# Of parties, told apart by sign and name too; none is the red or the blue of signed values, and all can be read on paper.
PARTY_COLOURS = ("#2f7a58", "#7d4a93", "#86650f", "#4c565e", "#a03f5c", "#2a6f86")
PARTY_SIGNS = "●■▲◆▼★"
EMPTY = {"frames": "nothing shown", "words": "nothing said", "sound": "silence"}
DOTS = 150  # an inch of the PNG
SHOWN = 100  # an inch on the page; the rest makes it sharp on fine screens
LEAST, MOST, ALL = 0.83, 1.55, 6.68  # inches that a turn is wide, and all of them: up to eight fit beside both side bars
NARROW = 4.2  # inches that a strip is wide at least, so that the question and the colour bar fit
GUTTER, GAP, TEXT, LINE, SPACE = 0.2, 0.1, 7.0, 0.145, 0.047  # all in inches but the size of the text, which is in points
FONT = FontProperties(size=TEXT)


@dataclass(frozen=True, eq=False)
class Strip:
    """One conversation of T turns, to draw.

    Parameters
    ----------
    parties : sequence of T str
        Who speaks in each turn.
    words : sequence of T sequences of str
        What is said in each turn; nothing where a turn has no words.
    frames : array_like, shape (T, K, height, width), in [0, 1], optional
        What is shown; NaN where there is no frame.
    sound : array_like, shape (T, time, mels), optional
        What is heard, as a log-mel spectrogram; NaN where there is none.
    question : str
        What is asked about the conversation.
    values : mapping, optional
        Attribution of each feature: ``"words"`` T arrays as long as the words of each turn, ``"frames"`` (T, K), ``"sound"``
        (T, S) for S segments of equal length. NaN where a feature has no value, for example because it is hidden; where there
        is no frame or no sound, nothing is drawn.
    deciding : array_like of bool, shape (T,), optional
        Turns that are known to decide.
    chunks : mapping, optional
        Features that are known to decide, bool, by modality as ``values``.

    Raises
    ------
    InputError
        For arrays that do not fit the turns.
    """

    parties: Sequence[str]
    words: Sequence[Sequence[str]]
    frames: np.ndarray | None = None
    sound: np.ndarray | None = None
    question: str = ""
    values: Mapping | None = None
    deciding: Sequence[bool] | None = None
    chunks: Mapping = field(default_factory=dict)

    def __post_init__(self):
        turns = len(self.parties)
        if not turns:
            raise InputError("a strip needs at least one turn; parties is empty.")
        if len(self.words) != turns:
            raise InputError(f"got the words of {len(self.words)} turns and the parties of {turns}; pass one list of words a "
                             "turn, empty where nothing is said.")
        for name, axes in (("frames", 4), ("sound", 3)):
            array = getattr(self, name)
            if array is not None:
                array = np.asarray(array, dtype=float)
                if array.ndim != axes or len(array) != turns:
                    shape = "(T, K, height, width)" if name == "frames" else "(T, time, mels)"
                    raise InputError(f"got {name} of shape {array.shape}, expected {shape} with T = {turns} turns.")
            object.__setattr__(self, name, array)
        deciding = np.zeros(turns, bool) if self.deciding is None else np.asarray(self.deciding, bool)
        if deciding.shape != (turns,):
            raise InputError(f"got deciding of shape {deciding.shape}, expected one True or False a turn, ({turns},).")
        object.__setattr__(self, "deciding", deciding)
        if self.values is not None:
            object.__setattr__(self, "values", self._by_turn("values", self.values, float))
        object.__setattr__(self, "chunks", self._by_turn("chunks", self.chunks or {}, bool))

    def __len__(self) -> int:
        return len(self.parties)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that the conversation has, in the order in which they are drawn."""
        return tuple(name for name in MODALITIES if getattr(self, name) is not None)

    def colour(self, turn: int) -> str:
        """Return the colour of the party of a turn."""
        return PARTY_COLOURS[self._place(turn) % len(PARTY_COLOURS)]

    def sign(self, turn: int) -> str:
        """Return the sign of the party of a turn."""
        return PARTY_SIGNS[self._place(turn) % len(PARTY_SIGNS)]

    def _place(self, turn: int) -> int:
        return list(dict.fromkeys(self.parties)).index(self.parties[turn])

    def said(self, turn: int) -> bool:
        """Return whether a turn has words."""
        return len(self.words[turn]) > 0

    def has(self, modality: str, turn: int) -> bool:
        """Return whether a turn has something in a modality."""
        return self.said(turn) if modality == "words" else bool(np.isfinite(getattr(self, modality)[turn]).any())

    def _by_turn(self, kind: str, arrays: Mapping, dtype: type) -> dict[str, list[np.ndarray]]:
        """Return one array a turn for each modality, or refuse what does not fit."""
        by_turn = {}
        for name, rows in arrays.items():
            if name not in self.names:
                raise InputError(f"{kind} names {name!r}, the strip has {', '.join(self.names)}.")
            rows = [np.asarray(row, dtype=dtype).reshape(-1) for row in rows]
            sizes = {"words": [len(words) for words in self.words],
                     "frames": [0 if self.frames is None else self.frames.shape[1]] * len(self),
                     "sound": [len(rows[0]) if rows else 0] * len(self)}[name]
            if [len(row) for row in rows] != sizes:
                raise InputError(f"{kind} of {name} are {[len(row) for row in rows]} by turn, expected {sizes}: one for each "
                                 "feature of the turn.")
            if dtype is float and np.isinf(np.concatenate([*rows, [0.0]])).any():
                raise InputError(f"{kind} of {name} hold infinity; look for a 0/0 where they were scaled.")
            by_turn[name] = rows
        return by_turn


class Scrolling(Picture):
    """A picture that keeps its size where the window is narrower, and scrolls sideways there.

    Parameters
    ----------
    figure, alt, caption, name, parts
        As for :class:`~crossexplain_book.figures.Picture`.
    """

    def __init__(self, figure: Figure, *, alt: str, caption: str, name: str, parts=()):
        super().__init__(figure, alt=alt, caption=caption, name=name, dpi=DOTS, crop=False, parts=parts)

    def html(self) -> str:
        """Return the picture in a box that scrolls, by finger and by arrow key."""
        data, width = b64encode(self.png()).decode(), round(self.figure.get_figwidth() * SHOWN)
        return (f'<div class="ce-strip" role="group" aria-label="Film strip; it scrolls sideways" tabindex="0" '
                f'style="overflow-x:auto;max-width:100%"><img alt="{html.escape(self.alt)}" '
                f'src="data:image/png;base64,{data}" style="width:{width}px;max-width:none"></div>')

    def _data(self) -> dict[str, object]:
        return {"text/html": self.html(), **super()._data()}


def film_strip(strip: Strip, *, alt: str, caption: str, name: str, signed: bool = True, label: str = "evidence for the answer",
               largest: float | None = None) -> Picture:
    """Draw a conversation on one time axis: frames, words and sound turn by turn, and below them the attribution of all.

    Turns that are known to decide are framed and named, so are known frames and segments of sound; known words are underlined.

    Parameters
    ----------
    strip : Strip
        Without ``values`` only the conversation is drawn.
    signed : bool
        Red for, blue against, white at 0; otherwise from dark (none) to bright (much).
    label : str
        What the colour bar measures; it is one for all modalities.
    largest : float, optional
        End of the colour bar; default the largest absolute value of the strip.

    Returns
    -------
    Picture
    """
    sheet = _Sheet(strip, signed, largest)
    sheet.draw(label)
    return Scrolling(sheet.figure, alt=alt, caption=caption, name=name, parts=sheet.parts)


class _Sheet:
    """The figure of a strip: one axis whose units are inches, from the top left corner."""

    def __init__(self, strip: Strip, signed: bool, largest: float | None):
        self.strip, self.signed, self.parts = strip, signed, []
        self.column = float(np.clip(ALL / len(strip), LEAST, MOST))  # width of a turn
        self.lines = [_wrapped(words, self.column - GAP) for words in strip.words]
        if strip.values is not None:
            finite = np.abs(np.concatenate([np.nan_to_num(row) for rows in strip.values.values() for row in rows] or [[0.0]]))
            top = largest or float(finite.max(initial=0.0)) or 1.0
            self.norm = TwoSlopeNorm(0, -top, top) if signed else Normalize(0, top)
            self.map = matplotlib.colormaps[SIGNED if signed else SEQUENTIAL]
        if strip.sound is not None:
            heard = strip.sound[np.isfinite(strip.sound)]
            self.loud = (heard.min(), heard.max()) if heard.size else (0.0, 1.0)
        frames = 1 if strip.frames is None else strip.frames.shape[1]
        self.side = min((self.column - GAP) / frames, 0.62)
        self.heights = {"frames": self.side, "words": LINE * max(1, *map(len, self.lines)) + 0.04, "sound": 0.52}

    def draw(self, label: str) -> None:
        strip, names = self.strip, self.strip.names
        room = 0.87 * max(self.column * len(strip), NARROW - GUTTER)  # bold letters are wider
        asked = strip.question.split()
        question = _wrapped(asked, room, 8.5) if asked else []
        head = 0.17 * len(question) + (0.08 if question else 0.0)
        parts = [("input", name, self.heights[name]) for name in names]
        if strip.values is not None:
            parts += [("map", name, self.heights[name] if name != "sound" else 0.26) for name in names if name in strip.values]
        told = 0.16 * bool(strip.deciding.any())  # room for the word above the frame
        tall = head + told + 0.5 + sum(height + 0.08 for *_, height in parts) + (0.28 if strip.values is not None else 0)
        below = 0.56 if strip.values is not None else 0.24
        width, high = max(GUTTER + self.column * len(strip) + 0.06, NARROW), tall + below
        with matplotlib.rc_context(STYLE):
            self.figure = Figure(figsize=(width, high), facecolor=PAPER)
            self.axis = self.figure.add_axes((0, 0, 1, 1))
        self.axis.set(xlim=(0, width), ylim=(high, 0))
        bare(self.axis)
        for i, line in enumerate(question):
            self._text(GUTTER, 0.13 + 0.17 * i, " ".join(asked[k] for k in line), size=8.5, weight="bold")
        top = head + 0.04 + told
        for turn in range(len(strip)):
            self._head(turn, top)
        at, blocks = top + 0.44, [[top, 0.0]]
        for kind, name, height in parts:
            if kind == "map" and len(blocks) == 1:
                self._text(GUTTER, at + 0.12, "attribution, one scale for all", size=7.5, weight="bold")
                blocks += [[at + 0.23, 0.0]]
                at += 0.28
            self._text(0.1, at + height / 2, name, size=6.5, ha="center", va="center", rotation=90)
            for turn in range(len(strip)):
                getattr(self, f"_{kind}_{name}")(turn, at, height)
            if kind == "map":
                self.parts += [(self.axis, (self._left(turn), at, self._left(turn) + self.column - GAP, at + height), told)
                               for turn in range(len(strip)) if (told := self._strongest(name, turn))]
            at += height + 0.08
            blocks[-1][1] = at - 0.04
        for turn in np.flatnonzero(strip.deciding):
            for begin, end in blocks:
                self._frame(self._left(turn) - 0.035, begin, self.column - GAP + 0.07, end - begin, 1.8)
        self._foot(at, width, high, label)

    def _foot(self, at: float, width: float, high: float, label: str) -> None:
        """Draw the time axis and the colour bar."""
        self.axis.annotate("", (width - 0.06, at + 0.07), (width - 0.75, at + 0.07),
                           arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.8})
        self._text(width - 0.8, at + 0.07, "time", size=7, ha="right", va="center")
        if self.strip.values is None:
            return
        from matplotlib.cm import ScalarMappable

        bar = self.figure.add_axes((GUTTER / width, (high - at - 0.3) / high, 1.9 / width, 0.09 / high))
        self.figure.colorbar(ScalarMappable(self.norm, self.map), cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=6.5, length=2, pad=1.5)
        bar.locator_params(nbins=5)
        self._text(GUTTER + 2.0, at + 0.255, label, size=7.5, va="center")

    def _left(self, turn: int) -> float:
        return GUTTER + turn * self.column + GAP / 2

    def _text(self, x: float, y: float, text: str, size: float = TEXT, **kwargs) -> None:
        self.axis.text(x, y, text, fontsize=size, parse_math=False, **{"va": "center", **kwargs})

    def _frame(self, left: float, top: float, width: float, height: float, line: float) -> None:
        """Draw the frame of what is known to decide: turquoise, with a dark edge so that it shows on paper too."""
        self.axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=BOX, linewidth=line, zorder=5,
                                      path_effects=[withStroke(linewidth=line + 1.0, foreground=INK)]))

    def _head(self, turn: int, top: float) -> None:
        strip, left = self.strip, self._left(turn)
        self._text(left + 0.02, top + 0.1, f"turn {turn + 1}")
        if strip.deciding[turn]:
            self._text(left + (self.column - GAP) / 2, top - 0.09, "decides", weight="bold", ha="center")
        party = _cut(spelled_out(strip.parties[turn]), self.column - GAP - 0.18, 8.0)
        self._text(left + 0.02, top + 0.28, f"{strip.sign(turn)} {party}", size=8, weight="bold", color=strip.colour(turn))
        self.axis.plot([left, left + self.column - GAP], [top + 0.385] * 2, color=strip.colour(turn), linewidth=2)

    def _nothing(self, turn: int, top: float, height: float, name: str) -> None:
        self._text(self._left(turn) + (self.column - GAP) / 2, top + height / 2, EMPTY[name], size=6.5, color="#6b7177",
                   ha="center", style="italic")

    def _input_frames(self, turn: int, top: float, height: float) -> None:
        if not self.strip.has("frames", turn):
            return self._nothing(turn, top, height, "frames")
        for k, frame in enumerate(self.strip.frames[turn]):
            if np.isfinite(frame).all():
                left = self._left(turn) + k * self.side
                self.axis.imshow(frame, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest",
                                 extent=(left + 0.01, left + self.side - 0.01, top + height, top))
        self._known("frames", turn, top, height)

    def _input_words(self, turn: int, top: float, height: float) -> None:
        self._words(turn, top, height, None)

    def _input_sound(self, turn: int, top: float, height: float) -> None:
        if not self.strip.has("sound", turn):
            return self._nothing(turn, top, height, "sound")
        left, right = self._left(turn), self._left(turn) + self.column - GAP
        self.axis.imshow(np.ma.masked_invalid(self.strip.sound[turn].T), cmap="gray", vmin=self.loud[0], vmax=self.loud[1],
                         aspect="auto", origin="lower", extent=(left, right, top + height, top), interpolation="nearest")
        self._known("sound", turn, top, height)

    def _map_frames(self, turn: int, top: float, height: float) -> None:
        self._cells("frames", turn, top, height)

    def _map_words(self, turn: int, top: float, height: float) -> None:
        self._words(turn, top, height, self.strip.values["words"][turn])

    def _map_sound(self, turn: int, top: float, height: float) -> None:
        self._cells("sound", turn, top, height)

    def _places(self, name: str, turn: int, count: int) -> list[tuple[float, float]]:
        """Return left edge and width of each frame or segment of sound."""
        width = self.side if name == "frames" else (self.column - GAP) / count
        return [(self._left(turn) + k * width, width) for k in range(count)]

    def _known(self, name: str, turn: int, top: float, height: float) -> None:
        known = self.strip.chunks.get(name)
        for (left, width), decides in zip(self._places(name, turn, len(known[turn])), known[turn]) if known else ():
            if decides:
                self._frame(left + 0.012, top, width - 0.024, height, 1.3)

    def _cells(self, name: str, turn: int, top: float, height: float) -> None:
        """Draw the values of frames or of segments of sound at their places, each with its number."""
        values, given = self.strip.values[name][turn], np.isfinite(getattr(self.strip, name)[turn])
        given = given.all(axis=(1, 2)) if name == "frames" else np.full(len(values), given.any())
        for (left, width), value, is_given in zip(self._places(name, turn, len(values)), values, given):
            if not is_given:
                continue
            face, ink = self._look(value)
            self.axis.add_patch(Rectangle((left + 0.01, top), width - 0.02, height, facecolor=face, **_edge(value)))
            if np.isfinite(value) and width > 0.26:  # in a narrower one nobody could read it
                number = f"{round(value, 1) + 0.0:{'+' if self.signed else ''}.1f}"
                self._text(left + width / 2, top + height / 2, number, size=5.6, color=ink, ha="center")
        self._known(name, turn, top, height)

    def _words(self, turn: int, top: float, height: float, values) -> None:
        """Draw the words of a turn in its party's colour, or on the colours of their values; known ones are underlined."""
        strip = self.strip
        if not strip.said(turn):
            return self._nothing(turn, top, height, "words")
        words = [_cut(spelled_out(word), self.column - GAP - 0.02) for word in strip.words[turn]]
        known = strip.chunks.get("words")
        rtl, directions = from_right(strip.words[turn])
        for i, line in enumerate(self.lines[turn]):
            line = [line[k] for k in left_to_right(rtl, [directions[k] for k in line])]
            wide = [_width(words[k]) for k in line]
            left = self._left(turn) + 0.01
            left += max(self.column - GAP - sum(wide) - SPACE * len(line), 0) if rtl else 0
            for k, width in zip(line, wide):
                base = top + LINE * (i + 0.5) + 0.02
                ink = strip.colour(turn)
                if values is not None:
                    face, ink = self._look(values[k])
                    self.axis.add_patch(Rectangle((left - 0.01, base - LINE / 2 + 0.008), width + 0.02, LINE - 0.016,
                                                  facecolor=face, **_edge(values[k])))
                self._text(left, base, directed(words[k], directions[k]), color=ink)
                if known and known[turn][k]:
                    self.axis.plot([left, left + width], [base + LINE / 2 - 0.018] * 2, color=INK, linewidth=1.2)
                left += width + SPACE
        return None

    def _strongest(self, name: str, turn: int) -> str:
        """Return in words where the values of a turn are strongest in a modality; nothing where it has none."""
        strip, values = self.strip, self.strip.values[name][turn]
        if not strip.has(name, turn) or not np.isfinite(values).any():
            return ""
        k = int(np.nanargmax(np.abs(values)))
        part = {"frames": f"frame {k + 1} of {len(values)}", "sound": f"segment {k + 1} of {len(values)}"}.get(name)
        value = f"{values[k]:{'+' if self.signed else ''}.2f}"
        return (f"turn {turn + 1}, {strip.parties[turn]}{', decides' if strip.deciding[turn] else ''}, {name}: strongest at "
                f"{part or repr(strip.words[turn][k])} ({value})")

    def _look(self, value: float) -> tuple[tuple, str]:
        """Return ground and ink of a value."""
        if not np.isfinite(value):
            return (1, 1, 1, 1), INK
        face = self.map(self.norm(value))
        return face, ink_on(face)


def _edge(value: float) -> dict:
    return {"edgecolor": "#c9c9c2", "linewidth": 0.4} if np.isfinite(value) else \
        {"edgecolor": INK, "linestyle": ":", "linewidth": 0.6}


@cache
def _width(word: str, size: float = TEXT) -> float:
    """Return how wide a word is drawn, in inches; wide characters are taken as twice as wide as a letter."""
    if not word.isascii():
        return columns(word) * 0.62 * size / 72
    font = FONT.copy()
    font.set_size(size)
    return TextToPath().get_text_width_height_descent(word, font, ismath=False)[0] / 72


def _cut(word: str, room: float, size: float = TEXT) -> str:
    """Return a word that fits, with an ellipsis in place of what does not."""
    if _width(word, size) <= room:
        return word
    kept = word
    while kept and _width(kept, size) + _width("...", size) > room:
        kept = kept[:-1]
    return kept + "…"


def _wrapped(words: Sequence[str], room: float, size: float = TEXT) -> list[list[int]]:
    """Return the places of the words of each line."""
    lines, width = [[]], 0.0
    for i, word in enumerate(words):
        wide = _width(_cut(spelled_out(word), room - 0.02, size), size)
        if lines[-1] and width + wide > room:
            lines.append([])
            width = 0.0
        lines[-1].append(i)
        width += wide + SPACE * size / TEXT
    return lines
