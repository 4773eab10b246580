"""What belongs to words moves with them, padding stays on its side, and a feature can be a whole word."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from crossexplain import Called, Game, preflight
from crossexplain.checks import InputError
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors, rows_of, without_others, word_numbers
from crossexplain.gradients.padding import padding_side_of
from crossexplain.gradients.rounds import feature_dividends
from crossexplain.gradients.views import Mask, Reorder, Views


def view(inputs, modality, change, **kwargs):
    """The inputs of one view, without the rows of the whole."""
    return Views(inputs, [modality], {"view": {modality.name: change}}, allow_empty=True, **kwargs).inputs


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                                                     intermediate_size=32, max_position_embeddings=32, num_labels=3,
                                                     initializer_range=0.4)).eval()
    nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight)
    return model


PAIRS = torch.tensor([[2, 10, 11, 12, 13, 3, 20, 21, 3], [2, 14, 15, 3, 22, 23, 3, 0, 0]])
TYPES = torch.tensor([[0] * 6 + [1] * 3, [0] * 4 + [1] * 3 + [0] * 2])
SENTENCES = {"input_ids": PAIRS, "attention_mask": (PAIRS != 0).long(), "token_type_ids": TYPES}
TEXT = {"input": "input_ids", "mask_id": 4, "special": (2, 3), "attention": "attention_mask"}


def test_token_types_move_with_deleted_words(bert):
    keep = torch.ones(2, 9, dtype=torch.bool)
    keep[0, 1:3] = keep[1, 4] = False
    seen = view(SENTENCES, Tokens(**TEXT), Mask(keep, "delete"))
    assert seen["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0]]
    for i in range(2):
        real = keep[i] & SENTENCES["attention_mask"][i].bool()
        alone = bert(**{key: value[i : i + 1, real] for key, value in SENTENCES.items()}).logits
        assert torch.allclose(bert(**rows_of(seen, torch.tensor([i]), 2)).logits, alone, atol=1e-5)


def test_a_borrowed_sentence_brings_its_types(bert):
    other = {"input_ids": PAIRS.flip(0), "attention_mask": (PAIRS != 0).long().flip(0), "token_type_ids": TYPES.flip(0)}
    seen = view(SENTENCES, Tokens(**TEXT), Mask(None, "data", torch.arange(2)), donors=other)
    assert all(torch.equal(seen[key], other[key]) for key in other)
    assert torch.allclose(bert(**seen).logits, bert(**other).logits)
    partly = torch.ones(9, dtype=torch.bool)
    partly[1] = False
    seen = view(SENTENCES, Tokens(**TEXT), Mask(partly, "data", torch.arange(2)), donors=other)
    assert seen["input_ids"][:, 1].tolist() == [14, 10] and torch.equal(seen["attention_mask"], SENTENCES["attention_mask"])
    with pytest.raises(InputError, match="input 'token_type_ids' of the donors is missing"):
        del other["token_type_ids"]
        view(SENTENCES, Tokens(**TEXT), Mask(None, "data", torch.arange(2)), donors=other)


def test_boxes_travel_places_stay_and_what_nobody_named_is_refused():
    boxes = torch.arange(2 * 9 * 4).reshape(2, 9, 4)
    inputs = {**SENTENCES, "bbox": boxes, "position_ids": torch.arange(9).expand(2, -1), "tags": PAIRS * 10}
    keep = torch.ones(9, dtype=torch.bool)
    keep[1] = False
    for baseline in ("delete", "data"):
        with pytest.raises(InputError, match=r"input 'tags'.*along=\('tags',\).*stay=\('tags',\)"):
            view(inputs, Tokens(**TEXT), Mask(keep, baseline, torch.tensor([1, 0])))
    with pytest.raises(InputError, match="'tags'"):
        view(inputs, Tokens(**TEXT), Reorder(1))
    assert "tags" in view(inputs, Tokens(**TEXT), Mask(keep, "mask"))
    moved = view(inputs, Tokens(**TEXT, along=("tags",)), Mask(keep, "delete"))
    order = [0, *range(2, 9)]
    assert torch.equal(moved["bbox"][:, :8], boxes[:, order]) and (moved["bbox"][:, 8] == 0).all()
    assert torch.equal(moved["tags"][:, :8], PAIRS[:, order] * 10)
    assert torch.equal(moved["position_ids"], inputs["position_ids"])
    left = view(inputs, Tokens(**TEXT, stay="tags"), Mask(keep, "delete"))
    assert torch.equal(left["tags"], inputs["tags"])
    mixed = view(inputs, Tokens(**TEXT, along=["tags"]), Reorder(1))
    assert torch.equal(mixed["tags"], mixed["input_ids"] * 10) and not torch.equal(mixed["input_ids"], PAIRS)
    at = {word: box for word, box in zip(PAIRS[0].tolist(), boxes[0].tolist()) if word > 3}
    assert all(at[word] == box for word, box in zip(mixed["input_ids"][0].tolist(), mixed["bbox"][0].tolist()) if word > 3)
    with pytest.raises(InputError, match=r"input 'boxes' of text is missing, expected \(2, 9\)"):
        view(SENTENCES, Tokens(**TEXT, along=["boxes"]), Mask(keep, "delete"))


def test_what_belongs_to_all_examples_is_no_input_of_the_words():
    inputs = {"tokens": torch.tensor([[5, 6, 7], [8, 9, 4], [5, 5, 0]]), "classes": torch.rand(3, 3)}
    keep = torch.tensor([False, True, True])
    with pytest.raises(InputError, match="input 'classes'"):
        view(inputs, Tokens(), Mask(keep, "delete"))
    seen = view(inputs, Tokens(), Mask(keep, "delete"), common=["classes"])
    assert seen["tokens"].tolist() == [[6, 7, 0], [9, 4, 0], [5, 0, 0]] and seen["classes"] is inputs["classes"]


def test_an_input_of_another_modality_is_no_unknown_input():
    inputs = {"question": PAIRS, "answer": PAIRS.flip(0), "frames": torch.rand(2, 9, 4)}
    modalities = [Tokens("question", "question", special=(2, 3)), Tokens("answer", "answer", special=(2, 3)),
                  Vectors("frames", "frames")]
    keep = torch.ones(9, dtype=torch.bool)
    keep[1] = False
    seen = Views(inputs, modalities, {"less": {"question": Mask(keep, "delete")}}).inputs
    assert torch.equal(seen["answer"], inputs["answer"]) and seen["question"][0, 1] == 11
    both = {**inputs, "token_type_ids": TYPES}
    with pytest.raises(InputError, match="'token_type_ids' can belong to question or to answer; pass along="):
        Views(both, modalities, {"less": {"question": Mask(keep, "delete")}}).inputs  # noqa: B018
    modalities[1] = Tokens("answer", "answer", special=(2, 3), along=["token_type_ids"])
    assert "token_type_ids" not in without_others(both, modalities[0], modalities)
    plan = {"less": {"question": Mask(keep, "delete")}, "other": {"answer": Mask(keep, "delete")}}
    seen = Views(both, modalities, plan).inputs
    assert torch.equal(seen["token_type_ids"][:2], TYPES) and not torch.equal(seen["token_type_ids"][2:], TYPES)


class Packed(nn.Module):
    """An LSTM that is told how many tokens there are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm, self.head = nn.Embedding(20, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens, lengths):
        packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


