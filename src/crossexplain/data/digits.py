"""Handwritten digits, 28 x 28: scikit-learn's 1,797, which every installation has, and the 70,000 of MNIST."""

import gzip
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from crossexplain.checks import InputError, require_one_of
from crossexplain.data.store import Found, find

SIDE = 28  # pixels


@dataclass(frozen=True)
class Digits:
    """Images of single digits.

    Attributes
    ----------
    images : numpy.ndarray, shape (N, 28, 28), float32
        Ink from 0 (paper) to 1.
    labels : numpy.ndarray, shape (N,), int64
        The digit, 0 to 9.
    found : Found
        Where they are from.
    tests : int
        How many at the end are the publisher's test set; 0 if there is none.
    """

    images: np.ndarray
    labels: np.ndarray
    found: Found
    tests: int = 0

    def __len__(self) -> int:
        return len(self.labels)


def load(name: str = "sklearn") -> Digits:
    """Load all digits of a set.

    Parameters
    ----------
    name : str
        ``"sklearn"``: 1,797 digits of 8 x 8 pixels with 17 grey levels (Alpaydin and Kaynak 1998), enlarged to
        28 x 28 by cubic splines. ``"mnist"``: 70,000 digits (LeCun et al. 1998), training set first.

    Returns
    -------
    Digits

    Raises
    ------
    InputError
        For another name.
    MissingSource
        If MNIST is not on this machine; the message says how to fetch it.

    Examples
    --------
    >>> digits = load("sklearn")
    >>> digits.images.shape, digits.labels.shape
    ((1797, 28, 28), (1797,))
    """
    require_one_of(name, ("sklearn", "mnist"), "the set of digits")
    if name == "sklearn":
        bunch = load_digits()
        return Digits(enlarge(bunch.images / 16.0), bunch.target.astype(np.int64), find("sklearn-digits"))
    source = find("mnist")
    images, labels = ([read_idx(source.path / f"{part}-{content}-ubyte.gz") for part in ("train", "t10k")]
                      for content in ("images-idx3", "labels-idx1"))
    return Digits(np.concatenate(images).astype(np.float32) / 255, np.concatenate(labels).astype(np.int64), source,
                  tests=len(labels[1]))


def split(digits: Digits, seed: int = 0, validation: float = 0.15, test: float = 0.15) -> dict[str, np.ndarray]:
    """Divide digits into disjoint sets in which each class has its share.

    Parameters
    ----------
    digits : Digits
    seed : int
        Another seed gives another division.
    validation, test : float
        Shares of all digits, in each class. Digits that come with a test set keep it,
        and ``validation`` is a share of the others.

    Returns
    -------
    dict of str to numpy.ndarray
        Sorted indices under ``"train"``, ``"validation"`` and ``"test"``.

    Raises
    ------
    InputError
        If a share leaves some set empty, or a class too few digits for one in each set.

    Examples
    --------
    >>> {name: len(indices) for name, indices in split(load("sklearn"), seed=0).items()}
    {'train': 1257, 'validation': 270, 'test': 270}
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise InputError(f"got the shares {validation} and {test} for validation and test, expected two positive numbers that "
                         "leave something to train on.")
    indices, free = np.arange(len(digits)), len(digits) - digits.tests  # free: not the publisher's test set
    if digits.tests:
        rest, tests = np.split(indices, [free])
    else:
        rest, tests = _divide(digits.labels, indices, round(test * free), seed)
    train, validated = _divide(digits.labels, rest, round(validation * free), seed)
    return {"train": train, "validation": validated, "test": tests}


def enlarge(images: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Enlarge square images smoothly, by cubic splines.

    Parameters
    ----------
    images : numpy.ndarray, shape (N, S, S)
        Values from 0 to 1.
    side : int
        Height and width of the result, in pixels.

    Returns
    -------
    numpy.ndarray, shape (N, side, side), float32
        Clipped to the range 0 to 1, which splines overshoot.
    """
    scale = side / images.shape[1]
    # "grid-constant" continues the paper beyond the edge; pixels are areas, hence grid_mode.
    larger = zoom(images, (1, scale, scale), order=3, mode="grid-constant", cval=0.0, grid_mode=True)
    return np.asarray(np.clip(larger, 0, 1), dtype=np.float32)


def read_idx(path: Path | str) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes, which the store has verified.

    Two zero bytes, the element type (8), the number of axes, the length of each axis as a big-endian 32-bit integer, the
    elements in row-major order (format: LeCun, Cortes, Burges, "The MNIST database").

    Parameters
    ----------
    path : Path

    Returns
    -------
    numpy.ndarray, uint8

    Raises
    ------
    InputError
        If the content is not as its first bytes say.
    """
    try:
        content = gzip.decompress(Path(path).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{Path(path).name} is no whole gzip file ({error}); fetch it again.") from error
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if len(content) < start or content[:3] != b"\0\0\x08":
        raise InputError(f"{Path(path).name} starts with {content[:4].hex(' ')} and has {len(content):,} bytes, expected "
                         "00 00 08, the number of axes and the length of each; fetch it again.")
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) != start + prod(shape):
        raise InputError(f"{Path(path).name} has {len(content):,} bytes, expected {start + prod(shape):,} of the shape "
                         f"{shape}; fetch it again.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _divide(labels: np.ndarray, indices: np.ndarray, held: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    parts = train_test_split(indices, test_size=held, random_state=seed, stratify=labels[indices])
    return np.sort(parts[0]), np.sort(parts[1])
