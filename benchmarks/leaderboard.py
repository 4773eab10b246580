"""Methods by metrics by models, with what each method costs beside its scores: ``data/results/leaderboard.csv``.

``python -m crossexplain bench leaderboard`` takes about half an hour of two cores and is resumable: what was measured is
kept under ``_build/leaderboard``. All methods are asked about the same pairs; what asks them again and again, about fewer.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from benchmarks.studies import leaderboard, pointing
from benchmarks.studies.architectures import train
from benchmarks.studies.leaderboard import (
    CHANGES,
    METHODS,
    METRICS,
    OF_METHODS,
    ROAD,
    STABLE,
    STEADY,
    Case,
    changes,
    explain,
    more_methods,
    of_collages,
    of_scenes,
    sensitivity,
    stability,
)
from crossexplain.data import collages
from crossexplain.evaluation.methods import registry
from crossexplain.evaluation.task import CannotRun
from crossexplain.files import embedded_folder, write_whole
from crossexplain.intervals import mean_interval
from crossexplain.models.cnn_lstm import AfterTower
from crossexplain.recipes import load_or_train
from crossexplain.recipes.collages import look
from crossexplain.recipes.controls import prepare
from crossexplain_book.bench import code_hash
from crossexplain_book.provenance import versions

TABLE, PAIRS, FEWER, TRAINING = "leaderboard.csv", 64, 32, 8000
PROCESSES = 2
EIGEN = registry()["eigen-cam"].title  # the one map that needs no gradient
MODELS = {  # name: control, architecture and share; None is the model of chapters 3 and 4, a name a model of chapter 6
    "collages, early fusion": None,
    "collages, dual encoder": ("shortcut", "dual encoder", 0.0),  # a shortcut in none of the pairs is the matching task
    "scenes, early fusion": "fusion",
    "scenes, CLIP with convolutions": "clip_cnn",
    "scenes, CLIP": "clip_vit",
    "control: exclusive or": ("both", "early fusion", 1.0),
    "control: added": ("additive", "late fusion", 1.0),
    "control: sentence alone": ("shortcut", "early fusion", 1.0),
}
CONTROLS = {name for name in MODELS if name.startswith("control")}  # where what decides is not what a person points at
SLOW = ("KernelSHAP (Captum)", "Shapley sampling (Captum)", "pairs (shapiq)")  # are left out on the controls
ONCE = (*SLOW, "KernelSHAP (shapiq)")  # are not asked again about moved pictures and other baselines
UNTOUCHED = ("baseline: random", "bound: the best order")  # no explanation whose weights could be drawn


def cases_of(name: str, seed: int, *sizes: int) -> list[Case]:
    """Return a model and held-out pairs, the first of them for each of the sizes."""
    most = max(sizes)
    if isinstance(MODELS[name], str):
        trained = load_or_train(f"scenes_{MODELS[name]}", progress=False)
        pairs = trained.data.build("test", most, seed, "foil")
        return [of_scenes(trained.model.eval(), pairs.select(range(size))) for size in sizes]
    trained = load_or_train("collages", progress=False)
    if MODELS[name] is None:
        test = collages.build(trained.data, most, "test", seed + 1)
        seen, model = look(trained.model, test).inputs["seen"].reshape(-1, 4, 10), AfterTower(trained.model).eval()
    else:
        kind, architecture, p = MODELS[name]
        prepared = prepare(kind, trained.data, trained.model.tower, seed, pairs=TRAINING, held_out=max(256, most), p=p)
        control = train(kind, trained.data, trained.model.tower, seed, architecture=architecture, p=p, prepared=prepared)
        seen, model, test = control.seen, control.fusion.eval(), control.test
    return [of_collages(model, seen[:size], test.select(range(size))) for size in sizes]


def lines_of(name: str, seed: int) -> list[dict]:
    """Return one line for each method and metric."""
    case, fewer = cases_of(name, seed, PAIRS, FEWER)
    blank, others, moved, lines = case.redrawn(seed), fewer.hidden_otherwise(), fewer.moved(seed), []
    for method in tqdm([*METHODS, *more_methods()], desc=name, leave=False, mininterval=5):
        if method in SLOW and name in CONTROLS:
            continue
        try:
            scores, *cost = explain(case, method, seed)
        except CannotRun as reason:
            lines.append({"model": name, "method": method, "seed": seed, "note": str(reason)})
            continue
        found = {metric: of(case, scores) for metric, of in METRICS.items()
                 if not (metric.startswith("deciding") and name in CONTROLS)
                 and (metric == "joint area" or not method.startswith("bound"))}  # the bound is one of all players
        if method not in (*UNTOUCHED, *SLOW):
            found[CHANGES] = changes(case, blank, method, scores, seed)
        if method not in (*UNTOUCHED, *ONCE):
            found[STABLE] = stability(others, method, scores[:FEWER], seed)
            found[STEADY] = -sensitivity(moved, method, scores[:FEWER], seed)
        lines += scored(name, method, found, seed, *cost)
    return lines


def road_of(name: str, seed: int) -> list[dict]:
    """Return one line for each map of pixels."""
    (case,), lines = cases_of(name, seed, PAIRS), []
    known = {"random map": "baseline: random", "edges": "baseline: edges", "centre": "baseline: centre"}
    for method in tqdm([*known, *pointing.maps_of(case.model)], desc=f"{name}, {ROAD}", leave=False, mininterval=5):
        passes = 0 if method in known else 1 if method == EIGEN else 3
        lines += scored(name, known.get(method, method), {ROAD: leaderboard.road(case, method, seed)}, seed, passes, np.nan)
    return lines


def scored(name: str, method: str, found: dict[str, np.ndarray], seed: int, passes: float, seconds: float) -> list[dict]:
    """Return one line for each metric that can say something."""
    lines = []
    for metric, values in found.items():
        quadruple = None if name in CONTROLS else np.arange(len(values)) // 4  # four pairs share two pictures, two sentences
        if not np.isnan(values).all():
            lines.append({"model": name, "method": method, "metric": metric,
                          **mean_interval(values, seed, groups=quadruple)._asdict(), "passes": passes, "seconds": seconds,
                          "seed": seed})
    return lines


def measured(seed: int) -> tuple[pd.DataFrame, list[float]]:
    """Return all lines, and the seconds of each part; a run that was cut off goes on where it stopped."""
    folder = embedded_folder().parent / "_build" / "leaderboard"
    same = code_hash(Path(__file__))
    parts = [(of, name) for name in MODELS for of in (lines_of, road_of) if of is lines_of or isinstance(MODELS[name], str)]
    kept = {part: folder / f"{same}-{seed}-{number}.json" for number, part in enumerate(parts)}
    folder.mkdir(parents=True, exist_ok=True)
    # Scenes take longest: they come first.
    todo = sorted((part for part, path in kept.items() if not path.is_file()), key=lambda part: "scenes" not in part[1])
    ask = Parallel(n_jobs=PROCESSES, return_as="generator_unordered")
    asking = ask(delayed(keep)(*part, seed, kept[part]) for part in todo)
    for _ in tqdm(asking, total=len(todo), desc="parts"):
        pass
    found = [json.loads(path.read_text("utf-8")) for path in kept.values()]
    return pd.DataFrame([line for part in found for line in part["lines"]]), [part["seconds"] for part in found]


def keep(of: Callable[[str, int], list[dict]], name: str, seed: int, kept: Path) -> None:
    """Measure a part with one core, and keep its lines."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    lines = of(name, seed)
    found = {"seconds": time.perf_counter() - started, "lines": lines}
    write_whole(kept, lambda part: part.write_text(json.dumps(found, default=float), "utf-8"))


def rows(seed: int = 0) -> list[dict]:
    """Measure all and keep the table; return the best method of each metric on the model of chapters 3 and 4."""
    table, seconds = measured(seed)
    table = table.assign(date=time.strftime("%Y-%m-%d", time.gmtime()), versions=versions())
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))
    first = table[(table.model == next(iter(MODELS))) & ~table.method.str.startswith("baseline")]
    found = [{"id": "leaderboard.seconds", "value": sum(seconds) / PROCESSES, "low": max(seconds), "high": sum(seconds),
              "n": len(seconds), "unit": f"s on {PROCESSES} cores; low: the longest part, high: on one core"}]
    for metric, of in first.groupby("metric", sort=False):
        if metric in OF_METHODS:
            continue
        of = of[~of.method.str.startswith("bound")]
        if metric == "near exact":
            of = of[~of.method.str.endswith("exact")]
        best = of.loc[of.value.idxmax()]
        key = metric.replace(", ", "_").replace(" ", "_")
        found.append({"id": f"leaderboard.{key}.best", "value": float(best.value), "low": float(best.low),
                      "high": float(best.high), "n": int(best.n), "unit": f"{metric}: {best.method}, {best.passes:.0f} passes"})
    return found
