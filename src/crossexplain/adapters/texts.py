"""Texts: encoders and decoders with a head that classifies, and sentence pairs."""

from torch import nn

from crossexplain.adapters import parts
from crossexplain.adapters.draft import NO_ATTENTION, Adapted, Draft, picture
from crossexplain.adapters.pictures import require_one_target
from crossexplain.checks import InputError

DECODERS = "GPT.*", "Llama.*", "Mistral.*", "Mixtral.*", "Qwen.*", "Gemma.*", "Phi.*", "OPT.*", "Falcon.*", "Bloom.*", "CTRL.*"


def _is_classifier(model: nn.Module) -> bool:
    heads = r".*For(SequenceClassification|NextSentencePrediction)|.*(DoubleHeads|WithLMHead)Model"
    return parts.is_a(model, heads) and "input_ids" in parts.keywords(model)


def _classifier(draft: Draft) -> Adapted:
    model = draft.model
    config = parts.config_of(model)
    if parts.is_a(model, *DECODERS) and getattr(config, "pad_token_id", None) is None:
        raise InputError(f"{type(model).__name__} finds the end of a text by the padding's id, and its configuration has none; "
                         "set model.config.pad_token_id (and model.config.get_text_config().pad_token_id) to the tokenizer's.")
    layer = parts.word_embedding(model)
    if parts.is_a(model, "XLNet.*"):  # pads on the left, and lays the sequence before the batch
        draft.words(layer=layer, layout=("TND", "XLNet's layers"), padding_side=("left", "XLNet is padded in front"))
    else:
        draft.words(layer=layer)
    if getattr(config, "is_encoder_decoder", False):
        draft.note("  note", "the encoder's reading", "the decoder embeds the words once more; a mask hides them from both")
    if "pixel_values" in parts.keywords(model):  # a page with its words
        picture(draft, "pixel_values")
    _attention(draft)
    require_one_target(draft)
    return draft.finish("a classifier of texts")


def _attention(draft: Draft) -> None:
    """Name the self-attention modules of the part that reads the words."""
    model, config = draft.model, parts.config_of(draft.model)
    tower = ""
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
        tower = parts.encoder(model)
    modules = parts.self_attention(model, tower)
    if parts.is_a(model, "Albert.*"):  # one block, called again and again
        modules = [f"{module}@{call}" for module in modules for call in range(config.num_hidden_layers // len(modules))] \
            if getattr(config, "num_hidden_groups", 1) == 1 and getattr(config, "inner_group_num", 1) == 1 else []
    pooled = parts.is_a(model, "Funnel.*", "Longformer.*", "BigBird.*", "Reformer.*", "Nystromformer.*", "Yoso.*", "Mra.*")
    why = "its maps are not of every word with every word" if modules and pooled else NO_ATTENTION
    draft.maps_of("text", [] if pooled else modules, 2 if parts.is_a(model, "T5.*", "MT5.*", "Luke.*") else 1, why)


FAMILIES = ((_is_classifier, _classifier),)
