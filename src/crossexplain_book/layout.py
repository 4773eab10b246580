"""Where the files of a build are: the checkout, the chapters, the folders of one profile and size."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


class BookError(Exception):
    """The book cannot be built as asked; the message says why, and what to do."""


class SiteError(BookError):
    """jupyter-book made no pages from its source."""


@dataclass(frozen=True)
class Build:
    """One build of the book: which profile, at which size, in which folder.

    Parameters
    ----------
    root : Path
        The checkout, with ``notebooks/``, ``book/`` and ``_config.yml``.
    profile : str
        ``"embedded"`` or ``"full"``.
    size : str
        ``"page"``, or ``"small"`` for the same code on a few examples.
    out : Path, optional
        Folder of the build, by default ``_build/<profile>`` or ``_build/<profile>-small`` under ``root``.
    """

    root: Path
    profile: str = "embedded"
    size: str = "page"
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """Folder that holds everything of this build."""
        name = self.profile if self.size == "page" else f"{self.profile}-{self.size}"
        return Path(self.out).resolve() if self.out else self.root / "_build" / name

    @property
    def pages(self) -> Path:
        """Executed notebooks and their records."""
        return self.folder / "pages"

    @property
    def results(self) -> Path:
        """Tables that the chapters wrote."""
        return self.folder / "results"

    @property
    def source(self) -> Path:
        """What jupyter-book reads."""
        return self.folder / "source"

    @property
    def html(self) -> Path:
        """The finished site."""
        return self.folder / "html"


def find_root(start: Path | None = None) -> Path:
    """Return the checkout that ``start`` (the working folder) or else this package lies in.

    Raises
    ------
    BookError
        If there is none: the package is installed without the book.
    """
    beginning = Path(start or Path.cwd()).resolve()
    package = Path(__file__).resolve().parent
    for folder in (beginning, *beginning.parents, *package.parents):
        if (folder / "_config.yml").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise BookError(
        f"no book at {beginning}: expected _config.yml and pyproject.toml in this folder or one above; "
        "clone the project and call this from inside it."
    )


def chapters(root: Path, names=()) -> list[Path]:
    """Return the chapters' notebooks, all of them or those named.

    Parameters
    ----------
    root : Path
    names : iterable of str
        ``"01_images"``, ``"01"``, or a path that ends in one; several may stand in one string, apart by commas.

    Raises
    ------
    BookError
        If a name fits no chapter, or there are no chapters.
    """
    notebooks = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise BookError(f"there are no chapters in {root / 'notebooks'}; a chapter is a notebook NN_name.ipynb.")
    labels = [name for word in names for name in word.split(",") if name]
    if not labels:
        return notebooks
    chosen = []
    for name in labels:
        stem = Path(name).name.removesuffix(".ipynb")
        fits = [path for path in notebooks if path.stem == stem or path.stem.split("_")[0] == stem]
        if not fits:
            raise BookError(f"no chapter {name!r}; there are {', '.join(path.stem for path in notebooks)}.")
        chosen += fits
    return sorted(set(chosen))


def chromium() -> str | None:
    """Return the path of a Chromium-like browser (``CROSSEXPLAIN_BROWSER`` first), or None."""
    named = os.environ.get("CROSSEXPLAIN_BROWSER")
    if named:
        return named
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)
