"""Conversations in three modalities: how often the models are right, and how well explanations find what decides.

Every method of ``benchmarks/studies/turns.py`` is scored on held-out conversations that the model answers rightly, beside what
needs no model. The verdict has to name the modalities that decide a kind of conversation, and the paper's rule of norms beside
it. ``python -m crossexplain bench conversations`` writes ``data/results/conversations.csv`` too, and takes up a run that was
cut off.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.studies import turns
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.shapley import dividends
from crossexplain.data.conversations import KIND_MODALITIES, KINDS, MODALITIES, Batch, Conversations
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients import verdict as judging
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.parts import leaving
from crossexplain.gradients.rounds import rounds
from crossexplain.intervals import Interval, mean_interval, share_interval
from crossexplain.recipes import conversations as recipe
from crossexplain.recipes import load_or_train
from crossexplain_book.bench import code_hash

UNITS = 8 * len(KINDS)  # conversations in the smallest batch with all kinds
ANSWERED, TESTED, EXPLAINED, FEWER = 60 * UNITS, 20 * UNITS, 5 * UNITS, UNITS
JUDGED, EACH = 13, 192  # verdicts on each kind, and conversations that each is read from
RULED = 3  # times the paper's rule is read for each kind; it takes the gradients of all views
PARITIES = 400  # conversations whose dividend of all three modalities has to have the sign of the answer
# Epochs and conversations of a fusion that gets one or two modalities: to find what is asked for, and to answer.
WITHOUT = ((1, 30_000), (1, 30_000))
OWN, OURS = "conversations", "exact Shapley"
SIBLINGS = {OWN: "cross-attention", "conversations_early": "early fusion", "conversations_late": "late fusion"}
ROUNDS = ("round 1: gradient", "rounds 2 and 3: others masked", turns.ROUND_4)  # as the paper reads them
TABLE = "conversations.csv"


def line(title: str, metric: str, interval: Interval) -> dict:
    """Return one line of the table."""
    key = title.lower().replace(":", "").replace("(", "").replace(")", "").replace(" ", "_")
    return {"method": key, "title": title, "metric": metric, **interval._asdict()}


# Accuracies


def accuracies(seed: int) -> list[dict]:
    """Return the accuracy of each model on held-out conversations, of all kinds and of each."""
    lines = []
    for name, title in SIBLINGS.items():
        trained = load_or_train(name, progress=False)
        batch = trained.data.build("test", ANSWERED, seed)
        lines += _by_kind(title, "accuracy", (recipe.logits(trained.model, batch).numpy() > 0) == batch.labels, batch, seed)
    return lines


def _by_kind(title: str, metric: str, right: np.ndarray, batch: Batch, seed: int) -> list[dict]:
    lines = [line(title, metric, mean_interval(right, seed, groups=batch.unit))]
    for kind in KINDS:
        of = batch.kinds == kind
        lines.append(line(title, f"{metric}, {kind}", mean_interval(right[of], seed, groups=batch.unit[of])))
    return lines


def without(seed: int) -> list[dict]:
    """Return the accuracies of fusions that were trained on one and on two modalities, and what the best possible has."""
    own, lines = load_or_train(OWN, progress=False), []
    batch = own.data.build("test", TESTED, seed)
    for many in (1, 2):
        for only in combinations(MODALITIES, many):
            trained = recipe.train(OWN, seed, only=only, towers=own.model.towers, plan=WITHOUT, data=own.data, progress=False)
            right = (recipe.logits(trained.model, batch, only).numpy() > 0) == batch.labels
            title = " and ".join(only) + " alone"
            lines += _by_kind(title, "accuracy", right, batch, seed)
            needs = np.array([not set(KIND_MODALITIES[kind]) <= set(only) and kind not in ("redundant", "added")
                              for kind in batch.kinds])
            lines.append(line(title, "accuracy where more decide", mean_interval(right[needs], seed, groups=batch.unit[needs])))
            best = best_possible(batch, only)
            lines.append(line(title, "best possible accuracy", mean_interval(best, seed, groups=batch.unit)))
            lines.append(line(title, "best possible accuracy where more decide",
                              mean_interval(best[needs], seed, groups=batch.unit[needs])))
    return lines


def best_possible(batch: Batch, only: tuple[str, ...]) -> np.ndarray:
    """Return how often a model that knows every unit by heart, and sees only some modalities, can be right, (N,).

    Conversations of a unit that are alike in these modalities, in the question and in the parties get one answer: that of
    most of them.
    """
    inputs, alike = batch.inputs(), {}
    seen = [inputs[name].numpy() for name in ("question", "party", *only)]
    for i, unit in enumerate(batch.unit):
        alike.setdefault((unit, *(part[i].tobytes() for part in seen)), []).append(i)
    best = np.empty(len(batch))
    for rows in alike.values():
        best[rows] = max(batch.labels[rows].mean(), 1 - batch.labels[rows].mean())
    return best


# What decides


def explained(seed: int) -> list[dict]:
    """Return how well each method finds what decides, on conversations that the model answers rightly."""
    case = _case(EXPLAINED, seed)
    found = turns.scores_of(case, seed, turns.BLIND | turns.METHODS) | turns.of_rounds(case, seed)
    null = turns.permuted(case, found[OURS]["turn"], seed)
    return [*(_mean("chance", metric, values, case, seed) for metric, values in turns.chances(case).items()),
            _mean("parties permuted", "party right", null, case, seed),
            *chain.from_iterable(_scored(title, scores, case, seed) for title, scores in found.items())]


def peers(seed: int) -> list[dict]:
    """Return the same of slow methods, most of them other libraries', on fewer conversations."""
    case = _case(FEWER, seed)
    found = turns.scores_of(case, seed, turns.SLOW)
    return [*chain.from_iterable(_scored(title, scores, case, seed) for title, scores in found.items())]


