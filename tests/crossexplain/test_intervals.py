import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossexplain.evaluation.truth import box_masks, cue_auroc, edge_map, energy_in_box, pointing_game, random_map
from crossexplain.intervals import difference_interval, mean_interval, share_interval


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [
        (i := mean_interval(rng.normal(size=60), seed=k, draws=400)).low <= 0 <= i.high for k in range(300)
    ]
    assert 0.89 <= np.mean(inside) <= 0.98


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no defined value"):
        mean_interval([float("nan")])


def test_a_paired_difference_is_tighter_than_its_parts():
    rng = np.random.default_rng(0)
    common = rng.normal(scale=10, size=100)
    interval = difference_interval(common + 1, common)
    assert interval.low == pytest.approx(1) and interval.high == pytest.approx(1)
    with pytest.raises(ValueError, match="same examples"):
        difference_interval([1.0], [1.0, 2.0])


@given(n=st.integers(1, 500), k=st.integers(0, 500))
def test_a_share_lies_in_its_interval(n, k):
    k = min(k, n)
    interval = share_interval(k, n)
    assert 0 <= interval.low <= interval.value + 1e-12 and interval.value - 1e-12 <= interval.high <= 1


def test_a_share_by_hand():
    # Wilson 1927 for 9 of 10, z = 1.96: (0.9 + 0.19207) / 1.38415 -+ 1.96 sqrt(0.009 + 0.0096036) / 1.38415
    interval = share_interval(9, 10)
    assert interval.low == pytest.approx(0.5958, abs=1e-3) and interval.high == pytest.approx(0.9821, abs=1e-3)


def test_the_pointing_game_and_the_energy_by_hand():
    heat = np.zeros((3, 4, 4))
    heat[0, 1, 1] = 2.0
    heat[0, 3, 3] = 1.0
    heat[1, 3, 3] = 1.0
    boxes = np.array([[0, 0, 2, 2]] * 3)
    assert pointing_game(heat, boxes).tolist() == [1.0, 0.0, 0.25]  # a constant map scores the area of the box
    energy = energy_in_box(heat, boxes)
    assert energy[:2].tolist() == [pytest.approx(2 / 3), 0.0] and np.isnan(energy[2])
    assert energy_in_box(-heat[:1], boxes[:1]).shape == (1,) and np.isnan(energy_in_box(-heat[:1], boxes[:1])[0])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_energy_of_a_box_and_of_its_complement_add_up(seed):
    rng = np.random.default_rng(seed)
    heat, top, left = rng.random((1, 6, 6)), rng.integers(0, 4), rng.integers(0, 4)
    box = np.array([[top, left, top + 2, left + 2]])
    outside = heat * ~box_masks(box, 6, 6)
    assert energy_in_box(heat, box)[0] == pytest.approx(1 - outside.sum() / heat.sum())


def test_wrong_shapes_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"boxes have shape \(4,\)"):
        box_masks([0, 0, 1, 1], 4, 4)
    with pytest.raises(ValueError, match="expected .1, H, W."):
        pointing_game(np.zeros((2, 4, 4)), [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="NaN"):
        pointing_game(np.full((1, 4, 4), np.nan), [[0, 0, 1, 1]])


def test_cue_auroc_by_hand():
    scores = np.array([[3.0, 1.0, 2.0, 9.0], [1.0, 1.0, 1.0, 9.0], [1.0, 2.0, 3.0, 9.0]])
    cues = np.array([[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]], bool)
    mask = np.array([[1, 1, 1, 0]] * 3, bool)
    auroc = cue_auroc(scores, cues, mask)
    assert auroc[:2].tolist() == [1.0, 0.5] and np.isnan(auroc[2])
    with pytest.raises(ValueError, match="one shape"):
        cue_auroc(scores, cues[:, :2])


def test_features_without_a_score_do_not_count():
    scores = np.array([[np.nan, 3.0, 1.0, np.nan], [np.nan, 1.0, 2.0, 3.0]])
    cues = np.array([[0, 1, 0, 0], [1, 0, 1, 0]], bool)
    assert cue_auroc(scores, cues).tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="score is NaN .first in example 0."):
        cue_auroc(scores, cues, np.ones(cues.shape, bool))


def test_the_baselines_know_nothing_of_a_model_but_differ_by_image_and_seed():
    images = np.zeros((1, 1, 8, 8))
    images[..., 4:] = 1
    edges = edge_map(images)
    assert edges.shape == (1, 8, 8) and edges[0, 4, [3, 4]].min() > 0 and edges[0, 4, [0, 7]].max() == 0
    first, second = random_map(2, 8, 8, seed=0), random_map(2, 8, 8, seed=1)
    assert first.min() == 0 and first.max() == 1 and not np.allclose(first, second)
    assert np.array_equal(first, random_map(2, 8, 8, seed=0))
    with pytest.raises(ValueError, match="got maps of 1 x 1, expected at least two pixels"):
        random_map(1, 1, 1, seed=1)


def test_a_share_lies_in_its_own_interval():
    for n in range(1, 200):
        for successes in (0, n):
            share = share_interval(successes, n)
            assert share.low <= share.value <= share.high
