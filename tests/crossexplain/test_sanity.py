"""Sanity checks by hand and against captum, quantus and scipy."""

import numpy as np
import pytest
import quantus
import torch
from captum.metrics import sensitivity_max
from scipy.stats import kendalltau, spearmanr
from torch import nn

from crossexplain.evaluation.sanity import (
    largest_change,
    randomised_weights,
    rank_stability,
    shuffled_labels,
)

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def net(classes: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, classes)).eval()


def slopes(model, x=X, target=0):
    x = x.clone().requires_grad_()
    output = model(x)
    target = torch.as_tensor(target).expand(len(x))
    return torch.autograd.grad(output.gather(1, target[:, None]).sum(), x)[0].detach()


def test_what_depends_on_the_weights_changes_and_what_does_not_stays():
    model, before = net(), {name: value.clone() for name, value in net().state_dict().items()}
    found = randomised_weights(slopes, model)
    assert list(found) == ["2", "0"] and all(one.shape == (4,) for one in found.values())
    assert found["0"].max() < 0.999
    assert all(np.allclose(one, 1) for one in randomised_weights(lambda model: X, model).values()), "edges never change"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "the model is left as it was"


def test_a_cascade_keeps_what_was_drawn_before():
    cascade, alone = (randomised_weights(slopes, net(), cascade=cascade) for cascade in (True, False))
    assert np.allclose(cascade["2"], alone["2"]) and not np.allclose(cascade["0"], alone["0"])
    assert list(randomised_weights(slopes, net(), layers=["0"])) == ["0"]
    with pytest.raises(ValueError, match="got layer '1', expected one with weights of its own: 0, 2"):
        randomised_weights(slopes, net(), layers=["1"])
    with pytest.raises(ValueError, match="no weights"):
        randomised_weights(lambda model: X, nn.Tanh())


def test_weights_without_a_rule_to_draw_them_are_shuffled():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(6.0))

        def forward(self, x):
            return x * self.weight

    seen = []
    randomised_weights(lambda model: seen.append(model.weight.detach().clone()) or X, Scale())
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[1].sort().values, seen[0])


def test_randomised_weights_are_those_of_quantus():
    model, x = net(), X[:, None].numpy()

    def explain(model, inputs, targets, **kwargs):
        return slopes(model, torch.as_tensor(inputs)[:, 0])[:, None].numpy()

    class Row(nn.Module):  # quantus gives (N, 1, F)
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x[:, 0])

    theirs = quantus.MPRT(similarity_func=quantus.similarity_func.correlation_spearman, seed=7, abs=False, normalise=False,
                          disable_warnings=True)(
        model=Row().eval(), x_batch=x, y_batch=np.zeros(4, int), channel_first=True,
        explain_func=lambda model, inputs, targets, **kwargs: explain(model.inner, inputs, targets))
    ours = randomised_weights(slopes, model, seed=8)  # theirs adds 1
    assert np.allclose(ours["2"], theirs["inner.2"]) and np.allclose(ours["0"], theirs["inner.0"])


def test_shuffled_labels_tell_what_was_learnt():
    labels = np.array([0, 0, 1, 1, 1, 0])
    asked = []

    def fit(labels):
        asked.append(labels)
        return "noise"

    explained = {"real": np.array([[1.0, 2.0, 3.0]]), "noise": np.array([[3.0, 2.0, 1.0]])}
    assert shuffled_labels(explained.get, "real", fit, labels).tolist() == [-1]
    assert sorted(asked[0]) == sorted(labels) and not np.array_equal(asked[0], labels)
    with pytest.raises(ValueError, match="shuffling equal labels changes nothing"):
        shuffled_labels(explained.get, "real", fit, np.ones(4))


def test_the_largest_change_is_captums_sensitivity_and_by_hand():
    model = net()
    fixed = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(2)) * 0.1  # of each example, five moves
    ours = largest_change(slopes(model), (slopes(model, X + step) for step in fixed.transpose(0, 1)))

    def explain(x):  # captum calls it without gradients
        with torch.enable_grad():
            return (slopes(model, x[0] if isinstance(x, tuple) else x),)

    theirs = sensitivity_max(explain, X, perturb_func=lambda x: x + fixed.reshape(-1, 6), n_perturb_samples=5)
    assert np.allclose(ours, theirs.numpy(), atol=1e-6) and (ours > 0).all()
    # moved by (0.3, 0.4) from (3, 4): 0.5 / 5
    assert largest_change([[3.0, 4.0]], [[[3.3, 4.4]], [[3.0, 4.0]]])[0] == pytest.approx(0.1)
    assert largest_change([[0.0, 0.0]], [[[3.0, 4.0]]])[0] == 5, "of a length of 0 the distance itself"
    assert largest_change([[1.0, 1.0]], []).tolist() == [0]


def test_stability_over_baselines_by_hand_and_as_scipy_has_it():
    order = [1.0, 2.0, 3.0]
    scores = {"zero": [order], "mean": [order], "blur": [order], "noise": [[3.0, 2.0, 1.0]]}
    assert rank_stability(scores)[0] == 0, "three pairs agree, three are reversed"
    rng = np.random.default_rng(0)
    drawn = {name: rng.integers(0, 5, (3, 7)).astype(float) for name in "abcd"}
    drawn["a"][1, 2] = np.nan
    there = ~np.isnan(drawn["a"][1])
    for kind, of in (("kendall", kendalltau), ("spearman", spearmanr)):
        values = list(drawn.values())
        pairs = [(x, y) for i, x in enumerate(values) for y in values[i + 1:]]
        assert rank_stability(drawn, kind)[0] == pytest.approx(np.mean([of(x[0], y[0]).statistic for x, y in pairs]))
        expected = [of(x[1][~np.isnan(x[1] + y[1])], y[1][~np.isnan(x[1] + y[1])]).statistic for x, y in pairs]
        assert rank_stability(drawn, kind)[1] == pytest.approx(np.mean(expected)) and there.sum() == 6
    assert np.isnan(rank_stability({name: np.ones((2, 3)) for name in "abcd"})).all()
    with pytest.raises(ValueError, match="got 2 baselines .zero, mean., expected at least 4"):
        rank_stability({"zero": [order], "mean": [order]})
    with pytest.raises(ValueError, match="expected the same examples and features"):
        rank_stability(scores | {"noise": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match="expected 'kendall' or 'spearman'"):
        rank_stability(scores, "pearson")


def test_an_explanation_must_be_rows_of_numbers():
    with pytest.raises(ValueError, match=r"expected \(N, F\)"):
        randomised_weights(lambda model: np.ones(4), net())
    with pytest.raises(ValueError, match="NaN everywhere"):
        randomised_weights(lambda model: np.full((2, 3), np.nan), net())
