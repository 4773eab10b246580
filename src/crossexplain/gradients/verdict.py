"""What predictions rest on, read from the logits of views; no gradient and no record is needed.

The logits of a few views decide: nothing masked, each modality alone, each modality masked, everything masked. The
*dividend* v(AB) - v(A) - v(B) + v(0) (Harsanyi 1963) is what the whole has beyond the sum of its parts. Of more than two
modalities the same is asked of every sum of parts: which modalities alone, which pairs, which threes are enough.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crossexplain.checks import InputError
from crossexplain.gradients.answers import CANNOT_TELL, Answer, modalities_of, named, of_families, partly, spoken
from crossexplain.gradients.evidence import classes, evidence
from crossexplain.gradients.parts import (
    FLAT,
    Family,
    Part,
    Variation,
    bootstrap,
    centred,
    dividend,
    dividends,
    estimate,
    families,
    leaving,
    of_dividend,
    of_family,
    one_hot,
    simplest,
    subsets,
    values_of,
)
from crossexplain.gradients.views import FULL, NOTHING, alone, masked
from crossexplain.intervals import Interval

# The share of the whole that a part must account for to count as the whole. It was chosen on controls of the seeds 100 to
# 108 and judged on 0 to 19 (benchmarks/verdict.py), where 0.70 to 0.85 made no mistake. It is the same for every model.
ENOUGH = 0.75
# By how much the share that one of two modalities accounts for must exceed that of the other where neither is enough: then
# a part of the predictions is its own; where samples waver, it is named from this share on. Chosen as ENOUGH was, where 0.03 to
# 0.16 made no mistake.
SOME = 0.1
# How far below or above ENOUGH, as a share of it, a baseline may have to be read to say what the mean of all says.
NEAR = 0.2
SURE = 0.95  # share of the bootstrap samples that have to agree, as for the 95 % intervals
# Where samples waver, the share of them that say that one modality accounts for more from which the answer is not "both only".
# It was chosen on models of the seeds 100 to 103 and 200 to 214, of 24 to 256 examples each: no mixed one is "both only" there.
LIKELY = 0.9
# Number of examples from which each can be judged by itself. What an example rests on is measured from the middle of all (a
# median for each class): of fewer, an example is a large part of that middle, and a single one is the middle itself.
FEWEST = 10
# Smallest share of all effects at which an interaction between modalities is named (where there are more than two); every
# trained model has less than that, since no masked view is what it was trained on.
NAMED = 0.1


@dataclass(frozen=True)
class Verdict:
    """What the predictions rest on.

    Attributes
    ----------
    answer : str
        ``"<modality> alone"``, ``"either"`` (each would do), ``"both added"`` (both count, each for itself), ``"both
        only"`` (their interaction decides), ``"partly <modality>, partly both"`` (one answer does not fit: the modality alone
        gives a part of the predictions, an interaction the rest; ``reason`` tells how many) or ``"cannot tell"``. Of more
        than two modalities "both" are all that :attr:`subset` names.
    reason : str
        One sentence.
    support : float
        Share of bootstrap samples that give the answer, or one that it covers, the least over the baselines.
    answers : dict of str to str
        The answer of each baseline.
    reach : dict of str to dict of str to Interval
        For each baseline, the share of the logit's variation that each modality alone, and their ``"sum"``, account for.
    strength : dict of str to Interval
        For each baseline, the share of the logit's variation that no sum of the parts accounts for.
    dividend : dict of str to Interval
        For each baseline, the mean size of the dividend, as a share of the mean size of all effects.
    flips : dict of str to dict of str to Interval
        For each baseline and masked modality, the share of predictions that change their class.
    interactions : dict of str to dict of tuple of str to Interval
        For each baseline and some of more than two modalities, the mean size of their dividend as a share of the mean size of
        all effects; empty for two modalities.
    terms : tuple of tuple of str
        The parts that carry the predictions: ``(("sound",), ("frames", "words"))`` for the sound, added to an interaction of
        frames and words. Of "either" each would do. Empty where the verdict cannot tell.
    subset : tuple of str
        The modalities that the predictions rest on, in their order. Where the verdict cannot tell how they go together, those
        that 95 % of the samples of every baseline name all the same.
    shares : dict of str to dict of tuple of str to Interval
        For each baseline, the share of the logit's variation that comes with the dividend of each modality, pair and so on,
        as far as their views are there. The shares sum to 1; one that works against the others is below 0.
    """

    answer: str
    reason: str
    support: float
    answers: dict[str, str]
    reach: dict[str, dict[str, Interval]]
    strength: dict[str, Interval]
    dividend: dict[str, Interval]
    flips: dict[str, dict[str, Interval]]
    interactions: dict[str, dict[tuple[str, ...], Interval]] = field(default_factory=dict)
    terms: tuple[tuple[str, ...], ...] = ()
    subset: tuple[str, ...] = ()
    shares: dict[str, dict[tuple[str, ...], Interval]] = field(default_factory=dict)

    @property
    def carriers(self) -> tuple[str, ...]:
        """The modalities that count by themselves."""
        return tuple(part[0] for part in self.terms if len(part) == 1)

    @property
    def interacting(self) -> tuple[tuple[str, ...], ...]:
        """The pairs, threes and so on whose interaction counts."""
        return tuple(part for part in self.terms if len(part) > 1)

    def __str__(self) -> str:
        lines = [f"{self.answer} (support {self.support:.2f}): {self.reason}"]
        for baseline, parts in self.reach.items():
            reached = ", ".join(f"{part} {estimate:.2f}" for part, estimate in parts.items())
            flipped = ", ".join(f"{name} masked {estimate:.2f}" for name, estimate in self.flips[baseline].items())
            strong = [f"{spoken(names)} {share:.2f}" for names, share in self.interactions.get(baseline, {}).items()
                      if share.value >= NAMED]
            lines.append(f"  {baseline}: {self.answers[baseline]}; accounts for {reached}; flips with {flipped}; "
                         f"interaction {self.strength[baseline]:.2f}" + (f", of {', '.join(strong)}" if strong else ""))
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="    ", break_long_words=False) for line in lines)


def verdict(logits: Mapping[str, Mapping[str, Tensor]], modalities: Sequence[str], target: Tensor | None = None, *,
            enough: float = ENOUGH, draws: int = 1000, groups: np.ndarray | None = None, seed: int = 0) -> Verdict:
    """Say what the predictions rest on.

    A part *accounts for* the whole as far as its logits, over the examples, vary with those of the full view (squared
    correlation, 0 where it is negative), or its answers with the answers, if that is more: logits that are larger or smaller
    than they would be may still give the same answers. A modality alone that accounts for ``enough`` carries the prediction;
    if several do, either would; if none does but their sum does, they add up; if not even the sum does, the interaction
    decides, and where one of two modalities then accounts for clearly more than the other, a part of the predictions is its
    own. Of more modalities every sum of parts is looked at, the simplest first: one alone, several added, a pair that
    interacts with others added to it, several pairs, a three. A shift of the logits or one stretch of all masked views,
    which any baseline brings, changes none of this.

    Parameters
    ----------
    logits : mapping from baseline to mapping from view to Tensor, shape (N, C)
        Views ``"full"``, ``"all masked"``, each modality masked (``"text masked"``) and all others masked. Of more than three
        modalities those of :func:`~crossexplain.gradients.parts.leaving` two or three too: only sums of views that are there
        are looked at.
    modalities : sequence of str
        Names.
    target : Tensor of int64, shape (N,), optional
        Class that is followed; default the predicted one.
    enough : float
        Share from which a part counts as the whole.
    draws : int
        Bootstrap samples over the examples.
    groups : array_like, shape (N,), optional
        Examples with the same value, such as all pairs of one image, are drawn together.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Verdict
        "cannot tell" where a baseline's answer holds in fewer than 95 % of the bootstrap samples or the baselines disagree,
        unless the mean over all baselines is sure and each of them would say the same if four fifths, or six fifths, of
        ``enough`` were asked for; and where the logits hardly vary over the examples. That a part is one modality's own is
        said as well where no baseline is sure, and samples waver between that and one of its neighbours, one modality alone
        or both only.

    Raises
    ------
    InputError
        For fewer than two examples or modalities, no baseline, a missing view, one of another shape and one with NaN or
        infinity, target and groups of another length, and a share or number of samples that is none.

    Examples
    --------
    >>> image, text = torch.randn(2, 200, 1, generator=torch.Generator().manual_seed(0))
    >>> views = {"full": image + text, "text masked": image, "image masked": text, "all masked": torch.zeros(200, 1)}
    >>> verdict({"zero": views}, ["image", "text"]).answer
    'both added'
    """
    _require_share(enough)
    if not isinstance(draws, Integral) or draws < 1:
        raise InputError(f"got draws={draws!r}, expected a whole number, at least one bootstrap sample.")
    full = _require_logits(logits, modalities)
    n = len(full)
    if n < 2:
        raise InputError(f"a verdict needs at least 2 examples, got {n}; run the rounds on more.")
    for what, given in (("target", target), ("groups", groups)):
        if given is not None and np.shape(given) != (n,):
            raise InputError(f"got {what} of shape {np.shape(given)}, expected ({n},), one entry for each example.")
    weights = bootstrap(n, draws, seed, groups)
    judged = {baseline: _judge(views, modalities, target, weights, enough) for baseline, views in logits.items()}
    found, reason, support = _settle(judged, modalities)
    if found == CANNOT_TELL and (mean := _by_mean(judged, modalities, enough)):
        found, reason, support = mean
    kept = {name: {baseline: getattr(one, name) for baseline, one in judged.items()}
            for name in ("reach", "strength", "dividend", "flips", "interactions", "shares")}
    answers = {baseline: one.answer.word for baseline, one in judged.items()}
    subset = _subset(judged, modalities) if found == CANNOT_TELL else modalities_of(found, modalities)
    if found == CANNOT_TELL and subset:
        reason += f" They rest on {' and '.join(subset)}, however these go together."
    return Verdict(found.word, reason + on_one_side(full), support, answers, terms=found.terms, subset=subset, **kept)


def _require_logits(logits: Mapping[str, Mapping[str, Tensor]], modalities: Sequence[str]) -> Tensor:
    """Return the logits (N, C) of the full view, or raise where a view is missing, of another shape or not finite."""
    if len(modalities) < 2:
        raise InputError(f"got the modalities {list(modalities)}, expected two or more: of a single one there is nothing to "
                         "judge.")
    if not logits:
        raise InputError("got the logits of no baseline, expected at least one, as in {'zero': {'full': logits, ...}}.")
    for baseline, views in logits.items():
        if missing := [view for view in needed_views(modalities) if view not in views]:
            raise InputError(f"the logits of baseline {baseline!r} lack the views {', '.join(map(repr, missing))}.")
    full = next(iter(logits.values()))[FULL]
    for baseline, views in logits.items():
        for view, values in views.items():
            if values.ndim != 2 or values.shape != full.shape:
                raise InputError(f"the logits of {view!r} under {baseline!r} have the shape {tuple(values.shape)}, expected "
                                 f"(N, C), {tuple(full.shape)} as in the full view; of one logit that is (N, 1).")
            if bad := int((~values.isfinite()).sum()):
                raise InputError(f"{bad} of the {values.numel()} logits of {view!r} under {baseline!r} are NaN or infinite, "
                                 "expected finite numbers; look at what the baseline makes of these examples.")
    return full


def needed_views(modalities: Sequence[str]) -> list[str]:
    """Return the names of the views from which a verdict is read."""
    return [FULL, NOTHING, *(masked(name) for name in modalities), *(leaving([name], modalities) for name in modalities)]


def on_one_side(logits: Tensor) -> str:
    """Return a sentence about a single logit that is above 0 for all examples, or below; else nothing."""
    if logits.shape[1] > 1 or len(logits) < 2 or not ((logits > 0).all() or (logits < 0).all()):
        return ""
    return (f" All {len(logits)} logits lie on one side of 0 (from {float(logits.min()):.4g} to {float(logits.max()):.4g}): "
            "if they are a number, such as a price, and no yes or no, flips say nothing.")


def each(logits: Mapping[str, Tensor], modalities: Sequence[str], target: Tensor, enough: float = ENOUGH) -> np.ndarray:
    """Say of every example what its own prediction rests on; as for :meth:`crossexplain.gradients.record.Record.each`.

    Parameters
    ----------
    logits : mapping from view to Tensor, shape (N, C)
        Of one baseline; the views ``"full"`` and each modality alone.
    modalities, target, enough
        As for :func:`verdict`.
    """
    _require_share(enough)
    predicted = classes(logits[FULL])
    if len(predicted) < FEWEST:
        raise InputError(f"got {len(predicted)} example(s), expected {FEWEST} or more: what one example rests on is measured "
                         "from the middle of all examples, and where there are few, each is a large part of that middle; run "
                         "the rounds on more, or compare record.margin(...) of the views.")

    def from_middle(view: str) -> np.ndarray:
        # The median over all examples would lie in the larger class where a modality alone splits the logits into two.
        medians = [logits[view][predicted == one].median(dim=0).values for one in predicted.unique()]
        return evidence(logits[view] - torch.stack(medians).mean(dim=0), target).numpy()

    whole = from_middle(FULL)
    parts = {name: from_middle(alone(name, modalities)) for name in modalities}
    parts["sum"] = np.asarray(sum(parts.values()))
    side = np.where(whole < 0, -1, 1)  # an example on the other side of the middle has evidence against the class
    answers = _answers({name: side * (part - enough * whole) for name, part in parts.items()}, modalities, 0.0)
    answers[np.abs(whole) <= FLAT] = "cannot tell"  # it stands in the middle itself
    return answers.astype(str)


def _require_share(enough: float) -> None:
    if not isinstance(enough, Real) or not 0 < enough <= 1:
        raise InputError(f"got enough={enough!r} as the share that counts as the whole, expected above 0 and at most 1.")


class _Judged(NamedTuple):
    """What one baseline says; from ``reach`` on the fields of :class:`Verdict`."""

    answer: Answer
    often: dict[Answer, float]  # share of the bootstrap samples, the most frequent first
    accounts_for: Callable[[Family], np.ndarray]  # of families whose views are there, (1 + draws,)
    families: list[list[Family]]
    reach: dict[str, Interval]
    strength: Interval
    dividend: Interval
    flips: dict[str, Interval]
    interactions: dict[Part, Interval]
    shares: dict[Part, Interval]

    def support(self, *answers: Answer) -> float:
        """Return the share of the bootstrap samples that give one of some answers, or what the sample itself gives."""
        return sum(self.often.get(answer, 0.0) for answer in answers or [self.answer])

    def likely(self) -> list[Answer]:
        """Return the answers of nearly all bootstrap samples."""
        before = np.cumsum([0.0, *self.often.values()])
        return [answer for answer, share in zip(self.often, before) if share < SURE]


def _judge(logits: Mapping[str, Tensor], modalities: Sequence[str], target: Tensor | None, weights: np.ndarray,
           enough: float) -> _Judged:
    target = classes(logits[FULL]) if target is None else target
    n, predicted = len(target), classes(logits[FULL])
    values, spread = {view: centred(of_view) for view, of_view in logits.items()}, centred(logits[FULL]).std()
    if FLAT <= spread < 1:  # else small logits would count as those that do not vary; a power of two changes no digit
        values = {view: np.ldexp(of_view, -int(np.floor(np.log2(spread)))) for view, of_view in values.items()}
    varies = Variation(values, weights)
    changes = Variation({view: one_hot(values) for view, values in logits.items()}, weights)
    single = {name: of_family(((name,),), modalities) for name in modalities}
    reached = {name: varies.accounts_for(factors) for name, factors in single.items()}  # (1 + draws,) each
    reached["sum"] = varies.accounts_for(of_family(tuple((name,) for name in modalities), modalities))

    def reach(family: Family) -> np.ndarray:
        """Return what a family accounts for; one part alone accounts for the answers as well, where these say more."""
        factors = of_family(family, modalities)
        found = varies.accounts_for(factors)
        return np.maximum(found, changes.accounts_for(factors)) if len(family) == 1 else found

    levels = families(modalities, logits)
    answers, choice = _answers_of(reach, modalities, levels, enough)
    if spread < FLAT:
        answers, choice = [CANNOT_TELL], np.zeros(len(weights), int)
    interaction, nothing = np.abs(dividend(logits, modalities, target)), evidence(logits[NOTHING], target).numpy()
    effects = interaction + sum(np.abs(evidence(logits[alone(name, modalities)], target).numpy() - nothing)
                                for name in modalities)
    share = (weights @ interaction) / np.maximum(weights @ effects, 1e-12)  # 0 where nothing has an effect
    flips = {name: weights @ (classes(logits[masked(name)]) != predicted).numpy() for name in modalities}
    sizes = _interactions(logits, modalities, target, weights) if len(modalities) > 2 else {}
    shares = {part: varies.share(factors) for part in subsets(modalities)
              if logits.keys() >= (factors := of_dividend(part, modalities)).keys()}

    def intervals(values: Mapping[Any, np.ndarray]) -> dict[Any, Interval]:
        return {name: estimate(of_name, n) for name, of_name in values.items()}

    return _Judged(answers[choice[0]], _often(answers, choice), reach, levels, intervals(reached),
                   estimate(1 - reached["sum"], n), estimate(share, n), intervals(flips), intervals(sizes), intervals(shares))


def _often(answers: Sequence[Answer], choice: np.ndarray) -> dict[Answer, float]:
    """Return the share of the bootstrap samples that give each answer, the most frequent first."""
    return {answers[i]: count / (len(choice) - 1) for i, count in Counter(choice[1:].tolist()).most_common()}


def _answers_of(reach: Callable[[Family], np.ndarray], modalities: Sequence[str], levels: list[list[Family]],
                enough: float) -> tuple[list[Answer], np.ndarray]:
    """Return the answers of all samples, and which of them each sample gives."""
    found, choice = simplest(levels, reach, enough)
    answers = [of_families(several) for several in found]
    if len(modalities) == 2 and "both only" in (words := [answer.word for answer in answers]):
        more = reach(((modalities[0],),)) - reach(((modalities[1],),))
        for name, exceeds in zip(modalities, (more, -more)):
            choice[(choice == words.index("both only")) & (exceeds >= SOME)] = len(answers)
            answers.append(Answer(partly(name), ((name,), tuple(modalities))))
    return answers, choice


def _interactions(logits: Mapping[str, Tensor], modalities: Sequence[str], target: Tensor,
                  weights: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
    """Return the mean size of each dividend of two or three modalities as a share of that of all effects, (1 + draws,) each."""
    value, interactions = values_of(logits, target), dividends(logits, modalities, target)
    single = [value[alone(name, modalities)] - value[NOTHING] for name in modalities]
    # Of more modalities than were looked at.
    remainder = value[FULL] - value[NOTHING] - sum(single) - sum(interactions.values())
    effects = weights @ sum(map(np.abs, [*single, *interactions.values(), remainder]))
    return {names: (weights @ np.abs(values)) / np.maximum(effects, 1e-12) for names, values in interactions.items()}


def _answers(reached: Mapping[str, np.ndarray], modalities: Sequence[str], enough: float) -> np.ndarray:
    """Return the answer in each bootstrap sample."""
    carries = np.stack([reached[name] >= enough for name in modalities])  # (M, samples)
    answers = np.where(reached["sum"] >= enough, "both added", "both only").astype(object)
    for i, name in enumerate(modalities):
        answers[carries[i] & (carries.sum(axis=0) == 1)] = f"{name} alone"
    answers[carries.sum(axis=0) > 1] = "either"
    return answers


def _settle(judged: Mapping[str, _Judged], modalities: Sequence[str]) -> tuple[Answer, str, float]:
    """Return one answer of all baselines, the reason for it and its support."""
    words = _told(judged, modalities)
    likely = list(dict.fromkeys(answer for one in judged.values() for answer in one.likely()))
    if agreed := _in_common(likely, judged, modalities):
        support = min(one.support(*likely) for one in judged.values())
        reason = f"every baseline says so ({words})." if len(likely) == 1 else \
            f"no other answer fits all samples and baselines ({words})."
        return agreed, reason + _details(agreed, judged, modalities), support
    support = min(one.support() for one in judged.values())
    if len({one.answer for one in judged.values() if one.support() >= SURE}) > 1:
        return CANNOT_TELL, f"the baselines disagree ({words}), so the answer lies in the baseline, not in the model.", support
    answer, *others = dict.fromkeys(one.answer for one in judged.values())
    if answer == CANNOT_TELL:
        return answer, "the logits hardly vary over these examples.", support
    if others:
        return CANNOT_TELL, f"the baselines differ, but not all of them are sure ({words}); use more examples.", support
    return CANNOT_TELL, f"{named(answer, modalities)} is likely but not sure ({words}); use more examples.", support


def _subset(judged: Mapping[str, _Judged], modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities that nearly all samples of every baseline name, whatever else they say; none where they differ."""
    found = set()
    for one in judged.values():
        shares: dict[tuple[str, ...], float] = {}
        for answer, share in one.often.items():
            named_too = modalities_of(answer, modalities)
            shares[named_too] = shares.get(named_too, 0) + share
        subset, share = max(shares.items(), key=lambda item: item[1])
        found.add(subset if share >= SURE else ())
    return found.pop() if len(found) == 1 else ()


