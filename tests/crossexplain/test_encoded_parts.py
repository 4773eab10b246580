"""Models that encode their parts apart: the same values as of the whole model, at the cost of joining; groups as players."""

import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.coalitions.shapley import shapley
from crossexplain.gradients.groups import Groups
from support.talk import MODALITIES, SIZES, Talk, talks, turns_of

INPUTS = talks()
TURNS = turns_of(INPUTS)
CHUNKS = Groups([f"part {i + 1}" for i in range(10)], {  # the last word of each turn stays
    "words": torch.tensor([0, 1, -1, 2, 2, -1, 3, 3, -1]), "frames": torch.tensor([4, 4, 5, 5, 6, -1]),
    "sound": torch.tensor([7, 8, 9, 9, 9, -1])})
PLAYERS = {"turns": TURNS, "apart": TURNS.apart(), "two": TURNS.apart(["words", "sound"]), "chunks": CHUNKS}
BASELINES = {"neutral": None, "borrowed": "data", "mixed": {"words": "pad", "sound": "data"}}


def of(model, players, inputs=INPUTS, **options):
    return Game(model.eval(), inputs, MODALITIES, players=players, progress=False, **options)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("players", PLAYERS.values(), ids=PLAYERS)
def test_by_parts_and_whole_are_the_same(pooled, baseline, players):
    options = {"baselines": BASELINES[baseline], "donors": talks((2, 3, 3), seed=5)}
    parts, whole = of(Talk(pooled), players, **options), of(Talk(pooled), players, split=False, **options)
    assert parts.splits and not whole.splits and parts.names == whole.names == players.names
    assert torch.equal(parts.present, whole.present)
    assert torch.allclose(parts.values_of_all(), whole.values_of_all(), atol=1e-5)
    assert parts.cost().encoded["sound"] == 3 * (6 if players is PLAYERS["chunks"] else 4)
    assert parts.cost().coalitions == whole.cost().coalitions


def test_a_hidden_turn_hides_all_of_its_modalities_and_nothing_else():
    game = of(Talk(), TURNS)
    keep = torch.tensor([[True, False, True]])
    stay = game.features(keep, torch.tensor([0])).squeeze()
    assert stay.tolist() == [*[True] * 3, *[False] * 3, *[True] * 3, *2 * [True, True, False, False, True, True]]
    hidden = game.question.hidden(stay[None], torch.tensor([0]))
    value = Talk().eval()(**hidden)
    assert game(keep)[0, 0].item() == pytest.approx(value.item() * (2 * game.target[0].item() - 1), abs=1e-5)


def test_ragged_conversations_have_the_values_that_each_has_alone():
    together = of(Talk(), TURNS.apart())
    for i in range(3):
        alone = of(Talk(), TURNS.apart(), {key: value[i:i + 1] for key, value in INPUTS.items()})
        assert torch.equal(together.present[i], alone.present[0])
        assert torch.allclose(together.values_of_all()[i], alone.values_of_all()[0], atol=1e-5)
        missing = ~together.present[i]
        values = shapley(together.values_of_all()[i].numpy())
        assert missing.any() == (i > 0) and not values[missing.numpy()].any(), "who is not there adds nothing"


def test_parties_are_players_too():
    party = INPUTS["party"] - 1
    parties = Groups(["ben", "mia", "kim"], {name: party.repeat_interleave(size, dim=1) for name, size in SIZES.items()})
    parts, whole = of(Talk(), parties), of(Talk(), parties, split=False)
    assert parts.splits and torch.allclose(parts.values_of_all(), whole.values_of_all(), atol=1e-5)


def test_a_part_of_very_many_players_is_asked_whole(monkeypatch):
    monkeypatch.setattr("crossexplain.coalitions.parts.WITHIN", 1)
    assert not of(Talk(), PLAYERS["chunks"]).splits and of(Talk(), TURNS).splits


def test_a_model_whose_parts_see_each_other_is_refused():
    with pytest.raises(InputError, match=r"join\(encode\(...\)\) gives other logits .* pass split=False"):
        of(Talk(leaking=True), TURNS.apart())
    assert not of(Talk(leaking=True), TURNS.apart(), split=False).splits


