"""What is read from a record: of numbers, of several labels, and of more than two modalities."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from crossexplain.checks import InputError
from crossexplain.gradients.modalities import Vectors
from crossexplain.gradients.rounds import feature_dividends, rounds
from crossexplain.gradients.views import FULL, NOTHING

N = 120


class Of(nn.Module):
    """A known function of the sum of each modality's numbers."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, **given):
        return self.rule(*(given[name].sum(dim=(1, 2)) for name in sorted(given)))


def given(names, n=N, features=2):
    draws = torch.randn(len(names), n, features, 1, generator=torch.Generator().manual_seed(0))
    return dict(zip(names, draws))


def record(rule, names, **settings):
    settings = {"progress": False, "pick": None} | settings
    return rounds(Of(rule).eval(), given(names), [Vectors(name, name) for name in names], **settings)


def value_by_hand(rule, inputs, i, kept, baseline, draws=4, seed=0):
    """Ask about one example alone, each draw by itself."""
    generator = torch.Generator().manual_seed(seed)
    donors = {name: torch.randperm(len(values), generator=generator)[:draws] for name, values in inputs.items()}
    logits = []
    for draw in range(draws):
        one = {name: values[i : i + 1] if name in kept else 0 * values[:1] if baseline == "zero"
               else values[donors[name][draw]][None] for name, values in inputs.items()}
        logits.append(float(Of(rule)(**one)))
    return np.mean(logits)


def four(a, b, c, d):
    return a * b + 2 * c * d + d


def five(a, b, c, d, e):
    return a * e + b.sin() * c * d + 0.5 * b


@pytest.mark.parametrize("baseline", ["zero", "data"])
@pytest.mark.parametrize(("rule", "names", "interactions", "count"), [
    (lambda a, b, c: a * b + c, "abc", 2, 3 + 1), (four, "abcd", 2, 6 + 4), (five, "abcde", 2, 10), (five, "abcde", 3, 20),
    (four, "abcd", 1, 0),
])
def test_dividends_are_those_of_single_examples(baseline, rule, names, interactions, count):
    inputs, found = given(names), record(rule, names, interactions=interactions)
    dividends, sign = found.dividends(baseline), 2 * found.target.numpy() - 1
    assert len(dividends) == count
    for some, values in dividends.items():
        assert values.shape == (N,)
        for i in (0, 17):
            parts = [(-1) ** (len(some) - k) * value_by_hand(rule, inputs, i, kept, baseline)
                     for k in range(len(some) + 1) for kept in itertools.combinations(some, k)]
            assert values[i] == pytest.approx(sign[i] * sum(parts), abs=1e-4), some


def test_the_pairs_that_interact_are_named():
    judged = record(lambda a, b, c, d: a * b + c * d, "abcd").verdict()
    assert judged.answer == "both only" and judged.reason.endswith("What interacts: a with b, c with d.")
    for baseline in ("zero", "data"):
        named = [some for some, share in judged.interactions[baseline].items() if share.value > 1e-4]
        assert named == [("a", "b"), ("c", "d")], baseline  # no other pair, and no three, has any


def test_a_sum_of_many_has_no_dividend_under_any_baseline():
    found = record(lambda a, b, c, d: a + b.exp() - c + d**3, "abcd")
    for baseline in found.baselines:
        assert max(np.abs(values).max() for values in found.dividends(baseline).values()) < 1e-3
        assert np.abs(found.dividend(baseline)).max() < 1e-3
    judged = found.verdict()
    assert set(judged.answers.values()) <= {"both added", "b alone"} and "interacts" not in judged.reason


def test_two_modalities_have_one_pair_which_is_the_dividend():
    found = record(lambda a, b: a * b, "ab")
    assert set(found.dividends()) == {("a", "b")}
    assert np.allclose(found.dividends("data")["a", "b"], found.dividend("data"), atol=1e-5)
    assert {view for of, view in found.passes if of == "data"} == {FULL, NOTHING, "a masked", "b masked"}


def test_views_of_a_few_modalities_change_nothing_else():
    with_few, without = record(four, "abcd", pick="round 2"), record(four, "abcd", pick="round 2", interactions=1)
    assert set(with_few.passes) - set(without.passes) == {
        (baseline, f"{pair} masked") for baseline in ("zero", "data") for pair in ("a+b", "a+c", "a+d", "b+c", "b+d", "c+d")}
    for key, one in without.passes.items():
        assert torch.equal(one.logits, with_few.passes[key].logits)
        assert all(torch.equal(values, with_few.passes[key].importance[name]) for name, values in one.importance.items())


@pytest.mark.parametrize("baseline", ["zero", "data"])
def test_features_of_three_modalities_carry_what_single_examples_say(baseline):
    def rule(a, b, c):
        return a * b + c * c * b + a

    names, n = "abc", 9
    inputs = given(names, n)
    found = feature_dividends(Of(rule).eval(), inputs, [Vectors(name, name) for name in names], baseline=baseline,
                              progress=False)
    generator = torch.Generator().manual_seed(0)
    donors = {name: torch.randperm(n, generator=generator)[:4] for name in names}

    def value(i, without, hidden):
        """Return the logit of one example without a feature and with modalities hidden, the mean over the draws."""
        logits = []
        for draw in range(4):
            one = {}
            for name, values in inputs.items():
                stands_in = 0 * values[:1] if baseline == "zero" else values[donors[name][draw]][None].clone()
                one[name] = stands_in if name in hidden else values[i : i + 1].clone()
                if without is not None and without[0] == name:
                    one[name][:, without[1]] = stands_in[:, without[1]]
            logits.append(float(Of(rule)(**one)))
        return np.mean(logits)

    for name, (i, feature) in itertools.product(names, ((0, 0), (5, 1))):
        others = [other for other in names if other != name]
        sign = 1 if value(i, None, []) > 0 else -1
        expected = (value(i, None, []) - value(i, (name, feature), []) - value(i, None, others)
                    + value(i, (name, feature), others))
        assert found[name][i, feature] == pytest.approx(sign * expected, abs=1e-4)


