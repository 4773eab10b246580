"""The list of packages and licences is whole, and says what each package says."""

from email.message import Message
from pathlib import Path

import pytest

from crossexplain_book.dependencies import dependencies_table, licence_of, licences

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


def test_the_table_of_a_lock_of_other_platforms_is_empty(tmp_path):
    (lock := tmp_path / "lock").write_text("no-such-package-anywhere==1.0 \\\n    --hash=sha256:0\n")
    assert licences(lock) == []
