"""What a live part is told: a head as JSON, and arrays behind it, in one or two bytes a number where that is enough."""

import json
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor


def packed(head: Mapping[str, object], arrays: Mapping[str, np.ndarray], kind: type[np.integer] = np.int8) -> bytes:
    """Return head and arrays as bytes, which ``unpacked`` of ``looks.js`` reads.

    Parameters
    ----------
    head : mapping
        What JSON can hold.
    arrays : mapping from name to ndarray
        Those of float32 are kept as they are; of all others each entry of the first axis is kept in steps of its own largest
        absolute value.
    kind : numpy.int8 or numpy.int16
        In 127 steps, which is enough to look at, or in 32,767, of which differences can be taken.

    Returns
    -------
    bytes
        The length of the head (four bytes), the head, and the arrays, each begun at a multiple of four bytes.
    """
    places, parts, start = {}, [], 0
    for name, array in arrays.items():
        whole = array.dtype == np.float32
        data = array.tobytes() if whole else _in_steps(array, kind)
        places[name] = {"start": start, "shape": array.shape, "bytes": 4 if whole else kind(0).itemsize}
        parts.append(data + bytes(-len(data) % 4))
        start += len(parts[-1])
    text = json.dumps({**head, "arrays": places}, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])


def _in_steps(array: np.ndarray, kind: type[np.integer]) -> bytes:
    """Return the step of each entry of the first axis, float32, and behind them the numbers of steps."""
    rows = array.reshape(len(array), -1)
    steps = np.abs(rows).max(axis=1, keepdims=True).astype(np.float32) / np.iinfo(kind).max
    return steps.tobytes() + np.rint(rows / np.where(steps > 0, steps, 1)).astype(kind).tobytes()


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
