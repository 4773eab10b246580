"""App reviews: a generated set whose deciding words are known, and loaders for two real sets.

The generated sentences come in triples: one frame (subject, filler, order of the clauses, negation or contrast) is
filled three times, once a class, with cue phrases of the same number of words. Whatever is not a cue is therefore
the same in all three classes, and no length, template or filler word can give the class away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from crossexplain.checks import InputError, require_one_of
from crossexplain.data import store
from crossexplain.data.examples import SPLITS, Examples, require_multiple
from crossexplain.data.vocabulary import read_table

CLASSES = ("negative", "neutral", "positive")
KINDS = ("plain", "negation", "contrast")
SHARES = (0.7, 0.1, 0.2)  # of the cue phrases of each list, in the order of SPLITS

_WORDS = read_table("reviews")
_Phrases = dict[str, dict[str, list[str]]]  # by place in the clause and class
_Marked = tuple[str, str, list[tuple[int, int]], list[tuple[int, int]]]  # text, kind, cues, decoys


@dataclass
class Reviews(Examples):
    """Sentences with their class and, where they were generated, the characters that decide.

    Attributes
    ----------
    texts : list of str, length N
    labels : ndarray of int64, shape (N,)
        Index into ``classes``.
    classes : tuple of str
    kinds : list of str, length N
        ``"plain"``, ``"negation"`` or ``"contrast"``; for real sentences, where they come from.
    cues : list of lists of (start, end), length N
        Character spans of the phrase that decides, with its negation; empty where nobody knows.
    decoys : list of lists of (start, end), length N
        Spans of the phrase of another class in the clause that does not decide (contrast only).
    second : list of lists of (start, end), length N
        Of sentences that people wrote, the spans that a second reader marked; else empty.
    sources : dict of str to str
        Where the sentences came from.
    """

    texts: list[str]
    labels: np.ndarray
    classes: tuple[str, ...] = CLASSES
    kinds: list[str] = field(default_factory=list)
    cues: list[list[tuple[int, int]]] = field(default_factory=list)
    decoys: list[list[tuple[int, int]]] = field(default_factory=list)
    second: list[list[tuple[int, int]]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    common = ("classes", "sources")


def cue_phrases(split: str | None = None, split_seed: int = 0) -> dict[str, dict[str, list[str]]]:
    """Return the cue phrases by place in the clause and class.

    Parameters
    ----------
    split : str, optional
        ``"train"``, ``"validation"`` or ``"test"``; no phrase is in two of them. All phrases if left out.
    split_seed : int
        Seed of the division. The embedded checkpoint knows the division of seed 0.

    Examples
    --------
    >>> sum(len(phrases) for place in cue_phrases().values() for phrases in place.values())
    522
    """
    if split is not None:
        require_one_of(split, SPLITS, "the split")
    return {place: {name: _part(phrases, split, (split_seed, p, c)) for c, (name, phrases) in enumerate(by_class.items())}
            for p, (place, by_class) in enumerate(_WORDS["cues"].items())}


def _part(phrases: list[str], split: str | None, seed: tuple[int, ...]) -> list[str]:
    """Return the phrases of a split, in the order of the list."""
    if split is None:
        return phrases[:]
    order = np.random.default_rng(seed).permutation(len(phrases))
    ends = np.round(np.cumsum(SHARES) * len(phrases)).astype(int)
    parts = dict(zip(SPLITS, np.split(order, ends[:-1])))
    return [phrases[i] for i in sorted(parts[split])]


def build(n: int, split: str, seed: int = 0, split_seed: int = 0) -> Reviews:
    """Generate app reviews whose deciding words are known.

    Parameters
    ----------
    n : int
        Number of sentences, a multiple of 3: each frame is filled once a class.
    split : str
        ``"train"``, ``"validation"`` or ``"test"``.
    seed : int
        Seed of the frames and of the choice of phrases.
    split_seed : int
        Seed of the division of the cue phrases.

    Returns
    -------
    Reviews
        Triples in a row: negative, neutral, positive of one frame. No text twice.

    Examples
    --------
    >>> six = build(6, "test", seed=0)
    >>> six.labels.tolist(), len(set(six.texts))
    ([0, 1, 2, 0, 1, 2], 6)
    """
    require_multiple(n, 3, "sentences", "each frame is filled once a class")
    cues = cue_phrases(split, split_seed)
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    made: list[_Marked] = []
    seen: set[str] = set()
    while len(made) < n:
        triple = _triple(rng, cues)
        if seen.isdisjoint(text for text, *_ in triple):
            made += triple
            seen.update(text for text, *_ in triple)
    texts, kinds, spans, decoys = map(list, zip(*made))
    return Reviews(texts, np.tile(np.arange(3), n // 3), CLASSES, kinds, spans, decoys,
                   sources={"reviews": "generated by crossexplain.data.reviews"})


# Inside a sentence that is being made, a deciding phrase stands between < and >, a decoy between { and }.
def _triple(rng: np.random.Generator, cues: _Phrases) -> list[_Marked]:
    """Fill one frame once a class; return text, kind, cues and decoys of each sentence."""
    kind = str(rng.choice(KINDS, p=(0.5, 0.25, 0.25)))
    place = "be" if kind == "negation" else str(rng.choice(list(cues)))
    subject, lead, tail = (str(rng.choice(_WORDS[words])) for words in ("subjects", "leads", "tails"))
    shape = {"lead": rng.random() < 0.4, "tail": rng.random() < 0.4, "filler": rng.choice(4, p=(0.4, 0.25, 0.25, 0.1))}
    fillers = [str(filler) for filler in rng.choice(_WORDS["fillers"], 2, replace=False)]
    if kind == "negation":
        clauses = _negations(rng, cues["be"], f"{subject} {rng.choice(('is', 'was', 'seems'))}")
    else:
        clauses = {name: _clause(place, subject, f"<{phrase}>") for name, phrase in _alike(rng, cues[place]).items()}
    others = _others(rng, cues, place, subject)
    contrast = str(rng.choice(_WORDS["contrasts"]))  # drawn in any case, so that the random stream is the same for each kind
    frame = contrast if kind == "contrast" else "{main}"
    bodies = [frame.replace("{main}", clauses[name]).replace("{other}", others[name]) for name in CLASSES]
    return [_unmarked(_sentence(body, lead, tail, fillers, shape), kind) for body in bodies]


def _alike(rng: np.random.Generator, phrases: dict[str, list[str]]) -> dict[str, str]:
    """Choose a phrase a class, all of about one length."""
    size = len(str(rng.choice([phrase for name in CLASSES for phrase in phrases[name]])))
    chosen = {}
    for name in CLASSES:
        away = np.array([abs(len(phrase) - size) for phrase in phrases[name]])
        chosen[name] = phrases[name][int(rng.choice(np.flatnonzero(away <= max(1, away.min()))))]
    return chosen


def _clause(place: str, subject: str, phrase: str) -> str:
    return {"be": f"{subject} is {phrase}", "do": f"{subject} {phrase}", "thing": f"{subject} is a {phrase}",
            "I": f"I {phrase}"}[place]


def _negations(rng: np.random.Generator, phrases: dict[str, list[str]], start: str) -> dict[str, str]:
    """Return a clause a class whose class is not that of its adjective."""
    turned, ends, negator = _alike(rng, phrases), _alike(rng, phrases), rng.choice(_WORDS["negators"])
    first, second = ("positive", "negative") if rng.random() < 0.5 else ("negative", "positive")
    return {
        "negative": f"{start} <{negator}> <{turned['positive']}>",
        "neutral": f"{start} <neither> <{ends[first]}> <nor> <{ends[second]}>",
        "positive": f"{start} <{negator}> <{turned['negative']}>",
    }


def _others(rng: np.random.Generator, cues: _Phrases, place: str, subject: str) -> dict[str, str]:
    """Return, for each class, a clause of another class; the clauses differ in nothing but the phrase."""
    place = str(rng.choice([other for other in cues if other != place]))
    subject = str(rng.choice([other for other in _WORDS["subjects"] if other != subject]))
    turn, phrases = int(rng.integers(1, 3)), _alike(rng, cues[place])
    return {name: _clause(place, subject, "{" + phrases[CLASSES[(c + turn) % 3]] + "}") for c, name in enumerate(CLASSES)}


def _sentence(body: str, lead: str, tail: str, fillers: list[str], shape: dict[str, Any]) -> str:
    body = f"{lead}, {body}" if shape["lead"] else body
    body = f"{body} {tail}" if shape["tail"] else body
    before = fillers[:1] if shape["filler"] in (1, 3) else []
    after = fillers[1:] if shape["filler"] in (2, 3) else []
    return " ".join([*before, body[0].upper() + body[1:] + ".", *after])


def _unmarked(marked: str, kind: str, brackets: str = "<>{}") -> _Marked:
    """Take the marks out of a sentence and note where they were."""
    opening, closing = brackets[::2], brackets[1::2]
    spans: dict[str, list[tuple[int, int]]] = {mark: [] for mark in closing}
    text, start = "", 0
    for character in marked:
        if character in opening:
            start = len(text)
        elif character in closing:
            spans[character].append((start, len(text)))
        else:
            text += character
    return text, kind, spans[closing[0]], spans[closing[-1]]


def token_mask(offsets: ArrayLike, spans: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Return which tokens overlap a character span.

    Parameters
    ----------
    offsets : array_like of int, shape (N, T, 2)
        Start and end of each token in its sentence, as a fast tokenizer gives them; (0, 0) for special tokens.
    spans : sequence of N sequences of (start, end)

    Returns
    -------
    ndarray of bool, shape (N, T)

    Examples
    --------
    >>> token_mask([[[0, 0], [0, 3], [4, 9]]], [[(4, 9)]]).tolist()
    [[False, False, True]]
    """
    offsets = np.asarray(offsets)
    if offsets.ndim != 3 or offsets.shape[0] != len(spans) or offsets.shape[2] != 2:
        raise InputError(f"offsets have shape {offsets.shape}, expected ({len(spans)}, T, 2) for {len(spans)} sentences.")
    mask = np.zeros(offsets.shape[:2], dtype=bool)
    for row, offset, known in zip(mask, offsets, spans):
        for start, end in known:
            row |= (offset[:, 0] < end) & (offset[:, 1] > start)
    return mask


