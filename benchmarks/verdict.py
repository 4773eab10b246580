"""Is the verdict right where the answer is known? Six controls, 20 seeds, three baselines, the paper's rule beside it.

``ENOUGH`` of ``crossexplain.gradients.verdict`` and ``TOLERANCE`` of ``crossexplain.gradients.record`` were chosen on seeds of
``CHOSEN_ON``, six to nine of each control; ``python benchmarks/verdict.py`` prints what each candidate gets right on all of
them. ``rows`` judges other seeds.
"""

from itertools import product

import numpy as np
import pandas as pd

from benchmarks.studies.kept import kept_at, lines, logits_of, views_of
from crossexplain.data import collages, controls, digits
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients import verdict as judging
from crossexplain.gradients.modalities import Tokens, Vectors
from crossexplain.gradients.record import Record
from crossexplain.gradients.rounds import rounds
from crossexplain.recipes import controls as recipe
from crossexplain.recipes import load_or_train
from crossexplain.recipes.controls import Control, train
from crossexplain_book.bench import BenchError

CHOSEN_ON, SEEDS = range(100, 109), 20
BASELINES = [{"image": "zero", "text": "mask"}, {"image": "zero", "text": "pad"}, "data"]
NAMES, TABLE = ("image", "text"), "verdict.csv"


def run(kind: str, seed: int, bank: digits.Digits, tower) -> tuple[Control, Record]:
    """Train one control and record its rounds."""
    control = train(kind, bank, tower, seed)
    modalities = [Vectors("image", "seen"), Tokens(layer=control.fusion.text_layer)]
    inputs = {"seen": control.seen, "tokens": control.test.tokens()}
    return control, rounds(control.fusion, inputs, modalities, baselines=BASELINES, control=False, rows=8192,
                           progress=False, seed=seed)


def judged(kind: str, seed: int, bank: digits.Digits, tower) -> dict:
    """Return what is kept of one control: what does not come from the logits, and the logits."""
    control, record = run(kind, seed, bank, tower)
    first = record.baselines[0]
    line = {"control": kind, "seed": seed, "truth": control.answer, "paper_rule": record.paper_rule(),
            "paper_norms": record.paper_rule(classes=False), "accuracy": control.accuracy, "n": len(record)}
    line |= {f"norm ratio of {name}": float(np.nanmedian(record.norm_ratio(first, name))) for name in record.modalities}
    return line | {"logits": logits_of(record)}


def read(line: dict) -> dict:
    """Return a line of the table: what the verdict says of the logits in their place."""
    views = views_of(line["logits"])
    verdict, first = judging.verdict(views, NAMES, seed=line["seed"]), next(iter(views))
    found = {key: value for key, value in line.items() if key != "logits"}
    found |= {"verdict": verdict.answer, "support": verdict.support}
    found |= {f"verdict, {baseline}": answer for baseline, answer in verdict.answers.items()}
    found |= {f"{part} accounts for": verdict.reach[first][part].value for part in (*NAMES, "sum")}
    found |= {f"flips, {name} masked": verdict.flips[first][name].value for name in NAMES}
    return found | {"dividend": verdict.dividend[first].value}


def judge(seeds: range) -> list[dict]:
    """Judge every control of every seed, in order; a run that was cut off goes on where it stopped."""
    bank, tower = digits.load("sklearn"), load_or_train("collages").model.tower
    kept = kept_at("verdict", *seeds, BASELINES, controls, digits, collages, recipe, run, judged)
    wanted = [(kind, seed, bank, tower) for seed, kind in product(seeds, controls.ANSWERS)]
    return [read(line) for line in lines(wanted, judged, kept)]


def rows(seed: int = 0) -> list[dict]:
    """Judge the controls of 20 seeds from ``seed`` on and keep the table as ``data/results/verdict.csv``."""
    seeds = range(seed, seed + SEEDS)
    if set(seeds) & set(CHOSEN_ON):
        raise BenchError(f"got seeds {seed} to {seeds[-1]}; thresholds were chosen on {CHOSEN_ON[0]} to {CHOSEN_ON[-1]}: "
                         "start at another, so that none of these is among them.")
    table = pd.DataFrame(judge(seeds))
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))
    right, none = table.verdict == table.truth, table.truth != "both only"
    found = [share("verdict.right", right, "share of seeds x controls", table),
             share("verdict.false_alarms", (table.verdict == "both only")[none], "share where nothing interacts", table)]
    for name in ("paper_rule", "paper_norms"):
        found.append(share(f"verdict.{name}.right", table[name] == table.truth, "share of seeds x controls", table))
        found.append(share(f"verdict.{name}.false_alarms", (table[name] == "both only")[none],
                           "share where nothing interacts", table))
    return found


def share(name: str, hits: pd.Series, unit: str, table: pd.DataFrame) -> dict:
    """Return a row: the share over all, from the worst to the best seed."""
    by_seed = hits.groupby(table.seed).mean()
    return {"id": name, "value": float(hits.mean()), "low": float(by_seed.min()), "high": float(by_seed.max()),
            "n": len(hits), "unit": unit}


def choose() -> None:
    """Print what each candidate threshold gets right on the seeds that are there to choose on."""
    bank, tower = digits.load("sklearn"), load_or_train("collages").model.tower
    records = [run(kind, seed, bank, tower) for seed in CHOSEN_ON for kind in controls.ANSWERS]
    for enough in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        answers = [record.verdict(enough).answer for _, record in records]
        print(f"enough {enough:.2f}: {np.mean([a == c.answer for a, (c, _) in zip(answers, records)]):.3f} right")
    for tolerance in (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0):
        for classes in (True, False):
            answers = [record.paper_rule(tolerance=tolerance, classes=classes) for _, record in records]
            print(f"paper, tolerance {tolerance:.2f}, {'norms and classes' if classes else 'norms alone'}: "
                  f"{np.mean([a == c.answer for a, (c, _) in zip(answers, records)]):.3f} right")


if __name__ == "__main__":
    choose()
