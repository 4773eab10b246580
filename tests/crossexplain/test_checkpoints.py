import json

import pytest
import torch
from torch import nn

from crossexplain.models import checkpoints
from crossexplain.models.weights import WeightsError

CARD = {"data": "made up", "seed": 0, "command": "python -m crossexplain train tiny", "accuracy": {"all": 0.9}}


def model(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


def test_weights_and_card_come_back(tmp_path):
    saved, other = model(), model()
    nn.init.zeros_(other[0].weight)
    path = checkpoints.save(saved, "tiny", CARD, tmp_path)
    card = checkpoints.load("tiny", other.train(), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), other.state_dict().values()))
    assert not other.training and card["accuracy"] == {"all": 0.9} and card["parameters"] == 24
    assert card["bytes"] == path.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_a_missing_checkpoint_names_those_that_are_there_and_the_command(tmp_path):
    checkpoints.save(model(), "tiny", CARD, tmp_path)
    with pytest.raises(WeightsError, match="there are: tiny. Make it with `python -m crossexplain train big`"):
        checkpoints.load("big", model(), tmp_path)
    (tmp_path / "tiny.json").unlink()
    with pytest.raises(WeightsError, match="no checkpoint 'tiny' with a card"):
        checkpoints.load("tiny", model(), tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_broken_file_is_told_and_leaves_the_model_alone(tmp_path, damage):
    path = checkpoints.save(model(), "tiny", CARD, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    other = model()
    nn.init.ones_(other[0].weight)
    with pytest.raises(WeightsError, match="is broken.*make it again"):
        checkpoints.load("tiny", other, tmp_path)
    assert (other[0].weight == 1).all()


def test_a_file_with_the_right_digest_but_no_weights_is_told(tmp_path):
    path = checkpoints.save(model(), "tiny", CARD, tmp_path)
    path.write_bytes(b"not weights")
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | {"sha256": checkpoints._digest(path)}))
    with pytest.raises(WeightsError, match="cannot be read"):
        checkpoints.load("tiny", model(), tmp_path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(WeightsError, match="card .* is broken"):
        checkpoints.load("tiny", model(), tmp_path)


def test_weights_of_another_architecture_are_told(tmp_path):
    checkpoints.save(model(), "tiny", CARD, tmp_path)
    with pytest.raises(WeightsError, match=r"does not fit Sequential: 6 entries differ, first '0.bias' \(\(4,\) in"):
        checkpoints.load("tiny", model(5), tmp_path)
    with pytest.raises(WeightsError, match="absent"):
        checkpoints.load("tiny", nn.Sequential(model()[0]), tmp_path)


def test_what_nobody_could_judge_or_use_is_not_kept(tmp_path):
    with pytest.raises(WeightsError, match="lacks seed, accuracy"):
        checkpoints.save(model(), "tiny", {"data": "x", "command": "y"}, tmp_path)
    broken = model()
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="NaN or infinity in 0.weight"):
        checkpoints.save(broken, "tiny", CARD, tmp_path)
    with pytest.raises(WeightsError, match="at most 10 may"):
        checkpoints.save(model(), "tiny", CARD, tmp_path, limit=10)
    with pytest.raises(WeightsError, match="plain name"):
        checkpoints.save(model(), "../tiny", CARD, tmp_path)
    assert not list(tmp_path.iterdir())
