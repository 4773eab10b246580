import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    T5Config,
    T5EncoderModel,
)

from crossexplain.checks import InputError
from crossexplain.evaluation.methods import explain
from crossexplain.gradients.attention import patch_map, roll, word_by_patch
from crossexplain.gradients.capture import Captured, capture
from crossexplain.gradients.maps import attribute, to_cells
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.tokens import attribute as text_scores
from crossexplain.models.clip import small_cnn, small_vit
from crossexplain.models.fusion import Fusion
from crossexplain.models.towers import ConvTower, EncoderTower

TOKENS = torch.tensor([[2, 5, 7, 3, 0], [2, 6, 4, 8, 3]])


def held(*maps, gradients=None):
    """What capture would have kept of attention maps (1, 1, T, T)."""
    kept = {f"block{i}": torch.tensor([[rows]]) for i, rows in enumerate(maps)}
    slopes = kept if gradients is None else {f"block{i}": torch.tensor([[rows]]) for i, rows in enumerate(gradients)}
    return Captured(torch.zeros(1), None, torch.zeros(1), kept, slopes)


def test_rollout_and_relevance_of_two_tokens_by_hand():
    one, two = [[1.0, 0.0], [0.5, 0.5]], [[0.25, 0.75], [0.0, 1.0]]
    taken = held(one, two, gradients=(one, [[1.0, 1.0], [0.0, 0.0]]))  # the model reads the first token
    # rollout: (A + 1) / 2 of each, the later on the left: [[.625, .375], [0, 1]] @ [[1, 0], [.25, .75]]
    assert torch.allclose(roll(taken, ["block0", "block1"], "attention-rollout"), torch.tensor([[0.71875, 0.28125]]))
    # relevance with gradients 1, -1 for the second map: R = 1 + A1; then R + 0
    signs = held(one, two, gradients=([[1.0, 1.0], [1.0, 1.0]], [[-1.0, -1.0], [-1.0, -1.0]]))
    assert torch.allclose(roll(signs, ["block0", "block1"]), torch.tensor([[1.25, 0.75]]))  # it reads both
    second = held(one, two, gradients=([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [-1.0, -1.0]]))
    assert torch.allclose(roll(second, ["block0", "block1"]), torch.tensor([[0.5, 1.5]]))


def test_the_rows_that_the_model_reads_are_found():
    model = small_vit(12, 6, side=24, width=16, layers=2).eval()
    inputs = {"images": torch.rand(2, 3, 24, 24), "tokens": TOKENS}
    maps = [f"{name}#1" for name in model.attention_layers]
    taken = capture(model, inputs, ["input:images", *maps])
    first = torch.eye(5).expand(2, -1, -1)
    for name in maps:
        first = first + (taken.gradients[name] * taken.activations[name]).clamp(min=0).mean(dim=1) @ first
    assert torch.allclose(roll(taken, maps), first[:, 0], atol=1e-6)  # the class token comes first
    heat = attribute(model, inputs, "input:images", "attention-relevance", attention=model.attention_layers)
    assert heat.shape == (2, 2, 2) and torch.allclose(heat.flatten(1), roll(capture(model, inputs, ["input:images", *maps],
                                                                                    "predicted"), maps)[:, 1:], atol=1e-6)
    words = text_scores(model, inputs, model.text_layer, ["attention-relevance", "attention-rollout"],
                        special="keep", attention=model.text_attention_layers)
    end = capture(model, inputs, [model.text_layer, *(f"{name}#1" for name in model.text_attention_layers)])
    names = [f"{name}#1" for name in model.text_attention_layers]
    step = torch.eye(5).expand(2, -1, -1)
    for name in names:
        step = step + (end.gradients[name] * end.activations[name]).clamp(min=0).mean(dim=1) @ step
    read_at = torch.stack([step[0, 3], step[1, 4]])  # the end-of-text tokens
    assert torch.allclose(words["attention-relevance"], read_at, atol=1e-6)
    assert words["attention-rollout"].shape == (2, 5) and (words["attention-rollout"][0, 4] == 0)  # padding is not read


