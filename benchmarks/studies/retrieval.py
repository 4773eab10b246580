"""How well a model finds the photograph of a caption, and the caption of a photograph, among all of a split."""

from dataclasses import dataclass

import numpy as np
import torch

from crossexplain.data.flickr8k import Flickr8k
from crossexplain.models.two_towers import JoinedTowers
from crossexplain.recipes.encodings import Encoded
from crossexplain.recipes.flickr8k import read, see


@dataclass(frozen=True)
class Retrieval:
    """How many come before the right one, over all photographs of a split and all their captions.

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


def of_scores(scores: np.ndarray, data: Flickr8k, split: str) -> Retrieval:
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


@torch.no_grad()
def of_model(model: JoinedTowers, encoded: Encoded, split: str = "test") -> Retrieval:
    """Rank all photographs of a split for each of its captions, and all captions for each photograph.

    Parameters
    ----------
    model, encoded
        As for :func:`crossexplain.recipes.flickr8k.logits`.
    split : str
        For early fusion a thousand photographs and five thousand captions are five million passes of the dense layers, which
        take some minutes; for a dual encoder one product of matrices.

    Returns
    -------
    Retrieval
    """
    model.eval()
    texts = read(model, encoded, encoded.flickr8k.captions_of(split))
    scores = [model.logits_of_all_pairs(part, texts) for part in see(model, encoded, encoded.flickr8k.splits[split]).split(16)]
    return of_scores(torch.cat(scores).cpu().numpy(), encoded.flickr8k, split)
