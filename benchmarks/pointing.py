"""What explanations of the three models of scenes score against the truth, every method beside what it has to beat.

``pointing.csv`` keeps the whole table; the rows are the best method and a random one of each question. Held-out pictures; the
interval is a 95 % bootstrap over twins, which are nearly the same picture. The best of many is a little too good, by choice.
"""

import pandas as pd

from benchmarks.studies import pointing
from crossexplain.files import embedded_folder, write_whole
from crossexplain.recipes import load_or_train
from crossexplain.recipes import scenes as recipe

KEYS = {"scenes.pointing": ("thing", "pointing game"), "scenes.pointing.energy": ("thing", "energy in the box"),
        "scenes.pointing.cue_words": ("cue words", "AUROC"), "scenes.pointing.false_word": ("false word", "AUROC"),
        "scenes.pointing.false_word_first": ("false word", "top word"),
        "scenes.pointing.false_place": ("its place", "pointing game")}
RANDOM = "random map", "random scores"


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table, and keep the whole of it."""
    trained = {name: load_or_train(f"scenes_{name}") for name in recipe.NAMES}
    unlearned = {name: recipe.new_model(name, seed + 1).requires_grad_(False).eval() for name in trained}
    data = next(iter(trained.values())).data
    table = pointing.table(data, {name: found.model for name, found in trained.items()}, unlearned, seed=seed)
    write_whole(embedded_folder() / "results" / "pointing.csv",
                lambda part: table.to_csv(part, index=False, float_format="%.4f"))
    return [row for key, (question, measure) in KEYS.items()
            for row in best_and_random(key, table[(table.question == question) & (table.measure == measure)])]


def best_and_random(key: str, part: pd.DataFrame) -> list[dict]:
    """Return the rows of the best method of any model, and of what knows nothing."""
    real = part[(part.model != "none") & ~part.method.str.startswith(pointing.UNLEARNED)]
    chosen = {"best": real.loc[real.value.idxmax()], "random": part[part.method.isin(RANDOM)].iloc[0]}
    return [{"id": f"{key}.{what}", **{name: float(line[name]) for name in ("value", "low", "high")}, "n": int(line.n),
             "unit": f"{line.measure}, {line.method}" + (f", {line.model}" if what == "best" else "")}
            for what, line in chosen.items()]
