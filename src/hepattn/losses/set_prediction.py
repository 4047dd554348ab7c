"""The loss of networks that predict a set: match queries to targets, then compare the pairs."""

# B events, M queries, P targets, N tokens, R parameters, L layers, K matched pairs

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.losses.mask import (
    mask_bce,
    mask_bce_cost,
    mask_dice,
    mask_dice_cost,
    mask_focal,
    mask_focal_cost,
    mask_iou,
)
from hepattn.losses.object import object_bce
from hepattn.nn.mask_head import Detections
from hepattn.ops.assignment import Solver, submit
from hepattn.ops.distributed import weighted_mean
from hepattn.ops.sort import invert, sort_order, take


@dataclass(frozen=True)
class Terms:
    """Weights of the terms of a loss, or of the cost of a match; zero leaves a term out.

    Masks of few among many tokens have a small mean cross-entropy: the more tokens an event has,
    the more ``bce`` and ``focal`` have to weigh against ``dice``.

    Args:
        object: Whether the query has found an object.
        dice: Dice loss of the mask, between 0 and 1.
        focal: Focal loss of the mask, averaged over the event's tokens.
        bce: Binary cross-entropy of the mask, averaged over the event's tokens.
        iou: How well the query knows the overlap of its own mask; a loss only.
        regression: Smooth-L1 distance of the parameters.
        seed: Whether the query was not made of a token of the target; a cost only. It lets dynamic
            queries settle on a target from the first step.

    Raises:
        ValueError: If a weight is negative or not finite, or all are zero.
    """

    object: float = 1.0
    dice: float = 1.0
    focal: float = 0.0
    bce: float = 1.0
    iou: float = 0.0
    regression: float = 0.0
    seed: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f"{name}={weight} must be finite and not negative; 0 leaves it out"
                )
        if not any(asdict(self).values()):
            raise ValueError("all weights are 0; give at least one term a weight")


class _Targets(NamedTuple):
    """The objects to find: those that have tokens come first, in their given order.

    Attributes:
        mask: True for the tokens of each target (B, P, N).
        number: Targets with tokens (B).
        place: Where each given target is in this order (B, P).
        token_valid: True for real tokens (B, N).
        parameters: Their parameters (B, P, R), or None.
    """

    mask: Tensor
    number: Tensor
    place: Tensor
    token_valid: Tensor
    parameters: Tensor | None


