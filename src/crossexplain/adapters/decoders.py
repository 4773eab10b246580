"""Generative models of text, with pictures or without: what is judged is an answer to the prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.adapters import parts
from crossexplain.adapters.answers import Answer, Way, logits_of
from crossexplain.adapters.draft import UNSET, Adapted, Draft, picture, require_tensor, same_rows
from crossexplain.adapters.pictures import deep
from crossexplain.checks import InputError
from crossexplain.gradients.modalities import Inputs

# What the processor gives as pixel_values: patches of all pictures in a row, (N, pictures, C, H, W), or crops that overlap.
FLAT = "Qwen2VL.*", "Qwen2_5_VL.*", "Qwen3VL.*", "Qwen3_5For.*", "Glm4v.*", "Glm46V.*", "GlmOcr.*"
ONE_PICTURE = "Idefics2.*", "Idefics3.*", "SmolVLM.*"
CROPPED = "LlavaNext.*", "LlavaOnevision.*", "Mllama.*", "Emu3.*", "Aria.*", "Llama4.*"
IMAGE_TOKENS = r"(image|video|vision|boi|eoi|boa|eoa|audio|fake).*_token_(id|index)|(boi|eoi)_token_(id|index)"
# Of these the places of tokens are learned, and padding in front would be counted.
COUNTS_PADDING = ("GPT2.*", "GPTNeo.*", "OpenAIGPT.*", "GPTBigCode.*", "CodeGen.*", "GPTJ.*", "BioGpt.*", "CTRL.*", "XGLM.*",
                  "Electra.*", "BertLM.*", "RemBert.*")
HEADS = (r".*For(ConditionalGeneration|CausalLM|Vision2Seq|VisionText2Text|ImageTextToText)", r".*LMHeadModel",
         "BlipForQuestionAnswering")
TOWERS = ("model.vision_tower", "vision_tower", "model.vision_model", "vision_model", "model.visual", "visual",
          "git.image_encoder.vision_model")


def _goes_on(model: nn.Module) -> bool:
    return parts.is_a(model, *HEADS) and "input_ids" in parts.keywords(model)


def _decoder(draft: Draft) -> Adapted:
    model = draft.model
    if parts.is_a(model, *CROPPED):
        raise InputError(f"{type(model).__name__} is given several crops of a picture, which overlap, so a cell of the picture "
                         "is no part of its input; use a model that sees the picture as a whole, or wrap this one in "
                         "Called(model, call), where call cuts the crops itself from pictures (N, C, H, W).")
    sees, flat = "pixel_values" in parts.keywords(model), parts.is_a(model, *FLAT)
    asked, tower = _asked(draft), parts.named(model, *TOWERS) or ""
    if sees:
        layer, at = deep(model, tower) if tower and not flat else (None, {})
        picture(draft, "pixel_values", layer, at)
    draft.call = _flat(draft, asked) if flat else _single(draft, asked) if parts.is_a(model, *ONE_PICTURE) else asked
    # With an answer after the prompt, the layer has more positions than the prompt has tokens.
    given: dict[str, Any] = {"extra_special": _image_tokens(draft)}
    if asked.longest:
        given["positions"] = (slice(0, -asked.longest), "the prompt; the answer stands after it")
    words = draft.words(**given)
    _template(draft, words.arguments)
    _attention(draft, tower, asked)
    _judged(draft, asked)
    draft.target = None if asked.against else 1  # of one answer the number is followed upwards, of two what is said decides
    return draft.finish("a generative model of text and pictures" if sees else "a language model")


def _asked(draft: Draft) -> Answer:
    """Return what is judged: how likely the caller's answer is."""
    model = draft.model
    answer, against = _tokens(draft, "answer"), _tokens(draft, "against") if "against" in draft.choices else ()
    draft.used.add("against")
    if against and len(answer) + len(against) > 2:
        raise InputError(f"got an answer of {len(answer)} tokens against one of {len(against)}, which takes two passes of the "
                         "model, and a gradient is read in one; judge one token against one, or each answer by itself.")
    vqa = parts.is_a(model, "BlipForQuestionAnswering")
    start = _start(draft) if vqa or getattr(parts.config_of(model), "is_encoder_decoder", False) else None
    after_prompt = int(parts.is_a(model, "PaliGemma.*"))  # the prompt's tokens see each other, those of the answer do not
    return Answer(answer, against, way=_question_answering if vqa else logits_of, start=start,
                  along=(("token_type_ids", after_prompt),), places=parts.is_a(model, *COUNTS_PADDING))


def _start(draft: Draft) -> int | None:
    """Return the id with which a decoder begins."""
    holders = parts.config_of(draft.model), parts.text_config(draft.model), getattr(draft.model, "generation_config", None)
    known = [number for key in ("decoder_start_token_id", "bos_token_id") for holder in holders
             for number in parts.numbers(getattr(holder, key, None))]
    start: int | None = draft.choose("start", known[0] if known else UNSET, need="the id that the decoder begins with")
    return start


