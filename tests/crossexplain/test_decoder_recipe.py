"""A decoder that is asked about a picture: the model, its prompts, and the one that travels with the book."""

import numpy as np
import pytest
import torch

from crossexplain import Called, ImageCells, InputError, Tokens, capture, explain, preflight
from crossexplain.data import scenes
from crossexplain.data.scene_words import holds
from crossexplain.models import checkpoints
from crossexplain.recipes import decoder as recipe
from crossexplain.recipes import load_or_train, one_stream, scene_batches

NAME = recipe.NAME
NUMBER = {word: number for number, word in enumerate(recipe.VOCABULARY)}


@pytest.fixture(scope="module")
def data():
    return scenes.load(sizes=(24, 20, 20))


@pytest.fixture(scope="module")
def model():
    return recipe.new_model().requires_grad_(False).eval()


@pytest.fixture(scope="module")
def pairs(data):
    return data.build("test", 8, 0, "random")


@pytest.fixture(scope="module")
def given(pairs):
    return recipe.inputs(pairs.images(), pairs.captions)


def prompt(given):
    return {key: values for key, values in given.items() if key != "special_mask"}


def spelled(ids):
    return " ".join(recipe.VOCABULARY[number] for number in ids.tolist())


def test_a_prompt_is_a_question_round_a_text_and_ends_at_the_last_place():
    ids, words = recipe.prompts(scenes.tokenize(["a red ball", "a [MASK] box on the grass"], ends=True))
    assert spelled(ids[0]) == "[PAD] [PAD] [PAD] does the picture show a red ball ? answer"
    assert spelled(ids[1]) == "does the picture show a [MASK] box on the grass ? answer"
    assert spelled(ids[0][words[0]]) == "a red ball" and spelled(ids[1][words[1]]) == "a [MASK] box on the grass"


def test_inputs_hold_a_place_for_each_patch_between_padding_and_question(given, pairs):
    for ids, mask, special, caption in zip(given["input_ids"], given["attention_mask"], given["special_mask"], pairs.captions):
        padding, images = int((ids == 0).sum()), 36
        assert torch.equal(ids[:padding], torch.zeros(padding, dtype=torch.long)) and torch.equal(mask, (ids != 0).long())
        assert (ids[padding : padding + images] == NUMBER[recipe.IMAGE]).all()
        assert spelled(ids[padding + images :]) == f"does the picture show {caption} ? answer"
        assert spelled(ids[~special]) == caption


def test_examples_do_not_touch_and_padding_at_the_front_changes_nothing(model, given):
    logits = recipe.yes(model(**prompt(given)))
    one = int((given["input_ids"] != 0).sum(dim=1).argmin())
    real = given["input_ids"][one] != 0
    assert logits.shape == (8,) and not real.all()
    alone = {key: values[[one]] if key == "images" else values[[one]][:, real] for key, values in prompt(given).items()}
    assert torch.allclose(recipe.yes(model(**alone)), logits[[one]], atol=1e-5)


def test_a_prompt_without_its_image_tokens_is_refused(model, given):
    ids = given["input_ids"].clone()
    ids[0, (ids[0] == model.image_token).nonzero()[0]] = NUMBER["ball"]
    with pytest.raises(InputError, match=r"\[35, 36\] image tokens, expected 36 in each"):
        model(**{**prompt(given), "input_ids": ids})


def test_patches_do_not_see_the_words_but_words_see_the_patches(model, given):
    last = "language.model.norm"
    states = capture(model, prompt(given), last, target=recipe.yes, gradients=False).activations[last]
    patch = given["input_ids"] == model.image_token
    other = given["input_ids"].where(given["special_mask"], torch.tensor(NUMBER["red"]))
    changed = capture(model, {**prompt(given), "input_ids": other}, last, target=recipe.yes, gradients=False).activations[last]
    assert torch.allclose(states[patch], changed[patch], atol=1e-5)
    assert not torch.allclose(states[:, -1], changed[:, -1], atol=1e-3)
    dark = capture(model, {**prompt(given), "images": torch.zeros_like(given["images"])}, last, target=recipe.yes,
                   gradients=False).activations[last]
    assert not torch.allclose(states[:, -1], dark[:, -1], atol=1e-3)


