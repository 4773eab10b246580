"""Pages that need nothing but themselves: formulas from a local file, no live-code scripts, theme as the system has it."""

import shutil
from importlib.metadata import distribution
from pathlib import Path

LIVE_CODE = "thebe"
PARTS = ("startup.js", "core.js", "input/tex-base.js", "input/tex/extensions/ams.js", "output/chtml.js",
         "output/chtml/fonts/tex.js", "a11y/assistive-mml.js")  # what _static/formulas.js loads, a third of the whole
FONTS = "output/chtml/fonts/woff-v2"


def add_mathjax(app) -> None:
    """Copy the one file that draws formulas in print and on slides beside the pages.

    This runs after jupyter-book has read the configuration, since it would load every script that it finds on a static
    path then on every page.
    """
    package = distribution("sphinx-mathjax-offline")
    path = package.locate_file(f"sphinx-mathjax-offline/static/mathjax/{app.config.mathjax_path}")
    app.config.html_static_path.append(str(path))


def add_formulas(app, error) -> None:
    """Copy the parts that draw formulas on the pages."""
    source = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
    target = Path(app.outdir) / "_static" / "mathjax"
    for path in [*(source / name for name in PARTS), *(source / FONTS).glob("*.woff")]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


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
    """Register all of it with Sphinx."""
    app.connect("builder-inited", add_mathjax)
    app.connect("build-finished", add_formulas)
    app.connect("html-page-context", drop_live_code, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
