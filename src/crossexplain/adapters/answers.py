"""How likely an answer is after a prompt: what is judged of a generative model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.adapters import parts
from crossexplain.checks import InputError
from crossexplain.gradients.modalities import Inputs

# How a model is called: it gives logits (R, T, V), the prompt's positions the last ones.
Way = Callable[[nn.Module, dict[str, Any]], Tensor]


def logits_of(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return the logits of every next word, (R, T, V)."""
    logits: Tensor = model(**inputs).logits
    return logits


@dataclass(frozen=True)
class Answer:
    """Calls a model and returns one number a row: how likely an answer is.

    Of one token the log-odds, ``log p - log(1 - p)``; with ``against``, another token, the log-odds of the one against the
    other. Of several tokens their mean log-probability, each after those before it.

    Attributes
    ----------
    ids : tuple of int
        Tokens of the answer.
    against : tuple of int
        The token of another answer, or none.
    text, mask : str
        Keywords of the prompt's ids and of its attention mask; the answer follows the last token that is attended.
    way : callable
        How the model is called.
    start : int, optional
        Where an encoder reads the prompt: the id that a decoder begins with.
    along : tuple of (str, int)
        Further inputs (R, T) that go on with the answer, and their value there.
    places : bool
        Number the tokens that are attended from 0, for a model that would count padding in front as well.
    """

    ids: tuple[int, ...]
    against: tuple[int, ...] = ()
    text: str = "input_ids"
    mask: str = "attention_mask"
    way: Way = logits_of
    start: int | None = None
    along: tuple[tuple[str, int], ...] = ()
    places: bool = False

    @property
    def is_next(self) -> bool:
        """Whether the next token alone is judged."""
        return len(self.ids) == 1

    @property
    def longest(self) -> int:
        """How many tokens are put after the prompt."""
        return 0 if self.start is not None or self.is_next else len(self.ids)

    def __call__(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Return one number a row, (R,)."""
        if self.is_next:
            scores = self._next(model, inputs)
            chosen = scores[:, self.ids[0]]
            if self.against:
                return chosen - scores[:, self.against[0]]
            others = scores.index_fill(1, torch.tensor(self.ids, device=scores.device), -torch.inf)
            return chosen - others.logsumexp(dim=1)
        return self._mean(model, inputs)

    def last(self, inputs: Inputs) -> Tensor:
        """Return the position of each prompt's last token, (R,)."""
        ids: Tensor = inputs[self.text]
        attended: Tensor | None = inputs.get(self.mask)
        if attended is None:
            return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
        places = torch.arange(ids.shape[1], device=ids.device)
        return (places * (attended != 0)).amax(dim=1)

    def _logits(self, model: nn.Module, inputs: Inputs, length: int) -> Tensor:
        """Return the logits at the last ``length`` positions, (R, length, V)."""
        given = dict(inputs)
        if parts.takes(model, "use_cache"):
            given.setdefault("use_cache", False)
        if self.places and "position_ids" not in given and self.mask in given:
            given["position_ids"] = ((given[self.mask] != 0).cumsum(dim=1) - 1).clamp(min=0)
        logits = self.way(model, given)
        if logits.ndim != 3 or logits.shape[1] < length:
            raise InputError(f"the model gives logits {tuple(logits.shape)}, expected one row of the vocabulary for each of "
                             f"{length} tokens; pass target=..., a function of the output.")
        return logits[:, -length:].float()

    def _next(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Return the logits of the token after the prompt, (R, V)."""
        if self.start is not None:
            first = torch.full((len(inputs[self.text]), 1), self.start, device=inputs[self.text].device)
            return self._logits(model, {**inputs, "decoder_input_ids": first}, 1)[:, 0]
        last = self.last(inputs)
        logits = self._logits(model, inputs, inputs[self.text].shape[1])
        return logits[torch.arange(len(last), device=last.device), last]

    def _mean(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Return the mean log-probability of the answer's tokens, (R,)."""
        ids = inputs[self.text]
        answer = torch.tensor(self.ids, device=ids.device).expand(len(ids), -1)  # (R, A)
        if self.start is not None:
            before = torch.cat([torch.full_like(answer[:, :1], self.start), answer[:, :-1]], dim=1)
            logits = self._logits(model, {**inputs, "decoder_input_ids": before}, len(self.ids))
        else:
            place = self.last(inputs)[:, None] + torch.arange(len(self.ids), device=ids.device)  # that each is predicted at
            longer = self._longer(inputs, answer, place + 1)
            logits = self._logits(model, longer, longer[self.text].shape[1])
            logits = logits.gather(1, place[..., None].expand(-1, -1, logits.shape[2]))
        return logits.log_softmax(dim=2).gather(2, answer[..., None])[..., 0].mean(dim=1)

    def _longer(self, inputs: Inputs, answer: Tensor, place: Tensor) -> dict[str, Any]:
        """Return the inputs with the answer after each prompt's last token."""
        ids, more = inputs[self.text], answer.shape[1]

        def grown(values: Tensor, fill: Tensor | int) -> Tensor:
            values = torch.cat([values, values.new_zeros((len(values), more))], dim=1)
            return values.scatter(1, place, torch.as_tensor(fill, device=values.device).to(values.dtype).expand_as(place))

        longer = {**inputs, self.text: grown(ids, answer)}
        if self.mask in inputs:
            longer[self.mask] = grown(inputs[self.mask], 1)
        longer |= {key: grown(inputs[key], value) for key, value in self.along if key in inputs}
        for key, value in inputs.items():
            if isinstance(value, Tensor) and value.shape == ids.shape and longer[key] is value:
                raise InputError(f"input {key!r} has a number for every token of the prompt and none for the answer's; pass an "
                                 "answer of one token, or leave it out.")
        return longer
