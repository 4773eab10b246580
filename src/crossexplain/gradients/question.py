"""One model asked about one batch: the place where what was passed is checked, features are hidden and passes are counted.

Everything that asks a model with parts of its input hidden asks through a :class:`Question`: the rounds, the dividends of
features, the exact game, sampled values, other libraries' methods, the pre-flight and the explorers. They accept the same
models and the same ``target``, and refuse with the same words.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, class_index, require_eval
from crossexplain.gradients.capture import Captured, Target, capture, require_target, run
from crossexplain.gradients.evidence import as_logits, classes, evidence, first_tensor, one_number_each
from crossexplain.gradients.modalities import Inputs, Modality, features_of, require_modalities, rows_of
from crossexplain.gradients.sharing import shared

ROWS = 512  # rows that go through the model at once by default: enough to keep it busy, and little memory


class Question:
    """A model, the examples it is asked about, and what stands in for hidden features.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; called as ``model(**inputs)``.
    inputs : mapping of str to Tensor
        N examples.
    modalities : sequence of Modality
        How each modality is cut into features and hidden.
    baselines : str or mapping from modality to str, optional
        What stands in for hidden features; default each modality's neutral one. ``"data"`` borrows from donors.
    donors : mapping of str to Tensor, optional
        Examples to borrow from.
    target : int, Tensor of shape (N,), callable, "predicted" or None
        Class to follow; default, and ``"predicted"``, the predicted one. Of a single logit, 1 is yes and 0 is no. A function of
        the model's output that returns one number an example, (N,), is read as a single logit.
    rows : int
        Most rows that go through the model at once; bounds the memory.
    any_mode : bool
        Accept a model in train mode, to say what is wrong with it.

    Attributes
    ----------
    names : list of str
        Of the modalities.
    present : dict of str to Tensor of bool, shape (N, F)
        Which features each example has.
    n : int
        Number of examples, N.
    sharing : bool
        Whether :meth:`read` computes equal rows once; False from the first time that the model does not allow it.
    passes : int
        Rows that went through the model so far; a backward pass counts as two more.

    Raises
    ------
    InputError
        For a model with a part in train mode, an unknown modality or baseline, and a target that is none of the above.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
                 baselines: str | Mapping[str, str] | None = None, donors: Inputs | None = None, target: Target = None,
                 rows: int = ROWS, any_mode: bool = False):
        if not any_mode:
            require_eval(model)
        self.model, self.inputs, self.donors, self.rows, self.passes = model, inputs, donors, rows, 0
        self.sharing = True
        self.modalities = require_modalities(modalities)
        self.names = [modality.name for modality in self.modalities]
        self.layers = [modality.layer for modality in self.modalities]
        self.present = features_of(inputs, self.modalities)
        self.n = len(next(iter(self.present.values())))
        self.baselines = self.choose(baselines)
        require_target(target)
        self._asked = None if isinstance(target, str) else target
        self._logits: Tensor | None = None  # of the whole examples
        self._columns: int | None = None
        self._target: Tensor | None = None

    def __len__(self) -> int:
        return self.n

    def choose(self, baselines: str | Mapping[str, str] | None) -> dict[str, str]:
        """Return what stands in for each modality: the neutral baseline where none is named."""
        if isinstance(baselines, Mapping) and (unknown := set(baselines) - set(self.names)):
            raise InputError(f"baselines names {', '.join(map(repr, sorted(unknown)))}, the modalities are "
                             f"{', '.join(map(repr, self.names))}.")
        given = dict.fromkeys(self.names, baselines) if isinstance(baselines, str) else baselines or {}
        return {modality.name: modality.require_baseline(given.get(modality.name, modality.baselines[0]))
                for modality in self.modalities}

    def require_donors(self) -> None:
        """Raise unless there are examples to borrow from, where a modality's baseline is ``"data"``."""
        if "data" in self.baselines.values() and self.donors is None:
            raise InputError("the baseline 'data' borrows from other examples; pass them as donors=...")

    @property
    def scored(self) -> bool:
        """Whether the target is a function of the output."""
        return callable(self._asked)

    @property
    def columns(self) -> int:
        """Number of logits an example, C, found by one pass on the first example."""
        if self._columns is None:
            logits = self.logits(self.examples(torch.arange(1))) if self._logits is None else self._logits
            self._columns = logits.shape[1]
        return self._columns

    @property
    def target(self) -> Tensor:
        """Class that is followed, int64 (N,)."""
        if self._target is None:
            if self._asked is None or self.scored:
                self._target = classes(self.whole())
            else:
                self._target = class_index(self._asked, max(2, self.columns), self.n)
        return self._target

    def follow(self, examples: Tensor) -> Tensor | None:
        """Return the class to follow of some examples, (n,), or None where it is the predicted one."""
        return None if self._asked is None or self.scored else self.target[examples]

    def examples(self, rows: Tensor, keys: Sequence[str] | None = None) -> dict[str, object]:
        """Return the inputs of some examples, by their row numbers; ``keys`` names those that are wanted, default all."""
        wanted = self.inputs if keys is None else {key: self.inputs[key] for key in keys}
        return rows_of(wanted, rows, self.n)

    def of_output(self, output: object, rows: int) -> Tensor:
        """Return the logits (R, C) of what the model returned for R rows; of a function as target, its number (R, 1)."""
        return one_number_each(self._asked(output), rows)[:, None] if self.scored else as_logits(output, rows)

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """Return the logits (R, C) of R rows of inputs, without a graph."""
        rows = len(self.modalities[0].value(inputs))
        parts = [inputs] if rows <= self.rows else (rows_of(inputs, part, rows) for part in torch.arange(rows).split(self.rows))
        logits = torch.cat([self.of_output(run(self.model, part), len(self.modalities[0].value(part))) for part in parts])
        self.passes += rows
        return logits

    def read(self, inputs: Inputs, follow: Tensor | None = None, gradients: bool = True,
             allow_unused: bool = False) -> tuple[Tensor, Captured]:
        """Return the logits (R, C) of R rows of inputs and what was captured where the modalities say.

        Parameters
        ----------
        follow : Tensor of int64, shape (R,), optional
            Class whose logit is differentiated; default the only logit, or that of the predicted class.
        gradients, allow_unused
            As for :func:`~crossexplain.gradients.capture.capture`.
        """
        rows = len(self.modalities[0].value(inputs))

        def read() -> Captured:
            return capture(self.model, inputs, self.layers, self._asked if self.scored else follow, gradients, allow_unused)

        captured, self.sharing = shared(self.model, self.layers, read) if self.sharing else (read(), False)
        self.passes += rows * (3 if gradients else 1)
        return captured.score[:, None] if self.scored else as_logits(captured.output, rows), captured

    def whole(self) -> Tensor:
        """Return the logits of the whole examples, (N, C); computed once."""
        if self._logits is None:
            self._logits = self.logits(self.inputs)
        return self._logits

    def hidden(self, keep: Tensor | Mapping[str, Tensor], examples: Tensor,
               keys: Sequence[str] | None = None) -> dict[str, object]:
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
                changed |= modality.replace(given, stay, self.baselines[modality.name], self._donor(modality, examples))
        return changed

    def _donor(self, modality: Modality, examples: Tensor) -> dict[str, object] | None:
        if self.baselines[modality.name] != "data":
            return None
        self.require_donors()
        size = len(modality.value(self.donors))
        return rows_of(self.donors, examples % size, size)

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
        target = self.target
        captured = capture(self.model, self.inputs if inputs is None else inputs, list(dict.fromkeys(layers or self.layers)),
                           lambda output: evidence(self.of_output(output, self.n), target), allow_unused=True)
        self.passes += 3 * self.n
        return captured

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count in ``passes`` what others send through the model meanwhile, and two more for each row on the way back."""
        before = self.passes
        rows = 0

        def after(module: nn.Module, arguments: tuple, output: object) -> None:
            nonlocal rows
            first = first_tensor(output)
            rows += len(first)
            if first.requires_grad:
                first.register_hook(back)

        def back(gradient: Tensor) -> None:
            nonlocal rows
            rows += 2 * len(gradient)

        handle = self.model.register_forward_hook(after)
        try:
            yield
        finally:
            handle.remove()
            self.passes = before + rows  # every own pass went through the model too
