"""The scaling of logits is nothing until it is calibrated, and then what it says."""

import torch
from torch import nn
from torch.testing import assert_close

from hepattn.nn.scaling import LogitScaling, ScaledNetwork, class_logits


def test_a_new_scaling_changes_no_bit_of_the_logits() -> None:
    logit = 1e3 * torch.randn(50, 3)
    assert torch.equal(LogitScaling(3)(logit), logit)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LogitScaling(3)(logit), logit)


def test_a_scaling_is_an_affine_map() -> None:
    scaling, logit = LogitScaling(3), torch.randn(7, 3)
    scaling.weight.copy_(torch.randn(3, 3))
    scaling.bias.copy_(torch.randn(3))
    assert_close(scaling(logit), logit @ scaling.weight.T + scaling.bias)


def test_a_scaled_network_has_its_scaling_in_the_checkpoint_and_not_in_the_optimiser() -> None:
    net = ScaledNetwork(nn.Linear(4, 3), 3)
    assert {name for name, _ in net.named_parameters()} == {"network.weight", "network.bias"}
    assert {"scaling.weight", "scaling.bias"} < net.state_dict().keys()
    x = torch.randn(5, 4)
    assert torch.equal(net(x), net.network(x))


def test_one_logit_is_that_of_the_second_class() -> None:
    logit = torch.randn(6, 1)
    assert_close(class_logits(logit).softmax(-1)[:, 1], logit[:, 0].sigmoid())
    assert class_logits(logit.expand(6, 3)).shape == (6, 3)
