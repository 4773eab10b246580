import pytest
import torch

from benchmarks.studies import disagreement

THERE = torch.tensor([[True, True, True, False], [True, True, False, False]])
GRADIENT = torch.tensor([[8.0, 2.0, 8.0, 9.0], [0.0, 0.0, 5.0, 5.0]])
COALITION = torch.tensor([[-0.1, 0.4, -0.4, 0.4], [0.3, 0.1, 0.9, 0.9]])


def test_contradictions_by_hand_and_what_is_not_there_contradicts_nothing():
    found = disagreement.contradictions(GRADIENT, COALITION, THERE)
    # shares 1, 1/4, 1 against 1/4, 1, 1; nothing has a gradient in the second: 0, 0 against 1, 1/3
    assert found.tolist() == [[-1, 1, 0, 0], [1, 0, 0, 0]]
    assert disagreement.contradictions(GRADIENT, COALITION, THERE, gap=0.8).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_each_rule_is_right_where_it_should_be():
    found = torch.tensor([[1, -1, -1, 0]], dtype=torch.int8)
    deciding = torch.tensor([[True, True, False, True]])
    shares = {rule: disagreement.right(found, deciding, rule).tolist() for rule in disagreement.RULES}
    assert shares == {"coalition": [True, False, True], "gradient": [False, True, False],
                      "less": [False, False, True], "more": [True, True, False]}


def test_the_rule_is_chosen_for_each_modality_by_itself():
    found = {"image": torch.tensor([[1, -1, 1]], dtype=torch.int8), "text": torch.tensor([[1, 1, -1]], dtype=torch.int8)}
    deciding = {"image": torch.tensor([[False, False, False]]), "text": torch.tensor([[False, False, True]])}
    assert disagreement.choose(found, deciding) == {"image": "less", "text": "gradient"}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"coalition \(2, 3\)"):
        disagreement.contradictions(GRADIENT, COALITION[:, :3], THERE)
    with pytest.raises(ValueError, match="got gap=0"):
        disagreement.contradictions(GRADIENT, COALITION, THERE, gap=0)
    with pytest.raises(ValueError, match="got rule 'both'"):
        disagreement.counts(THERE.to(torch.int8), "both")
