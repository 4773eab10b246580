"""Pictures: the classifiers of transformers, torchvision and timm."""

from importlib.util import find_spec

import torch

from benchmarks.studies.zoo import Animal, Cells, examples_of
from benchmarks.studies.zoo.texts import spread

SIDE = 32
VIT = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=SIDE,
    patch_size=8,
    num_labels=3,
)
SWIN = dict(image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=3)
CONV = dict(hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
# family -> class, sizes, layer and layout for maps, attention modules and special tokens, side of the picture
HUGGING_FACE = {
    "ViT": ("ViT", VIT, ("vit.layers.0", (1, 4, 4)), "vit.layers.{}.attention"),
    "DeiT": ("DeiT", VIT, ("deit.layers.0", (2, 4, 4)), "deit.layers.{}.attention"),
    "BEiT": ("Beit", VIT, ("beit.layers.0", (1, 4, 4)), "beit.layers.{}.attention"),
    "Data2Vec-vision": ("Data2VecVision", VIT, ("data2vec_vision.encoder.layer.0", (1, 4, 4)), None),
    "DINOv2": ("Dinov2", VIT, ("dinov2.encoder.layer.0", (1, 4, 4)), "dinov2.encoder.layer.{}.attention"),
    "DINOv2 with registers": (
        "Dinov2WithRegisters",
        VIT,
        ("dinov2_with_registers.encoder.layer.0", (5, 4, 4)),
        "dinov2_with_registers.encoder.layer.{}.attention",
    ),
    "ViT-MSN": ("ViTMSN", VIT, ("vit.layers.0", (1, 4, 4)), "vit.layers.{}.attention"),
    "I-JEPA": ("IJepa", VIT, ("ijepa.layers.0", (0, 4, 4)), "ijepa.layers.{}.attention"),
    "Swin": ("Swin", SWIN, ("swin.layernorm", (0, 4, 4)), None),
    "Swin v2": ("Swinv2", SWIN, ("swinv2.layernorm", (0, 4, 4)), None),
    "ConvNeXt": ("ConvNext", CONV | dict(num_stages=2), ("convnext.encoder.stages.1", "NCHW"), None),
    "ConvNeXt V2": ("ConvNextV2", CONV | dict(num_stages=2), ("convnextv2.encoder.stages.1", "NCHW"), None),
    "ResNet": ("ResNet", CONV | dict(embedding_size=8), ("resnet.encoder.stages.1", "NCHW"), None),
    "RegNet": ("RegNet", CONV | dict(embedding_size=8, groups_width=8), ("regnet.encoder.stages.1", "NCHW"), None),
    "MobileViT": (
        "MobileViT",
        dict(
            image_size=64,
            hidden_sizes=[8, 8, 8],
            neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
            num_attention_heads=2,
            num_labels=3,
        ),
        ("mobilevit.conv_1x1_exp", "NCHW"),
        None,
    ),
    "MobileNet V1": (
        "MobileNetV1",
        dict(depth_multiplier=0.25, min_depth=4, num_labels=3),
        ("mobilenet_v1.layer.25", "NCHW"),
        None,
    ),
    "MobileNet V2": (
        "MobileNetV2",
        dict(depth_multiplier=0.25, min_depth=4, num_labels=3),
        ("mobilenet_v2.conv_1x1", "NCHW"),
        None,
    ),
    "BiT": ("Bit", dict(embedding_size=8, num_groups=2, **CONV), ("bit.encoder.stages.1", "NCHW"), None),
    "CvT": (
        "Cvt",
        dict(embed_dim=[8, 16, 16], num_heads=[1, 2, 2], depth=[1, 2, 3], num_labels=3),
        ("cvt.encoder.stages.1", "NCHW"),
        None,
    ),
    "PoolFormer": (
        "PoolFormer",
        dict(
            hidden_sizes=[8, 16],
            depths=[1, 1],
            patch_sizes=[7, 3],
            strides=[4, 2],
            padding=[2, 1],
            num_encoder_blocks=2,
            num_labels=3,
        ),
        ("poolformer.encoder", "NCHW"),
        None,
    ),
    "PVT": (
        "Pvt",
        dict(
            image_size=SIDE,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_attention_heads=[1, 2],
            patch_sizes=[4, 2],
            strides=[4, 2],
            sequence_reduction_ratios=[2, 1],
            mlp_ratios=[2, 2],
            num_encoder_blocks=2,
            num_labels=3,
        ),
        ("pvt.encoder.patch_embeddings.0.projection", "NCHW"),
        None,
    ),
    "SegFormer": (
        "Segformer",
        dict(
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_attention_heads=[1, 2],
            patch_sizes=[7, 3],
            strides=[4, 2],
            sr_ratios=[2, 1],
            mlp_ratios=[2, 2],
            num_encoder_blocks=2,
            num_labels=3,
        ),
        ("segformer.stages.0.patch_embeddings.proj", "NCHW"),
        None,
    ),
    "FocalNet": (
        "FocalNet",
        dict(
            image_size=SIDE,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1],
            focal_levels=[1, 1],
            focal_windows=[3, 3],
            num_labels=3,
        ),
        ("focalnet.layernorm", (0, 4, 4)),
        None,
    ),
    "EfficientNet": (
        "EfficientNet",
        dict(width_coefficient=0.2, depth_coefficient=0.2, hidden_dim=256, image_size=64, num_labels=3),
        ("efficientnet.encoder.blocks.6", "NCHW"),
        None,
    ),
    "SwiftFormer": (
        "SwiftFormer",
        dict(image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16], num_labels=3),
        ("swiftformer.encoder", "NCHW"),
        None,
    ),
    "CLIP's picture tower": (
        "CLIP",
        dict(vision_config=dict(VIT), num_labels=3),
        ("vision_model.encoder.layers.0", (1, 4, 4)),
        "vision_model.encoder.layers.{}.self_attn",
    ),
    "SigLIP's picture tower": (
        "Siglip",
        dict(vision_config=dict(VIT), num_labels=3),
        ("vision_model.encoder.layers.0", (0, 4, 4)),
        "vision_model.encoder.layers.{}.self_attn",
    ),
}


