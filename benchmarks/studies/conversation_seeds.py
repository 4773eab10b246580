"""The model of conversations trained from several seeds: how often each is right, by kind, and how long its training takes.

``python -m benchmarks.studies.conversation_seeds`` writes ``data/results/conversations_seeds.csv``; a training that was cut
off is taken up, and a finished one is not repeated. No seed but the first travels with the book.
"""

from collections.abc import Sequence

import pandas as pd

from crossexplain.data import store
from crossexplain.files import embedded_folder, write_whole
from crossexplain.recipes import conversations as recipe

SEEDS = (0, 1, 2)
TABLE = "conversations_seeds.csv"


def measured(seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """Return the accuracy on the same held-out conversations of a model of each seed, with ``"all"`` and each kind in a row."""
    lines = []
    for seed in seeds:
        trained = recipe.train(seed=seed, resume=store.cache() / "training")
        kinds = len(recipe.KINDS)
        lines += [{"seed": seed, "kind": kind, "accuracy": share, "n": recipe.TEST // (1 if kind == "all" else kinds),
                   "seconds": round(trained.seconds, 1)} for kind, share in recipe.tested(trained).items()]
    return pd.DataFrame(lines)


def main() -> None:
    """Measure all seeds and write the table."""
    table = measured()
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
