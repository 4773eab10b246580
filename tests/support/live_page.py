"""A live part on a page of its own, opened from a file on a phone, with everything that goes wrong noted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from support.visit import LOCAL


@contextmanager
def opened(browser: Browser, folder: Path, markup: str, state: str = "", width: int = 390) -> Iterator[Page]:
    """Write a page that holds a part, open it with a state in its address, and assert at the end that nothing went wrong."""
    path = folder / "page.html"
    path.write_text(f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
                    f"<title>part</title>{markup}</html>", "utf-8")
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, has_touch=True)
    page, wrong = context.new_page(), []
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith(LOCAL) else wrong.append(request.url))
    page.goto(path.as_uri() + state)
    page.wait_for_selector(".ce-lab-live")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    nameless = page.evaluate("""() => [...document.querySelectorAll('.ce-lab-live :is(button, select, input, canvas)')]
        .filter((e) => !(e.getAttribute('aria-label') || e.innerText?.trim() || e.closest('label'))).map((e) => e.outerHTML)""")
    assert not nameless, nameless
    assert not wrong, wrong
    context.close()
