"""App reviews: a generated set whose deciding words are known, and loaders for two real sets.

The generated sentences come in triples: one frame (subject, filler, order of the clauses, negation or contrast) is
filled three times, once a class, with cue phrases of the same number of words. Whatever is not a cue is therefore
the same in all three classes, and no length, template or filler word can give the class away.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossexplain.data import store

CLASSES = ("negative", "neutral", "positive")
KINDS = ("plain", "negation", "contrast")
SPLITS = ("train", "validation", "test")
SHARES = (0.7, 0.1, 0.2)  # of the cue phrases of each list, in the order of SPLITS


def _parts(text: str) -> list[str]:
    return text.split("|")


# Cue phrases by their place in the clause; the lists of one place have one number of words, so that length is no cue.
# "be": <subject> is ...; "do": <subject> ...; "thing": <subject> is a ...; "I": I ...
_WORDS = {
    "be": {
        "positive": "excellent|wonderful|brilliant|fantastic|superb|delightful|outstanding|amazing|terrific|marvellous|"
        "awesome|perfect|splendid|impressive|effortless|intuitive|reliable|flawless|lovely|elegant|snappy|polished|"
        "stellar|fabulous|great|handy|dependable|smooth|enjoyable|helpful|phenomenal|magnificent|exceptional|beautiful|"
        "charming|refreshing|convenient|rewarding|pleasant|sublime|gorgeous|admirable|ideal|trusty|fun|speedy|exquisite|"
        "useful|inspiring|clever|generous|stunning|faultless|thoughtful|efficient|joyful|accurate|satisfying|superior|"
        "tremendous",
        "negative": "terrible|awful|horrible|useless|dreadful|broken|clumsy|unreliable|atrocious|appalling|pathetic|buggy|"
        "infuriating|disappointing|annoying|confusing|sluggish|frustrating|ugly|laggy|abysmal|worthless|lousy|painful|"
        "tedious|miserable|irritating|crude|inferior|unstable|flawed|hideous|glitchy|disastrous|poor|bad|cumbersome|"
        "dismal|exasperating|rubbish|ridiculous|vile|dire|wretched|shoddy|defective|faulty|unbearable|unusable|nasty|"
        "pointless|garbage|horrendous|slow|disgusting|deplorable|inconvenient|unhelpful|unacceptable|tiresome",
        "neutral": "average|ordinary|passable|middling|unremarkable|standard|typical|acceptable|adequate|tolerable|okay|"
        "fair|moderate|so-so|bearable|regular|normal|conventional|usual|satisfactory|unexceptional|sufficient|"
        "commonplace|workable|serviceable|generic|familiar|customary|alright|unspectacular|routine|mainstream|"
        "presentable|medium|mid-range|uneventful|run-of-the-mill|middle-of-the-road|fifty-fifty|plain|indifferent|"
        "unexciting|nondescript|reasonable|ok|decent|competent|modest|undistinguished|everyday|vanilla|unsurprising|"
        "expected|neutral|balanced|mixed|debatable|comparable|unchanged|simple",
    },
    "do": {
        "positive": "saves me hours|works like magic|runs without hiccups|exceeds every expectation|keeps me organised|"
        "brightens my mornings|beats all rivals|earns five stars|deserves an award|simplifies my life|pleases me daily|"
        "responds amazingly fast|gets everything right|thrills our team|inspires complete trust|calms my nerves|"
        "solves my problem|feels like joy|outshines the competition|delights my family|makes me smile|"
        "transforms my productivity|helps me enormously|boosts our output|wins my heart|impresses every colleague|"
        "lifts my mood|cures my forgetfulness|spoils me rotten|sparks new ideas|makes life easier|never disappoints anyone|"
        "brings great joy|handles everything beautifully|loads wonderfully quickly|surprises me pleasantly|"
        "keeps getting better|improves my day|feels incredibly smooth|gives me confidence",
        "negative": "wastes my time|crashes every day|loses my data|drains the battery|ruins the experience|"
        "freezes all morning|drives me mad|breaks at random|deletes my notes|fails without warning|"
        "insults paying customers|stalls and stutters|corrupts saved files|demands more money|spams me constantly|"
        "forgets every reminder|hides basic buttons|bothers everyone here|lags behind badly|destroys my schedule|"
        "makes me angry|tests my sanity|duplicates random entries|refuses to load|leaks private details|"
        "cheats its users|hangs on startup|messes up everything|lets me down|overheats my handset|makes life harder|"
        "never loads properly|brings constant trouble|handles everything badly|loads painfully slowly|"
        "surprises me unpleasantly|keeps getting worse|spoils my day|feels terribly clunky|gives me headaches",
        "neutral": "behaves as described|works as advertised|does its job|meets minimum needs|covers the basics|"
        "performs within reason|stays the same|offers usual options|resembles most others|matches the description|"
        "leaves me undecided|sits somewhere between|suits occasional use|does roughly enough|looks much alike|"
        "serves its purpose|fills the gap|follows common practice|has both sides|changes very little|"
        "compares about evenly|rates three stars|lands mid table|gets by somehow|remains as before|equals its peers|"
        "functions as stated|fulfils the minimum|ranks near middle|mirrors older versions|makes no difference|"
        "rarely stands out|brings nothing special|handles things adequately|loads reasonably soon|surprises me little|"
        "keeps its level|leaves things unchanged|feels fairly normal|gives average results",
    },
    "thing": {
        "positive": "real lifesaver|rare gem|true masterpiece|daily pleasure|total winner|huge relief|"
        "clever invention|welcome blessing|game changer|dream companion|small miracle|firm favourite|"
        "genuine treasure|first-class product|solid triumph|roaring success|generous gift|"
        "joyful surprise|smart solution|must-have tool|shining example|worthy upgrade|sweet bargain|"
        "loyal friend|masterly design|crowd pleaser|glorious improvement|knockout feature|great success|wonderful helper|"
        "brilliant idea|fantastic bargain|pleasant surprise|perfect match|lovely addition|superb achievement|"
        "real pleasure|valuable assistant",
        "negative": "complete disaster|downright scam|sad joke|big letdown|constant headache|"
        "pricey mistake|bitter regret|cheap ripoff|hopeless mess|privacy nightmare|sheer insult|"
        "lazy imitation|shameful failure|dead end|cruel trap|growing nuisance|sorry excuse|blatant fraud|"
        "giant flop|senseless downgrade|bloated monster|dull chore|hollow promise|serious setback|"
        "wasted opportunity|maddening puzzle|pointless gimmick|costly blunder|great failure|terrible hindrance|"
        "stupid idea|dreadful bargain|unpleasant surprise|poor match|horrible addition|miserable attempt|real pain|"
        "worthless assistant",
        "neutral": "mixed bag|middle choice|common format|balanced trade|pending question|modest tool|"
        "second option|compromise overall|partial match|reasonable substitute|mid-range pick|"
        "stock component|level contender|matching counterpart|draw overall|household utility|"
        "customary layout|known quantity|fifty-fifty affair|temporary arrangement|comparable product|"
        "minor variation|starter option|middle ground|toss up|three-star effort|stopgap measure|"
        "similar offering|normal result|plain helper|usual idea|moderate effort|partial fit|neutral addition|"
        "medium achievement|regular thing|passable assistant|so-so attempt",
    },
    "I": {
        "positive": "love using it|recommend it warmly|adore its simplicity|applaud the developers|gladly pay again|"
        "smile each time|thank the makers|feel truly grateful|enjoy every minute|rate it highly|"
        "admire the craftsmanship|celebrate this release|happily renewed today|appreciate the care|"
        "am thoroughly satisfied|am extremely pleased|am totally hooked|am wonderfully surprised|praise it everywhere|"
        "feel well served|feel wholly contented|welcome this gladly|swear by it|value it immensely|"
        "cheer for it|feel pleasantly relieved|am very happy|am so glad|love the result|like it lots|"
        "feel completely delighted|had great fun|found it excellent|trust this fully|would buy again|"
        "feel absolutely thrilled",
        "negative": "hate using it|regret installing it|want a refund|uninstalled it immediately|despise the ads|"
        "feel badly cheated|warn everyone away|lost all patience|gave up entirely|am really furious|"
        "resent the paywall|loathe its clutter|curse it hourly|feel completely ignored|feel robbed again|"
        "struggle every session|suffer through it|dread opening it|complained many times|cancelled in disgust|"
        "reject this nonsense|detest the popups|am beyond upset|am bitterly unhappy|blame lazy programmers|"
        "feel thoroughly betrayed|am very unhappy|am so annoyed|hate the result|dislike it strongly|"
        "feel completely disgusted|had endless trouble|found it terrible|distrust this fully|would never return|"
        "feel absolutely miserable",
        "neutral": "remain rather undecided|feel mostly indifferent|see both sides|use it sometimes|"
        "am somewhat ambivalent|am still unsure|rate it halfway|expected about this|notice little difference|"
        "withhold my verdict|shrug at it|give three stars|take neither side|accept it anyway|stay fairly neutral|"
        "judge it average|feel so-so overall|reserve my judgement|call it even|settle for it|tolerate it quietly|"
        "treat it casually|am half convinced|regard it calmly|hold mixed feelings|might switch sometime|"
        "am moderately content|feel so-so today|accept the result|find it okay|feel completely neutral|"
        "had average results|found it ordinary|trust this partly|would wait longer|feel nothing particular",
    },
}
_CUES = {place: {name: _parts(text) for name, text in by.items()} for place, by in _WORDS.items()}
# Four words with the adjective, as "neither ... nor ..." has: the kind of negation is no matter of length.
_NEGATORS = ("not at all", "by no means", "in no way", "not one bit", "not even remotely")
_SUBJECTS = _parts(
    "the app|the calendar|the sync|the widget|the new layout|the search|the reminder list|the dark theme|the timer|"
    "the backup|the import tool|the web version|the tablet version|the free plan|the paid plan|the family plan|"
    "the weekly view|the month view|the checklist|the editor|the voice input|the inbox|the tag system|the start screen|"
    "the habit tracker|the shared folder|the export button|the settings page|the note section|the project board"
)
_LEADS = _parts(
    "after the last update|on my tablet|since the June release|at work|for our household|on a second phone|"
    "with two accounts|during a long trip|in the morning|compared with last year|with thirty open tasks|"
    "on the train|after four weeks|for a student like me|in landscape mode|over a mobile connection|"
    "between two meetings|with the desktop client|for shopping lists|under the current version"
)
_TAILS = _parts(
    "on my phone|when I plan a week ahead|with a large list|at the office|on both devices|in daily use|"
    "with the latest version|for a team of six|in the evening|when I switch accounts|on a small screen|"
    "after a restart|with three projects|at home|while I travel|in the second tab|with repeated tasks|"
    "for school and work|on weekends|when the screen rotates"
)
_REST = _parts(  # no opinion in any of them, and "not" and "never" in some, so that a negation alone says nothing
    "I have used it for two years.|My team shares four lists.|I have not tried the other plan.|"
    "We are a family of five.|My phone is three years old.|I opened it twice today.|The version number is 8.2.|"
    "I came here from a paper diary.|My brother installed it in May.|I write about ten tasks a day.|"
    "I have never opened the desktop client.|It asks for an email address.|The icon has two colours.|"
    "I mainly keep recipes and dates in it.|There is a button at the lower right.|I do not use the calendar at work.|"
    "The download took a minute.|My account dates from 2019.|It shows seven days at a time.|I set it to English.|"
    "We have not linked a second account.|The menu has nine entries."
)
# Which clause decides: the main one, whichever comes first.
_CONTRASTS = (
    "{other}, but {main}",
    "although {other}, {main}",
    "{main}, although {other}",
    "{other}; still, {main}",
    "{main} even though {other}",
    "{other}, yet {main}",
)


@dataclass
class Reviews:
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
    phrases : list of tuples of str, length N
        The cue phrases of each sentence, without negation.
    sources : dict of str to str
        Where the sentences came from.
    """

    texts: list[str]
    labels: np.ndarray
    classes: tuple[str, ...] = CLASSES
    kinds: list[str] = field(default_factory=list)
    cues: list[list[tuple[int, int]]] = field(default_factory=list)
    decoys: list[list[tuple[int, int]]] = field(default_factory=list)
    phrases: list[tuple[str, ...]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices) -> "Reviews":
        """Return the chosen sentences with all that is known of them, in the order of ``indices``."""
        indices = [int(i) for i in np.asarray(indices).ravel()]

        def pick(values):
            return [values[i] for i in indices] if values else []

        return Reviews(pick(self.texts), self.labels[indices], self.classes, pick(self.kinds), pick(self.cues),
                       pick(self.decoys), pick(self.phrases), self.sources)


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
    if split is None:
        return {place: {name: list(phrases) for name, phrases in by.items()} for place, by in _CUES.items()}
    if split not in SPLITS:
        raise ValueError(f"split {split!r} came, expected one of {', '.join(SPLITS)}.")
    chosen = {}
    for p, (place, by_class) in enumerate(_CUES.items()):
        chosen[place] = {}
        for c, (name, phrases) in enumerate(by_class.items()):
            order = np.random.default_rng((split_seed, p, c)).permutation(len(phrases))
            ends = np.round(np.cumsum((0.0, *SHARES)) * len(phrases)).astype(int)
            at = SPLITS.index(split)
            chosen[place][name] = [phrases[i] for i in sorted(order[ends[at] : ends[at + 1]])]
    return chosen


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
    >>> some = build(6, "test", seed=0)
    >>> some.labels.tolist(), len(set(some.texts))
    ([0, 1, 2, 0, 1, 2], 6)
    """
    if n < 3 or n % 3:
        raise ValueError(f"n = {n} came, expected a positive multiple of 3, since each frame is filled once a class.")
    cues = cue_phrases(split, split_seed)
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    made: list[_Made] = []
    seen: set[str] = set()
    while len(made) < n:
        triple = _triple(rng, cues)
        if seen.isdisjoint(sentence.text for sentence in triple):
            made += triple
            seen.update(sentence.text for sentence in triple)
    return Reviews(
        [m.text for m in made], np.tile(np.arange(3), n // 3), CLASSES, [m.kind for m in made], [m.cues for m in made],
        [m.decoys for m in made], [m.phrases for m in made], {"reviews": "generated by crossexplain.data.reviews"},
    )


@dataclass
class _Made:
    text: str
    kind: str
    cues: list[tuple[int, int]]
    decoys: list[tuple[int, int]]
    phrases: tuple[str, ...]


# Inside a sentence that is being made, a deciding phrase stands between < and >, a decoy between { and }.
def _triple(rng: np.random.Generator, cues: dict) -> list[_Made]:
    """Fill one frame once a class."""
    kind = str(rng.choice(KINDS, p=(0.5, 0.25, 0.25)))
    place = "be" if kind == "negation" else str(rng.choice(list(cues)))
    subject, lead, tail = (str(rng.choice(words)) for words in (_SUBJECTS, _LEADS, _TAILS))
    shape = {"lead": rng.random() < 0.4, "tail": rng.random() < 0.4, "rest": rng.choice(4, p=(0.4, 0.25, 0.25, 0.1))}
    rest = [str(r) for r in rng.choice(_REST, 2, replace=False)]
    if kind == "negation":
        clauses = _negations(rng, cues["be"], f"{subject} {rng.choice(('is', 'was', 'seems'))}")
    else:
        clauses = {name: _clause(place, subject, f"<{phrase}>") for name, phrase in _alike(rng, cues[place]).items()}
    others = _others(rng, cues, place, subject)
    contrast = str(rng.choice(_CONTRASTS))
    return [
        _mark(_sentence(clauses[name], others[name], kind, contrast, lead, tail, rest, shape), kind) for name in CLASSES
    ]


def _alike(rng, phrases: dict[str, list[str]]) -> dict[str, str]:
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


def _negations(rng, phrases: dict[str, list[str]], start: str) -> dict[str, str]:
    """Return a clause a class whose class is not that of its adjective."""
    turned, ends, negator = _alike(rng, phrases), _alike(rng, phrases), rng.choice(_NEGATORS)
    first, second = ("positive", "negative") if rng.random() < 0.5 else ("negative", "positive")
    return {
        "negative": f"{start} <{negator}> <{turned['positive']}>",
        "neutral": f"{start} <neither> <{ends[first]}> <nor> <{ends[second]}>",
        "positive": f"{start} <{negator}> <{turned['negative']}>",
    }


def _others(rng, cues, place: str, subject: str) -> dict[str, str]:
    """Return, for each class, a clause of another class; the clauses differ in nothing but the phrase."""
    place = str(rng.choice([other for other in cues if other != place]))
    subject = str(rng.choice([other for other in _SUBJECTS if other != subject]))
    turn, phrases = int(rng.integers(1, 3)), _alike(rng, cues[place])
    return {name: _clause(place, subject, "{" + phrases[CLASSES[(c + turn) % 3]] + "}") for c, name in enumerate(CLASSES)}


def _sentence(main, other, kind, contrast, lead, tail, rest, shape) -> str:
    body = contrast.replace("{main}", main).replace("{other}", other) if kind == "contrast" else main
    body = f"{lead}, {body}" if shape["lead"] else body
    body = f"{body} {tail}" if shape["tail"] else body
    parts = [body[0].upper() + body[1:] + "."]
    if shape["rest"] in (1, 3):
        parts.insert(0, rest[0])
    if shape["rest"] in (2, 3):
        parts.append(rest[1])
    return " ".join(parts)


def _mark(marked: str, kind: str) -> _Made:
    """Take the marks out of a sentence and note where they were."""
    text, spans, start = [], {">": [], "}": []}, 0
    for character in marked:
        if character in "<{":
            start = len(text)
        elif character in ">}":
            spans[character].append((start, len(text)))
        else:
            text.append(character)
    text = "".join(text)
    phrases = tuple(
        text[a:b] for a, b in spans[">"] + spans["}"] if text[a:b] not in (*_NEGATORS, "neither", "nor")
    )
    return _Made(text, kind, spans[">"], spans["}"], phrases)


def token_mask(offsets, spans: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """Which tokens overlap a character span?

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
        raise ValueError(f"offsets have shape {offsets.shape}, expected ({len(spans)}, T, 2) for {len(spans)} sentences.")
    mask = np.zeros(offsets.shape[:2], dtype=bool)
    for row, offset, known in zip(mask, offsets, spans):
        for start, end in known:
            row |= (offset[:, 0] < end) & (offset[:, 1] > start)
    return mask