def packed_inputs(examples=6, words=7):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, words + 1, (examples,), generator=generator)
    tokens = torch.randint(2, 20, (examples, words), generator=generator)
    return {"tokens": tokens.masked_fill(torch.arange(words) >= lengths[:, None], 0), "lengths": lengths}


def test_the_number_of_tokens_follows():
    model, inputs = Packed().eval(), packed_inputs()
    keep = torch.ones(6, 7, dtype=torch.bool)
    keep[:, 0] = False
    for baseline in ("delete", "data"):
        with pytest.raises(InputError, match="'lengths' holds the number of tokens.*pass lengths='lengths'"):
            view(inputs, Tokens(), Mask(keep, baseline, torch.arange(6)))
    with pytest.raises(InputError, match="or the place of the last"):
        view({"tokens": inputs["tokens"], "end": inputs["lengths"] - 1}, Tokens(), Mask(keep, "delete"))
    view(inputs, Tokens(), Mask(keep, "mask"))
    text = Tokens(lengths="lengths")
    seen = view(inputs, text, Mask(keep, "delete"))
    for i, length in enumerate(inputs["lengths"].tolist()):
        alone = model(inputs["tokens"][i : i + 1, 1:length], torch.tensor([length - 1]))
        assert torch.allclose(model(**rows_of(seen, torch.tensor([i]), 6)), alone, atol=1e-6)
    donors = torch.tensor([3, 4, 5, 0, 1, 2])
    seen = view(inputs, text, Mask(None, "data", donors))
    assert torch.allclose(model(**seen), model(**inputs)[donors])
    with pytest.raises(InputError, match="'lengths' would be 0"):
        view(inputs, text, Mask(None, "delete"))
    assert torch.equal(view(inputs, text, Reorder(0))["lengths"], inputs["lengths"])


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=2,
                                      eos_token_id=3)).eval()


