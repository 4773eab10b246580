"""What early fusion and dual encoders are made of: towers that read one modality, and what makes one vector of it.

An image tower turns pictures into a map, ``tower(images) -> (N, C, h, w)``. A text tower turns tokens into one state each,
``tower(tokens, attention_mask) -> states (N, T, D), real (N, T)``. Each has a ``width`` (C or D) and names the ``layer``
within itself where a gradient is best read: the last map, and the embeddings.
"""

import copy

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedModel

from crossexplain.models.vgg import ImageNetClassifier

POOLINGS = ("max", "mean", "first", "last")


class ConvTower(nn.Module):
    """A small convolutional network: five convolutions with batch norm and ReLU, an eighth of the picture at the end.

    Parameters
    ----------
    widths : sequence of 5 int
        Channels; the first three convolutions halve the picture.

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
        require_images(images)
        return self.features(2 * images - 1)


class ImageNetTower(nn.Module):
    """The convolutions of a network of torchvision, VGG or SqueezeNet, up to its last map.

    Parameters
    ----------
    network : ImageNetClassifier
        From :func:`crossexplain.models.vgg.load_imagenet`, frozen; unfreeze what shall be tuned.
    coarse : bool
        Give the :func:`coarse` map; ``layer`` stays the one before it.
    """

    width = 512  # of all three networks

    def __init__(self, network: ImageNetClassifier, coarse: bool = False):
        super().__init__()
        self.network, self.coarse = network, coarse
        self.layer = f"network.{network.image_layer}"

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map (N, 512, h, w) of photographs (N, 3, S, S) in [0, 1]."""
        require_images(images)
        maps = self.network.tower(images)
        return coarse(maps) if self.coarse else maps


def coarse(maps: Tensor) -> Tensor:
    """Return maps (N, C, h, w) with a quarter of the places: means of 3 x 3 that overlap, 6 x 6 of 13 x 13.

    What follows takes a quarter of the time, and what was encoded a quarter of the room.
    """
    return nn.functional.avg_pool2d(maps, 3, 2)


class EncoderTower(nn.Module):
    """A BERT or any other Hugging Face encoder.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        As in :func:`crossexplain.models.bert.load`, or made from a configuration.
    pad : int
        Where no attention mask comes, every other token is attended to.
    """

    layer = "encoder.embeddings"

    def __init__(self, encoder: PreTrainedModel, pad: int = 0):
        super().__init__()
        self.encoder, self.pad, self.width = encoder, pad, encoder.config.hidden_size
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its output would not be used, and its weights would stay without a gradient

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens, (N, T, D), and which are attended to, (N, T)."""
        require_tokens(tokens, self.encoder.config.vocab_size)
        real = _attended(tokens, attention_mask, tokens != self.pad)
        if not real.any(dim=1).all():
            raise ValueError(f"text {int((~real.any(dim=1)).nonzero()[0, 0])} has no token that is attended to; leave it out, "
                             "or keep its special tokens when words are hidden.")
        return self.encoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state, real


class GivenMaps(nn.Module):
    """Stands where a frozen image tower would, and hands on what that said of pictures before.

    A model between given towers is the part of it that learns. It is called like the whole one, with encodings in place of
    pictures and tokens, so that it can be trained, masked and explained on encodings that were computed once;
    :func:`with_towers` makes the whole one of it.

    Parameters
    ----------
    width : int
        Channels of the maps.
    """

    layer = "given"

    def __init__(self, width: int):
        super().__init__()
        self.width, self.given = width, nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, h, w) as they came."""
        if maps.ndim != 4 or maps.shape[1] != self.width:
            raise ValueError(f"maps of shape {tuple(maps.shape)} came, expected (N, {self.width}, h, w): what the image tower "
                             "said, not the pictures.")
        return self.given(maps)


class GivenStates(nn.Module):
    """Stands where a frozen text tower would, and hands on what that said of texts before; see :class:`GivenMaps`.

    Parameters
    ----------
    width : int
        Of the states.
    """

    layer = "given"

    def __init__(self, width: int):
        super().__init__()
        self.width, self.given = width, nn.Identity()

    def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return states (N, T, D) as they came, and which of them are of a token, (N, T); without a mask, all."""
        if states.ndim != 3 or states.shape[2] != self.width:
            raise ValueError(f"states of shape {tuple(states.shape)} came, expected (N, T, {self.width}): what the text tower "
                             "said, not the tokens.")
        real = states.new_ones(states.shape[:2], dtype=torch.bool) if attention_mask is None else attention_mask != 0
        return self.given(states), real


class ClipTextTower(nn.Module):
    """CLIP's text tower: a transformer in which each token sees those before it, so only the end-of-text token sees all.

    What stands behind the first end-of-text token is padding. Read it with ``pool(states, real, "last")``.

    Parameters
    ----------
    encoder : transformers.CLIPTextModel
    pad : int, optional
        A token that is not attended to wherever it stands; None: CLIP's own tokenizer pads with end-of-text.
    """

    layer = "encoder.embeddings"

    def __init__(self, encoder: CLIPTextModel, pad: int | None = None):
        super().__init__()
        self.encoder, self.pad, self.width = encoder, pad, encoder.config.hidden_size

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the states of all tokens after the final layer norm, (N, T, D), and which are attended to, (N, T)."""
        return clip_states(self.encoder, tokens, attention_mask, self.pad)


