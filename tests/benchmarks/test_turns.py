"""Scores of explanations of conversations, held to a model that knows by construction what decides."""

from functools import cached_property

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.studies import turns
from crossexplain.data import conversations
from crossexplain.data.conversations import K, L, S, T

BATCH = conversations.load().build("test", 120, 0)


class Oracle(nn.Module):
    """Answers rightly, in units of its logit, where a deciding digit of each modality can still be read, and else with 0."""

    layers = {name: f"input:{name}" for name in conversations.MODALITIES}

    def __init__(self, batch):
        super().__init__()
        self.given, self.labels = batch.inputs(), torch.from_numpy(batch.labels)
        self.any_does = torch.from_numpy(batch.kinds == "redundant")
        known = batch.truth
        self.chunks = {"words": known.words} | {name: known.chunks[name] for name in ("frames", "sound")}
        self.chunks = {name: torch.from_numpy(part).unflatten(1, (T, -1)) for name, part in self.chunks.items()}

    def forward(self, row, question, party, words, frames, sound, frames_present=None, sound_present=None):
        read, named = [], []
        for (name, chunks), given in zip(self.chunks.items(), (words, frames, sound)):
            same = given == self.given[name][row]
            same = (same if same.ndim == 2 else same.all(dim=2)).unflatten(1, (T, -1))
            named.append(chunks[row].any(dim=2))
            read.append((same & chunks[row]).any(dim=2))
        named, read = torch.cat(named, dim=1), torch.cat(read, dim=1)
        decided = torch.where(self.any_does[row], read.any(dim=1), (read | ~named).all(dim=1))
        return decided * (self.labels[row] * 6.0 - 3.0) + 0 * frames.sum(dim=(1, 2))


class Known(turns.Case):
    """Conversations that say which they are."""

    @cached_property
    def inputs(self):
        return {"row": torch.arange(len(self.batch)), **self.batch.inputs()}


@pytest.fixture(scope="module")
def case():
    return Known(Oracle(BATCH).eval(), BATCH)


def test_what_decides_by_construction_is_found_by_hiding_it(case):
    assert case.right.all()
    found = turns.scores_of(case, 0, {title: turns.METHODS[title] for title in ("exact Shapley", "occlusion by group")})
    for metric, (by, of) in turns.METRICS.items():
        values = of(found["exact Shapley"][by], case.truth[by])
        assert values.shape == (120,) and (values.mean() > 0.99 if metric != "time overlap" else values.mean() > 0.5), metric
    redundant = BATCH.kinds == "redundant"
    hidden = turns.recall(found["occlusion by group"]["turn"], case.truth["turn"])
    assert hidden[~redundant].mean() > 0.99
    assert turns.recall(found["occlusion by group"]["chunk"], case.truth["chunk"]).mean() < 0.95, "two frames show the same"


def test_sampling_finds_it_too_and_an_attention_that_is_not_there_is_no_method(case):
    few = Known(case.model, BATCH.select(range(0, 16)))
    scores = turns.sampled(few, 0)
    assert turns.recall(scores["turn"], few.truth["turn"]).mean() > 0.95
    assert scores["chunk"].shape == few.truth["chunk"].shape


def test_baselines_need_no_model_and_chance_is_the_share_of_what_decides(case):
    found = turns.scores_of(case, 0, turns.BLIND)
    many = (BATCH.party > 0).sum(axis=1)
    last, before = (found[title]["turn"] for title in ("the last turn", "the turn before"))
    last, before = np.nan_to_num(last, nan=-9), np.nan_to_num(before, nan=-9)
    assert (last.argmax(axis=1) == many - 1).all() and (before.argmax(axis=1) == many - 2).all()
    chance = turns.chances(case)
    for title in turns.BLIND:
        for by in turns.BY:
            assert found[title][by].shape == case.truth[by].shape
            assert np.isnan(found[title][by][~case.present[by]]).all()
        assert abs(turns.recall(found[title]["turn"], case.truth["turn"]).mean() - chance["turn recall"].mean()) < 0.2
    assert (chance["party right"] >= 1 / 4).all() and case.truth["party"][~case.present["party"]].sum() == 0
    null = turns.permuted(case, case.truth["turn"].astype(float), 0).mean()
    assert 0.2 < null < 0.8


def test_metrics_by_hand():
    scores, truth = np.array([[3.0, 2.0, 1.0, np.nan]]), np.array([[False, True, False, False]])
    assert turns.recall(scores, truth) == [0] and turns.reciprocal_rank(scores, truth) == [0.5]
    assert turns.reciprocal_rank(np.array([[1.0, 1.0, 0.0]]), truth[:, :3]) == [2 / 3]
    chunks = np.zeros((1, T * (2 + K + S)))
    known = chunks > 0
    known[0, 0] = True  # the first phrase of the first turn, its moments 0 to 2
    chunks[0, 2 * T] = 1  # the first frame, its moments 0 and 1
    assert turns.overlap(chunks, known) == pytest.approx([2 / 3])
    assert turns.ticks().sum() == 3 * T * turns.TICKS and L == 10


def test_chunks_are_where_the_groups_say(case):
    turn, place = turns._places()
    for i, name in enumerate(case.groups["chunk"].names):
        what, number, _, _, of = name.split()
        assert int(of) == turn[i] + 1
        assert place[i] == {"phrase": 0, "frame": 2, "segment": 2 + K}[what] + int(number) - 1
