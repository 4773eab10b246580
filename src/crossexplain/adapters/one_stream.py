"""One stream and cross-attention: models in which words and a picture meet inside, with a head that classifies the pair."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from crossexplain.adapters import parts
from crossexplain.adapters.draft import Adapted, Draft, picture
from crossexplain.adapters.pictures import deep
from crossexplain.checks import InputError
from crossexplain.gradients.modalities import Inputs, Vectors


def _vilt(draft: Draft) -> Adapted:
    """ViLT puts the patches in a random order before its first block: the last layer with known places is the patches' own."""
    draft.words(layer=parts.named(draft.model, "vilt.embeddings.text_embeddings.word_embeddings"))
    projection = parts.named(draft.model, "vilt.embeddings.patch_embeddings.projection")
    picture(draft, "pixel_values", projection, {"layout": "NCHW"})
    draft.note("judged", "the logits", "the model's own output")
    draft.note("attention", "none", "the patches are in another order at each pass")
    return draft.finish("one stream of words and patches")


def _visual_bert(draft: Draft) -> Adapted:
    draft.words(layer=parts.named(draft.model, "visual_bert.embeddings.word_embeddings"))
    draft.add(Vectors, "image", input=("visual_embeds", "model's forward(): vectors of regions"),
              attention=("visual_attention_mask" if _given(draft, "visual_attention_mask") else None, "model's forward()"))
    draft.note("judged", "the logits", "the model's own output")
    draft.note("attention", "none", "one map holds words and regions")
    return draft.finish("one stream of words and regions")


def _given(draft: Draft, key: str) -> bool:
    return draft.given is not None and key in draft.given


def _bridge_tower(draft: Draft) -> Adapted:
    draft.output = draft.choose("output", "logits")
    draft.words(layer=parts.named(draft.model, "bridgetower.text_model.embeddings.word_embeddings"))
    patches = next((name for name, module in draft.model.named_modules() if isinstance(module, nn.Conv2d)), None)
    picture(draft, "pixel_values", patches, {"layout": "NCHW"})
    draft.note("judged", "the logits", "output.logits: does the text fit?")
    draft.maps_of("text", [], why="words and patches look at each other between the maps")
    return draft.finish("two towers with bridges")


def flava_match(model: Any, inputs: Inputs) -> Tensor:
    """Return FLAVA's two logits of a match, (N, 2), without the other pass, which reconstructs what is masked."""
    joint = model.flava(**inputs).multimodal_embeddings
    if joint is None:
        raise InputError("FLAVA gave no joint embeddings; pass pictures and texts both.")
    logits: Tensor = model.itm_head(joint)
    return logits


def _flava(draft: Draft) -> Adapted:
    draft.call = draft.choose("call", flava_match)
    draft.words(layer=parts.named(draft.model, "flava.text_model.embeddings.word_embeddings"))
    layer, at = deep(draft.model, "flava.image_model")
    picture(draft, "pixel_values", layer, at)
    draft.note("judged", "both logits of the match", "itm_head of the joint encoder")
    draft.note("attention", "none", "the modalities meet in one map")
    return draft.finish("two encoders and a joint one")


def _lxmert(draft: Draft) -> Adapted:
    key = "question_answering_score" if parts.is_a(draft.model, ".*QuestionAnswering") else "cross_relationship_score"
    draft.output = draft.choose("output", key)
    draft.words(layer=parts.named(draft.model, "lxmert.embeddings.word_embeddings"))
    draft.add(Vectors, "image", input=("visual_feats", "model's forward(): vectors of a detector's boxes"),
              attention=("visual_attention_mask" if _given(draft, "visual_attention_mask") else None, "model's forward()"),
              stay=(("visual_pos",), "where the boxes are"))
    draft.note("judged", f"output.{key}", "the head of the class")
    draft.maps_of("text", [], why="words and boxes look at each other between the maps")
    return draft.finish("words and boxes with cross-attention")


def _blip_match(draft: Draft) -> Adapted:
    head = draft.choose("use_itm_head", True)
    if not head:
        draft.call = lambda model, inputs: model(**{**inputs, "use_itm_head": False})
    draft.output = draft.choose("output", "itm_score" if head else blip_similarity)
    draft.words(layer=parts.named(draft.model, "text_encoder.embeddings.word_embeddings"))
    layer, at = deep(draft.model, "vision_model")
    picture(draft, "pixel_values", layer, at)
    draft.note("judged", "both logits of the match" if head else "each pair's own cosine", "output.itm_score")
    draft.maps_of("image", parts.self_attention(draft.model, "vision_model"))
    draft.maps_of("text", parts.self_attention(draft.model, "text_encoder"))
    return draft.finish("words that look at a picture by cross-attention")


def blip_similarity(output: Any) -> Tensor:
    """Return the cosine of each pair, (N,), of BLIP without its head for the match."""
    scores: Tensor = output.itm_score
    return scores.diagonal() if scores.shape[0] == scores.shape[1] else scores[:, 0]


def _flava_without_head(draft: Draft) -> Adapted:
    raise InputError("FlavaModel gives vectors and no logits; use FlavaForPreTraining, whose head says whether text and "
                     "picture match, or put your own on it, Called(model, output=lambda output: "
                     "head(output.multimodal_embeddings[:, 0])), and pass that with the modalities.")


def _is(*patterns: str) -> Callable[[nn.Module], bool]:
    return lambda model: parts.is_a(model, *patterns)


FAMILIES = (
    (_is(r"ViltFor(QuestionAnswering|ImageAndTextRetrieval)"), _vilt),
    (_is(r"VisualBertFor(QuestionAnswering|VisualReasoning)"), _visual_bert),
    (_is("BridgeTowerForImageAndTextRetrieval"), _bridge_tower),
    (_is("FlavaForPreTraining"), _flava), (_is("FlavaModel"), _flava_without_head),
    (_is(r"LxmertFor(QuestionAnswering|PreTraining)"), _lxmert),
    (_is("BlipForImageTextRetrieval"), _blip_match),
)
