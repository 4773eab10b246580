"""How much a Grad-CAM map costs: beside the bare forward pass and beside two other libraries, all in one run.

Sixteen real photographs (windows of the two that scikit-learn ships) go through networks of the shape of SqueezeNet 1.0
and VGG-16; weights do not change the time. Each round times every contender in turn and takes ratios within the round,
so that a busy machine slows all of them alike; the value is the median over rounds, low and high their range.
"""

import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from sklearn.datasets import load_sample_images

from crossexplain.bench import memory, seconds, spread
from crossexplain.gradients.image import attribute
from crossexplain.models.vgg import ImageNetClassifier

IMAGES = 16
# VGG-16 takes a hundred times longer, so fewer rounds say as much; its rows have ids of their own.
NETWORKS = {"squeezenet1_0": ("gradcam", 3), "vgg16": ("gradcam.vgg16", 1)}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table; ``repeats`` rounds on VGG-16, three times as many on SqueezeNet."""
    found = []
    for network, (key, times) in NETWORKS.items():
        model = ImageNetClassifier.seeded(seed, network).eval()
        calls = contenders(model, photographs(model.size))
        rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(times * repeats)]
        found += [
            ratio(f"speed.{key}.over_forward", rounds, "ours", "forward"),
            ratio(f"speed.{key}.captum_over_ours", rounds, "captum", "ours"),
            ratio(f"speed.{key}.grad_cam_over_ours", rounds, "grad_cam", "ours"),
            spread(f"speed.{key}.seconds", [r["ours"] for r in rounds], f"s for {IMAGES} images"),
        ]
        found += memory(key, calls)
    return found


def photographs(side: int) -> torch.Tensor:
    """Return square windows (16, 3, side, side) of real photographs, in [0, 1]."""
    windows = []
    for photo in load_sample_images().images:  # (427, 640, 3), 8 bit
        pixels = torch.as_tensor(photo.copy()).permute(2, 0, 1).float() / 255
        for i in range(IMAGES // 2):
            top, left = 40 * (i // 4), 100 * (i % 4)
            windows.append(pixels[:, top : top + side, left : left + side])
    return torch.stack(windows).contiguous()


def contenders(model: torch.nn.Module, images: torch.Tensor) -> dict:
    """Return what is timed, each a function without arguments that explains the predicted class."""
    layer = model.get_submodule(model.image_layer)
    captum = LayerGradCam(model, layer)

    @torch.no_grad()
    def forward():
        return model(images)

    target = forward().argmax(dim=1)  # captum is given the class that the others find out

    def grad_cam():
        with GradCAM(model, [layer]) as cam:
            return cam(images, targets=None)

    calls = {"forward": forward, "ours": lambda: attribute(model, images, model.image_layer),
             "captum": lambda: captum.attribute(images, target), "grad_cam": grad_cam}
    for call in calls.values():  # what is done only once (kernels chosen, memory taken) counts for nobody
        call()
    return calls


def ratio(key: str, rounds: list[dict], above: str, below: str) -> dict:
    """Return the row of a ratio of two contenders."""
    return spread(key, [r[above] / r[below] for r in rounds], "ratio")
