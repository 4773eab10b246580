"""The labels of the paper's builder of collages are wrong and give themselves away; those of the balanced one are not."""

import numpy as np
import pytest

from benchmarks.studies.collage_labels import text_alone, wrong_labels
from crossexplain.data.collages import build
from crossexplain.data.digits import load

BANK = load("sklearn")


def test_the_builder_of_the_paper_has_wrong_labels_and_gives_itself_away():
    first, second = (build(BANK, 8000, "train", seed=seed, as_in_paper=True) for seed in (0, 1))
    wrong = wrong_labels(first)
    assert 0.07 < wrong["all"] < 0.12 and 0.06 < wrong["lenient"] < 0.09
    assert wrong["ties"] > 0.03 and wrong["half true"] > 0.03
    assert wrong["all"] == pytest.approx(wrong["ties"] + wrong["half true"])
    assert 0.57 < text_alone(first, second) < 0.65
    assert first.labels.mean() == 0.5 and (np.bincount(first.kind // 2) == 2000).all()


def test_the_balanced_builder_has_no_wrong_label_and_its_sentences_say_nothing():
    train = build(BANK, 3200, "train", seed=0)
    assert wrong_labels(train)["all"] == 0 and text_alone(train, build(BANK, 1600, "test", seed=0)) == 0.5
