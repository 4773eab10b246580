"""Which axis of a layer is which: every answer is held against the same numbers turned by hand."""

import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.maxvit import MaxVit
from torchvision.models.swin_transformer import SwinTransformer
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViltConfig,
    ViltForQuestionAnswering,
    ViTConfig,
    ViTForImageClassification,
)

from crossexplain.checks import InputError
from crossexplain.evaluation.methods import explain
from crossexplain.gradients.capture import capture
from crossexplain.gradients.layouts import Place, map_layout, rows_first
from crossexplain.gradients.maps import attribute
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors
from crossexplain.gradients.tokens import attribute as word_scores

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}


def pictures(count=3, height=32, width=32, colours=3):
    return torch.rand(count, colours, height, width, generator=torch.Generator().manual_seed(0))


def summed_by_hand(maps, grid):
    """Cells of maps (N, C, h, w) whose sides the grid divides."""
    rows, columns = maps.shape[2] // grid[0], maps.shape[3] // grid[1]
    return maps.unflatten(3, (grid[1], columns)).unflatten(2, (grid[0], rows)).sum(dim=(1, 3, 5)).flatten(1)


def require_right(model, images, layer, to_maps, grid=(2, 2), key="pixel_values"):
    """The map, and the cells of a modality, at a layer are those of the layer's values turned to (N, C, h, w) by hand."""
    inputs = {key: images}
    held = capture(model, inputs, layer, target=0)
    values, slopes = to_maps(held.activations[layer]), to_maps(held.gradients[layer])
    heat = attribute(model, inputs, layer, ["grad-cam", "gradient x input"], target=0, sign="for", positive=False)
    by_hand = (values * slopes.mean(dim=(2, 3), keepdim=True)).sum(dim=1)
    scale = by_hand.abs().max() + 1e-9
    assert torch.allclose(heat["grad-cam"] / scale, by_hand / scale, atol=1e-4), layer
    cells = ImageCells(input=key, layer=layer, grid=grid).settled(inputs, model)
    found = cells.read_at(held.gradients[layer].square(), inputs, len(images))
    assert torch.allclose(found, summed_by_hand(slopes.square(), grid), rtol=1e-4, atol=1e-9), layer


