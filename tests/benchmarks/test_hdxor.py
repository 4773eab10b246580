import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from benchmarks.studies import hdxor
from benchmarks.studies.hdxor import Concatenated, train
from crossexplain.evaluation import modality_shares


def readable(vectors, bit):
    """Return how well a linear probe reads a bit from vectors it was not fitted on."""
    half = len(vectors) // 2
    probe = RidgeClassifier().fit(vectors[:half], bit[:half])
    return probe.score(vectors[half:], bit[half:])


@pytest.mark.parametrize("setting, first, second", [
    ("synergy", (True, False), (False, True)), ("uniqueness", (True, True), (False, False)),
    ("redundancy", (True, True), (True, True)), ("random", (False, False), (False, False)),
])
def test_each_vector_holds_the_bits_that_the_setting_says(setting, first, second):
    data = hdxor.build(setting, seed=3, n=6000)["train"]
    for vectors, holds in ((data.first, first), (data.second, second)):
        for k in range(2):
            found = readable(vectors.numpy(), data.bits[:, k].numpy())
            assert found > 0.88 if holds[k] else found < 0.58


def test_labels_are_the_exclusive_or_and_neither_bit_says_anything_of_them():
    data = hdxor.build("synergy", seed=0, n=8000)["train"]
    assert (data.labels == data.bits[:, 0] ^ data.bits[:, 1]).all()
    for k in range(2):
        assert abs((data.bits[:, k] == data.labels).float().mean() - 0.5) < 0.03
    drawn = hdxor.build("random", seed=0, n=8000)["train"]
    assert abs((drawn.labels == drawn.bits[:, 0] ^ drawn.bits[:, 1]).float().mean() - 0.5) < 0.03


def test_the_published_gap_of_the_exclusive_or_comes_out_on_the_test_pairs():
    gaps = []
    for seed in range(5):
        first, second = hdxor.build("synergy", seed)["test"].bits.numpy().T
        gaps.append(modality_shares.emap_gap(1 - 2.0 * (first[:, None] == second), first ^ second))
    assert np.median(gaps) == pytest.approx(0.491, abs=0.01)  # InterSHAP's table: 49.1


def test_redundant_vectors_are_two_views_of_the_same_numbers():
    data = hdxor.build("redundancy", seed=0, n=2000)["train"]
    seen, said = data.first.numpy().astype(float), data.second.numpy().astype(float)
    solved, *_ = np.linalg.lstsq(seen, said, rcond=None)  # 200 numbers determine the other 100
    assert np.abs(seen @ solved - said).max() < 0.05


def test_sizes_are_the_published_ones_and_a_seed_gives_the_same_data():
    parts = hdxor.build("uniqueness", seed=1)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [14_000, 3000, 3000]
    assert parts["train"].first.shape == (14_000, 200) and parts["train"].second.shape == (14_000, 100)
    one, again, other = (hdxor.build("synergy", seed=seed, n=40)["test"].first for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_what_is_no_setting_is_refused():
    with pytest.raises(ValueError, match="got setting 'xor', expected one of 'synergy'"):
        hdxor.build("xor", seed=0)
    with pytest.raises(ValueError, match="got n=10"):
        hdxor.build("synergy", seed=0, n=10)


def test_every_pair_has_the_logit_that_the_model_gives_it():
    torch.manual_seed(0)
    model, first, second = Concatenated(), torch.randn(5, 200), torch.randn(3, 100)
    with torch.no_grad():
        every = model.every(first, second)
        for i in range(5):
            for j in range(3):
                logits = model(first[i : i + 1], second[j : j + 1])[0]
                assert every[i, j] == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


def test_training_learns_and_leaves_the_random_state_alone():
    parts = hdxor.build("uniqueness", seed=0, n=4000)
    state = torch.random.get_rng_state()
    model = train(parts["train"], seed=1, epochs=40)
    assert torch.equal(state, torch.random.get_rng_state())
    right = (model(**parts["test"].inputs()).argmax(dim=1) == parts["test"].labels).float().mean()
    assert right > 0.75
    assert not any(parameter.requires_grad for parameter in model.parameters())
