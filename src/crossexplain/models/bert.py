"""Any Hugging Face encoder with a classification head, loaded from a folder and never from the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import AutoModel, AutoTokenizer, BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from crossexplain.checks import InputError
from crossexplain.models.weights import offline, seeded


class TextClassifier(nn.Module):
    """An encoder and a linear head on the vector of the first token, [CLS] (Devlin et al. 2019).

    Called by keyword with the output of a tokenizer, ``model(input_ids=..., attention_mask=...)``, each of shape (N, T);
    returns logits of shape (N, C). In eval mode the examples of a batch do not touch each other.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        With ``attn_implementation="eager"`` where its attention maps are to be read.
    classes : int
        Number of classes, C.
    dropout : float
        Before the head.

    Attributes
    ----------
    text_layer : str
        ``"encoder.embeddings"``: word, position and segment embeddings, summed and normalised; shape (N, T, D).
    attention_layers : list of str
        The self-attention modules from the first block to the last; the second output of each is its map of shape
        (N, heads, T, T).
    blocks : list of str
        The transformer blocks; each gives the representation of every token after it, (N, T, D).
    """

    text_layer = "encoder.embeddings"

    def __init__(self, encoder: PreTrainedModel, classes: int, dropout: float = 0.1):
        super().__init__()
        if classes < 2:
            raise InputError(f"got {classes} class(es), expected at least 2.")
        self.encoder = encoder
        if getattr(encoder, "pooler", None) is not None:
            encoder.register_module("pooler", None)  # its output is not used, and its weights would stay without a gradient
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, shape (N, C)."""
        states = self.encoder(**inputs).last_hidden_state  # (N, T, D)
        logits: Tensor = self.head(self.dropout(states[:, 0]))
        return logits

    @property
    def attention_layers(self) -> list[str]:
        return [name for name, module in self.named_modules() if type(module).__name__.endswith("SelfAttention")]

    @property
    def blocks(self) -> list[str]:
        stacks = {name: module for name, module in self.named_modules() if isinstance(module, nn.ModuleList)}
        name = max(stacks, key=lambda name: len(stacks[name]))
        return [f"{name}.{i}" for i in range(len(stacks[name]))]

    def tune(self, rank: int, seed: int = 0) -> nn.ModuleDict:
        """Freeze the encoder and give every matrix of its blocks a trainable difference of low rank (Hu et al. 2021, LoRA).

        Parameters
        ----------
        rank : int
            Rank of each difference; 0 trains the head alone.
        seed : int
            Of the first weights.

        Returns
        -------
        torch.nn.ModuleDict
            ``head`` and the differences by name. A checkpoint has to hold no more, since everything else is the pre-trained
            encoder. The differences start at zero; :meth:`merge` adds them to the weights.
        """
        if rank < 0:
            raise InputError(f"got rank {rank}, expected 0 (the head alone) or more.")
        self.requires_grad_(False)
        part = nn.ModuleDict({"head": self.head.requires_grad_(True)})
        with seeded(seed):
            for name, linear in self._matrices() if rank else ():
                part[name.replace(".", "-")] = change = _LowRank(linear, rank)
                parametrize.register_parametrization(linear, "weight", change)
        return part

    def merge(self) -> "TextClassifier":
        """Add the trained differences to the encoder's weights, so that the model is an ordinary one again."""
        for _, linear in self._matrices():
            if parametrize.is_parametrized(linear, "weight"):
                parametrize.remove_parametrizations(linear, "weight", leave_parametrized=True)
        return self.requires_grad_(False)

    def _matrices(self) -> list[tuple[str, nn.Linear]]:
        return [(f"{block}.{name}", module) for block in self.blocks
                for name, module in self.get_submodule(block).named_modules() if isinstance(module, nn.Linear)]


class _LowRank(nn.Module):
    """A weight and its learned difference: ``weight + up @ down``."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def load(folder: str | Path, classes: int, seed: int = 0) -> TextClassifier:
    """Load a pre-trained encoder from a folder of Hugging Face's format, and add a new head.

    Parameters
    ----------
    folder : path
        Holds ``config.json`` and ``model.safetensors``; nothing is read from anywhere else.
    classes : int
        Number of classes.
    seed : int
        Of the head's first weights.

    Returns
    -------
    TextClassifier
        In eval mode, attention maps readable, only the head trainable.

    Raises
    ------
    WeightsError
        If a file is missing or broken.
    """
    with offline(folder, "encoder", "config.json", "model.safetensors") as path:
        encoder = AutoModel.from_pretrained(path, local_files_only=True, attn_implementation="eager", dtype=torch.float32)
    with seeded(seed):
        model = TextClassifier(encoder, classes)
    model.tune(0)
    return model.eval()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to an encoder, from the same folder.

    Raises
    ------
    WeightsError
        If it is missing or broken.
    """
    with offline(folder, "tokenizer", "tokenizer.json") as path:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)


