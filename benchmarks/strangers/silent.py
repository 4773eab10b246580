"""An answer came, and it was not true: what is right instead, or refused."""

import copy
import warnings
from functools import partial

import torch
from torch import nn

from benchmarks.strangers import by_hand, case, close, doors, refused, right_or_refused
from benchmarks.strangers.hugging_face import (
    Diagonal,
    dual,
    last_token,
    llava,
    sentence_pairs,
    vilt,
    visual_bert,
    words_of,
)
from benchmarks.strangers.models import FirstWord, Packed, Pair, Patches, Prompted, Rounded, Rule, Towered, pairs, signs
from crossexplain import Called, Game, ImageCells, Tokens, Vectors, capture, explain, preflight, rounds
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.capture import NoGradient
from crossexplain.gradients.views import Mask, Views

NORM = "gradient norm"


def _cells(slopes, grid=(2, 2)):
    """Return the length of the gradient (N, C, h, w) over cells that divide it evenly."""
    n, _, height, width = slopes.shape
    squares = slopes.square().sum(dim=1).reshape(n, grid[0], height // grid[0], grid[1], width // grid[1])
    return squares.sum(dim=(2, 4)).flatten(1).sqrt()


# ---------------------------------------------------------------- layouts of layers


def _swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3).eval()


@case("A1")
def map_at_a_norm_with_channels_last():
    """Grad-CAM at a layer norm of torchvision's Swin, (N, h, w, C), weighs the channels and not the columns."""
    net, images = _swin(), torch.rand(2, 3, 64, 64)
    values, slopes = (part.permute(0, 3, 1, 2) for part in by_hand(net, {"x": images}, "norm"))
    expected = (values * slopes.mean(dim=(2, 3), keepdim=True)).sum(dim=1)
    found = maps.attribute(net, images, "norm", "grad-cam", target=0, sign="for", positive=False)
    assert close(found, expected), found.shape


class _Swinned(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.embedding, self.head = _swin(), nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, images, tokens):
        return self.tower(images) + self.head(self.embedding(tokens).mean(dim=1))


def _first(output):
    """Return the first logit of what a model gives."""
    return (output if isinstance(output, torch.Tensor) else output.logits)[:, 0]


def _norms(model, inputs, modalities, name):
    """Return the length of the gradient of the first logit at the features of a modality."""
    return explain(model, inputs, modalities, NORM, target=_first).values[name]


def _norm_of_cells(model, inputs, layer, **settings):
    return _norms(model, inputs, [ImageCells(layer=layer, **settings), Tokens()], "image")


@case("A1")
def cells_at_layers_with_channels_last():
    """Cells at Swin's norm are those of its places; a block, which does not say its layout, is right or asks for it."""
    model, inputs = _Swinned().eval(), pairs(2, side=64, channels=3)
    for layer, settings in (("tower.norm", {}), ("tower.features.3", {"layout": "NHWC"}), ("tower.permute", {})):
        slopes = by_hand(model, inputs, layer)[1]
        expected = _cells(slopes if layer == "tower.permute" else slopes.permute(0, 3, 1, 2))
        assert close(_norm_of_cells(model, inputs, layer, **settings), expected), layer
    expected = _cells(by_hand(model, inputs, "tower.features.1")[1].permute(0, 3, 1, 2))
    right_or_refused(partial(_norm_of_cells, model, inputs, "tower.features.1"), expected, "layout")


