"""A conversation in three modalities: each turn is read, watched and listened to by itself, then a question joins the turns."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_one_of, require_tokens
from crossexplain.models.weights import seeded

FUSIONS = ("attention", "early", "late")


class Attention(nn.Module):
    """Attention with its maps written out, so that their gradients can be read.

    Parameters
    ----------
    width, heads : int
    """

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads, self.query, self.out = heads, nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor, context: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what states (N, S, D) read, and the maps (N, heads, S, P).

        ``context`` (N, P, 2 D) holds the key and the value of each place; ``present`` (N, P) says which places there are, at
        least one of each example.
        """
        query = self.query(states).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, S, d)
        keys, values = context.unflatten(2, (2, self.heads, -1)).unbind(2)  # each (N, P, heads, d)
        scores = query @ keys.permute(0, 2, 3, 1) * query.shape[-1] ** -0.5
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None], -torch.inf)
        maps = scores.softmax(dim=-1)
        return self.out((maps @ values.transpose(1, 2)).transpose(1, 2).flatten(2)), maps


class Block(nn.Module):
    """One layer of a transformer: states attend to a context, or to each other, or to both; then two dense layers.

    Parameters
    ----------
    width : int
    across : bool
        States attend to a context first.
    """

    def __init__(self, width: int, across: bool = False):
        super().__init__()
        self.across = Attention(width) if across else None
        self.first = nn.LayerNorm(width) if across else None
        self.within, self.second, self.pairs = Attention(width), nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.dense = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: Tensor, present: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Return states (N, S, D); ``present`` belongs to the keys and values of a context, if there is one."""
        if self.across is not None and self.first is not None:
            states, present = states + self.across(self.first(states), context, present)[0], None
        normed = self.second(states)
        states = states + self.within(normed, self.pairs(normed), present)[0]
        refined: Tensor = states + self.dense(states)
        return refined


class Cells(nn.Module):
    """A small CNN that makes one vector of each picture in a row: of a frame, or of a segment of a sound.

    Parameters
    ----------
    shape : (int, int)
        Height and width of a picture, which comes as one row of numbers.
    width : int
        Of the vectors.
    """

    def __init__(self, shape: tuple[int, int], width: int):
        super().__init__()
        self.shape = tuple(shape)
        layers, channels = [], 1
        for after in (16, 32, 64):
            layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
                       nn.MaxPool2d(2, ceil_mode=True)]
            channels = after
        sides = [-(-side // 8) for side in self.shape]
        self.cnn = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], width))

    def forward(self, rows: Tensor) -> Tensor:
        """Return vectors (N, F, D) of pictures (N, F, height * width)."""
        if rows.ndim != 3 or rows.shape[2] != self.shape[0] * self.shape[1]:
            raise InputError(f"got pictures of shape {tuple(rows.shape)}, expected (N, F, {self.shape[0] * self.shape[1]}): "
                             f"each {self.shape[0]} x {self.shape[1]} in one row.")
        flat = rows.flatten(0, 1)
        if rows.requires_grad:
            return torch.unflatten(self._each(flat), 0, rows.shape[:2])
        busy = flat.any(dim=1)  # what is blank looks the same everywhere, and is encoded once
        vectors = self._each(torch.cat([flat.new_zeros(1, flat.shape[1]), flat[busy]]))
        return torch.unflatten(vectors[busy.cumsum(0) * busy], 0, rows.shape[:2])

    def _each(self, rows: Tensor) -> Tensor:
        vectors: Tensor = self.cnn(rows.reshape(-1, 1, *self.shape))
        return vectors


class Tower(nn.Module):
    """Makes one vector of each turn of one modality, from the features of that turn alone.

    Parameters
    ----------
    features : torch.nn.Module
        Makes a vector of each feature, (N, T * F, D): of each word, frame or segment.
    each : int
        Features of a turn, F.
    width : int
        D.
    """

    def __init__(self, features: nn.Module, each: int, width: int):
        super().__init__()
        self.features, self.each = features, each
        self.start, self.place = (nn.Parameter(0.02 * torch.randn(n, width)) for n in (1, each))
        self.block, self.norm = Block(width), nn.LayerNorm(width)

    def forward(self, rows: Tensor, present: Tensor) -> Tensor:
        """Return vectors (N, T, D) of features (N, T * F, ...); ``present`` (N, T * F) tells which there are."""
        if rows.shape[1] % self.each or present.shape != rows.shape[:2]:
            raise InputError(f"got {rows.shape[1]} features and a mask {tuple(present.shape)}, expected a multiple of the "
                             f"{self.each} of a turn and a mask {tuple(rows.shape[:2])}.")
        states = self.features(rows).unflatten(1, (-1, self.each)) + self.place  # (N, T, F, D)
        turns = states.flatten(0, 1)
        turns = torch.cat([self.start.expand(len(turns), 1, -1), turns], dim=1)
        present = torch.cat([present.new_ones(len(turns), 1), present.reshape(-1, self.each)], dim=1)
        vectors: Tensor = self.norm(self.block(turns, present)[:, 0]).unflatten(0, states.shape[:2])
        return vectors


class QuestionEncoder(nn.Module):
    """Reads the words of a question.

    Parameters
    ----------
    vocabulary, longest : int
        Words, and most words of a question.
    width : int
    count : int
        Vectors that are made of a question.
    """

    def __init__(self, vocabulary: int, longest: int, width: int, count: int):
        super().__init__()
        self.vocabulary, self.longest = vocabulary, longest
        self.embedding, self.place = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(longest, width))
        self.asked, self.block, self.read = nn.Parameter(torch.randn(count, width)), Block(width), Block(width, across=True)
        self.pairs = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width))

    def forward(self, question: Tensor) -> Tensor:
        """Return vectors (N, count, D) of questions (N, Q), padded with 0; each different one is read once."""
        require_tokens(question, self.vocabulary, self.longest)
        _require_one(question, "question", "word")
        question, which = question.unique(dim=0, return_inverse=True)
        states = self.embedding(question) + self.place[: question.shape[1]]
        states = self.block(states, question != 0)
        vectors: Tensor = self.read(self.asked.expand(len(question), -1, -1), question != 0, self.pairs(states))[which]
        return vectors


class Address(nn.Module):
    """Where a turn stands: a vector of its party, its place, and how many turns of the party came before it.

    Parameters
    ----------
    names : torch.nn.Embedding
        Of the words of a question, among them the names of the parties by their numbers.
    parties, turns : int
        Names, 0 for none among them, and most turns.
    """

    def __init__(self, names: nn.Embedding, parties: int, turns: int):
        super().__init__()
        self.party, self.parties, self.turns = names, parties, turns
        self.order, self.occurrence = (nn.Embedding(turns, names.embedding_dim) for _ in range(2))

    def forward(self, party: Tensor) -> Tensor:
        """Return vectors (N, T, D) of who speaks in each turn (N, T)."""
        require_tokens(party, self.parties, self.turns)
        _require_one(party, "conversation", "turn")
        before = (party[:, :, None] == party[:, None]).tril(-1).sum(dim=2)  # turns of the same party
        stand: Tensor = self.party(party) + self.order.weight[: party.shape[1]] + self.occurrence(before)
        return stand


class Attentive(nn.Module):
    """Fusion by cross-attention: vectors of the question attend to every turn of every modality.

    Parameters
    ----------
    modalities : sequence of str
    question : QuestionEncoder
    address : Address
    width, layers : int
    """

    pooled = False

    def __init__(self, modalities: Sequence[str], question: QuestionEncoder, address: Address, width: int, layers: int):
        super().__init__()
        self.question, self.address = question, address
        self.enter = nn.ModuleDict({name: nn.Linear(width, 2 * layers * width) for name in modalities})
        self.stand = nn.Linear(width, 2 * layers * width, bias=False)
        self.layers = nn.ModuleList(Block(width, across=True) for _ in range(layers))
        count = len(question.asked)
        self.head = nn.Sequential(nn.Flatten(), nn.LayerNorm(count * width), _dense(count * width, 2 * width))

    def part(self, name: str, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the keys and values of the turns of a modality in every layer, (N, T, 2 D layers), of their vectors."""
        pairs: Tensor = self.enter[name](vectors) + self.stand(self.address(inputs["party"]))
        return pairs

    def states(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what the vectors of the question have found in the parts, (N, count, D)."""
        context = torch.cat([parts[name] for name in self.enter], dim=1).chunk(len(self.layers), dim=2)  # (N, M T, 2 D) each
        present = (inputs["party"] != 0).repeat(1, len(self.enter))
        states: Tensor = self.question(inputs["question"])
        for layer, pairs in zip(self.layers, context):
            states = layer(states, present, pairs)
        return states

    def join(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return logits (N,)."""
        return self.answer(self.states(parts, inputs))

    def answer(self, states: Tensor) -> Tensor:
        """Return logits (N,) of what :meth:`states` returns."""
        logits: Tensor = self.head(states)[:, 0]
        return logits


class Summed(nn.Module):
    """Fusion of sums over the turns: the question opens gates to each turn of each modality, and what passes is added.

    Attention without the softmax: how far the gate to a turn is open depends on no other turn.

    Parameters
    ----------
    modalities, question, address, width
        As for :class:`Attentive`.
    late : bool
        Every modality has a logit of its own, and these are added; else the sums of all modalities go through dense layers.
    """

    pooled = True

    def __init__(self, modalities: Sequence[str], question: QuestionEncoder, address: Address, width: int, late: bool = False):
        super().__init__()
        self.question, self.address, self.late = question, address, late
        self.asked = nn.Sequential(nn.Flatten(), nn.Linear(len(question.asked) * width, width))
        self.enter = nn.ModuleDict({name: nn.Linear(width, width + width // len(question.asked)) for name in modalities})
        self.query, self.stand = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        before = {name: 2 for name in modalities} if late else {"all": len(modalities) + 1}
        self.head = nn.ModuleDict({name: _dense(count * width, 2 * width) for name, count in before.items()})

    def part(self, name: str, vectors: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one vector a turn of a modality, (N, T, D), of the turn and the question; 0 where there is no turn."""
        query, stand = self.query(self.question(inputs["question"])), self.stand(self.address(inputs["party"]))
        key, value = self.enter[name](vectors).tensor_split([query.shape[2]], dim=2)
        gates = ((key + stand) @ query.transpose(1, 2) * query.shape[2] ** -0.5).sigmoid()  # (N, T, count)
        seen = (gates[..., None] * value[:, :, None]).flatten(2)
        passed: Tensor = seen * (inputs["party"] != 0)[..., None]
        return passed

    def states(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the sums over the turns of each modality, then a vector of the question, (N, M + 1, D)."""
        return self._states({name: parts[name].sum(dim=1) for name in self.enter}, inputs)

    def join(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return logits (N,)."""
        return self.answer(self.states(parts, inputs))

    def join_pooled(self, pooled: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return logits (N,) of sums over the turns, each (N, D)."""
        return self.answer(self._states(pooled, inputs))

    def answer(self, states: Tensor) -> Tensor:
        """Return logits (N,) of what :meth:`states` returns."""
        *sums, asked = states.unbind(1)
        read = [torch.cat([one, asked], dim=1) for one in sums] if self.late else [states.flatten(1)]
        logits: Tensor = sum(head(one)[:, 0] for head, one in zip(self.head.values(), read))
        return logits

    def _states(self, pooled: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([*(pooled[name] for name in self.enter), self.asked(self.question(inputs["question"]))], dim=1)


class ConversationModel(nn.Module):
    """Answers a question on a conversation with yes or no, from what was said, shown and heard in each turn.

    The three towers make a vector of each turn from the features of that turn alone; who speaks, and in which place, is added
    after them. :class:`crossexplain.contract.EncodesParts` tells how that is used.

    Parameters
    ----------
    fusion : {"attention", "early", "late"}
        Vectors of the question attend to the turns of all modalities; or all turns are summed; or every modality has a logit.
    vocabulary, parties : int
        Words of turns and questions, and how many of them, from 0 for padding, are the names of parties.
    turns, question : int
        Most turns, most words of a question.
    words, frames, sound : int
        Features of a turn: words, frames, segments of the sound.
    frame, segment : (int, int)
        Height and width of a frame, bands and steps of a segment.
    width : int
        Of all vectors.
    hops : int
        Times that a question attends to the turns; where one turn is named by another ("before it"), the second time counts.
    seed : int
        Of the weights.

    Attributes
    ----------
    layers : dict of str to str
        By modality the layer that keeps one vector a feature, (N, F, D).
    pooled : bool
        Whether the fusion sees nothing but sums over the turns.
    """

    layers = {"words": "towers.words.features", "frames": "towers.frames.features", "sound": "towers.sound.features"}

    def __init__(self, fusion: str = "attention", *, vocabulary: int, parties: int, turns: int, question: int, words: int,
                 frames: int, sound: int, frame: tuple[int, int], segment: tuple[int, int], width: int = 64, hops: int = 2,
                 seed: int = 0):
        super().__init__()
        require_one_of(fusion, FUSIONS, "fusion")
        with seeded(seed):
            self.towers = nn.ModuleDict({"words": Tower(nn.Embedding(vocabulary, width), words, width),
                                         "frames": Tower(Cells(frame, width), frames, width),
                                         "sound": Tower(Cells(segment, width), sound, width)})
            reader = QuestionEncoder(vocabulary, question, width, 4)
            address = Address(reader.embedding, parties, turns)
            self.fusion: Attentive | Summed = (
                Attentive(tuple(self.layers), reader, address, width, hops) if fusion == "attention" else
                Summed(tuple(self.layers), reader, address, width, fusion == "late"))
        self.pooled = self.fusion.pooled

    def vectors(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one vector a turn of a modality, (N, T, D), whoever speaks and whatever is asked."""
        rows, tower, turns = inputs[name], cast(Tower, self.towers[name]), inputs["party"].shape[1]
        if rows.shape[1] != turns * tower.each:
            raise InputError(f"got {rows.shape[1]} features of the {name} for {turns} turns, expected {tower.each} a turn; pad "
                             "each turn, or leave out the party of turns that are not there.")
        if name == "words":
            require_tokens(rows, cast(nn.Embedding, tower.features).num_embeddings)
            present = rows
        else:
            present = inputs.get(f"{name}_present", rows.new_ones(rows.shape[:2]))
        vectors: Tensor = tower(rows, present != 0)
        return vectors

    def encode(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one vector a turn of a modality, (N, T, D), each from the features of that turn, its party and the question.

        Parameters
        ----------
        name : {"words", "frames", "sound"}
        inputs : mapping of str to Tensor
            Of the whole model.
        """
        return self.fusion.part(name, self.vectors(name, inputs), inputs)

    def join(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N,) of what :meth:`encode` returns, by modality; ``inputs`` need question and party."""
        return self.fusion.join(parts, inputs)

    def join_pooled(self, pooled: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N,) of sums over the turns, (N, D) by modality, where the fusion is ``pooled``."""
        return cast(Summed, self.fusion).join_pooled(pooled, inputs)

    def forward(self, question: Tensor, party: Tensor, words: Tensor, frames: Tensor, sound: Tensor,
                frames_present: Tensor | None = None, sound_present: Tensor | None = None) -> Tensor:
        """Return the logits (N,) of conversations.

        Parameters
        ----------
        question : Tensor of int64, shape (N, Q)
            Words, padded with 0.
        party : Tensor of int64, shape (N, T)
            Who speaks in each turn, 0 where there is none.
        words : Tensor of int64, shape (N, T * L)
            Of the turns, each padded with 0 to L.
        frames, sound : Tensor, shapes (N, T * K, height * width) and (N, T * S, bands * steps)
        frames_present, sound_present : Tensor of bool, shapes (N, T * K) and (N, T * S), optional
            Which of them there are; default all.
        """
        given = {"question": question, "party": party, "words": words, "frames": frames, "sound": sound,
                 "frames_present": frames_present, "sound_present": sound_present}
        inputs = {name: value for name, value in given.items() if value is not None}
        return self.join({name: self.encode(name, inputs) for name in self.layers}, inputs)


class Gated(nn.Module):
    """A dense layer of products, GELU(a) * b: whether a sum is even is a product, which sums of units learn slowly.

    Parameters
    ----------
    before, after : int
        Numbers of units.
    """

    def __init__(self, before: int, after: int):
        super().__init__()
        self.both = nn.Linear(before, 2 * after)

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., after) of states (..., before)."""
        gate, values = self.both(states).chunk(2, dim=-1)
        products: Tensor = nn.functional.gelu(gate) * values
        return products


def _require_one(numbers: Tensor, what: str, of: str) -> None:
    """Raise unless each row of numbers has one that is no padding."""
    empty = (numbers == 0).all(dim=1)
    if empty.any():
        raise InputError(f"{what} {int(empty.nonzero()[0, 0])} has no {of}, only padding; leave it out.")


def _dense(before: int, hidden: int, after: int = 1) -> nn.Sequential:
    return nn.Sequential(Gated(before, hidden), Gated(hidden, hidden), nn.Linear(hidden, after))
