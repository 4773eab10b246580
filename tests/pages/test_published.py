"""A published page in a real browser, from a file, on a phone and in both themes: it says what PyTorch says."""

import re

import pytest
import torch

from crossexplain.evaluation.methods import explain
from crossexplain.gradients.question import Question
from crossexplain.runs import known
from crossexplain_book.publish import publish, runtime
from crossexplain_book.publish.page import content_of
from support.published import MODALITIES, Small, batch, covered, evidence_class, evidence_of, require_live
from support.visit import LOCAL

HOSTILE = "<img src=x onerror=alert(1)>"
CELLS, WORDS = [f"row {r}, column {c}" for r in (1, 2) for c in (1, 2)], ["one", "two", HOSTILE, "four"]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("published") / "page.html"
    return publish(Small(), batch(12), MODALITIES, path, shown=3, names={"text": WORDS}, classes=["a", "b", "c"],
                   live=False).as_uri()


@pytest.fixture(params=["light", "dark"])
def page(browser, address, request):
    """The page on a phone, with a list of what went wrong or was asked for elsewhere."""
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 900}, color_scheme=request.param)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda asked: None if asked.url.startswith(LOCAL) else wrong.append(asked.url))
    page.goto(address)
    yield page
    assert not wrong
    context.close()


def agrees(page, example: int, hidden: list[int]) -> None:
    """Hold what the page says to PyTorch."""
    evidence, predicted = evidence_of(example, hidden)
    text = page.locator("[role=status]").inner_text()
    found = re.search(r'model says "(.)" \(evidence for "." ([+-][\d.]+(?:e-\d+)?)\)', text)
    assert found[1] == "abc"[predicted] and float(found[2]) == pytest.approx(evidence, rel=0.01, abs=1e-3), text


def test_a_reader_covers_cells_words_and_modalities(page):
    agrees(page, 0, [])
    page.get_by_role("button", name=f"cover cell {CELLS[1]}").click()
    agrees(page, 0, [1])
    page.get_by_role("button", name="cover token one").focus()
    page.keyboard.press("Space")  # the button is made anew and keeps the focus
    agrees(page, 0, [1, 4])
    assert "their interaction is" in page.locator("main").inner_text()
    page.keyboard.press("Enter")
    agrees(page, 0, [1])
    page.get_by_role("button", name="cover all of text").click()
    agrees(page, 0, [1, 4, 5, 6, 7])
    page.get_by_label("Example").select_option("2")
    agrees(page, 2, [])
    for score in page.get_by_label("Scores").locator("option").all():
        page.get_by_label("Scores").select_option(score.get_attribute("value"))
        agrees(page, 2, [])
    page.get_by_role("button", name="cover token four").click()
    page.reload()  # the state is in the address
    agrees(page, 2, [7])
    page.get_by_role("button", name="uncover all").click()
    agrees(page, 2, [])


def test_what_is_hostile_is_a_word_and_what_is_no_state_is_passed_over(page, address):
    assert HOSTILE in page.locator("main").inner_text() and not page.locator("img[src=x]").count()
    for nonsense in ("length~~", "0~99~0", "1~1.x~0", "%3Cscript%3E", "2~~99", "-1~~0"):
        page.goto("about:blank")
        page.goto(f"{address}#page={nonsense}")
        agrees(page, 0, [])


def test_nothing_sticks_out_and_nothing_is_without_a_name(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, select, img')].filter((e) => !(e.alt ||
        e.getAttribute('aria-label') || e.innerText.trim() || e.closest('label'))).map((e) => e.outerHTML)""")
    assert not nameless, nameless
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    ground = page.evaluate("getComputedStyle(document.querySelector('.ce-lab-live')).backgroundColor")
    assert ground == ("rgb(27, 30, 34)" if dark else "rgb(253, 253, 251)")


def test_without_scripts_the_answers_and_the_verdict_stand(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert "these are the answers" in page.locator("main").inner_text() and page.locator("tbody tr").count() == 3
    context.close()


@pytest.fixture(scope="module", params=[False, True], ids=["beside", "inline"])
def live(tmp_path_factory, request) -> str:
    """A page in which the model can be started."""
    require_live()
    path = tmp_path_factory.mktemp("live") / "page.html"
    publish(Small(), batch(12), MODALITIES, path, shown=2, states=30, classes=["a", "b", "c"], live=True, inline=request.param)
    assert (path.parent / "onnxruntime" / runtime.NAME).exists() != request.param
    return path.as_uri()


def test_a_started_model_says_what_pytorch_says_of_anything_covered(browser, live):
    context = browser.new_context(offline=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(LOCAL) else wrong.append(asked.url))
    page.goto(f"{live}#page=1~0.2.5~0")
    assert "No answer is stored" in page.locator("[role=status]").inner_text()
    page.get_by_role("button", name="start the model").click()
    page.get_by_text("With 3 covered").wait_for(timeout=60_000)
    difference = float(re.search(r"stored ones by (\S+) at most", page.locator("[role=note]").inner_text())[1])
    assert difference < 1e-4
    agrees(page, 1, [0, 2, 5])
    page.get_by_label("Scores").select_option(label="gradient (round 1)")
    page.get_by_text("as it is covered, computed in this page").wait_for()
    shown = [float(button.get_attribute("aria-label").rpartition(" ")[2])
             for button in page.get_by_role("button", name=re.compile("^cover (cell|token)")).all()]
    told = explain(Small(), covered(1, [0, 2, 5]), MODALITIES, "gradient norm",
                   target=torch.tensor([evidence_class(1)])).values
    assert shown == pytest.approx([*told["image"][0].tolist(), *told["text"][0].tolist()], rel=0.01, abs=1e-6)
    page.get_by_role("button", name="cover all of text").click()
    page.get_by_text("With 6 covered").wait_for()
    agrees(page, 1, [0, 2, 4, 5, 6, 7])
    assert not wrong
    context.close()


def test_the_published_page_of_the_book_says_what_pytorch_says(browser, html):
    path = html / "published" / "scenes.html"
    content, subject = content_of(path), known.model("scenes_clip_cnn")
    inputs = subject.inputs([next(known.data("scenes").entries()).load()])
    question = Question(subject.model, inputs, subject.modalities)
    covered = [0, 1, 7, 38] if content["live"] else [0]
    keep = torch.ones(1, question.joined().shape[1], dtype=torch.bool)
    keep[0, question.joined()[0].nonzero()[covered, 0]] = False
    expected = question.evidence(question.logits(question.hidden(keep, torch.tensor([0]))), torch.tensor([0]))
    page = browser.new_context(offline=True).new_page()
    page.goto(f"{path.as_uri()}#page=0~{'.'.join(map(str, covered))}~0")
    if content["live"]:
        page.get_by_role("button", name="start the model").click()
    page.get_by_text(f"With {len(covered)} covered").wait_for(timeout=60_000)
    text = page.locator("[role=status]").inner_text()
    told = re.search(r'covered the model says ".*?" \(evidence for ".*?" ([+-][\d.]+)', text)
    assert float(told[1]) == pytest.approx(float(expected), rel=0.005)
    page.context.close()
