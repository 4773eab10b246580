"""How soon an explorer answers: from a changed control to the new picture, tokens, sentence and verdict, without the browser.

The pair explorer on the model of chapter 4 (a cell covered and uncovered, its verdict over 32 pairs included), the caption
explorer of chapters 5 and 6 with each model of scenes (another sentence), and the word explorer (another word). Where the
data folder is set, also the caption explorer of chapter 5 on a photograph of Flickr8k. The upper end of a row is the
slowest change.
"""

import os
from functools import partial

from crossexplain.data import collages
from crossexplain.gradients.attention import word_by_patch
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.recipes import load_or_train
from crossexplain.recipes import scenes as recipe
from crossexplain_book import readers
from crossexplain_book.bench import row_of, seconds
from crossexplain_book.explorers import CaptionExplorer, PairExplorer, WordExplorer, explainer

SENTENCES = ("a red ball on the grass", "a blue box")
SHOWN = {"name": "fig-bench", "caption": "Measured, not shown."}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return one row for each explorer; six times ``repeats`` changes each, the first one left out."""
    found = {"pair": changes(of_pairs(seed), repeats)}
    for name in recipe.NAMES:
        found[f"caption.{name}"] = changes(of_captions(name), repeats)
    found["word"] = changes(of_words(), repeats)
    if os.environ.get("CROSSEXPLAIN_DATA"):
        found["caption.photograph"] = changes(of_photographs(seed), repeats)
    return [row_of(f"speed.explorer.{name}.seconds", times[1:], "s from a changed control to the whole answer")
            for name, times in found.items()]


def changes(control: tuple, repeats: int) -> list[float]:
    """Return how long the explorer of a control takes to follow each change."""
    widget, values = control
    return [seconds(partial(setattr, widget, "value", values[k % len(values)])) for k in range(1, 6 * repeats + 2)]


def of_pairs(seed: int) -> tuple:
    """Return a control of the pair explorer, and the values to give it."""
    trained = load_or_train("collages", progress=False)
    test = collages.build(trained.data, 32, "test", seed + 1)
    inputs, model = test.inputs(), trained.model
    explorer = PairExplorer(model, inputs, (ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)),
                            [collages.words(row) for row in inputs["tokens"]], labels=test.labels, **SHOWN)
    return explorer.cells[0], (False, True)


def of_captions(name: str) -> tuple:
    """Return the sentence of the caption explorer of a model of scenes, and the values to give it."""
    model, images = scene(name)
    sides = ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer, special=() if name == "fusion" else (2, 3))
    explorer = CaptionExplorer(explainer(model, partial(readers.scene, model), sides), images[0], SENTENCES[0], **SHOWN)
    return explorer.sentence, SENTENCES


def of_photographs(seed: int) -> tuple:
    """Return the sentence of the caption explorer on a photograph, and the values to give it.

    Early fusion on the small towers, trained on a few photographs only, which takes a minute; it answers as fast as one
    that was trained on all.
    """
    photo = load_or_train("flickr8k_fusion", seed=seed, size="small", progress=False)
    sides = ImageCells(layer=photo.model.image_layer, grid=(4, 4)), Tokens(**photo.data.words)
    image = photo.data.flickr8k.images(photo.data.flickr8k.splits["test"][:1], photo.data.network.size)[0]
    explain = explainer(photo.model, partial(readers.photograph, photo.data), sides)
    explorer = CaptionExplorer(explain, image, SENTENCES[0], **SHOWN)
    return explorer.sentence, SENTENCES


def of_words() -> tuple:
    """Return the word of the word explorer, and the values to give it."""
    model, images = scene("clip_cnn")
    maps = word_by_patch(model, recipe.inputs(model, images, SENTENCES[:1]))[0, 1:-1]
    return WordExplorer(images[0], SENTENCES[0].split(), maps, **SHOWN).word, (0, 1, 2)


def scene(name: str) -> tuple:
    """Return a model of scenes and one picture, (1, 3, H, W)."""
    trained = load_or_train(f"scenes_{name}", progress=False)
    return trained.model, trained.data.images(trained.data.splits["test"][:1])
