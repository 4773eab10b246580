"""Where the data of the paper is at hand, every chapter also runs in the full profile, at small size.

Some cells draw photographs or read real reviews and do nothing in the embedded profile; nobody else runs them.
"""

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor
from scipy.ndimage import find_objects, label

from crossexplain_book import Build, figures, find_root

ROOT = find_root(Path(__file__).parent)
FULL = Build(ROOT, profile="full", size="small")
ONLY_HERE = {"fig-01-photos", "fig-01-photos-nothing", "fig-01-cats", "fig-01-horses",
             "fig-05-photos", "fig-05-photo-words", "fig-05-own", "fig-06-photographs", "fig-06-own", "fig-10-photographs"}
ONLY_IN_FULL = 'profile == "full"'
CREDIT, MOST = "Flickr8k (Hodosh et al. 2013)", 8  # of its photographs a book shows, as data/cards/flickr8k.md promises


@pytest.fixture(scope="module")
def pages():
    """Run every chapter and return the cells of each, by chapter."""
    if not os.environ.get("CROSSEXPLAIN_DATA"):
        pytest.skip("CROSSEXPLAIN_DATA names no folder with the data of the full profile")
    command = [sys.executable, "-m", "crossexplain", "run", "--profile", "full", "--size", "small", "--jobs", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    chapters = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return {chapter: json.loads((FULL.pages / f"{chapter}.ipynb").read_text("utf-8"))["cells"] for chapter in chapters}


def photographs(cells: list[dict]) -> list[np.ndarray]:
    """Return what stands first in each row of the figures of photographs, (16, 16, 3) each: by their grammar, the input."""
    found = []
    outputs = [("".join(cell["source"]), output) for cell in cells for output in cell.get("outputs", [])]
    for source, output in outputs:
        credit = CREDIT in output.get("metadata", {}).get("crossexplain", {}).get("caption", "")
        if "image/png" not in output.get("data", {}) or not (credit or ONLY_IN_FULL in source):
            continue
        sheet = Image.open(BytesIO(b64decode(output["data"]["image/png"]))).convert("RGB")
        drawn = (np.asarray(sheet) != ImageColor.getrgb(figures.PAPER)).any(axis=2)
        places = [place for place in find_objects(label(drawn)[0])  # filled to the edges, as no chart is and no word
                  if min(drawn[place].shape) > 60 and drawn[place].mean() > 0.9]
        for rows, columns in places:
            if not any(at.start < rows.stop and rows.start < at.stop and left.start < columns.start for at, left in places):
                assert credit, "photographs without credit"
                box = columns.start, rows.start, columns.stop, rows.stop
                found.append(np.asarray(sheet.crop(box).resize((16, 16), Image.Resampling.BOX), dtype=float))
    return found


def different(images: list[np.ndarray]) -> list[np.ndarray]:
    """Return the images without those that came before, drawn at another size perhaps."""
    return [one for i, one in enumerate(images) if all(np.abs(one - other).mean() > 10 for other in images[:i])]


def test_every_chapter_runs_on_the_data_of_the_paper(pages):
    outputs = [output for cells in pages.values() for cell in cells for output in cell.get("outputs", [])]
    noise = ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"]
    assert not noise, noise
    drawn = {output["metadata"]["crossexplain"]["name"] for output in outputs if "crossexplain" in output.get("metadata", {})}
    assert not (lost := ONLY_HERE - drawn), f"the full profile draws no {', '.join(sorted(lost))}"


def test_chapters_5_and_6_together_show_few_photographs_and_name_where_they_are_from(pages):
    shown = [image for chapter, cells in pages.items() if chapter[:2] in ("05", "06") for image in photographs(cells)]
    assert 2 <= len(different(shown)) <= MOST, f"{len(different(shown))} photographs are shown, at most {MOST} may be"
    card = (ROOT / "data" / "cards" / "flickr8k.md").read_text("utf-8")
    assert "together show at most eight" in card


def test_photographs_are_counted_as_often_as_they_differ():
    images = np.random.default_rng(0).random((4, 3, 7, 7)).repeat(32, axis=2).repeat(32, axis=3)
    heat = np.linspace(-1, 1, 49).reshape(7, 7)
    words = {"alt": "Four pictures of noise, three and one of them again.", "caption": CREDIT}
    pictures = [
        figures.gallery(images[:3], {"one": [heat] * 3, "other": [abs(heat)] * 3}, titles=["two\nlines"] * 3, name="a",
                        **words),
        figures.example(images[0], heat, ["dog"] * 30, np.linspace(0, 1, 30), signed=(True, False), name="b", **words),
        figures.maps(images[3:], [heat], name="c", **words),
        figures.tokens([["dog"] * 30] * 2, [np.linspace(0, 1, 30)] * 2, name="d", **words),
        figures.curves({"one": ([0, 1], [0, 1])}, xlabel="x", ylabel="y", name="e", **words)]
    cells = [{"source": ["if ", ONLY_IN_FULL], "outputs": [{"data": {"text/plain": ""}}, {
        "data": {"image/png": b64encode(picture.png()).decode()}, "metadata": {"crossexplain": {"caption": picture.caption}}}]}
        for picture in pictures]
    assert [len(photographs([cell])) for cell in cells] == [3, 1, 1, 0, 0]
    assert len(different(photographs(cells))) == 4
