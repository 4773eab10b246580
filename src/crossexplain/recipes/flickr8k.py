"""Chapters 5 and 6 on photographs: early fusion and a dual encoder on Flickr8k.

Two frozen towers, an ImageNet network and a BERT, encode each photograph and each caption once. The layers between and after
the towers are trained on these encodings by contrast: which of the captions of a batch was written for this photograph? Early
fusion learns its two vectors in this way, then the layers that fuse them. The towers of the paper, VGG and bert-base, are
chosen by name.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain import moved
from crossexplain.checks import require_one_of
from crossexplain.data import store
from crossexplain.data.flickr8k import Flickr8k, Pairs
from crossexplain.models import checkpoints
from crossexplain.models.clip import ClipCNN, Contrast, softmax_loss
from crossexplain.models.fusion import Aligned, Fusion
from crossexplain.models.towers import (
    FrozenMapPooling,
    GivenMaps,
    GivenStates,
    ImageNetTower,
    accuracy_at_best_threshold,
)
from crossexplain.models.training import fit, predict
from crossexplain.models.two_towers import JoinedTowers, in_batches, logits_of_pairs
from crossexplain.models.weights import WeightsError, seeded
from crossexplain.recipes import Recipe, Trained, keep, state_file, with_checkpoint
from crossexplain.recipes.encodings import POOLING, TOWERS, Encoded, encode

NAMES = ("fusion", "clip_cnn")
SETTINGS = {  # chosen on the validation split: sizes, and epochs and highest learning rate of each step
    "fusion": {"width": 256, "dropout": 0.3, "hidden": 1024, "contrast": (15, 1e-3), "fusing": (5, 5e-4)},
    "clip_cnn": {"width": 512, "dropout": 0.5, "hidden": 2048, "contrast": (30, 2e-3), "fusing": None},
}
STEPS = ("contrast", "fusing")
BATCH = {"contrast": 500, "fusing": 48}  # photographs, compared with all captions of all of them, and with one of each
LIMIT = 40_000_000  # bytes of a head
SHAPE = ("width", "dropout", "hidden")


def new_model(name: str, encoded: Encoded, seed: int = 0, **settings) -> Fusion | ClipCNN:
    """Return a head with random weights, between towers that are given encodings; :meth:`Encoded.whole` adds the real ones.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}
    encoded : Encoded
        Has the widths of the towers.
    seed : int
    settings
        ``width``, ``dropout`` and ``hidden``, default those of ``SETTINGS``.
    """
    require_one_of(name, NAMES, "model")
    chosen = {key: SETTINGS[name][key] for key in SHAPE} | settings
    image, text = GivenMaps(ImageNetTower.width), GivenStates(encoded.encoder.config.hidden_size)
    with seeded(seed):
        look = FrozenMapPooling(image.width, chosen["width"], chosen["dropout"], encoded.network.classes)
        if name == "clip_cnn":
            return ClipCNN(image, text, POOLING, **chosen, look=look)
        # Dropout before the dense layers would drop one side of a difference and not the other.
        return Fusion(image, text, POOLING, chosen["width"], 0.0, look, chosen["hidden"], chosen["dropout"])


class Captioned:
    """Photographs with captions to learn by contrast from: each with all of its own, or with one of them.

    Parameters
    ----------
    encoded : Encoded
    head : Fusion or ClipCNN
        Its ``look`` gathers the maps.
    split : str

    Attributes
    ----------
    all_captions : bool
        False gives one caption of each photograph, drawn anew each time.
    """

    def __init__(self, encoded: Encoded, head: JoinedTowers, split: str):
        images = encoded.flickr8k.splits[split]
        captions = [encoded.flickr8k.captions_of([i]) for i in images]
        self.maps, self.texts, self.all_captions = gather(head, encoded, images), encoded.pooled(np.concatenate(captions)), True
        self.count = np.array([len(of_image) for of_image in captions])
        self.first = np.cumsum([0, *self.count])

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return gathered maps (n, P), captions (m, 1, D), and which belongs to which, (n, m)."""
        first, count = self.first[indices], self.count[indices]
        if self.all_captions:
            chosen = np.concatenate([np.arange(start, start + n) for start, n in zip(first, count)])
        else:
            chosen, count = first + (torch.rand(len(indices)).numpy() * count).astype(np.int64), np.ones_like(count)
        owner = torch.from_numpy(np.repeat(np.arange(len(indices)), count))
        truth = nn.functional.one_hot(owner, len(indices)).T
        return {"maps": self.maps[indices], "tokens": self.texts[chosen]}, truth


