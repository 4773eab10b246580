"""Which turn explanations of a reader of dialogues name, and which turn people marked as the cause of an emotion.

The model names the emotion of a turn; methods say which turns of the window speak for the emotion that people marked. People
said what caused the emotion of a character; that is no statement about the model, and the two may differ while both are right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.turns import recall, reciprocal_rank
from crossexplain.evaluation.methods import explain
from crossexplain.evaluation.task import CannotRun
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Vectors
from crossexplain.gradients.question import Question
from crossexplain.intervals import Interval, mean_interval
from crossexplain.models.dialogue import DialogueHead
from crossexplain.recipes.dialogues import TURNS, Windows

MODALITIES = ("words", "speakers")
EXACT = "exact Shapley"
METHODS = {  # title: key of the method, and its options
    "gradient norm": ("gradient norm", {}),
    "rounds 2 and 3: other masked": ("gradient norm, other masked", {}),
    "cross gradient": ("cross gradient", {}),
    "gradient x input": ("gradient x input", {}),
    "occlusion by turn": ("feature ablation", {}),
    "dividend of the turn": ("feature dividends", {}),
    EXACT: ("exact shapley", {}),
    "exact Banzhaf": ("exact banzhaf", {}),
    "sampled Shapley": ("sampled shapley", {"budget": 64}),
    "integrated gradients (Captum)": ("integrated gradients", {"n_steps": 20, "complete": False}),
    "gradient SHAP (Captum)": ("gradient shap", {}),
    "DeepLIFT (Captum)": ("deeplift", {}),
    "KernelSHAP (Captum)": ("kernel shap", {"budget": 128}),
    "Shapley sampling (Captum)": ("shapley sampling", {"budget": 128}),
    "KernelSHAP (shapiq)": ("shapiq shapley", {"budget": 128}),
}
ATTENTION = "attention relevance"
SLOW = ("KernelSHAP (Captum)", "Shapley sampling (Captum)", "KernelSHAP (shapiq)")  # asked about fewer turns
FEW = 200
SAME, BEFORE, OTHER, RANDOM = "the same turn", "the turn before", "the last turn of another speaker", "random"
CHANCE = "chance (1/T)"


@dataclass
class Case:
    """A trained head and turns with an emotion that people gave a cause, the turn itself or one before it.

    Attributes
    ----------
    model : DialogueHead
    windows : Windows
    """

    model: DialogueHead
    windows: Windows

    @classmethod
    def of(cls, model: DialogueHead, windows: Windows) -> "Case":
        """Return the case of all turns of windows that have a cause."""
        return cls(model, windows.select(np.flatnonzero(windows.causes.any(axis=1))))

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """What the head takes."""
        return self.windows.inputs()

    @cached_property
    def present(self) -> np.ndarray:
        """Which turns there are, (N, T)."""
        return (self.windows.rows >= 0).numpy()

    @cached_property
    def causes(self) -> np.ndarray:
        """Which turns people marked, (N, T)."""
        return self.windows.causes

    @cached_property
    def modalities(self) -> list[Vectors]:
        """What is said and who speaks, turn by turn; hidden, nothing is known of either."""
        return [Vectors(name, name, layout="NTD") for name in MODALITIES]

    @cached_property
    def logits(self) -> Tensor:
        """Of the whole dialogues, (N, C)."""
        with torch.no_grad():
            return self.model(**self.inputs)

    @cached_property
    def named(self) -> np.ndarray:
        """Which turns are given the emotion that people marked, (N,)."""
        return (self.logits.argmax(dim=1) == self.windows.labels).numpy()

    def scores(self, title: str, target: Tensor | None = None, seed: int = 0) -> np.ndarray:
        """Return the importance of each turn for the marked emotion, or another, by one method, (N, T); NaN for no turn."""
        target = self.windows.labels if target is None else target
        if title == ATTENTION:
            question = Question(self.model, self.inputs, self.modalities, target=target)
            place = f"{self.model.attention}#1"
            read = question.captured(layers=[self.modalities[0].layer, place])
            found = (read.activations[place] * read.gradients[place]).clamp(min=0).mean(dim=1)[:, 0].detach().numpy()
        else:
            key, options = METHODS[title]
            found = explain(self.model, self.inputs, self.modalities, key, target=target, groups=Groups(*self.windows.groups),
                            seed=seed, **options).joint().numpy()
        return np.where(self.present, found, np.nan)

    def blind(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return scores that need no model, (N, T): the last turn, the one before, the last of somebody else, a draw."""
        age = -np.abs(np.arange(TURNS) - (TURNS - 1.0))  # the later, the more
        before = np.where(np.arange(TURNS) == TURNS - 1, -np.inf, age)
        others = np.where(self.windows.by_others, age, age - TURNS)
        draw = np.random.default_rng(seed).random(self.present.shape)
        rows = {SAME: age, BEFORE: np.where(np.isneginf(before), -TURNS, before), OTHER: others, RANDOM: draw}
        return {title: np.where(self.present, np.broadcast_to(of, self.present.shape), np.nan) for title, of in rows.items()}

    def changed(self, turn: np.ndarray) -> np.ndarray:
        """Return whether the answer changes with one turn of each window hidden, (N,)."""
        hidden = torch.from_numpy(np.arange(TURNS) == turn[:, None])[..., None]
        with torch.no_grad():
            logits = self.model(**self.inputs | {name: self.inputs[name].masked_fill(hidden, 0) for name in MODALITIES})
        return (logits.argmax(dim=1) != self.logits.argmax(dim=1)).numpy()


