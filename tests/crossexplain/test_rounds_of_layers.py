"""Rounds on models of others: one label of several, layers that are laid out otherwise, words of several pieces."""

import numpy as np
import pytest
import torch
from torch import nn

from crossexplain.checks import InputError
from crossexplain.gradients.called import Called
from crossexplain.gradients.capture import NoGradient
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.preflight import preflight
from crossexplain.gradients.rounds import feature_dividends, rounds
from crossexplain.gradients.views import FULL, Mask
from support.known_rules import BASELINES, IMAGES, INPUTS, MODALITIES, RULES, TOKENS, N, Toy


class Labels(Toy):
    """Several labels: one of the picture, one of the text, one of both together; and one that is always a no."""

    TRUTH = ["image alone", "text alone", "both only"]

    def __init__(self):
        super().__init__(None)

    def forward(self, images, tokens):
        light, word = images.mean(dim=(1, 2, 3)), self.embedding(tokens)[..., 0].sum(dim=1)
        return torch.stack([3 * light, 2 * word, 4 * light * word, 0.01 * light - 5], dim=1)


def same(record, other):
    """Return whether two records hold the same numbers."""
    pairs = [(record.passes[key], other.passes[key]) for key in other.passes]
    return record.passes.keys() == other.passes.keys() and all(
        torch.allclose(one.logits, two.logits, atol=1e-5)
        and all(torch.allclose(getattr(one, part)[name], values, atol=1e-5) for part in ("norms", "importance")
                for name, values in getattr(two, part).items()) for one, two in pairs) and all(
        torch.allclose(side.cross, other.by_side[key].cross, atol=1e-5) and side.picked.equal(other.by_side[key].picked)
        for key, side in record.by_side.items())


@pytest.mark.parametrize("label", range(3))
def test_the_label_that_is_followed_is_the_one_that_is_judged(label):
    model = Labels().eval()
    record = rounds(model, INPUTS, MODALITIES, baselines=BASELINES, target=label, progress=False)
    of_function = rounds(model, INPUTS, MODALITIES, baselines=BASELINES, target=lambda out: out[:, label], progress=False)
    assert same(record, of_function)
    assert record.verdict().answer == Labels.TRUTH[label] and record.paper_rule() == Labels.TRUTH[label]
    assert (record.each() == Labels.TRUTH[label]).mean() > 0.9
    with torch.no_grad():
        logit, without = (model(**{**INPUTS, "images": images})[:, label] for images in (IMAGES, 0 * IMAGES))
    assert np.allclose(record.margin("data", FULL), logit, atol=1e-5)  # its own logit, whichever class is predicted
    assert np.array_equal(record.flips("zero + mask", "image masked"), ((logit > 0) != (without > 0)).numpy())
    found, by_function = (feature_dividends(model, INPUTS, MODALITIES, target=target, progress=False)
                          for target in (label, lambda out: out[:, label]))
    sign = logit.sign()[:, None]
    assert all(torch.allclose(values, sign * by_function[name], atol=1e-4) for name, values in found.items())


def test_a_list_of_labels_gives_one_record_each():
    model = Labels().eval()
    records = rounds(model, INPUTS, MODALITIES, baselines=BASELINES, target=[0, 2], progress=False)
    assert list(records) == [0, 2]
    for label, record in records.items():
        assert same(record, rounds(model, INPUTS, MODALITIES, baselines=BASELINES, target=label, progress=False))
        assert record.verdict().answer == Labels.TRUTH[label]
    with pytest.raises(InputError, match="class 7, the model has classes 0 to 3"):
        rounds(model, INPUTS, MODALITIES, target=[0, 7], progress=False)


def test_a_label_that_is_always_a_no_says_so():
    verdict = rounds(Labels().eval(), INPUTS, MODALITIES, target=3, progress=False).verdict()
    assert verdict.answer == "image alone" and "All 96 logits lie on one side of 0 (from -5." in verdict.reason


