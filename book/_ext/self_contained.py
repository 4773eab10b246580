"""Pages that need nothing but themselves: formulas from a local file, no live-code scripts, theme as the system has it."""

from importlib.metadata import distribution

LIVE_CODE = "thebe"


def add_mathjax(app) -> None:
    """Copy the one file that draws formulas beside the pages.

    This runs after jupyter-book has read the configuration, since it would load every script that it finds on a static
    path then on every page.
    """
    package = distribution("sphinx-mathjax-offline")
    path = package.locate_file(f"sphinx-mathjax-offline/static/mathjax/{app.config.mathjax_path}")
    app.config.html_static_path.append(str(path))


def drop_live_code(app, pagename, templatename, context, doctree) -> None:
    """Remove scripts that name the live-code library, whose address is remote; let the system choose the theme."""
    context["default_mode"] = "auto"
    scripts = context.get("script_files", [])
    kept = [script for script in scripts if not _names_live_code(script)]
    if len(kept) != len(scripts):
        context["script_files"] = kept


def _names_live_code(script) -> bool:
    body = getattr(script, "attributes", {}).get("body") or ""
    return LIVE_CODE in str(getattr(script, "filename", script)) or LIVE_CODE in body


def setup(app) -> dict:
    """Register both with Sphinx."""
    app.connect("builder-inited", add_mathjax)
    app.connect("html-page-context", drop_live_code, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
