from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from crossexplain.data import flickr8k, scene_words, scenes
from crossexplain.data.examples import SPLITS
from crossexplain.data.scene_captions import Writer, foil
from crossexplain.data.scene_words import (
    BACKDROPS,
    COLOUR_NAMES,
    GROUND_NAMES,
    KINDS,
    SIZE_NAMES,
    TEXTURE_NAMES,
    Facts,
)
from crossexplain.data.scenes import CHANGES, VOCABULARY, holds, load

SCENES = load(sizes=(1200, 200, 200))
FOILS = SCENES.build("train", 2400, seed=0, kind="foil")
RANDOM = SCENES.build("train", 2400, seed=0)


def scene(*things, ground="grass", backdrop="blue sky"):
    """Facts of one scene from words: "small plain red ball 0.2 0.9" is what, x and y."""
    rows = [thing.split() for thing in things] + [None] * (3 - len(things))

    def column(names, at):
        return np.array([[names.index(row[at]) if row else -1 for row in rows]])

    return Facts(
        kind=column(KINDS, 3), colour=column(COLOUR_NAMES, 2), texture=column(TEXTURE_NAMES, 1), size=column(SIZE_NAMES, 0),
        x=np.array([[float(row[4]) if row else 0 for row in rows]]),
        y=np.array([[float(row[5]) if row else 0 for row in rows]]),
        extent=np.full((1, 3), 0.3), pose=np.zeros((1, 3), dtype=int), ground=np.array([GROUND_NAMES.index(ground)]),
        backdrop=np.array([BACKDROPS.index(backdrop)]), horizon=np.array([0.4]),
    )


TWO = scene("small plain red ball 0.2 0.9", "large striped blue box 0.7 0.7")
THREE = scene("small plain red ball 0.2 0.9", "large spotted red ball 0.4 0.7", "large plain green cone 0.8 0.8",
              ground="planks", backdrop="brick wall")


@pytest.mark.parametrize(("facts", "caption", "true"), [
    (TWO, "a small red ball lies left of a striped blue box on the grass", True),
    (TWO, "A small red ball lies left of a striped blue box on the grass .", True),
    (TWO, "a small red ball lies right of a striped blue box on the grass", False),
    (TWO, "to the right of the ball stands a blue cube", True),
    (TWO, "left of the ball is a box", False),
    (TWO, "a small blue ball and a red box", False),  # each word is true of something
    (TWO, "a sphere in front of the big box", True),
    (TWO, "a big box behind the ball", True),
    (TWO, "a box with a ball behind it", False),
    (TWO, "a ball with a striped box behind it", True),
    (TWO, "the ball on the lawn is red", True),
    (TWO, "the ball on the lawn is striped", False),
    (TWO, "a ball on the left and a box on the right under a blue sky", True),
    (TWO, "on the left there is a box", False),
    (TWO, "on the right side there is a box", True),
    (TWO, "two things in the grass", True),
    (TWO, "two balls", False),
    (TWO, "a ball and a ball", False),
    (TWO, "a ball in front of a brick wall", False),
    (TWO, "a ball , a box and a toy", False),
    (THREE, "two red balls and a green cone on the wooden floor", True),
    (THREE, "two balls on a tiled floor", False),
    (THREE, "three toys on the boards in front of a brick wall", True),
    (THREE, "two toys", False),
    (THREE, "a red ball left of a red ball", True),
    (THREE, "a small ball , a spotted sphere and a cone in front of a brick wall", True),
    (THREE, "a spotted ball left of a small ball", False),
    (THREE, "a cone , a ball , a ball and a thing", False),
    (THREE, "the wooden floor", True),
])
def test_truth_is_what_the_words_say(facts, caption, true):
    assert holds(facts, caption).tolist() == [true]


@pytest.mark.parametrize(("caption", "message"), [
    ("a yelow ball", "like it: 'yellow'"), ("eine Kugel 🦊", "'eine' is not among"),
    ("", "names nothing"), ("   ", "names nothing"),
    ("a red", "missing at its end"), ("a ball left of", "missing at its end"), ("two ball", "needs no number"),
    ("three small", "missing"), ("balls", "needs a number"),
    ("a floor", "needs one of wooden, tiled"), ("behind it a ball", "nothing to stand for"),
    ("a cloudy ball", "floors, skies and walls"), ("a ball " * 300, None),
])
def test_what_cannot_be_read_is_told(caption, message):
    if message is None:
        assert not holds(TWO, caption)[0]
    else:
        with pytest.raises(ValueError, match=message):
            holds(TWO, caption)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(scene_words.WORDS), max_size=12))
