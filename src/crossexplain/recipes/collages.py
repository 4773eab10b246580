"""The model of chapters 3 and 4: first a tower that names digits, then what matches collage and sentence on top of it.

The tower is trained once and frozen. After that a collage goes through it once, and the LSTM reads each of the few
dozen distinct sentences once a step, which is what makes the training of the rest a matter of a minute.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain import moved
from crossexplain.checks import require_one_of
from crossexplain.data import collages, digits
from crossexplain.data.collages import KINDS, SENTENCES, VOCABULARY, Collages
from crossexplain.data.digits import Digits
from crossexplain.models.cnn_lstm import AfterTower, CnnLstm, Tower
from crossexplain.models.encodings import Rows
from crossexplain.models.training import History, TensorBatches, evaluate, fit, predict
from crossexplain.models.two_towers import TwoTowerModel, in_batches
from crossexplain.models.weights import seeded
from crossexplain.recipes import Recipe, Trained, by_kind, state_file, with_checkpoint

BANKS = {"embedded": "sklearn", "full": "mnist"}
NAMES = {"embedded": "collages", "full": "collages_mnist"}
TOWER = {"embedded": (8000, 6), "full": (13_000, 4)}  # collages and epochs
PASSES = 800_000  # pairs that the fusion is shown in all, about 3,000 steps: 20 epochs of 40,000 pairs or 100 of 8,000
VALIDATION, TEST = 4000, 8000  # pairs


class NamedDigits:
    """Collages labelled with their four digits, for the tower; each digit shifted, turned and scaled a little.

    Parameters
    ----------
    bank : Digits
    indices : array_like of int
        Digits that may be used; each is used as often as any other, give or take one.
    n : int
        Collages an epoch.
    seed : int
    moved : bool
        False leaves the digits as they are.
    """

    def __init__(self, bank: Digits, indices: Rows, n: int, seed: int, moved: bool = True):
        generator = torch.Generator().manual_seed(seed)
        shuffled = [torch.randperm(len(indices), generator=generator) for _ in range(-(-4 * n // len(indices)))]
        self.cells = torch.as_tensor(indices)[torch.cat(shuffled)[: 4 * n]].reshape(n, 4)
        self.bank, self.labels, self.moved = torch.from_numpy(bank.images), torch.from_numpy(bank.labels), moved

    def __len__(self) -> int:
        return len(self.cells)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return collages (n, 1, 56, 56) and their digits (n, 4)."""
        cells = self.cells[indices]
        four = self.bank[cells]  # (n, 4, 28, 28)
        four = _move(four.flatten(0, 1)[:, None]).reshape(four.shape) if self.moved else four
        rows = four.reshape(-1, 2, 2, 28, 28).transpose(2, 3)
        return {"images": rows.reshape(-1, 1, 56, 56)}, self.labels[cells]


