"""What a reader will pass by mistake: each is refused with what was passed, what was expected and what to do.

Captions, encoders, photographs and weights have their cases beside their own tests; here is what all models share.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_images
from crossexplain.data.digits import Digits, split
from crossexplain.data.store import Found
from crossexplain.gradients.capture import capture
from crossexplain.models import checkpoints
from crossexplain.models.vgg import ImageNetClassifier, SlimVGG
from crossexplain.models.weights import WeightsError


class Net(nn.Module):
    """A small classifier of colour images."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


@pytest.fixture
def model() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def teaches(error: pytest.ExceptionInfo) -> bool:
    """A message with advice is longer than a name and ends as a sentence."""
    text = str(error.value)
    return len(text) > 40 and text.endswith((".", ")", "]"))


# ---------------------------------------------------------------- images


IMAGES = {
    "grey where colour is expected": (torch.rand(2, 1, 8, 8), r"1 channel.*expects 3.*expand"),
    "an alpha channel": (torch.rand(2, 4, 8, 8), r"4 channel.*drop the alpha"),
    "one pixel": (torch.rand(2, 3, 1, 1), r"1 x 1 pixels.*resize"),
    "one row": (torch.rand(2, 3, 1, 8), r"1 x 8 pixels"),
    "no batch axis": (torch.rand(3, 8, 8), r"\(3, 8, 8\).*image\[None\]"),
    "8-bit pixels": (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"uint8.*divide"),
    "whole numbers": (torch.zeros(2, 3, 8, 8, dtype=torch.int64), r"int64.*floating"),
    "no image": (torch.rand(0, 3, 8, 8), r"batch is empty"),
    "a list": ([[1.0]], r"got images as list"),
    "an array": (np.zeros((2, 3, 8, 8), np.float32), r"got images as ndarray.*torch.Tensor"),
    "nothing": (None, r"got images as NoneType"),
    "NaN": (torch.full((2, 3, 8, 8), torch.nan), r"384 of 384 entries are NaN"),
    "infinity in the second": (torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), torch.inf)]), r"in example 1"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_that_are_none(kind):
    images, says = IMAGES[kind]
    with pytest.raises(InputError, match=says) as error:
        require_images(images, channels=3)
    assert teaches(error)


@pytest.mark.parametrize("kind", ["grey where colour is expected", "an alpha channel", "no batch axis"])
def test_a_model_of_colour_says_no_itself_and_is_left_whole(model, kind):
    """A model of the reader's own, which checks nothing: its error comes through, whatever it is, and no hook stays."""
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        capture(model, IMAGES[kind][0], "features")
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("images", [torch.full((1, 3, 8, 8), 255.0), torch.full((1, 3, 8, 8), -128.0)])
def test_values_outside_the_range_of_the_model(images):
    assert require_images(images) is images, "without a range any is allowed: a model may take any"
    with pytest.raises(InputError, match="images hold values from .* expected 0 to 1; divide 8-bit"):
        require_images(images, unit=True)


def test_noise_on_an_image_is_no_wrong_range():
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    assert require_images(images + noise, unit=True).max() > 3
    assert require_images((images - 0.45) / 0.225, unit=True).min() < 0


DOORS = {
    "pixels from 0 to 255": (255 * torch.rand(1, 3, 64, 64), "images hold values from .* expected 0 to 1"),
    "8-bit pixels": (torch.full((1, 3, 64, 64), 200, dtype=torch.uint8), "dtype torch.uint8.*divide 8-bit pixels by 255"),
    "one pixel": (torch.rand(1, 3, 1, 1), "1 x 1 pixels.*at least 32 x 32"),
    "grey": (torch.rand(1, 1, 64, 64), "1 channel.*expects 3; repeat a grey image"),
    "with alpha": (torch.rand(1, 4, 64, 64), "4 channel.*drop the alpha"),
    "with a hole": (torch.rand(1, 3, 64, 64).masked_fill(torch.arange(64) == 5, torch.nan), "192 of 12288 entries are NaN"),
}


@pytest.mark.parametrize("kind", DOORS)
def test_a_network_of_photographs_says_what_is_no_photograph(kind):
    images, says = DOORS[kind]
    network = ImageNetClassifier.seeded(0, "squeezenet1_0").eval()
    with pytest.raises(InputError, match=says) as error:
        capture(network, images, network.image_layer)
    assert teaches(error) and network(torch.rand(1, 3, 32, 32)).shape == (1, 1000)


