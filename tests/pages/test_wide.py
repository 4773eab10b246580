"""Figures that the column would make too small go on into the margin, and the list of sections steps aside meanwhile."""

import pytest

from support.visit import Visit, open_page

SHOWN = "getComputedStyle(document.querySelector('.bd-sidebar-secondary')).opacity"


@pytest.mark.parametrize("width", [1280, 1600])
def test_a_wide_figure_reaches_into_the_margin_and_the_list_of_sections_steps_aside(browser, html, width):
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    page = open_page(context, next((html / "chapters").glob("07*.html")).as_uri(), Visit())
    column = page.locator(".bd-article > section").bounding_box()
    assert page.evaluate(SHOWN) == "1"
    page.locator("#fig-07-board").scroll_into_view_if_needed()
    page.wait_for_selector(".bd-sidebar-secondary.ce-aside", state="attached")
    picture = page.locator("#fig-07-board img").bounding_box()
    assert picture["width"] > column["width"] * 1.2 and picture["x"] + picture["width"] < width
    assert page.evaluate(SHOWN) == "0" and page.evaluate("document.documentElement.scrollWidth") == width
    page.locator(".bd-sidebar-secondary a").first.focus()
    assert page.evaluate(SHOWN) == "1"
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    page.wait_for_selector(".bd-sidebar-secondary:not(.ce-aside)", state="attached")
    context.close()


def test_without_a_margin_it_is_as_wide_as_the_column(browser, html):
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 900})
    page = open_page(context, next((html / "chapters").glob("07*.html")).as_uri(), Visit())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#fig-07-board img").bounding_box()["width"] <= 390
    context.close()
