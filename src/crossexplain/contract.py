"""What a model has to offer so that its two modalities can be encoded one by one."""

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class TwoTowers(Protocol):
    """A model that encodes a picture and a text by themselves before they meet.

    ``model(images, tokens)`` gives the same logits as ``model.match(model.see(images), model.read(tokens))``, so that each
    distinct picture and each distinct text need to be encoded only once, however many pairs they occur in. Models say so with
    ``isinstance(model, TwoTowers)``; :class:`crossexplain.models.two_towers.TwoTowerModel` is a base class that has the rest.

    The names of the arguments of ``see`` and ``read`` are the names of the inputs that each of them takes.
    """

    @abstractmethod
    def see(self, images: Tensor) -> Tensor:
        """Return an encoding (N, ...) of each picture (N, ...)."""

    @abstractmethod
    def read(self, tokens: Tensor) -> Tensor:
        """Return an encoding (N, ...) of each text (N, T); may also take an ``attention_mask`` (N, T)."""

    @abstractmethod
    def match(self, seen: Tensor, read: Tensor) -> Tensor:
        """Return the logits (N,) of pairs of a picture and a text that were encoded before."""
