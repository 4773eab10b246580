"""Stored pairs in a real browser, from a file: every word and every cell says what PyTorch says, by pointer, finger and key."""

import numpy as np
import pytest
import torch

from crossexplain import ImageCells, Tokens, load_or_train
from crossexplain.checks import InputError
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.attention import word_by_patch
from crossexplain.gradients.views import Mask, Views
from crossexplain.recipes import scenes
from crossexplain_book.live.pairs import Pairs, stored
from support.live_page import opened

WORDS = {"alt": "A picture and its caption, the first of two.", "caption": "Two pairs. Pick.", "name": "fig-05-pairs"}
KINDS = {"image": "mean", "text": "mask"}


class Asked:
    """A model, two pairs of which the second is false, and what stands on the page about them."""

    def __init__(self):
        trained = load_or_train("scenes_fusion", progress=False)
        self.net, pairs = trained.model, trained.data.build("test", 4, 0, "random")
        rows = [int(np.flatnonzero(pairs.labels == label)[0]) for label in (1, 0)]
        pictures = scenes.Pictures(trained.data, trained.data.splits["test"])
        self.sides = ImageCells(layer=self.net.image_layer, grid=(6, 6)), Tokens(layer=self.net.text_layer)
        self.inputs = [scenes.inputs(self.net, pictures[[pairs.image[i]]], [pairs.captions[i]]) for i in rows]
        self.words = [pairs.captions[i].split() for i in rows]
        self.truth = [bool(pairs.labels[i]) for i in rows]
        self.part = Pairs([stored("early fusion", self.net, inputs, self.sides, words, truth)
                           for inputs, words, truth in zip(self.inputs, self.words, self.truth)], **WORDS)

    def covered(self, pair: int, word=None, cell=None) -> dict:
        """Return the inputs with a word and a cell covered; -1 covers all of them."""
        plan = {}
        for side, place, count in ((self.sides[0], cell, 36), (self.sides[1], word, len(self.words[pair]))):
            if place is not None:
                keep = None if place < 0 else torch.arange(count) != place
                plan[side.name] = Mask(keep, KINDS[side.name])
        return Views(self.inputs[pair], self.sides, {"covered": plan}, allow_empty=True).inputs

    def logit(self, pair: int, word=None, cell=None) -> float:
        with torch.no_grad():
            return float(self.net(**self.covered(pair, word, cell)))

    def heat(self, pair: int, key: str, word=None) -> np.ndarray:
        sign = "for" if self.logit(pair) > 0 else "against"
        return maps.attribute(self.net, self.covered(pair, word), self.net.image_layer, key, 1, sign)[0].numpy()

    def scores(self, pair: int, key: str, cell=None) -> np.ndarray:
        return tokens.attribute(self.net, self.covered(pair, None, cell), self.net.text_layer, key,
                                int(self.logit(pair) > 0), special="keep")[0].numpy()


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked()


@pytest.fixture
def page(browser, asked, tmp_path):
    with opened(browser, tmp_path, asked.part.html()) as page:
        yield page


def state(page) -> list[int]:
    return [int(v) for v in page.evaluate("location.hash").partition("=")[2].split("~")]


def shown(page, what: str) -> np.ndarray:
    """Return the values that are drawn now: ``heat`` or ``said``."""
    return np.array(page.evaluate(f"Array.from(document.querySelector('.ce-lab-live').pairs.{what}().values)"))


def close(theirs, ours) -> bool:
    """Whether values are those of PyTorch, but for the steps in which they are kept."""
    ours = np.asarray(ours).reshape(-1)
    return np.abs(theirs - ours).max() <= np.abs(ours).max() / 10_000 + 1e-7


def says(page) -> str:
    return page.locator("[role=status]").first.inner_text()


def test_every_word_and_every_cell_is_covered_as_in_pytorch(page, asked):
    root, words = page.locator(".ce-lab-live"), asked.words[0]
    assert f"logit {asked.logit(0):+.2f}" in says(page)
    for place, word in enumerate(words):
        root.get_by_role("button", name=f"cover word {place + 1}, {word}").click()
        assert f"logit {asked.logit(0, place):+.2f}" in says(page)
        assert close(shown(page, "heat"), asked.heat(0, "grad-cam", place))
    root.get_by_role("button", name="cover all words").tap()
    assert close(shown(page, "heat"), asked.heat(0, "grad-cam", -1))
    root.get_by_role("button", name="uncover", exact=True).click()
    for cell in (0, 7, 20, 35):
        root.get_by_role("button", name=f"cover the cell in row {cell // 6 + 1}, column {cell % 6 + 1}").tap()
        assert f"logit {asked.logit(0, None, cell):+.2f}" in says(page)
        assert close(shown(page, "said"), asked.scores(0, "l2", cell))
    root.get_by_role("button", name="cover word 2,").click()
    whole, word, cell, both = asked.logit(0), asked.logit(0, 1), asked.logit(0, None, 35), asked.logit(0, 1, 35)
    assert f"logit {both:+.2f}" in says(page)
    dividend = (whole - word - cell + both) * (1 if whole > 0 else -1)
    assert float(says(page).split("their dividend, is ")[1][:5]) == pytest.approx(dividend, abs=0.006)
    root.get_by_role("button", name="cover the whole picture").click()
    root.get_by_role("button", name="cover all words").click()
    assert f"logit {asked.logit(0, -1, -1):+.2f}" in says(page)


