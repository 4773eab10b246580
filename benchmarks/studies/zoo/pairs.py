"""Words and pictures: dual encoders, one stream, cross-attention."""

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.studies.zoo import Animal, Cells, Example, Rows, Words, examples_of, padded
from benchmarks.studies.zoo.texts import spread

SIDE, GRID = 32, (1, 2)  # cells of a picture: few, so that all sets of cells and words can be asked for one by one
TEXT = dict(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=20,
    pad_token_id=0,
)
VISION = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIDE, patch_size=8
)
ENDS = dict(bos_token_id=2, eos_token_id=3)
ROWS = [[2, 11, 12, 13, 3], [2, 21, 22, 3]]
TOKEN, WORD = "text_model.embeddings.token_embedding", "text_model.embeddings.word_embeddings"
TOWER = ("vision_model.encoder.layers.{}.self_attn", "text_model.encoder.layers.{}.self_attn")
BERTS = ("vision_model.encoder.layers.{}.self_attn", "text_model.encoder.layer.{}.attention.self")
CLIP_MAP = ("vision_model.encoder.layers.0", (1, 4, 4))
# family -> class, configuration, embedding, what is passed to adapt, layer for maps, attention modules of picture and text
DUAL = {
    "CLIP": (
        "CLIP",
        dict(text_config=TEXT | ENDS, vision_config=VISION, projection_dim=16),
        TOKEN,
        {},
        CLIP_MAP,
        TOWER,
    ),
    "SigLIP": (
        "Siglip",
        dict(text_config=TEXT | ENDS, vision_config=VISION),
        TOKEN,
        {},
        ("vision_model.encoder.layers.0", (0, 4, 4)),
        TOWER,
    ),
    "MetaCLIP 2": (
        "MetaClip2",
        dict(text_config=TEXT | ENDS, vision_config=VISION, projection_dim=16),
        TOKEN,
        {},
        CLIP_MAP,
        TOWER,
    ),
    "CLIPSeg's pairs": (
        "CLIPSeg",
        dict(text_config=TEXT | ENDS, vision_config=VISION, projection_dim=16),
        TOKEN,
        {},
        CLIP_MAP,
        TOWER,
    ),
    "ALIGN": (
        "Align",
        dict(
            text_config=TEXT,
            vision_config=dict(width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=16, image_size=64),
            projection_dim=32,
        ),
        WORD,
        {"special": (2, 3), "mask_id": 4},
        ("vision_model.encoder.blocks.6", "NCHW"),
        (None, BERTS[1]),
    ),
    "AltCLIP": (
        "AltCLIP",
        dict(text_config=TEXT | ENDS | dict(project_dim=16), vision_config=VISION, projection_dim=16),
        "text_model.roberta.embeddings.word_embeddings",
        {"mask_id": 4},
        CLIP_MAP,
        None,
    ),
    "Chinese-CLIP": (
        "ChineseCLIP",
        dict(text_config=TEXT, vision_config=VISION, projection_dim=16),
        WORD,
        {"special": (2, 3), "mask_id": 4},
        CLIP_MAP,
        BERTS,
    ),
    "BLIP's pairs": (
        "Blip",
        dict(
            text_config=TEXT | dict(bos_token_id=2, sep_token_id=3, encoder_hidden_size=16, projection_dim=16),
            vision_config=VISION,
            projection_dim=16,
        ),
        WORD,
        {"mask_id": 4, "special": (2, 3)},
        CLIP_MAP,
        BERTS,
    ),
    "GroupViT": (
        "GroupViT",
        dict(
            text_config=TEXT | ENDS,
            vision_config=VISION | dict(depths=[1, 1, 1], num_group_tokens=[4, 2, 0], num_output_groups=[4, 2, 0]),
        ),
        TOKEN,
        {},
        ("vision_model.embeddings.patch_embeddings.projection", "NCHW"),
        None,
    ),
    "ViT and BERT (VisionTextDualEncoder)": (
        "VisionTextDualEncoder",
        dict(
            text_config=TEXT | dict(model_type="bert"), vision_config=VISION | dict(model_type="vit"), projection_dim=16
        ),
        WORD,
        {"special": (2, 3), "mask_id": 4},
        ("vision_model.layers.0", (1, 4, 4)),
        None,
    ),
}


