"""One stream of words and patches: the model, what it is trained on, and the one that travels with the book."""

import dataclasses

import numpy as np
import pytest
import torch

from crossexplain import ImageCells, InputError, Tokens, capture, explain, preflight
from crossexplain.data import scenes
from crossexplain.data.scene_words import holds
from crossexplain.models import checkpoints, one_stream
from crossexplain.recipes import load_or_train, scene_batches
from crossexplain.recipes import one_stream as recipe

NAME = recipe.NAME


@pytest.fixture(scope="module")
def data():
    return scenes.load(sizes=(24, 20, 20))


@pytest.fixture(scope="module")
def model():
    return recipe.new_model().requires_grad_(False).eval()


@pytest.fixture(scope="module")
def given(data):
    pairs = data.build("test", 8, 0, "random")
    return recipe.inputs(pairs.images(), pairs.captions)


def test_examples_do_not_touch_and_padding_changes_nothing(model, given):
    logits = model(**given)
    assert logits.shape == (8,) and logits.std() > 0
    one = int((given["tokens"] != 0).sum(dim=1).argmin())
    real = given["tokens"][one] != 0
    assert not real.all()
    alone = model(images=given["images"][[one]], tokens=given["tokens"][[one]][:, real])
    assert torch.allclose(alone, logits[[one]], atol=1e-5)


def test_words_stand_first_and_patches_row_by_row_after_them(model, given):
    words, patches = given["tokens"].shape[1], model.grid**2
    places = [model.joint_layer, model.text_layer, model.image_layer]
    joint, text, image = (capture(model, given, places).gradients[place] for place in places)
    assert joint.shape[1] == words + patches
    assert torch.allclose(joint[:, :words], text, atol=1e-7)  # nothing but an addition lies between
    # The gradient of the map goes through a layer norm, so compare which patch an image that is changed in one cell moves.
    changed = given["images"].clone()
    changed[:, :, 64:80, 16:32] = 0  # around row 4, column 1 of 6 x 6
    before, after = (capture(model, {**given, "images": pixels}, model.joint_layer, gradients=False)
                     .activations[model.joint_layer][:, words:] for pixels in (given["images"], changed))
    moved = (before - after).norm(dim=2).mean(dim=0).unflatten(0, (6, 6))
    assert divmod(int(moved.argmax()), 6) == (4, 1) and moved[0].max() < 0.05 * moved.max()
    assert image.shape[2:] == (6, 6)


def test_positions_read_the_joint_layer_as_the_layers_before_it_are_read(model, given):
    joint = model.joint_layer
    apart, together = (
        [ImageCells(layer=model.image_layer, grid=(6, 6)), Tokens(layer=model.text_layer, special=(2, 3))],
        [ImageCells(layer=joint, grid=(6, 6), positions=slice(-36, None)),
         Tokens(layer=joint, special=(2, 3), positions=slice(0, -36))])
    text, of_joint = (explain(model, given, sides, "gradient norm").values for sides in (apart, together))
    assert torch.allclose(text["text"], of_joint["text"], atol=1e-6, equal_nan=True)
    by_hand = capture(model, given, joint).gradients[joint][:, -36:].norm(dim=2)
    assert torch.allclose(of_joint["image"], by_hand, atol=1e-7)
    with pytest.raises(InputError, match="positions="):
        explain(model, given, [ImageCells(layer=joint, grid=(6, 6)), together[1]], "gradient norm")


def test_pictures_of_another_size_are_refused(model, given):
    with pytest.raises(InputError, match="got maps of 8 x 8 places, expected 12 x 12"):
        model(images=given["images"][:, :, :64, :64], tokens=given["tokens"])


def judged(data, both=True, captions=True):
    pictures = scene_batches.Pictures(data, range(24))
    texts = scene_batches.Contrasts(data, pictures, data.splits["train"].reshape(-1, 2), captions=captions)
    return scene_batches.Judged(texts, both)


def words_of(tokens):
    return " ".join(scenes.VOCABULARY[t] for t in tokens.tolist() if t > 3)


@pytest.mark.parametrize("captions", [True, False])
def test_each_text_is_judged_with_a_picture_of_which_it_is_true_and_one_of_which_it_is_false(data, captions):
    torch.manual_seed(3)
    given, labels = judged(data, captions=captions).batch(torch.tensor([2, 9, 4]))
    chosen = np.array([4, 5, 18, 19, 8, 9])
    half = len(labels) // 2
    assert labels.tolist() == [1] * half + [0] * half and half > 15
    assert torch.equal(given["tokens"][:half], given["tokens"][half:])
    for tokens, picture, label in zip(given["tokens"], given["picture"].tolist(), labels.tolist()):
        assert bool(holds(data.facts[chosen[[picture]]], words_of(tokens))[0]) == bool(label)


