"""The explorers in a real JupyterLab: click, type and upload, and what is shown is what the Python call returns."""

import base64
import io
import time
from datetime import UTC, datetime
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from support.lab import jupyterlab

# The cells of the notebook. This test runs them too, and so has the same explorers to compare with.
CELLS = ["""
import torch
from crossexplain.data import collages
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.views import Mask, Views
from crossexplain.recipes import load_or_train
from crossexplain_book import readers
from crossexplain_book.explorers import CaptionExplorer, PairExplorer, WordExplorer, explainer

trained = load_or_train("collages", progress=False)
model, test = trained.model, collages.build(trained.data, 32, "test", 1)
modalities = ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)
inputs = test.inputs()
words = [collages.words(row) for row in inputs["tokens"]]
""", """
pairs = PairExplorer(model, inputs, modalities, words, cells=list(collages.CORNERS), labels=test.labels,
                     name="fig-pairs", caption="What is left when parts are covered. Click to cover.")
pairs
""", """
caption = CaptionExplorer({"collages": explainer(model, readers.collage, modalities),
                           "collages, signed": explainer(model, readers.collage, modalities, map_method="gradient x input")},
                          test.images([0])[0].expand(3, -1, -1), " ".join(words[0]),
                          name="fig-caption", caption="Your own image and sentence. Upload and type.")
caption
""", """
without = [~row for row in torch.eye(inputs["tokens"].shape[1], dtype=torch.bool)]       # all words but one
cells = [torch.ones(4, dtype=torch.bool), *(~torch.eye(4, dtype=torch.bool))]             # all cells, all but one
plan = {(t, c): {"image": Mask(kept, "zero")} | ({"text": Mask(without[t - 1], "mask")} if t else {})
        for t in range(len(words[0]) + 1) for c, kept in enumerate(cells)}
one = {key: value[:1] for key, value in inputs.items()}
value = model(**Views(one, modalities, plan).inputs).reshape(-1, 5)          # (1 + T, 1 + 4), nothing covered first
together = value[:1, :1] - value[1:, :1] - value[:1, 1:] + value[1:, 1:]     # dividend of each word and cell
maps = WordExplorer(one["images"][0], words[0], together.reshape(-1, 2, 2), label="dividend of word and cell",
                    name="fig-words", caption="A word and the cells it goes with. Pick a word.")
maps
""", """
from functools import partial
from crossexplain.data import scenes
from crossexplain.recipes import scenes as scene_recipe

drawn = scenes.load(sizes=(2, 2, 20))
nets = {name: load_or_train(f"scenes_{name}", progress=False).model for name in ("clip_cnn", "clip_vit", "fusion")}
grids = {"clip_cnn": (6, 6), "clip_vit": (8, 8), "fusion": (6, 6)}
sides = {name: (ImageCells(layer=net.image_layer, grid=grids[name]),
                Tokens(layer=net.text_layer, special=() if name == "fusion" else (2, 3))) for name, net in nets.items()}
own = CaptionExplorer({name: explainer(net, partial(readers.scene, net), sides[name]) for name, net in nets.items()},
                      drawn.images([4])[0], drawn.captions[4][0], name="fig-own",
                      caption="Your own image and sentence. Upload and type.")
own
""", """
from crossexplain.gradients.attention import word_by_patch

asked = scene_recipe.inputs(nets["clip_vit"], drawn.images([4]), [drawn.captions[4][0]])
patches = WordExplorer(asked["images"][0], drawn.captions[4][0].split(), word_by_patch(nets["clip_vit"], asked)[0, 1:-1],
                       label="word by patch", name="fig-patches", caption="A word and the patches it goes with. Pick a word.")
patches
""", """
import numpy as np
from crossexplain_book.explorers import ConversationExplorer
from crossexplain_book.strips import Strip

pixels = np.random.default_rng(0)
frames, sound = pixels.random((3, 2, 6, 6)), pixels.normal(size=(3, 12, 8))
talks = [Strip(["ben", "mia", "ben"], [["seven"], ["no"], []], frames, sound, question)
         for question in ("was it seven?", "was it eight?")]
talk = ConversationExplorer({"silence": lambda example, keep: keep @ np.arange(9) - 10.0 - 5 * example,
                             "data": lambda example, keep: 0.5 - keep[:, 1]}, talks, labels=[True, False],
                            name="fig-talk", caption="What is left when parts are muted. Tick to mute.")
talk
"""]
TALK = ":not(.ce-conversation img)"  # the last explorer shows a table of small pictures

