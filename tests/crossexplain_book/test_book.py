"""From notebooks to pages, on tiny notebooks that are made here and run for real."""

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from crossexplain.data.registry import SOURCES, File
from crossexplain.files import digest
from crossexplain_book import BookError, Build
from crossexplain_book.assemble import _accuracy, assemble, claims_tables, figure_cell, page, show_parameters
from crossexplain_book.build import frame
from crossexplain_book.execute import execute, in_order, parse_parameters
from crossexplain_book.freshness import Imports, chapter_key
from crossexplain_book.layout import chapters, find_root
from crossexplain_book.page import CLAIM, RUN
from crossexplain_book.records import ChapterRecord, executed_notebook, is_fresh, load_record, record_path
from crossexplain_book.worker import complaint

SHOW = """
from IPython.display import display
display({"text/plain": "four words are enough here", "image/png": "aGk="}, raw=True,
        metadata={"crossexplain": {"alt": "a picture that is not one", "caption": "A. B.", "name": "fig-x"}})
"""
STATE = f"""
from IPython.display import display
claim = dict(claim="01-a", text="It | is so.", value=0.5, low=0.4, high=0.6, n=1000, rule="above 0.1", holds=True,
             paper=False, chapter="01", profile=profile, size=size, spec=".2f")
display({{"{CLAIM}": claim, "text/plain": "claim"}}, raw=True)
display({{"{RUN}": {{"sources": {{"sklearn-digits": "embedded"}}}}, "text/plain": "run"}}, raw=True)
"""


