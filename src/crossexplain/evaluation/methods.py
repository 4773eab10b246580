"""Explanations of all kinds by one call, :func:`explain`: the same features, the same baselines, the cost counted.

Every method gives an importance to each feature of a modality (cell of a picture, word) for the followed class. Methods that
hide features ask the whole model, so that costs can be compared; only sampled Shapley values and exact values ask its towers.

:func:`registry` is the one list of methods: those of this file, the maps of :mod:`crossexplain.gradients.maps`, the word scores
of :mod:`crossexplain.gradients.tokens` and :mod:`~crossexplain.gradients.attention`, and those of other libraries,
:mod:`crossexplain.evaluation.methods_of_others`. A new method is one function and one line of the table that it belongs to.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_whole
from crossexplain.coalitions import shapley
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.evaluation import methods_of_others
from crossexplain.evaluation.modality_shares import emap, intershap_values, size_shares
from crossexplain.evaluation.task import (
    BUDGET,
    BY_GROUP,
    COMPLETE,
    CannotRun,
    Explanation,
    Method,
    Scored,
    Task,
    missing,
)
from crossexplain.gradients import attention, maps, tokens
from crossexplain.gradients.attention import attention_maps, roll, watched
from crossexplain.gradients.capture import INPUT, Target
from crossexplain.gradients.failures import quantised
from crossexplain.gradients.groups import Groups, require_groups
from crossexplain.gradients.in_a_row import InARow
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, Tokens, require_modalities
from crossexplain.gradients.question import Question
from crossexplain.gradients.rounds import run_dividends, run_rounds

RENAMED = {  # keys of the version before, which go on with a warning for this one
    "cross": "cross gradient", "carriers": "feature dividends", "round 2": "gradient norm, other masked",
    "gradient-x-input": "gradient x input", "activation-x-gradient": "activation x gradient",
    "GradCAM (grad-cam)": "grad-cam (library)", "GradCAMPlusPlus (grad-cam)": "grad-cam++ (library)",
    "XGradCAM (grad-cam)": "xgrad-cam (library)", "LayerCAM (grad-cam)": "layer-cam (library)",
    "HiResCAM (grad-cam)": "hires-cam (library)", "EigenCAM (grad-cam)": "eigen-cam (library)",
}


def explain(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], method: str = "cross gradient", *,
            baselines: str | Mapping[str, str] | None = None, target: Target = None, donors: Inputs | None = None,
            groups: Groups | None = None, budget: int | None = None, seed: int = 0, **options: Any) -> Explanation:
    """Explain a batch by one method.

    Parameters
    ----------
    model, inputs, modalities, baselines, target, donors
        As for :class:`~crossexplain.gradients.question.Question`. Maps and word scores explain the logit of the class, as
        published; all others its evidence, which of several classes is the logit less the mean.
    method : str
        A key of :func:`registry`.
    groups : Groups, optional
        Ask for the importance of each group in place of each feature. Methods that hide features one by one or by coalitions
        hide whole groups; the others are summed over the features of each group.
    budget : int, optional
        Coalitions an example, for methods that sample them; default 256.
    seed : int
        Of what the method draws.
    **options
        The method's own.

    Returns
    -------
    Explanation

    Raises
    ------
    CannotRun
        Where the method does not work on the model, or its library is not installed, with the reason.
    InputError
        For an unknown method, and whatever the question or the method refuses.

    Examples
    --------
    >>> from crossexplain.gradients.modalities import Vectors
    >>> class Product(nn.Module):
    ...     def forward(self, seen, heard):
    ...         return seen[:, 0, 0] * heard[:, 0, 0]
    >>> inputs = {"seen": torch.tensor([[[2.0]]]), "heard": torch.tensor([[[3.0]]])}
    >>> modalities = [Vectors("image", "seen"), Vectors("sound", "heard")]
    >>> explain(Product().eval(), inputs, modalities, "exact shapley").joint().tolist()
    [[3.0, 3.0]]
    """
    chosen = find(method)
    chosen.require_options(options)
    if options.keys() & {"layer", "patches"}:
        modalities = _placed(modalities, options.get("layer"), options.get("patches"))
    budget, seed = _whole_number(BUDGET if budget is None else budget, "budget", 1), _whole_number(seed, "seed", 0)
    require_whole(least=0, seed=seed)
    question = Question(model, inputs, modalities, baselines=baselines, donors=donors, target=target)
    if chosen.hides:
        question.require_donors()
    if groups is not None:
        require_groups(groups)
    chosen.require(question, options.get("attention"), groups is not None)
    if chosen.hides or not isinstance(target, (int, Tensor)):
        question.whole()  # one pass that is no part of the method's cost: it says which class is followed
    task = Task(question, budget, seed, groups)
    if groups is not None and chosen.hides:
        task.game  # noqa: B018  which asks a few examples once more
    before = question.passes
    with torch.inference_mode(False), torch.enable_grad(), question.counted():
        started = time.perf_counter()
        scored = _run(chosen, task, options)
        seconds = time.perf_counter() - started
    present = {name: part.cpu() for name, part in question.present.items()}
    by_group = groups is not None and set(scored.values) == {BY_GROUP}  # a modality may have that name
    if by_group:
        present = {BY_GROUP: task.present}
    if chosen.whole:
        present = {name: part.any(dim=1, keepdim=True) for name, part in present.items()}
    values = {name: part.detach().cpu().float().where(present[name], torch.nan) for name, part in scored.values.items()}
    for name, part in values.items():
        if not part[present[name]].isfinite().all():
            raise CannotRun(f"{chosen.title} gave NaN or infinity in {name}.")
    passes = (question.passes - before + sum(task.joined)) / question.n if scored.passes is None else scored.passes
    explanation = Explanation(chosen.key, values, scored.pairs, chosen.signed, passes, seconds,
                              {name: part.shape[1] for name, part in present.items()}, groups.names if groups else ())
    # A game may hold features that are never hidden; quantised layers round by what else is in the batch.
    if chosen.efficient and "game" not in options and not quantised(question.model):
        _require_complete(chosen, explanation, task if by_group else replace(task, groups=None))
    if groups is None or by_group:
        return explanation
    summed, spoken = task.by_group(values)
    values = {BY_GROUP: summed.where(spoken, torch.nan)}
    return replace(explanation, values=values, pairs=None, features={BY_GROUP: len(groups)})


def _whole_number(value: object, what: str, least: int) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**32:
        return int(value)
    raise InputError(f"got {what}={value!r}, expected a whole number, {least} or more.")


def _run(method: Method, task: Task, options: Mapping[str, object]) -> Scored:
    """Run a method; an error of another library, or of the model in its hands, becomes one that says so."""
    try:
        return method.run(task, **options)
    except (InputError, Warning):  # a warning that the caller made an error is the caller's
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise CannotRun(f"{method.title} does not run on this model: {type(error).__name__}: {lines[0]}. 'sampled shapley' and "
                        "'feature ablation' need nothing but the model's output.") from error


def _require_complete(method: Method, explanation: Explanation, players: Task) -> None:
    """Raise unless the values of each example sum to what its evidence gains over nothing, as the method promises."""
    missed = missing(explanation.joint().nansum(dim=1), players)
    if missed > COMPLETE:
        reason = "the model has layers without a rule (products, softmax of attention, functional activations)" \
            if method.key == "deeplift" else "the budget is too small, or the model does not repeat itself"
        raise CannotRun(f"{method.title.partition(' (')[0]}'s values miss the change of the logit by {missed:.0%}: {reason}.")


def find(method: str) -> Method:
    """Return a method by its key; one of the version before is taken with a warning.

    Raises
    ------
    InputError
        For an unknown key; the message lists all.
    """
    known = registry()
    if not isinstance(method, str):
        raise InputError(f"got method={method!r}, expected the name of one method, such as 'cross gradient'.")
    if method in RENAMED and method not in known:
        warnings.warn(f"the method {method!r} is called {RENAMED[method]!r} now; the old name goes with the next version.",
                      DeprecationWarning, stacklevel=3)
        method = RENAMED[method]
    if method not in known:
        nearest = get_close_matches(method.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? All" if nearest else "all"
        raise InputError(f"there is no method {method!r}; {hint} methods are {', '.join(known)}.")
    return known[method]


def registry() -> dict[str, Method]:
    """Return all methods by their keys, read from their tables at each call.

    A key that is in the table of maps and in that of word scores is one method, of both.
    """
    listed = {key: map_method(key) for key in maps.METHODS}
    listed |= {key: _word_method(key) for key, method in tokens.METHODS.items() if method.read is not None}
    listed |= {key: Method(key, key.replace("-", " "), line, partial(_attention, key=key), False, ("attention",),
                           hides=False)
               for key, line in attention.METHODS.items()}
    return listed | METHODS


def map_method(key: str) -> Method:
    """Return a map of ``crossexplain.gradients.maps.METHODS`` as a method; of an image alone, whatever it is called."""
    method = maps.METHODS[key]
    needs = ("image", "gradient") if method.gradients else ("image",)
    return Method(key, method.title or key, f"{method.line} ({method.source})", partial(_map, key=key), method.signed, needs,
                  hides=False)


def _word_method(key: str) -> Method:
    method = tokens.METHODS[key]
    return Method(key, key, method.formula, partial(_word_scores, key=key), method.signed, ("text", "gradient"), hides=False)


# Gradients


def _gradient_norm(task: Task) -> Scored:
    slopes = task.question.captured().gradients
    return Scored({m.name: task.per_feature(m, slopes[m.layer].float() ** 2).sqrt() for m in task.question.modalities})


def _gradient_x_input(task: Task) -> Scored:
    read = task.question.captured()
    return Scored({m.name: task.per_feature(m, read.gradients[m.layer].float() * read.activations[m.layer].float())
                   for m in task.question.modalities})


def _rounds(task: Task, which: str) -> Scored:
    record = run_rounds(task.question, baselines=[task.question.baselines], control=False, progress=False, seed=task.seed)
    baseline = record.baselines[0]
    if which == "cross":
        return Scored({name: record.by_side[baseline, name].cross for name in record.modalities})
    return Scored({name: record.passes[baseline, record.only(name)].importance[name] for name in record.modalities})


def _feature_dividends(task: Task) -> Scored:
    dividends = run_dividends(task.question, groups=task.groups, progress=False, seed=task.seed)
    return Scored(dividends if isinstance(dividends, dict) else {BY_GROUP: dividends})


def _grad_cam_in_time(task: Task) -> Scored:
    """Weight the dimensions of each vector by their mean gradient over the row, as Grad-CAM does over a map."""
    read, values = task.captured(task.question.layers), {}
    for modality in task.question.modalities:
        if not isinstance(modality, InARow):
            raise CannotRun(f"Grad-CAM in time reads vectors in a row, and {modality.name} is none; use 'grad-cam'.")
        activations, slopes = (task.laid_out(modality, of[modality.layer].float()) for of in (read.activations, read.gradients))
        present = modality.is_word(task.question.inputs)[..., None].to(slopes.device)  # (N, T, 1)
        weights = (slopes * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True)
        heat = (weights * activations).sum(dim=2).clamp(min=0)
        values[modality.name] = modality.to_features(heat * present[..., 0], task.question.inputs)
    return Scored(values)


def _placed(modalities: Sequence[Modality], layer: str | None, patches: tuple[int, int] | None) -> list[Modality]:
    """Return the modalities with the pictures read at another layer, and its patches, where they are named."""
    if not isinstance(layer, str | None):
        raise InputError(f"got layer={layer!r}, expected the name of a layer, as in model.named_modules().")
    placed, patches = [copy(modality) for modality in require_modalities(modalities)], ImageCells(patches=patches).patches
    for picture in placed:
        if isinstance(picture, ImageCells):
            picture.layer, picture.patches = layer or picture.layer, patches or picture.patches
    return placed


def _map(task: Task, key: str, layer: str | None = None, patches: tuple[int, int] | None = None) -> Scored:
    """Sum a map over the cells; ``layer``, and rows and columns of its ``patches``, are where the pictures are read already."""
    method, values = maps.METHODS[key], {}
    for picture in task.pictures:
        if picture.layer.startswith(INPUT) and "cam" in key:
            raise CannotRun(f"{key} folds the channels of a layer, and {picture.name} is read at the pixels; name a layer.")
    read = task.captured([picture.layer for picture in task.pictures], method.gradients)
    for picture in task.pictures:
        activations, *slopes = (task.laid_out(picture, of[picture.layer].float())
                                for of in (read.activations, read.gradients) if picture.layer in of)
        heat = method.fold(activations, slopes[0] if slopes else None)
        values[picture.name] = maps.to_cells(heat if method.signed else heat.clamp(min=0), picture.grid).flatten(1)
    return Scored(values)


def _word_scores(task: Task, key: str) -> Scored:
    texts = [modality for modality in task.question.modalities if isinstance(modality, Tokens)]
    read, values = task.captured([text.layer for text in texts]), {}
    score: Any = tokens.METHODS[key].read
    for text in texts:
        scores = score(*(task.laid_out(text, of[text.layer].float())
                                            for of in (read.activations, read.gradients)))
        values[text.name] = text.to_features(scores, task.question.inputs)
    return Scored(values)


def _attention(task: Task, key: str, attention: Mapping[str, Sequence[str]]) -> Scored:
    question, values = task.question, {}
    for modality in question.modalities:
        if modules := attention.get(modality.name, ()):
            places = attention_maps(modules)
            before = f"{INPUT}{modality.input}" if isinstance(modality, ImageCells) else modality.layer
            with watched(question.model, places, modules) as crossed:
                read = task.captured([before, *places])
            rolled = roll(read, places, key, bool(crossed))  # (N, T)
            at_attention: Any = copy(modality)
            at_attention.layer, at_attention.layout, at_attention.place = modules[0], "NTD", None
            at_attention = at_attention.settled(question.inputs, question.model)
            row = at_attention.laid_out(rolled[..., None].float(), question.inputs, question.n)
            values[modality.name] = maps.to_cells(row[:, 0], modality.grid).flatten(1) if isinstance(modality, ImageCells) \
                else modality.to_features(row[..., 0], question.inputs)
    return Scored(values)


# Coalitions


def _sampled(task: Task) -> Scored:
    """Estimate Shapley values from masks that are crossed; a pass is a mask that a tower, or the whole model, looks at."""
    game, before = task.game, task.game.passes
    values = sampled_shapley(game, task.budget, task.seed)
    return Scored(_of_players(task, game, values), None, (game.passes - before) / task.question.n)


def _of_players(task: Task, game: Game, values: Tensor) -> dict[str, Tensor]:
    """Return importances (N, P) of a game's players as those of features, by modality, or of groups."""
    if task.groups is None:
        return {name: part.float() for name, part in game.shared(values).items()}
    of_groups = torch.zeros(task.present.shape)  # a game may leave out groups that no example has
    of_groups[:, [task.groups.names.index(name) for name in game.names]] = values.nan_to_num(0.0).float()
    return {BY_GROUP: of_groups}


