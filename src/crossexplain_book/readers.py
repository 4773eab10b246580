"""A reader's own image and sentence as inputs of the models of the book, for the explorers.

Each function takes an image (3, H, W), RGB from 0 to 1, and a sentence, and returns what
:func:`crossexplain_book.explorers.explainer` asks for: the inputs of the model, a batch of one; the image as the model sees it;
the words; and a note on what was done to the image, which is empty if nothing was.
"""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crossexplain.data import collages, scenes
from crossexplain.data.photos import square
from crossexplain.models import bert
from crossexplain.models.two_towers import TwoTowerModel
from crossexplain.recipes.encodings import LONGEST, Encoded
from crossexplain.recipes.scenes import inputs

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
