"""Groups of features across modalities: what they hold, and what is refused."""

import pytest
import torch
from torch import nn

from crossexplain import Groups, InputError, Tokens, Vectors, rounds
from crossexplain.gradients.rounds import feature_dividends
from crossexplain.gradients.views import FULL

TURNS = Groups(["turn 1", "turn 2"], {"words": torch.tensor([0, 0, 1, -1]),
                                      "frames": torch.tensor([[0, 1, 1], [1, -1, 0]])})
PRESENT = {"words": torch.tensor([[True, True, True, True], [True, False, False, True]]),
           "frames": torch.ones(2, 3, dtype=torch.bool), "sound": torch.ones(2, 5, dtype=torch.bool)}


def test_groups_written_out_leave_what_is_not_there():
    written = TURNS.of(PRESENT)
    assert written.owner["words"].tolist() == [[0, 0, 1, -1], [0, -1, -1, -1]]
    assert written.owner["frames"].tolist() == TURNS.owner["frames"].tolist()
    assert (written.owner["sound"] == -1).all() and written.owner["sound"].shape == (2, 5)
    assert written.present().tolist() == [[True, True], [True, True]]
    assert TURNS.apart("words").of(PRESENT).present().tolist() == [[True, True], [True, False]]
    assert written.rows(torch.tensor([1])).owner["words"].tolist() == [[0, -1, -1, -1]]


def test_sums_over_the_features_of_each_group():
    values = {"words": torch.tensor([[1.0, 2, 4, 8], [1, 2, 4, 8]]), "frames": torch.tensor([[1.0, 2, 4], [1, 2, 4]])}
    summed = TURNS.summed(values)
    assert summed["words"].tolist() == [[3, 4], [3, 4]] and summed["frames"].tolist() == [[1, 6], [4, 1]]
    apart = TURNS.apart().summed(values)
    assert apart["words"].tolist() == [[3, 4, 0, 0], [3, 4, 0, 0]]
    assert apart["frames"].tolist() == [[0, 0, 1, 6], [0, 0, 4, 1]]


def test_each_modality_by_itself():
    apart = TURNS.apart()
    assert apart.names == ("words of turn 1", "words of turn 2", "frames of turn 1", "frames of turn 2")
    assert apart.owner["words"].tolist() == [0, 0, 1, -1] and apart.owner["frames"].tolist() == [[2, 3, 3], [3, -1, 2]]
    alone = TURNS.apart(["frames"])
    assert alone.names == ("frames of turn 1", "frames of turn 2") and list(alone.owner) == ["frames"]
    assert apart.members("frames of turn 2")["frames"].tolist() == [[False, True, True], [True, False, False]]
    assert not apart.members(3)["words"].any() and len(apart) == 4
    assert "turn 1, turn 2; words (4,), frames (2, 3)" in repr(TURNS)


@pytest.mark.parametrize(("names", "owner", "says"), [
    ("turn", {"words": [0]}, "names='turn', expected one name a group"),
    ([], {"words": [0]}, "at least one"),
    (["a", "a"], {"words": [0]}, "no two alike"),
    (["a"], {}, "expected a mapping from modality"),
    (["a"], [0], "owner as list"),
    (["a"], {3: [0]}, "the key 3"),
    (["a"], {"words": [0.5]}, "float32 of shape .1,., expected whole numbers"),
    (["a"], {"words": [True]}, "bool"),
    (["a"], {"words": 0}, r"shape \(\)"),
    (["a", "b"], {"words": [0, 2]}, "hold the number 2, expected 0 to 1 for the 2 named groups and -1"),
    (["a"], {"words": [-2]}, "the number -2"),
    (["a"], {"words": [[0], [0]], "frames": [[0]] * 3}, "2 of words, 3 of frames"),
])
def test_groups_that_are_none(names, owner, says):
    with pytest.raises(InputError, match=says):
        Groups(names, owner)


def test_groups_of_other_features_are_refused():
    with pytest.raises(InputError, match=r"groups of words have the shape \(3,\), there are 2 examples with 4 feat"):
        Groups(["a"], {"words": [0, 0, 0]}).of(PRESENT)
    with pytest.raises(InputError, match=r"shape \(3, 4\), there are 2 examples"):
        Groups(["a"], {"words": [[0] * 4] * 3}).of(PRESENT)
    with pytest.raises(InputError, match="modality of the groups 'word'.*did you mean 'words'"):
        Groups(["a"], {"word": [0, 0, 0, 0]}).of(PRESENT)
    with pytest.raises(InputError, match="modality of the groups 'sound'"):
        TURNS.apart("sound")
    with pytest.raises(InputError, match="group 'turn 3'"):
        TURNS.members("turn 3")


