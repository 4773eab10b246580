"""The explorer of conversations in a real browser, on a page without a kernel: every click answers as Python does."""

import pytest

from crossexplain_book.explorers import ConversationExplorer
from support.talks import table, talk

TABLES = {0: table(4), 1: table(3, "either", 1)}
KIT = {"name": "fig-talk", "caption": "An explorer. Read it so."}


@pytest.fixture(scope="module")
def explorer():
    return ConversationExplorer(None, [talk(4), talk(3, seed=1)], stored=TABLES, labels=[True, False], **KIT)


@pytest.fixture
def page(browser, explorer, tmp_path):
    """The explorer twice on one page, as it stands in a file."""
    path = tmp_path / "page.html"
    body = explorer.page().markup * 2
    path.write_text(f"<!doctype html><html lang='en'><title>talk</title><body>{body}</body></html>", "utf-8")
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 900})
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('[data-ready]').length === 2")
    page.wait_for_timeout(200)  # what is stored is unpacked
    yield page
    assert not page.errors
    context.close()


def shows(page, explorer, example: int, **muted) -> None:
    """Assert that the first explorer of the page says what Python says of a muting."""
    one, strip, keep = page.locator(".ce-one").nth(example), explorer.strips[example], explorer.kept(example, **muted)
    step = float(one.get_attribute("data-step"))
    heard = explorer.read(example, **muted)
    said = one.locator("[role=status]").inner_text()
    assert ("model says yes" in said) == (heard.logit > 0) and ("muted it says yes" in said) == (heard.before > 0)
    shown = float(said.split("(logit ")[1].split(")")[0])
    assert abs(shown - heard.logit) <= 0.05 + step
    names = one.locator(".ce-dividends th").all_inner_texts()
    cells = [float(text) for text in one.locator(".ce-dividends td").all_inner_texts()]
    dividends = {" + ".join(subset): value for subset, value in heard.dividends.items() if subset}
    assert names == list(dividends) and cells == pytest.approx(list(dividends.values()), abs=0.06 + 8 * step)
    expected = {f"{name} {t}" for m, name in enumerate(("words", "frames", "sound")) for t in range(len(strip))
                if not keep[m, t] and strip.has(name, t)}
    assert set(one.locator(".ce-muted [data-part]").evaluate_all("all => all.map(b => b.dataset.part)")) == expected


def press(page, name: str) -> None:
    page.locator(".ce-one").first.get_by_role("button", name=name, exact=True).first.click()


def test_every_way_to_mute_answers_as_python_does(page, explorer):
    shows(page, explorer, 0)
    press(page, "mute turn 4")
    shows(page, explorer, 0, turns=[3])
    press(page, "mute ben")
    shows(page, explorer, 0, turns=[3], parties=["ben"])
    press(page, "mute frames")
    shows(page, explorer, 0, turns=[3], parties=["ben"], modalities=["frames"])
    press(page, "mute the words of turn 2, mia: no")
    shows(page, explorer, 0, turns=[3], parties=["ben"], modalities=["frames"], parts=[("words", 1)])
    press(page, "mute frames")
    shows(page, explorer, 0, turns=[3], parties=["ben"], parts=[("words", 1)])
    page.get_by_role("button", name="unmute all").first.click()
    shows(page, explorer, 0)


def test_a_party_is_pressed_in_all_of_its_turns_and_the_other_explorer_is_not(page):
    press(page, "mute ben")
    pressed = page.locator(".ce-one").first.locator("[aria-pressed=true]")
    assert pressed.count() == 2 and set(pressed.evaluate_all("all => all.map(b => b.dataset.party)")) == {"ben"}
    assert page.locator("[aria-pressed=true]").count() == 2


def test_it_works_with_the_keyboard(page, explorer):
    page.keyboard.press("Tab")  # the list of conversations
    for _ in range(3):  # unmute all, the turns, which scroll, and the first turn
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "mute turn 1"
    page.keyboard.press("Space")
    shows(page, explorer, 0, turns=[0])
    page.keyboard.press("Enter")
    shows(page, explorer, 0)


def test_another_conversation_can_be_chosen(page, explorer):
    page.locator("select").first.select_option("1")
    assert page.locator(".ce-one:visible").count() == 2 and page.locator(".ce-one").nth(1).is_visible()
    page.locator(".ce-one").nth(1).get_by_role("button", name="mute words", exact=True).click()
    shows(page, explorer, 1, modalities=["words"])
    assert page.locator(".ce-one").nth(1).locator("[role=status]").inner_text().endswith("rests on the sound alone.")


def test_the_address_keeps_what_is_muted_and_a_link_leads_there(browser, page, explorer):
    page.locator("select").first.select_option("1")
    page.locator(".ce-one").nth(1).get_by_role("button", name="mute words", exact=True).click()
    page.locator(".ce-one").nth(1).get_by_role("button", name="mute turn 2", exact=True).press("Enter")
    address = page.evaluate("location.href")
    assert "#talk=1~" in address
    again = browser.new_context(offline=True).new_page()
    again.goto(address)
    again.wait_for_timeout(300)
    assert again.locator("select").first.input_value() == "1"
    shows(again, explorer, 1, modalities=["words"], turns=[1])
    again.evaluate("location.hash = '#talk=0~'")
    again.wait_for_timeout(100)
    shows(again, explorer, 0)
    for nonsense in ("#talk=7~1", "#talk=x", "#talk=0~zz.!"):
        again.evaluate("hash => { location.hash = hash }", nonsense)
        again.wait_for_timeout(50)
    shows(again, explorer, 0)
    again.context.close()


def test_the_page_does_not_scroll_sideways_and_the_turns_do(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator(".ce-turns").first
    assert box.evaluate("box => box.scrollWidth > box.clientWidth") and box.get_attribute("tabindex") == "0"


def test_without_a_script_the_first_state_can_be_read(browser, explorer, tmp_path):
    path = explorer.page().save(tmp_path / "page.html")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert "The model says yes" in page.locator("[role=status]").first.inner_text() and page.locator("img").first.is_visible()
    context.close()
