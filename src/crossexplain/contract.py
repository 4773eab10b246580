"""What a model has to offer so that its modalities, or the parts of each, can be encoded one by one."""

from abc import abstractmethod
from collections.abc import Mapping
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


@runtime_checkable
class EncodesParts(Protocol):
    """A model that encodes every part of every modality by itself before the parts meet: the turns of a conversation.

    ``model(**inputs)`` gives the same logits as ``model.join({name: model.encode(name, inputs) for name in modalities},
    inputs)``. So each part needs to be encoded only as it is and as it is when hidden, in however many coalitions of parts it
    occurs. Whatever needs one part alone, such as the keys and values of an attention, belongs into ``encode``.

    A model of which ``join`` sees nothing but sums over the parts may say so with ``pooled = True`` and have
    ``join_pooled(sums, inputs)``, which gives the same logits for the sums (R, D) by modality; then ``encode`` gives zeros for
    a part that an example does not have.
    """

    @abstractmethod
    def encode(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return an encoding of each part of a modality, (R, T, D).

        The F features of the modality divide in order, and evenly, among the T parts, and nothing of another part and of
        another modality may count. ``inputs`` holds all that the model takes.
        """

    @abstractmethod
    def join(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (R,) or (R, C) of parts (R, T, D) by modality; ``inputs`` holds what belongs to no modality."""
