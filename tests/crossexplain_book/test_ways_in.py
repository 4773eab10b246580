"""Ways into a page: their links point at files that exist, and install what a chapter needs."""

import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://github.com/somebody/some.where"


@pytest.fixture(scope="module")
def ways():
    spec = importlib.util.spec_from_file_location("ways_in", ROOT / "book" / "_ext" / "ways_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem[:2])
def test_a_chapter_can_be_run_and_read_where_the_project_is_hosted(ways, notebook):
    found = ways.links(f"chapters/{notebook.stem}", ADDRESS, "main")
    owner, opened = re.fullmatch(r"https://mybinder\.org/v2/gh/([\w./-]+)/main\?urlpath=lab%2Ftree%2F(.+)",
                                 found["Run it in Binder"]).groups()
    assert owner == "somebody/some.where" and ROOT / unquote(opened) == notebook
    assert urlsplit(found["Edit this page"]).path == f"/somebody/some.where/blob/main/notebooks/{notebook.name}"


def test_what_binder_installs_holds_the_project_and_the_book(ways):
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"][-1]["pip"]
    assert "--editable ." in listed and any(line.startswith("jupyterlab==") for line in listed)


def test_other_pages_link_to_what_is_edited(ways):
    assert ways.links("teach/plans", ADDRESS, "main") == {"Edit this page": f"{ADDRESS}/edit/main/book/teach/plans.md"}
    assert ways.links("cards/sources/mnist", ADDRESS, "main")["Edit this page"].endswith("/data/cards/mnist.md")
    assert ways.links("api/index", ADDRESS, "main") == {} == ways.links("teach/plans", "", "main")


def test_elsewhere_than_on_github_there_is_no_binder(ways):
    name = next((ROOT / "notebooks").glob("*.ipynb")).stem
    assert list(ways.links(f"chapters/{name}", "https://git.example.org/a/b", "main")) == ["Edit this page"]


def test_a_page_is_cited_as_the_project_says(ways):
    text = ways.citation("Two towers")
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cff["title"] in text and cff["version"] in text and "Two towers" in text and text.count("{") == text.count("}")
