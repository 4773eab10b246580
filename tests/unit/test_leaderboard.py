"""Scores of explanations against the values of all coalitions, held to what can be computed by hand."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from crossexplain.data import collages, digits
from crossexplain.evaluation import leaderboard
from crossexplain.evaluation.leaderboard import CELLS, METHODS, METRICS, PLAYERS, WHOLE, Asked, explain, shapley
from crossexplain.show.page import Sortable

N = 8


class Adds(nn.Module):
    """Each cell's first number counts for itself, and each word its number; ``times`` multiplies the two sides instead."""

    text_layer = "embedding"

    def __init__(self, times: bool = False):
        super().__init__()
        self.embedding, self.times = nn.Embedding(len(collages.VOCABULARY), 1), times
        self.embedding.weight.data = torch.arange(len(collages.VOCABULARY), dtype=torch.float)[:, None] / 10
        self.embedding.weight.data[:2] = 0

    def see(self, seen):
        return seen[:, :, 0] @ torch.tensor([1.0, 2.0, 3.0, 4.0])

    def read(self, tokens):
        return self.embedding(tokens).sum(dim=(1, 2))

    def match(self, seen, said):
        return seen * said if self.times else seen + said

    def forward(self, seen, tokens):
        return self.match(self.see(seen), self.read(tokens))


def asked(times: bool = False) -> Asked:
    test = collages.build(digits.load("sklearn"), N, "test", 0)
    seen = torch.zeros(N, CELLS, 10)
    seen[:, :, 0] = 1
    return Asked(Adds(times).eval().requires_grad_(False), seen, test)


@pytest.fixture(scope="module")
def adds():
    return asked()


def test_every_coalition_has_the_value_of_the_whole_model_with_the_rest_hidden(adds):
    rng = np.random.default_rng(0)
    for i, S in zip(rng.integers(0, N, 40), rng.integers(0, 2**PLAYERS, 40)):
        keep = (S >> np.arange(PLAYERS) & 1).astype(bool)
        tokens = adds.tokens[i].clone()
        for t, group in enumerate(adds.group[i]):
            if group >= 0 and not keep[CELLS + group]:
                tokens[t] = 1
        seen = adds.seen[i] * torch.from_numpy(keep[:CELLS])[:, None]
        assert adds.table[i, S] == pytest.approx(float(adds.model(seen[None], tokens[None])[0]), abs=1e-5)


def test_of_a_sum_every_exact_method_gives_the_summands(adds):
    words = adds.joint(np.tile([1.0, 2.0, 3.0, 4.0], (N, 1)), adds.model.embedding.weight[adds.tokens, 0].detach().numpy())
    for method in ("leave one out", "Shapley, exact", "Shapley, 16 orders", "gradient x input", "integrated gradients"):
        assert np.allclose(explain(adds, method)[0], words, atol=1e-4), method
    assert np.abs(leaderboard.crossing(adds.table)).max() < 1e-4, "in a sum nothing interacts"
    assert np.abs(leaderboard.crossing(asked(times=True).table)).max() > 0.1


def test_shapley_values_are_means_over_all_orders():
    values = np.random.default_rng(0).normal(size=16)
    by_order = np.zeros(4)
    for order in permutations(range(4)):
        there = 0
        for k in order:
            by_order[k] += (values[there | 1 << k] - values[there]) / 24
            there |= 1 << k
    assert np.allclose(shapley(values), by_order)


def test_the_area_is_that_of_the_two_curves(adds):
    best = shapley(adds.table)
    order = np.argsort(-best[0])
    inserted = [adds.table[0, sum(1 << k for k in order[:taken])] for taken in range(PLAYERS + 1)]
    deleted = [adds.table[0, WHOLE - sum(1 << k for k in order[:taken])] for taken in range(PLAYERS + 1)]
    by_hand = (np.mean(inserted) - np.mean(deleted)) / np.ptp(adds.table[0])
    assert leaderboard.area(adds, best)[0] == pytest.approx(by_hand)
    assert np.allclose(leaderboard.area(adds, -best), -leaderboard.area(adds, best)), "the reverse loses what this one gains"


def test_of_a_sum_scores_order_coalitions_perfectly_and_nothing_is_synergy(adds):
    best = shapley(adds.table)
    assert np.allclose(leaderboard.coalition_rank(adds, best), 1, atol=1e-3)
    assert np.allclose(leaderboard.synergy(adds, best), 0, atol=1e-5)
    product = asked(times=True)
    assert (leaderboard.synergy(product, shapley(product.table)) > 0).all(), "of a product the best sides are worth more"


def test_words_are_dealt_into_at_most_eight_groups_of_neighbours(adds):
    for row, tokens in zip(adds.group, adds.tokens):
        real = row[(tokens != 0).numpy()]
        assert (np.diff(real) >= 0).all() and real[0] == 0 and real[-1] == min(len(real), 8) - 1
        assert (row[len(real):] == -1).all()
    assert (adds.present.sum(axis=1) == CELLS + np.minimum((adds.tokens != 0).sum(dim=1).numpy(), 8)).all()


def test_every_method_is_scored_by_every_metric(adds):
    for method in METHODS:
        scores, passes, seconds = explain(adds, method)
        assert scores.shape == (N, PLAYERS) and passes >= 0 and seconds >= 0
        for metric, of in METRICS.items():
            assert of(adds, scores).shape == (N,), (method, metric)
    with pytest.raises(ValueError, match="expected one of"):
        explain(adds, "tea leaves")


def test_a_sortable_table_says_what_is_in_it_and_needs_nothing_from_outside():
    shown = Sortable(["method", "score"], [["a<b", 1.5], ["c", 0.5]])._repr_html_()
    assert "a&lt;b" in shown and "<td>1.5</td>" in shown and shown.count("<button>") == 2
    assert "src=" not in shown and "http" not in shown
    with pytest.raises(ValueError, match="3 cells, the header 2"):
        Sortable(["method", "score"], [[1, 2, 3]])
