"""The project can be installed as it says: lock, conda environment, wheel and sdist agree with pyproject.toml."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PINS = dict(re.findall(r"^([a-z0-9\-]+)==([^\s;]+)", LOCK, re.MULTILINE))


def requirements(*extras: str) -> list[Requirement]:
    """Return the direct requirements of the package and of some extras."""
    return [Requirement(line) for line in [*PROJECT["dependencies"], *(line for name in extras for line in EXTRAS[name])]]


def test_the_lock_holds_every_requirement_at_a_version_it_allows():
    for requirement in requirements(*EXTRAS):
        assert requirement.name in PINS, f"{requirement.name} is not in requirements.lock; lock again (CONTRIBUTING.md)"
        assert requirement.specifier.contains(PINS[requirement.name], prereleases=True), requirement


def test_the_lock_is_hashed_and_names_no_address():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in entry for entry in entries if "==" in entry.split("\n", 1)[0])
    assert "://" not in LOCK and not re.search(r"^\s*-", LOCK.replace("--hash", "hash"), re.MULTILINE)


def test_the_conda_environment_is_in_step():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    python = next(word.removeprefix("python=") for word in listed if str(word).startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    expected = {f"{requirement.name}=={PINS[requirement.name]}" for requirement in requirements("book", "test")}
    assert set(listed[-1]["pip"]) == expected | {"--editable ."}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    """Folder with wheel and sdist, built by the build tools of the lock."""
    folder = tmp_path_factory.mktemp("dist")
    process = subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, capture_output=True,
                             text=True, check=False)
    assert process.returncode == 0, process.stderr
    return folder


def test_the_wheel_holds_the_package_and_its_checkpoints_and_nothing_else(distributions):
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert "crossexplain_book/cli.py" in names and "crossexplain/files.py" in names
    assert any(name.startswith("crossexplain/embedded/checkpoints/") and name.endswith(".safetensors") for name in names)
    assert {"crossexplain/data/registry.toml", "crossexplain/data/tables/reviews.toml"} <= set(names)
    expected = "crossexplain/", "crossexplain_book/", f"crossexplain-{PROJECT['version']}.dist-info/"
    assert all(name.startswith(expected) for name in names)


def test_the_sdist_holds_the_book(distributions):
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "_config.yml", "book/_toc.yml", "src/crossexplain_book/cli.py", "requirements.lock"} <= names
    assert not any(name.startswith(("_build/", ".venv/")) for name in names)


def test_the_wheel_works_in_an_environment_of_its_own(distributions, tmp_path):
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    # What the package depends on is borrowed, one link for each: installing torch again would take minutes. The
    # editable install of this checkout is not among the links, so what is imported comes from the wheel.
    for entry in Path(next(p for p in sys.path if p.endswith("site-packages"))).iterdir():
        if not entry.name.startswith(("crossexplain", "_editable", "_crossexplain")) and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    code = ("import crossexplain, crossexplain_book.cli, crossexplain_book.figures, crossexplain.evaluation.truth as m;"
            "from crossexplain.files import embedded_folder;"
            "print(m.__file__); print(sorted(p.name for p in (embedded_folder() / 'checkpoints').iterdir()))")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # which may name this checkout
    process = subprocess.run([str(python), "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert str(site) in process.stdout and ".safetensors" in process.stdout
    helped = subprocess.run([str(python), "-m", "crossexplain", "--help"], cwd=tmp_path, capture_output=True, text=True,
                            check=False)
    assert helped.returncode == 0 and "book" in helped.stdout
