"""Distances between padded sets of vectors that do not depend on their order.

Distances of pairs are weighted squares, D²(a, b) = Σ w_c (a_c - b_c)². Elements of a set may
count by parts: a weight in [0, 1] for each, such as 1 for real ones and 0 for padding. All but
``sinkhorn`` are zero between equal sets.
"""

# B pairs of sets, M elements of the first, N elements of the second, C components, S projections

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hepattn.ops.assignment import Solver, assign

FAR = 1e9  # a squared distance that is never the smallest


def squared_distances(a: Tensor, b: Tensor, metric: Sequence[float] | None = None) -> Tensor:
    """Give the weighted squared distances of all pairs.

    Args:
        a: First vectors (B, M, C).
        b: Second vectors (B, N, C).
        metric: Weights w of the components (C); 1 by default.

    Returns:
        (B, M, N), from the differences themselves, so that equal vectors are at zero.
    """
    difference = a.unsqueeze(2) - b.unsqueeze(1)  # (B, M, N, C)
    squared = difference.square()
    return (squared if metric is None else squared * a.new_tensor(tuple(metric))).sum(-1)


def chamfer(
    cost: Tensor,
    weight_a: Tensor,
    weight_b: Tensor,
    importance: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Average the cost of the nearest element of the other set, over both sets.

    Args:
        cost: Costs of all pairs (B, M, N), such as ``squared_distances``.
        weight_a: How much each element of the first sets is there, 0 to 1 (B, M).
        weight_b: The same of the second sets (B, N).
        importance: More weights of the two averages, (B, M) and (B, N), such as powers of pT.

    Returns:
        (B); zero where one of the sets has nothing. An element of weight 0 is nobody's nearest
        one; gradients reach weights through the averages.
    """
    share_a, share_b = (
        _shares(weight_a, importance and importance[0]),
        _shares(weight_b, importance and importance[1]),
    )
    present_a, present_b = weight_a.detach() > 0, weight_b.detach() > 0
    to_b = cost.masked_fill(~present_b.unsqueeze(1), FAR).amin(2)  # (B, M)
    to_a = cost.masked_fill(~present_a.unsqueeze(2), FAR).amin(1)  # (B, N)
    both = present_a.any(1) & present_b.any(1)
    loss = (to_b * share_a).sum(1) + (to_a * share_b).sum(1)
    return torch.where(both, loss, torch.zeros_like(loss))


def hungarian(cost: Tensor, valid_a: Tensor, valid_b: Tensor, solver: Solver = "scipy") -> Tensor:
    """Average the costs of the best one-to-one matching; what has no partner is left out.

    Args:
        cost: Costs of all pairs (B, M, N).
        valid_a: True for real elements of the first sets, which come first (B, M).
        valid_b: The same of the second sets (B, N).
        solver: What solves the assignment.

    Returns:
        (B); zero where one of the sets is empty.
    """
    partner = assign(cost.detach(), valid_a.sum(1), valid_b.sum(1), solver)  # (B, N), -1 for none
    matched = partner >= 0
    found = cost.gather(1, partner.clamp(min=0).unsqueeze(1)).squeeze(1)  # (B, N)
    return (found * matched).sum(1) / matched.sum(1).clamp(min=1)


def sinkhorn(
    cost: Tensor, weight_a: Tensor, weight_b: Tensor, blur: float = 0.05, num_steps: int = 30
) -> Tensor:
    """Transport one set to the other at the smallest cost, with some entropy (arXiv:1306.0895).

    Both sets have the mass 1. The plan is found without gradients, and its cost is
    differentiable in the costs, as the derivative of the optimum with fixed potentials is. What
    entropy adds is not taken off: equal sets have a small cost of the order of ``blur``.

    Args:
        cost: Costs of all pairs (B, M, N).
        weight_a: Masses of the elements of the first sets, before they are scaled to 1 (B, M).
        weight_b: The same of the second sets (B, N).
        blur: Temperature of the entropy, as a share of the mean cost.
        num_steps: Number of iterations.

    Returns:
        (B); zero where one of the sets is empty.
    """
    with torch.no_grad():
        a, b = _shares(weight_a, None).log(), _shares(weight_b, None).log()  # (B, M), (B, N)
        mass = (a.exp().unsqueeze(2) * b.exp().unsqueeze(1) * cost).sum((1, 2), keepdim=True)
        kernel = -cost / (blur * mass).clamp(min=1e-12)  # (B, M, N)
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        for _ in range(num_steps):
            f = -torch.logsumexp(kernel + (g + b).unsqueeze(1), 2)
            f = f.masked_fill(f.isinf(), 0.0)
            g = -torch.logsumexp(kernel + (f + a).unsqueeze(2), 1)
            g = g.masked_fill(g.isinf(), 0.0)
        plan = (kernel + (f + a).unsqueeze(2) + (g + b).unsqueeze(1)).exp()  # (B, M, N)
    return (plan * cost).sum((1, 2))


def sliced_wasserstein(
    a: Tensor,
    b: Tensor,
    weight_a: Tensor,
    weight_b: Tensor,
    num_projections: int = 32,
    metric: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Average the squared Wasserstein distance over random lines.

    Args:
        a: First vectors (B, M, C).
        b: Second vectors (B, N, C).
        weight_a: Masses of the elements of the first sets, before they are scaled to 1 (B, M).
        weight_b: The same of the second sets (B, N).
        num_projections: Number of lines S.
        metric: Weights of the components (C), as in ``squared_distances``.
        generator: Source of the lines.

    Returns:
        (B); zero where one of the sets is empty.
    """
    num = a.shape[-1]
    lines = torch.randn(num, num_projections, generator=generator).to(a)
    lines = lines / lines.norm(dim=0, keepdim=True)
    if metric is not None:
        lines = lines * a.new_tensor(tuple(metric)).sqrt().unsqueeze(1)
    share_a, share_b = _shares(weight_a, None), _shares(weight_b, None)
    distance = quantile_distance(
        (a @ lines).mT, (b @ lines).mT, share_a.unsqueeze(1), share_b.unsqueeze(1), power=2
    )  # (B, S)
    there = (share_a.sum(1) > 0) & (share_b.sum(1) > 0)
    return torch.where(there, distance.mean(1), 0.0) * num


def quantile_distance(
    a: Tensor, b: Tensor, share_a: Tensor, share_b: Tensor, power: int = 1
) -> Tensor:
    """Wasserstein distance between weighted samples on a line, ∫ |F⁻¹ - G⁻¹|^p, exactly.

    Args:
        a: Samples (..., M).
        b: Samples (..., N).
        share_a: Shares of the samples, of sum 1, of a shape that broadcasts to that of ``a``.
        share_b: The same for ``b``.
        power: Power p of the difference of quantiles.

    Returns:
        (...), differentiable in the samples.
    """
    a, order_a = a.sort(-1)
    b, order_b = b.sort(-1)
    cumulated_a = share_a.expand_as(a).gather(-1, order_a).cumsum(-1)
    cumulated_b = share_b.expand_as(b).gather(-1, order_b).cumsum(-1)
    edges, _ = torch.cat([cumulated_a, cumulated_b], -1).clamp(max=1.0).sort(-1)
    steps = edges.diff(dim=-1, prepend=torch.zeros_like(edges[..., :1]))  # (..., M + N)
    middle = (edges - steps / 2).detach()
    place_a = torch.searchsorted(cumulated_a.detach().contiguous(), middle).clamp(
        max=a.shape[-1] - 1
    )
    place_b = torch.searchsorted(cumulated_b.detach().contiguous(), middle).clamp(
        max=b.shape[-1] - 1
    )
    difference = a.gather(-1, place_a) - b.gather(-1, place_b)
    return (difference.abs().pow(power) * steps).sum(-1)


def sorted_distance(a: Tensor, b: Tensor, power: int = 1) -> Tensor:
    """Wasserstein distance between samples of equal size, the mean of |a_(i) - b_(i)|^p.

    Args:
        a: Samples (..., N).
        b: Samples (..., N).
        power: Power p.

    Returns:
        (...)
    """
    difference = (a.sort(-1).values - b.sort(-1).values).abs()
    return difference.pow(power).mean(-1)


def _shares(weight: Tensor, importance: Tensor | None) -> Tensor:
    weight = weight.to(torch.get_default_dtype()) if weight.dtype == torch.bool else weight
    weight = weight if importance is None else weight * importance
    return weight / weight.sum(-1, keepdim=True).clamp(min=math.ulp(1.0))
