"""Old names of modules and functions, for one version: an import of one gives what took its place, with a warning.

The names stand in ``moved.toml``.
"""

import sys
import tomllib
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def table() -> dict[str, dict[str, Any]]:
    """Return ``modules``, old name to new, and ``names``, for each module old name to ``"module:name"`` or to an advice."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def names_of(module: str) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a module that some names have left."""
    def get(name: str) -> object:
        new = table()["names"].get(module, {}).get(name)
        if new is None or " " in new:
            raise AttributeError(f"module {module!r} has no {name!r}" + (f": {new}." if new else "."))
        place, _, new_name = new.partition(":")
        _warn(f"{module}.{name}", f"{place}.{new_name}")
        return getattr(import_module(place), new_name)

    return get


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the old name goes with the next version.", DeprecationWarning, stacklevel=3)


class _Finder(MetaPathFinder, Loader):
    """Asked last, for modules that nothing else finds."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("crossexplain.") or name not in table()["modules"]:
            return None
        return ModuleSpec(name, self, is_package=name in ("crossexplain.book", "crossexplain.show"))

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = table()["modules"][module.__name__]
        _warn(module.__name__, new)
        module.__dict__["__getattr__"] = lambda name: getattr(import_module(new), name)


def install() -> None:
    """Let the old modules be found; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
