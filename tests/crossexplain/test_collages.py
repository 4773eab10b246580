from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from crossexplain.data import collages
from crossexplain.data.collages import (
    KINDS,
    SENTENCES,
    STATEMENTS,
    build,
    holds,
)
from crossexplain.data.digits import Digits, load, split

FOUR = st.lists(st.integers(0, 9), min_size=4, max_size=4)
SENTENCE = st.sampled_from(SENTENCES)
SKLEARN = load("sklearn")
TRAIN = build(SKLEARN, 3200, "train", seed=0)


def naive(digits, sentence):
    """Read the sentence word by word, with nothing shared with the package."""
    words = sentence.split()
    row = {"upper": [0, 1], "lower": [2, 3]}
    column = {"left": [0, 2], "right": [1, 3]}
    named = [cells for word, cells in (row | column).items() if word in words]
    place = set.intersection(*map(set, named)) if named else None
    if "largest" in words or "smallest" in words:
        best = (max if "largest" in words else min)(digits)
        where = [cell for cell in range(4) if digits[cell] == best]
        return len(where) == 1 and where[0] in place
    counted = [cell for cell in range(4) if digits[cell] % 2 == (0 if "even" in words else 1)]
    said = [int(word) for word in words if word.isdigit()]
    if said and len(counted) != said[0]:
        return False
    return place is None or (len(counted) > 0 and counted[0] in place)


@given(FOUR, SENTENCE)
def test_truth_is_what_the_words_say(digits, sentence):
    assert holds(digits, sentence) is naive(digits, sentence)


@given(st.lists(FOUR, min_size=1, max_size=5), SENTENCE)
def test_a_batch_is_its_members(rows, sentence):
    together = holds(rows, sentence)
    assert together.tolist() == [holds(row, sentence) for row in rows]


@given(FOUR)
def test_what_excludes_itself_is_never_true_at_once(digits):
    true = [sentence for sentence in SENTENCES if holds(digits, sentence)]
    for task in ("largest", "smallest"):
        corners = [s for s in true if task in s and "corner" in s]
        halves = [s for s in true if task in s and "half" in s]
        unique = digits.count((max if task == "largest" else min)(digits)) == 1
        assert len(corners) == unique and len(halves) == 2 * unique  # a corner, its row and its column; none for a tie
    for task in ("even", "odd"):
        assert sum(s.endswith(f"{task} digit(s) in the picture") for s in true) == 1


@given(FOUR, st.sampled_from([s for s in SENTENCES if "largest" in s or "even" in s]))
def test_largest_and_smallest_even_and_odd_mirror_each_other(digits, sentence):
    if "largest" in sentence:
        assert holds(digits, sentence) == holds([9 - d for d in digits], sentence.replace("largest", "smallest"))
    else:
        assert holds(digits, sentence) == holds([(d + 1) % 10 for d in digits], sentence.replace("even", "odd"))


@pytest.mark.parametrize(("digits", "message"), [
    ([1, 2, 3], "shape"), ([1, 2, 3, 10], "expected 0 to 9"), ([1.0, 2.0, 3.0, 4.0], "whole numbers"), (5, "shape"),
])
def test_anything_but_four_digits_is_told(digits, message):
    with pytest.raises(ValueError, match=message):
        holds(digits, SENTENCES[0])


def test_an_unknown_sentence_or_word_is_told_with_its_neighbours():
    with pytest.raises(ValueError, match="like it: 'the largest digit is at the upper left corner'"):
        holds([1, 2, 3, 4], "the largest digit is at the uper left corner")
    with pytest.raises(ValueError, match="like it: 'largest'"):
        collages.tokenize("the largset digit")
    for long in ("the " * 18, "", "  "):
        with pytest.raises(ValueError, match="expected 1 to 17"):
            collages.tokenize(long)
    with pytest.raises(ValueError, match="is not among the 29 words"):
        collages.tokenize("le chiffre 🦊")


def test_tokens_are_padded_behind_and_turn_back_into_words():
    tokens = collages.tokenize(SENTENCES)
    assert tokens.shape == (len(SENTENCES), 17) and tokens.dtype == torch.int64
    assert [" ".join(collages.words(row)) for row in tokens] == list(SENTENCES)
    assert ((tokens == 0).long().diff(dim=1) >= 0).all()
    assert collages.VOCABULARY[:2] == ("[PAD]", "[MASK]")


def test_every_label_of_the_balanced_builder_is_true_and_every_kind_as_frequent():
    assert all(holds(d, SENTENCES[s]) == y for d, s, y in zip(TRAIN.digits, TRAIN.sentence_id, TRAIN.labels))
    assert np.bincount(TRAIN.kind).tolist() == [400] * 8
    assert np.bincount(TRAIN.select(range(96)).kind).tolist() == [12] * 8
    assert len(np.unique(TRAIN.sentence_id)) == 46


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_each_modality_alone_is_worth_exactly_half(name):
    pairs = build(SKLEARN, 1600, name, seed=3)
    for group in (pairs.collage, pairs.sentence_id):
        assert (np.bincount(group, pairs.labels) * 2 == np.bincount(group)).all()


def test_the_best_unimodal_model_is_right_in_half_of_the_pairs():
    test = build(SKLEARN, 1600, "test", seed=0)
    sentence = HistGradientBoostingClassifier(random_state=0).fit(TRAIN.tokens().numpy(), TRAIN.labels)
    assert sentence.score(test.tokens().numpy(), test.labels) == 0.5
    image = HistGradientBoostingClassifier(random_state=0).fit(TRAIN.digits, TRAIN.labels)  # eyes that never err
    assert image.score(test.digits, test.labels) == 0.5


