import copy

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from crossexplain.checks import InputError
from crossexplain.evaluation.modality_shares import (
    ANSWERS,
    answer_shares,
    dominance_frame,
    perceptual_scores,
    picks,
    size_shares,
)
from crossexplain.evaluation.precomputed import RowNumbers, precompute
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import FULL, NOTHING, Mask, Views
from crossexplain.models import clip
from crossexplain.models.fusion import Fusion
from crossexplain.models.towers import ConvTower, EncoderTower
from support.toy import Toy

WORDS, START, END = 12, 2, 3
PAIRS = {"images": torch.tensor([3, 0, 0, 2, 1, 4]), "tokens": torch.tensor([1, 1, 4, 3, 0, 2])}
PREPARED = {"image": ("mean", "blur", "zero"), "text": ("mask", "pad")}
IMAGE = ImageCells(grid=(2, 2))
TEXT = Tokens(special=(START, END), attention="attention_mask")


def fusion():
    torch.manual_seed(0)
    encoder = BertModel(BertConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                   intermediate_size=16, max_position_embeddings=10))
    return Fusion(ConvTower((4, 4, 8, 8, 8)), EncoderTower(encoder), width=16)


MADE = {"fusion": fusion, "dual encoder": lambda: clip.small_cnn(WORDS, 10)}


@pytest.fixture(params=MADE)
def model(request):
    return MADE[request.param]().eval()


@pytest.fixture
def pictures():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def texts():
    tokens = torch.tensor([[2, 5, 6, 7, 3, 0], [2, 8, 9, 3, 0, 0], [2, 4, 5, 6, 7, 3], [2, 8, 4, 3, 0, 0], [2, 8, 9, 3, 0, 0]])
    return {"tokens": tokens, "attention_mask": (tokens != 0).long()}


@pytest.fixture
def known(model, pictures, texts):
    return precompute(model, lambda some: pictures[some], len(pictures), texts, IMAGE, TEXT, PREPARED, batch=2)


def written_out(pictures, texts):
    """Return the pairs themselves, where a recall takes their numbers."""
    return {"images": pictures[PAIRS["images"]]} | {key: value[PAIRS["tokens"]] for key, value in texts.items()}


def test_a_recall_says_what_the_model_says(model, known, pictures, texts):
    before = model(**written_out(pictures, texts))
    assert torch.allclose(known.model(**PAIRS), before, atol=5e-3)  # kept in half precision
    assert before.std() > 0.02  # and the pairs differ by more than that
    assert torch.equal(model(**written_out(pictures, texts)), before)  # the model is as it was


def test_another_model_on_the_same_towers_need_not_look_again(model, known, pictures, texts):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if not name.startswith(("image.", "text.")):
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    again = precompute(other, lambda some: pictures[some], len(pictures), texts, IMAGE, TEXT, PREPARED, batch=2)
    found = known.of(other)
    assert torch.equal(found.model(**PAIRS), again.model(**PAIRS))
    assert not torch.equal(found.model(**PAIRS), known.model(**PAIRS))
    assert found.model.image is known.model.image and found.modalities == known.modalities


@pytest.mark.parametrize("kind", PREPARED["image"])
@pytest.mark.parametrize("other", PREPARED["text"])
def test_what_stands_in_is_what_the_model_would_see(model, known, pictures, texts, kind, other):
    plan = {FULL: {}, "no image": {"image": Mask(None, kind)}, "no text": {"text": Mask(None, other)},
            NOTHING: {"image": Mask(None, kind), "text": Mask(None, other)}}
    whole = Views(written_out(pictures, texts), [IMAGE, TEXT], plan, allow_empty=True).inputs
    numbers = Views(PAIRS, known.modalities, plan, allow_empty=True).inputs
    assert torch.allclose(known.model(**numbers), model(**whole), atol=5e-3)


def test_rounds_on_a_recall_are_the_rounds_on_the_model(model, known, pictures, texts):
    direct = [ImageCells(layer=model.image_layer, grid=(2, 2)),
              Tokens(layer=model.text_layer, special=(START, END), attention="attention_mask")]
    settings = {"baselines": [{"image": "zero", "text": "pad"}, "data"], "pick": None, "progress": False, "target": 1}
    donors = [{"images": torch.arange(5), "tokens": torch.arange(5)}, {"images": pictures} | texts]
    one, other = (rounds(*some, donors=pool, **settings) for some, pool in zip(
        [(known.model, PAIRS, known.modalities), (model, written_out(pictures, texts), direct)], donors))
    assert one.passes.keys() == other.passes.keys() and not one.by_side
    for key, run in one.passes.items():
        assert torch.allclose(run.logits, other.passes[key].logits, atol=5e-3)
    full = [record.passes["data", FULL].norms["image"] for record in (one, other)]
    assert torch.allclose(*full, rtol=0.02)  # the map at which both read


def test_rows_borrow_a_row_and_are_one_feature():
    rows = RowNumbers("image", "images", "image", {"zero": torch.tensor([3, 4, 5])})
    inputs, keep = {"images": torch.tensor([2, 0])}, torch.tensor([[True], [False]])
    assert rows.features(inputs).tolist() == [[True], [True]] and rows.baselines == ("zero", "data")
    assert rows.replace(inputs, keep, "zero", None)["images"].tolist() == [2, 3]
    assert rows.replace(inputs, keep, "data", {"images": torch.tensor([1, 1])})["images"].tolist() == [2, 1]
    assert rows.per_feature(torch.ones(2, 3, 4), 1).tolist() == [[12.0], [12.0]]


