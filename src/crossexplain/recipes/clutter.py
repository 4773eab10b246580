"""The network of chapter 1: a slim VGG that names the one whole digit in a cluttered image.

``data`` of the trained network is the bank of handwritten digits that the images are made from.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from crossexplain import moved
from crossexplain.data import clutter, digits
from crossexplain.models.training import TensorBatches, fit, predict
from crossexplain.models.vgg import SlimVGG
from crossexplain.recipes import Recipe, Trained, by_kind, state_file, with_checkpoint

NAME = "slim_vgg"
SIZES = {"page": (8000, 1000, 6), "small": (512, 128, 1)}  # training images, validation images, epochs


def train(seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None) -> Trained:
    """Train a slim VGG on digits in clutter, about a minute on two cores; the digits are divided alike for every seed."""
    examples, held_out, epochs = SIZES[size]
    bank = digits.load("sklearn")
    sets = (clutter.build(bank, n, part, seed) for part, n in (("train", examples), ("validation", held_out)))
    model = SlimVGG.seeded(seed)
    history = fit(model, *(TensorBatches({"images": images.images}, images.labels) for images in sets), epochs=epochs, lr=4e-3,
                  weight_decay=0.05, batch_size=64, seed=seed, loss=partial(cross_entropy, label_smoothing=0.05),
                  progress=progress, checkpoint=state_file(resume, NAME, seed))
    return Trained(name=NAME, model=model.requires_grad_(False), data=bank, seed=seed, histories={"training": history})


def load(**_: Any) -> Trained:
    """Return the network that travels with the book."""
    return with_checkpoint(Trained(name=NAME, model=SlimVGG(), data=digits.load("sklearn")))


def logits(model: SlimVGG, images: Tensor) -> Tensor:
    """Return logits (N, 10) of images (N, 1, S, S), a few hundred at a time."""
    labels = torch.zeros(len(images), dtype=torch.int64)  # predict asks for labels and does not use them
    return predict(model, TensorBatches({"images": images}, labels), batch_size=256)[0]


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    test = clutter.build(trained.data, 4000, "test", trained.seed)
    right = logits(trained.model, test.images).argmax(dim=1) == test.labels
    shares = by_kind(right, [f"digit {digit}" for digit in test.labels.tolist()])
    return {"data": "8,000 images of digits in clutter, 64 x 64, from 1,257 of scikit-learn's 1,797 handwritten digits; "
                    "held out: 4,000 images from 270 other digits",
            "accuracy": {"held out": shares.pop("all"), **dict(sorted(shares.items()))}}


RECIPES = {NAME: Recipe(NAME, train, load, card)}


__getattr__ = moved.names_of(__name__)
