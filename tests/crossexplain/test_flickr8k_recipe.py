"""Heads on what frozen towers say of photographs and captions, on a small copy of random pictures; the real one if there."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizerFast

from benchmarks.studies import openai_clip, retrieval
from benchmarks.studies.agreement import agreement
from crossexplain.data import flickr8k, photos, store
from crossexplain.gradients.capture import capture
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import FULL
from crossexplain.models import checkpoints, vgg
from crossexplain.models.clip import Contrast, softmax_loss
from crossexplain.models.efficientnet import EfficientNetLite0
from crossexplain.models.towers import FrozenMapPooling, GivenMaps, GivenStates
from crossexplain.models.two_towers import with_towers
from crossexplain.models.weights import WeightsError
from crossexplain.recipes import encodings, load_or_train
from crossexplain.recipes import flickr8k as recipe
from crossexplain_book import readers
from support import tiny_clip

needs_data = pytest.mark.skipif(not os.environ.get("CROSSEXPLAIN_DATA"), reason="CROSSEXPLAIN_DATA is not set")
WORDS = "a dog cat child boat tree ball snow river street horse beside the runs".split()
SETTINGS = {"width": 16, "hidden": 8, "contrast": (2, 1e-3)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Small stand-ins, in the published formats, for the weights that the towers are made of."""
    where = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(vgg.ImageNetClassifier("squeezenet1_0").network.state_dict(), where / "squeezenet1_0.safetensors")
    save_file(EfficientNetLite0.seeded(0).state_dict(), where / f"{vgg.LITE}.safetensors")
    for name, width in (("minilm", 24), ("bert-base-uncased", 32)):
        folder = where / name
        folder.mkdir()
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
        (folder / "vocab.txt").write_text("\n".join(vocabulary))
        BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
        BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
                             intermediate_size=16, max_position_embeddings=64)).save_pretrained(folder)
    tiny_clip.write(where / openai_clip.NAME)
    return where


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A small copy of Flickr8k: 24 pictures of noise, five captions each."""
    where, rng = tmp_path_factory.mktemp("copy"), np.random.default_rng(0)
    (where / "Images").mkdir()
    names = [f"{i}.jpg" for i in range(24)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize((240, 230)).save(where / "Images" / name)
    lines = [f"{name}#{n}\ta {' '.join(rng.choice(WORDS[1:], 2 + n))} ." for name in names for n in range(5)]
    (where / flickr8k.TOKENS).write_text("\n".join(lines))
    for split, some in {"train": names[:14], "validation": names[14:18], "test": names[18:23]}.items():
        (where / flickr8k.LISTS[split]).write_text("\n".join(some))
    return flickr8k.load(where)


@pytest.fixture(autouse=True)
def here(weights, tmp_path, monkeypatch, request):
    if "real" in request.node.name:
        return
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setattr(store, "find", finder(weights))


def finder(weights):
    return lambda name: store.Found(name, next(path for path in weights.iterdir() if path.stem == name), "made for this test")


@pytest.fixture(scope="module")
def encoded(copy, weights, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(store, "find", finder(weights))
        return encodings.encode(copy, progress=False)


@pytest.mark.parametrize("name", recipe.NAMES)
def test_the_whole_way_from_photographs_to_a_head_and_back_to_pixels(name, copy, encoded):
    trained = load_or_train(f"flickr8k_{name}", encoded=encoded, progress=False, **SETTINGS)
    course = trained.courses["contrast"]
    assert len(course["loss"]) == len(course["validation"]) == 2 and trained.card["seed"] == 0
    assert ("fusing" in trained.histories) == (name == "fusion")
    assert trained.seconds >= trained.histories["contrast"].seconds > 0
    assert not any(parameter.requires_grad for parameter in trained.part.parameters()) and not trained.part.training
    pairs = copy.pairs("test", 0)
    outputs = recipe.logits(trained.part, encoded, pairs)
    assert outputs.shape == (50,) and torch.isfinite(outputs).all() and outputs.std() > 1e-4
    given = trained.part(**encoded.given(pairs.image, pairs.caption))
    assert torch.allclose(given, outputs, atol=1e-4)
    whole = trained.model(**encoded.inputs(pairs.image[:20], pairs.caption[:20]))
    assert torch.allclose(whole, outputs[:20], atol=0.02 * outputs.std().item())  # encodings are kept in half precision
    assert torch.allclose(recipe.logits(trained.model, encoded, pairs), outputs)
    again = load_or_train(f"flickr8k_{name}", encoded=encoded, progress=False, **SETTINGS)
    assert again.histories == trained.histories and again.courses == trained.courses
    assert torch.equal(recipe.logits(again.part, encoded, pairs), outputs)
    anew = recipe.train(name, encoded=encoded, progress=False, **SETTINGS)
    assert torch.equal(recipe.logits(anew.part, encoded, pairs), outputs)
    other = load_or_train(f"flickr8k_{name}", seed=1, encoded=encoded, progress=False, **SETTINGS)
    assert not torch.equal(recipe.logits(other.part, encoded, pairs), outputs)
    assert len(list(recipe.folder().glob("*.json"))) == 2


def test_gradients_of_the_whole_model_reach_every_cell_and_every_word(copy, encoded):
    trained = recipe.train("fusion", encoded=encoded, progress=False, **SETTINGS)
    inputs = encoded.inputs(copy.splits["test"][:3], copy.captions_of("test")[:15:5])
    taken = capture(trained.model, inputs, [trained.model.image_layer, trained.model.text_layer])
    seen, said = taken.gradients[trained.model.image_layer], taken.gradients[trained.model.text_layer]
    assert seen.shape == (3, 192, 7, 7) and (seen.norm(dim=1) > 0).all()
    assert ((said.norm(dim=2) > 0) == (inputs["attention_mask"] == 1)).all()
    head = encoded.given(copy.splits["test"][:3], copy.captions_of("test")[:15:5])
    taken = capture(trained.part, head, [trained.part.image_layer, trained.part.text_layer])
    assert (taken.gradients[trained.part.image_layer].norm(dim=1) > 0).all()


def test_a_training_that_was_cut_off_goes_on_and_ends_alike(encoded, monkeypatch):
    whole = load_or_train("flickr8k_fusion", seed=3, encoded=encoded, progress=False, **SETTINGS)
    for path in recipe.folder().iterdir():
        path.unlink()
    fit, calls, learned = recipe.fit, [], []

    def cut(model, *given, **named):
        calls.append(named["checkpoint"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        learned.append(fit(model, *given, **named))
        return learned[-1]

    monkeypatch.setattr(recipe, "fit", cut)
    with pytest.raises(KeyboardInterrupt):
        load_or_train("flickr8k_fusion", seed=3, encoded=encoded, progress=False, **SETTINGS)
    assert calls[0].is_file() and calls[0] != calls[1], "what was learned by contrast is kept"
    again = load_or_train("flickr8k_fusion", seed=3, encoded=encoded, progress=False, **SETTINGS)
    assert again.histories["contrast"].seconds == learned[0].seconds, "what was learned by contrast was not learned again"
    assert all(torch.equal(a, b) for a, b in zip(whole.part.state_dict().values(), again.part.state_dict().values()))
    assert not list(recipe.folder().glob("*.pt")), "and is removed when all is done"


def test_a_photograph_and_a_sentence_of_ones_own(copy, encoded):
    trained = recipe.train("fusion", encoded=encoded, progress=False, **SETTINGS)
    inputs, shown, words, note = readers.photograph(encoded, torch.rand(3, 60, 90), "a dog runs")
    assert words == ["a", "dog", "runs"] and shown.shape == (3, 224, 224) and "90 x 60 pixels" in note
    features = Tokens(**encoded.words).features(inputs)[0]
    assert features.tolist() == [False, True, True, True, False] and trained.model(**inputs).shape == (1,)
    with pytest.raises(ValueError, match="sentence 0 has 102 tokens, at most 64"):
        readers.photograph(encoded, torch.rand(3, 60, 90), "a " * 100)


def test_the_towers_of_the_paper_are_taken_where_they_are_available(weights, monkeypatch):
    monkeypatch.setattr(store, "is_available", lambda name: True)
    assert encodings.available_towers() == encodings.PAPER_TOWERS
    monkeypatch.setattr(store, "is_available", lambda name: name == "vgg16")
    assert encodings.available_towers() == encodings.TOWERS


def test_the_published_clip_is_asked_about_photographs(copy):
    held, found = copy.pairs("test", 0), openai_clip.load(copy, progress=False)
    assert found.scores.shape == (5, 25)
    order = np.random.default_rng(0).permutation(len(held.labels))[:6]
    inputs = found.inputs(held.image[order], held.caption[order])
    with torch.no_grad():  # photograph by photograph, as anybody would
        assert np.allclose(found.model(**inputs), found.logits(held)[order], atol=1e-3)
    on_validation = copy.pairs("validation", 0)
    with torch.no_grad():
        logits = found.model(**found.inputs(on_validation.image, on_validation.caption))
    right = ((logits > 0).numpy() == on_validation.labels).mean()
    cuts = logits.sort().values  # no other place for zero would have been better
    assert right >= max(((logits > cut).numpy() == on_validation.labels).mean() for cut in cuts)
    ahead = [(found.scores[:, j] >= found.scores[i, j]).sum() - 1 for j in range(25) for i in [j // 5]]
    assert found.retrieval().image_rank.tolist() == ahead
    words, picture = Tokens(**found.words), ImageCells(layer=found.model.image_layer, grid=(2, 2))
    record = rounds(found.model, inputs, [picture, words], baselines=[{"image": "mean", "text": "pad"}, "data"], progress=False)
    assert np.allclose(record.passes["data", FULL].logits[:, 0], found.logits(held)[order], atol=1e-3)
    asked, shown, pieces, note = found.from_reader(torch.rand(3, 30, 20), "a dog")
    assert words.features(asked).sum() == len(pieces) == 2 and shown.shape == (3, 16, 16) and "20 x 20" in note


def test_agreement_with_people_is_a_rank_correlation(copy, encoded):
    head = recipe.train("clip_cnn", encoded=encoded, progress=False, **SETTINGS).part
    pairs = copy.pairs("test", 0)
    logits = recipe.logits(head, encoded, pairs).numpy()
    marks = np.stack([logits, logits, logits], axis=1)
    judged = flickr8k.Judgements(pairs.image, pairs.caption, marks, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flickr8k.Flickr8k, "judgements", lambda self, kind: judged)
        found = agreement(head, encoded, "expert")
        assert found.value == pytest.approx(1) and found.low == pytest.approx(1) and found.n == 50
        patch.setattr(flickr8k.Flickr8k, "judgements", lambda self, kind: flickr8k.Judgements(
            pairs.image, pairs.caption, np.exp(np.stack([-logits, logits], axis=1)), 0))
        assert agreement(head, encoded, "crowd").value == pytest.approx(-1), "the share of yes falls with the logit here"


def test_a_damaged_head_is_trained_again(encoded):
    first = load_or_train("flickr8k_clip_cnn", encoded=encoded, progress=False, **SETTINGS)
    path, = recipe.folder().glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    again = load_or_train("flickr8k_clip_cnn", encoded=encoded, progress=False, **SETTINGS)
    assert again.history.train_loss == first.history.train_loss
    assert checkpoints.load(path.stem, recipe.new_model("clip_cnn", encoded, width=16, hidden=8), recipe.folder())["seed"] == 0


@pytest.mark.parametrize("name", recipe.NAMES)
def test_retrieval_counts_who_comes_before_the_right_one(name, copy, encoded):
    head = recipe.train(name, encoded=encoded, progress=False, **SETTINGS).part
    found = retrieval.of_model(head, encoded)
    scores = head.similarity(encoded.maps(found.images), *encoded.states(found.captions))
    for j, caption in enumerate(found.captions):
        own = found.images.tolist().index(copy.image_of[caption])
        assert found.image_rank[j] == (scores[:, j] > scores[own, j]).sum()
    for i, image in enumerate(found.images):
        mine = copy.image_of[found.captions] == image
        assert found.caption_rank[i] == (scores[i, ~mine] > scores[i, mine].max()).sum()
    shares = found.recall(1)
    assert shares["caption to image"] == pytest.approx((found.image_rank == 0).mean())
    assert found.recall(5)["caption to image"] == 1 >= found.recall(5)["image to caption"]


def test_squeezenet_takes_the_place_of_the_tower(copy):
    encoded = encodings.encode(copy, towers=("squeezenet1_0", "minilm"), progress=False)
    trained = recipe.train("clip_cnn", encoded=encoded, progress=False, **SETTINGS)
    pairs = copy.pairs("test", 0).select(range(4))
    assert encoded.maps(pairs.image).shape == (4, 512, 6, 6) and trained.part.look.middle.shape == (2 * 1512,)
    whole = trained.model(**encoded.inputs(pairs.image, pairs.caption))
    assert torch.allclose(whole, recipe.logits(trained.part, encoded, pairs), atol=1e-2)


def test_the_towers_of_the_paper_take_the_places_of_the_small_ones(copy, weights, monkeypatch):
    monkeypatch.setitem(vgg.NETWORKS, "vgg16", (29, 64))
    monkeypatch.setattr("torchvision.models.get_model", lambda name, weights: slim_vgg())
    torch.manual_seed(1)
    save_file(slim_vgg().state_dict(), weights / "vgg16.safetensors")
    encoded = encodings.encode(copy, towers=encodings.PAPER_TOWERS, progress=False)
    assert encoded.network.later == [] and encoded.states_of.shape == (32,)
    trained = recipe.train("clip_cnn", encoded=encoded, progress=False, **SETTINGS)
    pairs = copy.pairs("test", 0).select(range(4))
    whole = trained.model(**encoded.inputs(pairs.image, pairs.caption))
    outputs = recipe.logits(trained.part, encoded, pairs)
    # Maps of random weights hardly differ, and what differs is scaled up: half precision shows.
    assert torch.allclose(whole, outputs, atol=0.3) and torch.corrcoef(torch.stack([whole, outputs]))[0, 1] > 0.99


def slim_vgg():
    """VGG-16 with its convolutions as published and small dense layers."""
    from torchvision.models import VGG
    from torchvision.models.vgg import cfgs, make_layers

    network = VGG(make_layers(cfgs["D"]), num_classes=3, init_weights=False)
    network.classifier = torch.nn.Sequential(torch.nn.Linear(512 * 7 * 7, 3))
    return network


def test_small_takes_some_photographs_of_each_split(copy, monkeypatch):
    monkeypatch.setattr(encodings, "SMALL", {"train": 6, "validation": 3, "test": 2})
    trained = recipe.train("clip_cnn", data=copy, size="small", progress=False, width=8)
    assert [len(trained.data.flickr8k.splits[split]) for split in ("train", "validation", "test")] == [6, 3, 2]
    assert len(recipe.logits(trained.part, trained.data, trained.data.flickr8k.pairs("test", 0))) == 20
    with pytest.raises(ValueError, match="photograph 23 was not encoded"):
        trained.data.maps([23])


def test_what_was_gathered_before_gives_the_same_vector():
    torch.manual_seed(0)
    later = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.BatchNorm2d(5)), torch.nn.Conv2d(5, 2, 1)
    look, maps = FrozenMapPooling(3, 4, later=later).train(), torch.randn(6, 3, 7, 7)
    gathered = look.gather(maps)
    assert torch.equal(look.later[0][1].running_mean, torch.zeros(5)), "batch statistics stay as they are"
    look.eval().standardise(gathered)
    assert gathered.shape == (6, 20) and torch.allclose(look(gathered), look(maps)) and not look.later[1].weight.requires_grad
    assert torch.allclose(gathered[:, 3:6], maps.amax((2, 3)))
    assert torch.allclose(gathered[:, 18:], later[1](later[0].eval()(maps)).amax((2, 3)), atol=1e-6)


def test_a_head_travels_in_half_precision_without_what_comes_with_the_network(copy, encoded, tmp_path, monkeypatch):
    trained = recipe.train("clip_cnn", encoded=encoded, progress=False, **SETTINGS)
    path = recipe.hand_on(trained, tmp_path, **SETTINGS)
    assert not any("later" in name or value.dtype != torch.float16 for name, value in load_file(path).items())
    monkeypatch.setattr(checkpoints, "folder", lambda: tmp_path)
    found, pairs = recipe.travelling("clip_cnn"), copy.pairs("test", 0).select(range(20))
    logits = found.model(**found.data.inputs_of(copy.images(pairs.image, 224), [copy.captions[i] for i in pairs.caption]))
    before = trained.model(**encoded.inputs(pairs.image, pairs.caption))
    assert torch.allclose(logits, before, atol=0.02 * before.std().item()) and not torch.equal(logits, before)
    assert "research and teaching only" in found.card["terms"] and found.card["accuracy"] and found.seed == 0
    with pytest.raises(WeightsError, match="there is no checkpoint 'flickr8k_fusion'"):
        recipe.travelling("fusion")


@pytest.mark.skipif(not (checkpoints.folder() / "flickr8k_fusion.json").is_file(), reason="the heads are not in this copy")
@pytest.mark.parametrize("name", recipe.NAMES)
def test_real_heads_that_travel_find_the_photograph_of_a_sentence(name):
    found, folder = recipe.travelling(name), store.find("skimage-photographs").path
    said = {"chelsea.png": "A cat looks at the camera .", "motorcycle_left.png": "A red motorcycle is parked in a garage .",
            "astronaut.png": "A smiling woman wearing an orange suit .", "rocket.jpg": "A rocket stands on the launch pad ."}
    pictures = torch.stack([photos.read(folder / file, found.data.network.size) for file in said])
    scores = found.model.similarity(**found.data.inputs_of(pictures, list(said.values())))
    assert scores.argmax(dim=0).tolist() == list(range(4)) and (scores.diagonal() > -2).all()
    assert name == "fusion" or scores.argmax(dim=1).tolist() == list(range(4)), "and the sentence of a photograph"
    assert found.card["bytes"] < 10_000_000 and found.model.image_layer.startswith("image.network.features")


def test_each_part_of_a_dual_encoder_learns_by_itself_and_the_logit_follows_the_mean_of_their_cosines(encoded):
    head = recipe.new_model("clip_cnn", encoded, width=4, hidden=8, parts=2).eval()
    maps, states = torch.rand(3, 192, 7, 7), torch.rand(3, 5, 24)
    seen, read = head.see(maps), head.read(states)
    assert seen.shape == read.shape == (3, 8) and torch.allclose(seen[:, :4].norm(dim=1), torch.ones(3))
    cosines = torch.stack([a @ b.T for a, b in zip(seen.split(4, dim=1), read.split(4, dim=1))])  # (2, 3, 3)
    mean = head.logits(cosines.mean(dim=0))
    assert torch.allclose(head.logits_of_all_pairs(seen, read), mean) and torch.allclose(head(maps, states), mean.diagonal())
    every = Contrast(head.train())(maps, states)
    assert every.shape == (2, 3, 3) and not torch.equal(every[0], every[1])
    assert torch.allclose(recipe.loss_of(every, torch.eye(3)), sum(recipe.loss_of(part, torch.eye(3)) for part in every) / 2)


def test_the_softmax_loss_is_that_of_the_class_where_there_is_one_right_answer():
    torch.manual_seed(0)
    logits, right = torch.randn(4, 4), torch.arange(4)
    cross_entropy = torch.nn.functional.cross_entropy
    known = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    assert torch.allclose(softmax_loss(logits, torch.eye(4)), known)
    several = torch.tensor([[1, 1, 0], [0, 0, 1]])
    assert softmax_loss(torch.tensor([[9.0, 9, -9], [-9, -9, 9]]), several) == pytest.approx(np.log(2) / 4, abs=1e-4)


def test_unknown_names_settings_and_encodings_are_told(encoded):
    with pytest.raises(ValueError, match="got model 'vit', expected one of 'fusion'"):
        recipe.train("vit")
    with pytest.raises(ValueError, match="got setting 'layers', expected one of 'width', 'dropout'"):
        recipe.train("fusion", encoded=encoded, layers=3)
    with pytest.raises(ValueError, match=r"expected \(N, 192, h, w\)"):
        recipe.new_model("fusion", encoded)(images=torch.rand(1, 3, 8, 8), tokens=torch.rand(1, 2, 24))
    with pytest.raises(ValueError, match=r"expected \(N, T, 24\)"):
        recipe.new_model("fusion", encoded)(images=torch.rand(1, 192, 6, 6), tokens=torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="the text tower gives vectors of 8 numbers, the model was made for 24"):
        with_towers(recipe.new_model("fusion", encoded), GivenMaps(192), GivenStates(8))


@needs_data
def test_real_photographs_from_pixels_and_from_encodings_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setattr(encodings, "SMALL", {"train": 40, "validation": 10, "test": 8})
    encoded = encodings.encode(size="small", progress=False)
    pairs = encoded.flickr8k.pairs("test", 0)
    for name in recipe.NAMES:
        trained = load_or_train(f"flickr8k_{name}", size="small", encoded=encoded, progress=False)
        outputs = recipe.logits(trained.part, encoded, pairs)
        some = range(0, 80, 7)
        whole = trained.model(**encoded.inputs(pairs.image[some], pairs.caption[some]))
        assert torch.allclose(whole, outputs[some], atol=0.02 * outputs.std().item())
        assert torch.allclose(trained.part(**encoded.given(pairs.image[some], pairs.caption[some])), outputs[some], atol=1e-4)
    assert encoded.maps(pairs.image[:2]).shape == (2, 192, 7, 7)
