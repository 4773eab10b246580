import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from crossexplain.data import reviews, store

TRAIN, TEST = reviews.build(2400, "train"), reviews.build(900, "test")


def spoken(made, i, spans):
    return [made.texts[i][start:end] for start, end in spans[i]]


def test_there_are_enough_sentences_and_cue_phrases():
    every = [p for place in reviews.cue_phrases().values() for phrases in place.values() for p in phrases]
    assert len(every) == len(set(every)) >= 300
    assert len(set(TRAIN.texts)) + len(set(TEST.texts)) >= 1200
    assert set(TRAIN.kinds) == set(reviews.KINDS)


@pytest.mark.parametrize("split_seed", [0, 1, 2])
def test_no_cue_phrase_is_in_two_splits(split_seed):
    parts = [reviews.build(600, split, seed=1, split_seed=split_seed) for split in reviews.SPLITS]
    known = {phrase for place in reviews.cue_phrases().values() for phrases in place.values() for phrase in phrases}
    used = [{text for i in range(600) for text in spoken(part, i, part.cues) + spoken(part, i, part.decoys)} & known
            for part in parts]
    assert all(len(phrases) > 40 for phrases in used)
    assert not used[0] & used[1] and not used[0] & used[2] and not used[1] & used[2]
    for place, by_class in reviews.cue_phrases().items():
        for name, phrases in by_class.items():
            divided = [reviews.cue_phrases(split, split_seed)[place][name] for split in reviews.SPLITS]
            assert sorted(phrase for part in divided for phrase in part) == sorted(phrases) and all(divided)


def test_the_known_characters_are_the_words_that_decide():
    for i, kind in enumerate(TEST.kinds):
        cues, decoys = spoken(TEST, i, TEST.cues), spoken(TEST, i, TEST.decoys)
        name = reviews.CLASSES[TEST.labels[i]]
        by_class = {c: {p for place in reviews.cue_phrases().values() for p in place[c]} for c in reviews.CLASSES}
        if kind == "plain":
            assert len(cues) == 1 and cues[0] in by_class[name] and not decoys
        elif kind == "contrast":
            assert cues[0] in by_class[name] and len(decoys) == 1 and decoys[0] not in by_class[name]
        elif name == "neutral":
            assert cues[0] == "neither" and cues[2] == "nor" and len(cues) == 4
        else:
            opposite = {"positive": "negative", "negative": "positive"}[name]
            assert len(cues) == 2 and cues[1] in by_class[opposite] and cues[0] not in by_class[opposite]


def test_a_triple_differs_in_nothing_but_its_phrases():
    for i in range(0, 300, 3):
        rests = set()
        for j in range(i, i + 3):
            text = TEST.texts[j]
            for start, end in sorted(TEST.cues[j] + TEST.decoys[j], reverse=True):
                text = text[:start] + text[end:]
            rests.add(" ".join(text.split()))
        assert len(rests) == 1
        assert len({len(text.split()) for text in TEST.texts[i : i + 3]}) == 1


def without_cues(made):
    texts = []
    for text, cues, decoys in zip(made.texts, made.cues, made.decoys):
        for start, end in sorted(cues + decoys, reverse=True):
            text = text[:start] + " " + text[end:]
        texts.append(text)
    return texts


def test_the_words_around_the_cues_do_not_give_the_class_away():
    counts = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2))
    known = LogisticRegression(max_iter=500).fit(counts.fit_transform(without_cues(TRAIN)), TRAIN.labels)
    assert abs(known.score(counts.transform(without_cues(TEST)), TEST.labels) - 1 / 3) < 0.02


def test_neither_length_nor_kind_gives_the_class_away():
    def surface(made):
        return [[len(t), len(t.split()), reviews.KINDS.index(k)] for t, k in zip(made.texts, made.kinds)]

    guess = GradientBoostingClassifier(random_state=0).fit(surface(TRAIN), TRAIN.labels)
    assert guess.score(surface(TEST), TEST.labels) < 0.42


def test_a_seed_decides_everything():
    again, other = reviews.build(30, "test", seed=0), reviews.build(30, "test", seed=1)
    assert again.texts == TEST.texts[:30] and other.texts != again.texts


@pytest.mark.parametrize("n", [0, 2, 4, -3])
def test_a_number_that_is_no_multiple_of_three_is_refused(n):
    with pytest.raises(ValueError, match="multiple of 3"):
        reviews.build(n, "test")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="got the split 'dev', expected one of 'train', 'validation', 'test'"):
        reviews.cue_phrases("dev")
    with pytest.raises(ValueError, match="got the split 'dev'"):
        reviews.build(3, "dev")


