"""The published page of the book is made beside the other pages, kept while it is right, and missed where it fails."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def maker(monkeypatch):
    """The extension, with a quick command in place of the real one, and the commands that it called."""
    spec = importlib.util.spec_from_file_location("published_page", ROOT / "book" / "_ext" / "published_page.py")
    module, called = importlib.util.module_from_spec(spec), []
    spec.loader.exec_module(module)
    start = subprocess.Popen

    def quick(command, **options):
        called.append(command)
        write = f"import pathlib; pathlib.Path({command[-1]!r}).write_text('a page')"
        return start([sys.executable, "-c", write if "--broken" not in command else "1 / 0"], **options)

    monkeypatch.setattr(module.subprocess, "Popen", quick)
    return module, called


def built(module, folder: Path, name: str = "html") -> Path:
    app = SimpleNamespace(srcdir=folder / "source", outdir=folder / name, builder=SimpleNamespace(name=name))
    module.begin(app)
    module.end(app, None)
    return Path(app.outdir) / "published"


def test_it_is_made_once_and_only_for_the_web(maker, tmp_path):
    module, called = maker
    assert not built(module, tmp_path, "revealjs").exists() and not called
    for _ in range(2):
        assert [path.name for path in built(module, tmp_path).iterdir()] == [module.NAME]
    assert called[0][1:4] == ["-m", "crossexplain", "publish"] and len(called) == 1
    module.COMMAND = [*module.COMMAND, "--seed", "1"]
    built(module, tmp_path)
    assert len(called) == 2


def test_where_it_fails_sphinx_says_so_and_nothing_is_kept(maker, tmp_path, monkeypatch):
    module, called = maker
    said = []
    monkeypatch.setattr(module.log, "warning", lambda text, *values: said.append(text % values))
    module.COMMAND = ["--broken"]
    assert not built(module, tmp_path).exists() and "ZeroDivisionError" in said[0]
    assert not (tmp_path / "published" / "key").exists()
