"""Photographs and captions through towers that stay as they are, once: what early fusion and both dual encoders start from.

What is kept, and what can be done with it without running the tower again:

- of a photograph the whole last convolutional map, (512, 13, 13) of SqueezeNet: pooled vectors and coarse grids follow from
  it, Grad-CAM differentiates the head with respect to it, and a round that masks cells of the map replaces some of them.
  A round that masks pixels changes the map everywhere within the reach of the convolutions and needs the tower again.
- of a caption the states of all its tokens, special ones included: the first, their mean, or all of them for a head that
  reads word by word. A round that masks words needs the encoder again, and so do gradients at the embeddings.

As float16 that takes 173 kB a photograph and 768 bytes a token: 1.4 GB and 0.4 GB for Flickr8k.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossexplain.data import store
from crossexplain.data.flickr8k import Flickr8k
from crossexplain.models import encodings
from crossexplain.models.bert import TextBatches
from crossexplain.models.encodings import Encodings
from crossexplain.models.vgg import ImageNetClassifier


def folder() -> Path:
    """Return the folder of all encodings, in the local cache."""
    return store.cache() / "encodings"


def photographs(model: ImageNetClassifier, data: Flickr8k, images: Sequence[int] | None = None,
                progress: bool = True, where: Path | None = None) -> Encodings:
    """Return the last convolutional map of photographs, (n, 512, h, w).

    Parameters
    ----------
    model : ImageNetClassifier
        From :func:`crossexplain.models.vgg.load_imagenet`.
    data : Flickr8k
    images : sequence of n int, optional
        Default: all.
    progress : bool
    where : Path, optional
        Folder of encodings; default, :func:`folder`.

    Returns
    -------
    Encodings
    """
    images = range(len(data.names)) if images is None else images

    def read(some: list[int]) -> Tensor:
        # The layout in which a CPU computes convolutions in half of the time.
        return data.images([images[i] for i in some], model.size).contiguous(memory_format=torch.channels_last)

    return encodings.encode(
        model, read, data.fingerprints(images), where or folder(), forward=model.tower, batch_size=16, progress=progress,
        settings={"layer": model.image_layer, "preprocessing": f"middle square, bicubic, {model.size} pixels"},
    )


def captions(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Flickr8k,
             captions: Sequence[int] | None = None, max_length: int = 64, progress: bool = True,
             where: Path | None = None) -> Encodings:
    """Return the last hidden state of every token of captions, [CLS] and [SEP] included; rows (T, D).

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        Such as ``crossexplain.models.bert.load(folder, 2).encoder``.
    tokenizer : transformers.PreTrainedTokenizerBase
    data : Flickr8k
    captions : sequence of n int, optional
        Default: all.
    max_length : int
        Most tokens of a caption; longer ones are cut off.
    progress : bool
    where : Path, optional
        As for :func:`photographs`.

    Returns
    -------
    Encodings
        Ragged: :meth:`~crossexplain.models.encodings.Encodings.padded` gives states and mask.
    """
    texts = data.captions if captions is None else [data.captions[i] for i in captions]
    read = TextBatches(tokenizer, texts, np.zeros(len(texts), int), max_length)
    return encodings.encode(
        encoder, lambda some: read.batch(torch.tensor(some))[0], texts, where or folder(), mask="attention_mask",
        forward=lambda **inputs: encoder(**inputs).last_hidden_state, lengths=[len(ids) for ids in read.ids],
        settings={"layer": "last hidden state", "max_length": max_length, "vocabulary": _vocabulary(tokenizer)},
        batch_size=64, shard_size=2048, progress=progress,
    )


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    words = "\n".join(f"{word} {number}" for word, number in sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(words.encode()).hexdigest()
