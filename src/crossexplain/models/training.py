"""The one training loop: seeded, resumable, and the same on one core, a graphics card or several machines."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from crossexplain.checks import InputError, require_one_of
from crossexplain.files import write_whole

SCHEDULES = ("one-cycle", "constant")
GREATEST_NORM = 1.0  # of the gradient of a step, which is scaled down to it: one odd batch cannot throw the weights far off


class TrainingError(InputError):
    """Training cannot start, go on or be resumed; the message says what it got, what it expected and what to do."""


class Batches(Protocol):
    """Examples to train on: anything that has a length and gathers a batch by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the keyword inputs of the model and the labels for the examples with these numbers."""


class TensorBatches:
    """Examples held in memory.

    Parameters
    ----------
    inputs : mapping from keyword to Tensor, shape (N, ...)
        Passed to the model by keyword.
    labels : Tensor, shape (N, ...)

    Raises
    ------
    TrainingError
        If the tensors differ in length or hold nothing.

    Examples
    --------
    >>> data = TensorBatches({"x": torch.arange(6.0)}, torch.arange(6))
    >>> data.batch(torch.tensor([4, 1]))
    ({'x': tensor([4., 1.])}, tensor([4, 1]))
    """

    def __init__(self, inputs: Mapping[str, Tensor], labels: Tensor):
        self.inputs, self.labels = dict(inputs), labels
        lengths = {name: len(values) for name, values in self.inputs.items()} | {"labels": len(labels)}
        if len(set(lengths.values())) != 1 or not len(labels):
            raise TrainingError(f"inputs and labels have lengths {lengths}; expected one common length of at least 1.")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and labels of the examples with these numbers."""
        return {name: values[indices] for name, values in self.inputs.items()}, self.labels[indices]


