"""Any Hugging Face encoder with a classification head, loaded from a folder and never from the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

POOLINGS = ("cls", "mean")


class EncoderError(ValueError):
    """An encoder cannot be loaded, or a text not be encoded; the message says what came and what to do."""


class TextClassifier(nn.Module):
    """An encoder, one vector a sentence, and a linear head.

    Called with what a tokenizer gives, by keyword: ``model(input_ids=..., attention_mask=...)``, each of shape (N, T).
    Gives logits of shape (N, C). In eval mode the examples of a batch do not touch each other.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        With ``attn_implementation="eager"`` where its attention maps are to be read.
    classes : int
        Number of classes, C.
    pooling : {"cls", "mean"}
        The sentence is the vector of the first token (Devlin et al. 2019), or the mean over the attended tokens.
    dropout : float
        Before the head.

    Attributes
    ----------
    text_layer : str
        ``"encoder.embeddings"``: word, position and segment embeddings, summed and normalised; shape (N, T, D).
    attention_layers : list of str
        The self-attention modules from the first block to the last; the second thing that each gives is its map of
        shape (N, heads, T, T).
    blocks : list of str
        The transformer blocks; each gives the representation of every token after it, (N, T, D).
    """

    text_layer = "encoder.embeddings"

    def __init__(self, encoder: PreTrainedModel, classes: int, pooling: str = "cls", dropout: float = 0.1):
        super().__init__()
        if pooling not in POOLINGS:
            raise EncoderError(f"pooling {pooling!r} came, expected one of {', '.join(map(repr, POOLINGS))}.")
        if classes < 2:
            raise EncoderError(f"{classes} class(es) came, expected at least 2.")
        self.encoder, self.pooling = encoder, pooling
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its output would not be used, and its weights would stay without a gradient
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, shape (N, C)."""
        hidden = self.encoder(**inputs).last_hidden_state  # (N, T, D)
        if self.pooling == "cls":
            sentence = hidden[:, 0]
        else:
            mask = inputs.get("attention_mask")
            weights = torch.ones_like(hidden[..., :1]) if mask is None else mask[..., None].to(hidden.dtype)
            sentence = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return self.head(self.dropout(sentence))

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
            ``head`` and the differences by name: all that differs from the pre-trained encoder after training, and so all
            that a checkpoint has to hold. The differences start at zero; :meth:`merge` adds them to the weights.
        """
        if rank < 0:
            raise EncoderError(f"rank {rank} came, expected 0 (the head alone) or more.")
        self.requires_grad_(False)
        part = nn.ModuleDict({"head": self.head.requires_grad_(True)})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
    """A weight and what was learned on top of it: ``weight + up @ down``."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def load(folder: str | Path, classes: int, pooling: str = "cls", seed: int = 0) -> TextClassifier:
    """Load a pre-trained encoder from a folder of the hub's format and put a new head on it.

    Parameters
    ----------
    folder : path
        Holds ``config.json`` and ``model.safetensors``. Nothing is looked for anywhere else.
    classes : int
        Number of classes.
    pooling : {"cls", "mean"}
        As in :class:`TextClassifier`.
    seed : int
        Of the head's first weights.

    Returns
    -------
    TextClassifier
        In eval mode, attention maps readable, only the head trainable.

    Raises
    ------
    EncoderError
        If a file is missing or broken.
    """
    folder = _folder(folder, "config.json", "model.safetensors")
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for a file of a few MB would stand on every page
    try:
        encoder = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager",
                                            dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"the encoder in {folder} cannot be loaded ({type(error).__name__}: {error}); "
                           "fetch it again.") from error
    finally:
        if bar:
            logging.enable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TextClassifier(encoder, classes, pooling)
    model.tune(0)
    return model.eval()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to an encoder, from the same folder.

    Raises
    ------
    EncoderError
        If there is none, or it cannot say which characters a token came from.
    """
    folder = _folder(folder, "tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise EncoderError(f"the tokenizer in {folder} cannot be loaded ({error}); fetch it again.") from error
    if not tokenizer.is_fast:
        raise EncoderError(f"the tokenizer in {folder} knows no character offsets; a tokenizer.json is needed.")
    return tokenizer


def _folder(folder: str | Path, *names: str) -> Path:
    folder = Path(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise EncoderError(f"{folder} lacks {', '.join(missing)}; pass the folder that data.store.find gave, "
                           "or one in which save_pretrained wrote model and tokenizer.")
    return folder


@dataclass(frozen=True)
class Encoded:
    """Sentences as a model reads them.

    Attributes
    ----------
    inputs : dict of str to Tensor, each of shape (N, T)
        What the model is called with.
    special : Tensor of bool, shape (N, T)
        Tokens that are no part of the sentence: [CLS], [SEP], [PAD].
    offsets : Tensor of int64, shape (N, T, 2)
        First character of each token and the one after its last; (0, 0) for special tokens.
    words : Tensor of int64, shape (N, T)
        Number of the word that a token is a piece of; -1 for special tokens.
    tokens : list of lists of str
        The tokens as strings, padding left out.
    """

    inputs: dict[str, Tensor]
    special: Tensor
    offsets: Tensor
    words: Tensor
    tokens: list[list[str]]


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None,
           truncate: bool = False) -> Encoded:
    """Turn sentences into one padded batch.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    texts : sequence of str
        Any language and emoji; what the vocabulary does not hold becomes its unknown token.
    max_length : int, optional
        Most tokens of a sentence, special ones included. Default: what the tokenizer says of its model.
    truncate : bool
        Cut longer sentences off instead of refusing them.

    Returns
    -------
    Encoded

    Raises
    ------
    EncoderError
        For a batch without sentences, something that is no string, a sentence without a word, and one that is too long;
        and for a ``max_length`` that leaves no room for a word.
    """
    texts = require_texts(texts)
    limit = tokenizer.model_max_length if max_length is None else _require_room(tokenizer, max_length)
    batch = tokenizer(texts, padding=True, truncation=truncate, max_length=limit if truncate else None,
                      return_offsets_mapping=True, return_special_tokens_mask=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(dim=1)
    if not truncate and int(lengths.max()) > limit:
        i = int(lengths.argmax())
        raise EncoderError(f"sentence {i} has {int(lengths[i])} tokens, at most {limit} can be read; shorten it, split "
                           "it into sentences, or pass truncate=True and say so to your readers.")
    special, offsets = batch.pop("special_tokens_mask").bool(), batch.pop("offset_mapping")
    _require_words(texts, [batch.word_ids(i) for i in range(len(texts))])
    words = torch.tensor([[-1 if word is None else word for word in batch.word_ids(i)] for i in range(len(texts))])
    tokens = [tokenizer.convert_ids_to_tokens(ids[: int(n)]) for ids, n in zip(batch["input_ids"], lengths)]
    # An unknown character is an ordinary token to the model, whatever the tokenizer's list of special tokens says.
    return Encoded(dict(batch), special & (words < 0), offsets, words, tokens)


def require_texts(texts: Sequence[str]) -> list[str]:
    """Return sentences as a list if they are sentences.

    Raises
    ------
    EncoderError
        For a bare string, no sentence at all, something that is no string, and a sentence without a word.
    """
    if isinstance(texts, str):
        raise EncoderError("one string came, expected a list of sentences; put it in brackets: [text].")
    texts = list(texts)
    if not texts:
        raise EncoderError("the batch is empty (0 sentences), expected at least 1.")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise EncoderError(f"sentence {i} is {text!r}, expected at least one word; leave it out of the batch.")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise EncoderError(f"sentence {i}, {text!r}, holds half a character (a lone surrogate), expected whole ones; "
                               "read the file again with the encoding that it was written in.")
    return texts


def _require_words(texts: list[str], words: list[list[int | None]]) -> None:
    """Refuse a sentence of which the tokenizer leaves nothing: invisible characters, for example."""
    for i, (text, numbers) in enumerate(zip(texts, words)):
        if all(number is None for number in numbers):
            raise EncoderError(f"sentence {i} is {text!r}, of which the tokenizer leaves no word; leave it out of the batch.")


def _require_room(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    least = tokenizer.num_special_tokens_to_add() + 1
    if max_length < least:
        raise EncoderError(f"max_length {max_length} came, expected at least {least}: the special tokens and one more.")
    return max_length


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
    EncoderError
        As :func:`encode` does, but for sentences that are too long; and if there are not as many labels as sentences.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], labels, max_length: int = 128):
        texts = require_texts(texts)
        if len(texts) != len(labels):
            raise EncoderError(f"{len(texts)} sentences and {len(labels)} labels came, expected as many of both.")
        self.tokenizer, self.labels = tokenizer, torch.as_tensor(labels)
        batch = tokenizer(texts, truncation=True, max_length=_require_room(tokenizer, max_length))
        _require_words(texts, [batch.word_ids(i) for i in range(len(texts))])
        self.ids = batch["input_ids"]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and labels of some sentences."""
        padded = self.tokenizer.pad({"input_ids": [self.ids[i] for i in indices.tolist()]}, return_tensors="pt")
        return dict(padded), self.labels[indices]
