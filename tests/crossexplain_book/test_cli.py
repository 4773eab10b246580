"""The command line: what it prints, and with which code it ends."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossexplain.data.registry import SOURCES
from crossexplain.data.store import megabytes
from crossexplain_book import bench
from crossexplain_book.cli import FAILED, MISSING, OK, USAGE, main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("book", "run", "fetch", "sources", "doctor", "bench", "train", "publish")
GOOD = """
def rows(seed=0, repeats=5):
    '''Two figures.'''
    return [{"id": "b.two", "value": 2 / 3, "low": 0.5, "high": 0.75, "n": repeats, "unit": "share"},
            {"id": "a.one", "value": seed, "low": 0, "high": 9, "n": 1, "unit": "s"}]
"""
CHAPTER = {"nbformat": 4, "cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": [
    'profile = "embedded"  # x=1\n', 'size: str = "page"\n', "seed = 0"]}]}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """The working folder is a checkout with benchmarks and one chapter."""
    for name, text in {"_config.yml": "", "pyproject.toml": "", "requirements.lock": "", "benchmarks/good.py": GOOD,
                       "benchmarks/bad.py": "rows = 3\n", "benchmarks/_help.py": "",
                       "notebooks/01_a.ipynb": json.dumps(CHAPTER)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    """No data folder and an empty cache, whatever this machine has."""
    monkeypatch.delenv("CROSSEXPLAIN_DATA", raising=False)
    monkeypatch.delenv("CROSSEXPLAIN_DOWNLOAD", raising=False)
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))


def call(*words: str, **env) -> subprocess.CompletedProcess:
    """Type a command."""
    return subprocess.run([sys.executable, "-m", "crossexplain", *words], capture_output=True, text=True, check=False,
                          env={**os.environ, **env})


def test_help_lists_every_command_and_the_exit_codes():
    process = call("--help")
    assert process.returncode == OK and all(name in process.stdout for name in COMMANDS) and "Exit codes" in process.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == OK and "usage" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nothing"], ["book", "--profile", "half"], ["book", "--jobs", "0"],
                                   ["run", "--memory", "-1"], ["run", "--memory", "much"], ["bench", "--seed", "-1"],
                                   ["fetch"]])
def test_what_is_not_understood_is_a_matter_of_usage(words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == USAGE


@pytest.mark.parametrize(("words", "says"), [
    (["run", "--jobs", "abc"], "got abc, expected a whole number of 1 or more"),
    (["run", "--out", "{}/file"], "expected a folder to write to: File exists"),
    (["book", "--results", "{}/file/folder"], "write to: Not a directory"),
    (["train", "slim_vgg", "--out", "/proc/x"], "write to: No such file or directory"),
])
def test_what_came_and_what_was_expected_is_said(words, says, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit) as end:
        main([word.format(tmp_path) for word in words])
    assert end.value.code == USAGE and says in capsys.readouterr().err


@pytest.mark.parametrize(("words", "says"), [
    (["book", "--chapters", "77"], "no chapter '77'"), (["run", "-p", "seed"], "expected name=value"),
    (["run", "-p", "sed=1"], "no parameter 'sed' (is it 'seed'?); the chapters have profile, size, seed"),
    (["fetch", "mnits"], "no source 'mnits'"), (["bench", "none"], "no benchmark 'none'; there are bad, good"),
    (["train", "none"], "no recipe 'none'"),
])
def test_names_that_do_not_exist_are_answered_with_those_that_do(checkout, words, says, capsys):
    assert main(words) == USAGE
    message = capsys.readouterr().err
    assert says in message and len(message.splitlines()) == 1


def test_outside_a_checkout_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("crossexplain_book.layout.__file__", str(tmp_path / "layout.py"))
    assert main(["book"]) == USAGE
    assert "clone the project" in capsys.readouterr().err


def test_a_command_whose_packages_are_not_installed_says_how_to_get_them(checkout):
    code = "import sys; sys.modules['psutil'] = None; from crossexplain_book.cli import main; sys.exit(main(['book']))"
    process = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    assert process.returncode == USAGE and "Traceback" not in process.stderr
    assert "psutil is not installed, and the command 'book' needs it" in process.stderr
    assert "make env" in process.stderr and "pip install 'crossexplain[book,teach,test]'" in process.stderr


def test_a_missing_source_has_a_code_of_its_own_and_nothing_is_downloaded_unasked(capsys):
    assert main(["fetch", "vgg16"]) == MISSING
    out = capsys.readouterr()
    assert "--yes" in out.out and "vgg16" in out.err


def test_fetch_finds_what_is_there(capsys):
    assert main(["fetch", "sklearn-digits"]) == OK
    assert "embedded: scikit-learn" in capsys.readouterr().out


def test_a_data_folder_that_is_not_there_is_said(capsys, monkeypatch):
    monkeypatch.setenv("CROSSEXPLAIN_DATA", "not/there")
    assert main(["fetch", "mnist"]) == MISSING
    assert "CROSSEXPLAIN_DATA" in capsys.readouterr().err


def test_sources_lists_all_of_them(capsys):
    assert main(["sources"]) == OK
    out = capsys.readouterr().out
    assert all(name in out for name in SOURCES) and "missing" in out


def test_doctor_says_what_a_full_run_needs(capsys):
    assert main(["doctor"]) == OK
    out = capsys.readouterr().out
    for word in ("torch", "cores", "memory", "disk", "browser", "vgg16", "minutes", "GiB", "crossexplain fetch"):
        assert word in out, word


def test_doctor_tells_to_fetch_only_what_is_used_and_can_be_fetched(capsys):
    main(["doctor"])
    out = capsys.readouterr().out
    fetched = next(line for line in out.splitlines() if "to fetch into" in line)
    assert "mnist" in fetched and "flickr8k" in fetched
    assert not any(name in fetched for name in ("vgg19", "app-reviews", "minilm"))
    size = sum(source.size for source in SOURCES.values() if source.download and source.chapters)
    assert megabytes(size) in fetched
    placed = next(line for line in out.splitlines() if "to place in a data folder" in line)
    assert "app-reviews" in placed and "flickr8k" not in placed and "no chapter reads it so far" in out


def test_doctor_names_a_wrong_data_folder_once_and_a_broken_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == FAILED
    out = capsys.readouterr().out
    assert out.count("which is no folder") == 1 and "embedded: scikit-learn" in out
    path = tmp_path / "data" / SOURCES["imagenet-classes"].forms[0][0].path
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(tmp_path / "data"))
    assert main(["doctor"]) == FAILED
    out = capsys.readouterr().out
    assert "imagenet-classes     broken" in out and "replace the file" in out


def test_a_book_without_chapters_is_refused_in_one_line(checkout, capsys):
    (checkout / "notebooks" / "01_a.ipynb").unlink()
    assert main(["run"]) == USAGE
    assert "no chapters" in capsys.readouterr().err


def test_bench_keeps_whole_rows_and_replaces_old_ones(checkout, capsys):
    assert main(["bench", "--list"]) == OK
    assert capsys.readouterr().out.split() == ["bad", "good"]
    table = checkout / "data" / "results" / "figures.csv"
    table.parent.mkdir(parents=True)
    table.write_text(",".join(bench.COLUMNS) + "\na.one,7,,,,,,,,,\nb.two,7,6,8,5,,,,,,2026-01-01\nz.kept,1,,,,,,,,,\n")
    assert main(["bench", "good", "--seed", "3"]) == OK
    out = capsys.readouterr().out
    outside = out.split("outside the range of the last time")[1]
    assert "b.two" in outside and "was 7 [6, 8] on 2026-01-01" in outside and "a.one" not in outside
    rows = {row["id"]: row for row in csv.DictReader(table.open())}
    assert list(rows) == ["a.one", "b.two", "z.kept"]
    assert rows["a.one"]["value"] == "3" and rows["b.two"]["value"] == "0.666667" and rows["z.kept"]["value"] == "1"
    assert rows["b.two"]["command"] == "python -m crossexplain bench good --seed 3"
    assert all(rows["b.two"][key] for key in bench.COLUMNS)
    assert [path.name for path in table.parent.iterdir()] == ["figures.csv"]
    assert main(["bench", "good", "--seed", "3"]) == OK
    assert "outside" not in capsys.readouterr().out, "the same figures again lie in their own range"


def test_a_benchmark_that_is_none_is_refused(checkout, tmp_path, capsys):
    assert main(["bench", "bad"]) == FAILED
    assert "no function rows" in capsys.readouterr().err
    for text, says in (("[{'id': 'x'}]", "lacks value"),
                       ("[dict(id='x', value=1, low=1, high=1, n=1, unit='', more=1)]", "unknown entries more")):
        path = tmp_path / "half.py"
        path.write_text(f"def rows():\n    return {text}\n")
        with pytest.raises(bench.BenchError, match=says):
            bench.measure(path)
