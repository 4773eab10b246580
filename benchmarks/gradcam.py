"""How much a Grad-CAM map costs: beside the bare forward pass and beside two other libraries, all in one run.

Sixteen real photographs (windows of the two that scikit-learn ships) go through networks of the shape of SqueezeNet 1.0,
EfficientNet-Lite0 and VGG-16; weights do not change the time. Sixteen pairs of drawn scenes go through the dual encoder with
convolutions: each picture stands in two of them, as the pictures of captions do, and equal pictures are looked at once.
All nine maps come from one capture and are timed too. The dual encoder takes ten milliseconds: on one thread that is a
measure of the work; on more, the forward pass is shared out and what stands around it is not, which a row of its own says.
Each round times every contender in turn and takes ratios within the round, so that a busy machine slows all of them alike;
the value is the median over rounds, low and high their range.
"""

import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from crossexplain.gradients.maps import METHODS, attribute
from crossexplain.models.efficientnet import EfficientNetLite0
from crossexplain.models.vgg import LITE, ImageNetClassifier
from crossexplain.recipes import load_or_train, scenes
from crossexplain_book.bench import memory, row_of, seconds

IMAGES = 16
# VGG-16 takes a hundred times longer, so fewer rounds say as much; its rows have ids of their own.
NETWORKS = {"squeezenet1_0": ("gradcam", 3), LITE: ("gradcam.lite0", 3), "vgg16": ("gradcam.vgg16", 1)}
SCENES = ("gradcam.clip_cnn", 6)
# Where all nine maps are timed, and the name of the row.
NINE = {"gradcam": "maps.nine_over_forward", "gradcam.clip_cnn": "maps.clip_cnn.nine_over_forward"}


class OfImages(nn.Module):
    """A model of pairs as the other libraries want it: called with pictures alone, the texts stay."""

    def __init__(self, model: nn.Module, tokens: Tensor):
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the pairs."""
        return self.model(images, self.tokens)


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table; ``repeats`` rounds on VGG-16, three times on smaller networks, six times on scenes."""
    table = []
    for network, (key, times) in NETWORKS.items():
        model = (EfficientNetLite0.seeded(seed) if network == LITE else ImageNetClassifier.seeded(seed, network)).eval()
        table += measured(key, times * repeats, contenders(model, photographs(model.size)), "images")
    key, times = SCENES
    calls, threads = of_pairs(seed), torch.get_num_threads()
    table.append(ratio(f"speed.{key}.threads_{threads}.over_forward", timed(calls, times * repeats), "ours", "forward"))
    try:
        torch.set_num_threads(1)
        return table + measured(key, times * repeats, calls, "pairs of drawn scenes")
    finally:
        torch.set_num_threads(threads)


def measured(key: str, repeats: int, calls: dict, what: str) -> list[dict]:
    """Return the rows of one network."""
    rounds = timed(calls, repeats)
    return [
        ratio(f"speed.{key}.over_forward", rounds, "ours", "forward"),
        ratio(f"speed.{key}.captum_over_ours", rounds, "captum", "ours"),
        ratio(f"speed.{key}.grad_cam_over_ours", rounds, "grad_cam", "ours"),
        row_of(f"speed.{key}.seconds", [r["ours"] for r in rounds], f"s for {IMAGES} {what}"),
        *([ratio(f"speed.{NINE[key]}", rounds, "nine", "forward")] if key in NINE else []),
        *memory(key, {name: call for name, call in calls.items() if name != "nine"}),
    ]


def timed(calls: dict, repeats: int) -> list[dict]:
    """Return the seconds of every contender in each round."""
    return [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]


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

    return warm({"forward": forward, "ours": lambda: attribute(model, images, model.image_layer),
                 "nine": lambda: attribute(model, images, model.image_layer, list(METHODS)),
                 "captum": lambda: captum.attribute(images, target), "grad_cam": grad_cam})


def of_pairs(seed: int) -> dict:
    """Return what is timed on pairs of a picture and a text: the evidence for the match at the last map of the convolutions."""
    trained = load_or_train("scenes_clip_cnn")
    model, pairs = trained.model.eval(), trained.data.build("test", IMAGES, seed)
    inputs = scenes.inputs(model, trained.data.images(pairs.image), pairs.captions)
    whole, layer = OfImages(model, inputs["tokens"]), model.get_submodule(model.image_layer)
    captum = LayerGradCam(whole, layer)
    pictures = inputs["images"].clone().requires_grad_()  # else grad-cam fails on frozen weights

    @torch.no_grad()
    def forward():
        return model(**inputs)

    def grad_cam():
        with GradCAM(whole, [layer]) as cam:
            return cam(pictures, targets=[lambda logit: logit] * IMAGES)

    return warm({"forward": forward, "ours": lambda: attribute(model, inputs, model.image_layer, target=1, sign="for"),
                 "nine": lambda: attribute(model, inputs, model.image_layer, list(METHODS), target=1, sign="for"),
                 "captum": lambda: captum.attribute(inputs["images"]), "grad_cam": grad_cam})


def warm(calls: dict) -> dict:
    """Return the contenders after one call each: what is done only once (kernels chosen, memory taken) counts for nobody."""
    for call in calls.values():
        call()
    return calls


def ratio(key: str, rounds: list[dict], above: str, below: str) -> dict:
    """Return the row of a ratio of two contenders."""
    return row_of(key, [r[above] / r[below] for r in rounds], "ratio")
