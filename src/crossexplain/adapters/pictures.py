"""Pictures: the classifiers of torchvision, transformers and timm."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from crossexplain.adapters import parts
from crossexplain.adapters.draft import NO_ATTENTION, Adapted, Draft, picture, require_tensor, same_rows
from crossexplain.checks import InputError
from crossexplain.gradients.layouts import channels_of

NAFLEX = "Siglip2.*"
# Where the last maps of a network of convolutions are, from the whole to its parts; of torchvision, timm and transformers.
LAST_MAPS = ("layer4", "features", "layers", "conv5", "inception5b", "Mixed_7c", "trunk_output", "blocks", "stages", "conv_1x1",
             "layer", "encoder.stages", "encoder.layer", "encoder.layers", "encoder.blocks", "encoder")
# Vision transformers: patches row by row, with special tokens in front of them or none.
TOKENS = ("ViT.*", "DeiT.*", "Beit.*", "Data2VecVision.*", "Dinov2.*", "IJepa.*", "CLIP.*", "Siglip.*", "MetaClip2.*",
          "AltCLIP.*", "ChineseCLIP.*", "Blip.*", "Flava.*", "VisionTextDual.*", "Llava.*", "PaliGemma.*", "DinoV2.*",
          "CLIPSeg.*", "VipLlava.*", "Idefics.*", "SmolVLM.*", "Gemma3.*", "Git.*", "InternVL.*", "VisionTransformer", "Eva")
WINDOWS = "Swin.*", "DonutSwin.*", "FocalNet.*"  # tokens of places too, of which the last stage is normed as a whole


def deep(model: nn.Module, tower: str = "") -> tuple[str | None, dict[str, object]]:
    """Return the last layer in which each part of a picture still has its place, and how it is laid out; or None, {}.

    Of a transformer that is what goes into its last block, since after that only the class token is read; of convolutions the
    last map.
    """
    part = model.get_submodule(tower) if tower else model
    inner = next((name for name, module in part.named_modules() if name and module is getattr(part, "base_model", None)), "")
    prefix = ".".join(filter(None, (tower, inner)))
    if parts.is_a(model, *WINDOWS) or parts.is_a(part, *WINDOWS):
        return _windows(model, prefix)
    blocks = parts.blocks(model, prefix)
    if blocks and (parts.is_a(model, *TOKENS) or parts.is_a(part, *TOKENS)):
        holder = parts.embeddings(model, prefix)
        if holder is None:
            return None, {}
        special = parts.front_tokens(model.get_submodule(holder))
        return blocks[-2] if len(blocks) > 1 else holder, {"layout": "NTD", "positions": slice(special, None)}
    if parts.is_a(model, "Cvt.*"):  # after the last stage only the class token is read
        stages = f"{prefix}.encoder.stages"
        return f"{stages}.{len(model.get_submodule(stages)._modules) - 2}", {"layout": "NCHW"}
    if parts.self_attention(model, prefix):  # tokens whose order is not known; but patches are cut as the picture is laid out
        return _patches(model, prefix), {"layout": "NCHW"}
    last = parts.named(model, *(".".join(filter(None, (prefix, path))) for path in LAST_MAPS))
    lists = (nn.ModuleList, nn.Sequential) if _of_library("timm")(model) else nn.ModuleList
    if last is not None and isinstance(model.get_submodule(last), lists):  # a list is never called, its entries are
        last = f"{last}.{len(model.get_submodule(last)._modules) - 1}"
    return last, {"layout": "NCHW"}


def _windows(model: nn.Module, prefix: str) -> tuple[str | None, dict[str, object]]:
    """Return the norm after the last stage: its tokens are places row by row, without any special one."""
    norm = parts.named(model, f"{prefix}.layernorm", f"{prefix}.norm", "norm")
    kind = channels_of(model.get_submodule(norm)) if norm else None
    return norm, {"layout": "NTD" if norm != "norm" else "NCHW" if kind == "second" else "NHWC"}


def _patches(model: nn.Module, prefix: str) -> str | None:
    return next((name for name, module in model.named_modules()
                 if parts.within(name, prefix) and isinstance(module, nn.Conv2d)), None)


def _is_classifier(model: nn.Module) -> bool:
    return parts.is_a(model, r".*ForImageClassification.*")


def _classifier(draft: Draft) -> Adapted:
    model = draft.model
    if "pixel_values" not in parts.keywords(model):
        raise InputError(f"{type(model).__name__} takes {', '.join(parts.keywords(model)[:3])} and no pixel_values; name the "
                         "modality yourself, as in ImageCells(input=...).")
    layer, at = deep(model)
    picture(draft, "pixel_values", layer, at)
    if parts.is_a(model, NAFLEX):
        naflex(draft)
    attention_of(draft, at)
    require_one_target(draft)
    return draft.finish("a classifier of pictures")


def attention_of(draft: Draft, at: Mapping[str, object], tower: str = "") -> None:
    """Name the self-attention modules of a picture's tower where their maps are of every patch with every patch."""
    modules = parts.self_attention(draft.model, tower)
    why = "its maps are of windows, or of places that were pooled" if modules else NO_ATTENTION
    draft.maps_of("image", modules if "positions" in at else [], why=why)