def dual(family: str) -> Animal:
    """Return a dual encoder of transformers; of one pair the similarities are one number."""
    import transformers

    kind, sizes, embedding, choices, maps, attention = DUAL[family]
    torch.manual_seed(len(family))
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    model.set_attn_implementation("eager")
    model = spread(model.eval(), 0.1)
    ids, mask = padded(ROWS)
    side = 64 if kind == "Align" else SIDE
    batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.rand(2, 3, side, side)}
    examples = examples_of(batch, ROWS)
    if kind == "Siglip":  # its processor gives no mask: the padding is read, and the last place is what is compared
        batch.pop("attention_mask")
        examples = examples_of(batch, None)
    masks = "mask_id" in choices
    words = Words(
        embedding=embedding,
        how="mask" if masks else "pad",
        attention=None if kind == "Siglip" else "attention_mask",
        stay=(0, 2, 3) if kind == "Siglip" else (2, 3),
    )
    layers = {
        name: ([path.format(i) for i in range(2)], 1, *((maps[1][0],) if name == "image" else ()))
        for name, path in zip(("image", "text"), attention or ())
        if path
    }
    return Animal(
        family,
        "dual encoders",
        model,
        batch,
        examples,
        lambda model, one: model(**one).logits_per_image[0],
        [Cells("image", "pixel_values", GRID), words],
        choices,
        maps=maps,
        attention=layers,
    )


def siglip2() -> Animal:
    """Return SigLIP 2 with pictures cut into patches by its processor."""
    import transformers

    torch.manual_seed(9)
    config = transformers.Siglip2Config(
        text_config=TEXT | ENDS,
        vision_config=dict(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            patch_size=8,
            num_patches=16,
        ),
    )
    model = spread(transformers.Siglip2Model(config).eval(), 0.1)
    model.set_attn_implementation("eager")
    pixels = torch.rand(2, 3, 16, 32)
    ids = torch.tensor([[2, 11, 12, 13, 3], [2, 21, 22, 3, 0]])
    room = 12  # places for patches, of which 8 are filled
    batch = {
        "input_ids": ids,
        "pixel_values": nn.functional.pad(torch.stack([patches(one, 8) for one in pixels]), (0, 0, 0, room - 8)),
        "pixel_attention_mask": torch.tensor([[1] * 8 + [0] * 4] * 2),
        "spatial_shapes": torch.tensor([[2, 4]] * 2),
    }
    examples = [{"input_ids": ids[i : i + 1], "pixel_values": pixels[i : i + 1]} for i in range(2)]

    def logits(model: nn.Module, one: Example) -> Tensor:
        cut = patches(one["pixel_values"][0], 8)[None]
        return model(
            input_ids=one["input_ids"],
            pixel_values=cut,
            pixel_attention_mask=torch.ones(1, 8, dtype=torch.long),
            spatial_shapes=torch.tensor([[2, 4]]),
        ).logits_per_image[0]

    words = Words(embedding=TOKEN, how="pad", attention=None, stay=(0, 2, 3))
    return Animal(
        "SigLIP 2",
        "dual encoders",
        model,
        batch,
        examples,
        logits,
        [Cells("image", "pixel_values", GRID), words],
        maps=("vision_model.encoder.layers.0", (0, 2, 4)),
    )


def patches(picture: Tensor, side: int) -> Tensor:
    """Return the patches of a picture (C, H, W) row by row, each pixel by pixel with its colours side by side, one by one."""
    height, width = picture.shape[1] // side, picture.shape[2] // side
    return torch.stack(
        [
            picture[:, i * side : (i + 1) * side, j * side : (j + 1) * side].permute(1, 2, 0).reshape(-1)
            for i in range(height)
            for j in range(width)
        ]
    )


