"""Digits: the loaders, the reader of MNIST's format, and divisions that share nothing."""

import gzip
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from crossexplain.data.digits import Digits, enlarge, load, read_idx, split
from crossexplain.data.store import Found, MissingSource

needs_data = pytest.mark.skipif(not os.environ.get("CROSSEXPLAIN_DATA"), reason="CROSSEXPLAIN_DATA is not set")


def idx(array: np.ndarray) -> bytes:
    """An array in the IDX format, by hand."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load("sklearn")


def test_sklearn_digits_are_all_there_in_the_promised_form(digits):
    assert digits.images.shape == (1797, 28, 28) and digits.images.dtype == np.float32
    assert digits.images.min() == 0 and digits.images.max() == 1
    assert digits.labels.dtype == np.int64 and set(digits.labels) == set(range(10))
    assert digits.found.origin.startswith("embedded: scikit-learn")
    assert len(digits) == 1797 and digits.tests == 0


def test_enlarged_digits_are_the_same_digits(digits):
    """Averaged back to 8 x 8, they correlate with what they were made from."""
    small = load_digits().images[:200] / 16
    large = enlarge(small, side=32)
    back = large.reshape(200, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.corrcoef(back.ravel(), small.ravel())[0, 1] > 0.98
    assert np.allclose(digits.images[:200], enlarge(small))


def test_enlarging_is_smooth_and_has_no_preferred_side():
    image = np.zeros((1, 8, 8))
    image[0, 3:5, 3:5] = 1
    large = enlarge(image)[0]
    assert np.allclose(large, large[::-1], atol=1e-6) and np.allclose(large, large.T, atol=1e-6)
    assert np.abs(np.diff(large, axis=0)).max() < 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_split_is_disjoint_complete_stratified_and_repeatable(digits, seed):
    parts = split(digits, seed)
    assert list(parts) == ["train", "validation", "test"]
    together = np.concatenate(list(parts.values()))
    assert np.array_equal(np.sort(together), np.arange(len(digits)))
    for indices in parts.values():
        share = np.bincount(digits.labels[indices]) / len(indices)
        assert np.abs(share - np.bincount(digits.labels) / len(digits)).max() < 0.01
    again = split(digits, seed)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)


def test_another_seed_gives_another_split(digits):
    assert not np.array_equal(split(digits, 0)["test"], split(digits, 1)["test"])


@given(st.integers(0, 2**31 - 1), st.floats(0.1, 0.4), st.floats(0.1, 0.4))
def test_any_split_is_disjoint_and_complete(seed, validation, test):
    labels = np.repeat(np.arange(10), 20)
    made = Digits(np.zeros((200, 28, 28), np.float32), labels, Found("made", None, "made here"))
    parts = split(made, seed, validation, test)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(200))
    assert len(parts["test"]) == round(test * 200) and len(parts["validation"]) == round(validation * 200)


def test_a_test_set_of_its_own_stays_the_test_set():
    labels = np.tile(np.arange(10), 30)
    made = Digits(np.zeros((300, 28, 28), np.float32), labels, Found("made", None, "made here"), tests=100)
    parts = split(made, seed=3, validation=0.1)
    assert np.array_equal(parts["test"], np.arange(200, 300)) and len(parts["validation"]) == 20


@pytest.mark.parametrize("shares", [(0, 0.1), (0.1, 1), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_that_leave_a_set_empty(digits, shares):
    with pytest.raises(ValueError, match="shares"):
        split(digits, 0, *shares)


def test_unknown_set_of_digits():
    with pytest.raises(ValueError, match="'svhn', expected one of 'sklearn', 'mnist'"):
        load("svhn")


def test_missing_mnist_says_how_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.delenv("CROSSEXPLAIN_DATA", raising=False)
    monkeypatch.delenv("CROSSEXPLAIN_DOWNLOAD", raising=False)
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path))
    with pytest.raises(MissingSource, match="python -m crossexplain fetch mnist"):
        load("mnist")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 255))
def test_idx_files_are_read_back(shape, fill):
    import tempfile

    array = np.full(shape, fill, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        with gzip.open(f"{folder}/a.gz", "wb") as stream:
            stream.write(idx(array))
        read = read_idx(f"{folder}/a.gz")
    assert read.dtype == np.uint8 and np.array_equal(read, array) and read.shape == array.shape


WHOLE = idx(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x00\x00\x0d\x01" + WHOLE[4:], "a.gz starts with 00 00 0d 01 .*expected 00 00 08"),
        (WHOLE[:-1], r"has 39 bytes, expected 40 of the shape \[2, 3, 4\]"),
        (WHOLE + b"!", "has 41 bytes"),
    ],
)
def test_files_that_are_no_whole_idx_file(tmp_path, content, says):
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=says):
        read_idx(tmp_path / "a.gz")


@needs_data
def test_real_mnist():
    digits = load("mnist")
    assert digits.images.shape == (70_000, 28, 28) and digits.images.max() == 1
    assert digits.labels[:5].tolist() == [5, 0, 4, 1, 9]  # as in every picture of MNIST
    assert digits.labels[60_000:60_003].tolist() == [7, 2, 1]
    parts = split(digits, 0)
    assert np.array_equal(parts["test"], np.arange(60_000, 70_000))
    assert len(parts["train"]) + len(parts["validation"]) == 60_000
