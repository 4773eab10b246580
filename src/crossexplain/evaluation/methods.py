"""Ours and other libraries' explanations behind one call: the same features, the same baselines, the cost counted.

Every method gives an importance to each feature of a modality (cell of a picture, word) for the followed class. What is asked
of a model through masks is asked of the whole model, so that costs can be compared. A new method is one function and one line
of ``METHODS``.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import captum.attr
import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, find_layer
from crossexplain.coalitions import shapley as indices
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.evaluation import shares
from crossexplain.evaluation.modality_shares import size_shares
from crossexplain.gradients import maps as maps
from crossexplain.gradients import tokens as scores
from crossexplain.gradients.attention import RELEVANCE, ROLLOUT, patch_map
from crossexplain.gradients.capture import INPUT, Captured, capture
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, Tokens, require_modalities, rows_of
from crossexplain.gradients.rounds import feature_dividends, rounds

BUDGET = 256  # coalitions an example, where a method takes a budget
ROWS = 512  # that go through the model at once
COMPLETE = 1e-2  # how far a sum may miss what it promises, as a share of the largest, before DeepLIFT counts as not applicable


class CannotRun(InputError):
    """A method that does not work on a model, with the reason."""


@dataclass(frozen=True)
class Explanation:
    """What one method says about N examples.

    Attributes
    ----------
    method : str
    values : dict of str to Tensor, shape (N, F)
        By modality, the importance of each feature; NaN where the example has none. A modality that the method does not speak
        about is missing.
    pairs : Tensor or None, shape (N, F of the first, F of the second)
        Interactions of two features of different modalities, where the method gives them.
    signed : bool
        Whether a feature can speak against the followed class.
    passes : float
        Cost an example: rows that went through the model, counted; the way back counts as two more.
    seconds : float
        For all examples.
    features : dict of str to int
        How many features each modality has.
    """

    method: str
    values: dict[str, Tensor]
    pairs: Tensor | None
    signed: bool
    passes: float
    seconds: float
    features: dict[str, int]

    def joint(self, players: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the importances of all modalities side by side, (N, P), NaN where there is none.

        Parameters
        ----------
        players : mapping from modality to Tensor of int64, shape (F,) or (N, F), optional
            The player of each feature, counted over all modalities, -1 for none: importances of a player's features are
            added. Default: each feature for itself.
        """
        n = len(next(iter(self.values.values())))
        parts = {name: self.values.get(name, torch.full((n, count), torch.nan)) for name, count in self.features.items()}
        values = torch.cat(list(parts.values()), dim=1).double()
        if players is None:
            return values
        owner = torch.cat([players[name].expand(n, -1) for name in parts], dim=1)  # (N, F)
        there = (owner >= 0) & ~values.isnan()
        shape, owner = (n, int(owner.max()) + 1), owner.clamp(min=0)
        total = torch.zeros(shape, dtype=torch.float64).scatter_add(1, owner, values.where(there, 0.0))
        held = torch.zeros(shape, dtype=torch.float64).scatter_add(1, owner, there.double())
        return total.where(held > 0, torch.nan)


class Scored(NamedTuple):
    """What a method's function returns: values by modality, pairs where it has them, passes where they cannot be counted."""

    values: dict[str, Tensor]
    pairs: Tensor | None = None
    passes: float | None = None


class Method(NamedTuple):
    """One line of the registry.

    Attributes
    ----------
    run : callable
        Takes an ``Asked`` and the method's own options, gives a ``Scored``.
    signed : bool
    line : str
        What it does, with its source.
    efficient : bool
        Whether the values of an example sum to its margin less that with everything hidden.
    whole : bool
        Whether a modality counts as one feature.
    """

    run: Callable[..., Scored]
    signed: bool
    line: str
    efficient: bool = False
    whole: bool = False


