"""Models that go on with a text: what is judged is an answer."""

import torch
from torch import Tensor, nn

from benchmarks.studies.zoo import Animal, Cells, Example, Words, examples_of, padded
from benchmarks.studies.zoo.texts import EAGER, spread

IMAGE, YES, NO = 50, 30, 31
TEXT = dict(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
VISION = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
)
CLIP, SIGLIP = (
    dict(model_type="clip_vision_model", projection_dim=16),
    dict(model_type="siglip_vision_model", vision_use_head=False),
)
MROPE = dict(rope_type="default", mrope_section=[1, 1, 2])
LLAMA = dict(model_type="llama")
QWEN = dict(depth=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2, num_heads=2)
EXTRA = dict(image_token_id=IMAGE, video_token_id=51, vision_start_token_id=52, vision_end_token_id=53)
TOWER = ("model.vision_model.encoder.layers.0", (0, 2, 2))
EMBED = "model.language_model.embed_tokens"
# family -> class, configuration, tokens of a picture, embedding, layer for maps, modules of the words' attention
MODELS = {
    "LLaVA": (
        "Llava",
        dict(text_config=TEXT | LLAMA, vision_config=VISION | CLIP, image_token_index=IMAGE, vision_feature_layer=-1),
        4,
        EMBED,
        ("model.vision_tower.encoder.layers.0", (1, 2, 2)),
        "model.language_model.layers.{}.self_attn",
    ),
    "PaliGemma": (
        "PaliGemma",
        dict(
            text_config=TEXT | dict(model_type="gemma", head_dim=8),
            vision_config=VISION | SIGLIP,
            image_token_index=IMAGE,
            projection_dim=16,
        ),
        4,
        EMBED,
        ("model.vision_tower.encoder.layers.0", (0, 2, 2)),
        "model.language_model.layers.{}.self_attn",
    ),
    "Gemma 3": (
        "Gemma3",
        dict(
            text_config=TEXT | dict(head_dim=8, sliding_window=16),
            vision_config=VISION,
            image_token_id=IMAGE,
            mm_tokens_per_image=4,
        ),
        4,
        EMBED,
        ("model.vision_tower.encoder.layers.0", (0, 2, 2)),
        None,
    ),
    "Qwen2-VL": (
        "Qwen2VL",
        dict(
            text_config=TEXT | dict(rope_scaling=MROPE | dict(type="mrope")),
            vision_config=QWEN | dict(embed_dim=16, hidden_size=16, mlp_ratio=2),
            **EXTRA,
        ),
        4,
        EMBED,
        None,
        "model.language_model.layers.{}.self_attn",
    ),
    "Qwen2.5-VL": (
        "Qwen2_5_VL",
        dict(
            text_config=TEXT | dict(rope_scaling=MROPE | dict(type="mrope")),
            vision_config=QWEN
            | dict(hidden_size=16, out_hidden_size=16, intermediate_size=32, window_size=16, fullatt_block_indexes=[1]),
            **EXTRA,
        ),
        4,
        EMBED,
        None,
        "model.language_model.layers.{}.self_attn",
    ),
    "Qwen3-VL": (
        "Qwen3VL",
        dict(
            text_config=TEXT | dict(head_dim=8, rope_scaling=MROPE),
            vision_config=QWEN
            | dict(
                hidden_size=16,
                out_hidden_size=16,
                intermediate_size=32,
                num_position_embeddings=16,
                deepstack_visual_indexes=[0],
            ),
            **EXTRA,
        ),
        4,
        EMBED,
        None,
        "model.language_model.layers.{}.self_attn",
    ),
    "Idefics2": (
        "Idefics2",
        dict(
            text_config=TEXT | dict(model_type="mistral"),
            vision_config=VISION,
            perceiver_config=dict(
                resampler_n_latents=4,
                resampler_depth=1,
                resampler_n_heads=2,
                resampler_head_dim=8,
                num_key_value_heads=1,
                hidden_size=16,
            ),
            image_token_id=IMAGE,
        ),
        4,
        "model.text_model.embed_tokens",
        TOWER,
        "model.text_model.layers.{}.self_attn",
    ),
    "Idefics3": (
        "Idefics3",
        dict(text_config=TEXT | LLAMA, vision_config=VISION, scale_factor=2, image_token_id=IMAGE),
        1,
        "model.text_model.embed_tokens",
        TOWER,
        "model.text_model.layers.{}.self_attn",
    ),
    "SmolVLM": (
        "SmolVLM",
        dict(text_config=TEXT | LLAMA, vision_config=VISION, scale_factor=2, image_token_id=IMAGE),
        1,
        "model.text_model.embed_tokens",
        TOWER,
        "model.text_model.layers.{}.self_attn",
    ),
    "InternVL": (
        "InternVL",
        dict(
            text_config=TEXT | dict(model_type="qwen2"),
            vision_config=VISION | dict(image_size=[16, 16], patch_size=[8, 8]),
            image_token_id=IMAGE,
        ),
        1,
        EMBED,
        ("model.vision_tower.encoder.layer.0", (1, 2, 2)),
        "model.language_model.layers.{}.self_attn",
    ),
    "BLIP-2": (
        "Blip2",
        dict(
            text_config=dict(
                model_type="opt",
                vocab_size=64,
                hidden_size=16,
                ffn_dim=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=64,
                word_embed_proj_dim=16,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            ),
            vision_config=VISION,
            qformer_config=dict(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                encoder_hidden_size=16,
                vocab_size=60,
            ),
            num_query_tokens=3,
            image_token_index=IMAGE,
        ),
        3,
        "language_model.model.decoder.embed_tokens",
        ("vision_model.encoder.layers.0", (1, 2, 2)),
        None,
    ),
}


