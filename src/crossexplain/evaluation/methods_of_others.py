"""Explanations by other libraries, each imported when it is asked for: Captum, shapiq and grad-cam."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.evaluation.task import COMPLETE, CannotRun, Method, Scored, Task, library, missing
from crossexplain.gradients.capture import INPUT, capture, changed, opened
from crossexplain.gradients.maps import to_cells
from crossexplain.gradients.modalities import Columns, ImageCells, Inputs, Modality
from crossexplain.gradients.modes import untouched
from crossexplain.gradients.question import Question
from crossexplain.gradients.sharing import shared

Places = tuple[Tensor, ...]  # values at the layers
SUMMED = 0.15  # share of the largest gain by which integrated gradients may miss it
N_STEPS = 50, 200, 800  # that are tried, one after the other, where nobody said how many
FEW = 8  # examples on which it is looked up whether the layers are all that changes


# Captum, at the layers that the modalities name


class _FromLayers(nn.Module):
    """The evidence as a function of the values at the layers that the modalities name, each layer once."""

    def __init__(self, question: Question, frozen: bool = True):
        super().__init__()
        self.question, self.model, self.frozen = question, question.model, frozen
        self.sharing = frozen and question.sharing  # the steps of an example have the same picture before its layer
        self.layers = list(dict.fromkeys(question.layers))
        self.axes: dict[str, int] = {}  # which axis of a layer holds the examples

    def forward(self, *given: Tensor) -> Tensor:
        values, self.sharing = shared(self.model, self.layers, lambda: self._evidence(*given), towers=True) \
            if self.sharing else (self._evidence(*given), False)
        return values

    def _evidence(self, *given: Tensor) -> Tensor:
        *places, examples = given
        rows = self.question.examples(examples)
        with ExitStack() as changes:
            if self.frozen:
                changes.enter_context(untouched(self.model, gradients=True))
            for layer, values in zip(self.layers, self.turned(places)):
                if layer.startswith(INPUT):
                    key = layer.removeprefix(INPUT)
                    rows[key] = values.to(rows[key].dtype)
                else:  # a copy, since a later layer may work in place
                    changes.enter_context(changed(self.model, layer, partial(_instead, values)))
            return self.question.evidence_of(self.model(**rows), examples).float()

    def turned(self, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return values at the layers with the examples on the first axis in place of that of the layer, or back."""
        return tuple(value.transpose(0, self.axes[layer]) for layer, value in zip(self.layers, values))

    def ends(self, examples: Tensor) -> list[tuple[Tensor, ...]]:
        """Return the values at the layers, examples first, with everything hidden, and with nothing."""
        question, given = self.question, self.question.examples(examples)
        nothing = question.hidden(~question.joined()[examples], examples)
        read = [capture(self.model, inputs, self.layers, gradients=False).activations for inputs in (nothing, given)]
        self.axes = {m.layer: _axis_of_examples(m, read[1][m.layer], given, len(examples)) for m in question.modalities}
        return [self.turned([one[layer].float() for layer in self.layers]) for one in read]


def _instead(values: Tensor, old: object) -> Tensor:
    return values.clone()


def _axis_of_examples(modality: Modality, values: Tensor, inputs: Inputs, n: int) -> int:
    """Return which axis of a layer holds the examples, the first or the second."""
    number = torch.arange(n, device=values.device, dtype=torch.float64)  # of each example
    for axis in (0, 1):
        if values.ndim > axis and values.shape[axis] == n:
            numbers = number.view(*[1] * axis, n, *[1] * (values.ndim - axis - 1)).expand_as(values)
            rows = modality.laid_out(numbers, inputs, n).flatten(1)
            if len(rows) == n and (rows == number[:, None]).all():
                return axis
    raise CannotRun(f"layer {modality.layer!r} gives {tuple(values.shape)} for {n} examples, and none of its first axes holds "
                    "them, so its values cannot be replaced example by example; read the input, or another layer.")