@pytest.mark.parametrize("stop", [
    lambda values: (8 * values).round() / 8, lambda values: values.detach(), lambda values: (values > 0).float(),
])
def test_no_gradient_is_no_proof_of_no_influence(stop):
    class Stopped(Toy):
        def __init__(self):
            super().__init__(RULES["both added"])
            self.eye = nn.Identity()

        def forward(self, images, tokens):
            return super().forward(stop(self.eye(images)), tokens)

    for layer in ("input:images", "eye"):
        with pytest.raises(NoGradient, match=f"{layer}.*hidden the logits of the first 16 example.s. move by up to"):
            rounds(Stopped().eval(), INPUTS, [ImageCells(layer=layer), Tokens()], progress=False)
    found = feature_dividends(Stopped().eval(), INPUTS, MODALITIES, progress=False)
    assert float(found["image"].abs().max()) < 1e-4  # masks need no gradient, and a sum has no interaction


class Recurrent(nn.Module):
    """A GRU over the words whose steps come first or second."""

    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.batch_first = batch_first
        self.embedding, self.gru = nn.Embedding(12, 4), nn.GRU(4, 6, batch_first=batch_first)
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(7, 1)

    def forward(self, images, tokens):
        words = self.embedding(tokens if self.batch_first else tokens.T)
        steps = self.mix(self.gru(words)[0]).tanh()
        read = steps.amax(dim=1 if self.batch_first else 0)
        light = images.mean(dim=(1, 2, 3))[:, None]
        return self.head(torch.cat([read * (1 + light), light], dim=1))[:, 0]


@pytest.mark.parametrize("layer", ["embedding", "gru", "mix"])
@pytest.mark.parametrize("by", ["gradient", "gradient x activation"])
@pytest.mark.parametrize("n", [3, 8])  # as many examples as words, and more
def test_a_layer_with_its_steps_first_is_read_by_examples(layer, by, n):
    inputs = {key: value[:n] for key, value in INPUTS.items()}
    settings = {"progress": False, "by": by, "baselines": [{"image": "mean", "text": "delete"}, "data"], "pick": "cross"}
    told = [ImageCells(), Tokens(layer=layer, layout="TND")]
    record = rounds(Recurrent(batch_first=False).eval(), inputs, told, **settings)
    plain = rounds(Recurrent(batch_first=True).eval(), inputs, [ImageCells(), Tokens(layer=layer)], **settings)
    assert same(record, plain)
    for key, side in record.by_side.items():
        for measure, values in side.similarity._asdict().items():
            assert torch.allclose(values, getattr(plain.by_side[key].similarity, measure), atol=1e-4, equal_nan=True)