def train_tower(bank: Digits, seed: int, n: int, epochs: int, progress: bool = True,
                checkpoint: Path | None = None) -> tuple[Tower, History]:
    """Train a tower to name the digits of collages.

    Parameters
    ----------
    bank : Digits
    seed : int
    n, epochs : int
        ``n`` collages in each epoch.

    Returns
    -------
    Tower, History
        The tower frozen, in eval mode.
    """
    parts = digits.split(bank, seed=0)
    train_set = NamedDigits(bank, parts["train"], n, seed)
    held = NamedDigits(bank, parts["validation"], min(2000, len(parts["validation"]) // 4), seed, moved=False)
    with seeded(seed):
        tower = Tower().to(memory_format=torch.channels_last)  # the faster layout on a CPU
    history = fit(tower, train_set, held, epochs=epochs, lr=4e-3, batch_size=128, seed=seed, progress=progress,
                  loss=lambda logits, labels: nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()),
                  checkpoint=checkpoint)
    return tower.requires_grad_(False), history


def look(model: CnnLstm, data: Collages) -> TensorBatches:
    """Send each distinct collage through the tower once, and return what it saw, with the numbers of the sentences.

    Parameters
    ----------
    model : CnnLstm
        Its tower is put into eval mode.
    data : Collages

    Returns
    -------
    TensorBatches
        Inputs ``seen`` (N, 40) and ``sentence`` (N,), for :func:`train_fusion`, also of another model with this tower.
    """
    _, first, number = np.unique(data.collage, return_index=True, return_inverse=True)
    model.tower.eval()
    device = model.embedding.weight.device
    seen = in_batches(lambda collage: model.see(data.images(collage).to(device)), first, 256).cpu()
    inputs = {"seen": seen[torch.from_numpy(number)], "sentence": torch.from_numpy(data.sentence_id)}
    return TensorBatches(inputs, torch.from_numpy(data.labels))


def train_fusion(model: CnnLstm, train_set: TensorBatches, validation: TensorBatches, *, seed: int, epochs: int,
                 without: str | None = None, progress: bool = True, checkpoint: Path | None = None) -> History:
    """Train everything but the tower on pairs of collage and sentence.

    Parameters
    ----------
    model : CnnLstm
        Its tower is frozen, the rest trained in place.
    train_set, validation : TensorBatches
        What :func:`look` returned.
    seed, epochs : int
    without : {"image", "text"}, optional
        Hide one modality, in training and validation, to see what the other is worth alone.

    Returns
    -------
    History
    """
    model.tower.requires_grad_(False)
    return fit(SentencesOnce(AfterTower(model), without), train_set, validation, epochs=epochs, lr=2e-3, batch_size=256,
               seed=seed, progress=progress, checkpoint=checkpoint)


def train(profile: str = "embedded", seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None, *,
          n_pairs: int | None = None, tower: Tower | None = None) -> Trained:
    """Train the whole model: the tower, unless one is given, and the fusion.

    Parameters
    ----------
    profile : {"embedded", "full"}
        Collages of scikit-learn's digits or of MNIST's.
    seed : int
        Of pairs, initial weights and order; the digits are divided alike for every seed.
    size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    n_pairs : int, optional
        Pairs to train on, a multiple of 4.
    tower : Tower, optional
        One that was trained before.

    Returns
    -------
    Trained
        ``data`` is the bank of digits; the steps are ``"tower"``, unless one was given, and ``"fusion"``.
    """
    name, bank, small, histories = NAMES[profile], digits.load(BANKS[profile]), size == "small", {}
    if tower is None:
        n, epochs = (256, 1) if small else TOWER[profile]
        tower, histories["tower"] = train_tower(bank, seed, n, epochs, progress, state_file(resume, name, seed, "tower"))
    model = new_model(tower, seed)
    n_pairs = n_pairs or (1280 if small else 40_000)
    sets = (look(model, data) for data in pairs(bank, n_pairs, seed, size))
    histories["fusion"] = train_fusion(model, *sets, seed=seed, epochs=1 if small else max(1, round(PASSES / n_pairs)),
                                       progress=progress, checkpoint=state_file(resume, name, seed, "fusion"))
    return Trained(name=name, model=model.requires_grad_(False), data=bank, seed=seed, histories=histories)


def load(profile: str = "embedded", **_: Any) -> Trained:
    """Return the model that travels with the book."""
    return with_checkpoint(Trained(name=NAMES[profile], model=CnnLstm(len(VOCABULARY)), data=digits.load(BANKS[profile])))


def pairs(bank: Digits, n_pairs: int, seed: int, size: str = "page") -> tuple[Collages, Collages]:
    """Return the pairs to train on and those to choose the best epoch by."""
    held = 128 if size == "small" else VALIDATION
    return collages.build(bank, n_pairs, "train", seed), collages.build(bank, held, "validation", seed)


def new_model(tower: Tower, seed: int, pooling: str = "max", **options: Any) -> CnnLstm:
    """Return a model with this tower and fresh weights elsewhere; further options are those of :class:`CnnLstm`."""
    with seeded(seed):
        model = CnnLstm(len(VOCABULARY), pooling=pooling, **options)
    model.tower.load_state_dict(tower.state_dict())
    return model


def logits(model: CnnLstm, data: Collages | TensorBatches, without: str | None = None) -> Tensor:
    """Return the logits of all pairs, or of what :func:`look` saw of them, (N,); each collage is looked at once."""
    return predict(SentencesOnce(AfterTower(model), without), look(model, data) if isinstance(data, Collages) else data)[0]


def accuracy_by_kind(outputs: Tensor, data: Collages) -> dict[str, float]:
    """Return the share of right answers: ``"all"`` and for each of the 8 kinds."""
    return by_kind((np.asarray(outputs) > 0) == data.labels, [KINDS[kind] for kind in data.kind])


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    test = collages.build(trained.data, TEST, "test", trained.seed)
    bank = {"collages": "scikit-learn's 1,797 handwritten digits", "collages_mnist": "MNIST (LeCun et al. 1998)"}[trained.name]
    cells = digits.split(trained.data, seed=0)["test"]
    named = evaluate(trained.model.tower, NamedDigits(trained.data, cells, len(cells) // 4, seed=0, moved=False))
    return {"data": f"40,000 exactly balanced pairs of collage and sentence, digits from {bank}; held out: {TEST:,} pairs "
                    "of other digits",
            "accuracy": {"digits named": named, **accuracy_by_kind(logits(trained.model, test), test)}}


class SentencesOnce(nn.Module):
    """A model on what the tower sees, called with the numbers of sentences, each of which is read once.

    Parameters
    ----------
    model : crossexplain.models.two_towers.TwoTowerModel
        Called with ``seen`` and ``tokens``, such as :class:`crossexplain.models.cnn_lstm.AfterTower`.
    without : {"image", "text"}, optional
        Put zeros in place of the encoding of one modality.
    """

    tokens: Tensor

    def __init__(self, model: TwoTowerModel, without: str | None = None):
        super().__init__()
        require_one_of(without, ("image", "text", None), "without")
        self.model, self.without = model, without
        self.train(model.training)  # wrapping a model must not switch its dropout on
        self.register_buffer("tokens", collages.tokenize(SENTENCES), persistent=False)

    def forward(self, seen: Tensor, sentence: Tensor) -> Tensor:
        """Return the logits (N,) of what the tower saw, (N, 40), and sentences (N,)."""
        needed, number = sentence.unique(return_inverse=True)
        seen, read = self.model.see(seen), self.model.read(self.tokens[needed])[number]
        if self.without == "image":
            seen = torch.zeros_like(seen)
        if self.without == "text":
            read = torch.zeros_like(read)
        return self.model.match(seen, read)


def _move(images: Tensor) -> Tensor:
    """Shift by up to 2.5 pixels, turn by up to 0.2 rad and scale by up to an eighth, each image by itself."""
    n = len(images)
    angle, scale = 0.4 * torch.rand(n) - 0.2, 1 + 0.25 * (torch.rand(n) - 0.5)
    cosine, sine, shift = scale * angle.cos(), scale * angle.sin(), (torch.rand(n, 2) - 0.5) * 5 / 14
    matrix = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).reshape(n, 2, 3)
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


RECIPES = {"collages": Recipe("collages", train, load, card, profiles=True),
           "collages_mnist": Recipe("collages_mnist", partial(train, "full"), partial(load, "full"), card)}


__getattr__ = moved.names_of(__name__)
