"""Handwritten digits in clutter: one whole digit an image, whose class and place are known.

Here it is known to the pixel what a network should look at, which no photograph can offer. Around the digit lie
fragments of other digits, short strokes and blobs, so that edges and brightness alone do not give the place away.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossexplain.checks import InputError, require_one_of
from crossexplain.data.digits import Digits, split
from crossexplain.data.examples import SPLITS, Examples

DIGIT = (22.0, 34.0)  # side of the digit's patch in pixels, smallest and largest
FRAGMENTS, STROKES, BLOBS = 3, 3, 2  # distractors of each image
INK = 0.3  # grey value from which a pixel belongs to the digit


@dataclass(frozen=True)
class Clutter(Examples):
    """Images of one digit each among distractors.

    Attributes
    ----------
    images : Tensor, shape (N, 1, S, S)
        Grey, float32, from 0 (paper) to 1 (ink).
    labels : Tensor, shape (N,), int64
        The digit, 0 to 9.
    boxes : Tensor, shape (N, 4), int64
        The digit's place: top, left, bottom, right in pixels, the last two exclusive.
    sources : Tensor, shape (N,), int64
        Which handwritten digit of the bank it is.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor
    sources: Tensor


def build(digits: Digits, n: int, part: str, seed: int, size: int = 64) -> Clutter:
    """Draw images of digits in clutter from a seed.

    Whole digits and fragments come from one part of the bank, so that no stroke of a test image was ever trained on.
    The parts are the same for every seed: a checkpoint trained with one seed can be tested with another.

    Parameters
    ----------
    digits : Digits
        The bank of handwritten digits, as from :func:`crossexplain.data.digits.load`.
    n : int
        Number of images.
    part : {"train", "validation", "test"}
        Which handwritten digits to draw from.
    seed : int
        Same seed, same images.
    size : int
        Side of the square image in pixels, at least 48.

    Returns
    -------
    Clutter

    Raises
    ------
    InputError
        For an unknown part, a number of images below 1 or a size below 48.

    Examples
    --------
    >>> from crossexplain.data import digits
    >>> clutter = build(digits.load("sklearn"), 4, "test", seed=0)
    >>> clutter.images.shape, clutter.boxes.shape
    (torch.Size([4, 1, 64, 64]), torch.Size([4, 4]))
    """
    require_one_of(part, SPLITS, "the part")
    if n < 1 or size < 48:
        raise InputError(f"got n = {n} and size = {size}, expected n >= 1 and size >= 48 (a digit takes up to 34).")
    indices = torch.as_tensor(split(digits, seed=0)[part])
    bank = torch.as_tensor(digits.images)
    generator = torch.Generator().manual_seed(len(SPLITS) * seed + SPLITS.index(part))
    chunks = [_draw(bank, indices, min(512, n - start), size, generator) for start in range(0, n, 512)]
    images, boxes, sources = (torch.cat(values) for values in zip(*chunks))
    return Clutter(images, torch.as_tensor(digits.labels)[sources], boxes, sources)


def _draw(bank: Tensor, indices: Tensor, n: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return images (n, 1, size, size), boxes (n, 4) and the digits' indices (n,)."""
    sources = indices[torch.randint(len(indices), (n,), generator=generator)]
    side = _uniform((n,), *DIGIT, generator)
    centre = side[:, None] / 2 + torch.rand((n, 2), generator=generator) * (size - side[:, None])
    digit = _place(bank[sources], centre, side, _uniform((n,), -0.25, 0.25, generator), size)
    boxes = _ink_boxes(digit)
    others = indices[torch.randint(len(indices), (n, FRAGMENTS), generator=generator)]
    layers = [
        digit * _uniform((n, 1, 1), 0.75, 1.0, generator),
        _fragments(bank, others, boxes, size, generator),
        _strokes(boxes, size, generator),
        _blobs(boxes, size, generator),
    ]
    noise = 0.03 * torch.randn((n, size, size), generator=generator)
    images = torch.stack(layers).amax(dim=0).add(noise).clamp(0, 1)
    return images[:, None], boxes, sources


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _place(patches: Tensor, centre: Tensor, side: Tensor, angle: Tensor, size: int) -> Tensor:
    """Scale, turn and set patches (n, h, w) on empty canvases (n, size, size), centres (n, 2) as row, column."""
    cos, sin = torch.cos(angle) / side, torch.sin(angle) / side
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)  # (n, 2, 2), column first
    shift = turn @ (size - 2 * centre.flip(-1))[..., None]
    grid = F.affine_grid(torch.cat([turn * size, shift], -1), [len(patches), 1, size, size], align_corners=False)
    return F.grid_sample(patches[:, None], grid, align_corners=False)[:, 0]


