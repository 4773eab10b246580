"""Calls that read one forward and one backward pass: capture, maps and word scores."""

import inspect

import numpy as np
import torch

from benchmarks.studies.fuzzing import oracle
from benchmarks.studies.fuzzing.asking import (
    Arrays,
    Call,
    Skip,
    array,
    expects,
    followed,
    layer_is_read,
    require_truth,
)
from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.parts import Part, Picture, Words
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source
from crossexplain import capture
from crossexplain.gradients import maps, tokens

CAMS = ("grad-cam", "saliency", "gradient x input", "grad-cam++", "xgrad-cam", "eigengrad-cam", "eigen-cam", "layer-cam",
        "hires-cam")
SIGNED = ("gradient x input",)  # of the maps; of the others only what is above 0 is kept
SCORES = ("l2", "raw", "mean", "l1", "gradient x input", "activation x gradient")


def slopes(scene: Scene, i: int, layers: list[str], score, part: Part | None = None) -> tuple[dict, dict]:
    """Return activations and gradients of one example by hand; where there is no gradient, none is right."""
    acts, grads = scene.truth.read(scene.truth.example(i), layers, score)
    for layer, gradient in grads.items():
        if gradient is None:
            raise NoTruth(f"no gradient at {layer}")
    return acts, grads


def capturing(scene: Scene, source: Source) -> Call:
    """Ask for activations and gradients at the layers of the modalities."""
    if scene.net.extra == "touching":
        raise Skip
    follow = followed(source, scene, signed=False)
    some = source.pick("layers", ["all", *[part.name for part in scene.parts]])
    read = [part for part in scene.parts if some in ("all", part.name)]
    layers = list(dict.fromkeys(part.layer for part in read))
    gradients = source.pick("gradients", (True, False), usual=0.8)
    named = any(layer.startswith("input:") for layer in layers) or list(scene.taken()) != list(scene.net.takes)
    by_position = scene.model is scene.net and not named and source.pick("by position", (False, True), usual=0.7)

    def ask() -> Arrays:
        given = tuple(scene.taken().values()) if by_position else scene.taken()
        with scene.mode():
            captured = capture(scene.model, given, layers, follow.given, gradients)
        found = {"score": array(captured.score)}
        for layer in layers:
            found[f"activation at {layer}"] = array(captured.activations[layer])
            if gradients:
                found[f"gradient at {layer}"] = array(captured.gradients[layer])
        return found

    def want() -> Arrays:
        require_truth(scene, question=False)
        batch = {part.layer: 1 if part.layout == "TND" else 0 for part in read}
        rows: dict[str, list] = {}
        for i in range(scene.n):
            score = follow.logit(i)
            acts, grads = scene.truth.read(scene.truth.example(i), layers, score)
            rows.setdefault("score", []).append(score(scene.truth.logits(scene.truth.example(i))[None]).reshape(1))
            for layer in layers:
                rows.setdefault(f"activation at {layer}", []).append(acts[layer])
                if gradients:
                    if grads[layer] is None:
                        raise NoTruth(f"no gradient at {layer}")
                    rows.setdefault(f"gradient at {layer}", []).append(grads[layer])
        return {key: array(torch.cat(values, dim=batch.get(key.partition(" at ")[2], 0))) for key, values in rows.items()}

    return Call(ask, want, expects(scene, follow, ()) and all(layer_is_read(scene, part) for part in read))


def _options(function, part: Part) -> dict:
    """Return what was declared of a layer, as far as a function takes it."""
    known = inspect.signature(function).parameters
    return {key: part.declared[key] for key in ("layout", "patches", "positions") if key in part.declared and key in known}


