import pytest
import torch
from torch import nn

from crossexplain.checks import (
    InputError,
    class_index,
    find_layer,
    require_batch,
    require_device,
    require_finite,
    require_images,
)


def test_an_unknown_layer_names_the_nearest():
    model = nn.Sequential()
    model.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    assert isinstance(find_layer(model, "features.1"), nn.ReLU)
    with pytest.raises(InputError, match=r"no layer 'feature\.1'.*'features\.1'"):
        find_layer(model, "feature.1")


@pytest.mark.parametrize(
    ("images", "channels", "says"),
    [
        ([[1.0]], None, "came as list"),
        (torch.rand(3, 8, 8), None, r"shape \(3, 8, 8\).*image\[None\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), None, "divide 8-bit pixels by 255"),
        (torch.rand(0, 3, 8, 8), None, "batch is empty"),
        (torch.rand(1, 1, 8, 8), 3, "1 channel.*expects 3; repeat a grey image"),
        (torch.rand(1, 4, 8, 8), 3, "4 channel.*drop the alpha channel"),
        (torch.rand(1, 3, 1, 1), None, "1 x 1 pixels.*at least 2 x 2"),
        (torch.full((2, 1, 4, 4), float("nan")), None, "32 of 32 entries are NaN"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_with_advice(images, channels, says):
    with pytest.raises(InputError, match=says):
        require_images(images, channels=channels)


def test_good_images_come_back_unchanged():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float16)
    assert require_images(images, channels=3) is images


def test_the_first_bad_example_is_named():
    logits = torch.zeros(3, 2)
    logits[1, 0] = float("inf")
    with pytest.raises(InputError, match="logits: 1 of 6 entries.*first in example 1"):
        require_finite(logits, "logits")


def test_a_batch_of_zero_is_refused():
    assert require_batch(1) == 1
    with pytest.raises(InputError, match="0 examples"):
        require_batch(0)


def test_inputs_on_another_device_are_named():
    model = nn.Linear(2, 1)
    assert require_device(model, {"x": torch.rand(1, 2)}) == torch.device("cpu")
    with pytest.raises(InputError, match="input 'x' is on meta, the model is on cpu"):
        require_device(model, {"x": torch.rand(1, 2, device="meta")})


def test_class_indices():
    assert class_index(2, 3, 4).tolist() == [2, 2, 2, 2]
    assert class_index(torch.tensor([0, 2]), 3, 2).tolist() == [0, 2]
    with pytest.raises(InputError, match="class 3, the model has classes 0 to 2"):
        class_index(3, 3, 1)
    with pytest.raises(InputError, match="class -1"):
        class_index(-1, 3, 1)
    with pytest.raises(InputError, match="2 entries, the batch has 3"):
        class_index(torch.tensor([0, 1]), 3, 3)
    with pytest.raises(InputError, match="whole class indices"):
        class_index(torch.tensor([0.5]), 3, 1)