def all_scores(case: Case, seed: int = 0) -> dict[str, np.ndarray | str]:
    """Return the scores of every method, and of what needs no model, by title, or the reason why one cannot run.

    Slow methods are asked about some of the turns, and have NaN throughout at the others.
    """
    several = np.flatnonzero(case.present.sum(axis=1) > 1)
    few = np.sort(np.random.default_rng(seed).permutation(several)[:FEW])
    some, found = Case(case.model, case.windows.select(few)), case.blind(seed)
    for title in (*METHODS, ATTENTION):
        try:
            if title in SLOW:
                found[title] = np.full(case.present.shape, np.nan)
                found[title][few] = some.scores(title, seed=seed)
            else:
                found[title] = case.scores(title, seed=seed)
        except CannotRun as reason:
            found[title] = str(reason)
    return found


def asked(case: Case, question: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which turns may be named, (N, T), and about which windows it is asked, (N,).

    ``"same or earlier"``: every turn of the window. ``"earlier"``: those before the turn itself, where people marked one of
    them and there are at least two.
    """
    allowed = case.present.copy()
    if question == "earlier":
        allowed[:, -1] = False
    return allowed, ((case.causes & allowed).any(axis=1) & (allowed.sum(axis=1) >= 2))


def cases(case: Case, allowed: np.ndarray) -> dict[str, np.ndarray]:
    """Return which windows belong to each case, (N,) bool, where only some turns may be named."""
    causes = case.causes & allowed
    by_others = causes & case.windows.by_others
    only_others = by_others.any(axis=1) & (by_others == causes).all(axis=1)
    return {"all": np.ones(len(case), dtype=bool), "another speaker": only_others,
            "the same speaker": ~by_others.any(axis=1), "several causes": causes.sum(axis=1) > 1,
            "one cause": causes.sum(axis=1) == 1, "named rightly": case.named}


METRICS = {"recall at 1": recall, "reciprocal rank": reciprocal_rank}


def hits(case: Case, scores: np.ndarray, allowed: np.ndarray, metric: str) -> np.ndarray:
    """Return a metric of the turns with the highest scores against those that were marked, (N,); NaN where there are none."""
    scores = np.where(allowed, scores, np.nan)
    known, found = np.isfinite(scores).any(axis=1), np.full(len(case), np.nan)
    found[known] = METRICS[metric](scores[known], (case.causes & allowed)[known])
    return found


def table(case: Case, scores: Mapping[str, np.ndarray | str], seed: int = 0) -> list[dict]:
    """Return both metrics of each method, by question and case, with intervals by dialogue."""
    lines = []
    for question in ("same or earlier", "earlier"):
        allowed, about = asked(case, question)
        found = {(title, metric): hits(case, of, allowed, metric) for title, of in scores.items() for metric in METRICS
                 if not isinstance(of, str) and (title != SAME or question != "earlier")}
        found[CHANCE, "recall at 1"] = (case.causes & allowed).sum(axis=1) / np.maximum(allowed.sum(axis=1), 1)
        for name, belongs in cases(case, allowed).items():
            chosen = about & belongs
            for (title, metric), hit in found.items():
                if not np.isfinite(hit[chosen]).any():
                    continue
                value, low, high, dialogues = mean_interval(hit[chosen], seed, groups=case.windows.dialogue[chosen])
                lines.append({"method": title, "question": question, "case": name, "metric": metric, "value": value, "low": low,
                              "high": high, "n": int(np.isfinite(hit[chosen]).sum()), "dialogues": dialogues})
    return lines


def disagreement(case: Case, scores: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """Compare the earlier turn that an explanation names with the one that people marked, where these differ.

    Returns
    -------
    dict of str to Interval
        ``"differ"``: how often they do; ``"model"`` and ``"people"``: where they do, how often the model's answer changes with
        the one or the other hidden, the latest of those that people marked; ``"before"``: the same of the turn before.
    """
    allowed, about = asked(case, "earlier")
    by_model = np.where(allowed, np.nan_to_num(scores, nan=-np.inf), -np.inf).argmax(axis=1)
    by_people = TURNS - 1 - (case.causes & allowed)[:, ::-1].argmax(axis=1)
    differ = ~(case.causes & allowed)[np.arange(len(case)), by_model]
    turns = {"model": by_model, "people": by_people, "before": np.full(len(case), TURNS - 2)}
    owner, both = case.windows.dialogue, about & differ
    return {"differ": mean_interval(differ[about].astype(float), seed, groups=owner[about]),
            **{name: mean_interval(case.changed(turn)[both].astype(float), seed, groups=owner[both])
               for name, turn in turns.items()}}


def example(case: Case, scores: np.ndarray) -> dict[str, float]:
    """Return one window in numbers: the emotion is named rightly, the explanation names another earlier turn than people did,
    and the answer changes with the turn of the explanation hidden and not with that of people; of those, the largest share."""
    allowed, about = asked(case, "earlier")
    values = np.where(allowed, np.nan_to_num(scores, nan=-np.inf), -np.inf)
    by_model, marked = values.argmax(axis=1), case.causes & allowed
    by_people = TURNS - 1 - marked[:, ::-1].argmax(axis=1)
    fits = about & case.named & ~marked[np.arange(len(case)), by_model] & case.changed(by_model) & ~case.changed(by_people)
    if not fits.any():
        return {}
    best = int(np.where(fits, values.max(axis=1), -np.inf).argmax())
    window = case.windows
    return {"dialogue": window.dialogues[window.dialogue[best]].number, "turn": int(window.turn[best]) + 1,
            "named by the model": int(window.turn[best]) + 1 - (TURNS - 1 - int(by_model[best])),
            "marked by people": int(window.turn[best]) + 1 - (TURNS - 1 - int(by_people[best])),
            "probability": float(case.logits[best].softmax(dim=0)[window.labels[best]]),
            "value of the model's turn": float(scores[best, by_model[best]]),
            "value of people's turn": float(scores[best, by_people[best]]), "such turns": int(fits.sum())}
