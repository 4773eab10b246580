"""Methods by metrics by models, with what each method costs beside its scores: ``data/results/leaderboard.csv``.

``python -m crossexplain bench leaderboard`` takes about ten minutes of one core and is resumable: each model's part is
kept under ``_build/leaderboard``. Other libraries' methods come from :mod:`crossexplain.evaluation.peers`; they are asked on
fewer pairs, as what is done through masks is asked of the whole model.
"""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from crossexplain.bench import versions
from crossexplain.book.execute import digest
from crossexplain.data import collages, controls, digits
from crossexplain.evaluation import leaderboard, peers
from crossexplain.evaluation.intervals import mean_interval
from crossexplain.evaluation.leaderboard import METHODS, METRICS, Asked, explain
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.views import Tokens, Vectors
from crossexplain.recipes import controls as recipe
from crossexplain.recipes.collages import load_or_train, look
from crossexplain.recipes.controls import BehindTower, prepare, train

TABLE, PAIRS, TRAINING = "leaderboard.csv", 128, 8000
MODELS = {  # name: control and architecture; None is the model of chapters 3 and 4
    "collages, early fusion": None,
    "collages, dual encoder": ("shortcut", "dual encoder", 0.0),  # a shortcut in none of the pairs is the matching task
    "control: exclusive or": ("both", "early fusion", 1.0),
    "control: added": ("additive", "late fusion", 1.0),
    "control: sentence alone": ("shortcut", "early fusion", 1.0),
}
MATCHING = {name for name, of in MODELS.items() if of is None or of[2] == 0}  # where what decides is what a person points at
PEERS = {  # name here: name in the registry; the slow ones on the matching models alone
    "gradient SHAP (Captum)": "gradient shap", "integrated gradients (Captum)": "integrated gradients",
    "DeepLIFT (Captum)": "deeplift", "occlusion (Captum)": "occlusion", "Grad-CAM": "grad-cam",
    "attention relevance": "attention-relevance", "KernelSHAP (shapiq)": "shapiq shapley", "KernelSHAP (Captum)": "kernel shap",
    "Shapley sampling (Captum)": "shapley sampling",
}
SLOW, PEER_PAIRS = ("KernelSHAP (Captum)", "Shapley sampling (Captum)"), 64


def asked_of(name: str, seed: int, pairs: int = PAIRS) -> Asked:
    """Return a model and held-out pairs."""
    trained = load_or_train(progress=False)
    if MODELS[name] is None:
        test = collages.build(trained.digits, pairs, "test", seed + 1)
        return Asked(BehindTower(trained.model).eval(), look(trained.model, test).inputs["seen"].reshape(-1, 4, 10), test)
    kind, architecture, p = MODELS[name]
    prepared = prepare(kind, trained.digits, trained.model.tower, seed, pairs=TRAINING, held_out=max(256, pairs), p=p)
    control = train(kind, trained.digits, trained.model.tower, seed, architecture=architecture, p=p, prepared=prepared)
    return Asked(control.fusion, control.seen[:pairs], control.test.select(range(pairs)))


def lines_of(name: str, seed: int) -> list[dict]:
    """Return one line for each method and metric."""
    asked, lines = asked_of(name, seed), []
    _ = asked.table
    for method in METHODS:
        lines += scored(name, asked, method, seed, *explain(asked, method, seed))
    few = Asked(asked.model, asked.seen[:PEER_PAIRS], asked.test.select(range(PEER_PAIRS)))
    for method, key in PEERS.items():
        if method in SLOW and name not in MATCHING:
            continue
        modalities = [Vectors("image", "seen"), Tokens(layer=asked.model.text_layer)]
        try:
            found = peers.explain(asked.model, {"seen": few.seen, "tokens": few.tokens}, modalities, key, seed=seed)
        except peers.CannotRun as reason:
            lines.append({"model": name, "method": method, "seed": seed, "note": str(reason)})
            continue
        scores = few.joint(*(found.values[part].nan_to_num().numpy() for part in ("image", "text")))
        lines += scored(name, few, method, seed, scores, found.passes, found.seconds / len(few))
    return lines


def scored(name: str, asked: Asked, method: str, seed: int, scores: np.ndarray, passes: float, seconds: float) -> list[dict]:
    """Return one line for each metric that can say something."""
    quadruple = np.arange(len(asked)) // 4 if name in MATCHING else None  # four pairs share two pictures and two sentences
    lines = []
    for metric, of in METRICS.items():
        if metric.startswith("deciding") and name not in MATCHING:
            continue  # what decides a control is not what decides the matching task
        values = of(asked, scores)
        if not np.isnan(values).all():
            lines.append({"model": name, "method": method, "metric": metric,
                          **mean_interval(values, seed, groups=quadruple)._asdict(), "passes": passes, "seconds": seconds,
                          "seed": seed})
    return lines


def measured(seed: int) -> pd.DataFrame:
    """Return all lines; a run that was cut off goes on where it stopped."""
    folder = embedded_folder().parent / "_build" / "leaderboard"
    code = digest(Path(__file__), *(Path(module.__file__) for module in (leaderboard, controls, collages, digits, recipe)))[:12]
    lines = []
    for number, name in enumerate(tqdm(MODELS, desc="models")):
        kept = folder / f"{code}-{seed}-{number}.json"
        if not kept.is_file():
            found = lines_of(name, seed)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, lambda part, found=found: part.write_text(json.dumps(found, default=float), "utf-8"))
        lines += json.loads(kept.read_text("utf-8"))
    return pd.DataFrame(lines)


def rows(seed: int = 0) -> list[dict]:
    """Measure all and keep the table; return the best method of each metric on the model of chapters 3 and 4."""
    table = measured(seed).assign(date=time.strftime("%Y-%m-%d", time.gmtime()), versions=versions())
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))
    first = table[(table.model == next(iter(MODELS))) & ~table.method.str.startswith("baseline")]
    found = []
    for metric, of in first.groupby("metric", sort=False):
        if metric == "near exact":
            of = of[~of.method.str.endswith("exact")]
        best = of.loc[of.value.idxmax()]
        key = metric.replace(", ", "_").replace(" ", "_")
        found.append({"id": f"leaderboard.{key}.best", "value": float(best.value), "low": float(best.low),
                      "high": float(best.high), "n": int(best.n), "unit": f"{metric}: {best.method}, {best.passes:.0f} passes"})
    return found
