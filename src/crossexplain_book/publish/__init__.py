"""A reader's own model as one page that answers clicks: :func:`~crossexplain_book.publish.page.publish`.

The function is in ``page``, the command in ``command``, what is stored in ``stored``, and what runs a model in a page in
``exported``, ``running`` and ``runtime``.
"""

__all__ = ["publish"]


def __getattr__(name: str):
    if name != "publish":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crossexplain_book.publish.page import publish  # slow to import, and the command line lists this package

    return publish
