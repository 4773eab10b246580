"""Which turns explanations of a reader of dialogues name: what is asked, of whom, and what needs no model."""

import numpy as np
import pytest
import torch

from benchmarks.studies import causes
from crossexplain.data.dialogues import EMOTIONS, Dialogue, Turn
from crossexplain.models.dialogue import DialogueHead
from crossexplain.recipes import dialogues as recipe

SPEAKERS, FELT = ("Joey", "Ann", "Joey", "Joey"), ("neutral", "neutral", "neutral", "joy")


@pytest.fixture
def case():
    turns = tuple(Turn(speaker, emotion, "made up") for speaker, emotion in zip(SPEAKERS, FELT))
    marked = [((3, 1),), ((3, 0), (3, 3)), ((3, 3),), ()]
    windows = recipe.Windows.of([Dialogue(i, turns, pairs) for i, pairs in enumerate(marked)], torch.randn(
        16, 5, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    model = DialogueHead(5, recipe.SPEAKERS, recipe.TURNS, len(EMOTIONS), width=16).eval()
    torch.nn.init.normal_(model.out[1].weight)
    return causes.Case.of(model, windows)


def test_only_turns_that_people_gave_a_cause_are_asked_about(case):
    assert len(case) == 3 and case.windows.turn.tolist() == [3, 3, 3]
    assert case.causes[:, -4:].astype(int).tolist() == [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1]]
    allowed, about = causes.asked(case, "same or earlier")
    assert allowed.sum(axis=1).tolist() == [4] * 3 and about.all()
    allowed, about = causes.asked(case, "earlier")
    assert allowed.sum(axis=1).tolist() == [3] * 3 and about.tolist() == [True, True, False]


def test_what_needs_no_model_names_what_it_says(case):
    blind = case.blind()
    top = {title: np.nanargmax(of, axis=1).tolist() for title, of in blind.items()}
    assert top[causes.SAME] == [9] * 3 and top[causes.BEFORE] == [8] * 3 and top[causes.OTHER] == [7] * 3
    assert all(np.array_equal(np.isnan(of), ~case.present) for of in blind.values())


def test_cases_part_by_who_caused_and_how_many(case):
    of = causes.cases(case, case.present)
    assert of["another speaker"].tolist() == [True, False, False] and of["the same speaker"].tolist() == [False, True, True]
    assert of["several causes"].tolist() == [False, True, False] and of["one cause"].tolist() == [True, False, True]
    assert of["named rightly"].tolist() == case.named.tolist()


def test_every_method_names_turns_or_says_why_it_cannot(case, monkeypatch):
    for title, (key, options) in causes.METHODS.items():
        monkeypatch.setitem(causes.METHODS, title, (key, {**options, "budget": 32} if "budget" in options else options))
    found = causes.all_scores(case)
    refused = {title for title, of in found.items() if isinstance(of, str)}
    assert refused <= {"DeepLIFT (Captum)"} and causes.ATTENTION in found
    exact = found[causes.EXACT]
    for title in ("occlusion by turn", "exact Banzhaf", causes.ATTENTION, "gradient norm"):
        assert np.array_equal(np.isnan(found[title]), ~case.present), title
    assert np.allclose(np.nansum(found["Shapley sampling (Captum)"], axis=1), np.nansum(exact, axis=1), atol=1e-3)
    lines = causes.table(case, found)
    chance = {(line["question"], line["case"]): line["value"] for line in lines if line["method"] == causes.CHANCE}
    assert chance["same or earlier", "all"] == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)
    assert chance["earlier", "another speaker"] == pytest.approx(1 / 3)
    before = [line for line in lines if line["method"] == causes.BEFORE and line["case"] == "all"]
    assert {(line["question"], line["metric"]): line["value"] for line in before} == pytest.approx(
        {("same or earlier", "recall at 1"): 0, ("same or earlier", "reciprocal rank"): (1 / 2 + 1 / 3 + 1 / 4) / 3,
         ("earlier", "recall at 1"): 0, ("earlier", "reciprocal rank"): (1 / 2 + 1 / 3) / 2})
    assert not any("made up" in str(line) for line in lines), "no word of a dialogue is in the table"


def test_a_disagreement_is_told_in_shares(case):
    scores = case.blind()[causes.BEFORE]
    found = causes.disagreement(case, scores)
    assert found["differ"].value == 1 and set(found) == {"differ", "model", "people", "before"}
    assert found["model"] == found["before"]
    one = causes.example(case, scores)
    assert not one or one["named by the model"] == 3
