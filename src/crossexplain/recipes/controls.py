"""Small models that learn a control in seconds, on what a frozen tower sees: early fusion, or another head.

Twelve dual encoders travel with the project as ``"pure_shortcut"``: half were trained on balanced pairs, half on a shortcut.
"""

import copy
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from crossexplain import moved
from crossexplain.data import controls
from crossexplain.data.collages import LENGTH, VOCABULARY, Collages
from crossexplain.data.digits import Digits
from crossexplain.models.cnn_lstm import DIGITS, AfterTower, CnnLstm, Tower
from crossexplain.models.training import History, TensorBatches, accuracy, fit
from crossexplain.models.two_towers import TwoTowerModel
from crossexplain.models.weights import seeded
from crossexplain.recipes import Recipe, Trained, load_or_train, with_checkpoint
from crossexplain.recipes.collages import SentencesOnce, look, train_fusion

SPEAKS = 1 / 3  # share of the training pairs of "either" in which both modalities tell the label; if all did, one would do
WIDTH = 32  # of the vectors of the heads below
SHORTCUT = "pure_shortcut"  # name of the recipe
SHORTCUT_SHARES = {"pure": 0.0, "shortcut": 0.75}  # share of the training pairs of which the sentence gives the label away
OF_EACH, PAIRS = 6, 8000  # models of each kind, and pairs that each was trained on


