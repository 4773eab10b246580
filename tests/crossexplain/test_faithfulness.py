"""Faithfulness by hand and against quantus, scipy and scikit-learn."""

import numpy as np
import pytest
import quantus
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from torch import nn

from crossexplain.coalitions.game import Game
from crossexplain.evaluation import faithfulness
from crossexplain.evaluation.faithfulness import (
    area_between,
    coalition_r2,
    coalition_rank,
    curves,
    synergistic_faithfulness,
)
from crossexplain.gradients.modalities import Tokens, Vectors

NAMES = ("image", "image", "text", "text")
WEIGHTS = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, -2.0, 0.0, 5.0]])


def adds(weights):
    """A game where each player is worth its weight."""
    return lambda keep: keep.double() @ torch.as_tensor(weights, dtype=torch.float64) if np.ndim(weights) == 1 else (
        keep.double() * torch.as_tensor(weights, dtype=torch.float64)).sum(-1)


def meets(keep):
    """1 where the first cell and the first word are both there: nothing but synergy."""
    return (keep[..., 0] & keep[..., 2]).double()


def constant(keep):
    return torch.full(keep.shape[:2], 7.0)


def table(players: int, n: int = 3, seed: int = 0):
    """A game of any values: column S of a table has player k iff ``S >> k & 1``."""
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2**players)))
    return lambda keep: values[torch.arange(n), (keep.long() << torch.arange(players)).sum(dim=2)]


def test_the_curves_and_the_area_by_hand():
    both = curves(adds(WEIGHTS), WEIGHTS)
    assert both.insertion[0].tolist() == [0, 4, 7, 9, 10] and both.deletion[0].tolist() == [10, 6, 3, 1, 0]
    assert both.insertion[1].tolist() == [0, 5, 6, 6, 4]
    # by trapezoids of width 1/4: (0/2 + 4 + 7 + 9 + 10/2) / 4 = 6.25 and (10/2 + 6 + 3 + 1 + 0/2) / 4 = 3.75
    assert area_between(adds(WEIGHTS), WEIGHTS)[0] == 6.25 - 3.75
    assert area_between(adds(WEIGHTS), WEIGHTS, scale=[10.0, 8.0])[0] == 0.25


def test_one_modality_alone_leaves_the_other_as_it_is():
    both = curves(adds(WEIGHTS), WEIGHTS, among=np.array(NAMES) == "text")
    assert both.insertion[0].tolist() == [7, 9, 10] and both.deletion[0].tolist() == [10, 8, 7]
    assert area_between(adds(WEIGHTS), WEIGHTS, among=np.array(NAMES) == "text")[0] == pytest.approx(0.5)


def test_players_that_an_example_lacks_take_no_step_and_stay_as_they_are():
    scores = WEIGHTS.copy()
    scores[0, 1] = np.nan
    both = curves(adds(WEIGHTS), scores)
    assert both.insertion[0, :4].tolist() == [3, 7, 9, 10] and np.isnan(both.insertion[0, 4])
    # insertion over 3, 7, 9, 10 and deletion over 10, 6, 4, 3
    by_hand = (1.5 + 7 + 9 + 5) / 3 - (5 + 6 + 4 + 1.5) / 3
    assert area_between(adds(WEIGHTS), scores)[0] == pytest.approx(by_hand)
    alone = area_between(adds(WEIGHTS), np.array([[np.nan] * 4, [1.0, 2.0, 3.0, 4.0]]))
    assert np.isnan(alone[0]) and np.isfinite(alone[1])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), players=st.integers(1, 6))
def test_the_reverse_order_loses_what_an_order_gains(seed, players):
    scores = np.random.default_rng(seed + 1).normal(size=(3, players))
    game = table(players, seed=seed)
    assert np.allclose(area_between(game, scores), -area_between(game, -scores))


