"""Chapters 5 and 6 on photographs: early fusion and a dual encoder on Flickr8k.

Two frozen towers, ImageNet's and a BERT, say what they have to say of each photograph and of each caption once. What is
trained on that stands between and behind the towers, by contrast: which of the captions of a batch was written for this
photograph? Early fusion learns its two vectors that way, then the layers that fuse them. The towers of the paper, VGG and
bert-base, take the places of the small ones by name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossexplain.data import flickr8k, store
from crossexplain.data.flickr8k import Flickr8k, Pairs
from crossexplain.data.photos import square
from crossexplain.intervals import Interval
from crossexplain.models import bert, checkpoints, vgg
from crossexplain.models.clip import ClipCNN, Contrast, softmax_loss
from crossexplain.models.encodings import Encodings
from crossexplain.models.fusion import Aligned, Fusion
from crossexplain.models.towers import (
    EncoderTower,
    FrozenMapPooling,
    GivenMaps,
    GivenStates,
    ImageNetTower,
    accuracy_at_best_threshold,
    coarse,
    pool,
)
from crossexplain.models.training import History, fit, predict
from crossexplain.models.two_towers import with_towers
from crossexplain.models.vgg import ImageNetClassifier
from crossexplain.models.weights import WeightsError
from crossexplain.recipes import encodings

NAMES = {"fusion": "flickr8k_fusion", "clip_cnn": "flickr8k_clip_cnn"}
TOWERS = ("squeezenet1_0", "minilm")
PUBLISHED = ("vgg16", "bert-base-uncased")  # of the paper
SETTINGS = {  # chosen on the validation split; epochs and highest learning rate of each step, only early fusion fuses
    "fusion": {"width": 256, "dropout": 0.3, "hidden": 1024, "contrast": (15, 1e-3), "fusing": (5, 5e-4)},
    "clip_cnn": {"width": 512, "dropout": 0.5, "hidden": 2048, "contrast": (30, 2e-3), "fusing": None},
}
STEPS = ("contrast", "fusing")
BATCH = {"contrast": 500, "fusing": 48}  # photographs; each meets every caption of a batch, in fusing one of each
LIMIT = 40_000_000  # bytes of a head
SMALL = {"train": 120, "validation": 40, "test": 40}  # photographs of each split, to see that everything runs
SHAPE = ("width", "dropout", "hidden")
READ = "mean"  # of the states of a caption
LONGEST = 64  # tokens of a caption


@dataclass(frozen=True)
class Encoded:
    """Flickr8k, or some photographs of each split, as two frozen towers see and read it.

    Attributes
    ----------
    data : Flickr8k
    towers : (str, str)
        Their names in ``crossexplain.data.store.SOURCES``.
    network : ImageNetClassifier
    encoder : transformers.PreTrainedModel
    tokenizer : transformers.PreTrainedTokenizerBase
    images, captions : ndarray of int64
        Which photographs and captions were encoded, by their numbers in the data; ascending.
    maps_of, states_of : Encodings
        What the towers said of them, in the same order.
    """

    data: Flickr8k
    towers: tuple[str, str]
    network: ImageNetClassifier
    encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    images: np.ndarray
    captions: np.ndarray
    maps_of: Encodings
    states_of: Encodings

    @property
    def words(self) -> dict:
        """What :class:`crossexplain.gradients.modalities.Tokens` has to know to hide words from a whole model."""
        ids = self.tokenizer
        return {"layer": "text.encoder.embeddings", "mask_id": ids.mask_token_id, "pad_id": ids.pad_token_id,
                "special": (ids.cls_token_id, ids.sep_token_id), "attention": "attention_mask"}

    def maps(self, images: Sequence[int]) -> Tensor:
        """Return the coarse maps of photographs, (n, 512, h, w), float32."""
        return coarse(self.maps_of[_places(self.images, images, "photograph")])

    def states(self, captions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens of captions, (n, T, D), and which are of a token, (n, T)."""
        return self.states_of.padded(_places(self.captions, captions, "caption"))

    def read(self, captions: Sequence[int]) -> Tensor:
        """Return the states of captions as one state each, (n, 1, D): what a head that reads them so makes of them first."""
        parts = (self.states(captions[i : i + 1024]) for i in range(0, len(captions), 1024))
        return torch.cat([pool(*part, READ) for part in parts])[:, None]

    def given(self, images: Sequence[int], captions: Sequence[int]) -> dict[str, Tensor]:
        """Return what a head is called with, for photographs and as many captions."""
        states, mask = self.states(captions)
        return {"images": self.maps(images), "tokens": states, "attention_mask": mask}

    def inputs(self, images: Sequence[int], captions: Sequence[int]) -> dict[str, Tensor]:
        """Return what a whole model is called with, for photographs and as many captions."""
        read = bert.encode(self.tokenizer, [self.data.captions[i] for i in captions], LONGEST, truncate=True)
        return {"images": self.data.images(images, self.network.size), "tokens": read.inputs["input_ids"],
                "attention_mask": read.inputs["attention_mask"]}


