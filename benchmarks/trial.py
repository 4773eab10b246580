"""The verdict on trial: controls of known answer by architecture, and every score that claims to answer the same question.

Each method is turned into an answer by thresholds that are set on ``CHOSEN_ON`` alone (other seeds, two of the four
architectures) and judged on seeds 0 to 19 of all four: two architectures nobody has seen, and new seeds of the others.
``python -m crossexplain bench trial`` is resumable: what was judged is kept under ``_build/trial``.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from benchmarks.studies import architectures as heads
from benchmarks.studies import permutations
from benchmarks.studies.architectures import ARCHITECTURES, UNLEARNABLE, train
from benchmarks.studies.disagreement import choose, contradictions, right
from benchmarks.studies.kept import kept_at, logits_of, views_of
from crossexplain.data import collages as pairs_of
from crossexplain.data import controls, digits
from crossexplain.evaluation import modality_shares
from crossexplain.evaluation.modality_shares import (
    emap,
    emap_gap,
    intershap,
    intershap_values,
    perceptual_scores,
    size_shares,
)
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients import verdict as judging
from crossexplain.gradients.modalities import Tokens, Vectors
from crossexplain.gradients.record import Record
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import FULL
from crossexplain.intervals import mean_interval
from crossexplain.models.cnn_lstm import AfterTower
from crossexplain.recipes import controls as recipe
from crossexplain.recipes import load_or_train
from crossexplain.recipes.collages import look
from crossexplain.recipes.controls import Control, prepare
from crossexplain_book.bench import BenchError, row_of

CONTROLS = [("image", 1.0), ("text", 1.0), ("either", 1.0), ("both", 1.0), ("additive", 1.0),
            *(("shortcut", p) for p in (0.5, 0.75, 0.9, 1.0))]
CHOSEN_ON = {"seeds": range(100, 109), "architectures": ("early fusion", "late fusion")}
SEEDS = 20
# The first two are what ``rounds`` takes by itself. The third takes all words away, and with them the queries of a
# cross-attention: nothing of the picture can pass, and the verdict, which asks all baselines to agree, cannot tell.
BASELINES = [{"image": "zero", "text": "mask"}, "data", {"image": "zero", "text": "pad"}]
CONTRADICTING = 384  # collages on which gradient and coalition values are compared
MET = 128  # test pairs of which every picture meets every sentence
EXPLAINED, ORDERS = 48, 8  # pairs whose Shapley values MM-SHAP's share is from, and orders of the features
LEARNED = {"additive": 0.70}  # least accuracy of a model that is judged; else 0.95, of the shortcut what the sentence is worth
UNCHANGED = 0.9  # share of predictions that stay where another example's picture takes the place of the own, of "text alone"
# What each method reads. A tree of at most 6 leaves, fitted on CHOSEN_ON, makes an answer of it.
READS = {
    "norms and flips": ["norm ratio of image", "norm ratio of text", "flips, image masked", "flips, text masked"],
    "MM-SHAP": ["text share"],
    "InterSHAP": ["interaction", "image's own", "text's own"],
    "EMAP": ["emap gap"],
    "perceptual": ["perceptual of image", "perceptual of text"],
}
OURS, PADDED, RULE = "verdict", "verdict, padding too", "paper's rule"
KEYS = {OURS: "", PADDED: "padding_too.", RULE: "norm_rule.", "norms and flips": "norms_and_flips.", "MM-SHAP": "mm_shap.",
        "InterSHAP": "intershap.", "EMAP": "emap.", "perceptual": "perceptual."}
TABLE = "trial.csv"


def judged(control: Control, seed: int, p: float) -> dict:
    """Return what every method needs to judge one model, in numbers: one line.

    The logits of all views are among them, so that a verdict that was changed is read anew without training.
    """
    record = recorded(control, seed)
    first = record.baselines[0]
    line = {"control": control.kind, "p": p, "architecture": control.architecture, "seed": seed, "truth": control.answer,
            "accuracy": control.accuracy, RULE: record.paper_rule(), "logits": logits_of(record)}
    line |= {f"norm ratio of {name}": float(np.nan_to_num(np.nanmedian(record.norm_ratio(first, name)), nan=9.0))
             for name in record.modalities}
    every = met(control.fusion, control.seen[:MET], control.test.tokens()[:MET]).double().numpy()
    labels = control.test.labels[:MET]
    split = intershap(intershap_values(every))
    line |= {"interaction": split.interaction, "image's own": split.first, "text's own": split.second,
             "emap gap": emap_gap(every, labels)}
    given = {"images": control.seen, "tokens": control.test.tokens()}
    lost = perceptual_scores(control.fusion, given, torch.from_numpy(control.test.labels), seed=seed)
    line |= {f"perceptual of {name}": found.value for name, found in lost.items()}
    line["text share"] = text_share(control, seed)
    same = (every > 0) == (np.diagonal(every) > 0)[None, :]  # [i, j]: picture i with sentence j, and sentence j's own pair
    line["unchanged, another image"] = float(same.mean())
    line["unchanged, another text"] = float(((every > 0) == (np.diagonal(every) > 0)[:, None]).mean())
    return line


def read(line: dict) -> dict:
    """Return a line with what the verdict says of its logits in their place."""
    views = views_of(line["logits"])
    two = dict(list(views.items())[:2])
    verdict, padded = (judging.verdict(of, ["image", "text"], seed=line["seed"]) for of in (two, views))
    found = {OURS: verdict.answer, "support": verdict.support, PADDED: padded.answer}
    found |= {f"verdict, {baseline}": answer for baseline, answer in verdict.answers.items()}
    found |= {f"{part} accounts for": min(verdict.reach[kind][part].value for kind in two) for part in ("image", "text", "sum")}
    found |= {f"flips, {name} masked": flips.value for name, flips in verdict.flips[next(iter(two))].items()}
    return {key: value for key, value in line.items() if key != "logits"} | found


def recorded(control: Control, seed: int, baselines=BASELINES) -> Record:
    """Run the project's rounds on the test pairs."""
    modalities = [Vectors("image", "seen"), Tokens(layer=control.fusion.text_layer)]
    inputs = {"seen": control.seen, "tokens": control.test.tokens()}
    return rounds(control.fusion, inputs, modalities, baselines=baselines, pick=None, rows=8192, progress=False, seed=seed)