def require_apart(question: Question) -> None:
    """Raise unless hiding changes values at the layers alone, and no layer lies behind another.

    Methods that put other values at the layers would otherwise explain something else, without a word.
    """
    few = torch.arange(min(question.n, FEW))
    given, inputs = question.examples(few), {modality.input for modality in question.modalities}
    hidden = question.hidden(torch.zeros_like(question.joined()[few]), few)
    changed = [key for key, value in given.items()
               if key not in inputs and isinstance(value, Tensor) and not torch.equal(value, hidden[key])]
    if changed:
        raise CannotRun(f"the baselines {question.baselines} change {', '.join(map(repr, changed))} too, which cannot go in "
                        "steps from hidden to shown; take another baseline, such as 'mask' for words.")
    _FromLayers(question).ends(few)  # refuses layers that do not hold the examples one by one
    with opened(question.model, given, question.layers, lambda output: question.of_output(output, len(few)).sum(dim=1)) as read:
        behind = [layer for layer, values in read.activations.items() if not values.is_leaf]
    if behind:
        raise CannotRun(f"the values at {behind[0]!r} come from another layer that is read, so they cannot be replaced one by "
                        "one; read each modality before it meets the others.")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed both global generators, which Captum draws from, and put them back as they were."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.set_state(np.random.RandomState(seed).get_state())
        try:
            yield
        finally:
            np.random.set_state(before)


def _at_layers(task: Task, name: str, complete: bool = False, **settings: Any) -> Scored:
    # DeepLIFT has hooks at all layers, which want a gradient before the places that are read too.
    question, of_layers = task.question, _FromLayers(task.question, frozen=name != "DeepLift")
    method = getattr(library("captum.attr", "captum"), name)(of_layers)
    all_rows, task = torch.arange(question.n), replace(task, groups=None)
    begin, end = of_layers.ends(all_rows)
    if not isinstance(complete, bool):
        raise InputError(f"got complete={complete!r}, expected True, to refuse values that miss a part, or False.")
    if complete:
        _require_all_passes(task, of_layers, begin, end)
    if name == "GradientShap":
        values = _one_baseline_each(method, task, end, begin, **settings)
    else:
        end = tuple(part.requires_grad_() for part in end)  # otherwise Captum does it, with a warning
        values = method.attribute(end, begin, additional_forward_args=all_rows, **settings)
    at = dict(zip(of_layers.layers, of_layers.turned(values)))
    found = {modality.name: task.per_feature(modality, at[modality.layer]) for modality in question.modalities}
    if complete and name == "IntegratedGradients":
        _require_sum(task, found, values, settings["n_steps"])
    return Scored(found)


def _require_all_passes(task: Task, of_layers: _FromLayers, begin: Places, end: Places) -> None:
    """Raise unless the values at the layers with everything hidden give what the model gives with everything hidden."""
    all_rows = torch.arange(task.question.n)
    with torch.no_grad():
        gained = of_layers(*end, all_rows).double() - of_layers(*begin, all_rows).double()
    if (missed := missing(gained, task)) > COMPLETE:
        raise CannotRun(f"the values at {', '.join(map(repr, of_layers.layers))} miss {missed:.0%} of what the evidence "
                        "changes by as everything is hidden: the rest goes round them, as a residual path goes round a norm or "
                        "an attention; name a layer that all goes through, such as a whole block or the input, or pass "
                        "complete=False for the part that passes there.")


class _TooFewSteps(CannotRun):
    """Integrated gradients that would be nearer with more steps."""


def _require_sum(task: Task, found: dict[str, Tensor], values: Places, n_steps: int) -> None:
    """Raise unless integrated gradients at all places, and of all features, sum to about what the evidence gains."""
    everywhere = missing(sum((part.flatten(1).sum(dim=1) for part in values), torch.zeros(())), task)
    apart = len(values) == len(found)  # else two modalities share a layer, and may share places
    missed = missing(sum((part.nansum(dim=1) for part in found.values()), torch.zeros(())), task) if apart else everywhere
    if max(missed, everywhere) > SUMMED:
        reason = f"n_steps={n_steps} are too few; pass more" if everywhere > SUMMED else \
            "the rest is that of positions that are no feature, such as a class token; read before the first block"
        kind = _TooFewSteps if everywhere > SUMMED else CannotRun
        raise kind(f"integrated gradients miss {max(missed, everywhere):.0%} of what the evidence changes by as everything is "
                   f"hidden: {reason}, or pass complete=False to take them as they are.")


