"""From notebooks to a book: execute the chapters, assemble the pages, build the site."""

from crossexplain_book.build import build_book
from crossexplain_book.layout import BookError, Build, chromium, find_root

__all__ = ["BookError", "Build", "build_book", "chromium", "find_root"]
