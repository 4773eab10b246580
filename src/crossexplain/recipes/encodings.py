"""The encodings of Flickr8k by two frozen towers, from which early fusion and both dual encoders start.

What is kept, and what can be done with it without running the towers again:

- of a photograph the whole map at which the network is cut in two, (192, 7, 7) of EfficientNet-Lite0, (512, 13, 13) of
  SqueezeNet: all later maps and pooled vectors follow from it, and a round that masks cells of the map replaces some of them.
  A round that masks pixels needs the tower again. Of photographs to learn from the same is kept of their mirror images.
- of a caption the states of all its tokens, special ones included. A round that masks words needs the encoder again, and so do
  gradients at the embeddings.

As float16 that takes 19 kB a photograph, or 173 kB, and 768 bytes a token: 0.3 or 2.4 GB and 0.4 GB for Flickr8k.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossexplain.data import flickr8k, store
from crossexplain.data.flickr8k import Flickr8k
from crossexplain.models import bert, encodings, vgg
from crossexplain.models.bert import TextBatches
from crossexplain.models.efficientnet import EfficientNetLite0, fused
from crossexplain.models.encodings import Encodings, Rows
from crossexplain.models.towers import EncoderTower, GivenMaps, GivenStates, ImageNetTower, coarse
from crossexplain.models.two_towers import JoinedTowers, with_towers
from crossexplain.models.vgg import ImageNetClassifier

TOWERS = (vgg.LITE, "minilm")  # both come with registry packages; "squeezenet1_0" is the smallest other
PAPER_TOWERS = ("vgg16", "bert-base-uncased")
SMALL = {"train": 120, "validation": 40, "test": 40}  # photographs of each split, to see that everything runs
CUT = 15  # where EfficientNet-Lite0 is cut: its last two layers know the classes of ImageNet best, and captions less
LONGEST = 64  # tokens of a caption


@dataclass(frozen=True)
class Towers:
    """An image tower and a text tower, frozen, for the heads of this project to stand between.

    Attributes
    ----------
    towers : (str, str)
        Their names in ``crossexplain.data.store.SOURCES``.
    network : ImageNetClassifier or EfficientNetLite0
    encoder : transformers.PreTrainedModel
    tokenizer : transformers.PreTrainedTokenizerBase
    """

    towers: tuple[str, str]
    network: ImageNetClassifier | EfficientNetLite0
    encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def words(self) -> dict[str, Any]:
        """Arguments of :class:`crossexplain.gradients.modalities.Tokens` to hide words from a whole model."""
        ids = self.tokenizer
        return {"layer": "text.encoder.embeddings", "mask_id": ids.mask_token_id, "pad_id": ids.pad_token_id,
                "special": (ids.cls_token_id, ids.sep_token_id), "attention": "attention_mask"}

    def head(self, model: JoinedTowers) -> JoinedTowers:
        """Return the part of a model after the towers, which is called with encodings."""
        return with_towers(model, GivenMaps(model.image.width), GivenStates(model.text.width))

    def whole(self, head: JoinedTowers) -> JoinedTowers:
        """Return a head between the real towers, which is called with :meth:`inputs_of`."""
        return with_towers(head, ImageNetTower(self.network, self.network.fine), EncoderTower(self.encoder))

    def inputs_of(self, pictures: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the inputs of a whole model.

        Parameters
        ----------
        pictures : Tensor, shape (N, 3, S, S)
            Photographs in [0, 1], with sides of ``network.size``; see :func:`crossexplain.data.photos.read`.
        texts : sequence of N str
            Of more than ``LONGEST`` tokens are cut off.
        """
        return {"images": pictures, **bert.encode(self.tokenizer, texts, LONGEST, truncate=True).of_two_towers}


