"""The verdict on logits whose truth is known; what it says of numbers, of few examples and of more than two modalities."""

import itertools

import numpy as np
import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.gradients.verdict import FEWEST, dividend, dividends, each, leaving, verdict
from crossexplain.gradients.views import FULL, NOTHING

N = 300
TWO = ["image", "text"]


def views_of(value, names, n=N, seed=0, scale=1.0):
    """Return the logits of all views of a function of one number a modality; 0 stands in for what is masked."""
    drawn = dict(zip(names, scale * torch.randn(len(names), n, generator=torch.Generator().manual_seed(seed)).double()))
    logits = {}
    for order in range(len(names) + 1):
        for kept in itertools.combinations(names, order):
            given = [drawn[name] if name in kept else torch.zeros(n).double() for name in names]
            logits[leaving(kept, names)] = value(*given)[:, None].expand(n, 1)
    return drawn, logits


def predicted(logits):
    return (logits[FULL][:, 0] > 0).long()


RULES = {
    "image alone": lambda image, text: 3 * image + 0 * text,
    "text alone": lambda image, text: 3 * text + 0 * image,
    "both only": lambda image, text: 3 * image * text,
    "both added": lambda image, text: 2 * image + 2 * text,
}


@pytest.mark.parametrize("answer", RULES)
@pytest.mark.parametrize("shift", [0, 200.0, -1e6])
def test_a_number_is_judged_as_a_logit_is(answer, shift):
    _, plain = views_of(RULES[answer], TWO)
    _, moved = views_of(lambda *given: shift + RULES[answer](*given), TWO)
    one, other = verdict({"zero": plain}, TWO), verdict({"zero": moved}, TWO)
    assert one.answer == other.answer == answer
    for part, reached in one.reach["zero"].items():
        assert other.reach["zero"][part].value == pytest.approx(reached.value, abs=1e-6)
    assert ("300 logits lie on one side of 0" in other.reason) == (shift != 0)
    assert "one side" not in one.reason


def test_several_columns_and_logits_at_0_are_no_number():
    _, logits = views_of(RULES["both added"], TWO)
    clamped = {view: values.clamp(min=0) for view, values in logits.items()}  # some are 0: the model says no
    two = {view: torch.cat([values, 5 + values.abs()], dim=1) for view, values in logits.items()}
    assert "one side" not in verdict({"zero": clamped}, TWO).reason + verdict({"zero": two}, TWO).reason


