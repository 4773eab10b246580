"""The exact account of a model: its value of every coalition of features, for up to 20 players.

v(S) is the evidence for the followed class with only the features of S left, the others hidden. With twelve players (four
cells, eight words) that is 4,096 values an example. A model that splits into towers, by ``see``, ``read`` and ``match``, is
asked by its towers: each encodes each of its own sets once, 16 + 256 of them, and only the head sees every pair. One that
encodes its parts apart, the turns of a conversation, encodes each of them shown and hidden, and only joins them per coalition.
:mod:`crossexplain.coalitions.shapley` makes Shapley values, interactions and best orders of these values.
"""

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from crossexplain.checks import InputError, require_flags
from crossexplain.coalitions.parts import Parts, distinct
from crossexplain.contract import TwoTowers
from crossexplain.gradients.called import Called, calling_of
from crossexplain.gradients.capture import Target
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Inputs, Modality
from crossexplain.gradients.question import ROWS, Question

PLAYERS = 20  # that are asked for all their coalitions at most: a table of 8 MB an example, and hours for most models
MATCHED = 8192  # pairs that go through a head at once; a head is small beside the towers, and this many keep it busy
HUGE = 10**250  # coalitions from which a time is not told: more would not fit into a number of Python
AGREE = 1e-3  # largest difference of the same value asked in two ways, as a share of the largest value; float32 differs by less


class Cost(NamedTuple):
    """The cost of the values of all coalitions.

    Attributes
    ----------
    coalitions : int
        Of all examples together; as many passes of the whole model where it has no towers.
    encoded : dict of str to int
        Rows that each tower encodes, or of each modality of a model that encodes its parts; empty where it has neither.
    seconds : float
        Estimated from the passes so far, on this machine.
    """

    coalitions: int
    encoded: dict[str, int]
    seconds: float


class _Tower(NamedTuple):
    """What encodes a modality, and the inputs that it takes."""

    encode: Callable[..., Tensor]
    takes: tuple[str, ...]
    modality: Modality

    @property
    def reads(self) -> tuple[str, ...]:
        """What the tower takes, and what the modality reads besides."""
        return self.takes + tuple(getattr(self.modality, "own", ()))


