import captum.attr
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from crossexplain.checks import InputError
from crossexplain.gradients.tokens import METHODS, attribute, merge_words, top_window

LAYER = "encoder.embeddings"


class Reader(nn.Module):
    """A tiny BERT that reads its first token or the mean over the attended ones."""

    def __init__(self, readout="first"):
        super().__init__()
        self.encoder = BertModel(
            BertConfig(vocab_size=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16,
                       max_position_embeddings=12, attn_implementation="eager"),
            add_pooling_layer=False,
        )
        self.head, self.readout = nn.Linear(12, 3), readout

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].float()
        return self.head(hidden[:, 0] if self.readout == "first" else (hidden * mask).sum(1) / mask.sum(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    reader = Reader().eval()
    for parameter in reader.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)  # of BERT's own small weights every map is flat
    return reader


IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
MASK = (IDS > 0).long()
INPUTS = {"input_ids": IDS, "attention_mask": MASK}
SPECIAL = (IDS == 2) | (IDS == 3) | (IDS == 0)
ATTENTION = [f"encoder.encoder.layer.{i}.attention.self" for i in range(2)]


def own_gradient(model, inputs=INPUTS):
    """The gradient of the predicted class with respect to the embeddings, without any of the package."""
    kept = {}

    def hook(module, given, output):
        kept["a"] = output
        output.retain_grad()

    handle = model.encoder.embeddings.register_forward_hook(hook)
    logits = model(**inputs)
    handle.remove()
    model.zero_grad()
    logits.max(dim=1).values.sum().backward()
    return kept["a"].detach(), kept["a"].grad


def test_every_reading_by_hand(model):
    a, g = own_gradient(model)
    by_hand = {"raw": g.sum(-1), "mean": g.sum(-1) / 12, "l1": g.abs().sum(-1), "l2": (g**2).sum(-1).sqrt(),
               "gradient x input": (a * g).sum(-1), "activation x gradient": ((a * g) ** 2).sum(-1).sqrt()}
    scores = attribute(model, INPUTS, LAYER, list(by_hand), special="keep")
    for name, expected in by_hand.items():
        assert torch.allclose(scores[name], expected, atol=1e-6), name
        assert METHODS[name].signed == bool((expected < 0).any())
    assert set(METHODS) == {*by_hand, "attention-relevance"}


def test_equal_to_captum(model):
    def forward(ids, mask):
        return model(input_ids=ids, attention_mask=mask)

    target = forward(IDS, MASK).argmax(dim=1)
    theirs = captum.attr.LayerGradientXActivation(forward, model.encoder.embeddings)
    theirs = theirs.attribute(IDS, target=target, additional_forward_args=(MASK,))
    ours = attribute(model, INPUTS, LAYER, ["gradient x input", "activation x gradient", "l1", "l2"], special="keep")
    assert torch.allclose(ours["gradient x input"], theirs.sum(-1), atol=1e-5)
    assert torch.allclose(ours["activation x gradient"], theirs.norm(dim=-1), atol=1e-5)

    def from_embeddings(embedded, mask):
        return model.head(model.encoder.encoder(embedded, attention_mask=allowed(mask)).last_hidden_state[:, 0])

    def allowed(mask):
        return torch.where(mask[:, None, None, :] > 0, 0.0, torch.finfo(torch.float32).min)

    embedded = model.encoder.embeddings(input_ids=IDS).detach().requires_grad_()
    saliency = captum.attr.Saliency(from_embeddings).attribute(embedded, target, additional_forward_args=(MASK,))
    assert torch.allclose(ours["l1"], saliency.sum(-1), atol=1e-5)
    assert torch.allclose(ours["l2"], saliency.norm(dim=-1), atol=1e-5)


@pytest.mark.parametrize("readout", ["first", "mean"])
def test_attention_relevance_follows_its_equations(model, readout):
    model.readout = readout
    handles, maps = [], []
    for name in ATTENTION:
        def hook(module, given, output):
            output[1].retain_grad()
            maps.append(output[1])
        handles.append(model.get_submodule(name).register_forward_hook(hook))
    logits = model(**INPUTS)
    for handle in handles:
        handle.remove()
    logits.max(dim=1).values.sum().backward()
    for i in range(2):
        rolled = torch.eye(6)
        for heads in maps:  # (N, heads, T, T)
            bar = sum(torch.relu(heads.grad[i, h] * heads[i, h]) for h in range(3)) / 3
            rolled = rolled + bar @ rolled
        expected = rolled[0] if readout == "first" else rolled[: int(MASK[i].sum())].mean(dim=0)
        found = attribute(model, INPUTS, LAYER, "attention-relevance", special="keep", attention=ATTENTION)
        assert torch.allclose(found[i], expected.detach(), atol=1e-6)
    model.readout = "first"
    assert (found[1, 4:] == 0).all()  # nothing looks at padding


def test_special_tokens_are_dropped_kept_or_shown(model):
    kept = attribute(model, INPUTS, LAYER, special="keep")
    dropped = attribute(model, INPUTS, LAYER, special_tokens=SPECIAL)
    assert dropped.isnan().equal(SPECIAL) and torch.equal(dropped[~SPECIAL], kept[~SPECIAL])
    shown = attribute(model, INPUTS, LAYER, special="show", special_tokens=SPECIAL, scale=True)
    words = kept.masked_fill(SPECIAL, 0).amax(dim=1, keepdim=True)
    assert torch.allclose(shown, kept / words)
    assert attribute(model, INPUTS, LAYER, special="keep", scale=True).amax(dim=1).tolist() == [1.0, 1.0]
    assert torch.allclose(attribute(model, INPUTS, LAYER, special_tokens=SPECIAL, scale=True)[0].nan_to_num().max(),
                          torch.tensor(1.0))


def test_padding_gets_no_gradient_and_batches_do_not_matter(model):
    scores = attribute(model, INPUTS, LAYER, special="keep")
    assert (scores[1, 4:] == 0).all()
    alone = attribute(model, {"input_ids": IDS[1:, :4], "attention_mask": MASK[1:, :4]}, LAYER, special="keep")
    assert torch.allclose(alone[0], scores[1, :4], atol=1e-6)


def test_a_few_sentences_at_a_time_give_the_same(model):
    whole = attribute(model, INPUTS, LAYER, ["l2", "attention-relevance"], torch.tensor([2, 0]), special="keep",
                      attention=ATTENTION)
    parts = attribute(model, INPUTS, LAYER, ["l2", "attention-relevance"], torch.tensor([2, 0]), special="keep",
                      attention=ATTENTION, batch_size=1)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)


