"""What the project is built with: every package of the lock that is installed here, its version, and its licence."""

import csv
import re
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from crossexplain_book.page import table

LONGEST = 60  # characters of a licence's name; some packages give the whole text in its place


def licence_of(about: PackageMetadata) -> str:
    """Return the licence that a package's metadata name: the expression, else the classifiers, else the free text."""
    named = [line.split(" :: ")[-1] for line in about.get_all("Classifier") or () if line.startswith("License :: ")
             and line != "License :: OSI Approved"]
    text = (about.get("License") or "").strip().partition("\n")[0]
    said = about.get("License-Expression") or ", ".join(named) or text
    return said if 0 < len(said) <= LONGEST else "see the package" if said or text else "not stated"


def licences(lock: Path) -> list[tuple[str, str, str]]:
    """Return name, version and licence of every package of a lock file that is installed."""
    rows = []
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text("utf-8"), re.MULTILINE):
        try:
            about = metadata(name)
        except PackageNotFoundError:  # of another platform or Python
            continue
        rows.append((name, about["Version"], licence_of(about)))
    return rows


def versions_table(kept: Path) -> str:
    """Return the versions with which the helper was run, as ``tools/compatibility.py`` wrote them, as Markdown."""
    if not kept.is_file():
        return "Not measured in this checkout."
    # Turned: there are more libraries than environments.
    head, *rows = zip(*csv.reader(kept.read_text("utf-8").splitlines()), strict=True)
    return f"{table(head, rows)}"


def dependencies_table(lock: Path) -> str:
    """Return the packages with their licences as Markdown."""
    rows = [(f"`{name}`", version, licence.replace("|", "/")) for name, version, licence in licences(lock)]
    return f"{len(rows)} packages are installed here.\n\n{table(('package', 'version', 'licence'), rows)}"