def test_any_words_are_read_or_refused(words):
    try:
        assert holds(TWO, " ".join(words)).shape == (1,)
    except ValueError as error:
        assert str(error)


def test_truth_of_many_scenes_is_that_of_each():
    for caption in ("a red ball", "two balls", "a cone left of a box", "a thing on the snow under a blue sky"):
        together = holds(SCENES.facts, caption)
        assert together.tolist() == [holds(SCENES.facts[i], caption)[0] for i in range(len(SCENES))]
        assert 0 < together.sum() < len(SCENES)


def test_each_picture_has_five_captions_all_true_of_it():
    for i, five in enumerate(SCENES.captions):
        assert len(set(five)) == 5
        assert all(holds(SCENES.facts[i], caption)[0] for caption in five)
    used = {word for five in SCENES.captions for caption in five for word in caption.split()}
    assert used <= set(VOCABULARY) and 120 <= len(used) <= 300
    frames = {" ".join("#" if w in scene_words.NOUN or w in scene_words.COLOUR else w for w in caption.split())
              for five in SCENES.captions for caption in five}
    assert len(frames) > 3000


def test_cue_words_point_at_their_objects():
    facts = scene("small plain red ball 0.2 0.9", "large striped blue box 0.7 0.7")
    found = scenes.cues(facts, "a small red ball lies left of a striped box on the grass")
    assert found == [(1, "size", (0,)), (2, "colour", (0,)), (3, "noun", (0,)), (5, "relation", (0, 1)),
                     (8, "texture", (1,)), (9, "noun", (1,)), (12, "ground", ())]
    assert scenes.cues(THREE, "a ball and two red things")[0] == (1, "noun", (0, 1))  # either would do
    with pytest.raises(ValueError, match="not true of the scene"):
        scenes.cues(facts, "a green ball")


@pytest.mark.parametrize("pairs", [RANDOM, FOILS], ids=["random", "foil"])
def test_labels_are_the_truth_and_each_modality_alone_is_worth_exactly_half(pairs):
    facts = pairs.scenes.facts
    assert [int(holds(facts[i], c)[0]) for i, c in zip(pairs.image, pairs.captions)] == pairs.labels.tolist()
    for group in (pairs.image.tolist(), pairs.captions):
        assert all(2 * n == Counter(group)[key] for key, n in Counter(
            key for key, label in zip(group, pairs.labels) if label).items())
        assert set(group) == {key for key, label in zip(group, pairs.labels) if label}


@pytest.mark.parametrize("kind", ["random", "foil"])
def test_neither_words_nor_pictures_alone_tell_the_label(kind):
    train = RANDOM if kind == "random" else FOILS
    test = SCENES.build("test", 2000, seed=1, kind=kind)
    # Words, pairs of neighbours and the length; then everything there is to see, without error.
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", min_df=2)
    reader = LogisticRegression(max_iter=200).fit(words.fit_transform(train.captions), train.labels)
    assert abs(reader.score(words.transform(test.captions), test.labels) - 0.5) <= 0.015

    def seen(pairs):
        facts = SCENES.facts[pairs.image]
        parts = [np.eye(n + 1)[getattr(facts, name)].reshape(len(pairs), -1)
                 for name, n in (("kind", 12), ("colour", 9), ("texture", 4), ("size", 2), ("ground", 6), ("backdrop", 8))]
        return np.concatenate([*parts, facts.x, facts.y], axis=1)

    viewer = LogisticRegression(max_iter=200).fit(seen(train), train.labels)
    assert abs(viewer.score(seen(test), test.labels) - 0.5) <= 0.015