def _exact(task: Task, index: str, game: Game | None = None) -> Scored:
    """Read the model's value of every coalition; ``game`` may hold them already, or have groups of features as players."""
    game = task.game if game is None else game
    if not isinstance(game, Game):
        raise InputError(f"got game={game!r}, expected a Game, as in Game(model, inputs, modalities, players={{'text': 8}}).")
    if len(game) != task.question.n or not torch.equal(game.target, task.question.target):
        raise InputError(f"the game is about {len(game)} other examples or classes, expected the {task.question.n} examples "
                         "and the target that are explained; make it of the same inputs and target.")
    if task.groups is not None and not task.is_played_in(game):
        raise InputError("the game has other players than the groups, or the same names for other features; make it of the "
                         "groups, Game(..., players=groups).")
    table, passes, pairs = game.values_of_all().numpy(), game.cost().coalitions / task.question.n, None
    if index == "interactions":
        every = torch.from_numpy(shapley.interactions(table)).float()
        pairs = every if task.groups is not None else torch.from_numpy(shapley.across(table, game.names)).float()
        values = every.abs().sum(dim=2) if task.groups is not None else \
            torch.cat([pairs.abs().sum(dim=2), pairs.abs().sum(dim=1)], dim=1)
    else:
        values = torch.from_numpy(getattr(shapley, index)(table))
    return Scored(_of_players(task, game, values), pairs, passes)


