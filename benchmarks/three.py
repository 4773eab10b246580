"""Does the verdict name the right modalities of three? Controls whose label is from a known subset, the paper's rule beside it.

``ENOUGH`` of ``crossexplain.gradients.verdict`` was chosen on controls of two modalities; on the seeds of ``CHOSEN_ON`` it had
51 of 52 right here (0.70 would have had all, 0.65 and 0.80 fewer). None of them is judged.
"""

from itertools import product

import pandas as pd

from benchmarks.studies import three as study
from benchmarks.studies.kept import kept_at, lines, logits_of, views_of
from benchmarks.trial import share
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients import verdict as judging
from crossexplain_book.bench import BenchError

CHOSEN_ON, SEEDS, TABLE = range(100, 104), 10, "three.csv"


def judged(kind: str, seed: int) -> dict:
    """Return what is kept of one control: what does not come from the logits, and the logits."""
    model, test, accuracy = study.train(kind, seed)
    record = study.recorded(model, test, seed)
    return {"kind": kind, "seed": seed, "accuracy": accuracy, "truth": study.truth(kind),
            "truth_terms": spoken(study.KINDS[kind]), "paper_rule": record.paper_rule(),
            "paper_norms": record.paper_rule(classes=False), "n": len(record), "logits": logits_of(record)}


def read(line: dict) -> dict:
    """Return a line of the table: what the verdict says of the logits in their place."""
    verdict = judging.verdict(views_of(line["logits"]), study.NAMES, seed=line["seed"])
    found = {key: value for key, value in line.items() if key != "logits"}
    return found | {"verdict": verdict.answer, "terms": spoken(verdict.terms), "support": verdict.support}


def spoken(terms: tuple[tuple[str, ...], ...]) -> str:
    """Return parts as one word, ``"c + ab"``."""
    return " + ".join("".join(part) for part in terms)


def order(terms: pd.Series) -> pd.Series:
    """Return how many modalities interact at most, of parts as one word; 0 where there are none."""
    return terms.map(lambda spoken: max(map(len, spoken.split(" + "))))


def rows(seed: int = 0) -> list[dict]:
    """Judge the controls of 10 seeds from ``seed`` on and keep the table as ``data/results/three.csv``."""
    seeds = range(seed, seed + SEEDS)
    if set(seeds) & set(CHOSEN_ON):
        raise BenchError(f"got seeds {seed} to {seeds[-1]}; {CHOSEN_ON[0]} to {CHOSEN_ON[-1]} were there to choose on: start "
                         "at another, so that none of these is among them.")
    kept = kept_at("three", *seeds, study, judged)
    wanted = [(kind, seed) for seed, kind in product(seeds, study.KINDS)]
    table = pd.DataFrame(map(read, lines(wanted, judged, kept)))
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))
    right = (table.verdict == table.truth) & (table.terms == table.truth_terms)
    fewer = order(table.truth_terms) < 3  # an order that is not there can be named
    found = [share("verdict.three.right", right, "share of seeds x kinds, the answer and all parts right", table),
             share("verdict.three.false_alarms", (order(table.terms) > order(table.truth_terms))[fewer],
                   "share in which an order of interaction is named that is not there", table),
             share("verdict.three.abstained", table.verdict == "cannot tell", "share of seeds x kinds", table)]
    for name in ("paper_rule", "paper_norms"):
        found.append(share(f"verdict.three.{name}.right", table[name] == table.truth,
                           "share of seeds x kinds, the answer right, whichever modalities interact", table))
        found.append(share(f"verdict.three.{name}.false_alarms", (table[name] == "both only")[order(table.truth_terms) < 2],
                           "share where nothing interacts", table))
    return found