@dataclass(frozen=True)
class Encoded(Towers):
    """The encodings of Flickr8k, or of some photographs of each split, by two frozen towers.

    Attributes
    ----------
    towers, network, encoder, tokenizer
        As for :class:`Towers`.
    flickr8k : Flickr8k
    images, captions : ndarray of int64
        Numbers of the photographs and captions that were encoded, ascending.
    maps_of, states_of : Encodings
        Their encodings, in the same order.
    mirrored_of : Encodings
        Of the mirror images of the photographs to learn from, in ascending order of their numbers.
    """

    flickr8k: Flickr8k
    images: np.ndarray
    captions: np.ndarray
    maps_of: Encodings
    mirrored_of: Encodings
    states_of: Encodings

    def maps(self, images: Rows) -> Tensor:
        """Return the maps of photographs that a head is given, coarse where the network's is fine; (n, C, h, w), float32."""
        return self._given(self.maps_of[_places(self.images, images, "photograph")])

    def mirrored(self, images: Rows) -> Tensor:
        """Return the maps of the mirror images of photographs to learn from, as :meth:`maps` does."""
        return self._given(self.mirrored_of[_places(np.sort(self.flickr8k.splits["train"]), images, "mirrored photograph")])

    def _given(self, maps: Tensor) -> Tensor:
        return coarse(maps) if self.network.fine else maps

    def states(self, captions: Rows) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens of captions, (n, T, D), and which are of a token, (n, T)."""
        return self.states_of.padded(_places(self.captions, captions, "caption"))

    def given(self, images: Sequence[int], captions: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs of a head, for photographs and as many captions."""
        states, mask = self.states(captions)
        return {"images": self.maps(images), "tokens": states, "attention_mask": mask}

    def inputs(self, images: Sequence[int], captions: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs of a whole model, for photographs and as many captions."""
        return self.inputs_of(self.flickr8k.images(images, self.network.size), [self.flickr8k.captions[i] for i in captions])


def load_towers(towers: tuple[str, str] = TOWERS) -> Towers:
    """Return two towers with their published weights; needs no data.

    Parameters
    ----------
    towers : (str, str)
        An ImageNet network and an encoder, by their names in ``crossexplain.data.store.SOURCES``.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If weights are not available.
    """
    network = vgg.load_imagenet(towers[0], store.find(towers[0]).path, **({"cut": CUT} if towers[0] == vgg.LITE else {}))
    folder = store.find(towers[1]).path
    return Towers((towers[0], towers[1]), network, bert.load(folder, 2).encoder, bert.load_tokenizer(folder))


def available_towers() -> tuple[str, str]:
    """Return the names of the towers of the paper where their weights are available, else those of the small ones."""
    available = [store.is_available(name) for name in PAPER_TOWERS]  # asks for both: a page is made anew when one arrives
    return PAPER_TOWERS if all(available) else TOWERS


def encode(data: Flickr8k | None = None, towers: tuple[str, str] = TOWERS, size: str = "page",
           progress: bool = True) -> Encoded:
    """Encode photographs and captions with the towers, or use what was encoded before.

    The first time takes about six minutes on two cores and 0.7 GB in the local cache; if it is cut off it goes on from there.
    VGG-16 and bert-base take much longer. Photographs that cannot be read are left out, and named.

    Parameters
    ----------
    data : Flickr8k, optional
        Default: the one that :func:`crossexplain.data.flickr8k.load` finds.
    towers : (str, str)
        An ImageNet network and an encoder, by their names in ``crossexplain.data.store.SOURCES``.
    size : {"page", "small"}
        ``"small"`` encodes a few photographs of each split.
    progress : bool

    Returns
    -------
    Encoded

    Raises
    ------
    crossexplain.data.store.MissingSource
        If photographs or weights are not available.
    """
    data = flickr8k.load(check=size == "page", progress=progress) if data is None else data
    found = load_towers(towers)
    images, captions = np.arange(len(data.names)), np.arange(len(data.captions))
    if size == "small":
        data = replace(data, splits={split: data.splits[split][:n] for split, n in SMALL.items()})
        images = np.sort(np.concatenate(list(data.splits.values())))
        captions = np.sort(data.captions_of(images))
    return Encoded(**vars(found), flickr8k=data, images=images, captions=captions,
                   maps_of=encode_photographs(found.network, data, images, progress),
                   mirrored_of=encode_photographs(found.network, data, np.sort(data.splits["train"]), progress, mirrored=True),
                   states_of=encode_captions(found.encoder, found.tokenizer, data, captions, progress))


def encode_photographs(model: ImageNetClassifier | EfficientNetLite0, data: Flickr8k, images: Sequence[int] | np.ndarray,
                       progress: bool = True, where: Path | None = None, mirrored: bool = False) -> Encodings:
    """Return the map of photographs at which the network is cut, (n, C, h, w).

    Parameters
    ----------
    model : ImageNetClassifier or EfficientNetLite0
        From :func:`crossexplain.models.vgg.load_imagenet`.
    data : Flickr8k
    images : sequence of n int
    progress : bool
    where : Path, optional
        Folder of all encodings; default, that in the local cache.
    mirrored : bool
        Exchange left and right in all photographs.

    Returns
    -------
    Encodings
    """

    def read(rows: list[int]) -> dict[str, Tensor]:
        # The layout in which a CPU computes convolutions in half of the time.
        pictures = data.images([images[i] for i in rows], model.size)
        pictures = pictures.flip(3) if mirrored else pictures
        return {"images": pictures.contiguous(memory_format=torch.channels_last)}

    fast, how = fused(model) if isinstance(model, EfficientNetLite0) else model, ", mirrored" * mirrored
    return encodings.encode(
        model, read, data.fingerprints(images), where or store.cache() / "encodings", forward=fast.tower, batch_size=16,
        settings={"layer": model.image_layer, "preprocessing": f"middle square, bicubic, {model.size} pixels{how}"},
        progress=progress,
    )


def encode_captions(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Flickr8k, captions: Rows,
                    progress: bool = True, where: Path | None = None) -> Encodings:
    """Return the last hidden state of every token of captions, [CLS] and [SEP] included; rows (T, D).

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        Such as ``crossexplain.models.bert.load(folder, 2).encoder``.
    tokenizer : transformers.PreTrainedTokenizerBase
    data : Flickr8k
    captions : sequence of n int
        Those of more than ``LONGEST`` tokens are cut off.
    progress, where
        As for :func:`encode_photographs`.

    Returns
    -------
    Encodings
        Ragged: :meth:`~crossexplain.models.encodings.Encodings.padded` gives states and mask.
    """
    texts = [data.captions[i] for i in captions]
    read = TextBatches(tokenizer, texts, np.zeros(len(texts), int), LONGEST)
    words = "\n".join(f"{word} {number}" for word, number in sorted(tokenizer.get_vocab().items()))
    vocabulary = hashlib.sha256(words.encode()).hexdigest()
    return encodings.encode(
        encoder, lambda rows: read.batch(torch.tensor(rows))[0], texts, where or store.cache() / "encodings",
        forward=lambda **inputs: encoder(**inputs).last_hidden_state, mask="attention_mask",
        settings={"layer": "last hidden state", "max_length": LONGEST, "vocabulary": vocabulary},
        lengths=[len(ids) for ids in read.ids], batch_size=64, shard_size=2048, progress=progress,
    )


def _places(known: np.ndarray, asked: Rows, what: str) -> np.ndarray:
    """Return the places of numbers among those that were encoded."""
    numbers = np.asarray(asked, dtype=np.int64)
    places = np.searchsorted(known, numbers).clip(max=len(known) - 1)
    if len(numbers) and (known[places] != numbers).any():
        raise ValueError(f"{what} {numbers[known[places] != numbers][0]} was not encoded; encode() at size 'page' takes all.")
    return places
