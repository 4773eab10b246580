"""From notebooks to a book: execute the chapters, assemble the pages, build the site."""

from importlib import import_module

# Name -> where it is. A chapter that imports its figures from here does not import what builds the book.
_HOME = {"BookError": "crossexplain_book.layout", "Build": "crossexplain_book.layout",
         "build_book": "crossexplain_book.build", "chromium": "crossexplain_book.layout",
         "find_root": "crossexplain_book.layout"}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
