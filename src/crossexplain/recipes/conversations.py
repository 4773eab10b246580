"""Chapter 9: a question about a conversation, answered from what was said, shown and heard in each turn.

Each tower first learns to name the digit of one turn, or that there is none. The fusion then learns on conversations that are
drawn as symbols, with vectors that the towers made of turns with these digits: first to find the digits that a question names,
then its last layers alone to answer from what was found. In some conversations parts are hidden; nothing tells the answer
there, so that a model learns to say neither yes nor no where what decides is missing.

``data`` of a trained model are the :class:`~crossexplain.data.conversations.Conversations`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.data import conversations
from crossexplain.data.conversation_draws import answer, draw, values_of
from crossexplain.data.conversation_frames import frame_counts, frames_with_digit
from crossexplain.data.conversation_sounds import segment_of_digit
from crossexplain.data.conversation_words import FIRST_NUMBER, TASKS, turn_words
from crossexplain.data.conversations import KINDS, MODALITIES, Batch, Conversations
from crossexplain.models.conversation import ConversationModel, Tower
from crossexplain.models.training import TensorBatches, accuracy, binary_loss, fit
from crossexplain.models.weights import seeded
from crossexplain.recipes import Recipe, Trained, by_kind, load_or_train, state_file, with_checkpoint

FUSIONS = {"conversations": "attention", "conversations_early": "early", "conversations_late": "late",
           "conversations_voices": "attention"}
NONE = 10  # the class of a turn without a digit
NAMING = {"words": (2, 6_000), "frames": (6, 12_000), "sound": (4, 8_000), "voices": (16, 6_000)}  # epochs, turns of an epoch
PLANS = {  # epochs, and conversations that are drawn, for finding and for answering
    "conversations": ((5, 150_000), (10, 240_000)), "conversations_early": ((3, 150_000), (6, 120_000)),
    "conversations_late": ((2, 150_000), (4, 120_000)), "conversations_voices": ((2, 150_000), (6, 240_000)),
}
RATE = 3e-3  # the highest learning rate of each step
PARTS = (NONE + 1, NONE + 1, NONE + 1, len(TASKS), 2, 10)  # what is told beside the answer: digits, task, flipped, threshold
UNITS = 8 * len(KINDS)  # conversations in the smallest set with all kinds
TEST = 50 * UNITS  # held-out conversations


class Turns:
    """Turns by themselves, drawn anew each time: what one modality of them is, and which digit it holds.

    Parameters
    ----------
    data : Conversations
    name : str
        Of the modality.
    split : {"train", "validation", "test"}
    n : int
        Turns of an epoch.
    bend : bool
        Make every segment a little longer or shorter, higher or lower, as other speakers would say it.
    """

    def __init__(self, data: Conversations, name: str, split: str, n: int, bend: bool = False):
        self.name, self.n, self.bend, made = name, n, bend, data.build(split, UNITS, 0)
        self.frames, self.sounds = made.frames_of, made.sounds_of

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return ``rows`` (R, F, ...) with ``present`` (R, F), and the digits (R,), ``NONE`` for none."""
        n = len(indices)
        seeds = torch.randint(2**62, (n,)).numpy()
        digits = torch.where(torch.rand(n) < 0.2, -1, torch.randint(10, (n,)))
        rows, holding = self._drawn(digits.numpy(), seeds)
        # In a quarter of the turns all features are hidden or missing, in a quarter some; a digit that is hidden is not there.
        shares = torch.tensor([0.0, 0.0, 0.4, 1.0])[torch.randint(4, (n, 1))]
        hidden, missing = torch.rand(holding.shape) < shares, torch.rand(n, 1) < 0.5
        if self.name == "frames":
            late = torch.arange(conversations.K) >= torch.from_numpy(frame_counts(seeds))[:, None]
            hidden, missing = hidden | late, missing | late
        digits = digits.where((holding & ~hidden).any(dim=1), torch.full_like(digits, NONE))
        rows = bent(rows) if self.bend else rows
        rows = rows.masked_fill(hidden if rows.ndim == 2 else hidden[..., None], 0)
        return {"rows": rows, "present": rows != 0 if self.name == "words" else ~(hidden & missing)}, digits

    def fixed(self) -> TensorBatches:
        """Return turns that were drawn once."""
        return TensorBatches(*self.batch(torch.arange(self.n)))

    def _drawn(self, digits: np.ndarray, seeds: np.ndarray) -> tuple[Tensor, Tensor]:
        if self.name == "words":
            rows = turn_words(digits, seeds)[0]
            holding = (rows == FIRST_NUMBER + digits[:, None]) & (digits[:, None] >= 0)
        elif self.name == "frames":
            rows, holding = self.frames.draw(digits, seeds), frames_with_digit(digits, seeds)
        else:
            rows = self.sounds.draw(seeds % len(conversations.NAMES), digits, seeds)
            holding = (np.arange(rows.shape[1]) == segment_of_digit(seeds)[:, None]) & (digits[:, None] >= 0)
        drawn = torch.from_numpy(rows)
        return drawn.flatten(2) if drawn.ndim > 2 else drawn, torch.from_numpy(holding)


