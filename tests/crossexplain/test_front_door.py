"""``from crossexplain import ...``: every name that the README teaches, loaded when it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import crossexplain
from crossexplain import moved

NAMES = ("rounds, explain, preflight, Game, ImageCells, Tokens, Vectors, Modality, Mask, Noise, Reorder, capture, Called, "
         "Interval, InputError, load_or_train").split(", ")


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a new process."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_door_gives(name):
    given = getattr(crossexplain, name)
    assert given is getattr(importlib.import_module(given.__module__), name)
    assert name in dir(crossexplain) and name in crossexplain.__all__


def test_type_checkers_and_editors_are_told_the_same_names():
    folder = Path(crossexplain.__file__).parent
    stub = ast.parse((folder / "__init__.pyi").read_text("utf-8"))
    told = {alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == crossexplain._HOME and (folder / "py.typed").is_file()


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match="no 'gradcam'; it has rounds, explain"):
        crossexplain.gradcam  # noqa: B018


def test_the_door_itself_loads_no_torch():
    assert not {"torch", "numpy", "pandas"} & loaded_by("import crossexplain")


def test_rounds_load_only_what_they_need():
    loaded = loaded_by("from crossexplain import rounds")
    assert "torch" in loaded
    assert not {"torchvision", "scipy.stats", "pandas", "transformers", "captum", "matplotlib"} & loaded


@pytest.mark.parametrize("old", moved.table()["modules"])
def test_an_old_module_warns_and_gives_what_took_its_place(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match="the old name goes with the next version"):
        module = importlib.import_module(old)
    new = importlib.import_module(moved.table()["modules"][old])
    names = [name for name in vars(new) if not name.startswith("_")]
    assert all(getattr(module, name) is getattr(new, name) for name in names)
    with pytest.raises(AttributeError, match="has no .*nothing_like_it"):
        module.nothing_like_it  # noqa: B018


@pytest.mark.parametrize("module", moved.table()["names"])
def test_an_old_name_warns_and_gives_what_took_its_place_or_says_what_to_type(module):
    old = importlib.import_module(module)
    for name, new in moved.table()["names"][module].items():
        place, colon, new_name = new.partition(":")
        if not colon:
            with pytest.raises(AttributeError, match=f"has no '{name}': type "):
                getattr(old, name)
            continue
        if name in vars(old):  # the module needs it itself, so that the old import works without the table
            assert vars(old)[name] is getattr(importlib.import_module(place), new_name)
            continue
        with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now {place}.{new_name}"):
            assert getattr(old, name) is getattr(importlib.import_module(place), new_name)
