"""Small models of many kinds: towers for pictures, words and vectors, ways to join them, and ways to hand out the logits."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import SequenceClassifierOutput

WORDS = 12  # entries of the vocabulary: padding, mask, begin, end, and eight words
# Of norms over a few channels, so large that they are no step functions, whose gradients would be rounding in half precision.
EPS = 0.1


class Attend(nn.Module):
    """Self-attention with one head, which hands out its map as the second entry, as Hugging Face's encoders do."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        scores = (self.query(x) @ self.key(x).mT).masked_fill(~counts[:, None], -1e4)
        attention = scores.softmax(dim=-1)[:, None]  # (N, 1, L, L)
        return attention[:, 0] @ self.value(x), attention


class Block(nn.Module):
    """A transformer's block, (N, L, D) or, sequence first, (L, N, D)."""

    def __init__(self, width: int, first: bool = False):
        super().__init__()
        self.attend, self.dense, self.first = Attend(width), nn.Linear(width, width), first

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        y = x.transpose(0, 1) if self.first else x
        y = y + self.attend(y, counts)[0]
        y = y + torch.tanh(self.dense(y))
        return y.transpose(0, 1) if self.first else y


class Mix(nn.Module):
    """A step along the last axis, of a kind that says nothing about the layout."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(x @ self.weight)


class Sight(nn.Module):
    """Pictures (N, C, 2 r, 2 c) to a sequence (N, L, D)."""

    def __init__(self, kind: str, channels: int, width: int, special: int):
        super().__init__()
        self.kind = kind
        if kind in ("conv", "batch norm", "group norm"):
            self.conv, self.act, self.pool = nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2)
            self.norm = {"conv": nn.Identity(), "batch norm": nn.BatchNorm2d(width),
                         "group norm": nn.GroupNorm(1, width, eps=EPS)}[kind]
        else:
            self.cut = nn.Conv2d(channels, width, 2, 2)
            self.mix, self.norm = Mix(width), nn.LayerNorm(width, eps=EPS)
        if kind in ("patches", "patches first"):
            self.block = Block(width, first=kind == "patches first")
            self.special = nn.Parameter(torch.randn(1, special, width))

    def forward(self, images: Tensor) -> Tensor:
        if hasattr(self, "conv"):
            return self.pool(self.act(self.norm(self.conv(images)))).flatten(2).mT
        x = self.cut(images)
        if self.kind == "channels last":
            return self.mix(self.norm(x.permute(0, 2, 3, 1))).flatten(1, 2)
        x = torch.cat([self.special.expand(len(x), -1, -1), x.flatten(2).mT], dim=1)
        x = x + torch.cos(torch.arange(x.shape[1], dtype=torch.float32))[None, :, None].to(x)
        counts = torch.ones(x.shape[:2], dtype=torch.bool)
        if self.kind == "patches first":
            return self.mix(self.block(x.transpose(0, 1), counts)).transpose(0, 1)
        return self.norm(self.mix(self.block(x, counts)))


class Watching(nn.Module):
    """Videos (N, C, T, H, W) to a sequence (N, L, D)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, width, 3, padding=1)

    def forward(self, film: Tensor) -> Tensor:
        return torch.tanh(self.conv(film)).flatten(2).mT


