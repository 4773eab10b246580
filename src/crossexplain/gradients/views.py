"""Views: the same examples with some features of some modalities hidden or perturbed, all in one batch."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from crossexplain import moved
from crossexplain.checks import InputError, as_tensor, require_whole
from crossexplain.gradients.modalities import (
    Inputs,
    Modality,
    features_of,
    is_batched,
    require_modalities,
    rows_of,
    without_others,
    word_numbers,
)
from crossexplain.gradients.modality import listed

FULL, NOTHING = "full", "all masked"  # names of the views that leave everything, and nothing


def masked(*modalities: str) -> str:
    """Return the name of the view that masks some modalities as a whole.

    Examples
    --------
    >>> masked("image"), masked("image", "sound")
    ('image masked', 'image+sound masked')
    """
    return f"{'+'.join(modalities)} masked"


def alone(modality: str, modalities: Sequence[str]) -> str:
    """Return the name of the view that leaves one of the modalities and masks all others."""
    return masked(*(name for name in modalities if name != modality))


@dataclass(frozen=True)
class Mask:
    """Hide features of one modality.

    Attributes
    ----------
    keep : Tensor of bool, shape (N, F) or (F,)
        True where a feature stays. None hides all features.
    baseline : str
        What stands in for hidden features, one of the modality's ``baselines``.
    donors : Tensor of int64, shape (N,), optional
        For ``"data"``: the row of the donor inputs that each example borrows from.
    """

    keep: Tensor | None = None
    baseline: str = "data"
    donors: Tensor | None = None


@dataclass(frozen=True)
class Reorder:
    """Put the present features of one modality in another order (the paper's "re-ordering the tokens").

    Attributes
    ----------
    seed : int
        Example ``i`` gets the order drawn from ``(seed, i)``, whatever batch it is in.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        require_whole(seed=self.seed)


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise to a floating input (the paper's "Gaussian noise to the image pixels").

    Attributes
    ----------
    sigma : float
        Standard deviation, in the unit of the input.
    seed : int
        Example ``i`` gets the noise drawn from ``(seed, i)``.
    """

    sigma: float
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole(seed=self.seed)
        if not isinstance(self.sigma, Real) or not 0 <= self.sigma < math.inf:
            raise InputError(f"got sigma={self.sigma!r}, expected a standard deviation, a number of 0 or more.")


Change = Mask | Reorder | Noise


class Views:
    """All views of all examples, built when asked for.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        The model's inputs by keyword; the first axis is the batch.
    modalities : sequence of Modality
        How each is fed, cut into features and hidden.
    plan : mapping from view name to mapping from modality name to change
        ``{"full": {}, "image masked": {"image": Mask(baseline="mean")}}``; a modality that is not named stays as it is.
    donors : mapping of str to Tensor, optional
        Examples to borrow from for the baseline ``"data"``; by default the batch itself.
    allow_empty : bool
        Allow views in which nothing of an example is left.
    common : collection of str
        Keys of inputs that belong to all examples, whatever their length; all others with an entry an example are cut.

    Attributes
    ----------
    names : list of str
        One a view, V in all.
    present : dict of str to Tensor, bool (V, N, F)
        For each modality, which features each view leaves. A re-ordered or noisy feature is present.
    examples : int
        N.

    Raises
    ------
    InputError
        For an unknown modality or baseline, a mask of the wrong length or dtype, modalities of different batch sizes,
        donors out of range, and a view that hides everything.

    Examples
    --------
    >>> from crossexplain.gradients.modalities import Tokens
    >>> words, keep = {"tokens": torch.tensor([[5, 6, 7, 0]])}, torch.tensor([False, True, True, True])
    >>> two = Views(words, [Tokens()], {"full": {}, "first hidden": {"text": Mask(keep, "mask")}})
    >>> two.inputs["tokens"].tolist(), two.present["text"].tolist()[1]
    ([[5, 6, 7, 0], [1, 6, 7, 0]], [[False, True, True, False]])
    """

    def __init__(self, inputs: Inputs, modalities: Sequence[Modality], plan: Mapping[Any, Mapping[str, Change]],
                 donors: Inputs | None = None, allow_empty: bool = False, common: Collection[str] = ()):
        modalities = [modality.settled(inputs) for modality in require_modalities(modalities)]
        self.modalities = {modality.name: modality for modality in modalities}
        self.names = list(plan)
        if not self.names:
            raise InputError("the plan has no view; pass for example {'full': {}}.")
        self.common = listed(common)
        self._inputs, self._donors = _with_tensors(inputs, modalities), inputs if donors is None else donors
        self._features = features_of(inputs, modalities)
        self.examples = len(next(iter(self._features.values())))
        self.plan = {view: self._checked(view, changes) for view, changes in plan.items()}
        self.present = {
            name: torch.stack([
                features & torch.as_tensor(change.keep) if isinstance(change := self.plan[view].get(name), Mask) else features
                for view in self.names
            ])
            for name, features in self._features.items()
        }
        if not allow_empty:
            self._require_something()

    def put_back(self, name: str, values: Tensor, rows: Tensor) -> Tensor:
        """Return values (V, n, F), read at the positions of a modality in each view of some examples, at its features."""
        modality, features, at_features = self.modalities[name], self._features[name][rows], []
        for v, view in enumerate(self.names):
            change = self.plan[view].get(name)
            baseline = change.baseline if isinstance(change, Mask) else ""
            at_features.append(modality.put_back(values[v], features, self.present[name][v, rows], baseline))
        return torch.stack(at_features)

    def _checked(self, view: str, changes: Mapping[str, Change]) -> dict[str, Change]:
        """Return the changes of a view, checked, with masks written out to (N, F)."""
        if not isinstance(changes, Mapping):
            raise InputError(f"view {view!r} is {type(changes).__name__}, expected a mapping from modality to change, as in "
                             "{'image': Mask(None, 'zero')}; {} changes nothing.")
        checked = {}
        for name, change in changes.items():
            if name not in self.modalities:
                raise InputError(f"view {view!r} changes {name!r}; the modalities are {', '.join(map(repr, self.modalities))}.")
            if not isinstance(change, Change):
                raise InputError(f"view {view!r} changes {name} by {change!r}, expected a Mask, Reorder or Noise, as in "
                                 "Mask(None, 'zero').")
            modality = self.modalities[name]
            if isinstance(change, Noise) and not modality.value(self._inputs).is_floating_point():
                raise InputError(f"view {view!r} adds noise to {name}, which holds whole numbers; re-order or mask it instead.")
            checked[name] = self._written_out(view, modality, change) if isinstance(change, Mask) else change
        return checked

    def _written_out(self, view: str, modality: Modality, mask: Mask) -> Mask:
        modality.require_baseline(mask.baseline)
        features = self._features[modality.name]
        keep = torch.zeros_like(features) if mask.keep is None else as_tensor(mask.keep, "keep", features.device)
        if keep.dtype != torch.bool:
            raise InputError(f"view {view!r}: the {modality.name} mask has dtype {keep.dtype}, expected bool, True for "
                             "features that stay; compare first, for example keep = scores < limit.")
        examples, count = features.shape
        if keep.shape not in ((count,), (1, count), (examples, count)):
            raise InputError(f"view {view!r}: the {modality.name} mask has {keep.shape[-1] if keep.ndim else 1} entries "
                             f"(shape {tuple(keep.shape)}), {modality.name} has {count} {modality.unit} and the batch "
                             f"{examples} examples; pass one entry a feature, True for those that stay, the same for all "
                             "examples (F,) or one row each (N, F).")
        donors = self._donors_of(view, modality, mask.donors) if mask.baseline == "data" else None
        return Mask(keep.expand_as(features), mask.baseline, donors)

    def _donors_of(self, view: str, modality: Modality, donors: Tensor | None) -> Tensor:
        lent, values = modality.value(self._donors), modality.value(self._inputs)
        if donors is None:
            raise InputError(f"view {view!r}: the baseline 'data' of {modality.name} needs donors, one row number an "
                             "example; pass Mask(keep, 'data', donors=torch.randint(...)).")
        donors = as_tensor(donors, "donors", values.device)
        if donors.ndim > 1 or donors.numel() not in (1, self.examples) or donors.dtype == torch.bool or donors.is_complex():
            raise InputError(f"view {view!r}: got donors of {modality.name} as {donors.dtype} {tuple(donors.shape)}, expected "
                             f"a whole row number for each of the {self.examples} examples.")
        donors = donors.expand(self.examples)
        if donors.is_floating_point() or int(donors.min()) < 0 or int(donors.max()) >= len(lent):
            raise InputError(f"view {view!r}: donors of {modality.name} lie between {donors.min()} and {donors.max()}, "
                             f"expected whole row numbers from 0 to {len(lent) - 1}.")
        if lent.shape[1:] != values.shape[1:]:
            raise InputError(f"donors of {modality.name} have shape {tuple(lent.shape[1:])} an example, the inputs "
                             f"{tuple(values.shape[1:])}; pad or resize them alike.")
        return donors

    def _require_something(self) -> None:
        anything = torch.stack([present.any(dim=-1) for present in self.present.values()]).any(dim=0)  # (V, N)
        if not anything.all():
            view, example = (int(i) for i in (~anything).nonzero()[0])
            raise InputError(f"view {self.names[view]!r} hides every feature of every modality (first in example "
                             f"{example}): nothing of the example is left to explain; keep at least one feature, or pass "
                             "allow_empty=True where the value of the bare baseline is what you want.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def inputs(self) -> dict[str, Any]:
        """All views of all examples, view-major: row ``v * N + i`` is view ``v`` of example ``i``."""
        return self.batch(torch.arange(self.examples))

    def batch(self, examples: Tensor) -> dict[str, Any]:
        """Return all views of some examples as one batch, view-major.

        Parameters
        ----------
        examples : Tensor of int64, shape (n,)
            Which examples.

        Returns
        -------
        dict
            The model's inputs, V * n rows.
        """
        base = rows_of(self._inputs, examples, self.examples, self.common)
        built = [{**base, **self._changed(base, self.plan[view], examples)} for view in self.names]
        cut = [key for key, value in self._inputs.items() if key not in self.common and is_batched(value, self.examples)]
        return {**self._inputs, **{key: _joined([view[key] for view in built]) for key in cut}}

    def _changed(self, base: Inputs, changes: Mapping[str, Change], examples: Tensor) -> dict[str, Tensor]:
        changed: dict[str, Tensor] = {}
        for name, change in changes.items():
            modality = self.modalities[name]
            given = without_others(base, modality, list(self.modalities.values()), self.common)
            if isinstance(change, Mask):
                donor = None
                if change.baseline == "data":
                    rows, lent = torch.as_tensor(change.donors)[examples], len(modality.value(self._donors))
                    donor = rows_of(self._donors, rows, lent, self.common)
                changed |= modality.replace(given, torch.as_tensor(change.keep)[examples], change.baseline, donor)
            elif isinstance(change, Reorder):
                keys = _drawn(change.seed, examples, self._features[name].shape[1:], torch.rand)
                changed |= modality.shuffle(given, keys.to(modality.value(base).device))
            else:
                values = modality.value(base)
                noise = _drawn(change.seed, examples, values.shape[1:], torch.randn)
                changed[modality.input] = values + float(change.sigma) * noise.to(values)
        return changed


def _with_tensors(inputs: Inputs, modalities: Sequence[Modality]) -> Inputs:
    """Return the inputs with the lists that modalities read, as numbers of words, written as tensors."""
    own = {key: word_numbers(inputs[key]) for modality in modalities for key in modality.own
           if isinstance(inputs.get(key), list)}
    return {**inputs, **own} if own else inputs


def _joined(parts: Sequence[Any]) -> Tensor | list[Any]:
    """Return the rows of all parts."""
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else [entry for part in parts for entry in part]


def _drawn(seed: int, examples: Tensor, shape: Sequence[int], draw: Callable[..., Tensor]) -> Tensor:
    """Draw one array an example that depends on the seed and the example alone: (n, *shape)."""
    return torch.stack([draw(*shape, generator=torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63))
                        for i in examples.tolist()])


__getattr__ = moved.names_of(__name__)
