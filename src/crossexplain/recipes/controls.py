"""Small models of several architectures that learn a control in seconds, on what a frozen tower sees.

Twelve of them travel with the project, :func:`suspects`: half were taught with balanced pairs, half with a shortcut.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from crossexplain.data import controls
from crossexplain.data.collages import LENGTH, SENTENCES, VOCABULARY, Collages, tokenize
from crossexplain.data.digits import Digits
from crossexplain.models import checkpoints
from crossexplain.models.cnn_lstm import DIGITS, AfterTower, CnnLstm, Tower
from crossexplain.models.training import TensorBatches, accuracy, fit
from crossexplain.models.two_towers import TwoTowerModel
from crossexplain.recipes.collages import Trained, load_or_train, look, train_fusion

SPEAKS = 1 / 3  # of the control "either", the share of training pairs in which both speak: else one alone could be learned
WIDTH = 32  # of the heads below
SUSPECTS, GIVEN_AWAY = "pure_shortcut", {"pure": 0.0, "shortcut": 0.75}  # share of pairs in which the sentence says the label
OF_EACH, TAUGHT = 6, 8000  # models of each kind, and pairs that each was taught with


class Head(TwoTowerModel):
    """What the small architectures have in common: how they read, and how they are called.

    Called with ``seen`` (N, 4, 10) and ``tokens`` (N, T) as an ``AfterTower`` is. The words are read as a bag that knows
    their places: the masked word's vector is 0 in the beginning and stays so.
    """

    text_layer = "embedding"

    def __init__(self):
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

    def forward(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits, (N,)."""
        return super().forward(seen, tokens)


class LateFusion(Head):
    """The sum of a logit of the picture and a logit of the sentence: nothing can interact."""

    def __init__(self):
        super().__init__()
        self.seen = nn.Sequential(nn.LayerNorm(4 * DIGITS), *_dense(4 * DIGITS, 2 * WIDTH, 1))
        self.said = nn.Sequential(nn.LayerNorm(WIDTH), *_dense(WIDTH, 2 * WIDTH, 1))

    def see(self, seen: Tensor) -> Tensor:
        """Return the picture's logit, (N, 1)."""
        return self.seen(seen.flatten(1))

    def read(self, tokens: Tensor) -> Tensor:
        """Return the sentence's logit, (N, 1)."""
        return self.said(super().read(tokens))

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return their sum, (N,)."""
        return (seen + read)[:, 0]


class CosineHead(Head):
    """The cosine of a vector of the picture and a vector of the sentence, scaled and shifted, as CLIP's."""

    def __init__(self):
        super().__init__()
        self.seen = nn.Sequential(nn.LayerNorm(4 * DIGITS), *_dense(4 * DIGITS, 2 * WIDTH, WIDTH))
        self.said = nn.Sequential(nn.LayerNorm(WIDTH), *_dense(WIDTH, 2 * WIDTH, WIDTH))
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


class CrossAttention(Head):
    """Every word looks at the four cells, and the mean of what the words found is read."""

    def __init__(self):
        super().__init__()
        self.cell, self.where = nn.Linear(DIGITS, WIDTH), nn.Parameter(0.1 * torch.randn(4, WIDTH))
        self.ask, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.found = nn.Sequential(*_dense(WIDTH, 2 * WIDTH, WIDTH))
        self.last = nn.Sequential(nn.LayerNorm(WIDTH), *_dense(WIDTH, 2 * WIDTH, 1))

    def see(self, seen: Tensor) -> Tensor:
        """Return a vector of each cell, (N, 4, WIDTH)."""
        return self.cell(seen) + self.where

    def read(self, tokens: Tensor) -> Tensor:
        """Return a vector of each word and its weight behind it, (N, T, WIDTH + 1)."""
        return torch.cat(self.states(tokens), dim=2)

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits, (N,)."""
        states, weight = read[..., :WIDTH], read[..., WIDTH:]
        looked = functional.scaled_dot_product_attention(self.ask(states), self.key(seen), self.value(seen))  # (N, T, WIDTH)
        states = self.norm(states + looked)
        return self.last(((states + self.found(states)) * weight).sum(dim=1))[:, 0]


ARCHITECTURES = {"early fusion": None, "late fusion": LateFusion, "dual encoder": CosineHead,
                 "cross-attention": CrossAttention}
UNLEARNABLE = {("both", "late fusion")}  # no sum of two logits is an exclusive or


@dataclass(frozen=True)
class Prepared:
    """The pairs of a control as the tower sees them, for all architectures.

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
        On pictures and tokens; of early fusion alone.
    fusion : AfterTower or Head
        The same on what the tower sees: faster.
    test : Collages
        Held out; of "either", pairs in which both speak.
    seen : Tensor, shape (N, 4, 10)
        What the tower sees in the test pictures.
    accuracy : float
        On the test pairs. The additive labels are drawn, so the best possible is about 0.88.
    seconds : float
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
    seconds: float
    architecture: str = "early fusion"


