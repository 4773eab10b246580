"""What a verdict can say: answers in words, each with the parts that carry the predictions."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crossexplain.gradients.parts import Family


class Answer(NamedTuple):
    """An answer in words, and the parts that carry the predictions."""

    word: str
    terms: Family


CANNOT_TELL = Answer("cannot tell", ())


def of_families(found: tuple[Family, ...]) -> Answer:
    """Return what families that are each enough say."""
    terms = tuple(part for family in found for part in family)
    if max(map(len, terms)) > 1:
        return Answer("both only", terms)
    return Answer(f"{terms[0][0]} alone" if len(terms) == 1 else "either" if len(found) > 1 else "both added", terms)


def partly(name: str) -> str:
    """Return the answer of a model in which one modality alone gives a part of the predictions, and an interaction the rest."""
    return f"partly {name}, partly both"


def modalities_of(answer: Answer, modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities that an answer names, in their order."""
    return tuple(name for name in modalities if any(name in part for part in answer.terms))


def named(answer: Answer, modalities: Sequence[str]) -> str:
    """Return an answer, of more than two modalities with their names."""
    if len(modalities) == 2 or len(answer.terms) < 2 and not any(len(part) > 1 for part in answer.terms):
        return answer.word
    return f"{answer.word}, {(' or ' if answer.word == 'either' else ' + ').join(map(spoken, answer.terms))}"


def spoken(names: Iterable[str]) -> str:
    """Return the names of a part as words: the first, and with which others.

    Examples
    --------
    >>> spoken(["frames", "words", "sound"])
    'frames with words and sound'
    """
    first, *others = names
    return f"{first} with {' and '.join(others)}" if others else first
