"""Explorers without a browser: a control that changes shows what the Python call returns, and bad input is answered."""

import gc
import io
from datetime import UTC, datetime
from functools import partial

import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from matplotlib import font_manager
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from crossexplain.checks import InputError
from crossexplain.data import collages
from crossexplain.gradients import maps
from crossexplain.gradients.maps import attribute as image_map
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.tokens import attribute as word_scores
from crossexplain.recipes import load_or_train
from crossexplain.recipes import scenes as scene_recipe
from crossexplain_book import readers
from crossexplain_book.assemble import CONTROLS, page
from crossexplain_book.controls import tick_boxes
from crossexplain_book.explorers import (
    CaptionExplorer,
    PairExplorer,
    WordExplorer,
    answer,
    explainer,
    map_choices,
    word_choices,
)
from crossexplain_book.records import ChapterRecord

KINDS = ({"image": "zero", "text": "mask"}, {"image": "mean", "text": "pad"}, "data")
WORDS = {"name": "fig-explorer", "caption": "An explorer. Read it so."}


@pytest.fixture(scope="module")
def trained():
    return load_or_train("collages", progress=False)


@pytest.fixture(scope="module")
def modalities(trained):
    return ImageCells(layer=trained.model.image_layer), Tokens(layer=trained.model.text_layer)


@pytest.fixture
def pairs(trained, modalities):
    test = collages.build(trained.data, 32, "test", 1)
    inputs = test.inputs()
    return PairExplorer(trained.model, inputs, modalities, [collages.words(row) for row in inputs["tokens"]],
                        baselines=KINDS, cells=list(collages.CORNERS), labels=test.labels, **WORDS)


@pytest.fixture
def caption(trained, modalities):
    explain = explainer(trained.model, readers.collage, modalities)
    return CaptionExplorer(explain, torch.zeros(3, 56, 56), "there are 0 even digit(s) in the picture", **WORDS)


def upload(explorer, content: bytes, name: str = "mine.png") -> None:
    """Do what the front-end does with a file."""
    explorer.upload.value = ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
                              "last_modified": datetime.now(UTC)},)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def test_covered_cells_and_words_give_what_the_package_gives(pairs, trained, modalities):
    inputs = {key: value[:1].clone() for key, value in pairs.inputs.items()}
    pairs.cells[2].value = pairs.ticks[1].value = True
    inputs["images"][:, :, 28:, :28] = 0
    inputs["tokens"][0, 1] = collages.VOCABULARY.index(collages.MASK)
    logit = float(trained.model(**inputs))
    image, text = modalities
    covered = pairs.read(0, [2], [1])
    assert covered.explained.logit == pytest.approx(logit, abs=1e-4) and answer(logit) in pairs.message
    assert torch.allclose(covered.explained.heat, image_map(trained.model, inputs, image.layer)[0])
    scores = word_scores(trained.model, inputs, text.layer, special="keep")[0]
    assert covered.explained.scores[1].isnan() and torch.equal(covered.explained.scores[2:], scores[2:len(pairs.words[0])])
    assert "'largest' covered" not in pairs.picture.alt or pairs.words[0][1] == "largest"
    assert "lower left" in pairs.picture.alt and answer(logit) in pairs.picture.alt


def test_the_methods_can_be_chosen_and_bring_their_sign(pairs, trained, modalities):
    pairs.map.value, pairs.word.value = "gradient x input", "gradient x input"
    covered = pairs.read(0).explained
    single = {key: value[:1] for key, value in pairs.inputs.items()}
    assert covered.signed == (True, True)
    assert torch.allclose(covered.heat, image_map(trained.model, single, modalities[0].layer, "gradient x input")[0])


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_the_verdict_is_that_of_the_rounds(pairs, trained, modalities, kind):
    pairs.baseline.value = kind
    judged = rounds(trained.model, pairs.inputs, modalities, baselines=[KINDS[kind]], progress=False).verdict(draws=200)
    covered = pairs.read(0, (), (), kind)
    assert covered.n == 32 and f"covered: {judged.answer} " in pairs.details and covered.verdict.answer == judged.answer
    if "data" not in KINDS[kind]:  # else other donors
        for name, estimate in next(iter(judged.reach.values())).items():
            assert next(iter(covered.verdict.reach.values()))[name] == pytest.approx(estimate, abs=1e-3)