def test_grad_cam_on_patch_tokens_is_grad_cam_on_their_map():
    model = small_vit(12, 6, side=36, width=16, layers=2).eval()
    inputs = {"images": torch.rand(2, 3, 36, 36), "tokens": TOKENS}
    taken = capture(model, inputs, model.image_layer)
    acts, grads = (patch_map(values[model.image_layer]) for values in (taken.activations, taken.gradients))
    expected = (grads.mean(dim=(2, 3), keepdim=True) * acts).sum(dim=1).clamp(min=0)
    assert torch.allclose(attribute(model, inputs, model.image_layer, "grad-cam", 1, "for"), expected, atol=1e-6)
    with pytest.raises(InputError, match="no square of patches"):
        patch_map(torch.zeros(1, 8, 4), layer="blocks.0")
    with pytest.raises(InputError, match="are no 3 x 3 patches"):
        attribute(small_vit(12, 6, side=24, width=16, layers=2).eval(), {"images": torch.rand(2, 3, 24, 24), "tokens": TOKENS},
                  model.image_layer, grid=(3, 3))
    with pytest.raises(InputError, match="names of the self-attention modules"):
        attribute(model, inputs, "input:images", "attention-rollout")


@pytest.mark.parametrize("new", [lambda: small_vit(12, 6, side=24, width=16, layers=2), lambda: small_cnn(12, 6)])
def test_a_word_by_patch_map_is_a_mixed_difference(new):
    model = new().double().eval()
    torch.manual_seed(0)
    inputs = {"images": torch.rand(2, 3, 24, 24, dtype=torch.double), "tokens": TOKENS}
    maps = word_by_patch(model, inputs)
    word, where, small = 2, (1, 0), 1e-4

    def stretched(patch: float, token: float) -> torch.Tensor:
        def more_patch(module, args, output):
            output = output.clone()
            if output.ndim == 4:
                output[:, :, where[0], where[1]] *= 1 + patch
            else:
                side = int((output.shape[1] - 1) ** 0.5)
                output[:, 1 + where[0] * side + where[1]] *= 1 + patch
            return output

        def more_word(module, args, output):
            output = output.clone()
            output[:, word] *= 1 + token
            return output

        hooks = [model.get_submodule(model.image_layer).register_forward_hook(more_patch),
                 model.get_submodule(model.text_layer).register_forward_hook(more_word)]
        with torch.no_grad():
            score = model(**inputs)
        for hook in hooks:
            hook.remove()
        return score

    mixed = (stretched(small, small) - stretched(small, -small) - stretched(-small, small) + stretched(-small, -small))
    assert torch.allclose(maps[:, word, where[0], where[1]], mixed / (4 * small**2), rtol=1e-3, atol=1e-5)
    assert maps.shape[:2] == (2, 5) and (maps[0, 4] == 0).all()  # padding


def test_early_fusion_is_read_in_first_order():
    torch.manual_seed(0)
    text = BertModel(BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                intermediate_size=16, max_position_embeddings=10))
    model = Fusion(ConvTower((4, 4, 8, 8, 8)), EncoderTower(text), width=16).eval()
    inputs, words = {"images": torch.rand(2, 3, 32, 32), "tokens": TOKENS[:, 1:]}, Tokens(layer=model.text_layer)
    maps = word_by_patch(model, inputs, words=words, order="first")

    def by_patch(given):
        taken = capture(model, given, model.image_layer)
        return (taken.gradients[model.image_layer] * taken.activations[model.image_layer]).sum(dim=1)

    hidden = inputs | {"tokens": inputs["tokens"].clone()}
    hidden["tokens"][:, 1] = 1
    assert torch.allclose(maps[:, 1], by_patch(inputs) - by_patch(hidden), atol=1e-6)
    assert (maps[0, 3] == 0).all()
    with pytest.raises(InputError, match="got order 'third', expected one of 'first', 'second'"):
        word_by_patch(model, inputs, order="third")