# Whole modalities


@torch.no_grad()
def every_pair(question: Question) -> Tensor:
    """Return the logit of each first with each second modality of the examples, (N, N), of a model with one logit."""
    n, keys = question.n, [modality.keys(question.inputs) for modality in question.modalities]
    unassigned = [key for key, value in question.examples(torch.arange(1)).items()
               if value is not question.inputs[key] and not any(key in of for of in keys)]
    if unassigned:
        raise CannotRun(f"the inputs {', '.join(map(repr, unassigned))} belong to no modality: it is open which they go with "
                        f"where {question.names[0]!r} and {question.names[1]!r} are swapped; name them there (along=, stay=, "
                        "lengths=), or say that they belong to all examples: Called(model, common=(...,)).")
    lines = []
    for i in range(n):
        swapped = question.examples(torch.full((n,), i), [key for key in keys[0] if key in question.inputs])
        lines.append(question.logits({**question.inputs, **swapped}))
    logits = torch.stack(lines)  # (N, N, C)
    if logits.shape[2] != 1:
        raise CannotRun(f"scores of whole modalities read one logit, the model gives {logits.shape[2]}; say which is meant, as "
                        "in target=1 for that column's own logit, or target=lambda output: output[:, 1] - output[:, 0].")
    return logits[..., 0]