def test_every_method_of_the_registry_is_there_and_agrees(page, asked):
    page.locator("select").first.select_option("1")  # false, so evidence is for the no
    page.get_by_role("button", name="cover word 1,").click()
    for index, key in enumerate(maps.METHODS):
        page.get_by_label("Map, for the word").select_option(index=index)
        assert close(shown(page, "heat"), asked.heat(1, key, 0)), key
    page.get_by_label("Map, for the word").select_option("2")
    page.get_by_label("what covering changes").check()
    changed = asked.heat(1, "grad-cam") - asked.heat(1, "grad-cam", 0)
    assert np.abs(shown(page, "heat") - changed.reshape(-1)).max() <= 3e-4 * np.abs(asked.heat(1, "grad-cam")).max()
    page.get_by_label("what covering changes").uncheck()
    page.get_by_role("button", name="cover the cell in row 3, column 3").click()
    for index, key in enumerate(key for key, method in tokens.METHODS.items() if method.read is not None):
        page.get_by_label("Word scores, for the cell").select_option(index=index)
        assert close(shown(page, "said"), asked.scores(1, key, 14)), key


def test_from_a_word_to_its_patches_and_from_a_cell_to_its_words(page, asked):
    joint = word_by_patch(asked.net, asked.inputs[0], words=asked.sides[1])[0].numpy()  # (T, 12, 12), the answer is yes
    page.get_by_label("Map, for the word").select_option(label="word by patch")
    page.get_by_label("Word scores, for the cell").select_option(label="word by patch")
    assert np.abs(shown(page, "heat") - joint.sum(axis=0).reshape(-1)).max() < 0.001 * np.abs(joint).max()
    page.get_by_role("button", name="cover word 3,").click()
    assert close(shown(page, "heat"), joint[2])
    page.get_by_role("button", name="cover the cell in row 2, column 5").click()
    assert np.abs(shown(page, "said") - joint[:, 2:4, 8:10].sum(axis=(1, 2))).max() < 0.001 * np.abs(joint).max()
    page.get_by_label("Map, for the word").select_option(label="dividend of word and cell")
    together = [asked.logit(0) - asked.logit(0, 2) - asked.logit(0, None, c) + asked.logit(0, 2, c) for c in (0, 10)]
    assert shown(page, "heat")[[0, 10]] == pytest.approx(together, abs=1e-4)


def test_keys_move_between_cells_and_the_address_keeps_the_state(page, asked):
    page.get_by_role("button", name="cover the cell in row 1, column 1").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert state(page) == [0, 0, 8, 2, 3, 0]
    assert f"logit {asked.logit(0, None, 7):+.2f}" in says(page)
    page.evaluate("location.hash = '#pairs=1~2~3~0~1~0'")
    page.wait_for_function("document.querySelector('.ce-lab-live select').value === '1'")
    assert f"logit {asked.logit(1, 1, 2):+.2f}" in says(page)
    page.get_by_role("button", name="copy a link").click()
    page.get_by_text("ink").last.wait_for()


def test_a_link_leads_to_its_state_and_what_is_no_state_to_the_first(browser, asked, tmp_path):
    for text, expected in (("1~1~0~2~3~0", asked.logit(1, 0)), ("7~0~0~0~0~0", asked.logit(0)), ("x", asked.logit(0))):
        with opened(browser, tmp_path, asked.part.html(), f"#pairs={text}") as page:
            assert f"logit {expected:+.2f}" in says(page)


def test_it_is_small_and_a_word_too_many_is_refused(asked):
    assert len(asked.part.html()) < 180_000
    with pytest.raises(InputError, match="2 words for"):
        stored("x", asked.net, asked.inputs[0], asked.sides, ["a", "b"], True)


def test_without_a_script_the_first_picture_and_its_sentence_stand(browser, asked, tmp_path):
    (tmp_path / "page.html").write_text(asked.part.html(), "utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("img").get_attribute("alt") == WORDS["alt"]
    assert page.get_by_text(" ".join(asked.words[0])).is_visible()
    context.close()
