"""Dialogues of Emotion-Cause in Friends: turns with speaker and emotion, and which turns caused them, as people marked them.

The words belong to a studio and the marks are for research only: nothing of either is part of this project.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from crossexplain.checks import InputError
from crossexplain.data import store
from crossexplain.data.flickr8k_files import lines_of

EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")  # from the most frequent to the least
FILES = {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}
_PAIRS = re.compile(r"\s*(\(\s*\d+\s*,\s*\d+\s*\)\s*(,\s*(?=\()|$))*")
_PAIR = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")


class DialogueError(InputError):
    """A file of dialogues is not as it should be; the message says where and what to do."""


@dataclass(frozen=True)
class Turn:
    """What one speaker says at a time.

    Attributes
    ----------
    speaker, emotion, text : str
        ``emotion`` is one of ``EMOTIONS``.
    """

    speaker: str
    emotion: str
    text: str


@dataclass(frozen=True)
class Dialogue:
    """Turns in their order.

    Attributes
    ----------
    number : int
        As in its file.
    turns : tuple of Turn
    pairs : tuple of (int, int)
        Number of a turn with an emotion and of a turn that caused it, both counted from 0. The cause may be the turn itself,
        and may come later.
    """

    number: int
    turns: tuple[Turn, ...]
    pairs: tuple[tuple[int, int], ...]

    def causes(self, turn: int) -> tuple[int, ...]:
        """Return the turns that caused the emotion of a turn, in their order.

        Examples
        --------
        >>> said = (Turn("Ann", "joy", "We won!"), Turn("Bob", "surprise", "We did?"))
        >>> Dialogue(1, said, ((1, 0), (0, 0), (1, 1))).causes(1)
        (0, 1)
        """
        return tuple(sorted(cause for of, cause in self.pairs if of == turn))


def load(folder: str | Path | None = None) -> dict[str, list[Dialogue]]:
    """Load the dialogues of all parts.

    Parameters
    ----------
    folder : path, optional
        Holds ``train.txt``, ``dev.txt`` and ``test.txt``; default, the published ones.

    Returns
    -------
    dict of str to list of Dialogue
        Under ``"train"``, ``"validation"`` and ``"test"``.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the files are not on this machine.
    DialogueError
        If a file is not in the format.
    """
    folder = store.find("dialogues").path if folder is None else Path(folder)
    parts = {}
    for part, name in FILES.items():
        if not (folder / name).is_file():
            raise store.MissingSource(f"{folder} lacks {name}; place {', '.join(FILES.values())} there.")
        parts[part] = parse((folder / name).read_bytes(), name)
    return parts


def parse(content: bytes, name: str = "the file") -> list[Dialogue]:
    """Read the dialogues of a file.

    A line with number and length, ``3 2``; a line with the pairs, ``(2,1),(2,2)``, which may be empty; then a line for each
    turn, ``1 | speaker | emotion | words | place in the series``.

    Parameters
    ----------
    content : bytes
        Of the file, UTF-8.
    name : str
        Of the file, for errors.

    Raises
    ------
    DialogueError
        With the number of the first line that is not as described.

    Examples
    --------
    >>> parse(b"7 2\\n(2,1)\\n1 | Ann | neutral | Look | 0\\n2 | Bob | joy | A cat! | 0\\n")[0].pairs
    ((1, 0),)
    """
    numbered, dialogues, place = lines_of(content, name), [], 0
    while place < len(numbered):
        number, head = numbered[place]
        if not re.fullmatch(r"\s*\d+\s+[1-9]\d*\s*", head):
            raise DialogueError(f"{name}, line {number}: expected the number of a dialogue and how many turns it has, such as "
                                f"'12 7', got {_shortened(head)}.")
        which, count = map(int, head.split())
        marked = place + 1 < len(numbered) and "|" not in numbered[place + 1][1]  # the line of the pairs is empty without any
        rows = numbered[place + 1 + marked: place + 1 + marked + count]
        if len(rows) < count:
            raise DialogueError(f"{name} ends in dialogue {which}, which has {len(rows)} of its {count} turns; copy the file "
                                "again.")
        turns = tuple(_turn(line, i, f"{name}, line {at}") for i, (at, line) in enumerate(rows, 1))
        pairs = _pairs(numbered[place + 1][1], count, f"{name}, line {number + 1}") if marked else ()
        dialogues.append(Dialogue(which, turns, pairs))
        place += 1 + marked + count
    return dialogues


def _pairs(line: str, count: int, where: str) -> tuple[tuple[int, int], ...]:
    if not _PAIRS.fullmatch(line):
        raise DialogueError(f"{where}: expected pairs such as '(3,1),(3,3)', or an empty line, got {_shortened(line)}.")
    pairs = [(int(of), int(cause)) for of, cause in _PAIR.findall(line)]
    if wrong := [pair for pair in pairs if not all(1 <= turn <= count for turn in pair)]:
        raise DialogueError(f"{where}: the pair {wrong[0]} names a turn that is not there; there are turns 1 to {count}.")
    return tuple((of - 1, cause - 1) for of, cause in pairs)


def _turn(line: str, number: int, where: str) -> Turn:
    parts = [part.strip() for part in line.split(" | ")]
    if len(parts) < 4 or parts[0] != str(number):
        raise DialogueError(f"{where}: expected turn {number} as 'number | speaker | emotion | words | place', got "
                            f"{_shortened(line)}.")
    speaker, emotion, text = parts[1:4]
    if emotion not in EMOTIONS:
        raise DialogueError(f"{where}: got the emotion {emotion!r}, expected one of {', '.join(EMOTIONS)}.")
    if not speaker or not text:
        raise DialogueError(f"{where}: turn {number} has no {'words' if speaker else 'speaker'}; leave the dialogue out.")
    return Turn(speaker, emotion, text)


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 30 else line[:30] + "...")
