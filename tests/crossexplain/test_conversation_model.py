"""The model of conversations: turns are encoded apart, three ways to join them, and its recipe at small size."""

import dataclasses
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.data import conversations
from crossexplain.data.conversation_words import FORMS, MODALITIES
from crossexplain.files import embedded_folder
from crossexplain.gradients.capture import capture
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Tokens, Vectors
from crossexplain.models import checkpoints
from crossexplain.models.conversation import FUSIONS, ConversationModel
from crossexplain.recipes import RECIPES, keep
from crossexplain.recipes import conversations as recipe

SIZES = {"vocabulary": 30, "parties": 5, "turns": 8, "question": 7, "words": 4, "frames": 2, "sound": 3, "frame": (9, 8),
         "segment": (6, 5), "width": 16}
N, TURNS = 3, 5


@pytest.fixture(params=FUSIONS)
def model(request):
    return ConversationModel(request.param, **SIZES).eval()


def some(turns=TURNS, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {"question": torch.randint(1, 30, (N, 7)), "party": torch.randint(1, 5, (N, turns)),
                "words": torch.randint(1, 30, (N, 4 * turns)), "frames": torch.rand(N, 2 * turns, 72),
                "frames_present": torch.ones(N, 2 * turns, dtype=torch.bool), "sound": torch.rand(N, 3 * turns, 30),
                "sound_present": torch.ones(N, 3 * turns, dtype=torch.bool)}


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def encoded(model, inputs):
    return {name: model.encode(name, inputs) for name in model.layers}


def test_the_model_is_its_parts_joined(model):
    inputs = some()
    parts = encoded(model, inputs)
    rest = {name: inputs[name] for name in ("question", "party")}
    close(model.join(parts, rest), model(**inputs))
    if model.pooled:
        close(model.join_pooled({name: part.sum(dim=1) for name, part in parts.items()}, rest), model(**inputs))


def test_a_part_depends_on_its_own_features_alone(model):
    inputs, other = some(), some(seed=1)
    for name, each in (("words", 4), ("frames", 2), ("sound", 3)):
        changed = {**inputs, **{key: other[key] for key in model.layers if key != name}}
        mine = inputs[name].clone()
        mine[:, each:2 * each] = other[name][:, each:2 * each]
        before, after = model.encode(name, inputs), model.encode(name, {**changed, name: mine})
        same = [0, *range(2, TURNS)]
        close(before[:, same], after[:, same])
        assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)


@pytest.mark.parametrize("turns", [1, 5, 8])
def test_padded_turns_and_features_change_nothing(model, turns):
    inputs, more = some(turns), some(8, seed=2)
    padded = {name: torch.cat([part, torch.zeros_like(more[name][:, part.shape[1]:])], dim=1) for name, part in inputs.items()
              if name != "question"}
    close(model(**inputs), model(question=inputs["question"], **padded))


def test_a_batch_gives_what_single_examples_give(model):
    inputs = some()
    alone = torch.cat([model(**{name: part[i:i + 1] for name, part in inputs.items()}) for i in range(N)])
    close(alone, model(**inputs))


def test_silence_one_party_and_an_empty_utterance_are_answered(model):
    inputs = some()
    inputs["party"][:], inputs["words"][:] = 1, 0
    inputs["frames_present"][:], inputs["sound_present"][:] = False, False
    assert torch.isfinite(model(**inputs)).all()


def test_what_is_blank_is_encoded_as_it_is_where_the_gradient_of_the_input_is_read(model):
    inputs = some()
    inputs["frames"][:, 3:6] = 0
    traced = inputs["frames"].clone().requires_grad_()
    close(model.encode("frames", inputs), model.encode("frames", {**inputs, "frames": traced}))
    (slope,) = torch.autograd.grad(model(**{**inputs, "frames": traced}).sum(), traced)
    assert (slope[:, 3:6] != 0).any()


def test_masks_are_all_true_by_default(model):
    inputs = some()
    close(model(**inputs), model(**{name: part for name, part in inputs.items() if "present" not in name}))


def test_each_layer_that_is_read_keeps_one_vector_a_feature(model):
    inputs = some()
    for name, layer in model.layers.items():
        read = capture(model, inputs, layer)
        assert read.activations[layer].shape[:2] == inputs[name].shape[:2]
        assert read.gradients[layer].abs().sum() > 0


def test_who_speaks_when_and_the_question_count(model):
    inputs = some()
    for name, other in (("party", inputs["party"].flip(1) % 4 + 1), ("question", inputs["question"].flip(1) % 28 + 1)):
        assert not torch.allclose(model(**inputs), model(**{**inputs, name: other}), atol=1e-6)


@pytest.mark.parametrize("change", [
    lambda i: {**i, "party": torch.ones(N, 40, dtype=torch.long)},
    lambda i: {**i, "party": i["party"] + 9},
    lambda i: {**i, "party": i["party"] * 0},
    lambda i: {**i, "question": i["question"] * 0},
    lambda i: {**i, "words": i["words"] + 99},
    lambda i: {**i, "words": i["words"][:, :-1]},
    lambda i: {**i, "frames": i["frames"][..., :-1]},
    lambda i: {**i, "frames_present": i["frames_present"][:, :-1]},
    lambda i: {**i, "question": i["question"].float()},
    lambda i: {**i, "sound": i["sound"][0]},
    lambda i: {**i, "sound": i["sound"][:, :9], "sound_present": i["sound_present"][:, :9]},
])
def test_what_cannot_be_answered_is_refused(model, change):
    with pytest.raises(InputError):
        model(**change(some()))


def test_an_unknown_fusion_is_refused():
    with pytest.raises(InputError, match="attention"):
        ConversationModel("middle", **SIZES)


