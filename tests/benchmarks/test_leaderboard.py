"""Scores of explanations against the values of all coalitions, held to what can be computed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.studies import leaderboard, pointing
from benchmarks.studies.leaderboard import (
    CELLS,
    METHODS,
    METRICS,
    PLAYERS,
    explain,
    more_methods,
    of_collages,
    of_scenes,
)
from crossexplain.coalitions.shapley import across, shapley
from crossexplain.data import collages, digits
from crossexplain.evaluation.task import CannotRun
from crossexplain.evaluation.truth import edge_map
from crossexplain.gradients import maps, tokens
from crossexplain.recipes import load_or_train, scenes
from crossexplain_book.page import Sortable

N, WHOLE = 8, 2**PLAYERS - 1


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


def asked(times: bool = False) -> leaderboard.Case:
    test = collages.build(digits.load("sklearn"), N, "test", 0)
    seen = torch.zeros(N, CELLS, 10)
    seen[:, :, 0] = 1
    return of_collages(Adds(times).eval().requires_grad_(False), seen, test)


@pytest.fixture(scope="module")
def adds():
    return asked()


def test_every_coalition_has_the_value_of_the_whole_model_with_the_rest_hidden(adds):
    rng = np.random.default_rng(0)
    for i, S in zip(rng.integers(0, N, 40), rng.integers(0, 2**PLAYERS, 40)):
        keep = (S >> np.arange(PLAYERS) & 1).astype(bool)
        tokens = adds.inputs["tokens"][i].clone()
        for t, group in enumerate(adds.game.owner("text")[i]):
            if group >= 0 and not keep[CELLS + group]:
                tokens[t] = 1
        seen = adds.inputs["seen"][i] * torch.from_numpy(keep[:CELLS])[:, None]
        sign = 1 if adds.table[i, WHOLE] * float(adds.model(**adds.inputs)[i]) > 0 else -1
        assert adds.table[i, S] == pytest.approx(sign * float(adds.model(seen[None], tokens[None])[0]), abs=1e-5)


def test_of_a_sum_every_exact_method_gives_the_summands(adds):
    tokens = adds.inputs["tokens"]
    weights = adds.model.embedding.weight[tokens, 0].detach()
    words = adds.joint({"image": np.tile([1.0, 2.0, 3.0, 4.0], (N, 1)), "text": weights})
    for method in ("leave one out", "Shapley, exact", "gradient x input", "integrated gradients"):
        assert np.allclose(explain(adds, method)[0], words, atol=1e-4, equal_nan=True), method
    assert np.abs(across(adds.table, adds.game.names)).max() < 1e-4, "in a sum nothing interacts"
    assert np.abs(across(asked(times=True).table, adds.game.names)).max() > 0.1


def test_the_area_is_that_of_the_two_curves(adds):
    best = shapley(adds.table)
    order = np.argsort(-best[0])
    inserted = [adds.table[0, sum(1 << k for k in order[:taken])] for taken in range(PLAYERS + 1)]
    deleted = [adds.table[0, WHOLE - sum(1 << k for k in order[:taken])] for taken in range(PLAYERS + 1)]
    by_hand = (np.trapezoid(inserted) - np.trapezoid(deleted)) / PLAYERS / np.ptp(adds.table[0])
    assert leaderboard.area(adds, best)[0] == pytest.approx(by_hand)
    assert np.allclose(leaderboard.area(adds, -best), -leaderboard.area(adds, best)), "the reverse loses what this one gains"


def test_of_a_sum_scores_order_coalitions_perfectly_and_nothing_is_synergy(adds):
    best = shapley(adds.table)
    assert np.allclose(METRICS["coalition rank"](adds, best), 1, atol=1e-3)
    assert np.allclose(METRICS["coalition R2"](adds, best), 1, atol=1e-3)
    assert np.allclose(leaderboard.synergy(adds, best), 0, atol=1e-5)
    product = asked(times=True)
    assert (leaderboard.synergy(product, shapley(product.table)) > 0).all(), "of a product the best sides are worth more"


def test_words_are_dealt_into_at_most_eight_groups_of_neighbours(adds):
    tokens = adds.inputs["tokens"]
    for row, real in zip(adds.game.owner("text").numpy(), (tokens != 0).numpy()):
        assert (np.diff(row[real]) >= 0).all() and row[0] == 0 and row[real][-1] == min(real.sum(), 8) - 1
        assert (row[~real] == -1).all()
    assert (adds.present.sum(axis=1) == CELLS + np.minimum((tokens != 0).sum(dim=1).numpy(), 8)).all()


@pytest.mark.parametrize("method", [*METHODS, *more_methods()])
def test_every_method_is_scored_by_every_metric_or_says_why_not(adds, method):
    try:
        scores, passes, seconds = explain(adds, method)
    except CannotRun as reason:
        assert method in more_methods() and len(str(reason)) > 20
        return
    assert scores.shape == (N, PLAYERS) and passes >= 0 and seconds >= 0
    assert np.isnan(scores[~adds.present]).all()
    for metric, of in METRICS.items():
        assert of(adds, scores).shape == (N,), metric


def test_stability_and_sensitivity_are_those_of_what_a_method_says(adds):
    others, moved = adds.hidden_otherwise(), adds.moved(seed=1)
    assert len({str(some.baseline) for some in (adds, *others)}) == 4 and all(some.baseline == adds.baseline for some in moved)
    for method in ("gradient (round 1)", "leave one out", "Shapley, exact", "sampled Shapley"):
        scores = explain(adds, method)[0]
        tau = leaderboard.stability(others, method, scores)
        assert ((tau <= 1 + 1e-9) & (tau >= -1)).all(), method
        if method.startswith("gradient"):
            assert np.allclose(tau, 1), "it hides nothing"
        if method == "leave one out":  # of a sum: hidden cells stay as they are where the stand-in is alike
            by_hand = [abs(explain(other, method)[0]) for other in others]
            assert np.allclose(by_hand[1][:, :CELLS], 0) and np.allclose(by_hand[0][:, :CELLS], abs(scores[:, :CELLS]))
            assert np.allclose(by_hand[1][:, CELLS:], abs(scores[:, CELLS:]), equal_nan=True) and tau.max() < 1
    for method in ("leave one out", "gradient x input"):
        scores = explain(adds, method)[0]
        by_hand = np.max([np.sqrt(np.nansum((explain(some, method)[0] - scores) ** 2, axis=1)) for some in moved], axis=0)
        assert np.allclose(leaderboard.sensitivity(moved, method, scores), by_hand / np.sqrt(np.nansum(scores**2, axis=1)))
        assert 0 < by_hand.max() < 0.1, "cells count up to 4, and move by 0.02 at most"


def test_a_new_map_or_word_score_is_on_the_leaderboard_and_among_the_maps_of_scenes_by_its_title(adds, monkeypatch):
    monkeypatch.setitem(maps.METHODS, "energy", maps.Method(lambda a, g: (a**2).sum(dim=1), "", "2026", title="Energy"))
    monkeypatch.setitem(tokens.METHODS, "value", tokens.Method(lambda a, g: a.sum(dim=-1), True, "the vector itself"))
    assert {"Energy", "value"} <= set(more_methods()) and "MM-SHAP" not in more_methods()
    assert "Energy" in pointing.maps_of(scenes.new_model("clip_cnn"))
    words = adds.model.embedding.weight[adds.inputs["tokens"], 0].detach()
    expected = adds.joint({"text": words})
    assert np.allclose(explain(adds, "value")[0], expected, equal_nan=True)


class Bright(nn.Module):
    """The logit is the sum of the pixels of the upper half, where all there is to see is."""

    def forward(self, images, tokens):
        return images[:, 0, :4].sum(dim=(1, 2))


class Pictures:
    """What :func:`leaderboard.road` reads of a question."""

    model, range = Bright(), np.array([2.0, 2.0])
    inputs = {"images": torch.cat([torch.rand(2, 1, 4, 8), torch.zeros(2, 1, 4, 8)], dim=2), "tokens": torch.zeros(2, 1)}
    game = SimpleNamespace(target=torch.tensor([1, 1]))


def test_pixels_are_removed_in_the_order_of_the_map_and_ties_at_random(monkeypatch):
    right = np.zeros((2, 8, 8))
    right[:, :4] = 1  # half of the pixels tie
    monkeypatch.setattr(pointing, "drawn", lambda images, seed: {"right": right, "wrong": -right, "flat": 0 * right})
    scores = {name: leaderboard.road(Pictures, name) for name in ("right", "wrong", "flat")}
    assert (scores["right"] > 0.1).all() and (scores["wrong"] < -0.1).all()
    assert (np.abs(scores["flat"]) < scores["right"]).all() and np.isfinite(scores["flat"]).all()
    places = leaderboard._places(right, 0)
    assert sorted(places[0].ravel()) == pytest.approx(np.linspace(0, 1, 64)) and places[0, :4].min() > places[0, 4:].max()


def test_baselines_that_never_saw_the_model_by_hand():
    images = np.zeros((1, 3, 8, 8))
    images[:, :, 1:3, 1:3] = 1  # a square within the first of 2 x 2 cells
    edges = leaderboard.edge_scores(images, 2, 2)
    assert edges[0].argmax() == 0 and edges[0, 0] == pytest.approx(edge_map(images)[0, :4, :4].mean()) and edges[0, 3] == 0
    with pytest.raises(ValueError, match="divides 8 x 8 pixels"):
        leaderboard.edge_scores(images, 3, 2)
    lengths = leaderboard.length_scores([["red"], []])
    assert lengths.tolist()[0] == [3] and np.isnan(lengths[1, 0])


def test_an_unknown_method_is_refused(adds):
    with pytest.raises(ValueError, match="expected one of"):
        explain(adds, "tea leaves")


def test_no_order_beats_the_best_one():
    product = asked(times=True)
    bound = leaderboard.area(product, explain(product, "bound: the best order")[0])
    for method in METHODS:
        found = leaderboard.area(product, explain(product, method)[0])
        assert (np.isnan(found) | (found <= bound + 1e-9)).all(), method
    assert (bound > leaderboard.area(product, explain(product, "baseline: random")[0])).all()


def test_words_alone_have_no_joint_area(adds):
    scores, *_ = explain(adds, "baseline: word length")
    assert np.isnan(leaderboard.area(adds, scores)).all() and np.isfinite(leaderboard.area(adds, scores, "text")).all()
    assert np.isnan(METRICS["coalition rank"](adds, scores)).all()


def test_a_method_that_reads_the_inputs_alone_does_not_change_with_the_weights():
    trained = load_or_train("scenes_clip_cnn", progress=False)
    pairs = trained.data.build("test", 8, 0, "foil")
    about = of_scenes(trained.model.eval(), pairs)
    blank = about.redrawn(0)
    assert not torch.equal(blank.model.image.features[0].weight, about.model.image.features[0].weight)
    length, gradient = (leaderboard.changes(about, blank, method, explain(about, method)[0])
                        for method in ("baseline: word length", "gradient (round 1)"))
    assert np.allclose(length[~np.isnan(length)], 0) and np.nanmean(gradient) > 0.2
    words = about.decides["text"]
    for i, (label, false) in enumerate(zip(pairs.labels, pairs.false_word)):
        assert words[i].sum() > 1 if label else words[i].nonzero()[0].tolist() == [int(false) + 1], "behind start-of-text"
    ours, drawn = (leaderboard.road(about, method) for method in ("Grad-CAM", "random map"))
    assert ours.shape == drawn.shape == (8,) and np.isfinite(ours).all() and not np.allclose(ours, drawn)


def test_a_sortable_table_says_what_is_in_it_and_needs_nothing_from_outside():
    shown = Sortable(["method", "score"], [["a<b", 1.5], ["c", 0.5]])._repr_html_()
    assert "a&lt;b" in shown and "<td>1.5</td>" in shown and shown.count("<button>") == 2
    assert "src=" not in shown and "http" not in shown
    with pytest.raises(ValueError, match="3 cells, the header 2"):
        Sortable(["method", "score"], [[1, 2, 3]])
