import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import gaussian_blur

from crossexplain.checks import InputError
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors
from crossexplain.gradients.views import Mask, Noise, Reorder, Views

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
TOKENS = torch.tensor([[5, 6, 7, 8, 0, 0], [9, 10, 11, 0, 0, 0], [12, 13, 14, 15, 16, 17]])
INPUTS = {"images": IMAGES, "tokens": TOKENS}
BOTH = [ImageCells(), Tokens()]


def test_blur_in_two_steps_is_the_blur_in_one():
    images = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(1))
    blurred = one([ImageCells()], {"images": images}, {"image": Mask(None, "blur")}, allow_empty=True).inputs["images"]
    assert torch.allclose(blurred, gaussian_blur(images, [17, 25], [4.0, 6.0]), atol=1e-5)


def one(modalities, inputs, changes, **kwargs):
    return Views(inputs, modalities, {"view": changes}, **kwargs)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), baseline=st.sampled_from(["zero", "mean", "blur", "data"]), rows=st.integers(1, 3),
       columns=st.integers(1, 4))
def test_an_image_keeps_exactly_the_cells_that_are_present(data, baseline, rows, columns):
    cells = ImageCells(grid=(rows, columns))
    count = rows * columns
    keep = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=3, max_size=3)))
    laid_out = one([cells], {"images": IMAGES}, {"image": Mask(keep, baseline, torch.tensor([1, 2, 0]))}, allow_empty=True)
    assert torch.equal(laid_out.present["image"][0], keep)
    stay = cells.pixels_of(keep, 8, 8)
    assert stay.shape == (3, 1, 8, 8)
    changed = laid_out.inputs["images"]
    assert torch.equal(changed[stay], IMAGES[stay])
    if baseline == "zero":
        assert (changed[~stay] == 0).all()
    if baseline == "data":
        assert torch.equal(changed[~stay], IMAGES[[1, 2, 0]][~stay])


@settings(deadline=None, max_examples=60)
@given(data=st.data(), baseline=st.sampled_from(["mask", "pad", "data"]))
def test_a_sentence_keeps_exactly_the_words_that_are_present_and_its_padding(data, baseline):
    keep = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=3, max_size=3)))
    laid_out = one([Tokens()], {"tokens": TOKENS}, {"text": Mask(keep, baseline, torch.tensor([1, 2, 0]))}, allow_empty=True)
    words, present = TOKENS != 0, laid_out.present["text"][0]
    assert torch.equal(present, words & keep)
    changed = laid_out.inputs["tokens"]
    assert torch.equal(changed[present], TOKENS[present])
    partly = (present.any(dim=1) | (baseline != "data"))[:, None]  # a sentence borrowed whole has its own length
    assert (changed[~words & partly] == 0).all()
    hidden = words & ~keep
    if baseline != "data":
        assert (changed[hidden] == {"mask": 1, "pad": 0}[baseline]).all()
    else:
        for i, donor in enumerate([1, 2, 0]):
            assert set(changed[i][hidden[i]].tolist()) <= set(TOKENS[donor].tolist())
            if not present[i].any():
                assert torch.equal(changed[i], TOKENS[donor])


@pytest.mark.parametrize("grid", [2, (0, 2), (2, 2, 2), (2.0, 2), "22"])
def test_a_grid_that_is_none(grid):
    with pytest.raises(InputError, match="got grid=.*expected rows and columns"):
        ImageCells(grid=grid)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_another_order_has_the_same_words_at_the_same_places(seed):
    changed = one([Tokens()], {"tokens": TOKENS}, {"text": Reorder(seed)}).inputs["tokens"]
    assert torch.equal(changed.sort(dim=1).values, TOKENS.sort(dim=1).values)
    assert torch.equal(changed == 0, TOKENS == 0)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations([0, 1, 2]))
def test_an_example_gets_the_same_view_in_any_batch(order):
    borrowed = Mask(None, "data", torch.tensor([2, 0, 1]))
    plan = {"full": {}, "a": {"image": Noise(0.5, seed=3), "text": Reorder(3)}, "b": {"text": borrowed}}
    laid_out = Views(INPUTS, BOTH, plan)
    whole, some = laid_out.inputs, laid_out.batch(torch.tensor(order))
    for key in INPUTS:
        expected = whole[key].reshape(3, 3, *whole[key].shape[1:])[:, order]
        assert torch.equal(some[key].reshape(expected.shape), expected)


def test_views_come_view_by_view_and_leave_the_inputs_alone():
    before = {key: value.clone() for key, value in INPUTS.items()}
    laid_out = Views(INPUTS, BOTH, {"full": {}, "image masked": {"image": Mask(None, "zero")}})
    assert len(laid_out) == 2 and laid_out.names == ["full", "image masked"]
    assert torch.equal(laid_out.inputs["images"][:3], IMAGES) and (laid_out.inputs["images"][3:] == 0).all()
    assert torch.equal(laid_out.inputs["tokens"], torch.cat([TOKENS, TOKENS]))
    assert laid_out.present["text"].all(dim=0).equal(TOKENS != 0)
    assert all(torch.equal(before[key], INPUTS[key]) for key in INPUTS)


