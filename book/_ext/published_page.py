"""A published page among the pages of the book: made by the command that a reader types, while Sphinx reads the rest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sphinx.util import logging

from crossexplain.files import digest, tree

ROOT = Path(__file__).resolve().parents[2]
# Few examples and covers, so that it takes no longer than the rest of the pages; publish.md shows what a reader types.
COMMAND = ["publish", "--model", "scenes_clip_cnn", "--data", "scenes", "--classes", "no,yes", "--limit", "64", "--shown", "6",
           "--states", "192", "--title", "What a dual encoder looks at"]
NAME = "scenes.html"
log = logging.getLogger(__name__)


def key() -> str:
    """Return a hash of all that the page is made from."""
    from crossexplain.data.store import cache

    weights = tree(ROOT / "data" / "checkpoints", "scenes_clip_cnn.*")
    return digest(*COMMAND, *map(str, tree(cache() / "npm")), *weights,
                  *(path for kind in ("*.py", "*.js", "*.css", "*.toml") for path in tree(ROOT / "src", kind)))


def begin(app) -> None:
    """Start to make the page, unless the one that was kept is still right."""
    app.published = None
    folder = Path(app.srcdir).parent / "published"
    if app.builder.name != "html" or (_text(folder / "key") == key() and (folder / NAME).is_file()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "crossexplain", *COMMAND, "--out", str(folder / NAME)]
    with (folder / "log").open("w") as out:
        app.published = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"})


def end(app, error) -> None:
    """Put the page, and what it loads, beside the others."""
    folder, target = Path(app.srcdir).parent / "published", Path(app.outdir) / "published"
    if app.published is not None:
        if app.published.wait():
            log.warning("the published page was not made: %s", _text(folder / "log")[-2000:])
            return
        (folder / "key").write_text(key(), "utf-8")
    if app.builder.name == "html":
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("key", "log"))


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def setup(app) -> dict:
    """Register both with Sphinx."""
    app.connect("builder-inited", begin)
    app.connect("build-finished", end)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