def hugging_face(family: str) -> Animal:
    """Return a classifier of transformers."""
    import transformers

    kind, sizes, maps, attention = HUGGING_FACE[family]
    torch.manual_seed(len(family))
    config = getattr(transformers, f"{kind}Config")(**sizes)
    if attention:
        config._attn_implementation = "eager"
    model = spread(getattr(transformers, f"{kind}ForImageClassification")(config).eval(), 0.1)
    if attention:
        model.set_attn_implementation("eager")
    side = sizes.get("image_size", 64 if family.startswith("MobileNet") else SIDE)
    batch = {"pixel_values": torch.rand(2, 3, side, side)}
    special = maps[1][0] if attention else 0
    # Of a single picture torch 2.15 gives another gradient of CvT than of that picture beside others, and a wrong one by finite
    # differences; so each is run twice.
    times = 2 if kind == "Cvt" else 1
    return Animal(
        family,
        "pictures",
        model,
        batch,
        examples_of(batch, None),
        lambda model, one: model(pixel_values=one["pixel_values"].repeat(times, 1, 1, 1)).logits[0],
        [Cells("image", "pixel_values")],
        maps=maps,
        attention={"image": ([attention.format(i) for i in range(2)], 1, special)} if attention else {},
    )


# Of torchvision: kind -> side of the smallest picture that leaves its last map four places, that layer and its layout.
KINDS = {
    "alexnet": (96, ("features", "NCHW")),
    "vgg": (64, ("features", "NCHW")),
    "resne": (64, ("layer4", "NCHW")),
    "densenet": (64, ("features", "NCHW")),
    "googlenet": (64, ("inception5b", "NCHW")),
    "inception": (107, ("Mixed_7c", "NCHW")),
    "mobilenet": (64, ("features", "NCHW")),
    "mnasnet": (64, ("layers", "NCHW")),
    "shufflenet": (64, ("conv5", "NCHW")),
    "squeezenet": (64, ("features", "NCHW")),
    "efficientnet": (64, ("features", "NCHW")),
    "convnext": (64, ("features", "NCHW")),
    "regnet": (64, ("trunk_output", "NCHW")),
    "swin": (64, ("norm", "NHWC")),
}
LARGEST = 30e6  # parameters of the models of torchvision that are run whole; of the larger kinds a small one is made
SHORT = (
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
)  # run in tests too


