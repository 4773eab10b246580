"""Which turn explanations name in real dialogues, beside the turn that people marked as the cause of an emotion.

Emotion-Cause in Friends: MiniLM reads each turn, a small head names the emotion of a turn from the last ten. Accuracy is the
mean of three seeds, beside the most frequent emotion and a head that reads the turn alone; recalls are of the first seed, of
turns with an emotion that people gave a cause, the turn itself or one before it. Intervals are 95 % bootstraps over dialogues.
All rows by question, case and method are kept in ``dialogues.csv``; it holds numbers alone, since words and marks are not the
project's to hand on. Needs the data folder; the first time MiniLM reads the turns, some minutes.
"""

import numpy as np
import pandas as pd
import torch

from benchmarks.studies import causes
from crossexplain.files import embedded_folder, write_whole
from crossexplain.intervals import difference_interval, mean_interval
from crossexplain.recipes import dialogues as recipe
from crossexplain.recipes import load_or_train

SEEDS = 3
TABLE = "dialogues.csv"
EARLIER, EITHER = "earlier", "same or earlier"


def rows(seed: int = 0) -> list[dict]:
    """Return the rows of the table."""
    encoded, seeds = recipe.encode(progress=False), range(seed, seed + SEEDS)
    heads = {context: [load_or_train("dialogues", seed=each, encoded=encoded, context=context, progress=False)
                       for each in seeds] for context in (True, False)}
    test = heads[True][0].data["test"]
    case = causes.Case.of(heads[True][0].model, test)
    scores = causes.all_scores(case, seed)
    for title, of in scores.items():
        if isinstance(of, str):
            print(f"{title} is left out: {of}")
    lines = pd.DataFrame(causes.table(case, scores, seed))
    write_whole(embedded_folder() / "results" / TABLE, lambda part: lines.to_csv(part, index=False, float_format="%.4f"))
    return [*accuracies(heads, seed), *recalls(lines), *disagreements(case, scores[causes.EXACT], seed)]


def accuracies(heads: dict, seed: int) -> list[dict]:
    """Return how good the head is, beside the most frequent emotion, beside the turn alone, and how much less is lost."""
    test, train = heads[True][0].data["test"], heads[True][0].data["train"]
    right, losses = {}, {}
    with torch.no_grad():
        for context, trained in heads.items():
            logits = torch.stack([one.model(**test.inputs()) for one in trained])  # (seeds, N, C)
            right[context] = (logits.argmax(dim=2) == test.labels).double().mean(dim=0).numpy()
            losses[context] = -logits.log_softmax(dim=2)[:, torch.arange(len(test)), test.labels].mean(dim=0).numpy()
    majority = (test.labels == train.labels.mode().values).double().numpy()
    owner, unit = test.dialogue, f"share of turns, mean of {SEEDS} seeds"
    of_emotions = np.where((test.labels > 0).numpy(), right[True], np.nan)
    differences = {"over_majority": (right[True], majority, "share of turns, more than the most frequent emotion"),
                   "over_turn_alone": (right[True], right[False], "share of turns, more than the turn alone"),
                   "loss_below_turn_alone": (losses[False], losses[True], "nats a turn, less than the turn alone")}
    return [row("ecf.accuracy", mean_interval(right[True], seed, groups=owner), unit),
            row("ecf.accuracy.turn_alone", mean_interval(right[False], seed, groups=owner), unit),
            row("ecf.accuracy.majority", mean_interval(majority, seed, groups=owner), "share of turns"),
            row("ecf.accuracy.emotions", mean_interval(of_emotions, seed, groups=owner), f"{unit}, turns that are not neutral"),
            *(row(f"ecf.{key}", difference_interval(first, second, seed, groups=owner), text)
              for key, (first, second, text) in differences.items())]


def recalls(lines: pd.DataFrame) -> list[dict]:
    """Return the recall of each method and of what needs no model, and of the best method, for both questions."""
    found = []
    blind = {causes.SAME: "same_turn", causes.BEFORE: "previous_turn", causes.OTHER: "last_of_another", causes.RANDOM: "random",
             causes.CHANCE: "chance"}
    for question, prefix in ((EITHER, "ecf.recall"), (EARLIER, "ecf.earlier")):
        some = lines[(lines["question"] == question) & (lines["case"] == "all") & (lines["metric"] == "recall at 1")]
        methods = some[~some["method"].isin([*blind, *causes.SLOW])]
        best = methods.loc[methods["value"].idxmax()]
        unit = "share of turns" if question == EITHER else "share of turns with an earlier cause, among earlier turns"
        found.append(of_line(f"{prefix}.best", best, f"{unit}; {best['method']}, the best of {len(methods)}"))
        for _, line in some.iterrows():
            name = blind.get(line["method"], line["method"].lower().replace(" ", "_").replace(":", ""))
            found.append(of_line(f"{prefix}.{name}", line, unit))
    return found


def disagreements(case: causes.Case, scores: np.ndarray, seed: int) -> list[dict]:
    """Return how often exact Shapley and people name other earlier turns, and which of them changes the answer."""
    units = {"differ": "share of turns with an earlier cause, exact Shapley names another earlier turn",
             "model": "share of these whose answer changes with the turn hidden that exact Shapley names",
             "people": "share of these whose answer changes with the turn hidden that people marked",
             "before": "share of these whose answer changes with the turn before hidden"}
    print("one disagreement:", causes.example(case, scores))
    return [row(f"ecf.disagreement.{name}", of, units[name]) for name, of in causes.disagreement(case, scores, seed).items()]


def of_line(key: str, line: pd.Series, unit: str) -> dict:
    """Return a row of a line of the table."""
    return {"id": key, "value": float(line["value"]), "low": float(line["low"]), "high": float(line["high"]),
            "n": int(line["n"]), "unit": f"{unit}, interval over {line['dialogues']} dialogues"}


def row(key: str, interval, unit: str) -> dict:
    """Return a row of an interval over dialogues."""
    return {"id": key, **interval._asdict(), "unit": f"{unit}, interval over dialogues"}