def _tokens(draft: Draft, key: str) -> tuple[int, ...]:
    """Return the token ids of an answer."""
    given = draft.choose(key, need="which next word or words are judged: an id, a list of ids, or with a tokenizer a text; "
                                   "and against=..., to judge one answer against another")
    if given is None:
        return ()
    if isinstance(given, str):
        if draft.tokenizer is None:
            raise InputError(f"got {key}={given!r} and no tokenizer; pass the tokenizer or processor, or the ids.")
        given = draft.tokenizer(given, add_special_tokens=False).input_ids
    ids = [int(number) for number in (given.flatten().tolist() if isinstance(given, Tensor) else
                                      given if isinstance(given, Sequence) else [given])]
    words = getattr(parts.text_config(draft.model), "vocab_size", None)
    if not ids or any(number < 0 or (words and number >= words) for number in ids):
        raise InputError(f"got {key}={given!r}, expected token ids from 0 to {words and words - 1}, at least one.")
    return tuple(ids)


def _judged(draft: Draft, asked: Answer) -> None:
    def text_of(ids: tuple[int, ...]) -> str:
        return str(list(ids)) if draft.tokenizer is None else repr(draft.tokenizer.decode(list(ids)))

    kind = "log-odds of the next token" if asked.is_next else "mean log-probability of the answer"
    other = f" against {text_of(asked.against)}" if asked.against else ""
    draft.note("judged", f"{kind}, {text_of(asked.ids)}{other}", "after the last token that is attended")


def _image_tokens(draft: Draft) -> list[int]:
    """Return the ids that hold the place of a picture."""
    ids = parts.ids_in(parts.config_of(draft.model), IMAGE_TOKENS) + parts.ids_in(parts.text_config(draft.model), IMAGE_TOKENS)
    for key in ("image_token_id", "video_token_id", "fake_image_token_id", "image_token_index"):
        ids += [*parts.numbers(getattr(draft.processor, key, None))]
    return list(dict.fromkeys(ids))


def _attention(draft: Draft, tower: str, asked: Answer) -> None:
    model = draft.model
    if tower and "positions" in draft.parts[0].at:
        draft.maps_of("image", parts.self_attention(model, tower))
    if asked.start is not None and hasattr(model, "get_encoder"):  # the prompt is read by the encoder
        modules = parts.self_attention(model, parts.encoder(model))
        draft.maps_of("text", modules, 2 if parts.is_a(model, "T5.*", "MT5.*", "UMT5.*") else 1)
        return
    reader = parts.named(model, "model.language_model", "language_model", "model.text_model", "text_model") or ""
    modules = [name for name in parts.self_attention(model, reader) if not (tower and parts.within(name, tower))]
    # Where patches or an answer stand in the row beside the words, a map is not one of the words.
    alone = asked.start is None and not asked.longest and not parts.is_a(model, "Git.*", "Blip.*", "Blip2.*")
    draft.maps_of("text", modules if alone else [], why="no map is one of the prompt's words alone")


def _question_answering(model: Any, inputs: Inputs) -> Tensor:
    """Return the logits of BLIP's decoder, which its model keeps to itself."""
    kept: list[Tensor] = []
    handle = model.text_decoder.register_forward_hook(lambda module, arguments, output: kept.append(output.logits))
    try:
        model(**{key: value for key, value in inputs.items() if key != "use_cache"})
    finally:
        handle.remove()
    return kept[-1]


# Pictures that the processor cuts


