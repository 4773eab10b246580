"""Figures about conversations: which turn, which party, and which modalities together."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm

from crossexplain.checks import InputError
from crossexplain.intervals import Interval
from crossexplain_book.pictures import BOX, COLOURS, INK, MARKERS, PAPER, SIGNED, Picture, bare, ink_on, sheet
from crossexplain_book.strips import PARTY_COLOURS

PARTY_MARKERS = "os^Dv*"  # the signs of the parties in a film strip
WIDTH = 5.8  # inches; drawn so narrow, the letters stay readable on a telephone
PLAIN = {"parse_math": False}
GRID = {"color": "#dcdcd6", "linewidth": 0.7}


def turn_curve(series: Mapping[str, Sequence], *, alt: str, caption: str, name: str, deciding: Sequence[bool] | None = None,
               parties: Sequence[str] | None = None, ylabel: str = "share of the attribution", shares: bool = True) -> Picture:
    """Draw the attribution of each turn by several methods, with the turns that are known to decide marked.

    Parameters
    ----------
    series : mapping from method to array_like of shape (T,), or to a sequence of T Interval
        Arrays are drawn as shares of the sum of their sizes, with their sign; intervals as they are, with a band.
    deciding : array_like of bool, shape (T,), optional
    parties : sequence of T str, optional
        Who speaks; written below the number of the turn.
    ylabel : str
    shares : bool
        False draws arrays as they are.

    Returns
    -------
    Picture

    Raises
    ------
    InputError
        For series of different lengths, or values that are NaN or infinite.
    """
    drawn = {method: _by_turn(method, values, shares) for method, values in series.items()}
    turns = {values.shape[1] for values in drawn.values()}
    turns |= {len(of) for of in (deciding, parties) if of is not None}
    if len(turns) != 1:
        raise InputError(f"got {sorted(turns)} turns, expected one value a turn from every method, and as many entries of "
                         "deciding and of parties.")
    (turns,) = turns
    numbers = np.arange(1, turns + 1)
    figure, axes = sheet(1, 1, WIDTH, 3.4)
    axis = axes[0, 0]
    for turn in () if deciding is None else numbers[np.asarray(deciding, bool)]:
        axis.axvspan(turn - 0.4, turn + 0.4, color=BOX, alpha=0.28, linewidth=0)
        axis.annotate("decides", (turn, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8, fontweight="bold")
    for i, (method, (value, low, high)) in enumerate(drawn.items()):
        look = {"color": COLOURS[i % 6], "marker": MARKERS[i % 6], "markerfacecolor": COLOURS[i % 6] if i < 6 else PAPER}
        axis.plot(numbers, value, markersize=5, label=method, **look)
        if (low < high).any():
            axis.fill_between(numbers, low, high, color=COLOURS[i % 6], alpha=0.18, linewidth=0)
    axis.axhline(0, color=INK, linewidth=0.8)
    names = [""] * turns if parties is None else [f"\n{party}" for party in parties]
    axis.set_xticks(numbers, [f"{number}{party}" for number, party in zip(numbers, names)], fontsize=9, **PLAIN)
    axis.set(xlabel="turn", ylabel=ylabel, xlim=(0.5, turns + 0.5))
    axis.grid(axis="y", **GRID)
    _legend(figure)
    return Picture(figure, alt=alt, caption=caption, name=name)


def _by_turn(method: str, values: Sequence, shares: bool) -> np.ndarray:
    """Return value, low and high of each turn, (3, T)."""
    if len(values) and isinstance(values[0], Interval):
        rows = np.array([(of.value, of.low, of.high) for of in values], dtype=float).T
    else:
        row = np.asarray(values, dtype=float).reshape(-1)
        rows = np.stack([row / (np.abs(row).sum() or 1.0) if shares else row] * 3)
    if not np.isfinite(rows).all():
        raise InputError(f"the values of {method!r} hold NaN or infinity; pass 0 for a turn that has none.")
    return rows


def party_shares(rows: Mapping, *, alt: str, caption: str, name: str, xlabel: str = "share of the attribution",
                 expected: Mapping[str, float] | None = None, expected_label: str = "by its turns alone") -> Picture:
    """Draw the share of each party, with its interval, by one method or several.

    Parameters
    ----------
    rows : mapping from party to Interval, or mapping from method to such a mapping
        Parties have the colours and signs of a film strip in which they speak in this order.
    xlabel : str
    expected : mapping from party to float, optional
        What to compare with, a line for each party: for example the share of the turns in which it speaks.
    expected_label : str

    Returns
    -------
    Picture
    """
    methods = rows if isinstance(next(iter(rows.values())), Mapping) else {"": rows}
    parties = list(dict.fromkeys(party for of_method in methods.values() for party in of_method))
    figure, axes = sheet(1, 1, WIDTH, 0.26 * len(methods) * (len(parties) + 0.8) + 1.1)
    axis = axes[0, 0]
    step = 1.0 / (len(parties) + 0.8)
    for p, party in enumerate(parties):
        look = {"color": PARTY_COLOURS[p % 6], "marker": PARTY_MARKERS[p % 6]}
        label = party
        for m, of_method in enumerate(methods.values()):
            if party not in of_method:
                continue
            share, y = of_method[party], m + (p - (len(parties) - 1) / 2) * step
            axis.plot([share.low, share.high], [y, y], color=look["color"], linewidth=2)
            axis.plot(share.value, y, linestyle="", markersize=7, label=label, **look)
            label = None
            if expected is not None:
                axis.plot([expected[party]] * 2, [y - 0.42 * step, y + 0.42 * step], color=INK, linewidth=1.4,
                          label=expected_label if m == 0 and p == len(parties) - 1 else None)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set(xlabel=xlabel, ylim=(len(methods) - 0.5, -0.5))
    axis.set_yticks(range(len(methods)), list(methods), **PLAIN)
    axis.hlines(np.arange(1, len(methods)) - 0.5, 0, 1, transform=axis.get_yaxis_transform(), **GRID)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", **GRID)
    _legend(figure, 4)
    return Picture(figure, alt=alt, caption=caption, name=name)


def _legend(figure, columns: int = 3) -> None:
    """Draw the legend above the axes, so that they keep the whole width of a narrow page."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set(**PLAIN)