# As many results as wanted, or an error.
SETTLED = f"""wanted => document.querySelectorAll('.jp-OutputArea img[alt]{TALK}').length === wanted
    && document.querySelector('.ce-conversation')
    || document.querySelector(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")"""
# Click, and say after how many seconds the picture and what stands below it have changed.
FOLLOWS = """async box => {
    const output = box.closest('.jp-OutputArea'), began = performance.now(), done = [];
    const picture = () => output.querySelector('img')?.src, verdict = () => output.innerText.split('Verdict')[1];
    const before = [picture(), verdict()];
    box.click();
    while (done.length < 2 && performance.now() - began < 5000) {
        await new Promise(requestAnimationFrame);
        if (done.length === 0 && picture() !== before[0]) done.push((performance.now() - began) / 1000);
        if (done.length === 1 && verdict() !== before[1]) done.push((performance.now() - began) / 1000);
    }
    return [...done, 5, 5].slice(0, 2);
}"""


class Text(HTMLParser):
    """The text of a piece of HTML."""

    def __init__(self, page: str):
        super().__init__()
        self.parts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def plain(page: str) -> str:
    return " ".join(" ".join(Text(page).parts).split())


@pytest.fixture(scope="module")
def explorers():
    """The explorers in this process."""
    names: dict = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the kernel
    for cell in CELLS:
        exec(cell, names)  # noqa: S102 - the text above
    yield names
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """A page of JupyterLab in which the notebook has run; requests to elsewhere are refused and noted."""
    folder = tmp_path_factory.mktemp("ein Büch")
    root = folder / "notebooks"
    root.mkdir()
    notebook = new_notebook(cells=[new_code_cell(text.strip()) for text in CELLS],
                            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nbformat.write(notebook, root / "explorers.ipynb")
    with jupyterlab(folder, root, folder / "server.log") as address:
        context = browser.new_context(viewport={"width": 1300, "height": 2900})
        page = context.new_page()
        page.outside, page.errors = [], []
        home = address.split("/lab")[0]

        def refuse(route) -> None:
            page.outside.append(route.request.url)
            route.abort()

        page.route(lambda url: not url.startswith((home, home.replace("http", "ws"), "data:", "blob:")), refuse)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(address.format("/tree/explorers.ipynb"), timeout=180_000)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=180_000)
        page.get_by_text("(ipykernel) | Idle").wait_for(timeout=180_000)  # else it asks which kernel to run with
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(SETTLED, arg=len(CELLS) - 2, timeout=180_000)
        failed = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
        assert page.locator(f".jp-OutputArea img[alt]{TALK}").count() == len(CELLS) - 2, "\n".join(failed)
        yield page
        context.close()


def cell_of(page, number: int):
    """Return the output of a cell of the notebook."""
    return page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-OutputArea").first


def shows(page, number: int, explorer, seconds: float = 60) -> None:
    """Wait until the cell shows what the explorer in this process shows: its words and its picture."""
    until = time.monotonic() + seconds
    while wrong := difference(cell_of(page, number), explorer):
        assert time.monotonic() < until, wrong
        time.sleep(0.05)


