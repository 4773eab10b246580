"""Chapter 9 on real conversations: the emotion of a turn, named from the dialogue up to it.

MiniLM reads each turn by itself, once, and stays as it is; a small head over the last turns is trained on what it read. What
is kept of a turn are the mean states of its words after two of MiniLM's middle layers, from which emotions are read better than
from the last one (chosen on the validation part). Words, marks and weights stay in the local cache: they are not the project's
to hand on.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossexplain.data import dialogues, store
from crossexplain.data.dialogues import EMOTIONS, Dialogue
from crossexplain.models import bert, checkpoints, encodings
from crossexplain.models.bert import TextBatches
from crossexplain.models.dialogue import DialogueHead
from crossexplain.models.encodings import Encodings
from crossexplain.models.training import fit
from crossexplain.models.weights import WeightsError, seeded
from crossexplain.recipes import Recipe, Trained, keep, state_file, with_checkpoint

NAME = "dialogues"
TURNS = 10  # of a window; of the 9,414 marked causes that are not later than their turn, 12 are longer ago
LAYERS = (3, 4)  # of MiniLM's six
LONGEST = 64  # tokens of a turn
MAIN = ("Joey", "Ross", "Rachel", "Phoebe", "Monica", "Chandler")
SPEAKERS = len(MAIN) + 2  # the main characters, anybody else, and whether it is the speaker of the turn that is named
SETTINGS = {"width": 64, "dropout": 0.5, "hidden": 0.25}
TRAINING = {"page": (9, 1.5e-3), "small": (1, 1.5e-3)}  # epochs, highest learning rate


@dataclass(frozen=True)
class Windows:
    """Turns to name, each with the turns before it, at most ``TURNS`` in all; the turn itself stands last.

    Attributes
    ----------
    dialogues : list of Dialogue
    vectors : Tensor, shape (turns of all dialogues, features)
        What each turn says; mean 0 and variance 1 over the training part.
    who : Tensor of int64, shape (turns of all dialogues,)
        A number for each speaker; the ``MAIN`` characters first.
    labels : Tensor of int64, shape (N,)
        Number of the emotion of each turn that is named.
    dialogue, turn : ndarray of int64, shape (N,)
        Which turn of which dialogue is named.
    rows : Tensor of int64, shape (N, T)
        Of ``vectors``; -1 where there is no turn.
    own : bool
        False hides what the turn itself says: its emotion has to be guessed from who speaks and from what came before.
    """

    dialogues: Sequence[Dialogue]
    vectors: Tensor
    who: Tensor
    labels: Tensor
    dialogue: np.ndarray
    turn: np.ndarray
    rows: Tensor
    own: bool = True

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue], vectors: Tensor, own: bool = True) -> "Windows":
        """Return one window for each turn of dialogues, whose turns have the vectors in order."""
        lengths = [len(one.turns) for one in dialogues]
        dialogue = np.repeat(np.arange(len(lengths)), lengths)
        turn = np.concatenate([np.arange(length) for length in lengths])
        back = torch.arange(TURNS - 1, -1, -1)
        rows = torch.arange(len(turn))[:, None] - back
        said = [turn for one in dialogues for turn in one.turns]
        numbers = {name: number for number, name in enumerate(dict.fromkeys((*MAIN, *(turn.speaker for turn in said))))}
        who, labels = (torch.tensor([numbers[turn.speaker] for turn in said]),
                       torch.tensor([EMOTIONS.index(turn.emotion) for turn in said]))
        rows = rows.where(torch.from_numpy(turn)[:, None] >= back, -1)
        return cls(dialogues, vectors, who, labels, dialogue, turn, rows, own)

    def __len__(self) -> int:
        return len(self.turn)

    def select(self, indices: np.ndarray) -> "Windows":
        """Return some windows."""
        return replace(self, labels=self.labels[indices], dialogue=self.dialogue[indices], turn=self.turn[indices],
                       rows=self.rows[indices])

    @property
    def causes(self) -> np.ndarray:
        """Which turns of the window people marked as a cause, bool (N, T)."""
        return np.array([np.isin(t - TURNS + 1 + np.arange(TURNS), self.dialogues[i].causes(t))
                         for i, t in zip(self.dialogue, self.turn)])

    @property
    def by_others(self) -> np.ndarray:
        """Which turns of the window somebody else speaks, bool (N, T)."""
        return ((self.who[self.rows] != self.who[self.rows[:, -1:]]) & (self.rows >= 0)).numpy()

    @property
    def groups(self) -> tuple[list[str], dict[str, Tensor]]:
        """Names and owners of the turns, for :class:`~crossexplain.gradients.groups.Groups`: what is said and who speaks."""
        owner = torch.arange(TURNS).where(self.rows >= 0, -1)
        names = [*(f"{back} turns before" for back in range(TURNS - 1, 1, -1)), "the turn before", "the turn itself"]
        return names, {"words": owner, "speakers": owner}

    def inputs(self) -> dict[str, Tensor]:
        """Return what the head takes."""
        present, who = self.rows >= 0, self.who[self.rows]
        speakers = torch.cat([one_hot(who.clamp(max=len(MAIN)), len(MAIN) + 1), (who == who[:, -1:])[..., None]], dim=2)
        said = present & (self.own | (torch.arange(TURNS) < TURNS - 1))
        return {"words": self.vectors[self.rows] * said[..., None], "speakers": speakers * present[..., None].float(),
                "present": present}

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and labels of some windows."""
        some = self.select(np.asarray(indices))
        return some.inputs(), some.labels


