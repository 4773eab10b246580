"""A small random model of each family, with what is right for it found by hand: loops over single examples and plain autograd.

Nothing here uses the package: an example is a dictionary of what one example holds (its picture, its unpadded words), a side
says how a part of it is hidden, and the model is called one example at a time.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

Example = dict[str, Tensor]  # one example, with a batch axis of one


@dataclass(frozen=True)
class Cells:
    """Cells of a picture (1, C, H, W): hidden by zeros."""

    name: str
    key: str
    grid: tuple[int, int] = (2, 2)

    def count(self, one: Example) -> int:
        """Return how many features an example has."""
        return self.grid[0] * self.grid[1]

    def boxes(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Return the pixels of each cell, row by row: a pixel belongs to the cell in which it begins."""
        edges = [
            [-(-i * side // cells) for i in range(cells + 1)]
            for side, cells in ((height, self.grid[0]), (width, self.grid[1]))
        ]
        return [
            (slice(edges[0][i], edges[0][i + 1]), slice(edges[1][j], edges[1][j + 1]))
            for i in range(self.grid[0])
            for j in range(self.grid[1])
        ]

    def hide(self, one: Example, features: Sequence[int], example: Example) -> Example:
        """Return the example without some features."""
        pixels = one[self.key].clone()
        for feature, (rows, columns) in enumerate(self.boxes(*pixels.shape[-2:])):
            if feature in features:
                pixels[..., rows, columns] = 0
        return {**one, self.key: pixels}

    def pooled(self, heat: Tensor) -> list[float]:
        """Sum a map (h, w) over each cell; a place that lies in two cells counts in both, as in an average that adapts."""
        rows, columns = (
            torch.tensor(
                [
                    [
                        max(0.0, min(place + 1, -(-(i + 1) * side // cells)) - max(place, i * side // cells))
                        for place in range(side)
                    ]
                    for i in range(cells)
                ]
            )
            for side, cells in zip(heat.shape, self.grid)
        )
        means = (rows / rows.sum(dim=1, keepdim=True)) @ heat @ (columns / columns.sum(dim=1, keepdim=True)).T
        return (means * heat.numel() / means.numel()).flatten().tolist()

    def summed(self, values: Tensor) -> list[float]:
        """Sum values of the shape of the pixels over each cell."""
        return [float(values[..., rows, columns].detach().sum()) for rows, columns in self.boxes(*values.shape[-2:])]


@dataclass(frozen=True)
class Frames:
    """Cells of a video (1, T, C, H, W) in time and space: hidden by zeros."""

    name: str
    key: str
    grid: tuple[int, int, int] = (2, 1, 2)

    def count(self, one: Example) -> int:
        """Return how many features an example has."""
        return int(np.prod(self.grid))

    def boxes(self, video: Tensor) -> list[tuple[slice, ...]]:
        """Return the part of the video that each cell is."""
        steps = [side // pieces for side, pieces in zip((video.shape[1], *video.shape[3:]), self.grid)]
        return [
            (
                slice(None),
                slice(t * steps[0], (t + 1) * steps[0]),
                slice(None),
                slice(i * steps[1], (i + 1) * steps[1]),
                slice(j * steps[2], (j + 1) * steps[2]),
            )
            for t, i, j in itertools.product(*map(range, self.grid))
        ]

    def hide(self, one: Example, features: Sequence[int], example: Example) -> Example:
        """Return the example without some features."""
        video = one[self.key].clone()
        for feature in features:
            video[self.boxes(video)[feature]] = 0
        return {**one, self.key: video}

    def summed(self, values: Tensor) -> list[float]:
        """Sum values over each cell."""
        return [float(values[box].sum()) for box in self.boxes(values)]


@dataclass(frozen=True)
class Words:
    """Words of a text, ids (1, t) without padding: hidden by the mask's id, by the padding's without attention, or taken out.

    ``stay`` are ids that are no words; ``along`` keys of further inputs (1, t) that go with the words.
    """

    name: str = "text"
    key: str = "input_ids"
    stay: tuple[int, ...] = (2, 3)
    mask_id: int | None = 4
    pad_id: int = 0
    how: str = "mask"  # or "delete" or "pad"
    along: tuple[str, ...] = ()
    attention: str | None = "attention_mask"
    template: int = 0  # tokens in front of the question that stay, beside the special ones
    embedding: str = ""  # layer that gives each word its vector
    axes: str = "NTD"
    skip: int = 0  # positions of that layer in front of the words

    def places(self, one: Example) -> list[int]:
        """Return the positions of the words."""
        numbers = one[self.key][0].tolist()
        return [place for place, number in enumerate(numbers) if number not in self.stay][self.template :]

    def count(self, one: Example) -> int:
        """Return how many features an example has."""
        return len(self.places(one))

    def hide(self, one: Example, features: Sequence[int], example: Example) -> Example:
        """Return the example without some features."""
        gone = [self.places(example)[feature] for feature in features]
        if not gone:
            return one
        if self.how == "delete":
            left = [place for place in range(example[self.key].shape[1]) if place not in gone]
            keys = [key for key in (self.key, self.attention, *self.along) if key in one]
            return {**one, **{key: one[key][:, left] for key in keys}}
        ids = one[self.key].clone()
        ids[:, gone] = self.mask_id if self.how == "mask" else self.pad_id
        changed = {self.key: ids}
        if self.how == "pad" and self.attention:
            attended = one[self.attention].clone()
            attended[:, gone] = 0
            changed[self.attention] = attended
        return {**one, **changed}


@dataclass(frozen=True)
class Rows:
    """Vectors (1, F, D), numbers (1, F), or another input with an entry for each feature: hidden by zeros."""

    name: str
    key: str

    def count(self, one: Example) -> int:
        """Return how many features an example has."""
        return one[self.key].shape[1]

    def hide(self, one: Example, features: Sequence[int], example: Example) -> Example:
        """Return the example without some features."""
        values = one[self.key].clone()
        values[:, list(features)] = 0
        return {**one, self.key: values}

    def summed(self, values: Tensor) -> list[float]:
        """Sum values over each feature."""
        return values.reshape(values.shape[1], -1).sum(dim=1).tolist()


@dataclass(frozen=True)
class Stretches:
    """Stretches of a sound (1, L): hidden by silence."""

    name: str
    key: str
    pieces: int = 4

    def count(self, one: Example) -> int:
        """Return how many features an example has."""
        return self.pieces

    def hide(self, one: Example, features: Sequence[int], example: Example) -> Example:
        """Return the example without some features."""
        parts = list(one[self.key].tensor_split(self.pieces, dim=1))
        return {
            **one,
            self.key: torch.cat([part * 0 if i in features else part for i, part in enumerate(parts)], dim=1),
        }

    def summed(self, values: Tensor) -> list[float]:
        """Sum values over each stretch."""
        return [float(part.sum()) for part in values.tensor_split(self.pieces, dim=1)]


@dataclass
class Animal:
    """One model of the zoo.

    Attributes
    ----------
    family, kind : str
        Its name, and the kind of family.
    model : torch.nn.Module
    batch : dict of str to Tensor
        What a processor gives for all examples.
    examples : list of dict
        The same, one example at a time: pictures (1, C, H, W), words without padding.
    logits : callable
        Takes the model and one example and returns the logits that are judged, (C,).
    sides : list
        How each modality is hidden by hand, in the order of the adapter's.
    choices : dict
        What is passed to ``adapt`` beside the model.
    positive : bool
        Whether the one number that is judged is followed upwards, whatever its sign.
    maps : (layer, axes), optional
        For maps of the picture: a layer, and how it is laid out: "NCHW", "NHWC", or the number of special tokens before the
        patches and the rows and columns of these.
    attention : (name of the modality, layers, special tokens in front), optional
        For relevance: by modality, the modules in order with the entry of the map.
    tolerance : float
    """

    family: str
    kind: str
    model: nn.Module
    batch: dict[str, Tensor]
    examples: list[Example]
    logits: Callable[[nn.Module, Example], Tensor]
    sides: list
    choices: dict = field(default_factory=dict)
    positive: bool = False
    maps: tuple | None = None
    attention: dict[str, tuple] = field(default_factory=dict)
    tolerance: float = 1e-4


def follow(animal: Animal, one: Example) -> int:
    """Return the class that the model predicts for an example; of one logit 1 where it is above 0."""
    with torch.no_grad():
        logits = animal.logits(animal.model, one)
    if len(logits) == 1:
        return 1 if animal.positive else int(logits[0] > 0)
    return int(logits.argmax())


def judged(animal: Animal, one: Example, target: int) -> Tensor:
    """Return the evidence for a class as a number with its graph."""
    logits = animal.logits(animal.model, one)
    return logits[0] * (2 * target - 1) if len(logits) == 1 else logits[target] - logits.mean()


def table(animal: Animal, number: int) -> np.ndarray:
    """Return the evidence with only some features left, of each set of the features of one example, by a plain loop."""
    example = animal.examples[number]
    target, owners = follow(animal, example), [(side, f) for side in animal.sides for f in range(side.count(example))]
    values = np.zeros(2 ** len(owners))
    with torch.no_grad():
        for index in range(len(values)):
            one = example
            for side in animal.sides:
                gone = [f for place, (of, f) in enumerate(owners) if of is side and not index >> place & 1]
                one = side.hide(one, gone, example)
            values[index] = float(judged(animal, one, target))
    return values


def masked(animal: Animal, side: object, number: int) -> list[Example]:
    """Return one example with a whole modality hidden, once with that of each donor where it borrows."""
    example = animal.examples[number]
    donors = [{**example, "other": other["other"]} for other in animal.examples] if "other" in example else [example]
    return [
        side.hide(donor, range(side.count(example)), donor)
        for donor in (donors if hasattr(side, "baseline") else [example])
    ]


def shapley(values: np.ndarray) -> np.ndarray:
    """Return the Shapley values of a table of 2**P values, by the definition."""
    players = int(np.log2(len(values)))
    found = np.zeros(players)
    for player in range(players):
        for index in range(len(values)):
            if not index >> player & 1:
                size = bin(index).count("1")
                weight = 1 / (players * np.prod([(players - 1 - i) / (i + 1) for i in range(size)] or [1]))
                found[player] += weight * (values[index | 1 << player] - values[index])
    return found


def gradients(animal: Animal, number: int, power: str, of_logit: bool = False) -> list[list[float]]:
    """Return for each modality and feature the length of the gradient (``"norm"``), gradient times value (``"times"``), or the
    sum of the sizes that the latter adds up (``"sizes"``), of which a share is lost by rounding.

    The gradient is that of the evidence, or of the logit itself, as the rounds take it.
    """
    example, found = animal.examples[number], []
    animal, target = (alone(animal, number), 1) if of_logit else (animal, follow(animal, example))
    for side in animal.sides:
        if isinstance(side, Words):
            value, slope = at_layer(animal, example, target, side.embedding)
            if side.axes == "TND":
                value, slope = value.transpose(0, 1), slope.transpose(0, 1)
            value, slope = (part[0, side.skip :][side.places(example)] for part in (value, slope))
            product = slope * value
            found.append(
                (
                    slope.norm(dim=1)
                    if power == "norm"
                    else (product if power == "times" else product.abs()).sum(dim=1)
                ).tolist()
            )
            continue
        value = example[side.key].detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(judged(animal, {**example, side.key: value}, target), value)
        product = (slope * value).detach()
        parts = side.summed(slope**2 if power == "norm" else product if power == "times" else product.abs())
        found.append([part**0.5 for part in parts] if power == "norm" else parts)
    return found


def at_layer(animal: Animal, example: Example, target: int, layer: str) -> tuple[Tensor, Tensor]:
    """Return what a layer gives for one example, and the gradient of the evidence there."""
    kept, (path, _, call) = [], layer.partition("@")

    def keep(module: nn.Module, arguments: tuple, output: object) -> object:
        tensor = output if isinstance(output, Tensor) else output[0]
        kept.append(tensor if tensor.requires_grad else tensor.detach().requires_grad_())
        handed = kept[-1].clone()  # some models write into it
        if isinstance(output, Tensor):
            return handed
        return (
            (handed, *output[1:]) if type(output) is tuple else type(output)(**{**output, next(iter(output)): handed})
        )

    handle = animal.model.get_submodule(path).register_forward_hook(keep)
    try:
        score = judged(animal, example, target)
    finally:
        handle.remove()
    value = kept[int(call or 0)]
    (slope,) = torch.autograd.grad(score, value)
    return value.detach(), slope


def grad_cam(animal: Animal, number: int) -> Tensor:
    """Return the Grad-CAM of one example, (h, w), of the logit of the predicted class, from its layer's channels and places."""
    example, (layer, axes) = animal.examples[number], animal.maps
    target = follow(animal, example)
    target = target if len(animal.logits(animal.model, example)) == 1 else 1
    value, slope = at_layer(alone(animal, number), example, target, layer)
    if axes == "NHWC":
        value, slope = value.permute(0, 3, 1, 2), slope.permute(0, 3, 1, 2)
    elif axes != "NCHW":
        special, rows, columns = axes
        value, slope = (part[:, special:].transpose(1, 2).reshape(1, -1, rows, columns) for part in (value, slope))
    return (value * slope.mean(dim=(2, 3), keepdim=True)).sum(dim=1)[0].clamp(min=0).detach()


def relevance(animal: Animal, number: int, name: str) -> Tensor:
    """Return the relevance of Chefer et al. of every token of one example, from its attention maps and their gradients."""
    example, (layers, entry) = animal.examples[number], animal.attention[name][:2]
    target, kept = follow(animal, example), []
    animal.model.requires_grad_(True)  # so that there is a graph from before the first map
    animal, target = (alone(animal, number), 1) if len(animal.logits(animal.model, example)) > 1 else (animal, target)
    handles = [
        animal.model.get_submodule(layer).register_forward_hook(lambda m, a, output: kept.append(output[entry]))
        for layer in dict.fromkeys(layers)
    ]
    try:
        score = judged(animal, example, target)
    finally:
        animal.model.requires_grad_(False)
        for handle in handles:
            handle.remove()
    slopes = torch.autograd.grad(score, kept)
    rolled = torch.eye(kept[0].shape[-1])
    for attention, slope in zip(kept, slopes):
        rolled = rolled + (attention * slope).clamp(min=0).mean(dim=1)[0].detach() @ rolled
    is_read = (slopes[-1] != 0).any(dim=3).any(dim=1)[0]
    return rolled[is_read].mean(dim=0)


def relevance_of(animal: Animal, number: int, side: object) -> list[float]:
    """Return the relevance of each feature: of each word, or of the patches of each cell together."""
    tokens = relevance(animal, number, side.name)
    if isinstance(side, Words):
        return tokens[side.places(animal.examples[number])].tolist()
    patches = tokens[animal.attention[side.name][2] :]
    rows = int(len(patches) ** 0.5)
    return side.summed(patches.reshape(1, 1, rows, -1))


def alone(animal: Animal, number: int) -> Animal:
    """Return the animal with the logit of the class that is predicted for an example as its only one."""
    target = follow(animal, animal.examples[number])

    def logits(model: nn.Module, one: Example) -> Tensor:
        every = animal.logits(model, one)
        return every[None, target] if len(every) > 1 else every

    return Animal(**{**vars(animal), "logits": logits})


def of_logit(animal: Animal, number: int, side: Words) -> list[float]:
    """Return gradient times value at each word, of the logit of the predicted class; of a single no, of its opposite."""
    one_logit = len(animal.logits(animal.model, animal.examples[number])) == 1
    target = follow(animal, animal.examples[number]) if one_logit else 1
    value, slope = at_layer(alone(animal, number), animal.examples[number], target, side.embedding)
    if side.axes == "TND":
        value, slope = value.transpose(0, 1), slope.transpose(0, 1)
    return (value * slope).sum(dim=2)[0, side.skip :][side.places(animal.examples[number])].tolist()


def padded(rows: Sequence[Sequence[int]], pad: int = 0, side: str = "right") -> tuple[Tensor, Tensor]:
    """Return ids (N, T) and attention mask of texts of several lengths."""
    longest = max(map(len, rows))
    fill = [[pad] * (longest - len(row)) for row in rows]
    ids = torch.tensor([list(row) + more if side == "right" else more + list(row) for row, more in zip(rows, fill)])
    ones = [[1] * len(row) for row in rows]
    mask = torch.tensor(
        [row + [0] * len(more) if side == "right" else [0] * len(more) + row for row, more in zip(ones, fill)]
    )
    return ids, mask


def examples_of(
    batch: Mapping[str, Tensor],
    rows: Sequence[Sequence[int]] | None,
    key: str = "input_ids",
    attention: str | None = "attention_mask",
    **along: Sequence[Sequence[int]],
) -> list[Example]:
    """Return the examples of a batch one at a time, with their texts unpadded."""
    n = len(next(iter(batch.values())))
    listed = []
    for i in range(n):
        one = {name: value[i : i + 1] for name, value in batch.items()}
        if rows is not None:
            one[key] = torch.tensor([rows[i]])
            if attention is not None:
                one[attention] = torch.ones_like(one[key])
            one |= {name: torch.tensor([values[i]]) for name, values in along.items()}
        listed.append(one)
    return listed
