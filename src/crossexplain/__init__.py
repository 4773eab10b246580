"""See what multimodal neural networks look at: views, rounds, verdicts and the evidence for them.

What most people need stands at this door, and is loaded when it is asked for: ``from crossexplain import rounds, Tokens``.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from crossexplain import moved

_HOME = {  # name -> the module that defines it
    "rounds": "crossexplain.gradients.rounds",
    "explain": "crossexplain.evaluation.methods",
    "preflight": "crossexplain.gradients.preflight",
    "Game": "crossexplain.coalitions.game",
    "ImageCells": "crossexplain.gradients.modalities",
    "Tokens": "crossexplain.gradients.modalities",
    "Vectors": "crossexplain.gradients.modalities",
    "Columns": "crossexplain.gradients.modalities",
    "Video": "crossexplain.gradients.modalities",
    "Groups": "crossexplain.gradients.groups",
    "word_numbers": "crossexplain.gradients.modalities",
    "Modality": "crossexplain.gradients.modalities",
    "Mask": "crossexplain.gradients.views",
    "Noise": "crossexplain.gradients.views",
    "Reorder": "crossexplain.gradients.views",
    "capture": "crossexplain.gradients.capture",
    "Called": "crossexplain.gradients.called",
    "adapt": "crossexplain.adapters",
    "Adapted": "crossexplain.adapters",
    "Interval": "crossexplain.intervals",
    "InputError": "crossexplain.checks",
    "load_or_train": "crossexplain.recipes",
}
__all__ = list(_HOME)

try:
    __version__ = version("crossexplain")
except PackageNotFoundError:  # the source tree on the path, not installed
    __version__ = "0+source"
moved.install()


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"crossexplain has no {name!r}; it has {', '.join(__all__)}, and the packages data, models, "
                             "gradients, coalitions, evaluation and recipes.")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