def test_cells_keep_the_sum():
    heat = torch.rand(2, 6, 9)
    found = to_cells(heat, (2, 3))
    assert torch.allclose(found[0, 1, 2], heat[0, 3:, 6:].sum()) and torch.allclose(found.sum(), heat.sum())
    with pytest.raises(InputError, match="at least one pixel a cell"):
        to_cells(heat, (7, 3))


def rolled_by_hand(taken, maps):
    """Relevance of self-attention, every row read."""
    total = torch.eye(taken.activations[maps[0]].shape[-1])
    for name in maps:
        total = total + (taken.gradients[name] * taken.activations[name]).clamp(min=0).mean(dim=1) @ total
    return total.mean(dim=1)


class OfT5(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.t5 = T5EncoderModel(T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                                          attn_implementation="eager"))
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids):
        return self.head(self.t5(input_ids=input_ids).last_hidden_state.mean(dim=1))


def test_the_entry_that_holds_the_map_can_be_named():
    model, inputs = OfT5().eval(), {"input_ids": torch.randint(5, 50, (3, 6))}
    names = [f"t5.encoder.block.{i}.layer.0.SelfAttention" for i in (0, 1)]
    found = []
    with model.t5.encoder.block[0].layer[0].SelfAttention.register_forward_hook(lambda m, a, output: found.append(output)):
        model(**inputs)
    entry = next(i for i, value in enumerate(found[0]) if isinstance(value, torch.Tensor) and value.ndim == 4
                 and torch.allclose(value.sum(dim=-1), torch.ones(())))
    right = [f"{name}#{entry}" for name in names]
    taken = capture(model, inputs, ["t5.encoder.embed_tokens", *right])
    scores = text_scores(model, inputs, "t5.encoder.embed_tokens", "attention-relevance", special="keep", attention=right)
    assert torch.allclose(scores, rolled_by_hand(taken, right), atol=1e-6)
    for wrong in {1, 2} - {entry}:
        with pytest.raises(InputError, match=rf"pass attention=\['t5.*SelfAttention#{entry}', ...\]"):
            text_scores(model, inputs, "t5.encoder.embed_tokens", "attention-relevance", special="keep",
                        attention=names if wrong == 1 else [f"{name}#{wrong}" for name in names])


def test_a_map_that_is_given_on_demand():
    torch.manual_seed(0)
    model = DebertaV2ForSequenceClassification(DebertaV2Config(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3,
        max_position_embeddings=32, attn_implementation="eager")).eval()
    inputs = {"input_ids": torch.randint(5, 50, (3, 6))}
    names = [f"deberta.encoder.layer.{i}.attention.self" for i in (0, 1)]
    ask = {"layer": "deberta.embeddings", "method": "attention-relevance", "special": "keep", "attention": names}
    with pytest.raises(InputError, match="pass output_attentions=True with the inputs"):
        text_scores(model, inputs, **ask)
    assert text_scores(model, {**inputs, "output_attentions": True}, **ask).shape == (3, 6)


def test_a_map_on_which_nothing_depends():
    """PyTorch's own attention hands out a copy of its map, or none."""
    model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).eval()
    says = "gives .Tensor, NoneType.*need_weights=False.*no map on which its output depends"
    with pytest.raises(InputError, match=says):
        attribute(model, torch.rand(2, 3, 32, 32), "conv_proj", "attention-relevance",
                  attention=["encoder.layers.encoder_layer_0.self_attention"])
    encoder = nn.Sequential(nn.Embedding(9, 4), nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1),
                            nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(InputError, match=says):
        text_scores(encoder, {"input": torch.randint(9, (2, 3))}, "0", "attention-relevance", special="keep",
                    attention=["1.layers.0.self_attn"])


class Attention(nn.Module):
    """Attention that is written out, with two heads."""

    def __init__(self, heads=2):
        super().__init__()
        self.heads, self.read, self.write = heads, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden, context=None):
        query, key = ((self.read(rows)).unflatten(2, (self.heads, -1)).transpose(1, 2)
                      for rows in (hidden, hidden if context is None else context))
        weights = (query @ key.mT / 2).softmax(dim=-1)
        return self.write((weights @ key).transpose(1, 2).flatten(2)), weights


