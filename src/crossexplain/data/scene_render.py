"""Pictures of scenes: shaded objects on a ground in front of a backdrop. :mod:`crossexplain.data.scenes` says what is in them.

Each shape is a solid, seen once from eight sides by ray marching: outline, surface direction and surface coordinates of
these views are kept as sprites. A picture then takes sprites, lays a pattern on their surface, lights them from the
scene's own direction and sets them on a ground in perspective, back to front, with shadow and noise. That is what makes it
fast enough to draw every picture anew from its seed.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy import ndimage

from crossexplain.data.scene_words import BACKDROPS, COLOUR_NAMES, KINDS, Facts
from crossexplain.data.vocabulary import read_table

POSES = 8
FINE = 96  # pixels of a sprite's side when marched; kept at a half for large objects and at a third for small ones
PITCH = np.radians(21)  # how far the camera looks down
FORWARD, UP = np.array([0, np.cos(PITCH), -np.sin(PITCH)]), np.array([0, np.sin(PITCH), np.cos(PITCH)])  # of the camera
TILE = 256  # pixels of a ground tile
_Point = tuple[float, float, float]
_Solid = Callable[[np.ndarray], np.ndarray]  # points (3, ...) to their distances (...)
CREAM, ROOF = (0.93, 0.88, 0.76), (0.33, 0.25, 0.22)

_TABLES = read_table("scenes")
PAINT, SECOND = (np.array([_TABLES[name][c] for c in COLOUR_NAMES], dtype=np.float32) for name in ("paint", "second"))
LIGHT = np.array([_TABLES["light"][name] for name in BACKDROPS], dtype=np.float32)  # (8, 4): colour and strength


# Solids, as distances of points p (3, ...) from their surface; z is up, 0 the ground, y leads away from the camera.


def _norm(*parts: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(sum(part * part for part in parts)))


def _rounded(*distances: np.ndarray, edge: float) -> np.ndarray:
    """Return the distance from what all the solids share, with soft edges where their surfaces meet."""
    return np.asarray(_norm(*[np.maximum(d, 0) for d in distances]) + np.minimum(np.maximum.reduce(distances), 0) - edge)


def _slab(p: np.ndarray, half: _Point, at: _Point = (0.0, 0.0, 0.0), edge: float = 0.05) -> np.ndarray:
    return _rounded(*[np.abs(p[i] - at[i]) - (half[i] - edge) for i in range(3)], edge=edge)


def _turned(p: np.ndarray, low: float, high: float, radius_low: float, radius_high: float | None = None,
            edge: float = 0.03) -> np.ndarray:
    """Return the distance from a piece of a cone or cylinder that stands upright."""
    radius_high = radius_low if radius_high is None else radius_high
    slope = (radius_high - radius_low) / (high - low)
    side = (_norm(p[0], p[1]) - (radius_low + slope * (p[2] - low))) / np.hypot(1, slope) + edge
    ends = np.abs(p[2] - (low + high) / 2) - (high - low) / 2 + edge
    return _rounded(side, ends, edge=edge)


def _ellipsoid(p: np.ndarray, radii: _Point, at: _Point) -> np.ndarray:
    q = [(p[i] - at[i]) / radii[i] for i in range(3)]
    k = _norm(*q)
    return np.asarray(k * (k - 1) / np.maximum(_norm(*[q[i] / radii[i] for i in range(3)]), 1e-6))


def _cut(distance: np.ndarray, p: np.ndarray, half: float, edge: float = 0.06) -> np.ndarray:
    """Return the distance from a flat outline (distance in the x-z plane), made thick along y with soft edges."""
    return _rounded(distance + edge, np.abs(p[1]) - half + edge, edge=edge)


def _star(p: np.ndarray) -> np.ndarray:
    x, z = np.abs(p[0]), p[2] - 0.95
    angle = np.arctan2(x, z)
    turn = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # from the nearest point of the star
    radius = _norm(x, z)
    a, b = radius * np.cos(turn), radius * np.sin(turn)
    # The edge runs from the point at radius 1 to the notch at radius 0.45.
    along, across = 0.45 * np.cos(np.pi / 5) - 1, 0.45 * np.sin(np.pi / 5)
    return _cut((across * (a - 1) - along * b) / np.hypot(along, across), p, 0.24)


def _heart(p: np.ndarray) -> np.ndarray:
    x, z = np.abs(p[0]), p[2] - 0.06
    lobe = _norm(x - 0.42, z - 1.08) - 0.50
    # Two straight sides meet at the tip and touch the lobes; a block fills what is between the three.
    lean = np.radians(46.8)
    tip = np.maximum(np.maximum(x * np.cos(lean) - z * np.sin(lean), z - 0.716), -z)
    block = np.maximum(x - 0.42, np.abs(z - 0.86) - 0.22)
    return _cut(np.minimum(np.minimum(lobe, tip), block), p, 0.26)


def _mug(p: np.ndarray) -> np.ndarray:
    outer = np.maximum(_turned(p, 0, 1.15, 0.56), -_turned(p, 0.16, 2.0, 0.46))
    handle = _norm(_norm(p[0] - 0.62, p[2] - 0.58) - 0.32, p[1]) - 0.10
    return np.asarray(np.minimum(outer, np.maximum(handle, 0.5 - _norm(p[0], p[1]))))


def _bottle(p: np.ndarray) -> np.ndarray:
    body, neck = _turned(p, 0, 0.98, 0.43, edge=0.08), _turned(p, 0.9, 1.62, 0.17)
    shoulder = _turned(p, 0.92, 1.28, 0.40, 0.17)
    return np.asarray(np.minimum(np.minimum(body, neck), np.minimum(shoulder, _turned(p, 1.5, 1.66, 0.21))))


def _house(p: np.ndarray) -> np.ndarray:
    walls = _slab(p, (0.66, 0.60, 0.52), (0, 0, 0.52), 0.02)
    lean = np.radians(40)
    roof = np.maximum(np.abs(p[1]) * np.sin(lean) + (p[2] - 1.55) * np.cos(lean), np.abs(p[0]) - 0.74)
    return np.asarray(np.minimum(walls, np.maximum(roof, 0.98 - p[2])))


def _table(p: np.ndarray) -> np.ndarray:
    legs = _slab(np.stack([np.abs(p[0]), np.abs(p[1]), p[2]]), (0.09, 0.09, 0.46), (0.55, 0.40, 0.46), 0.02)
    return np.asarray(np.minimum(_slab(p, (0.78, 0.60, 0.11), (0, 0, 0.98), 0.03), legs))


def _mushroom(p: np.ndarray) -> np.ndarray:
    cap = np.maximum(_ellipsoid(p, (0.80, 0.80, 0.72), (0, 0, 0.72)), 0.70 - p[2])
    return np.asarray(np.minimum(cap, _turned(p, 0, 0.8, 0.30, 0.22, edge=0.06)))


def _ring(p: np.ndarray) -> np.ndarray:
    return _norm(_norm(p[0], p[2] - 0.9) - 0.64, p[1]) - 0.25


# In the order of the kinds: solid, widest turn to either side in degrees, how its surface is unrolled, painted heights.
ALL = (-np.inf, np.inf)
SOLIDS: tuple[tuple[_Solid, float, str, tuple[float, float]], ...] = (
    (lambda p: _norm(p[0], p[1], p[2] - 0.9) - 0.9, 180, "bulge", ALL),  # ball
    (lambda p: _slab(p, (0.65, 0.65, 0.65), (0, 0, 0.65)), 180, "faces", ALL),  # box
    (lambda p: _turned(p, 0, 1.55, 0.78, 0.03), 180, "round", ALL),  # cone
    (lambda p: _turned(p, 0, 1.25, 0.56), 180, "round", ALL),  # drum
    (_ring, 50, "faces", ALL),
    (_star, 38, "faces", ALL),
    (_heart, 38, "faces", ALL),
    (_bottle, 180, "round", ALL),
    (_mug, 55, "round", ALL),
    (_mushroom, 180, "bulge", (0.69, np.inf)),  # the cap
    (_house, 65, "faces", (-np.inf, 0.975)),  # the walls
    (_table, 35, "faces", ALL),
)
HOUSE = KINDS.index("house")


def _march(solid: _Solid, yaw: float, window: _Point, fine: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return which pixels hit a solid, (fine, fine), points and directions of its surface there, (3, n), and its axes."""
    left, bottom, span = window
    steps = (np.arange(fine) + 0.5) / fine * span
    u, v = np.meshgrid(left + steps, (bottom + steps)[::-1])
    start = np.stack([u.ravel(), v.ravel() * UP[1], v.ravel() * UP[2]]) - 4 * FORWARD[:, None]
    cos, sin = np.cos(yaw), np.sin(yaw)
    into = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])  # from the room to the solid's own axes
    start, forward = (into @ start).astype(np.float32), (into @ FORWARD).astype(np.float32)
    far = np.zeros(start.shape[1], dtype=np.float32)
    alive, hit = np.arange(len(far)), np.zeros(len(far), dtype=bool)
    for _ in range(60):
        d = solid(start[:, alive] + far[alive] * forward[:, None]).astype(np.float32)
        far[alive] += 0.85 * d
        hit[alive[d < 0.008]] = True
        alive = alive[(d >= 0.008) & (far[alive] < 8)]
        if not len(alive):
            break
    points = start[:, hit] + far[hit] * forward[:, None]
    slope = np.stack([solid(points + e[:, None]) - solid(points - e[:, None]) for e in 0.01 * np.eye(3)])
    slope /= np.maximum(_norm(*slope), 1e-6)
    return hit.reshape(fine, fine), points, slope, into


