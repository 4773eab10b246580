"""Run the README and the core tests in other environments, and keep the versions with which they pass.

    python tools/compatibility.py oldest/bin/python newest/bin/python

Each Python has this project's wheel, pytest, hypothesis and captum. The rows go to data/results/compatibility.csv; a row of
the same versions that stands there already is written anew.
"""

import csv
import json
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "data" / "results" / "compatibility.csv"
PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "numpy", "pandas")
TESTS = ("rounds", "game", "capture", "preflight", "modalities", "adapters", "clip")
VERSIONS = ("import json, platform, sys; from importlib.metadata import version as of;"
            "print(json.dumps([platform.python_version(), *map(of, sys.argv[1:])]))")


def run(python: str, *words: str, where: str | Path) -> str:
    """Run a Python away from the checkout, and return what it printed; its error ends this."""
    done = subprocess.run([python, *words], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} {' '.join(words)[:200]}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def row(python: str) -> list[str]:
    """Return the versions of an environment, and how many tests passed there."""
    readme = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL))
    with tempfile.TemporaryDirectory() as nowhere:
        versions = json.loads(run(python, "-c", VERSIONS, *PACKAGES, where=nowhere))
        run(python, "-c", readme, where=nowhere)
    said = run(python, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts=",
               *(f"tests/crossexplain/test_{name}.py" for name in TESTS), where=ROOT)
    passed = re.findall(r"(\d+) passed", said)[-1]
    return [*versions, passed, datetime.now(UTC).date().isoformat()]


def main() -> None:
    known = {tuple(old[:-2]): old for old in list(csv.reader(KEPT.open(encoding="utf-8")))[1:]} if KEPT.exists() else {}
    for python in sys.argv[1:]:
        new = row(str(Path(python).absolute()))
        known[tuple(new[:-2])] = new
        with KEPT.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("python", *PACKAGES, "tests", "date"), *sorted(known.values())])
        print(", ".join(new))


if __name__ == "__main__":
    main()
