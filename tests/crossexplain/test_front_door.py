"""``from crossexplain import ...``: every name that the README teaches, loaded when it is asked for."""

import importlib
import subprocess
import sys

import pytest

import crossexplain
from crossexplain.moved import MOVED

NAMES = ("rounds, explain, preflight, Game, ImageCells, Tokens, Vectors, Modality, Mask, Noise, Reorder, capture, Interval, "
         "InputError").split(", ")


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a new process."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_door_gives(name):
    given = getattr(crossexplain, name)
    assert given is getattr(importlib.import_module(given.__module__), name)
    assert name in dir(crossexplain) and name in crossexplain.__all__


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match="no 'gradcam'; it has rounds, explain"):
        crossexplain.gradcam  # noqa: B018


def test_the_door_itself_loads_no_torch():
    assert not {"torch", "numpy", "pandas"} & loaded_by("import crossexplain")


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_warns_and_gives_what_took_its_place(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match="the old name goes with the next version"):
        module = importlib.import_module(old)
    new = [importlib.import_module(place) for place in MOVED[old]]
    names = [name for place in new for name in vars(place) if not name.startswith("_")]
    assert names and all(getattr(module, name) is next(getattr(place, name) for place in new if hasattr(place, name))
                         for name in names)
    with pytest.raises(AttributeError, match="has no 'nothing_like_it'"):
        module.nothing_like_it  # noqa: B018