class Crossed(nn.Module):
    """Words attend to patches once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.words = nn.Conv2d(3, 8, 8, 8), nn.Embedding(20, 8)
        self.own, self.attend, self.head = Attention(), Attention(), nn.Linear(8, 3)

    def forward(self, images, tokens):
        words = self.words(tokens)
        words = words + self.own(words)[0]
        patches = self.cut(images).flatten(2).transpose(1, 2)
        return self.head(self.attend(words, patches)[0].square().sum(dim=1))


@pytest.mark.parametrize("words", [5, 16])
def test_cross_attention_is_read_at_what_is_attended_to(words):
    model, inputs = Crossed().eval(), {"images": torch.rand(2, 3, 32, 32), "tokens": torch.randint(2, 20, (2, words))}
    taken = capture(model, inputs, ["cut", "attend#1"], "predicted")
    by_hand = (taken.gradients["attend#1"] * taken.activations["attend#1"]).clamp(min=0).mean(dim=1).mean(dim=1)  # (N, 16)
    heat = attribute(model, inputs, "cut", "attention-relevance", attention=["attend"])
    assert heat.shape == (2, 4, 4) and torch.allclose(heat.flatten(1), by_hand, atol=1e-6)
    with pytest.raises(InputError, match="attention-rollout of cross-attention, expected square ones"):
        attribute(model, inputs, "cut", "attention-rollout", attention=["attend"])
    with pytest.raises(InputError, match="got maps of cross-attention .'attend#1'. and of self-attention"):
        attribute(model, inputs, "words", "attention-relevance", attention=["own", "attend"])


def test_maps_of_words_and_patches_in_one_row():
    """The patches stand first: the image's positions and the words' are told."""

    class Joint(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cut, self.words, self.row = nn.Conv2d(3, 8, 8, 8), nn.Embedding(20, 8), nn.Identity()
            self.mix = Attention(1)
            self.head = nn.Linear(8, 1)

        def forward(self, images, tokens):
            row = self.row(torch.cat([self.cut(images).flatten(2).transpose(1, 2), self.words(tokens)], dim=1))
            return self.head(self.mix(row)[0].square().sum(dim=1))[:, 0]

    model, inputs = Joint().eval(), {"images": torch.rand(2, 3, 24, 16), "tokens": torch.randint(2, 20, (2, 4))}
    taken = capture(model, inputs, ["row", "mix#1"])
    total = torch.eye(10) + (taken.gradients["mix#1"] * taken.activations["mix#1"]).clamp(min=0)[:, 0]
    is_read = (taken.gradients["mix#1"][:, 0] != 0).any(dim=2)
    by_hand = (total * is_read[..., None]).sum(dim=1) / is_read.sum(dim=1, keepdim=True)
    heat = attribute(model, inputs, "row", ["attention-relevance", "gradient x input"], 1, "for", positive=False,
                     attention=["mix"], positions=slice(0, 6))
    assert heat["gradient x input"].shape == (2, 3, 2)
    assert torch.allclose(heat["attention-relevance"].flatten(1), by_hand[:, :6], atol=1e-6)
    scores = text_scores(model, inputs, "row", ["attention-relevance", "l2"], special="keep", attention=["mix"],
                         positions=slice(6, 10))
    assert torch.allclose(scores["attention-relevance"], by_hand[:, 6:], atol=1e-6)
    assert torch.allclose(scores["l2"], taken.gradients["row"][:, 6:].norm(dim=2), atol=1e-6)
    mixed = word_by_patch(model, inputs, "row", "row", words=Tokens(layer="words", positions=slice(6, 10)),
                          positions=slice(0, 6), order="second")
    assert mixed.shape == (2, 4, 3, 2)
    with pytest.raises(InputError, match="positions"):
        word_by_patch(model, inputs, "row", "row", order="second")


class Given(nn.Module):
    """Attention of what it is given, under names that say nothing."""

    def forward(self, q, k):
        weights = (q @ k.mT / 2).softmax(dim=-1)
        return weights @ k, weights


class Block(nn.Module):
    """Makes queries and keys of one row of tokens, or of two, before its attention gets them."""

    def __init__(self):
        super().__init__()
        self.ask, self.answer, self.attend = nn.Linear(8, 8), nn.Linear(8, 8), Given()

    def forward(self, hidden, other=None):
        return self.attend(self.ask(hidden), self.answer(hidden if other is None else other))


class Blocks(nn.Module):
    """Words that attend to words in two blocks, and to patches in a third one where that is asked for."""

    def __init__(self, crossed=False):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.words, self.crossed = nn.Conv2d(3, 8, 8, 8), nn.Embedding(20, 8), crossed
        self.first, self.second, self.third, self.head = Block(), Block(), Block(), nn.Linear(8, 3)

    def forward(self, images, tokens):
        words, patches = self.words(tokens), self.cut(images).flatten(2).transpose(1, 2)
        words = words + self.first(words)[0]
        words = words + (self.third(words, patches) if self.crossed else self.second(words))[0]
        return self.head(words.square().sum(dim=1) + (0 if self.crossed else patches.mean(dim=1)))


def _steps(model, inputs, before, places):
    """Return the positive part of map times gradient of each place, by autograd."""
    taken = capture(model, inputs, [before, *places], "predicted")
    return [(taken.gradients[place] * taken.activations[place]).clamp(min=0) for place in places]


@pytest.mark.parametrize("words", [4, 16])
def test_queries_and_keys_that_are_made_of_the_same_tokens_are_self_attention(words):
    model, inputs = Blocks().eval(), {"images": torch.rand(2, 3, 32, 32), "tokens": torch.randint(2, 20, (2, words))}
    names = ["first.attend", "second.attend"]
    first, second = _steps(model, inputs, "words", [f"{name}#1" for name in names])
    rolled = torch.eye(words) + first
    by_hand = (rolled + second @ rolled).mean(dim=1)
    found = text_scores(model, inputs, "words", "attention-relevance", special="keep", attention=names)
    assert torch.allclose(found, by_hand, atol=1e-5)
    parts = [ImageCells(), Tokens(layer="words", special=())]
    found = explain(model, inputs, parts, "attention-relevance", attention={"text": names}).values["text"]
    assert torch.allclose(found, by_hand, atol=1e-5)


@pytest.mark.parametrize("words", [4, 16])
def test_keys_of_other_tokens_under_an_unknown_name_are_right_or_refused(words):
    model, inputs = Blocks(True).eval(), {"images": torch.rand(2, 3, 32, 32), "tokens": torch.randint(2, 20, (2, words))}
    asked = {"method": "attention-relevance", "attention": ["third.attend"]}
    if words != 16:
        (step,) = _steps(model, inputs, "cut", ["third.attend#1"])
        assert torch.allclose(attribute(model, inputs, "cut", **asked).flatten(1), step.mean(dim=1), atol=1e-6)
        return
    with pytest.raises(InputError, match="queries and its keys as tensors of their own .q, k."):
        attribute(model, inputs, "cut", **asked)
    parts = [ImageCells(layer="cut", grid=(4, 4)), Tokens(layer="words", special=())]
    with pytest.raises(InputError, match="whether these are the same tokens"):
        explain(model, inputs, parts, "attention-relevance", attention={"image": ["third.attend"]})


def test_explain_reads_cross_attention_as_maps_do():
    model, inputs = Crossed().eval(), {"images": torch.rand(2, 3, 32, 32), "tokens": torch.randint(2, 20, (2, 16))}
    (step,) = _steps(model, inputs, "cut", ["attend#1"])
    parts = [ImageCells(layer="cut", grid=(4, 4)), Tokens(layer="words", special=())]
    found = explain(model, inputs, parts, "attention-relevance", attention={"image": ["attend"]}).values["image"]
    assert torch.allclose(found, step.mean(dim=1).mean(dim=1), atol=1e-6)
