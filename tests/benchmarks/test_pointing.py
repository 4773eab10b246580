"""Maps and scores of scenes against what is known to be right: by hand, beside chance, and where there is no answer."""

import numpy as np
import pytest
import torch

from benchmarks.studies import pointing
from crossexplain.checks import InputError
from crossexplain.data import scenes
from crossexplain.data.scene_words import COLOUR_NAMES, KINDS
from crossexplain.evaluation.truth import pointing_game
from crossexplain.gradients.maps import attribute, upsample
from crossexplain.recipes import scenes as recipe


@pytest.fixture(scope="module")
def data():
    return scenes.load(sizes=(24, 20, 40))


@pytest.fixture(scope="module")
def models():
    """One of each kind of tower; what is tested here does not need to have learned anything."""
    return {name: recipe.new_model(name, 1).requires_grad_(False).eval() for name in ("clip_cnn", "clip_vit")}


@pytest.fixture(scope="module")
def asked(data):
    return pointing.things(data, data.splits["test"], 4)


def given(model, data, asked):
    return recipe.inputs(model, data.images(asked.image), asked.texts)


# What is asked.


def test_a_thing_is_asked_for_by_the_colour_and_kind_of_the_box_that_is_to_be_found(data):
    one, other = (pointing.things(data, data.splits["test"], 12, other=flag) for flag in (False, True))
    assert len(one) == len(other) == 12 and np.array_equal(one.image, other.image)
    for asked in (one, other):
        for i, text, words, box in zip(asked.image, asked.texts, asked.words, asked.boxes):
            facts, there = data.facts, data.facts.kind[i] >= 0
            names = [f"a {COLOUR_NAMES[c]} {KINDS[k]}" for c, k in zip(facts.colour[i][there], facts.kind[i][there])]
            assert names.count(text) == 1 and len(set(facts.kind[i][there])) == len(names) > 1
            assert box.tolist() == data.boxes(i)[names.index(text)].tolist()
            assert [text.split()[word] for word in words] == [text.split()[-1]]
    assert (one.boxes != other.boxes).any(axis=1).all() and all(a != b for a, b in zip(one.texts, other.texts))


def test_the_words_of_a_caption_that_are_to_be_found_are_those_that_say_something(data):
    asked = pointing.captions(data, data.splits["test"], 6)
    assert (asked.boxes == -1).all() and asked.texts == [data.captions[i][0] for i in data.splits["test"][:6]]
    for i, text, words in zip(asked.image, asked.texts, asked.words):
        found = {text.split()[word] for word in words}
        assert len(found) > 1 and not found & {"a", "the", "of", "on", "is", "and", "there", "picture"}
        assert words == tuple(place for place, *_ in data.cues(i, text))


def test_a_foil_differs_from_a_true_caption_by_the_word_that_is_to_be_found(data):
    asked = pointing.foils(data, 7)
    assert len(asked) == 7 and all(len(words) == 1 for words in asked.words)
    assert (asked.boxes >= 0).all(axis=1).any() and (asked.boxes == -1).all(axis=1).any()  # some speak of one thing
    for i, box in zip(asked.image, asked.boxes):
        assert box[0] < 0 or box.tolist() in data.boxes(i).tolist()
    # False and true captions come in pairs of twins: the false caption of one is the true one of the other.
    one, other = asked.texts[:2]
    places = [k for k, (a, b) in enumerate(zip(one.split(), other.split())) if a != b]
    assert places == list(asked.words[0]) == list(asked.words[1])


@pytest.mark.parametrize(("name", "shift"), [("clip_cnn", 1), ("fusion", 0)])
def test_words_are_found_behind_start_of_text_where_there_is_one(data, name, shift):
    texts = ["a red cube", "a blue ring and a red cube"]
    asked = pointing.Referents(np.array([0, 1]), texts, [(2,), (1, 5)], np.full((2, 4), -1))
    tokens = recipe.inputs(recipe.new_model(name), data.images([0, 1]), asked.texts)["tokens"]
    cues = asked.cues(tokens)
    assert cues.shape == tuple(tokens.shape)
    assert [np.flatnonzero(row).tolist() for row in cues] == [[2 + shift], [1 + shift, 5 + shift]]


def test_some_of_what_was_asked_stays_together():
    asked = pointing.Referents(np.array([4, 5, 6]), ["a", "b", "c"], [(0,), (1,), (2,)], np.arange(12).reshape(3, 4))
    some = asked.select(np.array([True, False, True]))
    assert len(some) == 2 and some.texts == ["a", "c"] and some.words == [(0,), (2,)] and some.image.tolist() == [4, 6]
    assert some.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]


# Scores by hand.


def test_the_top_word_by_hand_and_ties_share_the_point():
    nan = np.nan
    values = np.array([[nan, 1.0, 3.0, 2.0], [nan, 2.0, 2.0, 1.0], [nan, -5.0, -7.0, nan], [nan, 1.0, 1.0, 1.0]])
    cues = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
    assert pointing.top_word(values, cues) == pytest.approx([1, 1 / 2, 0, 1 / 3])
    # A word below zero beats what is no word.
    assert pointing.top_word(np.array([[nan, -1.0, -2.0]]), np.array([[False, True, False]])).tolist() == [1.0]


