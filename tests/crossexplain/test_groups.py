"""Groups of features across modalities: what they hold, and what is refused."""

import pytest
import torch

from crossexplain import Groups, InputError

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
    (["a", "a"], {"words": [0]}, "a name of its own"),
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
