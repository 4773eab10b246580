"""What the pages weigh, how soon they show text, and what axe-core and the tab key find on them, in a real browser, from files.

Every page of the book that ``make book`` left, in both themes, with every fold open and every lab started. Each row says
over how many pages; of times the upper end is the slowest page, of bytes the heaviest one is the value.
"""

from pathlib import Path

from benchmarks.studies import seen
from crossexplain_book import Build, find_root
from crossexplain_book.bench import row_of
from crossexplain_book.layout import chromium

OPEN = """async () => {
  await window.drawFormulas?.();
  for (const fold of document.querySelectorAll('article details')) fold.open = true;
}"""
THEME = "theme => { document.documentElement.dataset.theme = theme }"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def rows() -> list[dict]:
    """Return the rows; none where the book was not built, those of axe-core only where it is installed."""
    from playwright.sync_api import sync_playwright

    build, script = Build(find_root(Path(__file__).parent)), seen.axe()
    if not (build.html / "index.html").is_file():
        print(f"  no pages in {build.html}: type `make book` first")
        return []
    weights, paints, outside, grave, unreached, cut, labs, errors = [], [], 0, 0, 0, 0, 0, 0
    with sync_playwright() as playwright:
        context = playwright.chromium.launch(executable_path=chromium(), args=FLAGS).new_context(
            offline=True, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        for path in seen.pages_of(build.html):
            page = context.new_page()
            complaints: list[str] = []
            page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
            page.on("console", lambda message, to=complaints: to.append(message.text) if message.type == "error" else None)
            opening = seen.opened(page, path.as_uri())
            paints.append(opening.paint)
            weights.append(opening.bytes)
            page.evaluate(OPEN)
            found = seen.walk(page)
            cut += len(sheet := seen.on_paper(page))
            labs += seen.start_labs(page)
            for theme, rules in (("light", None), ("dark", ["color-contrast"])) if script else ():
                page.evaluate(THEME, theme)
                found += (wrong := seen.violations(page, script, rules=rules))
                grave += len(wrong)
            unreached += len(found)
            outside, errors = outside + len(opening.outside), errors + len(complaints)
            for words in [*found, *sheet, *opening.outside, *complaints]:
                print(f"  {path.relative_to(build.html)}: {words}")
            page.close()
    pages = len(weights)
    counts = {"page.outside_requests": (outside, "requests to anything but a file"),
              "page.console_errors": (errors, "errors in the console"),
              "page.keyboard.missed": (unreached - grave, "controls that the tab key misses or shows without a sign"),
              "page.print.cut": (cut, "pictures cut by a sheet, bars printed"),
              **({"page.axe.serious": (grave, f"serious or critical objections of axe-core, {labs} labs started")} if script
                 else {})}
    return [row_of("page.largest_bytes", weights, "bytes that the heaviest page loads when it opens", max),
            row_of("page.first_text_seconds", [paint / 1000 for paint in paints], "s from a file to the first text"),
            *({"id": key, "value": value, "low": value, "high": value, "n": pages, "unit": unit}
              for key, (value, unit) in counts.items())]