@case("A1")
def norm_of_a_convnext():
    """The layer norm of a ConvNeXt block of transformers holds channels last, its convolution channels second."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    net = ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)).eval()
    inputs = {"pixel_values": torch.rand(2, 3, 64, 64)}
    block = [name for name, _ in net.named_modules() if name.endswith("layers.0")][-1]
    for layer, last in ((f"{block}.layernorm", True), (f"{block}.dwconv", False)):
        values, slopes = by_hand(net, inputs, layer, _first)
        product = (values * slopes).sum(dim=3 if last else 1)
        found = maps.attribute(net, inputs, layer, "hires-cam", target=0, sign="for", positive=False)
        assert close(found, product), (layer, found.shape)


def _counted_cells(model, inputs, layer, grid, **settings):
    """Return which cells have a gradient."""
    cells = ImageCells(layer=layer, grid=grid, **settings)
    return explain(model, inputs, [cells, Tokens()], NORM).values["image"] > 0


@case("A2")
def patches_of_a_wide_picture():
    """Of 4 x 8 patches the last column alone counts: so do the cells on the right."""
    model = Patches(1, lambda seen: seen[..., -1]).eval()
    inputs = {"images": torch.rand(3, 1, 32, 64), "tokens": torch.randint(2, 4, (3, 1))}
    assert _counted_cells(model, inputs, None, (2, 2)).tolist() == [[False, True, False, True]] * 3
    for settings in ({}, {"patches": (4, 8)}):
        found = _counted_cells(model, inputs, "tokens", (2, 2), **settings)
        assert found.tolist() == [[False, True, False, True]] * 3, settings
    heat = maps.attribute(model, inputs, "tokens", "gradient x input", positive=False, grid=(4, 8))
    assert heat.shape == (3, 4, 8) and not heat[..., :-1].any()


@case("A2")
def patches_that_could_be_two_grids():
    """Maps of 2 x 8 and of 1 x 9 patches have those rows and columns, or the grid is asked for."""
    for rows, columns in ((2, 8), (1, 9)):
        model = Patches(0, lambda seen: seen[..., -1]).eval()
        inputs = {"images": torch.rand(3, 1, 8 * rows, 8 * columns), "tokens": torch.randint(2, 4, (3, 1))}
        expected = by_hand(model, inputs, "cut", lambda output: output)
        expected = (expected[0] * expected[1]).sum(dim=1)
        read = partial(maps.attribute, model, inputs, "tokens", "gradient x input", target=1, sign="for", positive=False)
        assert close(read(grid=(rows, columns)), expected)
        right_or_refused(read, expected, "grid")


@case("A3")
def grids_that_are_not_the_patches_own():
    """Where the first patch alone counts, so does the first cell alone, whatever the grid, class tokens and registers."""
    for side, special in ((4, 1), (3, 1), (3, 0), (4, 5), (7, 1)):
        model = Patches(special, lambda seen: seen[..., 0, 0]).eval()
        inputs = {"images": torch.rand(2, 1, 8 * side, 8 * side), "tokens": torch.randint(2, 4, (2, 1))}
        for grid in ((2, 2), (3, 3), (1, 2), (2, 4), (side, side)):
            expected = _counted_cells(model, inputs, None, grid)
            right_or_refused(partial(_counted_cells, model, inputs, "tokens", grid), expected)


@case("A4")
def words_of_a_joint_sequence():
    """Words that share a sequence with patches are the places that the caller names; without them the layer is refused."""
    for (model, inputs, (picture, words)), layer in ((vilt(), "vilt.encoder.layer.0"),
                                                     (visual_bert(), "visual_bert.embeddings")):
        count, present = inputs["input_ids"].shape[1], words.features(inputs)
        expected = by_hand(model, inputs, layer, _first)[1][:, :count].norm(dim=2)
        named = words_of(model, layer=layer, positions=slice(0, count))
        assert close(_norms(model, inputs, [picture, named], "text")[present], expected[present]), layer
        refused(partial(_norms, model, inputs, [picture, words_of(model, layer=layer)], "text"), "positions")


@case("A4")
def vectors_of_a_joint_sequence():
    """Vectors that stand behind the words of one sequence are the places that the caller names."""
    model, inputs, (_, words) = visual_bert()
    count, layer = inputs["input_ids"].shape[1], "visual_bert.embeddings"
    expected = by_hand(model, inputs, layer, _first)[1][:, count:].norm(dim=2)
    seen = Vectors("image", "visual_embeds", layer=layer, positions=slice(count, None))
    assert close(_norms(model, inputs, [seen, words], "image"), expected)
    refused(partial(_norms, model, inputs, [Vectors("image", "visual_embeds", layer=layer), words], "image"), "positions")


@case("A4")
def patches_in_a_random_order():
    """ViLT puts the patches of its joint sequence in an order that it draws: cells there are refused, or come out the same."""
    model, inputs, (_, words) = vilt()
    cells = ImageCells(input="pixel_values", layer="vilt.encoder.layer.0", positions=slice(7, None))

    def twice():
        return [explain(model, inputs, [cells, words], NORM).values["image"] for _ in range(3)]

    right_or_refused(twice, lambda found: close(found[0], found[1]) and close(found[0], found[2]))
    refused(lambda: explain(model, inputs, [ImageCells(input="pixel_values", layer="vilt.encoder.layer.0"), words], NORM))


@case("A7")
def words_first_and_examples_second():
    """Layers of an LSTM or an encoder that hold (T, N, D) are turned when told so, and not taken for (N, T, D) when not."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, enable_nested_tensor=False)
    for mix in (nn.Identity(), nn.LSTM(4, 4), encoder):
        model = FirstWord(mix).eval()
        for n, words in ((6, 6), (8, 5), (3, 5)):
            inputs = {"images": torch.rand(n, 1, 8, 8), "tokens": torch.randint(2, 20, (n, words))}
            expected = by_hand(model, inputs, "mix")[1].norm(dim=2).T  # (N, T)
            turned, plain = (partial(_norms, model, inputs, [ImageCells(), Tokens(layer="mix", layout=layout)], "text")
                             for layout in ("TND", None))
            assert close(turned(), expected), (type(mix).__name__, n, words)
            right_or_refused(plain, expected, "layout")
            right_or_refused(partial(tokens.attribute, model, inputs, "mix", target=0, special="keep"), expected)


