"""Drawn models, inputs and calls: right or refused. The answers by hand are put to the test by faults made on purpose."""

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from benchmarks.studies.fuzzing import draws
from benchmarks.studies.fuzzing.draws import FAULTS, REFUSED_PLAIN, WRONG
from benchmarks.studies.fuzzing.source import Source
from crossexplain.gradients import question


@pytest.fixture(autouse=True)
def one_thread():
    """The models are so small that several threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_drawn_model_is_explained_rightly_or_refused(data):
    def choose(name, options, usual):
        return data.draw(st.integers(0, len(options) - 1), label=name)

    outcome = draws.run(Source(choose))
    assume(outcome is not None)
    assert outcome.kind not in (*FAULTS, REFUSED_PLAIN), f"{outcome.kind}: {outcome.picks}: {outcome.what}"


def test_most_draws_are_answered():
    kinds = Counter(outcome.kind for _, outcome in draws.draws(1, 60))
    assert kinds["right"] >= 30, kinds


def test_a_draw_is_repeated_by_its_choices():
    for number in range(5):
        outcome = draws.run(Source.seeded(2, number))
        assert outcome is None or draws.repeated(outcome.picks) == outcome


@pytest.mark.parametrize(("picks", "fault"), [
    ({"call": "game", "classes": "3"}, "evidence"),
    ({"call": "explain", "methods": "masks", "method": "feature ablation", "classes": "3"}, "evidence"),
    ({"call": "rounds"}, "rows_of"),
])
def test_a_fault_made_on_purpose_is_found(monkeypatch, picks, fault):
    def forgets_the_mean(logits, target):
        return logits.gather(1, target.to(logits.device)[:, None])[:, 0]

    def hands_out_other_rows(inputs, rows, *arguments, of=question.rows_of, **named):
        return of(inputs, rows.flip(0), *arguments, **named)

    assert draws.repeated(picks).kind == "right"
    monkeypatch.setattr(question, fault, {"evidence": forgets_the_mean, "rows_of": hands_out_other_rows}[fault])
    assert draws.repeated(picks).kind == WRONG
