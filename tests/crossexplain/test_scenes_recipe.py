import dataclasses

import numpy as np
import pytest
import torch

from crossexplain.data import scenes
from crossexplain.data.scene_words import KINDS, holds
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.preflight import preflight
from crossexplain.models import checkpoints
from crossexplain.recipes import load_or_train, scene_batches
from crossexplain.recipes import scenes as recipe
from crossexplain_book import readers


@pytest.fixture(scope="module")
def data():
    return scenes.load(sizes=(24, 20, 20), side=72)


@pytest.fixture(scope="module")
def pictures(data):
    return recipe.Pictures(data, range(44))


def test_pictures_are_drawn_once_and_given_by_their_numbers(data, pictures):
    assert torch.allclose(pictures[[41, 3]], data.images([41, 3]), atol=0.5 / 255 + 1e-6)


def test_every_place_of_a_layout_has_a_name_and_objects_have_more(data):
    found = scene_batches.layout(data, [0, 5, 7], 9)
    assert found.shape == (3, 4, 9, 9) and int(found[:, 0].min()) >= 0 and int(found[:, 0].max()) < len(scene_batches.WHAT)
    for cells, i in zip(found, (0, 5, 7)):
        objects = set(data.facts.kind[i][data.facts.kind[i] >= 0].tolist())
        assert set(cells[0][cells[0] < len(KINDS)].tolist()) <= objects
        assert ((cells[1:] >= 0) == (cells[0] < len(KINDS))).all()
        assert len(KINDS) + data.facts.ground[i] in cells[0][-1]
        front = int(np.where(data.facts.kind[i] >= 0, data.facts.y[i], -1).argmax())
        top, left, bottom, right = data.boxes(i)[(data.facts.kind[i, :front] >= 0).sum()]
        middle = cells[:, (top + bottom) // 2 * 9 // 72, (left + right) // 2 * 9 // 72]
        assert middle.tolist() == [data.facts.kind[i, front], data.facts.colour[i, front], data.facts.texture[i, front],
                                   data.facts.size[i, front]]


def test_pictures_are_moved_together_with_their_layouts(data, pictures):
    labels = scene_batches.layout(data, range(24), 9)
    still = scene_batches.Named(pictures, range(24), labels, moved=False)
    assert torch.equal(still.batch(torch.tensor([3]))[0]["images"], pictures[[3]])
    torch.manual_seed(0)
    moved = scene_batches.Named(pictures, range(24), labels)
    given, found = moved.batch(torch.arange(24))
    assert torch.equal(labels, scene_batches.layout(data, range(24), 9)) and not torch.equal(found, labels)
    for image, cells, i in zip(given["images"], found, range(24)):
        picture = pictures[[i]][0]
        fits = [round(k / 8) % 9 for down in range(-3, 4) for k in range(72) for one in (picture, picture.flip(2))
                if torch.equal(one.roll((down, k), (1, 2)), image)]
        assert any(torch.equal(one.roll(k, 2), cells) for k in fits for one in (labels[i], labels[i].flip(2)))


def test_a_batch_knows_which_caption_is_true_of_which_picture(data, pictures):
    batches = scene_batches.Contrasts(data, pictures, data.splits["train"].reshape(-1, 2))
    torch.manual_seed(4)
    given, truth = batches.batch(torch.tensor([2, 9]))
    torch.manual_seed(4)
    again, _ = batches.batch(torch.tensor([2, 9]))
    assert torch.equal(given["tokens"], again["tokens"]) and torch.equal(given["maps"], pictures[[4, 5, 18, 19]])
    texts = given["tokens"].tolist() + given["more"].tolist()
    assert truth.shape == (4, len(texts)) and len(given["more"]) == 4 * 3 and len(batches) == 12
    assert given["more"].shape[1] < given["tokens"].shape[1]
    for tokens, column in zip(texts, truth.T.tolist()):
        words = [scenes.VOCABULARY[t] for t in tokens if t]
        assert words[0] == scenes.START and words[-1] == scenes.END
        assert holds(data.facts[[4, 5, 18, 19]], " ".join(words[1:-1])).tolist() == column
    apart = (truth[0] != truth[1]).sum() + (truth[2] != truth[3]).sum()
    assert apart >= 4  # each pair of twins has at least its two


def test_the_frozen_part_is_asked_once_and_stays_frozen(data, pictures):
    model = recipe.new_model("clip_cnn")
    before = {name: values.clone() for name, values in model.image.state_dict().items()}
    maps = recipe.freeze(model, pictures)
    assert torch.allclose(maps[[40, 2]], model.image_map(pictures[[40, 2]]), atol=1e-2)
    recipe.train("clip_cnn", data=data, pictures=pictures, plan=[(0, 0.0), (1, 1e-3), (0, 0.0)], progress=False)
    assert all(torch.equal(values, before[name]) for name, values in model.image.state_dict().items())


@pytest.mark.parametrize("name", recipe.NAMES)
def test_the_whole_way_from_nothing_to_a_checkpoint(name, data, tmp_path, monkeypatch):
    small = scenes.load(sizes=(24, 20, 20))
    trained = recipe.train(name, data=small, size="small", progress=False)
    steps = list(trained.histories.values())
    assert list(trained.histories) == list(recipe.STEPS if name == "fusion" else recipe.STEPS[:3])
    assert trained.seconds > 0 and all(len(step.train_loss) == 1 for step in steps)
    assert not any(parameter.requires_grad for parameter in trained.model.parameters()) and not trained.model.training
    pairs = small.build("test", 12, 0, "foil")
    outputs = recipe.logits(trained.model, pairs)
    found = recipe.by_kind((outputs > 0).numpy() == pairs.labels, pairs.kinds)
    assert set(found) == {"all", *pairs.kinds}
    assert found["all"] == pytest.approx(((outputs > 0).numpy() == pairs.labels).mean())
    called = recipe.inputs(trained.model, pairs.images([3]), [pairs.captions[3]])
    assert torch.allclose(trained.model(**called), outputs[3:4], atol=1e-4)
    same = recipe.train(name, data=small, size="small", progress=False)
    assert torch.equal(recipe.logits(same.model, pairs), outputs)
    assert {step: (len(of["loss"]), len(of["validation"])) for step, of in trained.courses.items()} == {
        step: (1, 1) for step in recipe.STEPS[: len(steps)]}
    card = {"data": "", "seed": 0, "command": "", "accuracy": 0, "courses": trained.courses}
    checkpoints.save(trained.model, f"scenes_{name}", card, tmp_path)
    monkeypatch.setattr(checkpoints, "folder", lambda: tmp_path)
    loaded = load_or_train(f"scenes_{name}")
    assert torch.allclose(recipe.logits(loaded.model, pairs), outputs, atol=1e-5)
    assert loaded.history is None and loaded.data.sizes == scenes.SIZES and loaded.courses == trained.courses


def test_ranking_compares_captions_of_one_picture(data):
    pairs = data.build("test", 8, 0, "foil")
    outputs = torch.tensor([5.0, 1.0, 4.0, 0.0, -3.0, 2.0, -2.0, 3.0])  # (A, a), (B, b), (A, b), (B, a), twice
    assert recipe.ranked(outputs).tolist() == [[True, True], [False, False]]
    found = recipe.by_kind(recipe.ranked(outputs).mean(axis=1), pairs.kinds[::4])
    assert found["all"] == 0.5 and set(found) == {"all", *pairs.kinds}


def test_a_training_that_was_cut_off_goes_on(data, pictures, tmp_path):
    plan = [(1, 1e-3), (1, 1e-3), (1, 1e-3)]
    settings = {"data": data, "pictures": pictures, "plan": plan, "progress": False, "resume": tmp_path}
    first = recipe.train("clip_cnn", **settings)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"scenes_clip_cnn_0_{step}.pt" for step in ("captions", "naming", "phrases")]
    (tmp_path / kept[0]).unlink()  # as if it had been cut off before the last step
    again = recipe.train("clip_cnn", **settings)
    assert again.histories["naming"].train_loss == first.histories["naming"].train_loss
    assert all(torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values()))


