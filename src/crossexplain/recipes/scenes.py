"""Chapters 5 and 6 on scenes: early fusion and two dual encoders, trained from nothing.

All three learn in three steps. The image tower first learns to name what stands where, as the tower of the collages learns to
name digits, and stays as it is from then on. All that is behind it, and all that reads, then learns by contrast, every picture
of a batch with every text of it: first phrases that say one or two things, then whole captions beside them. Early fusion, too,
learns its two vectors that way, and then the layers that fuse them (Li et al. 2021, "Align before Fuse").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from crossexplain.data import scenes, store
from crossexplain.data.photos import square
from crossexplain.data.scene_captions import Writer, foil
from crossexplain.data.scene_words import BACKDROPS, COLOUR_NAMES, GROUND_NAMES, KINDS, SIZE_NAMES, TEXTURE_NAMES, holds
from crossexplain.data.scenes import LENGTH, VOCABULARY, Pairs, Scenes, tokenize
from crossexplain.models import checkpoints, clip
from crossexplain.models.clip import Clip, ClipCNN, Contrast, sigmoid_loss
from crossexplain.models.fusion import Aligned, Fusion
from crossexplain.models.towers import ConvTower, EncoderTower, accuracy_at_best_threshold
from crossexplain.models.training import History, fit, predict
from crossexplain.models.two_towers import in_batches

NAMES = {"fusion": "scenes_fusion", "clip_vit": "scenes_clip_vit", "clip_cnn": "scenes_clip_cnn"}
TRAIN = 18_000  # pictures to train on; the first 6,000 are those of the book
STEPS = ("naming", "phrases", "captions", "fusing")
PLANS = {  # epochs and highest learning rate of each step; only early fusion fuses
    "fusion": ((8, 4e-3), (1, 1e-3), (4, 1e-3), (3, 1e-3)), "clip_cnn": ((8, 4e-3), (1, 1e-3), (6, 1e-3)),
    "clip_vit": ((14, 1.5e-3), (1, 1e-3), (6, 1e-3)),
}
TEST = 4000  # pairs of each kind
WHAT = KINDS + GROUND_NAMES + BACKDROPS  # what can stand at a place
PARTS = (len(WHAT), len(COLOUR_NAMES), len(TEXTURE_NAMES), len(SIZE_NAMES))


@dataclass(frozen=True)
class Trained:
    """A trained model and how it came about.

    Attributes
    ----------
    model : Fusion, Clip or ClipCNN
        In eval mode, frozen.
    data : Scenes
    card : dict
        Of the checkpoint; empty where the model was trained just now.
    naming, phrases, captions, fusing : History, optional
        Of the trainings; None where the model was loaded, or a step left out.
    """

    model: Fusion | Clip | ClipCNN
    data: Scenes
    card: dict = field(default_factory=dict)
    naming: History | None = None
    phrases: History | None = None
    captions: History | None = None
    fusing: History | None = None

    @property
    def seconds(self) -> float:
        """Time that the trainings took."""
        return sum(history.seconds for step in STEPS if (history := getattr(self, step)) is not None)

    @property
    def courses(self) -> dict[str, dict[str, list[float]]]:
        """``"loss"`` and ``"validation"`` score of each epoch, by step; of a model that was loaded, what its card says."""
        return self.card.get("courses") or {
            step: {"loss": history.train_loss, "validation": history.validation_score}
            for step in STEPS if (history := getattr(self, step)) is not None}


class Pictures:
    """Pictures drawn once and kept as bytes.

    Parameters
    ----------
    data : Scenes
    indices : sequence of int
        Which ones.
    """

    def __init__(self, data: Scenes, indices: Sequence[int]):
        self.place = {int(i): k for k, i in enumerate(indices)}
        self.pixels = torch.empty(len(indices), 3, data.side, data.side, dtype=torch.uint8)
        for first in range(0, len(indices), 256):
            part = data.images(np.asarray(indices[first : first + 256]))
            self.pixels[first : first + 256] = (part * 255).round_()

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        """Return some of them, by their numbers in the scenes; (n, 3, side, side), float32 from 0 to 1."""
        return self.pixels[[self.place[int(i)] for i in indices]].float().div_(255)


class Maps:
    """What the frozen part of a model says of pictures, kept as half-precision numbers: so each is looked at once.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    pictures : Pictures
        All of them; numbered alike.
    """

    def __init__(self, model: nn.Module, pictures: Pictures):
        self.place, numbers = pictures.place, list(pictures.place)
        device = next(model.parameters()).device
        model.eval()
        self.values = in_batches(lambda part: model.image_map(pictures[part].to(device)).half().cpu(), numbers, 128)

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        """Return some of them, by their numbers in the scenes; (n, ...), float32."""
        return self.values[[self.place[int(i)] for i in indices]].float()


# First step: what stands where?


def layout(data: Scenes, indices: Sequence[int], grid: int) -> Tensor:
    """Return what stands at each place of some pictures, (n, 4, grid, grid), int64.

    Parameters
    ----------
    data : Scenes
    indices : sequence of n int
    grid : int
        Places on a side.

    Returns
    -------
    Tensor
        Index into ``WHAT``; then colour, texture and size of the object whose box covers the place, the nearest one if there
        are several; -100 where there is none.
    """
    facts, middles = data.facts, (np.arange(grid) + 0.5) / grid * data.side
    out = np.full((len(indices), 4, grid, grid), -100)
    for cells, i in zip(out, indices):
        below = middles[:, None] > facts.horizon[i] * data.side
        cells[0] = np.where(below, len(KINDS) + facts.ground[i], len(KINDS) + len(GROUND_NAMES) + facts.backdrop[i])
        here = np.flatnonzero(facts.kind[i] >= 0)
        for box, slot in sorted(zip(data.boxes(i).tolist(), here), key=lambda pair: facts.y[i, pair[1]]):  # the nearest last
            rows, columns = ((middles >= low) & (middles < high) for low, high in zip(box[:2], box[2:]))
            said = [getattr(facts, name)[i, slot] for name in ("kind", "colour", "texture", "size")]
            cells[:, np.outer(rows, columns)] = np.array(said)[:, None]
    return torch.from_numpy(out)


class Named:
    """Pictures labelled with their layout.

    Parameters
    ----------
    pictures : Pictures
    indices : sequence of int
    labels : Tensor, shape (n, 4, grid, grid)
        From :func:`layout`.
    moved : bool
        Mirror half of the pictures, and move all of a batch sideways, and a little up or down; what leaves on one side comes
        in on the other.
    """

    def __init__(self, pictures: Pictures, indices: Sequence[int], labels: Tensor, moved: bool = True):
        self.pictures, self.indices, self.labels, self.moved = pictures, torch.as_tensor(indices), labels, moved

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return pictures and their layouts."""
        images, labels = self.pictures[self.indices[indices].tolist()], self.labels[indices]
        if self.moved:
            mirrored, cell = torch.rand(len(images)) < 0.5, images.shape[3] / labels.shape[3]
            images[mirrored], labels[mirrored] = images[mirrored].flip(3), labels[mirrored].flip(3)
            down, aside = int(torch.randint(-3, 4, ())), int(torch.randint(images.shape[3], ()))  # pixels
            images = images.roll((down, aside), (2, 3))
            labels = labels.roll(round(aside / cell), 3)
        return {"images": images}, labels


