import pytest
import torch
from torch import nn

from crossexplain.checks import InputError
from crossexplain.models.training import (
    TensorBatches,
    TrainingError,
    accuracy,
    binary_loss,
    evaluate,
    fit,
    predict,
)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


def data(n=400, seed=0):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return TensorBatches({"x": x}, (x.sum(dim=1) > 0).long())


SETTINGS = {"epochs": 6, "lr": 0.05, "batch_size": 64, "seed": 3, "progress": False, "device": "cpu"}


def test_it_learns_and_says_what_it_did():
    model, train, validation = Line(), data(), data(seed=1)
    history = fit(model, train, validation, **SETTINGS)
    assert evaluate(model, validation) > 0.95 and not model.training
    assert len(history.train_loss) == len(history.validation_score) == 6
    assert history.train_loss[-1] < history.train_loss[0] and history.device == "cpu" and history.seconds > 0
    assert evaluate(model, validation) == max(history.validation_score)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_state():
    states, before = [], torch.random.get_rng_state()
    for seed in (3, 3, 4):
        torch.random.set_rng_state(before)
        model = Line()
        after = torch.random.get_rng_state()
        fit(model, data(), None, **SETTINGS | {"seed": seed})
        assert torch.equal(after, torch.random.get_rng_state())
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(tmp_path):
    whole, file = Line(), tmp_path / "run.pt"
    expected = fit(whole, data(), data(seed=1), **SETTINGS)
    calls = []

    def stumbling(logits, labels):
        calls.append(1)
        if len(calls) == 20:  # in the third epoch
            raise KeyboardInterrupt
        return binary_loss(logits, labels)

    with pytest.raises(KeyboardInterrupt):
        fit(Line(), data(), data(seed=1), checkpoint=file, loss=stumbling, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    resumed = Line()
    history = fit(resumed, data(), data(seed=1), checkpoint=file, **SETTINGS)
    assert history.train_loss == expected.train_loss and history.validation_score == expected.validation_score
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))
    finished = fit(Line(), data(), data(seed=1), checkpoint=file, loss=stumbling, **SETTINGS)  # nothing left to do
    assert finished.train_loss == expected.train_loss


def test_a_checkpoint_of_another_run_or_a_broken_one_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    fit(Line(), data(), None, checkpoint=file, **SETTINGS)
    with pytest.raises(TrainingError, match="belongs to another run"):
        fit(Line(), data(), None, checkpoint=file, **SETTINGS | {"lr": 0.01})
    with pytest.raises(TrainingError, match="holds another model"):
        fit(nn.Sequential(nn.Linear(2, 1)), data(), None, checkpoint=file, **SETTINGS)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be read.*delete it"):
        fit(Line(), data(), None, checkpoint=file, **SETTINGS)


def test_it_keeps_the_best_epoch():
    scores = iter([0.5, 0.9, 0.6, 0.7, 0.8, 0.85])
    history = fit(Line(), data(), data(), score=lambda *_: next(scores), **SETTINGS)
    assert history.validation_score == [0.5, 0.9, 0.6, 0.7, 0.8, 0.85] and history.best_epoch == 1


def test_of_epochs_that_score_alike_the_last_is_kept():
    scores = iter((1.0, 0.9, 1.0, 1.0, 0.8, 0.7))
    history = fit(Line(), data(), data(), score=lambda *_: next(scores), **SETTINGS)
    assert history.best_epoch == 3


def test_frozen_parameters_stay():
    model = Line()
    model.layers[0].requires_grad_(False)
    before = model.layers[0].weight.clone()
    fit(model, data(), None, **SETTINGS)
    assert torch.equal(before, model.layers[0].weight)


@pytest.mark.parametrize(("change", "message"), [
    ({"schedule": "warm"}, "expected one of 'one-cycle', 'constant'"),
    ({"epochs": 0}, "at least 1 of each"),
    ({"loss": lambda logits, labels: logits.sum() * float("nan")}, "loss became nan"),
])
def test_unusable_settings_are_told(change, message):
    with pytest.raises(InputError, match=message):
        fit(Line(), data(), None, **SETTINGS | change)


def test_unusable_data_and_models_are_told():
    with pytest.raises(TrainingError, match="lengths"):
        TensorBatches({"x": torch.zeros(3)}, torch.zeros(2))
    with pytest.raises(TrainingError, match="lengths"):
        TensorBatches({"x": torch.zeros(0)}, torch.zeros(0))
    with pytest.raises(TrainingError, match="no parameter with requires_grad"):
        fit(Line().requires_grad_(False), data(), None, **SETTINGS)


def test_accuracy_reads_one_logit_and_many():
    assert accuracy(torch.tensor([1.0, -1.0]), torch.tensor([1, 1])) == 0.5
    assert accuracy(torch.eye(3), torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)


def test_prediction_keeps_order_and_mode():
    model = Line().train()
    outputs, labels = predict(model, data(50), batch_size=7)
    assert model.training and outputs.shape == labels.shape == (50,)
    torch.testing.assert_close(outputs, model.eval()(data(50).inputs["x"]).detach())


@pytest.mark.parametrize("device", ["cuda", "gpu", "nope"])
def test_a_device_that_would_not_be_used_is_refused(device):
    with pytest.raises(TrainingError, match=f"got device '{device}', expected None .* or 'cpu'"):
        fit(Line(), data(), None, **SETTINGS | {"device": device})


def test_no_examples_to_judge_by_are_refused_before_training():
    class Nothing:
        def __len__(self):
            return 0

    model = Line()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(TrainingError, match="got 0 validation examples, expected at least 1, or None"):
        fit(model, data(), Nothing(), **SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    with pytest.raises(TrainingError, match="got 0 examples"):
        predict(model, Nothing())


def test_half_precision_learns_as_well_and_leaves_weights_in_single_precision():
    model = Line()
    fit(model, data(), data(seed=1), **SETTINGS, half=True)
    assert evaluate(model, data(seed=1)) > 0.95 and {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("halved", [True, False])
def test_a_processor_that_only_imitates_half_precision_computes_in_single(monkeypatch, halved):
    seen = []

    class Watched(torch.nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype == torch.bfloat16)
            return out[:, 0]

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: halved)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", bool)
    inputs = TensorBatches({"x": torch.randn(8, 3)}, torch.tensor([0, 1] * 4))
    fit(Watched(3, 1), inputs, None, epochs=1, lr=1e-3, seed=0, progress=False, device="cpu", half=True)
    assert seen == [halved]