@dataclass(frozen=True)
class Encoded:
    """Sentences as a model reads them.

    Attributes
    ----------
    inputs : dict of str to Tensor, each of shape (N, T)
        Inputs of the model.
    special : Tensor of bool, shape (N, T)
        Which tokens are not part of the sentence: [CLS], [SEP], [PAD].
    offsets : Tensor of int64, shape (N, T, 2)
        First character of each token and the one after its last; (0, 0) for special tokens.
    words : Tensor of int64, shape (N, T)
        Number of the word that a token is a piece of; -1 for special tokens.
    tokens : list of lists of str
        The tokens as strings, without padding.
    """

    inputs: dict[str, Tensor]
    special: Tensor
    offsets: Tensor
    words: Tensor
    tokens: list[list[str]]

    @property
    def of_two_towers(self) -> dict[str, Tensor]:
        """The inputs under the names that models with two towers give them."""
        return {"tokens": self.inputs["input_ids"], "attention_mask": self.inputs["attention_mask"]}


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None,
           truncate: bool = False) -> Encoded:
    """Turn sentences into one padded batch.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    texts : sequence of str
        In any language, also with emoji; a word that is not in the vocabulary becomes its unknown token.
    max_length : int, optional
        Greatest number of tokens of a sentence, special ones included; default, that of the tokenizer's model.
    truncate : bool
        Cut longer sentences off instead of refusing them.

    Returns
    -------
    Encoded

    Raises
    ------
    InputError
        As for :func:`require_texts`, and for a sentence that is too long or a ``max_length`` without room for a word.
    """
    limit = tokenizer.model_max_length if max_length is None else max_length
    batch, numbers = _tokenized(tokenizer, texts, limit, truncate, padding=True, return_offsets_mapping=True,
                              return_special_tokens_mask=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(dim=1)
    if not truncate and int(lengths.max()) > limit:
        i = int(lengths.argmax())
        raise InputError(f"sentence {i} has {int(lengths[i])} tokens, at most {limit} can be read; shorten it, split "
                           "it into sentences, or pass truncate=True and say so to your readers.")
    special, offsets = batch.pop("special_tokens_mask").bool(), batch.pop("offset_mapping")
    words = torch.tensor([[-1 if word is None else word for word in row] for row in numbers])
    tokens = [list(tokenizer.convert_ids_to_tokens(ids[: int(n)])) for ids, n in zip(batch["input_ids"], lengths)]
    # An unknown character is an ordinary token to the model, whatever the tokenizer's list of special tokens says.
    return Encoded(dict(batch), special & (words < 0), offsets, words, tokens)


def require_texts(texts: Sequence[str]) -> list[str]:
    """Return sentences as a list if they are sentences.

    Raises
    ------
    InputError
        For a bare string, no sentence at all, something that is no string, and a sentence without a word.
    """
    if isinstance(texts, str):
        raise InputError("got one string, expected a list of sentences; put it in brackets: [text].")
    texts = list(texts)
    if not texts:
        raise InputError("the batch is empty (0 sentences), expected at least 1.")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"sentence {i} is {text!r}, expected at least one word; leave it out of the batch.")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"sentence {i}, {text!r}, holds half a character (a lone surrogate), expected whole ones; "
                               "read the file again with the encoding that it was written in.")
    return texts


def _tokenized(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, truncate: bool,
               **options: Any) -> tuple[BatchEncoding, list[list[int | None]]]:
    """Return what the tokenizer makes of sentences, and the number of the word that each token is a piece of."""
    texts, least = require_texts(texts), tokenizer.num_special_tokens_to_add() + 1
    if max_length < least:
        raise InputError(f"got max_length {max_length}, expected at least {least}: the special tokens and one more.")
    batch = tokenizer(texts, truncation=truncate, max_length=max_length if truncate else None, **options)
    words = [batch.word_ids(i) for i in range(len(texts))]
    for i, numbers in enumerate(words):
        if all(number is None for number in numbers):  # invisible characters, for example
            raise InputError(f"sentence {i} is {texts[i]!r}, of which the tokenizer leaves no word; leave it out of the batch.")
    return batch, words


class TextBatches:
    """Sentences for :func:`crossexplain.models.training.fit`, each batch padded to its own longest sentence.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    texts : sequence of str
    labels : array_like of int, shape (N,)
    max_length : int
        Longer sentences are cut off.

    Raises
    ------
    InputError
        As for :func:`encode`, except that long sentences are cut off; and if there are not as many labels as sentences.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], labels: ArrayLike, max_length: int = 128):
        self.tokenizer, self.labels = tokenizer, torch.as_tensor(labels)
        self.ids = _tokenized(tokenizer, texts, max_length, truncate=True)[0]["input_ids"]
        if len(self.ids) != len(self.labels):
            raise InputError(f"got {len(self.ids)} sentences and {len(self.labels)} labels, expected as many of both.")

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and labels of the sentences with these numbers."""
        padded = self.tokenizer.pad({"input_ids": [self.ids[i] for i in indices.tolist()]}, return_tensors="pt")
        return dict(padded), self.labels[indices]
