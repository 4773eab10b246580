"""From notebooks to a book: execute the chapters, assemble the pages, build the site."""

from crossexplain.book.build import build_book
from crossexplain.book.layout import BookError, Build, chromium, find_root

__all__ = ["BookError", "Build", "build_book", "chromium", "find_root"]
