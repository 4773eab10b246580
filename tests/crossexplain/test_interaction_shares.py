import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from crossexplain.evaluation.modality_shares import emap, emap_gap, intershap, intershap_values

XOR = np.array([[-1.0, 1.0], [1.0, -1.0]])  # logit of first bit with second bit


def met(bits_first, bits_second, logit):
    """Return the logits of every first with every second bit, (N, N)."""
    return np.array([[logit[i, j] for j in bits_second] for i in bits_first])


def test_exclusive_or_is_all_interaction_and_its_published_gap_comes_out():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, (2, 1000))
    every = met(first, second, 1000 * XOR)
    score = intershap(intershap_values(every))
    assert score.interaction == pytest.approx(0.997, abs=0.02)  # InterSHAP's table: 99.7
    assert emap_gap(every, first ^ second) == pytest.approx(0.491, abs=0.06)  # and 49.1


def test_balanced_exclusive_or_by_hand():
    first, second = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    table = intershap_values(met(first, second, 1000 * XOR))
    assert table == pytest.approx(np.tile([0.5, 0.5, 0.5, 1.0], (4, 1)))
    assert intershap(table) == (1.0, 1.0, 0.0, 0.0)


def test_one_modality_alone_has_no_interaction():
    first, second = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    alone = np.array([[-1.0, -1.0], [1.0, 1.0]])
    score = intershap(intershap_values(met(first, second, alone)))
    assert score.interaction == pytest.approx(0) and score.first == pytest.approx(1) and score.second == pytest.approx(0)


def test_global_interaction_lets_signs_cancel_and_local_does_not():
    table = [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 0.0]]  # dividends 1 and -1, the second alone 1 and 1
    assert intershap(table) == (0.0, 0.5, 0.0, 1.0)


def test_nothing_changes_anything_is_no_share():
    assert all(np.isnan(intershap(np.full((3, 4), 0.7))))


def test_other_donors_are_averaged_per_example():
    own, first, second, pairs = np.array([2.0, -1.0]), np.array([[1.0, 3.0, 0.0], [0.5, 0.0, -1.0]]), \
        np.array([[1.0, -2.0], [0.0, 1.0], [4.0, 0.0]]), np.array([1.0, -1.0, 2.0])
    table = intershap_values(own, (first, second, pairs))
    assert table[0] == pytest.approx([expit(pairs).mean(), expit(first[0]).mean(), expit(second[:, 0]).mean(), expit(2.0)])
    assert table[1] == pytest.approx([expit(-pairs).mean(), expit(-first[1]).mean(), expit(-second[:, 1]).mean(), expit(1.0)])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 12))
def test_a_sum_of_parts_is_its_own_projection_and_what_is_left_is_orthogonal_to_parts(seed, n):
    rng = np.random.default_rng(seed)
    image, text, rest = rng.normal(size=n), rng.normal(size=n), rng.normal(size=(n, n))
    assert emap(image[:, None] + text) == pytest.approx(image + text)
    left = rest - rest.mean(axis=0) - rest.mean(axis=1, keepdims=True) + rest.mean()
    assert emap(left) == pytest.approx(np.zeros(n), abs=1e-9)
