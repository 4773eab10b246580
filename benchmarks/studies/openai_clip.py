"""Chapter 6 on photographs: the CLIP that OpenAI published, without any training here, on Flickr8k.

CLIP only compares; where yes begins is chosen on validation pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from benchmarks.studies import retrieval
from crossexplain.data import store
from crossexplain.data.flickr8k import Flickr8k, Pairs
from crossexplain.models import bert, clip
from crossexplain.models.clip import Clip
from crossexplain.models.two_towers import in_batches
from crossexplain_book.readers import of_tokenizer

NAME = "clip-vit-base-patch32"


@dataclass(frozen=True)
class OpenAIClip:
    """The published CLIP, and its logits of every test photograph with every test caption.

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
        """Arguments of :class:`crossexplain.gradients.modalities.Tokens` to hide words; CLIP has no mask, only padding."""
        ids = self.tokenizer
        return {"layer": self.model.text_layer, "mask_id": None, "pad_id": ids.pad_token_id,
                "special": (ids.bos_token_id, ids.eos_token_id), "attention": "attention_mask"}

    def inputs(self, images: Sequence[int], captions: Sequence[int]) -> dict[str, Tensor]:
        """Return the inputs of the model, for photographs and as many captions; long captions are cut off."""
        texts = [self.data.captions[i] for i in captions]
        return {"images": self.data.images(images, self.model.size), **_read(self.tokenizer, texts)}

    def from_reader(self, image: Tensor, sentence: str) -> tuple[dict[str, Tensor], Tensor, list[str], str]:
        """Return inputs for a reader's photograph and sentence; as the functions of :mod:`crossexplain_book.readers` do."""
        return of_tokenizer(self.tokenizer, self.model.size, image, sentence)

    def logits(self, pairs: Pairs) -> np.ndarray:
        """Return the logits of pairs of the test split, (N,)."""
        return _of_pairs(self.scores, self.data, "test", pairs)

    def retrieval(self) -> retrieval.Retrieval:
        """Rank all test photographs for each caption, and all captions for each photograph."""
        return retrieval.of_scores(self.scores, self.data, "test")


def load(data: Flickr8k, seed: int = 0, progress: bool = True) -> OpenAIClip:
    """Load the published CLIP, choose where yes begins, and compute the logits of the test split.

    Parameters
    ----------
    data : Flickr8k
    seed : int
        Of the validation pairs.
    progress : bool

    Returns
    -------
    OpenAIClip

    Raises
    ------
    crossexplain.data.store.MissingSource
        If its weights are not available.
    crossexplain.models.weights.WeightsError
        If a file is broken.
    """
    folder = store.find(NAME).path
    model, tokenizer = clip.load(folder), bert.load_tokenizer(folder)
    scores = {split: _logits_of_split(model, tokenizer, data, split, progress) for split in ("validation", "test")}
    chosen = data.pairs("validation", seed)
    logits = torch.from_numpy(_of_pairs(scores["validation"], data, "validation", chosen))
    model.set_threshold(logits, torch.from_numpy(chosen.labels))
    # Only the bias has changed, and it was 0 before.
    return OpenAIClip(model, tokenizer, data, scores["test"] + float(model.bias))


def _logits_of_split(model: Clip, tokenizer: PreTrainedTokenizerBase, data: Flickr8k, split: str, progress: bool) -> np.ndarray:
    """Return the logits (I, C) of every photograph with every caption of a split."""
    text = _read(tokenizer, [data.captions[i] for i in data.captions_of(split)])
    with tqdm(total=len(data.splits[split]), desc=f"photographs, {split}", disable=not progress, delay=5) as bar:

        def see(images: np.ndarray) -> Tensor:
            bar.update(len(images))
            return model.see(data.images(images, model.size))

        seen = in_batches(see, data.splits[split], 32)
    read = in_batches(lambda rows: model.read(text["tokens"][rows], text["attention_mask"][rows]),
                      range(len(text["tokens"])), 128)
    with torch.no_grad():
        return model.logits_of_all_pairs(seen, read).numpy()


def _read(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
    return bert.encode(tokenizer, texts, truncate=True).of_two_towers


def _of_pairs(scores: np.ndarray, data: Flickr8k, split: str, pairs: Pairs) -> np.ndarray:
    """Return the logits of pairs from those of every photograph with every caption of a split."""
    images, captions = data.splits[split], data.captions_of(split)
    order = np.argsort(images), np.argsort(captions)
    return scores[order[0][np.searchsorted(images[order[0]], pairs.image)],
                  order[1][np.searchsorted(captions[order[1]], pairs.caption)]]