def _told(judged: Mapping[str, _Judged], modalities: Sequence[str]) -> str:
    """Return what each baseline says."""
    return "; ".join(f"{baseline}: {named(one.answer, modalities)} ({one.support():.0%} of samples)"
                     for baseline, one in judged.items())


def _by_mean(judged: Mapping[str, _Judged], modalities: Sequence[str],
             enough: float) -> tuple[Answer, str, float] | None:
    """Return what the mean over the baselines says, if its samples are sure and no baseline is far from saying so; or None."""
    several = list(judged.values())
    if any(one.answer == CANNOT_TELL for one in several):
        return None
    answers, choice = _answers_of(lambda family: np.mean([one.accounts_for(family) for one in several], axis=0), modalities,
                                  several[0].families, enough)
    answer, support = next(iter(_often(answers, choice).items()))
    for one in several:
        read = (_answers_of(one.accounts_for, modalities, one.families, enough * factor) for factor in (1, 1 - NEAR, 1 + NEAR))
        if answer not in [found[choice[0]] for found, choice in read] or support < SURE:
            return None
    reason = f"the mean over the baselines says so, and none is far from it ({_told(judged, modalities)})."
    return answer, reason + _details(answer, judged, modalities), support


def _in_common(likely: Sequence[Answer], judged: Mapping[str, _Judged], modalities: Sequence[str]) -> Answer | None:
    """Return the answer that covers all likely ones, or None.

    Between one modality alone and both only lies that a part is its own. Where samples waver between that and one modality
    alone, that is taken of which a baseline is sure, or else the middle; between that and both only, whether the modality
    accounts for enough to be named and how many samples agree that it accounts for more than the other, in the mean over the
    baselines. Of more than two modalities it may be open which are added to those that interact; those that may be are named
    too.
    """
    words = {answer.word for answer in likely}
    if len(likely) == 1:
        return None if likely[0] == CANNOT_TELL else likely[0]
    sure = {one.answer for one in judged.values() if one.support() >= SURE}
    for name in modalities if len(modalities) == 2 and len(sure) < 2 else ():
        if words == {partly(name), "both only"}:
            part, more = _part_and_more(name, judged, modalities)
            # Chance may favour either modality, so half as many samples may differ as for an answer.
            word = "both only" if more < LIKELY else partly(name) if more >= (1 + SURE) / 2 and part >= SOME else None
            if part < SOME and "both only" in {answer.word for answer in sure}:
                word = "both only"  # however sure the part is to be there, it is not worth its name
            return next((answer for answer in likely if answer.word == word), None)
        if words == {partly(name), f"{name} alone"}:
            return next(iter(sure or (answer for answer in likely if answer.word == partly(name))))
    if words == {"both only"} and len({tuple(part for part in answer.terms if len(part) > 1) for answer in likely}) == 1:
        return max(likely, key=lambda answer: len(answer.terms))
    return None


