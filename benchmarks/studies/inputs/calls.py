"""Public functions called with one or two arguments that are something else, and the model looked at afterwards."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import crossexplain as door
from benchmarks.studies import killed
from benchmarks.studies.faults.jobs import FETCHED
from benchmarks.studies.inputs import Room
from benchmarks.studies.inputs.files import _among, _tree
from crossexplain import runs
from crossexplain.data import store
from crossexplain.models.weights import WeightsError

N = 2
METHODS = ("cross gradient", "gradient norm", "occlusion", "sampled shapley", "exact shapley", "grad-cam",
           "integrated gradients", "kernel shap", "feature dividends", "raw", "emap")


def _fails(*_: object, **__: object) -> None:
    raise RuntimeError("the caller's own function fails")


ODD: dict[str, Callable[[], object]] = {  # made anew for each call
    **{repr(value): lambda value=value: value for value in (
        None, True, False, 0, -1, 1, 3, 2**31, 2**70, 0.5, -0.5, float("nan"), float("inf"), 1j, "", "x", "image", "text",
        "tokens", "data", "zeros", "round 2", "out", "out.0", "🙂", "\ud800", b"x", (), (1,), (0, 0), (2, 2), (-1, 2), (2.5, 2),
        (1, 2, 3, 4))},
    "[]": list, "{}": dict, "set": set, "[None]": lambda: [None], "['x']": lambda: ["x"], "[['x']]": lambda: [["x"]],
    "{'image': None}": lambda: {"image": None}, "{'image': 1}": lambda: {"image": 1}, "{'image': 'x'}": lambda: {"image": "x"},
    "{1: 2}": lambda: {1: 2}, "{'x': {}}": lambda: {"x": {}}, "{'x': {'image': 1}}": lambda: {"x": {"image": 1}},
    "{'images': 1}": lambda: {"images": 1}, "object": object, "function": lambda: lambda *_, **__: None,
    "same": lambda: lambda value: value, "class": lambda: int, "generator": lambda: iter([1]), "range": lambda: range(3),
    "path": lambda: Path("x"), "slice": lambda: slice(1), "...": lambda: ..., "namespace": SimpleNamespace,
    "linear": lambda: nn.Linear(2, 2),
    "module": lambda: nn.Module(), "no number": lambda: torch.tensor([]), "scalar": lambda: torch.tensor(0),
    "two": lambda: torch.zeros(2), "longs": lambda: torch.zeros(2, dtype=torch.long),
    "truths": lambda: torch.ones(2, dtype=torch.bool),
    "pictures": lambda: torch.rand(2, 3, 8, 8), "NaN": lambda: torch.full((2, 3, 8, 8), torch.nan),
    "numbers": lambda: torch.ones(2, 4, dtype=torch.long),
    "mask": lambda: torch.ones(2, 4, dtype=torch.bool), "complex": lambda: torch.zeros(2, dtype=torch.complex64),
    "sparse": lambda: torch.eye(2).to_sparse(), "meta": lambda: torch.zeros(2, device="meta"),
    "grad": lambda: torch.ones(2, requires_grad=True),
    "half": lambda: torch.zeros(2, dtype=torch.float16), "array": lambda: np.zeros(2),
    "objects": lambda: np.array([None, "x"], object),
    "dates": lambda: np.array(["2020"], "datetime64[D]"), "Mask": door.Mask, "Noise": lambda: door.Noise(1.0),
    "Reorder": door.Reorder,
    "cells": lambda: door.ImageCells(layer="image"), "[cells]": lambda: [door.ImageCells(layer="image")],
    "tokens twice": lambda: [door.Tokens(layer="text"), door.Tokens(layer="text")],
    "groups": lambda: door.Groups(("a", "b"), {"text": torch.tensor([0, 0, 1, 1])}),
}


def _model() -> nn.Module:
    return killed.Small().eval().requires_grad_(False)


def _inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"images": torch.rand(N, 3, 8, 8, generator=generator), "tokens": torch.randint(2, 12, (N, 4), generator=generator)}


def _modalities() -> list[door.Modality]:
    return [door.ImageCells(layer="image", grid=(2, 2)), door.Tokens(layer="text", special=())]


def _asked() -> dict[str, Any]:
    return {"model": _model(), "inputs": _inputs(), "modalities": _modalities()}


def _in_rounds(part: object, of: str) -> object:
    """Ask with a modality that was made of odd things."""
    image, text = _modalities()
    return door.rounds(_model(), _inputs(), [part, text] if of == "image" else [image, part], progress=False, interactions=1)


def _of_rows(part: object) -> object:
    """Ask a model of plain numbers with a modality that was made of odd things."""
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 1)

        def forward(self, rows: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
            """Return logits (N,)."""
            return self.out(rows.float().flatten(1)[:, :4]).flatten()

    shape = (N, 3, 2, 4, 4) if isinstance(part, door.Video) else (N, 4, 2) if isinstance(part, door.Vectors) else (N, 4)
    return door.explain(Net().eval(), {"rows": torch.rand(shape)}, [part], "occlusion", baselines="zero")


def _viewed(mask: object) -> object:
    return door.rounds(**_asked(), extra={"own": {"image": mask}}, progress=False, interactions=1)


CALLS: dict[str, tuple[Callable, Callable[[], dict[str, Any]]]] = {  # what is called, and arguments that are right
    "rounds": (door.rounds, lambda: {**_asked(), **dict.fromkeys(("baselines", "target", "donors", "extra")), "top": 1,
                                     "pick": "round 2", "by": "gradient", "draws": 1, "control": False, "interactions": 1,
                                     "sharing": False, "rows": 512, "progress": False, "seed": 0}),
    **{f"explain, {method}": (door.explain, lambda method=method: {
        **_asked(), "method": method, **dict.fromkeys(("baselines", "target", "donors", "groups")), "budget": 16, "seed": 0})
        for method in METHODS},
    "preflight": (door.preflight, lambda: {**_asked(), "labels": None, "target": None, "seed": 0}),
    "Game": (lambda **given: door.Game(**given).values_of_all(), lambda: {
        **_asked(), **dict.fromkeys(("baselines", "players", "target", "donors")), "rows": 512, "split": True,
        "progress": False}),
    "capture": (door.capture, lambda: {"model": _model(), "inputs": _inputs(), "layers": ["image"],
                                       "target": None, "gradients": True, "allow_unused": False, "any_mode": False}),
    "Called": (lambda **given: door.capture(door.Called(**given), _inputs(), "image"), lambda: {
        "model": _model(), "call": None, "output": None, "common": (), "drop": ()}),
    "adapt": (door.adapt, lambda: {"model": _model(), "processor": None, "inputs": _inputs(), "special": (), "pad_id": 0,
                                   "mask_id": 1, "grid": (2, 2), "image_layer": "image", "text_layer": "text"}),
    "ImageCells": (lambda **given: _in_rounds(door.ImageCells(**given), "image"), lambda: {
        "name": "image", "input": "images", "layer": "image", "grid": (2, 2),
        **dict.fromkeys(("layout", "patches", "positions"))}),
    "Tokens": (lambda **given: _in_rounds(door.Tokens(**given), "text"), lambda: {
        "name": "text", "input": "tokens", "layer": "text", "mask_id": 1, "pad_id": 0, "special": (), "along": (), "stay": (),
        **dict.fromkeys(("attention", "lengths", "special_mask", "words", "padding_side", "positions", "layout"))}),
    "Vectors": (lambda **given: _of_rows(door.Vectors(**given)), lambda: {
        "name": "rows", "input": "rows", "along": (), "stay": (),
        **dict.fromkeys(("layer", "attention", "positions", "layout"))}),
    "Columns": (lambda **given: _of_rows(door.Columns(**given)), lambda: {
        "name": "rows", "input": "rows", **dict.fromkeys(("layer", "positions", "means"))}),
    "Video": (lambda **given: _of_rows(door.Video(**given)), lambda: {
        "name": "video", "input": "rows", "grid": (2, 2, 2), **dict.fromkeys(("layer", "layout", "read_as"))}),
    "Groups": (lambda **given: door.explain(**_asked(), groups=door.Groups(**given)), lambda: {
        "names": ("a", "b"), "owner": {"text": torch.tensor([0, 0, 1, 1])}}),
    "Mask": (lambda **given: _viewed(door.Mask(**given)), lambda: {"keep": None, "baseline": "zero", "donors": None}),
    "Noise": (lambda **given: _viewed(door.Noise(**given)), lambda: {"sigma": 1.0, "seed": 0}),
    "Reorder": (lambda **given: door.rounds(**_asked(), extra={"own": {"text": door.Reorder(**given)}}, progress=False,
                                            interactions=1), lambda: {"seed": 0}),
    "word_numbers": (door.word_numbers, lambda: {"encoding": [[None, 0, 1, None]]}),
    "Interval": (door.Interval, lambda: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}),
    "load_or_train": (door.load_or_train, lambda: {"name": "nothing", "profile": "embedded", "progress": False,
                                                   "size": "small"}),
    "store.find": (partial(store.find, offline=True), lambda: {"name": "sklearn-digits"}),
}


def rooms() -> Iterator[Room]:
    """Give every public function."""
    weights = {"rounds": 3.0, "Game": 1.5, "adapt": 1.5, "preflight": 1.5}
    for name, (call, right) in CALLS.items():
        weight = 0.4 if name.startswith("explain, ") else 0.2 if name in ("Interval", "Reorder", "load_or_train") else 1.0
        yield Room(name, _odd(list(right())), lambda _, drawn: drawn, partial(_called, call, right),
                   (door.InputError, WeightsError, *FETCHED), weights.get(name, weight))
    tree = _tree("run")
    placed = _among(partial(_tree, "run"))
    file = "results/manifest.json", tree["results/manifest.json"]
    for name, (call, right) in {"runs.explain_dataset": (runs.explain_dataset, _of_run),
                                "runs.read": (runs.read, lambda: {"folder": "results"}),
                                "runs.merge": (runs.merge, lambda: {"folder": "results", "into": None})}.items():
        yield Room(name, _odd(list(right())), lambda folder, drawn: (placed(folder, file), drawn), partial(
            _called_there, call, right), (door.InputError,), 1.0, mends=True)


def _of_run() -> dict[str, Any]:
    return {"subject": killed.subject(), "data": killed.Data(n=4, broken=()), "method": "rounds", "out": "out", "shard": (0, 1),
            "where": (), "limit": None, "baselines": ("neutral",), "budget": 16, "seed": 0, "part": 2, "batch": 2, "threads": 1,
            "device": None, "progress": False, "dry_run": False}


def _odd(names: list[str]) -> st.SearchStrategy[dict[str, str]]:
    """Draw for one or two arguments the key of something odd."""
    return st.dictionaries(st.sampled_from(names), st.sampled_from(list(ODD)), min_size=1, max_size=2)


def _called(call: Callable, right: Callable[[], dict], drawn: Mapping[str, str]) -> None:
    given = {**right(), **{name: ODD[key]() for name, key in drawn.items()}}
    model = given.get("model")
    before = _state(model)
    try:
        call(**given)
    finally:
        if _state(model) != before:
            raise AssertionError("hooks, modes or flags of the model are not as they were")


def _called_there(call: Callable, right: Callable[[], dict], placed: tuple[Path, Mapping[str, str]]) -> None:
    from contextlib import chdir

    with chdir(placed[0]):
        _called(call, right, placed[1])


def _state(model: object) -> list:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return [(module.training, len(module._forward_hooks), len(module._forward_pre_hooks),
             [parameter.requires_grad for parameter in module.parameters(recurse=False)]) for module in modules]