# ---------------------------------------------------------------- which output is meant


@case("A8")
def first_of_several_tensors():
    """(features, logits) is not read as the features: the output is asked for, and then the answer is that of the logits."""
    forms = {1: lambda seen, said: (said[:, None].expand(-1, 6) * 1, torch.stack([-seen, seen], dim=1)),
             "scores": lambda seen, said: {"features": said[:, None] * torch.ones(6), "scores": torch.stack([-seen, seen], 1)}}
    inputs, modalities = signs(), [ImageCells(), Tokens()]
    for output, form in forms.items():
        model = Rule(form).eval()
        for door in [*doors(model, inputs, modalities).values(), partial(preflight, model, inputs, modalities)]:
            refused(door, "output=", "target")
        assert rounds(Called(model, output=output), inputs, modalities, progress=False).verdict().answer == "image alone"
    one = Rule(lambda seen, said: {"features": said, "logits": torch.stack([-seen, seen], dim=1)}).eval()
    assert rounds(one, inputs, modalities, progress=False).verdict().answer == "image alone"


@case("A9")
def every_picture_with_every_text():
    """CLIP and SigLIP as they are give (N, N): refused, or read as the pairs; the diagonal gives what a wrapper gives."""
    for kind in ("clip", "siglip"):
        model, inputs, modalities = dual(kind)
        wrapper = Diagonal(model).eval()
        inside = [modalities[0], words_of(wrapper, pad_id=1, attention=None)]
        expected = Game(wrapper, inputs, inside, target=1, progress=False).values_of_all()
        diagonal = Called(model, output=lambda output: output.logits_per_image.diagonal())
        assert close(Game(diagonal, inputs, modalities, target=1, progress=False).values_of_all(), expected), kind
        for door in doors(model, inputs, modalities).values():
            refused(door, "diagonal()")


class _Held(nn.Module):
    """A :class:`Prompted` that holds its class vectors."""

    def __init__(self, model, classes):
        super().__init__()
        self.net, self.classes = model, classes

    def forward(self, images, tokens):
        return self.net(images, tokens, self.classes)