def app_reviews() -> Reviews:
    """Load the real app-store reviews: 1 and 2 stars are negative, 3 neutral, 4 and 5 positive.

    Returns
    -------
    Reviews
        Duplicate and empty texts left out; ``kinds`` holds the app.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the file is not at hand.
    ValueError
        If the file is not the table that was expected.
    """
    found = store.find("app-reviews")
    path = _only_file(found.path, "google_play_reviews_trimmed.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"content", "score", "appId"} <= set(rows[0]):
        columns = ", ".join(rows[0]) if rows else "none"
        raise ValueError(f"{path.name} has the columns {columns}, expected content, score and appId among them; "
                         "fetch the file again.")
    kept = {}
    for row in rows:
        text = " ".join((row["content"] or "").split())
        if text and row["score"] in set("12345"):
            kept.setdefault(text, row)
    labels = np.array([(0, 0, 1, 2, 2)[int(row["score"]) - 1] for row in kept.values()], dtype=np.int64)
    return Reviews(list(kept), labels, CLASSES, [row["appId"] for row in kept.values()],
                   sources={found.name: found.origin})


def labelled_sentences() -> Reviews:
    """Load the 3 x 1,000 sentences of Kotzias et al. (2015): products, films and restaurants, negative or positive.

    Returns
    -------
    Reviews
        Two classes; duplicate texts left out; ``kinds`` holds ``"amazon_cells"``, ``"imdb"`` or ``"yelp"``.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the files are not at hand.
    ValueError
        If a line does not end in a tab and 0 or 1.
    """
    found = store.find("labelled-sentences")
    kept = {}
    for name in ("amazon_cells", "imdb", "yelp"):
        path = _only_file(found.path, f"{name}_labelled.txt")
        # split("\n"): some sentences hold a control character that splitlines takes for the end of a line
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            text, tab, label = line.rpartition("\t")
            if line.strip() and (not tab or label.strip() not in ("0", "1")):
                raise ValueError(f"{path.name}, line {number}: expected a sentence, a tab and 0 or 1, got {line[-40:]!r}.")
            if text.strip():
                kept.setdefault(" ".join(text.split()), (int(label), name))
    return Reviews(list(kept), np.array([label for label, _ in kept.values()], dtype=np.int64), ("negative", "positive"),
                   [name for _, name in kept.values()], sources={found.name: found.origin})


def _only_file(path: Path, name: str) -> Path:
    """Return the file itself, whether the store found it or the folder that holds it."""
    return path / name if path.is_dir() else path


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
    parts = {name: [] for name in SPLITS}
    for label in np.unique(reviews.labels):
        order = rng.permutation(np.flatnonzero(reviews.labels == label))
        first, second = round(shares[0] * len(order)), round((shares[0] + shares[1]) * len(order))
        for name, part in zip(("validation", "test", "train"), np.split(order, [first, second])):
            parts[name].append(part)
    return {name: reviews.take(rng.permutation(np.concatenate(part))) for name, part in parts.items()}
