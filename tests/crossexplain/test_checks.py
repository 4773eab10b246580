"""Checks that pass what is good; what they refuse, with which words, is in test_bad_input."""

import pytest
import torch
from torch import nn

from crossexplain.checks import (
    InputError,
    class_index,
    require_batch,
    require_device,
    require_finite,
    require_images,
    require_methods,
    require_one_of,
)


def test_good_images_come_back_unchanged():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float16)
    assert require_images(images, channels=3) is images


def test_the_first_bad_example_is_named():
    logits = torch.zeros(3, 2)
    logits[1, 0] = float("inf")
    with pytest.raises(InputError, match="logits: 1 of 6 entries.*first in example 1"):
        require_finite(logits, "logits")


def test_what_model_and_inputs_share_is_returned():
    assert require_batch(1) == 1
    assert require_device(nn.Linear(2, 1), {"x": torch.rand(1, 2)}) == torch.device("cpu")


def test_class_indices_are_written_out_for_every_example():
    assert class_index(2, 3, 4).tolist() == [2, 2, 2, 2]
    assert class_index(torch.tensor([0, 2]), 3, 2).tolist() == [0, 2]


def test_a_known_name_is_returned_and_an_unknown_one_gets_the_nearest():
    assert require_one_of("mask", ("mask", "pad"), "baseline") == "mask" and require_one_of(None, ("mask", None), "x") is None
    with pytest.raises(InputError, match="got baseline 'masc', expected one of 'mask', 'pad'; did you mean 'mask'[?]$"):
        require_one_of("masc", ("mask", "pad"), "baseline")
    with pytest.raises(InputError, match="got baseline 3, expected one of 'mask', 'pad'[.]$"):
        require_one_of(3, ("mask", "pad"), "baseline")


def test_methods_are_listed_whether_one_is_named_or_several():
    assert require_methods("l2", {"l1": 0, "l2": 0}) == ["l2"] and require_methods(("l2", "l1"), ("l1", "l2")) == ["l2", "l1"]
    with pytest.raises(InputError, match="there is no method 'l3'; the methods are l1, l2"):
        require_methods(["l1", "l3"], ("l1", "l2"))
    with pytest.raises(InputError, match="no method was named; the methods are l1"):
        require_methods([], ("l1", "l1"))
