"""A small model of each family as a page: how many run in it, forward and back, how many are stored alone, how many refused.

The models are those of the table of families, adapted by their name. The table of this benchmark says of each what came, why
the model does not run in the page, and how far its graph is from PyTorch. A run that was cut off goes on where it stopped.
"""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.families import ANIMALS, Asked
from benchmarks.studies.kept import lines
from crossexplain import InputError
from crossexplain.files import embedded_folder
from crossexplain_book.bench import code_hash, row_of
from crossexplain_book.publish import publish, runtime
from crossexplain_book.publish.page import content_of

TABLE = Path(__file__).parent.parent / "data/results/published.csv"
CAME = {"live": "families whose page runs the model, with its gradients",
        "stored": "families whose page has stored answers alone",
        "refused": "families that cannot be published"}
STATES = 64  # covers stored for an example


def rows(seed: int = 0) -> list[dict]:
    """Publish every family, write the table, and return how many came to what."""
    runtime.fetch()
    kept = embedded_folder().parent / "_build" / "publish" / f"{code_hash(Path(__file__))}.json"
    with TemporaryDirectory() as folder:
        found = lines([(name, Path(folder) / "page.html") for name in ANIMALS], line_of, kept)
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    apart = [line["score_apart"] for line in found if line["came"] == "live"]
    return [*(row_of(f"publish.families_{which}", [sum(line["came"] == which for line in found)], unit) | {"n": len(found)}
              for which, unit in CAME.items()),
            row_of("publish.score_difference", apart, "largest difference of a live score from PyTorch's, of the largest", max)]


def line_of(name: str, path: Path) -> dict:
    """Return what came of one family."""
    animal = ANIMALS[name]()
    line = {"family": animal.family, "kind": animal.kind, "came": "refused", "reason": "", "page_bytes": 0, "model_bytes": 0,
            "logit_apart": "", "score_apart": ""}
    try:
        asked = Asked(animal)
        content = content_of(publish(*asked.arguments, path, states=STATES, **asked.settings))
    except InputError as error:
        return line | {"reason": str(error)}
    line |= {"came": "stored", "reason": content["why"], "page_bytes": path.stat().st_size}
    if content["live"] is None:
        return line
    model = path.parent / content["live"]["sources"][-1]
    apart = {f"{what}_apart": content["live"]["parity"][what] for what in ("logit", "score")}
    return line | {"came": "live", "model_bytes": model.stat().st_size, **apart}