def test_token_masks_by_hand():
    offsets = [[[0, 0], [0, 3], [4, 8], [8, 9], [0, 0]], [[0, 0], [0, 2], [3, 4], [0, 0], [0, 0]]]
    mask = reviews.token_mask(offsets, [[(4, 8)], []])
    assert mask.tolist() == [[False, False, True, False, False], [False] * 5]
    with pytest.raises(ValueError, match=r"expected \(3, T, 2\)"):
        reviews.token_mask(offsets, [[], [], []])


def test_taking_and_dividing_keep_everything_together():
    some = TEST.select([4, 0])
    assert some.texts == [TEST.texts[4], TEST.texts[0]] and some.labels.tolist() == [1, 0]
    assert some.cues == [TEST.cues[4], TEST.cues[0]] and len(some) == 2
    parts = reviews.divide(TEST, seed=0)
    assert sorted(text for part in parts.values() for text in part.texts) == sorted(TEST.texts)
    assert [len(parts[name]) for name in reviews.SPLITS] == [630, 90, 180]
    assert np.bincount(parts["test"].labels).tolist() == [60, 60, 60]


def placed(monkeypatch, path):
    monkeypatch.setattr(store, "find", lambda name: store.Found(name, path, "a test"))


def test_the_app_reviews_are_read_as_they_are_written(tmp_path, monkeypatch):
    rows = 'content,score,appId\n"Two\nlines, quoted",1,a\nGut 🎉,5,b\nGut 🎉,5,b\n,3,c\nFine,3,c\nNo score,x,c\n'
    path = tmp_path / "google_play_reviews_trimmed.csv"
    path.write_text(rows, encoding="utf-8")
    placed(monkeypatch, path)
    found = reviews.app_reviews()
    assert found.texts == ["Two lines, quoted", "Gut 🎉", "Fine"] and found.labels.tolist() == [0, 2, 1]
    assert found.kinds == ["a", "b", "c"] and found.sources == {"app-reviews": "a test"}
    path.write_text("text,stars\nx,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has the columns text, stars, expected content"):
        reviews.app_reviews()


def test_the_labelled_sentences_are_read_as_they_are_written(tmp_path, monkeypatch):
    for name in ("amazon_cells", "imdb", "yelp"):
        (tmp_path / f"{name}_labelled.txt").write_text(f"A\x85 {name}\ttab\t1\nBad.  \t0\n\n", encoding="utf-8")
    placed(monkeypatch, tmp_path)
    found = reviews.labelled_sentences()
    assert found.labels.tolist() == [1, 0, 1, 1] and found.kinds == ["amazon_cells"] * 2 + ["imdb", "yelp"]
    (tmp_path / "yelp_labelled.txt").write_text("no label\n", encoding="utf-8")
    with pytest.raises(ValueError, match="yelp_labelled.txt, line 1: expected a sentence, a tab and 0 or 1"):
        reviews.labelled_sentences()


def test_the_written_reviews_are_whole_and_were_marked_twice():
    hand = reviews.written()
    assert len(hand) == len(set(hand.texts)) == 120 and np.bincount(hand.labels).tolist() == [40, 40, 40]
    assert not any(set(text) & set("[]") for text in hand.texts)
    shared = []
    for text, *markings in zip(hand.texts, hand.cues, hand.second):
        marks = [np.isin(np.arange(len(text)), [i for start, end in spans for i in range(start, end)]) for spans in markings]
        assert all(spans and not mark.all() for spans, mark in zip(markings, marks)) or len(text) < 30
        shared.append((marks[0] & marks[1]).sum() / (marks[0] | marks[1]).sum())
    assert np.mean(shared) > 0.5
    start, end = hand.cues[0][0]
    assert hand.texts[0][start:end] == "crashes every time"


@pytest.mark.skipif("not __import__('os').environ.get('CROSSEXPLAIN_DATA')")
def test_the_real_sets_are_all_there():
    apps, sentences = reviews.app_reviews(), reviews.labelled_sentences()
    assert len(apps) > 7000 and len(set(apps.kinds)) == 15 and np.bincount(apps.labels).min() > 2000
    assert len(sentences) > 2900 and set(sentences.kinds) == {"amazon_cells", "imdb", "yelp"}
