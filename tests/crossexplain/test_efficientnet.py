"""EfficientNet-Lite0: the published weights, the published network's logits, its maps, and what it says of photographs."""

from pathlib import Path

import pytest
import skimage
import sklearn
import torch
from captum.attr import LayerGradCam
from efficientnet_lite_pytorch import EfficientNet
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.models import SqueezeNet1_0_Weights

from crossexplain.checks import InputError
from crossexplain.data import photos, store
from crossexplain.gradients.capture import capture
from crossexplain.gradients.maps import attribute
from crossexplain.models.efficientnet import EfficientNetLite0, fused
from crossexplain.models.vgg import load_imagenet
from crossexplain.models.weights import WeightsError

CLASSES = SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]  # the names of ImageNet's classes, in their order
SEEN = {"chelsea.png": "Egyptian cat", "coffee.png": "espresso", "camera.png": "tripod", "motorcycle_left.png": "moped",
        "rocket.jpg": "missile", "china.jpg": "palace", "flower.jpg": "daisy"}
OTHERS = ("astronaut.png", "coins.png", "clock_motion.png")


@pytest.fixture(scope="module")
def model():
    return load_imagenet("efficientnet_lite0", store.find("efficientnet_lite0").path)


@pytest.fixture(scope="module")
def images():
    folders = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets/images"
    files = [next(folder / name for folder in folders if (folder / name).is_file()) for name in (*SEEN, *OTHERS)]
    return torch.stack([photos.read(file, 224) for file in files])


def test_logits_are_those_of_the_published_network_on_ten_photographs(model, images):
    published = EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(torch.load(store.find("efficientnet_lite0").path, weights_only=True))
    with torch.no_grad():
        expected, logits = published((255 * images - 127) / 128), model(images)
    assert len(images) == 10 and (logits - expected).abs().max() < 1e-4
    assert expected.std() > 0.5  # so that equal logits are not all the same number


@pytest.mark.parametrize("cut, shape", [(17, (1280, 7, 7)), (15, (192, 7, 7)), (11, (112, 14, 14)), (0, (32, 112, 112))])
def test_cut_at_any_layer_it_is_the_same_network(model, images, cut, shape):
    other = load_imagenet("efficientnet_lite0", store.find("efficientnet_lite0").path, cut=cut)
    with torch.no_grad():
        maps = other.tower(images[:2])
        assert maps.shape[1:] == shape and other.width == shape[0] and len(other.later) == 17 - cut
        assert torch.allclose(other.head(maps), model(images[:2]), atol=1e-5)
        assert torch.allclose(fused(other).tower(images[:2]), maps, atol=1e-4)
        assert torch.equal(capture(other, {"images": images[:2]}, other.image_layer, 0).activations[other.image_layer], maps)


@pytest.mark.parametrize("cut", [-1, 18])
def test_a_cut_that_is_no_layer_is_refused(cut):
    with pytest.raises(InputError, match="expected the number of a layer of features, 0 to 17"):
        EfficientNetLite0(cut)


def test_it_names_what_photographs_show(model, images):
    top = model(images[: len(SEEN)]).argmax(dim=1).tolist()
    assert [CLASSES[i] for i in top] == list(SEEN.values())


def test_other_sizes_are_padded_as_the_published_network_pads_them(model, images):
    published = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    published.load_state_dict(torch.load(store.find("efficientnet_lite0").path, weights_only=True))
    small = images[:2, :, 10:161, :200]  # 151 x 200: odd at several depths
    with torch.no_grad():
        assert torch.allclose(model(small), published((255 * small - 127) / 128), atol=1e-4)


def test_a_captured_map_and_its_gradient_are_those_of_plain_autograd(model, images):
    maps = model.tower(images[:3]).detach().requires_grad_()
    logits = model.head(maps)
    gradient, = torch.autograd.grad(logits.amax(dim=1).sum(), maps)
    taken = capture(model, {"images": images[:3]}, model.image_layer)
    assert torch.allclose(taken.activations[model.image_layer], maps, atol=1e-6)
    assert torch.allclose(taken.gradients[model.image_layer], gradient, atol=1e-7)


@pytest.mark.parametrize("layer", ["features.17.2", "features.11", "features.3.apart.2"])
def test_gradients_at_every_kind_of_layer_are_those_of_plain_autograd(model, images, layer):
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2].requires_grad_()) or kept[0])
    logits = model(images[:2])
    handle.remove()
    gradient, = torch.autograd.grad(logits.amax(dim=1).sum(), kept)
    assert torch.allclose(capture(model, {"images": images[:2]}, layer).gradients[layer], gradient, atol=1e-7)


def test_grad_cam_is_that_of_grad_cam_and_captum(model, images):
    target, place = torch.tensor([285, 967, 872]), model.get_submodule(model.image_layer)
    photographs = images[:3].clone().requires_grad_()  # both libraries need a graph from the pixels on
    ours = attribute(model, images[:3], model.image_layer, "grad-cam", target, sign="for", positive=False)
    captum = LayerGradCam(model, place).attribute(photographs, target)[:, 0].detach()
    with GradCAM(model, [place]) as cam:
        kept, fold = [], cam.get_cam_image  # before it is rectified, scaled and enlarged
        cam.get_cam_image = lambda *given, **named: kept.append(fold(*given, **named)) or kept[0]
        cam(photographs, [ClassifierOutputTarget(int(i)) for i in target])
    for theirs in (captum, torch.from_numpy(kept[0])):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max() and theirs.abs().amax(dim=(1, 2)).min() > 0


def test_the_fused_copy_gives_the_same_maps_and_needs_eval_mode(model, images):
    fast = fused(model)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fast.modules())
    with torch.no_grad():
        maps, expected = fast.tower(images), model.tower(images)
    assert torch.allclose(maps, expected, atol=1e-4) and expected.std() > 0.1
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())  # the model is as it was
    with pytest.raises(ValueError, match="train mode"):
        fused(EfficientNetLite0.seeded(0))


def test_weights_of_another_network_are_refused(tmp_path):
    other = EfficientNetLite0.seeded(0).state_dict() | {"features.0.0.weight": torch.zeros(8, 3, 3, 3)}
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"features.0.0.weight.*\(8, 3, 3, 3\) in the file, \(32, 3, 3, 3\)"):
        load_imagenet("efficientnet_lite0", tmp_path / "other.pth")
    with pytest.raises(ValueError, match="efficientnet_lite0"):
        load_imagenet("efficientnet", tmp_path / "other.pth")
