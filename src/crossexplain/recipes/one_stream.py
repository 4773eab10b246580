"""Chapter 8 on scenes: words and patches in one sequence, trained from nothing but the frozen image tower of early fusion.

As ViLT was trained: first to fill in words that are hidden or wrong, from the picture and the other words, then to tell texts
that are true of a picture from texts that are not; phrases first, then also whole captions.

``data`` of a trained model are the :class:`~crossexplain.data.scenes.Scenes`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.data import scenes
from crossexplain.data.scenes import LENGTH, VOCABULARY, Pairs, Scenes, tokenize
from crossexplain.models import one_stream
from crossexplain.models.one_stream import OneStream
from crossexplain.models.training import TensorBatches, binary_loss, fit
from crossexplain.models.weights import seeded
from crossexplain.recipes import Recipe, Trained, by_kind, load_or_train, state_file, with_checkpoint
from crossexplain.recipes.scene_batches import Contrasts, Judged, Maps, Pictures, trim
from crossexplain.recipes.scenes import TEST, ranked

NAME = "scenes_one_stream"
TRAIN = 18_000  # pictures to train on; the first 6,000 are those of the book
PLAN = {"words": (1, 1e-3), "phrases": (1, 1e-3), "captions": (3, 1e-3)}  # epochs and highest learning rate of each step
TWINS = 8  # of a batch: about 80 texts with two pictures each
MASK = VOCABULARY.index("[MASK]")
FIRST = 4  # tokens below it are padding, mask, start and end
HIDDEN, WRONG, KEPT = 0.15, 0.18, 0.07  # shares of the words that are to be filled in, by what stands in their place


class Filler(nn.Module):
    """The model with a layer that names the word at each place; only used to train the layers below.

    Parameters
    ----------
    model : OneStream
    """

    def __init__(self, model: OneStream):
        super().__init__()
        self.model, self.head = model, nn.Linear(model.head.in_features, len(VOCABULARY))

    def forward(self, maps: Tensor, picture: Tensor, tokens: Tensor) -> Tensor:
        """Return logits of the words at each place, (M, V, T)."""
        logits: Tensor = self.head(self.model.states(maps[picture], tokens)[:, : tokens.shape[1]]).transpose(1, 2)
        return logits


class Gaps:
    """True texts in which some words are hidden or replaced by words of other texts, and which words these were.

    A word that is wrong has to be noticed, which is half of what tells a true text from a false one.

    Parameters
    ----------
    texts : Judged
        True ones only.
    """

    def __init__(self, texts: Judged):
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the inputs of :class:`Filler`, and the words (M, T), -100 where none is asked for."""
        given, _ = self.texts.batch(indices)
        tokens, chance = given["tokens"], torch.rand(given["tokens"].shape)
        words = tokens[tokens >= FIRST]
        others = words[torch.randint(len(words), tokens.shape)]
        asked = (tokens >= FIRST) & (chance < HIDDEN + WRONG + KEPT)
        changed = tokens.where(~(asked & (chance < HIDDEN + WRONG)), others)
        changed = changed.where(~(asked & (chance < HIDDEN)), torch.full_like(tokens, MASK))
        return given | {"tokens": changed}, tokens.where(asked, torch.full_like(tokens, -100))


class Judge(nn.Module):
    """The model as it is trained and tested on maps that were computed before.

    Parameters
    ----------
    model : OneStream
    """

    def __init__(self, model: OneStream):
        super().__init__()
        self.model = model

    def forward(self, maps: Tensor, tokens: Tensor, picture: Tensor | None = None) -> Tensor:
        """Return the logits of the pairs, (P,); without ``picture`` each text belongs to the map of its number."""
        return self.model.match(maps if picture is None else maps[picture], tokens)


def new_model(seed: int = 0) -> OneStream:
    """Return a model with random weights, but for the image tower, which has learned to name what stands where."""
    model = one_stream.small(len(VOCABULARY), LENGTH + 2, scenes.SIDE, seed=seed)
    model.image.load_state_dict(load_or_train("scenes_fusion").model.image.state_dict())
    model.image.requires_grad_(False)
    return model


