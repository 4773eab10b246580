"""Models of photographs and captions, asked about the photographs of packages: pairs, foils, and which word is where.

A model here is what :func:`crossexplain.recipes.flickr8k.travelling` returns: towers and a head, without any data folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossexplain.data.photographs import Captions, Photographs
from crossexplain.evaluation.precomputed import Precomputed, precompute
from crossexplain.gradients.attention import word_by_patch
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.intervals import Interval, mean_interval
from crossexplain.recipes import Trained


@dataclass(frozen=True)
class Answers:
    """Logits of a model for 2 M pairs, each photograph with its own captions and as many of others, and for M foils.

    Attributes
    ----------
    told : Captions
    photograph, caption : ndarray of int64, shape (2 M,)
        Of each pair; the first M pairs are true.
    logits : ndarray, shape (2 M,)
    foil : ndarray, shape (M,)
        Of each photograph with the foil of its caption.
    """

    told: Captions
    photograph: np.ndarray
    caption: np.ndarray
    logits: np.ndarray
    foil: np.ndarray

    @property
    def true(self) -> np.ndarray:
        """Which pairs are true, (2 M,)."""
        return np.arange(len(self.logits)) < len(self.told)

    @property
    def own(self) -> np.ndarray:
        """Logits of the true pairs, (M,)."""
        return self.logits[: len(self.told)]

    def pairs_right(self, seed: int = 0) -> Interval:
        """Return the share of right answers: yes to own captions, no to others; interval over photographs."""
        return mean_interval((self.logits > 0) == self.true, seed, groups=self.photograph)

    def ranked(self, seed: int = 0) -> dict[str, Interval]:
        """Return how often the caption scores higher than its foil, by kind of foil, the best kind first."""
        ahead, kinds, image = self.own > self.foil, np.array(self.told.kinds), self.told.image
        by_kind = {kind: mean_interval(ahead[kinds == kind], seed, groups=image[kinds == kind])
                   for kind in dict.fromkeys(self.told.kinds)}
        return dict(sorted(by_kind.items(), key=lambda item: -item[1].value))

    def inputs(self, found: Trained, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs of the whole model for some of the pairs."""
        texts = [self.told.captions[i] for i in self.caption[rows]]
        return found.data.inputs_of(self.told.images[self.photograph[rows]], texts)

    def encoded(self, found: Trained, image: ImageCells, text: Tokens) -> tuple[Precomputed, dict[str, Tensor]]:
        """Return the model with all photographs, captions and stand-ins encoded, and the pairs as its inputs."""
        read = found.data.inputs_of(self.told.images[:1], self.told.captions)
        stored = precompute(found.model, lambda part: self.told.images[part], len(self.told.files),
                            {key: value for key, value in read.items() if key != "images"}, image, text,
                            {"image": ("mean", "blur"), "text": ("mask",)})
        return stored, {"images": torch.from_numpy(self.photograph), "tokens": torch.from_numpy(self.caption)}


def read(found: Trained, texts: Sequence[str]) -> Tensor:
    """Return one vector a text, (N, D)."""
    asked = found.data.inputs_of(torch.zeros(1, 3, found.data.network.size, found.data.network.size), list(texts))
    with torch.no_grad():
        return found.model.read(**{name: value for name, value in asked.items() if name != "images"})


def answers(found: Trained, told: Captions, seed: int = 0) -> Answers:
    """Ask a model about every photograph with its captions, as many captions of others, and its foils."""
    with torch.no_grad():
        seen = found.model.see(told.images)[told.image]
        own, foil, other = read(found, told.captions), read(found, told.foils), told.others(seed)
        logits = [found.model.match(seen, texts).numpy() for texts in (own, own[other], foil)]
    return Answers(told, np.tile(told.image, 2), np.concatenate([np.arange(len(told)), other]), np.concatenate(logits[:2]),
                   logits[2])


def ranks(found: Trained, told: Captions) -> np.ndarray:
    """Return how many photographs a dual encoder puts before the caption's own, (M,)."""
    with torch.no_grad():
        z = found.model.logits_of_all_pairs(found.model.see(told.images), read(found, told.captions)).numpy()  # (N, M)
    return (z > z[told.image, np.arange(len(told))]).sum(axis=0)


@dataclass(frozen=True)
class Spoken:
    """A caption that names a boxed object.

    Attributes
    ----------
    image, box : Tensor (3, S, S), ndarray (4,)
    file, caption : str
    words : list of T str
    place : int
        Of the word that names the object.
    """

    image: Tensor
    box: np.ndarray
    file: str
    caption: str
    words: list[str]
    place: int


def spoken(told: Captions, boxed: Photographs) -> list[Spoken]:
    """Return every caption in which a boxed object is named by its word, once for each object."""
    found = []
    for file, word, box, image in zip(boxed.files, boxed.words, boxed.boxes, boxed.images):
        for i, caption in zip(told.image, told.captions):
            words = [part.strip(".,").lower() for part in caption.split()]
            if told.files[i] == file and word in words:
                found.append(Spoken(image, box, file, caption, words, words.index(word)))
    return found


def dividends(found: Trained, asked: Sequence[Spoken]) -> list[np.ndarray]:
    """Return of each caption what the box and each word do together, (T,): v(both) - v(no box) - v(no word) + v(neither)."""
    mask, seen, together = found.data.tokenizer.mask_token, {}, []
    for one in asked:
        if (one.file, tuple(one.box)) not in seen:
            with torch.no_grad():
                seen[one.file, tuple(one.box)] = found.model.see(torch.stack([one.image, _without_box(one)]))
        parts = one.caption.rstrip(".").split()
        words = read(found, [one.caption, *(" ".join([*parts[:k], mask, *parts[k + 1 :]]) + "." for k in range(len(parts)))])
        with torch.no_grad():
            z = torch.stack([found.model.match(view.expand(len(words), -1), words)
                             for view in seen[one.file, tuple(one.box)]]).numpy()  # (2, 1 + T)
        together.append(z[0, 0] - z[1, 0] - z[0, 1:] + z[1, 1:])
    return together


def _without_box(one: Spoken) -> Tensor:
    """Return the photograph with its mean colour in the box, (3, S, S)."""
    top, left, bottom, right = one.box
    image = one.image.clone()
    image[:, top:bottom, left:right] = image.mean(dim=(1, 2))[:, None, None]
    return image


def inputs(found: Trained, asked: Sequence[Spoken]) -> dict[str, Tensor]:
    """Return the inputs of the whole model for these captions and their photographs."""
    return found.data.inputs_of(torch.stack([one.image for one in asked]), [one.caption for one in asked])


def word_maps(found: Trained, asked: Sequence[Spoken]) -> Tensor:
    """Return the word-by-patch map of the word that names the object, (N, h, w); of a word of several pieces the sum."""
    maps, pieces = word_by_patch(found.model, inputs(found, asked)), found.data.tokenizer.tokenize
    heat = []
    for one, of_tokens in zip(asked, maps):
        first = 1 + sum(len(pieces(word)) for word in one.caption.split()[: one.place])  # after [CLS]
        heat.append(of_tokens[first : first + len(pieces(one.words[one.place]))].sum(dim=0))
    return torch.stack(heat)
