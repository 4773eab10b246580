"""Old names of modules, for one version: an import of one gives what took its place, with a warning that says so."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {  # old module -> new module, or several of which the first that has a name gives it
    "crossexplain.inputs": ("crossexplain.checks",),
    "crossexplain.interval": ("crossexplain.intervals",),
    "crossexplain.gradients.checks": ("crossexplain.checks",),
    "crossexplain.gradients.image": ("crossexplain.gradients.maps",),
    "crossexplain.gradients.text": ("crossexplain.gradients.tokens",),
    "crossexplain.evaluation.dominance": ("crossexplain.evaluation.modality_shares",),
    "crossexplain.evaluation.exact": ("crossexplain.coalitions.game",),
    "crossexplain.evaluation.indices": ("crossexplain.coalitions.shapley",),
    "crossexplain.evaluation.intervals": ("crossexplain.intervals",),
    "crossexplain.evaluation.metrics": ("crossexplain.evaluation.truth",),
    "crossexplain.evaluation.peers": ("crossexplain.evaluation.methods",),
    "crossexplain.evaluation.sampling": ("crossexplain.coalitions.sampling",),
    "crossexplain.book": ("crossexplain_book",),
    "crossexplain.bench": ("crossexplain_book.bench",),
    "crossexplain.cli": ("crossexplain_book.cli",),
    "crossexplain.show": ("crossexplain_book",),
    "crossexplain.show.figures": ("crossexplain_book.figures",),
    "crossexplain.show.page": ("crossexplain_book.page",),
    "crossexplain.show.widgets": ("crossexplain_book.explorers",),
}


class _Finder(MetaPathFinder, Loader):
    """Asked last, for modules that nothing else finds."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=name in ("crossexplain.book", "crossexplain.show")) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {' and '.join(new)}; the old name goes with the next version.",
                      DeprecationWarning, stacklevel=2)
        module.__getattr__ = lambda name: _first(module.__name__, [import_module(place) for place in new], name)


def _first(old: str, places: list[ModuleType], name: str) -> object:
    for place in places:
        if hasattr(place, name):
            return getattr(place, name)
    raise AttributeError(f"module {old!r}, now {', '.join(place.__name__ for place in places)}, has no {name!r}.")


def install() -> None:
    """Let the old names be found; a second call changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
