"""Chapter 8: how good one stream and the decoder are, where their maps point, and what four models of scenes rest on.

Held-out pictures. Grad-CAM of "a red ball" against the box, the gradient norm against words that count, and the share of pairs
whose answer rests on both modalities only, stand-ins borrowed from other pairs; the same for the dual encoder and early fusion
of chapters 5 and 6. Intervals are 95 % bootstrap over twins, or over quadruples of pairs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.studies import pointing
from crossexplain import Called, ImageCells, Tokens, explain, load_or_train, rounds
from crossexplain.data.scenes import Scenes, tokenize
from crossexplain.evaluation.truth import cue_auroc, pointing_game, random_map
from crossexplain.gradients.modalities import Modality
from crossexplain.intervals import Interval, mean_interval
from crossexplain.recipes import decoder, one_stream, scenes

N, PAIRS, TEST = 400, 1000, 4000  # queries, pairs for what answers rest on, pairs for the accuracy
GRID, SIDE = 6, 96
UNITS = {"accuracy": "share of pairs, any two pictures", "foils_threshold": "share of pairs, one word changed",
                "foils": "share of pictures whose caption outranks its foil"}


class Asked(NamedTuple):
    """A model as it is explained: called, given its inputs, and cut into cells and words."""

    model: nn.Module
    inputs: Callable[[Tensor, Sequence[str]], dict[str, Tensor]]
    sides: list[Modality]


def asked(name: str) -> Asked:
    """Return a model of scenes by the name of its recipe."""
    net = load_or_train(name).model
    picture = ImageCells(layer=net.image_layer, grid=(GRID, GRID))
    if name == decoder.NAME:
        words = Tokens(input="input_ids", layer=net.text_layer, attention="attention_mask", special_mask="special_mask")
        return Asked(Called(net, output=decoder.yes, drop=["special_mask"]), decoder.inputs, [picture, words])
    inputs = one_stream.inputs if name == one_stream.NAME else lambda images, captions: scenes.inputs(net, images, captions)
    return Asked(net, inputs, [picture, Tokens(layer=net.text_layer, special=(2, 3))])


MODELS = {"onestream": one_stream.NAME, "decoder": decoder.NAME, "fusion": "scenes_fusion", "clip_cnn": "scenes_clip_cnn"}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    found = []
    for key, name in MODELS.items():
        one, data = asked(name), load_or_train(name).data
        measured = {"both_only": (rests_on_both(one, data, seed), "share of pairs that rest on both only")}
        if key in ("onestream", "decoder"):
            measured |= new_model(name, one, data, seed)
        found += [row(f"{key}.{what}", *value) for what, value in measured.items()]
    return found


def row(name: str, interval: Interval, unit: str) -> dict:
    """Return one row of the table."""
    return {"id": name, **interval._asdict(), "unit": unit}


def new_model(name: str, one: Asked, data: Scenes, seed: int) -> dict[str, tuple[Interval, str]]:
    """Return accuracy, pointing game and words of one of the models of chapter 8."""
    recipe, thing = (decoder if name == decoder.NAME else one_stream), pointing.things(data, data.splits["test"], N)
    hits, twins = pointing_game(heat(one, data, thing), thing.boxes), thing.image // 2
    at_random = pointing_game(random_map(len(thing), SIDE, SIDE, seed, sigma=8), thing.boxes)
    found = {"pointing": (mean_interval(hits, seed, groups=twins), "pointing game, Grad-CAM"),
             "pointing.random": (mean_interval(at_random, seed, groups=twins), "pointing game, random map")}
    captions = pointing.captions(data, data.splits["test"], N)
    found["cue_words"] = (mean_interval(word_scores(one, data, captions), seed, groups=captions.image // 2),
                          "AUROC, gradient norm")
    for kind, what in (("random", "accuracy"), ("foil", "foils_threshold")):
        pairs = data.build("test", TEST, seed, kind)
        logits = recipe.logits(load_or_train(name).model, pairs)
        right = ((logits.numpy() > 0) == pairs.labels).reshape(-1, 4).mean(axis=1)
        found[what] = (mean_interval(right, seed), UNITS[what])
        if kind == "foil":
            ranked = scenes.ranked(logits).mean(axis=1)
            found["foils"] = (mean_interval(ranked, seed), UNITS["foils"])
    return found


def heat(one: Asked, data: Scenes, thing: pointing.Referents) -> np.ndarray:
    """Return Grad-CAM of what is asked for, (N, H, W)."""
    found = [explain(one.model, one.inputs(data.images(thing.image[part]), [thing.texts[i] for i in part]), one.sides[:1],
                     "grad-cam", target=1).values["image"] for part in np.array_split(np.arange(len(thing)), 4)]
    cells = torch.cat(found).unflatten(1, (GRID, GRID))
    return interpolate(cells[:, None], SIDE)[:, 0].numpy()


def word_scores(one: Asked, data: Scenes, captions: pointing.Referents) -> np.ndarray:
    """Return the AUROC of words that count by the length of their gradient, (N,)."""
    cues, areas = captions.cues(tokenize(captions.texts)), []
    for part in np.array_split(np.arange(len(captions)), 4):
        inputs = one.inputs(data.images(captions.image[part]), [captions.texts[i] for i in part])
        values = explain(one.model, inputs, one.sides, "gradient norm", target=1).values["text"]
        for i, scores in zip(part, values):
            of_words = scores[~scores.isnan()].numpy()  # by word, in their order
            areas.append(cue_auroc(of_words[None], cues[i : i + 1, : len(of_words)])[0])
    return np.array(areas)


def rests_on_both(one: Asked, data: Scenes, seed: int) -> Interval:
    """Return the share of pairs whose answer rests on both modalities only."""
    pairs = data.build("test", PAIRS, seed, "random")
    record = rounds(one.model, one.inputs(pairs.images(), pairs.captions), one.sides, baselines=["data"], pick=None, seed=seed,
                    progress=False)
    return mean_interval(record.each("data") == "both only", seed, groups=np.arange(PAIRS) // 4)
