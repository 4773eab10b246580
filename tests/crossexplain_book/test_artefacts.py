"""What the paper's code got wrong: there in its own form, not here. Attention masks and signs of maps: see their modules."""

import numpy as np
import pytest
import torch

from benchmarks.studies.collage_labels import text_alone, wrong_labels
from benchmarks.studies.published import PublishedCnnLstm
from crossexplain.checks import InputError
from crossexplain.data import collages, digits
from crossexplain.gradients.capture import capture
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.preflight import preflight
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import FULL, Mask, Views
from crossexplain.models.cnn_lstm import CnnLstm

BANK = digits.load("sklearn")
TEST = collages.build(BANK, 32, "test", 0)
INPUTS = TEST.inputs()
WORDS = len(collages.VOCABULARY)


def seeded(make, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(WORDS, **kwargs).eval()


@pytest.fixture(scope="module")
def published():
    return seeded(PublishedCnnLstm)


@pytest.fixture(scope="module")
def ours():
    return seeded(CnnLstm)


def modalities(model):
    last = slice(-INPUTS["tokens"].shape[1], None) if isinstance(model, PublishedCnnLstm) else None  # padded in front to 20
    return [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer, positions=last)]


def test_1_the_published_reading_place_has_a_gradient_at_its_last_step_only(published, ours):
    steps = capture(published, INPUTS, published.text_layer).gradients[published.text_layer].norm(dim=2)  # (N, 20)
    assert (steps[:, :-1] == 0).all() and (steps[:, -1] > 0).all()
    words = capture(ours, INPUTS, ours.text_layer).gradients[ours.text_layer].norm(dim=2)  # (N, T)
    assert (words[INPUTS["tokens"] != 0] > 0).all()
    assert "zero positions" in preflight(published, INPUTS, modalities(published)).names
    assert "zero positions" not in preflight(ours, INPUTS, modalities(ours)).names


def test_2_the_published_difference_prints_round_one_whatever_is_masked(published):
    plan = {"nothing": {}, "image": {"image": Mask(None, "zero")}, "text": {"text": Mask(None, "mask")}}
    batch = Views(INPUTS, modalities(published), plan).inputs
    raw = capture(published, batch, published.text_layer).gradients[published.text_layer].mean(dim=2).reshape(3, 32, 20)
    first = (raw[0] / raw[0].abs().amax(dim=1, keepdim=True)).softmax(dim=1)  # the unmasked round alone is rescaled
    for masked in raw:  # the first of them is the unmasked round itself: its difference to itself should be 0
        assert np.corrcoef(first.flatten(), (first - masked).flatten())[0, 1] > 0.95
    assert float((first - raw[0]).mean()) > 0.04


def test_2_our_rounds_find_no_difference_where_nothing_is_masked(ours):
    record = rounds(ours, INPUTS, modalities(ours), extra={"nothing": {}}, control=False, progress=False)
    full = record.passes["data", FULL]
    for name in record.modalities:
        assert torch.allclose(record.extra["nothing"].importance[name], full.importance[name], atol=1e-5)
        assert torch.allclose(record.extra["nothing"].norms[name], full.norms[name], rtol=1e-4)


def test_3_eight_layers_behind_padding_let_nothing_of_the_words_through(published, ours):
    def share(model):
        """Return the text's gradient norm as a multiple of the image's, both as the model's own layers have them."""
        captured = capture(model, INPUTS, ["embedding", model.image_layer]).gradients
        text, image = (captured[name].flatten(1).norm(dim=1).median() for name in ("embedding", model.image_layer))
        return float(text / image)

    assert share(published) < 1e-4 < 1e-2 < share(ours)


def test_4_the_published_builder_makes_wrong_labels_and_gives_them_away():
    first, second = (collages.build(BANK, 4000, "train", seed, as_in_paper=True) for seed in (0, 1))
    assert wrong_labels(first)["all"] > 0.05 and text_alone(first, second) > 0.55
    first, second = (collages.build(BANK, 4000, "train", seed) for seed in (0, 1))
    assert wrong_labels(first)["all"] == 0 and abs(text_alone(first, second) - 0.5) < 0.03


def test_5_padding_gets_gradient_in_the_published_model_and_none_in_ours(published, ours):
    assert "padding is read" in preflight(published, INPUTS, modalities(published)).names
    words = capture(ours, INPUTS, ours.text_layer).gradients[ours.text_layer].norm(dim=2)
    assert (words[INPUTS["tokens"] == 0] == 0).all()


def test_6_a_relu_on_the_logit_leaves_no_gradient_where_it_says_no(ours):
    model = seeded(PublishedCnnLstm, relu_on_logit=True)
    with torch.no_grad():
        raw = seeded(PublishedCnnLstm)(**INPUTS)
        model.fusion[-1].bias -= raw.median()  # half of the pairs say no
    captured = capture(model, INPUTS, model.image_layer)
    dead = captured.gradients[model.image_layer].flatten(1).norm(dim=1) == 0
    assert dead.any() and torch.equal(dead, captured.output == 0)
    assert "clamped logit" in preflight(model, INPUTS, modalities(model)).names
    assert (capture(ours, INPUTS, ours.image_layer).gradients[ours.image_layer].flatten(1).norm(dim=1) > 0).all()


def test_7_the_published_slice_leaves_ink_and_a_masked_cell_has_none():
    ink = torch.ones(1, 1, 56, 56)
    sliced = ink.clone()
    sliced[:, :, 28:-1, 28:-1] = 0
    assert sliced[:, :, 28:, 28:].sum() == 2 * 28 - 1  # a row and a column
    keep = torch.tensor([True, True, True, False])
    masked = Views({"images": ink}, [ImageCells()], {"view": {"image": Mask(keep, "zero")}}).inputs["images"]
    assert masked[:, :, 28:, 28:].sum() == 0 and masked.sum() == 3 * 28 * 28


def test_7_dropout_that_stays_on_is_refused(published):
    model = seeded(PublishedCnnLstm).train()
    assert not torch.equal(model(**INPUTS), model(**INPUTS))
    assert "dropout on" in preflight(model, INPUTS, modalities(model)).names
    for ask in (lambda: capture(model, INPUTS, model.image_layer), lambda: rounds(model, INPUTS, modalities(model))):
        with pytest.raises(InputError, match="train mode"):
            ask()