def _case(n: int, seed: int) -> turns.Case:
    own = load_or_train(OWN, progress=False)
    return turns.Case(own.model, own.data.build("test", n, seed))


def _scored(title: str, scores: dict[str, np.ndarray] | str, case: turns.Case, seed: int) -> list[dict]:
    if isinstance(scores, str):
        return [{**line(title, "does not run", Interval(np.nan, np.nan, np.nan, 0)), "note": scores}]
    return [_mean(title, metric, of(scores[by], case.truth[by]), case, seed)
            for metric, (by, of) in turns.METRICS.items() if by in scores]


def _mean(title: str, metric: str, values: np.ndarray, case: turns.Case, seed: int) -> dict:
    return line(title, metric, mean_interval(values[case.right], seed, groups=case.batch.unit[case.right]))


# Which modalities decide


def of_subsets(model: nn.Module, batch: Batch, target: int | None = None, baseline: str | None = None,
               donors: dict | None = None) -> tuple[Tensor, Tensor]:
    """Return the evidence with every subset of the modalities, (N, 8), and the class that is followed, (N,)."""
    inputs = batch.inputs()
    whole = Groups(MODALITIES, {name: torch.full((inputs[name].shape[1],), i) for i, name in enumerate(MODALITIES)})
    game = Game(model, inputs, turns.modalities(model), players=whole, baselines=baseline, donors=donors, target=target,
                progress=False)
    return game.values_of_all(), game.target


def subsets(seed: int) -> list[dict]:
    """Return how often the verdict, and the paper's rule, name the modalities that decide the conversations of a kind."""
    own = load_or_train(OWN, progress=False)
    told = {"verdict": [], "paper's rule": []}
    for kind in KINDS:
        for i in range(JUDGED):
            batch = own.data.build("test", EACH, 2000 * (seed + 1) + i, kinds=(kind,))
            told["verdict"].append((kind, *_of_verdict(own.model, own.data, batch, kind, seed)))
            if i < RULED:
                told["paper's rule"].append((kind, *_of_rule(own.model, batch, kind, seed)))
    lines = []
    for title, answers in told.items():
        kinds, right, alarm = (np.array(part) for part in zip(*answers))
        lines += [line(title, "subset right", share_interval(right.sum(), len(right))),
                  line(title, "subset false alarm", share_interval(alarm.sum(), len(alarm)))]
        lines += [line(title, f"subset right, {kind}", share_interval(right[kinds == kind].sum(), (kinds == kind).sum()))
                  for kind in KINDS]
    return lines