@torch.no_grad()
def met(model: nn.Module, seen: Tensor, tokens: Tensor) -> Tensor:
    """Return the logits of every picture with every sentence, (N, N); each is seen or read once."""
    seen, said = model.see(seen), model.read(tokens)
    rows = [model.match(seen[i : i + 1].expand(len(said), *seen.shape[1:]), said) for i in range(len(seen))]
    return torch.stack(rows)


def text_share(control: Control, seed: int) -> float:
    """Return MM-SHAP's share: cells are set to zero and words to the mask, Shapley values are sampled."""
    values = shapley(control.fusion, control.seen[:EXPLAINED], control.test.tokens()[:EXPLAINED], ORDERS, seed)
    return float(np.nanmean(size_shares(values)["text"].numpy()))


def shapley(model: nn.Module, seen: Tensor, tokens: Tensor, orders: int, seed: int) -> dict[str, Tensor]:
    """Sample the Shapley values of cells and words."""
    sides = [Vectors("image", "images"), Tokens(layer="")]
    return permutations.shapley_values(model, {"images": seen, "tokens": tokens}, sides, BASELINES[0], orders, seed)


def models(seeds: range, architectures: tuple[str, ...], kinds: list = CONTROLS) -> Iterator[tuple[str, float, int, str]]:
    """Yield control, share, seed and architecture of every model, those of one data set together."""
    for seed, (kind, p), architecture in product(seeds, kinds, architectures):
        if (kind, architecture) not in UNLEARNABLE:  # its answer would not be known
            yield kind, p, seed, architecture


