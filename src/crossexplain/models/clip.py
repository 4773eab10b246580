"""CLIP (Radford et al. 2021): two towers, two vectors of length 1, and one number, the cosine of the angle between them.

:class:`Clip` is the published architecture, trained here in small or loaded; :class:`ClipCNN` has convolutions for its image
tower, so that Grad-CAM has a map to read. Both are called the same way, for pairs, and give one logit a pair:
``scale * cosine + bias``, above 0 where picture and text match.
"""

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel
from transformers.utils import logging

from crossexplain.models.bert import EncoderError
from crossexplain.models.towers import (
    ClipTextTower,
    ConvTower,
    Look,
    clip_states,
    dense,
    pool,
    require_images,
    require_pairs,
    threshold,
)

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's pixels
# To begin training with. A caption with one wrong word is not far from the right one, so the cosine is multiplied by more
# than the 10 of SigLIP (Zhai et al. 2023); the bias says, as there, that most captions are not true of a picture.
SCALE, BIAS = 40.0, -10.0


class DualEncoder(nn.Module):
    """What all models of this file share: how two vectors become a number.

    Subclasses give ``see(images) -> (N, D)``, ``read(tokens, attention_mask) -> (N, D)``, the logarithm of the ``scale``,
    ``image_layer`` and ``text_layer``.
    """

    image_layer: str
    text_layer: str

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(BIAS))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return vectors of length 1, (N, D), of pictures (N, 3, H, W) from 0 to 1."""
        return nn.functional.normalize(self.see(images), dim=1)

    def encode_texts(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return vectors of length 1, (N, D), of texts (N, T) that begin with start-of-text and end in end-of-text."""
        return nn.functional.normalize(self.read(tokens, attention_mask), dim=1)

    def match(self, seen: Tensor, said: Tensor) -> Tensor:
        """Return the logits (N,) of pictures (N, D) that were seen and texts (N, D) that were read before."""
        return self.logits(nn.functional.cosine_similarity(seen, said, dim=-1))

    def similarity(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits of every picture with every text, (N, M)."""
        return self.every(self.see(images), self.read(tokens, attention_mask))

    def every(self, seen: Tensor, said: Tensor) -> Tensor:
        """Return the logits of every picture (N, D) with every text (M, D), (N, M)."""
        return self.logits(nn.functional.normalize(seen, dim=1) @ nn.functional.normalize(said, dim=1).T)

    def logits(self, cosines: Tensor) -> Tensor:
        """Return ``scale * cosine + bias``."""
        return self.log_scale.exp() * cosines + self.bias

    def forward(self, images: Tensor, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits that each text describes its picture, shape (N,)."""
        require_pairs(images, tokens)
        return self.match(self.see(images), self.read(tokens, attention_mask))

    @torch.no_grad()
    def centre(self, logits: Tensor, labels: Tensor) -> float:
        """Set the bias so that 0 divides pairs that match from pairs that do not as well as it can be done.

        Training sees far more pairs that do not match than pairs that do, and what was published has no bias at all.

        Parameters
        ----------
        logits : Tensor, shape (N,)
            Of pairs that are used for nothing else, from this model as it is.
        labels : Tensor, shape (N,)
            0 and 1, both of them present.

        Returns
        -------
        float
            The cosine that divides them.
        """
        cosines = (logits.float() - self.bias.item()) / self.log_scale.exp().item()
        found = threshold(cosines, labels)
        self.bias.fill_(-found * self.log_scale.exp().item())
        return found


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
        Blocks of the vision transformer that gather one vector of what the ones before say of each patch; only
        :meth:`map` and :meth:`look` know of it.

    Attributes
    ----------
    image_layer : str
        What the last block reads, (N, 1 + P, D): the class token, then patches row by row. Of what it gives only the class
        token is used, so a gradient at the patches would be 0 there by construction.
    text_layer : str
        Word and position embeddings, summed; (N, T, D).
    blocks, text_blocks, attention_layers, text_attention_layers : list of str
        Transformer blocks (tokens in, tokens out) and self-attention modules (second output: (N, heads, T, T)) of each tower.
    size, grid : int
        Side of a picture in pixels, and in patches.
    """

    text_layer = "clip.text_model.embeddings"

    def __init__(self, clip: CLIPModel, pad: int | None = None, mean: tuple[float, ...] = MEAN,
                 std: tuple[float, ...] = STD, tail: int = 2):
        super().__init__()
        self.clip, self.pad, self.tail = clip, pad, tail
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        vision = clip.config.vision_config
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
        require_images(images, self.size)
        pixels = (images - self.mean) / self.std
        return self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)

    def map(self, images: Tensor) -> Tensor:
        """Return what the blocks before the last ``tail`` make of class token and patches, (N, 1 + P, C)."""
        require_images(images, self.size)
        vision = self.clip.vision_model
        states = vision.pre_layrnorm(vision.embeddings((images - self.mean) / self.std))
        for block in vision.encoder.layers[: -self.tail]:
            states = block(states, None)
        return states

    def look(self, states: Tensor) -> Tensor:
        """Return one vector a picture, (N, D), of what :meth:`map` gave."""
        for block in self.clip.vision_model.encoder.layers[-self.tail :]:
            states = block(states, None)
        return self.clip.visual_projection(self.clip.vision_model.post_layernorm(states[:, 0]))

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, (N, D), read at its end-of-text token."""
        states = clip_states(self.clip.text_model, tokens, attention_mask, self.pad)
        return self.clip.text_projection(pool(*states, "last"))


class ClipCNN(DualEncoder):
    """A dual encoder whose image tower is convolutional.

    Parameters
    ----------
    image, text : torch.nn.Module
        Towers, see :mod:`crossexplain.models.towers`. What is frozen when it comes stays frozen and in eval mode.
    read : {"max", "mean", "first", "last"}
        How the states of the text become one vector; ``"last"`` is CLIP's way, at the end-of-text token.
    width : int
        Of the common space.
    dropout : float
        Before the last layer of either side; for towers that are frozen, where it is all that can overfit.
    look : torch.nn.Module, optional
        Makes one vector (N, width) of a map; default, :class:`crossexplain.models.towers.Look`.
    hidden : int
        Units between the vector of the text and the common space, for a text tower that is frozen; 0 has none.

    Attributes
    ----------
    image_layer, text_layer : str
        The last map (N, C, h, w) and the embeddings (N, T, D).
    """

    def __init__(self, image: nn.Module, text: nn.Module, read: str = "last", width: int = 256, dropout: float = 0.0,
                 look: nn.Module | None = None, hidden: int = 0):
        super().__init__()
        self.image, self.text, self.how = image, text, read
        self.image_layer, self.text_layer = f"image.{image.layer}", f"text.{text.layer}"
        self.look = Look(image.width, width, dropout) if look is None else look
        self.say = nn.Sequential(nn.Dropout(dropout), nn.Linear(text.width, width, bias=False))
        if hidden:
            self.say = nn.Sequential(nn.LayerNorm(text.width), *dense(text.width, hidden, width, dropout))
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def map(self, images: Tensor) -> Tensor:
        """Return what the image tower makes of pictures, (N, C, h, w); ``look`` makes one vector of it, (N, D)."""
        return self.image(images)

    def see(self, images: Tensor) -> Tensor:
        """Return one vector a picture, (N, D)."""
        return self.look(self.map(images))

    def read(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, (N, D)."""
        return self.say(pool(*self.text(tokens, attention_mask), self.how))

    def train(self, mode: bool = True) -> "ClipCNN":
        """Switch dropout on or off; a frozen tower stays in eval mode, so that its batch statistics stay too."""
        super().train(mode)
        for tower in (self.image, self.text):
            if mode and not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self


class Contrast(nn.Module):
    """A model as it is trained by contrast: in train mode every picture of a batch with every text, in eval mode its own.

    What is said of pictures by the part that stays frozen, ``model.map(images)``, is computed once, before.

    Parameters
    ----------
    model : Clip, ClipCNN or crossexplain.models.fusion.Fusion
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, maps: Tensor, tokens: Tensor, more: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        maps : Tensor, shape (N, ...)
        tokens : Tensor, shape (M, T)
        more : Tensor, optional
            More texts, read by themselves since they are shorter.

        Returns
        -------
        Tensor
            (N, M) in train mode. In eval mode (M,): the first M / N texts belong to the first picture, and so on.
        """
        seen = self.model.look(maps)
        said = torch.cat([self.model.read(texts) for texts in (tokens, more) if texts is not None])
        if self.training:
            return self.model.every(seen, said)
        return self.model.match(seen.repeat_interleave(len(said) // len(seen), dim=0), said)


def sigmoid_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Return the contrastive loss of Zhai et al. (2023): each picture with each text is a question of yes or no.

    Unlike the softmax of Radford et al. (2021) it minds that several texts may be true of a picture, and that none is.

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
        raise ValueError(f"side {side} and patch {patch} came; the patches have to cover the picture.")
    text = small_text(vocabulary, length)
    vision = {"image_size": side, "patch_size": patch, "hidden_size": width, "intermediate_size": 2 * width,
              "num_hidden_layers": layers, "num_attention_heads": 4, "projection_dim": text.projection_dim}
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=text.projection_dim,
                        logit_scale_init_value=math.log(SCALE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Clip(CLIPModel._from_config(config, attn_implementation="eager"), pad=0)
    _silence(model.clip.text_model)
    return model


def small_cnn(vocabulary: int, length: int, seed: int = 0) -> ClipCNN:
    """Return a small dual encoder with a convolutional image tower and random weights; arguments as for :func:`small_vit`."""
    config = small_text(vocabulary, length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel._from_config(config, attn_implementation="eager")
        model = ClipCNN(ConvTower(), ClipTextTower(text, pad=0), width=config.projection_dim)
    _silence(text)
    model.image.to(memory_format=torch.channels_last)  # the faster layout on a CPU
    return model


def load(folder: str | Path) -> Clip:
    """Load a CLIP in the published format from a folder, ``openai/clip-vit-base-patch32`` or another of its kind.

    Its logit is ``scale * cosine`` until :meth:`DualEncoder.centre` has chosen where yes begins.

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
    EncoderError
        If a file is missing or broken.
    """
    folder = Path(folder)
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    if missing:
        raise EncoderError(f"{folder} lacks {', '.join(missing)}; pass the folder that data.store.find gave, or one in "
                           "which save_pretrained wrote model and processor.")
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for a file on the disk would stand on every page
    try:
        clip = CLIPModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32)
        pixels = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        mean, std = pixels.get("image_mean", MEAN), pixels.get("image_std", STD)
        model = Clip(clip, mean=mean, std=std).requires_grad_(False).eval()
        model.bias.zero_()
        return model
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"the CLIP in {folder} cannot be loaded ({type(error).__name__}: {error}); fetch it "
                           "again.") from error
    finally:
        if bar:
            logging.enable_progress_bar()


def _numbered(name: str, config) -> list[str]:
    return [f"{name}.{i}" for i in range(config.num_hidden_layers)]


@torch.no_grad()
def _silence(text: CLIPTextModel) -> None:
    """Let padding and mask say nothing; training never shows the one and never reads the other."""
    text.embeddings.token_embedding.weight[:2] = 0