def written() -> Reviews:
    """Return 120 reviews that were written by hand, 40 of each class, with the words that decide, marked twice.

    Examples
    --------
    >>> reviews = written()
    >>> start, end = reviews.cues[-1][0]
    >>> len(reviews), reviews.texts[-1][start:end]
    (120, 'Ten out of ten')
    """
    table = read_table("written_reviews")
    labels = np.repeat(np.arange(3), [len(table[name]) for name in CLASSES])
    texts, kinds, cues, _ = zip(*(_unmarked(text, "written", "[]") for name in CLASSES for text in table[name]))
    second = [_unmarked(text, "written", "[]")[2] for name in CLASSES for text in table["second"][name]]
    return Reviews(list(texts), labels, CLASSES, list(kinds), list(cues), second=second,
                   sources={"reviews": "written for crossexplain.data.reviews"})


def app_reviews() -> Reviews:
    """Load the real app-store reviews: 1 and 2 stars are negative, 3 neutral, 4 and 5 positive.

    Returns
    -------
    Reviews
        Duplicate and empty texts left out; ``kinds`` holds the app.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the file is not on this machine.
    InputError
        If the file is not the table that was expected.
    """
    source = store.find("app-reviews")
    try:
        rows = pd.read_csv(source.path, dtype=str, keep_default_na=False)
    except ValueError as error:  # of the parser, or of a byte that is no UTF-8
        raise InputError(f"{source.path.name} cannot be read as a table ({error}); fetch the file again.") from error
    if not {"content", "score", "appId"} <= set(rows.columns):
        raise InputError(f"{source.path.name} has the columns {', '.join(rows.columns)}, expected content, score and appId "
                         "among them; fetch the file again.")
    rows["content"] = rows["content"].str.split().str.join(" ")
    rows = rows[(rows["content"] != "") & rows["score"].isin(list("12345"))].drop_duplicates("content")
    labels = rows["score"].map({"1": 0, "2": 0, "3": 1, "4": 2, "5": 2}).to_numpy(np.int64)
    return Reviews(rows["content"].tolist(), labels, CLASSES, rows["appId"].tolist(), sources={source.name: source.origin})


