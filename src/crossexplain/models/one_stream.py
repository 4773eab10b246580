"""One stream: words and patches stand in one sequence, and meet in every layer of one transformer (ViLT, Kim et al. 2021)."""

import torch
from torch import Tensor, nn
from transformers import ViltConfig, ViltModel

from crossexplain.checks import InputError, require_tokens
from crossexplain.models.towers import ConvTower, Tower
from crossexplain.models.weights import seeded


class OneStream(nn.Module):
    """Does the text describe the picture? A class token that reads the words and the patches gives one logit.

    Parameters
    ----------
    image : torch.nn.Module
        Makes a map (N, C, h, w) of a picture; a stem before the transformer, as in a hybrid ViT.
    vilt : transformers.ViltModel
        Reads patches that were embedded before, as ``image_embeds``.
    side : int
        Side of the map in places. Each patch is two by two of them.

    Attributes
    ----------
    image_layer, text_layer : str
        Where patches (N, D, h / 2, w / 2) and words (N, T, D) can be read apart.
    joint_layer : str
        Where they stand in one sequence, (N, T + P, D): the words first, then the patches row by row.
    grid : int
        Patches on a side.
    """

    image_layer, text_layer, joint_layer = "patches", "vilt.embeddings.text_embeddings", "vilt.embeddings"

    def __init__(self, image: Tower, vilt: ViltModel, side: int):
        super().__init__()
        width, self.grid = vilt.config.hidden_size, side // 2
        self.image, self.vilt = image, vilt
        vilt.embeddings.register_module("patch_embeddings", None)  # patches come from the map; unused weights have no gradient
        for unused in ("cls_token", "position_embeddings"):
            vilt.embeddings.register_parameter(unused, None)
        self.patches = nn.Conv2d(image.width, width, 2, 2)
        self.place = nn.Parameter(0.02 * torch.randn(self.grid**2, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def image_map(self, images: Tensor) -> Tensor:
        """Return the map (N, C, h, w) of pictures."""
        maps: Tensor = self.image(images)
        return maps

    def states(self, maps: Tensor, tokens: Tensor) -> Tensor:
        """Return the states of words and patches after the last layer, (N, T + P, D)."""
        require_tokens(tokens, self.vilt.config.vocab_size, self.vilt.config.max_position_embeddings)
        patches = self.patches(maps).flatten(2).transpose(1, 2)  # (N, P, D)
        if patches.shape[1] != len(self.place):
            raise InputError(f"got maps of {' x '.join(map(str, maps.shape[2:]))} places, expected {2 * self.grid} x "
                             f"{2 * self.grid}; pass pictures of the size that the model was made for.")
        everywhere = torch.ones(patches.shape[:2], dtype=torch.long, device=tokens.device)
        states: Tensor = self.vilt(
            input_ids=tokens, attention_mask=(tokens != 0).long(), image_embeds=self.norm(patches + self.place),
            pixel_mask=everywhere).last_hidden_state
        return states

    def match(self, maps: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits (N,) of maps (N, C, h, w) and texts (N, T)."""
        logits: Tensor = self.head(self.states(maps, tokens)[:, 0])[:, 0]
        return logits

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits (N,) that texts, which begin with a class token and are padded with 0, are true of pictures."""
        return self.match(self.image_map(images), tokens)


def small(vocabulary: int, length: int, side: int = 96, width: int = 128, layers: int = 4, seed: int = 0) -> OneStream:
    """Return a small model with random weights.

    Parameters
    ----------
    vocabulary, length : int
        Words, and most tokens of a text.
    side : int
        Of the pictures in pixels.
    width, layers : int
        Of the transformer.
    seed : int
    """
    config = ViltConfig(vocab_size=vocabulary, max_position_embeddings=length, hidden_size=width, num_hidden_layers=layers,
                        num_attention_heads=4, intermediate_size=2 * width, hidden_dropout_prob=0.0,
                        attention_probs_dropout_prob=0.0, pad_token_id=0)
    with seeded(seed):
        model = OneStream(ConvTower(), ViltModel(config, add_pooling_layer=False), side // 8)
    model.image.to(memory_format=torch.channels_last)  # the faster layout on a CPU
    return model
