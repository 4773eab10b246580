"""The command ``publish``: a model, as ``explain`` takes it, and examples of a data set become one page that answers clicks."""

import sys
import webbrowser
from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from crossexplain_book.explaining import column_options, columns_of

if TYPE_CHECKING:
    from crossexplain.runs import Explainable
    from crossexplain.runs.plan import Entry, Selection, Source

EXAMPLES = 200  # that the verdict speaks about
NUMBERS = {"shown": "how many examples the page shows (default 24)",
           "states": "covers that are stored for each of them (default 512)", "seed": "default 0"}


def publish_options(command: ArgumentParser) -> None:
    """Add what ``publish`` takes."""
    command.add_argument("--model", required=True, metavar="MODEL",
                         help="as for explain: of the book (scenes_clip_cnn), a folder of transformers, module:function")
    command.add_argument("--data", required=True, metavar="DATA", help="as for explain: scenes, a path, module:function")
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="the page, as in page.html")
    command.add_argument("--where", action="append", default=[], metavar="CONDITION", help="only these, as for explain")
    command.add_argument("--limit", type=int, default=EXAMPLES, metavar="N",
                         help=f"the first N of them, which the verdict speaks about (default {EXAMPLES})")
    for name, meaning in NUMBERS.items():
        command.add_argument(f"--{name}", type=int, metavar="N", default=SUPPRESS, help=meaning)
    command.add_argument("--title", metavar="TEXT", default=SUPPRESS, help="of the page")
    command.add_argument("--classes", metavar="NAMES", help="names of the classes, apart by commas, as in no,yes")
    command.add_argument("--label-column", metavar="NAME",
                         help="column of what is true of an example (default label, where there is one)")
    command.add_argument("--method", metavar="NAMES", help="scores to show, apart by commas")
    command.add_argument("--baseline", action="append", metavar="NAME", help="stands in for what is covered, as for explain")
    way = command.add_mutually_exclusive_group()
    way.add_argument("--live", action="store_true", help="fail where the model itself cannot run in the page")
    way.add_argument("--stored", action="store_true", help="stored answers alone: the model is not put into the page")
    command.add_argument("--inline", action="store_true", help="one file: model and what runs it stand in the page")
    command.add_argument("--open", action="store_true", help="show it in the browser")
    column_options(command)


def publish(options: Namespace) -> int:
    """Write the page, say what came of it, and show it if asked."""
    from crossexplain.checks import InputError
    from crossexplain.runs import known
    from crossexplain_book.publish.page import content_of, writable

    try:
        writable(options.out)  # before a model is loaded
        subject, data = known.model(options.model), known.data(options.data, **columns_of(options))
        path = page_of(subject, data, options.out, **_given(options))
    except InputError as error:
        print(f"crossexplain: {error}", file=sys.stderr)
        return 2
    content = content_of(path)
    live, why = content["live"], content["why"]
    said = (f"the model runs in it, forward and back; its logits differ from PyTorch's by {live['parity']['logit']} at most"
            if live else f"stored answers alone{why and ': ' + why}")
    print(f"{path}: {len(content['examples'])} of {content['n']} examples shown; {said}", flush=True)
    if options.open:
        webbrowser.open(path.resolve().as_uri())
    return 0


def _given(options: Namespace) -> dict[str, object]:
    """Return what :func:`page_of` is told, but for model, data and page."""
    lists = {name: value.split(",") for name, value in (("classes", options.classes), ("methods", options.method)) if value}
    baselines = [{} if one == "neutral" else one for one in options.baseline or ()]
    return {"where": options.where, "limit": options.limit, "label": options.label_column, "inline": options.inline, **lists,
            **{name: getattr(options, name) for name in (*NUMBERS, "title") if hasattr(options, name)},
            "baselines": baselines or None, "live": True if options.live else False if options.stored else None}


def page_of(subject: "Explainable", data: "Source", path: Path, *, where: list[str] | tuple[str, ...] = (),
            limit: int = EXAMPLES, label: str | None = None, classes: list[str] | None = None, **settings: object) -> Path:
    """Publish a model with the first examples of a data set.

    Parameters
    ----------
    subject : Explainable
    data : Source
    path : Path
        Of the page.
    where, limit
        As for :class:`~crossexplain.runs.plan.Selection`.
    label : str, optional
        The column of what is true of an example; default ``"label"`` where the data have one. Numbers of classes are shown by
        their names.
    classes, **settings
        As for ``publish``.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        If there is no such column, no example is left, and whatever ``publish`` refuses.
    """
    from crossexplain.checks import InputError
    from crossexplain.gradients.modalities import Tokens
    from crossexplain.runs.plan import Selection
    from crossexplain_book.publish.page import publish as publish_model

    if limit < 1:
        raise InputError(f"got limit={limit}, expected a whole number, 1 or more.")
    if label and label not in data.columns:
        raise InputError(f"there is no column {label!r}, the data have {', '.join(data.columns) or 'none'}.")
    label = label or ("label" if "label" in data.columns else None)
    entries, examples = _read(Selection(data, tuple(where)), limit)
    texts = [modality.name for modality in subject.modalities if isinstance(modality, Tokens)]
    names = {texts[0]: [subject.words(one) for one in examples]} if subject.words and len(texts) == 1 else {}
    labels = None if label is None else [_label(entry.columns.get(label), classes) for entry in entries]
    return publish_model(subject.model, subject.inputs(examples), subject.modalities, path, target=subject.target, names=names,
                         labels=labels, classes=classes, **settings)


def _read(selection: "Selection", limit: int) -> tuple[list["Entry"], list[dict[str, object]]]:
    """Return the first examples that can be read; say which cannot."""
    from crossexplain.checks import InputError
    from crossexplain.runs.plan import SourceGone

    entries, examples = [], []
    for entry in selection:
        try:
            examples.append(dict(entry.load()))
        except SourceGone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a reader of the data raises
            print(f"left out, since it cannot be read: {entry.key} ({type(error).__name__}: {error})", file=sys.stderr)
            continue
        entries.append(entry)
        if len(entries) == limit:
            break
    if not entries:
        raise InputError(f"no example is left of the data ({selection.source.describe()}) with where={list(selection.where)}; "
                         "check the conditions.")
    return entries, examples


def _label(value: object, classes: list[str] | None) -> str:
    """Return what is true of an example in words; the number of a class by its name."""
    number = value if isinstance(value, int) else -1
    return str(classes[number]) if classes and 0 <= number < len(classes) else str(value)
