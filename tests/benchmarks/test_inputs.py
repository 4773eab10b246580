"""Odd inputs of every reader: a result or a documented error, and nothing lost. The thousands are drawn by the command."""

from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st

from benchmarks import inputs
from benchmarks.studies.inputs import FAULTS, RESULT, Room, calls, counted, tried
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