def lines_of(seeds: range, architectures: tuple[str, ...], kinds: list = CONTROLS) -> list[dict]:
    """Judge every model in order, or take up what was kept of it."""
    folder, bank, last, lines = kept_in(), digits.load("sklearn"), None, []
    tower = load_or_train("collages", progress=False).model.tower
    for kind, p, seed, architecture in models(seeds, architectures, kinds):
        kept = folder / f"{kind} {p} {seed} {architecture}.json"
        if not kept.is_file():
            if last != (kind, p, seed):
                prepared, last = prepare(kind, bank, tower, seed, p=p), (kind, p, seed)
            line = judged(train(kind, bank, tower, seed, architecture=architecture, p=p, prepared=prepared), seed, p)
            write_whole(kept, lambda part, line=line: part.write_text(json.dumps(line, default=float), "utf-8"))
        lines.append(json.loads(kept.read_text("utf-8")))
    return lines


def kept_in() -> Path:
    """Return the folder in which what was judged of each model is kept: another one for other code."""
    return kept_at("trial", BASELINES, MET, EXPLAINED, ORDERS, controls, digits, pairs_of, recipe, heads, modality_shares,
                   permutations, judged, recorded, met, text_share, shapley).with_suffix("")


def learned(table: pd.DataFrame) -> pd.Series:
    """Return which models learned the control: of a shortcut, at least what the sentence is worth, (1 + p) / 2 right."""
    worth = np.where(table.control == "shortcut", (1 + table.p) / 2 - 0.07, table.control.map(LEARNED).fillna(0.95))
    return table.accuracy >= worth


def known(table: pd.DataFrame) -> pd.Series:
    """Return of which models the answer is known: they learned the control, and do what it asks for.

    Of a shortcut that gives away less than all, the data do not say whether a model learned to match as well. It counts as
    "text alone" if its predictions stay when the picture is another's; the others, which use both, have no known answer:
    they are left out, counted, and ``rows`` says what would come out if they were counted as "text alone".
    """
    found = learned(table)
    stays = {"text alone": table["unchanged, another image"], "image alone": table["unchanged, another text"]}
    for truth, unchanged in stays.items():
        found &= (table.truth != truth) | (unchanged >= UNCHANGED)
    return found