def flat(picture: Tensor, side: int = 4, merge: int = 2, frames: int = 2) -> Tensor:
    """Return the patches of a picture (C, H, W) as Qwen's processor orders them: by blocks of merge x merge."""
    rows, columns = picture.shape[1] // side, picture.shape[2] // side
    listed = []
    for i in range(0, rows, merge):
        for j in range(0, columns, merge):
            for di in range(merge):
                for dj in range(merge):
                    top, left = (i + di) * side, (j + dj) * side
                    cut = picture[:, top : top + side, left : left + side]  # (C, side, side)
                    listed.append(torch.stack([cut] * frames, dim=1).reshape(-1))
    return torch.stack(listed)


def with_pictures(
    family: str, answer: tuple[int, ...] = (YES,), against: tuple[int, ...] = (), padding: str = "right"
) -> Animal:
    """Return a model that sees a picture and goes on with a prompt."""
    import transformers

    kind, sizes, tokens, embedding, maps, attention = MODELS[family]
    torch.manual_seed(len(family))
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(getattr(transformers, f"{kind}Config")(**sizes))
    model.set_attn_implementation("eager")
    model = spread(model.eval(), 0.1)
    rows = [[1] + [IMAGE] * tokens + [11, 12, 13], [1] + [IMAGE] * tokens + [21, 22]]
    ids, mask = padded(rows, side=padding)
    is_qwen, has_axis = kind.startswith("Qwen"), kind in ("Idefics2", "Idefics3", "SmolVLM")
    pixels = torch.rand(2, 3, 16, 16)
    batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
    if is_qwen:
        batch |= {
            "pixel_values": torch.cat([flat(one) for one in pixels]),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * 2),
            "mm_token_type_ids": (ids == IMAGE).int(),
        }
    if has_axis:
        batch |= {"pixel_values": pixels[:, None], "pixel_attention_mask": torch.ones(2, 1, 16, 16, dtype=torch.long)}
    if kind == "PaliGemma":
        batch["token_type_ids"] = torch.zeros_like(ids)
    if kind == "Gemma3":
        batch["token_type_ids"] = (ids == IMAGE).long()
    plain = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
    examples = examples_of(plain, rows)

    def scores(model: nn.Module, one: Example) -> Tensor:
        given = dict(one)
        if is_qwen:
            given |= {
                "pixel_values": flat(one["pixel_values"][0]),
                "image_grid_thw": torch.tensor([[1, 4, 4]]),
                "mm_token_type_ids": (one["input_ids"] == IMAGE).int(),
            }
        if has_axis:  # a picture of zeros would be taken for padding
            given["pixel_values"] = one["pixel_values"][:, None] + 1e-30
        if kind in ("PaliGemma", "Gemma3"):
            prompt = torch.arange(one["input_ids"].shape[1]) < one["input_ids"].shape[1] - one.get("more", 0)
            given["token_type_ids"] = (
                (~prompt[None]).long() if kind == "PaliGemma" else (one["input_ids"] == IMAGE).long()
            )
        given.pop("more", None)
        return model(**given).logits[0].float()

    return _answered(
        family,
        model,
        batch,
        examples,
        scores,
        answer,
        against,
        [Cells("image", "pixel_values", (1, 2)), Words(stay=(1, IMAGE), embedding=embedding, how="delete")],
        maps if len(answer) == 1 else None,
        attention,
    )