def clip_states(encoder: CLIPTextModel, tokens: Tensor, attention_mask: Tensor | None = None,
                pad: int | None = None) -> tuple[Tensor, Tensor]:
    """Return what CLIP's text transformer makes of each token, and which tokens are attended to.

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
    ValueError
        For a text without an end-of-text token, or one whose end-of-text token is masked.
    """
    config = encoder.config
    require_tokens(tokens, config.vocab_size, config.max_position_embeddings)
    # Configurations from before 2023 say 2 and mean the last word of the vocabulary.
    end = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    ends = tokens == end
    real = ends.cumsum(dim=1) - ends.long() == 0  # nothing behind the first end
    if pad is not None and pad != end:
        real = real & (tokens != pad)
    real = _attended(tokens, attention_mask, real)
    read = (ends & real).any(dim=1)
    if not read.all():
        raise ValueError(f"text {int((~read).nonzero()[0, 0])} has no attended end-of-text token ({end}), the one that the "
                         "text is read from; tokenize with start and end, and never mask the end.")
    return encoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state, real


def with_towers(model: nn.Module, image: nn.Module, text: nn.Module) -> nn.Module:
    """Return a model with the same weights between other towers.

    Parameters
    ----------
    model : crossexplain.models.fusion.Fusion or crossexplain.models.clip.ClipCNN
        Stays as it is; what is behind the towers is shared with it.
    image, text : torch.nn.Module
        Towers of the same widths as those that are there.

    Returns
    -------
    torch.nn.Module
        In the mode of the model.
    """
    for name, old, new in (("image", model.image, image), ("text", model.text, text)):
        if old.width != new.width:
            raise ValueError(f"the {name} tower gives vectors of {new.width} numbers, the model was made for {old.width}.")
    other = copy.copy(model)
    other._modules = dict(model._modules, image=image, text=text)  # copy.copy would share the table of the parts
    other.image_layer, other.text_layer = f"image.{image.layer}", f"text.{text.layer}"
    return other.train(model.training)


