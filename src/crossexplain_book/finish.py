"""The last touch to built pages: they load little, and say what the theme leaves unsaid.

jupyter-book's theme brings all icons of Font Awesome as a script, the index of the search on every page, and the style of
every part of Bootstrap; together they weigh more than a chapter. What a page shows stays the same: pictures become WebP and
are read when they come near, formulas are drawn when they are, of the theme stays what some page of this book uses.
"""

import base64
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path

from crossexplain.files import tree

PHOTOGRAPH = 100_000  # bytes: a picture that is larger without loss is stored as photographs are, at quality 90
STYLE = 30_000  # bytes: smaller style sheets are left as they are
MADE = ("bs-tooltip", "bs-popover")  # beginnings of class names that the theme's scripts put together
# Scripts that no page needs when it opens: icons as a script, the search's index, formulas (formulas.js fetches them).
ICONS, SEARCH, DRAWN = "fontawesome.js", ("searchtools.js", "language_data.js", "searchindex.js"), "tex-svg.js"
BRACE = re.compile(r"""\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[{}]""")  # a string, or a brace outside one
PLAIN = re.compile(r'<span class="(?:n|nn|nx|p|w)">([^<]*)</span>')  # of code: names, signs, gaps have the colour of the text
ICON = re.compile(r'content:"\\(f[0-9a-f]{3})"|([\uf000-\uf8ff])')  # in a style sheet: the code of an icon, or itself
ICON_FONT = re.compile(r"src:url\([^)]*fa-solid-900\.woff2\)[^}]*?format\(\"truetype\"\)")


def finish(pages: Path) -> None:
    """Make a built site light, name what has no name, and give every link to a term its definition.

    Parameters
    ----------
    pages : Path
        Folder of the site, which nobody reads yet.
    """
    sizes = {path.name: _as_webp(path) for path in tree(pages / "_images", "*.png")}
    files, glossary = tree(pages, "*.html"), pages / "glossary.html"
    terms = definitions(glossary.read_text("utf-8")) if glossary.is_file() else {}
    for path in files:
        text = without_scripts(path.read_text("utf-8"), search=path.name == "search.html")
        path.write_text(PLAIN.sub(r"\1", explained(named(lazy(text, sizes)), terms)), "utf-8")
    words = {word for path in [*files, *tree(pages / "_static", "*.js")] if path.name != ICONS
             for word in re.findall(r"[\w-]+", path.read_text("utf-8"))}
    for path in tree(pages / "_static", "*.css"):
        if path.stat().st_size > STYLE:
            path.write_text(_icons(pruned(path.read_text("utf-8"), words), path.parent), "utf-8")


def _as_webp(path: Path) -> tuple[str, int, int]:
    """Store a picture as WebP, without loss where that is small; return its new name and its size."""
    from PIL import Image

    with Image.open(path) as image:
        packed = io.BytesIO()
        image.save(packed, "webp", lossless=True)
        if packed.tell() > PHOTOGRAPH:
            packed = io.BytesIO()
            image.save(packed, "webp", quality=90)
        path.with_suffix(".webp").write_bytes(packed.getvalue())
        path.unlink()
        return path.with_suffix(".webp").name, *image.size


def lazy(text: str, sizes: dict[str, tuple[str, int, int]]) -> str:
    """Return a page whose pictures have their new names and their room, and are read when they come near.

    Examples
    --------
    >>> lazy('<img alt="a" src="_images/b.png" />', {"b.png": ("b.webp", 4, 3)})
    '<img loading="lazy" width="4" height="3" alt="a" src="_images/b.webp" />'
    """
    def picture(match: re.Match) -> str:
        name = re.search(r'\ssrc="(?:[^":]*/)?([^"/:]+)"', match[0])  # none where the picture is part of the page
        if not name or "loading=" in match[0]:
            return match[0]
        known = sizes.get(name[1])
        room = f' width="{known[1]}" height="{known[2]}"' if known and "width=" not in match[0] else ""
        return f'<img loading="lazy"{room}{match[0][4:]}'

    text = re.sub(r"<img\b[^>]*>", picture, text)
    return re.sub(r"(?<=_images/)[\w.-]+\.png", lambda match: sizes.get(match[0], (match[0],))[0], text)


def without_scripts(text: str, *, search: bool) -> str:
    """Return a page without the scripts that it does not need when it opens; the search keeps its index."""
    names = (ICONS, DRAWN, *(() if search else SEARCH))
    return re.sub(rf'\s*<script[^>]*src="[^"]*(?:{"|".join(map(re.escape, names))})[^"]*"[^>]*></script>', "", text)


