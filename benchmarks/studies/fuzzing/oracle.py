"""The answers by hand: loops over single examples, one forward pass and one ``torch.autograd.grad`` at a time."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.studies.fuzzing.parts import Example, Part, Places

Keep = Mapping[str, Sequence[bool]]  # by modality, which features stay; one that is not named stays whole
Score = Callable[[Tensor], Tensor]  # from logits (1, C) to one number


class NoTruth(Exception):
    """No answer is right: what was asked has to be refused."""


class Truth:
    """A model that is asked about one example at a time.

    Parameters
    ----------
    net : nn.Module
        With ``logits(inputs)``; it is copied.
    inputs : mapping
        Of all examples.
    own : set of str
        Keys of what has one entry an example; the rest belongs to all of them.
    parts : sequence of Part
    donors : mapping, optional
        Examples to borrow from.
    exact : bool
        Ask in double precision, of a model in half precision.
    """

    def __init__(self, net: nn.Module, inputs: Mapping, own: set[str], parts: Sequence[Part], donors: Mapping | None = None,
                 exact: bool = False):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.net.recompute, self.net.blind = False, self.net.blind.replace("inference", "no_grad")
        self.net = self.net.double() if exact else self.net
        self.inputs, self.donors = ({key: _exact(value) if exact else _plain(value) for key, value in (given or {}).items()}
                                    for given in (inputs, donors))
        self.own, self.parts = own, {part.name: part for part in parts}
        self.n = len(self.inputs[parts[0].key])
        for part in parts:
            part.know(self.inputs)

    def example(self, i: int) -> dict:
        """Return the inputs of one example, with a batch of one."""
        return {key: value[i : i + 1] if key in self.own else value for key, value in self.inputs.items()}

    def donor(self, j: int) -> dict:
        """Return one of the donors, which are the examples where no others were given."""
        given = self.donors or self.inputs
        return {key: value[j : j + 1] if key in self.own else value for key, value in given.items()}

    def taken(self, example: Example) -> dict:
        """Return what the model takes of an example."""
        return {key: value for key, value in example.items() if key in self.net.takes}

    @torch.no_grad()
    def logits(self, example: Example) -> Tensor:
        """Return the logits of one example, (C,)."""
        return self.net.logits(self.taken(example))[0]

    def whole(self) -> Tensor:
        """Return the logits of all examples, (N, C), one at a time."""
        return torch.stack([self.logits(self.example(i)) for i in range(self.n)])

    def present(self, i: int) -> dict[str, list[bool]]:
        """Return which features an example has, by modality."""
        return {name: part.present(self.example(i)) for name, part in self.parts.items()}

    def hidden(self, i: int, keep: Keep, baselines: Mapping[str, str], donors: Mapping[str, int] | None = None
               ) -> tuple[dict, dict[str, Places]]:
        """Return one example with only some features left, and where each feature is read then."""
        example, places = self.example(i), {}
        for name, part in self.parts.items():
            places[name] = part.places(example)
        for name, stay in keep.items():
            donor = self.donor(donors[name]) if baselines[name] == "data" else None
            example, places[name] = self.parts[name].hide(example, stay, baselines[name], donor)
        return example, places

    def read(self, example: Example, layers: Sequence[str], score: Score) -> tuple[dict, dict]:
        """Return the activation and the gradient of a score of one example at some layers, with their batch axis.

        The gradient is None where the score does not depend on the layer through anything differentiable.
        """
        given, leaves, handles, calls = self.taken(example), {}, [], Counter()

        def hook(layer: str) -> Callable:
            path, _, number = layer.partition("@")

            def cut(module: nn.Module, arguments: tuple, output: object) -> object:
                calls[path] += 1
                if number and calls[path] != int(number) + 1:
                    return None
                if calls[path] > 1 and not number:
                    raise NoTruth(f"{layer} runs twice")
                first = output[0] if isinstance(output, tuple) else output
                if not isinstance(first, Tensor):
                    raise NoTruth(f"{layer} gives {type(first).__name__}")
                if not first.requires_grad:
                    first = first.detach().clone().requires_grad_()
                leaves[layer] = first
                with torch.enable_grad():
                    handed_on = first.clone()
                return (handed_on, *output[1:]) if isinstance(output, tuple) else handed_on

            return cut

        for layer in dict.fromkeys(layers):
            if layer.startswith("input:"):
                key = layer.removeprefix("input:")
                leaves[layer] = given[key].clone().requires_grad_()
                given[key] = leaves[layer].clone()
            else:
                handles.append(self.net.get_submodule(layer.partition("@")[0]).register_forward_hook(hook(layer)))
        try:
            with torch.inference_mode(False), torch.enable_grad():
                value = score(self.net.logits(given))
                slopes = [torch.autograd.grad(value.sum(), leaf, retain_graph=True, allow_unused=True)[0]
                          if value.requires_grad else None for leaf in leaves.values()]
        finally:
            for handle in handles:
                handle.remove()
        return {name: leaf.detach() for name, leaf in leaves.items()}, dict(zip(leaves, slopes))

    def attention(self, example: Example, module: str, score: Score) -> tuple[np.ndarray, np.ndarray]:
        """Return the map that an attention module hands out as its second entry, and its gradient, (heads, T, T) each."""
        kept = []

        def keep(module: nn.Module, arguments: tuple, output: tuple) -> tuple:
            kept.append(output[1].detach().clone().requires_grad_())
            with torch.enable_grad():
                return kept[0][:, 0] @ module.value(arguments[0]), kept[0]

        handle = self.net.get_submodule(module).register_forward_hook(keep)
        try:
            with torch.enable_grad():
                value = score(self.net.logits(self.taken(example)))
                (slope,) = torch.autograd.grad(value.sum(), kept[0], allow_unused=True, materialize_grads=True)
        finally:
            handle.remove()
        return kept[0][0].detach().double().numpy(), slope[0].double().numpy()

    def along_path(self, example: Example, start: Mapping[str, Tensor], end: Mapping[str, Tensor], score: Score,
                   points: np.ndarray, weights: np.ndarray) -> dict[str, Tensor]:
        """Return the mean gradient at layers while their values go together from start to end in a straight line."""
        total = {layer: torch.zeros_like(value) for layer, value in start.items()}
        for point, weight in zip(points, weights):
            given, leaves, handles = self.taken(example), {}, []
            for layer in total:
                leaves[layer] = (start[layer] + float(point) * (end[layer] - start[layer])).requires_grad_()
                if layer.startswith("input:"):
                    given[layer.removeprefix("input:")] = leaves[layer]
                else:
                    handles.append(self.net.get_submodule(layer.partition("@")[0]).register_forward_hook(
                        _replacing(leaves[layer], int(layer.partition("@")[2] or 0))))
            try:
                with torch.enable_grad():
                    slopes = torch.autograd.grad(score(self.net.logits(given)).sum(), list(leaves.values()), allow_unused=True,
                                                 materialize_grads=True)
            finally:
                for handle in handles:
                    handle.remove()
            total = {layer: total[layer] + float(weight) * slope for layer, slope in zip(total, slopes)}
        return total

    def is_dead(self, name: str, score: Callable[[int], Score]) -> bool:
        """Return whether no example has a gradient at a modality's layer."""
        layer = self.parts[name].layer
        slopes = [self.read(self.example(i), [layer], score(i))[1][layer] for i in range(self.n)]
        return all(slope is None or not slope.any() for slope in slopes)

    def moves(self, name: str, baselines: Mapping[str, str], donors: Mapping[str, int] | None = None) -> bool:
        """Return whether hiding a modality moves the logits of any example."""
        for i in range(self.n):
            example, _ = self.hidden(i, {name: [False] * len(self.present(i)[name])}, baselines, donors)
            if not torch.allclose(self.logits(example), self.logits(self.example(i)), rtol=1e-4, atol=1e-6):
                return True
        return False

    def values(self, i: int, baselines: Mapping[str, str], score: Score, donors: Mapping[str, int] | None = None) -> np.ndarray:
        """Return the score of every coalition of the features of one example, (2**P,); bit k of the number is feature k.

        A feature that the example does not have changes nothing.
        """
        present = self.present(i)
        counts = [len(features) for features in present.values()]
        cuts = list(itertools.accumulate(counts, initial=0))
        mine = [feature for features in present.values() for feature in features]
        rows, numbers = [], {}
        for coalition in range(2 ** sum(counts)):
            stay = tuple(bool(coalition >> k & 1) or not mine[k] for k in range(sum(counts)))
            if stay not in numbers:
                numbers[stay] = len(rows)
                keep = {name: stay[a:b] for name, a, b in zip(present, cuts, cuts[1:])}
                rows.append(self.logits(self.hidden(i, keep, baselines, donors)[0]))
        found = [float(score(row[None])) for row in rows]
        return np.array([found[numbers[tuple(bool(s >> k & 1) or not mine[k] for k in range(sum(counts)))]]
                         for s in range(2 ** sum(counts))])


