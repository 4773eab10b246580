"""Results in, a page out."""

from collections.abc import Sequence
from pathlib import Path

from crossexplain.checks import InputError
from crossexplain_book.report import markup, sections
from crossexplain_book.report.examples import Reader
from crossexplain_book.report.measures import Pair, Run

NAME = "report.html"


def write_report(folders: str | Path | Sequence[str | Path], out: str | Path | None = None, *, data: str | None = None,
                 model: str | None = None, **columns: str) -> Path:
    """Write the page about one run, or about two side by side.

    Parameters
    ----------
    folders : path, or one or two of them
        Results of ``python -m crossexplain explain``. Two runs are compared by key, paired.
    out : path, optional
        Default ``report.html`` in the first folder.
    data : str, optional
        The data of the run, as it was named there: the examples that tell most are shown with maps and words.
    model : str, optional
        The model of the (first) run; default the name in its manifest. Its weights have to be those of the run.
    **columns
        ``image``, ``text``, ``key`` and ``root``, as for the run.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        For more than two folders, results that are not whole, two runs without a common example, another model.
    """
    folders = [folders] if isinstance(folders, (str, Path)) else list(folders)
    if not 1 <= len(folders) <= 2:
        raise InputError(f"got {len(folders)} folders, expected the results of one run, or of two to compare.")
    runs = [Run.of(folder) for folder in folders]
    reader = None
    if data is not None:
        from crossexplain.runs import known

        reader = Reader(known.data(data, **columns), known.model(model or runs[0].configuration["model"]["name"]))
        reader.require(runs[0])
    names = _told_apart([run.name for run in runs])
    for run, name in zip(runs, names):
        run.name = name
        if not run.n:
            raise InputError(f"no example of {name} was explained: {run.failures()[0][0]}")
    if len(runs) == 1:
        title, parts = f"What {runs[0].configuration['model']['name']} looks at", sections.one_run(runs[0], reader)
    else:
        title, parts = f"{names[0]} and {names[1]}, side by side", sections.two_runs(Pair(*runs), reader)
    return markup.write(Path(out or Path(folders[0]) / NAME), markup.page(title, *parts))


def _told_apart(names: list[str]) -> list[str]:
    return names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, start=1)]
