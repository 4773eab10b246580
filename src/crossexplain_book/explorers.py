"""Explorers: choose, click and type, and prediction, map and words follow. In JupyterLab, on this machine alone.

An explorer is a cell's last line. What it displays holds two things, and whoever shows the cell takes what it can: a
front-end with a kernel shows the controls, every other one the picture of the first state, with its text alternative.
The book keeps the picture only (:func:`crossexplain_book.assemble.figure_cell`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.data import photos
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.question import Question
from crossexplain.gradients.sharing import equal_rows_once
from crossexplain.gradients.verdict import Verdict, verdict
from crossexplain.gradients.views import FULL, NOTHING, Mask, Views, alone
from crossexplain_book import figures
from crossexplain_book.controls import Explorer, begin_at_the_right, choice, heading, paragraph, tick_boxes, told_apart
from crossexplain_book.conversation_explorer import ConversationExplorer, Heard
from crossexplain_book.explained import (
    Explain,
    Explained,
    answer,
    draw,
    explain_one,
    explainer,
    map_choices,
    signed_by,
    strongest,
    word_choices,
)
from crossexplain_book.pictures import Shown
from crossexplain_book.writing import spelled_out

__all__ = ["CaptionExplorer", "ConversationExplorer", "Covered", "Explained", "Heard", "PairExplorer", "WordExplorer",
           "answer", "decode", "explainer", "map_choices", "word_choices"]

LARGEST = 10_000_000  # bytes of an upload; what is larger, a server with its usual settings drops without a word
CORNERS = ("both", "image alone", "text alone", "neither")


@dataclass(frozen=True)
class Covered:
    """One example with some of its features covered, explained.

    Attributes
    ----------
    explained : Explained
    before : float
        Logit with nothing covered.
    corners : dict of str to float
        Logit of what is left (``"both"``), of its image alone, of its text alone, and of neither.
    verdict : Verdict
        Over several pairs, with the same cells and the same words covered in all of them.
    n : int
        How many.
    """

    explained: Explained
    before: float
    corners: dict[str, float]
    verdict: Verdict
    n: int

    @property
    def dividend(self) -> float:
        """What the whole has beyond its parts: v(AB) - v(A) - v(B) + v(0)."""
        total, image, text, empty = (self.corners[name] for name in CORNERS)
        return total - image - text + empty


class PairExplorer(Explorer):
    """Cover cells of an image and words of its sentence, and see what the model says and what its answer rests on.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; gives one logit an example.
    inputs : mapping of str to Tensor
        N pairs, the model's inputs; the image in [0, 1].
    modalities : (ImageCells, Tokens)
    words : sequence of N lists of str
        One word for each feature of the text.
    baselines : sequence
        What can stand in for what is covered, as for :func:`~crossexplain.gradients.rounds.rounds`; where features are
        borrowed, from four pairs.
    cells : sequence of str, optional
        Names of the cells; default, row and column.
    labels : sequence of N bool, optional
        Whether the sentence is true of the image.
    start : int
        The pair to begin with.
    judged : int
        Over how many pairs, the first ones, the verdict is reached.
    name, caption : str
        Of the picture on a page without a kernel.
    seed : int
        Choice of donors.

    Notes
    -----
    A word is covered in other pairs wherever it occurs, a cell wherever it stands.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, Tensor], modalities: tuple[ImageCells, Tokens],
                 words: Sequence[list[str]], *, name: str, caption: str,
                 baselines: Sequence[str | Mapping[str, str]] = ({"image": "zero", "text": "mask"}, "data"),
                 cells: Sequence[str] | None = None, labels: Sequence[bool] | None = None, start: int = 0,
                 judged: int = 32, seed: int = 0):
        self.question = Question(model, inputs, modalities)
        self.inputs, self.words, self.labels = inputs, list(words), labels
        self.image, self.text = modalities
        self.name, self.caption, self.judged, self.seed = name, caption, min(judged, len(self.words)), seed
        rows, columns = self.image.grid
        self.cell_names = list(cells or (f"row {r + 1}, column {c + 1}" for r in range(rows) for c in range(columns)))
        self.order = torch.randperm(len(self.words), generator=torch.Generator().manual_seed(seed))
        self._make_controls(baselines, start)
        rows = ipw.GridBox(self.cells, layout={"grid_template_columns": f"repeat({columns}, max-content)"})
        controls = [self.pair, self.baseline, self.map, self.word, heading("Cover cells"), rows, heading("Cover words"),
                    self.word_box]
        super().__init__(controls, [self.baseline, self.map, self.word, *self.cells, *self.ticks])
        self.pair.observe(self._another, names="value")

    def _make_controls(self, baselines, start: int) -> None:
        titles = [" ".join(words) for words in self.words]
        if self.labels is not None:
            titles = [f"{title} ({'true' if label else 'false'})" for title, label in zip(titles, self.labels)]
        self.pair = choice("Pair", [(f"{i + 1}: {title}", i) for i, title in enumerate(titles)], start)
        self.baseline = choice("Stand-in", [(self._named(baseline), i) for i, baseline in enumerate(baselines)], 0)
        self.baselines = [self.question.choose(baseline) for baseline in baselines]
        self.map, self.word = choice("Map", map_choices(), "grad-cam"), choice("Word scores", word_choices(), "l2")
        self.cells = tick_boxes(self.cell_names, [f"cover the cell {name}" for name in self.cell_names])
        self.word_box = ipw.Box(layout={"flex_flow": "row wrap"})
        self._fill_words()

    def _named(self, baseline: str | Mapping[str, str]) -> str:
        if isinstance(baseline, str):
            return "taken from other pairs" if baseline == "data" else baseline
        return ", ".join(f"{name}: {stand_in}" for name, stand_in in baseline.items())

    def _fill_words(self) -> None:
        words = [spelled_out(word) for word in self.words[self.pair.value]]
        self.ticks = tick_boxes(words, [f"cover word {i + 1}, {word}" for i, word in enumerate(words)])
        self.word_box.children = self.ticks
        begin_at_the_right(self.word_box, words)

    def _another(self, change=None) -> None:
        """Show another pair, with nothing covered."""
        self._unwatch()
        for tick in self.cells:
            tick.value = False
        self._fill_words()
        self._watched = [self.baseline, self.map, self.word, *self.cells, *self.ticks]
        self._watch()
        self._follow()

    def _update(self) -> None:
        state = (self.pair.value, [i for i, tick in enumerate(self.cells) if tick.value],
                 [i for i, tick in enumerate(self.ticks) if tick.value], self.baseline.value)
        explained, corners, before = self._explain(*state)
        self._show(partial(self._draw, explained, state), self._say(explained, corners, before, state[0]))
        self._details.value = self._judged(self._verdict(*state))  # a moment later: it needs more passes

    def read(self, pair: int, cells: Sequence[int] = (), words: Sequence[int] = (), baseline: int = 0) -> Covered:
        """Return what is shown for a choice, with the methods that are chosen now.

        Parameters
        ----------
        pair : int
        cells, words : sequence of int
            Which are covered.
        baseline : int
            Place in ``baselines``.

        Returns
        -------
        Covered
        """
        explained, corners, before = self._explain(pair, cells, words, baseline)
        return Covered(explained, before, corners, self._verdict(pair, cells, words, baseline), self.judged)

    def _keep(self, rows: Tensor, pair: int, cells: Sequence[int], words: Sequence[int]) -> dict[str, Tensor]:
        """Return which features stay in each row: a cell is covered by its place, a word wherever it occurs."""
        image, text = (self.question.present[name][rows] for name in self.question.names)  # copies
        image[:, list(cells)] = False
        ids = self.text.value(self.inputs)
        hidden = self.question.present[self.text.name][pair].nonzero()[:, 0][list(words)]
        keep = text & ~torch.isin(ids[rows], ids[pair, hidden])
        of_pair = rows == pair
        # In the pair itself this word is covered, and not the same word at another place.
        keep[of_pair] = text[of_pair].index_fill(1, hidden, False)
        return {self.image.name: image, self.text.name: keep}

    def _donors(self, pair: int, limit: int = 4) -> Tensor:
        """Return random pairs that have neither the image nor the text of this one."""
        same_image, same_text = ((values == values[pair]).flatten(1).all(dim=1) for values in
                                 (modality.value(self.inputs) for modality in self.question.modalities))
        candidates = self.order[~(same_image | same_text)[self.order]]
        if not len(candidates):
            raise InputError("no other pair has another image and another sentence; pass more pairs.")
        return candidates[:limit]

    def _views(self, rows: Tensor, plan: Mapping) -> dict[str, Tensor]:
        return Views(self.question.examples(rows), self.question.modalities, plan, self.inputs, allow_empty=True).inputs

    def _masks(self, rows: Tensor, state: tuple, donor: Tensor) -> dict[str, Mask]:
        """Return how the cells and words of a state are hidden in some pairs."""
        *covered, baseline = state
        return {name: Mask(keep, self.baselines[baseline][name], donor) for name, keep in self._keep(rows, *covered).items()}

    def _explain(self, *state) -> tuple:
        """Return what is shown at once: the covered pair explained, its corners, and the logit with nothing covered."""
        pair, _, words, baseline = state
        row, donors = torch.tensor([pair]), self._donors(pair)
        masks = self._masks(row, state, donors[0])
        inputs = self._views(row, {"covered": masks})
        question = self.question
        logit, heat, scores = explain_one(question.model, inputs, question.modalities, self.map.value, self.word.value)
        scores = scores[self.question.present[self.text.name][pair]]
        scores = scores.index_fill(0, torch.tensor(list(words), dtype=torch.long), torch.nan)
        explained = Explained(self.image.value(inputs)[0], self.words[pair], logit, heat, scores,
                              signed_by(self.map.value, self.word.value))
        logits = {name: float(value) for name, value in self._logits(row, masks, self.baselines[baseline], donors).items()}
        return explained, {name: logits[name] for name in CORNERS}, logits["before"]

    def _logits(self, rows: Tensor, masks: Mapping[str, Mask], baselines: Mapping[str, str],
                donors: Tensor) -> dict[str, Tensor]:
        """Return the logits (n, 1) of pairs with nothing covered, of what the masks leave, and of its parts.

        Where features are borrowed, a part is the mean over the donors.
        """
        image, text = self.image.name, self.text.name
        plan = {("before", 0): {}, ("both", 0): masks}
        for turn, donor in enumerate(donors if "data" in baselines.values() else donors[:1]):
            second = donors[turn - 1]  # where both are borrowed, from two pairs
            hide = {image: Mask(None, baselines[image], donor), text: Mask(None, baselines[text], second)}
            plan |= {("image alone", turn): {**masks, text: hide[text]}, ("text alone", turn): {**masks, image: hide[image]},
                     ("neither", turn): hide}
        with equal_rows_once(self.question.model, [self.image.layer]):
            logits = self.question.logits(self._views(rows, plan)).reshape(len(plan), len(rows), 1)
        by_view: dict[str, list[Tensor]] = {}
        for (view, _), values in zip(plan, logits):
            by_view.setdefault(view, []).append(values)
        return {view: torch.stack(values).mean(dim=0) for view, values in by_view.items()}

    def _verdict(self, *state) -> Verdict:
        """Return the verdict on the first pairs, with the same cells and words covered in all of them."""
        pair, _, _, baseline = state
        rows, baselines, donors = torch.arange(self.judged), self.baselines[baseline], self._donors(pair)
        logits = self._logits(rows, self._masks(rows, state, donors[0]), baselines, donors)
        names = self.image.name, self.text.name
        views = zip((FULL, alone(names[0], names), alone(names[1], names), NOTHING), CORNERS)
        by_view = {view: logits[corner] for view, corner in views}
        return verdict({" + ".join(dict.fromkeys(baselines.values())): by_view}, names, draws=200, seed=self.seed)

    def _draw(self, explained: Explained, state: tuple) -> Shown:
        pair, cells, words, _ = state
        covered = [self.cell_names[i] for i in cells] + [repr(self.words[pair][i]) for i in words]
        title = " ".join(self.words[pair])
        alt = (f"An image and the sentence '{title}', with {' and '.join(covered) or 'nothing'} covered. "
               f"The model says {explained.answer}. {strongest(explained)}")
        return draw(explained, alt=alt, caption=self.caption, name=self.name)

    def _say(self, explained: Explained, corners: Mapping[str, float], before: float, pair: int) -> str:
        truth = "" if self.labels is None else f" The truth is {'yes' if self.labels[pair] else 'no'}."
        answers = f"The model says {explained.answer}; with nothing covered it says {answer(before)}.{truth}"
        total, image, text, empty = (corners[name] for name in CORNERS)
        parts = ", ".join(f"{name} {value:+.2f}" for name, value in list(corners.items())[1:])
        return paragraph(answers, "status") + paragraph(
            f"Of what is left: {parts}; the dividend of both together is {total - image - text + empty:+.2f}.", "note")

    def _judged(self, verdict: Verdict) -> str:
        (reached,) = verdict.reach.values()
        parts = ", ".join(f"{name} {value:.2f}" for name, value in reached.items())
        return paragraph(f"Verdict over {reached['sum'].n} pairs with the same cells and words covered: {verdict.answer} "
                          f"(support {verdict.support:.2f}). Accounts for: {parts}.", "status")