def _replacing(value: Tensor, number: int) -> Callable:
    """Return a hook that replaces what one call of a layer gives, counted from 0."""
    calls = itertools.count()

    def replace(module: nn.Module, arguments: tuple, output: object) -> object:
        if next(calls) != number:
            return None
        return (value.clone(), *output[1:]) if isinstance(output, tuple) else value.clone()

    return replace


def _plain(value: object) -> object:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _exact(value: object) -> object:
    return value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else _plain(value)


# ---------------------------------------------------------------- from coalition values


def shapley(values: np.ndarray) -> np.ndarray:
    """Return the mean gain of each player over all orders, written as a sum over coalitions, (P,)."""
    players = int(math.log2(len(values)))
    shares = np.zeros(players)
    for s in range(len(values)):
        size = bin(s).count("1")
        for k in range(players):
            if not s >> k & 1:
                weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
                shares[k] += weight * (values[s | 1 << k] - values[s])
    return shares


def banzhaf(values: np.ndarray) -> np.ndarray:
    """Return the mean gain of each player over all coalitions of the others, (P,)."""
    players = int(math.log2(len(values)))
    return np.array([np.mean([values[s | 1 << k] - values[s] for s in range(len(values)) if not s >> k & 1])
                     for k in range(players)])


def interaction(values: np.ndarray, j: int, k: int) -> float:
    """Return the Shapley interaction index of two players."""
    players, total = int(math.log2(len(values))), 0.0
    for s in range(len(values)):
        if not (s >> j & 1 or s >> k & 1):
            size = bin(s).count("1")
            weight = math.factorial(size) * math.factorial(players - size - 2) / math.factorial(players - 1)
            total += weight * (values[s | 1 << j | 1 << k] - values[s | 1 << j] - values[s | 1 << k] + values[s])
    return total