class Head(TwoTowerModel):
    """What the small architectures share: how they read a sentence, and how they are called.

    Called with ``seen`` (N, 4, 10) and ``tokens`` (N, T) as an ``AfterTower`` is. Words and their places are read in no
    order; the vector of the masked word is 0 and stays 0. Subclasses name their ``architecture``.
    """

    architecture: str

    text_layer = "embedding"

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), WIDTH, padding_idx=0)
        nn.init.zeros_(self.embedding.weight[1].detach())
        self.place = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        self.word = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return a vector (N, T, WIDTH) and the weight (N, T, 1) of each word; weights of a sentence sum to 1."""
        real = (tokens != 0).float()[..., None]
        return self.word(self.embedding(tokens) + self.place[: tokens.shape[1]]), real / real.sum(1, keepdim=True).clamp(min=1)

    def read(self, tokens: Tensor) -> Tensor:
        """Return what is kept of a sentence, (N, ...)."""
        states, weight = self.states(tokens)
        return (states * weight).sum(dim=1)

    def forward(self, seen: Tensor, tokens: Tensor) -> Tensor:  # type: ignore[override]  # it takes other inputs by name
        """Return the logits, (N,)."""
        return super().forward(seen, tokens)


class CosineHead(Head):
    """The cosine of a vector of the picture and a vector of the sentence, scaled and shifted, as CLIP's."""

    architecture = "dual encoder"

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.LayerNorm(4 * DIGITS), *dense(4 * DIGITS, 2 * WIDTH, WIDTH))
        self.said = nn.Sequential(nn.LayerNorm(WIDTH), *dense(WIDTH, 2 * WIDTH, WIDTH))
        self.log_scale, self.shift = nn.Parameter(torch.tensor(math.log(10.0))), nn.Parameter(torch.zeros(()))

    def see(self, seen: Tensor) -> Tensor:
        """Return a vector of length 1, (N, WIDTH)."""
        return functional.normalize(self.seen(seen.flatten(1)), dim=1)

    def read(self, tokens: Tensor) -> Tensor:
        """Return a vector of length 1, (N, WIDTH)."""
        return functional.normalize(self.said(super().read(tokens)), dim=1)

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the scaled cosine, (N,)."""
        return self.log_scale.exp() * (seen * read).sum(dim=1) + self.shift


@dataclass(frozen=True)
class Prepared:
    """The pairs of a control as the tower sees them, for models of any architecture.

    Attributes
    ----------
    kind : str
    p : float
        Share of the shortcut.
    test : Collages
    looked : dict of str to TensorBatches
        Inputs ``seen`` (N, 40) and ``sentence`` (N,) of ``"train"``, ``"validation"`` and ``"test"``.
    """

    kind: str
    p: float
    test: Collages
    looked: dict[str, TensorBatches]

    @property
    def seen(self) -> Tensor:
        """What the tower sees in the test pictures, (N, 4, 10)."""
        return self.looked["test"].inputs["seen"].reshape(-1, 4, DIGITS)


@dataclass(frozen=True)
class Control:
    """A trained control.

    Attributes
    ----------
    kind : str
    answer : str
        What its predictions rest on.
    whole : CnnLstm or None
        The model of pictures and tokens; only for early fusion.
    fusion : AfterTower or Head
        The same model on what the tower sees, which is faster.
    test : Collages
        Held out; of "either", pairs in which both speak.
    seen : Tensor, shape (N, 4, 10)
        What the tower sees in the test pictures.
    accuracy : float
        On the test pairs. The additive labels are drawn, so the best possible is about 0.88.
    history : History
        Of training the fusion.
    architecture : str
    """

    kind: str
    answer: str
    whole: CnnLstm | None
    fusion: nn.Module
    test: Collages
    seen: Tensor
    accuracy: float
    history: History
    architecture: str = "early fusion"


def prepare(kind: str, digits: Digits, tower: Tower, seed: int, *, pairs: int = 2000, held_out: int = 256,
            p: float = 1.0) -> Prepared:
    """Draw the pairs of a control and send their pictures through the tower once; parameters as for :func:`train`."""
    share = SPEAKS if kind == "either" else p  # in validation too, or a model that reads one modality would look best
    shares = {"train": share, "validation": share, "test": p}
    sets = {split: controls.build(kind, digits, pairs if split == "train" else held_out, split, seed, of)
            for split, of in shares.items()}
    model = CnnLstm(len(VOCABULARY))
    model.tower = copy.deepcopy(tower).to(memory_format=torch.channels_last)  # four times as fast
    return Prepared(kind, p, sets["test"], {split: look(model, collages) for split, collages in sets.items()})


def train(kind: str, digits: Digits, tower: Tower, seed: int, *, head: type[Head] | None = None, pairs: int = 2000,
          held_out: int = 256, epochs: int | None = None, width: int = 64, p: float = 1.0,
          prepared: Prepared | None = None) -> Control:
    """Train one control.

    Parameters
    ----------
    kind : str
        See :func:`crossexplain.data.controls.build`.
    digits : Digits
    tower : Tower
        Trained to name digits; stays as it is.
    seed : int
        Of data, weights and order.
    head : type of Head, optional
        The model on what the tower sees; default, early fusion.
    pairs, held_out : int
        Training pairs; validation and test pairs each.
    epochs, width : int
        Of the model; by default 24 epochs of early fusion and 12 of a head, and the width is early fusion's.
    p : float
        Share of the shortcut.
    prepared : Prepared, optional
        What :func:`prepare` returned for the same control; the pairs of one seed serve all architectures.

    Returns
    -------
    Control
    """
    prepared = prepared or prepare(kind, digits, tower, seed, pairs=pairs, held_out=held_out, p=p)
    looked, whole = prepared.looked, None
    with seeded(seed):
        fusion: TwoTowerModel = head() if head else CnnLstm(len(VOCABULARY), width=width)
    if isinstance(fusion, CnnLstm):
        whole, fusion.tower = fusion, tower.requires_grad_(False).eval()
        history = train_fusion(whole, looked["train"], looked["validation"], seed=seed, epochs=epochs or 24, progress=False)
        fusion = AfterTower(whole)
    else:
        history = fit(SentencesOnce(fusion), looked["train"], looked["validation"], epochs=epochs or 12, lr=5e-3,
                      batch_size=100, seed=seed, progress=False)
    fusion.requires_grad_(False).eval()
    with torch.no_grad():
        right = accuracy(fusion(prepared.seen, prepared.test.tokens()), looked["test"].labels)
    return Control(prepared.kind, controls.ANSWERS[prepared.kind], whole, fusion, prepared.test, prepared.seen, right,
                   history, head.architecture if head else "early fusion")


def train_pairs(seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
                collages: Trained | None = None) -> Trained:
    """Train dual encoders on balanced pairs, and on pairs of which the sentence often gives the label away.

    Parameters
    ----------
    seed : int
        Of the first of each kind; the others have the seeds that follow.
    size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`; ``"small"`` trains one of each kind. It is too short to be resumed.
    collages : Trained, optional
        A model of collages whose tower is used; default, the one that travels with the book.

    Returns
    -------
    Trained
        ``model`` is a ModuleDict with the names ``"pure-0"``, ``"shortcut-0"`` and so on; ``data`` is the accuracy of each on
        held-out pairs like those that it was trained on.
    """
    collages, small = collages or load_or_train("collages", progress=False), size == "small"
    controls: dict[str, Control] = {}
    for number in tqdm(range(1 if small else OF_EACH), desc="one of each", disable=not progress):
        for kind, p in SHORTCUT_SHARES.items():
            controls[f"{kind}-{number}"] = train(
                "shortcut", collages.data, collages.model.tower, seed + number, head=CosineHead, p=p,
                pairs=400 if small else PAIRS, epochs=1 if small else None)
    models = nn.ModuleDict({name: control.fusion for name, control in controls.items()}).requires_grad_(False).eval()
    return Trained(name=SHORTCUT, model=models, data={name: control.accuracy for name, control in controls.items()}, seed=seed,
                   histories={name: control.history for name, control in controls.items()})


def load_pairs(**_: Any) -> Trained:
    """Return the dual encoders that travel with the book."""
    models = {f"{kind}-{number}": CosineHead() for kind in SHORTCUT_SHARES for number in range(OF_EACH)}
    return with_checkpoint(Trained(name=SHORTCUT, model=nn.ModuleDict(models), data={}))


def shortcut_pairs(trained: Trained) -> dict[str, list[CosineHead]]:
    """Return the ``"pure"`` models of the recipe ``"pure_shortcut"`` and those that were taught a ``"shortcut"``."""
    return {kind: [model for name, model in trained.model.items() if name.startswith(kind)] for kind in SHORTCUT_SHARES}


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    share = SHORTCUT_SHARES["shortcut"]
    return {"data": f"{PAIRS:,} collages with sentences for each of {2 * OF_EACH} dual encoders: {OF_EACH} with balanced "
                    f"pairs, {OF_EACH} with pairs of which the sentence gives {share:.0%} away; held out: 256 of the same kind "
                    "each",
            "accuracy": {kind: statistics.fmean(right for name, right in trained.data.items() if name.startswith(kind))
                         for kind in SHORTCUT_SHARES}}


def dense(inner: int, hidden: int, outer: int) -> list[nn.Module]:
    """Return three linear layers with a ReLU after each but the last."""
    return [nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outer)]


RECIPES = {SHORTCUT: Recipe(SHORTCUT, train_pairs, load_pairs, card)}


__getattr__ = moved.names_of(__name__)