def train(seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None, *,
          data: Scenes | None = None, plan: dict[str, tuple[int, float]] | None = None) -> Trained:
    """Train a model: fill in words, judge phrases, judge captions.

    Parameters
    ----------
    seed, size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    data : Scenes, optional
    plan : dict of str to (int, float), optional
        Epochs and highest learning rate of each step; default ``PLAN``, 0 epochs leave a step out.

    Returns
    -------
    Trained
    """
    small = size == "small"
    data = data or scenes.load(sizes=(64, 20, 20) if small else (TRAIN, *scenes.SIZES[1:]))
    plan = plan or {step: (1 if small else epochs, rate) for step, (epochs, rate) in PLAN.items()}
    model, histories = new_model(seed), {}
    maps = Maps(model, Pictures(data, np.concatenate([data.splits["train"], data.splits["validation"]])))
    twins, held_out = data.splits["train"].reshape(-1, 2), held_out_pairs(data, maps, 8 if small else 800)
    for step, (epochs, lr) in plan.items():
        texts = Judged(Contrasts(data, maps, twins, captions=step != "phrases"), both=step != "words")
        with seeded(seed):
            learner = Filler(model) if step == "words" else Judge(model)
        loss = nn.functional.cross_entropy if step == "words" else binary_loss
        if epochs:
            histories[step] = fit(learner, Gaps(texts) if step == "words" else texts, None if step == "words" else held_out,
                                  epochs=epochs, lr=lr, seed=seed, batch_size=TWINS, progress=progress, half=True, loss=loss,
                                  checkpoint=state_file(resume, NAME, seed, step))
    return Trained(name=NAME, model=model.requires_grad_(False).eval(), data=data, seed=seed, histories=histories)


def load(**_: Any) -> Trained:
    """Return the model that travels with the book."""
    return with_checkpoint(Trained(name=NAME, model=one_stream.small(len(VOCABULARY), LENGTH + 2), data=scenes.load()))


def held_out_pairs(data: Scenes, maps: Maps, n: int) -> TensorBatches:
    """Return validation pairs, random ones and foils, with their maps, for :func:`crossexplain.models.training.fit`."""
    pairs = [data.build("validation", n, 0, kind) for kind in ("random", "foil")]
    tokens = trim(torch.cat([part.tokens(ends=True) for part in pairs]))
    image, labels = (np.concatenate([getattr(part, name) for part in pairs]) for name in ("image", "labels"))
    return TensorBatches({"maps": maps[image], "tokens": tokens}, torch.from_numpy(labels))


def inputs(images: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
    """Return the inputs of the model, for pictures (N, 3, H, W) and their captions."""
    return {"images": images, "tokens": trim(tokenize(captions, ends=True))}


def logits(model: OneStream, pairs: Pairs) -> Tensor:
    """Return the logits of pairs, (N,); each picture is looked at once."""
    pictures = np.unique(pairs.image)
    maps = Maps(model, Pictures(pairs.scenes, pictures))
    tokens = trim(pairs.tokens(ends=True))
    parts = torch.arange(len(pairs)).split(200)
    with torch.no_grad():
        return torch.cat([model.match(maps[pairs.image[part]], tokens[part]) for part in parts])


def tested(outputs: Tensor, pairs: Pairs) -> dict[str, dict[str, float]]:
    """Return ``"accuracy"`` and ``"ranking"`` of logits of pairs, by kind."""
    return {"accuracy": by_kind((outputs.numpy() > 0) == pairs.labels, pairs.kinds),
            "ranking": by_kind(ranked(outputs).mean(axis=1), pairs.kinds[::4])}


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    pairs = {kind: trained.data.build("test", TEST, trained.seed, kind) for kind in ("random", "foil")}
    random, foil = (tested(logits(trained.model, one), one) for one in pairs.values())
    return described(random, foil)


def described(random: dict[str, dict[str, float]], foil: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return data and accuracy in the words of a card."""
    return {"data": f"{TRAIN:,} drawn scenes with captions and foils; held out: {TEST:,} pairs of each kind on "
                    f"{scenes.SIZES[2]:,} other scenes",
            "accuracy": {"pairs": random["accuracy"]["all"], "foils": foil["ranking"].pop("all"),
                         "foils, one threshold": foil["accuracy"]["all"],
                         **{f"foils, {kind}": share for kind, share in foil["ranking"].items()}}}


RECIPES = {NAME: Recipe(NAME, train, load, card)}