@case("A10")
def as_many_classes_as_examples():
    """Class vectors (C, D) stay whole where there are as many as examples: values are those of a model that holds them."""
    for n, count in ((5, 5), (4, 3)):
        model, modalities = Prompted().eval(), [ImageCells(), Tokens()]
        inputs = pairs(n, words=3) | {"classes": torch.randn(count, 4)}
        held, inside = _Held(model, inputs["classes"]).eval(), [ImageCells(), Tokens(layer="net.embedding")]
        plain, named = {key: inputs[key] for key in ("images", "tokens")}, Called(model, common=("classes",))
        expected = Game(held, plain, inside, progress=False).values_of_all()
        assert close(Game(named, inputs, modalities, progress=False).values_of_all(), expected), (n, count)
        right_or_refused(lambda: Game(model, inputs, modalities, progress=False).values_of_all(), expected, "common")  # noqa: B023
        target = torch.arange(n) % count
        for method in ("occlusion", NORM):
            right = explain(held, plain, inside, method, target=target).joint()
            assert close(explain(named, inputs, modalities, method, target=target).joint(), right), method
            right_or_refused(lambda: explain(model, inputs, modalities, method, target=target).joint(), right, "common")  # noqa: B023


# ---------------------------------------------------------------- what belongs to words


def _view(inputs, words, mask, donors=None):
    """Return the inputs of the first example under a mask."""
    laid_out = Views(inputs, [words], {"masked": {words.name: mask}}, donors=donors, allow_empty=True).inputs
    return {key: value[:1] for key, value in laid_out.items()}


@case("A12")
def token_types_follow_their_words():
    """Of sentence pairs, a deleted word takes its token type along, and a borrowed sentence brings its own."""
    model, inputs, (words,) = sentence_pairs()
    keep = torch.ones(9, dtype=torch.bool)
    keep[1:3] = False
    with torch.no_grad():
        expected = model(**{key: value[:1, keep] for key, value in inputs.items()}).logits
        assert close(model(**_view(inputs, words, Mask(keep, "delete"))).logits, expected)
        ids = torch.tensor([[2, 30, 3, 31, 32, 33, 34, 35, 3]])
        donor = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.tensor([[0] * 3 + [1] * 6])}
        borrowed = _view(inputs, words, Mask(None, "data", torch.tensor([0, 0])), donor)
        assert close(model(**borrowed).logits, model(**donor).logits)


@case("A12")
def an_input_of_words_that_nobody_named():
    """An input (N, T) of no known meaning is not left where it was when words are deleted: it is asked for."""
    _, inputs, (words,) = sentence_pairs()
    inputs = {("segments" if key == "token_type_ids" else key): value for key, value in inputs.items()}
    keep = torch.ones(9, dtype=torch.bool)
    keep[1] = False
    refused(lambda: _view(inputs, words, Mask(keep, "delete")), "segments", "along", "stay")


def _seen(model, inputs, mask, donors, **settings):
    """Return the logits of all examples under a mask of their words."""
    plan = {"masked": {"text": mask}}
    return model(**Views(inputs, [ImageCells(), Tokens(**settings)], plan, donors=donors, allow_empty=True).inputs)


@case("A13")
def lengths_follow_their_sentences():
    """A model that is told lengths gets those of the shortened and of the borrowed sentence, or they are asked for."""
    n, most = 6, 7
    lengths = torch.tensor([7, 3, 5, 4, 6, 7])
    ids = torch.randint(2, 20, (n, most)).masked_fill(torch.arange(most) >= lengths[:, None], 0)
    inputs = {"images": torch.rand(n, 1, 8, 8), "tokens": ids, "lengths": lengths}
    model, keep = Packed().eval(), torch.ones(n, most, dtype=torch.bool)
    keep[:, 0] = False
    donors = {key: value.flip(0) for key, value in inputs.items()}
    with torch.no_grad():
        shorter = torch.cat([model(inputs["images"][i : i + 1], ids[i : i + 1, 1 : lengths[i]], lengths[i : i + 1] - 1)
                             for i in range(n)])
        lent = model(inputs["images"], donors["tokens"], donors["lengths"])
        for mask, expected in ((Mask(keep, "delete"), shorter), (Mask(None, "data", torch.arange(n)), lent)):
            assert close(_seen(model, inputs, mask, donors, lengths="lengths"), expected), mask.baseline
            right_or_refused(partial(_seen, model, inputs, mask, donors), expected, "lengths")


