import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, LayerGradCam, LayerGradientXActivation, Saliency
from pytorch_grad_cam import EigenCAM, EigenGradCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from torch import nn

from crossexplain.checks import InputError
from crossexplain.gradients.capture import capture
from crossexplain.gradients.maps import METHODS, attribute, upsample
from crossexplain.models.clip import small_cnn, small_vit
from crossexplain.models.vgg import ImageNetClassifier, SlimVGG

LAYER = SlimVGG.image_layer
PEERS = {"grad-cam": GradCAM, "grad-cam++": GradCAMPlusPlus, "xgrad-cam": XGradCAM, "layer-cam": LayerCAM,
         "hires-cam": HiResCAM, "eigen-cam": EigenCAM, "eigengrad-cam": EigenGradCAM}


@pytest.fixture(scope="module")
def model():
    """A network with in-place ReLUs whose batch norms have seen some data."""
    model = SlimVGG.seeded(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        for _ in range(3):
            model(torch.rand(16, 1, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    """One logit from an image and two tokens, called by keyword."""

    def __init__(self, bias: float = 0.0):
        super().__init__()
        torch.manual_seed(1)
        self.tower = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
        self.words, self.bias = nn.Embedding(5, 4), bias

    def forward(self, images, tokens):
        return (self.tower(images).mean(dim=(2, 3)) * self.words(tokens).sum(dim=1)).sum(dim=1) + self.bias


def near(ours, theirs):
    """Equal to 1e-5 of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return np.abs(ours - theirs).max() <= 1e-5 * max(np.abs(theirs).max(), 1e-12)


def peer(method, model, images):
    """Return the map of the library grad-cam before it rectifies, scales and enlarges it."""
    with PEERS[method](model, [model.features[23]]) as cam:
        kept = {}
        fold = cam.get_cam_image
        cam.get_cam_image = lambda *a, **k: kept.setdefault("map", fold(*a, **k))
        cam(images, targets=None)
    return kept["map"]


@pytest.mark.parametrize("method", PEERS)
def test_each_map_equals_that_of_grad_cam(model, images, method):
    ours, theirs = attribute(model, images, LAYER, method, positive=False), peer(method, model, images)
    for mine, its in zip(ours, theirs):
        # Their principal component has whatever sign the linear algebra gives it.
        assert near(mine, its) or ("eigen" in method and near(mine, -its))
    assert ours.abs().amax(dim=(1, 2)).min() > 0


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam", "saliency", "gradient x input"])
def test_each_map_equals_that_of_captum(model, images, method):
    target = torch.tensor([7, 0, 7])
    layer = model.features[23]
    theirs = {
        "grad-cam": lambda: LayerGradCam(model, layer).attribute(images, target)[:, 0],
        "hires-cam": lambda: LayerGradientXActivation(model, layer).attribute(images, target).sum(dim=1),
        "saliency": lambda: Saliency(model).attribute(images.clone().requires_grad_(), target).amax(dim=1),
        "gradient x input": lambda: InputXGradient(model).attribute(images.clone().requires_grad_(), target).sum(dim=1),
    }[method]().detach()
    place = LAYER if "cam" in method else "input:0"
    ours = attribute(model, images, place, method, target, sign="for", positive=False)
    assert near(ours, theirs) and ours.shape == theirs.shape


def test_squeezenet_agrees_with_both_libraries():
    model = ImageNetClassifier("squeezenet1_0").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    layer = model.network.features[12]
    ours = attribute(model, images, model.image_layer, positive=False)
    assert near(ours, LayerGradCam(model, layer).attribute(images, model(images).argmax(dim=1))[:, 0].detach())
    with GradCAM(model, [layer]) as cam:
        scaled = torch.as_tensor(cam(images, targets=None))
    mine = upsample(ours.clamp(min=0), 64)
    mine = mine - mine.amin(dim=(1, 2), keepdim=True)
    assert torch.allclose(mine / (1e-7 + mine.amax(dim=(1, 2), keepdim=True)), scaled, atol=2e-3)


class OfImage(nn.Module):
    """A dual encoder as the other libraries want it: called with pictures alone, the texts stay."""

    def __init__(self, model, tokens):
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, images):
        return self.model(images, self.tokens)


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(5)
    return {"images": torch.rand(3, 3, 36, 36, generator=generator),
            "tokens": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0], [2, 9, 10, 3, 0]])}


@pytest.mark.parametrize("sign", ["for", "against"])
@pytest.mark.parametrize("method", PEERS)
def test_maps_of_patch_tokens_equal_those_of_grad_cam_with_its_reshape(pairs, method, sign):
    model = small_vit(12, 6, side=36, width=16, layers=3, seed=2).eval()
    turn = 1 if sign == "for" else -1
    with PEERS[method](OfImage(model, pairs["tokens"]), [model.get_submodule(model.image_layer)],
                       reshape_transform=lambda states: states[:, 1:].transpose(1, 2).unflatten(2, (3, 3))) as cam:
        kept, fold = {}, cam.get_cam_image
        cam.get_cam_image = lambda *a, **k: kept.setdefault("map", fold(*a, **k))
        cam(pairs["images"], targets=[lambda logit: turn * logit] * 3)
    ours = attribute(model, pairs, model.image_layer, method, 1, sign, positive=False)
    assert ours.shape == (3, 3, 3) and ours.flatten(1).std(dim=1).min() > 0
    for mine, its in zip(ours, kept["map"]):
        assert near(mine, its) or ("eigen" in method and near(mine, -its))


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam"])
def test_maps_of_the_convolutions_of_a_dual_encoder_equal_those_of_captum(pairs, method):
    model = small_cnn(12, 6, seed=2).eval()
    whole, layer = OfImage(model, pairs["tokens"]), model.get_submodule(model.image_layer)
    theirs = (LayerGradCam(whole, layer).attribute(pairs["images"])[:, 0] if method == "grad-cam" else
              LayerGradientXActivation(whole, layer).attribute(pairs["images"]).sum(dim=1)).detach()
    ours = attribute(model, pairs, model.image_layer, method, 1, "for", positive=False)
    assert near(ours, theirs) and ours.shape == (3, 5, 5) and theirs.abs().amax(dim=(1, 2)).min() > 0
    assert near(attribute(model, pairs, model.image_layer, method, 1, "against", positive=False), -theirs)


def test_against_is_the_method_on_minus_the_logit(model, images):
    class Minus(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, images):
            return -self.inner(images)

    for method in METHODS:
        against = attribute(model, images, LAYER, method, target=2, sign="against")
        other = attribute(Minus(), images, f"inner.{LAYER}", method, target=2, sign="for")
        assert near(against, other), method


def test_evidence_for_and_against_are_the_two_halves_of_grad_cam(model, images):
    signed = attribute(model, images, LAYER, target=5, sign="for", positive=False)
    assert near(signed, attribute(model, images, LAYER, target=5, sign="for")
                - attribute(model, images, LAYER, target=5, sign="against"))


@pytest.mark.parametrize("method", METHODS)
def test_a_two_modality_model_that_says_no_is_explained_by_evidence_for_the_no(method):
    inputs = {"images": torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)),
              "tokens": torch.tensor([[0, 1], [2, 3]])}
    no, yes = Pair(bias=-50.0).eval(), Pair(bias=50.0).eval()
    assert (no(**inputs) < 0).all() and (yes(**inputs) > 0).all()
    for model, target in ((no, 0), (yes, 1)):
        shown = attribute(model, inputs, "tower.1", method, positive=False)
        assert near(shown, attribute(model, inputs, "tower.1", method, target=target, sign="for", positive=False))
    minus = attribute(no, inputs, "tower.1", method, target=1, sign="against", positive=False)
    assert near(attribute(no, inputs, "tower.1", method, positive=False), minus)


def test_the_map_of_a_no_by_hand():
    model = Pair(bias=-50.0).eval()
    inputs = {"images": torch.rand(1, 1, 6, 6), "tokens": torch.tensor([[1, 4]])}
    weights = -model.words(inputs["tokens"]).sum(dim=1) / 16  # of minus the logit, over 4 x 4 places
    expected = (model.tower(inputs["images"]) * weights[:, :, None, None]).sum(dim=1).clamp(min=0)
    assert near(attribute(model, inputs, "tower.1").detach(), expected.detach())


def test_with_a_pooled_linear_head_four_methods_are_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    images = torch.rand(2, 1, 9, 9)
    maps = [attribute(model, images, "1", method, positive=False) for method in ("grad-cam", "xgrad-cam", "hires-cam")]
    assert near(maps[0], maps[1]) and near(maps[0], maps[2])


def test_the_sign_of_a_principal_component_follows_the_activations(model, images):
    heat = attribute(model, images, LAYER, "eigen-cam", positive=False).flatten(1)
    total = capture(model, images, LAYER, gradients=False).activations[LAYER].sum(dim=1).flatten(1)
    assert ((heat * (total - total.mean(dim=1, keepdim=True))).sum(dim=1) >= 0).all()


@pytest.mark.parametrize("shape", [(3, 40, 6, 6), (2, 30, 12, 12), (2, 4, 9, 9)])
def test_the_first_component_is_that_of_the_whole_decomposition(shape):
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    maps[0] = torch.eye(6).repeat(40, 1, 1) if shape[0] == 3 else maps[0]  # of rank one
    places = maps.flatten(2).transpose(1, 2)
    places = places - places.mean(dim=1, keepdim=True)
    u, values, _ = torch.linalg.svd(places, full_matrices=False)
    ours = METHODS["eigen-cam"].fold(maps, None).flatten(1)
    agreement = (ours * u[:, :, 0]).sum(dim=1) / values[:, 0]
    assert torch.allclose(agreement.abs(), torch.ones(len(maps)), atol=1e-5)


def test_all_methods_come_from_one_pass_and_are_what_they_are_alone(model, images):
    seen = []
    handle = model.register_forward_hook(lambda *_: seen.append(1))
    together = attribute(model, images, LAYER, list(METHODS), target=2, sign="against")
    handle.remove()
    assert list(together) == list(METHODS) and len(seen) == 1
    for method, heat in together.items():
        assert torch.equal(heat, attribute(model, images, LAYER, method, target=2, sign="against")), method
    with pytest.raises(InputError, match="no method was named; the methods are saliency"):
        attribute(model, images, LAYER, [])


def test_equal_images_are_looked_at_once_and_have_the_same_maps():
    torch.manual_seed(0)
    tower, rows = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh()), []
    tower[0].register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    model, images = nn.Sequential(tower, nn.Flatten(), nn.Linear(6 * 49, 3)).eval(), torch.rand(8, 1, 9, 9)
    once, twice = (attribute(model, batch, "0", target=1, sign="for") for batch in (images, images.repeat(2, 1, 1, 1)))
    assert rows == [8, 2, 1, 8, 8, 8, 2], "and two by themselves, to see that each map is its own; one with blocks changed"
    assert torch.allclose(twice, once.repeat(2, 1, 1), atol=1e-6)
    attribute(model, images, "0", target=1, sign="for")
    assert rows == [8, 2, 1, 8, 8, 8, 2, 8], "which is seen once a model and shape of inputs"


def test_batches_do_not_touch_each_other(model, images):
    for method in METHODS:
        whole = attribute(model, images, LAYER, method)
        assert torch.allclose(whole[1:2], attribute(model, images[1:2], LAYER, method), atol=1e-5), method


def test_a_logit_that_nothing_moves_gives_a_map_of_zeros_not_of_nan():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 1), nn.ReLU()).eval()
    with torch.no_grad():
        model[2].bias.fill_(-100)
    for method in METHODS:
        if METHODS[method].gradients:
            assert (attribute(model, torch.rand(2, 1, 8, 8), "0", method, positive=False) == 0).all(), method


def test_half_precision_is_folded_in_single(model, images):
    heat = attribute(SlimVGG.seeded(3).eval().bfloat16(), images.bfloat16(), LAYER)
    assert heat.dtype == torch.float32


def test_every_method_says_what_it_does_and_who_proposed_it():
    assert len(METHODS) == 9
    assert all(len(method.line.split()) > 3 and any(c.isdigit() for c in method.source) for method in METHODS.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "gradcam"}, "no method 'gradcam'; the methods are saliency"),
        ({"sign": "pro"}, "got sign 'pro', expected one of 'prediction'"),
        ({"target": 3}, 'got a target together with sign="prediction"'),
        ({"target": 10, "sign": "for"}, "class 10, the model has classes 0 to 9"),
        ({"target": torch.tensor([1, 2]), "sign": "for"}, "target has 2 entries, the batch has 3"),
        ({"layer": "features.24x"}, "no layer 'features.24x'; the nearest names are 'features.24'"),
        ({"layer": "classifier.1"}, r"gives shape \(3, 64\), a map needs .* the last convolution is 'features.21'"),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_advice(model, images, arguments, says):
    with pytest.raises(InputError, match=says):
        attribute(model, images, **{"layer": LAYER, **arguments})


@pytest.mark.parametrize(("images", "says"), [
    (torch.rand(0, 1, 64, 64), "batch is empty"),
    (torch.full((1, 1, 64, 64), float("nan")), "NaN or infinite"),
])
def test_bad_images_are_refused(model, images, says):
    with pytest.raises(InputError, match=says):
        attribute(model, images, LAYER)


def test_enlarging_keeps_a_constant_map_and_the_order_of_axes():
    assert (upsample(torch.ones(2, 3, 3), (6, 9)) == 1).all() and upsample(torch.ones(2, 3, 3), (6, 9)).shape == (2, 6, 9)
    with pytest.raises(InputError, match=r"shape \(3, 3\), expected \(N, h, w\)"):
        upsample(torch.ones(3, 3), 6)