def _of_whole_modalities(task: Task, score: str) -> Scored:
    """Split each example's value into the parts of each modality and their interaction."""
    question = task.question
    logits, target = every_pair(question).double().cpu().numpy(), question.target.cpu().numpy()
    if score == "intershap":
        if not np.array_equal(np.diagonal(logits) > 0, target == 1):
            raise CannotRun("InterSHAP is about the predicted class; leave the target out.")
        nothing, *alone, both = intershap_values(logits).T
        alone, interaction = [part - nothing for part in alone], both - sum(alone) + nothing
    else:
        sign = 2 * target - 1
        alone = [sign * (logits.mean(axis=axis) - logits.mean()) for axis in (1, 0)]
        interaction = sign * (np.diagonal(logits) - emap(logits))
    *parts, pairs = (torch.from_numpy(part)[:, None] for part in (*alone, interaction))
    return Scored(dict(zip(question.names, parts)), None if score == "emap" else pairs[:, :, None])


def _mm_shap(task: Task) -> Scored:
    sampled = _sampled(task)
    of_modality = size_shares(sampled.values)
    even = 1 / len(of_modality)  # where no feature counts for anything
    return Scored({name: part.nan_to_num(even)[:, None] for name, part in of_modality.items()}, None, sampled.passes)


TWO, OTHERS, GRADIENT = ("two modalities",), ("other modalities",), ("gradient",)
SWAPPED = (*TWO, "other examples")
METHODS: dict[str, Method] = {method.key: method for method in (
    Method("gradient norm", "gradient (round 1)", "length of the gradient at each feature", _gradient_norm, False,
           GRADIENT, hides=False),
    Method("gradient x input", "gradient x input", "gradient times value, summed (Shrikumar et al. 2016)", _gradient_x_input,
           True, GRADIENT, hides=False),
    Method("grad-cam in time", "Grad-CAM in time", "Grad-CAM over the places of a row (Selvaraju et al. 2017)",
           _grad_cam_in_time, False, GRADIENT, hides=False),
    Method("gradient norm, other masked", "gradient, other masked (rounds 2, 3)",
           "length of the gradient with the other modality hidden", partial(_rounds, which="masked"), False, OTHERS),
    Method("cross gradient", "cross gradient", "how much the gradient changes as the other modality is hidden",
           partial(_rounds, which="cross"), False, OTHERS),
    Method("feature dividends", "dividend of the feature", "dividend of each feature with the whole other modality",
           _feature_dividends, True, OTHERS),
    Method("sampled shapley", "sampled Shapley", "a Gaussian process on crossed masks (Rasmussen and Williams 2006)", _sampled,
           True, efficient=True),
    Method("exact shapley", "Shapley, exact", "of all coalitions (Shapley 1953)", partial(_exact, index="shapley"), True,
           efficient=True),
    Method("exact banzhaf", "Banzhaf, exact", "of all coalitions (Banzhaf 1965)", partial(_exact, index="banzhaf"), True),
    Method("exact interactions", "Shapley interactions across, exact",
           "Shapley interactions of all coalitions, summed over the other modality (Grabisch 1999)",
           partial(_exact, index="interactions"), False, TWO),
    Method("mm-shap", "MM-SHAP", "share of each modality in the sizes of Shapley values (Parcalabescu and Frank 2023)",
           _mm_shap, False, whole=True),
    Method("intershap", "InterSHAP",
           "each modality by itself, and as pairs their interaction, of the probability (Wenderoth et al. 2024)",
           partial(_of_whole_modalities, score="intershap"), True, SWAPPED, whole=True),
    Method("emap", "EMAP", "each modality's part of the nearest additive model (Hessel and Lee 2020)",
           partial(_of_whole_modalities, score="emap"), True, SWAPPED, whole=True),
    Method("dime", "DIME", "the same, and as pairs the interaction that is left (Lyu et al. 2022)",
           partial(_of_whole_modalities, score="dime"), True, SWAPPED, whole=True),
    *methods_of_others.METHODS,
)}