def _part_and_more(name: str, judged: Mapping[str, _Judged], modalities: Sequence[str]) -> tuple[float, float]:
    """Return what one of two modalities accounts for, and in which share of the samples more than the other; by the mean."""
    other, = (of for of in modalities if of != name)
    own, others = (np.mean([one.accounts_for(((of,),)) for one in judged.values()], axis=0) for of in (name, other))
    return float(own[0]), float((own[1:] > others[1:]).mean())


def _details(answer: Answer, judged: Mapping[str, _Judged], modalities: Sequence[str]) -> str:
    """Return sentences that name which of several modalities, and tell how often one of two decides alone."""
    if len(modalities) > 2 and answer.word == "either":
        return f" Each of {' and '.join(part[0] for part in answer.terms)} would do."
    if len(modalities) > 2 and answer.word == "both only":
        return f" What interacts: {', '.join(spoken(part) for part in answer.terms if len(part) > 1)}."
    return "".join(_kept(judged, name, modalities) for name in modalities if answer.word == partly(name))


def _kept(judged: Mapping[str, _Judged], name: str, modalities: Sequence[str]) -> str:
    """Return the sentence that tells how many predictions one of two modalities gives alone."""
    other, = (of for of in modalities if of != name)
    kept = {baseline: one.flips[other] for baseline, one in judged.items()}
    told = "; ".join(f"{baseline}: {1 - flips.value:.0%} [{1 - flips.high:.0%}, {1 - flips.low:.0%}]"
                     for baseline, flips in kept.items())
    return f" Predictions that {name} alone gives as well: {told}."