def write_notebook(path: Path, *code: str) -> Path:
    """Write a chapter: title, placeholders, parameters, then one cell for each piece of code."""
    cells = [new_markdown_cell("# Is it so?\n\nWords."), new_markdown_cell("", metadata={"tags": ["finding-here"]}),
             new_markdown_cell("", metadata={"tags": ["budget"]}),
             new_code_cell('profile = "embedded"\nsize = "page"  # or "small"\nseed = 0', metadata={"tags": ["parameters"]}),
             *(new_code_cell(text) for text in code)]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def build(tmp_path) -> Build:
    """A checkout with nothing in it but what a build looks for, on a path that is hard on programs."""
    root = tmp_path / "ein Büch"
    for name, text in {"_config.yml": "title: x\n", "pyproject.toml": "", "requirements.lock": "a==1\n",
                       "src/crossexplain/__init__.py": '"""Tiny."""\n', "book/_toc.yml": "root: intro\n",
                       "book/claims.md": "# Claims\n\n% assembled: claims\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return Build(root, size="small")


def ran(build: Build, **options) -> tuple[list[str], list[str]]:
    """Execute all chapters; return those that failed and the lines that were said."""
    lines: list[str] = []
    failed = execute(build, chapters(build.root), parameters={}, say=lines.append, **options)
    return failed, lines


def started(lines: list[str]) -> list[str]:
    """Return the chapters that were started."""
    return [line.split(":")[0].strip() for line in lines if line.endswith(": started")]


def test_only_what_changed_runs_again(build, monkeypatch):
    for number in ("01", "02"):
        write_notebook(build.root / "notebooks" / f"{number}_a.ipynb", "print(size)", STATE)
    failed, lines = ran(build)
    assert not failed and started(lines) == ["01_a", "02_a"]
    record = load_record(build, "01_a")
    assert record.memory > 0.01 and record.seconds > 0 and record.sources["sklearn-digits"]["source"].startswith("embedded")
    assert not list(build.pages.glob("*.part*")) and not list(build.pages.glob("*.log"))

    assert started(ran(build)[1]) == []
    write_notebook(build.root / "notebooks" / "02_a.ipynb", "print(1)", STATE)
    assert started(ran(build)[1]) == ["02_a"]
    (build.pages / "01_a.ipynb").write_text("half of a no")
    assert started(ran(build)[1]) == ["01_a"]

    key = record.key
    assert is_fresh(build, "01_a", key)
    monkeypatch.setattr("crossexplain_book.records.source_state", lambda name: {"source": "elsewhere"})
    assert not is_fresh(build, "01_a", key)


def test_a_chapter_that_did_without_a_source_runs_again_once_it_is_there(build, monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CROSSEXPLAIN_DATA", raising=False)
    monkeypatch.delenv("CROSSEXPLAIN_DOWNLOAD", raising=False)
    look = "from crossexplain.data import store\ntry:\n    store.find('vgg16')\nexcept store.MissingSource:\n    pass"
    write_notebook(build.root / "notebooks" / "01_a.ipynb", look)
    assert started(ran(build)[1]) == ["01_a"] and started(ran(build)[1]) == []
    record = load_record(build, "01_a")
    assert {name: state["source"] for name, state in record.sources.items()} == {"vgg16": "missing"}
    assert not list(build.pages.glob("*.sources"))
    weights = tmp_path / "cache" / SOURCES["vgg16"].forms[0][0].path
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"not all of it")
    assert not is_fresh(build, "01_a", record.key)  # a broken file is news too
    free = replace(SOURCES["vgg16"], forms=((File(SOURCES["vgg16"].forms[0][0].path, 1),),))
    monkeypatch.setitem(SOURCES, "vgg16", free)
    assert not is_fresh(build, "01_a", record.key)


def test_the_key_holds_package_lock_and_parameters(build):
    chapter = write_notebook(build.root / "notebooks" / "01_a.ipynb", "import crossexplain")

    def key(**parameters) -> str:
        return chapter_key(Imports(build.root), chapter, parameters)

    keys = [key(), key(seed=1)]
    for name in ("src/crossexplain/__init__.py", "requirements.lock"):
        with (build.root / name).open("a") as file:
            file.write("# changed\n")
        keys.append(key())
    assert len(set(keys)) == 4


def test_data_that_a_chapter_reads_counts_and_its_prose_does_not(build):
    data = build.root / "data" / "checkpoints"
    data.mkdir(parents=True)
    for name in ("read.json", "other.json"):
        (data / name).write_text("{}")
    chapter = write_notebook(build.root / "notebooks" / "01_a.ipynb", "from pathlib import Path\n"
                             "Path('data/checkpoints/read.json').read_text()\nPath('data/new.csv').write_text('1')\nprint(7)")
    assert started(ran(build)[1]) == ["01_a"]
    record = load_record(build, "01_a")
    assert list(record.files) == ["data/checkpoints/read.json"] and not list(build.pages.glob("*.opened"))

    notebook = nbformat.read(chapter, 4)
    notebook.cells[0].source = "# Is it really so?\n\nOther words."
    notebook.cells[-1].metadata["tags"] = ["hide-cell"]
    nbformat.write(notebook, chapter)
    (data / "other.json").write_text("[]")
    assert started(ran(build)[1]) == []
    cells = executed_notebook(build, chapter)["cells"]
    assert "really" in cells[0]["source"] and "".join(cells[-1]["outputs"][0]["text"]) == "7\n"
    assert cells[-1]["metadata"]["tags"] == ["hide-cell"]

    (data / "read.json").write_text("[]")
    assert not is_fresh(build, "01_a", record.key)
    assert started(ran(build)[1]) == ["01_a"] and started(ran(build, again=True)[1]) == ["01_a"]


def test_a_chapter_that_fails_is_named_and_kept_and_the_others_run(build):
    write_notebook(build.root / "notebooks" / "01_bad.ipynb", "x = 41\nprint(x)", "answer = x / 0", "print('never')")
    write_notebook(build.root / "notebooks" / "02_good.ipynb", "print(size)")
    (build.root / "notebooks" / "03_corrupt.ipynb").write_text('{"cells": [{"cell')
    failed, lines = ran(build)
    message = "\n".join(lines)
    assert sorted(failed) == ["01_bad", "03_corrupt"]
    identity = nbformat.read(build.root / "notebooks" / "01_bad.ipynb", 4).cells[5]["id"]
    assert all(part in message for part in (f"(id {identity!r})", "ZeroDivisionError", "answer = x / 0"))
    assert "\x1b" not in message
    partial = json.loads((build.pages / "01_bad.failed.ipynb").read_text("utf-8"))
    assert any("41" in str(cell.get("outputs")) for cell in partial["cells"])
    assert load_record(build, "01_bad") is None and load_record(build, "02_good") is not None
    assert "03_corrupt failed before its first cell" in message and "03_corrupt.ipynb is no notebook" in message

    write_notebook(build.root / "notebooks" / "01_bad.ipynb", "x = 41")
    (build.root / "notebooks" / "03_corrupt.ipynb").unlink()
    failed, lines = ran(build)
    assert not failed and started(lines) == ["01_bad"]
    assert not (build.pages / "01_bad.failed.ipynb").exists()


@pytest.mark.parametrize("text", ["{not json", "[]", "{}", '{"nbformat": 4, "cells": {}}', "\udcff"])
def test_what_is_no_notebook_is_named_and_has_a_page_that_says_so(build, text):
    broken = build.root / "notebooks" / "01_x.ipynb"
    broken.parent.mkdir()
    broken.write_text(text, "utf-8", errors="surrogateescape")
    message = complaint(str(broken))
    assert message.startswith("01_x.ipynb is no notebook (") and "take the file again from git" in message
    assemble(build, chapters(build.root), failed=["01_x"])
    page = (build.source / "chapters" / "01_x.md").read_text("utf-8")
    assert page.startswith("(chapter-1)=\n# 01_x") and "failed" in page


def test_memory_is_bounded_with_a_message_that_says_what_to_do(build):
    write_notebook(build.root / "notebooks" / "01_big.ipynb", "held = b'x' * 600_000_000\nimport time\ntime.sleep(30)")
    failed, lines = ran(build, memory=0.5)
    assert failed == ["01_big"]
    assert "its bound is 0.5 GiB" in "\n".join(lines) and "--memory" in "\n".join(lines)


def test_what_was_cut_off_goes_on_where_it_was(build):
    write_notebook(build.root / "notebooks" / "01_quick.ipynb", "print(1)")
    write_notebook(build.root / "notebooks" / "02_slow.ipynb", "import time\nprint(1)\ntime.sleep(60)")
    command = [sys.executable, "-m", "crossexplain", "run", "--size", "small", "--jobs", "1"]
    process = subprocess.Popen(command, cwd=build.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = _wait(lambda: (build.pages / "02_slow.part.ipynb").is_file() and _children(process.pid), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert load_record(build, "01_quick") is not None
    _wait(lambda: not any(_runs(pid) for pid in workers))  # nobody is left working for a build that is gone

    write_notebook(build.root / "notebooks" / "02_slow.ipynb", "print(2)")
    failed, lines = ran(build)
    assert not failed and started(lines) == ["02_slow"]


def test_beside_each_other_the_longest_notebook_is_started_first(build):
    paths = [write_notebook(build.root / "notebooks" / f"{name}.ipynb", "\n".join(f"print({i})" for i in range(lines)))
             for name, lines in (("01_short", 1), ("02_long", 9), ("03_longer", 20))]
    assert in_order(paths, jobs=2) == paths[::-1]
    assert in_order(paths, jobs=1) == paths, "one by one: in the book's order"


def _wait(condition, process=None, seconds: float = 60):
    for _ in range(int(seconds * 10)):
        if result := condition():
            return result
        assert process is None or process.poll() is None, "the build ended early"
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _runs(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def finished(build: Build, *code: str) -> tuple[dict, ChapterRecord]:
    """Return an executed chapter with pictures and claims, and its record."""
    notebook = write_notebook(build.root / "notebooks" / "01_a.ipynb", *code)
    assert not ran(build)[0]
    return json.loads((build.pages / notebook.name).read_text("utf-8")), load_record(build, "01_a")


def test_a_page_is_assembled_from_a_run(build):
    code = [SHOW, f"{SHOW}\ndisplay('more')".replace("fig-x", "fig-y"), STATE, "1"]
    notebook = nbformat.read(write_notebook(build.root / "notebooks" / "01_a.ipynb", *code), 4)
    notebook.cells[4].metadata["tags"] = ["finding"]
    notebook.cells[-1].metadata["tags"] = ["solution"]
    notebook.cells[-2].metadata["tags"] = ["publish"]
    nbformat.write(notebook, build.root / "notebooks" / "01_a.ipynb")
    assert not ran(build)[0]
    executed = json.loads((build.pages / "01_a.ipynb").read_text("utf-8"))
    before = json.dumps(executed)
    built = page(executed, load_record(build, "01_a"))
    assert json.dumps(executed) == before
    first, finding, card, parameters, code, second, figure, *_ = built["cells"]
    assert first["source"].startswith("(chapter-1)=\n# Is it so?")
    assert finding["metadata"]["mystnb"]["figure"] == {"caption": "A. B.", "name": "fig-x"}
    assert finding["metadata"]["mystnb"]["image"]["alt"] == "a picture that is not one"
    assert finding["metadata"]["mystnb"]["image"]["classes"] == "dark-light"
    assert "remove-input" in finding["metadata"]["tags"] and not code["outputs"]
    assert "min" in card["source"] and "GiB" in card["source"] and "downloads/01_a.ipynb" in card["source"]
    assert "size = 'small'  # or" in parameters["source"] and "seed = 0" in parameters["source"]
    assert len(second["outputs"]) == 1 and figure["metadata"]["mystnb"]["figure"]["name"] == "fig-y"
    assert not any("injected-parameters" in cell["metadata"].get("tags", []) for cell in built["cells"])
    assert "hide-cell" in built["cells"][-1]["metadata"]["tags"]
    assert built["cells"][-2]["metadata"]["tags"] == ["publish", "hide-input"]
    carried = [mime for cell in built["cells"] for output in cell.get("outputs", []) for mime in output.get("data", {})]
    assert CLAIM not in carried and RUN not in carried
    nbformat.validate(nbformat.from_dict(built))


@pytest.mark.parametrize(("width", "classes"), [(809, "dark-light"), (1027, "dark-light ce-wide")])
def test_a_picture_that_the_column_makes_too_small_is_marked_as_wide(width, classes):
    data = b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + bytes(60)).decode()
    output = {"data": {"image/png": data}, "metadata": {"crossexplain": {"alt": "a", "caption": "c", "name": "fig-x"}}}
    assert figure_cell({"id": "x"}, output, "1")["metadata"]["mystnb"]["image"]["classes"] == classes


def test_claims_are_collected_and_a_chapter_without_a_run_is_a_note(build):
    finished(build, STATE)
    write_notebook(build.root / "notebooks" / "02_b.ipynb", "1")
    first = assemble(build, chapters(build.root), failed=[])
    claims = (build.source / "claims.md").read_text("utf-8")
    assert "| It \\| is so. | 0.50 [0.40, 0.60] | 1,000 | above 0.1 | 01 | yes |" in claims
    note = (build.source / "chapters" / "02_b.md").read_text("utf-8")
    assert note.startswith("(chapter-2)=\n# Is it so?") and "not run" in note
    assert (build.source / "downloads" / "01_a.ipynb").is_file() and (build.source / "api" / "index.md").is_file()
    assert assemble(build, chapters(build.root), failed=[]) == first
    assemble(build, chapters(build.root)[:1], failed=["01_a"])
    assert not (build.source / "chapters" / "02_b.md").exists() and not (build.source / "chapters" / "01_a.ipynb").exists()
    assert "failed" in (build.source / "chapters" / "01_a.md").read_text("utf-8")


@pytest.mark.parametrize(("line", "only_here"), [
    ("Plain words, other ones.", True), ("A number {glue:text}`n` and a {ref}`chapter-2`.", True), ("# Another title?", False),
    ("## A part", False), ("(fig-x)=", False), ("```{exercise}", False), (":label: ex-1", False),
     ("So {cite}`a` says.", False)])
def test_plain_prose_changes_one_page_and_what_others_show_of_it_all(build, line, only_here):
    page = build.source / "chapters" / "01_a.ipynb"
    page.parent.mkdir(parents=True)
    for name, text in {"intro.md": "# In", "downloads/01_a.ipynb": "{}"}.items():
        (build.source / name).parent.mkdir(exist_ok=True)
        (build.source / name).write_text(text)
    cells = [{"cell_type": "markdown", "source": "# Is it so?\n\nWords."}, {"cell_type": "code", "source": "1", "outputs": []}]
    page.write_text(json.dumps({"cells": cells}))
    before = frame(build.source)
    cells[0]["source"] += f"\n\n{line}"
    page.write_text(json.dumps({"cells": cells}))
    (build.source / "downloads/01_a.ipynb").write_text('{"cells": []}')
    assert (frame(build.source) == before) == only_here
    before, cells[1]["outputs"] = frame(build.source), [1]
    page.write_text(json.dumps({"cells": cells}))
    assert frame(build.source) != before
    before = frame(build.source)
    (build.source / "intro.md").write_text("# In here")
    assert frame(build.source) != before


def test_the_claims_of_the_paper_stand_apart():
    claim = {"text": "a", "value": 1.0, "low": 1.0, "high": 1.0, "n": 1, "rule": "r", "chapter": "01", "spec": ".1f"}
    text = claims_tables([{**claim, "holds": False, "paper": True}])
    claims, claims_of_paper = text.split("## What the paper claims")
    assert "None was recorded" in claims and "**no**" in claims_of_paper


def test_an_unknown_placeholder_is_an_error(build):
    write_notebook(build.root / "notebooks" / "01_a.ipynb", "1")
    (build.root / "book" / "claims.md").write_text("% assembled: clams\n")
    with pytest.raises(BookError, match="'clams'"):
        assemble(build, chapters(build.root), failed=[])


def test_parameters_are_shown_as_they_were():
    cell = {"metadata": {"tags": ["parameters"]}, "source": 'profile = "embedded"  # or full\nprofiles = 3\nn = None'}
    source = show_parameters(cell, {"profile": "full", "n": 10, "other": 1})["source"]
    assert source == "profile = 'full'  # or full\nprofiles = 3\nn = 10"


def test_parameters_are_read():
    assert parse_parameters(["a=1", "b=x=y", "c=null"]) == {"a": 1, "b": "x=y", "c": None}
    with pytest.raises(BookError, match="name=value"):
        parse_parameters(["a"])


def test_chapters_are_found_by_name_and_number(build):
    folder = build.root / "notebooks"
    names = [write_notebook(folder / name, "1").name for name in ("01_a.ipynb", "02_b.ipynb")]
    (folder / "notes.ipynb").write_text("{}")
    assert [path.name for path in chapters(build.root)] == names
    assert [path.name for path in chapters(build.root, ["02", "notebooks/02_b.ipynb"])] == names[1:]
    assert [path.name for path in chapters(build.root, ["01_a,02"])] == names
    with pytest.raises(BookError, match="01_a, 02_b"):
        chapters(build.root, ["03"])


def test_outside_a_checkout_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("crossexplain_book.layout.__file__", str(tmp_path / "layout.py"))
    with pytest.raises(BookError, match="clone the project"):
        find_root(tmp_path)


def test_digests_do_not_run_into_each_other(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert digest("ab", "c") != digest("a", "bc") and digest(tmp_path / "a") == digest(b"x")


def test_a_record_that_cannot_be_read_is_no_record(build):
    build.pages.mkdir(parents=True)
    record_path(build, "01_a").write_text("{")
    assert load_record(build, "01_a") is None


@pytest.mark.parametrize(("accuracy", "words"), [
    (0.9, "0.900"),
    ("trained to a plateau", "trained to a plateau"),
    ({"pure": 0.7934, "shortcut": 0.89}, "pure: 0.793; shortcut: 0.890"),
    ({"all": 0.998, "even": 0.999, "odd": 0.995}, "0.998; lowest of 2 kinds: 0.995 (odd)"),
    ({"pairs": 0.98, "foils": 0.9, "foils, side": 0.49, "foils, noun": 0.9},
     "pairs: 0.980; foils: 0.900; lowest of 2 kinds: 0.490 (foils, side)"),
])
def test_an_accuracy_of_many_kinds_is_told_by_the_whole_and_the_lowest(accuracy, words):
    assert _accuracy(accuracy) == words
