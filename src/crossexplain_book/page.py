"""What every chapter needs: numbers for the prose, claims, checks of exercises, a quiz, provenance.

Nothing is written to disk: all of it travels in the outputs of the executed notebook, from where the book collects it.
"""

import html
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from crossexplain.data.registry import SOURCES
from crossexplain.intervals import Interval
from crossexplain_book.provenance import installed

CLAIM = "application/vnd.crossexplain.claim+json"
RUN = "application/vnd.crossexplain.run+json"
GLUED = "application/papermill.record/"  # what stands before the kind of a number that is shown elsewhere


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular or in the plural.

    Parameters
    ----------
    n : int
    noun : str
        In the singular.
    plural : str, optional
        Where an ``s`` is not enough.

    Examples
    --------
    >>> count(1, "pair"), count(0, "pair"), count(1000, "reply", "replies")
    ('1 pair', '0 pairs', '1,000 replies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def out_of(k: int, n: int, noun: str, plural: str | None = None) -> str:
    """Return "``k`` of ``n`` things" in words that also read well for none and for all of them.

    Parameters
    ----------
    k, n : int
    noun, plural : str
        As for :func:`count`.

    Examples
    --------
    >>> [out_of(k, 8, "picture") for k in (0, 1, 8)]
    ['none of the 8 pictures', '1 of the 8 pictures', 'all 8 pictures']
    >>> out_of(1, 1, "reply", "replies"), out_of(0, 1, "reply"), out_of(2, 2, "reply", "replies")
    ('the only reply', 'none of the 1 reply', 'both replies')
    """
    things = count(n, noun, plural)
    if k == n and n in (1, 2):
        return f"the only {noun}" if n == 1 else f"both {plural or noun + 's'}"
    if k == n and n:
        return f"all {things}"
    return f"{k:,} of the {things}" if k else f"none of the {things}"


def measured(interval: Interval, rule: str, spec: str = ".3f", unit: str | None = None, plural: str | None = None) -> str:
    """Return what a run measured for a claim, and what the claim needs, as one sentence.

    Parameters
    ----------
    interval : Interval
    rule : str
        ``"above 0.5"``, ``"below 0.5"``, ``"between 0.4 and 0.6"`` or ``"at 0.5"``.
    spec : str
        Format of the numbers.
    unit, plural : str, optional
        What was counted, in the singular, as for :func:`count`.

    Examples
    --------
    >>> measured(Interval(0.5, 0.45, 0.55, 256), "above 0.33", ".2f", "pair")
    'Measured 0.50 [0.45, 0.55] over 256 pairs; the claim needs the whole interval to lie above 0.33.'
    >>> measured(Interval(0.5, 0.4, 0.6, 1000), "between 0.3 and 0.7", ".1f")
    'Measured 0.5 [0.4, 0.6] with n = 1,000; the claim needs the whole interval to lie between 0.3 and 0.7.'
    """
    basis = f"over {count(interval.n, unit, plural)}" if unit else f"with n = {interval.n:,}"
    return f"Measured {interval:{spec}} {basis}; the claim needs the whole interval to lie {rule}."


class Markdown:
    """A piece of text that a notebook renders, with data that the book collects.

    Parameters
    ----------
    text : str
        Markdown.
    data : mapping from MIME type to object, optional
        Carried beside the text in the cell's output.
    """

    def __init__(self, text: str, data: dict | None = None):
        self.text, self.data = text, data or {}

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/markdown": self.text, "text/plain": self.text, **self.data}


def table(header, rows) -> Markdown:
    """Return a Markdown table.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequences
        Each cell is turned into text; bars in it are escaped.

    Examples
    --------
    >>> print(table(["a", "b"], [[1, "x|y"]]))
    | a | b |
    | --- | --- |
    | 1 | x\\|y |
    """
    def line(cells) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return Markdown("\n".join([line(header), line(["---"] * len(header)), *map(line, rows)]))


class Sortable:
    """A table that is sorted by a click on a heading or with the keyboard; its script is part of the page.

    Without a script it is a plain table in the order in which the rows were given.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequences
        Each cell is turned into text; a column of numbers is sorted by number, the largest first.
    """

    STYLE = (
        ".ce-sortable{overflow:auto;max-height:34rem}.ce-sortable table{border-collapse:collapse;font-size:.85rem}"
        ".ce-sortable td,.ce-sortable th{padding:.15rem .5rem;border-bottom:1px solid #8884;text-align:left}"
        ".ce-sortable button{all:unset;cursor:pointer;font-weight:600}"
        ".ce-sortable button:focus-visible{outline:2px solid #33628f}"
        ".ce-sortable th[aria-sort=ascending] button::after{content:' \\25b2'}"
        ".ce-sortable th[aria-sort=descending] button::after{content:' \\25bc'}"
    )
    SCRIPT = """
document.querySelectorAll(".ce-sortable:not([data-ready])").forEach(function (box) {
  box.dataset.ready = "1";
  var body = box.querySelector("tbody"), heads = Array.from(box.querySelectorAll("th"));
  heads.forEach(function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var was = head.getAttribute("aria-sort"), text = function (row) { return row.cells[column].textContent.trim(); };
      var rows = Array.from(body.rows), numbers = rows.every(function (row) { return text(row) === "" || !isNaN(+text(row)); });
      var up = numbers ? was === "descending" : was !== "ascending";
      heads.forEach(function (other) { other.setAttribute("aria-sort", "none"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort(function (a, b) {
        var x = text(a), y = text(b);
        if (x === "" || y === "") { return (x === "") - (y === ""); }
        var order = numbers ? x - y : x.localeCompare(y);
        return up ? order : -order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  });
});"""

    def __init__(self, header, rows):
        self.header, self.rows = [str(name) for name in header], [[str(cell) for cell in row] for row in rows]
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(f"a row has {len(wrong[0])} cells, the header {len(self.header)}: {wrong[0]}.")

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col" aria-sort="none"><button>{html.escape(name)}</button></th>' for name in self.header)
        lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return (f'<style>{self.STYLE}</style><div class="ce-sortable" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
                f"<tbody>{lines}</tbody></table></div><script>{self.SCRIPT}</script>")

    def __repr__(self) -> str:
        return str(table(self.header, self.rows))


class ClaimError(AssertionError):
    """The run does not bear out a sentence of the book."""


class Page:
    """The run that produces one page of the book.

    Parameters
    ----------
    chapter : str
        Two digits, as in the notebook's name.
    profile : str
        ``"embedded"`` (no network, no folder) or ``"full"``.
    seed : int
        The one seed of the run.
    size : str
        ``"page"``, or ``"small"``: the same code on a few examples, where claims are recorded but not enforced.
    """

    def __init__(self, chapter: str, *, profile: str = "embedded", seed: int = 0, size: str = "page"):
        if profile not in ("embedded", "full"):
            raise ValueError(f"got the profile {profile!r}, expected 'embedded' or 'full'.")
        if size not in ("page", "small"):
            raise ValueError(f"got the size {size!r}, expected 'page' or 'small'.")
        self.chapter, self.profile, self.seed, self.size = chapter, profile, seed, size
        self.sources, self.numbers, self.claims = {}, {}, []
        self._started = time.time()

    @property
    def results(self) -> Path:
        """Folder for tables of this run (``CROSSEXPLAIN_RESULTS``, else ``_build/results``), created when asked for."""
        folder = Path(os.environ.get("CROSSEXPLAIN_RESULTS", "_build/results"))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def source(self, file):
        """Note where data or weights came from (what ``data.store.find`` returned), and return it unchanged."""
        self.sources[file.name] = file.origin
        return file

    def _key(self, key: str) -> str:
        """Return a key that fits the one scheme of the book, ``chapter-thing-what``, or refuse it."""
        if not re.fullmatch(rf"{self.chapter}(-[a-z0-9]+)+", key):
            words = [word for word in re.findall(r"[a-z0-9]+", key.lower()) if word != self.chapter]
            raise ValueError(f"got the key {key!r}, expected the chapter and words in small letters, joined by hyphens: "
                             f"{'-'.join([self.chapter, *words])!r}.")
        return key

    def number(self, key: str, value, spec: str = "") -> None:
        """Make a number available to the prose as ``{glue:text}`key```.

        Parameters
        ----------
        key : str
            ``chapter-thing-what``, for example ``04-ratio-text``.
        value : object
        spec : str
            Format, for example ``".1%"``.
        """
        from IPython.display import display

        self.numbers[self._key(key)] = format(value, spec)
        # What ``myst_nb.glue`` writes, whose import checks notebooks and takes a second of every chapter.
        display({f"{GLUED}text/plain": repr(self.numbers[key])}, raw=True,
                metadata={"scrapbook": {"name": key, "mime_prefix": GLUED}})

    def claim(self, key: str, text: str, interval: Interval, *, above: float | None = None,
              below: float | None = None, about: tuple[float, float] | None = None, paper: bool = False,
              spec: str = ".3f", unit: str | None = None, plural: str | None = None) -> Markdown:
        """State a comparative claim and hold the run to it.

        Exactly one of ``above``, ``below`` and ``about`` says what has to be true of the whole interval: it lies above
        a number, below a number, or between two. So "no better than chance" is shown by an interval that is short and
        lies round chance, not by one that is too long to say anything.

        Parameters
        ----------
        key : str
            ``chapter-thing-what``, unique in the book.
        text : str
            The sentence.
        interval : Interval
            Value, 95 % interval, n.
        paper : bool
            The claim is the paper's: record whether it holds, do not insist.
        spec : str
            Format of the numbers.
        unit, plural : str, optional
            What ``n`` counts, in the singular, as for :func:`count`.

        Returns
        -------
        Markdown
            Shown on the page and collected into the claims appendix.

        Raises
        ------
        ClaimError
            If the claim is the book's own, the run has page size, and the run does not bear it out.
        """
        self._key(key)
        def bound(number: float) -> str:
            return f"{number:{spec}}" if number else "0"

        rules = {
            "above": above is not None and (interval.low > above, f"above {bound(above)}"),
            "below": below is not None and (interval.high < below, f"below {bound(below)}"),
            "about": about is not None and (
                about[0] <= interval.low and interval.high <= about[1],
                f"at {bound(about[0])}" if about[0] == about[1] else f"between {bound(about[0])} and {bound(about[1])}"),
        }
        chosen = [rule for rule in rules.values() if rule]
        if len(chosen) != 1:
            raise ValueError(f"claim {key!r} got {len(chosen)} rules, expected one of above, below, about.")
        holds, rule = bool(chosen[0][0]), chosen[0][1]
        if not holds and not paper and self.size == "page":
            raise ClaimError(f"claim {key!r} does not hold: {text} {measured(interval, rule, spec, unit, plural)}")
        record = {"claim": key, "text": text, "value": interval.value, "low": interval.low,
                  "high": interval.high, "n": interval.n, "rule": rule, "holds": holds, "paper": paper,
                  "chapter": self.chapter, "profile": self.profile, "size": self.size, "spec": spec}
        self.claims.append(record)
        verdict = "holds" if holds else "does not hold"
        owner = "The paper's claim" if paper else "Claim"
        words = f"**{owner} {verdict}.** {text} {measured(interval, rule, spec, unit, plural)}"
        return Markdown(words, {CLAIM: record})

    def paper(self, rows) -> Markdown:
        """Return the table "the paper and this page".

        Parameters
        ----------
        rows : iterable of (item, paper, page, verdict)
            Figure or section, what the paper says, what this run finds, in three words.
        """
        return table(["in the paper", "what it says", "what this page finds", "in short"], rows)

    def attempt(self, check, answer) -> Markdown:
        """Try an exercise's check on an answer and say what is wrong instead of stopping the notebook.

        Parameters
        ----------
        check : callable
            Takes the answer and raises ``AssertionError`` with a reason if it is wrong.
        answer : object
            Usually the reader's function.
        """
        try:
            check(answer)
        except NotImplementedError:
            return Markdown("**Not yet:** the function is still empty. Replace the last line with your own.")
        except Exception as error:  # noqa: BLE001 - whatever the reader's code raises is part of the answer
            return Markdown(f"**Not yet:** {error or type(error).__name__}")
        return Markdown("**Right:** every check passes.")

    def quiz(self, questions):
        """Return a quiz that answers back, without a kernel or a script.

        Parameters
        ----------
        questions : iterable of (question, answers)
            ``answers`` is a sequence of (text, right, reply).

        Returns
        -------
        Quiz
        """
        return Quiz(self.chapter, questions)

    def provenance(self) -> Markdown:
        """Return the table of versions, seed, device, time, revision and sources of this run, with their makers and terms."""
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"
        rows = [("profile, size", f"{self.profile}, {self.size}"), ("seed", self.seed), ("device", device),
                ("Python", f"{platform.python_version()} on {sys.platform}"),
                ("packages", ", ".join(f"{name} {number}" for name, number in installed().items() if number)),
                ("run", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._started))),
                ("duration", f"{time.time() - self._started:.0f} s"), ("revision", revision())]
        rows += [(f"source of {name}", source) for name, source in self.sources.items()]
        known = [SOURCES[name] for name in self.sources if name in SOURCES]  # licences ask for the names of those who made it
        rows += [(f"makers of {source.name}", f"{source.authors}; terms: {source.terms}") for source in known]
        return Markdown(str(table(["provenance", "of this page"], rows)), {RUN: {"sources": dict(self.sources)}})


