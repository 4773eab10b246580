"""Pictures: the classifiers of transformers, torchvision and timm."""

from importlib.util import find_spec

import torch

from benchmarks.studies.zoo import Animal, Cells, examples_of
from benchmarks.studies.zoo.texts import spread

SIDE = 32
VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIDE, patch_size=8,
           num_labels=3)
SWIN = dict(image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=3)
CONV = dict(hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
# family -> class, sizes, layer and layout for maps, attention modules and special tokens, side of the picture
HUGGING_FACE = {
    "ViT": ("ViT", VIT, ("vit.layers.0", (1, 4, 4)), "vit.layers.{}.attention"),
    "DeiT": ("DeiT", VIT, ("deit.layers.0", (2, 4, 4)), "deit.layers.{}.attention"),
    "BEiT": ("Beit", VIT, ("beit.layers.0", (1, 4, 4)), "beit.layers.{}.attention"),
    "Data2Vec-vision": ("Data2VecVision", VIT, ("data2vec_vision.encoder.layer.0", (1, 4, 4)), None),
    "DINOv2": ("Dinov2", VIT, ("dinov2.encoder.layer.0", (1, 4, 4)), "dinov2.encoder.layer.{}.attention"),
    "DINOv2 with registers": ("Dinov2WithRegisters", VIT, ("dinov2_with_registers.encoder.layer.0", (5, 4, 4)),
                              "dinov2_with_registers.encoder.layer.{}.attention"),
    "ViT-MSN": ("ViTMSN", VIT, ("vit.layers.0", (1, 4, 4)), "vit.layers.{}.attention"),
    "I-JEPA": ("IJepa", VIT, ("ijepa.layers.0", (0, 4, 4)), "ijepa.layers.{}.attention"),
    "Swin": ("Swin", SWIN, ("swin.layernorm", (0, 4, 4)), None),
    "Swin v2": ("Swinv2", SWIN, ("swinv2.layernorm", (0, 4, 4)), None),
    "ConvNeXt": ("ConvNext", CONV | dict(num_stages=2), ("convnext.encoder.stages.1", "NCHW"), None),
    "ConvNeXt V2": ("ConvNextV2", CONV | dict(num_stages=2), ("convnextv2.encoder.stages.1", "NCHW"), None),
    "ResNet": ("ResNet", CONV | dict(embedding_size=8), ("resnet.encoder.stages.1", "NCHW"), None),
    "RegNet": ("RegNet", CONV | dict(embedding_size=8, groups_width=8), ("regnet.encoder.stages.1", "NCHW"), None),
    "MobileViT": ("MobileViT", dict(image_size=64, hidden_sizes=[8, 8, 8], neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
                                    num_attention_heads=2, num_labels=3), ("mobilevit.conv_1x1_exp", "NCHW"), None),
    "MobileNet V1": ("MobileNetV1", dict(depth_multiplier=0.25, min_depth=4, num_labels=3), None, None),
    "MobileNet V2": ("MobileNetV2", dict(depth_multiplier=0.25, min_depth=4, num_labels=3), None, None),
    "BiT": ("Bit", dict(embedding_size=8, num_groups=2, **CONV), None, None),
    "CvT": ("Cvt", dict(embed_dim=[8, 16, 16], num_heads=[1, 2, 2], depth=[1, 2, 3], num_labels=3), None, None),
    "PoolFormer": ("PoolFormer", dict(hidden_sizes=[8, 16], depths=[1, 1], patch_sizes=[7, 3], strides=[4, 2], padding=[2, 1],
                                      num_encoder_blocks=2, num_labels=3), None, None),
    "PVT": ("Pvt", dict(image_size=SIDE, hidden_sizes=[8, 16], depths=[1, 1], num_attention_heads=[1, 2], patch_sizes=[4, 2],
                        strides=[4, 2], sequence_reduction_ratios=[2, 1], mlp_ratios=[2, 2], num_encoder_blocks=2, num_labels=3),
            None, None),
    "SegFormer": ("Segformer", dict(hidden_sizes=[8, 16], depths=[1, 1], num_attention_heads=[1, 2], patch_sizes=[7, 3],
                                    strides=[4, 2], sr_ratios=[2, 1], mlp_ratios=[2, 2], num_encoder_blocks=2, num_labels=3),
                  None, None),
    "FocalNet": ("FocalNet", dict(image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], focal_levels=[1, 1],
                                  focal_windows=[3, 3], num_labels=3), None, None),
    "EfficientNet": ("EfficientNet", dict(width_coefficient=0.2, depth_coefficient=0.2, hidden_dim=256, image_size=SIDE,
                                          num_labels=3), None, None),
    "SwiftFormer": ("SwiftFormer", dict(image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16], num_labels=3), None, None),
    "CLIP's picture tower": ("CLIP", dict(vision_config=dict(VIT), num_labels=3), ("vision_model.encoder.layers.0", (1, 4, 4)),
                             "vision_model.encoder.layers.{}.self_attn"),
    "SigLIP's picture tower": ("Siglip", dict(vision_config=dict(VIT), num_labels=3), ("vision_model.encoder.layers.0", (0, 4, 4)),
                               "vision_model.encoder.layers.{}.self_attn"),
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
    side = sizes.get("image_size", 64 if maps is None else SIDE)
    batch = {"pixel_values": torch.rand(2, 3, side, side)}
    special = maps[1][0] if attention else 0
    return Animal(family, "pictures", model, batch, examples_of(batch, None), lambda model, one: model(**one).logits[0],
                  [Cells("image", "pixel_values")], maps=maps,
                  attention={"image": ([attention.format(i) for i in range(2)], 1, special)} if attention else {})