def test_padding_stays_on_its_side(gpt):
    left = torch.tensor([[0, 0, 2, 5, 6, 7, 3], [2, 8, 9, 5, 6, 7, 3]])
    inputs = {"input_ids": left, "attention_mask": (left != 0).long(),
              "position_ids": ((left != 0).cumsum(dim=1) - 1).clamp(min=0)}
    text = Tokens(**TEXT)
    keep = torch.ones(2, 7, dtype=torch.bool)
    keep[0, 4] = keep[1, 1] = False
    seen = view(inputs, text, Mask(keep, "delete"))
    assert seen["input_ids"].tolist() == [[0, 0, 0, 2, 5, 7, 3], [0, 2, 9, 5, 6, 7, 3]]
    assert torch.equal(seen["attention_mask"], (seen["input_ids"] != 0).long())
    real = seen["attention_mask"].bool()
    assert torch.equal(seen["position_ids"][real], (seen["attention_mask"].cumsum(dim=1) - 1)[real])
    for i in range(2):
        stay = keep[i] & (left[i] != 0)
        alone = gpt(input_ids=left[i : i + 1, stay]).logits[:, -1]
        there = {key: value[i : i + 1] for key, value in seen.items()}
        assert torch.allclose(gpt(**there).logits[:, -1], alone, atol=1e-5)
    assert (seen["input_ids"][:, -1] == 3).all(), "the last place holds the end of the text, as before"
    one = Views(inputs, [text], {"full": {}}).batch(torch.tensor([1]))  # a part of the batch that shows no padding
    assert one["input_ids"].tolist() == [left[1].tolist()]
    whole = Views(inputs, [text], {"less": {"text": Mask(keep, "delete")}})
    assert whole.batch(torch.tensor([1]))["input_ids"].tolist() == [[0, 2, 9, 5, 6, 7, 3]]
    settled = whole.modalities["text"]
    assert settled.side == "left" and text.side is None
    places = torch.arange(14.0).reshape(2, 7)
    back = settled.put_back(places, settled.features(inputs), settled.features(inputs) & keep, "delete")
    at = {(i, int(word)): places[i, int((seen["input_ids"][i] == word).nonzero()[-1])]
          for i in range(2) for word in left[i] if word not in (0, 2, 3) and (seen["input_ids"][i] == word).any()}
    for i in range(2):
        for t in range(7):
            if settled.features(inputs)[i, t] and keep[i, t]:
                assert back[i, t] == at[i, int(left[i, t])], "a word is read where it stands now"
    right = Tokens(**TEXT, padding_side="right")
    assert view(inputs, right, Mask(keep, "delete"))["input_ids"][1].tolist() == [2, 9, 5, 6, 7, 3, 0]
    donors = {"input_ids": torch.tensor([[2, 8, 3, 0, 0, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0, 0, 0, 0]]),
              "position_ids": torch.tensor([[0, 1, 2, 0, 0, 0, 0]])}
    seen = view(inputs, text, Mask(None, "data", torch.tensor([0, 0])), donors=donors)
    assert seen["input_ids"].tolist() == [[0, 0, 0, 0, 2, 8, 3]] * 2, "a borrowed sentence is padded where the batch is"
    assert seen["position_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 2]] * 2
    both = {"input_ids": torch.tensor([[0, 2, 5, 3, 0]])}
    with pytest.raises(InputError, match="padded on both sides.*pass padding_side="):
        view(both, Tokens(input="input_ids", special=(2, 3)), Mask(torch.tensor([True, True, False, True, True]), "delete"))
    with pytest.raises(InputError, match="got padding_side 'start', expected one of 'left', 'right'"):
        Tokens(padding_side="start")


class TextAndSound(nn.Module):
    """Adds words, their places and sounds, of which there are as many."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.places = nn.Embedding(60, 3), nn.Embedding(9, 3)

    def forward(self, input_ids, position_ids, sound):
        read = torch.tanh(self.embedding(input_ids) * self.places(position_ids)).sum(dim=(1, 2))
        return read + read.tanh() * sound.square().sum(dim=(1, 2))


@pytest.mark.parametrize("stay", [(), ("position_ids",)])
def test_borrowed_vectors_leave_the_places_of_the_words(stay):
    inputs = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]]), "position_ids": torch.tensor([[0, 1, 2], [6, 4, 5]]),
              "sound": torch.rand(2, 3, 3)}
    text, sound = Tokens(input="input_ids", special=(2, 3), stay=stay), Vectors("sound", "sound")
    seen = Views(inputs, [text, sound], {"view": {"sound": Mask(None, "data", torch.tensor([1, 0]))}}).inputs
    assert torch.equal(seen["position_ids"], inputs["position_ids"]) and torch.equal(seen["sound"], inputs["sound"].flip(0))
    model, donor = TextAndSound().eval(), {key: value[1:] for key, value in inputs.items()}
    found = feature_dividends(model, inputs, [text, sound], baseline={"text": "mask", "sound": "data"}, donors=donor, target=1,
                              progress=False)["sound"]
    for i in range(2):
        for f in range(3):
            def value(hidden_words, borrowed, i=i):
                ids, heard = inputs["input_ids"][i : i + 1], inputs["sound"][i : i + 1].clone()
                heard[:, borrowed] = donor["sound"][:, borrowed]
                return model(torch.ones_like(ids) if hidden_words else ids, inputs["position_ids"][i : i + 1], heard)

            by_hand = value(False, []) - value(False, [f]) - value(True, []) + value(True, [f])
            assert torch.allclose(found[i, f], by_hand[0], atol=1e-5)
    two = [Tokens("text", "input_ids"), Tokens("other", "others")]
    with pytest.raises(InputError, match=r"'position_ids' can belong to text or to other; pass stay=\('position_ids',\)"):
        without_others({**inputs, "others": inputs["input_ids"]}, two[0], two)


def answers_at_the_end(gpt):
    """A decoder that answers at its last position, whatever stands there."""
    return Called(gpt, lambda model, inputs: model(**inputs).logits[:, -1, 30])


def test_a_padded_word_at_which_a_decoder_answers_is_refused(gpt):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for pad, special in ((0, ()), (3, (3,))):  # where the padding is a special token too, the word itself stays in its place
        text = Tokens(input="input_ids", layer="transformer.wte", attention="attention_mask", mask_id=None, pad_id=pad,
                      special=special)
        for baseline in (None, "pad"):
            with pytest.raises(InputError, match="last word of text hidden by 'pad' .* it reads its answer at the place of"):
                Game(answers_at_the_end(gpt), inputs, [text], baselines=baseline)
    first = Tokens(input="input_ids", layer="transformer.wte", attention="attention_mask", mask_id=None, special=(5, 9))
    assert preflight(answers_at_the_end(gpt), inputs, [first]).ran, "which lists what is wrong"
    asking = {**inputs, "asks": torch.tensor([[False] * 3 + [True]] * 2)}  # the last token belongs to the question
    text = Tokens(input="input_ids", layer="transformer.wte", attention="attention_mask", mask_id=None, special_mask="asks")
    game = Game(answers_at_the_end(gpt), asking, [text], baselines="pad", target=1, progress=False)
    mask = torch.tensor([[1, 0, 1, 1]])
    by_hand = gpt(input_ids=torch.tensor([[5, 0, 7, 8]]), attention_mask=mask).logits[:, -1, 30]
    assert torch.allclose(game.values_of_all()[0, 0b101].float(), by_hand[0], atol=1e-4)


def test_padding_that_a_model_leaves_out_hides_the_last_word_too(bert):
    ids = torch.tensor([[2, 5, 6, 7], [2, 9, 10, 11]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    text = Tokens(input="input_ids", layer="bert.embeddings", attention="attention_mask", special=(2,))
    found = Game(bert, inputs, [text], baselines="pad", target=1, progress=False).values_of_all()
    for i in range(2):  # the model's answer to the shorter text
        shorter = bert(input_ids=ids[i : i + 1, :3], attention_mask=torch.ones(1, 3, dtype=torch.long)).logits[0, 1]
        assert torch.allclose(found[i, -1 - 0b1000].float(), shorter, atol=1e-5)


class Mean(nn.Module):
    """Reads padding as if it were text."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(60, 3)

    def forward(self, input_ids):
        return self.embedding(input_ids).mean(dim=1)


class FixedLength(Mean):
    def forward(self, input_ids):
        return self.embedding(input_ids).reshape(len(input_ids), 6, 3).sum(dim=1)


def test_the_side_where_padding_does_not_matter_is_found(bert, gpt):
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    text = Tokens(**TEXT)
    assert padding_side_of(lambda given: bert(**given).logits, text, inputs) == "right"

    def last(given):  # positions follow the mask, as a decoder that is padded on the left wants it
        places = (given["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return gpt(**given, position_ids=places).logits[:, -1, 30]

    assert padding_side_of(last, text, inputs) == "left"
    alike = Tokens(**TEXT)
    alike.side = "left"
    assert padding_side_of(lambda given: bert(**given).logits, alike, inputs) in ("left", "right")
    plain = Tokens(input="input_ids", special=(2, 3))
    with pytest.raises(InputError, match="with a word of text deleted the model gives .* it reads padding as text"):
        padding_side_of(lambda given: Mean()(**given), plain, {"input_ids": ids})
    assert padding_side_of(lambda given: FixedLength()(**given), plain, {"input_ids": ids}) is None


def test_a_prompt_that_stays_and_words_of_several_pieces(bert):
    ids = torch.tensor([[2, 10, 11, 12, 13, 14, 3, 0], [2, 20, 21, 22, 23, 3, 0, 0]])
    numbers = [[None, 0, 1, 1, 2, 3, None, None], [None, 0, 1, 2, 2, None, None, None]]
    prompt = torch.zeros_like(ids, dtype=torch.bool)
    prompt[:, 1] = True
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "word_ids": numbers, "prompt": prompt}
    text = Tokens(**TEXT, words="word_ids", special_mask="prompt")
    assert text.own == ("prompt", "word_ids") and text.unit == "words"
    settled = text.settled(inputs)
    assert settled.features(inputs).tolist() == [[False, True, True, True], [False, True, True, False]]
    assert settled.features(rows_of(inputs, torch.tensor([1]), 2)).shape == (1, 4), "as many words in every part of the batch"
    keep = torch.tensor([[True, False, True, True], [True, True, False, True]])
    masked = view(inputs, text, Mask(keep, "mask"))["input_ids"]
    assert masked.tolist() == [[2, 10, 4, 4, 13, 14, 3, 0], [2, 20, 21, 4, 4, 3, 0, 0]]
    less = view(inputs, text, Mask(keep, "delete"))
    assert less["input_ids"].tolist() == [[2, 10, 13, 14, 3, 0, 0, 0], [2, 20, 21, 3, 0, 0, 0, 0]]
    assert less["word_ids"].tolist() == [[-1, 0, 2, 3, -1, -1, -1, -1], [-1, 0, 1, -1, -1, -1, -1, -1]]
    assert less["prompt"].tolist() == [[False, True] + [False] * 6] * 2
    values = torch.rand(2, 8, 5)
    by_hand = [[values[0, 1], values[0, 2] + values[0, 3], values[0, 4], values[0, 5]],
               [values[1, 1], values[1, 2], values[1, 3] + values[1, 4], torch.zeros(5)]]
    found = settled.read_at(values, inputs, 2)
    assert torch.allclose(found, torch.stack([torch.stack(row).sum(dim=1) for row in by_hand]))
    deleted = settled.read_at(values, less, 2)  # the word numbers have moved with the words
    at = [values[0, 1].sum(), torch.tensor(0.0), values[0, 2].sum(), values[0, 3].sum()]
    assert torch.allclose(deleted[0], torch.stack(at))
    assert torch.equal(settled.put_back(deleted, settled.features(inputs), settled.features(inputs) & keep, "delete"), deleted)
    order = view(inputs, text, Reorder(3))["input_ids"]
    assert (order[:, :2] == ids[:, :2]).all(), "the prompt stays"
    assert "11, 12" in str(order[0].tolist()) and "22, 23" in str(order[1].tolist()), "the pieces of a word stay together"
    borrowed = view(inputs, text, Mask(keep, "data", torch.tensor([1, 0])))
    assert torch.equal(borrowed["input_ids"][0, 4:], ids[0, 4:]) and borrowed["input_ids"][0, 2] in ids[1]
    whole = view(inputs, text, Mask(None, "data", torch.tensor([1, 0])))
    assert torch.equal(whole["input_ids"], ids.flip(0)) and whole["word_ids"].tolist() == word_numbers(numbers).flip(0).tolist()
    two = Views(inputs, [text], {"full": {}, "less": {"text": Mask(keep, "delete")}}).inputs
    assert two["word_ids"].shape == (4, 8)
    with pytest.raises(InputError, match=r"special_mask=\) is \(2, 3\), expected the shape of the ids"):
        text.features({**inputs, "prompt": prompt[:, :3]})
    with pytest.raises(InputError, match=r"\(words=\) is missing"):
        text.features({key: value for key, value in inputs.items() if key != "word_ids"})
    with pytest.raises(InputError, match="expected whole numbers of words"):
        text.features({**inputs, "word_ids": torch.rand(2, 8)})


def test_word_numbers_come_as_tokenizers_give_them():
    class Encoding(dict):
        is_fast = True

        def word_ids(self, i):
            return self["numbers"][i]

    numbers = [[None, 0, 0, 1], [None, 0, 1, None]]
    as_tensor = [[-1, 0, 0, 1], [-1, 0, 1, -1]]
    assert word_numbers(Encoding(input_ids=[1, 2], numbers=numbers)).tolist() == as_tensor
    assert word_numbers(numbers).tolist() == word_numbers(torch.tensor(as_tensor)).tolist() == as_tensor
    for wrong in ([[0, 1], [0]], [], "words", [0, 1], 7):
        with pytest.raises(InputError, match="got word numbers as .*, expected a tokenizer's encoding or one list"):
            word_numbers(wrong)
    slow = Encoding(input_ids=[1, 2], numbers=numbers)
    slow.is_fast = False
    with pytest.raises(InputError, match="use_fast=True"):
        word_numbers(slow)


def test_ids_that_a_model_keeps_for_pictures_are_named():
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16,
                              patch_size=8, projection_dim=16)
    words = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=words, image_token_index=50,
                                                      vision_feature_layer=-1)).eval()
    ids = torch.cat([torch.ones(2, 1), torch.full((2, 4), 50), torch.randint(5, 49, (2, 3))], dim=1).long()
    inputs = {"input_ids": ids, "pixel_values": torch.rand(2, 3, 16, 16)}
    with pytest.raises(InputError, match=r"holds id 50, which the model keeps for what is no word.*pass special=\(1, 50,\)"):
        Tokens(input="input_ids", special=(1,)).settled(inputs, model)
    assert Tokens(input="input_ids", special=(1, 50)).settled(inputs, model).features(inputs).sum() == 6