def answers(chosen: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the answer of each method on each line of the table; thresholds come from ``chosen``."""
    found = {name: table[name] for name in (OURS, PADDED, RULE)}
    for method, reads in READS.items():
        tree = DecisionTreeClassifier(max_leaf_nodes=6, min_samples_leaf=5, random_state=0)
        found[method] = tree.fit(chosen[reads].fillna(0), chosen.truth).predict(table[reads].fillna(0))
    return pd.DataFrame(found, index=table.index)


def confusion(table: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """Return how often each method gives each answer, by truth and architecture: the table that is kept."""
    parts = []
    for method in said:
        counted = pd.DataFrame({"truth": table.truth, "architecture": table.architecture, "answer": said[method]})
        part = counted.value_counts().rename("models").reset_index()
        parts.append(part.assign(method=method))
    columns = ["method", "architecture", "truth", "answer", "models"]
    return pd.concat(parts)[columns].sort_values(columns[:4]).reset_index(drop=True)


def costs(seed: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    """Return passes an example (one with a gradient counts as three) and seconds of each method, called on bare models.

    Of one model of each architecture. InterSHAP and EMAP are given the test pairs as donors, as they are judged
    here; InterSHAP's authors take 1,000 donors.
    """
    bank, tower = digits.load("sklearn"), load_or_train("collages", progress=False).model.tower
    prepared = prepare("text", bank, tower, seed)
    found = [cost(train("text", bank, tower, seed, architecture=architecture, prepared=prepared), seed)
             for architecture in ARCHITECTURES]
    return {name: tuple(zip(*(of[name] for of in found))) for name in found[0]}


def cost(control: Control, seed: int) -> dict[str, tuple[float, float]]:
    """Return passes and seconds an example of each method on one model."""
    whole = replace(control, fusion=Whole(control.fusion))
    seen, tokens = control.seen[:MET], control.test.tokens()[:MET]
    given, labels = {"images": seen, "tokens": tokens}, torch.from_numpy(control.test.labels[:MET])
    with Counter(control.fusion) as counter:
        return {OURS: counter.of(lambda: recorded(control, seed, BASELINES[:2]).verdict(), len(control.seen), 3),
                "InterSHAP": counter.of(lambda: intershap(intershap_values(met(whole.fusion, seen, tokens))), MET),
                "EMAP": counter.of(lambda: emap(met(whole.fusion, seen, tokens)), MET),
                "perceptual": counter.of(lambda: perceptual_scores(whole.fusion, given, labels, seed=seed), MET),
                "MM-SHAP": counter.of(lambda: text_share(whole, seed), EXPLAINED)}


class Whole(nn.Module):
    """A model that is not known to split: each pair goes through all of it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.match = model

    def see(self, seen: Tensor) -> Tensor:
        """Return the picture itself."""
        return seen

    def read(self, tokens: Tensor) -> Tensor:
        """Return the words themselves."""
        return tokens


class Counter:
    """Counts the rows that go through a model."""

    def __init__(self, model: nn.Module):
        self.model, self.rows = model, 0

    def __enter__(self) -> "Counter":
        self.hook = self.model.register_forward_pre_hook(self._count, with_kwargs=True)
        return self

    def __exit__(self, *_) -> None:
        self.hook.remove()

    def _count(self, module, given, named) -> None:
        self.rows += len(next(iter((*given, *named.values()))))

    def of(self, call: Callable[[], object], examples: int, weight: int = 1) -> tuple[float, float]:
        """Return passes and seconds an example."""
        self.rows, started = 0, time.perf_counter()
        call()
        return weight * self.rows / examples, (time.perf_counter() - started) / examples


def contradicted(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return by modality where gradient and Shapley values contradict each other on collages, and what does decide.

    Sampled Shapley values of the model of chapters 3 and 4 over four cells and all words, zero and the mask standing in;
    examples in which all or none of a modality's features decide are left out, as nothing can be wrong about them.
    """
    trained = load_or_train("collages", progress=False)
    model, test = AfterTower(trained.model).eval(), pairs_of.build(trained.data, CONTRADICTING, "test", seed)
    seen, tokens = look(trained.model, test).inputs["seen"].reshape(-1, 4, 10), test.tokens()
    record = rounds(model, {"seen": seen, "tokens": tokens}, [Vectors("image", "seen"), Tokens(layer=model.text_layer)],
                    baselines=BASELINES[:1], pick=None, rows=4096, progress=False, seed=seed)
    values = shapley(model, seen, tokens, 4 * ORDERS, seed)
    gradient = record.passes[record.baselines[0], FULL].importance
    found, deciding = {}, {"image": torch.from_numpy(test.deciding_cells), "text": torch.from_numpy(test.deciding_tokens)}
    for name, coalition in values.items():
        present, decides = record.features[name], deciding[name]
        mixed = (decides & present).any(dim=1) & (~decides & present).any(dim=1)
        found[name] = contradictions(gradient[name], coalition, present & mixed[:, None])
    return found, deciding


def disagreement(seed: int) -> list[dict]:
    """Return how often gradient and coalition values contradict each other, and how often each way to choose was right."""
    rule = choose(*contradicted(CHOSEN_ON["seeds"][0]))
    found, deciding = contradicted(seed)
    example = {name: np.nonzero(of.numpy())[0] for name, of in found.items()}

    def row(key: str, ways: dict[str, str], unit: str) -> dict:
        hits = [right(found[name], deciding[name], way) for name, way in ways.items()]
        return _row(f"disagreement.{key}", np.concatenate(hits), np.concatenate([example[name] for name in ways]), unit)

    lines = [row("rule.right", rule, "share of contradictions; believed: " + ", ".join(map(" ".join, rule.items())))]
    lines += [row(f"{way}.right", dict.fromkeys(found, way), "share of contradictions") for way in ("coalition", "gradient")]
    lines += [row(f"{way}.right.{name}", {name: way}, f"share of contradictions in the {name}")
              for name in found for way in dict.fromkeys(("coalition", rule[name]))]
    return lines + [_row(f"disagreement.{name}", (of != 0).double().mean(dim=1), np.arange(len(of)),
                         f"share of features of the {name} about which gradient and Shapley values contradict each other")
                    for name, of in found.items()]


def _row(name: str, values, groups, unit: str) -> dict:
    interval = mean_interval(np.asarray(values, dtype=float), groups=groups)
    return {"id": name, "value": interval.value, "low": interval.low, "high": interval.high, "n": len(values), "unit": unit}


def rows(seed: int = 0) -> list[dict]:
    """Judge 20 seeds from ``seed`` on and keep the confusion table as ``data/results/trial.csv``."""
    seeds = range(seed, seed + SEEDS)
    if set(seeds) & set(CHOSEN_ON["seeds"]):
        raise BenchError(f"got seeds {seed} to {seeds[-1]}; thresholds were chosen on {CHOSEN_ON['seeds'][0]} to "
                         f"{CHOSEN_ON['seeds'][-1]}: start at another, so that none of these is among them.")
    chosen = pd.DataFrame(map(read, lines_of(**CHOSEN_ON)))
    everything = pd.DataFrame(map(read, lines_of(seeds, tuple(ARCHITECTURES))))
    chosen, table = chosen[known(chosen)], everything[known(everything)]
    said = answers(chosen, table)
    kept = confusion(table, said)
    write_whole(embedded_folder() / "results" / TABLE, lambda part: kept.to_csv(part, index=False))
    found = [share("trial.known", known(everything), "share of models that learned the control and do what it asks for",
                   everything), *doubtful(everything)]
    nothing_interacts = table.truth != "both only"
    for method, key in KEYS.items():
        found.append(share(f"trial.{key}right", said[method] == table.truth, "share of models", table))
        found.append(share(f"trial.{key}false_alarms", (said[method] == "both only")[nothing_interacts],
                           "share of models in which nothing interacts", table))
    found.append(share("trial.abstained", said[OURS] == "cannot tell", "share of models", table))
    for architecture in ARCHITECTURES:
        of_one = table.architecture == architecture
        found.append(share(f"trial.right.{architecture.replace(' ', '_').replace('-', '_')}",
                           (said[OURS] == table.truth)[of_one], "share of models", table))
    for method, (passes, seconds) in costs(seed).items():
        for what, values, unit in (("passes", passes, "bare passes an example"), ("seconds", seconds, "s an example")):
            found.append(row_of(f"trial.{KEYS[method]}{what}", values, unit, np.mean))
    return found + disagreement(seed)


def whole_truth(table: pd.DataFrame) -> pd.Series:
    """Return what models rest on, those among them whose sentence gives a part of the predictions and the pair the rest.

    Of a shortcut these are the models that are not :func:`known`: one answer does not fit, and which part it is was measured
    by giving every sentence every picture.
    """
    return table.truth.where(known(table), judging.partly("text"))


def doubtful(everything: pd.DataFrame) -> list[dict]:
    """Return what comes out for all models that learned.

    Those that learned a shortcut and yet use the picture are counted as "text alone", and under ``all`` as what they are.
    """
    table = everything[learned(everything)]
    alone, truth = table.truth != "both only", whole_truth(table)
    return [share("trial.mixed", ~known(table), "share of models that learned, but use both where the text would do", table),
            share("trial.mixed_too.right", table[OURS] == table.truth, "share of models, these as text alone", table),
            share("trial.mixed_too.false_alarms", (table[OURS] == "both only")[alone],
                  "share of models in which nothing should interact, these among them", table),
            share("trial.all.right", table[OURS] == truth, "share of models, these as partly text, partly both", table),
            share("trial.all.false_alarms", (table[OURS] == "both only")[alone],
                  "share of models of which both only is not true, these among them", table),
            share("trial.all.abstained", table[OURS] == "cannot tell", "share of models", table)]


def share(name: str, hits: pd.Series, unit: str, table: pd.DataFrame) -> dict:
    """Return a row: the share over all, from the worst to the best seed."""
    by_seed = hits.groupby(table.seed[hits.index]).mean()
    return {"id": name, "value": float(hits.mean()), "low": float(by_seed.min()), "high": float(by_seed.max()),
            "n": len(hits), "unit": unit}
