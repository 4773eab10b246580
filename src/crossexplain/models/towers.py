"""Parts of early fusion and dual encoders: towers that read one modality, and layers that make one vector of it.

An image tower turns pictures into a map, ``tower(images) -> (N, C, h, w)``. A text tower turns tokens into one state each,
``tower(tokens, attention_mask) -> states (N, T, D), real (N, T)``. Each has a ``width`` (C or D) and names the ``layer``
within itself where a gradient is best read: the last map, and the embeddings.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedModel

from crossexplain.checks import InputError, require_images, require_one_of, require_tokens
from crossexplain.models.efficientnet import EfficientNetLite0
from crossexplain.models.vgg import ImageNetClassifier

POOLINGS = ("max", "mean", "first", "last")


class Tower(nn.Module):
    """What reads one modality: any module that has these two attributes will do.

    Attributes
    ----------
    width : int
        Channels C of the map, or length D of the states.
    layer : str
        Within the tower, where a gradient is best read.
    """

    width: int
    layer: str


class ConvTower(Tower):
    """A small convolutional network: five convolutions with batch norm and ReLU; the map has an eighth of the picture's side.

    Parameters
    ----------
    widths : sequence of 5 int
        Channels of the convolutions; the first three of them halve the picture.

    Examples
    --------
    >>> ConvTower().eval()(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 128, 12, 12])
    """

    layer = "features"

    def __init__(self, widths: tuple[int, ...] = (24, 48, 64, 96, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, width) in enumerate(zip((3, *widths), widths)):
            kernel, stride = (5 if i == 0 else 3), (2 if i < 3 else 1)
            layers += [nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.features, self.width = nn.Sequential(*layers), widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map (N, C, H / 8, W / 8) of pictures (N, 3, H, W) in [0, 1]."""
        maps: Tensor = self.features(2 * require_images(images, channels=3) - 1)
        return maps


class ImageNetTower(Tower):
    """The convolutions of a network with ImageNet weights, VGG, SqueezeNet or EfficientNet, up to its last map.

    Parameters
    ----------
    network : ImageNetClassifier or EfficientNetLite0
        From :func:`crossexplain.models.vgg.load_imagenet`, frozen; unfreeze the parts that are to be tuned.
    coarse : bool
        Return the :func:`coarse` map; ``layer`` stays the map before it.
    """

    def __init__(self, network: ImageNetClassifier | EfficientNetLite0, coarse: bool = False):
        super().__init__()
        self.network, self.coarse, self.width = network, coarse, network.width
        self.layer = f"network.{network.image_layer}"

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map (N, C, h, w) of photographs (N, 3, S, S) in [0, 1]."""
        maps = self.network.tower(images)
        return coarse(maps) if self.coarse else maps


def coarse(maps: Tensor) -> Tensor:
    """Return maps (N, C, h, w) with a quarter of the places: overlapping means of 3 x 3, for example 6 x 6 of 13 x 13.

    The layers that follow take a quarter of the time.
    """
    return nn.functional.avg_pool2d(maps, 3, 2)


class EncoderTower(Tower):
    """A BERT or any other Hugging Face encoder.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        As in :func:`crossexplain.models.bert.load`, or made from a configuration.
    pad : int
        Token that is not attended to where there is no attention mask.
    """

    layer = "encoder.embeddings"

    def __init__(self, encoder: PreTrainedModel, pad: int | None = 0):
        super().__init__()
        self.encoder, self.pad, self.width = encoder, pad, encoder.config.hidden_size
        if getattr(encoder, "pooler", None) is not None:
            encoder.register_module("pooler", None)  # its output is not used, and its weights would stay without a gradient

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens, (N, T, D), and which are attended to, (N, T)."""
        require_tokens(tokens, self.encoder.config.vocab_size)
        real = _attended(tokens, attention_mask, torch.ones_like(tokens).bool() if self.pad is None else tokens != self.pad)
        if not real.any(dim=1).all():
            raise InputError(f"text {int((~real.any(dim=1)).nonzero()[0, 0])} has no token that is attended to; leave it out, "
                             "or keep its special tokens when words are hidden.")
        return self.encoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state, real


class _Given(Tower):
    layer = "given"

    def __init__(self, width: int):
        super().__init__()
        self.width, self.given = width, nn.Identity()


