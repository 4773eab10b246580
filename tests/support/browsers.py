"""A Chromium for the tests of the pages: one that is here, or playwright's own, which is fetched where that is allowed."""

import os
import subprocess
import sys

from playwright.sync_api import Browser, Error, Playwright

from crossexplain_book.layout import chromium

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
NO_BROWSER = "no Chromium was found, and the pages can only be tested in a real browser"
REMEDY = ("install one with `python -m playwright install chromium` or `apt-get install chromium`, or name one in "
          "CROSSEXPLAIN_BROWSER")
PATIENCE = 300  # seconds for a download of about 150 MB; without a network it gives up by itself in less than ten


class NoBrowser(Exception):
    """No browser can be started; the message says what was tried."""


def start(playwright: Playwright) -> Browser:
    """Start the browser that ``CROSSEXPLAIN_BROWSER`` or the path names, else playwright's own, else fetch that.

    Nothing is fetched where ``CROSSEXPLAIN_DOWNLOAD`` is 0.

    Raises
    ------
    NoBrowser
        If there is none to be had.
    """
    tried = []
    for path in dict.fromkeys((chromium(), None)):  # None: playwright's own
        try:
            return playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            tried.append(f"{path or 'playwright'}: {_first_line(str(error))}")
    if os.environ.get("CROSSEXPLAIN_DOWNLOAD") == "0":
        tried.append("CROSSEXPLAIN_DOWNLOAD=0: none is fetched")
    elif complaint := _fetch():
        tried.append(complaint)
    else:
        return playwright.chromium.launch(args=FLAGS)
    raise NoBrowser(f"{NO_BROWSER} ({'; '.join(tried)}); {REMEDY}.")


def _fetch() -> str | None:
    """Fetch playwright's own Chromium; return why it could not be had, or None."""
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"`playwright install chromium` took more than {PATIENCE} s"
    return f"`playwright install chromium` failed: {_first_line(done.stderr)}" if done.returncode else None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "rror" in line or "exist" in line), lines[0] if lines else "without a word")[:160]