def at_hand() -> tuple[str, str]:
    """Return the names of the towers of the paper where their weights are at hand, else those of the small ones."""
    here = [store.is_available(name) for name in PUBLISHED]  # both are looked for, so that a page knows when one has come
    return PUBLISHED if all(here) else TOWERS


def ask(encoded: Encoded, image: Tensor, sentence: str) -> tuple[dict[str, Tensor], Tensor, list[str], str]:
    """Make a reader's photograph and sentence what a whole model takes; as :func:`crossexplain.recipes.scenes.encode`.

    Raises
    ------
    crossexplain.checks.InputError
        For a sentence without a word, or of more than ``LONGEST`` tokens.
    """
    image, note = square(image, encoded.network.size)
    read = bert.encode(encoded.tokenizer, [sentence], LONGEST)
    inputs = {"images": image[None], "tokens": read.inputs["input_ids"], "attention_mask": read.inputs["attention_mask"]}
    return inputs, image, [token for token, special in zip(read.tokens[0], read.special[0].tolist()) if not special], note


def encode(data: Flickr8k | None = None, towers: tuple[str, str] = TOWERS, size: str = "page",
           progress: bool = True) -> Encoded:
    """Send photographs and captions through the towers, or take up what was encoded before.

    The first time takes about six minutes on two cores and 1.8 GB on the disk, in the local cache; it can be cut off and
    goes on from there. VGG-16 and bert-base take much longer. Photographs that cannot be read are left out, and named.

    Parameters
    ----------
    data : Flickr8k, optional
        Default: the one that :func:`crossexplain.data.flickr8k.load` finds.
    towers : (str, str)
        An ImageNet network and an encoder, by their names in ``crossexplain.data.store.SOURCES``.
    size : {"page", "small"}
        ``"small"`` takes some photographs of each split.
    progress : bool

    Returns
    -------
    Encoded

    Raises
    ------
    crossexplain.data.store.MissingSource
        If photographs or weights are not at hand.
    """
    data = flickr8k.load(check=size == "page", progress=progress) if data is None else data
    network = vgg.load_imagenet(towers[0], store.find(towers[0]).path)
    folder = store.find(towers[1]).path
    encoder, tokenizer = bert.load(folder, 2).encoder, bert.load_tokenizer(folder)
    images, captions = np.arange(len(data.names)), np.arange(len(data.captions))
    if size == "small":
        data = replace(data, splits={split: data.splits[split][:n] for split, n in SMALL.items()})
        images = np.sort(np.concatenate(list(data.splits.values())))
        captions = np.sort(data.captions_of(images))
    return Encoded(data, tuple(towers), network, encoder, tokenizer, images, captions,
                   encodings.photographs(network, data, images, progress),
                   encodings.captions(encoder, tokenizer, data, captions, LONGEST, progress))


