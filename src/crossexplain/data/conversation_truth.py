"""Turns and questions as a person writes them down, and the truth about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossexplain.checks import InputError, require_one_of
from crossexplain.data.conversation_draws import answer
from crossexplain.data.conversation_words import FORMS, MODALITIES, TASKS

DIGIT = {"words": "said", "frames": "shown", "sound": "dialled"}  # how the digit of a turn is called


@dataclass(frozen=True)
class Turn:
    """What one party says, shows and dials at one time.

    Attributes
    ----------
    party : str
        One of ``NAMES``.
    said, shown, dialled : int or None
        The digit, 0 to 9, or none.
    without : tuple of str
        Modalities that the turn lacks: nobody says anything, there is no video, no sound.
    words : str
        What is said, of a turn of a batch.
    chunks : mapping of str to tuple of int
        By modality the words, frames or segments of the turn that hold its digit, of a turn of a batch.
    """

    party: str
    said: int | None = None
    shown: int | None = None
    dialled: int | None = None
    without: tuple[str, ...] = ()
    words: str = ""
    chunks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """One number that a question names: the only, first, second or last one of a party, that of a turn, or the one before it.

    Attributes
    ----------
    modality : str
        One of ``MODALITIES``.
    party : str, optional
        Whose number.
    form : str
        One of ``FORMS``: which of the numbers of the party in this modality; ``"before"`` for the nearest one before the turn
        of the question's first reference; ``"turn"`` for the one of a turn.
    turn : int, optional
        Number of the turn, from 0, for the form ``"turn"``.
    """

    modality: str
    party: str | None = None
    form: str = "only"
    turn: int | None = None


@dataclass(frozen=True)
class ConversationQuestion:
    """What is asked.

    Attributes
    ----------
    task : str
        ``"above"``: are all numbers larger than the threshold? ``"more"``: is the first larger than the second? ``"same"``:
        are two equal? ``"parity"``: is the sum even? ``"total"``: is the sum larger than the threshold?
    references : tuple of Reference
    flipped : bool
        Asks for smaller, for different, for odd.
    threshold : int
    text : str
        The question in words, of a question of a batch.
    """

    task: str
    references: tuple[Reference, ...]
    flipped: bool = False
    threshold: int = 0
    text: str = ""


def truth(turns: Sequence[Turn], question: ConversationQuestion) -> bool:
    """Return whether the answer is yes: the one definition of truth.

    Parameters
    ----------
    turns : sequence of Turn
    question : ConversationQuestion

    Returns
    -------
    bool

    Raises
    ------
    InputError
        If a number that the question names is not there, or is not the only one.

    Examples
    --------
    >>> turns = [Turn("ben", shown=3), Turn("mia", said=5), Turn("ben", shown=7, dialled=1), Turn("mia", said=7)]
    >>> truth(turns, ConversationQuestion("above", (Reference("frames", "ben", "second"),), threshold=4))
    True

    Was the second number that ben showed the same as the number that mia said before it?

    >>> truth(turns, ConversationQuestion("same", (Reference("frames", "ben", "second"), Reference("words", "mia", "before"))))
    False
    """
    require_one_of(question.task, TASKS, "the task")
    places = places_of(turns, question.references)
    values = [getattr(turns[i], DIGIT[reference.modality]) for i, reference in zip(places, question.references)]
    if not (2 if question.task in ("more", "same") else 1) <= len(values) <= 3:
        raise InputError(f"got {len(values)} references for the task {question.task!r}, expected two numbers to compare, "
                         "else one to three.")
    task, flipped, threshold = (np.array([part]) for part in (TASKS.index(question.task), question.flipped, question.threshold))
    return bool(answer(task, flipped, threshold, np.array([values + [-1] * (3 - len(values))]))[0])


def places_of(turns: Sequence[Turn], references: Sequence[Reference]) -> list[int]:
    """Return the number of the turn that each reference of a question names; errors as for :func:`truth`."""
    places: list[int] = []
    for reference in references:
        places.append(_place(turns, reference, places[0] if places else 0))  # nothing stands before turn 0
    return places


def _place(turns: Sequence[Turn], reference: Reference, it: int) -> int:
    """Return the number of the turn that a reference names; ``it`` is the turn of the first reference."""
    require_one_of(reference.modality, MODALITIES, "the modality")
    require_one_of(reference.form, FORMS, "the form of a reference")
    digits = [getattr(turn, DIGIT[reference.modality]) for turn in turns]
    if reference.form == "turn":
        found = [i for i in [reference.turn] if i is not None and 0 <= i < len(turns) and digits[i] is not None]
        wanted = 0
    else:
        found = [i for i, turn in enumerate(turns) if turn.party == reference.party and digits[i] is not None
                 and (reference.form != "before" or i < it)]
        wanted = {"second": 1, "last": -1, "before": -1}.get(reference.form, 0)
    if not -len(found) <= wanted < len(found) or reference.form == "only" and len(found) > 1:
        raise InputError(f"the question names {reference}, and the conversation has {len(found)} such number(s); name one "
                         "that is there, by first, second, last, before (the first reference) or by its turn where there are "
                         "several.")
    return found[wanted]
