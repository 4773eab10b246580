"""What an adapter chooses, says, takes from the caller and refuses. Whether it is right, the tests of the families say."""

import pytest
import torch
import torchvision
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from crossexplain import Called, Game, InputError, Vectors, adapt, explain, rounds

SMALL = dict(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
             max_position_embeddings=40, pad_token_id=0)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "dog", "runs", "##ning", "what", "is", "it", "?", "yes",
         "no", "USER", "ASSISTANT", ":", "<image>"]


def tokenizer(**more) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of a few words and pieces, with [CLS] and [SEP] round each text."""
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<image>"])
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                                sep_token="[SEP]", mask_token="[MASK]", **more)


def bert(**more) -> nn.Module:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL | {"num_labels": 3} | more)).eval()


def clip(**more) -> nn.Module:
    torch.manual_seed(0)
    vision = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8)
    text = SMALL | {"bos_token_id": 2, "eos_token_id": 3}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, **more)
    return transformers.CLIPModel(config).eval()


def llava() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=dict(model_type="clip_vision_model", hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                           num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16),
        text_config=dict(model_type="llama", num_key_value_heads=2, **SMALL), image_token_index=19, vision_feature_layer=-1)
    return transformers.LlavaForConditionalGeneration(config).eval()


def flava() -> transformers.FlavaConfig:
    part = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=60)
    return transformers.FlavaConfig(text_config=part, image_config=part | {"image_size": 16, "patch_size": 8}, hidden_size=16,
                                    multimodal_config=part, projection_dim=16)


# What it chooses


def test_a_tokenizer_says_what_is_no_word_what_hides_one_and_how_attention_is_called():
    words = adapt(bert(), tokenizer()).modalities[0]
    assert (words.mask_id, words.pad_id, words.attention) == (4, 0, "attention_mask")
    assert set(words.special) == {1, 2, 3, 4}  # the padding is told by the attention mask, and is no word anyway
    assert words.layer == "bert.embeddings.word_embeddings"


def test_a_padding_that_ends_the_text_too_is_special():
    made = tokenizer()
    made.eos_token = "[PAD]"
    assert 0 in adapt(bert(), made).modalities[0].special


def test_of_a_dual_encoder_each_pair_is_judged_and_the_model_stays_as_it_was():
    model = clip()
    adapted = adapt(model)
    ids = torch.tensor([[2, 11, 12, 3], [2, 21, 22, 3], [2, 31, 32, 3]])
    inputs = {"input_ids": ids, "pixel_values": torch.rand(3, 3, 32, 32), "attention_mask": torch.ones_like(ids)}
    assert torch.equal(adapted.model(**inputs), model(**inputs).logits_per_image.diagonal())
    assert [modality.name for modality in adapted.modalities] == ["image", "text"]
    assert adapted.layers == {"image": "vision_model.encoder.layers.0", "text": "text_model.embeddings.token_embedding"}


def test_the_table_says_what_was_chosen_and_from_where():
    text = str(adapt(bert(), tokenizer(), mask_id=1))
    assert "BertForSequenceClassification: a classifier of texts" in text
    assert any(line.split() == ["mask_id", "1", "your", "choice"] for line in text.splitlines())
    assert any(line.split() == ["pad_id", "0", "the", "tokenizer"] for line in text.splitlines())
    assert "attn_implementation='eager'" in text  # why there is no attention relevance
    assert adapt(bert(), tokenizer())._repr_markdown_().count("\n| ") >= 8


@pytest.mark.parametrize(("how", "attention"), [("eager", True), ("sdpa", False)])
def test_attention_modules_are_named_where_they_give_their_maps(how, attention):
    adapted = adapt(bert(attn_implementation=how), tokenizer())
    expected = {"text": tuple(f"bert.encoder.layer.{i}.attention.self" for i in range(2))} if attention else {}
    assert adapted.attention == expected


def test_whole_words_are_the_features_where_that_is_asked_for():
    batch = tokenizer()(["a dog runs", "what is it"], padding=True, return_tensors="pt")
    adapted = adapt(bert(), tokenizer(), whole_words=True)
    inputs = adapted.inputs(batch)
    assert inputs["word_numbers"].tolist() == [[-1, 0, 1, 2, -1], [-1, 0, 1, 2, -1]]
    told = explain(adapted.model, inputs, adapted.modalities, "gradient norm")
    pieces = tokenizer()(["a dogrunning", "a dog"], padding=True, return_tensors="pt")
    assert told.values["text"].shape == (2, 3)
    assert adapted.inputs(pieces)["word_numbers"].shape == pieces["input_ids"].shape


# What the caller chooses


def test_every_parameter_of_a_modality_can_be_chosen():
    adapted = adapt(clip(), grid=(4, 4), image_layer="vision_model.embeddings", text_special=(7,), target=1, mask_id=9)
    image, text = adapted.modalities
    assert (image.grid, image.layer) == ((4, 4), "vision_model.embeddings")
    assert (text.special, text.mask_id, adapted.target) == ((7,), 9, 1)


def test_a_layer_for_maps_that_is_chosen_takes_its_layout_along():
    chosen = adapt(clip(), image_layer="vision_model.encoder.layers.0").modalities[0]
    assert (chosen.positions, chosen.layout) == (slice(1, None), "NTD")
    assert adapt(clip(), image_layer="vision_model.embeddings.patch_embedding").modalities[0].layout is None


@pytest.mark.parametrize(("choices", "words"), [
    ({"mask_ids": 4}, ["'mask_ids'", "did you mean 'mask_id'"]),
    ({"layer": "vision_model"}, ["image and text have", "image_layer=... or text_layer=..."]),
])
def test_a_choice_that_fits_nothing_is_refused_by_name(choices, words):
    with pytest.raises(InputError) as error:
        adapt(clip(), **choices)
    assert all(word in str(error.value) for word in words), error.value


# What it refuses


@pytest.mark.parametrize(("model", "choices", "words"), [
    (bert, {}, ["special=...", "pass the tokenizer"]),
    (lambda: bert(problem_type="multi_label_classification"), {"special": (2, 3)}, ["target=...", "number of the label"]),
    (llava, {}, ["answer=...", "against=..."]),
    (llava, {"answer": "yes"}, ["answer='yes' and no tokenizer"]),
    (llava, {"answer": 99}, ["token ids from 0 to 59"]),
    (llava, {"answer": [5, 6], "against": 7}, ["two passes", "each answer by itself"]),
    (llava, {"answer": 5, "template": "USER: <image>"}, ["what stands before the question and what stands after it"]),
    (lambda: transformers.BertModel(transformers.BertConfig(**SMALL)), {}, ["vectors and no logits", "Called("]),
    (lambda: transformers.BertForTokenClassification(transformers.BertConfig(**SMALL)), {}, ["not known yet"]),
    (lambda: transformers.FlavaModel(flava()), {}, ["FlavaForPreTraining"]),
    (lambda: nn.Linear(3, 2), {}, ["forward(input)", "adapt(model, inputs=...)"]),
    (lambda: "bert-base-uncased", {}, ["torch.nn.Module"]),
    (lambda: transformers.GPT2ForSequenceClassification(transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=1, n_head=2, pad_token_id=None)), {}, ["pad_token_id"]),
], ids=["special", "label", "answer", "answer as text", "answer out of range", "two answers", "template", "no head", "tokens",
        "flava", "own", "name", "padding"])
def test_what_is_not_known_is_refused_with_what_to_pass(model, choices, words):
    with pytest.raises(InputError) as error:
        adapt(model(), **choices)
    assert all(word in str(error.value) for word in words), error.value


def test_the_number_of_a_regression_is_judged_as_it_is():
    model = bert(problem_type="regression", num_labels=1)
    adapted = adapt(model, special=(2, 3), mask_id=4)
    ids = torch.tensor([[2, 11, 12, 3], [2, 21, 22, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    game = Game(adapted.model, inputs, adapted.modalities, target=adapted.target, progress=False)
    assert torch.allclose(game.values_of_all()[:, -1], model(**inputs).logits[:, 0].double(), atol=1e-6)


# Prompts and answers


def prompts() -> dict:
    """Return two prompts of one template, with a picture of four patches; the shorter is padded in front."""
    rows = [[16, 18, 19, 19, 19, 19, 10, 11, 12, 13, 17, 18], [16, 18, 19, 19, 19, 19, 10, 7, 13, 17, 18]]
    ids = torch.tensor([row if len(row) == 12 else [0, *row] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": torch.rand(2, 3, 16, 16)}


def test_the_words_of_the_template_stay_in_every_view():
    adapted = adapt(llava(), answer=14, against=15, template=([16, 18, 19], [17, 18]))
    inputs = adapted.inputs(prompts())
    present = adapted.modalities[1].features(inputs)
    assert present.tolist() == [[False] * 6 + [True] * 4 + [False] * 2, [False] * 7 + [True] * 3 + [False] * 2]
    game = Game(adapted.model, inputs, adapted.modalities, target=adapted.target, baselines={"image": "zero", "text": "delete"},
                players={"image": 1}, progress=False)
    empty = {"input_ids": prompts()["input_ids"][:1, [0, 1, 2, 3, 4, 5, 10, 11]], "pixel_values": torch.zeros(1, 3, 16, 16)}
    logits = llava()(**empty, attention_mask=torch.ones(1, 8, dtype=torch.long)).logits[0, -1]
    sign = 2 * int(game.target[0]) - 1
    assert torch.allclose(game.values_of_all()[0, 0], sign * (logits[14] - logits[15]).double(), atol=1e-5)


def test_a_template_that_the_prompts_do_not_follow_is_refused():
    adapted = adapt(llava(), answer=14, template=([16, 19], [17, 18]))
    with pytest.raises(InputError, match="expected the template"):
        adapted.inputs(prompts())


def test_an_answer_and_a_template_may_be_text():
    adapted = adapt(llava(), tokenizer(), answer="yes", against="no", template=("USER : <image>", "ASSISTANT :"))
    assert "'yes' against 'no'" in str(adapted)
    assert adapted.inputs(prompts())["template"].logical_not().sum(dim=1).tolist() == [4, 3]


# Models of one's own


class Own(nn.Module):
    """Reads a picture and words."""

    def __init__(self):
        super().__init__()
        self.see, self.words, self.head = nn.Conv2d(3, 4, 4, 4), nn.Embedding(20, 4), nn.Linear(8, 1)

    def forward(self, image, input_ids, attention_mask):
        seen = self.see(image).mean(dim=(2, 3))
        said = (self.words(input_ids) * attention_mask[..., None]).sum(dim=1)
        return self.head(torch.cat([seen, said], dim=1).tanh())[:, 0]


def own_inputs() -> dict:
    ids = torch.tensor([[5, 6, 7], [8, 9, 0], [11, 12, 13]])
    return {"image": torch.rand(3, 3, 8, 8), "input_ids": ids, "attention_mask": (ids != 0).long()}


def test_a_model_of_ones_own_is_known_by_the_names_and_shapes_of_its_inputs():
    inputs = own_inputs()
    adapted = adapt(Own().eval(), inputs=inputs, special=(), pad_id=0, mask_id=1)
    image, text = adapted.modalities
    assert (image.input, text.input, text.layer, text.attention) == ("image", "input_ids", "words", "attention_mask")
    assert rounds(adapted.model, inputs, adapted.modalities, target=adapted.target, progress=False).verdict().answer


def test_an_input_of_ones_own_that_is_not_recognised_is_refused_by_name():
    with pytest.raises(InputError, match="does not say what 'thing' is"):
        adapt(Called(nn.Linear(3, 2), lambda model, inputs: model(inputs["thing"])), inputs={"thing": torch.rand(4, 3)})


def test_words_that_no_one_embedding_reads_have_to_be_named():
    class Twice(Own):
        def forward(self, image, input_ids, attention_mask):
            return super().forward(image, input_ids, attention_mask) + self.words(input_ids).sum(dim=(1, 2))

    with pytest.raises(InputError, match="text_layer="):
        adapt(Twice().eval(), inputs=own_inputs(), special=(), pad_id=0)


def test_a_tower_of_transformers_in_a_model_of_ones_own_is_read_where_it_embeds():
    class Headed(nn.Module):
        def __init__(self):
            super().__init__()
            config = transformers.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
            self.encoder, self.head = transformers.T5EncoderModel(config), nn.Linear(16, 3)

        def forward(self, input_ids, attention_mask):
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return self.head((states * attention_mask[..., None]).sum(dim=1))

    torch.manual_seed(0)
    model = Headed().eval()
    ids = torch.tensor([[11, 12, 13], [21, 22, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    adapted = adapt(model, inputs=inputs, special=(1,), pad_id=0)
    told = explain(adapted.model, inputs, adapted.modalities, "gradient norm", target=0).values["text"]
    kept = []
    model.encoder.get_submodule("encoder.embed_tokens").register_forward_hook(lambda m, a, output: kept.append(output))
    logits = model(**inputs)
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), kept)
    assert torch.allclose(told.nan_to_num(), slope.norm(dim=2) * inputs["attention_mask"], atol=1e-5)


def test_layers_with_the_names_of_a_wrapper_stay_the_models():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.output, self.drop, self.common, self.call = nn.Linear(4, 1), nn.Dropout(), nn.Identity(), nn.Tanh()

        def forward(self, seen, heard):
            return self.output(self.drop(self.call(self.common(seen.sum(dim=1) * heard.sum(dim=1)))))[:, 0]

    torch.manual_seed(0)
    model = Named().eval()
    inputs = {"seen": torch.rand(3, 2, 4), "heard": torch.rand(3, 2, 4)}
    expected = model(**inputs)
    for asked in (model, Called(model, output=lambda output: output)):
        parts = [Vectors("image", "seen"), Vectors("sound", "heard")]
        game = Game(asked, inputs, parts, target=1, progress=False)
        assert torch.allclose(game.values_of_all()[:, -1], expected.double(), atol=1e-6)
    assert isinstance(model.output, nn.Linear) and isinstance(model.drop, nn.Dropout)


def test_a_tensor_alone_is_the_input_of_a_model_of_one_modality():
    model = torchvision.models.squeezenet1_1().eval()
    adapted, images = adapt(model), torch.rand(2, 3, 64, 64)
    assert torch.equal(adapted.inputs(images)["x"], images)
    with pytest.raises(InputError, match="got a batch of type list, expected what the processor gives, a mapping with 'x'"):
        adapted.inputs([images])


class OpenClip(nn.Module):
    """A dual encoder in the layout of open_clip: a text is read at its largest id, or where it is told."""

    def __init__(self, text_pool_type="argmax"):
        super().__init__()
        torch.manual_seed(0)
        self.visual, self.token_embedding, self.text_pool_type = nn.Conv2d(3, 8, 8, 8), nn.Embedding(60, 8), text_pool_type
        self.logit_scale = nn.Parameter(torch.ones(()))

    def encode_image(self, image):
        return self.visual(image).mean(dim=(2, 3))

    def encode_text(self, text):
        return self.token_embedding(text)[torch.arange(len(text)), text.argmax(dim=1)] + self.token_embedding(text).mean(dim=1)


class ItsTokenizer:
    """As open_clip's own: it knows where texts start and end, and no padding by name."""

    all_special_ids, sot_token_id, eot_token_id = (58, 59), 58, 59


