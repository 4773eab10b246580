"""Checks of batches, images and numbers, for models and gradients alike. Every error says what came, what was expected and
what to do.
"""

import torch
from torch import Tensor

# Noise, and pixels borrowed or made up for a view, leave the range from 0 to 1 by a few standard deviations; pixels from 0
# to 255 leave it by far. No picture with something on it lies in between.
FAR = 8.0


class InputError(ValueError):
    """What was passed cannot be used: the message says what came, what was expected, and what to do."""


def require_images(
    images: Tensor,
    channels: int | None = None,
    smallest: int = 2,
    side: int | None = None,
    unit: bool = False,
) -> Tensor:
    """Return a batch of images unchanged if it is one.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
        Floating point, finite.
    channels : int, optional
        Number of channels that the model was built for.
    smallest : int
        Least height and width, in pixels.
    side : int, optional
        Height and width, in pixels, of a model that takes no other.
    unit : bool
        The model was built for values from 0 to 1. Somewhat smaller and larger ones pass, since noise on an image brings
        them; pixels from 0 to 255 do not.

    Raises
    ------
    InputError
        For another type, number of axes, dtype, size, number of channels, range, or for NaN and infinity.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"images came as {type(images).__name__}, expected a torch.Tensor (N, C, H, W); "
            "convert with torchvision.transforms.v2.functional.to_image and to_dtype(..., scale=True)."
        )
    if images.ndim != 4:
        raise InputError(
            f"images have shape {tuple(images.shape)}, expected four axes (N, C, H, W); "
            "add a batch axis to a single image with image[None]."
        )
    if not images.is_floating_point():
        raise InputError(
            f"images have dtype {images.dtype}, expected a floating dtype; divide 8-bit pixels by 255 first."
        )
    require_batch(images.shape[0])
    if channels is not None and images.shape[1] != channels:
        advice = {3: "repeat a grey image with images.expand(-1, 3, -1, -1)",
                  1: "make it grey with images.mean(dim=1, keepdim=True)"}.get(channels, "convert the mode first")
        if images.shape[1] == 4:
            advice = "drop the alpha channel with images[:, :3]"
        raise InputError(f"images have {images.shape[1]} channel(s), the model expects {channels}; {advice}.")
    if min(images.shape[2:]) < smallest:
        raise InputError(
            f"images are {images.shape[2]} x {images.shape[3]} pixels, expected at least {smallest} x {smallest}; "
            "resize them to the size that the model was trained on."
        )
    if side is not None and tuple(images.shape[2:]) != (side, side):
        raise InputError(
            f"images are {images.shape[2]} x {images.shape[3]} pixels, the model takes {side} x {side} and no other; "
            "resize or crop them."
        )
    if not images.is_meta:
        _require_values(images, unit)
    return images


def _require_values(images: Tensor, unit: bool) -> None:
    low, high = (value.item() for value in images.detach().aminmax())  # NaN if one is NaN: a single look at each pixel
    if not (-torch.inf < low and high < torch.inf):
        require_finite(images, "images")
    if unit and max(-low, high) > FAR:
        raise InputError(
            f"images hold values from {low:.4g} to {high:.4g}, expected 0 to 1; divide 8-bit pixels by 255, and leave "
            "standardising to the model, which does it itself where it needs it."
        )


def require_finite(values: Tensor, what: str) -> Tensor:
    """Return ``values`` unchanged if none is NaN or infinite.

    Raises
    ------
    InputError
        Says how many entries are not finite and which example holds the first.
    """
    bad = ~torch.isfinite(values)
    if bad.any():
        example = int(bad.reshape(bad.shape[0], -1).any(dim=1).nonzero()[0]) if values.ndim else 0
        raise InputError(
            f"{what}: {int(bad.sum())} of {values.numel()} entries are NaN or infinite (first in example {example}), "
            "expected finite numbers; check the input's range, the weights, and half-precision overflow."
        )
    return values


def require_batch(size: int) -> int:
    """Return the batch size if it is at least one, else raise :class:`InputError`."""
    if size < 1:
        raise InputError("the batch is empty (0 examples), expected at least 1; check the filter that selected it.")
    return size