class GivenMaps(_Given):
    """Takes the place of a frozen image tower, and is given the maps that the tower made before.

    A model between given towers is the part of it that learns. It is called as the whole model is, with encodings in place of
    pictures and tokens, so that it can be trained, masked and explained on encodings that were computed once;
    :func:`crossexplain.models.two_towers.with_towers` puts the towers back.

    Parameters
    ----------
    width : int
        Channels of the maps.
    """
    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, h, w) unchanged."""
        if maps.ndim != 4 or maps.shape[1] != self.width:
            raise InputError(f"got maps of shape {tuple(maps.shape)}, expected (N, {self.width}, h, w): the maps of the image "
                             "tower, not the pictures.")
        given: Tensor = self.given(maps)
        return given


class GivenStates(_Given):
    """Takes the place of a frozen text tower, and is given the states that the tower made before; as :class:`GivenMaps`.

    Parameters
    ----------
    width : int
        Of the states.
    """

    def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return states (N, T, D) unchanged, and which of them belong to a token, (N, T); all of them without a mask."""
        if states.ndim != 3 or states.shape[2] != self.width:
            raise InputError(f"got states of shape {tuple(states.shape)}, expected (N, T, {self.width}): the states of the "
                             "text tower, not the tokens.")
        real = states.new_ones(states.shape[:2], dtype=torch.bool) if attention_mask is None else attention_mask != 0
        return self.given(states), real


class ClipTextTower(EncoderTower):
    """CLIP's text tower: a transformer in which each token sees those before it, so only the end-of-text token sees all.

    Tokens after the first end-of-text token are padding. Read the states with ``pool(states, real, "last")``.

    Parameters
    ----------
    encoder : transformers.CLIPTextModel
    pad : int, optional
        A token that is never attended to. Default: none, since CLIP's own tokenizer pads with end-of-text.
    """

    def __init__(self, encoder: CLIPTextModel, pad: int | None = None):
        super().__init__(getattr(encoder, "text_model", encoder), pad)  # before 5.6, transformers has it one step further down
    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens after the final layer norm, (N, T, D), and which are attended to, (N, T)."""
        return clip_states(self.encoder, tokens, attention_mask, self.pad)


def clip_states(encoder: PreTrainedModel, tokens: Tensor, attention_mask: Tensor | None = None,
                pad: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the states of CLIP's text transformer, and which tokens are attended to.

    Parameters
    ----------
    encoder : transformers.CLIPTextModel
    tokens : Tensor, shape (N, T), int64
        Start-of-text, words, end-of-text, padding.
    attention_mask : Tensor, shape (N, T), optional
    pad : int, optional
        As for :class:`ClipTextTower`.

    Returns
    -------
    states : Tensor, shape (N, T, D)
    real : Tensor of bool, shape (N, T)
        The last of each row is its end-of-text token.

    Raises
    ------
    InputError
        For a text without an end-of-text token, or one whose end-of-text token is masked.
    """
    config: Any = encoder.config
    require_tokens(tokens, config.vocab_size, config.max_position_embeddings)
    # Configurations from before 2023 have 2 here, where they mean the last word of the vocabulary.
    end = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    ends: Tensor = tokens == end
    real = ends.cumsum(dim=1) - ends.long() == 0  # nothing after the first end
    if pad is not None and pad != end:
        real = real & (tokens != pad)
    real = _attended(tokens, attention_mask, real)
    ended = (ends & real).any(dim=1)
    if not ended.all():
        raise InputError(f"text {int((~ended).nonzero()[0, 0])} has no attended end-of-text token ({end}), from which the text "
                         "is read; tokenize with start and end, and never mask the end.")
    return encoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state, real