def clap() -> Animal:
    """Return CLAP: sounds as spectrograms, and texts."""
    import transformers

    torch.manual_seed(2)
    config = transformers.ClapConfig(
        text_config=TEXT | dict(pad_token_id=1) | ENDS,
        projection_dim=16,
        audio_config=dict(
            patch_embeds_hidden_size=8,
            hidden_size=16,
            depths=[1, 1],
            num_attention_heads=[2, 2],
            num_mel_bins=16,
            spec_size=64,
            patch_size=4,
            window_size=4,
            patch_stride=[4, 4],
            enable_fusion=False,
        ),
    )
    model = spread(transformers.ClapModel(config).eval(), 0.1)
    rows = [[2, 11, 12, 13, 3], [2, 21, 22, 3]]
    ids, mask = padded(rows, pad=1)
    batch = {"input_ids": ids, "attention_mask": mask, "input_features": torch.rand(2, 1, 32, 16)}
    words = Words(embedding=WORD, how="mask", pad_id=1)
    return Animal(
        "CLAP (sound)",
        "dual encoders",
        model,
        batch,
        examples_of(batch, rows),
        lambda model, one: model(**one).logits_per_audio[0],
        [Cells("sound", "input_features", GRID), words],
        {"mask_id": 4},
    )


JOINT = dict(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=20,
    image_size=SIDE,
    patch_size=8,
)


def one_stream(family: str) -> Animal:
    """Return a model in which words and pictures meet."""
    import transformers

    torch.manual_seed(len(family) + 1)
    ids, mask = padded(ROWS)
    batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.rand(2, 3, SIDE, SIDE)}
    choices, cells, maps, key = (
        {"special": (2, 3), "mask_id": 4, "pad_id": 0},
        Cells("image", "pixel_values", GRID),
        None,
        "logits",
    )
    if family.startswith("ViLT"):
        kind = "QuestionAnswering" if "VQA" in family else "ImageAndTextRetrieval"
        model = getattr(transformers, f"ViltFor{kind}")(transformers.ViltConfig(**JOINT, num_labels=4))
        embedding, maps = (
            "vilt.embeddings.text_embeddings.word_embeddings",
            ("vilt.embeddings.patch_embeddings.projection", "NCHW"),
        )
    elif family == "VisualBERT":
        model = transformers.VisualBertForQuestionAnswering(
            transformers.VisualBertConfig(
                visual_embedding_dim=12,
                num_labels=4,
                **{k: v for k, v in JOINT.items() if k not in ("image_size", "patch_size")},
            )
        )
        embedding, cells = "visual_bert.embeddings.word_embeddings", Rows("image", "visual_embeds")
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "visual_embeds": torch.rand(2, 4, 12),
            "visual_attention_mask": torch.ones(2, 4, dtype=torch.long),
        }
    elif family == "BridgeTower":
        model = transformers.BridgeTowerForImageAndTextRetrieval(
            transformers.BridgeTowerConfig(
                hidden_size=64,
                num_attention_heads=2,
                num_hidden_layers=2,
                text_config=TEXT | ENDS | dict(hidden_size=64, num_hidden_layers=3),
                vision_config=dict(hidden_size=64, num_hidden_layers=3, image_size=SIDE, patch_size=8),
            )
        )
        embedding = "bridgetower.text_model.embeddings.word_embeddings"
        maps = ("bridgetower.vision_model.visual.embeddings.patch_embedding", "NCHW")
    elif family == "FLAVA":
        model = transformers.FlavaForPreTraining(
            transformers.FlavaConfig(
                text_config=TEXT,
                image_config=VISION,
                multimodal_config=dict(
                    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
                ),
                hidden_size=16,
                projection_dim=16,
                image_codebook_config=dict(num_groups=1, hidden_size=8, vocab_size=16),
            )
        )
        embedding, maps = (
            "flava.text_model.embeddings.word_embeddings",
            ("flava.image_model.encoder.layer.0", (1, 4, 4)),
        )
    elif family.startswith("LXMERT"):
        kind = "QuestionAnswering" if "VQA" in family else "PreTraining"
        model = getattr(transformers, f"LxmertFor{kind}")(
            transformers.LxmertConfig(
                vocab_size=60,
                hidden_size=16,
                num_attention_heads=2,
                num_qa_labels=4,
                intermediate_size=32,
                l_layers=1,
                x_layers=1,
                r_layers=1,
                visual_feat_dim=12,
                max_position_embeddings=16,
            )
        )
        embedding, cells = "lxmert.embeddings.word_embeddings", Rows("image", "visual_feats")
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "visual_feats": torch.rand(2, 4, 12),
            "visual_pos": torch.rand(2, 4, 4),
        }
        key = "question_answering_score" if "VQA" in family else "cross_relationship_score"
    else:  # BLIP's match
        model = transformers.BlipForImageTextRetrieval(
            transformers.BlipConfig(
                text_config=TEXT | dict(bos_token_id=2, sep_token_id=3, encoder_hidden_size=16, projection_dim=16),
                vision_config=VISION,
                image_text_hidden_size=16,
                projection_dim=16,
            )
        )
        embedding, key, maps = "text_encoder.embeddings.word_embeddings", "itm_score", CLIP_MAP
    model = spread(model.eval(), 0.1)

    def logits(model: nn.Module, one: Example) -> Tensor:
        if family == "FLAVA":  # the head of the match, on the joint encoder's first token
            joint = model.flava(**one).multimodal_embeddings
            return model.itm_head(joint)[0]
        return getattr(model(**one), key)[0]

    words = Words(embedding=embedding)
    sides = [words, cells]
    return Animal(
        family, "one stream, cross-attention", model, batch, examples_of(batch, ROWS), logits, sides, choices, maps=maps
    )


