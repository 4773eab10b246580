"""Explanations by other libraries, each imported when it is asked for: Captum, shapiq and grad-cam."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import find_layer
from crossexplain.evaluation.task import CannotRun, Method, Scored, Task, library
from crossexplain.gradients.attention import patch_map
from crossexplain.gradients.capture import INPUT, capture
from crossexplain.gradients.maps import to_cells
from crossexplain.gradients.modalities import ImageCells

# DeepLIFT's values of an example promise to sum to the change of the logit. It counts as not applicable where they miss it by
# more than this share of the largest change: rounding misses less than a thousandth, a layer without a rule much more.
COMPLETE = 1e-2


# Captum, at the layers that the modalities name


class _FromLayers(nn.Module):
    """The evidence as a function of the values at the layers that the modalities name."""

    def __init__(self, task: Task):
        super().__init__()
        self.task, self.model = task, task.question.model
        for modality in task.question.modalities:
            if "@" in modality.layer or "#" in modality.layer:
                raise CannotRun(f"the values at {modality.layer!r} cannot be replaced from outside; name a whole layer.")

    def forward(self, *given: Tensor) -> Tensor:
        *places, examples = given
        rows, handles = self.task.question.examples(examples), []
        try:
            for modality, value in zip(self.task.question.modalities, places):
                if modality.layer.startswith(INPUT):
                    rows[modality.layer.removeprefix(INPUT)] = value
                else:
                    layer = find_layer(self.model, modality.layer)
                    handles.append(layer.register_forward_hook(lambda *call, value=value: _replaced(call[-1], value)))
            return self.task.evidence(self.model(**rows), examples)
        finally:
            for handle in handles:
                handle.remove()


def _replaced(output: object, value: Tensor) -> object:
    value = value.clone()  # a later layer may work in place
    return value if isinstance(output, Tensor) else (value, *output[1:])


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


def _at_layers(task: Task, name: str, **settings) -> Scored:
    attr, question = library("captum.attr", "captum"), task.question
    layers, everyone = question.layers, torch.arange(question.n)
    nothing = question.hidden(~question.joined(), everyone)
    full, empty = (capture(question.model, inputs, layers, gradients=False).activations
                   for inputs in (question.inputs, nothing))
    method = getattr(attr, name)(_FromLayers(task))
    begin, end = (tuple(read[layer].detach().clone() for layer in layers) for read in (empty, full))
    if name == "GradientShap":
        values = _one_baseline_each(method, task, end, begin, **settings)
    elif name == "DeepLift":
        values = _deeplift(method, task, end, begin, nothing, **settings)
    else:
        values = method.attribute(end, begin, additional_forward_args=everyone, **settings)
    return Scored({m.name: m.per_feature(part.float(), question.present[m.name].shape[1])
                  for m, part in zip(question.modalities, values)})


def _one_baseline_each(method: object, task: Task, end: tuple, begin: tuple, **settings) -> tuple:
    """Ask about each example by itself, with its own baseline: GradientSHAP draws from all the baselines that it is given."""
    parts = []
    with _seeded(task.seed):
        for i in range(task.question.n):
            values, baselines = (tuple(value[i : i + 1] for value in of) for of in (end, begin))
            parts.append(method.attribute(values, baselines, additional_forward_args=torch.tensor([i]), **settings))
    return tuple(torch.cat(values) for values in zip(*parts))


def _deeplift(method: object, task: Task, end: tuple, begin: tuple, nothing: dict, **settings) -> tuple:
    if any(isinstance(module, nn.RNNBase) for module in task.question.model.modules()):
        raise CannotRun("DeepLIFT has no rule for recurrent layers.")
    end = tuple(value.requires_grad_() for value in end)  # otherwise Captum does it, with a warning
    try:
        values = method.attribute(end, begin, additional_forward_args=torch.arange(task.question.n), **settings)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise CannotRun(f"DeepLIFT does not run on this model: {str(error).splitlines()[0]}") from error
    everyone = torch.arange(task.question.n)
    full, empty = (task.question.evidence(task.question.logits(inputs), everyone)
                   for inputs in (task.question.inputs, nothing))
    gained, total = full - empty, sum(part.flatten(1).sum(dim=1).cpu() for part in values)
    missed = (total - gained).abs().max() / gained.abs().max().clamp(min=1e-6)
    if missed > COMPLETE:
        raise CannotRun(f"DeepLIFT's values miss the change of the logit by {missed:.0%}: the model has layers without a rule "
                        "(products, softmax of attention, functional activations).")
    return values


# Captum, on the features


def _through_masks(task: Task, name: str, alone: bool, **settings) -> Scored:
    """Let Captum hide features; ``alone`` asks about each example by itself, so that only the features it has are drawn."""
    attr, question = library("captum.attr", "captum"), task.question

    def evidence(keep: Tensor, examples: Tensor) -> Tensor:
        return question.values(keep > 0.5, examples.reshape(-1).expand(len(keep))).float()

    method, present = getattr(attr, name)(evidence), question.joined()
    ones, parts = torch.ones(present.shape), []
    with _seeded(task.seed):
        for examples in torch.arange(question.n).split(1 if alone else question.n):
            own = present[examples]
            groups = {"feature_mask": (own.cumsum(dim=1) - 1).clamp(min=0)} if alone else {}
            values = method.attribute(ones[examples], baselines=0.0, additional_forward_args=examples, **groups, **settings)
            parts.append(values * own if alone else values)
    return Scored(question.split(torch.cat(parts)))


def _kernel_shap(task: Task) -> Scored:
    return _through_masks(task, "KernelShap", alone=True, n_samples=task.budget)


def _shapley_sampling(task: Task) -> Scored:
    orders = max(1, task.budget // int(task.question.joined().sum(dim=1).max()))
    return _through_masks(task, "ShapleyValueSampling", alone=True, n_samples=orders)


def _occlusion(task: Task, window: int = 2) -> Scored:
    """Slide a window over the grid of cells and over the words: neighbours are hidden together."""
    attr, question = library("captum.attr", "captum"), task.question
    shapes = [m.grid if isinstance(m, ImageCells) else (question.present[m.name].shape[1],) for m in question.modalities]
    sides = tuple(tuple(min(window, max(side - 1, 1)) for side in shape) for shape in shapes)

    def evidence(*given: Tensor) -> Tensor:
        *keep, examples = given
        return question.values(torch.cat([part.flatten(1) for part in keep], dim=1) > 0.5, examples).float()

    ones = tuple(torch.ones(question.n, *shape) for shape in shapes)
    values = attr.Occlusion(evidence).attribute(ones, sides, baselines=(0.0,) * len(ones),
                                                additional_forward_args=torch.arange(question.n))
    return Scored({name: part.flatten(1) for name, part in zip(question.names, values)})


# shapiq


def _shapiq(task: Task, name: str, index: str | None = None) -> Scored:
    shapiq, question = library("shapiq", "shapiq"), task.question
    present, first = question.joined(), question.present[question.names[0]].shape[1]
    values, pairs = torch.zeros(present.shape), None
    if index is not None:
        pairs = torch.full((question.n, first, present.shape[1] - first), torch.nan)
    for i, own in enumerate(present):
        players = own.nonzero()[:, 0]
        if len(players) < 2:
            raise CannotRun(f"shapiq needs two features, example {i} has {len(players)}.")

        def evidence(coalitions: np.ndarray, i=i, players=players) -> np.ndarray:
            left = torch.as_tensor(np.atleast_2d(coalitions).astype(bool))  # shapiq may ask for a single coalition
            keep = torch.zeros(len(left), present.shape[1], dtype=torch.bool)
            keep[:, players] = left
            return question.values(keep, torch.full((len(keep),), i)).numpy()

        settings = {"pairing_trick": True} | ({} if index is None else {"max_order": 2, "index": index})
        estimator = getattr(shapiq, name)(n=len(players), random_state=task.seed, **settings)
        estimate = estimator.approximate(task.budget, evidence)
        values[i, players] = torch.as_tensor(estimate.get_n_order_values(1)).float()
        if pairs is not None:
            all_pairs = torch.full((len(own), len(own)), torch.nan)
            between = torch.as_tensor(estimate.get_n_order_values(2)).float()
            all_pairs[players[:, None], players] = between
            values[i, players] += between.sum(dim=1) / 2  # k-SII takes what it gives a pair from the values of the two
            pairs[i] = all_pairs[:first, first:]
    return Scored(question.split(values), pairs)


# grad-cam


class _OfPictures(nn.Module):
    """The evidence of all examples as a function of their pictures alone, the form in which grad-cam asks."""

    def __init__(self, task: Task):
        super().__init__()
        self.task, self.model = task, task.question.model

    def forward(self, pictures: Tensor) -> Tensor:
        output = self.model(**{**self.task.question.inputs, self.task.picture.input: pictures})
        return self.task.evidence(output)[:, None]


def _grad_cam_library(task: Task, name: str) -> Scored:
    cams = library("pytorch_grad_cam", "grad-cam")
    targets = library("pytorch_grad_cam.utils.model_targets", "grad-cam")
    question, picture = task.question, task.picture
    if picture.layer.startswith(INPUT):
        raise CannotRun(f"{name} folds the channels of a layer, and {picture.name} is read at the pixels; name a layer.")
    values = capture(question.model, question.inputs, picture.layer, gradients=False).activations[picture.layer]
    pictures = picture.value(question.inputs).detach().clone().requires_grad_()
    with getattr(cams, name)(_OfPictures(task), [find_layer(question.model, picture.layer)],
                             reshape_transform=patch_map if values.ndim == 3 else None) as cam:
        heat = torch.as_tensor(cam(pictures, [targets.ClassifierOutputTarget(0)] * question.n))
    return Scored({picture.name: to_cells(heat, picture.grid).flatten(1)})


def _named(function: Callable[..., Scored], *fixed, **more) -> Callable[..., Scored]:
    return lambda task, **options: function(task, *fixed, **more, **options)


CAPTUM, SHAPIQ, GRAD_CAM = ("captum",), ("shapiq",), ("image", "grad-cam")
METHODS: tuple[Method, ...] = (
    Method("integrated gradients", "integrated gradients", "Captum, Sundararajan et al. 2017",
           _named(_at_layers, "IntegratedGradients"), True, CAPTUM),
    Method("gradient shap", "gradient SHAP (Captum)", "Captum, Lundberg and Lee 2017", _named(_at_layers, "GradientShap"),
           True, CAPTUM),
    Method("deeplift", "DeepLIFT (Captum)", "Captum, Shrikumar et al. 2017", _named(_at_layers, "DeepLift"), True, CAPTUM,
           True),
    Method("occlusion", "occlusion (Captum)", "Captum, Zeiler and Fergus 2014", _occlusion, True, CAPTUM),
    Method("feature ablation", "feature ablation (Captum)", "Captum: each feature hidden for itself",
           _named(_through_masks, "FeatureAblation", alone=False), True, CAPTUM),
    Method("kernel shap", "KernelSHAP (Captum)", "Captum, Lundberg and Lee 2017", _kernel_shap, True, CAPTUM),
    Method("shapley sampling", "Shapley sampling (Captum)", "Captum, Castro et al. 2009", _shapley_sampling, True, CAPTUM,
           True),
    Method("shapiq shapley", "KernelSHAP (shapiq)", "shapiq's KernelSHAP, paired (Muschalik et al. 2024)",
           _named(_shapiq, "KernelSHAP"), True, SHAPIQ, True),
    Method("shapiq pairs", "pairs (shapiq)", "shapiq: Shapley values and interactions of pairs (Muschalik et al. 2024)",
           _named(_shapiq, "KernelSHAPIQ", "k-SII"), True, (*SHAPIQ, "two modalities")),
    *(Method(f"{key} (library)", f"{title} (grad-cam)", "the library grad-cam", _named(_grad_cam_library, name), False,
             GRAD_CAM)
      for key, title, name in (
          ("grad-cam", "Grad-CAM", "GradCAM"), ("grad-cam++", "Grad-CAM++", "GradCAMPlusPlus"),
          ("xgrad-cam", "XGrad-CAM", "XGradCAM"), ("layer-cam", "LayerCAM", "LayerCAM"), ("hires-cam", "HiResCAM", "HiResCAM"),
          ("eigen-cam", "Eigen-CAM", "EigenCAM"))),
)
