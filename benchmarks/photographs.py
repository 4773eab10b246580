"""EfficientNet-Lite0 on real photographs: beside the published network, and how fast it encodes.

Ten photographs of scikit-image and scikit-learn go through the network as it was published and through the one of this
project. Encoding is timed on as many threads as there are, naively (as loaded) and as :func:`fused` does it, in turn.
Every map is asked for the class of the object that was marked on a photograph, and its hottest pixel is held against the box;
of a dozen questions, so the intervals (95 %, bootstrap over photographs) are wide. The models of photographs and captions that
travel with the book are asked about sixteen photographs with captions and foils of the project's own.
"""

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import interpolate

from benchmarks.studies import captioned
from crossexplain.data import photographs, photos, store
from crossexplain.evaluation import truth
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.maps import METHODS, attribute
from crossexplain.intervals import Interval, mean_interval
from crossexplain.models.efficientnet import fused
from crossexplain.models.vgg import LITE, load_imagenet
from crossexplain.recipes import flickr8k
from crossexplain_book.bench import row_of, seconds

TEN = {"skimage-photographs": ("chelsea.png", "coffee.png", "camera.png", "motorcycle_left.png", "motorcycle_right.png",
                               "rocket.jpg", "astronaut.png"),
       "sklearn-photographs": ("china.jpg", "flower.jpg"), "matplotlib-photograph": ("grace_hopper.jpg",)}
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
    table = pointing(seed)
    write_whole(embedded_folder() / "results" / "photographs.csv",
                lambda part: table.to_csv(part, index=False, float_format="%.4f"))
    game = table[table.measure == "pointing game"].set_index("method")
    best = game.drop(["random", "edges"]).value.idxmax()
    return [
        *({"id": f"photographs.pointing.{name}", **game.loc[method, ["value", "low", "high", "n"]].to_dict(),
           "unit": f"pointing game, {method}"} for name, method in (("best", best), ("random", "random"))),
        *with_captions(seed),
        row_of("photographs.lite0.max_difference", differences, "largest difference of a logit, by photograph", max),
        row_of("encode.lite0.images_per_second", [ENCODED / one["fused"] for one in rounds], "photographs a second"),
        row_of("encode.lite0.naive_over_fused", [one["naive"] / one["fused"] for one in rounds], "ratio"),
        row_of("encode.lite0.naive_images_per_second", [ENCODED / one["naive"] for one in rounds], "photographs a second"),
    ]


def ten() -> torch.Tensor:
    """Return ten photographs (10, 3, 224, 224) that come with scikit-image, scikit-learn and Matplotlib."""
    files = [store.find(source).path / name for source, names in TEN.items() for name in names]
    return torch.stack([photos.read(file, 224) for file in files])


def pointing(seed: int = 0) -> pd.DataFrame:
    """Return the table of the pointing game and the energy in the box, by method."""
    model, data = load_imagenet(LITE, store.find(LITE).path), photographs.load()
    maps = attribute(model, data.images, model.image_layer, list(METHODS), data.classes, sign="for")
    side, shape = photographs.SIDE, (len(data), photographs.SIDE, photographs.SIDE)
    heats = {method: interpolate(values[:, None], side, mode="bilinear")[:, 0].numpy() for method, values in maps.items()}
    # Smoothed as coarsely as a map of 7 x 7 places: half a place, 16 pixels.
    heats |= {"random": truth.random_map(*shape, seed, sigma=16), "edges": truth.edge_map(data.images)}
    photograph = np.unique(data.files, return_inverse=True)[1]
    lines = []
    for method, heat in heats.items():
        for measure, score in (("pointing game", truth.pointing_game), ("energy in the box", truth.energy_in_box)):
            lines.append({"method": method, "measure": measure,
                          **mean_interval(score(heat, data.boxes), seed, groups=photograph)._asdict()})
    return pd.DataFrame(lines)


def with_captions(seed: int = 0) -> list[dict]:
    """Return the rows of the models of photographs and captions: pairs, foils, and search by the dual encoder."""
    told, rows = photographs.load_captions(), []

    def row(name: str, interval: Interval, unit: str) -> None:
        rows.append({"id": f"photographs.embedded.{name}", **interval._asdict(), "unit": unit})

    for name, prefix in (("fusion", ""), ("clip_cnn", "clip_cnn.")):
        found = flickr8k.travelling(name)
        said = captioned.answers(found, told, seed)
        row(f"{prefix}pairs_right", said.pairs_right(seed), "share of pairs")
        for key, values, unit in (("foils", said.ahead, "share of captions above their foil"),
                                  ("foils_elsewhere", said.ahead_elsewhere, "the same with other photographs"),
                                  ("foils_accepted", said.foil > 0, "share of foils with a logit above 0")):
            for kind, share in said.by_kind(values, seed).items():
                row(f"{prefix}{key}" + (f".{kind}" if kind != "all" else ""), share, unit)
        if name == "clip_cnn":
            row(f"{prefix}recall_at_1", mean_interval(said.rank < 1, seed, groups=told.image),
                "share of captions whose photograph comes first of sixteen")
    return rows


def as_published() -> torch.nn.Module:
    """Return the network by the package that its authors' weights were brought to PyTorch with."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(store.find(LITE).path, weights_only=True))
    return network.eval()
