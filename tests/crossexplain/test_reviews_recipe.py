import numpy as np
import pytest
import torch

from benchmarks.studies import real_reviews
from crossexplain.checks import InputError
from crossexplain.data import reviews, store
from crossexplain.models import checkpoints
from crossexplain.recipes import RECIPES, load_or_train
from crossexplain.recipes import reviews as recipe

TEST = reviews.build(90, "test", seed=3)


@pytest.fixture(scope="module")
def reader():
    return load_or_train("reviews_minilm")


def test_the_reader_that_travels_with_the_book_reads(reader):
    assert reader.card["accuracy"]["held out"] >= 0.9 and reader.card["command"].endswith("train reviews_minilm --seed 0")
    assert RECIPES[recipe.NAME].card is recipe.card
    assert reader.right(TEST).mean() >= 0.85
    assert not reader.model.training and not any(p.requires_grad for p in reader.model.parameters())
    assert (checkpoints.folder() / f"{recipe.NAME}.safetensors").stat().st_size <= checkpoints.LIMIT


def test_logits_come_in_the_order_of_the_sentences(reader):
    texts = TEST.texts[:5]
    with torch.no_grad():
        expected = torch.cat([reader.model(**reader.encode([text]).inputs) for text in texts])
    assert torch.allclose(reader.logits(texts), expected, atol=1e-4)


@pytest.mark.parametrize(("texts", "says"), [("good app", "got one string"), ([""], "sentence 0 is ''"),
                                             ([None], "sentence 0 is None"), ([], "0 sentences")])
def test_what_is_no_list_of_sentences_has_no_logits(reader, texts, says):
    with pytest.raises(InputError, match=says):
        reader.logits(texts)


def test_it_can_be_trained_again(monkeypatch, tmp_path):
    monkeypatch.setitem(recipe.SIZES, "small", (24, 12, 1))
    trained = load_or_train("reviews_minilm", retrain=True, size="small", progress=False)
    assert len(trained.history.train_loss) == 1 and trained.card == {} and trained.logits(["Fine."]).shape == (1, 3)


def test_it_can_be_trained_on_real_sentences(monkeypatch):
    real = reviews.Reviews([f"{w} phone {i}" for i in range(60) for w in ("Good", "Bad")], np.tile([1, 0], 60),
                           ("negative", "positive"), sources={"labelled-sentences": "a test"})
    monkeypatch.setitem(real_reviews.REAL, "labelled-sentences", (lambda: real, 6, 16))
    trained = real_reviews.train_on("labelled-sentences", size="page", progress=False, profile="embedded")
    assert len(trained.data) == 24 and trained.classes == ("negative", "positive")
    assert trained.right(trained.data).mean() > 0.9
    with pytest.raises(ValueError, match="got sentences 'tweets', expected one of 'labelled-sentences', 'app-reviews'"):
        real_reviews.train_on("tweets")


def test_bert_base_is_taken_only_in_full_and_only_where_it_is(monkeypatch):
    def find(name):
        if name == "bert-base-uncased":
            raise store.MissingSource("not here")
        return store.Found(name, None, "a test")

    monkeypatch.setattr(store, "find", find)
    assert recipe.find_encoder("full").name == recipe.find_encoder("embedded").name == "minilm"
    monkeypatch.setattr(store, "find", lambda name: store.Found(name, None, "a test"))
    assert recipe.find_encoder("full").name == "bert-base-uncased" and recipe.find_encoder("embedded").name == "minilm"
