"""How long the two commands of the README take on this machine, once the environment is there.

The book is made from nothing: what was built before in its usual place is removed first, and the tests then read the book
that was just made, as they do after ``make book``. Measure alone: other programs at work double both times.
"""

import shutil
import subprocess

from crossexplain.files import embedded_folder
from crossexplain_book.bench import BenchError, row_of, seconds
from crossexplain_book.layout import Build

ROOT = embedded_folder().parent


def command(*words: str) -> float:
    """Return how long a command of the Makefile takes, in seconds.

    Raises
    ------
    BenchError
        If the command fails: how long a failure takes is no figure.
    """
    finished = []
    taken = seconds(lambda: finished.append(subprocess.run(["make", *words], cwd=ROOT, check=False)))
    if finished[0].returncode:
        raise BenchError(f"`make {' '.join(words)}` failed after {taken:.0f} s (see above); mend that first.")
    return taken


def rows() -> list[dict]:
    """Make the book from nothing, make it once more, and run all tests."""
    subprocess.run(["make", "env"], cwd=ROOT, check=True)
    shutil.rmtree(Build(ROOT).folder, ignore_errors=True)
    return [row_of("time.book.seconds", [command("book")], "s for `make book` from nothing, without the environment"),
            row_of("time.book_again.seconds", [command("book")], "s for `make book` where nothing has changed"),
            row_of("time.test.seconds", [command("test")], "s for `make test` after `make book`")]


if __name__ == "__main__":
    for row in rows():
        print(row["id"], f"{row['value']:.0f}", row["unit"])
