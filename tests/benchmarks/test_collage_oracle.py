"""The oracle of the collages, by counting over all pictures and sentences."""

import numpy as np
import pytest

from benchmarks.studies.collage_oracle import chances
from crossexplain.data import collages
from crossexplain.data.collages import build
from crossexplain.data.digits import load


def test_the_oracle_is_the_share_of_all_pictures_that_agree_with_what_is_seen():
    rng = np.random.default_rng(0)
    digits_of, said = rng.integers(0, 10, (12, 4)), rng.integers(0, collages.BALANCED, 12)
    found = chances(digits_of, said)
    every = np.stack(np.unravel_index(np.arange(10_000), (10,) * 4), axis=1)
    for four, i, values in zip(digits_of, said, found):
        sentence = collages.SENTENCES[i]
        assert values[15] == collages.holds(four, sentence)
        assert values[0] == pytest.approx(collages.holds(every, sentence).mean())
        for S in (1, 6, 11):
            seen = [k for k in range(4) if S >> k & 1]
            agree = (every[:, seen] == four[seen]).all(axis=1)
            assert values[S] == pytest.approx(collages.holds(every[agree], sentence).mean())


def test_the_oracle_of_hidden_words_is_the_mean_over_the_sentences_that_could_stand_there():
    pairs = build(load("sklearn"), 32, "test", seed=3)
    tokens = pairs.tokens().numpy()
    groups = np.where(tokens != 0, np.arange(tokens.shape[1]) // 3, -1)
    found = chances(pairs.digits, pairs.sentence_id, groups)
    cells = chances(pairs.digits, pairs.sentence_id)
    assert np.allclose(found[:, -16:], cells) and (found[:, -1] == pairs.labels).all(), "with every word the old oracle"
    balanced = collages.tokenize(collages.SENTENCES[: collages.BALANCED]).numpy()
    often = np.bincount(collages.KIND_OF[: collages.BALANCED])
    changed = 0
    for i in (0, 5, 13, 30):
        for W in (0, 1, 5):
            read = np.array([g < 0 or W >> g & 1 for g in groups[i]], dtype=bool)
            agree = [m for m, other in enumerate(balanced) if (other[read] == tokens[i, read]).all()]
            weight = [1 / often[collages.KIND_OF[m]] for m in agree]
            of = chances(np.repeat(pairs.digits[i : i + 1], len(agree), axis=0), agree)
            assert np.allclose(found[i, 16 * W : 16 * W + 16], np.average(of, axis=0, weights=weight))
            changed += len(agree) > 1
    assert changed, "some hidden words leave the sentence open"