def lattice(dividends: Mapping, *, alt: str, caption: str, name: str, label: str = "dividend", spec: str = "+.2f",
            modalities: Sequence[str] | None = None) -> Picture:
    """Draw all subsets of some modalities, each with its dividend: one row for each order, lines to what each is made of.

    A subset whose interval is clear of 0 has a thick frame.

    Parameters
    ----------
    dividends : mapping from tuple of str (or str, for one modality) to Interval or float
        The empty tuple is the value with everything hidden. A subset that is missing is drawn empty.
    label : str
        What the colour bar measures; the colours are those of the non-empty subsets, red above 0 and blue below it.
    spec : str
        Format of the numbers.
    modalities : sequence of str, optional
        Their order from left to right; default that of the subsets with one modality.

    Returns
    -------
    Picture

    Raises
    ------
    InputError
        For subsets of something else, or fewer than two or more than four modalities.
    """
    given = {_subset(key): value for key, value in dividends.items()}
    alone = [part for subset in given if len(subset) == 1 for part in subset]
    order = list(modalities or dict.fromkeys(alone))
    if not 2 <= len(order) <= 4:
        raise InputError(f"got the modalities {order}, expected two to four; name them with modalities=[...].")
    if unknown := frozenset().union(*given) - set(order):
        raise InputError(f"a subset names {sorted(unknown)}, the modalities are {order}.")
    sizes = [abs(_parts(value)[0]) for key, value in given.items() if key]
    norm = TwoSlopeNorm(0, -(max(sizes, default=0.0) or 1.0), max(sizes, default=0.0) or 1.0)
    figure, axes = sheet(1, 1, WIDTH if len(order) < 4 else 9.2, 1.05 * (len(order) + 1) + 0.5)
    axis, places = axes[0, 0], {}
    for size in range(len(order) + 1):
        row = [frozenset(chosen) for chosen in combinations(order, size)]
        places |= {subset: (i - (len(row) - 1) / 2, size) for i, subset in enumerate(row)}
    for subset, (x, y) in places.items():
        for part in subset:
            axis.plot(*zip((x, y), places[subset - {part}]), color="#b3b3ac", linewidth=1, zorder=1)
    for subset, place in places.items():
        _draw_node(axis, place, [part for part in order if part in subset], given.get(subset), norm, spec)
    half = max(abs(x) for x, _ in places.values()) + 0.5
    axis.set(xlim=(-half, half), ylim=(-0.45, len(order) + 0.45))
    bare(axis)
    orders = ["nothing shown", "alone", "two together", "three together", "four together"]
    axis.set_yticks(range(len(order) + 1), orders[: len(order) + 1], fontsize=8)
    axis.tick_params(axis="y", length=0)
    figure.colorbar(ScalarMappable(norm, SIGNED), ax=axis, orientation="horizontal", shrink=0.6, aspect=30, label=label)
    return Picture(figure, alt=alt, caption=caption, name=name)


def _subset(key: str | Iterable[str]) -> frozenset[str]:
    return frozenset([key] if isinstance(key, str) else key)


def _parts(value) -> tuple[float, float, float]:
    """Return value, low and high; of a number without an interval, three times the number."""
    return tuple(value)[:3] if isinstance(value, Interval) else (float(value),) * 3


def _written(number: float, spec: str) -> str:
    """Return a number in a format, with no minus before a zero."""
    text, zero = f"{number:{spec}}", f"{0.0:{spec}}"
    return zero if text == f"{-0.0:{spec}}" else text


def _draw_node(axis, place: tuple[float, float], parts: list[str], value, norm: TwoSlopeNorm, spec: str) -> None:
    """Draw one subset as a box: its modalities, its number, its interval."""
    face, clear, lines = (1, 1, 1, 1), False, [" + ".join(parts) or "nothing"]
    if value is not None:
        number, low, high = _parts(value)
        face = matplotlib.colormaps[SIGNED](norm(number)) if parts else (1, 1, 1, 1)
        clear = bool(parts) and isinstance(value, Interval) and (low > 0 or high < 0)
        written = [_written(part, spec) for part in (number, low, high)]
        lines += written[:1] + ([f"[{written[1]}, {written[2]}]"] if isinstance(value, Interval) else [])
    box = {"boxstyle": "round,pad=0.45", "facecolor": face, "edgecolor": INK, "linewidth": 2.2 if clear else 0.8,
           "linestyle": "-" if value is not None else ":"}
    axis.text(*place, "\n".join(lines), ha="center", va="center", fontsize=9, color=ink_on(face), bbox=box,
              zorder=3, linespacing=1.35, **PLAIN)
