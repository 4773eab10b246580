"""The opening picture of a chapter says where its parts lie, and a page carries it."""

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossexplain.intervals import Interval
from crossexplain_book import figures
from crossexplain_book.pictures import COLOURS
from support.talks import talk

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"alt": "two rows of dots with their intervals", "caption": "A. B.", "name": "fig-01-x"}


@pytest.fixture(scope="module")
def openings():
    spec = importlib.util.spec_from_file_location("openings", ROOT / "book" / "_ext" / "openings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(picture) -> tuple[np.ndarray, list]:
    """Return the pixels of a picture (H, W, 3) and its parts, as a notebook carries them."""
    data, about = picture._repr_mimebundle_()
    return np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGB")), about["crossexplain"]["parts"]


def inside(pixels: np.ndarray, part: list) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top, wide, high = part[:4]
    return pixels[round(top * height / 100):round((top + high) * height / 100),
                  round(left * width / 100):round((left + wide) * width / 100)]


def test_an_interval_lies_where_it_says():
    one = {"a": Interval(0.2, 0.1, 0.3, 10), "b": Interval(0.8, 0.7, 0.9, 0)}
    rows = {"one": one, "two": {"a": Interval(0.5, 0.4, 0.6, 9)}}
    pixels, parts = shown(figures.intervals(rows, xlabel="share", **WORDS))
    words = ["a, one: 0.2 [0.1, 0.3], n = 10", "b, one: 0.8 [0.7, 0.9]", "a, two: 0.5 [0.4, 0.6], n = 9"]
    assert [part[4] for part in parts] == words
    for part, series in zip(parts, (0, 0, 1)):
        colour = [int(COLOURS[series][k : k + 2], 16) for k in (1, 3, 5)]
        near = np.abs(inside(pixels, part).astype(int) - colour).max(axis=2) < 40
        assert near.any(axis=0).mean() > 0.9, "the bar runs from one side of its part to the other"


def test_the_strongest_cell_of_a_map_is_the_brightest_place():
    heat = np.zeros((1, 4, 4))
    heat[0, 1, 2] = 2.0
    for picture in (figures.maps(np.zeros((1, 1, 8, 8)), heat, titles=["a 3"], **WORDS),
                    figures.gallery(np.zeros((1, 1, 8, 8)), {"cam": heat}, titles=["a 3"], **WORDS)):
        pixels, parts = shown(picture)
        assert parts[0][4].endswith("a 3: strongest in row 2 of 4, column 3 of 4 (2)")
        assert np.median(inside(pixels, parts[0])) > 150


def test_each_turn_of_a_strip_says_where_it_is_strongest():
    strip = talk(4)
    strip.values["sound"][1][:] = 0.0
    strip.values["sound"][1][2] = -9.0
    pixels, parts = shown(figures.film_strip(strip, **WORDS))
    sound = [part for part in parts if part[4].startswith("turn 2, mia") and "sound: strongest at segment 3 of" in part[4]]
    assert len(sound) == 1 and sound[0][4].endswith("(-9.00)")
    box = inside(pixels, sound[0]).astype(int)
    blue = (box[..., 2] - box[..., 0] > 40).any(axis=0).nonzero()[0]
    segments = len(strip.values["sound"][1])
    assert blue.min() >= 2 * box.shape[1] // segments - 3 and blue.max() <= 3 * box.shape[1] // segments + 3
    assert len(parts) == sum(strip.has(name, turn) for name in strip.values for turn in range(4))
    assert all(", decides, " in part[4] for part in parts if strip.deciding[int(part[4].split()[1][:-1]) - 1])


def test_the_page_carries_the_parts_of_its_finding_alone(openings, tmp_path):
    output = {"metadata": {"crossexplain": {**WORDS, "parts": [[1, 2, 3, 4, 'a "b" <c>']]}}}
    cells = [{"metadata": {"tags": tags}, "outputs": [output]} for tags in (["finding"], [])]
    cells[1]["outputs"] = [{"metadata": {"crossexplain": {"name": "fig-01-y", "parts": [[0, 0, 1, 1, "z"]]}}}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    parts = openings.parts_of(tmp_path / "a.ipynb")
    body = '<figure class="x" id="fig-01-x">\n<img alt="y" /></figure><figure id="fig-01-y"><img /></figure>'
    page = openings.marked(body, parts)
    scrolling = body.replace("\n<img", '\n<div class="a"><div class="b" role="group"><img', 1)
    assert openings.marked(scrolling, parts).count("data-parts") == 1
    assert page.count("data-parts") == 1 and "a \\&quot;b\\&quot; &lt;c&gt;" in page
    assert openings.parts_of(tmp_path / "b.ipynb") == {}