def new_model(name: str, encoded: Encoded, seed: int = 0, **settings) -> Fusion | ClipCNN:
    """Return a head with random weights, between towers that hand on encodings; :meth:`Trained.whole` has the real ones.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}
    encoded : Encoded
        Says how wide the towers are.
    seed : int
    settings
        ``width``, ``dropout`` and ``hidden``, default those of ``SETTINGS``.
    """
    _require_name(name)
    chosen = {key: SETTINGS[name][key] for key in SHAPE} | settings
    image, text = GivenMaps(ImageNetTower.width), GivenStates(encoded.encoder.config.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        look = FrozenMapPooling(image.width, chosen["width"], chosen["dropout"], encoded.network.classes)
        if name == "clip_cnn":
            return ClipCNN(image, text, READ, **chosen, look=look)
        # Dropout before the dense layers would drop one side of a difference and not the other.
        return Fusion(image, text, READ, chosen["width"], 0.0, look, chosen["hidden"], chosen["dropout"])


@dataclass(frozen=True)
class Trained:
    """A trained head, what it was trained on, and how.

    Attributes
    ----------
    head : Fusion or ClipCNN
        In eval mode, frozen; called with encodings, ``head(**encoded.given(images, captions))``.
    encoded : Encoded
    card : dict
        Of the checkpoint in the local cache.
    contrast, fusing : History, optional
        Of the two trainings; ``validation_score`` is the share of right answers on validation pairs at the best threshold. A
        dual encoder does not fuse.
    """

    head: Fusion | ClipCNN
    encoded: Encoded
    card: dict = field(default_factory=dict)
    contrast: History | None = None
    fusing: History | None = None

    @property
    def data(self) -> Flickr8k:
        """The photographs and captions."""
        return self.encoded.data

    @cached_property
    def model(self) -> Fusion | ClipCNN:
        """The head between the real towers; called with pixels and tokens, ``model(**encoded.inputs(images, captions))``."""
        return with_towers(self.head, ImageNetTower(self.encoded.network, coarse=True), EncoderTower(self.encoded.encoder))

    @property
    def history(self) -> History:
        """Of the last training."""
        return self.fusing or self.contrast

    @property
    def seconds(self) -> float:
        """Time that the trainings took, without the encoding."""
        return sum(history.seconds for step in STEPS if (history := getattr(self, step)))


class Captioned:
    """Photographs with captions to learn by contrast from: each with all of its own, or with one of them.

    Parameters
    ----------
    encoded : Encoded
    head : Fusion or ClipCNN
        Whose ``look`` gathers what is kept of each photograph.
    split : str
    every : bool
        False: one, another one each time.
    """

    def __init__(self, encoded: Encoded, head: nn.Module, split: str, every: bool = True):
        images = encoded.data.splits[split]
        own = [encoded.data.captions_of([i]) for i in images]
        self.maps, self.texts, self.every = gather(head, encoded, images), encoded.read(np.concatenate(own)), every
        self.first, self.count = np.cumsum([0, *map(len, own)]), np.array([len(some) for some in own])

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return what was gathered (n, P), captions (m, 1, D), and which belongs to which, (n, m)."""
        first, count = self.first[indices], self.count[indices]
        if self.every:
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

    def __init__(self, encoded: Encoded, head: nn.Module, split: str, seed: int = 0):
        images, pairs = encoded.data.splits[split], encoded.data.pairs(split, seed)
        each = [np.flatnonzero(pairs.image == i) for i in images]
        pairs = pairs.select(np.stack([some[: min(map(len, each))] for some in each]))  # as many for each photograph
        self.maps, self.labels = gather(head, encoded, images), torch.from_numpy(pairs.labels)
        self.texts = encoded.read(pairs.caption.ravel()).unflatten(0, pairs.caption.shape)

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return what was gathered (n, P), captions (n k, 1, D), and whether they belong together, (n k,)."""
        return {"maps": self.maps[indices], "tokens": self.texts[indices].flatten(0, 1)}, self.labels[indices].flatten()


@torch.no_grad()
def gather(head: Fusion | ClipCNN, encoded: Encoded, images: Sequence[int]) -> Tensor:
    """Return what the untrained part of a head makes of the maps of photographs, (n, P)."""
    return torch.cat([head.look.gather(encoded.maps(images[i : i + 128])) for i in range(0, len(images), 128)])


def train(name: str, seed: int = 0, size: str = "page", progress: bool = True, data: Flickr8k | None = None,
          encoded: Encoded | None = None, towers: tuple[str, str] = TOWERS,
          keep: Mapping[str, Path] | None = None, **settings) -> Trained:
    """Train a head by contrast, and choose where yes begins on validation pairs.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}
    seed : int
        Of weights, captions and order.
    size : {"page", "small"}
        ``"small"`` is one epoch on a few photographs, to see that everything runs.
    progress : bool
    data : Flickr8k, optional
    encoded : Encoded, optional
        What :func:`encode` gave before; else that is done first, with the towers.
    towers : (str, str)
        As for :func:`encode`.
    keep : mapping from step to Path, optional
        What is written after each epoch of a step, from which a training that was cut off goes on.
    settings
        In place of those of ``SETTINGS``.

    Returns
    -------
    Trained
    """
    _require_name(name)
    encoded = encode(data, towers, size, progress) if encoded is None else encoded
    chosen = _settings(name, size, settings)
    head = new_model(name, encoded, seed, **{key: chosen[key] for key in SHAPE})
    learned, held, done = Captioned(encoded, head, "train"), Judged(encoded, head, "validation"), {}
    head.look.standardise(learned.maps)
    for step in STEPS:
        if not chosen[step]:
            continue
        if step == "fusing":
            head.begin_with_difference(against=True)
            learned.every = False
        learner = Aligned(head) if step == "contrast" and isinstance(head, Fusion) else head
        epochs, lr = chosen[step]
        done[step] = fit(Contrast(learner), learned, held, epochs=epochs, lr=lr, seed=seed, loss=softmax_loss,
                         score=accuracy_at_best_threshold, batch_size=BATCH[step], weight_decay=0.05, half=True,
                         progress=progress, checkpoint=keep and keep[step])
    head.set_threshold(*predict(Contrast(head), held, 200))
    return Trained(head.requires_grad_(False).eval(), encoded, **done)


def load_or_train(name: str, seed: int = 0, retrain: bool = False, size: str = "page", progress: bool = True,
                  data: Flickr8k | None = None, encoded: Encoded | None = None, towers: tuple[str, str] = TOWERS,
                  **settings) -> Trained:
    """Return the head that was trained here before with these towers and settings, or train it and keep it.

    Heads learn from photographs that are not the project's to hand on, and so stay in the local cache.

    Parameters
    ----------
    name, seed, size, progress, data, encoded, towers, settings
        As for :func:`train`; one that was cut off goes on.
    retrain : bool
        True trains.

    Returns
    -------
    Trained
    """
    _require_name(name)
    encoded = encode(data, towers, size, progress) if encoded is None else encoded
    chosen = _settings(name, size, settings)
    about = {"model": name, "seed": seed, "settings": chosen, "maps": encoded.maps_of.folder.name, "read": READ,
             "states": encoded.states_of.folder.name, "splits": {k: v.tolist() for k, v in encoded.data.splits.items()}}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    file = f"{NAMES[name]}-{key}"
    if not retrain:
        head = new_model(name, encoded, seed, **{key: chosen[key] for key in SHAPE})
        try:
            card = checkpoints.load(file, head, folder())
            steps = {step: History(**history) for step, history in card["history"].items()}
            return Trained(head.requires_grad_(False), encoded, card, **steps)
        except WeightsError:
            pass  # not trained yet, or damaged
    keep = {step: folder() / f"{file}-{step}.pt" for step in STEPS}
    folder().mkdir(parents=True, exist_ok=True)
    for path in keep.values() if retrain else ():
        path.unlink(missing_ok=True)
    trained = train(name, seed, size, progress, encoded=encoded, keep=keep, **settings)
    card = _card(trained, name, seed)
    checkpoints.save(trained.head, file, card, folder(), LIMIT)
    for path in keep.values():
        path.unlink(missing_ok=True)
    return replace(trained, card=card)


def folder() -> Path:
    """Return the folder of the heads that were trained here, in the local cache."""
    return store.cache() / "heads"


@torch.no_grad()
def logits(model: Fusion | ClipCNN, encoded: Encoded, pairs: Pairs) -> Tensor:
    """Return the logits of pairs, (N,), from encodings; each photograph is seen and each caption read once.

    Parameters
    ----------
    model : Fusion or ClipCNN
        A head, or the whole model, of which only what is behind the towers is used.
    encoded : Encoded
    pairs : crossexplain.data.flickr8k.Pairs
    """
    model.eval()
    images, back = np.unique(pairs.image, return_inverse=True)
    captions, again = np.unique(pairs.caption, return_inverse=True)
    seen, said = see(model, encoded, images), read(model, encoded, captions)
    parts = zip(torch.from_numpy(back.reshape(-1)).split(1024), torch.from_numpy(again.reshape(-1)).split(1024))
    return torch.cat([model.match(seen[i], said[j]) for i, j in parts]).cpu()


@torch.no_grad()
def see(model: Fusion | ClipCNN, encoded: Encoded, images: Sequence[int]) -> Tensor:
    """Return one vector a photograph, (n, width), from encodings."""
    device = next(model.look.parameters()).device
    return torch.cat([model.look(encoded.maps(images[i : i + 128]).to(device)) for i in range(0, len(images), 128)])


@torch.no_grad()
def read(model: Fusion | ClipCNN, encoded: Encoded, captions: Sequence[int]) -> Tensor:
    """Return one vector a caption, (n, D), from encodings."""
    head = with_towers(model, GivenMaps(model.image.width), GivenStates(model.text.width))
    device = next(model.look.parameters()).device
    parts = (encoded.states(captions[i : i + 1024]) for i in range(0, len(captions), 1024))
    return torch.cat([head.read(states.to(device), mask.to(device)) for states, mask in parts])


@dataclass(frozen=True)
class Retrieval:
    """How many came before the right one, over all photographs of a split and all their captions.

    Attributes
    ----------
    images, captions : ndarray of int64
        Of the split, by their numbers in the data.
    image_rank : ndarray of int64, shape (C,)
        Of each caption: how many other photographs score at least as high as its own.
    caption_rank : ndarray of int64, shape (I,)
        Of each photograph: how many captions of others score at least as high as the best of its own.
    """

    images: np.ndarray
    captions: np.ndarray
    image_rank: np.ndarray
    caption_rank: np.ndarray

    def recall(self, k: int) -> dict[str, float]:
        """Return the share of queries whose right answer is among the first k."""
        return {"caption to image": float((self.image_rank < k).mean()),
                "image to caption": float((self.caption_rank < k).mean())}


@torch.no_grad()
def retrieval(model: Fusion | ClipCNN, encoded: Encoded, split: str = "test") -> Retrieval:
    """Rank all photographs of a split for each of its captions, and all captions for each photograph.

    Parameters
    ----------
    model, encoded
        As for :func:`logits`.
    split : str
        Of early fusion the thousand photographs and five thousand captions are five million passes of the dense layers,
        some minutes; of a dual encoder one product of matrices.

    Returns
    -------
    Retrieval
    """
    model.eval()
    said = read(model, encoded, encoded.data.captions_of(split))
    scores = [model.logits_of_all_pairs(one, said) for one in see(model, encoded, encoded.data.splits[split]).split(16)]
    return ranked(torch.cat(scores).cpu().numpy(), encoded.data, split)


def ranked(scores: np.ndarray, data: Flickr8k, split: str) -> Retrieval:
    """Count from the logits of all photographs and captions of a split, (I, C), how many come before the right one."""
    images, captions = data.splits[split], data.captions_of(split)
    place = np.full(len(data.names), -1)
    place[images] = np.arange(len(images))
    owner = place[data.image_of[captions]]  # (C,)
    right = scores[owner, np.arange(len(captions))]
    image_rank = (scores >= right).sum(axis=0) - 1
    mine = owner == np.arange(len(images))[:, None]
    best = np.where(mine, scores, -np.inf).max(axis=1, keepdims=True)
    return Retrieval(images, captions, image_rank, ((scores >= best) & ~mine).sum(axis=1))


def agreement(model: Fusion | ClipCNN, encoded: Encoded, kind: str, seed: int = 0, draws: int = 200) -> Interval:
    """Return Spearman's rank correlation of logits with what people said of photographs and captions.

    Parameters
    ----------
    model, encoded
        As for :func:`logits`.
    kind : {"expert", "crowd"}
        Mean of three experts' marks, or the share of people who said yes.
    seed, draws : int
        Of the bootstrap over photographs.

    Returns
    -------
    Interval
        95 %; ``n`` is the number of pairs.
    """
    judged = encoded.data.judgements(kind)
    known = np.isin(judged.image, encoded.images) & np.isin(judged.caption, encoded.captions)
    image, scores = judged.image[known], judged.scores[known]
    # Experts: three marks; crowd: how many said yes, how many no.
    marks = scores.mean(axis=1) if kind == "expert" else scores[:, 0] / scores.sum(axis=1)
    found = logits(model, encoded, Pairs(image, judged.caption[known], np.zeros(len(image), int))).numpy()
    rows = [np.flatnonzero(image == number) for number in np.unique(image)]
    rng, rhos = np.random.default_rng(seed), []
    for _ in range(draws):
        some = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        rhos.append(spearmanr(found[some], marks[some]).statistic)
    return Interval(float(spearmanr(found, marks).statistic), *np.quantile(rhos, [0.025, 0.975]).tolist(), len(marks))


def make(name: str, seed: int = 0, out: Path | None = None) -> Path:
    """Train a head and keep it.

    Parameters
    ----------
    name : {"fusion", "clip_cnn"}
    seed : int
    out : Path, optional
        Folder; default, that of the local cache: it does not travel with the book.

    Returns
    -------
    Path
        Of the weights.
    """
    trained = load_or_train(name, seed, retrain=True)
    return checkpoints.save(trained.head, NAMES[name], _card(trained, name, seed), folder() if out is None else out, LIMIT)


make_fusion, make_clip_cnn = (partial(make, name) for name in ("fusion", "clip_cnn"))


def _settings(name: str, size: str, settings: dict) -> dict:
    unknown = set(settings) - set(SETTINGS[name])
    if unknown:
        raise ValueError(f"settings {', '.join(sorted(unknown))} came, expected some of {', '.join(SETTINGS[name])}.")
    chosen = SETTINGS[name] | settings
    return chosen | {step: (1, chosen[step][1]) for step in STEPS if chosen[step] and size == "small"}


def _card(trained: Trained, name: str, seed: int) -> dict:
    return {
        "data": f"Flickr8k, {len(trained.data.splits['train']):,} photographs and their captions; held out: those of the "
                "validation split, on which threshold and epoch were chosen",
        "towers": list(trained.encoded.towers),
        "seed": seed,
        "command": f"python -m crossexplain train {NAMES[name]} --seed {seed}",
        "accuracy": {"validation pairs": trained.history.validation_score[trained.history.best_epoch]},
        "history": {step: asdict(history) for step in STEPS if (history := getattr(trained, step))},
        "seconds": round(trained.seconds, 1),
    }


def _places(known: np.ndarray, asked: Sequence[int], what: str) -> np.ndarray:
    """Return where some numbers stand among those that were encoded."""
    asked = np.asarray(asked, dtype=np.int64)
    places = np.searchsorted(known, asked).clip(max=len(known) - 1)
    if len(asked) and (known[places] != asked).any():
        raise ValueError(f"{what} {asked[known[places] != asked][0]} was not encoded; encode() at size 'page' takes all.")
    return places


def _require_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"model {name!r} came, expected one of {', '.join(map(repr, NAMES))}.")