class Dialogue(nn.Module):
    """What is said, shown and heard in each turn meets in the turn, and the turns are added."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 4, padding_idx=0)

    def forward(self, words, frames, frames_present, sound, sound_present):
        read = (torch.tanh(self.embedding(words)) * (words > 0)[..., None]).sum(dim=1)  # (N, 4)
        seen = (torch.sin(frames) * frames_present[..., None]).sum(dim=1)
        heard = (sound * sound_present[..., None]).mean(dim=-1).sum(dim=1)
        return (read * seen).sum(dim=1) * (1 + heard) + 0.3 * heard + read[:, 0]


LENGTHS = {"words": (2, 5, 3, 6), "frames": (3, 1, 4, 2), "sound": (1, 2, 5, 3)}  # of four examples


def dialogues(rows=None, trimmed=False):
    """Return inputs and turns of some examples, padded to the longest of four, or each to its own length."""
    generator = torch.Generator().manual_seed(1)
    rows = list(range(4)) if rows is None else rows
    longest = {name: max(lengths[row] for row in (rows if trimmed else range(4))) for name, lengths in LENGTHS.items()}
    words = torch.randint(1, 9, (4, 6), generator=generator)
    frames, sound = (torch.randn(4, count, 4, generator=generator) for count in (4, 5))
    present = {name: torch.arange(max(lengths)) < torch.tensor(lengths)[:, None] for name, lengths in LENGTHS.items()}
    owner = {name: (torch.arange(max(lengths)) * 2 // torch.tensor(lengths)[:, None]).where(present[name], -1)
             for name, lengths in LENGTHS.items()}  # the first half of each is turn 1
    inputs = {"words": words * present["words"], "frames": frames, "frames_present": present["frames"], "sound": sound,
              "sound_present": present["sound"]}
    wide = {key: longest[key.partition("_")[0]] for key in inputs}
    return ({key: values[rows][:, : wide[key]] for key, values in inputs.items()},
            Groups(["turn 1", "turn 2"], {name: of[rows][:, : longest[name]] for name, of in owner.items()}))


MODALITIES = [Tokens("words", "words", layer="embedding"), Vectors("frames", "frames", attention="frames_present"),
              Vectors("sound", "sound", attention="sound_present")]
SETTINGS = {"progress": False, "control": False, "seed": 0}


@pytest.mark.parametrize(("trimmed", "baselines"), [(True, {"words": "pad"}), (True, {}), (False, {}), (False, "data")])
def test_ragged_batches_equal_single_examples(trimmed, baselines):
    model, (inputs, turns) = Dialogue().eval(), dialogues()
    options = {"donors": inputs} if baselines == "data" else {}
    whole = rounds(model, inputs, MODALITIES, baselines=[baselines], **options, **SETTINGS)
    by, by_turn = whole.by(turns), feature_dividends(model, inputs, MODALITIES, groups=turns, baseline=baselines,
                                                     progress=False, **options)
    baseline = whole.baselines[0]
    for i in range(4):
        alone, its_turns = dialogues([i], trimmed)
        one = rounds(model, alone, MODALITIES, baselines=[baselines], **options, **SETTINGS)
        assert one.passes.keys() == whole.passes.keys()
        for key, of_one in one.passes.items():
            of_all = whole.passes[key]
            assert torch.allclose(of_one.logits[0], of_all.logits[i], atol=1e-5)
            for name, importance in of_one.importance.items():
                assert torch.allclose(of_one.norms[name][0], of_all.norms[name][i], rtol=1e-4, atol=1e-6)
                count = importance.shape[1]
                assert torch.allclose(importance[0], of_all.importance[name][i, :count], atol=1e-5)
                assert not of_all.importance[name][i, LENGTHS[name][i]:].any()  # no feature, no importance
        for name in LENGTHS:
            side, count = one.by_side[baseline, name], one.features[name].shape[1]
            assert torch.allclose(side.cross[0], whole.by_side[baseline, name].cross[i, :count], atol=1e-5)
            assert torch.equal(side.picked[0], whole.by_side[baseline, name].picked[i, :count])
        single = one.by(its_turns)
        assert torch.equal(single.present[0], by.present[i])
        for key, summed in single.importance.items():
            assert torch.allclose(summed[0], by.importance[key][i], atol=1e-5)
        assert torch.allclose(single.cross[baseline][0], by.cross[baseline][i], atol=1e-5)
        found = feature_dividends(model, alone, MODALITIES, groups=its_turns, baseline=baselines, progress=False, **options)
        assert torch.allclose(found[0], by_turn[i], atol=1e-4)


def test_what_rounds_say_of_groups_is_the_sum_over_their_features():
    model, (inputs, turns) = Dialogue().eval(), dialogues()
    record = rounds(model, inputs, MODALITIES, **SETTINGS)
    by, apart = record.by(turns), record.by(turns.apart(["words"]))
    assert by.names == ("turn 1", "turn 2") and by.cross.keys() == set(record.baselines)
    for key in ((baseline, view) for baseline in record.baselines for view in (
            FULL, record.only("words"), record.without("words"), record.picked("words"))):  # rounds 1 to 4
        for group in range(2):
            parts = {name: [float(of[i][turns.owner[name][i] == group].sum()) for i in range(4)]
                     for name, of in record.passes[key].importance.items()}
            for name, values in parts.items():
                assert by.importance_of[key][name][:, group].tolist() == pytest.approx(values, abs=1e-5)
            assert by.importance[key][:, group].tolist() == pytest.approx(torch.tensor([*parts.values()]).sum(dim=0).tolist(),
                                                                          abs=1e-5)
            assert torch.equal(apart.importance[key][:, group], by.importance_of[key]["words"][:, group])
    with_none = rounds(model, inputs, MODALITIES, pick=None, **SETTINGS).by(turns)
    assert with_none.cross == with_none.cross_of == {} and with_none.importance.keys() == {
        key for key, one in record.passes.items() if one.importance and "picked" not in key[1]}


def test_the_dividend_of_a_group_is_what_single_passes_say():
    model, (inputs, turns) = Dialogue().eval(), dialogues()
    found = feature_dividends(model, inputs, MODALITIES, groups=turns, progress=False)
    apart = feature_dividends(model, inputs, MODALITIES, groups=turns.apart(), progress=False)
    assert found.shape == (4, 2) and apart.shape == (4, 6)

    @torch.no_grad()
    def value(i, hidden):
        """Return the logit with features hidden, given by modality: the mask for words, 0 for the others."""
        one = {key: values[i : i + 1].clone() for key, values in inputs.items()}
        for name, hide in hidden.items():
            there = one["words"] > 0 if name == "words" else one[f"{name}_present"]
            one[name][hide & there] = name == "words"
        return float(model(**one))

    every = {name: torch.ones(max(lengths), dtype=torch.bool) for name, lengths in LENGTHS.items()}
    for i, group in ((0, 0), (3, 1), (2, 0)):
        of = {name: numbers[i] == group for name, numbers in turns.owner.items()}
        sign = 1 if value(i, {}) > 0 else -1
        parts = {}
        for name in LENGTHS:
            others = {other: hide for other, hide in every.items() if other != name}
            parts[name] = value(i, others) - value(i, others | {name: of[name]})
            expected = value(i, {}) - value(i, {name: of[name]}) - parts[name]
            assert apart[i, 2 * list(LENGTHS).index(name) + group] == pytest.approx(sign * expected, abs=1e-4)
        expected = value(i, {}) - value(i, of) - sum(parts.values())
        assert found[i, group] == pytest.approx(sign * expected, abs=1e-4)


def test_groups_of_single_features_are_features_and_a_sum_has_no_dividend():
    model, (inputs, turns) = Dialogue().eval(), dialogues()
    each = feature_dividends(model, inputs, MODALITIES, progress=False)
    single = Groups([f"word {i}" for i in range(6)], {"words": torch.arange(6)})
    assert torch.allclose(feature_dividends(model, inputs, MODALITIES, groups=single, progress=False), each["words"], atol=1e-6)

    class Sum(Dialogue):
        def forward(self, words, frames, frames_present, sound, sound_present):
            return self.embedding(words).tanh().sum(dim=(1, 2)).square() + frames.sum(dim=(1, 2)).cos() + sound.sum(dim=(1, 2))

    none = feature_dividends(Sum().eval(), inputs, MODALITIES, groups=turns, baseline="data", progress=False)
    assert none.abs().max() < 1e-4


def test_groups_that_do_not_fit_are_refused_by_record_and_dividends():
    model, (inputs, turns) = Dialogue().eval(), dialogues()
    record, other = rounds(model, inputs, MODALITIES, **SETTINGS), turns.rows(torch.tensor([0, 1]))
    with pytest.raises(InputError, match=r"groups of words have the shape \(2, 6\), there are 4 examples"):
        record.by(other)
    with pytest.raises(InputError, match=r"groups of words have the shape \(2, 6\), there are 4 examples"):
        feature_dividends(model, inputs, MODALITIES, groups=other, progress=False)
    with pytest.raises(InputError, match=r"got groups=\{'turn 1': 0\}, expected Groups"):
        record.by({"turn 1": 0})
    with pytest.raises(InputError, match=r"got groups=\{'turn 1': 0\}, expected Groups"):
        feature_dividends(model, inputs, MODALITIES, groups={"turn 1": 0}, progress=False)


def test_one_row_is_shared_by_all_examples():
    shared = Groups(["a", "b"], {"words": torch.tensor([[0, 0, 1, -1]])})
    assert shared.of(PRESENT).owner["words"].shape == (2, 4)
    assert shared.rows(torch.tensor([1, 1, 0])).owner["words"].tolist() == [[0, 0, 1, -1]]


@pytest.mark.parametrize("group", [2, -1, True, 0.0, None])
def test_members_of_a_group_that_is_none(group):
    assert TURNS.members(1)["words"].tolist() == [False, False, True, False]
    with pytest.raises(InputError, match="expected a name, or a number from 0 to 1"):
        TURNS.members(group)