def test_splits_share_no_digit_image_whatever_the_seeds():
    used = [set(build(SKLEARN, 3200, name, seed=seed).cells.ravel().tolist())
            for seed, name in enumerate(("train", "validation", "test"))]
    assert not used[0] & used[1] and not used[0] & used[2] and not used[1] & used[2]
    mine = build(SKLEARN, 320, split(SKLEARN, seed=7)["test"], seed=0)
    assert set(mine.cells.ravel().tolist()) <= set(split(SKLEARN, seed=7)["test"].tolist())


def test_the_seed_decides():
    again, other = build(SKLEARN, 320, "train", seed=5), build(SKLEARN, 320, "train", seed=6)
    same = build(SKLEARN, 320, "train", seed=5)
    assert (again.cells == same.cells).all() and (again.sentence_id == same.sentence_id).all()
    assert (again.cells != other.cells).any()


def test_images_are_the_four_digits_in_reading_order():
    images = TRAIN.images([5, 9])
    assert images.shape == (2, 1, 56, 56) and images.dtype == torch.float32
    four = TRAIN.bank[TRAIN.cells[9]]
    quarters = [images[1, 0, y : y + 28, x : x + 28].numpy() for y in (0, 28) for x in (0, 28)]
    assert all((quarter == digit).all() for quarter, digit in zip(quarters, four))
    assert (SKLEARN.labels[TRAIN.cells] == TRAIN.digits).all()
    inputs, labels = TRAIN.batch(torch.tensor([9]))
    assert torch.equal(inputs["images"], images[1:]) and labels.tolist() == [TRAIN.labels[9]]
    assert " ".join(collages.words(inputs["tokens"][0])) == TRAIN.sentences[TRAIN.sentence_id[9]]


def one(digits, sentence):
    sentence_id = np.array([SENTENCES.index(sentence)])
    return collages.Collages(
        SKLEARN.images, np.zeros((1, 4), int), np.array([digits]), sentence_id, np.array([1]), np.array([0])
    )


@pytest.mark.parametrize(("digits", "sentence", "cells", "words"), [
    ([1, 9, 3, 4], "the largest digit is at the lower left corner", [1], "largest lower left"),
    ([1, 9, 3, 4], "the smallest digit is on the upper half", [0], "smallest upper"),
    ([1, 8, 3, 4], "there are 3 even digit(s) in the picture", [1, 3], "3 even"),
    ([1, 7, 3, 5], "there are 0 even digit(s) in the picture", [0, 1, 2, 3], "0 even"),
    ([1, 8, 3, 4], "there are 1 even digit(s) in the picture and the first is at the upper right corner", [1, 3],
     "1 even upper right"),
    ([2, 8, 6, 4], "there are 4 even digit(s) in the picture and the first is at the upper left corner", [0, 1, 2, 3],
     "4 even"),
])
def test_deciding_cells_and_words(digits, sentence, cells, words):
    pair = one(digits, sentence)
    assert np.flatnonzero(pair.deciding_cells[0]).tolist() == cells
    found = pair.deciding_tokens[0]
    assert " ".join(w for w, deciding in zip(sentence.split(), found) if deciding) == words
    assert found.sum() == len(words.split())


@given(st.integers(0, len(TRAIN) - 1))
def test_no_word_but_a_deciding_one_can_be_swapped(i):
    words = np.array(TRAIN.sentences[TRAIN.sentence_id[i]].split())
    for at, word in enumerate(words):
        swaps = [" ".join([*words[:at], other, *words[at + 1 :]]) for other in collages.VOCABULARY if other != word]
        possible = [s for s in swaps if s in STATEMENTS and collages.truth_table()[:, SENTENCES.index(s)].any()]
        assert bool(possible) == TRAIN.deciding_tokens[i, at]


@given(st.sampled_from(np.flatnonzero(TRAIN.labels == 1).tolist()))
def test_another_digit_in_any_deciding_cell_can_make_a_true_sentence_false(i):
    sentence = TRAIN.sentences[TRAIN.sentence_id[i]]
    for cell in np.flatnonzero(TRAIN.deciding_cells[i]):
        others = np.repeat(TRAIN.digits[i][None], 10, axis=0)
        others[:, cell] = np.arange(10)
        assert not collages.holds(others, sentence).all(), f"cell {cell} of {TRAIN.digits[i]}: {sentence}"


@pytest.mark.parametrize(("arguments", "message"), [
    ((SKLEARN, 30, "train", 0), "got 30 pairs"), ((SKLEARN, 0, "train", 0), "got 0 pairs"),
    ((SKLEARN, 4, "trian", 0), "expected one of 'train'"),
    ((SKLEARN, 4, [0, 1, 2], 0), "no image of 3"),
])
def test_what_cannot_be_built_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(*arguments)


def test_any_digits_will_do():
    digits = Digits(np.zeros((10, 28, 28), np.float32), np.arange(10), SimpleNamespace(name="made up", source="here"))
    pairs = build(digits, 64, range(10), seed=0)
    assert (pairs.cells == pairs.digits).all() and KINDS[pairs.kind[0]] == "largest, precise"


@pytest.mark.parametrize("number", [-1, len(collages.VOCABULARY)])
def test_a_number_that_is_no_words_is_refused(number):
    with pytest.raises(ValueError, match=f"got the word number {number}, expected 0"):
        collages.words([2, number])
