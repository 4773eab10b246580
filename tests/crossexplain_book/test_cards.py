"""The cards of the book say what the registry says."""

from pathlib import Path

import pytest

from crossexplain.data.registry import SOURCES
from crossexplain_book import Build, find_root
from crossexplain_book.assemble import assemble
from crossexplain_book.cards import source_tables


@pytest.fixture(scope="module")
def cards(tmp_path_factory) -> dict[str, str]:
    """The cards of all sources as the book shows them."""
    build = Build(find_root(Path(__file__).parent), out=tmp_path_factory.mktemp("build"))
    assemble(build, [], [])
    return {path.stem: path.read_text("utf-8") for path in (build.source / "cards" / "sources").glob("*.md")}


def test_a_card_names_authors_terms_files_and_hashes():
    assert source_tables("mnist")["source"].splitlines()[:8] == [
        '- **Name:** `mnist`, as in `crossexplain.data.store.find("mnist")`',
        "- **Origin:** LeCun, Cortes and Burges, through the mirror that torchvision uses",
        "- **Terms:** CC BY-SA 3.0",
        "- **Size:** 11.6 MB",
        "",
        "| file | bytes | hash |",
        "| --- | --- | --- |",
        "| `mnist/train-images-idx3-ubyte.gz` | 9,912,422 | `md5:f68b3c2dcbeaaa9fbdd348bbdeb94873`<br>"
        "`gunzip-md5:6bbc9ace898e44ae57da46a324031adb` |",
    ]
    assert "| `flickr8k/Images` | 118,991,632 | none |" in source_tables("flickr8k")["source"]


def test_every_source_is_in_the_book_with_all_its_files(cards):
    assert set(cards) == set(SOURCES)
    for name, source in SOURCES.items():
        files = [file for form in source.forms or (source.package_files,) for file in form]
        assert all(f"| `{file.path}` | {file.size:,} |" in cards[name] for file in files)
        assert "% assembled" not in cards[name] and source.terms in cards[name]
        assert not source.download or f"python -m crossexplain fetch {name}" in cards[name]
