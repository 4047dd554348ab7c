"""The last step of a network that can be calibrated: rescaled logits."""

# B events, O outputs, C classes

import torch
from torch import Tensor, nn


class LogitScaling(nn.Module):
    """Map the logits z of an event to ``W z + b``, which calibration sets after the training.

    Temperature, vector and matrix scaling (arXiv:1706.04599) all have this form. It starts as the
    identity, exact in every precision, and no optimiser changes it: W and b are buffers, so that
    checkpoints hold them and exported networks apply them.

    Args:
        num_outputs: Number of logits O.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(num_outputs))
        self.register_buffer("bias", torch.zeros(num_outputs))

    def forward(self, logit: Tensor) -> Tensor:
        """Rescale logits (…, O)."""
        # a matrix product would round to half precision under autocast, and to TF32
        return (logit.unsqueeze(-2) * self.weight).sum(-1) + self.bias


class ScaledNetwork(nn.Module):
    """A network and the scaling of its logits, which is the identity until it is calibrated.

    Args:
        network: Maps any inputs to logits (B, O).
        num_outputs: Number of logits O.
    """

    def __init__(self, network: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.network = network
        self.scaling = LogitScaling(num_outputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits (B, O) after the scaling."""
        return self.scaling(self.network(*inputs))


def class_logits(logit: Tensor) -> Tensor:
    """Give each class a logit: a single one is that of the second of two classes.

    Args:
        logit: (B, 1), or (B, C) for more classes.

    Returns:
        (B, C), whose softmax are the probabilities of the classes.
    """
    if logit.shape[-1] > 1:
        return logit
    return torch.cat([torch.zeros_like(logit), logit], -1)
