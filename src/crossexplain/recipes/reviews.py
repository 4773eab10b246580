"""The sentiment classifier of chapter 2: a pre-trained BERT and a head, tuned on reviews."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crossexplain.data import reviews, store
from crossexplain.data.reviews import CLASSES, Reviews
from crossexplain.models import bert, checkpoints
from crossexplain.models.bert import Encoded, TextBatches, TextClassifier
from crossexplain.models.training import History, fit, predict

NAME = "reviews_minilm"
RANK = 16  # of what is learned on top of each matrix of the encoder
SIZES = {"page": (3000, 300, 3), "small": (96, 48, 1)}  # training sentences, validation sentences, epochs
REAL = {  # loader, epochs, most tokens of a text
    "labelled-sentences": (reviews.labelled_sentences, 4, 96),
    "app-reviews": (reviews.app_reviews, 2, 64),
}


@dataclass(frozen=True)
class Trained:
    """A trained reader of reviews and how it came about.

    Attributes
    ----------
    model : TextClassifier
        In eval mode, frozen, what was learned added to its weights.
    tokenizer : transformers.PreTrainedTokenizerBase
    classes : tuple of str
    encoder : store.Found
        Where the pre-trained encoder came from.
    card : dict
        Of the checkpoint; empty where the model was trained just now.
    history : History, optional
        Of the training; None where the model was loaded.
    test : Reviews, optional
        Held-out sentences of a real set; generated ones come from :func:`crossexplain.data.reviews.build`.
    """

    model: TextClassifier
    tokenizer: PreTrainedTokenizerBase
    classes: tuple[str, ...]
    encoder: store.Found
    card: dict = field(default_factory=dict)
    history: History | None = None
    test: Reviews | None = None

    def encode(self, texts, max_length: int | None = None, truncate: bool = False) -> Encoded:
        """Return sentences as the model reads them; see :func:`crossexplain.models.bert.encode`."""
        return bert.encode(self.tokenizer, texts, max_length, truncate)

    def logits(self, texts, max_length: int = 128) -> Tensor:
        """Return logits (N, C) of sentences, like lengths together, in the order that they came in."""
        texts = bert.require_texts(texts)
        order = np.argsort([len(text) for text in texts], kind="stable")
        batches = TextBatches(self.tokenizer, [texts[i] for i in order], np.zeros(len(order), int), max_length)
        return predict(self.model, batches, batch_size=64)[0][np.argsort(order)]

    def right(self, held_out: Reviews, max_length: int = 128) -> np.ndarray:
        """Return which sentences get their class, (N,)."""
        return self.logits(held_out.texts, max_length).argmax(dim=1).numpy() == held_out.labels


def find_encoder(profile: str = "embedded") -> store.Found:
    """Return the encoder of a profile: MiniLM, or in full BERT base where its weights are at hand."""
    if profile == "full":
        try:
            return store.find("bert-base-uncased")
        except store.MissingSource:
            pass  # the page says which encoder it took
    return store.find("minilm")


def train(seed: int = 0, size: str = "page", progress: bool = True, profile: str = "embedded", split_seed: int = 0,
          checkpoint: Path | None = None) -> Trained:
    """Tune an encoder and a head on generated reviews, about three minutes on two cores.

    Parameters
    ----------
    seed : int
        Of the sentences, the first weights and the order of the examples.
    size : {"page", "small"}
        ``"small"`` is one pass over a few sentences, to see that everything runs.
    progress : bool
        Show a progress bar.
    profile : {"embedded", "full"}
        Which encoder; see :func:`find_encoder`.
    split_seed : int
        Of the division of the cue phrases.
    checkpoint : Path, optional
        Where to keep the state of the training, to go on from if it is cut off.

    Returns
    -------
    Trained
    """
    n, held, epochs = SIZES[size]
    parts = {part: reviews.build(count, part, seed, split_seed) for part, count in (("train", n), ("validation", held))}
    trained, _ = _tune(find_encoder(profile), parts, epochs, 128, seed, progress, checkpoint)
    return trained


def load_or_train(seed: int = 0, retrain: bool = False, size: str = "page", progress: bool = True,
                  profile: str = "embedded") -> Trained:
    """Return the reader that travels with the book, or train it again.

    Parameters
    ----------
    seed, size, progress, profile
        As for :func:`train`; what travels with the book was trained with seed 0 on MiniLM, so another encoder is
        trained in any case.
    retrain : bool
        True trains.

    Returns
    -------
    Trained
    """
    found = find_encoder(profile)
    if retrain or found.name != "minilm":
        return train(seed, size, progress, profile)
    model = bert.load(found.path, len(CLASSES))
    card = checkpoints.load(NAME, model.tune(RANK))
    return Trained(model.merge().eval(), bert.load_tokenizer(found.path), CLASSES, found, card)


def train_on(name: str, seed: int = 0, size: str = "page", progress: bool = True, profile: str = "full",
             checkpoint: Path | None = None) -> Trained:
    """Tune an encoder and a head on real sentences.

    Parameters
    ----------
    name : {"labelled-sentences", "app-reviews"}
        Two classes, or three by the number of stars.
    seed, size, progress, profile, checkpoint
        As for :func:`train`; the seed also divides the sentences into 70 % train, 10 % validation and 20 % test.

    Returns
    -------
    Trained
        With ``test``, the held-out sentences.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the sentences are not at hand.
    """
    if name not in REAL:
        raise ValueError(f"there are no sentences {name!r}; expected one of {', '.join(REAL)}.")
    loader, epochs, length = REAL[name]
    parts = reviews.divide(loader(), seed)
    if size == "small":
        parts, epochs = {part: some.select(range(48)) for part, some in parts.items()}, 1
    return _tune(find_encoder(profile), parts, epochs, length, seed, progress, checkpoint)[0]


def make(seed: int = 0, out: Path | None = None) -> Path:
    """Train the reader and keep what it learned as the checkpoint that travels with the book.

    Parameters
    ----------
    seed : int
    out : Path, optional
        Folder; default, that of the embedded checkpoints.

    Returns
    -------
    Path
        Of the weights.
    """
    n, held, epochs = SIZES["page"]
    parts = {part: reviews.build(count, part, seed) for part, count in (("train", n), ("validation", held))}
    trained, learned = _tune(find_encoder(), parts, epochs, 128, seed, True, None)
    test = reviews.build(1500, "test", seed)
    right, kinds = trained.right(test), np.array(test.kinds)
    by_kind = {kind: float(right[kinds == kind].mean()) for kind in reviews.KINDS}
    card = {
        "data": f"{n:,} generated app reviews, a third each negative, neutral and positive; held out: 1,500 others, whose "
                "cue phrases are in none of the training sentences",
        "encoder": "all-MiniLM-L6-v2 (Apache-2.0), unchanged but for the differences of rank "
                   f"{RANK} that this file holds, and the head",
        "seed": seed,
        "command": f"python -m crossexplain train {NAME} --seed {seed}",
        "accuracy": {"held out": float(right.mean()), **by_kind},
        "epochs": len(trained.history.train_loss),
        "seconds": round(trained.history.seconds, 1),
    }
    return checkpoints.save(learned, NAME, card, folder=out)


def _tune(found, parts, epochs, length, seed, progress, checkpoint):
    """Train; return the trained reader, and by itself what it learned on top of the encoder."""
    tokenizer, classes = bert.load_tokenizer(found.path), parts["train"].classes
    model = bert.load(found.path, len(classes), seed=seed)
    learned = model.tune(RANK, seed)
    batches = {part: TextBatches(tokenizer, some.texts, some.labels, length) for part, some in parts.items()}
    history = fit(model, batches["train"], batches["validation"], epochs=epochs, lr=2e-3, batch_size=32, seed=seed,
                  loss=cross_entropy, progress=progress, checkpoint=checkpoint)
    trained = Trained(model, tokenizer, classes, found, history=history, test=parts.get("test"))
    model.merge()
    return trained, learned
