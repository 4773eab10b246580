"""EfficientNet-Lite0 with ImageNet weights: a real photograph classifier of 17 MB that a registry package carries.

Tan and Le (2019), in the form for small devices: no squeeze-and-excitation, and ReLU6 in place of swish. The weights are the
authors' own, brought to PyTorch; names of entries are those of the published file, see :func:`own_name`.
"""

import copy
import itertools
import re

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from crossexplain.checks import InputError, require_eval, require_images
from crossexplain.models.classifier import SMALLEST, CutInTwo

# Number of blocks, side of the kernel, stride of the first block, factor of its inner channels, channels: Table 1 of the paper.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))
LAST, WIDTH = 17, 1280  # number of the last layer of the features, and its channels
EPSILON = 1e-3  # of batch norm, as the weights were trained
PARTS = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "apart.0", "_bn1": "apart.1",
         "_project_conv": "project.0", "_bn2": "project.1"}  # published name and own name of a block's layers
ENDS = {"_conv_stem": "features.0.0", "_bn0": "features.0.1", "_conv_head": "features.17.0", "_bn1": "features.17.1",
        "_fc": "classifier"}  # and of the layers before and after the blocks


class SamePadded(nn.Conv2d):
    """A convolution whose output has 1 / stride of the places, rounded up; what padding is odd stands right and below."""

    def forward(self, images: Tensor) -> Tensor:
        """Return maps (N, C, h, w)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        (top, bottom), (left, right) = (_padding(side, kernel, stride) for side in images.shape[-2:])
        return super().forward(functional.pad(images, (left, right, top, bottom)))


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return missing // 2, missing - missing // 2


def _convolution(before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [SamePadded(before, width, kernel, stride, groups=groups, bias=False), nn.BatchNorm2d(width, EPSILON)]


class Block(nn.Module):
    """More channels, a convolution of each channel by itself, fewer channels; added to what came in where sizes allow it.

    Parameters
    ----------
    before, width : int
        Channels that go in and come out.
    kernel, stride, factor : int
        Of the convolution of each channel, and how many times as many channels it has.
    """

    def __init__(self, before: int, width: int, kernel: int, stride: int, factor: int):
        super().__init__()
        inner = before * factor
        if factor > 1:
            self.expand = nn.Sequential(*_convolution(before, inner, 1), nn.ReLU6())
        self.apart = nn.Sequential(*_convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6())
        self.project = nn.Sequential(*_convolution(inner, width, 1))
        self.adds = stride == 1 and before == width

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, width, h, w) of maps (N, before, h, w)."""
        inner = self.expand(maps) if hasattr(self, "expand") else maps
        changed: Tensor = self.project(self.apart(inner))
        return maps + changed if self.adds else changed


class EfficientNetLite0(CutInTwo):
    """The network; takes photographs as they are, red, green, blue from 0 to 1.

    Parameters
    ----------
    cut : int
        The layer of ``features`` after which it is cut in two; default, the last convolutional map. An earlier map holds
        more of what is no class of ImageNet, and all that follows is made of it.

    Attributes
    ----------
    image_layer : str
        The map at the cut, 7 x 7 of 224 pixels from layer 12 on.
    size : int
        Side in pixels of the square images that the weights were trained on.
    width : int
        Channels of that map.
    fine : bool
        As for :class:`crossexplain.models.vgg.ImageNetClassifier`.

    Raises
    ------
    InputError
        If the cut is no layer of ``features``.

    Examples
    --------
    >>> model = EfficientNetLite0.seeded(0).eval()
    >>> maps = model.tower(torch.rand(1, 3, 64, 96))
    >>> maps.shape, model.head(maps).shape
    (torch.Size([1, 1280, 2, 3]), torch.Size([1, 1000]))
    """

    size, fine = 224, False

    def __init__(self, cut: int = LAST):
        super().__init__()
        if cut not in range(LAST + 1):
            raise InputError(f"got cut={cut!r}, expected the number of a layer of features, 0 to {LAST}.")
        layers: list[nn.Module] = [nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6())]
        before = 32
        for count, kernel, stride, factor, channels in STAGES:
            for i in range(count):
                layers.append(Block(before, channels, kernel, stride if i == 0 else 1, factor))
                before = channels
        layers.append(nn.Sequential(*_convolution(before, WIDTH, 1), nn.ReLU6()))
        self.features, self.classifier, self.cut = nn.Sequential(*layers), nn.Linear(WIDTH, 1000), cut
        self.image_layer = "features.17.2" if cut == LAST else f"features.{cut}"
        self.width = [layer for layer in self.features[cut].modules() if isinstance(layer, nn.Conv2d)][-1].out_channels

    @property
    def later(self) -> list[nn.Module]:
        """The layers between the cut and the classifier."""
        return list(self.features[self.cut + 1 :])

    def tower(self, images: Tensor) -> Tensor:
        """Return the map at the cut (N, C, h, w) of images (N, 3, S, S) in [0, 1]."""
        images = require_images(images, channels=3, smallest=SMALLEST, unit=True)
        maps: Tensor = self.features[: self.cut + 1]((255 * images - 127) / 128)
        return maps

    def head(self, maps: Tensor) -> Tensor:
        """Return logits (N, 1000) of the map at the cut."""
        logits: Tensor = self.classifier(self.features[self.cut + 1 :](maps).mean(dim=(2, 3)))
        return logits


def own_name(key: str) -> str:
    """Return the name that an entry of the published state dict has here.

    Examples
    --------
    >>> own_name("_blocks.3._depthwise_conv.weight"), own_name("_fc.bias")
    ('features.4.apart.0.weight', 'classifier.bias')
    """
    if block := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
        return f"features.{int(block[1]) + 1}.{PARTS.get(block[2], block[2])}.{block[3]}"
    part, _, rest = key.partition(".")
    return f"{ENDS.get(part, part)}.{rest}"


def fused(model: EfficientNetLite0) -> EfficientNetLite0:
    """Return a copy that encodes photographs about twice as fast: the same numbers, batch norm inside the convolutions.

    Memory is laid out channels last, which the convolutions of single channels are fastest on. The copy is for encoding: the
    layers where batch norm stood are still there, and do nothing.

    Parameters
    ----------
    model : EfficientNetLite0
        In eval mode; stays as it is.
    """
    require_eval(model)
    model = copy.deepcopy(model)
    for layers in [part for part in model.modules() if isinstance(part, nn.Sequential)]:
        for i, (convolution, norm) in enumerate(itertools.pairwise(layers)):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[i], layers[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return model.to(memory_format=torch.channels_last)
