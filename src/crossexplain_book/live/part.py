"""What all live parts share: one ES module each, in JupyterLab and on a page, and a first state that needs no script."""

import gzip
import json
from base64 import b64encode
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from crossexplain_book.pictures import HtmlPicture


def text(name: str) -> str:
    """Return a file of this folder."""
    return Path(__file__).with_name(name).read_text("utf-8")


def module(parts: tuple[str, ...]) -> str:
    """Return files of this folder as one ES module; its default export draws the part, as anywidget asks for it."""
    return "\n".join([f"const STYLE = {json.dumps(text('lab.css'))};", *map(text, parts)])


class LivePart(HtmlPicture):
    """A picture that answers: as the last line of a cell live in JupyterLab, on a page from a file, elsewhere its first state.

    Parameters
    ----------
    still : str
        The first state as HTML, with its text alternative.
    state : str
        The same as text, for the address.
    data : bytes
        What the module needs to know.
    source : str
        Where a page finds module and data, if it does not hold them itself; then a button starts it.
    alt, caption, name : str
        Of the figure on a page.
    """

    parts: tuple[str, ...]  # files of this folder
    kind: str  # under which name the state stands in the address

    def __init__(self, still: str, state: str, data: bytes, *, alt: str, caption: str, name: str, source: str = "",
                 start: str = ""):
        self.state, self.data = state, data
        where = f'data-src="{source}" ' if source else ""
        button = ('<button type="button" class="ce-screen" style="padding:.3rem .8rem" hidden>' f"{start}</button>"
                  if source else "")
        held = "" if source else "".join(f'<script type="text/plain">{held}</script>' for held in (
            module(self.parts), b64encode(gzip.compress(data, mtime=0)).decode()))
        markup = (f'<div class="ce-lab" {where}data-name="{self.kind}" data-state="{state}">'
                  f"<style>@media print{{.ce-lab .ce-screen{{display:none}}}}</style>"
                  f'<div class="ce-lab-still">{still}<p role="status"></p>{button}</div>{held}</div>'
                  f"<script>{text('host.js')}</script>")
        super().__init__(markup, alt=alt, caption=caption, name=name)

    @cached_property
    def widget(self):
        """The part as a widget for JupyterLab, an ``anywidget.AnyWidget``; its ``state`` follows the reader."""
        import anywidget
        import traitlets

        class Widget(anywidget.AnyWidget):
            _esm = module(self.parts)
            data = traitlets.Bytes().tag(sync=True)
            state = traitlets.Unicode().tag(sync=True)

        return Widget(data=self.data, state=self.state)

    def _data(self) -> dict[str, object]:
        if find_spec("anywidget") is None:
            return super()._data()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, **super()._data()}
