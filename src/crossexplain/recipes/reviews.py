"""The sentiment classifier of chapter 2: a pre-trained BERT and a head, tuned on reviews."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crossexplain import moved
from crossexplain.data import reviews, store
from crossexplain.data.reviews import CLASSES, Reviews
from crossexplain.models import bert
from crossexplain.models.bert import Encoded, TextBatches
from crossexplain.models.training import fit, predict
from crossexplain.recipes import Recipe, Trained, by_kind, state_file, with_checkpoint

NAME = "reviews_minilm"
RANK = 16  # of the learned difference of each matrix of the encoder
SIZES = {"page": (3000, 300, 3), "small": (96, 48, 1)}  # training sentences, validation sentences, epochs


@dataclass(frozen=True, kw_only=True)
class Reader(Trained):
    """A trained reader of reviews; ``data`` are held-out sentences of a real set, of generated ones None.

    Attributes
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    classes : tuple of str
    encoder : store.Found
        Where the pre-trained encoder was found.
    """

    tokenizer: PreTrainedTokenizerBase
    classes: tuple[str, ...]
    encoder: store.Found

    def encode(self, texts: Sequence[str], max_length: int | None = None, truncate: bool = False) -> Encoded:
        """Return sentences as the model reads them; see :func:`crossexplain.models.bert.encode`."""
        return bert.encode(self.tokenizer, texts, max_length, truncate)

    def logits(self, texts: Sequence[str], max_length: int = 128) -> Tensor:
        """Return logits (N, C) of sentences, in their order; those of similar length go through the model together."""
        texts = bert.require_texts(texts)
        order = np.argsort([len(text) for text in texts], kind="stable")
        batches = TextBatches(self.tokenizer, [texts[i] for i in order], np.zeros(len(order), int), max_length)
        return predict(self.model, batches, batch_size=64)[0][np.argsort(order)]

    def right(self, held_out: Reviews, max_length: int = 128) -> np.ndarray:
        """Return which sentences are given their class, (N,)."""
        return np.asarray(self.logits(held_out.texts, max_length).argmax(dim=1).numpy() == held_out.labels)


def find_encoder(profile: str = "embedded") -> store.Found:
    """Return the encoder of a profile: MiniLM, or for ``"full"`` BERT base where its weights are available."""
    if profile == "full":
        try:
            return store.find("bert-base-uncased")
        except store.MissingSource:
            pass  # the page tells which encoder was used
    return store.find("minilm")


def train(profile: str = "embedded", seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
          split_seed: int = 0) -> Reader:
    """Tune an encoder and a head on generated reviews, about three minutes on two cores.

    Parameters
    ----------
    profile : {"embedded", "full"}
        Which encoder; see :func:`find_encoder`.
    seed : int
        Of the sentences, the first weights and the order of the examples.
    size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    split_seed : int
        Of the division of the cue phrases.

    Returns
    -------
    Reader
    """
    n, held_out, epochs = SIZES[size]
    parts = {part: reviews.build(count, part, seed, split_seed) for part, count in (("train", n), ("validation", held_out))}
    return tune(find_encoder(profile), parts, epochs, 128, seed, progress, resume)


def load(profile: str = "embedded", **_: Any) -> Reader | None:
    """Return the reader that travels with the book, which reads with MiniLM; None for another encoder."""
    encoder = find_encoder(profile)
    if encoder.name != "minilm":
        return None
    model = bert.load(encoder.path, len(CLASSES))
    reader = with_checkpoint(Reader(name=NAME, model=model, data=None, part=model.tune(RANK), classes=CLASSES, encoder=encoder,
                                    tokenizer=bert.load_tokenizer(encoder.path)))
    model.merge().eval()
    return reader


def card(trained: Reader) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    test = reviews.build(1500, "test", trained.seed)
    shares = by_kind(trained.right(test), test.kinds)
    return {"data": f"{SIZES['page'][0]:,} generated app reviews, a third each negative, neutral and positive; held out: 1,500 "
                    "others, whose cue phrases are in none of the training sentences",
            "encoder": f"all-MiniLM-L6-v2 (Apache-2.0), unchanged but for the differences of rank {RANK} that this file holds, "
                       "and the head",
            "accuracy": {"held out": shares["all"], **{kind: shares[kind] for kind in reviews.KINDS}}}


def tune(encoder: store.Found, parts: dict[str, Reviews], epochs: int, length: int, seed: int, progress: bool,
         resume: Path | None = None) -> Reader:
    """Tune an encoder and a head on sentences.

    Parameters
    ----------
    encoder : store.Found
        From :func:`find_encoder`.
    parts : dict of str to Reviews
        ``"train"``, ``"validation"`` and perhaps ``"test"``, which becomes the ``data`` of the reader.
    epochs, length : int
        ``length`` is the greatest number of tokens of a sentence; longer ones are cut off.
    seed, progress, resume
        As for :func:`train`.
    """
    tokenizer, classes = bert.load_tokenizer(encoder.path), parts["train"].classes
    model = bert.load(encoder.path, len(classes), seed=seed)
    learned = model.tune(RANK, seed)
    sets = (TextBatches(tokenizer, parts[part].texts, parts[part].labels, length) for part in ("train", "validation"))
    history = fit(model, *sets, epochs=epochs, lr=2e-3, batch_size=32, seed=seed, loss=cross_entropy, progress=progress,
                  checkpoint=state_file(resume, NAME, seed))
    return Reader(name=NAME, model=model.merge(), data=parts.get("test"), seed=seed, histories={"training": history},
                  part=learned, tokenizer=tokenizer, classes=classes, encoder=encoder)


RECIPES = {NAME: Recipe(NAME, train, load, card, profiles=True)}


__getattr__ = moved.names_of(__name__)
