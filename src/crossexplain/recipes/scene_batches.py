"""What models of scenes are trained on: pictures with what stands where, and with texts that are true of them or not."""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossexplain.data.scene_captions import Writer, foil
from crossexplain.data.scene_words import BACKDROPS, COLOUR_NAMES, GROUND_NAMES, KINDS, SIZE_NAMES, TEXTURE_NAMES, holds
from crossexplain.data.scenes import Pairs, Scenes, tokenize
from crossexplain.models.encodings import Rows
from crossexplain.models.training import TensorBatches
from crossexplain.models.two_towers import in_batches

WHAT = KINDS + GROUND_NAMES + BACKDROPS  # what can stand at a place
PARTS = (len(WHAT), len(COLOUR_NAMES), len(TEXTURE_NAMES), len(SIZE_NAMES))


class Pictures:
    """Pictures drawn once and kept as bytes.

    Parameters
    ----------
    data : Scenes
    indices : sequence of int
        Numbers of the pictures in the scenes.
    """

    def __init__(self, data: Scenes, indices: Rows):
        self.place = {int(i): k for k, i in enumerate(indices)}
        self.pixels = torch.empty(len(indices), 3, data.side, data.side, dtype=torch.uint8)
        for first in range(0, len(indices), 256):
            part = data.images(np.asarray(indices[first : first + 256]))
            self.pixels[first : first + 256] = (part * 255).round_()

    def __getitem__(self, indices: Rows) -> Tensor:
        """Return pictures by their numbers in the scenes; (n, 3, side, side), float32 from 0 to 1."""
        return self.pixels[[self.place[int(i)] for i in indices]].float().div_(255)


class Maps:
    """The maps of the frozen part of a model, computed once for each picture and kept in half precision.

    Parameters
    ----------
    model : Fusion, Clip or ClipCNN
    pictures : Pictures
        The maps have the same numbers.
    """

    def __init__(self, model: Any, pictures: Pictures):
        self.place, numbers = pictures.place, list(pictures.place)
        device = next(model.parameters()).device
        model.eval()
        self.values = in_batches(lambda part: model.image_map(pictures[part].to(device)).half().cpu(), numbers, 128)

    def __getitem__(self, indices: Rows) -> Tensor:
        """Return maps by the numbers of their pictures; (n, ...), float32."""
        return self.values[[self.place[int(i)] for i in indices]].float()


def layout(data: Scenes, indices: Rows, grid: int) -> Tensor:
    """Return what stands at each place of some pictures, (n, 4, grid, grid), int64.

    Parameters
    ----------
    data : Scenes
    indices : sequence of n int
    grid : int
        Places on a side.

    Returns
    -------
    Tensor
        Index into ``WHAT``; then colour, texture and size of the object whose box covers the place, the nearest one if there
        are several; -100 where there is none.
    """
    facts, middles = data.facts, (np.arange(grid) + 0.5) / grid * data.side
    out = np.full((len(indices), 4, grid, grid), -100)
    for cells, i in zip(out, indices):
        below = middles[:, None] > facts.horizon[i] * data.side
        cells[0] = np.where(below, len(KINDS) + facts.ground[i], len(KINDS) + len(GROUND_NAMES) + facts.backdrop[i])
        slots = np.flatnonzero(facts.kind[i] >= 0)
        for box, slot in sorted(zip(data.boxes(i).tolist(), slots), key=lambda pair: facts.y[i, pair[1]]):  # the nearest last
            rows, columns = ((middles >= low) & (middles < high) for low, high in zip(box[:2], box[2:]))
            object_facts = [getattr(facts, name)[i, slot] for name in ("kind", "colour", "texture", "size")]
            cells[:, np.outer(rows, columns)] = np.array(object_facts)[:, None]
    return torch.from_numpy(out)


