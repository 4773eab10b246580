"""Models asked about photographs with captions: counted right, each against a model whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.studies import captioned
from crossexplain.data import photographs
from crossexplain.models import bert
from crossexplain.recipes.encodings import LONGEST


@pytest.fixture(scope="module")
def told():
    return photographs.load_captions(32)


@pytest.fixture(scope="module")
def tokenizer():
    from crossexplain.data import store

    return bert.load_tokenizer(store.find("minilm").path)


@pytest.fixture
def knowing(told, tokenizer):
    """Return a model that knows which texts belong to which photograph, foils among them, and says yes to these alone."""
    def inputs_of(images, texts):
        return {"images": images, **bert.encode(tokenizer, list(texts), LONGEST).of_two_towers}

    rows = {tuple(row[row != tokenizer.pad_token_id].tolist()): i for texts in (told.captions, told.foils)
            for i, row in zip(told.image, bert.encode(tokenizer, list(texts), LONGEST).of_two_towers["tokens"])}

    class Model:
        def see(self, images):
            return torch.stack([torch.eye(16)[(told.images - image).abs().flatten(1).sum(dim=1).argmin()] for image in images])

        def read(self, tokens, attention_mask):
            numbers = [rows[tuple(row[mask > 0].tolist())] for row, mask in zip(tokens, attention_mask)]
            return torch.eye(16)[numbers]

        def match(self, seen, read):
            return (seen * read).sum(dim=-1) - 0.5

        def logits_of_all_pairs(self, seen, read):
            return seen @ read.T - 0.5

    return SimpleNamespace(model=Model(), data=SimpleNamespace(inputs_of=inputs_of, tokenizer=tokenizer,
                                                               network=SimpleNamespace(size=32)))


def test_who_knows_the_photographs_and_not_the_foils_is_right_in_all_pairs_and_in_no_foil(knowing, told):
    said = captioned.answers(knowing, told, seed=3)
    assert said.pairs_right() == pytest.approx((1, 1, 1, 16)) and said.true.sum() == len(told) == 96
    assert all(share.value == 0 for share in said.ranked().values()), "caption and foil are one to it, which is not ahead"
    assert (captioned.ranks(knowing, told) == 0).all()
    rows = [0, 100]
    assert torch.equal(said.inputs(knowing, rows)["images"], told.images[said.photograph[rows]])
    assert (told.image[said.caption[~said.true]] != said.photograph[~said.true]).all()


def test_foils_are_counted_by_kind(knowing, told):
    said = captioned.answers(knowing, told)
    better = captioned.Answers(told, said.photograph, said.caption, said.logits,
                               np.where(np.array(told.kinds) == "colour", said.own - 1, said.own + 1))
    ranked = better.ranked()
    assert next(iter(ranked)) == "colour" and ranked["colour"].value == 1 and ranked["number"].value == 0
    assert ranked["colour"].n == 14, "photographs and not captions"


def test_the_word_that_the_model_takes_with_the_box_has_the_largest_dividend(told, tokenizer):
    """A model that multiplies the mean of what lies in one box by whether the caption says cat."""
    boxed = photographs.load()
    asked = [one for one in captioned.spoken(told, boxed) if one.file == "chelsea.png"]
    assert len(asked) == 6 and all(one.words[one.place] == "cat" for one in asked)
    cat = tokenizer.convert_tokens_to_ids("cat")

    class Model:
        def see(self, images):
            return (images[:, :, :112] - images.mean(dim=(2, 3), keepdim=True)).abs().mean(dim=(1, 2, 3))[:, None]

        def read(self, tokens, attention_mask):
            return (tokens == cat).any(dim=1).float()[:, None]

        def match(self, seen, read):
            return (seen * read)[:, 0]

    found = SimpleNamespace(model=Model(), data=SimpleNamespace(
        inputs_of=lambda images, texts: {"images": images, **bert.encode(tokenizer, list(texts), LONGEST).of_two_towers},
        tokenizer=tokenizer, network=SimpleNamespace(size=32)))
    for one, values in zip(asked, captioned.dividends(found, asked)):
        assert values.shape == (len(one.words),) and values.argmax() == one.place
        assert np.allclose(np.delete(values, one.place), 0, atol=1e-6), "no other word changes anything"