class MapPooling(nn.Module):
    """Make one vector of a map: coordinates are added to each place, then mean and maximum are taken over the places.

    A mean or maximum forgets where its parts were, so "left" could not be learned without the coordinates. Both let every
    place reach the vector with a gradient.

    Parameters
    ----------
    channels, width : int
        Of the map, and of the vector.
    dropout : float
        Of the vector's parts, before the last layer.
    """

    def __init__(self, channels: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.place = nn.Conv2d(channels + 2, 2 * width, 1)
        self.join = nn.Sequential(nn.LayerNorm(4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """Return vectors (N, width) of maps (N, C, h, w)."""
        rows, columns = (torch.linspace(-1, 1, n, device=maps.device, dtype=maps.dtype) for n in maps.shape[2:])
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(maps), -1, -1, -1)
        seen = self.place(torch.cat([maps, where], dim=1)).relu().flatten(2)  # (N, 2 width, h w)
        # Both give the same numbers, but the backward pass of amax takes three times as long, since it divides the gradient
        # between equal maxima. Training keeps to amax.
        most = seen.amax(dim=2) if self.training else seen.max(dim=2).values
        mean = seen.mean(dim=2) if self.training else seen.sum(dim=2) / seen.shape[2]  # the same, with a cheaper gradient
        vectors: Tensor = self.join(torch.cat([mean, most], dim=1))
        return vectors
class FrozenMapPooling(nn.Module):
    """Make one vector of the map of a frozen tower: mean and maximum over the places, then a linear layer.

    The channels are pooled and, where layers of the network follow that give a map, those of their maps too. Nothing is trained
    up to there, so :meth:`gather` is computed once for each picture.

    Parameters
    ----------
    channels, width : int
        Of the map, and of the vector.
    dropout : float
        Before the linear layer.
    later : sequence of torch.nn.Module
        The layers that follow, one after the other; they stay as they are.
    parts : int
        Linear layers :func:`beside` each other.
    """

    middle: Tensor
    spread: Tensor
    def __init__(self, channels: int, width: int, dropout: float = 0.0, later: Sequence[nn.Module] = (), parts: int = 1):
        super().__init__()
        self.later = nn.ModuleList(copy.deepcopy(layer).requires_grad_(False).eval() for layer in later)
        inner = ([part for part in layer.modules() if isinstance(part, nn.Conv2d)][-1] for layer in later)
        pooled = 2 * sum([channels, *(convolution.out_channels for convolution in inner)])
        self.register_buffer("middle", torch.zeros(pooled))
        self.register_buffer("spread", torch.ones(pooled))
        self.join = beside(parts, lambda: [nn.Dropout(dropout), nn.Linear(pooled, width)])

    def train(self, mode: bool = True) -> "FrozenMapPooling":
        """Switch dropout on or off; the layers that stay as they are keep their batch statistics."""
        super().train(mode)
        self.later.eval()
        return self

    def gather(self, maps: Tensor) -> Tensor:
        """Return mean and maximum over the places of maps (N, C, h, w) and of what later layers make of them; (N, P)."""
        seen = [maps]
        for layer in self.later:
            seen.append(layer(seen[-1]))
        return torch.cat([pooled for each in seen for pooled in (each.mean(dim=(2, 3)), each.amax(dim=(2, 3)))], dim=1)

    @torch.no_grad()
    def standardise(self, gathered: Tensor) -> None:
        """Scale vectors from now on so that the entries of these (N, P) have mean 0 and standard deviation 1."""
        self.middle.copy_(gathered.mean(dim=0))
        self.spread.copy_(gathered.std(dim=0) + 1e-3)  # some entries are always 0

    def forward(self, maps: Tensor) -> Tensor:
        """Return vectors (N, width) of maps (N, C, h, w), or of what :meth:`gather` returned for them, (N, P)."""
        gathered = self.gather(maps) if maps.ndim == 4 else maps
        vectors: Tensor = self.join((gathered - self.middle) / self.spread)
        return vectors


class WordPooling(nn.Module):
    """Make one vector of the states of a text: a mean over its tokens, weighted by learned weights.

    Every token has a weight above 0, so that each gets a gradient; at the beginning all are equal.

    Parameters
    ----------
    width : int
        Of the states.
    parts : int
        Into which the vector is cut; the tokens have other weights in each part.
    """

    def __init__(self, width: int, parts: int = 8):
        super().__init__()
        self.parts, self.weigh = parts, nn.Linear(width, parts)
        nn.init.zeros_(self.weigh.weight)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """Return vectors (N, D) of states (N, T, D), of which those that are real (N, T) count."""
        weights: Tensor = self.weigh(states).masked_fill(~real[:, :, None], -torch.inf).softmax(dim=1)  # (N, T, parts)
        vectors: Tensor = (weights[..., None] * states.unflatten(2, (self.parts, -1))).sum(dim=1).flatten(1)
        return vectors


class Beside(nn.Module):
    """Layers beside each other, which read the same: their vectors, each scaled to length 1, are one vector.

    The cosine of two such vectors is the mean of the cosines of their parts.

    Parameters
    ----------
    layers : sequence of torch.nn.Module
    """

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, values: Tensor) -> Tensor:
        """Return vectors (N, K D) of what each of K layers makes D numbers of."""
        return torch.cat([nn.functional.normalize(layer(values), dim=-1) for layer in self.layers], dim=-1)


def beside(parts: int, layers: Callable[[], list[nn.Module]]) -> nn.Module:
    """Return layers one after the other, or so many such rows of layers :class:`Beside` each other."""
    rows = [nn.Sequential(*layers()) for _ in range(parts)]
    return rows[0] if parts == 1 else Beside(rows)


def dense(before: int, hidden: int, after: int, dropout: float) -> list[nn.Module]:
    """Return two linear layers with a ReLU between them, and dropout before each."""
    return [nn.Dropout(dropout), nn.Linear(before, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, after)]


def pool(states: Tensor, real: Tensor, pooling: str) -> Tensor:
    """Make one vector of the states of a text.

    Parameters
    ----------
    states : Tensor, shape (N, T, D)
    real : Tensor of bool, shape (N, T)
        At least one of each row.
    pooling : {"max", "mean", "first", "last"}
        Over the real tokens; the first is BERT's [CLS], the last CLIP's end-of-text.

    Returns
    -------
    Tensor, shape (N, D)

    Examples
    --------
    >>> states, real = torch.tensor([[[1.0], [5.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> [pool(states, real, pooling).item() for pooling in POOLINGS]
    [5.0, 3.0, 1.0, 5.0]
    """
    require_one_of(pooling, POOLINGS, "pooling")
    if pooling == "max":
        return states.masked_fill(~real[:, :, None], -torch.inf).amax(dim=1)
    if pooling == "mean":
        return (states * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
    if pooling == "first":
        return states[:, 0]
    last = (real * torch.arange(real.shape[1], device=real.device)).amax(dim=1)
    return states[torch.arange(len(states), device=states.device), last]


def threshold(scores: Tensor, labels: Tensor) -> float:
    """Return the score that separates labels 1 from labels 0 with the fewest mistakes, halfway between two scores.

    Examples
    --------
    >>> threshold(torch.tensor([0.1, 0.2, 0.6, 0.7]), torch.tensor([0, 0, 1, 1]))
    0.4
    """
    scores, labels = scores.flatten().double(), labels.flatten() != 0
    if scores.shape != labels.shape or labels.all() or not labels.any() or not torch.isfinite(scores).all():
        raise InputError(f"got {len(scores)} scores and {len(labels)} labels, {int(labels.sum())} of them 1; expected as many "
                         "finite scores as labels, and labels of both kinds.")
    ordered, order = scores.sort()
    # Right answers if the k lowest scores are called 0: for k = 0 all labels 1, then each label adds or takes away one.
    right = labels.sum() + torch.cat([order.new_zeros(1), (1 - 2 * labels[order].long()).cumsum(0)])
    right[1:-1][ordered[1:] == ordered[:-1]] = -1  # equal scores cannot be divided
    best = (right == right.max()).nonzero().flatten()
    between = torch.cat([ordered[:1], (ordered[:-1] + ordered[1:]) / 2, ordered[-1:]])
    return round(float(between[best[len(best) // 2]]), 6)


def accuracy_at_best_threshold(logits: Tensor, labels: Tensor) -> float:
    """Return the share of right answers at the :func:`threshold`; where yes begins is set when training is done."""
    return ((logits > threshold(logits, labels)) == (labels != 0)).float().mean().item()


def _attended(tokens: Tensor, attention_mask: Tensor | None, real: Tensor) -> Tensor:
    if attention_mask is None:
        return real
    if attention_mask.shape != tokens.shape:
        raise InputError(f"the attention mask has shape {tuple(attention_mask.shape)}, expected that of the tokens, "
                         f"{tuple(tokens.shape)}.")
    return real & (attention_mask != 0)