def test_what_is_no_tensor_is_named():
    text = Tokens(input="x")
    for value, says in ((torch.ones(2, 3).numpy(), r"is ndarray.*torch.from_numpy\(inputs\['x'\]\)"), ("text", "is str"),
                        ([torch.ones(3)] * 2, r"is a list of 2 tensors.*torch.stack\(inputs\['x'\]\)"),
                        ([[1, 2]], "is list.*torch.tensor"), (None, "is NoneType.*leave")):
        with pytest.raises(InputError, match=f"reads input 'x', which {says}"):
            text.value({"x": value})
    with pytest.raises(InputError, match=r"the inputs are \['y'\]"):
        text.value({"y": torch.ones(2, 3)})


def test_lists_are_cut_as_tensors_are_and_what_is_common_is_handed_on():
    ids = torch.tensor([[5, 6, 0], [7, 8, 9], [5, 0, 0]])
    classes, names = torch.rand(3, 4), ["a", "b", "c"]
    inputs = {"tokens": ids, "classes": classes, "names": names, "sizes": (3, 3, 3), "flag": True}
    part = rows_of(inputs, torch.tensor([2, 0]), 3, common=("classes",))
    assert part["names"] == ["c", "a"] and part["classes"] is classes and part["sizes"] == (3, 3, 3)
    assert torch.equal(rows_of(inputs, torch.tensor([2, 0]), 3)["classes"], classes[[2, 0]])
    views = Views(inputs, [Tokens()], {"full": {}, "less": {"text": Mask(torch.tensor([True, False, True]), "mask")}},
                  common=["classes"])
    laid_out = views.batch(torch.tensor([2, 1]))
    assert laid_out["names"] == ["c", "b", "c", "b"] and laid_out["classes"] is classes and len(laid_out["tokens"]) == 4
    mask = Mask(torch.tensor([True, False, True]), "data", torch.tensor([1, 2, 0]))
    borrowed = Views(inputs, [Tokens()], {"view": {"text": mask}}, common="classes").inputs
    assert borrowed["tokens"].tolist() == [[5, 8, 0], [7, 5, 9], [5, 0, 0]]


def test_a_picture_has_at_least_a_pixel_a_cell():
    assert ImageCells(grid=(2, 8)).features({"images": torch.rand(1, 1, 4, 8)}).shape == (1, 16)
    with pytest.raises(InputError, match="4 x 6 pixels, expected at least 2 x 8"):
        ImageCells(grid=(2, 8)).features({"images": torch.rand(1, 1, 4, 6)})
    with pytest.raises(InputError, match=r"expected four axes.*use Video\('image', 'images'\)"):
        ImageCells().features({"images": torch.rand(2, 4, 3, 8, 8)})
    with pytest.raises(InputError, match=r"image\[None\]"):
        ImageCells().features({"images": torch.rand(3, 8, 8)})