def test_one_word_makes_a_foil_and_its_place_is_known():
    quadruples = np.arange(len(FOILS)).reshape(-1, 4)
    for one, other, false, also in quadruples:
        a, b = FOILS.captions[one].split(), FOILS.captions[other].split()
        differ = [i for i, (v, w) in enumerate(zip(a, b)) if v != w]
        assert len(a) == len(b) and differ == [FOILS.false_word[false]] == [FOILS.false_word[also]]
        assert FOILS.captions[false] == FOILS.captions[other] and FOILS.captions[also] == FOILS.captions[one]
        assert FOILS.false_word[one] == FOILS.false_word[other] == -1 and FOILS.false_boxes(one) is None
        nowhere = FOILS.kinds[false] in ("ground", "backdrop")
        assert (FOILS.false_boxes(false) is None) == (FOILS.false_boxes(also) is None) == nowhere
        if FOILS.kinds[false] in ("colour", "noun", "texture", "size"):
            assert len(FOILS.false_objects[false]) == 1
    shares = Counter(FOILS.kinds)
    assert set(shares) == set(CHANGES)
    assert shares["colour"] + shares["noun"] + shares["texture"] > 0.5 * len(FOILS)
    assert shares["side"] + shares["count"] < 0.15 * len(FOILS)


def test_an_object_says_what_the_false_word_says_wrongly():
    for i in np.flatnonzero((FOILS.labels == 0) & (np.array(FOILS.kinds) == "colour"))[:50]:
        (slot,) = FOILS.false_objects[i]
        word = FOILS.captions[i].split()[FOILS.false_word[i]]
        assert scene_words.COLOUR[word] != SCENES.facts.colour[FOILS.image[i], slot]


def test_splits_are_disjoint_and_grow_without_change():
    parts = [SCENES.splits[name] for name in SPLITS]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1600))
    for name in SPLITS:
        for kind in ("random", "foil"):
            assert np.isin(SCENES.build(name, 40, 0, kind).image, SCENES.splits[name]).all()
    drawn = SCENES.images(np.concatenate([part[:60] for part in parts])).flatten(1)
    assert len({row.numpy().tobytes() for row in drawn}) == 180
    more = load(sizes=(1400, 200, 200))
    assert more.captions[1400:1410] == SCENES.captions[1200:1210]
    assert torch.equal(more.images([3, 1402]), SCENES.images([3, 1202]))


def test_the_seed_decides():
    again, other = load(sizes=(20, 2, 2)), load(seed=1, sizes=(20, 2, 2))
    assert again.captions[:20] == SCENES.captions[:20] and other.captions != again.captions
    assert torch.equal(again.images(5), SCENES.images(5)) and not torch.equal(other.images(5), again.images(5))
    same, new = (SCENES.build("train", 400, seed, "foil") for seed in (0, 1))
    assert same.captions == FOILS.captions[:400] and new.captions != same.captions


def test_pictures_do_not_depend_on_their_neighbours_nor_on_threads():
    alone = torch.cat([SCENES.images(i) for i in (40, 7, 1300)])
    assert torch.equal(alone, SCENES.images([40, 7, 1300])) and torch.equal(SCENES.images(range(64))[[40, 7]], alone[:2])
    assert alone.shape == (3, 3, 96, 96) and alone.dtype == torch.float32 and 0 <= alone.min() and alone.max() <= 1
    assert load(sizes=(4, 2, 2), side=64).images([0, 1]).shape == (2, 3, 64, 64)
    assert load(sizes=(4, 2, 2), side=128).images([0]).std() > 0.05


