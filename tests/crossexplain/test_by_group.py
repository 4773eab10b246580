"""Importances of groups: every method says what each turn counts for, or why it cannot."""

import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.evaluation.methods import explain, registry
from crossexplain.evaluation.task import CannotRun
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Tokens, Vectors
from crossexplain.gradients.rounds import rounds
from support.talk import MODALITIES, SIZES, Talk, talks, turns_of

INPUTS = talks()
TURNS = turns_of(INPUTS)
AT_LAYERS = [Tokens(name="words", input="words", layer="embedding", special=()), *MODALITIES[1:]]
THERE = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
HIDING = ["feature dividends", "sampled shapley", "exact shapley", "exact banzhaf", "occlusion", "feature ablation",
          "kernel shap", "shapley sampling"]
SUMMED = ["gradient norm", "gradient x input", "grad-cam in time", "gradient norm, other masked", "cross gradient",
          "integrated gradients", "gradient shap"]


def of(method, groups=TURNS, model=None, inputs=INPUTS, **options):
    return explain((model or Talk()).eval(), inputs, AT_LAYERS, method, groups=groups, **options)


@pytest.mark.parametrize("method", registry())
def test_every_method_speaks_of_turns_or_says_why_not(method):
    try:
        found = of(method, budget=32)
    except CannotRun as reason:
        assert method not in HIDING + SUMMED, reason
        return
    assert found.joint().shape == (3, 3) and found.groups == TURNS.names and found.features == {"groups": 3}
    spoken = ~found.joint().isnan()
    assert torch.equal(spoken, THERE) or (set(explain(Talk().eval(), INPUTS, AT_LAYERS, method).values) == {"words"})


@pytest.mark.parametrize("method", SUMMED)
def test_methods_that_hide_no_group_are_summed_over_features(method):
    features = explain(Talk().eval(), INPUTS, AT_LAYERS, method)
    by_hand = sum(features.values[name].nan_to_num(0).unflatten(1, (3, size)).sum(dim=2) for name, size in SIZES.items())
    assert torch.allclose(of(method).joint().nan_to_num(0).float(), by_hand, atol=1e-6)
    words = of(method, TURNS.apart("words")).joint().nan_to_num(0).float()
    assert torch.allclose(words, features.values["words"].nan_to_num(0).unflatten(1, (3, 3)).sum(dim=2), atol=1e-6)


@pytest.mark.parametrize("method", ["sampled shapley", "exact shapley", "kernel shap", "shapley sampling", "shapiq shapley"])
@pytest.mark.parametrize("groups", [TURNS, TURNS.apart(), TURNS.apart(["words"])], ids=["turns", "apart", "words"])
def test_shapley_values_of_groups_sum_to_what_hiding_all_of_them_takes(method, groups):
    inputs = talks((3, 3))
    game = Game(Talk().eval(), inputs, AT_LAYERS, players=groups, progress=False)
    table = game.values_of_all()
    found = of(method, groups, inputs=inputs, budget=256)
    assert torch.allclose(found.joint().nansum(dim=1), table[:, -1] - table[:, 0], atol=1e-4)


def test_occlusion_hides_one_turn_at_a_time():
    found, game = of("occlusion"), Game(Talk().eval(), INPUTS, AT_LAYERS, players=TURNS, progress=False)
    whole = game(torch.ones(1, 3).bool())[0]
    for turn in range(3):
        without = game((torch.arange(3) != turn)[None])[0]
        assert torch.allclose(found.joint()[:, turn].nan_to_num(0), whole - without, atol=1e-5)
    assert torch.equal(found.joint().isnan(), of("feature ablation").joint().isnan())


def test_pairs_of_turns_interact():
    found = of("exact interactions")
    assert found.pairs.shape == (3, 3, 3) and torch.allclose(found.pairs, found.pairs.transpose(1, 2))
    assert not of("exact interactions", model=Talk(), inputs={key: value[2:] for key, value in INPUTS.items()}).pairs.any()


@pytest.mark.parametrize("method", HIDING[1:] + SUMMED)
def test_ragged_conversations_are_explained_as_each_alone(method):
    together = of(method, budget=64).joint()
    for i in range(3):
        alone = of(method, budget=64, inputs={key: value[i:i + 1] for key, value in INPUTS.items()}).joint()
        if method not in ("sampled shapley", "kernel shap", "shapley sampling", "gradient shap"):  # another draw
            assert torch.allclose(together[i].nan_to_num(-9), alone[0].nan_to_num(-9), atol=1e-4)


