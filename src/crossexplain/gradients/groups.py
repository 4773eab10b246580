"""Groups: which features belong together, across modalities; turns of a dialogue, chunks of a video, parties, sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from crossexplain.checks import InputError, as_tensor, entries_of, require_one_of


@dataclass(frozen=True, eq=False)
class Groups:
    """Which group each feature of each modality belongs to.

    A group may hold features of several modalities: a turn of a dialogue has its words, its sound and its frames. Examples may
    have other features in a group, or none: a turn that an example does not have is empty.

    Parameters
    ----------
    names : sequence of str
        One a group, G in all, each different.
    owner : mapping from modality to Tensor of int64, shape (F,) or (N, F)
        The number of the group, 0 to G - 1, that each feature is part of; -1 for a feature of none, which is never hidden and
        counts nowhere. (F,) is the same for all examples. A modality that is not named has no feature in any group.

    Raises
    ------
    InputError
        For names that are none or not different, a modality without a name, numbers that are not whole or out of range, and
        modalities of different numbers of examples.

    Examples
    --------
    >>> turns = Groups(["turn 1", "turn 2"], {"words": torch.tensor([0, 0, 1]), "frames": torch.tensor([0, 1])})
    >>> turns.apart().names
    ('words of turn 1', 'words of turn 2', 'frames of turn 1', 'frames of turn 2')
    >>> {name: of.tolist() for name, of in turns.summed({"words": torch.tensor([[1.0, 2.0, 4.0]])}).items()}
    {'words': [[3.0, 4.0]]}
    """

    names: tuple[str, ...]
    owner: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        names = tuple(entries_of(self.names) or ())
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise InputError(f"got names={self.names!r}, expected one name a group, at least one and no two alike, as in "
                             "['turn 1', 'turn 2'].")
        if not isinstance(self.owner, Mapping) or not self.owner:
            raise InputError(f"got owner as {type(self.owner).__name__}, expected a mapping from modality to the number of the "
                             "group of each feature, as in {'text': torch.tensor([0, 0, 1])}.")
        owner = {name: _numbers(name, numbers, len(names)) for name, numbers in self.owner.items()}
        rows = {name: len(numbers) for name, numbers in owner.items() if numbers.ndim == 2}
        if len(set(rows.values())) > 1:
            held = ", ".join(f"{count} of {name}" for name, count in rows.items())
            raise InputError(f"the modalities have groups for different numbers of examples, {held}; pass (F,) for groups that "
                             "are the same in all examples.")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "owner", owner)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        held = ", ".join(f"{name} {tuple(numbers.shape)}" for name, numbers in self.owner.items())
        return f"Groups({', '.join(self.names)}; {held})"

    def apart(self, modalities: Sequence[str] | str | None = None) -> "Groups":
        """Return the same groups with each modality by itself, as in ``"words of turn 2"``.

        Parameters
        ----------
        modalities : sequence of str, optional
            Features of all others are in no group then, and stay. Default: all.
        """
        chosen = [modalities] if isinstance(modalities, str) else list(self.owner if modalities is None else modalities)
        for name in chosen:
            require_one_of(name, self.owner, "modality of the groups")
        owner = {name: self.owner[name].where(self.owner[name] < 0, self.owner[name] + i * len(self))
                 for i, name in enumerate(chosen)}
        return Groups(tuple(f"{name} of {group}" for name in chosen for group in self.names), owner)

    def of(self, present: Mapping[str, Tensor]) -> "Groups":
        """Return the groups written out for the features of examples, (N, F) by modality, -1 where there is no feature.

        Parameters
        ----------
        present : mapping from modality to Tensor of bool, shape (N, F)
            Which features each example has, of all modalities, as in :attr:`Record.features`.

        Raises
        ------
        InputError
            For a modality that the examples do not have, and another number of features or examples.
        """
        for name, numbers in self.owner.items():
            require_one_of(name, present, "modality of the groups")
            if numbers.shape[-1] != present[name].shape[1] or numbers.ndim == 2 and len(numbers) not in (1, len(present[name])):
                raise InputError(f"the groups of {name} have the shape {tuple(numbers.shape)}, there are {len(present[name])} "
                                 f"examples with {present[name].shape[1]} features of {name}; pass one number a feature, the "
                                 "same for all examples (F,) or one row each (N, F), and -1 for a feature of no group.")
        nobody = torch.full((1,), -1)
        return Groups(self.names, {name: self.owner.get(name, nobody).to(features.device).where(features, -1)
                                   for name, features in present.items()})

    def rows(self, examples: Tensor) -> "Groups":
        """Return the groups of some examples, whose row numbers are given."""
        return Groups(self.names, {
            name: numbers if numbers.ndim == 1 or len(numbers) == 1 else numbers[examples.to(numbers.device)]
            for name, numbers in self.owner.items()})

    def members(self, group: int | str) -> dict[str, Tensor]:
        """Return by modality which features are part of a group, bool (F,) or (N, F) as they were given.

        Raises
        ------
        InputError
            For a name that no group has, and a number outside 0 to G - 1.
        """
        number = self.names.index(require_one_of(group, self.names, "group")) if isinstance(group, str) else group
        if not isinstance(number, Integral) or isinstance(number, bool) or not 0 <= number < len(self):
            raise InputError(f"got the group {group!r}, expected a name, or a number from 0 to {len(self) - 1}.")
        return {name: numbers == number for name, numbers in self.owner.items()}

    def present(self) -> Tensor:
        """Return which groups have a feature, bool (N, G); of groups that were given as (F,), N is 1.

        Of what :meth:`of` returns, these are the groups that each example has.
        """
        sums = self.summed({name: (numbers >= 0).double().reshape(-1, numbers.shape[-1])
                            for name, numbers in self.owner.items()})
        return torch.as_tensor(sum(sums.values())) > 0

    def summed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sum of values (N, F) over the features of each group, (N, G), by modality."""
        summed = {}
        for name, numbers in self.owner.items():
            if name in values:
                given = values[name]
                place = numbers.to(given.device).expand(given.shape)
                into = given.new_zeros(len(given), len(self) + 1)  # the last column takes what is part of no group
                summed[name] = into.scatter_add_(1, place.where(place >= 0, len(self)), given)[:, :-1]
        return summed


def require_groups(groups: object) -> Groups:
    """Return groups as they are; raise an :class:`~crossexplain.checks.InputError` for anything else."""
    if not isinstance(groups, Groups):
        raise InputError(f"got groups={groups!r}, expected Groups, as in Groups(['turn 1', 'turn 2'], {{'text': numbers}}).")
    return groups


def _numbers(modality: str, numbers: Tensor, groups: int) -> Tensor:
    """Return the numbers of the groups of one modality's features as int64."""
    if not isinstance(modality, str):
        raise InputError(f"got owner with the key {modality!r}, expected names of modalities.")
    numbers = as_tensor(numbers, f"owner[{modality!r}]")
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool or numbers.ndim not in (1, 2):
        raise InputError(f"the groups of {modality} are {numbers.dtype} of shape {tuple(numbers.shape)}, expected whole "
                         "numbers (F,) or (N, F), the group of each feature, -1 for none.")
    if numbers.numel() and not (-1 <= int(numbers.min()) and int(numbers.max()) < groups):
        wrong = int(numbers.max()) if int(numbers.max()) >= groups else int(numbers.min())
        raise InputError(f"the groups of {modality} hold the number {wrong}, expected 0 to {groups - 1} for the {groups} named "
                         "groups and -1 for a feature of none.")
    return numbers.long()
