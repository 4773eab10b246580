"""The commands ``explain`` and ``merge``: a data set explained by any number of processes, and the proof that all of it was."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

STOPPED, USAGE = 130, 2
COLUMNS = ("image", "text", "key")


def explain_options(command: ArgumentParser) -> None:
    """Add what ``explain`` takes."""
    command.add_argument("--model", required=True, metavar="MODEL",
                         help="of the book (scenes_fusion, flickr8k_clip_cnn), a folder of transformers, module:function")
    command.add_argument("--data", required=True, metavar="DATA", help="scenes, a file or folder, module:function")
    command.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder of the results")
    command.add_argument("--method", default="rounds", metavar="NAMES", help="one or several apart by commas (default rounds)")
    command.add_argument("--baseline", action="append", metavar="NAME",
                         help="what stands in for what is masked: neutral (the default), data, or a name; may be repeated")
    command.add_argument("--where", action="append", default=[], metavar="CONDITION",
                         help="only these, as in 'label == 1' or 'words > 8'; repeat for several")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N of them")
    command.add_argument("--shard", type=_shard, metavar="RANK/WORLD",
                         help="this process and how many there are, 0/2 and 1/2; default, what the launcher says")
    command.add_argument("--dry-run", action="store_true", help="measure the cost on 32 examples, write nothing")
    for name, meaning in (("part", "written at a time (default 256)"), ("batch", "explained at a time (default 32)")):
        command.add_argument(f"--{name}", type=int, metavar="N", help=f"examples {meaning}")
    command.add_argument("--threads", type=int, metavar="N", help="of one process (default 1)")
    command.add_argument("--budget", type=int, metavar="N", help="coalitions an example, for methods that draw them")
    command.add_argument("--seed", type=int, metavar="N", help="default 0")
    command.add_argument("--device", metavar="NAME", help="default, the accelerator of the local rank if there is one")
    column_options(command)


def column_options(command: ArgumentParser) -> None:
    """Add how the columns of a data set are called, for every command that reads one."""
    for kind in COLUMNS:
        command.add_argument(f"--{kind}-column", metavar="NAME", help=f"column of the {kind}, where the data has columns")
    command.add_argument("--root", metavar="FOLDER", help="of the files that a table names (default its own)")


def columns_of(options: Namespace) -> dict[str, str]:
    """Return the columns that were named, and the root, as :func:`crossexplain.runs.known.data` takes them."""
    columns = {kind: name for kind in COLUMNS if (name := getattr(options, f"{kind}_column"))}
    return columns | ({"root": options.root} if options.root else {})


def merge_options(command: ArgumentParser) -> None:
    """Add what ``merge`` takes."""
    command.add_argument("folder", type=Path, metavar="FOLDER", help="of the results")
    command.add_argument("--into", type=Path, metavar="FILE", help="default, all.parquet in the folder")


def _shard(text: str) -> tuple[int, int]:
    try:
        rank, world = map(int, text.split("/"))
    except ValueError:
        raise ArgumentTypeError(f"got {text}, expected RANK/WORLD, as in 0/2 and 1/2") from None
    return rank, world


def explain(options: Namespace) -> int:
    """Explain a data set, or the share of it that this process has to do."""
    from crossexplain.runs import Stopped, explain_dataset, known

    columns = columns_of(options)
    given = {name: value for name in ("shard", "limit", "part", "batch", "threads", "budget", "seed", "device")
             if (value := getattr(options, name)) is not None}

    def run() -> object:
        return explain_dataset(known.model(options.model), known.data(options.data, **columns), options.method.split(","),
                               options.out, where=options.where, baselines=options.baseline or ["neutral"],
                               dry_run=options.dry_run, **given)

    try:
        return _said(run)
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        return STOPPED


def merge(options: Namespace) -> int:
    """Prove that every example is there once, and write one table."""
    from crossexplain.runs import merge as merged

    return _said(lambda: merged(options.folder, options.into))


def _said(task: Callable[[], object]) -> int:
    """Print what comes of a task, or what was wrong with what it was given."""
    from crossexplain.checks import InputError

    try:
        print(task(), flush=True)
    except InputError as error:
        print(f"crossexplain: {error}", file=sys.stderr)
        return USAGE
    return 0
