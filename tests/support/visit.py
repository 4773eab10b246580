"""Open one page from a file, try what a reader would try, and write down what happened."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, Page

from benchmarks.studies import seen

WIDTHS = (1280, 390)
THEMES = ("light", "dark")
LOCAL = seen.LOCAL
CLOSELY = re.compile(r"chapters/.*|(?:intro|notation|glossary|search)\.html")  # `bench pages` looks so at all pages

# Images below the fold are lazy: wait for each. Formulas: the renderer sets a promise.
SETTLE = """async () => {
    for (const image of document.images) {
        image.loading = 'eager';
        if (!image.complete) await new Promise(done => { image.onload = image.onerror = done });
    }
    await window.drawFormulas?.();
}"""

LOOK = """() => {
    const hidden = e => e.closest('pre, code, script, style, .highlight');
    const words = [];
    const walker = document.createTreeWalker(document.querySelector('article, main, body'), NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) if (!hidden(walker.currentNode.parentElement)) words.push(walker.currentNode.data);
    return {
        images: [...document.images].map(i => ({source: i.src, width: i.naturalWidth, alt: i.getAttribute('alt')})),
        formulas: [...document.querySelectorAll('.math')].map(m => ({
            source: m.textContent.slice(0, 60), drawn: !!m.querySelector('mjx-container, math, svg'),
            wrong: !!m.querySelector('mjx-merror, merror, [data-mml-node="merror"], [data-mjx-error]')})),
        captions: [...document.querySelectorAll('article figure')].map(f => ({
            id: f.id, number: f.querySelector('.caption-number')?.textContent.trim() ?? '',
            text: f.querySelector('.caption-text')?.textContent.trim() ?? ''})),
        text: words.join(' '),
    };
}"""

# What sticks out to the right, named so that it can be found; nothing if the page does not scroll sideways.
WIDER = """() => {
    const room = document.documentElement.clientWidth;
    if (Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) <= room) return [];
    const scrolls = e => { for (let p = e; p; p = p.parentElement)
        if (/auto|scroll|hidden/.test(getComputedStyle(p).overflowX) && p !== document.body) return true; return false };
    const sticks = e => e.getBoundingClientRect().right > room + 1 || e.scrollWidth > Math.max(e.clientWidth, room);
    const out = [...document.querySelectorAll('article *')].filter(e => sticks(e) && !scrolls(e));
    const named = e => `<${e.tagName.toLowerCase()} class="${e.className}"> ${e.textContent.slice(0, 30)}`;
    return [...out.slice(0, 3).map(named), 'page'];
}"""

# Lines of code that a reader has to scroll to: in cells that are not folded, whose input stands on the page as it is.
SCROLLING_CODE = """() => [...document.querySelectorAll('article .cell:not(.tag_hide-input, .tag_hide-cell) .cell_input pre')]
    .filter(pre => pre.scrollWidth > pre.clientWidth + 1)
    .map(pre => pre.textContent.split('\\n').reduce((a, b) => a.length >= b.length ? a : b))"""

STRETCHED = """() => [...document.querySelectorAll('article img[height]')].filter(image => {
    const style = getComputedStyle(image);
    const width = image.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = image.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    return height && Math.abs(width / height / (image.naturalWidth / image.naturalHeight) - 1) > 0.03;
}).map(image => image.alt.slice(0, 60))"""

TOGGLES = """() => {
    const stuck = [];
    for (const fold of document.querySelectorAll('article details')) {
        const before = fold.open;
        fold.querySelector('summary').click();
        if (fold.open === before) stuck.push('details: ' + fold.textContent.trim().slice(0, 40));
        fold.open = true;
    }
    for (const button of document.querySelectorAll('article .toggle-button')) {
        const box = button.closest('.toggle'), before = box.classList.contains('toggle-hidden');
        button.click();
        if (box.classList.contains('toggle-hidden') === before) stuck.push('box: ' + box.textContent.trim().slice(0, 40));
    }
    return stuck;
}"""

# Choosing an answer has to show its reply, and only its own.
QUIZ = """() => {
    const visible = e => e.getClientRects().length > 0;
    return [...document.querySelectorAll('fieldset.ce-quiz')].map(question => {
        const silent = [], replies = [...question.querySelectorAll('.reply')];
        const early = replies.filter(visible).length;
        for (const label of question.querySelectorAll('label')) {
            label.click();
            const shown = replies.filter(visible);
            if (shown.length !== 1 || !label.parentElement.contains(shown[0])) silent.push(label.textContent);
        }
        return {question: question.querySelector('legend').textContent, answers: replies.length,
                right: replies.filter(r => r.classList.contains('right')).length, early, silent};
    });
}"""


@dataclass
class Visit:
    """What happened on one page."""

    console: list[str] = field(default_factory=list)  # errors and uncaught exceptions
    failed: list[str] = field(default_factory=list)  # requests without an answer
    outside: list[str] = field(default_factory=list)  # requests that would have left the machine
    wide: dict[tuple[int, str], list[str]] = field(default_factory=dict)  # (width, theme) -> what sticks out
    scrolling_code: list[str] = field(default_factory=list)  # the longest line of each visible cell that scrolls at 1,280
    stuck: list[str] = field(default_factory=list)  # folds that do not open
    quiz: list[dict] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)
    formulas: list[dict] = field(default_factory=list)
    captions: list[dict] = field(default_factory=list)
    text: str = ""
    stretched: list[str] = field(default_factory=list)  # pictures that have lost their proportions at 390
    opening: seen.Opening = field(default_factory=seen.Opening)  # bytes and time
    keyboard: list[str] = field(default_factory=list)  # controls that the tab key misses, or shows without a sign
    objections: list[str] = field(default_factory=list)  # of axe-core, serious or critical
    paper: list[str] = field(default_factory=list)  # what print cuts off


def pages_of(html: Path) -> list[Path]:
    """Return every page of a site, without the theme's own files and the door that only leads on to the first page."""
    files = (p for p in html.rglob("*.html") if not {"_static", "_sources"} & set(p.relative_to(html).parts))
    return sorted(p for p in files if p != html / "index.html")