def test_noise_has_the_size_asked_for_and_hides_nothing():
    images = torch.zeros(4, 1, 40, 40)
    laid_out = one([ImageCells()], {"images": images}, {"image": Noise(0.3)})
    assert laid_out.inputs["images"].std().item() == pytest.approx(0.3, rel=0.05)
    assert laid_out.present["image"].all()


def test_special_tokens_stay_and_hidden_words_are_not_attended():
    text = Tokens("text", "input_ids", "embeddings", mask_id=103, special=(101, 102), attention="attention_mask")
    ids = torch.tensor([[101, 7, 8, 102, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "flag": True}
    assert text.features(inputs).tolist() == [[False, True, True, False, False]]
    padded = one([text], inputs, {"text": Mask(None, "pad")}, allow_empty=True).inputs
    assert padded["input_ids"].tolist() == [[101, 0, 0, 102, 0]] and padded["attention_mask"].tolist() == [[1, 0, 0, 1, 0]]
    assert padded["flag"] is True
    masked = one([text], inputs, {"text": Mask(None, "mask")}, allow_empty=True).inputs
    assert masked["input_ids"].tolist() == [[101, 103, 103, 102, 0]]
    assert torch.equal(masked["attention_mask"], inputs["attention_mask"])
    no_special = Tokens("text", "input_ids", "embeddings", attention="attention_mask")
    with pytest.raises(InputError, match="attend to nothing"):
        one([no_special], inputs, {"text": Mask(None, "pad")}, allow_empty=True).inputs  # noqa: B018


def test_vectors_are_hidden_by_zeros_or_by_those_of_another_example():
    rows = torch.rand(2, 3, 4)
    keep = torch.tensor([True, False, True])
    frames = Vectors("video", "frames")
    zero = one([frames], {"frames": rows}, {"video": Mask(keep, "zero")}).inputs["frames"]
    assert (zero[:, 1] == 0).all() and torch.equal(zero[:, [0, 2]], rows[:, [0, 2]])
    other = one([frames], {"frames": rows}, {"video": Mask(keep, "data", torch.tensor([1, 0]))}).inputs["frames"]
    assert torch.equal(other[:, 1], rows[[1, 0], 1])
    swapped = one([frames], {"frames": rows}, {"video": Reorder(1)}).inputs["frames"]
    assert torch.allclose(swapped.sum(dim=1), rows.sum(dim=1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text": Mask(torch.ones(12, dtype=torch.bool), "mask")}, "text mask has 12 entries.*text has 6 tokens"),
        ({"image": Mask(torch.ones(3, dtype=torch.bool), "zero")}, "image mask has 3 entries.*image has 4 cells"),
        ({"text": Mask(torch.ones(2, 6, dtype=torch.bool), "mask")}, r"shape \(2, 6\).*batch 3 examples"),
        ({"text": Mask(torch.ones(6), "mask")}, "dtype torch.float32, expected bool"),
        ({"text": Mask(None, "masc")}, "got baseline of text 'masc', expected one of.*did you mean 'mask'"),
        ({"image": Mask(None, "grey")}, "got baseline of image 'grey', expected one of 'zero', 'mean', 'blur', 'data'"),
        ({"sound": Mask(None, "zero")}, "changes 'sound'; the modalities are 'image', 'text'"),
        ({"text": Noise(1.0)}, "whole numbers; re-order or mask"),
        ({"text": Mask(None, "data")}, "needs donors"),
        ({"text": Mask(None, "data", torch.tensor([0, 1, 3]))}, "lie between 0 and 3.*from 0 to 2"),
        ({"text": Mask(None, "mask"), "image": Mask(None, "zero")}, "hides every feature of every modality"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_advice(changes, says):
    with pytest.raises(InputError, match=says):
        one(BOTH, INPUTS, changes)


@pytest.mark.parametrize(
    ("modality", "inputs", "says"),
    [
        (Tokens(), {"ids": TOKENS}, r"reads input 'tokens', the inputs are \['ids'\]"),
        (Tokens(), {"tokens": TOKENS.float()}, "expected whole token ids.*use Vectors"),
        (Tokens(), {"tokens": torch.zeros(2, 4, dtype=torch.long)}, "example 0 has no word"),
        (Tokens(attention="m"), {"tokens": TOKENS, "m": torch.ones(3, 2)}, r"'m' is \(3, 2\), expected the shape of the ids"),
        (Vectors("video", "x"), {"x": torch.rand(2, 3)}, r"expected floating vectors \(N, F, D\)"),
        (ImageCells(grid=(4, 4)), {"images": torch.rand(2, 1, 3, 3)}, "3 x 3 pixels, expected at least 4 x 4"),
        (ImageCells(), {"images": torch.rand(0, 1, 8, 8)}, "batch is empty"),
    ],
)
def test_inputs_that_do_not_fit_the_modality_are_refused_with_advice(modality, inputs, says):
    with pytest.raises(InputError, match=says):
        Views(inputs, [modality], {"full": {}})


def test_modalities_need_the_same_examples_and_layers_their_features():
    with pytest.raises(InputError, match="text has 2 examples, image has 3"):
        Views({"images": IMAGES, "tokens": TOKENS[:2]}, BOTH, {"full": {}})
    with pytest.raises(InputError, match="cannot be cut into 2 x 2 cells"):
        ImageCells(layer="x").per_feature(torch.rand(3, 5, 1, 1), 4)
    with pytest.raises(InputError, match="expected one vector a feature of text"):
        Tokens().per_feature(torch.rand(3, 5), 6)
    with pytest.raises(InputError, match="no order to change"):
        one(BOTH, INPUTS, {"image": Reorder()}).inputs  # noqa: B018


def test_what_is_read_at_a_layer_is_summed_over_each_feature():
    values = torch.arange(32.0).reshape(1, 2, 4, 4)
    cells = ImageCells().per_feature(values, 4)
    halves = slice(0, 2), slice(2, 4)
    assert cells.tolist() == [[values[..., rows, columns].sum() for rows in halves for columns in halves]]
    patches = torch.rand(2, 5, 3)  # a class token, then four patches
    assert torch.allclose(ImageCells().per_feature(patches, 4), patches[:, 1:].sum(dim=2))


def test_finer_patches_than_cells_are_added_up_in_their_cell():
    patches = torch.arange(16.0).reshape(1, 16, 1)  # 4 x 4, row by row
    values = torch.cat([torch.full((1, 1, 1), 1000.0), patches], dim=1)  # behind a class token
    square = patches.reshape(4, 4)
    by_hand = [square[rows, columns].sum().item() for rows in (slice(2), slice(2, 4)) for columns in (slice(2), slice(2, 4))]
    assert ImageCells(grid=(2, 2)).per_feature(values, 4).tolist() == [by_hand]
    assert ImageCells(grid=(4, 4)).per_feature(values, 16).tolist() == [list(range(16))]
    with pytest.raises(InputError, match="cannot be cut"):
        ImageCells(grid=(6, 6)).per_feature(values, 36)


def test_deleted_words_are_gone_and_the_rest_moves_up():
    inputs = {"tokens": torch.tensor([[2, 5, 6, 7, 3, 0], [2, 8, 3, 0, 0, 0]]), "attention_mask":
              torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])}
    text = Tokens(special=(2, 3), attention="attention_mask")
    keep = torch.tensor([[True, False, True, False, True, True], [True] * 6])
    seen = one([text], inputs, {"text": Mask(keep, "delete")}).inputs
    assert seen["tokens"].tolist() == [[2, 6, 3, 0, 0, 0], [2, 8, 3, 0, 0, 0]]
    assert seen["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    there = text.features(inputs)
    at_places = torch.arange(12.0).reshape(2, 6)
    back = text.put_back(at_places, there, there & keep, "delete")
    assert back[0, 2] == at_places[0, 1] and back[1, 1] == at_places[1, 1], "the third word is read where it stands now"
    assert torch.equal(text.put_back(at_places, there, there & keep, "mask"), at_places)
    everything = one([text], inputs, {"text": Mask(None, "delete")}, allow_empty=True).inputs
    assert everything["tokens"].tolist() == [[2, 3, 0, 0, 0, 0]] * 2
    with pytest.raises(InputError, match="attend to nothing"):
        one([Tokens(attention="attention_mask")], inputs, {"text": Mask(None, "delete")}, allow_empty=True).inputs  # noqa: B018


def test_padding_that_is_the_end_of_the_text_does_not_cut_it():
    inputs = {"tokens": torch.tensor([[8, 5, 6, 9, 9]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}
    text = Tokens(special=(8, 9), pad_id=9, mask_id=None, attention="attention_mask")
    keep = torch.tensor([True, False, True, True, True])
    seen = one([text], inputs, {"text": Mask(keep, "pad")}).inputs
    assert seen["tokens"].tolist() == [[8, 5, 6, 9, 9]] and seen["attention_mask"].tolist() == [[1, 0, 1, 1, 0]]
    with pytest.raises(InputError, match="name the attention mask"):
        one([Tokens(special=(8, 9), pad_id=9, mask_id=None)], inputs, {"text": Mask(keep, "pad")}).inputs  # noqa: B018
    assert one([text], inputs, {"text": Mask(keep, "delete")}).inputs["tokens"].tolist() == [[8, 6, 9, 9, 9]]
