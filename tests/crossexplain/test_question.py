import pytest
import torch
from torch import nn

from crossexplain import rounds
from crossexplain.checks import InputError
from crossexplain.gradients.capture import NoGradient
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors
from crossexplain.gradients.question import Question


class Sum(nn.Module):
    """The numbers of the vectors and the ids of the words, added; as three logits on demand."""

    def __init__(self, three: bool = False):
        super().__init__()
        self.three, self.weight = three, nn.Parameter(torch.tensor([1.0, 2.0, -1.0]))
        self.embedding = nn.Embedding.from_pretrained(torch.arange(10.0)[:, None])
        self.drop = nn.Dropout(0.5)

    def forward(self, seen, tokens):
        total = self.drop(seen.sum(dim=(1, 2)) + self.embedding(tokens).sum(dim=(1, 2)))
        return total[:, None] * self.weight if self.three else total


INPUTS = {"seen": torch.tensor([[[1.0], [2.0]], [[-30.0], [0.5]]]), "tokens": torch.tensor([[4, 5, 6], [7, 8, 0]])}
MODALITIES = [Vectors("image", "seen"), Tokens()]


def test_the_evidence_of_what_is_left_is_what_one_computes_by_hand():
    question = Question(Sum().eval(), INPUTS, MODALITIES)
    assert question.target.tolist() == [1, 0]  # 18 is above 0, -14.5 is not
    keep = torch.tensor([[True, False, False, True, False], [False, True, True, False, False]])
    # example 0: 1 + [MASK] is word 1, and word 5 stays: 1 + 1 + 5 + 1; example 1: 0.5 + 7 + [MASK], read as a no
    assert question.values(keep, torch.tensor([0, 1])).tolist() == [8.0, -8.5]


def test_of_several_logits_the_mean_is_taken_off_and_a_function_is_a_single_logit():
    several = Question(Sum(three=True).eval(), INPUTS, MODALITIES, target=torch.tensor([1, 1]))
    whole = torch.ones(2, 5, dtype=torch.bool)
    assert several.columns == 3
    assert several.values(whole, torch.arange(2)).tolist() == pytest.approx([2 * 18 - 12, 2 * -14.5 + 29 / 3], abs=1e-5)
    scored = Question(Sum(three=True).eval(), INPUTS, MODALITIES, target=lambda output: output[:, 2])
    assert scored.columns == 1 and scored.target.tolist() == [0, 1]  # -18 and 14.5
    assert scored.values(whole, torch.arange(2)).tolist() == [18.0, 14.5]


def test_passes_are_counted_once_whoever_asks():
    question = Question(Sum().eval(), INPUTS, MODALITIES, rows=1)
    question.whole()
    question.whole()
    assert question.passes == 2
    question.captured()
    assert question.passes == 2 + 2 * 3
    with question.counted():
        question.captured()
        question.model(**INPUTS)
    assert question.passes == 8 + 6 + 2


def test_gradients_are_those_of_the_evidence():
    question = Question(Sum().eval(), INPUTS, MODALITIES)
    assert question.captured().gradients["embedding"].flatten(1)[:, 0].tolist() == [1.0, -1.0]


def test_it_borrows_from_the_donor_of_the_same_number():
    donors = {"seen": torch.full((1, 2, 1), 100.0), "tokens": torch.tensor([[2, 2, 2]])}
    question = Question(Sum().eval(), INPUTS, MODALITIES, baselines="data", donors=donors)
    assert question.hidden({"image": torch.zeros(2, 2, dtype=torch.bool)}, torch.arange(2))["seen"].tolist() == \
        [[[100.0], [100.0]]] * 2
    with pytest.raises(InputError, match="pass them as donors"):
        Question(Sum().eval(), INPUTS, MODALITIES, baselines="data").require_donors()


