"""Calls that compare views: rounds, dividends of features, games, sampled values, another order and the pre-flight."""

import itertools

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
    is_probability,
    layer_is_read,
    number,
    one_donor,
    predicted,
    require_truth,
)
from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.parts import Words
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source
from crossexplain import Game, Reorder, preflight, rounds
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.gradients.rounds import feature_dividends

Hidden = dict[str, list[bool]]


def none_of(scene: Scene, i: int, names) -> Hidden:
    """Return a mask that hides modalities as a whole."""
    return {name: [False] * len(scene.truth.present(i)[name]) for name in names}


class Views:
    """What one example gives in one view, by hand: the mean over the donors that it borrows from."""

    def __init__(self, scene: Scene, follow: Followed, baselines: dict, donors: list[dict], times_value: bool = False):
        self.scene, self.follow, self.baselines, self.donors, self.times_value = scene, follow, baselines, donors, times_value
        self.layers = list(dict.fromkeys(part.layer for part in scene.parts))

    def logits(self, i: int, keep: Hidden) -> torch.Tensor:
        """Return the logits (C,)."""
        truth = self.scene.truth
        return torch.stack([truth.logits(truth.hidden(i, keep, self.baselines, donor)[0]) for donor in self.donors]).mean(dim=0)

    def read(self, i: int, keep: Hidden, name: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Return importances (F,), the mean gradient, and the mean norm at the layer of a modality."""
        truth, part = self.scene.truth, truth_part(self.scene, name)
        importances, gradients, norms = [], [], []
        for donor in self.donors:
            example, places = truth.hidden(i, keep, self.baselines, donor)
            acts, grads = truth.read(example, [part.layer], self.follow.logit(i))
            gradient = grads[part.layer]
            if gradient is None or not gradient.any():
                if truth.is_dead(name, self.follow.logit) and truth.moves(name, self.baselines, self.donors[0]):
                    raise NoTruth(f"no gradient at {part.layer}, though {name} counts")
                gradient = torch.zeros_like(acts[part.layer])
            values = gradient * acts[part.layer] if self.times_value else gradient
            squares = part.fold(values**2, places[name])
            stays = [p and k for p, k in zip(truth.present(i)[name], keep.get(name, [True] * len(squares)))]
            importances.append(array(squares.clamp(min=0).sqrt()) * stays)
            gradients.append(array(gradient))
            norms.append(float(gradient.double().norm()))
        return np.mean(importances, axis=0), np.mean(gradients, axis=0), float(np.mean(norms))


def truth_part(scene: Scene, name: str):
    """Return a modality by its name."""
    return scene.truth.parts[name]


def _donors(scene: Scene, source: Source, baselines: dict) -> tuple[dict | None, list[dict]]:
    """Return the donors to pass and those of each draw: all examples where one modality borrows at a time, else one."""
    if "data" not in baselines.values():
        return None, [{}]
    if len(scene.parts) == 2 and scene.n > 1 and source.pick("donors", ("the examples", "one")) == "the examples":
        return None, [dict.fromkeys(baselines, j) for j in range(scene.n)]
    given, rows = one_donor(source, scene, baselines)
    return given, [rows]


def running_rounds(scene: Scene, source: Source) -> Call:
    """Ask for the four rounds under one set of baselines."""
    baselines = hidden_by(source, scene)
    given, donors = _donors(scene, source, baselines)
    by = source.pick("by", ("gradient", "gradient x activation"))
    follow = followed(source, scene)
    rows, sharing = source.pick("batch rows", (512, 1, 7)), source.pick("sharing", (True, False))
    names, ways = list(baselines), Views(scene, follow, baselines, donors, by != "gradient")
    record = None

    def ask() -> Arrays:
        nonlocal record
        with scene.mode():
            record = rounds(scene.model, scene.inputs, scene.modalities(), baselines=[baselines], by=by, target=follow.given,
                            donors=given, draws=max(4, scene.n), rows=rows, sharing=sharing, progress=False)
        (label,) = record.baselines
        found = {}
        for name in names:
            for view in ("full", record.only(name), record.picked(name)):
                found[f"margin {view}"] = record.margin(label, view)
            for view in ("full", record.only(name)):
                one = record.passes[label, view]
                found[f"importance of {name}, {view}"] = array(one.importance[name] * record.scale[name][:, None])
                found[f"norm of {name}, {view}"] = array(one.norms[name])
            found[f"cross of {name}"] = array(record.by_side[label, name].cross * record.scale[name][:, None])
            found[f"picked of {name}"] = array(record.by_side[label, name].picked.double())
            found[f"flips without {name}"] = record.flips(label, record.without(name)).astype(float)
        if "data" not in baselines.values():
            found["dividend"] = record.dividend(label)
        return found

    def want() -> Arrays:
        require_truth(scene, follow=follow)
        if not all(layer_is_read(scene, part) for part in scene.parts):
            raise NoTruth("no vector a feature")
        found: dict[str, list] = {}
        for i in range(scene.n):
            margin = {}
            for name in names:
                others = [other for other in names if other != name]
                views = {"full": {}, record.only(name): none_of(scene, i, others)}
                read = {view: ways.read(i, keep, name) for view, keep in views.items()}
                best = read[record.only(name)][0]
                picked = record.by_side[record.baselines[0], name].picked[i].tolist()
                ties = best >= best.max() * (1 - 1e-3) - 1e-7 if not scene.half else np.ones(len(best), bool)
                right = sum(picked) == 1 and all(t for t, p in zip(ties, picked) if p)
                found.setdefault(f"picked of {name}", []).append(picked if right else ties.astype(float))
                views[record.picked(name)] = {name: [not p for p in picked]}
                for view, keep in views.items():
                    margin[view] = float(follow.evidence(i)(ways.logits(i, keep)[None]))
                for view, (importance, _, norm) in read.items():
                    found.setdefault(f"importance of {name}, {view}", []).append(importance)
                    joint = "positions" in truth_part(scene, name).declared
                    found.setdefault(f"norm of {name}, {view}", []).append(np.nan if joint else norm)
                found.setdefault(f"cross of {name}", []).append(_cross(scene, i, name, read, record.only(name)))
                flipped = _class(follow, ways.logits(i, none_of(scene, i, [name]))) != _class(follow, ways.logits(i, {}))
                found.setdefault(f"flips without {name}", []).append(np.nan if scene.half or follow.own else float(flipped))
                margin[f"only {name}"] = margin[record.only(name)]
            if "data" not in baselines.values():
                nothing = float(follow.evidence(i)(ways.logits(i, none_of(scene, i, names))[None]))
                alone = sum(margin.pop(f"only {name}") for name in names)
                dividend = margin["full"] - alone + (len(names) - 1) * nothing  # in half precision all rounding
                found.setdefault("dividend", []).append(np.nan if scene.half else dividend)
            for view in [view for view in margin if not view.startswith("only ")]:
                found.setdefault(f"margin {view}", []).append(margin[view])
        return {key: np.array(values, dtype=float) for key, values in found.items()}

    sound = expects(scene, follow) and all(layer_is_read(scene, part) for part in scene.parts)
    if scene.n == 1 and "data" in baselines.values() and given is None:
        sound = False
    return Call(ask, want, sound, size=0.05, loose=3, differences={"margin": "logits", "cross": "importance"})


def _cross(scene: Scene, i: int, name: str, read: dict, view: str) -> np.ndarray:
    """Return the norm of the difference of the mean gradients at each feature, (F,)."""
    part, present = truth_part(scene, name), scene.truth.present(i)[name]
    difference = torch.from_numpy(read["full"][1] - read[view][1])
    places = part.places(scene.truth.example(i))
    return array(part.fold(difference**2, places).clamp(min=0).sqrt()) * present


def _class(follow: Followed, logits: torch.Tensor) -> int:
    return int(number(logits[None])[0] > 0) if follow.of_function else predicted(logits[None])[0]


def dividing(scene: Scene, source: Source) -> Call:
    """Ask for the dividends of features."""
    baselines = hidden_by(source, scene)
    given, donor = one_donor(source, scene, baselines)
    follow = followed(source, scene)
    ways = Views(scene, follow, baselines, [donor])

    def ask() -> Arrays:
        with scene.mode():
            found = feature_dividends(scene.model, scene.inputs, scene.modalities(), baseline=baselines, target=follow.given,
                                      donors=given, progress=False)
        return {name: array(values) for name, values in found.items()}

    def want() -> Arrays:
        require_truth(scene, follow=follow)
        return feature_dividends_by_hand(scene, ways, follow)

    return Call(ask, want, expects(scene, follow), size=0.1, of_logits=True)


def feature_dividends_by_hand(scene: Scene, ways: Views, follow: Followed) -> Arrays:
    """Return v(AB) - v(AB without f) - v(A) + v(A without f) of each feature f of A."""
    found = {name: [] for name in ways.baselines}
    for i in range(scene.n):
        def value(keep: Hidden, i: int = i) -> float:
            return float(follow.evidence(i)(ways.logits(i, keep)[None]))

        for name in found:
            others = none_of(scene, i, [other for other in found if other != name])
            present, row = scene.truth.present(i)[name], []
            for f, is_there in enumerate(present):
                without = {name: [g != f for g in range(len(present))]}
                row.append(value({}) - value(without) - value(others) + value(others | without) if is_there else 0.0)
            found[name].append(row)
    return {name: np.array(rows) for name, rows in found.items()}


def playing(scene: Scene, source: Source) -> Call:
    """Ask for the values of all coalitions, and for Shapley values from masks that may be all of them."""
    check_size(scene)
    baselines = hidden_by(source, scene)
    given, donor = one_donor(source, scene, baselines)
    follow = followed(source, scene)
    sampled, rows = source.pick("sampled", (False, True)), source.pick("batch rows", (512, 1, 5))
    owners = [list(range(len(present))) for present in scene.truth.present(0).values()]  # the player of each feature
    grouped = source.pick("players", ("features", "pairs of features"), usual=0.7) == "pairs of features"
    owners[0] = [f // 2 for f in owners[0]] if grouped else owners[0]
    players = {scene.parts[0].name: torch.tensor(owners[0])} if grouped else {}

    def ask() -> Arrays:
        with scene.mode():
            game = Game(scene.model, scene.inputs, scene.modalities(), baselines=baselines, target=follow.given, donors=given,
                        players=players, rows=rows, progress=False)
            if sampled:
                return {"shapley": array(sampled_shapley(game, 1024))}
            return {"values": array(game.values_of_all())}

    def want() -> Arrays:
        require_truth(scene, follow=follow)
        columns = _of_players(owners)
        table = [scene.truth.values(i, baselines, follow.evidence(i), donor)[columns] for i in range(scene.n)]
        if not sampled:
            return {"values": np.stack(table)}
        present = np.array([[any(p for p, owner in zip(there, of) if owner == player) for there, of in
                             zip(scene.truth.present(i).values(), owners) for player in range(max(of) + 1)]
                            for i in range(scene.n)])
        return {"shapley": np.where(present, np.stack([oracle.shapley(values) for values in table]), np.nan)}

    return Call(ask, want, expects(scene, follow), size=0.1, of_logits=True)


def _of_players(owners: list[list[int]]) -> list[int]:
    """Return the coalition of features, as a number, of each coalition of players."""
    first, player_of = 0, []
    for of in owners:
        player_of += [first + owner for owner in of]
        first += max(of) + 1
    return [sum(1 << f for f, player in enumerate(player_of) if s >> player & 1) for s in range(2**first)]


def reordering(scene: Scene, source: Source) -> Call:
    """Ask for a view with the words in another order: its logits are those of one of the orders."""
    texts = [part for part in scene.parts if isinstance(part, Words) and part.words is None]
    if not texts or not all(layer_is_read(scene, part) for part in scene.parts):
        raise Skip
    (part,), seed = texts, source.pick("order", range(20))
    kept = {one.name: next(b for b in one.baselines if b != "data") for one in scene.parts}

    def ask() -> Arrays:
        with scene.mode():
            record = rounds(scene.model, scene.inputs, scene.modalities(), baselines=[kept], pick=None,
                            extra={"mixed": {part.name: Reorder(seed)}}, progress=False)
        found, truth = array(record.extra["mixed"].logits), scene.truth
        nearest = []
        for i, row in enumerate(found):
            example = truth.example(i)
            words = [t for t, is_word in enumerate(part.tokens(example)) if is_word]
            every = []
            for order in itertools.permutations(words):
                mixed = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in example.items()}
                for key in (part.key, *part.along):
                    mixed[key][0, words] = example[key][0, list(order)]
                every.append(array(truth.logits(mixed)))
            if row.shape == every[0].shape:
                nearest.append(row - min(every, key=lambda logits, row=row: np.abs(logits - row).max()))
        return {"apart": np.array(nearest)}

    def want() -> Arrays:
        require_truth(scene)
        return {"apart": np.zeros((scene.n, scene.truth.whole().shape[1]))}

    return Call(ask, want, expects(scene), size=1.0)


def checking(scene: Scene, source: Source) -> Call:
    """Ask the pre-flight: it has to find what is wrong with the model, and nothing that is not."""
    if not all(layer_is_read(scene, part) for part in scene.parts):
        raise Skip

    def ask() -> Arrays:
        with scene.mode():
            names = set(preflight(scene.model, scene.inputs, scene.modalities()).names)
        return {"in train mode": np.array(float(bool(names & {"dropout on", "batch statistics", "not repeatable"}))),
                "touching": np.array(float(bool(names & {"examples touch", "columns change"}))),
                "a probability": np.array(float(any("probab" in name for name in names)))}

    def want() -> Arrays:
        if reason := scene.refuse or scene.refuse_modalities:
            raise NoTruth(reason)
        train = "train" in scene.unexpected
        touching = scene.net.extra == "touching" or scene.net.output == "similarities" and scene.model is scene.net
        inside = bool(((scene.truth.whole() >= 0) & (scene.truth.whole() <= 1)).all())  # as those of a probability are
        unknown = train or scene.rough or "table" in scene.unexpected
        return {"in train mode": np.array(float(train)), "touching": np.array(np.nan if unknown else float(touching)),
                "a probability": np.array(np.nan if train or inside else float(is_probability(scene)))}

    return Call(ask, want, expects(scene))
