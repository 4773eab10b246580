"""Is the verdict right where the answer is known? Six controls, 20 seeds, three baselines, the paper's rule beside it.

The models are those of ``benchmarks/trial.py`` with early fusion, and what is kept of a model serves both.

``ENOUGH`` of ``crossexplain.gradients.verdict`` and ``TOLERANCE`` of ``crossexplain.gradients.record`` were chosen on seeds of
``CHOSEN_ON``, six to nine of each control; ``python benchmarks/verdict.py`` prints what each candidate gets right on all of
them. ``rows`` judges other seeds.
"""

import numpy as np
import pandas as pd

from benchmarks.studies.kept import views_of
from benchmarks.trial import RULE, lines_of, share
from crossexplain.data import controls
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients import verdict as judging
from crossexplain.gradients.record import TOLERANCE
from crossexplain.gradients.views import FULL
from crossexplain_book.bench import BenchError

CHOSEN_ON, SEEDS = range(100, 109), 20
KINDS = [(kind, 1.0) for kind in controls.ANSWERS]  # of a shortcut, the one that gives all away
NAMES, TABLE = ("image", "text"), "verdict.csv"


def read(line: dict) -> dict:
    """Return a line of the table from what the trial keeps of a model: what the verdict says of its logits in their place."""
    views = views_of(line["logits"])
    verdict, first = judging.verdict(views, NAMES, seed=line["seed"]), next(iter(views))
    found = {"control": line["control"], "seed": line["seed"], "truth": line["truth"], "verdict": verdict.answer,
             "support": verdict.support, "paper_rule": line[RULE], "paper_norms": by_norms(line),
             "accuracy": line["accuracy"], "n": len(views[first][FULL])}
    found |= {f"verdict, {baseline}": answer for baseline, answer in verdict.answers.items()}
    found |= {f"{part} accounts for": verdict.reach[first][part].value for part in (*NAMES, "sum")}
    found |= {f"norm ratio of {name}": line[f"norm ratio of {name}"] for name in NAMES}
    found |= {f"flips, {name} masked": verdict.flips[first][name].value for name in NAMES}
    return found | {"dividend": verdict.dividend[first].value}


def by_norms(line: dict, tolerance: float = TOLERANCE) -> str:
    """Return what the paper's rule says that reads the norms alone, as :meth:`Record.paper_rule` does without the classes."""
    same = [name for name in NAMES if abs(line[f"norm ratio of {name}"] - 1) <= tolerance]
    return "both only" if not same else f"{same[0]} alone" if len(same) == 1 else "either"


def rows(seed: int = 0) -> list[dict]:
    """Judge the controls of 20 seeds from ``seed`` on and keep the table as ``data/results/verdict.csv``."""
    seeds = range(seed, seed + SEEDS)
    if set(seeds) & set(CHOSEN_ON):
        raise BenchError(f"got seeds {seed} to {seeds[-1]}; thresholds were chosen on {CHOSEN_ON[0]} to {CHOSEN_ON[-1]}: "
                         "start at another, so that none of these is among them.")
    table = pd.DataFrame(map(read, lines_of(seeds, ("early fusion",), KINDS)))
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))
    right, none = table.verdict == table.truth, table.truth != "both only"
    found = [share("verdict.right", right, "share of seeds x controls", table),
             share("verdict.false_alarms", (table.verdict == "both only")[none], "share where nothing interacts", table)]
    for name in ("paper_rule", "paper_norms"):
        found.append(share(f"verdict.{name}.right", table[name] == table.truth, "share of seeds x controls", table))
        found.append(share(f"verdict.{name}.false_alarms", (table[name] == "both only")[none],
                           "share where nothing interacts", table))
    return found


def choose() -> None:
    """Print what each candidate threshold gets right on the seeds that are there to choose on."""
    lines = lines_of(CHOSEN_ON, ("early fusion",), KINDS)
    for enough in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        answers = [judging.verdict(views_of(line["logits"]), NAMES, enough=enough, seed=line["seed"]).answer for line in lines]
        print(f"enough {enough:.2f}: {np.mean([a == line['truth'] for a, line in zip(answers, lines)]):.3f} right")
    for tolerance in (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0):
        answers = [by_norms(line, tolerance) for line in lines]
        print(f"paper, tolerance {tolerance:.2f}, norms alone: "
              f"{np.mean([a == line['truth'] for a, line in zip(answers, lines)]):.3f} right")


if __name__ == "__main__":
    choose()
