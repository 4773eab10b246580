"""Photographs from files, as networks with ImageNet weights read them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional


class PhotoError(ValueError):
    """A file is no photograph that can be read; the message names it."""


def read(path: Path | str, size: int | None = None) -> Tensor:
    """Read one photograph.

    Parameters
    ----------
    path : Path
        Any format that Pillow reads. It is turned upright where the camera says so; grey becomes colour, and what is
        transparent becomes white.
    size : int, optional
        Side in pixels of the largest square in the middle, scaled (antialiased). Default: the whole photograph.

    Returns
    -------
    Tensor, shape (3, H, W), float32
        RGB from 0 to 1.

    Raises
    ------
    PhotoError
        If the file is missing, is no image, or ends too early.
    """
    path = Path(path)
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(
            f"{path.name} cannot be read as an image ({error}); expected a whole JPEG, PNG or the like: "
            "fetch or copy the file again."
        ) from error
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return functional.to_dtype(functional.to_image(image).as_subclass(Tensor), torch.float32, scale=True)


def load(paths: Sequence[Path | str], size: int) -> Tensor:
    """Read photographs as one batch of squares.

    Parameters
    ----------
    paths : sequence of Path
    size : int
        Side in pixels, as for :func:`read`.

    Returns
    -------
    Tensor, shape (N, 3, size, size), float32
        RGB from 0 to 1.

    Raises
    ------
    PhotoError
        If there is no path, or a file cannot be read.
    """
    if not paths:
        raise PhotoError("no path came, expected at least one photograph; check the folder and the names' endings.")
    return torch.stack([read(path, size) for path in paths])