def _flat(draft: Draft, asked: Answer) -> Way:
    """Turn patches of all pictures in a row, (sum of P, D), into pictures (N, C, H, W), and back for the model."""
    vision = parts.picture_config(draft.model)
    side, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    channels: Any = getattr(vision, "in_channels", None) or getattr(vision, "in_chans", 3)
    image = parts.ids_in(parts.config_of(draft.model), "image_token_id")[0]

    def pictures_of(batch: dict[str, Any], _: object) -> dict[str, Any]:
        patches = require_tensor(batch.get("pixel_values"), "pixel_values")
        if patches.ndim == 4:
            return batch
        grids = require_tensor(batch.get("image_grid_thw"), "image_grid_thw")  # (pictures, 3)
        if len(grids) != len(batch["input_ids"]) or "pixel_values_videos" in batch:
            raise InputError(f"got {len(grids)} pictures for {len(batch['input_ids'])} texts, expected one each and no video; "
                             "wrap the model in Called(model, call) for more.")
        time, rows, columns = same_rows(grids, "sizes in image_grid_thw").tolist()
        if time != 1:
            raise InputError(f"image_grid_thw says {time} points in time, expected 1, a picture.")
        cut = patches.reshape(len(grids), rows // merge, columns // merge, merge, merge, channels, frames, side, side)
        pixels = cut[:, :, :, :, :, :, 0].permute(0, 5, 1, 3, 6, 2, 4, 7)  # N, C, then the rows' three parts and the columns'
        rest = {key: value for key, value in batch.items() if key not in ("image_grid_thw", "mm_token_type_ids")}
        return {**rest, "pixel_values": pixels.reshape(len(grids), channels, rows * side, columns * side)}

    def with_patches(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        pixels = inputs["pixel_values"]
        n, _, height, width = pixels.shape
        rows, columns = height // side, width // side
        cut = pixels.reshape(n, channels, rows // merge, merge, side, columns // merge, merge, side)
        cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
        grids = torch.tensor([[1, rows, columns]], device=pixels.device).expand(n, 3)
        return asked(model, {**inputs, "pixel_values": cut.reshape(n * rows * columns, -1), "image_grid_thw": grids})

    def way(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        if parts.takes(model, "mm_token_type_ids"):  # of the ids as they are now, the answer's among them
            inputs = {**inputs, "mm_token_type_ids": (inputs["input_ids"] == image).int()}
        return logits_of(model, inputs)

    asked = replace(asked, way=way)
    draft.steps.append(pictures_of)
    draft.note("  cut", f"patches of {side} x {side} pixels", "Adapted.inputs lays them out as pictures of one size")
    draft.note("  mm_token_type_ids", "made from the ids", "so that they fit when words are deleted")
    return with_patches


def _single(draft: Draft, asked: Answer) -> Way:
    """Take one picture an example, (N, C, H, W), for a model that is given several, (N, 1, C, H, W)."""
    def pictures_of(batch: dict[str, Any], _: object) -> dict[str, Any]:
        pixels = require_tensor(batch.get("pixel_values"), "pixel_values")
        if pixels.ndim == 4:
            return batch
        if pixels.shape[1] != 1:
            raise InputError(f"got {pixels.shape[1]} pictures or crops an example, expected one; pass do_image_splitting=False "
                             "to the processor.")
        return {**batch, "pixel_values": pixels[:, 0]}

    def with_axis(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        pixels = inputs["pixel_values"]
        # A picture of zeros counts as padding and would be left out; the least number above 0 keeps it.
        empty = (pixels == 0).flatten(1).all(dim=1)[:, None, None, None]
        pixels = torch.where(empty, torch.finfo(pixels.dtype).tiny, pixels)
        given = {**inputs, "pixel_values": pixels[:, None]}
        pixel_mask = given.get("pixel_attention_mask")
        if pixel_mask is not None and pixel_mask.ndim == 3:
            given["pixel_attention_mask"] = pixel_mask[:, None]
        return asked(model, given)

    draft.steps.append(pictures_of)
    return with_axis


# The prompt's template


def _template(draft: Draft, arguments: dict[str, Any]) -> None:
    """Keep the prompt's own words in every view, where the caller says what the prompt is without the question."""
    template = draft.choose("template", None)
    if template is None:
        draft.note("template", "none", "template=(before, after) keeps the words round the question in every view")
        return
    if not isinstance(template, (tuple, list)) or len(template) != 2 or any(isinstance(part, int) for part in template):
        raise InputError(f"got template={template!r}, expected what stands before the question and what stands after it, two "
                         "texts or two lists of ids, as in template=('USER: <image>\\n', ' ASSISTANT:').")
    if draft.tokenizer is None and any(isinstance(part, str) for part in template):
        raise InputError("got a template as text and no tokenizer; pass the tokenizer or processor, or the ids.")
    image = set(_image_tokens(draft))
    before, after = (_once(draft.tokenizer(part, add_special_tokens=False).input_ids if isinstance(part, str) else
                           torch.as_tensor(part).flatten().tolist(), image) for part in template)
    special = set(arguments["special"][0])
    arguments["special_mask"] = ("template", "template=(before, after)")
    draft.steps.append(lambda inputs, _: {**inputs, "template": template_mask(inputs, before, after, image, special)})
    draft.note("template", f"{len(before)} tokens before and {len(after)} after the question stay", "your choice")


def _once(ids: list[int], image: set[int]) -> list[int]:
    """Return ids with a run of one image token, as many as it has patches, as a single one."""
    return [number for place, number in enumerate(ids) if number not in image or place == 0 or ids[place - 1] != number]


def template_mask(batch: Inputs, before: list[int], after: list[int], image: set[int], special: set[int]) -> Tensor:
    """Return which tokens are the template's, or padding: bool (N, T). Special tokens may stand in front of it and after it."""
    ids, attended = batch["input_ids"], batch.get("attention_mask")
    mask = torch.ones(ids.shape, dtype=torch.bool)
    for row, numbers in enumerate(ids.tolist()):
        places = [place for place in range(len(numbers)) if attended is None or attended[row, place]]
        places = [place for i, place in enumerate(places)
                  if numbers[place] not in image or i == 0 or numbers[places[i - 1]] != numbers[place]]
        while places and numbers[places[0]] in special - set(before[:1]):
            places = places[1:]
        while places and numbers[places[-1]] in special - set(after[-1:]):
            places = places[:-1]
        prompt, rest = [numbers[place] for place in places], len(places) - len(after)
        if rest <= len(before) or prompt[: len(before)] != before or prompt[rest:] != after:
            raise InputError(f"the prompt of example {row} is {prompt}, expected the template {before} ... {after} with a "
                             "question between; tokenise it as the prompt is, with the space or line break at its ends.")
        mask[row, places[len(before) : rest]] = False
    return mask


FAMILIES = ((_goes_on, _decoder),)