def test_steps_can_be_left_out(data):
    only = recipe.train("clip_cnn", data=data, plan=[(0, 0.0), (1, 1e-3), (0, 0.0)], progress=False)
    assert list(only.histories) == ["phrases"] and len(only.history.train_loss) == 1


def test_unknown_names_are_told():
    for call in (recipe.train, recipe.new_model):
        with pytest.raises(ValueError, match="got model 'vgg', expected one of 'fusion'"):
            call("vgg")


def test_the_models_that_travel_with_the_book_hold_their_bars():
    for name, bars in {"fusion": {"random": 0.97}, "clip_vit": {"random": 0.97, "foil": 0.9},
                       "clip_cnn": {"random": 0.97, "foil": 0.9}}.items():
        if not (checkpoints.folder() / f"scenes_{name}.safetensors").is_file():
            pytest.skip(f"the model {name} is still to be trained")
        trained = load_or_train(f"scenes_{name}")
        epochs = {step: len(of["validation"]) for step, of in trained.courses.items()}
        assert epochs == {step: epochs for step, (epochs, _) in zip(recipe.STEPS, recipe.PLANS[name])}
        shorter = dataclasses.replace(trained, data=scenes.load(sizes=(2, 2, 200)))
        for kind, bar in bars.items():
            how = "accuracy" if kind == "random" else "ranking"
            assert recipe.tested(shorter, kind, n=800)[how]["all"] > bar - 0.02, (name, kind)  # 200 of the 1,000 scenes


def test_an_image_and_a_sentence_of_a_reader(data):
    model = recipe.new_model("clip_cnn").eval()
    image = data.images([3])[0]
    image = torch.nn.functional.interpolate(image[None], scale_factor=2)[0]
    wide = torch.cat([torch.zeros(3, 144, 20), image, torch.zeros(3, 144, 20)], dim=2)
    called, shown, words, note = readers.scene(model, wide, "A red ball.")
    assert shown.shape == (3, scenes.SIDE, scenes.SIDE) and words == ["a", "red", "ball"]
    assert "184 x 144" in note and "middle square of 144 x 144" in note and "scaled to 96 x 96" in note
    assert called["tokens"][0].tolist() == [2, *(scenes.VOCABULARY.index(word) for word in words), 3]
    assert model(**called).shape == (1,)
    called, _, _, note = readers.scene(recipe.new_model("fusion"), torch.zeros(3, 96, 96), "a red ball")
    assert called["tokens"].shape == (1, 3) and not note
    with pytest.raises(ValueError, match="unicorn"):
        readers.scene(model, image, "a red unicorn")


@pytest.mark.parametrize("name", recipe.NAMES)
def test_the_pre_flight_check_finds_nothing_wrong_with_what_travels(name):
    trained = load_or_train(f"scenes_{name}", progress=False)
    model, pairs = trained.model, trained.data.build("test", 40, 0, "random")
    inputs = recipe.inputs(model, recipe.Pictures(trained.data, np.unique(pairs.image))[pairs.image], pairs.captions)
    grid = (8, 8) if name == "clip_vit" else (6, 6)
    words = Tokens(layer=model.text_layer, special=() if name == "fusion" else (2, 3))
    sides = [ImageCells(layer=model.image_layer, grid=grid), words]
    assert not list(preflight(model, inputs, sides, labels=torch.from_numpy(pairs.labels)))
