"""What a published page holds, and :func:`publish`, which writes it.

The page makes no request to anywhere. What it says was asked of the model when it was written: the answer under many
covers of each example, scores, rounds, and the verdict over all examples. Where the model can be written as ONNX with its
backward pass, a reader may start it in the page, which then answers whatever is covered.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from numbers import Integral
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.evaluation.methods import find
from crossexplain.files import digest, write_whole
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, rows_of
from crossexplain.gradients.plans import Baseline
from crossexplain.gradients.question import Question, Target
from crossexplain.gradients.record import Record
from crossexplain.gradients.rounds import rounds
from crossexplain_book import live as live_parts
from crossexplain_book.publish import runtime, stored
from crossexplain_book.publish.exported import CannotExport
from crossexplain_book.publish.running import Running, running

BESIDE = "onnxruntime"  # folder beside a page: its model, and what runs the models of all pages there
LARGEST = 2_000_000  # bytes of a page, without the model that a reader may start in it
METHODS = ("gradient norm", "gradient x input", "grad-cam", "layer-cam", "cross gradient")
COVERED = [stored.COVERED, "what the evidence loses as it alone is covered",
           "the evidence with nothing covered, less that with the feature covered", True]


def publish(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], path: str | Path, *,
            title: str = "What the model looks at", names: Mapping[str, stored.Names] | None = None,
            pictures: Mapping[str, Tensor] | None = None, classes: Sequence[str] | None = None,
            labels: Sequence[str] | None = None, baselines: Sequence[Baseline] | Baseline | None = None,
            target: Target = None, donors: Inputs | None = None, methods: Sequence[str] = METHODS, shown: int = 24,
            states: int = 512, live: bool | None = None, inline: bool = False, seed: int = 0) -> Path:
    """Write a page on which a reader covers parts of examples and sees what the model says, and why.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; called as ``model(**inputs)``.
    inputs : mapping of str to Tensor
        N examples. The verdict speaks about all of them.
    modalities : sequence of Modality
        As for :func:`~crossexplain.gradients.rounds.rounds`; of a single one there are no rounds and there is no verdict.
    path : str or Path
        Where the page shall stand, such as ``"page.html"``, in a folder that exists.
    title : str
        Of the page.
    names : mapping from modality to names, optional
        What features are called: a text for each feature, the same for all examples; a list of such lists, one an example;
        or a function from the token ids of an example to texts, such as ``tokenizer.convert_ids_to_tokens``.
    pictures : mapping from modality to Tensor, shape (N, C, H, W), in [0, 1], optional
        What to show of images; default the input itself, each stretched to its own range where they are not in [0, 1].
    classes : sequence of C str, optional
        Names of the classes; of a model with one logit those of no and yes.
    labels : sequence of N str, optional
        What is true of each example.
    baselines, target, donors
        As for :func:`~crossexplain.gradients.rounds.rounds`. The first baseline is what stands in on the page for what a
        reader covers; ``"data"`` borrows from the next example there unless donors are given.
    methods : sequence of str
        Keys of :func:`~crossexplain.evaluation.methods.registry`. The page says which of them cannot run, and why.
    shown : int
        How many examples the page shows at most, the first ones.
    states : int
        Covers that are asked and stored for each example: all sets of features where these are no more; else every feature
        alone, whole modalities, each of them with a single feature of another, and as many pairs as there is room for.
    live : bool, optional
        Whether the model itself runs in the page where a reader starts it; True raises where it cannot. Default: where it can,
        and else the page says why not. That takes the packages onnx, onnxscript and onnxruntime, and onnxruntime-web, which
        ``python -m crossexplain_book.publish.runtime`` fetches.
    inline : bool
        Put the model and the 5 MB of onnxruntime-web into the page. Otherwise they stand beside it in ``onnxruntime/``, the
        latter once for all pages there, and are loaded when a reader starts the model.
    seed : int
        Of what is drawn.

    Returns
    -------
    Path
        Of the page, written whole or not at all.

    Raises
    ------
    InputError
        For a folder that does not exist or cannot be written, names and pictures that do not fit, more than 2 MB of answers,
        a model that cannot be live where ``live=True``, and whatever the rounds refuse.
    """
    path = writable(path)
    if isinstance(target, (list, tuple)):
        raise InputError(f"got target={target!r}, expected one label to follow; publish one page for each.")
    for what, number in (("shown", shown), ("states", states)):
        if not isinstance(number, Integral) or number < 1:
            raise InputError(f"got {what}={number!r}, expected a whole number, 1 or more.")
    asked = Asked(model, inputs, list(modalities), baselines, target, donors, int(shown), seed)
    content = asked.content(names or {}, pictures or {}, labels, [find(method).key for method in methods], int(states))
    content |= {"title": title, "classes": asked.class_names(classes), "live": None, "why": ""}
    if (size := len(html(content).encode())) > LARGEST:
        raise InputError(f"the page would have {size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:.0f}; show fewer examples "
                         f"(shown={max(1, len(content['examples']) * LARGEST // (size + 1))}) or store fewer covers "
                         f"(states={max(1, states // 4)}).")
    model_in_page = script = None
    if live is not False:
        try:
            script, model_in_page = runtime.script(), running(asked.question)
        except CannotExport as error:
            if live:
                raise
            content["why"] = str(error)
    if model_in_page is not None:
        parts = {} if inline else {
            f"{BESIDE}/{runtime.NAME}": script,
            f"{BESIDE}/{path.stem}-{digest(model_in_page.data)[:8]}.js": f'window.crossexplainModel = "{model_in_page.data}";'}
        content["live"] = model_in_page.head | {"sources": list(parts)}
        for name, text in parts.items():
            if not (path.parent / name).is_file():
                write_whole(path.parent / name, lambda part, text=text: part.write_text(text, "utf-8"))
    page = html(content, model_in_page, script if inline else "")
    write_whole(path, lambda part: part.write_text(page, "utf-8"))
    for old in path.parent.glob(f"{BESIDE}/{path.stem}-{'[0-9a-f]' * 8}.js"):  # of the page that stood here before
        if old.name not in page:
            old.unlink()
    return path


def writable(path: str | Path) -> Path:
    """Return where a page can be written, or raise before the model is asked anything."""
    path = Path(path)
    if path.is_dir() or path.suffix not in (".html", ".htm"):
        raise InputError(f"got path {str(path)!r}, expected the name of a page, as in {str(path / 'page.html')!r}."
                         if path.is_dir() else f"got path {str(path)!r}, expected a name that ends in .html.")
    if not path.parent.is_dir():
        raise InputError(f"the folder {str(path.parent)!r} does not exist; make it, or write somewhere else.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the folder {str(path.parent)!r} cannot be written; choose another one.")
    return path


@dataclass(frozen=True)
class Asked:
    """A model, the examples of a page, and how it is asked about them; the attributes are the arguments of :func:`publish`."""

    model: nn.Module
    inputs: Inputs
    modalities: list[Modality]
    baselines: Sequence[Baseline] | Baseline | None
    target: Target
    donors: Inputs | None
    most: int
    seed: int

    @cached_property
    def first(self) -> Baseline | None:
        """What stands in for what is covered; None for each modality's neutral baseline."""
        given = self.baselines
        return given if given is None or isinstance(given, str | Mapping) else next(iter(given), None)

    @cached_property
    def whole(self) -> Question:
        """About all examples."""
        return Question(self.model, self.inputs, self.modalities, baselines=self.first, target=self.target, donors=self.donors)

    @cached_property
    def lent(self) -> bool:
        """Whether examples borrow from each other for want of donors."""
        return self.donors is None and self.whole.n > 1 and "data" in self.whole.baselines.values()

    @cached_property
    def settings(self) -> dict:
        """Baselines, donors and target for the examples that are shown."""
        whole, target = self.whole, self.target
        donors = rows_of(self.inputs, torch.arange(whole.n).roll(-1), whole.n, whole.common) if self.lent else self.donors
        target = target[: self.most] if isinstance(target, Tensor) and target.numel() > 1 else target
        return {"baselines": self.first, "donors": donors, "target": target}

    @cached_property
    def question(self) -> Question:
        """About the examples that are shown."""
        shown = rows_of(self.inputs, torch.arange(min(self.most, self.whole.n)), self.whole.n, self.whole.common)
        return Question(self.model, shown, self.modalities, **self.settings)

    @cached_property
    def record(self) -> Record | None:
        """The rounds on all examples; None for a single modality."""
        return None if len(self.modalities) < 2 else rounds(
            self.model, self.inputs, self.modalities, baselines=self.baselines, target=self.target, donors=self.donors,
            progress=False, seed=self.seed)

    def content(self, names: Mapping[str, stored.Names], pictures: Mapping[str, Tensor], labels: Sequence[str] | None,
                methods: Sequence[str], states: int) -> dict:
        """Return what the page says, as JSON can hold it."""
        question, record = self.question, self.record
        for what, given in (("names", names), ("pictures", pictures)):
            if unknown := set(given) - set(question.names):
                raise InputError(f"got {what} of {', '.join(map(repr, sorted(unknown, key=str)))}, the modalities are "
                                 f"{', '.join(map(repr, question.names))}.")
        if labels is not None and len(labels) != self.whole.n:
            raise InputError(f"got {len(labels)} labels, expected one text for each of the {self.whole.n} examples.")
        drawn = {modality.name: self._drawn(modality, pictures.get(modality.name)) for modality in question.modalities}
        scores, refused = stored.scores_of(self.model, question.inputs, self.modalities, methods, seed=self.seed,
                                           **self.settings)
        present = {name: there.cpu() for name, there in question.present.items()}
        each, examples = self._each(), []
        for i in range(len(question)):
            words = [stored.words_of(modality, question.inputs, present[modality.name], names.get(modality.name), i)
                     for modality in question.modalities]
            told = stored.answers(question, i, states)
            told["scores"] |= {key: stored.of_example(values, present, i) for key, values in scores.items()}
            examples.append(told | {
                "words": words, "pictures": [drawn[name] and drawn[name][i] for name in question.names],
                "followed": int(question.target[i]), "label": None if labels is None else str(labels[i]),
                "each": each and each[i],
                "rounds": [] if record is None else stored.rounds_of(record, record.baselines[0], i, words)})
        keys = dict.fromkeys(key for one in examples for key in one["scores"])
        return {"modalities": [{"name": modality.name, "unit": modality.unit.removesuffix("s"),
                                "grid": list(modality.grid) if drawn[modality.name] else None}
                               for modality in question.modalities],
                "baseline": self._stand_in(), "single": question.columns == 1, "n": self.whole.n,
                "methods": [COVERED if key == stored.COVERED else
                            [key, (method := find(key)).title, method.source, method.signed] for key in keys],
                "refused": [[find(key).title, reason] for key, reason in refused.items()], "verdict": self._verdict(),
                "examples": examples}

    def _drawn(self, modality: Modality, pictures: Tensor | None) -> list[str] | None:
        """Return the pictures of the examples that are shown; None of what is no image."""
        if not isinstance(modality, ImageCells):
            return None
        images = modality.value(self.inputs) if pictures is None else pictures
        expected = f"({self.whole.n}, C, H, W)"
        if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != self.whole.n:
            raise InputError(f"got pictures of {modality.name} as {tuple(getattr(images, 'shape', ()))}, expected {expected}.")
        images = images / 255 if images.dtype == torch.uint8 else images
        stretched = bool((images.min() < 0) | (images.max() > 1))
        return [stored.picture(image, stretched) for image in images[: len(self.question)]]

    def _stand_in(self) -> str:
        chosen = ", ".join(f"{name}: {baseline}" for name, baseline in self.question.baselines.items())
        return chosen + " (data: taken from the next example)" * self.lent

    def _verdict(self) -> list[str]:
        """Return what the predictions rest on, in lines; the reason where nothing can be said."""
        if self.record is None:
            return ["There is one modality, so there is none to tell it from."]
        try:
            return [" ".join(line.split()) for line in str(self.record.verdict()).replace("\n    ", " ").split("\n")]
        except InputError as error:
            return [f"No verdict: {error}"]

    def _each(self) -> list[str] | None:
        """Return what each prediction rests on; None where that cannot be told."""
        try:
            return None if self.record is None else self.record.each().tolist()
        except InputError:  # of few examples
            return None

    def class_names(self, given: Sequence[str] | None) -> list[str]:
        """Return the names of the classes; of a single logit those of no and yes."""
        count = max(2, self.question.columns)
        if given is None:
            return ["no", "yes"] if count == 2 and self.question.columns == 1 else [f"class {i}" for i in range(count)]
        if len(given) != count:
            raise InputError(f"got {len(given)} names of classes, expected {count}"
                             + ("." if self.question.columns > 1 else ", of no and of yes, since one logit is followed."))
        return [str(name) for name in given]


