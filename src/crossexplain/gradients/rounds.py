"""The paper's four rounds from every modality's side, on all views at once.

A *round* is one forward and one backward pass on one view (section 3 of the paper). From the text's side:

    round 1   nothing masked              gradient at the text       text_grad_no_mask
    round 2   image masked                gradient at the text       text_grad_mask_all: its largest are the picked tokens
    round 3   text masked                 gradient at the image      img_grad_mask_all
    round 4   the picked tokens masked    gradient at the image      img_grad_mask_partial: like round 3?

and the same from the image's side, regions for tokens. Here every view of every example is a row of one batch, gradients
of all rounds are kept raw and divided by one scale, and the logits that the same passes give are recorded as well.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor, nn

from crossexplain import moved
from crossexplain.checks import InputError, require_flags, require_one_of
from crossexplain.gradients.capture import Captured, NoGradient, Target
from crossexplain.gradients.evidence import classes, evidence
from crossexplain.gradients.groups import Groups, require_groups
from crossexplain.gradients.layouts import rows_first
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality
from crossexplain.gradients.plans import Baseline, Plan, Plans
from crossexplain.gradients.question import ROWS, Question
from crossexplain.gradients.record import PICKED, RANDOM, FromSide, Pass, Record, Similarity, partly_masked, similarity
from crossexplain.gradients.views import FULL, NOTHING, Change, Views, alone, masked

PICKS = "round 2", "round 1", "cross", None
BY = "gradient", "gradient x activation"


@overload
def rounds(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *, target: list[int] | tuple[int, ...],
           **settings: Any) -> dict[int, Record]: ...


@overload
def rounds(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
           baselines: Sequence[Baseline] | Baseline | None = None, top: int | Mapping[str, int] = 1,
           pick: str | None = "round 2", by: str = "gradient", target: Target = None, donors: Inputs | None = None,
           draws: int = 4, extra: Mapping[str, Mapping[str, Change]] | None = None, control: bool = True,
           interactions: int = 2, gradients: bool = True, sharing: bool = True, rows: int = ROWS, progress: bool = True,
           seed: int = 0) -> Record: ...


def rounds(  # type: ignore[misc]  # the settings of the first are those of the second
           model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
           baselines: Sequence[Baseline] | Baseline | None = None, top: int | Mapping[str, int] = 1,
           pick: str | None = "round 2", by: str = "gradient", target: Target | list[int] | tuple[int, ...] = None,
           donors: Inputs | None = None, draws: int = 4, extra: Mapping[str, Mapping[str, Change]] | None = None,
           control: bool = True, interactions: int = 2, gradients: bool = True, sharing: bool = True, rows: int = ROWS,
           progress: bool = True, seed: int = 0) -> Record | dict[int, Record]:
    """Run the four rounds from the side of every modality on a batch.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode; called as ``model(**inputs)``.
    inputs : mapping of str to Tensor
        N examples; the verdict speaks about these, a few hundred make it sharp.
    modalities : sequence of Modality
        Two or more.
    baselines : sequence, optional
        What stands in for what is masked: a name for all modalities, or a mapping from modality to name. Default: each
        modality's own neutral one, and ``"data"`` where there is another example to borrow from.
    top : int or mapping from modality to int
        How many features round 4 masks.
    pick : {"round 2", "round 1", "cross"} or None
        By which importance they are picked: the paper's, that with nothing masked, or :attr:`FromSide.cross`. None leaves
        round 4 out, and with it :attr:`Record.by_side`.
    by : {"gradient", "gradient x activation"}
        What the importance of a feature is the norm of.
    target : int, Tensor of shape (N,), callable, "predicted", sequence of int or None
        Which logit to follow; default, and ``"predicted"``, the one of the class predicted in the full view. A tensor holds
        the class of each example: one among the classes, which are judged together. An int is one label of several, whose own
        logit is followed and judged, above 0 for yes; a list of ints asks about each of these labels. Of a model with one
        logit, 1 is yes and 0 is no. A function of the model's output that returns one number an example is read as a logit,
        above 0 for yes.
    donors : mapping of str to Tensor, optional
        Examples to borrow from for ``"data"``; default the batch itself, so that a donor among the examples borrows from
        itself in one of its draws. Of a few examples that is a large part: pass others.
    draws : int
        Donors, the same for every example: then a sum of parts stays a sum of parts.
    extra : mapping from view name to mapping from modality to change, optional
        Further views to record: noise, another order, part of the image.
    control : bool
        Also mask as many features picked at random, to compare round 4 with.
    interactions : int
        Of more than three modalities, up to how many are also left without the others, so that :meth:`Record.dividends` says
        which interact: 2 for pairs, 3 for threes as well, each a forward pass. Of two and three modalities all are recorded.
    gradients : bool
        False runs the forward passes alone, for about a third of the time: the verdict is the same, since it reads logits. The
        record then has neither norms nor importances, and round 4 is left out.
    sharing : bool
        Compute equal rows once up to the layers that are read, where the model allows it; the record is the same.
    rows : int
        Most rows (views times examples) that go through the model at once; bounds the memory.
    progress : bool
        Show a progress bar when the work takes longer than some seconds.
    seed : int
        Choice of donors, random picks, bootstrap.

    Returns
    -------
    Record
        Of a list of labels, a dict with the record of each.

    Raises
    ------
    InputError
        For a model in train mode, fewer than two modalities, an unknown baseline, ``pick`` or ``by``, and whatever
        :func:`~crossexplain.gradients.capture.capture` and :class:`~crossexplain.gradients.views.Views` refuse.

    Notes
    -----
    Wang and Shi, "Towards More Explainable Multimodal Machine Learning", section 3, Figures 4 to 7.
    """
    def record(target: Target) -> Record:
        question = Question(model, inputs, modalities, donors=donors, target=target, rows=rows)
        return run_rounds(question, baselines=baselines, top=top, pick=pick, by=by, draws=draws, extra=extra, control=control,
                          interactions=interactions, gradients=gradients, sharing=sharing, progress=progress, seed=seed)

    if not isinstance(target, (list, tuple)):
        return record(target)
    whole_numbers = all(isinstance(label, Integral) and not isinstance(label, bool) for label in target)
    if not target or not whole_numbers or len(set(target)) < len(target):
        raise InputError(f"got target={target!r}, expected a list of different labels, as in target=[0, 3, 7], which gives one "
                         "record for each label; for one class for each example pass a tensor, torch.tensor(target).")
    return {int(label): record(int(label)) for label in target}


def feature_dividends(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], *,
                      groups: Groups | None = None, baseline: Baseline | None = None, target: Target = None,
                      donors: Inputs | None = None, draws: int = 4, rows: int = ROWS, progress: bool = True,
                      seed: int = 0) -> dict[str, Tensor] | Tensor:
    """Return which features, or groups of them, carry the interaction, by masking each: forward passes alone.

    The dividend of feature f of modality A with all other modalities B: v(AB) - v(AB without f) - v(A) + v(A without f).
    It is 0 for a feature whose effect is the same whatever the others hold. That of a group g of features of several
    modalities: v(all) - v(all without g), less v(A) - v(A without g) of each modality A alone. It is 0 where the modalities
    add up, and for a group of one modality the same as for a feature.

    Parameters
    ----------
    groups : Groups, optional
        Hide whole groups, such as turns, in all of their modalities; of ``groups.apart()`` in one modality each.
    baseline : str or mapping from modality to str, optional
        Default: each modality's neutral one.
    model, inputs, modalities, target, donors, draws, rows, progress, seed
        As for :func:`rounds`.

    Returns
    -------
    dict of str to Tensor, shape (N, F), or Tensor, shape (N, G)
        Signed: above 0 the feature and the others together speak for the followed class. 0 where there is no feature. Of
        groups one tensor with a column a group.

    Raises
    ------
    InputError
        For groups that do not fit the features.

    Notes
    -----
    Costs 2 F + 2 views a modality, where :func:`rounds` costs a handful; :attr:`FromSide.cross` is its first-order estimate.
    """
    question = Question(model, inputs, modalities, baselines=baseline, donors=donors, target=target, rows=rows)
    return run_dividends(question, groups=groups, draws=draws, progress=progress, seed=seed)


def run_rounds(question: Question, *, baselines: Sequence[Baseline] | Baseline | None = None, top: int | Mapping[str, int] = 1,
               pick: str | None = "round 2", by: str = "gradient", draws: int = 4,
               extra: Mapping[str, Mapping[str, Change]] | None = None, control: bool = True, interactions: int = 2,
               gradients: bool = True, sharing: bool = True, progress: bool = True, seed: int = 0) -> Record:
    """As :func:`rounds`, through a :class:`~crossexplain.gradients.question.Question`, which counts the passes."""
    require_one_of(pick, PICKS, "pick")
    require_one_of(by, BY, "by")
    if not isinstance(interactions, Integral) or not 1 <= interactions <= 3:
        raise InputError(f"got interactions={interactions!r}, expected 2 for pairs of modalities, 3 for threes as well, or 1 "
                         "for neither.")
    require_flags(control=control, sharing=sharing, progress=progress)
    if not (extra is None or isinstance(extra, Mapping)):
        raise InputError(f"got extra={extra!r}, expected views by name, as in {{'noise': {{'image': Noise(0.1)}}}}.")
    question.sharing = sharing
    plans = Plans(question, baselines, draws, seed)
    runner = _Runner(question, plans, _tops(question.names, top), pick if gradients else None, by, extra or {}, control,
                     gradients, seed)
    whole = _in_chunks(runner.chunk, question.n, question.rows // runner.widest, progress, "rounds")
    if plan := plans.few(interactions):
        laid_out = plans.laid_out(plan)
        whole["few"] = _in_chunks(lambda examples: _logits(question, laid_out, examples), question.n,
                                  question.rows // len(laid_out), progress, "interactions")
    return runner.record(whole)


def run_dividends(question: Question, *, groups: Groups | None = None, draws: int = 4, progress: bool = True,
                  seed: int = 0) -> dict[str, Tensor] | Tensor:
    """As :func:`feature_dividends`, through a :class:`~crossexplain.gradients.question.Question`, under its baselines."""
    plans = Plans(question, [question.baselines], draws, seed)
    if groups is not None:
        return _group_dividends(question, plans, require_groups(groups), progress, "dividends of groups")
    each = {name: torch.arange(present.shape[1]) for name, present in question.present.items()}
    return {name: _group_dividends(question, plans, Groups(tuple(map(str, range(len(of)))), {name: of}), progress,
                                   f"dividends of features of {name}") for name, of in each.items()}


def _group_dividends(question: Question, plans: Plans, groups: Groups, progress: bool, desc: str) -> Tensor:
    """Return what each group does in the whole beyond what its features of each modality do there alone, (N, G)."""
    groups = groups.of(question.present)
    laid_out = plans.laid_out(plans.group_by_group(groups))
    value = _in_chunks(lambda examples: _margins(question, laid_out, examples), question.n, question.rows // len(laid_out),
                       progress, desc)
    dividends = torch.stack([value[FULL, None] - value["without", group] for group in range(len(groups))], dim=1)
    for view, key in value:
        if view == "alone without":
            group, name = key
            dividends[:, group] -= value["alone", name] - value[view, key]
    return groups.present().cpu() * dividends


def _tops(names: Sequence[str], top: int | Mapping[str, int]) -> dict[str, int]:
    """Return how many features of each modality round 4 masks."""
    given = top if isinstance(top, Mapping) else dict.fromkeys(names, top)
    for name, number in given.items():
        if name not in names:
            raise InputError(f"top names {name!r}, the modalities are {', '.join(map(repr, names))}.")
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise InputError(f"got top={number!r} for {name}, expected a whole number, at least one feature to mask in "
                             "round 4.")
    return dict.fromkeys(names, 1) | dict(given)


def _logits(question: Question, laid_out: Views, examples: Tensor) -> dict[Any, Tensor]:
    """Return the logits (n, C) of some examples in each view, the mean over its draws, without gradients."""
    logits, _ = question.read(laid_out.batch(examples), gradients=False)
    logits = logits.reshape(len(laid_out), len(examples), -1).float().cpu()
    views: dict[Any, list[int]] = {}
    for v, name in enumerate(laid_out.names):
        views.setdefault(name[:-1], []).append(v)
    return {view: logits[draws].mean(dim=0) for view, draws in views.items()}


def _margins(question: Question, laid_out: Views, examples: Tensor) -> dict[Any, Tensor]:
    """Return the evidence for the followed class in each view, without gradients."""
    logits, follow = _logits(question, laid_out, examples), question.follow(examples)
    follow = classes(logits[FULL, None]) if follow is None else follow.cpu()
    return {view: evidence(values, follow) for view, values in logits.items()}


class _RawPass(NamedTuple):
    """A :class:`Pass` before its importance is scaled, with the gradient at each modality's layer, (n, ...)."""

    logits: Tensor
    norms: dict[str, Tensor]
    importance: dict[str, Tensor]
    gradient: dict[str, Tensor]