def test_lines_by_hand_leave_out_what_has_no_answer_and_count_twins():
    asked = pointing.Referents(np.array([0, 1, 4, 5]), [""] * 4, [()] * 4, np.full((4, 4), -1))
    found = {"all": np.array([1.0, 0.0, np.nan, 1.0]), "first": np.array([1.0, 1.0])}
    lines = pointing.measured(found, asked, {"as it is": lambda values, truth: values * truth}, np.ones(4))
    whole, part = lines
    assert whole["method"] == "all" and whole["measure"] == "as it is"
    assert whole["value"] == pytest.approx(2 / 3) and whole["n"] == 3 and whole["twins"] == 2
    assert part == {"method": "first", "measure": "as it is", "value": 1.0, "low": 1.0, "high": 1.0, "n": 2, "twins": 1}
    # Two examples of one picture are drawn together: the interval is that of two groups, from one mean to the other.
    assert (whole["low"], whole["high"]) == (0.5, 1.0)


def test_what_never_saw_a_model_has_the_form_that_its_name_says():
    images = torch.zeros(2, 3, 24, 24)
    images[:, :, :, 12:] = 1  # one upright edge in the middle
    found = pointing.drawn(images, seed=3)
    assert list(found) == ["random map", "edges", "centre"] and all(maps.shape == (2, 24, 24) for maps in found.values())
    assert (found["edges"].argmax(axis=2) // 2 == 5).all() and (found["edges"][:, :, :11] == 0).all()
    centre = found["centre"][0]
    assert np.allclose(centre, centre[::-1]) and np.allclose(centre, centre.T) and centre[12, 12] == centre.max()
    assert centre[0, 0] == pytest.approx(np.exp(-2 * 11.5**2 / 2 / 5**2))
    assert not np.array_equal(found["random map"], pointing.drawn(images, seed=4)["random map"])


def test_a_random_map_hits_a_box_as_often_as_the_box_is_large():
    boxes = np.tile([[10, 0, 30, 60], [0, 40, 60, 60]], (200, 1))  # a third of 60 x 60 each
    found = pointing.drawn(torch.zeros(400, 3, 60, 60), seed=0)
    hits = pointing_game(found["random map"], boxes)
    assert abs(hits.mean() - 1 / 3) < 4 * (2 / 9 / 400) ** 0.5
    assert pointing_game(found["edges"], boxes) == pytest.approx(np.full(400, 1 / 3))  # a flat map: the area, exactly


def test_scores_without_a_model_know_words_from_padding_and_find_cues_by_chance():
    tokens = torch.tensor([[2, 9, 8, 7, 3, 0]]).repeat(500, 1)
    found = pointing.drawn_scores(tokens, seed=0)
    for values in found.values():
        assert np.isnan(values[:, [0, 4, 5]]).all() and not np.isnan(values[:, 1:4]).any()
    cues = np.zeros((500, 6), bool)
    cues[:, 1] = True
    assert pointing.top_word(found["first words"], cues).all() and not pointing.top_word(found["last words"], cues).any()
    assert abs(pointing.cue_auroc(found["random scores"], cues).mean() - 0.5) < 0.06
    assert abs(pointing.top_word(found["random scores"], cues).mean() - 1 / 3) < 0.08


# What models say.


def test_a_map_is_that_of_the_package_and_does_not_depend_on_the_batch(models, data, asked):
    model = models["clip_cnn"]
    inputs = given(model, data, asked)
    for sign in ("for", "against"):
        by_hand = upsample(attribute(model, inputs, model.image_layer, "grad-cam", 1, sign), scenes.SIDE)
        assert torch.allclose(pointing.heat(model, inputs, "Grad-CAM", sign, batch=3), by_hand, rtol=1e-4, atol=1e-7)
    pixels = attribute(model, inputs, "input:images", "saliency", 1, "for")
    assert torch.allclose(pointing.heat(model, inputs, "pixel gradient"), pixels, rtol=1e-4, atol=1e-7)


def test_attention_is_asked_of_the_transformer_alone(models, data, asked):
    of_cnn, of_vit = (pointing.maps_of(models[name]) for name in ("clip_cnn", "clip_vit"))
    assert set(of_vit) - set(of_cnn) == {"attention rollout", "attention relevance"} and len(of_vit) == 13
    with pytest.raises(InputError, match="has no map 'attention rollout'"):
        pointing.heat(models["clip_cnn"], given(models["clip_cnn"], data, asked), "attention rollout")
    with pytest.raises(InputError, match="has no map 'grad-cam'; its maps are pixel gradient, pixel"):
        pointing.heat(models["clip_cnn"], given(models["clip_cnn"], data, asked), "grad-cam")


@pytest.mark.parametrize("name", ["clip_cnn", "clip_vit"])
def test_every_method_gives_a_map_of_the_picture_and_a_score_of_every_word(models, data, asked, name):
    model = models[name]
    inputs, some = given(model, data, asked), 1
    found = pointing.maps(model, inputs, asked.cues(inputs["tokens"]), carried=some)
    assert {*pointing.maps_of(model), "word by patch", "gradient (round 1)", "gradient, other masked (rounds 2, 3)",
            "gradient, picked masked (round 4)", "cross gradient", "dividend of the feature"} == set(found)
    for method, values in found.items():
        assert values.shape == (some if method == pointing.DIVIDEND else 4, scenes.SIDE, scenes.SIDE), method
        assert np.isfinite(values).all(), method
    scored = pointing.scores(model, inputs, carried=some)
    words = (inputs["tokens"] >= pointing.SPECIAL).numpy()
    for method, values in scored.items():
        assert np.array_equal(~np.isnan(values), words[: len(values)]), method
    assert len(scored[pointing.DIVIDEND]) == some and {"l2", "attention rollout", "gradient (round 1)"} <= set(scored)


def test_evidence_against_turns_signed_scores_and_maps(models, data, asked):
    model = models["clip_cnn"]
    inputs = given(model, data, asked)
    cues = asked.cues(inputs["tokens"])
    one, other = (pointing.scores(model, inputs, sign, carried=2) for sign in ("for", "against"))
    for method in ("gradient x input", "dividend of the feature"):
        assert np.allclose(one[method], -other[method], atol=1e-5, equal_nan=True), method
    assert np.nanmax(np.abs(one["dividend of the feature"])) > 0
    speaks, denies = (pointing.word_maps(model, inputs, cues, sign) for sign in ("for", "against"))
    assert speaks.min() >= 0 and denies.min() >= 0 and speaks.max() > 0 and denies.max() > 0
    assert not torch.allclose(speaks, denies)


def test_a_map_of_one_word_is_the_row_of_that_word(models, data, asked):
    model = models["clip_vit"]
    inputs = given(model, data, asked)
    cues = asked.cues(inputs["tokens"])
    rows = pointing.word_by_patch(model, inputs, words=pointing.sides(model)[1])
    by_hand = torch.stack([rows[i, 3].clamp(min=0) for i in range(4)])  # start-of-text, "a", the colour, the noun
    assert cues[:, 3].all() and torch.allclose(pointing.word_maps(model, inputs, cues), upsample(by_hand, scenes.SIDE))


# The table.


@pytest.mark.parametrize("name", ["clip_cnn", "clip_vit"])
def test_the_table_holds_every_method_beside_what_it_has_to_beat(data, models, name):
    unlearned = {name: recipe.new_model(name, 2).requires_grad_(False).eval()}
    table = pointing.table(data, {name: models[name]}, unlearned, n=4, carried=1)
    assert tuple(table.columns) == pointing.COLUMNS and set(table.question) == set(pointing.QUESTIONS)
    assert not table.duplicated(["question", "model", "method", "measure"]).any()
    known = table.dropna(subset=["value"])
    assert known.value.between(0, 1).all() and (known.low <= known.value).all() and (known.value <= known.high).all()
    thing = table[table.question == "thing"]
    assert set(thing[thing.model == "none"].method) == {"random map", "edges", "centre"}
    assert {*pointing.maps_of(models[name]), pointing.DIVIDEND, "word by patch"} <= set(thing[thing.model == name].method)
    for (question, _), lines in table[table.model == name].groupby(["question", "measure"]):
        learned = lines[~lines.method.str.startswith(pointing.UNLEARNED)].method
        controls = lines[~lines.method.isin(learned)].method.str.removeprefix(pointing.UNLEARNED)
        assert set(learned) - {pointing.DIVIDEND} == set(controls), question
    assert set(thing.measure) == set(pointing.PLACES) and set(table[table.question == "cue words"].measure) == {"AUROC"}
    assert set(table[table.question == "false word"].measure) == {"AUROC", "top word"}


@pytest.mark.parametrize(("make", "says"), [
    (lambda model, inputs: pointing.heat(model, inputs, "Grad-CAM", "pro"), "sign.*'pro'"),
    (lambda model, inputs: pointing.heat(model, {**inputs, "images": inputs["images"] * np.nan}, "Grad-CAM"), "NaN"),
    (lambda _, inputs: pointing.by_rounds(recipe.new_model("clip_cnn").train(), inputs), "train mode"),
])
def test_what_cannot_be_answered_is_told(models, data, asked, make, says):
    with pytest.raises((InputError, ValueError), match=says):
        make(models["clip_cnn"], given(models["clip_cnn"], data, asked))


def test_a_word_of_no_scene_and_boxes_of_another_number_are_refused(models, data, asked):
    with pytest.raises(ValueError, match="unicorn"):
        recipe.inputs(models["clip_cnn"], data.images([0]), ["a red unicorn"])
    with pytest.raises(ValueError, match="expected \\(3, H, W\\)"):
        pointing.measured({"map": np.ones((4, 8, 8))}, asked, pointing.PLACES, asked.boxes[:3])
