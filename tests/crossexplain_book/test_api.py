"""The pages of the two packages: every name that a reader may import is documented, and documented once."""

import ast
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from crossexplain_book.api import api_pages
from crossexplain_book.layout import find_root

ROOT = find_root(Path(__file__))
PAGES = api_pages(ROOT)
SECTION = re.compile(r"\.\. automodule:: (\S+)\n((?:   :.*\n)*)")


def documented() -> list[tuple[str, str]]:
    """Return module and name of everything public that the pages document."""
    names = []
    for text in PAGES.values():
        for module, options in SECTION.findall(text):
            excluded = set(re.sub(r"(?s).*:exclude-members:(.*?)\n.*|.*", r"\1", options).replace(" ", "").split(","))
            names += [(module, name) for name in public_names(module) if name not in excluded]
    return names


def public_names(module: str) -> list[str]:
    """Return the names that Sphinx documents of a module: those that it lists, else the classes and functions it defines."""
    listed = getattr(importlib.import_module(module), "__all__", None)
    if listed is not None:
        return list(listed)
    code = ast.parse(Path(importlib.import_module(module).__file__).read_text("utf-8"))
    defined = [node.name for node in code.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in dict.fromkeys(defined) if not name.startswith("_")]  # overloads come before what they are of


DOCUMENTED = documented()


@pytest.mark.parametrize("door", ["crossexplain", "crossexplain_book"])
def test_every_name_of_the_front_door_is_listed_with_what_it_is_and_leads_to_its_documentation(door):
    homes = importlib.import_module(door)._HOME
    rows = re.findall(r"\| \{py:obj\}`(\w+) <([\w.]+)>` \| (.+) \|", PAGES[f"api/{door}.md"])
    assert {name for name, _, _ in rows} == set(homes)
    for name, target, purpose in rows:
        assert len(purpose.split()) >= 3 and tuple(target.rpartition(".")[::2]) in DOCUMENTED, f"{name}: {target}, {purpose!r}"
    assert door != "crossexplain" or all(f"`{name} <" in PAGES["api/index.md"] for name in homes)


def test_what_the_adapters_offer_is_documented():
    from crossexplain import adapters

    assert {("crossexplain.adapters", name) for name in adapters.__all__} <= set(DOCUMENTED)


def test_no_package_has_a_function_with_the_name_of_a_module_in_it():
    """Importing the module would put it in the function's place."""
    clashes = []
    for code in sorted((ROOT / "src").rglob("__init__.py")):
        modules = {path.stem for path in code.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        tree = ast.parse(code.read_text("utf-8"))
        clashes += [f"{code.parent.name}.{node.name}" for node in tree.body
                    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in modules]
    assert not clashes


def test_nothing_is_documented_twice():
    things = [(name, getattr(importlib.import_module(module), name)) for module, name in DOCUMENTED]
    places = Counter((name, id(thing)) for name, thing in things if callable(thing))
    assert not [name for (name, _), times in places.items() if times > 1]


def test_every_module_has_a_section():
    files = [path.relative_to(ROOT / "src").with_suffix("") for path in (ROOT / "src").rglob("[!_]*.py")]
    sections = {module for text in PAGES.values() for module, _ in SECTION.findall(text)}
    assert not {".".join(path.parts) for path in files} - sections
