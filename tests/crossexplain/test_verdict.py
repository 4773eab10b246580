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
    told = " ".join(str(judged).split()).split(" zero: ")[1].split(" again: ")  # one line a baseline, however it is wrapped
    assert all(f"{some} " in line for some in interact if len(some) < 16 for line in told)
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
    assert " ".join(str(judged).split()).endswith("interaction 1.00 [1.00, 1.00]")
    assert all(len(line) <= 88 for line in str(judged).splitlines())


BITS = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (3, N)))
OF_THREE = {  # what a logit of three signs rests on
    "a": (lambda a, b, c: a, "a alone", (("a",),)),
    "a or c": (None, "either", (("a",), ("c",))),
    "a + c": (lambda a, b, c: a + c, "both added", (("a",), ("c",))),
    "a + b + c": (lambda a, b, c: a + b + c, "both added", (("a",), ("b",), ("c",))),
    "bc": (lambda a, b, c: b * c, "both only", (("b", "c"),)),
    "a + bc": (lambda a, b, c: a + b * c, "both only", (("a",), ("b", "c"))),
    "ab + ac": (lambda a, b, c: a * b + a * c, "both only", (("a", "b"), ("a", "c"))),
    "ab + ac + bc": (lambda a, b, c: a * b + a * c + b * c, "both only", (("a", "b"), ("a", "c"), ("b", "c"))),
    "abc": (lambda a, b, c: a * b * c, "both only", (("a", "b", "c"),)),
}


def views_of_three(rule, noise=0.0, stretch=1.0, seed=0):
    """Return all views of a function of three signs; masked views are stretched, and each is shifted."""
    names, random, logits = list("abc"), np.random.default_rng(seed), {}
    for kept in itertools.chain.from_iterable(itertools.combinations(names, order) for order in range(4)):
        if rule is None:
            value = BITS[0] if {"a", "c"} & set(kept) else 0 * BITS[0]
        else:
            value = rule(*(BITS[i] * (name in kept) for i, name in enumerate(names)))
        factor, shift = (1, 0) if len(kept) == 3 else (stretch, (1 - stretch) * random.normal())
        logits[leaving(kept, names)] = (factor * (value + noise * torch.from_numpy(random.normal(size=N))) + shift)[:, None]
    return logits


@pytest.mark.parametrize("stretch", [1.0, 0.5])
@pytest.mark.parametrize("kind", OF_THREE)
def test_the_parts_of_three_modalities_are_named(kind, stretch):
    rule, answer, terms = OF_THREE[kind]
    judged = verdict({"zero": views_of_three(rule, 0.1, stretch), "data": views_of_three(rule, 0.2, stretch, 1)}, list("abc"))
    assert (judged.answer, judged.terms) == (answer, terms), str(judged)
    assert judged.subset == tuple(name for name in "abc" if name in kind.replace("or", ""))
    assert judged.carriers == tuple(part[0] for part in terms if len(part) == 1)
    assert judged.interacting == tuple(part for part in terms if len(part) > 1)
    assert judged.support >= 0.95 and judged.answer in str(judged)


def test_shares_of_dividends_are_those_of_the_variation_and_sum_to_1():
    _, logits = views_of(lambda a, b, c: 2 * a + b * c + 0.5 * a * b * c, list("abc"))
    (shares,) = verdict({"zero": logits}, list("abc")).shares.values()
    assert sum(share.value for share in shares.values()) == pytest.approx(1) and len(shares) == 7
    whole = logits[FULL][:, 0].numpy()
    for part, values in dividends(logits, list("abc"), torch.ones(N, dtype=torch.long)).items():
        expected = np.cov(values, whole, bias=True)[0, 1] / whole.var()
        assert shares[part].value == pytest.approx(expected, abs=1e-9)
        assert shares[part].low <= shares[part].value <= shares[part].high
    assert shares["a",].value > 0.6 > shares["b", "c"].value > 0.1 > abs(shares["a", "b"].value)
    _, two = views_of(RULES["both added"], TWO)
    assert abs(verdict({"zero": two}, TWO).shares["zero"]["image", "text"].value) < 1e-9


def test_where_no_answer_holds_nothing_is_named():
    split = verdict({"zero": views_of_three(OF_THREE["bc"][0]), "data": views_of_three(OF_THREE["a"][0])}, list("abc"))
    assert split.answer == "cannot tell" and split.subset == split.terms == split.carriers == split.interacting == ()
    assert "zero: both only, b with c" in split.reason and "data: a alone" in split.reason


