"""Chapters 5 and 6 on photographs: early fusion and a dual encoder on Flickr8k.

Two frozen towers, an ImageNet network and a BERT, encode each photograph, its mirror image and each caption once. The layers
between and after the towers are trained on these encodings by contrast: which of the captions of a batch was written for this
photograph? Early fusion learns its two vectors in this way, then the layers that fuse them. The towers of the paper, VGG and
bert-base, are chosen by name.

Heads learn from photographs that are not the project's to hand on. They stay in the local cache, but for one of either kind
that travels in half precision under the terms of the data, see :func:`travelling`.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain import moved
from crossexplain.checks import require_one_of
from crossexplain.data import store
from crossexplain.data.flickr8k import Flickr8k, Pairs
from crossexplain.models import checkpoints
from crossexplain.models.clip import ClipCNN, Contrast, sigmoid_loss, softmax_loss
from crossexplain.models.encodings import Rows
from crossexplain.models.fusion import Aligned, Fusion
from crossexplain.models.towers import (
    FrozenMapPooling,
    GivenMaps,
    GivenStates,
    WordPooling,
    accuracy_at_best_threshold,
)
from crossexplain.models.training import History, fit, predict
from crossexplain.models.two_towers import JoinedTowers, in_batches, logits_of_pairs
from crossexplain.models.weights import WeightsError, seeded
from crossexplain.recipes import Recipe, Trained, keep, state_file, with_checkpoint
from crossexplain.recipes.encodings import TOWERS, Encoded, Towers, encode, load_towers

NAMES = ("fusion", "clip_cnn")
# Chosen on the validation split: sizes, dropout of either side, and epochs and highest learning rate of each step. Three dual
# encoders beside each other find the photograph of a caption more often than one that is as large.
SETTINGS: dict[str, dict[str, Any]] = {
    "fusion": {"width": 256, "dropout": 0.3, "look_dropout": 0.75, "hidden": 1024, "contrast": (40, 2e-3),
               "fusing": (5, 3e-5)},
    "clip_cnn": {"width": 256, "dropout": 0.3, "look_dropout": 0.75, "hidden": 1024, "parts": 3, "contrast": (40, 2e-3),
                 "fusing": None},
}
STEPS = ("contrast", "fusing")
BATCH = {"contrast": 300, "fusing": 96}  # photographs with one caption each, every one compared with all captions of the batch
YES_OR_NO = 0.3  # weight of the sigmoid loss beside the softmax loss, so that one threshold serves all captions
LIMIT = 40_000_000  # bytes of a head
SHAPE = ("width", "dropout", "look_dropout", "hidden", "parts")  # settings of a model; the others are of its training
TERMS = ("learned from Flickr8k: for non-commercial research and teaching only; cite Hodosh, Young and Hockenmaier (2013). The "
         "licence of the code does not cover these weights, and the book is built without them.")


def new_model(name: str, towers: Towers, seed: int = 0, **settings: Any) -> Fusion | ClipCNN:
    """Return a head with random weights, between towers that are given encodings; :meth:`Towers.whole` adds the real ones.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}
    towers : Towers
        Have the widths of maps and states, and the layers after the map.
    seed : int
    settings
        Those of ``SHAPE``, default those of ``SETTINGS``.
    """
    require_one_of(name, NAMES, "model")
    chosen = shape_of(SETTINGS[name] | settings)
    image, text = GivenMaps(towers.network.width), GivenStates(towers.encoder.config.hidden_size)
    with seeded(seed):
        look = FrozenMapPooling(image.width, chosen["width"], chosen.pop("look_dropout"), towers.network.later,
                                chosen.get("parts", 1))
        pooling = WordPooling(text.width)
        if name == "clip_cnn":
            return ClipCNN(image, text, pooling, **chosen, look=look)
        # Dropout before the dense layers would drop one side of a difference and not the other.
        return Fusion(image, text, pooling, chosen["width"], 0.0, look, chosen["hidden"], chosen["dropout"])


def shape_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model, without those of its training."""
    return {key: value for key, value in settings.items() if key in SHAPE}


