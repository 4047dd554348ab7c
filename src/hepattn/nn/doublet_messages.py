"""Messages between hits along their doublets."""

# B events, M hits, K doublets of a hit, D features of a doublet, W features of a hit

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.dense import Dense
from hepattn.ops.sort import take


class DoubletGraph(NamedTuple):
    """The doublets of some hits as the edges of a graph among these hits.

    Attributes:
        partner: The other hit of each doublet, as its place among the M hits (B, M, K).
        valid: False where a doublet is missing, or its partner is none of the M hits (B, M, K).
        features: What is known of each (B, M, K, D).
        logit: How likely both its hits are of one particle (B, M, K).
    """

    partner: Tensor
    valid: Tensor
    features: Tensor
    logit: Tensor


class DoubletMessages(nn.Module):
    """One round of messages between the hits of an event, along their doublets, both ways.

    A hit hears from the partners in its own list of doublets and from the hits that have it in
    theirs: where many hits are near, one of the two lists often lacks the doublet. A message is
    made of both hits and the doublet; gates, which start at the doublet's own probability, add the
    messages of either kind up. Compare the interaction network of arXiv:2103.16701.

    Args:
        width: Features W of a hit.
        dim: Features D of a doublet, and of a message.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.owner = nn.Linear(width, dim)
        self.partner = nn.Linear(width, dim, bias=False)
        self.doublet = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, 1)
        self.update = Dense(width + 2 * dim, width, hidden=2 * width)

    def forward(self, x: Tensor, graph: DoubletGraph) -> Tensor:
        """Update the hits (B, M, W) by the messages along the graph."""
        normal = self.norm(x)
        place = graph.partner.flatten(1)  # (B, M * K)
        partner = take(self.partner(normal), place).view_as(graph.features)
        message = F.gelu(
            self.owner(normal).unsqueeze(2) + partner + self.doublet(graph.features)
        )  # (B, M, K, D)
        gate = (self.gate(message).squeeze(-1) + graph.logit).sigmoid()  # (B, M, K)
        message = message * gate.where(graph.valid, 0.0).unsqueeze(-1)
        index = place.unsqueeze(-1).expand(-1, -1, message.shape[-1])  # (B, M * K, D)
        of_partners = torch.zeros_like(message[:, :, 0]).scatter_add(
            1, index, message.flatten(1, 2)
        )  # (B, M, D)
        heard = torch.cat([message.sum(2), of_partners], -1) / 2  # (B, M, 2 D)
        return x + self.update(torch.cat([normal, heard], -1))