def test_words_of_the_prompt_and_patches_have_no_score_as_words(model, given):
    called = Called(model, output=recipe.yes, drop=["special_mask"])
    sides = [ImageCells(layer=model.image_layer, grid=(6, 6)),
             Tokens(input="input_ids", layer=model.text_layer, attention="attention_mask", special_mask="special_mask")]
    values = explain(called, given, sides, "gradient norm").values
    by_hand = capture(called, given, model.text_layer).gradients[model.text_layer].norm(dim=2)
    assert torch.equal(values["text"].isnan(), given["special_mask"])
    assert torch.allclose(values["text"][~given["special_mask"]], by_hand[~given["special_mask"]], rtol=1e-4)
    patches = given["input_ids"] == model.image_token
    assert (by_hand[patches] == 0).all() and (by_hand[~given["special_mask"]] > 0).all()  # patches replace what stands there


def test_all_questions_of_a_picture_are_answered_as_each_alone(model, data, pairs, given):
    maps = model.image_map(pairs.images())
    ids, _ = recipe.prompts(pairs.tokens())
    asked = recipe.Asked(model).eval()
    whole = recipe.yes(model(**prompt(given)))
    assert torch.allclose(asked(maps, ids), whole, atol=1e-4)
    picture = torch.tensor([1, 1, 0, 7])
    texts = torch.tensor([0, 3, 5, 2])
    crossed = recipe.inputs(pairs.images()[picture], [pairs.captions[i] for i in texts.tolist()])
    assert torch.allclose(asked(maps, ids[texts], picture), recipe.yes(model(**prompt(crossed))), atol=1e-4)
    said = recipe.Asked(model, saying=True).eval()(maps, ids)
    assert torch.allclose(said[:, :, -1], model(**prompt(given))[:, -1], atol=1e-4)


def test_what_is_to_be_said_are_the_words_of_the_text_and_its_end(data):
    texts = scene_batches.Contrasts(data, scene_batches.Pictures(data, range(24)), data.splits["train"].reshape(-1, 2))
    given, labels = recipe.Questions(scene_batches.Judged(texts, both=False), saying=True).batch(torch.arange(3))
    for ids, row in zip(given["tokens"], labels):
        said = row != recipe.NOT_ASKED
        text = spelled(ids).split(" show ")[1].removesuffix(" ? answer")
        assert spelled(row[said]) == f"{text} ?"
        assert torch.equal(ids[1:][said[:-1]], row[said])  # the next word at each place
    given, answers = recipe.Questions(scene_batches.Judged(texts)).batch(torch.arange(3))
    for ids, picture, answer in zip(given["tokens"], given["picture"].tolist(), answers.tolist()):
        text = spelled(ids).split(" show ")[1].removesuffix(" ? answer")
        assert bool(holds(data.facts[[picture]], text)[0]) == bool(answer)


def test_the_whole_way_from_nothing_to_a_checkpoint(data, tmp_path, monkeypatch):
    trained = recipe.train(data=data, size="small", progress=False)
    assert list(trained.histories) == list(recipe.PLAN) and trained.seconds > 0
    assert not any(parameter.requires_grad for parameter in trained.model.parameters()) and not trained.model.training
    asked = data.build("test", 12, 0, "foil")
    logits = recipe.logits(trained.model, asked)
    whole = recipe.yes(trained.model(**prompt(recipe.inputs(asked.images(), asked.captions))))
    assert torch.allclose(logits, whole, atol=2e-3)  # maps are kept in half precision
    again = recipe.train(data=data, size="small", progress=False)
    assert torch.equal(recipe.logits(again.model, asked), logits)
    checkpoints.save(trained.model, NAME, {"data": "", "seed": 0, "command": "", "accuracy": 0}, tmp_path)
    monkeypatch.setattr(checkpoints, "folder", lambda: tmp_path)
    assert torch.equal(recipe.logits(load_or_train(NAME).model, asked), logits)


def test_the_model_that_travels_with_the_book_holds_its_bars():
    if not (checkpoints.folder() / f"{NAME}.safetensors").is_file():
        pytest.skip("the model is still to be trained")
    trained = load_or_train(NAME)
    assert trained.card["accuracy"]["pairs"] > 0.95
    pairs = scenes.load(sizes=(2, 2, 200)).build("test", 400, 0, "random")
    logits = recipe.logits(trained.model, pairs)
    assert one_stream.tested(logits, pairs)["accuracy"]["all"] > 0.93  # 200 of the 1,000 scenes
    few = pairs.select(np.arange(40))
    sides = [ImageCells(layer=trained.model.image_layer, grid=(6, 6)),
             Tokens(input="input_ids", layer=trained.model.text_layer, attention="attention_mask", special_mask="special_mask")]
    assert not list(preflight(Called(trained.model, output=recipe.yes), recipe.inputs(few.images(), few.captions), sides,
                              labels=torch.from_numpy(few.labels)))
