"""Models of photographs and captions, asked about the photographs of packages: pairs, foils, and which word is where.

A model here is what :func:`crossexplain.recipes.flickr8k.travelling` returns: towers and a head, without any data folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossexplain.data.photographs import Captions, Photographs
from crossexplain.gradients.attention import word_by_patch
from crossexplain.gradients.maps import attribute, upsample
from crossexplain.gradients.views import FULL, NOTHING, masked
from crossexplain.intervals import Interval, mean_interval
from crossexplain.recipes import Trained


@dataclass(frozen=True)
class Answers:
    """Logits of N photographs with M captions and their foils, and 2 M pairs: half of them true, half with others' captions.

    Attributes
    ----------
    told : Captions
    captions, foils : ndarray, shape (N, M)
        Logits of every photograph with every caption, and with every foil.
    photograph, caption : ndarray of int64, shape (2 M,)
        Of each pair; the first M are true.
    """

    told: Captions
    captions: np.ndarray
    foils: np.ndarray
    photograph: np.ndarray
    caption: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        """Logits of the pairs, (2 M,)."""
        return self.captions[self.photograph, self.caption]

    @property
    def true(self) -> np.ndarray:
        """Which pairs are true, (2 M,)."""
        return np.arange(len(self.photograph)) < len(self.told)

    @property
    def own(self) -> np.ndarray:
        """Logits of the captions with their photograph, (M,)."""
        return self.logits[: len(self.told)]

    @property
    def foil(self) -> np.ndarray:
        """Logits of the foils with the same photograph, (M,)."""
        return self.foils[self.told.image, np.arange(len(self.told))]

    @property
    def rank(self) -> np.ndarray:
        """How many photographs have a higher logit with a caption than its own, (M,)."""
        return (self.captions > self.own).sum(axis=0)

    @property
    def ahead(self) -> np.ndarray:
        """Whether a caption scores higher than its foil, (M,)."""
        return self.own > self.foil

    @property
    def ahead_elsewhere(self) -> np.ndarray:
        """On what share of the other photographs it does, (M,): what the sentences alone are worth."""
        everywhere = (self.captions > self.foils).sum(axis=0)
        return (everywhere - self.ahead) / (len(self.captions) - 1)

    def pairs_right(self, seed: int = 0) -> Interval:
        """Return the share of right answers: yes to own captions, no to others; interval over photographs."""
        return mean_interval((self.logits > 0) == self.true, seed, groups=self.photograph)

    def by_kind(self, values: np.ndarray, seed: int = 0) -> dict[str, Interval]:
        """Return the mean of values (M,) over all foils and by their kind; intervals over photographs."""
        kinds, image = np.array(self.told.kinds), self.told.image
        return {kind: mean_interval(values[rows], seed, groups=image[rows]) for kind, rows in
                {"all": kinds != "", **{kind: kinds == kind for kind in dict.fromkeys(self.told.kinds)}}.items()}

    def inputs(self, found: Trained, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs of the whole model for some of the pairs."""
        texts = [self.told.captions[i] for i in self.caption[rows]]
        return found.data.inputs_of(self.told.images[self.photograph[rows]], texts)


def read(found: Trained, texts: Sequence[str]) -> Tensor:
    """Return one vector a text, (N, D)."""
    asked = found.data.inputs_of(torch.zeros(1, 3, found.data.network.size, found.data.network.size), list(texts))
    with torch.no_grad():
        return found.model.read(**{name: value for name, value in asked.items() if name != "images"})


def answers(found: Trained, told: Captions, seed: int = 0) -> Answers:
    """Ask a model about every photograph with every caption and every foil, and deal captions to other photographs."""
    with torch.no_grad():
        seen, texts = found.model.see(told.images), read(found, [*told.captions, *told.foils])
        z = torch.stack([found.model.match(one.expand(len(texts), -1), texts) for one in seen]).numpy()  # (N, 2 M)
    return Answers(told, *np.split(z, 2, axis=1), np.tile(told.image, 2),
                   np.concatenate([np.arange(len(told)), told.others(seed)]))


def views(found: Trained, said: Answers, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Return the logits (2 M, 1) of the pairs by baseline and view: nothing, one modality, or both replaced as a whole.

    Each tower sees every photograph and every caption once. Stand-ins: the mean colour and ``[MASK]``, or another pair's.
    """
    told, tokenizer = said.told, found.data.tokenizer
    hidden = [" ".join([tokenizer.mask_token] * len(tokenizer.tokenize(caption))) for caption in told.captions]
    grey = told.images.mean(dim=(2, 3), keepdim=True).expand_as(told.images)
    steps = np.random.default_rng(seed).integers(1, len(told.files), len(said.photograph))  # to another photograph
    with torch.no_grad():
        images, no_images = found.model.see(told.images), found.model.see(grey)
        texts, no_texts = read(found, told.captions), read(found, hidden)
        seen, words = images[said.photograph], texts[said.caption]
        borrowed = images[(said.photograph + steps) % len(images)], texts[told.others(seed + 1)[said.caption]]
        stand_ins = {"mean + mask": (no_images[said.photograph], no_texts[said.caption]), "data": borrowed}
        return {baseline: {view: found.model.match(image, text)[:, None] for view, image, text in (
            (FULL, seen, words), (masked("image"), other_image, words), (masked("text"), seen, other_words),
            (NOTHING, other_image, other_words))} for baseline, (other_image, other_words) in stand_ins.items()}


def hottest_covered(found: Trained, said: Answers, rows: Sequence[int], share: float = 0.2) -> np.ndarray:
    """Return the logits (n,) of pairs with the mean colour where their LayerCAM for the answer given is hottest."""
    asked = said.inputs(found, rows)
    heat = upsample(attribute(found.model, asked, found.model.image_layer, "layer-cam"), asked["images"].shape[-1]).flatten(1)
    rank = heat.argsort(dim=1, descending=True).argsort(dim=1).reshape(len(heat), 1, *asked["images"].shape[2:])
    images = asked["images"].where(rank >= share * heat.shape[1], asked["images"].mean(dim=(2, 3), keepdim=True))
    with torch.no_grad():
        return found.model(**{**asked, "images": images}).numpy()


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


def maps_for(found: Trained, asked: Sequence[Spoken], layer: str, method: str, at_once: int = 8) -> Tensor:
    """Return the maps (N, h, w) of what speaks for the match of each caption, some at a time, which bounds the memory."""
    return torch.cat([attribute(found.model, inputs(found, asked[start : start + at_once]), layer, method, 1, "for", True)
                      for start in range(0, len(asked), at_once)])


def word_maps(found: Trained, asked: Sequence[Spoken]) -> Tensor:
    """Return the word-by-patch map of the word that names the object, (N, h, w); of a word of several pieces the sum."""
    maps, pieces = word_by_patch(found.model, inputs(found, asked)), found.data.tokenizer.tokenize
    heat = []
    for one, of_tokens in zip(asked, maps):
        first = 1 + sum(len(pieces(word)) for word in one.caption.split()[: one.place])  # after [CLS]
        heat.append(of_tokens[first : first + len(pieces(one.words[one.place]))].sum(dim=0))
    return torch.stack(heat)
