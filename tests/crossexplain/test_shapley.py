"""What follows from a table of coalitions, held to axioms, to hand-made games, to all orders, and to shapiq."""

from itertools import permutations

import numpy as np
import pytest
import shapiq
from hypothesis import given, settings
from hypothesis import strategies as st

from crossexplain.coalitions.shapley import (
    across,
    banzhaf,
    best_orders,
    dividends,
    interactions,
    shapley,
    sizes,
)

NAMES = ("image", "image", "text", "text")


def game(seed: int, players: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=2**players)


def unanimity(members: int, players: int) -> np.ndarray:
    """1 where all members are there."""
    return (np.arange(2**players) & members == members).astype(float)


GAMES = st.tuples(st.integers(0, 10**6), st.integers(1, 6)).map(lambda drawn: game(*drawn))


@settings(max_examples=40, deadline=None)
@given(GAMES)
def test_efficiency_and_the_dividends_rebuild_the_game(v):
    assert np.isclose(shapley(v).sum(), v[-1] - v[0])
    m = dividends(v)
    for S in range(len(v)):
        assert np.isclose(m[[T for T in range(len(v)) if T & S == T]].sum(), v[S])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.sampled_from([shapley, banzhaf, dividends, interactions]))
def test_linearity(seed, factor, of):
    v, w = game(seed, 4), game(seed + 1, 4)
    assert np.allclose(of(v + factor * w), of(v) + factor * of(w))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([shapley, banzhaf]))
def test_a_dummy_has_what_it_adds_and_twins_have_the_same(seed, of):
    base, S = game(seed, 3), np.arange(16)
    assert np.isclose(of(base[S & 7] + 2.5 * (S >> 3))[3], 2.5)
    assert np.allclose(interactions(base[S & 7] + 2.5 * (S >> 3))[3], 0), "who adds the same to all meets nobody"
    count = np.random.default_rng(seed).normal(size=(4, 3))  # a game that counts players 0 and 1 only by their number
    twins = of(count[(S[:16] >> 2), (S & 1) + (S >> 1 & 1)])
    assert np.isclose(twins[0], twins[1])


def test_shapley_values_are_means_over_all_orders():
    values, by_order = game(0, 4), np.zeros(4)
    for order in permutations(range(4)):
        there = 0
        for k in order:
            by_order[k] += (values[there | 1 << k] - values[there]) / 24
            there |= 1 << k
    assert np.allclose(shapley(values), by_order)


@pytest.mark.parametrize("players", [2, 5, 8])
def test_all_values_are_those_of_shapiq(players):
    v = game(players, players)

    def ask(sets):
        return v[(np.asarray(sets) * (1 << np.arange(players))).sum(axis=1).astype(int)]

    computer = shapiq.ExactComputer(ask, players)
    assert np.abs(computer("SV", 1).get_n_order_values(1) - shapley(v)).max() < 1e-6
    assert np.abs(computer("BV", 1).get_n_order_values(1) - banzhaf(v)).max() < 1e-6
    assert np.abs(computer("SII", 2).get_n_order_values(2) - interactions(v)).max() < 1e-6
    if players > 2:
        assert np.abs(computer("SII", 3).get_n_order_values(3) - interactions(v, 3)).max() < 1e-6
    theirs = computer("Moebius", players)
    for S in range(1, 2**players):
        members = tuple(k for k in range(players) if S >> k & 1)
        assert theirs[members] == pytest.approx(dividends(v)[S], abs=1e-6)


def test_a_product_is_shared_by_its_members_alone():
    v = unanimity(0b1010, 4)
    assert shapley(v).tolist() == [0, 0.5, 0, 0.5]
    pairs = interactions(v)
    assert pairs[1, 3] == pairs[3, 1] == 1 and np.abs(pairs).sum() == 2
    assert across(v, NAMES).tolist() == [[0, 0], [0, 1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(6)), st.floats(-3, 3))
def test_axioms_for_two_players_of_each_of_three_modalities(seed, order, factor):
    """Players 0 and 1 are of the first modality, 2 and 3 of the second, 4 and 5 of the third; efficiency is tested above."""
    v, w, S = game(seed, 6), game(seed + 1, 6), np.arange(64)
    moved = sum((S >> new & 1) << old for new, old in enumerate(order))  # the game with its players in another order
    threes, pairs = interactions(v, 3), interactions(v)
    assert np.allclose(shapley(v[moved]), shapley(v)[list(order)]), "symmetry"
    assert np.allclose(interactions(v[moved], 3), threes[np.ix_(order, order, order)])
    assert np.allclose(interactions(v + factor * w, 3), threes + factor * interactions(w, 3)), "linearity"
    small = v[S & 0b11111] + factor * (S >> 5)  # a dummy of the third modality
    assert np.isclose(shapley(small)[5], factor) and np.allclose(interactions(small, 3)[5], 0)
    of_pairs = v[S & 0b001111] + w[S & 0b111100] + w[S & 0b110011]  # no game of three modalities at once
    across_all = interactions(of_pairs, 3)[:2, 2:4, 4:]
    assert np.allclose(across_all, 0) and np.allclose(threes, threes.transpose(1, 2, 0)) and np.allclose(pairs, pairs.T)


def test_a_parity_of_three_is_an_interaction_of_three_alone():
    signs = np.array([(-1.0) ** (3 - bin(S & 0b111).count("1")) for S in range(16)])
    threes = interactions(signs, 3)
    assert threes[0, 1, 2] == threes[2, 0, 1] == 8 and not threes[3].any() and np.count_nonzero(threes) == 6
    assert np.allclose(interactions(signs), 0)


def test_an_exclusive_or_has_no_shapley_values_but_an_interaction():
    v = np.array([0.0, 1.0, 1.0, 0.0])
    assert shapley(v).tolist() == [0, 0] and interactions(v)[0, 1] == -2


@pytest.mark.parametrize(("wrong", "message"), [(np.zeros(6), "2\\*\\*P"), (np.zeros(()), "2\\*\\*P")])
def test_a_table_of_no_coalitions_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        shapley(wrong)


def test_interactions_of_four_are_refused():
    with pytest.raises(ValueError, match="2 for pairs"):
        interactions(game(0, 4), 4)


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="two modalities"):
        across(np.zeros(16), ("image",) * 4)
    with pytest.raises(ValueError, match="3 names"):
        across(np.zeros(16), ("image", "image", "text"))


def test_no_order_beats_the_best_one():
    v = np.stack([game(seed, 5) for seed in range(4)])

    def worth(values: np.ndarray, order) -> float:
        coalitions = np.cumsum([0, *(1 << np.array(order))])
        return values[coalitions].sum() - values[31 - coalitions].sum()

    for values, scores in zip(v, best_orders(v)):
        best = worth(values, np.argsort(-scores))
        assert best == pytest.approx(max(worth(values, order) for order in permutations(range(5))))


def test_players_that_are_not_there_have_no_place_in_the_best_order():
    v = game(0, 4)
    wide = v[np.arange(32) & 3 | (np.arange(32) >> 1 & 12)]  # player 2 of five is a dummy
    present = np.array([[True, True, False, True, True]])
    scores = best_orders(wide[None], present=present)[0]
    assert np.isnan(scores[2])
    assert np.argsort(-scores[present[0]]).tolist() == np.argsort(-best_orders(v[None])[0]).tolist()


def test_sizes_count_players():
    assert sizes(3).tolist() == [0, 1, 1, 2, 1, 2, 2, 3]
