"""See what multimodal neural networks look at: views, rounds, verdicts and the evidence for them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("crossexplain")
except PackageNotFoundError:  # the source tree on the path, not installed
    __version__ = "0+source"
