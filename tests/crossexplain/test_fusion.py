import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from crossexplain.gradients.capture import capture
from crossexplain.models.fusion import Aligned, Fusion
from crossexplain.models.towers import ConvTower, EncoderTower, ImageNetTower
from crossexplain.models.training import TensorBatches, evaluate, fit
from crossexplain.models.vgg import ImageNetClassifier

WORDS = 12


def encoder(seed=0):
    torch.manual_seed(seed)
    return BertModel(BertConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                intermediate_size=16, max_position_embeddings=10))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Fusion(ConvTower((4, 4, 8, 8, 8)), EncoderTower(encoder()), width=16).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {"images": torch.rand(3, 3, 32, 32), "tokens": torch.tensor([[5, 6, 7, 0], [8, 9, 0, 0], [4, 5, 6, 7]])}


def test_one_logit_a_pair_and_none_touches_another(model, batch):
    logits = model(**batch)
    alone = torch.cat([model(**{name: values[i : i + 1] for name, values in batch.items()}) for i in range(3)])
    assert logits.shape == (3,) and torch.allclose(logits, alone, atol=1e-6)


def test_padding_changes_nothing_with_and_without_a_mask(model, batch):
    first = {"images": batch["images"][:1], "tokens": batch["tokens"][:1]}
    short = first | {"tokens": first["tokens"][:, :3]}
    assert torch.allclose(model(**first), model(**short), atol=1e-6)
    assert torch.allclose(model(**first), model(**first, attention_mask=(first["tokens"] != 0).long()), atol=1e-6)
    hidden = torch.tensor([[1, 0, 1, 0]])
    assert not torch.allclose(model(**first), model(**first, attention_mask=hidden), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_every_place_and_every_word_reaches_the_logit(batch, pooling):
    torch.manual_seed(0)
    model = Fusion(ConvTower((4, 4, 8, 8, 8)), EncoderTower(encoder()), pooling=pooling, width=16).eval()
    taken = capture(model, batch, [model.image_layer, model.text_layer])
    seen, said = taken.gradients[model.image_layer], taken.gradients[model.text_layer]
    assert seen.shape == (3, 8, 4, 4) and (seen.norm(dim=1) > 0).all()
    assert ((said.norm(dim=2) > 0) == (batch["tokens"] != 0)).all()


def test_what_was_seen_and_read_before_gives_the_same_logits(model, batch):
    seen, said = model.look(model.image(batch["images"])), model.read(batch["tokens"])
    assert torch.allclose(model.match(seen, said), model(**batch), atol=1e-6)
    every = model.similarity(**batch)
    assert every.shape == (3, 3) and torch.allclose(every.diagonal(), model(**batch), atol=1e-6)
    other = {"images": batch["images"][:1], "tokens": batch["tokens"][2:]}
    assert torch.allclose(every[0, 2], model(**other)[0], atol=1e-6)


def test_setting_the_threshold_puts_yes_above_zero(model, batch):
    images, tokens = torch.rand(6, 3, 32, 32), batch["tokens"].repeat(2, 1)
    with torch.no_grad():
        before = model(images, tokens)
        labels = (before > before.median()).long()
        found = model.set_threshold(before, labels)
        assert torch.allclose(model(images, tokens), before - found, atol=1e-6)
        assert ((model(images, tokens) > 0).long() == labels).all()


def test_networks_of_torchvision_and_the_hub_are_towers(batch):
    network = ImageNetClassifier.seeded(0, "squeezenet1_0").requires_grad_(False)
    model = Fusion(ImageNetTower(network), EncoderTower(encoder().requires_grad_(False)), pooling="first", width=16)
    assert model.image_layer == "image.network.network.features.12" and model.text_layer == "text.encoder.embeddings"
    photographs = batch | {"images": torch.rand(3, 3, 64, 64)}
    taken = capture(model.eval(), photographs, [model.image_layer, model.text_layer])
    assert taken.activations[model.image_layer].shape[1] == 512
    assert torch.equal(taken.activations[model.image_layer], model.image(photographs["images"]))
    model.train()
    assert not model.image.training and not model.text.training and model.dense.training


def colours_and_words():
    """Is there red, green, blue in it? 64 pictures of one colour, and one word each."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(64, 3, generator=generator).round()
    words = 5 + torch.randint(3, (64,), generator=generator)
    images = colours[:, :, None, None].expand(-1, -1, 16, 16)
    return TensorBatches({"images": images, "tokens": words[:, None]}, colours.gather(1, words[:, None] - 5)[:, 0].long())


def test_frozen_towers_are_left_as_they_are_batch_statistics_included(model):
    model.image.requires_grad_(False)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    fit(model, colours_and_words(), None, epochs=1, lr=5e-3, seed=0, batch_size=16, progress=False, device="cpu")
    after = model.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"text", "look", "seen", "said", "dense"}


class Shrunk(nn.Module):
    """A tower without weights: the picture in blocks of 8 x 8 pixels."""

    layer, width = "shrink", 3

    def __init__(self):
        super().__init__()
        self.shrink = nn.AvgPool2d(8)

    def forward(self, images):
        return self.shrink(images)


def test_it_begins_with_the_difference(model):
    model.begin_with_difference()
    same = torch.randn(2, 16)
    first = model.dense[1]
    assert torch.allclose(first(torch.cat([same, same], dim=1)), first.bias.expand(2, -1), atol=1e-5)
    assert torch.allclose(first(torch.cat([same, same + 1], dim=1)), first(torch.cat([same - 1, same], dim=1)), atol=1e-5)


def test_each_difference_begins_by_speaking_against_a_match(model):
    model.begin_with_difference(against=True)
    for layer in model.dense.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    said, other = torch.randn(2, 5, 16)
    steps = torch.stack([model.dense(torch.cat([said + step * other, said], dim=1))[:, 0] for step in (0, 0.5, 1, 2)])
    assert (steps.diff(dim=0) < 0).all()  # the further apart, the lower the logit


def test_its_logit_begins_by_falling_with_the_distance(model):
    model.begin_with_difference(against=True)
    first = model.dense[1]
    half = first.out_features // 2
    assert torch.equal(first.weight[:half], -first.weight[half:]) and not first.bias.any()
    turned = first.weight[:half, : first.in_features // 2]
    assert torch.allclose(turned @ turned.T, torch.eye(half) / half, atol=1e-6)


def test_its_logits_begin_with_a_given_mean_and_spread(model):
    seen, said = torch.randn(2, 40, 16)
    model.eval()
    with torch.no_grad():
        before, wanted = model.dense(torch.cat([seen, said], dim=1))[:, 0], 7 * torch.randn(40) - 3
        model.begin_with_spread(before, wanted)
        after = model.dense(torch.cat([seen, said], dim=1))[:, 0]
    assert torch.allclose(after.mean(), wanted.mean(), atol=1e-4) and torch.allclose(after.std(), wanted.std(), atol=1e-4)
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9999


def test_aligned_it_is_a_dual_encoder_of_the_vectors_that_are_fused(model, batch):
    aligned = Aligned(model).eval()
    seen, said = model.seen(model.see(batch["images"])), model.said(model.read(batch["tokens"]))
    expected = aligned.logits(nn.functional.cosine_similarity(seen, said))
    assert torch.allclose(aligned(**batch), expected, atol=1e-5)
    assert torch.allclose(aligned.pool_map(model.image_map(batch["images"])), seen, atol=1e-6)
    aligned(**batch).sum().backward()
    assert all(p.grad is None for p in model.dense.parameters()) and model.look.place.weight.grad.abs().sum() > 0


def test_it_learns_what_neither_picture_nor_word_tells_alone():
    torch.manual_seed(0)
    model, data = Fusion(Shrunk(), EncoderTower(encoder()), width=32), colours_and_words()
    fit(model, data, None, epochs=60, lr=5e-3, seed=0, batch_size=16, progress=False, device="cpu")
    assert evaluate(model, data) > 0.9


@pytest.mark.parametrize(("change", "message"), [
    ({"images": torch.rand(3, 1, 32, 32)}, "images have 1 channel"),
    ({"images": torch.rand(2, 3, 32, 32)}, "2 images and 3 texts"),
    ({"tokens": torch.tensor([[5, 99]] * 3)}, "the model knows words 0 to 11"),
    ({"tokens": torch.zeros(3, 0, dtype=torch.long)}, "expected int64"),
    ({"tokens": torch.zeros(3, 4, dtype=torch.long)}, "text 0 has no token"),
    ({"attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])}, "text 2 has no token"),
    ({"attention_mask": torch.ones(3, 3)}, "attention mask has shape"),
])
def test_bad_input_is_told(model, batch, change, message):
    with pytest.raises(ValueError, match=message):
        model(**batch | change)


def test_towers_name_the_layer_and_the_width_to_build_on():
    tower = nn.Identity()
    for missing, given in (("width", {}), ("layer", {"width": 3})):
        vars(tower).update(given)
        with pytest.raises(AttributeError, match=missing):
            Fusion(tower, EncoderTower(encoder()))