def test_a_random_order_gains_nothing_on_average():
    areas = [area_between(table(5), np.zeros((3, 5)), seed=seed) for seed in range(600)]
    spread = np.std(areas, axis=0) / np.sqrt(len(areas))
    assert (np.abs(np.mean(areas, axis=0)) < 4 * spread).all() and (spread > 0).all()


def test_a_game_of_equal_values_has_no_area_and_no_order_and_nothing_is_divided_by_zero():
    with np.errstate(all="raise"):
        assert area_between(constant, WEIGHTS, scale=[0.0, 0.0]).tolist() == [0, 0]
        assert synergistic_faithfulness(constant, WEIGHTS, NAMES, k=1, scale=[0.0, 0.0]).tolist() == [0, 0]
        assert np.isnan(coalition_r2(constant, WEIGHTS)).all() and np.isnan(coalition_rank(constant, WEIGHTS)).all()
        assert np.isnan(coalition_r2(constant, WEIGHTS, line=True)).all()


def test_synergy_by_hand():
    right, wrong = np.array([[9.0, 0.0, 9.0, 0.0]]), np.array([[0.0, 9.0, 9.0, 0.0]])
    assert synergistic_faithfulness(meets, right, NAMES, k=1, draws=0).tolist() == [1]
    assert synergistic_faithfulness(meets, wrong, NAMES, k=1, draws=0).tolist() == [0]
    # one of two cells and one of two words: a random pair is the right one in a quarter of cases
    assert synergistic_faithfulness(meets, right, NAMES, k=1, draws=4000)[0] == pytest.approx(0.75, abs=0.03)
    assert synergistic_faithfulness(meets, wrong, NAMES, k=1, draws=4000)[0] == pytest.approx(-0.25, abs=0.03)
    assert np.allclose(synergistic_faithfulness(adds(WEIGHTS), WEIGHTS, NAMES, k=1), 0), "a sum has no synergy"
    assert synergistic_faithfulness(constant, right, NAMES, k=1, draws=0)[0] == 0, "what the empty pair has is no synergy"
    assert synergistic_faithfulness(meets, right, NAMES, k={"image": 2, "text": 2})[0] == 0, "all are kept, as at random"


def test_an_example_with_fewer_players_than_are_kept_has_no_synergy_score():
    scores = np.array([[9.0, np.nan, 9.0, 0.0], [9.0, 1.0, 9.0, 0.0]])
    found = synergistic_faithfulness(meets, scores, NAMES, k=2)
    assert np.isnan(found[0]) and found[1] == 0


def test_of_a_sum_the_weights_predict_every_coalition():
    assert np.allclose(coalition_r2(adds(WEIGHTS), WEIGHTS), 1) and np.allclose(coalition_rank(adds(WEIGHTS), WEIGHTS), 1)
    assert np.allclose(coalition_r2(adds(WEIGHTS), 3 * WEIGHTS, line=True), 1)
    assert (coalition_r2(adds(WEIGHTS), 3 * WEIGHTS) < 0).all(), "contributions three times too large are worse than the mean"
    assert np.allclose(coalition_rank(adds(WEIGHTS), -WEIGHTS), -1)


def test_coalition_scores_are_those_of_scikit_learn_and_scipy():
    game, scores = table(6), np.random.default_rng(5).normal(size=(3, 6))
    values, total, none, *_ = next(faithfulness._sampled(game, scores, [0.4], 50, 3))
    r2, rank = coalition_r2(game, scores, [0.4], 50, 3), coalition_rank(game, scores, [0.4], 50, 3)
    for i in range(3):
        assert r2[i] == pytest.approx(r2_score(values[:, i], none[i] + total[:, i]))
        assert rank[i] == pytest.approx(spearmanr(values[:, i], total[:, i]).statistic)
    several = coalition_rank(game, scores, [0.2, 0.8], 50, 3)
    assert (np.abs(several) <= 1).all() and not np.allclose(several, rank)


