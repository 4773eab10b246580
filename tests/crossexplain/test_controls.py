import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossexplain.data import controls, digits
from crossexplain.data.collages import KINDS, STATEMENTS, holds
from crossexplain.evaluation.modality_shares import perceptual_scores
from crossexplain.models import checkpoints
from crossexplain.models.cnn_lstm import Tower
from crossexplain.recipes import RECIPES, load_or_train
from crossexplain.recipes import controls as recipe
from crossexplain.recipes.controls import prepare, train

BANK = digits.load("sklearn")


def parts(collages):
    """Return what the pictures show (sign), what the sentences say, and the labels as signs."""
    tasks = [STATEMENTS[collages.sentences[i]].task for i in collages.sentence_id]
    return np.sign(controls.surplus(collages.digits)), np.array([controls.SIGNS[t] for t in tasks]), 2 * collages.labels - 1


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000), kind=st.sampled_from(sorted(controls.ANSWERS)))
def test_labels_come_from_where_the_kind_says(seed, kind):
    collages = controls.build(kind, BANK, 200, "train", seed)
    show, say, sign = parts(collages)
    if kind == "image":
        assert (show == sign).all()
    if kind == "text":
        tasks = {KINDS[k].split(",")[0] for k in collages.kind[collages.labels == 1]}
        assert tasks <= {"largest", "even"}
    if kind == "either":
        assert (show == sign).all() and (say == sign).all()
    if kind == "both":
        assert (-show * say == sign).all()
    if kind == "shortcut":
        truth = [bool(holds(four, collages.sentences[i])) for four, i in zip(collages.digits, collages.sentence_id)]
        assert (np.array(truth) == collages.labels).all()
        assert {KINDS[k].split(",")[0] for k in collages.kind[collages.labels == 0]} <= {"smallest", "odd"}
    if kind not in ("text", "shortcut"):
        assert (show != 0).all() and (say != 0).all()


def test_what_should_know_nothing_of_the_label_knows_nothing():
    n = 4000
    show, say, sign = parts(controls.build("image", BANK, n, "train", 0))
    assert abs((say * sign).mean()) < 0.06 and abs((show * say).mean()) < 0.06
    show, say, sign = parts(controls.build("both", BANK, n, "train", 0))
    assert abs((say * sign).mean()) < 0.06 and abs((show * sign).mean()) < 0.06
    show, say, sign = parts(controls.build("additive", BANK, n, "train", 0))
    assert abs((show * say).mean()) < 0.06


def test_additive_labels_follow_the_sum_of_two_log_odds():
    collages = controls.build("additive", BANK, 20_000, "train", 0)
    show, say, _ = parts(collages)
    odds = show * (np.abs(controls.surplus(collages.digits)) - 1) + 2 * say
    for value in np.unique(odds):
        share = collages.labels[odds == value].mean()
        assert share == pytest.approx(1 / (1 + np.exp(-value)), abs=0.03)
    assert set(np.unique(odds)) == {-5, -3, -1, 1, 3, 5}  # never 0: no example is a toss-up for the sum


def test_one_of_two_is_silent_where_either_is_to_be_learned():
    show, say, sign = parts(controls.build("either", BANK, 3000, "train", 0, p=1 / 3))
    silent = [(show == 0).mean(), (say == 0).mean(), ((show == 0) & (say == 0)).mean()]
    assert silent[0] == pytest.approx(1 / 3, abs=0.04) and silent[1] == pytest.approx(1 / 3, abs=0.04) and silent[2] == 0
    assert (show[show != 0] == sign[show != 0]).all() and (say[say != 0] == sign[say != 0]).all()


def test_the_shortcut_gives_away_as_many_as_asked_for():
    for p in (0.0, 0.5, 1.0):
        collages = controls.build("shortcut", BANK, 4000, "train", 1, p=p)
        by_task = np.array([KINDS[k].split(",")[0] in ("largest", "even") for k in collages.kind])
        assert (by_task == collages.labels).mean() == pytest.approx(p + (1 - p) / 2, abs=0.03)


def test_pictures_show_their_digits_and_splits_share_none():
    one, other = (controls.build("both", BANK, 40, split, 0) for split in ("train", "test"))
    assert (BANK.labels[one.cells] == one.digits).all() and not set(one.cells.ravel()) & set(other.cells.ravel())
    assert one.images(slice(0, 3)).shape == (3, 1, 56, 56) and one.tokens(slice(0, 3)).dtype == torch.int64
    again = controls.build("both", BANK, 40, "train", 0)
    assert (again.cells == one.cells).all() and (again.sentence_id == one.sentence_id).all()


def test_what_is_no_control_is_refused():
    with pytest.raises(ValueError, match="got the control 'xor', expected one of 'image', 'text'"):
        controls.build("xor", BANK, 40, "train", 0)
    with pytest.raises(ValueError, match="got p=1.5"):
        controls.build("shortcut", BANK, 40, "train", 0, p=1.5)


def test_a_control_trains_and_its_fusion_is_the_whole_model_without_the_tower():
    torch.manual_seed(0)
    control = train("text", BANK, Tower(), 0, pairs=400, held_out=64, epochs=15, width=32)
    assert control.answer == "text alone" and control.accuracy > 0.9 and control.history.seconds > 0
    inputs = control.test.inputs(slice(0, 5))
    with torch.no_grad():
        whole = control.whole(**inputs)
        alone = control.fusion(control.seen[:5], inputs["tokens"])
        assert torch.allclose(whole, alone, atol=1e-5)


def test_the_shortcut_models_that_travel_can_be_told_apart_by_pictures_dealt_anew():
    tower = load_or_train("collages").model.tower
    told = prepare("shortcut", BANK, tower, 50, pairs=64, held_out=256, p=recipe.SHORTCUT_SHARES["shortcut"])
    inputs, labels = {"images": told.seen, "tokens": told.test.tokens()}, torch.from_numpy(told.test.labels)
    found = recipe.shortcut_pairs(load_or_train("pure_shortcut"))
    assert {kind: len(models) for kind, models in found.items()} == dict.fromkeys(recipe.SHORTCUT_SHARES, recipe.OF_EACH)
    lost = {kind: [perceptual_scores(model, inputs, labels)["image"].value for model in models]
            for kind, models in found.items()}
    assert np.mean(lost["pure"]) > np.mean(lost["shortcut"])
    card = checkpoints.read_card(recipe.SHORTCUT)
    assert card["command"] == "python -m crossexplain train pure_shortcut --seed 0" and recipe.SHORTCUT in RECIPES
    assert card["accuracy"]["pure"] < card["accuracy"]["shortcut"]


def test_shortcut_models_can_be_trained_again():
    found = recipe.shortcut_pairs(load_or_train("pure_shortcut", retrain=True, size="small"))
    assert {kind: len(models) for kind, models in found.items()} == dict.fromkeys(recipe.SHORTCUT_SHARES, 1)
    assert not any(parameter.requires_grad for models in found.values() for parameter in models[0].parameters())
