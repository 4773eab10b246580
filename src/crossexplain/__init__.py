"""See what multimodal neural networks look at: views, rounds, verdicts and the evidence for them."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

_HOME = {
    "Game": "crossexplain.coalitions.game", "ImageCells": "crossexplain.gradients.views",
    "InputError": "crossexplain.checks", "Interval": "crossexplain.intervals", "Mask": "crossexplain.gradients.views",
    "Modality": "crossexplain.gradients.views", "Noise": "crossexplain.gradients.views",
    "Reorder": "crossexplain.gradients.views", "Tokens": "crossexplain.gradients.views",
    "Vectors": "crossexplain.gradients.views", "capture": "crossexplain.gradients.capture",
    "explain": "crossexplain.evaluation.methods", "preflight": "crossexplain.gradients.preflight",
    "rounds": "crossexplain.gradients.rounds",
}

try:
    __version__ = version("crossexplain")
except PackageNotFoundError:  # the source tree on the path, not installed
    __version__ = "0+source"


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'crossexplain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