class Named:
    """Pictures labelled with their layout.

    Parameters
    ----------
    pictures : Pictures
    indices : sequence of int
    labels : Tensor, shape (n, 4, grid, grid)
        From :func:`layout`.
    moved : bool
        Mirror half of the pictures, and move all of a batch sideways and a little up or down, wrapped around at the edges.
    """

    def __init__(self, pictures: Pictures, indices: Rows, labels: Tensor, moved: bool = True):
        self.pictures, self.indices, self.labels, self.moved = pictures, torch.as_tensor(indices), labels, moved

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return pictures and their layouts."""
        images, labels = self.pictures[self.indices[indices].tolist()], self.labels[indices]
        if self.moved:
            mirrored, cell = torch.rand(len(images)) < 0.5, images.shape[3] / labels.shape[3]
            images[mirrored], labels[mirrored] = images[mirrored].flip(3), labels[mirrored].flip(3)
            down, aside = int(torch.randint(-3, 4, ())), int(torch.randint(images.shape[3], ()))  # pixels
            images = images.roll((down, aside), (2, 3))
            labels = labels.roll(round(aside / cell), 3)
        return {"images": images}, labels


class Contrasts:
    """Batches to learn by contrast from: twin pictures, captions that tell them apart, and which caption is true of which.

    For each pair of twins there is a caption that is true of the one only, and the same caption with one word changed, which is
    true of the other only; for each picture there is one more caption, and phrases of one or two facts, some of which mix up
    several objects. All are written anew in every epoch.

    Parameters
    ----------
    data : Scenes
    maps : Maps
    twins : ndarray of int, shape (N, 2)
    phrases : (int, int)
        True and mixed phrases of each picture.
    captions : bool
        False leaves the captions out and has more phrases of each picture instead.
    ends : bool
        Put start-of-text and end-of-text around captions.
    """

    def __init__(self, data: Scenes, maps: Maps, twins: np.ndarray, phrases: tuple[int, int] = (2, 1),
                 captions: bool = True, ends: bool = True):
        self.data, self.maps, self.twins, self.captions, self.ends = data, maps, twins, captions, ends
        self.phrases = phrases if captions else (2 * phrases[0], phrases[1])

    def __len__(self) -> int:
        return len(self.twins)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return maps (2n, ...) and captions (M, T) of n twins, and which are true of which, (2n, M)."""
        random = Random(int(torch.randint(2**62, ())))  # depends on the caller's seed
        chosen = self.twins[indices.numpy()].ravel()
        captions: list[str] = []
        phrases: list[str] = []
        for one, other in chosen.reshape(-1, 2).tolist():
            writers = [Writer(self.data.facts[i], random) for i in (one, other)]
            phrases += [writer.phrase(bool(mixed)) for writer in writers for mixed, n in enumerate(self.phrases)
                        for _ in range(n)]
            if self.captions:
                apart = foil(self.data.facts[one], self.data.facts[other], random)
                captions += [*(apart[:2] if apart else ()), *(writer.caption() for writer in writers)]
        truth = np.stack([holds(self.data.facts[chosen], text) for text in captions + phrases], axis=1)
        texts = [trim(tokenize(group, ends=self.ends)) for group in (captions, phrases) if group]
        return {"maps": self.maps[chosen], **dict(zip(("tokens", "more"), texts))}, torch.from_numpy(truth)


def pair_batches(pairs: Sequence[Pairs], maps: Maps, ends: bool) -> TensorBatches:
    """Return pairs with the maps of their pictures, for :func:`crossexplain.models.training.fit`."""
    image, labels = (np.concatenate([getattr(part, name) for part in pairs]) for name in ("image", "labels"))
    tokens = trim(torch.cat([part.tokens(ends=ends) for part in pairs]))
    return TensorBatches({"maps": maps[image], "tokens": tokens}, torch.from_numpy(labels))


def trim(tokens: Tensor) -> Tensor:
    """Cut off the columns after the longest caption: padding changes nothing, but takes time."""
    return tokens[:, : int((tokens != 0).sum(dim=1).max())]


class Judged:
    """Texts, each with a picture of which it is true and one of which it is false, for models that have no towers.

    A model whose modalities meet early has to be asked pair by pair. So each text of a batch of :class:`Contrasts` comes twice,
    and neither the texts nor the number of questions gives an answer away.

    Parameters
    ----------
    texts : Contrasts
    both : bool
        False leaves out the pictures of which a text is false.
    """

    TWIN = 0.7  # how often the false picture is the true one's twin, where the text is false of it: the harder question

    def __init__(self, texts: Contrasts, both: bool = True):
        self.texts, self.both = texts, both

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return maps (2n, ...), the picture (P,) and the tokens (P, T) of P pairs; and which are true, (P,)."""
        given, truth = self.texts.batch(indices)
        longest = max(given[name].shape[1] for name in ("tokens", "more") if name in given)
        tokens = torch.cat([torch.nn.functional.pad(given[name], (0, longest - given[name].shape[1]))
                            for name in ("tokens", "more") if name in given])
        true = truth.T.float()  # (M, 2n)
        usable = (true.sum(dim=1) > 0) & (true.sum(dim=1) < true.shape[1])
        true, tokens = true[usable], tokens[usable]
        picture = true.multinomial(1)[:, 0]
        if not self.both:
            return {"maps": given["maps"], "picture": picture, "tokens": tokens}, torch.ones(len(picture), dtype=torch.long)
        chance = 1 - true
        twin = picture[:, None] ^ 1  # 2k and 2k + 1
        others = chance.sum(dim=1, keepdim=True) - chance.gather(1, twin)
        weight = (self.TWIN / (1 - self.TWIN) * others).clamp(min=1) * chance.gather(1, twin)
        other = chance.scatter(1, twin, weight).multinomial(1)[:, 0]
        labels = torch.cat([torch.ones(len(picture), dtype=torch.long), torch.zeros(len(other), dtype=torch.long)])
        return {"maps": given["maps"], "picture": torch.cat([picture, other]), "tokens": tokens.repeat(2, 1)}, labels
