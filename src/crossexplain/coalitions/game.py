"""What a model does, exactly: its value of every coalition of features, for up to 20 players.

v(S) is the evidence for the followed class with only the features of S there, the others masked. With twelve players (four
cells, eight words) that is 4,096 values an example. A model that says how it splits, by ``see``, ``read`` and ``match``, is
asked by its parts: each tower encodes each of its own sets once, 16 + 256 of them, and only the head sees every pair.
:mod:`crossexplain.coalitions.shapley` makes Shapley values, interactions and best orders of the table.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from crossexplain.checks import InputError, class_index
from crossexplain.contract import TwoTowers
from crossexplain.gradients.capture import first_tensor
from crossexplain.gradients.modalities import Inputs, Modality, require_modalities, rows_of

MOST = 2**20  # coalitions of an example
MATCHED = 8192  # pairs that go through a head at once: small beside the towers, and large enough to be quick
AGREE = 1e-3  # largest difference, beside the size of the logits, of two ways to the same logit


class Cost(NamedTuple):
    """What a table costs.

    Attributes
    ----------
    coalitions : int
        Of all examples together; as many passes of the whole model where it does not split.
    encoded : dict of str to int
        Rows that each tower encodes; empty where the model does not split.
    seconds : float
        Estimated from what was asked before, on this machine.
    """

    coalitions: int
    encoded: dict[str, int]
    seconds: float


class _Part(NamedTuple):
    """A tower: what encodes a modality, and the inputs that it takes."""

    encode: Callable[..., Tensor]
    takes: tuple[str, ...]


class Game:
    """The value of a model with only some players there, for N examples.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; called as ``model(**inputs)``. Asked by its parts if it has ``see`` and ``read``, one for each of two
        modalities, and ``match``, which makes logits of what they return.
    inputs : mapping of str to Tensor
        N examples.
    modalities : sequence of Modality
        Whose features are the players.
    baselines : mapping of str to str, optional
        What stands in for masked features; default each modality's neutral one. ``"data"`` borrows from the donor of the same
        number.
    players : mapping from modality to int or Tensor, optional
        Which player each feature belongs to: int64 (F,) or (N, F), from 0, -1 for features that are never masked; or a
        number k, for neighbours in at most k groups of nearly the same size. Default: every feature for itself.
    target : int or Tensor of shape (N,), optional
        Class to follow; default the predicted one. Of a single logit, 1 is yes and 0 is no.
    donors : mapping of str to Tensor, optional
        For ``"data"``.
    rows : int
        Most rows that go through a tower, or the whole model, at once.
    split : bool
        False asks the whole model even where it has parts.
    progress : bool
        Show a progress bar, and the cost before it begins, when the work takes longer than some seconds.

    Attributes
    ----------
    names : tuple of P str
        Modality of each player.
    present : Tensor of bool, shape (N, P)
        Which players an example has; the others change nothing.
    splits : bool
        Whether the model is asked by its parts.
    target : Tensor of int64, shape (N,)

    Raises
    ------
    InputError
        For a model in train mode, one that does not answer the same twice, one whose parts do not make its logits, and
        players that do not fit.

    Examples
    --------
    >>> from crossexplain.gradients.modalities import Tokens, Vectors
    >>> class Product(nn.Module):
    ...     def forward(self, seen, tokens):
    ...         return seen[:, :, 0].sum(dim=1) * (tokens > 1).sum(dim=1)
    >>> inputs = {"seen": torch.tensor([[[2.0], [1.0]]]), "tokens": torch.tensor([[5, 7]])}
    >>> game = Game(Product().eval(), inputs, [Vectors("image", "seen"), Tokens()], players={"text": 1}, progress=False)
    >>> game.names
    ('image', 'image', 'text')
    >>> game.table().tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 2.0, 6.0]]
    """

    def __init__(self, model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
                 baselines: Mapping[str, str] | None = None, players: Mapping[str, int | Tensor] | None = None,
                 target: int | Tensor | None = None, donors: Inputs | None = None, rows: int = 512, split: bool = True,
                 progress: bool = True):
        if model.training:
            raise InputError("the model is in train mode, where dropout draws anew each time; call model.eval() first.")
        self.model, self.inputs, self.donors, self.rows, self.progress = model, inputs, donors, rows, progress
        self.modalities = require_modalities(modalities)
        self.baselines = {m.name: m.require_baseline((baselines or {}).get(m.name, m.baselines[0])) for m in self.modalities}
        if "data" in self.baselines.values() and donors is None:
            raise InputError("the baseline 'data' borrows from other examples; pass them as donors=...")
        self._number(players or {})
        self._parts = _parts(model, inputs, self.modalities) if split else None
        self._table: Tensor | None = None
        self._clock: dict[str, tuple[float, int]] = {}  # by what is asked: seconds and rows so far
        self._begin(target)

    def __len__(self) -> int:
        return len(self.present)

    @property
    def splits(self) -> bool:
        """Return whether the model is asked by its parts."""
        return self._parts is not None

    def _number(self, players: Mapping[str, int | Tensor]) -> None:
        """Find the players: ``names``, ``present``, and for each modality the player of each feature."""
        unknown = set(players) - {m.name for m in self.modalities}
        if unknown:
            raise InputError(f"players names {sorted(unknown)}, the modalities are {[m.name for m in self.modalities]}.")
        self._owner, names, present = {}, [], []
        for modality in self.modalities:
            there = modality.features(self.inputs).cpu()
            owner, count = _owners(players.get(modality.name), there, modality.name)
            self._owner[modality.name] = owner
            names += [modality.name] * count
            present.append(((owner[:, None] == torch.arange(count)[:, None]) & there[:, None]).any(dim=2))
        self.names, self.present = tuple(names), torch.cat(present, dim=1)

    @torch.no_grad()
    def _begin(self, target: int | Tensor | None) -> None:
        """Ask about the whole examples, twice: which class is followed, and does the model answer the same again?"""
        everyone = torch.arange(len(self))
        with self._timed("whole", len(self)):
            logits = self._logits(everyone)
        several = logits.shape[1] > 1
        if target is None:
            self.target = logits.argmax(dim=1) if several else (logits[:, 0] > 0).long()
        else:
            self.target = class_index(target, max(2, logits.shape[1]), len(self))
        few = everyone[: min(len(self), 32)]
        whole = self._of_logits(logits[few], few)
        found = self.values(torch.ones(len(few), len(self.names), dtype=torch.bool), few)
        worst = (found - whole).abs().max()
        if worst > AGREE * max(1.0, float(whole.abs().max())):
            what = "match(see(...), read(...)) gives other logits than the model itself; mend them or pass split=False" \
                if self.splits else "the model gives other logits when it is asked again; switch off what draws at random"
            raise InputError(f"{what} (largest difference {float(worst):.2g}).")

    def _logits(self, examples: Tensor) -> Tensor:
        """Return the logits of whole examples, (n, C)."""
        found = [_two_axes(first_tensor(self.model(**rows_of(self.inputs, some, len(self)))), len(some))
                 for some in examples.split(self.rows)]
        return torch.cat(found)

    def _of_logits(self, logits: Tensor, examples: Tensor) -> Tensor:
        """Return the evidence for the followed class, float64 (n,): its logit, less the mean where there are several."""
        logits, target = logits.double().cpu(), self.target.cpu()[examples]
        if not logits.isfinite().all():
            example = int(examples[(~logits.isfinite()).any(dim=1)][0])
            raise InputError(f"the model gives NaN or infinity for example {example} with some features masked; look at what "
                             f"the baselines {self.baselines} make of it.")
        if logits.shape[1] == 1:
            return logits[:, 0] * (2 * target - 1)
        return logits.gather(1, target[:, None])[:, 0] - logits.mean(dim=1)

    @torch.no_grad()
    def values(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the values of coalitions, float64 (R,), of any examples in any order; none is looked up.

        Parameters
        ----------
        keep : Tensor of bool, shape (R, P)
            Players that are there.
        examples : Tensor of int64, shape (R,)
        """
        keep = keep | ~self.present[examples]
        if self._parts is None:
            distinct, back = torch.unique(torch.cat([examples[:, None], keep.long()], dim=1), dim=0, return_inverse=True)
            of = [(some[:, 0], some[:, 1:].bool()) for some in distinct.split(self.rows)]
            with self._timed("whole", len(distinct)):
                return torch.cat([self._of_logits(self._whole(stay, who), who) for who, stay in of])[back]
        coded, places = zip(*(self._encoded(part, modality, keep[:, self._columns(modality)], examples)
                              for part, modality in zip(self._parts, self._in_order())))
        found = []
        with self._timed("head", len(examples)):
            for some in torch.arange(len(examples)).split(MATCHED):
                logits = self.model.match(*(vectors[place[some]] for vectors, place in zip(coded, places)))
                found.append(self._of_logits(_two_axes(logits, len(some)), examples[some]))
        return torch.cat(found)

    def _in_order(self) -> list[Modality]:
        """Return the modality of each part."""
        return [next(m for m in self.modalities if m.input in part.takes) for part in self._parts]

    def _columns(self, modality: Modality) -> Tensor:
        return torch.tensor([i for i, name in enumerate(self.names) if name == modality.name])

    def _encoded(self, part: _Part, modality: Modality, keep: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Encode each masked version of a modality once: vectors (D, ...), and which of them each row needs (R,)."""
        distinct, back = torch.unique(torch.cat([examples[:, None], keep.long()], dim=1), dim=0, return_inverse=True)
        inputs, vectors = {key: self.inputs[key] for key in part.takes}, []
        with self._timed(modality.name, len(distinct)):
            for some in distinct.split(self.rows):
                given = rows_of(inputs, some[:, 0], len(self))
                vectors.append(part.encode(**given | self._masked(given, modality, some[:, 1:].bool(), some[:, 0])))
        return torch.cat(vectors), back

    @contextmanager
    def _timed(self, what: str, rows: int) -> Iterator[None]:
        """Keep count of the time that rows take, to tell the cost of more."""
        started = time.perf_counter()
        yield
        spent, done = self._clock.get(what, (0.0, 0))
        self._clock[what] = (spent + time.perf_counter() - started, done + rows)

    def _whole(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the logits (R, C) of the whole model."""
        given = changed = rows_of(self.inputs, examples, len(self))
        for modality in self.modalities:
            changed = changed | self._masked(given, modality, keep[:, self._columns(modality)], examples)
        return _two_axes(first_tensor(self.model(**changed)), len(examples))

    def _masked(self, given: Inputs, modality: Modality, keep: Tensor, examples: Tensor) -> dict[str, Tensor]:
        """Return the inputs (R, ...) that change where only the players of ``keep`` (R, p) of a modality are left."""
        baseline = self.baselines[modality.name]
        owner = self._owner[modality.name][examples]  # (R, F)
        stay = ((owner < 0) | keep.gather(1, owner.clamp(min=0))).to(modality.value(given).device)
        donor = None
        if baseline == "data":
            size = len(modality.value(self.donors))
            donor = rows_of(self.donors, examples % size, size)
        return modality.replace(given, stay, baseline, donor)

    @property
    def passes(self) -> int:
        """Return how many rows the busiest tower has looked at so far, or the whole model where it has no parts."""
        return max(self._clock[what][1] for what in ({m.name for m in self.modalities} if self.splits else {"whole"}))

    def __call__(self, keep: Tensor) -> Tensor:
        """Return the values of some coalitions, float64 (K, N).

        Parameters
        ----------
        keep : Tensor of bool, shape (K, N, P) or (K, P)
            Players that are there: K coalitions for each example, or the same for all.
        """
        keep = torch.as_tensor(keep).bool()
        if keep.ndim == 2:
            keep = keep[:, None].expand(-1, len(self), -1)
        if keep.shape[1:] != self.present.shape:
            raise InputError(f"coalitions of shape {tuple(keep.shape)} came, expected (K, {len(self)}, {len(self.names)}) or "
                             f"(K, {len(self.names)}).")
        if self._table is not None:
            column = (keep.long() << torch.arange(len(self.names))).sum(dim=2)
            return self._table[torch.arange(len(self)), column]
        examples = torch.arange(len(self)).expand(len(keep), -1)
        return self.values(keep.flatten(0, 1), examples.flatten()).reshape(len(keep), -1)

    def cost(self) -> Cost:
        """Return what a table of all coalitions costs, before it is made."""
        own = self.present.sum(dim=1).double()
        encoded = {}
        if self.splits:
            for modality in self._in_order():
                encoded[modality.name] = int((2.0 ** self.present[:, self._columns(modality)].sum(dim=1)).sum())
        coalitions = int((2.0**own).sum())
        asked = encoded | {"head": coalitions} if self.splits else {"whole": coalitions}
        pace = {what: seconds / rows for what, (seconds, rows) in self._clock.items()}
        return Cost(coalitions, encoded, sum(rows * pace[what] for what, rows in asked.items()))

    def table(self) -> Tensor:
        """Return the values of all coalitions, float64 (N, 2**P); column S has player k iff ``S >> k & 1``.

        Kept, so that from then on every call is a lookup.

        Raises
        ------
        InputError
            For more than 2**20 coalitions an example, with the cost and what to do instead.
        """
        if self._table is not None:
            return self._table
        players, cost = len(self.names), self.cost()
        if 2**players > MOST:
            raise InputError(
                f"{players} players have 2**{players} coalitions, about {cost.seconds / 3600:.2g} hours for {len(self)} "
                f"examples, and more than 2**20 are refused; put features into groups (players={{'text': 8}}, a coarser grid "
                "of cells) or estimate Shapley values from some of them with evaluation.sampling.sampled_shapley."
            )
        with tqdm(total=len(self) * 2**players, disable=not self.progress, delay=3, unit="coalition") as bar:
            if self.progress and cost.seconds > 3:
                passes = " and ".join(f"{rows:,} of {name}" for name, rows in cost.encoded.items()) or \
                    f"{cost.coalitions:,} of the whole model (it has no see, read and match)"
                tqdm.write(f"{cost.coalitions:,} coalitions need {passes}: about {cost.seconds:.0f} s")
            every = (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool()  # (2**P, P)
            found = torch.empty(len(self), 2**players, dtype=torch.float64)
            at_once = len(every) if self.splits else self.rows  # towers see each of their masks once an example
            for i in range(len(self)):
                for some in torch.arange(len(every)).split(at_once):
                    found[i, some] = self.values(every[some], torch.full((len(some),), i))
                    bar.update(len(some))
        self._table = found
        return found

    def joint(self, values: Mapping[str, Tensor]) -> Tensor:
        """Bring importances of features to the players, float64 (N, P): those of a player's features are added.

        Parameters
        ----------
        values : mapping of str to Tensor, shape (N, F)
            By modality; one that is missing, and NaN, counts as 0.

        Returns
        -------
        Tensor
            NaN for players that an example does not have.
        """
        found = torch.zeros(self.present.shape, dtype=torch.float64)
        for name, given in values.items():
            owner, given = self._owner[name], torch.as_tensor(given).double().nan_to_num(0.0)
            first = self.names.index(name)
            found.scatter_add_(1, owner.clamp(min=0) + first, given.where(owner >= 0, 0.0))
        return found.where(self.present, torch.nan)

    def shared(self, values: Tensor) -> dict[str, Tensor]:
        """Share importances of players (N, P) equally among their features, (N, F) by modality; 0 where there is none."""
        found = {}
        for modality in self.modalities:
            owner, columns = self._owner[modality.name], self._columns(modality)
            there = (modality.features(self.inputs).cpu() & (owner >= 0)).double()
            own, of = torch.as_tensor(values).double()[:, columns].nan_to_num(0.0), owner.clamp(min=0)
            held = torch.zeros(own.shape, dtype=torch.float64).scatter_add(1, of, there)
            found[modality.name] = (own / held.clamp(min=1)).gather(1, of) * there
        return found

    def owner(self, modality: str) -> Tensor:
        """Return the player of each feature of a modality, counted within it, -1 for none; int64 (N, F)."""
        return self._owner[modality]


def _owners(players: int | Tensor | None, there: Tensor, name: str) -> tuple[Tensor, int]:
    """Return the player of each feature, int64 (N, F), and how many players a modality has."""
    n, features = there.shape
    if players is None:
        return torch.arange(features).expand(n, -1), features
    if isinstance(players, int):
        if players < 1:
            raise InputError(f"players={players} came for {name}, expected at least 1.")
        own = there.sum(dim=1, keepdim=True)
        nth = there.long().cumsum(dim=1) - 1
        group = nth.where(own <= players, nth * players // own.clamp(min=1))
        return group.where(there, -1), players
    owner = torch.as_tensor(players).long().expand(n, -1)
    if owner.shape != there.shape or not len(owner) or int(owner.max()) < 0 or int(owner.min()) < -1:
        raise InputError(f"players of {name} have shape {tuple(torch.as_tensor(players).shape)}, from {int(owner.min())} to "
                         f"{int(owner.max())}; expected ({features},) or ({n}, {features}), numbers from 0, or -1 for "
                         "features that are never masked.")
    return owner, int(owner.max()) + 1


def _parts(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality]) -> list[_Part] | None:
    """Return what encodes each modality, or None where the model does not say how it splits."""
    if len(modalities) != 2 or not isinstance(model, TwoTowers):
        return None
    parts = [_Part(encode, tuple(key for key in inspect.signature(encode).parameters if key in inputs))
             for encode in (model.see, model.read)]
    taken = [key for part in parts for key in part.takes]
    fits = all(sum(m.input in part.takes for part in parts) == 1 for m in modalities) and all(
        sum(m.input in part.takes for m in modalities) == 1 for part in parts)
    return parts if fits and set(taken) == set(inputs) and len(taken) == len(set(taken)) else None


def _two_axes(logits: Tensor, n: int) -> Tensor:
    """Return logits as (n, C)."""
    if logits.shape[:1] != (n,) or logits.ndim > 2:
        raise InputError(f"the model gives {tuple(logits.shape)} for {n} examples, expected ({n},) or ({n}, classes).")
    return logits.reshape(n, -1)
