"""HD-XOR: two vectors whose label is the exclusive or of two bits, in one of them, in both, or spread over them.

The synthetic data of InterSHAP (Wenderoth et al. 2024, "Measuring Cross-Modal Interactions in Multimodal Models"), and the
fully connected early fusion that it is measured on. The paper's appendix and its published code differ in the sizes, means
and noise. The code's are the ones used here: with them the paper's F1 scores come out (synergy 92.4, redundancy 97.4), with
the appendix's one model each gets 99.8 and 99.5.
"""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SETTINGS = ("synergy", "uniqueness", "redundancy", "random")
EXAMPLES, HIDDEN = 20_000, 200  # pairs, and numbers that the two bits are written into before they are projected
WIDTHS = (200, 100)  # numbers of each modality
SHIFT = {"synergy": 0.35, "uniqueness": 0.35, "redundancy": 0.25}  # mean of the numbers of a bit: minus for 0, plus for 1
NOISE = {"synergy": 2.0, "uniqueness": 1.0, "redundancy": 1.0}  # their standard deviation


@dataclass(frozen=True)
class HdXor:
    """Pairs of two vectors.

    Attributes
    ----------
    first, second : Tensor, shape (N, 200) and (N, 100)
    labels : Tensor, shape (N,), int64
    bits : Tensor, shape (N, 2), int64
        What the label is the exclusive or of; of *random*, drawn without any use.
    """

    first: Tensor
    second: Tensor
    labels: Tensor
    bits: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, rows=slice(None)) -> dict[str, Tensor]:
        """Return the keyword inputs of a model for some pairs."""
        return {"first": self.first[rows], "second": self.second[rows]}


def build(setting: str, seed: int, n: int = EXAMPLES) -> dict[str, HdXor]:
    """Draw one data set.

    =========== =============================================================================
    setting     where the two bits are
    =========== =============================================================================
    synergy     one in each vector
    uniqueness  both in the first vector; the second is noise
    redundancy  both in each vector, the same numbers seen by two projections
    random      nowhere; the labels are drawn
    =========== =============================================================================

    Parameters
    ----------
    setting : str
        One of ``SETTINGS``.
    seed : int
    n : int
        Pairs.

    Returns
    -------
    dict of str to HdXor
        ``"train"`` (70 %), ``"validation"`` and ``"test"`` (15 % each), with as many of each label.

    Raises
    ------
    ValueError
        For an unknown setting and fewer than 20 pairs.

    Examples
    --------
    >>> parts = build("synergy", seed=0, n=100)
    >>> {name: len(part) for name, part in parts.items()}
    {'train': 70, 'validation': 15, 'test': 15}
    """
    if setting not in SETTINGS:
        raise ValueError(f"got setting {setting!r}, expected one of {', '.join(map(repr, SETTINGS))}.")
    if n < 20:
        raise ValueError(f"got n={n}, expected at least 20 pairs: they are divided into three parts with both labels.")
    rng = np.random.default_rng([seed, SETTINGS.index(setting)])
    bits = rng.integers(0, 2, (n, 2))
    projections = [rng.uniform(-0.5, 0.5, (HIDDEN, width)) for width in WIDTHS]
    if setting == "random":
        labels, shared = rng.integers(0, 2, n), rng.normal(0.5, 1.0, (n, HIDDEN))
        hidden = [shared, shared]
    else:
        labels, hidden = bits[:, 0] ^ bits[:, 1], _hidden(setting, bits, rng)
    vectors = [(numbers @ projection).astype(np.float32) for numbers, projection in zip(hidden, projections)]
    whole = HdXor(*map(torch.from_numpy, vectors), torch.from_numpy(labels), torch.from_numpy(bits))
    train, rest = train_test_split(np.arange(n), test_size=0.3, stratify=labels, random_state=seed)
    held, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    return {name: HdXor(whole.first[rows], whole.second[rows], whole.labels[rows], whole.bits[rows])
            for name, rows in (("train", train), ("validation", held), ("test", test))}


def _hidden(setting: str, bits: np.ndarray, rng) -> list[np.ndarray]:
    """Return the numbers (N, 200) that each modality is a projection of."""
    means = SHIFT[setting] * (2 * bits - 1)  # (N, 2)
    if setting == "synergy":
        return [rng.normal(means[:, [k]], NOISE[setting], (len(bits), HIDDEN)) for k in range(2)]
    written = rng.normal(means.repeat(HIDDEN // 2, axis=1), NOISE[setting])  # one half of the numbers a bit
    return [written, written if setting == "redundancy" else rng.normal(0.0, 1.0, written.shape)]


SEEDS = (1, 42, 113)  # of weights and order, InterSHAP's
EPOCHS, BATCH, RATE = 200, 400, 1e-4


class Concatenated(nn.Module):
    """Two vectors, concatenated, and three layers, each half as wide as the one before.

    Parameters
    ----------
    widths : tuple of int
        Numbers of the two vectors.
    """

    def __init__(self, widths: tuple[int, int] = WIDTHS):
        super().__init__()
        width = sum(widths)
        self.layers = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width // 4), nn.ReLU(),
                                    nn.Linear(width // 4, 2))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the logits of the two classes, shape (N, 2); a vector may come as a row of one, (N, 1, D)."""
        return self.layers(torch.cat([first.flatten(1), second.flatten(1)], dim=1))

    @torch.no_grad()
    def every(self, first: Tensor, second: Tensor) -> Tensor:
        """Return how far the logit of class 1 is above that of class 0 for every pair of vectors, (N, M).

        The first layer is linear: it is computed once for each vector and added for each pair.
        """
        layer, rest = self.layers[0], self.layers[1:]
        seen, said = layer.weight.split([first.shape[1], second.shape[1]], dim=1)
        one, other = first @ seen.T, second @ said.T + layer.bias
        rows = [rest(row + other).diff(dim=1)[:, 0] for row in one]
        return torch.stack(rows)


def train(data: HdXor, seed: int, epochs: int = EPOCHS) -> Concatenated:
    """Train as InterSHAP does: Adam with a constant rate and weight decay within the gradient, the last epoch is kept.

    :func:`crossexplain.models.training.fit` decouples the decay and chooses the best epoch, which would be another model.

    Parameters
    ----------
    data : HdXor
    seed : int
    epochs : int

    Returns
    -------
    Concatenated
        In eval mode, frozen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Concatenated()
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=1e-4)
        for _ in range(epochs):
            for rows in torch.randperm(len(data)).split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(**data.inputs(rows)), data.labels[rows]).backward()
                optimizer.step()
    return model.requires_grad_(False).eval()
