"""The architectures on trial: what they share, and what each can and cannot learn."""

import pytest
import torch

from benchmarks.studies.architectures import ARCHITECTURES, train
from crossexplain.contract import TwoTowers
from crossexplain.data import digits
from crossexplain.data.collages import STATEMENTS, tokenize
from crossexplain.models.cnn_lstm import Tower
from crossexplain.recipes.controls import prepare

BANK = digits.load("sklearn")
SEEN = torch.rand(6, 4, 10).softmax(dim=2)
TOKENS = tokenize(list(STATEMENTS)[:6])


@pytest.mark.parametrize("architecture", [name for name, head in ARCHITECTURES.items() if head])
def test_an_architecture_sees_and_reads_before_it_matches_and_padding_says_nothing(architecture):
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture]().eval()
    assert isinstance(model, TwoTowers) and model.architecture == architecture
    with torch.no_grad():
        whole = model(SEEN, TOKENS)
        assert whole.shape == (6,) and whole.std() > 1e-4
        assert torch.allclose(model.match(model.see(SEEN)[:3], model.read(TOKENS)[3:]), model(SEEN[:3], TOKENS[3:]), atol=1e-6)
        short = TOKENS[:, : int((TOKENS != 0).sum(dim=1).max())]
        assert torch.allclose(model(SEEN, short), whole, atol=1e-5)
        assert torch.isfinite(model(SEEN, torch.zeros_like(TOKENS))).all()  # a sentence without words


def test_late_fusion_is_a_sum_and_the_others_are_not():
    torch.manual_seed(0)
    left = {}
    for name, head in ARCHITECTURES.items():
        if head:
            model = head().eval()
            with torch.no_grad():
                every = torch.stack([model(one.expand(6, -1, -1), TOKENS) for one in SEEN])
            mixed = every - every.mean(dim=0) - every.mean(dim=1, keepdim=True) + every.mean()
            left[name] = float(mixed.abs().max() / every.std())
    assert left["late fusion"] < 1e-4 and left["dual encoder"] > 1e-3 and left["cross-attention"] > 1e-3


def test_another_architecture_learns_a_control_from_the_same_pairs():
    torch.manual_seed(0)
    prepared = prepare("text", BANK, Tower(), 0, pairs=400, held_out=64)
    control = train("text", BANK, Tower(), 0, architecture="late fusion", epochs=15, prepared=prepared)
    assert control.accuracy > 0.9 and control.whole is None and control.architecture == "late fusion"
    assert control.test is prepared.test and not control.fusion.training


def test_what_cannot_be_learned_or_is_unknown_is_refused():
    with pytest.raises(ValueError, match="late fusion cannot learn the control 'both'"):
        train("both", BANK, Tower(), 0, architecture="late fusion")
    with pytest.raises(ValueError, match="got architecture 'clip', expected one of 'early fusion'"):
        train("text", BANK, Tower(), 0, architecture="clip")