ONE_STREAM = (
    "ViLT (VQA)",
    "ViLT (match)",
    "VisualBERT",
    "BridgeTower",
    "FLAVA",
    "LXMERT (VQA)",
    "LXMERT (match)",
    "BLIP (match)",
)


def open_clip_model(name: str) -> Animal:
    """Return a small dual encoder of open_clip."""
    import open_clip

    torch.manual_seed(1)
    vision, text = (
        open_clip.model.CLIPVisionCfg(layers=2, width=16, head_width=8, patch_size=8, image_size=SIDE),
        open_clip.model.CLIPTextCfg(context_length=8, vocab_size=60, width=16, heads=2, layers=2),
    )
    kind = open_clip.model.CLIP if name == "CLIP" else open_clip.model.CustomTextCLIP
    model = spread(kind(16, vision, text).eval(), 0.1)
    rows = [[58, 11, 12, 13, 59], [58, 21, 22, 59]]
    ids = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    batch = {"image": torch.rand(2, 3, SIDE, SIDE), "text": ids}
    examples = [{"image": batch["image"][i : i + 1], "text": ids[i : i + 1]} for i in range(2)]

    def logits(model: nn.Module, one: Example) -> Tensor:
        found = model(image=one["image"], text=one["text"])
        return (found[2] * (found[0] * found[1]).sum(dim=1))[:1]

    words = Words(
        key="text",
        embedding="token_embedding" if name == "CLIP" else "text.token_embedding",
        how="pad",
        attention=None,
        stay=(0, 58, 59),
    )
    return Animal(
        f"open_clip {name}",
        "dual encoders",
        model,
        batch,
        examples,
        logits,
        [Cells("image", "image", GRID), words],
        maps=("visual.transformer.resblocks.0", (1, 4, 4)),
    )


ANIMALS = {
    **{family: (lambda family=family: dual(family)) for family in DUAL},
    "SigLIP 2": siglip2,
    "CLAP (sound)": clap,
    **(
        {f"open_clip {name}": (lambda name=name: open_clip_model(name)) for name in ("CLIP", "CustomTextCLIP")}
        if find_spec("open_clip")
        else {}
    ),
    **{family: (lambda family=family: one_stream(family)) for family in ONE_STREAM},
}
