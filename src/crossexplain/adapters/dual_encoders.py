"""Dual encoders: a tower for pictures, sounds or videos, one for texts, and a similarity; judged as pairs."""

from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.adapters import parts
from crossexplain.adapters.draft import Adapted, Draft, picture
from crossexplain.adapters.pictures import NAFLEX, attention_of, deep, naflex
from crossexplain.checks import InputError
from crossexplain.gradients.modalities import Inputs


def pairs(output: object) -> Tensor:
    """Return the logit of each first with its own second, (N,), of similarities (N, N)."""
    for key in ("logits_per_image", "logits_per_audio", "logits_per_video"):
        if (logits := getattr(output, key, None)) is not None:
            if logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
                raise InputError(f"{key} is {tuple(logits.shape)}, expected one text for each example, (N, N).")
            return torch.diagonal(logits)
    raise InputError(f"the model gives {type(output).__name__} without logits_per_image; pass output=..., which picks what is "
                     "judged.")


def _is_dual(model: nn.Module) -> bool:
    towers = [hasattr(model, f"get_{kind}_features") for kind in ("image", "audio", "video")]
    scaled = any(hasattr(model, name) for name in ("logit_scale", "temperature", "logit_scale_a"))
    return any(towers) and hasattr(model, "get_text_features") and scaled


def _dual(draft: Draft) -> Adapted:
    model = draft.model
    tower = parts.named(model, "vision_model", "audio_model", "vision_tower") or ""
    text_tower = parts.named(model, "text_model") or "text_model"
    draft.output = draft.choose("output", pairs)
    draft.note("judged", "each pair's own logit", "the diagonal of the similarities (N, N)")
    if hasattr(model, "get_audio_features"):
        picture(draft, "input_features", name="sound", why="model's forward(): a spectrogram (N, 1, time, frequency)")
    elif "pixel_values" in parts.keywords(model):
        layer, at = deep(model, tower)
        picture(draft, "pixel_values", layer, at)
        if parts.is_a(model, NAFLEX):
            naflex(draft)
        attention_of(draft, at, tower)
    else:
        raise InputError(f"{type(model).__name__} compares texts with something other than pictures or sounds; wrap it in "
                         "Called(...) and name the modalities yourself.")
    draft.words(layer=_embedding(model, text_tower), extra_special=_ends(draft), mask=_mask(draft))
    draft.maps_of("text", parts.self_attention(model, text_tower))
    return draft.finish("a dual encoder")


def _embedding(model: nn.Module, tower: str) -> str | None:
    part = model.get_submodule(tower)
    inner = parts.word_embedding(part)
    return inner and f"{tower}.{inner}"


def _ends(draft: Draft) -> list[int]:
    """Return the ids at which the text is read, where a tokenizer is there to leave them out."""
    return parts.ids_in(parts.text_config(draft.model), r"eos_token_id") if draft.tokenizer is None else []


def _mask(draft: Draft) -> str | None:
    """Return the keyword of the attention mask; SigLIP was trained without one, and its processors give none."""
    is_shown = draft.given is not None or draft.tokenizer is not None
    return None if parts.is_a(draft.model, "Siglip.*") and not is_shown else "attention_mask"


def _is_open_clip(model: nn.Module) -> bool:
    return all(hasattr(model, name) for name in ("encode_image", "encode_text", "logit_scale", "visual"))


def open_clip_pairs(model: Any, inputs: Inputs) -> Tensor:
    """Return the scaled similarity of each picture with its own text, (N,), of a model of open_clip or OpenAI's clip."""
    image, text = (nn.functional.normalize(encode(inputs[key]), dim=-1) for encode, key in
                   ((model.encode_image, "image"), (model.encode_text, "text")))
    bias = getattr(model, "logit_bias", None)
    logits: Tensor = model.logit_scale.exp() * (image * text).sum(dim=-1) + (0 if bias is None else bias)
    return logits


def _open_clip(draft: Draft) -> Adapted:
    model = draft.model
    draft.call = draft.choose("call", open_clip_pairs)
    draft.note("judged", "each pair's own logit", "scale times the cosine of the two vectors")
    layer, at = deep(model, "visual")
    picture(draft, "image", layer, at, why="encode_image")
    embedding = parts.named(model, "token_embedding", "text.token_embedding") or parts.word_embedding(model)
    part = draft.words(key="text", layer=embedding, mask=None)
    # CLIP's own tokenizer, which numbers start and end last, so that a text is read at its largest id.
    of_clip = draft.tokenizer is None or hasattr(draft.tokenizer, "sot_token_id")
    text = getattr(model, "text", None)
    if of_clip and embedding and getattr(model, "text_pool_type", getattr(text, "pool_type", "argmax")) == "argmax" \
            and not hasattr(text, "config"):
        embedded: Any = model.get_submodule(embedding)
        last = embedded.num_embeddings
        part.arguments |= {"special": ((last - 2, last - 1), "the two last ids of the vocabulary, start and end of a text"),
                           "pad_id": (0, "what its tokenizer fills with")}
        draft.missing = [text for text in draft.missing if not text.startswith(("special=", "pad_id="))]
    return draft.finish("a dual encoder of open_clip")


FAMILIES = ((_is_open_clip, _open_clip), (_is_dual, _dual))