class Judged:
    """Photographs with their own captions and as many others, for :class:`crossexplain.models.clip.Contrast` in eval mode.

    Parameters
    ----------
    encoded, head, split
        As for :class:`Captioned`.
    seed : int
        Of the other captions.
    """

    def __init__(self, encoded: Encoded, head: JoinedTowers, split: str, seed: int = 0):
        images, pairs = encoded.flickr8k.splits[split], encoded.flickr8k.pairs(split, seed)
        rows = [np.flatnonzero(pairs.image == i) for i in images]
        pairs = pairs.select(np.stack([of_image[: min(map(len, rows))] for of_image in rows]))  # as many for each photograph
        self.maps, self.labels = gather(head, encoded, images), torch.from_numpy(pairs.labels)
        self.texts = encoded.pooled(pairs.caption.ravel()).unflatten(0, pairs.caption.shape)

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return gathered maps (n, P), captions (n k, 1, D), and whether they belong together, (n k,)."""
        return {"maps": self.maps[indices], "tokens": self.texts[indices].flatten(0, 1)}, self.labels[indices].flatten()


def gather(head: JoinedTowers, encoded: Encoded, images: Sequence[int]) -> Tensor:
    """Return the pooled maps (n, P) of photographs, up to which a head has nothing to learn."""
    return in_batches(lambda part: head.look.gather(encoded.maps(part)), images, 128)


def train(name: str, seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
          **options) -> Trained:
    """Train a head by contrast, and choose where yes begins on validation pairs.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}
    seed : int
        Of weights, captions and order.
    size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    options
        ``encoded``, an :class:`Encoded`; or the ``data`` and ``towers`` to encode first, as for
        :func:`crossexplain.recipes.encodings.encode`. Further ones take the place of those of ``SETTINGS``.

    Returns
    -------
    Trained
        ``model`` is the whole model, called with pixels and tokens; ``part`` its head, called with encodings; ``data`` the
        :class:`Encoded`; the validation score of each step is the accuracy at the best threshold.
    """
    trained, chosen = _begin(name, seed, size, progress, **options)
    encoded, head, histories = trained.data, trained.part, trained.histories
    learned, held_out = Captioned(encoded, head, "train"), Judged(encoded, head, "validation")
    head.look.standardise(learned.maps)
    for step in STEPS:
        if not chosen[step]:
            continue
        if step == "fusing":
            head.begin_with_difference(against=True)
            learned.all_captions = False
        learner = Aligned(head) if step == "contrast" and isinstance(head, Fusion) else head
        epochs, lr = chosen[step]
        histories[step] = fit(Contrast(learner), learned, held_out, epochs=epochs, lr=lr, seed=seed, loss=softmax_loss,
                              score=accuracy_at_best_threshold, batch_size=BATCH[step], weight_decay=0.05, half=True,
                              progress=progress, checkpoint=state_file(resume, trained.file, seed, step))
    head.set_threshold(*predict(Contrast(head), held_out, 200))
    head.requires_grad_(False).eval()
    trained.model.eval()
    return trained


def load(name: str, seed: int = 0, size: str = "page", progress: bool = True, **options) -> Trained | None:
    """Return the head that was trained here before from the same encodings with the same settings, or None.

    Heads learn from photographs that are not the project's to hand on, and so stay in the local cache. Arguments as for
    :func:`train`.
    """
    try:
        return with_checkpoint(_begin(name, seed, size, progress, **options)[0], folder())
    except WeightsError:
        return None  # not trained yet, or damaged


def train_and_keep(name: str, seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
                   **options) -> Trained:
    """Train a head as :func:`train` does and keep it for :func:`load`; a training that was cut off goes on."""
    resume = resume or folder()
    trained = train(name, seed, size, progress, resume, **options)
    keep(trained, folder())
    for state in resume.glob(f"{trained.file}_*.pt"):
        state.unlink()
    return replace(trained, card=checkpoints.read_card(trained.file, folder()))


def _begin(name: str, seed: int, size: str, progress: bool, *, encoded: Encoded | None = None, data: Flickr8k | None = None,
           towers: tuple[str, str] = TOWERS, **settings) -> tuple[Trained, dict]:
    """Return a head that is still to be trained or loaded, and its settings; the name of its file depends on all of them."""
    require_one_of(name, NAMES, "model")
    for setting in settings:
        require_one_of(setting, SETTINGS[name], "setting")
    encoded = encode(data, towers, size, progress) if encoded is None else encoded
    chosen = SETTINGS[name] | settings
    chosen |= {step: (1, chosen[step][1]) for step in STEPS if chosen[step] and size == "small"}
    about = {"model": name, "seed": seed, "settings": chosen, "maps": encoded.maps_of.folder.name, "read": POOLING,
             "states": encoded.states_of.folder.name,
             "splits": {split: images.tolist() for split, images in encoded.flickr8k.splits.items()}}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    head = new_model(name, encoded, seed, **{setting: chosen[setting] for setting in SHAPE})
    return Trained(name=f"flickr8k_{name}", file=f"flickr8k_{name}-{key}", model=encoded.whole(head), part=head, data=encoded,
                   seed=seed), chosen


def folder() -> Path:
    """Return the folder of the heads that were trained here, in the local cache."""
    return store.cache() / "heads"


def logits(model: JoinedTowers, encoded: Encoded, pairs: Pairs) -> Tensor:
    """Return the logits (N,) of pairs, from encodings; each photograph is seen and each caption read once.

    Parameters
    ----------
    model : Fusion or ClipCNN
        A head, or a whole model, of which only the part after the towers is used.
    encoded : Encoded
    pairs : crossexplain.data.flickr8k.Pairs
    """
    model.eval()
    return logits_of_pairs(model, pairs.image, pairs.caption, partial(see, model, encoded), partial(read, model, encoded))


def see(model: JoinedTowers, encoded: Encoded, images: Sequence[int]) -> Tensor:
    """Return one vector a photograph, (n, width), from encodings."""
    device = next(model.look.parameters()).device
    return in_batches(lambda part: model.pool_map(encoded.maps(part).to(device)), images, 128)


def read(model: JoinedTowers, encoded: Encoded, captions: Sequence[int]) -> Tensor:
    """Return one vector a caption, (n, D), from encodings."""
    head, device = encoded.head(model), next(model.look.parameters()).device
    return in_batches(lambda part: head.read(*(values.to(device) for values in encoded.states(part))), captions, 1024)


def card(trained: Trained) -> dict:
    """Return what the card of the checkpoint says of data and accuracy."""
    return {"data": f"Flickr8k, {len(trained.data.flickr8k.splits['train']):,} photographs and their captions; held out: those "
                    "of the validation split, on which threshold and epoch were chosen",
            "towers": list(trained.data.towers),
            "accuracy": {"validation pairs": trained.history.validation_score[trained.history.best_epoch]}}


RECIPES = {f"flickr8k_{name}": Recipe(f"flickr8k_{name}", partial(train_and_keep, name), partial(load, name), card,
                                      folder=folder, limit=LIMIT) for name in NAMES}


__getattr__ = moved.names_of(__name__)
