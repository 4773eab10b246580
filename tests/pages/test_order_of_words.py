"""Words in the order in which a browser sets them: the one independent implementation of Unicode's rules that is at hand."""

import html
import random

import numpy as np
import pytest

from crossexplain_book import figures
from crossexplain_book.writing import from_right, left_to_right

KIT = {"alt": "Made-up words whose finding is plain", "caption": "A finding. Read it so.", "name": "fig-x"}
WORDS = ["the", "dog", "iPhone", "小狗", "café", "שלום", "עולם", "قطة", "على", "12", "3,5", "٣", "!", ".", "-", "%", "$", "&",
         "<", "(", ")", "[", "]"]
LEFT = """selector => [...document.querySelectorAll(selector)].map(
    line => [...line.querySelectorAll('.word, .ce-token')].map(word => word.getBoundingClientRect().left))"""


@pytest.fixture(scope="module")
def page(browser):
    context = browser.new_context(offline=True, viewport={"width": 3000, "height": 800})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def sentences() -> list[list[str]]:
    choice = random.Random(0)
    return [[choice.choice(WORDS) for _ in range(choice.randint(1, 12))] for _ in range(200)]


def order(lefts: list[float]) -> list[int]:
    return sorted(range(len(lefts)), key=lefts.__getitem__)


@pytest.fixture(scope="module")
def plain(page, sentences) -> list[list[int]]:
    """The order from the left of the words of plain text."""
    page.set_content("".join('<p dir="auto">' + " ".join(f'<span class="word">{html.escape(word)}</span>' for word in words)
                             for words in sentences))
    return [order(lefts) for lefts in page.evaluate(LEFT, "p")]


def test_the_order_of_words_is_that_of_plain_text(sentences, plain):
    orders = [left_to_right(*from_right(words)) for words in sentences]
    assert [(words, o) for words, o, p in zip(sentences, orders, plain) if o != p] == []


def test_words_for_the_browser_stand_as_plain_text_does(page, sentences, plain):
    page.set_content("".join(figures.tokens_html([words], [np.ones(len(words))], **KIT).html() for words in sentences))
    orders = [order(lefts) for lefts in page.evaluate(LEFT, ".ce-tokens-line")]
    assert [words for words, o, p in zip(sentences, orders, plain) if o != p] == []


def test_words_for_the_browser_can_be_selected_wrap_on_a_telephone_and_are_told_to_a_screen_reader(page):
    words = ["a", "dog", "قطة", "<b>", "$x$"] * 12
    page.set_viewport_size({"width": 390, "height": 800})
    page.set_content(figures.tokens_html([words], [np.linspace(0, 1, len(words))], **KIT).html())
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    assert page.get_by_role("group", name=KIT["alt"]).count() == 1
    page.keyboard.press("Control+A")
    assert page.evaluate("getSelection().toString()").split() == words  # and no number between them
    heights = page.eval_on_selector_all(".ce-token-word", "words => words.map(word => word.getBoundingClientRect().height)")
    assert max(heights) - min(heights) < 12