def test_without_the_image_the_text_is_left_and_the_corners_say_so(pairs):
    for tick in pairs.cells:
        tick.value = True
    covered = pairs.read(0, range(4))
    assert covered.verdict.answer == "text alone" and "text alone" in pairs.details
    assert covered.corners["both"] == pytest.approx(covered.corners["text alone"], abs=1e-4)
    assert covered.dividend == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_everything_can_be_covered(pairs, kind):
    covered = pairs.read(0, range(4), range(len(pairs.words[0])), kind)
    assert np.isfinite(covered.explained.logit) and covered.explained.scores.isnan().all()
    alt = pairs._draw(covered.explained, (0, [0], [0], kind)).alt
    assert "no word has a score" in alt and "upper left" in alt


def test_another_pair_begins_uncovered_and_its_words_can_be_covered(pairs):
    pairs.cells[0].value = True
    pairs.pair.value = 9
    assert not any(tick.value for tick in [*pairs.cells, *pairs.ticks])
    assert [tick.description for tick in pairs.ticks] == pairs.words[9]
    before = pairs.message
    pairs.ticks[-1].value = True
    assert answer(pairs.read(9, (), [len(pairs.words[9]) - 1]).explained.logit) in pairs.message != before


def test_what_is_borrowed_comes_from_a_pair_that_differs(pairs):
    for i in range(32):
        for donor in pairs._donors(i):
            assert not torch.equal(pairs.inputs["images"][donor], pairs.inputs["images"][i])
            assert not torch.equal(pairs.inputs["tokens"][donor], pairs.inputs["tokens"][i])


def test_a_picture_and_a_sentence_of_ones_own(caption, trained):
    test = collages.build(trained.data, 32, "test", 5)
    pixels = np.uint8(255 - 255 * test.images([0])[0, 0].numpy())  # as on paper
    upload(caption, png(np.kron(pixels, np.ones((3, 3), np.uint8))))
    assert "bright ink on dark paper" in caption.details and "168 x 168" in caption.details
    for i in range(0, 32, 4):
        caption.sentence.value = collages.SENTENCES[test.sentence_id[i]].capitalize() + "."
        small = torch.from_numpy(np.kron(pixels, np.ones((3, 3), np.uint8)) / 255).float().expand(3, -1, -1)
        explained = caption.models["model"](small, caption.sentence.value)
        assert answer(explained.logit) in caption.message and answer(explained.logit) in caption.picture.alt
    right = [(readers.collage(image.expand(3, -1, -1), collages.SENTENCES[s])[0], bool(label))
             for image, s, label in zip(test.images(), test.sentence_id, test.labels)]
    assert np.mean([(float(trained.model(**inputs)) > 0) == label for inputs, label in right]) > 0.9


NOISE = png(np.random.default_rng(0).integers(0, 256, (56, 56), dtype=np.uint8))


@pytest.mark.parametrize(("content", "name", "why"), [
    (b"", "nothing.png", "nothing.png is empty .0 bytes."),
    (b"<html>not found</html>", "page.png", "page.png cannot be read as an image"),
    (NOISE[:900], "half.png", "half.png cannot be read as an image"),
    (bytes(10_500_000), "large.png", "large.png has 10.5 MB, at most 10 are taken"),
    (png(np.zeros((9000, 9000), np.uint8)), "bomb.png", "bomb.png has 9,000 x 9,000 pixels"),
], ids=lambda value: value if isinstance(value, str) and value.endswith(".png") else "")
def test_a_bad_upload_is_answered_and_leaves_no_picture(caption, content, name, why):
    upload(caption, content, name)
    assert 'role="alert"' in caption.message and "0x" not in caption.message
    with pytest.raises(ValueError, match=why):
        _ = caption.image
    assert why.split(" ")[0] in caption.message and not caption._shown.value and not caption.details
    upload(caption, png(np.zeros((56, 56), np.uint8)))
    assert 'role="status"' in caption.message and caption._shown.value