class Game:
    """The value of a model with only some players left, for N examples.

    Parameters
    ----------
    model, inputs, modalities, baselines, target, donors, rows
        As for :class:`~crossexplain.gradients.question.Question`; the features of the modalities are the players. The model is
        asked by its towers if it has ``see`` and ``read``, one for each of two modalities, and ``match``, which makes logits of
        what they return; and by its parts if it has ``encode`` and ``join``, see :mod:`crossexplain.contract`, and few players
        share a part.
    players : Groups, or mapping from modality to int or Tensor, optional
        :class:`~crossexplain.gradients.groups.Groups`, each of which is a player, whatever modalities its features are of:
        ``players=turns`` hides all of a turn, ``players=turns.apart()`` its words, sound or frames. Or for each modality
        which player each feature belongs to: int64 (F,) or (N, F), from 0, -1 for features that are never masked; or a
        number k, for neighbours in at most k groups of nearly the same size. Default: every feature is a player. Where there
        are more than 20, those that no example has are left out.
    split : bool
        False asks the whole model even where it has towers or parts.
    progress : bool
        Show a progress bar, and the cost before it begins, when the work takes longer than some seconds.

    Attributes
    ----------
    names : tuple of P str
        Modality of each player, or the name of each group.
    present : Tensor of bool, shape (N, P)
        Which players an example has; the others change nothing.
    question : Question
        The model, the examples and what stands in for hidden features.
    target : Tensor of int64, shape (N,)

    Raises
    ------
    InputError
        For a model that gives other logits when it is asked again, one whose towers do not make its logits, players that do
        not fit, and whatever the question refuses.

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
    >>> game.values_of_all().tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 2.0, 6.0]]
    """

    def __init__(self, model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
                 baselines: str | Mapping[str, str] | None = None, players: Groups | Mapping[str, int | Tensor] | None = None,
                 target: Target = None, donors: Inputs | None = None, rows: int = ROWS, split: bool = True,
                 progress: bool = True):
        question = Question(model, inputs, modalities, baselines=baselines, donors=donors, target=target, rows=rows)
        self._set_up(question, players, split, progress)

    @classmethod
    def about(cls, question: Question, players: Groups | Mapping[str, int | Tensor] | None = None, split: bool = True,
              progress: bool = False) -> "Game":
        """Return the game of a question that has been asked already; the parameters are those of the class."""
        game = cls.__new__(cls)
        game._set_up(question, players, split, progress)
        return game

    def _set_up(self, question: Question, players: Groups | Mapping[str, int | Tensor] | None, split: bool,
                progress: bool) -> None:
        require_flags(split=split, progress=progress)
        question.require_donors()
        self.question, self.progress = question, progress
        self.model, self.inputs, self.modalities = question.model, question.inputs, question.modalities
        self._number({} if players is None else players)
        self._towers = _towers(question) if split else None
        self._table: Tensor | None = None
        self._clock: dict[str, tuple[float, int]] = {}  # seconds and rows so far, by tower, "parts", "head" and "whole"
        self.target = question.target.cpu()
        with self._timed("parts", 4 * len(self)):
            self._parts = Parts.of(_plain(question.model), question, self._owner) if split and self._towers is None else None
        self._require_same_again()

    def __len__(self) -> int:
        return len(self.present)

    @property
    def splits(self) -> bool:
        """Whether the model is asked by its towers or its parts."""
        return self._towers is not None or self._parts is not None

    @property
    def crossed(self) -> Tensor:
        """Players of the first of two towers, whose masks can be matched with those of the second; all where none can, (P,)."""
        sides = [torch.isin(torch.arange(len(self.names)), self._players(name)) for name in self.question.names]
        apart = self._towers is not None and not (sides[0] & sides[1]).any()
        return sides[0] if apart else torch.ones(len(self.names), dtype=torch.bool)

    def _number(self, players: Groups | Mapping[str, int | Tensor]) -> None:
        """Find the players: ``names``, ``present``, and for each modality the player of each feature, counted over all."""
        features = {name: part.cpu() for name, part in self.question.present.items()}
        names: Sequence[str]
        if isinstance(players, Groups):
            groups = players.of(features)
            self._owner, self.present, names = dict(groups.owner), groups.present(), groups.names
        else:
            self._owner, self.present, names = self._by_modality(players, features)
        if len(names) > PLAYERS:
            kept = self.present.any(dim=0)
            kept[0] |= not kept.any()  # one is left, which nobody has
            number = (kept.cumsum(dim=0) - 1).where(kept, -1)
            self._owner = {name: number[of.clamp(min=0)].where(of >= 0, -1) for name, of in self._owner.items()}
            self.present, names = self.present[:, kept], [name for name, has in zip(names, kept) if has]
        self.names = tuple(names)
        within = {} if isinstance(players, Groups) else features
        self._first = {name: names.index(name) if name in within and name in names else 0 for name in features}

    def _by_modality(self, players: Mapping[str, int | Tensor], features: Mapping[str, Tensor]) -> tuple[
            dict[str, Tensor], Tensor, list[str]]:
        """Return owners by modality, which players are present, and their names, of players that were given by modality."""
        if not isinstance(players, Mapping):
            raise InputError(f"got players={players!r}, expected a mapping from modality to players, or Groups, as in "
                             f"{{{self.question.names[-1]!r}: 8}}.")
        if unknown := set(players) - set(self.question.names):
            raise InputError(f"players names {sorted(unknown, key=str)}, the modalities are {self.question.names}.")
        owners, present, names = dict[str, Tensor](), list[Tensor](), list[str]()
        for name, part in features.items():
            owner, count = _owners(players.get(name), part, name)
            present.append(((owner[:, None] == torch.arange(count)[:, None]) & part[:, None]).any(dim=2))
            owners[name] = owner.where(owner < 0, owner + len(names))
            names += [name] * count
        return owners, torch.cat(present, dim=1), names

    def _require_same_again(self) -> None:
        """Raise unless the model gives the same evidence when it is asked again, by its towers or its parts.

        Of a model with parts that is asked with half of the players hidden, too.
        """
        few = torch.arange(min(len(self), 32))
        asked = [torch.ones(len(few), len(self.names), dtype=torch.bool)]
        expected = [self.question.evidence(self.question.whole()[few], few)]
        if self._parts is not None:
            asked.append(torch.rand(asked[0].shape, generator=torch.Generator().manual_seed(0)) < 0.5)
            expected.append(self._of_whole_model(asked[1] | ~self.present[few], few))
        whole = torch.stack(expected)
        worst = (torch.stack([self.values(keep, few) for keep in asked]) - whole).abs().max()
        if worst > AGREE * max(1.0, float(whole.abs().max())):
            by = "match(see(...), read(...))" if self._parts is None else "join(encode(...))"
            what = f"{by} gives other logits than the model itself; mend them or pass split=False" \
                if self.splits else "the model gives other logits when it is asked again; switch off what draws at random"
            raise InputError(f"{what} (largest difference {float(worst):.2g}).")

    @torch.no_grad()
    def values(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the values of coalitions, float64 (R,), asked of the model even where the table is known.

        Parameters
        ----------
        keep : Tensor of bool, shape (R, P)
            Players that stay.
        examples : Tensor of int64, shape (R,)
            Row number of the example of each coalition.
        """
        keep, question = keep | ~self.present[examples], self.question
        if self._towers is None:
            back, place = distinct(examples, keep)
            keep, examples = keep[place], examples[place]
            with self._timed("head" if self.splits else "whole", len(place)):
                return (self._of_whole_model(keep, examples) if self._parts is None else
                        self._of_parts(self._parts, keep, examples))[back]
        vectors, places = zip(*(self._encoded(tower, keep, examples) for tower in self._towers))
        values: list[Tensor] = []
        model: Any = _plain(self.model)  # with two towers
        with self._timed("head", len(examples)):
            for rows in torch.arange(len(examples)).split(MATCHED):
                logits = model.match(*(vector[place[rows]] for vector, place in zip(vectors, places)))
                values.append(question.evidence(question.of_output(logits, len(rows)), examples[rows]))
        return torch.cat(values)

    def _of_whole_model(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the values (R,) of coalitions, asked of the whole model."""
        parts = zip(keep.split(self.question.rows), examples.split(self.question.rows))
        return torch.cat([self.question.values(self.features(*part), part[1]) for part in parts])

    def _of_parts(self, parts: Parts, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the values (R,) of coalitions, for which the encoded parts are joined."""
        logits = parts.logits(keep, examples)
        return self.question.evidence(self.question.of_output(logits, len(examples)), examples)

    def features(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return which features stay, of all modalities side by side, bool (R, F), where the players of ``keep`` (R, P) do."""
        return torch.cat([self._stay(name, keep, examples) for name in self.question.names], dim=1)

    def _players(self, modality: str) -> Tensor:
        """Return the numbers of the players that have features of a modality."""
        owner = self._owner[modality]
        players: Tensor = torch.unique(owner[owner >= 0])
        return players

    def _stay(self, modality: str, keep: Tensor, examples: Tensor) -> Tensor:
        """Return which features of a modality stay, bool (R, F), where the players of ``keep`` (R, P) do."""
        owner = self._owner[modality][examples]
        return (owner < 0) | keep.gather(1, owner.clamp(min=0))

    def _encoded(self, tower: "_Tower", keep: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Encode each masked version of a modality once: vectors (D, ...), and which of them each row needs (R,)."""
        name = tower.modality.name
        apart = torch.zeros_like(keep)
        apart[:, self._players(name)] = keep[:, self._players(name)]
        back, place = distinct(examples, apart)
        vectors = []
        with self._timed(name, len(place)):
            for part in place.split(self.question.rows):
                stay = {name: self._stay(name, apart[part], examples[part])}
                hidden = self.question.hidden(stay, examples[part], tower.reads)
                vectors.append(tower.encode(**{key: hidden[key] for key in tower.takes}))
        return torch.cat(vectors), back

    @contextmanager
    def _timed(self, what: str, rows: int) -> Iterator[None]:
        """Keep count of the time that rows take, to tell the cost of more."""
        started = time.perf_counter()
        yield
        seconds, done = self._clock.get(what, (0.0, 0))
        self._clock[what] = (seconds + time.perf_counter() - started, done + rows)

    @property
    def passes(self) -> int:
        """How many rows the busiest tower has encoded so far, or the whole model has taken; of parts, how many were joined."""
        return max(self._clock[what][1] for what in (self.question.names if self._towers else [self._last]))

    @property
    def _last(self) -> str:
        """What sees every coalition."""
        return "head" if self.splits else "whole"

    @property
    def matched(self) -> int:
        """How many coalitions the head has seen so far, or the whole model where it has no towers and no parts."""
        return self._clock[self._last][1]

    def __call__(self, keep: Tensor) -> Tensor:
        """Return the values of some coalitions, float64 (K, N).

        Parameters
        ----------
        keep : Tensor of bool, shape (K, N, P) or (K, P)
            Players that stay: K coalitions for each example, or the same for all.
        """
        keep = torch.as_tensor(keep).bool()
        if keep.ndim == 2:
            keep = keep[:, None].expand(-1, len(self), -1)
        if keep.shape[1:] != self.present.shape:
            raise InputError(f"got coalitions of shape {tuple(keep.shape)}, expected (K, {len(self)}, {len(self.names)}) or "
                             f"(K, {len(self.names)}).")
        if self._table is not None:
            column = (keep.long() << torch.arange(len(self.names))).sum(dim=2)
            return self._table[torch.arange(len(self)), column]
        examples = torch.arange(len(self)).expand(len(keep), -1)
        return self.values(keep.flatten(0, 1), examples.flatten()).reshape(len(keep), -1)

    def cost(self) -> Cost:
        """Return the cost of the values of all coalitions, before they are asked for."""
        names = self.question.names if self._towers else []
        encoded = {name: _subsets(self.present[:, self._players(name)]) for name in names}
        coalitions = _subsets(self.present)
        rows = encoded | {self._last: coalitions}
        if self._parts is not None:
            encoded = self._parts.rows
        seconds = sum(min(count, HUGE) * self._clock[what][0] / self._clock[what][1] for what, count in rows.items())
        return Cost(coalitions, encoded, seconds)

    def values_of_all(self) -> Tensor:
        """Return the values of all coalitions, float64 (N, 2**P); column S has player k iff ``S >> k & 1``.

        They are kept, so that from then on every call is a lookup.

        Raises
        ------
        InputError
            For more than 2**20 coalitions an example, with the cost and what to do instead.
        """
        if self._table is not None:
            return self._table
        players, cost = len(self.names), self.cost()
        if players > PLAYERS:
            hours = f"about {cost.seconds / 3600:.2g}" if cost.coalitions < HUGE else "more than 1e200"
            raise InputError(f"{players} players have 2**{players} coalitions, {hours} hours for "
                             f"{len(self)} examples, and more than 2**{PLAYERS} are refused; put features into groups "
                             f"(players={{'text': 8}}, a coarser grid of cells) or estimate Shapley values from some of "
                             "them with coalitions.sampling.sampled_shapley.")
        coalitions = (torch.arange(2**players)[:, None] >> torch.arange(players) & 1).bool()  # (2**P, P)
        table = torch.empty(len(self), 2**players, dtype=torch.float64)
        at_once = len(coalitions) if self.splits else self.question.rows  # a tower encodes each mask of an example once
        with tqdm(total=len(self) * 2**players, disable=not self.progress, delay=3, unit="coalition") as bar:
            if self.progress and cost.seconds > 3:
                passes = " and ".join(f"{rows:,} of {name}" for name, rows in cost.encoded.items()) or \
                    f"{cost.coalitions:,} of the whole model (it has no see, read and match, nor encode and join)"
                tqdm.write(f"{cost.coalitions:,} coalitions need {passes}: about {cost.seconds:.0f} s")
            for i in range(len(self)):
                for columns in torch.arange(len(coalitions)).split(at_once):
                    table[i, columns] = self.values(coalitions[columns], torch.full((len(columns),), i))
                    bar.update(len(columns))
        self._table = table
        return table

    def table(self) -> Tensor:
        """Return :meth:`values_of_all`; the old name, which still works in this version."""
        warnings.warn("Game.table is called Game.values_of_all now; the old name goes with the next version.",
                      DeprecationWarning, stacklevel=2)
        return self.values_of_all()

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
        total = torch.zeros(self.present.shape, dtype=torch.float64)
        for name, given in values.items():
            owner, given = self._owner[name], torch.as_tensor(given).double().nan_to_num(0.0)
            total.scatter_add_(1, owner.clamp(min=0), given.where(owner >= 0, 0.0))
        return total.where(self.present, torch.nan)

    def shared(self, values: Tensor) -> dict[str, Tensor]:
        """Share importances of players (N, P) equally among their features, (N, F) by modality; 0 where there is none."""
        values = torch.as_tensor(values).double().nan_to_num(0.0)
        owned = {name: (self.question.present[name].cpu() & (owner >= 0)).double() for name, owner in self._owner.items()}
        counts = self.joint(owned).nan_to_num(0.0).clamp(min=1)  # how many features each player has
        return {name: (values / counts).gather(1, owner.clamp(min=0)) * owned[name] for name, owner in self._owner.items()}

    def owner(self, modality: str) -> Tensor:
        """Return the player of each feature of a modality, counted within it, or the group; -1 for none; int64 (N, F)."""
        owner = self._owner[modality]
        return owner.where(owner < 0, owner - self._first[modality])


def _owners(players: int | Tensor | None, present: Tensor, name: str) -> tuple[Tensor, int]:
    """Return the player of each feature, int64 (N, F), and how many players a modality has."""
    n, features = present.shape
    if players is None:
        return torch.arange(features).expand(n, -1), features
    if isinstance(players, Integral):
        if players < 1 or isinstance(players, bool):
            raise InputError(f"got players={players} for {name}, expected at least 1.")
        count = present.sum(dim=1, keepdim=True)
        nth = present.long().cumsum(dim=1) - 1
        group = nth.where(count <= players, nth * players // count.clamp(min=1))
        return group.where(present, -1), players
    owner = torch.as_tensor(players)
    whole = owner.numel() and not owner.is_floating_point() and owner.dtype != torch.bool
    if owner.shape not in ((features,), (1, features), (n, features)) or not whole or owner.max() < 0 or owner.min() < -1:
        held = f"from {owner.min()} to {owner.max()}" if owner.numel() else "empty"
        raise InputError(f"players of {name} have shape {tuple(owner.shape)} and dtype {owner.dtype}, {held}; expected "
                         f"({features},) or ({n}, {features}), whole numbers from 0, or -1 for features that are never masked.")
    return owner.long().expand(n, -1), int(owner.max()) + 1


def _subsets(present: Tensor) -> int:
    """Return how many sets of players (N, K) the examples have, all together."""
    return sum(2 ** count for count in present.sum(dim=1).tolist())


def _plain(model: nn.Module) -> nn.Module | None:
    """Return a model itself where it stands in a :class:`Called` that changes neither its call nor its output."""
    while isinstance(model, Called):
        call, output, *_ = calling_of(model)
        if call is not None or output is not None:
            return None
        model = model.wrapped_model
    return model


def _towers(question: Question) -> list[_Tower] | None:
    """Return what encodes each modality, or None where the model does not say how it splits."""
    model, modalities, own = _plain(question.model), question.modalities, calling_of(question.model).drop
    inputs = [key for key in question.inputs if key not in own]
    # What a function makes of the model's output it need not make of the logits of ``match``.
    if question.scored or len(modalities) != 2 or not isinstance(model, TwoTowers):
        return None
    takes = [[key for key in inspect.signature(encode).parameters if key in inputs] for encode in (model.see, model.read)]
    owners = [[modality for modality in modalities if modality.input in keys] for keys in takes]
    all_taken = [key for keys in takes for key in keys]
    fits = all(len(of) == 1 for of in owners) and owners[0][0] is not owners[1][0]
    if not fits or set(all_taken) != set(inputs) or len(all_taken) != len(set(all_taken)):
        return None
    return [_Tower(encode, tuple(keys), of[0]) for encode, keys, of in zip((model.see, model.read), takes, owners)]
