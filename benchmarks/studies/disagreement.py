"""Where a gradient and coalition values contradict each other about a feature, and which of them to believe.

Neither is the truth: a gradient sees the model next to the example and nothing of what saturates, coalition values see the
model far from any example it was trained on. Where the deciding features are known, it can be counted who was right.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

GAP = 0.5  # scores contradict each other if they differ by this share of the largest of the example and modality
# Which of the two is believed where they contradict, by modality; chosen and judged on different collages of digits, see
# benchmarks/trial.py. "less": the one that gives the feature less.
RULES = {
    "coalition": lambda more: more,
    "gradient": lambda more: ~more,
    "less": lambda more: torch.zeros_like(more),
    "more": lambda more: torch.ones_like(more),
}


def contradictions(gradient: Tensor, coalition: Tensor, present: Tensor, gap: float = GAP) -> Tensor:
    """Return where the two contradict each other, int8 (N, F): 1 where the coalition values give the feature more, -1 less.

    Sizes are compared, each as a share of the largest in its example: the two have different units.

    Parameters
    ----------
    gradient, coalition : Tensor, shape (N, F)
        Importance of each feature of one modality: a gradient's norm, and a Shapley or another coalition value. Signs are
        left out.
    present : Tensor of bool, shape (N, F)
        Which features an example has.
    gap : float
        Least difference, from 0 to 1.

    Returns
    -------
    Tensor of int8, shape (N, F)

    Raises
    ------
    ValueError
        For shapes that differ and a gap outside 0 to 1.

    Examples
    --------
    >>> contradictions(torch.tensor([[4.0, 1.0, 4.0]]), torch.tensor([[0.2, -2.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
    tensor([[-1,  1,  0]], dtype=torch.int8)
    """
    if not gradient.shape == coalition.shape == present.shape or gradient.ndim != 2:
        raise ValueError(f"got gradient {tuple(gradient.shape)}, coalition {tuple(coalition.shape)} and present "
                         f"{tuple(present.shape)}, expected one shape (N, F); pass one modality at a time.")
    if not 0 < gap <= 1:
        raise ValueError(f"got gap={gap}, expected a share above 0 and at most 1.")
    difference = sizes(coalition, present) - sizes(gradient, present)
    return (difference.sign() * (difference.abs() >= gap)).to(torch.int8)


def counts(found: Tensor, rule: str) -> Tensor:
    """Say of each contradicted feature whether it counts, bool (N, F), by believing one of the two.

    Parameters
    ----------
    found : Tensor of int8, shape (N, F)
        What :func:`contradictions` returned.
    rule : str
        One of ``RULES``.

    Examples
    --------
    >>> counts(torch.tensor([[1, -1]]), "coalition")
    tensor([[ True, False]])
    """
    if rule not in RULES:
        raise ValueError(f"got rule {rule!r}, expected one of {', '.join(map(repr, RULES))}.")
    return RULES[rule](found > 0)


def right(found: Tensor, deciding: Tensor, rule: str) -> Tensor:
    """Return of each contradiction whether the rule was right about it, bool (contradictions,)."""
    contradicted = found != 0
    return counts(found, rule)[contradicted] == deciding[contradicted]


def choose(found: Mapping[str, Tensor], deciding: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for each modality the rule that is right most often; the first of ``RULES`` of those that are equal.

    Parameters
    ----------
    found, deciding : mapping from modality to Tensor, shape (N, F)
        Contradictions, and which features do decide.
    """
    share = {name: {rule: float(right(found[name], deciding[name], rule).double().mean()) for rule in RULES} for name in found}
    return {name: max(shares, key=shares.get) for name, shares in share.items()}


def sizes(scores: Tensor, present: Tensor) -> Tensor:
    """Return what is compared, (N, F): sizes as a share of the largest of the example, 0 for features that it does not have."""
    found = scores.detach().double().abs().masked_fill(~present, 0.0)
    largest = found.amax(dim=1, keepdim=True)
    return found / largest.where(largest > 0, 1.0)
