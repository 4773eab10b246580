"""The collage lab in a real browser, from a file: it says what PyTorch says, by pointer, finger and key, on a phone too."""

import importlib.util
import re

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import live as bench
from crossexplain import Game
from crossexplain.coalitions.shapley import shapley
from crossexplain.recipes import load_or_train
from crossexplain_book import live
from crossexplain_book.build import add_live_parts
from support.collage_lab import SIDES, logit_of, pair_of, said, state_of
from support.lab import jupyterlab
from support.visit import LOCAL

SIZES = (2, 3, 5, 10, 20, 50, 100, 200)  # pairs over which verdicts are compared
ROUNDED = 8  # pairs whose rounds are compared


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    return bench.written(tmp_path_factory.mktemp("live")).as_uri()


@pytest.fixture
def page(browser, address):
    """A page with the lab, on a phone, with a list of what went wrong or was asked for outside the folder."""
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 900}, has_touch=True)
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith(LOCAL) else wrong.append(request.url))
    page.goto(address)
    page.wrong = wrong
    yield page
    assert not wrong
    context.close()


def started(page):
    """Start the lab, and return it once it answers."""
    page.get_by_role("button", name="Start the lab").click()
    page.wait_for_selector(".ce-lab-live")
    return page.locator(".ce-lab-live")


def agrees(page) -> None:
    """Hold what the page says to PyTorch's logit of the state in its address."""
    assert shown(page) == pytest.approx(logit_of(state_of(page)), abs=0.006)


def shown(page) -> float:
    """Return the logit that the lab shows."""
    return said(page.locator(".ce-lab-live [role=status]").first.inner_text())


def test_all_stored_pairs_and_their_verdicts_are_those_of_pytorch(page):
    page.set_default_timeout(0)
    theirs, ours = bench.asked(page, 0, ROUNDED, SIZES), bench.reference(0, ROUNDED, SIZES)
    worst = bench.differences(theirs, ours)
    assert worst.pop("cosines") < 1e-3 and max(worst.values()) < 1e-4, worst
    assert [answer for answer, _ in theirs["verdicts"]] == [answer for answer, _ in ours["verdicts"]]
    # A share that is three quarters exactly may fall on either side in a few bootstrap samples.
    np.testing.assert_allclose([support for _, support in theirs["verdicts"]], [support for _, support in ours["verdicts"]],
                               atol=0.02)


def test_half_precision_changes_no_answer():
    inputs, whole = live.kept_pairs().inputs(), load_or_train("collages", progress=False).model
    with torch.no_grad():
        before, after = whole(**inputs), live.model()(**inputs)
    assert torch.equal(before > 0, after > 0) and (before - after).abs().max() < 0.1


def test_a_page_is_light_until_the_lab_is_started_and_the_lab_is_no_more_than_two_megabytes():
    assert len(bench.lab().html()) < 150_000
    assert len(live.script().encode()) < 2_000_000


def test_the_book_has_the_live_part_only_where_a_page_asks_for_it(tmp_path):
    chapter = tmp_path / "chapters" / "one.html"
    chapter.parent.mkdir()
    for text in ("<p>no lab</p>", bench.lab().html()):
        chapter.write_text(text, "utf-8")
        add_live_parts(tmp_path)
        assert (tmp_path / live.SCRIPT).is_file() == ("ce-lab" in text)


