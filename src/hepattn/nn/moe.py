"""Mixture of experts: several dense nets, of which each token uses a few."""

# B events, N tokens, D features, X experts, K experts a token

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hepattn.nn.dense import Dense


class MixtureOfExperts(nn.Module):
    """Send each token to the experts that a router prefers and sum what they say.

    A token's output is the sum of its ``top_k`` experts' outputs, weighted by the router's
    probabilities, which are made to sum to one unless there is a single one (arXiv:2101.03961).
    After each forward in training ``auxiliary_loss`` holds ``weight * X * sum_x f_x P_x``, with f_x
    the share of choices that fell on expert x and P_x its mean probability. It is ``weight`` if all
    experts are used alike and drives the router towards that. `auxiliary_losses` collects it from a
    whole network.

    With a capacity, an expert takes at most ``ceil(capacity_factor * top_k * n / X)`` of an
    event's n tokens: first the tokens that prefer it to all others, then those whose second choice
    it is and so on, each in their order. The rest get nothing from it. A capacity bounds an
    expert's load, but the outputs then depend on the order of the tokens. Events never compete
    with each other.

    Args:
        dim: Number of features D.
        num_experts: Number of experts X.
        top_k: Experts of each token.
        capacity_factor: Largest load of an expert as a multiple of the mean load; no limit by
            default.
        expert: Builds an expert from the number of features; a `Dense` by default.
        weight: Factor on the auxiliary loss.

    Raises:
        ValueError: If ``top_k`` is not between one and the number of experts, or another number is
            out of range.
    """

    auxiliary_loss: Tensor | None

    def __init__(
        self,
        dim: int,
        num_experts: int = 4,
        top_k: int = 2,
        capacity_factor: float | None = None,
        expert: Callable[[int], nn.Module] = Dense,
        weight: float = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k={top_k} must be between 1 and num_experts={num_experts}")
        if capacity_factor is not None and capacity_factor <= 0:
            raise ValueError(f"capacity_factor={capacity_factor} must be positive")
        if weight < 0:
            raise ValueError(f"weight={weight} of the auxiliary loss must not be negative")
        self.top_k = top_k
        self.capacity_factor = capacity_factor
        self.weight = weight
        self.router = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(expert(dim) for _ in range(num_experts))
        self.auxiliary_loss = None

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map the tokens.

        Args:
            x: Tokens (B, N, D).
            valid: True for real tokens (B, N); all by default. Padding is neither sent to an
                expert nor counted.

        Returns:
            (B, N, D), zero at padded slots.
        """
        if valid is None:
            valid = x.new_ones(x.shape[:2], dtype=torch.bool)
        # Rounded probabilities would send tokens to other experts.
        with torch.autocast(x.device.type, enabled=False):
            logits = nn.functional.linear(x.float(), self.router.weight.float())
            probabilities = logits.softmax(-1)  # (B, N, X)
        gates, choice = probabilities.topk(self.top_k, -1)  # (B, N, K)
        if self.top_k > 1:  # a single gate would be the constant one, without a gradient
            gates = gates / gates.sum(-1, keepdim=True)
        chosen = nn.functional.one_hot(choice, len(self.experts))  # (B, N, K, X)
        chosen = chosen * valid[:, :, None, None]
        self.auxiliary_loss = None
        if self.training:
            self.auxiliary_loss = self.weight * _imbalance(probabilities, chosen, valid)
        if self.capacity_factor is not None:
            chosen = self._within_capacity(chosen, valid.sum(1))
        share = (gates.unsqueeze(-1) * chosen).sum(2).flatten(0, 1)  # (B * N, X)
        sent = chosen.sum(2).flatten(0, 1)
        tokens = x.flatten(0, 1)  # (B * N, D)
        # The sum is made in float32, as autocast sums are.
        out = torch.zeros_like(tokens, dtype=torch.promote_types(x.dtype, torch.float32))
        for index, expert in enumerate(self.experts):
            (mine,) = sent[:, index].nonzero(as_tuple=True)  # (tokens of this expert,)
            update = share[mine, index].unsqueeze(-1) * expert(tokens[mine])
            out = out.index_add(0, mine, update.to(out.dtype))
        return out.to(x.dtype).view_as(x)

    def _within_capacity(self, chosen: Tensor, num_tokens: Tensor) -> Tensor:
        """Keep the choices (B, N, K, X) that an expert has room for."""
        scale = self.capacity_factor * self.top_k / len(self.experts)
        capacity = (scale * num_tokens).ceil()[:, None, None]  # (B, 1, 1)
        queue = chosen.transpose(1, 2).flatten(1, 2)  # (B, K * N, X), first choices in front
        queue = queue * (queue.cumsum(1) <= capacity)
        return queue.unflatten(1, (self.top_k, -1)).transpose(1, 2)

    def __getstate__(self) -> dict[str, Any]:
        # A loss belongs to one step's graph, which cannot be copied or saved with the layer.
        return self.__dict__ | {"auxiliary_loss": None}


def apply_dense(dense: nn.Module, x: Tensor, valid: Tensor) -> Tensor:
    """Map tokens (B, N, D) by a dense net, or by experts, which have to know the real ones."""
    return dense(x, valid) if isinstance(dense, MixtureOfExperts) else dense(x)


def auxiliary_losses(module: nn.Module) -> dict[str, Tensor]:
    """Collect the weighted losses that the layers of a network left in their last forward.

    Args:
        module: A network after a forward in training.

    Returns:
        ``{"load_balance": sum over the layers}``; empty without such layers and in evaluation.
    """
    layers = (layer for layer in module.modules() if isinstance(layer, MixtureOfExperts))
    losses = [layer.auxiliary_loss for layer in layers if layer.auxiliary_loss is not None]
    return {"load_balance": torch.stack(losses).sum()} if losses else {}


def _imbalance(probabilities: Tensor, chosen: Tensor, valid: Tensor) -> Tensor:
    """Return one if all experts are used alike, more if not; zero without real tokens."""
    num_tokens = valid.sum().clamp(min=1)
    num_choices = chosen.sum().clamp(min=1)
    share = chosen.sum((0, 1, 2)) / num_choices  # (X,)
    mean = (probabilities * valid.unsqueeze(-1)).sum((0, 1)) / num_tokens  # (X,)
    return probabilities.shape[-1] * (share * mean).sum()