class Captioned:
    """Photographs with captions to learn by contrast from: each as it is or mirrored, with one of its captions, drawn anew.

    Parameters
    ----------
    encoded : Encoded
    head : Fusion or ClipCNN
        Its ``look`` gathers the maps.
    split : str
    """

    def __init__(self, encoded: Encoded, head: JoinedTowers, split: str):
        images = encoded.flickr8k.splits[split]
        captions = [encoded.flickr8k.captions_of([i]) for i in images]
        self.maps = torch.stack([gather(head, maps, images) for maps in (encoded.maps, encoded.mirrored)])  # (2, N, P)
        self.encoded, self.captions = encoded, np.concatenate(captions)
        self.count = np.array([len(of_image) for of_image in captions])
        self.first = np.cumsum([0, *self.count])

    def __len__(self) -> int:
        return len(self.count)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return gathered maps (n, P), captions (n, T, D) with their mask, and which belongs to which, (n, n)."""
        view, place = torch.randint(2, indices.shape), torch.rand(len(indices)).numpy()
        chosen = self.first[indices] + (place * self.count[indices]).astype(np.int64)
        states, real = self.encoded.states(self.captions[chosen])
        return {"maps": self.maps[view, indices], "tokens": states, "attention_mask": real}, torch.eye(len(indices))


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
        self.maps, self.labels = gather(head, encoded.maps, images), torch.from_numpy(pairs.labels)
        self.encoded, self.captions = encoded, pairs.caption  # (N, k)

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return gathered maps (n, P), captions (n k, T, D) with their mask, and whether they belong together, (n k,)."""
        states, real = self.encoded.states(self.captions[indices].ravel())
        return {"maps": self.maps[indices], "tokens": states, "attention_mask": real}, self.labels[indices].flatten()


def gather(head: JoinedTowers, maps: Callable[[Rows], Tensor], images: Rows) -> Tensor:
    """Return the pooled maps (n, P) of photographs, up to which a head has nothing to learn; ``maps(images)`` gives maps."""
    look = cast(FrozenMapPooling, head.look)
    return in_batches(lambda part: look.gather(maps(part)), images, 128)


def loss_of(logits: Tensor, true: Tensor) -> Tensor:
    """Return the loss: which caption, which photograph, and a little of whether each pair belongs together at all.

    Parameters
    ----------
    logits : Tensor, shape (N, M) or (K, N, M)
        Of a model, or of each of its parts; then the mean over the parts.
    true : Tensor, shape (N, M)
    """
    if logits.ndim == 3:
        return torch.stack([loss_of(part, true) for part in logits]).mean()
    return softmax_loss(logits, true) + YES_OR_NO * sigmoid_loss(logits, true)


def train(name: str, seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
          **options: Any) -> Trained:
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
    head: Any = trained.part
    encoded, histories = trained.data, trained.histories
    learned, held_out = Captioned(encoded, head, "train"), Judged(encoded, head, "validation")
    head.look.standardise(learned.maps.flatten(0, 1))
    learner = Aligned(head) if isinstance(head, Fusion) else head
    for step in STEPS:
        if not chosen[step]:
            continue
        if step == "fusing":
            with seeded(seed):
                _begin_fusing(head, learner, learned)
            learner = head
        epochs, lr = chosen[step]
        histories[step] = fit(Contrast(learner), learned, held_out, epochs=epochs, lr=lr, seed=seed, loss=loss_of,
                              score=accuracy_at_best_threshold, batch_size=BATCH[step], weight_decay=0.05, half=True,
                              progress=progress, checkpoint=state_file(resume, str(trained.file), seed, step))
    head.set_threshold(*predict(Contrast(head), held_out, 200))
    head.requires_grad_(False).eval()
    trained.model.eval()
    return trained


@torch.no_grad()
def _begin_fusing(head: Fusion, aligned: Aligned, learned: Captioned) -> None:
    """Let the dense layers begin with the distance of two aligned vectors, and with logits as far apart as theirs."""
    device, inputs = next(head.look.parameters()).device, learned.batch(torch.arange(min(len(learned), 200)))[0]
    maps, *texts = (inputs[key].to(device) for key in ("maps", "tokens", "attention_mask"))
    head.begin_with_difference(against=True)
    head.eval()
    seen, read = head.pool_map(maps), head.read(*texts)
    wanted = aligned.logits_of_all_pairs(head.seen(seen), head.said(read))
    head.begin_with_spread(head.logits_of_all_pairs(seen, read), wanted)


def load(name: str, seed: int = 0, size: str = "page", progress: bool = True, **options: Any) -> Trained | None:
    """Return the head that was trained here before from the same encodings with the same settings, or None.

    Arguments as for :func:`train`.
    """
    try:
        return with_checkpoint(_begin(name, seed, size, progress, **options)[0], folder())
    except WeightsError:
        return None  # not trained yet, or damaged


def train_and_keep(name: str, seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
                   **options: Any) -> Trained:
    """Train a head as :func:`train` does and keep it for :func:`load`; a training that was cut off goes on."""
    resume = resume or folder()
    trained = train(name, seed, size, progress, resume, **options)
    keep(trained, folder())
    for state in resume.glob(f"{trained.file}_*.pt"):
        state.unlink()
    return replace(trained, card=checkpoints.read_card(str(trained.file), folder()))