def test_the_ids_of_open_clip_are_known_where_its_own_tokenizer_makes_them_and_else_asked_for():
    ids = torch.tensor([[58, 5, 6, 7, 59], [58, 8, 9, 59, 0]])
    model, cosine = OpenClip().eval(), nn.CosineSimilarity()
    for own in (None, ItsTokenizer()):
        adapted = adapt(model, own)
        text = adapted.modalities[1]
        assert text.special == (58, 59) and text.pad_id == 0 and text.features({"text": ids}).sum(dim=1).tolist() == [3, 2]
    inputs = adapted.inputs({"image": torch.rand(2, 3, 16, 16), "text": ids})
    found = explain(adapted.model, inputs, adapted.modalities, "feature ablation", target=0, baselines={"text": "delete"})
    with torch.no_grad():
        seen = model.encode_image(inputs["image"][:1])
        whole, less = (cosine(seen, model.encode_text(torch.tensor([row]))) for row in ([58, 5, 6, 7, 59], [58, 6, 7, 59, 0]))
    assert torch.allclose(found.values["text"][0, 1], -(model.logit_scale.exp() * (whole - less))[0].float(), atol=1e-5)
    with pytest.raises(InputError, match=r"special=.*; pad_id="):
        adapt(OpenClip("last").eval())
    assert adapt(OpenClip("last").eval(), special=(1,), pad_id=1).modalities[1].special == (1,)


def test_coca_of_open_clip_is_adapted():
    open_clip = pytest.importorskip("open_clip")
    from open_clip.coca_model import CoCa, MultimodalCfg

    text = open_clip.model.CLIPTextCfg(context_length=8, vocab_size=60, width=16, heads=2, layers=1, embed_cls=True)
    vision = open_clip.model.CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=8, image_size=32, attentional_pool=True,
                                           attn_pooler_heads=2)
    model = CoCa(16, MultimodalCfg(context_length=8, vocab_size=60, width=16, heads=2, layers=1), text, vision).eval()
    assert adapt(model).modalities[1].special == (58, 59)