def test_boxes_hold_the_objects():
    """Drawn once with and once without its objects, a picture differs within the boxes and their shadows."""
    for i in range(0, 40, 3):
        facts = SCENES.facts[i]
        boxes = SCENES.boxes(i)
        assert len(boxes) == (facts.kind >= 0).sum() and boxes.dtype == np.int64
        assert (boxes[:, 2:] - boxes[:, :2] >= 12).all() and boxes.min() >= 0 and boxes.max() <= 96
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        assert (area >= 18**2).all()
        with_, without = (
            scenes.scene_render.draw(Facts(**{**vars(facts), "kind": kind}), [(0, 0, i)], 96)[0]
            for kind in (facts.kind, np.full_like(facts.kind, -1))
        )
        changed = np.abs(with_ - without).max(axis=2) > 0.02
        inside = np.zeros((96, 96), dtype=bool)
        for top, left, bottom, right in boxes:
            inside[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True  # edges are soft
            assert changed[top:bottom, left:right].mean() > 0.25
        horizon = int(facts.horizon[0] * 96) - 1
        assert not (changed & ~inside)[:horizon].any()  # above the ground there are no shadows


def test_objects_keep_apart_so_that_no_relation_is_in_doubt():
    facts = SCENES.facts
    here = facts.kind >= 0
    for i in range(3):
        assert (np.abs(facts.x[here[:, i], i] - 0.5) > 0.05).all()
        for j in range(i):
            both = here[:, i] & here[:, j]
            assert (np.abs(facts.x[both, i] - facts.x[both, j]) > 0.15).all()
            assert (np.abs(facts.y[both, i] - facts.y[both, j]) > 0.02).all()


def test_tokens_are_padded_behind_and_told_where_unknown():
    tokens = scenes.tokenize(["a red ball", "[MASK] Ball ."], ends=True)
    assert [[VOCABULARY[t] for t in row if t] for row in tokens] == [
        ["[START]", "a", "red", "ball", "[END]"], ["[START]", "[MASK]", "ball", ".", "[END]"]]
    assert tokens.shape == (2, scenes.LENGTH) and tokens.dtype == torch.int64
    for bad in ("", "a " * 33):
        with pytest.raises(ValueError, match="expected 1 to 32"):
            scenes.tokenize(bad)
    with pytest.raises(ValueError, match="like it: 'ball'"):
        scenes.tokenize("a bal")
    inputs, labels = FOILS.batch([0, 2])
    assert inputs["images"].shape == (2, 3, 96, 96) and inputs["tokens"].shape == (2, 32) and labels.tolist() == [1, 0]
    somewhere = next(i for i in range(len(FOILS)) if FOILS.false_boxes(i) is not None)
    assert FOILS.select([0, somewhere]).false_boxes(1).tolist() == FOILS.false_boxes(somewhere).tolist()


@pytest.mark.parametrize(("call", "message"), [
    (lambda: SCENES.build("tset", 40, 0), "got the split 'tset', expected one of 'train'"),
    (lambda: SCENES.build("test", 42, 0), "multiple of 4"),
    (lambda: SCENES.build("test", 40, 0, "hard"), "expected one of 'random', 'foil'"),
    (lambda: load(sizes=(3, 2, 2)), "even numbers"),
    (lambda: load(side=32), "64 to 128"),
    (lambda: load(sizes=(4, 0, 2)).build("validation", 4, 0), "has 0 pictures"),
])
def test_bad_requests_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_foil_may_be_impossible():
    assert foil(TWO, TWO, Random(0)) is None


def test_flickr8ks_loader_reads_scenes_that_are_written_in_its_format(tmp_path):
    few = load(sizes=(6, 2, 2))
    names = [f"scene_{i}.jpg" for i in range(10)]
    (tmp_path / "Images").mkdir()
    for name, image in zip(names, few.images()):
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / "Images" / name)
    lines = [f"{name}#{k}\t{five[k].capitalize()} .\n" for name, five in zip(names, few.captions) for k in range(5)]
    (tmp_path / flickr8k.TOKENS).write_text("".join(lines))
    for split, indices in few.splits.items():
        (tmp_path / flickr8k.LISTS[split]).write_text("".join(f"{names[i]}\n" for i in indices))
    copy = flickr8k.load(tmp_path, progress=False)
    assert list(copy.names) == names and len(copy.captions) == 50
    assert all(holds(few.facts[int(i)], caption)[0] for i, caption in zip(copy.image_of, copy.captions))
    assert {name: indices.tolist() for name, indices in copy.splits.items()} == {
        name: indices.tolist() for name, indices in few.splits.items()}
    assert (copy.images(range(10), 96) - few.images()).abs().mean() < 8 / 255


def test_phrases_are_true_and_mixed_ones_are_made_of_what_is_there():
    data, random = scenes.load(sizes=(60, 0, 0)), Random(0)
    false = 0
    for i in range(60):
        writer = Writer(data.facts[i], random)
        assert all(holds(data.facts[i], writer.phrase())[0] for _ in range(10))
        several = (data.facts.kind[i] >= 0).sum() > 1
        mixed = [bool(holds(data.facts[i], writer.phrase(mixed=True))[0]) for _ in range(10)]
        assert several or all(mixed)
        false += mixed.count(False)
    assert false > 100


def test_a_page_can_say_where_scenes_come_from():
    found = scenes.load(seed=3, sizes=(2, 2, 2)).found
    assert found.name == "scenes" and found.origin == "embedded: drawn from seed 3"
