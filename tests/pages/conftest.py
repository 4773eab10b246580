"""The built book in a real browser: one visit to every page, from which all tests of this folder read."""

from pathlib import Path

import pytest
from playwright.sync_api import Error, sync_playwright

from crossexplain_book import Build, find_root
from crossexplain_book.layout import chromium
from visit import FLAGS, Visit, pages_of, visit_page

NO_BROWSER = (
    "no Chromium was found, and the pages can only be tested in a real browser. "
    "Install one with `python -m playwright install chromium` or `apt-get install chromium`, "
    "or name one in CROSSEXPLAIN_BROWSER."
)


def _folders() -> list:
    """Return the book that the tests build and, where it was made, the one of full size."""
    large = Build(find_root(Path(__file__))).html
    return ["built", *([large] if (large / "index.html").is_file() else [])]


@pytest.fixture(scope="session", params=_folders(), ids=lambda folder: "small" if folder == "built" else "page")
def html(request) -> Path:
    """Folder of a finished site."""
    return Path(request.getfixturevalue("built_book")) if request.param == "built" else request.param


@pytest.fixture(scope="session")
def browser():
    """One browser for all pages; without one every test fails, and the message says what to do."""
    with sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        except Error as error:
            pytest.fail(f"{NO_BROWSER}\n{error}", pytrace=False)
        yield running
        running.close()


@pytest.fixture(scope="session")
def visits(browser, html) -> dict[str, Visit]:
    """What the browser saw on every page, by the page's path."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    seen = {str(path.relative_to(html)): visit_page(context, path) for path in pages_of(html)}
    context.close()
    return seen