class CaptionExplorer(Explorer):
    """Ask a model about an image file and a sentence of your own.

    Parameters
    ----------
    explain : callable, or mapping from name to callable
        ``explain(image, sentence) -> Explained`` with an image (3, H, W), RGB from 0 to 1; raises ValueError with a
        message for the reader. Several can be chosen from. See :func:`explainer`.
    image : Tensor, shape (3, H, W)
    sentence : str
        What it begins with.
    name, caption : str
        Of the picture on a page without a kernel.
    """

    def __init__(self, explain: Explain | Mapping[str, Explain], image: Tensor, sentence: str, *, name: str, caption: str):
        self.models = dict(explain) if isinstance(explain, Mapping) else {"model": explain}
        self.first, self.name, self.caption = image, name, caption
        self.model = choice("Model", list(self.models), next(iter(self.models)))
        self.upload, hint = uploader(" Press Enter after the sentence.")
        self.sentence = ipw.Text(description="Sentence", value=sentence, continuous_update=False,
                                 layout={"width": "auto", "max_width": "42rem"}, style={"description_width": "8rem"})
        self.sentence.add_class("ce-typed")
        super().__init__([self.model, self.upload, self.sentence, hint], [self.model, self.upload, self.sentence])

    @property
    def image(self) -> Tensor:
        """The image that is asked about, (3, H, W).

        Raises
        ------
        PhotoError
            If the upload is no image.
        """
        return decode(self.upload.value[-1]) if self.upload.value else self.first

    def _update(self) -> None:
        if not self.sentence.value.strip():
            raise InputError("the sentence is empty; type at least one word.")
        explained = self.models[self.model.value](self.image, self.sentence.value)
        alt = (f"An image and the sentence '{' '.join(explained.words)}'. The model says {explained.answer}. "
               f"{strongest(explained)}")
        self._show(partial(draw, explained, alt=alt, caption=self.caption, name=self.name),
                   paragraph(f"The model says {explained.answer}.", "status"))
        self._details.value = paragraph(explained.note, "note") if explained.note else ""