@pytest.mark.parametrize(("sentence", "why"), [
    ("   ", "type at least one word"),
    ("the largest dog", "&#x27;dog&#x27; is not among the"),
    ("the " * 40, "has 40 words, expected 1 to"),
    ("<b>the</b>", "&lt;b&gt;the&lt;/b&gt;"),
], ids=["empty", "unknown", "long", "markup"])
def test_a_bad_sentence_is_answered(caption, sentence, why):
    caption.sentence.value = sentence
    assert 'role="alert"' in caption.message and why in caption.message and not caption._shown.value


def test_a_fault_of_the_model_is_shown_and_not_swallowed():
    def explain(image, sentence):
        if "!" in sentence:
            raise RuntimeError("the model broke")
        return explainer_of_nothing(image, sentence)

    explorer = CaptionExplorer(explain, torch.zeros(3, 4, 4), "a", **WORDS)
    with pytest.raises(RuntimeError):
        explorer.sentence.value = "a!"
    assert "the model broke" in explorer.message and gc.isenabled()


@pytest.mark.parametrize("methods", [{"map_method": "gradcam"}, {"word_method": "attention-relevance"}])
def test_a_method_that_explorers_do_not_have_is_refused_at_once(trained, modalities, methods):
    with pytest.raises(InputError, match="expected one of"):
        explainer(trained.model, readers.collage, modalities, **methods)


def test_a_new_map_can_be_chosen_by_its_title(monkeypatch):
    monkeypatch.setitem(maps.METHODS, "energy", maps.Method(lambda a, g: (a**2).sum(dim=1), "", "2026", title="Energy"))
    assert map_choices()[-1] == ("Energy", "energy") and ("Grad-CAM", "grad-cam") in map_choices()
    assert ("gradient x input", "gradient x input") in word_choices()


def explainer_of_nothing(image, sentence):
    from crossexplain_book.explorers import Explained

    words = sentence.split()
    return Explained(image, words, 0.5, torch.zeros(2, 2), torch.zeros(len(words)))


def test_a_word_is_picked_and_its_map_shown():
    scores = np.zeros((3, 2, 2))
    scores[1, 0, 1], scores[2, 1, 0] = 2.0, -3.0
    explorer = WordExplorer(np.zeros((1, 8, 8)), ["a", "b", "a"], scores, **WORDS)
    assert explorer.word.value == 2 and "row 2, column 1 with -3" in explorer.message
    for word, place in ((1, "row 1, column 2 with +2"), (0, "with +0")):
        explorer.word.value = word
        assert place in explorer.message and place in explorer.picture.alt
    for wrong in (scores[:2], scores[0], scores * np.nan):
        with pytest.raises(InputError, match="one map a word|NaN"):
            WordExplorer(np.zeros((1, 8, 8)), ["a", "b", "a"], wrong, **WORDS)


def figures_in_memory() -> int:
    return sum(type(thing) is Figure for thing in gc.get_objects())


def test_a_change_leaves_no_old_picture_for_python_to_find(pairs, caption):
    gc.collect()
    before = figures_in_memory()
    for k in range(3):
        pairs.cells[0].value = not pairs.cells[0].value
        caption.sentence.value = "a dog" if k == 1 else f"there are {k} even digit(s) in the picture"
    assert figures_in_memory() == before and gc.isenabled()


def test_every_control_has_a_label(pairs, caption):
    word = WordExplorer(np.zeros((1, 8, 8)), ["a"], np.ones((1, 2, 2)), **WORDS)
    controls = [*pairs._watched, pairs.pair, *caption._watched, *word._watched]
    assert all(control.description for control in controls)