@dataclass(frozen=True)
class Encoded:
    """All dialogues, and what MiniLM read in their turns.

    Attributes
    ----------
    parts : dict of str to list of Dialogue
    encodings : Encodings
        One row a turn, of all parts in their order.
    """

    parts: Mapping[str, Sequence[Dialogue]]
    encodings: Encodings

    def windows(self, own: bool = True) -> dict[str, Windows]:
        """Return the windows of each part."""
        sizes = [sum(len(one.turns) for one in part) for part in self.parts.values()]
        vectors = self.encodings[np.arange(sum(sizes))]
        known = vectors[:sizes[0]]  # of the training part
        vectors = (vectors - known.mean(dim=0)) / known.std(dim=0).clamp(min=1e-3)
        return {name: Windows.of(part, some, own) for (name, part), some in zip(self.parts.items(), vectors.split(sizes))}


def encode(parts: Mapping[str, Sequence[Dialogue]] | None = None, progress: bool = True, where: Path | None = None) -> Encoded:
    """Let MiniLM read every turn by itself, or use what it read before; the first time takes about two minutes on one core.

    Parameters
    ----------
    parts : mapping of str to sequence of Dialogue, optional
        ``"train"`` first; default, those of :func:`crossexplain.data.dialogues.load`.
    progress : bool
    where : Path, optional
        Folder of all encodings; default, that in the local cache.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the dialogues are not available.
    """
    parts = dialogues.load() if parts is None else parts
    folder = store.find("minilm").path
    encoder, tokenizer = bert.load(folder, 2).encoder, bert.load_tokenizer(folder)
    texts = [turn.text for part in parts.values() for one in part for turn in one.turns]
    return Encoded(parts, _encodings(encoder, tokenizer, texts, progress, where))


def _encodings(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], progress: bool,
               where: Path | None) -> Encodings:
    """Return the mean states of each text after ``LAYERS``, rows (len(LAYERS) * D,)."""
    read = TextBatches(tokenizer, texts, np.zeros(len(texts), int), LONGEST)

    def forward(**inputs: Tensor) -> Tensor:
        states = encoder(**inputs, output_hidden_states=True).hidden_states
        mask = inputs["attention_mask"][..., None].float()
        return torch.cat([(states[layer] * mask).sum(dim=1) / mask.sum(dim=1) for layer in LAYERS], dim=1)

    where = where or store.cache() / "encodings"
    return encodings.encode(encoder, lambda rows: read.batch(torch.tensor(rows))[0], texts, where, forward=forward,
                            settings={"layers": LAYERS, "pooled": "mean", "max_length": LONGEST},
                            lengths=[len(ids) for ids in read.ids], batch_size=64, shard_size=2048, progress=progress)


def train(seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None, **options: Any) -> Trained:
    """Train the head, half a minute on one core.

    Parameters
    ----------
    seed, size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    options
        ``encoded``, an :class:`Encoded`; ``context=False`` reads the turn alone, ``own=False`` all but what it says;
        others take the place of ``SETTINGS``.

    Returns
    -------
    Trained
        ``model`` is the head; ``data`` the windows of each part.
    """
    trained = _begin(seed, progress, size=size, **options)
    epochs, lr = TRAINING[size]
    history = fit(trained.model, trained.data["train"], trained.data["validation"], epochs=epochs, lr=lr, seed=seed,
                  loss=cross_entropy, batch_size=128, weight_decay=0.05, progress=progress,
                  checkpoint=state_file(resume, trained.file or NAME, seed))
    trained.model.requires_grad_(False)
    return replace(trained, histories={"training": history})


def load(seed: int = 0, size: str = "page", progress: bool = True, **options: Any) -> Trained | None:
    """Return the head that was trained here before on the same encodings with the same settings, or None."""
    try:
        return with_checkpoint(_begin(seed, progress, size=size, **options), folder())
    except WeightsError:
        return None  # not trained yet, or damaged


def train_and_keep(seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None,
                   **options: Any) -> Trained:
    """Train the head as :func:`train` does and keep it for :func:`load`."""
    trained = train(seed, size, progress, resume, **options)
    keep(trained, folder())
    return replace(trained, card=checkpoints.read_card(trained.file or NAME, folder()))


def _begin(seed: int, progress: bool, *, size: str = "page", encoded: Encoded | None = None, context: bool = True,
           own: bool = True, **settings: Any) -> Trained:
    """Return a head that is still to be trained or loaded; the name of its file depends on all that it is made from."""
    encoded, chosen = encode(progress=progress) if encoded is None else encoded, SETTINGS | settings
    about = {"seed": seed, "settings": chosen, "context": context, "own": own, "size": size,
             "read": encoded.encodings.folder.name,
             "marks": {name: [[(turn.emotion, turn.speaker) for turn in one.turns] for one in part]
                       for name, part in encoded.parts.items()}}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    with seeded(seed):
        model = DialogueHead(encoded.encodings.shape[0], SPEAKERS, TURNS, len(EMOTIONS), context=context, **chosen).eval()
    return Trained(name=NAME, model=model, data=encoded.windows(own), seed=seed, file=f"{NAME}-{key}")


def folder() -> Path:
    """Return the folder of the heads that were trained here, in the local cache."""
    return store.cache() / "heads"


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    history = trained.histories["training"]
    return {"data": f"Emotion-Cause in Friends, {len(trained.data['train']):,} turns; held out: those of the validation part, "
                    "on which the epoch was chosen. For research only: not to be handed on.",
            "accuracy": {"validation": history.validation_score[history.best_epoch]}}


RECIPES = {NAME: Recipe(NAME, train_and_keep, load, card, folder=folder)}