def _answered(
    family: str,
    model: nn.Module,
    batch: dict,
    examples: list,
    scores,
    answer: tuple,
    against: tuple,
    sides: list,
    maps,
    attention: str | None,
    kind: str = "decoders",
) -> Animal:
    def logits(model: nn.Module, one: Example) -> Tensor:
        if len(answer) == 1:
            after = scores(model, one)[-1]
            if against:
                return (after[answer[0]] - after[against[0]])[None]
            share = after.softmax(dim=0)[answer[0]]
            return (share.log() - (1 - share).log())[None]
        ids = torch.cat([one["input_ids"], torch.tensor([answer])], dim=1)
        longer = {**one, "input_ids": ids, "attention_mask": torch.ones_like(ids), "more": len(answer)}
        said = scores(model, longer).log_softmax(dim=1)
        first = one["input_ids"].shape[1] - 1
        return torch.stack([said[first + i, number] for i, number in enumerate(answer)]).mean()[None]

    choices = {"answer": list(answer) if len(answer) > 1 else answer[0]}
    if against:
        choices["against"] = against[0]
    # These models have no [MASK], and the first baseline is the padding, which is not attended.
    words = sides[-1]
    sides = [*sides[:-1], Words(**{**vars(words), "how": "delete"})]
    layers = {"text": ([attention.format(i) for i in range(2)], 1)} if attention and len(answer) == 1 else {}
    return Animal(
        family, kind, model, batch, examples, logits, sides, choices, positive=not against, maps=maps, attention=layers
    )


def text_only(family: str, answer: tuple[int, ...] = (YES,), padding: str = "left") -> Animal:
    """Return a language model, padded in front as for generation."""
    import transformers

    torch.manual_seed(8)
    if family == "GPT-2":
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=64,
                n_embd=16,
                n_layer=2,
                n_head=2,
                n_positions=40,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                **EAGER,
            )
        )
        embedding, attention = "transformer.wte", "transformer.h.{}.attn"
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, **EAGER))
        embedding, attention = "model.embed_tokens", "model.layers.{}.self_attn"
    rows = [[1, 11, 12, 13], [1, 21, 22]]
    ids, mask = padded(rows, side=padding)
    batch = {"input_ids": ids, "attention_mask": mask}

    def scores(model: nn.Module, one: Example) -> Tensor:
        return model(**{key: value for key, value in one.items() if key != "more"}).logits[0].float()

    return _answered(
        f"{family} (goes on)",
        spread(model.eval(), 0.1),
        batch,
        examples_of(batch, rows),
        scores,
        answer,
        (),
        [Words(stay=(1, 2), embedding=embedding)],
        None,
        attention,
    )


def git(answer: tuple[int, ...] = (YES,)) -> Animal:
    """Return GIT, which puts the picture's patches before the words."""
    import transformers

    torch.manual_seed(6)
    config = transformers.GitConfig(
        vision_config=VISION,
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = spread(transformers.GitForCausalLM(config).eval(), 0.1)
    rows = [[1, 11, 12, 13], [1, 21, 22]]
    ids, mask = padded(rows)
    batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.rand(2, 3, 16, 16)}

    def scores(model: nn.Module, one: Example) -> Tensor:
        return model(**{key: value for key, value in one.items() if key != "more"}).logits[0].float()

    return _answered(
        "GIT",
        model,
        batch,
        examples_of(batch, rows),
        scores,
        answer,
        (),
        [Cells("image", "pixel_values", (1, 2)), Words(stay=(1, 2), embedding="git.embeddings.word_embeddings")],
        ("git.image_encoder.vision_model.encoder.layers.0", (1, 2, 2)),
        None,
    )


