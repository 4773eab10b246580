"""The trial of the verdict: its split, its truth, its sampling, and that a run goes on where it stopped."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.studies.architectures import ARCHITECTURES, UNLEARNABLE, LateFusion
from crossexplain.models.cnn_lstm import Tower
from crossexplain_book import bench


@pytest.fixture(scope="module")
def trial(request):
    spec = importlib.util.spec_from_file_location("trial", request.config.rootpath / "benchmarks" / "trial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(**columns):
    """Return models that learned the text control, with some columns changed."""
    usual = {"control": "text", "p": 1.0, "architecture": "early fusion", "seed": 0, "truth": "text alone", "accuracy": 1.0,
             "unchanged, another image": 1.0, "unchanged, another text": 0.5}
    n = len(next(iter(columns.values())))
    given = {key: key.replace(", ", "_").replace(" ", "_") for key in usual}
    return pd.DataFrame({key: columns.get(given[key], [value] * n) for key, value in usual.items()})


def test_no_model_that_sets_a_threshold_is_judged(trial):
    chosen = set(trial.models(trial.CHOSEN_ON["seeds"], trial.CHOSEN_ON["architectures"]))
    judged = set(trial.models(range(trial.SEEDS), tuple(ARCHITECTURES)))
    assert not chosen & judged and not {seed for *_, seed, _ in chosen} & {seed for *_, seed, _ in judged}
    assert {"dual encoder", "cross-attention"} == {a for *_, a in judged} - {a for *_, a in chosen}
    assert len(judged) == 20 * (9 * 4 - 1) and not {(kind, a) for kind, _, _, a in judged} & UNLEARNABLE
    with pytest.raises(bench.BenchError, match="got seeds 90 to 109.*100 to 108"):
        trial.rows(90)


def test_controls_of_seeds_that_thresholds_were_chosen_on_are_refused():
    from benchmarks import verdict

    with pytest.raises(bench.BenchError, match="got seeds 95 to 114.*100 to 108.*start at another"):
        verdict.rows(95)


def test_a_model_that_did_not_learn_or_does_not_do_what_it_should_is_no_truth(trial):
    models = table(accuracy=[1.0, 0.9, 1.0], unchanged_another_image=[1.0, 1.0, 0.8])
    assert trial.known(models).tolist() == [True, False, False]
    shortcut = table(control=["shortcut"] * 3, p=[0.5] * 3, accuracy=[0.74, 0.74, 0.6],
                     unchanged_another_image=[0.95, 0.7, 1.0])
    assert trial.known(shortcut).tolist() == [True, False, False]
    assert trial.learned(shortcut).tolist() == [True, True, False]
    assert trial.whole_truth(shortcut).tolist()[:2] == ["text alone", "partly text, partly both"]
    for said, right, alarms in (("both only", 0.5, 0.5), ("partly text, partly both", 1.0, 0.0)):
        shortcut[trial.OURS] = ["text alone", said, "both only"]
        values = {row["id"]: row["value"] for row in trial.doubtful(shortcut)}
        assert values == {"trial.mixed": 0.5, "trial.mixed_too.right": 0.5, "trial.mixed_too.false_alarms": alarms,
                          "trial.all.right": right, "trial.all.false_alarms": alarms, "trial.all.abstained": 0.0}
    image = table(control=["image"] * 2, truth=["image alone"] * 2, unchanged_another_image=[0.5] * 2,
                  unchanged_another_text=[1.0, 0.7])
    assert trial.known(image).tolist() == [True, False]


def test_answers_come_from_thresholds_of_the_chosen_models(trial):
    rng = np.random.default_rng(0)
    truth = np.array(["both only", "text alone"] * 20)
    lines = pd.DataFrame({"truth": truth, **{name: "either" for name in (trial.OURS, trial.PADDED, trial.RULE)}})
    for reads in trial.READS.values():
        for name in reads:
            lines[name] = rng.random(40)
    lines["interaction"] = np.where(truth == "both only", 0.8, 0.1)
    new = lines.iloc[[0, 1]].assign(interaction=[0.2, 0.7])
    said = trial.answers(lines, new)
    assert said["InterSHAP"].tolist() == ["text alone", "both only"] and said[trial.OURS].tolist() == ["either", "either"]


def test_the_verdict_is_read_from_the_logits_that_were_kept(trial):
    random = np.random.default_rng(0)
    image, text = random.normal(size=(2, 200))
    views = {"full": image + text, "text masked": image, "image masked": text, "all masked": 0 * text}
    kept = {name: {view: values.tolist() for view, values in views.items()} for name in ("zero + mask", "data", "zero + pad")}
    kept["zero + pad"] |= {"text masked": (0 * text).tolist()}
    line = trial.read({"control": "additive", "seed": 3, "logits": kept})
    assert line[trial.OURS] == "both added" and line[trial.PADDED] == "cannot tell" and "logits" not in line
    assert line["flips, image masked"] == pytest.approx(np.mean((text > 0) != (image + text > 0)))
    assert line["seed"] == 3 and line["sum accounts for"] == pytest.approx(1) and line["verdict, data"] == "both added"


def test_shares_of_the_text_are_of_the_model_that_is_given(trial):
    torch.manual_seed(0)
    model, seen, tokens = LateFusion().eval(), torch.rand(3, 4, 10).softmax(dim=2), torch.randint(2, 20, (3, 7))
    with torch.no_grad():
        values = trial.shapley(model, seen, tokens, 4, 0)
        alone = model.see(seen) - model.see(torch.zeros_like(seen))  # of a sum, the cells share what the picture adds
    assert torch.allclose(values["image"].sum(dim=1), alone[:, 0], atol=1e-5)
    whole = trial.shapley(trial.Whole(model), seen, tokens, 4, 0)
    assert all(torch.allclose(whole[name], values[name], atol=1e-5) for name in values)


def test_every_picture_meets_every_sentence(trial):
    torch.manual_seed(0)
    model, seen = LateFusion().eval(), torch.rand(4, 4, 10).softmax(dim=2)
    tokens = torch.randint(2, 20, (4, 7))
    every = trial.met(model, seen, tokens)
    with torch.no_grad():
        assert every[2, 1] == pytest.approx(float(model(seen[2:3], tokens[1:2])), abs=1e-5)
        assert torch.allclose(every.diagonal(), model(seen, tokens), atol=1e-5)


def test_passes_are_rows_that_went_through_the_model(trial):
    model = LateFusion().eval()
    seen, tokens = torch.rand(6, 4, 10), torch.ones(6, 5, dtype=torch.long)
    with trial.Counter(model) as counter:
        passes, seconds = counter.of(lambda: [model(seen, tokens) for _ in range(4)], 6, 3)
    assert passes == 12 and seconds > 0
    model(seen, tokens)
    assert counter.rows == 24  # not counted any more


def test_a_trial_that_was_cut_off_goes_on_where_it_stopped(trial, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "CONTROLS", kinds := [("text", 1.0), ("both", 1.0)])
    monkeypatch.setattr(trial, "kept_in", lambda: tmp_path)
    trained = SimpleNamespace(model=SimpleNamespace(tower=Tower()))
    monkeypatch.setattr(trial, "load_or_train", lambda *_, **__: trained)
    monkeypatch.setattr(trial, "prepare", lambda kind, bank, tower, seed, p: (kind, seed))
    done = []

    def stumbling(kind, bank, tower, seed, architecture, p, prepared):
        assert prepared == (kind, seed)
        if len(done) == 3:
            done.append(None)
            raise KeyboardInterrupt
        done.append((kind, seed, architecture))
        return kind

    monkeypatch.setattr(trial, "train", stumbling)
    monkeypatch.setattr(trial, "judged", lambda control, seed, p: {"control": control, "seed": seed, "value": np.float32(0.5)})
    with pytest.raises(KeyboardInterrupt):
        trial.lines_of(range(0, 7), ("early fusion", "late fusion"), kinds)
    lines = trial.lines_of(range(0, 7), ("early fusion", "late fusion"), kinds)
    done.remove(None)
    assert len(set(done)) == len(done) == len(lines) == 7 * 3 and lines[0]["value"] == 0.5
    assert [line["seed"] for line in lines] == [seed for seed in range(7) for _ in range(3)]
    assert trial.lines_of(range(3, 5), ("late fusion",), kinds[:1]) == lines[10:14:3] and len(done) == 7 * 3  # all kept


def test_logits_are_kept_by_code_and_not_by_verdict(trial, monkeypatch):
    kept = trial.kept_in()
    monkeypatch.setattr(trial.judging, "ENOUGH", 0.5)
    assert trial.kept_in() == kept
    monkeypatch.setattr(trial, "MET", 5)
    assert trial.kept_in() != kept