def test_each_of_three_modalities():
    assert (record(lambda a, b, c: 3 * b + 0 * a * c, "abc").each("data") == "b alone").sum() >= N - 1
    rests = record(lambda a, b, c: a + b + c, "abc").each("zero")
    assert set(rests) <= {"a alone", "b alone", "c alone", "both added", "either", "cannot tell"}  # nothing interacts


@pytest.mark.parametrize(("answer", "rule"), [
    ("a alone", lambda a, b: 230 + 10 * a + 0 * b), ("both only", lambda a, b: 230 + 10 * a * b),
    ("both added", lambda a, b: -50 - a - b),
])
def test_a_number_has_its_verdict_and_no_rule_of_classes(answer, rule):
    found = record(rule, "ab")
    assert found.verdict().answer == answer and "lie on one side of 0" in found.verdict().reason
    assert all(share.value == 0 for flips in found.verdict().flips.values() for share in flips.values())
    for baseline in (None, "data"):
        with pytest.raises(InputError, match="changes, which it does in no view. All 120 logits.*classes=False"):
            found.paper_rule(baseline)
        assert found.paper_rule(baseline, classes=False) in ("a alone", "b alone", "either", "both only")


def test_examples_of_one_answer_that_a_mask_changes_have_their_rule():
    found = rounds(Of(lambda a, b: a + 0 * b - 3).eval(), {"a": 4 + 0.1 * given("a")["a"], "b": given("b")["b"]},
                   [Vectors("a", "a"), Vectors("b", "b")], baselines=["zero"], progress=False)
    assert (found.target == 1).all() and found.paper_rule() == "a alone"


@pytest.mark.parametrize("rule", [lambda a, b: a + 0 * b + 40, lambda a, b: torch.stack([a, 0 * b, -a], dim=1)])
def test_one_example_does_not_say_what_it_rests_on(rule):
    one = {name: values[:1] for name, values in given("ab").items()}
    modalities = [Vectors("a", "a"), Vectors("b", "b")]
    for donors in (None, given("ab")):
        found = rounds(Of(rule).eval(), one, modalities, donors=donors, progress=False)
        for baseline in found.baselines:
            with pytest.raises(InputError, match="got 1 example.*expected 10 or more"):
                found.each(baseline)
            with pytest.raises(InputError, match="at least 2 examples"):
                found.verdict()


@pytest.mark.parametrize(("change", "says"), [
    ({"interactions": 4}, "interactions=4, expected 2 for pairs"),
    ({"interactions": "all"}, "interactions='all', expected 2"),
    ({"draws": 0}, "draws=0, expected a whole number of donors, 1 or more"),
    ({"draws": "four"}, "draws='four', expected"),
    ({"baselines": 3}, "baselines=3, expected a name such as 'data'"),
    ({"baselines": ["zero", 5]}, r"baselines=\['zero', 5\], expected"),
    ({"target": []}, r"target=\[\], expected a list of different labels"),
    ({"target": [1, 1, 0]}, r"target=\[1, 1, 0\], expected a list of different labels.*torch.tensor\(target\)"),
    ({"target": [0, True]}, "expected a list of different labels"),
    ({"target": [0, 1.5]}, "expected a list of different labels"),
    ({"target": [[0], [1]]}, "expected a list of different labels"),
])
def test_settings_that_are_none(change, says):
    with pytest.raises(InputError, match=says):
        record(lambda a, b: a + b, "ab", **change)


def test_a_record_shows_itself_in_a_few_lines():
    shown = repr(record(lambda a, b: a + b, "ab"))
    assert shown.splitlines() == [
        "Record of 120 example(s) with up to 2 of a, 2 of b features", "  baselines: zero, data",
        "  views: full, a masked, b masked, all masked",
        "  record.verdict() judges it; record.passes[baseline, view] holds the numbers"]


def test_what_is_said_of_numbers_reads_as_sentences():
    found = record(lambda a, b: 230 + 10 * a + 0 * b, "ab")
    low, high = (f"{float(value):.4g}" for value in found.passes["zero", FULL].logits.aminmax())
    same = (f"All 120 logits lie on one side of 0 (from {low} to {high}): if they are a number, such as a price, and no yes or "
            "no, flips say nothing.")
    assert found.verdict().reason == ("every baseline says so (zero: a alone (100% of samples); data: a alone (100% of "
                                      f"samples)). {same}")
    with pytest.raises(InputError) as refused:
        found.paper_rule()
    assert str(refused.value) == (f"the paper's rule asks whether the predicted class changes, which it does in no view. {same}"
                                  " Pass classes=False to read the gradient norms alone, or examples that the model answers "
                                  "differently.")


def test_groups_are_one_an_example():
    with pytest.raises(InputError, match="groups with 3 entries, expected one for each of the 120 examples"):
        record(lambda a, b: a + b, "ab").verdict(groups=[0, 1, 2])
