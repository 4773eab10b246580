"""The command ``report``: a page about the results of one run, or of two side by side."""

import sys
import webbrowser
from argparse import ArgumentParser, Namespace
from pathlib import Path

from crossexplain_book.explaining import column_options, columns_of


def report_options(command: ArgumentParser) -> None:
    """Add what ``report`` takes."""
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="results of one run, or of two to compare")
    command.add_argument("--data", metavar="DATA", help="as for explain: show pictures and words, which results do not hold")
    command.add_argument("--model", metavar="MODEL", help="as for explain; default, the name in the results")
    command.add_argument("--out", type=Path, metavar="FILE", help="default, report.html in the first folder")
    command.add_argument("--open", action="store_true", help="show it in the browser")
    column_options(command)


def report(options: Namespace) -> int:
    """Write the page, and show it if asked."""
    from crossexplain.checks import InputError
    from crossexplain_book.report.writer import write_report

    try:
        path = write_report(options.folders, options.out, data=options.data, model=options.model, **columns_of(options))
    except InputError as error:
        print(f"crossexplain: {error}", file=sys.stderr)
        return 2
    print(path, flush=True)
    if options.open:
        webbrowser.open(path.resolve().as_uri())
    return 0