def mapping(scene: Scene, source: Source) -> Call:
    """Ask for maps over a picture, all of them or some."""
    pictures = [part for part in scene.parts if isinstance(part, Picture)]
    if not pictures or scene.net.extra == "touching":
        raise Skip
    (part,) = pictures
    methods = [source.pick("map", CAMS)] if source.pick("maps", ("one", "all")) == "one" else list(CAMS)
    sign = source.pick("sign", ("prediction", "for", "against"))
    kinds = ("nothing",) if sign == "prediction" else ("nothing", "one each", "column", "function")
    follow = followed(source, scene, kinds, signed=sign == "prediction")
    if scene.half and sign == "prediction":
        raise Skip  # half precision may predict another class
    positive = source.pick("positive", (None, True, False), usual=0.5)
    options = _options(maps.attribute, part)
    if "patches" in part.declared and "patches" not in options:
        options["grid"] = part.declared["patches"]

    def ask() -> Arrays:
        with scene.mode():
            heat = maps.attribute(scene.model, scene.taken(), part.layer, methods,
                                  None if sign == "prediction" else follow.given, sign, positive, **options)
        return {name: array(values) for name, values in heat.items()}

    def want() -> Arrays:
        require_truth(scene, question=False)
        found: dict[str, list] = {method: [] for method in methods}
        for i in range(scene.n):
            acts, grads = scene.truth.read(scene.truth.example(i), [part.layer], follow.logit(i))
            if grads[part.layer] is None and methods != ["eigen-cam"]:
                raise NoTruth(f"no gradient at {part.layer}")
            slope = torch.zeros_like(acts[part.layer]) if grads[part.layer] is None else grads[part.layer]
            a, g = (array(part.as_map(values)) for values in (acts[part.layer], slope))
            g = -g if sign == "against" else g
            for method in methods:
                values = oracle.heat(method, a, g)
                if scene.half and method == "xgrad-cam":  # divided by a sum that may be rounding
                    values = values * np.nan
                keep = method in SIGNED if positive is None else not positive
                found[method].append(values if keep else oracle.relu(values))
        return {method: np.stack(values) for method, values in found.items()}

    sound = expects(scene, follow, ("image.layout", "image.patches", "image.positions"))
    lost = any(key in part.declared and key not in options for key in ("positions", "layout"))  # the door has no such parameter
    return Call(ask, want, sound and not lost, loose=20)


def scoring(scene: Scene, source: Source) -> Call:
    """Ask for scores of tokens."""
    texts = [part for part in scene.parts if isinstance(part, Words)]
    if not texts or scene.net.extra == "touching":
        raise Skip
    (part,) = texts
    methods = [source.pick("score", SCORES)] if source.pick("scores", ("one", "all")) == "one" else list(SCORES)
    special, scale = source.pick("special", ("drop", "keep", "show")), source.pick("scale", (False, True))
    size = source.pick("batch size", (64, 1, 2), usual=0.6)
    follow = followed(source, scene, signed=False)
    truth = scene.truth
    words = torch.tensor([part.tokens(truth.example(i)) for i in range(scene.n)])
    options = _options(tokens.attribute, part)

    def ask() -> Arrays:
        with scene.mode():
            found = tokens.attribute(scene.model, scene.taken(), part.layer, methods, follow.given, special=special,
                                     special_tokens=None if special == "keep" else ~words, scale=scale, batch_size=size,
                                     **options)
        return {name: array(values) for name, values in found.items()}

    def want() -> Arrays:
        require_truth(scene, question=False)
        if not layer_is_read(scene, part):
            raise NoTruth("no vector a token")
        found = {method: np.full(words.shape, np.nan) for method in methods}
        for i in range(scene.n):
            acts, grads = slopes(scene, i, [part.layer], follow.logit(i))
            a, g = (array(part.rows(values[part.layer])) for values in (acts, grads))
            for method in methods:
                every = np.array([oracle.score_of_token(method, a[part.offset + t], g[part.offset + t])
                                  for t in range(words.shape[1])])
                competing = every if special == "keep" else every[words[i].numpy()]
                if scale:
                    largest = np.abs(competing).max()
                    rounding = largest < 1e-4 * np.abs(g if method in ("raw", "mean") else a * g).max()
                    every = every / (np.nan if rounding else largest or 1.0)
                found[method][i] = np.where(words[i].numpy() | (special != "drop"), every, np.nan)
        return found

    if "positions" in part.declared and "positions" not in options:
        raise Skip  # words of a joint sequence cannot be asked for
    turned = part.layout == "TND" and "layout" not in options
    sound = expects(scene, follow, ("text.layout", "text.positions")) and layer_is_read(scene, part)
    sound = sound and not ("a table of other length" in scene.notes and special == "keep")  # how many examples are there?
    return Call(ask, want, sound and not turned)