@dataclass
class Asked:
    """A question to a method: the model, the examples, and what stands in for what is hidden."""

    model: nn.Module
    inputs: Inputs
    modalities: list[Modality]
    baselines: dict[str, str]
    target: Tensor
    donors: Inputs | None
    budget: int
    seed: int
    there: dict[str, Tensor] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Return how many examples there are."""
        return len(self.target)

    @property
    def present(self) -> Tensor:
        """Return which features each example has, bool (N, P)."""
        return torch.cat(list(self.there.values()), dim=1)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Divide values (N, P) among the modalities."""
        return dict(zip(self.there, values.split([there.shape[1] for there in self.there.values()], dim=1)))

    def margin(self, output: Tensor, examples: Tensor) -> Tensor:
        """Return the evidence for the followed class, (R,), of logits (R,) or (R, C)."""
        target, output = self.target[examples], output.flatten(1) if output.ndim > 1 else output[:, None]
        if output.shape[1] == 1:
            return output[:, 0] * (2 * target - 1)
        return output.gather(1, target[:, None])[:, 0] - output.mean(dim=1)

    def hidden(self, keep: Tensor, examples: Tensor) -> dict[str, object]:
        """Return inputs of some examples with only the features of ``keep`` (R, P) left."""
        rows = rows_of(self.inputs, examples, self.n)
        changed = dict(rows)
        for modality, stay in zip(self.modalities, self.split(keep).values()):
            donor = None
            if self.baselines[modality.name] == "data":
                size = len(modality.value(self.donors))
                donor = rows_of(self.donors, examples % size, size)
            changed |= modality.replace(rows, stay, self.baselines[modality.name], donor)
        return changed

    @torch.no_grad()
    def value(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the margins, (R,), with only the features of ``keep`` (R, P) left."""
        keep = keep.bool() | ~self.present[examples]
        parts = [self.margin(self.model(**self.hidden(some, who)), who)
                 for some, who in zip(keep.split(ROWS), examples.split(ROWS))]
        return torch.cat(parts).float()

    def captured(self) -> Captured:
        """Read activations and gradients where the modalities say."""
        everyone = torch.arange(self.n)
        return capture(self.model, self.inputs, list(dict.fromkeys(modality.layer for modality in self.modalities)),
                       lambda output: self.margin(output, everyone), allow_unused=True)

    def image(self) -> ImageCells:
        """Return the picture among the modalities."""
        for modality in self.modalities:
            if isinstance(modality, ImageCells):
                return modality
        raise CannotRun("maps are made of pictures, and none of the modalities is an ImageCells.")


def explain(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], method: str = "cross", *,
            baselines: Mapping[str, str] | None = None, target: Tensor | int | None = None, donors: Inputs | None = None,
            budget: int | None = None, seed: int = 0, **options) -> Explanation:
    """Explain a batch by one of ``METHODS``.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; called as ``model(**inputs)``.
    inputs : mapping of str to Tensor
        N examples.
    modalities : sequence of Modality
    method : str
    baselines : mapping of str to str, optional
        What stands in for hidden features; default each modality's neutral one. ``"data"`` borrows from the donor of the
        same number.
    target : int or Tensor of shape (N,), optional
        Class to follow; default the predicted one. Of a single logit, 1 is yes and 0 is no.
    donors : mapping of str to Tensor, optional
        For ``"data"``.
    budget : int, optional
        Coalitions an example, for methods that sample them.
    seed : int
    **options
        The method's own.

    Returns
    -------
    Explanation

    Raises
    ------
    CannotRun
        Where the method does not work on the model, with the reason.
    InputError
        For an unknown method, and whatever the method refuses.
    """
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}; the methods are {', '.join(METHODS)}.")
    if model.training:
        raise InputError("the model is in train mode, where dropout answers differently each time; call model.eval() first.")
    modalities = require_modalities(modalities)
    chosen = {modality.name: modality.require_baseline((baselines or {}).get(modality.name, modality.baselines[0]))
              for modality in modalities}
    if "data" in chosen.values() and donors is None:
        raise InputError("the baseline 'data' borrows from other examples; pass them as donors=...")
    there = {modality.name: modality.features(inputs) for modality in modalities}
    with torch.no_grad():
        logits = model(**inputs)
    n = len(next(iter(there.values())))
    if target is None:
        several = logits.ndim > 1 and logits.shape[1] > 1
        target = logits.argmax(dim=1) if several else (logits.reshape(n) > 0).long()
    target = torch.as_tensor(target).expand(n)
    asked = Asked(model, inputs, modalities, chosen, target, donors, budget or BUDGET, seed, there)
    with counted(model) as rows:
        begin = time.perf_counter()
        found = METHODS[method].run(asked, **options)
        seconds = time.perf_counter() - begin
    if METHODS[method].whole:
        there = {name: part.any(dim=1, keepdim=True) for name, part in there.items()}
    values = {name: part.detach().float().where(there[name], torch.nan) for name, part in found.values.items()}
    for name, part in values.items():
        if not part[there[name]].isfinite().all():
            raise CannotRun(f"{method} gave NaN or infinity in {name}.")
    passes = rows[0] / n if found.passes is None else found.passes
    return Explanation(method, values, found.pairs, METHODS[method].signed, passes, seconds,
                       {name: part.shape[1] for name, part in there.items()})


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Count the rows that go through a model, and two more for each on the way back: a list of one number.

    Of a model that is asked by its towers (``see``, ``read``, ``match``) the rows that are matched are counted. A method that
    matches what it looks at many times says itself what it looked at.
    """
    rows, inside, match = [0], [False], getattr(model, "match", None)

    def before(module, arguments):
        inside[0] = True

    def after(module, arguments, output):
        inside[0] = False
        first = output if isinstance(output, Tensor) else output[0]
        rows[0] += len(first)
        if first.requires_grad:
            first.register_hook(lambda gradient: rows.__setitem__(0, rows[0] + 2 * len(gradient)))

    def matched(*given, **named):
        output = match(*given, **named)
        rows[0] += 0 if inside[0] else len(output)
        return output

    handles = [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
    if match is not None:
        model.match = matched
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()
        if match is not None:
            del model.match


# Ours


def _gradient_norms(asked: Asked) -> Scored:
    read = asked.captured()
    return Scored({m.name: m.per_feature(read.gradients[m.layer].float() ** 2, asked.there[m.name].shape[1]).sqrt()
                  for m in asked.modalities})


def _gradient_x_input(asked: Asked) -> Scored:
    read = asked.captured()
    return Scored({m.name: m.per_feature((read.gradients[m.layer] * read.activations[m.layer]).float(),
                                        asked.there[m.name].shape[1]) for m in asked.modalities})


def _rounds(asked: Asked, which: str) -> Scored:
    record = rounds(asked.model, asked.inputs, asked.modalities, baselines=[asked.baselines], target=asked.target,
                    donors=asked.donors, control=False, progress=False, seed=asked.seed)
    kind = record.baselines[0]
    if which == "cross":
        return Scored({name: record.by_side[kind, name].cross for name in record.modalities})
    return Scored({name: record.passes[kind, record.only(name)].importance[name] for name in record.modalities})


def _carriers(asked: Asked) -> Scored:
    return Scored(feature_dividends(asked.model, asked.inputs, asked.modalities, baseline=asked.baselines, target=asked.target,
                          donors=asked.donors, progress=False, seed=asked.seed))


def _cam(asked: Asked, method: str, layer: str | None = None, patches: tuple[int, int] | None = None) -> Scored:
    """Map a method of the CAM family to the cells; ``patches`` are rows and columns of a transformer's, if no square."""
    picture = asked.image()
    where = layer or picture.layer
    if where.startswith(INPUT) and "cam" in method:
        raise CannotRun(f"{method} folds the channels of a layer, and {picture.name} is read at the pixels; name a layer.")
    heat = maps.attribute(asked.model, asked.inputs, where, method, asked.target, "for", grid=patches)
    return Scored({picture.name: maps.to_cells(heat, picture.grid).flatten(1)})


def _game(asked: Asked) -> Game:
    return Game(asked.model, asked.inputs, asked.modalities, baselines=asked.baselines, target=asked.target,
                donors=asked.donors, progress=False)


def _sampled(asked: Asked) -> Scored:
    """Estimate Shapley values from masks that are crossed; a pass is a mask that a tower, or the whole model, looks at."""
    game = _game(asked)
    before = game.passes
    values = sampled_shapley(game, asked.budget, asked.seed)
    return Scored({name: part.float() for name, part in game.shared(values).items()}, None, (game.passes - before) / asked.n)


def _exact(asked: Asked, index: str, game: Game | None = None) -> Scored:
    """Read the model's value of every coalition; ``game`` has the table at hand, or players that are groups of features."""
    game = _game(asked) if game is None else game
    if len(game) != asked.n or not torch.equal(game.target, asked.target):
        raise InputError(f"the game is about {len(game)} other examples or classes, {asked.n} came; make it of the same inputs "
                         "and target.")
    table, passes, pairs = game.table().numpy(), game.cost().coalitions / asked.n, None
    if index == "interactions":
        pairs = torch.from_numpy(indices.across(table, game.names)).float()
        values = torch.cat([pairs.abs().sum(dim=2), pairs.abs().sum(dim=1)], dim=1)
    else:
        values = torch.from_numpy(getattr(indices, index)(table))
    return Scored({name: part.float() for name, part in game.shared(values).items()}, pairs, passes)


# Captum: at the layers that the modalities name


class _FromLayers(nn.Module):
    """The margin as a function of what stands at the captured places."""

    def __init__(self, asked: Asked):
        super().__init__()
        self.model, self.asked = asked.model, asked
        for modality in asked.modalities:
            if "@" in modality.layer or "#" in modality.layer:
                raise CannotRun(f"what stands at {modality.layer!r} cannot be put in from outside.")

    def forward(self, *given: Tensor) -> Tensor:
        *places, examples = given
        rows, handles = dict(rows_of(self.asked.inputs, examples, self.asked.n)), []
        try:
            for modality, value in zip(self.asked.modalities, places):
                if modality.layer.startswith(INPUT):
                    rows[modality.layer.removeprefix(INPUT)] = value
                else:
                    layer = find_layer(self.model, modality.layer)
                    handles.append(layer.register_forward_hook(lambda *call, value=value: _instead(call[-1], value)))
            return self.asked.margin(self.model(**rows), examples)
        finally:
            for handle in handles:
                handle.remove()


def _instead(output: object, value: Tensor) -> object:
    value = value.clone()  # a layer behind may work in place
    return value if isinstance(output, Tensor) else (value, *output[1:])


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Let what draws from the global generators draw from a seed, and leave them as they were: Captum uses both."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.set_state(np.random.RandomState(seed).get_state())
        try:
            yield
        finally:
            np.random.set_state(before)


def _at_layers(asked: Asked, name: str, **settings) -> Scored:
    places = [modality.layer for modality in asked.modalities]
    nothing = asked.hidden(~asked.present, torch.arange(asked.n))
    full, empty = (capture(asked.model, inputs, places, gradients=False).activations for inputs in (asked.inputs, nothing))
    function = _FromLayers(asked)
    method = getattr(captum.attr, name)(function)
    recurrent = any(isinstance(module, nn.RNNBase) for module in asked.model.modules())
    if name == "DeepLift" and recurrent:
        raise CannotRun("DeepLIFT has no rule for recurrent layers.")
    begin, end = (tuple(read[place].detach().clone() for place in places) for read in (empty, full))
    if name == "GradientShap":
        found = _each_with_its_own_baseline(method, asked, end, begin, **settings)
    else:
        try:
            found = method.attribute(end, begin, additional_forward_args=torch.arange(asked.n), **settings)
        except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
            if name != "DeepLift":
                raise
            raise CannotRun(f"DeepLIFT does not run on this model: {str(error).splitlines()[0]}") from error
    if name == "DeepLift":
        _require_complete(asked, found, nothing)
    return Scored({m.name: m.per_feature(values.float(), asked.there[m.name].shape[1])
                  for m, values in zip(asked.modalities, found)})


def _each_with_its_own_baseline(method, asked: Asked, end: tuple, begin: tuple, **settings) -> tuple:
    """GradientSHAP draws its baselines from all that are given: each example is asked alone, with its own."""
    parts = []
    with _drawing(asked.seed):
        for i in range(asked.n):
            one, other = (tuple(value[i : i + 1] for value in values) for values in (end, begin))
            parts.append(method.attribute(one, other, additional_forward_args=torch.tensor([i]), **settings))
    return tuple(torch.cat(values) for values in zip(*parts))


@torch.no_grad()
def _require_complete(asked: Asked, found: tuple, nothing: dict) -> None:
    everyone = torch.arange(asked.n)
    gained = asked.margin(asked.model(**asked.inputs), everyone) - asked.margin(asked.model(**nothing), everyone)
    missed = (sum(values.flatten(1).sum(dim=1) for values in found) - gained).abs().max() / gained.abs().max().clamp(min=1e-6)
    if missed > COMPLETE:
        raise CannotRun(f"DeepLIFT's values miss the change of the logit by {missed:.0%}: the model has layers without a rule "
                        "(products, softmax of attention, functional activations).")


# Captum: on the features, through masks


def _through_masks(asked: Asked, name: str, **settings) -> Scored:
    method = getattr(captum.attr, name)(lambda keep, examples: asked.value(keep > 0.5, examples.reshape(-1).expand(len(keep))))
    ones, parts = torch.ones(asked.present.shape), []
    batches = torch.arange(asked.n).split(1 if name in ("KernelShap", "ShapleyValueSampling") else asked.n)
    with _drawing(asked.seed):
        for examples in batches:
            given, groups = ones[examples], {}
            if len(examples) == 1:  # only features that are there are drawn
                there = asked.present[examples]
                groups["feature_mask"] = (there.cumsum(dim=1) - 1).clamp(min=0)
                parts_of = there
            found = method.attribute(given, baselines=0.0, additional_forward_args=examples, **groups, **settings)
            parts.append(found * parts_of if groups else found)
    return Scored(asked.split(torch.cat(parts)))


def _kernel_shap(asked: Asked) -> Scored:
    return _through_masks(asked, "KernelShap", n_samples=asked.budget)


def _shapley_sampling(asked: Asked) -> Scored:
    orders = max(1, asked.budget // int(asked.present.sum(dim=1).max()))
    return _through_masks(asked, "ShapleyValueSampling", n_samples=orders)


def _occlusion(asked: Asked, window: int = 2) -> Scored:
    """Slide a window over the grid of cells and over the words: neighbours are hidden together."""
    shapes = [m.grid if isinstance(m, ImageCells) else (asked.there[m.name].shape[1],) for m in asked.modalities]
    sides = tuple(tuple(min(window, max(side - 1, 1)) for side in shape) for shape in shapes)

    def value(*given: Tensor) -> Tensor:
        *keep, examples = given
        return asked.value(torch.cat([part.flatten(1) for part in keep], dim=1) > 0.5, examples)

    ones = tuple(torch.ones(asked.n, *shape) for shape in shapes)
    found = captum.attr.Occlusion(value).attribute(ones, sides, baselines=(0.0,) * len(ones),
                                                   additional_forward_args=torch.arange(asked.n))
    return Scored({m.name: values.flatten(1) for m, values in zip(asked.modalities, found)})


# shapiq, grad-cam, attention


def _shapiq(asked: Asked, name: str = "KernelSHAP", index: str | None = None) -> Scored:
    import shapiq

    values, pairs = torch.zeros(asked.present.shape), None
    if index is not None:
        if len(asked.modalities) != 2:
            raise CannotRun("pairs are those of two modalities.")
        pairs = torch.full((asked.n, *(there.shape[1] for there in asked.there.values())), torch.nan)
    for i, there in enumerate(asked.present):
        players, who = there.nonzero()[:, 0], torch.tensor(i)
        if len(players) < 2:
            raise CannotRun(f"shapiq needs two features, example {i} has {len(players)}.")

        def game(coalitions: np.ndarray, players=players, who=who) -> np.ndarray:
            left = torch.as_tensor(np.atleast_2d(coalitions).astype(bool))  # some of shapiq's ask for a single one
            keep = torch.zeros(len(left), asked.present.shape[1], dtype=torch.bool)
            keep[:, players] = left
            return asked.value(keep, who.expand(len(keep))).double().numpy()

        kind, settings = getattr(shapiq, name), {"pairing_trick": True}  # each coalition with its complement
        settings |= {} if index is None else {"max_order": 2, "index": index}
        found = kind(n=len(players), random_state=asked.seed, **settings).approximate(asked.budget, game)
        values[i, players] = torch.as_tensor(found.get_n_order_values(1)).float()
        if pairs is not None:
            every, meets = torch.full((len(there), len(there)), torch.nan), torch.as_tensor(found.get_n_order_values(2)).float()
            every[players[:, None], players] = meets
            values[i, players] += meets.sum(dim=1) / 2  # what k-SII gives a pair is no longer in its two values
            pairs[i] = every[: pairs.shape[1], pairs.shape[1] :]
    return Scored(asked.split(values), pairs)


class _OfPictures(nn.Module):
    """The margin of all examples as a function of their pictures alone, as grad-cam asks for it."""

    def __init__(self, asked: Asked):
        super().__init__()
        self.model, self.asked = asked.model, asked

    def forward(self, pictures: Tensor) -> Tensor:
        output = self.model(**{**self.asked.inputs, self.asked.image().input: pictures})
        return self.asked.margin(output, torch.arange(self.asked.n))[:, None]


def _grad_cam_library(asked: Asked, name: str) -> Scored:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    picture = asked.image()
    if picture.layer.startswith(INPUT):
        raise CannotRun(f"{name} folds the channels of a layer, and {picture.name} is read at the pixels.")
    shape = capture(asked.model, asked.inputs, picture.layer, gradients=False).activations[picture.layer]
    pictures = picture.value(asked.inputs).detach().clone().requires_grad_()
    with getattr(pytorch_grad_cam, name)(_OfPictures(asked), [find_layer(asked.model, picture.layer)],
                                         reshape_transform=patch_map if shape.ndim == 3 else None) as cam:
        heat = torch.as_tensor(cam(pictures, [ClassifierOutputTarget(0)] * asked.n))
    return Scored({picture.name: maps.to_cells(heat, picture.grid).flatten(1)})


def _attention(asked: Asked, method: str, attention: Mapping[str, Sequence[str]] | None = None) -> Scored:
    if not attention:
        raise CannotRun("attention is read from a transformer: name its modules, attention={'text': [...], 'image': [...]}.")
    found, everyone = {}, torch.arange(asked.n)
    for modality in asked.modalities:
        modules = attention.get(modality.name, ())
        if modules and isinstance(modality, ImageCells):
            heat = maps.attribute(asked.model, asked.inputs, f"{INPUT}{modality.input}", method, asked.target, "for",
                                  attention=modules)
            found[modality.name] = maps.to_cells(heat, modality.grid).flatten(1)
        elif modules and isinstance(modality, Tokens):
            found[modality.name] = scores.attribute(
                asked.model, asked.inputs, modality.layer, method, lambda output: asked.margin(output, everyone),
                special="keep", attention=modules, batch_size=asked.n)
    return Scored(found)


# Of whole modalities


@torch.no_grad()
def every_pair(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality]) -> Tensor:
    """Return the logit of every first with every second modality, (N, N), of a model with one logit."""
    if len(modalities) != 2:
        raise CannotRun(f"scores of whole modalities are about two, {len(modalities)} came.")
    first, second = require_modalities(modalities)
    n = len(first.value(inputs))
    own = [key for key in (first.input, getattr(first, "attention", None)) if key in inputs]
    lines = []
    for i in range(n):
        rows = dict(inputs) | {key: inputs[key][i : i + 1].expand_as(inputs[key]) for key in own}
        lines.append(model(**rows).reshape(n, -1))
    every = torch.stack(lines)
    if every.shape[2] != 1:
        raise CannotRun(f"scores of whole modalities read one logit, the model gives {every.shape[2]}.")
    return every[..., 0]


def _parts(asked: Asked, score: str) -> Scored:
    """Split each example's value into what each modality does by itself and what only their meeting does."""
    every = every_pair(asked.model, asked.inputs, asked.modalities).double().numpy()
    if score == "intershap":
        if not np.array_equal(np.diagonal(every) > 0, asked.target.numpy() == 1):
            raise CannotRun("InterSHAP is about the predicted class; leave the target out.")
        nothing, *alone, both = shares.predicted(every).T
        alone, rest = [part - nothing for part in alone], both - sum(alone) + nothing
    else:
        sign = 2 * asked.target.numpy() - 1
        alone = [sign * (every.mean(axis=axis) - every.mean()) for axis in (1, 0)]
        rest = sign * (np.diagonal(every) - shares.emap(every))
    columns = [torch.from_numpy(part)[:, None] for part in (*alone, rest)]
    return Scored(dict(zip(asked.there, columns)), None if score == "emap" else columns[2][:, :, None])


def _mm_shap(asked: Asked) -> Scored:
    found = _sampled(asked)
    found_shares = size_shares(found.values)
    alike = 1 / len(found_shares)  # where no feature counts for anything
    return Scored({name: part.nan_to_num(alike)[:, None] for name, part in found_shares.items()}, None, found.passes)


def _named(function: Callable, *fixed) -> Callable:
    return lambda asked, **options: function(asked, *fixed, **options)


METHODS: dict[str, Method] = {
    "gradient norm": Method(_gradient_norms, False, "length of the gradient at each feature: round 1"),
    "gradient x input": Method(_gradient_x_input, True, "gradient times value, summed (Shrikumar et al. 2016)"),
    "round 2": Method(_named(_rounds, "round 2"), False, "length of the gradient with the other modality hidden"),
    "cross": Method(_named(_rounds, "cross"), False, "how much the gradient changes as the other modality is hidden"),
    "carriers": Method(_carriers, True, "dividend of each feature with the whole other modality"),
    "sampled shapley": Method(_sampled, True, "a Gaussian process on crossed masks (Rasmussen and Williams 2006)", True),
    "exact shapley": Method(_named(_exact, "shapley"), True, "of all coalitions (Shapley 1953)", True),
    "exact banzhaf": Method(_named(_exact, "banzhaf"), True, "of all coalitions (Banzhaf 1965)"),
    "exact interactions": Method(_named(_exact, "interactions"), False,
                                 "Shapley interactions of all coalitions, summed over the other modality (Grabisch 1999)"),
    **{name: Method(_named(_cam, name), method.signed, method.line) for name, method in maps.METHODS.items()
       if "cam" in name},
    "integrated gradients": Method(_named(_at_layers, "IntegratedGradients"), True, "Captum, Sundararajan et al. 2017"),
    "gradient shap": Method(_named(_at_layers, "GradientShap"), True, "Captum, Lundberg and Lee 2017"),
    "deeplift": Method(_named(_at_layers, "DeepLift"), True, "Captum, Shrikumar et al. 2017", True),
    "occlusion": Method(_occlusion, True, "Captum, Zeiler and Fergus 2014"),
    "feature ablation": Method(_named(_through_masks, "FeatureAblation"), True, "Captum: each feature hidden for itself"),
    "kernel shap": Method(_kernel_shap, True, "Captum, Lundberg and Lee 2017"),
    "shapley sampling": Method(_shapley_sampling, True, "Captum, Castro et al. 2009", True),
    **{f"{name} (grad-cam)": Method(_named(_grad_cam_library, name), False, "the library grad-cam")
       for name in ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "EigenCAM")},
    "shapiq shapley": Method(_shapiq, True, "shapiq's KernelSHAP, paired (Muschalik et al. 2024)", True),
    "shapiq pairs": Method(_named(_shapiq, "KernelSHAPIQ", "k-SII"), True, "shapiq: Shapley values and interactions of pairs"),
    RELEVANCE: Method(_named(_attention, RELEVANCE), False, "Chefer et al. 2021"),
    ROLLOUT: Method(_named(_attention, ROLLOUT), False, "Abnar and Zuidema 2020"),
    "mm-shap": Method(_mm_shap, False, "share of each modality in the sizes of Shapley values (Parcalabescu and Frank 2023)",
                      whole=True),
    **{name: Method(_named(_parts, name), True, line, whole=True) for name, line in (
        ("intershap", "each modality by itself, and as pairs their interaction, of the probability (Wenderoth et al. 2024)"),
        ("emap", "each modality's part of the nearest additive model (Hessel and Lee 2020)"),
        ("dime", "the same, and as pairs the interaction that is left (Lyu et al. 2022)"))},
}
