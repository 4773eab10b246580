"""Pages read and written by two processes, where the machine has two cores; they are the same as those of one process."""

import os

# They say nothing of reading side by side. The one numbers chapters once all pages are read, the other waits for LaTeX.
UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")


def share_out(app) -> None:
    """Let Sphinx divide the pages, which jupyter-book has no option for."""
    app.parallel = min(2, os.cpu_count() or 1)
    for name in UNDECLARED:
        if name in app.extensions and app.extensions[name].parallel_read_safe is None:
            app.extensions[name].parallel_read_safe = True


def setup(app) -> dict:
    """Register it with Sphinx."""
    app.connect("builder-inited", share_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
