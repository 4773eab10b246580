"""What is kept of each model that a verdict is tried on: its logits.

A verdict that was changed is read from them anew, and nothing is trained again.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from crossexplain.files import digest, embedded_folder, write_whole
from crossexplain.gradients.record import Record


def logits_of(record: Record) -> dict[str, dict[str, list[float]]]:
    """Return the only logit of all views, to be kept as JSON: by baseline and view a list of N numbers."""
    found = {}
    for (baseline, view), one in record.passes.items():
        found.setdefault(baseline, {})[view] = np.round(one.logits[:, 0].double().numpy(), 4).tolist()
    return found


def views_of(kept: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, Tensor]]:
    """Return kept logits as a verdict takes them, (N, 1) each."""
    return {baseline: {view: torch.tensor(values)[:, None] for view, values in views.items()}
            for baseline, views in kept.items()}


def lines(wanted: Sequence[tuple], judged: Callable[..., dict], kept: Path) -> list[dict]:
    """Return ``judged(*one)`` of each that is wanted, in order; a run that was cut off goes on where it stopped."""
    found = json.loads(kept.read_text("utf-8")) if kept.is_file() else []
    for one in wanted[len(found):]:
        found.append(judged(*one))
        write_whole(kept, lambda part: part.write_text(json.dumps(found, default=float), "utf-8"))
    return found


def kept_at(name: str, *same: Path | ModuleType | Callable | str | int) -> Path:
    """Return where lines are kept: another file for other modules, functions and values that the logits come from."""
    code = [Path(one.__file__) if isinstance(one, ModuleType) else inspect.getsource(one) if callable(one) else one
            for one in same]
    return embedded_folder().parent / "_build" / name / f"{digest(*code)[:16]}.json"
