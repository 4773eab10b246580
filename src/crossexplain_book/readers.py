"""A reader's own image and sentence as inputs of the models of the book, and the book's conversations as strips.

Each of the first functions takes an image (3, H, W), RGB from 0 to 1, and a sentence, and returns what
:func:`crossexplain_book.explorers.explainer` asks for: the inputs of the model, a batch of one; the image as the model sees it;
the words; and a note on what was done to the image, which is empty if nothing was.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crossexplain.data import collages, scenes
from crossexplain.data.photos import square
from crossexplain.models import bert
from crossexplain.models.two_towers import TwoTowerModel
from crossexplain.recipes.encodings import LONGEST, Encoded
from crossexplain.recipes.scenes import inputs
from crossexplain_book.strips import Strip

if TYPE_CHECKING:
    from crossexplain.data.conversations import Batch

Question = tuple[dict[str, Tensor], Tensor, list[str], str]


def collage(image: Tensor, sentence: str) -> Question:
    """Return the question for the model of collages: dark digits on bright paper, or bright on dark.

    Raises
    ------
    ValueError
        For a word that is not in the vocabulary, and a sentence that is too long.
    """
    tokens = collages.tokenize(sentence.lower().rstrip(" ."))
    grey, notes = image.mean(dim=0, keepdim=True), []  # (1, H, W)
    if grey.mean() > 0.5:
        grey = 1 - grey
        notes.append("turned to bright ink on dark paper")
    if grey.shape[1:] != (56, 56):
        grey = torch.nn.functional.interpolate(grey[None], (56, 56), mode="bilinear", antialias=True)[0].clamp(0, 1)
        notes.append(f"scaled from {image.shape[2]} x {image.shape[1]} to 56 x 56 pixels")
    note = f"The image was {' and '.join(notes)}." if notes else ""
    return {"images": grey[None], "tokens": tokens}, grey, collages.words(tokens[0]), note


def scene(model: TwoTowerModel, image: Tensor, sentence: str) -> Question:
    """Return the question for a model of scenes.

    Raises
    ------
    ValueError
        For a word that is not in the vocabulary (names the nearest), and a sentence that is too long.
    """
    image, note = square(image, scenes.SIDE)
    question = inputs(model, image[None], [sentence])
    words = [scenes.VOCABULARY[token] for token in question["tokens"][0].tolist() if token not in (0, 2, 3)]
    return question, image, words, note


def photograph(encoded: Encoded, image: Tensor, sentence: str) -> Question:
    """Return the question for a whole model of photographs and captions.

    Raises
    ------
    crossexplain.checks.InputError
        For a sentence without a word, or of more than ``LONGEST`` tokens.
    """
    return of_tokenizer(encoded.tokenizer, encoded.network.size, image, sentence, LONGEST)


def of_tokenizer(tokenizer: PreTrainedTokenizerBase, side: int, image: Tensor, sentence: str,
                 max_length: int | None = None) -> Question:
    """Return the question for a model with this tokenizer, of images with this side in pixels."""
    image, note = square(image, side)
    encoding = bert.encode(tokenizer, [sentence], max_length)
    pieces = zip(encoding.tokens[0], encoding.special[0].tolist())
    words = [token.removesuffix("</w>") for token, special in pieces if not special]
    return {"images": image[None], **encoding.of_two_towers}, image, words, note


def conversation(batch: "Batch", i: int, values: Mapping[str, Sequence[float]] | None = None) -> Strip:
    """Return one of the generated conversations to draw, with what is known to decide it.

    Parameters
    ----------
    batch : crossexplain.data.conversations.Batch
    i : int
        Which one.
    values : mapping from modality to array_like, shape (F,), optional
        Attribution of each feature, as a method gives it for this conversation; some modalities may be left out.
    """
    from crossexplain.data import conversations as data

    one = batch.select([i])
    arrays = {name: array[0].numpy() for name, array in one.inputs().items()}
    turns = int((arrays["party"] > 0).sum())

    def by_turn(array) -> np.ndarray:
        return np.asarray(array).reshape(data.T, -1)[:turns]

    def features(by_modality: Mapping) -> dict[str, list[np.ndarray]]:
        rows = {name: list(by_turn(array)) for name, array in by_modality.items()}
        if "words" in rows:
            rows["words"] = [row[:length] for row, length in zip(rows["words"], lengths)]
        return rows

    lengths = (by_turn(arrays["words"]) > 0).sum(axis=1)
    frames = by_turn(arrays["frames"]).reshape(turns, data.K, data.SIDE, data.SIDE).copy()
    frames[~by_turn(arrays["frames_present"])] = np.nan
    sound = by_turn(arrays["sound"]).reshape(turns, data.S, data.MELS, data.STEPS).copy()
    sound[~by_turn(arrays["sound_present"])] = np.nan
    return Strip([data.NAMES[party - 1] for party in arrays["party"][:turns]],
                 [data.decode(words).split() for words in by_turn(arrays["words"])], frames,
                 sound.transpose(0, 1, 3, 2).reshape(turns, -1, data.MELS), data.decode(arrays["question"]) + "?",
                 None if values is None else features(values), one.truth.turns[0][:turns],
                 features({name: known[0] for name, known in one.truth.chunks.items()}))
