"""Scores against a known truth, by hand and against quantus and scikit-learn; baselines."""

import numpy as np
import pytest
import quantus
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from crossexplain.evaluation.truth import (
    box_masks,
    cue_auroc,
    energy_in_box,
    pointing_game,
    random_scores,
    row_correlation,
)
from crossexplain.intervals import mean_interval

SCORES = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [-1.0, 2.0, np.nan, 6.0], [0.0, 0.0, -2.0, 0.0]])
CUES = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], bool)


def test_a_mask_limits_what_counts():
    mask = np.array([[0, 1, 1, 1]], bool)
    assert cue_auroc(SCORES[:1], CUES[:1])[0] == 0.75 and cue_auroc(SCORES[:1], CUES[:1], mask)[0] == 0.5
    with pytest.raises(ValueError, match="score is NaN .first in example 2."):
        cue_auroc(SCORES, CUES, np.ones(CUES.shape, bool))
    with pytest.raises(ValueError, match="one shape"):
        cue_auroc(SCORES, CUES[:, :3])


def test_what_has_no_score_at_all_has_no_number():
    empty = np.full((2, 3), np.nan)
    assert np.isnan(cue_auroc(empty, np.ones((2, 3), bool))).all()
    with pytest.raises(ValueError, match="no defined value"):
        mean_interval(cue_auroc(empty, np.ones((2, 3), bool)))


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    heat, boxes = rng.random((6, 8, 8)), np.array([[0, 0, 4, 4], [2, 3, 8, 8], [1, 1, 2, 7]] * 2)
    return heat, boxes, box_masks(boxes, 8, 8)


def test_localisation_is_that_of_quantus(maps):
    heat, boxes, masks = maps
    given = dict(model=None, x_batch=np.zeros((6, 1, 8, 8)), y_batch=np.zeros(6, int), a_batch=heat[:, None],
                 s_batch=masks[:, None].astype(int), channel_first=True)
    plain = dict(normalise=False, abs=False, disable_warnings=True)
    flat, cues = heat.reshape(6, -1), masks.reshape(6, -1)
    assert np.allclose(energy_in_box(heat, boxes), quantus.RelevanceMassAccuracy(**plain)(**given))
    assert np.allclose(pointing_game(heat, boxes), quantus.PointingGame(**plain)(**given))
    assert np.allclose(cue_auroc(flat, cues), quantus.AUC(**plain)(**given))
    assert cue_auroc(flat, cues)[1] == pytest.approx(roc_auc_score(cues[1], flat[1]))


def test_rows_are_correlated_as_scipy_does():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 4, (5, 9)).astype(float), rng.normal(size=(5, 9))
    assert np.allclose(row_correlation(first, second), [spearmanr(x, y).statistic for x, y in zip(first, second)])
    tiny = row_correlation(1e-9 * first, second, ranks=False)
    assert np.allclose(tiny, [pearsonr(x, y).statistic for x, y in zip(first, second)]), "small gradients are gradients too"
    first[0, :3] = np.nan
    assert row_correlation(first, second)[0] == pytest.approx(spearmanr(first[0, 3:], second[0, 3:]).statistic)
    assert np.isnan(row_correlation([[0.1] * 3, [np.nan] * 3], [[1.0, 2.0, 3.0]] * 2)).all()
    with pytest.raises(ValueError, match="twice the same"):
        row_correlation(first, second[:, :3])


def test_baselines_on_players_by_hand():
    present = np.array([[1, 1, 0], [1, 1, 1]], bool)
    drawn = random_scores(present, seed=0)
    assert np.array_equal(np.isnan(drawn), ~present) and not np.allclose(drawn[:, :2], random_scores(present, seed=1)[:, :2])
