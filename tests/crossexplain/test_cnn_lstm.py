import numpy as np
import pytest
import torch

from benchmarks.studies.published import PublishedCnnLstm
from crossexplain.data import collages, digits
from crossexplain.data.collages import VOCABULARY
from crossexplain.gradients.capture import capture
from crossexplain.models import checkpoints
from crossexplain.models.cnn_lstm import CnnLstm, Tower
from crossexplain.recipes import RECIPES, load_or_train
from crossexplain.recipes import collages as recipe

BANK = digits.load("sklearn")
PAIRS = collages.build(BANK, 32, "test", seed=0)


def fresh(kind=CnnLstm, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(len(VOCABULARY), **options).eval()


@pytest.fixture(scope="module")
def shipped():
    return load_or_train("collages")


@pytest.mark.parametrize("model", [fresh(), fresh(pooling="last"), fresh(PublishedCnnLstm)])
def test_an_example_does_not_depend_on_its_neighbours(model):
    together = model(**PAIRS.inputs())
    alone = torch.cat([model(**PAIRS.inputs([i])) for i in range(len(PAIRS))])
    assert together.shape == (32,)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_padding_is_not_read():
    model, inputs = fresh(), PAIRS.inputs()
    longer = torch.nn.functional.pad(inputs["tokens"], (0, 5))
    for model in (fresh(), fresh(pooling="last"), fresh(PublishedCnnLstm, layers=2)):
        torch.testing.assert_close(model(inputs["images"], inputs["tokens"]), model(inputs["images"], longer[:, :20]))
    nothing = model(inputs["images"], torch.zeros_like(inputs["tokens"]))
    assert torch.isfinite(nothing).all()


def test_every_step_has_a_gradient_after_a_maximum_and_only_one_at_the_last_step():
    steps = {}
    for pooling in ("max", "last"):
        found = capture(fresh(pooling=pooling), PAIRS.inputs(), "lstm").gradients["lstm"].norm(dim=2)  # (N, T)
        steps[pooling] = ((found > 0) & (PAIRS.tokens() > 0)).sum(dim=1)
    assert (steps["max"] > 3).all() and (steps["last"] == 1).all()
    published = capture(fresh(PublishedCnnLstm), PAIRS.inputs(), "lstm").gradients["lstm"]
    assert (published[:, :-1] == 0).all() and (published[:, -1] != 0).any()


def test_a_relu_on_the_logit_can_only_say_no_where_no_gradient_is():
    model = fresh(PublishedCnnLstm, relu_on_logit=True)
    model.fusion[-1].bias.data.fill_(-10.0)
    captured = capture(model, PAIRS.inputs(), model.image_layer)
    assert (captured.output == 0).all() and (captured.gradients[model.image_layer] == 0).all()


def test_gradients_reach_convolutions_and_words():
    model = fresh()
    captured = capture(model, PAIRS.inputs(), [model.image_layer, model.text_layer, "input:images"])
    assert captured.gradients[model.image_layer].shape == (32, 64, 14, 14)
    assert captured.gradients[model.text_layer].shape == (32, 17, 64)
    assert all((gradient.flatten(1).norm(dim=1) > 0).all() for gradient in captured.gradients.values())


def test_a_hot_bottleneck_keeps_the_gradient_that_a_cold_one_loses(shipped):
    norms = {}
    for temperature in (1.0, 2.0):
        model = fresh(temperature=temperature)
        model.load_state_dict(shipped.model.state_dict())
        norms[temperature] = capture(model, PAIRS.inputs(), "tower").gradients["tower"].flatten(1).norm(dim=1).median()
    assert norms[2.0] > 2 * norms[1.0]


def test_a_frozen_tower_keeps_its_statistics():
    model = fresh()
    model.tower.requires_grad_(False)
    model.train()
    assert model.training and not model.tower.training
    assert CnnLstm(30).train().tower.training


@pytest.mark.parametrize(("change", "message"), [
    ({"images": torch.zeros(2, 3, 56, 56)}, "the model expects 1"),
    ({"images": torch.zeros(2, 1, 1, 1)}, "expected at least 2 x 2"),
    ({"images": torch.zeros(2, 1, 64, 64)}, "takes 56 x 56 and no other"),
    ({"images": torch.full((2, 1, 56, 56), 255.0)}, "expected 0 to 1"),
    ({"images": torch.zeros(2, 1, 56, 56, dtype=torch.uint8)}, "expected a floating dtype"),
    ({"tokens": torch.zeros(2, 17)}, "expected int64"),
    ({"tokens": torch.zeros(17, dtype=torch.int64)}, r"expected int64 \(N, T\)"),
    ({"tokens": torch.full((2, 17), 99)}, "knows words 0 to 28"),
])
def test_what_is_no_collage_or_sentence_is_told(change, message):
    inputs = {"images": torch.zeros(2, 1, 56, 56), "tokens": torch.ones(2, 17, dtype=torch.int64)} | change
    with pytest.raises(ValueError, match=message):
        fresh()(**inputs)
    with pytest.raises(ValueError, match="got pooling 'mean', expected one of 'max'"):
        CnnLstm(30, pooling="mean")


def test_the_gain_scales_how_the_lstm_starts_and_nothing_else():
    small, large = fresh(gain=1), fresh(gain=3)
    for (name, usual), scaled in zip(small.named_parameters(), large.parameters()):
        assert torch.allclose(scaled, usual * (3 if name.startswith("lstm.weight") else 1)), name


def test_looking_once_a_collage_gives_what_the_model_gives():
    model = fresh()
    torch.testing.assert_close(recipe.logits(model, PAIRS), model(**PAIRS.inputs()).detach(), atol=1e-6, rtol=1e-5)
    assert not model.training
    for without, same in (("image", PAIRS.sentence_id), ("text", PAIRS.collage)):
        blind = recipe.logits(model, PAIRS, without).numpy()
        assert all(np.ptp(blind[same == value]) < 1e-6 for value in np.unique(same))
    with pytest.raises(ValueError, match="got without 'sound', expected one of 'image', 'text'"):
        recipe.logits(model, PAIRS, "sound")


def test_the_small_recipe_trains_every_part_and_only_the_fusion_later():
    trained = recipe.train("embedded", seed=1, n_pairs=320, size="small", progress=False)
    epochs = {step: len(history.train_loss) for step, history in trained.histories.items()}
    assert epochs == {"tower": 1, "fusion": 1} and trained.seconds > 0
    assert not any(parameter.requires_grad for parameter in trained.model.parameters()) and not trained.model.training
    tower = Tower()
    tower.load_state_dict(trained.model.tower.state_dict())
    again = recipe.train("embedded", seed=1, n_pairs=320, size="small", tower=tower, progress=False)
    assert list(again.histories) == ["fusion"]
    assert all(torch.equal(a, b) for a, b in zip(trained.model.state_dict().values(), again.model.state_dict().values()))


def test_moved_digits_stay_digits_and_unmoved_ones_as_they_are():
    still = recipe.NamedDigits(BANK, np.arange(40), 10, seed=0, moved=False)
    inputs, labels = still.batch(torch.arange(10))
    assert sorted(still.cells.ravel().tolist()) == list(range(40))
    assert torch.equal(inputs["images"][3, 0, :28, 28:], torch.from_numpy(BANK.images[still.cells[3, 1]]))
    assert (labels.numpy() == BANK.labels[still.cells]).all()
    moved, _ = recipe.NamedDigits(BANK, np.arange(40), 10, seed=0).batch(torch.arange(10))
    assert moved["images"].shape == (10, 1, 56, 56) and not torch.equal(moved["images"], inputs["images"])
    assert moved["images"].min() >= 0 and moved["images"].max() <= 1


def test_accuracy_comes_by_kind():
    perfect = torch.from_numpy(2.0 * PAIRS.labels - 1)
    assert recipe.accuracy_by_kind(perfect, PAIRS) == {"all": 1.0} | dict.fromkeys(collages.KINDS, 1.0)
    half = recipe.accuracy_by_kind(torch.ones(32), PAIRS)
    assert half["all"] == 0.5 and len(half) == 9


def test_the_shipped_model_is_as_good_as_its_card_says(shipped):
    data = collages.build(shipped.data, 1600, "test", seed=11)
    found = recipe.accuracy_by_kind(recipe.logits(shipped.model, data), data)
    assert found["all"] == pytest.approx(shipped.card["accuracy"]["all"], abs=0.015)
    assert min(value for key, value in found.items() if key != "all") > 0.93
    for profile, name in recipe.NAMES.items():
        card = checkpoints.read_card(name)
        assert card["command"] == f"python -m crossexplain train {name} --seed {card['seed']}" and name in RECIPES
        assert min(card["accuracy"].values()) > 0.97, profile