def test_several_classes_and_a_function_as_target():
    parts = of(Talk(classes=3), TURNS, target=torch.tensor([0, 1, 2]))
    whole = of(Talk(classes=3), TURNS, target=torch.tensor([0, 1, 2]), split=False)
    assert parts.splits and torch.allclose(parts.values_of_all(), whole.values_of_all(), atol=1e-5)
    assert not of(Talk(classes=3), TURNS, target=lambda output: output[:, 0]).splits


def test_importances_go_to_groups_and_back():
    game, ones = of(Talk(), TURNS), {name: torch.ones(3, 3 * size) for name, size in SIZES.items()}
    joint = game.joint(ones)
    assert joint[0].tolist() == [7, 7, 7] and joint[1].nan_to_num(-1).tolist() == [4, 7, -1], "the second says nothing at first"
    back = game.shared(joint)
    assert all((back[name][0] == 1).all() for name in SIZES) and back["words"][1].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert torch.equal(game.owner("frames"), torch.arange(3).repeat_interleave(2).where(INPUTS["frames_present"], -1))


def test_forty_turns_are_sampled_and_refused_exactly():
    inputs = talks((40, 12), most=40)
    game = of(Talk(), turns_of(inputs), inputs)
    assert game.splits
    with pytest.raises(InputError, match="40 players"):
        game.values_of_all()
    values = sampled_shapley(game, budget=128)
    assert torch.equal(values.isnan(), ~game.present)
    gained = game(torch.ones(1, 40).bool()) - game(torch.zeros(1, 40).bool())
    assert torch.allclose(values.nansum(dim=1), gained[0], atol=1e-5)


def test_sampling_all_coalitions_of_groups_is_exact():
    game = of(Talk(), TURNS.apart())
    assert torch.allclose(sampled_shapley(game, budget=512).nan_to_num(),
                          torch.from_numpy(shapley(game.values_of_all().numpy())), atol=1e-5)


def test_groups_of_another_batch_are_refused():
    with pytest.raises(InputError, match="groups of words"):
        of(Talk(), Groups(["a"], {"words": torch.zeros(4, dtype=torch.long)}))
    with pytest.raises(InputError, match="modality of the groups"):
        of(Talk(), Groups(["a"], {"smell": torch.zeros(4, dtype=torch.long)}))


def test_one_turn_and_one_player():
    inputs = talks((1,), most=1)
    game = of(Talk(), turns_of(inputs), inputs)
    assert game.values_of_all().shape == (1, 2)
    assert game.values_of_all().isfinite().all() and game.splits


class Namesake(Talk):
    """Has methods of these names that do something else."""

    def encode(self, pixels):
        return pixels

    def join(self, *, names):
        return names

    def forward(self, **inputs):
        return Talk.join(self, {name: Talk.encode(self, name, inputs) for name in SIZES}, inputs)


def test_a_model_with_other_methods_of_these_names_is_asked_whole():
    game = of(Namesake(), TURNS)
    assert not game.splits and torch.equal(game.values_of_all(), of(Talk(), TURNS, split=False).values_of_all())


@pytest.mark.parametrize(("method", "called"), [("encode", r"encode\('words', inputs\)"), ("join", r"join\(parts, inputs\)")])
def test_a_method_that_does_not_run_is_named(monkeypatch, method, called):
    model, rest = Talk(), Talk()
    monkeypatch.setattr(model, method, lambda first, second: second["nowhere"])
    monkeypatch.setattr(model, "forward", rest.forward)
    with pytest.raises(InputError, match=rf"{called} of the model does not run \(KeyError: 'nowhere'\).*split=False"):
        of(model, TURNS)
    assert of(model, TURNS, split=False).values_of_all().isfinite().all()


def test_many_groups_that_nobody_has_change_nothing():
    nobody = Groups([f"turn {i}" for i in range(30)], {"words": torch.full((9,), -1)})
    game = of(Talk(), nobody)
    assert not game.present.any() and game.values_of_all().std(dim=1).max() == 0
    assert sampled_shapley(game).isnan().all()