NEUTRAL = {"image": "zero", "text": "mask"}


def test_picks_are_held_against_random_ones(model, pictures, texts):
    inputs = {"images": pictures, **texts}
    sides = [ImageCells(layer=model.image_layer, grid=(2, 2)), Tokens(layer=model.text_layer, special=(START, END),
                                                                     attention="attention_mask")]
    record = rounds(model, inputs, sides, baselines=["data"], progress=False)
    found = picks(record, "data")
    for name in record.modalities:
        end = record.by_side["data", name]
        picked, at_random = (np.nanmean(of.cosine.numpy()) for of in (end.similarity, end.similarity_random))
        assert found[name]["picked"].value == pytest.approx(picked) and found[name]["random"].value == pytest.approx(at_random)
        less = np.nanmean((end.similarity.cosine - end.similarity_random.cosine).numpy())
        assert found[name]["difference"].value == pytest.approx(less)
    for setting in ({"control": False}, {"pick": None}):
        with pytest.raises(InputError, match="no round 4 with a control for 'data' and 'image'"):
            picks(rounds(model, inputs, sides, baselines=["data"], progress=False, **setting), "data")


def test_the_share_of_the_text_counts_both_drawn():
    values = {"image": torch.tensor([[1.0, -1.0], [0.0, 0.0]]), "text": torch.tensor([[3.0, -3.0, 0.0], [0.0, 1.0, 0.0]])}
    assert size_shares(values)["text"].tolist() == [0.75, 1.0]


def drawn(n=400, seed=0):
    """Return pairs of a picture of any brightness from -2 to 2 and a word that is -1 or 1, each by itself."""
    rng = np.random.default_rng(seed)
    cell = torch.from_numpy(rng.permutation(np.linspace(-2, 2, n)))  # half of them below 0
    word = 2.0 * torch.from_numpy(rng.integers(0, 2, n)) - 1
    tokens = torch.stack([torch.where(word > 0, 2, 3), torch.zeros(n, dtype=torch.int64)], dim=1)
    return {"images": cell[:, None, None, None].expand(-1, 1, 2, 4).float(), "tokens": tokens}, cell, word


def test_perceptual_scores_by_hand():
    inputs, cell, word = drawn()
    groups = np.arange(len(cell)) // 5
    read = perceptual_scores(Toy(lambda a, b, x, y: x), inputs, word > 0, groups, seed=3)
    generator = torch.Generator().manual_seed(3)
    dealt = [(word[torch.randperm(len(word), generator=generator)] == word).double().mean() for _ in range(5)]
    assert read["image"] == (0, 0, 0, 80) and read["text"].value == pytest.approx(1 - float(np.mean(dealt)))
    both = perceptual_scores(Toy(lambda a, b, x, y: a * x), inputs, cell * word > 0)
    assert all(value.value == pytest.approx(0.5, abs=0.05) for value in both.values())


def test_shares_count_every_answer_and_draw_whole_groups():
    answers = np.array(["image alone"] * 6 + ["both only"] * 2)
    found = answer_shares(answers, groups=[0, 0, 0, 0, 1, 1, 2, 2])
    assert tuple(found) == ANSWERS and sum(value.value for value in found.values()) == pytest.approx(1)
    assert found["image alone"].value == 0.75 and found["text alone"] == (0, 0, 0, 3)
    assert found["image alone"].high == 1 and found["image alone"].n == 3


def test_the_table_says_what_the_pairs_rest_on():
    inputs, cell, _ = drawn()
    record = rounds(Toy(lambda a, b, x, y: a + b + 0 * x).eval(), inputs, [ImageCells(grid=(1, 2)), Tokens()],
                    baselines=[NEUTRAL, "data"], pick=None, progress=False)
    parts = {"all": np.ones(len(cell), bool), "yes": (cell > 0).numpy()}
    found = dominance_frame(record, parts, np.arange(len(cell)) // 5)
    assert list(found) == ["baseline", "part", "measure", "value", "low", "high", "n", "pairs"]
    assert len(found) == 2 * 2 * (len(ANSWERS) + 3 + 2 + 2)
    value = found.set_index(["baseline", "part", "measure"]).sort_index().value
    assert (found[found.part == "yes"].pairs == int((cell > 0).sum())).all()
    assert value["zero + mask", "all", "norm at image"] == pytest.approx(1)  # the text changes nothing at the image
    assert np.isnan(value["zero + mask", "all", "norm at text"])  # no gradient reaches it
    assert value["zero + mask", "all", "reach of image"] == pytest.approx(1)
    assert value["zero + mask", "all", "flips without text"] == 0
    assert value["zero + mask", "all", "flips without image"] == pytest.approx(float((cell > 0).float().mean()), abs=1e-6)
    for baseline in record.baselines:
        answers = value[baseline, "all"][list(ANSWERS)]
        assert answers.sum() == pytest.approx(1) and answers["text alone"] == 0 and answers["image alone"] > 0.95
