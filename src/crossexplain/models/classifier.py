"""What all classifiers of pictures share: they are cut in two at their last convolutional map."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from crossexplain.models.weights import seeded

SMALLEST = 32  # pixels; a smaller side would be pooled to nothing


class CutInTwo(nn.Module):
    """A classifier with ``model(images)`` equal to ``model.head(model.tower(images))``; subclasses define both."""

    tower: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]

    @classmethod
    def seeded(cls, seed: int, *settings: Any, **named: Any) -> Self:
        """Return a network with the initial weights of a seed; as :func:`crossexplain.models.weights.seeded`."""
        with seeded(seed):
            return cls(*settings, **named)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, C, S, S) in [0, 1]."""
        return self.head(self.tower(images))
