import json

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from crossexplain.checks import InputError
from crossexplain.data import store
from crossexplain.models import bert
from crossexplain.models.training import TensorBatches, evaluate, fit
from crossexplain.models.weights import WeightsError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "great", "idea", "but", "it", "crash", "##es", ",", "."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny encoder of random weights in the hub's format."""
    path = tmp_path_factory.mktemp("ein Ordner") / "tiny"
    rules = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    rules.normalizer, rules.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    rules.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=rules, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        model_max_length=16, model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
                        intermediate_size=16, max_position_embeddings=16)
    BertModel(config).save_pretrained(path)
    return path


def test_a_folder_gives_a_model_whose_attention_can_be_read(folder):
    model = bert.load(folder, 3)
    assert not model.training and [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert model.attention_layers == [f"encoder.encoder.layer.{i}.attention.self" for i in range(2)]
    assert model.blocks == ["encoder.encoder.layer.0", "encoder.encoder.layer.1"]
    assert model.encoder.config._attn_implementation == "eager" and model.encoder.pooler is None
    encoded = bert.encode(bert.load_tokenizer(folder), ["great idea", "it crashes, but it"])
    assert model(**encoded.inputs).shape == (2, 3)


def test_the_head_depends_on_the_seed_and_the_callers_random_state_does_not(folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (bert.load(folder, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, same.head.weight) and not torch.equal(first.head.weight, other.head.weight)


def test_padding_changes_nothing(folder):
    model, tokenizer = bert.load(folder, 2), bert.load_tokenizer(folder)
    alone = model(**bert.encode(tokenizer, ["great idea"]).inputs)
    beside = model(**bert.encode(tokenizer, ["great idea", "it crashes, but it crashes."]).inputs)
    assert torch.allclose(alone[0], beside[0], atol=1e-6)


def test_tuning_starts_from_the_encoder_and_merging_keeps_what_was_learned(folder):
    model, tokenizer = bert.load(folder, 2), bert.load_tokenizer(folder)
    inputs = bert.encode(tokenizer, ["great idea", "it crashes", "but it", "idea ."] * 4).inputs
    labels = torch.tensor([1, 0, 0, 1] * 4)
    before = model(**inputs)
    learned = model.tune(rank=2)
    assert torch.allclose(model(**inputs), before)
    data = TensorBatches(inputs, labels)
    fit(model, data, None, epochs=30, lr=2e-2, seed=0, batch_size=8, loss=torch.nn.functional.cross_entropy, progress=False)
    assert evaluate(model, data) == 1.0
    after = model(**inputs)
    again = bert.load(folder, 2)
    again.tune(2, seed=9).load_state_dict(learned.state_dict())
    assert torch.allclose(again.eval()(**inputs), after, atol=1e-6)
    names = set(dict(bert.load(folder, 2).named_parameters()))
    assert torch.allclose(model.merge()(**inputs), after, atol=1e-6) and set(dict(model.named_parameters())) == names
    assert not any(p.requires_grad for p in model.parameters())


def test_the_head_alone_can_be_tuned(folder):
    model = bert.load(folder, 2)
    assert set(model.tune(0)) == {"head"}
    with pytest.raises(InputError, match="got rank -1"):
        model.tune(-1)


def test_sentences_become_tokens_words_and_offsets(folder):
    encoded = bert.encode(bert.load_tokenizer(folder), ["Great idea, but it crashes.", "it 🎉"])
    assert encoded.tokens[0] == ["[CLS]", "great", "idea", ",", "but", "it", "crash", "##es", ".", "[SEP]"]
    assert encoded.tokens[1] == ["[CLS]", "it", "[UNK]", "[SEP]"]  # an emoji is an unknown word, and no special token
    assert encoded.special.tolist()[1] == [True, False, False, True] + [True] * 6
    assert encoded.words.tolist()[0] == [-1, 0, 1, 2, 3, 4, 5, 5, 6, -1]
    assert encoded.offsets[0, 6].tolist() == [19, 24] and set(encoded.inputs) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "0 sentences"),
        (["it", "  "], "sentence 1 is '  ', expected at least one word"),
        (["it", None], "sentence 1 is None"),
        ("it", r"expected a list of sentences.*\[text\]"),
        (["it", "\u200b"], r"sentence 1 is '\\u200b', of which the tokenizer leaves no word"),
        (["it", "a\x07", "\x07"], "sentence 2 .*no word"),
        (["it", "it \ud83c"], "sentence 1, .*half a character.*encoding"),
    ],
)
def test_what_is_no_sentence_is_refused_with_advice(folder, texts, says):
    tokenizer = bert.load_tokenizer(folder)
    with pytest.raises(InputError, match=says):
        bert.encode(tokenizer, texts)
    with pytest.raises(InputError, match=says):
        bert.TextBatches(tokenizer, texts, [0] * len(texts))


def test_a_sentence_that_is_too_long_is_refused_with_advice(folder):
    with pytest.raises(InputError, match="sentence 1 has 22 tokens, at most 16.*truncate=True"):
        bert.encode(bert.load_tokenizer(folder), ["it", "it " * 20])


@pytest.mark.parametrize("max_length", [0, 1, 2, -1])
def test_a_length_without_room_for_a_word_is_refused(folder, max_length):
    tokenizer = bert.load_tokenizer(folder)
    for call in (lambda: bert.encode(tokenizer, ["it"], max_length, truncate=True),
                 lambda: bert.TextBatches(tokenizer, ["it"], [0], max_length)):
        with pytest.raises(InputError, match=f"got max_length {max_length}, expected at least 3"):
            call()
    assert bert.encode(tokenizer, ["it crashes"], 3, truncate=True).tokens == [["[CLS]", "it", "[SEP]"]]


def test_a_long_sentence_may_be_cut_off(folder):
    encoded = bert.encode(bert.load_tokenizer(folder), ["it " * 20], truncate=True)
    assert encoded.inputs["input_ids"].shape == (1, 16) and encoded.tokens[0][-1] == "[SEP]"


def test_batches_are_padded_to_their_own_longest_sentence(folder):
    batches = bert.TextBatches(bert.load_tokenizer(folder), ["it", "it crashes", "great idea , but it"], [0, 1, 1])
    inputs, labels = batches.batch(torch.tensor([1, 0]))
    assert inputs["input_ids"].shape == (2, 5) and labels.tolist() == [1, 0] and len(batches) == 3
    assert inputs["attention_mask"].tolist()[1] == [1, 1, 1, 0, 0]
    with pytest.raises(InputError, match="2 sentences and 1 labels"):
        bert.TextBatches(bert.load_tokenizer(folder), ["a", "b"], [0])


def test_a_missing_or_broken_folder_is_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match="lacks config.json, model.safetensors"):
        bert.load(tmp_path, 2)
    with pytest.raises(WeightsError, match="lacks tokenizer.json"):
        bert.load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:200])
    with pytest.raises(WeightsError, match="cannot be loaded .*fetch it again"):
        bert.load(tmp_path, 2)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(WeightsError, match="tokenizer in .* cannot be loaded"):
        bert.load_tokenizer(tmp_path)


def test_unusable_settings_are_refused(folder):
    with pytest.raises(InputError, match="1 class"):
        bert.load(folder, 1)


def test_the_real_minilm_is_read_from_its_package():
    path = store.find("minilm").path
    model = bert.load(path, 3)
    assert len(model.blocks) == len(model.attention_layers) == 6
    encoded = bert.encode(bert.load_tokenizer(path), ["The widget is unbelievably great 🎉!"])
    assert model(**encoded.inputs).shape == (1, 3) and encoded.tokens[0][0] == "[CLS]"
