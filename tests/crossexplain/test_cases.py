"""Models of other people's kinds: each case of the benchmark is a test of its own."""

import inspect

import pytest
import torch

from benchmarks.cases import CASES, KINDS
from benchmarks.strangers import outcome


@pytest.mark.parametrize("name", CASES)
def test_the_case(name):
    torch.manual_seed(0)
    CASES[name]()


def test_each_case_says_what_is_right_in_a_sentence():
    for name, function in CASES.items():
        assert function.__doc__ and function.__doc__.endswith("."), name
    assert {inspect.getmodule(function) for function in CASES.values()} == set(KINDS)


def test_what_came_is_told_apart():
    def wrong():
        assert 1 + 1 == 3, "not three"

    def foreign():
        raise RuntimeError("the size of tensor a")

    assert outcome(lambda: None) == "right"
    assert outcome(wrong).startswith("wrong: AssertionError: not three")
    assert outcome(foreign) == "foreign: RuntimeError: the size of tensor a"