def revision() -> str:
    """Return the short git revision of the checkout, followed by ``+`` if files differ, or ``unknown``."""
    def git(*words: str) -> str:
        process = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
        return process.stdout.strip() if process.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short", "HEAD")
        return f"{head}{'+' if git('status', '--porcelain', '--untracked-files=no') else ''}" if head else "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


class Quiz:
    """Multiple-choice questions whose answers reply when chosen; plain HTML and CSS, so it works from a file.

    Parameters
    ----------
    chapter : str
    questions : iterable of (question, answers)
        ``answers`` is a sequence of (text, right, reply); exactly one is right.
    """

    STYLE = (
        ".ce-quiz{border:1px solid #8888;border-radius:.4rem;margin:0 0 1rem;padding:.3rem 1rem .7rem;min-width:0}"
        ".ce-quiz legend{float:none;width:auto;font-size:1rem;font-weight:600;padding:0 .3rem;margin:0}"
        ".ce-quiz label{cursor:pointer;display:inline;margin-left:.4rem}"
        ".ce-quiz .reply{display:none;margin:.1rem 0 .4rem 1.6rem;padding-left:.6rem;"
        "border-left:4px solid #c8553d}.ce-quiz .reply.right{border-color:#3f8f6b}"
        ".ce-quiz input:checked~.reply{display:block}"
    )

    def __init__(self, chapter: str, questions):
        self.chapter, self.questions = chapter, [(q, list(answers)) for q, answers in questions]
        for question, answers in self.questions:
            if sum(bool(right) for _, right, _ in answers) != 1:
                raise ValueError(f"question {question!r} needs exactly one right answer.")

    @staticmethod
    def _text(words: str) -> str:
        """Return words as HTML; text between backquotes becomes code."""
        return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(words))

    def _answer(self, q: int, a: int, text: str, right: bool, reply: str) -> str:
        name = f"quiz-{self.chapter}-{q}"
        word, kind = ("Right.", "reply right") if right else ("Not quite.", "reply")
        return (f'<div><input type="radio" name="{name}" id="{name}-{a}"><label for="{name}-{a}">{self._text(text)}</label>'
                f'<p class="{kind}"><strong>{word}</strong> {self._text(reply)}</p></div>')

    def _repr_html_(self) -> str:
        fields = []
        for q, (question, answers) in enumerate(self.questions, start=1):
            choices = "".join(self._answer(q, a, *answer) for a, answer in enumerate(answers))
            fields.append(f'<fieldset class="ce-quiz"><legend>{q}. {self._text(question)}</legend>{choices}</fieldset>')
        return f"<style>{self.STYLE}</style>" + "".join(fields)

    def __repr__(self) -> str:
        return "\n".join(f"{q}. {question}" for q, (question, _) in enumerate(self.questions, start=1))