@case("A14")
def the_last_place_of_a_prompt():
    """A decoder that is read at its last place is asked about the shortened prompt, not about its padding."""
    model, inputs, (picture, words) = llava()
    keep = torch.ones(inputs["input_ids"].shape[1], dtype=torch.bool)
    keep[6] = False
    with torch.no_grad():
        shorter = {key: value[:1, keep] if value.ndim == 2 else value[:1] for key, value in inputs.items()}
        expected = last_token(model(**shorter))
        assert close(last_token(model(**_view(inputs, words, Mask(keep, "delete")))), expected)
    plain = words_of(model, 64, mask_id=None, special=words.special)
    without = torch.ones(1, 1 + len(keep), dtype=torch.bool)  # one player for the picture, then the tokens
    without[0, 1 + 6] = False
    for text in (words, plain):
        right_or_refused(lambda: _value(model, inputs, [picture, text], without), expected, "padding_side")  # noqa: B023


def _value(model, inputs, modalities, keep):
    """Return the logit of the token for the first example with only some players left."""
    game = Game(model, inputs, modalities, baselines={"text": "delete"}, players={"image": 1}, target=last_token,
                progress=False)
    return game(keep)[0, :1] * (2 * game.target[:1] - 1)


# ---------------------------------------------------------------- what is judged


@case("A15")
def one_label_of_several():
    """Of three labels, one rests on the picture, one on the word, one on both: each has its own verdict and Shapley values."""
    model, modalities = Rule(lambda seen, said: torch.stack([seen, said, seen * said], dim=1)).eval(), [ImageCells(), Tokens()]
    inputs, truth = signs(), ["image alone", "text alone", "both only"]
    records = rounds(model, inputs, modalities, target=[0, 1, 2], progress=False)
    assert {label: record.verdict().answer for label, record in records.items()} == dict(enumerate(truth))
    assert rounds(model, inputs, modalities, target=1, progress=False).verdict().answer == truth[1]
    few = {key: value[:4] for key, value in inputs.items()}
    found = explain(model, few, modalities, "exact shapley", target=0).values
    assert close(found["text"], torch.zeros(4, 1)) and found["image"].abs().sum() > 0.1


@case("A19")
def one_or_two_examples():
    """What each of a few examples rests on is not made up from the example itself."""
    model = Rule(lambda seen, said: torch.stack([said, -said], dim=1)).eval()
    for n in (1, 2):
        inputs = {key: value[:n] for key, value in signs().items()}
        record = rounds(model, inputs, [ImageCells(), Tokens()], baselines=[{"image": "zero", "text": "mask"}], progress=False)
        right_or_refused(record.each, lambda answers: set(answers) == {"text alone"}, "example")


@case("A20")
def probabilities_for_logits():
    """A sigmoid or a softmax at the end is noticed by every door, which asks for what goes into it."""
    inputs, modalities = signs(60), [ImageCells(), Tokens()]
    ends = (torch.sigmoid, lambda z: torch.sigmoid(z)[:, None], lambda z: torch.stack([-z, z], dim=1).softmax(dim=1))
    for end in ends:
        model = Rule(lambda seen, said, end=end: end(seen * said)).eval()
        for door in doors(model, inputs, modalities).values():
            refused(door, "what goes into the")
        assert any("probabilit" in str(finding) for finding in preflight(model, inputs, modalities))


# ---------------------------------------------------------------- gradients of zero, and modes


GRADIENTS = (NORM, "gradient x input", "integrated gradients", "saliency", "cross gradient")


