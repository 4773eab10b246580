"""Read the built pages: what stands on them, in the order of the book, without what only a screen can use."""

import copy
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from crossexplain_book.layout import Build, SiteError, chapters

SCREEN = (".headerlink, script, noscript, .tag_hide-input > details, .tag_exercise .cell_output, .ce-controls, .ce-reset, "
          ".ce-conversation .ce-unseen, .toctree-wrapper, .copybtn, .ce-screen")  # what is left out of paper and slides


@dataclass
class Leaf:
    """One page of the built book.

    Parameters
    ----------
    path : Path
        Its file.
    name : str
        Its address within the site, without ``.html``.
    part : str
        The caption under which the contents list it; empty for the first page.
    """

    path: Path
    name: str
    part: str = ""

    @cached_property
    def article(self) -> Tag:
        """Its text, with folded code, the outputs of empty exercises and all controls left out."""
        article = soup(self.path.read_text("utf-8")).select_one("article.bd-article")
        for node in article.select(SCREEN):
            node.decompose()
        for button in article.select("button"):  # what it says stays
            button.name, button.attrs = "span", {key: button[key] for key in ("style",) if key in button.attrs}
        return article

    @property
    def title(self) -> str:
        """Its heading, with its number."""
        return words(self.article.h1)

    @property
    def slug(self) -> str:
        """Its name as part of an identifier."""
        return self.name.replace("/", "-")

    @property
    def number(self) -> str:
        """Two digits of a chapter, empty for other pages."""
        found = re.match(r"chapters/(\d\d)_", self.name)
        return found[1] if found else ""

    def sections(self) -> list[Tag]:
        """Return its sections of the second level, in order."""
        return self.article.select_one("section").find_all("section", recursive=False)

    def section(self, heading: str) -> Tag | None:
        """Return the section whose heading ends with these words."""
        return next((part for part in self.sections() if words(part.h2).endswith(heading)), None)


def soup(text: str) -> BeautifulSoup:
    """Return HTML as a tree."""
    return BeautifulSoup(text, "html.parser")


def words(node: Tag | None) -> str:
    """Return the text of a node, its white space as single spaces."""
    return " ".join(node.get_text().split()) if node else ""


def guess(article: Tag) -> Tag | None:
    """Return the box of a page that asks for a guess before the reader goes on."""
    return next((box for box in article.select(".admonition") if "guess" in words(box.select_one(".admonition-title"))), None)


def site(build: Build) -> Path:
    """Return the folder of the built pages.

    Raises
    ------
    SiteError
        If the book has not been built.
    """
    if not (build.html / "intro.html").is_file():
        raise SiteError(f"there are no pages in {build.html}; type `make book` first.")
    return build.html


def leaves(build: Build) -> list[Leaf]:
    """Return the pages of the book in order, without the reference of the package, which is for the screen."""
    folder = site(build)
    found = [Leaf(folder / "intro.html", "intro")]
    part = ""
    for node in soup((folder / "intro.html").read_text("utf-8")).select("nav.bd-links p.caption, nav.bd-links a"):
        if node.name == "p":
            part = words(node)
        elif (name := node["href"].removesuffix(".html")) != "#" and not name.startswith("api/"):
            found.append(Leaf(folder / f"{name}.html", name, part))
    return found


def chapter_leaf(build: Build, notebook: Path) -> Leaf:
    """Return the page of one chapter.

    Raises
    ------
    SiteError
        If the chapter failed, or was not run: its page holds no results.
    """
    leaf = Leaf(site(build) / "chapters" / f"{notebook.stem}.html", f"chapters/{notebook.stem}", "Chapters")
    if not leaf.path.is_file() or not leaf.article.select_one(".cell"):
        raise SiteError(f"{notebook.stem} has no page in {build.html}; type `make book` first.")
    return leaf


def chapter_leaves(build: Build, names=()) -> list[Leaf]:
    """Return the pages of chapters, all of them or those named (:func:`crossexplain_book.layout.chapters`)."""
    return [chapter_leaf(build, path) for path in chapters(build.root, names)]


def rehomed(leaf: Leaf, inside: dict[Path, str], only: Tag | None = None) -> Tag:
    """Return a copy of a page, or of a part of it, whose links work in another document.

    Parameters
    ----------
    leaf : Leaf
    inside : dict
        Which files that document holds, and under which prefix of their identifiers. Links to others lose their target,
        links to the network keep it.
    only : Tag, optional
        The part.

    Returns
    -------
    Tag
        Pictures are named by their absolute address.
    """
    article, own = copy.copy(only or leaf.article), inside.get(leaf.path.resolve())
    for node in article.select("[id]"):
        if own and not node.find_parent("svg"):
            node["id"] = f"{own}--{node['id']}"
    for node in article.select("details") if own else ():  # nobody opens a fold on paper
        node["open"] = ""
    for node in article.select("img[src]"):
        for name in ("loading", "width", "height"):  # nobody scrolls on paper, and its style gives the room
            node.attrs.pop(name, None)
        if not urlsplit(node["src"]).scheme:
            node["src"] = (leaf.path.parent / unquote(node["src"])).resolve().as_uri()
    for link in article.select("a[href]"):
        address = urlsplit(link["href"])
        if address.scheme:
            continue
        target = (leaf.path.parent / unquote(address.path)).resolve() if address.path else leaf.path.resolve()
        if "download" in link.get("class", []) or target not in inside:
            link.name = "span"
            del link["href"]
        else:
            link["href"] = "#" + (f"{inside[target]}--{address.fragment}" if address.fragment else inside[target])
    return article
