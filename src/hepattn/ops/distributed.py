"""The processes of a distributed training, and sums over them."""

import torch
from torch import Tensor, distributed


def process_rank() -> tuple[int, int]:
    """Number of this process and how many there are; (0, 1) outside of distributed training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def num_processes() -> int:
    """How many processes train together."""
    return process_rank()[1]


def mean_over_processes(total: Tensor) -> Tensor:
    """Average a total over the processes of a distributed training, without gradient.

    Distributed training averages the gradients of the processes. So a mean over all events of a
    step is each process's own sum over this average of their numbers, not its own mean: processes
    with fewer events count less. All processes have to call it alike.

    Args:
        total: A number or several, such as the sum of the weights of a batch.

    Returns:
        The average in a training, and the total itself outside of one: under ``no_grad``, and where
        there is one process.
    """
    total = total.detach()
    if not torch.is_grad_enabled() or num_processes() == 1:
        return total
    total = total.to(torch.promote_types(total.dtype, torch.float32)).clone()
    distributed.all_reduce(total)
    return total / num_processes()


def weighted_mean(value: Tensor, weight: Tensor | None = None) -> Tensor:
    """Average over all processes of a training what weighs something.

    Args:
        value: Values of any shape.
        weight: Their weights, not negative, of a shape that fits; all alike by default.

    Returns:
        A scalar; zero, with gradients of zero, where nothing weighs anything.
    """
    if weight is None:
        weight = torch.ones_like(value)
    weight = weight.to(torch.promote_types(value.dtype, torch.float32))
    total = mean_over_processes(weight.expand_as(value).sum())
    return (value * weight).sum() / torch.where(total == 0, 1, total)
