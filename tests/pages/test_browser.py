"""Every page of the built book, opened from a file in a real browser, does what a reader expects."""

import re

import pytest

from benchmarks.studies import seen
from support.visit import Visit, open_page

MOST_BYTES = 1_500_000  # of a page that opens, before its reader does anything
LEFTOVERS = re.compile(r"\{glue|glue:|\{(?:ref|numref|cite|doc|term|exercise)[^}]*\}|\?\?|\bNone\b \[|<crossexplain")


def _complaints(visits, find) -> str:
    """Return what ``find`` (visit -> list of str) has to say about each page, one line each."""
    return "\n".join(f"{page}: {words}" for page, visit in visits.items() for words in find(visit))


def test_there_is_a_book(visits):
    assert {"intro.html", "notation.html", "search.html", "genindex.html"} <= set(visits)
    assert len(visits) >= 15, f"only {len(visits)} pages: {', '.join(visits)}"


def test_the_front_door_leads_to_the_first_page(browser, html):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((html / "index.html").as_uri())
    page.wait_for_url("**/intro.html")
    assert page.title()
    context.close()


def test_no_errors_in_the_console(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.console)), wrong


def test_nothing_is_asked_of_the_outside_and_nothing_is_missing(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.outside + visit.failed)), wrong


def test_every_image_is_there_and_says_what_it_shows(visits):
    def find(visit: Visit):
        for image in visit.images:
            if not image["width"]:
                yield f"{image['source'][-80:]} did not load"
            ours = "/_static/" not in image["source"]  # the theme's own signs may be short
            if image["alt"] is None or (ours and len(image["alt"].split()) < 6):
                yield f"{image['source'][-80:]} has the text alternative {image['alt']!r}"

    assert not (wrong := _complaints(visits, find)), wrong
    assert sum(len(visit.images) for visit in visits.values()) > 0


def test_no_picture_is_stretched_on_a_phone(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.stretched)), wrong


def test_every_formula_is_drawn(visits):
    def find(visit: Visit):
        return [formula["source"] for formula in visit.formulas if formula["wrong"] or not formula["drawn"]]

    assert not (wrong := _complaints(visits, find)), wrong
    assert len(visits["notation.html"].formulas) > 20


def test_no_page_scrolls_sideways(visits):
    def find(visit: Visit):
        return [f"{width} px, {theme}: {', '.join(out)}" for (width, theme), out in visit.wide.items() if out]

    assert not (wrong := _complaints(visits, find)), wrong


def test_no_visible_code_scrolls_on_a_desk(visits):
    chapters = {page: visit for page, visit in visits.items() if page.startswith("chapters/")}
    assert chapters
    assert not (wrong := _complaints(chapters, lambda visit: visit.scrolling_code)), wrong


def test_every_fold_opens(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.stuck)), wrong


def test_every_quiz_answers_back(visits):
    def find(visit: Visit):
        for question in visit.quiz:
            if question["early"] or question["silent"] or question["right"] != 1 or question["answers"] < 2:
                yield str(question)

    assert not (wrong := _complaints(visits, find)), wrong
    assert any(visit.quiz for visit in visits.values())


def test_no_markup_and_no_number_is_left_unresolved(visits):
    def find(visit: Visit):
        return [visit.text[max(m.start() - 40, 0):m.end() + 40] for m in LEFTOVERS.finditer(visit.text)]

    assert not (wrong := _complaints(visits, find)), wrong


def test_every_figure_has_a_number_and_a_caption(visits):
    def find(visit: Visit):
        return [f"figure {c['id']!r}: {c['number']!r} {c['text']!r}" for c in visit.captions
                if not re.fullmatch(r"Fig\. [\d.]+", c["number"]) or len(c["text"].split()) < 6]

    assert not (wrong := _complaints(visits, find)), wrong


def test_every_page_opens_light(visits):
    def find(visit: Visit):
        if visit.opening.bytes > MOST_BYTES or not visit.opening.paint:
            yield f"{visit.opening.bytes:,} bytes: {visit.opening.files}; first text after {visit.opening.paint:.0f} ms"

    assert not (wrong := _complaints(visits, find)), wrong


def test_the_tab_key_reaches_every_control_and_shows_where_it_is(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.keyboard)), wrong


def test_paper_cuts_nothing_off(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.paper)), wrong


@pytest.mark.skipif(not seen.axe(), reason="axe-core is not installed: pip install axe-playwright-python")
def test_axe_core_has_no_serious_objection(visits):
    assert not (wrong := _complaints(visits, lambda visit: visit.objections)), wrong


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_term_shows_its_definition_with_the_focus_under_the_pointer_and_at_a_tap(browser, html, theme):
    context = browser.new_context(offline=True, has_touch=True, color_scheme=theme)
    page = open_page(context, next((html / "chapters").glob("04*.html")).as_uri(), Visit())
    link, tip = page.locator("a[data-term]").first, page.locator("#ce-tip")
    words = link.get_attribute("data-term")
    link.focus()
    assert tip.inner_text() == words and link.get_attribute("aria-describedby") == "ce-tip"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    link.hover()
    assert tip.is_visible()
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")
    link.tap()
    assert tip.is_visible() and "glossary" not in page.url
    link.tap()
    page.wait_for_url("**/glossary.html#*")
    context.close()


def test_formulas_wait_until_they_are_near_and_are_then_drawn(browser, html):
    context, visit = browser.new_context(offline=True), Visit()
    page = context.new_page()
    page.goto(next((html / "chapters").glob("06*.html")).as_uri())
    page.evaluate(seen.QUIET)
    assert not page.locator("mjx-container").count()
    page.locator(".math").first.scroll_into_view_if_needed()
    page.wait_for_selector("mjx-container")
    assert not visit.console
    context.close()


def test_search_finds_what_the_book_is_about(browser, html):
    context, visit = browser.new_context(offline=True), Visit()
    page = open_page(context, (html / "search.html").as_uri() + "?q=dividend", visit)
    page.wait_for_selector("#search-results li a", timeout=10_000)
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
    assert any("notation" in href or "glossary" in href for href in found), found
    page.wait_for_timeout(300)  # what a search starts may fail a moment later
    assert not (visit.console or visit.failed or visit.outside), visit
    context.close()


def test_the_theme_can_be_switched(browser, html):
    context = browser.new_context(offline=True)
    page = open_page(context, (html / "intro.html").as_uri(), Visit())
    colours = set()
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2, f"both themes have the ground {colours}"
    assert page.eval_on_selector("img.dark-light", "image => getComputedStyle(image).filter") == "none"
    context.close()
