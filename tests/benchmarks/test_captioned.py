"""Models asked about photographs with captions: counted right, each against a model whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.studies import captioned
from crossexplain.data import photographs
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.rounds import rounds
from crossexplain.models import bert
from crossexplain.models.weights import WeightsError
from crossexplain.recipes import flickr8k
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

    return SimpleNamespace(model=Model(), data=SimpleNamespace(inputs_of=inputs_of, tokenizer=tokenizer,
                                                               network=SimpleNamespace(size=32)))


def test_who_knows_the_photographs_and_not_the_foils_is_right_in_all_pairs_and_in_no_foil(knowing, told):
    said = captioned.answers(knowing, told, seed=3)
    assert said.pairs_right() == pytest.approx((1, 1, 1, 16)) and said.true.sum() == len(told) == 96
    assert (said.rank == 0).all() and (said.foil > 0).all()
    assert not said.ahead.any() and not said.ahead_elsewhere.any(), "caption and foil are one to it, and none is ahead"
    rows = [0, 100]
    assert torch.equal(said.inputs(knowing, rows)["images"], told.images[said.photograph[rows]])
    assert (told.image[said.caption[~said.true]] != said.photograph[~said.true]).all()


def test_foils_are_counted_by_kind_beside_what_the_sentences_alone_are_worth(knowing, told):
    said, colour = captioned.answers(knowing, told), np.array(told.kinds) == "colour"
    foils = said.foils + np.where(colour, -1, 1)  # on every photograph
    foils[0] -= 5  # on the first, every caption is ahead of its foil
    said = replace(said, foils=foils)
    own, elsewhere = said.by_kind(said.ahead), said.by_kind(said.ahead_elsewhere)
    assert own["colour"].value == 1 and own["number"].value == 1 / 16 and own["colour"].n == 14, "photographs, not captions"
    assert elsewhere["colour"].value == 1 and elsewhere["number"].value == pytest.approx(15 / 16 / 15)
    assert own["all"].value == said.ahead.mean()


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


@pytest.fixture(scope="module")
def fused():
    try:
        return flickr8k.travelling("fusion")
    except WeightsError:
        pytest.skip("the heads of Flickr8k are not in this copy")


def test_what_is_hidden_as_a_whole_is_what_the_rounds_hide(fused):
    found, whole = fused, photographs.load_captions()
    said, rows = captioned.answers(found, whole), [0, 7, 100, 150]
    sides = ImageCells(layer=found.model.image_layer, grid=(4, 4)), Tokens(**found.data.words)
    record = rounds(found.model, said.inputs(found, rows), sides, baselines=[{"image": "mean", "text": "mask"}], pick=None,
                    progress=False)
    views = captioned.views(found, said)
    for view, logits in views["mean + mask"].items():
        assert torch.allclose(logits[rows], record.passes["mean + mask", view].logits, atol=1e-3), view
    assert torch.allclose(views["data"]["full"][:, 0], torch.from_numpy(said.logits), atol=1e-3)
    assert (views["data"]["image masked"] != views["data"]["full"]).float().mean() > 0.95
    rows = [0, 100]
    nothing, everything = (captioned.hottest_covered(found, said, rows, share) for share in (0.0, 1.0))
    assert np.allclose(nothing, said.logits[rows], atol=1e-3)
    assert np.allclose(everything, views["mean + mask"]["image masked"][rows, 0], atol=1e-3)