# name -> side of the picture, layer and layout for maps. One of each kind; the others of its kind are run beside them.
TORCHVISION = {
    "alexnet": (64, ("features", "NCHW")), "vgg11": (32, ("features", "NCHW")), "resnet18": (64, ("layer4", "NCHW")),
    "resnext50_32x4d": (64, ("layer4", "NCHW")), "wide_resnet50_2": (64, ("layer4", "NCHW")),
    "densenet121": (64, ("features", "NCHW")), "googlenet": (64, ("inception5b", "NCHW")),
    "inception_v3": (96, ("Mixed_7c", "NCHW")), "mobilenet_v2": (64, ("features", "NCHW")),
    "mobilenet_v3_small": (64, ("features", "NCHW")), "mnasnet0_5": (64, ("layers", "NCHW")),
    "shufflenet_v2_x0_5": (64, ("conv5", "NCHW")), "squeezenet1_1": (64, ("features", "NCHW")),
    "efficientnet_b0": (64, ("features", "NCHW")), "efficientnet_v2_s": (64, ("features", "NCHW")),
    "convnext_tiny": (64, ("features", "NCHW")), "regnet_y_400mf": (64, ("trunk_output", "NCHW")),
    "vit_b_32": (64, ("encoder.layers.encoder_layer_10", (1, 2, 2))), "swin_t": (64, ("norm", "NHWC")),
    "swin_v2_t": (64, ("norm", "NHWC")), "maxvit_t": (224, ("blocks", "NCHW")),
}
LARGEST = 30e6  # parameters of the models that are run


def torchvision_model(name: str) -> Animal:
    """Return a classifier of torchvision, with random weights, at a small size."""
    import torchvision

    torch.manual_seed(0)
    near = [known for known in TORCHVISION if name.startswith(known.rstrip("0123456789").rpartition("_")[0] or known[:4])]
    side, maps = TORCHVISION.get(name) or TORCHVISION[near[0]] if near or name in TORCHVISION else (64, None)
    sizes = {"image_size": side} if name.startswith("vit") else {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **sizes).eval().requires_grad_(False)
    batch = {"x": torch.rand(2, 3, side, side)}
    return Animal(f"torchvision {name}", "pictures", model, batch, examples_of(batch, None), lambda model, one: model(one["x"])[0],
                  [Cells("image", "x")], maps=maps if name in TORCHVISION else None, tolerance=1e-3)


def timm_model(name: str, maps: tuple, side: int = 64) -> Animal:
    """Return a classifier of timm, with random weights, at a small size."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=4, **({"img_size": side} if "vit" in name or "deit" in name else {}))
    batch = {"x": torch.rand(2, 3, side, side)}
    return Animal(f"timm {name}", "pictures", model.eval().requires_grad_(False), batch, examples_of(batch, None),
                  lambda model, one: model(one["x"])[0], [Cells("image", "x")], maps=maps, tolerance=1e-3)


TIMM = {"resnet18": ("layer4", "NCHW"), "vit_tiny_patch16_224": ("blocks.10", (1, 4, 4)), "convnext_atto": ("stages", "NCHW"),
        "deit_tiny_distilled_patch16_224": ("blocks.10", (2, 4, 4))}
ANIMALS = {
    **{family: (lambda family=family: hugging_face(family)) for family in HUGGING_FACE},
    **{f"torchvision {name}": (lambda name=name: torchvision_model(name)) for name in TORCHVISION},
    **({f"timm {name}": (lambda name=name, maps=maps: timm_model(name, maps)) for name, maps in TIMM.items()}
       if find_spec("timm") else {}),
}
