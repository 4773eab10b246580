"""Checks before the rounds: what makes gradients lie, found by running the model and not by trusting it.

Each finding says what was seen, why it matters and what to do. A model that passes can still be misread; one that fails
should not be read at all before it is mended.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from crossexplain.checks import require_whole
from crossexplain.gradients.capture import Target
from crossexplain.gradients.faults import Checks, Findings
from crossexplain.gradients.modalities import Inputs, Modality
from crossexplain.gradients.question import Question
from crossexplain.gradients.trial import texts_of

# What the test pass of a question finds.
TESTED = ("columns change", "an axis is dropped", "examples touch", "one each or one for all", "probabilities")


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes
    ----------
    check : str
        Short name, the same for every model.
    saw : str
        What the run showed, with numbers.
    why : str
        What it does to gradients and verdicts.
    do : str
        How to mend it.
    """

    check: str
    saw: str
    why: str
    do: str


class Preflight(list[Finding]):
    """The findings of one run, empty if all checks passed; shows itself as a table.

    Attributes
    ----------
    ran : tuple of str
        The checks.
    judged : str
        Which part of the model's output was judged, in words.
    """

    def __init__(self, findings: Sequence[Finding], ran: Iterable[str], judged: str = "output"):
        super().__init__(findings)
        self.ran, self.judged = tuple(ran), judged

    @property
    def names(self) -> list[str]:
        """Names of the checks that failed."""
        return [finding.check for finding in self]

    def _repr_markdown_(self) -> str:
        if not self:
            return f"**Nothing found.** Checked: {', '.join(self.ran)}. Judged: {self.judged}."
        rows: list[Sequence[str]] = [["check", "what was seen", "why it matters", "what to do"], ["---"] * 4, *self]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        return f"{table}\n\nJudged: {self.judged}."

    def __str__(self) -> str:
        if not self:
            return f"nothing found; checked: {', '.join(self.ran)}; judged: {self.judged}"
        findings = (f"{f.check}: {f.saw}\n  why: {f.why}\n  do:  {f.do}" for f in self)
        return "\n".join([*findings, f"judged: {self.judged}"])


def preflight(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
              labels: Tensor | None = None, target: Target = None, seed: int = 0) -> Preflight:
    """Look for what would make the rounds lie.

    Parameters
    ----------
    model : torch.nn.Module
        In the state in which it is to be explained.
    inputs : mapping of str to Tensor
        Held-out examples, a few dozen or more.
    modalities : sequence of Modality
    labels : Tensor of int64, shape (N,), optional
        Their labels; with them the accuracy is compared with that on shuffled modalities and of the most frequent class.
    target : optional
        As for :func:`~crossexplain.gradients.rounds.rounds`.
    seed : int
        Of shuffles and replaced padding.

    Returns
    -------
    Preflight
        A list of :class:`Finding`.

    Raises
    ------
    InputError
        For inputs that cannot be run at all, and labels that are no class numbers or of another length.

    Notes
    -----
    The checks: dropout on, batch statistics, not repeatable, columns change, an axis is dropped, one each or one for all,
    probabilities, examples touch, clamped logit, dead examples, no gradient, vanished branch, gradient underflows, gradient is
    no slope, zero positions, padding is read, other places, padding side, mask is padding, mask changes nothing, within 0
    and 1, one side of zero, train mode, no better than shuffled, no better than a rival.
    """
    require_whole(seed=seed)
    question = Question(model, inputs, modalities, target=target, any_mode=True)
    asked = Checks(question, labels, seed)
    checks, others = asked.first(), asked.others()
    findings, ran = _found(checks), [_name(check) for check in checks]
    if not findings:  # what follows compares runs, which says something only where the same input gives the same output
        findings, ran = [Finding(one.check, one.saw, one.why, one.do) for one in question.problems()], [*ran, *TESTED]
        if {finding.check for finding in findings} <= {"probabilities"}:
            findings, ran = findings + _found(others), [*ran, *map(_name, others)]
    return Preflight(findings, dict.fromkeys(ran), question.judged)


def _found(checks: Sequence[Callable[[], Findings]]) -> list[Finding]:
    return [Finding(_name(check), saw, *texts_of(_name(check), kind, **values))
            for check in checks for saw, kind, values in check()]


def _name(check: Callable[[], Findings]) -> str:
    return check.__name__.strip("_").replace("_", " ")