@pytest.mark.parametrize(("images", "says"), [
    (torch.rand(1, 3, 64, 64), "3 channel.*expects 1"),
    (torch.rand(1, 1, 32, 32), "32 x 32 pixels, the model takes 64 x 64"),
    (255 * torch.rand(1, 1, 64, 64), "images hold values from .* expected 0 to 1"),
    (torch.zeros(1, 1, 64, 64, dtype=torch.uint8), "dtype torch.uint8"),
])
def test_the_slim_network_says_what_is_no_digit_in_clutter(images, says):
    network = SlimVGG.seeded(0).eval()
    with pytest.raises(InputError, match=says):
        capture(network, images, network.image_layer)


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("inputs", [torch.rand(0, 3, 8, 8), {"images": torch.rand(0, 3, 8, 8)}])
def test_a_batch_of_none(model, inputs):
    with pytest.raises(InputError, match="batch is empty.*at least 1"):
        capture(model, inputs, "features")


def test_a_batch_of_one_gives_what_it_gives_among_others(model, images):
    alone, together = (capture(model, batch, "features") for batch in (images[:1], images))
    assert alone.output.shape == (1, 3) and alone.score.shape == (1,)
    assert torch.allclose(alone.gradients["features"], together.gradients["features"][:1], atol=1e-7)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("cat.jpg", "got inputs as str.*dict, a tuple"),
        ({"images": "cat.jpg"}, "no tensor with a batch axis"),
        ([], "no tensor with a batch axis"),
        ([torch.tensor(1.0)], "no tensor with a batch axis"),
    ],
)
def test_inputs_that_hold_no_batch(model, inputs, says):
    with pytest.raises(InputError, match=says):
        capture(model, inputs, "features")


def test_an_input_that_does_not_exist(model, images):
    with pytest.raises(InputError, match="no input 'image'.*'input:images'"):
        capture(model, {"images": images}, "input:image")
    with pytest.raises(InputError, match="no input '3'.*'input:0'"):
        capture(model, images, "input:3")


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("name", "near"), [("feature.0", "'features.0'"), ("Features", "'features'"), ("heads", "'head'"), ("xyz", "'")]
)
def test_an_unknown_layer_names_the_nearest(model, images, name, near):
    with pytest.raises(InputError, match=f"no layer {name!r}.*nearest names are.*{near}") as error:
        capture(model, images, name)
    assert "named_modules" in str(error.value)


def test_no_layer_at_all(model, images):
    with pytest.raises(InputError, match="no layer was named"):
        capture(model, images, [])


class Blind(nn.Module):
    """Has a layer behind a step without a gradient, one that is detached, and one that the answer ignores."""

    def __init__(self):
        super().__init__()
        self.ignored, self.cut, self.round, self.words, self.head = (
            nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.ignored(x)
        words = self.words((x > 0).long())
        return self.head(x + self.cut(x).detach() + self.round(x).round().long() + words)


@pytest.mark.parametrize("layer", ["ignored", "cut", "round"])
def test_a_layer_without_a_gradient(layer):
    with pytest.raises(InputError, match=f"does not depend on '{layer}'.*capture a layer on the way"):
        capture(Blind(), torch.rand(3, 2), layer)


def test_a_layer_and_an_input_of_whole_numbers():
    with pytest.raises(InputError, match="'words' gives torch.int64, which has no gradient"):
        capture(Blind(), torch.rand(3, 2), "words")
    embeds = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(InputError, match="holds torch.int64.*the embedding"):
        capture(embeds, torch.randint(5, (2, 3)), "input:0")


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (3, "class 3.*classes 0 to 2"),
        (-1, "class -1.*classes 0 to 2"),
        (torch.tensor([0, 7]), "class 7"),
        (torch.tensor([0, 1, 2]), "3 entries, the batch has 2"),
        (0.5, "whole class indices"),
        (torch.tensor([True, False]), "whole class indices"),
        ("cat", "got target='cat'.*expected 'predicted'"),
        (lambda output: output, r"gave \(2, 3\), expected one number an example, shape \(2,\)"),
        (lambda output: 1.0, "gave float"),
        (lambda output: output[:, 0] * torch.nan, "the target: 2 of 2 entries are NaN"),
    ],
)
def test_targets_that_are_none(model, images, target, says):
    with pytest.raises(InputError, match=says):
        capture(model, images, "features", target=target)


