import math
import runpy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import (
    ROWS,
    _coalitions,
    _covariance,
    _dealt,
    _determining,
    _distinct,
    _pairs,
    _process,
    _regression,
    _shapley_kernel,
    sampled_shapley,
)
from crossexplain.coalitions.shapley import shapley
from crossexplain.gradients.modalities import Tokens, Vectors


@pytest.fixture(scope="module")
def products(request):
    """Models whose logit is a sum of products of which features are there; ``truth`` are their Shapley values."""
    return runpy.run_path(str(request.config.rootpath / "benchmarks" / "approximations.py"))["Unanimity"]


def asked(model, cells=5, words=4, n=2, split=True, ragged=False):
    tokens = torch.full((n, words), 2)
    if ragged:
        tokens[1, words // 2 :] = 0
    inputs = {"seen": torch.ones(n, cells, 1), "tokens": tokens}
    return Game(model(cells + words, 0).eval(), inputs, [Vectors("image", "seen"), Tokens()], target=1, split=split,
                progress=False)


def exact(game):
    return torch.from_numpy(shapley(game.values_of_all().numpy()))


@pytest.mark.parametrize("split", [True, False])
def test_values_are_exact_where_everything_can_be_asked(products, split):
    game = asked(products, split=split)
    found = sampled_shapley(game, budget=2**9, matched=2**9)
    assert torch.allclose(found, exact(game), atol=1e-8) and torch.allclose(found[0].float(), game.model.truth, atol=1e-5)


def test_players_that_an_example_lacks_have_no_value_and_the_rest_sums_to_the_gain(products):
    game = asked(products, cells=6, words=6, ragged=True)
    found = sampled_shapley(game, budget=16, seed=3)
    assert torch.equal(found.isnan(), ~game.present)
    everything = torch.ones(1, len(game.names), dtype=torch.bool)
    gain = (game(everything) - game(~everything))[0]
    assert torch.allclose(found.nansum(dim=1), gain, atol=1e-9)
    whole = sampled_shapley(game, budget=2**9, matched=2**9)
    assert torch.allclose(whole[1].nan_to_num(), exact(game)[1].nan_to_num(), atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(4, 40), st.integers(0, 9))
def test_a_sum_is_found_from_any_budget_that_sees_every_player(products, cells, words, budget, seed):
    torch.manual_seed(seed)
    game, weights = asked(products, cells, words, n=1), torch.randn(cells + words).double()
    game.values = lambda keep, examples: keep.double() @ weights
    found = sampled_shapley(game, budget, seed)
    assert found.sum() == pytest.approx(float(weights.sum()), abs=1e-6)
    if budget >= 2 * max(cells, words) + 2:
        assert torch.allclose(found[0], weights, atol=1e-6)


@pytest.mark.parametrize("cells, words, budget", [(1, 7, 16), (7, 7, 16), (20, 20, 42)])
def test_the_fewest_masks_tell_every_player_from_every_other(cells, words, budget):
    for seed in range(20):
        keep, _ = _determining(cells, words, budget, budget // 2 * 24, np.random.default_rng(seed))
        centred = keep - keep.mean(axis=1, keepdims=True)
        assert np.linalg.matrix_rank(centred.T @ centred, hermitian=True) == cells + words - 1


@pytest.mark.parametrize("budget, matched", [(4, 24), (17, 24), (64, 1), (64, 24), (300, 24)])
@pytest.mark.parametrize("cells, words", [(5, 4), (9, 12), (1, 6), (20, 20)])
def test_no_tower_looks_at_more_masks_than_the_budget_says(products, cells, words, budget, matched):
    for split in (True, False):
        game = asked(products, cells, words, n=1, split=split)
        before = game.passes
        sampled_shapley(game, budget, matched=matched)
        assert 0 < game.passes - before <= budget


def test_matching_masks_with_more_than_one_other_helps_and_more_masks_help(products):
    def off(budget, matched):
        errors = []
        for seed in range(4):
            game = asked(lambda players, _, seed=seed: products(players, seed), 10, 10, n=1)
            errors.append(float(((sampled_shapley(game, budget, seed, matched)[0] - game.model.truth) ** 2).sum()))
        return np.median(errors)

    assert off(64, 24) < off(64, 1) / 2 and off(256, 24) < off(64, 24) / 2


def test_where_the_towers_cannot_be_asked_the_process_misses_less_than_the_regression_on_the_same_values(products):
    missed = {"process": [], "regression": []}
    for seed in range(6):
        model, rng = products(16, seed), np.random.default_rng(seed)
        keep, weights = _determining(16, 0, 16 * 17, 8 * 17, rng)
        there = torch.from_numpy(keep).float()
        values = model.match(there[:, :8], there[:, 8:]).double().numpy()
        for name, found in (("process", _process(keep, values)), ("regression", _regression(keep, values, weights))):
            missed[name].append(((found - model.truth.numpy()) ** 2).sum())
            assert found.sum() == pytest.approx(values[1] - values[0])
    assert np.median(missed["process"]) < np.median(missed["regression"]) / 2


@pytest.mark.parametrize("players, rate, linear", [(3, 0.05, 1), (4, 0.4, 10), (7, 0.8, 100)])
def test_covariance_and_shares_are_the_sums_over_all_odd_parities(players, rate, linear):
    every = (np.arange(2**players)[:, None] >> np.arange(players)) & 1
    signs, members = np.where(every == 1, 1.0, -1.0), every[every.sum(axis=1) % 2 == 1].astype(bool)
    variance = rate ** members.sum(axis=1) * (members.sum(axis=1) > 1)
    variance = variance / variance.sum() + linear / players * (members.sum(axis=1) == 1)
    parities = np.stack([signs[:, of].prod(axis=1) for of in members], axis=1)              # (2^p, parities)
    differ = np.rint((players - signs @ signs.T) / 2).astype(int)
    assert np.allclose((parities * variance) @ parities.T, _covariance(players, rate, linear)[differ])
    other_gone = (signs < 0).sum(axis=1, keepdims=True) - (signs < 0)
    want = np.stack([shapley((parities * variance * of).sum(axis=1)) for of in parities])     # of each coalition's covariances
    assert np.allclose(signs * _shapley_kernel(players, rate, linear)[other_gone], want)


def test_a_sum_is_fitted_to_more_coalitions_than_a_process_can_take(products):
    game = asked(products, 12, 12, n=1, split=False)
    found = sampled_shapley(game, budget=2 * ROWS + 4)
    assert float(((found[0] - game.model.truth) ** 2).sum() / (game.model.truth**2).sum()) < 0.01


@pytest.mark.parametrize("first, second", [(4, 5), (1, 3), (6, 6), (7, 0), (3, 4)])
def test_all_coalitions_with_their_weights_are_those_of_kernel_shap(first, second):
    players = first + second
    keep, weights = _coalitions(first, second, 2**players, 2 ** (players - 1), np.random.default_rng(0))
    assert not keep[0].any() and keep[1].all() and not weights[:2].any()
    code = keep @ (1 << np.arange(players))
    assert sorted(code) == list(range(2**players)), "each coalition once"
    sizes = keep.sum(axis=1)[2:]
    kernel = np.array([1 / (math.comb(players, size) * size * (players - size)) for size in sizes])
    assert np.allclose(weights[2:] / kernel, (weights[2:] / kernel)[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.data())
def test_masks_are_different_and_none_is_the_complement_of_another(players, data):
    size = data.draw(st.integers(1, players // 2))
    every = math.comb(players, size) // (2 if 2 * size == players else 1)
    count = data.draw(st.integers(1, every))
    masks = _distinct(players, size, count, np.random.default_rng(count))
    assert masks.shape == (count, players) and (masks.sum(axis=1) == size).all()
    both = {tuple(row) for mask in masks for row in (mask, ~mask)}
    assert len(both) == 2 * count


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_pairs_are_different_and_even(first, second, data):
    count = data.draw(st.integers(1, first * second))
    i, j = _pairs(first, second, count, np.random.default_rng(0))
    assert len(set(zip(i, j))) == count and i.max() < first and j.max() < second
    assert np.ptp(np.bincount(i, minlength=first)) <= 1


@given(st.lists(st.tuples(st.floats(1e-3, 1), st.integers(1, 50)), min_size=1, max_size=8), st.integers(0, 400))
def test_parts_get_what_there_is_in_proportion_and_no_more_than_they_hold(parts, total):
    mass, most = map(np.array, zip(*parts))
    counts = _dealt(mass, most, total)
    assert (counts >= 0).all() and (counts <= most).all() and counts.sum() <= total
    assert counts.sum() == min(total, most.sum()) and (total < len(parts) or counts.all())


def test_more_masks_do_not_make_it_worse_where_the_coalitions_are_more_than_a_process_takes(products):
    missed = {budget: [] for budget in (272, 1088)}
    for seed in range(3):
        for budget, found in missed.items():
            game = asked(lambda players, _, seed=seed: products(players, seed), 8, 8, n=1)
            found.append(float(((sampled_shapley(game, budget, seed)[0] - game.model.truth) ** 2).sum()))
    assert np.median(missed[1088]) < 1e-4 and np.median(missed[272]) < 1e-4


@pytest.mark.filterwarnings("error")
def test_an_exclusive_or_has_no_value_and_what_is_not_a_number_stays_with_its_example(products):
    game = asked(products, cells=6, words=6)
    game.values = lambda keep, examples: (keep[:, [0, 7]].sum(dim=1) == 1).double()
    assert torch.allclose(sampled_shapley(game, budget=24), torch.zeros(2, 12, dtype=torch.float64), atol=1e-9)
    game.values = lambda keep, examples: keep.double().sum(dim=1).where(examples == 0, torch.nan)
    found = sampled_shapley(game, budget=24)
    assert torch.allclose(found[0], torch.ones(12, dtype=torch.float64)) and found[1].isnan().all()


def test_a_budget_too_small_and_no_matches_are_refused(products):
    for wrong in ({"budget": 3}, {"matched": 0}, {"budget": 16.5}, {"budget": "all"}, {"matched": None}):
        with pytest.raises(InputError, match="expected at least 4 masks"):
            sampled_shapley(asked(products), **wrong)


def test_more_players_than_can_be_counted_are_refused():
    class Sum(torch.nn.Module):
        def forward(self, seen, tokens):
            return seen.sum(dim=(1, 2)) + tokens.sum(dim=1)

    def game(words):
        return Game(Sum().eval(), {"seen": torch.ones(1, 2, 1), "tokens": torch.full((1, words), 2)},
                    [Vectors("image", "seen"), Tokens()], progress=False)

    with pytest.raises(InputError, match="an example has 1202 players, at most 1000 can be estimated; put features in"):
        sampled_shapley(game(1200))
    assert sampled_shapley(game(998), budget=4)[0].sum() == pytest.approx(2 + 2 * 998 - 998, rel=1e-6)
