"""An explorer of conversations: mute a turn, a party, a modality or one part of a turn, and see answer and what it rests on.

In JupyterLab the model is asked; on a page without a kernel the answers to all mutings of some conversations are stored.
"""

import gzip
import html
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations

import ipywidgets as ipw
import numpy as np

from crossexplain.checks import InputError
from crossexplain_book.controls import Explorer, choice, heading, paragraph, tick_boxes
from crossexplain_book.conversation_html import (
    ENOUGH,
    NOTHING_LEFT,
    SCRIPT,
    STYLE,
    conversation,
    dividend_table,
    known,
    listed,
)
from crossexplain_book.pictures import HtmlPicture
from crossexplain_book.strips import Strip

PLAYERS = ("words", "frames", "sound")  # order of the modalities in a coalition
Ask = Callable[[int, np.ndarray], Sequence[float]]  # number of the conversation, keep (R, M * T) -> logits (R,)


@dataclass(frozen=True)
class Heard:
    """What a model says about a conversation with some of it muted, and about what is left in each subset of the modalities.

    Attributes
    ----------
    values : dict from tuple of str to float
        Logit of what is left in some modalities alone; of the empty tuple, with everything muted.
    before : float
        Logit with nothing muted.
    """

    values: dict[tuple[str, ...], float]
    before: float

    @property
    def logit(self) -> float:
        """Logit of all that is left; above 0 for yes."""
        return self.values[max(self.values, key=len)]

    @property
    def dividends(self) -> dict[tuple[str, ...], float]:
        """What the modalities of each subset have together beyond all fewer of them; they add up to the logit."""
        return {subset: sum((-1) ** (len(subset) - len(part)) * self.values[part] for part in _subsets(subset))
                for subset in self.values}

    @property
    def rests_on(self) -> list[tuple[str, ...]]:
        """The smallest subsets that carry the answer.

        They bring three quarters of what all that is left brings over a conversation in which everything is muted. There is
        none where the model says the same, and no less surely, with everything muted.
        """
        sign, nothing = (1 if self.logit > 0 else -1), self.values[()]
        whole = sign * (self.logit - nothing)
        carry = [subset for subset, value in self.values.items() if whole > 0 and sign * (value - nothing) >= ENOUGH * whole]
        return [subset for subset in carry if not any(set(other) < set(subset) for other in carry)]


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))


def said(logit: float, digits: int) -> str:
    """Return a logit in words."""
    return f"{'yes' if logit > 0 else 'no'} (logit {logit:+.{digits}f})"


def rest(subsets: Iterable[tuple[str, ...]]) -> str:
    """Return in words what an answer rests on.

    Examples
    --------
    >>> rest([("words",), ("frames", "sound")])
    'The answer rests on the words alone, or on the frames and the sound together.'
    """
    parts = [listed([f"the {name}" for name in subset]) + (" alone" if len(subset) == 1 else " together") for subset in subsets]
    if not parts:
        return NOTHING_LEFT
    return f"The answer rests on {', or on '.join(parts)}."