def test_outputs_that_are_no_logits(images):
    for last, says in (
        (nn.Flatten(0), r"shape \(384,\) for 2 examples"),
        (nn.Identity(), r"shape \(2, 3, 8, 8\) for 2 examples.*target=lambda"),
    ):
        with pytest.raises(InputError, match=says):
            capture(nn.Sequential(nn.Conv2d(3, 3, 1), last), images, "0")

    class Labels(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).argmax(dim=1)

    with pytest.raises(InputError, match="gives torch.int64, expected floating logits.*before any argmax"):
        capture(Labels(), images, "features")


# ---------------------------------------------------------------- numbers that are none


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(model, images, value):
    with torch.no_grad():
        model.head.weight[0, 0] = value
    with pytest.raises(InputError, match="the model's output: .* NaN or infinite.*check the input's range, the we"):
        capture(model, images, "features")


def test_an_input_that_is_not_finite_is_seen_in_the_output(model, images):
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="first in example 1"):
        capture(model, images, "features")


def test_a_gradient_that_is_not_finite():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(x).sqrt().sum(dim=1)

    with pytest.raises(InputError, match="the gradient at 'relu': 1 of 2 entries"):
        capture(Root(), torch.tensor([[0.0, 1.0]]), "relu")


@pytest.mark.parametrize(("dtype", "close"), [(torch.float16, 2e-2), (torch.bfloat16, 8e-2)])
def test_half_precision_is_explained_in_its_own_precision(model, images, dtype, close):
    exact = capture(model, images, "features", target=1)
    half = capture(model.to(dtype), images.to(dtype), "features", target=1)
    assert half.gradients["features"].dtype == dtype
    difference = (half.gradients["features"].float() - exact.gradients["features"]).abs().max()
    assert difference <= close * exact.gradients["features"].abs().max()


def test_half_precision_that_overflows_is_named(model, images):
    with torch.no_grad():
        model.head.weight.fill_(60_000)
    with pytest.raises(InputError, match="half-precision overflow"):
        capture(model.half(), images.half() * 1000, "features")


def test_many_large_halves_are_no_overflow():
    """The check must not take the sum of finite numbers for an infinity."""
    model = nn.Sequential(nn.Identity(), nn.Linear(1, 2)).half()
    captured = capture(model, torch.full((64, 1), 30_000.0, dtype=torch.float16), "0", target=0)
    assert torch.isfinite(captured.output).all()


# ---------------------------------------------------------------- devices


def test_inputs_on_another_device_than_the_model(model, images):
    with pytest.raises(InputError, match=r"input 0 is on meta, the model is on cpu; move it with .to\('cpu'\)"):
        capture(model, images.to("meta"), "features")
    with pytest.raises(InputError, match="input 'images' is on cpu, the model is on meta"):
        capture(model.to("meta"), {"images": images}, "features")


def test_a_target_on_another_device_is_brought_over(model, images):
    if not torch.cuda.is_available():
        pytest.skip("one device only; the reverse case needs a second one that computes")
    captured = capture(model.cuda(), images.cuda(), "features", target=torch.tensor([0, 1]))
    assert captured.gradients["features"].is_cuda


# ---------------------------------------------------------------- files and shares


def test_a_checkpoint_that_is_corrupt(model, tmp_path):
    card = {"data": "none", "seed": 0, "command": "none", "accuracy": 0.5}
    path = checkpoints.save(model, "net", card, folder=tmp_path)
    whole = path.read_bytes()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for content in (b"", whole[:-7], whole[:-1] + bytes([whole[-1] ^ 1]), b"<html>login</html>"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="broken.*crossexplain train net"):
            checkpoints.load("net", model, folder=tmp_path)
    path.write_bytes(whole)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(WeightsError, match="card .* is broken"):
        checkpoints.load("net", model, folder=tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_too_few_digits_of_a_class():
    made = Digits(np.zeros((12, 28, 28), np.float32), np.arange(12) % 10, Found("made", None, "made here"))
    with pytest.raises(ValueError, match="least populated class|should be greater or equal"):
        split(made, 0)
