import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.gradients.attention import word_by_patch
from crossexplain.gradients.capture import capture
from crossexplain.gradients.maps import attribute
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.preflight import preflight
from crossexplain.gradients.rounds import rounds
from crossexplain.models import bert, checkpoints, clip
from crossexplain.models.clip import Clip, Contrast, sigmoid_loss
from crossexplain.models.towers import ClipTextTower, EncoderTower, MapPooling, clip_states, pool, threshold
from crossexplain.models.training import TrainingError, fit
from crossexplain.models.weights import WeightsError
from support import tiny_clip

WORDS, LENGTH, END = 12, 10, 3
MADE = {"vit": lambda seed=0: clip.small_vit(WORDS, LENGTH, side=24, patch=12, width=16, layers=3, seed=seed),
        "cnn": lambda seed=0: clip.small_cnn(WORDS, LENGTH, seed=seed)}


@pytest.fixture(params=MADE)
def model(request):
    return MADE[request.param]().eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {"images": torch.rand(3, 3, 24, 24),
            "tokens": torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 8, 3, 0, 0, 0, 0], [2, 9, 10, 11, 4, 5, 3]])}


def test_pairs_are_the_diagonal_of_every_picture_with_every_text(model, batch):
    every = model.similarity(**batch)
    assert every.shape == (3, 3) and torch.allclose(every.diagonal(), model(**batch), atol=1e-5)
    pictures, texts = model.encode_images(batch["images"]), model.encode_texts(batch["tokens"])
    assert torch.allclose(pictures.norm(dim=1), torch.ones(3)) and torch.allclose(texts.norm(dim=1), torch.ones(3))
    assert torch.allclose(model.match(model.see(batch["images"]), model.read(batch["tokens"])), model(**batch))
    assert torch.allclose(every, model.log_scale.exp() * pictures @ texts.T + model.bias, atol=1e-5)


def test_examples_of_a_batch_do_not_touch_each_other(model, batch):
    alone = torch.cat([model(**{name: values[i : i + 1] for name, values in batch.items()}) for i in range(3)])
    assert torch.allclose(alone, model(**batch), atol=1e-5)


def test_padding_changes_nothing_with_and_without_a_mask(model, batch):
    tokens = batch["tokens"][:1]
    said = model.encode_texts(tokens)
    assert torch.allclose(said, model.encode_texts(tokens[:, :5]), atol=1e-6)
    assert torch.allclose(said, model.encode_texts(tokens, (tokens != 0).long()), atol=1e-6)


def test_what_stands_behind_the_end_is_not_read(model, batch):
    tokens = batch["tokens"][:1].clone()
    said = model.encode_texts(tokens)
    tokens[0, 5:] = torch.tensor([9, END])
    assert torch.allclose(said, model.encode_texts(tokens), atol=1e-6)


def test_a_hidden_word_is_not_read_by_mask_or_as_padding(model, batch):
    tokens = batch["tokens"][2:].clone()
    hidden = torch.ones_like(tokens)
    hidden[0, 2] = 0
    said = model.encode_texts(tokens, hidden)
    assert not torch.allclose(said, model.encode_texts(tokens), atol=1e-4)
    tokens[0, 2] = 8
    assert torch.allclose(said, model.encode_texts(tokens, hidden), atol=1e-6)  # whatever stands there
    tokens[0, 2] = 0
    assert torch.allclose(said, model.encode_texts(tokens), atol=1e-6)


def test_the_text_tower_is_causal_and_every_word_reaches_the_end(model, batch):
    encoder = model.clip.text_model if isinstance(model, Clip) else model.text.encoder
    states, real = clip_states(encoder, batch["tokens"], pad=0)
    assert real.sum(dim=1).tolist() == [5, 3, 7]
    changed = batch["tokens"].clone()
    changed[2, 3] = 5
    after, _ = clip_states(encoder, changed, pad=0)
    moved = (after - states)[2].abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [False] * 3 + [True] * 4


def test_both_layers_have_a_living_gradient_everywhere(model, batch):
    taken = capture(model, batch, [model.image_layer, model.text_layer])
    seen, said = taken.gradients[model.image_layer], taken.gradients[model.text_layer]
    seen = seen if seen.ndim == 3 else seen.flatten(2).transpose(1, 2)
    assert (seen.norm(dim=2) > 0).all()
    assert ((said.norm(dim=2) > 0) == torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1] * 7])).all()


def test_a_gradient_behind_the_last_block_of_the_vit_is_zero_at_the_patches(batch):
    model = MADE["vit"]().eval()
    taken = capture(model, batch, [model.blocks[-1]])
    at = taken.gradients[model.blocks[-1]].norm(dim=2)
    assert (at[:, 0] > 0).all() and (at[:, 1:] == 0).all()  # why image_layer is what the last block reads


