"""A small model of each family as a page: how many run in it, forward and back, how many are stored alone, how many refused.

The models are those of the table of families, adapted by their name. The table of this benchmark says of each what came, why
the model does not run in the page, and how far its graph is from PyTorch.
"""

import csv
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.families import ANIMALS, Asked
from crossexplain import InputError
from crossexplain_book.bench import row_of
from crossexplain_book.publish import publish, runtime

TABLE = Path(__file__).parent.parent / "data/results/published.csv"
CAME = {"live": "families whose page runs the model, with its gradients",
        "stored": "families whose page has stored answers alone", "refused": "families that cannot be published"}
STATES = 64  # covers stored for an example


def rows(seed: int = 0) -> list[dict]:
    """Publish every family, write the table, and return how many came to what."""
    runtime.fetch()
    with TemporaryDirectory() as folder:
        lines = [line_of(name, Path(folder) / "page.html") for name in ANIMALS]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    apart = [line["score_apart"] for line in lines if line["came"] == "live"]
    return [*(row_of(f"publish.families_{which}", [sum(line["came"] == which for line in lines)], unit) | {"n": len(lines)}
              for which, unit in CAME.items()),
            row_of("publish.score_difference", apart, "largest difference of a live score from PyTorch's, of the largest", max)]


def line_of(name: str, path: Path) -> dict:
    """Return what came of one family."""
    animal = ANIMALS[name]()
    line = {"family": animal.family, "kind": animal.kind, "came": "refused", "reason": "", "page_bytes": 0, "logit_apart": "",
            "score_apart": ""}
    try:
        asked = Asked(animal)
        page = publish(*asked.arguments, path, states=STATES, **asked.settings).read_text("utf-8")
    except InputError as error:
        return line | {"reason": str(error)}
    content = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    line |= {"came": "stored", "reason": content["why"], "page_bytes": len(page.encode())}
    if content["live"] is None:
        return line
    return line | {"came": "live", **{f"{what}_apart": content["live"]["parity"][what] for what in ("logit", "score")}}