def test_modalities_are_named_where_it_is_open_how_they_go_together():
    """Between a + b and a with b there is no telling, and yet it is these two."""
    added = views_of_three(lambda a, b, c: a + b, 0.1)
    together = added | {leaving(name, "abc"): 0 * added[FULL] for name in "ab"}
    judged = verdict({"zero": added, "data": together}, list("abc"))
    assert judged.answer == "cannot tell" and judged.terms == () and judged.subset == ("a", "b"), str(judged)
    assert "They rest on a and b, however these go together." in judged.reason


def mixture(share, n=400, stretch=1.0):
    """Return views of a model in which the text alone decides a share of the examples, and both the others."""
    image, text = torch.from_numpy(np.random.default_rng(1).choice([-1.0, 1.0], (2, n)))
    own = torch.arange(n) < share * n
    full, by_text = torch.where(own, text, image * text), torch.where(own, stretch * text, 0 * text)
    return {view: values[:, None] for view, values in {FULL: full, "image masked": by_text, "text masked": 0 * text,
                                                       NOTHING: 0 * text}.items()}


def test_a_model_of_two_minds_is_told_by_its_share():
    judged = verdict({"zero": mixture(0.5), "data": mixture(0.5)}, TWO)
    assert judged.answer == "partly text, partly both" and judged.terms == (("text",), ("image", "text"))
    kept = 1 - judged.flips["zero"]["image"].value
    assert f"Predictions that text alone gives as well: zero: {kept:.0%} [" in judged.reason
    assert verdict({"zero": mixture(0.0)}, TWO).answer == "both only"
    assert verdict({"zero": mixture(1.0)}, TWO).answer == "text alone"


def test_between_neighbours_a_part_is_named_where_samples_agree_that_there_is_one():
    def near(share, seed):
        """Views of which about every second sample calls a part the text's own."""
        random = np.random.default_rng(seed)
        views = mixture(share)
        return views | {"image masked": views["image masked"] + 0.05 * torch.from_numpy(random.normal(size=(400, 1)))}

    shares = [verdict({"zero": near(share, 0)}, TWO).answers["zero"] for share in (0.0, 0.3, 0.5, 1.0)]
    assert shares[0] == "both only" and shares[2] == "partly text, partly both" and shares[3] == "text alone"
    (border,) = [share for share in np.arange(0.05, 0.45, 0.01) if near_border(near(share, 0))][:1]
    open_, other = near(border, 0), near(border, 1)
    judged = verdict({"zero": open_, "data": other}, TWO)
    assert judged.answer == "partly text, partly both" and judged.support > 0.95
    assert "no other answer fits all samples and baselines" in judged.reason
    whole = {view: values if view != "image masked" else open_[FULL] for view, values in open_.items()}
    assert verdict({"zero": whole, "data": mixture(0.0) | {FULL: open_[FULL]}}, TWO).answer == "cannot tell"  # no neighbours


def test_of_a_few_examples_no_part_is_named_by_chance():
    """Thirty of a model whose answers rest on both: what the text seems to give by itself is chance."""
    named = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        whole, text, image = (torch.from_numpy(random.normal(size=(30, 1))) for _ in range(3))
        views = {FULL: whole, "image masked": 0.1 * text, "text masked": 0.1 * image, NOTHING: torch.zeros(30, 1).double()}
        named.append(verdict({"zero": views}, TWO, seed=seed).answer)
    assert named.count("both only") >= 26 and sum(answer.startswith("partly") for answer in named) <= 2, named
    assert not any(answer.endswith("alone") for answer in named)


def test_of_a_part_that_is_there_both_only_is_not_said():
    """The text alone accounts for a fifth, of which sixty examples are not sure: a part, or open, but not both only."""
    named = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        whole, text, image = (torch.from_numpy(random.normal(size=(60, 1))) for _ in range(3))
        views = {FULL: whole, "image masked": 0.5 * whole + text, "text masked": 0.1 * image, NOTHING: 0 * whole}
        named.append(verdict({"zero": views}, TWO, seed=seed).answer)
    assert named.count("partly text, partly both") >= 24 and named.count("both only") <= 2, named
    assert set(named) <= {"partly text, partly both", "cannot tell", "both only"}