def difference(area, explorer) -> str:
    """Say in what an output differs from an explorer of this process; nothing if it does not."""
    page = area.evaluate("e => ({text: e.innerText, pictures: [...e.querySelectorAll('img')].map(i => [i.alt, i.src])})")
    shown = " ".join(page["text"].split())
    missing = [text for text in map(plain, (explorer.message, explorer.details)) if text not in shown]
    if missing:
        return f"expected {missing}, the page says {shown!r}"
    if not explorer._shown.value:
        return "a picture is left of another state" if page["pictures"] else ""
    ((alt, source),) = page["pictures"] or [("", "")]
    if alt != explorer.picture.alt:
        return f"expected the text alternative {explorer.picture.alt!r}, got {alt!r}"
    theirs, ours = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float) for data in
                    (base64.b64decode(source.partition(",")[2]), explorer.picture.png()))
    alike = theirs.shape == ours.shape and np.abs(theirs - ours).mean() < 0.5
    return "" if alike else "another picture than the Python call's"


def test_what_is_covered_by_click_and_by_key_is_what_the_python_call_covers(lab, explorers):
    pairs, area = explorers["pairs"], cell_of(lab, 1)
    shows(lab, 1, pairs)
    assert "both only" in area.inner_text()
    area.get_by_label("lower left", exact=True).check()
    pairs.cells[2].value = True
    shows(lab, 1, pairs)
    area.get_by_label("largest", exact=True).focus()
    lab.keyboard.press("Space")
    pairs.ticks[1].value = True
    shows(lab, 1, pairs)
    for label, control in (("Map", pairs.map), ("Word scores", pairs.word), ("Stand-in", pairs.baseline)):
        area.get_by_label(label, exact=True).select_option(index=len(control.options) - 1)
        control.index = len(control.options) - 1
        shows(lab, 1, pairs)


def test_another_pair_brings_its_own_words(lab, explorers):
    pairs, area = explorers["pairs"], cell_of(lab, 1)
    area.get_by_label("Pair", exact=True).select_option(index=12)
    pairs.pair.value = 12
    shows(lab, 1, pairs)
    assert not area.locator("input:checked").count()
    last = area.locator("input[type=checkbox]").last
    last.check()
    pairs.ticks[-1].value = True
    shows(lab, 1, pairs)


def give(page, number: int, content: bytes, name: str) -> None:
    """Choose a file as a reader does."""
    with page.expect_file_chooser() as chooser:
        cell_of(page, number).get_by_role("button", name="Upload an image").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_an_image_and_a_sentence_of_ones_own(lab, explorers):
    caption, area = explorers["caption"], cell_of(lab, 2)
    stream = io.BytesIO()
    pixels = explorers["test"].images([20])[0, 0].numpy()
    Image.fromarray(np.uint8(255 - 255 * np.kron(pixels, np.ones((2, 2))))).save(stream, "png")
    sentence = area.get_by_label("Sentence", exact=True)
    for name, content in (("größe 1.png", stream.getvalue()), ("notes.txt", b"no image"), ("empty.png", b""),
                          ("large.png", bytes(12_000_000)), ("mine.png", stream.getvalue())):
        give(lab, 2, content, name)
        caption.upload.value = ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
                                 "last_modified": datetime.now(UTC)},)
        shows(lab, 2, caption)
        wrong = {"notes.txt": "cannot be read as an image", "empty.png": "is empty", "large.png": "at most 10 are taken"}
        assert wrong.get(name, "The model says") in caption.message
    for text in ("there are 2 even digit(s) in the picture", "a dog runs", "", "the largest digit is on the left half"):
        sentence.fill(text)
        lab.keyboard.press("Enter")
        caption.sentence.value = text
        shows(lab, 2, caption)
    area.get_by_label("Model", exact=True).select_option("collages, signed")
    caption.model.value = "collages, signed"
    shows(lab, 2, caption)


