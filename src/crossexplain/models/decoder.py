"""A language model that gets a picture as tokens of its prompt, and answers by its next word (LLaVA, Liu et al. 2023)."""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from crossexplain.checks import InputError, require_tokens
from crossexplain.models.towers import ConvTower, Tower
from crossexplain.models.weights import seeded

QUIET = 0.1  # what normalised patches are multiplied by, so that they begin about as large as the embeddings of words


class Decoder(nn.Module):
    """What comes after a picture and a prompt?

    Parameters
    ----------
    image : torch.nn.Module
        Makes a map (N, C, h, w) of a picture.
    language : transformers.LlamaForCausalLM
    image_token : int
        The token that keeps a place for a patch.
    side : int
        Side of the map in places. Each patch is two by two of them.

    Attributes
    ----------
    image_layer, text_layer : str
        Where patches (N, D, h / 2, w / 2) and tokens (N, L, D) can be read apart. What is read at the places that patches
        take has no gradient there, since the patches replace it.
    grid : int
        Patches on a side.
    """

    image_layer, text_layer = "project", "language.model.embed_tokens"

    def __init__(self, image: Tower, language: LlamaForCausalLM, image_token: int, side: int):
        super().__init__()
        width, self.grid, self.image_token = language.config.hidden_size, side // 2, image_token
        self.image, self.language = image, language
        self.project = nn.Conv2d(image.width, width, 2, 2)
        self.place, self.norm = nn.Parameter(0.02 * torch.randn(self.grid**2, width)), nn.LayerNorm(width)

    def image_map(self, images: Tensor) -> Tensor:
        """Return the map (N, C, h, w) of pictures."""
        maps: Tensor = self.image(images)
        return maps

    def patches(self, maps: Tensor) -> Tensor:
        """Return what the language model gets of maps (N, C, h, w), row by row; (N, P, D)."""
        patches: Tensor = QUIET * self.norm(self.project(maps).flatten(2).transpose(1, 2) + self.place)
        return patches

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits of the word after each token, (N, L, V).

        Parameters
        ----------
        images : Tensor, shape (N, 3, H, W)
        input_ids : Tensor of int64, shape (N, L)
            Prompts in which ``image_token`` stands once for each patch, padded at the front.
        attention_mask : Tensor, shape (N, L)
            0 at padding.
        """
        require_tokens(input_ids, self.language.config.vocab_size)
        patches, here = self.patches(self.image_map(images)), input_ids == self.image_token
        if (here.sum(dim=1) != patches.shape[1]).any():
            raise InputError(f"the prompts have {sorted(set(here.sum(dim=1).tolist()))} image tokens, expected "
                             f"{patches.shape[1]} in each, one for each patch; keep them when words are hidden.")
        words = self.language.model.embed_tokens(input_ids)
        states = words.masked_scatter(here[..., None], patches.to(words.dtype))
        places = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)  # padding at the front moves no word
        out = self.language(inputs_embeds=states, attention_mask=attention_mask, position_ids=places, use_cache=False)
        logits: Tensor = out.logits
        return logits


def small(vocabulary: int, image_token: int, side: int = 96, width: int = 128, layers: int = 4, seed: int = 0) -> Decoder:
    """Return a small model with random weights; arguments as for :func:`crossexplain.models.one_stream.small`."""
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
                         num_attention_heads=4, max_position_embeddings=128, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    with seeded(seed):
        model = Decoder(ConvTower(), LlamaForCausalLM(config), image_token, side // 8)
    model.image.to(memory_format=torch.channels_last)  # the faster layout on a CPU
    return model
