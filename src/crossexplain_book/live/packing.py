"""What a live part is told: a head as JSON, and arrays behind it, in single bytes where a picture needs no more."""

import json
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

LEVELS = 127  # steps from 0 to the largest absolute value of an array in single bytes


def packed(head: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return head and arrays as bytes, which ``unpacked`` of ``looks.js`` reads.

    Parameters
    ----------
    head : mapping
        What JSON can hold.
    arrays : mapping from name to ndarray
        Those of float32 are kept as they are; of all others each entry of the first axis is kept in :data:`LEVELS` steps of
        its own largest absolute value.

    Returns
    -------
    bytes
        The length of the head (four bytes), the head, and the arrays, each begun at a multiple of four bytes.
    """
    places, parts, start = {}, [], 0
    for name, array in arrays.items():
        whole = array.dtype == np.float32
        data = array.tobytes() if whole else _in_steps(array)
        places[name] = {"start": start, "shape": array.shape, "whole": whole}
        parts.append(data + bytes(-len(data) % 4))
        start += len(parts[-1])
    text = json.dumps({**head, "arrays": places}, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])


def _in_steps(array: np.ndarray) -> bytes:
    """Return the step of each entry of the first axis, float32, and behind them the numbers of steps, int8."""
    rows = array.reshape(len(array), -1)
    steps = np.abs(rows).max(axis=1, keepdims=True).astype(np.float32) / LEVELS
    return steps.tobytes() + np.rint(rows / np.where(steps > 0, steps, 1)).astype(np.int8).tobytes()


def picture(image: Tensor, quality: int = 80) -> str:
    """Return an image (3, H, W) or (1, H, W), from 0 to 1, as an address that holds it: PNG if that is smaller, else JPEG."""
    pixels = np.uint8(image.detach().clamp(0, 1).mul(255).round().permute(1, 2, 0).expand(-1, -1, 3).numpy())
    written = {}
    for kind, options in (("jpeg", {"quality": quality}), ("png", {"optimize": True})):
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        written[kind] = buffer.getvalue()
    kind = min(written, key=lambda name: len(written[name]))
    return f"data:image/{kind};base64,{b64encode(written[kind]).decode()}"