def test_a_video_of_one_frame_is_explained():
    inputs, apart = talks((3,)), TURNS.apart()
    inputs["frames_present"][0] = torch.arange(6) == 2  # the first frame of the second turn
    for method in ("exact shapley", "gradient norm"):
        values = of(method, apart, inputs=inputs).joint()[0]
        assert [name for name, value in zip(apart.names, values) if value.isnan()] == ["frames of turn 1", "frames of turn 3"]
        assert values[apart.names.index("frames of turn 2")] != 0
    record = rounds(Talk().eval(), inputs, AT_LAYERS, progress=False)
    assert all(of_view.isfinite().all() for of_view in record.by(TURNS).importance.values())


@pytest.mark.parametrize("method", ["exact shapley", "occlusion", "gradient norm"])
def test_frames_that_are_nan_are_refused(method):
    inputs = talks((3, 2))
    inputs["frames"][1, 2, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        of(method, inputs=inputs)


def test_a_game_that_is_there_already_is_looked_up():
    game = Game(Talk().eval(), INPUTS, AT_LAYERS, players=TURNS, progress=False)
    assert torch.equal(of("exact shapley", game=game).joint().isnan(), ~THERE)
    with pytest.raises(InputError, match="other players"):
        of("exact shapley", TURNS.apart(), game=game)
    other = Groups(TURNS.names, {name: numbers.where(numbers != 0, 1) for name, numbers in TURNS.owner.items()})
    with pytest.raises(InputError, match="the same names for other features"):
        of("exact shapley", other, game=game)
    whole = Groups(list(SIZES), {name: torch.full((3 * size,), i) for i, (name, size) in enumerate(SIZES.items())})
    few = Game(Talk().eval(), INPUTS, AT_LAYERS, players=dict.fromkeys(SIZES, 2), progress=False)
    with pytest.raises(InputError, match="the same names for other features"):
        of("exact shapley", whole, game=few)


class Renamed(torch.nn.Module):
    """Takes the frames under the name that importances of groups have."""

    def __init__(self):
        super().__init__()
        self.talk = Talk()

    def forward(self, groups, **inputs):
        return self.talk(frames=groups, **inputs)


@pytest.mark.parametrize("method", ["gradient x input", "feature ablation", "occlusion"])
def test_a_modality_may_be_called_groups(method):
    inputs = {"groups" if key == "frames" else key: value for key, value in INPUTS.items()}
    modalities = [Tokens(name="words", input="words", layer="talk.embedding", special=()),
                  Vectors("groups", "groups", attention="frames_present"), MODALITIES[2]]
    players = turns_of(INPUTS)
    turns = Groups(players.names, {"groups" if name == "frames" else name: of for name, of in players.owner.items()})
    model = Renamed().eval()
    features, by_turn = (explain(model, inputs, modalities, method, groups=groups) for groups in (None, turns))
    assert set(features.values) == {"words", "groups", "sound"} and set(by_turn.values) == {"groups"}
    assert torch.allclose(by_turn.joint().nan_to_num(), of(method).joint().nan_to_num(), atol=1e-5)


def test_what_is_no_group_is_refused():
    with pytest.raises(InputError, match="expected Groups"):
        of("gradient norm", {"turn": 1})
    with pytest.raises(CannotRun, match="whole modalities"):
        of("mm-shap")
    with pytest.raises(InputError, match="groups of words"):
        of("gradient norm", Groups(["a"], {"words": torch.zeros(2, dtype=torch.long)}))


@pytest.mark.parametrize("method", ["kernel shap", "shapley sampling", "sampled shapley", "exact shapley", "gradient x input"])
def test_an_example_without_any_of_the_groups_has_none(method):
    first = Groups(TURNS.names, {name: numbers.expand(3, -1).where(torch.tensor([[True], [False], [False]]), -1)
                                 for name, numbers in TURNS.owner.items()})
    assert torch.equal(of(method, first).joint().isnan(), torch.tensor([[False] * 3, [True] * 3, [True] * 3]))
    nobody = Groups(TURNS.names, {name: torch.full_like(numbers, -1) for name, numbers in TURNS.owner.items()})
    assert of(method, nobody).joint().isnan().all()
