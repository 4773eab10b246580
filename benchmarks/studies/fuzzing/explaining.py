"""Calls of ``explain`` by every method that is cheap on a small model."""

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import torch

from benchmarks.studies.fuzzing import oracle
from benchmarks.studies.fuzzing.asking import (
    Arrays,
    Call,
    Followed,
    Skip,
    array,
    check_size,
    expects,
    followed,
    hidden_by,
    layer_is_read,
    number,
    one_donor,
    require_truth,
)
from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.parts import Film, Picture, Table, Words, cell_sums
from benchmarks.studies.fuzzing.reading import CAMS, SCORES, SIGNED
from benchmarks.studies.fuzzing.rounding import Views, feature_dividends_by_hand, none_of
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source
from crossexplain import explain

GRADIENTS = ("gradient norm", "gradient x input", "gradient norm, other masked", "cross gradient")
COALITIONS = ("exact shapley", "sampled shapley", "exact banzhaf", "exact interactions", "shapiq shapley", "shapiq pairs",
              "mm-shap")
MASKS = ("feature dividends", "feature ablation", "occlusion")
SUMS = ("kernel shap", "shapley sampling", "deeplift")  # drawn at random or by rules of their own: what they sum to is known
PATHS = ("integrated gradients", "gradient shap")
WHOLE = ("emap", "dime", "intershap")
LIBRARY = tuple(f"{name} (library)" for name in ("grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam", "eigen-cam"))
ATTENTION = ("attention-relevance", "attention-rollout")
GROUPS = {"gradients": GRADIENTS, "coalitions": COALITIONS, "masks": MASKS, "sums": SUMS, "paths": PATHS, "whole": WHOLE,
          "maps": tuple(name for name in CAMS if name != "gradient x input"),
          "scores": tuple(name for name in SCORES if name != "gradient x input"), "library": LIBRARY, "attention": ATTENTION}


BUDGET = 512  # as many coalitions as there are: where a method takes so many, its estimate is exact
FEW = 64  # where only the sum of an estimate is known
OF_ROUNDING = 1e-2, 0.3  # a difference of two gradients that is a smaller share of them is rounding, in single and in half