def torchvision_names() -> list[str]:
    """Return the classifiers of torchvision that are small enough to be run, and one of each kind that has none."""
    from torchvision import models

    sizes = {
        name: models.get_model_weights(name).DEFAULT.meta["num_params"] for name in models.list_models(module=models)
    }
    return [name for name, size in sizes.items() if size <= LARGEST or name in ("alexnet", "vgg11")]


def torchvision_model(name: str) -> Animal:
    """Return a classifier of torchvision, with random weights, at a small size."""
    from torchvision import models

    torch.manual_seed(0)
    side, maps = next(kind for key, kind in KINDS.items() if key in name)
    own = {"init_weights": False} if name in ("googlenet", "inception_v3", "vgg11") else {}
    return _plain(f"torchvision {name}", models.get_model(name, weights=None, **own), side, maps)


def small_torchvision(name: str) -> Animal:
    """Return a small model of a class of torchvision whose named ones are large."""
    from torchvision.models import maxvit, resnet, swin_transformer, vision_transformer

    torch.manual_seed(0)
    windows = dict(patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=4)
    made = {
        "ViT": lambda: (
            vision_transformer.VisionTransformer(SIDE, 8, 3, 2, 16, 32, num_classes=4),
            ("encoder.layers.encoder_layer_1", (1, 4, 4)),
        ),
        "Swin": lambda: (swin_transformer.SwinTransformer(**windows), ("norm", "NHWC")),
        "Swin V2": lambda: (
            swin_transformer.SwinTransformer(
                **windows,
                block=swin_transformer.SwinTransformerBlockV2,
                downsample_layer=swin_transformer.PatchMergingV2,
            ),
            ("norm", "NHWC"),
        ),
        "wide ResNet": lambda: (
            resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=4, width_per_group=128),
            ("layer4", "NCHW"),
        ),
        "MaxViT": lambda: (maxvit.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 8, 0.0, num_classes=4), ("blocks.1", "NCHW")),
    }
    model, maps = made[name]()
    if name == "ViT":  # whose head begins at zero
        spread(model, 0.1)
    return _plain(f"torchvision {name} (small)", model, 64 if name in ("wide ResNet", "MaxViT") else SIDE, maps)


def _plain(family: str, model: torch.nn.Module, side: int, maps: tuple) -> Animal:
    """Return a classifier that is called with pictures alone."""
    batch = {"x": torch.rand(2, 3, side, side)}
    return Animal(
        family,
        "pictures",
        model.eval().requires_grad_(False),
        batch,
        examples_of(batch, None),
        lambda model, one: model(one["x"])[0],
        [Cells("image", "x")],
        maps=maps,
        tolerance=1e-3,
    )


def timm_model(name: str, maps: tuple, side: int = 64) -> Animal:
    """Return a classifier of timm, with random weights, at a small size."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        name, pretrained=False, num_classes=4, **({"img_size": side} if "vit" in name or "deit" in name else {})
    )
    return _plain(f"timm {name}", model, side, maps)


TIMM = {
    "resnet18": ("layer4", "NCHW"),
    "vit_tiny_patch16_224": ("blocks.10", (1, 4, 4)),
    "convnext_atto": ("stages", "NCHW"),
    "deit_tiny_distilled_patch16_224": ("blocks.10", (2, 4, 4)),
}
ANIMALS = {
    **{family: (lambda family=family: hugging_face(family)) for family in HUGGING_FACE},
    **{
        f"torchvision {name} (small)": (lambda name=name: small_torchvision(name))
        for name in ("ViT", "Swin", "Swin V2", "wide ResNet", "MaxViT")
    },
    **{f"torchvision {name}": (lambda name=name: torchvision_model(name)) for name in SHORT},
    **(
        {f"timm {name}": (lambda name=name, maps=maps: timm_model(name, maps)) for name, maps in TIMM.items()}
        if find_spec("timm")
        else {}
    ),
}


def larger() -> dict:
    """Return the other classifiers of torchvision, which take a minute or more together."""
    return {
        f"torchvision {name}": (lambda name=name: torchvision_model(name))
        for name in torchvision_names()
        if name not in SHORT
    }
