"""What the data sets made of words share: their words as data, sentences as numbers, and errors that name what was meant."""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossexplain.checks import InputError


def read_table(name: str) -> dict[str, Any]:
    """Return the words, and what else is plain data, of a data set from its file in the folder ``tables``."""
    return tomllib.loads((Path(__file__).parent / "tables" / f"{name}.toml").read_text("utf-8"))


def nearest(text: str, known: Sequence[str], n: int = 3) -> str:
    """Return the known words or sentences that are most like a text, in words."""
    return "; ".join(map(repr, get_close_matches(text, known, n=n, cutoff=0.3))) or "none"


def word_numbers(sentences: Sequence[Sequence[str]], vocabulary: Sequence[str], length: int, what: str) -> Tensor:
    """Return sentences as word numbers, padded at the end with 0.

    Parameters
    ----------
    sentences : sequence of N sequences of str
        Words of the vocabulary.
    vocabulary : sequence of str
        The first word is the padding.
    length : int
        Number of tokens, T.
    what : str
        Whose vocabulary it is, for errors.

    Returns
    -------
    Tensor, shape (N, T), int64

    Raises
    ------
    InputError
        For a word that is not in the vocabulary (names the nearest), and a sentence that is empty or too long.
    """
    number = {word: i for i, word in enumerate(vocabulary)}
    for words in sentences:
        if not 1 <= len(words) <= length:
            raise InputError(f"{' '.join(words)!r} has {len(words)} words, expected 1 to {length}.")
        for word in words:
            if word not in number:
                raise InputError(f"{word!r} is not among the {len(vocabulary)} words of the {what}; like it: "
                                 f"{nearest(word, vocabulary)}.")
    return torch.tensor([[number[word] for word in words] + [0] * (length - len(words)) for words in sentences])
