"""What a model says about one image and one sentence, and why: the record that an explorer draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.evaluation import methods
from crossexplain.gradients import maps as image_maps
from crossexplain.gradients import tokens as text_scores
from crossexplain.gradients.capture import capture
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain_book import figures
from crossexplain_book.pictures import Shown


@dataclass(frozen=True)
class Explained:
    """What a model says about one image and one sentence, and why. The record that an explorer draws.

    Attributes
    ----------
    image : Tensor, shape (C, H, W), in [0, 1]
        As the model saw it.
    words : list of T str
    logit : float
        Above 0 for yes.
    heat : Tensor, shape (h, w)
        Evidence for the answer, at the resolution at which it was computed.
    scores : Tensor, shape (T,)
        One a word; NaN where a word has none.
    signed : (bool, bool)
        Whether map and scores have a sign.
    note : str
        What was done to the reader's input, if anything.
    """

    image: Tensor
    words: list[str]
    logit: float
    heat: Tensor
    scores: Tensor
    signed: tuple[bool, bool] = (False, False)
    note: str = ""

    @property
    def answer(self) -> str:
        """``"yes"`` or ``"no"``, with the logit."""
        return answer(self.logit)


def answer(logit: float) -> str:
    """Return a logit in words.

    Examples
    --------
    >>> answer(-1.5)
    'no (logit -1.50)'
    """
    return f"{'yes' if logit > 0 else 'no'} (logit {logit:+.2f})"


Explain = Callable[[Tensor, str], Explained]  # image (3, H, W) in [0, 1], sentence
Encode = Callable[[Tensor, str], tuple[Mapping[str, Tensor], Tensor, list[str], str]]


def explainer(model: nn.Module, encode: Encode, modalities: tuple[ImageCells, Tokens], *, map_method: str = "grad-cam",
              word_method: str = "l2") -> Explain:
    """Return a function that explains what a model with one logit says about an image and a sentence of the reader.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; gives one logit an example.
    encode : callable
        Takes the image (3, H, W), RGB from 0 to 1, and the sentence; returns the model's inputs as a batch of one, the
        image (C, H, W) as the model sees it, one word for each feature of the text, and a note to the reader (or "").
        Raises ValueError, with a message for the reader, for what the model cannot take.
    modalities : (ImageCells, Tokens)
        Where to read the model, as for :func:`~crossexplain.gradients.rounds.rounds`.
    map_method, word_method : str
        Keys of :func:`map_choices` and :func:`word_choices`.

    Returns
    -------
    callable
        ``explain(image, sentence) -> Explained``, for :class:`CaptionExplorer`.

    Raises
    ------
    InputError
        For methods that are not among them.
    """
    for method, choices in ((map_method, map_choices()), (word_method, word_choices())):
        if method not in (keys := [key for _, key in choices]):
            raise InputError(f"got method {method!r}, expected one of {', '.join(keys)}.")

    def explain(image: Tensor, sentence: str) -> Explained:
        inputs, picture, words, note = encode(image, sentence)
        logit, heat, scores = explain_one(model, inputs, modalities, map_method, word_method)
        is_word = modalities[1].features(inputs)[0]
        return Explained(picture, words, logit, heat, scores[is_word], signed_by(map_method, word_method), note)

    return explain


def map_choices() -> list[tuple[str, str]]:
    """Return title and key of every map of the registry."""
    return [(methods.map_method(key).title, key) for key in image_maps.METHODS]


def word_choices() -> list[tuple[str, str]]:
    """Return title and key of every word score of the registry that needs no attention."""
    return [(methods.registry()[key].title, key) for key, method in text_scores.METHODS.items() if method.read is not None]


def signed_by(map_method: str, word_method: str) -> tuple[bool, bool]:
    """Return whether the map and the scores of the methods have a sign."""
    return image_maps.METHODS[map_method].signed, text_scores.METHODS[word_method].signed


def explain_one(model, inputs, modalities, map_method: str, word_method: str) -> tuple[float, Tensor, Tensor]:
    """Return logit, map (h, w) and scores (T,) of a batch of one; one pass gives both scores and logit."""
    image, text = (modality.layer for modality in modalities)
    heat = image_maps.attribute(model, inputs, image, map_method)[0]
    captured = capture(model, inputs, text, "predicted")
    scores = text_scores.METHODS[word_method].read(captured.activations[text], captured.gradients[text])[0]
    return float(captured.output.reshape(-1)[0]), heat, scores


def strongest(explained: Explained) -> str:
    """Say in words where the map and the scores of the words are largest."""
    heat, scores = np.abs(np.asarray(explained.heat)), np.abs(np.asarray(explained.scores))
    sentence = f"The map is strongest at the {place_of(heat)}" if heat.max() > 0 else "The map is empty"
    if not np.isfinite(scores).any() or not np.nanmax(scores) > 0:
        return f"{sentence}, and no word has a score."
    return f"{sentence}, the strongest word is '{explained.words[int(np.nanargmax(scores))]}'."


def place_of(heat) -> str:
    """Say in words where a map (h, w) is strongest.

    Examples
    --------
    >>> place_of(np.eye(3)[:, ::-1] * [3, 2, 1])
    'lower left'
    """
    heat = np.abs(np.asarray(heat))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return (f"{('upper', 'middle', 'lower')[3 * row // heat.shape[0]]} "
            f"{('left', 'centre', 'right')[3 * column // heat.shape[1]]}")


def draw(explained: Explained, *, alt: str, caption: str, name: str) -> Shown:
    """Draw what was explained: input | map | overlay, and below them the words."""
    return figures.example(explained.image, explained.heat, explained.words, explained.scores, alt=alt, caption=caption,
                           name=name, title=f"The model says {explained.answer}", signed=explained.signed,
                           label="evidence for the answer")