def test_a_reader_changes_digits_words_and_what_is_covered(page):
    lab = started(page)
    assert shown(page) == pytest.approx(logit_of(bench.lab().state), abs=0.006)
    lab.get_by_role("button", name="lower left cell").click()
    lab.get_by_role("button", name="put a 7 into the chosen cell").tap()  # by finger
    agrees(page)
    lab.get_by_role("button", name="upper right cell").press("3")  # by key
    agrees(page)
    lab.get_by_label("a sentence of the data", exact=True).select_option("there are 2 even digit(s) in the picture")
    agrees(page)
    lab.get_by_label("type a sentence").fill("The smallest digit is on the left half")
    page.keyboard.press("Enter")
    agrees(page)
    assert "smallest" in lab.locator(".ce-lab-words").inner_text()
    for button in ("cover the cell upper left", "cover word 2, smallest", "cover word 7, left"):
        lab.get_by_role("button", name=button).click()
        agrees(page)
    for stand_in in ("data", "mean + pad"):
        lab.get_by_label("What stands in").select_option(stand_in)
        agrees(page)
    lab.get_by_label("Map").select_option("layer-cam")
    lab.get_by_label("Word scores").select_option("activation x gradient")
    agrees(page)
    lab.get_by_role("button", name="uncover all").click()
    lab.get_by_role("button", name="next stored pair").click()
    agrees(page)
    expected = live.kept_pairs().digits[0].tolist()
    assert f"reads the digits {', '.join(map(str, expected))}" in lab.locator("[role=status]").first.inner_text()


def test_digits_are_dragged_and_drawn_by_pointer_and_by_key(page):
    lab = started(page)
    middle = [page.evaluate("([text]) => { const e = [...document.querySelectorAll('.ce-lab-live button')].find((b) => "
                            "b.getAttribute('aria-label')?.startsWith(text)).getBoundingClientRect(); "
                            "return [e.x + e.width / 2, e.y + e.height / 2] }", [text])
              for text in ("put a 8", "lower right cell", "upper left cell")]
    before = bench.lab().state
    for start, end in ((0, 1), (1, 2)):  # a digit into a cell, a cell onto another
        page.mouse.move(*middle[start])
        page.mouse.down()
        page.mouse.move(*middle[end], steps=5)
        page.mouse.up()
        assert state_of(page) != before
        before = state_of(page)
        agrees(page)
    assert "upper left cell, a 8" in lab.locator(".ce-lab-cells button").first.get_attribute("aria-label")
    lab.get_by_role("button", name="draw into the chosen cell").click()
    pad = lab.locator(".ce-lab-drawing").bounding_box()
    page.mouse.move(pad["x"] + 90, pad["y"] + 20)
    page.mouse.down()
    page.mouse.move(pad["x"] + 90, pad["y"] + 170, steps=6)
    page.mouse.up()
    assert "=" in state_of(page) and re.search(r"reads the digits 1, ", lab.locator("[role=status]").first.inner_text())
    agrees(page)
    lab.get_by_role("button", name="clear the pad").click()
    for key in (*["ArrowUp"] * 6, "Space", *["ArrowDown"] * 12, "Space"):
        page.keyboard.press(key)
    assert "=" in state_of(page)
    agrees(page)


def test_a_word_that_the_model_does_not_know_is_named_with_the_nearest(page):
    lab = started(page)
    before = lab.locator("[role=status]").first.inner_text()
    lab.get_by_label("type a sentence").fill("the biggest digit is on the lefd half")
    page.keyboard.press("Enter")
    assert 'is no word of the data; the nearest is "' in lab.locator("[role=alert]").inner_text()
    assert lab.locator("[role=status]").first.inner_text() == before


def test_the_verdict_over_the_pairs_seen_so_far_is_the_packages(page):
    lab = started(page)
    page.wait_for_function("document.querySelector('.ce-lab-live').innerText.includes('speaks of several pairs')")
    lab.get_by_role("button", name="ask 20 stored pairs more").click()
    page.wait_for_function("document.querySelector('.ce-lab-live').innerText.includes('over the 20 pairs')", timeout=60_000)
    text, found = lab.locator("[role=status]").nth(1).inner_text(), bench.verdict_of(20)
    assert f"pairs seen so far: {found.answer} (support {found.support:.2f})" in text


