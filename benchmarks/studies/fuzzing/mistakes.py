"""Calls with a mistake in their arguments: each has to be refused by an InputError."""

import numpy as np
import torch

from benchmarks.studies.fuzzing.asking import Arrays, Call, Skip, layer_is_read
from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.parts import Picture, Row, Words
from benchmarks.studies.fuzzing.reading import CAMS
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source
from crossexplain import Game, capture, explain, preflight, rounds
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.rounds import feature_dividends

QUESTIONS = {  # doors that take modalities, with their arguments
    "rounds": lambda scene, given: rounds(*given.pop("first"), progress=False, **given),
    "feature dividends": lambda scene, given: feature_dividends(
        *given.pop("first"), baseline=given.pop("baselines", None), progress=False, **given),
    "game": lambda scene, given: Game(*given.pop("first"), progress=False, **given).values_of_all(),
    "sampled": lambda scene, given: sampled_shapley(Game(*given.pop("first"), progress=False, **given), 64),
    "preflight": lambda scene, given: preflight(*given.pop("first"), **{key: value for key, value in given.items()
                                                                       if key in ("target", "labels")}),
    **{method: lambda scene, given, method=method: explain(*given.pop("first"), method, **given) for method in (
        "cross gradient", "gradient norm", "exact shapley", "sampled shapley", "occlusion", "kernel shap", "grad-cam",
        "integrated gradients", "raw", "emap", "shapiq shapley", "feature dividends", "grad-cam (library)", "deeplift")},
}


def erring(scene: Scene, source: Source) -> Call:
    """Make one mistake at one door."""
    if scene.unexpected or scene.half or not all(layer_is_read(scene, part) for part in scene.parts):
        raise Skip
    kind = source.pick("mistake", ("target", "layer", "baseline", "method", "modalities", "donors", "number", "inputs"))
    scene.modalities()  # which are made anew for each call
    call = {"target": _target, "layer": _layer, "baseline": _baseline, "method": _method, "modalities": _modalities,
            "donors": _donors, "number": _number, "inputs": _inputs}[kind](scene, source)

    def ask() -> Arrays:
        with scene.mode():
            call()
        return {}

    def want() -> Arrays:
        raise NoTruth(f"a mistake: {kind}")

    return Call(ask, want, False)


def _asked(scene: Scene, source: Source, doors=None):
    """Return a function that asks a door with some arguments changed."""
    name = source.pick("door", [door for door in QUESTIONS if doors is None or door in doors])
    if name in ("grad-cam", "grad-cam (library)") and not any(isinstance(part, Picture) for part in scene.parts):
        raise Skip
    if name == "raw" and not any(isinstance(part, Words) for part in scene.parts):
        raise Skip

    def call(**changed) -> None:
        first = changed.pop("first", (scene.model, scene.inputs, scene.modalities()))
        QUESTIONS[name](scene, {"first": first, **changed})

    return call


def _target(scene: Scene, source: Source):
    count = max(2, scene.truth.whole().shape[1])
    wrong = {"too large": count, "negative": -1, "one too large": torch.tensor([0] * (scene.n - 1) + [count]),
             "too many": torch.zeros(scene.n + 1, dtype=torch.long), "a share": 0.5, "shares": torch.rand(scene.n),
             "truths": torch.ones(scene.n, dtype=torch.bool), "a word": "cat", "negative for one": torch.tensor([-1] * scene.n),
             "a function of no number": lambda output: 1.0, "a function that gives one number": lambda output: torch.zeros(()),
             "a function of too many": lambda output: torch.zeros(3, 3, 3)}
    target = wrong[source.pick("target", wrong)]
    door = source.pick("asked", ("a question", "capture", "maps", "scores"))
    if door == "a question":
        call = _asked(scene, source)
        return lambda: call(target=target)
    if door == "capture":
        return lambda: capture(scene.model, scene.taken(), scene.parts[0].layer, target)
    if door == "maps":
        (part,) = [part for part in scene.parts if isinstance(part, Picture)] or _skip()
        return lambda: maps.attribute(scene.model, scene.taken(), part.layer, "gradient x input", target, "for")
    (part,) = [part for part in scene.parts if isinstance(part, Words)] or _skip()
    return lambda: tokens.attribute(scene.model, scene.taken(), part.layer, "l2", target, special="keep")


def _skip():
    raise Skip


def _layer(scene: Scene, source: Source):
    read = [part for part in scene.parts if isinstance(part, Picture | Row | Words)]
    part = read[source.pick("which", range(len(read)))]
    name = source.pick("layer", ("nowhere", "head.nowhere", "", "input:nowhere", f"{part.layer}@3", f"{part.layer}#5"))
    door = source.pick("asked", ("capture", "a question"))
    if door == "capture":
        return lambda: capture(scene.model, scene.taken(), name)
    if name == "" or (name.startswith("input:") and part.layer.startswith("input:")):
        raise Skip  # the default
    part.layer = name
    call = _asked(scene, source, ("rounds", "preflight", "cross gradient", "gradient norm", "integrated gradients", "deeplift"))
    return lambda: call()