@case("A22")
def no_gradient_is_no_row_of_zeros():
    """Where a tower runs without a graph or is quantised, methods that read gradients say so instead of giving zeros."""
    inputs, modalities = pairs(), [ImageCells(), Tokens()]
    model = Towered(torch.no_grad).eval()
    for method in GRADIENTS:
        refused(partial(explain, model, inputs, modalities, method), kind=NoGradient)
    assert explain(model, inputs, modalities, "feature ablation").values["image"].abs().sum() > 0
    with warnings.catch_warnings(record=True):  # PyTorch's, that this will go
        small = torch.ao.quantization.quantize_dynamic(Pair().eval(), {nn.Linear}, dtype=torch.qint8)
    refused(lambda: explain(small, inputs, modalities, NORM), "quanti", kind=NoGradient)


@case("A23")
def rounding_is_not_disuse():
    """A model that rounds inside has a gradient of 0 at the picture and still uses it: gradients are refused there."""
    inputs, modalities, model = pairs(60), [ImageCells(), Tokens()], Rounded().eval()
    with torch.no_grad():
        model.conv.weight.mul_(8)
    refused(lambda: rounds(model, inputs, modalities, progress=False), kind=NoGradient)
    refused(lambda: explain(model, inputs, modalities, NORM), kind=NoGradient)
    assert not any("Nothing of image reaches" in str(finding) for finding in preflight(model, inputs, modalities))


class _Dropping(Pair):
    def __init__(self):
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(3)

    def forward(self, images, tokens):
        return self.norm(self.drop(self.logits(images, tokens)))


@case("A24")
def a_model_in_train_mode():
    """Maps and word scores of a model in train mode, whose dropout draws anew, are refused."""
    inputs, model = pairs(), _Dropping().train()
    refused(lambda: maps.attribute(model, inputs, "conv"), "model.eval()")
    refused(lambda: tokens.attribute(model, inputs, "embedding", special="keep"), "model.eval()")


@case("A25")
def one_part_in_train_mode():
    """One dropout or batch norm that was put back into train mode is found by every door."""
    inputs, modalities = pairs(), [ImageCells(), Tokens()]
    for part in ("drop", "norm"):
        model = _Dropping().eval()
        getattr(model, part).train()
        for door in [*doors(model, inputs, modalities).values(), partial(maps.attribute, model, inputs, "conv"),
                     partial(tokens.attribute, model, inputs, "embedding", special="keep")]:
            refused(door, part, "train mode")


# ---------------------------------------------------------------- figures, and half precision


@case("A29")
def words_of_every_script_are_drawn():
    """Chinese, Arabic and emoji are drawn with signs of their own, or the reader is told in words that they are not."""
    from crossexplain_book import figures

    for text in ("一只小狗 在 草地 上", "قطة صغيرة على العشب", "a small 🐶 runs"):
        words = text.split()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            figure = figures.tokens([words], [torch.rand(len(words)).numpy()], alt="the words of a sentence by their score",
                                    caption="One. Two.", name="fig-words")
            right_or_refused(figure.png, lambda drawn: bool(drawn), "font")
        assert not [warning for warning in caught if "missing from" in str(warning.message)], text


@case("A30")
def gradients_too_small_for_half_precision():
    """Where most of a gradient vanishes in half precision, the pre-flight says so, or the gradient is refused."""
    class Tiny(Pair):
        def forward(self, images, tokens):
            return self.logits(images, tokens) * 1e-5

    model, inputs = Tiny().eval(), pairs(40, side=16)
    inputs["images"] = inputs["images"].half()
    half, single = (capture(of, inputs | {"images": inputs["images"].to(kind)}, "conv", 0).gradients["conv"]
                    for of, kind in ((copy.deepcopy(model).half(), torch.half), (model, torch.float)))
    assert ((half == 0) & (single != 0)).sum() > 0.25 * (single != 0).sum(), "the case loses what it is about"
    findings = preflight(model.half(), inputs, [ImageCells(layer="conv"), Tokens()])
    assert any("underflow" in str(finding) for finding in findings), findings
