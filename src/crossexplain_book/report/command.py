"""The command ``report``: a page about the results of one run, or of two side by side."""

import sys
import webbrowser
from argparse import ArgumentParser, Namespace
from pathlib import Path

COLUMNS = {"image": "column of the pictures", "text": "column of the texts", "key": "column of the keys"}


def report_options(command: ArgumentParser) -> None:
    """Add what ``report`` takes."""
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="results of one run, or of two to compare")
    command.add_argument("--data", metavar="DATA", help="as for explain: show pictures and words, which results do not hold")
    command.add_argument("--model", metavar="MODEL", help="as for explain; default, the name in the results")
    command.add_argument("--out", type=Path, metavar="FILE", help="default, report.html in the first folder")
    command.add_argument("--open", action="store_true", help="show it in the browser")
    for kind, meaning in COLUMNS.items():
        command.add_argument(f"--{kind}-column", metavar="NAME", help=f"{meaning}, as for explain")
    command.add_argument("--root", metavar="FOLDER", help="folder of the files that a table names, as for explain")


def report(options: Namespace) -> int:
    """Write the page, and show it if asked."""
    from crossexplain.checks import InputError
    from crossexplain_book.report.writer import write_report

    columns = {kind: name for kind in COLUMNS if (name := getattr(options, f"{kind}_column"))}
    columns |= {"root": options.root} if options.root else {}
    try:
        path = write_report(options.folders, options.out, data=options.data, model=options.model, **columns)
    except InputError as error:
        print(f"crossexplain: {error}", file=sys.stderr)
        return 2
    print(path, flush=True)
    if options.open:
        webbrowser.open(path.resolve().as_uri())
    return 0
