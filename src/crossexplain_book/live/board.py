"""The leaderboard on a page: choose what is measured, sort, filter, and set two methods side by side."""

import json
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from crossexplain.checks import InputError
from crossexplain_book.live.part import LivePart
from crossexplain_book.page import Sortable


class Leaderboard(LivePart):
    """Scores of methods on models as tables, one a topic; a script lets them answer.

    Parameters
    ----------
    board : pandas.DataFrame
        One row for each model, method and metric: ``value``, ``low``, ``high`` (ends of a 95 % interval), ``n``, ``passes``;
        where a method cannot run, a row without a metric whose ``note`` says why.
    topics : mapping from title to sequence of str
        Metrics that are shown together; the first topic also shows the passes.
    kinds : mapping from kind of method to sequence of str
        What the names of its methods contain; a method is of the first kind that fits.
    alt, caption, name : str
        Of the figure on a page.

    Raises
    ------
    InputError
        For a method that is of no kind.
    """

    parts, kind = ("looks.js", "board.js"), "board"

    def __init__(self, board: pd.DataFrame, topics: Mapping[str, Sequence[str]], kinds: Mapping[str, Sequence[str]], *,
                 alt: str, caption: str, name: str):
        measured = board[board.value.notna()]
        columns = ["model", "method", "metric", "value", "low", "high", "n", "passes"]
        rows = [[*row[:3], *(round(float(x), 5) for x in row[3:])] for row in measured[columns].itertuples(index=False)]
        notes = board[board.metric.isna() | (board.metric == "")]
        head = {"topics": [{"title": title, "metrics": list(metrics), "passes": k == 0}
                           for k, (title, metrics) in enumerate(topics.items())],
                "models": list(dict.fromkeys(measured.model)), "kinds": list(kinds), "rows": rows,
                "methods": [[method, _kind(method, kinds)] for method in dict.fromkeys(measured.method)],
                "notes": {f"{row.model}\n{row.method}": str(row.note) for row in notes.itertuples()}}
        data = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
        super().__init__(_tables(measured, topics), "0~0~0~3~0~-1~-1~", data, alt=alt, caption=caption, name=name)


def _kind(method: str, kinds: Mapping[str, Sequence[str]]) -> int:
    """Return the place of the first kind that names a part of a method's name."""
    for place, parts in enumerate(kinds.values()):
        if any(part in method for part in parts):
            return place
    raise InputError(f"the method {method!r} is of none of the kinds {', '.join(kinds)}; name a part of its name in one.")


def _tables(board: pd.DataFrame, topics: Mapping[str, Sequence[str]]) -> str:
    """Return one folded table of all models for each topic, which needs no script."""
    wide = board.pivot_table(index=["model", "method"], columns="metric", values="value", sort=False)
    cost, tables = board.groupby(["model", "method"]).passes.max(), ""
    for place, (title, metrics) in enumerate(topics.items()):
        part = wide.reindex(columns=list(metrics)).dropna(how="all")
        rows = [[*which, *([] if place else [f"{cost[which]:.0f}"]), *(f"{x:.2f}" if x == x else "" for x in row)]
                for which, row in zip(part.index, part.to_numpy())]
        header = ["model", "method", *([] if place else ["passes"]), *metrics]
        tables += f"<details><summary>{escape(title)}</summary>{Sortable(header, rows)._repr_html_()}</details>"
    return tables
