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



@pytest.fixture(scope="module")
def told():
    return photographs.load_captions(64)


def test_every_photograph_has_captions_and_foils_that_differ_in_the_words_that_decide(told):
    assert told.images.shape == (len(told.files), 3, 64, 64) and len(told.files) >= 12
    assert (np.bincount(told.image) == len(told) // len(told.files)).all() and len(told) >= 5 * len(told.files)
    assert len({*told.captions, *told.foils}) == 2 * len(told), "no two sentences are alike"
    for caption, foil, words, false in zip(told.captions, told.foils, told.words, told.false_words):
        kept, changed = ([word for i, word in enumerate(text.split()) if i not in places]
                         for text, places in ((caption, words), (foil, false)))
        assert kept == changed and words and false and caption != foil
        assert 6 <= len(caption.split()) <= 15 and caption.endswith(".") and foil.endswith(".")


def test_foils_of_every_kind_stand_in_most_photographs(told):
    kinds = set(told.kinds)
    assert kinds == {"noun", "colour", "action", "number", "position", "negation"}
    for kind in kinds:
        assert len({image for image, of_kind in zip(told.image, told.kinds) if of_kind == kind}) >= 12, kind
    sides = [{caption.split()[i] for i in words} | {foil.split()[i] for i in false} for caption, foil, words, false, kind in
             zip(told.captions, told.foils, told.words, told.false_words, told.kinds) if kind == "position"]
    assert sum(bool({word.rstrip(".") for word in words} & {"left", "right"}) for words in sides) >= 7
    negated = [caption for caption, kind in zip(told.captions, told.kinds) if kind == "negation"]
    assert 4 <= sum(" no " in f" {text} " or "nobody" in text for text in negated) <= len(negated) - 4, "both ways round"


def test_captions_are_dealt_to_other_photographs_each_of_them_once(told):
    other = told.others(0)
    assert sorted(other) == list(range(len(told))) and (told.image[other] != told.image).all()
    assert (told.others(0) == other).all() and (told.others(1) != other).any()


def test_what_is_boxed_has_its_word_in_the_captions(data, told):
    for file, word in zip(data.files, data.words):
        said = [caption for caption, i in zip(told.captions, told.image) if told.files[i] == file]
        assert not said or any(word in caption.lower().rstrip(".").split() for caption in said), (file, word)
