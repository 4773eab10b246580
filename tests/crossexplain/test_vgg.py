import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from crossexplain.checks import InputError
from crossexplain.gradients.capture import capture
from crossexplain.models import checkpoints
from crossexplain.models.training import accuracy
from crossexplain.models.vgg import NETWORKS, ImageNetClassifier, SlimVGG, load_imagenet
from crossexplain.models.weights import WeightsError


@pytest.fixture(scope="module")
def weights():
    return ImageNetClassifier("squeezenet1_0").network.state_dict()


def test_the_slim_vgg_is_a_vgg_cut_in_two():
    model, images = SlimVGG.seeded(0).eval(), torch.rand(2, 1, 64, 64)
    maps = model.tower(images)
    assert maps.shape == (2, 64, 8, 8) and torch.equal(model.head(maps.clone()), model(images))
    assert all(layer.inplace for layer in model.modules() if isinstance(layer, nn.ReLU))
    assert torch.equal(capture(model, images, model.image_layer).activations[model.image_layer], maps)


def test_initial_weights_come_from_the_seed_alone():
    before = torch.random.get_rng_state()
    first, again, other = SlimVGG.seeded(1), SlimVGG.seeded(1), SlimVGG.seeded(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert not torch.equal(first.features[0].weight, other.features[0].weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_imagenet_weights_load_frozen_from_either_kind_of_file(tmp_path, weights, suffix):
    path = tmp_path / f"größe a{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    model = load_imagenet("squeezenet1_0", path)
    images = torch.rand(2, 3, model.size, model.size)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    maps = capture(model, images, model.image_layer, gradients=False).activations[model.image_layer]
    assert maps.shape == (2, 512, 13, 13) and torch.allclose(model.head(maps), model(images))
    assert torch.equal(model.network.features[0].weight, weights["features.0.weight"])


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_the_layer_of_a_vgg_is_the_relu_after_its_last_convolution(name):
    with torch.device("meta"):
        model = ImageNetClassifier(name)
        logits = model(torch.zeros(1, 3, model.size, model.size))
    last = NETWORKS[name][0]
    assert isinstance(model.get_submodule(model.image_layer), nn.ReLU)
    assert isinstance(model.network.features[last - 1], nn.Conv2d) and last + 2 == len(model.network.features)
    assert logits.shape == (1, 1000)


def test_weights_that_do_not_fit_or_are_broken_are_refused(tmp_path, weights):
    good, cut, other, nan = (tmp_path / f"{name}.safetensors" for name in ("good", "cut", "other", "nan"))
    save_file(weights, good)
    cut.write_bytes(good.read_bytes()[:5000])
    save_file({"a": torch.ones(1)}, other)
    save_file({**weights, "classifier.1.bias": torch.full((1000,), float("nan"))}, nan)
    text = tmp_path / "page.pth"
    text.write_text("<html>not found</html>")
    whole = tmp_path / "tensor.pth"
    torch.save(torch.ones(2), whole)
    for path, says in ((cut, "cannot be read as weights"), (text, "cannot be read as weights"), (nan, "NaN or infinity"),
                       (other, "does not fit squeezenet1_0: 53 entries differ, first 'a'"), (whole, "holds Tensor"),
                       (tmp_path / "none.pth", "there is no weight file")):
        with pytest.raises(WeightsError, match=says):
            load_imagenet("squeezenet1_0", path)
    with pytest.raises(InputError, match="got network 'resnet', expected one of 'vgg16', 'vgg19'"):
        load_imagenet("resnet", good)
    with pytest.raises(WeightsError, match="does not fit vgg16"):
        load_imagenet("vgg16", good)


def test_the_embedded_checkpoint_names_digits_it_was_not_trained_on():
    from crossexplain.data import clutter as pictures
    from crossexplain.recipes import clutter, load_or_train

    trained = load_or_train("slim_vgg")
    assert not trained.model.training and trained.card["accuracy"]["held out"] >= 0.97
    test = pictures.build(trained.data, 500, "test", 99)
    assert accuracy(clutter.logits(trained.model, test.images), test.labels) >= 0.95
    assert checkpoints.read_card("slim_vgg")["command"].startswith("python -m crossexplain train slim_vgg")


def test_the_recipe_trains(tmp_path):
    from crossexplain.recipes import clutter

    first, again = (clutter.train(seed=5, size="small", progress=False) for _ in range(2))
    assert len(first.history.train_loss) == 1 and not first.model.training
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters()))
    assert clutter.logits(first.model, torch.rand(3, 1, 64, 64)).shape == (3, 10)
