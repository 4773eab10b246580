"""Odd inputs of every reader: a result or a documented error, and nothing lost. The thousands are drawn by the command."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

from benchmarks import inputs
from benchmarks.studies.inputs import FAULTS, RESULT, Room, calls, counted, files, lines, tried
from crossexplain import InputError

EACH = 4
ROOMS = [room for _, room in inputs.listed()]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.delenv("CROSSEXPLAIN_DATA", raising=False)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("room", ROOMS, ids=[room.name for room in ROOMS])
def test_an_odd_input_is_answered_or_refused(room):
    for drawn, outcome in counted(room, max(1, round(EACH * room.weight)), number=1):
        assert outcome.kind not in FAULTS, (outcome, drawn)


@pytest.mark.parametrize("name", [name for name in calls.CALLS if name != "load_or_train"])
def test_the_usual_arguments_are_answered(name):
    call, right = calls.CALLS[name]
    call(**right())


SOUND = b"RIFFd\x06\x00\x00WAVEf>\x00\x00\x02\x00\x10\x00data@\x06\x00\x00\x00\x00I\x03\x8d\x03\x8d\x00"
PICTURE = files._parquet(("lists",), ("image",))
ENCODED = next(name for name in files._tree("encodings") if name.endswith("00013.json"))
MANIFEST = {name: one for name, one in json.loads(files._tree("run")["results/manifest.json"]).items() if name != "columns"}
FOUND = [  # what ended in no documented way when it was first drawn
    ("sound", SOUND), ("digits (IDX)", b""), ("digits (IDX)", b"\x1f\x8b"), ("table of reviews", b""),
    ("table of reviews", b"\xbc'"), ("labelled sentences", b"\xd4"), ("state of a training", ("state.pt", b"._")),
    ("card of a checkpoint", ("small.json", b"null")), ("kept encodings", (ENCODED, b'"x"')),
    ("kept encodings", (ENCODED, b'{"inputs": 16, "checksum": 2612282987, "lengths": "x"}')),
    ("manifest of a run, read", ("results/manifest.json", json.dumps(MANIFEST).encode())),
    ("manifest of a run, run again", ("results/manifest.json", json.dumps(MANIFEST).encode())),
    ("JSON lines of odd values", ("table.jsonl", b'{"label": 2}\n{"image": [[]], "text": ["a dog", "dogs"], "label": 2}')),
    ("Parquet of odd columns", ("a.parquet", PICTURE)), ("command merge", (["results"], [["--into", ""]], "")),
    ("command report", (["results"], [["--out", ""]], "")),
    ("command explain", (lines.USUAL["explain"], [["--device", "-9698"]], "")),
    ("preflight", {"modalities": "meta"}), ("Tokens", {"stay": "sparse"}), ("Game", {"target": "dates"}),
    ("Groups", {"owner": "{'image': 'x'}"}), ("Noise", {"sigma": "1180591620717411303424"}),
    *((name, {argument: odd}) for name, argument, odd in (
        ("rounds", "seed", "(2, 2)"), ("rounds", "extra", "cells"), ("rounds", "modalities", "scalar"),
        ("Game", "players", "two"), ("Game", "split", "pictures"), ("capture", "layers", "cells"),
        ("capture", "layers", "(1, 2, 3, 4)"), ("capture", "gradients", "1"), ("Called", "drop", "None"),
        ("adapt", "inputs", "mask"), ("ImageCells", "grid", "None"), ("ImageCells", "layer", "object"),
        ("ImageCells", "name", "1"), ("Tokens", "special", "cells"), ("Tokens", "stay", "1"),
        ("Tokens", "words", "namespace"), ("Tokens", "pad_id", "object"), ("Vectors", "layer", "longs"),
        ("Columns", "means", "Noise"), ("Video", "input", "set"), ("Groups", "names", "scalar"),
        ("Mask", "baseline", "array"), ("Mask", "keep", "class"), ("Noise", "seed", "None"), ("Noise", "sigma", "set"),
        ("Reorder", "seed", "two"), ("word_numbers", "encoding", "[['x']]"), ("store.find", "name", "{}"),
        ("runs.explain_dataset", "out", "NaN"), ("runs.explain_dataset", "subject", "0.5"),
        ("runs.explain_dataset", "device", "{1: 2}"), ("runs.read", "folder", "1"), ("runs.merge", "into", "3"))),
]


@pytest.mark.parametrize(("name", "drawn"), FOUND, ids=[f"{name} {number}" for number, (name, _) in enumerate(FOUND)])
def test_what_was_found_stays_mended(name, drawn):
    outcome = tried(next(room for room in ROOMS if room.name == name), drawn)
    assert outcome.kind not in FAULTS, outcome


def room_of(ask, **changes) -> Room:
    return replace(Room("a room", st.just(b"x"), lambda folder, drawn: (folder / "a").write_bytes(drawn) and folder, ask,
                        (InputError,)), **changes)


def test_what_is_foreign_lost_or_left_is_seen():
    def refuses(folder, words=""):
        raise InputError(words)

    assert tried(room_of(lambda folder: 1), b"x").kind == RESULT
    assert tried(room_of(lambda folder: {}["a"]), b"x").kind == "foreign"
    assert tried(room_of(refuses), b"x").kind == "without words"
    assert tried(room_of(lambda folder: (folder / "a").write_bytes(b"y")), b"x").kind == "lost"
    assert tried(room_of(lambda folder: (folder / "a").write_bytes(b"y"), mends=True), b"x").kind == RESULT
    assert tried(room_of(lambda folder: (folder / ".a.part").write_bytes(b"y")), b"x").kind == "left behind"