class Linear(nn.Module):
    """One channel of 4 x 4 pixels to two classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.dense = nn.Linear(16, 2)

    def forward(self, x):
        return torch.tanh(self.dense(x.flatten(1)))


def test_the_deletion_curve_is_that_of_quantus():
    model, images = Linear().eval(), torch.rand(3, 1, 4, 4) + 0.1
    scores = torch.rand(3, 1, 4, 4)

    @torch.no_grad()
    def game(keep):
        shown = torch.where(keep.view(*keep.shape[:2], 1, 4, 4), images, 0.0)
        return torch.stack([model(some)[:, 1] for some in shown])

    theirs = quantus.PixelFlipping(features_in_step=1, normalise=False, perturb_baseline=0.0, disable_warnings=True)(
        model=model, x_batch=images.numpy(), y_batch=np.ones(3, int), a_batch=scores.numpy(), softmax=False)
    ours = curves(game, scores.flatten(1).numpy()).deletion[:, 1:]
    assert np.allclose(ours, np.array(theirs), atol=1e-6)


@pytest.mark.parametrize("scores, message", [
    (np.full((2, 4), np.nan), "all scores are NaN"),
    (np.zeros(4), r"expected \(N, P\)"),
    (np.array([[0.0, 1.0, np.inf, 2.0]] * 2), "example 0 has an infinite score"),
    (np.zeros((3, 4)), "the same examples"),
])
def test_scores_that_cannot_be_ranked_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        area_between(lambda keep: torch.zeros(keep.shape[0], 2), scores)


def test_what_a_game_and_its_questions_must_be():
    with pytest.raises(ValueError, match="NaN or infinity for example 1"):
        area_between(lambda keep: torch.tensor([1.0, torch.nan]).expand(len(keep), 2), WEIGHTS)
    with pytest.raises(ValueError, match="among is int64"):
        curves(adds(WEIGHTS), WEIGHTS, among=[0, 1])
    with pytest.raises(ValueError, match="k of 'text' is 3"):
        synergistic_faithfulness(meets, WEIGHTS, NAMES, k={"image": 1, "text": 3})
    with pytest.raises(ValueError, match="1 modalities"):
        synergistic_faithfulness(meets, WEIGHTS, ("image",) * 4)
    with pytest.raises(ValueError, match="rates between 0 and 1"):
        coalition_r2(adds(WEIGHTS), WEIGHTS, rates=[0.0])
    with pytest.raises(ValueError, match="at least 0, one an example"):
        area_between(adds(WEIGHTS), WEIGHTS, scale=[1.0])


class Product(nn.Module):
    def forward(self, seen, tokens):
        return seen[:, :, 0].sum(dim=1) * (tokens > 1).sum(dim=1)


def test_areas_are_those_of_each_modality_in_units_of_the_whole():
    inputs = {"seen": torch.tensor([[[3.0], [1.0]], [[1.0], [2.0]], [[2.0], [2.0]]]), "tokens": torch.tensor([[5, 7]] * 3)}
    game = Game(Product().eval(), inputs, [Vectors("image", "seen"), Tokens()], progress=False)
    scores = np.array([[2.0, 1.0, 5.0, 4.0], [2.0, 1.0, 4.0, 5.0], [1.0, 2.0, 4.0, 5.0]])
    found = faithfulness.areas(game, scores)
    # Of the first picture the larger half comes first, of the second the smaller: with both words, insertion runs over
    # 0, 6, 8 and 0, 2, 6, deletion over 8, 2, 0 and 6, 4, 0; of words, and of the third picture, no order is better.
    assert list(found) == ["image", "text"] and found["text"].value == pytest.approx(0)
    by_hand = np.mean([(3 + 7) / 2 - (5 + 1) / 2, (1 + 4) / 2 - (5 + 2) / 2, 0]) / np.mean([8, 6, 8])
    assert found["image"].value == pytest.approx(by_hand)
    assert list(faithfulness.areas(game, np.where([True, True, False, False], scores, np.nan))) == ["image"]
