"""Chapter 6 on photographs: the published CLIP, as it comes, held against Flickr8k.

Nothing is trained; where yes begins is chosen on validation pairs, since CLIP itself only compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from crossexplain.data import store
from crossexplain.data.flickr8k import Flickr8k, Pairs
from crossexplain.data.photos import square
from crossexplain.models import bert, clip
from crossexplain.models.clip import Clip
from crossexplain.recipes.flickr8k import Retrieval, ranked

NAME = "clip-vit-base-patch32"


@dataclass(frozen=True)
class Published:
    """The published CLIP, and what it says of every test photograph with every test caption.

    Attributes
    ----------
    model : Clip
        In eval mode, frozen; called as ``model(**inputs(images, captions))``.
    tokenizer : transformers.PreTrainedTokenizerBase
    data : Flickr8k
    scores : ndarray, shape (I, C)
        Logits of all photographs and captions of the test split, in its order.
    """

    model: Clip
    tokenizer: PreTrainedTokenizerBase
    data: Flickr8k
    scores: np.ndarray

    @property
    def words(self) -> dict:
        """What :class:`crossexplain.gradients.modalities.Tokens` has to know to hide words: there is no mask, but padding."""
        ids = self.tokenizer
        return {"layer": self.model.text_layer, "mask_id": None, "pad_id": ids.pad_token_id,
                "special": (ids.bos_token_id, ids.eos_token_id), "attention": "attention_mask"}

    def inputs(self, images: Sequence[int], captions: Sequence[int]) -> dict[str, Tensor]:
        """Return what the model is called with, for photographs and as many captions; long captions are cut off."""
        return {"images": self.data.images(images, self.model.size),
                **_tokens(self.tokenizer, [self.data.captions[i] for i in captions])}

    def ask(self, image: Tensor, sentence: str) -> tuple[dict[str, Tensor], Tensor, list[str], str]:
        """Make a reader's photograph and sentence what the model takes; as :func:`crossexplain.recipes.scenes.encode`."""
        image, note = square(image, self.model.size)
        read = bert.encode(self.tokenizer, [sentence])
        shown = [token.removesuffix("</w>") for token, special in zip(read.tokens[0], read.special[0].tolist()) if not special]
        return {"images": image[None], **_named(read.inputs)}, image, shown, note

    def logits(self, pairs: Pairs) -> np.ndarray:
        """Return the logits of pairs of the test split, (N,)."""
        return _of_pairs(self.scores, self.data, "test", pairs)

    def retrieval(self) -> Retrieval:
        """Rank all test photographs for each caption, and all captions for each photograph."""
        return ranked(self.scores, self.data, "test")


def load(data: Flickr8k, seed: int = 0, progress: bool = True) -> Published:
    """Load the published CLIP, choose where yes begins, and ask it about the test split.

    Parameters
    ----------
    data : Flickr8k
    seed : int
        Of the validation pairs.
    progress : bool

    Returns
    -------
    Published

    Raises
    ------
    crossexplain.data.store.MissingSource
        If its weights are not at hand.
    crossexplain.models.weights.WeightsError
        If a file is broken.
    """
    folder = store.find(NAME).path
    model, tokenizer = clip.load(folder), bert.load_tokenizer(folder)
    scores = {split: _every(model, tokenizer, data, split, progress) for split in ("validation", "test")}
    chosen = data.pairs("validation", seed)
    logits = torch.from_numpy(_of_pairs(scores["validation"], data, "validation", chosen))
    model.set_threshold(logits, torch.from_numpy(chosen.labels))
    # Only the bias has moved, and it was nothing before.
    return Published(model, tokenizer, data, scores["test"] + float(model.bias))


@torch.no_grad()
def _every(model: Clip, tokenizer: PreTrainedTokenizerBase, data: Flickr8k, split: str, progress: bool) -> np.ndarray:
    """Return the logits of every photograph with every caption of a split, (I, C)."""
    images, captions = data.splits[split], data.captions_of(split)
    parts = np.array_split(images, -(-len(images) // 32))
    seen = [model.see(data.images(some, model.size))
            for some in tqdm(parts, f"photographs, {split}", disable=not progress, delay=5)]
    read = _tokens(tokenizer, [data.captions[i] for i in captions])
    said = [model.read(*some) for some in zip(read["tokens"].split(128), read["attention_mask"].split(128))]
    return model.logits_of_all_pairs(torch.cat(seen), torch.cat(said)).numpy()


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
    return _named(bert.encode(tokenizer, texts, truncate=True).inputs)


def _named(read: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"tokens": read["input_ids"], "attention_mask": read["attention_mask"]}


def _of_pairs(scores: np.ndarray, data: Flickr8k, split: str, pairs: Pairs) -> np.ndarray:
    """Return the logits of pairs from those of every photograph with every caption of a split."""
    images, captions = data.splits[split], data.captions_of(split)
    order = np.argsort(images), np.argsort(captions)
    return scores[order[0][np.searchsorted(images[order[0]], pairs.image)],
                  order[1][np.searchsorted(captions[order[1]], pairs.caption)]]