_Passes = dict[tuple[Any, str], _RawPass]  # by baseline and view
_Cross = dict[tuple[str, str], Tensor]  # by baseline and modality


@dataclass
class _Runner:
    """The settings of one call, and the passes that they ask for."""

    question: Question
    plans: Plans
    tops: dict[str, int]
    pick: str | None
    by: str
    extra: Mapping[str, Mapping[str, Change]]
    control: bool
    gradients: bool
    seed: int

    def __post_init__(self) -> None:
        question = self.question
        self.names = question.names
        self.modality = dict(zip(question.names, question.modalities))
        self.which = (PICKED, RANDOM) if self.control else (PICKED,)
        generator = torch.Generator().manual_seed(self.seed + 1)
        self.random_scores = {name: torch.rand(present.shape, generator=generator)
                              for name, present in question.present.items()}
        plan = self.plans.first_plan()
        self._require_other_names(plan)
        self.first = self.plans.laid_out(plan | {(None, view, 0): changes for view, changes in self.extra.items()})
        draws = sum(self.plans.times(label, self.names) for label in self.plans.baselines)
        self.widest = max(len(self.first), draws * len(self.names) * len(self.which))  # rows that one example takes
        self.single = question.columns == 1
        self.target = None if self.single and question.follow(torch.arange(1)) is None else question.target
        # What no mask matters to has a gradient of 0.
        self.allow_unused = self.gradients and not all(question.reached().values())

    def _require_other_names(self, plan: Plan) -> None:
        """Raise if the caller's own views have names of the record's views, or cannot be laid out."""
        names = {FULL, NOTHING} | {view for _, view, _ in plan}
        names |= {partly_masked(name, which) for name in self.names for which in (PICKED, RANDOM)}
        if taken := sorted(names & set(self.extra)):
            raise InputError(f"got own views named {', '.join(map(repr, taken))}, which are names of the record's views; "
                             "choose other names.")
        if self.extra:  # laid out under their own names, for the messages
            self.plans.laid_out(self.extra)

    def chunk(self, examples: Tensor) -> dict[str, Any]:
        """Run both passes on some examples and keep what the record needs."""
        if not self.gradients:
            return {"passes": {key: (logits, {}, {}) for key, logits in _logits(self.question, self.first, examples).items()},
                    "sides": {}}
        follow = None if self.target is None or self.single else self.target[examples]
        first, cross = self._run(self.first, examples, examples, follow, self.pick is not None)
        second, sides = _Passes(), dict[Any, Any]()
        if self.pick is not None:
            second, sides = self._round_4(first, cross, examples, follow)
        without_gradients = {key: raw[:-1] for key, raw in (first | second).items()}
        return {"passes": without_gradients, "sides": sides}

    def _round_4(self, first: _Passes, cross: _Cross, examples: Tensor,
                 follow: Tensor | None) -> tuple[_Passes, dict[Any, Any]]:
        """Mask the picked features, and as many at random; return the passes and what each side sees."""
        picked = {(label, name): self._picked(label, name, first, cross, examples)
                  for label in self.plans.baselines for name in self.names}
        plan: Plan = {}
        for (label, name), features in picked.items():
            at_random = self._largest(self.random_scores[name][examples], self.question.present[name][examples], name)
            for which, hide in zip(self.which, (features, at_random)):
                self.plans.add(plan, label, partly_masked(name, which), {name: ~hide})
        laid_out = self.plans.laid_out(plan, self.question.examples(examples))
        second, _ = self._run(laid_out, torch.arange(len(examples)), examples, follow)
        return second, {key: (features.cpu(), self._similarities(*key, first, second, examples), cross[key])
                        for key, features in picked.items()}

    def _run(self, laid_out: Views, rows: Tensor, examples: Tensor, follow: Tensor | None,
             crossed: bool = False) -> tuple[_Passes, _Cross]:
        """One forward and one backward pass on all views of some examples; the mean over the draws of each view.

        The second dict holds the cross gradients of the first plan, if they are wanted.
        """
        times, n, inputs = len(laid_out), len(examples), laid_out.batch(rows)
        follow = None if follow is None else follow.repeat(times)
        logits, captured = self.question.read(inputs, follow, allow_unused=self.allow_unused)
        logits = logits.reshape(times, n, -1)
        at = {name: self._at(name, captured, laid_out, inputs, rows) for name in self.names}
        passes: _Passes = {}
        for (label, view), group in itertools.groupby(range(times), key=lambda v: laid_out.names[v][:2]):
            draws = list(group)
            which = slice(draws[0], draws[-1] + 1)
            norms, importance, gradient = ({name: values[i][which].mean(dim=0) for name, values in at.items()}
                                           for i in range(3))
            mean = logits[which].float().mean(dim=0).cpu()
            passes[label, view] = _RawPass(mean, _on_cpu(norms), _on_cpu(importance), gradient)
        keys = itertools.product(self.plans.baselines if crossed else (), self.names)
        return passes, {key: self._cross(*key, at[key[1]][3], laid_out, examples) for key in keys}

    def _at(self, name: str, captured: Captured, laid_out: Views, inputs: Inputs,
            rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return at one modality norms (V, n), importances (V, n, F), gradients (V, n, ...), and those of the features."""
        modality, present = self.modality[name], laid_out.present[name][:, rows]  # (V, n, F)
        gradient, count = captured.gradients[modality.layer].float(), present.shape[0] * present.shape[1]
        values = gradient if self.by == "gradient" else gradient * captured.activations[modality.layer].float()
        importance = _root(modality.read_at(values.square(), inputs, count)).reshape(present.shape)
        of_features = modality.laid_out(gradient, inputs, count)
        whole = of_features  # special tokens in front of patches count too
        if isinstance(modality, ImageCells) and gradient.ndim == 3 and modality.positions is None:
            whole = rows_first(gradient, count, modality.read_from(), modality.layout)
        return (whole.flatten(1).norm(dim=1).reshape(present.shape[:2]), laid_out.put_back(name, importance, rows) * present,
                *(part.reshape(*present.shape[:2], *part.shape[1:]) for part in (whole, of_features)))

    def _cross(self, label: str, name: str, gradient: Tensor, laid_out: Views, examples: Tensor) -> Tensor:
        """Return the norm of the difference of the gradients of rounds 1 and 2 at each feature, (n, F)."""
        of_alone = [view[:2] == (label, alone(name, self.names)) for view in laid_out.names]
        difference = gradient[laid_out.names.index((None, FULL, 0))] - gradient[torch.tensor(of_alone)].mean(dim=0)
        summed = self.modality[name].summed(difference.square(), self.question.examples(examples))
        return _root(summed).cpu() * self.question.present[name][examples].cpu()

    def _picked(self, label: str, name: str, first: _Passes, cross: _Cross, examples: Tensor) -> Tensor:
        """Return the features that round 4 masks, bool (n, F)."""
        if self.pick == "cross":
            scores = cross[label, name]
        else:
            view = (None, FULL) if self.pick == "round 1" else (label, alone(name, self.names))
            scores = first[view].importance[name]
        return self._largest(scores, self.question.present[name][examples], name)

    def _largest(self, scores: Tensor, present: Tensor, name: str) -> Tensor:
        order = scores.masked_fill(~present.to(scores.device), -1).argsort(dim=1, descending=True, stable=True)
        ranks = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        return (ranks < self.tops[name]).to(present.device) & present

    def _similarities(self, label: str, name: str, first: _Passes, second: _Passes,
                      examples: Tensor) -> tuple[Similarity, ...]:
        """Compare rounds 3 and 4 at the other modalities, for the picked and for the random features."""
        others = self.plans.others(name)
        present = torch.cat([self.question.present[other][examples].cpu() for other in others], dim=1)

        def joined(one: _RawPass) -> tuple[Tensor, Tensor]:
            return (torch.cat([one.gradient[other].flatten(1) for other in others], dim=1),
                    torch.cat([one.importance[other] for other in others], dim=1))

        third = joined(first[label, masked(name)])
        fourth = [joined(second[label, partly_masked(name, which)]) for which in self.which]
        return tuple(similarity((third[0], one[0]), (third[1], one[1]), present) for one in fourth)

    def _require_gradients(self, passes: Mapping[Any, Pass], largest: Mapping[str, Tensor]) -> None:
        """Raise where no feature of a modality has a gradient in any view, though the logits move as it is masked."""
        full = passes[None, FULL].logits
        for name in (name for name, value in largest.items() if not value.any()):
            hidden = [one.logits for (_, view), one in passes.items() if view == masked(name)]
            if not all(torch.allclose(logits, full, rtol=1e-4, atol=1e-6) for logits in hidden):
                moved = max(float((logits - full).abs().max()) for logits in hidden)
                modality = self.modality[name]
                raise NoGradient(f"the gradient at {modality.layer!r} is 0 at all {modality.unit} of {name} in every view, and "
                                 f"yet the logits move by up to {moved:.3g} as {name} is masked: something else is read after "
                                 "that layer, such as its class token or its last step; name an earlier layer.")

    def _scaled(self, passes: dict[Any, Pass]) -> tuple[dict[Any, Pass], dict[str, Tensor]]:
        """Divide the importances of each modality by their largest of all passes, (N,); return both."""
        if not self.gradients:
            return passes, {}
        largest = {name: torch.stack([one.importance[name].amax(dim=1) for one in passes.values()]).amax(dim=0)
                   for name in self.names}
        self._require_gradients(passes, largest)
        scale = {name: value.where(value > 0, 1.0) for name, value in largest.items()}
        return {key: one._replace(importance={name: values / scale[name][:, None] for name, values in one.importance.items()})
                for key, one in passes.items()}, scale

    def record(self, whole: dict[str, Any]) -> Record:
        """Put what all chunks gave under one normalisation."""
        passes, scale = self._scaled({key: Pass(*one) for key, one in whole["passes"].items()})
        full, recorded = passes[None, FULL], {}
        for label in self.plans.baselines:
            recorded[label, FULL] = full
            recorded |= {key: one for key, one in passes.items() if key[0] == label}
            hidden = label, masked(*self.names)
            nothing = recorded.pop(hidden).logits if hidden in recorded else \
                self.plans.value_of_nothing(label).expand_as(full.logits)
            recorded[label, NOTHING] = Pass(nothing, {}, {})
        recorded |= {view: Pass(logits, {}, {}) for view, logits in whole.get("few", {}).items()}
        sides = {}
        for (label, name), (picked, similarities, cross) in whole["sides"].items():
            of_picked, *at_random = (Similarity(*values) for values in similarities)
            sides[label, name] = FromSide(picked, of_picked, at_random[0] if at_random else None, cross / scale[name][:, None])
        target = classes(full.logits) if self.target is None else self.target.cpu()
        return Record(tuple(self.names), tuple(self.plans.baselines), target, _on_cpu(self.question.present), recorded,
                      {view: passes[None, view] for view in self.extra}, sides, scale, self.seed)


def _root(values: Tensor) -> Tensor:
    return values.clamp(min=0).sqrt()  # sums of squares, which rounding may take below 0


def _on_cpu(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in values.items()}


def _in_chunks(compute: Callable[[Tensor], Any], n: int, size: int, progress: bool, desc: str) -> Any:
    """Return what ``compute`` gives for some examples, tensors with a row each, for all n of them."""
    from tqdm.auto import tqdm

    whole: Any = None
    with tqdm(total=n, disable=not progress, delay=5, unit="example", desc=desc) as bar:
        for examples in torch.arange(n).split(max(1, size)):
            whole = _put(compute(examples), whole, examples, n)
            bar.update(len(examples))
    return whole


def _put(part: Any, whole: Any, examples: Tensor, n: int) -> Any:
    """Return tensors for n examples, made for the first chunk, with those of a chunk copied to its examples.

    If the small tensors of each chunk were kept, they would lie between the large ones that are freed, and memory would
    grow with every chunk.
    """
    if isinstance(part, Tensor):
        whole = part.new_empty(n, *part.shape[1:]) if whole is None else whole
        whole[examples] = part
        return whole
    keys = part if isinstance(part, dict) else range(len(part))
    values = [_put(part[key], None if whole is None else whole[key], examples, n) for key in keys]
    return dict(zip(keys, values)) if isinstance(part, dict) else tuple(values)


__getattr__ = moved.names_of(__name__)
