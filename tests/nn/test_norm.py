"""Norms by name."""

import torch
from torch.testing import assert_close

from hepattn.nn.norm import make_norm


def test_layer_norm_and_rms_norm_match_their_definitions() -> None:
    x = torch.randn(3, 8)
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(make_norm("LayerNorm", 8)(x), centred / spread)
    rms = x.square().mean(-1, keepdim=True).sqrt()
    assert_close(make_norm("RMSNorm", 8)(x), x / rms)


def test_dynamic_tanh_starts_as_tanh_of_half_the_input() -> None:
    x = torch.randn(3, 8)
    assert_close(make_norm("DyT", 8)(x), torch.tanh(0.5 * x))