# ---------------------------------------------------------------- maps and word scores, from their papers


def relu(values: np.ndarray) -> np.ndarray:
    """Return what is above 0."""
    return np.maximum(values, 0)


def heat(method: str, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the map (h, w) of activations and gradients (C, h, w), with its sign."""
    if method == "saliency":
        return np.abs(g).max(axis=0)
    if method in ("gradient x input", "hires-cam"):
        return (a * g).sum(axis=0)
    if method == "layer-cam":
        return (relu(g) * a).sum(axis=0)
    if method == "grad-cam":
        weights = g.mean(axis=(1, 2))
    elif method == "grad-cam++":
        alpha = g**2 / (2 * g**2 + a.sum(axis=(1, 2), keepdims=True) * g**3 + 1e-6)
        weights = (alpha * relu(g)).sum(axis=(1, 2))
    elif method == "xgrad-cam":
        weights = (g * a).sum(axis=(1, 2)) / (a.sum(axis=(1, 2)) + 1e-7)
    else:
        values = (g * a if method == "eigengrad-cam" else a).reshape(len(a), -1).T
        values = values - values.mean(axis=0)
        _, sizes, directions = np.linalg.svd(values.astype(float), full_matrices=False)
        if len(sizes) > 1 and sizes[1] > 0.9 * sizes[0]:
            return np.full(a.shape[1:], np.nan)  # two directions of nearly one size: either is right
        along = values @ directions[0]
        agreement = (along * values.sum(axis=1)).sum()
        if abs(agreement) < 1e-3 * np.abs(along).max() * np.abs(values).max():
            return np.full(a.shape[1:], np.nan)  # the sign is a matter of rounding
        return (along * np.sign(agreement)).reshape(a.shape[1:])
    return np.einsum("c,chw->hw", weights, a)


def score_of_token(method: str, a: np.ndarray, g: np.ndarray) -> float:
    """Return the score of a token with activation and gradient (D,)."""
    return float({
        "raw": lambda: g.sum(), "mean": lambda: g.mean(), "l1": lambda: np.abs(g).sum(),
        "l2": lambda: np.sqrt((g**2).sum()), "gradient x input": lambda: (a * g).sum(),
        "activation x gradient": lambda: np.sqrt(((a * g) ** 2).sum()),
    }[method]())