class Positional(nn.Module):
    """A model of torchvision under the keyword of transformers."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixel_values):
        return self.net(pixel_values)


def last_to_second(values):
    return values.permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(64, 64), (64, 32)])
def test_swin_and_convnext_hold_channels_last_at_some_layers(size):
    swin = Positional(SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)).eval()
    for layer in ("net.norm", "net.features.3", "net.features.3.0", "net.features.1.0.norm1", "net.features.0"):
        require_right(swin, pictures(3, *size), layer, last_to_second)
    require_right(swin, pictures(3, *size), "net.permute", lambda values: values)
    convnext = Positional(ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)).eval()
    for layer in ("net.features.3.0.block.1", "net.features.3.0.block.2", "net.features.3.0.block.5"):
        require_right(convnext, pictures(3, *size), layer, last_to_second)
    for layer in ("net.features.3.0.block.6", "net.features.3", "net.features.2.0", "net.features.0.1"):
        require_right(convnext, pictures(3, *size), layer, lambda values: values)


def test_as_many_channels_as_rows_and_columns_are_told_apart_by_the_kind_of_the_layer():
    swin = Positional(SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)).eval()
    images = pictures(3, 64, 64)  # 16 channels on 16 x 16 places behind the first stage's reduction of 128 x 128 pixels
    large = pictures(3, 128, 128)
    assert capture(swin, {"pixel_values": large}, "net.norm").activations["net.norm"].shape[1:] == (16, 16, 16)
    require_right(swin, large, "net.norm", last_to_second)
    require_right(swin, large, "net.permute", lambda values: values)
    require_right(swin, large, "net.features.3.0", last_to_second)  # the corners of the picture tell
    values = torch.rand(3, 16, 16, 16)
    for module in (None, swin.net.features[3][0]):  # without the model nothing does
        with pytest.raises(InputError, match="channels second or last; pass layout='NCHW'"):
            ImageCells(input="pixel_values", layer="x").read_at(values, {"pixel_values": large}, 3, module=module)
    told = ImageCells(input="pixel_values", layer="x", layout="NHWC").read_at(values, {"pixel_values": large}, 3)
    assert torch.allclose(told, summed_by_hand(values.permute(0, 3, 1, 2), (2, 2)))
    assert attribute(swin, {"pixel_values": images}, "net.norm").shape == (3, 8, 8)
    row = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(512, 3)).eval()
    for layer in ("0", "1", "2"):  # 8 channels on 8 x 8 places
        require_right(Positional(row).eval(), pictures(), f"net.{layer}", lambda values: values)


def test_convnext_of_transformers_says_which_norm_has_channels_first():
    config = ConvNextV2Config(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)
    model = ConvNextV2ForImageClassification(config).eval()
    names = [name for name, _ in model.named_modules()]
    block = next(name for name in reversed(names) if name.endswith("layers.0"))
    down = next(name for name in names if name.endswith("stages.1.downsampling_layer.0"))
    require_right(model, pictures(3, 64, 64), f"{block}.layernorm", last_to_second)
    require_right(model, pictures(3, 64, 64), down, lambda values: values)
    require_right(model, pictures(3, 64, 64), block, lambda values: values)


def test_windows_inside_an_attention_are_no_map():
    model = Positional(MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=3)).eval()
    layer = next(name for name, module in model.named_modules() if type(module).__name__ == "WindowPartition")
    inputs = {"pixel_values": pictures(2, 64, 64)}
    inside = layer.rpartition(".")[0] + ".attn_layer.1"
    shape = capture(model, inputs, inside).activations[inside].shape
    assert shape[1] == shape[2] == 16  # as many windows as places in each: as square as a map
    for second in (inside, inside.replace("blocks.0", "blocks.1")):  # 4 windows of 16 places and 16 channels in the second
        with pytest.raises(InputError, match="gives .*; pass layout='NCHW' for"):
            attribute(model, inputs, second)
    block = next(name for name, module in model.named_modules() if type(module).__name__ == "MaxVitBlock")
    require_right(model, inputs["pixel_values"], block, lambda values: values)


def test_a_layer_that_treats_both_sides_differently():
    """8 channels on 8 x 16 places look like 16 channels on 8 x 8 places of a square picture."""

    class Stretched(nn.Module):
        def __init__(self, stride):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.keep, self.head = nn.Conv2d(3, 8, 3, stride, 1), nn.Identity(), nn.Linear(8, 3)

        def forward(self, pixel_values):
            return self.head(self.keep(self.conv(pixel_values)).square().mean(dim=(2, 3)))

    for stride in ((2, 1), (1, 2), (4, 2)):
        require_right(Stretched(stride).eval(), pictures(3, 16, 16), "keep", lambda values: values)
    pooled = Positional(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), nn.Linear(128, 3))).eval()
    require_right(pooled, pictures(3, 16, 32), "net.1", lambda values: values)


def patches_of(rows, columns, special):
    return lambda values: values[:, special:].transpose(1, 2).unflatten(2, (rows, columns))


@pytest.mark.parametrize(("make", "special", "size", "grid"), [
    (lambda: ViTForImageClassification(ViTConfig(**SMALL, image_size=32, patch_size=8)), 1, (32, 32), (4, 4)),
    (lambda: ViTForImageClassification(ViTConfig(**SMALL, image_size=24, patch_size=8)), 1, (24, 24), (3, 3)),
    (lambda: ViTForImageClassification(ViTConfig(**SMALL, image_size=(32, 64), patch_size=8)), 1, (32, 64), (4, 8)),
    (lambda: ViTForImageClassification(ViTConfig(**SMALL, image_size=(16, 64), patch_size=8)), 1, (16, 64), (2, 8)),
    (lambda: ViTForImageClassification(ViTConfig(**SMALL, image_size=(8, 72), patch_size=8)), 1, (8, 72), (1, 9)),
    (lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL, image_size=32, patch_size=8)), 2, (32, 32), (4, 4)),
    (lambda: Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(**SMALL, image_size=32, patch_size=16, num_register_tokens=4)), 5, (32, 32), (2, 2)),
    (lambda: Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(**SMALL, image_size=32, patch_size=8, num_register_tokens=4)), 5, (32, 32), (4, 4)),
])
def test_patches_lie_as_the_model_cuts_them(make, special, size, grid):
    torch.manual_seed(0)
    model = make().eval()
    layers = [name for name, _ in model.named_modules() if name.endswith((".0", ".1", "layernorm", "embeddings.dropout"))]
    assert len(layers) > 3
    for layer in layers:
        cells = (1, 3) if grid == (1, 9) else grid if grid[0] == 3 else (2, 2) if grid[0] < 4 else (2, 4)
        require_right(model, pictures(3, *size), layer, patches_of(*grid, special), cells)


def test_a_tower_without_a_class_token_and_one_whose_places_are_merged():
    siglip = SiglipForImageClassification(SiglipConfig(num_labels=3, vision_config={
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
        "patch_size": 8})).eval()
    require_right(siglip, pictures(), "vision_model.encoder.layers.1", patches_of(4, 4, 0))
    swin = SwinForImageClassification(SwinConfig(image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
                                                 window_size=4, num_labels=3)).eval()
    require_right(swin, pictures(3, 64, 64), "swin.layernorm", patches_of(8, 8, 0))
    require_right(swin, pictures(3, 32, 64), "swin.layernorm", patches_of(4, 8, 0))
    window = next(name for name, _ in swin.named_modules() if name.endswith(("attention.o_proj", "output.dense")))
    with pytest.raises(InputError, match="expected one row an example.*rows an example, as a layer has that runs on"):
        attribute(swin, {"pixel_values": pictures(3, 64, 64)}, window)


class Special(nn.Module):
    """A vision transformer whose special tokens stand where they are told to; ``first`` alone counts for the second logit."""

    def __init__(self, before, after, side=4):
        super().__init__()
        torch.manual_seed(1)
        self.cut, self.before, self.after = nn.Conv2d(3, 8, 8, 8), before, after
        self.special = nn.Parameter(torch.randn(1, before + after, 8))
        self.place = nn.Parameter(torch.randn(1, side * side + before + after, 8))
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, pixel_values):
        patches = self.cut(pixel_values).flatten(2).transpose(1, 2)
        special = self.special.expand(len(patches), -1, -1)
        row = torch.cat([special[:, : self.before], patches, special[:, self.before :]], dim=1) + self.place
        return self.head(self.norm(self.mix(row)).mean(dim=1))


def test_special_tokens_that_come_last_are_noticed():
    for before, after in ((1, 0), (5, 0), (0, 0), (8, 0)):
        require_right(Special(before, after).eval(), pictures(), "norm", patches_of(4, 4, before))
    for before, after in ((0, 1), (0, 4), (1, 4)):
        model = Special(before, after).eval()
        start = rf"seem to start at position {before}.*positions=slice\({before}, {before + 16}\)"
        with pytest.raises(InputError, match=start):
            attribute(model, pictures(), "norm")
        with pytest.raises(InputError, match=start):
            cells = ImageCells(input="pixel_values", layer="norm").settled({"pixel_values": pictures()}, model)
            cells.read_at(torch.zeros(3, 16 + before + after, 8), {"pixel_values": pictures()}, 3)
        chosen = attribute(model, pictures(), "norm", "gradient x input", target=0, sign="for", positive=False,
                           positions=range(before, before + 16))
        held = capture(model, pictures(), "norm", 0)
        by_hand = (held.activations["norm"] * held.gradients["norm"]).sum(dim=2)[:, before : before + 16]
        assert torch.allclose(chosen.flatten(1), by_hand, atol=1e-6)


@pytest.mark.parametrize(("side", "special"), [(4, 1), (3, 1), (3, 0), (4, 5), (7, 1), (2, 5)])
@pytest.mark.parametrize("grid", [(2, 2), (1, 2), (2, 1)])
def test_cells_that_are_not_the_patches_own(side, special, grid):
    """The top left patch alone has a value: its cell alone has one, wherever the patches are."""
    inputs = {"pixel_values": pictures(2, 8 * side, 8 * side)}
    model = Special(special, 0, side).eval()
    values = torch.zeros(2, side * side + special, 8)
    values[:, special] = 1
    cells = ImageCells(input="pixel_values", layer="norm", grid=grid).settled(inputs, model).read_at(values, inputs, 2)
    assert cells[:, 0].all() and not cells[:, 1:].any()


@pytest.fixture(scope="module")
def vilt():
    torch.manual_seed(0)
    return ViltForQuestionAnswering(ViltConfig(vocab_size=60, **{k: v for k, v in SMALL.items() if k != "num_labels"},
                                               max_position_embeddings=12, image_size=32, patch_size=8, num_labels=4)).eval()


@pytest.mark.parametrize("words", [1, 6, 8])
def test_words_and_patches_in_one_row_are_told_apart_by_positions_alone(vilt, words):
    inputs = {"input_ids": torch.randint(5, 60, (3, words)), "attention_mask": torch.ones(3, words, dtype=torch.long),
              "pixel_values": pictures()}
    layer = next(name for name, _ in vilt.named_modules() if name.endswith("layer.0"))
    held = capture(vilt, inputs, layer, 0).gradients[layer].square()  # words, class token, 4 x 4 patches
    assert held.shape[1] == words + 17
    text = {"input": "input_ids", "layer": layer, "mask_id": 4, "attention": "attention_mask"}
    cells = {"input": "pixel_values", "layer": layer}
    with pytest.raises(InputError, match="pass positions=slice"):
        Tokens(**text).settled(inputs, vilt).read_at(held, inputs, 3)
    with pytest.raises(InputError, match="positions of 'input_ids'.* may stand in the same row"):
        ImageCells(**cells).settled(inputs, vilt).read_at(held, inputs, 3)
    if words > 1:  # the picture and the words are not known there
        with pytest.raises(InputError, match="which are no patches"):
            ImageCells(**cells).per_feature(held, 4)
    with pytest.raises(InputError, match="may stand in the same row"):
        attribute(vilt, inputs, layer)
    with pytest.raises(InputError, match="positions=slice"):
        word_scores(vilt, inputs, layer, special="keep")
    found = Tokens(**text, positions=slice(0, words)).settled(inputs, vilt).read_at(held, inputs, 3)
    assert torch.allclose(found, held[:, :words].sum(dim=2))
    found = ImageCells(**cells, positions=slice(-16, None)).settled(inputs, vilt).read_at(held, inputs, 3)
    assert torch.allclose(found, summed_by_hand(held[:, -16:].transpose(1, 2).unflatten(2, (4, 4)), (2, 2)))
    scores = word_scores(vilt, inputs, layer, "l2", special="keep", positions=range(words))
    assert scores.shape == (3, words)
    with pytest.raises(InputError, match="has .* positions, got positions="):
        word_scores(vilt, inputs, layer, "l2", special="keep", positions=[40])


def test_a_tower_beside_a_text_of_any_length_is_read_as_before():
    """As many words as special tokens: the model says that the tower does not read them."""

    class Two(nn.Module):
        def __init__(self, before):
            super().__init__()
            self.tower, self.embedding = Special(before, 0), nn.Embedding(9, 3)

        def forward(self, pixel_values, tokens):
            return self.tower(pixel_values) + self.embedding(tokens).sum(dim=1)

    for before in (1, 5):
        for words in (1, 2, 5, 7):
            inputs = {"pixel_values": pictures(), "tokens": torch.randint(2, 9, (3, words))}
            model = Two(before).eval()
            held = capture(model, inputs, "tower.norm", 0)
            heat = attribute(model, inputs, "tower.norm", "gradient x input", target=0, sign="for", positive=False)
            by_hand = (held.activations["tower.norm"] * held.gradients["tower.norm"]).sum(dim=2)
            assert torch.allclose(heat.flatten(1), by_hand[:, before:], atol=1e-6)


class Mixed(nn.Module):
    """Patches that have mixed before words, vectors or one vector of the words come after them in the same row."""

    def __init__(self, beside):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.embedding, self.beside = nn.Conv2d(3, 8, 8, 8), nn.Embedding(9, 8), beside
        self.place, self.head = nn.Parameter(torch.randn(1, 16, 8)), nn.Linear(8, 3)
        self.row = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, pixel_values, tokens=None, sound=None):
        patches = self.place + torch.tanh(self.cut(pixel_values).mean(dim=(2, 3)))[:, None]
        others = self.embedding(tokens) if sound is None else sound
        others = others.mean(dim=1, keepdim=True) if self.beside == "one" else others
        return self.head(self.row(torch.cat([patches, others], dim=1)).square().mean(dim=1))


@pytest.mark.parametrize("beside", ["tokens", "sound", "one"])
def test_patches_that_mixed_before_others_come_after_them_are_not_the_last(beside):
    """Which positions answer to the picture's corners leaves open where the patches are: nothing is guessed."""
    key, model = "sound" if beside == "sound" else "tokens", Mixed(beside).eval()
    others = torch.randn(3, 4, 8) if key == "sound" else torch.randint(2, 9, (3, 4))
    inputs, cells = {"pixel_values": pictures(), key: others}, {"input": "pixel_values", "layer": "row", "patches": (4, 4)}
    text = Vectors("sound", "sound") if key == "sound" else Tokens(layer="embedding")
    with pytest.raises(InputError, match="pass positions=slice"):
        attribute(model, inputs, "row", patches=(4, 4))
    with pytest.raises(InputError, match="pass positions=slice"):
        explain(model, inputs, [ImageCells(**cells), text], "gradient norm")
    heat = attribute(model, inputs, "row", "gradient x input", target=0, sign="for", positive=False, patches=(4, 4),
                     positions=range(16))
    held = capture(model, inputs, "row", 0)
    assert torch.allclose(heat.flatten(1), (held.activations["row"] * held.gradients["row"]).sum(dim=2)[:, :16], atol=1e-6)


