"""Which examples to look at, by rules, and how each is shown: its inputs are read anew from the data, if it was named."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.data.scene_words import split_words
from crossexplain.gradients.views import FULL, alone, masked
from crossexplain.runs import Explainable, Source
from crossexplain_book import figures
from crossexplain_book.explained import place_of
from crossexplain_book.report.markup import Html, joined, tag
from crossexplain_book.report.measures import Run

EACH = 3  # examples of a rule
# Which importance of the rounds is drawn, and what it is called; of other runs the first method's.
PREFERRED = {"cross": "cross gradient", "round 1": "gradient norm, nothing masked"}


class Rule(NamedTuple):
    """Examples that one rule chooses: its name, why one should look at them, their rows."""

    title: str
    why: str
    rows: list[int]


def rules(run: Run, agreement: Sequence[tuple[str, str, str, np.ndarray]] = ()) -> list[Rule]:
    """Return the rules that choose at least one example, with those examples."""
    sure, found = run.evidence[FULL], []

    def add(title: str, why: str, score: np.ndarray, where: np.ndarray | None = None) -> None:
        rows = _best(np.where(run.ok if where is None else run.ok & where, score, np.nan), run.groups)
        if rows:
            found.append(Rule(title, why, rows))

    if run.right is not None:
        add("Wrong, and sure of it", "The prediction is not the label, and the evidence for it is largest.", sure,
            run.right == 0)
    if run.has_rounds and len(run.modalities) == 2:
        add("Only both together say so", "What both modalities have beyond the sum of each alone is largest.", run.dividend)
    if run.has_rounds:
        for name in run.modalities:
            gap = run.evidence[alone(name, run.modalities)] - run.evidence[masked(name)]
            add(f"The {name} alone says so", f"The evidence of the {name} alone exceeds that of all else most.", gap)
            add(f"Another answer without the {name}", f"The predicted class changes where the {name} is masked, and the "
                "evidence for it was largest.", sure, run.flips(name) == 1)
    if agreement:
        together = np.array([values for _, _, _, values in agreement])
        known = ~np.isnan(together).all(axis=0)
        mean = np.full(len(sure), np.nan)
        mean[known] = np.nanmean(together[:, known], axis=0)
        add("The methods disagree", "The rank correlation of the methods, over all pairs of them, is smallest.", -mean)
    add("On the edge", "The evidence for the predicted class is smallest.", -np.abs(sure))
    return found


def _best(score: np.ndarray, groups: np.ndarray | None) -> list[int]:
    """Return the rows of the largest scores, at most one of each picture; NaN is never chosen."""
    chosen: list[int] = []
    pictures: set[object] = set()
    for row in np.argsort(-score, kind="stable"):  # NaN comes last
        if len(chosen) == EACH or np.isnan(score[row]):
            break
        picture = row if groups is None else groups[row]
        if picture not in pictures:
            chosen.append(int(row))
            pictures.add(picture)
    return chosen


class Reader:
    """Reads some examples anew, as the model sees them.

    Parameters
    ----------
    source : Source
        The data of the run.
    subject : Explainable
        The model of the run.
    """

    def __init__(self, source: Source, subject: Explainable):
        self.source, self.subject = source, subject
        self.examples: dict[str, Mapping[str, object]] = {}
        self.problems: dict[str, str] = {}

    def require(self, run: Run) -> None:
        """Refuse another model than that of the run: its maps would be laid over what it never saw."""
        if self.subject.weights() != run.configuration["model"]["weights"]:
            raise InputError(f"the weights of {self.subject.name} are not those of the run {run.name}, which is of "
                             f"{run.configuration['model']['name']}; name that model with --model.")

    def read(self, keys: set[str]) -> None:
        """Read the examples of some keys."""
        wanted = keys - self.examples.keys()
        for entry in self.source.entries() if wanted else ():
            if entry.key in wanted:
                try:
                    self.examples[entry.key] = entry.load()
                except Exception as error:  # noqa: BLE001 - whatever its reader raises, the page says so
                    self.problems[entry.key] = f"{type(error).__name__}: {error}"
                wanted.discard(entry.key)
            if not wanted:
                break
        self.problems |= dict.fromkeys(wanted, "the data does not hold this key any more.")

    def picture(self, key: str, modality: str) -> Tensor | None:
        """Return the picture of an example as the model takes it, (C, H, W), scaled to 0 to 1."""
        part = next((part for part in self.subject.modalities if part.name == modality), None)
        values = self.subject.inputs([self.examples[key]]).get(getattr(part, "input", ""))
        if not isinstance(values, Tensor) or values.ndim != 4 or values.shape[1] not in (1, 3):
            return None
        image = values[0].detach().float().cpu()
        return image if image.min() >= 0 and image.max() <= 1 else (image - image.min()) / (image.max() - image.min())

    def words(self, key: str, count: int) -> list[str] | None:
        """Return the words of an example's text, one a feature; None if they cannot be told."""
        text, told = self.examples[key].get("text"), getattr(self.subject, "words", None)
        if not isinstance(text, str):
            return None
        cuts = [lambda: list(told(self.examples[key]))] if told else []
        cuts += [text.split, lambda: re.findall(r"\w+|[^\w\s]", text), lambda: split_words(text)]
        return next((words for cut in cuts if len(words := cut()) == count), None)


