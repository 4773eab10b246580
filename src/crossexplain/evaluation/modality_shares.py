"""Is one modality dominant? Early fusion and dual encoders on thousands of pairs, by the rounds and by what others read.

Most views of a pair share their picture or their caption with others, and a modality that is hidden as a whole is another
picture or another caption. So each tower looks at everything once (:func:`recall`), and the rounds then run on row numbers.
Both measures beside the verdict, MM-SHAP (Parcalabescu and Frank 2023) and the perceptual score (Gat et al. 2021), take the
same models.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.modalities import ImageCells, Inputs, Modality, Tokens
from crossexplain.gradients.record import Record
from crossexplain.gradients.sharing import equal_rows_once
from crossexplain.gradients.views import Mask, Views
from crossexplain.intervals import Interval, difference_interval, mean_interval

ANSWERS = ("image alone", "text alone", "both only", "both added", "either")


class Rows(Modality):
    """A modality that comes as the number of a row of a table, and is hidden as a whole: by another row.

    Parameters
    ----------
    name, input, layer : str
        Word for it, the model's keyword, and its tower.
    instead : mapping of str to Tensor, shape (R,), int64
        For each baseline, the row that stands in for each row.
    """

    def __init__(self, name: str, input: str, layer: str, instead: Mapping[str, Tensor]):
        self.name, self.input, self.layer, self.instead = name, input, layer, dict(instead)
        self.baselines = (*instead, "data")

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, 1): the modality is one feature."""
        return torch.ones(len(self.value(inputs)), 1, dtype=torch.bool)

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return other row numbers where the modality is hidden."""
        rows = self.value(inputs)
        other = self.value(donor) if baseline == "data" else self.instead[baseline][rows]
        return {self.input: torch.where(keep[:, 0], rows, other)}

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over all that the tower gives: (N, 1)."""
        return values.flatten(1).sum(dim=1, keepdim=True)