def prepare(kind: str, digits: Digits, tower: Tower, seed: int, *, pairs: int = 2000, held_out: int = 256,
            p: float = 1.0) -> Prepared:
    """Draw the pairs of a control and send the pictures through the tower once; parameters as for :func:`train`."""
    share = SPEAKS if kind == "either" else p  # in validation too: a model that reads one alone must not look best
    shares = {"train": share, "validation": share, "test": p}
    sets = {split: controls.build(kind, digits, pairs if split == "train" else held_out, split, seed, of)
            for split, of in shares.items()}
    eyes = CnnLstm(len(VOCABULARY))
    eyes.tower = copy.deepcopy(tower).to(memory_format=torch.channels_last)  # four times as fast
    return Prepared(kind, p, sets["test"], {split: look(eyes, collages) for split, collages in sets.items()})


def train(kind: str, digits: Digits, tower: Tower, seed: int, *, architecture: str = "early fusion", pairs: int = 2000,
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
    architecture : str
        One of ``ARCHITECTURES``.
    pairs, held_out : int
        Training pairs; validation and test pairs each.
    epochs, width : int
        Of the fusion; by default 24 epochs of early fusion and 12 of the others, and the width is early fusion's.
    p : float
        Share of the shortcut.
    prepared : Prepared, optional
        What :func:`prepare` gave for the same control: the pairs of one seed serve all architectures.

    Returns
    -------
    Control

    Raises
    ------
    ValueError
        For an unknown architecture, and one that cannot learn the control: what it rests on would not be known.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture {architecture!r} came, expected one of {', '.join(map(repr, ARCHITECTURES))}.")
    if (kind, architecture) in UNLEARNABLE:
        raise ValueError(f"{architecture} cannot learn the control {kind!r}: a sum of two logits is no exclusive or, and what "
                         "such a model rests on instead is not known; leave it out or choose another architecture.")
    prepared = prepared or prepare(kind, digits, tower, seed, pairs=pairs, held_out=held_out, p=p)
    looked, whole = prepared.looked, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if head := ARCHITECTURES[architecture]:
            fusion = head()
        else:
            whole = CnnLstm(len(VOCABULARY), width=width)
    if whole is None:
        history = fit(_Sentences(fusion), looked["train"], looked["validation"], epochs=epochs or 12, lr=5e-3,
                      batch_size=100, seed=seed, progress=False)
    else:
        whole.tower = tower.requires_grad_(False).eval()
        history = train_fusion(whole, looked["train"], looked["validation"], seed=seed, epochs=epochs or 24, progress=False)
        fusion = AfterTower(whole.requires_grad_(False).eval())
    fusion.requires_grad_(False).eval()
    with torch.no_grad():
        right = accuracy(fusion(prepared.seen, prepared.test.tokens()), looked["test"].labels)
    return Control(prepared.kind, controls.ANSWERS[prepared.kind], whole, fusion, prepared.test, prepared.seen, right,
                   history.seconds, architecture)


def teach_suspects(seed: int = 0, size: str = "page", progress: bool = True,
                   trained: Trained | None = None) -> tuple[nn.ModuleDict, dict[str, float], float]:
    """Train dual encoders on balanced pairs and on pairs in which the sentence often gives the label away.

    Parameters
    ----------
    seed : int
        Of the first of each kind; the others have those that follow.
    size : {"page", "small"}
        ``"small"`` trains one of each on a few pairs, to see that everything runs.
    progress : bool
    trained : crossexplain.recipes.collages.Trained, optional
        Whose tower looks at the collages; default the one that travels with the book.

    Returns
    -------
    models : ModuleDict
        ``"pure-0"``, ``"shortcut-0"`` and so on.
    accuracy : dict of str to float
        Mean of each kind on held-out pairs like those it was taught with.
    seconds : float
    """
    trained, few = trained or load_or_train(progress=False), size == "small"
    models, right, seconds = nn.ModuleDict(), {kind: [] for kind in GIVEN_AWAY}, 0.0
    for number in tqdm(range(1 if few else OF_EACH), desc="one of each", disable=not progress):
        for kind, p in GIVEN_AWAY.items():
            taught = train("shortcut", trained.digits, trained.model.tower, seed + number, architecture="dual encoder", p=p,
                           pairs=400 if few else TAUGHT, epochs=1 if few else None)
            models[f"{kind}-{number}"] = taught.fusion
            right[kind].append(taught.accuracy)
            seconds += taught.seconds
    return models, {kind: sum(of) / len(of) for kind, of in right.items()}, seconds


def suspects(seed: int = 0, retrain: bool = False, size: str = "page", progress: bool = True,
             trained: Trained | None = None) -> dict[str, list[CosineHead]]:
    """Return the dual encoders that travel with the book, ``"pure"`` ones and ones taught a ``"shortcut"``.

    Parameters
    ----------
    seed, size, progress, trained
        As for :func:`teach_suspects`; only used when training.
    retrain : bool
        True trains them again.

    Returns
    -------
    dict of str to list of CosineHead
        Frozen, in eval mode.
    """
    if retrain:
        models = teach_suspects(seed, size, progress, trained)[0]
    else:
        models = nn.ModuleDict({f"{kind}-{number}": CosineHead() for kind in GIVEN_AWAY for number in range(OF_EACH)})
        checkpoints.load(SUSPECTS, models)
    models.requires_grad_(False).eval()
    return {kind: [model for name, model in models.items() if name.startswith(kind)] for kind in GIVEN_AWAY}


def make_suspects(seed: int = 0, out: Path | None = None) -> Path:
    """Train the suspects and keep them as one checkpoint that travels with the book.

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
    models, right, seconds = teach_suspects(seed)
    card = {
        "data": f"{TAUGHT:,} collages with sentences for each of {2 * OF_EACH} dual encoders: {OF_EACH} with balanced pairs, "
                f"{OF_EACH} with pairs of which the sentence gives {GIVEN_AWAY['shortcut']:.0%} away; held out: 256 of the "
                "same kind each",
        "seed": seed,
        "command": f"python -m crossexplain train {SUSPECTS} --seed {seed}",
        "accuracy": right,
        "seconds": round(seconds, 1),
    }
    return checkpoints.save(models, SUSPECTS, card, folder=out)


class _Sentences(nn.Module):
    """A head that is given the number of each sentence, and reads each that occurs once."""

    def __init__(self, head: Head):
        super().__init__()
        self.head = head
        self.register_buffer("tokens", tokenize(SENTENCES), persistent=False)

    def forward(self, seen: Tensor, sentence: Tensor) -> Tensor:
        needed, back = sentence.unique(return_inverse=True)
        return self.head.match(self.head.see(seen.reshape(-1, 4, DIGITS)), self.head.read(self.tokens[needed])[back])


def _dense(inner: int, hidden: int, outer: int) -> list[nn.Module]:
    return [nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outer)]
