"""Texts: encoders and decoders with a head that classifies."""

import torch
from torch import Tensor, nn

from benchmarks.studies.zoo import Animal, Example, Words, examples_of, padded

SMALL = dict(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=40,
    num_labels=3,
    pad_token_id=0,
)
TEXTS = [[2, 11, 12, 13, 3], [2, 21, 22, 3]]
EAGER = {"attn_implementation": "eager"}
# family -> class, sizes, embedding, attention modules ({} for the number of the block), what is passed to adapt
ENCODERS = {
    "BERT": ("Bert", {}, "bert.embeddings.word_embeddings", "bert.encoder.layer.{}.attention.self"),
    "RoBERTa": (
        "Roberta",
        dict(bos_token_id=2, eos_token_id=3),
        "roberta.embeddings.word_embeddings",
        "roberta.encoder.layer.{}.attention.self",
    ),
    "XLM-RoBERTa": (
        "XLMRoberta",
        dict(bos_token_id=2, eos_token_id=3),
        "roberta.embeddings.word_embeddings",
        "roberta.encoder.layer.{}.attention.self",
    ),
    "CamemBERT": (
        "Camembert",
        dict(bos_token_id=2, eos_token_id=3),
        "roberta.embeddings.word_embeddings",
        "roberta.encoder.layer.{}.attention.self",
    ),
    "DistilBERT": (
        "DistilBert",
        dict(dim=16, n_layers=2, n_heads=2, hidden_dim=32),
        "distilbert.embeddings.word_embeddings",
        "distilbert.transformer.layer.{}.attention",
    ),
    "DeBERTa": (
        "Deberta",
        dict(relative_attention=True, pos_att_type=["c2p", "p2c"]),
        "deberta.embeddings.word_embeddings",
        "deberta.encoder.layer.{}.attention.self",
    ),
    "DeBERTa-v2 and v3": (
        "DebertaV2",
        dict(relative_attention=True, pos_att_type=["c2p", "p2c"]),
        "deberta.embeddings.word_embeddings",
        "deberta.encoder.layer.{}.attention.self",
    ),
    "ALBERT": (
        "Albert",
        dict(embedding_size=8),
        "albert.embeddings.word_embeddings",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.attention",
    ),
    "ELECTRA": (
        "Electra",
        dict(embedding_size=8),
        "electra.embeddings.word_embeddings",
        "electra.encoder.layer.{}.attention.self",
    ),
    "ModernBERT": (
        "ModernBert",
        dict(cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3),
        "model.embeddings.tok_embeddings",
        "model.layers.{}.attn",
    ),
    "MPNet": (
        "MPNet",
        dict(bos_token_id=2, eos_token_id=3),
        "mpnet.embeddings.word_embeddings",
        "mpnet.encoder.layer.{}.attention.attn",
    ),
    "MobileBERT": (
        "MobileBert",
        dict(embedding_size=16, true_hidden_size=16, intra_bottleneck_size=16),
        "mobilebert.embeddings.word_embeddings",
        "mobilebert.encoder.layer.{}.attention.self",
    ),
    "BigBird (full attention)": (
        "BigBird",
        dict(attention_type="original_full", bos_token_id=2, eos_token_id=3),
        "bert.embeddings.word_embeddings",
        None,
    ),
    "FNet": ("FNet", dict(bos_token_id=2, eos_token_id=3), "fnet.embeddings.word_embeddings", None),
}


def encoder(family: str, pairs: bool = False) -> Animal:
    """Return an encoder with a head; ``pairs`` reads two sentences with segment ids."""
    import transformers

    kind, sizes, embedding, attention = ENCODERS[family]
    sizes = {
        **({} if kind == "DistilBert" else SMALL),
        "vocab_size": 60,
        "max_position_embeddings": 40,
        "num_labels": 3,
        "pad_token_id": 0,
        **sizes,
    }
    torch.manual_seed(len(family))
    config = getattr(transformers, f"{kind}Config")(**sizes, **EAGER)
    model = spread(getattr(transformers, f"{kind}ForSequenceClassification")(config).eval())
    rows = [[2, 11, 12, 3, 31, 32, 3], [2, 21, 3, 33, 3]] if pairs else TEXTS
    if kind in ("MobileBert", "FNet"):  # which mix each word with others, padding too
        rows = [TEXTS[0], [2, 21, 22, 23, 3]]
    ids, mask = padded(rows)
    batch, along = {"input_ids": ids, "attention_mask": mask}, {}
    if pairs:
        along = {"token_type_ids": [[0] * 4 + [1] * 3, [0] * 3 + [1] * 2]}
        batch["token_type_ids"] = padded(along["token_type_ids"])[0]
    if kind == "FNet":  # takes no attention mask
        batch.pop("attention_mask")
    choices = {"special": (2, 3), "mask_id": 4, "pad_id": 0}
    layers = [attention.format(i) for i in range(2)] if attention else []
    asks = kind in ("Deberta", "DebertaV2", "MPNet")

    def logits(model: nn.Module, one: Example) -> Tensor:
        return model(**one, **({"output_attentions": True} if asks else {})).logits[0]

    side = Words(embedding=embedding, along=tuple(along), attention=None if kind == "FNet" else "attention_mask")
    return Animal(
        f"{family}, sentence pairs" if pairs else family,
        "texts",
        model,
        batch,
        examples_of(batch, rows, attention=side.attention, **along),
        logits,
        [side],
        choices,
        attention={"text": (layers, 1)} if layers and kind != "Albert" else {},
    )


