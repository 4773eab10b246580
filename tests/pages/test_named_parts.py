"""Pictures that chapters open with, and formulas, say what their parts are: with the focus, under the pointer, at a tap."""

import pytest

from support.visit import Visit, open_page


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_parts_of_an_opening_picture_answer(browser, html, width, theme):
    context = browser.new_context(offline=True, has_touch=True, color_scheme=theme, viewport={"width": width, "height": 900})
    page = open_page(context, next((html / "chapters").glob("10*.html")).as_uri(), Visit())
    parts, tip = page.locator(".ce-parts button"), page.locator("#ce-tip")
    words = [part.get_attribute("data-term") for part in parts.all()]
    assert len(words) > 1 and all("[" in one and one == parts.nth(k).get_attribute("aria-label") for k, one in enumerate(words))
    parts.first.focus()
    assert tip.inner_text() == words[0]
    page.keyboard.press("ArrowDown")
    assert tip.inner_text() == words[1]
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    parts.first.tap()
    assert tip.inner_text() == words[0]
    picture, box = page.locator(".ce-parts img").bounding_box(), parts.first.bounding_box()
    assert picture["x"] <= box["x"] and box["x"] + box["width"] <= picture["x"] + picture["width"] + 8
    context.close()


def test_a_formula_says_what_its_symbols_mean(browser, html):
    context = browser.new_context(offline=True)
    page = open_page(context, next((html / "chapters").glob("06*.html")).as_uri(), Visit())
    formula, tip = page.locator("div.math[data-term]").first, page.locator("#ce-tip")
    formula.focus()
    assert tip.inner_text() == formula.get_attribute("data-term") and tip.inner_text().startswith("z: logit")
    page.keyboard.press("Escape")
    formula.hover()
    assert tip.is_visible()
    context.close()