def labelled_sentences() -> Reviews:
    """Load the 3 x 1,000 sentences of Kotzias et al. (2015): products, films and restaurants, negative or positive.

    Returns
    -------
    Reviews
        Two classes; duplicate texts left out; ``kinds`` holds ``"amazon_cells"``, ``"imdb"`` or ``"yelp"``.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the files are not on this machine.
    InputError
        If a line does not end in a tab and 0 or 1.
    """
    source = store.find("labelled-sentences")
    rows: dict[str, tuple[int, str]] = {}
    for name in ("amazon_cells", "imdb", "yelp"):
        path = source.path / f"{name}_labelled.txt"
        # split("\n"): some sentences hold a control character that splitlines takes for the end of a line
        for number, line in enumerate(_text(path).split("\n"), start=1):
            text, tab, label = line.rpartition("\t")
            if line.strip() and (not tab or label.strip() not in ("0", "1")):
                raise InputError(f"{path.name}, line {number}: expected a sentence, a tab and 0 or 1, got {line[-40:]!r}.")
            if text.strip():
                rows.setdefault(" ".join(text.split()), (int(label), name))
    if not rows:
        raise InputError(f"{source.path} holds no sentence; fetch the files again.")
    labels, kinds = zip(*rows.values())
    return Reviews(list(rows), np.array(labels, dtype=np.int64), ("negative", "positive"), list(kinds),
                   sources={source.name: source.origin})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 ({error}); fetch the file again.") from error


def divide(reviews: Reviews, seed: int, shares: tuple[float, float] = (0.1, 0.2)) -> dict[str, Reviews]:
    """Divide real sentences into train, validation and test, each class in the same proportion.

    Parameters
    ----------
    reviews : Reviews
    seed : int
    shares : (float, float)
        Shares of validation and test.

    Returns
    -------
    dict
        ``train``, ``validation``, ``test``; disjoint, together everything.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for label in np.unique(reviews.labels):
        order = rng.permutation(np.flatnonzero(reviews.labels == label))
        first, second = round(shares[0] * len(order)), round((shares[0] + shares[1]) * len(order))
        for name, part in zip(("validation", "test", "train"), np.split(order, [first, second])):
            parts[name].append(part)
    return {name: reviews.select(rng.permutation(np.concatenate(part))) for name, part in parts.items()}