def shown(run: Run, row: int, reader: Reader | None, title: str = "") -> Html:
    """Return one example: its key, what the model says, and its map and words where they can be read."""
    key = str(run.column("key")[row])
    said = [f"predicted class {run.predicted[row]}"]
    if run.right is not None and not np.isnan(run.right[row]):
        said.append(f"label {run.columns['label'][row]}")
    if run.answers[row]:
        said.append(f"rests on: {run.answers[row]}")
    said += [f"evidence with {'nothing' if view == FULL else view.removesuffix(' masked')} masked {values[row]:+.2f}"
             for view, values in run.evidence.items()]
    parts = [tag("p", tag("span", title, class_="note") if title else None, " " if title else None,
                 tag("span", key, class_="key")), tag("p", "; ".join(said) + ".", class_="note")]
    if reader is not None:
        parts.append(_drawn(run, row, key, reader))
    return tag("div", *parts, class_="example")


def _drawn(run: Run, row: int, key: str, reader: Reader) -> Html:
    if key in reader.problems or key not in reader.examples:
        return tag("p", f"Its inputs cannot be read: {reader.problems.get(key, 'unknown key.')}", class_="note")
    what, values = _importance(run, row)
    image = next((name for name in values if reader.picture(key, name) is not None), None)
    others = {name: scores for name, scores in values.items() if name != image}
    text = next(iter(others), None)
    words = reader.words(key, len(others[text])) if text else None
    heat = None if image is None else _grid(run, image, values[image])
    if words is None and text and "text" in reader.examples[key]:
        note = tag("p", f"The text: {reader.examples[key]['text']} (which of its {len(others[text])} features is which is not "
                   "known here)")
    else:
        note = Html("")
    if heat is not None and words is not None:
        strongest = words[int(np.abs(others[text]).argmax())] if len(words) else "none"
        picture = figures.example(
            reader.picture(key, image), heat, words, others[text], title=f"The words: {what}", name=f"fig-row-{row}",
            signed=(bool((heat < 0).any()), bool((others[text] < 0).any())), label=what, caption="Input, map and words.",
            alt=f"{what}: the map is strongest at the {place_of(heat)}, the strongest word is {strongest!r}.")
        return Html(picture.html())
    if heat is not None:
        picture = figures.maps(reader.picture(key, image)[None], heat[None], signed=bool((heat < 0).any()), label=what,
                               name=f"fig-row-{row}", caption="Input, map and overlay.",
                               alt=f"{what}: the map is strongest at the {place_of(heat)} of the picture.")
        return joined([Html(picture.html()), note])
    if words is not None:
        picture = figures.tokens_html([words], [others[text]], name=f"fig-row-{row}", signed=bool((others[text] < 0).any()),
                                      alt=f"The words with {what}, each as a share of the largest.", caption="Words.")
        return Html(picture.html())
    return note


def _importance(run: Run, row: int) -> tuple[str, dict[str, np.ndarray]]:
    """Return which importance is drawn, and its values (F,) by modality."""
    known = run.results.manifest["columns"]["importance"]
    what = next((name for name in (*PREFERRED, *known) if name in known), None)
    if what is None:
        return "", {}
    values = {modality: run.results.table[column][row].as_py() for modality, column in known[what].items()}
    return PREFERRED.get(what, what), {modality: np.asarray(scores, float) for modality, scores in values.items() if scores}


def _grid(run: Run, modality: str, values: np.ndarray) -> np.ndarray | None:
    """Return importances (F,) as a map (h, w); None where the sizes leave none."""
    side = round(len(values) ** 0.5)
    rows, columns = run.results.manifest.get("grids", {}).get(modality, (side, side))
    return values.reshape(rows, columns) if rows * columns == len(values) and np.isfinite(values).all() else None