@dataclass
class History:
    """What a training run did.

    Attributes
    ----------
    train_loss : list of float
        Mean loss of each epoch.
    validation_score : list of float
        Score of each epoch on the validation examples; empty without any.
    best_epoch : int
        Epoch, counted from 0, whose weights the model has now; of several with the same score the last.
    seconds : float
        Wall-clock time of training, over all resumed parts.
    device : str
        Where it ran.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)
    best_epoch: int = -1
    seconds: float = 0.0
    device: str = ""


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of correct answers.

    Parameters
    ----------
    logits : Tensor
        Of the labels' shape (one logit, above 0 means 1) or with one more axis at the end (one logit a class).
    labels : Tensor
    """
    answers = logits > 0 if logits.shape == labels.shape else logits.argmax(dim=-1)
    return (answers == labels).float().mean().item()


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of one logit an example with labels 0 and 1."""
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def fit(
    model: nn.Module,
    train: Batches,
    validation: Batches | None,
    *,
    epochs: int,
    lr: float,
    seed: int,
    loss: Callable[[Tensor, Tensor], Tensor] = binary_loss,
    score: Callable[[Tensor, Tensor], float] = accuracy,
    batch_size: int = 256,
    weight_decay: float = 0.01,
    schedule: str = "one-cycle",
    progress: bool = True,
    checkpoint: Path | None = None,
    device: str | None = None,
    half: bool = False,
) -> History:
    """Train a model with AdamW and leave it in eval mode with the weights of its best epoch.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters with ``requires_grad`` are trained, in place.
    train, validation : Batches
        Without validation examples the last epoch counts as the best.
    epochs, batch_size : int
    lr, weight_decay : float
        ``lr`` is the highest learning rate of the schedule.
    seed : int
        Order of the examples and dropout; the caller's random state is as before afterwards.
    loss : callable
        ``loss(output, labels)`` gives one number.
    score : callable
        ``score(output, labels)``, the higher the better, on the whole validation set.
    schedule : {"one-cycle", "constant"}
        One-cycle: up for three tenths of the steps, then down along a cosine (Smith and Topin 2018).
    progress : bool
        Show a progress bar that names the device.
    checkpoint : Path, optional
        File to write after each epoch. If it exists, training goes on from it and ends in the same weights as a run that was
        never cut off; a finished one is returned at once.
    device : {"cpu"}, optional
        Stay on the CPU; by default accelerate chooses the device by its own settings.
    half : bool
        Multiply matrices in bfloat16 where the processor has instructions for it, which takes about half of the time; weights
        stay in float32.

    Returns
    -------
    History

    Raises
    ------
    TrainingError
        For unusable settings, a loss that is not finite, and a checkpoint of another run or a broken one.
    """
    _require_settings(model, train, validation, epochs, batch_size, schedule, device)
    accelerator = Accelerator(cpu=device == "cpu")
    optimizer = torch.optim.AdamW([weights for weights in model.parameters() if weights.requires_grad], lr=lr,
                                  weight_decay=weight_decay)
    scheduler = _scheduler(optimizer, schedule, lr, epochs * math.ceil(len(train) / batch_size))
    model.to(accelerator.device)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "schedule": schedule,
                "seed": seed, "examples": len(train), "half": half}
    run = _Run({"model": model, "optimizer": optimizer, "scheduler": scheduler}, settings, str(accelerator.device))
    if checkpoint is not None and Path(checkpoint).exists():
        run.resume(Path(checkpoint))
    bar = tqdm(total=epochs, initial=run.epoch, disable=not progress, unit="epoch", desc=f"training on {accelerator.device}")
    devices = list(range(torch.cuda.device_count())) if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), bar:
        while run.epoch < epochs:
            started = time.perf_counter()
            torch.manual_seed(seed * 1_000_003 + run.epoch)  # by epoch: a resumed run draws what an uncut one would
            mean = _epoch(accelerator, wrapped, optimizer, scheduler, train, batch_size, loss, half)
            scored = None if validation is None else evaluate(model, validation, score, batch_size)
            run.note(mean, scored, time.perf_counter() - started)
            if checkpoint is not None and accelerator.is_main_process:
                run.save(Path(checkpoint))
            bar.set_postfix({"loss": f"{mean:.4f}"} | ({} if scored is None else {"validation": f"{scored:.4f}"}))
            bar.update()
    model.load_state_dict(run.best)
    model.eval()
    return run.history


@torch.no_grad()
def predict(model: nn.Module, data: Batches, batch_size: int = 1024) -> tuple[Tensor, Tensor]:
    """Return the model's outputs in eval mode and the labels, for all examples in order.

    Returns
    -------
    outputs, labels : Tensor, shape (N, ...)
        On the CPU.

    Raises
    ------
    TrainingError
        If there are no examples.
    """
    if not len(data):
        raise TrainingError("got 0 examples, expected at least 1.")
    was_training = model.training
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    outputs, labels = [], []
    for start in range(0, len(data), batch_size):
        inputs, answers = data.batch(torch.arange(start, min(start + batch_size, len(data))))
        outputs.append(model(**_to(inputs, device)).float().cpu())
        labels.append(answers.cpu())
    model.train(was_training)
    return torch.cat(outputs), torch.cat(labels)


def evaluate(model: nn.Module, data: Batches, score: Callable[[Tensor, Tensor], float] = accuracy,
             batch_size: int = 1024) -> float:
    """Return ``score(outputs, labels)`` of a model in eval mode over all examples."""
    return float(score(*predict(model, data, batch_size)))


class _Run:
    """The state of a training run, as it is written to and read from a checkpoint.

    Parameters
    ----------
    parts : dict of str to object
        What has a state: the model, the optimizer and the scheduler.
    settings : dict
        Of the run, which a checkpoint has to share.
    device : str
    """

    def __init__(self, parts: dict[str, Any], settings: dict[str, Any], device: str):
        self.parts, self.settings, self.epoch, self.history = parts, settings, 0, History(device=device)
        self.best = _copy(parts["model"].state_dict())

    def note(self, loss: float, score: float | None, seconds: float) -> None:
        """Record one epoch, and keep its weights if they are the best so far."""
        scores = self.history.validation_score
        # Of equal scores the last: a small validation set is soon all correct, while the learning rate is still high.
        if score is None or not scores or score >= max(scores):
            self.best, self.history.best_epoch = _copy(self.parts["model"].state_dict()), self.epoch
        self.history.train_loss.append(loss)
        scores += [] if score is None else [score]
        self.history.seconds += seconds
        self.epoch += 1

    def save(self, path: Path) -> None:
        state = {"settings": self.settings, "epoch": self.epoch, "history": asdict(self.history), "best": self.best,
                 **{name: part.state_dict() for name, part in self.parts.items()}}
        write_whole(path, lambda file: torch.save(state, file))

    def resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.history.device, weights_only=True)
        except Exception as error:  # a broken file raises whatever its parser meets first
            raise TrainingError(f"training checkpoint {path} cannot be read ({type(error).__name__}: it is broken or "
                                "something else); delete it to train from the start.") from error
        other = state.get("settings") if isinstance(state, dict) else type(state).__name__
        if other != self.settings:
            raise TrainingError(f"training checkpoint {path} belongs to another run: it has {other}, this run has "
                                f"{self.settings}; delete it or name another file.")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except RuntimeError as error:
            raise TrainingError(f"training checkpoint {path} holds another model ({error}); name another file.") from error
        self.epoch, self.best = state["epoch"], state["best"]
        self.history = History(**state["history"] | {"device": self.history.device})


def _epoch(accelerator: Accelerator, model: nn.Module, optimizer: Any, scheduler: Any, train: Batches, batch_size: int,
           loss: Callable[[Tensor, Tensor], Tensor], half: bool) -> float:
    """Run through the training examples once and return the mean loss."""
    model.train()
    half = half and _halves(accelerator.device.type)
    total = torch.zeros((), device=accelerator.device)
    order = torch.randperm(len(train))
    for chosen in order.split(batch_size):
        # Several processes share a batch; a last batch smaller than their number is taken whole by each.
        mine = chosen[accelerator.process_index :: accelerator.num_processes]
        inputs, labels = train.batch(mine if len(mine) else chosen)
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=half):
            outputs = model(**_to(inputs, accelerator.device))
        value = loss(outputs.float() if half else outputs, labels.to(accelerator.device))
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(value)
        accelerator.clip_grad_norm_(model.parameters(), GREATEST_NORM)
        optimizer.step()
        scheduler.step()
        total += value.detach() * len(chosen)
    mean = (total / len(train)).item()
    if not math.isfinite(mean):
        raise TrainingError(f"the loss became {mean}; lower the learning rate, or look for NaN among the inputs.")
    return mean


def _halves(device: str) -> bool:
    """Return whether half precision saves time on a device: a CPU without instructions for it emulates it very slowly."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device != "cpu" or any(getattr(torch.cpu, name, bool)() for name in checks)


def _scheduler(optimizer: torch.optim.Optimizer, schedule: str, lr: float, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=0.3)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _require_settings(model: nn.Module, train: Batches, validation: Batches | None, epochs: int, batch_size: int,
                      schedule: str, device: str | None) -> None:
    require_one_of(schedule, SCHEDULES, "schedule")
    if device not in (None, "cpu"):
        raise TrainingError(f"got device {device!r}, expected None (accelerate chooses, a GPU where there is one) or 'cpu'.")
    if len(train) < 1 or epochs < 1 or batch_size < 1:
        raise TrainingError(f"got {len(train)} examples, {epochs} epochs and batches of {batch_size}, expected at least 1 of "
                            "each.")
    if validation is not None and len(validation) < 1:
        raise TrainingError("got 0 validation examples, expected at least 1, or None to take the last epoch.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TrainingError(f"{type(model).__name__} has no parameter with requires_grad; unfreeze what is to be trained.")


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.detach().clone() for name, values in state.items()}


def _to(inputs: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in inputs.items()}