class Reading(nn.Module):
    """Word ids (N, T) to a sequence (N, T, D), or (N, 1, D) of a bag of words."""

    def __init__(self, kind: str, width: int, names: tuple[str, ...]):
        super().__init__()
        self.kind, self.names, self.first = kind, names, kind.endswith("first")
        self.embedding = nn.EmbeddingBag(WORDS, width, mode="sum") if kind == "bag" else nn.Embedding(WORDS, width)
        if kind != "bag":
            nn.init.normal_(self.embedding.weight)
        self.types, self.places = nn.Embedding(3, width), nn.Embedding(16, width)
        which = kind.partition(" ")[0]
        if which in ("lstm", "packed", "gru"):
            self.mixer = (nn.GRU if which == "gru" else nn.LSTM)(width, width, batch_first=not self.first)
        elif which == "encoder":
            layer = nn.TransformerEncoderLayer(width, 1, 4, dropout=0.0, layer_norm_eps=EPS, batch_first=not self.first)
            self.mixer = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        elif which == "block":
            self.mixer = Block(width, self.first)

    def forward(self, tokens: Tensor, counts: Tensor, lengths: Tensor | None, types: Tensor | None,
                places: Tensor | None) -> Tensor:
        if self.kind == "bag":
            return self.embedding(tokens)[:, None]
        turn = (lambda x: x.transpose(0, 1)) if self.first else (lambda x: x)
        x = self.embedding(turn(tokens))
        if types is not None:
            x = x + self.types(turn(types))
        if places is not None:
            x = x + self.places(turn(places))
        which = self.kind.partition(" ")[0]
        if which == "packed":
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=not self.first, enforce_sorted=False)
            x, _ = pad_packed_sequence(self.mixer(packed)[0], batch_first=not self.first, total_length=tokens.shape[1])
        elif which in ("lstm", "gru"):
            x = self.mixer(x)[0]
        elif which == "encoder":
            x = self.mixer(x, src_key_padding_mask=~counts)
        elif which == "block":
            x = self.mixer(x, counts)
        return turn(x)