def _ink_boxes(digit: Tensor) -> Tensor:
    """Return the smallest boxes (n, 4) round the ink of digits (n, S, S)."""
    edges = []
    for axis in (2, 1):  # rows that hold ink, then columns
        ink = (digit > INK).any(dim=axis).int()
        edges.append((ink.argmax(dim=1), ink.shape[1] - ink.flip(1).argmax(dim=1)))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1)


def _beside(boxes: Tensor, many: int, size: int, generator: torch.Generator, margin: float = 5.0) -> Tensor:
    """Return ``many`` points an image (n, many, 2) that keep a margin to the digit: the first good of 24 draws."""
    points = _uniform((len(boxes), many, 24, 2), 2.0, size - 2.0, generator)
    low, high = boxes[:, None, None, :2] - margin, boxes[:, None, None, 2:] + margin
    good = ((points < low) | (points > high)).any(dim=-1)
    first = good.int().argmax(dim=-1)[..., None, None].expand(-1, -1, 1, 2)
    return points.gather(2, first)[:, :, 0]


def _fragments(bank: Tensor, others: Tensor, boxes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return quarters of other digits, of the same stroke width as the digit, (n, size, size)."""
    n, many = others.shape
    corner = torch.randint(4, 11, (n * many, 2), generator=generator)
    window = torch.arange(14)
    rows, columns = corner[:, 0, None, None] + window[:, None], corner[:, 1, None, None] + window
    pieces = bank[others.reshape(-1, 1, 1), rows, columns]  # (n * many, 14, 14)
    centre = _beside(boxes, many, size, generator).reshape(-1, 2)
    side = _uniform((n * many,), *DIGIT, generator) / 2
    placed = _place(pieces, centre, side, _uniform((n * many,), -3.1, 3.1, generator), size)
    return (placed.reshape(n, many, size, size) * _uniform((n, many, 1, 1), 0.75, 1.0, generator)).amax(dim=1)


def _strokes(boxes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return short straight strokes, shorter than any handwritten 1, (n, size, size)."""
    shape = (len(boxes), STROKES, 1, 1)
    rows, columns = _offsets(_beside(boxes, STROKES, size, generator), size)
    angle, half = _uniform(shape, 0, 3.1416, generator), _uniform(shape, 2.5, 5.0, generator)
    along = rows * torch.sin(angle) + columns * torch.cos(angle)  # (n, k, size, size)
    across = columns * torch.sin(angle) - rows * torch.cos(angle)
    distance = torch.hypot((along.abs() - half).clamp(min=0), across)
    width, ink = _uniform(shape, 1.0, 2.0, generator), _uniform(shape, 0.6, 1.0, generator)
    return (ink * (1 + width - distance).clamp(0, 1)).amax(dim=1)


def _blobs(boxes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return soft round blobs, (n, size, size)."""
    shape = (len(boxes), BLOBS, 1, 1)
    width, ink = (_uniform(shape, *ends, generator) for ends in ((1.5, 3.0), (0.6, 1.0)))
    rows, columns = (torch.exp(-0.5 * (o / width) ** 2) for o in _offsets(_beside(boxes, BLOBS, size, generator), size))
    return (ink * rows * columns).amax(dim=1)


def _offsets(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return how far each row (n, k, size, 1) and each column (n, k, 1, size) lies from points (n, k, 2)."""
    pixels = torch.arange(size) + 0.5
    return pixels[:, None] - points[..., 0, None, None], pixels - points[..., 1, None, None]
