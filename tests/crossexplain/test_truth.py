"""Scores against a known truth, by hand and against quantus and scikit-learn; baselines."""

import numpy as np
import pytest
import quantus
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from crossexplain.evaluation.truth import (
    box_masks,
    cue_auroc,
    edge_map,
    edge_scores,
    energy_in_box,
    length_scores,
    pointing_game,
    random_scores,
    recall_at,
    row_correlation,
)
from crossexplain.intervals import mean_interval

SCORES = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [-1.0, 2.0, np.nan, 6.0], [0.0, 0.0, -2.0, 0.0]])
CUES = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], bool)


def test_recall_by_hand():
    assert recall_at(SCORES, CUES, 1).tolist() == [0.5, 0.25, 0, pytest.approx(1 / 3)], "ties share the last places"
    assert recall_at(SCORES, CUES, 3)[:2].tolist() == [1, 0.75]
    assert np.isnan(recall_at(SCORES, CUES, 4)[2]), "an example with three features has no four best"
    assert np.isnan(recall_at(SCORES[:1], np.zeros((1, 4), bool), 2)).all(), "no cue, no score"


def test_a_mask_limits_what_counts():
    mask = np.array([[0, 1, 1, 1]], bool)
    assert recall_at(SCORES[:1], CUES[:1], 2, mask)[0] == 1
    with pytest.raises(ValueError, match="score is NaN .first in example 2."):
        recall_at(SCORES, CUES, 1, np.ones(CUES.shape, bool))
    with pytest.raises(ValueError, match="one shape"):
        cue_auroc(SCORES, CUES[:, :3])
    with pytest.raises(ValueError, match="k=5"):
        recall_at(SCORES, CUES, 5)


def test_what_has_no_score_at_all_has_no_number():
    empty = np.full((2, 3), np.nan)
    cues = np.ones((2, 3), bool)
    for of in (cue_auroc, lambda scores, cues: recall_at(scores, cues, 1)):
        assert np.isnan(of(empty, cues)).all()
    with pytest.raises(ValueError, match="no defined value"):
        mean_interval(cue_auroc(empty, cues))


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
    images = np.zeros((1, 3, 8, 8))
    images[:, :, 1:3, 1:3] = 1  # a square within the first of 2 x 2 cells
    edges = edge_scores(images, 2, 2)
    assert edges[0].argmax() == 0 and edges[0, 0] == pytest.approx(edge_map(images)[0, :4, :4].mean()) and edges[0, 3] == 0
    assert length_scores([["red"], []]).tolist()[0] == [3] and np.isnan(length_scores([["red"], []])[1, 0])
    with pytest.raises(ValueError, match="divides 8 x 8 pixels"):
        edge_scores(images, 3, 2)
