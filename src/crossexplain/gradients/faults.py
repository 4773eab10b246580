"""The checks of the pre-flight: each runs a model on a batch in some way and yields what it finds wrong."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_eval, require_finite
from crossexplain.gradients.capture import INPUT, Captured, capture, changed, run
from crossexplain.gradients.evidence import classes
from crossexplain.gradients.failures import quantised
from crossexplain.gradients.modalities import Inputs, Modality, Tokens, is_batched
from crossexplain.gradients.padding import longest_of, padding_side_of, unpadded
from crossexplain.gradients.places import require_places
from crossexplain.gradients.question import Question
from crossexplain.gradients.trial import in_precision
from crossexplain.gradients.verdict import on_one_side
from crossexplain.gradients.views import Mask, Views
from crossexplain.gradients.words import SIDES
from crossexplain.intervals import mean_interval

VANISHED = 1e-6  # of the largest gradient norm of any modality, in shares
DEAD = 0.05  # share of examples without any gradient, or that a mask leaves as they are, from which it is no accident
UNDERFLOWN = 0.05  # share of a gradient's length that rounding to 0 has taken, from which a map is not to be trusted
LOUDER = 2.0 ** 10  # what the score is multiplied by to see that; a power of two changes nothing but the exponents
MANY = 12  # examples from which logits on one side of 0 are no accident: 1 of 2,048 of a model that says yes to every second
FEW, DIRECTIONS, STEP = 2, 3, 1e-5  # examples, and ways and length of small steps, at which slopes are measured
SLOPE = 0.05  # share of its size by which a gradient in double precision may miss the slope
SHUFFLES = 5  # how often a modality is shuffled among the examples

Findings = Iterator[tuple[str, str, dict[str, object]]]  # what was seen, of which kind it is, and what belongs into the texts


def finding(saw: str, kind: str = "", **values: object) -> tuple[str, str, dict[str, object]]:
    """Return a finding; the rest of it stands in ``findings.toml``."""
    return saw, kind, values


class Checks:
    """One model on one batch; each check yields its findings, and is called like them.

    Parameters
    ----------
    question : Question
        In any mode.
    labels : Tensor, optional
        Of the examples.
    seed : int
        Of shuffles and replaced padding.
    """

    def __init__(self, question: Question, labels: Tensor | None, seed: int):
        self.question, self.seed = question, seed
        self.model, self.inputs, self.modalities, self.n = question.model, question.inputs, question.modalities, question.n
        self.labels = None if labels is None else self._class_numbers(labels)

    def _class_numbers(self, labels: object) -> Tensor:
        """Return the labels as class numbers, one an example."""
        numbers = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
        if numbers.dtype.kind not in "iub":
            raise InputError(f"got labels as {numbers.dtype}, expected whole class numbers from 0, as in "
                             "torch.tensor([0, 1, 1]); of one logit, 1 is yes and 0 is no.")
        if numbers.shape != (self.n,):
            raise InputError(f"labels has {numbers.size} entries, the batch {self.n} examples; pass one each, in the shape "
                             f"({self.n},).")
        return torch.as_tensor(numbers).long()

    def first(self) -> list[Callable[[], Findings]]:
        """Return the checks without which the others say nothing: the same input has to give the same output."""
        return [self._dropout_on, self._batch_statistics, self._not_repeatable]

    def others(self) -> list[Callable[[], Findings]]:
        """Return the checks that compare runs."""
        checks = [self._examples_touch, self._clamped_logit, self._dead_examples, self._no_gradient, self._vanished_branch,
                  self._gradient_underflows, self._gradient_is_no_slope, self._zero_positions, self._padding_is_read,
                  self._other_places, self._padding_side, self._mask_is_padding, self._mask_changes_nothing,
                  self._within_0_and_1, self._one_side_of_zero, self._train_mode]
        return checks + [self._no_better_than_shuffled, self._no_better_than_a_rival] * (self.labels is not None)

    @cached_property
    def captured(self) -> Captured:
        """Gradients of the full view; a layer that the logit does not depend on at all has a gradient of zero."""
        return self._read()[1]

    def _read(self) -> tuple[Tensor, Captured]:
        return self.question.read(self.inputs, self.question.follow(torch.arange(self.n)), allow_unused=True)

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

    def _dropout_on(self) -> Findings:
        training = [(name, layer) for name, layer in self.model.named_modules() if layer.training]
        dropping = [name for name, layer in training if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0]
        dropping += [name for name, layer in training
                     if isinstance(layer, nn.RNNBase) and layer.dropout > 0 and layer.num_layers > 1]
        if dropping:
            yield finding(f"{len(dropping)} layer(s) drop units at random: {_listed(dropping)}.")

    def _batch_statistics(self) -> Findings:
        by_batch = [name for name, layer in self.model.named_modules()
                    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None)]
        if by_batch:
            yield finding(f"{len(by_batch)} batch-norm layer(s) normalise by the batch at hand: {_listed(by_batch)}.")

    def _train_mode(self) -> Findings:
        try:
            require_eval(self.model)
        except InputError as error:
            yield finding(f"{str(error).partition(', where')[0].capitalize()}.")

    def _not_repeatable(self) -> Findings:
        moved = (self.full - self.run(self.inputs)).abs().amax(dim=1)
        if (moved > self.rounding).any():
            yield finding(f"The same batch twice: {int((moved > self.rounding).sum())} of {self.n} logits differ, by up to "
                          f"{float(moved.max()):.3g}.")
            return
        again = self._read()[1]
        for what, first, second in (("activations", self.captured.activations, again.activations),
                                    ("gradients", self.captured.gradients, again.gradients)):
            for layer, values in first.items():
                apart = float((values - second[layer]).abs().max())
                if apart > 1e-4 * float(values.abs().max()):
                    yield finding(f"The same batch twice: the {what} at {layer!r} differ by up to {apart:.3g}; the logits "
                                  "agree.", "layer")
                    return

    def _examples_touch(self) -> Findings:
        exact = self.question.whole().dtype in (torch.float32, torch.float64)  # of others the test pass can tell
        if self.n < 2 or not exact or quantised(self.model):  # which rounds by the largest number in the batch
            return
        alone = self.run(self.question.examples(torch.arange(1)))
        apart = (alone - self.full[:1]).abs().max()
        if apart > 1e-3 * self._largest():
            yield finding(f"The first example alone has another logit than in the batch, by {apart:.3g}.")

    @cached_property
    def _dead(self) -> Tensor:
        """Which examples have no gradient at any modality, though others have one; none where they are few."""
        dead = torch.stack(list(self._norms().values())).amax(dim=0) == 0
        return dead & (DEAD <= dead.float().mean()) & ~dead.all()

    @cached_property
    def _bounds(self) -> list[float]:
        """Return the logits of the dead examples, if those are at most two numbers, or none but the largest and the least."""
        logit = self._followed(self.full.to(self._dead.device))
        found = logit[self._dead].unique().tolist()
        return found if len(found) <= 2 else []

    def _clamped_logit(self) -> Findings:
        if self._bounds:
            yield finding(f"{int(self._dead.sum())} of {self.n} examples have the logit {_or(self._bounds)} exactly and a "
                          "gradient of 0 at every modality.")

    def _dead_examples(self) -> Findings:
        if self._dead.any() and not self._bounds:
            yield finding(f"{int(self._dead.sum())} of {self.n} examples have a gradient of 0 at every modality, such as "
                          f"{_listed(self._dead.nonzero()[:, 0].tolist())}.")

    @cached_property
    def _faint(self) -> dict[str, tuple[float, float]]:
        """Return, of modalities with next to no gradient, its median norm, and by how much masks move the logits."""
        norms = {name: float(values.median()) for name, values in self._norms().items()}
        return {modality.name: (norms[modality.name], self._moved_by_masks(modality)) for modality in self.modalities
                if norms[modality.name] <= VANISHED * max(norms.values())}

    def _moved_by_masks(self, modality: Modality) -> float:
        """Return by how much the logits move at most as all of a modality is masked, by any baseline that can."""
        moved = [0.0]
        for baseline in modality.baselines:
            with suppress(InputError):  # a baseline that leaves the model nothing to attend to
                moved.append(float((self.run(self._all_masked(modality, baseline)) - self.full).abs().max()))
        return max(moved)

    def _no_gradient(self) -> Findings:
        for name, (norm, moved) in self._faint.items():
            if moved > self.rounding:
                yield finding(f"The median gradient norm at {name} is {norm:.2g}, and yet the logits move by up to {moved:.3g} "
                              f"as {name} is masked.", name=name)

    def _vanished_branch(self) -> Findings:
        largest = max(float(values.median()) for values in self._norms().values())
        for name, (norm, moved) in self._faint.items():
            if moved <= self.rounding:
                yield finding(f"The median gradient norm at {name} is {norm:.2g}, at the strongest modality {largest:.2g}, and "
                              f"no mask of {name} moves the logits.", name=name)

    def _gradient_underflows(self) -> Findings:
        try:
            loud = capture(self.model, self.inputs, list(self.captured.gradients), lambda output: LOUDER * self._followed(
                self.question.of_output(output, self.n).float()), allow_unused=True, any_mode=True).gradients
        except InputError:  # it leaves the range at the upper end
            return
        for layer, gradient in self.captured.gradients.items():
            whole = loud[layer].double() / LOUDER
            lost = float((gradient.double() - whole).norm() / whole.norm().clamp(min=1e-300))
            if lost > UNDERFLOWN:
                zeros = float((gradient == 0).double().mean())
                yield finding(f"The gradient at {layer!r} is off by {lost:.0%} of its length, as is seen where the score is "
                              f"multiplied by {LOUDER:g} first; {zeros:.0%} of its entries are exactly 0.")

    def _gradient_is_no_slope(self) -> Findings:
        rows = torch.arange(min(self.n, FEW))
        model, inputs = in_precision(self.model, torch.float64), self.question.examples(rows)
        if model is None:
            return
        inputs = {key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
                  for key, value in inputs.items()}
        for modality in [one for one in self.modalities if one.name not in self._faint]:
            with suppress(Exception):  # a stranger's model may not run in double precision
                said, seen = (self._slopes(model, inputs, modality.layer, step) for step in (None, STEP))
                apart, size = (said - seen).norm(), said.norm() + seen.norm()
                if apart > SLOPE * size > (seen - self._slopes(model, inputs, modality.layer, 10 * STEP)).norm():
                    yield finding(f"As the values at {modality.layer!r} move a little, the logits of {len(rows)} examples move "
                                  f"by other than the gradient says, by {apart / size:.0%} of the size of both.")

    def _slopes(self, model: nn.Module, inputs: Inputs, layer: str, step: float | None) -> Tensor:
        """Return how fast the logits change along a few directions, by steps of a length, or by the gradient."""
        def score(output: object) -> Tensor:
            return self._followed(self.question.of_output(output, len(self.modalities[0].value(inputs))))

        read = capture(model, inputs, layer, score, gradients=step is None, any_mode=True)
        values, generator, slopes = read.activations[layer], torch.Generator().manual_seed(self.seed), []
        for _ in range(DIRECTIONS):
            way = torch.randn(values.shape, generator=generator).to(values) * values.square().mean().sqrt()
            if step is None:
                slopes.append((read.gradients[layer] * way).sum())
                continue
            fore, back = (score(self._moved(model, inputs, layer, move)).sum() for move in (step * way, -step * way))
            slopes.append((fore - back) / (2 * step))
        return torch.stack(slopes)

    def _moved(self, model: nn.Module, inputs: Inputs, layer: str, move: Tensor) -> object:
        """Return what a model gives with the values at a layer moved."""
        key = layer.removeprefix(INPUT)
        if key != layer:
            return run(model, {**inputs, key: inputs[key] + move})
        with changed(model, layer, lambda old: old + move):
            return run(model, inputs)

    def _followed(self, logits: Tensor) -> Tensor:
        """Return the logit that is differentiated, (n,), of logits (n, C) of the first examples."""
        follow = self.captured.target
        return logits[:, 0] if follow is None or logits.shape[1] == 1 else \
            logits.gather(1, follow[: len(logits), None])[:, 0]

    def _zero_positions(self) -> Findings:
        for modality in self.modalities:
            gradient = self.captured.gradients[modality.layer]
            present = self.question.present[modality.name]
            size = modality.read_at(gradient.abs(), self.inputs, self.n)
            dead = (size == 0) & present
            alive = ((size > 0) & present).any(dim=1)
            share = float(dead[alive].sum() / present[alive].sum().clamp(min=1))
            if alive.any() and share >= 0.25:
                yield finding(f"At {modality.layer!r}, {share:.0%} of the features of {modality.name} have a gradient of "
                              "exactly 0 while others of the same example have one.")

    def _other_places(self) -> Findings:
        for modality in self.question.modalities:
            try:
                require_places(self.question, [modality])
            except InputError as error:
                yield finding(f"{str(error)[0].upper()}{str(error).partition('; do that')[0][1:]}.")

    def _padding_is_read(self) -> Findings:
        for modality in self.modalities:
            if not isinstance(modality, Tokens):
                continue
            ids, words = modality.value(self.inputs), modality.is_word(self.inputs)
            padding = ~modality.real(self.inputs)
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
                is_read = bool(moved > 1e-4 * self._largest())
                saw = (f"Other words in place of the padding, with the same attention mask, move the logits by up to "
                       f"{moved:.3g}; {share:.0%} of the gradient norm falls on padding.")
            if is_read:
                yield finding(saw)

    def _padding_share(self, modality: Tokens, padding: Tensor) -> float:
        size = modality.laid_out(self.captured.gradients[modality.layer], self.inputs, self.n).norm(dim=2)  # (N, T)
        return float((size * padding).sum() / size.sum().clamp(min=1e-30))

    def _padding_side(self) -> Findings:
        for modality in self.modalities:
            if not isinstance(modality, Tokens) or modality.padding_side is None and modality.real(self.inputs).all():
                continue  # where nothing is padded, 'delete' asks the model on which side it may
            try:
                longest = self.question.examples(torch.tensor([longest_of(modality, self.inputs)]))
                side = padding_side_of(self.run, modality.settled(self.inputs), unpadded(modality, longest))
            except InputError as error:
                yield finding(f"{str(error)[0].upper()}{str(error)[1:]}", "neither")
                continue
            padded = modality.settled(self.inputs).side
            if side is not None and padded in SIDES and side != padded:
                yield finding(f"{modality.name} is padded on the {padded}, and the model gives what a shorter text gives with "
                              f"padding on the {side} alone.", side=side)

    def _mask_is_padding(self) -> Findings:
        for modality in self.modalities:
            if isinstance(modality, Tokens) and modality.mask_id is not None and modality.mask_id == modality.pad_id:
                yield finding(f"The mask id of {modality.name} is its padding id, {modality.pad_id}.")

    def _mask_changes_nothing(self) -> Findings:
        for modality in self.modalities:
            baseline = modality.baselines[0]
            masked = self._all_masked(modality, baseline)
            still = self._unchanged(masked)
            moved = float((self.run(masked) - self.full).abs().max())
            if still.all() or moved <= self.rounding:
                what = "is the same input as the unmasked view" if still.all() else f"gives the same logits (to {moved:.1g})"
                yield finding(f"With all of {modality.name} replaced by {baseline!r} the view {what}.",
                              "input" if still.all() else "logits", name=modality.name)
            elif baseline != "data" and still.float().mean() >= DEAD:
                yield finding(f"With all of {modality.name} replaced by {baseline!r} {int(still.sum())} of {self.n} examples, "
                              f"such as {_listed(still.nonzero()[:, 0].tolist())}, are the same input as before.",
                              "some", name=modality.name, others=", ".join(map(repr, modality.baselines[1:])))

    def _all_masked(self, modality: Modality, baseline: str) -> Inputs:
        """Return the inputs with all of a modality masked, under ``"data"`` by the next example."""
        donors = (torch.arange(self.n) + 1) % self.n if baseline == "data" else None
        return self._changed(modality, Mask(None, baseline, donors))

    def _unchanged(self, inputs: Inputs) -> Tensor:
        """Return which examples have the same inputs as before, bool (N,)."""
        return torch.stack([(inputs[key] == value).reshape(self.n, -1).all(dim=1).cpu() for key, value in self.inputs.items()
                            if isinstance(value, Tensor) and is_batched(value, self.n)]).all(dim=0)

    def _within_0_and_1(self) -> Findings:
        if self._within(0, 1) and not self.question.problems():
            low, high = (float(value) for value in self.full.aminmax())
            yield finding(f"All {self.n} outputs lie within 0 and 1, from {low:.3g} to {high:.3g}.")

    def _one_side_of_zero(self) -> Findings:
        if self.n >= MANY and not self._within(0, 1) and (same := on_one_side(self.full)):
            yield finding(same.strip())

    def _within(self, low: float, high: float) -> bool:
        return self.n >= MANY and self.full.shape[1] == 1 and low <= float(self.full.min()) and float(self.full.max()) <= high

    def _no_better_than_shuffled(self) -> Findings:
        right = self._right(self.full)
        generator = torch.Generator().manual_seed(self.seed)
        for modality in self.modalities:
            orders = [torch.randperm(self.n, generator=generator) for _ in range(SHUFFLES)]
            shuffled = np.stack([self._right(self.run(self._changed(modality, Mask(None, "data", order)))) for order in orders])
            gain, low = self._gain(right, shuffled.mean(axis=0))
            if low <= 0:
                yield finding(f"Accuracy {right.mean():.3f} as it is, {shuffled.mean():.3f} with {modality.name} shuffled "
                              f"among the examples: a gain of {gain:.3f}, from {low:.3f} (n = {self.n}).", name=modality.name)

    def _no_better_than_a_rival(self) -> Findings:
        right, labels = self._right(self.full), torch.as_tensor(self.labels)
        of_rival = labels.eq(labels.mode().values).numpy().astype(float)
        gain, low = self._gain(right, of_rival)
        if low <= 0:
            yield finding(f"Accuracy {right.mean():.3f}, that of the most frequent class {of_rival.mean():.3f}: a gain of "
                          f"{gain:.3f}, from {low:.3f} (n = {self.n}).")

    def _changed(self, modality: Modality, mask: Mask) -> Inputs:
        return Views(self.inputs, self.modalities, {"masked": {modality.name: mask}}, allow_empty=True,
                     common=self.question.common).inputs

    def _right(self, logits: Tensor) -> np.ndarray:
        return classes(logits).cpu().eq(torch.as_tensor(self.labels)).numpy().astype(float)

    def _gain(self, ours: np.ndarray, of_rival: np.ndarray) -> tuple[float, float]:
        """Return the mean gain and the lower end of its one-sided 95 % bootstrap interval."""
        gain = mean_interval(ours - of_rival, self.seed, level=0.9, draws=1000)
        return gain.value, gain.low

    def _norms(self) -> dict[str, Tensor]:
        return {m.name: m.laid_out(self.captured.gradients[m.layer], self.inputs, self.n).flatten(1).norm(dim=1)
                for m in self.modalities}


def _or(numbers: Sequence[float]) -> str:
    return " or ".join(f"{number:g}" for number in numbers)


def _listed(names: Sequence[object], most: int = 4) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
