"""The built book in a real browser: one visit to every page, from which all tests of this folder read."""

import pytest

from support.visit import CLOSELY, Visit, pages_of, visit_page


@pytest.fixture(scope="session")
def visits(browser, html) -> dict[str, Visit]:
    """What the browser saw on every page, by the page's path."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    paths = {str(path.relative_to(html)): path for path in pages_of(html)}
    seen = {page: visit_page(context, path, closely=bool(CLOSELY.fullmatch(page))) for page, path in paths.items()}
    context.close()
    return seen