class SetPredictionLoss(nn.Module):
    """Match the queries of every layer to targets, and compare the matched pairs.

    Each layer's detections, the initial queries' too, are matched on their own to the targets
    that have tokens left, by the assignment of smallest total cost. The cost of being an object
    is minus its probability, which is bounded as the dice cost is (arXiv:2005.12872, section 3).
    Each term is averaged over the layers, so that weights mean the same at every depth; within a
    layer, mask, overlap and regression losses are averaged over the matched pairs of the batch
    and the object loss over its real queries, by weight.

    Args:
        weights: Weights of the terms of the loss.
        costs: Weights of the terms of the cost of a match, without ``iou``; ``seed`` is one of
            them only.
        no_object_weight: Weight of queries without a target in the object loss.
        solver: What solves the assignment, see `hepattn.ops.assignment.assign`.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        weights: Terms = Terms(),
        costs: Terms = Terms(),
        no_object_weight: float = 1.0,
        solver: Solver = "scipy",
    ) -> None:
        super().__init__()
        if costs.iou:
            raise ValueError(f"costs.iou={costs.iou} must be 0: the overlap is no matching cost")
        if weights.seed:
            raise ValueError(f"weights.seed={weights.seed} must be 0: it is a matching cost only")
        if not 0 <= no_object_weight < math.inf:
            raise ValueError(f"no_object_weight={no_object_weight} must be finite and not negative")
        self.weights = weights
        self.costs = costs
        self.no_object_weight = no_object_weight
        self.solver = solver

    def forward(
        self,
        layers: Sequence[Detections],
        query_valid: Tensor,
        token_target: Tensor,
        target_valid: Tensor,
        token_valid: Tensor,
        parameters: Tensor | None = None,
        seed: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the loss.

        Args:
            layers: What the queries say, from the initial ones to the last layer's; only
                ``layers[-1:]`` for a loss without deep supervision.
            query_valid: True for real queries, which come first (B, M).
            token_target: Target that each token belongs to, -1 for none (B, N).
            target_valid: True for real targets (B, P).
            token_valid: True for real tokens (B, N).
            parameters: Parameters of the targets (B, P, R), scaled as the network's own.
            seed: Token that each query was made of (B, M).

        Returns:
            The weighted terms of the loss by name, each a scalar that is zero where there is
            nothing to compare; and the query of each target in the last layer (B, P), -1 for
            those that have no tokens, or got none.

        Raises:
            ValueError: If there are no layers, or if a term lacks what it needs.
            FloatingPointError: If a cost is not finite; it names the event of the batch.
        """
        self._check(layers, parameters, seed)
        targets = _make_targets(token_target, target_valid, token_valid, parameters)
        query = self._match(layers, query_valid, targets, seed)  # (L, B, P)
        terms = [
            self._compare(layer, row, query_valid, targets)
            for layer, row in zip(layers, query, strict=True)
        ]
        losses = {
            name: getattr(self.weights, name) * torch.stack([term[name] for term in terms]).mean()
            for name in terms[0]
        }
        return losses, query[-1].gather(1, targets.place)  # (B, P)

    def _check(
        self, layers: Sequence[Detections], parameters: Tensor | None, seed: Tensor | None
    ) -> None:
        if not layers:
            raise ValueError("layers is empty: give at least the last layer's detections")
        if self.weights.iou and any(layer.iou_logit is None for layer in layers):
            raise ValueError(
                f"weights.iou={self.weights.iou} needs iou_logit of every layer; give the network "
                "a head for it, or set the weight to 0"
            )
        if self.costs.seed and seed is None:
            raise ValueError(
                f"costs.seed={self.costs.seed} needs queries that were made of tokens; set it to 0"
            )
        regression = self.weights.regression or self.costs.regression
        if regression and (parameters is None or any(x.parameters is None for x in layers)):
            lacking = "the targets" if parameters is None else "every layer"
            raise ValueError(
                f"regression={regression} needs parameters of {lacking}; give them, or set the "
                "weight and the cost to 0"
            )

    @torch.no_grad()
    def _match(
        self,
        layers: Sequence[Detections],
        query_valid: Tensor,
        targets: _Targets,
        seed: Tensor | None,
    ) -> Tensor:
        """Return the query of each target in each layer (L, B, P), -1 for none."""
        known = 0.0  # of the cost
        if self.costs.seed:
            tokens = seed.unsqueeze(1).expand(-1, targets.mask.shape[1], -1)  # (B, P, M)
            known = self.costs.seed * targets.mask.gather(2, tokens).mT.float()  # (B, M, P)
        num_queries = query_valid.sum(1)
        pending = [  # a layer's problems are solved while the next one's costs are computed
            submit(self._cost(layer, targets) - known, num_queries, targets.number, self.solver)
            for layer in layers
        ]
        return torch.stack([assignment.result() for assignment in pending])  # (L, B, P)

    def _cost(self, layer: Detections, targets: _Targets) -> Tensor:
        """Return the cost of each query for each target (B, M, P)."""
        costs, masks = self.costs, (layer.mask_logit, targets.mask, targets.token_valid)
        probability = layer.object_logit.float().sigmoid()  # (B, M)
        cost = -costs.object * probability.unsqueeze(2).expand(-1, -1, targets.mask.shape[1])
        if costs.dice:
            cost = cost + costs.dice * mask_dice_cost(*masks)
        if costs.focal:
            cost = cost + costs.focal * mask_focal_cost(*masks)
        if costs.bce:
            cost = cost + costs.bce * mask_bce_cost(*masks)
        if costs.regression:
            pairs = torch.broadcast_tensors(
                layer.parameters.float().unsqueeze(2), targets.parameters.unsqueeze(1)
            )  # (B, M, P, R) each
            cost = cost + costs.regression * F.smooth_l1_loss(*pairs, reduction="none").mean(3)
        return cost  # (B, M, P)

    def _compare(
        self, layer: Detections, query: Tensor, query_valid: Tensor, targets: _Targets
    ) -> dict[str, Tensor]:
        """Return the terms of one layer's loss, before their weights.

        Args:
            layer: What the queries say.
            query: Query of each target, -1 for none (B, P).
            query_valid: True for real queries (B, M).
            targets: What is to be found.
        """
        event, target = (query >= 0).nonzero(as_tuple=True)  # (K) each
        found = query[event, target]  # (K)
        masks = (
            layer.mask_logit[event, found],
            targets.mask[event, target],
            targets.token_valid[event],
        )  # (K, N) each
        terms = {}
        if self.weights.object:
            matched = torch.zeros_like(query_valid)
            matched[event, found] = True
            terms["object"] = object_bce(
                layer.object_logit, matched, query_valid, self.no_object_weight
            )
        if self.weights.dice:
            terms["dice"] = weighted_mean(mask_dice(*masks))
        if self.weights.focal:
            terms["focal"] = weighted_mean(mask_focal(*masks))
        if self.weights.bce:
            terms["bce"] = weighted_mean(mask_bce(*masks))
        if self.weights.iou:
            iou_logit = layer.iou_logit[event, found].float()
            terms["iou"] = weighted_mean(
                F.binary_cross_entropy_with_logits(iou_logit, mask_iou(*masks), reduction="none")
            )
        if self.weights.regression:
            distance = F.smooth_l1_loss(
                layer.parameters[event, found].float(),
                targets.parameters[event, target],
                reduction="none",
            )  # (K, R)
            terms["regression"] = weighted_mean(distance.mean(1))
        return terms


def _make_targets(
    token_target: Tensor, target_valid: Tensor, token_valid: Tensor, parameters: Tensor | None
) -> _Targets:
    """Put the targets that have tokens first; the others cannot be found."""
    batch, num_targets = target_valid.shape
    target = token_target.where(token_valid, -1)  # (B, N)
    has_tokens = target_valid.new_zeros(batch, num_targets + 1)
    has_tokens.scatter_(1, target + 1, True)  # slot 0 for the tokens of none
    findable = has_tokens[:, 1:] & target_valid  # (B, P)
    slots = torch.arange(num_targets, device=target.device)  # (P)
    order = sort_order(slots.expand(batch, -1), findable)  # (B, P)
    mask = target.unsqueeze(1) == order.unsqueeze(2)  # (B, P, N)
    return _Targets(
        mask=mask,
        number=findable.sum(1),
        place=invert(order),
        token_valid=token_valid,
        parameters=None if parameters is None else take(parameters.float(), order),
    )
