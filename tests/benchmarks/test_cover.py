"""The cover shows what was measured, moves only where that is wished, and says everything without moving."""

import csv
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup

from benchmarks import cover
from crossexplain_book import find_root

CHANCES = {"full": 0.999, "text masked": 0.2, "image masked": 0.04, "all masked": 0.0}
SHARES = {"full": {"image": [0.0, 0.5, 0.25, 1.0], "text": [0.5, 1.0]}, "text masked": {"image": [1.0, 0, 0, 0]},
          "image masked": {"text": [0.25, 0.75]}, "all masked": {}}
NORMS = {"full": {"image": 2.0, "text": 3.0}, "text masked": {"image": 0.5, "text": 9.0},
         "image masked": {"image": 8.0, "text": 0.25}, "all masked": {}}


@pytest.fixture(scope="module")
def drawn():
    return BeautifulSoup(cover.cover(np.eye(56), ["largest", "<left>"], CHANCES, SHARES, NORMS), "html.parser")


def test_each_view_shows_its_own_numbers_and_hides_what_is_hidden(drawn):
    both, picture, sentence, neither = drawn.select(".ce-cover-view")
    assert [b.text for b in both.select(".ce-cover-picture b")] == ["0.00", "0.50", "0.25", "1.00"]
    assert [b.text for b in sentence.select(".ce-cover-words b")] == ["0.25", "0.75"]
    assert len(picture.select(".ce-cover-hidden")) == 2 and not picture.select(".ce-cover-words b")
    assert sentence.select(".ce-cover-hatch") and neither.select(".ce-cover-hatch") and not both.select(".ce-cover-hatch")
    assert "at the picture 0.5" in picture.text and "9" not in picture.select_one(".ce-cover-norms").text
    answers = [view.select_one(".ce-cover-answer").text.strip() for view in (both, picture, sentence, neither)]
    assert answers == ["match, over 99%", "no match, 80%", "no match, 96%", "no match, over 99%"]


def test_a_screen_reader_hears_the_answers_and_whoever_wants_rest_stops_it(drawn):
    label = drawn.select_one(".ce-cover")["aria-label"]
    assert "both: match, over 99%" in label and "'largest <left>'" in label
    choices = [label.text for label in drawn.select("fieldset label")]
    assert choices == ["play", "both", "picture only", "sentence only", "neither"]
    style = drawn.select_one("style").text
    moving = re.compile(r"@media screen and \(prefers-reduced-motion:no-preference\)\{.*?\n\}", re.DOTALL)
    assert "animation" in style and "animation" not in moving.sub("", style)


def test_the_kept_cover_is_light_and_shows_the_measured_numbers():
    root, kept = find_root(), cover.PAGE.read_text("utf-8")
    assert len(kept) < 150_000 and "http" not in kept
    with (root / "data" / "results" / "figures.csv").open(encoding="utf-8") as stream:
        rows = {row["id"]: float(row["value"]) for row in csv.DictReader(stream) if row["id"].startswith("cover.")}
    page = BeautifulSoup(kept, "html.parser")
    answers = [found.text.strip() for found in page.select(".ce-cover-answer")]
    assert answers == [cover._answer(rows[f"cover.{view.replace(' masked', '_masked')}.match"]) for view in cover.VIEWS]
    assert f"at the picture {rows['cover.full.image']:.2g}, at the words {rows['cover.full.text']:.2g}" in page.text
