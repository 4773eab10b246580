"""What can be seen in the built pages without a browser: links, anchors, addresses of what a page loads."""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup

from support.visit import pages_of

OUTSIDE = re.compile(r"^(?:https?:)?//")
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
         "object": "data"}


@pytest.fixture(scope="module")
def soups(html) -> dict[Path, BeautifulSoup]:
    """Every page, parsed."""
    return {path.resolve(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in pages_of(html)}


@pytest.fixture(scope="module")
def anchors(soups) -> dict[Path, set]:
    """The places in each page that a link may point to."""
    return {path: {tag["id"] for tag in soup.find_all(id=True)} | {tag["name"] for tag in soup.select("a[name]")}
            for path, soup in soups.items()}


def test_every_link_inside_the_book_leads_somewhere(html, soups, anchors):
    broken = []
    for path, soup in soups.items():
        for link in soup.find_all("a", href=True):
            address, anchor = urldefrag(link["href"])
            if re.match(r"^(?:[a-z]+:|//)", address):
                continue
            target = (path.parent / unquote(address.split("?")[0])).resolve() if address else path
            if not target.is_file():
                broken.append(f"{path.relative_to(html.resolve())}: {link['href']} (no such file)")
            elif anchor and target in anchors and unquote(anchor) not in anchors[target]:
                broken.append(f"{path.relative_to(html.resolve())}: {link['href']} (no such place in the page)")
    assert not broken, "\n".join(sorted(set(broken)))


def test_no_page_names_a_remote_address_to_load_from(html, soups):
    remote = []
    for path, soup in soups.items():
        wanted = [tag.get(attribute, "") for name, attribute in LOADS.items() for tag in soup.find_all(name)]
        wanted += [tag.get("href", "") for tag in soup.find_all("link") if "canonical" not in (tag.get("rel") or [])]
        wanted += re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")\s]+)", " ".join(tag.text for tag in soup.find_all("style")))
        remote += [f"{path.relative_to(html.resolve())}: {address}" for address in wanted if OUTSIDE.match(address)]
    assert not remote, "\n".join(remote)


def test_every_chapter_can_be_downloaded_and_names_its_run(soups):
    chapters = {path: soup for path, soup in soups.items() if re.match(r"\d\d_", path.name)}
    assert chapters, "no chapter among the pages"
    for path, soup in chapters.items():
        titles = [title.get_text() for title in soup.select("article h1")]
        assert len(titles) == 1, f"{path.name} has the titles {titles}, expected one"
        words = soup.get_text(" ")
        for part in ("What this does not show", "provenance", "The paper and this page", "You will be able to"):
            assert part.lower() in words.lower(), f"{path.name} lacks {part!r}"


def test_words_in_html_say_what_they_show(soups):
    short = [f"{path.name}: {group.get('aria-label')!r}" for path, soup in soups.items() for group in soup.select(".ce-tokens")
             if len(group.get("aria-label", "").split()) < 6]
    assert not short, "\n".join(short)
