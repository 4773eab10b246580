"""The benchmark of conversations: shortcuts that there are not, what counts as right, and the figures that it makes."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from benchmarks import conversations as bench
from benchmarks.studies import turns
from crossexplain.data.conversations import KIND_MODALITIES, KINDS, MODALITIES, load
from crossexplain.intervals import Interval
from crossexplain.recipes.conversations import new_model

DATA = load()
BATCH = DATA.build("test", bench.UNITS, 3)


@pytest.mark.parametrize("only", [only for many in (1, 2) for only in combinations(MODALITIES, many)], ids=" and ".join)
def test_no_model_of_fewer_modalities_can_beat_a_coin_where_more_decide(only):
    best = bench.best_possible(BATCH, only)
    for kind in KINDS:
        needs, of = set(KIND_MODALITIES[kind]), BATCH.kinds == kind
        if kind not in ("redundant", "added"):
            assert best[of].mean() == (1 if needs <= set(only) else 0.5), kind
    assert (bench.best_possible(BATCH, MODALITIES) == 1).all()


def test_in_small_talk_nobody_gives_a_number():
    inputs = bench.small_talk(DATA, 48, 0)
    assert len(inputs["words"]) == 48 and inputs["words"].any(dim=1).all()
    first = bench.replace(BATCH, digits=np.full_like(BATCH.digits, -1))
    assert not any(part.any() for part in first._holding().values())


def test_a_verdict_is_right_if_it_names_what_decides_and_nothing_else():
    assert bench.judged(("words",), (("words",),), "who by words") == (True, False)
    assert bench.judged((), (), "parity") == (False, False), "it cannot tell"
    assert bench.judged(MODALITIES, (MODALITIES,), "parity") == (True, False)
    assert bench.judged(MODALITIES, (MODALITIES,), "words and sound") == (False, True)
    assert bench.judged(("words", "sound"), (("words", "sound"),), "parity") == (False, False)
    each = tuple((name,) for name in MODALITIES)
    assert bench.judged(MODALITIES, each, "redundant") == (True, False)
    assert bench.judged(MODALITIES, (MODALITIES,), "redundant") == (False, True), "no interaction is needed"
    assert bench.judged(MODALITIES, (), "added") == (True, False), "which modalities may be sure where the parts are not"


def test_all_subsets_of_modalities_are_asked_and_the_whole_is_the_whole():
    model, few = new_model().eval(), BATCH.select(range(8))
    values, target = bench.of_subsets(model, few)
    logits = model(**few.inputs())
    assert values.shape == (8, 8)
    assert np.allclose(values[:, -1] * (2 * target - 1), logits.detach(), atol=1e-4)
    yes, _ = bench.of_subsets(model, few, target=1, baseline="data", donors=bench.small_talk(DATA, 8, 0))
    assert np.allclose(yes[:, -1], logits.detach(), atol=1e-4)


def test_every_figure_is_made_of_the_table():
    titles = [*turns.BLIND, *turns.METHODS, *turns.SLOW, *bench.ROUNDS, "cross gradient", "chance", "parties permuted"]
    rates = [bench.line(title, metric, Interval(0.5, 0.4, 0.6, 9)) for title in titles for metric in turns.METRICS]
    rates.append(bench.line("exact Shapley", "turn recall", Interval(0.9, 0.8, 1, 9)))
    for title in ("verdict", "paper's rule"):
        rates += [bench.line(title, metric, Interval(1, 1, 1, 9)) for metric in ("subset right", "subset false alarm")]
    rates.append(bench.line("dividends", "order 3 sign", Interval(1, 1, 1, 9)))
    some = [" and ".join(only) + " alone" for many in (1, 2) for only in combinations(MODALITIES, many)]
    for title in [*bench.SIBLINGS.values(), *some]:
        rates += [bench.line(title, "accuracy", Interval(0.7, 0.6, 0.8, 9))]
        rates += [bench.line(title, f"accuracy, {kind}", Interval(0.6 + 0.01 * i, 0, 1, 9)) for i, kind in enumerate(KINDS)]
    for metric in ("accuracy where more decide", "best possible accuracy", "best possible accuracy where more decide"):
        rates += [bench.line(title, metric, Interval(0.5, 0.5, 0.5, 9)) for title in some]
    table = pd.DataFrame(rates).drop_duplicates(["title", "metric"], keep="last")
    found = {row["id"]: row for row in bench.figures(table)}
    assert found["turn.recall"]["value"] == 0.9 and "exact Shapley" in found["turn.recall"]["unit"]
    assert found["conversations.worst_kind"]["value"] == 0.6 and found["conversations.unimodal"]["value"] == 0.7
    wanted = "conversations.accuracy conversations.bimodal chunk.recall party.right subset.right order3.sign"
    assert set(wanted.split()) | {"turn.recall.rounds", "turn.recall.previous_turn", "party.right.permuted"} <= set(found)
