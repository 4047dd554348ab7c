"""The nearest neighbours of each token of an event."""

# B events, N tokens, C coordinates, k neighbours

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest_neighbours(x: Tensor, valid: Tensor, num_neighbours: int) -> Tensor:
    """Find the nearest other real tokens of each token.

    Distances are Euclidean and computed in float32 at least, whatever the autocast, as
    ``|x_i|^2 - 2 x_i x_j + |x_j|^2`` about the mean of the event, which keeps the rounding small.
    Of tokens at the same distance any may be taken, as `torch.topk` does; the neighbours of a
    token come in no particular order.

    Args:
        x: Coordinates (B, N, C).
        valid: True for real tokens (B, N).
        num_neighbours: How many neighbours to find.

    Returns:
        Slots (B, N, k) of the neighbours in the flattened batch of B · N slots. Where an event has
        fewer than k other real tokens, what is missing has the slot B · N. What is said about
        padded tokens means nothing.
    """
    num_events, num_tokens = valid.shape
    with torch.autocast(x.device.type, enabled=False), torch.no_grad():
        x = x if x.dtype == torch.float64 else x.float()
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        mean = x.sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
        x = x - mean  # (B, N, C)
        square = x.square().sum(-1)  # (B, N)
        # |x_i|^2 is the same for all j and orders nothing.
        distance = torch.baddbmm(square.unsqueeze(1), x, x.transpose(1, 2), alpha=-2)  # (B, N, N)
        itself = torch.eye(num_tokens, dtype=torch.bool, device=x.device)
        distance = distance.masked_fill(itself | ~valid.unsqueeze(1), float("inf"))
        distance = F.pad(distance, (0, num_neighbours), value=float("inf"))  # (B, N, N + k)
        found, index = distance.topk(num_neighbours, largest=False, sorted=False)  # (B, N, k)
        start = torch.arange(num_events, device=x.device)[:, None, None] * num_tokens
        return (index + start).masked_fill(found.isinf(), num_events * num_tokens)