def content_of(page: Path) -> dict:
    """Return what a page says: what ``html`` was given for it."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1])


def html(content: Mapping, model: Running | None = None, script: str = "") -> str:
    """Return the page, in which every text of the reader's stands as text."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    cells = [(str(i + 1), "; ".join(map(" ".join, one["words"])), content["classes"][one["predicted"][0]])
             for i, one in enumerate(content["examples"])]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    verdict = "".join(f"<p>{escape(line)}</p>" for line in content["verdict"])
    scripts = [_text("looks.js", live_parts), *([script, _text("running.js")] if model else []), _text("page.js")]
    allowed = "'unsafe-inline'" + " 'wasm-unsafe-eval' blob: file: 'self'" * (model is not None)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src {allowed}">
<title>{escape(content["title"])}</title><style>{_text("lab.css", live_parts)}{_text("page.css")}</style></head>
<body><main><h1>{escape(content["title"])}</h1><div id="page"><noscript>
<p>This page answers clicks where scripts may run. Without them, these are the answers with nothing covered.</p>{verdict}
<table><thead><tr><th>example</th><th>parts</th><th>answer</th></tr></thead><tbody>{rows}</tbody></table></noscript></div></main>
<script type="application/json" id="data">{data}</script>
<script type="text/plain" id="model">{model.data if model and not content["live"]["sources"] else ""}</script>
{"".join(f"<script>{text}</script>" for text in scripts)}</body></html>
"""


def _text(name: str, package: ModuleType | None = None) -> str:
    """Return a file of this package, or of another one."""
    return Path(package.__file__ if package else __file__).with_name(name).read_text("utf-8")