def test_what_was_seen_before_can_be_looked_at(model, batch):
    maps = model.image_map(batch["images"])
    assert torch.allclose(model.pool_map(maps), model.see(batch["images"]), atol=1e-5)
    if isinstance(model, Clip):
        assert maps.shape == (3, 5, 16)


def test_the_attention_of_the_vit_can_be_read(batch):
    model = MADE["vit"]().eval()
    taken = {}
    for name in (model.attention_layers[0], model.text_attention_layers[-1]):
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: taken.update({name: out[1]}))
    model(**batch)
    seen, said = taken.values()
    assert seen.shape == (3, 4, 5, 5) and said.shape == (3, 4, 7, 7) and model.grid == 2
    assert torch.allclose(said[0, 0].triu(1), torch.zeros(7, 7)) and torch.allclose(said[0, 0, 4].sum(), torch.tensor(1.0))


def test_initial_weights_come_from_the_seed_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for make in MADE.values():
        one, same, other = (make(seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("change", "message"), [
    ({"images": torch.rand(3, 1, 24, 24)}, "images have 1 channel"),
    ({"images": torch.zeros(3, 3, 24, 24, dtype=torch.uint8)}, "uint8"),
    ({"images": torch.rand(2, 3, 24, 24)}, "2 images and 3 texts"),
    ({"tokens": torch.tensor([[2, 5, 6]] * 3)}, "no attended end-of-text token"),
    ({"tokens": torch.tensor([[2, 5, 99]] * 3)}, "the model knows words 0 to 11"),
    ({"tokens": torch.rand(3, 4)}, "expected int64"),
    ({"tokens": torch.full((3, 11), 3)}, "at most 10"),
    ({"attention_mask": torch.ones(3, 4)}, "attention mask has shape"),
    ({"attention_mask": torch.zeros(3, 7)}, "no attended end-of-text"),
])
def test_bad_input_is_told(model, batch, change, message):
    with pytest.raises(ValueError, match=message):
        model(**batch | change)


def test_the_vit_reads_one_size_only(batch):
    with pytest.raises(ValueError, match="32 x 32 pixels, the model takes 24 x 24"):
        MADE["vit"]()(torch.rand(3, 3, 32, 32), batch["tokens"])
    with pytest.raises(ValueError, match="patches have to cover"):
        clip.small_vit(WORDS, LENGTH, side=25)


def test_the_loss_is_smallest_where_the_truth_is():
    true = torch.tensor([[1, 0, 1], [0, 1, 0]])
    logits = 10.0 * (2 * true - 1)
    assert sigmoid_loss(logits, true) < 1e-3 < sigmoid_loss(-logits, true)
    assert torch.allclose(sigmoid_loss(torch.zeros(2, 3), true), 3 * torch.tensor(2.0).log())


class FourPairs:
    """Four pictures of one colour each, seen by the frozen part of a model before, and four words."""

    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    images = colours[:, :, None, None].expand(-1, -1, 24, 24)

    def __init__(self, model):
        with torch.no_grad():
            for _ in range(30):
                model.train().image_map(self.images)  # batch statistics like after training
            self.maps = model.eval().image_map(self.images)

    def __len__(self):
        return 4

    def batch(self, indices):
        words = 5 + indices
        tokens = torch.stack([torch.full_like(words, 2), words, torch.full_like(words, END)], dim=1)
        return {"maps": self.maps[indices], "tokens": tokens}, torch.eye(len(indices))


@pytest.mark.parametrize("name", MADE)
def test_contrast_teaches_it_pairs(name):
    model = MADE[name]()
    data = FourPairs(model)
    history = fit(Contrast(model), data, None, epochs=100, lr=3e-3, seed=0, loss=sigmoid_loss, progress=False, device="cpu")
    assert history.train_loss[-1] < history.train_loss[0] and not model.training
    inputs, _ = data.batch(torch.arange(4))
    every = Contrast(model).train()(**inputs)
    assert (every.argmax(dim=1) == torch.arange(4)).all() and Contrast(model.eval())(**inputs).shape == (4,)
    with pytest.raises(TrainingError, match="no parameter"):
        fit(Contrast(model.requires_grad_(False)), data, None, epochs=1, lr=1e-3, seed=0, progress=False)


def test_setting_the_threshold_puts_yes_above_zero(model, batch):
    tokens = batch["tokens"].repeat_interleave(2, dim=0)
    images = torch.rand(6, 3, 24, 24)
    logits = model(images, tokens)
    labels = (logits > logits.median()).long()
    found = model.set_threshold(logits, labels)
    again = model(images, tokens)
    assert ((again > 0).long() == labels).all() and again.argsort().equal(logits.argsort())
    assert torch.allclose(model.log_scale.exp() * found + model.bias, torch.tensor(0.0), atol=1e-4)


def test_the_threshold_makes_the_fewest_mistakes():
    scores = torch.tensor([0.1, 0.3, 0.2, 0.8, 0.6, 0.25])
    assert threshold(scores, torch.tensor([0, 0, 0, 1, 1, 1])) == pytest.approx(0.45)  # one mistake, in the wider gap
    assert threshold(torch.tensor([0.5, 0.5, 0.7]), torch.tensor([0, 1, 1])) in (0.5, pytest.approx(0.6))
    for bad in (torch.ones(6), torch.zeros(6), torch.ones(5)):
        with pytest.raises(ValueError, match="labels of both kinds"):
            threshold(scores, bad)
    with pytest.raises(ValueError, match="finite"):
        threshold(scores * torch.nan, torch.tensor([0, 0, 0, 1, 1, 1]))


def test_a_checkpoint_holds_the_whole_model(model, batch, tmp_path):
    card = {"data": "none", "seed": 0, "command": "none", "accuracy": 0.5}
    model.set_threshold(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    checkpoints.save(model, "tiny", card, tmp_path)
    other = MADE["vit" if isinstance(model, Clip) else "cnn"](seed=7)
    checkpoints.load("tiny", other, tmp_path)
    assert torch.equal(other(**batch), model(**batch))


def test_a_frozen_tower_stays_as_it_is():
    model = MADE["cnn"]()
    model.image.requires_grad_(False)
    model.train()
    assert not model.image.training and model.look.training and model.text.training


def test_every_way_to_pool_and_no_other():
    states, real = torch.arange(6.0).reshape(1, 3, 2), torch.tensor([[True, True, False]])
    assert pool(states, real, "last").tolist() == [[2.0, 3.0]] and pool(states, real, "mean").tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="got pooling 'middle'"):
        pool(states, real, "middle")


def test_a_look_is_the_same_in_training_and_when_it_is_explained():
    torch.manual_seed(0)
    look, maps = MapPooling(3, 8), torch.randn(4, 3, 5, 6, requires_grad=True)
    weights = torch.randn(4, 8)
    found = []
    for mode in (True, False):
        seen = look.train(mode)(maps)
        found.append((seen, torch.autograd.grad((seen * weights).sum(), maps)[0]))
    (seen, slope), (again, same) = found
    assert torch.equal(seen, again) and torch.allclose(slope, same, atol=1e-7) and slope.abs().amin() > 0



def test_a_look_tells_left_from_right():
    torch.manual_seed(0)
    look, maps = MapPooling(2, 8).eval(), torch.zeros(2, 2, 4, 4)
    maps[0, 0, 1, 0] = maps[1, 0, 1, 3] = 1
    left, right = look(maps)
    assert not torch.allclose(left, right, atol=1e-3)


# The published format.

def numbers(*texts):
    """Return the numbers of pieces that are written with blanks between them, "[" for the start and "]" for the end."""
    names = {"[": tiny_clip.START, "]": tiny_clip.STOP} | {f"{word}_": f"{word}</w>" for word in ("a", "dog", "t", "runs")}
    return [[tiny_clip.PIECES.index(names.get(piece, piece)) for piece in text.split()] for text in texts]


@pytest.fixture(scope="module", params=["model.safetensors", "pytorch_model.bin"])
def published(request, tmp_path_factory):
    """A tiny CLIP of random weights in the format and with the quirks of the published one."""
    folder = tmp_path_factory.mktemp("ein Ordner") / "tiny"
    return folder, tiny_clip.write(folder, request.param)


def test_the_published_format_gives_what_the_library_gives(published):
    folder, theirs = published
    model, tokenizer = clip.load(folder), bert.load_tokenizer(folder)
    encoded = bert.encode(tokenizer, ["a dog", "a cat runs"])
    assert encoded.inputs["input_ids"].tolist() == numbers("[ a_ dog_ ] ] ]", "[ a_ ca t_ runs_ ]")  # padded with end-of-text
    assert encoded.special.tolist() == [[True, False, False, True, True, True], [True] + [False] * 4 + [True]]
    images = torch.rand(2, 3, 16, 16)
    pixels = (images - torch.tensor(clip.MEAN)[:, None, None]) / torch.tensor(clip.STD)[:, None, None]
    with torch.no_grad():
        wanted = theirs(pixel_values=pixels, **encoded.inputs).logits_per_image
        ids, mask = encoded.inputs["input_ids"], encoded.inputs["attention_mask"]
        assert torch.allclose(model.similarity(images, ids, mask), wanted, atol=1e-5)
        assert torch.allclose(model.similarity(images, ids), wanted, atol=1e-5)  # padding is known without a mask
        assert torch.allclose(model(images, ids, mask), wanted.diagonal(), atol=1e-5)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert (model.size, model.grid, model.image_layer) == (16, 2, "clip.vision_model.encoder.layers.1.layer_norm1")


def test_the_published_format_is_centred_on_pairs_of_ones_own(published):
    model = clip.load(published[0])
    ids = torch.tensor(numbers("[ a_ dog_ ]", "[ ca t_ ]", "[ runs_ dog_ ]", "[ runs_ a_ ]"))
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        before = model(images, ids)
        labels = (before > before.median()).long()
        model.set_threshold(before, labels)
        assert ((model(images, ids) > 0).long() == labels).all()


def test_the_published_format_is_explained_by_the_same_calls(published):
    model, tokenizer = clip.load(published[0]), bert.load_tokenizer(published[0])
    texts = ["a dog", "a cat runs", "a cat", "dog runs"]
    read = bert.encode(tokenizer, texts).inputs
    torch.manual_seed(1)
    inputs = {"images": torch.rand(4, 3, 16, 16), "tokens": read["input_ids"], "attention_mask": read["attention_mask"]}
    words = Tokens(layer=model.text_layer, mask_id=None, pad_id=tokenizer.pad_token_id, attention="attention_mask",
                   special=(tokenizer.bos_token_id, tokenizer.eos_token_id))
    assert words.features(inputs).sum(dim=1).tolist() == [2, 4, 3, 2]
    sides = [ImageCells(layer=model.image_layer, grid=(2, 2)), words]
    found = preflight(model, inputs, sides, labels=torch.tensor([0, 1, 0, 1]))
    assert "positions" not in str(found), "the embeddings of all words are used"
    record = rounds(model, inputs, sides, baselines=[{"image": "mean", "text": "pad"}, "data"], progress=False)
    with torch.no_grad():
        assert torch.allclose(record.passes["data", "full"].logits[:, 0], model(**inputs), atol=1e-4)
    for method in ("grad-cam", "gradient x input", "attention-rollout", "attention-relevance"):
        layer = "input:images" if method.startswith("attention") else model.image_layer
        attention = model.attention_layers if method.startswith("attention") else ()
        heat = attribute(model, inputs, layer, method, 1, "for", attention=attention)
        assert heat.shape == (4, 2, 2) and heat.isfinite().all()
    assert word_by_patch(model, inputs).shape == (4, read["input_ids"].shape[1], 2, 2)


@pytest.mark.parametrize(("caption", "tokens"), [
    ("", 0), (" \n\u3000", 0), ("dog " * 300, 302), ("\U0001f415", 6), ("\U0001f415\u200d\U0001f9ba runs", 14),
    ("\u05db\u05dc\u05d1 \u05e8\u05e5", 12), ("\u0643\u0644\u0628", 8),
], ids=["no word", "blanks", "300 words", "one emoji", "joined emoji", "Hebrew", "Arabic"])
def test_the_published_format_reads_any_caption_to_its_end_or_tells_why_not(published, caption, tokens):
    model, tokenizer = clip.load(published[0]), bert.load_tokenizer(published[0])
    texts = ["a dog", caption]
    if not tokens:
        with pytest.raises(InputError, match="sentence 1 is .*leave it out of the batch"):
            bert.encode(tokenizer, texts, truncate=True)
        return
    if tokens > 8:
        with pytest.raises(InputError, match=f"sentence 1 has {tokens} tokens, at most 8 can be read.*truncate=True"):
            bert.encode(tokenizer, texts)
    read = bert.encode(tokenizer, texts, truncate=True).inputs
    ids, length = read["input_ids"], int(read["attention_mask"][1].sum())
    assert length == min(tokens, 8) and (ids[1] == tiny_clip.PIECES.index(tiny_clip.STOP)).int().argmax() == length - 1
    _, real = clip_states(model.clip.text_model, ids, read["attention_mask"])
    assert real[1].tolist() == [i < length for i in range(ids.shape[1])]
    assert model(torch.rand(2, 3, 16, 16), ids, read["attention_mask"]).isfinite().all()


def test_broken_folders_are_told(published, tmp_path):
    with pytest.raises(WeightsError, match=r"lacks config\.json, preprocessor_config\.json"):
        clip.load(tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((published[0] / name).read_bytes())
    with pytest.raises(WeightsError, match="cannot be loaded"):
        clip.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        clip.load(tmp_path)


def test_towers_of_others_fit_in():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    encoder = BertModel(BertConfig(vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                   intermediate_size=8))
    model = clip.ClipCNN(MADE["cnn"]().image, EncoderTower(encoder), pooling="mean", width=16).eval()
    assert model.text_layer == "text.encoder.embeddings"
    assert model(torch.rand(2, 3, 24, 24), torch.tensor([[5, 6, 0], [7, 0, 0]])).shape == (2,)
    assert ClipTextTower(MADE["vit"]().clip.text_model, pad=0).width == 128