def test_the_false_picture_is_the_twin_where_the_text_is_false_of_it_as_often_as_it_says(data):
    torch.manual_seed(0)
    several = judged(data)
    drawn = [several.batch(torch.arange(12)) for _ in range(12)]
    hard = hit = 0
    for given, labels in drawn:
        half = len(labels) // 2
        for tokens, true, false in zip(given["tokens"], given["picture"][:half].tolist(), given["picture"][half:].tolist()):
            if not holds(data.facts[[true ^ 1]], words_of(tokens))[0]:
                hard, hit = hard + 1, hit + (false == true ^ 1)
    assert hard > 300 and abs(hit / hard - scene_batches.Judged.TWIN) < 0.08


def test_gaps_are_words_that_are_hidden_wrong_or_kept_and_nothing_else_is_asked(data):
    torch.manual_seed(1)
    texts = judged(data, both=False)
    torch.manual_seed(5)
    plain, labels = texts.batch(torch.arange(12))
    assert labels.all()
    torch.manual_seed(5)
    given, asked = recipe.Gaps(texts).batch(torch.arange(12))
    tokens, changed = plain["tokens"], given["tokens"]
    here = asked != -100
    assert torch.equal(asked[here], tokens[here]) and (tokens[here] >= recipe.FIRST).all()
    assert torch.equal(changed[~here], tokens[~here])
    hidden, kept = changed[here] == recipe.MASK, changed[here] == tokens[here]
    words = (tokens >= recipe.FIRST).sum().item()
    assert abs(hidden.sum().item() / words - recipe.HIDDEN) < 0.05
    assert abs((~hidden & ~kept).sum().item() / words - recipe.WRONG) < 0.07 and kept.any()


def test_the_whole_way_from_nothing_to_a_checkpoint(data, tmp_path, monkeypatch):
    trained = recipe.train(data=data, size="small", progress=False)
    assert list(trained.histories) == list(recipe.PLAN) and trained.seconds > 0
    assert not any(parameter.requires_grad for parameter in trained.model.parameters()) and not trained.model.training
    tower = load_or_train("scenes_fusion").model.image.state_dict()
    assert all(torch.equal(values, tower[name]) for name, values in trained.model.image.state_dict().items())
    pairs = data.build("test", 12, 0, "foil")
    logits = recipe.logits(trained.model, pairs)
    whole = trained.model(**recipe.inputs(pairs.images(), pairs.captions))
    assert torch.allclose(logits, whole, atol=2e-3)  # maps are kept in half precision
    again = recipe.train(data=data, size="small", progress=False)
    assert torch.equal(recipe.logits(again.model, pairs), logits)
    card = {"data": "", "seed": 0, "command": "", "accuracy": 0}
    checkpoints.save(trained.model, NAME, card, tmp_path)
    monkeypatch.setattr(checkpoints, "folder", lambda: tmp_path)
    assert torch.equal(recipe.logits(load_or_train(NAME).model, pairs), logits)


def test_a_training_that_was_cut_off_goes_on(data, tmp_path):
    plan = {"words": (0, 0.0), "phrases": (1, 1e-3), "captions": (1, 1e-3)}
    settings = {"data": data, "plan": plan, "progress": False, "resume": tmp_path}
    first = recipe.train(**settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}_0_captions.pt", f"{NAME}_0_phrases.pt"]
    (tmp_path / f"{NAME}_0_captions.pt").unlink()  # as if it had been cut off before the last step
    again = recipe.train(**settings)
    assert all(torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values()))


def test_more_words_than_the_model_has_places_are_refused(given):
    model = one_stream.small(10, 4).eval()
    with pytest.raises(InputError, match="tokens"):
        model(images=given["images"], tokens=torch.full((8, 5), 4))


def test_the_model_that_travels_with_the_book_holds_its_bars():
    if not (checkpoints.folder() / f"{NAME}.safetensors").is_file():
        pytest.skip("the model is still to be trained")
    trained = load_or_train(NAME)
    assert trained.card["accuracy"]["pairs"] > 0.95
    shorter = dataclasses.replace(trained, data=scenes.load(sizes=(2, 2, 200)))
    pairs = shorter.data.build("test", 400, 0, "random")
    logits = recipe.logits(trained.model, pairs)
    assert recipe.tested(logits, pairs)["accuracy"]["all"] > 0.93  # 200 of the 1,000 scenes
    few = pairs.select(range(40))
    sides = [ImageCells(layer=trained.model.image_layer, grid=(6, 6)), Tokens(layer=trained.model.text_layer, special=(2, 3))]
    assert not list(preflight(trained.model, recipe.inputs(few.images(), few.captions), sides,
                              labels=torch.from_numpy(few.labels)))