class Joint(nn.Module):
    """Words and four patches in one sequence, a start token before them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.patches = nn.Embedding(12, 5), nn.Conv2d(1, 5, 2, 2)
        self.start = nn.Parameter(torch.randn(1, 1, 5))
        self.mix, self.head = nn.Linear(5, 5), nn.Linear(5, 1)

    def after(self, row):
        weights = (row @ row[:, :1].transpose(1, 2))[..., 0].softmax(dim=1)
        return self.head((weights[..., None] * row.tanh()).sum(dim=1))[:, 0]

    def row(self, images, tokens):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return self.mix(torch.cat([self.start.expand(len(images), 1, 5), self.embedding(tokens), patches], dim=1))

    def forward(self, images, tokens):
        return self.after(self.row(images, tokens))


def test_words_and_patches_of_one_sequence_have_their_own_gradients():
    model, n = Joint().eval(), 8
    inputs = {key: value[:n] for key, value in INPUTS.items()}
    modalities = [ImageCells(layer="mix", positions=slice(4, 8), patches=(2, 2)), Tokens(layer="mix", positions=slice(1, 4))]
    record = rounds(model, inputs, modalities, baselines=[{"image": "zero", "text": "mask"}], progress=False)

    def gradient(images, tokens):
        row = model.row(images, tokens).detach().requires_grad_()
        return torch.autograd.grad(model.after(row).sum(), row)[0][0]

    for i in range(n):
        images, tokens = IMAGES[i : i + 1], TOKENS[i : i + 1]
        masked = torch.where(tokens == 0, 0, 1)
        for view, slope in (("full", gradient(images, tokens)), ("image masked", gradient(0 * images, tokens)),
                            ("text masked", gradient(images, masked))):
            found = record.passes["zero + mask", view]
            for name, positions in (("image", slice(4, 8)), ("text", slice(1, 4))):
                assert found.norms[name][i].item() == pytest.approx(slope[positions].norm().item(), abs=1e-6)
                if view != f"{name} masked":
                    sizes = slope[positions].norm(dim=1) * (tokens[0] != 0 if name == "text" else 1)
                    assert torch.allclose(found.importance[name][i] * record.scale[name][i], sizes, atol=1e-6)
        difference = (gradient(images, tokens) - gradient(0 * images, tokens))[1:4].norm(dim=1) * (tokens[0] != 0)
        assert torch.allclose(record.by_side["zero + mask", "text"].cross[i] * record.scale["text"][i], difference, atol=1e-6)


def test_a_word_of_several_pieces_is_one_feature():
    numbers = torch.tensor([[0, 0, 1]]).expand(N, -1).where(TOKENS != 0, -1)
    pieces, n = {**INPUTS, "word": numbers}, N
    model = Recurrent(batch_first=True).eval()
    baselines = [{"image": "zero", "text": "mask"}, {"image": "zero", "text": "delete"}, "data"]
    settings = {"baselines": baselines, "progress": False}
    whole = rounds(model, pieces, [ImageCells(), Tokens(words="word")], **settings)
    plain = rounds(model, INPUTS, MODALITIES, **settings)
    assert whole.features["text"].equal(torch.stack([torch.ones(n, dtype=torch.bool), TOKENS[:, 2] != 0], dim=1))
    for baseline in whole.baselines:
        for view in ("full", "image masked", "text masked"):
            one, other = whole.passes[baseline, view], plain.passes[baseline, view]
            assert torch.allclose(one.logits, other.logits, atol=1e-5)
            if view != "text masked":
                squares = (other.importance["text"] * plain.scale["text"][:, None]) ** 2
                expected = torch.stack([squares[:, :2].sum(dim=1), squares[:, 2]], dim=1).sqrt()
                assert torch.allclose(one.importance["text"] * whole.scale["text"][:, None], expected, atol=1e-5)
    picked = whole.by_side["zero + mask", "text"].picked
    hidden = whole.passes["zero + mask", "text picked masked"]
    for i in (0, 1, 5):  # both pieces of a word are hidden together
        words = torch.where(picked[i][numbers[i].clamp(min=0)] & (numbers[i] >= 0), 1, TOKENS[i])
        with torch.no_grad():
            assert hidden.logits[i, 0].item() == pytest.approx(model(IMAGES[i : i + 1], words[None]).item(), abs=1e-5)
    found = feature_dividends(model, pieces, [ImageCells(), Tokens(words="word")], progress=False)["text"]
    assert found.shape == (n, 2) and (found[TOKENS[:, 2] == 0, 1] == 0).all()


def test_what_belongs_to_all_examples_is_handed_on():
    class Against(Toy):
        """The evidence is read against class vectors, as many as there are examples."""

        def __init__(self):
            super().__init__(None)

        def forward(self, images, tokens, classes):
            light, word = images.mean(dim=(1, 2, 3)), self.embedding(tokens)[..., 0].sum(dim=1)
            return torch.stack([light, word, light * word, light.sin()], dim=1) @ classes.T

    n = 6
    classes = torch.randn(n, 4, generator=torch.Generator().manual_seed(5))
    inputs = {key: value[:n] for key, value in INPUTS.items()}

    class Fixed(Against):
        def forward(self, images, tokens):
            return super().forward(images, tokens, classes)

    record = rounds(Called(Against().eval(), common=("classes",)), {**inputs, "classes": classes}, MODALITIES, progress=False)
    assert same(record, rounds(Fixed().eval(), inputs, MODALITIES, progress=False))
    found, plain = (feature_dividends(model, given, MODALITIES, progress=False, baseline="data") for model, given in (
        (Called(Against().eval(), common=("classes",)), {**inputs, "classes": classes}), (Fixed().eval(), inputs)))
    assert all(torch.allclose(values, plain[name], atol=1e-5) for name, values in found.items())


class AtTheEnd(nn.Module):
    """Reads its answer at the last place, with or without a mask of padding."""

    def __init__(self, masked):
        super().__init__()
        torch.manual_seed(0)
        self.masked, self.embedding, self.head = masked, nn.Embedding(12, 4), nn.Linear(5, 1)

    def forward(self, images, tokens, mask):
        words = self.embedding(tokens)
        counts = mask[..., None] if self.masked else torch.ones_like(mask)[..., None]
        read = words[:, -1] + (words * counts).sum(dim=1) / counts.sum(dim=1)
        return self.head(torch.cat([read.sin(), images.mean(dim=(1, 2, 3))[:, None]], dim=1))[:, 0]


def test_a_deleted_word_leaves_its_padding_where_the_model_does_not_read():
    n, words = 12, TOKENS[:24:2]  # none is padded
    inputs = {"images": IMAGES[:n], "tokens": words, "mask": torch.ones_like(words)}
    text, baseline = Tokens(attention="mask"), {"image": "zero", "text": "delete"}
    keep = {"text": Mask(torch.tensor([True, False, True]), "delete")}
    with pytest.raises(InputError, match="attend to nothing"):  # of a text without special tokens nothing is left
        rounds(AtTheEnd(masked=True).eval(), inputs, [ImageCells(), text], baselines=[baseline], progress=False)
    special = [ImageCells(), Tokens(attention="mask", special=(10,))]
    model = AtTheEnd(masked=True).eval()
    record = rounds(model, inputs, special, baselines=[baseline], extra={"gone": keep}, progress=False)
    with torch.no_grad():  # the second word is a special token, which stays
        short = model(IMAGES[:n], words, torch.ones_like(words))
        assert torch.allclose(record.extra["gone"].logits[:, 0], short, atol=1e-5)
        last = words[:, 1:2]
        expected = model(IMAGES[:n], last, torch.ones_like(last))
    assert torch.allclose(record.passes["zero + delete", "text masked"].logits[:, 0], expected, atol=1e-5)
    with pytest.raises(InputError, match="it reads padding as text"):
        rounds(AtTheEnd(masked=False).eval(), inputs, special, baselines=[baseline], progress=False)
    assert "delete" not in rounds(AtTheEnd(masked=False).eval(), inputs, special, progress=False).baselines[0]


def test_a_layer_of_which_the_start_token_alone_is_read_has_no_gradient_at_the_features():
    class First(Joint):
        def after(self, row):
            weights = (row @ row[:, :1].transpose(1, 2)).softmax(dim=1)
            self.mixed = self.last((weights * row).sum(dim=1, keepdim=True) + row)
            return self.head(self.mixed[:, 0].tanh())[:, 0]

        def __init__(self):
            super().__init__()
            self.last = nn.Linear(5, 5)

    inputs = {key: value[:9] for key, value in INPUTS.items()}
    for layer, works in (("mix", True), ("last", False)):
        modalities = [ImageCells(layer=layer, positions=slice(4, 8), patches=(2, 2)),
                      Tokens(layer=layer, positions=slice(1, 4))]
        if works:
            assert rounds(First().eval(), inputs, modalities, progress=False).scale["image"].gt(0).all()
        else:
            with pytest.raises(NoGradient, match="'last'.*move by up to"):
                rounds(First().eval(), inputs, modalities, progress=False)
        names = preflight(First().eval(), inputs, modalities).names
        assert ("no gradient" in names) != works
