"""Can an explanation tell a model that matches from one that was taught by data in which the sentence gives much away?

Pairs of models of one architecture and seed: one trained on balanced collages, one on collages of which the sentence
gives the label away in a share ``p``. Both are asked about the *same* held-out pairs of the second kind, which is what
an auditor has who was handed the data along with the model. Each method says one number of a model; the area under the
ROC curve is how often the shortcut's number is the higher one. ``python -m crossexplain bench pure_shortcut`` takes about
twelve minutes of one core and is resumable: what was measured is kept under ``_build/pure_shortcut``.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.studies.architectures import train
from benchmarks.studies.permutations import shapley_values
from crossexplain.data import digits
from crossexplain.evaluation.modality_shares import intershap, perceptual_scores, size_shares
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.modalities import Tokens, Vectors
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import FULL, NOTHING
from crossexplain.recipes import load_or_train
from crossexplain.recipes.controls import Control, prepare
from crossexplain_book.bench import code_hash

ARCHITECTURES, SHARES, SEEDS = ("early fusion", "dual encoder"), (0.25, 0.5, 0.75, 1.0), 6
PAIRS, ASKED, EXPLAINED, ORDERS = 8000, 256, 64, 8  # to train on, held out, with Shapley values, orders of the features
BASELINE = {"image": "zero", "text": "mask"}
TABLE = "pure_shortcut.csv"
# What each method says of a model: the higher, the more it speaks for a model that only reads. Fixed beforehand.
METHODS = {
    "wrong here": "wrong on these very pairs: no explanation at all",
    "wrong on balanced": "wrong on balanced pairs: needs other data, but no explanation",
    "gradient share": "text's share of the gradient norms, nothing masked",
    "norm ratio": "text's gradient norm with the picture covered, as a multiple of round 1: the paper's reading",
    "unflipped": "predictions that stay when the picture is covered",
    "MM-SHAP": "text's share of the Shapley values",
    "InterSHAP": "1 - the interaction's share of the logit's parts, example by example",
    "text accounts for": "share of the logit's variation that the sentence alone accounts for: what the verdict reads",
    "perceptual": "accuracy that stays when pictures are dealt out anew",
}


def said(model, asked: Control, seed: int) -> dict[str, float]:
    """Return what each method says of a model, in the order of ``METHODS``."""
    inputs, labels = {"images": asked.seen, "tokens": asked.test.tokens()}, torch.from_numpy(asked.test.labels)
    modalities = [Vectors("image", "seen"), Tokens(layer=model.text_layer)]
    record = rounds(model, {"seen": asked.seen, "tokens": inputs["tokens"]}, modalities, baselines=[BASELINE, "data"],
                    pick=None, rows=8192, progress=False, seed=seed)
    first = record.baselines[0]
    norms, verdict = record.passes[first, FULL].norms, record.verdict(draws=50)
    parts = [record.margin("data", view) for view in (NOTHING, "text masked", "image masked", FULL)]
    few = {key: value[:EXPLAINED] for key, value in inputs.items()}
    values = shapley_values(model, few, [Vectors("image", "images"), Tokens(layer="")], BASELINE, ORDERS, seed)
    right = ((record.passes[first, FULL].logits[:, 0] > 0).numpy() == asked.test.labels).mean()
    return {
        "wrong here": 1 - right,
        "gradient share": float((norms["text"] / (norms["text"] + norms["image"])).nanmean()),
        "norm ratio": float(np.nanmedian(record.norm_ratio(first, "text"))),
        "unflipped": 1 - record.flips(first, "image masked").mean(),
        "MM-SHAP": float(np.nanmean(size_shares(values)["text"].numpy())),
        "InterSHAP": 1 - intershap(np.stack(parts, axis=1)).local,
        "text accounts for": min(reach["text"].value for reach in verdict.reach.values()),
        "perceptual": right - perceptual_scores(model, inputs, labels, seed=seed)["image"].value,
    }


def seed_lines(seed: int, bank: digits.Digits, tower) -> list[dict]:
    """Train the models of one seed and ask all methods about them."""
    data = {p: prepare("shortcut", bank, tower, seed, pairs=PAIRS, held_out=ASKED, p=p) for p in (0.0, *SHARES)}
    lines = []
    for architecture in ARCHITECTURES:
        trained = {p: train("shortcut", bank, tower, seed, architecture=architecture, p=p, prepared=of)
                   for p, of in data.items()}
        for p in SHARES:
            for kind, control in (("pure", trained[0.0]), ("shortcut", trained[p])):
                with torch.no_grad():
                    balanced = (control.fusion(data[0.0].seen, data[0.0].test.tokens()) > 0).numpy() == data[0.0].test.labels
                lines.append({"architecture": architecture, "p": p, "seed": seed, "model": kind,
                              **said(control.fusion, trained[p], seed), "wrong on balanced": 1 - balanced.mean()})
    return lines


def measured(seeds: range) -> pd.DataFrame:
    """Return one line for each model and share; a run that was cut off goes on where it stopped."""
    folder = embedded_folder().parent / "_build" / "pure_shortcut"
    same = code_hash(Path(__file__))
    bank, tower, lines = digits.load("sklearn"), load_or_train("collages", progress=False).model.tower, []
    for seed in tqdm(seeds, desc="seeds"):
        kept = folder / f"{same}-{seed}.json"
        if not kept.is_file():
            found = seed_lines(seed, bank, tower)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, lambda part, found=found: part.write_text(json.dumps(found, default=float), "utf-8"))
        lines += json.loads(kept.read_text("utf-8"))
    return pd.DataFrame(lines)[["architecture", "p", "seed", "model", *METHODS]]


def auroc(pure, shortcut) -> float:
    """Return how often a shortcut's number is higher than a pure model's, ties counted half."""
    difference = np.asarray(shortcut)[:, None] - np.asarray(pure)[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def areas(table: pd.DataFrame, method: str) -> pd.Series:
    """Return the area of each share and architecture: numbers of different architectures are not compared."""
    return table.groupby(["architecture", "p"]).apply(
        lambda part: auroc(part[method][part.model == "pure"], part[method][part.model == "shortcut"]), include_groups=False)


def rows(seed: int = 0) -> list[dict]:
    """Measure six seeds from ``seed`` on and keep every model's line as ``data/results/pure_shortcut.csv``."""
    table = measured(range(seed, seed + SEEDS))
    write_whole(embedded_folder() / "results" / TABLE, lambda part: table.to_csv(part, index=False, float_format="%.4g"))
    found, unit = [], "AUROC, mean (range) of {} shares and architectures, {} models"
    for method in METHODS:
        each, key = areas(table, method), method.lower().replace(" ", "_").replace("-", "_")
        found.append({"id": f"pure_shortcut.{key}.auroc", "value": float(each.mean()), "low": float(each.min()),
                      "high": float(each.max()), "n": len(table), "unit": unit.format(len(each), len(table))})
    best = max(found[2:], key=lambda row: row["value"])  # of those that explain
    return [*found, {**best, "id": "pure_shortcut.best_auroc", "unit": best["unit"] + ": " + best["id"].split(".")[1]}]
