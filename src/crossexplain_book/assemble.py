"""Turn executed notebooks into the source folder of the book.

What an executed notebook carries beside its text is put where jupyter-book looks for it: pictures become numbered
figures with alt text, the finding moves to the top, the budget card is filled in from the run, claims are gathered.
"""

import copy
import csv
import json
import math
import re
import shutil
from base64 import b64decode
from pathlib import Path

from crossexplain.files import digest, tree, write_whole
from crossexplain_book.api import api_pages
from crossexplain_book.cards import source_tables
from crossexplain_book.dependencies import dependencies_table, versions_table
from crossexplain_book.layout import BookError, Build
from crossexplain_book.page import CLAIM, RUN
from crossexplain_book.records import ChapterRecord, executed_notebook, load_record

CARRIED = (CLAIM, RUN)  # data for the book, not for the reader
CONTROLS = "application/vnd.jupyter.widget-view+json"  # of an explorer: nothing without a kernel
WORDS_PER_MINUTE = 200
WIDE = 870  # pixels of a picture: in a column of 696 pixels it would have less than four fifths of its size
PLACEHOLDER = re.compile(r"^% assembled: (\w+) *$", re.MULTILINE)


def text_of(cell: dict) -> str:
    """Return the source of a cell as one string."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags(cell: dict) -> list[str]:
    """Return the tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def words_of(output: dict) -> dict | None:
    """Return alt text, caption and name of an output that is a picture, or None."""
    return output.get("metadata", {}).get("crossexplain")


def outputs_of(notebook: dict, mime: str) -> list:
    """Return what the outputs of a notebook carry under one MIME type, in order."""
    return [output["data"][mime] for cell in notebook["cells"] for output in cell.get("outputs", [])
            if mime in output.get("data", {})]


def figure_cell(cell: dict, output: dict, suffix: str) -> dict:
    """Return a cell that shows one picture as a numbered figure; its code is not shown, but may not be empty.

    Of an explorer the picture of its first state stays, the controls do not.
    """
    words = words_of(output)
    output = {**output, "data": {mime: data for mime, data in output["data"].items() if mime != CONTROLS}}
    look = {"figure": {"caption": words["caption"], "name": words["name"]},
            "image": {"alt": words["alt"], "classes": "dark-light" + " ce-wide" * _is_wide(output), "align": "center"}}
    return {"cell_type": "code", "id": f"{cell['id'][:50]}-{suffix}", "execution_count": None, "source": "# picture",
            "metadata": {"tags": ["remove-input"], "mystnb": look}, "outputs": [output]}


def _is_wide(output: dict) -> bool:
    """Return whether a picture has too many pixels for the column: a PNG says its width in bytes 16 to 19."""
    return int.from_bytes(b64decode(output["data"].get("image/png", "")[:32])[16:20]) > WIDE


def split_figures(cell: dict) -> list[dict]:
    """Return the cell without its pictures, and then each picture in a cell of its own, in the order in which they appeared."""
    pictures, plain = [], []
    for output in cell["outputs"]:
        (pictures if words_of(output) else plain).append(output)
    remainder = {**cell, "outputs": plain}
    return [remainder, *(figure_cell(cell, output, f"figure-{i}") for i, output in enumerate(pictures, start=1))]


def show_parameters(cell: dict, parameters: dict) -> dict:
    """Return the parameters cell with the values of the run in place of the defaults."""
    source = text_of(cell)
    for name, value in parameters.items():
        pattern = re.compile(rf"^({re.escape(name)}\s*=\s*)[^#\n]*?(\s*(?:#.*)?)$", re.MULTILINE)
        source = pattern.sub(lambda match, value=value: f"{match[1]}{value!r}{match[2]}", source)
    return {**cell, "source": source}


