"""The whole book as EPUB, for readers that reflow: the same text as the PDF, formulas as MathML."""

import hashlib
import html
import tempfile
import time
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from crossexplain_book.kit.pages import leaves, rehomed, soup
from crossexplain_book.kit.pdf import contents, head, replies, solutions
from crossexplain_book.kit.printer import settled
from crossexplain_book.layout import Build

CONTAINER = """<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">{identifier}</dc:identifier>
<dc:title>CrossExplain</dc:title><dc:language>en</dc:language><dc:creator>The CrossExplain authors</dc:creator>
<dc:rights>Text CC BY 4.0, code BSD-3-Clause</dc:rights><meta property="dcterms:modified">{modified}</meta></metadata>
<manifest>{items}</manifest><spine>{spine}</spine></package>"""
DOCUMENT = """<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><title>{title}</title><link rel="stylesheet" href="book.css"/></head><body>{body}</body></html>"""
# Formulas become what they say, and the page becomes XML.
WELL_FORMED = """() => {
  for (const node of document.querySelectorAll("mjx-container")) {
    const math = node.querySelector("mjx-assistive-mml > math");
    if (math) node.replaceWith(math); else node.remove();
  }
  for (const node of document.querySelectorAll("style, script, [style*=zoom]")) {
    if (node.matches("style, script")) node.remove(); else node.style.zoom = "";
  }
  return Array.from(document.body.childNodes, node => new XMLSerializer().serializeToString(node)).join("");
}"""
STYLE = """body { line-height: 1.4; }
figure { margin: 1em 0; }
img, .ce-strip, .ce-strip * { max-width: 100% !important; min-width: 0 !important; height: auto; }
td p, th p { margin: 0; }
figcaption, table { font-size: .85em; }
pre { white-space: pre-wrap; font-size: .75em; }
table { border-collapse: collapse; }
td, th { border-bottom: 1px solid #999; padding: .1em .4em; text-align: left; vertical-align: top; }
.admonition, .ce-quiz { border-left: 3px solid #33628f; padding-left: .7em; }
"""
TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".webp": "image/webp"}


def make_epub(build: Build, epub: Path, names=(), opened=None) -> Path:
    """Write the book as EPUB 3; arguments as for :func:`crossexplain_book.kit.pdf.make_pdf`, with an open browser."""
    pages = [leaf for leaf in leaves(build) if not names or leaf.number in names]
    inside = {leaf.path.resolve(): leaf.slug for leaf in pages}
    texts, answers = {}, ["<h1>Solutions of the exercises, answers of the quizzes</h1>"]
    for leaf in pages:
        article = rehomed(leaf, inside)
        answers += [f"<h2>{html.escape(leaf.title)}</h2>", *solutions(article), *replies(article)] if leaf.number else []
        texts[leaf.slug] = (leaf.title, f'<section id="{leaf.slug}">{article.decode_contents()}</section>')
    texts["solutions"] = ("Solutions", f'<section id="solutions">{"".join(answers)}</section>')
    texts = {"contents": ("Contents", contents(pages, {})), **texts}
    files: dict[str, bytes] = {"book.css": STYLE.encode()}
    with tempfile.TemporaryDirectory() as folder:
        for slug, (title, text) in texts.items():
            page = Path(folder) / "page.html"
            page.write_text(f"{head(build, title, 'ce-book')}{text}</body></html>", "utf-8")
            with settled(opened, page) as tab:
                body = _placed(soup(tab.evaluate(WELL_FORMED)), texts, files)
            files[f"{slug}.xhtml"] = DOCUMENT.format(title=html.escape(title), body=body).encode()
    _zip(epub, files, [f"{slug}.xhtml" for slug in texts])
    return epub


def _placed(tree, texts: dict, files: dict[str, bytes]) -> str:
    """Return a page with its pictures among the files of the book and its links between them."""
    for image in tree.select("img[src^='file:']"):
        path = Path(unquote(urlsplit(image["src"]).path))
        name = f"images/{hashlib.sha256(path.read_bytes()).hexdigest()[:20]}{path.suffix}"
        files[name], image["src"] = path.read_bytes(), name
    for link in tree.select("a[href^='#']"):
        place = link["href"][1:]
        slug = place.split("--")[0]
        link["href"] = f"{slug}.xhtml#{place}" if slug in texts else link["href"]
    for nav in tree.select("nav"):
        nav["epub:type"] = "toc"
        entries = "".join(f"<li>{link}</li>" for link in nav.select("a"))
        nav.replace_with(soup(f'<nav epub:type="toc"><h1>Contents</h1><ol>{entries}</ol></nav>'))
    return str(tree)


def _zip(epub: Path, files: dict[str, bytes], spine: list[str]) -> None:
    identifier = f"urn:sha256:{hashlib.sha256(b''.join(files[name] for name in sorted(files))).hexdigest()}"
    items = []
    for number, name in enumerate(files):
        kind = TYPES.get(Path(name).suffix) or ("text/css" if name.endswith(".css") else "application/xhtml+xml")
        found = ["nav"] * (name == "contents.xhtml") + ["mathml"] * (b"<math" in files[name] and name.endswith(".xhtml"))
        marks = f' properties="{" ".join(found)}"' if found else ""
        items.append(f'<item id="i{number}" href="{name}" media-type="{kind}"{marks}/>')
    order = "".join(f'<itemref idref="i{list(files).index(name)}"/>' for name in spine)
    modified = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with zipfile.ZipFile(epub, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", CONTAINER)
        listed = {"identifier": identifier, "modified": modified, "items": "".join(items), "spine": order}
        archive.writestr("content.opf", PACKAGE.format(**listed))
        for name, data in files.items():
            archive.writestr(name, data)
