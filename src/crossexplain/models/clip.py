"""CLIP (Radford et al. 2021): two towers give two vectors of length 1, whose cosine is the one number that is compared.

:class:`Clip` is the published architecture, trained here in small or loaded; :class:`ClipCNN` has a convolutional image tower,
so that Grad-CAM has a map to read.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from crossexplain.checks import InputError, require_images
from crossexplain.models.towers import (
    ClipTextTower,
    ConvTower,
    MapPooling,
    Tower,
    beside,
    clip_states,
    dense,
    pool,
    threshold,
)
from crossexplain.models.two_towers import JoinedTowers, TwoTowerModel
from crossexplain.models.weights import offline, seeded

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's pixels
# Where training begins. A caption with one wrong word is close to the right one, so the cosine is multiplied by more than the
# 10 of SigLIP (Zhai et al. 2023); as there, the negative bias says that most captions are not true of a picture.
SCALE, BIAS = 40.0, -10.0


class DualEncoder(TwoTowerModel):
    """A model that matches two vectors by the cosine of the angle between them: ``scale * cosine + bias``.

    Subclasses have ``log_scale``, the logarithm of the scale; ``see`` and ``read`` return vectors (N, D).
    """

    log_scale: Any  # Tensor

    def __init__(self, *towers: Any) -> None:
        super().__init__(*towers)
        self.bias = nn.Parameter(torch.tensor(BIAS))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return vectors of length 1, (N, D), of pictures (N, 3, H, W) from 0 to 1."""
        return nn.functional.normalize(self.see(images), dim=1)

    def encode_texts(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return vectors of length 1, (N, D), of texts (N, T) that begin with start-of-text and end in end-of-text."""
        return nn.functional.normalize(self.read(tokens, attention_mask), dim=1)

    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N,) of vectors of pictures (N, D) and of texts (N, D)."""
        return self.logits(nn.functional.cosine_similarity(seen, read, dim=-1))

    def logits_of_all_pairs(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N, M) of every picture (N, D) with every text (M, D)."""
        return self.logits(nn.functional.normalize(seen, dim=1) @ nn.functional.normalize(read, dim=1).T)

    def logits(self, cosines: Tensor) -> Tensor:
        """Return ``scale * cosine + bias``."""
        logits: Tensor = self.log_scale.exp() * cosines + self.bias
        return logits

    @torch.no_grad()
    def set_threshold(self, logits: Tensor, labels: Tensor) -> float:
        """Set the bias so that logits above 0 separate pairs that match from pairs that do not with the fewest mistakes.

        Training shows far more pairs that do not match than pairs that do, and the published CLIP has no bias at all.

        Parameters
        ----------
        logits : Tensor, shape (N,)
            Of pairs that are used for nothing else, from this model as it is.
        labels : Tensor, shape (N,)
            0 and 1, both of them present.

        Returns
        -------
        float
            The cosine at the threshold.
        """
        cosine = threshold((logits.float() - self.bias.item()) / self.log_scale.exp().item(), labels)
        self.bias.fill_(-cosine * self.log_scale.exp().item())
        return cosine


class Clip(DualEncoder):
    """CLIP as published: a vision transformer and a causal text transformer, in one ``transformers.CLIPModel``.

    Parameters
    ----------
    clip : transformers.CLIPModel
        With ``attn_implementation="eager"`` where its attention maps are to be read.
    pad : int, optional
        As for :class:`crossexplain.models.towers.ClipTextTower`.
    mean, std : sequence of 3 float
        Of the pixels, by which they are normalised.
    tail : int
        The last blocks of the vision transformer, which are trained by contrast; :meth:`image_map` ends before them and
        :meth:`pool_map` begins with them.

    Attributes
    ----------
    image_layer : str
        The input of the last block, (N, 1 + P, D): the class token, then patches row by row. Of the block's output only the
        class token is used, so the gradient at the patches would be 0 there by construction.
    text_layer : str
        Word and position embeddings, summed; (N, T, D).
    blocks, text_blocks, attention_layers, text_attention_layers : list of str
        Transformer blocks (tokens in, tokens out) and self-attention modules (second output: (N, heads, T, T)) of each tower.
    size, grid : int
        Side of a picture in pixels, and in patches.
    """

    text_layer = "clip.text_model.embeddings"
    mean: Tensor
    std: Tensor
    def __init__(self, clip: CLIPModel, pad: int | None = None, mean: tuple[float, ...] = MEAN,
                 std: tuple[float, ...] = STD, tail: int = 2):
        super().__init__()
        self.clip, self.pad, self.tail = clip, pad, tail
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        vision: Any = clip.config.vision_config
        self.size, self.grid = vision.image_size, vision.image_size // vision.patch_size
        self.blocks = _numbered("clip.vision_model.encoder.layers", vision)
        self.text_blocks = _numbered("clip.text_model.encoder.layers", clip.config.text_config)
        self.attention_layers = [f"{block}.self_attn" for block in self.blocks]
        self.text_attention_layers = [f"{block}.self_attn" for block in self.text_blocks]
        self.image_layer = f"{self.blocks[-1]}.layer_norm1"

    @property
    def log_scale(self) -> Tensor:
        """Logarithm of what cosines are multiplied by, the published model's ``logit_scale``."""
        return self.clip.logit_scale

    def see(self, images: Tensor) -> Tensor:
        """Return one vector a picture, (N, D)."""
        vectors: Tensor = self.clip.visual_projection(self.clip.vision_model(pixel_values=self._pixels(images)).pooler_output)
        return vectors

    def image_map(self, images: Tensor) -> Tensor:
        """Return the states of class token and patches before the last ``tail`` blocks, (N, 1 + P, C)."""
        vision = self.clip.vision_model
        states: Tensor = vision.pre_layrnorm(vision.embeddings(self._pixels(images)))
        for block in vision.encoder.layers[: -self.tail]:
            states = block(states, None)
        return states

    def pool_map(self, states: Tensor) -> Tensor:
        """Return one vector a picture, (N, D), of the states that :meth:`image_map` returned."""
        for block in self.clip.vision_model.encoder.layers[-self.tail :]:
            states = block(states, None)
        vectors: Tensor = self.clip.visual_projection(self.clip.vision_model.post_layernorm(states[:, 0]))
        return vectors

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, (N, D), read at its end-of-text token."""
        states = clip_states(self.clip.text_model, tokens, attention_mask, self.pad)
        vectors: Tensor = self.clip.text_projection(pool(*states, "last"))
        return vectors

    def _pixels(self, images: Tensor) -> Tensor:
        return (require_images(images, channels=3, side=self.size) - self.mean) / self.std


class ClipCNN(DualEncoder, JoinedTowers):
    """A dual encoder whose image tower is convolutional.

    Parameters
    ----------
    image, text, pooling
        As for :class:`crossexplain.models.two_towers.JoinedTowers`; pooling ``"last"`` is CLIP's way, at the end-of-text token.
    width : int
        Of the common space.
    dropout : float
        Before the last layer of either side; for frozen towers, where only these layers can overfit.
    look : torch.nn.Module, optional
        Makes one vector (N, width) of a map; default, :class:`crossexplain.models.towers.MapPooling`.
    hidden : int
        Units between the vector of the text and the common space, for a frozen text tower; 0 has none.
    parts : int
        Of the common space, each of ``width``. Every part learns by itself which text belongs to which picture, and the logit
        follows the mean of their cosines: an ensemble in one model. ``look`` has as many.
    """

    def __init__(self, image: Tower, text: Tower, pooling: str | nn.Module = "last", width: int = 256,
                 dropout: float = 0.0, look: nn.Module | None = None, hidden: int = 0, parts: int = 1):
        super().__init__(image, text, pooling, MapPooling(image.width, width, dropout) if look is None else look)
        self.parts = parts
        self.say = beside(parts, lambda: (
            [nn.LayerNorm(text.width), *dense(text.width, hidden, width, dropout)] if hidden else
            [nn.Dropout(dropout), nn.Linear(text.width, width, bias=False)]))
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, (N, D)."""
        vectors: Tensor = self.say(super().read(tokens, attention_mask))
        return vectors


class Contrast(nn.Module):
    """A model as it is trained by contrast: in train mode every picture of a batch with every text, in eval mode its own.

    The maps of the frozen part, ``model.image_map(images)``, are computed once before training.

    Parameters
    ----------
    model : Clip, ClipCNN or crossexplain.models.fusion.Fusion
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model
        self.train(model.training)

    def forward(self, maps: Tensor, tokens: Tensor, more: Tensor | None = None,
                attention_mask: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        maps : Tensor, shape (N, ...)
        tokens : Tensor, shape (M, T)
        more : Tensor, optional
            Further texts, which are read by themselves since they are shorter.
        attention_mask : Tensor, shape (M, T), optional
            Of ``tokens``, where the model cannot tell padding by itself.

        Returns
        -------
        Tensor
            (N, M) in train mode, or (K, N, M) of a model of K parts. In eval mode (M,): the first M / N texts belong to the
            first picture, and so on.
        """
        seen = self.model.pool_map(maps)
        masked = () if attention_mask is None else (attention_mask,)
        read = torch.cat([self.model.read(tokens, *masked), *([] if more is None else [self.model.read(more)])])
        if self.training:
            cut = zip(*(vectors.chunk(self.model.parts, dim=1) for vectors in (seen, read)))
            each = torch.stack([self.model.logits_of_all_pairs(*part) for part in cut])
            return each if len(each) > 1 else each[0]
        logits: Tensor = self.model.match(seen.repeat_interleave(len(read) // len(seen), dim=0), read)
        return logits


def sigmoid_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Return the contrastive loss of Zhai et al. (2023): each picture with each text is a question of yes or no.

    Unlike the softmax of Radford et al. (2021) it allows for several true texts of a picture, or none.

    Parameters
    ----------
    logits : Tensor, shape (N, M)
    true : Tensor, shape (N, M)
        1 where the text is true of the picture, else 0.

    Returns
    -------
    Tensor
        Summed over the texts, mean over the pictures.
    """
    return nn.functional.binary_cross_entropy_with_logits(logits, true.to(logits.dtype), reduction="sum") / len(logits)


def softmax_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Return the contrastive loss of Radford et al. (2021): which text of the batch, and which picture?

    Parameters
    ----------
    logits : Tensor, shape (N, M)
    true : Tensor, shape (N, M)
        1 where the text was written for the picture, else 0; each picture and each text has one at least.

    Returns
    -------
    Tensor
        Mean of the cross-entropies of both questions; several right answers share the weight of one.
    """
    true = true.to(logits.dtype)
    texts = (true / true.sum(dim=1, keepdim=True) * logits.log_softmax(dim=1)).sum(dim=1)
    pictures = (true / true.sum(dim=0) * logits.log_softmax(dim=0)).sum(dim=0)
    return -(texts.mean() + pictures.mean()) / 2


def small_text(vocabulary: int, length: int, width: int = 128, layers: int = 2, start: int = 2, end: int = 3) -> CLIPTextConfig:
    """Return the configuration of a small text tower; word 0 is padding."""
    return CLIPTextConfig(
        vocab_size=vocabulary, max_position_embeddings=length, hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=layers, num_attention_heads=4, projection_dim=2 * width, pad_token_id=0, bos_token_id=start,
        eos_token_id=end,
    )


def small_vit(vocabulary: int, length: int, side: int = 96, patch: int = 12, width: int = 128, layers: int = 6,
              seed: int = 0) -> Clip:
    """Return a small CLIP with a vision transformer and random weights.

    Parameters
    ----------
    vocabulary, length : int
        Words (padding 0, mask 1, start-of-text 2, end-of-text 3) and most tokens of a text.
    side, patch : int
        Of pictures and patches, in pixels.
    width, layers : int
        Of the vision transformer.
    seed : int

    Returns
    -------
    Clip
    """
    if side % patch:
        raise InputError(f"got side {side} and patch {patch}, expected a multiple: the patches have to cover the picture.")
    text = small_text(vocabulary, length)
    vision = {"image_size": side, "patch_size": patch, "hidden_size": width, "intermediate_size": 2 * width,
              "num_hidden_layers": layers, "num_attention_heads": 4, "projection_dim": text.projection_dim}
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=text.projection_dim,
                        logit_scale_init_value=math.log(SCALE))
    with seeded(seed):
        model = Clip(CLIPModel._from_config(config, attn_implementation="eager"), pad=0)
    _silence(model.clip.text_model)
    return model


def small_cnn(vocabulary: int, length: int, seed: int = 0) -> ClipCNN:
    """Return a small dual encoder with a convolutional image tower and random weights; arguments as for :func:`small_vit`."""
    config: Any = small_text(vocabulary, length)
    with seeded(seed):
        text = ClipTextTower(CLIPTextModel._from_config(config, attn_implementation="eager"), pad=0)
        model = ClipCNN(ConvTower(), text, width=config.projection_dim)
    _silence(text.encoder)
    model.image.to(memory_format=torch.channels_last)  # the faster layout on a CPU
    return model


def load(folder: str | Path) -> Clip:
    """Load a CLIP in the published format from a folder, ``openai/clip-vit-base-patch32`` or another of its kind.

    Its logit is ``scale * cosine`` until :meth:`DualEncoder.set_threshold` has chosen where yes begins.

    Parameters
    ----------
    folder : path
        Holds ``config.json``, weights and ``preprocessor_config.json``. Nothing is looked for anywhere else.

    Returns
    -------
    Clip
        Frozen, in eval mode, attention maps readable.

    Raises
    ------
    WeightsError
        If a file is missing or broken.
    """
    with offline(folder, "CLIP", "config.json", "preprocessor_config.json") as path:
        clip = CLIPModel.from_pretrained(path, local_files_only=True, attn_implementation="eager", dtype=torch.float32)
        pixels = json.loads((path / "preprocessor_config.json").read_text(encoding="utf-8"))
        model = Clip(clip, mean=pixels.get("image_mean", MEAN), std=pixels.get("image_std", STD))
    model.bias.data.zero_()
    return model.requires_grad_(False).eval()


def _numbered(name: str, config: Any) -> list[str]:
    return [f"{name}.{i}" for i in range(config.num_hidden_layers)]


@torch.no_grad()
def _silence(text: Any) -> None:
    """Set the embeddings of padding and mask to 0, since training never reads the one and never shows the other."""
    text.embeddings.token_embedding.weight[:2] = 0
