"""EfficientNet-Lite0 on real photographs: beside the published network, and how fast it encodes.

Ten photographs of scikit-image and scikit-learn go through the network as it was published and through the one of this
project. Encoding is timed on as many threads as there are, naively (as loaded) and as :func:`fused` does it, in turn.
"""

from pathlib import Path

import skimage
import sklearn
import torch

from crossexplain.data import photos, store
from crossexplain.models.efficientnet import fused
from crossexplain.models.vgg import LITE, load_imagenet
from crossexplain_book.bench import row_of, seconds

TEN = ("chelsea.png", "coffee.png", "camera.png", "motorcycle_left.png", "rocket.jpg", "astronaut.png", "coins.png",
       "clock_motion.png", "china.jpg", "flower.jpg")
ENCODED = 32  # photographs at a time


def rows(seed: int = 0, repeats: int = 9) -> list[dict]:
    """Return the rows of the table."""
    model, images = load_imagenet(LITE, store.find(LITE).path), ten()
    with torch.no_grad():
        differences = (model(images) - as_published()((255 * images - 127) / 128)).abs().amax(dim=1).tolist()
        batch = images.repeat(4, 1, 1, 1)[:ENCODED]
        fast, laid_out = fused(model), batch.to(memory_format=torch.channels_last)
        calls = {"naive": lambda: model.tower(batch), "fused": lambda: fast.tower(laid_out)}
        for call in calls.values():
            call()
        rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    return [
        row_of("photographs.lite0.max_difference", differences, "largest difference of a logit, by photograph", max),
        row_of("encode.lite0.images_per_second", [ENCODED / one["fused"] for one in rounds], "photographs a second"),
        row_of("encode.lite0.naive_over_fused", [one["naive"] / one["fused"] for one in rounds], "ratio"),
        row_of("encode.lite0.naive_images_per_second", [ENCODED / one["naive"] for one in rounds], "photographs a second"),
    ]


def ten() -> torch.Tensor:
    """Return ten photographs (10, 3, 224, 224) that come with scikit-image and scikit-learn."""
    folders = Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets/images"
    files = [next(folder / name for folder in folders if (folder / name).is_file()) for name in TEN]
    return torch.stack([photos.read(file, 224) for file in files])


def as_published() -> torch.nn.Module:
    """Return the network by the package that its authors' weights were brought to PyTorch with."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(store.find(LITE).path, weights_only=True))
    return network.eval()
