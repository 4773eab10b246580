import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.studies.published import PublishedCnnLstm
from crossexplain.contract import TwoTowers
from crossexplain.models.clip import small_cnn, small_vit
from crossexplain.models.cnn_lstm import AfterTower, CnnLstm
from crossexplain.models.two_towers import TwoTowerModel, in_batches, logits_of_pairs
from crossexplain.recipes.controls import CosineHead


class Sums(TwoTowerModel):
    """A picture and a text are two numbers that are added, a tenth of the second one."""

    def see(self, images):
        return images.flatten(1).sum(dim=1)

    def read(self, tokens):
        return tokens.sum(dim=1) / 10

    def match(self, seen, read):
        return seen + read


IMAGES, TOKENS = torch.arange(6.0).reshape(3, 1, 1, 2), torch.tensor([[1, 2], [3, 4]])


def test_models_with_two_towers_are_found_by_their_type():
    made = small_cnn(8, 6), small_vit(8, 6, side=24, width=16, layers=3), CnnLstm(9), AfterTower(CnnLstm(9)), CosineHead()
    for model in made:
        assert isinstance(model, TwoTowers) and isinstance(model, TwoTowerModel)
    assert not isinstance(PublishedCnnLstm(9, layers=1), TwoTowers) and not isinstance(nn.Linear(2, 2), TwoTowers)

    class OfAStranger:
        def see(self, photo): ...
        def read(self, words): ...
        def match(self, seen, read): ...

    assert isinstance(OfAStranger(), TwoTowers)


def test_a_model_without_a_part_of_the_contract_cannot_be_made():
    class Half(TwoTowerModel):
        def see(self, images):
            return images

    with pytest.raises(TypeError, match="abstract methods? .*match.*read"):
        Half()


def test_what_follows_from_the_contract_is_right_for_any_model():
    model = Sums()
    assert model(IMAGES[:2], TOKENS).tolist() == pytest.approx([1.3, 5.7])
    assert model.similarity(IMAGES, TOKENS).flatten().tolist() == pytest.approx([1.3, 1.7, 5.3, 5.7, 9.3, 9.7])
    with pytest.raises(ValueError, match="got 3 images and 2 texts"):
        model(IMAGES, TOKENS)


def test_logits_of_pairs_encode_each_thing_once():
    asked = []

    def see(names):
        asked.append(list(names))
        return torch.tensor([float(ord(name)) for name in names])

    found = logits_of_pairs(Sums(), ["b", "a", "b"], [7, 5, 5], see, lambda numbers: torch.from_numpy(np.asarray(numbers)) / 10)
    assert asked == [["a", "b"]] and found.tolist() == pytest.approx([98.7, 97.5, 98.5])


def test_batches_are_computed_without_gradients():
    weight = torch.ones(1, requires_grad=True)
    sizes = []

    def double(values):
        sizes.append(len(values))
        return weight * torch.tensor(values)

    found = in_batches(double, [1.0, 2.0, 3.0], 2)
    assert sizes == [2, 1] and found.tolist() == [1, 2, 3] and not found.requires_grad
