"""Checks before the rounds: what makes gradients lie, found by running the model and not by trusting it.

Each finding says what was seen, why it matters and what to do. A model that passes can still be misread; one that fails
should not be read at all before it is mended.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_finite
from crossexplain.gradients.capture import Captured
from crossexplain.gradients.evidence import classes
from crossexplain.gradients.modalities import Inputs, Modality, Tokens
from crossexplain.gradients.question import Question, Target
from crossexplain.gradients.views import Mask, Views
from crossexplain.intervals import mean_interval

VANISHED = 1e-6  # of the largest gradient norm of any modality, in shares
CLAMPED = 0.05  # share of examples without any gradient from which it is no accident
SHUFFLES = 5  # how often a modality is shuffled among the examples


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


class Preflight(list):
    """The findings of one run, empty if all checks passed; shows itself as a table."""

    def __init__(self, findings: Sequence[Finding], ran: Sequence[str]):
        super().__init__(findings)
        self.ran = tuple(ran)

    @property
    def names(self) -> list[str]:
        """Names of the checks that failed."""
        return [finding.check for finding in self]

    def _repr_markdown_(self) -> str:
        if not self:
            return f"**Nothing found.** Checked: {', '.join(self.ran)}."
        rows = [["check", "what was seen", "why it matters", "what to do"], ["---"] * 4, *self]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)

    def __str__(self) -> str:
        if not self:
            return f"nothing found; checked: {', '.join(self.ran)}"
        return "\n".join(f"{f.check}: {f.saw}\n  why: {f.why}\n  do:  {f.do}" for f in self)


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
    The checks: dropout on, batch statistics, not repeatable, examples touch, clamped logit, vanished branch, zero
    positions, padding is read, mask changes nothing, no better than shuffled, no better than a rival.
    """
    asked = _Checks(Question(model, inputs, modalities, target=target, any_mode=True), labels, seed)
    checks = [asked.dropout_on, asked.batch_statistics, asked.not_repeatable]
    findings = _found(checks)
    if not findings:  # the others compare runs, which says something only where the same input gives the same output
        others = [asked.examples_touch, asked.clamped_logit, asked.vanished_branch, asked.zero_positions,
                  asked.padding_is_read, asked.mask_changes_nothing]
        if labels is not None:
            others += [asked.no_better_than_shuffled, asked.no_better_than_a_rival]
        checks, findings = checks + others, _found(others)
    return Preflight(findings, [_name(check) for check in checks])


Findings = Iterator[tuple[str, str, str]]  # what a check yields: the entries of a Finding after its name


def _found(checks: Sequence[Callable[[], Findings]]) -> list[Finding]:
    return [Finding(_name(check), *texts) for check in checks for texts in check()]


def _name(check: Callable) -> str:
    return check.__name__.replace("_", " ")


