"""What a page asks of its reader in a real browser: its weight, its first text, axe-core's objections, the tab key's way."""

import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOCAL = ("file:", "data:", "blob:", "about:")
GRAVE = ("critical", "serious")
# Long and without controls: code, whose colours a test of its style covers, and formulas, which carry their own text.
ASIDE = [[".highlight"], ["mjx-container"]]

# Two frames let the page notice which formulas and pictures are near; what it then asks for belongs to its opening.
QUIET = """async () => {
    for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
    if (document.querySelector('script[src$="mathjax/startup.js"]')) await drawFormulas();
    await document.fonts.ready;
    return await new Promise(done => {  // the browser notes the first text some frames after it has shown it
        setTimeout(() => done(0), 5000);
        new PerformanceObserver(noted => {
            const first = noted.getEntriesByName('first-contentful-paint')[0];
            if (first) done(first.startTime);
        }).observe({type: 'paint', buffered: true});
    });
}"""

AXE = """async ([aside, rules, only]) => {
    const how = {resultTypes: ['violations'], preload: false, ...(rules ? {runOnly: {type: 'rule', values: rules}} : {})};
    const found = (await axe.run(only ? {include: [[only]], exclude: aside} : {exclude: aside}, how)).violations;
    return found.flatMap(v => v.nodes.map(node => [v.impact, `${v.id}: ${node.html.slice(0, 120)} ${node.failureSummary
        .replace(/\\s+/g, ' ').slice(0, 160)}`]));
}"""

# What has the focus is noted as it comes; a control with its own sign of focus, or a part that shows one, is seen.
LISTEN = """() => {
    window.walked = new Set(); window.unseen = [];
    const sign = node => { const s = getComputedStyle(node);
        return (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0) || s.boxShadow !== 'none' };
    document.addEventListener('focusin', event => {
        const node = event.target;
        walked.add(node);
        if (![node, ...node.querySelectorAll('*')].some(sign)) unseen.push('no sign of focus: ' + node.outerHTML.slice(0, 120));
    });
}"""
CONTROLS = """[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')].filter(node =>
    node.tabIndex >= 0 && !node.disabled && node.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true}))"""
MISSED = f"""() => [...unseen, ...{CONTROLS}.filter(node => !walked.has(node) && node.type !== 'radio')
    .map(node => 'not reached: ' + node.outerHTML.slice(0, 120))]"""

# What paper cuts off: pictures and parts of the book's own kind that are wider than the sheet or may break between two.
CUT = """() => [...document.querySelectorAll('article :is(img, svg, .ce-tokens, .ce-strip, .ce-conversation)')].filter(node => {
    const room = document.documentElement.clientWidth, box = node.getBoundingClientRect();
    return box.width && (box.right > room + 1 || (node.closest('figure') && getComputedStyle(node.closest('figure')).breakInside
        !== 'avoid'));
}).map(node => node.outerHTML.slice(0, 120))"""
SHEET = {"width": 718, "height": 1000}  # A4 less the margins that a browser leaves, in CSS pixels


@dataclass
class Opening:
    """What a page loads by itself when it opens in a window, before its reader does anything."""

    files: dict[str, int] = field(default_factory=dict)  # bytes by path
    outside: list[str] = field(default_factory=list)  # addresses that are no file
    paint: float = 0.0  # milliseconds from the call to the first text

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def opened(page, url: str) -> Opening:
    """Open a page and return what it loads until it is at rest, and asks of the outside."""
    opening = Opening()

    def note(request) -> None:
        path = Path(unquote(urlsplit(request.url).path))
        if not request.url.startswith(LOCAL):
            opening.outside.append(request.url)
        elif request.url.startswith("file:") and path.is_file():
            opening.files[str(path)] = path.stat().st_size

    page.on("request", note)
    page.goto(url, wait_until="load")
    opening.paint = page.evaluate(QUIET)
    page.remove_listener("request", note)
    return opening


def axe() -> str | None:
    """Return axe-core's script, as axe-playwright-python carries it; None where that is not installed."""
    try:
        return Path(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")).read_text("utf-8")
    except (PackageNotFoundError, OSError):
        return None


def violations(page, script: str, *, rules=None, only: str | None = None) -> list[str]:
    """Return what axe-core calls critical or serious on a page as it is now.

    Parameters
    ----------
    page : playwright page
    script : str
        Of :func:`axe`.
    rules : sequence of str, optional
        Only these.
    only : str, optional
        Selector of the part to look at.
    """
    if not page.evaluate("() => !!window.axe"):
        page.evaluate(script)
    return [words for impact, words in page.evaluate(AXE, [ASIDE, rules, only]) if impact in GRAVE]


def walk(page) -> list[str]:
    """Press the tab key from the first control to the last; return controls that were not reached or do not show the focus."""
    page.evaluate(LISTEN)
    steps = page.evaluate(f"() => {CONTROLS}.length") + 20
    for step in range(steps):
        page.keyboard.press("Tab")
        if step % 20 == 19 and page.evaluate("() => document.activeElement === document.body"):
            break
    return page.evaluate(MISSED)


def on_paper(page) -> list[str]:
    """Return what a sheet would cut off, and which side bars it would show."""
    size = page.viewport_size
    page.emulate_media(media="print")
    page.set_viewport_size(SHEET)
    bars = "() => [...document.querySelectorAll('.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article')].filter(" \
           "bar => bar.checkVisibility()).map(bar => 'printed: ' + bar.className)"
    found = page.evaluate(CUT) + page.evaluate(bars)
    page.emulate_media(media="screen")
    page.set_viewport_size(size)
    return found


def start_labs(page) -> int:
    """Start every part of a page that waits for its reader; return how many there are."""
    labs = page.locator(".ce-lab > button, .ce-lab-still button").count()
    for lab in page.locator(".ce-lab").all():
        lab.locator("button").first.click()
        lab.locator(".ce-lab-still").wait_for(state="detached", timeout=60_000)
    return labs


def pages_of(html: Path) -> list[Path]:
    """Return the pages of a site that a reader reads: neither the theme's files, nor source code, nor the door to the first."""
    aside = {"_static", "_sources", "_modules"}
    return sorted(path for path in html.rglob("*.html")
                  if not aside & set(path.relative_to(html).parts) and not re.fullmatch("index", path.relative_to(html).stem))