def hand_on(trained: Trained, where: Path | None = None, **settings: Any) -> Path:
    """Write a trained head in half precision, for :func:`travelling`, and return the path of the weights.

    Parameters
    ----------
    trained : Trained
    where : Path, optional
        Default: the folder of the checkpoints that travel with the project.
    settings
        With which it was trained, where they are not those of ``SETTINGS``.
    """
    settings = shape_of(SETTINGS[trained.name.removeprefix("flickr8k_")] | settings)
    about = {**card(trained), "terms": TERMS, "settings": settings, "seed": trained.seed, "seconds": round(trained.seconds, 1),
             "command": "python -m crossexplain bench flickr8k"}
    return checkpoints.save(copy.deepcopy(_bare(cast(JoinedTowers, trained.part))).half(), trained.name, about, where)


def travelling(name: str) -> Trained:
    """Return a model of photographs and captions that needs no data: towers from registry packages, and a head that travels.

    The head has half precision, and terms of its own, which its card states.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}

    Returns
    -------
    Trained
        ``data`` is the :class:`crossexplain.recipes.encodings.Towers`, whose ``inputs_of`` makes inputs for ``model``.

    Raises
    ------
    crossexplain.models.weights.WeightsError
        If the head was left out of this copy of the project.
    crossexplain.data.store.MissingSource
        If the package of a tower is not installed.
    """
    require_one_of(name, NAMES, "model")
    if not (checkpoints.folder() / f"flickr8k_{name}.safetensors").is_file():
        raise WeightsError(f"the head flickr8k_{name} was left out of this copy of the project; copy flickr8k_{name}.json and "
                           ".safetensors into data/checkpoints, or make them from Flickr8k: `python -m crossexplain bench "
                           "flickr8k`.")
    about, towers = checkpoints.read_card(f"flickr8k_{name}"), load_towers()
    head = new_model(name, towers, **about["settings"])
    checkpoints.load(f"flickr8k_{name}", _bare(head))
    head.requires_grad_(False).eval()
    return Trained(name=f"flickr8k_{name}", model=towers.whole(head).eval(), part=head, data=towers, seed=about["seed"],
                   card=about)


def _bare(head: JoinedTowers) -> JoinedTowers:
    """Return a head without the layers of the network that it copies, which come with the network; all else is shared."""
    look, bare = copy.copy(head.look), copy.copy(head)
    look._modules = dict(look._modules, later=nn.ModuleList())
    bare._modules = dict(bare._modules, look=look)
    return bare


def _begin(name: str, seed: int, size: str, progress: bool, *, encoded: Encoded | None = None, data: Flickr8k | None = None,
           towers: tuple[str, str] = TOWERS, **settings: Any) -> tuple[Trained, dict[str, Any]]:
    """Return a head that is still to be trained or loaded, and its settings; the name of its file depends on all of them."""
    require_one_of(name, NAMES, "model")
    for setting in settings:
        require_one_of(setting, SETTINGS[name], "setting")
    encoded = encode(data, towers, size, progress) if encoded is None else encoded
    chosen = SETTINGS[name] | settings
    chosen |= {step: (1, chosen[step][1]) for step in STEPS if chosen[step] and size == "small"}
    about = {"model": name, "seed": seed, "settings": chosen, "maps": encoded.maps_of.folder.name, "read": WordPooling.__name__,
             "states": encoded.states_of.folder.name,
             "splits": {split: images.tolist() for split, images in encoded.flickr8k.splits.items()}}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    head = new_model(name, encoded, seed, **shape_of(chosen))
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


def see(model: JoinedTowers, encoded: Encoded, images: Rows) -> Tensor:
    """Return one vector a photograph, (n, width), from encodings."""
    device = next(model.look.parameters()).device
    return in_batches(lambda part: model.pool_map(encoded.maps(part).to(device)), images, 128)


def read(model: JoinedTowers, encoded: Encoded, captions: Rows) -> Tensor:
    """Return one vector a caption, (n, D), from encodings."""
    head, device = encoded.head(model), next(model.look.parameters()).device
    return in_batches(lambda part: head.read(*(values.to(device) for values in encoded.states(part))), captions, 1024)


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    last = cast(History, trained.history)
    return {"data": f"Flickr8k, {len(trained.data.flickr8k.splits['train']):,} photographs and their captions; held out: those "
                    "of the validation split, on which threshold and epoch were chosen",
            "towers": list(trained.data.towers),
            "accuracy": {"validation pairs": last.validation_score[last.best_epoch]}}


RECIPES = {f"flickr8k_{name}": Recipe(f"flickr8k_{name}", partial(train_and_keep, name), partial(load, name), card,
                                      folder=folder, limit=LIMIT) for name in NAMES}


__getattr__ = moved.names_of(__name__)