class _Checks:
    """One model on one batch; each check yields its findings."""

    def __init__(self, question: Question, labels: Tensor | None, seed: int):
        self.question, self.seed = question, seed
        self.model, self.inputs, self.modalities, self.n = question.model, question.inputs, question.modalities, question.n
        self.labels = None if labels is None else self._class_numbers(labels)

    def _class_numbers(self, labels) -> Tensor:
        """Return the labels as class numbers, one an example."""
        numbers = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
        if numbers.dtype.kind not in "iub":
            raise InputError(f"got labels as {numbers.dtype}, expected whole class numbers from 0, as in "
                             "torch.tensor([0, 1, 1]); of one logit, 1 is yes and 0 is no.")
        if numbers.shape != (self.n,):
            raise InputError(f"labels has {numbers.size} entries, the batch {self.n} examples; pass one each, in the shape "
                             f"({self.n},).")
        return torch.as_tensor(numbers).long()

    @cached_property
    def captured(self) -> Captured:
        """Gradients of the full view; a layer that the logit does not depend on at all has a gradient of zero."""
        return self.question.read(self.inputs, self.question.follow(torch.arange(self.n)), allow_unused=True)[1]

    @cached_property
    def full(self) -> Tensor:
        """Logits of the whole examples."""
        return self.run(self.inputs)

    @property
    def rounding(self) -> float:
        """A difference that is rounding, for logits of this size."""
        return float(1e-5 * self._largest())

    def _largest(self) -> Tensor:
        return self.full.abs().max().clamp(min=1e-6)

    def run(self, inputs: Inputs) -> Tensor:
        """Return logits (n, C) without a graph, in the model's present mode."""
        return require_finite(self.question.logits(inputs).float(), "the model's output")

    def dropout_on(self) -> Findings:
        training = [(name, layer) for name, layer in self.model.named_modules() if layer.training]
        dropping = [name for name, layer in training if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0]
        dropping += [name for name, layer in training
                     if isinstance(layer, nn.RNNBase) and layer.dropout > 0 and layer.num_layers > 1]
        if dropping:
            yield (f"{len(dropping)} layer(s) drop units at random: {_listed(dropping)}.",
                   "Two rounds then differ by luck, and the difference is read as interaction.",
                   "Call model.eval() before you explain.")

    def batch_statistics(self) -> Findings:
        by_batch = [name for name, layer in self.model.named_modules()
                    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None)]
        if by_batch:
            yield (f"{len(by_batch)} batch-norm layer(s) normalise by the batch at hand: {_listed(by_batch)}.",
                   "An example's logit then depends on the other views in the batch.",
                   "Call model.eval(), or replace batch-norm that keeps no running statistics.")

    def not_repeatable(self) -> Findings:
        moved = (self.full - self.run(self.inputs)).abs().amax(dim=1)
        if (moved > self.rounding).any():
            yield (f"The same batch twice: {int((moved > self.rounding).sum())} of {self.n} logits differ, by up to "
                   f"{float(moved.max()):.3g}.",
                   "Differences between rounds then contain noise of that size.",
                   "Call model.eval(); if it remains, look for sampling in the forward pass or fix its seed.")

    def examples_touch(self) -> Findings:
        if self.n < 2:
            return
        alone = self.run(self.question.examples(torch.arange(1)))
        apart = (alone - self.full[:1]).abs().max()
        if apart > 1e-3 * self._largest():
            yield (f"The first example alone has another logit than in the batch, by {apart:.3g}.",
                   "All views run as one batch; views that touch each other explain each other.",
                   "Look for batch-norm without statistics, or a softmax or mean over the batch axis.")

    def clamped_logit(self) -> Findings:
        dead = torch.stack(list(self._norms().values())).amax(dim=0) == 0
        logits = self.captured.output.reshape(self.n, -1)
        bounds = [bound for bound in {float(logits.min()), float(logits.max())}
                  if dead.any() and (logits[dead] == bound).all()]
        if dead.float().mean() >= CLAMPED and not dead.all() and bounds:
            yield (f"{int(dead.sum())} of {self.n} examples have the logit {bounds[0]:g} exactly and a gradient of 0 at "
                   "every modality.",
                   "Their maps are 0/0; a ReLU on the logit can say no only where nothing can be explained.",
                   "Remove the ReLU or clamp before the loss (train on the raw logit) or leave these examples out.")

    def vanished_branch(self) -> Findings:
        norms = {name: float(values.median()) for name, values in self._norms().items()}
        largest = max(norms.values())
        for name, norm in norms.items():
            if norm <= VANISHED * largest:
                yield (f"The median gradient norm at {name} is {norm:.2g}, at the strongest modality {largest:.2g}.",
                       f"Nothing of {name} reaches the logit: its map is rounding noise, and normalised it looks real.",
                       f"Mend the branch (fewer layers, no padding in front, normalisation) before you explain {name}.")

    def zero_positions(self) -> Findings:
        for modality in self.modalities:
            gradient = self.captured.gradients[modality.layer]
            present = self.question.present[modality.name]
            size = modality.per_feature(gradient.abs(), present.shape[1])
            dead = (size == 0) & present
            alive = ((size > 0) & present).any(dim=1)
            share = float(dead[alive].sum() / present[alive].sum().clamp(min=1))
            if alive.any() and share >= 0.25:
                yield (f"At {modality.layer!r}, {share:.0%} of the features of {modality.name} have a gradient of exactly 0 "
                       "while others of the same example have one.",
                       "Only some positions of this layer are used (an LSTM's last step, one row of a layer norm): the zeros "
                       "say nothing about the words.",
                       "Read the gradient at the embedding, or at a layer all of whose positions are used.")

    def padding_is_read(self) -> Findings:
        for modality in self.modalities:
            if not isinstance(modality, Tokens):
                continue
            ids, words = modality.value(self.inputs), self.question.present[modality.name]
            padding = ids == modality.pad_id if modality.attention is None else self.inputs[modality.attention] == 0
            if not padding.any() or not words.any():
                continue
            share = self._padding_share(modality, padding)
            if modality.attention is None:
                is_read = share > 1e-6
                saw = f"{share:.0%} of the gradient norm at {modality.layer!r} falls on padding."
            else:
                drawn = torch.randint(int(words.sum()), ids.shape, generator=torch.Generator().manual_seed(self.seed))
                replaced = torch.where(padding, ids[words][drawn.to(ids.device)], ids)
                moved = (self.run({**self.inputs, modality.input: replaced}) - self.full).abs().max()
                is_read = moved > 1e-4 * self._largest()
                saw = (f"Other words in place of the padding, with the same attention mask, move the logits by up to "
                       f"{moved:.3g}; {share:.0%} of the gradient norm falls on padding.")
            if is_read:
                yield (saw,
                       "[PAD] then tops the list of important tokens, and an answer depends on how far a batch was padded.",
                       "Give an attention encoder the mask it expects: a raw 0/1 mask that is added to the scores hides "
                       "nothing, 0 and -inf do. Of an LSTM, pad after the words and leave the padding out when pooling.")

    def _padding_share(self, modality: Tokens, padding: Tensor) -> float:
        gradient = self.captured.gradients[modality.layer]
        size = modality.per_feature(gradient.square(), padding.shape[1]).clamp(min=0).sqrt()
        return float((size * padding).sum() / size.sum().clamp(min=1e-30))

    def mask_changes_nothing(self) -> Findings:
        for modality in self.modalities:
            baseline = modality.baselines[0]
            donors = torch.zeros(1, dtype=torch.long) if baseline == "data" else None
            masked = self._changed(modality, Mask(None, baseline, donors))
            same = all(torch.equal(masked[key], value) for key, value in self.inputs.items() if isinstance(value, Tensor))
            moved = float((self.run(masked) - self.full).abs().max())
            if same or moved <= self.rounding:
                what = "is the same input as the unmasked view" if same else f"gives the same logits (to {moved:.1g})"
                yield (f"With all of {modality.name} replaced by {baseline!r} the view {what}.",
                       f"Every round of {modality.name} repeats round 1; 'nothing changes' would be read as dominance of the "
                       "other modality.",
                       "Check that the mask id or baseline differs from the input" if same else
                       f"Check that the model uses {modality.name} at all: compare with another baseline and with shuffled "
                       "examples.")

    def no_better_than_shuffled(self) -> Findings:
        right = self._right(self.full)
        generator = torch.Generator().manual_seed(self.seed)
        for modality in self.modalities:
            orders = [torch.randperm(self.n, generator=generator) for _ in range(SHUFFLES)]
            shuffled = np.stack([self._right(self.run(self._changed(modality, Mask(None, "data", order)))) for order in orders])
            gain, low = self._gain(right, shuffled.mean(axis=0))
            if low <= 0:
                yield (f"Accuracy {right.mean():.3f} as it is, {shuffled.mean():.3f} with {modality.name} shuffled among the "
                       f"examples: a gain of {gain:.3f}, from {low:.3f} (n = {self.n}).",
                       f"The model has not learned to use {modality.name}; its gradients there explain nothing.",
                       "Look at the held-out accuracy while training; explain a model that has learned the task.")

    def no_better_than_a_rival(self) -> Findings:
        right = self._right(self.full)
        of_rival = (self.labels == self.labels.mode().values).numpy().astype(float)
        gain, low = self._gain(right, of_rival)
        if low <= 0:
            yield (f"Accuracy {right.mean():.3f}, that of the most frequent class {of_rival.mean():.3f}: a gain of "
                   f"{gain:.3f}, from {low:.3f} (n = {self.n}).",
                   "What a simpler model does as well needs no joint reading of the modalities.",
                   "Balance the data until no single modality gives the label away, and train on.")

    def _changed(self, modality: Modality, mask: Mask) -> Inputs:
        return Views(self.inputs, self.modalities, {"masked": {modality.name: mask}}, allow_empty=True).inputs

    def _right(self, logits: Tensor) -> np.ndarray:
        return (classes(logits).cpu() == self.labels).numpy().astype(float)

    def _gain(self, ours: np.ndarray, of_rival: np.ndarray) -> tuple[float, float]:
        """Return the mean gain and the lower end of its one-sided 95 % bootstrap interval."""
        gain = mean_interval(ours - of_rival, self.seed, level=0.9, draws=1000)
        return gain.value, gain.low

    def _norms(self) -> dict[str, Tensor]:
        return {m.name: self.captured.gradients[m.layer].flatten(1).norm(dim=1) for m in self.modalities}


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
