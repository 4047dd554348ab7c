"""Random events, and their losses one by one."""

import torch
from torch import Tensor

from hepattn.losses.event import EventLoss


def events(num_outputs: int) -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(6, num_outputs), torch.randint(max(num_outputs, 2), (6,))


def loop(loss: EventLoss, logit: Tensor, label: Tensor) -> list[float]:
    """Loss of each event in a batch of its own."""
    one = torch.ones(1)
    return [
        float(loss(logit[i : i + 1], label[i : i + 1], one.to(logit.dtype)))
        for i in range(len(logit))
    ]
