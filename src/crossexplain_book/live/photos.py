"""Photographs on a page: choose method and layer of the map, and cover what it calls hottest, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from crossexplain.gradients import maps
from crossexplain.models.classifier import CutInTwo
from crossexplain_book.explained import map_choices
from crossexplain_book.live.packing import packed, picture
from crossexplain_book.live.part import LivePart

BLUR = [61, 61], [12.0, 12.0]  # side of the kernel and its standard deviation, in pixels: shapes go, colours stay
FINEST = 56  # rows and columns of the finest map that is kept: sums over neighbouring pixels
READ = 3  # classes that are named


@dataclass(frozen=True)
class StoredPhotograph:
    """A photograph, its maps by layer and method, and what the network says as more and more of it is covered.

    Attributes
    ----------
    title : str
    image, blurred : Tensor, shape (3, S, S)
        As the network sees it, and what stands in for what is covered.
    number : int
        Of the class that is asked for.
    maps : dict from (layer, method) to ndarray, shape (h, w)
        Evidence for the class.
    logits : ndarray of float32, shape (len(maps) + 1, steps + 1)
        Of the class with the hottest 0, 1 / steps, ... of the pixels covered, by map; the last row in random order.
    classes, chances : ndarray of float32, shape (len(maps) + 1, steps + 1, READ)
        Numbers and probabilities of the likeliest classes.
    """

    title: str
    image: Tensor
    blurred: Tensor
    number: int
    maps: dict[tuple[str, str], np.ndarray]
    logits: np.ndarray
    classes: np.ndarray
    chances: np.ndarray


def stored(title: str, model: CutInTwo, image: Tensor, layers: Mapping[str, str], number: int | None = None, *,
           steps: int = 10, seed: int = 0) -> StoredPhotograph:
    """Ask a classifier about a photograph, by every method of the registry at some layers.

    Parameters
    ----------
    title : str
    model : CutInTwo
    image : Tensor, shape (3, S, S)
        RGB from 0 to 1, of the size that the network takes.
    layers : mapping from title to name
    number : int, optional
        Of the class to ask for; default, what the network reads.
    steps : int
        In how many steps the photograph is covered.
    seed : int
        Of the random order.

    Returns
    -------
    StoredPhotograph
    """
    with torch.no_grad():
        number = int(model(image[None])[0].argmax()) if number is None else number
    blurred, heats = functional.gaussian_blur(image, *BLUR), {}
    for layer in layers.values():
        found = maps.attribute(model, {"images": image[None]}, layer, [key for _, key in map_choices()], number, "for")
        for key, heat in found.items():
            heats[layer, key] = maps.to_cells(heat, (FINEST, FINEST)) if heat.shape[1] > FINEST else heat
    orders = [_order(maps.upsample(heat, image.shape[1])[0]) for heat in heats.values()]
    orders.append(torch.randperm(image[0].numel(), generator=torch.Generator().manual_seed(seed)))
    whole = image[None].repeat(2, 1, 1, 1)
    whole[1] = blurred
    answers = []
    with torch.no_grad():
        ends = model(whole)
        for order in orders:
            rank = order.argsort().reshape(image.shape[1:]) * steps
            covered = [torch.where(rank < step * order.numel(), blurred, image) for step in range(1, steps)]
            answers.append(torch.cat([ends[:1], model(torch.stack(covered)), ends[1:]]))
    logits = torch.stack(answers)  # (orders, steps + 1, classes)
    chances, classes = logits.softmax(dim=-1).topk(READ)
    return StoredPhotograph(title, image, blurred, number, {key: heat[0].numpy() for key, heat in heats.items()},
                            logits[..., number].float().numpy(), classes.float().numpy(), chances.float().numpy())


def _order(heat: Tensor) -> Tensor:
    """Return the pixels of a map (S, S) from the hottest to the coldest; of equal ones the first comes first."""
    return heat.flatten().argsort(descending=True, stable=True)


class Photographs(LivePart):
    """Choose a photograph, a layer and a method, and slide how much of the hottest is covered.

    Parameters
    ----------
    photographs : sequence of StoredPhotograph
    classes : sequence of str
        Names, in the order of the logits.
    layers : mapping from title to name
        As they were asked.
    alt, caption, name : str
        Of the figure on a page.
    """

    parts, kind = ("looks.js", "photos.js"), "photo"

    def __init__(self, photographs: Sequence[StoredPhotograph], classes: Sequence[str], layers: Mapping[str, str], *,
                 alt: str, caption: str, name: str):
        self.photographs = list(photographs)
        heads, arrays, numbers = [], {}, set()
        for k, one in enumerate(self.photographs):
            heads.append({"title": one.title, "image": picture(one.image), "blurred": picture(one.blurred, 60),
                          "asked": classes[one.number]})
            numbers |= set(np.unique(one.classes).astype(int).tolist())
            arrays |= {f"{k} logits": one.logits, f"{k} classes": one.classes, f"{k} chances": one.chances}
            arrays |= {f"{k} {layer} {key}": heat[None].astype(float) for (layer, key), heat in one.maps.items()}
        head = {"photographs": heads, "layers": list(layers.items()), "names": {i: classes[i] for i in sorted(numbers)},
                "methods": [[key, title, maps.METHODS[key].signed] for title, key in map_choices()]}
        grad_cam = [row[0] for row in head["methods"]].index("grad-cam")
        still = (f'<img class="dark-light" alt="{escape(alt)}" style="width:min(14rem,100%)" src="{heads[0]["image"]}">')
        super().__init__(still, f"0~0~{grad_cam}~0", packed(head, arrays), alt=alt, caption=caption, name=name)