def bent(rows: Tensor) -> Tensor:
    """Return segments (R, S, MELS * STEPS) stretched and moved in time and in pitch, louder or softer, some bands missing."""
    patches = rows.reshape(-1, 1, conversations.MELS, conversations.STEPS)
    n = len(patches)
    change = (2 * torch.rand(n, 2, 2) - 1) * torch.tensor([[0.4, 0.3], [0.2, 0.2]])  # of time and of pitch: stretch, move
    grid = torch.cat([torch.eye(2) + torch.diag_embed(change[:, :, 0]), change[:, :, 1:]], dim=2)  # (n, 2, 3)
    patches = nn.functional.grid_sample(patches, nn.functional.affine_grid(grid, list(patches.shape), align_corners=False),
                                        align_corners=False)
    for axis in (2, 3):
        count = patches.shape[axis]
        first, many, at = torch.randint(count, (n, 1)), torch.randint(count // 5 + 1, (n, 1)), torch.arange(count)
        gone = (at >= first) & (at < first + many)
        patches = patches.masked_fill(gone[:, None, :, None] if axis == 2 else gone[:, None, None], 0)
    return (patches * (0.85 + 0.3 * torch.rand(n, 1, 1, 1))).reshape(rows.shape)


class Namer(nn.Module):
    """A tower with a layer that names the digit of a turn; only used to train the tower.

    Parameters
    ----------
    tower : Tower
    """

    def __init__(self, tower: Tower):
        super().__init__()
        self.tower, self.head = tower, nn.Linear(tower.start.shape[1], NONE + 1)

    def forward(self, rows: Tensor, present: Tensor) -> Tensor:
        """Return logits (R, 11) of turns (R, F, ...)."""
        logits: Tensor = self.head(self.tower(rows, present)[:, 0])
        return logits


class Finder(nn.Module):
    """The fusion, with a layer that tells what was asked and found; only used to train the fusion on vectors of turns.

    Parameters
    ----------
    model : ConversationModel
    """

    def __init__(self, model: ConversationModel):
        super().__init__()
        self.fusion, self.tell = model.fusion, nn.LazyLinear(sum(PARTS))

    def forward(self, question: Tensor, party: Tensor, **vectors: Tensor) -> Tensor:
        """Return the logit, then the logits of ``PARTS``, (N, 1 + 50), of vectors (N, T, D) of each modality."""
        inputs = {"question": question, "party": party}
        found = self.fusion.states({name: self.fusion.part(name, part, inputs) for name, part in vectors.items()}, inputs)
        return torch.cat([self.fusion.answer(found)[:, None], self.tell(found.flatten(1))], dim=1)


class Answerer(nn.Module):
    """The last layers of the fusion, given what was found.

    Parameters
    ----------
    model : ConversationModel
    """

    def __init__(self, model: ConversationModel):
        super().__init__()
        self.fusion = model.fusion

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits (N,)."""
        return self.fusion.answer(states)


def finding_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the answers, and of what is told beside them (-100 where nothing is)."""
    told = zip(outputs[:, 1:].split(PARTS, dim=1), labels[:, 1:].unbind(1))
    losses = [nn.functional.cross_entropy(logits, right, ignore_index=-100) for logits, right in told]
    return binary_loss(outputs[:, 0], labels[:, 0]) + torch.stack(losses).sum()


def finding_score(outputs: Tensor, labels: Tensor) -> float:
    """Return the share of right answers."""
    return accuracy(outputs[:, 0], labels[:, 0])


class Symbolic:
    """Conversations drawn as symbols, in units of eight, with vectors that the towers made of turns with these digits.

    Parameters
    ----------
    bank : dict of str to Tensor, shape (11, B, D)
        By modality vectors of turns with each digit, and of turns without.
    n, seed : int
        How many conversations, and of the draw.
    only : sequence of str
        Modalities in which there are digits.
    """

    def __init__(self, bank: Mapping[str, Tensor], n: int, seed: int, only: Sequence[str] = MODALITIES):
        symbols = draw(n, KINDS, None, np.random.default_rng([seed, 9]))
        self.bank, values = bank, values_of(symbols.digits, symbols.references)
        self.gone = torch.tensor([name not in only for name in MODALITIES])
        told = [symbols.task, symbols.flipped, np.where(np.isin(symbols.task, [TASKS.index("above"), TASKS.index("total")]),
                                                       symbols.threshold % 10, -100)]
        labels = answer(symbols.task, symbols.flipped, symbols.threshold, values)
        self.labels = torch.from_numpy(np.column_stack([labels, np.where(values < 0, NONE, values), *told])).long()
        self.question, self.party, self.digits = (torch.from_numpy(getattr(symbols, name)).unflatten(0, (-1, 8))
                                                  for name in ("question", "party", "digits"))
        self.references = torch.from_numpy(symbols.references)

    def __len__(self) -> int:
        return len(self.party)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the inputs of :class:`Finder` and the labels of its outputs, for units with these numbers."""
        party, digits, question = (part[indices].flatten(0, 1) for part in (self.party, self.digits, self.question))
        n, labels = len(party), self.labels.unflatten(0, (-1, 8))[indices].flatten(0, 1)
        # In a third of the conversations some parts are hidden, in half of these whole modalities too.
        hidden = torch.rand(n, 1, 1) < 1 / 3
        shares = torch.tensor([0.2, 0.5])[torch.randint(2, (n, 1, 1))]
        whole = torch.rand(n, 1, 3) < torch.tensor([0.0, 0.5])[torch.randint(2, (n, 1, 1))]
        digits = digits.masked_fill(hidden & ((torch.rand(digits.shape) < shares) | whole) | self.gone | (digits < 0), NONE)
        references = self.references.unflatten(0, (-1, 8))[indices].flatten(0, 1)
        found = digits[torch.arange(n)[:, None], references[:, :, 2], references[:, :, 0]]
        labels[:, 1:4] = found.where(references[:, :, 0] >= 0, torch.full_like(found, NONE))
        vectors = {name: part[digits[:, :, i], torch.randint(part.shape[1], party.shape)]
                   for i, (name, part) in enumerate(self.bank.items())}
        return {"question": question, "party": party, **vectors}, labels


def new_model(name: str = "conversations", seed: int = 0) -> ConversationModel:
    """Return a model with random weights."""
    return ConversationModel(FUSIONS[name], vocabulary=len(conversations.VOCABULARY), parties=len(conversations.NAMES) + 1,
                             turns=conversations.T, question=conversations.Q, words=conversations.L, frames=conversations.K,
                             sound=conversations.S, frame=(conversations.SIDE,) * 2,
                             segment=(conversations.MELS, conversations.STEPS), seed=seed)


def train(name: str = "conversations", seed: int = 0, size: str = "page", progress: bool = True, resume: Path | None = None, *,
          data: Conversations | None = None, only: Sequence[str] = MODALITIES,
          towers: nn.Module | None = None, plan: Sequence[tuple[int, int]] | None = None) -> Trained:
    """Train a model: towers name digits, then the fusion finds those that a question names, and answers.

    Parameters
    ----------
    name : str
        Of the recipe. The siblings take the towers of ``"conversations"``, and ``"conversations_voices"`` all but the sound.
    seed, size, progress, resume
        As for :class:`crossexplain.recipes.Recipe`.
    data : Conversations, optional
    only : sequence of str
        What the fusion gets; the other modalities are hidden in all conversations, and have to be in the test.
    towers : torch.nn.Module, optional
        Of a model, which have learned to name digits; default, for all but ``"conversations"``, those that travel with the
        book.
    plan : pair of (int, int), optional
        Epochs and conversations for finding, and for answering; default that of ``PLANS``.

    Returns
    -------
    Trained
    """
    small, voices, state = size == "small", name == "conversations_voices", partial(state_file, resume, name, seed)
    data = data or conversations.load("fsdd" if voices else "embedded")
    model, histories = new_model(name, seed), {}
    settings: dict[str, Any] = {"seed": seed, "progress": progress, "lr": RATE}
    if towers is None and name != "conversations":
        towers = load_or_train("conversations").model.towers
    if towers is not None:
        model.towers.load_state_dict(towers.state_dict())
    if voices:
        model.fusion.load_state_dict(load_or_train("conversations").model.fusion.state_dict())
    for modality in MODALITIES if towers is None else ("sound",) if voices else ():
        epochs, n = (1, 256) if small else NAMING["voices" if voices else modality]
        with seeded(seed):
            namer = Namer(cast(Tower, model.towers[modality]))
            held_out = Turns(data, modality, "validation", 200 if small else 2000).fixed()
        histories[modality] = fit(namer, Turns(data, modality, "train", n, bend=voices), held_out, epochs=epochs, batch_size=64,
                                  loss=nn.functional.cross_entropy, half=True, **settings, checkpoint=state(modality))
    model.requires_grad_(False).eval()
    finding, answering = plan or ([(1, UNITS)] * 2 if small else PLANS[name])
    with seeded(seed):
        finder, vectors = Finder(model), bank(model, data, 8 if small else 400, bend=voices)
        held_out = seen(model, data.build("validation", UNITS if small else 10 * UNITS, 0), only)
        finder(**held_out.batch(torch.arange(2))[0])  # shapes the layer that tells
    model.fusion.requires_grad_(True)
    histories["finding"] = fit(finder, Symbolic(vectors, finding[1], seed, only), held_out, epochs=finding[0], batch_size=30,
                               loss=finding_loss, score=finding_score, half=True, **settings, checkpoint=state("finding"))
    model.requires_grad_(False)
    with seeded(seed):
        sets = [found(model, batches) for batches in (Symbolic(vectors, answering[1], seed + 1000, only), held_out)]
    model.fusion.head.requires_grad_(True)
    histories["answering"] = fit(Answerer(model), *sets, epochs=answering[0], **settings, checkpoint=state("answering"))
    return Trained(name=name, model=model.requires_grad_(False).eval(), data=data, seed=seed, histories=histories)


def load(name: str = "conversations", **_: object) -> Trained:
    """Return the model that travels with the book."""
    source = "fsdd" if name == "conversations_voices" else "embedded"
    return with_checkpoint(Trained(name=name, model=new_model(name), data=conversations.load(source)))


@torch.no_grad()
def bank(model: ConversationModel, data: Conversations, each: int, bend: bool = False) -> dict[str, Tensor]:
    """Return by modality vectors (11, B, D) of training turns with each digit, and of turns without one; drawn at random."""
    vectors = {}
    for name in MODALITIES:
        n = max(12 * each, 480)  # of fewer turns a digit may be in none
        drawn, digits = Turns(data, name, "train", 1, bend and name == "sound").batch(torch.arange(n))
        parts = [model.towers[name](rows, present)[:, 0] for rows, present in
                 zip(drawn["rows"].split(1000), drawn["present"].split(1000))]
        groups = [torch.cat(parts)[digits == digit] for digit in range(NONE + 1)]
        vectors[name] = torch.stack([group[torch.arange(each) % len(group)] for group in groups])
    return vectors


@torch.no_grad()
def seen(model: ConversationModel, batch: Batch, only: Sequence[str] = MODALITIES) -> TensorBatches:
    """Return conversations as :class:`Finder` takes them, each turn encoded once."""
    parts = [hide(batch.inputs(part.numpy()), only) for part in torch.arange(len(batch)).split(240)]
    vectors = {name: torch.cat([model.vectors(name, part) for part in parts]) for name in MODALITIES}
    given = {name: torch.cat([part[name] for part in parts]) for name in ("question", "party")}
    return TensorBatches(given | vectors, torch.from_numpy(batch.labels)[:, None].float())


@torch.no_grad()
def found(model: ConversationModel, batches: Symbolic | TensorBatches, size: int = 120) -> TensorBatches:
    """Return what the fusion finds in the conversations of :func:`seen` or :class:`Symbolic`, with the answers."""
    states, labels = [], []
    for part in torch.arange(len(batches)).split(size):
        vectors, told = batches.batch(part)
        inputs = {name: vectors.pop(name) for name in ("question", "party")}
        parts = {name: model.fusion.part(name, one, inputs) for name, one in vectors.items()}
        states.append(model.fusion.states(parts, inputs))
        labels.append(told[:, 0].float())
    return TensorBatches({"states": torch.cat(states)}, torch.cat(labels))


def hide(inputs: Mapping[str, Tensor], only: Sequence[str]) -> dict[str, Tensor]:
    """Return inputs in which nothing is said, shown or heard in the modalities that are not named."""
    return {name: part if name not in MODALITIES or name in only else torch.zeros_like(part) for name, part in inputs.items()}


@torch.no_grad()
def logits(model: ConversationModel, batch: Batch, only: Sequence[str] = MODALITIES) -> Tensor:
    """Return the logits of conversations, (N,), with the modalities hidden that are not named."""
    return torch.cat([model(**hide(batch.inputs(part.numpy()), only)) for part in torch.arange(len(batch)).split(240)])


def tested(trained: Trained, seed: int = 0, n: int = TEST, only: Sequence[str] = MODALITIES) -> dict[str, float]:
    """Return the accuracy of a model on held-out conversations, ``"all"`` and by kind; ``only`` as for :func:`logits`."""
    batch = trained.data.build("test", n, seed)
    return by_kind((logits(trained.model, batch, only).numpy() > 0) == batch.labels, batch.kinds)


def card(trained: Trained) -> dict[str, Any]:
    """Return what the card of the checkpoint says of data and accuracy."""
    voices = trained.name == "conversations_voices"
    sound = "digits said by real voices, of other speakers in each part" if voices else "dialled digits"
    drawn = sum(n for _, n in PLANS[trained.name])
    return {"data": f"generated conversations: {drawn:,} drawn as symbols, with what the towers made of training turns; words, "
                    f"handwritten digits and {sound}; held out: {TEST:,} conversations of other digits and takes",
            "notes": "The towers learned to name the digit of a turn. The fusion learned to tell, beside the answer, what is "
                     "asked and which digits the question names; in a third of the conversations some turns or modalities "
                     "were hidden, so that where what decides is missing it learned to say neither yes nor no.",
            "accuracy": tested(trained)}


RECIPES = {name: Recipe(name, partial(train, name), partial(load, name), card) for name in FUSIONS}
