"""Everything that a teacher takes along, in one archive that needs no network."""

import shutil
from pathlib import Path

from crossexplain_book.kit.assignment import make_assignment
from crossexplain_book.kit.epub import make_epub
from crossexplain_book.kit.handout import make_handout
from crossexplain_book.kit.notebooks import make_notebooks
from crossexplain_book.kit.pages import chapter_leaves, site
from crossexplain_book.kit.pdf import make_pdf
from crossexplain_book.kit.printer import browser, print_slides
from crossexplain_book.kit.slides import make_slides
from crossexplain_book.layout import Build

README = """CrossExplain: what a teacher takes along

crossexplain.pdf  the whole book, for print; crossexplain.epub is for readers that reflow
pages/            the book as pages: open pages/index.html; the plans for teaching are under "Teach"
slides/           one file a chapter, and the same as PDF; press S in a browser for notes with minutes
handouts/         one sheet a chapter
notebooks/        one a chapter without solutions, and one with them
assignments/      for each chapter: assignment.ipynb, rubric.md, and autograder.zip for `otter run -a autograder.zip FILE`

Pages, slides and PDF need nothing but a browser. Notebooks need the project's environment: see pages/teach/room.html.
Text CC BY 4.0, code BSD-3-Clause. Photographs keep the terms of those who took them, who are named at the end of each chapter;
those of Flickr8k, in the full profile, are for research and teaching only: hand them to your class and to nobody else.
"""


def make_kit(build: Build, names=(), *, say=print) -> Path:
    """Make the archive.

    Parameters
    ----------
    build : Build
        Whose pages are there.
    names : sequence of str
        Chapters, by default all; with some of them the PDF holds these alone, and the pages stay out.
    say : callable
        Takes one line for the terminal.

    Returns
    -------
    Path
        Of ``crossexplain-kit.zip`` in the folder ``kit`` of the build.
    """
    folder = build.folder / "kit" / "crossexplain-kit"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "README.txt").write_text(README, "utf-8")
    leaves = chapter_leaves(build, names)
    with browser() as opened:
        for leaf in leaves:
            say(f"  {leaf.title}")
            print_slides(opened, make_slides(build, leaf, folder / "slides"))
            make_handout(build, leaf, folder / "handouts" / f"{leaf.path.stem}.pdf", opened)
            make_notebooks(build, leaf, folder / "notebooks")
            make_assignment(build, leaf, folder / "assignments" / leaf.path.stem)
        say("  the book as PDF and EPUB")
        only = [leaf.number for leaf in leaves] if names else ()
        make_pdf(build, folder / "crossexplain.pdf", only, opened)
        make_epub(build, folder / "crossexplain.epub", only, opened)
    if not names:
        shutil.copytree(site(build), folder / "pages", ignore=shutil.ignore_patterns(".buildinfo", "*.map"))
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
