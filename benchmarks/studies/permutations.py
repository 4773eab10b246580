"""Shapley values from random orders and their reverses, by which the trial and the pure shortcuts were measured.

:func:`crossexplain.coalitions.sampling.sampled_shapley` needs fewer masks; this one draws the numbers that are published.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from crossexplain.gradients.modalities import Inputs, Modality


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
    features = [modality.features(inputs) for modality in modalities]
    values = torch.zeros(len(features[0]), sum(part.shape[1] for part in features))
    generator = torch.Generator().manual_seed(seed)
    for i, present in enumerate(torch.cat(features, dim=1)):
        own = present.nonzero()[:, 0]
        orders = torch.stack([own[torch.randperm(len(own), generator=generator)] for _ in range(permutations // 2)])
        orders = torch.cat([orders, orders.flip(1)])  # (K, n)
        places = torch.arange(len(own)).expand_as(orders)
        place = torch.full((len(orders), len(present)), len(own)).scatter(1, orders, places)
        keep = place[:, None] < torch.arange(len(own) + 1)[:, None]  # (K, n + 1, F)
        example = {key: value[i : i + 1] for key, value in inputs.items()}
        reached = _logits(model, example, modalities, keep.flatten(0, 1), baselines).reshape(len(orders), -1)
        for order, gained in zip(orders, reached.diff(dim=1)):
            values[i, order] += gained / len(orders)
    return dict(zip([modality.name for modality in modalities], values.split([part.shape[1] for part in features], dim=1)))


def _logits(model: nn.Module, example: Inputs, modalities: Sequence[Modality], keep: Tensor,
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