class Namer(nn.Module):
    """The image tower of a model, naming what it sees at each place.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
        What ``image_map`` of it uses is trained.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.image_map, self.grid = model.image_map, model.grid if isinstance(model, Clip) else None
        self.tower = model.clip.vision_model if isinstance(model, Clip) else model.image
        width = model.clip.config.vision_config.hidden_size if isinstance(model, Clip) else model.image.width
        self.head = nn.Conv2d(width, sum(PARTS), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 41, grid, grid): of ``WHAT``, then of colours, textures and sizes."""
        maps = self.image_map(images)
        if self.grid:  # patches, row by row, behind the class token
            maps = maps[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.head(maps)


def naming_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the mean cross-entropies; objects, which cover little, count as much as all that is behind them."""
    what, *more = logits.split(PARTS, dim=1)
    object_here = labels[:, 1] >= 0
    losses = nn.functional.cross_entropy(what, labels[:, 0], reduction="none")
    rest = [nn.functional.cross_entropy(part, labels[:, k + 1], ignore_index=-100) for k, part in enumerate(more)]
    return losses[object_here].mean() + losses[~object_here].mean() + torch.stack(rest).sum()


def naming_score(logits: Tensor, labels: Tensor) -> float:
    """Return the share of places with an object where kind, colour and texture are all named rightly."""
    object_here = labels[:, 1] >= 0
    named = [part.argmax(dim=1) == labels[:, k] for k, part in enumerate(logits.split(PARTS, dim=1)[:3])]
    return torch.stack(named).all(dim=0)[object_here].float().mean().item()


def name_things(model: nn.Module, data: Scenes, pictures: Pictures, *, epochs: int, lr: float, seed: int,
                progress: bool = True, checkpoint: Path | None = None) -> History:
    """Train the image tower of a model to name what stands where, in place.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    data : Scenes
    pictures : Pictures
        Those of training and validation.
    epochs, lr, seed, progress, checkpoint
        As for :func:`crossexplain.models.training.fit`.

    Returns
    -------
    History
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        namer = Namer(model)
    grid = model.grid if isinstance(model, Clip) else data.side // 8
    sets = [Named(pictures, which, layout(data, which, grid), moved)
            for which, moved in ((data.splits["train"], True), (data.splits["validation"][:400], False))]
    return fit(namer, *sets, epochs=epochs, lr=lr, seed=seed, batch_size=32, loss=naming_loss, score=naming_score,
               progress=progress, checkpoint=checkpoint, half=True)


# Second and third step: which text is true of which picture?


class Contrasts:
    """Batches to learn by contrast from: twins, captions that tell them apart, and which caption is true of which picture.

    For each pair of twins there is a caption that is true of the one only, and the same with one word changed, which is true
    of the other only; and of each picture one more caption and some phrases that say one or two things, some of them mixed up
    from several objects. All are written anew in every epoch.

    Parameters
    ----------
    data : Scenes
    maps : Maps
    twins : ndarray of int, shape (N, 2)
    phrases : (int, int)
        Of each picture, true ones and mixed ones.
    captions : bool
        False leaves the captions out, and has more phrases of each picture instead.
    ends : bool
        Put start- and end-of-text around captions.
    """

    def __init__(self, data: Scenes, maps: Maps, twins: np.ndarray, phrases: tuple[int, int] = (2, 1),
                 captions: bool = True, ends: bool = True):
        self.data, self.maps, self.twins, self.captions, self.ends = data, maps, twins, captions, ends
        self.phrases = phrases if captions else (2 * phrases[0], phrases[1])

    def __len__(self) -> int:
        return len(self.twins)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return maps (2n, ...) and captions (M, T) of n twins, and which are true of which, (2n, M)."""
        random = Random(int(torch.randint(2**62, ())))  # the caller's seed decides
        chosen = self.twins[indices.numpy()].ravel()
        captions: list[str] = []
        phrases: list[str] = []
        for one, other in chosen.reshape(-1, 2).tolist():
            writers = [Writer(self.data.facts[i], random) for i in (one, other)]
            phrases += [writer.phrase(mixed) for writer in writers for mixed, n in enumerate(self.phrases) for _ in range(n)]
            if self.captions:
                apart = foil(self.data.facts[one], self.data.facts[other], random)
                captions += [*(apart[:2] if apart else ()), *(writer.caption() for writer in writers)]
        truth = np.stack([holds(self.data.facts[chosen], text) for text in captions + phrases], axis=1)
        texts = [trim(tokenize(some, ends=self.ends)) for some in (captions, phrases) if some]
        return {"maps": self.maps[chosen], **dict(zip(("tokens", "more"), texts))}, torch.from_numpy(truth)


def freeze(model: nn.Module, pictures: Pictures) -> Maps:
    """Freeze what has learned to name things, and return what it says of pictures."""
    if isinstance(model, Clip):
        vision = model.clip.vision_model
        for part in (vision.embeddings, vision.pre_layrnorm, *vision.encoder.layers[: -model.tail]):
            part.requires_grad_(False)
    else:
        model.image.requires_grad_(False)
    return Maps(model, pictures)


class PairBatches:
    """Pairs for :func:`crossexplain.models.training.fit`, with pictures that were looked at before."""

    def __init__(self, pairs: Sequence[Pairs], maps: Maps, ends: bool = True):
        self.maps = maps
        self.image = np.concatenate([part.image for part in pairs])
        self.tokens = torch.cat([part.tokens(ends=ends) for part in pairs])
        self.labels = torch.from_numpy(np.concatenate([part.labels for part in pairs]))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and labels of some pairs."""
        return {"maps": self.maps[self.image[indices]], "tokens": trim(self.tokens[indices])}, self.labels[indices]


def trim(tokens: Tensor) -> Tensor:
    """Cut off the columns behind the longest caption: padding changes nothing, but takes time."""
    return tokens[:, : int((tokens != 0).sum(dim=1).max())]


# The models.


def new_model(name: str, seed: int = 0, side: int = scenes.SIDE) -> Fusion | Clip | ClipCNN:
    """Return a model with random weights.

    Parameters
    ----------
    name : {"fusion", "clip_vit", "clip_cnn"}
    seed : int
    side : int
        Of the pictures, in pixels.
    """
    _require_name(name)
    if name == "clip_vit":
        return clip.small_vit(len(VOCABULARY), LENGTH, side, seed=seed)
    if name == "clip_cnn":
        return clip.small_cnn(len(VOCABULARY), LENGTH, seed=seed)
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=256, max_position_embeddings=LENGTH, pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = BertModel._from_config(config, attn_implementation="eager")
        model = Fusion(ConvTower(), EncoderTower(text), dropout=0.0)
    model.image.to(memory_format=torch.channels_last)  # the faster layout on a CPU
    return model


def train(name: str, seed: int = 0, size: str = "page", progress: bool = True, data: Scenes | None = None,
          pictures: Pictures | None = None, plan: Sequence[tuple[int, float]] | None = None,
          keep: Path | None = None) -> Trained:
    """Train a model from nothing: name things, learn by contrast, choose where yes begins on validation pairs.

    Parameters
    ----------
    name : {"fusion", "clip_vit", "clip_cnn"}
    seed : int
        Of weights, captions and order; the scenes are the same for every seed.
    size : {"page", "small"}
        ``"small"`` is one epoch on a few pictures, to see that everything runs.
    data, pictures : Scenes and Pictures, optional
        That were loaded and drawn before; pictures of training and validation.
    plan : pairs of (int, float), optional
        Epochs and highest learning rate of each of ``STEPS``, the last for early fusion only; default that of ``PLANS``.
        No epochs leave a step out.
    keep : Path, optional
        Folder for what is written after each epoch, from which a training that was cut off goes on.

    Returns
    -------
    Trained
    """
    _require_name(name)
    data = data or scenes.load(sizes=(160, 40, 40) if size == "small" else (TRAIN, *scenes.SIZES[1:]))
    pictures = pictures or Pictures(data, np.concatenate([data.splits["train"], data.splits["validation"]]))
    plan = plan or [(1, rate) if size == "small" else (epochs, rate) for epochs, rate in PLANS[name]]
    model, done = new_model(name, seed, data.side), {}
    settings = {"seed": seed, "progress": progress}

    def kept(step: str) -> Path | None:
        return keep and Path(keep) / f"{NAMES[name]}_{seed}_{step}.pt"

    if plan[0][0]:
        done["naming"] = name_things(model, data, pictures, epochs=plan[0][0], lr=plan[0][1], checkpoint=kept("naming"),
                                     **settings)
    maps = freeze(model, pictures)
    pairs = [data.build("validation", 40 if size == "small" else 800, 0, kind) for kind in ("random", "foil")]
    held = PairBatches(pairs, maps, _ends(model))
    for step, (epochs, lr) in zip(STEPS[1:], plan[1:]):
        texts = Contrasts(data, maps, data.splits["train"].reshape(-1, 2), captions=step != "phrases", ends=_ends(model))
        if step == "fusing":
            model.begin_with_difference()
        learner = Aligned(model) if isinstance(model, Fusion) and step != "fusing" else model
        if epochs:
            done[step] = fit(Contrast(learner), texts, held, epochs=epochs, lr=lr, batch_size=12, loss=sigmoid_loss,
                             score=accuracy_at_best_threshold, checkpoint=kept(step), half=True, **settings)
    # Yes begins where it divides pairs of any two pictures; a foil, nearly true, is better told by comparison (:func:`ranked`).
    model.set_threshold(*predict(Contrast(model), PairBatches(pairs[:1], maps, _ends(model))))
    return Trained(model.requires_grad_(False).eval(), data, **done)


def load_or_train(name: str, seed: int = 0, retrain: bool = False, size: str = "page", progress: bool = True) -> Trained:
    """Return the model that travels with the book, or train it again.

    Parameters
    ----------
    name, seed, size, progress
        As for :func:`train`; the seed only counts when training.
    retrain : bool
        True trains.

    Returns
    -------
    Trained
    """
    if retrain:
        return train(name, seed, size, progress)
    model = new_model(name)
    card = checkpoints.load(NAMES[name], model)
    return Trained(model.requires_grad_(False), scenes.load(), card)


@torch.no_grad()
def logits(model: Fusion | Clip | ClipCNN, pairs: Pairs, pictures: Pictures | None = None) -> Tensor:
    """Return the logits of pairs, (N,); each picture is seen and each caption read once.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    pairs : Pairs
    pictures : Pictures, optional
        That were drawn before.
    """
    model.eval()
    device = next(model.parameters()).device
    images, back = np.unique(pairs.image, return_inverse=True)
    texts, again = np.unique(pairs.captions, return_inverse=True)
    tokens = tokenize(texts.tolist(), ends=_ends(model))
    drawn = pairs.scenes.images if pictures is None else pictures.__getitem__
    seen = torch.cat([model.see(drawn(images[i : i + 128]).to(device)) for i in range(0, len(images), 128)])
    said = torch.cat([model.read(trim(tokens[i : i + 512]).to(device)) for i in range(0, len(tokens), 512)])
    parts = zip(torch.from_numpy(back.reshape(-1)).split(1024), torch.from_numpy(again.reshape(-1)).split(1024))
    return torch.cat([model.match(seen[i], said[j]) for i, j in parts]).cpu()


def accuracy_by_kind(outputs: Tensor, pairs: Pairs) -> dict[str, float]:
    """Return the share of right answers: ``"all"``, and of foil pairs by what was changed."""
    right, kinds = (np.asarray(outputs) > 0) == pairs.labels, np.array(pairs.kinds)
    return {"all": float(right.mean())} | {
        str(kind): float(right[kinds == kind].mean()) for kind in dict.fromkeys(pairs.kinds) if kind != "random"
    }


def ranked(outputs: Tensor) -> np.ndarray:
    """Say of both pictures of each quadruple whether the true caption scores higher than the false one, (N / 4, 2).

    This is how foils are told from captions in the field (acc_r of Parcalabescu et al. 2022): unlike an accuracy it does not
    ask for one threshold that fits short captions and long ones.
    """
    quadruples = np.asarray(outputs).reshape(-1, 4)  # (A, a), (B, b), (A, b), (B, a)
    return quadruples[:, :2] > quadruples[:, 2:]


def ranking_by_kind(outputs: Tensor, pairs: Pairs) -> dict[str, float]:
    """Return the pairwise ranking accuracy, :func:`ranked`: ``"all"``, and of foil pairs by what was changed."""
    right, kinds = ranked(outputs).mean(axis=1), np.array(pairs.kinds)[::4]
    return {"all": float(right.mean())} | {
        str(kind): float(right[kinds == kind].mean()) for kind in dict.fromkeys(pairs.kinds) if kind != "random"
    }


def inputs(model: Fusion | Clip | ClipCNN, images: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
    """Return what a model of scenes is called with, for pictures (N, 3, H, W) and their captions."""
    return {"images": images, "tokens": trim(tokenize(captions, ends=_ends(model)))}


def encode(model: Fusion | Clip | ClipCNN, image: Tensor, sentence: str) -> tuple[dict[str, Tensor], Tensor, list[str], str]:
    """Make a reader's image and sentence what a model of scenes takes.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    image : Tensor, shape (3, H, W)
        RGB from 0 to 1.
    sentence : str
        Of the words of the scenes.

    Returns
    -------
    inputs : dict of str to Tensor
        A batch of one.
    shown : Tensor, shape (3, side, side)
        The image as the model sees it.
    words : list of str
    note : str
        What was done to the image; empty if nothing.

    Raises
    ------
    ValueError
        For a word that is not in the vocabulary (names the nearest), and a sentence that is too long.
    """
    tokens = tokenize(sentence, ends=_ends(model))
    image, note = square(image, scenes.SIDE)
    words = [VOCABULARY[token] for token in tokens[0].tolist() if token not in (0, 2, 3)]
    return {"images": image[None], "tokens": trim(tokens)}, image, words, note


def make(name: str, seed: int = 0, out: Path | None = None) -> Path:
    """Train a model and keep it as the checkpoint that travels with the book.

    Parameters
    ----------
    name : {"fusion", "clip_vit", "clip_cnn"}
    seed : int
    out : Path, optional
        Folder; default, that of the embedded checkpoints.

    Returns
    -------
    Path
        Of the weights.
    """
    trained = train(name, seed, keep=store.cache() / "training")
    found = {kind: tested(trained, kind) for kind in ("random", "foil")}
    card = {
        "data": f"{TRAIN:,} drawn scenes with captions and foils; held out: {TEST:,} pairs of each kind on "
                f"{scenes.SIZES[2]:,} other scenes",
        "seed": seed,
        "command": f"python -m crossexplain train {NAMES[name]} --seed {seed}",
        "accuracy": {"pairs": found["random"]["accuracy"]["all"], "foils": found["foil"]["ranking"]["all"],
                     "foils, one threshold": found["foil"]["accuracy"]["all"],
                     **{f"foils, {kind}": share for kind, share in found["foil"]["ranking"].items() if kind != "all"}},
        "seconds": round(trained.seconds, 1),
        "courses": {step: {what: [round(value, 4) for value in values] for what, values in course.items()}
                   for step, course in trained.courses.items()},
    }
    return checkpoints.save(trained.model, NAMES[name], card, folder=out)


make_fusion, make_clip_vit, make_clip_cnn = (partial(make, name) for name in ("fusion", "clip_vit", "clip_cnn"))


def tested(trained: Trained, kind: str, seed: int = 0, n: int = TEST) -> dict[str, dict[str, float]]:
    """Return ``"accuracy"`` and ``"ranking"`` of a model on held-out pairs of a kind, ``"random"`` or ``"foil"``."""
    pairs = trained.data.build("test", n, seed, kind)
    outputs = logits(trained.model, pairs)
    return {"accuracy": accuracy_by_kind(outputs, pairs), "ranking": ranking_by_kind(outputs, pairs)}


def _ends(model: nn.Module) -> bool:
    """CLIP's text tower is read at the end-of-text token; the encoder of early fusion needs none."""
    return not isinstance(model, Fusion)


def _require_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"model {name!r} came, expected one of {', '.join(map(repr, NAMES))}.")