class Hearing(nn.Module):
    """Vectors (N, F, D) to a sequence of the same shape."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, sound: Tensor) -> Tensor:
        return torch.tanh(self.linear(sound))


class Weighing(nn.Module):
    """Columns of a table (N, F) to a sequence (N, 1, D)."""

    def __init__(self, columns: int, width: int):
        super().__init__()
        self.linear = nn.Linear(columns, width)

    def forward(self, table: Tensor) -> Tensor:
        return torch.tanh(self.linear(table))[:, None]


@dataclass
class Answer:
    """An output of a class of its own."""

    logits: Tensor
    features: Tensor


@dataclass
class Scores:
    """An output of a class of its own that names no logits."""

    scores: Tensor
    features: Tensor


class Net(nn.Module):
    """Towers whose sequences are pooled and joined.

    Attributes
    ----------
    takes : tuple of str
        The keywords; any other is an error, as of a function with these arguments.
    output : str
        How the logits are handed out, one of ``OUTPUTS``.
    blind : str
        A tower without a graph: ``"no_grad sight"``, ``"inference sight"``, ``"rounded sight"``, ``"unused sight"`` and the
        same of the other towers; or ``""``. ``"twice sight"`` runs it a second time, on pictures turned upside down.
    """

    def __init__(self, towers: Mapping[str, nn.Module], takes: tuple[str, ...], width: int, classes: int, join: str,
                 reads: str = "padding too"):
        super().__init__()
        for name, tower in towers.items():
            setattr(self, name, tower)
        self.towers, self.takes, self.join, self.reads = tuple(towers), takes, join, reads
        self.output, self.blind, self.recompute, self.extra = "logits", "", False, ""
        self.squashed = False  # whether the logits of the answers by hand are those that are handed out, after a sigmoid
        if join == "joint":
            self.joint, self.after = Block(width), nn.LayerNorm(width, eps=EPS)
        if join == "cross":
            self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(0.3)
        self.mlp = nn.Sequential(nn.Linear(width * (len(towers) if join == "concat" else 1), width), nn.Tanh(), self.dropout)
        self.head, self.shift = nn.Linear(width, classes), nn.Parameter(torch.randn(()))
        with torch.no_grad():
            self.head.weight *= 3
            self.head.bias += torch.randn(classes)

    # ------------------------------------------------------------ the logits

    def sequences(self, inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return for each tower its sequence (N, L, D) and which of its positions count (N, L)."""
        return [self._seen(name, inputs) for name in self.towers]

    def _seen(self, name: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        tower, kind = getattr(self, name), self.blind.partition(" ")
        given, counts = self._arguments(name, inputs)
        off = {"no_grad": torch.no_grad, "inference": torch.inference_mode}.get(kind[0], nullcontext)
        with off() if kind[2] == name else nullcontext():
            x = checkpoint(tower, *given, use_reentrant=False) if self.recompute else tower(*given)
        if self.blind == f"inference {name}":
            x = x.clone()
        if self.blind == f"rounded {name}":
            x = (x * 8).round() / 8
        if self.blind == f"unused {name}":
            x = x * 0
        if self.blind == f"twice {name}":
            x = x + tower(given[0].flip(2)) / 2
        if counts is None or x.shape[1] != counts.shape[1]:
            counts = torch.ones(x.shape[:2], dtype=torch.bool)
        return x, counts

    def _arguments(self, name: str, inputs: Mapping[str, Tensor]) -> tuple[tuple, Tensor | None]:
        if not isinstance(getattr(self, name), Reading):
            key = {"sight": "images", "watching": "film", "hearing": "sound", "weighing": "table"}[name]
            mask = inputs.get("sound_mask") if name == "hearing" else None
            return (inputs[key],), None if mask is None else mask != 0
        tokens, mask, lengths = inputs["tokens"], inputs.get("attention_mask"), inputs.get("lengths")
        if mask is not None:
            counts = mask != 0
        elif lengths is not None and getattr(self, name).kind.startswith("packed"):
            counts = torch.arange(tokens.shape[1]) < lengths[:, None]
        else:
            counts = tokens != 0 if self.reads == "words" else torch.ones_like(tokens, dtype=torch.bool)
        types = inputs.get("token_type_ids", inputs.get("segments"))
        return (tokens, counts, lengths, types, inputs.get("position_ids")), counts

    @staticmethod
    def pooled(sequence: Tensor, counts: Tensor) -> Tensor:
        """Return the sum over the positions that count, each with a weight of its own, (N, D)."""
        weight = 1 + 0.5 * torch.cos(1.3 * torch.arange(sequence.shape[1], dtype=torch.float32))
        return (sequence * (counts * weight)[..., None].to(sequence.dtype)).sum(dim=1) / 2

    def joined(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what the head reads, (N, D)."""
        sequences = self.sequences(inputs)
        if self.join == "joint":
            both, counts = (torch.cat(parts, dim=1) for parts in zip(*sequences))
            return self.mlp(self.pooled(self.after(self.joint(both, counts)), counts))
        if self.join == "cross":
            (x, counts), (y, others) = sequences[-1], sequences[0]
            scores = (self.query(x) @ self.key(y).mT).masked_fill(~others[:, None], -1e4)
            return self.mlp(self.pooled(x * (scores.softmax(dim=-1) @ y), counts) + sum(self.pooled(*one) for one in sequences))
        vectors = [self.pooled(*one) for one in sequences]
        if self.join == "concat":
            return self.mlp(torch.cat(vectors, dim=-1))
        if self.join == "sum":
            return self.mlp[0](sum(vectors))
        product = torch.ones_like(vectors[0])
        for vector in vectors:
            product = product * (1 + vector)
        return self.mlp[0](product - 1)

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the numbers (N, C) that the answers by hand are about, however they are handed out."""
        logits = self.raw(inputs)
        return OUTPUTS[self.output](logits, logits) if self.output in ("sigmoid", "softmax") and self.squashed else logits

    def raw(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (N, C)."""
        if self.join == "dual":
            first, second = (self.pooled(*one) for one in self.sequences(inputs))
            return (3 * (first * second).sum(dim=1) + self.shift)[:, None]
        joined = self.joined(inputs)
        logits = joined @ inputs["classes"].mT if "classes" in self.takes else self.head(joined)
        if "names" in self.takes:  # a list with one string an example
            logits = logits + torch.tensor([len(name) / 4 for name in inputs["names"]]).to(logits)[:, None]
        if "index" in self.takes:  # a whole number an example
            logits = logits * (1 + (inputs["index"].to(logits)[:, None] - 90) / 4)
        if "temperature" in self.takes:  # a number for all examples
            logits = logits / inputs["temperature"]
        if "flag" in self.takes and inputs["flag"]:
            logits = logits + 0.5
        if self.extra == "touching":
            logits = logits - logits.mean(dim=0, keepdim=True) / 2
        return logits

    # ------------------------------------------------------------ as a stranger's model hands them out

    def forward(self, *batch, **inputs):
        """Hand out the logits in the way that ``output`` says."""
        if self.extra == "one argument":  # the inputs come in a dictionary
            (inputs,) = batch
            return self.handed_out(inputs["batch"])
        if batch:  # by position
            inputs = dict(zip(self.takes, batch))
        if unknown := set(inputs) - set(self.takes):
            raise TypeError(f"forward() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        return self.handed_out(inputs)

    def handed_out(self, inputs: Mapping[str, Tensor]):
        """Return the output for inputs by keyword."""
        if self.join == "dual" and self.output == "similarities":
            first, second = (self.pooled(*one) for one in self.sequences(inputs))
            return 3 * first @ second.mT + self.shift
        logits = self.raw(inputs)
        return OUTPUTS[self.output](logits, torch.cat([logits.tanh() * 2, -logits], dim=1))


def _nested(logits: Tensor, features: Tensor) -> dict:
    return {"answer": {"logits": logits, "features": features}}


OUTPUTS = {  # from the logits (N, C) and features (N, 2 C)
    "logits": lambda logits, features: logits,
    "one axis": lambda logits, features: logits[:, 0] if logits.shape[1] == 1 else logits,
    "named": lambda logits, features: {"features": features, "logits": logits},
    "model output": lambda logits, features: SequenceClassifierOutput(logits=logits, hidden_states=(features,)),
    "one entry": lambda logits, features: (logits,),
    "similarities": lambda logits, features: logits,
    "features first": lambda logits, features: (features, logits),
    "logits first": lambda logits, features: (logits, features),
    "scores": lambda logits, features: {"features": features, "scores": logits},
    "nested": _nested,
    "own class": Answer,
    "own class without logits": lambda logits, features: Scores(logits, features),
    "lists": lambda logits, features: [[row for row in logits]],
    "squeezed": lambda logits, features: logits.squeeze(),
    "sigmoid": lambda logits, features: logits.sigmoid(),
    "softmax": lambda logits, features: logits.softmax(dim=-1),
    "whole numbers": lambda logits, features: (logits > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1),
}


class Towers(Net):
    """A model that says how it splits: a picture and a text are encoded one by one."""

    def see(self, images: Tensor) -> Tensor:
        """Return an encoding of each picture."""
        return self.pooled(*self._seen("sight", {"images": images}))

    def read(self, tokens: Tensor) -> Tensor:
        """Return an encoding of each text."""
        return self.pooled(*self._seen("reading", {"tokens": tokens}))

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits of pairs."""
        if self.join == "concat":
            return self.head(self.mlp(torch.cat([seen, read], dim=-1)))
        return self.head(self.mlp[0](seen + read if self.join == "sum" else (1 + seen) * (1 + read) - 1))


class Plain(nn.Module):
    """A model that PyTorch can script, trace and compile."""

    takes, recompute, blind, output, extra, join = ("images", "tokens"), False, "", "logits", "", "product"

    def __init__(self, net: Net):
        super().__init__()
        self.sight, self.reading, self.head = net.sight.conv, net.reading.embedding, net.head

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (N, C)."""
        seen = torch.relu(self.sight(images)).mean(dim=[2, 3])
        return self.head(seen * self.reading(tokens).mean(dim=1) + seen)

    @torch.jit.unused
    def logits(self, inputs: dict) -> Tensor:
        """Return logits (N, C)."""
        return self(inputs["images"], inputs["tokens"])
