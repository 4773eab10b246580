"""The same pages in Firefox, where there is one: nothing sticks out, formulas are drawn, the tab key leads on."""

import pytest

from support.firefox import firefox

PAGES = ("intro.html", "notation.html", "glossary.html", "chapters/04*.html", "chapters/06*.html")
TAB = "\ue004"


@pytest.fixture(scope="module")
def fox():
    with firefox() as running:
        if running is None:
            pytest.skip("no Firefox was found: with one (`apt-get install firefox-esr`) the pages are tried in it too")
        yield running


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_in_firefox_what_it_does_elsewhere(fox, html, name):
    path = next(html.glob(name))
    for width in (390, 1280):
        fox.open(path, width)
        room, wide = fox.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
        assert wide <= room, f"{wide} px wide in a window of {room}"
    fox.evaluate("drawFormulas()")
    formulas, drawn = fox.evaluate("['.math', '.math mjx-container'].map(name => document.querySelectorAll(name).length)")
    assert formulas == drawn
    fonts = fox.evaluate("document.fonts.ready.then(() => [...document.fonts].filter(font => font.status === 'error')"
                         ".map(font => font.family))")
    assert not (fonts or fox.errors or fox.outside), (fonts, fox.errors, fox.outside)


def test_the_tab_key_leads_through_the_first_page(fox, html):
    fox.open(html / "intro.html")
    walked = set()
    for _ in range(25):
        fox.press(TAB)
        walked.add(fox.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(walked) == 25


def test_a_term_shows_its_definition_under_the_pointer(fox, html):
    fox.open(next(html.glob("chapters/04*.html")))
    fox.point("a[data-term]")
    words, shown, hidden = fox.evaluate("[document.querySelector('a[data-term]').dataset.term, "
                                        "...(tip => [tip.textContent, tip.hidden])(document.querySelector('#ce-tip'))]")
    assert shown == words and not hidden
