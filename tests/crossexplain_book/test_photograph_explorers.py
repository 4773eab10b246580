"""Explorers of photographs without a browser: what is shown is what the Python call returns, and bad input is answered."""

import io
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import SqueezeNet1_0_Weights

from crossexplain.data import photographs, store
from crossexplain.gradients.maps import attribute, upsample
from crossexplain.models.vgg import load_imagenet
from crossexplain.recipes import load_or_train
from crossexplain.recipes import scenes as recipe
from crossexplain_book.photograph_explorers import OWN, ClassExplorer, SearchExplorer

CLASSES = SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]
WORDS = {"name": "fig-explorer", "caption": "An explorer. Read it so."}


@pytest.fixture(scope="module")
def model():
    return load_imagenet("efficientnet_lite0", store.find("efficientnet_lite0").path)


@pytest.fixture(scope="module")
def pictures():
    data = photographs.load()
    return {file: image for file, image in zip(data.files, data.images) if file in ("chelsea.png", "coffee.png")}


@pytest.fixture
def classes(model, pictures):
    return ClassExplorer(model, CLASSES, pictures, **WORDS)


def test_it_begins_with_what_the_network_reads(classes, model, pictures):
    logits = model(pictures["chelsea.png"][None])[0]
    asked = classes.read()
    assert asked.number == int(logits.argmax()) and torch.allclose(asked.after, logits, atol=1e-4)
    assert torch.allclose(asked.heat, attribute(model, pictures["chelsea.png"][None], model.image_layer)[0], atol=1e-6)
    assert f"logit of {CLASSES[asked.number]} is {logits.max():+.2f}" in classes.message
    assert classes.picture.png() and "nothing covered" in classes.picture.alt


def test_class_side_method_and_layer_are_those_of_the_call(classes, model, pictures):
    classes.photograph.value, classes.asked.value, classes.sign.value = "coffee.png", "tiger cat", "against"
    classes.map.value, classes.layer.value = "saliency", "input:images"
    heat = attribute(model, {"images": pictures["coffee.png"][None]}, "input:images", "saliency",
                     CLASSES.index("tiger cat"), "against")[0]
    assert torch.allclose(classes.read().heat, heat) and "logit of tiger cat" in classes.message


def test_what_is_covered_is_where_the_map_is_hottest(classes, model, pictures):
    image, falls = pictures["chelsea.png"], {}
    heat = upsample(attribute(model, image[None], model.image_layer), 224)[0]
    for cover in ("the hottest fifth", "the coldest fifth", "all but the hottest fifth"):
        classes.cover.value = cover
        asked = classes.read()
        changed = (asked.image != image).any(dim=0)
        assert 0.15 < changed.float().mean() < 0.21 or cover.startswith("all")
        inside, outside = heat[changed], heat[~changed]
        assert (inside.min() >= outside.median()) if cover == "the hottest fifth" else (inside.mean() < outside.mean())
        falls[cover] = float(asked.before[asked.number] - asked.after[asked.number])
        assert f"with nothing covered {asked.before[asked.number]:+.2f}" in classes.message
    assert falls["the hottest fifth"] > falls["the coldest fifth"]


def test_a_class_that_is_unknown_names_the_nearest(classes):
    classes.asked.value = "tigre cat"
    assert "knows no class &#x27;tigre cat&#x27;" in classes.message and "tiger cat" in classes.message
    classes.asked.value = ""
    assert "The network reads" in classes.message


def upload(explorer, content: bytes, name: str = "mine.jpg") -> None:
    """Do what the front-end does with a file."""
    explorer.upload.value = ({"name": name, "type": "image/jpeg", "size": len(content), "content": memoryview(content),
                              "last_modified": datetime.now(UTC)},)


def test_a_photograph_of_the_readers_own(classes):
    classes.photograph.value = OWN
    assert "no photograph was uploaded yet" in classes.message
    classes.photograph.value = "coffee.png"
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(stream, "jpeg")
    upload(classes, stream.getvalue())
    assert classes.photograph.value == OWN and classes.read().image.shape == (3, 224, 224)
    assert "The network reads" in classes.message and "middle square of 90 x 90 pixels" in classes.details
    upload(classes, stream.getvalue()[:300], "half.jpg")
    assert "half.jpg cannot be read as an image" in classes.message
    classes.photograph.value = "chelsea.png"
    assert "The network reads" in classes.message


@pytest.fixture(scope="module")
def scenes():
    trained = load_or_train("scenes_clip_cnn", progress=False)
    return trained.model, trained.data, trained.data.splits["test"][:12]


def test_a_sentence_finds_its_picture_and_shows_where(scenes):
    model, data, chosen = scenes
    images, sentence = data.images(chosen), data.captions[chosen[3]][0]
    titles = [f"picture {i}" for i in range(12)]
    search = SearchExplorer(model, partial(recipe.inputs, model), images, titles, sentence, **WORDS)
    logits = torch.stack([model(**recipe.inputs(model, images[[i]], [sentence]))[0] for i in range(12)])
    assert torch.allclose(search.logits, logits, atol=1e-3)
    order = logits.argsort(descending=True)[:4].tolist()
    places = [search.message.index(f"picture {i} {logits[i]:+.1f}") for i in order]
    assert places == sorted(places) and f"1. picture {order[0]} " in search.picture.alt
    search.sentence.value = "a red ball"
    assert "a red ball" in search.picture.alt
    search.sentence.value = "a sofa"
    assert "sofa" in search.message and search._shown.value == "", "words that the model does not know are named"
    search.sentence.value = "  "
    assert "type at least one word" in search.message