class ConversationExplorer(Explorer):
    """Mute turns, parties, modalities or single parts of a conversation, and see what the model says and what it rests on.

    Parameters
    ----------
    ask : callable, or mapping from the name of a stand-in to callable, or None
        ``ask(conversation, keep) -> logits (R,)``, above 0 for yes, where ``keep`` (R, M * T) says which parts stay: first the
        words of its T turns, then the frames, then the sound, as of ``Groups.apart``. None asks ``stored``.
    strips : sequence of Strip
    stored : mapping from int to array_like of shape (2 ** (M * T),), optional
        Logits of all mutings of some conversations; bit p of the place is 1 where part p stays, as
        :meth:`Game.values_of_all` has them. On a page without a kernel these answer.
    labels : sequence of bool, optional
        The right answers.
    titles : sequence of str, optional
        Names of the conversations; default, their questions.
    start : int
        The conversation to begin with.
    name, caption : str
        Of the figure on a page.
    """

    def __init__(self, ask: Ask | Mapping[str, Ask] | None, strips: Sequence[Strip], *, name: str, caption: str,
                 stored: Mapping[int, Sequence[float]] | None = None, labels: Sequence[bool] | None = None,
                 titles: Sequence[str] | None = None, start: int = 0):
        self.strips, self.labels, self.name, self.caption = list(strips), labels, name, caption
        self.titles = list(titles or (strip.question or f"conversation {i + 1}" for i, strip in enumerate(self.strips)))
        self.stored = {i: _checked(table, self._players(i), i) for i, table in (stored or {}).items()}
        self.asks = dict(ask) if isinstance(ask, Mapping) else {"": ask or self._look_up}
        asked = range(len(self.strips)) if ask else sorted(self.stored)
        if start not in asked:
            raise InputError(f"cannot begin with conversation {start}, there are {list(asked)}"
                             f"{'' if ask else ' in stored, and no model to ask'}.")
        self.conversation = choice("Conversation", [(f"{i + 1}: {self.titles[i]}", i) for i in asked], start)
        self.stand_in = choice("Stand-in", list(self.asks), next(iter(self.asks)))
        self.boxes = {kind: ipw.Box(layout={"flex_flow": "row wrap"}) for kind in ("modality", "party", "turn")}
        self.parts = ipw.GridBox()
        self._fill()
        controls = [self.conversation, *([self.stand_in] if len(self.asks) > 1 else []), heading("Mute a modality"),
                    self.boxes["modality"], heading("Mute a party"), self.boxes["party"], heading("Mute a turn"),
                    self.boxes["turn"], heading("Mute one part of a turn"), self.parts]
        super().__init__(controls, [self.stand_in, *self._ticks()])
        self.conversation.observe(self._another, names="value")

    @property
    def strip(self) -> Strip:
        """The conversation that is shown."""
        return self.strips[self.conversation.value]

    def _names(self, example: int) -> list[str]:
        return [name for name in PLAYERS if name in self.strips[example].names]

    def _players(self, example: int) -> int:
        return len(self._names(example)) * len(self.strips[example])

    def _ticks(self) -> list[ipw.Checkbox]:
        return [tick for box in (*self.boxes.values(), self.parts) for tick in box.children]

    def _fill(self) -> None:
        """Make the boxes to tick for the conversation."""
        strip, names = self.strip, self._names(self.conversation.value)
        parties = list(dict.fromkeys(strip.parties))
        turns = [f"turn {t + 1}, {party}" for t, party in enumerate(strip.parties)]
        labels = {"modality": names, "party": parties, "turn": turns}
        for kind, box in self.boxes.items():
            box.children = tick_boxes(labels[kind], [f"mute {label}" for label in labels[kind]])
        self.parts.children = tick_boxes([f"{name} {t + 1}" for name in names for t in range(len(strip))],
                                         [f"mute the {name} of {turn}" for name in names for turn in turns])
        self.parts.layout = {"grid_template_columns": f"repeat({len(strip)}, max-content)"}

    def _another(self, change=None) -> None:
        """Show another conversation, with nothing muted."""
        self._unwatch()
        self._fill()
        self._watched = [self.stand_in, *self._ticks()]
        self._watch()
        self._follow()

    def _look_up(self, example: int, keep: np.ndarray) -> np.ndarray:
        return self.stored[example][keep @ (1 << np.arange(keep.shape[1]))]

    def kept(self, example: int, *, turns: Iterable[int] = (), parties: Iterable[str] = (), modalities: Iterable[str] = (),
             parts: Iterable[tuple[str, int]] = ()) -> np.ndarray:
        """Return which parts stay, bool (M, T), where turns (from 0), parties, modalities or single parts are muted."""
        strip, names = self.strips[example], self._names(example)
        keep = np.ones((len(names), len(strip)), bool)
        keep[:, list(turns)] = False
        keep[:, np.isin(strip.parties, list(parties))] = False
        keep[[names.index(name) for name in modalities]] = False
        for name, turn in parts:
            keep[names.index(name), turn] = False
        return keep

    def read(self, example: int, stand_in: str | None = None, **muted) -> Heard:
        """Return what is shown for a choice.

        Parameters
        ----------
        example : int
        stand_in : str, optional
            One of the names in ``ask``; default the first.
        **muted
            As for :meth:`kept`.

        Returns
        -------
        Heard
        """
        return self._heard(example, self.kept(example, **muted), next(iter(self.asks)) if stand_in is None else stand_in)

    def _heard(self, example: int, keep: np.ndarray, stand_in: str) -> Heard:
        names = self._names(example)
        subsets = _subsets(names)
        shown = np.array([[name in subset for name in names] for subset in subsets])  # (2 ** M, M)
        rows = np.concatenate([shown[:, :, None] & keep, np.ones_like(keep)[None]]).reshape(len(subsets) + 1, -1)
        logits = np.asarray(self.asks[stand_in](example, rows), dtype=float).reshape(-1)
        if len(logits) != len(rows) or not np.isfinite(logits).all():
            finite = int(np.isfinite(logits).sum())
            raise InputError(f"asked for {len(rows)} logits, got {len(logits)}, of which {finite} are finite.")
        return Heard(dict(zip(subsets, logits[:-1].tolist())), float(logits[-1]))

    def _update(self) -> None:
        example, names = self.conversation.value, self._names(self.conversation.value)
        parties = list(dict.fromkeys(self.strip.parties))
        ticked = {kind: [i for i, tick in enumerate(box.children) if tick.value] for kind, box in self.boxes.items()}
        parts = [divmod(i, len(self.strip)) for i, tick in enumerate(self.parts.children) if tick.value]
        keep = self.kept(example, turns=ticked["turn"], parties=[parties[i] for i in ticked["party"]],
                         modalities=[names[i] for i in ticked["modality"]], parts=[(names[m], t) for m, t in parts])
        heard = self._heard(example, keep, self.stand_in.value)
        self._show(partial(self._draw, example, keep, heard), self._say(example, heard))
        self._details.value = ""

    def _say(self, example: int, heard: Heard, digits: int = 2) -> str:
        return paragraph(f"The model says {said(heard.logit, digits)}; with nothing muted it says {said(heard.before, digits)}."
                         f"{self._truth(example)} {rest(heard.rests_on)}", "status")

    def _truth(self, example: int) -> str:
        return "" if self.labels is None else f" The truth is {'yes' if self.labels[example] else 'no'}."

    def _alt(self, example: int, keep: np.ndarray, heard: Heard) -> str:
        muted = [f"the {name} of turn {t + 1}" for m, name in enumerate(self._names(example)) for t in np.flatnonzero(~keep[m])]
        count = f"{len(muted)} of {keep.size} parts muted ({', '.join(muted)})" if muted else "nothing muted"
        return (f"A conversation of {len(self.strips[example])} turns with {count}. The model says {said(heard.logit, 2)}. "
                f"{rest(heard.rests_on)}")

    def _draw(self, example: int, keep: np.ndarray, heard: Heard) -> HtmlPicture:
        names, alt = self._names(example), self._alt(example, keep, heard)
        rows = {name: keep[names.index(name)] for name in names}
        body = conversation(self.strips[example], rows, alt) + dividend_table(heard.dividends, 2) + known(self.strips[example])
        return HtmlPicture(f'<style>{STYLE}</style><div class="ce-conversation">{body}</div>', alt=alt, caption=self.caption,
                           name=self.name)

    def page(self) -> HtmlPicture:
        """Return the explorer as a page shows it, which answers clicks by what is stored."""
        if self.conversation.value not in self.stored:
            return self.picture
        chosen = [self.conversation.value, *(i for i in sorted(self.stored) if i != self.conversation.value)]
        alt = self.picture.alt
        options = "".join(f'<option value="{k}">{i + 1}: {html.escape(self.titles[i])}</option>' for k, i in enumerate(chosen))
        parts = "".join(self._stored(i, k > 0) for k, i in enumerate(chosen))
        select = f'<label>Conversation <select autocomplete="off">{options}</select></label> ' if len(chosen) > 1 else ""
        step = max(_eighth(self.stored[i])[1] for i in chosen)
        markup = (f'<style>{STYLE}</style><div class="ce-conversation" role="group" aria-label="{html.escape(alt)}">'
                  f'<p class="ce-controls">{select}<button type="button" class="ce-reset">unmute all</button></p>'
                  "<p>Click what shall be muted: a part of a turn, a turn, a party or a modality. The address of the page "
                  f"keeps what you chose. Logits are kept in steps of {step:.2g}.</p>{parts}</div>"
                  f"<script>{SCRIPT}</script>")
        return HtmlPicture(markup, alt=alt, caption=self.caption, name=self.name)

    def _stored(self, example: int, hidden: bool) -> str:
        """Return one conversation with all its stored answers."""
        strip, names = self.strips[example], self._names(example)
        small, step = _eighth(self.stored[example])
        heard = self._of_table(example, small * step)
        data = b64encode(gzip.compress(small.tobytes(), mtime=0)).decode()
        known_by = {"names": " ".join(names), "turns": len(strip), "step": f"{step:.6g}", "truth": self._truth(example),
                    "nothing": NOTHING_LEFT}
        attributes = " ".join(f'data-{key}="{value}"' for key, value in known_by.items()) + " hidden" * hidden
        body = conversation(strip, None, "") + self._say(example, heard, 1) + dividend_table(heard.dividends, 1) + known(strip)
        return f'<div class="ce-one" {attributes}>{body}<script type="text/plain">{data}</script></div>'

    def _of_table(self, example: int, table: np.ndarray) -> Heard:
        names, turns = self._names(example), len(self.strips[example])
        places = {subset: sum(((1 << turns) - 1) << turns * names.index(name) for name in subset) for subset in _subsets(names)}
        return Heard({subset: float(table[place]) for subset, place in places.items()}, float(table[-1]))

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, words = self.page()._repr_mimebundle_()
        return {**self.widget._repr_mimebundle_(), **data}, words


def _checked(table, players: int, example: int) -> np.ndarray:
    table = np.asarray(table, dtype=float).reshape(-1)
    if len(table) != 2**players or not np.isfinite(table).all():
        finite = int(np.isfinite(table).sum())
        raise InputError(f"stored has {len(table):,} logits of conversation {example}, {finite:,} of them finite, expected one "
                         f"for each of the 2**{players} = {2**players:,} mutings of its {players} parts.")
    return table


def _eighth(table: np.ndarray) -> tuple[np.ndarray, float]:
    """Return logits as int8 and the step between them; none changes its sign, so no answer changes."""
    step = float(np.abs(table).max()) / 127 or 1.0
    small = np.round(table / step)
    small = np.where((small == 0) & (table > 0), 1, small)
    return small.astype(np.int8), float(f"{step:.6g}")


