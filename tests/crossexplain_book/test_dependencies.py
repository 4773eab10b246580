"""The list of packages and licences is whole, and says what each package says."""

import csv
import tomllib
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from crossexplain_book.dependencies import dependencies_table, licence_of, licences, versions_table

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"


@pytest.mark.parametrize(("fields", "expected"), [
    ({"License-Expression": "MIT"}, "MIT"),
    ({"Classifier": "License :: OSI Approved :: MIT License", "License": "the whole text"}, "MIT License"),
    ({"License": "BSD\nRedistribution and use"}, "BSD"),
    ({"License": "x" * 100}, "see the package"),
    ({}, "not stated"),
])
def test_a_licence_is_read_where_it_stands(fields, expected):
    about = Message()
    for name, value in fields.items():
        about[name] = value
    assert licence_of(about) == expected


def test_every_installed_package_has_a_row_and_copyleft_is_told():
    rows = licences(LOCK)
    assert len(rows) > 150 and {"torch", "numpy", "pyarrow"} <= {name for name, _, _ in rows}
    assert {name for name, _, licence in rows if "GPL" in licence or "General Public" in licence} <= {"quantus"}
    assert dependencies_table(LOCK).count("\n|") == len(rows) + 2  # head and rule


def test_the_oldest_and_the_newest_versions_were_run_with_every_python(tmp_path):
    project = tomllib.loads(LOCK.with_name("pyproject.toml").read_text("utf-8"))["project"]
    lowest = {Requirement(line).name: Requirement(line).specifier for line in project["dependencies"]}
    kept = LOCK.parent / "data" / "results" / "compatibility.csv"
    rows = list(csv.DictReader(kept.open(encoding="utf-8")))
    for name in ("torch", "transformers", "accelerate", "numpy", "pandas"):
        bound = Version(next(iter(lowest[name])).version)
        assert min(Version(row[name]).release[:2] for row in rows) == bound.release, name
    assert {row["python"].rpartition(".")[0] for row in rows} == {"3.11", "3.12", "3.13"}
    shown = versions_table(kept)  # a column an environment
    assert shown.count("\n|") == len(rows[0]) and all(row["torch"] in shown for row in rows)
    assert "Not measured" in versions_table(tmp_path / "none.csv")


def test_the_table_of_a_lock_of_other_platforms_is_empty(tmp_path):
    (lock := tmp_path / "lock").write_text("no-such-package-anywhere==1.0 \\\n    --hash=sha256:0\n")
    assert licences(lock) == []
