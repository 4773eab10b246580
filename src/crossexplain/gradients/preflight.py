"""Checks before the rounds: what makes gradients lie, found by running the model and not by trusting it.

Each finding says what was seen, why it matters and what to do. A model that passes can still be misread; one that fails
should not be read at all before it is mended.
"""

import itertools
from collections.abc import Mapping, Sequence
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


def preflight(
    model: nn.Module,
    inputs: Inputs,
    modalities: Sequence[Modality],
    *,
    labels: Tensor | None = None,
    rivals: Mapping[str, Tensor] | None = None,
    target: Target = None,
    seed: int = 0,
) -> Preflight:
    """Look for what would make the rounds lie.

    Parameters
    ----------
    model : torch.nn.Module
        In the state in which it is to be explained.
    inputs : mapping of str to Tensor
        Held-out examples, a few dozen or more.
    modalities : sequence of Modality
    labels : Tensor of int64, shape (N,), optional
        Their labels; with them the accuracy is held against shuffled modalities and rivals.
    rivals : mapping from name to Tensor of int64, shape (N,), optional
        Predictions of simpler models for the same examples, for example ``{"text only": ...}``.
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
        For inputs that cannot be run at all, labels or rivals that are no class numbers or of another length, and rivals
        without labels.

    Notes
    -----
    The checks: dropout on, batch statistics, not repeatable, examples touch, clamped logit, vanished branch, zero
    positions, padding is read, mask changes nothing, no better than shuffled, no better than a rival.
    """
    asked = _Checks(Question(model, inputs, modalities, target=target, any_mode=True), labels, rivals or {}, seed)
    checks = [asked.dropout_on, asked.batch_statistics, asked.not_repeatable]
    if not any(True for check in checks for _ in check()):
        # The others compare runs, which says something only where the same input gives the same output.
        checks += [asked.examples_touch, asked.clamped_logit, asked.vanished_branch, asked.zero_positions,
                   asked.padding_is_read, asked.mask_changes_nothing]
        if labels is not None:
            checks += [asked.no_better_than_shuffled, asked.no_better_than_a_rival]
    findings = list(itertools.chain.from_iterable(check() for check in checks))
    return Preflight(findings, [check.__name__.replace("_", " ") for check in checks])


