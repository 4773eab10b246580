"""Which turn explanations name in real dialogues, beside the turn that people marked as the cause of an emotion.

Emotion-Cause in Friends: MiniLM reads each turn, a small head names the emotion of a turn from the last ten. Accuracy is the
mean of three seeds, beside the most frequent emotion and heads that read the turn alone, or all but what it says. Recalls are
of the first seed, of turns with an emotion that people gave a cause, the turn itself or one before it. Intervals are 95 %
bootstraps over dialogues. All rows by question, case and method are kept in ``dialogues.csv``; it holds numbers alone, since
words and marks are not the project's to hand on. Needs the data folder; the first time MiniLM reads the turns, some minutes.
"""

import re

import numpy as np
import pandas as pd
import torch

from benchmarks.studies import causes
from crossexplain.data.dialogues import EMOTIONS
from crossexplain.files import embedded_folder, write_whole
from crossexplain.intervals import difference_interval, mean_interval
from crossexplain.recipes import Trained, load_or_train
from crossexplain.recipes import dialogues as recipe

SEEDS = 3
TABLE = "dialogues.csv"
EARLIER, EITHER = "earlier", "same or earlier"
WHOLE, TURN, BEFORE = "whole", "turn", "before"  # what a head reads: the dialogue, the turn alone, what came before it alone
HEADS = {WHOLE: {}, TURN: {"context": False}, BEFORE: {"own": False}}


def rows(seed: int = 0) -> list[dict]:
    """Return the rows of the table."""
    encoded = recipe.encode(progress=False)
    heads = {name: [load_or_train("dialogues", seed=each, encoded=encoded, progress=False, **options)
                    for each in range(seed, seed + SEEDS)] for name, options in HEADS.items()}
    case = causes.Case.of(heads[WHOLE][0].model, heads[WHOLE][0].data["test"])
    scores = causes.all_scores(case, seed)
    for title, of in scores.items():
        if isinstance(of, str):
            print(f"{title} is left out: {of}")
    lines = pd.DataFrame(causes.table(case, scores, seed))
    write_whole(embedded_folder() / "results" / TABLE, lambda part: lines.to_csv(part, index=False, float_format="%.4f"))
    return [*accuracies(heads, seed), *recalls(lines), *disagreements(case, scores[causes.EXACT], seed)]


def accuracies(heads: dict[str, list[Trained]], seed: int) -> list[dict]:
    """Return how good the heads are, beside the most frequent emotion and beside each other."""
    right, losses, test = {}, {}, heads[WHOLE][0].data["test"]
    with torch.no_grad():
        for name, trained in heads.items():
            logits = torch.stack([one.model(**one.data["test"].inputs()) for one in trained])  # (seeds, N, C)
            right[name] = (logits.argmax(dim=2) == test.labels).double().mean(dim=0).numpy()
            losses[name] = -logits.log_softmax(dim=2)[:, torch.arange(len(test)), test.labels].mean(dim=0).numpy()
    shares = torch.bincount(heads[WHOLE][0].data["train"].labels, minlength=len(EMOTIONS)).double()
    shares = shares / shares.sum()
    losses["prior"], majority = -shares.log()[test.labels].numpy(), (test.labels == shares.argmax()).double().numpy()
    of_emotions = np.where((test.labels > 0).numpy(), right[WHOLE], np.nan)
    unit, owner = f"share of turns, mean of {SEEDS} seeds", test.dialogue
    beside = "all but what the turn says"
    single = {"accuracy": (right[WHOLE], unit), "accuracy.turn_alone": (right[TURN], f"{unit}, the turn alone"),
              "accuracy.before_alone": (right[BEFORE], f"{unit}, {beside}"),
              "accuracy.majority": (majority, "share of turns, the most frequent emotion"),
              "accuracy.emotions": (of_emotions, f"{unit}, turns that are not neutral")}
    pairs = {"over_majority": (right[WHOLE], majority, "share of turns, more than the most frequent emotion"),
             "over_turn_alone": (right[WHOLE], right[TURN], "share of turns, more than the turn alone"),
             "loss_below_turn_alone": (losses[TURN], losses[WHOLE], "nats a turn, less than the turn alone"),
             "before_alone_over_majority": (right[BEFORE], majority,
                                            f"share of turns, {beside}, more than the most frequent emotion"),
             "before_alone_loss_below_prior": (losses["prior"], losses[BEFORE],
                                               f"nats a turn, {beside}, less than the shares of the emotions")}
    return [*(row(f"ecf.{key}", mean_interval(values, seed, groups=owner), text) for key, (values, text) in single.items()),
            *(row(f"ecf.{key}", difference_interval(first, second, seed, groups=owner), text)
              for key, (first, second, text) in pairs.items())]


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
            name = blind.get(line["method"], re.sub(r"[^a-z0-9]+", "_", line["method"].lower()).strip("_"))
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
