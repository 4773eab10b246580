"""Chapters 5 and 6 on scenes: early fusion and two dual encoders, trained from nothing.

All three learn in three steps. The image tower first learns to name what stands where, as the tower of the collages learns to
name digits, and is frozen from then on. The layers after it and the text tower then learn by contrast, every picture of a batch
with every text of it: first phrases of one or two facts, then also whole captions. Early fusion, too, learns its two vectors in
this way, and then the layers that fuse them (Li et al. 2021, "Align before Fuse").

``data`` of a trained model are the :class:`~crossexplain.data.scenes.Scenes`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from crossexplain import moved
from crossexplain.checks import require_one_of
from crossexplain.data import scenes
from crossexplain.data.scenes import LENGTH, VOCABULARY, Pairs, Scenes, tokenize
from crossexplain.models import clip
from crossexplain.models.clip import Clip, ClipCNN, Contrast, sigmoid_loss
from crossexplain.models.fusion import Aligned, Fusion
from crossexplain.models.towers import ConvTower, EncoderTower, accuracy_at_best_threshold
from crossexplain.models.training import History, fit, predict
from crossexplain.models.two_towers import TwoTowerModel, in_batches, logits_of_pairs
from crossexplain.models.weights import seeded
from crossexplain.recipes import Recipe, Trained, by_kind, state_file, with_checkpoint
from crossexplain.recipes.scene_batches import PARTS, Contrasts, Maps, Named, Pictures, layout, pair_batches, trim

NAMES = ("fusion", "clip_vit", "clip_cnn")
TRAIN = 18_000  # pictures to train on; the first 6,000 are those of the book
STEPS = ("naming", "phrases", "captions", "fusing")
PLANS = {  # epochs and highest learning rate of each of the steps; only early fusion has the last one
    "fusion": ((8, 4e-3), (1, 1e-3), (4, 1e-3), (3, 1e-3)), "clip_cnn": ((8, 4e-3), (1, 1e-3), (6, 1e-3)),
    "clip_vit": ((14, 1.5e-3), (1, 1e-3), (6, 1e-3)),
}
TEST = 4000  # pairs of each kind


def new_model(name: str, seed: int = 0, side: int = scenes.SIDE) -> Fusion | Clip | ClipCNN:
    """Return a model with random weights.

    Parameters
    ----------
    name : {"fusion", "clip_vit", "clip_cnn"}
    seed : int
    side : int
        Of the pictures, in pixels.
    """
    require_one_of(name, NAMES, "model")
    if name == "clip_vit":
        return clip.small_vit(len(VOCABULARY), LENGTH, side, seed=seed)
    if name == "clip_cnn":
        return clip.small_cnn(len(VOCABULARY), LENGTH, seed=seed)
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=256, max_position_embeddings=LENGTH, pad_token_id=0)
    with seeded(seed):
        text = BertModel._from_config(config, attn_implementation="eager")
        model = Fusion(ConvTower(), EncoderTower(text), dropout=0.0)
    model.image.to(memory_format=torch.channels_last)  # the faster layout on a CPU
    return model


class Namer(nn.Module):
    """The image tower of a model with a layer that names what stands at each place.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
        The part of it that ``image_map`` uses is trained.
    """

    def __init__(self, model: Any):
        super().__init__()
        patches = isinstance(model, Clip)
        self.image_map, self.grid = model.image_map, model.grid if patches else None
        self.tower = model.clip.vision_model if patches else model.image
        width = model.clip.config.vision_config.hidden_size if patches else model.image.width
        self.head = nn.Conv2d(width, sum(PARTS), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 41, grid, grid): of ``WHAT``, then of colours, textures and sizes."""
        maps = self.image_map(images)
        if self.grid:  # patches, row by row, after the class token
            maps = maps[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        logits: Tensor = self.head(maps)
        return logits


def naming_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the mean cross-entropies; objects, which cover little, count as much as the background."""
    what, *more = logits.split(PARTS, dim=1)
    object_here = labels[:, 1] >= 0
    losses = nn.functional.cross_entropy(what, labels[:, 0], reduction="none")
    rest = [nn.functional.cross_entropy(part, labels[:, k + 1], ignore_index=-100) for k, part in enumerate(more)]
    return losses[object_here].mean() + losses[~object_here].mean() + torch.stack(rest).sum()


def naming_score(logits: Tensor, labels: Tensor) -> float:
    """Return the share of places with an object whose kind, colour and texture are all named correctly."""
    object_here = labels[:, 1] >= 0
    named = [part.argmax(dim=1) == labels[:, k] for k, part in enumerate(logits.split(PARTS, dim=1)[:3])]
    return torch.stack(named).all(dim=0)[object_here].float().mean().item()


def name_things(model: TwoTowerModel, data: Scenes, pictures: Pictures, *, epochs: int, lr: float, seed: int,
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
    with seeded(seed):
        namer = Namer(model)
    grid = model.grid if isinstance(model, Clip) else data.side // 8
    sets = [Named(pictures, which, layout(data, which, grid), moved)
            for which, moved in ((data.splits["train"], True), (data.splits["validation"][:400], False))]
    return fit(namer, *sets, epochs=epochs, lr=lr, seed=seed, batch_size=32, loss=naming_loss, score=naming_score,
               progress=progress, checkpoint=checkpoint, half=True)


def freeze(model: TwoTowerModel, pictures: Pictures) -> Maps:
    """Freeze the part that has learned to name things, and return its maps of pictures."""
    if isinstance(model, Clip):
        vision = model.clip.vision_model
        for part in (vision.embeddings, vision.pre_layrnorm, *vision.encoder.layers[: -model.tail]):
            part.requires_grad_(False)
    else:
        model.image.requires_grad_(False)
    return Maps(model, pictures)


def train(name: str, seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None, *,
          data: Scenes | None = None, pictures: Pictures | None = None,
          plan: Sequence[tuple[int, float]] | None = None) -> Trained:
    """Train a model from nothing: name things, learn by contrast, choose where yes begins on validation pairs.

    Parameters
    ----------
    name : {"fusion", "clip_vit", "clip_cnn"}
    seed : int
        Of weights, captions and order; the scenes are the same for every seed.
    size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    data, pictures : Scenes and Pictures, optional
        Loaded and drawn before; pictures of training and validation.
    plan : pairs of (int, float), optional
        Epochs and highest learning rate of each of ``STEPS``, the last for early fusion only; default that of ``PLANS``.
        0 epochs leave a step out.

    Returns
    -------
    Trained
    """
    require_one_of(name, NAMES, "model")
    small = size == "small"
    data = data or scenes.load(sizes=(160, 40, 40) if small else (TRAIN, *scenes.SIZES[1:]))
    pictures = pictures or Pictures(data, np.concatenate([data.splits["train"], data.splits["validation"]]))
    steps = dict(zip(STEPS, plan or [(1, rate) if small else (epochs, rate) for epochs, rate in PLANS[name]]))
    model: Any = new_model(name, seed, data.side)
    histories, settings = {}, dict[str, Any](seed=seed, progress=progress)
    epochs, lr = steps.pop("naming")
    if epochs:
        histories["naming"] = name_things(model, data, pictures, epochs=epochs, lr=lr, **settings,
                                          checkpoint=state_file(resume, f"scenes_{name}", seed, "naming"))
    maps, ends, twins = freeze(model, pictures), _ends(model), data.splits["train"].reshape(-1, 2)
    pairs = [data.build("validation", 40 if small else 800, 0, kind) for kind in ("random", "foil")]
    held_out = pair_batches(pairs, maps, ends)
    for step, (epochs, lr) in steps.items():
        if step == "fusing":
            model.begin_with_difference()
        learner = Aligned(model) if isinstance(model, Fusion) and step != "fusing" else model
        if epochs:
            texts = Contrasts(data, maps, twins, captions=step != "phrases", ends=ends)
            histories[step] = fit(Contrast(learner), texts, held_out, epochs=epochs, lr=lr, batch_size=12, loss=sigmoid_loss,
                                  score=accuracy_at_best_threshold, half=True, **settings,
                                  checkpoint=state_file(resume, f"scenes_{name}", seed, step))
    # Yes begins where it separates pairs of any two pictures best; a foil, which is nearly true, is better told by comparison
    # (:func:`ranked`).
    model.set_threshold(*predict(Contrast(model), pair_batches(pairs[:1], maps, ends)))
    return Trained(name=f"scenes_{name}", model=model.requires_grad_(False).eval(), data=data, seed=seed, histories=histories)


def load(name: str, **_: Any) -> Trained:
    """Return the model that travels with the book."""
    return with_checkpoint(Trained(name=f"scenes_{name}", model=new_model(name), data=scenes.load()))


def logits(model: TwoTowerModel, pairs: Pairs, pictures: Pictures | None = None) -> Tensor:
    """Return the logits of pairs, (N,); each picture is seen and each caption read once.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    pairs : Pairs
    pictures : Pictures, optional
        That were drawn before.
    """
    model.eval()
    device, drawn = next(model.parameters()).device, pairs.scenes.images if pictures is None else pictures.__getitem__

    def read(captions: np.ndarray) -> Tensor:
        tokens = tokenize(captions.tolist(), ends=_ends(model))
        return in_batches(lambda part: model.read(trim(part).to(device)), tokens, 512)

    return logits_of_pairs(model, pairs.image, pairs.captions, read=read,
                           see=lambda images: in_batches(lambda part: model.see(drawn(part).to(device)), images, 128))


def ranked(outputs: Tensor) -> np.ndarray:
    """Return for both pictures of each quadruple whether the true caption scores higher than the false one, (N / 4, 2).

    This is the usual score of telling captions from foils (acc_r of Parcalabescu et al. 2022): unlike an accuracy it does not
    need one threshold that fits short captions and long ones.
    """
    quadruples = np.asarray(outputs).reshape(-1, 4)  # (A, a), (B, b), (A, b), (B, a)
    return quadruples[:, :2] > quadruples[:, 2:]


def inputs(model: Fusion | Clip | ClipCNN, images: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
    """Return the inputs of a model of scenes, for pictures (N, 3, H, W) and their captions."""
    return {"images": images, "tokens": trim(tokenize(captions, ends=_ends(model)))}


def tested(trained: Trained, kind: str, seed: int = 0, n: int = TEST) -> dict[str, dict[str, float]]:
    """Return ``"accuracy"`` and ``"ranking"`` of a model, by kind, on held-out pairs: ``"random"`` or ``"foil"``."""
    pairs = trained.data.build("test", n, seed, kind)
    outputs = logits(trained.model, pairs)
    return {"accuracy": by_kind((outputs.numpy() > 0) == pairs.labels, pairs.kinds),
            "ranking": by_kind(ranked(outputs).mean(axis=1), pairs.kinds[::4])}


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    random, foil = (tested(trained, kind, trained.seed) for kind in ("random", "foil"))
    return {"data": f"{TRAIN:,} drawn scenes with captions and foils; held out: {TEST:,} pairs of each kind on "
                    f"{scenes.SIZES[2]:,} other scenes",
            "accuracy": {"pairs": random["accuracy"]["all"], "foils": foil["ranking"].pop("all"),
                         "foils, one threshold": foil["accuracy"]["all"],
                         **{f"foils, {kind}": share for kind, share in foil["ranking"].items()}}}


def _ends(model: nn.Module) -> bool:
    """Return whether texts need start-of-text and end-of-text, which only CLIP reads."""
    return not isinstance(model, Fusion)


RECIPES = {f"scenes_{name}": Recipe(f"scenes_{name}", partial(train, name), partial(load, name), card) for name in NAMES}


__getattr__ = moved.names_of(__name__)