def budget(notebook: dict, record: ChapterRecord) -> str:
    """Return the budget card: what reading and running the page takes."""
    prose = sum(len(text_of(cell).split()) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    loaded = sum(state["bytes"] for state in record.sources.values() if not state["source"].startswith("embedded"))
    entries = {"read": f"{math.ceil(prose / WORDS_PER_MINUTE)} min", "run": duration(record.seconds),
               "memory": f"{record.memory:.1f} GiB", "data to download": f"{loaded / 1e6:,.0f} MB" if loaded else "none",
               "this notebook": f"{{download}}`download <../downloads/{record.chapter}.ipynb>`"}
    head = "| " + " | ".join(entries) + " |\n|" + " :-: |" * len(entries)
    return f"{head}\n| {' | '.join(entries.values())} |"


def duration(seconds: float) -> str:
    """Return a duration in the unit that reads well.

    Examples
    --------
    >>> duration(42.3), duration(150)
    ('42 s', '2.5 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def page(notebook: dict, record: ChapterRecord) -> dict:
    """Turn an executed notebook into a page of the book.

    Parameters
    ----------
    notebook : dict
        Executed, format 4.
    record : ChapterRecord
        Of its run.

    Returns
    -------
    dict
        A notebook for jupyter-book; the input is left as it was.
    """
    book = copy.deepcopy(notebook)
    for key in ("papermill", "widgets"):
        book["metadata"].pop(key, None)
    cells, finding = [], []
    for cell in book["cells"]:
        for timing in ("papermill", "execution"):
            cell["metadata"].pop(timing, None)
        if cell["cell_type"] != "code":
            cells.append(cell)
        elif "injected-parameters" not in tags(cell):
            first, *figures = split_figures(_code_cell(cell, record))
            cells.append(first)
            (finding if "finding" in tags(cell) else cells).extend(figures)
    book["cells"] = [new for cell in cells for new in _filled(cell, finding, notebook, record)]
    first = next(cell for cell in book["cells"] if cell["cell_type"] == "markdown")
    first["source"] = label(record.chapter) + text_of(first)
    _drop_carried(book)
    return book


def _code_cell(cell: dict, record: ChapterRecord) -> dict:
    if "parameters" in tags(cell):
        cell = show_parameters(cell, record.parameters)
    folded = {"publish": "hide-input", "solution": "hide-cell"}  # our tag -> the theme's: one click away
    added = [fold for tag, fold in folded.items() if tag in tags(cell) and fold not in tags(cell)]
    if added:
        cell["metadata"]["tags"] = [*tags(cell), *added]
    return cell


def _filled(cell: dict, finding: list, notebook: dict, record: ChapterRecord) -> list[dict]:
    if cell["cell_type"] == "markdown" and "finding-here" in tags(cell):
        return finding
    if cell["cell_type"] == "markdown" and "budget" in tags(cell):
        return [{**cell, "source": budget(notebook, record)}]
    return [cell]


def _drop_carried(book: dict) -> None:
    for cell in book["cells"]:
        for output in cell.get("outputs", []):
            for mime in CARRIED:
                output.get("data", {}).pop(mime, None)


def label(chapter: str) -> str:
    """Return the line that lets other pages link to a chapter as ``chapter-N``."""
    return f"(chapter-{int(chapter[:2])})=\n"


def missing_page(notebook: Path, reason: str) -> str:
    """Return the page for a chapter that has no run: its question, and the reason why nothing else is shown."""
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        heads = [line for cell in cells if cell.get("cell_type") == "markdown" for line in text_of(cell).splitlines()]
    except (ValueError, TypeError, KeyError, AttributeError):  # no notebook, which its run has said
        heads = []
    title = next((line for line in heads if line.startswith("# ")), f"# {notebook.stem}")
    return f"{label(notebook.stem)}{title}\n\n```{{warning}}\n{reason}\n```\n"


def claims_tables(claims: list[dict]) -> str:
    """Return two tables as Markdown: the claims of the book and those of the paper."""
    parts = []
    for title, paper in (("What this book claims", False), ("What the paper claims", True)):
        rows = [_claim_row(claim) for claim in claims if claim["paper"] == paper]
        parts += [f"## {title}", table(("claim", "value [interval]", "n", "rule", "chapter", "holds"), rows)
                  if rows else "None was recorded in this build."]
    return "\n\n".join(parts)


def _claim_row(claim: dict) -> tuple:
    spec = claim["spec"]
    value = f"{claim['value']:{spec}} [{claim['low']:{spec}}, {claim['high']:{spec}}]"
    return claim["text"], value, f"{claim['n']:,}", claim["rule"], claim["chapter"], "yes" if claim["holds"] else "**no**"


def runtime_table(records: list[ChapterRecord]) -> str:
    """Return the table of run times as Markdown, with the machine on which they were measured."""
    rows = [(f"[{int(record.chapter[:2])}](chapter-{int(record.chapter[:2])})", duration(record.seconds),
             f"{record.memory:.2f} GiB", record.threads, record.jobs, record.finished) for record in records]
    machines = sorted({record.machine for record in records})
    head = ("chapter", "run time", "peak memory", "threads", "chapters at a time", "finished")
    return "\n\n".join([table(head, rows), *(f"Machine: {name}." for name in machines)]) if rows else "No chapter has run."


def results_table(figures: Path, results: Path) -> str:
    """Return the measured figures as Markdown tables, one for each command, with links to all files that were written."""
    rows = list(csv.DictReader(figures.open(encoding="utf-8"))) if figures.is_file() else []
    parts = []
    for command in dict.fromkeys(row["command"] for row in rows):
        lines = [(f"`{row['id']}`<br>{row['unit']}", _short(row["value"]), f"{_short(row['low'])} to {_short(row['high'])}",
                  row["n"]) for row in rows if row["command"] == command]
        parts += [f"`{command}`", table(("figure, unit", "value", "low to high", "n"), lines)]
    files = [figures] * figures.is_file() + tree(results, "*.csv")
    parts += ["\n".join(f"- {{download}}`{file.name} <downloads/{file.name}>`" for file in files)]
    return "\n\n".join(parts if rows else ["None yet.", *parts])


def families_tables(kept: Path) -> str:
    """Return which families of models each method is right for, by kind, and why it is refused for others, as Markdown."""
    rows = list(csv.DictReader(kept.open(encoding="utf-8"))) if kept.is_file() else []
    parts = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines = []
        for family in dict.fromkeys(row["family"] for row in rows if row["kind"] == kind):
            asked = [row for row in rows if row["family"] == family and row["outcome"] != "not for it"]
            right = [row["method"] for row in asked if row["outcome"] == "right"]
            others = [f"{row['method']}: {row['outcome']}, {row['reason']}" for row in asked if row["outcome"] != "right"]
            lines.append((family, f"all {len(asked)}" if len(right) == len(asked) else f"{len(right)} of {len(asked)}",
                          "<br>".join(others)))
        parts += [f"### {kind.capitalize()}", table(("family", "methods that are right", "others, with the reason"), lines)]
    return "\n\n".join(parts) if parts else "Not measured in this checkout."


def published_table(kept: Path) -> str:
    """Return which families run in a page of their own, and why the others have stored answers alone, as Markdown."""
    rows = list(csv.DictReader(kept.open(encoding="utf-8"))) if kept.is_file() else []
    if not rows:
        return "Not measured in this checkout."
    live = [row["family"] for row in rows if row["came"] == "live"]
    alike: dict[str, list] = {}
    for row in rows:
        if row["came"] != "live":
            alike.setdefault(row["reason"], []).append(row["family"])
    others = table(("families", "why the model does not run in the page"),
                   [(", ".join(families), f"`{_cut(reason)}`") for reason, families in alike.items()])
    return f"The model runs in the page, with its gradients, for {len(live)} of {len(rows)}: {', '.join(live)}.\n\n{others}"


def faults_tables(kept: Path) -> str:
    """Return which faults were made on purpose, what was expected and what happened, by what they strike, as Markdown."""
    rows = list(csv.DictReader(kept.open(encoding="utf-8"))) if kept.is_file() else []
    parts = []
    for room in dict.fromkeys(row["room"] for row in rows):
        lines = [(row["fault"], row["expected"], f"{row['outcome']}{f': `{_cut(words)}`' if (words := row['words']) else ''}")
                 for row in rows if row["room"] == room]
        parts += [f"### {room[0].upper()}{room[1:]}", table(("fault", "what should happen", "what happened"), lines)]
    return "\n\n".join(parts) if parts else "Not measured in this checkout."


def _cut(words: str, most: int = 160) -> str:
    """Return the beginning of a message, fit for a cell of a table."""
    words = words.replace("`", "'").replace("|", "/")
    return words if len(words) <= most else f"{words[:most].rsplit(' ', 1)[0]} ..."


def typed_tables(kept: Path) -> str:
    """Return what a reader types for the same result here and with another library, as Markdown."""
    rows = list(csv.DictReader(kept.open(encoding="utf-8"))) if kept.is_file() else []
    head = ("task", "lines here", "lines with the other library", "library")
    lines = [(row["task"], row["lines_here"], row["lines_there"], row["library"]) for row in rows]
    parts = [table(head, lines)] if rows else ["Not measured in this checkout."]
    for row in rows:
        parts += [f"### {row['task'][0].upper()}{row['task'][1:]}", f"Here:\n\n```python\n{row['here']}\n```",
                  f"With {row['library']}:\n\n```python\n{row['there']}\n```"]
    return "\n\n".join(parts)


def _short(text: str) -> str:
    """Return a number with four digits, and anything else as it is."""
    try:
        return f"{float(text):,.4g}" if text.strip() not in ("nan", "inf") else text
    except ValueError:
        return text


def checkpoints_table(folder: Path) -> str:
    """Return the cards of the checkpoints that travel with the project as a Markdown table."""
    cards = [json.loads(path.read_text("utf-8")) for path in tree(folder, "*.json")]
    head = ("checkpoint", "trained on", "held-out accuracy")
    rows = [(f"`{card['name']}`<br>{card['parameters']:,} parameters, {card['bytes'] / 1e6:.1f} MB",
             f"{card['data']}<br>made by `{card['command']}`", _accuracy(card["accuracy"])) for card in cards]
    return table(head, rows) if rows else "There is none in this checkout: every chapter trains its own."


def _accuracy(accuracy) -> str:
    """Return an accuracy as text; where there is one for each kind, the total and the lowest (the card has them all)."""
    if not isinstance(accuracy, dict):
        return f"{accuracy:.3f}" if isinstance(accuracy, float) else str(accuracy)
    numbers = {kind: value for kind, value in accuracy.items() if isinstance(value, (int, float))}
    if total := next((kind for kind in ("all", "held out") if kind in numbers), None):
        wholes, kinds = [f"{numbers[total]:.3f}"], {kind: value for kind, value in numbers.items() if kind != total}
    else:  # "foils, colour" is a kind of "foils"
        wholes = [f"{kind}: {_accuracy(value)}" for kind, value in accuracy.items() if ", " not in kind]
        kinds = {kind: value for kind, value in numbers.items() if ", " in kind}
    if len(kinds) < 2:
        return "; ".join(f"{kind}: {_accuracy(value)}" for kind, value in accuracy.items())
    lowest = min(kinds, key=kinds.get)
    return "; ".join([*wholes, f"lowest of {len(kinds)} kinds: {kinds[lowest]:.3f} ({lowest})"])


def table(header, rows) -> str:
    """Return a Markdown table."""
    from crossexplain_book.page import table as markdown

    return str(markdown(header, rows))


def assemble(build: Build, notebooks: list[Path], failed: list[str]) -> str:
    """Write the source folder of the book.

    Parameters
    ----------
    build : Build
    notebooks : list of Path
        All chapters of the book, also those that this call did not run.
    failed : list of str
        Chapters whose last run failed.

    Returns
    -------
    str
        Hash of everything that was written: while it stays, so does the site.
    """
    files: dict[str, bytes | Path] = {path.relative_to(build.root / "book").as_posix(): path
                                      for path in tree(build.root / "book") if "_ext" not in path.parts}
    files |= {f"cards/sources/{path.name}": _fill(path.name, path, source_tables(path.stem))
              for path in tree(build.root / "data" / "cards", "*.md")}
    records, claims = [], []
    for path in notebooks:
        files[f"downloads/{path.name}"] = path
        record = None if path.stem in failed else load_record(build, path.stem)
        if record is None:
            reason = "failed in this build" if path.stem in failed else "was not run in this build"
            files[f"chapters/{path.stem}.md"] = missing_page(path, f"This chapter {reason}.").encode()
            continue
        executed = executed_notebook(build, path)
        files[f"chapters/{path.name}"] = json.dumps(page(executed, record), indent=1, ensure_ascii=False).encode()
        records.append(record)
        claims += outputs_of(executed, CLAIM)
    files |= {name: text.encode() for name, text in api_pages(build.root).items()}
    figures = build.root / "data" / "results" / "figures.csv"
    files |= {f"downloads/{file.name}": file for file in [*tree(build.results, "*.csv"), figures] if file.is_file()}
    tables = {"claims": claims_tables(claims), "runtime": runtime_table(records),
              "results": results_table(figures, build.results), "families": families_tables(figures.with_name("families.csv")),
              "published": published_table(figures.with_name("published.csv")),
              "typed": typed_tables(figures.with_name("typed.csv")), "faults": faults_tables(figures.with_name("faults.csv")),
              "inputs": faults_tables(figures.with_name("inputs.csv")),
              "dependencies": dependencies_table(build.root / "requirements.lock"),
              "versions": versions_table(figures.with_name("compatibility.csv")),
              "checkpoints": checkpoints_table(build.root / "data" / "checkpoints")}
    files = {name: _fill(name, content, tables) for name, content in files.items()}
    return _write(build.source, files)


def _fill(name: str, content: bytes | Path, tables: dict) -> bytes:
    data = content.read_bytes() if isinstance(content, Path) else content
    if not name.endswith(".md") or b"% assembled: " not in data:
        return data

    def fill(match: re.Match) -> str:
        if match[1] not in tables:
            raise BookError(f"{name}: nothing is assembled under {match[1]!r}; there are {', '.join(tables)}.")
        return tables[match[1]]

    return PLACEHOLDER.sub(fill, data.decode("utf-8")).encode()


def _write(folder: Path, files: dict[str, bytes]) -> str:
    """Make the folder hold exactly these files; files that are right already are left alone."""
    for stale in set(tree(folder)) - {folder / name for name in files}:
        stale.unlink()
    for name, data in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            write_whole(path, lambda part, data=data: part.write_bytes(data))
    return digest(*(item for name in sorted(files) for item in (name, files[name])))


def copy_results(build: Build, folder: Path) -> None:
    """Copy the tables that the chapters wrote to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in tree(build.results, "*.csv"):
        write_whole(folder / path.name, lambda part, path=path: shutil.copyfile(path, part))
