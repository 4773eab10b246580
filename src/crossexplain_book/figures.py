"""One figure grammar: input | map | overlay, the same place and colour for the same meaning.

Every function returns a picture (:class:`~crossexplain_book.figures.Picture`) and shows nothing. ``alt`` says what it
shows to a reader who cannot see it and states the finding; ``caption`` is one sentence of finding and one of how to read it.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crossexplain_book.pictures import (
    BOX,
    COLOURS,
    INK,
    MARKERS,
    PAPER,
    SEQUENTIAL,
    SIGNED,
    STYLE,
    HtmlPicture,
    Picture,
    bare,
    sheet,
)
from crossexplain_book.strips import Strip, film_strip
from crossexplain_book.turns import lattice, party_shares, turn_curve
from crossexplain_book.words import draw, height, markup, shares_of, tokens, tokens_html, wrapped

__all__ = ["BOX", "COLOURS", "INK", "MARKERS", "PAPER", "SEQUENTIAL", "SIGNED", "STYLE", "HtmlPicture", "Picture", "Strip",
           "absent", "curves", "example", "film_strip", "gallery", "heat_map", "intervals", "lattice", "maps", "party_shares",
           "ranking", "tokens", "tokens_html", "turn_curve"]

PLAIN = {"parse_math": False}  # of texts that come from data: a dollar sign is a dollar sign


def _pixels(image) -> np.ndarray:
    """Turn (C, H, W) or (H, W) into something that ``imshow`` takes, grey as (H, W)."""
    image = np.asarray(image, dtype=float)
    image = image[None] if image.ndim == 2 else image
    return np.clip(image[0] if image.shape[0] == 1 else np.moveaxis(image[:3], 0, -1), 0, 1)


def _finite(values, subject: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"{subject} {int((~np.isfinite(values)).sum())} values that are NaN or infinite, expected numbers; "
                         "look for a 0/0 where the map is scaled, or replace them (numpy.nan_to_num).")
    return values


def _norm(heat: np.ndarray, signed: bool) -> Normalize:
    top = float(np.abs(heat).max()) or 1.0
    return TwoSlopeNorm(0, -top, top) if signed else Normalize(0, top)


def _show_image(axis, image, extent=None) -> None:
    pixels = _pixels(image)
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")


def _overlay(axis, image, heat, norm, signed: bool, top: float | None = None) -> None:
    """Draw a grey picture and the heat over it; the hotter a place, the more opaque, so that the picture stays readable."""
    pixels = _pixels(image)
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=-1)
    height, width = grey.shape
    axis.imshow(0.15 + 0.7 * grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    strength = np.abs(heat) / (top or float(np.abs(heat).max()) or 1.0)
    axis.imshow(heat, cmap=SIGNED if signed else SEQUENTIAL, norm=norm, alpha=0.15 + 0.65 * strength,
                extent=(0, width, height, 0), interpolation="nearest")


def _draw_box(axis, box) -> None:
    if box is not None:
        top, left, bottom, right = (float(edge) for edge in box)
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=BOX, linewidth=1.8))


def _hottest(axis, heat, size: tuple[int, int], words: str) -> tuple:
    """Return the cell with the most evidence as a part of a picture of ``size`` (height, width), and what a page says of it."""
    rows, columns = heat.shape
    row, column = np.unravel_index(np.abs(heat).argmax(), heat.shape)
    high, wide = size[0] / rows, size[1] / columns
    return axis, (column * wide, row * high, (column + 1) * wide, (row + 1) * high), (
        f"{words}: strongest in row {row + 1} of {rows}, column {column + 1} of {columns} ({heat[row, column]:.3g})")


def maps(images, heats, *, alt: str, caption: str, name: str, titles: Sequence[str] | None = None, boxes=None,
         signed: bool = False, label: str = "evidence") -> Picture:
    """Draw one row for each example: input | map | overlay, with a colour bar.

    Parameters
    ----------
    images : array_like, shape (N, C, H, W), in [0, 1]
    heats : array_like, shape (N, h, w)
        Any resolution; drawn over the whole image.
    titles : sequence of str, optional
        One line an example.
    boxes : array_like, shape (N, 4), optional
        Known place of the answer (top, left, bottom, right), drawn on input and overlay.
    signed : bool
        Red for, blue against, white at 0; otherwise from dark (none) to bright (much).
    label : str
        What the colour bar measures.

    Returns
    -------
    Picture
    """
    heats = _finite(heats, "the heat maps hold")
    figure, axes = sheet(len(heats), 3, 7.2, 2.35 * len(heats))
    parts = []
    for i, (row, heat) in enumerate(zip(axes, heats)):
        image, norm = np.asarray(images[i], dtype=float), _norm(heat, signed)
        height, width = _pixels(image).shape[:2]
        _show_image(row[0], image, extent=(0, width, height, 0))
        heat_image = row[1].imshow(heat, cmap=SIGNED if signed else SEQUENTIAL, norm=norm,
                              extent=(0, width, height, 0), interpolation="nearest")
        _overlay(row[2], image, heat, norm, signed)
        figure.colorbar(heat_image, ax=row[2], shrink=0.85, label=label)
        for axis, word in zip(row, ("input", "map", "overlay")):
            bare(axis)
            if i == 0:
                axis.set_title(word)
        _draw_box(row[0], None if boxes is None else boxes[i])
        _draw_box(row[2], None if boxes is None else boxes[i])
        words = f"example {i + 1}" if titles is None else titles[i]
        parts += [_hottest(axis, heat, (height, width), words) for axis in row[1:]]
        if titles is not None:
            row[0].set_xlabel(titles[i], fontsize=9, **PLAIN)
    return Picture(figure, alt=alt, caption=caption, name=name, parts=parts)


def gallery(images, heats: Mapping[str, np.ndarray], *, alt: str, caption: str, name: str,
            titles: Sequence[str] | None = None, boxes=None, signed: bool = False, shared: bool = False) -> Picture:
    """Draw one row for each example and one column for each method; a map shows shares of its own largest value.

    Parameters
    ----------
    images : array_like, shape (N, C, H, W), in [0, 1]
    heats : mapping from method name to array_like, shape (N, h, w)
    titles, boxes, signed
        As in :func:`maps`.
    shared : bool
        Divide all maps of a row by their one largest value instead: to compare how much, not only where.

    Returns
    -------
    Picture
    """
    from matplotlib.cm import ScalarMappable

    heats = {method: _finite(heat, f"the heat maps of {method!r} hold") for method, heat in heats.items()}
    n, columns = len(images), 1 + len(heats)
    figure, axes = sheet(n, columns, min(1.55 * columns + 0.7, 13), 1.75 * n + 0.3)
    norm, parts = TwoSlopeNorm(0, -1, 1) if signed else Normalize(0, 1), []
    for i, row in enumerate(axes):
        height, width = _pixels(images[i]).shape[:2]
        _show_image(row[0], images[i], extent=(0, width, height, 0))
        largest = max(float(np.abs(np.asarray(heat[i], dtype=float)).max()) for heat in heats.values())
        for axis, (method, heat) in zip(row[1:], heats.items()):
            scaled = np.asarray(heat[i], dtype=float)
            top = largest if shared else float(np.abs(scaled).max())
            _overlay(axis, images[i], scaled / (top or 1.0), norm, signed, 1.0 if shared else None)
            words = f"{method}, {f'example {i + 1}' if titles is None else titles[i]}"
            parts.append(_hottest(axis, scaled, (height, width), words))
            if i == 0:
                axis.set_title(method, fontsize=9, **PLAIN)
        for axis in row:
            bare(axis)
            _draw_box(axis, None if boxes is None else boxes[i])
        if titles is not None:
            row[0].set_xlabel(titles[i], fontsize=8, **PLAIN)
    axes[0, 0].set_title("input", fontsize=9)
    bar = ScalarMappable(norm, SIGNED if signed else SEQUENTIAL)
    figure.colorbar(bar, ax=axes, shrink=0.6, aspect=30, label=f"share of the {'row' if shared else 'map'}'s largest value")
    return Picture(figure, alt=alt, caption=caption, name=name, parts=parts)


def ranking(images, heats, titles: Sequence[str], *, alt: str, caption: str, name: str, signed: bool = False) -> Picture:
    """Draw pictures from the best to the last in a row, and below each of them its map.

    Parameters
    ----------
    images : array_like, shape (N, C, H, W), in [0, 1]
    heats : array_like, shape (N, h, w)
        Each is drawn as shares of its own largest value.
    titles : sequence of N str
    signed : bool
        As in :func:`maps`.

    Returns
    -------
    Picture
    """
    heats = _finite(heats, "the heat maps hold")
    figure, axes = sheet(2, len(heats), 2.1 * len(heats), 4.5)
    for image, heat, title, (above, below) in zip(images, heats, titles, axes.T):
        _show_image(above, image)
        _overlay(below, image, heat, _norm(heat, signed), signed)
        above.set_title("\n".join(textwrap.wrap(title, 26)), fontsize=9, **PLAIN)
        bare(above)
        bare(below)
    return Picture(figure, alt=alt, caption=caption, name=name)


def absent(name: str, why: str) -> Picture:
    """Draw an empty sheet in the place of a picture whose data or weights are missing, so that the text can refer to it.

    Parameters
    ----------
    why : str
        A whole sentence.
    """
    figure, axes = sheet(1, 1, 7.2, 0.8)
    axes[0, 0].text(0.5, 0.5, why, ha="center", va="center", **PLAIN)
    bare(axes[0, 0])
    return Picture(figure, alt=f"An empty sheet: {why}", caption=f"Not drawn here. {why}", name=name)


def heat_map(values, rows: Sequence[str], columns: Sequence[str], *, alt: str, caption: str, name: str, label: str,
             signed: bool = False, numbers: str = "", bold: Sequence[int] = (), after: Sequence[int] = ()) -> Picture:
    """Draw a table as colours: methods by metrics, methods by features.

    Parameters
    ----------
    values : array_like, shape (R, C)
        NaN leaves a cell empty.
    rows, columns : sequence of str
        Their names.
    label : str
        What the colour bar measures.
    signed : bool
        Red for, blue against, white at 0; otherwise from dark (least) to bright (most).
    numbers : str
        Format of the number in each cell; default none.
    bold : sequence of int
        Columns whose names are bold.
    after : sequence of int
        A line is drawn before each of these columns.

    Returns
    -------
    Picture
    """
    import seaborn

    values = np.asarray(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"got values of shape {values.shape} for {len(rows)} rows and {len(columns)} columns.")
    top = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    scale = {"cmap": SIGNED, "vmin": -top, "vmax": top} if signed else {"cmap": SEQUENTIAL}
    figure, axes = sheet(1, 1, 9.2, 0.32 * len(rows) + 1.2)
    axis = seaborn.heatmap(values, ax=axes[0, 0], annot=bool(numbers), fmt=numbers,
                           annot_kws={"fontsize": 8}, cbar_kws={"label": label}, **scale)
    axis.set_xticks(axis.get_xticks(), columns, rotation=40, ha="right", rotation_mode="anchor", **PLAIN)
    axis.set_yticks(axis.get_yticks(), rows, rotation=0, **PLAIN)
    for column in bold:
        axis.get_xticklabels()[column].set_fontweight("bold")
    axis.vlines(after, *axis.get_ylim(), color=INK, linewidth=1)
    return Picture(figure, alt=alt, caption=caption, name=name)


def example(image, heat, words: Sequence[str], scores, *, alt: str, caption: str, name: str, title: str = "",
            signed: tuple[bool, bool] = (False, False), largest: float | None = None, cues=None,
            label: str = "evidence", per_line: int = 62) -> Picture | HtmlPicture:
    """Draw one example of two modalities: input | map | overlay, and below them its words.

    The words may be of any script; where no installed font has a character, they stand below the picture as text.

    Parameters
    ----------
    image : array_like, shape (C, H, W), in [0, 1]
    heat : array_like, shape (h, w)
    words : sequence of T str
    scores : array_like, shape (T,)
        Drawn as a share of the largest absolute score; NaN where a word has none, for example because it is covered.
    title : str
        One line above the words.
    signed : (bool, bool)
        Whether the map and the words have a sign, as in :func:`maps` and :func:`tokens`.
    largest : float, optional
        End of the colour bar; default the map's own largest value.
    cues : array_like of bool, shape (T,), optional
        Words to underline.
    label : str
        What the colour bar measures.
    per_line : int
        Characters before the words wrap.

    Returns
    -------
    Picture or HtmlPicture
    """
    heat, scores = np.asarray(heat, dtype=float), np.asarray(scores, dtype=float)
    if scores.shape != (len(words),):
        raise ValueError(f"got {len(words)} words and scores of shape {scores.shape}, expected one score a word.")
    (sentence,) = shares_of([words], [scores], [title], None if cues is None else [cues])
    absent = sentence.absent()
    lines = [] if absent else wrapped(sentence, per_line)
    width, above, below = 8.2, 2.55, 0.36 * height(lines) + 0.1  # inches
    high = above + below
    with matplotlib.rc_context(STYLE):  # places are given, not found: an explorer draws this at every click
        figure = Figure(figsize=(width, high), facecolor=PAPER)
        axes = [figure.add_axes((left / width, (below + 0.12) / high, 2.1 / width, 2.1 / high)) for left in (0.05, 2.4, 4.75)]
        bar = figure.add_axes((7.0 / width, (below + 0.22) / high, 0.12 / width, 1.9 / high))
        strip = None if absent else figure.add_axes((0.05 / width, 0.05 / high, (width - 0.1) / width, (below - 0.1) / high))
    _draw_row(axes, bar, image, heat, signed[0], largest, label)
    if strip is not None:
        draw(strip, lines, per_line, signed[1])
    picture = Picture(figure, alt=alt, caption=caption, name=name, crop=False)
    if not absent:
        return picture
    below_it = markup([sentence], "The words of this example, each with its score", signed[1])
    return HtmlPicture(picture.html() + below_it, alt=alt, caption=caption, name=name, absent=absent)


def _draw_row(axes, bar, image, heat, signed: bool, largest: float | None, label: str) -> None:
    norm = _norm(heat if largest is None else np.array([largest]), signed)
    height, width = _pixels(image).shape[:2]
    _show_image(axes[0], image, extent=(0, width, height, 0))
    heat_image = axes[1].imshow(heat, cmap=SIGNED if signed else SEQUENTIAL, norm=norm, extent=(0, width, height, 0),
                           interpolation="nearest")
    _overlay(axes[2], image, heat, norm, signed, largest)
    axes[0].figure.colorbar(heat_image, cax=bar, label=label)
    for axis, word in zip(axes, ("input", "map", "overlay")):
        bare(axis)
        axis.set_title(word, fontsize=10)


def intervals(rows, *, alt: str, caption: str, name: str, xlabel: str, baseline: float | None = None,
              baseline_label: str = "chance", logx: bool = False) -> Picture:
    """Draw values with their intervals, one line for each.

    Parameters
    ----------
    rows : mapping from label to Interval, or mapping from group name to such a mapping
        With groups, each group has its own colour and marker and the labels share a line.
    xlabel : str
    baseline : float, optional
        Dashed line to compare with.
    logx : bool
        Logarithmic horizontal axis, for ratios.

    Returns
    -------
    Picture
    """
    groups = rows if isinstance(next(iter(rows.values())), Mapping) else {"": rows}
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    figure, axes = sheet(1, 1, 7.2, 0.34 * len(labels) * max(1, 0.55 * len(groups)) + 1.1)
    axis, parts, tall = axes[0, 0], [], 0.3 / max(len(groups), 2)
    for g, (group, entries) in enumerate(groups.items()):
        shift = (g - (len(groups) - 1) / 2) * 0.7 / max(len(groups), 2)
        for label, entry in entries.items():
            y = labels.index(label) + shift
            axis.plot([entry.low, entry.high], [y, y], color=COLOURS[g % 6], linewidth=2)
            axis.plot(entry.value, y, linestyle="", markersize=6, **_marked(g),
                      label=group if group and label == next(iter(entries)) else None)
            parts.append((axis, (entry.low, y - tall, entry.high, y + tall), f"{label}{group and f', {group}'}: {entry:.3g}"
                          + (f", n = {entry.n:,}" if entry.n else "")))
    if baseline is not None:
        axis.axvline(baseline, color=INK, linestyle="--", linewidth=1, label=baseline_label)
    axis.set(xlabel=xlabel, ylim=(len(labels) - 0.4, -0.6), xscale="log" if logx else "linear")
    axis.set_yticks(range(len(labels)), labels, **PLAIN)
    axis.grid(axis="x", color="#dcdcd6", linewidth=0.7)
    if baseline is not None or len(groups) > 1:
        _legend(axis, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return Picture(figure, alt=alt, caption=caption, name=name, parts=parts)


def _legend(axis, **place) -> None:
    for text in axis.legend(fontsize=9, **place).get_texts():
        text.set(**PLAIN)


def _marked(i: int) -> dict[str, str]:
    """Return colour and marker of a series; from the seventh on the markers are hollow."""
    return {"color": COLOURS[i % 6], "marker": MARKERS[i % 6], "markerfacecolor": COLOURS[i % 6] if i < 6 else PAPER}


def curves(series: Mapping[str, tuple], *, alt: str, caption: str, name: str, xlabel: str, ylabel: str,
           baseline: float | None = None, baseline_label: str = "chance", logy: bool = False) -> Picture:
    """Draw lines, told apart by colour and marker.

    Parameters
    ----------
    series : mapping from name to (x, y) or (x, y, low, high), each array_like of shape (K,)
    xlabel, ylabel : str
    baseline : float, optional
        Dashed horizontal line.
    logy : bool
        Logarithmic vertical axis.

    Returns
    -------
    Picture
    """
    figure, axes = sheet(1, 1, 7.2, 3.6)
    axis = axes[0, 0]
    for i, (label, (x, y, *band)) in enumerate(series.items()):
        axis.plot(x, y, markersize=4, label=label, **_marked(i))
        if band:
            axis.fill_between(x, *band, color=COLOURS[i % 6], alpha=0.18, linewidth=0)
    if baseline is not None:
        axis.axhline(baseline, color=INK, linestyle="--", linewidth=1, label=baseline_label)
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if logy else "linear")
    axis.grid(color="#dcdcd6", linewidth=0.7)
    beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if len(series) > 5 else {}  # many would hide the lines
    _legend(axis, **beside)
    return Picture(figure, alt=alt, caption=caption, name=name)