def test_at_the_last_block_only_the_first_token_has_a_gradient(model):
    scores = attribute(model, INPUTS, "encoder.encoder.layer.1", special="keep")
    assert (scores[:, 1:] == 0).all() and (scores[:, 0] > 0).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"method": "l3"}, "no method 'l3'; the methods are raw, mean, l1"),
        ({"method": []}, "no method was named"),
        ({"special": "hide"}, "got special 'hide', expected one of 'drop', 'keep', 'show'"),
        ({"special": "drop"}, "pass special_tokens"),
        ({"special_tokens": SPECIAL[:1]}, r"special_tokens has shape \(1, 6\)"),
        ({"method": "attention-relevance"}, "need the names of the self-attention modules"),
        ({"layer": "head"}, r"gives shape \(2, 3\), expected one vector a token"),
        ({"layer": "encoder.embedding"}, "no layer 'encoder.embedding'.*'encoder.embeddings'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"target": torch.tensor([0, 1, 2])}, "target has 3 entries, the batch has 2"),
        ({"target": 7}, "class 7, the model has classes 0 to 2"),
        ({"method": "attention-relevance", "attention": ["head"]}, "gives .Tensor., which has no tensor 1"),
        ({"inputs": {"input_ids": IDS[:0], "attention_mask": MASK[:0]}}, "0 examples"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_advice(model, words, says):
    call = {"inputs": INPUTS, "layer": LAYER, "special": "keep" if "special_tokens" not in words else "drop", **words}
    with pytest.raises(InputError, match=says):
        attribute(model, **call)


def test_windows_by_hand():
    nan = float("nan")
    scores = torch.tensor([[nan, 1, 1, 5, 0, 9, nan], [nan, 1, nan, 2, 3, nan, nan]])
    assert top_window(scores, n=2).tolist() == [[4, 6], [3, 5]]
    assert top_window(scores, n=4).tolist() == [[2, 6], [3, 5]]  # the second has no four in a row
    assert top_window(-scores[:1], n=1).tolist() == [[4, 5]]
    with pytest.raises(InputError, match="sentence 0 has no token"):
        top_window(torch.full((1, 3), nan))
    with pytest.raises(InputError, match="n = 0"):
        top_window(scores, n=0)


def test_word_pieces_become_words():
    scores = torch.tensor([[9.0, 1.0, -3.0, 2.0, 9.0], [9.0, 4.0, 9.0, 9.0, 9.0]])
    words = torch.tensor([[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1]])
    for how, expected in {"sum": [-2.0, 2.0], "max": [-3.0, 2.0], "mean": [-1.0, 2.0]}.items():
        merged = merge_words(scores, words, how)
        assert merged[0].tolist() == expected and merged[1, 0] == 4 and merged[1, 1].isnan()
        as_they_come = [[None, 0, 0, 1, None], [None, 0, None, None, None]]
        assert torch.equal(merge_words(scores, as_they_come, how).nan_to_num(7), merged.nan_to_num(7))
    with pytest.raises(InputError, match="one shape"):
        merge_words(scores, words[:1])
    with pytest.raises(InputError, match="got word numbers as list, expected a tokenizer's encoding or one list for each text"):
        merge_words(scores, [[0, 1], [0]])
    with pytest.raises(InputError, match="got how 'min', expected one of 'sum', 'max', 'mean'"):
        merge_words(scores, words, "min")


class Placed(nn.Module):
    """Reads words and where they stand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places, self.head = nn.Embedding(20, 4), nn.Embedding(80, 4), nn.Linear(4, 3)

    def forward(self, input_ids, position_ids):
        return self.head((self.words(input_ids) * self.places(position_ids)).tanh().sum(dim=1))


@pytest.mark.parametrize(("sentences", "length", "rows", "first"), [
    (70, 6, True, False), (70, 6, True, True), (70, 6, False, False), (3, 70, False, False), (1, 6, True, True),
])
def test_positions_are_no_sentences(sentences, length, rows, first):
    """Of shape (1, T) or (T,), they belong to all sentences, however many go through the model at once."""
    ids = torch.randint(20, (sentences, length), generator=torch.Generator().manual_seed(0))
    places = torch.arange(length)[None] if rows else torch.arange(length)
    inputs = {"position_ids": places, "input_ids": ids} if first else {"input_ids": ids, "position_ids": places}
    found = attribute(Placed(), inputs, "words", special="keep")
    every = {"input_ids": ids, "position_ids": torch.arange(length).expand(sentences, -1)}
    assert torch.allclose(found, attribute(Placed(), every, "words", special="keep", batch_size=7), atol=1e-6)


def test_inputs_without_names_are_refused(model):
    with pytest.raises(InputError, match="got inputs as Tensor, expected a mapping from the model's keywords"):
        attribute(model, IDS, LAYER, special="keep")


def test_the_pieces_of_a_word_are_scored_together(model):
    words = [[None, 0, 0, 1, 2, None], [None, 0, 1, None, None, None]]
    pieces = attribute(model, INPUTS, LAYER, ["l1", "l2"], special="keep")
    scores = attribute(model, INPUTS, LAYER, ["l1", "l2"], special="keep", words=words)
    for name, values in scores.items():
        assert torch.allclose(values[0], torch.stack([pieces[name][0, 1:3].sum(), pieces[name][0, 3], pieces[name][0, 4]]))
        assert torch.allclose(values[1, :2], pieces[name][1, 1:3]) and values[1, 2].isnan()
    dropped = torch.zeros_like(SPECIAL)
    dropped[0, 1:3] = True  # a word that is no part of the sentence
    assert attribute(model, INPUTS, LAYER, special_tokens=dropped, words=words)[0, 0].isnan()


class Classes(nn.Module):
    """Compares sentences with vectors of the classes, which belong to all sentences."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(20, 4)

    def forward(self, input_ids, classes):
        return self.words(input_ids).tanh().mean(dim=1) @ classes.T


def test_what_belongs_to_all_sentences_is_not_cut():
    ids = torch.randint(20, (6, 5), generator=torch.Generator().manual_seed(0))
    for count in (6, 3):
        classes = torch.rand(count, 4, generator=torch.Generator().manual_seed(1))
        model, inputs, ask = Classes(), {"input_ids": ids, "classes": classes}, {"layer": "words", "special": "keep"}
        alone = torch.cat([attribute(model, {**inputs, "input_ids": row[None]}, **ask, common=["classes"]) for row in ids])
        assert torch.allclose(attribute(model, inputs, "words", special="keep", common="classes", batch_size=4), alone)
        model.common = ("classes",)  # as of a model that says so itself
        assert torch.allclose(attribute(model, inputs, "words", special="keep", batch_size=4), alone)
        del model.common
        for few in (1, 4):
            with pytest.raises(InputError, match="common="):
                attribute(model, inputs, "words", special="keep", batch_size=few)
    with pytest.raises(InputError, match="different numbers of rows .'input_ids' 6, 'classes' 3.; name those"):
        attribute(model, inputs, "words", special="keep")


def test_a_list_with_an_entry_a_sentence_is_cut(model):
    class Named(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.encoder, self.head, self.inner = inner.encoder, inner.head, [inner]

        def forward(self, names, **inputs):
            assert len(names) == len(inputs["input_ids"])
            return self.inner[0](**inputs)

    found = attribute(Named(model), {**INPUTS, "names": ["a", "b"]}, LAYER, special="keep", batch_size=1)
    assert torch.allclose(found, attribute(model, INPUTS, LAYER, special="keep"), atol=1e-6)


def test_a_model_that_draws_at_random_is_refused():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2))
    inputs = {"input": torch.randint(9, (2, 3))}
    with pytest.raises(InputError, match="train mode.*call model.eval"):
        attribute(model, inputs, "0", special="keep")
    model.eval()
    assert attribute(model, inputs, "0", special="keep").shape == (2, 3)
    model[2].train()
    with pytest.raises(InputError, match="1 part.s. of the model .'2'. are in train mode"):
        attribute(model, inputs, "0", special="keep")
