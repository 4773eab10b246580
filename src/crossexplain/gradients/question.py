"""One model asked about one batch: the place where what was passed is checked, features are hidden and passes are counted.

Everything that asks a model with parts of its input hidden asks through a :class:`Question`: the rounds, the dividends of
features, the exact game, sampled values, other libraries' methods, the pre-flight and the explorers. They accept the same
models and the same ``target``, and refuse with the same words.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, class_index, require_eval, require_model
from crossexplain.gradients import trial
from crossexplain.gradients.called import Called, calling_of
from crossexplain.gradients.capture import Captured, NoGradient, Target, capture, require_target, run
from crossexplain.gradients.evidence import as_logits, classes, evidence, scored, tensors_in
from crossexplain.gradients.failures import require_flat, unused
from crossexplain.gradients.modalities import (
    Inputs,
    Modality,
    Tokens,
    features_of,
    require_modalities,
    rows_of,
    without_others,
)
from crossexplain.gradients.modes import eager
from crossexplain.gradients.padding import longest_of, padding_side_of, require_side, require_unread, unpadded
from crossexplain.gradients.places import require_places
from crossexplain.gradients.reading import require_order, require_own
from crossexplain.gradients.sharing import shared
from crossexplain.gradients.trial import Refusal, Trial

ROWS = 512  # rows that go through the model at once by default: enough to keep it busy, and little memory
FEW = 16  # examples on which a missing gradient is looked into


class Question:
    """A model, the examples it is asked about, and what stands in for hidden features.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; called as ``model(**inputs)``, without what only a modality reads. A model that is called in another way,
        or gives several tensors, is wrapped in :class:`~crossexplain.gradients.called.Called`.
    inputs : mapping of str to Tensor
        N examples. A list with one entry an example is cut like a tensor. Which inputs belong to all examples is found by the
        test pass, see :attr:`common`.
    modalities : sequence of Modality
        How each modality is cut into features and hidden.
    baselines : str or mapping from modality to str, optional
        What stands in for hidden features; default each modality's neutral one. ``"data"`` borrows from donors.
    donors : mapping of str to Tensor, optional
        Examples to borrow from.
    target : int, Tensor of shape (N,), callable, "predicted" or None
        What to follow. None and ``"predicted"``: the predicted class. A Tensor: that class of each example. Of several classes
        the evidence is the logit less the mean of all. An index: the logit of that column itself, as of one label among
        several. Of a single logit, 1 is yes and 0 is no. A function of the model's output, which it gets as it is, that
        returns one number an example, (N,), is read as a single logit.
    rows : int
        Most rows that go through the model at once; bounds the memory.
    any_mode : bool
        Accept a model in train mode and one whose test pass finds faults, so that preflight can say what is wrong with it.

    Attributes
    ----------
    names : list of str
        Of the modalities.
    present : dict of str to Tensor of bool, shape (N, F)
        Which features each example has.
    n : int
        Number of examples, N.
    model : torch.nn.Module
        Takes what ``inputs`` and :meth:`examples` hold.
    sharing : bool
        Whether equal rows are computed once; False from the first time that the model does not allow it.
    passes : int
        Rows that went through the model so far, without the test pass; a backward pass counts as two more.

    Raises
    ------
    InputError
        For a model with a part in train mode, an unknown modality or baseline, and a target that is none of the above; and from
        the first answer on, for whatever the test pass finds, see :mod:`~crossexplain.gradients.trial`.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
                 baselines: str | Mapping[str, str] | None = None, donors: Inputs | None = None, target: Target = None,
                 rows: int = ROWS, any_mode: bool = False):
        model = require_model(model)
        if not any_mode:
            require_eval(model)
        require_flat(model, inputs)
        require_target(target)
        if not isinstance(rows, Integral) or rows < 1:
            raise InputError(f"got rows={rows!r}, expected the most rows to run at once, a whole number from 1.")
        modalities = require_modalities(modalities)
        own = {key for modality in modalities for key in modality.own}
        # A scripted model takes no hook, by which rows are counted.
        self.model: nn.Module = Called(model, drop=own) if own or isinstance(model, torch.jit.ScriptModule) else model
        self.modalities: list[Modality] = [modality.settled(inputs, self.model) for modality in modalities]
        self.inputs: Inputs = inputs
        self.donors: Inputs | None = donors
        self.rows: int = rows
        self.any_mode: bool = any_mode
        self.passes: int = 0
        self.sharing: bool = not any_mode
        self.names: list[str] = [modality.name for modality in self.modalities]
        self.layers: list[str] = [modality.layer for modality in self.modalities]
        self.present: dict[str, Tensor] = features_of(inputs, self.modalities)
        self.n: int = len(next(iter(self.present.values())))
        self._asked: int | Tensor | None = None if isinstance(target, str) or callable(target) else target
        self._function: Callable[[object], Tensor] | None = target if callable(target) else None
        self._logits: Tensor | None = None  # of the whole examples
        self._target: Tensor | None = None
        self._trial: Trial | InputError | None = None
        self._reached: dict[str, bool] = {}
        self.baselines: dict[str, str] = self.choose(baselines)

    def __len__(self) -> int:
        return self.n

    def choose(self, baselines: str | Mapping[str, str] | None) -> dict[str, str]:
        """Return what stands in for each modality: the neutral baseline where none is named."""
        if not (baselines is None or isinstance(baselines, (str, Mapping))):
            raise InputError(f"got baselines={baselines!r}, expected one name for all modalities or a mapping, as in "
                             f"{{{self.names[0]!r}: {self.modalities[0].baselines[0]!r}}}.")
        if isinstance(baselines, Mapping) and (unknown := set(baselines) - set(self.names)):
            raise InputError(f"baselines names {', '.join(map(repr, sorted(unknown, key=str)))}, the modalities are "
                             f"{', '.join(map(repr, self.names))}.")
        given = dict.fromkeys(self.names, baselines) if isinstance(baselines, str) else baselines or {}
        chosen = {modality.name: modality.require_baseline(given.get(modality.name, modality.baselines[0]))
                  for modality in self.modalities}
        for i, modality in enumerate(self.modalities):
            if chosen[modality.name] == "delete" and isinstance(modality, Tokens) and modality.padding_side is None:
                self.modalities[i] = self._with_side(modality)
            if chosen[modality.name] == "pad" and isinstance(modality, Tokens) and not self.any_mode:
                require_unread(self._of_one, modality, self.examples(torch.arange(1)))
        return chosen

    def _of_one(self, inputs: Inputs) -> Tensor:
        """Return what is judged of one example, which does not count as a pass."""
        return self.of_output(run(self.model, inputs), 1)

    def _with_side(self, modality: Tokens) -> Tokens:
        """Return a text that nobody declared a side of with the side on which the model does not read padding."""
        longest = self.examples(torch.tensor([longest_of(modality, self.inputs)]))
        known, one = copy.copy(modality), unpadded(modality, longest)
        if modality.side is None:
            known.side = padding_side_of(self._of_one, modality, one) or "right"
        elif not self.any_mode:
            require_side(self._of_one, modality, one)
        return known

    def require_donors(self) -> None:
        """Raise unless there are examples of the same form to borrow from, where a modality's baseline is ``"data"``."""
        trial.require_donors(self.inputs, self.donors, self.modalities, self.baselines)

    def test(self) -> Trial:
        """Return what the test pass found; it runs once, before anything else is asked."""
        if self._trial is None:
            try:
                self._trial = trial.tried(self.model, self.inputs, self.modalities, self.n, self._function)
                if self._trial.end and not self.any_mode:
                    raise trial.of_probabilities(self._trial.end)
            except InputError as error:
                self._trial = error
        if isinstance(self._trial, InputError):
            if not self.any_mode:
                raise self._trial.with_traceback(None)
            return Trial(None, calling_of(self.model).common, "output", None)
        return self._trial

    def problems(self) -> list[Refusal]:
        """Return what the test pass finds wrong with a model, each with its ``check``, ``saw``, ``why`` and ``do``."""
        end = self.test().end
        found = [self._trial] if isinstance(self._trial, Refusal) else []
        return found + ([trial.of_probabilities(end)] if end else [])

    @property
    def common(self) -> tuple[str, ...]:
        """Inputs that belong to all examples and are never cut."""
        return self.test().common

    @property
    def judged(self) -> str:
        """Which part of the model's output is judged, in words."""
        return self.test().judged if self.column is None else f"{self.test().judged}, of which column {self.column}"

    @cached_property
    def column(self) -> int | None:
        """The column whose own logit is followed; None where all columns count, or there is one."""
        if self._function is not None or self._asked is None or isinstance(self._asked, Tensor):
            return None
        columns = self._output_columns()
        index = int(class_index(self._asked, max(2, columns), 1))
        return index if columns > 1 else None

    @property
    def scored(self) -> bool:
        """Whether one number an example is followed, of a function as target or of one column, in place of all logits."""
        return self._function is not None or self.column is not None

    @property
    def columns(self) -> int:
        """Number of logits an example, C, that are followed."""
        return 1 if self.scored else self._output_columns()

    def _output_columns(self) -> int:
        if (columns := self.test().columns) is not None:
            return columns
        return as_logits(run(self.model, self.inputs), self.n).shape[1]

    @property
    def target(self) -> Tensor:
        """Class that is followed, int64 (N,); 1 for all where one column is."""
        if self._target is None:
            if self._function is not None or self._asked is None:
                self._target = classes(self.whole())
            elif self.column is not None:
                self._target = torch.ones(self.n, dtype=torch.long)
            else:
                self._target = class_index(self._asked, max(2, self.columns), self.n)
        return self._target

    @property
    def logit_target(self) -> int | Tensor | Callable[[object], Tensor]:
        """What to hand to :func:`~crossexplain.gradients.capture.capture`, for all examples, to follow the same logit.

        Where the target is a function, the evidence for all examples as a function.
        """
        if self._function is not None:
            return lambda output: self.evidence_of(output, torch.arange(self.n))
        return self.target if self.column is None else self.column

    def follow(self, examples: Tensor) -> Tensor | None:
        """Return the class to follow of some examples, (n,), or None where it is the predicted one."""
        return None if self._asked is None or self._function is not None else self.target[examples]

    def examples(self, rows: Tensor, keys: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the inputs of some examples, by their row numbers; ``keys`` names those that are wanted, default all."""
        wanted = self.inputs if keys is None else {key: self.inputs[key] for key in keys}
        return rows_of(wanted, rows, self.n, self.common)

    def of_output(self, output: object, rows: int) -> Tensor:
        """Return the logits (R, C) that are followed of what the model returned for R rows, with their graph.

        Of a function as target, and of one column, it is one number a row, (R, 1).
        """
        if self._function is not None:
            return scored(self._function, output, rows)[:, None]
        logits = as_logits(output, rows)
        return logits if self.column is None else logits[:, self.column, None]

    def evidence_of(self, output: object, examples: Tensor) -> Tensor:
        """Return the evidence for the followed class, with its graph, (R,), of what the model returned for some examples."""
        return evidence(self.of_output(output, len(examples)), self.target[examples.to(self.target.device)])

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """Return the logits (R, C) of R rows of inputs, without a graph."""
        self.test()
        rows = len(self.modalities[0].value(inputs))
        parts = [inputs] if rows <= self.rows else \
            (rows_of(inputs, part, rows, self.common) for part in torch.arange(rows).split(self.rows))
        logits = torch.cat([self._logits_of(part) for part in parts])
        self.passes += rows
        return logits

    def _logits_of(self, part: Inputs) -> Tensor:
        def ask() -> Tensor:
            return self.of_output(run(self.model, part), len(self.modalities[0].value(part)))

        logits, self.sharing = shared(self.model, (), ask, towers=True) if self.sharing else (ask(), False)
        return logits

    def read(self, inputs: Inputs, follow: Tensor | None = None, gradients: bool = True, allow_unused: bool = False,
             layers: Sequence[str] | None = None) -> tuple[Tensor, Captured]:
        """Return the logits (R, C) of R rows of inputs and what was captured where the modalities say.

        Parameters
        ----------
        follow : Tensor of int64, shape (R,), optional
            Class whose logit is differentiated; default the only logit, or that of the predicted class.
        gradients, allow_unused
            As for :func:`~crossexplain.gradients.capture.capture`.
        layers : sequence of str, optional
            Default the layers of the modalities.
        """
        self.test()  # and with it all that capture would check
        rows = len(self.modalities[0].value(inputs))

        layers = self.layers if layers is None else layers

        def followed(output: object) -> Tensor:
            return self.of_output(output, rows)[:, 0]

        def read() -> Captured:
            target = followed if self.scored else follow
            return capture(self.model, inputs, layers, target, gradients, allow_unused, any_mode=True)

        captured, self.sharing = shared(self.model, layers, read, towers=True) if self.sharing else (read(), False)
        self.passes += rows * (3 if gradients else 1)
        return captured.score[:, None] if self.scored else as_logits(captured.output, rows), captured

    def whole(self) -> Tensor:
        """Return the logits of the whole examples, (N, C); computed once."""
        if self._logits is None:
            self._logits = self.logits(self.inputs)
        return self._logits

    def hidden(self, keep: Tensor | Mapping[str, Tensor], examples: Tensor,
               keys: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the inputs of some examples with only some features left.

        Parameters
        ----------
        keep : Tensor of bool, shape (R, F), or mapping from modality to such a Tensor
            Features that stay; one Tensor holds those of all modalities side by side. A modality that is not named stays.
        examples : Tensor of int64, shape (R,)
            Row number of the example of each row. Under ``"data"`` it borrows from the donor of the same number.
        keys : sequence of str, optional
            The inputs that are wanted, those of the modalities in ``keep`` among them; default all.
        """
        given = self.examples(examples, keys)
        changed = dict(given)
        keep = self.split(keep) if isinstance(keep, Tensor) else keep
        for modality in self.modalities:
            if modality.name in keep:
                stay = keep[modality.name].to(modality.value(given).device)
                donor = self._donor(modality, examples)
                changed |= self.replaced(modality, given, stay, self.baselines[modality.name], donor)
        return changed

    def replaced(self, modality: Modality, given: Inputs, stay: Tensor, baseline: str,
                 donor: Inputs | None) -> dict[str, Tensor]:
        """Return the inputs that change when a modality's features outside ``stay`` give way to a baseline."""
        # What belongs to all examples is none of what may travel with the words; a modality of another's may read it.
        common = self.common if hasattr(modality, "along") else ()
        own, lent = (None if inputs is None else {key: value for key, value in without_others(
            inputs, modality, self.modalities).items() if key not in common} for inputs in (given, donor))
        return modality.replace(own or {}, stay, baseline, lent)

    def _donor(self, modality: Modality, examples: Tensor) -> dict[str, Any] | None:
        if self.baselines[modality.name] != "data":
            return None
        self.require_donors()
        donors = self.donors or {}
        size = len(modality.value(donors))
        return rows_of(donors, examples % size, size, self.common)

    def values(self, keep: Tensor, examples: Tensor) -> Tensor:
        """Return the evidence for the followed class with only some features left, float64 (R,).

        Parameters
        ----------
        keep, examples
            As for :meth:`hidden`; a feature that an example does not have counts as kept.
        """
        keep = keep | ~self.joined()[examples]
        parts = [self.evidence(self.logits(self.hidden(stay, rows)), rows)
                 for stay, rows in zip(keep.split(self.rows), examples.split(self.rows))]
        return torch.cat(parts)

    def evidence(self, logits: Tensor, examples: Tensor) -> Tensor:
        """Return the evidence for the followed class, float64 (R,), of logits (R, C) of some examples.

        Raises
        ------
        InputError
            If a logit is NaN or infinite.
        """
        logits = logits.double().cpu()
        if not logits.isfinite().all():
            example = int(examples[(~logits.isfinite()).any(dim=1)][0])
            raise InputError(f"the model gives NaN or infinity for example {example} with some features masked; look at what "
                             f"the baselines {self.baselines} make of it.")
        return evidence(logits, self.target.cpu()[examples])

    def joined(self) -> Tensor:
        """Return which features each example has, of all modalities side by side, bool (N, F) on the CPU."""
        return torch.cat([present.cpu() for present in self.present.values()], dim=1)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Divide values (R, F) of all features among the modalities."""
        return dict(zip(self.names, values.split([present.shape[1] for present in self.present.values()], dim=1)))

    def captured(self, inputs: Inputs | None = None, layers: Sequence[str] | None = None) -> Captured:
        """Read activations and gradients of the evidence of all examples where the modalities say.

        Parameters
        ----------
        inputs : mapping of str to Tensor, optional
            N rows; default the whole examples.
        layers : sequence of str, optional
            Default the layers of the modalities.
        """
        everyone = torch.arange(len(self.target))  # which is found by a pass of its own, before this one
        captured = capture(self.model, self.inputs if inputs is None else inputs, list(dict.fromkeys(layers or self.layers)),
                           lambda output: self.evidence_of(output, everyone), allow_unused=True, any_mode=True)
        self.passes += 3 * self.n
        return captured

    def reached(self, names: Sequence[str] | None = None) -> dict[str, bool]:
        """Return for each modality whether a gradient reaches its features; one of zero is no proof of no influence.

        Looked into once a modality; what it runs counts in ``passes``, but for what looks at the places of its layer.

        Parameters
        ----------
        names : sequence of str, optional
            Modalities that are asked about; the layers of others are not read. Default all.

        Raises
        ------
        NoGradient
            Where no gradient reaches a modality, though the logits are others when it is hidden.
        """
        asked = [modality for modality in self.modalities if names is None or modality.name in names]
        unknown = [modality for modality in asked if modality.name not in self._reached]
        if unknown and self.n > 1:
            self.test()
            require_order(self, unknown)
        if unknown and len(self.modalities) > 1:
            require_own(self, unknown)
        require_places(self, unknown)
        few = torch.arange(min(self.n, FEW))
        missing = self._without_gradient(few[:1], unknown) if unknown else []
        missing = self._without_gradient(few, missing) if missing else []
        for modality in missing:
            if (moved := self._moved(modality, few)) > 0:
                raise NoGradient(f"{unused(self.model, modality.layer)} The gradient there is 0, and with {modality.name} "
                                 f"hidden the logits of the first {len(few)} example(s) move by up to {moved:.3g}.")
        if len(missing) == len(self.modalities) and not any(self._may_reach(modality, few[:1]) for modality in missing):
            raise NoGradient(unused(self.model, missing[0].layer))  # a number that nothing could change, as a class is
        self._reached |= {modality.name: modality not in missing for modality in unknown}
        return {modality.name: self._reached[modality.name] for modality in asked}

    def _without_gradient(self, examples: Tensor, modalities: Sequence[Modality]) -> list[Modality]:
        """Return those of the modalities whose gradient is 0 at all features of some examples."""
        given, layers = self.examples(examples), [modality.layer for modality in modalities]
        _, captured = self.read(given, self.follow(examples), allow_unused=True, layers=layers)
        return [modality for modality in modalities
                if not modality.read_at(captured.gradients[modality.layer].abs().float(), given, len(examples)).any()]

    def _may_reach(self, modality: Modality, examples: Tensor) -> bool:
        """Return whether the target is computed from a modality by what has a gradient, be it 0."""
        try:
            self.read(self.examples(examples), self.follow(examples), layers=[modality.layer])
        except NoGradient:
            return False
        return True

    def _moved(self, modality: Modality, examples: Tensor) -> float:
        """Return how far the logits of some examples move when a modality is hidden or taken from another example."""
        given = self.examples(examples)
        full, moved = self.logits(given), 0.0
        nothing = torch.zeros_like(self.present[modality.name][examples.to(self.present[modality.name].device)])
        for baseline in modality.baselines:
            with suppress(InputError):  # a baseline that cannot hide a whole modality
                donor = self.examples(examples.roll(1)) if baseline == "data" else None
                changed = self.logits({**given, **self.replaced(modality, given, nothing, baseline, donor)})
                if not torch.allclose(changed, full, rtol=1e-4, atol=1e-6):
                    moved = max(moved, float((changed - full).abs().max()))
        return moved

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count in ``passes`` what others send through the model meanwhile, and two more for each row on the way back."""
        self.test()  # which does not count
        before, rows = self.passes, 0
        first = self.modalities[0]

        def after(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: object) -> None:
            nonlocal rows
            passed = len(first.value(named))
            rows += passed
            waiting = [passed]  # counted once, whichever tensor of the output the way back begins at

            def back(gradient: Tensor) -> None:
                nonlocal rows
                rows += 2 * (waiting.pop() if waiting else 0)

            for _, tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(back)

        handle = self.model.register_forward_hook(after, with_kwargs=True)
        try:
            with eager():
                yield
        finally:
            handle.remove()
            self.passes = before + rows  # every own pass went through the model too
