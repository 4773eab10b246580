"""The fully connected early fusion that InterSHAP is measured on, trained as it was published."""

import torch
from torch import Tensor, nn

from crossexplain.data.hdxor import WIDTHS, HdXor

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