def blip(head: str, answer: tuple[int, ...] = (YES,)) -> Animal:
    """Return BLIP that captions, or that answers questions through a decoder of its own."""
    import transformers

    torch.manual_seed(7)
    text = dict(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=0,
        max_position_embeddings=40,
        bos_token_id=1,
        sep_token_id=2,
        encoder_hidden_size=16,
        projection_dim=16,
    )
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    model = getattr(transformers, f"BlipFor{head}")(config)
    model = spread(model.eval(), 0.1)
    # The decoder that answers attends to padding, whatever the mask says, in the version of transformers at hand (5.24).
    rows = [[1, 11, 12, 13], [1, 21, 22, 23] if head == "QuestionAnswering" else [1, 21, 22]]
    ids, mask = padded(rows)
    batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.rand(2, 3, 16, 16)}
    maps = ("vision_model.encoder.layers.0", (1, 2, 2))
    if head == "ConditionalGeneration":

        def scores(model: nn.Module, one: Example) -> Tensor:
            return model(**{key: value for key, value in one.items() if key != "more"}).logits[0].float()

        return _answered(
            "BLIP (captions)",
            model,
            batch,
            examples_of(batch, rows),
            scores,
            answer,
            (),
            [
                Cells("image", "pixel_values", (1, 2)),
                Words(stay=(1, 2), embedding="text_decoder.bert.embeddings.word_embeddings"),
            ],
            maps,
            None,
        )

    def after_question(model: nn.Module, one: Example) -> Tensor:
        pictures = model.vision_model(pixel_values=one["pixel_values"])[0]
        question = model.text_encoder(
            input_ids=one["input_ids"],
            attention_mask=one["attention_mask"],
            encoder_hidden_states=pictures,
            encoder_attention_mask=torch.ones(pictures.shape[:2], dtype=torch.long),
        )[0]
        said = (
            model.text_decoder(
                input_ids=torch.tensor([[1, *answer[:-1]]]),
                encoder_hidden_states=question,
                encoder_attention_mask=one["attention_mask"],
            )
            .logits[0]
            .log_softmax(dim=1)
        )
        value = torch.stack([said[i, number] for i, number in enumerate(answer)]).mean()
        return (value if len(answer) > 1 else value - (1 - value.exp()).log())[None]

    return Animal(
        "BLIP (VQA)",
        "decoders",
        model,
        batch,
        examples_of(batch, rows),
        after_question,
        [
            Cells("image", "pixel_values", (1, 2)),
            Words(stay=(1, 2), embedding="text_encoder.embeddings.word_embeddings", how="pad"),
        ],
        {"answer": list(answer), "start": 1},
        positive=True,
        maps=maps,
    )


def t5(answer: tuple[int, ...] = (YES, 33)) -> Animal:
    """Return T5 that goes on with a text, through its decoder."""
    import transformers

    torch.manual_seed(5)
    config = transformers.T5Config(
        vocab_size=64,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        eos_token_id=3,
        pad_token_id=0,
        **EAGER,
    )
    model = spread(transformers.T5ForConditionalGeneration(config).eval(), 0.1)
    rows = [[11, 12, 13, 3], [21, 22, 3]]
    ids, mask = padded(rows)
    batch = {"input_ids": ids, "attention_mask": mask}

    def logits(model: nn.Module, one: Example) -> Tensor:
        said = model(**one, decoder_input_ids=torch.tensor([[0, *answer[:-1]]])).logits[0].log_softmax(dim=1)
        return torch.stack([said[i, number] for i, number in enumerate(answer)]).mean()[None]

    side = Words(stay=(3,), embedding="encoder.embed_tokens", how="delete", mask_id=None)
    return Animal(
        "T5 (goes on)",
        "decoders",
        model,
        batch,
        examples_of(batch, rows),
        logits,
        [side],
        {"answer": list(answer)},
        positive=True,
    )


ANIMALS = {
    **{family: (lambda family=family: with_pictures(family)) for family in MODELS},
    "GIT": git,
    "BLIP (captions)": lambda: blip("ConditionalGeneration"),
    "BLIP (VQA)": lambda: blip("QuestionAnswering"),
    **{f"{family} (goes on)": (lambda family=family: text_only(family)) for family in ("GPT-2", "Llama")},
    "T5 (goes on)": t5,
}
