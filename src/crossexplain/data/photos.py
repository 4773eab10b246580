"""Photographs from files, as networks with ImageNet weights read them."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from crossexplain.checks import InputError

PIXELS = 64_000_000  # the most that are read, since a small file can hold a picture that fills the memory


class PhotoError(InputError):
    """A file is no photograph that can be read; the message names it."""


def read(path: Path | str | BinaryIO, size: int | None = None) -> Tensor:
    """Read one photograph.

    Parameters
    ----------
    path : Path, or a file opened in binary mode
        Any format that Pillow reads. It is turned upright where the camera says so; grey (of 8 or 16 bits) and the colours
        of print become red, green and blue, what is transparent becomes white, and of an animation the first picture is
        taken.
    size : int, optional
        Side in pixels of the largest square in the middle, scaled (antialiased). Default: the whole photograph.

    Returns
    -------
    Tensor, shape (3, H, W), float32
        RGB from 0 to 1.

    Raises
    ------
    PhotoError
        If it is no file, or the file is missing, is no image, ends too early, would fill the memory, or holds values whose
        white is unknown; or if the size is no whole number above 0.
    """
    if size is not None and (not isinstance(size, (int, np.integer)) or size < 1):
        raise PhotoError(f"got size {size!r}, expected the side in pixels, a whole number of at least 1.")
    image = picture(path)
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels: Tensor = functional.to_dtype(functional.to_image(image).as_subclass(Tensor), torch.float32, scale=True)
    return pixels


def picture(path: Path | str | BinaryIO) -> Image.Image:
    """Read one photograph as Pillow has it: upright, whole, red, green and blue; path and errors as for :func:`read`.

    Examples
    --------
    >>> from io import BytesIO
    >>> file = BytesIO()
    >>> Image.new("L", (3, 2)).save(file, "png")
    >>> picture(file).mode
    'RGB'
    """
    if not isinstance(path, (str, PathLike)) and not hasattr(path, "read"):
        raise PhotoError(f"got {type(path).__name__}, expected the path of a photograph, or a file opened in binary mode.")
    name = Path(str(getattr(path, "name", path if isinstance(path, (str, PathLike)) else "the file"))).name
    try:
        with Image.open(path) as opened:
            _require_readable(opened, name)
            return _colours(ImageOps.exif_transpose(opened))
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError(f"{name} has too many pixels ({error}), at most {PIXELS:,} are read; make it smaller.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(
            f"{name} cannot be read as an image ({error}); expected a whole JPEG, PNG or the like: "
            "fetch or copy the file again."
        ) from error


def square(image: Tensor, side: int) -> tuple[Tensor, str]:
    """Return the largest square in the middle of a picture, scaled, and what was done to it.

    Parameters
    ----------
    image : Tensor, shape (3, H, W)
        RGB from 0 to 1.
    side : int
        In pixels.

    Returns
    -------
    image : Tensor, shape (3, side, side)
    note : str
        For a reader; empty if nothing was done.
    """
    (height, width), notes = image.shape[1:], []
    if height != width:
        least = min(height, width)
        image = functional.center_crop(image, [least, least])
        notes.append(f"its middle square of {least} x {least} pixels was taken")
    if image.shape[1] != side:
        image = functional.resize(image, [side, side], antialias=True).clamp(0, 1)
        notes.append(f"it was scaled to {side} x {side} pixels")
    return image, f"The image has {width} x {height} pixels; {' and '.join(notes)}." if notes else ""


def _require_readable(image: Image.Image, name: str) -> None:
    """Refuse what would fill the memory, or has no known black and white, before anything is decoded."""
    width, height = image.size
    if width * height > PIXELS:
        raise PhotoError(f"{name} has {width:,} x {height:,} pixels, at most {PIXELS:,} in all are read; make it smaller.")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # these two: grey of 16 bits
        raise PhotoError(f"{name} holds 32-bit values (Pillow's mode {image.mode}), whose white is unknown; "
                         "expected 8 or 16 bits: scale it and save it again.")


def _colours(image: Image.Image) -> Image.Image:
    """Return any image as red, green and blue, on white where it is transparent."""
    if image.mode.startswith("I"):  # 16 bits; Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


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
        raise PhotoError("got no path, expected at least one photograph; check the folder and the names' endings.")
    return torch.stack([read(path, size) for path in paths])
