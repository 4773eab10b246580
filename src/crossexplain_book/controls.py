"""What all explorers share: controls with labels that are shown as they are, and a result that follows them."""

import gc
import html
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets as ipw

from crossexplain_book import figures
from crossexplain_book.pictures import Shown
from crossexplain_book.writing import from_right, spelled_out

# Words that are written from right to left begin at the right, and what a reader types takes the direction of its letters.
STYLE = "<style>.ce-from-right{direction:rtl}.ce-typed input,.ce-typed select{unicode-bidi:plaintext}</style>"


class Explorer:
    """What the explorers share: controls, the picture with its words, and a message where something is wrong.

    Attributes
    ----------
    widget : ipywidgets.VBox
        Controls and result.
    """

    def __init__(self, controls: Sequence[ipw.Widget], watched: Sequence[ipw.Widget]):
        self._shown, self._message, self._details = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self._update()  # what is wrong from the beginning is the caller's to hear
        self.widget = ipw.VBox([ipw.HTML(STYLE), *controls, self._message, self._shown, self._details])
        self._watched = list(watched)
        self._watch()

    def _watch(self) -> None:
        for control in self._watched:
            control.observe(self._follow, names="value")

    def _unwatch(self) -> None:
        for control in self._watched:
            control.unobserve(self._follow, names="value")

    def _follow(self, change=None) -> None:
        """Show the new state; where there is none say why, and show nothing that belongs to another state."""
        try:
            with _tidying():
                self._update()
        except Exception as error:  # noqa: BLE001 - in a callback it would vanish in the server's log
            self._shown.value = self._details.value = ""
            self._message.value = paragraph(str(error) or type(error).__name__, "alert")
            if not isinstance(error, ValueError):  # ours, InputError, PhotoError: made for the reader
                raise

    def _update(self) -> None:
        raise NotImplementedError

    def _show(self, drawing: Callable[[], Shown], message: str) -> None:
        self._drawing, picture = drawing, drawing()
        self._message.value = message
        self._shown.value = picture.html()

    @property
    def picture(self) -> Shown:
        """The picture of the present state, drawn anew."""
        return self._drawing()

    @property
    def message(self) -> str:
        """What stands above the picture, as HTML: the prediction, or what is wrong."""
        return self._message.value

    @property
    def details(self) -> str:
        """What stands below the picture, as HTML."""
        return self._details.value

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, words = self.picture._repr_mimebundle_()
        return {**self.widget._repr_mimebundle_(), **data}, words


@contextmanager
def _tidying() -> Iterator[None]:
    """Postpone Python's garbage collection to the end, and collect only what is new.

    A picture consists of ten thousand objects that hold each other. Collected at once, they are gone in milliseconds; left to
    grow old, they make Python search its whole memory every dozen changes, which takes several times as long as an answer.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.collect(0)
            gc.enable()


def paragraph(text: str, role: str) -> str:
    """Return a text as HTML, with its role (``"status"``, ``"note"``, ``"alert"``) for screen readers."""
    colour = f' style="border-left:4px solid {figures.COLOURS[1]};padding-left:.6rem"' if role == "alert" else ""
    return f'<p role="{role}"{colour}>{html.escape(text)}</p>'


def choice(label: str, options, value=None) -> ipw.Dropdown:
    """Return a list of options to choose from."""
    control = ipw.Dropdown(description=label, options=options, value=value, layout={"width": "auto", "max_width": "42rem"},
                           style={"description_width": "8rem"})
    return control.add_class("ce-typed")


def tick_boxes(labels: Sequence[str], tooltips: Sequence[str]) -> list[ipw.Checkbox]:
    """Return a box to tick for each label."""
    return [ipw.Checkbox(description=_as_it_is(label), description_allow_html=_as_it_is(label) != label, tooltip=tip,
                         indent=False, layout={"width": "auto", "margin": "0 .8rem 0 0"})
            for label, tip in zip(labels, tooltips)]


def _as_it_is(label: str) -> str:
    """Return a label that JupyterLab would read as a formula in HTML that says it is none; any other unchanged."""
    return f'<span class="mathjax_ignore">{html.escape(label)}</span>' if re.search(r"[$\\]", label) else label


def begin_at_the_right(control: ipw.Widget, words: Sequence[str]) -> None:
    """Let a control for each word begin at the right where the words are written from right to left."""
    (control.add_class if from_right(words)[0] else control.remove_class)("ce-from-right")


def heading(text: str) -> ipw.HTML:
    """Return a line that stands above a group of controls."""
    return ipw.HTML(f"<strong>{html.escape(text)}</strong>")


def told_apart(words: Sequence[str]) -> list[str]:
    """Return words as labels of buttons, each different: the front-end finds the chosen button by its label.

    A word that occurs again is followed by a mark of no width for each time before.
    """
    spelled = [spelled_out(word) for word in words]
    return [word + "\N{ZERO WIDTH SPACE}" * spelled[:i].count(word) for i, word in enumerate(spelled)]
