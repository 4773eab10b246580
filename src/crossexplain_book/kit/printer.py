"""Print pages with a Chromium-like browser, without a network."""

from contextlib import contextmanager
from pathlib import Path

from crossexplain_book.layout import BookError, chromium

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--font-render-hinting=none"]
# Waits for formulas and pictures, then makes what is wider than the paper as wide as it.
SETTLED = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
  await Promise.all(Array.from(document.images, image => image.decode().catch(() => 0)));
  for (const node of document.querySelectorAll(".ce-strip, .ce-conversation, .ce-tokens, table, mjx-container[display]")) {
    const room = node.parentElement.clientWidth, need = Math.max(node.scrollWidth, node.getBoundingClientRect().width);
    if (room > 0 && need > room + 1) node.style.zoom = Math.max(0.35, room / need);
  }
}"""


# Makes the text smaller until it fits on one sheet of A4, with the margins of print.css.
ONE_PAGE = """() => {
  const main = document.querySelector("main"), room = 296 / 25.4 * 96 - 36 / 25.4 * 96;
  for (let zoom = 1; zoom > 0.5 && main.getBoundingClientRect().height > room; zoom -= 0.02) main.style.zoom = zoom;
}"""


@contextmanager
def browser():
    """Open a browser for printing.

    Raises
    ------
    BookError
        If there is none.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        except Error as error:
            raise BookError("printing needs a Chromium-like browser; install one with `python -m playwright install chromium`, "
                            "or name one in CROSSEXPLAIN_BROWSER.") from error
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def settled(opened, page: Path, width: int = 658):
    """Open a file as paper shows it: formulas drawn, and what is wider than the paper made as wide as it.

    Parameters
    ----------
    opened : playwright browser
    page : Path
    width : int
        Of the text on the paper, in CSS pixels (96 an inch).
    """
    tab = opened.new_page(viewport={"width": width, "height": 1000})
    try:
        tab.set_default_timeout(300_000)
        tab.emulate_media(media="print", color_scheme="light", reduced_motion="reduce")
        tab.goto(page.as_uri(), wait_until="load")
        tab.evaluate(SETTLED)
        yield tab
    finally:
        tab.close()


def print_pdf(opened, page: Path, pdf: Path, *, footer: str = "", one_page: bool = False, **options) -> None:
    """Print one HTML file.

    Parameters
    ----------
    opened : playwright browser
    page, pdf : Path
        From and to.
    footer : str
        HTML; the classes ``pageNumber`` and ``totalPages`` are filled in. None is printed if it is empty.
    one_page : bool
        Make the text of ``<main>`` so small that it fits on one page.
    options
        For ``page.pdf`` of playwright.
    """
    with settled(opened, page) as tab:
        if one_page:
            tab.evaluate(ONE_PAGE)
        look = {"display_header_footer": True, "header_template": "<span></span>", "footer_template": footer} if footer else {}
        tab.pdf(**{"path": str(pdf), "print_background": True, "prefer_css_page_size": True, **look, **options})


def print_slides(opened, slides: Path) -> Path:
    """Print the slides of one file, a page each, beside it; return the path of the PDF."""
    tab = opened.new_page(viewport={"width": 1280, "height": 760})
    try:
        tab.set_default_timeout(120_000)
        tab.goto(f"{slides.as_uri()}?print-pdf", wait_until="load")
        tab.wait_for_function("() => document.querySelector('.pdf-page') && window.fitted")
        tab.pdf(path=str(slides.with_suffix(".pdf")), prefer_css_page_size=True, print_background=True)
    finally:
        tab.close()
    return slides.with_suffix(".pdf")
