"""The command line: ``python -m crossexplain book | run | pdf | kit | explain | merge | report | publish``,
``fetch | sources | doctor | bench | train``.

Exit codes: 0, all went well; 1, a chapter, a claim, a page or a measurement failed; 2, the command was not understood;
3, a data set or a weight file is missing.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from tempfile import TemporaryFile

from crossexplain import __version__
from crossexplain_book import explaining, provenance
from crossexplain_book.publish import command as publishing
from crossexplain_book.report import command as reporting

OK, FAILED, USAGE, MISSING = 0, 1, 2, 3
FULL_MEMORY, FULL_DISK, FULL_MINUTES = 8, 12, 60  # GiB, GiB, minutes on two cores: of a full run with small towers


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupted)  # so that a stopped build ends what it started
    options = parser().parse_args(arguments)
    _absolute_data_folder()
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("\nStopped. What is finished is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "crossexplain").startswith("crossexplain"):
            raise
        print(f"crossexplain: {error.name} is not installed, and the command {options.command!r} needs it; in a checkout of "
              "the project type `make env`, elsewhere `pip install 'crossexplain[book,teach,test]'`.", file=sys.stderr)
        return USAGE
    except Exception as error:  # noqa: BLE001 - told apart below; what is not ours is raised again
        code = _code(error)
        if code is None:
            raise
        print(f"crossexplain: {error}", file=sys.stderr)
        return code


def _interrupted(number, frame) -> None:
    raise KeyboardInterrupt


def _absolute_data_folder() -> None:
    """Make the data folder absolute, so that chapters, which run in another folder, find it."""
    if folder := os.environ.get("CROSSEXPLAIN_DATA"):
        os.environ["CROSSEXPLAIN_DATA"] = str(Path(folder).expanduser().absolute())


def _code(error: Exception) -> int | None:
    """Return the exit code for an error that a user can understand, None for one that is a defect of the program."""
    from crossexplain.data.store import BrokenSource, FetchError, MissingSource
    from crossexplain_book.bench import BenchError
    from crossexplain_book.layout import BookError, SiteError

    if isinstance(error, MissingSource | BrokenSource | FetchError):
        return MISSING
    if isinstance(error, BenchError | SiteError):
        return FAILED
    return USAGE if isinstance(error, UsageError | BookError) else None


class UsageError(Exception):
    """What was asked for does not exist."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="python -m crossexplain", description="See what multimodal networks look at: "
                                  "the book and what belongs to it.", epilog=__doc__.split("\n\n", 1)[1])
    top.add_argument("--version", action="version", version=f"crossexplain {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "book", "run the chapters that changed and build the pages", book, _book_options)
    _add(commands, "run", "run chapters without building the pages", run, _run_options)
    _add(commands, "pdf", "print the finished book as one PDF", pdf, _kit_options)
    _add(commands, "kit", "make what a teacher takes along, as one archive, from the finished book", kit, _kit_options)
    _add(commands, "explain", "explain a data set, alone or as one of many processes", explaining.explain,
         explaining.explain_options)
    _add(commands, "merge", "prove that results are complete, and write them to one table", explaining.merge,
         explaining.merge_options)
    _add(commands, "report", "write a page about one run, or about two side by side", reporting.report,
         reporting.report_options)
    _add(commands, "publish", "write one page that answers clicks about a model and examples", publishing.publish,
         publishing.publish_options)
    _add(commands, "fetch", "download a data set or weights into the local cache", fetch, _fetch_options)
    _add(commands, "sources", "list the data sets and weights, and where each was found", sources, lambda _: None)
    _add(commands, "doctor", "say what is installed, what was found, what a full run needs", doctor, lambda _: None)
    _add(commands, "bench", "measure, and keep the figures in data/results/figures.csv", bench, _bench_options)
    _add(commands, "train", "make a checkpoint that travels with the project again", train, _train_options)
    return top


def _add(commands, name: str, purpose: str, function, options) -> None:
    command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
    options(command)
    command.set_defaults(run=function)


def _run_options(command) -> None:
    command.add_argument("chapters", nargs="*", metavar="CHAPTER", help="number (01) or whole name; default all")
    _execution_options(command)


def _book_options(command) -> None:
    command.add_argument("--chapters", action="append", default=[], metavar="NAME",
                         help="run only these (01, or the whole name; several apart by commas); the others stay as they were")
    command.add_argument("--results", type=_folder, metavar="FOLDER", help="copy the tables that the chapters write there")
    _execution_options(command)


def _kit_options(command) -> None:
    command.add_argument("--chapters", action="append", default=[], metavar="NAME", help="only these (04, or the whole name)")
    _which_build(command)


def _execution_options(command) -> None:
    _which_build(command)
    command.add_argument("--jobs", type=_count, default=2, help="chapters at a time (default 2)")
    command.add_argument("--memory", type=_amount, metavar="GIB", help="bound for one chapter (default 3.5, full 6)")
    command.add_argument("--again", action="store_true", help="run also what has not changed")
    command.add_argument("-p", "--parameter", action="append", metavar="NAME=VALUE",
                         help="parameter for the notebooks, for example seed=1 or retrain=true")


def _which_build(command) -> None:
    command.add_argument("--profile", choices=("embedded", "full"), default="embedded",
                         help="embedded: data that comes with the packages; full: the data of the paper")
    command.add_argument("--size", choices=("page", "small"), default="page",
                         help="small: the same code on a few examples, claims recorded but not enforced")
    command.add_argument("--out", type=_folder, metavar="FOLDER", help="folder of the build (default _build/PROFILE)")


def _fetch_options(command) -> None:
    command.add_argument("names", nargs="+", metavar="NAME", help="as listed by the command sources")
    command.add_argument("-y", "--yes", action="store_true", help="download without a question")


def _bench_options(command) -> None:
    command.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run, or all")
    command.add_argument("--list", action="store_true", help="list the benchmarks and run none")
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--repeats", type=_count, default=5, help="runs that a median is taken over (default 5)")


def _train_options(command) -> None:
    command.add_argument("name", metavar="NAME", help="what to train; an unknown name lists what there is")
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--out", type=_folder, metavar="FOLDER", help="where to write (default the project's checkpoints)")


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number of {least} or more")
    return number


def _count(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0")
    return number


def _folder(text: str) -> Path:
    """Check the folder now, and not after an hour of work."""
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=text):
            return Path(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"got {text}, expected a folder to write to: {error.strerror}") from error


def _build(options):
    from crossexplain_book import Build, find_root
    from crossexplain_book.execute import parse_parameters

    memory = options.memory or (3.5 if options.profile == "embedded" else 6.0)
    build = Build(find_root(), options.profile, options.size, options.out)
    return build, {"jobs": options.jobs, "memory": memory, "again": options.again,
                   "parameters": parse_parameters(options.parameter)}


def book(options) -> int:
    """Run what changed and build the pages."""
    from crossexplain_book import build_book

    build, how = _build(options)
    return build_book(build, names=options.chapters, results=options.results, say=say, **how)


def run(options) -> int:
    """Run chapters only."""
    from crossexplain_book.build import run_chapters

    build, how = _build(options)
    return run_chapters(build, names=options.chapters, say=say, **how)


def pdf(options) -> int:
    """Print the finished book."""
    from crossexplain_book import Build, find_root
    from crossexplain_book.kit.pdf import make_pdf

    build = Build(find_root(), options.profile, options.size, options.out)
    say(str(make_pdf(build, names=_numbers(build, options.chapters))))
    return OK


def kit(options) -> int:
    """Make what a teacher takes along."""
    from crossexplain_book import Build, find_root
    from crossexplain_book.kit.archive import make_kit

    build = Build(find_root(), options.profile, options.size, options.out)
    say(str(make_kit(build, _numbers(build, options.chapters), say=say)))
    return OK


def _numbers(build, names: list[str]) -> list[str]:
    from crossexplain_book.layout import chapters

    return [path.stem[:2] for path in chapters(build.root, names)] if names else []


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def fetch(options) -> int:
    """Download into the local cache, after a question or with ``--yes``."""
    from crossexplain.data import store

    if unknown := [name for name in options.names if name not in store.SOURCES]:
        raise UsageError(f"there is no source {unknown[0]!r}; the sources are {', '.join(store.SOURCES)}.")
    for name in options.names:
        source = store.fetch(name, ask=(lambda question: True) if options.yes else _ask)
        say(f"{name}: {source.origin}, {source.path}")
    return OK


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        say(f"{question}\nNobody is here to answer: pass --yes.")
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def sources(options) -> int:
    """List every source and where it was found."""
    from crossexplain.data.store import megabytes
    from crossexplain_book.sources import sources as all_sources

    for entry in all_sources():
        place = f"{entry.state}, {entry.found.path if entry.found else megabytes(entry.source.size)}"
        say(f"{entry.source.name:20} {place}")
        if entry.problem and not entry.found:
            say(f"{'':20} {entry.problem}")
    return OK


def doctor(options) -> int:
    """Say what is installed, what was found, and what a full run would need."""
    say(f"crossexplain {__version__} with Python {platform.python_version()} on {platform.platform()}")
    missing = _say_packages()
    _say_machine()
    sound = _say_sources()
    return FAILED if missing or not sound else OK


def _say_sources() -> bool:
    """Say where each source is and what a full run lacks; return whether the files that were found are complete."""
    from crossexplain.data import store
    from crossexplain_book.sources import sources as all_sources

    say("sources")
    sound = True
    try:
        store.data_folder()
    except store.MissingSource as error:
        sound = False
        say(f"  {error}")
        del os.environ["CROSSEXPLAIN_DATA"]  # what follows is what would be found without it
    entries = all_sources()
    for entry in entries:
        say(f"  {entry.source.name:20} {entry.state}{'' if entry.source.chapters else ', no chapter reads it so far'}")
        if entry.broken:
            sound = False
            say(f"  {'':20} {entry.problem}")
    _say_lacking([entry.source for entry in entries if not entry.found and entry.source.chapters])
    return sound


def _say_lacking(sources: list) -> None:
    from crossexplain.data.store import cache, command, megabytes

    say(f"a full run (make book PROFILE=full) needs about {FULL_MEMORY} GiB of memory, {FULL_DISK} GiB of disk and "
        f"{FULL_MINUTES} minutes on two cores with the small towers, EfficientNet-Lite0 and MiniLM; where VGG-16 and bert-base "
        f"are at hand they are taken, and that takes longer; {len(sources) or 'none'} of the sources that chapters read "
        f"{'is' if len(sources) < 2 else 'are'} lacking")
    if fetched := [source for source in sources if source.download]:
        say(f"  {megabytes(sum(source.size for source in fetched))} to fetch into {cache()}: "
            f"{command('fetch', *(source.name for source in fetched))}")
    if placed := [source.name for source in sources if not source.download]:
        say(f"  to place in a data folder (CROSSEXPLAIN_DATA), since they have no address: {', '.join(placed)}")


def _say_packages() -> list[str]:
    say("packages")
    versions = provenance.installed((*provenance.PACKAGES, *provenance.TOOLS))
    for name, number in versions.items():
        say(f"  {name:20} {number or 'missing'}")
    missing = [name for name, number in versions.items() if number is None]
    if missing:
        say("  make the environment with `make env`, or install the extras: pip install 'crossexplain[book,teach,test]'")
    return missing


def _say_machine() -> None:
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    say("machine")
    say(f"  {'cores':20} {os.cpu_count()}")
    try:
        import psutil

        memory = psutil.virtual_memory()
        say(f"  {'memory':20} {memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free")
    except ModuleNotFoundError:
        say(f"  {'memory':20} unknown, psutil is not installed")
    say(f"  {'disk':20} {disk:.1f} GiB free")
    try:
        import torch

        say(f"  {'accelerator':20} {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none, the CPU is used'}")
    except ModuleNotFoundError:
        pass
    from crossexplain_book.layout import chromium

    say(f"  {'browser':20} {chromium() or 'none: the tests of the pages need Chromium'}")


def bench(options) -> int:
    """Measure figures and keep them."""
    from crossexplain_book import find_root
    from crossexplain_book.bench import benchmarks, drift, load_rows, measure, merge

    root = find_root()
    files = benchmarks(root)
    if options.list or not options.names:
        say("\n".join(files) or "There are no benchmarks yet.")
        return OK if options.list else USAGE
    names = list(files) if options.names == ["all"] else options.names
    if unknown := [name for name in names if name not in files]:
        raise UsageError(f"there is no benchmark {unknown[0]!r}; there are {', '.join(files)} and all.")
    table = root / "data" / "results" / "figures.csv"
    before, outside = load_rows(table), []
    for name in names:
        say(f"{name}")
        rows = measure(files[name], seed=options.seed, repeats=options.repeats)
        merge(rows, table)
        for row in rows:
            line = f"  {row['id']:36} {row['value']} [{row['low']}, {row['high']}] {row['unit']}, n = {row['n']}"
            say(line)
            if last := drift(row, before.get(row["id"])):
                outside.append(f"{line}; {last}")
    if outside:
        say("\n".join(["outside the range of the last time, for better or worse:", *outside]))
    return OK


def train(options) -> int:
    """Train one system of the paper again and write its checkpoint."""
    from crossexplain.data import store
    from crossexplain.recipes import RECIPES, keep

    if options.name not in RECIPES:
        raise UsageError(f"there is no recipe {options.name!r}; there are {', '.join(RECIPES) or 'none yet'}.")
    trained = RECIPES[options.name].train(seed=options.seed, resume=store.cache() / "training")
    say(str(keep(trained, options.out)))
    return OK
