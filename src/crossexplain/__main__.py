"""``python -m crossexplain``: the command line of the workshop, which makes the book, fetches data and trains models."""

import sys


def main() -> int:
    """Run one command, or say how to get the commands where only the helper is installed."""
    try:
        from crossexplain_book.cli import main as run
    except ModuleNotFoundError as error:
        if error.name != "crossexplain_book":
            raise
        print("crossexplain: the commands belong to crossexplain_book, which is not installed here; clone the project and type "
              "`make env`, or install the whole distribution with `pip install .`.", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
