"""Stored photographs in a real browser, from a file: every layer, method and step says what PyTorch says."""

import numpy as np
import pytest
import torch
from torchvision.models import SqueezeNet1_0_Weights
from torchvision.transforms.v2 import functional

from crossexplain.data import photographs, store
from crossexplain.gradients import maps
from crossexplain.models.vgg import load_imagenet
from crossexplain_book.live.photos import BLUR, Photographs, stored
from support.live_page import opened

CLASSES = SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]
WORDS = {"alt": "A photograph of a cat, as the network sees it.", "caption": "One. Slide.", "name": "fig-01-photographs"}
STEPS = 2


@pytest.fixture(scope="module")
def network():
    return load_imagenet("efficientnet_lite0", store.find("efficientnet_lite0").path)


@pytest.fixture(scope="module")
def cat():
    data = photographs.load()
    return data.images[data.files.index("chelsea.png")]


@pytest.fixture(scope="module")
def layers(network):
    return {"the last map": network.image_layer, "the pixels": "input:images"}


@pytest.fixture(scope="module")
def part(network, cat, layers):
    kept = [stored("the cat", network, cat, layers, steps=STEPS),
            stored("asked for a tiger cat", network, cat, dict([*layers.items()][:1]), CLASSES.index("tiger cat"), steps=STEPS)]
    return Photographs(kept[:1], CLASSES, layers, **WORDS), kept


@pytest.fixture
def page(browser, part, tmp_path):
    with opened(browser, tmp_path, part[0].html()) as page:
        yield page


def says(page) -> str:
    return page.locator("[role=status]").first.inner_text()


def heat(network, cat, layer: str, key: str, number: int) -> torch.Tensor:
    return maps.attribute(network, {"images": cat[None]}, layer, key, number, "for")


def test_every_map_is_that_of_pytorch(page, network, cat, layers, part):
    number = part[1][0].number
    for row, layer in enumerate(layers.values()):
        page.locator("select").nth(1).select_option(index=row)
        for column, key in enumerate(maps.METHODS):
            page.locator("select").nth(2).select_option(index=column)
            ours = heat(network, cat, layer, key, number)
            ours = (maps.to_cells(ours, (56, 56)) if row else ours)[0].numpy().reshape(-1)
            theirs = np.array(page.evaluate("Array.from(document.querySelector('.ce-lab-live').photographs.heat().values)"))
            assert np.abs(theirs - ours).max() <= np.abs(ours).max() / 200 + 1e-9, (layer, key)


def test_the_slider_covers_what_the_map_calls_hottest(page, network, cat, layers, part):
    number, size = part[1][0].number, cat.shape[1]
    with torch.no_grad():
        before = network(cat[None])[0]
    assert f"{CLASSES[number]} {before.softmax(dim=0)[number]:.0%}"[:-1] in says(page)
    assert f"logit of {CLASSES[number]} is {before[number]:+.2f}" in says(page)
    page.get_by_label("Cover the hottest").press("ArrowRight")  # by key, one of two steps
    large = maps.upsample(heat(network, cat, layers["the last map"], "grad-cam", number), size)[0].flatten()
    hottest = large >= large.sort(descending=True).values[size * size // STEPS - 1]
    covered = torch.where(hottest.reshape(size, size), functional.gaussian_blur(cat, *BLUR), cat)
    with torch.no_grad():
        after = network(covered[None])[0]
    shown = float(says(page).split(f"logit of {CLASSES[number]} is ")[1].split(",")[0])
    assert shown == pytest.approx(float(after[number]), abs=0.02)
    assert f"with nothing covered {before[number]:+.2f}" in says(page) and "at random" in says(page)
    label = page.locator("canvas").first.get_attribute("aria-label")
    assert label == "the photograph the cat, the hottest 50 % covered"
    pixels = np.array(page.evaluate("""() => { const c = document.querySelector('.ce-lab-live canvas');
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }""")).reshape(size, size, 4)[..., :3]
    expected = covered.permute(1, 2, 0).mul(255).numpy()
    assert np.abs(pixels - expected).mean() < 6  # JPEG


def test_a_class_may_be_asked_for(network, cat, part, layers):
    one = part[1][1]
    assert CLASSES[one.number] == "tiger cat" and one.logits.shape == (len(maps.METHODS) + 1, STEPS + 1)
    with torch.no_grad():
        assert one.logits[0, 0] == pytest.approx(float(network(cat[None])[0, one.number]), abs=1e-4)
    assert (one.logits[:, 0] == one.logits[0, 0]).all() and np.ptp(one.logits[:, -1]) == 0


def test_the_address_keeps_the_state(browser, part, tmp_path, page):
    page.locator("select").nth(2).select_option(label="LayerCAM")
    state = page.evaluate("location.hash")
    assert state == f"#photo=0~0~{list(maps.METHODS).index('layer-cam')}~0"
    for text, value in (("0~1~0~2", "2"), ("5~0~0~0", "0"), ("x~~", "0")):
        with opened(browser, tmp_path, part[0].html(), f"#photo={text}") as other:
            assert other.get_by_label("Cover the hottest").input_value() == value


def test_without_a_script_the_photograph_stands(browser, part, tmp_path):
    (tmp_path / "page.html").write_text(part[0].html(), "utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("img").get_attribute("alt") == WORDS["alt"] and page.locator("img").is_visible()
    context.close()