def spread(model: nn.Module, size: float = 0.3) -> nn.Module:
    """Return a frozen model with weights so large that masks and gradients move its logits by more than rounding."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += noise * (size / parameter.shape[-1] ** 0.25 if parameter.ndim > 1 else size / 10)
    return model.requires_grad_(False)


def of_decoders(family: str, how: str = "delete") -> Animal:
    """Return a decoder with a head that reads its last word."""
    import transformers

    torch.manual_seed(3)
    if family == "GPT-2":
        config = transformers.GPT2Config(
            vocab_size=60,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=40,
            num_labels=3,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            **EAGER,
        )
        model, embedding, attention = (
            transformers.GPT2ForSequenceClassification(config),
            "transformer.wte",
            "transformer.h.{}.attn",
        )
    else:
        config = transformers.LlamaConfig(**SMALL, bos_token_id=2, eos_token_id=3, num_key_value_heads=2, **EAGER)
        model, embedding = transformers.LlamaForSequenceClassification(config), "model.embed_tokens"
        attention = "model.layers.{}.self_attn"
    model = spread(model.eval())
    rows = [[2, 11, 12, 13], [2, 21, 22]]
    ids, mask = padded(rows)
    batch = {"input_ids": ids, "attention_mask": mask}
    side = Words(stay=(2, 3), embedding=embedding, how=how, mask_id=None)
    return Animal(
        f"{family} classifier",
        "texts",
        model,
        batch,
        examples_of(batch, rows),
        lambda model, one: model(**one).logits[0],
        [side],
        attention={"text": ([attention.format(i) for i in range(2)], 1)},
    )


def xlnet() -> Animal:
    """Return XLNet, padded in front and with its class token at the end."""
    import transformers

    torch.manual_seed(4)
    config = transformers.XLNetConfig(
        vocab_size=60,
        d_model=16,
        n_layer=2,
        n_head=2,
        d_inner=32,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = spread(transformers.XLNetForSequenceClassification(config).eval(), 0.1)
    rows = [[11, 12, 13, 2, 3], [21, 22, 2, 3]]
    ids, mask = padded(rows, side="left")
    batch = {"input_ids": ids, "attention_mask": mask}
    side = Words(stay=(2, 3), embedding="transformer.word_embedding", axes="TND", mask_id=4)
    return Animal(
        "XLNet",
        "texts",
        model,
        batch,
        examples_of(batch, rows),
        lambda model, one: model(**one).logits[0],
        [side],
        {"special": (2, 3), "mask_id": 4, "pad_id": 0},
    )


def encoder_decoder(family: str) -> Animal:
    """Return T5 or BART, whose decoder reads the words once more."""
    import transformers

    torch.manual_seed(5)
    if family == "T5":
        config = transformers.T5Config(
            vocab_size=60,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            num_labels=3,
            decoder_start_token_id=0,
            eos_token_id=3,
            pad_token_id=0,
            **EAGER,
        )
        model, embedding = transformers.T5ForSequenceClassification(config), "transformer.encoder.embed_tokens"
        attention = ([f"transformer.encoder.block.{i}.layer.0.SelfAttention" for i in range(2)], 2)
    else:
        config = transformers.BartConfig(
            vocab_size=60,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_labels=3,
            max_position_embeddings=40,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=3,
            **EAGER,
        )
        model, embedding = transformers.BartForSequenceClassification(config), "model.encoder.embed_tokens"
        attention = ([f"model.encoder.layers.{i}.self_attn" for i in range(2)], 1)
    model = spread(model.eval(), 0.1)
    rows = [[11, 12, 13, 3], [21, 22, 3]]
    ids, mask = padded(rows)
    batch = {"input_ids": ids, "attention_mask": mask}
    side = Words(stay=(2, 3), embedding=embedding, mask_id=4)
    return Animal(
        f"{family} classifier",
        "texts",
        model,
        batch,
        examples_of(batch, rows),
        lambda model, one: model(**one).logits[0],
        [side],
        {"special": (2, 3), "mask_id": 4},
        attention={"text": attention},
    )


ANIMALS = {
    **{family: (lambda family=family: encoder(family)) for family in ENCODERS},
    "BERT, sentence pairs": lambda: encoder("BERT", pairs=True),
    "ELECTRA, sentence pairs": lambda: encoder("ELECTRA", pairs=True),
    "XLNet": xlnet,
    **{f"{family} classifier": (lambda family=family: of_decoders(family)) for family in ("GPT-2", "Llama")},
    **{f"{family} classifier": (lambda family=family: encoder_decoder(family)) for family in ("T5", "BART")},
}