def _baseline(scene: Scene, source: Source):
    name = scene.parts[0].name
    wrong = {"unknown": "gone", "of one, unknown": {name: "gone"}, "of no modality": {"smell": "zero"}, "a number": 3}
    baselines = wrong[source.pick("baselines", wrong)]
    call = _asked(scene, source, [door for door in QUESTIONS if door != "preflight"])
    return lambda: call(baselines=baselines)


def _method(scene: Scene, source: Source):
    first = scene.model, scene.inputs, scene.modalities()
    (picture,) = [part for part in scene.parts if isinstance(part, Picture)] or [None]
    layer = None if picture is None else picture.layer
    wrong = {"unknown": lambda: explain(*first, "magic"), "none": lambda: explain(*first, ""),
             "attention without modules": lambda: explain(*first, "attention-rollout"),
             "option": lambda: explain(*first, "gradient norm", window=3),
             "pick": lambda: rounds(*first, pick="round 9", progress=False),
             "by": lambda: rounds(*first, by="luck", progress=False),
             "map": (lambda: maps.attribute(scene.model, scene.taken(), layer, "magic")) if picture else _skip,
             "maps": (lambda: maps.attribute(scene.model, scene.taken(), layer, [*CAMS, "magic"])) if picture else _skip,
             "sign": (lambda: maps.attribute(scene.model, scene.taken(), layer, sign="up")) if picture else _skip}
    chosen = wrong[source.pick("wrong method", wrong)]
    if chosen is _skip:
        raise Skip
    return chosen


def _modalities(scene: Scene, source: Source):
    made = scene.modalities()
    wrong = {"none": [], "not a list": made[0], "twice": [made[0], made[0]], "names": ["image", "text"], "nothing": None}
    if source.pick("asked", ("all doors", "doors of two")) == "doors of two":
        call = _asked(scene, source, ("rounds", "cross gradient", "emap", "feature dividends"))
        return lambda: call(first=(scene.model, scene.inputs, made[:1]))
    modalities = wrong[source.pick("modalities given", wrong)]
    call = _asked(scene, source)
    return lambda: call(first=(scene.model, scene.inputs, modalities))


def _donors(scene: Scene, source: Source):
    part = scene.parts[source.pick("which", range(len(scene.parts)))]
    if "data" not in part.baselines:
        raise Skip
    wrong = {"missing": None, "empty": {}, "of other length": {key: value[:, :1] if key == part.key else value
                                                                for key, value in scene.inputs.items()},
             "without it": {key: value for key, value in scene.inputs.items() if key != part.key}, "no mapping": 3}
    kind = source.pick("donors", wrong)
    if kind == "of other length" and scene.inputs[part.key].shape[1] == 1:
        raise Skip
    doors = [door for door in ("game", "sampled", "exact shapley", "occlusion", "kernel shap")]
    call = _asked(scene, source, doors)
    return lambda: call(baselines={part.name: "data"}, donors=wrong[kind])


def _number(scene: Scene, source: Source):
    first = scene.model, scene.inputs, scene.modalities()
    (text,) = [part for part in scene.parts if isinstance(part, Words)] or [None]
    wrong = {"top": lambda: rounds(*first, top=0, progress=False), "top of no modality": lambda: rounds(
                *first, top={"smell": 1}, progress=False), "half a top": lambda: rounds(*first, top=1.5, progress=False),
             "budget": lambda: explain(*first, "sampled shapley", budget=1),
             "negative budget": lambda: explain(*first, "kernel shap", budget=-5),
             "players": lambda: Game(*first, players={scene.parts[0].name: 0}, progress=False),
             "players of no modality": lambda: Game(*first, players={"smell": 2}, progress=False),
             "batch": (lambda: tokens.attribute(scene.model, scene.taken(), text.layer, special="keep", batch_size=0)) if text
             else _skip}
    chosen = wrong[source.pick("wrong number", wrong)]
    if chosen is _skip:
        raise Skip
    return chosen


def _inputs(scene: Scene, source: Source):
    part = scene.parts[source.pick("which", range(len(scene.parts)))]
    value = scene.inputs[part.key]
    wrong = {"no example": {key: v[:0] if key in scene.own else v for key, v in scene.inputs.items()},
             "one less of one": {**scene.inputs, part.key: value[:-1]}, "no batch axis": {**scene.inputs, part.key: value[0]},
             "not finite": {**scene.inputs, part.key: value * np.nan} if value.is_floating_point() else None,
             "missing": {key: v for key, v in scene.inputs.items() if key != part.key}, "a list": list(scene.inputs.values()),
             "nothing": None, "a word": "cat.jpg"}
    inputs = wrong[source.pick("wrong inputs", wrong)]
    if inputs is None:
        raise Skip
    call = _asked(scene, source)
    return lambda: call(first=(scene.model, inputs, scene.modalities()))
