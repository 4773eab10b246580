"""Sums of parts: which views they are made of, in which order they are looked at, and what they account for."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossexplain.gradients.parts import Variation, families, leaving, of_dividend, of_family, simplest, subsets
from crossexplain.gradients.views import FULL

ALL = {leaving(kept, "abc"): None for kept in [(), *subsets("abc")]}


def test_families_of_three_come_from_the_simplest_to_the_whole():
    levels = families("abc", ALL)
    assert [sorted(map(len, level[0]), reverse=True) for level in levels] == [
        [1], [1, 1], [1, 1, 1], [2], [2, 1], [2, 2], [2, 2, 2], [3]]
    assert sum(map(len, levels)) == 18 and levels[-1] == [(("a", "b", "c"),)]
    assert levels[4] == [(("a",), ("b", "c")), (("b",), ("a", "c")), (("c",), ("a", "b"))]
    assert [len(level) for level in families("ab", {leaving(kept, "ab"): None for kept in [(), *subsets("ab")]})] == [2, 1, 1]


@pytest.mark.parametrize("names", ["abcd", "abcde", "abcdef"])
def test_views_that_are_not_there_are_not_asked_for(names):
    few = {leaving(kept, names): None for kept in [(), *subsets(names)] if len(kept) not in (3, 4) or len(kept) == len(names)}
    found = [family for level in families(names, few) for family in level]
    assert tuple((name,) for name in names) in found and (tuple(names),) in found and (("a", "b"),) in found
    assert not any(len(part) in (3, 4) and len(part) < len(names) for family in found for part in family)
    assert all(set(of_family(family, names)) <= set(few) for family in found)


def test_sums_of_views_are_what_their_parts_hold():
    random = np.random.default_rng(0)
    dividend = {part: random.normal(size=(50, 1)) for part in subsets("abc")}
    views = {leaving(kept, "abc"): sum((dividend[part] for part in subsets("abc") if set(part) <= set(kept)), np.zeros((50, 1)))
             for kept in [(), *subsets("abc")]}
    for family in itertools.chain(*families("abc", ALL)):
        within = sum(values for part, values in dividend.items() if any(set(part) <= set(of) for of in family))
        assert np.allclose(sum(factor * views[view] for view, factor in of_family(family, "abc").items()), within)
    for part, values in dividend.items():
        assert np.allclose(sum(factor * views[view] for view, factor in of_dividend(part, "abc").items()), values)
    weights = np.vstack([np.full(50, 1 / 50), random.dirichlet(np.ones(50), 3)])
    variation = Variation(views, weights)
    for family in ((("a",),), (("a",), ("b", "c"))):
        part, whole = sum(factor * views[view] for view, factor in of_family(family, "abc").items()), views[FULL]
        for weight, reached in zip(weights, variation.accounts_for(of_family(family, "abc"))):
            covariance = np.cov(part[:, 0], whole[:, 0], aweights=weight)
            r = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
            assert reached == pytest.approx(max(r, 0) ** 2)
    assert np.allclose(sum(variation.share(of_dividend(part, "abc")) for part in subsets("abc")), 1)


def test_the_simplest_that_is_enough_is_found_in_each_sample():
    levels = families("abc", ALL)
    reached = {(("a",),): [0.9, 0.9, 0.1, 0.1, 0.1], (("c",),): [0.8, 0.1, 0.1, 0.1, 0.1],
               (("a",), ("b",)): [0.9, 0.9, 0.8, 0.1, 0.1], (("a",), ("c",)): [0.9, 0.9, 0.9, 0.1, 0.1],
               (("c",), ("a", "b")): [0.9, 0.9, 0.9, 0.8, 0.1]}
    found, choice = simplest(levels, lambda family: np.array(reached.get(family, [0.0] * 5)), 0.75)
    assert [found[i] for i in choice] == [((("a",),), (("c",),)), ((("a",),),), ((("a",), ("c",)),), ((("c",), ("a", "b")),),
                                          ((("a", "b", "c"),),)]


TABLES = st.lists(st.floats(-100, 100), min_size=8, max_size=8)  # the value of each subset of three modalities


def dividends_of(value):
    """Return the dividend of each part, from the value of each view of three modalities."""
    return {part: sum(factor * value[view] for view, factor in of_dividend(part, "abc").items()) for part in subsets("abc")}


@settings(max_examples=50, deadline=None)
@given(TABLES, TABLES)
def test_dividends_of_three_modalities_keep_the_axioms(table, other):
    value, second = (dict(zip(ALL, numbers)) for numbers in (table, other))
    dividend, more = dividends_of(value), dividends_of(second)
    assert sum(dividend.values()) == pytest.approx(value[FULL] - value["all masked"], abs=1e-9)  # efficiency
    added = dividends_of({view: value[view] + 2 * second[view] for view in ALL})
    assert added == pytest.approx({part: dividend[part] + 2 * more[part] for part in dividend}, abs=1e-9)  # linearity
    kept = {leaving(some, "abc"): some for some in [(), *subsets("abc")]}
    swap = {"a": "b", "b": "a", "c": "c"}
    swapped = dividends_of({view: value[leaving([swap[name] for name in some], "abc")] for view, some in kept.items()})
    assert all(swapped[part] == pytest.approx(dividend[tuple(sorted(swap[name] for name in part))], abs=1e-9)
               for part in dividend)  # symmetry
    unmoved = dividends_of({view: value[leaving([name for name in some if name != "a"], "abc")] for view, some in kept.items()})
    assert all(unmoved[part] == pytest.approx(0, abs=1e-9) for part in unmoved if "a" in part)  # a dummy has none