def test_a_part_too_small_to_be_named_is_not_named_because_it_is_sure():
    """The text alone accounts for a little, surely more than the image, and some samples read more than a tenth."""
    wavering, answers = 0, []
    for seed in range(10):
        random = np.random.default_rng(seed)
        whole, text, image = (torch.from_numpy(random.normal(size=(400, 1))) for _ in range(3))
        nothing = {FULL: whole, "text masked": 0.1 * image, NOTHING: 0 * whole}
        little = nothing | {"image masked": 0.26 * whole + text}
        judged = verdict({"zero": little}, TWO, seed=seed)
        part = judged.reach["zero"]["text"]
        wavering += part.value < 0.1 < part.high and judged.reach["zero"]["image"].high < part.value
        assert part.value >= 0.1 or not judged.answer.startswith("partly"), judged
        answers.append(verdict({"zero": little, "data": nothing | {"image masked": text}}, TWO, seed=seed).answer)
    assert wavering >= 4 and set(answers) == {"both only"}


def near_border(views):
    """Return whether samples waver between both only and a part that is the text's own."""
    judged = verdict({"zero": views}, TWO)
    return judged.answer == "partly text, partly both" and "no other answer fits" in judged.reason


@pytest.mark.parametrize(("noise", "answer"), [(0.6, "either"), (0.8, "either"), (2.0, "cannot tell")])
def test_the_mean_over_baselines_counts_if_none_is_far_from_it(noise, answer):
    random = np.random.default_rng(0)
    label = torch.from_numpy(random.choice([-1.0, 1.0], N))[:, None]
    zero = {FULL: label, "image masked": label, "text masked": label, NOTHING: 0 * label}
    borrowed = zero | {"text masked": label + noise * torch.from_numpy(random.normal(size=(N, 1)))}
    judged = verdict({"zero": zero, "data": borrowed}, TWO)
    assert judged.answer == answer and judged.reach["zero"]["image"].value == pytest.approx(1)
    if noise == 0.8:
        assert judged.answers["data"] == "text alone" and "the mean over the baselines says so" in judged.reason
    assert (judged.terms == ()) == (answer == "cannot tell")


def test_answers_count_where_logits_vary_more_than_they():
    """A modality that gives every answer carries it, though the other makes the logits larger."""
    image, text = torch.from_numpy(np.random.default_rng(1).choice([-1.0, 1.0], (2, N)))
    views = {FULL: text * (3 + 2.9 * image), "image masked": text, "text masked": 0 * text, NOTHING: 0 * text}
    views = {view: values[:, None] for view, values in views.items()}
    judged = verdict({"zero": views}, TWO)
    assert judged.answer == "text alone" and judged.reach["zero"]["text"].value < 0.6
    number = {view: values + 100 for view, values in views.items()}  # a number has no answers that could agree
    assert verdict({"zero": number}, TWO).answer == "partly text, partly both"


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


@pytest.mark.parametrize("answer", RULES)
@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-7])
def test_small_logits_are_judged_as_large_ones(answer, scale):
    _, logits = views_of(RULES[answer], TWO)
    large = verdict({"zero": logits}, TWO)
    small = verdict({"zero": {view: scale * values for view, values in logits.items()}}, TWO)
    assert small.answer == large.answer == answer and small.support == large.support
    for part, share in small.reach["zero"].items():
        assert share == pytest.approx(large.reach["zero"][part], abs=1e-6)


@pytest.mark.parametrize(("bad", "view"), [(float("nan"), FULL), (float("inf"), "text masked")])
def test_logits_that_are_no_numbers_are_refused(bad, view):
    _, logits = views_of(RULES["both added"], TWO)
    spoilt = logits[view].clone()
    spoilt[3] = bad
    with pytest.raises(InputError, match=f"1 of the 300 logits of '{view}' under 'zero' are NaN or infinite, expected finite"):
        verdict({"zero": logits | {view: spoilt}}, TWO)


def test_what_does_not_belong_to_the_logits_is_refused():
    _, logits = views_of(RULES["both added"], TWO)
    with pytest.raises(InputError, match=r"groups of shape \(3,\), expected \(300,\)"):
        verdict({"zero": logits}, TWO, groups=np.zeros(3))
    with pytest.raises(InputError, match=r"target of shape .*3.*expected \(300,\)"):
        verdict({"zero": logits}, TWO, torch.zeros(3, dtype=torch.long))
    with pytest.raises(InputError, match="no baseline, expected at least one"):
        verdict({}, TWO)
    with pytest.raises(InputError, match="expected two or more"):
        verdict({"zero": logits}, ["image"])