def test_a_word_is_picked_and_its_map_shown(lab, explorers):
    maps, area = explorers["maps"], cell_of(lab, 3)
    shows(lab, 3, maps)
    area.get_by_role("button", name="lower", exact=True).click()
    maps.word.value = explorers["words"][0].index("lower")
    shows(lab, 3, maps)
    lab.keyboard.press("Tab")
    lab.keyboard.press("Space")  # the next word
    maps.word.value += 1
    shows(lab, 3, maps)


def test_a_photograph_and_a_sentence_through_every_model(lab, explorers):
    own, area = explorers["own"], cell_of(lab, 4)
    shows(lab, 4, own)
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((1600, 900)).save(stream, "jpeg")
    for name, content, expected in (("wide.jpg", stream.getvalue(), "middle square of 900 x 900"),
                                ("half.jpg", stream.getvalue()[:4000], "cannot be read as an image"),
                                ("wide.jpg", stream.getvalue(), "scaled to 96 x 96")):
        give(lab, 4, content, name)
        own.upload.value = ({"name": name, "type": "image/jpeg", "size": len(content), "content": memoryview(content),
                             "last_modified": datetime.now(UTC)},)
        shows(lab, 4, own)
        assert expected in own.message + own.details
    sentence = area.get_by_label("Sentence", exact=True)
    for text in ("A red ball on the grass.", "a red unicorn on the grass", "two boxes"):
        sentence.fill(text)
        lab.keyboard.press("Enter")
        own.sentence.value = text
        shows(lab, 4, own)
        assert ("unicorn" in text) == ("alert" in own.message)
    for name in ("clip_vit", "fusion"):
        area.get_by_label("Model", exact=True).select_option(name)
        own.model.value = name
        shows(lab, 4, own)


def test_a_word_and_its_patches(lab, explorers):
    patches, area = explorers["patches"], cell_of(lab, 5)
    shows(lab, 5, patches)
    area.get_by_role("button", name=patches.words[-1], exact=True).last.click()
    patches.word.value = len(patches.words) - 1
    shows(lab, 5, patches)


def test_parts_of_a_conversation_are_muted_by_click_and_by_key(lab, explorers):
    talk, area = explorers["talk"], cell_of(lab, 6)

    def shows_talk() -> None:
        until = time.monotonic() + 60
        muted = BeautifulSoup(talk.picture.markup, "html.parser").select(".ce-muted")
        while plain(talk.message) not in " ".join(area.inner_text().split()) or area.locator(".ce-muted").count() != len(muted):
            assert time.monotonic() < until, f"expected {talk.message!r}, the page says {area.inner_text()!r}"
            time.sleep(0.05)

    shows_talk()
    area.get_by_label("ben", exact=True).check()
    talk.boxes["party"].children[0].value = True
    shows_talk()
    area.get_by_label("frames 2", exact=True).focus()
    lab.keyboard.press("Space")
    talk.parts.children[4].value = True
    shows_talk()
    area.get_by_label("Stand-in", exact=True).select_option(index=1)
    talk.stand_in.index = 1
    shows_talk()
    area.get_by_label("Conversation", exact=True).select_option(index=1)
    talk.conversation.index = 1
    shows_talk()
    assert not area.locator("input:checked").count() and "was it eight?" in area.locator(".ce-conversation").inner_text()


def test_it_follows_at_once(lab, explorers, record_property):
    """Measured, not asserted: other programs may be running."""
    area = cell_of(lab, 1)
    box = area.get_by_label("upper right", exact=True)
    seconds = [lab.evaluate(FOLLOWS, box.element_handle()) for _ in range(20)]
    for part, values in zip(("picture", "verdict"), zip(*seconds)):
        record_property(f"seconds to the {part}", values)
        print(f"click to {part}: median {np.median(values):.2f} s, slowest {max(values):.2f} s of {len(values)}")


def test_nothing_was_asked_of_the_outside_and_nothing_went_wrong(lab):
    assert not lab.outside and not lab.errors, (lab.outside, lab.errors)