class _Checks:
    """One model on one batch; each check yields its findings."""

    def __init__(self, question: Question, labels, rivals: Mapping, seed: int):
        self.question, self.seed = question, seed
        self.model, self.inputs, self.modalities, self.n = question.model, question.inputs, question.modalities, question.n
        if rivals and labels is None:
            raise InputError(f"got rivals {', '.join(map(repr, rivals))} without labels to hold them against; pass labels.")
        self.labels = None if labels is None else self._answers("labels", labels)
        self.rivals = {name: self._answers(name, predictions) for name, predictions in rivals.items()}
        self._captured: Captured | None = None

    def _answers(self, what: str, given) -> Tensor:
        """Return class numbers, one an example."""
        kind = np.asarray(given).dtype if not isinstance(given, Tensor) else given.dtype
        if isinstance(kind, np.dtype) and kind.kind not in "iub" or isinstance(kind, torch.dtype) and kind.is_floating_point:
            raise InputError(f"got {what} as {kind}, expected whole class numbers from 0, as in torch.tensor([0, 1, 1]); "
                             "of one logit, 1 is yes and 0 is no.")
        values = torch.as_tensor(given).cpu().long()
        if values.shape != (self.n,):
            raise InputError(f"{what} has {values.numel()} entries, the batch {self.n} examples; pass one each, in "
                             f"the shape ({self.n},).")
        return values

    @property
    def captured(self) -> Captured:
        """Gradients of the full view; a layer that the logit does not depend on at all has a gradient of zero."""
        if self._captured is None:
            target = self.question.follow(torch.arange(self.n))
            _, self._captured = self.question.read(self.inputs, target, allow_unused=True)
        return self._captured

    def run(self, inputs: Inputs) -> Tensor:
        """Return logits (n, C) without a graph, in the model's present mode."""
        return require_finite(self.question.logits(inputs).float(), "the model's output")

    def dropout_on(self):
        on = [name for name, module in self.model.named_modules()
              if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0]
        recurrent = [name for name, module in self.model.named_modules()
                     if isinstance(module, nn.RNNBase) and module.training and module.dropout > 0 and module.num_layers > 1]
        if on + recurrent:
            yield Finding("dropout on", f"{len(on + recurrent)} layer(s) drop units at random: {_listed(on + recurrent)}.",
                          "Two rounds then differ by luck, and the difference is read as interaction.",
                          "Call model.eval() before you explain.")

    def batch_statistics(self):
        on = [name for name, module in self.model.named_modules()
              if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None)]
        if on:
            yield Finding("batch statistics", f"{len(on)} batch-norm layer(s) normalise by the batch at hand: {_listed(on)}.",
                          "An example's logit then depends on the other views in the batch.",
                          "Call model.eval(), or replace batch-norm that keeps no running statistics.")

    def not_repeatable(self):
        first, again = self.run(self.inputs), self.run(self.inputs)
        moved = (first - again).abs().amax(dim=1)
        if (moved > _tiny(first)).any():
            yield Finding("not repeatable", f"The same batch twice: {int((moved > _tiny(first)).sum())} of {self.n} logits "
                          f"differ, by up to {float(moved.max()):.3g}.",
                          "Differences between rounds then contain noise of that size.",
                          "Call model.eval(); if it remains, look for sampling in the forward pass or fix its seed.")

    def examples_touch(self):
        if self.n < 2:
            return
        alone = self.run(self.question.examples(torch.arange(1)))
        apart = (alone - self.run(self.inputs)[:1]).abs().max()
        scale = self.run(self.inputs).abs().max().clamp(min=1e-6)
        if apart > 1e-3 * scale:
            yield Finding("examples touch", f"The first example alone has another logit than in the batch, by {apart:.3g}.",
                          "All views run as one batch; views that touch each other explain each other.",
                          "Look for batch-norm without statistics, or a softmax or mean over the batch axis.")

    def clamped_logit(self):
        norms = self._norms()
        dead = torch.stack(list(norms.values())).amax(dim=0) == 0
        logits = self.captured.output.reshape(self.n, -1)
        bounds = [bound for bound in {float(logits.min()), float(logits.max())}
                  if dead.any() and (logits[dead] == bound).all()]
        if dead.float().mean() >= CLAMPED and not dead.all() and bounds:
            yield Finding("clamped logit", f"{int(dead.sum())} of {self.n} examples have the logit {bounds[0]:g} exactly and "
                          "a gradient of 0 at every modality.",
                          "Their maps are 0/0; a ReLU on the logit can say no only where nothing can be explained.",
                          "Remove the ReLU or clamp before the loss (train on the raw logit) or leave these examples out.")

    def vanished_branch(self):
        norms = {name: float(values.median()) for name, values in self._norms().items()}
        largest = max(norms.values())
        for name, norm in norms.items():
            if norm <= VANISHED * largest:
                yield Finding("vanished branch", f"The median gradient norm at {name} is {norm:.2g}, at the strongest "
                              f"modality {largest:.2g}.",
                              f"Nothing of {name} reaches the logit: its map is rounding noise, and normalised it looks real.",
                              f"Mend the branch (fewer layers, no padding in front, normalisation) before you explain {name}.")

    def zero_positions(self):
        for modality in self.modalities:
            gradient = self.captured.gradients[modality.layer]
            present = self.question.present[modality.name]
            size = modality.per_feature(gradient.abs(), present.shape[1])
            dead = (size == 0) & present
            alive = ((size > 0) & present).any(dim=1)
            share = float(dead[alive].sum() / present[alive].sum().clamp(min=1))
            if alive.any() and share >= 0.25:
                yield Finding("zero positions", f"At {modality.layer!r}, {share:.0%} of the features of {modality.name} have "
                              "a gradient of exactly 0 while others of the same example have one.",
                              "Only some positions of this layer are used (an LSTM's last step, one row of a layer norm): "
                              "the zeros say nothing about the words.",
                              "Read the gradient at the embedding, or at a layer all of whose positions are used.")

    def padding_is_read(self):
        for modality in self.modalities:
            if not isinstance(modality, Tokens):
                continue
            ids = modality.value(self.inputs)
            padding = ids == modality.pad_id if modality.attention is None else self.inputs[modality.attention] == 0
            if not padding.any() or not self.question.present[modality.name].any():
                continue
            words = ids[self.question.present[modality.name]]
            drawn = torch.randint(len(words), ids.shape, generator=torch.Generator().manual_seed(self.seed))
            if modality.attention is None:
                share = self._padding_share(modality, padding)
                if share <= 1e-6:
                    continue
                saw = f"{share:.0%} of the gradient norm at {modality.layer!r} falls on padding."
            else:
                other = self.run({**self.inputs, modality.input: torch.where(padding, words[drawn.to(ids.device)], ids)})
                moved = (other - self.run(self.inputs)).abs().max()
                if moved <= 1e-4 * self.run(self.inputs).abs().max().clamp(min=1e-6):
                    continue
                saw = (f"Other words in place of the padding, with the same attention mask, move the logits by up to "
                       f"{moved:.3g}; {self._padding_share(modality, padding):.0%} of the gradient norm falls on padding.")
            yield Finding("padding is read", saw,
                          "[PAD] then tops the list of important tokens, and an answer depends on how far a batch was padded.",
                          "Give an attention encoder the mask it expects: a raw 0/1 mask that is added to the scores hides "
                          "nothing, 0 and -inf do. Of an LSTM, pad after the words and leave the padding out when pooling.")

    def _padding_share(self, modality: Tokens, padding: Tensor) -> float:
        gradient = self.captured.gradients[modality.layer]
        size = modality.per_feature(gradient.square(), padding.shape[1]).clamp(min=0).sqrt()
        return float((size * padding).sum() / size.sum().clamp(min=1e-30))

    def mask_changes_nothing(self):
        full = self.run(self.inputs)
        for modality in self.modalities:
            baseline = modality.baselines[0]
            laid_out = Views(self.inputs, self.modalities, {"masked": {modality.name: self._mask(modality, baseline)}},
                             allow_empty=True)
            masked = laid_out.inputs
            keys = [key for key, value in self.inputs.items() if isinstance(value, Tensor)]
            same = all(torch.equal(masked[key], self.inputs[key]) for key in keys)
            moved = float((self.run(masked) - full).abs().max())
            if same or moved <= _tiny(full):
                what = "is the same input as the unmasked view" if same else f"gives the same logits (to {moved:.1g})"
                yield Finding("mask changes nothing", f"With all of {modality.name} replaced by {baseline!r} the view {what}.",
                              f"Every round of {modality.name} repeats round 1; 'nothing changes' would be read as dominance "
                              "of the other modality.",
                              "Check that the mask id or baseline differs from the input" if same else
                              f"Check that the model uses {modality.name} at all: compare with another baseline and with "
                              "shuffled examples.")

    @staticmethod
    def _mask(modality: Modality, baseline: str) -> Mask:
        return Mask(None, baseline, torch.zeros(1, dtype=torch.long) if baseline == "data" else None)

    def no_better_than_shuffled(self):
        right = self._right(self.run(self.inputs))
        generator = torch.Generator().manual_seed(self.seed)
        for modality in self.modalities:
            shuffled = []
            for _ in range(SHUFFLES):
                plan = {"shuffled": {modality.name: Mask(None, "data", torch.randperm(self.n, generator=generator))}}
                shuffled.append(self._right(self.run(Views(self.inputs, self.modalities, plan).inputs)))
            gain, low = self._gain(right, np.mean(shuffled, axis=0))
            if low <= 0:
                yield Finding("no better than shuffled", f"Accuracy {right.mean():.3f} as it is, {np.mean(shuffled):.3f} "
                              f"with {modality.name} shuffled among the examples: a gain of {gain:.3f}, from {low:.3f} "
                              f"(n = {self.n}).",
                              f"The model has not learned to use {modality.name}; its gradients there explain nothing.",
                              "Look at the held-out accuracy while training; explain a model that has learned the task.")

    def no_better_than_a_rival(self):
        right = self._right(self.run(self.inputs))
        majority = torch.full_like(self.labels, int(self.labels.mode().values))
        for name, predictions in {"the most frequent class": majority, **self.rivals}.items():
            theirs = (predictions == self.labels).numpy().astype(float)
            gain, low = self._gain(right, theirs)
            if low <= 0:
                yield Finding("no better than a rival", f"Accuracy {right.mean():.3f}, that of {name} {theirs.mean():.3f}: a "
                              f"gain of {gain:.3f}, from {low:.3f} (n = {self.n}).",
                              "What a simpler model does as well needs no joint reading of the modalities.",
                              "Balance the data until no single modality gives the label away, and train on.")

    def _right(self, logits: Tensor) -> np.ndarray:
        return (classes(logits).cpu() == self.labels).numpy().astype(float)

    def _gain(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
        """Return the mean gain and the lower end of its one-sided 95 % bootstrap interval."""
        rng = np.random.default_rng(self.seed)
        difference = ours - theirs
        means = difference[rng.integers(0, self.n, (1000, self.n))].mean(axis=1)
        return float(difference.mean()), float(np.quantile(means, 0.05))

    def _norms(self) -> dict[str, Tensor]:
        return {m.name: self.captured.gradients[m.layer].flatten(1).norm(dim=1) for m in self.modalities}


def _tiny(values: Tensor) -> float:
    """Return a difference that is rounding, for logits of this size."""
    return float(1e-5 * values.abs().max().clamp(min=1e-6))


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
