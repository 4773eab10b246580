"""The collage lab: the model of chapters 3 and 4 in the reader's browser, with its gradients, without a kernel.

The model is written out in plain JavaScript (``engine.js``, ``explain.js``, ``verdict.js``, ``looks.js`` and ``lab.js``, joined
to one ES module). A page loads it when a reader starts the lab, from a script beside the pages; JupyterLab gets the same module
as a widget. Weights are kept in half precision, and the tower's batch norm is part of its convolutions: :func:`rounded` is the
PyTorch model with the same weights, from which the lab differs by rounding alone.
"""

import json
from base64 import b64encode
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from torch import nn

from crossexplain.data import collages, digits
from crossexplain.data.collages import Collages
from crossexplain.files import write_whole
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.models.cnn_lstm import CnnLstm
from crossexplain.recipes import load_or_train
from crossexplain_book.explained import Explained, draw, explain_one, strongest
from crossexplain_book.live.part import LivePart, module

PARTS = ("engine.js", "explain.js", "verdict.js", "looks.js", "lab.js")
SCRIPT = "live/collages.js"  # beside the chapters' folder: what pages load on first use
PAIRS, SEED = 200, 21  # stored pairs of held-out digits, whole quadruples, and the seed that draws them
LENDERS = (0, 5, 8, 13)  # four of the next seed's pairs, of four quadruples: what "borrowed" borrows from


def rounded(model: CnnLstm) -> CnnLstm:
    """Return the model with its batch norm in the convolutions and all weights rounded to half precision.

    Parameters
    ----------
    model : CnnLstm

    Returns
    -------
    CnnLstm
        In eval mode, in single precision.
    """
    small = CnnLstm(model.embedding.num_embeddings)
    small.load_state_dict(model.state_dict())
    features = small.tower.features
    for convolution, norm in zip(features, [*features][1:]):
        if isinstance(convolution, nn.Conv2d):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            convolution.weight.data *= scale[:, None, None, None]
            norm.bias.data -= norm.running_mean * scale
            norm.weight.data.fill_(1)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    for values in small.parameters():
        values.data = values.data.half().float()
    return small.eval().requires_grad_(False)


@cache
def model() -> CnnLstm:
    """Return the model of the lab: that of scikit-learn's digits, which travels with the book, rounded."""
    return rounded(load_or_train("collages", progress=False).model)


@cache
def kept_pairs() -> Collages:
    """Return the stored pairs, :data:`PAIRS` of them, of digits that the model was not trained on."""
    return collages.build(digits.load("sklearn"), PAIRS, "test", SEED)


@cache
def lenders() -> Collages:
    """Return the pairs from which cells and words are borrowed."""
    return collages.build(digits.load("sklearn"), 16, "test", SEED + 1).select(list(LENDERS))


@cache
def packed() -> bytes:
    """Return what the module needs to know, as bytes: the weights, the digits, the sentences, and the stored pairs.

    The length of the head (four bytes), the head (JSON), the weights (float16), the digits (8 x 8 bytes, 0 to 16).
    """
    weights = {name: value for name, value in model().state_dict().items()
               if "running" not in name and "num_batches" not in name and value.ndim}
    tensors, parts, start = [], [], 0
    for name, value in weights.items():
        tensors.append({"name": name, "start": start, "count": value.numel()})
        parts.append(value.half().numpy().tobytes())
        start += len(parts[-1])
    bunch, tests = load_digits(), _digits()
    head = {"tensors": tensors, "levels": start, "labels": bunch.target[tests].tolist(), "enlarge": _enlarging(),
            "bootstrap": {key: str(value) for key, value in np.random.default_rng(0).bit_generator.state["state"].items()},
            "vocabulary": collages.VOCABULARY, "balanced": collages.BALANCED, "length": collages.LENGTH,
            "statements": [{"sentence": sentence, "task": one.task, "precision": one.precision, "cells": one.cells,
                            "count": one.count} for sentence, one in collages.STATEMENTS.items()],
            **{name: np.column_stack([_places(of), of.sentence_id]).tolist()
               for name, of in (("pairs", kept_pairs()), ("lenders", lenders()))}}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts, bunch.images[tests].astype(np.uint8).tobytes()])


def _digits() -> np.ndarray:
    """Return which of scikit-learn's digits the lab has, those that no model was trained on, in ascending order."""
    return digits.split(digits.load("sklearn"), seed=0)["test"]


def _places(of: Collages) -> np.ndarray:
    """Return the cells of collages (N, 4) as numbers among the digits of the lab."""
    return np.searchsorted(_digits(), of.cells)


def _enlarging() -> list[float]:
    """Return the matrix (28, 8) by which rows and columns of 8 pixels become 28: that of ``digits.enlarge``, unclipped."""
    matrix = zoom(np.eye(8), (digits.SIDE / 8, 1), order=3, mode="grid-constant", cval=0.0, grid_mode=True)
    return matrix.round(9).ravel().tolist()


def script() -> str:
    """Return the classic script that a page loads: the module as text and its data, which a file may not fetch."""
    return (f"window.crossexplainLab = {{module: {json.dumps(module(PARTS), ensure_ascii=False)},\n"
            f'data: "{b64encode(packed()).decode()}"}};\n')


def write(pages: Path) -> Path:
    """Write the script beside the pages of a book, whole or not at all, and return its path."""
    return write_whole(pages / SCRIPT, lambda part: part.write_text(script(), "utf-8"))


class CollageLab(LivePart):
    """The lab as the last line of a cell: live in JupyterLab, on a page its first state with a button that starts it.

    Parameters
    ----------
    pair : int
        The stored pair to begin with.
    name, caption : str
        Of the figure on a page.
    """

    parts, kind = PARTS, "lab"

    def __init__(self, pair: int = 0, *, name: str, caption: str):
        inputs, network = kept_pairs().inputs([pair]), model()
        words = collages.words(inputs["tokens"][0])
        sides = ImageCells(layer=network.image_layer), Tokens(layer=network.text_layer)
        logit, heat, scores = explain_one(network, inputs, sides, "grad-cam", "l2")
        first = Explained(inputs["images"][0], words, logit, heat, scores[: len(words)])
        shown = ", ".join(map(str, kept_pairs().digits[pair]))
        alt = (f"A collage of the digits {shown} and the sentence '{' '.join(words)}'. The model says {first.answer}. "
               f"{strongest(first)}")
        source = b64encode(draw(first, alt=alt, caption=caption, name=name).png()).decode()
        still = f'<img class="dark-light" alt="{escape(alt)}" style="max-width:100%" src="data:image/png;base64,{source}">'
        super().__init__(still, _written(pair), packed(), alt=alt, caption=caption, name=name, source=f"../{SCRIPT}",
                         start="Start the lab: draw, cover, ask")


def _written(pair: int) -> str:
    """Return the state that begins with a stored pair, as ``lab.js`` writes it: nothing covered, the first of each choice."""
    cells, words = (row[pair].tolist() for row in (_places(kept_pairs()), kept_pairs().tokens()))
    numbers = ".".join(np.base_repr(word, 36).lower() for word in words if word)
    return f"{'.'.join(map(str, cells))}~{numbers}~0~0~0~0~0"