def one_by_one(logits, names, enough=0.75):
    """Say what each example rests on, by a loop; the middle of a view is that of the middles of its classes."""
    says = logits[FULL][:, 0].numpy() > 0
    middle = {view: np.mean([np.sort(values[:, 0].numpy()[says == one])[(np.sum(says == one) - 1) // 2]
                             for one in np.unique(says)]) for view, values in logits.items()}
    answers = []
    for i in range(len(says)):
        whole = float(logits[FULL][i, 0]) - middle[FULL]
        alone = {name: float(logits[leaving([name], names)][i, 0]) - middle[leaving([name], names)] for name in names}
        sign = -1 if whole < 0 else 1
        carry = [name for name in names if sign * alone[name] >= enough * sign * whole]
        added = sign * sum(alone.values()) >= enough * sign * whole
        answers.append("cannot tell" if whole == 0 else "either" if len(carry) > 1 else f"{carry[0]} alone" if carry else
                       "both added" if added else "both only")
    return answers


@pytest.mark.parametrize("names", [TWO, ["a", "b", "c"]])
@pytest.mark.parametrize("shift", [0, 7.0, 200.0])
def test_what_each_example_rests_on_is_what_a_loop_says(names, shift):
    _, logits = views_of(lambda first, second, *rest: shift + first + 0.5 * second + first * second + sum(rest), names)
    # a baseline that shifts and stretches is no evidence
    logits = {view: 0.8 * values + 11 if view != FULL else values for view, values in logits.items()}
    found = each(logits, names, predicted(logits))
    assert found.tolist() == one_by_one(logits, names) and len(set(found)) > 2


@pytest.mark.parametrize("answer", ["image alone", "text alone"])
@pytest.mark.parametrize("heaps", [(3.0, -3.0), (3.0, -12.0), (30.0, 20.0), (-200.0, -230.0)])
def test_one_modality_carries_every_example_wherever_its_logits_lie(answer, heaps):
    first = torch.where(torch.arange(N) < N // 3, *map(torch.tensor, heaps)) + \
        torch.randn(N, generator=torch.Generator().manual_seed(1))
    carrying = {"image alone": "text masked", "text alone": "image masked"}[answer]
    logits = {view: torch.zeros(N, 1) for view in ("image masked", "text masked", NOTHING)}
    logits |= {FULL: first[:, None], carrying: first[:, None] - 4.0}
    for target in (predicted(logits), torch.ones(N, dtype=torch.long)):
        found = each(logits, TWO, target)
        assert set(found) <= {answer, "cannot tell"} and (found == answer).sum() >= N - 1  # one stands in the middle itself


def test_several_classes_one_by_one():
    generator = torch.Generator().manual_seed(3)
    words = torch.randn(N, 3, generator=generator) + torch.tensor([4.0, 0.0, 0.0])  # most are of the first class
    logits = {FULL: words, "image masked": words + 1, "text masked": torch.zeros(N, 3), NOTHING: torch.zeros(N, 3)}
    for target in (words.argmax(dim=1), torch.full((N,), 2)):
        assert (each(logits, TWO, target) == "text alone").mean() > 0.99
    assert (each(dict.fromkeys(logits, torch.ones(N, 3)), TWO, torch.zeros(N, dtype=torch.long)) == "cannot tell").all()


@pytest.mark.parametrize("n", [1, 2, FEWEST - 1])
def test_few_examples_have_no_middle(n):
    _, logits = views_of(RULES["text alone"], TWO, n)
    with pytest.raises(InputError, match=rf"got {n} example.s., expected {FEWEST} or more.*the middle of all examples"):
        each(logits, TWO, predicted(logits))
    _, logits = views_of(RULES["text alone"], TWO, FEWEST)
    assert (each(logits, TWO, predicted(logits)) == "text alone").sum() >= FEWEST - 1


def test_dividends_are_what_no_smaller_part_explains():
    names = ["a", "b", "c", "d"]
    drawn, logits = views_of(lambda a, b, c, d: a + 2 * b + 3 * a * b - c * d + 5 * a * c * d, names)
    yes = torch.ones(N, dtype=torch.long)
    a, b, c, d = (values.numpy() for values in drawn.values())
    expected = {("a", "b"): 3 * a * b, ("c", "d"): -c * d, ("a", "c", "d"): 5 * a * c * d}
    found = dividends(logits, names, yes)
    assert len(found) == 6 + 4
    for some, values in found.items():
        assert np.allclose(values, expected.get(some, 0 * a), atol=1e-9), some
    assert np.allclose(dividend(logits, names, yes), sum(expected.values()), atol=1e-9)
    fewer = {view: values for view, values in logits.items() if view != "b+d masked"}  # (a, c)
    assert set(found) - set(dividends(fewer, names, yes)) == {("a", "c"), ("a", "b", "c"), ("a", "c", "d")}


@pytest.mark.parametrize("names", [TWO, ["a", "b", "c"]])
def test_the_dividend_of_all_is_that_of_the_whole(names):
    _, logits = views_of(lambda a, b, *rest: a * b + sum(rest), names)
    target = predicted(logits)
    assert np.allclose(dividends(logits, names, target)[tuple(names[:2])], dividend(logits, names, target), atol=1e-9)


@pytest.mark.parametrize(("rule", "interact"), [
    (lambda a, b, c, d: a * b + c * d, ["a with b", "c with d"]),
    (lambda a, b, c, d: a * d + 0.5 * b + 0.01 * b * c, ["a with d"]),
    (lambda a, b, c, d: a * b * c + d, ["a with b and c"]),
    (lambda a, b, c, d: a + b + c + d, []),
    (lambda a, b, c, d: a * b * c * d, ["a with b and c and d"]),
])
def test_what_interacts_is_named(rule, interact):
    names = ["a", "b", "c", "d"]
    judged = verdict({"zero": views_of(rule, names)[1], "again": views_of(rule, names, seed=1)[1]}, names)
    said = judged.reason.partition("What interacts: ")[2].rstrip(".")
    assert said == ", ".join(interact)
    assert judged.interacting == tuple(tuple(some.replace(" with ", " and ").split(" and ")) for some in interact)
    assert all(f"{some} " in line for some in interact if len(some) < 16 for line in str(judged).splitlines()[1:])
    shares = {baseline: sum(share.value for share in found.values()) for baseline, found in judged.interactions.items()}
    assert all(share <= 1 + 1e-6 for share in shares.values())
    if "a with b" in interact:  # of nothing else: the two shares are those of the two products
        assert shares["zero"] == pytest.approx(1, abs=1e-6)
        a, b, c, d = (values.abs() for values in views_of(rule, names)[0].values())
        share = float((a * b).sum() / (a * b + c * d).sum())
        assert judged.interactions["zero"]["a", "b"].value == pytest.approx(share, abs=1e-6)


def test_either_of_three_says_which():
    same = torch.randn(N, generator=torch.Generator().manual_seed(0)).double()[:, None]
    logits = {leaving(kept, list("abc")): same if {"a", "c"} & set(kept) else 0 * same
              for order in range(4) for kept in itertools.combinations("abc", order)}
    judged = verdict({"zero": logits}, list("abc"))
    assert judged.answer == "either" and "Each of a and c would do." in judged.reason


def test_two_modalities_have_no_interactions_to_name():
    judged = verdict({"zero": views_of(RULES["both only"], TWO)[1]}, TWO)
    assert judged.interactions == {"zero": {}} and "What interacts" not in judged.reason
    assert str(judged).splitlines()[1].endswith("interaction 1.00 [1.00, 1.00]")


@pytest.mark.parametrize(("change", "says"), [
    ({"enough": "much"}, "enough='much'.*at most 1"),
    ({"enough": 0}, "enough=0 "),
    ({"draws": 2.5}, "draws=2.5, expected a whole number"),
])
def test_settings_that_are_none(change, says):
    with pytest.raises(InputError, match=says):
        verdict({"zero": views_of(RULES["both added"], TWO)[1]}, TWO, **change)


def test_logits_of_another_shape_are_refused():
    _, logits = views_of(RULES["both added"], TWO)
    with pytest.raises(InputError, match=r"'text masked' under 'zero' have the shape \(300,\), expected \(N, C\), \(300, 1\)"):
        verdict({"zero": logits | {"text masked": logits["text masked"][:, 0]}}, TWO)
    with pytest.raises(InputError, match=r"the shape \(300,\), expected"):
        verdict({"zero": {view: values[:, 0] for view, values in logits.items()}}, TWO)