def test_exact_values_are_those_of_the_game(page):
    lab = started(page)
    lab.locator(".ce-lab-exact button").click()
    page.wait_for_selector(".ce-lab-exact table", timeout=60_000)
    inputs, _, stand_in = pair_of(bench.lab().state)
    game = Game(live.model(), inputs, SIDES, baselines=bench.STAND_INS[stand_in], players={"text": 9}, progress=False)
    phi = shapley(game.values_of_all()[0].numpy())
    shown = lab.locator(".ce-lab-exact table").first.locator("td:nth-child(2)").all_inner_texts()
    assert [float(value) for value in shown] == pytest.approx(phi.tolist(), abs=0.006)


def test_a_link_leads_to_its_state_and_what_is_no_state_to_the_first(browser, address):
    context = browser.new_context(offline=True)
    state = "0.1.2.3~q.i.b.f.l.q.j.f~2~4~1~1~0"
    page = context.new_page()
    for text, expected in ((state, state), ("0.1.2~nonsense", bench.lab().state)):
        page.goto("about:blank")
        page.goto(f"{address}#lab={text}")  # starts by itself
        page.wait_for_selector(".ce-lab-live")
        assert shown(page) == pytest.approx(logit_of(expected), abs=0.006)
    page.evaluate("state => { location.hash = '#lab=' + state }", state.replace("0.1.2.3", "9.8.7.6"))
    page.wait_for_timeout(200)
    agrees(page)
    context.close()


def test_no_control_is_without_a_name_and_nothing_sticks_out(page):
    lab = started(page)
    lab.locator(".ce-lab-exact button").click()
    page.wait_for_selector(".ce-lab-exact table", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate("""() => [...document.querySelectorAll('.ce-lab-live :is(button, select, input, canvas[role])')]
        .filter((e) => !(e.getAttribute('aria-label') || e.innerText.trim() || e.closest('label'))).map((e) => e.outerHTML)""")
    assert not nameless, nameless
    assert page.evaluate("getComputedStyle(document.querySelector('.ce-lab-live')).backgroundColor") == "rgb(253, 253, 251)"


def test_without_a_script_or_without_the_live_part_the_first_state_stands(browser, tmp_path):
    path = bench.written(tmp_path)
    (tmp_path / live.SCRIPT).unlink()
    for scripts in (False, True):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(path.as_uri())
        assert "The model says" in page.locator("img").get_attribute("alt")
        assert page.locator("button").is_visible() == scripts
        if scripts:
            page.locator("button").click()
            page.get_by_text("is missing").wait_for()
        assert page.locator("img").is_visible()
        context.close()


@pytest.mark.skipif(importlib.util.find_spec("anywidget") is None, reason="anywidget is not installed")
def test_the_same_module_answers_in_jupyterlab(browser, tmp_path):
    root = tmp_path / "notebooks"
    root.mkdir()
    cell = "from benchmarks.live import lab\nfirst = lab()\nfirst"
    nbformat.write(new_notebook(cells=[new_code_cell(cell), new_code_cell("print('state', first.widget.state)")],
                                metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}), root / "lab.ipynb")
    with jupyterlab(tmp_path, root, tmp_path / "server.log") as server:
        page = browser.new_context(viewport={"width": 1300, "height": 2400}).new_page()
        page.goto(server.format("/tree/lab.ipynb"), timeout=180_000)
        page.get_by_text("(ipykernel) | Idle").wait_for(timeout=180_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.locator(".ce-lab-live [role=status]").first.wait_for(timeout=180_000)
        lab = page.locator(".ce-lab-live")
        assert shown(page) == pytest.approx(logit_of(bench.lab().state), abs=0.006)
        lab.get_by_role("button", name="upper right cell").press("3")
        page.locator(".jp-CodeCell").nth(1).click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function("first => { const all = [...document.querySelectorAll('.jp-OutputArea-output')].map((e) => "
                               "e.innerText).find((text) => text.startsWith('state')); return all && !all.includes(first) }",
                               arg=bench.lab().state)
        state = page.locator(".jp-RenderedText", has_text="state ").inner_text().split()[1]
        assert shown(page) == pytest.approx(logit_of(state), abs=0.006)
        page.context.close()