def named(text: str) -> str:
    """Return a page that says to screen readers what the theme leaves out.

    Folds in the list of pages are named by the titles beside them; references lose roles that are no longer in use.
    """
    text = re.sub(r'(<div[^>]*) role="(?:list|doc-biblioentry)"', r"\1", text)
    return re.sub(r'(<a class="(?:current )?reference internal" href="[^"]*">([^<]*)</a><details[^>]*><summary)>',
                  r'\1 aria-label="Pages of \2">', text)


def definitions(glossary: str) -> dict[str, str]:
    """Return what each term means, by its anchor, from the page of the glossary: its first paragraph, without markup.

    Examples
    --------
    >>> definitions('<dt id="term-view">view<a>#</a></dt><dd><p>An <em>example</em>\\nseen.</p><p>More.</p></dd>')
    {'term-view': 'An example seen.'}
    """
    found = re.findall(r'<dt id="(term-[^"]+)">(?:(?!<dd>).)*<dd>\s*<p>(.*?)</p>', glossary, re.DOTALL)
    return {term: " ".join(html.unescape(re.sub(r"<[^>]+>|\\\\[()]", "", words)).split()) for term, words in found}


def explained(text: str, terms: dict[str, str]) -> str:
    """Return a page whose links to terms carry the definition, which terms.js shows."""
    def link(match: re.Match) -> str:
        words = terms.get(match[2])
        return f'{match[1]} data-term="{html.escape(words)}">' if words else match[0]

    return re.sub(r'(<a class="(?:current )?reference internal" href="[^"]*#(term-[^"]+)")>', link, text)


def pruned(css: str, words: set[str]) -> str:
    """Return a style sheet without the rules whose classes no page and no script has.

    Parameters
    ----------
    css : str
    words : set of str
        Every word of the pages and scripts.

    Examples
    --------
    >>> pruned("a.b,i.c{top:0}@media print{.c{top:1px}}.d:not(.c){top:2px}", {"b", "d"})
    'a.b{top:0}.d:not(.c){top:2px}'
    """
    def used(selector: str) -> bool:
        asked = re.sub(r"\((?:[^()]|\([^()]*\))*\)", "", selector)  # in :not(...) or :is(...) classes may be missing
        classes = (name.replace("\\", "") for name in re.findall(r"\.((?:[\w-]|\\.)+)", asked))
        return all(name in words or name.startswith(MADE) or not re.fullmatch(r"[\w-]+", name) for name in classes)

    kept = []
    for head, body in _rules(css):
        if body is None or head.startswith(("@font-face", "@keyframes", "@property", "@page", ":root")):
            kept.append(head if body is None else f"{head}{{{body}}}")
        elif head.startswith("@"):
            inside = pruned(body, words)
            kept.append(f"{head}{{{inside}}}" if inside else "")
        else:
            heads = [part for part in re.split(r",(?![^(]*\))", head) if used(part)]
            kept.append(f"{','.join(heads)}{{{body}}}" if heads else "")
    return "".join(kept)


def _rules(css: str) -> Iterator[tuple[str, str | None]]:
    """Yield each rule as (what stands before its braces, what stands in them), or a statement that has none."""
    css, start = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL), 0
    while mark := re.compile(r"[;{]").search(css, start):
        head, place, depth = css[start:mark.start()].strip(), mark.end(), 1
        if mark[0] == ";":
            yield f"{head};", None
        else:
            while depth:
                brace = BRACE.search(css, place)
                depth, place = depth + {"{": 1, "}": -1}.get(brace[0], 0), brace.end()
            yield head, css[mark.end():place - 1]
        start = place


def _icons(css: str, folder: Path) -> str:
    """Return a style sheet whose font of icons is part of it, with the icons that are left."""
    codes = {int(code, 16) if code else ord(sign) for code, sign in ICON.findall(css)}
    return ICON_FONT.sub(lambda _: f"src:url(data:font/woff;base64,{_subset(folder.parent, codes)})", css) if codes else css


def _subset(static: Path, codes: set[int]) -> str:
    from fontTools import subset  # a part of matplotlib's own needs

    font = subset.load_font(str(next(static.rglob("fa-solid-900.ttf"))), options := subset.Options(flavor="woff"))
    cut = subset.Subsetter(options)
    cut.populate(unicodes=codes)
    cut.subset(font)
    subset.save_font(font, out := io.BytesIO(), options)
    return base64.b64encode(out.getvalue()).decode()