def uploader(further: str = "") -> tuple[ipw.FileUpload, ipw.HTML]:
    """Return a button for an image file, and the line that says what it takes."""
    button = ipw.FileUpload(accept="image/*", multiple=False, description="Upload an image",
                            tooltip="an image file of at most 10 MB", layout={"width": "auto"})
    return button, ipw.HTML(f"A JPEG or PNG of at most {LARGEST // 1_000_000} MB; it stays on this machine.{further}")


def decode(upload: Mapping) -> Tensor:
    """Return the image of an upload, (3, H, W), RGB from 0 to 1.

    Parameters
    ----------
    upload : mapping
        ``name`` and ``content``, as of ``ipywidgets.FileUpload``.

    Raises
    ------
    PhotoError
        For an empty file, a large one, and whatever :func:`crossexplain.data.photos.read` refuses.
    """
    content = bytes(upload["content"])
    if not content:
        raise photos.PhotoError(f"{upload['name']} is empty (0 bytes); choose another file.")
    if len(content) > LARGEST:
        raise photos.PhotoError(f"{upload['name']} has {len(content) / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f} are taken; "
                                "make it smaller.")
    return photos.read(_File(content, upload["name"]))


class _File(BytesIO):
    """The bytes of a file under its name, which is what messages call it."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name

    def __repr__(self) -> str:
        return self.name


class WordExplorer(Explorer):
    """Pick a word and see its map over the image.

    Parameters
    ----------
    image : array_like, shape (C, H, W), in [0, 1]
    words : sequence of T str
    scores : array_like, shape (T, rows, columns)
        One map a word, from any method. All are drawn on one scale, so a pale map is a weak one.
    signed : bool
        Whether they have a sign.
    label : str
        What the colour bar measures.
    start : int, optional
        The word to begin with; default the one with the largest score.
    name, caption : str
        Of the picture on a page without a kernel.
    """

    def __init__(self, image, words: Sequence[str], scores, *, name: str, caption: str, signed: bool = True,
                 label: str = "score", start: int | None = None):
        self.image, self.words, self.scores = np.asarray(image), list(words), np.asarray(scores, dtype=float)
        if self.scores.ndim != 3 or len(self.scores) != len(self.words):
            raise InputError(f"got scores of shape {self.scores.shape} for {len(self.words)} words, expected one map a "
                             f"word, ({len(self.words)}, rows, columns).")
        if not np.isfinite(self.scores).all():
            raise InputError("scores hold NaN or infinity; leave out the words that have no map.")
        self.name, self.caption, self.signed, self.label = name, caption, signed, label
        start = int(np.abs(self.scores).max(axis=(1, 2)).argmax()) if start is None else start
        self.word = ipw.ToggleButtons(options=[(label, i) for i, label in enumerate(told_apart(self.words))], value=start,
                                      description="Word", style={"button_width": "auto"})
        begin_at_the_right(self.word, self.words)
        super().__init__([self.word], [self.word])

    def _update(self) -> None:
        chosen, sizes = self.word.value, np.abs(self.scores).max(axis=(1, 2))
        heat = self.scores[chosen]
        row, column = np.unravel_index(np.abs(heat).argmax(), heat.shape)
        strongest_patch = (f"the strongest of its {heat.size} patches is row {row + 1}, column {column + 1} with "
                           f"{heat[row, column]:{'+' if self.signed else ''}.3g}")
        drawing = partial(
            figures.example, self.image, heat, self.words, sizes, signed=(self.signed, False),
            largest=float(sizes.max()) or 1.0,
            title=f"Map of word {chosen + 1}, '{self.words[chosen]}'; below, each word's largest patch", label=self.label,
            alt=f"The map of the word '{self.words[chosen]}' over an image: {strongest_patch}.", caption=self.caption,
            name=self.name)
        self._show(drawing, paragraph(f"'{self.words[chosen]}': {strongest_patch}.", "status"))