class Look(nn.Module):
    """One vector of a map: where each thing is joins what it is, then mean and maximum over the places.

    A mean or maximum forgets where its parts came from, so each place is told its coordinates first; "left" could not be
    learned otherwise. Both let every place reach the vector with a gradient.

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
        # The same numbers; backwards amax takes thrice as long, to share its gradient between equals. Training keeps to it.
        most = seen.amax(dim=2) if self.training else seen.max(dim=2).values
        mean = seen.mean(dim=2) if self.training else seen.sum(dim=2) / seen.shape[2]  # the same, with a cheaper gradient
        return self.join(torch.cat([mean, most], dim=1))


class PooledLook(nn.Module):
    """One vector of the map of a frozen tower: mean and maximum over the places, then a linear layer.

    Pooled are the channels and, where the network has a layer that says at each place how much speaks for each of its
    classes, what that says. Up to there nothing is trained, so :meth:`gather` is computed once for each picture.

    Parameters
    ----------
    channels, width : int
        Of the map, and of the vector.
    dropout : float
        Before the linear layer.
    classes : torch.nn.Conv2d, optional
        That layer; SqueezeNet has one. Stays as it is.
    """

    def __init__(self, channels: int, width: int, dropout: float = 0.0, classes: nn.Conv2d | None = None):
        super().__init__()
        self.classes = None if classes is None else copy.deepcopy(classes).requires_grad_(False)
        pooled = 2 * (channels + (0 if classes is None else classes.out_channels))
        self.register_buffer("middle", torch.zeros(pooled))
        self.register_buffer("spread", torch.ones(pooled))
        self.join = nn.Sequential(nn.Dropout(dropout), nn.Linear(pooled, width))

    def gather(self, maps: Tensor) -> Tensor:
        """Return mean and maximum over the places of maps (N, C, h, w); (N, P)."""
        seen = maps if self.classes is None else torch.cat([maps, self.classes(maps).relu()], dim=1)
        return torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)

    @torch.no_grad()
    def standardise(self, gathered: Tensor) -> None:
        """Let the parts of these vectors (N, P) have mean 0 and standard deviation 1 from now on."""
        self.middle.copy_(gathered.mean(dim=0))
        self.spread.copy_(gathered.std(dim=0) + 1e-3)  # some are always 0

    def forward(self, maps: Tensor) -> Tensor:
        """Return vectors (N, width) of maps (N, C, h, w), or of what was gathered of them, (N, P)."""
        gathered = self.gather(maps) if maps.ndim == 4 else maps
        return self.join((gathered - self.middle) / self.spread)


def dense(before: int, hidden: int, after: int, dropout: float) -> list[nn.Module]:
    """Return two linear layers with a ReLU between them, and dropout before each."""
    return [nn.Dropout(dropout), nn.Linear(before, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, after)]


def pool(states: Tensor, real: Tensor, how: str) -> Tensor:
    """Make one vector of the states of a text.

    Parameters
    ----------
    states : Tensor, shape (N, T, D)
    real : Tensor of bool, shape (N, T)
        At least one of each row.
    how : {"max", "mean", "first", "last"}
        Over the real tokens; the first is BERT's [CLS], the last CLIP's end-of-text.

    Returns
    -------
    Tensor, shape (N, D)

    Examples
    --------
    >>> states, real = torch.tensor([[[1.0], [5.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> [pool(states, real, how).item() for how in POOLINGS]
    [5.0, 3.0, 1.0, 5.0]
    """
    if how not in POOLINGS:
        raise ValueError(f"pooling {how!r} came, expected one of {', '.join(map(repr, POOLINGS))}.")
    if how == "max":
        return states.masked_fill(~real[:, :, None], -torch.inf).amax(dim=1)
    if how == "mean":
        return (states * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
    if how == "first":
        return states[:, 0]
    last = (real * torch.arange(real.shape[1], device=real.device)).amax(dim=1)
    return states[torch.arange(len(states), device=states.device), last]


def threshold(scores: Tensor, labels: Tensor) -> float:
    """Return the score that divides 1 from 0 with the fewest mistakes, halfway between two scores.

    Examples
    --------
    >>> threshold(torch.tensor([0.1, 0.2, 0.6, 0.7]), torch.tensor([0, 0, 1, 1]))
    0.4
    """
    scores, labels = scores.flatten().double(), labels.flatten() != 0
    if scores.shape != labels.shape or labels.all() or not labels.any() or not torch.isfinite(scores).all():
        raise ValueError(f"{len(scores)} scores and {len(labels)} labels, {int(labels.sum())} of them 1, came; expected as "
                         "many finite scores as labels, and labels of both kinds.")
    ordered, order = scores.sort()
    # Right answers if the first k scores are called 0: with k = 0 all ones, and each score that is passed wins or loses one.
    right = labels.sum() + torch.cat([order.new_zeros(1), (1 - 2 * labels[order].long()).cumsum(0)])
    right[1:-1][ordered[1:] == ordered[:-1]] = -1  # equal scores cannot be divided
    best = (right == right.max()).nonzero().flatten()
    between = torch.cat([ordered[:1], (ordered[:-1] + ordered[1:]) / 2, ordered[-1:]])
    return round(float(between[best[len(best) // 2]]), 6)


def require_pairs(images: Tensor, tokens: Tensor) -> None:
    """Raise ValueError unless there is one text for each picture."""
    if len(images) != len(tokens):
        raise ValueError(f"{len(images)} images and {len(tokens)} texts came, expected as many: they are pairs; similarity() "
                         "compares each with each.")


def require_images(images: Tensor, side: int | None = None) -> None:
    """Raise ValueError unless ``images`` are colour pictures (N, 3, H, W), of one side where the model knows one only."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images came as {images.dtype} of shape {tuple(images.shape)}, expected floats (N, 3, H, W): red, "
                         "green, blue from 0 to 1.")
    if side is not None and images.shape[2:] != (side, side):
        raise ValueError(f"images have {images.shape[2]} x {images.shape[3]} pixels, this model reads {side} x {side}; "
                         "scale them.")


def require_tokens(tokens: Tensor, vocabulary: int, longest: int | None = None) -> None:
    """Raise ValueError unless ``tokens`` are int64 (N, T) of words that the model knows, and no more than it can read."""
    if tokens.ndim != 2 or tokens.dtype != torch.int64 or tokens.shape[1] < 1:
        raise ValueError(f"tokens came as {tokens.dtype} of shape {tuple(tokens.shape)}, expected int64 (N, T).")
    if longest is not None and tokens.shape[1] > longest:
        raise ValueError(f"texts of {tokens.shape[1]} tokens came, at most {longest} can be read; shorten them.")
    if tokens.numel() and not (0 <= int(tokens.min()) and int(tokens.max()) < vocabulary):
        raise ValueError(f"tokens from {int(tokens.min())} to {int(tokens.max())} came, the model knows 0 to "
                         f"{vocabulary - 1}; use the tokenizer that it was trained with.")


def _attended(tokens: Tensor, attention_mask: Tensor | None, real: Tensor) -> Tensor:
    if attention_mask is None:
        return real
    if attention_mask.shape != tokens.shape:
        raise ValueError(f"the attention mask has shape {tuple(attention_mask.shape)}, expected that of the tokens, "
                         f"{tuple(tokens.shape)}.")
    return real & (attention_mask != 0)
