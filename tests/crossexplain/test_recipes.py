from dataclasses import replace

import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.models.checkpoints import read_card
from crossexplain.models.weights import WeightsError
from crossexplain.recipes import RECIPES, Recipe, Trained, clutter, collages, keep, load_or_train, with_checkpoint
from crossexplain_book import cli

CARD = {"data": "made up", "accuracy": 0.5}


@pytest.fixture(scope="module")
def small():
    return clutter.train(seed=3, size="small", progress=False)


def test_every_recipe_is_found_by_the_name_of_its_checkpoint():
    assert all(isinstance(RECIPES[name], Recipe) and RECIPES[name].name == name for name in RECIPES)
    assert {"slim_vgg", "collages", "scenes_clip_vit"} <= set(RECIPES) and len(RECIPES) == 17


def test_unknown_names_and_profiles_are_refused():
    with pytest.raises(InputError, match="got recipe 'vgg', expected one of 'slim_vgg'"):
        load_or_train("vgg")
    with pytest.raises(InputError, match="got profile 'half', expected one of 'embedded', 'full'"):
        load_or_train("slim_vgg", "half")


def test_a_recipe_of_both_profiles_is_told_which_and_retraining_loads_nothing(monkeypatch, small):
    asked = []

    def noted(what, answer):
        return lambda **settings: asked.append((what, settings)) or answer

    both = Recipe("collages", noted("train", small), noted("load", small), dict, profiles=True)
    monkeypatch.setitem(collages.RECIPES, "collages", both)
    monkeypatch.setitem(clutter.RECIPES, "slim_vgg", replace(both, load=noted("load nothing", None), profiles=False))
    assert load_or_train("collages", "full", 4, progress=False) is small
    assert load_or_train("slim_vgg", seed=5, size="small", pooling="last") is small
    assert load_or_train("collages", retrain=True) is small
    assert [what for what, _ in asked] == ["load", "load nothing", "train", "train"]
    assert asked[0][1] == {"seed": 4, "size": "page", "progress": False, "profile": "full"}
    assert asked[2][1] == {"seed": 5, "size": "small", "progress": True, "pooling": "last"}
    assert asked[3][1]["profile"] == "embedded"


def test_what_is_kept_is_loaded_with_its_card_and_its_histories(tmp_path, small, monkeypatch):
    monkeypatch.setitem(clutter.RECIPES, "slim_vgg", replace(clutter.RECIPES["slim_vgg"], card=lambda trained: CARD))
    path = keep(small, tmp_path)
    assert path == tmp_path / "slim_vgg.safetensors"
    card = read_card("slim_vgg", tmp_path)
    assert card["command"] == "python -m crossexplain train slim_vgg --seed 3" and card["data"] == "made up"
    loaded = with_checkpoint(Trained(name="slim_vgg", model=type(small.model)(), data=small.data), tmp_path)
    assert loaded.histories == small.histories and loaded.courses == small.courses and loaded.seconds == small.seconds > 0
    assert loaded.card["seed"] == 3 and not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), small.model.parameters()))
    with pytest.raises(WeightsError, match="there is no checkpoint 'other'"):
        with_checkpoint(replace(loaded, file="other"), tmp_path)


def test_the_time_of_a_model_without_histories_is_that_of_its_card():
    trained = Trained(name="slim_vgg", model=torch.nn.Linear(1, 1), data=None, card={"seconds": 7.5, "courses": {"naming": {}}})
    assert trained.seconds == 7.5 and trained.courses == {"naming": {}} and trained.history is None


def test_the_command_trains_with_a_seed_and_keeps_what_it_trained(tmp_path, small, monkeypatch, capsys):
    given = []
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(clutter.RECIPES, "slim_vgg", Recipe(
        "slim_vgg", lambda **settings: given.append(settings) or small, lambda **_: None, lambda trained: CARD))
    assert cli.main(["train", "slim_vgg", "--seed", "3", "--out", str(tmp_path)]) == 0
    assert given == [{"seed": 3, "resume": tmp_path / "cache" / "training"}]
    assert (tmp_path / "slim_vgg.safetensors").is_file() and "slim_vgg.safetensors" in capsys.readouterr().out