class Remembered(nn.Module):
    """A tower that gives what another one gave before: row numbers in, rows out.

    Parameters
    ----------
    rows : Tensor, shape (R, ...)
        Kept as it is, in half precision for example, and handed out as float32.
    real : Tensor of bool, shape (R, T), optional
        Of a text tower: which tokens are attended to.
    """

    def __init__(self, rows: Tensor, real: Tensor | None = None):
        super().__init__()
        self.rows, self.real = rows, real

    def forward(self, numbers: Tensor, attention_mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the rows of these numbers."""
        found = self.rows[numbers].float()
        return found if self.real is None else (found, self.real[numbers])


@dataclass(frozen=True)
class Recall:
    """A model whose towers have looked at everything.

    Attributes
    ----------
    model : torch.nn.Module
        As it was, but called with row numbers: ``model(images=(N,), tokens=(N,))``.
    modalities : list of Rows
        For :func:`~crossexplain.gradients.rounds.rounds`: the gradient is read at what the towers give, the last map and
        the states of the tokens.
    """

    model: nn.Module
    modalities: list[Rows]

    def of(self, model: nn.Module) -> "Recall":
        """Return the same of another model on the same towers, which need not look again."""
        towers = {id(model.image): self.model.image, id(model.text): self.model.text}
        return Recall(copy.deepcopy(model, towers), self.modalities)


@torch.no_grad()
def recall(model: nn.Module, images: Callable[[np.ndarray], Tensor], count: int, texts: Inputs, image: ImageCells, text: Tokens,
           baselines: Mapping[str, Sequence[str]], batch: int = 32) -> Recall:
    """Let both towers look at all pictures and captions, and at what stands in for them, once.

    Parameters
    ----------
    model : Fusion or ClipCNN
        Anything with towers ``image`` and ``text`` as in :mod:`crossexplain.models.towers`; in eval mode.
    images : callable
        Returns pictures (n, 3, H, W) by their numbers.
    count : int
        Of pictures, P.
    texts : mapping of str to Tensor
        Inputs of the text tower for all S captions, (S, T).
    image, text : ImageCells and Tokens
        How each is hidden.
    baselines : mapping
        ``{"image": (...), "text": (...)}``: what is prepared; ``"data"`` needs no preparation.
    batch : int
        Pictures at a time.

    Returns
    -------
    Recall
        Row p < P is picture p, row s < S is caption s; the stand-ins follow.
    """
    maps, kinds = [], ["full", *baselines["image"]]
    plan = {kind: {} if kind == "full" else {image.name: Mask(None, kind)} for kind in kinds}
    for numbers in np.split(np.arange(count), np.arange(batch, count, batch)):
        laid_out = Views({image.input: images(numbers)}, [image], plan, allow_empty=True)
        with equal_rows_once(model, ["image"]):
            seen = model.image(laid_out.inputs[image.input])
        maps.append(seen.half().unflatten(0, (len(kinds), -1)))
    seen, places = torch.cat(maps, dim=1).flatten(0, 1), torch.arange(count)
    pictures = Rows(image.name, "images", "image", {kind: places + (i + 1) * count for i, kind in enumerate(kinds[1:])})

    kinds = ["full", *baselines["text"]]
    plan = {kind: {} if kind == "full" else {text.name: Mask(None, kind)} for kind in kinds}
    laid_out = Views(texts, [text], plan, allow_empty=True).inputs
    # Captions of as many words are one caption once every word is hidden.
    distinct, back = torch.unique(torch.stack([laid_out[key] for key in texts], dim=1), dim=0, return_inverse=True)
    said = [model.text(*some.unbind(1)) for some in distinct.split(8 * batch)]
    own, *others = back.chunk(len(kinds))
    order = torch.cat([own, torch.arange(len(distinct))])  # the captions first, in their order
    states, real = (torch.cat(parts)[order] for parts in zip(*((states.half(), real) for states, real in said)))
    captions = Rows(text.name, "tokens", "text", {kind: rows + len(own) for kind, rows in zip(kinds[1:], others)})
    towers = {id(model.image): Remembered(seen).eval(), id(model.text): Remembered(states, real).eval()}
    return Recall(copy.deepcopy(model, towers), [pictures, captions])


def shares(answers: np.ndarray, groups: np.ndarray | None = None, seed: int = 0) -> dict[str, Interval]:
    """Return the share of the examples that rest on each of ``ANSWERS``.

    Parameters
    ----------
    answers : ndarray of str, shape (N,)
        From :meth:`~crossexplain.gradients.record.Record.each`.
    groups : array_like, shape (N,), optional
        The picture of each pair; its pairs are drawn together.
    """
    return {answer: mean_interval(answers == answer, seed, groups=groups) for answer in ANSWERS}


def table(record: Record, parts: Mapping[str, np.ndarray], groups: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Return what the pairs rest on and what the paper reads, for every baseline and part of the pairs.

    Parameters
    ----------
    record : Record
        Of modalities called image and text.
    parts : mapping of str to ndarray of bool, shape (N,)
        Which pairs: ``{"all": ..., "match": ...}``.
    groups : ndarray, shape (N,)
        The picture of each pair; intervals are 95 % bootstrap over pictures.

    Returns
    -------
    DataFrame
        ``baseline, part, measure, value, low, high, n, pairs``, where ``n`` is the number of pictures, which the intervals
        draw, and ``pairs`` that of the pairs; the measures are ``ANSWERS`` (shares of the pairs),
        ``reach of ...`` and ``flips without ...`` as in :class:`~crossexplain.gradients.verdict.Verdict`, and ``norm at ...``:
        the gradient norm with the other modality hidden over that with nothing hidden, geometric mean over the pairs where
        neither is 0; NaN where no gradient reaches the modality.
    """
    lines, verdicts = [], {part: record.verdict(where=where, groups=groups) for part, where in parts.items()}
    for baseline in record.baselines:
        answers = record.each(baseline)
        ratios = {name: record.norm_ratio(baseline, name) for name in record.modalities}
        ratios = {name: np.log(np.where(values > 0, values, np.nan)) for name, values in ratios.items()}
        for part, where in parts.items():
            found = shares(answers[where], groups[where], seed)
            of_all = {f"reach of {name}": value for name, value in verdicts[part].reach[baseline].items()}
            of_all |= {f"flips without {name}": value for name, value in verdicts[part].flips[baseline].items()}
            found |= {measure: value._replace(n=len(np.unique(groups[where]))) for measure, value in of_all.items()}
            for name, values in ratios.items():
                if np.isnan(values[where]).all():  # a modality that no gradient reaches
                    found[f"norm at {name}"] = Interval(np.nan, np.nan, np.nan, 0)
                    continue
                *ends, n = mean_interval(values[where], seed, groups=groups[where])
                found[f"norm at {name}"] = Interval(*np.exp(ends).tolist(), n)
            lines += [{"baseline": baseline, "part": part, "measure": measure, **value._asdict(), "pairs": int(where.sum())}
                      for measure, value in found.items()]
    return pd.DataFrame(lines)


@torch.no_grad()
def perceptual_scores(model: nn.Module, inputs: Inputs, labels: Tensor, groups: np.ndarray | None = None, times: int = 5,
                      seed: int = 0) -> dict[str, Interval]:
    """Return how much of the accuracy is lost where one modality is dealt out anew among the pairs.

    Parameters
    ----------
    model : torch.nn.Module
        With ``see``, ``read`` and ``match``; of a :class:`Recall` or as it is.
    inputs : mapping of str to Tensor
        ``images`` and ``tokens`` (and ``attention_mask``) of N pairs.
    labels : Tensor, shape (N,)
    groups : array_like, shape (N,), optional
        As for :func:`shares`.
    times : int
        How often each is dealt out.

    Returns
    -------
    dict of str to Interval
        ``"image"`` and ``"text"``. Gat, Schwartz and Schwing (2021), not normalised.
    """
    numbers = torch.arange(len(labels))
    texts = [value for key, value in inputs.items() if key != "images"]
    seen = torch.cat([model.see(inputs["images"][some]) for some in numbers.split(256)])
    said = torch.cat([model.read(*(value[some] for value in texts)) for some in numbers.split(256)])

    def right(i: Tensor, j: Tensor) -> np.ndarray:
        return ((model.match(seen[i], said[j]) > 0) == (labels != 0)).double().numpy()

    generator = torch.Generator().manual_seed(seed)
    dealt = [torch.randperm(len(labels), generator=generator) for _ in range(times)]
    whole = right(numbers, numbers)
    lost = {"image": [right(other, numbers) for other in dealt], "text": [right(numbers, other) for other in dealt]}
    return {name: mean_interval(whole - np.mean(values, axis=0), seed, groups=groups) for name, values in lost.items()}


def picks(record: Record, baseline: str, seed: int = 0, groups=None) -> dict[str, dict[str, Interval]]:
    """Hold round 4 against round 3: are they more alike where what round 2 picked is masked than where anything is?

    Parameters
    ----------
    record : Record
        With its control, as many features picked at random.
    baseline : str
    seed : int
        Of the bootstrap.
    groups : array_like, shape (N,), optional
        Examples with the same value are drawn together.

    Returns
    -------
    dict of str to dict of str to Interval
        By the modality of which some features are masked: the cosine of the gradients of rounds 3 and 4 at the others, with
        those ``"picked"`` by round 2, with as many at ``"random"``, and their paired ``"difference"``. Only that can be put
        down to the choice of features (section 3 of the paper has no control).

    Raises
    ------
    InputError
        For a record without round 4, or without its control.
    """
    found = {}
    for name in record.modalities:
        end = record.by_side.get((baseline, name))
        if end is None or end.similarity_random is None:
            raise InputError(f"the record has no round 4 with a control for {baseline!r} and {name!r}; run the rounds with a "
                             f"pick and control=True, under one of {', '.join(map(repr, record.baselines))}.")
        picked, at_random = end.similarity.cosine, end.similarity_random.cosine
        found[name] = {"picked": mean_interval(picked, seed, groups=groups),
                       "random": mean_interval(at_random, seed, groups=groups),
                       "difference": difference_interval(picked, at_random, seed, groups=groups)}
    return found


@torch.no_grad()
def shapley_values(model: nn.Module, inputs: Inputs, modalities: Sequence[Modality], baselines: Mapping[str, str],
                   permutations: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Return the share of each word and cell in the logit, Shapley values estimated from random orders and their reverses.

    Parameters
    ----------
    model : torch.nn.Module
        With ``see``, ``read`` and ``match``, so that each tower looks at every mask once.
    inputs : mapping of str to Tensor
        N pairs.
    modalities : (ImageCells, Tokens)
    baselines : mapping of str to str
        What stands in for what is left out.
    permutations : int
        Even: each order is also gone backwards, which takes out much of the noise.

    Returns
    -------
    dict of str to Tensor, shape (N, F)
        Sum over all features: the logit less that of nothing. 0 where there is no feature.
    """
    there = [modality.features(inputs) for modality in modalities]
    found = torch.zeros(len(there[0]), sum(part.shape[1] for part in there))
    generator = torch.Generator().manual_seed(seed)
    for i, present in enumerate(torch.cat(there, dim=1)):
        features = present.nonzero()[:, 0]
        orders = torch.stack([features[torch.randperm(len(features), generator=generator)] for _ in range(permutations // 2)])
        orders = torch.cat([orders, orders.flip(1)])  # (K, n)
        places = torch.arange(len(features)).expand_as(orders)
        place = torch.full((len(orders), len(present)), len(features)).scatter(1, orders, places)
        keep = place[:, None] < torch.arange(len(features) + 1)[:, None]  # (K, n + 1, F)
        example = {key: value[i : i + 1] for key, value in inputs.items()}
        values = _coalitions(model, example, modalities, keep.flatten(0, 1), baselines).reshape(len(orders), -1)
        for order, gained in zip(orders, values.diff(dim=1)):
            found[i, order] += gained / len(orders)
    return dict(zip([modality.name for modality in modalities], found.split([part.shape[1] for part in there], dim=1)))


def _coalitions(model: nn.Module, example: Inputs, modalities: Sequence[Modality], keep: Tensor,
                baselines: Mapping[str, str]) -> Tensor:
    """Return the logits of one pair with only some features left, (K,); ``keep`` (K, F) holds both modalities."""
    vectors, first = [], 0
    for modality, encode in zip(modalities, (model.see, model.read)):
        last = first + modality.features(example).shape[1]
        distinct, back = torch.unique(keep[:, first:last], dim=0, return_inverse=True)
        own = {key: value.expand(len(distinct), *value.shape[1:]) for key, value in example.items()
               if (key == modalities[0].input) == (encode == model.see)}
        vectors.append(encode(*(own | modality.replace(own, distinct, baselines[modality.name], None)).values())[back])
        first = last
    return model.match(*vectors)


def size_shares(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return MM-SHAP's share of each modality, (N,): of the sizes of all Shapley values, those of its features.

    Parcalabescu and Frank (2023), equation 3. Sizes: what speaks against the logit counts as much as what speaks for it. NaN
    where all are 0.
    """
    size = {name: found.abs().nansum(dim=1) for name, found in values.items()}
    return {name: found / sum(size.values()) for name, found in size.items()}


def text_share(values: Mapping[str, Tensor]) -> np.ndarray:
    """Return :func:`size_shares` of the text, (N,)."""
    return size_shares(values)["text"].numpy()