def _unroll(how: str, points: np.ndarray, slope: np.ndarray, seen: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Return surface coordinates (2, n) in units of length, for patterns."""
    if how == "bulge":  # as a map of the half globe that faces the camera
        flat = _norm(seen[0], seen[1])
        return np.asarray(0.85 * seen[:2] * np.arcsin(np.clip(flat, 0, 1)) / np.maximum(flat, 1e-6))
    axis = np.abs(slope).argmax(axis=0)
    if how == "round":  # once round the axis, with the seam at the back
        room = into.T @ points
        around = np.arctan2(room[0], -room[1]) * 0.5
        return np.where(np.abs(slope[2]) > 0.9, room[:2], np.stack([around, room[2]]))
    first = np.where(axis == 0, points[1], points[0])
    return np.stack([first, np.where(axis == 2, points[1], points[2])])


def _edges(hit: np.ndarray) -> np.ndarray:
    """Return the box round the pixels that are hit: top, left, bottom, right, the last two exclusive."""
    rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def _view(solid: _Solid, limit: float, how: str, painted: tuple[float, float], pose: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a sprite and the box of what is seen, in shares of its side.

    The sprite, (7, FINE, FINE), holds coverage, direction of the surface (3), surface coordinates (2), painted or not.
    """
    yaw = np.radians(limit) * (2 * (pose + 0.5) / POSES - 1)
    hit, *_ = _march(solid, yaw, (-1.3, -0.6, 2.6), 40)
    top, left, bottom, right = _edges(hit)
    cell = 2.6 / 40
    span = (max(bottom - top, right - left) + 2) * cell
    middle, height = -1.3 + (left + right) / 2 * cell, 2.0 - (top + bottom) / 2 * cell
    hit, points, slope, into = _march(solid, yaw, (middle - span / 2, height - span / 2, span), FINE)
    room = into.T @ slope
    seen = np.stack([room[0], np.tensordot(UP, room, 1), -np.tensordot(FORWARD, room, 1)])  # right, up, to the camera
    paint = (points[2] > painted[0]) & (points[2] < painted[1])
    sprite = np.zeros((7, FINE, FINE), dtype=np.float32)
    sprite[0] = hit
    sprite[1:, hit] = np.concatenate([seen, _unroll(how, points, slope, seen, into), paint[None]])
    # Beyond the outline the nearest surface goes on, so that shrinking mixes no emptiness into the edges.
    nearest = ndimage.distance_transform_edt(~hit, return_distances=False, return_indices=True)
    sprite[1:] = sprite[1:, nearest[0], nearest[1]]
    return sprite, _edges(hit) / FINE


@cache
def sprites() -> tuple[dict[int, torch.Tensor], np.ndarray]:
    """Return all sprites and their boxes.

    Returns
    -------
    by_size : dict of int to Tensor, shape (kinds * POSES, 7, side, side)
        0: for small objects, 1: for large ones.
    boxes : ndarray, shape (kinds * POSES, 4), float
        Top, left, bottom, right of what is seen, in shares of the sprite's side.
    """
    views, boxes = zip(*(_view(*solid, pose) for solid in SOLIDS for pose in range(POSES)))
    fine = torch.from_numpy(np.stack(views))
    return {0: F.avg_pool2d(fine, 3), 1: F.avg_pool2d(fine, 2)}, np.stack(boxes)


def frame(sprite: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return width and height of the seen part and the side of the whole sprite, where the former cover size squared."""
    top, left, bottom, right = sprites()[1][sprite].T
    unit = size / np.sqrt((bottom - top) * (right - left))
    return (right - left) * unit, (bottom - top) * unit, unit


# Grounds and backdrops, as tiles that repeat.


def _cloud(rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, ...]) -> np.ndarray:
    """Return smooth noise between about -2 and 2 that repeats at its edges."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _mix(low: ArrayLike, high: ArrayLike, share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)[..., None].astype(np.float32)
    return np.asarray(np.asarray(low, np.float32) * (1 - share) + np.asarray(high, np.float32) * share)


def _grounds(rng: np.random.Generator) -> np.ndarray:
    """Return tiles (6, TILE, TILE, 3) of grass, sand, snow, planks, tiles and road."""
    y, x = np.mgrid[:TILE, :TILE]
    n = (TILE, TILE)
    blades = 0.6 * _cloud(rng, n, (2.2, 0.7)) + 0.5 * _cloud(rng, n, 14)
    grass = _mix((0.16, 0.34, 0.09), (0.52, 0.68, 0.26), 0.5 + 0.24 * blades)
    ripple = np.sin(2 * np.pi * (y / 16 + 0.35 * _cloud(rng, n, 18)))
    sand = _mix((0.72, 0.60, 0.42), (0.93, 0.83, 0.64), 0.5 + 0.16 * ripple + 0.12 * _cloud(rng, n, 0.8))
    snow = _mix((0.76, 0.82, 0.91), (0.97, 0.98, 1.0), 0.6 + 0.22 * _cloud(rng, n, 11) + 0.06 * _cloud(rng, n, 0.8))
    board = x // 32
    tone = rng.uniform(-0.25, 0.25, 8)[board] + 0.16 * _cloud(rng, n, (22, 1.2)) + 0.08 * _cloud(rng, n, (6, 0.7))
    seam = (x % 32 < 2) | ((y + 97 * board) % TILE < 2)
    planks = _mix((0.48, 0.31, 0.17), (0.80, 0.60, 0.38), np.where(seam, -0.3, 0.5 + tone))
    square = (x // 32 + y // 32) % 2
    joint = (x % 32 < 2) | (y % 32 < 2)
    tiles = _mix((0.45, 0.53, 0.57), (0.86, 0.87, 0.84), np.where(joint, 0.3, square + 0.07 * _cloud(rng, n, 3)))
    road = _mix((0.22, 0.22, 0.24), (0.46, 0.46, 0.48), 0.45 + 0.16 * _cloud(rng, n, 0.8) + 0.14 * _cloud(rng, n, 12))
    return np.stack([grass, sand, snow, planks, tiles, road]).astype(np.float32)


def _backdrops(rng: np.random.Generator) -> np.ndarray:
    """Return tiles (8, 128, 512, 3) of all backdrops, in their order; they repeat sideways."""
    y, x = np.mgrid[:128, :512]
    n, down = (128, 512), y / 127

    def clouds(sigma: tuple[float, float]) -> np.ndarray:
        return 0.8 * _cloud(rng, n, sigma) + 0.45 * _cloud(rng, n, tuple(s / 3 for s in sigma))

    blue = _mix((0.30, 0.55, 0.90), (0.68, 0.84, 0.97), down)
    blue += (np.clip(0.6 * clouds((9, 26)) - 0.45, 0, 0.75))[..., None] * (np.float32(0.99) - blue)
    cloudy = _mix((0.50, 0.53, 0.57), (0.83, 0.84, 0.85), 0.45 + 0.28 * clouds((8, 24)) + 0.15 * down)
    starry = _mix((0.03, 0.04, 0.13), (0.12, 0.14, 0.30), down + 0.08 * clouds((12, 30)))
    stars = ndimage.gaussian_filter((rng.random(n) < 0.006).astype(np.float32), 0.75, mode="wrap")
    starry += np.clip(stars * 3.2, 0, 0.9)[..., None]
    red = np.where(down[..., None] < 0.55, _mix((0.47, 0.22, 0.40), (0.88, 0.33, 0.22), down / 0.55),
                   _mix((0.88, 0.33, 0.22), (0.99, 0.66, 0.32), (down - 0.55) / 0.45))
    red += (0.07 * clouds((4, 30)))[..., None] * np.array([1.0, 0.7, 0.6], np.float32)
    course = y // 10
    shifted = (x + 16 * (course % 2)) % 512
    tone = rng.uniform(-0.22, 0.22, (13, 16))[course, shifted // 32]
    mortar = (y % 10 < 2) | (shifted % 32 < 2)
    brick = _mix((0.45, 0.19, 0.14), (0.73, 0.40, 0.30), 0.5 + tone + 0.15 * _cloud(rng, n, 1.2))
    brick = np.where(mortar[..., None], np.float32(0.70) + 0.04 * _cloud(rng, n, 1)[..., None], brick)
    white = _mix((0.80, 0.80, 0.79), (0.93, 0.92, 0.90), 0.55 + 0.20 * clouds((20, 40)) + 0.07 * _cloud(rng, n, 0.8))
    leaves = 0.5 * _cloud(rng, n, 1.6) + 0.7 * _cloud(rng, n, 7)
    trees = _mix((0.05, 0.15, 0.06), (0.34, 0.50, 0.20), 0.42 + 0.26 * leaves - 0.30 * (down - 0.5))
    trunks = (np.abs((x + 14 * _cloud(rng, (1, 512), (0, 30))) % 64 - 32) < 3 + 2 * down) & (down > 0.45)
    trees = np.where(trunks[..., None], trees * 0.35 + np.array([0.20, 0.13, 0.08], np.float32), trees)
    fold = np.sin(2 * np.pi * (x / 32 + 0.12 * _cloud(rng, (1, 512), (0, 20))) + 0.4 * down)
    curtain = _mix((0.20, 0.10, 0.22), (0.55, 0.30, 0.50), 0.5 + 0.38 * fold + 0.05 * _cloud(rng, n, (8, 0.8)))
    return np.asarray(np.clip(np.stack([blue, cloudy, starry, red, brick, white, trees, curtain]), 0, 1), dtype=np.float32)


@cache
def tiles() -> tuple[np.ndarray, np.ndarray]:
    """Return grounds (6, 4, TILE * TILE, 3), ever more blurred, and backdrops (8, 128, 512, 3)."""
    rng = np.random.default_rng(8000)
    grounds = _grounds(rng)
    blurred = [grounds] + [ndimage.gaussian_filter(grounds, (0, s, s, 0), mode="wrap") for s in (1.0, 2.2, 5.0)]
    return np.stack(blurred, axis=1).reshape(6, 4, TILE * TILE, 3), _backdrops(rng)


def _background(canvas: np.ndarray, ground: int, backdrop: int, horizon: float, rng: np.random.Generator) -> int:
    """Fill a canvas (side, side, 3); returns the first row of the ground."""
    side = len(canvas)
    grounds, backdrops = tiles()
    edge = int(round(horizon * side))
    rows = (np.arange(edge) / max(edge - 1, 1) * 127).astype(np.intp)
    columns = (rng.integers(512) + np.arange(side) * (128 / side)).astype(np.intp) % 512
    if rng.random() < 0.5:
        columns = columns[::-1]
    canvas[:edge] = backdrops[backdrop][rows[:, None], columns]
    y = (np.arange(edge, side) + 0.5) / side
    far = 1 / (y - horizon + 0.16)  # about 1.4 at the lower edge, 6 at the horizon
    u0, v0 = rng.integers(TILE, size=2)
    across = ((np.arange(side) + 0.5) / side - 0.5) * 80
    u = (across * far[:, None] + u0).astype(np.intp) % TILE
    v = (60 * far + v0).astype(np.intp) % TILE
    level = np.clip(np.log2(far * 80 / side * 0.9), 0, 3).astype(np.intp)
    canvas[edge:] = grounds[ground, level[:, None], v[:, None] * TILE + u]
    canvas[max(edge - 1, 0) : edge + 1] *= 0.82  # where they meet it is darker
    return edge


class _Looks(NamedTuple):
    """What M objects look like; the first axis of each array counts them. Lengths in pixels."""

    kind: np.ndarray
    sprite: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    unit: np.ndarray  # side of the whole sprite
    offset: np.ndarray  # of its corner (top, left) from a whole pixel
    light: np.ndarray  # (M, 3): right, up, to the camera
    tint: np.ndarray  # (M, 3)
    chance: np.ndarray  # (M, 10), from 0 to 1


def _shade(looks: _Looks, large: int) -> tuple[np.ndarray, np.ndarray]:
    """Return objects in their paint and light: colours (m, P, P, 3) and coverage (m, P, P)."""
    sprite, cover = _sampled(looks, large)
    base = np.clip(PAINT[looks.colour] + 0.05 * (looks.chance[:, 4:7] - 0.5), 0.03, 1)[:, None, None, :]
    pattern = _pattern(sprite[:, 4], sprite[:, 5], looks, large)[..., None]
    albedo = base + pattern * (SECOND[looks.colour][:, None, None, :] - base)
    other = np.where((looks.kind == HOUSE)[:, None], ROOF, CREAM).astype(np.float32)[:, None, None, :]
    albedo = other + sprite[:, 6, ..., None] * (albedo - other)
    lit = np.einsum("mcyx,mc->myx", sprite[:, 1:4], looks.light)
    shade = 0.50 + 0.10 * sprite[:, 2] + 0.62 * np.maximum(lit, 0)
    half = looks.light + np.array([0, 0, 1], np.float32)  # Blinn's half-way vector, its cosine to the 12th power
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    cosine = np.maximum(np.einsum("mcyx,mc->myx", sprite[:, 1:4], half), 0)
    gloss = np.where(looks.chance[:, 2] < 0.55, 0.05, 0.55) * (0.6 + 0.4 * looks.chance[:, 3])
    shine = gloss[:, None, None] * ((cosine * cosine) ** 2 * cosine * cosine) ** 2
    return (albedo * shade[..., None] * looks.tint[:, None, None, :] + shine[..., None]).astype(np.float32), cover


def _sampled(looks: _Looks, large: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sprites at their size and place: (m, 7, P, P), and coverage (m, P, P)."""
    patch = int(np.ceil(looks.unit.max())) + 1
    pixels = np.arange(patch, dtype=np.float32) + 0.5
    y, x = (2 * (pixels[None] - looks.offset[:, i, None]) / looks.unit[:, None] - 1 for i in (0, 1))  # (m, P)
    grid = np.stack(np.broadcast_arrays(x[:, None, :], y[:, :, None]), axis=-1).astype(np.float32)
    bank = sprites()[0][large]
    sampled = F.grid_sample(bank[torch.from_numpy(looks.sprite)], torch.from_numpy(grid), align_corners=False).numpy()
    return sampled, sampled[:, 0] * ((np.abs(x) < 1)[:, None, :] & (np.abs(y) < 1)[:, :, None])


def _pattern(s: np.ndarray, t: np.ndarray, looks: _Looks, large: int) -> np.ndarray:
    """Return the share of the second colour (m, P, P): nothing, stripes, spots or checks."""
    # Stripes lie level, upright or aslant; squares and spots are a little turned.
    chance, period = looks.chance, 0.50 if large else 0.66
    turn = np.where(looks.texture == 1, np.pi / 4 * np.floor(4 * chance[:, 0]), 0.5 * (chance[:, 0] - 0.5))
    turn = turn + 0.2 * (chance[:, 1] - 0.5)
    cos, sin = np.cos(turn)[:, None, None].astype(np.float32), np.sin(turn)[:, None, None].astype(np.float32)
    share = np.zeros_like(s)
    for texture in (1, 2, 3):
        m = np.flatnonzero(looks.texture == texture)
        a = (cos[m] * s[m] + sin[m] * t[m]) / period + chance[m, 7, None, None]
        b = (cos[m] * t[m] - sin[m] * s[m]) / period + chance[m, 8, None, None]
        if texture == 1:
            share[m] = np.clip(3.0 * np.sin(2 * np.pi * a) - 0.3, 0, 1)
        elif texture == 2:
            a = a + 0.5 * (np.floor(b) % 2)  # every other row is shifted
            away = _norm(a - np.floor(a) - 0.5, b - np.floor(b) - 0.5)
            share[m] = np.clip((0.34 - away) * 8 + 0.5, 0, 1)
        else:
            share[m] = np.clip(5.0 * np.sin(np.pi * 1.25 * a) * np.sin(np.pi * 1.25 * b) + 0.5, 0, 1)
    return share


def draw(facts: Facts, seeds: Sequence[Sequence[int]], side: int) -> np.ndarray:
    """Draw scenes.

    Parameters
    ----------
    facts : crossexplain.data.scene_words.Facts
        Of N scenes.
    seeds : sequence of N sequences of int
        What is left to chance (light, pose of patterns, noise) comes from these, one each, so that a picture does not
        depend on its neighbours.
    side : int
        Pixels.

    Returns
    -------
    ndarray, shape (N, side, side, 3), float32
        From 0 to 1.
    """
    rngs = [np.random.default_rng(seed) for seed in seeds]
    chance = np.stack([rng.random(48) for rng in rngs]).astype(np.float32)
    light, tint = _light(facts, chance)
    scene, slot = np.nonzero(facts.kind >= 0)  # all objects, (m,)
    looks, corner, width, height = _arranged(facts, scene, slot, side, light, tint, chance)
    patches = {}
    for large in (0, 1):
        members = np.flatnonzero(facts.size[scene, slot] == large)
        if len(members):
            for j, *patch in zip(members, *_shade(_Looks(*(values[members] for values in looks)), large)):
                patches[j] = patch
    out = np.empty((len(facts), side, side, 3), dtype=np.float32)
    line = (np.arange(side, dtype=np.float32) + 0.5) / side
    far_first = np.lexsort((facts.y[scene, slot], scene))
    ends = np.searchsorted(scene, np.arange(len(facts) + 1))
    for i, (canvas, rng) in enumerate(zip(out, rngs)):
        edge = _background(canvas, facts.ground[i], facts.backdrop[i], facts.horizon[i], rng)
        ground, shadow = canvas[edge:], np.ones((side - edge, side), dtype=np.float32)
        objects = far_first[ends[i] : ends[i + 1]]
        for j in objects:
            _cast(shadow, line, facts.x[i, slot[j]], facts.y[i, slot[j]], width[j] / side, height[j] / side, light[i])
        ground *= tint[i] * shadow[..., None]
        for j in objects:
            _paste(canvas, *patches[j], *corner[j])
        # Light falls off towards one side, and upwards or downwards.
        across, down = 0.30 * (2 * chance[i, 4:6] - 1)
        canvas *= ((1 + across * (line - 0.5))[None] * (1 + 0.8 * down * (line - 0.5))[:, None])[..., None]
        canvas += rng.standard_normal((side, side, 1), dtype=np.float32) * (0.012 + 0.022 * chance[i, 6])
    return np.clip(out, 0, 1, out=out)


def _light(facts: Facts, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the light comes from (n, 3), from the left or the right and always from above, and its colour (n, 3)."""
    azimuth = np.where(chance[:, 0] < 0.5, -1, 1) * (0.35 + 0.75 * chance[:, 1])
    light = np.stack([np.sin(azimuth), 0.55 + 0.4 * chance[:, 2], 0.9 * np.cos(azimuth)], axis=1)
    tint = LIGHT[facts.backdrop]
    tint = tint[:, :3] * tint[:, 3:] * (0.93 + 0.14 * chance[:, 3:4])
    return (light / np.linalg.norm(light, axis=1, keepdims=True)).astype(np.float32), tint


def _arranged(facts: Facts, scene: np.ndarray, slot: np.ndarray, side: int, light: np.ndarray, tint: np.ndarray,
              chance: np.ndarray) -> tuple[_Looks, np.ndarray, np.ndarray, np.ndarray]:
    """Return looks of objects, corners of their sprites (m, 2) as whole pixels, widths and heights (m,) in pixels."""
    kind = facts.kind[scene, slot].astype(np.intp)
    sprite = kind * POSES + facts.pose[scene, slot]
    width, height, unit = frame(sprite, facts.extent[scene, slot] * side)
    boxes = sprites()[1][sprite]
    top = facts.y[scene, slot] * side - boxes[:, 2] * unit
    left = facts.x[scene, slot] * side - (boxes[:, 1] + boxes[:, 3]) / 2 * unit
    place = np.stack([top, left], axis=1)
    corner = np.floor(place).astype(np.intp)
    looks = _Looks(kind, sprite, facts.colour[scene, slot], facts.texture[scene, slot], unit, place - corner, light[scene],
                   tint[scene], chance[:, 8:].reshape(len(facts), 4, 10)[scene, slot])
    return looks, corner, width, height


def _cast(shadow: np.ndarray, line: np.ndarray, x: float, y: float, width: float, height: float, light: np.ndarray) -> None:
    """Darken the ground (rows from the horizon on) below an object and on its side away from the light."""
    lean = -light[0] / max(light[1], 0.3)
    for shift, half, deep, dark in ((0.0, 0.50, 0.055, 0.50), (0.38 * lean, 0.62, 0.075, 0.34)):
        across = ((line - x - shift * height) / (half * width)) ** 2
        along = ((line[-len(shadow) :] - y + 0.16 * width) / (deep + 0.10 * width)) ** 2
        shadow *= 1 - dark * np.exp(-along)[:, None] * np.exp(-across)[None]


def _paste(canvas: np.ndarray, colour: np.ndarray, cover: np.ndarray, top: int, left: int) -> None:
    """Lay a patch on a canvas, whatever part of it lies within."""
    side, patch = len(canvas), len(cover)
    a, b = max(top, 0), min(top + patch, side)
    c, d = max(left, 0), min(left + patch, side)
    if a >= b or c >= d:
        return
    part, within = canvas[a:b, c:d], (slice(a - top, b - top), slice(c - left, d - left))
    part += cover[within][..., None] * (colour[within] - part)
