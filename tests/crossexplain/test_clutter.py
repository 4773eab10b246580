import numpy as np
import pytest
import torch

from crossexplain.data import clutter, digits
from crossexplain.evaluation.truth import box_masks


@pytest.fixture(scope="module")
def bank():
    return digits.load("sklearn")


@pytest.fixture(scope="module")
def drawn(bank):
    return {part: clutter.build(bank, 600, part, seed=0) for part in clutter.SPLITS}


def test_the_shapes_ranges_and_labels(bank, drawn):
    images = drawn["train"]
    assert images.images.shape == (600, 1, 64, 64) and images.images.dtype == torch.float32
    assert 0 <= images.images.min() and images.images.max() <= 1 and len(images) == 600
    assert torch.equal(images.labels, torch.as_tensor(bank.labels)[images.sources])
    assert set(images.labels.tolist()) == set(range(10))


def test_train_validation_and_test_share_no_handwritten_digit(drawn):
    seen = {part: set(images.sources.tolist()) for part, images in drawn.items()}
    assert not (seen["train"] & seen["test"] or seen["train"] & seen["validation"] or seen["validation"] & seen["test"])


def test_the_parts_are_the_same_for_every_seed(bank, drawn):
    other = clutter.build(bank, 600, "test", seed=7)
    assert not set(other.sources.tolist()) & set(drawn["train"].sources.tolist())


def test_the_same_seed_draws_the_same_images_and_another_others(bank, drawn):
    again = clutter.build(bank, 600, "test", seed=0)
    assert torch.equal(again.images, drawn["test"].images) and torch.equal(again.boxes, drawn["test"].boxes)
    assert not torch.equal(clutter.build(bank, 600, "test", seed=1).images, again.images)
    assert not torch.equal(drawn["validation"].images[:10], drawn["test"].images[:10])


def test_each_box_fits_the_digit_and_nothing_else(bank, monkeypatch):
    for distractors in ("_fragments", "_strokes", "_blobs"):
        monkeypatch.setattr(clutter, distractors, lambda *a: torch.zeros(200, 64, 64))
    alone = clutter.build(bank, 200, "test", seed=3)
    ink = alone.images[:, 0].numpy() > 0.5
    inside = box_masks(alone.boxes.numpy(), 64, 64)
    assert not (ink & ~inside).any()
    for mask, (top, left, bottom, right) in zip(alone.images[:, 0].numpy() > 0.2, alone.boxes.tolist()):
        assert 0 <= top < bottom <= 64 and 0 <= left < right <= 64
        assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()


def test_there_is_clutter_outside_the_box_in_every_image(drawn):
    images, boxes = drawn["train"].images[:, 0].numpy(), drawn["train"].boxes.numpy()
    outside = np.where(box_masks(boxes, 64, 64), 0, images)
    assert (outside.max(axis=(1, 2)) > 0.5).all()
    assert outside.sum() > 0.3 * images.sum()


def test_size_and_bad_requests(bank):
    assert clutter.build(bank, 2, "test", seed=0, size=96).images.shape == (2, 1, 96, 96)
    with pytest.raises(ValueError, match="got the part 'dev', expected one of 'train', 'validation', 'test'"):
        clutter.build(bank, 2, "dev", seed=0)
    with pytest.raises(ValueError, match="n = 0 and size = 64"):
        clutter.build(bank, 0, "test", seed=0)
    with pytest.raises(ValueError, match="size = 20"):
        clutter.build(bank, 2, "test", seed=0, size=20)
