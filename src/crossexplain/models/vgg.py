"""VGG: a slim one that is trained here, and torchvision's networks with ImageNet weights, frozen.

Simonyan and Zisserman (2015): stacks of 3x3 convolutions, a pool after each stack, dense layers on top. SqueezeNet 1.0
(Iandola et al. 2016) stands beside them as the network whose ImageNet weights take 5 MB instead of 500, and
:mod:`crossexplain.models.efficientnet` as the one that needs no download.

Every model here is cut in two at its ``image_layer``, the last convolutional map: ``model(images)`` is
``model.head(model.tower(images))``.
"""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from crossexplain.checks import require_images, require_one_of
from crossexplain.models.classifier import SMALLEST, CutInTwo
from crossexplain.models.efficientnet import EfficientNetLite0, own_name
from crossexplain.models.weights import read_weights

NETWORKS = {  # torchvision's name: number of the last convolutional map in ``features``, side of the input in pixels
    "vgg16": (29, 224),
    "vgg19": (35, 224),
    "squeezenet1_0": (12, 227),
}
LITE = "efficientnet_lite0"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, red green blue


class SlimVGG(CutInTwo):
    """A VGG small enough to train in about a minute on a CPU: one grey channel, digits in clutter.

    Seven 3x3 convolutions with batch norm and in-place ReLU in four stacks, each followed by a 2x2 pool, then two dense
    layers. ``image_layer`` is the ReLU after the last convolution, an eighth of the image in each direction.

    Examples
    --------
    >>> model = SlimVGG().eval()
    >>> maps = model.tower(torch.rand(2, 1, 64, 64))
    >>> maps.shape, model.head(maps).shape
    (torch.Size([2, 64, 8, 8]), torch.Size([2, 10]))
    """

    STACKS = ((12,), (24, 24), (48, 48), (64, 64))  # channels of each convolution
    image_layer = "features.23"
    size = 64  # side of the square images in pixels

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for stack in self.STACKS:
            for width in stack:
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(before * 4 * 4, 64), nn.ReLU(True), nn.Dropout(0.2), nn.Linear(64, 10),
        )

    def tower(self, images: Tensor) -> Tensor:
        """Return the last convolutional map (N, 64, S / 8, S / 8) of images (N, 1, S, S) in [0, 1]."""
        maps: Tensor = self.features[:24](require_images(images, channels=1, side=self.size, unit=True))
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Return logits (N, 10) of the last convolutional map."""
        logits: Tensor = self.classifier(self.features[24:](maps))
        return logits


class ImageNetClassifier(CutInTwo):
    """A network of torchvision that takes photographs as they are: red, green, blue from 0 to 1.

    Parameters
    ----------
    name : {"vgg16", "vgg19", "squeezenet1_0"}

    Attributes
    ----------
    image_layer : str
        The last convolutional map: 14 x 14 for VGG, 13 x 13 for SqueezeNet.
    size : int
        Side in pixels of the square images that the weights were trained on.
    width : int
        Channels of that map.
    fine : bool
        Whether it has more places than the layers after a frozen tower need; see :func:`crossexplain.models.towers.coarse`.
    """

    width, fine = 512, True  # of all three networks

    def __init__(self, name: str):
        super().__init__()
        require_one_of(name, NETWORKS, "network")
        self.last, self.size = NETWORKS[name]
        self.image_layer = f"network.features.{self.last}"
        self.network: Any = torchvision.models.get_model(name, weights=None)

    @property
    def later(self) -> list[nn.Module]:
        """The layers after the last map that give a map, too: SqueezeNet's of each class; VGG has none."""
        return [nn.Sequential(layer, nn.ReLU()) for layer in self.network.classifier if isinstance(layer, nn.Conv2d)]

    def tower(self, images: Tensor) -> Tensor:
        """Return the last convolutional map (N, 512, h, w) of images (N, 3, S, S) in [0, 1]."""
        images = require_images(images, channels=3, smallest=SMALLEST, unit=True)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        maps: Tensor = self.network.features[: self.last + 1]((images - mean) / std)
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Return logits (N, 1000) of the last convolutional map."""
        maps = self.network.features[self.last + 1 :](maps)
        if hasattr(self.network, "avgpool"):  # VGG; SqueezeNet pools inside its classifier
            maps = self.network.avgpool(maps).flatten(1)
        logits: Tensor = self.network.classifier(maps).flatten(1)
        return logits


def load_imagenet(name: str, path: Path | str, **settings: Any) -> ImageNetClassifier | EfficientNetLite0:
    """Load a network with ImageNet weights, frozen and in eval mode.

    Parameters
    ----------
    name : {"vgg16", "vgg19", "squeezenet1_0", "efficientnet_lite0"}
    path : Path
        State dict as it was published, by torchvision or for Lite0 by its authors, ``.safetensors`` or ``.pth``.
    settings
        ``cut`` of :class:`~crossexplain.models.efficientnet.EfficientNetLite0`.

    Returns
    -------
    ImageNetClassifier or EfficientNetLite0

    Raises
    ------
    crossexplain.models.weights.WeightsError
        If the file is missing, broken, of another network, or holds NaN or infinity.
    """
    require_one_of(name, (*NETWORKS, LITE), "network")
    with torch.device("meta"):  # initial weights would take memory and time, and are replaced at once
        model = EfficientNetLite0(**settings) if name == LITE else ImageNetClassifier(name, **settings)
    holder: nn.Module = model.network if isinstance(model, ImageNetClassifier) else model
    weights = read_weights(Path(path), holder, name, rename=own_name if name == LITE else str)
    holder.load_state_dict(weights, assign=True)
    return model.requires_grad_(False).eval()