def require_one_target(draft: Draft) -> None:
    """Choose what is judged of a classifier: the predicted class; the number of a regression; the label that is named."""
    config = parts.config_of(draft.model)
    kind = getattr(config, "problem_type", None)
    if kind == "multi_label_classification" or kind == "regression" and getattr(config, "num_labels", 1) > 1:
        draft.target = draft.choose("target", need="the number of the label that is judged, since an example may have several")
    elif kind == "regression":
        draft.target = draft.choose("target", 1)  # of one number: upwards
        draft.note("judged", "the number itself", "config: regression")
    else:
        draft.note("judged", "the logits", "the model's own output")


def _of_library(*packages: str) -> Callable[[nn.Module], bool]:
    return lambda model: type(model).__module__.split(".")[0] in packages


def _library(draft: Draft) -> Adapted:
    model = draft.model
    keys = parts.keywords(model)
    if not keys:
        raise InputError(f"{type(model).__name__} names no input in its forward; pass adapt(Called(model, ...)).")
    package = type(model).__module__.split(".")[0]
    if package == "torchvision" and not type(model).__module__.startswith("torchvision.models.") \
            or any(name in type(model).__module__ for name in ("segmentation", "detection", "optical_flow")):
        raise InputError(f"{type(model).__name__} gives no logits of classes; name a target, a function of its output that "
                         "returns one number an example, and the modality yourself, as in ImageCells(input='x').")
    layer, at = _library_layer(model)
    picture(draft, keys[0], layer, at, why="model's forward()")
    require_one_target(draft)
    return draft.finish(f"a classifier of pictures, of {package}")


def _library_layer(model: nn.Module) -> tuple[str | None, dict[str, object]]:
    """Return the layer for maps of a model of torchvision or timm."""
    if parts.is_a(model, "SwinTransformer.*"):
        return _windows(model, "")
    if parts.is_a(model, "VisionTransformer"):
        listed = [name for name, _ in model.named_modules() if name.rpartition(".")[0] in ("encoder.layers", "blocks")]
        own = dict(model.named_parameters(recurse=False))
        special = sum(own[key].shape[1] for key in ("cls_token", "class_token", "reg_token", "dist_token") if key in own)
        return listed[-2] if len(listed) > 1 else None, {"layout": "NTD", "positions": slice(special, None)}
    return deep(model)


def naflex(draft: Draft) -> None:
    """Turn the patches (N, P, D) of pictures of one size into pictures (N, C, H, W), and back for the model."""
    config = parts.picture_config(draft.model)
    side, channels = config.patch_size, config.num_channels
    inner = draft.call

    def pictures_of(batch: dict[str, Any], _: object) -> dict[str, Any]:
        patches = require_tensor(batch.get("pixel_values"), "pixel_values")
        if patches.ndim == 4:
            return batch
        height, width = same_rows(require_tensor(batch.get("spatial_shapes"), "spatial_shapes"), "spatial_shapes").tolist()
        cut = patches[:, : height * width].unflatten(2, (side, side, channels)).unflatten(1, (height, width))
        rest = {key: value for key, value in batch.items() if key not in ("spatial_shapes", "pixel_attention_mask")}
        return {**rest, "pixel_values": cut.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)}

    def with_patches(model: nn.Module, inputs: dict[str, Any]) -> object:
        pixels = inputs["pixel_values"]  # (N, C, H, W)
        n, _, height, width = pixels.shape
        patches = pixels.unflatten(3, (width // side, side)).unflatten(2, (height // side, side)).permute(0, 2, 4, 3, 5, 1)
        patches = patches.flatten(3).flatten(1, 2)  # (N, P, D)
        shapes = torch.tensor([[height // side, width // side]], device=pixels.device).expand(n, 2)
        given = {**inputs, "pixel_values": patches, "spatial_shapes": shapes,
                 "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.long, device=pixels.device)}
        return inner(model, given) if inner else model(**given)

    draft.steps.append(pictures_of)
    draft.call = with_patches
    draft.note("  cut", f"patches of {side} x {side} pixels", "Adapted.inputs lays them out as pictures of one size")


FAMILIES = ((_is_classifier, _classifier), (_of_library("torchvision", "timm"), _library))