def _of_verdict(model: nn.Module, data: Conversations, batch: Batch, kind: str, seed: int) -> tuple[bool, bool]:
    """Return whether a verdict names the modalities that decide, and whether it names what does not decide."""
    logits, donors = {}, small_talk(data, len(batch), seed)
    for baseline in (None, "data"):
        values, target = of_subsets(model, batch, baseline=baseline, donors=donors)
        signed = (values * (2 * target - 1)[:, None]).float()
        logits[baseline or "nothing"] = {
            leaving([name for i, name in enumerate(MODALITIES) if column >> i & 1], MODALITIES): signed[:, column, None]
            for column in range(2 ** len(MODALITIES))}
    found = judging.verdict(logits, MODALITIES, target, groups=batch.unit, seed=seed)
    return judged(found.subset, found.terms, kind)


def small_talk(data: Conversations, n: int, seed: int) -> dict[str, Tensor]:
    """Return conversations in which nobody says, shows or dials a number: what to borrow from to hide without a trace."""
    batch = data.build("test", -(-n // UNITS) * UNITS, seed + 777)
    given = batch.given | (batch.party > 0)[:, :, None]
    return replace(batch.emptied(), given=given).select(range(n)).inputs()


def judged(subset: tuple[str, ...], terms: tuple[tuple[str, ...], ...], kind: str) -> tuple[bool, bool]:
    """Return whether the modalities that are said to decide are those of a kind, and whether something else is named.

    Of redundant conversations each modality decides for itself, and an interaction of them would be a false alarm. A verdict
    that cannot tell names nothing.
    """
    deciding = KIND_MODALITIES[kind]
    largest = 1 if kind == "redundant" else len(deciding)
    alarm = any(len(part) > largest or not set(part) <= set(deciding) for part in terms)
    alarm = alarm or not set(subset) <= set(deciding)
    return set(subset) == set(deciding) and not alarm, alarm


def _of_rule(model: nn.Module, batch: Batch, kind: str, seed: int) -> tuple[bool, bool]:
    """Return the same of the paper's rule, which reads the norms of the rounds."""
    case = turns.Case(model, batch)
    record = rounds(model, case.inputs, case.modalities, baselines=[case.question.baselines], pick=None, progress=False,
                    seed=seed)
    answer = record.paper_rule(classes=False)
    terms = {"both only": (MODALITIES,), "either": tuple((name,) for name in MODALITIES)}.get(answer, ((answer.split()[0],),))
    return judged(tuple(name for part in terms for name in part), terms, kind)


def order_three(seed: int) -> list[dict]:
    """Return how often the dividend of all three modalities has the sign of the answer, where parity decides."""
    own = load_or_train(OWN, progress=False)
    lines = []
    for baseline in (None, "data"):
        batch = own.data.build("test", PARITIES, seed + 1, kinds=("parity",))
        donors = small_talk(own.data, PARITIES, seed) if baseline else None
        values, _ = of_subsets(own.model, batch, 1, baseline, donors)
        right = (dividends(values.numpy())[:, -1] > 0) == batch.labels
        title = "dividends" if baseline is None else "dividends, small talk"
        lines.append(line(title, "order 3 sign", mean_interval(right, seed, groups=batch.unit)))
    return lines


PARTS: tuple[Callable[[int], list[dict]], ...] = (explained, peers, order_three, subsets, accuracies, without)


def measured(seed: int) -> pd.DataFrame:
    """Return all lines; a run that was cut off goes on where it stopped."""
    folder = embedded_folder().parent / "_build" / "conversations"
    same, lines = code_hash(Path(__file__)), []
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        kept = folder / f"{same}-{seed}-{part.__name__}.json"
        if not kept.is_file():
            started = time.perf_counter()
            found = part(seed)
            print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", flush=True)
            write_whole(kept, lambda path, found=found: path.write_text(json.dumps(found, default=float), "utf-8"))
        lines += json.loads(kept.read_text("utf-8"))
    return pd.DataFrame(lines)


def rows(seed: int = 0) -> list[dict]:
    """Measure all, keep the table, and return the figures."""
    table = measured(seed)
    columns = ["method", "title", "metric", "value", "low", "high", "n"]
    write_whole(embedded_folder() / "results" / TABLE,
                lambda part: table[columns].to_csv(part, index=False, float_format="%.4g"))
    return figures(table)


def figures(table: pd.DataFrame) -> list[dict]:
    """Return the rows of the table of figures."""
    by = {metric: of.set_index("title") for metric, of in table.groupby("metric", sort=False)}

    def row(key: str, metric: str, title: str, what: str) -> dict:
        one = by[metric].loc[title]
        return {"id": key, "value": float(one.value), "low": float(one.low), "high": float(one.high), "n": int(one.n),
                "unit": what}

    def best(metric: str, among: list[str], middle: Callable = max) -> str:
        return middle((title for title in among if title in by[metric].index), key=lambda title: by[metric].value[title])

    accuracy = "share of held-out conversations that are answered rightly"
    found = [row("conversations.accuracy", "accuracy", SIBLINGS[OWN], accuracy)]
    found += [row(f"{name.replace('_', '.')}.accuracy", "accuracy", title, f"{accuracy}, {title}")
              for name, title in SIBLINGS.items() if name != OWN]
    worst = min((f"accuracy, {kind}" for kind in KINDS), key=lambda metric: by[metric].value[SIBLINGS[OWN]])
    found.append(row("conversations.worst_kind", worst, SIBLINGS[OWN], f"{accuracy}, {worst.split(', ')[1]}"))
    for key, many in (("unimodal", 1), ("bimodal", 2)):
        titles = [" and ".join(only) + " alone" for only in combinations(MODALITIES, many)]
        for end, metric in (("", "accuracy"), (".where_more_decide", "accuracy where more decide"),
                            (".best_possible", "best possible accuracy where more decide")):
            title = best(metric, titles)
            found.append(row(f"conversations.{key}{end}", metric, title, f"{metric}, best model of {many} of three: {title}"))
    others = {"chance": "chance", "last_turn": "the last turn", "previous_turn": "the turn before", "loudness": "loudness",
              "motion": "motion", "random": "random", "permuted": "parties permuted"}
    ours = [*turns.METHODS, *turns.SLOW, "cross gradient"]
    for key, metric in (("turn.recall", "turn recall"), ("turn.reciprocal_rank", "turn reciprocal rank"),
                        ("chunk.recall", "chunk recall"), ("chunk.reciprocal_rank", "chunk reciprocal rank"),
                        ("time.overlap", "time overlap"), ("party.right", "party right")):
        title = best(metric, ours)
        found.append(row(key, metric, title, f"{metric} of the best method, {title}; conversations answered rightly"))
        title = best(metric, list(ROUNDS))
        found.append(row(f"{key}.rounds", metric, title, f"{metric} of the best of the four rounds, {title}"))
        found += [row(f"{key}.{end}", metric, title, f"{metric}, {title}")
                  for end, title in others.items() if title in by[metric].index]
    found += [row("subset.right", "subset right", "verdict", f"share of verdicts on {EACH} conversations of a kind that name "
                  "the modalities that decide"),
              row("subset.false_alarms", "subset false alarm", "verdict", "share of verdicts that name what does not decide"),
              row("subset.right.norm_rule", "subset right", "paper's rule", "the same, of the paper's rule of norms"),
              row("subset.false_alarms.norm_rule", "subset false alarm", "paper's rule", "the same, of the rule of norms"),
              row("order3.sign", "order 3 sign", "dividends", "share of parities whose dividend of three modalities has the "
                  "sign of the answer")]
    return found
