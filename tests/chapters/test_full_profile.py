"""Where the data of the paper is at hand, every chapter also runs in the full profile, at small size.

Some cells draw photographs or read real reviews and do nothing in the embedded profile; nobody else runs them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossexplain.book import Build, find_root

ROOT = find_root(Path(__file__).parent)
FULL = Build(ROOT, profile="full", size="small")
ONLY_HERE = {"fig-images-photos", "fig-images-photos-nothing", "fig-images-cats", "fig-images-horses",
             "fig-05-photos", "fig-05-own", "fig-06-photographs", "fig-06-own"}

pytestmark = pytest.mark.skipif(not os.environ.get("CROSSEXPLAIN_DATA"),
                                reason="CROSSEXPLAIN_DATA names no folder with the data of the full profile")


def outputs(page: Path) -> list[dict]:
    """Return the outputs of an executed notebook."""
    cells = json.loads(page.read_text("utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_every_chapter_runs_on_the_data_of_the_paper():
    command = [sys.executable, "-m", "crossexplain", "run", "--profile", "full", "--size", "small", "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    chapters = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    found = {chapter: outputs(FULL.pages / f"{chapter}.ipynb") for chapter in chapters}
    noise = ["".join(output["text"]) for of in found.values() for output in of if output.get("name") == "stderr"]
    assert not noise, noise
    drawn = {output["metadata"]["crossexplain"]["name"] for of in found.values() for output in of
             if "crossexplain" in output.get("metadata", {})}
    assert not (lost := ONLY_HERE - drawn), f"the full profile draws no {', '.join(sorted(lost))}"