def test_a_page_keeps_the_picture_and_no_controls(pairs):
    data, metadata = DisplayFormatter().format(pairs)
    assert CONTROLS in data and data["image/png"] and metadata["crossexplain"]["alt"] == pairs.picture.alt
    cell = new_code_cell("explorer", outputs=[new_output("execute_result", {**data, "image/png": "aGk="}, metadata=metadata)])
    notebook = new_notebook(cells=[nbformat.v4.new_markdown_cell("# Is it?"), cell], metadata={"widgets": {"state": {}}})
    built = page(notebook, ChapterRecord("01_a", "key", {}))
    figure = built["cells"][-1]
    assert "widgets" not in built["metadata"] and CONTROLS not in str(built)
    assert figure["outputs"][0]["data"]["image/png"] and figure["metadata"]["mystnb"]["image"]["alt"] == pairs.picture.alt


@pytest.mark.parametrize(("name", "special"), [("clip_cnn", (2, 3)), ("clip_vit", (2, 3)), ("fusion", ())])
def test_models_of_scenes_answer_about_any_image(name, special):
    model = scene_recipe.new_model(name).eval().requires_grad_(False)
    grid = (8, 8) if name == "clip_vit" else (6, 6)
    sides = ImageCells(layer=model.image_layer, grid=grid), Tokens(layer=model.text_layer, special=special)
    explain = explainer(model, partial(readers.scene, model), sides)
    explorer = CaptionExplorer(explain, torch.rand(3, 96, 96), "a red ball", **WORDS)
    called = scene_recipe.inputs(model, explorer.image[None], ["a red ball"])
    assert answer(float(model(**called))) in explorer.message and "a red ball" in explorer.picture.alt and not explorer.details
    upload(explorer, png(np.random.default_rng(1).integers(0, 256, (50, 80, 4), dtype=np.uint8)))
    assert "80 x 50 pixels" in explorer.details and "middle square of 50 x 50" in explorer.details
    explorer.sentence.value = "a red zebra"
    assert 'role="alert"' in explorer.message and "zebra" in explorer.message and not explorer.details


STRANGE = ["the", "$x$", "<b>", r"\alpha", "the", "小狗\n", "the"]


def test_a_word_of_any_script_is_shown_as_it_is_and_picked(monkeypatch):
    fonts = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    explorer = WordExplorer(np.zeros((1, 8, 8)), STRANGE, np.arange(28.0).reshape(7, 2, 2), **WORDS)
    labels = [label for label, _ in explorer.word.options]
    assert len(set(labels)) == 7 and [label.strip("\u200b") for label in labels] == [*STRANGE[:5], r"小狗\n", "the"]
    explorer.word.value = 2
    assert "&lt;b&gt;" in explorer.message and "<b>" not in explorer.message
    below = BeautifulSoup(explorer._shown.value, "html.parser")
    assert [tag.text for tag in below.select(".ce-token-word")] == [*STRANGE[:5], r"小狗\n", "the"] and below.img["alt"]
    data, metadata = DisplayFormatter().format(explorer)
    assert CONTROLS in data and "ce-tokens" in data["text/html"] and metadata["crossexplain"]["name"] == WORDS["name"]


def test_words_from_the_right_begin_at_the_right(pairs):
    arabic = WordExplorer(np.zeros((1, 8, 8)), ["قطة", "صغيرة"], np.ones((2, 2, 2)), **WORDS)
    assert "ce-from-right" in arabic.word._dom_classes and "ce-from-right" not in pairs.word_box._dom_classes
    assert ".ce-from-right{direction:rtl}" in arabic.widget.children[0].value


def test_a_label_that_looks_like_a_formula_or_a_tag_stays_a_label():
    boxes = tick_boxes(["dog", "<b>", "$x$", r"\(a\)"], [""] * 4)
    assert [box.description for box in boxes[:2]] == ["dog", "<b>"] and not any(box.description_allow_html for box in boxes[:2])
    for box, label in zip(boxes[2:], ("$x$", r"\(a\)")):  # else JupyterLab would set it as a formula
        assert box.description_allow_html
        assert BeautifulSoup(box.description, "html.parser").select_one(".mathjax_ignore").text == label