def test_what_does_not_fit_is_refused_with_the_same_words_for_all():
    with pytest.raises(InputError, match="the model is in train mode"):
        Question(Sum(), INPUTS, MODALITIES)
    half = Sum().eval()
    half.drop.train()
    with pytest.raises(InputError, match=r"1 part\(s\) of the model \('drop'\) are in train mode"):
        Question(half, INPUTS, MODALITIES)
    assert Question(half, INPUTS, MODALITIES, any_mode=True).n == 2
    with pytest.raises(InputError, match="got target='yes'"):
        Question(Sum().eval(), INPUTS, MODALITIES, target="yes")
    with pytest.raises(InputError, match="holds class 3"):
        assert Question(Sum(three=True).eval(), INPUTS, MODALITIES, target=3).target
    with pytest.raises(InputError, match=r"gave \(2, 3\), expected one number an example"):
        Question(Sum(three=True).eval(), INPUTS, MODALITIES, target=lambda output: output).whole()
    with pytest.raises(InputError, match="baselines names 'sound'"):
        Question(Sum().eval(), INPUTS, MODALITIES, baselines={"sound": "zero"})
    with pytest.raises(InputError, match="NaN or infinity for example 1"):
        bad = {**INPUTS, "seen": torch.tensor([[[1.0], [2.0]], [[float("inf")], [0.5]]])}
        Question(Sum().eval(), bad, [Tokens()], target=1).values(torch.ones(2, 3, dtype=torch.bool), torch.arange(2))


def test_a_layer_that_has_the_sequence_first_is_not_taken_for_one_with_the_examples_first():
    class SequenceFirst(nn.Module):
        """One position a picture, which is the same for all examples: (1, 1, D) for one distinct row."""

        def __init__(self):
            super().__init__()
            self.turn, self.embedding = Turned(), nn.Embedding.from_pretrained(torch.arange(10.0)[:, None])

        def forward(self, seen, tokens):
            return self.turn(seen).sum(dim=(0, 2)) * self.embedding(tokens).sum(dim=(1, 2))

    class Turned(nn.Module):
        def forward(self, seen):
            return 2 * seen.transpose(0, 1)

    same = {"seen": torch.ones(4, 1, 3), "tokens": torch.tensor([[4, 5], [6, 7], [8, 9], [2, 3]])}
    question = Question(SequenceFirst().eval(), same, [Vectors("image", "seen", layer="turn", layout="TND"), Tokens()])
    _, captured = question.read(same)
    assert captured.activations["turn"].shape == (1, 4, 3) and not question.sharing
    assert captured.gradients["turn"][0, :, 0].tolist() == [9, 13, 17, 5]


@pytest.mark.parametrize("kind", ["plain", "writes over its input", "gives two"])
def test_equal_pictures_are_looked_at_once_where_the_tower_allows_it(kind):
    class Tower(nn.Module):
        seen = ()

        def forward(self, pictures):
            self.seen = (*self.seen, len(pictures))
            looked = pictures.mul_(3) if kind == "writes over its input" else pictures * 3
            return (looked, looked.sum()) if kind == "gives two" else looked

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower, self.embedding = Tower(), nn.Embedding.from_pretrained(torch.arange(10.0)[:, None])

        def forward(self, images, tokens):
            looked = self.tower(images)
            seen = looked[0] if kind == "gives two" else looked
            return (seen + images).sum(dim=(1, 2, 3)) * self.embedding(tokens).sum(dim=(1, 2))

    model, words = Looks().eval(), torch.arange(6)[:, None] + 2
    pictures = torch.tensor([1.0, 5.0]).repeat_interleave(3)[:, None, None, None].expand(-1, 1, 2, 2).clone()
    question = Question(model, {"images": pictures, "tokens": words}, [ImageCells(grid=(2, 2)), Tokens()])
    question.test()
    model.tower.seen = ()
    times = 6 if kind == "writes over its input" else 4
    expected = times * pictures.sum(dim=(1, 2, 3)) * words[:, 0]
    assert torch.equal(question.logits({"images": pictures, "tokens": words})[:, 0], expected)
    assert model.tower.seen == ((2,) if kind == "plain" else (2, 6)) and question.sharing == (kind == "plain")


def test_a_number_that_nothing_could_change_is_refused_and_one_that_nothing_happens_to_change_is_not():
    """The class as a number has no gradient, though nothing that is hidden changes it; behind a slope of 0 there is one."""
    class Class(Sum):
        def forward(self, seen, tokens):
            return (Sum.forward(self, seen, tokens) > -1e6).long()

    class Flat(Sum):
        def forward(self, seen, tokens):
            return Sum.forward(self, seen, tokens) * 0 + 1

    with pytest.raises(NoGradient, match="does not depend on 'input:seen' through anything differentiable"):
        rounds(Class().eval(), INPUTS, MODALITIES, target=lambda output: output.float(), progress=False)
    record = rounds(Flat().eval(), INPUTS, MODALITIES, target=lambda output: output, progress=False)
    assert record.verdict().answer == "cannot tell"
