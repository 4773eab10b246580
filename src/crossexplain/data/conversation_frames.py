"""The frames of generated conversations: a handwritten digit that moves and turns, and clutter."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from crossexplain.data.conversation_seeds import below, uniform
from crossexplain.data.digits import Digits, load, split

SIDE, K = 20, 3  # pixels of a frame; most frames a turn
TILE, POSES = 14, 6  # pixels of a digit with its margin; sizes and angles in which each digit is kept
_CLUTTERED = 1500  # frames of clutter that are kept


@dataclass(frozen=True)
class Frames:
    """What frames are made of.

    Attributes
    ----------
    tiles : ndarray, shape (M, POSES, TILE, TILE), float32
        Handwritten digits in several sizes and at several angles.
    members : tuple of ndarray
        Index into ``tiles`` of all digits of each class.
    clutter : ndarray, shape (R, SIDE, SIDE), float32
    """

    tiles: np.ndarray
    members: tuple[np.ndarray, ...]
    clutter: np.ndarray

    @classmethod
    def of(cls, part: str) -> "Frames":
        """Make them of the handwritten digits of one part, which no other part holds."""
        digits = _digits()
        indices = split(digits)[part]
        images, labels = torch.from_numpy(digits.images[indices])[:, None], digits.labels[indices]
        generator = torch.Generator().manual_seed(len(part))
        many = images.repeat_interleave(POSES, 0)
        tiles = _turned(many, TILE, (0.74, 0.94), 0.4, generator).reshape(-1, POSES, TILE, TILE)
        members = tuple(np.flatnonzero(labels == digit) for digit in range(10))
        return cls(tiles.numpy(), members, _clutter(images, _CLUTTERED, generator).numpy())

    def draw(self, digits: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Draw the frames of turns.

        Parameters
        ----------
        digits : ndarray of int, shape (R,)
            Shown in each turn, -1 for none.
        seeds : ndarray of int, shape (R,)

        Returns
        -------
        ndarray, shape (R, K, SIDE, SIDE), float32
            Ink from 0 to 1.
        """
        place = np.arange(K)[None]
        canvas: np.ndarray = self.clutter[below(seeds[:, None] + place, 1, len(self.clutter))]  # (R, K, SIDE, SIDE)
        rows, at = np.nonzero(frames_with_digit(digits, seeds))
        turn, digit = seeds[rows], digits[rows]
        sizes = np.array([len(group) for group in self.members])
        starts = np.concatenate([[0], sizes.cumsum()[:-1]])
        tile = np.concatenate(self.members)[starts[digit] + below(turn, 2, sizes[digit])]
        free = SIDE - TILE
        corner = [np.clip(below(turn, 3 + axis, free + 1) + at * (below(turn, 5 + axis, 7) - 3), 0, free)[:, None, None]
                  for axis in range(2)]
        window = np.arange(TILE)
        pose = below(turn + at, 7, POSES)
        canvas[rows[:, None, None], at[:, None, None], corner[0] + window[:, None], corner[1] + window] = self.tiles[tile, pose]
        return canvas


@cache
def _digits() -> Digits:
    return load("sklearn")


def frame_counts(seeds: np.ndarray) -> np.ndarray:
    """Return how many frames each turn has: K, fewer in a quarter of them, one in a twelfth."""
    counts: np.ndarray = K - (uniform(seeds, 10)[..., None] < (1 / 4, 1 / 12)).sum(axis=-1)
    return counts


def frames_with_digit(digits: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return which frames show the digit of a turn, (..., K), bool: one of them, or two in a row."""
    count = frame_counts(seeds)
    many = np.minimum(1 + below(seeds, 11, 2), count)
    start = below(seeds, 12, count - many + 1)
    at = np.arange(K) - start[..., None]
    shown: np.ndarray = (at >= 0) & (at < many[..., None]) & (digits[..., None] >= 0)
    return shown


def _turned(images: torch.Tensor, side: int, size: tuple[float, float], angle: float,
            generator: torch.Generator) -> torch.Tensor:
    """Return images (R, 1, h, w) turned by up to ``angle`` and made smaller, centred in (R, side, side)."""
    n = len(images)
    scale = 1 / (size[0] + (size[1] - size[0]) * torch.rand(n, generator=generator))
    turn = angle * (2 * torch.rand(n, generator=generator) - 1)
    cos, sin, zero = torch.cos(turn) * scale, torch.sin(turn) * scale, torch.zeros(n)
    grid = F.affine_grid(torch.stack([cos, sin, zero, -sin, cos, zero], 1).reshape(n, 2, 3), [n, 1, 2 * side, 2 * side],
                         align_corners=False)
    return F.avg_pool2d(F.grid_sample(images, grid, align_corners=False), 2)[:, 0]


def _clutter(images: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """Return frames (n, SIDE, SIDE) of quarters of digits and of short strokes, none of them as tall as a digit."""
    layers = []
    for _ in range(3):
        which = torch.randint(len(images), (n,), generator=generator)
        row, column = torch.randint(3, 12, (2, n), generator=generator)
        window = torch.arange(14)
        quarter = images[which[:, None, None], 0, row[:, None, None] + window[:, None], column[:, None, None] + window]
        layers.append(_set(_turned(quarter[:, None], 8, (0.8, 1.0), 3.1, generator), generator))
    axis = torch.arange(8) - 3.5
    angle = 3.1416 * torch.rand(n, generator=generator)[:, None, None]
    along = axis * torch.cos(angle) + axis[:, None] * torch.sin(angle)
    across = axis[:, None] * torch.cos(angle) - axis * torch.sin(angle)
    stroke = (1.6 - torch.hypot((along.abs() - 2.5).clamp(min=0), across)).clamp(0, 1)
    return torch.stack([*layers, _set(stroke, generator)]).amax(dim=0)


def _set(tiles: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return tiles (n, h, h) set anywhere on empty frames, (n, SIDE, SIDE)."""
    n, side = len(tiles), tiles.shape[-1]
    row, column = torch.randint(0, SIDE - side + 1, (2, n, 1, 1), generator=generator)
    canvas, window = torch.zeros(n, SIDE, SIDE), torch.arange(side)
    canvas[torch.arange(n)[:, None, None], row + window[:, None], column + window] = tiles
    return canvas