def _one_baseline_each(method: Any, task: Task, end: Places, begin: Places, **settings: Any) -> Places:
    """Ask about each example by itself, with its own baseline: GradientSHAP draws from all the baselines that it is given."""
    parts = []
    with _seeded(task.seed):
        for i in range(task.question.n):
            values, baselines = (tuple(value[i : i + 1] for value in of) for of in (end, begin))
            parts.append(method.attribute(values, baselines, additional_forward_args=torch.tensor([i]), **settings))
    return tuple(torch.cat(values) for values in zip(*parts))


def _integrated_gradients(task: Task, n_steps: int | None = None, internal_batch_size: int | None = None,
                          complete: bool = True) -> Scored:
    """Take 50 steps, or 200 or 800 where that is too few and nobody said how many."""
    most, tried = internal_batch_size, N_STEPS if n_steps is None else (n_steps,)
    for steps in tried[:-1]:
        with suppress(_TooFewSteps):
            return _at_layers(task, "IntegratedGradients", complete, n_steps=steps, internal_batch_size=most)
        most = most or steps * task.question.n  # no more rows at once than the first time
    return _at_layers(task, "IntegratedGradients", complete, n_steps=tried[-1], internal_batch_size=most)


def _gradient_shap(task: Task, n_samples: int = 5, stdevs: float = 0.0, complete: bool = True) -> Scored:
    return _at_layers(task, "GradientShap", complete, n_samples=n_samples, stdevs=stdevs)


def _deeplift(task: Task) -> Scored:
    if any(isinstance(module, nn.RNNBase) for module in task.question.model.modules()):
        raise CannotRun("DeepLIFT has no rule for recurrent layers.")
    return _at_layers(task, "DeepLift")


# Captum, on the features


def _through_masks(task: Task, name: str, alone: bool, **settings: Any) -> Scored:
    """Let Captum hide features; ``alone`` asks about each example by itself, so that only the features it has are drawn."""
    attr, question = library("captum.attr", "captum"), task.question

    def evidence(keep: Tensor, examples: Tensor) -> Tensor:
        return task.values(keep > 0.5, examples.reshape(-1).expand(len(keep))).float()

    method, present = getattr(attr, name)(evidence), task.present
    ones, parts = torch.ones(present.shape), []
    with _seeded(task.seed):
        for examples in torch.arange(question.n).split(1 if alone else question.n):
            own = present[examples]
            if alone and int(own.sum()) <= 1:  # Captum has no coalition to draw
                parts.append(own * (evidence(own.float(), examples) - evidence(torch.zeros_like(ones[examples]), examples)))
                continue
            groups = {"feature_mask": (own.cumsum(dim=1) - 1).clamp(min=0)} if alone else {}
            values = method.attribute(ones[examples], baselines=0.0, additional_forward_args=examples, **groups, **settings)
            parts.append(values * own if alone else values)
    return Scored(task.split(torch.cat(parts)))


def _kernel_shap(task: Task) -> Scored:
    _require_budget(task)
    return _through_masks(task, "KernelShap", alone=True, n_samples=task.budget)


def _require_budget(task: Task) -> None:
    """Raise where a regression on the coalitions could not tell the features apart."""
    most = int(task.present.sum(dim=1).max())
    if task.budget < most + 2:
        raise InputError(f"got budget={task.budget} for examples of up to {most} features, expected at least {most + 2} "
                         "coalitions (nothing, everything and one a feature); pass budget=..., or make fewer features.")


