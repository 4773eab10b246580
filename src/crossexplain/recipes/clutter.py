"""The network of chapter 1: a slim VGG that names the one whole digit in a cluttered image."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from crossexplain.data import clutter, digits
from crossexplain.data.clutter import Clutter
from crossexplain.models import checkpoints
from crossexplain.models.training import History, TensorBatches, accuracy, fit, predict
from crossexplain.models.vgg import SlimVGG

NAME = "slim_vgg"
SIZES = {"page": (8000, 1000, 6), "small": (512, 128, 1)}  # training images, validation images, epochs


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about.

    Attributes
    ----------
    model : SlimVGG
        In eval mode, frozen.
    digits : Digits
        The handwritten digits that images are made from.
    card : dict
        Of the checkpoint; empty where the network was trained just now.
    history : History, optional
        Of the training; None where the network was loaded.
    """

    model: SlimVGG
    digits: digits.Digits
    card: dict = field(default_factory=dict)
    history: History | None = None

    def test(self, n: int, seed: int) -> Clutter:
        """Return new images of digits that the network was never trained on."""
        return clutter.build(self.digits, n, "test", seed)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, 10) of images (N, 1, S, S), a few hundred at a time."""
        labels = torch.zeros(len(images), dtype=torch.int64)  # none are needed, the loop wants some
        return predict(self.model, TensorBatches({"images": images}, labels), batch_size=256)[0]


def train(seed: int = 0, size: str = "page", progress: bool = True, checkpoint: Path | None = None) -> Trained:
    """Train a slim VGG on digits in clutter, about a minute on two cores.

    Parameters
    ----------
    seed : int
        Of the images, the initial weights and the order of the examples; the handwritten digits are divided in the
        same way for every seed.
    size : {"page", "small"}
        ``"small"`` is one pass over a few images, to see that everything runs.
    progress : bool
        Show a progress bar.
    checkpoint : Path, optional
        Where to keep the state of the training, to go on from if it is cut off.

    Returns
    -------
    Trained
    """
    examples, held, epochs = SIZES[size]
    bank = digits.load("sklearn")
    parts = {"train": examples, "validation": held}
    train_set, validation = (_batches(clutter.build(bank, n, part, seed)) for part, n in parts.items())
    model = SlimVGG.seeded(seed)
    history = fit(model, train_set, validation, epochs=epochs, lr=4e-3, weight_decay=0.05, batch_size=64, seed=seed,
                  loss=partial(cross_entropy, label_smoothing=0.05), progress=progress, checkpoint=checkpoint)
    return Trained(model.requires_grad_(False), bank, history=history)


def load_or_train(seed: int = 0, retrain: bool = False, size: str = "page", progress: bool = True) -> Trained:
    """Return the network that travels with the book, or train it again.

    Parameters
    ----------
    seed, size, progress
        As for :func:`train`; only used when training.
    retrain : bool
        True trains.

    Returns
    -------
    Trained
    """
    if retrain:
        return train(seed, size, progress)
    model = SlimVGG()
    card = checkpoints.load(NAME, model)
    return Trained(model.requires_grad_(False), digits.load("sklearn"), card)


def held_out_accuracy(trained: Trained, n: int, seed: int) -> float:
    """Return the share of ``n`` images of test digits that the network names."""
    test = trained.test(n, seed)
    return accuracy(trained.logits(test.images), test.labels)


def make(seed: int = 0, out: Path | None = None) -> Path:
    """Train the network and keep it as the checkpoint that travels with the book.

    Parameters
    ----------
    seed : int
    out : Path, optional
        Folder; default, that of the embedded checkpoints.

    Returns
    -------
    Path
        Of the weights.
    """
    trained = train(seed)
    test = trained.test(4000, seed)
    right = trained.logits(test.images).argmax(dim=1) == test.labels
    kinds = {f"digit {digit}": right[test.labels == digit].float().mean().item() for digit in range(10)}
    card = {
        "data": "8,000 images of digits in clutter, 64 x 64, from 1,257 of scikit-learn's 1,797 handwritten digits; "
                "held out: 4,000 images from 270 other digits",
        "seed": seed,
        "command": f"python -m crossexplain train {NAME} --seed {seed}",
        "accuracy": {"held out": right.float().mean().item(), **kinds},
        "epochs": len(trained.history.train_loss),
        "seconds": round(trained.history.seconds, 1),
    }
    return checkpoints.save(trained.model, NAME, card, folder=out)


def _batches(images: Clutter) -> TensorBatches:
    return TensorBatches({"images": images.images}, images.labels)