class Sequence(nn.Module):
    """Reads the first word alone, through layers (T, N, D), PyTorch's default, or (N, T, D)."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.embedding, self.head = kind, nn.Embedding(20, 4), nn.Linear(5, 3)
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=kind == "batch first"), 2)
        self.mix = {"lstm": nn.LSTM(4, 4), "gru": nn.GRU(4, 4), "identity": nn.Identity()}.get(kind, encoder)

    def forward(self, images, tokens):
        row = self.embedding(tokens if self.kind == "batch first" else tokens.t())
        row = self.mix(row)
        row = row[0] if isinstance(row, tuple) else row
        first = row[:, 0] if self.kind == "batch first" else row[0]
        return self.head(torch.cat([first, images.mean((1, 2, 3))[:, None]], dim=1))


@pytest.mark.parametrize("kind", ["identity", "lstm", "gru", "encoder", "batch first"])
@pytest.mark.parametrize(("examples", "words"), [(6, 6), (8, 5), (3, 5), (4, 4), (1, 5), (5, 1)])
def test_rows_of_a_layer_are_the_examples_wherever_they_stand(kind, examples, words):
    model = Sequence(kind).eval()
    inputs = {"images": torch.rand(examples, 1, 8, 8), "tokens": torch.randint(2, 20, (examples, words))}
    for layer in ("embedding", "mix"):
        alone = []
        for i in range(examples):  # one example at a time there is nothing to confuse
            one = {key: value[i : i + 1] for key, value in inputs.items()}
            slope = capture(model, one, layer, 0).gradients[layer].flatten(0, 1)  # (T, D)
            alone.append(slope.norm(dim=1))
        by_hand = torch.stack(alone)
        scores = word_scores(model, inputs, layer, "l2", 0, special="keep")
        assert scores.shape == (examples, words) and torch.allclose(scores, by_hand, atol=1e-6)
        slopes = capture(model, inputs, layer, 0).gradients[layer]
        found = Tokens(layer=layer).settled(inputs, model).read_at(slopes.square(), inputs, examples).sqrt()
        assert torch.allclose(found, by_hand, atol=1e-6)
        views = {key: torch.cat([value] * words) for key, value in inputs.items()}  # as many rows again as words
        slopes = capture(model, views, layer, 0).gradients[layer]
        found = Tokens(layer=layer).settled(inputs, model).read_at(slopes.square(), views, examples * words).sqrt()
        assert torch.allclose(found, by_hand.repeat(words, 1), atol=1e-6)


def test_without_a_model_two_readings_are_refused_and_a_layout_is_believed():
    values = torch.rand(6, 6, 3)
    tokens = {"tokens": torch.randint(2, 9, (6, 6))}
    with pytest.raises(InputError, match="pass layout='NTD' for examples first or layout='TND'"):
        Tokens(layer="x").read_at(values, tokens, 6)
    with pytest.raises(InputError, match="layout='TND'"):
        Tokens(layer="x").per_feature(values, 6)
    assert torch.equal(Tokens(layer="x", layout="TND").read_at(values, tokens, 6), values.sum(dim=2).T)
    assert torch.equal(Tokens(layer="x", layout="NTD").per_feature(values, 6), values.sum(dim=2))
    assert torch.equal(Tokens(layer="x").read_at(values, tokens, 6, module=nn.LSTM(3, 3)), values.sum(dim=2).T)
    assert torch.equal(Tokens(layer="x", layout="NDT").per_feature(values, 3), values.sum(dim=1))
    with pytest.raises(InputError, match=r"gives \(6, 6, 3\) for 4 examples, expected one row an example as layout='NTD'"):
        Tokens(layer="x", layout="NTD").read_at(values, {"tokens": tokens["tokens"][:4]}, 4)
    with pytest.raises(InputError, match="if its positions come first, pass layout='TND'"):
        rows_first(torch.rand(5, 4, 3), 4, Place("x"), count=7)
    assert rows_first(torch.rand(7, 4, 3), 4, Place("x"), count=7).shape == (4, 7, 3)
    with pytest.raises(InputError, match="It has 4 rows an example, as a layer has that runs on frames"):
        Vectors("video", "x", layer="conv").read_at(torch.rand(24, 5, 3), {"x": torch.rand(6, 4, 5)}, 6)
    with pytest.raises(InputError, match="got layout 'NWHC', expected one of.*did you mean 'NHWC'"):
        ImageCells(layer="x", layout="NWHC")


def test_a_text_convolution_holds_its_channels_second():
    class Convolution(nn.Module):
        def __init__(self, width):
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(20, width)
            self.conv = nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.Tanh())
            self.head = nn.Linear(width, 3)

        def forward(self, tokens):
            return self.head(self.conv(self.embedding(tokens).transpose(1, 2)).amax(dim=2))

    for width, words in ((4, 6), (6, 6), (6, 4)):
        model, inputs = Convolution(width).eval(), {"tokens": torch.randint(2, 20, (3, words))}
        slopes = capture(model, inputs, "conv.1", 0).gradients["conv.1"]
        for layer in ("conv", "conv.0", "conv.1"):
            found = Tokens(layer=layer).settled(inputs, model).read_at(slopes, inputs, 3)
            assert torch.allclose(found, slopes.sum(dim=1)), (layer, width, words)
        assert torch.allclose(Tokens(layer="embedding").settled(inputs, model).read_at(slopes.transpose(1, 2), inputs, 3),
                              slopes.sum(dim=1))


@pytest.mark.parametrize(("shape", "picture", "layout"), [
    ((2, 16, 9, 14), (20, 30), "NCHW"),  # convolutions without padding
    ((2, 9, 14, 16), (20, 30), "NHWC"),
    ((2, 64, 7, 10), (224, 320), "NCHW"),
    ((2, 8, 8, 64), (32, 32), "NHWC"),
    ((2, 64, 8, 8), (32, 32), "NCHW"),
    ((2, 9, 8, 8), (32, 32), "NCHW"),
    ((2, 8, 8, 8), (32, 32), None),
    ((2, 6, 8, 4), (32, 32), None),  # no map of a square picture
    ((2, 12, 16, 12), (24, 32), None),  # 16 x 12 is none, but 12 x 16 could be either way round of the channels
    ((2, 5, 4, 4), None, "NCHW"),
    ((2, 4, 4, 16), None, None),
])
def test_sizes_against_the_picture(shape, picture, layout):
    place = Place("block")
    if layout is None and shape != (2, 12, 16, 12):
        with pytest.raises(InputError, match="pass layout='NCHW'.*or layout='NHWC'"):
            map_layout(shape, place, picture)
    else:
        assert map_layout(shape, place, picture) == (layout or "NHWC")
    assert map_layout(shape, Place("conv", nn.Conv2d(1, 1, 1)), picture) == "NCHW"


def test_pixels_with_channels_last_are_no_pictures():
    images = torch.rand(3, 16, 16, 3)
    with pytest.raises(InputError, match=r"looks like \(N, H, W, C\), expected \(N, C, H, W\); turn it"):
        ImageCells().features({"images": images})
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval()
    with pytest.raises(InputError, match="pass layout='NHWC'"):
        attribute(model, images, "input:0", "saliency")
    by_hand = capture(model, images, "input:0", "predicted").gradients["input:0"].abs().amax(dim=3)
    assert torch.allclose(attribute(model, images, "input:0", "saliency", layout="NHWC"), by_hand)
    with pytest.raises(InputError, match="expected pixels"):
        ImageCells(layout="NHWC")


def test_a_convolution_on_frames_gives_no_map_a_video():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, video):
            examples, frames = video.shape[:2]
            return self.head(self.conv(video.flatten(0, 1)).relu().mean((2, 3)).unflatten(0, (examples, frames)).mean(1))

    with pytest.raises(InputError, match=r"gives \(24, 4, 8, 8\) for 6 examples.*It has 4 rows an example"):
        attribute(Frames().eval(), {"video": torch.rand(6, 4, 3, 8, 8)}, "conv")
    deep = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 256, 2)).eval()
    with pytest.raises(InputError, match="for video read the gradient with Video"):
        attribute(deep, torch.rand(2, 3, 4, 8, 8), "0")


class _Norm2d(nn.Module):
    """As timm's LayerNorm2d: channels second, whatever its name in the model."""

    def forward(self, values):
        return values / values.std(dim=1, keepdim=True)


class _Normed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), _Norm2d(), nn.Linear(6, 2)

    def forward(self, images):
        return self.head(self.norm(self.cut(images)).square().mean(dim=(2, 3)))


def test_a_layout_that_is_said_and_gives_no_map_is_refused():
    model, inputs = _Normed().eval(), {"images": torch.rand(2, 3, 16, 16)}
    with pytest.raises(InputError, match="gives .2, 6, 4, 4. for pictures of 16 x 16 pixels, which as layout='NHWC' is no map"):
        explain(model, inputs, [ImageCells(layer="norm", layout="NHWC")], "grad-cam")
    found = [explain(model, inputs, [ImageCells(layer="norm", layout=layout)], "grad-cam").joint() for layout in (None, "NCHW")]
    assert torch.equal(*found)