def _shapley_sampling(task: Task) -> Scored:
    orders = max(1, task.budget // max(1, int(task.present.sum(dim=1).max())))
    return _through_masks(task, "ShapleyValueSampling", alone=True, n_samples=orders)


def _occlusion(task: Task, window: int | None = None) -> Scored:
    """Slide a window, of 2 by default, over the grid of cells and over the words: neighbours are hidden together.

    Of groups each is hidden by itself.
    """
    window = (2 if task.groups is None else 1) if window is None else window
    attr, question = library("captum.attr", "captum"), task.question
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InputError(f"got window={window!r}, expected a whole number of cells or words, 1 or more.")
    shapes = [_laid_out(modality, question.present[modality.name].shape[1]) for modality in question.modalities]
    # Columns of a table have no neighbours.
    sides = tuple(tuple(1 if isinstance(modality, Columns) else min(window, max(side - 1, 1)) for side in shape)
                  for modality, shape in zip(question.modalities, shapes))
    if task.groups is not None:
        shapes, sides = [(len(task.groups),)], ((min(window, max(len(task.groups) - 1, 1)),),)

    def evidence(*given: Tensor) -> Tensor:
        *keep, examples = given
        return task.values(torch.cat([part.flatten(1) for part in keep], dim=1) > 0.5, examples).float()

    ones = tuple(torch.ones(question.n, *shape) for shape in shapes)
    values = attr.Occlusion(evidence).attribute(ones, sides, baselines=(0.0,) * len(ones),
                                                additional_forward_args=torch.arange(question.n))
    return Scored(task.split(torch.cat([part.flatten(1) for part in values], dim=1)))


def _laid_out(modality: Modality, count: int) -> tuple[int, ...]:
    """Return how the features lie: in the modality's grid, where it has one, or in a row."""
    grid = getattr(modality, "grid", None)
    return tuple(grid) if grid is not None and prod(grid) == count else (count,)


# shapiq


def _shapiq(task: Task, name: str, index: str | None) -> Scored:
    shapiq, question = library("shapiq", "shapiq"), task.question
    _require_budget(task)
    present, first = task.present, question.present[question.names[0]].shape[1]
    sides = (slice(None), slice(None)) if task.groups is not None else (slice(first), slice(first, None))
    values, pairs = torch.zeros(present.shape), None
    if index is not None:
        pairs = torch.full((question.n, *[present.shape[1]] * 2), torch.nan)[:, *sides]
    for i, own in enumerate(present):
        players = own.nonzero()[:, 0]
        if len(players) < 2:
            raise CannotRun(f"shapiq needs two features or groups, example {i} has {len(players)}.")

        def evidence(coalitions: np.ndarray, i: int = i, players: Tensor = players) -> np.ndarray:
            left = torch.as_tensor(np.atleast_2d(coalitions).astype(bool))  # shapiq may ask for a single coalition
            keep = torch.zeros(len(left), present.shape[1], dtype=torch.bool)
            keep[:, players] = left
            return task.values(keep, torch.full((len(keep),), i)).numpy()

        settings = {"pairing_trick": True} | ({} if index is None else {"max_order": 2, "index": index})
        estimator = getattr(shapiq, name)(n=len(players), random_state=task.seed, **settings)
        estimate = estimator.approximate(task.budget, evidence)
        values[i, players] = torch.as_tensor(estimate.get_n_order_values(1)).float()
        if pairs is not None:
            all_pairs = torch.full((len(own), len(own)), torch.nan)
            between = torch.as_tensor(estimate.get_n_order_values(2)).float()
            all_pairs[players[:, None], players] = between
            values[i, players] += between.sum(dim=1) / 2  # k-SII takes what it gives a pair from the values of the two
            pairs[i] = all_pairs[sides]
    return Scored(task.split(values), pairs)


# grad-cam


class _OfPictures(nn.Module):
    """The evidence of all examples as a function of their pictures alone, the form in which grad-cam asks.

    What the layer holds goes, laid out as maps of single precision, through ``maps``, where grad-cam reads it.
    """

    def __init__(self, task: Task, picture: ImageCells):
        super().__init__()
        self.task, self.picture, self.maps = task, picture, nn.Identity()
        pictures = picture.value(task.question.inputs)
        self.place = nn.Parameter(torch.zeros(0, device=pictures.device))  # grad-cam asks the first parameter for its device

    def forward(self, pictures: Tensor) -> Tensor:
        question, all_rows = self.task.question, torch.arange(self.task.question.n)
        with changed(question.model, self.picture.layer, self._through):
            output = question.model(**{**question.examples(all_rows), self.picture.input: pictures})
            return question.evidence_of(output, all_rows)[:, None]

    def _through(self, values: Tensor) -> Tensor:
        """Let the maps in what a layer holds pass by grad-cam's eyes, and leave the rest as it is."""
        numbers = torch.arange(values.numel(), device=values.device, dtype=torch.float64).view_as(values)
        places = self.task.laid_out(self.picture, numbers).long()  # (N, C, h, w)
        seen = self.maps(values.take(places).float()).to(values.dtype)
        return values.flatten().index_copy(0, places.flatten(), seen.flatten()).view_as(values)


def _grad_cam_library(task: Task, name: str) -> Scored:
    cams, values = library("pytorch_grad_cam", "grad-cam"), {}
    targets = library("pytorch_grad_cam.utils.model_targets", "grad-cam")
    for picture in task.pictures:
        if picture.layer.startswith(INPUT):
            raise CannotRun(f"{name} folds the channels of a layer, and {picture.name} is read at the pixels; name a layer.")
        capture(task.question.model, task.question.inputs, picture.layer, gradients=False)  # refuses what does not run once
        of_pictures = _OfPictures(task, picture)
        pictures = picture.value(task.question.inputs).detach().clone().requires_grad_()
        cam = getattr(cams, name)(of_pictures, [of_pictures.maps])
        try:  # not as a context, which would hide an IndexError
            with untouched(task.question.model, gradients=True):  # the library leaves a gradient at every parameter
                heat = torch.as_tensor(cam(pictures, [targets.ClassifierOutputTarget(0)] * task.question.n))
        finally:
            cam.activations_and_grads.release()
        values[picture.name] = to_cells(heat, picture.grid).flatten(1)
    return Scored(values)


GRADIENT = "gradient"
CAPTUM, SHAPIQ, GRAD_CAM = ("captum",), ("shapiq",), ("image", "grad-cam", GRADIENT)
METHODS: tuple[Method, ...] = (
    Method("integrated gradients", "integrated gradients", "Captum, Sundararajan et al. 2017", _integrated_gradients, True,
           (*CAPTUM, GRADIENT), fits=require_apart),
    Method("gradient shap", "gradient SHAP (Captum)", "Captum, Lundberg and Lee 2017", _gradient_shap, True,
           (*CAPTUM, GRADIENT), fits=require_apart),
    Method("deeplift", "DeepLIFT (Captum)", "Captum, Shrikumar et al. 2017", _deeplift, True, (*CAPTUM, GRADIENT), True,
           fits=require_apart),
    Method("occlusion", "occlusion (Captum)", "Captum, Zeiler and Fergus 2014", _occlusion, True, CAPTUM),
    Method("feature ablation", "feature ablation (Captum)", "Captum: each feature hidden for itself",
           partial(_through_masks, name="FeatureAblation", alone=False), True, CAPTUM),
    Method("kernel shap", "KernelSHAP (Captum)", "Captum, Lundberg and Lee 2017", _kernel_shap, True, CAPTUM, True),
    Method("shapley sampling", "Shapley sampling (Captum)", "Captum, Castro et al. 2009", _shapley_sampling, True, CAPTUM,
           True),
    Method("shapiq shapley", "KernelSHAP (shapiq)", "shapiq's KernelSHAP, paired (Muschalik et al. 2024)",
           partial(_shapiq, name="KernelSHAP", index=None), True, SHAPIQ, True),
    Method("shapiq pairs", "pairs (shapiq)", "shapiq: Shapley values and interactions of pairs (Muschalik et al. 2024)",
           partial(_shapiq, name="KernelSHAPIQ", index="k-SII"), True, (*SHAPIQ, "two modalities")),
    *(Method(f"{key} (library)", f"{title} (grad-cam)", "the library grad-cam", partial(_grad_cam_library, name=name), False,
             GRAD_CAM)
      for key, title, name in (
          ("grad-cam", "Grad-CAM", "GradCAM"), ("grad-cam++", "Grad-CAM++", "GradCAMPlusPlus"),
          ("xgrad-cam", "XGrad-CAM", "XGradCAM"), ("layer-cam", "LayerCAM", "LayerCAM"), ("hires-cam", "HiResCAM", "HiResCAM"),
          ("eigen-cam", "Eigen-CAM", "EigenCAM"))),
)
