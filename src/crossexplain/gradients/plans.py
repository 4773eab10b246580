"""Which views the rounds ask for, and how features are hidden in them."""

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from crossexplain.checks import InputError, require_whole
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Inputs, Tokens, rows_of
from crossexplain.gradients.padding import padding_side_of
from crossexplain.gradients.question import Question
from crossexplain.gradients.views import FULL, Change, Mask, Views, alone, masked

Plan = dict[tuple[Any, Any, int], Mapping[str, Change]]  # by baseline, view and draw, what it changes
Baseline = str | Mapping[str, str]  # one name for all modalities, or a name for each


class Plans:
    """What stands in for hidden features under each baseline, the donors that are borrowed from, and the views to run.

    A plan has the keys (baseline or None, view, draw); a view with several draws is read as their mean.

    Parameters
    ----------
    question : Question
        With two modalities or more; its donors, or its examples, are borrowed from.
    baselines, draws, seed
        As for :func:`~crossexplain.gradients.rounds.rounds`.
    """

    def __init__(self, question: Question, baselines: Sequence[Baseline] | Baseline | None, draws: int, seed: int):
        self.question, self.names = question, question.names
        if len(self.names) < 2:
            raise InputError(f"got the one modality {self.names[0]!r}, expected two or more: for a single one there is no "
                             "other to cover.")
        self.baselines = self._named(baselines)
        self._find_sides()
        self.donors = question.inputs if question.donors is None else question.donors
        self.size = len(question.modalities[0].value(self.donors))
        if not isinstance(draws, Integral) or draws < 1:
            raise InputError(f"got draws={draws!r}, expected a whole number of donors, 1 or more.")
        require_whole(seed=seed)
        self.draws: int = min(int(draws), self.size)
        generator = torch.Generator().manual_seed(seed)
        # One order of donors for each modality: where several are masked at once, the pairs are broken too.
        self.donor_rows: dict[str, Tensor] = {name: torch.randperm(self.size, generator=generator)[: self.draws]
                                              for name in self.names}

    def _named(self, given: Sequence[Baseline | None] | Baseline | None) -> dict[str, dict[str, str]]:
        """Return the baselines by name, each with what stands in for each modality."""
        question, named = self.question, {}
        if given is None:
            given = [None] + ["data"] * (question.donors is not None or question.n > 1)
        if not isinstance(given, Iterable) or not all(entry is None or isinstance(entry, (str, Mapping)) for entry in given):
            raise InputError(f"got baselines={given!r}, expected a name such as 'data', a mapping from modality to name, or a "
                             "list of these.")
        for entry in [given] if isinstance(given, (str, Mapping)) else given:
            chosen = question.choose(entry)
            named[" + ".join(dict.fromkeys(chosen.values()))] = chosen
            if "data" in chosen.values() and question.donors is None and question.n == 1:
                raise InputError("the baseline 'data' borrows from another example, and the only one got would stand in for "
                                 "itself; pass more examples, or others as donors=...")
        if not named:
            raise InputError("got no baseline; leave baselines out for the usual ones.")
        return named

    def _find_sides(self) -> None:
        """Find where deleted words leave their padding in a batch that has none, or raise where it is read as text."""
        question, passes = self.question, self.question.passes
        for i, modality in enumerate(question.modalities):
            deleted = any(chosen[modality.name] == "delete" for chosen in self.baselines.values())
            settled = modality.settled(question.inputs) if deleted and isinstance(modality, Tokens) else None
            if settled is not None and settled.side is None:
                side = padding_side_of(question.logits, settled, question.examples(torch.arange(1))) or "right"
                question.modalities[i] = settled = copy.copy(settled)
                settled.side = settled.padding_side = side
        question.passes = passes  # a check is no cost of the rounds

    def changes(self, label: str, hidden: Mapping[str, Tensor | None]) -> list[dict[str, Mask]]:
        """Return the views, one a draw, that hide features (all where None) of some modalities under a baseline."""
        chosen = self.baselines[label]
        return [{name: Mask(keep, chosen[name], self.donor_rows[name][draw] if chosen[name] == "data" else None)
                 for name, keep in hidden.items()} for draw in range(self.times(label, hidden))]

    def times(self, label: str, names: Iterable[str]) -> int:
        """Return how many draws it takes to hide some modalities under a baseline."""
        return self.draws if any(self.baselines[label][name] == "data" for name in names) else 1

    def add(self, plan: Plan, label: str, view: str, hidden: Mapping[str, Tensor | None]) -> None:
        """Add a view of a baseline to a plan."""
        plan |= {(label, view, draw): changes for draw, changes in enumerate(self.changes(label, hidden))}

    def first_plan(self) -> Plan:
        """Return the views of rounds 1 to 3: the full view, each modality masked, and each alone."""
        plan: Plan = {(None, FULL, 0): {}}
        for label, chosen in self.baselines.items():
            for name in self.names:
                self.add(plan, label, masked(name), {name: None})
                self.add(plan, label, alone(name, self.names), dict.fromkeys(self.others(name)))
            if "data" not in chosen.values():
                self.add(plan, label, masked(*self.names), dict.fromkeys(self.names))
        return plan

    def few(self, most: int) -> Plan:
        """Return the views that leave 2 to ``most`` modalities, but for those of the first plan, which has all of three."""
        plan: Plan = {}
        for label, size in itertools.product(self.baselines, range(2, min(most, len(self.names) - 2) + 1)):
            for kept in itertools.combinations(self.names, size):
                hidden = [name for name in self.names if name not in kept]
                self.add(plan, label, masked(*hidden), dict.fromkeys(hidden))
        return plan

    def group_by_group(self, groups: Groups) -> Plan:
        """Return the views that hide a group at a time: all of it in the whole, and its features of a modality left alone."""
        label = next(iter(self.baselines))
        plan: Plan = {(FULL, None, 0): {}}

        def add(view: str, what: object, hidden: Mapping[str, Tensor | None]) -> None:
            plan.update({(view, what, draw): changes for draw, changes in enumerate(self.changes(label, hidden))})

        for name, numbers in groups.owner.items():
            if (numbers >= 0).any():
                add("alone", name, dict.fromkeys(self.others(name)))
        for group in range(len(groups)):
            kept = {name: ~members for name, members in groups.members(group).items() if members.any()}
            add("without", group, kept)
            for name, keep in kept.items():
                add("alone without", (group, name), dict.fromkeys(self.others(name)) | {name: keep})
        return plan

    def others(self, name: str) -> list[str]:
        """Return all modalities but one."""
        return [other for other in self.names if other != name]

    def laid_out(self, plan: Mapping[Any, Mapping[str, Change]], inputs: Inputs | None = None) -> Views:
        """Lay out views of the examples, or of other inputs."""
        return Views(self.question.inputs if inputs is None else inputs, self.question.modalities, plan, self.donors,
                     allow_empty=True, common=self.question.common)

    def value_of_nothing(self, label: str) -> Tensor:
        """Return the mean logits (C,) with every modality borrowed from another donor: the same for all examples.

        Of two modalities every donor meets every other. Of more, the donors of one draw stand together as in all other views:
        otherwise two modalities that never meet in the model would have a dividend.
        """
        chosen = self.baselines[label]
        first, *rest = self.names
        plan = {
            shift: {name: Mask(None, chosen[name], self.donor_rows[name].roll(shift) if chosen[name] == "data" else None)
                    for name in rest} | ({} if chosen[first] == "data" else {first: Mask(None, chosen[first])})
            for shift in range(self.draws if len(self.names) == 2 else 1)
        }
        donors = rows_of(self.donors, self.donor_rows[first], self.size, self.question.common)
        return self.question.logits(self.laid_out(plan, donors).inputs).float().mean(dim=0).cpu()
