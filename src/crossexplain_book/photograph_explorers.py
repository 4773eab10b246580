"""Explorers of photographs: what a classifier sees in one, and which of several a sentence means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import ipywidgets as ipw
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from crossexplain.checks import InputError
from crossexplain.data.photos import square
from crossexplain.data.vocabulary import nearest
from crossexplain.gradients import maps
from crossexplain.models.classifier import CutInTwo
from crossexplain.models.two_towers import TwoTowerModel
from crossexplain_book import figures
from crossexplain_book.controls import Explorer, choice, paragraph
from crossexplain_book.explained import map_choices, place_of
from crossexplain_book.explorers import decode, uploader

OWN = "the one that you uploaded"
BLUR = [61, 61], [12.0, 12.0]  # side of the kernel and its standard deviation, in pixels: shapes go, colours stay
COVERS: dict[str, Callable[[Tensor], Tensor]] = {  # from the rank of each pixel, the hottest 0 and the coldest near 1
    "nothing": lambda rank: torch.zeros_like(rank, dtype=torch.bool),
    "the hottest fifth": lambda rank: rank < 0.2,
    "the coldest fifth": lambda rank: rank >= 0.8,
    "all but the hottest fifth": lambda rank: rank >= 0.2,
}


@dataclass(frozen=True)
class Asked:
    """What a classifier says about a photograph, parts of which may be covered.

    Attributes
    ----------
    image : Tensor, shape (3, S, S)
        As the network saw it.
    heat : Tensor, shape (h, w)
        Evidence for or against the class in this image.
    number : int
        Of the class.
    before, after : Tensor, shape (C,)
        Logits with nothing covered, and of the image.
    note : str
        What was done to the reader's photograph, if anything.
    """

    image: Tensor
    heat: Tensor
    number: int
    before: Tensor
    after: Tensor
    note: str


class ClassExplorer(Explorer):
    """Ask a classifier of photographs for a class, read its map, and cover what the map calls hottest.

    Parameters
    ----------
    model : CutInTwo
        Such as :func:`crossexplain.models.vgg.load_imagenet` returns.
    classes : sequence of str
        Names, in the order of the logits; of two with one name the first is meant.
    pictures : mapping from title to Tensor, shape (3, H, W)
        Photographs to choose from, RGB from 0 to 1; the reader's own joins them.
    layers : mapping from title to name, optional
        Layers to choose from; default the last map, and the pixels.
    asked : str
        Class to begin with; empty, what the network reads.
    name, caption : str
        Of the picture on a page without a kernel.
    """

    def __init__(self, model: CutInTwo, classes: Sequence[str], pictures: Mapping[str, Tensor], *, name: str, caption: str,
                 layers: Mapping[str, str] | None = None, asked: str = ""):
        self.model, self.classes, self.pictures, self.name, self.caption = model, list(classes), pictures, name, caption
        self.photograph = choice("Photograph", [*pictures, OWN], next(iter(pictures)))
        self.upload, hint = uploader()
        self.asked = ipw.Combobox(description="Class", value=asked, options=list(dict.fromkeys(self.classes)),
                                  placeholder="what the network reads", continuous_update=False,
                                  layout={"width": "auto", "max_width": "42rem"}, style={"description_width": "8rem"})
        self.sign = choice("Evidence", [("for the class", "for"), ("against the class", "against")], "for")
        self.map = choice("Map", map_choices(), "grad-cam")
        layers = layers or {"the last map": model.image_layer, "the pixels": "input:images"}
        self.layer = choice("Layer", list(layers.items()), next(iter(layers.values())))
        self.cover = choice("Cover", list(COVERS), "nothing")
        controls = [self.photograph, self.asked, self.sign, self.map, self.layer, self.cover]
        super().__init__([self.photograph, self.upload, hint, *controls[1:]], controls)
        self.upload.observe(self._own, names="value")

    def _own(self, change) -> None:
        """Show the photograph that was uploaded."""
        if self.photograph.value == OWN:
            self._follow()
        self.photograph.value = OWN

    def _update(self) -> None:
        asked = self.read()
        named = self.classes[asked.number]
        chances = asked.after.softmax(dim=0)
        best = ", ".join(f"{self.classes[i]} {chances[i]:.0%}" for i in chances.topk(3).indices)
        about = f"The network reads {best}. The logit of {named} is {asked.after[asked.number]:+.2f}"
        covered = self.cover.value != "nothing"
        before = f", with nothing covered {asked.before[asked.number]:+.2f}" if covered else ""
        self._show(partial(
            figures.maps, asked.image[None], asked.heat[None], titles=[f"{self.sign.value} {named}"],
            signed=maps.METHODS[self.map.value].signed, label=f"evidence {self.sign.value} the class",
            alt=f"A photograph, with {self.cover.value} covered. {about}{before}. The map is strongest at the "
                f"{place_of(asked.heat)}.",
            caption=self.caption, name=self.name), paragraph(f"{about}{before}.", "status"))
        self._details.value = paragraph(asked.note, "note") if asked.note else ""

    def read(self) -> Asked:
        """Return what is shown for what is chosen now.

        Raises
        ------
        InputError
            For a class that the network does not know, and for an own photograph that was not uploaded or cannot be read.
        """
        if self.photograph.value == OWN and not self.upload.value:
            raise InputError("no photograph was uploaded yet; press the button and choose a file.")
        own = self.photograph.value == OWN
        image, note = square(decode(self.upload.value[-1]) if own else self.pictures[self.photograph.value], self.model.size)
        with torch.no_grad():
            before = self.model(image[None])[0]
        number = self._number(before)
        heat = self._heat(image, number)
        large = maps.upsample(heat[None], image.shape[1])[0]
        rank = large.flatten().argsort(descending=True).argsort().reshape(large.shape) / large.numel()
        mask = COVERS[self.cover.value](rank)
        if not mask.any():
            return Asked(image, heat, number, before, before, note)
        image = torch.where(mask, functional.gaussian_blur(image, *BLUR), image)
        with torch.no_grad():
            return Asked(image, self._heat(image, number), number, before, self.model(image[None])[0], note)

    def _number(self, logits: Tensor) -> int:
        typed = self.asked.value.strip()
        if not typed:
            return int(logits.argmax())
        if typed not in self.classes:
            raise InputError(f"the network knows no class {typed!r}; the nearest are {nearest(typed, self.classes)}.")
        return self.classes.index(typed)

    def _heat(self, image: Tensor, number: int) -> Tensor:
        with torch.enable_grad():
            return maps.attribute(self.model, {"images": image[None]}, self.layer.value, self.map.value, number,
                                  self.sign.value)[0]


class SearchExplorer(Explorer):
    """Type a sentence, and see which photographs a dual encoder takes it for, and where.

    Parameters
    ----------
    model : TwoTowerModel
        A whole dual encoder, in eval mode.
    ask : callable
        ``ask(images, sentences)`` returns its inputs, for images (N, 3, S, S) and N sentences; raises ValueError, with a
        message for the reader, for what it cannot take.
    images : Tensor, shape (N, 3, S, S)
        RGB from 0 to 1.
    titles : sequence of N str
    sentence : str
        What it begins with.
    shown : int
        How many photographs, from the best on.
    name, caption : str
        Of the picture on a page without a kernel.

    Attributes
    ----------
    logits : Tensor, shape (N,)
        Of the sentence with every photograph, as shown.
    """

    def __init__(self, model: TwoTowerModel, ask: Callable[[Tensor, list[str]], Mapping[str, Tensor]], images: Tensor,
                 titles: Sequence[str], sentence: str, *, name: str, caption: str, shown: int = 4):
        self.model, self.ask, self.images, self.titles, self.shown = model, ask, images, list(titles), shown
        self.name, self.caption = name, caption
        with torch.no_grad():
            self.seen = model.see(images)  # once, whatever is typed
        self.sentence = ipw.Text(description="Sentence", value=sentence, continuous_update=False,
                                 layout={"width": "auto", "max_width": "42rem"}, style={"description_width": "8rem"})
        self.sentence.add_class("ce-typed")
        self.map = choice("Map", map_choices(), "layer-cam")  # right at any map, the last or not
        super().__init__([self.sentence, self.map], [self.sentence, self.map])

    def _update(self) -> None:
        sentence = self.sentence.value.strip()
        if not sentence:
            raise InputError("the sentence is empty; type at least one word.")
        texts = {name: value for name, value in self.ask(self.images[:1], [sentence]).items() if name != "images"}
        with torch.no_grad():
            self.logits = self.model.logits_of_all_pairs(self.seen, self.model.read(**texts))[:, 0]
        best = self.logits.argsort(descending=True)[: self.shown]
        heat = maps.attribute(self.model, self.ask(self.images[best], [sentence] * len(best)), self.model.image_layer,
                              self.map.value, 1, "for")
        lines = [f"{rank}. {self.titles[i]} {self.logits[i]:+.1f}" for rank, i in enumerate(best.tolist(), start=1)]
        yes = int((self.logits > 0).sum())
        found = f"Of {len(self.images)} photographs the sentence fits {yes or 'none'}, says the model; the order is"
        self._show(partial(
            figures.ranking, self.images[best], heat, lines, signed=maps.METHODS[self.map.value].signed,
            alt=f"Photographs for the sentence '{sentence}': {'; '.join(lines)}. In the first one the map is strongest at "
                f"the {place_of(heat[0])}.", caption=self.caption, name=self.name),
            paragraph(f"{found} {', '.join(lines)}.", "status"))
