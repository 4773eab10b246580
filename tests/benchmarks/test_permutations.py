import itertools

import torch

from benchmarks.studies.permutations import shapley_values
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.views import NOTHING, Mask, Views
from crossexplain.models import clip
from support.toy import Toy

CELLS = torch.tensor([[1.0, 3.0], [-2.0, 0.5], [2.0, -1.0]])
TOY = {"images": CELLS.repeat_interleave(2, dim=1)[:, None, None].expand(-1, 1, 2, -1),
       "tokens": torch.tensor([[4, 3, 0], [5, 6, 0], [2, 0, 0]])}
TOY_PARTS, NEUTRAL = [ImageCells(grid=(1, 2)), Tokens()], {"image": "zero", "text": "mask"}


def test_shapley_values_by_hand_where_no_more_than_two_meet():
    model = Toy(lambda a, b, x, y: 3 * a - b + 2 * x + a * y + 4 * x * y)
    found = shapley_values(model, TOY, TOY_PARTS, NEUTRAL, permutations=2)  # one order and its reverse are then exact
    (a, b), (x, y) = CELLS.T, model.read(TOY["tokens"])[:, :2].T
    assert torch.allclose(found["image"], torch.stack([3 * a + a * y / 2, -b], dim=1), atol=1e-5)
    assert torch.allclose(found["text"], torch.stack([2 * x + 2 * x * y, a * y / 2 + 2 * x * y, 0 * x], dim=1), atol=1e-5)


def exact(model, example):
    """Return the mean of what each of two cells and two words gains, over all 24 orders."""
    seen, said = model.see(example["images"])[0], model.read(example["tokens"])[0, :2]
    values, gains = torch.cat([seen, said]), torch.zeros(4)
    for order in itertools.permutations(range(4)):
        kept, before = torch.zeros(4), model.rule(*torch.zeros(4))
        for feature in order:
            kept[feature] = values[feature]
            gains[feature] += (model.rule(*kept) - before) / 24
            before = model.rule(*kept)
    return gains


def test_shapley_values_estimate_the_mean_over_all_orders():
    model = Toy(lambda a, b, x, y: torch.tanh(a * x + b * y) + a * b * x + torch.relu(y - a))
    found = shapley_values(model, TOY, TOY_PARTS, NEUTRAL, permutations=2000, seed=1)
    for i in range(2):  # the third has one word
        estimate = torch.cat([found["image"][i], found["text"][i, :2]])
        assert torch.allclose(estimate, exact(model, {key: value[i : i + 1] for key, value in TOY.items()}), atol=0.15)


def test_shapley_values_sum_to_what_the_logit_gains():
    torch.manual_seed(0)
    model = clip.small_cnn(12, 10).eval()
    tokens = torch.tensor([[2, 5, 6, 7, 3, 0], [2, 8, 9, 3, 0, 0]])
    sides = [ImageCells(grid=(2, 2)), Tokens(special=(2, 3))]
    inputs, chosen = {"images": torch.rand(2, 3, 32, 32), "tokens": tokens}, {"image": "mean", "text": "pad"}
    found = shapley_values(model, inputs, sides, chosen, permutations=2)
    nothing = Views(inputs, sides, {NOTHING: {name: Mask(None, kind) for name, kind in chosen.items()}},
                    allow_empty=True).inputs
    gain = (model(**inputs) - model(**nothing)).detach()
    assert torch.allclose(found["image"].sum(dim=1) + found["text"].sum(dim=1), gain, atol=1e-4)
    assert not found["text"][~sides[1].features(inputs)].any()