def test_equal_seeds_give_equal_weights():
    one, same, other = (ConversationModel(**SIZES, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def small():
    return recipe.train(size="small", progress=False)


def test_the_recipe_runs_and_keeps(small, tmp_path):
    assert set(small.histories) == {"words", "frames", "sound", "finding", "answering"}
    path = keep(small, tmp_path)
    assert path.stat().st_size < 3e6
    assert set(checkpoints.read_card("conversations", tmp_path)["accuracy"]) == {"all", *conversations.KINDS}


@pytest.mark.parametrize("name", ["conversations_early", "conversations_late"])
def test_the_siblings_take_the_towers_that_travel(name):
    trained = recipe.train(name, size="small", progress=False, only=("words", "sound"))
    assert set(trained.histories) == {"finding", "answering"}
    towers = recipe.load().model.towers.state_dict()
    assert all(torch.equal(part, towers[key]) for key, part in trained.model.towers.state_dict().items())
    batch = trained.data.build("test", 64, 0, kinds=["frames"])  # which are not seen
    assert np.mean((recipe.logits(trained.model, batch, only=("words", "sound")).numpy() > 0) == batch.labels) == 0.5


def test_bent_segments_keep_their_shape_and_their_silence():
    rows = torch.rand(5, conversations.S, conversations.MELS * conversations.STEPS)
    rows[2] = 0
    bent = recipe.bent(rows)
    assert bent.shape == rows.shape and not bent[2].any() and not torch.equal(bent[0], rows[0]) and bent.min() >= 0


def test_turns_that_are_hidden_hold_no_digit():
    for name in conversations.MODALITIES:
        turns = recipe.Turns(conversations.load(), name, "validation", 400).fixed()
        empty = turns.inputs["rows"].flatten(1).eq(0).all(dim=1)
        assert empty.any() and (turns.labels[empty] == recipe.NONE).all()
        assert len(turns.labels.unique()) == 11


def test_symbolic_conversations_hold_what_the_labels_tell():
    digits = torch.arange(11.0)[:, None, None].expand(-1, 3, 2)
    symbols = recipe.Symbolic({name: digits for name in conversations.MODALITIES}, recipe.UNITS, 0, only=("words", "sound"))
    inputs, labels = symbols.batch(torch.arange(len(symbols)))
    assert (inputs["frames"] == recipe.NONE).all() and labels[:, 0].float().mean() == 0.5
    seen = torch.stack([inputs[name][..., 0] for name in conversations.MODALITIES], dim=2).long()
    references = symbols.references
    for i in range(3):
        named = references[:, i, 0] >= 0
        there = seen[torch.arange(len(seen)), references[:, i, 2], references[:, i, 0]]
        assert (labels[named, 1 + i] == there[named]).all() and (labels[~named, 1 + i] == recipe.NONE).all()


def test_groups_and_modalities_fit_the_model(small):
    batch = small.data.build("test", recipe.UNITS, 0)
    inputs, layers = batch.inputs(), small.model.layers
    modalities = [Tokens("words", "words", layers["words"], mask_id=None),
                  *(Vectors(name, name, layers[name], attention=f"{name}_present") for name in ("frames", "sound"))]
    for by in ("turn", "party", "chunk"):
        groups = Groups(*batch.groups(by))
        assert set(groups.owner) == set(conversations.MODALITIES)
        for modality in modalities:
            assert groups.owner[modality.name].shape == modality.features(inputs).shape


def test_the_model_that_travels_reaches_its_bars():
    trained = RECIPES["conversations"].load()
    card, some = trained.card, trained.data.build("test", 2 * recipe.UNITS, 5)
    assert card["accuracy"]["all"] >= 0.95 and min(card["accuracy"].values()) >= 0.92 and card["seconds"] <= 600
    assert np.mean((recipe.logits(trained.model, some).numpy() > 0) == some.labels) > 0.93


def test_the_model_that_travels_finds_the_number_before_another_one():
    trained = recipe.load()
    batch = trained.data.build("test", 480, 5, kinds=[f"{one} and {other}" for one, other in combinations(MODALITIES, 2)])
    batch = batch.select(np.flatnonzero(batch.references[:, 1, 1] == FORMS.index("before")))
    modality, _, place = batch.references[:, 1].T
    party = np.take_along_axis(batch.party, place[:, None], axis=1)
    later, digits = (batch.party == party) & (np.arange(8) > batch.references[:, 0, 2:]), batch.digits.copy()
    assert later.any(axis=1).all()
    for row, where, m in zip(digits, later, modality):
        row[where, m] = (row[where, m] + 5) % 10  # a foil; 4 where there was none
    changed = recipe.logits(trained.model, dataclasses.replace(batch, digits=digits, given=batch.given | (digits >= 0)))
    for answers in (recipe.logits(trained.model, batch), changed):
        assert np.mean((answers.numpy() > 0) == batch.labels) > 0.85


def test_where_what_decides_is_hidden_it_says_neither_yes_nor_no():
    trained = recipe.load()
    batch = trained.data.build("test", 64, 5, kinds=["words"])
    shown, hidden = (recipe.logits(trained.model, batch, only=only).abs().median()
                     for only in (conversations.MODALITIES, ("frames", "sound")))
    assert shown > 5 * hidden


def test_the_models_of_three_seeds_reach_the_bars():
    table = pd.read_csv(embedded_folder() / "results" / "conversations_seeds.csv").set_index(["seed", "kind"])
    assert set(table.loc[0].index) == {"all", *conversations.KINDS} and len(table) == 3 * (1 + len(conversations.KINDS))
    assert (table.xs("all", level="kind").accuracy >= 0.95).all() and table.accuracy.min() >= 0.92
