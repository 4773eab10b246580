"""Photographs from files, as networks with ImageNet weights read them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
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
        If the file is missing, is no image, ends too early, or holds values of which nobody can say what white is; or if
        the size is no whole number above 0.
    """
    path = Path(path)
    if size is not None and (not isinstance(size, (int, np.integer)) or size < 1):
        raise PhotoError(f"size {size!r} came, expected the side in pixels, a whole number of at least 1.")
    try:
        with Image.open(path) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened), opened.format, path.name).convert("RGBA")
    except PhotoError:
        raise
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


def _eight_bits(image: Image.Image, kind: str | None, name: str) -> Image.Image:
    """Scale grey of 16 bits to 8: Pillow itself would cut everything above 255 off and make it white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise PhotoError(f"{name} holds 32-bit values (Pillow's mode {image.mode}), of which nobody can say what white "
                         "is; expected 8 or 16 bits: scale it and save it again.")
    return image


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
        If there is no path, or as for :func:`read`.
    """
    if not paths:
        raise PhotoError("no path came, expected at least one photograph; check the folder and the names' endings.")
    return torch.stack([read(path, size) for path in paths])