class Asked:
    """One call of ``explain`` with what its answer by hand needs."""

    def __init__(self, scene: Scene, source: Source, method: str):
        self.scene, self.method, self.truth = scene, method, scene.truth
        self.baselines = hidden_by(source, scene)
        self.donors, self.donor = one_donor(source, scene, self.baselines)
        kinds = ("nothing", "predicted", "one each", "column", "function")
        self.follow: Followed = followed(source, scene, kinds)
        self.names = list(self.baselines)
        self.parts = self.truth.parts
        self.options = {"complete": False} if self.method in PATHS else {}  # the answer by hand is that at the layers, too

    def ask(self) -> Arrays:
        """Ask the package."""
        with self.scene.mode():
            found = explain(self.scene.model, self.scene.inputs, self.scene.modalities(), self.method,
                            baselines=self.baselines, target=self.follow.given, donors=self.donors,
                            budget=FEW if self.method in SUMS else BUDGET, **self.options)
        answer = {name: array(values) for name, values in found.values.items()}
        if found.pairs is not None:
            answer["pairs"] = array(found.pairs)
        if self.method in SUMS:
            return {"sum": np.nansum(found.joint().numpy(), axis=1)}
        if self.method in GRADIENTS[2:]:  # on a scale of the record's
            return {name: _scaled(values) for name, values in answer.items()}
        return answer

    def value(self, i: int, keep: dict) -> float:
        """Return the evidence with only some features of an example left."""
        example, _ = self.truth.hidden(i, keep, self.baselines, self.donor)
        return float(self.follow.evidence(i)(self.truth.logits(example)[None]))

    def by_modality(self, row: Callable[[int, str], np.ndarray]) -> Arrays:
        """Return what a function gives for each example and modality, NaN where there is no feature."""
        return {name: np.stack([np.where(self.truth.present(i)[name], row(i, name), np.nan) for i in range(self.scene.n)])
                for name in self.names}

    def want(self) -> Arrays:
        """Answer by hand."""
        require_truth(self.scene, follow=self.follow)
        method = self.method
        group = next(name for name, methods in GROUPS.items() if method in methods)
        every_layer = all(layer_is_read(self.scene, part) for part in self.parts.values())
        if group in ("gradients", "paths", "scores") and not every_layer:
            raise NoTruth("no vector a feature")
        return getattr(self, f"_{group}")()

    # ------------------------------------------------------------ gradients

    def _gradient(self, i: int, name: str, score) -> tuple:
        part, example = self.parts[name], self.truth.example(i)
        acts, grads = self.truth.read(example, [part.layer], score)
        gradient = grads[part.layer]
        if gradient is None or not gradient.any():
            if self.truth.is_dead(name, self.follow.evidence) and self.truth.moves(name, self.baselines, self.donor):
                raise NoTruth(f"no gradient at {part.layer}, though {name} counts")
            gradient = torch.zeros_like(acts[part.layer])
        return acts[part.layer], gradient, part.places(example)

    def _gradients(self) -> Arrays:
        if self.method in GRADIENTS[2:]:
            return self._of_rounds()

        def row(i: int, name: str) -> np.ndarray:
            a, g, places = self._gradient(i, name, self.follow.evidence(i))
            if self.method == "gradient norm":
                return array(self.parts[name].fold(g**2, places).clamp(min=0).sqrt())
            return array(self.parts[name].fold(a * g, places))

        return self.by_modality(row)

    def _of_rounds(self) -> Arrays:
        ways, found = Views(self.scene, self.follow, self.baselines, [self.donor]), {}
        for name in self.names:
            rows, part = [], self.parts[name]
            for i in range(self.scene.n):
                hidden = none_of(self.scene, i, [other for other in self.names if other != name])
                importance, gradient, _ = ways.read(i, hidden, name)
                if self.method == "cross gradient":
                    difference = torch.from_numpy(ways.read(i, {}, name)[1] - gradient)
                    size = np.max(importance, initial=0) * (OF_ROUNDING[1] if self.scene.half else OF_ROUNDING[0])
                    importance = array(part.fold(difference**2, part.places(self.truth.example(i))).clamp(min=0).sqrt())
                    importance = importance * (np.nan if importance.max() < size else 1)
                rows.append(np.where(self.truth.present(i)[name], importance, np.nan))
            found[name] = _scaled(np.stack(rows))
        return found

    def _maps(self) -> Arrays:
        (part,) = [part for part in self.parts.values() if isinstance(part, Picture)]
        rows = []
        for i in range(self.scene.n):
            score = self.follow.evidence(i) if self.follow.of_function else self.follow.logit(i)
            if self.method == "eigen-cam":  # of activations alone
                a = self.truth.read(self.truth.example(i), [part.layer], score)[0][part.layer]
                g = torch.zeros_like(a)
            else:
                a, g, _ = self._gradient(i, part.name, score)
            heat = oracle.heat(self.method, array(part.as_map(a)), array(part.as_map(g)))
            heat = heat if self.method in SIGNED else oracle.relu(heat)
            rows.append(array(cell_sums(torch.from_numpy(heat), part.grid)))
        return {part.name: np.stack(rows)}

    def _scores(self) -> Arrays:
        (part,) = [part for part in self.parts.values() if isinstance(part, Words)]

        def row(i: int, name: str) -> np.ndarray:
            score = self.follow.evidence(i) if self.follow.of_function else self.follow.logit(i)
            a, g, places = self._gradient(i, name, score)
            a, g = array(part.rows(a)), array(part.rows(g))
            return np.array([sum(oracle.score_of_token(self.method, a[t], g[t]) for t in of) for of in places])

        rows = [np.where(self.truth.present(i)[part.name], row(i, part.name), np.nan) for i in range(self.scene.n)]
        return {part.name: np.stack(rows)}

    def _library(self) -> Arrays:
        return {}  # normalised and enlarged by the library: only that it runs or is refused

    def _attention(self) -> Arrays:
        found = {}
        for name, (module,) in self.options["attention"].items():
            part, rows = self.parts[name], []
            for i in range(self.scene.n):
                score = self.follow.evidence(i) if self.follow.of_function else self.follow.logit(i)
                rolled = _rolled(self.truth, i, module, part.layer if isinstance(part, Words) else f"input:{part.key}", score,
                                 self.method)
                if isinstance(part, Picture):
                    special = len(rolled) - part.patches[0] * part.patches[1]
                    rows.append(array(cell_sums(torch.from_numpy(rolled[special:].reshape(part.patches)), part.grid)))
                else:
                    rows.append(np.where(self.truth.present(i)[name], rolled, np.nan))
            found[name] = np.stack(rows)
        return found

    def _paths(self) -> Arrays:
        if self.method == "gradient shap" or len({part.layer for part in self.parts.values()}) < len(self.parts):
            return {}
        points, weights = np.polynomial.legendre.leggauss(50)
        found = {name: [] for name in self.names}
        for i in range(self.scene.n):
            nothing = none_of(self.scene, i, self.names)
            empty, _ = self.truth.hidden(i, nothing, self.baselines, self.donor)
            layers, score = [part.layer for part in self.parts.values()], self.follow.evidence(i)
            full, _ = self.truth.read(self.truth.example(i), layers, score)
            none, _ = self.truth.read(empty, layers, score)
            for name in self.parts:
                self._gradient(i, name, score)
            slopes = self.truth.along_path(self.truth.example(i), none, full, score, (points + 1) / 2, weights / 2)
            for name, part in self.parts.items():
                change = slopes[part.layer] * (full[part.layer] - none[part.layer])
                values = array(part.fold(change, part.places(self.truth.example(i))))
                found[name].append(np.where(self.truth.present(i)[name], values, np.nan))
        return {name: np.stack(rows) for name, rows in found.items()}

    # ------------------------------------------------------------ coalitions

    def _coalitions(self) -> Arrays:
        tables = [self.truth.values(i, self.baselines, self.follow.evidence(i), self.donor) for i in range(self.scene.n)]
        counts = [len(present) for present in self.truth.present(0).values()]
        cuts = list(accumulate(counts, initial=0))
        present = [sum(self.truth.present(i).values(), []) for i in range(self.scene.n)]
        if self.method in ("exact interactions", "shapiq pairs"):
            pairs = np.array([[[oracle.interaction(table, j, counts[0] + k) if there[j] and there[counts[0] + k] else np.nan
                                for k in range(counts[1])] for j in range(counts[0])] for table, there in zip(tables, present)])
            if self.method == "shapiq pairs":
                return {"pairs": pairs}
            sizes = [np.nansum(np.abs(pairs), axis=2), np.nansum(np.abs(pairs), axis=1)]
            return {name: np.where([self.truth.present(i)[name] for i in range(self.scene.n)], values, np.nan)
                    for name, values in zip(self.names, sizes)}
        index = oracle.banzhaf if self.method == "exact banzhaf" else oracle.shapley
        values = np.where(present, np.stack([index(table) for table in tables]), np.nan)
        found = {name: values[:, a:b] for name, a, b in zip(self.names, cuts, cuts[1:])}
        if self.method == "mm-shap":
            sizes = {name: np.nansum(np.abs(part), axis=1, keepdims=True) for name, part in found.items()}
            total = sum(sizes.values())
            return {name: np.where(total > 1e-4, size / np.maximum(total, 1e-9), np.nan) for name, size in sizes.items()}
        return found

    def _masks(self) -> Arrays:
        if self.method == "feature dividends":
            ways = Views(self.scene, self.follow, self.baselines, [self.donor])
            found = feature_dividends_by_hand(self.scene, ways, self.follow)
            return {name: np.where([self.truth.present(i)[name] for i in range(self.scene.n)], values, np.nan)
                    for name, values in found.items()}
        return self.by_modality(self._ablated if self.method == "feature ablation" else self._occluded)

    def _ablated(self, i: int, name: str) -> np.ndarray:
        count = len(self.truth.present(i)[name])
        return np.array([self.value(i, {}) - self.value(i, {name: [g != f for g in range(count)]}) for f in range(count)])

    def _occluded(self, i: int, name: str) -> np.ndarray:
        part, count = self.parts[name], len(self.truth.present(i)[name])
        shape = np.arange(count).reshape(part.grid if isinstance(part, Picture | Film) else (count,))
        sides = [1 if isinstance(part, Table) else min(2, max(side - 1, 1)) for side in shape.shape]
        total, times = np.zeros(count), np.zeros(count)
        for start in np.ndindex(*(side - width + 1 for side, width in zip(shape.shape, sides))):
            window = shape[tuple(slice(at, at + width) for at, width in zip(start, sides))].ravel()
            change = self.value(i, {}) - self.value(i, {name: [g not in window for g in range(count)]})
            total[window] += change
            times[window] += 1
        return total / times

    def _sums(self) -> Arrays:
        return {"sum": np.array([self.value(i, {}) - self.value(i, none_of(self.scene, i, self.names))
                                 for i in range(self.scene.n)])}

    # ------------------------------------------------------------ whole modalities

    def _whole(self) -> Arrays:
        first, second = self.parts.values()
        n, table = self.scene.n, np.zeros((self.scene.n, self.scene.n))
        for i in range(n):
            for j in range(n):
                borrowed = {key: self.truth.example(i)[key] for key in first.travels}
                logits = self.truth.logits({**self.truth.example(j), **borrowed})
                table[i, j] = float(number(logits[None])[0] if self.follow.of_function else
                                    logits[self.follow.chosen[i]] if self.follow.own else logits[0])
        signs = np.array([1 if self.follow.own else 2 * chosen - 1 for chosen in self.follow.chosen])
        if self.method == "intershap":
            return self._intershap(table)
        alone = [signs * (table.mean(axis=axis) - table.mean()) for axis in (1, 0)]
        found = {name: part[:, None] for name, part in zip(self.names, alone)}
        if self.method == "dime":
            nearest = table.mean(axis=1) + table.mean(axis=0) - table.mean()
            found["pairs"] = (signs * (np.diagonal(table) - nearest))[:, None, None]
        return found

    def _intershap(self, table: np.ndarray) -> Arrays:
        signs = np.where(np.diagonal(table) > 0, 1.0, -1.0)

        def chance(logits: np.ndarray, sign: float) -> float:
            return float(np.mean(1 / (1 + np.exp(-sign * logits))))

        found = {name: np.zeros((self.scene.n, 1)) for name in self.names} | {"pairs": np.zeros((self.scene.n, 1, 1))}
        for i, sign in enumerate(signs):
            nothing = chance(np.diagonal(table), sign)
            parts = [chance(table[i], sign) - nothing, chance(table[:, i], sign) - nothing]
            for name, part in zip(self.names, parts):
                found[name][i] = part
            found["pairs"][i] = chance(table[i, i : i + 1], sign) - nothing - sum(parts)
        return found


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return values (N, F) of each example divided by the largest; NaN where all are rounding."""
    largest = np.nanmax(np.abs(np.nan_to_num(values)), axis=1, keepdims=True)
    return values / np.where(largest > 1e-4, largest, np.nan)


def _rolled(truth, i: int, module: str, layer: str, score, method: str) -> np.ndarray:
    """Roll one attention map of one example out, with its gradient (Chefer et al. 2021; Abnar and Zuidema 2020)."""
    attention, slope = truth.attention(truth.example(i), module, score)  # (1, T, T) each
    identity = np.eye(attention.shape[-1])
    if method == "attention-relevance":
        rolled = identity + oracle.relu(attention * slope).mean(axis=0) @ identity
    else:
        rolled = (attention.mean(axis=0) + identity) / 2
    is_read = (slope != 0).any(axis=(0, 2))
    return rolled[is_read].mean(axis=0) if is_read.any() else np.zeros(len(identity))


def explaining(scene: Scene, source: Source) -> Call:
    """Ask for an explanation by one method."""
    group = source.pick("methods", GROUPS)
    method = source.pick("method", GROUPS[group])
    if group == "coalitions" or group == "sums":
        check_size(scene)
    pictures = [part for part in scene.parts if isinstance(part, Picture)]
    texts = [part for part in scene.parts if isinstance(part, Words)]
    if (group in ("maps", "library") and not pictures) or (group == "scores" and not texts):
        raise Skip
    asked = Asked(scene, source, method)
    sound = expects(scene, asked.follow)
    if group in ("gradients", "paths", "scores") or method == "deeplift":
        sound = sound and all(layer_is_read(scene, part) for part in scene.parts)
    if group in ("maps", "library") and "cam" in method:
        sound = sound and not pictures[0].layer.startswith("input:")
    if group == "scores" and any(part.words is not None for part in texts):
        sound = False  # scores of words of several tokens are no method of the literature
    if method in ("exact interactions", "shapiq pairs") and len(scene.parts) != 2:
        sound = False
    if group == "whole":
        if len(scene.parts) == 2 and any(isinstance(part, Words) and part.words or part.special_mask for part in texts):
            raise Skip
        single = scene.classes == 1 or asked.follow.of_function or asked.follow.own
        sound = sound and single and len(scene.parts) == 2 and scene.n > 1
        sound = sound and scene.own <= {key for part in scene.parts for key in part.travels}  # what is swapped with which?
        sound = sound and (method != "intershap" or asked.follow.given in (None, "predicted"))
        if len(scene.parts) != 2:
            asked.want = _refused("two modalities are needed")
        elif not single:
            asked.want = _refused("one logit is needed")
    if group == "attention":
        _modules(asked, scene)
        sound = sound and not any("patches" not in part.declared for part in pictures)
    if group == "paths":  # types, masks and lengths cannot go in steps, and other libraries want the examples first
        moving = [part for part in texts if asked.baselines[part.name] != "mask"]
        masked = any(part.attention or part.lengths or part.along or part.stay or part.words for part in moving)
        sound = sound and not masked and not any(part.layout == "TND" for part in scene.parts)
    if any("@" in part.layer for part in scene.parts) and group in ("paths", "library", "sums"):
        sound = False  # other libraries do not know the second call of a layer
    if group in ("library", "paths") or method == "deeplift":
        sound = False if group == "library" or method == "deeplift" else sound
    if method.startswith("shapiq") and any(sum(sum(scene.truth.present(i).values(), [])) < 3 for i in range(scene.n)):
        sound = False
    loose = {"kernel shap": 50, "deeplift": 200, "integrated gradients": 20}.get(method, 2)
    loose = 20 if group in ("maps", "coalitions") else loose
    return Call(asked.ask, asked.want, sound, size=0.1, loose=loose,
                of_logits=group in ("coalitions", "masks", "sums", "whole"))


def _refused(reason: str):
    def want() -> Arrays:
        raise NoTruth(reason)

    return want


def _modules(asked: Asked, scene: Scene) -> None:
    """Name the attention modules of the towers that have one of their own, which are read at their embedding or pixels."""
    modules = {}
    for part in scene.parts:
        if isinstance(part, Words) and scene.net.join != "joint" and getattr(scene.net.reading, "kind", "") == "block" \
                and part.layer.endswith("embedding") and part.words is None:
            modules[part.name] = ["reading.mixer.attend"]
        if isinstance(part, Picture) and getattr(scene.net.sight, "kind", "").startswith("patches"):
            modules[part.name] = ["sight.block.attend"]
    if not modules or scene.net.blind:
        raise Skip
    asked.options = {"attention": modules}
