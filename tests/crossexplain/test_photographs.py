"""Photographs of packages: what they hold, and that the boxes are where the objects are."""

import numpy as np
import pytest
import torch
from torchvision.models import SqueezeNet1_0_Weights

from crossexplain.data import photographs, store
from crossexplain.evaluation.truth import box_masks
from crossexplain.models.vgg import load_imagenet


@pytest.fixture(scope="module")
def data():
    return photographs.load()


def test_they_are_read_whole_and_say_where_they_come_from(data):
    assert data.images.shape == (len(data), 3, 224, 224) and len(set(data.files)) == 11
    assert data.images.min() >= 0 and data.images.max() <= 1 and (data.images.std(dim=(1, 2, 3)) > 0.05).all()
    assert {found.name for found in data.sources} == {"skimage-photographs", "sklearn-photographs", "matplotlib-photograph"}
    assert all(found.origin.startswith("embedded") for found in data.sources)


def test_classes_have_the_names_of_imagenet(data):
    categories = SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]
    assert [categories[i] for i in data.classes] == list(data.names)


def test_boxes_lie_in_the_picture_and_both_markings_agree(data):
    for boxes in (data.boxes, data.second):
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= 224).all() and (boxes[:, :2] < boxes[:, 2:]).all()
    by_hand = []
    for first, second in zip(data.boxes, data.second):
        inside = np.zeros((2, 224, 224), bool)
        for mask, (top, left, bottom, right) in zip(inside, (first, second)):
            mask[top:bottom, left:right] = True
        by_hand.append(inside.all(axis=0).sum() / inside.any(axis=0).sum())
    assert np.allclose(data.agreement(), by_hand) and data.agreement().min() > 0.85


def test_an_object_that_is_covered_is_not_seen_any_more(data):
    """Grey in the box takes most of the evidence away where the network saw the object; grey elsewhere takes less."""
    model = load_imagenet("efficientnet_lite0", store.find("efficientnet_lite0").path)
    rows, seen = np.arange(len(data)), model(data.images).softmax(dim=1)[np.arange(len(data)), data.classes]
    known = (seen > 0.2).numpy()
    inside = torch.from_numpy(box_masks(data.boxes, 224, 224))
    chance = {}
    for name, mask in (("inside", inside), ("outside", ~inside)):
        covered = data.images.where(~mask[:, None], data.images.mean(dim=(2, 3), keepdim=True))
        chance[name] = model(covered).softmax(dim=1)[rows, data.classes]
    assert known.sum() >= 7
    assert (chance["inside"][known] < seen[known] / 2).all()
    assert (chance["outside"][known] > chance["inside"][known]).float().mean() > 0.7