def open_page(context: BrowserContext, url: str, visit: Visit) -> Page:
    """Open a page and note in ``visit`` what goes wrong; requests to anywhere but a file are refused."""
    page = context.new_page()

    def refuse(route) -> None:
        visit.outside.append(route.request.url)
        route.abort()

    page.route(lambda address: not address.startswith(seen.LOCAL), refuse)
    page.on("console", lambda message: visit.console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.console.append(str(error)))
    page.on("requestfailed", lambda request: visit.failed.append(request.url))
    visit.opening = seen.opened(page, url)
    page.evaluate(SETTLE)
    return page


def visit_page(context: BrowserContext, path: Path, closely: bool = False) -> Visit:
    """Open a page, look at it at both widths in both themes, open every fold, answer every question.

    Looked at ``closely``, walk through it with the tab key and hear axe-core, where that is installed.
    """
    visit = Visit()
    page = open_page(context, path.as_uri(), visit)
    for name, value in page.evaluate(LOOK).items():
        setattr(visit, name, value)
    visit.stuck = page.evaluate(TOGGLES)
    visit.quiz = page.evaluate(QUIZ)
    for width in WIDTHS:  # with everything open, so that folded cells count too
        page.set_viewport_size({"width": width, "height": 900})
        for theme in THEMES:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            visit.wide[width, theme] = page.evaluate(WIDER)
        if width == max(WIDTHS):
            visit.scrolling_code = page.evaluate(SCROLLING_CODE)
            visit.paper = seen.on_paper(page)
        if width == max(WIDTHS) and closely:
            visit.keyboard = seen.walk(page)
            part = "main" if path.parent.name == "chapters" else None  # side bars and heads are the same on all pages
            visit.objections = seen.violations(page, script, only=part) if (script := seen.axe()) else []
    visit.stretched = page.evaluate(STRETCHED)
    page.close()
    return visit
